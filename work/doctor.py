"""What `doctor` looks at: packages, engines, providers, and whoever else does the work.

A companion of sort_faces.py, loaded by that command. It downloads nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

import sort_faces as sf

ROUNDS = 3  # timed passes over the sample photo
MODULES = (
    *("numpy", "scipy", "cv2", "PIL", "pillow_heif", "onnxruntime", "insightface", "dlib"),
    *("filelock", "tqdm", "jinja2", "av", "scenedetect", "msgspec", "argcomplete"),
)


def examine(args: argparse.Namespace) -> sf.Outcome:
    """Check packages, engines and whoever does the work; one line each."""
    spec = sf.engine_spec(args, True)
    offline = replace(spec, model=sf.DLIB_MODEL, provider="auto", require_gpu=False)
    checks = package_checks()
    for engine in [offline] if spec.model == sf.DLIB_MODEL else [offline, spec]:
        checks.append(engine_check(engine, args.threads))
    checks += checks_elsewhere(args)
    result = {
        "python": f"{platform.python_version()}, {sys.executable}",
        "system": platform.platform(),
        "cores": sf.usable_cores(),
        "checks": checks,
    }
    wanted = ("packages", f"engine {spec.model}", "worker", "cluster")
    return sf.Outcome(result, all(check["ok"] for check in checks if check["what"] in wanted))


def package_checks() -> list[dict[str, Any]]:
    """Whether the packages are there, and only one onnxruntime among them."""
    from importlib.metadata import packages_distributions

    sf.log.info("looking for the packages")
    providers = packages_distributions().get("onnxruntime", [])
    owners = sorted({name for name in providers if name.startswith("onnxruntime")})
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    found = f"missing: {', '.join(missing)}" if missing else "all there"
    install = f"{sys.executable} -m pip install -r requirements.txt"
    checks = [finding_of("packages", not missing, found, install)]
    if "onnxruntime" not in missing:
        checks.append(onnxruntime_check())
    if len(owners) > 1:
        clash = f"{' and '.join(owners)} overwrite each other"
        advice = f"pip uninstall {' '.join(owners)}, then install the one you need"
        checks.append(finding_of("packages", False, clash, advice))
    return checks


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
        image = sf.decode_photo(sf.companion("demo_library").demo_photo()).image
        faces_in(engine, image)
        started = time.monotonic()
        rounds = [image] * (ROUNDS * threads)
        faces = list(sf.ordered_map(lambda one: faces_in(engine, one), rounds, threads))
    except sf.SortFacesError as error:
        return finding_of(what, False, *str(error).rsplit("; ", 1))
    except sf.engine_errors() as error:
        return finding_of(what, False, sf.one_line(error), "mend the driver or say --provider cpu")
    rate = len(rounds) / (time.monotonic() - started)
    return finding_of(
        what,
        True,
        f"{engine.provider}, {rate:.1f} photos/s, {len(faces[0])} faces found, "
        f"landmarks {'yes' if engine.has_landmarks else 'no'}"
        + (", for offline use: buffalo_l is far more accurate" * (spec.model == sf.DLIB_MODEL)),
    )


def faces_in(engine: sf.Engine, image: np.ndarray) -> list[sf.FaceRecord]:
    """Detect and recognise, as `embed` does."""
    found = sf.find_faces(engine, image, sf.Passes())
    return sf.face_records(engine, [(image, found)], False)[0]


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
