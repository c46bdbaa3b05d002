"""When a photo was taken: of all that is said about it, what can be believed, by rank.

`capture_time` is the one place that decides. It takes statements (where something was said, and
its text as it stands there) and gives the best, with its kind and how exactly it is known. What
nobody meant (zeros of clocks and programs, the future, days before photography) says nothing; what
is only the time of scanning, of changing or of copying is used where nothing better is known, and
its kind says so. docs/dates.md describes the policy.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from typing import Any

import sort_faces as sf

dates_in_text, names = sf.companion("dates_in_text"), sf.companion("dates_in_names")
When = dates_in_text.When

# Where something is said, the best first. Down to "folder" it tells when a photo was taken.
RANKS = {
    "dates": "the file of --dates",
    "sidecar_original": "XMP sidecar: exif:DateTimeOriginal",
    "before": "a cache of an older version; which date it took is not known",
    "exif_original": "EXIF DateTimeOriginal",
    "xmp_original": "XMP in the file: exif:DateTimeOriginal",
    "sidecar_photoshop": "XMP sidecar: photoshop:DateCreated",
    "xmp_photoshop": "XMP in the file: photoshop:DateCreated",
    "iptc": "IPTC DateCreated and TimeCreated",
    "quicktime": "film: com.apple.quicktime.creationdate",
    "takeout": "Google Takeout's JSON: photoTakenTime; UTC",
    "gps": "EXIF GPSDateStamp and GPSTimeStamp; UTC",
    "container": "film: creation_time of its container; UTC, if the camera kept to the standard",
    "png_text": "PNG text: Creation Time",
    "sidecar_digitized": "XMP sidecar: exif:DateTimeDigitized",
    "exif_digitized": "EXIF DateTimeDigitized, of a camera",
    "xmp_digitized": "XMP in the file: exif:DateTimeDigitized, of a camera",
    "name": "the file's name",
    "folder": "its folders' names",
    "scan": "when a picture was scanned",
    "exif_modify": "EXIF DateTime: the last change",
    "sidecar_create": "XMP sidecar: xmp:CreateDate",
    "xmp_create": "XMP in the file: xmp:CreateDate, of the file",
    "sidecar_modify": "XMP sidecar: xmp:ModifyDate",
    "xmp_modify": "XMP in the file: xmp:ModifyDate",
    "png_modify": "PNG tIME: the last change",
    "file_time": "the file's modification time",
}
RANK = {where: rank for rank, where in enumerate(RANKS)}
TRUSTED = frozenset(RANKS) - {*sf.LATER_TIMES}  # kinds that tell when a photo was taken
IN_UTC = frozenset({"takeout", "gps", "container"})
ORIGINAL = frozenset({"sidecar_original", "exif_original", "xmp_original"})
BY_CAMERA = frozenset({"exif_original", "exif_digitized", "exif_modify", "xmp_original",
                       "xmp_digitized", "xmp_create", "xmp_photoshop"})  # fmt: skip
NO_DATE = "none"  # kind and precision where nothing is known

FIRST_YEAR = 1826  # of the oldest photograph that is kept, by Nicéphore Niépce
FIRST_DIGITAL = 1995  # no camera that writes its make is older
ZONE_STEP, ZONE_SLACK = (
    15,
    5,
)  # minutes; zones differ by the first, a GPS fix may be old by the second
RESET_PHOTOS = 5  # photos of one camera on one first of January that look like a clock never set
RESET_YEAR = timedelta(days=366)
RESET_NEAR = 30  # days before it; a camera in use had been used then. Chosen


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


NOT_MEANT = [  # (from, before): what unset clocks and programs' zeros say, wherever they are
    (moment("1899-12-30"), moment("1900-01-02")),  # zeros of spreadsheets and of COM
    (moment("1903-12-31T10:00"), moment("1904-01-02")),  # of Mac and QuickTime
    (moment("1969-12-30T22:00"), moment("1970-01-02T02:00:01")),  # of Unix, in any zone
    (moment("1979-11-30"), moment("1979-12-01")),  # DOS, all bits 0
    (moment("1980-01-01"), moment("1980-01-02")),  # DOS
    (moment("1980-01-05T10:00"), moment("1980-01-07")),  # of GPS
    (moment("2002-12-08T12:00"), moment("2002-12-08T12:01")),  # Android issue 36967504
    (moment("2036-02-07"), moment("2036-02-08")),  # end of NTP's first era
    (moment("2038-01-18"), moment("2038-01-20")),  # end of 32 bits, signed
    (moment("2106-02-07"), moment("2106-02-08")),  # end of 32 bits
    (moment("2107-12-31"), moment("2108-01-01")),  # end of DOS
]
APPLE_ZERO = moment("2001-01-01")  # to the second, in UTC: new year's parties are photographed
GPS_ZEROS = (moment("1999-08-22"), moment("2019-04-07"))  # its weeks overflow; without a fix
ZERO_YEARS = frozenset(one.year for pair in NOT_MEANT for one in pair) | frozenset(
    one.year for one in (APPLE_ZERO, *GPS_ZEROS)
)

SCANNERS = re.compile(
    r"epson (?:perfection|expression|workforce|et-|xp-|gt-|v\d|ds-)|\bepson scan|canoscan|"
    r"scanjet|coolscan|scanner|plustek|reflecta|pacific image|primefilm|scanmate|scansnap|"
    r"opticfilm|flextight|mustek|microtek|umax|braun multimag|doxie|vupoint|wolverine|"
    r"kodak (?:slide|scan)|noritsu|fastfoto|"
    r"vuescan|silverfast|photoscan|hp (?:psc|officejet|envy|photosmart [a-z]?\d{4})|pixma|lide \d",
    re.IGNORECASE,
)
PHONES = re.compile(
    r"apple|huawei|honor|xiaomi|redmi|oneplus|google|motorola|\bhtc|\blge?\b|nokia|hmd|oppo|"
    r"realme|vivo|blackberry|research in motion|zte|asus|lenovo|meizu|fairphone|wiko|tcl|alcatel|"
    r"sony ericsson|nothing|\bteracube|shift|samsung (?:sm-|gt-|galaxy|sgh|sch)|"
    r"sony (?:[a-h]\d{4}|xq-|so-|xperia)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Statement:
    """What was said about when a photo was taken."""

    where: str  # of RANKS
    text: str  # as it stands there


@dataclass(frozen=True)
class Camera:
    """What a file says it was made with; empty where it does not."""

    make: str = ""
    model: str = ""
    software: str = ""

    @property
    def name(self) -> str:
        return f"{self.make} {self.model}".strip()

    @property
    def is_scanner(self) -> bool:
        return is_of(SCANNERS, f"{self.name} / {self.software}")

    @property
    def takes_photos(self) -> bool:
        """Whether a camera or phone is named."""
        return bool(self.make.strip()) and not self.is_scanner

    @property
    def can_lose_its_clock(self) -> bool:
        """Whether it is a camera that nothing sets but its owner."""
        return self.takes_photos and not is_of(PHONES, self.name)


@functools.lru_cache(1000)
def is_of(makers: re.Pattern[str], name: str) -> bool:
    return bool(makers.search(name))


@dataclass(frozen=True)
class Taken:
    """When a photo was taken, as far as it is known."""

    seconds: (
        float  # since 1970, the wall clock read as UTC; the first moment it can be; NaN unknown
    )
    kind: str  # where it is said, of RANKS; NO_DATE
    precision: str  # "year", "month", "day", "minute", "second"; NO_DATE
    offset: int | None = None  # minutes east of UTC, where known

    @property
    def is_known(self) -> bool:
        return math.isfinite(self.seconds)

    def text(self) -> str:
        """ISO 8601 cut to what is known; empty where nothing is."""
        if not self.is_known:
            return ""
        clock = dates_in_text.EPOCH + timedelta(seconds=self.seconds)
        count = {name: number for number, name in dates_in_text.PRECISIONS.items()}
        return When(clock.timetuple()[: count.get(self.precision, 6)]).text()


UNKNOWN = Taken(math.nan, NO_DATE, NO_DATE)


def capture_time(
    statements: Iterable[Statement],
    camera: Camera = Camera(),
    scan_day: date | None = None,
    not_these: Iterable[date] = (),
) -> Taken:
    """The best of what is said about a photo.

    scan_day: nothing was taken after the day that follows it; today by default. not_these: days on
    which this camera's clock was not set (`reset_days`). The highest rank that says something
    plausible counts; one that says less is made finer by a lower one that lies inside it.
    """
    last = end_of(scan_day or date.today())
    known = sorted(
        (one for one in statements if one.where in RANK), key=lambda one: RANK[one.where]
    )
    sure = undisputed(known, camera, last)
    if sure is not None and sure[1].start.date() not in not_these:
        return Taken(sure[1].seconds, sure[0], sure[1].precision, sure[1].offset)
    told = plausible(known, camera, last)
    told = without_resets(told, camera, frozenset(not_these))
    if not told:
        return UNKNOWN
    kind, when = told[0]
    for other, finer in told[1:]:
        if when.holds(finer) and (other in TRUSTED or kind not in TRUSTED):
            kind, when = other, finer
    when = in_local_time(when, told)
    return Taken(when.seconds, kind, when.precision, when.offset)


@functools.lru_cache(10)
def end_of(scan_day: date) -> datetime:
    """What lies at or after it is the future, wherever on earth the scan is."""
    return moment(scan_day.isoformat()) + timedelta(days=2)


def undisputed(
    statements: Sequence[Statement], camera: Camera, last: datetime
) -> tuple[str, When] | None:
    """(kind, what it says) of a first statement that nothing below can change, else None.

    Most photos have one, and the reading of names and folders takes most of the time.
    """
    first = statements[0] if statements else Statement("", "")
    if first.where not in ORIGINAL or any(one.where in IN_UTC for one in statements):
        return None
    when = said(first)
    if when is None or len(when.fields) < 6 or when.fields[1:3] == (1, 1) or camera.is_scanner:
        return None
    good = when.fields[0] >= FIRST_YEAR and when.start < last and not is_zero(first.where, when)
    return (first.where, when) if good else None


def plausible(
    statements: Sequence[Statement], camera: Camera, last: datetime
) -> list[tuple[str, When]]:
    """(kind, what it says) of the statements that can be true, the best first.

    last: what lies at or after it is the future.
    """
    read = [(one.where, one.text, said(one)) for one in statements]
    originals = {when for where, _, when in read if when and where == "exif_digitized"}
    scans = {when.fields[:3] for when in originals if camera.is_scanner}
    told = []
    for where, text, when in read:
        if when is None or not when.fields[0] >= FIRST_YEAR or when.start >= last:
            continue
        if where != "dates" and is_zero(where, when):
            continue
        kind = kind_of(where, text, camera, when in originals or not originals)
        told.append(("scan" if where == "name" and when.fields[:3] in scans else kind, when))
    return sorted(told, key=lambda one: RANK[one[0]])


def kind_of(where: str, text: str, camera: Camera, as_digitized: bool) -> str:
    """A statement's kind: where it stands, or "scan".

    as_digitized: nothing says that the original is older than the file.
    """
    if where == "name":
        return "scan" if names.is_scan_name(text) else where
    if where.endswith("_digitized"):
        return where if camera.takes_photos else "scan"
    if where in ("exif_original", "xmp_original") and camera.is_scanner and as_digitized:
        return "scan"
    return where


def is_zero(where: str, when: When) -> bool:
    """Whether nobody meant it: the zero or the end of some clock."""
    if len(when.fields) < 3 or when.fields[0] not in ZERO_YEARS:
        return False
    start = when.start
    if any(first <= start < end for first, end in NOT_MEANT):
        return True
    exact = when.midnight or len(when.fields) > 3
    if exact and start - timedelta(minutes=when.offset or 0) == APPLE_ZERO:
        return True
    return where == "gps" and when.midnight and start in GPS_ZEROS


def without_resets(
    told: list[tuple[str, When]], camera: Camera, not_these: frozenset[date]
) -> list[tuple[str, When]]:
    """Leave out what a camera's clock says that was never set, unless something else agrees."""
    if not camera.can_lose_its_clock:
        return told
    agreed = {when.fields[:3] for kind, when in told if kind not in BY_CAMERA}

    def is_reset(kind: str, when: When) -> bool:
        day = when.fields[:3]
        if kind not in BY_CAMERA or len(day) < 3 or day in agreed:
            return False
        first = day[1:] == (1, 1)
        return (first and (when.midnight or day[0] < FIRST_DIGITAL)) or date(*day) in not_these

    return [one for one in told if not is_reset(*one)]


def in_local_time(when: When, told: Sequence[tuple[str, When]]) -> When:
    """A moment with its zone, where another statement of it gives that away.

    The same moment by the clock of the place and by UTC differs by quarters of an hour. What is
    told in UTC alone becomes the wall clock.
    """
    if len(when.fields) < 6 or when.offset:
        return when
    for kind, other in told:
        pair = (other.offset is None) != (when.offset is None)
        if len(other.fields) < 6 or not pair or kind not in TRUSTED:
            continue
        if when.offset is None and kind not in IN_UTC:
            continue
        local, utc = (when, other) if when.offset is None else (other, when)
        if utc.offset:
            continue
        minutes = (local.start - utc.start).total_seconds() / 60
        zone = ZONE_STEP * round(minutes / ZONE_STEP)
        if abs(minutes - zone) <= ZONE_SLACK and in_zones(zone):
            return replace(local, offset=zone)
    return when


def in_zones(minutes: int) -> bool:
    return dates_in_text.ZONES[0] <= minutes <= dates_in_text.ZONES[1]


# ---- what one statement says


def said(statement: Statement) -> When | None:
    """What a statement says, plausible or not; None where it is no date."""
    reader = READERS.get(statement.where, dates_in_text.when_in)
    return remembered(reader, statement.text) if statement.text else None


@functools.lru_cache(20_000)
def remembered(reader: Callable[[str], When | None], text: str) -> When | None:
    return reader(text)


GPS_TIME = re.compile(r"\s*(\d+)(?:/(\d+))?[\s:]+(\d+)(?:/(\d+))?[\s:]+(\d+)(?:/(\d+))?")


def gps_time(text: str) -> When | None:
    """`1998:07:04 8/1 10/1 1010/100` or with a usual time; UTC."""
    day, _, clock = dates_in_text.plain(text).strip().partition(" ")
    found = GPS_TIME.match(clock) if "/" in clock else None
    if found:
        pairs = [(int(found[at]), int(found[at + 1] or 1)) for at in (1, 3, 5)]
        clock = ":".join(f"{top // bottom:02d}" if bottom else "99" for top, bottom in pairs)
    when = dates_in_text.when_in(f"{day} {clock}")
    return replace(when, offset=0) if when is not None and len(when.fields) > 3 else when


def takeout_time(text: str) -> When | None:
    """photoTakenTime of a sidecar's JSON; its timestamp, else its text in any language."""
    try:
        taken = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(taken, dict):
        taken = taken.get("photoTakenTime")
    stamp = taken.get("timestamp") if isinstance(taken, dict) else taken
    try:
        seconds = float(stamp)
    except (TypeError, ValueError, OverflowError):
        formatted = taken.get("formatted") if isinstance(taken, dict) else None
        when = dates_in_text.when_in(formatted) if isinstance(formatted, str) else None
        return replace(when, offset=0) if when is not None and len(when.fields) > 3 else when
    return dates_in_text.from_seconds(seconds) if seconds and math.isfinite(seconds) else None


READERS: dict[str, Callable[[str], When | None]] = {
    "name": names.when_in_name,
    "folder": names.when_in_folder,
    "gps": gps_time,
    "takeout": takeout_time,
}


# ---- what is stored of a photo

LONGEST, LONGEST_WHOLE = 40, 400  # characters that are kept of a statement, and of all together


def stored(statements: Iterable[Statement], camera: Camera) -> str:
    """Statements of one file as the text of file_dates: JSON, ASCII.

    Only those that say something; of one place the first. Where they take too much room the lowest
    ranks are left out.
    """
    told: dict[str, Any] = {}
    names_it = (camera.make, camera.model, camera.software)
    facts = [
        ascii_of(fact.strip("\0 "))[:LONGEST] for fact in names_it
    ]  # no date makes room for it
    if any(facts):
        told["camera"] = facts
    for one in sorted(statements, key=lambda one: RANK.get(one.where, len(RANK))):
        text = one.text.strip("\0 ")[:LONGEST]
        if one.where not in told and said(Statement(one.where, text)) is not None:
            told[one.where] = text
    while len(text := json.dumps(told, separators=(",", ":"))) > LONGEST_WHOLE:
        told.popitem()
    return text


def ascii_of(text: str) -> str:
    """A text that JSON does not make six times as long."""
    return text.encode("ascii", "backslashreplace").decode()


@functools.lru_cache(10_000)
def restored(text: str) -> tuple[tuple[Statement, ...], Camera]:
    """What `stored` was given; of damaged text nothing."""
    try:
        told = json.loads(text or "{}")
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        return (), Camera()
    camera = told.pop("camera", ())
    good = isinstance(camera, list) and len(camera) == 3 and all(isinstance(v, str) for v in camera)
    statements = [Statement(where, said) for where, said in told.items() if isinstance(said, str)]
    return tuple(statements), Camera(*camera) if good else Camera()


def of_file(dates: str, name: str = "") -> Taken:
    """What a file alone says, by the text `stored` made, and its name."""
    statements, camera = restored(dates)
    return capture_time([*statements, Statement("name", name)] if name else statements, camera)


# ---- cameras whose clock was not set


def reset_days(photos: Iterable[tuple[str, date]]) -> dict[str, set[date]]:
    """Days on which a camera's clock was not set: {camera: first days of a year}.

    photos: (camera, the day its clock told) of all photos of cameras that can lose their clock. The
    first of January is such a day where the same camera took nothing in the RESET_NEAR days before,
    and either RESET_PHOTOS that day, or photos more than a year later.
    """
    days: dict[str, Counter[date]] = defaultdict(Counter)
    for camera, day in photos:
        days[camera][day] += 1
    found: dict[str, set[date]] = {}
    for camera, counts in days.items():
        newest = max(counts)
        for day, count in counts.items():
            if (day.month, day.day) != (1, 1) or day.year < FIRST_YEAR:
                continue
            used = any(day - timedelta(days=back + 1) in counts for back in range(RESET_NEAR))
            if not used and (count >= RESET_PHOTOS or newest - day > RESET_YEAR):
                found.setdefault(camera, set()).add(day)
    return found
