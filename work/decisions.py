"""The operator's decisions: the file beside a cache, and what of it holds.

<cache>.decisions.jsonl grows by whole acts and is never rewritten (but by `forget`). A decision
points at faces, never at numbers of people, and finds them again by photo and box after a re-scan.

Contents
    Faces
    The file
    What holds
    What the core obeys
    Words of a corpus
    On the command line
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import re
import unicodedata
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

import sort_faces as sf

constraints = sf.companion("constraints")

# ============================================================================
# Faces
# ============================================================================

ANCHORS = 16  # faces that stand for a group; a quarter of them carries it (constraints.CARRIES)
SHOWN = 8  # of each side, that "two people" binds: those a page shows side by side
SAME_FACE_IOU = 0.3  # boxes of one photo that overlap so are one face
REF = r"[0-9a-f]{16}(?::\d+)?(?:@-?\d+,-?\d+,-?\d+,-?\d+)?"  # photo, face, box in pixels
Ref = Annotated[str, msgspec.Meta(pattern=rf"\A{REF}\Z")]


def refs(cache: sf.FaceCache, rows: Iterable[int]) -> list[str]:
    """How decisions name faces: id and box in whole pixels."""
    rows = [int(row) for row in rows]
    boxes = cache.bbox[rows].round().astype(int).tolist()
    places = (",".join(map(str, box)) for box in boxes)
    return [f"{cache.face_ids[row]}@{place}" for row, place in zip(rows, places, strict=True)]


def anchors(cache: sf.FaceCache, rows: np.ndarray) -> list[str]:
    """Refs of up to ANCHORS faces that stand for the group of these rows, the best first."""
    if len(rows) > ANCHORS:
        rows = rows[sf.herd(cache.embedding[rows], ANCHORS)]
    return refs(cache, rows)


class Finder:
    """Finds the faces of refs in a cache: by photo and box, so that numbers may change."""

    def __init__(self, cache: sf.FaceCache) -> None:
        self.cache = cache
        self.known: dict[str, int] = {}
        self.rows_of_photo: dict[str, list[int]] = defaultdict(list)
        shas = [sha[:16] for sha in cache.file_sha256.tolist()]
        for row, file in enumerate(cache.face_file.tolist()):
            self.rows_of_photo[shas[file]].append(row)
        self.file_of_photo = {sha: file for file, sha in enumerate(shas)}

    def row(self, ref: str) -> int:
        """Cache row of a ref, -1 where the face is not there."""
        if ref not in self.known:
            face, _, box = ref.partition("@")
            row = self.cache.row_of_face.get(face, -1)
            if box and (row < 0 or refs(self.cache, [row]) != [ref]):
                row = self.at(face[:16], np.array(box.split(","), np.float64), row)
            self.known[ref] = row
        return self.known[ref]

    def at(self, photo: str, box: np.ndarray, likely: int = -1) -> int:
        """The face of a photo that a box shows; of two as good the likely one."""
        rows = self.rows_of_photo.get(photo, [])
        if not rows:
            return -1
        overlap = sf.box_iou(box, self.cache.bbox[rows].astype(np.float64))
        best = int(np.lexsort((np.array(rows) != likely, -overlap))[0])
        return rows[best] if overlap[best] >= SAME_FACE_IOU else -1

    def rows(self, some: Iterable[str]) -> list[int]:
        """Those of the refs that are there, each once, in their order."""
        return list(dict.fromkeys(row for row in map(self.row, some) if row >= 0))


def rows_of_refs(cache: sf.FaceCache, some: Sequence[str]) -> np.ndarray:
    """Cache rows (k,) of refs, -1 where the face is not there."""
    finder = Finder(cache)
    return np.array([finder.row(ref) for ref in some], np.intp)


# ============================================================================
# The file
# ============================================================================

LOCK_SECONDS = 30.0  # an append takes milliseconds
Kind = Literal[
    "name", "same", "different", "belongs", "not_belongs", "together", "not_face", "ignore",
    "hide", "best", "keep", "drop", "born", "date", "box", "number", "skip", "revoke", "maybe",
]  # fmt: skip
Short = Annotated[str, msgspec.Meta(max_length=200)]
OF_PHOTOS = "import tags: "  # begins the author of what other programs wrote in or beside photos


class Line(sf.Record, omit_defaults=True, kw_only=True):
    """A line of the file; docs/decisions.md tells what each kind means."""

    id: Annotated[str, msgspec.Meta(max_length=64)]
    op: Annotated[str, msgspec.Meta(max_length=64)]  # the act: its lines are undone together
    time: Short  # ISO 8601
    kind: Kind
    author: Short = "operator"  # or "import NAME", "rule"
    tab: Annotated[str, msgspec.Meta(max_length=64)] = ""  # the page that did it
    faces: list[Ref] = msgspec.field(default_factory=list)
    others: list[Ref] = msgspec.field(default_factory=list)
    text: Short = ""
    off: bool = False  # a former word of this kind is taken back
    sides: tuple[int, int] = (0, 0)  # faces of both groups at that time

    @property
    def authority(self) -> int:
        """The lower the more its word counts."""
        return (self.author != "operator") + (self.kind == "maybe") + 2 * (self.author == "rule")

    @property
    def is_noted(self) -> bool:
        """Whether nobody gave it here: by the tool itself, or read from the photos as it went."""
        return self.author == "rule" or self.author.startswith(OF_PHOTOS)


path_of = sf.decisions_path


def act(kind: str, op: str, **facts: Any) -> Line:
    """One line with its time. Raises SortFacesError where a fact is not as it must be."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    try:
        value = {"id": uuid.uuid4().hex[:12], "op": op, "time": now, "kind": kind, **facts}
        return sf.as_record(Line, value)
    except msgspec.ValidationError as error:
        raise sf.SortFacesError(f"no decision: {error}") from None


def new_op() -> str:
    return uuid.uuid4().hex


def mark_of(*facts: Any) -> str:
    """The op of an act that is said again by every run, so that it is written once."""
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Nobody else writes a decisions file meanwhile. Raises SortFacesError where one goes on to."""
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(path.name + ".lock"), timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        where = lock.lock_file
        raise sf.SortFacesError(f"{where}: held for {LOCK_SECONDS:.0f} s; try again") from None
    try:
        yield
    finally:
        lock.release()


class Book:
    """The decisions file of one cache, as far as it has been read."""

    def __init__(self, cache_path: Path) -> None:
        self.path = path_of(cache_path)
        self.forget()
        self.refresh()

    def forget(self) -> None:
        """Begin anew."""
        self.lines: list[Line] = []
        self.rev = 0  # lines of the file, damaged ones too
        self.at = 0
        self.file: tuple[int, int] | None = None  # device and number

    def refresh(self) -> bool:
        """Read what was added since; whether there was anything."""
        try:
            now = os.stat(self.path)
        except FileNotFoundError:
            anything, _ = bool(self.rev), self.forget()
            return anything
        if self.file != (now.st_dev, now.st_ino) or now.st_size < self.at:
            self.forget()  # rewritten by `forget`
            self.file = now.st_dev, now.st_ino
        before = self.rev
        for at, value in sf.json_lines(self.path, self.at):
            self.at, self.rev = at, self.rev + 1
            try:
                if value is None:
                    raise msgspec.ValidationError("no whole line of JSON")
                self.lines.append(sf.as_record(Line, value))
            except msgspec.ValidationError as error:
                where = f"{self.path}: line {self.rev} is damaged ({sf.one_line(error)})"
                sf.log.warning("%s; that decision does not count", where)
        return self.rev > before

    def append(self, lines: Sequence[Line]) -> int:
        """Write the lines of one act to the disk, unless it is there already; the new rev."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with held(self.path):
            self.refresh()
            there = {line.op for line in self.lines}
            self.write([line for line in lines if line.op not in there])
        self.refresh()
        return self.rev

    def write(self, lines: Sequence[Line]) -> None:
        """Append lines as one write, so that a kill leaves the act or nothing of it."""
        if not lines:
            return
        file = sf.AppendOnly(self.path)
        text = b"".join(sf.checked_line(sf.as_json(line)) for line in lines)
        try:
            stream = file.open()
            size = stream.tell()
            if hasattr(os, "fchmod"):
                os.fchmod(stream.fileno(), 0o600)
            try:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            except OSError:
                os.truncate(self.path, size)
                raise
        except OSError as error:
            raise sf.SortFacesError(
                f"{self.path}: {error.strerror}; free some space and try again, "
                "every earlier decision is kept"
            ) from None
        finally:
            file.close()

    def standing(self) -> list[Line]:
        """The lines that nobody has revoked, in order."""
        return standing(self.lines)

    def last_op(self, tab: str | None = None) -> str | None:
        """The latest act that stands; tab: of this page."""
        own = (line for line in reversed(self.standing()) if tab in (None, line.tab))
        return next((line.op for line in own if not line.is_noted), None)

    def last_undone(self, tab: str | None = None) -> str | None:
        """The revoking act that redo takes back; a new act leaves nothing to redo."""
        revoked, kinds = revocations(self.lines), {line.op: line.kind for line in self.lines}
        for line in reversed(self.lines):
            if tab not in (None, line.tab) or line.op in revoked or line.is_noted:
                continue
            if line.kind != "revoke":
                return None
            if kinds.get(line.text) != "revoke":
                return line.op
        return None


def revocations(lines: Sequence[Line]) -> set[str]:
    """Acts that do not count: a revoked revocation takes nothing back."""
    revoked: set[str] = set()
    for line in reversed(lines):
        if line.kind == "revoke" and line.op not in revoked:
            revoked.add(line.text)
    return revoked


def standing(lines: Sequence[Line]) -> list[Line]:
    """The lines that nobody has revoked, without the revocations."""
    revoked = revocations(lines)
    return [line for line in lines if line.op not in revoked and line.kind != "revoke"]


CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def plain_name(text: str) -> str:
    """A name as it is kept: composed, without control and direction characters, short."""
    return " ".join(CONTROLS.sub("", unicodedata.normalize("NFC", text)).split())[:200]


# ============================================================================
# What holds
# ============================================================================

BINDS = {"name", "ignore", "hide", "born", "together", "same"}  # `faces` are one person
BINDS_OTHERS = {"same", "belongs", "not_belongs"}
Edge = tuple[int, int, Line]


class Conflict:
    """A decision that does not count, as later ones say otherwise."""

    def __init__(self, line: Line, prove: Callable[[], list[Line]]) -> None:
        self.line, self.prove = line, prove

    @functools.cached_property
    def by(self) -> list[Line]:
        """The shortest chain that proves it; looked for when somebody asks."""
        return self.prove()


@dataclass
class Resolved:
    """What of the decisions holds in a cache."""

    word: sf.Word
    conflicts: list[Conflict]
    lost: list[Line]  # their faces are not in the cache


class Resolver:
    """Takes decisions in, the one that counts most first: what contradicts it does not count."""

    def __init__(self, finder: Finder) -> None:
        self.finder = finder
        self.links = constraints.Links()
        self.joins: list[Edge] = []
        self.parts: list[Edge] = []
        self.bound: set[int] = set()
        self.carried: dict[tuple[int, ...], None] = {}
        self.conflicts: list[Conflict] = []
        self.lost: list[Line] = []
        self.called: list[tuple[int, str]] = []  # (a face, name) as the operator named them
        self.imported: dict[str, int] = {}  # a face of each name, since there are imported ones

    def take(self, line: Line) -> None:
        """Accept what a line says of who is who, as far as nothing accepted says otherwise."""
        faces, others = self.finder.rows(line.faces), self.finder.rows(line.others)
        if line.kind in ("date", "number", "skip", "maybe"):
            return
        if not faces or bool(line.others) > bool(others):
            self.lost.append(line)
        elif line.kind == "different":
            self.apart(line, [(a, b) for a in faces[:SHOWN] for b in others[:SHOWN]])
        else:
            person = self.bind(line, others) if line.kind in BINDS_OTHERS else None
            own = self.bind(line, faces) if line.kind in BINDS else None
            if line.kind == "name" and line.text:
                self.call(line, own)
            if line.kind == "same":
                self.together(line, [(own, person)])
            elif line.kind == "belongs":
                self.bound.update(faces)
                self.together(line, [(person, face) for face in faces])
            elif line.kind == "not_belongs":
                self.apart(line, [(person, face) for face in faces])

    def call(self, line: Line, face: int) -> None:
        """Make whom other programs call alike one person; also with the one whom the operator calls
        so, if there is but one."""
        name = line.text.casefold()
        if not line.authority:
            self.called.append((face, name))
            return
        if not self.imported:
            self.imported = self.called_once()
        self.join(line, self.imported.setdefault(name, face), face)

    def called_once(self) -> dict[str, int]:
        """{name: a face} of the people whom the operator named, where a name is only one's."""
        own: dict[int, tuple[int, str]] = {}
        for face, name in self.called:
            own.setdefault(self.links.find(face), (face, name))
        times = Counter(name for _, name in own.values())
        return {name: face for face, name in own.values() if times[name] == 1}

    def bind(self, line: Line, rows: list[int]) -> int:
        """Make the faces that stood for a group one person, but for those that left it since;
        one of them."""
        pivot = rows[0]
        if any(self.links.rivals.get(self.links.find(row)) for row in rows):
            clashes = [sum(self.links.apart(row, other) for other in rows) for row in rows]
            pivot = rows[int(np.argmin(clashes))]
        stayed = [row for row in rows if self.join(line, pivot, row)]
        self.bound.update(stayed)
        self.carried[tuple(stayed)] = None
        return pivot

    def join(self, line: Line, left: int, right: int) -> bool:
        """Whether two faces are one person now."""
        fits = self.links.join(left, right)
        if fits and left != right:
            self.joins.append((left, right, line))
        return fits

    def together(self, line: Line, pairs: list[tuple[int, int]]) -> None:
        if not [None for left, right in pairs if self.join(line, left, right)]:
            proof = Proof(self, len(self.joins), len(self.parts))
            self.conflicts.append(Conflict(line, functools.partial(proof.of_two, *pairs[0])))

    def apart(self, line: Line, pairs: list[tuple[int, int]]) -> None:
        accepted = [(left, right) for left, right in pairs if self.links.part(left, right)]
        self.parts += [(left, right, line) for left, right in accepted]
        if not accepted:
            proof = Proof(self, len(self.joins), len(self.parts))
            self.conflicts.append(Conflict(line, functools.partial(proof.of_one, *pairs[0])))


@dataclass(frozen=True)
class Proof:
    """Why a decision does not count: what had been accepted when it was looked at."""

    resolver: Resolver
    joins: int  # edges accepted by then
    parts: int

    def of_one(self, start: int, end: int) -> list[Line]:
        """The fewest decisions that make two faces one person."""
        return path(self.reached(start), end)

    def of_two(self, left: int, right: int) -> list[Line]:
        """Decisions that make two faces two people."""
        near, far = self.reached(left), self.reached(right)
        for a, b, line in self.resolver.parts[: self.parts]:
            for one, other in ((a, b), (b, a)):
                if one in near and other in far:
                    lines = [*path(near, one), line, *path(far, other)[::-1]]
                    return list({some.id: some for some in lines}.values())
        return []

    def reached(self, start: int) -> dict[int, tuple[int, Line] | None]:
        """{face: (the face before it, the decision that joins them)} of all that is one person
        with a face, by the shortest ways."""
        beside: dict[int, list[tuple[int, Line]]] = defaultdict(list)
        for left, right, line in self.resolver.joins[: self.joins]:
            beside[left].append((right, line))
            beside[right].append((left, line))
        reached: dict[int, tuple[int, Line] | None] = {start: None}
        queue = deque([start])
        while queue:
            here = queue.popleft()
            for there, line in beside[here]:
                if there not in reached:
                    reached[there] = here, line
                    queue.append(there)
        return reached


def path(reached: dict[int, tuple[int, Line] | None], end: int) -> list[Line]:
    """The decisions on the way to a face, each once."""
    found: dict[str, Line] = {}
    while (step := reached.get(end)) is not None:
        end, line = step
        found[line.id] = line
    return list(found.values())[::-1]


def note_undone_boxes(word: sf.Word, cache: sf.FaceCache, lines: Sequence[Line]) -> None:
    """Make the faces that only a box which was taken back has brought no faces; lines: all."""
    if any(line.kind == "box" for line in lines):
        word.no_face[sf.companion("drawn_faces").undone_rows(cache, lines)] = True


def by_weight(lines: Sequence[Line]) -> list[Line]:
    """The decision that counts most first: a person's before an import's before a rule's, and of
    one author's the later."""
    order = sorted(range(len(lines)), key=lambda at: (lines[at].authority, -at))
    return [lines[at] for at in order]


def weighed_lines(finder: Finder, lines: Sequence[Line]) -> list[Line]:
    """The decisions that nobody has revoked, by weight, and of what may be true what holds."""
    weighed = by_weight(standing(lines))
    if not any(line.kind == "maybe" for line in weighed):
        return weighed
    return sf.companion("weak_words").held(finder, weighed)


def resolve(cache: sf.FaceCache, lines: Sequence[Line], finder: Finder | None = None) -> Resolved:
    """What the decisions say of a cache, conflicts settled: of those the later stands.

    lines: of a Book, revocations and all. Decisions that do not conflict can come in any order.
    finder: one of this cache that is kept for the next time.
    """
    finder = finder or Finder(cache)
    weighed = weighed_lines(finder, lines)
    resolver = Resolver(finder)
    for line in weighed:
        resolver.take(line)
    word = word_of(cache, resolver, weighed)
    note_undone_boxes(word, cache, lines)
    return Resolved(word, resolver.conflicts[::-1], resolver.lost[::-1])


# ============================================================================
# What the core obeys
# ============================================================================


def word_of(cache: sf.FaceCache, resolver: Resolver, weighed: Sequence[Line]) -> sf.Word:
    """The decisions as constraints on rows; weighed: by_weight."""
    links, finder = resolver.links, resolver.finder
    word = sf.no_word(cache.faces)
    number: dict[int, int] = {}  # in the order of the people's first faces, whatever came first
    for row in sorted(resolver.bound):
        word.person[row] = number.setdefault(links.find(row), len(number))
    pairs = sorted({(min(pair), max(pair)) for *pair, _ in resolver.parts})
    facts = Facts(finder, word.person)
    for weight, line in enumerate(weighed[::-1], 1):
        facts.take(line, weight)
    for name, rows in facts.of_rows.items():
        getattr(word, name)[list(rows)] = list(rows.values())
    return sf.replace(
        word,
        apart=np.array(pairs, np.intp).reshape(-1, 2),
        carried=[np.array(rows, np.intp) for rows in sorted(resolver.carried)],
        **facts.of_people(),
    )


class Facts:
    """What is said of people, faces and photos beside who is who; the weightiest comes last."""

    def __init__(self, finder: Finder, person: np.ndarray) -> None:
        """person: (n,) int, as in a Word."""
        self.finder, self.person = finder, person
        self.told: dict[str, dict[int, tuple[int, Line]]] = defaultdict(dict)  # kind, person
        self.numbers: dict[int, dict[str, str]] = defaultdict(dict)
        self.taken: dict[int, float] = {}
        self.of_rows: dict[str, dict[int, int]] = {"no_face": {}, "keep": {}, "best": {}}

    def take(self, line: Line, weight: int) -> None:
        """Note what a line says; it overrules what was taken before it."""
        rows = self.finder.rows(line.faces)
        if line.kind in ("name", "ignore", "hide", "born", "number"):
            self.take_of_person(line, weight, rows)
        elif line.kind == "date":
            self.take_date(line)
        elif line.kind == "best":
            self.of_rows["best"].update(dict.fromkeys(rows, 0 if line.off else weight))
        elif line.kind in ("not_face", "keep", "drop"):
            name = "no_face" if line.kind == "not_face" else "keep"
            value = 0 if line.off else -1 if line.kind == "drop" else 1
            self.of_rows[name].update(dict.fromkeys(rows, value))

    def take_of_person(self, line: Line, weight: int, rows: list[int]) -> None:
        votes = Counter(int(self.person[row]) for row in rows if self.person[row] >= 0)
        if not votes:
            return
        person = votes.most_common(1)[0][0]
        if line.kind == "number":
            self.numbers[person][line.text.rpartition("_")[0]] = line.text
        else:
            self.told[line.kind][person] = weight, line

    def take_date(self, line: Line) -> None:
        seconds = seconds_of(line.text)
        for photo in line.faces:
            file = self.finder.file_of_photo.get(photo[:16])
            if file is not None and seconds is not None:
                self.taken[file] = seconds

    def of_people(self) -> dict[str, Any]:
        """The fields of a Word that tell of people and photos. Who was ignored and then named is
        not ignored any more."""
        names = {p: (weight, line.text) for p, (weight, line) in self.told["name"].items()}
        years = {p: line.text for p, (_, line) in self.told["born"].items()}
        ignored = {
            person
            for person, (weight, line) in self.told["ignore"].items()
            if not line.off and (names.get(person, (0, ""))[0] < weight or not names[person][1])
        }
        return {
            "names": {person: name for person, (_, name) in names.items() if name},
            "ignored": frozenset(ignored),
            "hidden": frozenset(p for p, (_, line) in self.told["hide"].items() if not line.off),
            "born": {p: int(text) for p, text in years.items() if re.fullmatch(r"\d{4}", text)},
            "numbers": dict(self.numbers),
            "taken": self.taken,
        }


def seconds_of(text: str) -> float | None:
    """An ISO date of any precision as seconds, local clock read as UTC; the middle of what it
    leaves open. None where it is none."""
    found = re.fullmatch(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?)?)?)?", text)
    if not found:
        return None
    parts = (int(part) if part else None for part in found.groups())
    year, month, day, hour, minute, second = parts
    try:
        moment = datetime(
            year,
            month or 7,
            day or (15 if month else 2),
            12 if hour is None else hour,
            minute or 0,
            second or 0,
        )
    except ValueError:
        return None
    return (moment - datetime(1970, 1, 1)) / timedelta(seconds=1)


def operators_word(cache_path: Path, cache: sf.FaceCache) -> sf.Word:
    """See sf.operators_word."""
    return resolve(cache, Book(cache_path).lines).word


def note_numbers(library: sf.Library, folders: dict[str, np.ndarray]) -> None:
    """Write down which folder each named person has now: he keeps it in later runs.

    folders: {person_NNN or faceset_NNN: cache rows}.
    """
    cache, word = library.cache, library.word
    lines, op = [], new_op()
    taken = {name for known in word.numbers.values() for name in known.values()}
    for name, rows in folders.items():
        person = word.of_group(rows) if len(rows) else -1
        known = word.numbers.get(person, {}).get(name.rpartition("_")[0])
        if person in word.names and known is None and name not in taken:
            own = np.flatnonzero(word.person == person)
            facts = {"text": name, "author": "rule", "faces": anchors(cache, own)}
            lines.append(act("number", op, **facts))
    if lines:
        Book(library.path).append(lines)


# ============================================================================
# Words of a corpus
# ============================================================================


def answers_of(corpus: sf.Corpus) -> dict[tuple[str, str], str]:
    """{(id, id): yes or no} of the face sets of which the decisions say whether they are one."""
    cache = corpus.cache
    word = operators_word(Path(corpus.master.cache), cache)
    sets = {s.id: corpus.rows(s) for s in corpus.active.values() if not s.is_era}
    home = np.full(cache.faces, -1)
    for at, rows in enumerate(sets.values()):
        home[rows] = at
    links = constraints.Links()
    both = np.stack([word.person, home])
    first: dict[int, int] = {}
    for person, at in np.unique(both[:, (both >= 0).all(axis=0)], axis=1).T.tolist():
        links.join(first.setdefault(person, at), at)
    for left, right in np.unique(home[word.apart], axis=0).tolist():
        if min(left, right) >= 0:
            links.part(left, right)
    names, together = list(sets), defaultdict(list)
    for at in range(len(names)):
        together[links.find(at)].append(names[at])
    answers = {}
    for root, own in together.items():
        answers |= dict.fromkeys(itertools.combinations(own, 2), "yes")
        others = [name for rival in links.rivals.get(root, ()) for name in together[rival]]
        answers |= dict.fromkeys(itertools.product(own, others), "no")
    return answers


PAIRS = "pairs.json"  # the page of decisions that are answers to `consolidate`


def take_answers(
    corpus: sf.Corpus, answers: dict[tuple[str, str], str], blank: set[tuple[str, str]]
) -> None:
    """Make the answers to `consolidate` decisions; what the decisions say already is not said
    again. An answer that is blank now is taken back."""
    sets = {s.id: s for s in corpus.active.values() if not s.is_era}
    book = Book(Path(corpus.master.cache))
    home = {face: name for name, s in sets.items() for face in s.known()}
    for line in book.standing():
        ends = [
            Counter(home.get(ref.partition("@")[0], "") for ref in side)
            for side in (line.faces, line.others)
        ]
        if line.tab == PAIRS and all(ends):
            pair = tuple(votes.most_common(1)[0][0] for votes in ends)
            if {pair, pair[::-1]} & blank:
                book.append([act("revoke", new_op(), text=line.op, tab=PAIRS)])
    said = answers_of(corpus)
    for pair, answer in answers.items():
        if answer in (said.get(pair), said.get(pair[::-1])) or not set(pair) <= sets.keys():
            continue
        sides = [corpus.rows(sets[name]) for name in pair]
        if all(map(len, sides)):
            faces, others = (anchors(corpus.cache, rows) for rows in sides)
            kind, counts = {"yes": "same", "no": "different"}[answer], tuple(map(len, sides))
            facts = {"faces": faces, "others": others, "sides": counts, "tab": PAIRS}
            book.append([act(kind, new_op(), **facts)])


def take_names(library: sf.Library, corpus: sf.Corpus) -> None:
    """Take in names the operator has written into NAME.txt since the last run, where decisions
    name the person otherwise: his hand was the later word."""
    lines, op = [], new_op()
    for folder, faceset in corpus.active.items():
        told = corpus.told.get(folder)
        if faceset.is_era or told is None or faceset.name in (told.name, sf.UNNAMED):
            continue
        rows = sf.rows_of_faces(library.cache, sorted(faceset.known()))
        known = library.word.names.get(library.word.of_group(rows) if len(rows) else -1, "")
        if known and known != faceset.name:
            facts = {"text": faceset.name, "faces": anchors(library.cache, rows)}
            lines.append(act("name", op, sides=(len(rows), 0), **facts))
    if lines:
        Book(library.path).append(lines)
        library.word = operators_word(library.path, library.cache)


# ============================================================================
# On the command line
# ============================================================================


def told(cache_path: Path) -> dict[str, Any]:
    """Every act with what became of it, and what contradicts what."""
    cache, book = sf.load_cache(cache_path), Book(cache_path)
    resolved = resolve(cache, book.lines)
    stands = {line.id for line in book.standing()}
    overruled = {conflict.line.id for conflict in resolved.conflicts}
    lost = {line.id for line in resolved.lost}
    acts = [
        {
            "act": line.op,
            "time": line.time[:19],
            "author": line.author,
            "says": sentence(line),
            "state": "taken back" * (line.id not in stands)
            or "overruled" * (line.id in overruled)
            or "not in the cache" * (line.id in lost)
            or "counts",
        }
        for line in book.lines
        if line.kind != "revoke"
    ]
    return {
        "decisions": str(book.path),
        "acts": len({line.op for line in book.lines if line.kind != "revoke"}),
        "named_people": len(set(resolved.word.names.values())),
        "conflicts": [
            {"says": sentence(c.line), "act": c.line.op, "but": "; ".join(map(sentence, c.by))}
            for c in resolved.conflicts
        ],
        "lines": acts,
    }


def sentence(line: Line) -> str:
    """A decision in words."""
    first, second = (
        side or len(some) for side, some in zip(line.sides, (line.faces, line.others), strict=True)
    )
    not_ = "not " * line.off
    what = {
        "name": f"{first} faces are called {line.text!r}",
        "maybe": f"{first} faces may be those of {line.text!r}",
        "same": f"{first} and {second} faces are one person",
        "different": f"{first} and {second} faces are two people",
        "belongs": f"{first} faces belong to a person of {second}",
        "not_belongs": f"{first} faces do not belong to a person of {second}",
        "together": f"{first} faces are a person of their own",
        "not_face": f"{first} are {'faces after all' if line.off else 'no faces'}",
        "ignore": f"{not_}to be seen as strangers: {first} faces",
        "hide": f"{not_}to be hidden: {first} faces",
        "best": f"the picture of a person: {', '.join(line.faces)}",
        "keep": f"{not_}to be kept: {first} faces",
        "drop": f"{not_}to be dropped: {first} faces",
        "born": f"{first} faces are of one born in {line.text}",
        "date": f"{first} photos are of {line.text}",
        "box": f"a face was drawn: {', '.join(line.faces)}",
        "number": f"{first} faces are {line.text}",
        "skip": f"{first} and {second} faces: no answer",
    }
    return what.get(line.kind, line.kind)


def undo(cache_path: Path, op: str | None) -> dict[str, Any]:
    """Take an act back, by default the last one. Raises SortFacesError where there is none."""
    book = Book(cache_path)
    stands = {line.op for line in book.standing()}
    return revoked(book, op or book.last_op(), stands, "take back")


def undo_source(cache_path: Path, source: str) -> dict[str, Any]:
    """Take back all that came from one source: "tags" for all that was read from photos, or a part
    of the author's name, such as "Lightroom". Raises SortFacesError where there is nothing."""
    book = Book(cache_path)
    found = from_source(book, book.standing(), source, "came")
    op = new_op()
    rev = book.append([act("revoke", op, text=one) for one in dict.fromkeys(n.op for n in found)])
    return told_of_source(book, rev, "taken_back", found)


def from_source(book: Book, lines: Sequence[Line], source: str, did: str) -> list[Line]:
    """Those of some lines whose author's name holds a word; rules are no source."""
    given = [line for line in lines if line.authority and line.author != "rule"]
    found = [line for line in given if source.casefold() in line.author.casefold()]
    if not found:
        known = ", ".join(sorted({line.author for line in given})) or "none"
        raise sf.SortFacesError(f"{book.path}: nothing {did} from {source!r}; sources: {known}")
    return found


def told_of_source(book: Book, rev: int, what: str, lines: Sequence[Line]) -> dict[str, Any]:
    faces = sum(len(line.faces) for line in lines)
    about = {"decisions": str(book.path), "lines": rev}
    return {**about, what: len({line.op for line in lines}), "faces": faces}


def redo_source(cache_path: Path, source: str) -> dict[str, Any]:
    """Let all count again that came from one source and was taken back, as `undo_source` names it.

    What was taken back in the same act and came from another source stays so.
    """
    book = Book(cache_path)
    undone = acts_undone(book)
    lines = [line for line in book.lines if line.op in undone]
    found = from_source(book, lines, source, "was taken back")
    ops = {line.op for line in found}
    acts = dict.fromkeys(undone[op] for op in ops)
    others = [op for op, by in undone.items() if by in acts and op not in ops]
    op = new_op()
    rev = book.append([act("revoke", op, text=one) for one in (*acts, *others)])
    return told_of_source(book, rev, "let_count_again", found)


def acts_undone(book: Book) -> dict[str, str]:
    """{act that was taken back: the act that did so}."""
    gone = revocations(book.lines)
    revoking = (line for line in book.lines if line.kind == "revoke" and line.op not in gone)
    return {line.text: line.op for line in revoking}


def redo(cache_path: Path, op: str | None) -> dict[str, Any]:
    """Let an act count again, by default the one taken back last."""
    book = Book(cache_path)
    undone = acts_undone(book)
    aim = undone.get(op) if op else book.last_undone()
    return revoked(book, aim, set(undone.values()), "let count again")


def revoked(book: Book, op: str | None, able: set[str], what: str) -> dict[str, Any]:
    """Append the revocation of an act."""
    if op not in able:
        raise sf.SortFacesError(f"{book.path}: nothing to {what}{f' called {op}' if op else ''}")
    kinds = [line for line in book.lines if line.op == op]
    rev = book.append([act("revoke", new_op(), text=op)])
    aim = kinds if kinds[0].kind != "revoke" else [n for n in book.lines if n.op == kinds[0].text]
    says = [sentence(line) for line in aim]
    return {"decisions": str(book.path), "lines": rev, what.replace(" ", "_"): "; ".join(says)}
