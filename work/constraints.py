"""Groups of faces under the operator's word: what is one person is joined, what is not parted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import numpy as np

import sort_faces as sf

CARRIES = 0.25  # share of the faces that stood for a group which still carry their group along


class Links:
    """Things that are one and things that are not: a union-find that keeps its promises.

    Neither `join` nor `part` breaks what was accepted before; they say whether they fitted in.
    """

    def __init__(self) -> None:
        self.parent: dict[Hashable, Hashable] = {}
        self.rivals: dict[Hashable, set[Hashable]] = defaultdict(set)
        self.size: dict[Hashable, int] = {}
        self.owner: dict[Hashable, int] = {}  # things of two owners are two

    def find(self, thing: Hashable) -> Hashable:
        """What stands for all that is one with a thing."""
        while (parent := self.parent.get(thing, thing)) != thing:
            self.parent[thing] = self.parent.get(parent, parent)
            thing = parent
        return thing

    def apart(self, left: Hashable, right: Hashable) -> bool:
        """Whether two things are known to be two."""
        left, right = self.find(left), self.find(right)
        owners = {self.owner[end] for end in (left, right) if end in self.owner}
        return left != right and (len(owners) == 2 or right in self.rivals.get(left, ()))

    def join(self, left: Hashable, right: Hashable) -> bool:
        """Make two things one; False where they are known to be two."""
        left, right = self.find(left), self.find(right)
        if left == right or self.apart(left, right):
            return left == right
        if self.size.get(left, 1) < self.size.get(right, 1):
            left, right = right, left
        self.parent[right] = left
        self.size[left] = self.size.get(left, 1) + self.size.get(right, 1)
        if right in self.owner:
            self.owner[left] = self.owner[right]
        for rival in self.rivals.pop(right, ()):
            self.rivals[rival].discard(right)
            self.rivals[rival].add(left)
            self.rivals[left].add(rival)
        return True

    def part(self, left: Hashable, right: Hashable) -> bool:
        """See to it that two things are two; False where they are known to be one."""
        left, right = self.find(left), self.find(right)
        if left == right:
            return False
        self.rivals[left].add(right)
        self.rivals[right].add(left)
        return True


@dataclass(frozen=True)
class Nodes:
    """What `settled` joins: the free rows of each group, and atoms, which the word binds."""

    of_row: np.ndarray  # (n,) int; below `groups` it is a group, from there on an atom
    groups: int


def settled(unit: np.ndarray, labels: np.ndarray, word: sf.Word) -> np.ndarray:
    """See sf.settle.

    Rows that the word binds together are one atom. An atom joins the groups in which enough of the
    rows lie that once stood for a whole group; a row that was only given to a person goes alone.
    The likest are joined first, and nothing that must stay apart.
    """
    names, labels = np.unique(labels, return_inverse=True)
    nodes = nodes_of(labels, len(names), word)
    links = promises(nodes, word)
    for group, atom in likest_first(unit, labels, nodes, word):
        links.join(group, atom)
    final = np.arange(nodes.of_row.max(initial=-1) + 1)
    for node in list(links.parent):
        final[node] = links.find(node)
    return np.unique(final[nodes.of_row], return_inverse=True)[1]


def nodes_of(labels: np.ndarray, groups: int, word: sf.Word) -> Nodes:
    """An atom for each person of the word, and for each other row of which it says something."""
    atom = word.person.copy()
    loose = np.unique(word.apart)
    loose = loose[atom[loose] < 0]
    atom[loose] = atom.max(initial=-1) + 1 + np.arange(len(loose))
    told = atom >= 0
    of_row = labels.astype(np.intp)
    of_row[told] = groups + np.unique(atom[told], return_inverse=True)[1]
    return Nodes(of_row, groups)


def promises(nodes: Nodes, word: sf.Word) -> Links:
    """What of the nodes must stay apart."""
    links = Links()
    for left, right in np.unique(nodes.of_row[word.apart], axis=0).tolist():
        links.part(left, right)
    owned = word.owner >= 0
    links.owner = dict(zip(nodes.of_row[owned].tolist(), word.owner[owned].tolist(), strict=True))
    return links


def likest_first(
    unit: np.ndarray, labels: np.ndarray, nodes: Nodes, word: sf.Word
) -> Iterator[tuple[int, int]]:
    """Pairs (group, atom) that belong together, by the cosine of the atom's faces in the group to
    the free faces of that group, or to all of them where none is free."""
    alone = np.flatnonzero((nodes.of_row >= nodes.groups) & (word.person < 0))
    pairs = set()
    for rows in [*word.carried, *alone[:, None]]:
        counts = zip(*np.unique(labels[rows], return_counts=True), strict=True)
        enough = [group for group, count in counts if count >= CARRIES * len(rows)]
        pairs |= {(int(group), int(nodes.of_row[rows[0]])) for group in enough}
    asked = np.flatnonzero(np.isin(labels, [group for group, _ in pairs]))
    members = {int(labels[asked[some[0]]]): asked[some] for some in sf.groups_of(labels[asked])}
    ranked = []
    for group, atom in pairs:
        rows = members[group]
        free = rows[nodes.of_row[rows] < nodes.groups]
        own = rows[nodes.of_row[rows] == atom]
        likeness = sf.centroid(unit[own]) @ sf.centroid(unit[free if len(free) else rows])
        ranked.append((-float(likeness), group, atom))
    return iter([(group, atom) for _, group, atom in sorted(ranked)])


def parted(unit: np.ndarray, labels: np.ndarray, word: sf.Word, threshold: float) -> np.ndarray:
    """Average linkage once more within the groups that hold rows which must stay apart.

    unit: (n, d) float32 of length 1; labels: (n,) int of average linkage at `threshold`; word: of
    these rows. Returns (n,) int labels.
    """
    apart, owner = word.apart, word.owner
    left, right = labels[apart[:, 0]], labels[apart[:, 1]]
    owned = np.unique(np.stack([labels, owner])[:, owner >= 0], axis=1)[0]
    broken = np.unique([*left[left == right], *owned[:-1][owned[:-1] == owned[1:]]]).astype(int)
    result, free = labels.copy(), int(labels.max(initial=-1)) + 1
    for group in broken:
        rows = np.flatnonzero(labels == group)
        pairs = np.searchsorted(rows, apart[(left == group) & (right == group)])
        own = sf.agglomerate(Average.of(unit[rows], pairs, owner[rows], threshold))
        result[rows] = free + own
        free += len(rows)
    return result


def one_each(
    unit: np.ndarray, labels: np.ndarray, pairs: np.ndarray, threshold: float
) -> np.ndarray:
    """Labels (n,) with the farther face of each of these pairs (p, 2) taken out of its group.

    Two faces of one photo tell little of where to cut a group, so the group stays whole: of such
    faces the nearest to the middle stays. The others are grouped anew, among themselves.
    """
    inside = pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]]
    rivals: dict[int, list[int]] = defaultdict(list)
    for left, right in inside.tolist():
        rivals[left].append(right)
        rivals[right].append(left)
    away = {}
    for group in np.unique(labels[inside]):
        rows = np.flatnonzero(labels == group)
        away.update(zip(rows.tolist(), 1.0 - unit[rows] @ sf.centroid(unit[rows]), strict=True))
    out: set[int] = set()
    for row in sorted(rivals, key=lambda row: (away[row], row)):
        if row not in out:
            out.update(other for other in rivals[row])
    rows = np.array(sorted(out), np.intp)
    result = labels.copy()
    result[rows] = int(labels.max()) + 1 + sf.average_linkage(unit[rows], threshold)
    return result


class Average(sf.Agglomeration):
    """Average linkage of few faces under constraints; forbidden merges are infinitely far.

    It stays reducible so: no merge brings two groups nearer that were not nearest before.
    """

    @classmethod
    def of(
        cls, unit: np.ndarray, apart: np.ndarray, owner: np.ndarray, threshold: float
    ) -> Average:
        """Every face of unit (n, d) begins as a group of its own."""
        none = np.zeros(len(unit), np.float32)
        return cls(
            figures=sf.Figures(0.0, 0.0, 0.0, 0.0),
            least=1.0 - threshold,
            sums=unit.astype(np.float32).copy(),
            size=none + 1,
            moments=none + 1,
            crowded=none.copy(),
            length=none.copy(),
            rivals=apart,
            owner=owner.copy(),
        )

    def best(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean cosine of all pairs is what a merge is worth."""
        partner, value = rows.copy(), np.full(len(rows), -np.inf, np.float32)
        means = self.sums[columns] / self.size[columns, None]
        for block in sf.blocks(len(rows) if len(columns) else 0):
            some = rows[block]
            worth = (self.sums[some] / self.size[some, None]) @ means.T
            near, at = np.nonzero(worth > self.least)
            barred = self.barred(some[near], columns[at])
            worth[near[barred], at[barred]] = -np.inf
            first = worth.argmax(axis=1)
            best = worth[np.arange(len(some)), first]
            good = best > self.least
            partner[block][good], value[block][good] = columns[first[good]], best[good]
        return partner, value
