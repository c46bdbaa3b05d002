"""Which date every photo of a cache gets: what its file says, its paths, what lies beside, --dates.

What the file says stands in the cache; all else is looked up on every `embed`, so that a new name,
a changed sidecar or another FILE counts without a photo being decoded again.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

capture_time, sources = sf.companion("capture_time"), sf.companion("sources")
names = sf.companion("dates_in_names")
Statement = capture_time.Statement

BEFORE = ("", "before")  # kinds of photos that only an older version has dated
BY_CLOCK = ("exif_original", "exif_digitized", "xmp_original", "xmp_digitized")
FEW = 20  # lines of a FILE that are named in full


@dataclass(frozen=True)
class Told:
    """What a FILE of --dates says."""

    file: Path
    lines: list[tuple[list[str], str]]  # (places its path can mean, its date)

    def by_place(self) -> dict[str, str]:
        """{path as compared: its date}; of several the last."""
        return {place: text for places, text in self.lines for place in places}

    def missing(self, known: set[str]) -> list[str]:
        """The paths that are none of these."""
        return [places[0] for places, _ in self.lines if not known.intersection(places)]


def place_of(path: str | Path) -> str:
    """A path as it is compared."""
    return os.path.normcase(os.path.normpath(path))


def read_told(file: Path | None, roots: Sequence[Path]) -> Told | None:
    """A FILE of --dates: rows of path and date. A line that tells none costs that line.

    A path that is not absolute is looked for below the FILE's folder and below each root. Raises
    SortFacesError where the FILE cannot be read.
    """
    if file is None:
        return None
    try:
        data = file.read_bytes()
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))  # Excel's "Unicode text"
        text = data.decode(*(("utf-16", "replace") if wide else ("utf-8-sig", "surrogateescape")))
    except OSError as error:
        raise sf.SortFacesError(
            f"{file}: {error.strerror or error}; name a CSV of path, date"
        ) from None
    first = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, ""), delimiter=max(",;\t", key=first.count))
    bases = [file.absolute().parent, *(r if r.is_dir() else r.parent for r in roots)]
    lines = []
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells) or (
                rows.line_num == 1 and not any(c.isdigit() for c in "".join(cells[1:2]))
            ):
                continue  # blank, or names of columns
            if len(cells) < 2 or not cells[0]:
                sf.log.warning("%s: line %d: no path and date; passed over", file, rows.line_num)
            elif not capture_time.capture_time([Statement("dates", cells[1])]).is_known:
                sf.log.warning(
                    "%s: line %d: %r is no date that can be; passed over",
                    file,
                    rows.line_num,
                    cells[1],
                )
            else:
                path = path_told(cells[0])
                places = [path] if path.is_absolute() else [base / path for base in bases]
                lines.append(([place_of(place) for place in places], cells[1]))
    except csv.Error as error:
        raise sf.SortFacesError(
            f"{file}: line {rows.line_num}: {error}; name a CSV of path, date"
        ) from None
    return Told(file, lines)


def path_told(text: str) -> Path:
    """A path as a table of another system may have it; ~ is the home it stands for."""
    path = Path(text.replace("\\", "/") if os.sep == "/" and "/" not in text else text)
    with contextlib.suppress(RuntimeError):  # ~ of nobody
        return path.expanduser()
    return path


def changes(cache: sf.FaceCache, roots: Iterable[str], told: Told | None) -> dict[str, np.ndarray]:
    """The columns of dates where they differ from what the cache has; nothing where none does.

    roots: what is scanned, beside what ever was. told: what --dates says; without it what it said
    before stays.
    """
    picks = Picks(cache, {*roots, *cache.meta.roots}, told)
    found = picks.all()
    columns = {
        "file_taken": np.array([one.seconds for one in found], np.float64),
        "file_taken_kind": np.array([one.kind for one in found], str),
        "file_taken_precision": np.array([one.precision for one in found], str),
    }
    same = (
        np.array_equal(value, getattr(cache, name), equal_nan=name == "file_taken")
        for name, value in columns.items()
    )
    return {} if all(same) else columns


class Picks:
    """The date of each photo of a cache."""

    def __init__(self, cache: sf.FaceCache, roots: Iterable[str], told: Told | None) -> None:
        self.cache, self.told = cache, told
        self.by_place = told.by_place() if told else {}
        self.today = date.today()
        self.folders: dict[str, str] = {}
        self.orders = orders_in(sf.file_of(path) for paths in cache.paths for path in paths)
        self.labelled = labelled_in(sf.file_of(path) for paths in cache.paths for path in paths)
        self.roots = sorted(roots, key=len, reverse=True)
        self.kind, self.seconds = cache.file_taken_kind.tolist(), cache.file_taken.tolist()
        self.precision = cache.file_taken_precision.tolist()
        self.inside = [text.decode() for text in cache.file_dates.tolist()]
        self.reset: dict[str, set[date]] = {}
        sources.forget_listings()  # of a process that has looked before
        places = (place_of(sf.file_of(p)) for ps in cache.paths for p in ps)
        if told and (missing := told.missing({*places})):
            sf.log.warning("%s: %d of its paths are no photos known here: %s", told.file,
                           len(missing), ", ".join(missing[:FEW]))  # fmt: skip

    def all(self) -> list[Any]:
        """capture_time.Taken of every photo, once the clocks that were not set are known."""
        found = [self.of(row) for row in range(self.cache.files)]
        days = []  # (row, camera, day) of photos dated by clocks that can be reset
        for row, one in enumerate(found):
            if one.kind in BY_CLOCK and one.precision in ("day", "minute", "second"):
                _, camera = capture_time.restored(self.inside[row])
                if camera.can_lose_its_clock:
                    days.append((row, camera.name, day_of(one.seconds)))
        self.reset = capture_time.reset_days((camera, day) for _, camera, day in days)
        for row, camera, day in days:
            if day in self.reset.get(camera, ()):
                found[row] = self.of(row)
        return found

    def of(self, row: int) -> Any:
        """capture_time.Taken of a photo."""
        statements, camera = capture_time.restored(self.inside[row])
        paths = self.cache.paths[row]
        said = [*statements, *self.of_operator(row, paths), *self.of_paths(paths)]
        if (
            not self.inside[row]
            and self.kind[row] in BEFORE
            and self.seconds[row] == self.seconds[row]
        ):
            old = capture_time.Taken(self.seconds[row], "before", "second")
            said.append(Statement("before", old.text()))
        taken = capture_time.capture_time(said, camera, self.today, self.reset.get(camera.name, ()))
        if taken.kind == "before" or (not self.inside[row] and not taken.is_known):
            return capture_time.Taken(taken.seconds, "", "")  # not known how, and may be read again
        return taken

    def of_operator(self, row: int, paths: Iterable[str]) -> list[Any]:
        """What --dates says of a photo, now or before."""
        if self.told is None:
            kept = capture_time.Taken(self.seconds[row], self.kind[row], self.precision[row])
            return [Statement("dates", kept.text())] if self.kind[row] == "dates" else []
        places = (place_of(sf.file_of(path)) for path in paths)
        found = [self.by_place.get(place) for place in places] if self.by_place else []
        return [Statement("dates", text) for text in found if text]

    def of_paths(self, paths: Iterable[str]) -> list[Any]:
        """What the paths of a photo say, and what lies beside them."""
        said = []
        for path in map(sf.file_of, paths):  # of a frame what is said of its film
            folder, name = os.path.split(path)
            name = names.with_year(name) if folder in self.labelled else name
            name = names.settled(name, self.orders.get(folder, {}))
            said += [Statement("name", name), Statement("folder", self.folder_of(folder))]
            said += sources.beside(path).statements
        return said

    def folder_of(self, folder: str) -> str:
        """A folder as far as its names are the library's: from the root's own name on."""
        known = self.folders.get(folder)
        if known is None:
            inside = os.path.join(folder, "")
            root = next((r for r in self.roots if inside.startswith(os.path.join(r, ""))), folder)
            above = os.path.dirname(root) if root else ""
            known = os.path.relpath(folder, above) if root else folder
            parts, place = [], above
            for part in known.split(os.sep):
                parts.append(names.settled(part, self.orders.get(os.path.join(place, ""), {})))
                place = os.path.join(place, part)
            self.folders[folder] = known = "/".join(parts)
        return known


def orders_in(files: Iterable[str]) -> dict[str, dict[Any, bool]]:
    """{folder: which of day and month comes first in its names}, of files' names and of folders'.

    A folder stands there with a separator at its end for the names of the folders in it. Of the
    photos that are known here; folders whose names leave it open are left out.
    """
    titles: dict[str, list[str]] = defaultdict(list)
    folders: set[str] = set()
    for file in files:
        folder, name = os.path.split(file)
        if names.has_year_last(name):
            titles[folder].append(name)
        while folder not in folders:
            folders.add(folder)
            folder, name = os.path.split(folder)
            if names.has_year_last(name):
                titles[os.path.join(folder, "")].append(name)
    told = ((folder, names.orders_of(found)) for folder, found in titles.items())
    return {folder: orders for folder, orders in told if orders}


def labelled_in(files: Iterable[str]) -> set[str]:
    """Folders in which names such as USA_2003 tell years, by the photos that are known here."""
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for file in files:
        folder, name = os.path.split(file)
        if (label := names.labelled(name)) is not None:
            found[folder].add(label)
    return {folder for folder, labels in found.items() if names.are_years(labels)}


def day_of(seconds: float) -> date:
    """The day of a time as in FaceCache.file_taken."""
    return (sf.EPOCH + timedelta(seconds=seconds)).date()


def read_again(run: Any) -> int:
    """Read what the files of photos say that an older version dated; how many were read.

    run: an EmbedRun. Files that changed are left to it. What is read is in its journal at once.
    """
    cache = run.cache
    unread = np.flatnonzero((cache.file_dates == b"") & (cache.file_status != sf.STATUS_UNREADABLE))
    items = [(str(cache.file_sha256[row]), cache.paths[row]) for row in unread.tolist()]
    found = sf.ordered_map(lambda item: (item[0], read_one(run, item[1])), items, run.crew.threads)
    count = 0
    for sha, dates in sf.progress(found, len(items), "redate", "photo"):
        if dates is not None:
            run.journal.append("dates", sha256=sha, dates=dates)
            count += 1
    return count


def read_one(run: Any, paths: Sequence[str]) -> str | None:
    """What a photo's file says, from the first path that still holds the bytes that were hashed."""
    for path in paths:
        try:
            told = os.stat(path)
            if [told.st_size, told.st_mtime_ns] == list(run.paths[path][1:]):
                return sf.companion("dates_in_photos").dates_in_file(path)
        except (OSError, KeyError, sf.PhotoError):
            continue
    return None
