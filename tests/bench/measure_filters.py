#!/usr/bin/env python3
"""Measure the filters of training sets, and what `arrange` by face needs: docs/analysis/filters.md.

    python sort_faces.py embed PEOPLE GROUPS PORTRAITS lib.npz --model MINI --pad-retry
    python tests/bench/measure_filters.py references lib.npz
    python tests/bench/measure_filters.py landmarks lib.npz
    python tests/bench/measure_filters.py memory --faces 22000

`references`: every person of `people` with 20 photos is looked for in all faces, with 4, 8 and 16
of his photos as references and the others to be found. The faces of `groups` and `portraits` and
bystanders are told apart, as some of them are the same heads of government. With half.npz in place
of lib.npz the same is measured on other people. `landmarks`: what each limit takes of real
faces, and of points that are wrong on purpose.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from common import machine, print_table, sf

arrange = sf.companion("arrange")
landmark_filter = sf.companion("landmark_filter")
reference_filter = sf.companion("reference_filter")
MANY = 16  # photos a person is looked for with, at most
THRESHOLDS = (0.35, 0.425, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.85)
RECOGNIZER = "0c845ee43af10c1e"  # of the pack `mini`
DRAWS = 5  # of references, of each person


def people_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(unit rows (n, d), person (n,)) of a cache, or of embeddings with labels; "" is a bystander.

    Of a cache the face nearest the middle of each photo of `people` is the person of the folder.
    """
    if path.name == "half.npz":
        held = np.load(path)
        names = [str(name) if name >= 0 else "" for name in held["person"].tolist()]
        return sf.unit_rows(held["embedding"]), np.array(names)
    cache = sf.load_cache(path)
    person = np.full(cache.faces, "", dtype=object)
    for rows in sf.companion("looking").rows_by_sha(cache).values():
        parts = Path(cache.file_path[cache.face_file[rows[0]]]).parts
        person[rows[0]] = parts[-2] if parts[-3] == "people" else ""
    return cache.unit, person.astype(str)


def measure_references(unit: np.ndarray, person: np.ndarray) -> None:
    """Precision and recall of filter and nfilter by threshold and number of references."""
    rng = np.random.default_rng(0)
    names, counts = np.unique(person[person != ""], return_counts=True)
    many = names[counts >= MANY + 4]
    filters = reference_filter.ReferenceFilter(None, None, sf.KNOWN_FIGURES[RECOGNIZER], 0.0)
    table = []
    for size in (1, 4, 8, MANY):
        found: dict[str, list[np.ndarray]] = {"own": [], "people": [], "others": []}
        for name in np.repeat(many, DRAWS):
            own = rng.permutation(np.flatnonzero(person == name))
            refs = unit[own[:size]]
            found["own"].append(filters.likeness(unit[own[size:]], refs))
            strangers = (person != name) & (person != "")
            found["people"].append(filters.likeness(unit[strangers], refs))
            found["others"].append(filters.likeness(unit[person == ""], refs))
        table += [shares(size, limit, found) for limit in THRESHOLDS]
    rest = np.count_nonzero(person == "")
    print(f"{len(many)} people looked for, {counts.sum()} photos of {len(names)}, {rest} others")
    print_table("filter keeps, nfilter takes", table)


def shares(size: int, limit: float, found: dict[str, list[np.ndarray]]) -> dict[str, object]:
    """A line of the table: what a threshold finds of the person, and of all who are not."""
    part = {kind: np.mean([np.mean(x >= limit) for x in some]) for kind, some in found.items()}
    hits, slips = (np.mean([np.sum(x >= limit) for x in found[k]]) for k in ("own", "people"))
    return {
        "references": size,
        "threshold": limit,
        "recall": f"{part['own']:.3f}",
        "precision": f"{hits / max(hits + slips, 1e-9):.3f}",
        "of other people": f"{part['people']:.3%}",
        "of bystanders and groups": f"{part['others']:.3%}",
    }


def measure_landmarks(cache: sf.FaceCache) -> None:
    """What each limit takes of real faces, by the source, and of wrong points."""
    rng = np.random.default_rng(0)
    source = [Path(cache.file_path[file]).parts for file in cache.face_file]
    kinds = {
        name: np.array([name in parts for parts in source])
        for name in ("people", "groups", "portraits")
    }
    broken = {
        "points at random": rng.uniform(0, 1, cache.kps.shape) * 100 + 50,
        "points shuffled": np.stack([points[rng.permutation(5)] for points in cache.kps]),
        "points jittered by a third of the eyes' distance": cache.kps
        + rng.normal(0, 1, cache.kps.shape)
        * np.linalg.norm(cache.kps[:, 1] - cache.kps[:, 0], axis=1)[:, None, None]
        / 3,
        "upside down (eyes and mouth swapped)": cache.kps[:, [3, 4, 2, 0, 1]],
    }
    table = []
    for name, rows in kinds.items():
        table.append(row_of(name, sf.replace(cache, kps=cache.kps), np.flatnonzero(rows)))
    for name, kps in broken.items():
        made = sf.replace(cache, kps=kps.astype(np.float32))
        table.append(row_of(name, made, np.arange(cache.faces)))
    print_table("share taken by each limit", table)


def row_of(name: str, cache: sf.FaceCache, rows: np.ndarray) -> dict[str, object]:
    """Shares of the faults of these rows, and how far out the real ones go."""
    found = sf.Counter(
        reason for reason, _ in landmark_filter.faults(cache, rows, sf.LandmarkLimits())
    )
    shapes = landmark_filter.shapes_of(cache.kps[rows])
    share = {reason: f"{found[reason] / len(rows):.2%}" for reason in landmark_filter.REASONS}
    far = np.percentile(shapes.distance, [50, 99, 100])
    steep = np.percentile(np.abs(shapes.roll), [50, 99, 100])
    return {
        "faces": name,
        "count": len(rows),
        **share,
        "distance 50/99/100 %": "/".join(f"{value:.1f}" for value in far),
        "roll 50/99/100 %": "/".join(f"{value:.0f}" for value in steep),
    }


def measure_memory(faces: int, dim: int, people: int) -> None:
    """Seconds and memory of `arrange` by face on made faces, beside what n squared would take."""
    rng = np.random.default_rng(0)
    centres = sf.unit_rows(rng.normal(size=(people, dim)))
    noise = rng.normal(size=(faces, dim)).astype(np.float32) * np.float32(0.8 / np.sqrt(dim))
    unit = sf.unit_rows(centres[rng.integers(0, people, faces)] + noise)
    del noise
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    labels = arrange.people(unit, sf.Thresholds.cluster)
    grouped = time.perf_counter()
    order = arrange.by_face(unit, labels)
    end = time.perf_counter()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = {
        "faces": len(order),
        "people": people,
        "groups": len(set(labels.tolist())),
        "embeddings MB": unit.nbytes // 1_000_000,
        "peak MB above them": (after - before) // 1000,
        "Faceswap's n*n*24/1.8, MB": round(faces**2 * 24 / 1.8 / 1e6),
        "grouping s": f"{grouped - start:.1f}",
        "order s": f"{end - grouped:.1f}",
    }
    print_table("arrange by face", [row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("what", choices=("references", "landmarks", "memory"))
    parser.add_argument("cache", type=Path, nargs="?")
    parser.add_argument("--faces", type=int, default=22_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--people", type=int, default=40)
    args = parser.parse_args()
    print(machine())
    if args.what == "memory":
        measure_memory(args.faces, args.dim, args.people)
    elif args.what == "references":
        measure_references(*people_of(args.cache))
    else:
        measure_landmarks(sf.load_cache(args.cache))


if __name__ == "__main__":
    main()
