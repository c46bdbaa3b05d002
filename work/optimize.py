"""What `optimize` drops: PNGs that two people share, and near-duplicates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

import sort_faces as sf


def byte_duplicates(sets: Sequence[sf.FaceSet], vectors: dict[str, np.ndarray]) -> list[sf.Move]:
    """Drop PNGs that two people share from all but the one they look like most.

    Copies within one family, a set and its eras, stay; twice in one set is once too often.
    """
    owners: dict[str, list[tuple[sf.FaceSet, int]]] = defaultdict(list)
    for faceset in sets:
        for at, face in enumerate(faceset.faces):
            owners[face.sha256].append((faceset, at))
    moves = []
    for holders in owners.values():
        if len({faceset.family for faceset, _ in holders}) > 1:
            likeness = {
                faceset.family: 1.0 - float(sf.own_distances(vectors[faceset.folder])[at])
                for faceset, at in holders
            }
            best = max(likeness, key=lambda family: (likeness[family], sf.natural(family)))
            wrong = [(faceset, at) for faceset, at in holders if faceset.family != best]
            reason = f"the same PNG is in {best}"
            moves += [
                sf.drop(
                    faceset, faceset.faces[at], reason, cosine=round(likeness[faceset.family], 4)
                )
                for faceset, at in wrong
            ]
            holders = [(faceset, at) for faceset, at in holders if faceset.family == best]
        seen = set()
        for faceset, at in holders:
            if faceset.folder in seen:
                moves.append(sf.drop(faceset, faceset.faces[at], "the same PNG twice"))
            seen.add(faceset.folder)
    return moves


def near_duplicates(
    sets: Sequence[sf.FaceSet],
    vectors: dict[str, np.ndarray],
    distance: float,
    gone: dict[str, sf.Move],
) -> list[sf.Move]:
    """Within each set sf.drop what lies within a distance of a better face that stays."""
    moves = []
    for faceset in sets:
        rows = [
            row
            for row, face in enumerate(faceset.faces)
            if f"{faceset.folder}/{face.file}" not in gone and vectors[faceset.folder][row].any()
        ]
        unit = vectors[faceset.folder][rows]
        for at, keeper in enumerate(sf.nearest_keeper(unit, distance)):
            if keeper != at:
                face, better = faceset.faces[rows[at]], faceset.faces[rows[keeper]]
                numbers = {"cosine": round(float(unit[at] @ unit[keeper]), 4)}
                reason = f"near-duplicate of {PurePosixPath(better.file).name}"
                moves.append(sf.drop(faceset, face, reason, **numbers))
    return moves
