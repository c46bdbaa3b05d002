"""Dates that file and folder names tell: what cameras, phones, messengers and people write there.

Year first is year, month, day; dots are day first; of the rest a part over 12 decides, equal parts
need no decision, and otherwise only the year is known. Counters, sizes, hashes, numbers of shops
and networks, two-digit years, ranges of years and decades tell nothing.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

import sort_faces as sf

text = sf.companion("dates_in_text")
When = text.When

YEARLIKE = ("18", "19", "20")  # what years begin with
YEARS = (1826, 2199)  # of names; the first photograph; the scan's day is checked by who asks
UNIX_MS = (946_684_800, 4_102_444_800)  # s; moments of 2000 to 2099 that a name tells in ms
ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9_~-]{0,14}$")
NOISE = re.compile(  # UUIDs, hashes, sizes, networks' numbers: nothing in them is a date
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"|(?<![0-9a-zA-Z])(?=[0-9]*[a-fA-F][0-9a-fA-F]*[0-9])(?=[0-9a-fA-F]*\d[a-fA-F])[0-9a-fA-F]{16,}(?![0-9a-zA-Z])"
    r"|\b1234567890\d*|\d+\s?[xX×]\s?\d+|^\d+_\d{9,}_\d+_[a-z](?![a-z])"
    r"|^received_\d+|^S__\d+|-\d{5,}_(?:640|1280|1920)$"
    r"|\(\d{4}_\d\d_\d\d \d\d_\d\d_\d\d UTC\)"  # when File History of Windows copied it
)
DAY_FIRST = re.compile(r"^(?:photo|video|file|audio|voice|sticker)_\d+@")  # Telegram Desktop
IN_UTC = re.compile(r"^PXL_")  # Pixel phones
NO_CLOCK = re.compile(r"^LINE_ALBUM_")  # the same day follows once more, in six digits
DCF = re.compile(r"[A-Z0-9_]{4}\d{4}\.[A-Z0-9]{3}$")  # a camera's counter, JEITA CP-3461

TWO = r"(\d\d)"
LINK = (  # "at", "um", "a las", "à" ..., or a few signs
    rf"(?:[\s,-]+(?:(?!{text.HALF_BEFORE})[^\W\d_]{{1,5}}(?:\.|\(s\))?[\s-]){{1,2}}"
    r"|[-_., T]{0,3}|\s[-@]\s)"
)
HALF = text.HALF
CLOCKS = [  # after a date in a name
    re.compile(rf"{LINK}(?P<before>{text.HALF_BEFORE})?\s?(?P<hour>\d\d?)[-_.:h時时시 ]{TWO}"
               rf"[-_.:m分분 ]{TWO}(?!\d\d?(?!\d))(?:[s秒초]|[.,]\d+)?\s?(?P<after>{HALF})?",
               re.IGNORECASE),
    re.compile(rf"(?:{LINK})(?P<before>{text.HALF_BEFORE})?\s?(?P<hour>\d\d?)[.:h]{TWO}(?![\d.])"
               rf"\s?(?P<after>{HALF})?", re.IGNORECASE),
    re.compile(rf"(?:[-_. T]|\s-\s)?(?P<hour>\d\d){TWO}{TWO}(?:\d{{1,4}})?(?!\d)"),
    re.compile(rf"T(?P<hour>\d\d){TWO}(?!\d)"),
]  # fmt: skip
UNTIL = re.compile(  # after a first day the last one, which is no time of day
    r"\s?[-–]\s?((?:19|20)\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?!\d)"
)
ZONE = re.compile(r"(?:[.,]\d+)?(Z(?![^\W\d_])|\+\d\d:?\d\d)")

PREFIX = r"(?<![^\W_])(?:[A-Za-z]{2,}|[PV]|[A-Za-z]*[^\x00-\x7f\W\d]+)?"  # a word of letters
SEPARATED = re.compile(
    r"(?<!\d)(?<!(?<!\d)\d\d[-._]\d\d[-._])(\d{4})"  # after 31-12- it ends a date
    r"(?:([-.])(\d\d?)\2(\d\d?)|([_ :])(\d\d)\5(\d\d))(?!\d)"
)
PACKED = re.compile(
    PREFIX + r"(\d{4})(?:_(?=\d{4}_\d{6}(?!\d)))?(\d\d)(\d\d)(?=(?:\d{4}|\d{6,10})?(?!\d))"
)
CJK = text.CJK_DATE
TURNED = re.compile(r"(?<!\d)(\d\d?)(?P<mark>[-.])(\d\d?)(?P=mark)(\d{4})(?!\d)"
                    r"|(?<!\d)(\d\d)(?P<other>[_ ])(\d\d)(?P=other)(\d{4})(?!\d)")  # fmt: skip
PACKED_TURNED = re.compile(r"(?<![^\W_])(?:CC[IF])?(\d\d)(\d\d)(\d{4})(?![^\W_])")  # Canon's
MILLISECONDS = re.compile(PREFIX + r"(\d{13})(?![^\W_])")

MONTH_FIRST = re.compile(r"(?<![\d])(?<!\d[-_. ])(0[1-9]|1[0-2])[-./](\d{4})(?![-_./]?\d)")
YEAR_MONTH = re.compile(
    r"(?<!\d)(?<!\d[-_. ])(\d{4})[-_.](0[1-9]|1[0-2])(?![\dA-Za-z])(?!(?P<end>[-_.]\d{1,2}(?!\d)))"
)
FOLDER_MONTH = re.compile(
    r"((?:19|20)\d\d)(?:(0[1-9]|1[0-2])|-([1-9]))(?![^\W_])(?![-.]\d)"  # 199807, 1998-7
)
MONTH_AND_DAY = re.compile(  # of a folder below a year, but no first day of several
    r"(\d\d)(?P<mark>[-_.]?)(\d\d)(?![\d-]|\.\d|\.?\s*(?:-|–|bis|to|til|until|à|au|al)\s*\d)"
)
VOID_DAY = re.compile(r"(?<!\d)(\d{4})([-_.])(\d\d)\2(00)(?!\d)")  # a day not known
YEAR = re.compile(r"(?<![^\W_])(?<!\d[-.,])(\d{4})(?![^\W_])(?![.,]\d)")
SPAN = re.compile(
    r"(?<!\d)\d{4}\s?(?:-|–|/|_-_|bis|to|à|til|until)\s?(?:\d{4}|(?!0[1-9]|1[0-2]|00[-_.]00)\d\d)(?!\d)"
)
UNIT = re.compile(
    r"\s?(?:m|km|px|pixel|euro|eur|usd|dpi|mm|cm|kg|g|w|ml|hz|pcs|stück|stk)(?![^\W_])",
    re.IGNORECASE,
)
COUNTED = frozenset(  # words after which a number is no year
    re.findall(
        r"\w+",
        "img image images dsc dscn dscf dscp mg pict pic picture photo photos foto fotos bild "
        "bilder mvi mov vid video gopr gp imgp sam cimg hpim kif sta stb dcp dcim ex pano hdr scan "
        "scanned copy kopie copia copie edited edit bearbeitet no nr num number page seite "
        "untitled unbenannt new neu file datei screenshot wallpaper hotel room zimmer canon nikon "
        "sany sdim rimg kicx pdrm pent epsn simg imag ydxj clip movi cam asus lg "
        "sony fuji olymp panasonic kodak dji eos mvc slide dia frame negative negativ imagen "
        "immagine imagem afbeelding zdjęcie obraz billede bilde kuva изображение фото снимок 写真 "
        "画像 图片 照片 사진 camphoto",
    )
)
NOT_WHEN_TAKEN = re.compile(  # folders whose date is of moving files about
    r"backup|sicherung|sauvegarde|respaldo|import|export|upload|download|scan|kopie|copy|takeout-\d",
    re.IGNORECASE,
)
SCANNED = re.compile(
    r"(?<![^\W\d_])(?:scan|scans|scanned|numérisation|escaneo|escáner|skan|スキャン)(?![^\W\d_])"
    r"|camscanner|adobe scan|photoscan|hpscan|^cc[if]\d{8}"
    r"|(?-i:^img\d{8}_\d{8})(?:_\d+)?(?:\.\w+)?$",  # Epson Scan
    re.IGNORECASE,
)


def is_scan_name(name: str) -> bool:
    """Whether a file's name says that a scanner wrote it: its date is that of scanning."""
    return bool(SCANNED.search(text.plain(name)))


def when_in_name(name: str) -> When | None:
    """The date a photo's file name tells, as far as it does."""
    base = os.path.basename(name.replace("\\", "/"))
    if DCF.match(base) and not base.startswith(YEARLIKE):
        return None
    stem = text.plain(ENDING.sub("", base)).strip()
    return when_in_title(NOISE.sub(" # ", stem), alone=False)


def when_in_folder(path: str) -> When | None:
    """The date that the folders of a path tell: of the nearest that tells one.

    Outer ones that agree make it finer; numbers below a year are its month, below that its day.
    """
    told: list[When] = []
    chain: list[int] = []  # year[, month] of folders that are bare numbers in a row
    for part in path.replace("\\", "/").split("/"):
        title = text.plain(part).strip()
        if not title or NOT_WHEN_TAKEN.search(title):
            chain = []
            continue
        when = below(chain, title) if chain else None
        when = when or when_in_title(NOISE.sub(" # ", title), alone=True)
        chain = list(when.fields) if when is not None and len(when.fields) < 3 else []
        told += [when] if when is not None else []
    if not told:
        return None
    nearest = told.pop()
    for outer in reversed(told):
        nearest = outer if nearest.holds(outer) else nearest
    return nearest


def below(chain: list[int], title: str) -> When | None:
    """The date of a folder below one of a year or month: 07, 7, 07 July, July, 4 July, 07-04."""
    both = MONTH_AND_DAY.match(title) if len(chain) == 1 else None
    if both and both["mark"] and both["mark"] in "-_" and both[1] < both[3] <= "12":
        return None  # from one month to another, as likely
    if both:
        order = (both[3], both[1]) if both["mark"] == "." else (both[1], both[3])
        if whole := text.whole_day(chain[0], *map(int, order)):
            return whole
    month = text.month_named(re.sub(r"^\d\d?[\s._-]*", "", title))
    number = re.match(r"\d\d(?!\d)|\d$" if len(chain) > 1 or not month else r"\d\d?(?!\d)", title)
    finer = text.made([*chain, int(number[0])]) if number else None
    finer = finer if finer is not None and len(finer.fields) == len(chain) + 1 else None
    if len(chain) > 1:
        return finer
    if finer is not None and month in (0, finer.fields[1]):
        return finer
    day = re.match(r"(?:\d\d?\.?[\s_-]*[^\W\d_]+|[^\W\d_]+[\s_-]*\d\d?)(?![^\W_])", title)
    worded = text.in_words(f"{day[0]} {chain[0]}") if day else None
    return worded or (text.made([chain[0], month]) if month else finer)


def when_in_title(title: str, alone: bool) -> When | None:
    """The date in a name without its ending; alone: a year needs no word beside it (a folder)."""
    found = list(days_in(title))
    found = found or [one for one in text.all_in_words(title, strict=True) if real(one)]
    if found:
        best = max(found, key=lambda when: len(when.fields))
        if len(best.fields) > 3 or len(found) == 1:
            return best
        return text.shared(found)  # the first and last day of a journey
    if SPAN.search(title):
        return None
    return month_in(title, alone) or year_in(title, alone)


def real(when: When | None) -> bool:
    return when is not None and YEARS[0] <= when.fields[0] <= YEARS[1]


def days_in(title: str) -> Iterator[When]:
    """Every whole date in a name, with its time where one follows; of the sure readings first."""
    taken: list[tuple[int, int]] = []
    for pattern, read in READERS:
        for found in pattern.finditer(title):
            if any(found.start() < end and start < found.end() for start, end in taken):
                continue
            when = read(title, found)
            if real(when):
                taken.append(found.span())
                yield when


def year_first(title: str, found: re.Match[str]) -> When | None:
    numbers = [int(value) for value in found.groups() if value and value.isdecimal()]
    day = text.whole_day(*numbers)
    return day and timed(day, title, found.end())


def packed(title: str, found: re.Match[str]) -> When | None:
    """Digits in a row: a day, or a day and its time, which must be one as a whole."""
    if not ends_well(title, found.end()):
        return None
    when = year_first(title, found)
    glued = re.match(r"\d+", title[found.end() :])
    if glued and when is not None and len(when.fields) == 3 and not when.midnight:
        if len(glued[0]) != 4:
            return None
        numbers = [*when.fields, int(glued[0][:2]), int(glued[0][2:])]
        whole = text.made(numbers)
        return whole if whole is not None and (len(whole.fields) == 5 or whole.midnight) else None
    return when


def ends_well(title: str, end: int) -> bool:
    """Whether digits end where a word does; one letter more, or a T, may follow."""
    rest = title[end:].lstrip("0123456789")
    return not re.match(r"(?!T\d)[A-Za-z][A-Za-z0-9]", rest)


def turned(title: str, found: re.Match[str]) -> When | None:
    """The year last."""
    first, second, year = (int(v) for v in found.groups() if v and v.isdecimal())
    mark = found["mark"] or found["other"]
    known = DAY_FIRST.match(title)
    if text.DAYS_BEFORE.search(title[: found.start()]):  # the last day of several
        day = text.both_orders(year, first, second, mark)
        return day and text.made(day.fields[:2])
    day = text.both_orders(year, first, second, "." if known else mark)
    return day and (timed(day, title, found.end()) if len(day.fields) == 3 else day)


def packed_turned(title: str, found: re.Match[str]) -> When | None:
    first, second, year = map(int, found.groups())
    if not real(text.made([year])):
        return None
    day = text.both_orders(year, first, second)
    return day and (timed(day, title, found.end()) if len(day.fields) == 3 else day)


def in_milliseconds(_title: str, found: re.Match[str]) -> When | None:
    seconds = int(found[1]) / 1000
    return text.from_seconds(seconds) if UNIX_MS[0] <= seconds < UNIX_MS[1] else None


def cjk(title: str, found: re.Match[str]) -> When | None:
    when = text.made([text.number_of(value) for value in found.groups()])
    return timed(when, title, found.end()) if when and len(when.fields) == 3 else when


READERS = [
    (SEPARATED, year_first), (PACKED, packed), (CJK, cjk), (TURNED, turned),
    (PACKED_TURNED, packed_turned), (MILLISECONDS, in_milliseconds),
]  # fmt: skip


def timed(day: When, title: str, end: int) -> When:
    """A day with the time of day that follows it in a name, where one does."""
    if (until := UNTIL.match(title, end)) and day.fields < tuple(map(int, until.groups())):
        return day
    for pattern in CLOCKS:
        found = None if NO_CLOCK.match(title) else pattern.match(title, end)
        if found is None:
            continue
        facts = found.groupdict()
        half = facts.get("before") or facts.get("after")
        if len(found["hour"]) == 1 and not half and not re.search(r"\w\s$|[.時时시]", found[0][:4]):
            continue
        clock = [int(v) for v in found.groups() if v and v.isdecimal()]
        if half:
            late = text.HALF_OF.get(half.lower(), 12 * half.lower().startswith("p"))
            clock[0] = clock[0] % 12 + late if clock[0] <= 12 else clock[0]
        zone = ZONE.match(title, found.end())
        offset = text.zone_of(zone[1]) if zone else 0 if IN_UTC.match(title) else None
        when = text.made([*day.fields, *clock], offset)
        whole = when is not None and len(when.fields) == 3 + len(clock)
        if when is not None and (whole or when.midnight):
            return when
    return day


def month_in(title: str, alone: bool) -> When | None:
    """A year and month in a name: 1998-07, 07-1998, and of folders 199807."""
    void = VOID_DAY.search(title)
    if void and real(when := text.made([int(void[1]), int(void[3]), int(void[4])])):
        return when
    told = []
    for found in YEAR_MONTH.finditer(title):
        when = text.made([int(found[1]), int(found[2])])
        numbered = found.end() == len(title) and words_of(title[: found.start()])
        if real(when) and (alone or told or not numbered) and not counts(title[: found.start()]):
            told.append(when)
    if told:
        return text.shared(told)
    for found in MONTH_FIRST.finditer(title):
        when = text.made([int(found[2]), int(found[1])])
        if real(when) and not counts(title[: found.start()]):
            return when
    packed_month = FOLDER_MONTH.match(title) if alone else None
    return text.made([int(v) for v in packed_month.groups() if v]) if packed_month else None


def counts(before: str) -> bool:
    """Whether a number after this is a camera's counter: right after its word."""
    word = re.search(r"([^\W\d_]+)[_-]?E?$", before)
    return bool(word) and word[1].lower() in COUNTED


def words_of(title: str) -> list[str]:
    """Words of a name that are no counters' words."""
    return [w for w in text.WORD.findall(title) if len(w) > 2 and w.lower() not in COUNTED]


def year_in(title: str, alone: bool) -> When | None:
    """A year that stands by itself in a name, beside words; None where there are several."""
    if re.match(r"\d{3}_\d{4}$", title):  # a camera's folder
        return None
    if not alone and not words_of(title):
        return None
    years = set()
    for found in YEAR.finditer(title):
        when = text.made([int(found[1])])
        right_after = counts(title[: found.start()].rstrip(" ")) and not alone
        if real(when) and not right_after and not UNIT.match(title, found.end()):
            years.add(int(found[1]))
    return text.made([years.pop()]) if len(years) == 1 else None


# ---- which comes first, by the names beside it

Order = tuple[str, str]  # the text before a date with its digits folded, and the mark inside it
DIGITS = re.compile(r"\d+")


def either_order(name: str) -> Iterator[tuple[re.Match[str], Order, When | None, When | None]]:
    """(where, pattern, read day first, read month first) of dates in a name with the year last.

    A name that tells a day with the year first has none.
    """
    if SEPARATED.search(name) or DAY_FIRST.match(name):
        return
    for pattern in (TURNED, PACKED_TURNED):
        for found in pattern.finditer(name):
            first, second, year = (int(v) for v in found.groups() if v and v.isdecimal())
            mark = "" if pattern is PACKED_TURNED else found["mark"] or found["other"]
            several = text.DAYS_BEFORE.search(name[: found.start()])
            if mark == "." or several or not YEARS[0] <= year <= YEARS[1]:
                continue
            digits = found[0] if not mark else ""
            if digits and real(text.whole_day(*map(int, (digits[:4], digits[4:6], digits[6:])))):
                continue
            before = DIGITS.sub("#", name[: found.start()])
            day_first = text.whole_day(year, second, first)
            yield found, (before, mark), day_first, text.whole_day(year, first, second)


def has_year_last(name: str) -> bool:
    """Whether a name may be one of `either_order`; quick."""
    return bool(TURNED.search(name) or PACKED_TURNED.search(name))


def orders_of(names: Iterable[str]) -> dict[Order, bool]:
    """{pattern: whether the day comes first} as those names of a folder tell that leave no choice.

    A pattern of which some tell one order and some the other is left out.
    """
    seen: dict[Order, set[bool]] = defaultdict(set)
    for name in names:
        for _, pattern, day_first, month_first in either_order(name):
            if (day_first is None) != (month_first is None):
                seen[pattern].add(day_first is not None)
    return {pattern: told.pop() for pattern, told in seen.items() if len(told) == 1}


def settled(name: str, orders: dict[Order, bool]) -> str:
    """A name whose dates that could be read in either order stand in that of its neighbours."""
    if not orders:
        return name
    for found, pattern, day_first, month_first in reversed(list(either_order(name))):
        if pattern in orders and day_first is not None and month_first is not None:
            when = day_first if orders[pattern] else month_first
            name = name[: found.start()] + when.text() + name[found.end() :]
    return name


# ---- years that words are followed by, by the names beside them

LABEL = re.compile(r"([^\W\d_]{3,})_?(\d{4})$")  # USA_2003, ROM2003


def labelled(name: str) -> tuple[str, str] | None:
    """(word in lower case, number) of a name that is nothing else; None for a camera's word.

    Alone it may be a counter with letters that its owner chose, as Nikon and DCF allow.
    """
    found = LABEL.match(ENDING.sub("", name))
    if found is None or found[1].lower() in COUNTED:
        return None
    return found[1].lower(), found[2]


def are_years(labels: Iterable[tuple[str, str]]) -> bool:
    """Whether the words of a folder's names are followed by years: several words, only years.

    One word with several numbers counts, whatever these are; a camera does not change its letters.
    """
    labels = {*labels}
    words = {word for word, _ in labels}
    return len(words) > 1 and all(number.startswith(("19", "20")) for _, number in labels)


def with_year(name: str) -> str:
    """A labelled name with its year apart."""
    stem, ending = ENDING.sub("", name), name[len(ENDING.sub("", name)) :]
    return f"{stem[:-4].rstrip('_')} {stem[-4:]}{ending}" if labelled(name) else name
