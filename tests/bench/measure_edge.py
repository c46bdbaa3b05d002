#!/usr/bin/env python3
"""Measure where `consolidate --edge` should lie: centroids of one person against strangers'.

    python sort_faces.py embed PEOPLE_DIR lib.npz [--model ...]
    python tests/bench/measure_edge.py lib.npz

PEOPLE_DIR holds one folder per person. Of people with many photos two disjoint handfuls are drawn
again and again: their centroids are what a split identity looks like. Centroids of different
people are what must stay apart. What the numbers led to is in docs/analysis/consolidate.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import machine, print_table, sf

DRAWS = 40  # of each person; of strangers a quarter
LEAST = 3  # photos a stranger needs
SIZES = (3, 5, 8)  # faces in each half of a split person
EDGES = (0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80)


def main_faces(cache: sf.FaceCache) -> tuple[np.ndarray, np.ndarray]:
    """(rows, person) of the largest face of each photo; the folder's name is the person."""
    order = np.lexsort((-cache.face_short, cache.face_file))
    rows = order[np.unique(cache.face_file[order], return_index=True)[1]]
    return rows, np.array(
        [Path(cache.file_path[file]).parent.name for file in cache.face_file[rows]]
    )


def draw(unit: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Centroid of up to `size` random rows."""
    return sf.centroid(unit[rng.permutation(len(unit))[:size]])


def measure(cache: sf.FaceCache, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of centroids: (of halves of one person, of strangers)."""
    rng = np.random.default_rng(size)
    rows, person = main_faces(cache)
    people = {name: cache.unit[rows[person == name]] for name in np.unique(person)}
    same = []
    for unit in people.values():
        for _ in range(DRAWS if len(unit) >= 2 * size else 0):
            mixed = unit[rng.permutation(len(unit))]
            same.append(sf.centroid(mixed[:size]) @ sf.centroid(mixed[size : 2 * size]))
    known = [unit for unit in people.values() if len(unit) >= LEAST]
    strangers = []
    for _ in range(DRAWS // 4):
        centres = np.stack([draw(unit, rng, size) for unit in known])
        strangers.append((centres @ centres.T)[np.triu_indices(len(centres), 1)])
    return np.array(same), np.concatenate(strangers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("cache", type=Path)
    cache = sf.load_cache(parser.parse_args().cache)
    print(f"{cache.meta.model}; {machine()}")
    for size in SIZES:
        same, strangers = measure(cache, size)
        rows = [
            {
                "edge": edge,
                "halves not joined %": 100 * float(np.mean(same < edge)),
                "strangers joined %": 100 * float(np.mean(strangers >= edge)),
            }
            for edge in EDGES
        ]
        least, most = float(same.min()), float(strangers.max())
        print_table(
            f"{size} faces a set: {len(same)} halves (least {least:.3f}), "
            f"{len(strangers)} pairs of strangers (most {most:.3f})",
            rows,
        )


if __name__ == "__main__":
    main()
