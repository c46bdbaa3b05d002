"""Where thousands of faces hang together: average linkage in memory linear in them.

Loaded by sort_faces.py for components of more than DENSE_COMPONENT faces, and for blocks of the
product in which so many pairs are close that they are not listed one by one. Reciprocal nearest
neighbours are merged, as average linkage is reducible: d(A+B, C) >= min(d(A, C), d(B, C)), so the
order of such merges does not matter (Murtagh 1983, "A survey of recent advances in hierarchical
clustering algorithms").

Products of all pairs are dear, so each pass over them lists for every cluster its NEAREST nearest
ones, and a bound that nothing unlisted is nearer than. By reducibility both hold after merges, too:
what a list says of a cluster that was merged is at most too near, and is looked at again when it
comes first (as in Muellner 2011, "Modern hierarchical, agglomerative clustering algorithms", the
generic algorithm). A pass ends when the lists decide nothing more; the next one takes the clusters
that are left, and the last few are merged by their whole matrix of distances.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import sort_faces as sf

NEAREST = 32  # clusters a list holds; 16 and 64 took a tenth longer, docs/analysis/clustering.md
SAMPLE = 256  # clusters that tell how near the nearest ones will be
HELD_LISTS = 4  # times the length of all lists are held until they are cut
DOTS = 4096  # pairs whose rows are gathered at once: 8 MB each


def average_linkage(unit: np.ndarray, threshold: float) -> np.ndarray:
    """Clusters of unit rows (m, d), cut at cosine distance `threshold`: (m,) int from 0."""
    owner = owners_of_copies(unit, threshold)
    active, sizes = np.unique(owner, return_counts=True)
    means, sizes = unit[active], sizes.astype(np.float32)
    rng = np.random.default_rng(0)  # only time depends on the order
    while len(active) > sf.DENSE_COMPONENT:
        order = rng.permutation(len(active))
        active, means, sizes = active[order], means[order], sizes[order]
        state = Clusters(means, sizes, *nearest_few(means, threshold))
        into = merge_listed(state)
        owner = renamed(owner, active, active[into])
        left = np.flatnonzero(state.is_open(threshold) & (into == np.arange(len(into))))
        active, means, sizes = active[left], means[left], sizes[left]
    into = dense_average_linkage(means, sizes, threshold)
    return np.unique(renamed(owner, active, active[into]), return_inverse=True)[1]


def owners_of_copies(unit: np.ndarray, threshold: float) -> np.ndarray:
    """For each row (m, d) the first that equals it, (m,) int: ties that would take a round each."""
    first: dict[bytes, int] = {}
    owner = np.array([first.setdefault(row.tobytes(), at) for at, row in enumerate(unit)])
    alike = 1.0 - dots(unit, np.arange(len(unit)), owner, unit) < threshold  # a zero row is not
    return np.where(alike, owner, np.arange(len(unit)))


def renamed(owner: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """owner (m,) with new[k] for each old[k]."""
    moved = np.arange(len(owner))
    moved[old] = new
    return moved[owner]


def dots(left: np.ndarray, a: np.ndarray, b: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left[a[k]] . right[b[k]] for every k: (k,) float32."""
    result = np.empty(len(a), np.float32)
    for start in range(0, len(a), DOTS):
        some = slice(start, start + DOTS)
        result[some] = np.einsum("nd,nd->n", left[a[some]], right[b[some]])
    return result


def no_nearer(threshold: float) -> np.float32:
    """The smallest cosine of a pair that is nearer than `threshold`."""
    return np.nextafter(np.float32(1.0 - threshold), np.float32(2.0))


# ---------------------------------------------------------------------------- lists


def nearest_few(means: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists of the nearest ones of each of the clusters with these means (n, d).

    Returns (n, NEAREST) int numbers, (n, NEAREST) float32 cosines, -inf where there is none, and
    (n,) float32 bounds: no cluster that is not listed has a larger cosine.
    """
    count = len(means)
    bound = likely_bounds(means, no_nearer(threshold))
    held, length = [], 0
    for start in range(0, count, sf.LINK_BLOCK):
        for first in range(start, count, sf.LINK_BLOCK):
            for entries in near_pairs(means, bound, start, first):
                held.append(entries)
                length += len(entries[0])
            if length > HELD_LISTS * NEAREST * count:
                row, column, cosine, _ = cut_lists(held, bound)
                held, length = [(row, column, cosine)], len(row)
    row, column, cosine, rank = cut_lists(held, bound)
    near = np.zeros((count, NEAREST), np.int32)
    cosines = np.full((count, NEAREST), -np.inf, np.float32)
    near[row, rank], cosines[row, rank] = column, cosine
    return near, cosines, bound


def likely_bounds(means: np.ndarray, least: np.float32) -> np.ndarray:
    """Cosines (n,) that about one and a half NEAREST clusters reach, told from a SAMPLE of them."""
    count, size = len(means), min(SAMPLE, len(means))
    rank = min(round(1.5 * NEAREST * size / count) + 1, size)
    bound = np.empty(count, np.float32)
    for start in range(0, count, sf.LINK_BLOCK):
        cosine = means[start : start + sf.LINK_BLOCK] @ means[:size].T
        own = np.arange(start, min(start + len(cosine), size))
        cosine[own - start, own] = -np.inf
        bound[start : start + len(cosine)] = np.partition(cosine, size - rank, axis=1)[:, -rank]
    return np.maximum(bound - sf.LINK_SLACK, least)  # another product may round another way


def near_pairs(
    means: np.ndarray, bound: np.ndarray, start: int, first: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Entries (row, column, cosine) for the lists of both sides, from one block of all pairs."""
    size = sf.LINK_BLOCK
    cosine = means[start : start + size] @ means[first : first + size].T
    near = cosine >= bound[start : start + size, None]
    near |= cosine >= bound[first : first + size]
    at = np.flatnonzero(near)
    row, column = np.divmod(at, cosine.shape[1])
    row, column, value = row + start, column + first, cosine.ravel()[at]
    if start == first:
        upper = row < column
        row, column, value = row[upper], column[upper], value[upper]
    for own, other in ((row, column), (column, row)):
        fits = value >= bound[own]
        yield own[fits].astype(np.int32), other[fits].astype(np.int32), value[fits]


def cut_lists(held: list[tuple[np.ndarray, ...]], bound: np.ndarray) -> tuple[np.ndarray, ...]:
    """Row, column, cosine and rank of the NEAREST best entries of each row; raises its bound to
    the best one that is left out."""
    row, column, cosine = (np.concatenate(part) for part in zip(*held, strict=True))
    order = np.argsort(row * 4.0 - cosine)  # by row, then by cosine; twice as fast as lexsort
    row, column, cosine = row[order], column[order], cosine[order]
    rank = np.arange(len(row)) - np.searchsorted(row, np.arange(len(bound)))[row]
    out = rank == NEAREST
    bound[row[out]] = cosine[out]
    keep = rank < NEAREST
    return row[keep], column[keep], cosine[keep], rank[keep]


# ---------------------------------------------------------------------------- merges


class Clusters:
    """Clusters of one pass, each in a place. A merge gives a new number, so that a list's entry
    with an old one is known to be out of date."""

    def __init__(
        self,
        means: np.ndarray,
        sizes: np.ndarray,
        near: np.ndarray,
        cosine: np.ndarray,
        bound: np.ndarray,
    ) -> None:
        count = len(means)
        self.means, self.sizes = means, sizes  # (n, d), (n,) float32
        self.near, self.cosine, self.bound = near, cosine, bound  # as nearest_few gives them
        self.number = np.arange(count)  # of the cluster in each place
        self.place = np.arange(2 * count)  # of the cluster with each number
        self.parent = np.arange(2 * count)  # number of the cluster it went into
        self.used = count

    def is_open(self, threshold: float) -> np.ndarray:
        """(n,) bool: places whose cluster may still find a near one."""
        return (self.bound > no_nearer(threshold)) | np.isfinite(self.cosine).any(axis=1)

    def living(self, number: np.ndarray) -> np.ndarray:
        """The numbers (k,) of the clusters that these went into."""
        while (self.parent[number] != number).any():
            number = self.parent[number]
        return number

    def first_of(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The nearest entry of each list: where it stands, its number and cosine, (k,) each."""
        at = self.cosine[places].argmax(axis=1)
        return at, self.near[places, at], self.cosine[places, at]

    def renew(self, places: np.ndarray) -> None:
        """Bring the nearest entry of each list up to date, or strike it out."""
        at, number, _ = self.first_of(places)
        number = self.living(number)
        other = self.place[number]
        cosine = dots(self.means, places, other, self.means)
        cosine[(other == places) | (cosine < self.bound[places])] = -np.inf
        self.near[places, at], self.cosine[places, at] = number, cosine

    def merge(self, keep: np.ndarray, gone: np.ndarray) -> None:
        """Put the cluster in each place gone[k] into that in keep[k]; lists are put together."""
        new = self.used + np.arange(len(keep))
        self.used += len(keep)
        for places in (keep, gone):
            self.parent[self.number[places]] = new
        self.number[keep], self.place[new] = new, keep
        a, b = self.sizes[keep], self.sizes[gone]
        share = (b / (a + b))[:, None]
        self.means[keep] += share * (self.means[gone] - self.means[keep])
        self.bound[keep] += share[:, 0] * (self.bound[gone] - self.bound[keep])
        self.sizes[keep] = a + b
        both = np.concatenate([keep, gone])
        row, at = np.nonzero(np.isfinite(self.cosine[both]))
        number = self.living(self.near[both[row], at])
        pairs = np.unique(row % len(keep) * np.int64(len(self.parent)) + number)
        row, number = np.divmod(pairs, len(self.parent))
        cosine = dots(self.means, keep[row], self.place[number], self.means)
        fits = (self.place[number] != keep[row]) & (cosine >= self.bound[keep[row]])
        bound = self.bound[keep]
        row, number, cosine, rank = cut_lists([(row[fits], number[fits], cosine[fits])], bound)
        self.cosine[both], self.bound[keep] = -np.inf, bound
        self.near[keep[row], rank], self.cosine[keep[row], rank] = number, cosine


def merge_listed(state: Clusters) -> np.ndarray:
    """Merge reciprocal nearest neighbours as long as the lists tell them; at least one pair, if
    any is listed. Returns for each place the one its cluster is in now, (n,) int."""
    count = len(state.number)
    partner, value = np.full(count, -1), np.full(count, -np.inf, np.float32)
    able = look = np.arange(count)
    while True:
        _, number, value[look] = state.first_of(look)
        partner[look] = number
        able = able[np.isfinite(value[able])]
        is_old = state.parent[partner[able]] != partner[able]
        old, firm = able[is_old], able[~is_old]
        state.renew(old)
        other = np.full(count, -1)
        other[firm] = state.place[partner[firm]]
        keep = firm[(other[other[firm]] == firm) & (firm < other[firm])]
        if not len(keep) and not len(old) and state.used == count and len(firm):
            keep = firm[[value[firm].argmax()]]  # rounding or ties made a cycle
        if not len(keep) and not len(old):
            return state.place[state.living(np.arange(count))]
        gone = other[keep]
        value[gone] = -np.inf
        state.merge(keep, gone)
        look = np.union1d(old, keep)
        look = look[~np.isin(look, gone)]


def dense_average_linkage(means: np.ndarray, sizes: np.ndarray, threshold: float) -> np.ndarray:
    """Average linkage of clusters with these means (n, d) and sizes (n,) by all their distances.

    Follows nearest neighbours until two are each other's. Returns the cluster each went into, (n,).
    """
    exact = means.astype(np.float64)
    distance = 1.0 - exact @ exact.T
    np.fill_diagonal(distance, np.inf)
    weight, owner = sizes.astype(np.float64), np.arange(len(sizes))
    closed = np.zeros(len(sizes))  # inf: merged into another, or alone for ever
    todo, chain = list(owner[::-1]), []
    while todo or chain:
        if not chain:
            chain.append(todo.pop())
        here = chain[-1]
        row = distance[here] + closed
        other = int(row.argmin())
        if closed[here] or not row[other] < threshold:  # nor will anything ever be nearer
            closed[chain.pop()] = np.inf
        elif len(chain) > 1 and row[chain[-2]] <= row[other]:
            gone, keep = chain.pop(), chain.pop()
            merged = weight[gone] * distance[gone] + weight[keep] * distance[keep]
            weight[keep] += weight[gone]
            merged /= weight[keep]
            merged[keep] = np.inf
            distance[keep] = distance[:, keep] = merged
            owner[gone], closed[gone] = keep, np.inf
            todo.append(keep)
        else:
            chain.append(other)
    while (owner[owner] != owner).any():
        owner = owner[owner]
    return owner


# ---------------------------------------------------------------------------- components


def spanning_pairs(
    close: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Of the pairs for which `close` (r, c) is true so many that they join what all of them join.

    rows (r,), columns (c,): whose pairs these are; labels (n,): as yet; boxes: (n, 4) or None, as
    in sf.threshold_components. Every group gives a pair to another one, or several, until none has
    any (Boruvka 1926). Returns places in rows and in columns; `close` is used up.
    """
    if boxes is not None:
        close &= sf.same_box_size(boxes[rows][:, None], boxes[columns])
    names = np.unique(labels[np.concatenate([rows, columns])], return_inverse=True)[1]
    pairs = [np.zeros((2, 0), np.intp)]
    while True:
        close &= names[: len(rows), None] != names[len(rows) :]
        left, right = np.flatnonzero(close.any(axis=1)), np.flatnonzero(close.any(axis=0))
        if not len(left):
            return tuple(np.concatenate(pairs, axis=1))
        pairs.append(np.stack([left, close[left].argmax(axis=1)]))
        pairs.append(np.stack([close[:, right].argmax(axis=0), right]))
        row, column = np.concatenate(pairs[-2:], axis=1)
        names = sf.join_labels(names, row, len(rows) + column)
