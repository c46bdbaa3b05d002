"""Hands the plan of `video` to other programs: edit lists, a table, ffmpeg's lists, chapters.

    edl        CMX 3600, a file a film; 999 events a file, as that format has it
    otio       OpenTimelineIO, one timeline of all films
    fcpxml     Final Cut Pro 7 XML (xmeml 5), a sequence a film: Premiere, Resolve
    csv        a row a clip
    concat     ffmpeg's concat demuxer, a file a film: the clips, once they are cut
    chapters   ffmetadata, a file a film; with --in-file also a copy of the film that holds them

Edit lists name the films, at the frames of the plan. PySceneDetect's writers (0.7.2) are not used:
its EDL knows no drop-frame timecode and puts what a clip becomes where it was; its OTIO says that
every film has 1980 frames; none of them names a person.

Contents
    Rates and timecodes
    Entries
    Edit lists
    Tables and ffmpeg
    Writing
"""

from __future__ import annotations

import csv
import functools
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import sort_faces as sf

film_reading = sf.companion("film_reading")

# ============================================================================
# Rates and timecodes
# ============================================================================

STANDARD_RATES = tuple(
    Fraction(*rate)
    for rate in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (48, 1), (50, 1),
                 (60000, 1001), (60, 1), (100, 1), (120000, 1001), (120, 1))
)  # fmt: skip
WHOLE_RATES = tuple(rate for rate in STANDARD_RATES if rate.denominator == 1)
RATE_SLACK = 5e-4  # share by which an average rate may miss a standard one; 24 and 23.976: 1e-3
DROPPED = {Fraction(30000, 1001): 2, Fraction(60000, 1001): 4}  # numbers a minute, SMPTE ST 12-1


def rate_of(video: sf.Video) -> Fraction:
    """Frames per second an editor counts a film by: a standard rate, else that of the film.

    Of a varying rate it is the next usual one above: editors count such films so, after the time.
    """
    near = min(STANDARD_RATES, key=lambda rate: abs(rate - video.fps))
    if abs(float(near) - video.fps) <= RATE_SLACK * video.fps:
        return near
    if video.vfr:
        return next((rate for rate in WHOLE_RATES if rate >= video.fps), near)
    return Fraction(video.fps).limit_denominator(1001) or Fraction(1)


def timecode(frame: int, rate: Fraction) -> str:
    """`HH:MM:SS:FF` of a frame number, or `HH:MM:SS;FF` with dropped numbers (SMPTE ST 12-1)."""
    base, drop = round(rate), DROPPED.get(rate, 0)
    if drop:
        minute = base * 60 - drop  # frames of a minute that drops numbers
        tens, rest = divmod(frame, minute * 10 + drop)
        frame += drop * (9 * tens + max(0, (rest - drop) // minute))
    seconds, number = divmod(frame, base)
    sign = ";" if drop else ":"
    clock = seconds // 3600, seconds // 60 % 60, seconds % 60
    return "{:02d}:{:02d}:{:02d}".format(*clock) + f"{sign}{number:02d}"


# ============================================================================
# Entries
# ============================================================================


@dataclass(frozen=True)
class Entry:
    """A clip of the plan and where an editor finds it."""

    clip: sf.PlannedClip
    video: sf.Video
    people: tuple[str, ...]  # what those are called that are seen in it
    path: Path | None  # of the clip, once it is cut

    @functools.cached_property
    def rate(self) -> Fraction:
        return rate_of(self.video)

    @functools.cached_property
    def frames(self) -> tuple[int, int]:
        """Its first frame, and the first that is no longer in it, at that rate."""
        tick = Fraction(*self.video.time_base)
        low, high = ((at - self.video.start) * tick * self.rate for at in self.clip.pts)
        return round(low), max(round(high), round(low) + 1)

    @property
    def length(self) -> int:
        return self.frames[1] - self.frames[0]

    @property
    def title(self) -> str:
        who = ", ".join(self.clip.identity or self.people)
        rank = f"rank {self.clip.rank}" if self.clip.rank else ""
        return " ".join(filter(None, [plain(who), f"({rank})" if who and rank else rank])) or "clip"

    @property
    def source_frames(self) -> int:
        return max(round(self.video.duration * self.rate), self.frames[1])


def plain(text: str) -> str:
    """Text on one line, without what XML and EDL readers stumble over."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", " ", text).split())


def entries_of(work: sf.VideoWork, plan: sf.ClipPlan, order: str) -> list[Entry]:
    """The clips of the plan, by film and time, or the best first."""
    videos = {video.id: video for video in work.list_videos()}
    known = sf.read_if_sound(work.path(sf.People), sf.People)
    called = {person.id: person.name or person.id for person in (known.people if known else ())}
    found = [
        Entry(
            clip,
            videos[clip.video],
            tuple(called.get(who, who) for who in clip.people),
            Path(plan.out) / clip.clip if plan.out and clip.clip else None,
        )
        for clip in plan.segments
        if clip.video in videos
    ]
    if order == "rank":
        return sorted(found, key=lambda entry: (entry.clip.rank, entry.video.path))
    return sorted(found, key=lambda entry: (entry.video.path, entry.clip.start, entry.clip.end))


# ============================================================================
# Edit lists
# ============================================================================

Files = Iterator[tuple[str, bytes]]  # (name in OUT, what it holds)
EDL_EVENTS = 999  # of a CMX 3600 list
EDL_REEL = 8  # characters


def by_film(entries: Sequence[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """(name for the files of a film, its entries in their order); of two of one name the second has
    eight digits of its path."""
    films: dict[str, list[Entry]] = {}
    for entry in entries:
        films.setdefault(entry.video.path, []).append(entry)
    taken: set[str] = set()
    for path, some in sorted(films.items()):
        name = sf.safe_dst_name(Path(path).stem)
        name = f"{name}-{sf.path_mark(path)}" if name.casefold() in taken else name
        taken.add(name.casefold())
        yield name, some


def edl(entries: Sequence[Entry]) -> Files:
    """An edit list a film, each clip after the one before."""
    for name, some in by_film(entries):
        parts = [some[at : at + EDL_EVENTS] for at in range(0, len(some), EDL_EVENTS)]
        for number, part in enumerate(parts, 1):
            file = name if len(parts) == 1 else f"{name}-{number}"
            yield f"{file}.edl", "\r\n".join(edl_lines(file, part)).encode("utf-8", "replace")


def edl_lines(name: str, some: Sequence[Entry]) -> Iterator[str]:
    """The lines of one list of a film."""
    video, rate, at = some[0].video, some[0].rate, 0
    reel = re.sub(r"[^A-Z0-9]", "", Path(video.path).stem.upper())[:EDL_REEL] or "AX"
    yield f"TITLE: {plain(name)[:70]}"
    yield f"FCM: {'DROP' if rate in DROPPED else 'NON-DROP'} FRAME"
    if video.vfr:
        yield f"* {plain(note_of(video, rate))}"
    for number, entry in enumerate(some, 1):
        span = *entry.frames, at, at + entry.length
        at += entry.length
        times = " ".join(timecode(frame, rate) for frame in span)
        yield f"{number:03d}  {reel:<8} V     C        {times}"
        yield f"* FROM CLIP NAME: {plain(Path(video.path).name)}"
        yield f"* COMMENT: {entry.title} {entry.clip.uuid}"
    yield ""


def note_of(video: sf.Video, rate: Fraction) -> str:
    """What an editor has to know of a film of varying rate."""
    return (
        f"{Path(video.path).name}: frames come at varying times ({video.fps:.3f} a second on "
        f"average); frame numbers count {rate} a second after the time"
    )


def otio_time(frames: float, rate: Fraction) -> dict[str, Any]:
    return {"OTIO_SCHEMA": "RationalTime.1", "rate": float(rate), "value": float(frames)}


def otio_range(start: int, length: int, rate: Fraction) -> dict[str, Any]:
    times = {"start_time": otio_time(start, rate), "duration": otio_time(length, rate)}
    return {"OTIO_SCHEMA": "TimeRange.1", **times}


def otio_clip(entry: Entry) -> dict[str, Any]:
    """A clip of the timeline, with the film it is from and what the plan says of it."""
    media = {
        "OTIO_SCHEMA": "ExternalReference.1",
        "name": plain(Path(entry.video.path).name),
        "available_range": otio_range(0, entry.source_frames, entry.rate),
        "target_url": Path(entry.video.path).as_uri(),
    }
    about = {
        "uuid": entry.clip.uuid,
        "rank": entry.clip.rank,
        "expected": entry.clip.expected,
        "people": [plain(who) for who in entry.people],
        "varying_rate": entry.video.vfr,
    }
    return {
        "OTIO_SCHEMA": "Clip.2",
        "name": entry.title,
        "source_range": otio_range(entry.frames[0], entry.length, entry.rate),
        "enabled": True,
        "media_references": {"DEFAULT_MEDIA": media},
        "active_media_reference_key": "DEFAULT_MEDIA",
        "metadata": {"sort_faces": about},
    }


def otio(entries: Sequence[Entry]) -> Files:
    """One timeline; the audio of films that have some is a track of its own, silence else."""
    gaps = [
        otio_clip(entry)
        if entry.video.audio
        else {
            "OTIO_SCHEMA": "Gap.1",
            "source_range": otio_range(0, entry.length, entry.rate),
        }
        for entry in entries
    ]
    tracks = [("Video", [otio_clip(entry) for entry in entries])]
    if any(entry.video.audio for entry in entries):
        tracks.append(("Audio", gaps))
    children = [
        {"OTIO_SCHEMA": "Track.1", "name": kind, "kind": kind, "children": clips}
        for kind, clips in tracks
    ]
    stack = {"OTIO_SCHEMA": "Stack.1", "name": "tracks", "children": children}
    timeline = {"OTIO_SCHEMA": "Timeline.1", "name": "clips", "tracks": stack}
    yield "clips.otio", json.dumps(timeline, indent=1).encode()


def element(parent: ElementTree.Element, name: str, text: object = None, **about: str) -> Any:
    """A new child, with a text where one is given."""
    child = ElementTree.SubElement(parent, name, about)
    if text is not None:
        child.text = plain(str(text))
    return child


def rate_element(parent: ElementTree.Element, rate: Fraction) -> None:
    own = element(parent, "rate")
    element(own, "timebase", round(rate))
    element(own, "ntsc", "TRUE" if rate.denominator == 1001 else "FALSE")


def fcpxml(entries: Sequence[Entry]) -> Files:
    """A project of a sequence a film."""
    root = ElementTree.Element("xmeml", version="5")
    project = element(root, "project")
    element(project, "name", "clips")
    children = element(project, "children")
    for number, (name, some) in enumerate(by_film(entries), 1):
        xml_sequence(children, name, f"film-{number}", some)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE xmeml>\n'
    yield "clips.xml", f"{head}{text}\n".encode()


def xml_sequence(parent: Any, name: str, film: str, some: Sequence[Entry]) -> None:
    """A sequence of the clips of one film, with its first audio stream."""
    video, rate = some[0].video, some[0].rate
    sequence = element(parent, "sequence")
    element(sequence, "name", name)
    element(sequence, "duration", sum(entry.length for entry in some))
    rate_element(sequence, rate)
    code = element(sequence, "timecode")
    rate_element(code, rate)
    element(code, "string", timecode(0, rate))
    element(code, "frame", 0)
    element(code, "displayformat", "DF" if rate in DROPPED else "NDF")
    media = element(sequence, "media")
    kinds = ["video", *(["audio"] if video.audio else [])]
    for kind in kinds:
        part = element(media, kind)
        if kind == "video":
            xml_size(element(part, "format"), video)
        track, at = element(part, "track"), 0
        for number, entry in enumerate(some, 1):
            item = element(track, "clipitem", id=f"{film}-{kind}-{number}")
            element(item, "name", entry.title)
            element(item, "duration", entry.source_frames)
            rate_element(item, rate)
            span = {"in": entry.frames[0], "out": entry.frames[1]}
            for key, value in {"start": at, "end": at + entry.length, **span}.items():
                element(item, key, value)
            xml_file(item, film, entry, first=kind == "video" and number == 1)
            if kind == "audio":
                source = element(item, "sourcetrack")
                element(source, "mediatype", "audio")
                element(source, "trackindex", 1)
            for linked in kinds if len(kinds) > 1 else ():
                link = element(item, "link")
                element(link, "linkclipref", f"{film}-{linked}-{number}")
                element(link, "mediatype", linked)
                element(link, "trackindex", 1)
                element(link, "clipindex", number)
            at += entry.length


def xml_size(parent: Any, video: sf.Video) -> None:
    size = element(parent, "samplecharacteristics")
    turned = video.rotation % 180 != 0
    wide, high = (video.height, video.width) if turned else (video.width, video.height)
    element(size, "width", wide)
    element(size, "height", high)


def xml_file(item: Any, film: str, entry: Entry, first: bool) -> None:
    """The film: told once, later by its id."""
    file = element(item, "file", id=film)
    if not first:
        return
    video = entry.video
    element(file, "name", Path(video.path).name)
    element(file, "pathurl", Path(video.path).as_uri())
    rate_element(file, entry.rate)
    element(file, "duration", entry.source_frames)
    media = element(file, "media")
    xml_size(element(media, "video"), video)
    if video.audio:
        element(media, "audio")


# ============================================================================
# Tables and ffmpeg
# ============================================================================

CSV_COLUMNS = ("rank", "expected", "source", "start", "end", "seconds", "start_timecode",
               "end_timecode", "rate", "first_frame", "end_frame", "people", "identity", "clip",
               "uuid")  # fmt: skip


def table(entries: Sequence[Entry]) -> Files:
    """A row a clip, in UTF-8 with a mark, so that Excel reads it as such."""
    text = io.StringIO()
    measures = sorted({name for entry in entries for name in entry.clip.envelope})
    both = [f"{name}_{which}" for name in measures for which in ("middle", "worst")]
    writer = csv.writer(text)
    writer.writerow([*CSV_COLUMNS, *both])
    for entry in entries:
        clip, (low, high) = entry.clip, entry.frames
        own = [
            *(clip.rank, clip.expected, clip.source, clip.start, clip.end),
            *(round(clip.end - clip.start, 3), timecode(low, entry.rate)),
            *(timecode(high, entry.rate), str(entry.rate), low, high),
            *("; ".join(entry.people), "; ".join(clip.identity), entry.path or "", clip.uuid),
        ]
        pairs = (clip.envelope.get(name, (None, None)) for name in measures)
        row = [*own, *(value for pair in pairs for value in pair)]
        writer.writerow(["" if value is None else value for value in row])
    yield "clips.csv", b"\xef\xbb\xbf" + text.getvalue().encode("utf-8", "surrogateescape")


def concat(entries: Sequence[Entry]) -> Files:
    """The clips of a film for `ffmpeg -f concat -safe 0 -i FILE -c copy`."""
    for name, some in by_film(entries):
        paths = [str(entry.path) for entry in some if entry.path and "\n" not in str(entry.path)]
        quoted = ["file '" + path.replace("'", "'\\''") + "'" for path in paths]
        if quoted:
            lines = ["ffconcat version 1.0", *quoted, ""]
            yield f"{name}.ffconcat", "\n".join(lines).encode("utf-8", "surrogateescape")


Chapter = tuple[int, int, str]  # from and to, in ticks since the first frame; title
NO_CLIP = "-"


def chapters_of(some: Sequence[Entry]) -> list[Chapter]:
    """The clips of a film as chapters, and what lies between as well: MP4 knows no gaps."""
    video = some[0].video
    end = round(video.duration / video.tick)
    found, at = [], 0
    for entry in sorted(some, key=lambda entry: entry.clip.pts):
        low, high = (pts - video.start for pts in entry.clip.pts)
        low, high = max(low, at), min(high, max(end, low + 1))
        if low > at:
            found.append((at, low, NO_CLIP))
        if high > low:
            found.append((low, high, entry.title))
        at = max(at, high)
    return [*found, *([(at, end, NO_CLIP)] if end > at else [])]


def chapters(entries: Sequence[Entry]) -> Files:
    """ffmetadata: `ffmpeg -i FILM -i FILE -map 0 -map_chapters 1 -c copy OUT`."""
    for name, some in by_film(entries):
        base = "{}/{}".format(*some[0].video.time_base)
        lines = [";FFMETADATA1"]
        for low, high, title in chapters_of(some):
            safe = re.sub(r"([=;#\\])", r"\\\1", title)
            lines += ["[CHAPTER]", f"TIMEBASE={base}", f"START={low}", f"END={high}",
                      f"title={safe}"]  # fmt: skip
        yield f"{name}.chapters.txt", "\n".join([*lines, ""]).encode()


LISTS: dict[str, Callable[[Sequence[Entry]], Files]] = {
    "edl": edl,
    "otio": otio,
    "fcpxml": fcpxml,
    "csv": table,
    "concat": concat,
    "chapters": chapters,
}
CHAPTER_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm"})  # take chapters; else .mkv


def write_with_chapters(path: Path, entries: Sequence[Entry]) -> None:
    """A copy of a film, packet by packet, that holds its clips as chapters. Raises VideoError."""
    import av

    video = sf.checked_source(entries[0].video)
    tick = Fraction(*video.time_base)
    told = [
        {"id": number, "start": low, "end": high, "time_base": tick, "metadata": {"title": title}}
        for number, (low, high, title) in enumerate(chapters_of(entries), 1)
    ]
    form = "matroska" if path.suffix == ".mkv" else path.suffix[1:].replace("m4v", "mp4")
    with sf.writing(path) as part, film_reading.open_video(video.path) as (container, _):
        try:
            with av.open(str(part), "w", format=form) as out:
                copied = {
                    stream.index: out.add_stream_from_template(stream)
                    for stream in container.streams
                    if stream.type in ("video", "audio", "subtitle")
                }
                out.metadata.update(container.metadata)
                out.set_chapters(told)
                for packet in container.demux([container.streams[at] for at in copied]):
                    if packet.dts is not None:
                        packet.stream = copied[packet.stream.index]
                        out.mux(packet)
        except (av.FFmpegError, ValueError) as error:
            raise sf.VideoError(f"no copy with chapters: {sf.one_line(error)}") from None


# ============================================================================
# Writing
# ============================================================================


class WrittenLists(sf.OwnFile, tag="lists", kw_only=True):
    """lists.json: what an earlier run wrote into OUT, which goes when it is no longer wanted."""

    of: str  # the work folder
    files: list[str]


def write_lists(work: sf.VideoWork, out: Path, options: sf.ListOptions) -> sf.Outcome:
    """Write the lists the options ask for; one that cannot be written costs itself."""
    plan = work.read(sf.ClipPlan)
    entries = entries_of(work, plan, options.order)
    if not entries:
        raise sf.SortFacesError(
            f"{work.folder}: no segment is planned; the page of `video report` says what was left "
            "out, `video score` takes other thresholds"
        )
    kinds = dict.fromkeys(options.to) or dict.fromkeys(LISTS)
    sf.make_folder(out)
    failed, files = [], []
    with sf.locked(out / sf.LOCK_NAME, f"folder of lists {out}"):
        sf.remove_unfinished(out)
        note, old = out / "lists.json", set()
        if note.exists():
            known = sf.read_file(note, WrittenLists)
            if known.of != str(work.folder.resolve()):
                raise sf.SortFacesError(f"{out}: holds lists of {known.of}; name another folder")
            old = set(known.files)
        for kind in kinds:
            made = list(LISTS[kind](entries))
            if not made:
                cut = (
                    "no clip could be cut"
                    if plan.out
                    else "no clip is cut yet; run `video cut` first"
                )
                failed.append(f"{kind}: {cut}")
            for name, data in made:
                sf.write_bytes(sf.place_in(out, name), data)
                files.append(name)
        if options.in_file:
            files += films_with_chapters(out, entries, failed)
        for name in old - set(files):
            if sf.Path(name).name == name:
                (out / name).unlink(missing_ok=True)
        sf.write_file(note, WrittenLists(of=str(work.folder.resolve()), files=sorted(files)))
    varying = {e.video.id: note_of(e.video, e.rate) for e in entries if e.video.vfr}
    drop = {Path(entry.video.path).name for entry in entries if entry.rate in DROPPED}
    result = {
        "out": str(out),
        "clips": len(entries),
        "files": sorted(files),
        "drop_frame": sorted(drop),
        "varying_rate": sorted(varying.values()),
        "failed": failed,
    }
    return sf.Outcome(result, not failed)


def films_with_chapters(out: Path, entries: Sequence[Entry], failed: list[str]) -> list[str]:
    """Names of the copies of films with chapters; failed: collects what could not be copied."""
    files = []
    films = list(by_film(entries))
    for name, some in sf.progress(films, len(films), "copy"):
        suffix = Path(some[0].video.path).suffix.lower()
        file = f"{name}.chapters{suffix if suffix in CHAPTER_SUFFIXES else '.mkv'}"
        try:
            write_with_chapters(sf.place_in(out, file), some)
            files.append(file)
        except sf.VideoError as error:
            sf.log.warning("%s: %s", some[0].video.path, error)
            failed.append(f"{some[0].video.path}: {error}")
    return files
