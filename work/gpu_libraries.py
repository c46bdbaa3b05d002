"""What onnxruntime needs of CUDA, what of it is there, and the one line that mends it.

A companion of sort_faces.py, loaded where a model goes to a GPU, where that fails, and by `doctor`.
CUDA is three parts: the driver of the card, the libraries of the CUDA and cuDNN that this
onnxruntime was built for, and an onnxruntime with CUDA in it. Whether they fit is found out by
computing one convolution in a process of its own, which can die alone and say what it likes.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import io
import re
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import sort_faces as sf

PACKAGE = "onnxruntime-gpu"  # of PyPI; its extras [cuda,cudnn], since 1.21, are the libraries
# The first of another CUDA, by what the wheels 1.22, 1.24, 1.26 (12), 1.27 and 1.31 (13) say.
FIRST_OF_CUDA_13 = "1.27"
DRIVER_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
NOT_FOUND = (
    r"(\S+): cannot open shared object",
    r'depends on "([^"]+)" which is missing',
    r"(cuDNN) (?:is unavailable|is not available|library was not found)",  # then it runs, slowly
)
PROBE_SECONDS = 120.0  # loading half a gigabyte of libraries from a slow disk
CONVOLUTION = (  # an ONNX model of 111 bytes: y = Conv(x, w), x of 1 x 1 x 8 x 8, opset 11
    "CAYSADpjCg8KAXgKAXcSAXkiBENvbnYSAWcqEwgBCAEIAQgBEAEiBAAAgD9CAXdaGwoBeBIWChQIARIQCgIIAQoCCAEK"
    "AggICgIICGIbCgF5EhYKFAgBEhAKAggBCgIIAQoCCAgKAggIQgQKABAL"
)
PROBE = """
import base64, sys, numpy, onnxruntime
getattr(onnxruntime, "preload_dlls", print)()
model = base64.b64decode(sys.argv[1])
session = onnxruntime.InferenceSession(model, providers=["CUDAExecutionProvider"])
session.run(None, {"x": numpy.zeros((1, 1, 8, 8), "float32")})
print("computed on", session.get_providers()[0])
"""


@dataclass(frozen=True)
class Cuda:
    """What an onnxruntime wants of CUDA, and what there is of it."""

    package: str = ""  # onnxruntime-gpu 1.31.1
    built_for: str = ""  # CUDA 13.0; empty: it has no CUDA
    driver: str = ""  # the newest CUDA the driver can do; empty: no driver
    cudnn: str = ""  # 9; empty: the package does not say, nor has it extras for pip
    installed: dict[str, str] = field(default_factory=dict)  # {nvidia package of pip: version}
    works: bool = False  # a convolution was computed
    said: str = ""  # what the libraries said meanwhile


def major(version: str) -> int:
    return int(version.partition(".")[0] or 0)


def missing_library(said: str) -> str:
    """The first library that was not found, by what Linux, Windows and onnxruntime say of it."""
    found = (re.search(words, said) for words in NOT_FOUND)
    return next((one[1] for one in found if one), "")


def failure(said: str) -> str:
    """What CUDA or cuDNN said went wrong: `CUDA failure 100: no CUDA-capable device is ...`."""
    found = re.search(r"((?:CUDA|CUDNN|CUBLAS) failure \d+: [^;\n]+)", said)
    last = [line for line in said.splitlines() if line.strip()][-1:]
    return found[1].strip() if found else " ".join(last)[-200:]


def verdict(cuda: Cuda) -> tuple[str, str]:
    """(what is wrong, what to do) of a CUDA that does not work; empty texts for one that does."""
    library = missing_library(cuda.said)
    if cuda.works and library != "cuDNN":
        return "", ""
    if not cuda.built_for:
        return "this onnxruntime has no CUDA", swap_line(PACKAGE)
    if not cuda.driver:
        return (
            f"{wants(cuda)}, and no NVIDIA driver is here ({DRIVER_LIBRARY})",
            "install the driver of the card (a container: --gpus all), or say --provider cpu",
        )
    if major(cuda.driver) < major(cuda.built_for):
        older = pip_line(f"{PACKAGE}[cuda,cudnn]<{FIRST_OF_CUDA_13}")
        mend = f"{older}, or install a newer driver" if major(cuda.driver) == 12 else ""
        return (
            f"{wants(cuda)}, and the driver is for CUDA {cuda.driver}",
            mend or "install a newer driver",
        )
    if library:
        by_hand = f"{wants(cuda)}: put them where the loader looks (LD_LIBRARY_PATH, PATH)"
        mend = pip_line(f"{PACKAGE}[cuda,cudnn]") if cuda.cudnn else by_hand
        return f"{wants(cuda)}, and {library} is not there", mend
    return (
        f"{wants(cuda)}, and that fails: {failure(cuda.said)}",
        "look at nvidia-smi and CUDA_VISIBLE_DEVICES, or say --provider cpu",
    )


def wants(cuda: Cuda) -> str:
    cudnn = f" and cuDNN {cuda.cudnn}" * bool(cuda.cudnn)
    return f"{cuda.package} wants CUDA {major(cuda.built_for)}{cudnn}"


def what_is_here(cuda: Cuda) -> str:
    """The driver and the libraries, those of pip before those of the system."""
    driver = f"a driver for CUDA {cuda.driver}" if cuda.driver else "no driver"
    ours = [
        f"{name} {version}"
        for name, version in cuda.installed.items()
        if re.search("cuda-runtime|cublas|cudnn", name)
    ]
    system = [ctypes.util.find_library(name) for name in ("cudart", "cublas", "cudnn")]
    return ", ".join([driver, *(ours or filter(None, system))])


def pip_line(what: str) -> str:
    return f'{sys.executable} -m pip install "{what}"'


def swap_line(package: str) -> str:
    """The line that puts another onnxruntime in the place of what is there."""
    have = " ".join(onnxruntimes()) or "onnxruntime"
    what = f"{PACKAGE}[cuda,cudnn]" if package == PACKAGE else package
    return f"{sys.executable} -m pip uninstall -y {have} && {pip_line(what)}"


def onnxruntimes() -> list[str]:
    """The packages of pip that own the folder onnxruntime; more than one overwrite each other."""
    owners = metadata.packages_distributions().get("onnxruntime", [])
    return sorted({name for name in owners if name.startswith("onnxruntime")})


def look(probing: bool = True) -> Cuda:
    """What there is; probing: also whether it computes, where CUDA is offered at all."""
    onnxruntime = sf.load_onnxruntime()
    built_for = ""
    with contextlib.suppress(ImportError):
        from onnxruntime.capi import build_and_package_info as built

        built_for = str(getattr(built, "cuda_version", ""))
    owner = (onnxruntimes() or ["onnxruntime"])[-1]
    extras = ""
    with contextlib.suppress(metadata.PackageNotFoundError):
        extras = "\n".join(metadata.requires(owner) or [])
    cudnn = re.search(r"nvidia-cudnn\S*?[=~]=\s*(\d+)", extras)
    offered = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    works, said = probe() if probing and offered else (False, "")
    return Cuda(
        package=f"{owner} {onnxruntime.__version__}",
        built_for=built_for if offered else "",
        driver=driver_version(),
        cudnn=cudnn[1] if cudnn else "",
        installed=nvidia_packages(),
        works=works,
        said=said,
    )


def driver_version() -> str:
    """The newest CUDA the driver can do, as "13.0"; empty where there is no NVIDIA driver."""
    number = ctypes.c_int()
    try:
        failed = ctypes.CDLL(DRIVER_LIBRARY).cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return ""
    return "" if failed else f"{number.value // 1000}.{number.value % 1000 // 10}"


def nvidia_packages() -> dict[str, str]:
    """{package: version} of what pip has installed of NVIDIA's libraries."""
    found = ((one.metadata["Name"] or "", one.version) for one in metadata.distributions())
    return {name: version for name, version in sorted(found) if name.startswith("nvidia-")}


def probe() -> tuple[bool, str]:
    """(whether a convolution was computed on CUDA, what was said meanwhile)."""
    words = [sys.executable, "-c", PROBE, CONVOLUTION]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PROBE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, sf.one_line(error)
    sf.companion("hush").hand_over(io.BytesIO(done.stdout), sf.note)
    said = done.stdout.decode(errors="replace")
    return "computed on CUDAExecutionProvider" in said, said


def cuda_advice() -> str:
    """`what is wrong; what to do` where CUDA does not start; empty where it does."""
    return "; ".join(filter(None, verdict(look())))


def why_not(provider: str) -> str:
    """The same for any provider that onnxruntime offers but does not bind."""
    advice = cuda_advice() if provider in ("cuda", "tensorrt") else ""
    if provider == "tensorrt" and not advice:
        return f"CUDA works, TensorRT does not; {pip_line('tensorrt')}, or say --provider cuda"
    return advice or "mend the driver (`doctor` tells more) or say --provider cpu"


def preload(onnxruntime: Any) -> None:
    """Load the CUDA libraries that pip has installed, which no loader finds by itself."""
    load = getattr(onnxruntime, "preload_dlls", None)  # since 1.21
    if load is not None and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        with contextlib.redirect_stdout(sf.Lines(sf.note)):
            load()
