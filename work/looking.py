"""Looking at pictures that no cache knows: crops to arrange, references, a folder read back."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

import sort_faces as sf


def looked_at(files: Sequence[Path], shas: Sequence[str], crew: sf.Crew) -> sf.FaceCache:
    """A cache in memory of pictures and their faces, found with a border where there is need.

    shas: sha256 of the files; of equal ones one is looked at. What cannot be read is told and not
    in the cache.
    """
    model = crew.spec.model or sf.EngineSpec.model
    crew = crew.with_spec(sf.replace(crew.spec, model=model, landmarks=True))
    meta = sf.as_record(sf.CacheMeta, crew.facts["meta"])
    passes = sf.Passes(pad_retry=True)
    about = {"passes": asdict(passes), "landmarks": bool(crew.facts["landmarks"])}
    first = dict(zip(shas, files, strict=True))
    items = [{"sha256": sha, "path": str(file), **about} for sha, file in first.items()]
    lines = []
    with tempfile.TemporaryDirectory(prefix="sort_faces-") as folder:
        results = crew.run("embed", items, Path(folder))
        for item, result in sf.progress(results, len(items), "looking at pictures", "picture"):
            why = result.get("failed") or result.get("error")
            if why:
                sf.log.warning("%s: %s", item["path"], why)
                continue
            size, mtime = sf.facts_of(os.stat(item["path"]))
            own = {"path": item["path"], "sha256": item["sha256"], "size": size}
            own |= {"mtime_ns": mtime, "passes": sf.passes_label(crew.spec, passes)}
            lines.append(sf.as_record(sf.PhotoLine, {**result, **own, "op": "photo"}))
    return sf.fold_records(sf.empty_cache(meta), lines)


def hashes(files: Iterable[Path]) -> list[str]:
    return [sf.sha256_of_file(file) for file in files]


def rows_by_sha(cache: sf.FaceCache) -> dict[str, list[int]]:
    """{sha256 of a picture: rows of its faces, the one nearest the middle first}."""
    boxes = cache.bbox.reshape(-1, 2, 2).mean(axis=1)  # (n, 2)
    away = np.linalg.norm(boxes - cache.file_wh[cache.face_file] / 2, axis=1)
    shas, found = cache.file_sha256.tolist(), defaultdict(list)
    for row in np.argsort(away, kind="stable").tolist():
        found[shas[cache.face_file[row]]].append(row)
    return found
