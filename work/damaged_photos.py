"""Photos that were cut off: what is there is read, and how far it reaches.

A companion of sort_faces.py, loaded where a decoder refuses a photo or complains of it. A row
counts as there when it is there up to its right edge. What was measured: docs/analysis/sources.md.
"""

from __future__ import annotations

import contextlib
import functools
import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import sort_faces as sf

hushed = sf.companion("hush").hushed

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
JPEG_TABLE, JPEG_SCAN = b"\xff\xc4", b"\xff\xda"  # begin what stands before a scan
MOST_TABLES = 4  # of those one may be cut, between the scans of a progressive JPEG
JPEG_NAMES = (".jpg", ".jpeg", ".jpe", ".jfif")
MOST_BEFORE = 4096  # bytes; a JPEG may begin so late: a header of a transfer, of MacBinary
NOTHING = 128  # what libjpeg gives for blocks without data, in the luma
LAST_COLUMNS = 8  # px; of one block: whether a row is there shows at its end
FEWEST_ROWS = 16  # px; less is no picture
LITTLE = "cut off: next to nothing of the picture is there"
UNHARMED = "odd: the end of the file is missing, but none of the picture"
COARSE = "incomplete: the finest detail is missing"  # of a progressive JPEG
AVIF = re.compile(rb"....ftypavi[fs]", re.DOTALL)
PLAIN_ROWS = (0, 3, 6)  # compressions of a BMP that are none: none, masks of colours, with alpha
FILLERS = (b"\x00", b"\xff")
SHORTER = 64  # bytes; libwebp takes no filler but zeros, so the second ending is an earlier one
# libjpeg says so of pictures it decodes as they were meant to be; all else of it is damage
HARMLESS = re.compile(r"extraneous bytes before marker 0xd9|Unknown Adobe color|Inconsistent progr")
DAMAGE = re.compile(
    r"Corrupt JPEG|Premature end|CRC error|Bogus|Invalid SOS|bad (data|Huffman)|Unexpected end"
    r"|invalid (distance|block|stored|code|literal)|Not enough|[Rr]ead error|data corrupt"
)


class Rescued(NamedTuple):
    """What could be read of a damaged photo."""

    image: np.ndarray  # (h, w, 3) uint8 BGR, not turned, perhaps reduced
    rows: int  # of the image, from above, that are there; its height if all are
    note: str  # what to say about it; "" if nothing
    top: int = 0  # the first of the rows that are there


def rescued(data: bytes, known: Any, scale: int) -> Rescued | None:
    """Read what is there of a photo that no decoder took, or None.

    known: what Pillow says of its header, or None. scale: 1, 2, 4 or 8, of JPEGs.
    """
    if data.startswith(JPEG_START):
        return cut_jpeg(data, scale)
    missing = told_length(data) - len(data)
    found = of_kind(data, known.format if known is not None else "")
    if found is None and 0 < missing <= sf.MAX_PIXELS:
        found = (of_avif if AVIF.match(data) else padded)(data, missing)
    if found is None and 0 < missing <= sf.MAX_PIXELS:
        raise sf.PhotoError(why_none(data))
    return found


def jpeg_within(data: bytes, name: str) -> tuple[bytes, str]:
    """(the JPEG behind a few odd bytes, what to say of that); else as given."""
    start = data.find(JPEG_START, 1, MOST_BEFORE)
    if start < 0 or not name.lower().endswith(JPEG_NAMES):
        return data, ""
    return data[start:], f"odd: {start} bytes before the picture"


def noted(lines: list[str], data: bytes, image: np.ndarray, scale: int) -> Rescued | None:
    """What decoders said of a photo that they read; None where it harms nobody to hear nothing."""
    if not lines:
        return None
    bad = [line for line in lines if DAMAGE.search(line) and not HARMLESS.search(line)]
    if not bad:
        return Rescued(image, len(image), f"odd: {'; '.join(lines)}")
    if data.startswith(JPEG_START) and any("remature end" in line for line in bad):
        return cut_off(image, jpeg_rows(data, image, scale), scale)
    return Rescued(image, len(image), f"damaged: {'; '.join(bad)}")


def cut_off(
    image: np.ndarray,
    rows: int,
    scale: int,
    other: str = COARSE,
) -> Rescued:
    """A picture of which only some rows are there; other: what to say if all are."""
    height = len(image)
    if rows < FEWEST_ROWS / scale:
        raise sf.PhotoError(LITTLE)
    if rows < height:
        note = f"incomplete: nothing below row {rows * scale} of {height * scale}"
        image = image.copy()
        image[rows:] = NOTHING  # some decoders go on with what looks like something
    else:
        note = other
    return Rescued(image, rows, note)


def cut_above(image: np.ndarray, top: int) -> Rescued:
    """A picture of which the rows above `top` are missing."""
    height = len(image)
    if height - top < FEWEST_ROWS:
        raise sf.PhotoError(LITTLE)
    image = image.copy()
    image[:top] = NOTHING
    return Rescued(image, height, f"incomplete: nothing above row {top} of {height}", top)


# --- JPEG -------------------------------------------------------------------


def cut_jpeg(data: bytes, scale: int) -> Rescued | None:
    """A JPEG without an end marker; what a lost sector filled with zeros is no data."""
    data, early = data.rstrip(b"\0"), False
    for _ in range(MOST_TABLES):
        whole = data + JPEG_END
        image, lines = hushed.heard(functools.partial(jpeg_pixels, whole, scale))
        if image is not None:
            break
        data = data[: max(data.rfind(mark) for mark in (JPEG_TABLE, JPEG_SCAN))]  # it is cut, too
        early = True
    if image is None:
        return None
    if early or any(DAMAGE.search(line) for line in lines):
        return cut_off(image, jpeg_rows(whole, image, scale), scale)
    return Rescued(image, len(image), "odd: a JPEG without an end marker, but all of it is there")


def zero_tail(data: bytes, scale: int) -> Rescued | None:
    """A JPEG that ends in zeros and not in an end marker before them; None if all of it is there.

    Decoders take zeros for data and may say nothing.
    """
    if data.rstrip(b"\0").endswith(JPEG_END):
        return None
    found = cut_jpeg(data, scale)
    return None if found is None or found.note.startswith("odd") else found


def jpeg_pixels(data: bytes, scale: int, grey: bool = False) -> np.ndarray | None:
    """(h, w, 3) or, if grey, (h, w) uint8 of a JPEG, not turned; None if it is none."""
    import cv2

    flags = (sf.opencv_flags(scale, grey)) | cv2.IMREAD_IGNORE_ORIENTATION
    with contextlib.suppress(cv2.error):
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None


def jpeg_rows(data: bytes, image: np.ndarray, scale: int) -> int:
    """How many rows of a JPEG are there: what has no data is one grey to the right edge."""
    grey, _ = hushed.heard(lambda: jpeg_pixels(data, scale, True))
    if grey is None or grey.shape != image.shape[:2]:
        return rows_unlike_last(image)
    there = np.flatnonzero((grey[:, -LAST_COLUMNS:] != NOTHING).any(axis=1))
    return int(there[-1]) + 1 if len(there) else 0


def rows_unlike_last(image: np.ndarray) -> int:
    """How many rows there are before those whose ends are the colour of the last pixel."""
    unlike = (image[:, -LAST_COLUMNS:] != image[-1, -1]).reshape(len(image), -1)
    other = np.flatnonzero(unlike.any(axis=1))
    return int(other[-1]) + 1 if len(other) else 0


# --- all other formats ------------------------------------------------------


def of_kind(data: bytes, kind: str) -> Rescued | None:
    """What is there of a cut photo of a kind that has a way of its own; None of all others."""
    if kind in ("PNG", "GIF"):
        return with_pillow_lenient(data, kind)
    cut_formats = sf.companion("cut_formats")
    if kind == "JPEG2000":
        found = cut_formats.coarse_jpeg2000(data, decoded)
        return None if found is None else cut_off(*found, 1)
    if data.startswith((b"II", b"MM")):
        found = cut_formats.cut_tiff(data)
        if found is not None:
            rows, height = found
            image = np.full((height, *rows.shape[1:]), NOTHING, np.uint8)
            image[: len(rows)] = rows
            return cut_off(image, len(rows), 1, UNHARMED)
    return None


def with_pillow_lenient(data: bytes, kind: str) -> Rescued:
    """A PNG or GIF as far as it goes: Pillow leaves the rest black, or the first colour.

    An interlaced one has a little of all rows. Raises PhotoError.
    """
    from PIL import ImageFile

    with hushed.turns.alone():  # Pillow has one such setting for all
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            header = sf.open_with_pillow(data)
            interlaced = is_interlaced(header)
            image = sf.pixels_from_pillow(header)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
    if not interlaced:
        return cut_off(image, rows_unlike_last(image), 1, "damaged: the end of the file is missing")
    return cut_off(*sf.companion("cut_formats").from_passes(image, kind), 1)


def is_interlaced(header: Any) -> bool:
    """Whether a PNG or GIF that Pillow opened holds its rows in passes."""
    if header.format == "PNG":
        return bool(header.info.get("interlace"))
    return bool(header.tile and header.tile[0].args[1])


def of_avif(data: bytes, missing: int) -> Rescued | None:
    """What is there of an AVIF, if it can be told."""
    found = sf.companion("cut_formats").cut_avif(data, missing, decoded)
    return None if found is None else cut_off(*found, 1, UNHARMED)


def padded(data: bytes, missing: int) -> Rescued | None:
    """A photo filled up to the length it tells, in two ways: rows where both agree are there."""
    if not has_first_part(data):
        return None
    if data.startswith(b"BM"):
        return cut_bmp(data, missing)
    if data[8:12] == b"WEBP":
        ends = data + bytes(missing), data[:-SHORTER] + bytes(SHORTER + missing)
    else:
        ends = tuple(data + filler * missing for filler in FILLERS)
    left, right = map(decoded, ends)
    if left is None or right is None or left.shape != right.shape:
        return None
    apart = np.flatnonzero((left != right).any(axis=(1, 2)))
    return cut_off(left, int(apart[0]) if len(apart) else len(left), 1, UNHARMED)


def cut_bmp(data: bytes, missing: int) -> Rescued | None:
    """A BMP whose rows are not compressed, most often the last one first."""
    image, first = decoded(data + bytes(missing)), int.from_bytes(data[10:14], "little")
    if image is None or (data[14] >= 40 and data[30] not in PLAIN_ROWS):
        return None
    height = len(image)
    rows = max(0, len(data) - first) * height // max(len(data) + missing - first, 1)
    if data[14] >= 40 and data[25] & 0x80:  # a negative height
        return cut_off(image, rows, 1, UNHARMED)
    return cut_above(image, height - rows)


def has_first_part(data: bytes) -> bool:
    """Whether a lossy WebP has its first part, which is about the whole picture (RFC 6386, 9.1)."""
    at = data.find(b"VP8 ", 12, 1 << 16) + 8
    if data[8:12] != b"WEBP" or at < 8:
        return True
    return len(data) > at + 10 + (int.from_bytes(data[at : at + 3], "little") >> 5) + SHORTER


def filled(data: bytes) -> bytes:
    """A file with zeros for what it lacks of the length it tells; as given if it lacks none."""
    missing = told_length(data) - len(data)
    return data + bytes(missing) if 0 < missing <= sf.MAX_PIXELS else data


def why_none(data: bytes) -> str:
    """What is said of a file that nothing can open."""
    told = told_length(data)
    if not 0 < told - len(data) <= sf.MAX_PIXELS:
        return "not a picture this tool can read"
    return f"cut off: {len(data)} of {told} bytes are there, which show nothing"


def decoded(data: bytes) -> np.ndarray | None:
    """(h, w, 3) uint8 BGR of what Pillow can read, not turned; None if it cannot."""

    def work() -> np.ndarray | None:
        try:
            header = sf.open_with_pillow(data)
            return None if header is None else sf.pixels_from_pillow(header)
        except sf.PhotoError:
            return None

    return hushed.heard(work)[0]


def told_length(data: bytes) -> int:
    """How many bytes a file has to have by what its own headers say; 0 if they do not tell."""
    with contextlib.suppress(struct.error, KeyError, ValueError, TypeError, IndexError, OSError):
        for starts, length in LENGTHS:
            if starts(data):
                return length(data)
    return 0


def boxes_length(data: bytes) -> int:
    """Of HEIF, AVIF: where the last box that has begun ends."""
    at = 0
    while at + 8 <= len(data):
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if size < head:
            break
        at += size
    return at


LENGTHS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], int]], ...] = (
    (lambda data: data[8:12] == b"WEBP", lambda data: struct.unpack("<I", data[4:8])[0] + 8),
    (lambda data: data[:2] == b"BM", lambda data: struct.unpack("<I", data[2:6])[0]),
    (lambda data: data[4:8] == b"ftyp", boxes_length),
    (lambda data: data[:4] in (b"II*\0", b"MM\0*"), sf.companion("odd_tiffs").told_length),
)
