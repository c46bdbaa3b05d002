"""Google Takeout: which JSON beside a photo is the photo's, and what it says.

From a photo's name the name of its JSON follows, the other way round it does not: names are cut to
46 UTF-16 units, numbers move, edits have none (SOURCES.md, section 1, lists the forms and who found
them). So a folder's JSON files are kept by the photo's name that is left in theirs, and a photo
asks for the forms its own name can have taken.
"""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

STEM_LIMIT = 46  # UTF-16 units of a name before `.json`, as exports of 2018 to 2026 have it
SHORTEST_CUT = 40  # what is shorter was not cut; one export had 53 as its limit
FORGOTTEN = 10  # characters that a duplicate without a JSON of its own may be longer
LARGEST = 1 << 22  # bytes of a JSON that is read; real ones have one or two thousand
EXTRA = "supplemental-metadata"  # since October 2024, cut to what has room
ENDING = ".json"
NUMBER_LAST = re.compile(r"\((\d+)\)$")
NUMBER_IN_NAME = re.compile(r"^(.+)\((\d+)\)((?:\.[^.()/]+)+)$")
NOT_IN_NAMES = re.compile(r'[&<>:"/\\|?*%]')  # become `_` in the file's name
CLIPS = (".mp4", ".mov", ".mp", ".mv", ".mp~2")  # the moving half of a picture
ABOUT_PHOTO = {"photoTakenTime", "people", "googlePhotosOrigin", "creationTime"}  # keys

# What Google Photos adds to the name of an edited copy, in the language of the account; the second
# row is the same everywhere.
EDITED = (
    *("-edited", "-bearbeitet", "-modifié", "-bewerkt", "-edytowane", "-modificato", "-editado"),
    *("-ha editado", "-ha edit", "-ha", "-editat", "-編集済み", "-编辑", "-編輯"),
    *("-redigerad", "-muokattu", "-redigeret", "-redigert", "-upraveno", "-düzenlendi"),
    *("-изменено", "-수정됨", "-szerkesztett"),
    *("-effects", "-smile", "-mix", "-motion", "-animation", "-collage"),
)
YEAR_FOLDER = re.compile(r"\D+ \d{4}")  # `Photos from 1998`, `Fotos von 1998`


def plain(name: str) -> str:
    """A file name as it is compared: composed (macOS unzips accents decomposed), small letters."""
    return unicodedata.normalize("NFC", name).casefold()


def units(text: str) -> int:
    """UTF-16 units of a text; an emoji counts two."""
    return len(text) + sum(letter > "\uffff" for letter in text)


def cut(text: str, limit: int) -> str:
    """The first `limit` UTF-16 units of a text; of a letter of two not a half."""
    return text.encode("utf-16-le", "surrogatepass")[: 2 * limit].decode("utf-16-le", "ignore")


def without_number(name: str) -> tuple[str, int]:
    """`a(1).jpg` as (`a.jpg`, 1); a name without a number as (name, 0)."""
    found = NUMBER_IN_NAME.match(name)
    return (found[1] + found[3], int(found[2])) if found else (name, 0)


def photo_part(sidecar: str) -> tuple[str, int] | None:
    """(what is left of the photo's name, number) in a JSON's name; None for another file."""
    if not sidecar.casefold().endswith(ENDING):
        return None
    base, number = number_off(sidecar[: -len(ENDING)])
    stem, dot, last = base.rpartition(".")
    if dot and stem and EXTRA.startswith(last.casefold()):
        base = stem
        if not number:
            base, number = number_off(base)
    return base, number


def number_off(text: str) -> tuple[str, int]:
    found = NUMBER_LAST.search(text)
    return (text[: found.start()], int(found[1])) if found else (text, 0)


def stem_of(name: str) -> str:
    """A name without its last ending."""
    return name.rpartition(".")[0] or name


def originals(name: str) -> Iterator[str]:
    """The names that the original of an edited copy may have.

    A name that was cut to 47 units may have lost a part of what was added.
    """
    bare, number = without_number(name)
    stem, dot, ending = bare.rpartition(".")
    was_cut = units(stem) >= STEM_LIMIT - 1
    for suffix in EDITED:
        shortest = 2 if was_cut else len(suffix)
        for length in range(len(suffix), shortest - 1, -1):
            if stem.endswith(suffix[:length]) and len(stem) > length:
                yield stem[:-length] + (f"({number})" if number else "") + dot + ending
                break


class Sidecars:
    """The JSON files of a folder, by what their names leave of the photos' names."""

    def __init__(self, names: Iterable[str]) -> None:
        self.known: dict[tuple[str, int], str] = {}
        self.of_stem: dict[tuple[str, int], list[str]] = defaultdict(list)
        for name in sorted(names):
            part = photo_part(unicodedata.normalize("NFC", name))
            if part is not None:
                key = plain(part[0]), part[1]
                self.known.setdefault(key, name)
                self.of_stem[stem_of(key[0]), key[1]].append(name)

    def __len__(self) -> int:
        return len(self.known)

    def of(self, photo: str) -> tuple[str, bool] | None:
        """(JSON of a photo, whether its name is told whole), by the names alone."""
        photo = plain(photo)
        for one in itertools.chain([photo], originals(photo)):
            for name, number in dict.fromkeys([(one, 0), without_number(one)]):
                found = self.whole(name, number) or self.shortened(name, number)
                if found:
                    return found
            if one != photo and (found := self.alike(one)):
                return found, True
        if photo.endswith(CLIPS):
            of_pixel = photo.removesuffix("~2") + ".jpg"  # X.MP lies beside X.MP.jpg
            if found := self.alike(photo) or self.alike(of_pixel):
                return found, True
        found = self.forgotten(photo)
        return (found, False) if found else None

    def whole(self, name: str, number: int) -> tuple[str, bool] | None:
        """By the photo's whole name, or that without its ending."""
        stem = stem_of(name)
        forms = [name, stem, *([stem[:-1]] if stem.endswith(("_n-", "_n", "_")) else [])]
        found = next((self.known[f, number] for f in forms if (f, number) in self.known), None)
        return (found, True) if found else None

    def shortened(self, name: str, number: int) -> tuple[str, bool] | None:
        """By a beginning of the name: the longest that a JSON has, and one that may be a cut."""
        for length in range(len(name) - 1, 0, -1):
            if units(name[:length]) < SHORTEST_CUT:
                return None
            if (name[:length], number) in self.known:
                return self.known[name[:length], number], False
        return None

    def alike(self, name: str) -> str | None:
        """By the name without its ending, where only one JSON has it."""
        stem, number = without_number(name)
        some = self.of_stem.get((stem_of(stem), number), [])
        return some[0] if len(some) == 1 else None

    def forgotten(self, photo: str) -> str | None:
        """Of a duplicate with a cut name, the JSON of its original."""
        stem = stem_of(photo)
        for length in range(len(stem) - 1, max(len(stem) - FORGOTTEN, 0), -1):
            if units(stem[:length]) < STEM_LIMIT:
                return None
            if (stem[:length], 0) in self.known:
                return self.known[stem[:length], 0]
        return None


def title_as_name(title: Any) -> str:
    """The file name, to be compared, that an original name became; "" where there is none."""
    return plain(NOT_IN_NAMES.sub("_", title)) if isinstance(title, str) else ""


def told(path: Path) -> dict[str, Any] | None:
    """What a JSON of Takeout says of its photo, None where it is another program's or an album's.

    Raises ValueError for one that is damaged, OSError for one that cannot be read.
    """
    with path.open("rb") as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        return None
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict) or not ABOUT_PHOTO & value.keys():
        return None
    return value


def names_in(value: dict[str, Any]) -> list[str]:
    """The names of the people that Google Photos has labelled in a photo, as they are written."""
    people = value.get("people")
    people = people if isinstance(people, list) else []
    names = [one.get("name") for one in people if isinstance(one, dict)]
    return [name for name in names if isinstance(name, str)]


def date_in(value: dict[str, Any]) -> str:
    """What it says of when the photo was taken, as JSON; "" for nothing.

    When it was uploaded (creationTime) is no such word, but tells that there is none.
    """
    own = {key: value[key] for key in ("photoTakenTime", "creationTime") if key in value}
    return json.dumps(own, ensure_ascii=False) if own else ""


# --- where else it may lie ------------------------------------------------------


def other_parts(folder: Path) -> Iterator[Path]:
    """The same folder in the other parts of an export that was unpacked part by part.

    The parts are beside each other (`Takeout`, `Takeout 2`; `takeout-001/Takeout`) or each in a
    folder of its own (`part1/Takeout`).
    """
    parts = folder.parts
    at = next((i for i, part in enumerate(parts) if plain(part).startswith("takeout")), 0)
    if not at:
        return
    top, rest = Path(*parts[:at]), parts[at + 1 :]
    for one in folders_in(top):
        if plain(one.name).startswith("takeout") and one.name != parts[at]:
            yield one.joinpath(*rest)
    for one in folders_in(top.parent) if at > 1 else []:
        if one != top and (one / parts[at]).is_dir():
            yield one.joinpath(parts[at], *rest)


def year_folders(folder: Path) -> list[Path]:
    """The folders of years beside an album's folder, where there are such."""
    return [one for one in folders_in(folder.parent) if YEAR_FOLDER.fullmatch(one.name)]


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, in order; none where it cannot be listed."""
    try:
        return sorted(one for one in folder.iterdir() if one.is_dir())
    except OSError:
        return []
