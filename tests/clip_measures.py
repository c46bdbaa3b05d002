"""What a clip of a made film holds, against its source: frames, times, sound, tags, warnings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from video_material import RATE, ffmpeg, heard_at, read_number, sound_of

import sort_faces as sf

writer = sf.companion("clips")
film_reading, film_pass = sf.companion("film_reading"), sf.companion("film_pass")

QUIET_EDGE = 0.15  # s at both ends of a clip, where codecs fade in
MOMENTS = 9  # at which the sound is listened to
HARMLESS = ("Estimating duration from bitrate",)


@dataclass
class Shown:
    """What a file shows: numbers painted on its frames, their times, and tags."""

    numbers: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    tags: dict[str, Any] = field(default_factory=dict)
    rotation: int = 0


def shown_in(path: Path, rotation: int | None = None) -> Shown:
    """Decode a file and read what is painted on its frames.

    rotation: of the source of a clip, whose painted row lies on a side then.
    """
    found, hdr, interlaced, light = Shown(), 0, 0, 0
    with film_reading.open_video(str(path)) as (container, stream):
        for frame in film_reading.decoded(container, stream):
            image = film_reading.upright_frame(frame, 1.0)
            found.rotation = frame.rotation if rotation is None else rotation
            found.numbers.append(number_of(image, found.rotation))
            found.times.append(float(frame.pts * stream.time_base))
            kinds = {data.type.name for data in frame.side_data}
            hdr += "MASTERING_DISPLAY_METADATA" in kinds
            light += "CONTENT_LIGHT_LEVEL" in kinds
            interlaced += frame.interlaced_frame
        codec = stream.codec_context
        found.tags = {
            "size": (image.shape[1], image.shape[0]),
            "pixels": str(stream.sample_aspect_ratio or 1),
            "format": codec.pix_fmt,
            "colours": (codec.color_primaries, codec.color_trc, codec.colorspace),
            "range": codec.color_range == 2,
            "interlaced": interlaced == len(found.times),
            "mastering": hdr == len(found.times),
            "light": light == len(found.times),
            "tag": codec.codec_tag,
            "sounds": [
                (heard_as(track.codec_context.codec), channels_of(track), track.language or "und")
                for track in container.streams.audio
            ],
            "subtitles": len(container.streams.subtitles),
            "chapters": len(container.chapters()),
        }
    return found


def heard_as(codec: Any) -> str:
    """A codec of sound; in an mp4 layers 2 and 3 of MPEG have one name."""
    return codec.canonical_name.replace("mp2", "mp3")


def channels_of(track: Any) -> str:
    """Its layout; of a file that does not name one that of most."""
    known = {"1 channels": "mono", "2 channels": "stereo", "6 channels": "5.1"}
    return known.get(track.layout.name, track.layout.name)


def number_of(image: np.ndarray, rotation: int) -> int:
    """The number on an upright frame, whose painted row may lie on a side."""
    return read_number(np.ascontiguousarray(np.rot90(image, -round(rotation / 90))))


def sound_lag(path: Path, shown: Shown, low: float, high: float) -> float:
    """How much later the sound of a file is than its picture, s; NaN without sound."""
    sound = sound_of(path)
    times = np.array(shown.times)
    lags = []
    for moment in np.linspace(low, high, MOMENTS):
        at = max(0, int(np.searchsorted(times, moment, "right")) - 1)
        of_picture = shown.numbers[at] / RATE + moment - times[at]
        lags.append(of_picture - heard_at(sound, moment))
    return float(np.nanmedian(lags)) if np.isfinite(lags).any() else math.nan


@dataclass
class Measured:
    """A clip against its source."""

    mode: str  # in which it was made
    fallback: str
    notes: list[str]
    frames: tuple[int, int]  # exact ones, of how many
    drift: float  # s
    sound: float  # s that the sound is later against the picture than in the source; NaN: none
    lost: list[str]  # tags
    warnings: list[str]


def known_film(path: Path) -> tuple[sf.Video, sf.Scenes]:
    """Facts, and what one pass finds."""
    facts = path.stat()
    video = film_reading.video_facts(str(path), facts.st_size, facts.st_mtime_ns)
    once = film_pass.VideoPass(video, sf.Sampling.sample_rate, None)
    assert all(image is None for _, image in once.samples())
    return video, once.result()


def cut_of(path: Path, out: Path, first: int, last: int) -> writer.Cut:
    """The cut of frames [first, last) of a film."""
    video, scenes = known_film(path)
    frames = scenes.pts
    return writer.Cut(video, int(frames[first]), int(frames[last]), out, frames, scenes.joined)


def measure(cut: writer.Cut, mode: str, source: Shown, compatible: bool = False) -> Measured:
    """Write the clip of a cut and compare it with what its source shows."""
    made = writer.cut_clip(cut, mode, lambda *_: None, compatible)
    clip = shown_in(cut.path, source.rotation)
    start = int(np.searchsorted(cut.frames, cut.start))
    if made.mode == "copy":
        start = made.checked.first_frame
    count = int(np.searchsorted(cut.frames, cut.end)) - start
    expected = source.numbers[start : start + count]
    if made.mode == "copy":  # may end before the last planned frame
        count = min(count, len(clip.numbers))
    exact = sum(a == b for a, b in zip(clip.numbers, expected, strict=False))
    times = np.array(source.times[start : start + count]) - source.times[start]
    same = min(len(times), len(clip.times))
    drift = float(np.abs(np.array(clip.times[:same]) - clip.times[0] - times[:same]).max())
    path = Path(cut.video.path)
    own = sound_lag(path, source, source.times[0] + 0.3, source.times[0] + 2.0)
    low, high = clip.times[0] + QUIET_EDGE, clip.times[-1] - QUIET_EDGE
    told = [line for line in ffmpeg("-i", cut.path, "-f", "null", "-").splitlines() if line.strip()]
    return Measured(
        made.mode, made.fallback, list(made.notes), (exact, max(len(clip.numbers), count)), drift,
        sound_lag(cut.path, clip, low, high) - own, lost_tags(source.tags, clip.tags),
        [line for line in told if not any(word in line for word in HARMLESS)],
    )  # fmt: skip


def lost_tags(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What a clip lacks of its source."""
    lost = [
        f"{key} {before[key]} -> {after[key]}"
        for key in ("size", "pixels", "format", "colours", "range", "subtitles")
        if before[key] != after[key]
    ]
    lost += [key for key in ("interlaced", "mastering", "light") if before[key] and not after[key]]
    if before["tag"] == "hvc1" != after["tag"]:
        lost.append(f"hvc1 -> {after['tag']}")
    if before["sounds"] != after["sounds"]:
        lost.append(f"sound {before['sounds']} -> {after['sounds']}")
    return lost
