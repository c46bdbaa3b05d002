"""`run --each`: every folder in a folder is a source with outputs of its own; one cache knows all.

What is seen of photos and films goes into OUT/faces.npz, each photo once, wherever it lies. Of that
OUT/<folder>/faces.npz gets the part that lies in the folder, and all that follows is a run of its
own there: trees, face sets, decisions, review.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

import sort_faces as sf

whom = sf.companion("forget_target")


def sources_in(
    folders: Sequence[Path], out: Path, scan: sf.ScanOptions
) -> tuple[dict[str, Path], int]:
    """({name of its outputs: source}, files beside them that are in none).

    With films each film that lies beside the folders is a source, too. Raises SortFacesError
    where there is none, or where OUT lies among them.
    """
    roots = sf.source_roots(folders)
    sf.check_place(out, [str(root.resolve()) for root in roots])
    found: dict[str, Path] = {}
    loose = 0
    for root in roots:
        for path in sorted(root.iterdir() if root.is_dir() else [root]):
            hidden = path.name.startswith(".") or path.name in sf.SKIPPED_FOLDERS
            film = scan.films.films and path.suffix.lower() in sf.VIDEO_SUFFIXES
            if path.is_dir() and not hidden and not sf.is_own_output(str(path)):
                name = path.name
            elif path.is_file() and film and not hidden:
                name = path.stem
            else:
                loose += path.is_file() and not hidden
                continue
            name = name if name not in found else f"{path.name}-{sf.path_mark(str(path))}"
            found[name] = path
    if not found:
        raise sf.SortFacesError(
            f"{', '.join(map(str, folders))}: holds no folders; leave out --each to run over it"
        )
    return found, loose


def take_part(shared: Path, source: Path, target: Path, crew: sf.Crew) -> dict[str, Any]:
    """Write of a cache what lies below a source; returns the counts.

    What the part has forgotten stays forgotten, what was drawn in it is drawn again.
    """
    cache, root = sf.load_cache(shared), str(sf.source_roots([source])[0])
    inside = os.path.join(root, "")
    known = sf.known_paths(cache)
    paths = {p: facts for p, facts in known.items() if sf.file_of(p).startswith(inside)}
    paths |= {p: facts for p, facts in known.items() if sf.file_of(p) == root}
    meta = msgspec.structs.replace(cache.meta, roots=[os.path.realpath(root)])
    part = sf.replace(sf.rebuild_cache(cache, {}, paths, Counter()), meta=meta)
    part = without_forgotten(part, target)
    sf.make_folder(target.absolute().parent)
    with sf.locked_cache(target):
        if sf.tombstone_path(target).exists() or not same_cache(target, part):
            sf.save_cache(target, part)
        if sf.decisions_path(target).exists():
            sf.companion("drawn_faces").add_again(target, crew)
            part = sf.load_cache(target)
            if sf.journal_path(target).exists():
                sf.save_cache(target, part)
    return {"cache": str(target), "photos": part.files, "faces": part.faces}


def same_cache(path: Path, cache: sf.FaceCache) -> bool:
    """Whether a cache lies there already, with nothing in its journal; by its faces and paths."""
    if not path.exists() or sf.journal_path(path).exists():
        return False
    old = sf.load_cache(path)
    return (
        old.meta == cache.meta
        and old.face_ids == cache.face_ids
        and old.paths == cache.paths
        and old.enriched.tolist() == cache.enriched.tolist()
    )


def without_forgotten(cache: sf.FaceCache, path: Path) -> sf.FaceCache:
    """A cache without what the tombstone beside `path` keeps out."""
    if not sf.tombstone_path(path).exists():
        return cache
    door = sf.Doorkeeper(path, cache.meta)
    photos = [sha for sha in cache.file_sha256.tolist() if door.refuses(sha)]
    gone = []
    for row, face in enumerate(cache.face_ids):
        about = {
            "bbox": cache.bbox[row].tolist(),
            "embedding": sf.pack_floats(cache.embedding[row]),
        }
        if not door.admitted(str(cache.file_sha256[cache.face_file[row]]), [about]):
            gone.append(face)
    return whom.reduced_cache(cache, gone, photos)


def steps_of(args: argparse.Namespace, source: Path, out: Path, shared: Path) -> sf.ChainSteps:
    """The steps of `run` for one source, over its part of the shared cache."""
    cache, scan = out / "faces.npz", sf.of_args(sf.ScanOptions, args)
    crew = sf.crew_of(args, True)
    rest = sf.chain_steps(args, [source], out, cache)
    first: sf.ChainSteps = {
        "embed": lambda: sf.embed_library([source], shared, crew, scan),
        "enrich": lambda: sf.enrich_and_score(shared, crew, False, args.quality_model),
        "part": lambda: take_part(shared, source, cache, crew),
    }
    return {**first, **{name: step for name, step in rest.items() if name not in first}}


def run_one(args: argparse.Namespace, source: Path, out: Path, shared: Path) -> dict[str, Any]:
    """A row of the closing table; what stops a source is told in it."""
    if args.dry_run:
        scan = sf.of_args(sf.ScanOptions, args)
        found = sf.scan_sources([source], scan)
        return {"photos": len(found.files), "films": len(found.films)}
    steps = steps_of(args, source, out, shared)
    result = sf.run_chain(args, [source], out, out / "faces.npz", steps)
    part = next(row["result"] for row in result["steps"] if row["step"] == "part")
    faces = sum(row["face_count"] for row in result["facesets"])
    problem = "" if result["facesets"] else "no face set came of it"
    return {"result": part, "facesets": len(result["facesets"]), "faces": faces, "problem": problem}


def run_each(args: argparse.Namespace) -> sf.Outcome:
    """`run --each`: a run for every folder; one that fails does not stop the others."""
    shared = args.cache or args.out / "faces.npz"
    sources, loose = sources_in(args.sources, args.out, sf.of_args(sf.ScanOptions, args))
    if loose:
        sf.log.warning("%d files beside the folders are in no source; passed over", loose)
    rows, failed = [], 0
    for number, (name, source) in enumerate(sources.items(), 1):
        sf.log.info("source %d/%d: %s", number, len(sources), source)
        row: dict[str, Any] = {"source": name, "result": "", "facesets": 0, "faces": 0}
        try:
            row |= {"problem": "", **run_one(args, source, args.out / name, shared)}
        except (sf.SortFacesError, OSError) as error:
            failed += 1
            row["problem"] = sf.one_line(error).removeprefix(f"{source}: ")
            sf.log.warning("%s: %s", source, row["problem"])
        rows.append(row)
    about = {"out": str(args.out), "cache": str(shared), "sources": len(rows), "failed": failed}
    made = args.dry_run or any(row["facesets"] for row in rows)
    return sf.Outcome({**about, "each": rows}, not failed and bool(made))
