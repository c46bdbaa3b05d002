"""Writes one clip, packet by packet.

Packets are copied where they can be, new ones are made where the source's need frames outside the
clip. Both carry their parameter sets in front of key frames, so a decoder follows the change. What
cannot be kept is noted.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import sort_faces as sf

if TYPE_CHECKING:
    from fractions import Fraction

    from av import (
        AudioStream,
        Packet,
        Stream,
        SubtitleStream,
        VideoCodecContext,
        VideoFrame,
        VideoStream,
    )
    from av.container import InputContainer, OutputContainer

film_reading, film_times = sf.companion("film_reading"), sf.companion("film_times")
clip_extras, clip_sound = sf.companion("clip_extras"), sf.companion("clip_sound")

CLIP_ENCODERS = {"h264": "libx264", "hevc": "libx265"}  # what clips may be of
CLIP_CRF = {"libx264": "17", "libx265": "19"}  # chosen: no loss a face swap would show
CLIP_INTERLEAVE = 5  # s; how much later in a file than in time a packet may lie
COMPATIBLE = ("yuv420p", "yuvj420p")  # pixel formats of H.264 that everything plays
BT709, STUDIO = 1, 1  # AVCOL_SPC_BT709, AVCOL_RANGE_MPEG: what RGB becomes
TURNS = {  # filters for quarters, counter-clockwise
    1: [("transpose", "cclock")],
    2: [("hflip", ""), ("vflip", "")],
    3: [("transpose", "clock")],
}
SAMPLE_ENTRY = b"\0\0\0\0\0\0\0\1"  # what follows the name of a codec in an mp4
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

    def crosses_a_join(self) -> bool:
        joins = self.joined.joins if self.joined else ()
        return any(self.start < join.first < self.end for join in joins)


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


class ClipWriter:
    """Writes one clip: `copy` packets, `encode` frames, or `smart`, both.

    compatible: as 8-bit 4:2:0 H.264 with AAC, which everything plays. sound: `copy` it where an mp4
    takes it, `encode` it, or leave it out (`none`).
    """

    def __init__(self, cut: Cut, mode: str, compatible: bool = False, sound: str = "copy") -> None:
        self.cut, self.mode, self.compatible, self.sound = cut, mode, compatible, sound
        video = cut.video
        self.codec = self.target(video)
        whole = not compatible or video.pix_fmt in COMPATIBLE
        self.same_codec = self.codec == video.codec and whole
        self.first = cut.start  # pts of the first frame written
        self.joins: list[int] = []  # pts of frames where copied and encoded ones meet
        self.retag = False  # whether it is hvc1 only in name
        self.shaper = Shaper(turn=not self.same_codec)
        self.notes: dict[str, None] = {}  # what is not kept

    def target(self, video: sf.Video) -> str:
        """The codec of the clip: the source's, else H.264, or HEVC for more than 8 bits."""
        if self.compatible:
            return "h264"
        if self.mode == "copy" or video.codec in CLIP_ENCODERS:
            return video.codec
        return "hevc" if is_deep(video.pix_fmt) else "h264"

    def write(self, part: Path) -> None:
        """Write the clip to `part`. Raises VideoError where the mode does not work."""
        import av

        fault = ""
        with film_reading.open_video(self.cut.video.path) as (container, stream):
            self.notes |= dict.fromkeys(clip_extras.left_out(container, stream))
            packets, sounds, texts = self.read_packets(container, stream)
            try:
                with av.open(str(part), "w", format="mp4") as out:
                    track, pictures = self.picture_track(out, stream, packets)
                    start = restamp(pictures, self.cut, stream.time_base)
                    span = start, self.cut.end * stream.time_base
                    beside = [*self.voices(out, sounds, span), *add_texts(out, texts, span)]
                    out.set_chapters(clip_extras.chapters_in(container, *span))
                    mux(out, track, pictures)
                    fault = self.mux_beside(out, beside)
            except av.error.FFmpegError as error:
                if not fault or error.errno in sf.NO_SPACE:
                    raise
            if fault:
                raise clip_sound.SoundError(fault)
        if self.retag:
            name_hvc1(part)

    def voices(
        self, out: OutputContainer, sounds: dict[AudioStream, list[Packet]], span: Span
    ) -> Iterator[tuple[Stream, Iterator[Packet]]]:
        """(track of the clip, its packets) of each sound."""
        copied = clip_sound.COPIED if self.sound == "copy" else frozenset()
        if self.compatible:
            copied &= {"aac"}
        for number, (source, packets) in enumerate(sounds.items(), 1):
            voice = clip_sound.Voice(number, source, packets, *span)
            if self.sound == "none" or not voice.packets_in():
                continue
            try:
                track, made, note = clip_sound.add_voice(out, voice, copied)
            except clip_sound.SoundError as error:  # the others are heard
                self.notes[f"{error}; left out"] = None
                continue
            if note:
                self.notes[note] = None
            yield track, made

    def mux_beside(
        self, out: OutputContainer, beside: list[tuple[Stream, Iterator[Packet]]]
    ) -> str:
        """Write the tracks beside the picture; returns why that went wrong, if it did."""
        import av

        for track, packets in beside:
            try:
                mux(out, track, packets)
            except av.error.FFmpegError as error:
                if track.type != "audio" or error.errno in sf.NO_SPACE:
                    raise
                return f"{track.codec_context.name}: {error.strerror or sf.one_line(error)}"
        return ""

    def picture_track(
        self, out: OutputContainer, stream: VideoStream, packets: list[Packet]
    ) -> tuple[VideoStream, list[Packet]]:
        """(a track of the clip, its packets in decode order, stamped as in the source)."""
        if self.mode == "copy" and not self.same_codec:
            raise sf.VideoError(f"copied it would stay {self.cut.video.codec}")
        if self.same_codec:
            track, pictures = same_stream(out, stream), self.joined(stream, packets)
            if self.mode != "copy" and pictures:
                head = parameter_sets(bytes(pictures[0]), self.codec)
                track.codec_context.extradata = head
        else:
            track = out.add_stream(CLIP_ENCODERS[self.codec])
            pictures = self.encoded(stream, self.cut.start, self.cut.end, track.codec_context)
        if not pictures:
            raise sf.VideoError("no frame of the clip can be read")
        if self.codec == "hevc" and stream.codec_context.codec_tag != "hev1":
            self.retag = bool(self.joins)  # as hvc1 the muxer would strip what a join needs
            track.codec_context.codec_tag = "hev1" if self.retag else "hvc1"
        if stream.language:
            track.metadata["language"] = stream.language
        return track, pictures

    def joined(self, stream: VideoStream, packets: list[Packet]) -> list[Packet]:
        """The clip's packets in decode order, copied where the mode and the source allow."""
        cut, copy = self.cut, self.mode == "copy"
        parts = ClipParts([], cut.start, cut.end, cut.end)
        if copy and cut.crosses_a_join():
            raise sf.VideoError("the film was joined of parts there")
        if self.mode != "encode" and not cut.crosses_a_join():
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
    ) -> tuple[list[Packet], dict[AudioStream, list[Packet]], dict[SubtitleStream, list[Packet]]]:
        """The packets of the clip: of the video from a key frame before it, of sounds and texts."""
        cut, high = self.cut, self.cut.end * stream.time_base
        sound = {track: [] for track in container.streams.audio if track.codec_context}
        texts = {track: [] for track in clip_extras.text_tracks(container)}
        packets: list[Packet] = []
        line = film_times.Timeline(container, stream, cut.joined)
        shown = film_reading.shown_slots(cut.video.path, cut) if line.unordered else None
        if texts:
            early = round(clip_extras.TEXT_BEFORE / stream.time_base)
            line.seek(cut.start - early)
            for packet in timed(line.packets(*texts), high + CLIP_INTERLEAVE):
                if packet.stream in texts and packet.pts is not None:
                    texts[packet.stream].append(packet)
        self.seek(line)
        for packet in timed(line.packets(*sound), high + CLIP_INTERLEAVE):
            if packet.stream is not stream:
                if packet_time(packet) is None or packet_time(packet) < high:
                    sound[packet.stream].append(packet)
                continue
            if shown is not None:
                packet.pts = shown.get(packet.dts)
            if packet.pts is not None and (shown or decode_time(packet) < cut.end):
                packets.append(packet)
        return packets, sound, texts

    def seek(self, line: Any) -> None:
        """Stand on a key frame at or before the clip."""
        start, back = self.cut.start, film_times.SEEK_BACK
        at = start
        while not line.indexed and at > self.cut.video.start:
            line.seek(at)
            packets = line.container.demux(line.stream)
            keys = (p for p in packets if p.is_keyframe and p.pts is not None)
            packet = next(keys, None)
            if packet is not None and packet.pts <= start:
                break
            at, back = at - round(back / line.stream.time_base), 2 * back
        if at > self.cut.video.start:
            line.seek(at)
        else:
            line.restart()

    def encoded(
        self,
        stream: VideoStream,
        start: int,
        end: int,
        encoder: VideoCodecContext | None = None,
    ) -> list[Packet]:
        """Packets of the frames [start, end), encoded anew; by default as the source's codec."""
        packets: list[Packet] = []
        ready = False
        for frame in frames_from(self.cut, start) if start < end else ():
            if frame.pts >= end:
                break
            if not ready:
                encoder = self.prepare(encoder, frame, stream)
                ready = True
            frame = self.shaper.shaped(frame, encoder.pix_fmt)
            frame.pict_type = 0  # whatever it was in the source
            packets += encoder.encode(frame)
        self.notes |= dict.fromkeys(self.shaper.notes)
        return [*packets, *encoder.encode(None)] if ready else []

    def prepare(
        self, encoder: VideoCodecContext | None, frame: VideoFrame, stream: VideoStream
    ) -> VideoCodecContext:
        """An encoder that gives what the source has: size, pixel format, colours, time base."""
        import av

        name = CLIP_ENCODERS[self.codec]
        encoder = encoder or av.CodecContext.create(name, "w")
        formats = COMPATIBLE if self.compatible else [f.name for f in encoder.codec.video_formats]
        encoder.pix_fmt = format_for(frame.format.name, formats)
        shaped = self.shaper.shaped(frame, encoder.pix_fmt)
        encoder.width, encoder.height = shaped.width, shaped.height
        encoder.time_base = stream.time_base
        encoder.framerate = stream.average_rate or 25
        encoder.sample_aspect_ratio = self.shaper.aspect(stream.sample_aspect_ratio or 1)
        for key in ("color_range", "color_primaries", "color_trc", "colorspace"):
            setattr(encoder, key, getattr(shaped, key))
        if frame.interlaced_frame and name == "libx264":
            flags = av.codec.context.Flags
            encoder.flags |= flags.interlaced_dct.value | flags.interlaced_me.value
        elif frame.interlaced_frame:
            self.notes["frames made anew do not say that they are interlaced"] = None
        encoder.options = {"crf": CLIP_CRF[name], "preset": "medium", **self.private(frame, name)}
        return encoder

    def private(self, frame: VideoFrame, name: str) -> dict[str, str]:
        """Options of the encoder alone: what the source says of its light, and no B frames."""
        for what in clip_extras.live_light(frame):
            self.notes[f"frames made anew have no {what}"] = None
        light = dict(clip_extras.light_options(frame))
        if name == "libx264":
            names = {"master-display": "mastering-display", "max-cll": "cll"}
            params = [f"{names[key]}={value}" for key, value in light.items()]
        else:
            params = ["log-level=none", "repeat-headers=1"]
            params += [f"{key}={value}" for key, value in light.items()]
            params += ["hdr10=1"] if light else []
            params += ["bframes=0"] if self.joins else []
        options = {"bf": "0"} if self.joins else {}  # no frame waits across a join
        return {**options, **({f"{name[3:]}-params": ":".join(params)} if params else {})}


class Shaper:
    """Gives frames the form an encoder takes: upright, of even size, in its pixel format."""

    def __init__(self, turn: bool) -> None:
        self.turn = turn  # nothing else says that a picture of another codec is turned
        self.graph: Any = None
        self.form: tuple[Any, ...] = ()  # of the frames the graph takes
        self.turns = 0  # quarters, counter-clockwise
        self.notes: dict[str, None] = {}

    def aspect(self, pixels: Fraction | int) -> Fraction | int:
        """Of the pixels of a shaped frame."""
        return 1 / pixels if self.turns % 2 else pixels

    def shaped(self, frame: VideoFrame, pix_fmt: str) -> VideoFrame:
        """A frame, turned and cut to an even size where it must be, in a pixel format."""
        self.turns = round(frame.rotation / 90) % 4 if self.turn else 0
        wide, high = even_size(frame.width, frame.height, pix_fmt)
        steps = [*TURNS.get(self.turns, ())]
        if (wide, high) != (frame.width, frame.height):
            steps.insert(0, ("crop", f"{wide}:{high}:0:0"))
            self.notes[f"{frame.width}x{frame.height} became {wide}x{high}"] = None
        result = self.through(frame, steps) if steps else frame
        if result.format.name != pix_fmt:
            result = self.in_format(result, pix_fmt)
        return result

    def in_format(self, frame: VideoFrame, pix_fmt: str) -> VideoFrame:
        """A frame in another pixel format; RGB becomes BT.709."""
        self.notes[f"{frame.format.name} became {pix_fmt}"] = None
        if not frame.format.is_rgb:
            return frame.reformat(format=pix_fmt)
        return frame.reformat(format=pix_fmt, dst_colorspace=BT709, dst_color_range=STUDIO)

    def through(self, frame: VideoFrame, steps: Sequence[tuple[str, str]]) -> VideoFrame:
        """What a chain of filters makes of a frame."""
        import av

        form = frame.width, frame.height, frame.format.name, *steps
        if form != self.form:
            graph = av.filter.Graph()
            last = graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format.name,
                time_base=frame.time_base,
            )
            for name, options in [*steps, ("buffersink", "")]:
                step = graph.add(name, options or None)
                last.link_to(step)
                last = step
            graph.configure()
            self.graph, self.form = graph, form
        colours = ("color_range", "color_primaries", "color_trc", "colorspace")
        self.graph.push(frame)
        result = self.graph.pull()
        for key in colours:
            setattr(result, key, getattr(frame, key))
        return result


Span = tuple["Fraction", "Fraction"]  # s; of a clip in the source


def add_texts(
    out: OutputContainer, texts: dict[SubtitleStream, list[Packet]], span: Span
) -> Iterator[tuple[Stream, list[Packet]]]:
    """(track of the clip, its packets) of each subtitle that is shown in it."""
    for source, packets in texts.items():
        shown = [p for p in packets if (p.pts + (p.duration or 0)) * p.time_base > span[0]]
        if shown:
            yield clip_extras.add_text(out, source, shown, span)


def mux(out: OutputContainer, track: Stream, packets: Iterator[Packet] | list[Packet]) -> None:
    """Write the packets of a track."""
    for packet in packets:
        packet.stream = track
        out.mux(packet)


def packet_time(packet: Packet) -> Fraction | None:
    """When a packet is shown, or decoded if it does not say, s."""
    stamp = packet.dts if packet.pts is None else packet.pts
    return None if stamp is None else stamp * packet.time_base


def decode_time(packet: Packet) -> int:
    return packet.pts if packet.dts is None else packet.dts


def timed(packets: Iterator[Packet], end: Fraction) -> Iterator[Packet]:
    """Packets up to the first that is beyond `end`, s; what only ends a stream is no packet."""
    for packet in packets:
        time = packet_time(packet)
        if packet.size:
            yield packet
        if time is not None and time > end:
            return


def is_deep(pix_fmt: str) -> bool:
    """Whether a pixel format is 4:2:0 of more than 8 bits: HEVC of that kind plays widely."""
    import av

    if not pix_fmt:
        return False
    kind = av.VideoFormat(pix_fmt, 16, 16)
    chroma = kind.chroma_width(), kind.chroma_height()
    return chroma == (8, 8) and any(component.bits > 8 for component in kind.components)


def format_for(pix_fmt: str, known: Sequence[str]) -> str:
    """The pixel format of an encoder that keeps most of a source's."""
    import av

    if pix_fmt in known and not pix_fmt.startswith("gray"):
        return pix_fmt
    kind = av.VideoFormat(pix_fmt)
    if kind.is_rgb or kind.has_palette or len(kind.components) < 3:
        return "yuv420p"
    colour = [name for name in known if not name.startswith(("gray", "nv"))]
    best, _ = av.codec.codec.find_best_pix_fmt_of_list(colour, pix_fmt)
    return best.name if best else "yuv420p"


def even_size(wide: int, high: int, pix_fmt: str) -> tuple[int, int]:
    """The size without the odd column and row that a pixel format has no colours for."""
    import av

    kind = av.VideoFormat(pix_fmt, 16, 16)
    across, down = 16 // kind.chroma_width(), 16 // kind.chroma_height()
    return wide - wide % across, high - high % down


def frames_from(cut: Cut, start: int) -> Iterator[VideoFrame]:
    """Frames of a cut's video from `start` (pts) on, in display order."""
    with film_reading.open_video(cut.video.path) as opened:
        yield from film_reading.sought_frames(*opened, start, cut.joined)


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


def same_stream(out: OutputContainer, stream: VideoStream) -> VideoStream:
    """A track of the clip for packets of the picture as they are. Raises VideoError."""
    try:
        return out.add_stream_from_template(stream, opaque=True)
    except ValueError as error:  # nothing mp4 can hold
        raise sf.VideoError(sf.one_line(error)) from None


def name_hvc1(path: Path) -> None:
    """Name the HEVC of an mp4 hvc1, which QuickTime plays, where it is hev1."""
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        at = 0
        while at < size:  # the boxes of the file
            file.seek(at)
            length, kind = struct.unpack(">I4s", file.read(8))
            length = struct.unpack(">Q", file.read(8))[0] if length == 1 else length or size - at
            if kind == b"moov":
                file.seek(at)
                place = file.read(length).find(b"hev1" + SAMPLE_ENTRY)
                if place >= 0:
                    file.seek(at + place)
                    file.write(b"hvc1")
                return
            at += length
