"""TIFFs that are more than one plain picture: pages, floats, deep integers, files in files.

A companion of sort_faces.py, loaded for TIFFs only. What OpenCV and Pillow do not read tifffile
may.
"""

from __future__ import annotations

import contextlib
import io
import logging
import lzma
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import sort_faces as sf

KIND, OLD_KIND, WIDTH, LENGTH, SUB_PAGES = 254, 255, 256, 257, 330  # TIFF 6.0 and supplement 1
BITS, COMPRESSION, SAMPLES, STRIP_ROWS, PLANAR = 258, 259, 277, 278, 284
STRIPS, TILES = (273, 279), (324, 325)  # where they begin, how long they are
FILES = {  # compressions of which every strip or tile is a file of its own, for tifffile's names
    34712: "JPEG 2000", 34933: "PNG", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
LIBTIFF = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34676, 34677, 34925, 50000})
MAKE, DNG_VERSION, ORIENTATION = 271, 50706, 274
REDUCED, OLD_REDUCED = 1, 2  # what KIND & 1, OLD_KIND say of a thumbnail
TILE_WIDTH, TILE_LENGTH = 322, 323
LEAST_DIRECTORY = 6  # bytes: how many entries there are, and where the next one lies
MOST_PAGES, MOST_ENTRIES, MOST_VALUES = 64, 512, 65_536  # what is more is damage
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
         17: 8, 18: 8}  # fmt: skip
LETTERS = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
DARK = 16  # in 8 bits; 12 bits in 16 are no brighter than that
DEPTHS = (8, 10, 12, 16, 32)  # bits that integers are made of


class Page(NamedTuple):
    """One picture of a TIFF."""

    offset: int  # of its directory in the file
    tags: dict[int, list[int]]  # those of integers

    def first(self, tag: int, default: int = 0) -> int:
        return (self.tags.get(tag) or [default])[0]

    @property
    def rank(self) -> tuple[bool, int]:
        """The larger, the rather it is the photo."""
        small = self.first(KIND) & REDUCED or self.first(OLD_KIND) == OLD_REDUCED
        return not small, self.first(WIDTH) * self.first(LENGTH)


def pages_of(data: bytes) -> list[Page]:
    """The pages of a TIFF and those within them, in the file's order; [] of what is none."""
    with contextlib.suppress(struct.error, IndexError):
        first = first_directory(data)
        return walk(data, order_of(data), is_big(data), first) if first else []
    return []


def first_directory(data: bytes) -> int:
    """Where the first directory of a TIFF lies; 0 of what is none."""
    with contextlib.suppress(struct.error, KeyError):
        order = {b"II": "<", b"MM": ">"}[data[:2]]
        word, at = {42: ("I", 4), 43: ("Q", 8)}[struct.unpack(order + "H", data[2:4])[0]]
        return struct.unpack_from(order + word, data, at)[0]
    return 0


def walk(data: bytes, order: str, big: bool, first: int) -> list[Page]:
    """Follow the chain of directories from an offset, and the directories they point to."""
    pages: list[Page] = []
    pending, seen = [first], set()
    while pending and len(pages) < MOST_PAGES:
        at = pending.pop(0)
        if at in seen or not 0 < at < len(data):
            continue
        seen.add(at)
        with contextlib.suppress(struct.error):
            page, after = directory(data, order, big, at)
            pages.append(page)
            pending += [*page.tags.get(SUB_PAGES, []), after]
    return pages


def directory(data: bytes, order: str, big: bool, at: int) -> tuple[Page, int]:
    """(the page whose directory lies at an offset, offset of the next one or 0)."""
    tags: dict[int, list[int]] = {}
    for tag, kind, number, place in entries(data, order, big, at):
        with contextlib.suppress(struct.error, KeyError):
            form = f"{order}{number}{LETTERS[kind]}"
            tags[tag] = list(struct.unpack_from(form, data, place))
    count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
    after = at + 8 + count * 20 if big else at + 2 + count * 12
    return Page(at, tags), struct.unpack_from(order + ("Q" if big else "I"), data, after)[0]


def entries(data: bytes, order: str, big: bool, at: int) -> Iterator[tuple[int, int, int, int]]:
    """(tag, kind of its values, how many, where they lie) of a directory."""
    count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
    at_entry, size, word = (at + 8, 20, "Q") if big else (at + 2, 12, "I")
    for entry in range(at_entry, at_entry + min(count, MOST_ENTRIES) * size, size):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        number = struct.unpack_from(order + word, data, entry + 4)[0]
        place = entry + 4 + struct.calcsize(word)
        if kind not in SIZES or number > MOST_VALUES:
            continue
        if SIZES[kind] * number > struct.calcsize(word):
            place = struct.unpack_from(order + word, data, place)[0]
        yield tag, kind, number, place


def with_values(data: bytes, at: int, values: dict[int, int]) -> bytes:
    """The same TIFF with other values of tags of one number, of the directory at an offset."""
    order, changed = order_of(data), bytearray(data)
    for tag, kind, number, place in entries(data, order, is_big(data), at):
        if tag in values and number == 1 and kind in LETTERS:
            struct.pack_into(order + LETTERS[kind], changed, place, values[tag])
    return bytes(changed)


def order_of(data: bytes) -> str:
    """The byte order of a TIFF, as struct says it."""
    return "<" if data[:2] == b"II" else ">"


def is_big(data: bytes) -> bool:
    """Whether a TIFF has offsets of 64 bits."""
    return 43 in data[2:4]


def row_bytes(page: Page) -> int:
    """How long a row is that is not compressed, colours side by side; at least 1."""
    bits, samples = page.tags.get(BITS) or [1], page.first(SAMPLES, 1)
    whole = sum(bits) if len(bits) == samples else bits[0] * samples
    return max(1, -(-page.first(WIDTH) * whole // 8))


def rows_of_parts(page: Page, length: int) -> tuple[int, int] | None:
    """(rows in all strips or tiles that are there, rows with those of the part that was cut).

    length: bytes of the file. None where colours lie apart, so that no row is there before the last
    of them, and of what has no parts.
    """
    height, tiled = page.first(LENGTH), page.first(TILE_LENGTH)
    each = tiled or min(page.first(STRIP_ROWS, height), height)
    across = -(-page.first(WIDTH) // max(page.first(TILE_WIDTH), 1)) if tiled else 1
    places, sizes = (page.tags.get(tag, []) for tag in (TILES if tiled else STRIPS))
    if page.first(PLANAR) == 2 or min(each, across) < 1 or not 0 < len(places) == len(sizes):
        return None
    parts = list(zip(places, sizes, strict=True))
    missing = next((n for n, (at, size) in enumerate(parts) if at + size > length), len(parts))
    rows = missing // across * each
    if page.first(COMPRESSION, 1) == 1 and not tiled and missing < len(parts) and rows < height:
        at, size = parts[missing]
        high = min(each, height - rows)
        rows += min(high, max(0, length - at) // min(row_bytes(page), max(size // high, 1)))
        return rows, rows
    return min(rows, height), min(rows + each, height)


def photo_first(data: bytes) -> bytes:
    """The same TIFF with its photo as the first page: the largest that is no thumbnail.

    Where it is, or the file is no TIFF, the very same bytes.
    """
    pages = pages_of(data)
    best = max(pages, key=lambda page: page.rank, default=None)
    if best is None or best.rank <= pages[0].rank:
        return data
    order = order_of(data)
    if is_big(data):
        return data[:8] + struct.pack(order + "Q", best.offset) + data[16:]
    return data[:4] + struct.pack(order + "I", best.offset) + data[8:]


def is_dng(data: bytes) -> bool:
    """Whether a TIFF is a raw picture of a camera that says so."""
    return any(DNG_VERSION in page.tags for page in pages_of(data)[:1])


def end_of(data: bytes) -> int:
    """Where the last strip or tile of any page of a TIFF ends, or its directory would; else 0."""
    first = first_directory(data)
    ends = [first + LEAST_DIRECTORY if first else 0]
    return max(ends + [end_of_page(page) for page in pages_of(data)])


def end_of_page(page: Page) -> int:
    """Where the last strip or tile of a page ends."""
    ends = [0]
    for offsets, sizes in (STRIPS, TILES):
        both = zip(page.tags.get(offsets, []), page.tags.get(sizes, []), strict=False)
        ends += [at + size for at, size in both]
    return max(ends)


def told_length(data: bytes) -> int:
    """Where the last strip or tile ends, the first directory, or a value it points to; else 0."""
    first, big = first_directory(data), is_big(data)
    if not first:
        return 0
    ends = [end_of(data)]
    with contextlib.suppress(struct.error):
        order = order_of(data)
        count = struct.unpack_from(order + ("Q" if big else "H"), data, first)[0]
        ends.append(first + min(count, MOST_ENTRIES) * (20 if big else 12) + LEAST_DIRECTORY)
        ends += [at + SIZES[kind] * n for _, kind, n, at in entries(data, order, big, first)]
    return max(ends)


def lacks_parts(data: bytes) -> bool:
    """Whether a strip or tile of the first page of a TIFF lies beyond the end of the file."""
    return any(end_of_page(page) > len(data) for page in pages_of(data)[:1])


def lacks_tiles(data: bytes) -> bool:
    """Whether a page of a TIFF names fewer tiles than its size needs."""
    for page in pages_of(data):
        wide, high = page.first(TILE_WIDTH), page.first(TILE_LENGTH)
        if wide and high and 0 < len(page.tags.get(324, [])) <= MOST_VALUES:
            needed = -(-page.first(WIDTH) // wide) * -(-page.first(LENGTH) // high)
            if len(page.tags[324]) < min(needed, MOST_VALUES):
                return True
    return False


def orientation_of(data: bytes) -> int:
    """1 to 8, of the first page."""
    pages = pages_of(data)
    found = pages[0].first(ORIENTATION, 1) if pages else 1
    return found if found in range(1, 9) else 1


def deep(data: bytes) -> np.ndarray | None:
    """(h, w, 3) uint8 BGR of a TIFF of floats, of integers of another depth or of files, upright.

    Raises PhotoError for a compression that nothing here reads: OpenCV takes it for black.
    """
    import cv2

    page = next(iter(pages_of(data)), Page(0, {}))
    compression = page.first(COMPRESSION, 1)
    if compression in FILES:
        return of_files(data, page, FILES[compression])
    if compression not in LIBTIFF:
        found = by_tifffile(data)
        if found is None:
            raise sf.PhotoError(f"cannot decode: a TIFF of compression {compression}")
        return found
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    with contextlib.suppress(cv2.error):
        found = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if found is not None:
            return three_channels(eight_bits(found))
    return None


def of_files(data: bytes, page: Page, kind: str) -> np.ndarray | None:
    """The same of a TIFF whose strips or tiles are files of another kind; None of one cut off.

    Raises PhotoError.
    """
    width, height = page.first(WIDTH), page.first(LENGTH)
    tile = (page.first(TILE_WIDTH), page.first(TILE_LENGTH))
    wide, high = tile if all(tile) else (width, min(page.first(STRIP_ROWS, height), height))
    places, sizes = (page.tags.get(tag, []) for tag in (TILES if all(tile) else STRIPS))
    across, down = -(-width // max(wide, 1)), -(-height // max(high, 1))
    count = across * down
    if page.first(PLANAR) == 2 or not 0 < count <= len(places) == len(sizes):
        raise sf.PhotoError(
            f"cannot decode: the {kind} parts of the TIFF are not as they should be"
        )
    image = np.zeros((height, width, 3), np.uint8)
    for number, (at, size) in enumerate(zip(places[:count], sizes[:count], strict=True)):
        if at + size > len(data):
            return None
        top, left = number // across * high, number % across * wide
        room = image[top : top + high, left : left + wide]
        part = file_within(data[at : at + size], (wide, high))[: len(room), : room.shape[1]]
        room[: len(part), : part.shape[1]] = part
    return sf.turn_upright(image, orientation_of(data))


def file_within(data: bytes, most: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) uint8 BGR of a part of at most that width and height."""
    kinds = sf.companion("kinds")
    if kinds.kind_by_bytes(data[: kinds.HEAD]) == kinds.JPEG_XL:
        opened = sf.companion("raw_photos").opened(data, kinds.JPEG_XL)
        wh, read = opened.wh, lambda: opened.decode()[0].image
    else:
        header = sf.open_with_pillow(data)
        wh, read = header.size if header else most, lambda: sf.pixels_from_pillow(header)
    if wh[0] > most[0] or wh[1] > most[1]:
        raise sf.PhotoError("cannot decode: a part of the TIFF is larger than it should be")
    return read()


def by_tifffile(data: bytes) -> np.ndarray | None:
    """The same of what only tifffile reads, such as half floats; None where it does not."""
    try:
        import tifffile
    except ImportError:
        return None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as opened:
            page: Any = opened.pages[0]
            sf.check_memory((page.imagewidth, page.imagelength), page.nbytes * 4)
            found = page.asarray()
            if page.axes.startswith("S") and found.ndim == 3:
                found = np.moveaxis(found, 0, -1)
            white_is_zero = page.photometric == 0
    except (tifffile.TiffFileError, ImportError, zlib.error, lzma.LZMAError, *sf.PILLOW_ERRORS):
        return None
    if found.ndim not in (2, 3) or not found.size or found.dtype.kind not in "uif":
        return None
    small = eight_bits(found)
    small = 255 - small if white_is_zero else small
    colour = three_channels(small[:, :, [2, 1, 0]] if small.shape[2:] > (2,) else small)
    return sf.turn_upright(colour, orientation_of(data))


def eight_bits(found: np.ndarray) -> np.ndarray:
    """Floats from 0 to 1 or to 255, or integers of any depth, as uint8.

    Integers count in the fewest usual bits that hold them all: 12 bits in 16 are common.
    """
    if found.dtype == np.uint8:
        return found
    if found.dtype.kind == "f":
        found = np.nan_to_num(found.astype(np.float32), nan=0, posinf=0, neginf=0)
        top = float(np.percentile(found[::4, ::4], 99.5))
        scale = 255 if top <= 1.5 else 1 if top <= 255 else 255 / top
        return np.rint(np.clip(found * scale, 0, 255)).astype(np.uint8)
    top = max(int(found.max()), 1)
    bits = next(bits for bits in DEPTHS if top < 1 << bits)
    return np.clip(found.astype(np.float64) * (255 / ((1 << bits) - 1)), 0, 255).astype(np.uint8)


def three_channels(found: np.ndarray) -> np.ndarray:
    """(h, w, 3) of grey or of channels of which those after the third are alpha."""
    if found.ndim == 2 or found.shape[2] < 3:
        found = np.dstack([found if found.ndim == 2 else found[:, :, 0]] * 3)
    return np.ascontiguousarray(found[:, :, :3])
