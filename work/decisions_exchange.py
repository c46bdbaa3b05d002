"""`decisions import` and `export`: JSON for another machine, CSV for and from other programs.

A row of a table is a face: `path` or `sha256` of the photo, the box as x1 y1 x2 y2 in pixels of the
upright photo or as x y w h in shares of it (corner and size, as XMP regions and Takeout tell it),
and `name`. Without a box the only face of the photo is meant.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import sort_faces as sf

decisions = sf.companion("decisions")

COLUMNS = (
    "act",
    "time",
    "author",
    "kind",
    "text",
    "off",
    "side",
    "face",
    "path",
    "x1",
    "y1",
    "x2",
    "y2",
)
PIXELS, SHARES = ("x1", "y1", "x2", "y2"), ("x", "y", "w", "h")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute
SHOWN_MISSES = 20


class Exported(sf.OwnFile, tag="decisions", kw_only=True):
    """What `decisions export NAME.json` writes: the lines as they stand in the file."""

    lines: list[decisions.Line]
    photos: dict[str, str] = msgspec.field(default_factory=dict)  # first 16 digits: path


def write_out(cache_path: Path, file: Path) -> dict[str, Any]:
    """Write the decisions: all as JSON, those that count as CSV. Returns the counts."""
    cache, book = sf.load_cache(cache_path), decisions.Book(cache_path)
    photos = dict(
        zip((sha[:16] for sha in cache.file_sha256), cache.file_path.tolist(), strict=True)
    )
    if file.suffix.lower() == ".json":
        used = {ref[:16] for line in book.lines for ref in (*line.faces, *line.others)}
        paths = {sha: path for sha, path in photos.items() if sha in used}
        sf.write_file(file, Exported(lines=book.lines, photos=paths))
        return {"file": str(file), "lines": len(book.lines)}
    if file.suffix.lower() != ".csv":
        raise sf.SortFacesError(f"{file}: name a file that ends in .json or .csv")
    lines = book.standing()
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, restval="")
    writer.writeheader()
    rows = [row for line in lines for row in rows_of(line, photos)]
    writer.writerows({key: defused(value) for key, value in row.items()} for row in rows)
    sf.write_bytes(file, table.getvalue().encode("utf-8", "surrogateescape"))
    return {"file": str(file), "lines": len(lines), "rows": len(rows)}


def rows_of(line: decisions.Line, photos: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A row for each face a decision speaks of."""
    head = {key: getattr(line, key) for key in ("time", "author", "kind", "text")}
    for side, some in (("faces", line.faces), ("others", line.others)):
        for ref in some:
            face, _, box = ref.partition("@")
            place = dict(zip(PIXELS, box.split(","), strict=False)) if box else {}
            about = {"side": side, "face": face, "path": photos.get(face[:16], "")}
            yield {"act": line.op, **head, "off": "yes" * line.off, **about, **place}


def defused(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    text = str(value)
    is_number = text.lstrip("-").isdigit()
    return f"'{text}" if text.startswith(FORMULA) and not is_number else value


def take_in(cache_path: Path, file: Path, dry_run: bool) -> dict[str, Any]:
    """Make decisions of a file's rows. Raises SortFacesError for a file that cannot be read."""
    cache, book = sf.load_cache(cache_path), decisions.Book(cache_path)
    if file.suffix.lower() == ".json":
        exported = sf.read_if_sound(file, Exported)
        if exported is not None:
            return merged(book, file, exported.lines, dry_run)
    libraries = sf.companion("sources_libraries")
    is_database = file.suffix.lower() in libraries.DATABASES
    value = None if is_database else value_of_file(file)
    entries = libraries.digikam_entries(file) if is_database else libraries.entries_of(value)
    if entries is not None:
        return libraries.take_in(cache_path, file, entries, dry_run)
    lines, misses = lines_of(cache, file, as_rows(file, value))
    fresh = [line for line in lines if line.op not in {known.op for known in book.lines}]
    if fresh and not dry_run:
        book.append(fresh)
    return {
        "file": str(file),
        "people": len(lines),
        "faces": sum(len(line.faces) for line in lines),
        "new": len(fresh),
        "not_found": len(misses),
        "misses": misses[:SHOWN_MISSES],
    }


def merged(
    book: decisions.Book, file: Path, lines: list[decisions.Line], dry_run: bool
) -> dict[str, Any]:
    """Take in the lines of another machine that are not there, act by act."""
    there = {line.op for line in book.lines}
    acts: dict[str, list[decisions.Line]] = defaultdict(list)
    for line in lines:
        acts[line.op].append(line)
    new = [some for op, some in acts.items() if op not in there]
    for some in [] if dry_run else new:
        book.append(some)
    return {"file": str(file), "lines": len(lines), "new": sum(map(len, new)), "not_found": 0}


def value_of_file(file: Path) -> Any:
    """What is in a JSON file, or the rows of a CSV. Raises SortFacesError where it is neither."""
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
        if file.suffix.lower() == ".json":
            return json.loads(text)
        return list(csv.DictReader(io.StringIO(text)))
    except OSError as error:
        raise sf.SortFacesError(f"{file}: {error.strerror}; name a CSV or JSON file") from None
    except (ValueError, RecursionError, csv.Error) as error:
        raise sf.SortFacesError(f"{file}: cannot be read ({sf.one_line(error)})") from None


def as_rows(file: Path, rows: Any) -> list[dict[str, Any]]:
    """The rows of a table. Raises SortFacesError for anything else."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise sf.SortFacesError(f"{file}: is no table; a list of objects, or CSV with a first line")
    heads = set().union(*rows)
    if rows and not (heads & {"name", "text"} and heads & {"path", "sha256", "face"}):
        raise sf.SortFacesError(
            f"{file}: has no columns name and path (or sha256), parted by commas; "
            "docs/decisions.md says which there are"
        )
    return rows


def lines_of(
    cache: sf.FaceCache, file: Path, rows: list[dict[str, Any]]
) -> tuple[list[decisions.Line], list[str]]:
    """A line for each name with all its faces, and the rows for which no face was found."""
    finder, photos = decisions.Finder(cache), Photos(cache)
    found: dict[str, list[int]] = defaultdict(list)
    misses = []
    for number, row in enumerate(rows, 1):
        name = decisions.plain_name(name_of(row))
        place = photos.row(row)
        at = -1 if place < 0 else face_at(cache, finder, place, row)
        if not name:
            continue
        if at < 0:
            why = "no such photo" if place < 0 else "no such face"
            misses.append(f"row {number}: {why}: {row.get('path') or row.get('sha256') or ''}")
        else:
            found[name].append(at)
    lines = []
    for name, at in found.items():
        refs = decisions.refs(cache, sorted(set(at)))
        op = decisions.mark_of("import", name, refs)
        author = f"import {file.name}"[:200]
        lines.append(decisions.act("name", op, text=name, author=author, faces=refs))
    return lines, misses


def name_of(row: dict[str, Any]) -> str:
    """The name a row gives; of our own tables only decisions of that kind give one."""
    if row.get("kind", "name") != "name":
        return ""
    return str(row.get("name") or row.get("text") or "").removeprefix("'")


class Photos:
    """Finds the photo of a row: by hash, by path, or by an end of it that only one photo has."""

    def __init__(self, cache: sf.FaceCache) -> None:
        self.by_sha = {sha: row for row, sha in enumerate(cache.file_sha256.tolist())}
        self.by_short = {sha[:16]: row for sha, row in self.by_sha.items()}
        self.by_path = {path: row for row, paths in enumerate(cache.paths) for path in paths}
        self.ends = sf.companion("sources_libraries").Photos(cache)

    def row(self, row: dict[str, Any]) -> int:
        """File row of the cache, -1 where there is none."""
        sha, path = str(row.get("sha256") or row.get("face") or ""), str(row.get("path") or "")
        for known in (self.by_sha.get(sha), self.by_short.get(sha[:16]), self.by_path.get(path)):
            if known is not None:
                return known
        alike = self.ends.likely(path)
        return alike[0] if len(alike) == 1 else -1


def face_at(cache: sf.FaceCache, finder: decisions.Finder, file: int, row: dict[str, Any]) -> int:
    """Cache row of the face a row means, -1 where there is none."""
    photo = str(cache.file_sha256[file])[:16]
    own = finder.rows_of_photo.get(photo, [])
    try:
        if all(row.get(key) not in (None, "") for key in PIXELS):
            box = np.array([float(row[key]) for key in PIXELS])
        elif all(row.get(key) not in (None, "") for key in SHARES):
            x, y, w, h = (float(row[key]) for key in SHARES)
            box = np.array([x, y, x + w, y + h]) * np.tile(cache.file_wh[file], 2)
        else:
            return own[0] if len(own) == 1 else -1
    except (TypeError, ValueError):
        return -1
    return finder.at(photo, box)
