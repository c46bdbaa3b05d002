"""What other programs wrote about a photo in files beside it: XMP, Takeout's JSON, Picasa's lists.

`beside(path)` gives all of it for one photo. A folder is listed once, however many photos it holds,
and listed anew when it changed. docs/sources.md says what is read and from whom.
"""

from __future__ import annotations

import functools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sort_faces as sf

regions = sf.companion("sources_regions")
takeout = sf.companion("sources_takeout")
Region = regions.Region
plain = takeout.plain

FOLDERS_KEPT = 512  # listings; an album asks those of all years
SIDECAR, CONTACTS = ".xmp", "contacts.xml"
PICASA_CONTACTS = (CONTACTS, "Picasa2/contacts/contacts.xml", "contacts/contacts.xml")
LONGEST_INI = 1 << 24  # bytes
RAW_ENDINGS = frozenset(
    re.findall(
        r"\w+",
        "3fr arw cr2 cr3 crw dcr dng erf fff iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl"
        " sr2 srf srw x3f",
    )
)
IN_PHOTO, TAKEOUT = "in the photo", "Google Takeout"


@dataclass
class Beside:
    """What files beside a photo say of it."""

    regions: list[Region] = field(default_factory=list)  # the file that counts more comes first
    people: dict[str, str] = field(default_factory=dict)  # names without a box: who wrote them
    dates: list[tuple[str, str]] = field(default_factory=list)  # (where, text)
    orientation: int = 0  # 1 to 8, of the first sidecar that tells one; 0: none does
    notes: list[str] = field(default_factory=list)  # what could not be read, a line each

    @property
    def statements(self) -> list[Any]:
        """The dates as capture_time.Statement (where, text)."""
        statement = sf.companion("capture_time").Statement
        return [statement(where, text) for where, text in self.dates]

    def take(self, told: Any) -> None:
        """Add what a sidecar says, told: regions.Told."""
        self.regions += told.regions
        for name, writer in told.people.items():
            self.people.setdefault(name, writer)
        self.dates += told.dates
        self.orientation = self.orientation or told.orientation
        self.notes += told.notes


class Folder:
    """A folder's files as they are looked for: by names in small, composed letters."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.names: dict[str, str] = {}  # as compared: as written
        try:
            with os.scandir(path) as entries:
                self.names = {plain(entry.name): entry.name for entry in entries}
        except OSError:
            self.names = {}

    @functools.cached_property
    def sidecars(self) -> Any:
        """Its JSON files by the photos' names."""
        return takeout.Sidecars(name for key, name in self.names.items() if key.endswith(".json"))

    @functools.cached_property
    def has_xmp(self) -> bool:
        return any(key.endswith(SIDECAR) for key in self.names)

    @functools.cached_property
    def raw_stems(self) -> set[str]:
        """Stems of the camera's raw files."""
        pairs = (name.rpartition(".") for name in self.names)
        return {stem for stem, _, ending in pairs if ending in RAW_ENDINGS}

    @functools.cached_property
    def titles(self) -> dict[str, list[str]]:
        """{title as a file name: JSON files} of those whose own name leads to no photo."""
        photos = (name for name in self.names if not name.endswith((".json", SIDECAR)))
        claimed = {found[0] for found in map(self.sidecars.of, photos) if found}
        titles: dict[str, list[str]] = defaultdict(list)
        for name in self.sidecars.known.values():
            if name not in claimed and (value := self.value(name)):
                titles[takeout.title_as_name(value.get("title"))].append(name)
        return titles

    def value(self, name: str) -> dict[str, Any] | None:
        """What one of its JSON files says, None where it says nothing of a photo."""
        try:
            return takeout.told(self.path / name)
        except (OSError, ValueError):
            return None

    def titled(self, photo: str) -> str | None:
        """The one JSON whose title is a photo's name."""
        some = self.titles.get(plain(photo), []) if len(self.sidecars) else []
        return some[0] if len(some) == 1 else None

    @functools.cached_property
    def relatives(self) -> list[Folder]:
        """The same folder in other parts of an export."""
        return [folder_at(str(path)) for path in takeout.other_parts(self.path)]

    @functools.cached_property
    def years(self) -> list[Folder]:
        """The folders of years beside it, with those of the other parts."""
        found = []
        for here in (self, *self.relatives):
            found += [folder_at(str(path)) for path in takeout.year_folders(here.path)]
        return [one for one in found if one.path != self.path and len(one.sidecars)]

    @functools.cached_property
    def ini(self) -> Path | None:
        """Picasa's list of the faces in this folder."""
        found = (self.names.get(name) for name in regions.INI_NAMES)
        return next((self.path / name for name in found if name), None)

    @functools.cached_property
    def picasa(self) -> tuple[dict[str, str], dict[str, str], str]:
        """({photo: its faces}, {id: name}, why it cannot be read) of that list."""
        try:
            data = self.ini.read_bytes()[:LONGEST_INI]
            ini = regions.read_ini(data)
        except (OSError, ValueError) as error:
            return {}, {}, f"{self.ini}: cannot be read ({sf.one_line(error)})"
        faces = {
            plain(section): ini.get(section, "faces", fallback=None) or ""
            for section in ini.sections()
        }
        contacts, why = contacts_in(contacts_file(str(self.path)))
        return faces, {**contacts, **regions.contacts_of(ini)}, why


@functools.lru_cache(maxsize=FOLDERS_KEPT)
def listed(path: str, changed: int) -> Folder:
    """A folder as it was at a time, nanoseconds since 1970."""
    return Folder(path)


def folder_at(path: str) -> Folder:
    """A folder as it is now."""
    try:
        return listed(path, os.stat(path).st_mtime_ns)
    except OSError:
        return listed(path, 0)


@functools.lru_cache(maxsize=FOLDERS_KEPT)
def contacts_file(folder: str) -> Path | None:
    """Picasa's contacts.xml: in a folder, in the nearest one above, or where Picasa keeps it."""
    tops = [Path(folder), *Path(folder).parents]
    if os.environ.get("LOCALAPPDATA"):
        tops.append(Path(os.environ["LOCALAPPDATA"]) / "Google")
    places = (top / name for top in tops for name in PICASA_CONTACTS)
    return next((place for place in places if place.is_file()), None)


@functools.lru_cache(maxsize=FOLDERS_KEPT)
def contacts_in(file: Path | None) -> tuple[dict[str, str], str]:
    """({id: name}, why not) of such a file."""
    try:
        return (regions.contacts_in(file.read_bytes()[:LONGEST_INI]) if file else {}), ""
    except (OSError, ValueError) as error:
        return {}, f"{file}: cannot be read ({sf.one_line(error)})"


def forget_listings() -> None:
    """Look at every folder anew; what was rewritten in place does not change a folder."""
    listed.cache_clear()
    contacts_file.cache_clear()
    contacts_in.cache_clear()


# --- which files ----------------------------------------------------------------


def xmp_sidecars(folder: Folder, photo: str) -> list[str]:
    """The XMP files of a photo, that of its whole name first.

    One named after the stem is the raw file's where there is one; the file may say otherwise.
    """
    if not folder.has_xmp:
        return []
    key = plain(photo)
    stem, _, ending = key.rpartition(".")
    found = [key + SIDECAR]
    if stem and (ending in RAW_ENDINGS or stem not in folder.raw_stems):
        found.append(stem + SIDECAR)
    return [folder.names[name] for name in found if name in folder.names]


def takeout_sidecar(folder: Folder, photo: str) -> Path | None:
    """The JSON of a photo: in its folder, in that folder of another part of the export, in the one
    folder of a year that has it."""
    for here in (folder, *folder.relatives):
        if len(here.sidecars) and (name := sidecar_in(here, photo)):
            return here.path / name
    found = {}
    for year in folder.years:
        name = sidecar_in(year, photo)
        if name:
            found[year.path / name] = None
    return next(iter(found)) if len(found) == 1 else None


def sidecar_in(folder: Folder, photo: str) -> str | None:
    """The JSON of a photo in a folder. A name that was cut is believed unless a title knows it
    better."""
    found = folder.sidecars.of(photo)
    if found is None:
        return folder.titled(photo)
    name, whole = found
    if whole or takeout.title_as_name((folder.value(name) or {}).get("title")) == plain(photo):
        return name
    return folder.titled(photo) or name


def files_beside(path: str) -> Iterator[Path]:
    """The files that say something of a photo, whatever they say."""
    folder = folder_at(os.path.dirname(path))
    name = os.path.basename(path)
    for sidecar in xmp_sidecars(folder, name):
        yield folder.path / sidecar
    if folder.ini is not None:
        yield folder.ini
    found = takeout_sidecar(folder, name)
    if found is not None:
        yield found


# --- what they say --------------------------------------------------------------


def beside(path: str) -> Beside:
    """Everything that other programs wrote about one photo in files beside it.

    path: of the photo, which is not read and need not be one. A file that cannot be read is a line
    in `notes`. What this tool wrote itself is passed over.
    """
    found = Beside()
    photo = plain(os.path.basename(path))
    for file in files_beside(path):
        read: Callable[[Path, str, Beside], None] = read_xmp
        if plain(file.name) in regions.INI_NAMES:
            read = read_picasa
        elif plain(file.name).endswith(".json"):
            read = read_takeout
        try:
            read(file, photo, found)
        except (OSError, ValueError) as error:
            found.notes.append(f"{file}: cannot be read ({sf.one_line(error)})")
    return found


def read_xmp(file: Path, photo: str, found: Beside) -> None:
    """Take in a sidecar, unless it is for a photo of another ending."""
    packet = regions.read_sidecar(file)
    if not regions.tells_of(packet, (*regions.MARKS, *regions.DATE_MARKS, b"Orientation")):
        return
    values = regions.parse(packet)
    told = regions.told_by(values, SIDECAR)
    stem, _, ending = photo.rpartition(".")
    for_another = plain(file.name) == stem + SIDECAR and told.extension not in ("", ending)
    if values["toolkit"] != sf.TOOL and not for_another:
        told.notes = [f"{file}: {note}" for note in told.notes]
        found.take(told)


def read_picasa(file: Path, photo: str, found: Beside) -> None:
    """Take in the faces of a photo that Picasa's list of the folder knows."""
    faces, contacts, why = folder_at(str(file.parent)).picasa
    found.regions += regions.picasa_regions(faces.get(photo, ""), contacts, file.name)
    found.notes += [why] if why else []


def read_takeout(file: Path, photo: str, found: Beside) -> None:
    """Take in the date and the names that a JSON of Takeout has."""
    value = takeout.told(file)
    if value is None:
        return
    for name in filter(None, map(regions.clean_name, takeout.names_in(value))):
        found.people.setdefault(name, TAKEOUT)
    date = takeout.date_in(value)
    found.dates += [("takeout", date)] if date else []


def within(path: str) -> Any:
    """What the XMP in a photo says, as regions.Told; nothing where there is none.

    A packet that cannot be read is a line in its `notes`.
    """
    packets = [p for p in regions.packets_of(path) if regions.tells_of(p, regions.MARKS)]
    values: dict[str, Any] = {}
    notes = []
    for packet in packets:
        try:
            values = {**regions.parse(packet), **values}
        except ValueError as error:
            notes.append(f"{path}: its XMP cannot be read ({sf.one_line(error)})")
    ours = values.get("toolkit") == sf.TOOL
    told = regions.told_by(values, IN_PHOTO) if values and not ours else regions.Told()
    told.notes = [*notes, *(f"{path}: {note}" for note in told.notes)]
    return told
