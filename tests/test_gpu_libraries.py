"""CUDA that does not start: one line that says why and mends it; what libraries write is not seen.

The texts are what onnxruntime-gpu 1.31.1 said on a machine without a GPU: without its libraries,
with them, and with a driver library made up for it (docs/engines.md).
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from conftest import ROOT, sf

gpu, hush = sf.companion("gpu_libraries"), sf.companion("hush")

NO_LIBRARY = (
    "2026-11-27 00:27:42.460700324 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] "
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& "
    "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
    "/x/onnxruntime/capi/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot "
    "open shared object file: No such file or directory\n\ncomputed on CPUExecutionProvider\n"
)
NO_DEVICE = (
    "*************** EP Error ***************\n"
    "EP Error /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 [...] "
    "CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=vm ; "
    "expr=cudaSetDevice(info_.device_id); \n\n when using ['CUDAExecutionProvider']\n"
    "Falling back to ['CPUExecutionProvider'] and retrying.\n"
)
NO_CUDNN = (
    "cuDNN is unavailable or disabled for CUDA Execution Provider: cuDNN library was not found"
)
WHOLE = gpu.Cuda("onnxruntime-gpu 1.31.1", built_for="13.0", driver="13.0", cudnn="9", works=True)
BROKEN = replace(WHOLE, works=False)
PIP = f'{sys.executable} -m pip install "onnxruntime-gpu[cuda,cudnn]'


@pytest.mark.parametrize(
    ("cuda", "wrong", "mend"),
    [
        (WHOLE, "", ""),
        (replace(BROKEN, said=NO_LIBRARY), "libcublasLt.so.13 is not there", f'{PIP}"'),
        (replace(WHOLE, said=NO_CUDNN), "cuDNN is not there", f'{PIP}"'),
        (replace(BROKEN, said=NO_LIBRARY, cudnn=""), "libcublasLt.so.13", "LD_LIBRARY_PATH"),
        (replace(BROKEN, said=NO_DEVICE), "fails: CUDA failure 100: no CUDA-capable device is "
         "detected", "CUDA_VISIBLE_DEVICES"),
        (replace(BROKEN, driver="", said=NO_LIBRARY), "no NVIDIA driver is here", "--gpus all"),
        (replace(BROKEN, driver="12.4", said=NO_LIBRARY), "the driver is for CUDA 12.4",
         f'{PIP}<1.27", or install a newer driver'),
        (replace(BROKEN, driver="11.8"), "the driver is for CUDA 11.8", "install a newer driver"),
        (replace(BROKEN, built_for="12.8", driver="13.0", said=NO_DEVICE), "wants CUDA 12", "smi"),
        (replace(BROKEN, built_for=""), "has no CUDA", f'&& {PIP}"'),
    ],
    ids=["whole", "no library", "no cuDNN", "no extras", "no device", "no driver", "older driver",
         "old driver", "newer driver", "another package"],
)  # fmt: skip
def test_what_is_wrong_and_the_line_that_mends_it(cuda, wrong, mend):
    said = gpu.verdict(cuda)
    assert wrong in said[0] and mend in said[1] and bool(said[0]) is bool(said[1])
    if wrong and cuda.built_for:
        assert said[0].startswith("onnxruntime-gpu 1.31.1 wants CUDA 1")
        assert ("and cuDNN 9" in said[0]) is bool(cuda.cudnn)


@pytest.mark.parametrize(
    ("said", "library"),
    [
        (NO_LIBRARY, "libcublasLt.so.13"),
        ('LoadLibrary failed: "x.dll" depends on "cublasLt64_13.dll" which is missing.',
         "cublasLt64_13.dll"),
        (NO_CUDNN, "cuDNN"),
        (NO_DEVICE, ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_missing_library_is_named(said, library):
    assert gpu.missing_library(said) == library


def test_on_this_machine_it_says_what_is_there():
    onnxruntime = pytest.importorskip("onnxruntime")
    cuda = gpu.look()
    assert onnxruntime.__version__ in cuda.package
    offered = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    assert bool(cuda.built_for) is offered and (offered or not cuda.works)
    if not offered:
        assert gpu.cuda_advice().startswith("this onnxruntime has no CUDA; ")
        owner = cuda.package.split()[0]
        assert f"pip uninstall -y {owner} && {PIP}" in gpu.cuda_advice()
    assert gpu.what_is_here(cuda).startswith("a driver" if cuda.driver else "no driver")


def test_the_probe_is_a_model_that_computes():
    """Without CUDA onnxruntime runs it on the CPU, which is no success."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(
        base64.b64decode(gpu.CONVOLUTION), providers=["CPUExecutionProvider"]
    )
    image = sf.np.arange(64, dtype="float32").reshape(1, 1, 8, 8)
    assert (session.run(None, {"x": image})[0] == image).all()
    works, said = gpu.probe()
    assert works is ("computed on CUDAExecutionProvider" in said) and "computed on " in said


def test_the_cuda_of_the_driver_is_asked_of_its_library(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "DRIVER_LIBRARY", str(tmp_path / "none.so"))
    assert gpu.driver_version() == ""
    if shutil.which("cc") is None:
        pytest.skip("needs cc to make a driver library")
    source, library = tmp_path / "driver.c", tmp_path / "libdriver.so"
    source.write_text("int cuDriverGetVersion(int *version) { *version = 12040; return 0; }")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr(gpu, "DRIVER_LIBRARY", str(library))
    assert gpu.driver_version() == "12.4"


def test_doctor_has_a_line_for_it_where_there_is_any_of_it(monkeypatch):
    checks = sf.companion("doctor").cuda_checks
    with_pip = {"nvidia-cublas": "13.10.0.20", "nvidia-cudnn-cu13": "9.28.1.4", "nvidia-nvtx": "1"}
    cuda = replace(BROKEN, said=NO_DEVICE, installed=with_pip)
    monkeypatch.setattr(gpu, "look", lambda: cuda)
    [line] = checks()
    assert (line["what"], line["ok"]) == ("cuda", False) and "nvidia-smi" in line["what_to_do"]
    here = "; here: a driver for CUDA 13.0, nvidia-cublas 13.10.0.20, nvidia-cudnn-cu13 9.28.1.4"
    assert line["finding"].endswith(f"no CUDA-capable device is detected{here}")
    monkeypatch.setattr(gpu, "look", lambda: WHOLE)
    [line] = checks()
    assert line["ok"] and "wants CUDA 13 and cuDNN 9, and they work; here: " in line["finding"]
    monkeypatch.setattr(gpu, "look", lambda: gpu.Cuda("onnxruntime 1.32.0"))
    assert checks() == []


# --- what libraries write ---------------------------------------------------


def test_what_onnxruntime_writes_goes_to_the_log_and_ours_to_the_terminal(capfd):
    onnxruntime = pytest.importorskip("onnxruntime")
    options, said = onnxruntime.SessionOptions(), []
    options.log_severity_level = 0  # it then tells of every step, in C
    model, cpu = base64.b64decode(gpu.CONVOLUTION), ["CPUExecutionProvider"]
    with hush.hushed(said.append):
        onnxruntime.InferenceSession(model, options, providers=cpu)
        print("EP Error, as onnxruntime prints it")
        os.write(1, b"a result\n")
    assert capfd.readouterr() == ("a result\n", "")
    assert any(":onnxruntime:" in line for line in said) and "\x1b" not in "".join(said)
    assert "EP Error, as onnxruntime prints it" in said
    onnxruntime.InferenceSession(model, options, providers=cpu)
    assert ":onnxruntime:" in capfd.readouterr().err  # it is heard again


OURS = """
import os, sys
sys.path.insert(0, sys.argv[1])
import sort_faces as sf
hush, said = sf.companion("hush"), []
try:
    with hush.hushed(said.append):
        if sys.stderr is not None:
            os.write(2, b"\\x1b[1;31mof a library\\x1b[m\\n")
        print("of ours", file=sys.stderr)
        print("printed by a library")
        if sys.argv[2] == "raise":
            raise ValueError
except ValueError:
    pass
print("afterwards", file=sys.stderr)
print(said)
"""


def told(how: str, **more: object) -> tuple[str, str]:
    words = [sys.executable, "-c", OURS, str(ROOT), how]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, **more)
    return done.stdout, done.stderr


@pytest.mark.parametrize("how", ["end", "raise"])
def test_our_own_lines_come_through(how):
    out, err = told(how, stderr=subprocess.PIPE)
    assert err == "of ours\nafterwards\n"
    assert sorted(sf.json.loads(out.replace("'", '"'))) == ["of a library", "printed by a library"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX descriptors")
def test_without_a_stderr_stdout_still_holds_nothing_but_results():
    def close() -> None:
        os.close(2)

    out, _ = told("end", preexec_fn=close)
    assert out == "afterwards\n['of ours', 'printed by a library']\n"  # Python's own way


def test_several_at_once_leave_the_terminal_as_it_was(capfd):
    said: list[str] = []
    meet = threading.Barrier(4)

    def load(number: int) -> None:
        with hush.hushed(said.append):
            meet.wait(30)
            if number:  # the first leaves while the others are at it
                left.wait(30)
                os.write(2, f"library {number}\n".encode())
        left.set()

    for _ in range(20):
        left = threading.Event()
        threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    os.write(2, b"heard\n")
    print("printed")
    assert capfd.readouterr() == ("printed\n", "heard\n")
    assert sorted(said) == sorted(f"library {number}" for number in (1, 2, 3) for _ in range(20))


def test_a_session_is_made_on_the_provider_or_not_at_all(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    path.write_bytes(base64.b64decode(gpu.CONVOLUTION))
    models = sf.companion("onnx_models")
    model = models.Model(str(path), sf.EngineSpec(provider="cpu"), 1)
    assert model.get_providers() == ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and gpu.look().works:
        pytest.skip("this machine has CUDA")
    with pytest.raises(sf.SortFacesError, match=r"--provider cuda: onnxruntime bound CPU"):
        models.check_bound_provider("cuda", model)
