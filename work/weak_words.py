"""Names that may be a face's: what of them holds.

A photo with one name and one face (Google Takeout, keywords) says "maybe" of that face: the name
may be of somebody whom the detector missed. Such words count as far as the faces agree among
themselves and with all that is known for certain; they never join what looks like two people.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

import sort_faces as sf

decisions = sf.companion("decisions")

MOST = 2000  # faces of a name that are compared with each other


def held(finder: Any, weighed: Sequence[Any]) -> list[Any]:
    """Lines by weight in which each that says "maybe" has become a name of the faces that it holds
    for, or is gone.

    finder: decisions.Finder; what was found is kept there, as a review page asks at every key.
    """
    key = tuple(line.id for line in weighed if line.kind in ("name", "maybe"))
    known = vars(finder).get("weak_words")
    if known is None or known[0] != key:
        known = finder.weak_words = key, rows_held(finder, weighed)
    stays, lines = known[1], []
    for line in weighed:
        if line.kind != "maybe":
            lines.append(line)
            continue
        rows = [row for row in finder.rows(line.faces) if row in stays]
        if rows:
            faces = decisions.refs(finder.cache, rows)
            lines.append(msgspec.structs.replace(line, kind="name", faces=faces))
    return lines


def rows_held(finder: Any, weighed: Sequence[Any]) -> set[int]:
    """The rows of which a "maybe" holds.

    They lie nearer to the faces of their own name than to those of any other, and no farther than
    a face may lie from its group's middle. Where nobody is called so for certain, the middle is
    that of the largest part that agrees; it must be more than half, and nobody else's.
    """
    unit = finder.cache.unit
    limits = sf.thresholds_for(finder.cache.meta.model)
    sure, weak = rows_by_name(finder, weighed, "name"), rows_by_name(finder, weighed, "maybe")
    certain = {row for rows in sure.values() for row in rows}
    free = {name: [row for row in rows if row not in certain] for name, rows in weak.items()}
    middles = {name: sf.centroid(unit[rows[:MOST]]) for name, rows in sure.items()}
    cores = {name: core_of(unit, rows, limits.outlier) for name, rows in free.items() if rows}
    for name in sorted(cores.keys() - middles.keys(), key=lambda name: (-len(cores[name]), name)):
        if 2 * len(cores[name]) > min(len(free[name]), MOST):
            middle = sf.centroid(unit[cores[name]])
            known = np.array([*middles.values()], np.float32).reshape(-1, unit.shape[1])
            if not (known @ middle >= 1.0 - limits.merge).any():  # one person has one name
                middles[name] = middle
    names, stays = list(middles), set()
    centres = np.array([*middles.values()], np.float32)
    for name in cores.keys() & middles.keys():
        index, distance = sf.nearest(unit[free[name]], centres)
        fits = (index == names.index(name)) & (distance <= limits.outlier)
        stays.update(np.array(free[name])[fits].tolist())
    return stays


def core_of(unit: np.ndarray, rows: list[int], limit: float) -> np.ndarray:
    """The row that most of these rows lie near to, with those: (k,) of the first MOST."""
    some = np.array(rows[:MOST])
    near = unit[some] @ unit[some].T >= 1.0 - limit
    return some[near[near.sum(axis=1).argmax()]]


def rows_by_name(finder: Any, lines: Sequence[Any], kind: str) -> dict[str, list[int]]:
    """{name in small letters: rows} of the lines of one kind; of one face the weightiest counts."""
    found: dict[str, dict[int, None]] = defaultdict(dict)
    taken: set[int] = set()
    for line in lines:
        if line.kind == kind and line.text:
            rows = [row for row in finder.rows(line.faces) if row not in taken]
            taken.update(rows)
            found[line.text.casefold()].update(dict.fromkeys(rows))
    return {name: list(rows) for name, rows in found.items() if rows}
