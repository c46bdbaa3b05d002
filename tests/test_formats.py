"""Every photo is read: odd formats and names, damaged files, RAW, and what is passed over."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import odd_photos
import PIL.Image
import pytest
from conftest import ROOT, demo_library, make_cache, sf

kinds, hush = sf.companion("kinds"), sf.companion("hush")
needs_rawpy = pytest.mark.skipif(not importlib.util.find_spec("rawpy"), reason="no rawpy here")
needs_jxl = pytest.mark.skipif(not importlib.util.find_spec("pylibjxl"), reason="no pylibjxl here")


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """One of the made people, 240 x 320 px."""
    group = sf.decode_photo(demo_library.demo_photo()).image
    x1, y1, x2, y2 = demo_library.DEMO_FACES["anna"]
    x, y = max(0, (x1 + x2) // 2 - 120), max(0, (y1 + y2) // 2 - 160)
    return group[y : y + 320, x : x + 240].copy()


@pytest.fixture
def embed(run, tmp_path):
    def call(*args, cache: str = "lib.npz") -> tuple[dict, str]:
        code, out, err = run("embed", *args, tmp_path / cache, "--model", "dlib", "--json")
        assert code == 0, err
        return json.loads(out), err

    return call


def likeness(left: np.ndarray, right: np.ndarray) -> float:
    """Correlation of two pictures at thumbnail size; 1 is the same picture."""
    small = [cv2.resize(x, (32, 32), interpolation=cv2.INTER_AREA).ravel() for x in (left, right)]
    return float(np.corrcoef(*small)[0, 1])


# --- formats and names ------------------------------------------------------


def test_every_odd_format_shows_the_photo_and_not_its_thumbnail(face):
    for name, data in odd_photos.readable_files(face).items():
        if name.endswith(".dng") and not importlib.util.find_spec("rawpy"):
            continue
        photo = sf.decode_photo(data, name)
        assert photo.there is None and photo.image.dtype == np.uint8, name
        assert photo.wh == (240, 320), name
        assert likeness(photo.image, face) > 0.97, name
        if "grey" not in name and not name.startswith(("P.", "LAB", "sensor")):
            assert abs(float(photo.image.mean()) - float(face.mean())) < 6, name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["float 32", "float 16", "12 bits in 16", "16 bits"])
def test_deep_tiffs_are_turned_once(face, kind, orientation):
    stored = sf.turn_upright(face, {6: 8, 8: 6}.get(orientation, orientation))
    data = bytearray(odd_photos.by_tifffile(stored, kind))
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO(bytes(data))
    with tifffile.TiffFile(stream) as opened:
        array = opened.pages[0].asarray()
    stream = io.BytesIO()
    tag = [(274, "H", 1, orientation, False)]
    tifffile.imwrite(stream, array, photometric="rgb", extratags=tag)
    photo = sf.decode_photo(stream.getvalue())
    assert photo.wh == (240, 320) and likeness(photo.image, face) > 0.97


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_tiff_of_files_is_turned_once(face, orientation):
    stored = sf.turn_upright(face, {6: 8, 8: 6}.get(orientation, orientation))
    data = odd_photos.tiff_of_files(stored, "WEBP", 50001, turned=orientation)
    photo = sf.decode_photo(data)
    assert photo.wh == (240, 320) and likeness(photo.image, face) > 0.97


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda tiff: tiff.replace(b"RIFF", b"RAFF"), "not a picture"),
        (lambda tiff: tiff.replace(struct.pack("<HHII", 259, 3, 1, 50001),
                                   struct.pack("<HHII", 259, 3, 1, 34887)), "compression 34887"),
        (lambda tiff: tiff.replace(struct.pack("<HHII", 278, 3, 1, 100),
                                   struct.pack("<HHII", 278, 3, 1, 50)), "WebP parts"),
        (lambda tiff: tiff.replace(struct.pack("<HHII", 256, 3, 1, 240),
                                   struct.pack("<HHII", 256, 3, 1, 120)), "larger than"),
    ],
)  # fmt: skip
def test_a_tiff_of_files_that_is_none_is_refused_and_not_black(face, change, line):
    data = odd_photos.tiff_of_files(face, "WEBP", 50001)
    assert change(data) != data
    with pytest.raises(sf.PhotoError, match=line):
        sf.decode_photo(change(data))


def test_a_scan_takes_photos_of_any_name_and_leaves_the_rest(tmp_path, face):
    jpeg = odd_photos.encoded(face, "JPEG")
    photos = ("no ending", "photo.jpeg?width=900", "IMG.1234", "a.jpg_large", "b.JPG_ORIGINAL")
    for name in photos:
        (tmp_path / name).write_bytes(jpeg)
    others = {
        "a.txt": "documents",
        "b.asf": "videos",
        "c.xmp": "sidecars of photos",
        "d.weird": "others",
        "d.tga": "pictures of kinds that are not read",
        "e": "others",
        "f.zip": "archives",
        "g.THM": "sidecars of photos",
    }
    for name in others:
        (tmp_path / name).write_bytes(jpeg if name == "g.THM" else b"no picture at all")
    report = sf.scan_photos([tmp_path])
    assert {Path(file.path).name for file in report.files} == set(photos)
    expected: dict[str, int] = {}
    for kind in others.values():
        expected[kind] = expected.get(kind, 0) + 1
    assert dict(report.others) == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_without_an_ending_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    report = sf.scan_photos([tmp_path])
    assert not report.files and report.others.total() == 1


def test_no_file_of_a_known_ending_is_opened_by_the_scan(tmp_path, monkeypatch):
    for name in ("a.txt", "b.mp4", "c.pdf", "d.jpg", "e.zip", "f.py"):
        (tmp_path / name).write_bytes(bytes(5000))
    monkeypatch.setattr(kinds, "head_of", lambda *_: pytest.fail("opened"))
    if os.stat(tmp_path / "d.jpg").st_blocks:
        assert len(sf.scan_photos([tmp_path]).files) == 1


# --- what is passed over ----------------------------------------------------


def test_what_is_passed_over_is_named_with_what_to_do(run, tmp_path, monkeypatch):
    for name in ("a.cr2", "b.NEF", "c.jxl", "film.mp4", "text.pdf", "old.asf"):
        (tmp_path / name).write_bytes(b"whatever")
    monkeypatch.setattr(kinds.importlib.util, "find_spec", lambda _: None)
    code, _, err = run("embed", tmp_path, tmp_path / "lib.npz", "--model", "dlib")
    assert code == 2 and err.count("\n") == 1
    assert "no photos found there: 2 camera RAW: pip install rawpy; " in err
    for part in (
        "1 JPEG XL: pip install pylibjxl",
        "1 videos",
        "1 documents",
        "1 films; --films takes them",
    ):
        assert part in err


def test_what_is_not_on_this_disk_is_no_photo_and_no_copy(embed, run, tmp_path, face):
    photos = tmp_path / "photos"
    photos.mkdir()
    jpeg = odd_photos.encoded(face, "JPEG", quality=92)
    for name in ("a.jpg", "copy of a.jpg"):
        (photos / name).write_bytes(jpeg)
    for name in ("empty 1.jpg", "empty 2.jpg"):
        (photos / name).write_bytes(b"")
    for name in ("broken 1.jpg", "broken 2.jpg"):
        (photos / name).write_bytes(b"the very same, but no picture")
    for name in ("lfs 1.jpg", "lfs 2.jpg"):
        (photos / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    for name in ("sparse 1.jpg", "sparse 2.jpg"):
        with open(photos / name, "wb") as stream:
            stream.truncate(50_000)
    (photos / ".sent away.HEIC.icloud").write_bytes(b"bplist00")
    sparse = os.stat(photos / "sparse 1.jpg").st_blocks == 0
    result, err = embed(photos)
    there = {"empty files": 2, "Git LFS pointers": 2}
    assert there.items() <= result["other_files"].items()
    assert result["other_files"][kinds.IN_CLOUD] == (3 if sparse else 1)
    assert sum("empty files passed over, such as" in line for line in err.splitlines()) == 1
    assert "git lfs pull" in err
    run("dedup", tmp_path / "lib.npz")
    report = json.loads((tmp_path / "lib.duplicates.json").read_text())
    (group,) = report["byte_groups"]
    assert group["paths"] == [str(photos / "a.jpg"), str(photos / "copy of a.jpg")]


def test_a_photo_that_was_sent_to_a_cloud_keeps_its_faces(embed, tmp_path, face):
    photos = tmp_path / "photos"
    photos.mkdir()
    path = photos / "a.jpg"
    path.write_bytes(odd_photos.encoded(face, "JPEG", quality=92))
    (photos / "b.jpg").write_bytes(odd_photos.encoded(face[:, ::-1], "JPEG", quality=92))
    assert embed(photos)[0]["faces"] == 2
    path.write_bytes(b"")
    result, _ = embed(photos, "--prune")
    assert (result["faces"], result["photos"], result["unchanged"]) == (2, 1, 1)


def test_windows_and_macos_say_what_lies_in_a_cloud(tmp_path, monkeypatch):
    class Facts:
        st_size, st_blocks = 5000, 16

    monkeypatch.setattr(kinds, "head_of", lambda *_: pytest.fail("opening downloads it"))
    assert kinds.absence("x", Facts()) == ""
    Facts.st_file_attributes = 0x400000
    assert kinds.absence("x", Facts()) == kinds.IN_CLOUD
    Facts.st_file_attributes, Facts.st_flags = 0x20, 0x40000000
    assert kinds.absence("x", Facts()) == kinds.IN_CLOUD


# --- damaged photos ---------------------------------------------------------


@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_of_a_cut_photo_is_read_what_is_there(face, share):
    for name, data in odd_photos.cut_files(face, share).items():
        photo = sf.decode_photo(data, name)
        assert photo.note.startswith("incomplete: nothing below row"), name
        x1, y1, x2, rows = photo.there
        assert (x1, y1, x2) == (0, 0, 240) and photo.wh == (240, 320), name
        assert f"row {rows} of 320" in photo.note
        assert share * 320 * 0.5 < rows < 320, (name, rows)
        solid = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY) if "grey" in name else face
        seen = photo.image[:, :, 0] if "grey" in name else photo.image
        far = np.abs(seen[:rows].astype(int) - solid[:rows]).reshape(rows, -1).mean(axis=1)
        assert far.max() < 12, (name, int(far.argmax()), rows)  # no row of it is made up
        assert (photo.image[rows + 2 :] == 128).all(), name


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_of_a_cut_photo_in_passes_all_is_read_coarsely(face, share):
    for name, data in odd_photos.coarse_files(face, share).items():
        photo = sf.decode_photo(data, name)
        assert photo.note == "incomplete: the finest detail is missing", name
        assert photo.there is None and photo.wh == (240, 320), name
        far = np.abs(photo.image.astype(int) - face).reshape(320, -1).mean(axis=1)
        assert far.max() < (32 if name == "a.gif" else 12), (name, int(far.argmax()))  # 256 colours
        assert likeness(photo.image, face) > 0.99, name


def test_the_first_pass_of_a_cut_photo_goes_as_far_as_it_goes(face):
    for name, share, rows in (("a.gif", 0.1, 208), ("b.png", 0.006, 104)):
        photo = sf.decode_photo(odd_photos.coarse_files(face, share)[name])
        assert f"nothing below row {rows} of 320" in photo.note
        assert photo.there == (0, 0, 240, rows) and (photo.image[rows:] == 128).all()


def test_of_a_cut_jpeg_2000_of_tiles_the_tiles_are_read(face):
    whole = odd_photos.encoded(face, "JPEG2000", tile_size=(64, 64))
    photo = sf.decode_photo(whole[: len(whole) // 2])
    rows = photo.there[3]
    assert rows in (128, 192) and likeness(photo.image[:rows], face[:rows]) > 0.99
    assert np.array_equal(photo.image[:128], face[:128]) and (photo.image[rows:] == 128).all()


@pytest.mark.parametrize("colours", [0, 200])
def test_a_cut_bmp_lacks_its_upper_rows(face, colours):
    """The rows come from below; in a palette any byte may be the same colour."""
    picture = PIL.Image.fromarray(np.ascontiguousarray(face[:, :, ::-1]))
    stream = io.BytesIO()
    (picture.quantize(colours) if colours else picture).save(stream, "BMP")
    data = stream.getvalue()
    whole = sf.decode_photo(data).image
    for share in (0.2, 0.5, 0.99):
        photo = sf.decode_photo(data[: int(len(data) * share)])
        x1, top, x2, bottom = photo.there
        assert (x1, x2, bottom) == (0, 240, 320)
        assert photo.note == f"incomplete: nothing above row {top} of 320"
        assert abs(320 - top - 320 * share) < 4
        assert np.array_equal(photo.image[top:], whole[top:]) and (photo.image[:top] == 128).all()
    with pytest.raises(sf.PhotoError, match="cut off: next to nothing"):
        sf.decode_photo(data[: len(data) // 50 + 1100 * bool(colours)])


def test_a_face_in_the_missing_top_of_a_bmp_does_not_count(embed, tmp_path, face):
    pair = np.vstack([face, face[:, ::-1]])
    data = odd_photos.encoded(pair, "BMP")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cut.bmp").write_bytes(data[: len(data) * 6 // 10])
    result, err = embed(tmp_path / "photos")
    assert (result["faces"], result["damaged"]) == (1, 1) and "nothing above row" in err
    box = sf.load_cache(tmp_path / "lib.npz").bbox[0]
    assert box[1] > 320


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_of_a_cut_avif_what_is_sure_is_read(face, share):
    data = odd_photos.encoded(face, "AVIF", quality=80)
    whole = sf.decode_photo(data).image
    photo = sf.decode_photo(data[: int(len(data) * share)])
    rows = photo.there[3]
    assert share * 160 - 40 < rows < 320 * share + 32 and "nothing below row" in photo.note
    assert np.array_equal(photo.image[:rows], whole[:rows])


def test_of_a_cut_tiff_with_a_palette_no_row_is_made_up(face):
    """Both ends that it was filled with may be one colour of a palette."""
    stream = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(face[:, :, ::-1])).convert("P").save(stream, "TIFF")
    data = stream.getvalue()
    whole = sf.decode_photo(data).image
    photo = sf.decode_photo(data[: len(data) // 2])
    assert 150 < photo.there[3] <= 160
    assert np.array_equal(photo.image[: photo.there[3]], whole[: photo.there[3]])


def test_a_strip_that_ends_early_is_no_row(face):
    """OpenCV leaves what LZW does not tell black and says nothing; Pillow says so."""
    noise = np.random.default_rng(1).integers(0, 30, face.shape, np.uint8)
    data = odd_photos.tiff_of_strips(face // 2 + noise, "tiff_lzw", 320)
    whole = sf.decode_photo(data).image
    for cut in range(20_000, 150_000, 2_501):
        photo = sf.decode_photo(data[:cut])
        rows = photo.there[3]
        assert np.array_equal(photo.image[:rows], whole[:rows]), cut


def test_a_dark_corner_is_no_missing_tile(face):
    dark = face.copy()
    dark[200:, 200:] = 0
    data = odd_photos.encoded(dark, "JPEG2000")
    assert sf.decode_photo(data[: len(data) * 9 // 10]).there is None


def test_a_cut_tiff_whose_colours_lie_apart_is_known_as_cut(face):
    """OpenCV reads it without a word, the last colour missing."""
    data = odd_photos.by_tifffile(face, "planar")
    photo = sf.decode_photo(data[: int(len(data) * 0.9)])
    rows = photo.there[3]
    assert 200 < rows < 240 and np.array_equal(photo.image[:rows], face[:rows])
    with pytest.raises(sf.PhotoError, match="cut off"):
        sf.decode_photo(data[: int(len(data) * 0.6)])


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_cut_tiff_is_turned_once(face, orientation):
    stored = sf.turn_upright(face, {6: 8}.get(orientation, orientation))
    data = odd_photos.tiff_of_strips(stored, "tiff_lzw", 16, orientation)
    photo = sf.decode_photo(data[: int(len(data) * 0.7)])
    x1, y1, x2, y2 = photo.there
    assert photo.wh == (240, 320) and 0.4 < (x2 - x1) * (y2 - y1) / face[:, :, 0].size < 0.9
    assert np.array_equal(photo.image[y1:y2, x1:x2], face[y1:y2, x1:x2])


def test_a_tiff_of_files_shows_the_parts_that_are_there(face):
    tags, _, _ = odd_photos.page_of(face)
    tags |= {259: (3, [50001]), 278: (3, [100])}
    strips = [odd_photos.encoded(face[at : at + 100], "WEBP") for at in range(0, 320, 100)]
    data = odd_photos.directory_first(tags, strips)
    assert likeness(sf.decode_photo(data).image, face) > 0.99
    photo = sf.decode_photo(data[: len(data) - len(strips[3]) - 10])
    assert photo.there == (0, 0, 240, 200)


def test_a_cut_tiff_with_a_wrong_number_is_refused_or_read(face):
    """A width of 0, a tile of no columns: anything but a traceback."""
    data = odd_photos.by_tifffile(face, "tiles")
    at = struct.unpack_from("<I", data, 4)[0]
    for entry in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", data, at)[0], 12):
        for value in (0, 1, 0xFFFF):
            wrong = bytearray(data[: len(data) * 2 // 3])
            struct.pack_into("<I", wrong, entry + 8, value)
            with contextlib.suppress(sf.PhotoError):
                sf.decode_photo(bytes(wrong))


def test_damage_in_a_tiff_that_only_tifffile_reads_is_refused(face):
    """zlib and lzma have errors of their own."""
    half = (face / 255).astype(np.float16)
    tifffile = pytest.importorskip("tifffile")
    for compression in ("zlib", "lzma"):
        stream = io.BytesIO()
        tifffile.imwrite(stream, half, photometric="rgb", compression=compression)
        data = bytearray(stream.getvalue())
        data[len(data) // 2 : len(data) // 2 + 99] = b"\xff" * 99
        with pytest.raises(sf.PhotoError):
            sf.decode_photo(bytes(data))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_tiff_without_its_directory_says_so(face, share):
    """Pillow and libtiff write it last."""
    data = odd_photos.encoded(face, "TIFF", compression="tiff_lzw")
    with pytest.raises(
        sf.PhotoError, match=r"cut off: \d+ of \d+ bytes are there, which show noth"
    ):
        sf.decode_photo(data[: int(len(data) * share)])


@needs_jxl
def test_a_cut_jpeg_xl_says_so(face):
    import pylibjxl

    data = pylibjxl.encode(np.ascontiguousarray(face[:, :, ::-1]))
    for share in (0.3, 0.99):
        with pytest.raises(sf.PhotoError, match=r"JPEG XL: (damaged or )?cut off"):
            sf.decode_photo(data[: int(len(data) * share)])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_missing_is_known_in_the_upright_photo(face, orientation):
    stored = sf.turn_upright(face, {6: 8, 8: 6}.get(orientation, orientation))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = odd_photos.encoded(stored, "JPEG", quality=92, exif=exif)
    photo = sf.decode_photo(data[: len(data) * 6 // 10])
    x1, y1, x2, y2 = photo.there
    there = np.zeros(photo.image.shape[:2], bool)
    there[y1:y2, x1:x2] = True
    assert 0.3 < there.mean() < 0.9
    assert (photo.image[~there] == 128).mean() > 0.99
    assert (photo.image[there] == 128).all(axis=-1).mean() < 0.05
    assert likeness(photo.image[y1:y2, x1:x2], face[y1:y2, x1:x2]) > 0.95


def test_a_cut_progressive_photo_is_coarse_or_ends(face):
    whole = odd_photos.encoded(face, "JPEG", quality=92, progressive=True)
    notes = [sf.decode_photo(whole[: int(len(whole) * share)]).note for share in (0.07, 0.6, 0.9)]
    assert "nothing below row" in notes[0]
    assert notes[1:] == ["incomplete: the finest detail is missing"] * 2


def test_a_frame_of_one_colour_is_not_taken_for_what_is_missing(face):
    framed = cv2.copyMakeBorder(face, 16, 16, 16, 16, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    for progressive in (False, True):
        data = odd_photos.encoded(framed, "JPEG", quality=92, progressive=progressive)
        photo = sf.decode_photo(data[: int(len(data) * 0.8)])
        assert (photo.there[3] if photo.there else len(framed)) > 150


def test_a_jpeg_without_its_end_is_whole(face):
    data = odd_photos.encoded(face, "JPEG", quality=92)
    for lost in (1, 2):
        photo = sf.decode_photo(data[:-lost])
        assert photo.there is None and photo.note.startswith("odd: a JPEG without an end marker")
    assert sf.decode_photo(data[:-2] + bytes(300)).there is None


def test_a_lost_sector_is_no_data(face):
    data = odd_photos.encoded(face, "JPEG", quality=95)
    cut = len(data) - 2048
    photo = sf.decode_photo(data[:cut] + bytes(2048))
    assert photo.there == sf.decode_photo(data[:cut]).there is not None


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_cut_photo_is_known_as_such_at_any_scale(face, scale):
    big = cv2.resize(face, None, fx=4, fy=4)
    data = odd_photos.encoded(big, "JPEG", quality=92)[:40_000]
    whole = sf.decode_photo(data)
    photo = sf.decode_photo(data, "", sf.Reading(1280 // scale))
    assert photo.scale == scale and photo.wh == whole.wh
    assert abs(photo.there[3] * scale - whole.there[3]) <= 2 * scale


def test_a_face_counts_only_where_it_is_there(embed, run, tmp_path, face):
    photos = tmp_path / "photos"
    photos.mkdir()
    pair = np.vstack([face, face[:, ::-1]])
    data = odd_photos.encoded(pair, "JPEG", quality=92)
    (photos / "whole.jpg").write_bytes(data)
    assert embed(photos)[0]["faces"] == 2
    ends = [len(data) * part // 100 for part in (52, 75)]
    for number, end in enumerate(ends):
        (photos / f"cut {number}.jpg").write_bytes(data[:end])
    result, err = embed(photos)
    assert (result["faces"], result["damaged"], result["unreadable"]) == (4, 2, 0)
    warnings = [line for line in err.splitlines() if "incomplete: nothing below row" in line]
    assert len(warnings) == 2 and "cut 0.jpg: incomplete" in err
    cache = sf.load_cache(tmp_path / "lib.npz")
    assert sorted(note[:10] for note in cache.file_note) == ["", "incomplete", "incomplete"]
    result, err = embed(photos)  # said once
    assert "incomplete" not in err and result["damaged"] == 2
    assert json.loads(run("status", tmp_path / "lib.npz", "--json")[1])["damaged"] == 2


# --- what decoders say ------------------------------------------------------


def noisy(face: np.ndarray) -> bytes:
    """A JPEG of which libjpeg says that it is corrupt, and reads it."""
    data = bytearray(odd_photos.encoded(face, "JPEG", quality=92))
    middle = len(data) // 2
    data[middle : middle + 40] = b"\xff\xd3" * 20
    return bytes(data)


def test_what_a_decoder_says_is_kept_with_the_photo_and_off_the_terminal(face, capfd):
    photo = sf.decode_photo(noisy(face))
    assert photo.note.startswith(("damaged: Corrupt JPEG data", "incomplete:"))
    assert capfd.readouterr().err == ""


def test_many_threads_never_mix_up_what_was_said(face, capfd):
    bad, good = noisy(face), odd_photos.encoded(face, "JPEG", quality=92)
    expected = sf.decode_photo(bad).note
    files = [bad if number % 5 == 0 else good for number in range(200)]
    notes = list(sf.ordered_map(lambda data: sf.decode_photo(data).note, files, 8))
    assert notes == [expected if data is bad else "" for data in files]
    assert capfd.readouterr().err == ""


def test_one_alone_waits_for_the_others_and_holds_up_nobody_for_ever():
    turns, log = hush.Turns(), []

    def among(number: int) -> None:
        with turns.among_others():
            log.append(("in", number))
        log.append(("out", number))

    with turns.alone():
        threads = [threading.Thread(target=among, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        assert not log
    for thread in threads:
        thread.join(10)
    assert len(log) == 8


STOPPED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import sort_faces as sf
with sf.companion("hush").hushed():
    sf.stop_at_once(signal.SIGTERM, None)
"""


def test_a_process_stopped_while_a_decoder_is_heard_says_so_on_the_terminal():
    words = [sys.executable, "-c", STOPPED, str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("sort_faces: interrupted") and done.returncode == 143


# --- RAW and JPEG XL --------------------------------------------------------


@needs_rawpy
@pytest.mark.parametrize(("orientation", "flip"), [(1, 1), (3, 3), (6, 8), (8, 6)])
def test_a_raw_is_developed_at_half_the_size_and_turned_once(face, orientation, flip):
    stored = sf.turn_upright(cv2.resize(face, None, fx=2, fy=2), flip)
    photo = sf.decode_photo(odd_photos.dng(stored, orientation), "IMG_1.dng")
    assert photo.wh == (240, 320) and likeness(photo.image, face) > 0.97


@needs_rawpy
@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize(("orientation", "flip"), [(1, 1), (3, 3), (6, 8), (8, 6)])
def test_the_preview_of_a_raw_is_turned_once(face, orientation, flip, tagged):
    """By its own EXIF, or what the RAW says, or not at all: some are upright already."""
    stored = sf.turn_upright(face, flip)
    exif = PIL.Image.Exif()
    if tagged:
        exif[0x0112] = orientation
    preview = odd_photos.encoded(stored, "JPEG", quality=92, exif=exif)
    photo = sf.decode_photo(odd_photos.dng(stored, orientation, preview), "IMG_1.dng")
    assert photo.wh == (240, 320) and likeness(photo.image, face) > 0.97
    if orientation in (6, 8):
        upright = odd_photos.encoded(face, "JPEG", quality=92)
        photo = sf.decode_photo(odd_photos.dng(stored, orientation, upright), "IMG_1.dng")
        assert photo.wh == (240, 320) and likeness(photo.image, face) > 0.97


@needs_rawpy
def test_a_small_preview_is_not_looked_at_in_place_of_the_raw(face):
    big = cv2.resize(face, None, fx=4, fy=4)
    preview = odd_photos.encoded(cv2.resize(face, (120, 160)), "JPEG")
    assert sf.decode_photo(odd_photos.dng(big, 1, preview), "x.dng").wh == (480, 640)


@needs_rawpy
def test_a_raw_needs_memory_like_any_photo(face, monkeypatch):
    monkeypatch.setattr(sf.DECODING, "limit", 100_000)
    with pytest.raises(sf.PhotoError, match="too large"):
        sf.decode_photo(odd_photos.dng(face), "x.dng")


def test_a_raw_without_its_library_says_what_to_install(face, monkeypatch):
    monkeypatch.setattr(sf.companion("raw_photos"), "is_here", lambda _: False)
    with pytest.raises(sf.PhotoError, match="pip install rawpy"):
        sf.decode_photo(odd_photos.dng(face), "x.dng")
    with pytest.raises(sf.PhotoError, match="pip install pylibjxl"):
        sf.decode_photo(b"\xff\x0a" + bytes(90), "x.jxl")


@pytest.mark.parametrize("size", [8, 16, 23])
def test_a_box_too_short_for_its_kind_ends_the_file(size):
    """One of 16 bytes at the end of a file was read for ever."""

    class Stream(io.BytesIO):
        reads = 0

        def read(self, *size: int) -> bytes:
            self.reads += 1
            assert self.reads < 100, "read for ever"
            return super().read(*size)

    head = struct.pack(">I4sI", 12, b"JXL ", 0x0D0A870A)
    boxes = sf.companion("sources_regions").boxes(Stream(head + struct.pack(">I4s", size, b"uuid")))
    assert list(boxes) == []


@needs_jxl
def test_a_jpeg_xl_is_read_and_turned_by_libjxl(face):
    import pylibjxl

    rgb = np.ascontiguousarray(face[:, :, ::-1])
    photo = sf.decode_photo(pylibjxl.encode(rgb), "x.jxl")
    assert photo.wh == (240, 320) and likeness(photo.image, face) > 0.97
    grey = np.ascontiguousarray(rgb[:, :, :1])
    assert sf.decode_photo(pylibjxl.encode(grey)).image.shape == (320, 240, 3)


# --- RAW and JPEG of one photo ----------------------------------------------


def with_time(face: np.ndarray, when: str) -> bytes:
    exif = PIL.Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = when
    return odd_photos.encoded(face, "JPEG", quality=92, exif=exif)


@pytest.fixture
def pairs(tmp_path, face) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    raw = odd_photos.dng(cv2.resize(face, None, fx=2, fy=2), taken="2019:05:12 14:23:12")
    other = odd_photos.dng(cv2.resize(face[:, ::-1], None, fx=2, fy=2))
    (folder / "IMG_1.JPG").write_bytes(with_time(face, "2019:05:12 14:23:12"))
    (folder / "img_1.dng").write_bytes(raw)
    (folder / "PXL_2.RAW-01.COVER.jpg").write_bytes(odd_photos.encoded(face[:, ::-1], "JPEG"))
    (folder / "PXL_2.RAW-02.ORIGINAL.dng").write_bytes(other)
    return folder


@needs_rawpy
def test_raw_and_jpeg_are_one_photo_with_two_paths(embed, run, tmp_path, pairs):
    result, _ = embed(pairs)
    assert (result["faces"], result["new"], result["copies"], result["raw_of_pairs"]) == (
        2,
        2,
        0,
        2,
    )
    cache = sf.load_cache(tmp_path / "lib.npz")
    assert sorted(map(os.path.basename, cache.alias_path)) == [
        "PXL_2.RAW-02.ORIGINAL.dng", "img_1.dng"]  # fmt: skip
    result, _ = embed(pairs)
    assert (result["unchanged"], result["new"]) == (4, 0)
    run("dedup", tmp_path / "lib.npz")
    assert json.loads((tmp_path / "lib.duplicates.json").read_text())["byte_groups"] == []
    assert sf.Library(cache, tmp_path / "lib.npz").live_path(0).lower().endswith("jpg")


@needs_rawpy
def test_a_raw_whose_jpeg_is_gone_is_looked_at_itself(embed, tmp_path, pairs):
    embed(pairs)
    (pairs / "IMG_1.JPG").unlink()
    result, _ = embed(pairs, "--prune")
    assert (result["faces"], result["new"], result["raw_of_pairs"]) == (2, 1, 1)
    names = {os.path.basename(path) for path in sf.load_cache(tmp_path / "lib.npz").file_path}
    assert names == {"img_1.dng", "PXL_2.RAW-01.COVER.jpg"}
    assert embed(pairs, "--prune")[0]["unchanged"] == 3


@needs_rawpy
def test_a_jpeg_that_changes_takes_its_raw_along(embed, tmp_path, pairs, face):
    embed(pairs)
    (pairs / "IMG_1.JPG").write_bytes(with_time(face[4:-4], "2019:05:12 14:23:12"))
    result, _ = embed(pairs)
    assert (result["photos"], result["raw_of_pairs"]) == (4, 2)
    cache = sf.load_cache(tmp_path / "lib.npz")
    assert cache.files == 2 and cache.faces == 2
    assert embed(pairs)[0]["unchanged"] == 4


@needs_rawpy
def test_a_jpeg_that_joins_a_known_raw_makes_one_photo_of_both(embed, tmp_path, pairs):
    jpeg = (pairs / "IMG_1.JPG").read_bytes()
    (pairs / "IMG_1.JPG").unlink()
    assert embed(pairs)[0]["raw_of_pairs"] == 1
    (pairs / "IMG_1.JPG").write_bytes(jpeg)
    result, _ = embed(pairs)
    assert (result["faces"], result["raw_of_pairs"]) == (2, 2)
    assert embed(pairs)[0]["unchanged"] == 4


@needs_rawpy
def test_two_moments_of_one_name_are_two_photos(embed, pairs, face):
    (pairs / "IMG_1.JPG").write_bytes(with_time(face, "2021:01:02 03:04:05"))
    raw = odd_photos.dng(cv2.resize(face, None, fx=2, fy=2), taken="2019:05:12 14:23:12")
    (pairs / "img_1.dng").write_bytes(raw)
    result, _ = embed(pairs)
    assert (result["new"], result["raw_of_pairs"]) == (3, 1)
    assert embed(pairs)[0]["unchanged"] == 4


@needs_rawpy
def test_a_raw_beside_a_broken_jpeg_is_looked_at_itself(embed, pairs):
    (pairs / "IMG_1.JPG").write_bytes(b"no picture")
    result, _ = embed(pairs)
    assert (result["faces"], result["unreadable"], result["raw_of_pairs"]) == (2, 1, 1)
    result, _ = embed(pairs)
    assert (result["new"], result["faces"]) == (0, 2)


# --- older caches -----------------------------------------------------------


def test_a_cache_without_notes_is_read(tmp_path):
    cache, path = make_cache(2, 3), tmp_path / "old.npz"
    sf.save_cache(path, cache)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "file_note"}
    np.savez(path, **arrays)
    assert sf.load_cache(path).file_note.tolist() == [""] * cache.files


# --- real files -------------------------------------------------------------


def test_the_broken_jpegs_of_reports_are_read(shared):
    folder = shared / "data/reports/broken-jpeg"
    whole = sf.read_photo(str(folder / "ok.jpg"))
    photo = sf.read_photo(str(folder / "no_EOI(minus2).jpg"))
    assert np.array_equal(photo.image, whole.image) and photo.there is None
    photo = sf.read_photo(str(folder / "sector_zero_tail.jpg"))
    assert photo.there == (0, 0, 900, 496)
    assert np.array_equal(photo.image[:490], whole.image[:490])


@needs_rawpy
@needs_jxl
def test_the_files_no_photo_was_found_among(shared):
    folder = shared / "data/reports/rawonly"
    report = sf.scan_photos([folder])
    assert len(report.files) == 14 and not report.others
    read, refused = {}, {}
    for file in report.files:
        name = os.path.basename(file.path)
        try:
            read[name] = sf.read_photo(file.path).wh
        except sf.PhotoError as error:
            refused[name] = str(error)
    assert set(refused) == {"raw_CanonRaw.cr2", "raw_CanonRaw.cr3", "raw_FujiFilm.raf",
                            "raw_DNG.dng", "raw_Issue_419.rw2", "raw_JXL.jxl"}  # fmt: skip
    assert all(line.startswith(("camera RAW: ", "JPEG XL: ")) for line in refused.values())
    assert {read[name] for name in ("noextension", "jxl.jxl", "jp2.jp2")} == {(900, 745)}
    assert read["raw_Issue_247-1.nef"] == (2000, 3008)  # a JPEG by another name
