"""Fixture trees that can be put anywhere: absolute paths in them begin with a placeholder.

The tool writes absolute paths into JSON, journals and caches, and names placed photos after them.
`pack` replaces the folder a tree was made in by PLACE, `unpack` puts another folder there. What
git does not keep (modification times, empty folders) is in index.json. Nothing of sort_faces is
used here, so that a fixture means the same to every version of it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

PLACE, FLAT = "/FIXTURE", "FIXTURE__"  # in paths; in the names of placed photos
PLACED = re.compile(r"/FIXTURE(?![\w-])")
INDEX = "index.json"
LOCKS = (".lock", ".lock.holder")  # of runs on the machine that made the fixture


def flat(root: Path) -> str:
    """How the names of placed photos begin when the photos lie below this folder."""
    return str(root).strip("/").replace("/", "__") + "__"


def away(text: str, root: Path) -> str:
    return text.replace(str(root), PLACE).replace(flat(root), FLAT)


def here(text: str, root: Path) -> str:
    return PLACED.sub(lambda _: str(root), text).replace(FLAT, flat(root))


def turned(data: bytes, name: str, change: Callable[[str], str]) -> bytes:
    """A file with all texts changed that may hold paths."""
    if name.endswith(".npz"):
        return turned_npz(data, change)
    try:
        return change(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    except UnicodeError:
        return data


def turned_npz(data: bytes, change: Callable[[str], str]) -> bytes:
    """An archive of arrays with its texts changed; the same bytes where there is nothing to do."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    other = {}
    for name, values in arrays.items():
        if values.dtype.kind == "U" and values.size:
            texts = np.array([change(text) for text in values.ravel().tolist()])
            if texts.tolist() != values.ravel().tolist():
                other[name] = texts.reshape(values.shape)
    if not other:
        return data
    stream = io.BytesIO()
    np.savez(stream, **{**arrays, **other})
    return stream.getvalue()


def pack(root: Path, target: Path) -> None:
    """Write the tree `root` to `target` with placeholders, and index.json."""
    shutil.rmtree(target, ignore_errors=True)
    times, empty = {}, []
    for path in sorted(root.rglob("*")):
        name = away(path.relative_to(root).as_posix(), root)
        if path.is_dir():
            if not any(path.iterdir()):
                empty.append(name)
        elif not name.endswith(LOCKS):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(
                turned(path.read_bytes(), name, lambda text: away(text, root))
            )
            if path.stat().st_mtime_ns % 10**9 == 0:  # set on purpose
                times[name] = path.stat().st_mtime_ns // 10**9
    index = {"empty": empty, "mtime": times}
    (target / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def unpack(source: Path, root: Path, *parts: str) -> Path:
    """Put parts of a packed tree (default: all) below `root`, as if they had been made there."""
    root = root.resolve()
    assert not re.search(r"__|_/|/_|_$", str(root)), f"{root}: flattened names would differ"
    index = json.loads((source / INDEX).read_text(encoding="utf-8"))
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if path.is_file() and name != INDEX and (not parts or name.split("/")[0] in parts):
            target = root / here(name, root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(turned(path.read_bytes(), name, lambda text: here(text, root)))
            if name in index["mtime"]:
                os.utime(target, (index["mtime"][name],) * 2)
    for name in index["empty"]:
        if not parts or name.split("/")[0] in parts:
            (root / name).mkdir(parents=True, exist_ok=True)
    for path in root.rglob("plan.json"):
        if "_runs" not in path.parts:  # those are kept, not carried out
            renew_plan(path)
    return root


def renew_plan(path: Path) -> None:
    """Give a maintenance plan the state its corpus has here."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    if plan.get("kind") == "plan" and "state" in plan:
        plan["state"] = corpus_state(Path(plan["corpus"]))
        path.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")


def corpus_state(root: Path) -> str:
    """The state of a corpus as version 0.1 hashes it: manifests, and PNGs by name and size."""
    digest = hashlib.sha256((root / "manifest.json").read_bytes())
    tops = (root, root / "_masked", root / "_thin", root / "_merged")
    for folder in sorted(found for top in tops for found in top.glob("faceset_*")):
        digest.update(folder.relative_to(root).as_posix().encode())
        digest.update((folder / "manifest.json").read_bytes())
        pngs = sorted((folder / "faces").rglob("*.png"))
        digest.update(repr([(png.name, png.stat().st_size) for png in pngs]).encode())
    return digest.hexdigest()[:16]


def fingerprint(folder: Path, root: Path) -> dict[str, str]:
    """{path: hash or "folder"} of a corpus, without its scores, the same wherever it lies."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] != "_scores" and not name.endswith(LOCKS):
            data = b"" if path.is_dir() else path.read_bytes()
            data = turned(data, name, lambda text: away(text, root))
            found[name] = "folder" if path.is_dir() else hashlib.sha256(data).hexdigest()[:12]
    return found
