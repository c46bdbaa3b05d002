"""Which question is worth most: the queues Same person?, Whose face? and Worth a look.

A companion of sort_faces.py. An answer is worth the faces that it puts right, times how likely it
does, per second it takes: V p / t, where V = 2ab / (a + b) is what a wrong split of a and b faces
costs in BCubed, and L times V (1 - p) / t for a cut of one person. A window of questions holds none
that answers to the others imply.

Contents
    How likely
    Same person?
    Whose face?
    Worth a look
    The queues
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import sort_faces as sf

constraints = sf.companion("constraints")
decisions = sf.companion("decisions")
people = sf.companion("review/people")
Refused = people.Refused

# ============================================================================
# How likely
# ============================================================================

BINS = np.array([0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])  # of likelihoods
PRIOR = 10.0  # answers in a bin that the fit counts for against the operator's own
SECONDS_EASY, SECONDS_HARD = 1.2, 3.0  # an answer takes: of a likelihood near 0 or 1, and of .5
FULL_SIZE = 16  # faces from which more of them say nothing new
SHARED_PHOTO = 0.1  # what a common photo leaves of the likelihood; chosen, few are seen


@dataclass(frozen=True)
class Fit:
    """A logistic fit, monotone in each: how likely two groups are one person."""

    base: float
    likeness: float  # of the centroids, 0 as strangers, 1 as two faces of one person
    doubling: float  # of the smaller group, up to FULL_SIZE
    short: float  # by how much the weaker group's embeddings are shorter than usual
    long: float  # the same of the stronger group
    sharp: bool = False  # what looks likely is likelier still: 1 - 2 (1 - p)^2 from .5 on

    def of(
        self, likeness: np.ndarray, smaller: np.ndarray, short: np.ndarray, long: np.ndarray
    ) -> np.ndarray:
        """(k,) likelihoods of pairs; smaller: faces, short and long: mean lengths, 1 is usual."""
        doublings = np.log2(np.clip(smaller, 1, FULL_SIZE))
        logit = self.base + self.likeness * likeness + self.doubling * doublings
        logit = logit + self.short * (1.0 - short) + self.long * (1.0 - long)
        likely = 1.0 / (1.0 + np.exp(-np.clip(logit, -50.0, 50.0)))
        if self.sharp:
            likely = np.where(likely > 0.5, 1.0 - 2.0 * (1.0 - likely) ** 2, likely)
        return likely


# half.npz, people of `choose`; tests/bench/bench_word.py --fit, docs/analysis/review.md
TWO_GROUPS = Fit(-18.4, 24.3, -0.44, 9.5, 6.9)
TWO_HALVES = Fit(-11.4, 14.7, -1.4, 6.3, 0.75, sharp=True)


@dataclass
class Learned:
    """What the operator's own answers say of likelihoods, by bin."""

    yes: np.ndarray = field(default_factory=lambda: np.zeros(len(BINS) - 1))
    no: np.ndarray = field(default_factory=lambda: np.zeros(len(BINS) - 1))

    def note(self, likelihood: float, yes: bool, times: int = 1) -> None:
        """Count an answer to a question of that likelihood, as the fit gave it."""
        at = min(int(np.searchsorted(BINS, likelihood, "right")) - 1, len(self.yes) - 1)
        (self.yes if yes else self.no)[at] += times

    def shares(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """(bins,) of yes in each bin, rising: the mean of its Beta, or a draw from it."""
        middle = (BINS[1:] + BINS[:-1]) / 2
        good, bad = PRIOR * middle + self.yes, PRIOR * (1.0 - middle) + self.no
        share = good / (good + bad) if rng is None else rng.beta(good, bad)
        return rising(share, good + bad)

    def adjusted(
        self, likelihood: np.ndarray, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """(k,) likelihoods of the fit, brought to what was answered; monotone."""
        middle = (BINS[1:] + BINS[:-1]) / 2
        return np.interp(likelihood, [0.0, *middle, 1.0], [0.0, *self.shares(rng), 1.0])


def rising(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The nearest values (k,) that never fall: pool adjacent violators (Ayer et al. 1955)."""
    pools: list[list[float]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pools.append([value, weight, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            last = pools.pop()
            total = pools[-1][1] + last[1]
            pools[-1][0] = (pools[-1][0] * pools[-1][1] + last[0] * last[1]) / total
            pools[-1][1:] = [total, pools[-1][2] + last[2]]
    return np.concatenate([np.full(int(count), value) for value, _, count in pools])


def seconds(likelihood: np.ndarray) -> np.ndarray:
    """How long an answer takes, (k,)."""
    doubt = 4.0 * likelihood * (1.0 - likelihood)
    return SECONDS_EASY + (SECONDS_HARD - SECONDS_EASY) * doubt


def value_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What a wrong split of a and b faces costs, or a wrong merge: the change of BCubed times n."""
    return 2.0 * a * b / (a + b)


# ============================================================================
# Same person?
# ============================================================================

NEIGHBOURS = 8  # of each person that may be the same
LEAST_LIKELIHOOD = 0.002  # nobody would be asked below
FEW_SINGLES = 3000  # up to so many, two single faces may be one question
LOOKED_THROUGH = 600  # best pairs that a window is chosen from
AGAIN = 2  # times a question is asked that was skipped


class Pairs:
    """The nearest neighbours of all people, kept up to date by rows: all pairs once, then one row
    for each person that changes."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.build()

    def build(self) -> None:
        """Compare all people with each other."""
        model, labels = self.model, self.in_play(self.model.alive)
        single = model.size[labels] == 1
        if np.count_nonzero(single) > FEW_SINGLES:
            labels = labels[~single]
        self.singles = np.count_nonzero(single) <= FEW_SINGLES
        self.label = labels.copy()  # of each node, -1 free
        self.vector = np.stack([model.centre(at) for at in labels.tolist()]) if len(labels) else (
            np.zeros((0, model.cache.unit.shape[1]), np.float32)
        )  # fmt: skip
        self.node = np.full(model.cache.faces, -1)
        self.node[labels] = np.arange(len(labels))
        self.near = np.zeros((len(labels), NEIGHBOURS), np.intp)
        self.cosine = np.full((len(labels), NEIGHBOURS), -np.inf, np.float32)
        self.look_again(np.arange(len(labels)))

    def in_play(self, labels: np.ndarray) -> np.ndarray:
        """Those people that questions are asked of: not the ignored and hidden."""
        flags = self.model.flags(labels)
        return labels[(flags & (people.IGNORED | people.HIDDEN)) == 0]

    def look_again(self, nodes: np.ndarray) -> None:
        """Find the neighbours of nodes (k,) among all."""
        count = min(NEIGHBOURS, len(self.label) - 1)
        if count < 1:
            return
        for block in sf.blocks(len(nodes)):
            some = nodes[block]
            cosine = self.vector[some] @ self.vector.T
            cosine[np.arange(len(some)), some] = -np.inf
            cosine[:, self.label < 0] = -np.inf
            best = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
            self.near[some, :count] = best
            self.cosine[some, :count] = np.take_along_axis(cosine, best, axis=1)
            self.cosine[some, count:] = -np.inf

    def update(self, former: np.ndarray, labels: np.ndarray) -> None:
        """Take in that people changed: their labels before and now."""
        gone = self.node[former]
        gone = gone[gone >= 0]
        self.label[gone], self.node[former] = -1, -1
        self.cosine[gone] = -np.inf
        dead = np.zeros(len(self.label), bool)
        dead[gone] = True
        self.cosine[dead[self.near]] = -np.inf
        for label in self.in_play(labels).tolist():
            if self.model.size[label] > 1 or self.singles:
                self.add(label)
        alive = np.flatnonzero(self.label >= 0)
        lonely = alive[np.isfinite(self.cosine[alive]).sum(axis=1) < NEIGHBOURS // 2]
        self.look_again(lonely)

    def add(self, label: int) -> None:
        """One more person."""
        free = np.flatnonzero(self.label < 0)
        if not len(free):
            self.grow()
            free = np.flatnonzero(self.label < 0)
        at = int(free[0])
        self.label[at], self.node[label] = label, at
        self.vector[at] = self.model.centre(label)
        cosine = self.vector @ self.vector[at]
        cosine[self.label < 0] = -np.inf
        cosine[at] = -np.inf
        worst = self.cosine.argmin(axis=1)
        better = np.flatnonzero(cosine > self.cosine[np.arange(len(worst)), worst])
        self.near[better, worst[better]] = at
        self.cosine[better, worst[better]] = cosine[better]
        self.look_again(np.array([at]))

    def grow(self) -> None:
        """Make room for more people."""
        room = len(self.label) // 8 + 64
        self.label = np.append(self.label, np.full(room, -1))
        blank = np.zeros((room, self.vector.shape[1]), np.float32)
        self.vector = np.concatenate([self.vector, blank])
        self.near = np.concatenate([self.near, np.zeros((room, NEIGHBOURS), np.intp)])
        none = np.full((room, NEIGHBOURS), -np.inf, np.float32)
        self.cosine = np.concatenate([self.cosine, none])

    def candidates(self, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of labels with a cosine of at least `least`: left, right, cosine, (k,) each.

        A single face and a person are no pair: that asks Whose face?
        """
        nodes, at = np.nonzero(self.cosine >= least)
        left, right = self.label[nodes], self.label[self.near[nodes, at]]
        key = np.minimum(left, right) * len(self.node) + np.maximum(left, right)
        key, first = np.unique(key, return_index=True)
        left, right = np.divmod(key, len(self.node))
        cosine = self.cosine[nodes[first], at[first]]
        alike = (self.model.size[left] == 1) == (self.model.size[right] == 1)
        return left[alike], right[alike], cosine[alike]


@dataclass(frozen=True)
class Ranked:
    """Questions by what an answer is worth, best first."""

    left: np.ndarray  # (k,) int labels; the person that has a name, else more faces
    right: np.ndarray
    likelihood: np.ndarray  # (k,) of the fit
    believed: np.ndarray  # (k,) of the fit and the answers so far
    wrong: np.ndarray  # (k,) faces that are wrong if the two are one
    gain: np.ndarray  # (k,) faces per second

    def take(self, rows: np.ndarray) -> Ranked:
        return Ranked(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.gain)


KINDS = ("same", "whose", "look")
NOBODY = Ranked(*np.zeros((2, 0), np.intp), *np.zeros((4, 0)))


@dataclass(frozen=True)
class Question:
    """A question as it was asked."""

    kind: str  # same, whose or look
    qid: str
    labels: tuple[int, ...]  # of the people it touches
    left: np.ndarray  # rows
    right: np.ndarray
    likelihood: float
    gain: float
    why: str = ""


def qid_of(kind: str, *groups: np.ndarray) -> str:
    """16 hex digits of whom a question is about: it is another one as soon as a face moves."""
    digest = hashlib.blake2b(kind.encode(), digest_size=8)
    for rows in groups:
        digest.update(b"|" + np.ascontiguousarray(rows, np.int64).tobytes())
    return digest.hexdigest()


def independent(
    left: np.ndarray, right: np.ndarray, most: int, forest: Any, runs: int = 7
) -> list[int]:
    """Positions of up to `most` pairs, best first, none of which answers to the others imply.

    forest: constraints.Links that know who is two; a chosen pair is joined in it, as if answered
    yes. Two that are one by such answers, or two by what is known, are not asked: then no answers
    whatever to some imply another. The left person stays for up to `runs` questions.
    """
    chosen: list[int] = []
    by_left: dict[int, list[int]] = {}
    for at, label in enumerate(left.tolist()):
        by_left.setdefault(label, []).append(at)

    taken, rested = set(), set()

    def accept(at: int) -> bool:
        a, b = int(left[at]), int(right[at])
        if at in taken or forest.find(a) == forest.find(b) or not forest.join(a, b):
            return False
        taken.add(at)
        chosen.append(at)
        return True

    for again in (False, True):
        for at in range(len(left)):
            if len(chosen) >= most:
                return chosen
            person = int(left[at])
            if (again or person not in rested) and accept(at):
                rested.add(person)
                run = 1
                for other in by_left[person]:
                    if run >= runs or len(chosen) >= most:
                        break
                    run += other > at and accept(other)
    return chosen


# ============================================================================
# Whose face?
# ============================================================================

CHOICES = 3  # people offered for a face
ALIKE = 12  # other loose faces shown beside it
SECONDS_WHOSE = 2.0  # an answer takes: more people to look at
MANY_CHANGES = 64  # from so many changed people all are compared anew


class Loose:
    """Faces of nobody, each with the people that look most like it; brought up to date when next
    asked for."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.pending: set[int] | None = None  # labels, before and now; None: compare all

    def changed(self, labels: Iterable[int]) -> None:
        if self.pending is not None:
            self.pending.update(labels)

    def people(self, labels: np.ndarray) -> np.ndarray:
        """Those that a face may belong to: of several faces or named, not ignored or hidden."""
        flags = self.model.flags(labels)
        away = (flags & (people.IGNORED | people.HIDDEN)) > 0
        return labels[~away & ((self.model.size[labels] > 1) | ((flags & people.NAMED) > 0))]

    def step(self) -> bool:
        """Compare some of what has changed; whether there was anything to do. rows, label and
        cosine are right once there is nothing."""
        if self.pending is None or len(self.pending) > MANY_CHANGES:
            self.begin()
        if self.pending:
            self.bring_up_some(self.model.loose())
            self.pending = set()
            return True
        block = self.open[: sf.LINK_BLOCK]
        if len(block):
            everybody = self.people(self.model.alive)
            self.label[block], self.cosine[block] = self.compare(self.rows[block], everybody)
            self.open = self.open[len(block) :]
        return len(block) > 0

    def begin(self) -> None:
        """Compare all faces anew, from now on."""
        self.rows, self.pending = self.model.loose(), set()
        self.label = np.full((len(self.rows), CHOICES), -1)
        self.cosine = np.full((len(self.rows), CHOICES), -np.inf, np.float32)
        self.open = np.arange(len(self.rows))  # positions that are not compared yet

    def bring_up_some(self, rows: np.ndarray) -> None:
        """Faces stay with whom they knew; changed people are compared, new faces later."""
        labels = np.array(sorted(self.pending), np.intp)
        known = np.isin(rows, self.rows)
        at = np.searchsorted(self.rows, rows[known])
        waits = np.zeros(len(self.rows), bool)
        waits[self.open] = True
        asked = np.ones(len(rows), bool)
        asked[known] = waits[at]
        label = np.full((len(rows), CHOICES), -1)
        cosine = np.full((len(rows), CHOICES), -np.inf, np.float32)
        label[known], cosine[known] = self.label[at], self.cosine[at]
        least, lost = cosine[:, -1].copy(), np.isin(label, labels)
        cosine[lost] = -np.inf
        alive = labels[self.model.view.labels[labels] == labels]
        more = self.compare(rows, self.people(alive))
        both = np.concatenate([cosine, more[1]], axis=1)
        best = np.argsort(-both, axis=1, kind="stable")[:, :CHOICES]
        self.rows = rows
        self.cosine = np.take_along_axis(both, best, axis=1)
        self.label = np.take_along_axis(np.concatenate([label, more[0]], axis=1), best, axis=1)
        unsure = lost.any(axis=1) & (self.cosine[:, -1] < least)  # somebody else may be nearer
        self.open = np.flatnonzero(asked | unsure)

    def compare(self, rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The CHOICES likest of some people for faces (m,): labels and cosines, likest first."""
        label = np.full((len(rows), CHOICES), -1)
        cosine = np.full((len(rows), CHOICES), -np.inf, np.float32)
        count = min(CHOICES, len(labels))
        if not count:
            return label, cosine
        centres = np.stack([self.model.centre(one) for one in labels.tolist()])
        for block in sf.blocks(len(rows)):
            here = self.model.cache.unit[rows[block]] @ centres.T
            here[rows[block][:, None] == labels] = -np.inf
            best = np.argpartition(-here, count - 1, axis=1)[:, :count]
            values = np.take_along_axis(here, best, axis=1)
            order = np.argsort(-values, axis=1, kind="stable")
            cosine[block, :count] = np.take_along_axis(values, order, axis=1)
            label[block, :count] = labels[np.take_along_axis(best, order, axis=1)]
        return label, cosine


# ============================================================================
# Worth a look
# ============================================================================

MERGE_COST = 5.0  # a stranger in a set, against a face less in it
CUT = 48  # people, those that may be worth most first, that are cut in two to see


class Cuts:
    """The parts that people would be cut in; each person is cut once until it changes."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def changed(self, labels: Iterable[int]) -> None:
        for label in labels:
            self.found.pop(label, None)

    def worth_cutting(self, usual: Any, vouched: set[int]) -> np.ndarray:
        """Labels (k,) of the people that hang together least, for their size."""
        model = self.model
        labels = model.alive[model.size[model.alive] > 1]
        flags = model.flags(labels)
        labels = labels[(flags & (people.IGNORED | people.HIDDEN)) == 0]
        labels = labels[~np.isin(labels, [*vouched])]
        reach = max(usual.same - usual.strangers, 1e-6)
        likeness = (model.together[labels] - usual.strangers) / reach
        rough = np.maximum(1.0 - likeness, 0.01) ** 2 * model.worth[labels]
        return labels[np.argsort(-rough, kind="stable")[:CUT]]

    def step(self, labels: Sequence[int]) -> bool:
        """Cut one of these people that is not cut yet; False where all are."""
        label = next((label for label in labels if label not in self.found), None)
        if label is not None:
            self.found[label] = people.halves(self.model, label)
        return label is not None


# ============================================================================
# The queues
# ============================================================================

WORTH_ASKING = 1.0 / 60.0  # faces per second: below one a minute the queues are done
DRAWS = 200  # of the likelihoods, for the interval
REMEMBERED = 600  # questions asked last, that can be answered
SURE, PROBABLE = 0.85, 0.6  # in words: surely, probably; below it is unclear


class Queues:
    """What to ask next, and how much is wrong still."""

    def __init__(self, model: Any, started: str = "") -> None:
        """started: ISO time since when the operator sits here; what was skipped before it may be
        asked once more, what was skipped after it not."""
        self.model, self.started = model, started or sf.now_text()
        self.usual = model.usual
        self.asked: dict[str, Question] = {}
        self.closed: set[str] = set()  # of those, answered or past; an undo opens them again
        self.answered: dict[str, float] = {}  # {id of an answer's line: likelihood by the fit}
        self.pairs, self.loose, self.cuts = Pairs(model), Loose(model), Cuts(model)
        self.ranked_now: dict[str, Ranked] = {}  # as far as it is known what to ask
        self.stale = set(KINDS)
        self.photos: dict[int, set[int]] = {}
        self.read_lines()

    def update(self, change: Any) -> list[str]:
        """Take in what an act has changed; the ids of questions that are not asked any more."""
        touched = {*change.former.tolist(), *change.labels.tolist()}
        self.pairs.update(change.former, change.labels)
        self.loose.changed(touched)
        self.cuts.changed(touched)
        for label in touched:
            self.photos.pop(label, None)
        self.stale = set(KINDS)
        self.read_lines()
        closed = {qid for qid, question in self.asked.items() if not self.is_open(question)}
        dropped, self.closed = sorted(closed - self.closed), closed
        return dropped

    def read_lines(self) -> None:
        """What the lines say to the queues: who is two, what was skipped, how it was answered."""
        model, count = self.model, self.model.cache.faces
        pairs = np.unique(np.sort(model.view.labels[model.view.word.apart], axis=1), axis=0)
        self.two = pairs[(pairs >= 0).all(axis=1)]
        self.two_keys = self.two[:, 0] * count + self.two[:, 1]
        self.learned, self.learned_cuts, self.learned_loose = Learned(), Learned(), Learned()
        skips: dict[tuple[int, ...], tuple[int, str]] = {}
        self.vouched = set()
        for line in decisions.standing(model.lines):
            if line.kind == "skip":
                key = self.key_of(line)
                times, last = skips.get(key, (0, ""))
                skips[key] = times + 1, max(last, line.time)
                if line.text == people.ASKED:  # of a loose face: none of those shown was it
                    self.learned_loose.note(self.likelihood_of(line, TWO_GROUPS), False)
            elif line.text == people.ASKED and line.kind == "belongs":
                self.learned_loose.note(self.likelihood_of(line, TWO_GROUPS), True)
            elif line.text == people.ASKED and line.kind in ("same", "different"):
                self.learned.note(self.likelihood_of(line, TWO_GROUPS), line.kind == "same")
            elif line.text == people.VOUCHED and line.kind in ("same", "not_belongs"):
                self.learned_cuts.note(self.likelihood_of(line, TWO_HALVES), line.kind == "same")
                if line.kind == "same":
                    self.vouched.update(self.key_of(line))
        self.skipped = {
            key
            for key, (times, last) in skips.items()
            if times >= AGAIN or last[:19] >= self.started[:19]
        }

    def key_of(self, line: Any) -> tuple[int, ...]:
        """The people on both sides of a line, as they are now; a row for a face of nobody."""
        rows = [self.model.finder.rows(refs)[:1] for refs in (line.faces, line.others)]
        labels = [int(self.model.view.labels[row[0]]) for row in rows if row]
        return tuple(sorted(set(labels)))

    def likelihood_of(self, line: Any, fit: Fit) -> float:
        """What a fit says of the two groups that a line was about, from their anchors."""
        if line.id not in self.answered:
            finder, cache = self.model.finder, self.model.cache
            rows = [finder.rows(refs) for refs in (line.faces, line.others)]
            if not all(rows):
                return 0.0
            cosine = sf.centroid(cache.unit[rows[0]]) @ sf.centroid(cache.unit[rows[1]])
            lengths = [float(cache.length[some].mean()) for some in rows]
            smaller = min(line.sides) or min(map(len, rows))
            self.answered[line.id] = float(self.likelihood(fit, cosine, smaller, *lengths))
        return self.answered[line.id]

    def likelihood(
        self, fit: Fit, cosine: Any, smaller: Any, left_length: Any, right_length: Any
    ) -> np.ndarray:
        """(k,) of a fit, from what is measured of pairs of groups; lengths of their embeddings."""
        usual = self.usual
        likeness = (cosine - usual.strangers) / max(usual.same - usual.strangers, 1e-6)
        short = np.minimum(left_length, right_length) / (usual.length or 1.0)
        long = np.maximum(left_length, right_length) / (usual.length or 1.0)
        return fit.of(np.asarray(likeness), smaller, short, long)

    # -- what there is to ask -------------------------------------------------

    def same(self) -> Ranked:
        """Pairs of people that are worth a question, best first."""
        model = self.model
        left, right, cosine = self.pairs.candidates(self.least_cosine())
        key = left * model.cache.faces + right
        named = (model.flags(left) & model.flags(right) & people.NAMED) > 0
        open_ = ~named & ~np.isin(key, self.two_keys)
        left, right, cosine = left[open_], right[open_], cosine[open_]
        size = model.size
        smaller = np.minimum(size[left], size[right])
        likelihood = self.likelihood(
            TWO_GROUPS, cosine, smaller, model.length[left], model.length[right]
        )
        double = 1.0 + (((model.flags(left) | model.flags(right)) & people.NAMED) > 0)
        value = value_of(model.worth[left], model.worth[right]) * double
        swap = self.stands_behind(left, right)
        left, right = np.where(swap, right, left), np.where(swap, left, right)
        ranked = self.ranked(self.learned, left, right, likelihood, smaller, value)
        return self.without_known(ranked)

    def least_cosine(self) -> float:
        """Below this no two groups are likely enough, however weak."""
        reach = self.usual.same - self.usual.strangers
        weakness = 0.5 * (TWO_GROUPS.short + TWO_GROUPS.long)
        logit = math.log(LEAST_LIKELIHOOD / (1.0 - LEAST_LIKELIHOOD))
        return self.usual.strangers + reach * (logit - TWO_GROUPS.base - weakness) / (
            TWO_GROUPS.likeness
        )

    def stands_behind(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(k,) bool: the right person has a name or more faces, and stands on the left."""
        flags, size = self.model.flags, self.model.size
        weight = [(flags(at) & people.NAMED) * 1e9 + size[at] for at in (left, right)]
        return weight[1] > weight[0]

    def ranked(
        self, learned: Learned, left: np.ndarray, right: np.ndarray, likelihood: np.ndarray,
        wrong: np.ndarray, value: np.ndarray,
    ) -> Ranked:  # fmt: skip
        """Pairs (k,) in the order of what an answer is worth, those that are likely enough."""
        believed = learned.adjusted(likelihood)
        gain = value * believed / seconds(believed)
        order = np.lexsort((right, left, -gain))
        order = order[likelihood[order] >= LEAST_LIKELIHOOD]
        return Ranked(left, right, likelihood, believed, wrong, gain).take(order)

    def without_known(self, ranked: Ranked) -> Ranked:
        """Without what was skipped; people with a common photo are less likely one."""
        keys = zip(ranked.left.tolist(), ranked.right.tolist(), strict=True)
        keep = [tuple(sorted(key)) not in self.skipped for key in keys]
        ranked = ranked.take(np.flatnonzero(keep))
        top = slice(0, LOOKED_THROUGH)
        shared = self.shared_photos(ranked.left[top], ranked.right[top])
        likelihood = ranked.likelihood.copy()
        likelihood[top] *= np.where(shared > 0, SHARED_PHOTO, 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = ranked.gain * seconds(ranked.believed) / ranked.believed
        return self.ranked(self.learned, ranked.left, ranked.right, likelihood, ranked.wrong, value)

    def shared_photos(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(k,) photos in which both people of each pair stand."""
        labels = np.unique(np.concatenate([left, right]))
        photos = {label: self.photos_of(label) for label in labels.tolist()}
        return np.array(
            [
                len(photos[a] & photos[b])
                for a, b in zip(left.tolist(), right.tolist(), strict=True)
            ],
            int,
        )

    def photos_of(self, label: int) -> set[int]:
        if label not in self.photos:
            files = self.model.cache.face_file[self.model.members(label)]
            self.photos[label] = set(files.tolist())
        return self.photos[label]

    def whose(self) -> Ranked:
        """Loose faces that are likely a known person's, best first; right: the likeliest one."""
        while self.loose.step():
            pass
        model, loose = self.model, self.loose
        known = np.flatnonzero(np.isfinite(loose.cosine[:, 0]))
        rows, label = loose.rows[known], loose.label[known, 0]
        cosine = loose.cosine[known, 0]
        one = np.ones(len(rows))
        likelihood = self.likelihood(TWO_GROUPS, cosine, one, model.length[rows],
                                     model.length[label])  # fmt: skip
        double = 1.0 + ((model.flags(label) & people.NAMED) > 0)
        value = value_of(model.worth[rows], model.worth[label]) * double
        ranked = self.ranked(self.learned_loose, rows, label, likelihood, one, value)
        pairs = zip(ranked.left.tolist(), ranked.right.tolist(), strict=True)
        keep = [tuple(sorted(pair)) not in self.skipped for pair in pairs]
        return ranked.take(np.flatnonzero(keep))

    def to_cut(self) -> list[int]:
        """The people that are looked at for a second person in them."""
        labels = self.cuts.worth_cutting(self.usual, self.vouched).tolist()
        return [label for label in labels if (label,) not in self.skipped]

    def look(self) -> Ranked:
        """People that may be two, best first; left is both sides; `believed` that it is one."""
        model = self.model
        while self.cuts.step(self.to_cut()):
            pass
        labels = self.to_cut()
        parts = [self.cuts.found[label] for label in labels]
        if not parts:
            return NOBODY
        cosine = np.array([
            sf.centroid(model.cache.unit[a]) @ sf.centroid(model.cache.unit[b]) for a, b in parts
        ])  # fmt: skip
        worth, length = model.worth_of_face, model.cache.length
        sides = np.array([[(len(rows), worth[rows].sum(), length[rows].mean()) for rows in two]
                          for two in parts])  # (k, 2, 3)  # fmt: skip
        smaller = sides[:, :, 0].min(axis=1)
        one = self.likelihood(TWO_HALVES, cosine, smaller, *sides[:, :, 2].T)
        believed = self.learned_cuts.adjusted(one)
        gain = MERGE_COST * value_of(*sides[:, :, 1].T) * (1.0 - believed) / seconds(believed)
        at = np.array(labels, np.intp)
        order = np.argsort(-gain, kind="stable")
        return Ranked(at, at, one, believed, smaller, gain).take(order)

    def of_kind(self, kind: str) -> Ranked:
        """What a queue asks, as things stand now."""
        if kind in self.stale:
            self.ranked_now[kind] = getattr(self, kind)()
            self.stale.discard(kind)
        return self.ranked_now[kind]

    def idle(self) -> bool:
        """Do a little of what the queues have to compute, some tenths of a second at most; whether
        there is more to do. For a thread in the background, between two answers."""
        if self.loose.step() or self.cuts.step(self.to_cut()):
            self.stale |= {"whose", "look"}
            return True
        if self.stale:
            self.of_kind(min(self.stale))
        return bool(self.stale)

    # -- asking ---------------------------------------------------------------

    def questions(self, kind: str, most: int = 12, after: Sequence[str] = ()) -> list[Question]:
        """The next questions of a queue; after: ids of those that are shown already.

        None of them and of those shown is implied by answers to the others.
        """
        shown = [self.asked[qid] for qid in after if qid in self.asked and qid not in self.closed]
        ranked = self.of_kind(kind)
        hidden = {question.labels for question in shown}
        if kind == "same":
            found = self.window(ranked.take(np.arange(min(len(ranked), LOOKED_THROUGH))),
                                most, shown)  # fmt: skip
        else:
            found = [
                at
                for at, label in enumerate(ranked.left[: most + len(hidden)].tolist())
                if not any(label == labels[0] for labels in hidden)
            ][:most]
        return [self.ask(kind, ranked, at) for at in found]

    def window(self, ranked: Ranked, most: int, shown: Sequence[Question]) -> list[int]:
        """Positions of the next pairs, given those shown."""
        forest = self.forest()
        for question in shown:
            if len(question.labels) == 2:
                forest.join(*question.labels)
        run = [question.labels[0] for question in shown[-1:]]
        first = np.flatnonzero(np.isin(ranked.left, run))
        tail = sum(1 for question in shown if question.labels[:1] == tuple(run))
        head = independent(ranked.left[first], ranked.right[first],
                           max(0, min(most, 7 - tail)), forest) if run else []  # fmt: skip
        worth = [int(at) for at in first[head] if ranked.gain[at] >= RUN_SHARE * ranked.gain[0]]
        forest = self.forest()
        for question in shown:
            if len(question.labels) == 2:
                forest.join(*question.labels)
        for at in worth:
            forest.join(int(ranked.left[at]), int(ranked.right[at]))
        return worth + independent(ranked.left, ranked.right, most - len(worth), forest)

    def forest(self) -> Any:
        """Who is two, as known: by answers, and as both have names."""
        forest = constraints.Links()
        for left, right in self.two.tolist():
            forest.part(left, right)
        alive = self.model.alive
        named = alive[(self.model.flags(alive) & people.NAMED) > 0]
        forest.owner = {int(label): at for at, label in enumerate(named)}
        return forest

    def ask(self, kind: str, ranked: Ranked, at: int) -> Question:
        """The question of one place in a ranking, which can be answered from now on."""
        model = self.model
        label, other = int(ranked.left[at]), int(ranked.right[at])
        if kind == "look":
            groups, labels = self.cuts.found[label], (label,)
        elif kind == "whose":
            groups, labels = (np.array([label]), model.members(other)), (label,)
        else:
            groups, labels = (model.members(label), model.members(other)), (label, other)
        facts = float(ranked.likelihood[at]), float(ranked.gain[at])
        about = groups[: max(len(labels), 1 + (kind == "look"))]
        question = Question(kind, qid_of(kind, *about), labels, *groups, *facts)
        self.asked.pop(question.qid, None)
        self.asked[question.qid] = question
        while len(self.asked) > REMEMBERED:
            del self.asked[next(iter(self.asked))]
        return question

    def question_of(self, qid: str) -> Question:
        """A question that was asked. Raises Refused where it is asked no more."""
        question = self.asked.get(qid)
        if question is None or not self.is_open(question):
            raise Refused("stale", qid=qid)
        return question

    def is_open(self, question: Question) -> bool:
        """Whether a question is about the same faces still, and nothing answers it."""
        model = self.model
        for label, rows in zip(question.labels, self.sides(question), strict=True):
            if model.view.labels[label] != label or not np.array_equal(model.members(label), rows):
                return False
        away = model.flags(np.array(question.labels)) & (people.IGNORED | people.HIDDEN)
        likeliest = model.view.labels[question.right[:1]].tolist() * (question.kind == "whose")
        if away.any() or tuple(sorted({*question.labels, *likeliest})) in self.skipped:
            return False
        if question.kind == "look":
            return question.labels[0] not in self.vouched
        left, right = min(question.labels), max(question.labels)
        return left * model.cache.faces + right not in set(self.two_keys.tolist())

    def sides(self, question: Question) -> list[np.ndarray]:
        """Rows of each person a question touches."""
        if question.kind == "look":
            return [np.sort(np.concatenate([question.left, question.right]))]
        return [question.left, question.right][: len(question.labels)]

    # -- when to stop ---------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """How many questions are worth asking, how many faces are wrong still, how long it takes.

        {queues: {kind: questions}, wrong: {expected, low, high}, minutes, done}; of what `idle`
        has not computed yet it says what was known last.
        """
        self.of_kind("same")
        worth = {kind: one.gain >= WORTH_ASKING for kind, one in self.ranked_now.items()}
        believed = [self.ranked_now[kind].believed[some] for kind, some in worth.items()]
        expected, low, high = self.wrong(self.ranked_now)
        return {
            "queues": {kind: int(worth.get(kind, np.zeros(0)).sum()) for kind in KINDS},
            "wrong": {"expected": expected, "low": low, "high": high},
            "minutes": round(float(seconds(np.concatenate(believed)).sum()) / 60.0, 1),
            "done": len(worth) == len(KINDS) and not any(some.any() for some in worth.values()),
        }

    def wrong(self, ranked: dict[str, Ranked]) -> tuple[int, int, int]:
        """Faces expected to be with the wrong person, and where nine of ten draws lie.

        Same person?: summed over a maximum-weight forest of the open pairs, so that nothing is
        counted twice.
        """
        same, whose, look = (ranked.get(kind, NOBODY) for kind in KINDS)
        expected = float(((1.0 - look.believed) * look.wrong).sum())
        rng, drawn = np.random.default_rng(0), np.full(DRAWS, expected)
        for some, learned in (
            (same.take(self.heaviest(same)), self.learned),
            (whose, self.learned_loose),
        ):
            expected += float((some.believed * some.wrong).sum())
            bins = np.clip(np.searchsorted(BINS, some.likelihood, "right") - 1, 0, len(BINS) - 2)
            faces = np.bincount(bins, some.wrong, len(BINS) - 1)
            middle = np.bincount(bins, some.wrong * some.likelihood, len(BINS) - 1)
            middle = middle / np.maximum(faces, 1e-9)
            drawn += [float(learned.adjusted(middle, rng) @ faces) for _ in range(DRAWS)]
        low, high = np.quantile(drawn, [0.05, 0.95])
        return round(expected), math.floor(min(low, expected)), math.ceil(max(high, expected))

    def heaviest(self, ranked: Ranked) -> np.ndarray:
        """Positions of a maximum-weight forest of pairs, by the faces they may put right."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import minimum_spanning_tree

        if not len(ranked):
            return np.zeros(0, int)
        names, ends = np.unique(np.stack([ranked.left, ranked.right]), return_inverse=True)
        ends = ends.reshape(2, -1)
        order = np.argsort(-ranked.believed * ranked.wrong, kind="stable")
        rank = np.empty(len(order))
        rank[order] = np.arange(1, len(order) + 1)
        graph = coo_array((rank, (ends[0], ends[1])), shape=(len(names), len(names)))
        tree = minimum_spanning_tree(graph.tocsr())
        return order[tree.data.astype(int) - 1]


RUN_SHARE = 0.3  # of the best gain that a question about the same left person must be worth


def told(queues: Queues, question: Question) -> dict[str, Any]:
    """A question as the page shows it, for GET /api/questions."""
    model = queues.model
    about = {
        "qid": question.qid,
        "kind": question.kind,
        "value": round(question.gain, 3),
        "together": False,
        "likelihood": how_likely(queues, question),
    }
    if question.kind == "whose":
        return about | told_whose(queues, question)
    nearest = people.nearest_pair(model, question.left, question.right)
    labels = question.labels if len(question.labels) == 2 else question.labels * 2
    left, right = (
        people.side(model, label, rows, first)
        for label, rows, first in zip(labels, (question.left, question.right), nearest, strict=True)
    )
    about |= {
        "left": left,
        "right": right,
        "nearest": [model.cache.face_ids[row] for row in nearest],
        "evidence": evidence(queues, question, left, right),
    }
    if question.kind == "look":
        about |= {"person": people.side(model, labels[0]), "why": about["evidence"]}
    return about


def told_whose(queues: Queues, question: Question) -> dict[str, Any]:
    """A face, those like it, and the people that it may be."""
    model, row = queues.model, int(question.left[0])
    at = int(np.searchsorted(queues.loose.rows, row))
    choices = []
    for label, cosine in zip(queues.loose.label[at], queues.loose.cosine[at], strict=True):
        if label >= 0 and math.isfinite(cosine):
            one = people.side(model, int(label)) | {"likeness": round(float(cosine), 4)}
            choices.append(one)
    photo = model.cache.face_ids[row].partition(":")[0]
    rows = queues.loose.rows[queues.loose.rows != row]
    cosine = np.concatenate(
        [np.zeros(0), *(model.cache.unit[rows[b]] @ model.cache.unit[row]
                        for b in sf.blocks(len(rows)))]
    )  # fmt: skip
    order = np.argsort(-cosine, kind="stable")[:ALIKE]
    order = order[cosine[order] >= 1.0 - model.limits.merge]
    return {
        "face": people.face_brief(model, row) | {"photo": photo},
        "alike": [people.face_brief(model, other) for other in rows[order].tolist()],
        "choices": choices,
    }


def evidence(queues: Queues, question: Question, left: dict, right: dict) -> list[dict[str, Any]]:
    """What speaks for an answer, as keys of the page's texts with their values."""
    model = queues.model
    files = [set(model.cache.face_file[rows].tolist()) for rows in (question.left, question.right)]
    found: list[dict[str, Any]] = []
    if question.kind == "same":
        shared = len(files[0] & files[1])
        key = "together_photos" if shared else "never_together"
        found.append({"key": key, "values": {"n": shared}})
    if left["years"][0] is not None and right["years"][0] is not None:
        gap = max(left["years"][0] - right["years"][1], right["years"][0] - left["years"][1], 0)
        found.append({"key": "years_apart", "values": {"n": gap}})
    usual = queues.usual.length or 1.0
    lengths = [float(model.cache.length[rows].mean()) / usual for rows in
               (question.left, question.right)]  # fmt: skip
    if min(lengths) < model.facts.gates.min_length + 0.1:
        found.append({"key": "poor_pictures", "values": {"side": int(np.argmin(lengths))}})
    return found


def how_likely(queues: Queues, question: Question) -> dict[str, Any]:
    """What the program thinks, to be seen only when asked for: a guess in sight pulls the answer.

    In percent that it is one person; and of the answers to questions like it how many were yes.
    """
    likely = question.likelihood
    sure = max(likely, 1.0 - likely)
    learned = {
        "same": queues.learned, "whose": queues.learned_loose, "look": queues.learned_cuts,
    }[question.kind]  # fmt: skip
    yes, no = learned.yes, learned.no
    at = min(int(np.searchsorted(BINS, likely, "right")) - 1, len(yes) - 1)
    return {
        "percent": round(100 * likely),
        "word": "surely" if sure >= SURE else "probably" if sure >= PROBABLE else "unclear",
        "yes": int(yes[at]),
        "of": int(yes[at] + no[at]),
    }


def page(queues: Queues, kind: str, most: int = 12, after: Sequence[str] = ()) -> dict[str, Any]:
    """GET /api/questions."""
    state = queues.state()
    found = queues.questions(kind, most, after)
    return {
        "rev": len(queues.model.lines),
        "left": state["queues"][kind],
        "wrong": state["wrong"],
        "minutes": state["minutes"],
        "done": state["done"],
        "questions": [told(queues, question) for question in found],
    }
