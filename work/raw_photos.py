"""Camera RAW by rawpy (LibRaw) and JPEG XL by pylibjxl (libjxl), both optional.

A companion of sort_faces.py, loaded for such files only. Of a RAW the picture is looked at that the
camera made of it, if it is large enough, else a development at half the size. Boxes are in pixels
of what was looked at.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import math
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np

import sort_faces as sf

kinds, damaged = sf.companion("kinds"), sf.companion("damaged_photos")
tiffs, dates = sf.companion("odd_tiffs"), sf.companion("dates_in_photos")

LARGE_ENOUGH = 2000  # px of the longer edge; a preview this large shows what the photo does
NEARLY_ALL = 0.9  # of the RAW's longer edge; the same
LEAST_PREVIEW = 500  # px; what is smaller is not looked at in place of a RAW that cannot be read
# Bytes for each pixel while it is decoded, of a RAW at half the size; measured on 12 megapixels:
# 4.8 and 9.1 beyond the file (docs/analysis/sources.md)
RAW_BYTES, JXL_BYTES = 6, 12


class Raw(NamedTuple):
    """A RAW that LibRaw has opened."""

    raw: Any
    sizes: Any  # as at the beginning: a failed attempt to unpack voids them
    preview: tuple[bytes, Any] | None
    cut: (
        str  # why not to develop it: LibRaw would show what happens to be in memory, and not say so
    )


class Opened(NamedTuple):
    """A file that can be decoded as soon as there is room for it."""

    kind: str  # as it is told
    wh: tuple[int, int]  # pixels, not turned
    need: int  # bytes
    decode: Callable[[], tuple[Any, int]]  # a Rescued, and the orientation still to be applied
    dates: Callable[[], str]  # as in FaceCache.file_dates; to be asked after `decode`


def opened(data: bytes, kind: str) -> Opened:
    """A camera RAW or JPEG XL. Raises PhotoError where it, or its library, cannot be read."""
    return open_jxl(data) if kind == kinds.JPEG_XL else open_raw(data)


@functools.cache
def is_here(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def need_of(kind: str) -> str:
    """What to install to read a kind of photo; "" if it is here."""
    module = kinds.READERS[kind]
    return "" if is_here(module) else f"pip install {module}"


def check_reader(kind: str) -> None:
    if why := need_of(kind):
        raise sf.PhotoError(f"{kind}: {why}")


# --- camera RAW -------------------------------------------------------------


def open_raw(data: bytes) -> Opened:
    """The sizes of a RAW and how to decode it."""
    check_reader(kinds.RAW)
    import rawpy

    try:
        raw = rawpy.imread(io.BytesIO(data))
        sizes = raw.sizes
        wh, pixels = (sizes.width, sizes.height), sizes.raw_width * sizes.raw_height
    except (rawpy.LibRawError, *sf.PILLOW_ERRORS) as error:
        raise sf.PhotoError(f"{kinds.RAW}: {said(error)}") from None
    preview = preview_of(raw)
    end = tiffs.end_of(data)
    cut = f"cut off: {len(data)} of {end} bytes are there" if end > len(data) else ""
    cut = cut or ("damaged: it lacks parts of the picture" if tiffs.lacks_tiles(data) else "")
    return Opened(
        kinds.RAW,
        wh,
        pixels * RAW_BYTES,
        lambda: decode_raw(Raw(raw, sizes, preview, cut)),
        lambda: dates_of_raw(data, raw, preview),
    )


def taken_of(raw: Any) -> float:
    """What LibRaw says of the capture time: the local clock, read as UTC."""
    import rawpy

    with contextlib.suppress(rawpy.LibRawError):  # it unpacks the picture, too
        when = raw.other.timestamp
        if when.year >= 1980:  # 0 where the file does not tell
            return when.replace(tzinfo=timezone.utc).timestamp()
    return math.nan


def dates_of_raw(data: bytes, raw: Any, preview: tuple[bytes, Any] | None) -> str:
    """What the EXIF of the file says, or of its preview, or LibRaw, as FaceCache.file_dates."""
    for header, some in ((sf.open_with_pillow(data), data), (preview or (b"", None))[::-1]):
        told = "{}" if header is None else dates.dates_of(header, io.BytesIO(some))
        if "_original" in told or "_digitized" in told:
            return told
    seconds = taken_of(raw)
    if math.isnan(seconds):
        return "{}"
    when = datetime.fromtimestamp(seconds, timezone.utc)
    said_so = [dates.Statement("exif_original", f"{when:%Y:%m:%d %H:%M:%S}")]
    return dates.capture_time.stored(said_so, dates.Camera())


def preview_of(raw: Any) -> tuple[bytes, Any] | None:
    """(bytes, what Pillow says of the header) of the JPEG within a RAW, the largest there is."""
    import rawpy

    with contextlib.suppress(rawpy.LibRawError, *sf.PILLOW_ERRORS):
        thumb = raw.extract_thumb()
        if thumb.format == rawpy.ThumbFormat.JPEG:
            header = sf.open_with_pillow(thumb.data)
            return None if header is None else (thumb.data, header)
    return None


def decode_raw(opened: Raw) -> tuple[Any, int]:
    """(a Rescued, the orientation still to be applied)."""
    import rawpy

    raw, sizes, preview, why = opened
    edge = max(preview[1].size) if preview else 0
    if edge and edge >= min(max(sizes.width, sizes.height) * NEARLY_ALL, LARGE_ENOUGH):
        with contextlib.suppress(sf.PhotoError):
            return from_preview(opened)
    if not why:
        try:
            rgb = raw.postprocess(half_size=True, use_camera_wb=True, user_flip=0)
            image = np.ascontiguousarray(rgb[:, :, ::-1])
            return damaged.Rescued(image, len(image), ""), flip_orientation(sizes.flip)
        except (rawpy.LibRawError, *sf.PILLOW_ERRORS) as error:
            why = said(error)
    if edge >= LEAST_PREVIEW:
        with contextlib.suppress(sf.PhotoError):
            found, orientation = from_preview(opened)
            return found._replace(note=f"damaged: {why}; its preview was read"), orientation
    raise sf.PhotoError(f"{kinds.RAW}: {why}")


def from_preview(opened: Raw) -> tuple[Any, int]:
    """(a preview as a Rescued, the orientation still to be applied).

    Makers differ in whether it is upright already (libvips#5086, rawpy#186). Where the RAW is to be
    turned by a quarter and the shapes differ, it is, whatever its EXIF says: LibRaw writes one
    where there is none. Else its EXIF decides.
    """
    (data, header), sizes = opened.preview, opened.sizes
    image = sf.by_opencv(data, 1)
    if image is None:
        image = sf.pixels_from_pillow(header)
    found = damaged.Rescued(image, len(image), "")
    lying_raw, lying = sizes.raw_width > sizes.raw_height, image.shape[1] > image.shape[0]
    upright = flip_orientation(sizes.flip) in (6, 8) and lying_raw != lying
    return found, 1 if upright else sf.orientation_of(header)


def flip_orientation(flip: int) -> int:
    """LibRaw's flip (0, 3, 5: 90 degrees left, 6: 90 right) as an EXIF orientation."""
    return {3: 3, 5: 8, 6: 6}.get(flip, 1)


def said(error: BaseException) -> str:
    """What LibRaw says, which is bytes."""
    words = error.args[0] if error.args else ""
    text = words.decode(errors="replace") if isinstance(words, bytes) else sf.one_line(error)
    return text[:1].lower() + text[1:]


# --- JPEG XL ----------------------------------------------------------------


def open_jxl(data: bytes) -> Opened:
    """The size of a JPEG XL and how to decode it. libjxl turns it upright."""
    check_reader(kinds.JPEG_XL)
    import pylibjxl

    try:
        about = pylibjxl.probe(data)
    except (RuntimeError, ValueError, TypeError) as error:
        raise sf.PhotoError(why_no_jxl(data, error)) from None
    wh = about["width"], about["height"]

    def decode() -> tuple[Any, int]:
        try:
            image = pylibjxl.decode(data)
        except (RuntimeError, ValueError, MemoryError) as error:
            raise sf.PhotoError(why_no_jxl(data, error)) from None
        grey = image.reshape(*image.shape[:2], -1)[:, :, :1]
        colour = image[:, :, [2, 1, 0]] if image.shape[2:] >= (3,) else np.repeat(grey, 3, axis=2)
        return damaged.Rescued(np.ascontiguousarray(colour), len(colour), ""), 1

    return Opened(kinds.JPEG_XL, wh, wh[0] * wh[1] * JXL_BYTES, decode, lambda: dates_of_jxl(data))


def why_no_jxl(data: bytes, error: Exception) -> str:
    """What is said of a JPEG XL that libjxl refuses; a bare stream does not tell its length."""
    told = damaged.boxes_length(data) if data[4:8] == b"JXL " else 0
    if told > len(data):
        return f"{kinds.JPEG_XL}: cut off: {len(data)} of {told} bytes are there"
    return f"{kinds.JPEG_XL}: damaged or cut off: {sf.one_line(error)}"


def dates_of_jxl(data: bytes) -> str:
    """What its boxes say, as FaceCache.file_dates; nothing of a bare stream of pixels."""
    told = dates.box_dates(io.BytesIO(data)) if data[4:8] == b"JXL " else ([], dates.Camera())
    return dates.capture_time.stored(*told)
