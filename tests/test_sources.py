"""Names from other programs: what each writer leaves, which face it means, and how it is undone."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import unicodedata
import zlib
from pathlib import Path

import cv2
import numpy as np
import odd_photos
import PIL.Image
import pytest
from conftest import sf
from hypothesis import given
from hypothesis import strategies as st
from material import ok
from sources_material import (
    LEFT,
    RIGHT,
    Tagged,
    acdsee,
    iptc,
    jpeg,
    microsoft,
    mwg,
    packet,
    picasa,
    stored,
)
from video_material import face_picture

pytestmark = pytest.mark.usefixtures("quick_disk")
sources = sf.companion("sources")
takeout = sf.companion("sources_takeout")
regions = sf.companion("sources_regions")
word = sf.companion("sources_word")
decisions = sf.companion("decisions")
xmp = sf.companion("consumers_xmp")
exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="needs exiftool (Debian: libimage-exiftool-perl)"
)
TWO = {"Anna": LEFT, "王 & <Bo>": RIGHT}
LONG = "05yqt21kruxwwlhhgrwrdyb6chhwszi9bqmzu16w0 2"
EMOJI = "😀😃😄😁😆😅😂🤣🥲☺️😊😇🙂🙃😉😌😍🥰😘😗😙😚😋"


@pytest.fixture
def tagged(tmp_path) -> Tagged:
    return Tagged(tmp_path)


# --- Takeout: names -------------------------------------------------------------

BACKYARD = "Backyard_ceremony_wedding_photography_xxxxxxx_"
ORIGINAL = "original_1d4caa6f-16c6-4c3d-901b-9387de10e528_"
PIXEL = "PXL_20230809_203449253.LONG_EXPOSURE-02.ORIGIN"
NUMBERS = "13039_327707840323_537645323_9470255_27214_n"
COVERED = "PXL_20231118_035751175.MP.COVERED0001.jpg"
PHOTO = "IMG_20231118_035751175_photo_of_a_long_one.jpg"
SHOT = "Screenshot_2020-03-01-16-11-51-123_com.an"
SCREEN = "Screenshot_20200301-161151_photo"
PAIRS = [  # (JSON, photo): forms of which SOURCES.md, section 1, tells who found them
    ("PXL_20211013_220651983.jpg.json", "PXL_20211013_220651983.jpg"),
    ("IMG_1.json", "IMG_1.jpg"),
    ("IMG_1.jpg.supplemental-metadata.json", "IMG_1.jpg"),
    ("Screenshot_20200301-161151.png.supplemental-me.json", "Screenshot_20200301-161151.png"),
    (f"{COVERED}.s.json", f"{COVERED}"),
    (f"{PHOTO}..json", f"{PHOTO}"),
    (f"{LONG}.jp.json", f"{LONG}.jpg"),
    (f"{EMOJI}.json", f"{EMOJI}😛.jpg"),
    (f"{PIXEL}.json", f"{PIXEL}A.jpg"),
    (f"{BACKYARD}(494).json", f"{BACKYARD}m(494).jpg"),
    ("DSC_0101.JPG(1).json", "DSC_0101(1).JPG"),
    ("IMG_2710.HEIC(1).json", "IMG_2710(1).HEIC"),
    ("a.jpg.supplemental-metadata(1).json", "a(1).jpg"),
    (f"{SCREEN}.jpg.supple(1).json", f"{SCREEN}(1).jpg"),
    ("a.HEIC(1).supplemental-metadata.json", "a(1).HEIC.jpg"),
    ("Foto (1).jpg.json", "Foto (1).jpg"),
    (f"{NUMBERS}.j(1).json", f"{NUMBERS}(1).jpg"),
    (f"{ORIGINAL}.json", f"{ORIGINAL}P.jpg"),
    (f"{ORIGINAL}.json", f"{ORIGINAL}P(1).jpg"),
    ("x_.json", "x_n.jpg"),
    ("IMAG0061.JPG.supplemental-metadata.json", "IMAG0061-edited.JPG"),
    ("IMG_2.HEIC.supplemental-metadata.json", "IMG_2-bearbeitet.jpg"),
    ("IMG_2.jpg.json", "IMG_2-ha editado.jpg"),
    ("IMG_2.jpg(3).json", "IMG_2-edited(3).jpg"),
    ("IMG_2.jpg.json", "IMG_2-編集済み.jpg"),
    ("PXL_20220405_090123740.PORTRAIT.jpg.json", "PXL_20220405_090123740.PORTRAIT-modifié.jpg"),
    (f"{SHOT}.jpg.json", f"{SHOT}-ha ed.jpg"),
    ("IMG_2.jpg.json", "IMG_2-ha edit.JPG"),
    ("IMG_2.jpg.json", "IMG_2-ha.JPG"),
    ("IMG_2551.HEIC.supplemental-metadata.json", "IMG_2551.MP4"),
    ("PXL_20210101_101010123.MP.jpg.supplemental-metad.json", "PXL_20210101_101010123.MP"),
    ("PXL_20210101_101010123.MP.jpg.json", "PXL_20210101_101010123.MP~2"),
    ("MVIMG_20190908_114019~2.jpg.supplemental-metad.json", "MVIMG_20190908_114019~2.jpg"),
]  # fmt: skip
NO_PAIRS = [
    ("PXL_20211013_220651983.jpg.json", "PXL_20211013_220651958.jpg"),
    ("PXL_20220405_090123740.PORTRAIT.jpg.json", "PXL_20220405_090123741.PORTRAIT-modifié.jpg"),
    ("DSC_0102.JPG(2).json", "DSC_0102(1).JPG"),
    ("DSC_0103.JPG(1).json", "DSC_0103.JPG"),
    ("DSC_0104.JPG.json", "DSC_0104(1).JPG"),
    ("a.jpg.supplemental-metadata.json", "a(1).jpg"),
    (f"{BACKYARD}(494).json", f"{BACKYARD}m(185).jpg"),
    ("IMG_2.jpg.json", "IMG_2-holiday.jpg"),
    ("IMG_1.jpg.json", "IMG_10.jpg"),
    ("metadata.json", "a.jpg"),
]  # fmt: skip


@pytest.mark.parametrize(("sidecar", "photo"), PAIRS)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_photo_finds_its_json(sidecar: str, photo: str, form: str):
    others = ["other.jpg.json", "IMG_0.jpg.supplemental-metadata.json", "metadata.json"]
    known = takeout.Sidecars([*others, unicodedata.normalize(form, sidecar)])
    found = known.of(photo)
    assert found is not None
    assert unicodedata.normalize("NFC", found[0]) == unicodedata.normalize("NFC", sidecar)


@pytest.mark.parametrize(("sidecar", "photo"), NO_PAIRS)
def test_a_photo_takes_no_other_ones_json(sidecar: str, photo: str):
    assert takeout.Sidecars([sidecar]).of(photo) is None


NAMES = st.text(
    st.characters(blacklist_categories=("Cs", "Cc", "Cn"), blacklist_characters='/\\()<>:"|?*%&.'),
    min_size=1,
    max_size=60,
)


def sidecar_name(photo: str, extra: bool = True) -> str:
    """The name that Google gives a photo's JSON; extra: in the form since October 2024."""
    bare, number = takeout.without_number(photo)
    whole = f"{bare}.{takeout.EXTRA}" if extra else bare
    return (
        takeout.cut(whole, takeout.STEM_LIMIT) + (f"({number})" if number else "") + takeout.ENDING
    )


@given(NAMES, st.sampled_from([".jpg", ".JPG", ".heic", ".png"]), st.integers(0, 12), st.booleans())
def test_every_name_that_google_makes_leads_back(stem: str, ending: str, number: int, extra: bool):
    photo = f"{stem}({number}){ending}" if number else f"{stem}{ending}"
    photo = unicodedata.normalize("NFC", photo)
    sidecar = sidecar_name(photo, extra)
    assert takeout.units(sidecar) <= 51 + (len(f"({number})") if number else 0)
    other = sidecar_name(f"{'x' if stem[0] != 'x' else 'y'}{photo[1:]}", extra)
    found = takeout.Sidecars([sidecar, other]).of(photo)
    assert found is not None
    assert found[0] == sidecar


def test_cut_counts_what_google_counts():
    assert takeout.units("a😀") == 3
    assert takeout.cut("a😀b", 2) == "a"
    assert takeout.cut("a😀b", 3) == "a😀"


# --- Takeout: folders -----------------------------------------------------------


def google(people: tuple[str, ...] = ("Oma",), title: str = "x", **more: object) -> str:
    return json.dumps(
        {
            "title": title,
            "photoTakenTime": {"timestamp": "899546400"},
            "people": [{"name": name} for name in people],
            **more,
        }
    )


def test_takeout_says_who_and_when(tagged):
    photo = tagged.put("a.jpg", jpeg())
    tagged.beside("a.jpg.supplemental-metadata.json", google(("Oma", " ", "Unbekannt", "Opa")))
    found = sources.beside(str(photo))
    assert list(found.people) == ["Oma", "Opa"]
    assert [where for where, _ in found.dates] == ["takeout"]
    assert json.loads(found.dates[0][1])["photoTakenTime"]["timestamp"] == "899546400"


def test_other_json_beside_a_photo_says_nothing(tagged):
    photo = tagged.put("a.jpg", jpeg())
    for text in (
        "[1, 2]",
        '{"title": "an album"}',
        '"text"',
        "3",
        '{"people": 3}',
        '{"people": [3]}',
    ):
        tagged.beside("a.jpg.json", text)
        sources.forget_listings()
        found = sources.beside(str(photo))
        assert not found.people
        assert not found.notes


@pytest.mark.parametrize("text", ["{", "", "\x00\x01", "[" * 100_000, "{'a': 1}"])
def test_a_damaged_json_costs_a_line(tagged, text: str):
    photo = tagged.put("a.jpg", jpeg())
    tagged.beside("a.jpg.json", text)
    notes = sources.beside(str(photo)).notes
    assert len(notes) == 1
    assert "a.jpg.json" in notes[0]
    assert "\n" not in notes[0]


def test_a_title_tells_what_the_name_does_not(tagged):
    photo = tagged.put("100_ sure_.jpg", jpeg())
    tagged.beside("whatever.json", google(("Oma",), title="100% sure?.jpg"))
    tagged.beside("metadata.json", json.dumps({"title": "Album"}))
    assert list(sources.beside(str(photo)).people) == ["Oma"]


def test_of_two_names_cut_alike_the_title_decides(tagged):
    stem = "a_name_that_is_long_enough_to_be_cut_by_google_"
    first = tagged.put(f"{stem}one.jpg", jpeg())
    second = tagged.put(f"{stem}two.jpg", jpeg())
    tagged.beside(f"{stem[:46]}.json", google(("One",), title=f"{stem}one.jpg"))
    tagged.beside(f"{stem[:46]}(1).json", google(("Two",), title=f"{stem}two.jpg"))
    assert list(sources.beside(str(first)).people) == ["One"]
    assert list(sources.beside(str(second)).people) == ["Two"]


@pytest.mark.parametrize(
    "where",
    [
        "Takeout 2/Google Photos/Album/a.jpg.json",
        "Takeout/Google Photos/Photos from 1998/a.jpg.supplemental-metadata.json",
        "Takeout 2/Google Photos/Photos from 1998/a.jpg.json",
    ],
)
def test_a_json_in_another_part_or_in_the_years_folder(tagged, where: str):
    photo = tagged.put("Takeout/Google Photos/Album/a.jpg", jpeg())
    tagged.beside("Takeout/Google Photos/Photos from 1998/other.jpg.json", google(("Nobody",)))
    tagged.beside(where, google(("Oma",)))
    tagged.beside("Takeout 2/Google Photos/Album/x.txt", "")
    assert list(sources.beside(str(photo)).people) == ["Oma"]


def test_two_years_that_have_the_name_decide_nothing(tagged):
    photo = tagged.put("Takeout/Google Photos/Album/a.jpg", jpeg())
    for year in (1998, 1999):
        tagged.beside(f"Takeout/Google Photos/Photos from {year}/a.jpg.json", google((str(year),)))
    assert not sources.beside(str(photo)).people


def test_parts_in_folders_of_their_own(tagged):
    photo = tagged.put("takeout-001/Takeout/Google Fotos/Fotos von 1998/a.jpg", jpeg())
    tagged.beside("takeout-002/Takeout/Google Fotos/Fotos von 1998/a.jpg.json", google())
    assert list(sources.beside(str(photo)).people) == ["Oma"]


def test_a_large_folder_is_listed_once(tagged, monkeypatch):
    for at in range(300):
        tagged.beside(f"IMG_{at}.jpg.supplemental-metadata.json", google((f"P{at}",)))
    listed, scandir = [], sources.os.scandir
    monkeypatch.setattr(sources.os, "scandir", lambda path: listed.append(path) or scandir(path))
    sources.forget_listings()
    for at in random.Random(0).sample(range(300), 100):
        people = sources.beside(str(tagged.photos / f"IMG_{at}.jpg")).people
        assert list(people) == [f"P{at}"]
    assert listed.count(str(tagged.photos)) == 1


def test_the_real_takeout(shared):
    folder = shared / "data/reports/takeout/lib/Photos from 1998"
    for photo in ("816226709_8639.jpg", "IMG_3397.JPG"):
        found = sources.beside(str(folder / photo))
        assert list(found.people) == ["Oma"]
        assert "899546400" in found.dates[0][1]


# --- regions: writers -----------------------------------------------------------

WRITERS = {
    "digiKam": lambda faces: packet(
        mwg(faces, None), microsoft(faces), head='digiKam:ImageUniqueID="a"'
    ),
    "Lightroom": lambda faces: packet(
        mwg(faces, more="<mwg-rs:Rotation>0.00000</mwg-rs:Rotation>"),
        head='xmp:CreatorTool="Adobe Photoshop Lightroom Classic 13.0 (Windows)"',
    ),
    "Windows": lambda faces: packet(microsoft(faces), tool="XMP Core 5.1"),
    "Picasa": lambda faces: packet(mwg(faces), head='xmp:CreatorTool="Picasa"'),
    "osxphotos": lambda faces: packet(
        mwg(faces),
        microsoft({name: (b[1], b[0], b[3], b[2]) for name, b in faces.items()}),
        tool="osxphotos",
    ),
    "ACDSee": lambda faces: packet(acdsee(faces)),
    "another program": lambda faces: packet(iptc(faces)),
}
LISTS = [b"\xff\xd8", b"\x89PNG"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("writer", WRITERS)
def test_regions_in_the_stored_frame(tagged, writer: str, orientation: int):
    told = WRITERS[writer](stored(TWO, orientation))
    tagged.put("a.jpg", jpeg(orientation, told))
    tagged.save()
    counts = tagged.read()
    assert counts == {"tagged_faces": 2}
    assert tagged.names() == {"a.jpg": list(TWO)}
    assert tagged.authors() == {f"import tags: {writer}, in the photo"}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg.xmp", "a.xmp", "A.JPG.XMP"])
def test_regions_of_a_sidecar_in_the_upright_frame(tagged, name: str, orientation: int):
    tagged.put("a.jpg", jpeg(orientation))
    tagged.beside(name, WRITERS["digiKam"](TWO))
    tagged.save()
    tagged.read()
    assert tagged.names() == {"a.jpg": list(TWO)}
    assert tagged.authors() == {"import tags: digiKam, .xmp"}


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("name", [".picasa.ini", "Picasa.ini"])
def test_picasas_list(tagged, name: str, orientation: int):
    left, right = stored({"l": LEFT, "r": RIGHT}, orientation).values()
    ids = {"8e62398ebda8c1a5": "Anna", "00000000000000ab": "Bo &amp; Co"}
    faces, contacts = picasa(dict(zip(ids, (left, right), strict=True)), ids)
    tagged.put("Ä.jpg", jpeg(orientation))
    tagged.beside(
        name, f"[Picasa]\nname=x\n[{unicodedata.normalize('NFD', 'Ä')}.jpg]\n{faces}{contacts}"
    )
    tagged.save()
    tagged.read()
    assert tagged.names() == {"Ä.jpg": ["Anna", "Bo & Co"]}


def test_picasas_contacts_lie_above_and_the_unnamed_are_nobody(tagged):
    faces, _ = picasa({"8e62398ebda8c1a5": (0.001, 0.2, 0.3, 0.7), "ffffffffffffffff": RIGHT}, {})
    assert "rect64(42" in faces  # no leading zeros
    tagged.put("deep/er/a.jpg", jpeg(), [(0, 0.2, 0.3, 0.7), RIGHT])
    tagged.beside("deep/er/.picasa.ini", f"[a.jpg]\n{faces}")
    tagged.beside(
        "contacts.xml",
        '<contacts><contact id="8E62398EBDA8C1A5" name="O&amp;#39;Neil"/></contacts>',
    )
    tagged.save()
    assert tagged.read() == {"tagged_faces": 1}
    assert tagged.names() == {"deep/er/a.jpg": ["O'Neil", ""]}


@pytest.mark.parametrize(
    "name",
    [
        "Unknown",
        "unbekannt",
        "Ignoré",
        "不明",
        "Неизвестно",
        "ffffffffffffffff",
        " ",
        "?",
        "_UNKNOWN_",
    ],
)
def test_names_of_nobody(tagged, name: str):
    tagged.put("a.jpg", jpeg(1, packet(mwg({name: LEFT, "Anna": RIGHT}))))
    tagged.save()
    assert tagged.read() == {"tagged_faces": 1}
    assert tagged.names() == {"a.jpg": ["", "Anna"]}


def test_pixels_circles_and_polygons():
    for region in (iptc({"A": LEFT}, "pixel", (400, 300)), iptc({"A": LEFT})):
        told = regions.told_by(regions.parse(packet(region)), "")
        box = word.upright_boxes(told.regions, 1, np.array([400, 300]))[0]
        assert np.allclose(box, np.array(LEFT) * [400, 300, 400, 300])
    circle = {"rbx": "0.5", "rby": "0.4", "rbrx": "0.1"}
    assert np.allclose(regions.boundary_box(circle), (0.4, 0.3, 0.6, 0.5))
    corners = [{"rbX": str(x), "rbY": str(y)} for x, y in ((0.1, 0.5), (0.4, 0.2), (0.3, 0.7))]
    assert np.allclose(regions.boundary_box({"rbvertices": corners}), (0.1, 0.2, 0.4, 0.7))


def test_only_faces_count(tagged):
    text = mwg({"Rex": LEFT, "Anna": RIGHT}).replace(
        'mwg-rs:Type="Face" mwg-rs:Name="Rex"', 'mwg-rs:Type="Pet" mwg-rs:Name="Rex"'
    )
    tagged.put("a.jpg", jpeg(1, packet(text)))
    tagged.save()
    tagged.read()
    assert tagged.names() == {"a.jpg": ["", "Anna"]}


def test_a_comma_for_a_point_costs_the_region_and_a_line(tagged):
    tagged.put("a.jpg", jpeg(1, packet(microsoft({"Anna": LEFT}).replace("0.1,", "0,1,"))))
    tagged.save()
    assert tagged.read() == {"tags_unreadable": 1}


def test_a_cropped_picture_keeps_names_without_boxes(tagged):
    told = packet(mwg({"Anna": LEFT}, (500, 300)))
    tagged.put("two.jpg", jpeg(1, told))
    tagged.put("one.jpg", jpeg(1, told), [RIGHT])
    tagged.save()
    assert tagged.read() == {"tagged_perhaps": 1, "tags_of_several": 1}
    assert tagged.names() == {"two.jpg": ["", ""], "one.jpg": ["Anna"]}


def test_a_larger_box_around_a_face_is_its_own(tagged):
    grown = (LEFT[0] - 0.08, LEFT[1] - 0.15, LEFT[2] + 0.08, LEFT[3] + 0.15)
    tagged.put("a.jpg", jpeg(1, packet(mwg({"Anna": grown, "Far": (0.4, 0.8, 0.45, 0.9)}))))
    tagged.save()
    assert tagged.read() == {"tagged_faces": 1, "tags_without_face": 1}
    assert tagged.names() == {"a.jpg": ["Anna", ""]}


def test_a_sidecar_named_after_the_stem_may_be_the_raws(tagged):
    photo = str(tagged.put("a.jpg", jpeg()))
    tagged.beside("a.xmp", packet(mwg(TWO), head='photoshop:SidecarForExtension="CR2"'))
    assert not sources.beside(photo).regions
    tagged.beside("a.xmp", packet(mwg(TWO), head='photoshop:SidecarForExtension="JPG"'))
    assert len(sources.beside(photo).regions) == 2
    tagged.beside("a.CR2", b"raw")
    sources.forget_listings()
    assert not sources.beside(photo).regions
    assert len(sources.beside(str(tagged.photos / "a.CR2")).regions) == 0  # it is for the JPG


def test_what_this_tool_wrote_is_no_word(tagged):
    photo = tagged.put("a.jpg", jpeg())
    made = xmp.sidecar([xmp.Region("Anna", LEFT)], (400, 300), 1)
    tagged.beside("a.jpg.xmp", made)
    tagged.put("b.jpg", jpeg(1, made))
    assert not sources.beside(str(photo)).regions
    tagged.save()
    assert tagged.read() == {}


def test_a_sidecar_tells_dates_and_orientation(tagged):
    photo = tagged.put("a.jpg", jpeg())
    head = 'tiff:Orientation="6" exif:DateTimeOriginal="1998-07-04T10:10:10"'
    tagged.beside("a.jpg.xmp", packet(head=head))
    found = sources.beside(str(photo))
    assert found.orientation == 6
    assert found.dates == [("sidecar_original", "1998-07-04T10:10:10")]


# --- packets --------------------------------------------------------------------


def extended(packet_: bytes) -> bytes:
    """A JPEG whose regions lie in extended XMP of two segments, the later part first."""
    data, head = (
        jpeg(1, packet(head='xmp:CreatorTool="digiKam"')),
        b"http://ns.adobe.com/xmp/extension/\0",
    )
    half = len(packet_) // 2
    segments = b""
    for at, part in ((half, packet_[half:]), (0, packet_[:half])):
        inner = head + b"0123456789ABCDEF" * 2 + struct.pack(">II", len(packet_), at) + part
        segments += b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner
    return data[:2] + segments + data[2:]


def late_png(packet_: bytes) -> bytes:
    """A PNG whose XMP stands behind the picture, packed."""
    stream = sf.io.BytesIO()
    PIL.Image.new("RGB", (400, 300), random.randrange(1 << 24)).save(stream, "PNG")
    data = stream.getvalue()
    text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet_)
    chunk = struct.pack(">I", len(text)) + b"iTXt" + text
    return data[:-12] + chunk + struct.pack(">I", zlib.crc32(b"iTXt" + text)) + data[-12:]


@pytest.mark.parametrize(("name", "made"), [("a.jpg", extended), ("a.png", late_png)])
def test_packets_that_pillow_does_not_put_together(tagged, name: str, made):
    tagged.put(name, made(packet(mwg(TWO))))
    tagged.save()
    tagged.read()
    assert tagged.names() == {name: list(TWO)}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_packets_in_every_encoding(encoding: str):
    text = packet(mwg(TWO)).decode().replace("\ufeff", "")
    told = regions.told_by(regions.parse(text.encode(encoding)), "")
    assert [region.name for region in told.regions] == list(TWO)


HOSTILE = {
    "entities": b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;mwg-rs</x>',
    "file": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a; mwg-rs</x>',
    "cut": packet(mwg(TWO))[:-120],
    "deep": b"<mwg-rs>" * 3000 + b"</mwg-rs>" * 3000,
    "no xml": b"mwg-rs \x00\xff\xfe",
    "utf-7": b'<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-DOCTYPE mwg-rs',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_xmp_costs_a_line(tagged, kind: str):
    tagged.put("a.jpg", jpeg(1, HOSTILE[kind]))
    tagged.put("b.jpg", jpeg())
    tagged.beside("b.jpg.xmp", HOSTILE[kind])
    tagged.put("c.jpg", jpeg(1, packet(mwg(TWO))))
    tagged.save()
    counts = tagged.read()
    assert counts["tagged_faces"] == 2
    assert counts.get("tags_unreadable", 0) == (0 if kind == "deep" else 2)


@given(st.binary(max_size=300), st.integers(0, 2000))
def test_no_bytes_break_the_reader(noise: bytes, at: int):
    data = packet(mwg(TWO), microsoft(TWO), acdsee(TWO), iptc(TWO))
    for spoiled in (noise, data[:at] + noise + data[at + len(noise) :]):
        try:
            told = regions.told_by(regions.parse(spoiled), "")
        except regions.Malformed:
            continue
        assert all(np.isfinite(region.box).all() for region in told.regions)


@given(st.text(max_size=60))
def test_no_ini_breaks_the_reader(text: str):
    for whole in (text, f"[a.jpg]\nfaces={text}\n[Contacts2]\n{text}"):
        try:
            ini = regions.read_ini(whole.encode("utf-8", "surrogatepass"))
        except ValueError:
            continue
        for section in ini.sections():
            told = ini.get(section, "faces", fallback=None) or ""
            regions.picasa_regions(told, regions.contacts_of(ini), "")


# --- words ----------------------------------------------------------------------


def lines(tagged: Tagged) -> int:
    return len(decisions.Book(tagged.cache_path).lines)


def test_read_again_nothing_is_said_twice(tagged):
    for name in ("a.jpg", "b.jpg"):
        tagged.put(name, jpeg(1, packet(mwg(TWO))))
    tagged.save()
    tagged.read()
    before = lines(tagged)
    assert before == 2  # an act a name
    assert tagged.read() == {}
    word.marks_path(tagged.cache_path).unlink()
    tagged.read()
    assert lines(tagged) == before


def test_only_new_and_changed_photos_are_opened(tagged, monkeypatch):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        tagged.put(name, jpeg())
    tagged.save()
    opened, within = [], sources.within
    monkeypatch.setattr(
        sources, "within", lambda path: opened.append(Path(path).name) or within(path)
    )
    tagged.read()
    assert sorted(opened) == ["a.jpg", "b.jpg", "c.jpg"]
    tagged.read()
    tagged.beside("b.xmp", packet(mwg(TWO)))
    tagged.read()
    assert sorted(opened) == ["a.jpg", "b.jpg", "b.jpg", "c.jpg"]


def test_a_changed_tag_replaces_and_a_lost_one_is_withdrawn(tagged):
    tagged.put("a.jpg", jpeg())
    tagged.put("b.jpg", jpeg())
    side = tagged.beside("a.jpg.xmp", packet(mwg(TWO)))
    tagged.beside("b.jpg.xmp", packet(mwg({"Anna": LEFT})))
    tagged.save()
    tagged.read()
    tagged.beside("a.jpg.xmp", packet(mwg({"Berta": LEFT})))
    counts = tagged.read()
    assert counts["tags_withdrawn"] == 2
    assert tagged.names() == {"a.jpg": ["Berta", ""], "b.jpg": ["Anna", ""]}
    side.unlink()
    tagged.read()
    assert tagged.names() == {"a.jpg": ["", ""], "b.jpg": ["Anna", ""]}


def test_the_operator_has_the_last_word(tagged):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        tagged.put(name, jpeg(1, packet(mwg({"Anna": LEFT}))))
    cache = tagged.save()
    book = decisions.Book(tagged.cache_path)
    own = decisions.refs(cache, [0])
    book.append([decisions.act("name", "mine", text="Berta", faces=own)])
    tagged.read()
    assert {name[0] for name in tagged.names().values()} == {"Berta"}
    rest, here = decisions.refs(cache, [2, 4]), decisions.refs(cache, [0])
    book.append([decisions.act("not_belongs", "later", faces=here, others=rest)])
    told = sf.operators_word(tagged.cache_path, cache)
    assert told.person[2] == told.person[4] != told.person[0]


def test_names_of_several_programs_are_one_person(tagged):
    tagged.put("a.jpg", jpeg(1, WRITERS["digiKam"]({"Anna": LEFT})))
    tagged.put("b.jpg", jpeg(1, WRITERS["Lightroom"]({"anna": LEFT})))
    cache = tagged.save()
    tagged.read()
    told = sf.operators_word(tagged.cache_path, cache)
    assert told.person[0] == told.person[2] >= 0


def test_an_imported_name_joins_whom_the_operator_calls_so(tagged):
    tagged.put("a.jpg", jpeg(1, packet(mwg({"Anna": LEFT}))))
    tagged.put("b.jpg", jpeg())
    cache = tagged.save()
    named = decisions.act("name", "mine", text="Anna", faces=decisions.refs(cache, [3]))
    decisions.Book(tagged.cache_path).append([named])
    tagged.read()
    told = sf.operators_word(tagged.cache_path, cache)
    assert told.person[0] == told.person[3] >= 0


def test_two_words_for_one_face_are_a_conflict(tagged, caplog):
    tagged.put("a.jpg", jpeg(1, packet(mwg({"Anna": LEFT}))))
    faces, contacts = picasa({"8e62398ebda8c1a5": LEFT}, {"8e62398ebda8c1a5": "Berta"})
    tagged.beside(".picasa.ini", f"[a.jpg]\n{faces}{contacts}")
    tagged.save()
    assert tagged.read() == {"tags_in_conflict": 1}
    assert tagged.names() == {"a.jpg": ["", ""]}


def test_a_sidecar_is_newer_than_the_photo(tagged):
    tagged.put("a.jpg", jpeg(1, packet(mwg({"Anna": LEFT, "Bo": RIGHT}))))
    tagged.beside("a.jpg.xmp", packet(mwg({"Anna Müller": LEFT})))
    tagged.save()
    tagged.read()
    assert tagged.names() == {"a.jpg": ["Anna Müller", "Bo"]}


def test_a_photo_that_is_not_there_withdraws_nothing(tagged):
    photo = tagged.put("a.jpg", jpeg(1, packet(mwg(TWO))))
    tagged.beside("a.jpg.xmp", packet(mwg({"Anna": LEFT})))
    tagged.save()
    tagged.read()
    before = lines(tagged)
    photo.parent.rename(tagged.photos.with_name("unplugged"))
    tagged.read()
    assert lines(tagged) == before
    tagged.photos.with_name("unplugged").rename(photo.parent)
    assert "tags_withdrawn" not in tagged.read()
    assert lines(tagged) == before


def test_ignore_leaves_them_out_and_read_brings_them_back(tagged):
    tagged.put("a.jpg", jpeg(1, packet(mwg(TWO))))
    tagged.save()
    tagged.read()
    assert tagged.read("ignore") == {"tags_withdrawn": 2}
    assert tagged.names() == {"a.jpg": ["", ""]}
    assert tagged.read("ignore") == {}
    tagged.read()
    assert tagged.names() == {"a.jpg": list(TWO)}


@pytest.mark.parametrize("odd", [[1], {"a": 1}, None, 7])
def test_a_library_of_odd_types_is_no_traceback(odd):
    libraries = sf.companion("sources_libraries")
    rows = [{"id": odd, "path": odd, "checksum": odd, "faces": odd}, {"id": odd}, odd]
    for value in (rows, {"assets": rows, "faces": odd, "people": rows}, {"items": {"items": rows}}):
        assert all(not entry.regions for entry in libraries.entries_of(value) or ())
    assert libraries.entries_of([{"id": odd}]) is None


def odd_packets() -> dict[str, bytes]:
    """Photos whose XMP is no packet at all, by their endings."""
    image = np.full((16, 16, 3), 90, np.uint8)
    png = odd_photos.encoded(image, "PNG")
    key = b"iTXtXML:com.adobe.xmp\0"
    chunk = struct.pack(">I", len(key) - 4) + key + struct.pack(">I", zlib.crc32(key))
    tags, pixels, _ = odd_photos.page_of(image)
    files = {"png": png[:33] + chunk + png[33:]}
    for kind, ending in ((2, "tif"), (3, "TIF"), (4, "tiff")):  # ASCII, SHORT, LONG
        files[ending] = odd_photos.tiff([({**tags, 700: (kind, [60, 120, 62])}, pixels, ())])
    return files


@pytest.mark.parametrize("ending", ["png", "tif", "TIF", "tiff"])
def test_xmp_of_the_wrong_type_says_nothing(tmp_path, ending):
    photo = tmp_path / f"a.{ending}"
    photo.write_bytes(odd_packets()[ending])
    assert sources.within(str(photo)).regions == []
    assert sf.decode_photo(photo.read_bytes()).dates.startswith("{")


def test_undone_in_one_go_it_stays_undone(tagged, run):
    tagged.put("a.jpg", jpeg(1, WRITERS["digiKam"](TWO)))
    tagged.put("b.jpg", jpeg(1, WRITERS["Lightroom"]({"Cleo": LEFT})))
    tagged.save()
    tagged.read()
    code, _, err = run("decisions", "undo", tagged.cache_path, "--source", "lightroom")
    assert code == 0, err
    assert tagged.names() == {"a.jpg": list(TWO), "b.jpg": ["", ""]}
    assert run("decisions", "undo", tagged.cache_path, "--source", "tags")[0] == 0
    tagged.read()
    assert tagged.names() == {"a.jpg": ["", ""], "b.jpg": ["", ""]}
    code, _, err = run("decisions", "undo", tagged.cache_path, "--source", "tags")
    assert code != 0
    assert "nothing came from" in err
    assert run("decisions", "redo", tagged.cache_path)[0] == 0
    assert tagged.names()["a.jpg"] == list(TWO)


def test_redone_in_one_go_by_source(tagged, run):
    tagged.put("a.jpg", jpeg(1, WRITERS["digiKam"](TWO)))
    tagged.put("b.jpg", jpeg(1, WRITERS["Lightroom"]({"Cleo": LEFT})))
    tagged.save()
    tagged.read()
    where = tagged.cache_path, "--source"
    assert run("decisions", "redo", *where, "lightroom")[0] != 0  # nothing was taken back
    assert run("decisions", "undo", *where, "tags")[0] == 0
    code, out, err = run("decisions", "redo", *where, "lightroom", "--json")
    assert code == 0, err
    assert json.loads(out)["let_count_again"] == 1
    assert tagged.names() == {"a.jpg": ["", ""], "b.jpg": ["Cleo", ""]}
    tagged.read()
    assert tagged.names()["a.jpg"] == ["", ""]
    code, _, err = run("decisions", "redo", *where, "lightroom")
    assert code != 0 and "nothing was taken back from 'lightroom'; sources: " in err
    assert run("decisions", "redo", *where, "tags")[0] == 0
    assert tagged.names() == {"a.jpg": list(TWO), "b.jpg": ["Cleo", ""]}
    assert run("decisions", "redo", tagged.cache_path, "act", "--source", "tags")[0] != 0


def test_undo_takes_the_operators_last_act_not_a_tag(tagged, run):
    tagged.put("a.jpg", jpeg(1, packet(mwg({"Anna": LEFT}))))
    cache = tagged.save()
    mine = decisions.act("name", "mine", text="Bo", faces=decisions.refs(cache, [1]))
    decisions.Book(tagged.cache_path).append([mine])
    tagged.read()
    assert run("decisions", "undo", tagged.cache_path)[0] == 0
    assert tagged.names() == {"a.jpg": ["Anna", ""]}


# --- weak words -----------------------------------------------------------------


def test_weak_words_count_where_the_faces_agree(tagged):
    names = ["Oma"] * 4 + ["Opa"] * 3 + ["Oma", "Tante", "Tante"]
    people = [0] * 4 + [1] * 3 + [1, 2, 3]
    for at, name in enumerate(names):
        tagged.put(f"{at}.jpg", jpeg(), [LEFT])
        tagged.beside(f"{at}.jpg.json", google((name,)))
    tagged.save(people)
    counts = tagged.read()
    assert counts == {"tagged_perhaps": 10}
    said = [name for (name,) in tagged.names().values()]
    assert said[:7] == names[:7]
    assert said[7] == ""  # looks like Opa
    assert said[8:] == ["", ""]  # two faces of one name that do not agree: nobody knows whose


def test_a_certain_name_decides_over_a_weak_one(tagged):
    for at in range(4):
        tagged.put(f"{at}.jpg", jpeg(1, packet(mwg({"Erna": LEFT})) if at < 2 else b""), [LEFT])
    tagged.beside("2.jpg.json", google(("Oma",)))
    tagged.beside("3.jpg.json", google(("Erna",)))
    tagged.save([0, 0, 0, 0])
    tagged.read()
    assert tagged.names() == {
        "0.jpg": ["Erna"],
        "1.jpg": ["Erna"],
        "2.jpg": [""],
        "3.jpg": ["Erna"],
    }


def test_names_of_several_people_are_only_counted(tagged):
    tagged.put("a.jpg", jpeg())
    tagged.beside("a.jpg.json", google(("Oma", "Opa")))
    tagged.put("b.jpg", jpeg())
    tagged.beside("b.jpg.json", google(("Oma",)))
    tagged.save()
    assert tagged.read() == {"tags_of_several": 2}
    assert lines(tagged) == 0


# --- libraries ------------------------------------------------------------------


def sha1(path: Path) -> bytes:
    return sf.hashlib.sha1(path.read_bytes()).digest()


def immich_face(name: str, box: tuple, **more: object) -> dict:
    x1, y1, x2, y2 = (round(v * size) for v, size in zip(box, (1440, 1080) * 2, strict=True))
    corners = {"boundingBoxX1": x1, "boundingBoxY1": y1, "boundingBoxX2": x2, "boundingBoxY2": y2}
    return {
        "imageWidth": 1440,
        "imageHeight": 1080,
        **corners,
        "person": {"id": name, "name": name},
        **more,
    }


@pytest.mark.parametrize("how", ["base64", "hex", "bytea", "path", "raw"])
def test_immich(tagged, run, tmp_path, how: str):
    photos = [tagged.put(f"{year}/IMG_1.jpg", jpeg(6)) for year in (2019, 2020)]
    tagged.save()
    digest = sha1(photos[1])
    sums = {
        "base64": sf.base64.b64encode(digest).decode(),
        "hex": digest.hex(),
        "bytea": "\\x" + digest.hex(),
    }
    faces = [
        immich_face("Anna", LEFT),
        immich_face("", RIGHT),
        immich_face("Gone", RIGHT, deletedAt="2024"),
    ]
    row = {"originalPath": "/usr/src/app/upload/2020/IMG_1.jpg", "faces": faces}
    if how in sums:
        row = {"checksum": sums[how], "originalPath": "/other/1999/IMG_1.jpg", "faces": faces}
    value: object = [row]
    if how == "raw":
        assets = [{"id": "x1", "originalPath": row["originalPath"]}]
        bare = [{**face, "person": None, "personId": face["person"]["id"]} for face in faces[:1]]
        value = {
            "assets": {"items": assets},
            "faces": {"x1": bare},
            "people": {"people": [{"id": "Anna", "name": "Anna"}]},
        }
    file = tmp_path / "immich.json"
    file.write_text(json.dumps(value))
    code, out, err = run("decisions", "import", tagged.cache_path, file, "--json")
    assert code == 0, err
    assert json.loads(out)["faces"] == 1
    assert tagged.names() == {"2019/IMG_1.jpg": ["", ""], "2020/IMG_1.jpg": ["Anna", ""]}
    assert tagged.authors() == {"import immich.json"}
    before = lines(tagged)
    run("decisions", "import", tagged.cache_path, file)
    assert lines(tagged) == before
    faces[0]["person"]["name"] = "Anna Müller"
    file.write_text(json.dumps([row]))
    run("decisions", "import", tagged.cache_path, file)
    assert tagged.names()["2020/IMG_1.jpg"] == ["Anna Müller", ""]


def test_another_photo_of_the_name_is_not_taken_for_it(tagged, run, tmp_path):
    tagged.put("2020/IMG_1.jpg", jpeg())
    tagged.save()
    file = tmp_path / "immich.json"
    faces = [immich_face("Anna", LEFT)]
    file.write_text(json.dumps([{"path": "2020/IMG_1.jpg", "checksum": "0" * 40, "faces": faces}]))
    code, out, _ = run("decisions", "import", tagged.cache_path, file, "--json")
    assert code == 1
    assert json.loads(out)["not_found"] == 1
    assert tagged.names() == {"2020/IMG_1.jpg": ["", ""]}


def test_flat_rows_with_a_checksum(tagged, run, tmp_path):
    photo = tagged.put("a.jpg", jpeg())
    tagged.save()
    x1, y1, x2, y2 = LEFT
    row = {
        "checksum": sha1(photo).hex(),
        "x": x1,
        "y": y1,
        "w": x2 - x1,
        "h": y2 - y1,
        "name": "Anna",
    }
    file = tmp_path / "photoprism.json"
    file.write_text(json.dumps([row]))
    assert run("decisions", "import", tagged.cache_path, file)[0] == 0
    assert tagged.names() == {"a.jpg": ["Anna", ""]}


DIGIKAM = """
CREATE TABLE AlbumRoots (id INTEGER, label TEXT, status INTEGER, type INTEGER, identifier TEXT,
  specificPath TEXT);
CREATE TABLE Albums (id INTEGER, albumRoot INTEGER, relativePath TEXT);
CREATE TABLE Images (id INTEGER, album INTEGER, name TEXT, uniqueHash TEXT);
CREATE TABLE Tags (id INTEGER, pid INTEGER, name TEXT);
CREATE TABLE TagProperties (tagid INTEGER, property TEXT, value TEXT);
CREATE TABLE ImageTagProperties (imageid INTEGER, tagid INTEGER, property TEXT, value TEXT);
INSERT INTO AlbumRoots VALUES (1, 'Pictures', 0, 1, 'volumeid:?uuid=x', '/home/u/Pictures');
INSERT INTO Albums VALUES (1, 1, '/2020'), (2, 1, '/');
INSERT INTO Tags VALUES (1, 0, 'People'), (2, 1, 'Anna'), (3, 1, 'Unknown'), (4, 1, 'Bo');
INSERT INTO TagProperties VALUES (2, 'person', 'Anna'), (3, 'unknownPerson', NULL);
"""


def rect(box: tuple) -> str:
    x1, y1, x2, y2 = (round(v * size) for v, size in zip(box, (400, 300, 400, 300), strict=True))
    return f'<rect x="{x1}" y="{y1}" width="{x2 - x1}" height="{y2 - y1}"/>'


@pytest.mark.parametrize("orientation", [1, 6])
def test_digikams_database(tagged, run, tmp_path, orientation: int):
    tagged.put("2020/a.jpg", jpeg(orientation))
    tagged.put("b.jpg", jpeg())
    tagged.save()
    file = tmp_path / "digikam4.db"
    base = sqlite3.connect(file)
    base.executescript(DIGIKAM)
    faces = [
        (1, 2, "tagRegion", rect(LEFT)),
        (1, 3, "tagRegion", rect(RIGHT)),
        (2, 4, "tagRegion", rect(RIGHT)),
        (2, 2, "autodetectedFace", rect(LEFT)),
    ]
    base.execute("INSERT INTO Images VALUES (1, 1, 'a.jpg', ''), (2, 2, 'b.jpg', '')")
    base.executemany("INSERT INTO ImageTagProperties VALUES (?, ?, ?, ?)", faces)
    base.commit()
    base.close()
    before = file.read_bytes()
    code, _, err = run("decisions", "import", tagged.cache_path, file)
    assert code == 0, err
    assert tagged.names() == {"2020/a.jpg": ["Anna", ""], "b.jpg": ["", "Bo"]}
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.glob("digikam4.db*")] == ["digikam4.db"]


def test_a_database_of_another_program(tagged, run, tmp_path):
    tagged.put("a.jpg", jpeg())
    tagged.save()
    file = tmp_path / "x.db"
    file.write_bytes(b"no database")
    code, _, err = run("decisions", "import", tagged.cache_path, file)
    assert code != 0
    assert "is no digikam4.db" in err


# --- real files -----------------------------------------------------------------


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("where", ["embedded", "sidecar", "embedded_sidecar"])
def test_the_curies_have_upright_boxes(shared, where: str, orientation: int):
    path = shared / f"data/reports/regions/photo.{orientation}.{where}.jpg"
    within, beside = sources.within(str(path)), sources.beside(str(path))
    told = [*within.regions, *beside.regions]
    assert len(told) == (4 if where == "embedded_sidecar" else 2)
    turn = beside.orientation or regions.orientation_of(str(path))
    assert turn == orientation
    boxes = word.upright_boxes(told, turn, np.array([840, 700]))
    for region, box in zip(told, boxes, strict=True):
        expected = {"Marie Curie": (264, 147, 357, 287), "Pierre Curie": (538, 84, 622, 252)}
        assert np.allclose(box, expected[region.name], atol=2)


def test_the_curies_are_named_by_embed(shared, mini, run, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(shared / "data/reports/regions", folder)
    cache = tmp_path / "lib.npz"
    code, out, err = run("embed", folder, cache, "--model", mini, "--det-size", 320, "--json")
    assert code == 0, err
    assert json.loads(out)["tagged_faces"] == 12
    assert "8 exiftool, 4 digiKam" in err
    known = sf.load_cache(cache)
    told = sf.operators_word(cache, known)
    for row in range(known.faces):
        middle = known.bbox[row, [0, 2]].mean() / known.file_wh[known.face_file[row], 0]
        assert told.names[told.person[row]] == ("Marie Curie" if middle < 0.5 else "Pierre Curie")
    again = ("embed", folder, cache, "--det-size", 320, "--json")
    code, out, err = run(*again, "--tags", "ignore")
    assert code == 0, err
    assert json.loads(out)["tags_withdrawn"] == 12
    code, out, err = run("decisions", "import", cache, "--from-photos", "--json")
    assert code == 0, err
    assert json.loads(out)["tagged_faces"] == 12
    assert ok(run, "decisions", "import", cache, "--from-photos") == {"tagged_faces": 0}


def turning(turn: int) -> str:
    """A sidecar that says how its photo is turned, and nothing else."""
    tiff, rdf = "http://ns.adobe.com/tiff/1.0/", "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    told = f'<rdf:Description xmlns:tiff="{tiff}" tiff:Orientation="{turn}"/>'
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{rdf}">{told}</rdf:RDF>'
        "</x:xmpmeta>"
    )


def test_a_sidecar_turns_a_photo_that_does_not_say_how(run, tmp_path):
    """While it is there, and as it says now; boxes and crops follow."""
    folder, cache, engine = tmp_path / "photos", tmp_path / "lib.npz", ("--model", "dlib")
    folder.mkdir()
    photo, upright = folder / "a.jpg", face_picture("anna")
    height, width = upright.shape[:2]

    def lying(turn: int) -> np.ndarray:
        """What is stored so that it stands upright under an orientation."""
        back = {3: 3, 6: 8, 8: 6}[turn]
        return sf.turn_upright(upright, back)

    def embed() -> dict:
        code, out, err = run("embed", folder, cache, *engine, "--json")
        assert code == 0, err
        return json.loads(out)

    def say(turn: int) -> None:
        sidecar.write_text(turning(turn), "utf-8")
        later = cache.stat().st_mtime + 5 if cache.exists() else None
        os.utime(sidecar, later and (later, later))

    sidecar = folder / "a.jpg.xmp"
    photo.write_bytes(cv2.imencode(".png", lying(6))[1].tobytes())  # its bytes tell what it is
    say(6)
    assert embed()["faces"] == 1
    held = sf.load_cache(cache)
    assert held.file_wh.tolist() == [[width, height]] and "turned" in held.file_note[0]
    assert len(held.damaged) == 0
    again = sf.read_photo(str(photo), str(held.file_sha256[0]))
    assert np.array_equal(again.image, upright)
    assert embed()["unchanged"] == 1
    sidecar.unlink()
    (folder / "b.jpg.xmp").symlink_to(tmp_path / "nowhere")  # costs nobody anything
    assert embed()["new"] == 1
    assert sf.load_cache(cache).file_wh.tolist() == [[height, width]]
    say(6)
    assert embed()["new"] == 1 and sf.load_cache(cache).faces == 1
    say(8)
    assert embed()["new"] == 1
    assert "8" in sf.load_cache(cache).file_note[0] and sf.load_cache(cache).faces == 0


def test_a_photo_that_says_how_it_is_turned_is_right(tmp_path):
    picture = np.zeros((20, 30, 3), np.uint8)
    exif = PIL.Image.Exif()
    exif[sf.EXIF_ORIENTATION] = 1
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(picture).save(path, exif=exif)
    Path(f"{path}.xmp").write_text(turning(6), "utf-8")
    assert sf.read_photo(str(path)).image.shape[:2] == (20, 30)
    PIL.Image.fromarray(picture).save(path)
    assert sf.read_photo(str(path)).image.shape[:2] == (30, 20)


@exiftool
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp", "heic", "avif"])
def test_regions_that_exiftool_writes_are_found_in_every_format(tagged, ending: str):
    path = tagged.put(f"a.{ending}", b"")
    sf.register_heif()
    PIL.Image.new("RGB", (400, 300), random.randrange(1 << 24)).save(path)
    told = {"AppliedToDimensions": {"W": 400, "H": 300, "Unit": "pixel"}, "RegionList": []}
    for name, (x1, y1, x2, y2) in TWO.items():
        area = {
            "X": (x1 + x2) / 2,
            "Y": (y1 + y2) / 2,
            "W": x2 - x1,
            "H": y2 - y1,
            "Unit": "normalized",
        }
        told["RegionList"].append({"Area": area, "Name": name, "Type": "Face"})
    made = tagged.photos.with_name("regions.json")
    made.write_text(json.dumps([{"SourceFile": str(path), "XMP-mwg-rs:RegionInfo": told}]))
    subprocess.run(["exiftool", "-q", "-overwrite_original", f"-j={made}", str(path)], check=True)
    tagged.save()
    assert tagged.read() == {"tagged_faces": 2}
    assert tagged.names() == {path.name: list(TWO)}


PEOPLE = {"p002": "Zoë Müller", "p004": "王小明", "p006": "O'Neil & <Söhne>"}


def tag_every_other(cache: sf.FaceCache, made: Path) -> None:
    """Let exiftool write the names into every other photo of PEOPLE, on the face in the middle."""
    rows = []
    for file, path in enumerate(map(Path, cache.file_path.tolist())):
        own = np.flatnonzero(cache.face_file == file)
        if int(path.stem[-2:]) % 2 or not len(own):
            continue
        width, height = cache.file_wh[file].tolist()
        middles = cache.bbox[own][:, [0, 2]].mean(axis=1)
        box = cache.bbox[own[np.abs(middles - width / 2).argmin()]].tolist()
        x1, y1, x2, y2 = np.array(box) / [width, height, width, height]
        area = {"X": (x1 + x2) / 2, "Y": (y1 + y2) / 2, "W": x2 - x1, "H": y2 - y1}
        region = {
            "Area": {**area, "Unit": "normalized"},
            "Name": PEOPLE[path.stem[:4]],
            "Type": "Face",
        }
        told = {"AppliedToDimensions": {"W": width, "H": height, "Unit": "pixel"}}
        told["RegionList"] = [region]
        rows.append({"SourceFile": str(path), "XMP-mwg-rs:RegionInfo": told})
        rows[-1]["XMP-xmp:CreatorTool"] = "digiKam-8.1.0"
    made.write_text(json.dumps(rows))
    photos = [row["SourceFile"] for row in rows]
    subprocess.run(["exiftool", "-q", "-overwrite_original", f"-j={made}", *photos], check=True)


@exiftool
def test_tagged_photos_give_sets_with_those_names(shared, mini, run, tmp_path):
    folder, first, path = tmp_path / "photos", tmp_path / "first.npz", tmp_path / "lib.npz"
    folder.mkdir()
    for person in PEOPLE:
        for photo in sorted((shared / "data/people" / person).iterdir())[:14]:
            shutil.copyfile(photo, folder / photo.name)
    how = ("--model", mini, "--det-size", 320)
    code, _, err = run("embed", folder, first, *how)
    assert code == 0, err
    tag_every_other(sf.load_cache(first), tmp_path / "regions.json")
    code, out, err = run("embed", folder, path, *how, "--json")
    assert code == 0, err
    assert json.loads(out)["tagged_faces"] == 21
    assert "names of 21 faces read from the photos: 21 digiKam;" in err
    assert run("cluster", path, tmp_path / "raw")[0] == 0
    gates = ("--min-short", 60, "--min-faces", 8)
    assert run("refine", path, tmp_path / "sets", *gates)[0] == 0
    cache = sf.load_cache(path)
    told = sf.operators_word(path, cache)
    manifest = json.loads((tmp_path / "sets/refine_manifest.json").read_text())
    found = {}
    for faceset in manifest["facesets"]:
        rows = sf.rows_of_faces(cache, faceset["faces"])
        people = {Path(cache.file_path[cache.face_file[row]]).stem[:4] for row in rows}
        assert len(people) == 1
        assert len(rows) > 8  # those without a tag as well
        found[people.pop()] = told.names[told.of_group(rows)]
    assert found == PEOPLE
