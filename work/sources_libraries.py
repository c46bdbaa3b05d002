"""Names of faces from the databases of other programs: Immich, digiKam, PhotoPrism, Nextcloud.

`decisions import` takes a JSON file, made by a query or by calls of the program's API
(docs/sources.md has them), or digikam4.db itself. Photos are found by their checksum, else by the
longest end of their path that only one photo of the library has; faces as regions of XMP are.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import itertools
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sort_faces as sf

decisions = sf.companion("decisions")
regions = sf.companion("sources_regions")
word = sf.companion("sources_word")
Region = regions.Region

DATABASES = (".db", ".sqlite", ".sqlite3")
CORNERS = ("boundingBoxX1", "boundingBoxY1", "boundingBoxX2", "boundingBoxY2")
SHOWN_MISSES = 20
LIBRARY = "the library"
DIGIKAM_FACES = """
SELECT AlbumRoots.specificPath, Albums.relativePath, Images.name, Tags.name, Faces.value
FROM ImageTagProperties AS Faces
JOIN Images ON Images.id = Faces.imageid
JOIN Albums ON Albums.id = Images.album
JOIN AlbumRoots ON AlbumRoots.id = Albums.albumRoot
JOIN Tags ON Tags.id = Faces.tagid
WHERE Faces.property = 'tagRegion' AND Faces.tagid NOT IN (
  SELECT tagid FROM TagProperties
  WHERE property IN ('unknownPerson', 'unconfirmedPerson', 'ignoredPerson'))
ORDER BY Images.id
"""


@dataclass
class Entry:
    """A photo of another program's library."""

    path: str
    sha1: str = ""  # 40 hex digits, or nothing
    regions: list[Region] = field(default_factory=list)


# --- what they write ------------------------------------------------------------


def entries_of(value: Any) -> list[Entry] | None:
    """The photos of a JSON value; None where it is another kind of table.

    A list of photos with their `faces`, or of faces with a `checksum`; or the answers of Immich's
    API put together: {"assets": [...], "faces": {asset: [...]}, "people": [...]}.
    """
    people: dict[str, str] = {}
    faces: dict[str, list[Any]] = {}
    if isinstance(value, dict):
        told = value.get("people")
        people = names_by_id(told.get("people") if isinstance(told, dict) else told)
        faces = faces_by_asset(value.get("faces"))
        value = value.get("assets", value.get("items"))
        value = value.get("items") if isinstance(value, dict) else value
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    if not any("faces" in row or "checksum" in row or str(row.get("id")) in faces for row in rows):
        return None
    found: dict[tuple[str, str], Entry] = {}
    for row in rows:
        path = next((str(row[key]) for key in ("path", "originalPath") if row.get(key)), "")
        path = path or str(row.get("originalFileName") or "")
        sha1 = hex_of(row.get("checksum"))
        entry = found.setdefault((path, sha1), Entry(path, sha1))
        some = row.get("faces", faces.get(str(row.get("id"))))
        for face in some if isinstance(some, list) else [] if "faces" in row else [row]:
            region = region_of(face, people) if isinstance(face, dict) else None
            entry.regions += [region] if region else []
    return list(found.values())


def names_by_id(people: Any) -> dict[str, str]:
    rows = [row for row in people if isinstance(row, dict)] if isinstance(people, list) else []
    return {str(row.get("id")): str(row.get("name") or "") for row in rows}


def faces_by_asset(faces: Any) -> dict[str, list[Any]]:
    """{asset: faces} of such an object, or of a list in which each face has its asset."""
    if isinstance(faces, dict):
        return {key: some for key, some in faces.items() if isinstance(some, list)}
    found: dict[str, list[Any]] = defaultdict(list)
    for face in faces if isinstance(faces, list) else []:
        if isinstance(face, dict):
            found[str(face.get("assetId"))].append(face)
    return found


def hex_of(checksum: Any) -> str:
    """A SHA-1 in hex digits, also of base64 and of PostgreSQL's `\\x...`; "" for anything else."""
    text = str(checksum or "").strip().removeprefix("\\x").casefold()
    if re.fullmatch(r"[0-9a-f]{40}", text):
        return text
    with contextlib.suppress(binascii.Error, ValueError):
        raw = base64.b64decode(str(checksum or ""), validate=True)
        if len(raw) == 20:
            return raw.hex()
    return ""


def region_of(face: dict[str, Any], people: dict[str, str]) -> Region | None:
    """A face with its name, None where nobody was named or it is one no more."""
    person = face.get("person")
    person = person if isinstance(person, dict) else {}
    name = face.get("name") or person.get("name") or people.get(str(face.get("personId")), "")
    name = regions.clean_name(name)
    if not name or face.get("deletedAt") or face.get("isVisible") is False:
        return None
    size = (number(face.get("imageWidth")), number(face.get("imageHeight")))
    corners = face.get("box") if isinstance(face.get("box"), list) else None
    corners = corners or [face.get(key) for key in CORNERS]
    if all(value is not None for value in corners) and len(corners) == 4 and min(size) > 0:
        box = [number(value) / edge for value, edge in zip(corners, (*size, *size), strict=True)]
        return Region(name, tuple(box), LIBRARY, LIBRARY)
    if all(face.get(key) not in (None, "") for key in "xywh"):
        x, y, w, h = (number(face[key]) for key in "xywh")
        return Region(name, (x, y, x + w, y + h), LIBRARY, LIBRARY)
    return None


def number(value: Any) -> float:
    """A finite number, 0 for anything else."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        value = float(value)
        return value if abs(value) < 1e9 else 0.0
    return 0.0


def digikam_entries(file: Path) -> list[Entry]:
    """The confirmed faces of a digikam4.db, which is opened so that nothing can be written.

    Raises SortFacesError for a database that is none of digiKam's.
    """
    address = f"file:{quote(str(file.absolute()))}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as base:
            rows = base.execute(DIGIKAM_FACES).fetchall()
    except sqlite3.Error as error:
        raise sf.SortFacesError(f"{file}: is no digikam4.db ({sf.one_line(error)})") from None
    found: dict[str, Entry] = {}
    for root, album, photo, name, value in rows:
        path = "/".join(str(p).strip("/") for p in (root, album, photo) if p and p != "/")
        entry = found.setdefault(path, Entry(path))
        told = dict(re.findall(r'(\w+)="(-?[\d.]+)"', str(value)))
        name = regions.clean_name(name)
        if name and {"x", "y", "width", "height"} <= told.keys():
            x, y, w, h = (number(told[key]) for key in ("x", "y", "width", "height"))
            region = Region(name, (x, y, x + w, y + h), "digiKam", "digiKam", pixels=True)
            entry.regions.append(region)
    return list(found.values())


# --- which photo, which face ----------------------------------------------------


class Photos:
    """Finds photos of a library by their SHA-1, which it computes when it is asked for, and by the
    ends of their paths."""

    def __init__(self, cache: sf.FaceCache) -> None:
        self.cache = cache
        self.by_name: dict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
        self.sha1: dict[int, str] = {}
        for file, paths in enumerate(cache.paths):
            for path in paths:
                parts = parts_of(path)
                self.by_name[parts[-1]].append((parts, file))

    def row(self, entry: Entry) -> int:
        """Row of a photo in the cache, -1 where it is not there or cannot be told from others."""
        likely = self.likely(entry.path)
        if not entry.sha1:
            return likely[0] if len(likely) == 1 else -1
        found = next((file for file in likely if self.hashed(file) == entry.sha1), None)
        return self.by_sha1.get(entry.sha1, -1) if found is None else found

    def likely(self, path: str) -> list[int]:
        """The photos whose paths have the longest end in common with a path."""
        parts = parts_of(path)
        ranked: dict[int, set[int]] = defaultdict(set)
        for known, file in self.by_name.get(parts[-1], []):
            pairs = zip(reversed(parts), reversed(known), strict=False)
            same = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
            ranked[sum(1 for _ in same)].add(file)
        return sorted(ranked[max(ranked)]) if ranked else []

    def hashed(self, file: int) -> str:
        """SHA-1 of a photo, "" where it is not there."""
        if file not in self.sha1:
            self.sha1[file] = next(filter(None, map(sha1_of, self.cache.paths[file])), "")
        return self.sha1[file]

    @property
    def by_sha1(self) -> dict[str, int]:
        """{SHA-1: row} of all photos: each is read once."""
        rest = [file for file in range(self.cache.files) if file not in self.sha1]
        for file in sf.progress(rest, len(rest), "sha1", "photo"):
            self.hashed(file)
        return {sha: file for file, sha in self.sha1.items() if sha}


def parts_of(path: str) -> tuple[str, ...]:
    """The parts of a path of any system, to be compared."""
    plain = sf.companion("sources_takeout").plain(path.replace("\\", "/"))
    return tuple(part for part in plain.split("/") if part) or ("",)


def sha1_of(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            digest = hashlib.sha1(usedforsecurity=False)
            while block := stream.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except OSError:
        return ""


def take_in(
    cache_path: Path, file: Path, entries: Iterable[Entry], dry_run: bool
) -> dict[str, Any]:
    """Make the decisions say of these photos what the file says; returns the counts."""
    cache, book = word.load_boxes(cache_path), decisions.Book(cache_path)
    finder, photos = decisions.Finder(cache), Photos(cache)
    outcome, misses = word.Outcome(), []
    for entry in entries:
        row = photos.row(entry) if entry.regions else -1
        if row < 0:
            misses += [f"no such photo: {entry.path or entry.sha1}"] * bool(entry.regions)
            continue
        sha = str(cache.file_sha256[row])
        rows = finder.rows_of_photo.get(sha[:16], [])
        photo = word.Photo(row, sha, cache.paths[row], [], 0, rows, groups=[entry.regions])
        here = next((path for path in photo.paths if Path(path).is_file()), "")
        photo.orientations = [1, *([regions.orientation_of(here)] if here else [])]
        before = outcome.missed
        word.take_photo(photo, cache, outcome, False)
        misses += [f"no such face: {entry.path}"] * (outcome.missed - before)
    source = f"import {file.name}"[:200]
    for said in outcome.said.values():
        for at, one in said.items():
            said[at] = word.Said(one.name, source, one.kind)
    counts = word.bring_up_to_date(book, finder, outcome, source, dry_run)
    words = [one for said in outcome.said.values() for one in said.values()]
    return {
        "file": str(file),
        "people": len({one.name.casefold() for one in words}),
        "faces": len(words),
        "new": counts["added"],
        "withdrawn": counts["withdrawn"],
        "conflicts": outcome.conflicts,
        "not_found": len(misses),
        "misses": misses[:SHOWN_MISSES],
    }
