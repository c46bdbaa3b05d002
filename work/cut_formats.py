"""Photos of which the end is missing and that have no plain rows: what their formats still show.

A companion of sort_faces.py, loaded by damaged_photos.py for interlaced PNG and GIF, JPEG 2000,
TIFF and AVIF. JPEG XL is not among them: libjxl shows parts only to who asks step by step, and
pylibjxl does not. What was measured: docs/analysis/sources.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import sort_faces as sf

tiffs = sf.companion("odd_tiffs")

ENDS = 8  # px; of one row of one pass: whether it is there shows at its end


# --- interlaced PNG and GIF -------------------------------------------------


class Pass(NamedTuple):
    """Which pixels of a picture one pass of an interlaced file holds."""

    top: int
    left: int
    down: int  # rows from one to the next
    across: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """A view of those pixels."""
        return image[self.top :: self.down, self.left :: self.across]


PASSES = {  # in their order: PNG, third edition, 8.2; GIF89a, appendix E
    "PNG": [Pass(*one) for one in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4),
                                   (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))],
    "GIF": [Pass(*one) for one in ((0, 0, 8, 1), (4, 0, 8, 1), (2, 0, 4, 1), (1, 0, 2, 1))],
}  # fmt: skip
GRIDS = {  # (rows, columns) between the pixels that are there after each pass
    "PNG": [(8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1), (1, 1)],
    "GIF": [(8, 1), (4, 1), (2, 1), (1, 1)],
}


def from_passes(image: np.ndarray, kind: str) -> tuple[np.ndarray, int]:
    """(the picture with its gaps filled, how many of its rows are there at all).

    image: (h, w, 3) uint8, what Pillow could decode; the rest has one colour, that of the last
    pixel of the last pass.
    """
    import cv2

    height, width = image.shape[:2]
    passes = [one for one in PASSES[kind] if one.of(image).size]
    colour = passes[-1].of(image)[-1, -1]
    seen = [rows_there(one.of(image), colour) for one in passes]
    last = max((number for number, rows in enumerate(seen) if rows), default=0)
    complete = last if seen[last] < len(passes[last].of(image)) else last + 1
    grid = GRIDS[kind][max(complete - 1, 0)]
    coarse = np.ascontiguousarray(image[:: grid[0], :: grid[1]])
    filled = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    if not complete:
        return filled, min(height, seen[0] * passes[0].down)
    if last == len(PASSES[kind]) - 1:  # each second row, as far as it goes
        filled[: seen[last] * 2] = image[: seen[last] * 2]
    return filled, height


def rows_there(part: np.ndarray, colour: np.ndarray) -> int:
    """How many rows of a pass are there, from above: those before its last ones of one colour."""
    there = np.flatnonzero((part[:, -ENDS:] != colour).any(axis=(1, 2)))
    return int(there[-1]) + 1 if len(there) else 0


# --- JPEG 2000 --------------------------------------------------------------

START_OF_TILE, END_OF_STREAM = b"\xff\x90", b"\xff\xd9"  # ISO/IEC 15444-1, annex A
FIRST_MARKERS = b"\xff\x4f\xff\x51"  # start of the codestream, sizes
BLACK = np.zeros(3, np.uint8)  # what Pillow leaves of a tile that is missing
SMALL = 4  # halvings at which it is tried what can be decoded: the packets are read all the same


def whole_tiles(data: bytes) -> tuple[bytes, int]:
    """(a JPEG 2000, bytes its last tile part lacks); without what has not even a header."""
    at = data.find(FIRST_MARKERS) + 2
    if at < 2:
        return data, 0
    while data[at : at + 1] == b"\xff" and data[at : at + 2] != START_OF_TILE:
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    while data[at : at + 2] == START_OF_TILE and at + 12 <= len(data):
        size = int.from_bytes(data[at + 6 : at + 10], "big")
        if size < 12:  # until the end of the file
            return data, 0
        at += size
    return data[:at], max(0, at - len(data))


def is_one_tile(data: bytes) -> bool:
    """Whether a JPEG 2000 is one tile, of which there is a little everywhere."""
    size, _, tile = struct.unpack_from(">8s8s8s", data, data.find(FIRST_MARKERS) + 8)
    return all(tile[at : at + 4] >= size[at : at + 4] for at in (0, 4))


def coarse_jpeg2000(
    data: bytes, decoded: Callable[[bytes], np.ndarray | None]
) -> tuple[np.ndarray, int] | None:
    """(what there is of a JPEG 2000, how many of its rows are there at all); None if nothing.

    All of it at less detail, or some of its tiles.
    Packets that are missing are zeros, which says that they are empty. The one that was cut is
    filled with ones, as decoders do with codes that end early; how long it was is found by trying,
    since ones are no header of the next packet.
    """
    data, missing = whole_tiles(data)
    if missing > sf.MAX_PIXELS:
        return None

    def with_ones(count: int) -> bytes:
        return data + b"\xff" * count + bytes(missing - count) + END_OF_STREAM

    low, high = 0, missing
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if can_be_read(with_ones(middle)) else (low, middle - 1)
    found = decoded(with_ones(low))
    if found is None:
        return None
    return found, len(found) if is_one_tile(data) else rows_there(found, BLACK)


def can_be_read(data: bytes) -> bool:
    """Whether OpenJPEG takes all packets of a file."""
    hushed = sf.companion("hush").hushed

    def work() -> bool:
        header = sf.open_with_pillow(data)
        if header is None:
            return False
        header.reduce = SMALL
        try:
            header.load()
        except sf.PILLOW_ERRORS:
            return False
        return True

    return hushed.heard(work)[0]


# --- TIFF -------------------------------------------------------------------


def cut_tiff(data: bytes) -> tuple[np.ndarray, int] | None:
    """((rows, w, 3) uint8 BGR, not turned, of the rows of a TIFF that are there, its height).

    None where that cannot be told, or nothing is missing.

    The file is told that it is as high as its strips go, since of each strip no more is decoded
    than that needs. In a compressed strip that was cut rows are there that do not depend on what it
    is filled with: zeros, or noise, which is not of one colour in any palette.
    """
    page = next(iter(tiffs.pages_of(data)), None)
    bounds = tiffs.rows_of_parts(page, len(data)) if page is not None else None
    missing = tiffs.end_of(data) - len(data)
    if bounds is None or not 0 < missing <= sf.MAX_PIXELS:
        return None
    (whole, most), height = bounds, page.first(tiffs.LENGTH)
    ends = bytes(missing), np.random.default_rng(0).bytes(missing)
    pair = [Shorter(data + end, page.offset) for end in ends]
    if page.first(tiffs.COMPRESSION, 1) != 1 and (
        not is_packed(data) or sf.open_with_pillow(pair[0].data) is None
    ):
        most = whole  # others do not say where a strip ended early
    rows = min(one.most_rows(whole, most) for one in pair)
    left, right = (one.decoded(rows) for one in pair)
    if left is None or right is None:
        return None
    apart = np.flatnonzero((left != right).any(axis=(1, 2)))
    if len(apart):
        left = left[: apart[0]] if apart[0] >= whole else pair[0].decoded(whole)
    return None if left is None else (left, height)


def is_packed(data: bytes) -> bool:
    """Whether the strips of a TIFF are compressed, and no files of another kind."""
    codes = [page.first(tiffs.COMPRESSION, 1) for page in tiffs.pages_of(data)[:1]]
    return any(code in tiffs.LIBTIFF and code != 1 for code in codes)


class Shorter(NamedTuple):
    """A TIFF that is told to be less high."""

    data: bytes
    page: int  # offset of its directory

    def decoded(self, rows: int) -> np.ndarray | None:
        """Its first rows, as they lie in the file; None where they cannot be decoded."""
        told = {tiffs.LENGTH: rows, tiffs.ORIENTATION: 1}
        data = tiffs.with_values(self.data, self.page, told)

        def work() -> np.ndarray | None:
            try:
                header = sf.open_with_pillow(data) if is_packed(data) else None
                if header is not None:
                    image = sf.pixels_from_pillow(header)
                elif (image := sf.by_opencv(data, 1)) is None or image.max() <= tiffs.DARK:
                    deep = tiffs.deep(data)
                    image = image if deep is None else deep
            except sf.PhotoError:
                return None
            return image if image is not None and len(image) == rows else None

        return sf.companion("hush").hushed.heard(work)[0]

    def most_rows(self, low: int, high: int) -> int:
        """The most rows that can be decoded, if `low` can."""
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (low, middle - 1) if self.decoded(middle) is None else (middle, high)
        return low


# --- AVIF -------------------------------------------------------------------

TRIES, ENOUGH = 32, 3  # ends that are made up; pictures of them that are compared
BLOCK, FILTERED = 64, 8  # px; rows of a superblock, and above it those that its filters reach


def cut_avif(
    data: bytes, missing: int, decoded: Callable[[bytes], np.ndarray | None]
) -> tuple[np.ndarray, int] | None:
    """(the picture, how many of its rows are there) of an AVIF; None if that cannot be told.

    A frame is one stream of codes that depend on each other; what follows is noise. Rows are there
    that several such noises leave alone, as far as the superblocks above the first that differs.
    Most files of more than half a megapixel are several streams, and few ends suit them.
    """
    pictures: list[np.ndarray] = []
    for seed in range(TRIES):
        end = np.random.default_rng(seed).bytes(missing)
        found = decoded(data + end)
        if found is not None:
            pictures.append(found)
        if len(pictures) == ENOUGH:
            break
    if len(pictures) < ENOUGH or len({one.shape for one in pictures}) > 1:
        return None
    first = pictures[0]
    apart = np.zeros(len(first), bool)
    for other in pictures[1:]:
        apart |= (other != first).any(axis=(1, 2))
    if not apart.any():
        return first, len(first)
    return first, max(0, int(np.argmax(apart)) // BLOCK * BLOCK - FILTERED)
