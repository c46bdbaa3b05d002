"""Scores of a clustering against the truth; pure numpy, shared by the benchmarks.

    pairwise_scores(truth, labels)   of all pairs put together, how many belong together
    bcubed_scores(truth, labels)     the same question asked face by face

Both take two sequences of equal length, one entry per face: who it is and which group it was put
in. A label means only "same as the others that carry it", so give every face that was left out of
all groups a label of its own; a shared -1 would count as one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Scores(NamedTuple):
    """Precision, recall and their harmonic mean, each in [0, 1]."""

    precision: float
    recall: float
    f: float


def pairwise_scores(truth: Sequence | np.ndarray, labels: Sequence | np.ndarray) -> Scores:
    """Precision and recall of the pairs of faces that share a label.

    truth, labels: (n,). Where nothing is claimed precision is 1, where nothing is to be found
    recall is 1. A person with 20 faces weighs 190 pairs, one with a single face none.
    """
    person, group, cell = cell_counts(truth, labels)
    both, claimed, true = pairs(cell), pairs(group), pairs(person)
    precision = both / claimed if claimed else 1.0
    recall = both / true if true else 1.0
    return Scores(precision, recall, harmonic_mean(precision, recall))


def bcubed_scores(truth: Sequence | np.ndarray, labels: Sequence | np.ndarray) -> Scores:
    """BCubed precision and recall (Bagga and Baldwin 1998, COLING-ACL, pages 79-85).

    truth, labels: (n,). For each face: the share of its group that is the same person, and the
    share of that person's faces that its group holds, the face itself included; then the mean
    over the faces. f is the harmonic mean of the two means. Empty input scores 1.
    """
    person_of, group_of, cell_of = ids(truth), ids(labels), cell_ids(truth, labels)
    if not len(cell_of):
        return Scores(1.0, 1.0, 1.0)
    shared = np.bincount(cell_of)[cell_of]  # (n,) faces of the same person in the same group
    precision = float((shared / np.bincount(group_of)[group_of]).mean())
    recall = float((shared / np.bincount(person_of)[person_of]).mean())
    return Scores(precision, recall, harmonic_mean(precision, recall))


def mixed_groups(truth: Sequence | np.ndarray, labels: Sequence | np.ndarray) -> int:
    """Number of groups that hold more than one person. truth, labels: (n,)."""
    people_in_group: dict[int, set[int]] = {}
    for person, group in zip(ids(truth).tolist(), ids(labels).tolist(), strict=True):
        people_in_group.setdefault(group, set()).add(person)
    return sum(len(people) > 1 for people in people_in_group.values())


def ids(values: Sequence | np.ndarray) -> np.ndarray:
    """Names of any kind as whole numbers from 0: (n,) -> (n,) int."""
    return np.unique(np.asarray(values), return_inverse=True)[1].reshape(-1)


def cell_ids(truth: Sequence | np.ndarray, labels: Sequence | np.ndarray) -> np.ndarray:
    """Number of the (person, group) pair of each face: (n,) int from 0."""
    person, group = ids(truth), ids(labels)
    if len(person) != len(group):
        raise ValueError(f"truth has {len(person)} entries, labels {len(group)}")
    return ids(person * (group.max(initial=0) + 1) + group)


def cell_counts(
    truth: Sequence | np.ndarray, labels: Sequence | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces per person (p,), per group (g,) and per (person, group) pair that occurs (c,)."""
    cell = cell_ids(truth, labels)
    return np.bincount(ids(truth)), np.bincount(ids(labels)), np.bincount(cell)


def pairs(counts: np.ndarray) -> int:
    """Number of unordered pairs within sets of these sizes (k,)."""
    return int((counts * (counts - 1) // 2).sum())


def harmonic_mean(a: float, b: float) -> float:
    return 2.0 * a * b / (a + b) if a + b else 0.0
