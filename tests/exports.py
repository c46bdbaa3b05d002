"""Exports of made photos whose faces are what a test says, and what the corpora then hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import make_cache, sf
from corpora import faces_in, files_of
from material import ok, write_photo

PEOPLE, EACH = 4, 8


class Photos:
    """Made people on disk whose faces are what the test says: cutting is real, looking is not."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.root, self.looked = folder, folder / "ready", 0
        cache = make_cache(people=PEOPLE, photos=EACH, spread=0.2, root=str(folder / "photos"))
        facts, shas = [], []
        for row, path in enumerate(cache.file_path.tolist()):
            colours = np.random.default_rng(row).integers(60, 200, (8, 10, 3), dtype=np.uint8)
            image = cv2.resize(colours, (1000, 800), interpolation=cv2.INTER_LINEAR)
            data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
            facts.append(write_photo(path, data, 1_500_000_000 + row))
            shas.append(sf.hashlib.sha256(data).hexdigest())
        sizes, times = np.array(facts, np.int64).T
        years = np.array([2001 if row % 2 else 2015 for row in range(cache.files)])
        self.cache = sf.replace(
            cache, file_sha256=np.array(shas), file_size=sizes, file_mtime_ns=times,
            file_taken=(years - 1970) * 365.2425 * 86400 + 180 * 86400,
        )  # fmt: skip
        sf.save_cache(folder / "lib.npz", self.cache)
        monkeypatch.setitem(sf.TASKS, "audit", self.look)
        monkeypatch.setattr(sf, "load_engine", lambda *_: None)
        monkeypatch.setattr(sf, "check_recognizer", lambda *_: None)
        monkeypatch.setattr(sf, "judge_crop", lambda *_: ("", np.zeros((0, 4))))

    def look(self, _: object, items: list) -> list[dict]:
        self.looked += len(items)
        seen = {"error": "", "counts": [1, 1], "kps": [], "embedding": "", "boxes": [[], []]}
        return [seen for _ in items]

    def rows(self, person: int, first: int, last: int) -> list[str]:
        return self.cache.face_ids[person * EACH + first : person * EACH + last]

    def refine(self, *sets: list[str]) -> Path:
        """A refine manifest of these faces as faceset_001, faceset_002, ..."""
        groups = [sf.Group(id=f"faceset_{n:03d}", faces=faces) for n, faces in enumerate(sets, 1)]
        manifest = sf.RefinedManifest(
            **sf.manifest_head(sf.Library(self.cache, self.folder / "lib.npz")),
            params=sf.RefineParams(), facesets=groups, seen=[], placed={},
        )  # fmt: skip
        sf.write_file(self.folder / "refine_manifest.json", manifest)
        return self.folder / "refine_manifest.json"

    def export(self, run: Callable, *sets: list[str], **expected: object) -> dict:
        return ok(run, *self.command(*sets), **expected)

    def command(self, *sets: list[str]) -> tuple:
        refined = self.refine(*sets)
        return ("export-swap", self.folder / "lib.npz", refined, self.root, "--model", "synthetic",
                "--top-n", 3, "--out-size", 128)  # fmt: skip


def give_scores(root: Path, masked: dict[str, list[str]]) -> None:
    """Scores of every face, as occlusion score leaves them: `masked` files of sets are hidden."""
    lines = []
    for folder in sorted(root.glob("faceset_*")):
        for file, face in files_of(root, folder.name).items():
            hidden = file in masked.get(folder.name, ())
            lines.append({"sha256": face["sha256"], "error": "", "scores": [0.99 * hidden, 0.0]})
    path = root / "_scores" / "occlusion-made-00000000.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def in_use(root: Path) -> dict[str, set[str]]:
    return {folder.name: set(faces_in(root, folder.name)) for folder in root.glob("faceset_*")}
