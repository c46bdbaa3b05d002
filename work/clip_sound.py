"""The sound of a clip: packets of the source where an mp4 takes them, else encoded as AAC.

Stamps of sound are often wrong where those of the picture are right: one that stands twice, none
at all, a piece that comes again where films were joined. What is heard follows on without a hole,
unless the film says there is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

import sort_faces as sf

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet
    from av.container import OutputContainer

COPIED = frozenset({"aac", "ac3", "alac", "dts", "eac3", "flac", "mp2", "mp3", "opus"})  # in mp4
RATES = (48000, 44100, 32000, 24000, 22050, 16000, 11025, 8000)  # Hz; of AAC, the first for others
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}  # by channels
BIT_RATE = 96_000  # per channel; transparent for AAC-LC in stereo
HOLE = 0.05  # s; stamps that differ from the samples by less are rounded
WARM_UP = 0.3  # s of sound before a clip that a decoder is given first
HANDED_ON = 4096  # samples in a frame for the encoder


class SoundError(sf.VideoError):
    """The sound of a clip cannot be made in this way."""


@dataclass
class Voice:
    """One sound of the source and what of it a clip needs."""

    number: int  # from 1, as people count
    track: AudioStream
    packets: list[Packet]  # in the order of the file
    start: Fraction  # s; of the clip
    end: Fraction  # s

    def __post_init__(self) -> None:
        self.packets = placed(self.packets)
        self.codec = self.track.codec_context.codec.canonical_name

    def packets_in(self, before: float = 0.0) -> list[Packet]:
        """Those heard in the clip, and up to so many seconds before it."""
        low = self.start - Fraction(before)
        return [packet for packet in self.packets if packet_end(packet) > low]


def packet_end(packet: Packet) -> Fraction:
    """When what a packet holds is over, s."""
    return (packet.pts + (packet.duration or 0)) * packet.time_base


def placed(packets: Sequence[Packet]) -> list[Packet]:
    """Packets of a sound with rising stamps; what was heard already is left out.

    Stamps that stand still for some packets and then are where these end mean packets that follow
    on. Where they fall back, the packets up to the moment that was reached are a repetition.
    """
    stamps = [packet.dts if packet.pts is None else packet.pts for packet in packets]
    kept: list[Packet] = []
    end: int | None = None
    for at, (packet, stamp) in enumerate(zip(packets, stamps, strict=True)):
        if not packet.size or (end is None and stamp is None):
            continue
        length = packet.duration or usual_length(packet)
        if end is not None and (stamp is None or stamp < end - length // 2):
            later = ((n, s) for n, s in enumerate(stamps[at:]) if s is not None)
            still, reached = next(((n, s) for n, s in later if s > (stamp or 0)), (0, math.inf))
            if stamp is not None and reached < end + still * length - length // 2:
                continue
            stamp = end
        packet.pts = packet.dts = stamp
        packet.duration = length
        end = stamp + length
        kept.append(packet)
    return kept


def usual_length(packet: Packet) -> int:
    """How long a packet that does not say so is, in its time base."""
    codec = packet.stream.codec_context
    seconds = (codec.frame_size or 1024) / (codec.sample_rate or RATES[0])
    return max(1, round(seconds / packet.time_base))


def add_voice(
    out: OutputContainer, voice: Voice, copied: frozenset[str]
) -> tuple[AudioStream, Iterator[Packet], str]:
    """(a track of the clip, its packets from 0 on, what changed).

    copied: codecs whose packets stay as they are. Raises SoundError where nothing can be decoded.
    """
    source = voice.track
    if voice.codec in copied:
        try:
            track = out.add_stream_from_template(source)
        except ValueError as error:  # nothing mp4 can hold
            raise SoundError(sf.one_line(error)) from None
        packets, note = moved(voice, voice.packets_in()), ""
    else:
        rate = source.rate if source.rate in RATES else RATES[0]
        layout = layout_for(source.layout.name, source.channels, rate)
        samples = heard(voice, layout, rate)
        track = out.add_stream("aac", rate=rate)
        track.layout, track.bit_rate = layout, BIT_RATE * len(samples)
        packets, note = as_aac(track, samples), f"sound {voice.number} ({voice.codec}) became AAC"
        if len(samples) != source.channels:
            note += f", {source.layout.name} became {layout}"
    for key in ("language", "title"):
        if source.metadata.get(key):
            track.metadata["handler_name" if key == "title" else key] = source.metadata[key]
    return track, packets, note


def moved(voice: Voice, packets: list[Packet]) -> Iterator[Packet]:
    """Packets of the source, on the clock of the clip, which counts samples."""
    base = Fraction(1, voice.track.rate or RATES[0])
    for packet in packets:
        start = packet.pts * packet.time_base - voice.start
        length = packet.duration * packet.time_base
        packet.time_base = base
        packet.pts = packet.dts = round(start / base)
        packet.duration = max(1, round(length / base))
        yield packet


def layout_for(name: str, channels: int, rate: int) -> str:
    """The layout that AAC can hold of a source's: the same, one of as many channels, or stereo."""
    import av

    named = name.removesuffix("(side)")
    for layout in dict.fromkeys((named, LAYOUTS.get(channels, "stereo"), "stereo")):
        encoder = av.CodecContext.create("aac", "w")
        try:
            encoder.layout, encoder.sample_rate, encoder.format = layout, rate, "fltp"
            encoder.open()
        except (ValueError, av.error.FFmpegError):
            continue
        if encoder.layout.nb_channels == channels or layout == "stereo":
            return layout
    return "stereo"


def heard(voice: Voice, layout: str, rate: int) -> np.ndarray:
    """(channels, n) float32 of the clip's sound, from its first moment to its last."""
    import av

    resampler = av.AudioResampler("fltp", layout, rate)
    channels = av.AudioLayout(layout).nb_channels
    samples = np.zeros((channels, round((voice.end - voice.start) * rate)), np.float32)
    clock: int | None = None
    any_frame = False
    for time, frame in decoded(voice):
        any_frame = True
        for part in resampler.resample(frame):
            stamp = round((time - voice.start) * rate)
            clock = stamp if clock is None or abs(stamp - clock) > HOLE * rate else clock
            data, length = part.to_ndarray(), samples.shape[1]
            low, high = max(0, clock), min(length, clock + data.shape[1])
            if low < high:
                samples[:, low:high] = data[:, low - clock : high - clock]
            clock += data.shape[1]
            time += Fraction(data.shape[1], rate)
    if not any_frame:
        raise SoundError(f"sound {voice.number} ({voice.codec}) cannot be decoded")
    return samples


def decoded(voice: Voice) -> Iterator[tuple[Fraction, AudioFrame]]:
    """(when it is heard in the source, s; a decoded frame), from a little before the clip on."""
    import av

    time: Fraction | None = None  # where the next frame follows on
    for packet in [*voice.packets_in(WARM_UP), None]:
        try:
            frames = voice.track.codec_context.decode(packet)
        except av.error.InvalidDataError:
            continue
        for number, frame in enumerate(frames):
            if frame.pts is not None and frame.time_base:
                time = frame.pts * frame.time_base
            elif packet is not None and (time is None or number == 0):
                time = packet.pts * packet.time_base
            if time is None:
                continue
            yield time, frame
            time += Fraction(frame.samples, frame.sample_rate)


def as_aac(track: AudioStream, samples: np.ndarray) -> Iterator[Packet]:
    """Encode samples (channels, n) from the clip's first moment on."""
    import av

    for at in range(0, samples.shape[1], HANDED_ON):
        part = np.ascontiguousarray(samples[:, at : at + HANDED_ON])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=track.layout.name)
        frame.sample_rate, frame.pts = track.rate, at
        frame.time_base = Fraction(1, track.rate)
        yield from track.encode(frame)
    yield from track.encode(None)
