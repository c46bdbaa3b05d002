"""Names of placed files, numbers in names."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sort_faces as sf

MARK = r"-[0-9a-f]{8}"


def file_name(data: bytes) -> str:
    """Any bytes as the name of a file or folder: no separator, no NUL, at most 255 bytes."""
    return os.fsdecode(data.replace(b"/", b"").replace(b"\0", b"").strip(b".")[:255] or b"x")


PARTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=255).map(
    lambda text: file_name(text.encode())
) | st.binary(max_size=255).map(file_name)
PATHS = st.builds(
    lambda parts, suffix: "/" + "/".join(parts) + suffix,
    st.lists(PARTS, min_size=1, max_size=6),
    st.sampled_from([*sorted(sf.PHOTO_SUFFIXES), ".JPG", ".Jpeg"]),
)


@contextlib.contextmanager
def at_most(seconds: int):
    """Turn a hang into a failure."""

    def stop(*_) -> None:
        raise TimeoutError(f"no answer after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------------------- safe_dst_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b/c.jpg", "a__b__c.jpg"),
        ("/c.jpg", "c.jpg"),
        ("/home/ann/My Photos/2019_05/IMG 1.JPG", "home__ann__My Photos__2019_05__IMG 1.JPG"),
        ("/фото/旅行/😀.heic", "фото__旅行__😀.heic"),
        ("/a/no suffix", "a__no suffix"),
        ("/a.b/c.d.jpeg", "a.b__c.d.jpeg"),
    ],
)
def test_a_plain_path_is_flattened(path, name) -> None:
    assert sf.safe_dst_name(path) == name


@pytest.mark.parametrize(
    ("path", "like"),
    [
        ("/a__b/c.jpg", "a__b__c{}.jpg"),
        ("/a/b__c.jpg", "a__b__c{}.jpg"),
        ("/a_/b.jpg", "a___b{}.jpg"),
        ("/a/_b.jpg", "a___b{}.jpg"),
        ("/a/what?.jpg", "a__what_{}.jpg"),
        ("/a/10:30 <b>.jpg", "a__10_30 _b_{}.jpg"),
        ("/a/new\nline.jpg", "a__new_line{}.jpg"),
        ("/a/back\\slash.jpg", "a__back_slash{}.jpg"),
        ("/a/caf\udce9.jpg", "a__caf_{}.jpg"),  # Latin-1 bytes, no UTF-8
        ("/a/b.jpg ", "a__b{}.jpg"),
        ("/a/b.", "a__b{}"),
    ],
)
def test_what_flattening_would_lose_is_kept_by_a_mark(path, like) -> None:
    assert re.fullmatch(re.escape(like).replace(r"\{\}", MARK), sf.safe_dst_name(path))


def test_names_stay_the_same_over_runs_and_versions() -> None:
    """A library sorted last year must not be placed anew under other names."""
    assert sf.safe_dst_name("/a__b/c.jpg") == "a__b__c-be4fdb3e.jpg"  # sha256sum of the path
    assert sf.safe_dst_name("/a/caf\udce9.jpg") == "a__caf_-a269b887.jpg"


@pytest.mark.parametrize(("letters", "length"), [("a_/", 8), ("a_/.: ", 5), ("aé\udce9?/", 5)])
def test_different_paths_have_different_names(letters, length) -> None:
    """Every short path of letters that make flattening ambiguous."""
    names: dict[str, str] = {}
    for count in range(1, length + 1):
        for text in map("".join, itertools.product(letters, repeat=count)):
            if {"", ".", ".."}.isdisjoint(text.split("/")):
                path = f"/{text}.jpg"
                assert names.setdefault(sf.safe_dst_name(path), path) == path
    assert len(names) > 1000


@settings(deadline=None)
@given(PATHS, PATHS)
def test_any_two_paths_have_different_names(path, other) -> None:
    assert (sf.safe_dst_name(path) == sf.safe_dst_name(other)) is (path == other)


@settings(deadline=None)
@given(PATHS)
def test_a_name_can_be_stored_on_every_file_system(path) -> None:
    name = sf.safe_dst_name(path)
    assert 0 < len(name.encode("utf-8")) <= 255 - 9  # room for one more mark
    assert not re.search(r'[<>:"/\\|?*\x00-\x1f]', name)
    assert name[-1] not in ". "
    assert os.path.splitext(name)[1] == os.path.splitext(path)[1]


@pytest.mark.parametrize("letter", ["a", "é", "旅", "😀", "\udce9"])
@pytest.mark.parametrize("length", [30, 60, 100, 190, 200, 250])
def test_long_paths_keep_their_end_and_their_suffix(letter, length) -> None:
    paths = [f"/{folder}{letter * length}/end.heic" for folder in "xyz"]
    names = {sf.safe_dst_name(path) for path in paths}
    assert len(names) == 3
    assert all(len(name.encode("utf-8")) <= sf.NAME_LIMIT for name in names)
    assert all(re.fullmatch(rf".+__end({MARK})?\.heic", name) for name in names)


def test_a_name_of_200_bytes_needs_no_mark() -> None:
    assert sf.safe_dst_name("/" + "a" * 196 + ".jpg") == "a" * 196 + ".jpg"
    assert re.fullmatch(rf"a+{MARK}\.jpg", sf.safe_dst_name("/" + "a" * 197 + ".jpg"))


def test_a_suffix_longer_than_the_limit_is_cut_too() -> None:
    path = "/a/Letter to Mr. " + "x" * 230
    with at_most(2):
        name = sf.safe_dst_name(path)
    assert len(name.encode()) <= 255
    assert sf.path_mark(path) in name


@pytest.mark.parametrize(
    "path", [f"/{'a' * 100}.{'b' * 186}.jpg", f"/{'a' * 100} {'b' * 186}.jpg", "/.photos/a.jpg"]
)
def test_a_name_is_neither_hidden_nor_starts_with_a_blank(path) -> None:
    """Hidden files are skipped by viewers, and by our own scan."""
    assert sf.safe_dst_name(path)[0] not in ". "


# ---------------------------------------------------------------------------- numbered


def test_numbers_have_three_digits_and_more_when_needed() -> None:
    names = [sf.numbered("person", number) for number in (1, 42, 999, 1000)]
    assert names == ["person_001", "person_042", "person_999", "person_1000"]


@given(st.lists(PARTS, min_size=2, max_size=5))
@example(["²", "2", "m1²", "m10", "٣", "x"])
def test_names_in_any_script_can_be_put_in_order(names) -> None:
    assert Counter(sorted(names, key=sf.natural)) == Counter(names)


def test_order_counts() -> None:
    names = ["set_10", "set_2", "set_\u0663", "set_1\u00b2", "set"]  # an Arabic 3, a small 2
    ordered = ["set", "set_1\u00b2", "set_2", "set_\u0663", "set_10"]
    assert sorted(names, key=sf.natural) == ordered
