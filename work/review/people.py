"""The people of a library under the operator's decisions: the model behind the review page.

A companion of sort_faces.py; no HTTP and no pictures in it. A `Model` holds a base grouping and
what the decisions make of it. An act changes few people, and only those are measured anew.

Contents
    What is known beside the cache
    The model
    Tables
    An act
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

decisions = sf.companion("decisions")
measures = sf.companion("review/measures")

NAMED, IGNORED, HIDDEN, SINGLE = 1, 2, 4, 8  # flags of a person
EXPORTED, LEFT_OUT = 1, 2  # states of a face
STATES = ("", "exported", "left_out")
NEVER = np.iinfo(np.int32).max  # of a face nothing was ever said
MOST_COMPARED = 4000  # faces of a person, best first, that near-duplicates are looked for among
NEAR_PEOPLE = 3  # shown beside a person
SHOWN = 8  # faces of each side of a question
LOOKED_AT = 400  # faces of a person that those are chosen from
USUAL_FACES = 4000  # say what is usual in a library
VOUCHED = "look"  # text of a *same* that says a person is one and need not be cut
ASKED = "asked"  # text of an answer to a question: what the likelihoods learn from
UNKNOWN_YEAR = -1  # in the columns of years

# ============================================================================
# What is known beside the cache
# ============================================================================


@dataclass(frozen=True)
class Facts:
    """What trees and corpus say of each face of a cache."""

    state: np.ndarray  # (n,) uint8: 0, EXPORTED or LEFT_OUT
    covered: np.ndarray  # (n,) bool: a mask or sunglasses, where a corpus has been scored
    home: np.ndarray  # (n,) int: position in `sets`, -1 none
    sets: list[str] = field(default_factory=list)
    why: dict[int, str] = field(default_factory=dict)  # {row: why it was left out}
    gates: sf.RefineParams = field(
        default_factory=lambda: sf.for_model(sf.RefineParams(), sf.MODEL)
    )

    def place_of(self, name: str) -> int:
        """The place of a set in `sets`, to which it is added."""
        if name not in self.sets:
            self.sets.append(name)
        return self.sets.index(name)


def no_facts(cache: sf.FaceCache) -> Facts:
    """Of a cache without trees."""
    count = cache.faces
    gates = sf.for_model(sf.RefineParams(), cache.meta.model)
    return Facts(np.zeros(count, np.uint8), np.zeros(count, bool), np.full(count, -1), gates=gates)


def facts_of(cache: sf.FaceCache, out: Path | None) -> Facts:
    """What the trees below OUT say, those that are there and speak of this cache."""
    facts = no_facts(cache)
    if out is None:
        return facts
    gates = facts.gates
    refined = sf.read_if_sound(
        out / sf.RUN_TREES[sf.RefinedManifest] / sf.RefinedManifest.FILE, sf.RefinedManifest
    )
    if refined is not None and refined.recognizer == cache.meta.recognizer:
        gates = refined.params
        for entry in refined.facesets:
            rows = sf.rows_of_faces(cache, entry.faces)
            facts.home[rows] = facts.place_of(entry.id)
        facts.why.update(gated(cache, gates, np.flatnonzero(facts.home < 0)))
        facts.state[list(facts.why)] = LEFT_OUT
    root = out / sf.RUN_TREES[sf.SwapManifest]
    master = sf.read_if_sound(root / sf.SwapManifest.FILE, sf.SwapManifest)
    if master is not None and master.recognizer == cache.meta.recognizer:
        corpus = sf.Corpus(root, master)
        for faceset in corpus.sets.values():
            if not faceset.is_era:
                note_set(cache, facts, faceset)
        note_covered(cache, facts, corpus)
    return replace(facts, gates=gates)


def usual_of(cache: sf.FaceCache, labels: np.ndarray) -> sf.Usual:
    """What sf.usual_of says of a library, from its largest groups where it is large."""
    rows = np.arange(cache.faces)
    if cache.faces > USUAL_FACES:
        rows = np.argsort(-np.bincount(labels, minlength=cache.faces)[labels], kind="stable")
        rows = np.sort(rows[:USUAL_FACES])
    return sf.usual_of(cache, rows, labels[rows])


def gated(cache: sf.FaceCache, gates: sf.RefineParams, rows: np.ndarray) -> dict[int, str]:
    """{row: the first gate of refine that it fails}."""
    usual = sf.usual_length(cache, np.arange(cache.faces))
    limits = (
        ("small", cache.face_short, gates.min_short),
        ("blurred", cache.blur, gates.min_blur),
        ("low_score", cache.det_score, gates.min_det_score),
        ("weak", cache.length, gates.min_length * usual),
    )
    found: dict[int, str] = {}
    for name, values, least in reversed(limits):
        found |= dict.fromkeys(rows[values[rows] < least].tolist(), name)
    return found


def note_set(cache: sf.FaceCache, facts: Facts, faceset: sf.FaceSet) -> None:
    """Note what a face set of a corpus holds and what it left out."""
    at = facts.place_of(faceset.folder)
    left = [face for face in faceset.manifest.dropped if face.face in cache.row_of_face]
    for face in left:
        row = cache.row_of_face[face.face]
        if facts.state[row] != EXPORTED:
            facts.state[row], facts.home[row], facts.why[row] = LEFT_OUT, at, face.reason
    rows = sf.rows_of_faces(cache, (face.face for face in faceset.faces))
    facts.state[rows], facts.home[rows] = EXPORTED, at
    for row in rows.tolist():
        facts.why.pop(row, None)


def note_covered(cache: sf.FaceCache, facts: Facts, corpus: sf.Corpus) -> None:
    """Note which exported faces the newest occlusion scores call covered."""
    try:
        scores = sf.load_scores(corpus, "")
    except sf.SortFacesError:
        return  # nobody has scored them, or not all
    for faceset in corpus.active.values():
        hidden = (scores.of(faceset) >= sf.VerdictRules.threshold).any(axis=1)
        names = [face.face for face, one in zip(faceset.faces, hidden, strict=True) if one]
        facts.covered[sf.rows_of_faces(cache, names)] = True


# ============================================================================
# The model
# ============================================================================


@dataclass(frozen=True)
class Told:
    """What the operator has said of a person."""

    name: str = ""
    ignored: bool = False
    hidden: bool = False
    born: int = 0  # year; 0 not known
    numbers: tuple[tuple[str, str], ...] = ()  # (kind of tree, folder)

    @property
    def flags(self) -> int:
        return bool(self.name) * NAMED | self.ignored * IGNORED | self.hidden * HIDDEN


NOTHING_TOLD = Told()


class Further(decisions.Resolver):
    """A resolver that goes on where it was: a later line that fits in whole changes nothing that
    was accepted, as such lines can come in any order. `fits` is False once one did not."""

    def __init__(self, finder: Any) -> None:
        super().__init__(finder)
        self.fits, self.lines = True, []  # the lines that it has read

    def join(self, line: Any, left: int, right: int) -> bool:
        joined = super().join(line, left, right)
        self.fits &= joined
        return joined

    def apart(self, line: Any, pairs: list[tuple[int, int]]) -> None:
        before = len(self.parts)
        super().apart(line, pairs)
        self.fits &= len(self.parts) == before + len(pairs)

    def goes_on(self, lines: Sequence[Any]) -> bool:
        """Take in lines that were added to those read; whether that gives what all give anew."""
        known = len(self.lines)
        if any(mine is not theirs for mine, theirs in zip(self.lines, lines, strict=False)):
            return False
        more = lines[known:]
        if len(lines) < known or any(line.kind == "revoke" or line.authority for line in more):
            return False
        self.fits = True
        for line in more:
            self.take(line)
        self.lines = list(lines)
        return self.fits


@dataclass(frozen=True)
class View:
    """The grouping under certain decisions."""

    resolved: Any  # decisions.Resolved
    settled: np.ndarray  # (n,) int: labels as sf.settle gives them, named by their lowest row
    labels: np.ndarray  # (n,) int: the lowest row of each face's person, -1 no face
    told: np.ndarray  # (n,) int: what the word says of each row's person, a place in Model.sayings
    oldest: np.ndarray  # (n,) int32: number of the first line that points at a row, or NEVER

    @property
    def word(self) -> sf.Word:
        return self.resolved.word


@dataclass(frozen=True)
class Change:
    """What an act has changed."""

    changed: list[str]  # ids of people as they are now
    gone: dict[str, str]  # {id of a person that is no more: its heir}
    people: int = 0
    faces: int = 0  # that belong to another person now, or of which something was said
    newly: int = 0  # loose faces that are near enough to a changed person, and were not
    nothing: bool = False
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # of `changed`
    former: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # labels before

    @property
    def effects(self) -> dict[str, int]:
        return {"people": self.people, "faces": self.faces, "newly": self.newly}


class Refused(sf.SortFacesError):
    """An act that is not made: `error` is nothing, changed, stale, unknown or unusable."""

    def __init__(self, error: str, **facts: Any) -> None:
        super().__init__(error)
        self.error, self.facts = error, facts


class Model:
    """The people of one library, as the decisions stand.

    Attributes named by face are (n,) arrays; those named by person are (n,) too, to be read at the
    person's label, its lowest row.
    """

    def __init__(
        self,
        cache: sf.FaceCache,
        base: np.ndarray,
        lines: Sequence[Any] = (),
        facts: Facts | None = None,
        marks: Sequence[str] | None = None,
    ) -> None:
        """base: (n,) int labels without any decision; marks: the name of each face's thumbnails."""
        self.cache, self.facts = cache, facts or no_facts(cache)
        self.base, self.marks = measures.lowest_rows(base), marks or cache.face_ids
        self.limits = sf.thresholds_for(cache.meta.model)
        self.usual = usual_of(cache, self.base)
        self.sayings, self.saying = [NOTHING_TOLD], {NOTHING_TOLD: 0}
        self.lines: list[Any] = []
        self.view: View | None = None
        self.resolver: Further | None = None
        self.weak = cache.length < self.facts.gates.min_length * self.usual.length
        self.worth_of_face = np.where(self.passes_gates(), 1.0, POOR_FACE)
        self.quality = np.full(cache.faces, np.nan)
        self.plain = (
            cache.det_score
            * np.minimum(cache.face_short / sf.FULL_SIZE_SHORT, 1.0)
            * (cache.blur / (cache.blur + sf.HALF_SHARP_BLUR))
        )
        self.make_tables()
        self.view = self.seen_under(list(lines))
        self.lines = list(lines)
        self.date_faces()
        self.measure(np.unique(self.view.labels[self.view.labels >= 0]))

    def passes_gates(self) -> np.ndarray:
        """(n,) bool: faces that refine would take; those count in full for the order of queues."""
        gates, cache = self.facts.gates, self.cache
        good = (cache.face_short >= gates.min_short) & (cache.blur >= gates.min_blur)
        return good & (cache.det_score >= gates.min_det_score) & ~self.weak

    def make_tables(self) -> None:
        """Empty tables of faces and people."""
        count, dim = self.cache.faces, self.cache.embedding.shape[1]
        self.likeness = np.ones(count, np.float32)  # of a face to its person's centre
        self.doubts = np.zeros(count, np.uint8)
        zeros = functools.partial(np.zeros, count)
        self.size, self.photos, self.doubtful = zeros(int), zeros(int), zeros(int)
        self.exported, self.worth, self.length = zeros(int), zeros(), zeros()
        self.together = np.ones(count)  # mean cosine of two of a person's faces
        self.first_year, self.last_year = np.full((2, count), UNKNOWN_YEAR)
        self.newest = np.full(count, np.nan)
        self.cover, self.ident, self.home = zeros(int), zeros(int), np.full(count, -1)
        self.said_of = zeros(np.int32)  # place in `sayings`
        self.rows: dict[int, np.ndarray] = {}  # {label: rows of a person of several faces}
        self.slot = np.full(count, -1)  # of a person of several faces, in `centres`
        self.centres = np.zeros((0, dim), np.float32)
        self.owner = np.zeros(0, int)  # label of each slot, -1 free

    # -- decisions ------------------------------------------------------------

    def seen_under(self, lines: Sequence[Any]) -> View:
        """The grouping under these lines of the decisions file."""
        resolved = self.resolve(lines)
        word, told = resolved.word, self.told_rows(resolved.word)
        settled = self.settle(word, told)
        labels = without(settled, word.no_face) if word.no_face.any() else settled
        return View(resolved, settled, labels, told, self.oldest_lines(lines))

    def resolve(self, lines: Sequence[Any]) -> Any:
        """What decisions.resolve says of these lines; quick where they are those read before and
        more that fit in."""
        weighed = decisions.weighed_lines(self.finder, lines)
        if self.resolver is None or not self.resolver.goes_on(lines):
            self.resolver = Further(self.finder)
            for line in weighed:
                self.resolver.take(line)
            self.resolver.lines = list(lines)
        word = decisions.word_of(self.cache, self.resolver, weighed)
        decisions.note_undone_boxes(word, self.cache, lines)
        own = self.resolver
        return decisions.Resolved(word, own.conflicts[::-1], own.lost[::-1])

    def settle(self, word: sf.Word, told: np.ndarray) -> np.ndarray:
        """What sf.settle makes of the base; only groups that something new is said of are settled
        anew, and those that hang together with them."""
        if self.view is None:
            return measures.lowest_rows(np.asarray(sf.settle(self.cache.unit, self.base, word)))
        old = self.view.word
        again = changed_rows(old, word) | (self.view.told != told)
        bound = [measures.bound_rows(one.person, one.apart) for one in (old, word)]
        groups = measures.linked_groups(self.base, bound, again)
        rows = np.flatnonzero(groups[self.base])
        result = self.view.settled.copy()
        if len(rows):
            part = sf.settle(self.cache.unit[rows], self.base[rows], word.of_rows(rows))
            names = np.unique(part, return_inverse=True)[1]
            result[rows] = rows[measures.lowest_rows(names)]
        return result

    def told_rows(self, word: sf.Word) -> np.ndarray:
        """(n,) int: the place in `sayings` of what the word says of each row's person."""
        count = int(word.person.max(initial=-1)) + 1
        numbers = {*word.names, *word.ignored, *word.hidden, *word.born, *word.numbers}
        places = np.zeros(count + 1, np.intp)  # the last one: of rows of which nothing was said
        for number in numbers:
            one = Told(
                word.names.get(number, ""),
                number in word.ignored,
                number in word.hidden,
                int(word.born.get(number, 0)),
                tuple(sorted(word.numbers.get(number, {}).items())),
            )
            places[number] = self.saying.setdefault(one, len(self.sayings))
            if places[number] == len(self.sayings):
                self.sayings.append(one)
        return places[word.person]

    @functools.cached_property
    def finder(self) -> Any:
        """Finds the faces that decision lines point at; each is looked for once."""
        return decisions.Finder(self.cache)

    def rows_of_line(self, line: Any) -> np.ndarray:
        """Rows of every face a line points at."""
        if line.kind == "date":
            return self.rows_of_photos(photo[:16] for photo in line.faces)
        return np.array(self.finder.rows([*line.faces, *line.others]), np.intp)

    def rows_of_photos(self, photos: Iterable[str]) -> np.ndarray:
        """Rows of the faces in photos named by 16 hex digits."""
        files = [self.finder.file_of_photo.get(photo, -1) for photo in photos]
        return np.flatnonzero(np.isin(self.cache.face_file, files))

    def oldest_lines(self, lines: Sequence[Any]) -> np.ndarray:
        """(n,) int32: the first line in force that points at each row; NEVER where none does."""
        more = lines[len(self.lines) :]
        if self.view is None or news(self.lines, lines) != more:
            oldest, more = np.full(self.cache.faces, NEVER, np.int32), lines
        else:
            oldest = self.view.oldest.copy()
        revoked, first = decisions.revocations(lines), len(lines) - len(more)
        for at, line in enumerate(more, first):
            if line.op not in revoked and line.kind not in ("date", "skip", "box", "revoke"):
                rows = self.rows_of_line(line)
                oldest[rows[oldest[rows] == NEVER]] = at
        return oldest

    def adopt(self, lines: Sequence[Any]) -> None:
        """The same lines as objects that were read again."""
        self.lines = list(lines)
        self.resolver.lines = list(lines)

    # -- measuring ------------------------------------------------------------

    def date_faces(self) -> None:
        """The capture time and year of every face, the operator's word before the camera's."""
        taken = self.cache.taken.copy()
        for file, seconds in self.view.word.taken.items():
            taken[file] = seconds
        self.taken = taken[self.cache.face_file]
        some, where = np.unique(taken, return_inverse=True)
        years = np.array([sf.year_of(one) for one in some.tolist()])
        self.year = years[where][self.cache.face_file] if len(some) else self.taken

    def measure(self, labels: np.ndarray) -> None:
        """Measure the people of these labels (k,) anew."""
        wanted = np.zeros(self.cache.faces, bool)
        wanted[labels] = True
        inside = np.flatnonzero((self.view.labels >= 0) & wanted[self.view.labels])
        parts = measures.parts_of(self.view.labels, inside)
        if not len(parts.rows):
            return
        self.doubts[parts.rows], self.likeness[parts.rows] = 0, 1.0
        self.release(parts.label)
        several = parts.take(parts.size > 1)
        split = np.split(several.rows, several.start[1:])
        self.rows.update(zip(several.label.tolist(), split, strict=len(several.label) > 0))
        if len(several.rows):
            self.measure_likeness(several)
        self.measure_told(parts)
        rows, part = parts.rows, parts.of_row
        born = np.array([one.born for one in self.sayings])[self.said_of[parts.label]]
        early = self.year[rows] < born[part]
        for name, odd in (
            ("covered", self.facts.covered[rows]),
            ("weak", self.weak[rows]),
            ("before_birth", early),
        ):
            self.doubt(rows[odd], name)
        self.measure_counts(parts)

    def measure_likeness(self, parts: measures.Parts) -> None:
        """Centres of people of several faces, and which of those are odd."""
        unit, rows = self.cache.unit, parts.rows
        sums = measures.sums_of(unit, parts)
        product = measures.along(unit, parts, sums)
        lengths = np.maximum(np.sqrt(np.einsum("gd,gd->g", sums, sums)), 1e-6)
        self.together[parts.label] = (lengths**2 - parts.size) / (parts.size * (parts.size - 1))
        self.likeness[rows] = product / lengths[parts.of_row]
        self.keep_centres(parts.label, sums / lengths[:, None])
        away = measures.apart_from_rest(product, sums, parts)
        self.doubt(rows[measures.far_faces(away, parts, self.usual.spread)], "far")
        twice = measures.second_in_photo(self.cache, parts, self.likeness[rows], self.limits.copy)
        self.doubt(rows[twice], "same_photo")

    def doubt(self, rows: np.ndarray, name: str) -> None:
        """Mark faces as doubtful."""
        self.doubts[rows] |= np.uint8(1 << measures.DOUBTS.index(name))

    def keep_centres(self, labels: np.ndarray, centres: np.ndarray) -> None:
        """Put the centres (g, d) of people where they are found by `slot`."""
        free = np.flatnonzero(self.owner < 0)
        short = len(labels) - len(free)
        if short > 0:
            room = max(short, len(self.owner) // 8 + 64)
            free = np.append(free, len(self.owner) + np.arange(room))
            blank = np.zeros((room, self.centres.shape[1]), np.float32)
            self.centres = np.concatenate([self.centres, blank])
            self.owner = np.append(self.owner, np.full(room, -1))
        at = free[: len(labels)]
        self.slot[labels], self.owner[at], self.centres[at] = at, labels, centres

    def release(self, labels: np.ndarray) -> None:
        """Let the centres of these people go."""
        slots = self.slot[labels]
        self.owner[slots[slots >= 0]] = -1
        self.slot[labels] = -1
        for label in labels.tolist():
            self.rows.pop(label, None)

    def centres_of(self, labels: np.ndarray) -> np.ndarray:
        """(k, d) float32: a copy of the centres of those people that have several faces."""
        slots = self.slot[labels]
        return self.centres[slots[slots >= 0]]

    def measure_told(self, parts: measures.Parts) -> None:
        """What was said of people, and the face that each is called by."""
        rows, told = parts.rows, self.view.told[parts.rows]
        self.said_of[parts.label] = 0
        for label in np.unique(parts.label[parts.of_row[told > 0]]).tolist():
            members = self.members(label)
            number = self.view.word.of_group(members)
            one = members[self.view.word.person[members] == number]
            self.said_of[label] = self.view.told[one[0]] if number >= 0 else 0
        self.ident[parts.label] = parts.first_by(rows, self.view.oldest[rows])

    def measure_counts(self, parts: measures.Parts) -> None:
        """How many faces, photos, doubts and years people have, their sets and covers."""
        rows, label, part = parts.rows, parts.label, parts.of_row
        self.size[label] = parts.size
        pairs = np.unique(part * np.int64(self.cache.files) + self.cache.face_file[rows])
        self.photos[label] = np.bincount(pairs // max(self.cache.files, 1), minlength=len(label))
        self.doubtful[label] = parts.total((self.doubts[rows] > 0).astype(int))
        self.exported[label] = parts.total((self.facts.state[rows] == EXPORTED).astype(int))
        self.worth[label] = parts.total(self.worth_of_face[rows])
        self.length[label] = parts.total(self.cache.length[rows].astype(float)) / parts.size
        for values, fold, blank in (
            (self.first_year, np.minimum, np.inf),
            (self.last_year, np.maximum, -np.inf),
        ):
            years = fold.reduceat(np.nan_to_num(self.year[rows], nan=blank), parts.start)
            values[label] = np.where(np.isfinite(years), years, UNKNOWN_YEAR)
        taken = np.maximum.reduceat(np.nan_to_num(self.taken[rows], nan=-np.inf), parts.start)
        self.newest[label] = np.where(np.isfinite(taken), taken, np.nan)
        looks = self.likeness[rows] * self.plain[rows]
        self.cover[label] = parts.first_by(rows, -looks, -self.view.word.best[rows])
        self.home[label] = commonest(part, self.facts.home[rows], len(label))

    # -- people ---------------------------------------------------------------

    @property
    def alive(self) -> np.ndarray:
        """Labels of all people, rising."""
        return np.flatnonzero(self.view.labels == np.arange(self.cache.faces))

    def told(self, label: int) -> Told:
        return self.sayings[self.said_of[label]]

    def members(self, label: int) -> np.ndarray:
        """Rows of a person, rising."""
        rows = self.rows.get(label)
        return np.array([label]) if rows is None else rows

    def label_of(self, pid: str) -> int:
        """The person a face id belongs to. Raises Refused where it belongs to none."""
        row = self.cache.row_of_face.get(pid, -1)
        label = int(self.view.labels[row]) if row >= 0 else -1
        if label < 0:
            raise Refused("unknown", face=pid)
        return label

    def pid(self, label: int) -> str:
        return self.cache.face_ids[self.ident[label]]

    def flags(self, labels: np.ndarray) -> np.ndarray:
        """(k,) int of people."""
        told = np.array([one.flags for one in self.sayings])
        return told[self.said_of[labels]] | np.where(self.size[labels] == 1, SINGLE, 0)

    def centre(self, label: int) -> np.ndarray:
        """(d,) float32 of length 1."""
        return self.centres[self.slot[label]] if self.slot[label] >= 0 else self.cache.unit[label]

    def qualities(self, rows: np.ndarray) -> np.ndarray:
        """(m,) composite quality of faces; each is computed once, when first asked for."""
        new = rows[np.isnan(self.quality[rows])]
        if len(new):
            faces = {name: getattr(self.cache, name)[new] for name in FACE_COLUMNS}
            terms = sf.cached_quality_terms(replace(self.cache, **faces))
            self.quality[new] = sf.composite_quality(terms, sf.QualityWeights())
        return self.quality[rows]

    def loose(self) -> np.ndarray:
        """Rows of faces that are nobody's and of which nothing was said, rising."""
        rows = self.alive
        return rows[(self.size[rows] == 1) & (self.said_of[rows] == 0)]


FACE_COLUMNS = [name for name, about in sf.COLUMNS.items() if about.rows == "n"]
POOR_FACE = 0.1  # what a face that refine would not take counts for in a question's worth


def without(labels: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Labels (n,) where the rows `gone` (n,) bool belong to nobody: -1."""
    rest = np.flatnonzero(~gone)
    result = np.full(len(labels), -1)
    named = measures.lowest_rows(labels[rest])
    result[rest] = rest[named]
    return result


def commonest(part: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """(count,) int: the value (m,) that most rows of each part (m,) have, -1 counted as none."""
    result = np.full(count, -1)
    known = values >= 0
    pairs, times = np.unique(np.stack([part[known], values[known]]), axis=1, return_counts=True)
    order = np.lexsort((-pairs[1], times))  # the last one written stays: the most, the lower value
    result[pairs[0, order]] = pairs[1, order]
    return result


# ============================================================================
# Tables
# ============================================================================


def numbers(values: np.ndarray, blank: float = UNKNOWN_YEAR) -> list[int | None]:
    """Whole numbers for JSON, null where they are `blank` or NaN."""
    return [None if value == blank or value != value else int(value) for value in values.tolist()]


def people_columns(model: Model) -> dict[str, list]:
    """All people, singles too, for GET /api/people."""
    labels = model.alive
    told = [model.sayings[at] for at in model.said_of[labels].tolist()]
    ids, marks = model.cache.face_ids, model.marks
    sets = [*model.facts.sets, ""]
    return {
        "id": [ids[row] for row in model.ident[labels].tolist()],
        "name": [one.name for one in told],
        "faces": model.size[labels].tolist(),
        "photos": model.photos[labels].tolist(),
        "doubtful": model.doubtful[labels].tolist(),
        "exported": model.exported[labels].tolist(),
        "set": [sets[at] for at in model.home[labels].tolist()],
        "first_year": numbers(model.first_year[labels]),
        "last_year": numbers(model.last_year[labels]),
        "newest": numbers(model.newest[labels], math.nan),
        "born": [one.born or None for one in told],
        "flags": model.flags(labels).tolist(),
        "cover": [marks[row] for row in model.cover[labels].tolist()],
        "colour": [""] * len(labels),
    }


def counts(model: Model) -> dict[str, int]:
    """How many there are of what, for GET /api/state."""
    flags = model.flags(model.alive)
    away = (flags & (IGNORED | HIDDEN)) > 0
    return {
        "people": int(np.count_nonzero(~away & ((flags & (SINGLE | NAMED)) != SINGLE))),
        "faces": int(np.count_nonzero(model.view.labels >= 0)),
        "singles": int(np.count_nonzero(~away & ((flags & (SINGLE | NAMED)) == SINGLE))),
        "named": int(np.count_nonzero(flags & NAMED)),
        "ignored": int(np.count_nonzero(flags & IGNORED)),
        "hidden": int(np.count_nonzero(flags & HIDDEN)),
        "not_faces": int(np.count_nonzero(model.view.word.no_face)),
    }


def person_brief(model: Model, label: int) -> dict[str, Any]:
    """A person in a few words."""
    told = model.told(label)
    return {
        "id": model.pid(label),
        "name": told.name,
        "faces": int(model.size[label]),
        "flags": int(model.flags(np.array([label]))[0]),
        "cover": model.marks[model.cover[label]],
    }


def side(
    model: Model, label: int, rows: np.ndarray | None = None, first: int | None = None
) -> dict[str, Any]:
    """A person, or some of its faces, as one side of a question.

    rows: of the faces, by default all; first: the row that is shown first.
    """
    rows = model.members(label) if rows is None else rows
    years = model.year[rows][np.isfinite(model.year[rows])]
    shown = shown_faces(model, rows, first)
    return person_brief(model, label) | {
        "faces": len(rows),
        "years": [int(years.min()), int(years.max())] if len(years) else [None, None],
        "shown": [face_brief(model, row) for row in shown.tolist()],
    }


def face_brief(model: Model, row: int) -> dict[str, Any]:
    year = model.year[row]
    return {
        "id": model.cache.face_ids[row],
        "thumb": model.marks[row],
        "year": int(year) if math.isfinite(year) else None,
    }


def shown_faces(model: Model, rows: np.ndarray, first: int | None = None) -> np.ndarray:
    """Up to SHOWN rows that show what a group is like: `first`, the best picture, the middle one,
    then always the one least like those; one face alone would give an erratic view.
    """
    rows = some_of(rows)
    unit = model.cache.unit[rows]
    looks = model.likeness[rows] * model.plain[rows] + model.view.word.best[rows]
    chosen = [int(looks.argmax()), int((unit @ sf.centroid(unit)).argmax())]
    if first is not None:
        at = np.flatnonzero(rows == first)
        chosen[:0] = at.tolist()
    chosen = list(dict.fromkeys(chosen))
    likest = (unit @ unit[chosen].T).max(axis=1)
    while len(chosen) < min(SHOWN, len(rows)):
        likest[chosen] = np.inf
        chosen.append(int(likest.argmin()))
        likest = np.maximum(likest, unit @ unit[chosen[-1]])
    return rows[chosen[:SHOWN]]


def some_of(rows: np.ndarray) -> np.ndarray:
    """At most LOOKED_AT of the rows, evenly taken."""
    if len(rows) <= LOOKED_AT:
        return rows
    return rows[np.linspace(0, len(rows) - 1, LOOKED_AT).astype(int)]


def nearest_pair(model: Model, left: np.ndarray, right: np.ndarray) -> tuple[int, int]:
    """The two rows of two groups that look most alike."""
    left, right = some_of(left), some_of(right)
    cosine = model.cache.unit[left] @ model.cache.unit[right].T
    a, b = np.unravel_index(int(cosine.argmax()), cosine.shape)
    return int(left[a]), int(right[b])


def person_faces(model: Model, pid: str, first: int = 0, most: int = 2000) -> dict[str, Any]:
    """A person's faces in rank order, for GET /api/people/{pid}/faces. Raises Refused."""
    label = model.label_of(pid)
    rows = model.members(label)
    rows = rows[np.lexsort((rows, -model.qualities(rows)))]
    double = near_duplicates(model, rows)
    some = slice(first, first + most)
    told, home = model.told(label), int(model.home[label])
    return person_brief(model, label) | {
        "total": len(rows),
        "born": told.born or None,
        "numbers": dict(told.numbers),
        "columns": face_columns(model, rows[some], double[some], first),
        "eras": eras_of(model, rows),
        "near": near_people(model, label),
        "set": {
            "id": model.facts.sets[home] if home >= 0 else "",
            "exported": int(model.exported[label]),
            "doubtful": int(model.doubtful[label]),
        },
    }


def near_duplicates(model: Model, rows: np.ndarray) -> np.ndarray:
    """(m,) bool: faces, best first, that a better one stands for; of the first MOST_COMPARED."""
    result = np.zeros(len(rows), bool)
    unit = model.cache.unit[rows[:MOST_COMPARED]]
    keeper = sf.nearest_keeper(unit, model.limits.duplicate)
    result[: len(unit)] = keeper != np.arange(len(unit))
    return result


def face_columns(
    model: Model, rows: np.ndarray, double: np.ndarray, first: int = 0
) -> dict[str, list]:
    """Columns of faces (m,) in the order given; double: (m,) bool, near-duplicates of others."""
    cache, word, facts = model.cache, model.view.word, model.facts
    doubts = [
        [name for bit, name in enumerate(measures.DOUBTS) if value >> bit & 1]
        + ["duplicate"] * bool(twice)
        for value, twice in zip(model.doubts[rows].tolist(), double.tolist(), strict=True)
    ]
    return {
        "id": [cache.face_ids[row] for row in rows.tolist()],
        "thumb": [model.marks[row] for row in rows.tolist()],
        "year": numbers(model.year[rows]),
        "taken": numbers(model.taken[rows], math.nan),
        "rank": list(range(first + 1, first + len(rows) + 1)),
        "quality": np.round(model.qualities(rows), 4).tolist(),
        "likeness": np.round(np.clip(model.likeness[rows], 0.0, 1.0), 4).tolist(),
        "doubts": doubts,
        "state": [STATES[value] for value in facts.state[rows].tolist()],
        "why": [facts.why.get(row, "") for row in rows.tolist()],
        "photo": [cache.face_ids[row].partition(":")[0] for row in rows.tolist()],
        "best": ((word.best[rows] > 0) & (model.cover[model.view.labels[rows]] == rows)).tolist(),
        "keep": word.keep[rows].tolist(),
        "said": (word.person[rows] >= 0).tolist(),
    }


def eras_of(model: Model, rows: np.ndarray) -> list[dict[str, Any]]:
    """Rows of years for a person's page: each as long as an era may be, the undated last."""
    years = np.unique(model.year[rows])
    found, start = [], 0
    years = years[np.isfinite(years)].astype(int)
    for at in range(1, len(years) + 1):
        if at == len(years) or years[at] - years[start] > sf.EraParams.years:
            first, last = int(years[start]), int(years[at - 1])
            label = str(first) if first == last else f"{first}-{last}"
            found.append({"label": label, "from": first, "to": last})
            start = at
    if not np.isfinite(model.year[rows]).all():
        found.append({"label": "", "from": None, "to": None})
    return found


def near_people(model: Model, label: int, most: int = NEAR_PEOPLE) -> list[dict[str, Any]]:
    """The other people of several faces that look most like a person; no ignored ones."""
    return nearest_people(model, model.centre(label), most, label)


def nearest_people(
    model: Model, vector: np.ndarray, most: int = NEAR_PEOPLE, own: int = -1
) -> list[dict[str, Any]]:
    """The people of several faces nearest to a unit vector (d,), but for `own`."""
    slots = np.flatnonzero((model.owner >= 0) & (model.owner != own))
    slots = slots[(model.flags(model.owner[slots]) & (IGNORED | HIDDEN)) == 0]
    cosine = model.centres[slots] @ vector
    best = np.argsort(-cosine, kind="stable")[:most]
    return [
        person_brief(model, label) | {"likeness": round(float(value), 4)}
        for label, value in zip(model.owner[slots[best]].tolist(), cosine[best], strict=True)
    ]


def photo_facts(model: Model, photo: str) -> dict[str, Any]:
    """A photo with every box, for GET /api/photos/{16 hex}. Raises Refused."""
    file = model.finder.file_of_photo.get(photo, -1)
    if file < 0:
        raise Refused("unknown", photo=photo)
    cache = model.cache
    drawn = {line.text for line in decisions.standing(model.lines) if line.kind == "box"}
    boxes = []
    for row in model.finder.rows_of_photo.get(photo, []):
        label = int(model.view.labels[row])
        box = cache.bbox[row].astype(float).round(1).tolist()
        boxes.append({
            "id": cache.face_ids[row], "box": box, "thumb": model.marks[row],
            "person": person_brief(model, label) if label >= 0 else None,
            "not_face": bool(model.view.word.no_face[row]),
            "drawn": cache.face_ids[row] in drawn,
            "score": round(float(cache.det_score[row]), 3),
        })  # fmt: skip
    width, height = cache.file_wh[file].tolist()
    path = str(cache.file_path[file])
    word = model.view.word.taken
    taken = word.get(file, float(cache.taken[file]))
    return {
        "id": photo,
        "width": width,
        "height": height,
        "name": path.replace("\\", "/").rpartition("/")[2],
        "path": path,
        "taken": taken if math.isfinite(taken) else None,
        "taken_to": "" if file in word else str(cache.file_taken_precision[file]),
        "boxes": sorted(boxes, key=lambda box: box["box"][0]),
    }


def halves_of(model: Model, pid: str) -> dict[str, Any]:
    """The two parts a person falls into by itself, each with its faces. Raises Refused."""
    label = model.label_of(pid)
    parts = halves(model, label)
    ids, nearest = model.cache.face_ids, nearest_pair(model, *parts)
    sides = [
        side(model, label, rows, first) | {"members": [ids[row] for row in rows.tolist()]}
        for rows, first in zip(parts, nearest, strict=True)
    ]
    return {"left": sides[0], "right": sides[1]}


def halves(model: Model, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the two parts a person falls into, the larger first.

    Raises Refused where there is but one face.
    """
    if model.size[label] < 2:
        raise Refused("nothing")
    return halves_of_rows(model.cache.unit, model.members(label))


def halves_of_rows(unit: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two parts that rows (m,), two and more, of unit (n, d) fall into, the larger first; see
    purity.two_parts."""
    some, purity = unit[rows], sf.companion("purity")
    ways = [purity.two_sides(some)]
    if len(rows) <= LOOKED_AT:
        ways.append(purity.last_merge(some))
    ways = [way for way in ways if way.any() and not way.all()]
    if not ways:  # all faces are the same picture
        ways = [np.arange(len(rows)) == 0]
    if len(ways) > 1 and len(rows) > 2:
        found = [purity.likeness_of_parts(some, way) for way in ways]
        short = [one[0] - purity.limits_of(one[1], len(rows))[0] for one in found]
        ways = [ways[int(np.argmin(short))]]
    parts = sorted((rows[ways[0]], rows[~ways[0]]), key=lambda part: (-len(part), part[0]))
    return parts[0], parts[1]


# ============================================================================
# An act
# ============================================================================


def take(model: Model, lines: Sequence[Any]) -> Change:
    """Bring a model to these lines of the decisions file, and say what that changed."""
    old, spoken = model.view, news(model.lines, lines)
    new = model.seen_under(lines)
    marked = marks_differ(old.word, new.word)
    touched = (old.labels != new.labels) | marked | (old.told != new.told)
    for line in spoken:
        touched[model.rows_of_line(line)] = True
    named = np.unique(np.concatenate([old.labels[touched], new.labels[touched]]))
    named = named[named >= 0]
    former, labels = (named[view.labels[named] == named] for view in (old, new))
    loose, ids = model.loose(), {int(label): model.pid(label) for label in former}
    centres, sayings = model.centres_of(former), (model.said_of[former], model.cover[former])
    model.release(former)
    model.view, model.lines = new, list(lines)
    dated = old.word.taken != new.word.taken
    if dated:
        model.date_faces()
    model.measure(labels)
    heirs, moved = heirs_of(old.labels, new.labels, former)
    now = model.said_of[labels], model.cover[labels]
    told = not all(map(np.array_equal, sayings, now))
    noted = any(line.kind in ("skip", "box") or is_vouching(line) for line in spoken)
    return Change(
        changed=[model.pid(label) for label in labels.tolist()],
        gone={
            ids[label]: model.pid(heir)
            for label, heir in heirs.items()
            if model.pid(heir) != ids[label]
        },
        people=len(labels),
        faces=moved + int(np.count_nonzero(marked)) or int(model.size[labels].sum()),
        newly=newly_near(model, loose, centres, model.centres_of(labels)),
        nothing=not (moved or marked.any() or told or dated or noted or rivals(old) != rivals(new)),
        labels=labels,
        former=former,
    )


def is_vouching(line: Any) -> bool:
    """Whether a line says of one person that both its parts are one, as an answer to a look."""
    return line.kind == "same" and line.text == VOUCHED


def news(before: Sequence[Any], now: Sequence[Any]) -> list[Any]:
    """Lines that are in one of two states of the file alone, and those that they take back."""
    same = 0
    while same < min(len(before), len(now)) and before[same] is now[same]:
        same += 1
    found = [*before[same:], *now[same:]]
    longest = max(before, now, key=len)
    ops = {line.text for line in found if line.kind == "revoke"}
    ops |= {line.text for line in longest if line.kind == "revoke" and line.op in ops}
    return found + [line for line in longest if line.op in ops]


def changed_rows(old: sf.Word, new: sf.Word) -> np.ndarray:
    """(n,) bool: rows that are bound otherwise, or for the first time, or no more."""
    names = [measures.bound_rows(word.person, word.apart) for word in (old, new)]
    result = names[0] != names[1]
    for one in names:  # all that is bound to such a row
        touched = one[result]
        result |= np.isin(one, touched[touched >= 0])
    count = len(old.person)
    apart = [word.apart[:, 0] * count + word.apart[:, 1] for word in (old, new)]
    carried = [{rows.tobytes(): rows for rows in word.carried} for word in (old, new)]
    result[np.concatenate(np.divmod(np.setxor1d(*apart), count))] = True
    for key in carried[0].keys() ^ carried[1].keys():
        result[(carried[0].get(key) if key in carried[0] else carried[1][key])[:1]] = True
    return result


def marks_differ(old: sf.Word, new: sf.Word) -> np.ndarray:
    """(n,) bool: faces of which something else is said than before."""
    marks = [(word.no_face, word.keep, word.best > 0) for word in (old, new)]
    return np.any([left != right for left, right in zip(*marks, strict=True)], axis=0)


def rivals(view: View) -> set[tuple[int, int]]:
    """Pairs of people that are said to be two."""
    pairs = np.sort(view.labels[view.word.apart], axis=1)
    return set(map(tuple, np.unique(pairs, axis=0).tolist()))


def heirs_of(old: np.ndarray, new: np.ndarray, former: np.ndarray) -> tuple[dict[int, int], int]:
    """({label of a former person: the person most of its faces belong to now}, faces that moved).

    old, new: (n,) labels; former: (k,) labels of `old`. Of several parts or several former people
    the largest stays what it was, the others are counted as moved.
    """
    rows = np.flatnonzero(np.isin(old, former))
    pairs, times = np.unique(np.stack([old[rows], new[rows]]), axis=1, return_counts=True)
    heirs: dict[int, int] = {}
    stays, taken, moved = set(), set(), 0
    for at in np.argsort(-times, kind="stable").tolist():
        left, right = pairs[:, at].tolist()
        if right >= 0:
            heirs.setdefault(left, right)
        if right >= 0 and left not in stays and right not in taken:
            stays.add(left)
            taken.add(right)
        else:
            moved += int(times[at])
    return heirs, moved


def newly_near(model: Model, loose: np.ndarray, before: np.ndarray, now: np.ndarray) -> int:
    """How many loose faces lie near enough to a changed person, and to none of those before.

    loose: (m,) rows that were loose; before, now: (k, d) centres of the people that changed.
    """
    loose = loose[(model.size[loose] == 1) & (model.view.labels[loose] == loose)]
    loose = loose[model.said_of[loose] == 0]
    if not len(now) or not len(loose):
        return 0
    found = 0
    both, least = np.concatenate([before, now]), 1.0 - model.limits.candidate
    for block in sf.blocks(len(loose)):
        near = model.cache.unit[loose[block]] @ both.T >= least
        found += np.count_nonzero(near[:, len(before) :].any(1) & ~near[:, : len(before)].any(1))
    return int(found)
