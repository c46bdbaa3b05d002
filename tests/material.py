"""Helpers shared by the tests of the trees: photos on disk, what a folder holds, kills."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SCRIPT, make_cache, sf
from msgspec.structs import replace as changed

FACE_ARRAYS = [item.name for item in fields(sf.FaceCache) if item.name in sf.FACE_ARRAYS]
FILE_ARRAYS = [item.name for item in fields(sf.FaceCache) if item.name.startswith("file_")]
WHEN = re.compile(rb'"(created|at|written)": "[^"]*"')
BOOKKEEPING = re.compile(r"(.*/)?(\.sort_faces\.lock|(refine_)?manifest\.json(\.pending)?)")


# --- caches with real files -------------------------------------------------


def pick(cache: sf.FaceCache, files: Iterable[int], faces: Iterable[int] | None = None):
    """The cache of a part of the library; photos that lose every face count as faceless."""
    files = np.asarray(list(files), dtype=int)
    wanted = np.isin(cache.face_file, files)
    if faces is not None:
        wanted &= np.isin(np.arange(cache.faces), list(faces))
    row_of = np.full(cache.files, -1)
    row_of[files] = np.arange(len(files))
    arrays = {name: getattr(cache, name)[files] for name in FILE_ARRAYS}
    arrays |= {name: getattr(cache, name)[wanted] for name in FACE_ARRAYS}
    arrays["face_file"] = row_of[arrays["face_file"]].astype(np.int32)
    bare = ~np.isin(np.arange(len(files)), arrays["face_file"])
    arrays["file_status"] = np.where(bare, sf.STATUS_NO_FACE, arrays["file_status"]).astype("u1")
    alias = np.isin(cache.alias_file, files)
    arrays |= {
        name: getattr(cache, name)[alias] for name in ("alias_path", "alias_size", "alias_mtime_ns")
    }
    arrays["alias_file"] = row_of[cache.alias_file[alias]].astype(np.int32)
    return replace(cache, **arrays)


def move_face(cache: sf.FaceCache, face: int, to_file: int) -> sf.FaceCache:
    """Put a face into another photo, which then shows two people; its own photo is dropped."""
    face_file, face_index = cache.face_file.copy(), cache.face_index.copy()
    left = int(face_file[face])
    face_file[face], face_index[face] = to_file, 1
    moved = replace(cache, face_file=face_file, face_index=face_index)
    return pick(moved, [row for row in range(cache.files) if row != left])


def with_values(cache: sf.FaceCache, **changes: dict[int, object]) -> sf.FaceCache:
    """The cache with single values replaced: with_values(cache, blur={3: 1.0})."""
    arrays = {}
    for name, values in changes.items():
        array = getattr(cache, name)
        arrays[name] = array.astype(object) if array.dtype.kind == "U" else array.copy()
        for row, value in values.items():
            arrays[name][row] = value
        if array.dtype.kind == "U":
            arrays[name] = arrays[name].astype(str)
    return replace(cache, **arrays)


def on_disk(cache: sf.FaceCache) -> sf.FaceCache:
    """Write distinct bytes for every photo and note their facts."""
    shas, facts = [], []
    for row, path in enumerate(cache.file_path.tolist()):
        data = f"photo {row} of {path!a}\n".encode() * (3 + row % 7)
        shas.append(hashlib.sha256(data).hexdigest())
        facts.append(write_photo(path, data, 1_500_000_000 + row))
    return replace(
        cache,
        file_sha256=np.array(shas),
        file_size=np.array([size for size, _ in facts], np.int64),
        file_mtime_ns=np.array([mtime for _, mtime in facts], np.int64),
    )


def with_twins(cache: sf.FaceCache, twins: dict[str, int]) -> sf.FaceCache:
    """Write byte-identical copies {path: photo} and make them known as aliases."""
    facts = [
        write_photo(path, Path(cache.file_path[row]).read_bytes(), 1_600_000_000 + row)
        for path, row in twins.items()
    ]
    return replace(
        cache,
        alias_path=np.array(list(twins)),
        alias_file=np.array(list(twins.values()), np.int32),
        alias_size=np.array([size for size, _ in facts], np.int64),
        alias_mtime_ns=np.array([mtime for _, mtime in facts], np.int64),
    )


def write_photo(path: str, data: bytes, mtime: int) -> tuple[int, int]:
    """(size, mtime_ns) of a file just written."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        stream.write(data)
    os.utime(path, (mtime, mtime))
    facts = os.stat(path)
    return facts.st_size, facts.st_mtime_ns


class Library:
    """A synthetic library in a folder: photos/ with real bytes and the cache that knows them."""

    def __init__(self, folder: Path, cache: sf.FaceCache | None = None, **made: object) -> None:
        self.folder, self.src, self.path = folder, folder / "photos", folder / "lib.npz"
        self.out = folder / "out"
        self.cache = on_disk(cache or make_cache(root=str(self.src), **made))
        self.save()

    def save(self, cache: sf.FaceCache | None = None) -> None:
        if cache is not None:
            self.cache = cache
        sf.save_cache(self.path, self.cache)

    def photo(self, row: int) -> Path:
        return Path(self.cache.file_path[row])


def broken_caches(folder: Path) -> dict[str, Path]:
    """One file of every kind that is no usable cache."""
    good = folder / "good.npz"
    cache = make_cache(people=2, photos=3)
    sf.save_cache(good, cache)
    whole = good.read_bytes()
    files = {"empty": b"", "text": b"hello\n" * 99, "cut short": whole[: len(whole) // 2]}
    paths = {}
    for name, data in files.items():
        paths[name] = folder / f"{name}.npz"
        paths[name].write_bytes(data)
    paths["newer"] = folder / "newer.npz"
    sf.save_cache(paths["newer"], replace(cache, meta=changed(cache.meta, schema=99)))
    paths["foreign"] = folder / "foreign.npz"
    np.savez(paths["foreign"], weights=np.zeros(9))
    paths["folder"] = folder / "folder.npz"
    paths["folder"].mkdir()
    paths["absent"] = folder / "absent.npz"
    return paths


# --- what a folder holds ----------------------------------------------------


def tree(folder: Path) -> dict[str, str]:
    """{relative path: hash, link target or "folder"} of everything below; times in JSON masked."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_dir():
            found[name] = "folder"
        else:
            data = path.read_bytes()
            if path.suffix == ".json":
                data = WHEN.sub(b'"when": ""', data)
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """{relative path: (inode, mtime_ns)} of the photos of a tree, not of its bookkeeping."""
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if not path.is_dir() and not BOOKKEEPING.fullmatch(path.relative_to(folder).as_posix())
    }


def photos_in(folder: Path) -> dict[str, str]:
    """{relative path: sha256} of the photos of a tree, not of its bookkeeping or _removed."""
    return {
        name: sf.sha256_of_file(folder / name)
        for name in stamps(folder)
        if not name.startswith(sf.REMOVED_FOLDER)
    }


def count_files(folder: Path) -> int:
    """Files below the sub-folders of a tree; safe while another process fills it."""
    return sum(len(files) for at, _, files in os.walk(folder) if Path(at) != folder)


def manifest_of(out: Path) -> dict:
    for name in ("manifest.json", "refine_manifest.json"):
        if (out / name).exists():
            return json.loads((out / name).read_text(encoding="utf-8"))
    raise AssertionError(f"no manifest in {out}")


def assert_agrees(out: Path) -> None:
    """The manifest lists exactly the photos on disk, each with the hash of its bytes."""
    assert photos_in(out) == manifest_of(out)["placed"]
    assert not list(out.rglob(sf.PART_PREFIX + "*")) and not list(out.glob("*.pending"))


# --- calling the tool -------------------------------------------------------


def ok(run: Callable, *argv: object, warned: str | None = None, code: int = 0) -> dict:
    """The JSON a command printed that could do its work; it warned of `warned` alone."""
    got, out, err = run(*argv, "--json")
    assert got == code and "Traceback" not in err, err
    warnings = [line for line in err.splitlines() if line.startswith(("warning", "error"))]
    assert bool(warnings) == (warned is not None), err
    assert all(warned in line for line in warnings), err
    assert out.count("\n") == 1
    return json.loads(out)


def prepare(logs: Path, engine: object, *argv: object) -> dict:
    """What a session fixture needs done, through the CLI and with an engine already loaded."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("SORT_FACES_LOGS", str(logs))
        patch.setattr(sf, "load_engine", lambda spec, threads=1: engine)
        code = sf.main([*map(str, argv), "--json", "-q"])
    for handler in sf.log.handlers:
        handler.close()
    assert code == 0 and printed.getvalue().count("\n") == 1
    return json.loads(printed.getvalue())


def refused(run: Callable, *argv: object, word: str) -> str:
    """The one line a command refused its input with (exit 2); it must contain `word`."""
    code, out, err = run(*argv, "--json")
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1 and err.startswith(f"sort_faces {argv[0]}: "), err
    assert word in err
    return err


def start(*argv: object) -> subprocess.Popen:
    """The CLI as a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, argv)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def wait_until(process: subprocess.Popen, ready: Callable[[], bool], limit: float = 120) -> bool:
    """Poll until ready() or the process has ended; whether it still runs."""
    deadline = time.monotonic() + limit
    while process.poll() is None and not ready():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.0005)
    return process.poll() is None


def some_time_after(moment: Callable[[], bool], seconds: float) -> Callable[[], bool]:
    """A condition that comes true a while after another one first did."""
    since: list[float] = []

    def ready() -> bool:
        if not since and moment():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= seconds

    return ready


def kill_when(ready: Callable[[], bool], *argv: object) -> bool:
    """Run the CLI, SIGKILL it as soon as ready(); whether that came before its end."""
    process = start(*argv)
    try:
        wait_until(process, ready)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
    return process.returncode == -signal.SIGKILL


# --- a real engine that answers the same question only once -----------------


class MemoEngine:
    """A real engine with a memory: what it is asked again it answers as before."""

    def __init__(self, engine: sf.Engine) -> None:
        self.engine = engine
        self.known: dict[tuple, object] = {}
        self.asked = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    def answer(self, task: str, image: np.ndarray, *rest: object) -> object:
        self.asked += 1
        digest = hashlib.sha256(np.ascontiguousarray(image)).digest()
        key = (
            task,
            image.shape,
            digest,
            *(a.bbox.tobytes() if isinstance(a, sf.Detections) else a for a in rest),
        )
        if key not in self.known:
            self.known[key] = getattr(self.engine, task)(image, *rest)
        return self.known[key]

    def detect(self, image: np.ndarray, det_size: int | None = None) -> sf.Detections:
        return self.answer("detect", image, det_size)

    def embed(self, image: np.ndarray, found: sf.Detections) -> np.ndarray:
        return self.answer("embed", image, found)

    def landmarks(self, image: np.ndarray, found: sf.Detections) -> dict[str, np.ndarray]:
        return self.answer("landmarks", image, found)


@functools.cache
def real_engine(model: str) -> MemoEngine:
    """One engine for all test files; what one of them has asked costs the others nothing."""
    return MemoEngine(sf.load_engine(sf.EngineSpec(model=model, landmarks=True), 2))
