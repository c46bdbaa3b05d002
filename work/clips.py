"""Carries out the plan of `video cut`: a folder of clips, each written, checked and remembered.

A clip is written packet by packet: those of the source where they can be copied, new ones where
the source's need frames outside the clip. Both carry their parameter sets in front of key frames,
so a decoder follows the change. What was written is then decoded and compared, and the work
folder's clips.jsonl remembers it: what lies there as it was written is not made again.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

import sort_faces as sf

if TYPE_CHECKING:
    from fractions import Fraction

    from av import AudioStream, Packet, VideoCodecContext, VideoFrame, VideoStream
    from av.container import InputContainer, OutputContainer

CLIP_ENCODERS = {"h264": "libx264", "hevc": "libx265"}  # everything else becomes H.264
CLIP_CRF = {"libx264": "17", "libx265": "19"}  # chosen: no loss a face swap would show
CLIP_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "alac"})  # mp4 takes these as they are
AAC_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 11025, 8000)  # Hz; the first for all else
CLIP_DIFFERENCE = 12.0  # mean grey levels between a frame and its re-encoded copy; measured < 3
CLIP_INTERLEAVE = 5  # s; how much later in a file than in time a packet may lie
CLIP_TIME_SLACK = 0.002  # s; time bases round differently
NAL_START = re.compile(rb"\x00\x00\x00?\x01")
PARAMETER_SETS = {"h264": (7, 8), "hevc": (32, 33, 34)}  # NAL unit types of SPS, PPS (and VPS)


@dataclass(frozen=True)
class Cut:
    """One clip to write."""

    video: sf.Video
    start: int  # pts of the first frame
    end: int  # pts of the first frame that is no longer in it
    path: Path
    frames: np.ndarray  # (n,) int64 pts of all frames of the video
    joined: sf.Joined | None = None  # where the video's time begins anew


@dataclass(frozen=True)
class ClipParts:
    """How a clip is made of packets: frames before and after the copied ones are encoded anew."""

    copied: list[int]  # packets in decode order; [] encodes everything
    first: int  # pts of the first frame of the clip
    key: int  # pts of the first copied frame
    tail: int  # pts of the first frame after the copied ones


def plan_clip(
    pts: Sequence[int], key: Sequence[bool], start: int, end: int, copy: bool
) -> ClipParts:
    """Which packets (pts and key flag, in decode order) a clip of the frames [start, end) copies.

    Copying begins at the first key frame in the clip (with `copy`: the last one up to `start`)
    and ends where the packets so far hold exactly the frames before a moment up to `end`: a frame
    that is predicted from both sides needs the one after it. Frames that follow a key frame in
    the file but precede it on the screen need the group before and are left to the encoder.
    """
    keys = [at for at, is_key in enumerate(key) if is_key]
    if copy:
        keys = [at for at in keys if pts[at] <= start][-1:] or keys[:1]
    else:
        keys = [at for at in keys if start <= pts[at] < end]
    if not keys:
        return ClipParts([], start, end, end)
    kept = [at for at in range(keys[0], len(pts)) if pts[at] >= pts[keys[0]]]
    following = [*itertools.accumulate((pts[at] for at in reversed(kept)), min)][::-1]
    newest, whole = -math.inf, 0
    for number, at in enumerate(kept, 1):
        newest = max(newest, pts[at])
        if newest < end and (number == len(kept) or newest < following[number]):
            whole = number
    first = pts[keys[0]] if copy else start
    tail = following[whole] if whole < len(kept) else end
    return ClipParts(kept[:whole], first, pts[keys[0]], min(tail, end))


class MadeClip(sf.Record):
    """How a clip was made."""

    mode: str
    fallback: str  # why not in the mode that was asked for, "" if it was
    checked: sf.Checked
    notes: list[str] = []


class ClipWriter:
    """Writes one clip: `copy` packets, `encode` frames, or `smart`, both."""

    def __init__(self, cut: Cut, mode: str) -> None:
        self.cut, self.mode = cut, mode
        self.same_codec = cut.video.codec in CLIP_ENCODERS
        self.codec = cut.video.codec if self.same_codec or mode == "copy" else "h264"
        self.first = cut.start  # pts of the first frame written
        self.joins: list[int] = []  # pts of frames where copied and encoded ones meet

    def write(self, part: Path) -> None:
        """Write the clip to `part`. Raises VideoError where the mode does not work."""
        import av

        with sf.open_video(self.cut.video.path) as (container, stream):
            packets, sound = self.read_packets(container, stream)
            with av.open(str(part), "w", format="mp4") as out:
                track, pictures = self.picture_track(out, stream, packets)
                shift = restamp(pictures, self.cut, stream.time_base)
                heard = {
                    source: [packet for packet in some if packet_end(packet) > shift]
                    for source, some in sound.items()
                }
                voices = [sound_track(out, *pair) for pair in heard.items() if pair[1]]
                for packet in pictures:
                    packet.stream = track
                    out.mux(packet)
                for voice, some in voices:
                    for packet in some:
                        packet.pts -= round(shift / packet.time_base)
                        packet.dts = packet.pts
                        packet.stream = voice
                        out.mux(packet)

    def picture_track(
        self, out: OutputContainer, stream: VideoStream, packets: list[Packet]
    ) -> tuple[VideoStream, list[Packet]]:
        """(a track of the clip, its packets in decode order, stamped as in the source)."""
        if self.same_codec or self.mode == "copy":
            track, pictures = same_stream(out, stream), self.joined(stream, packets)
            if self.mode != "copy" and pictures:
                head = parameter_sets(bytes(pictures[0]), self.codec)
                track.codec_context.extradata = head
        else:
            track = out.add_stream(CLIP_ENCODERS[self.codec])
            pictures = self.encoded(stream, self.cut.start, self.cut.end, track.codec_context)
        if not pictures:
            raise sf.VideoError("no frame of the clip can be read")
        return track, pictures

    def joined(self, stream: VideoStream, packets: list[Packet]) -> list[Packet]:
        """The clip's packets in decode order, copied where the mode and the source allow."""
        cut, copy = self.cut, self.mode == "copy"
        parts = ClipParts([], cut.start, cut.end, cut.end)
        if self.mode != "encode":
            pts = [packet.pts for packet in packets]
            parts = plan_clip(pts, [p.is_keyframe for p in packets], cut.start, cut.end, copy)
        copied = [packets[at] for at in parts.copied]
        self.first = parts.first
        if copy:
            if not copied:
                raise sf.VideoError("no key frame begins anything that could be copied")
            return copied
        if not copied:
            return self.encoded(stream, cut.start, cut.end)
        self.joins = [pts for pts in (parts.key, parts.tail) if cut.start < pts < cut.end]
        head = self.encoded(stream, cut.start, parts.key)
        tail = self.encoded(stream, parts.tail, cut.end)
        return [*head, *with_start_codes(stream, copied, self.codec), *tail]

    def read_packets(
        self, container: InputContainer, stream: VideoStream
    ) -> tuple[list[Packet], dict[AudioStream, list[Packet]]]:
        """The packets of the clip: of the video from a key frame before it, and of each sound."""
        high = self.cut.end * stream.time_base
        sound = {track: [] for track in container.streams.audio if track.codec_context}
        packets: list[Packet] = []
        container.seek(self.seek_point(container, stream), stream=stream)
        for packet in container.demux(stream, *sound):
            if packet.pts is None:
                continue
            time = packet.pts * packet.time_base
            if packet.stream is not stream:
                if time < high:
                    sound[packet.stream].append(packet)
            elif (packet.pts if packet.dts is None else packet.dts) < self.cut.end:
                packets.append(packet)
            if time > high + CLIP_INTERLEAVE:
                break
        return packets, sound

    def seek_point(self, container: InputContainer, stream: VideoStream) -> int:
        """A pts to seek to that lands on a key frame at or before the clip."""
        at, back = self.cut.start, sf.SEEK_BACK
        while at > self.cut.video.start:
            container.seek(at, stream=stream)
            keys = (p for p in container.demux(stream) if p.is_keyframe and p.pts is not None)
            packet = next(keys, None)
            if packet is not None and packet.pts <= self.cut.start:
                return at
            at, back = at - round(back / stream.time_base), 2 * back
        return self.cut.video.start - round(2 * sf.SEEK_BACK / stream.time_base)

    def encoded(
        self,
        stream: VideoStream,
        start: int,
        end: int,
        encoder: VideoCodecContext | None = None,
    ) -> list[Packet]:
        """Packets of the frames [start, end), encoded anew; by default as the source's codec."""
        packets: list[Packet] = []
        aspect = stream.sample_aspect_ratio
        ready = False
        for frame in frames_from(self.cut.video.path, start) if start < end else ():
            if frame.pts >= end:
                break
            if frame.rotation and not self.same_codec:  # nothing else says that it is turned
                frame, aspect = self.turned(frame), None
            if not ready:
                encoder = self.prepare(encoder, frame, stream)
                encoder.sample_aspect_ratio = aspect or 1
                ready = True
            if frame.format.name != encoder.pix_fmt:
                frame = frame.reformat(format=encoder.pix_fmt)
            frame.pict_type = 0  # whatever it was in the source
            packets += encoder.encode(frame)
        return [*packets, *encoder.encode(None)] if ready else []

    def turned(self, frame: VideoFrame) -> VideoFrame:
        """A frame with its picture upright."""
        import av

        result = av.VideoFrame.from_ndarray(sf.upright_frame(frame, self.cut.video.sar), "bgr24")
        result.pts, result.time_base = frame.pts, frame.time_base
        return result.reformat(format="yuv420p")

    def prepare(
        self, encoder: VideoCodecContext | None, frame: VideoFrame, stream: VideoStream
    ) -> VideoCodecContext:
        """An encoder that gives what the source has: size, pixel format, colours, time base."""
        import av

        name = CLIP_ENCODERS[self.codec]
        encoder = encoder or av.CodecContext.create(name, "w")
        formats = {item.name for item in encoder.codec.video_formats}
        encoder.width, encoder.height = frame.width, frame.height
        encoder.pix_fmt = frame.format.name if frame.format.name in formats else "yuv420p"
        encoder.time_base = stream.time_base
        encoder.framerate = stream.average_rate or 25
        for key in ("color_range", "color_primaries", "color_trc", "colorspace"):
            setattr(encoder, key, getattr(frame, key))
        encoder.options = {"crf": CLIP_CRF[name], "preset": "medium"}
        if self.joins:  # frames come as they are shown: none waits across a join
            encoder.options |= {"bf": "0"}
        if name == "libx265":
            quiet = "log-level=none" + ":bframes=0" * bool(self.joins)
            encoder.options |= {"x265-params": quiet}
        return encoder


def frames_from(path: str, start: int) -> Iterator[VideoFrame]:
    """Frames of a video from `start` (pts) on, in display order."""
    with sf.open_video(path) as opened:
        yield from sf.sought_frames(*opened, start)


def with_start_codes(
    stream: VideoStream, packets: Sequence[Packet], codec: str
) -> Iterator[Packet]:
    """Copied packets in the form encoders give: start codes, parameter sets before key frames."""
    import av

    if (stream.codec_context.extradata or b"\0")[0] == 0:  # a transport stream has that form
        yield from packets
        return
    change = av.BitStreamFilterContext(f"{codec}_mp4toannexb", stream)
    for packet in packets:
        yield from change.filter(packet)


def parameter_sets(data: bytes, codec: str) -> bytes:
    """The parameter sets in front of a key frame, for the header of the file."""
    kinds = PARAMETER_SETS[codec]
    found = []
    for unit in NAL_START.split(data):
        kind = -1 if not unit else unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63
        if kind in kinds:
            found.append(b"\0\0\0\1" + unit)
    if len(found) < len(kinds):
        raise sf.VideoError("its key frames carry no parameter sets")
    return b"".join(found)


def restamp(packets: list[Packet], cut: Cut, base: Fraction) -> Fraction:
    """Make the clip begin at 0; returns how much earlier its packets now are, in seconds.

    packets: in decode order, with the pts of the source, in units of `base` seconds. Each gets the
    time to the next shown frame as its duration. A file must be decoded in rising order and no
    frame later than it is shown, so the n-th packet takes the n-th smallest pts as its dts, less
    what the packet that would come latest after its own pts needs.
    """
    shown = sorted(packet.pts for packet in packets)
    late = max(pts - packet.pts for pts, packet in zip(shown, packets, strict=True))
    length = {int(a): int(b - a) for a, b in itertools.pairwise([*shown, cut.end])}
    for pts, packet in zip(shown, packets, strict=True):
        packet.duration = max(1, length[packet.pts])
        packet.time_base = base
        packet.pts, packet.dts = packet.pts - shown[0], pts - late - shown[0]
    return shown[0] * base


def packet_end(packet: Packet) -> Fraction:
    """When what a packet holds is over, s."""
    return (packet.pts + (packet.duration or 0)) * packet.time_base


def same_stream(out: OutputContainer, stream: Any) -> Any:
    """A track of the clip for packets of a stream as they are. Raises VideoError."""
    try:
        return out.add_stream_from_template(stream)
    except ValueError as error:  # nothing mp4 can hold
        raise sf.VideoError(sf.one_line(error)) from None


def sound_track(
    out: OutputContainer, source: AudioStream, packets: list[Packet]
) -> tuple[AudioStream, Iterable[Packet]]:
    """(a track of the clip, its packets): those of the source where mp4 takes them, or AAC."""
    if source.codec_context.name in CLIP_AUDIO:
        return same_stream(out, source), packets
    track = out.add_stream("aac", rate=source.rate if source.rate in AAC_RATES else AAC_RATES[0])
    track.layout = "mono" if source.channels == 1 else "stereo"
    return track, as_aac(track, packets)


def as_aac(track: AudioStream, packets: list[Packet]) -> Iterator[Packet]:
    """Decode audio packets and encode them as AAC."""
    import av

    resampler = av.AudioResampler(track.format.name, track.layout, track.rate)
    for packet in [*packets, None]:
        frames = packet.decode() if packet is not None else packets[-1].stream.decode(None)
        for frame in [*frames, *([None] if packet is None else [])]:
            for part in resampler.resample(frame):
                yield from track.encode(part)
    yield from track.encode(None)


def check_clip(path: Path, writer: ClipWriter) -> sf.Checked:
    """Decode a clip and compare it with the source: number, times and look of its frames.

    Looked at are the first and the last frame and those beside a join. Raises VideoError where
    they are not as planned; a copy may end before the last planned frame.
    """
    cut, copy, times, looks = writer.cut, writer.mode == "copy", [], {}
    low, high = np.searchsorted(cut.frames, [writer.first, cut.end])
    expected = cut.frames[low:high]
    joins = set(np.searchsorted(expected, writer.joins).tolist())
    beside = {0} | joins | {at - 1 for at in joins}
    with sf.open_video(str(path)) as (container, stream):
        for number, frame in enumerate(sf.decoded(container, stream)):
            times.append(float(frame.pts * stream.time_base))
            if number in beside:
                looks[number] = look_of(sf.upright_frame(frame, 1.0))
        if not times:
            raise sf.VideoError("no frame can be decoded")
        looks[number] = look_of(sf.upright_frame(frame, 1.0))
    shown = expected[: len(times)]
    looks = {int(shown[number]): look for number, look in looks.items() if number < len(shown)}
    difference = max(frame_differences(cut.video, looks), default=255.0)
    drift = np.abs(cut.video.tick * (shown - shown[0]) - times[: len(shown)]).max()
    if copy and writer.first > cut.start:
        raise sf.VideoError("no key frame lies before it")
    if len(times) > len(expected) or (len(times) < len(expected) and not copy):
        raise sf.VideoError(f"{len(times)} frames, {len(expected)} expected")
    if drift > CLIP_TIME_SLACK:
        raise sf.VideoError(f"frames up to {drift:.3f} s off")
    if difference > CLIP_DIFFERENCE:
        raise sf.VideoError(f"frames differ from the source by {difference:.0f} grey levels")
    return sf.Checked(
        first_frame=int(low),
        start=round(cut.video.seconds(writer.first), 3),
        frames=len(times),
        last_time=round(cut.video.seconds(int(shown[-1])), 3),
        duration=round(times[-1] - times[0] + (times[-1] - times[-2] if times[1:] else 0.0), 3),
        difference=round(difference, 2),
    )


def frame_differences(video: sf.Video, looks: dict[int, np.ndarray]) -> Iterator[float]:
    """Mean grey levels between looks {pts: of the clip's frame} and the source's frames there."""
    for pts, image in sf.frames_at(video.path, sorted(looks), 1.0):
        yield float(np.abs(look_of(image) - looks[pts]).mean())


def look_of(image: np.ndarray) -> np.ndarray:
    """(36, 64) int16 grey levels of a picture, for comparing two."""
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return cv2.resize(grey, (64, 36), interpolation=cv2.INTER_AREA).astype(np.int16)


def cut_clip(cut: Cut, mode: str, note_down: Callable[[MadeClip, int], None], compatible=False) -> MadeClip:
    """Write one clip and check it; a join that does not hold is encoded instead, and says so.

    note_down: told of the clip and its size in bytes before it is moved into its place.
    """
    note = ""
    for way in dict.fromkeys((mode, "encode")):
        writer = ClipWriter(cut, way)
        try:
            with sf.writing(cut.path) as part:
                writer.write(part)
                made = MadeClip(way, note, check_clip(part, writer))
                note_down(made, part.stat().st_size)
            return made
        except sf.VideoError as error:
            note = f"{way}: {error}"
    raise sf.VideoError(note)


class WrittenClip(MadeClip, kw_only=True):
    """A line of clips.jsonl: a clip that was written, checked and put in its place."""

    uuid: str
    out: str
    video: str = ""
    file: Annotated[str, msgspec.Meta(pattern=rf"\A{sf.PART}/{sf.PART}\Z")]  # below out
    asked: str = ""  # the mode it was to be made in
    size: int  # bytes


class ClipFolder:
    """OUT: the clips of one work folder, and what clips.jsonl says of them."""

    def __init__(self, out: Path, work: sf.VideoWork) -> None:
        self.out = out
        self.videos = {video.id: video for video in work.list_videos()}
        self.scenes_of = functools.lru_cache(1)(work.scenes_of)  # segments come video by video
        lines = read_ledger(work.clips, out)
        self.done = {line.uuid: line for line in lines}
        self.ours = {(line.file, line.size) for line in lines}
        self.folders = clip_folders([*self.videos.values()], self.done.values())

    def file_of(self, segment: sf.PlannedClip) -> str:
        """Where its clip goes, below OUT."""
        return f"{self.folders.get(segment.video, sf.REMOVED_FOLDER)}/{segment.uuid}.mp4"

    def written(self, segment: sf.PlannedClip) -> WrittenClip | None:
        """How its clip was made, if it lies there as it was written."""
        line, file = self.done.get(segment.uuid), self.file_of(segment)
        there = line is not None and line.file == file and (self.out / file).is_file()
        return line if there and (self.out / file).stat().st_size == line.size else None

    def is_cut(self, segment: sf.PlannedClip, mode: str) -> bool:
        """Whether its clip lies there, made in the same way."""
        line = self.written(segment)
        return line is not None and line.asked == mode

    def cut_of(self, segment: sf.PlannedClip) -> Cut:
        """What is to be cut for it. Raises VideoError where its source is gone."""
        video = self.videos.get(segment.video)
        if video is None:
            raise sf.VideoError("its video is no longer listed; run `video scan` again")
        scenes = self.scenes_of(video)
        if scenes is None:
            raise sf.VideoError("its scenes are gone; run `video scenes` again")
        frames = scenes.pts
        start = int(frames[min(np.searchsorted(frames, segment.pts[0]), len(frames) - 1)])
        path = sf.place_in(self.out, self.file_of(segment))
        return Cut(sf.checked_source(video), start, segment.pts[1], path, frames)

    def make(self, segment: sf.PlannedClip, mode: str, ledger: sf.AppendOnly) -> WrittenClip:
        """Cut and check one clip; one that was edited since goes to _removed first.

        It is in the ledger before it lies in its place: a kill between the two must not let it
        look like a file of the operator's. Raises VideoError when its source is gone or cannot be
        cut.
        """
        cut, file = self.cut_of(segment), self.file_of(segment)
        if cut.path.is_file() and (file, cut.path.stat().st_size) not in self.ours:
            sf.set_aside(self.out, file)
        lines: list[WrittenClip] = []

        def note_down(made: MadeClip, size: int) -> None:
            about = {"uuid": segment.uuid, "video": segment.video, "file": file, "asked": mode}
            facts = {**msgspec.structs.asdict(made), **about, "size": size}
            lines.append(WrittenClip(out=str(self.out.resolve()), **facts))
            if self.done.get(segment.uuid) != lines[-1]:  # else noted when a kill came
                ledger.append(sf.as_json(lines[-1]))

        cut_clip(cut, mode, note_down)
        return lines[-1]

    def stale(self, segments: Sequence[sf.PlannedClip]) -> list[str]:
        """Clips that the plan no longer has.

        Those of videos that are not known now are not among them, nor the earlier ones of segments
        that failed this time.
        """
        known = {name for name, video in self.videos.items() if self.scenes_of(video)}
        files = {self.file_of(segment) for segment in segments}
        failed = {segment.uuid for segment in segments if segment.clip is None}
        stale = (
            line.file
            for line in self.done.values()
            if line.video in known and line.file not in files and line.uuid not in failed
        )
        return [*dict.fromkeys(stale)]

    def clear(self, files: Sequence[str]) -> int:
        """Move clips and what is told beside them to OUT/_removed; returns how many there were."""
        there = sum((self.out / file).exists() for file in files)
        for file in files:
            for path in (file, str(PurePosixPath(file).with_suffix(".json"))):
                if (self.out / path).exists():
                    sf.set_aside(self.out, path)
            sf.remove_empty((self.out / file).parent)
        return there


def read_ledger(path: Path, out: Path) -> list[WrittenClip]:
    """What clips.jsonl says was written to a folder; a damaged line costs that clip, cut again."""
    read = functools.partial(sf.as_record, WrittenClip)
    written = sf.sound_lines(path, read, "that clip is cut again")
    return [line for line in written if line.out == str(out.resolve())]


def clip_folders(videos: Sequence[sf.Video], done: Iterable[WrittenClip] = ()) -> dict[str, str]:
    """{video: folder of its clips}: the name of the file, made distinct where two share it.

    A video keeps the folder its earlier clips are in: `done` are lines of the ledger.
    """
    stems = {video.id: Path(video.path).stem for video in videos}
    folders = {
        line.video: PurePosixPath(line.file).parts[0] for line in done if line.video in stems
    }
    times = Counter(stem.casefold() for stem in stems.values())
    for video in videos:
        if video.id in folders:
            continue
        stem = stems[video.id]
        plain = sf.safe_dst_name(stem.replace("_", "-")) == stem.replace("_", "-")
        name = stem if plain else sf.safe_dst_name(stem)
        shared = times[stem.casefold()] > 1 or name == sf.REMOVED_FOLDER
        folders[video.id] = f"{name}-{sf.path_mark(video.path)}" if shared else name
    return folders


def cut_plan(
    work: sf.VideoWork, plan: sf.ClipPlan, out: Path, options: sf.ClipOptions
) -> sf.Outcome:
    """Bring the clips in `out` to what the plan says, and the plan to what became of each."""
    if options.dry_run:
        return foresee_clips(ClipFolder(out, work), plan, options.cut)
    sf.make_folder(out)
    with sf.locked(out / sf.LOCK_NAME, f"clip folder {out}"):
        sf.remove_unfinished(out)
        folder = ClipFolder(out, work)
        missing = sum(not folder.is_cut(segment, options.cut) for segment in plan.segments)
        with contextlib.closing(sf.AppendOnly(work.clips)) as ledger:
            segments = sf.progress(plan.segments, len(plan.segments), "cut")
            done = [cut_segment(folder, segment, options, ledger) for segment in segments]
        moved = folder.clear(folder.stale(done))
        work.write(msgspec.structs.replace(plan, segments=done, out=str(out.resolve())))
    failed = [f"{s.source} at {s.start:.1f} s: {s.failed}" for s in done if s.clip is None]
    result = {
        "out": str(out),
        "segments": len(done),
        "clips": len(done) - len(failed),
        "written": missing - len(failed),
        "encoded_instead": sum(bool(s.fallback) for s in done) or None,
        "set_aside": moved or None,
        "failed": failed,
    }
    return sf.Outcome(result, bool(result["clips"]))


def cut_segment(
    folder: ClipFolder, segment: sf.PlannedClip, options: sf.ClipOptions, ledger: sf.AppendOnly
) -> sf.PlannedClip:
    """Write the clip of a segment unless it is there; returns it with what became of it."""
    line = folder.written(segment)
    if line is None or line.asked != options.cut:
        try:
            line = folder.make(segment, options.cut, ledger)
        except sf.VideoError as error:
            sf.log.warning("%s at %.1f s: %s", segment.source, segment.start, error)
            return segment.cut(clip=None, failed=str(error))
    segment = segment.cut(
        clip=line.file, mode=line.mode, fallback=line.fallback, checked=line.checked
    )
    if options.write_sidecar:
        sf.write_json((folder.out / line.file).with_suffix(".json"), sf.as_json(segment))
    return segment


def foresee_clips(folder: ClipFolder, plan: sf.ClipPlan, mode: str) -> sf.Outcome:
    """What cutting would do to each clip; nothing is written."""
    rows = []
    for segment in plan.segments:
        do = "keep" if folder.is_cut(segment, mode) else "write"
        try:
            folder.cut_of(segment)
        except sf.VideoError as error:
            do = do if do == "keep" else f"fail: {error}"
        span = f"{sf.clock(segment.start)} to {sf.clock(segment.end)}"
        rows.append({"do": do, "clip": folder.file_of(segment), "of": segment.source, "at": span})
    for file in folder.stale(plan.segments):
        if (folder.out / file).exists():
            rows.append({"do": "set aside", "clip": file, "of": "", "at": ""})
    times = Counter(row["do"].partition(":")[0] for row in rows)
    counts = {f"would_{do.replace(' ', '_')}": number for do, number in times.items()}
    result = {"out": str(folder.out), "segments": len(plan.segments), **counts, "clips": rows}
    return sf.Outcome(result, bool(times["keep"] + times["write"]))
