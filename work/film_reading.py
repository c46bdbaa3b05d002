"""Films as they lie on disk: opened, their frames decoded, found again, and made into pictures.

Only here and in the other companions named film_ and clip_ is PyAV imported. A frame is known by
its pts, the time stamp the file gives it in units of the stream's time base: frame numbers mean
nothing where the frame rate varies.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

import sort_faces as sf

film_times = sf.companion("film_times")

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

SCENE_WIDTH = 128  # px; there and at 192, 256 PySceneDetect's own cuts (docs/analysis/video.md)
FULL_RANGE = 2  # AVCOL_RANGE_JPEG: levels from 0 to 255
MAX_FRAME_PIXELS = 8192 * 8192  # the largest cameras; several frames are in memory at once
SQUARE_PIXELS = 0.02  # pixel aspect this near 1 is a rounded frame size
PROBED_PACKETS = 400  # looked at for a varying frame rate


@contextlib.contextmanager
def film_faults() -> Iterator[None]:
    """Let whatever goes wrong with one film be a VideoError of one line: the others go on.

    A full disk is no film's fault. What is a bug of ours is told as one.
    """
    try:
        yield
    except (sf.SortFacesError, sf.VideoError):
        raise
    except Exception as error:
        where, what = getattr(error, "filename", None), getattr(error, "strerror", None)
        if getattr(error, "errno", None) in sf.NO_SPACE:  # raised by what is written meanwhile
            raise sf.SortFacesError(f"{where}: {what}; free some space") from None
        if isinstance(error, (OSError, MemoryError)) or is_of(error, "av"):
            raise sf.VideoError(what or sf.one_line(error)) from None
        raise sf.VideoError(sf.bug_of_ours(error)) from None


def is_of(error: Exception, package: str) -> bool:
    """Whether a package has raised an error, by its type or by where it arose."""
    import traceback

    *_, last = traceback.extract_tb(error.__traceback__)
    return (
        type(error).__module__.startswith(f"{package}.") or package in PurePath(last.filename).parts
    )


@contextlib.contextmanager
def open_video(path: str, hwaccel: str = "") -> Iterator[tuple[InputContainer, VideoStream]]:
    """(container, its main video stream, decoded in several threads) of a video file.

    hwaccel: kind of device that decodes it, as --hwaccel says.
    Raises VideoError for what cannot be opened or read further on.
    """
    try:
        import av
    except ImportError as error:
        raise sf.SortFacesError(sf.package_hint(error)) from None
    with film_faults():
        if os.path.getsize(path) == 0:
            raise sf.VideoError("empty file")
        device = sf.companion("hardware").accelerator(hwaccel) if hwaccel else None
        try:
            container = av.open(path, metadata_errors="replace", hwaccel=device)
        except av.error.FFmpegError as error:
            if device is None or isinstance(error, av.error.InvalidDataError):
                raise
            raise sf.companion("hardware").refused(hwaccel, error) from None
        with container:
            stream = container.streams.best("video")
            if stream is None or stream.disposition & type(stream.disposition).attached_pic:
                raise sf.VideoError("holds no video")
            wide, high = stream.codec_context.width, stream.codec_context.height
            if wide * high > MAX_FRAME_PIXELS:
                raise sf.VideoError(f"too large: frames of {wide} x {high} pixels")
            stream.thread_type = "AUTO"
            yield container, stream


def decoded(
    container: InputContainer, stream: VideoStream, lost: Counter | None = None
) -> Iterator[VideoFrame]:
    """The frames of an open video from where it stands, in display order, each with a pts.

    Packets that cannot be decoded are passed over; too many in a row raise VideoError. Frames
    whose time stamp does not rise are counted in `lost` and passed over.
    """
    return film_times.Timeline(container, stream).rising(lost)


def sought_frames(
    container: InputContainer, stream: VideoStream, start: int, joined: sf.Joined | None = None
) -> Iterator[VideoFrame]:
    """Frames from `start` (pts) on: one seek to a key frame before it, then in sequence."""
    return film_times.sought(film_times.Timeline(container, stream, joined), start)


def frames_at(
    path: str, wanted: Sequence[int], aspect: float, joined: sf.Joined | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """(pts, upright picture) of the wanted frames (rising pts), those near each other in sequence.

    Samples of a video are so near that it is decoded once; thumbnails far apart are sought.
    """
    with open_video(path) as (container, stream):
        near = film_times.SEEK_BACK / float(stream.time_base)
        breaks = np.flatnonzero(np.diff(wanted) > near) + 1
        for run in np.split(np.array(wanted, np.int64), breaks):
            left = set(run.tolist())
            frames = sought_frames(container, stream, int(run[0]), joined) if left else ()
            for frame in frames:
                if frame.pts in left:
                    left.discard(frame.pts)
                    yield frame.pts, upright_frame(frame, aspect)
                if not left or frame.pts > run[-1]:
                    break


def upright_frame(frame: VideoFrame, aspect: float) -> np.ndarray:
    """A decoded frame as (h, w, 3) uint8 BGR: square pixels, turned as a player shows it.

    aspect: width of a pixel / its height.
    """
    import cv2

    image = frame.to_ndarray(format="bgr24")
    if abs(aspect - 1.0) > SQUARE_PIXELS:  # the short side grows: no pixel is lost
        wide, high = max(aspect, 1.0), max(1.0 / aspect, 1.0)
        image = cv2.resize(image, None, fx=wide, fy=high, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def small_picture(frame: VideoFrame, width: int = SCENE_WIDTH) -> np.ndarray:
    """A frame as a small (h, w, 3) uint8 BGR picture, for comparing it with its neighbours.

    8-bit planar YUV, nearly every video, is sampled in place: scaling the whole picture first
    would cost a third of the decoding again.
    """
    import cv2

    step = max(1, frame.width // width)
    upright = all(plane.line_size > 0 for plane in frame.planes)  # some codecs go bottom up
    planar = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p")
    if not upright or frame.format.name not in planar:
        height = max(2, frame.height // step)
        small = frame.reformat(frame.width // step, height, "bgr24", interpolation="FAST_BILINEAR")
        return small.to_ndarray()
    parts = []
    for plane in frame.planes:
        pixels = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        down = max(1, round(step * plane.height / frame.height))
        across = max(1, round(step * plane.width / frame.width))
        parts.append(pixels[: plane.height : down, : plane.width : across])
    high, wide = (min(part.shape[axis] for part in parts) for axis in (0, 1))
    parts = [part[:high, :wide] for part in parts]
    if not (frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj")):
        parts = [cv2.LUT(*pair) for pair in zip(parts, studio_levels(), strict=True)]
    return cv2.cvtColor(cv2.merge(parts), cv2.COLOR_YUV2BGR)


@functools.cache
def studio_levels() -> np.ndarray:
    """(3, 256) uint8 tables that stretch Y from 16-235 and U, V from 16-240 to all of 0-255."""
    values = np.arange(256.0)
    luma, chroma = (values - 16) * 255 / 219, (values - 128) * 255 / 224 + 128  # ITU-R BT.601
    return np.rint(np.stack([luma, chroma, chroma]).clip(0, 255)).astype(np.uint8)


def video_facts(path: str, size: int, mtime_ns: int) -> sf.Video:
    """Read the metadata and the first frame of a video. Raises VideoError if it has none."""
    with open_video(path) as (container, stream):
        first = next(decoded(container, stream), None)
        if first is None:
            raise sf.VideoError("no frame can be decoded")
        base = stream.time_base
        length = stream.duration * base if stream.duration else 0
        whole = container.duration / 1e6 if container.duration else 0  # AV_TIME_BASE
        fps = stream.average_rate or stream.guessed_rate or 0
        codec = stream.codec_context
        return sf.Video(
            id=sf.content_id(path, size),
            path=path,
            size=size,
            mtime_ns=mtime_ns,
            duration=round(max(0.0, float(length or whole)), 3),
            fps=round(float(fps), 3),
            vfr=has_varying_rate(container, stream),
            rotation=round(first.rotation),
            sar=round(float(stream.sample_aspect_ratio or 1), 4),
            width=codec.width,
            height=codec.height,
            codec=codec.name,
            pix_fmt=codec.pix_fmt or "",
            audio=tuple(track.codec_context.name for track in container.streams.audio),
            time_base=(base.numerator, base.denominator),
            start=first.pts,
        )


def has_varying_rate(container: InputContainer, stream: VideoStream) -> bool:
    """Whether frames are spaced unevenly, beyond the rounding of the time base."""
    film_times.Timeline(container, stream).restart()
    packets = itertools.islice(container.demux(stream), PROBED_PACKETS)
    times = sorted(packet.pts for packet in packets if packet.pts is not None)
    steps = np.diff(times[:-16])  # the last ones may still miss frames shown between them
    return len(steps) > 1 and int(steps.max() - steps.min()) > max(1, int(steps.min()) // 10)


def joined_in(path: str) -> sf.Joined | None:
    """Where the time of a film begins anew, by its packets; nothing is decoded.

    Only in formats in which it does are they all read.
    """
    import av

    with open_video(path) as (container, stream):
        line = film_times.Timeline(container, stream)
        if line.bytes_seek or container.format.flags & av.format.Flags.ts_discont.value:
            for _ in line.packets():
                pass
        return line.joined()


def shown_slots(path: str, cut: Any) -> dict[int, int]:
    """{slot of a packet: pts of its frame} of an AVI, from a key frame before a cut on.

    Beyond its end, too: what is shown later may come earlier in the file.
    """
    with open_video(path) as opened:
        line = film_times.Timeline(*opened, cut.joined)
        line.shown = {}
        beyond = cut.end + 2 * film_times.LEADING * line.usual_length()
        for frame in film_times.sought(line, cut.start):
            if frame.pts >= beyond:
                break
        return line.shown
