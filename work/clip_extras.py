"""What a clip keeps of a film beside picture and sound, such as subtitles, and what it lacks."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fractions import Fraction

    from av import Packet, SubtitleStream, VideoFrame, VideoStream
    from av.container import InputContainer, OutputContainer

TEXT_BEFORE = 15.0  # s; a subtitle that is shown for longer may be missed at the start of a clip
CHROMATICITY = 50_000  # units of x265's --master-display per 1: 0.00002
LUMINANCE = 10_000  # per candela a square metre: 0.0001
LIVE = {"DYNAMIC_HDR_PLUS": "HDR10+", "DOVI_METADATA": "Dolby Vision"}  # told frame by frame


def text_tracks(container: InputContainer) -> list[SubtitleStream]:
    """The subtitles that are text: an mp4 holds those."""
    tracks = container.streams.subtitles
    return [track for track in tracks if track.codec_context and track.codec_context.codec.text_sub]


def left_out(container: InputContainer, stream: VideoStream) -> list[str]:
    """The streams of a film that its clips lack."""
    texts, notes = text_tracks(container), []
    for track in container.streams:
        cover = track.type == "video" and track.disposition & type(track.disposition).attached_pic
        if track in texts or track is stream or cover:
            continue
        codec = track.codec_context.codec.canonical_name if track.codec_context else ""
        if track.type == "audio" and codec:
            continue
        what = {"subtitle": "subtitles", "video": "a second picture", "audio": "sound"}
        note = what.get(track.type, track.type)
        notes.append(f"{note} ({codec}) left out" if codec else f"{note} left out")
    return [*dict.fromkeys(notes)]


def add_text(
    out: OutputContainer,
    source: SubtitleStream,
    packets: Sequence[Packet],
    span: Sequence[Fraction],
) -> tuple[SubtitleStream, list[Packet]]:
    """(a track of the clip, its packets from 0 on) of subtitles; span: of the clip, s."""
    low, high = span
    track = out.add_stream("mov_text")
    decoder = source.codec_context
    decoder.open(strict=False)
    track.codec_context.subtitle_header = decoder.subtitle_header
    if source.language:
        track.metadata["language"] = source.language
    made: list[Packet] = []
    for packet in packets:
        start = max(low, packet.pts * packet.time_base)
        end = min(high, (packet.pts + (packet.duration or 0)) * packet.time_base)
        shown = decoder.decode2(packet) if start < end else None
        if shown is None:
            continue
        text = track.codec_context.encode_subtitle(shown)
        text.time_base, text.stream = packet.time_base, track
        text.pts = text.dts = round((start - low) / packet.time_base)
        text.duration = round((end - start) / packet.time_base)
        made.append(text)
    return track, made


def chapters_in(container: InputContainer, low: Fraction, high: Fraction) -> list[dict[str, Any]]:
    """The chapters of a film that a clip [low, high) s shows some of, on the clip's clock."""
    chapters = []
    for chapter in container.chapters():
        base = chapter["time_base"]
        start, end = max(low, chapter["start"] * base), min(high, chapter["end"] * base)
        if start < end:
            times = {"start": round((start - low) / base), "end": round((end - low) / base)}
            chapters.append({**chapter, **times, "id": len(chapters) + 1})
    return chapters


def light_options(frame: VideoFrame) -> Iterator[tuple[str, str]]:
    """(x265's name, value) of the HDR10 metadata of a frame, in the form of its options."""
    kinds = {data.type.name: bytes(data) for data in frame.side_data}
    mastering = kinds.get("MASTERING_DISPLAY_METADATA")  # AVMasteringDisplayMetadata
    if mastering is not None:
        numbers = struct.unpack_from("<22i", mastering)
        values = [n / d if d else 0.0 for n, d in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
        red, green, blue, white = (
            "({},{})".format(*(round(value * CHROMATICITY) for value in values[at : at + 2]))
            for at in range(0, 8, 2)
        )
        least, most = (round(value * LUMINANCE) for value in values[8:10])
        if all(numbers[20:22]):  # both are known
            yield "master-display", f"G{green}B{blue}R{red}WP{white}L({most},{least})"
    level = kinds.get("CONTENT_LIGHT_LEVEL")  # AVContentLightMetadata
    if level is not None:
        yield "max-cll", "{},{}".format(*struct.unpack_from("<2I", level))


def live_light(frame: VideoFrame) -> list[str]:
    """What a frame says of light that no encoder here writes again."""
    return [LIVE[data.type.name] for data in frame.side_data if data.type.name in LIVE]
