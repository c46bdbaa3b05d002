"""What is measured of each person of a library, of all at once and without a loop over people.

A companion of the review page. Rows are those of the cache; a person is called by its lowest row,
so that a label stays as long as that face does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import sort_faces as sf

AT_ONCE = 1 << 14  # rows gathered at once: 32 MB of embeddings of 512 numbers
FAR_SPREADS = 4.0  # times the spread beyond the middle face: far; refine takes out from 5.5
DOUBTS = ("far", "same_photo", "covered", "weak", "before_birth")  # bit 0, 1, ... of `doubts`


@dataclass(frozen=True)
class Parts:
    """Rows in the order of their labels: part k is rows[start[k] : start[k + 1]]."""

    rows: np.ndarray  # (m,) int
    start: np.ndarray  # (g,) int
    label: np.ndarray  # (g,) int: the lowest row of each part

    @property
    def size(self) -> np.ndarray:
        return np.diff(np.append(self.start, len(self.rows)))

    @property
    def of_row(self) -> np.ndarray:
        """(m,) int: which part each of `rows` lies in."""
        return np.repeat(np.arange(len(self.start)), self.size)

    def take(self, wanted: np.ndarray) -> Parts:
        """The parts that are wanted, (g,) bool."""
        rows = self.rows[wanted[self.of_row]]
        ends = np.cumsum(self.size[wanted])
        return Parts(rows, np.concatenate([[0], ends[:-1]]).astype(int)[: len(ends)],
                     self.label[wanted])  # fmt: skip

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """(parts, their rows) of about AT_ONCE rows; a large part is one block."""
        ends = np.append(self.start, len(self.rows))
        first = 0
        while first < len(self.start):
            last = int(np.searchsorted(ends, ends[first] + AT_ONCE, side="right")) - 1
            last = max(last, first + 1)
            yield slice(first, last), slice(int(ends[first]), int(ends[last]))
            first = last

    def total(self, values: np.ndarray) -> np.ndarray:
        """(g,) sums of the values (m,) of each part's rows."""
        return np.add.reduceat(values, self.start) if len(self.start) else values[:0]

    def first_by(self, *keys: np.ndarray) -> np.ndarray:
        """(g,) int: the row of each part that comes first by the keys (m,), the last key first."""
        order = np.lexsort((*keys, self.of_row))
        return self.rows[order[self.start]]

    def middle(self, values: np.ndarray) -> np.ndarray:
        """(g,) medians of the values (m,) of each part's rows."""
        ordered = values[np.lexsort((values, self.of_row))]
        low, high = self.start + (self.size - 1) // 2, self.start + self.size // 2
        return (ordered[low] + ordered[high]) / 2


def lowest_rows(labels: np.ndarray) -> np.ndarray:
    """Each row's label named by the lowest row that has it, (n,) int."""
    if not len(labels):
        return labels
    first = np.empty(int(labels.max()) + 1, np.intp)
    first[labels[::-1]] = np.arange(len(labels))[::-1]  # the last one written stays: the lowest
    return first[labels]


def bound_rows(person: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """The lowest row that each row is bound to by a word, (n,) int; -1 where nothing binds it.

    person: (n,) int, -1 none; apart: (p, 2) rows, which are bound if only to themselves.
    """
    result = np.full(len(person), -1)
    loose = np.unique(apart)
    result[loose] = loose
    said = np.flatnonzero(person >= 0)
    result[said] = said[lowest_rows(person[said])]
    return result


def linked_groups(base: np.ndarray, bound: list[np.ndarray], first: np.ndarray) -> np.ndarray:
    """(n,) bool, to be read at a group's label: the groups of the rows `first` (n,) bool, and all
    that hang together with them as rows of both are bound to each other.

    base: (n,) labels, lowest rows; bound: what bound_rows says, of one word or of several.
    """
    groups = np.zeros(len(base), bool)
    groups[base[first]] = True
    said = [(np.flatnonzero(one >= 0), one[one >= 0]) for one in bound]
    while True:
        before = np.count_nonzero(groups)
        for rows, names in said:
            reached = np.zeros(len(base), bool)
            reached[names[groups[base[rows]]]] = True
            groups[base[rows[reached[names]]]] = True
        if np.count_nonzero(groups) == before:
            return groups


def parts_of(labels: np.ndarray, rows: np.ndarray) -> Parts:
    """The parts that the labels (n,) make of some rows (m,), rising; labels are lowest rows."""
    rows = rows[np.argsort(labels[rows], kind="stable")]
    named = labels[rows]
    start = np.flatnonzero(np.diff(named, prepend=-1)) if len(rows) else np.zeros(0, int)
    return Parts(rows, start, named[start])


def sums_of(unit: np.ndarray, parts: Parts) -> np.ndarray:
    """(g, d) float32 sums of the unit rows of each part."""
    result = np.empty((len(parts.start), unit.shape[1]), np.float32)
    for some, rows in parts.blocks():
        starts = parts.start[some] - rows.start
        result[some] = np.add.reduceat(unit[parts.rows[rows]], starts, axis=0)
    return result


def along(unit: np.ndarray, parts: Parts, vectors: np.ndarray) -> np.ndarray:
    """(m,) float32 products of each row with the vector (g, d) of its part."""
    result, part = np.empty(len(parts.rows), np.float32), parts.of_row
    for _, rows in parts.blocks():
        result[rows] = np.einsum("nd,nd->n", unit[parts.rows[rows]], vectors[part[rows]])
    return result


def apart_from_rest(product: np.ndarray, sums: np.ndarray, parts: Parts) -> np.ndarray:
    """Cosine distance of each row to the centroid of the others of its part, (m,).

    product: (m,) of each row with the sum (g, d) of its part, itself in it. See sf.own_distances.
    """
    square = np.einsum("gd,gd->g", sums, sums)[parts.of_row]
    rest = np.maximum(square - 2.0 * product + 1.0, 1e-12)
    return 1.0 - (product - 1.0) / np.sqrt(rest)


def far_faces(away: np.ndarray, parts: Parts, usual_spread: float) -> np.ndarray:
    """(m,) bool: rows farther from the rest of their part than its faces are; away: (m,).

    The limit is the one of sf.outlier_limits, with FAR_SPREADS; small parts have none.
    """
    middle = parts.middle(away)
    size = parts.size
    spread = sf.MAD_SIGMA * parts.middle(np.abs(away - middle[parts.of_row]))
    both = (size * spread**2 + sf.SPREAD_FACES * usual_spread**2) / (size + sf.SPREAD_FACES)
    limit = middle + FAR_SPREADS * np.maximum(np.sqrt(both), sf.LEAST_SPREAD)
    limit[size < sf.OUTLIER_MIN_CLUSTER] = np.inf
    return away > limit[parts.of_row]


def second_in_photo(
    cache: sf.FaceCache, parts: Parts, likeness: np.ndarray, copy: float
) -> np.ndarray:
    """(m,) bool: rows whose part has a likelier face in the same photo, which is no copy of it.

    likeness: (m,) to the part's centre; copy: cosine distance of a mirror image or collage.
    """
    result, part = np.zeros(len(parts.rows), bool), parts.of_row
    photo = cache.face_file[parts.rows].astype(np.int64)
    order = np.lexsort((-likeness, photo, part))
    key = part[order].astype(np.int64) * cache.files + photo[order]
    again = np.flatnonzero(key[1:] == key[:-1]) + 1
    owner = np.maximum.accumulate(np.where(np.diff(key, prepend=-1) != 0, np.arange(len(key)), 0))
    left, right = parts.rows[order[again]], parts.rows[order[owner[again]]]
    cosine = np.einsum("nd,nd->n", cache.unit[left], cache.unit[right])
    result[order[again]] = cosine < 1.0 - copy
    return result
