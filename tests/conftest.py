"""Fixtures shared by all tests: the tool as a module, a CLI runner, made and real material."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(ROOT))

import sort_faces as sf  # noqa: E402

# A shell that starts with SIGINT ignored, as in the background, can never trap it: what the tests
# interrupt must not depend on how they were started themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Of fixtures that serve a whole file; quiet_machine comes after them.
if "SORT_FACES_LOGS" not in os.environ:
    os.environ["SORT_FACES_LOGS"] = tempfile.mkdtemp(prefix="sort_faces-tests-")
    atexit.register(shutil.rmtree, os.environ["SORT_FACES_LOGS"], ignore_errors=True)

SCRIPT = ROOT / "sort_faces.py"
demo_library = sf.companion("demo_library")


@pytest.fixture(autouse=True)
def quiet_machine(tmp_path_factory, monkeypatch):
    """Keep logs out of the repository, and the operator's settings out of the tests."""
    monkeypatch.delenv("SORT_FACES_CONFIG", raising=False)
    monkeypatch.setenv("SORT_FACES_LOGS", str(tmp_path_factory.mktemp("logs")))


@pytest.fixture
def quick_disk(monkeypatch) -> None:
    """Nothing is forced to the disk: no test of this kind outlives the machine."""
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def run(capsys):
    """Run the CLI in process: run("cluster", cache, out) -> (exit code, stdout, stderr)."""

    def call(*argv) -> tuple[int, str, str]:
        try:
            code = sf.main([str(part) for part in argv])
        except SystemExit as stop:  # argparse
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield call
    for handler in list(sf.log.handlers):
        if isinstance(handler, logging.FileHandler):
            handler.close()
    sf.log.handlers.clear()


@pytest.fixture
def shared() -> Path:
    """The project's shared material; tests that need it skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs ../shared, which is not here")
    return SHARED


@pytest.fixture
def mini(shared) -> Path:
    """A real InsightFace-style pack of 7 MB."""
    return shared / "models" / "mini"


def make_cache(
    people: int = 4,
    photos: int = 20,
    dim: int = 64,
    spread: float = 0.35,
    seed: int = 0,
    root: str = "/library",
) -> sf.FaceCache:
    """A synthetic cache: `people` directions with `photos` noisy faces each, one face a photo.

    Paths do not exist on disk; person p's photo k is <root>/p/k.jpg. Faces pass every gate.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    count = people * photos
    person = np.repeat(np.arange(people), photos)
    noise = rng.normal(size=(count, dim)) * spread / np.sqrt(dim) * 2
    embedding = ((centres[person] + noise) * rng.uniform(18, 25, (count, 1))).astype(np.float32)
    corner = rng.uniform(50, 200, (count, 2))
    size = rng.uniform(120, 260, (count, 1)) * (1.0, 1.25)
    bbox = np.hstack([corner, corner + size]).astype(np.float32)
    unit_kps = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    kps = (bbox[:, None, :2] + unit_kps * size[:, None, :]).astype(np.float32)
    meta = sf.CacheMeta(
        schema=1, model="synthetic", recognizer="feedfeedfeedfeed", dim=dim, det_size=640,
        det_threshold=0.5, roots=[root],
    )  # fmt: skip
    return sf.FaceCache(
        meta=meta,
        file_path=np.array([f"{root}/{p}/{k % photos}.jpg" for k, p in enumerate(person)]),
        file_sha256=np.array([f"{k:016x}" + "0" * 48 for k in range(count)]),
        file_size=np.full(count, 1000, np.int64),
        file_mtime_ns=np.arange(count, dtype=np.int64),
        file_wh=np.tile(np.array([1000, 800], np.int32), (count, 1)),
        file_taken=np.full(count, np.nan),
        file_status=np.zeros(count, np.uint8),
        file_error=np.full(count, "", dtype="U1"),
        file_passes=np.full(count, "640@0.5"),
        file_note=np.full(count, "", dtype="U1"),
        alias_path=np.zeros(0, "U1"),
        alias_file=np.zeros(0, np.int32),
        alias_size=np.zeros(0, np.int64),
        alias_mtime_ns=np.zeros(0, np.int64),
        face_file=np.arange(count, dtype=np.int32),
        face_index=np.zeros(count, np.int16),
        bbox=bbox,
        det_score=rng.uniform(0.7, 0.95, count).astype(np.float32),
        kps=kps,
        face_short=(bbox[:, 2] - bbox[:, 0]).astype(np.float32),
        blur=rng.uniform(60, 300, count).astype(np.float32),
        embedding=embedding,
        landmark_2d_106=np.full((count, 106, 2), np.nan, np.float32),
        landmark_3d_68=np.full((count, 68, 3), np.nan, np.float32),
        pose=np.full((count, 3), np.nan, np.float32),
        learned_quality=np.full(count, np.nan, np.float32),
    )


@pytest.fixture
def synthetic_cache():
    """The factory make_cache, for tests of the logic without models."""
    return make_cache


@pytest.fixture(scope="session")
def group_photo() -> bytes:
    """The JPEG of six people inside the insightface package."""
    return demo_library.demo_photo()
