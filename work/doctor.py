"""What `doctor` looks at: packages, engines, providers, and whoever else does the work.

A companion of sort_faces.py, loaded by that command. It downloads nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import itertools
import math
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

CROWDS = (1, 2, 3, 4, 6, 9)  # faces of the timed pictures: as in a library, no two alike
ROUNDS = 3  # of as many pictures as there are threads, at least
PATIENCE = 30.0  # seconds after which no further picture is begun
MODULES = (
    *("numpy", "scipy", "cv2", "PIL", "pillow_heif", "onnxruntime", "insightface", "dlib"),
    *("filelock", "tqdm", "jinja2", "av", "scenedetect", "msgspec", "argcomplete"),
    "safetensors",
)


def examine(args: argparse.Namespace) -> sf.Outcome:
    """Check packages, engines and whoever does the work; one line each."""
    spec = sf.engine_spec(args, True)
    offline = replace(spec, model=sf.DLIB_MODEL, provider="auto", require_gpu=False)
    checks = [*package_checks(), formats_check(), *cuda_checks()]
    for engine in [offline] if spec.model == sf.DLIB_MODEL else [offline, spec]:
        checks.append(engine_check(engine, args.threads))
    checks += checks_elsewhere(args)
    result = {
        "python": f"{platform.python_version()}, {sys.executable}",
        "system": platform.platform(),
        "cores": sf.usable_cores(),
        "tool": f"{sf.VERSION}, {Path(sf.__file__).resolve()}",
        "companions": str(sf.WORK_FOLDER),
        "logs": str(sf.log_folder()),
        "checks": checks,
    }
    wanted = ("packages", f"engine {spec.model}", "worker", "cluster")
    return sf.Outcome(result, all(check["ok"] for check in checks if check["what"] in wanted))


def package_checks() -> list[dict[str, Any]]:
    """Whether the packages are there, and only one onnxruntime among them."""
    sf.log.info("looking for the packages")
    owners = sf.companion("gpu_libraries").onnxruntimes()
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    found = f"missing: {', '.join(missing)}" if missing else "all there"
    install = sf.package_hint(ImportError("")).rpartition("; ")[2]
    checks = [finding_of("packages", not missing, found, install)]
    if "onnxruntime" not in missing:
        checks.append(onnxruntime_check())
    if len(owners) > 1:
        clash = f"{' and '.join(owners)} overwrite each other"
        advice = f"pip uninstall {' '.join(owners)}, then install the one you need"
        checks.append(finding_of("packages", False, clash, advice))
    return checks


def formats_check() -> dict[str, Any]:
    """Which kinds of photos this installation reads, and what the others need."""
    kinds = sf.companion("kinds")
    usual = "JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC, AVIF, JPEG 2000"
    found, advice = [usual], []
    for kind, package in kinds.READERS.items():
        if importlib.util.find_spec(package):
            found.append(f"{kind} ({package} {importlib.metadata.version(package)})")
        else:
            advice.append(f"{kind} needs `pip install {package}`")
    return finding_of("formats", True, "; ".join([f"reads {', '.join(found)}", *advice]))


def onnxruntime_check() -> dict[str, Any]:
    """What onnxruntime can compute on, if it loads at all."""
    try:
        onnxruntime = sf.load_onnxruntime()
    except ImportError as error:
        return finding_of(
            "packages", False, f"onnxruntime: {sf.one_line(error)}", "install it again"
        )
    offered = ", ".join(onnxruntime.get_available_providers())
    return finding_of("onnxruntime", True, f"{onnxruntime.__version__} offers {offered}")


def cuda_checks() -> list[dict[str, Any]]:
    """What onnxruntime wants of CUDA and what is there, on a machine that has any of it."""
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    gpu = sf.companion("gpu_libraries")
    try:
        cuda = gpu.look()
    except ImportError:  # said by onnxruntime_check
        return []
    if not (cuda.driver or cuda.built_for):
        return []
    wrong, advice = gpu.verdict(cuda)
    state = wrong or f"{gpu.wants(cuda)}, and they work"
    return [finding_of("cuda", not wrong, f"{state}; here: {gpu.what_is_here(cuda)}", advice)]


def engine_check(spec: sf.EngineSpec, threads: int) -> dict[str, Any]:
    """Load an engine and time it on the sample photo, without downloading anything."""
    what = f"engine {spec.model}"
    sf.log.info("timing the %s", what)
    folder = sf.model_folder(spec)
    try:
        if spec.model != sf.DLIB_MODEL and not folder.is_dir():
            where_to_put = sf.companion("insightface_engine").where_to_put
            raise sf.SortFacesError(f"weights not in {folder}; {where_to_put(spec)}")
        engine = sf.load_engine(spec, threads)
        speed = timed(engine, threads)
    except sf.SortFacesError as error:
        return finding_of(what, False, *str(error).rsplit("; ", 1))
    except sf.engine_errors() as error:
        return finding_of(what, False, sf.one_line(error), "mend the driver or say --provider cpu")
    return finding_of(
        what,
        True,
        f"{engine.provider}, {speed}, landmarks {'yes' if engine.has_landmarks else 'no'}"
        + (", for offline use: buffalo_l is far more accurate" * (spec.model == sf.DLIB_MODEL)),
    )


def timed(engine: sf.Engine, threads: int) -> str:
    """Photos per second of an engine, after a pass over one picture.

    Pictures of many numbers of faces take turns, as where a GPU prepares itself anew for every
    number the same picture again and again is dozens of times faster than a library.
    """
    crowd = sf.companion("demo_library").crowd
    pictures = [crowd(count) for count in CROWDS]
    faces_in(engine, pictures[0])
    started = time.monotonic()
    turns = itertools.cycle(zip(CROWDS, pictures, strict=True))
    wanted = math.ceil(ROUNDS * threads / len(CROWDS)) * len(CROWDS)
    jobs = itertools.takewhile(
        lambda _: time.monotonic() - started < PATIENCE, itertools.islice(turns, wanted)
    )

    def look(job: tuple[int, np.ndarray]) -> tuple[int, int]:
        return job[0], len(faces_in(engine, job[1]))

    seen = list(sf.ordered_map(look, jobs, threads))
    rate = len(seen) / (time.monotonic() - started)
    there, found = sum(job[0] for job in seen), sum(job[1] for job in seen)
    kinds = ", ".join(map(str, CROWDS[:-1]))
    return (
        f"{rate:.1f} photos/s ({len(seen)} of {kinds} and {CROWDS[-1]} faces in turn, "
        f"{found} of {there} faces found)"
    )


def faces_in(engine: sf.Engine, image: np.ndarray) -> list[sf.FaceRecord]:
    """Detect and recognise, as `embed` does."""
    seen = [(image, sf.find_faces(engine, image, sf.Passes()))]
    return sf.face_records(engine, seen, False)[0]


def checks_elsewhere(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Whether a worker or cluster can load the model, and what it computes on."""
    crew = sf.crew_of(args, True)
    if not crew.elsewhere:
        return []
    what = "worker" if crew.work.worker else "cluster"
    sf.log.info("asking the %s", what)
    try:
        provider = crew.facts["provider"]
    except sf.SortFacesError as error:
        return [finding_of(what, False, *str(error).rsplit("; ", 1))]
    hidden = crew.work.worker.lower().endswith(".exe") and provider == "cpu"
    advice = "run work/setup_dml_worker.ps1: a plain onnxruntime hides onnxruntime-directml"
    return [finding_of(what, not hidden, f"{crew.spec.model} on {provider}", advice)]


def finding_of(what: str, ok: bool, finding: str, advice: str = "") -> dict[str, Any]:
    return {"what": what, "ok": ok, "finding": finding, "what_to_do": "" if ok else advice}
