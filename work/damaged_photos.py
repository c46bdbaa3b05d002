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
COARSE = "incomplete: the finest detail is missing"  # of a progressive JPEG
UNKNOWN_ROWS = re.compile(rb"BM|....ftypavi[fs]", re.DOTALL)  # upside down; all is in all bytes
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


def rescued(data: bytes, known: Any, scale: int) -> Rescued | None:
    """Read what is there of a photo that no decoder took, or None.

    known: what Pillow says of its header, or None. scale: 1, 2, 4 or 8, of JPEGs.
    """
    if data.startswith(JPEG_START):
        return cut_jpeg(data, scale)
    kind = known.format if known is not None else ""
    if kind in ("PNG", "GIF") and not is_interlaced(data):
        return with_pillow_lenient(data)
    found = None if UNKNOWN_ROWS.match(data) else padded(data)
    if found is None and (told := told_length(data)) > len(data):
        raise sf.PhotoError(f"cut off: {len(data)} of {told} bytes are there, which show nothing")
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
        raise sf.PhotoError("cut off: next to nothing of the picture is there")
    if rows < height:
        note = f"incomplete: nothing below row {rows * scale} of {height * scale}"
        image = image.copy()
        image[rows:] = NOTHING  # some decoders go on with what looks like something
    else:
        note = other
    return Rescued(image, rows, note)


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


def is_interlaced(data: bytes) -> bool:
    """Whether a PNG or GIF holds its rows in passes: of all rows a little is there."""
    if data.startswith(b"\x89PNG"):
        return data[28:29] == b"\1"
    at = data.find(b"\x2c", 13 + 3 * (2 << (data[10] & 7)) * (data[10] >> 7))
    return bool(data[at + 9 : at + 10] and data[at + 9] & 0x40)


def with_pillow_lenient(data: bytes) -> Rescued | None:
    """A PNG or GIF as far as it goes: Pillow leaves the rest black, or the first colour."""
    from PIL import ImageFile

    with hushed.turns.alone():  # Pillow has one such setting for all
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            image = sf.pixels_from_pillow(sf.open_with_pillow(data))
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
    return cut_off(image, rows_unlike_last(image), 1, "damaged: the end of the file is missing")


def padded(data: bytes) -> Rescued | None:
    """A photo filled up to the length it tells, in two ways: rows where both agree are there."""
    whole = filled(data)
    if len(whole) == len(data) or not has_first_part(data):
        return None
    if data[8:12] == b"WEBP":
        other = data[:-SHORTER] + bytes(SHORTER) + whole[len(data) :]
    else:
        other = filled(data, FILLERS[1])
    pictures = [decoded(whole), decoded(other)]
    if any(one is None for one in pictures) or pictures[0].shape != pictures[1].shape:
        return None
    left, right = pictures
    apart = np.flatnonzero((left != right).any(axis=(1, 2)))
    rows = int(apart[0]) if len(apart) else len(left)
    return cut_off(left, rows, 1, "odd: the end of the file is missing, but none of the picture")


def has_first_part(data: bytes) -> bool:
    """Whether a lossy WebP has its first part, which is about the whole picture (RFC 6386, 9.1)."""
    at = data.find(b"VP8 ", 12, 1 << 16) + 8
    if data[8:12] != b"WEBP" or at < 8:
        return True
    return len(data) > at + 10 + (int.from_bytes(data[at : at + 3], "little") >> 5) + SHORTER


def filled(data: bytes, filler: bytes = FILLERS[0]) -> bytes:
    """A file with a filler for what it lacks of the length it tells; as given if it lacks none."""
    missing = told_length(data) - len(data)
    return data + filler * missing if 0 < missing <= sf.MAX_PIXELS else data


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
    (lambda data: data[:4] in (b"II*\0", b"MM\0*"), sf.companion("odd_tiffs").end_of),
)
