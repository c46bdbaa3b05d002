"""Reading photos: every format upright and in the right colours, and damage costs one photo."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import random
import zlib
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import PIL.EpsImagePlugin
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sort_faces as sf

sf.register_heif()
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # what it says of odd EXIF
WIDTH, HEIGHT = 120, 80
QUARTERS = {  # which quarter of the scene (row, column) has which colour, RGB
    (0, 0): (220, 30, 30),
    (0, 1): (30, 200, 40),
    (1, 0): (40, 50, 220),
    (1, 1): (230, 230, 220),
}
STORED = {  # how a camera stores an upright picture that a viewer must turn by this orientation
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}


def scene_array() -> np.ndarray:
    """(h, w, 3) uint8 RGB: four quarters of different colours, so that any turn shows."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for (row, column), colour in QUARTERS.items():
        image[row * 40 : row * 40 + 40, column * 60 : column * 60 + 60] = colour
    return image


def scene(orientation: int = 1) -> PIL.Image.Image:
    image = PIL.Image.fromarray(scene_array())
    return image.transpose(STORED[orientation]) if orientation in STORED else image


def encoded(image: PIL.Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif_block(orientation: int = 1, **dates: str) -> bytes:
    """An EXIF block with an orientation and original=, digitized=, changed= times."""
    exif = PIL.Image.Exif()
    exif[sf.EXIF_ORIENTATION] = orientation
    if "changed" in dates:
        exif[sf.EXIF_DATETIME] = dates["changed"]
    for key, tag in (("original", sf.EXIF_ORIGINAL), ("digitized", sf.EXIF_DIGITIZED)):
        if key in dates:
            exif.get_ifd(sf.EXIF_IFD)[tag] = dates[key]
    return exif.tobytes()


def assert_scene(photo: sf.Photo, tolerance: int = 6) -> None:
    """The photo shows the scene: BGR, 8 bits, upright."""
    assert photo.wh == (WIDTH, HEIGHT)
    assert photo.image.dtype == np.uint8 and photo.image.flags.c_contiguous
    for (row, column), colour in QUARTERS.items():
        part = photo.image[row * 40 + 5 : row * 40 + 35, column * 60 + 5 : column * 60 + 55]
        seen = part.reshape(-1, 3).mean(axis=0)[::-1]
        assert np.abs(seen - colour).max() <= tolerance, (row, column, seen)


def as_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


# ---------------------------------------------------------------------------- made pictures

DEEP = scene_array()[:, :, ::-1].astype(np.uint16) * 257
FORMATS = {
    "jpeg": lambda: encoded(scene(), "JPEG", quality=95),
    "jpeg, progressive": lambda: encoded(scene(), "JPEG", quality=95, progressive=True),
    "jpeg, cmyk": lambda: encoded(scene().convert("CMYK"), "JPEG", quality=95),
    "mpo": lambda: encoded(scene(), "MPO", save_all=True, append_images=[scene(3)]),
    "png": lambda: encoded(scene(), "PNG"),
    "png, transparent": lambda: encoded(with_alpha(0), "PNG"),
    "png, palette": lambda: encoded(scene().quantize(8), "PNG"),
    "png, palette with a transparent colour": lambda: encoded(
        scene().quantize(8), "PNG", transparency=0
    ),
    "png, 16 bits": lambda: cv2.imencode(".png", DEEP)[1].tobytes(),
    "png, 16 bits and alpha": lambda: cv2.imencode(".png", np.dstack([DEEP, DEEP[:, :, 0]]))[
        1
    ].tobytes(),
    "png, animated": lambda: encoded(scene(), "PNG", save_all=True, append_images=[scene(3)]),
    "gif": lambda: encoded(scene(), "GIF"),
    "gif, animated": lambda: encoded(scene(), "GIF", save_all=True, append_images=[scene(3)]),
    "tiff": lambda: encoded(scene(), "TIFF"),
    "tiff, lzw": lambda: encoded(scene(), "TIFF", compression="tiff_lzw"),
    "tiff, cmyk": lambda: encoded(scene().convert("CMYK"), "TIFF"),
    "tiff, 16 bits": lambda: cv2.imencode(".tiff", DEEP)[1].tobytes(),
    "tiff, two pages": lambda: encoded(scene(), "TIFF", save_all=True, append_images=[scene(3)]),
    "bmp": lambda: encoded(scene(), "BMP"),
    "webp": lambda: encoded(scene(), "WEBP", lossless=True),
    "webp, animated": lambda: encoded(
        scene(), "WEBP", lossless=True, save_all=True, append_images=[scene(3)]
    ),
    "avif": lambda: encoded(scene(), "AVIF", quality=95),
    "avif, animated": lambda: encoded(scene(), "AVIF", save_all=True, append_images=[scene(3)]),
    "heic": lambda: encoded(scene(), "HEIF", quality=95),
    "heic, transparent": lambda: encoded(with_alpha(0), "HEIF", quality=95),
}


def with_alpha(alpha: int) -> PIL.Image.Image:
    image = scene().convert("RGBA")
    image.putalpha(alpha)
    return image


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_scene_in_8_bit_bgr(kind) -> None:
    assert_scene(sf.decode_photo(FORMATS[kind]()))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_orientation_is_applied_exactly_once(kind, orientation) -> None:
    data = encoded(scene(orientation), kind, quality=95, exif=exif_block(orientation))
    assert_scene(sf.decode_photo(data), tolerance=12)


@pytest.mark.parametrize("orientation", [0, 9, 4000])
def test_an_impossible_orientation_is_ignored(orientation) -> None:
    assert_scene(
        sf.decode_photo(encoded(scene(), "JPEG", quality=95, exif=exif_block(orientation)))
    )


@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "1"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_pictures_become_three_equal_channels(mode, kind) -> None:
    grey = scene().convert("L")
    if mode == "I;16":
        stored = PIL.Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        stored = grey.convert(mode)
    image = sf.decode_photo(encoded(stored, kind)).image
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert (image == image[:, :, :1]).all()
    if mode != "1":  # dithered: only black and white are left
        assert np.abs(image[:, :, 0].astype(int) - np.asarray(grey)).max() <= 1


def test_the_bytes_decide_and_not_the_suffix(tmp_path) -> None:
    path = tmp_path / "apple.jpg"
    path.write_bytes(encoded(scene(), "HEIF", quality=95))
    assert_scene(sf.read_photo(str(path)))


def test_bytes_after_the_picture_do_no_harm() -> None:
    """Motion photos carry a film behind the JPEG."""
    assert_scene(sf.decode_photo(FORMATS["jpeg"]() + b"MotionPhoto_Data" + bytes(5000)))


# ---------------------------------------------------------------------------- damage


def hollow_png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + kind + body + crc

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + b"\x08\x02\0\0\0")
        + chunk(b"IDAT", zlib.compress(bytes(100))[:8])
    )


def zeroed(data: bytes, start: float, end: float) -> bytes:
    """The file with this share of it overwritten, as a bad sector leaves it."""
    first, last = int(len(data) * start), int(len(data) * end)
    return data[:first] + bytes(last - first) + data[last:]


NOT_PHOTOS = {
    "no bytes": (b"", "empty file"),
    "text": (b"no picture, only words\n" * 20, "not a picture"),
    "nulls": (bytes(4096), "not a picture"),
    "a jpeg's first bytes": (b"\xff\xd8\xff\xe0 this is no picture", "not a picture"),
    "a picture beyond all photos": (hollow_png(60_000, 60_000), "too large"),
    "a png without pixels": (hollow_png(100, 100), "cut off"),
}


@pytest.mark.parametrize("kind", NOT_PHOTOS)
def test_what_is_no_photo_is_refused_with_a_reason(kind) -> None:
    data, reason = NOT_PHOTOS[kind]
    with pytest.raises(sf.PhotoError, match=reason):
        sf.decode_photo(data)


@pytest.mark.parametrize("kind", ["GIF", "AVIF", "BMP", "JPEG2000", "PNG", "WEBP", "TIFF", "HEIF"])
def test_a_photo_cut_anywhere_is_read_with_a_note_or_refused(kind, group_photo) -> None:
    """What is read of them: test_formats.py."""
    whole = encoded(PIL.Image.open(io.BytesIO(group_photo)).resize((320, 180)), kind)
    for share in (0.001, 0.01, 0.03, 0.1, 0.5, 0.9):
        with contextlib.suppress(sf.PhotoError):
            photo = sf.decode_photo(whole[: int(len(whole) * share)])
            assert photo.note.startswith("incomplete"), share


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "HEIF", "MPO"])
def test_bad_sectors_cost_at_most_that_photo(kind) -> None:
    """Whatever a decoder throws arrives as PhotoError."""
    data = encoded(scene(), kind, exif=exif_block(6, original="2019:05:12 14:23:12"))
    refused = 0
    for start in np.arange(0, 1, 0.04):
        try:
            sf.decode_photo(zeroed(data, start, start + 0.04))
        except sf.PhotoError:
            refused += 1
    assert refused


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "HEIF"])
def test_flipped_bytes_never_raise_anything_but_photo_error(kind) -> None:
    data = encoded(scene(), kind, exif=exif_block(6, original="2019:05:12 14:23:12"))

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.integers(0, 2**32))
    def flip(seed: int) -> None:
        rng, broken = random.Random(seed), bytearray(data)
        for _ in range(rng.choice([1, 3, 12])):
            broken[int(len(broken) * rng.random() ** 3)] = rng.randrange(256)
        try:
            image = sf.decode_photo(bytes(broken)).image
        except sf.PhotoError:
            return
        assert image.ndim == 3 and image.shape[2] == 3

    flip()


def retyped(tiff: bytes) -> Iterator[bytes]:
    """Every variant of a TIFF (or EXIF block) in which one tag has another type or count."""
    order = "big" if tiff.startswith(b"MM") else "little"
    first = int.from_bytes(tiff[4:8], order)
    for entry in range(int.from_bytes(tiff[first : first + 2], order)):
        at = first + 2 + 12 * entry + 2
        for kind, count in itertools.product(range(14), (0, 1, 2)):
            new = kind.to_bytes(2, order) + count.to_bytes(4, order)
            yield tiff[:at] + new + tiff[at + 6 :]


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_tags_of_the_wrong_type_never_raise_anything_but_photo_error(kind) -> None:
    jpeg, exif = FORMATS["jpeg"](), exif_block(6, changed="2019:05:12 14:23:12")
    for tiff in retyped(FORMATS["tiff"]() if kind == "TIFF" else exif[6:]):
        if kind == "JPEG":
            block = b"Exif\0\0" + tiff
            data = jpeg[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]
            sf.decode_photo(data)  # whatever the EXIF says, the photo is there
        else:
            with contextlib.suppress(sf.PhotoError):
                sf.decode_photo(tiff)


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for ghostscript")
def test_a_postscript_file_named_jpg_runs_no_program(tmp_path, monkeypatch) -> None:
    """Pillow hands EPS to ghostscript; a photo library must not be able to ask for that."""
    script = tmp_path / "gs"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(PIL.EpsImagePlugin, "gs_binary", None)
    with pytest.raises(sf.PhotoError):
        sf.decode_photo(encoded(scene(), "EPS"), "harmless.jpg")
    assert not (tmp_path / "ran").exists()


BROKEN_EXIF = {
    "nothing": b"Exif\0\0",
    "no tiff": b"Exif\0\0garbage and more garbage",
    "directory far outside": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "cut inside the directory": exif_block(6, original="2019:05:12 14:23:12")[:20],
    "numbers run wild": b"Exif\0\0II*\0\x08\0\0\0" + b"\xff" * 60,
}


@pytest.mark.parametrize("kind", BROKEN_EXIF)
def test_broken_exif_costs_only_what_it_would_have_said(kind) -> None:
    photo = sf.decode_photo(encoded(scene(), "JPEG", quality=95, exif=BROKEN_EXIF[kind]))
    assert_scene(photo)
    assert math.isnan(photo.taken)


# ---------------------------------------------------------------------------- reading files


@pytest.mark.parametrize(
    "name",
    ["plain.jpg", "zwölf Boxkämpfer.jpg", "фото.jpg", "写真 日本.jpg", "😀 \u200d ☀️.jpg",
     "a'b\"c$d`e;f&g|h.jpg", " space .jpg", "-rf.jpg", "new\nline.jpg", "%s{0}.jpg", "e\u0301.jpg"],
)  # fmt: skip
def test_any_file_name_can_be_read(tmp_path, name) -> None:
    path = os.path.join(tmp_path, name)
    try:
        Path(path).write_bytes(FORMATS["jpeg"]())
    except OSError:
        pytest.skip("this file system cannot hold the name")
    assert_scene(sf.read_photo(path))


@pytest.mark.skipif(os.name == "nt", reason="Windows names are text")
def test_a_name_that_is_no_utf8_can_be_read(tmp_path) -> None:
    path = os.fsdecode(os.fsencode(str(tmp_path)) + b"/caf\xe9 \xff.jpg")
    Path(path).write_bytes(FORMATS["jpeg"]())
    assert_scene(sf.read_photo(path))


def test_a_file_that_cannot_be_read_says_why(tmp_path) -> None:
    with pytest.raises(sf.PhotoError, match="No such file"):
        sf.read_photo(str(tmp_path / "gone.jpg"))
    with pytest.raises(sf.PhotoError):
        sf.read_photo(str(tmp_path))


def test_a_file_that_changed_since_it_was_hashed_is_not_taken_for_the_old_one(tmp_path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(FORMATS["jpeg"]())
    sha = sf.sha256_of_file(path)
    assert_scene(sf.read_photo(str(path), sha))
    path.write_bytes(FORMATS["jpeg"]() + b"!")
    with pytest.raises(sf.PhotoError, match="changed while being read"):
        sf.read_photo(str(path), sha)


# ---------------------------------------------------------------------------- capture time

EXIF_TIMES = {
    "original first": (
        {"original": "2019:05:12 14:23:12", "digitized": "2020:01:01 00:00:00",
         "changed": "2021:01:01 00:00:00"}, "2019-05-12 14:23:12"),
    "then digitized": (
        {"digitized": "2020:01:02 03:04:05", "changed": "2021:01:01 00:00:00"},
        "2020-01-02 03:04:05"),
    "then changed": ({"changed": "2021:06:07 08:09:10"}, "2021-06-07 08:09:10"),
    "a clock never set is no time": (
        {"original": "0000:00:00 00:00:00", "changed": "2021:06:07 08:09:10"},
        "2021-06-07 08:09:10"),
    "blanks are no time": (
        {"original": "    :  :     :  :  ", "digitized": "2020:01:02 03:04:05"},
        "2020-01-02 03:04:05"),
    "before 1970": ({"original": "1965:07:08 09:10:11"}, "1965-07-08 09:10:11"),
}  # fmt: skip


@pytest.mark.parametrize("case", EXIF_TIMES)
@pytest.mark.parametrize("kind", ["JPEG", "HEIF"])
def test_capture_time_from_exif(case, kind) -> None:
    dates, expected = EXIF_TIMES[case]
    data = encoded(scene(), kind, exif=exif_block(**dates))
    assert as_time(sf.decode_photo(data, "IMG_20010101_000000.jpg").taken) == expected


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_capture_time_from_the_exif_of_other_formats(kind) -> None:
    data = encoded(scene(), kind, exif=exif_block(original="2019:05:12 14:23:12"))
    assert as_time(sf.decode_photo(data).taken) == "2019-05-12 14:23:12"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("IMG_20190512_142312.jpg", "2019-05-12 14:23:12"),
        ("2019-05-12 14.23.12.jpg", "2019-05-12 14:23:12"),
        ("PXL_20210304_050607890.jpg", "2021-03-04 05:06:07"),
        ("Screenshot_2020-02-29-23-59-59.png", "2020-02-29 23:59:59"),
        ("Фото 2019-05-12.jpg", "2019-05-12 00:00:00"),
        ("WhatsApp Image 2019-05-12 at 14.23.12.jpeg", "2019-05-12 14:23:12"),
        ("IMG-20190512-WA0003.jpg", "2019-05-12 00:00:00"),
    ],
)
def test_capture_time_from_the_name_where_exif_has_none(name, expected) -> None:
    assert as_time(sf.decode_photo(FORMATS["jpeg"](), name).taken) == expected


@pytest.mark.parametrize(
    "name", ["", "DSC_1234.jpg", "2019-02-31.jpg", "1234567890123.jpg", "20191.jpg", "99991231.jpg"]
)
def test_a_name_without_a_date_gives_no_time(name) -> None:
    assert math.isnan(sf.decode_photo(FORMATS["jpeg"](), name).taken)


# ---------------------------------------------------------------------------- real pictures

REAL_FORMATS = {  # file: (width, height), capture time
    "8bit-sRGB.avif": ((1617, 1080), None),
    "IMG_2682.heic": ((4032, 3024), "2019-03-21 11:04:22"),
    "samsung-one-ui-6.heic": ((3000, 4000), "2024-01-12 21:38:53"),
    "date-priority-test.jpg": ((100, 100), "2023-02-02 02:00:00"),
    "datetimeoriginal-gps.jpg": ((150, 100), "2025-12-01 11:30:00"),
    "time-created.jpg": ((100, 100), None),
    "denali.webp": ((600, 315), "2010-08-13 21:00:01"),
    "density_plot.png": ((800, 800), "2007-02-13 06:34:38"),
    "portrait.jpg": ((840, 700), None),
    "portrait-orientation-6.jpg": ((840, 700), None),
}


def closeness(left: np.ndarray, right: np.ndarray) -> float:
    """Correlation of two pictures at thumbnail size; 1 is the same picture."""
    small = [cv2.resize(x, (32, 32), interpolation=cv2.INTER_AREA).ravel() for x in (left, right)]
    return float(np.corrcoef(*small)[0, 1])


def test_every_real_format_is_read_with_its_size_and_time(shared) -> None:
    for name, (wh, taken) in REAL_FORMATS.items():
        photo = sf.read_photo(str(shared / "data/formats" / name))
        assert photo.wh == wh, name
        assert (None if math.isnan(photo.taken) else as_time(photo.taken)) == taken, name
        assert photo.image.std() > 2, name


def test_every_shared_format_is_known_to_this_test(shared) -> None:
    here = {path.name for path in (shared / "data/formats").iterdir() if path.is_file()}
    assert here == {*REAL_FORMATS, "8bit-sRGB.jxl"}  # of that: test_formats.py


@pytest.mark.parametrize("kind", ["landscape", "portrait"])
def test_all_eight_orientations_give_the_same_upright_picture(shared, kind) -> None:
    folder = shared / "data/formats/orientation"
    pictures = [sf.read_photo(str(folder / f"{kind}_{n}.jpg")).image for n in range(1, 9)]
    for picture in pictures[1:]:
        assert picture.shape == pictures[0].shape
        assert closeness(picture, pictures[0]) > 0.96
    assert closeness(pictures[0][::-1], pictures[0]) < 0.9  # a turn would have shown


def test_a_turned_photo_equals_the_upright_one(shared) -> None:
    folder = shared / "data/formats"
    upright, turned = (
        sf.read_photo(str(folder / name)).image
        for name in ("portrait.jpg", "portrait-orientation-6.jpg")
    )
    assert closeness(upright, turned) > 0.99


def test_photos_with_broken_exif_are_read_all_the_same(shared) -> None:
    files = sorted((shared / "data/formats/invalid").iterdir())
    assert len(files) == 7
    for path in files:
        assert sf.read_photo(str(path)).image.std() > 2, path.name


# --- memory -----------------------------------------------------------------


@pytest.fixture
def limit(monkeypatch):
    """limit(bytes): what decoded photos may take from now on."""
    return lambda number: monkeypatch.setattr(sf.DECODING, "limit", number)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "HEIF", "AVIF"])
def test_a_picture_that_takes_too_much_memory_is_refused_with_what_it_takes(kind, limit) -> None:
    data = encoded(scene(), kind)
    sf.decode_photo(data)
    limit(WIDTH * HEIGHT * 5)
    with pytest.raises(sf.PhotoError, match=r"120 x 80 pixels take .* GB to decode.*--memory"):
        sf.decode_photo(data)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_what_only_opencv_knows_is_measured_as_well(kind) -> None:
    """Pillow refuses some 16-bit TIFFs, and JPEGs and PNGs with odd headers."""
    assert sf.format_and_size(encoded(scene(), kind)) == (kind, (WIDTH, HEIGHT))
    for damaged in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(sf.PhotoError, match="not a picture"):
            sf.format_and_size(damaged)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("share", "scale"), [(4, 2), (10, 4), (40, 8)])
def test_a_huge_jpeg_is_read_reduced_and_upright(limit, share, scale, orientation) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(orientation), "JPEG", quality=95, exif=exif)
    limit(WIDTH * HEIGHT * 6 // share + 1)
    photo = sf.decode_photo(data)
    assert photo.scale == scale and photo.wh == (WIDTH, HEIGHT)
    assert photo.image.shape == (HEIGHT // scale, WIDTH // scale, 3)
    for (row, column), colour in QUARTERS.items():
        corner = photo.cut((column * 60 + 10, row * 40 + 8, 24), 8)
        assert np.abs(corner.mean(axis=(0, 1)) - colour[::-1]).max() < 12
    limit(WIDTH * HEIGHT * 6 // 100)
    with pytest.raises(sf.PhotoError, match="too large"):
        sf.decode_photo(data)


@pytest.mark.parametrize(("least", "scale"), [(WIDTH, 1), (WIDTH // 2 + 1, 1), (WIDTH // 2, 2),
                                              (WIDTH // 4, 4), (1, 8), (0, 1)])  # fmt: skip
def test_a_jpeg_is_reduced_until_its_longer_edge_is_just_long_enough(least, scale) -> None:
    photo = sf.decode_photo(encoded(scene(), "JPEG", quality=95), "", sf.Reading(least))
    assert photo.scale == scale and photo.wh == (WIDTH, HEIGHT)
    assert sf.decode_photo(encoded(scene(), "PNG"), "", sf.Reading(least)).scale == 1


def test_a_huge_jpeg_is_reduced_further_where_memory_asks_for_it(limit) -> None:
    limit(WIDTH * HEIGHT * 6 // 16 + 1)
    assert sf.decode_photo(encoded(scene(), "JPEG"), "", sf.Reading(WIDTH // 2)).scale == 4


def test_threads_wait_for_memory_and_none_waits_for_ever(limit) -> None:
    data, need = encoded(scene(), "PNG"), WIDTH * HEIGHT * 6
    limit(need * 3 // 2)
    seen: list[int] = []

    def work(several: int) -> int:
        photos = []
        for _ in range(several):
            photos.append(sf.decode_photo(data))
            seen.append(sf.DECODING.used)
        return len(photos)

    assert sum(sf.ordered_map(work, [1] * 40, 4)) == 40
    assert max(seen) <= sf.DECODING.limit and sf.DECODING.used == 0
    assert sum(sf.ordered_map(work, [3] * 20, 4)) == 60  # two with photos in hand do not wait
    assert sf.DECODING.used == 0
    with pytest.raises(ZeroDivisionError):
        list(sf.ordered_map(lambda _: sf.decode_photo(data).wh[0] / 0, [1], 2))
    assert sf.DECODING.used == 0


def test_a_face_in_a_huge_jpeg_is_where_it_is_in_the_whole_one(limit) -> None:
    """Boxes, key points, crops: all are in pixels of the photo, whatever was decoded."""
    engine = sf.load_engine(sf.EngineSpec(model="dlib", landmarks=True))
    data = sf.companion("demo_library").demo_photo()
    big = cv2.resize(sf.decode_photo(data).image, None, fx=2, fy=2)
    path_data = cv2.imencode(".jpg", big, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
    found = []
    for bytes_allowed in (10**9, big.size * 2 // 3):
        limit(bytes_allowed)
        photo = sf.decode_photo(path_data)
        assert photo.wh == big.shape[1::-1]
        seen = [(photo.image, sf.find_faces(engine, photo.image, sf.Passes()))]
        (faces,) = sf.face_records(engine, seen, True)
        found.append((photo, sf.photo_result(photo, faces)["faces"]))
    (whole, some), (reduced, others) = found
    assert (whole.scale, reduced.scale, len(some), len(others)) == (1, 2, 6, 6)
    for face in some:
        box = np.array(face["bbox"])
        match = max(others, key=lambda other: sf.box_iou(box, np.array([other["bbox"]]))[0])
        assert sf.box_iou(box, np.array([match["bbox"]]))[0] > 0.8
        assert np.abs(np.subtract(face["kps"], match["kps"])).max() < 0.1 * face["face_short"]
        marks = (sf.unpack_floats(one["landmark_3d_68"], (68, 3)) for one in (face, match))
        assert np.abs(np.subtract(*marks)[:, :2]).max() < 0.25 * face["face_short"]
        cuts = (photo.cut(sf.crop_square(box, photo.wh, 0.5), 64) for photo in (whole, reduced))
        assert np.abs(np.subtract(*(cut.astype(int) for cut in cuts))).mean() < 6
