"""Say what is in a cache or an output folder: what `status` shows."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf


def status_of(path: Path) -> dict[str, Any]:
    """What is in a cache or in an output folder."""
    if sf.is_missing(str(path)) and not sf.cache_exists(path):
        raise sf.SortFacesError(f"{path}: nothing is there; name a cache or an output folder")
    return (folder_status if path.is_dir() else cache_status)(path)


def cache_status(path: Path) -> dict[str, Any]:
    """Counts per stage of a cache, and how far the photos on disk have moved on."""
    cache = sf.load_cache(path)
    library = sf.Library(cache, path)
    gone = sum(not library.live_path(row) for row in range(cache.files))
    taken = cache.taken[np.isfinite(cache.taken)]
    years = [int(sf.year_of(t)) for t in (taken.min(), taken.max())] if len(taken) else []
    rows = np.arange(cache.faces)
    length = sf.usual_length(cache, rows)
    passing, _ = sf.gate_faces(cache, rows, sf.RefineParams(), length)
    journal = sf.journal_path(path)
    frames = [film for name in cache.file_path.tolist() if (film := sf.film_of(name))]
    known = {line.id: line for line in sf.companion("film_source").film_lines(path) if line.id}
    told = {
        "films": len(known) or None,
        "film_frames": len(frames) or None,
        "films_without_face": sum(not line.faces and not line.error for line in known.values()),
        "films_unreadable": sum(bool(line.error) for line in known.values()),
    }
    about_films = {name: number for name, number in told.items() if number}
    scored = int(np.count_nonzero(np.isfinite(cache.learned_quality)))
    by_model = {"scored": scored, "quality_model": cache.meta.quality_model} if scored else {}
    word, decided = library.word, {}
    if sf.decisions_path(path).exists():
        people = {
            "named_people": len(set(word.names.values())),
            "ignored_people": len(word.ignored),
        }
        decided = {"decisions": len(sf.companion("decisions").Book(path).standing()), **people}
    return {
        "cache": str(path),
        "model": cache.meta.model,
        "recognizer": cache.meta.recognizer,
        "detector": f"{cache.meta.det_size} px, score {cache.meta.det_threshold}",
        "sources": cache.meta.roots,
        "photos": cache.files - len(frames),
        **about_films,
        "copies": int(np.count_nonzero(cache.is_copy)),
        "raw_of_pairs": int(np.count_nonzero(~cache.is_copy)),
        "with_faces": int(np.count_nonzero(cache.file_status == sf.STATUS_FACES)),
        "without_face": int(np.count_nonzero(cache.file_status == sf.STATUS_NO_FACE)),
        "unreadable": int(np.count_nonzero(cache.file_status == sf.STATUS_UNREADABLE)),
        "damaged": len(cache.damaged),
        "gone_or_changed": gone,
        "faces": cache.faces,
        "enriched": int(np.count_nonzero(cache.enriched)),
        **by_model,
        **decided,
        "passing_default_gates": len(passing),
        "years": "-".join(map(str, years)),
        **dates_of(cache),
        "journal_bytes": journal.stat().st_size if journal.exists() else 0,
    }


def dates_of(cache: sf.FaceCache) -> dict[str, dict[str, int]]:
    """How many photos are dated by what, and how exactly."""
    known = np.isfinite(cache.file_taken)
    kinds = np.where(known, cache.file_taken_kind, "none")
    found = {
        "dated_by": Counter(kind or "an older version" for kind in kinds.tolist()),
        "dated_to": Counter(
            cache.file_taken_precision[known & (cache.file_taken_kind != "")].tolist()
        ),
    }
    return {name: dict(counts.most_common()) for name, counts in found.items()}


def folder_status(path: Path) -> dict[str, Any]:
    """Counts of one output tree, or of every tree below a folder `run` wrote."""
    rows = []
    for folder in [path, *(path / name for name in sf.RUN_TREES.values())]:
        for kind in sf.RUN_TREES:
            with contextlib.suppress(sf.SortFacesError):
                rows.append(tree_status(folder, sf.read_file(folder / kind.FILE, kind)))
    caches = sorted(path.glob("*.npz"))
    if not rows and not caches:
        raise sf.SortFacesError(f"{path}: neither a cache nor an output of {sf.TOOL}; name one")
    result: dict[str, Any] = {"folder": str(path)}
    if len(caches) == 1:
        result |= cache_status(caches[0])
    elif caches:
        result["caches"] = caches
    return {**result, "trees": rows} if rows else result


def not_clean(group: sf.Group | sf.Listed) -> bool:
    """Whether refine said of a face set that somebody should look at it."""
    return bool(getattr(group, "purity", None)) and group.purity.verdict not in ("", "clean")


def tree_status(
    folder: Path, manifest: sf.RawManifest | sf.RefinedManifest | sf.SwapManifest
) -> dict[str, Any]:
    """One line of counts for a tree, with the files its manifest names that are not there."""
    if isinstance(manifest, sf.SwapManifest):
        groups, files = manifest.facesets, [entry.bundle for entry in manifest.facesets]
    else:
        groups, files = manifest.groups, list(manifest.placed)
    begun = (folder / sf.RUNS_FOLDER / sf.TREE_RUN).exists()
    return {
        "tree": folder.name,
        "kind": sf.tag_of(type(manifest)),
        "groups": len(groups),
        "in_question": sum(not_clean(group) for group in groups),
        "faces": sum(len(group.faces) for group in groups),
        "files": len(files),
        "missing": sum(not os.path.lexists(folder / name) for name in files),
        "unfinished": any(folder.glob("*.pending")) or begun,
        "written": manifest.created,
    }
