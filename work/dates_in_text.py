"""Dates as programs and people write them: one text to a wall clock with what is known of it.

A field that cannot be (day 00, month 13, second 60) voids itself and all finer ones; what stands
before it stays. Exactly midnight is no time but a day. A date that can be read day first and month
first is known as far as both readings agree. The wall clock is kept, its zone stands beside it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import sort_faces as sf

EPOCH = sf.EPOCH
PRECISIONS = {1: "year", 2: "month", 3: "day", 5: "minute", 6: "second"}  # by known fields
ZONES = (-12 * 60, 14 * 60)  # minutes east of UTC, the least and the most there is
MOST_TEXT = 200  # characters; a date is never longer, and patterns stay quick


@dataclass(frozen=True)
class When:
    """A point on a wall clock, as far as it is known."""

    fields: tuple[int, ...]  # year[, month[, day[, hour, minute[, second]]]]; they can be
    offset: int | None = None  # minutes east of UTC, where told
    midnight: bool = False  # of a day: told as exactly 00:00, as clocks that were never set do

    @property
    def precision(self) -> str:
        return PRECISIONS[len(self.fields)]

    @property
    def start(self) -> datetime:
        """The first moment it can mean, the wall clock read as UTC."""
        return datetime(*(*self.fields, 1, 1)[: max(3, len(self.fields))], tzinfo=timezone.utc)

    @property
    def seconds(self) -> float:
        """The same in seconds since 1970; negative before."""
        return (self.start - EPOCH).total_seconds()

    def holds(self, finer: When) -> bool:
        """Whether `finer` lies inside it and says more."""
        count = len(self.fields)
        return len(finer.fields) > count and finer.fields[:count] == self.fields

    def text(self) -> str:
        """ISO 8601, cut to what is known."""
        year, *rest = self.fields
        marks = ("-", "-", "T", ":", ":")
        return f"{year:04d}" + "".join(
            f"{mark}{value:02d}" for mark, value in zip(marks, rest, strict=False)
        )


def made(numbers: Sequence[int | None], offset: int | None = None) -> When | None:
    """year, month, ... as far as they can be, None for a blank one; None if not even the year.

    An hour alone tells no more than the day; midnight is a day.
    """
    limits = ((1, 9999), (1, 12), (1, 31), (0, 23), (0, 59), (0, 59))
    good: list[int] = []
    for value, (low, high) in zip(numbers, limits, strict=False):
        if value is None or not low <= value <= high or not is_day([*good, value][:3]):
            break
        good.append(value)
    midnight = len(good) > 4 and not any(good[3:])
    if len(good) == 4 or midnight:
        good = good[:3]
    timed = len(good) > 3 or midnight
    return When(tuple(good), offset if timed else None, midnight) if good else None


def is_day(fields: Sequence[int]) -> bool:
    """Whether the month has such a day; true of less than a day."""
    if len(fields) < 3:
        return True
    try:
        datetime(*fields)
    except ValueError:
        return False
    return True


def shared(readings: Sequence[When | None]) -> When | None:
    """What several readings of one text agree in."""
    known = [one for one in readings if one is not None]
    if not known:
        return None
    fields: list[int] = []
    for values in zip(*(one.fields for one in known), strict=False):
        if len(set(values)) > 1:
            break
        fields.append(values[0])
    if len(fields) == len(known[0].fields):
        return known[0]
    return made(fields)


def from_seconds(seconds: float, offset: int | None = 0) -> When | None:
    """A moment in seconds since 1970 (of UTC) as a wall clock there; None beyond the calendar."""
    try:
        return made((EPOCH + timedelta(seconds=int(seconds))).timetuple()[:6], offset)
    except (OverflowError, ValueError):
        return None


# ---- words

MONTHS = [  # names of the months, in the languages that phones and people write them in
    "january jan januar jänner jän januari janvier janv enero ene janeiro gennaio gen styczeń "
    "stycznia sty leden ledna január januára ianuarie ian январь января янв січень січня січ "
    "siječanj siječnja tammikuu tammikuuta tammi ocak oca január janúar gener ιανουαρίου ιαν يناير",
    "february feb februar februari février févr fevrier febrero fevereiro fev febbraio luty "
    "lutego lut únor února február februára februarie февраль февраля фев февр лютий лютого лют "
    "veljača veljače helmikuu helmikuuta helmi şubat şub február febrúar febrer φεβρουαρίου φεβ "
    "فبراير",
    "march mar märz maerz mrz mär maart mrt mars marzo março marec marzec marca březen března "
    "martie март марта мар березень березня бер ožujak ožujka maaliskuu maaliskuuta maalis mart "
    "március márc març μαρτίου μαρ مارس marts",
    "april apr avril avr abril abr aprile kwiecień kwietnia kwi duben dubna apríl apríla aprilie "
    "апрель апреля апр квітень квітня кві travanj travnja huhtikuu huhtikuuta huhti nisan nis "
    "április ápr απριλίου απρ أبريل",
    "may mai mei mayo maio maggio mag maj maja květen května máj mája май мая травень травня тра "
    "svibanj svibnja toukokuu toukokuuta touko mayıs május maí maig μαΐου μαΐ مايو",
    "june jun juni juin junio junho giugno giu czerwiec czerwca cze červen června jún júna iunie "
    "iun июнь июня июн червень червня чер lipanj lipnja kesäkuu kesäkuuta kesä haziran haz június "
    "júní juny ιουνίου ιουν يونيو",
    "july jul juli juillet juil julio julho luglio lug lipiec lipca červenec července júl júla "
    "iulie iul июль июля июл липень липня лип srpanj srpnja heinäkuu heinäkuuta heinä temmuz tem "
    "július júlí juliol ιουλίου ιουλ يوليو",
    "august aug août aout agosto ago augustus sierpień sierpnia sie srpen srpna augusta август "
    "августа авг серпень серпня сер kolovoz kolovoza elokuu elokuuta elo ağustos ağu augusztus "
    "ágúst agost αυγούστου αυγ أغسطس",
    "september sep sept septembre septiembre setembro settembre wrzesień września wrz září "
    "septembra septembrie сентябрь сентября сен сент вересень вересня вер rujan rujna syyskuu "
    "syyskuuta syys eylül eyl szeptember szept setembre σεπτεμβρίου σεπ سبتمبر",
    "october oct oktober okt octobre octubre outubro out ottobre ott październik października paź "
    "říjen října október októbra octombrie октябрь октября окт жовтень жовтня жов "
    "lokakuu lokakuuta loka ekim eki október οκτωβρίου οκτ أكتوبر",
    "november nov novembre noviembre novembro studeni studenoga novembra noiembrie ноябрь ноября "
    "ноя нояб marraskuu marraskuuta marras kasım kas nóvember νοεμβρίου νοε نوفمبر",
    "december dec dezember dez decembre décembre déc diciembre dic dezembro dicembre grudzień "
    "grudnia gru prosinec prosince decembra decembrie декабрь декабря дек грудень грудня груд "
    "prosinac prosinca joulukuu joulukuuta joulu aralık ara desember desembre δεκεμβρίου δεκ "
    "ديسمبر",
]
MONTH_OF = {
    unicodedata.normalize("NFKC", word): number
    for number, words in enumerate(MONTHS, 1)
    for word in words.split()
}  # "listopad" is left out: November in Poland, October in Croatia
WORD = re.compile(r"[^\W\d_]+", re.UNICODE)
SHORT_IN_NAMES = frozenset(
    WORD.findall("jan feb mar apr may mai maj jun jul aug sep oct okt nov dec dez")
)

# The two halves of the day, by how phones write them; before or after the hour.
BEFORE_NOON = (
    *("am", "a.m.", "a. m.", "vorm.", "öö", "de.", "sa", "π.μ.", "ص", "पूर्वाह्न"),
    *("上午", "午前", "오전", "凌晨", "早上"),
)
AFTER_NOON = (
    *("pm", "p.m.", "p. m.", "nachm.", "ös", "du.", "ch", "μ.μ.", "م", "अपराह्न"),
    *("下午", "午後", "오후", "晚上", "中午"),
)
HALF_OF = dict.fromkeys(BEFORE_NOON, 0) | dict.fromkeys(AFTER_NOON, 12)
HALF = (
    "(?:"
    + "|".join(re.escape(half) for half in sorted(HALF_OF, key=len, reverse=True))
    + r")(?![^\W\d_])"
)
HALF_BEFORE = "(?:" + "|".join(re.escape(h) for h in HALF_OF if not h.isascii()) + "|[ap]\\.?m\\.?)"

CLOCK = re.compile(  # after a date; blank fields stand for unknown ones
    rf"(?:\.(?=\s)|[-:](?=\d\d:\d\d:\d\d))?[\s,;T_]*(?:[гр]\.,?\s*)?"
    rf"(?:(?:at|um|à|alle|a las|kl\.|klo|в|o|om|às)\s+)?"
    rf"(?P<before>{HALF_BEFORE})?\s*(?P<hour>\d{{1,2}})\s?[:.hH時时시点]\s?"
    r"(?P<minute>\d{1,2}|\s+)(?:\s?[:.m分분]\s?(?P<second>\d{1,2}|\s+)(?P<part>[.,]\d+)?)?"
    rf"(?:\s?[秒초s])?\s*(?P<after>{HALF})?",
    re.IGNORECASE,
)
PACKED_CLOCK = re.compile(
    r"[\sT_-]*(\d\d)(?:(\d\d)(\d\d)?|(?<=[\s-]\d\d)[- ](\d\d)[- ](\d\d))(?!\d)(?P<part>[.,]\d+)?"
)
ZONE = re.compile(
    r"\s*(?:\(?(?P<name>Z|UTC|GMT|[A-Z]{3,4})\b\)?)?\s*(?:(?P<sign>[+\-−])(?P<hours>\d{2}):?'?(?P<minutes>\d{2})?)?"
)
NAMED_ZONES = {  # RFC 2822, and those of central Europe
    "Z": 0, "UTC": 0, "GMT": 0, "EST": -300, "EDT": -240, "CST": -360, "CDT": -300, "MST": -420,
    "MDT": -360, "PST": -480, "PDT": -420, "CET": 60, "CEST": 120, "MEZ": 60, "MESZ": 120,
}  # fmt: skip


def clock_after(text: str) -> tuple[list[int | None], int | None]:
    """([hour, minute, second], offset) of what follows a date; as much as there is."""
    found = CLOCK.match(text)
    if found:
        hour = int(found["hour"])
        half = (found["before"] or found["after"] or "").lower()
        half = half.replace(" ", "") if half[:1] in "ap" else half
        half = {"a.m": "a.m.", "p.m": "p.m.", "am.": "am", "pm.": "pm"}.get(half, half)
        if half:
            noon = HALF_OF.get(half, 12 * half.startswith("p"))
            hour = hour % 12 + noon if hour <= 12 else hour
        numbers = [hour, number_of(found["minute"]), number_of(found["second"])]
    else:
        found = PACKED_CLOCK.match(text)
        if not found:
            return [], None
        numbers = [number_of(value) for value in found.groups()[:5] if value]
    if found["part"] and not any(numbers) and int(found["part"][1:]):
        numbers[2:] = [1]  # a moment after midnight, told to fractions: no mere day
    return numbers, zone_of(text[found.end() :])


def number_of(text: str | None) -> int | None:
    """A field of digits; None where it is blank."""
    return int(text) if text and text.strip().isdecimal() else None


def zone_of(text: str) -> int | None:
    """Minutes east of UTC that a text begins with; None where it tells none that exists."""
    found = ZONE.match(text)
    if found is None or not found.group().strip():
        return None
    if found["sign"]:
        minutes = int(found["hours"]) * 60 + int(found["minutes"] or 0)
        offset = minutes if found["sign"] == "+" else -minutes
        real = int(found["minutes"] or 0) < 60 and ZONES[0] <= offset <= ZONES[1]
        return offset if real else None
    return NAMED_ZONES.get(found["name"])


# ---- values

BLANK = r"(?:\d{1,2}|\s{1,2})"
YEAR_FIRST = re.compile(
    rf"(?P<year>\d{{4}})(?!\d)(?:\s*[:\-/._ ]\s?(?P<month>{BLANK})(?!\d)"
    rf"(?:\s*[:\-/._ ]\s?(?P<day>{BLANK})(?!\d))?)?"
)
PACKED = re.compile(r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})(?=\D|$|\d{4}(?:\d\d)?(?!\d))")
PDF_MONTH = re.compile(r"^(\d{4})(\d\d)$")
MONTH_YEAR = re.compile(r"(\d{1,2})\s?[./-]\s?(\d{4})$")
YEAR_LAST = re.compile(
    r"(?P<a>\d{1,2})\s?(?P<sep>[./\-: ])\s?(?P<b>\d{1,2})\s?(?P=sep)\s?(?P<year>\d{4})(?!\d)"
)
CJK_DATE = re.compile(r"(\d{4})\s*[年년]\s*(?:(\d{1,2})\s*[月월]\s*(?:(\d{1,2})\s*[日일])?)?")
CJK_WEEKDAY = re.compile(  # or the name of a zone; between the day and its time
    r"\s*(?:\(?(?:(?:星期|周|週)[一二三四五六日天]|[月火水木金土日월화수목금토일])(?:曜日|요일)?\)?)?"
    r"\s*(?:\[?UTC\]?)?\s*"
)


def plain(text: object) -> str:
    """A text as dates are looked for in it: usual digits and spaces, nothing around it."""
    cut = str(text)[:MOST_TEXT]
    if cut.isascii():
        return cut.replace("\0", " ").rstrip()
    cut = unicodedata.normalize("NFKC", cut).replace("\0", " ")
    return "".join(ascii_digit(mark) for mark in cut).rstrip()


def ascii_digit(mark: str) -> str:
    return str(unicodedata.decimal(mark)) if not mark.isascii() and mark.isdecimal() else mark


def when_in(text: object) -> When | None:
    """What a value of EXIF, XMP, IPTC, PNG or another program says; None where it is no date."""
    value = plain(text).lstrip(" \t\r\n\"'")
    if value.startswith("D:"):
        value = PDF_MONTH.sub(r"\1-\2", value[2:])
    cjk = CJK_DATE.match(value)
    if cjk:
        clock, offset = clock_after(CJK_WEEKDAY.sub(" ", value[cjk.end() :], count=1))
        return made([*map(number_of, cjk.groups()), *clock], offset)
    for pattern in (YEAR_FIRST, PACKED):
        found = pattern.match(value)
        if found:
            numbers = [number_of(found[name]) for name in ("year", "month", "day")]
            clock, offset = clock_after(value[found.end() :])
            when = made([*numbers, *clock], offset) if numbers[0] else None
            words = in_words(value) if when is not None and numbers[1] is None else None
            return words if words is not None and when.holds(words) else when
    found = YEAR_LAST.match(value)
    if found:
        clock, offset = clock_after(value[found.end() :])
        day = both_orders(int(found["year"]), int(found["a"]), int(found["b"]), found["sep"])
        return day and with_clock(day, clock, offset)
    found = MONTH_YEAR.match(value)
    return made([int(found[2]), int(found[1])]) if found else in_words(value)


def with_clock(day: When, clock: Sequence[int | None], offset: int | None) -> When | None:
    """A day with its time; less than a day has none."""
    return made([*day.fields, *clock], offset) if len(day.fields) == 3 else day


def both_orders(year: int, first: int, second: int, mark: str = "-") -> When | None:
    """first and second, of which one is the month; where both can be, what both readings share.

    With dots the day comes first. None where neither order is a day.
    """
    day_first = whole_day(year, second, first)
    if mark == ".":
        return day_first
    return shared([day_first, whole_day(year, first, second)])


def whole_day(year: int, month: int, day: int) -> When | None:
    """A day, or None where there is no such."""
    when = made([year, month, day])
    return when if when is not None and len(when.fields) == 3 else None


MONTH = r"(?P<month>[^\W\d_]{3,})"
DAY_WORDS = re.compile(  # 4 July 1998, 4. Juli 1998, 4 de julio de 1998, 4th of July, 1998
    r"(?<!\d)(?P<day>\d{1,2})(?:st|nd|rd|th|er|º|ª)?[.,]?[\s\-_]*(?:de |of |di |den )?"
    + MONTH
    + r"\.?,?[\s\-_]*(?:de |del |of )?(?P<year>\d{4})(?!\d)"
)
US_WORDS = re.compile(  # July 4, 1998; Jul  4 10:10:10 1998; July 4-12, 1998
    MONTH + r"\.?[\s\-_]*(?P<day>\d{1,2})(?:st|nd|rd|th)?(?P<until>\s?[-–]\s?\d{1,2})?(?!\d)"
    r"(?P<clock>\s+\d{1,2}:\d{2}(?::\d{2})?(?:\s*[ap]m)?)?(?:\s+(?:[A-Z]{3,4}|[-+]\d{4}))?"
    r"[,.\s\-_]+(?P<year>\d{4})(?!\d)",
    re.IGNORECASE,
)
YEAR_WORDS = re.compile(  # 1998 July 4, 1998-Jul-04
    r"(?<!\d)(?P<year>\d{4})[.,]?[\s\-_]*" + MONTH + r"\.?[\s\-_]+(?P<day>\d{1,2})(?!\d)"
)
MONTH_WORDS = re.compile(MONTH + r"\.?,?[\s\-_]*(?:de |del )?(?P<year>\d{4})(?!\d)")
YEAR_MONTH_WORDS = re.compile(  # 1998 July; a short form only where no other word follows
    r"(?<!\d)(?P<year>\d{4})[.,]?[\s\-_]+"
    r"(?P<month>[^\W\d_]{4,}|[^\W\d_]{3}(?=\.?[\s\-_]*(?:\d|$)|\s-\s))(?![^\W\d_])"
)
WORDED = (DAY_WORDS, US_WORDS, YEAR_WORDS, MONTH_WORDS, YEAR_MONTH_WORDS)
SPAN_MARK = r"\s*(?:-|–|/|\+|&|u\.|bis|to|till|und|and|et|y|e|i|og|och)\s*$"
DAYS_BEFORE = re.compile(r"\d{1,2}\.?" + SPAN_MARK)  # 04.-12.07.1998
MONTH_BEFORE = re.compile(r"([^\W\d_]{3,})\.?" + SPAN_MARK)  # July-August 1998


def in_words(value: str) -> When | None:
    """A date with the month as a word; None without one."""
    return next(all_in_words(value), None)


def all_in_words(value: str, strict: bool = False) -> Iterator[When]:
    """Every date with its month as a word. strict: as for month_named, where no day is told.

    Of several days or months up to a date, what they share.
    """
    taken: list[tuple[int, int]] = []
    for pattern in WORDED:
        for found in pattern.finditer(value):
            if any(found.start() < end and start < found.end() for start, end in taken):
                continue
            month = month_named(found["month"], strict and pattern is not DAY_WORDS)
            if not month:
                continue
            taken.append(found.span())
            when = worded(value, found, month)
            if when is not None:
                yield when


def worded(value: str, found: re.Match[str], month: int) -> When | None:
    """What one date of WORDED says, by what stands before it and the time that follows."""
    facts, before = found.groupdict(), value[: found.start()]
    year, day = int(found["year"]), number_of(facts.get("day"))
    since = MONTH_BEFORE.search(before)
    if since and month_named(since[1]):
        return made([year])
    if facts.get("until") or (day and facts.get("clock") is None and DAYS_BEFORE.search(before)):
        return made([year, month])
    tail = facts.get("clock") or value[found.end() :]
    clock, offset = clock_after(tail) if day else ([], None)
    return made([year, month, day, *clock], offset)


def month_named(word: str, strict: bool = False) -> int:
    """1 to 12, or 0 for no month. strict: no short form that is also another word."""
    word = word.lower()
    if strict and len(word) == 3 and word.isascii() and word not in SHORT_IN_NAMES:
        return 0
    return MONTH_OF.get(word, 0)
