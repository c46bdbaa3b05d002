"""Photos of six people with 68 landmarks by dlib, and a corpus made of them."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import numpy as np
from conftest import demo_library, sf

aligned = sf.companion("consumers_aligned")


def call(*words: object) -> None:
    """Run a command that must succeed."""
    with redirect_stdout(io.StringIO()):
        assert sf.main([*map(str, words), "-q", "--json"]) == 0


class Shelf:
    """Photos of six people and what dlib saw in them."""

    def __init__(self, folder: Path) -> None:
        photo = cv2.imdecode(np.frombuffer(demo_library.demo_photo(), np.uint8), 1)
        self.src = folder / "photos"
        for name, image in {
            "one/IMG_1.jpg": photo,
            "two/IMG_1.jpg": np.ascontiguousarray(photo[:, ::-1]),
            "two/IMG_1.png": photo[:, :640],
            "Zoë/Füß.jpg": photo[:, 300:],
        }.items():
            (self.src / name).parent.mkdir(parents=True, exist_ok=True)
            (self.src / name).write_bytes(cv2.imencode(Path(name).suffix, image)[1].tobytes())
        self.path = folder / "lib.npz"
        call("embed", self.src, self.path, "--model", "dlib", "--enrich", "--threads", 1)
        self.cache = sf.load_cache(self.path)
        self.rows = range(self.cache.faces)

    def write(self, folder: Path, form: object, earlier: Path | None = None, **more: object):
        """({file: face}, {face left out: why}) of an export of all faces."""
        library = sf.Library(more.get("cache", self.cache), self.path)
        photos, left = aligned.Photos(library), {}
        found = more.get("landmarks") or aligned.known_landmarks(library.cache)
        faces = aligned.aligned_faces(library, self.rows, form, left, found)
        return aligned.write_faces(folder, faces, form, photos, left, earlier), left

    def corpus(self, folder: Path) -> Path:
        """A corpus of all six, made by the commands."""
        call("cluster", self.path, folder / "raw")
        call("refine", self.path, folder / "sets", "--min-faces", 1, "--min-short", 40)
        call("export-swap", self.path, folder / "sets/refine_manifest.json", folder / "ready",
             "--threads", 1)  # fmt: skip
        return folder / "ready"
