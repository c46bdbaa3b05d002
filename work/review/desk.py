"""The desk of the review server: the library, what was decided of it, and every act on it.

A companion of sort_faces.py; nothing of HTTP is in here. It holds the model of people.py to the
decisions file, whoever writes there. Its methods may be called by several threads; one at a time
works on the model.

Contents
    What is known at the start
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import threading
import time
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

import sort_faces as sf

guard = sf.companion("review/guard")
pictures = sf.companion("review/thumbs")
jobs = sf.companion("review/jobs")
people = sf.companion("review/people")
acts = sf.companion("review/acts")
boxes = sf.companion("review/boxes")
questions = sf.companion("review/questions")
decisions = sf.companion("decisions")
Refused = guard.Refused

STATUS = {"unknown": 404, "unusable": 422}  # of what the model refuses; else 409
PATIENCE = 0.05  # seconds that a page waits for how things stand now
REST = 0.5  # seconds since the last request until the queues are brought up to date
LOOK_EVERY = 1.0  # seconds between two looks at the decisions file, which others may write
MOST_ANSWERS = 1000  # kept, to be given again where a page has not heard them
ZIP_NAMES_AT = 26  # bytes from the header of a file in a ZIP to the lengths of its two names
FIRST_SCREEN = 60  # covers made before anybody asks: the largest people, as the grid begins

T = TypeVar("T")


def answering(method: Callable[..., T]) -> Callable[..., T]:
    """A method of the desk that works on the model, alone, as the file says now; what the model
    refuses becomes a refusal of the request."""

    @functools.wraps(method)
    def alone(desk: Desk, *args: Any, **more: Any) -> T:
        with desk.lock:
            desk.asked_at = time.monotonic()
            try:
                desk.follow()
                return method(desk, *args, **more)
            except people.Refused as error:
                status = STATUS.get(error.error, 409)
                raise Refused(status, error.error, **error.facts) from None
            except (sf.SortFacesError, OSError) as error:
                sf.log.error("review: %s", sf.one_line(error))
                raise Refused(503, "not_saved") from None

    return alone


class Desk:
    """What one server works on. trees: folder by kind of output; events: tells the pages."""

    def __init__(self, cache: Path, trees: dict[str, Path], events: Any) -> None:
        self.path, self.trees, self.events = cache, trees, events
        self.lock = threading.RLock()
        self.thumbs: Any = None
        self.asked_at = time.monotonic()
        self.started = sf.now_text()
        self.open()
        self.jobs, self.boxes = jobs.Jobs(cache, trees, events), boxes.Boxes(self)
        self.answers: OrderedDict[str, dict[str, Any]] = OrderedDict()  # to the last acts
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True, name="decisions")
        self.watcher.start()

    def open(self) -> None:
        """Load everything from the disk; again after the outputs, or the cache, have changed.

        What is asked meanwhile is answered from what was loaded before.
        """
        seen = facts_of_files(self.path)
        cache = with_mapped_embeddings(sf.load_cache(self.path), self.path)
        library, before = sf.Library(cache, self.path), self.thumbs
        thumbs = before if before and before.marks == pictures.face_marks(cache) else None
        thumbs = thumbs or pictures.Thumbs(library)
        book = decisions.Book(self.path)
        facts = facts_of(cache, self.trees)
        base = Base(cache, self.path, self.trees.get("raw")).labels(book.lines)
        model = people.Model(cache, base, book.lines, facts, thumbs.marks)
        queues = questions.Queues(model, self.started)
        with self.lock:
            self.seen, self.cache, self.thumbs = seen, cache, thumbs
            self.book, self.model, self.queues = book, model, queues
            self.table: tuple[int, Any] = (-1, None)  # the people as JSON, at a rev
            self.known = self.state_now()
            self.people_now()
        if before is not None and before is not thumbs:
            before.close()
        columns = people.people_columns(model)
        order = np.argsort(-np.array(columns["faces"], dtype=int), kind="stable")
        for at in order[:FIRST_SCREEN][::-1].tolist():
            thumbs.ask((thumbs.row_of[columns["cover"][at]], pictures.SIZES[1]))

    def close(self) -> None:
        """End what runs beside; what was decided is on the disk already."""
        self.ended.set()
        self.watcher.join()
        self.boxes.close()
        self.jobs.close()
        self.thumbs.close()

    @property
    def rev(self) -> int:
        return self.book.rev

    def follow(self) -> None:
        """Take in what another process has written, and tell the pages."""
        change = acts.follow(self.model, self.book)
        if change is not None:
            self.queues.update(change)
            self.tell("", change.changed)

    def watch(self) -> None:
        """Follow the file while nobody asks for anything, and bring the queues up to date."""
        while not self.ended.wait(LOOK_EVERY):
            try:
                self.look()
            except (sf.SortFacesError, OSError, Refused):  # a drive that is away: the next look
                continue
            except Exception as bug:  # one look must not end the thread that looks
                sf.log.error("review: what changed is not followed: %s", type(bug).__name__)

    def look(self) -> None:
        """Take in what others have written; then work on the queues while nobody asks."""
        with self.lock:
            self.follow()
        self.follow_cache()
        while self.at_rest() and self.bring_up():
            pass

    def follow_cache(self) -> None:
        """Load the cache anew where another command has changed it and is done."""
        now = facts_of_files(self.path)
        if now != self.seen and not holder_of(self.path) and not self.boxes.at_work:
            self.open()
            self.tell("", [])

    def at_rest(self) -> bool:
        """Whether nobody has asked for a moment, so that a little work keeps nobody waiting."""
        rest = time.monotonic() - self.asked_at > REST and not self.thumbs.busy
        return rest and not self.ended.is_set()

    def bring_up(self) -> bool:
        """A little of what the queues have to compute; whether there is more."""
        with self.lock:
            return self.queues.idle()

    def tell(self, tab: str, changed: list[str]) -> None:
        self.events.tell("rev", rev=self.rev, tab=tab, changed=changed)

    # -- looking --------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """How things stand; where the model is at work just now, how they stood a moment ago."""
        if self.lock.acquire(timeout=PATIENCE):
            try:
                self.known = self.state_now()
            finally:
                self.lock.release()
        return {**self.known, "apply": self.jobs.status(), "holder": holder_of(self.path)}

    @answering
    def state_now(self) -> dict[str, Any]:
        """What the model and its queues say."""
        resolved = self.model.view.resolved
        return {
            "rev": self.rev,
            "server": sf.VERSION,
            "cache": self.path.name,
            "counts": people.counts(self.model),
            **self.queues.state(),
            "outputs": sorted(self.trees),
            "conflicts": len(resolved.conflicts),
            "lost": len(resolved.lost),
            "lang": "",
        }

    def people(self) -> Any:
        """Everybody, as JSON that is made once a state."""
        rev, table = self.table
        return table if rev == self.rev and not self.is_behind() else self.people_now()

    def is_behind(self) -> bool:
        """Whether another process has written to the decisions file since it was read."""
        try:
            return os.stat(self.book.path).st_size != self.book.at
        except FileNotFoundError:
            return self.rev > 0

    @answering
    def people_now(self) -> Any:
        value = {"rev": self.rev, "columns": people.people_columns(self.model)}
        self.table = self.rev, msgspec.Raw(msgspec.json.encode(value))
        return self.table[1]

    @answering
    def faces(self, pid: str, first: int, most: int) -> dict[str, Any]:
        return {"rev": self.rev, **people.person_faces(self.model, pid, first, most)}

    @answering
    def halves(self, pid: str) -> dict[str, Any]:
        return {"rev": self.rev, **people.halves_of(self.model, pid)}

    @answering
    def photo(self, photo: str) -> dict[str, Any]:
        return {"rev": self.rev, **people.photo_facts(self.model, photo)}

    @answering
    def questions(self, kind: str, most: int, after: list[str]) -> dict[str, Any]:
        found = questions.page(self.queues, kind, most, after)
        return {**found, "rev": self.rev}

    @answering
    def history(self, before: int | None, most: int) -> dict[str, Any]:
        return acts.history(self.model, self.book, before, most)

    # -- deciding -------------------------------------------------------------

    @answering
    def decide(self, body: dict[str, Any]) -> dict[str, Any]:
        """Make an act; it is on the disk when this returns."""
        ask = self.queues.question_of
        act = functools.partial(acts.decide, self.model, self.book, body, ask)
        return self.once(body.get("op"), body.get("tab"), act)

    @answering
    def undo(self, op: str, tab: str, which: str | None) -> dict[str, Any]:
        act = functools.partial(acts.undo, self.model, self.book, op, tab, which)
        return self.once(op, tab, act)

    @answering
    def redo(self, op: str, tab: str, which: str | None) -> dict[str, Any]:
        act = functools.partial(acts.redo, self.model, self.book, op, tab, which)
        return self.once(op, tab, act)

    def once(self, op: Any, tab: Any, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The answer to an act, the same again where it is repeated; other pages are told of it."""
        if isinstance(op, str) and op in self.answers:
            return self.answers[op]
        result = act()
        result["dropped_questions"] = self.queues.update(result.pop("change"))
        self.answers[op] = result
        while len(self.answers) > MOST_ANSWERS:
            self.answers.popitem(last=False)
        self.tell(tab, result["changed"])
        return result

    @answering
    def draw(self, asked: Any) -> dict[str, Any]:
        """Let a box become a face. Raises Refused where there is no such photo."""
        if asked.photo not in self.thumbs.row_of_photo:
            raise Refused(404, "unknown")
        return {"job": self.boxes.start(asked)}

    @answering
    def take_box(self, asked: Any, box: Any, face: str) -> None:
        """Note the decisions of a box that has become a face."""
        lines = boxes.lines_of(self.model, asked, box, face)
        self.once(asked.op, asked.tab, lambda: acts.write(self.model, self.book, lines, True))

    # -- the outputs ----------------------------------------------------------

    @answering
    def preview(self) -> dict[str, Any]:
        return {"preview": self.jobs.preview(self.rev, self.with_names)}

    def with_names(self, result: dict[str, Any]) -> dict[str, Any]:
        """A preview's sets with the names of who is in them."""
        with self.lock:
            for one in result["sets"]:
                row = self.cache.row_of_face.get(one.pop("face"), -1)
                label = int(self.model.view.labels[row]) if row >= 0 else -1
                one["name"] = self.model.told(label).name if label >= 0 else ""
        return result

    def previewed(self, name: str) -> dict[str, Any]:
        return self.jobs.previewed(name)

    @answering
    def apply(self, name: str, rev: int) -> dict[str, Any]:
        """Bring the outputs up to date; refused where something was decided since the preview."""
        if rev != self.rev:
            raise Refused(409, "moved", rev=self.rev)
        return {"apply": self.jobs.apply(name, rev, self.applied)}

    def applied(self) -> None:
        """The outputs have changed: groups and what is exported are read anew."""
        self.open()
        self.tell("", [])

    def cancel(self, name: str) -> dict[str, Any]:
        self.jobs.cancel(name)
        return {"apply": name}


# ============================================================================
# What is known at the start
# ============================================================================


def holder_of(cache: Path) -> str:
    """Which process writes the cache now, "" none."""
    path = sf.beside(cache, ".lock.holder")
    with contextlib.suppress(OSError):
        return path.read_text("utf-8", "replace").strip()[:200]
    return ""


def facts_of_files(cache: Path) -> list[tuple[int, int] | None]:
    """Size and time of the files a cache lies in, None of one that is not there."""
    found = []
    for path in (cache, sf.journal_path(cache)):
        try:
            found.append(sf.facts_of(path.stat()))
        except OSError:
            found.append(None)
    return found


def with_mapped_embeddings(cache: sf.FaceCache, path: Path) -> sf.FaceCache:
    """The cache, its embeddings left in the file where they lie there as they are: the page works
    with those of length 1, and both in memory are 400 MB of 100,000 faces."""
    cache.unit, cache.length  # noqa: B018 - computed now, and kept
    if os.name == "nt" or sf.journal_path(path).exists():  # Windows replaces no mapped file
        return cache
    with (
        contextlib.suppress(OSError, KeyError, ValueError, zipfile.BadZipFile),
        open(path, "rb") as stream,
    ):
        entry = zipfile.ZipFile(stream).getinfo("embedding.npy")
        stream.seek(entry.header_offset + ZIP_NAMES_AT)
        stream.seek(sum(struct.unpack("<HH", stream.read(4))), os.SEEK_CUR)
        version = np.lib.format.read_magic(stream)
        read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")
        shape, _, kind = read_header(stream)
        stored = entry.compress_type == zipfile.ZIP_STORED
        if stored and shape == cache.embedding.shape and kind == cache.embedding.dtype:
            found = np.memmap(path, kind, "r", stream.tell(), shape)
            mapped = replace(cache, embedding=found)
            mapped.__dict__.update(unit=cache.unit, length=cache.length)
            return mapped
    return cache


def facts_of(cache: sf.FaceCache, trees: dict[str, Path]) -> Any:
    """What the outputs say of each face; those that `run` wrote lie beside each other."""
    homes = Counter(folder.parent for folder in trees.values())
    return people.facts_of(cache, max(homes, key=homes.__getitem__) if homes else None)


SECONDS = len("2026-01-01T00:00:00")  # how far two times are compared


class Base:
    """The people as they are without any decision: what every decision stands on, so that undoing
    them all leads back to it. <cache>.review.npz keeps them, as an output that was made while
    decisions stood has them in it."""

    def __init__(self, cache: sf.FaceCache, path: Path, raw: Path | None) -> None:
        """raw: folder of the raw output, where there is one."""
        self.cache, self.kept, self.params = cache, sf.beside(path, ".review.npz"), ""
        self.raw: sf.RawManifest | None = None
        if raw is not None:
            try:
                self.raw = sf.load_manifest(raw / sf.RawManifest.FILE, sf.RawManifest, cache)
            except sf.SortFacesError as error:
                sf.log.warning("%s; the page groups the faces by itself", error)
        how = sf.for_model(sf.with_linkage(sf.ClusterParams(), "threshold"), cache.meta.model)
        self.how = how
        self.params = repr(self.raw.params if self.raw else asdict(how)) + cache.meta.recognizer

    def labels(self, lines: Sequence[Any]) -> np.ndarray:
        """(n,) int; lines: of the decisions file."""
        known = self.before() if self.raw is None or self.was_decided(lines) else {}
        if len(known) == self.cache.faces:
            return np.array([known[face] for face in self.cache.face_ids])
        now = self.now()
        labels = with_known(self.cache.face_ids, now, known)
        with sf.writing(self.kept) as part, open(part, "wb") as stream:
            faces = np.array(self.cache.face_ids)
            np.savez(stream, params=np.array(self.params), faces=faces, labels=labels)
        return labels

    def was_decided(self, lines: Sequence[Any]) -> bool:
        """Whether decisions stood when the raw output was made, as far as seconds can tell."""
        made = self.raw.created[:SECONDS]
        before = sum(line.time[:SECONDS] < made for line in lines)
        until = sum(line.time[:SECONDS] <= made for line in lines)
        return any(
            line.author != "rule"
            for count in range(before, until + 1)
            for line in decisions.standing(lines[:count])
        )

    def before(self) -> dict[str, int]:
        """{face: label} as kept, where it was grouped as it is now."""
        with contextlib.suppress(OSError, ValueError, KeyError), np.load(self.kept) as file:
            if str(file["params"]) == self.params:
                found = dict(zip(file["faces"].tolist(), file["labels"].tolist(), strict=True))
                return {face: found[face] for face in self.cache.face_ids if face in found}
        return {}

    def now(self) -> np.ndarray:
        """(n,) int as the raw output has them, else as cluster groups them."""
        count = self.cache.faces
        if self.raw is None:
            how = self.how.grouping(self.cache.meta.model)
            return sf.group_faces(self.cache, np.arange(count), how).labels
        labels = np.arange(count) + len(self.raw.persons)
        for number, group in enumerate(self.raw.persons):
            labels[sf.rows_of_faces(self.cache, group.faces)] = number
        return labels


def with_known(faces: list[str], now: np.ndarray, known: dict[str, int]) -> np.ndarray:
    """(n,) int: known labels where there are some; a new face goes with those it is with now.

    now: (n,) int, labels of all faces.
    """
    first = max(known.values(), default=-1) + 1
    labels = now + first
    for rows in sf.groups_of(now):
        old = Counter(known[faces[row]] for row in rows.tolist() if faces[row] in known)
        if old:
            labels[rows] = max(old, key=old.__getitem__)
    for row, face in enumerate(faces):
        labels[row] = known.get(face, labels[row])
    return labels
