"""Short made videos: the demo's people in front of the camera, in every odd form films come in.

MADE is a table of films for the containers and codecs: every frame shows its number as a row of
black and white squares (`painted`, `read_number`), and the sound is a tone that rises steadily, so
that what is heard at a moment tells the time it comes from (`heard_at`).
"""

from __future__ import annotations

import json
import math
import subprocess
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

import sort_faces as sf

demo_library, writer = sf.companion("demo_library"), sf.companion("clips")
film_reading = sf.companion("film_reading")

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
    with film_reading.open_video(str(path)) as (container, stream):
        return [
            writer.look_of(film_reading.upright_frame(f, 1.0))
            for f in film_reading.decoded(container, stream)
        ]


def renamed(path: Path, old: Path, new: Path) -> None:
    """Let a file of a work folder name another folder."""
    text = path.read_text().replace(str(old), str(new))
    if path.suffix == ".jsonl":  # whose lines carry checksums
        lines = [json.loads(line) for line in text.splitlines()]
        lines = [{key: line[key] for key in line if key != "crc32"} for line in lines]
        text = b"".join(map(sf.checked_line, lines)).decode()
    path.write_text(text)


# -- films of every container and codec -------------------------------------

NUMBER_BITS = 8  # squares that a frame's number is painted as
WIDE, HIGH = 176, 144  # px; a size that H.263 knows
FRAMES = 75  # three seconds at RATE
SWEEP = (400.0, 600.0)  # Hz at the first frame, and Hz more with every second
HEARD = 0.06  # s; of the sound that one measure of the tone looks at
SOUND_RATE = 44100  # Hz
BREAK = 45  # frame at which the second shot of a film begins


def painted(number: int, size: tuple[int, int] = (WIDE, HIGH)) -> np.ndarray:
    """(h, w, 3) uint8: a picture that drifts, of one of two shots, with its number on top."""
    import cv2

    shot_of = 1 + (number >= BREAK)
    rough = np.random.default_rng(shot_of).integers(30, 225, (4, 4, 3)).astype(np.uint8)
    image = cv2.resize(rough, size, interpolation=cv2.INTER_CUBIC)
    image = np.ascontiguousarray(np.roll(image, number % 16, axis=1))
    square = size[0] // (NUMBER_BITS + 2)
    for bit in range(NUMBER_BITS + 2):  # a white one before and a black one after: the levels
        white = bit == 0 or (0 < bit <= NUMBER_BITS and number >> (bit - 1) & 1)
        image[: square + 4, bit * square : (bit + 1) * square] = 255 * white
    return image


def read_number(image: np.ndarray) -> int:
    """The number painted on a picture (h, w, 3)."""
    square = image.shape[1] / (NUMBER_BITS + 2)
    row = image[int(square * 0.3) : int(square * 0.8)].mean(axis=(0, 2))
    levels = [
        row[int((bit + 0.3) * square) : int((bit + 0.7) * square)].mean()
        for bit in range(NUMBER_BITS + 2)
    ]
    middle = (levels[0] + levels[-1]) / 2
    return sum(int(level > middle) << bit for bit, level in enumerate(levels[1:-1]))


def sweep(seconds: float, channels: int) -> np.ndarray:
    """(n, channels) int16 of the rising tone."""
    at = np.arange(int(seconds * SOUND_RATE)) / SOUND_RATE
    tone = np.sin(2 * np.pi * (SWEEP[0] * at + SWEEP[1] * at**2 / 2)) * 9000
    return np.repeat(tone.astype("<i2")[:, None], channels, axis=1)


def tone_time(sound: np.ndarray, rate: int) -> float:
    """The time in the sweep that a piece of sound (n,) has in its middle, s; NaN where silent."""
    if len(sound) < 256 or np.abs(sound).max() < 1e-3:
        return math.nan
    padded = 1 << 16
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), padded))
    peak = int(spectrum[8:].argmax()) + 8
    return (peak * rate / padded - SWEEP[0]) / SWEEP[1]


def sound_of(path: Path, index: int = 0) -> tuple[np.ndarray, np.ndarray, int]:
    """((n,) samples of the first channel in [-1, 1], (n,) their times in s, rate) of a sound."""
    import av

    parts, times, rate = [], [], 0
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return np.zeros(0), np.zeros(0), SOUND_RATE
        track = container.streams.audio[index]
        resampler = av.AudioResampler("fltp", track.layout, track.rate)
        for frame in container.decode(track):
            rate, start = frame.sample_rate, frame.pts
            if start is None:
                start = sum(map(len, parts)) * (1 / frame.time_base) / rate
            for part in resampler.resample(frame):
                parts.append(part.to_ndarray()[0])
                begin = float(start * frame.time_base)
                times.append(begin + np.arange(len(parts[-1])) / rate)
    if not parts:
        return np.zeros(0), np.zeros(0), rate
    return np.concatenate(parts), np.concatenate(times), rate


def heard_at(sound: tuple[np.ndarray, np.ndarray, int], moment: float) -> float:
    """The time in the sweep that is heard at a moment of a file, s; NaN for none."""
    samples, times, rate = sound
    near = np.abs(times - moment) < HEARD / 2
    return tone_time(samples[near], rate)


def ffmpeg(*words: object, data: bytes | None = None) -> str:
    """Run ffmpeg; returns what it complains about."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-v", "warning", "-y"]
    done = subprocess.run(
        [*command, *map(str, words)], input=data, capture_output=True, check=False
    )
    told = done.stderr.decode(errors="replace")
    if done.returncode:
        raise RuntimeError(told)
    return told


@dataclass(frozen=True)
class Made:
    """A film to make: its container, and what ffmpeg is told of its picture and its sound."""

    suffix: str
    video: str  # options of the picture
    audio: str = ""  # options of the sound; "" for none
    channels: int = 2
    size: tuple[int, int] = (WIDE, HIGH)
    rate: int = RATE  # frames per second
    before: str = ""  # options in front of the picture's input
    extra: str = ""  # options of the whole
    then: Callable[[Path], Path] | None = None  # what becomes of it afterwards

    def make(self, path: Path) -> Path:
        """Write it; returns its path, with the suffix."""
        path = path.with_name(path.name + self.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = b"".join(painted(number, self.size).tobytes() for number in range(FRAMES))
        words = [*self.before.split(), "-f", "rawvideo", "-pix_fmt", "bgr24", "-s"]
        words += ["x".join(map(str, self.size)), "-r", str(self.rate), "-i", "pipe:"]
        if self.audio:
            tone = path.with_suffix(".wav")
            with wave.open(str(tone), "wb") as out:
                out.setnchannels(self.channels)
                out.setsampwidth(2)
                out.setframerate(SOUND_RATE)
                out.writeframes(sweep(FRAMES / self.rate, self.channels).tobytes())
            words += ["-i", tone, *self.audio.split(), "-metadata:s:a:0", "language=fra"]
        words += [*self.video.split(), *self.extra.split(), path]
        ffmpeg(*words, data=frames)
        if self.audio:
            tone.unlink()
        return self.then(path) if self.then else path


def joined_twice(path: Path) -> Path:
    """The bytes of a film twice, one after the other, as recorders leave them."""
    data = path.read_bytes()
    path.write_bytes(data + data)
    return path


def turned_film(path: Path) -> Path:
    """The film with a note that players turn it."""
    return rotated(path, 90).replace(path)


X264 = "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p"
X265 = "-c:v libx265 -preset ultrafast -g 25 -x265-params log-level=none"
HDR10 = (
    ":hdr10=1:repeat-headers=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    ":max-cll=1000,400:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)"
    "L(10000000,50)"
)
BT2020 = "-color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc"
XVID = "-c:v mpeg4 -q:v 3 -g 25 -vtag XVID"
INTERLACED = "-vf setfield=tff -flags +ildct+ilme -field_order tt"
DROPPED = "-vf select='not(eq(mod(n\\,5)\\,3))' -fps_mode vfr"

AV1 = "-c:v libsvtav1 -preset 12 -g 25"
VP9 = "-c:v libvpx-vp9 -deadline realtime -g 25 -pix_fmt yuv420p"
BT709 = "-color_primaries bt709 -color_trc bt709 -colorspace bt709"

MADE: dict[str, Made] = {
    "h264 aac mp4": Made(".mp4", X264, "-c:a aac"),
    "h264 main bframes aac mov": Made(".mov", X264 + " -bf 3", "-c:a aac"),
    "h264 ac3 mkv": Made(".mkv", X264, "-c:a ac3"),
    "h264 open gop eac3 mkv": Made(".mkv", X264 + " -x264-params open-gop=1", "-c:a eac3"),
    "h264 dts 5.1 mkv": Made(".mkv", X264, "-c:a dca -strict -2", 6),
    "h264 flac mkv": Made(".mkv", X264, "-c:a flac"),
    "h264 mp3 avi": Made(".avi", X264 + " -bf 0", "-c:a libmp3lame"),
    "h264 bframes mp3 avi": Made(".avi", X264 + " -bf 2", "-c:a libmp3lame"),
    "h264 ac3 ts": Made(".ts", X264, "-c:a ac3"),
    "h264 ac3 m2ts": Made(".m2ts", X264, "-c:a ac3"),
    "h264 joined aac ts": Made(".ts", X264, "-c:a aac", then=joined_twice),
    "h264 aac flv": Made(".flv", X264, "-c:a aac"),
    "h264 aac 3gp": Made(".3gp", X264, "-c:a aac -ac 1"),
    "h264 interlaced mp4": Made(".mp4", X264 + " " + INTERLACED, "-c:a aac"),
    "h264 10 bit mkv": Made(".mkv", X264.replace("yuv420p", "yuv420p10le"), "-c:a aac"),
    "h264 4:2:2 mov": Made(".mov", X264.replace("yuv420p", "yuv422p"), "-c:a pcm_s16le"),
    "h264 varying rate mkv": Made(".mkv", X264 + " " + DROPPED, "-c:a aac"),
    "h264 anamorphic mp4": Made(".mp4", X264 + " -vf setsar=16/11", "-c:a aac"),
    "h264 turned mp4": Made(".mp4", X264, "-c:a aac", then=turned_film),
    "h264 odd size mkv": Made(
        ".mkv", X264.replace("yuv420p", "yuv444p"), "-c:a aac", size=(177, 145)
    ),
    "hevc hvc1 aac mp4": Made(".mp4", X265 + " -tag:v hvc1 -pix_fmt yuv420p", "-c:a aac"),
    "hevc pyramid aac mp4": Made(
        ".mp4", X265.replace("ultrafast", "medium") + " -pix_fmt yuv420p", "-c:a aac"
    ),
    "hevc hev1 opus mkv": Made(".mkv", X265 + " -pix_fmt yuv420p", "-c:a libopus"),
    "hevc 10 bit hdr10 mkv": Made(
        ".mkv", f"{X265}{HDR10} -pix_fmt yuv420p10le {BT2020}", "-c:a eac3", 6
    ),
    "hevc 10 bit hdr10 mp4": Made(
        ".mp4", f"{X265}{HDR10} -pix_fmt yuv420p10le -tag:v hvc1 {BT2020}", "-c:a aac", 6
    ),
    "hevc joined ac3 ts": Made(
        ".ts", X265 + " -pix_fmt yuv420p", "-c:a ac3", then=joined_twice
    ),
    "av1 opus webm": Made(".webm", AV1 + " -pix_fmt yuv420p", "-c:a libopus"),
    "av1 turned bt709 mp4": Made(
        ".mp4",
        f"{AV1} -pix_fmt yuv420p {BT709}",
        "-c:a aac",
        then=turned_film,
    ),
    "av1 10 bit hdr mkv": Made(
        ".mkv", f"{AV1} -pix_fmt yuv420p10le {BT2020}", "-c:a libopus"
    ),
    "vp8 vorbis webm": Made(
        ".webm", "-c:v libvpx -b:v 1M -g 25 -pix_fmt yuv420p", "-c:a libvorbis"
    ),
    "vp9 opus webm": Made(".webm", VP9, "-c:a libopus"),
    "vp9 odd size webm": Made(
        ".webm", VP9, "-c:a libopus", size=(177, 145)
    ),
    "mpeg1 mp2 mpg": Made(".mpg", "-c:v mpeg1video -q:v 3 -g 15 -bf 2", "-c:a mp2"),
    "mpeg2 mp2 mpg": Made(".mpg", "-c:v mpeg2video -q:v 3 -g 15 -bf 2 -f svcd", "-c:a mp2"),
    "mpeg2 ac3 vob": Made(".vob", "-c:v mpeg2video -q:v 3 -g 15 -bf 2", "-c:a ac3"),
    "mpeg2 interlaced ac3 5.1 vob": Made(
        ".vob", "-c:v mpeg2video -q:v 3 -g 15 -bf 2 " + INTERLACED, "-c:a ac3", 6
    ),
    "mpeg2 joined ac3 vob": Made(
        ".vob", "-c:v mpeg2video -q:v 3 -g 15 -bf 2", "-c:a ac3", then=joined_twice
    ),
    "mpeg2 mp2 ts": Made(".ts", "-c:v mpeg2video -q:v 3 -g 15 -bf 2", "-c:a mp2"),
    "xvid mp3 avi": Made(".avi", XVID, "-c:a libmp3lame"),
    "xvid bframes mp3 avi": Made(".avi", XVID + " -bf 2", "-c:a libmp3lame"),
    "divx bframes ac3 avi": Made(
        ".avi", XVID.replace("XVID", "DX50") + " -bf 1 -flags +qpel", "-c:a ac3"
    ),
    "mpeg4 aac mp4": Made(".mp4", "-c:v mpeg4 -q:v 3 -g 25 -bf 2", "-c:a aac"),
    "msmpeg4 mp3 avi": Made(".avi", "-c:v msmpeg4 -q:v 3 -g 25", "-c:a libmp3lame"),
    "wmv2 wma wmv": Made(".wmv", "-c:v wmv2 -q:v 3 -g 25", "-c:a wmav2"),
    "wmv1 wma asf": Made(".asf", "-c:v wmv1 -q:v 3 -g 25", "-c:a wmav1"),
    "flv1 mp3 flv": Made(".flv", "-c:v flv -q:v 3 -g 25", "-c:a libmp3lame"),
    "h263 aac 3gp": Made(".3gp", "-c:v h263 -q:v 3 -g 25", "-c:a aac -ac 1"),
    "theora vorbis ogv": Made(
        ".ogv", "-c:v libtheora -q:v 7 -g 25 -pix_fmt yuv420p", "-c:a libvorbis"
    ),
    "prores pcm mov": Made(".mov", "-c:v prores_ks -profile:v 2", "-c:a pcm_s16le"),
    "dnxhd pcm mov": Made(
        ".mov", "-c:v dnxhd -profile:v dnxhr_lb -pix_fmt yuv422p", "-c:a pcm_s24le",
        size=(256, 144),
    ),
    "mjpeg pcm avi": Made(".avi", "-c:v mjpeg -q:v 3 -pix_fmt yuvj422p", "-c:a pcm_s16le"),
    "mjpeg odd size mov": Made(".mov", "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p", size=(177, 145)),
    "ffv1 flac mkv": Made(".mkv", "-c:v ffv1 -level 3 -pix_fmt yuv422p", "-c:a flac"),
    "huffyuv pcm avi": Made(".avi", "-c:v huffyuv -pix_fmt rgb24", "-c:a pcm_s16le"),
}  # fmt: skip
