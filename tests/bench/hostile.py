"""Damage and malice for trust.py: bytes, JSON, JSON lines, arrays and pictures, all by a seed.

Every function takes a random.Random and gives the same for the same one. Paths that a hostile
file may name come as {path: sha256}, so that it can tell the right hash of what it wants removed.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
from common import sf

DEEP = 100_000  # brackets within each other
EDGES = (0, 1, -1, 255, 256, 32767, 65535, 2**31 - 1, -(2**31), 2**32, 2**53 + 1, 2**63, -(2**64))
ODD_NUMBERS = (*EDGES, 10**400, 0.5, -0.0, 1e308, -1e-308, float("nan"), float("inf"))
ODD_TEXTS = ("", " ", ".", "..", "/", "\x00", "\ud800", "\udcff", "é", "e\u0301", "\u202e", "CON",
             "a" * 300, "x" * 100_000, "%s%n", "<script>alert(1)</script>", "{{ 7 * 7 }}",
             "faces/000.png", "../" * 40 + "etc/passwd", "-rf", "~", "C:\\x", "a\nb")  # fmt: skip
MARK = "@@raw@@"  # stands in a JSON value for text that no value writes

# --- bytes ------------------------------------------------------------------


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A file after a bad disk, a bad cable or a bad program."""
    return rng.choice(DAMAGES)(bytearray(data), rng)


def flipped(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64)) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut_short(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data) + 1)])


def emptied(*_: object) -> bytes:
    return b""


def without_a_part(data: bytearray, rng: random.Random) -> bytes:
    low, high = part_of(data, rng)
    del data[low:high]
    return bytes(data)


def with_a_part_twice(data: bytearray, rng: random.Random) -> bytes:
    low, high = part_of(data, rng)
    at = rng.randrange(len(data) + 1)
    return bytes(data[:at] + data[low:high] + data[at:])


def blanked(data: bytearray, rng: random.Random) -> bytes:
    low, high = part_of(data, rng)
    data[low:high] = bytes([rng.choice((0, 255))]) * (high - low)
    return bytes(data)


def scribbled(data: bytearray, rng: random.Random) -> bytes:
    low, high = part_of(data, rng)
    data[low:high] = rng.randbytes(high - low)
    return bytes(data)


def with_an_edge(data: bytearray, rng: random.Random) -> bytes:
    """A number of 2 or 4 bytes somewhere becomes one that overflows."""
    number = rng.choice(EDGES) & 0xFFFFFFFF
    text = struct.pack(rng.choice("<>") + "I", number)[: rng.choice((2, 4))]
    at = rng.randrange(max(1, len(data)))
    data[at : at + len(text)] = text
    return bytes(data)


def with_a_tail(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data) + rng.randbytes(rng.choice((1, 100, 10_000)))


def part_of(data: bytearray, rng: random.Random) -> tuple[int, int]:
    low = rng.randrange(len(data) + 1)
    return low, min(len(data), low + rng.choice((1, 4, 16, 200, 5000)))


DAMAGES: Sequence[Callable] = (
    flipped, flipped, flipped, cut_short, cut_short, emptied, without_a_part, with_a_part_twice,
    blanked, scribbled, with_an_edge, with_an_edge, with_a_tail,
)  # fmt: skip

# --- JSON -------------------------------------------------------------------


def spellings(path: str, root: str) -> list[str]:
    """Ways to name a file outside a folder from within it."""
    name = path.rpartition("/")[2]
    return [path, path.replace(root, ".."), path.replace(root, "person_001/../.."),
            path.replace(root, "faceset_001/../.."), path.replace(root, "./.."),
            path.replace(root, "../../world"), "/" + path, f"../{name}", path[1:]]  # fmt: skip


class Hostile:
    """Changes JSON values; knows what lies outside: {absolute path: sha256}, and the world."""

    def __init__(self, rng: random.Random, outside: dict[str, str], root: str) -> None:
        self.rng, self.outside, self.root = rng, outside, root

    def path(self) -> str:
        return self.rng.choice(spellings(self.rng.choice(sorted(self.outside)), self.root))

    def value(self) -> Any:
        """Something of no use where it will stand."""
        rng = self.rng
        return rng.choice((
            lambda: rng.choice(ODD_NUMBERS), lambda: rng.choice(ODD_TEXTS), self.path, self.path,
            lambda: None, lambda: rng.random() < 0.5, list, dict, lambda: [[]] * 3,
            lambda: {rng.choice(ODD_TEXTS): rng.choice(ODD_TEXTS)}, lambda: MARK,
        ))()  # fmt: skip

    def raw(self) -> str:
        """What only text can say."""
        brackets = ("[" * DEEP, "[" * DEEP + "]" * DEEP, '{"a":' * DEEP)
        return self.rng.choice((*brackets, "NaN", "-Infinity", "1e999", "9" * 5000, "", "}"))

    def place(self, value: Any) -> tuple[Any, Any]:
        """(container, key) of a value somewhere within."""
        inner = [key for key in keys_of(value) if keys_of(value[key])]
        if inner and not is_steps(value) and self.rng.random() < 0.75:
            return self.place(value[self.rng.choice(inner)])
        return value, self.rng.choice(list(keys_of(value)))

    def changed(self, value: Any) -> Any:
        """The value with one place changed."""
        if not keys_of(value):
            return self.value()
        holder, key = self.place(value)
        rng = self.rng
        how = rng.random()
        if is_placed(holder) and how < 0.7:
            self.add_outside(holder)
        elif is_steps(holder) and how < 0.7:
            pair = [self.path(), f"stolen {rng.randrange(99)}"]
            holder.append(pair if rng.random() < 0.5 else pair[::-1])
        elif how < 0.1:
            del holder[key]
        elif how < 0.25 and isinstance(holder, dict):
            holder[rng.choice((self.path(), rng.choice(ODD_TEXTS)))] = holder.pop(key)
        elif how < 0.35 and isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), holder[key])
        elif how < 0.5 and isinstance(holder[key], int | float):
            holder[key] = rng.choice(ODD_NUMBERS)
        elif how < 0.65 and isinstance(holder[key], str):
            holder[key] = rng.choice((self.path(), rng.choice(ODD_TEXTS), holder[key][:-1]))
        else:
            holder[key] = self.value()
        return value

    def add_outside(self, placed: dict[str, str]) -> None:
        """Let a list of placed files claim files outside, with their true hashes."""
        names = sorted(self.outside)
        for path in self.rng.sample(names, self.rng.randint(1, len(names))):
            placed[self.rng.choice(spellings(path, self.root))] = self.outside[path]

    def json(self, text: bytes) -> bytes:
        """A JSON file, changed once as text or once to thrice as a value."""
        try:
            value = json.loads(text)
        except ValueError:  # a file of another kind
            return damaged(text, self.rng)
        if self.rng.random() < 0.2:
            return damaged(text, self.rng)
        for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
            value = self.changed(value)
        return self.written(value, indent=1)

    def written(self, value: Any, **options: Any) -> bytes:
        try:
            text = json.dumps(value, **options)
        except (TypeError, ValueError, RecursionError):
            text = "null"
        raw = self.raw()
        return text.replace(f'"{MARK}"', raw).encode("utf-8", "surrogatepass")

    def lines(self, text: bytes) -> bytes:
        """A JSONL file with a damaged, a hostile, a lost, a doubled or a misplaced line."""
        lines = text.splitlines(keepends=True)
        if not lines or self.rng.random() < 0.2:
            return damaged(text, self.rng)
        at = self.rng.randrange(len(lines))
        how = self.rng.random()
        if how < 0.5:
            lines[at] = self.line(lines[at])
        elif how < 0.7:
            lines[at] = damaged(lines[at], self.rng)
        elif how < 0.8:
            del lines[at]
        elif how < 0.9:
            lines.insert(self.rng.randrange(len(lines)), lines[at])
        else:
            lines[at] = lines[at].rstrip(b"\n")
        return b"".join(lines)

    def line(self, line: bytes) -> bytes:
        """A line with a hostile value and a checksum that fits."""
        value = json.loads(line)
        sealed = value.pop("crc32", None) is not None
        value = self.changed(value)
        text = self.written(value)
        if sealed and text.endswith(b"}"):
            return text[:-1] + sf.checksum(text[:-1])
        return text + b"\n"

    # --- arrays -------------------------------------------------------------

    def npz(self, data: bytes) -> bytes:
        """An archive of arrays, damaged as a file or with one array changed."""
        if self.rng.random() < 0.3:
            return damaged(data, self.rng)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        name = self.rng.choice(sorted(arrays))
        how = self.rng.random()
        if name == "meta" or how < 0.1:
            arrays["meta"] = np.array(self.plain_text(str(arrays["meta"])))
        elif how < 0.2:
            del arrays[name]
        elif how < 0.25:
            return self.with_claim(data, name)
        else:
            arrays[name] = self.array(arrays[name])
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        return stream.getvalue()

    def plain_text(self, text: str) -> str:
        return self.json(text.encode()).decode("utf-8", "replace").replace("\x00", "")

    def array(self, values: np.ndarray) -> np.ndarray:
        """An array with other values, another shape or another type."""
        rng = self.rng
        how = rng.random()
        if how < 0.15:
            kind = rng.choice(("f8", "i8", "U9", "S9", "?", "O"))
            with contextlib.suppress(ValueError):  # words are no numbers
                return values.astype(kind)
            return values[:0].astype(kind)
        if how < 0.3 and values.ndim:
            return values[: rng.randrange(len(values) + 1)]
        if how < 0.4 and values.size:
            return np.concatenate([values.reshape(len(values), -1)] * 2, axis=rng.randrange(2))
        values = values.copy()
        for _ in range(rng.choice((1, 1, 3)) if values.size else 0):
            at = np.unravel_index(rng.randrange(values.size), values.shape)
            values = self.with_entry(values, at)
        return values

    def with_entry(self, values: np.ndarray, at: Any) -> np.ndarray:
        kind = values.dtype.kind
        if kind == "U":
            values = values.astype("U300")
            values[at] = self.rng.choice((self.path(), *ODD_TEXTS[:18]))
        elif kind == "f":
            values[at] = self.rng.choice((np.nan, np.inf, -np.inf, 1e38, -1e38, 0.0, -1.0))
        else:
            info = np.iinfo(values.dtype)
            values[at] = self.rng.choice((info.min, info.max, 0, 1, max(-1, info.min), 100))
        return values

    def with_claim(self, data: bytes, name: str) -> bytes:
        """An array whose header claims more than any machine holds."""
        shape = self.rng.choice(("(10000000000000,)", "(-1,)", "(2, 3, 4, 5)", "(1" + "0" * 400))
        head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
        head = head.ljust(117) + b"\n"
        npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(64)
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
            for item in old.infolist():
                mine = item.filename == f"{name}.npy"
                new.writestr(item.filename, npy if mine else old.read(item))
        return stream.getvalue()


def keys_of(value: Any) -> Sequence[Any]:
    """Keys of an object, places of a list; of anything else none."""
    if isinstance(value, dict):
        return list(value)
    return range(len(value)) if isinstance(value, list) else ()


def is_placed(value: Any) -> bool:
    """Whether this is {file: sha256}."""
    texts = value.values() if isinstance(value, dict) and value else [None]
    return all(isinstance(text, str) and len(text) == 64 for text in texts)


def is_steps(value: Any) -> bool:
    """Whether this is a list of renames, [from, to] each."""
    pairs = value if isinstance(value, list) and value else [None]
    return all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) for p in pair)
        for pair in pairs
    )


# --- pictures ---------------------------------------------------------------

FORMATS = ("jpg", "png", "gif", "webp", "tif", "bmp", "heic", "avif")
SIZES = ((65535, 65535), (20000, 20000), (30000, 40), (1, 60000), (0, 0), (1, 1), (2**31 - 1, 2),
         (2**32 - 1, 2**32 - 1), (3000, 3000), (16383, 16383))  # fmt: skip
ODD_DATES = ("9999:12:31 23:59:59", "0000:00:00 00:00:00", "2300:01:01 00:00:00", "1:1:1 1:1:1",
             "2020:13:45 99:99:99", "\x00" * 19, "9" * 40, "1601:01:01 00:00:00")  # fmt: skip
ODD_TIMES = (2**63 - 1, 10**10 * 10**9, 9_300_000_000 * 10**9, -(10**9) * 10**9, 0, -1, 1,
             4_102_444_800 * 10**9, 15_000_000_000 * 10**9)  # ns  # fmt: skip


def encoded(picture: np.ndarray, kind: str, exif: bytes = b"") -> bytes:
    """(h, w, 3) uint8 RGB as a file of a format."""
    sf.register_heif()
    image = PIL.Image.fromarray(picture)
    stream = io.BytesIO()
    options: dict[str, Any] = {"exif": exif} if exif and kind not in ("gif", "bmp") else {}
    if kind == "gif":
        options = {"save_all": True, "append_images": [image.rotate(90)]}
    names = {"jpg": "JPEG", "tif": "TIFF", "heic": "HEIF"}
    try:
        image.save(stream, names.get(kind, kind.upper()), **options)
    except SyntaxError:  # Pillow writes no TIFF with EXIF as odd as this
        stream = io.BytesIO()
        image.save(stream, names.get(kind, kind.upper()))
    return stream.getvalue()


def claimed(data: bytes, kind: str, rng: random.Random) -> bytes:
    """A picture whose header claims another size."""
    width, height = rng.choice(SIZES)
    data = bytearray(data)
    if kind == "png":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    elif kind == "gif":
        data[6:10] = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
        at = data.find(b",", 10)
        if rng.random() < 0.5 and at > 0:
            data[at + 5 : at + 9] = data[6:10]
    elif kind == "bmp":
        data[18:26] = struct.pack("<II", width & 0xFFFFFFFF, height & 0xFFFFFFFF)
    elif kind == "jpg":
        at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        data[at + 5 : at + 9] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    elif kind == "tif":
        for tag, size in ((256, width), (257, height)):
            at = data.find(struct.pack("<H", tag), 4)
            data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, size & 0xFFFFFFFF)
    elif kind == "webp":
        at = data.find(b"\x9d\x01\x2a")
        data[at + 3 : at + 7] = struct.pack("<HH", width & 0x3FFF, height & 0x3FFF)
    else:
        at = data.find(b"ispe")
        data[at + 8 : at + 16] = struct.pack(">II", width & 0xFFFFFFFF, height & 0xFFFFFFFF)
    return bytes(data)


def bomb(rng: random.Random) -> tuple[bytes, str]:
    """(file, suffix) of a valid picture that is small as a file and large as pixels."""
    side = rng.choice((3000, 6000, 12000, 16000, 20000))
    if rng.random() < 0.3:
        data = encoded(np.zeros((8, 8, 3), np.uint8), "gif")
        return data[:6] + struct.pack("<HH", side, side) + data[10:], "gif"
    stream = io.BytesIO()
    PIL.Image.new(rng.choice("1L"), (side, side)).save(stream, "PNG", compress_level=1)
    return stream.getvalue(), "png"


def odd_exif(rng: random.Random) -> bytes:
    """EXIF data with dates, an orientation and numbers that no camera writes."""
    exif = PIL.Image.Exif()
    exif[sf.EXIF_ORIENTATION] = rng.choice((0, 1, 6, 8, 9, 255, 65535))
    exif[sf.EXIF_DATETIME] = rng.choice(ODD_DATES)
    inner = exif.get_ifd(sf.EXIF_IFD)
    inner[sf.EXIF_ORIGINAL] = rng.choice(ODD_DATES)  # DateTimeOriginal
    inner[sf.EXIF_DIGITIZED] = rng.choice(ODD_DATES)
    data = exif.tobytes()
    return damaged(data, rng) if rng.random() < 0.4 else data
