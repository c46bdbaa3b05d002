"""How names from other programs become the operator's word: regions meet the faces that were found.

What a photo says is read when it is new or anything about it has changed, and compared with what
the decisions file has of it: a name that came is added, one that went or changed is withdrawn.
docs/sources.md tells what counts and what is only told.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

decisions = sf.companion("decisions")
regions = sf.companion("sources_regions")
sources = sf.companion("sources")
xmp = sf.companion("consumers_xmp")
Region = regions.Region

READER = 1  # raise it when the reading changes: every photo is then read once more
ENDING = ".tags.npy"
AGREES_IOU = 0.4  # boxes that overlap so are one face
AGREES_SIZE = 2.0  # or, with one's centre in the other, sizes (edges) within this factor
SAME_RATIO = 0.01  # of width to height: beyond it the picture was cropped after it was tagged
THREADS = 4  # reading waits for the disk
SHOWN = 20  # notes in the result; the log file has all


# --- regions and faces ----------------------------------------------------------


def agreement(box: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(k,) overlap of a region (4,) with faces (k, 4), pixels; 0 where they are not one face.

    Picasa and Windows draw larger boxes than a detector, so the overlap alone does not decide.
    """
    overlap = sf.box_iou(box, faces)
    middle = (faces[:, :2] + faces[:, 2:]) / 2
    inside = ((middle >= box[:2]) & (middle <= box[2:])).all(axis=1)
    area = float(sf.box_area(box[None])[0])
    ratio = np.sqrt(np.maximum(area, 1e-6) / np.maximum(sf.box_area(faces), 1e-6))
    alike = (ratio <= AGREES_SIZE) & (ratio >= 1 / AGREES_SIZE)
    return np.where((overlap >= AGREES_IOU) | (inside & alike), np.maximum(overlap, 1e-3), 0.0)


def paired(boxes: np.ndarray, faces: np.ndarray) -> dict[int, int]:
    """{region: face}, each once, the best agreement first; boxes (r, 4), faces (k, 4), pixels."""
    if not len(boxes) or not len(faces):
        return {}
    table = np.array([agreement(box, faces) for box in boxes])
    pairs: dict[int, int] = {}
    for at in np.argsort(-table, axis=None, kind="stable").tolist():
        region, face = divmod(at, len(faces))
        if table[region, face] <= 0:
            break
        if region not in pairs and face not in pairs.values():
            pairs[region] = face
    return pairs


def upright_boxes(some: Sequence[Region], orientation: int, wh: np.ndarray) -> np.ndarray:
    """Regions as boxes (r, 4) in pixels of the upright picture of size `wh`, if they were drawn in
    the picture as it is stored under an orientation, 1 to 8."""
    stored = wh[::-1] if orientation in (5, 6, 7, 8) else wh
    boxes = []
    for region in some:
        size = region.size if region.pixels and region.size[0] else stored
        share = np.divide(region.box, [*size, *size]) if region.pixels else np.array(region.box)
        boxes.append(xmp.turned(tuple(share.tolist()), orientation))
    return np.array(boxes, float).reshape(-1, 4) * np.tile(wh, 2)


def matched(
    some: Sequence[Region], faces: np.ndarray, wh: np.ndarray, orientations: Iterable[int]
) -> dict[int, int]:
    """{region: face} in the frame in which most named regions meet a face, of as good the first.

    The stated dimensions do not tell in which frame a writer drew (docs/sources.md); the faces
    that were found do.
    """
    best, most = {}, (-1, -1.0)
    for orientation in dict.fromkeys(orientations):
        boxes = upright_boxes(some, orientation, wh)
        pairs = paired(boxes, faces)
        named = sum(bool(some[region].name) for region in pairs)
        overlap = sum(float(sf.box_iou(boxes[r], faces[[f]])[0]) for r, f in pairs.items())
        if (named, round(overlap, 2)) > most:
            best, most = pairs, (named, round(overlap, 2))
    return best


def was_cropped(region: Region, wh: np.ndarray) -> bool:
    """Whether the picture had another shape when the region was drawn, turned or not."""
    if not min(region.size) or not wh.all():
        return False
    told, now = region.size[0] / region.size[1], float(wh[0]) / float(wh[1])
    return min(abs(told / now - 1), abs(told * now - 1)) > SAME_RATIO


# --- one photo ------------------------------------------------------------------


@dataclass
class Photo:
    """What is known of a photo, and what other programs say of it."""

    file: int  # row in the cache
    sha: str
    paths: list[str]
    facts: list[tuple[int, int]]  # bytes and time of change of each path, as `embed` saw it
    mark: int
    rows: list[int]  # of its faces
    groups: list[list[Region]] = field(default_factory=list)  # of one file each
    people: dict[str, str] = field(default_factory=dict)
    orientations: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_read: bool = False  # one of its paths is there, with the bytes of then
    is_whole: bool = False  # all of them are


def read(photo: Photo) -> Photo:
    """A photo with what stands in it and beside each of its copies."""
    live = [
        path
        for path, facts in zip(photo.paths, photo.facts, strict=True)
        if facts_of(path) == facts
    ]
    photo.is_read, photo.is_whole = bool(live), len(live) == len(photo.paths)
    if not live:
        return photo
    found = [sources.beside(path) for path in live]
    within = sources.within(live[0])
    for told in (*found, within):
        by_place: dict[str, list[Region]] = defaultdict(list)
        for region in told.regions:
            by_place[region.place].append(region)
        photo.groups += map(told_once, by_place.values())
        photo.people = {**told.people, **photo.people}
        photo.notes += told.notes
    if photo.groups:
        turns = [one.orientation for one in found if one.orientation]
        own = regions.orientation_of(live[0])
        photo.orientations = [own, *turns, 1]
    return photo


def facts_of(path: str) -> tuple[int, int] | None:
    """(bytes, time of change) of a file, None where there is none."""
    try:
        return sf.facts_of(os.stat(path))
    except OSError:
        return None


def told_once(some: Sequence[Region]) -> list[Region]:
    """Regions without those that say in another vocabulary what one before them says."""
    kept: list[Region] = []
    for region in some:
        alike = [one.box for one in kept if one.name == region.name and one.pixels == region.pixels]
        overlap = sf.box_iou(np.array(region.box), np.array(alike).reshape(-1, 4))
        if not (overlap >= AGREES_IOU).any():
            kept.append(region)
    return kept


@dataclass(frozen=True)
class Said:
    """A name of a face."""

    name: str
    author: str  # as in the decisions file: who wrote it, and where
    kind: str = "name"  # or "maybe"


@dataclass
class Outcome:
    """What became of the words of all photos that were read."""

    said: dict[int, dict[int, Said]] = field(default_factory=dict)  # photo: {row: word}
    missed: int = 0  # named regions that meet no face
    partly: set[str] = field(default_factory=set)  # photos a copy of which is not there now
    candidates: int = 0  # photos with more names than can be given
    conflicts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def author_of(writer: str, place: str) -> str:
    return f"{decisions.OF_PHOTOS}{writer}, {place}"[:200]


def take_photo(photo: Photo, cache: sf.FaceCache, outcome: Outcome, guarded: bool) -> None:
    """Find the faces that a photo's regions and names are of.

    guarded: somebody was forgotten in this photo: names without a box may be his.
    """
    faces, wh = cache.bbox[photo.rows].astype(float), cache.file_wh[photo.file].astype(float)
    people, placed = dict(photo.people), set()
    words: dict[int, dict[str, Region]] = defaultdict(dict)
    for group in photo.groups:
        some = [region for region in group if not was_cropped(region, wh)]
        people |= {one.name: one.writer for one in group if one.name and one not in some}
        pairs = matched(some, faces, wh, photo.orientations)
        placed |= {region.name.casefold() for region in some if region.name}
        for at, face in pairs.items():
            if some[at].name:
                words[photo.rows[face]].setdefault(some[at].name.casefold(), some[at])
    missed = placed - {name for told in words.values() for name in told}
    outcome.missed += 0 if guarded else len(missed)
    said = outcome.said[photo.file] = {}
    for row, told in words.items():
        region = the_one(told)
        if region is None:
            one, other = [f"{r.writer} {r.name!r}" for r in told.values()][:2]
            outcome.conflicts.append(f"{photo.paths[0]}: one face is {one} and {other}")
        else:
            said[row] = Said(region.name, author_of(region.writer, region.place))
    unplaced = {name: writer for name, writer in people.items() if name.casefold() not in placed}
    if unplaced and not guarded:
        take_names(photo, unplaced, said, outcome)
    outcome.notes += photo.notes


def the_one(told: dict[str, Region]) -> Region | None:
    """The region whose name counts, None where two say different things.

    A sidecar is newer than what stands in the photo.
    """
    if len(told) > 1:
        told = {name: one for name, one in told.items() if one.place != sources.IN_PHOTO}
        if any(one.place != sources.SIDECAR for one in told.values()):
            return None
    return next(iter(told.values())) if len(told) == 1 else None


def take_names(
    photo: Photo, people: dict[str, str], said: dict[int, Said], outcome: Outcome
) -> None:
    """Names without a box: one name for the one face may be its; of more nothing is said."""
    if len(photo.rows) == len(people) == 1 and not said:
        ((name, writer),) = people.items()
        place = ".json" if writer == sources.TAKEOUT else "keyword"
        said[photo.rows[0]] = Said(name, author_of(writer, place), "maybe")
    elif photo.rows:
        outcome.candidates += 1


# --- which photos ---------------------------------------------------------------


def marked(cache: sf.FaceCache, finder: Any) -> Iterator[Photo]:
    """Every photo, but for frames of films, with a mark of all that its reading depends on: its
    copies, what lies beside them, how its faces were found and how many there are."""
    passes = cache.file_passes.tolist()
    own = [
        [fact] for fact in zip(cache.file_size.tolist(), cache.file_mtime_ns.tolist(), strict=True)
    ]
    more = zip(cache.alias_size.tolist(), cache.alias_mtime_ns.tolist(), strict=True)
    for file, fact in zip(cache.alias_file.tolist(), more, strict=True):
        own[file].append(fact)
    for file, sha in enumerate(cache.file_sha256.tolist()):
        rows, paths = finder.rows_of_photo.get(sha[:16], []), cache.paths[file]
        if sf.film_of(paths[0]):  # of a frame nobody tells anything
            continue
        beside = [one for path in paths for one in facts_beside(path)]
        told = (READER, sha, paths, own[file], beside, passes[file], len(rows))
        text = repr(told).encode("utf-8", "surrogateescape")
        seen = hashlib.blake2b(text, digest_size=8)
        mark = int.from_bytes(seen.digest(), "little")
        yield Photo(file, sha, paths, own[file], mark, rows)


def facts_beside(path: str) -> Iterator[tuple[str, int, int]]:
    """(name, bytes, time of change) of the files beside a photo that say something of it."""
    for file in sources.files_beside(path):
        with contextlib.suppress(OSError):
            facts = file.stat()
            yield str(file), facts.st_size, facts.st_mtime_ns
        if file.name.casefold().endswith(".ini"):
            contacts = sources.contacts_file(str(file.parent))
            with contextlib.suppress(OSError):
                yield str(contacts), contacts.stat().st_size if contacts else 0, 0


def marks_path(cache_path: Path) -> Path:
    """Where the marks of the photos are kept that have been read."""
    return cache_path.with_name(cache_path.name + ENDING)


def read_marks(path: Path) -> np.ndarray:
    """(m,) uint64; none where there is no such file, or a damaged one."""
    with contextlib.suppress(*sf.npz_errors()):
        marks = np.load(path, allow_pickle=False)
        if marks.dtype == np.uint64 and marks.ndim == 1:
            return marks
    return np.zeros(0, np.uint64)


def write_marks(path: Path, marks: Iterable[int]) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array(sorted(set(marks)), np.uint64))
    sf.write_bytes(path, stream.getvalue())


# --- the decisions file ---------------------------------------------------------


def noted(book: Any, source: str = decisions.OF_PHOTOS) -> list[Any]:
    """The standing lines that were read from photos, or that have the author `source`."""
    lines = book.standing()
    if source == decisions.OF_PHOTOS:
        return [line for line in lines if line.author.startswith(source)]
    return [line for line in lines if line.author == source]


def bring_up_to_date(
    book: Any, finder: Any, outcome: Outcome, source: str = decisions.OF_PHOTOS, dry: bool = False
) -> Counter[str]:
    """Make the decisions of a source say of the photos that were read what those say now.

    An act is one name of one author. Of an act that says something no photo says any more the rest
    is said again. dry: only count. Returns counts: faces added and withdrawn.
    """
    cache, counts = finder.cache, Counter()
    wanted = {row: word for words in outcome.said.values() for row, word in words.items()}
    photos = {str(cache.file_sha256[file])[:16] for file in outcome.said}
    fresh: dict[Said, dict[str, None]] = defaultdict(dict)
    stale, known = [], set()
    for line in noted(book, source):
        word = Said(line.text, line.author, line.kind)
        asked = {ref: finder.row(ref) for ref in line.faces if ref[:16] in photos}
        gone = {
            ref
            for ref, row in asked.items()
            if wanted.get(row) != word and (row in wanted or ref[:16] not in outcome.partly)
        }
        for ref in asked.keys() - gone:
            known.add(asked[ref])
        if gone:
            stale.append(line.op)
            fresh[word].update(dict.fromkeys(ref for ref in line.faces if ref not in gone))
            counts["withdrawn"] += len(gone)
    for row in wanted.keys() - known:
        word = wanted[row]
        fresh[word].update(dict.fromkeys(decisions.refs(cache, [row])))
        counts["added"] += 1
    lines = withdrawals(stale)
    for word, faces in fresh.items():
        if faces:
            facts = {"text": word.name, "author": word.author, "faces": list(faces)}
            lines.append(decisions.act(word.kind, decisions.new_op(), **facts))
    if lines and not dry:
        book.append(lines)
    return counts


def load_boxes(path: Path) -> sf.FaceCache:
    """A cache that knows of its faces no more than where they are; all where a journal is left."""
    if sf.journal_path(path).exists() or not path.is_file():
        return sf.load_cache(path)
    photos = [name for name, about in sf.COLUMNS.items() if about.rows != "n"]
    return sf.read_npz(path, [*photos, "face_index", "bbox"])


def withdrawals(ops: Iterable[str]) -> list[Any]:
    """Lines that take these acts back."""
    return [decisions.act("revoke", decisions.new_op(), text=op, author="rule") for op in ops]


def take_in(
    cache_path: Path, tags: str = "read", cache: sf.FaceCache | None = None
) -> dict[str, int]:
    """Read what new and changed photos say of people and bring the decisions up to date.

    tags: "read", or "ignore", which withdraws what was read before. cache: as it is, perhaps of its
    photos alone; without one it is read. The caller holds it.
    Returns counts that are not 0; one line of the log sums them up.
    """
    book, marks = decisions.Book(cache_path), marks_path(cache_path)
    if tags == "ignore":
        return left_out(book, marks)
    cache = cache or load_boxes(cache_path)
    known = set(read_marks(marks).tolist())
    sources.forget_listings()
    photos = list(marked(cache, decisions.Finder(cache)))
    new = [photo for photo in photos if photo.mark not in known]
    if new and not cache.bbox.any():  # of its photos alone
        cache = load_boxes(cache_path)
    stone = sf.Doorkeeper(cache_path, cache.meta).stone
    outcome = Outcome()
    results = sf.ordered_map(read, new, THREADS)
    for photo in sf.progress(results, len(new), "tags", "photo"):
        if photo.is_read:
            guarded = bool(stone.salt) and stone.mark(photo.sha) in stone.boxes
            take_photo(photo, cache, outcome, guarded)
            outcome.partly |= set() if photo.is_whole else {photo.sha[:16]}
    counts = bring_up_to_date(book, decisions.Finder(cache), outcome)
    missing = {photo.mark for photo in new if not photo.is_read}
    if new or len(known) != len(photos):
        kept = known if missing else set()
        write_marks(marks, kept | {photo.mark for photo in photos} - missing)
    return told(outcome, counts)


def left_out(book: Any, marks: Path) -> dict[str, int]:
    """Withdraw every name that was read from photos; they are read again when asked for."""
    lines = noted(book)
    ops = dict.fromkeys(line.op for line in lines)
    if ops:
        book.append(withdrawals(ops))
        count = sum(len(line.faces) for line in lines)
        sf.log.info("names read from the photos count no more, of %d faces: --tags ignore", count)
    marks.unlink(missing_ok=True)
    return {"tags_withdrawn": sum(len(line.faces) for line in lines)} if lines else {}


def told(outcome: Outcome, counts: Counter[str]) -> dict[str, int]:
    """Sum up what was read, in one line; what could not be read or used is a line each."""
    words = [word for words in outcome.said.values() for word in words.values()]
    for line in outcome.notes[:SHOWN]:
        sf.log.warning("%s", line)
    for line in outcome.notes[SHOWN:]:
        sf.note(line)
    for line in outcome.conflicts[:SHOWN]:
        sf.log.info("%s; neither counts", line)
    found = {
        "tagged_faces": sum(word.kind == "name" for word in words),
        "tagged_perhaps": sum(word.kind == "maybe" for word in words),
        "tags_without_face": outcome.missed,
        "tags_in_conflict": len(outcome.conflicts),
        "tags_of_several": outcome.candidates,
        "tags_withdrawn": counts["withdrawn"],
        "tags_unreadable": len(outcome.notes),
    }
    found = {key: count for key, count in found.items() if count}
    writers = Counter(word.author[len(decisions.OF_PHOTOS) :].rpartition(",")[0] for word in words)
    if words and (counts["added"] or counts["withdrawn"]):
        each = ", ".join(f"{count} {writer}" for writer, count in writers.most_common())
        rest = [
            f"{found[key]} {text}"
            for key, text in (
                ("tagged_perhaps", "may be right"),
                ("tags_without_face", "match no face"),
                ("tags_in_conflict", "say two names"),
                ("tags_of_several", "photos name several people"),
                ("tags_withdrawn", "are withdrawn"),
            )
            if key in found
        ]
        end = "; ".join([each, *rest, "--tags ignore leaves them out"])
        faces = f"{len(words)} face{'s' * (len(words) != 1)}"
        sf.log.info("names of %s read from the photos: %s", faces, end)
    return found
