"""embed, killed at twenty random moments, loses nothing and invents nothing."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SCRIPT, demo_library

import sort_faces as sf

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
KILLS = 20
START_UP = 60.0  # s; longest wait for a process to get going on a busy machine


def make_library(root: Path) -> None:
    """Twelve small photos: eight faces, two byte-identical copies, one without face, one broken."""
    group = sf.decode_photo(demo_library.demo_photo()).image
    rng = np.random.default_rng(3)
    photos: dict[str, bytes] = {}
    people = list(demo_library.DEMO_FACES.values())
    for number, box in enumerate([*people, *people[:2]]):
        image = demo_library.demo_variant(group, np.array(box, np.float32), rng)
        small = cv2.resize(image, (200, 200), interpolation=cv2.INTER_AREA)
        photos[f"{number % 3}/{number}.jpg"] = demo_library.encode_jpeg(small, 90)
    photos["0/a copy.jpg"] = photos["1/4.jpg"]  # sorts before its original
    photos["2/z/copy.jpg"] = photos["0/0.jpg"]  # and behind
    photos["1/nobody.jpg"] = demo_library.encode_jpeg(np.full((120, 160, 3), 77, np.uint8), 90)
    photos["1/broken.jpg"] = b"\xff\xd8\xff no picture"
    assert len(photos) == 12
    for name, data in photos.items():
        sf.write_bytes(root / name, data)


def embed(root: Path, cache: Path) -> subprocess.Popen:
    """embed in a process group of its own, killed by its number alone."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "embed", str(root), str(cache), "--model", "dlib",
         "--enrich", "--json", "--threads", "2"],
        env={**os.environ, "SORT_FACES_LOGS": str(root.parent / "logs")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def size_of(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def content(cache_path: Path) -> dict[str, object]:
    """What a cache knows, without the order it came in."""
    cache = sf.load_cache(cache_path)
    photos = {}
    for row, (first, *more) in enumerate(cache.paths):
        faces = cache.face_file == row
        assert cache.face_index[faces].tolist() == list(range(faces.sum()))
        photos[str(cache.file_sha256[row])] = {
            "paths": (first, sorted(more)),
            "status": int(cache.file_status[row]),
            "error": str(cache.file_error[row]),
            "wh": cache.file_wh[row].tolist(),
            "size": int(cache.file_size[row]),
            "faces": [
                values[faces].tobytes()
                for values in (cache.bbox, cache.det_score, cache.kps, cache.blur,
                               cache.embedding, cache.landmark_3d_68, cache.pose)
            ],
        }  # fmt: skip
    assert len(photos) == cache.files
    return {**photos, "meta": cache.meta, "facts": sf.known_paths(cache)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, Path, int]:
    """(library, cache made in peace, bytes its journal had grown to)."""
    folder = tmp_path_factory.mktemp("kill")
    root, cache = folder / "photos", folder / "peace/lib.npz"
    make_library(root)
    process, largest = embed(root, cache), 0
    while process.poll() is None:
        largest = max(largest, size_of(sf.journal_path(cache)))
        time.sleep(0.002)
    assert process.returncode == 0, process.stderr.read()
    process.communicate()
    return root, cache, largest


def kill_at(process: subprocess.Popen, journal: Path, size: int, delay: float) -> bool:
    """Kill a run `delay` s after its journal has reached `size` bytes; whether it still ran."""
    limit = time.monotonic() + START_UP
    while process.poll() is None and size_of(journal) < size and time.monotonic() < limit:
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()  # of a process that has ended: nothing
    _, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err
    assert "Traceback" not in err
    return process.returncode != 0


def test_twenty_kills_at_random_moments_lose_nothing(undisturbed, tmp_path) -> None:
    """Kills fall from the start of the program to the writing of the finished cache."""
    root, peace, full_size = undisturbed
    expected = content(peace)
    assert full_size > 5000
    rng = random.Random(20)
    kills = rounds = 0
    while kills < KILLS:
        rounds += 1
        assert rounds < KILLS, "the runs end before they can be killed"
        cache = tmp_path / f"round {rounds}/lib.npz"
        journal, known = sf.journal_path(cache), set()
        moments = sorted(rng.sample(range(1, full_size), rng.randint(1, 3)))
        for moment in [*[0][: rng.randint(0, 1)], *moments, full_size]:
            delay = rng.uniform(0.0, 0.04 if moment else 1.0)
            process = embed(root, cache)
            if not kill_at(process, journal, moment, delay):
                break
            kills += 1
            if sf.cache_exists(cache):  # readable at every moment; nothing lost or made up
                left = set(sf.load_cache(cache).file_sha256.tolist())
                assert known <= left <= expected.keys()
                known = left
        process = embed(root, cache)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert content(cache) == expected
        leftovers = {path.name for path in cache.parent.iterdir()}
        assert leftovers == {path.name for path in peace.parent.iterdir()}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_one_line_and_its_exit_code(undisturbed, tmp_path, how) -> None:
    root, peace, full_size = undisturbed
    cache = tmp_path / "stopped/lib.npz"
    process = embed(root, cache)
    while process.poll() is None and size_of(sf.journal_path(cache)) < full_size // 3:
        time.sleep(0.002)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + how, ""), err
    lines = [line for line in err.splitlines() if line.startswith("sort_faces ")]
    assert len(lines) == 1 and "run the same command again" in lines[0]
    assert "Traceback" not in err
    again = embed(root, cache)
    assert again.wait(timeout=120) == 0
    again.communicate()
    assert content(cache) == content(peace)


@pytest.mark.parametrize("name", ["lib.npz", "lib.npz.tags.npy", "lib.npz.forgotten.json"])
def test_what_a_kill_leaves_of_a_file_beside_the_cache_goes(undisturbed, tmp_path, name) -> None:
    """Parts of runs that are dead; one that is being written by somebody stays."""
    root, peace, _ = undisturbed
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    cache = tmp_path / "again/lib.npz"
    cache.parent.mkdir()
    for path in peace.parent.iterdir():
        shutil.copy(path, cache.parent / path.name)
    before = {path.name for path in cache.parent.iterdir()}
    others = {f"{dead.pid}-7-other.npz", f"{os.getpid()}-7-lib.npz.decisions.jsonl"}
    for rest in (f"{dead.pid}-7-{name}", *others):
        (cache.parent / f"{sf.PART_PREFIX}{rest}").write_bytes(b"half")
    done = embed(root, cache)
    _, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    after = {path.name.removeprefix(sf.PART_PREFIX) for path in cache.parent.iterdir()}
    assert after == before | others
