"""When photos were taken: what names and values say, which of it counts, and what `embed` keeps."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import struct
import zlib
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import sort_faces as sf

capture_time = sf.companion("capture_time")
dates_in_photos, names = sf.companion("dates_in_photos"), sf.companion("dates_in_names")
dates_in_text, dating = sf.companion("dates_in_text"), sf.companion("dating")
Statement, Camera = capture_time.Statement, capture_time.Camera
SCAN_DAY = date(2026, 11, 26)
NO_CAMERA, CANON = Camera(), Camera("Canon", "Canon EOS 1000D")
WHERE_FROM = st.sampled_from([*capture_time.RANKS, "elsewhere"])


def best(*said: tuple[str, str], camera: Camera = NO_CAMERA, **more) -> capture_time.Taken:
    """The pick from (where, text) pairs."""
    return capture_time.capture_time([Statement(*one) for one in said], camera, SCAN_DAY, **more)


def told(*said: tuple[str, str], **more) -> tuple[str, str]:
    """(kind, date cut to what is known) of the pick."""
    taken = best(*said, **more)
    return taken.kind, taken.text()


def as_seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


# ---------------------------------------------------------------------------- the tables


def test_the_date_table(shared) -> None:
    """../shared/data/reports/dates.csv: right value and precision of every case."""
    with open(shared / "data/reports/dates.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) > 100
    wrong = []
    for row in rows:
        camera = CANON if "camera make present" in row["note"] else NO_CAMERA
        taken = best((row["where"], row["text"]), camera=camera)
        if (taken.text(), taken.precision) != (row["expected"], row["precision"]):
            wrong.append((row, taken))
    assert wrong == []


NAMES = {
    # cameras and phones
    "IMG_20190512_142312.jpg": "2019-05-12T14:23:12",
    "20190512_142312.jpg": "2019-05-12T14:23:12",
    "20190512_142312(0).jpg": "2019-05-12T14:23:12",
    "20190512_142312_001.jpg": "2019-05-12T14:23:12",
    "20190512142312.jpg": "2019-05-12T14:23:12",
    "IMG_20190512_142312_Burst01.jpg": "2019-05-12T14:23:12",
    "PXL_20190512_142312345.PORTRAIT.jpg": "2019-05-12T14:23:12",
    "IMG20190704101010.jpg": "2019-07-04T10:10:10",
    "VID20190704101010_edit.jpg": "2019-07-04T10:10:10",
    "WIN_20190512_14_23_12_Pro.jpg": "2019-05-12T14:23:12",
    "WP_20190704_10_10_10_Pro.jpg": "2019-07-04T10:10:10",
    "00100lrPORTRAIT_00100_BURST20190509154733123_COVER.jpg": "2019-05-09T15:47:33",
    "Burst_Cover_GIF_Action_20190509154733.gif": "2019-05-09T15:47:33",
    "20190509_154733_HDR~2.jpg": "2019-05-09T15:47:33",
    "thumbnail_IMG_20190509_154733.jpg": "2019-05-09T15:47:33",
    "Resized_20190509_154733(1).jpeg": "2019-05-09T15:47:33",
    "lv_7013986_20210704101010.mp4": "2021-07-04T10:10:10",
    "DSC_0001_20190509.jpg": "2019-05-09",
    "IMG_20190509_000000.jpg": "2019-05-09",
    "IMG_20190509_256199.jpg": "2019-05-09",
    "201905091547.jpg": "2019-05-09T15:47",
    "20190509_0001.jpg": "2019-05-09",
    # screens
    "Screenshot_2019-05-12-14-23-12.png": "2019-05-12T14:23:12",
    "Screenshot_20190512-142312_Gallery.jpg": "2019-05-12T14:23:12",
    "Screenshot 2019-04-16 at 11.19.37 AM.png": "2019-04-16T11:19:37",
    "Screen Shot 2019-04-16 at 2.59.39 PM.png": "2019-04-16T14:59:39",
    "Screen Shot 2019-04-16 at 2.59.39\u202fPM.png": "2019-04-16T14:59:39",
    "Screenshot 2019-04-16 at 12.05.00 AM.png": "2019-04-16T00:05:00",
    "Bildschirmfoto 2019-04-16 um 09.19.37.png": "2019-04-16T09:19:37",
    "Captura de pantalla 2019-04-16 a las 11.19.37.png": "2019-04-16T11:19:37",
    "Schermata 2019-04-16 alle 11.19.37.png": "2019-04-16T11:19:37",
    "截屏2019-04-16 11.19.37.png": "2019-04-16T11:19:37",
    "截屏2019-04-16 下午1.19.37.png": "2019-04-16T13:19:37",
    "스크린샷 2019-04-16 오후 3.19.37.png": "2019-04-16T15:19:37",
    "スクリーンショット 2019-04-16 11.19.37.png": "2019-04-16T11:19:37",
    "Снимок экрана 2019-04-16 в 11.19.37.png": "2019-04-16T11:19:37",
    "Skärmavbild 2019-04-16 kl. 11.19.37.png": "2019-04-16T11:19:37",
    "Zrzut ekranu 2019-04-16 o 11.19.37.png": "2019-04-16T11:19:37",
    # messengers and clouds
    "IMG-20190512-WA0001.jpg": "2019-05-12",
    "WhatsApp Image 2019-05-12 at 14.23.12.jpeg": "2019-05-12T14:23:12",
    "WhatsApp Image 2019-05-09 at 3.47.33 PM (1).jpeg": "2019-05-09T15:47:33",
    "PHOTO-2019-05-09-15-47-33.jpg": "2019-05-09T15:47:33",
    "PHOTO-2019-05-09-15-47-33-1.jpg": "2019-05-09T15:47:33",
    "photo_2019-05-12_14-23-12.jpg": "2019-05-12T14:23:12",
    "photo_5@09-05-2019_15-47-33.jpg": "2019-05-09T15:47:33",  # Telegram Desktop: day first
    "signal-2019-05-12-142312.jpg": "2019-05-12T14:23:12",
    "KakaoTalk_20190509_154733123.jpg": "2019-05-09T15:47:33",
    "KakaoTalk_Photo_2019-05-09-15-47-33.jpeg": "2019-05-09T15:47:33",
    "FB_IMG_1581270440551.jpg": "2020-02-09T17:47:20",
    "2019-05-12 14.23.12.jpg": "2019-05-12T14:23:12",
    "2019-05-12 14.23.12-1.jpg": "2019-05-12T14:23:12",
    "2019-05-12T14:23:12.jpg": "2019-05-12T14:23:12",
    "2019-05-09T15-47-33Z.jpg": "2019-05-09T15:47:33",
    "20190509T154733.jpg": "2019-05-09T15:47:33",
    "20030519T1200.jpg": "2003-05-19T12:00",
    # people
    "2019-05-12.jpg": "2019-05-12",
    "2019.05.12 Geburtstag.jpg": "2019-05-12",
    "20190512-3.jpg": "2019-05-12",
    "20200229.jpg": "2020-02-29",
    "20190704a.jpg": "2019-07-04",
    "2019_07_04_IMG_1234.jpg": "2019-07-04",
    "IMG_1234 2019-07-04.jpg": "2019-07-04",
    "Kopie von 2003-05-12.jpg": "2003-05-12",
    "19.05.2003.jpg": "2003-05-19",
    "Foto 09.05.2019, 15 47 33.jpg": "2019-05-09T15:47:33",
    "scan 1968-07-21.tif": "1968-07-21",
    "Scan 1998-07.jpg": "1998-07",
    "1998-07-00.jpg": "1998-07",
    "2003-05.jpg": "2003-05",
    "1998-07-04 Italy 12.jpg": "1998-07-04",
    "1998-07-04 - 1998-07-18 Italien 12.jpg": "1998-07",
    "04.-12.07.1998 Italien.jpg": "1998-07",
    "1998 summer 18.jpg": "1998",
    "Hochzeit 1998.jpg": "1998",
    "Weihnachten_1998_05.jpg": "1998",
    "Family-2003-12.jpg": "2003",
    "Opa 1924.jpg": "1924",
    "4 juillet 1998.jpg": "1998-07-04",
    "juillet 1998.jpg": "1998-07",
    "Mai 1998 012.jpg": "1998-05",
    "July 4, 1998.jpg": "1998-07-04",
    "4. července 1998.jpg": "1998-07-04",
    "4 июля 1998.jpg": "1998-07-04",
    "Set 2003 012.jpg": "2003",  # an Italian September, but an English word
    "1998年7月4日 花火.jpg": "1998-07-04",
    "05-06-2019 Zoo.jpg": "2019",
    "13-06-2019 Zoo.jpg": "2019-06-13",
}  # fmt: skip
NO_DATE_NAMES = [
    "", "IMG_1234.jpg", "DSC01234.JPG", "_DSC2005.jpg", "2019.jpg", "20190231.jpg", "20190229.jpg",
    "2019-02-31.jpg", "IMG_20190230_101010.jpg", "20191312_101010.jpg", "20190532.jpg",
    "12345678.jpg", "1234567890123.jpg", "120190512.jpg", "2019051234.jpg", "201905123.jpg",
    "20190512142312345678.jpg", "d41d8cd98f00b204e9800998ecf8427e.jpg", "99991231.jpg",
    "2048-1024.jpg", "20991231.jpg", "18991231.jpg", "9781234567890.jpg", "4006381333931.jpg",
    "12_345678901_1234567890_n.jpg", "12101998_10201998123456_345_n.jpg", "Julia 1998-2004.jpg",
    "90er.jpg", "1990er Party.jpg", "Party 1990s 12.jpg", "Image 2003.jpg", "Berg 2000 m.jpg",
    "image_123986672.JPG", "Winter 1998-99.jpg", "4096x2160.jpg", "IMG_20010101_000000.jpg",
]  # fmt: skip
FOLDERS = {
    "1998/07 Juli": "1998-07", "1998/Juli": "1998-07", "1998/07/04 Hochzeit": "1998-07-04",
    "1998-07/Summer 1998": "1998-07", "2004/1998-07 Italy": "1998-07", "Photos from 1998": "1998",
    "Fotos von 1998": "1998", "Photos de 1998": "1998", "1998/1998-07-04": "1998-07-04",
    "199807": "1998-07", "201907__": "2019-07", "1998/Italien": "1998", "Urlaub 1998": "1998",
    "2014-07-04 bis 2014-07-12": "2014-07", "Italien 07.1998": "1998-07", "1998.07": "1998-07",
    "1998_07_04_Hochzeit": "1998-07-04", "2019/05 Mai/09": "2019-05-09",
    "1998\\07\\04": "1998-07-04",
    "New York, NY, July 4, 1998": "1998-07-04", "4. Juli 1998": "1998-07-04", "1998/Scans": "1998",
    "backup 2024-01-01": "", "Import 2024-01-01": "", "90er": "", "1998 - 2004": "", "100_2005": "",
    "1998-99 Winter": "", "Weihnachten 98": "", "DCIM/101CANON": "", "4711/0815": "",
}  # fmt: skip
VALUES = {
    "1998:07:04 10:10:10\0": "1998-07-04T10:10:10",
    "1998-07-04T10:10:10.123456+05:30": "1998-07-04T10:10:10",
    "1998-07-04T10:10:10Z": "1998-07-04T10:10:10",
    "1998/07/04 10:10:10": "1998-07-04T10:10:10",
    "1998.07.04 10:10:10": "1998-07-04T10:10:10",
    "1998/7/4": "1998-07-04",
    "1998: 7: 4 10:10:10": "1998-07-04T10:10:10",
    "199807041010": "1998-07-04T10:10",
    "19980704T101010": "1998-07-04T10:10:10",
    "D:19980704": "1998-07-04",
    "1998:07:04 24:00:00": "1998-07-04",
    "1998:07:04 10:61:10": "1998-07-04",
    "1998:07:04 10:10:70": "1998-07-04T10:10",
    "1998:07:04   :  :  ": "1998-07-04",
    "1998:07:04 10:  :  ": "1998-07-04",
    "1998:13:04 10:10:10": "1998",
    "1999:02:29 10:10:10": "1999-02",
    "2000:02:30 10:10:10": "2000-02",
    "1998:07:04 00:00:00": "1998-07-04",
    "1998:07:04 12:00:00 AM": "1998-07-04",
    "1998:07:04 12:10:10 PM": "1998-07-04T12:10:10",
    "1998:07:04 3:10:10 pm": "1998-07-04T15:10:10",
    "1998:07:04 3:10:10 a. m.": "1998-07-04T03:10:10",
    "1998:07:04 午後3:10:10": "1998-07-04T15:10:10",
    "1998:07:04 오전 3:10:10": "1998-07-04T03:10:10",
    "1998:07:04 3:10:10 μ.μ.": "1998-07-04T15:10:10",
    "1998년 7월 4일 오후 3:10:10": "1998-07-04T15:10:10",
    "１９９８：０７：０４ １０：１０：１０": "1998-07-04T10:10:10",
    "13/07/1998 10:10:10": "1998-07-13T10:10:10",
    "07/13/1998 10:10:10": "1998-07-13T10:10:10",
    "12.07.1998, 10:10:10": "1998-07-12T10:10:10",
    "07-12-1998": "1998",
    "Jul 4, 1998, 3:10:10\u202fPM UTC": "1998-07-04T15:10:10",
    "4 juil. 1998, 10:10:10 UTC": "1998-07-04T10:10:10",
    "4 de jul. de 1998 10:10:10 UTC": "1998-07-04T10:10:10",
    "4 июл. 1998 г., 10:10:10 UTC": "1998-07-04T10:10:10",
    "04.07.1998, 10:10:10 UTC": "1998-07-04T10:10:10",
    "1998/07/04 10:10:10 UTC": "1998-07-04T10:10:10",
    "4 lipca 1998, 10:10:10 UTC": "1998-07-04T10:10:10",
    "4 temmuz 1998": "1998-07-04",
    "Saturday, 4 July 1998 10:10:10": "1998-07-04T10:10:10",
    "July 1998": "1998-07",
    "4 listopad 1998": "",  # November in Poland, October in Croatia
    "0000:00:00 00:00:00": "", "    :  :     :  :  ": "", "\xff" * 19: "", "?": "", "10:10:10": "",
    "1825:07:04 10:10:10": "", "1826:07:04 10:10:10": "1826-07-04T10:10:10", "9999:12:31": "",
    "2026:11:27 23:59:59": "2026-11-27T23:59:59", "2026:11:28 00:00:01": "", "1e400": "", "98": "",
    "1899-12-30T00:00:00": "", "1903:12:31 16:00:00": "", "1969:12:31 19:00:00": "",
    "1970:01:02 02:00:01": "1970-01-02T02:00:01", "1980:01:01 00:03:10": "",
    "1980:01:05 16:00:00": "",
    "2001-01-01T01:00:00+01:00": "", "2001:01:01 00:05:00": "2001-01-01T00:05:00",
    "2001:01:01": "2001-01-01", "2002:12:08 12:01:00": "2002-12-08T12:01:00", "1970": "1970",
    "1904": "1904", "2036:02:07 06:28:16": "",
}  # fmt: skip
TABLE = [
    *(("name", name, expected) for name, expected in NAMES.items()),
    *(("name", name, "") for name in NO_DATE_NAMES),
    *(("folder", path, expected) for path, expected in FOLDERS.items()),
    *(("exif_original", text, expected) for text, expected in VALUES.items()),
    ("gps", "2019:04:07 00:00:00", ""),
    ("gps", "2019:04:07 0/1 0/1 1/1", "2019-04-07T00:00:01"),
    ("gps", "2019:04:07 8/0 1/1 1/1", "2019-04-07"),
    ("gps", "2019:04:07", "2019-04-07"),
    ("iptc", "19980704 101010-0500", "1998-07-04T10:10:10"),
    ("iptc", "1998-07-04", "1998-07-04"),
    ("takeout", '{"photoTakenTime": {"timestamp": "-14182940"}}', "1969-07-20T20:17:40"),
    ("takeout", '{"photoTakenTime": {"timestamp": ""}}', ""),
    ("takeout", '{"photoTakenTime": {"timestamp": "1e999"}}', ""),
    ("takeout", '{"photoTakenTime": []}', ""),
    ("takeout", "899547010", "1998-07-04T10:10:10"),
    ("takeout", "[[[", ""),
    ("elsewhere", "1998:07:04", ""),
]  # fmt: skip


FOLDERS_BELOW_A_YEAR = {
    "2019/07-04": "2019-07-04", "2019/07_04 Party": "2019-07-04", "2019/0704": "2019-07-04",
    "2019/04.07. Ausflug": "2019-07-04", "2019/07-31": "2019-07-31", "2019/31.12": "2019-12-31",
    "2019/01-03": "2019", "2019/10-12 Klasse": "2019", "2019/1234": "2019", "2019/0001": "2019",
    "2019/07-04 bis 07-10": "2019-07", "2019/0704-0710": "2019", "2019/101_0704": "2019",
}  # fmt: skip


@pytest.mark.parametrize("path", FOLDERS_BELOW_A_YEAR)
def test_month_and_day_of_a_folder_below_a_year(path) -> None:
    assert names.when_in_folder(path).text() == FOLDERS_BELOW_A_YEAR[path]


@pytest.mark.parametrize("name", ["WhatsApp-Image-2019-07-04-at-10.10.10.jpeg",
                                  "Facetune_31-12-2019-10-10-10.jpg"])  # fmt: skip
def test_what_stands_around_a_date_is_no_part_of_it(name) -> None:
    assert told(("name", name))[1][-9:] == "T10:10:10"


def test_the_long_table() -> None:
    """tests/dates.csv: answers by the rules of docs/dates.md, written down before any was tried."""
    with open(Path(__file__).with_name("dates.csv"), encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) > 1600
    found = [(row, best((row["where"], row["text"]))) for row in rows]
    assert [(row, taken.text()) for row, taken in found if taken.text() != row["expected"]] == []


@pytest.mark.parametrize(("where", "text", "expected"), TABLE)
def test_what_one_statement_tells(where, text, expected) -> None:
    taken = best((where, text))
    assert taken.text() == expected
    assert (taken.precision == "none") is (not expected)


def test_our_own_table_is_as_long_as_the_one_kept_back() -> None:
    assert len(TABLE) >= 162


US, OURS = "12-25-2013 a.jpg", "Photo 25-07-2013, 10 10 10.jpg"


@pytest.mark.parametrize(
    ("name", "beside", "expected"),
    [
        ("Photo 04-07-2013, 10 10 10.jpg", [], "2013"),
        ("Photo 04-07-2013, 10 10 10.jpg", [OURS], "2013-07-04T10:10:10"),
        ("Photo 04-07-2013, 10 10 10.jpg", [OURS, "Photo 07-25-2013, 10 10 10.jpg"], "2013"),
        ("Photo 04-07-2013, 10 10 10.jpg", [US], "2013"),  # another pattern
        ("04-07-2013 b.jpg", [US], "2013-04-07"),
        ("04_07_2013 b.jpg", [US], "2013"),
        ("04.07.2013 b.jpg", [US], "2013-07-04"),
        ("04072013_101010.jpg", ["25122013_101010.jpg"], "2013-07-04T10:10:10"),
        ("20111112.jpg", ["12252011.jpg"], "2011-11-12"),
        ("IMG_12 04-07-2013.jpg", ["IMG_9 25-07-2013.jpg"], "2013-07-04"),
        ("01-04-07-2013.jpg", ["25-07-2013.jpg"], "2013"),
        ("photo_1@04-07-2013_10-10-10.jpg", ["photo_2@07-25-2013_1.jpg"], "2013-07-04T10:10:10"),
        ("04-07-2013.jpg", ["07-07-2013.jpg", "05-06-2013.jpg"], "2013"),  # nobody decides
    ],
)
def test_names_beside_it_tell_which_of_day_and_month_comes_first(name, beside, expected) -> None:
    name = names.settled(name, names.orders_of([*beside, name]))
    assert told(("name", name))[1] == expected


@pytest.mark.parametrize(
    ("names_there", "years"),
    [
        (["USA_2003.JPG", "ROM_2001.JPG", "XMAS2004.JPG"], True),
        (["ROM2003.JPG", "USA_2003.JPG", "IMG_2004.JPG"], True),
        (["Italy2003.jpg", "Christmas1998.jpg"], True),
        (["USA_2003.JPG"], False),  # Nikons take three letters of their owner's
        (["USA_2003.JPG", "USA_2004.JPG"], False),
        (["USA_2003.JPG", "ROM_2001.JPG", "ROM_0412.JPG"], False),
        (["SANY2001.JPG", "DSCF1998.JPG", "USA_2003.JPG"], False),
        (["XMAS99.JPG", "ROM01.JPG"], False),
    ],
)
def test_words_with_years_in_capitals_are_told_by_each_other(names_there, years) -> None:
    folders = dating.labelled_in(f"/a/{name}" for name in names_there)
    assert folders == ({"/a"} if years else set())
    for name in names_there if years else []:
        word, number = names.labelled(name) or ("", "")
        assert told(("name", names.with_year(name))) == (("name", number) if word else ("none", ""))
        assert told(("name", name)) == ("none", "")


@pytest.mark.parametrize(
    ("where", "text", "offset"),
    [
        ("exif_original", "1998:07:04 10:10:10+05:30", 330),
        ("exif_original", "1998:07:04 10:10:10 -0800", -480),
        ("exif_original", "1998:07:04 10:10:10Z", 0),
        ("exif_original", "1998:07:04 10:10:10+25:99", None),
        ("exif_original", "1998:07:04 10:10:10", None),
        ("xmp_original", "D:19980704101010+02'00'", 120),
        ("png_text", "Sat, 04 Jul 1998 10:10:10 GMT", 0),
        ("name", "Bebop2_20180719194940+0200.jpg", 120),
        ("name", "PXL_20220909_154515546.jpg", 0),
        ("takeout", "899547010", 0),
    ],
)  # fmt: skip
def test_the_zone_stands_beside_the_wall_clock(where, text, offset) -> None:
    assert best((where, text)).offset == offset


# ---------------------------------------------------------------------------- which counts

EXIF, LATER = ("exif_original", "1998:07:04 10:10:10"), ("exif_modify", "2023:03:01 10:00:00")
NAME = ("name", "IMG_20190512_142312.jpg")


@pytest.mark.parametrize(
    ("said", "kind", "expected"),
    [
        ([EXIF, LATER, NAME], "exif_original", "1998-07-04T10:10:10"),
        ([LATER, NAME], "name", "2019-05-12T14:23:12"),
        ([LATER], "exif_modify", "2023-03-01T10:00:00"),
        ([("dates", "1997"), EXIF, NAME], "dates", "1997"),
        ([("dates", "1998"), EXIF], "exif_original", "1998-07-04T10:10:10"),
        ([("dates", "1970-01-01"), EXIF], "dates", "1970-01-01"),
        ([("sidecar_original", "1995-05-05T05:05"), EXIF], "sidecar_original", "1995-05-05T05:05"),
        ([("exif_original", "1970:01:01 01:00:00"), ("takeout", "899547010")], "takeout",
         "1998-07-04T10:10:10"),
        ([("exif_original", "2048:01:01 01:00:00"), NAME], "name", "2019-05-12T14:23:12"),
        ([("exif_digitized", "2023:03:01 10:00:00"), ("name", "1998-07-04 Italy 12.jpg")], "name",
         "1998-07-04"),
        ([("exif_digitized", "2023:03:01 10:00:00")], "scan", "2023-03-01T10:00:00"),
        ([("name", "Scan_20230301.jpg"), ("folder", "1998 Italien")], "folder", "1998"),
        ([("name", "Scan_20230301.jpg")], "scan", "2023-03-01"),
        ([("folder", "1998"), ("name", "IMG_1234.jpg")], "folder", "1998"),
        ([("exif_original", "1998"), ("name", "1998-07-04.jpg")], "name", "1998-07-04"),
        ([("exif_original", "1998"), ("name", "1999-07-04.jpg")], "exif_original", "1998"),
        ([("exif_original", "1998"), ("exif_modify", "1998:12:24")], "exif_original", "1998"),
        ([("exif_original", "2019:05:12 00:00:00"), NAME], "name", "2019-05-12T14:23:12"),
        ([("folder", "2019"), ("name", "2019-05 Rom.jpg"), ("iptc", "2019")], "name", "2019-05"),
        ([("file_time", "2020-01-01T10:00:00")], "file_time", "2020-01-01T10:00:00"),
    ],
)  # fmt: skip
def test_the_best_rank_counts(said, kind, expected) -> None:
    assert told(*said) == (kind, expected)
    assert told(*reversed(said)) == (kind, expected)


def test_a_camera_has_digitized_what_it_took() -> None:
    said = ("exif_digitized", "2015:03:01 10:00:00"), ("folder", "2014")
    assert told(*said, camera=CANON) == ("exif_digitized", "2015-03-01T10:00:00")
    assert told(*said, camera=Camera("EPSON", "Perfection V600")) == ("folder", "2014")


@pytest.mark.parametrize(
    "camera",
    [Camera("EPSON", "Perfection V600"), Camera("", "", "VueScan 9 x64"),
     Camera("Canon", "CanoScan 9000F"), Camera("Nikon", "LS-5000", "SilverFast 8"),
     Camera("HP", "HP ScanJet 4850")],
)  # fmt: skip
def test_a_scanner_tells_when_it_scanned(camera) -> None:
    said = [("exif_original", "2015:03:01 10:00:00"), ("exif_digitized", "2015:03:01 10:00:00")]
    assert told(*said, camera=camera)[0] == "scan"
    by_hand = ("exif_original", "1998:07:04 10:00:00"), said[1]
    assert told(*by_hand, camera=camera) == ("exif_original", "1998-07-04T10:00:00")


@pytest.mark.parametrize("name", ["CCI14032021_0001.jpg", "img20210314_15092612.jpg",
                                  "img20210314_15092612_0001.jpg", "HPSCAN_20210314.jpg",
                                  "Adobe Scan 14 Mar 2021 (2).jpg"])  # fmt: skip
def test_names_that_scanners_write_tell_when_it_was_scanned(name) -> None:
    assert told(("name", name))[0] == "scan"
    assert told(("name", name.replace("CCI", "").replace("HPSCAN", "A"))) != ("none", "")


def test_a_name_of_the_day_a_scanner_told_is_of_that_day() -> None:
    said = [("exif_digitized", "2021:03:14 15:09:20"), ("name", "2021-03-14 0007.jpg")]
    epson = capture_time.Camera("EPSON", "Perfection V600")
    assert best(*said, camera=epson).kind == "scan"
    assert best(*said, ("folder", "1968"), camera=epson).text() == "1968"
    assert best(said[0], ("name", "1968-07 0007.jpg"), camera=epson).text() == "1968-07"
    assert best(*said, camera=CANON).kind == "exif_digitized"


def test_utc_becomes_the_clock_of_the_place_where_another_statement_tells_it() -> None:
    taken = best(("takeout", "1562227810"), ("name", "IMG_20190704_101010.jpg"))  # 08:10:10 UTC
    assert (taken.kind, taken.text(), taken.offset) == ("takeout", "2019-07-04T10:10:10", 120)
    taken = best(("exif_original", "2019:07:04 10:10:10"), ("gps", "2019:07:04 04:41:00"))
    assert (taken.text(), taken.offset) == ("2019-07-04T10:10:10", 330)
    taken = best(("exif_original", "2019:07:04 10:10:10"), ("gps", "2019:06:01 08:10:10"))
    assert taken.offset is None  # a fix of another day


# ---------------------------------------------------------------------------- clocks never set


@pytest.mark.parametrize(
    "text", ["2008:01:01 00:00:00", "1978:01:01 04:05:06", "2007-01-01T00:00:00"]
)
def test_a_camera_that_lost_its_clock_tells_nothing(text) -> None:
    assert told(("exif_original", text), camera=CANON) == ("none", "")
    assert told(("exif_original", text), ("folder", "2011"), camera=CANON) == ("folder", "2011")
    assert best(
        ("exif_original", text), ("name", f"IMG_{text[:4]}0101_000000.jpg"), camera=CANON
    ).is_known
    assert best(("exif_original", text)).is_known, "dated by hand"
    assert best(("exif_original", text), camera=Camera("Apple", "iPhone 7")).is_known


def test_days_on_which_a_clock_was_not_set() -> None:
    first, eve = date(2008, 1, 1), date(2007, 12, 31)
    assert capture_time.reset_days([("a", first)] * 5) == {"a": {first}}
    assert capture_time.reset_days([("a", first)] * 4) == {}
    for used in (eve, date(2007, 12, 2)):
        assert capture_time.reset_days([("a", first)] * 5 + [("a", used)]) == {}
    assert capture_time.reset_days([("a", first)] * 5 + [("a", date(2007, 12, 1))]) == {
        "a": {first}
    }
    assert capture_time.reset_days([("a", first), ("a", date(2009, 6, 1))]) == {"a": {first}}
    assert capture_time.reset_days([("a", first), ("b", date(2009, 6, 1))]) == {}
    said = ("exif_original", "2008:01:01 02:03:04")
    assert best(said, camera=CANON).is_known
    assert not best(said, camera=CANON, not_these=[first]).is_known


# ---------------------------------------------------------------------------- properties


@settings(deadline=None, max_examples=400)
@given(st.lists(st.tuples(WHERE_FROM, st.text() | st.binary().map(os.fsdecode)), max_size=4),
       st.text(), st.text())  # fmt: skip
def test_any_text_gives_a_date_or_none(said, make, software) -> None:
    taken = best(*said, camera=Camera(make, "", software))
    assert taken.is_known is bool(taken.text())
    assert taken.kind in (*capture_time.RANKS, "none")


DIGITS = st.text("0123456789:-/. TZ+年月日APMpm上午", max_size=24)


@settings(deadline=None, max_examples=600)
@given(WHERE_FROM, DIGITS)
def test_what_looks_like_a_date_never_raises_and_is_plausible(where, text) -> None:
    taken = best((where, text))
    if taken.is_known:
        assert as_seconds("1826-01-01") <= taken.seconds < as_seconds("2026-11-28")


MOMENTS = st.datetimes(datetime(1990, 1, 2), datetime(2026, 11, 20)).map(
    lambda when: when.replace(microsecond=0)
)
SPELLINGS = [
    "IMG_%Y%m%d_%H%M%S.jpg", "%Y-%m-%d %H.%M.%S.jpg", "Screenshot_%Y-%m-%d-%H-%M-%S.png",
    "%Y%m%d%H%M%S.jpg", "WIN_%Y%m%d_%H_%M_%S_Pro.jpg", "%d.%m.%Y, %H %M %S.jpg",
    "signal-%Y-%m-%d-%H-%M-%S-718-2.jpg", "PXL_%Y%m%d_%H%M%S123.jpg", "%Y-%m-%dT%H%M%S.png",
    "photo_7@%d-%m-%Y_%H-%M-%S.jpg", "Schermata %Y-%m-%d alle %H.%M.%S.png",
    "Screen Shot %Y-%m-%d at %I.%M.%S %p.png", "C360_%Y-%m-%d-%H-%M-%S-123.jpg",
]  # fmt: skip
WRITTEN = ["%Y:%m:%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S+02:00", "%Y:%m:%d %I:%M:%S %p",
           "%a %b %d %H:%M:%S %Y", "%a, %d %b %Y %H:%M:%S +0200", "%d.%m.%Y %H:%M:%S",
           "%Y%m%d%H%M%S", "%B %d, %Y %I:%M:%S %p",
           "%Y年%m月%d日 %H:%M:%S"]  # fmt: skip


@settings(deadline=None)
@given(
    MOMENTS,
    st.sampled_from([("name", s) for s in SPELLINGS] + [("exif_original", s) for s in WRITTEN]),
)
def test_every_second_is_read_back(when, spelling) -> None:
    where, form = spelling
    known = when.isoformat() if when.time() != datetime.min.time() else f"{when:%Y-%m-%d}"
    taken = best((where, when.strftime(form)))
    if capture_time.is_zero(where, capture_time.said(Statement(where, when.strftime(form)))):
        assert not taken.is_known
    else:
        assert taken.text() == known


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(list(capture_time.RANKS)), MOMENTS), min_size=1, max_size=5)
)
@example([("exif_original", datetime(1994, 1, 1))])
def test_a_better_rank_is_never_overruled_by_a_lower_one(said) -> None:
    said = [(where, when.replace(hour=12, minute=1, day=max(when.day, 2)).isoformat())
            for where, when in said  # on no day and at no moment of clocks that were reset
            if where not in ("takeout", "name", "folder")]  # fmt: skip
    taken = best(*said, camera=CANON)
    if said:
        first = min(capture_time.RANK[where] for where, _ in said)
        assert capture_time.RANK[taken.kind] == first


# ---------------------------------------------------------------------------- inside photos

EXPECTED = {  # ../shared/data/reports/dates: date, kind
    "1998-07-04 Italy 12.jpg": ("1998-07-04", "name"),
    "IMG_19980704_101010.jpg": ("1998-07-04T10:10:10", "name"),
    "blank_20190512.jpg": ("2019-05-12", "name"),
    "cjk.jpg": ("2019-05-12", "exif_original"),  # its mark of the half of the day is lost: ??
    "colon-T.jpg": ("2019-05-12T14:23:12", "exif_original"),
    "date-only.jpg": ("2019-05-12", "exif_original"),
    "dos_20190512.jpg": ("2019-05-12", "name"),
    "epoch-1h.jpg": ("", "none"),
    "ff_20190512.jpg": ("2019-05-12", "name"),
    "fut9_20190512.jpg": ("2019-05-12", "name"),
    "gps-only.jpg": ("2019-05-12T14:23:12", "gps"),
    "heic-exif.heic": ("2019-03-21T11:04:22", "exif_original"),
    "iptc-only.jpg": ("1998-07-04", "iptc"),
    "iso-T-zone.jpg": ("2019-05-12T14:23:12", "exif_original"),
    "iso-dash.jpg": ("2019-05-12T14:23:12", "exif_original"),
    "lightroom-scan.jpg": ("1998-07-04T10:10:10", "exif_original"),
    "month-only.jpg": ("1987-06", "exif_original"),
    "no-seconds.jpg": ("2019-05-12T14:23", "exif_original"),
    "offset-bad-zone.jpg": ("2019-05-12T14:23:12", "exif_original"),
    "offset-in-value.jpg": ("2019-05-12T14:23:12", "exif_original"),
    "plain.jpg": ("2019-05-12T14:23:12", "exif_original"),
    "pm.jpg": ("2019-05-12T14:23:12", "exif_original"),
    "png-exif.png": ("1998-07-04T10:10:10", "exif_original"),
    "png-xmp.png": ("1998-07-04T10:10:10", "xmp_original"),
    "samsung-digitized.jpg": ("2020-03-16T12:50:49", "exif_original"),
    "sec70-pillow.jpg": ("2017-08-21T15:08", "exif_modify"),
    "single-digit-pad.jpg": ("2019-05-02T04:03:02", "exif_original"),
    "single-digit.jpg": ("2019-05-02T04:03:02", "exif_original"),
    "spaces-day.jpg": ("1987-06", "exif_original"),
    "subsec.jpg": ("2019-05-12T14:23:12", "exif_original"),
    "tiff-exif.tif": ("1998-07-04T10:10:10", "exif_original"),
    "unknown-day.jpg": ("1987-06", "exif_original"),
    "webp-exif.webp": ("1998-07-04T10:10:10", "exif_original"),
    "win_20190512.jpg": ("2019-05-12", "name"),
    "xmp-only.jpg": ("1998-07-04T10:10:10", "xmp_original"),
    "xmp-photoshop-datecreated.jpg": ("1998-07-04", "xmp_photoshop"),
    "y1_20190512.jpg": ("2019-05-12", "name"),
    "year-only.jpg": ("1987", "exif_original"),
}


def test_the_real_files_of_the_reports(shared) -> None:
    folder = shared / "data/reports/dates"
    found = {}
    for path in sorted(folder.iterdir()):
        photo = sf.read_photo(str(path))
        found[path.name] = photo.when.text(), photo.when.kind
        assert dates_in_photos.dates_in_file(str(path)) == photo.dates
    assert found == EXPECTED


XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" {}>{}
</rdf:Description></rdf:RDF></x:xmpmeta>"""
AS_ATTRIBUTE = XMP.format('exif:DateTimeOriginal="1998-07-04T10:10:10+02:00"', "")
AS_ELEMENT = XMP.format(
    "", "<exif:DateTimeOriginal>1998-07-04T10:10:10+02:00</exif:DateTimeOriginal>"
)


def made(path: Path, **how) -> Path:
    Image.new("RGB", (32, 24), (90, 120, 40)).save(path, **how)
    return path


def inside(path: Path) -> dict[str, str]:
    return json.loads(dates_in_photos.dates_in_file(str(path)))


@pytest.mark.parametrize("packet", [AS_ATTRIBUTE, AS_ELEMENT], ids=["attribute", "element"])
@pytest.mark.parametrize("ending", ["jpg", "webp", "avif", "heic", "tif", "png"])
def test_xmp_of_every_format(tmp_path, ending, packet) -> None:
    sf.register_heif()
    how = {"xmp": packet.encode()}
    if ending == "tif":
        how = {"tiffinfo": {700: packet.encode()}}
    if ending == "png":
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", packet)
        how = {"pnginfo": text}
    path = made(tmp_path / f"a.{ending}", **how)
    assert inside(path) == {"xmp_original": "1998-07-04T10:10:10+02:00"}


def box(kind: bytes, data: bytes, long: bool = False) -> bytes:
    """A box of ISO/IEC 15444-1, I.4; long: with its length in eight bytes."""
    size = struct.pack(">Q", len(data) + 16) if long else b""
    return struct.pack(">I4s", 1 if long else len(data) + 8, kind) + size + data


def exif_of(text: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = text
    return exif.tobytes().removeprefix(b"Exif\0\0")


TAIL = bytes(1 << 17)  # pixels that lie before what is told
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


@pytest.mark.parametrize("long", [False, True])
def test_what_boxes_of_jpeg_2000_and_jpeg_xl_tell(tmp_path, long) -> None:
    told = {"exif_original": "1997:07:04", "xmp_original": "1998-07-04T10:10:10+02:00"}
    path = made(tmp_path / "a.jp2")
    boxes = box(b"free", TAIL), box(b"uuid", b"JpgTiffExif->JP2" + exif_of("1997:07:04"), long)
    last = box(b"uuid", XMP_UUID + AS_ELEMENT.encode(), long)
    whole = path.read_bytes()
    at = whole.index(b"jp2c") - 4  # the picture, which may reach to the end of the file
    path.write_bytes(whole[:at] + b"".join(boxes) + last + whole[at:])
    assert inside(path) == told
    pylibjxl = pytest.importorskip("pylibjxl")
    pixels = pylibjxl.encode(np.zeros((24, 32, 3), np.uint8))
    parts = box(b"JXL ", b"\r\n\x87\n"), box(b"ftyp", b"jxl \0\0\0\0jxl "), box(b"jxlc", pixels)
    exif, xmp = b"\0\0\0\0" + exif_of("1997:07:04"), AS_ELEMENT.encode()
    path = tmp_path / "a.jxl"
    path.write_bytes(
        b"".join(parts) + boxes[0] + box(b"Exif", exif, long) + box(b"xml ", xmp, long)
    )
    assert inside(path) == told
    assert sf.companion("sources_regions").packets_of(str(path)) == [xmp]


def test_xmp_of_a_gif(tmp_path) -> None:
    path = made(tmp_path / "a.gif")
    whole = path.read_bytes()
    added = (
        b"!\xff\x0bXMP DataXMP" + AS_ELEMENT.encode() + b"\1" + bytes(range(255, -1, -1)) + b"\0\0"
    )
    at = whole.index(b",", 13 + 3 * (2 << (whole[10] & 7)) * (whole[10] >> 7))
    path.write_bytes(whole[:at] + added + whole[at:])
    assert inside(path) == {"xmp_original": "1998-07-04T10:10:10+02:00"}
    assert sf.companion("sources_regions").packets_of(str(path)) == [AS_ELEMENT.encode()]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (b"tEXt", b"Creation Time\0" + b"4 Jul 1998 10:10", {"png_text": "4 Jul 1998 10:10"}),
        (b"zTXt", b"Creation Time\0\0" + zlib.compress(b"1998:07:04"), {"png_text": "1998:07:04"}),
        (b"iTXt", b"Creation Time\0\1\0de\0Zeit\0" + zlib.compress("1998年7月4日".encode()),
         {"png_text": "1998年7月4日"}),
        (b"tIME", struct.pack(">H5B", 2021, 2, 3, 4, 5, 6), {"png_modify": "2021:02:03 04:05:06"}),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + AS_ELEMENT.encode(),
         {"xmp_original": "1998-07-04T10:10:10+02:00"}),
        (b"zTXt", b"Creation Time\0\0damaged", {}), (b"iTXt", b"Creation Time", {}),
        (b"tEXt", b"Comment\0" + b"1998:07:04", {}), (b"tIME", b"\0", {}),
    ],
)  # fmt: skip
def test_texts_behind_the_pixels_of_a_png(tmp_path, kind, data, expected) -> None:
    path = made(tmp_path / "a.png")
    whole = path.read_bytes()
    path.write_bytes(whole[:-12] + chunk(kind, data) + whole[-12:])
    assert inside(path) == expected
    assert sf.read_photo(str(path)).dates == dates_in_photos.dates_in_file(str(path))


def test_camera_gps_and_zone_of_exif(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0132] = "Canon", "EOS", "2019:07:04 12:10:10"
    exif.get_ifd(0x8769).update({0x9003: "2019:07:04 12:10:10", 0x9011: "+02:00"})
    exif.get_ifd(0x8825).update({29: "2019:07:04", 7: (10.0, 10.0, 9.0)})
    assert inside(made(tmp_path / "a.jpg", exif=exif)) == {
        "camera": ["Canon", "EOS", ""],
        "exif_original": "2019:07:04 12:10:10+02:00",
        "gps": "2019:07:04 10:10:09",
    }


def test_a_gps_time_of_which_a_field_is_no_number_keeps_the_others(tmp_path) -> None:
    from PIL.TiffImagePlugin import IFDRational

    for clock, expected in (((8, 10, IFDRational(0, 0)), "1998-07-04T08:10"), ((), "1998-07-04")):
        exif = Image.Exif()
        exif.get_ifd(0x8825).update({29: "1998:07:04", **({7: clock} if clock else {})})
        dates = inside(made(tmp_path / "a.jpg", exif=exif))
        assert told(("gps", dates["gps"])) == ("gps", expected)


def test_a_chinese_phone_writes_its_marks_in_its_own_encoding(tmp_path) -> None:
    for encoding in ("utf-8", "gb18030"):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = "2019:05:12 下午02:23:12".encode(encoding)
        photo = sf.read_photo(str(made(tmp_path / f"{encoding}.jpg", exif=exif)))
        assert photo.when.text() == "2019-05-12T14:23:12"


def test_a_packet_that_could_explode_is_left_alone() -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "1998-07-04">]>' + AS_ELEMENT.replace(
        "1998-07-04T10:10:10", "&b;"
    )
    with pytest.raises(ValueError, match="document type"):
        dates_in_photos.packet_dates(bomb.encode())


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow
@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400), st.sampled_from(["jpg", "png", "webp", "tif"]))
def test_damage_in_a_header_costs_no_photo(tmp_path_factory, noise, ending) -> None:
    path = tmp_path_factory.getbasetemp() / f"noise.{ending}"
    if not path.exists():
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = "2019:07:04 12:10:10"
        made(path, exif=exif)
    whole = bytearray(path.read_bytes())
    at = 20 + len(noise) % max(1, len(whole) - 20)
    whole[at : at + len(noise)] = noise[: len(whole) - at]
    header = None
    try:
        header = sf.open_with_pillow(bytes(whole))
    except sf.PhotoError:
        return
    import io

    assert isinstance(json.loads(dates_in_photos.dates_of(header, io.BytesIO(whole))), dict)


@settings(deadline=None)
@given(st.lists(st.tuples(WHERE_FROM, st.text()), max_size=9), st.text(), st.text(), st.text())
def test_what_is_stored_is_short_ascii_and_read_back(said, make, model, software) -> None:
    text = capture_time.stored([Statement(*one) for one in said], Camera(make, model, software))
    assert text.isascii() and len(text) <= capture_time.LONGEST_WHOLE
    statements, _ = capture_time.restored(text)
    assert {one.where for one in statements} <= {where for where, _ in said}


def test_a_camera_with_long_names_leaves_room_for_the_dates() -> None:
    chinese = "佳能数码相机" * 7
    said = [Statement("exif_original", "2021:03:14 15:09:26")]
    statements, camera = capture_time.restored(capture_time.stored(said, Camera(*[chinese] * 3)))
    assert list(statements) == said and camera.takes_photos


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_file_of_dates_in_any_encoding_and_from_home(tmp_path, monkeypatch, encoding) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    text = "path\tdate\n~/Bläk/a.jpg\t1998-07\n~nobody-here/b.jpg\t1999\n"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "t.csv").write_bytes((mark + text).encode(encoding))
    found = dating.read_told(tmp_path / "t.csv", []).by_place()
    assert found[dating.place_of(tmp_path / "Bläk/a.jpg")] == "1998-07" and "1999" in found.values()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_names_of_files_with_odd_line_breaks_are_one_name(tmp_path, end) -> None:
    named = ["a\u2028b.jpg", "c\x85d.jpg", '"e\nf.jpg"', "g\x1ch.jpg"]
    lines = ["path,date", *(f"{name},199{at}" for at, name in enumerate(named))]
    (tmp_path / "t.csv").write_bytes(end.join(lines).encode())
    found = dating.read_told(tmp_path / "t.csv", []).by_place()
    places = [dating.place_of(tmp_path / name.strip('"')) for name in named]
    assert found == {place: f"199{at}" for at, place in enumerate(places)}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "1", '{"camera": 3, "exif_original": []}', "[" * 9000]
)
def test_damaged_dates_of_a_cache_say_nothing(text) -> None:
    assert capture_time.restored(text) == ((), Camera())


# ---------------------------------------------------------------------------- embed


def counts(answer: tuple[int, str, str]) -> dict[str, object]:
    assert answer[0] == 0, answer[2]
    return json.loads(answer[1])


def dated(cache: Path) -> dict[str, tuple[str, str]]:
    """{file name: (kind, date)} of a cache."""
    known = sf.load_cache(cache)
    rows = zip(
        known.file_path,
        known.file_taken,
        known.file_taken_kind,
        known.file_taken_precision,
        strict=True,
    )
    return {
        Path(path).name: (str(kind), capture_time.Taken(float(s), str(kind), str(precision)).text())
        for path, s, kind, precision in rows
    }


@pytest.fixture
def library(shared, tmp_path) -> Path:
    """Four photos of one face each: by EXIF, by name, by folder, by nothing."""
    folder = tmp_path / "photos"
    source = shared / "data/reports"
    for place, name in (
        ("dates/plain.jpg", "exif.jpg"), ("era/1998 summer 18.jpg", "IMG_19980718_101010.jpg"),
        ("era/1998 summer 19.jpg", "2001 Rom/a.jpg"), ("dates/blank_20190512.jpg", "nothing.jpg"),
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / place, folder / name)
    return folder


FOUR = {
    "exif.jpg": ("exif_original", "2019-05-12T14:23:12"),
    "IMG_19980718_101010.jpg": ("name", "1998-07-18T10:10:10"),
    "a.jpg": ("folder", "2001"),
    "nothing.jpg": ("none", ""),
}


def test_embed_dates_by_all_a_photo_has(run, library, mini, tmp_path, monkeypatch) -> None:
    cache = tmp_path / "lib.npz"
    embed = "embed", library, cache, "--model", mini, "--json"
    counts(run(*embed))
    assert dated(cache) == FOUR
    before = cache.read_bytes()
    monkeypatch.setattr(sf, "decode_photo", lambda *_: pytest.fail("decoded"))
    counts(run(*embed))
    assert cache.read_bytes() == before, "nothing changed, nothing is written"
    answer = counts(run("status", cache, "--json"))
    assert answer["dated_by"] == {"exif_original": 1, "name": 1, "folder": 1, "none": 1}
    assert answer["dated_to"] == {"second": 2, "year": 1}
    # a new name counts, without a look at the photo
    (library / "nothing.jpg").rename(library / "2003-05-06 Zoo.jpg")
    counts(run(*embed))
    assert dated(cache)["2003-05-06 Zoo.jpg"] == ("name", "2003-05-06")


def test_the_names_of_a_folder_decide_for_each_other(run, library, mini, tmp_path) -> None:
    """Also those of folders; anew on every run."""
    cache = tmp_path / "lib.npz"
    embed = "embed", library, cache, "--model", mini, "--json"
    (library / "nothing.jpg").rename(library / "04-07-2013 Zoo.jpg")
    (library / "exif.jpg").rename(library / "25-07-2013 Zoo.jpg")
    (library / "2001 Rom").rename(library / "01-02-2001 Rom")
    other = library / "14-02-2001 Rom/b.jpg"
    other.parent.mkdir()
    (library / "IMG_19980718_101010.jpg").rename(other)
    counts(run(*embed))
    found = dated(cache)
    assert found["04-07-2013 Zoo.jpg"] == ("name", "2013-07-04")
    assert found["a.jpg"] == ("folder", "2001-02-01")
    (library / "25-07-2013 Zoo.jpg").rename(library / "07-25-2013 Zoo.jpg")
    shutil.rmtree(other.parent)
    counts(run(*embed, "--prune"))
    found = dated(cache)
    assert found["04-07-2013 Zoo.jpg"] == ("name", "2013-04-07")
    assert found["a.jpg"] == ("folder", "2001")


def test_words_and_years_of_a_folder_decide_for_each_other(run, library, mini, tmp_path) -> None:
    cache = tmp_path / "lib.npz"
    embed = "embed", library, cache, "--model", mini, "--json"
    (library / "nothing.jpg").rename(library / "USA_2003.JPG")
    (library / "exif.jpg").rename(library / "ROM_2001.JPG")
    counts(run(*embed))
    assert dated(cache)["USA_2003.JPG"] == ("name", "2003")
    (library / "ROM_2001.JPG").rename(library / "ROM_0412.JPG")
    counts(run(*embed, "--prune"))
    assert dated(cache)["USA_2003.JPG"] == ("none", "")


def test_a_file_of_dates_overrules_and_costs_a_line_where_it_is_wrong(
    run, library, mini, tmp_path, monkeypatch
) -> None:
    cache, table = tmp_path / "lib.npz", tmp_path / "dates.csv"
    embed = "embed", library, cache, "--model", mini, "--json"
    counts(run(*embed))
    monkeypatch.setattr(sf, "decode_photo", lambda *_: pytest.fail("decoded"))
    table.write_text(
        "path,date\nphotos/exif.jpg,1997-03\nnothing.jpg,4. Juli 1998\n"
        f"{library}/2001 Rom/a.jpg,2001-05-06T07:08:09\nexif2.jpg\nexif.jpg,never\n"
        'IMG_19980718_101010.jpg,2099-01-01\n\n"gone.jpg",1999\n', encoding="utf-8-sig",
    )  # fmt: skip
    answer = run(*embed, "--dates", table)
    counts(answer)
    assert [
        line.split("dates.csv: ")[1] for line in answer[2].splitlines() if "dates.csv" in line
    ] == [
        "line 5: no path and date; passed over",
        "line 6: 'never' is no date that can be; passed over",
        "line 7: '2099-01-01' is no date that can be; passed over",
        f"1 of its paths are no photos known here: {tmp_path}/gone.jpg",
    ]
    by_file = {
        **FOUR,
        "exif.jpg": ("dates", "1997-03"),
        "nothing.jpg": ("dates", "1998-07-04"),
        "a.jpg": ("dates", "2001-05-06T07:08:09"),
    }
    assert dated(cache) == by_file
    counts(run(*embed))
    assert dated(cache) == by_file, "what was said stays"
    table.write_text("")
    counts(run(*embed, "--dates", table))
    assert dated(cache) == FOUR, "until another FILE says otherwise"
    code, _, err = run(*embed, "--dates", tmp_path / "no.csv")
    assert code == 2 and "no.csv" in err and len(err.splitlines()) == 1


def older(cache: Path, **columns: np.ndarray) -> None:
    """Make it a cache as versions wrote it that did not tell how a photo was dated."""
    with np.load(cache) as archive:
        arrays = {name: archive[name] for name in archive.files if name not in sf.TEXT_COLUMNS}
    np.savez(cache, **{**arrays, **columns})


def test_redate_reads_dates_of_an_older_cache_without_looking_for_faces(
    run, library, mini, tmp_path, monkeypatch
) -> None:
    cache = tmp_path / "lib.npz"
    embed = "embed", library, cache, "--model", mini, "--json"
    counts(run(*embed))
    wrong = np.where(np.char.find(sf.load_cache(cache).file_path, "exif.jpg") >= 0, 1e9, np.nan)
    older(cache, file_taken=wrong)
    monkeypatch.setattr(sf, "decode_photo", lambda *_: pytest.fail("decoded"))
    assert sf.load_cache(cache).taken.tolist() == pytest.approx(wrong.tolist(), nan_ok=True)
    counts(run(*embed))
    assert dated(cache) == {
        **FOUR,
        "exif.jpg": ("", "2001-09-09T01:46:40"),
        "nothing.jpg": ("", ""),
    }
    assert counts(run(*embed, "--redate"))["redated"] == 4
    assert dated(cache) == FOUR
    assert counts(run(*embed, "--redate"))["redated"] == 0


def test_a_killed_redate_keeps_what_it_read(run, library, mini, tmp_path, monkeypatch) -> None:
    cache = tmp_path / "lib.npz"
    embed = "embed", library, cache, "--model", mini, "--json"
    counts(run(*embed))
    older(cache)
    dating, read = sf.companion("dating"), []

    def read_one(run, paths):
        read.append(paths)
        if len(read) == 3:
            raise KeyboardInterrupt
        return dates_in_photos.dates_in_file(paths[0])

    monkeypatch.setattr(dating, "read_one", read_one)
    assert run(*embed, "--redate", "--threads", "1")[0] == 130
    monkeypatch.undo()
    assert (sf.load_cache(cache).file_dates != b"").sum() == 2
    assert counts(run(*embed, "--redate"))["redated"] == 2
    assert dated(cache) == FOUR


def test_a_clock_that_was_never_set_is_found_over_the_library(run, shared, mini, tmp_path) -> None:
    """Five photos of one camera on one New Year's Day, and others a year later."""
    folder = tmp_path / "photos"
    folder.mkdir()
    face = Image.open(shared / "data/reports/era/DSC00000.jpg")
    days = [f"2008:01:01 0{hour}:11:12" for hour in range(5)] + ["2009:06:07 10:10:10"]
    for number, day in enumerate(days):
        exif = Image.Exif()
        exif[0x010F], exif[0x0110] = "Canon", "Canon EOS 1000D"
        exif.get_ifd(0x8769)[0x9003] = day
        face.resize((320, 320 + number)).save(folder / f"IMG_{number}.jpg", exif=exif)
    cache = tmp_path / "lib.npz"
    counts(run("embed", folder, cache, "--model", mini, "--json"))
    kinds = [kind for kind, _ in sorted(dated(cache).values())]
    assert kinds == ["exif_original"] + ["none"] * 5


def test_sidecars_count_when_they_come_and_when_they_change(
    run, library, mini, tmp_path, monkeypatch
) -> None:
    cache = tmp_path / "lib.npz"
    embed = "embed", library, cache, "--model", mini, "--json"
    counts(run(*embed))
    monkeypatch.setattr(sf, "decode_photo", lambda *_: pytest.fail("decoded"))
    takeout = library / "nothing.jpg.supplemental-metadata.json"
    takeout.write_text(
        json.dumps({"title": "nothing.jpg", "photoTakenTime": {"timestamp": "899547010"}})
    )
    sidecar = library / "exif.jpg.xmp"
    sidecar.write_text(AS_ELEMENT)
    counts(run(*embed))
    assert dated(cache) == {
        **FOUR,
        "nothing.jpg": ("takeout", "1998-07-04T10:10:10"),
        "exif.jpg": ("sidecar_original", "1998-07-04T10:10:10"),
    }
    with open(sidecar, "r+", encoding="utf-8") as stream:  # in place: the folder does not change
        stream.write(AS_ELEMENT.replace("1998-07-04", "1997-07-04"))
    takeout.unlink()
    counts(run(*embed))
    assert dated(cache) == {**FOUR, "exif.jpg": ("sidecar_original", "1997-07-04T10:10:10")}


def test_the_takeout_of_the_reports(run, shared, mini, tmp_path) -> None:
    """An album of 1998: its JSON dates a scan without a date, the XMP inside another one."""
    folder = tmp_path / "takeout"
    shutil.copytree(shared / "data/reports/takeout/lib", folder)
    cache = tmp_path / "lib.npz"
    counts(run("embed", folder, cache, "--model", mini, "--json"))
    found = dated(cache)
    assert found["IMG_3397.JPG"] == ("xmp_original", "1998-07-04T10:10:10")
    assert found["816226709_8639.jpg"][1].startswith("1998-07-04")


# ---------------------------------------------------------------------------- eras


def test_a_summer_is_one_era(run, shared, mini, tmp_path) -> None:
    """../shared/data/reports/era: 20 photos of July 1998 that say 1970, 2023, 2036 as well."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(shared / "data/reports/era", photos)
    loose = ("--min-short", 20, "--min-faces", 5, "--min-blur", 0)
    counts(run("run", photos, out, "--model", mini, *loose, "--json"))
    ready = out / "facesets_swap_ready"
    manifest = json.loads((ready / "faceset_001/manifest.json").read_text())
    assert len(manifest["faces"]) >= 19
    assert {sf.year_of(face["taken"]) for face in manifest["faces"]} == {1998}
    assert {face["taken_kind"] for face in manifest["faces"]} == {"exif_original", "name"}
    assert {face["taken_precision"] for face in manifest["faces"]} == {"second", "year"}
    counts(run("era", "split", ready, "faceset_001", "--json"))
    eras = [path.parent.name for path in ready.glob("faceset_001_*/manifest.json")]
    assert eras == ["faceset_001_1998"]
    eras = [
        json.loads(path.read_text())["era"]["years"]
        for path in ready.rglob("faceset_001_*/manifest.json")
    ]
    assert set(eras) == {"1998"}, "nobody lived in 1970 or 2036"


def test_only_the_time_of_a_change_gives_no_year() -> None:
    face = {"face": "a", "sha256": "b", "quality": 1.0, "file": "faces/000.png", "taken": 1e9}
    assert sf.Face(**face).year == 2001, "of an older version"
    assert sf.Face(**face, taken_kind="name").year == 2001
    for kind in sf.LATER_TIMES:
        assert math.isnan(sf.Face(**face, taken_kind=kind).year)


def test_years_before_1970_are_years() -> None:
    assert sf.year_of((datetime(1924, 6, 15) - datetime(1970, 1, 1)) / timedelta(seconds=1)) == 1924
    assert math.isnan(sf.year_of(1e300)) and math.isnan(sf.year_of(None))


def test_ranks_and_kinds_agree_with_the_page() -> None:
    page = (Path(sf.__file__).parent / "docs/dates.md").read_text(encoding="utf-8")
    listed = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    kinds = [kind for kind in listed if kind in capture_time.RANK]
    assert kinds == list(capture_time.RANKS)
