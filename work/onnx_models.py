"""Models on onnxruntime: providers and their options, sessions, and who may call them when.

A companion of sort_faces.py, loaded with the first .onnx file. What runs is never swapped silently.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

batches, gpu_libraries = sf.companion("batches"), sf.companion("gpu_libraries")
hush = sf.companion("hush")

PACKAGE = {
    "cuda": gpu_libraries.PACKAGE,
    "tensorrt": gpu_libraries.PACKAGE,  # TensorRT itself is NVIDIA's
    "rocm": "onnxruntime-migraphx",
    "directml": "onnxruntime-directml",
    "coreml": "onnxruntime",
    "openvino": "onnxruntime-openvino",
}
# What a provider has compiled for a model and a shape it keeps in a folder, told under these names
# (onnxruntime.ai/docs/execution-providers).
CACHES = {
    "tensorrt": ("trt_engine_cache_path", "trt_timing_cache_path"),
    "openvino": ("cache_dir",),
    "coreml": ("ModelCacheDirectory",),
    "rocm": (),  # by its environment
}
SWITCHES = {"tensorrt": {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1"}}
FALLBACK = {"tensorrt": "cuda"}  # what computes an operator that the provider lacks, before the CPU

# Rows a call. On GPUs: H100, IResNet-50: 570 faces/s one at a time, 3,120 by 8, 6,037 by 64. On
# CPUs a face takes as long in any company up to 8 and longer in larger: docs/analysis/embed.md.
GPU_SIZES = (8, 64)
CPU_SIZE = 8
MOST_SHAPES = 8  # sessions of one model; further shapes share the last
MIN_COSINE = 0.9999  # of embeddings in half precision to those in single

# DirectML allows one caller at a time, and with more than one session on a card threads have hung
# (onnxruntime issue 20713); the others take as many as come, each in a stream of its own.
DIRECTML = threading.RLock()


def choose_provider(spec: sf.EngineSpec) -> str:
    """Provider to bind: the one asked for, or with `auto` the best this onnxruntime offers."""
    offered = set(sf.load_onnxruntime().get_available_providers())
    usable = [name for name, names in sf.PROVIDERS.items() if offered.intersection(names)]
    wanted = usable[0] if spec.provider == "auto" else spec.provider
    if wanted not in usable:
        raise sf.SortFacesError(
            f"--provider {wanted}: this onnxruntime offers {', '.join(usable)}; "
            f"{gpu_libraries.swap_line(PACKAGE[wanted])}"
        )
    if spec.require_gpu and wanted == "cpu":
        raise sf.SortFacesError(
            "--require-gpu: this onnxruntime offers only the CPU; for a card of NVIDIA "
            f"{gpu_libraries.swap_line(PACKAGE['cuda'])}, or install the package of your card"
        )
    return wanted


def check_bound_provider(provider: str, session: Any, told: Sequence[Any] = ()) -> None:
    """Refuse a model that onnxruntime moved to another provider behind our back.

    told: the operator's own options, which it moves for as well where one is wrong.
    """
    bound = session.get_providers()[0]
    if bound not in sf.PROVIDERS[provider]:
        words = "the log has why; try without --provider-option"
        raise sf.SortFacesError(
            f"--provider {provider}: onnxruntime bound {bound} instead: "
            f"{words if told else gpu_libraries.why_not(provider)}"
        )


@contextlib.contextmanager
def quiet_loading(provider: str) -> Iterator[None]:
    """Models load within: NVIDIA's libraries first, what any of them says goes to the log."""
    with hush.hushed():
        if provider in ("cuda", "tensorrt"):
            gpu_libraries.preload(sf.load_onnxruntime())
        yield


def session_settings(spec: sf.EngineSpec, provider: str, threads: int) -> dict[str, Any]:
    """Arguments of InferenceSession: on the provider, or on the CPU where that lacks an operator.

    On CPUs several photos are worked on at once, so each takes one thread.
    """
    onnxruntime = sf.load_onnxruntime()
    offered = onnxruntime.get_available_providers()
    chain = [provider, FALLBACK.get(provider, "cpu"), "cpu"]
    found = [next((name for name in sf.PROVIDERS[one] if name in offered), None) for one in chain]
    names = list(dict.fromkeys(name for name in found if name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised; the lines would be said twice
    if provider == "cpu":
        options.intra_op_num_threads = 1 if threads > 1 else 0
    if provider == "directml":  # required by the DirectML provider
        options.enable_mem_pattern = False
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    own = [provider_options(spec, provider), *({} for _ in names[1:])]
    return {"sess_options": options, "providers": names, "provider_options": own}


def provider_options(spec: sf.EngineSpec, provider: str) -> dict[str, str]:
    """What the provider is told: where its cache lies, and then what --provider-option says."""
    told: dict[str, str] = {}
    folder = Path(spec.model_root).expanduser() / "cache" / provider
    if provider in CACHES:
        try:
            sf.make_folder(folder)
        except sf.SortFacesError as error:
            sf.log.warning("what %s compiles is not kept: %s", provider, error)
        else:
            told = {**SWITCHES.get(provider, {}), **dict.fromkeys(CACHES[provider], str(folder))}
            if provider == "rocm":
                os.environ.setdefault("ORT_MIGRAPHX_MODEL_CACHE_PATH", str(folder))
    return {**told, **dict(spec.provider_option)}


def model_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a file that is no model it can run."""
    state = sf.load_onnxruntime().capi.onnxruntime_pybind11_state
    broken = (state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument)
    return *broken, state.Fail, state.NoSuchFile, state.NoModel


class Model:
    """An .onnx file on a provider: an InferenceSession for any number of threads and shapes.

    On a GPU each shape of the input has a session of its own, as kernels are searched for whenever
    a session's shape changes. What is not here comes from the first session.
    """

    def __init__(
        self, source: str | bytes, spec: sf.EngineSpec, threads: int, session: Any = None
    ) -> None:
        """Load it, or take the session that another library opened with our settings.

        Raises what model_errors names, and SortFacesError for another provider.
        """
        self.source, self.provider = source, choose_provider(spec)
        self.settings = session_settings(spec, self.provider, threads)
        self.lock, self.of_shape = threading.Lock(), {}
        self.first = session or self.opened()
        check_bound_provider(self.provider, self.first, spec.provider_option)

    def opened(self) -> Any:
        with quiet_loading(self.provider):
            return sf.load_onnxruntime().InferenceSession(self.source, **self.settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["first"], name)

    def run(self, outputs: Sequence[str] | None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs named, or all, for these inputs."""
        session = self.session_for(tuple(value.shape for value in feeds.values()))
        with DIRECTML if self.provider == "directml" else contextlib.nullcontext():
            return session.run(outputs, feeds)

    def session_for(self, shape: tuple[tuple[int, ...], ...]) -> Any:
        if self.provider == "cpu":
            return self.first
        with self.lock:
            if shape not in self.of_shape:
                few = len(self.of_shape) < MOST_SHAPES
                self.of_shape[shape] = self.first if not self.of_shape or not few else self.opened()
            return self.of_shape[shape]

    def rows(self, output: str, most: int = 0) -> Any:
        """One output of a model with one input as a function of rows: (n, ...) -> (n, k).

        most: rows a call, where that is known to be limited; 0: as the model's input says.
        """
        asked, on_cpu = self.get_inputs()[0], self.provider == "cpu"
        fixed = asked.shape[0] if isinstance(asked.shape[0], int) and asked.shape[0] > 0 else most
        sizes = (fixed,) if fixed else (CPU_SIZE,) if on_cpu else GPU_SIZES

        def compute(rows: np.ndarray) -> np.ndarray:
            return self.run([output], {asked.name: rows})[0].reshape(len(rows), -1)

        return batches.Rows(compute, sizes, padded=bool(fixed) or not on_cpu, shared=not on_cpu)


def in_half_precision(path: str) -> bytes:
    """An .onnx file with float16 weights and arithmetic, its inputs and outputs as they were."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    return model.SerializeToString()
