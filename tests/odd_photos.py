"""Photos as cameras, phones, scanners and accidents leave them, made of one picture.

For test_formats.py and bench/bench_formats.py. Pictures are (h, w, 3) uint8 BGR.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import PIL.Image

LETTERS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 7: "B", 10: "i"}  # TIFF 6.0, section 2
Pixels = bytes | list[bytes]  # one strip, or several strips or tiles
Tags = dict[int, tuple[int, Sequence[int]]]  # {tag: (type, values)}


def encoded(image: np.ndarray, kind: str, **options: Any) -> bytes:
    """A picture as a file, by Pillow."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    stream = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(image[:, :, ::-1])).save(stream, kind, **options)
    return stream.getvalue()


# --- TIFF -------------------------------------------------------------------


def tiff(pages: Sequence[tuple[Tags, Pixels, Sequence[Any]]]) -> bytes:
    """A little-endian TIFF of (tags, pixels, pages within it)."""
    parts = [b"II*\0\0\0\0\0"]
    firsts = [add_page(parts, page) for page in pages]
    for at, after in itertools.pairwise(firsts):
        patch(parts, end_of(parts, at), after)
    patch(parts, 4, firsts[0])
    return b"".join(parts)


def add_page(parts: list[bytes], page: tuple[Tags, Pixels, Sequence[Any]]) -> int:
    """Append a page and what it points to; returns the offset of its directory."""
    tags, pixels, within = page
    inner = [add_page(parts, one) for one in within]
    files = [pixels] if isinstance(pixels, bytes) else pixels
    starts, sizes = (324, 325) if 322 in tags else (273, 279)
    tags = {**tags, starts: (4, [add(parts, one) for one in files]), sizes: (4, [*map(len, files)])}
    if inner:
        tags[330] = (4, inner)
    entries = []
    for tag, (kind, values) in sorted(tags.items()):
        body = struct.pack(f"<{len(values)}{LETTERS[kind]}", *values)
        count = len(values) // (2 if kind in (5, 10) else 1)
        place = body.ljust(4, b"\0") if len(body) <= 4 else struct.pack("<I", add(parts, body))
        entries.append(struct.pack("<HHI", tag, kind, count) + place)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return add(parts, directory)


def add(parts: list[bytes], body: bytes) -> int:
    at = sum(map(len, parts))
    parts.append(body + bytes(len(body) % 2))
    return at


def end_of(parts: list[bytes], at: int) -> int:
    """Where a directory says where the next one lies."""
    whole = b"".join(parts)
    return at + 2 + 12 * struct.unpack_from("<H", whole, at)[0]


def patch(parts: list[bytes], at: int, value: int) -> None:
    whole = bytearray(b"".join(parts))
    whole[at : at + 4] = struct.pack("<I", value)
    parts[:] = [bytes(whole)]


def page_of(image: np.ndarray, **more: Sequence[int]) -> tuple[Tags, Pixels, Sequence[Any]]:
    """A plain RGB page; reduced=[1] makes it a thumbnail, turned=[6] sets its orientation."""
    height, width = image.shape[:2]
    tags: Tags = {
        256: (3, [width]),
        257: (3, [height]),
        258: (3, [8, 8, 8]),
        259: (3, [1]),
        262: (3, [2]),
        277: (3, [3]),
        278: (3, [height]),
    }
    if "reduced" in more:
        tags[254] = (4, more["reduced"])
    if "turned" in more:
        tags[274] = (3, more["turned"])
    return tags, np.ascontiguousarray(image[:, :, ::-1]).tobytes(), ()


def tiff_of_files(image: np.ndarray, kind: str, code: int, side: int = 0, turned: int = 1) -> bytes:
    """A TIFF whose strips, or tiles of a side, are files of another kind; code: its compression."""
    tags, _, _ = page_of(image, turned=[turned])
    tags[259] = (3, [code])
    height, width = image.shape[:2]
    high, wide = (side, side) if side else (100, width)
    tags |= {322: (3, [side]), 323: (3, [side])} if side else {278: (3, [high])}
    corners = itertools.product(range(0, height, high), range(0, width, wide))
    parts = [image[y : y + high, x : x + wide] for y, x in corners]
    if side:
        parts = [np.pad(p, ((0, side - p.shape[0]), (0, side - p.shape[1]), (0, 0))) for p in parts]
    return tiff([(tags, [encoded(part, kind) for part in parts], ())])


def tiff_of_strips(image: np.ndarray, compression: str, rows: int, turned: int = 1) -> bytes:
    """A TIFF of strips of that many rows, by Pillow, its directory before them."""
    strips: list[bytes] = []
    tags, _, _ = page_of(image, turned=[turned])
    for top in range(0, len(image), rows):
        part = image[top : top + rows]
        data = encoded(part, "TIFF", compression=compression, strip_size=part.size)
        about = PIL.Image.open(io.BytesIO(data)).tag_v2
        strips.append(data[about[273][0] : about[273][0] + about[279][0]])
        tags |= {259: (3, [about[259]]), 262: (3, [about[262]]), 278: (3, [rows])}
        tags |= {347: (7, [*about[347]])} if 347 in about else {}  # JPEG's tables
    return directory_first(tags, strips)


def directory_first(tags: Tags, strips: list[bytes]) -> bytes:
    """A TIFF whose strips come last, as in files that are cut and still tell what they are."""
    sizes = [len(one) for one in strips]
    start = len(tiff([(tags, [b""] * len(strips), ())]))
    starts = [start + sum(sizes[:number]) for number in range(len(strips))]
    empty = tiff([(tags, [b""] * len(strips), ())])
    at = struct.unpack_from("<I", empty, 4)[0]
    head = bytearray(empty)
    for entry in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", empty, at)[0], 12):
        tag = struct.unpack_from("<H", empty, entry)[0]
        if tag in (273, 279):
            place = entry + 8 if len(strips) == 1 else struct.unpack_from("<I", empty, entry + 8)[0]
            struct.pack_into(f"<{len(strips)}I", head, place, *(starts if tag == 273 else sizes))
    return bytes(head) + b"".join(strips)


def interlaced_png(image: np.ndarray) -> bytes:
    """A PNG in the seven passes of Adam7, which Pillow does not write."""
    rows = b"".join(
        b"\0" + row.tobytes()
        for top, left, down, across in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4),
                                        (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
        for row in image[top::down, left::across, ::-1]
    )  # fmt: skip
    head = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def thumbnail_first(image: np.ndarray, within: bool = False) -> bytes:
    """A TIFF whose first page is a thumbnail; the photo is the second, or lies within the first."""
    tags, pixels, _ = page_of(cv2.resize(image, None, fx=1 / 8, fy=1 / 8), reduced=[1])
    return tiff(
        [(tags, pixels, [page_of(image)])] if within else [(tags, pixels, ()), page_of(image)]
    )


def dng(image: np.ndarray, turned: int = 1, preview: bytes = b"", taken: str = "") -> bytes:
    """A DNG of a picture as a sensor would see it (RGGB, 16 bits), perhaps with a JPEG preview."""
    height, width = (size // 2 * 2 for size in image.shape[:2])
    light = (image[:height, :width].astype(np.float32) / 255) ** 2.2 * 65535
    sensor = np.empty((height, width), "<u2")
    for (row, column), channel in {(0, 0): 2, (0, 1): 1, (1, 0): 1, (1, 1): 0}.items():
        sensor[row::2, column::2] = light[row::2, column::2, channel]
    raw: Tags = {
        254: (4, [0]),
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [16]),
        259: (3, [1]),
        262: (3, [32803]),
        277: (3, [1]),
        278: (4, [height]),
        33421: (3, [2, 2]),
        33422: (1, [0, 1, 1, 2]),
        50714: (3, [0]),
        50717: (4, [65535]),
    }
    matrix = [32406, -15372, -4986, -9689, 18758, 415, 557, -2040, 10570]  # XYZ to linear sRGB
    about: Tags = {
        254: (4, [1]),
        271: (2, list(b"Made\0")),
        272: (2, list(b"Test\0")),
        274: (3, [turned]),
        50706: (1, [1, 4, 0, 0]),
        50707: (1, [1, 1, 0, 0]),
        50708: (2, list(b"Made Test\0")),
        50721: (10, [part for value in matrix for part in (value, 10000)]),
        50728: (5, [1, 1, 1, 1, 1, 1]),
        50778: (3, [21]),  # D65
    }
    if taken:
        about[306] = (2, list(taken.encode() + b"\0"))
    if not preview:
        return tiff([({**about, **raw, 254: (4, [0])}, sensor.tobytes(), ())])
    with PIL.Image.open(io.BytesIO(preview)) as small:
        wide, high = small.size
    first = {
        256: (4, [wide]),
        257: (4, [high]),
        258: (3, [8, 8, 8]),
        259: (3, [7]),
        262: (3, [6]),
        277: (3, [3]),
        278: (4, [high]),
    }
    return tiff([({**about, **first}, preview, [(raw, sensor.tobytes(), ())])])


def by_tifffile(image: np.ndarray, kind: str) -> bytes:
    """TIFFs of floats and deep integers."""
    import tifffile

    rgb = np.ascontiguousarray(image[:, :, ::-1])
    more: dict[str, Any] = {"photometric": "rgb"}
    made = {
        "float 32": lambda: (rgb / 255).astype(np.float32),
        "float 16": lambda: (rgb / 255).astype(np.float16),
        "float 64": lambda: rgb / 255,
        "float of 0 to 255": lambda: rgb.astype(np.float32),
        "16 bits": lambda: rgb.astype(np.uint16) * 257,
        "12 bits in 16": lambda: rgb.astype(np.uint16) << 4,
        "32 bits": lambda: rgb.astype(np.uint32) * 16843009,
        "planar": lambda: np.ascontiguousarray(rgb.transpose(2, 0, 1)),
        "planar, 16 bits": lambda: np.ascontiguousarray(rgb.transpose(2, 0, 1)).astype("u2") * 257,
        "tiles": lambda: rgb,
        "deflate": lambda: rgb,
        "big": lambda: rgb,
    }[kind]()
    more |= {"planarconfig": "separate"} if kind.startswith("planar") else {}
    more |= {"tile": (64, 64)} if kind == "tiles" else {}
    more |= {"compression": "zlib"} if kind == "deflate" else {}
    stream = io.BytesIO()
    tifffile.imwrite(stream, made, bigtiff=kind == "big", **more)
    return stream.getvalue()


TIFFFILE_KINDS = ("float 32", "float 16", "float 64", "float of 0 to 255", "16 bits",
                  "12 bits in 16", "32 bits", "planar", "planar, 16 bits", "tiles", "deflate",
                  "big")  # fmt: skip


# --- a whole folder ---------------------------------------------------------


def readable_files(image: np.ndarray) -> dict[str, bytes]:
    """{file name: bytes} of photos that show all of the picture."""
    jpeg = encoded(image, "JPEG", quality=92)
    files = {
        **{f"plain.{kind.lower()}": encoded(image, kind) for kind in ("JPEG", "PNG", "GIF", "BMP")},
        **{f"{kind}.tif": by_tifffile(image, kind) for kind in TIFFFILE_KINDS},
        **dict.fromkeys(("a.jfif", "b.jpe", "c.jpg_large", "d.jpg_original", "e.insp"), jpeg),
        **dict.fromkeys(("no ending", "photo.jpeg?width=900", "IMG.1234", "f.jps"), jpeg),
        "g.mpo": encoded(image, "MPO", save_all=True, append_images=[PIL.Image.new("RGB", (9, 9))]),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "film behind.jpg": jpeg + b"\0\0\0\x18ftypmp42" + bytes(9000),
        "no end.jpg": jpeg[:-2],
        "bytes before.jpg": b"\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg,
        "lossy.webp": encoded(image, "WEBP", quality=90),
        "h.heic": encoded(image, "HEIF", quality=90),
        "i.avif": encoded(image, "AVIF", quality=90),
        "j.jp2": encoded(image, "JPEG2000"),
        "thumbnail first.tif": thumbnail_first(image),
        "thumbnail around.tif": thumbnail_first(image, within=True),
        "lzma.tif": encoded(image, "TIFF", compression="lzma"),
        "zstd.tif": encoded(image, "TIFF", compression="zstd"),
        "webp.tif": tiff_of_files(image, "WEBP", 50001),
        "webp tiles.tif": tiff_of_files(image, "WEBP", 50001, side=96),
        "png.tif": tiff_of_files(image, "PNG", 34933),
        "jpeg 2000.tif": tiff_of_files(image, "JPEG2000", 34712, side=96),
        "sensor.dng": dng(cv2.resize(image, None, fx=2, fy=2)),
        "preview.dng": dng(image, preview=jpeg),
    }
    for mode in ("CMYK", "P", "LAB"):
        stream = io.BytesIO()
        picture = PIL.Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
        if mode == "LAB":
            from PIL import ImageCms

            spaces = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
            picture = ImageCms.profileToProfile(picture, *spaces, outputMode=mode)
        else:
            picture = picture.convert(mode)
        picture.save(stream, "TIFF")
        files[f"{mode}.tif"] = stream.getvalue()
    return files


def coarse_files(image: np.ndarray, share: float) -> dict[str, bytes]:
    """The same of formats that hold all of a picture coarsely before its detail."""
    layers = {"quality_mode": "rates", "quality_layers": [80, 40, 20, 10, 5], "no_jp2": True}
    files = {
        "a.gif": encoded(image, "GIF", interlace=1),
        "b.png": interlaced_png(image),
        "c.jp2": encoded(image, "JPEG2000"),
        "d.jp2": encoded(image, "JPEG2000", quality_mode="rates", quality_layers=[10]),
        "e.j2k": encoded(image, "JPEG2000", **layers),
    }
    return {name: data[: int(len(data) * share)] for name, data in files.items()}


def other_cut_files(image: np.ndarray, share: float) -> dict[str, bytes]:
    """The same of formats of which what is there lies elsewhere, is not sure, or cannot be read."""
    files = {
        "f.bmp": encoded(image, "BMP"),
        "g.avif": encoded(image, "AVIF", quality=80),
        "h.webp": encoded(image, "WEBP", quality=85),
        "directory last.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "planar.tif": by_tifffile(image, "planar"),
        "tiles.jp2": encoded(image, "JPEG2000", tile_size=(64, 64)),
    }
    if importlib.util.find_spec("pylibjxl"):
        import pylibjxl

        files["i.jxl"] = pylibjxl.encode(np.ascontiguousarray(image[:, :, ::-1]))
    return {name: data[: int(len(data) * share)] for name, data in files.items()}


def cut_files(image: np.ndarray, share: float) -> dict[str, bytes]:
    """{file name: bytes} of photos of which a share of the bytes is there."""
    files = {
        "base.jpg": encoded(image, "JPEG", quality=92),
        "4-4-4.jpg": encoded(image, "JPEG", quality=92, subsampling=0),
        "restarts.jpg": cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_RST_INTERVAL, 4])[
            1
        ].tobytes(),
        "grey.jpg": cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))[1].tobytes(),
        "a.png": encoded(image, "PNG"),
        "b.webp": encoded(image, "WEBP", lossless=True),
        "c.tif": by_tifffile(image, "tiles"),
        "d.tif": encoded(image, "TIFF"),
        "e.heic": encoded(image, "HEIF", quality=90),
        **{f"{kind} {rows}.tif": tiff_of_strips(image, kind, rows) for kind in
           ("tiff_lzw", "tiff_adobe_deflate", "packbits") for rows in (16, 320)},
        "jpeg.tif": tiff_of_strips(image, "jpeg", 16),
        "zstd.tif": tiff_of_strips(image, "zstd", 16),
        "float.tif": by_tifffile(image, "float 32"),
        "deep.tif": by_tifffile(image, "16 bits"),
    }  # fmt: skip
    return {name: data[: int(len(data) * share)] for name, data in files.items()}
