"""Paths between WSL and Windows: a table both ways, errors, round trips, distribution name."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from windows_paths import from_windows_path

import sort_faces as sf

elsewhere = sf.companion("worker_process")

SHARE = "\\\\wsl.localhost\\Ubuntu"
LONG = "n" * 120  # two of them make a path Windows wants in its long form
EMOJI = "\N{GRINNING FACE}"

BOTH_WAYS = [  # WSL, Windows
    ("/mnt/c", "C:\\"),
    ("/mnt/z", "Z:\\"),
    ("/mnt/e/x", "E:\\x"),
    ("/mnt/e/Photos/2021/IMG_1.JPG", "E:\\Photos\\2021\\IMG_1.JPG"),
    ("/mnt/e/my photos/a b.jpg", "E:\\my photos\\a b.jpg"),
    ("/mnt/e/Müller/Jürgen.jpg", "E:\\Müller\\Jürgen.jpg"),
    ("/mnt/e/Mu\u0308ller.jpg", "E:\\Mu\u0308ller.jpg"),  # decomposed stays decomposed
    (f"/mnt/e/{EMOJI}/{EMOJI}.png", f"E:\\{EMOJI}\\{EMOJI}.png"),
    ("/mnt/e/照片/家庭.jpg", "E:\\照片\\家庭.jpg"),
    ("/mnt/e/фото.jpg", "E:\\фото.jpg"),
    ("/mnt/e/a'b\"c.jpg", "E:\\a'b\uf022c.jpg"),
    ("/mnt/e/10:30.jpg", "E:\\10\uf03a30.jpg"),
    ("/mnt/e/what?.jpg", "E:\\what\uf03f.jpg"),
    ("/mnt/e/*.jpg", "E:\\\uf02a.jpg"),
    ("/mnt/e/<a>|b.jpg", "E:\\\uf03ca\uf03e\uf07cb.jpg"),
    ("/mnt/e/back\\slash.jpg", "E:\\back\uf05cslash.jpg"),
    ("/mnt/e/new\nline.jpg", "E:\\new\uf00aline.jpg"),
    ("/mnt/e/tab\t.jpg", "E:\\tab\uf009.jpg"),
    ("/mnt/e/%20&#!$`^.jpg", "E:\\%20&#!$`^.jpg"),
    ("/mnt/e/.hidden", "E:\\.hidden"),
    ("/mnt/e/a=b;c,d", "E:\\a=b;c,d"),
    ("/mnt/e/C:/x", "E:\\C\uf03a\\x"),
    ("/mnt/e/mnt/c/x", "E:\\mnt\\c\\x"),
    ("/", f"{SHARE}\\"),
    ("/x.jpg", f"{SHARE}\\x.jpg"),
    ("/home/ann", f"{SHARE}\\home\\ann"),
    ("/home/ann/my photos/ü.jpg", f"{SHARE}\\home\\ann\\my photos\\ü.jpg"),
    ("/home/ann/10:30?.jpg", f"{SHARE}\\home\\ann\\10\uf03a30\uf03f.jpg"),
    ("/home/ann/back\\slash", f"{SHARE}\\home\\ann\\back\uf05cslash"),
    (f"/home/照片/{EMOJI}", f"{SHARE}\\home\\照片\\{EMOJI}"),
    ("/mnt", f"{SHARE}\\mnt"),
    ("/mnt/cc", f"{SHARE}\\mnt\\cc"),
    ("/mnt/cc/x", f"{SHARE}\\mnt\\cc\\x"),
    ("/mnt/C/x", f"{SHARE}\\mnt\\C\\x"),  # WSL mounts drives in small letters
    ("/mnt/1/x", f"{SHARE}\\mnt\\1\\x"),
    ("/mnt/ä/x", f"{SHARE}\\mnt\\ä\\x"),
    ("/mnt/wsl/x", f"{SHARE}\\mnt\\wsl\\x"),
    ("/media/mnt/c/x", f"{SHARE}\\media\\mnt\\c\\x"),
    ("/MNT/c/x", f"{SHARE}\\MNT\\c\\x"),
    ("/tmp/UNC/x", f"{SHARE}\\tmp\\UNC\\x"),
    (f"/mnt/e/{LONG}/{LONG}/x.jpg", f"\\\\?\\E:\\{LONG}\\{LONG}\\x.jpg"),
    (f"/home/{LONG}/{LONG}", f"\\\\?\\UNC\\wsl.localhost\\Ubuntu\\home\\{LONG}\\{LONG}"),
    (f"/mnt/e/{LONG}/{LONG}/1:2", f"\\\\?\\E:\\{LONG}\\{LONG}\\1\uf03a2"),
]


@pytest.mark.parametrize(("wsl", "windows"), BOTH_WAYS)
def test_table_both_ways(wsl: str, windows: str) -> None:
    assert elsewhere.to_windows_path(wsl, "Ubuntu") == windows
    assert from_windows_path(windows) == wsl


def test_a_folder_named_like_a_drive_and_a_newline() -> None:
    assert elsewhere.to_windows_path("/mnt/c\n", "Ubuntu") == f"{SHARE}\\mnt\\c\uf00a"


def test_drive_root_with_its_slash() -> None:
    assert elsewhere.to_windows_path("/mnt/c/", "Ubuntu") == "C:\\"


@pytest.mark.parametrize("path", ["", "x", "./x", "../x", "~/x", "C:\\x", "mnt/c/x"])
def test_relative_paths_are_refused(path: str) -> None:
    with pytest.raises(sf.SortFacesError, match="no absolute path"):
        elsewhere.to_windows_path(path, "Ubuntu")


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"\xff", b"\xed\xa0\x80"])
def test_names_that_are_no_unicode_fail_as_photos(name: bytes) -> None:
    for folder in ("/home/", "/mnt/e/"):
        with pytest.raises(sf.PhotoError, match="no UTF-8"):
            elsewhere.to_windows_path(folder + os.fsdecode(name), "Ubuntu")


@pytest.mark.parametrize(("letters", "long"), [(244, False), (245, True)])
def test_long_form_begins_at_248_characters(letters: int, long: bool) -> None:
    path = elsewhere.to_windows_path("/mnt/e/" + "n" * letters, "Ubuntu")
    assert path.startswith("\\\\?\\") is long


def test_long_form_counts_as_windows_does() -> None:
    """Windows counts UTF-16 units: an emoji is two."""
    assert elsewhere.to_windows_path("/mnt/e/" + EMOJI * 130, "Ubuntu").startswith("\\\\?\\")


# Code points the mapping itself lends from the private use area cannot come back as themselves.
NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs", "Co")),
    min_size=1,
    max_size=40,
).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, max_size=12).map(lambda names: "/" + "/".join(names))


@given(PATHS, st.sampled_from(["", "/mnt/c", "/mnt/e", "/mnt/cc", "/mnt"]))
@example("/UNC/wsl$/x", "")
def test_round_trip(path: str, parent: str) -> None:
    path = parent + path if path != "/" else parent or "/"
    there = elsewhere.to_windows_path(path, "Ubuntu")
    assert from_windows_path(there) == path
    body = there.removeprefix("\\\\?\\")
    assert not re.search(r'[<>"|?*/\x01-\x1f]', body)
    assert body.count(":") == bool(re.match(r"[A-Z]:\\", body))


@given(NAMES, NAMES)
def test_different_names_stay_different(one: str, other: str) -> None:
    there = [elsewhere.to_windows_path(f"/mnt/e/{name}", "U") for name in (one, other)]
    assert (there[0] == there[1]) == (one == other)


# --- distribution -----------------------------------------------------------


@pytest.fixture(autouse=True)
def ask_again():
    """The name is asked for once a run."""
    elsewhere.distro_name.cache_clear()
    yield
    elsewhere.distro_name.cache_clear()


def put_wslpath(folder, monkeypatch, script: str) -> None:
    program = folder / "wslpath"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_distribution_from_the_environment(tmp_path, monkeypatch) -> None:
    put_wslpath(tmp_path, monkeypatch, "echo '\\\\wsl.localhost\\Other\\'")
    monkeypatch.setenv("WSL_DISTRO_NAME", "Ubuntu-22.04")
    assert elsewhere.distro_name() == "Ubuntu-22.04"


@pytest.mark.parametrize("share", ["wsl.localhost", "wsl$"])
def test_distribution_from_wslpath(tmp_path, monkeypatch, share: str) -> None:
    monkeypatch.delenv("WSL_DISTRO_NAME", raising=False)
    put_wslpath(tmp_path, monkeypatch, f"printf '%s\\n' '\\\\{share}\\Debian\\'")
    assert elsewhere.distro_name() == "Debian"


@pytest.mark.parametrize("script", [None, "exit 1"])
def test_no_distribution(tmp_path, monkeypatch, script: str | None) -> None:
    monkeypatch.delenv("WSL_DISTRO_NAME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if script:
        put_wslpath(tmp_path, monkeypatch, script)
    with pytest.raises(sf.SortFacesError, match="set WSL_DISTRO_NAME"):
        elsewhere.distro_name()
