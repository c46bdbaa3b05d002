"""Short made videos: the demo's people in front of the camera, in every odd form films come in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

import sort_faces as sf

demo_library, writer = sf.companion("demo_library"), sf.companion("clips")

EDGE = 256  # px; the pictures are square
RATE = 25  # frames per second


def face_picture(name: str) -> np.ndarray:
    """(EDGE, EDGE, 3) uint8 BGR crop of one of the people of the demo photo."""
    group = sf.decode_photo(demo_library.demo_photo()).image
    box = np.array(demo_library.DEMO_FACES[name], np.float32)
    window = sf.crop_square(box, (group.shape[1], group.shape[0]), sf.ExportParams.pad_ratio)
    return sf.cut_window(group, window, EDGE)


def empty_picture(seed: int) -> np.ndarray:
    """A smooth picture of nothing, other for every seed."""
    import cv2

    rough = np.random.default_rng(seed).integers(0, 255, (4, 4, 3)).astype(np.uint8)
    return cv2.resize(rough, (EDGE, EDGE), interpolation=cv2.INTER_CUBIC)


def shot(picture: np.ndarray, frames: int) -> Iterator[np.ndarray]:
    """A picture that drifts a little to and fro."""
    for number in range(frames):
        yield np.roll(picture, abs(number % 24 - 12), axis=1)


def film(shots: Sequence[tuple[str, float]]) -> Iterator[np.ndarray]:
    """Frames of shots (person, or "" for nobody; seconds)."""
    for number, (name, seconds) in enumerate(shots):
        picture = face_picture(name) if name else empty_picture(number)
        yield from shot(picture, round(seconds * RATE))


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    codec: str = "libx264",
    times: Sequence[int] | None = None,
    audio: str = "",
    pix_fmt: str = "yuv420p",
    sar: Fraction | None = None,
    **options: str,
) -> Path:
    """Encode pictures; times are pts in 1/1000 s (default: RATE frames per second)."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=RATE)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if codec != "mpeg4":
            stream.codec_context.time_base = Fraction(1, 1000)
        if sar:
            stream.codec_context.sample_aspect_ratio = sar
        preset = {"preset": "ultrafast"} if codec.startswith("libx26") else {}
        quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream.codec_context.options = {"g": "250", **preset, **quiet, **options}
        sound = out.add_stream(audio, rate=44100) if audio else None
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            if codec != "mpeg4":
                frame.pts = times[number] if times is not None else number * 1000 // RATE
                frame.time_base = Fraction(1, 1000)
            out.mux(stream.encode(frame))
        if sound is not None:
            write_tone(out, sound, len(frames) / RATE, (times[0] if times else 0) / 1000)
        out.mux(stream.encode())
    return path


def write_tone(out, sound, seconds: float, start: float) -> None:
    """A tone that begins a new pitch every half second."""
    import av

    at = np.arange(int(seconds * 44100)) / 44100
    wave = np.sin(2 * np.pi * (300 + 200 * np.floor(at * 2)) * at) * 8000
    for at_ in range(0, len(wave) - 1024, 1024):
        part = wave[at_ : at_ + 1024].astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 44100, at_ + round(start * 44100)
        frame.time_base = Fraction(1, 44100)
        out.mux(sound.encode(frame))
    out.mux(sound.encode())


def rotated(path: Path, degrees: int) -> Path:
    """A copy of a video whose container says that players turn it."""
    import imageio_ffmpeg

    turned = path.with_name(f"turned {path.name}")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-display_rotation",
               str(degrees), "-i", str(path), "-c", "copy", str(turned)]  # fmt: skip
    subprocess.run(command, check=True)
    return turned


def frames_of(path: Path) -> list[np.ndarray]:
    """All frames of a video, upright, as small grey pictures."""
    with sf.open_video(str(path)) as (container, stream):
        return [writer.look_of(sf.upright_frame(f, 1.0)) for f in sf.decoded(container, stream)]


def renamed(path: Path, old: Path, new: Path) -> None:
    """Let a file of a work folder name another folder."""
    text = path.read_text().replace(str(old), str(new))
    if path.suffix == ".jsonl":  # whose lines carry checksums
        lines = [json.loads(line) for line in text.splitlines()]
        lines = [{key: line[key] for key in line if key != "crc32"} for line in lines]
        text = b"".join(map(sf.checked_line, lines)).decode()
    path.write_text(text)
