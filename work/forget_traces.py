"""What tells of the forgotten, in words and in looks, and how a folder is rid of it.

Shared by the parts of `forget`. A Target says what goes; Words and Looks find it; a Place is a
folder with the changes that take it out.

Contents
    What goes
    In words
    In looks
    Changes
"""

from __future__ import annotations

import base64
import functools
import html
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec
import numpy as np

import sort_faces as sf

# ============================================================================
# What goes
# ============================================================================


NONE, NOTHING = msgspec.field(default_factory=list), msgspec.field(default_factory=dict)


class Target(sf.OwnFile, tag="forgetting", kw_only=True, dict=True):
    """<cache>.forgetting.json: what goes. It is there as long as that is not done."""

    what: str  # person, photo or face
    asked: str  # how it was named
    outs: list[str]
    faces: list[str]  # ids
    photos: list[str] = NONE  # sha256 of photos that go as a whole
    paths: list[str] = NONE  # of these
    boxes: dict[str, list[sf.Box]] = NOTHING  # sha256 of photos that stay: where the faces are
    names: list[str] = NONE  # the operator's for the person
    sets: dict[str, list[str]] = NOTHING  # output: ids of the person's groups in it
    crops: list[str] = NONE  # sha256 of PNGs
    crop_keys: dict[str, str] = NOTHING  # of notes about crops: "" goes, others get a new key
    shown: list[str] = NONE  # packed (d,) unit: the person's mean direction, or each face
    keep_out: bool = False
    touched: list[str] = NONE  # outputs that hold something of it

    FILE: ClassVar[str] = ".forgetting.json"

    @property
    def is_person(self) -> bool:
        return self.what == "person"

    @functools.cached_property
    def face_set(self) -> frozenset[str]:
        return frozenset(self.faces)

    @functools.cached_property
    def crop_set(self) -> frozenset[str]:
        return frozenset(self.crops)

    @functools.cached_property
    def photo_set(self) -> frozenset[str]:
        return frozenset(self.photos)

    def owns(self, faces: Iterable[str]) -> bool:
        """Whether a group of these faces is the person's: most of them go."""
        faces = list(faces)
        going = sum(face in self.face_set for face in faces)
        return self.is_person and 2 * going > len(faces)

    def takes(self, entry: Any) -> bool:
        """Whether an entry of a manifest is about a face that goes."""
        if isinstance(entry, str):
            return entry in self.face_set
        if not isinstance(entry, dict):
            return False
        return entry.get("face") in self.face_set or entry.get("sha256") in self.crop_set


# ============================================================================
# In words
# ============================================================================

HEX = re.compile(
    r"(?<![0-9a-f])([0-9a-f]{64}|[0-9a-f]{16})(?![0-9a-f])"
    r"(?:(?::|_|-|%3A|&#58;|&#x3a;)(\d+)(?!\d))?"
)
PATHS_AT_ONCE = 500  # in one regular expression


def forms_of(text: str) -> set[str]:
    """How a text stands in our files: plain, in JSON, in HTML, in a link."""
    link = quote(os.fsencode(text))
    plain = {text, text.encode("utf-8", "backslashreplace").decode()}  # in logs and pages
    in_json = {json.dumps(one, ensure_ascii=wide)[1:-1] for one in plain for wide in (True, False)}
    some = plain | in_json | {link, quote(os.fsencode(text), safe="")}
    return some | {html.escape(one) for one in some} | {html_of(one) for one in some}


def html_of(text: str) -> str:
    """A text as Jinja escapes it."""
    for sign, code in (
        ("&", "&amp;"),
        (">", "&gt;"),
        ("<", "&lt;"),
        ("'", "&#39;"),
        ('"', "&#34;"),
    ):
        text = text.replace(sign, code)
    return text


def path_forms(path: str) -> set[str]:
    """How the path of a photo stands in our files; in trees it is a flattened file name."""
    windows = path.replace("/", "\\")
    return forms_of(path) | forms_of(sf.safe_dst_name(path)) | forms_of(windows)


def any_of(forms: Iterable[str], wrap: str = "(?:{})(?!\\w)") -> list[re.Pattern[str]]:
    """Expressions that find any of these texts; those that begin alike stand together."""
    forms = sorted(forms, reverse=True)
    parts = (forms[at : at + PATHS_AT_ONCE] for at in range(0, len(forms), PATHS_AT_ONCE))
    return [re.compile(wrap.format("|".join(map(re.escape, part)))) for part in parts]


class Words:
    """Finds the forgotten in texts: hashes, ids of faces, paths, the person's name."""

    def __init__(self, target: Target, kept_paths: Iterable[str] = ()) -> None:
        """kept_paths: the operator's words; the person's name in one of them tells nothing."""
        self.target = target
        self.hashes = {*target.photos, *target.crops}
        self.hashes |= {sha[:16] for sha in self.hashes}
        self.paths = any_of({form for path in target.paths for form in path_forms(path)})
        whole = "(?<!\\w)(?:{})(?!\\w)"
        names = {form for name in target.names for form in forms_of(name)}
        self.names = any_of(names, whole)
        kept = {path for path in kept_paths if any(name in path for name in target.names)}
        self.harmless = any_of({form for path in kept for form in path_forms(path)} - names)

    def kinds(self, text: str, names: bool = True) -> set[str]:
        """What of the forgotten a text tells."""
        found = set()
        for hit in HEX.finditer(text):
            digits, index = hit.groups()
            if index is not None and f"{digits[:16]}:{index}" in self.target.face_set:
                found.add("face id")
            if digits in self.hashes:
                found.add("sha256")
        if any(path.search(text) for path in self.paths):
            found.add("path")
        if names and self.tells_name(text):
            found.add("name")
        return found

    def tells_name(self, text: str) -> bool:
        if not any(name.search(text) for name in self.names):
            return False
        for path in self.harmless:
            text = path.sub("", text)
        return any(name.search(text) for name in self.names)

    def mention(self, value: Any) -> bool:
        """Whether a text, or any text within a JSON value, tells of the forgotten."""
        if isinstance(value, str):
            return bool(self.kinds(value))
        if isinstance(value, dict):
            return any(self.mention(part) for pair in value.items() for part in pair)
        return isinstance(value, list) and any(map(self.mention, value))

    def without(self, value: Any) -> Any:
        """A JSON value without the texts that tell of the forgotten, and without what holds them.

        Of a list the items go, of an object the fields.
        """
        if isinstance(value, dict):
            kept = {key: part for key, part in value.items() if not self.mention([key])}
            return {
                key: self.without(part)
                for key, part in kept.items()
                if not (isinstance(part, str) and self.mention(part))
            }
        if isinstance(value, list):
            plain = [part for part in value if not self.mention(texts_of(part))]
            return [self.without(part) for part in plain]
        return value


def texts_of(value: Any) -> list[str]:
    """The texts of an item itself, not of what it holds in lists and objects."""
    if isinstance(value, dict):
        return [text for text in value.values() if isinstance(text, str)]
    if isinstance(value, list):
        return [text for text in value if isinstance(text, str)]
    return [value] if isinstance(value, str) else []


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# ============================================================================
# In looks
# ============================================================================


SAME_VECTOR = 1e-4  # cosine distance: of a photo or a face only the very embedding goes, as the
# person may stay in other photos that look the same


@dataclass(frozen=True)
class Looks:
    """Tells the forgotten by embeddings."""

    model: str
    dim: int
    shown: np.ndarray  # (k, d) unit: the person's mean direction, or the forgotten faces
    others: np.ndarray  # (o, d) unit: mean directions of the people who stay
    faces: np.ndarray  # (n, d) unit: the faces that stay
    is_person: bool

    @property
    def limits(self) -> sf.Thresholds:
        return sf.thresholds_for(self.model)

    @property
    def reach(self) -> float:
        """As near as this an embedding goes."""
        return self.limits.outlier if self.is_person else SAME_VECTOR

    @property
    def proof(self) -> float:
        """As near as this it may not be left."""
        return self.limits.same_face if self.is_person else SAME_VECTOR

    def alike(self, vectors: np.ndarray, limit: float) -> np.ndarray:
        """(n,) bool: which of (n, d) embeddings are within a distance of the forgotten.

        Not those that look more like another person, or that are the picture of a face that stays.
        """
        unit = sf.unit_rows(vectors)
        near = sf.nearest(unit, self.shown)[1]
        found = near <= limit
        rows = np.flatnonzero(found)
        other = sf.nearest(unit[rows], self.others)[1]
        face = sf.nearest(unit[rows], self.faces)[1]
        same = self.limits.copy if self.is_person else np.inf
        found[rows] = ~((other < near[rows]) | ((face < near[rows]) & (face <= same)))
        return found

    def packed_alike(self, text: str, limit: float) -> bool:
        """The same of one packed embedding; of anything else False."""
        try:
            vector = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
        except ValueError:
            return False
        return vector.size == self.dim and bool(self.alike(vector[None], limit)[0])

    @functools.cached_property
    def packed(self) -> re.Pattern[str]:
        """Finds packed embeddings in JSON."""
        size = len(base64.b64encode(bytes(4 * self.dim)))
        return re.compile(rf'"([A-Za-z0-9+/]{{{size - 2}}}[A-Za-z0-9+/=]{{2}})"')

    def in_text(self, text: str, limit: float) -> bool:
        """Whether a text holds a packed embedding of the forgotten."""
        found = [base64.b64decode(packed) for packed in self.packed.findall(text)]
        if not found:
            return False
        return bool(
            self.alike(np.frombuffer(b"".join(found), "<f4").reshape(-1, self.dim), limit).any()
        )

    def without(self, value: Any) -> Any:
        """A JSON value without the objects that hold an embedding of the forgotten."""
        if isinstance(value, dict):
            return {key: self.without(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self.without(part) for part in value if not self.is_face(part)]
        return value

    def is_face(self, value: Any) -> bool:
        text = value.get("embedding") if isinstance(value, dict) else None
        return isinstance(text, str) and self.packed_alike(text, self.reach)


# ============================================================================
# Changes
# ============================================================================

FORGET_RUN = "0000-forget"  # sorts before all; nobody undoes it

Write = Callable[[Path], None]


@dataclass(frozen=True)
class Change:
    """What becomes of a file or a folder below a place: it goes, is written anew, or is moved."""

    path: str
    why: str
    write: Write | None = None  # writes what shall lie there
    to: str = ""
    only_copy: bool = False  # nowhere else are there these bytes
    look: bool = False  # a picture of the operator's: to be looked at

    @property
    def action(self) -> str:
        return "keep" if self.to else "rewrite" if self.write else "remove"


@dataclass
class Place:
    """A folder of ours, and the changes that rid it of the forgotten."""

    root: Path
    kind: str
    as_run: bool = False  # all at once, or not at all
    changes: list[Change] = field(default_factory=list)
    tidy: list[str] = field(default_factory=list)  # folders that go when they are empty

    def refused(self) -> list[Change]:
        """The changes that would lead out of the folder: they are not done."""

        def stays(change: Change) -> bool:
            places = (change.path, change.to or change.path)
            return all(stays_inside(self.root, place) for place in places)

        return [change for change in self.changes if not stays(change)]

    def carry_out(self) -> None:
        """Do the changes."""
        refused = self.refused()
        sound = [change for change in self.changes if change not in refused]
        if refused:
            some = f"{len(refused)} such as {refused[0].path}"
            sf.log.warning("%s: files lead out of it and are left alone, %s", self.root, some)
        if not self.as_run:
            # a manifest tells whose the folder is: without it nobody would finish what is left
            last = [change for change in sound if change.path == "manifest.json"]
            for change in sound:
                if change not in last:
                    self.change_file(change)
            for folder in self.tidy:
                sf.remove_empty(self.root / folder)
            for change in last:
                self.change_file(change)
        elif sound:
            with sf.new_run(self.root, FORGET_RUN, keep=False) as run:
                for change in sorted(sound, key=lambda change: not change.to):
                    stage_change(run, change)
                if hasattr(os, "sync"):
                    os.sync()  # the old state goes for good
                run.commit()

    def change_file(self, change: Change) -> None:
        """One change, atomically."""
        path = self.root / change.path
        if change.write is not None:
            change.write(path)
        elif path.is_dir() and not path.is_symlink():
            gone = path.with_name(f"{sf.PART_PREFIX}{path.name}")
            os.rename(path, gone)
            shutil.rmtree(gone, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def stage_change(run: sf.Run, change: Change) -> None:
    """Bring one change into a run."""
    if change.to:
        run.move(change.path, change.to)
    elif change.write is None:
        run.clear(change.path)
    else:
        change.write(run.place(change.path))


def stays_inside(root: Path, path: str) -> bool:
    """Whether a path below a folder leads nowhere else, not through a link either."""
    parts = Path(path).parts
    if not parts or Path(path).is_absolute() or ".." in parts:
        return False
    real = root.resolve()
    parent = (root / path).parent.resolve()
    return parent == real or real in parent.parents


def write_later(value: Any) -> Write:
    """Writes a JSON file."""
    return lambda path: sf.write_json(path, value)


def json_of(path: Path) -> Any:
    """The JSON value of a file, None where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def kind_of(path: Path) -> str:
    """The kind of a JSON file of ours, "" of anything else."""
    try:
        with open(path, "rb") as stream:
            if f'"tool": "{sf.TOOL}"'.encode() not in stream.read(256):
                return ""
    except OSError:
        return ""
    value = json_of(path)
    return str(value.get("kind") or "") if isinstance(value, dict) else ""


def record_of(kind: type[sf.R], value: Any) -> sf.R | None:
    """A JSON value as a record, None where it is none."""
    try:
        return sf.as_record(kind, value)
    except msgspec.ValidationError:
        return None


def cleaned_lines(path: Path, keep: Callable[[bytes], bytes | None]) -> Iterator[Change]:
    """The change of a file of lines to what `keep` makes of each; none where all stay."""

    def write(target: Path) -> None:
        with sf.writing(target) as part, open(path, "rb") as old, open(part, "wb") as new:
            new.writelines(line for line in map(keep, old) if line is not None)
            new.flush()
            times = os.fstat(old.fileno())
            os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))  # the newest scores count

    try:
        with open(path, "rb") as stream:
            changed = sum(keep(line) != line for line in stream)
    except OSError:
        return
    if changed:
        yield Change(path.name, f"{changed} of its lines", write)
