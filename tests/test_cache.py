"""The cache file and its journal: nothing is lost, nothing damaged is believed."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pickle
import random
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_cache
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed

import sort_faces as sf

OLD_META = {  # as version 0.1.0 wrote it
    "schema": 1,
    "model": "synthetic",
    "recognizer": "feed",
    "dim": 2,
    "det_size": 640,
    "det_threshold": 0.5,
    "roots": ["/library"],
}
META = sf.as_record(sf.CacheMeta, OLD_META)
NAMES = [item.name for item in fields(sf.FaceCache)[1:]]
ODD_PATHS = ["/фото/旅行 😀.jpg", "/caf\udce9/\udcff.jpg", "/a/new\nline.jpg", "/a/b.jpg"]


def assert_same(found: sf.FaceCache, expected: sf.FaceCache) -> None:
    for name in NAMES:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
        assert getattr(found, name).dtype.kind == getattr(expected, name).dtype.kind
    assert found.meta == expected.meta


def with_aliases(cache: sf.FaceCache, paths: list[str]) -> sf.FaceCache:
    """The cache with further paths for its first photo."""
    return replace(
        cache,
        alias_path=np.array(paths),
        alias_file=np.zeros(len(paths), np.int32),
        alias_size=np.full(len(paths), 7, np.int64),
        alias_mtime_ns=np.full(len(paths), 1557671234567890123, np.int64),
    )


def enriched(cache: sf.FaceCache, rows) -> sf.FaceCache:
    arrays = {name: getattr(cache, name).copy() for name in sf.LANDMARK_SHAPES}
    for array in arrays.values():
        array[rows] = np.random.default_rng(0).normal(size=array[rows].shape)
    return replace(cache, **arrays)


# ---------------------------------------------------------------------------- records


def face(value: float, landmarks: bool = False) -> dict:
    """A face of a record; its numbers all follow from `value`."""
    record = {
        "bbox": [value, 0.1, 20.3, 40.7],
        "det_score": 0.9,
        "kps": [[value, 1.5]] * 5,
        "face_short": 20.1,
        "blur": value,
        "embedding": sf.pack_floats(np.array([value, 0.1])),
    }
    return {**record, **marks(value)} if landmarks else record


def marks(value: float) -> dict:
    return {
        name: sf.pack_floats(np.full(shape, value)) for name, shape in sf.LANDMARK_SHAPES.items()
    }


def photo(sha: str, path: str, *faces: dict, **facts) -> dict:
    return {
        "op": "photo", "schema": 1, "sha256": sha, "path": path, "size": 10, "mtime_ns": 20,
        "wh": [640, 480], "taken": None, "status": 0 if faces else 1, "error": "",
        "passes": "640@0.5", "faces": list(faces), **facts,
    }  # fmt: skip


def path_of(sha: str, path: str, size: int = 10, mtime_ns: int = 20) -> dict:
    return {
        "op": "path", "schema": 1, "sha256": sha, "path": path, "size": size, "mtime_ns": mtime_ns,
    }  # fmt: skip


def gone(path: str) -> dict:
    return {"op": "gone", "schema": 1, "path": path}


def enrich(sha: str, **values: float) -> dict:
    """enrich("a", f0=3.0) gives face 0 of photo a landmarks that follow from 3.0."""
    faces = [{"index": int(key[1:]), **marks(value)} for key, value in values.items()]
    return {"op": "enrich", "schema": 1, "sha256": sha, "faces": faces}


def fold(*records: dict, start: sf.FaceCache | None = None) -> sf.FaceCache:
    lines = [sf.as_record(sf.JournalLine, record) for record in records]
    return sf.fold_records(start or sf.empty_cache(META), lines)


def contents(cache: sf.FaceCache) -> dict:
    """{sha: ({path: its facts}, faces as (value, value of their landmarks))}, in no order."""
    known = sf.known_paths(cache)
    found = {}
    for row, sha in enumerate(cache.file_sha256.tolist()):
        rows = np.flatnonzero(cache.face_file == row)
        rows = rows[np.argsort(cache.face_index[rows])]
        pose = [None if math.isnan(value) else value for value in cache.pose[rows, 0].tolist()]
        faces = list(zip(cache.embedding[rows, 0].tolist(), pose, strict=True))
        found[sha] = {path: known[path][1:] for path in cache.paths[row]}, faces
    return found


def write_journal(path: Path, *records: dict, meta: sf.CacheMeta = META) -> Path:
    journal = sf.Journal(path, meta)
    for record in records:
        journal.append(**{key: value for key, value in record.items() if key != "schema"})
    journal.close()
    return sf.journal_path(path)


# ---------------------------------------------------------------------------- save and load

CACHES = {
    "plain": lambda: make_cache(people=2, photos=5),
    "all enriched": lambda: enriched(make_cache(people=2, photos=5), slice(None)),
    "some enriched": lambda: enriched(make_cache(people=2, photos=5), [1, 3]),
    "aliases": lambda: with_aliases(make_cache(people=1, photos=3), ["/b.jpg", "/a.jpg"]),
    "odd paths": lambda: replace(
        with_aliases(make_cache(people=1, photos=4), ODD_PATHS[::-1]), file_path=np.array(ODD_PATHS)
    ),
    "no faces": lambda: fold(photo("a", "/a.jpg"), photo("b", "/b.jpg", error="cannot decode")),
    "no photos": lambda: sf.empty_cache(META),
}


@pytest.mark.parametrize("kind", CACHES)
def test_a_cache_comes_back_as_it_was_saved(tmp_path, kind) -> None:
    path, cache = tmp_path / "lib.npz", CACHES[kind]()
    sf.save_cache(path, cache)
    assert_same(sf.load_cache(path), cache)
    with np.load(path, allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind != "O" for name in archive.files)
    assert [item.name for item in tmp_path.iterdir()] == ["lib.npz"]


def test_a_cache_without_landmarks_stays_small(tmp_path) -> None:
    cache = make_cache(people=2, photos=50)
    sf.save_cache(tmp_path / "bare.npz", cache)
    sf.save_cache(tmp_path / "full.npz", enriched(cache, slice(None)))
    assert (tmp_path / "bare.npz").stat().st_size < (tmp_path / "full.npz").stat().st_size / 2


def test_the_journal_counts_as_part_of_the_cache(tmp_path) -> None:
    path = tmp_path / "lib.npz"
    sf.save_cache(path, fold(photo("a", "/a.jpg", face(1))))
    write_journal(path, photo("b", "/b.jpg", face(2)))
    expected = fold(photo("a", "/a.jpg", face(1)), photo("b", "/b.jpg", face(2)))
    assert_same(sf.load_cache(path), expected)
    path.unlink()
    assert_same(sf.load_cache(path), fold(photo("b", "/b.jpg", face(2))))


def test_a_kill_between_saving_and_dropping_the_journal_does_no_harm(tmp_path) -> None:
    path = tmp_path / "lib.npz"
    sf.save_cache(path, fold(photo("a", "/a.jpg", face(1)), photo("b", "/b.jpg", face(2))))
    journal = write_journal(
        path, photo("c", "/c.jpg", face(3)), path_of("a", "/d.jpg"), gone("/a.jpg"),
        enrich("b", f0=4), photo("c", "/c.jpg", face(5), face(6)), gone("/b.jpg"),
    )  # fmt: skip
    cache, lines = sf.load_cache(path), journal.read_bytes()
    sf.save_cache(path, cache)
    assert not journal.exists()
    journal.write_bytes(lines)
    assert_same(sf.load_cache(path), cache)


# ---------------------------------------------------------------------------- fold_records


def test_a_photo_record_keeps_every_fact_exactly() -> None:
    record = photo(
        "a", "/caf\udce9.jpg", face(1 / 3), face(2.5, landmarks=True), wh=[4000, 3000],
        taken=1557671234.25, size=2**40, mtime_ns=1557671234567890123, passes="640@0.5+tiles",
    )  # fmt: skip
    cache = fold(json.loads(json.dumps(record)))
    assert cache.file_path.tolist() == ["/caf\udce9.jpg"]
    assert (cache.file_size[0], cache.file_mtime_ns[0]) == (2**40, 1557671234567890123)
    assert (cache.file_wh.tolist(), cache.file_taken[0]) == ([[4000, 3000]], 1557671234.25)
    assert (cache.file_status[0], cache.file_passes[0]) == (0, "640@0.5+tiles")
    assert cache.face_index.tolist() == [0, 1]
    assert cache.embedding.tolist() == np.float32([[1 / 3, 0.1], [2.5, 0.1]]).tolist()
    assert cache.bbox[0].tolist() == np.float32([1 / 3, 0.1, 20.3, 40.7]).tolist()
    assert cache.kps[1].tolist() == [[2.5, 1.5]] * 5
    assert cache.enriched.tolist() == [False, True]
    assert cache.landmark_2d_106[1].tolist() == [[2.5, 2.5]] * 106


def test_a_photo_without_a_date_or_faces() -> None:
    cache = fold(photo("a", "/a.jpg", status=2, error="empty file"))
    assert (cache.files, cache.faces, cache.file_error[0]) == (1, 0, "empty file")
    assert math.isnan(cache.file_taken[0])


def test_long_texts_are_not_cut_to_the_width_of_the_old_ones() -> None:
    short = fold(photo("a", "/a", error="x", passes="1"))
    long = photo("b", "/" + "b" * 300, error="y" * 100, passes="2" * 50)
    cache = fold(long, start=short)
    assert (cache.file_path[1], cache.file_error[1], cache.file_passes[1]) == (
        long["path"], long["error"], long["passes"],
    )  # fmt: skip


def test_a_second_photo_record_replaces_all_that_was_known_of_those_bytes() -> None:
    start = fold(
        photo("a", "/a.jpg", face(1, landmarks=True), face(2)), photo("b", "/b.jpg", face(3))
    )
    cache = fold(photo("a", "/a.jpg", face(7), passes="1280@0.5"), start=start)
    assert contents(cache) == {
        "a": ({"/a.jpg": (10, 20)}, [(7.0, None)]),
        "b": ({"/b.jpg": (10, 20)}, [(3.0, None)]),
    }
    assert sorted(cache.file_passes.tolist()) == ["1280@0.5", "640@0.5"]


def test_the_same_bytes_under_more_paths_are_one_photo() -> None:
    start = fold(photo("a", "/1.jpg", face(1)))
    cache = fold(path_of("a", "/0.jpg", mtime_ns=99), path_of("zzz", "/2.jpg"), start=start)
    assert contents(cache) == {"a": ({"/1.jpg": (10, 20), "/0.jpg": (10, 99)}, [(1.0, None)])}


def test_a_photo_keeps_its_own_path_first_whatever_came_before() -> None:
    """Workers finish in any order: a copy's path may be recorded before the photo is."""
    records = [path_of("a", "/copy.jpg"), photo("a", "/own.jpg", face(1)), path_of("a", "/b.jpg")]
    cache = fold(*records)
    assert cache.file_path.tolist() == ["/own.jpg"]
    assert sorted(cache.alias_path.tolist()) == ["/b.jpg", "/copy.jpg"]
    assert_same(fold(*records, start=cache), cache)
    again = fold(photo("a", "/b.jpg", face(2)), start=cache)
    assert again.file_path.tolist() == ["/own.jpg"]


def test_a_path_that_holds_other_bytes_now_leaves_its_photo() -> None:
    start = fold(
        photo("a", "/1.jpg", face(1)), path_of("a", "/2.jpg"), photo("b", "/3.jpg", face(2))
    )
    cache = fold(photo("c", "/1.jpg", face(3)), path_of("a", "/3.jpg"), start=start)
    assert contents(cache) == {
        "a": ({"/2.jpg": (10, 20), "/3.jpg": (10, 20)}, [(1.0, None)]),
        "c": ({"/1.jpg": (10, 20)}, [(3.0, None)]),
    }


def test_two_photos_that_swapped_their_names_are_both_kept() -> None:
    start = fold(photo("a", "/1.jpg", face(1)), photo("b", "/2.jpg", face(2)))
    cache = fold(path_of("b", "/1.jpg"), path_of("a", "/2.jpg"), start=start)
    assert contents(cache) == {
        "a": ({"/2.jpg": (10, 20)}, [(1.0, None)]),
        "b": ({"/1.jpg": (10, 20)}, [(2.0, None)]),
    }


def test_a_photo_that_lost_a_path_takes_the_next_and_goes_with_the_last() -> None:
    start = fold(
        photo("a", "/1.jpg", face(1)), path_of("a", "/2.jpg"), photo("b", "/3.jpg", face(2))
    )
    moved = fold(gone("/1.jpg"), start=start)
    assert moved.file_path.tolist() == ["/2.jpg", "/3.jpg"]  # the canonical ones
    assert contents(fold(gone("/2.jpg"), start=moved)) == {
        "b": ({"/3.jpg": (10, 20)}, [(2.0, None)])
    }
    assert contents(fold(gone("/unknown.jpg"), start=start)) == contents(start)


def test_enrich_fills_in_the_faces_it_names() -> None:
    start = fold(photo("a", "/a.jpg", face(1), face(2)), photo("b", "/b.jpg", face(3)))
    cache = fold(enrich("a", f1=8, f5=9), enrich("zzz", f0=9), start=start)
    assert contents(cache)["a"][1] == [(1.0, None), (2.0, 8.0)]
    assert contents(cache)["b"][1] == [(3.0, None)]
    assert cache.landmark_3d_68[1].tolist() == [[8.0] * 3] * 68
    assert not start.enriched.any()


def test_landmarks_do_not_outlive_the_faces_they_were_found_for() -> None:
    """enrich was killed, then embed looked again with other settings: other boxes."""
    start = fold(photo("a", "/a.jpg", face(1), face(2)))
    cache = fold(enrich("a", f0=8, f1=9), photo("a", "/a.jpg", face(5), face(6)), start=start)
    assert contents(cache)["a"][1] == [(5.0, None), (6.0, None)]


def test_scores_do_not_outlive_the_faces_they_are_of() -> None:
    start = fold(photo("a", "/a.jpg", face(1)), photo("b", "/b.jpg", face(3)))
    told = [{"op": "quality", "schema": 1, "sha256": sha, "model": "m", "faces": [[0, 0.5]]}
            for sha in "ab"]  # fmt: skip
    cache = fold(*told, photo("a", "/a.jpg", face(5)), start=start)
    assert dict(zip(cache.file_sha256, np.isnan(cache.learned_quality), strict=True)) == {
        "a": True, "b": False
    }  # fmt: skip


def test_a_second_enrich_record_keeps_what_the_first_found() -> None:
    start = fold(photo("a", "/a.jpg", face(1), face(2)))
    cache = fold(enrich("a", f0=8), enrich("a", f1=9), start=start)
    assert contents(cache)["a"][1] == [(1.0, 8.0), (2.0, 9.0)]


def one_after_the_other(records: list[dict]) -> dict:
    """What `contents` must give, by applying each record to plain dicts."""
    library: dict[str, dict] = {}
    for record in records:
        sha, path = record.get("sha256"), record.get("path")
        if record["op"] == "enrich":
            for item in record["faces"] if sha in library else []:
                library[sha]["marks"][item["index"]] = sf.unpack_floats(item["pose"], (3,))[0]
            continue
        if record["op"] == "photo":
            old = library.get(sha, {"paths": {}})
            library[sha] = {"faces": record["faces"], "paths": old["paths"], "marks": {}}
        for other, entry in library.items():
            if other != sha:
                entry["paths"].pop(path, None)
        if record["op"] != "gone":
            library[sha]["paths"][path] = record["size"], record["mtime_ns"]
        library = {sha: entry for sha, entry in library.items() if entry["paths"]}
    return {
        sha: (
            entry["paths"],
            [
                (item["blur"], entry["marks"].get(index))
                for index, item in enumerate(entry["faces"])
            ],
        )
        for sha, entry in library.items()
    }


@st.composite
def histories(draw, max_size: int = 12) -> list[dict]:
    """Records as embed and enrich write them: a path record only for a photo that is known."""
    records: list[dict] = []
    for number in range(1, draw(st.integers(0, max_size)) + 1):
        known = sorted(one_after_the_other(records))
        op = draw(st.sampled_from(["photo", "path", "gone", "enrich"] if known else ["photo"]))
        path = f"/{draw(st.integers(1, 4))}.jpg"
        sha = draw(st.sampled_from(known if op in ("path", "enrich") else ["a", "b", "c"]))
        if op == "photo":
            faces = [face(float(10 * number + at)) for at in range(draw(st.integers(0, 2)))]
            records.append(photo(sha, path, *faces, size=number))
        elif op == "path":
            records.append(path_of(sha, path, size=number))
        elif op == "gone":
            records.append(gone(path))
        else:
            at = draw(st.sets(st.integers(0, 2), min_size=1))
            records.append(enrich(sha, **{f"f{index}": float(number) for index in at}))
    return records


@settings(max_examples=150, deadline=None)
@given(histories())
def test_folding_at_once_is_applying_each_record_in_turn(records) -> None:
    assert contents(fold(*records)) == one_after_the_other(records)


@settings(max_examples=150, deadline=None)
@given(histories(), st.data())
def test_folding_in_two_parts_gives_what_folding_at_once_gives(records, data) -> None:
    cut = data.draw(st.integers(0, len(records)))
    halves = fold(*records[cut:], start=fold(*records[:cut]))
    assert contents(halves) == contents(fold(*records))


@settings(max_examples=150, deadline=None)
@given(histories(), st.data())
def test_folding_twice_changes_nothing(records, data) -> None:
    cut = data.draw(st.integers(0, len(records)))
    once = fold(*records[cut:], start=fold(*records[:cut]))
    assert_same(fold(*records[cut:], start=once), once)


@settings(max_examples=20, deadline=None)
@given(histories())
def test_a_history_survives_the_disk(tmp_path_factory, records) -> None:
    path = tmp_path_factory.mktemp("cache") / "lib.npz"
    sf.save_cache(path, sf.empty_cache(META))
    write_journal(path, *records)
    sf.save_cache(path, sf.load_cache(path))
    assert_same(sf.load_cache(path), fold(*records))


# ---------------------------------------------------------------------------- journal

TORN = ['{"op": "photo", "sch', "x" * 200_000, '{"op": "gone", "schema": 1, "path": "/a.jpg"}']


@pytest.mark.parametrize("torn", TORN, ids=["short", "long", "only the newline missing"])
def test_a_torn_last_line_is_dropped_and_cut_before_the_next(tmp_path, torn) -> None:
    path = tmp_path / "lib.npz"
    first = photo("a", "/a.jpg", face(1), error="e" * 100_000)
    journal = write_journal(path, first)
    with open(journal, "a") as stream:
        stream.write(torn)
    assert_same(sf.load_cache(path), fold(first))
    write_journal(path, photo("b", "/b.jpg", face(2)))
    assert_same(sf.load_cache(path), fold(first, photo("b", "/b.jpg", face(2))))
    assert len(journal.read_text().splitlines()) == 3  # header, a, b


@pytest.mark.parametrize("left", ["", '{"op": "meta", "sche'], ids=["empty", "torn header"])
def test_a_kill_at_the_very_first_line_leaves_no_cache_behind(tmp_path, left) -> None:
    """What cache_exists finds, load_cache must load: else embed could never start again."""
    path = tmp_path / "lib.npz"
    sf.journal_path(path).write_text(left)
    if sf.cache_exists(path):
        assert sf.load_cache(path).files == 0
    write_journal(path, photo("a", "/a.jpg", face(1)))
    assert_same(sf.load_cache(path), fold(photo("a", "/a.jpg", face(1))))


def test_records_are_readable_before_the_journal_is_closed(tmp_path) -> None:
    """A kill -9 loses nothing that was appended."""
    path = tmp_path / "lib.npz"
    journal = sf.Journal(path, META)
    assert not sf.cache_exists(path)  # nothing is written until there is something to write
    journal.append(**{key: value for key, value in photo("a", "/a.jpg").items() if key != "schema"})
    assert sf.load_cache(path).files == 1
    journal.close()
    journal.close()


HEADER = json.dumps({"op": "meta", "schema": 1, "meta": OLD_META})
GOOD = json.dumps(gone("/a.jpg"))


def opened(tmp_path: Path, lines: list[str]) -> sf.FaceCache:
    """A cache of the photos a and b with such a journal."""
    path = tmp_path / "lib.npz"
    sf.save_cache(path, fold(photo("a", "/a.jpg", face(1)), photo("b", "/b.jpg", face(2))))
    sf.journal_path(path).write_text("".join(line + "\n" for line in lines))
    return sf.load_cache(path)


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        ([HEADER, GOOD[:20], GOOD], 2),
        ([HEADER, GOOD[:20] + GOOD, GOOD], 2),
        ([HEADER, "\0" * 50, GOOD], 2),
        ([HEADER, "", GOOD], 2),
        ([HEADER, GOOD, GOOD[:20]], 3),
        ([HEADER, "[1, 2]", GOOD], 2),
        ([HEADER, '{"schema": 1}', GOOD], 2),
        (['{"op": "meta", "schema": 1}', GOOD], 1),
        ([HEADER[:50], GOOD], 1),
        ([HEADER, json.dumps(photo("c", "/c.jpg", face(3), mtime_ns=2**70)), GOOD], 2),
    ],
)
def test_a_damaged_line_of_a_journal_costs_that_record(tmp_path, caplog, lines, number) -> None:
    cache = opened(tmp_path, lines)
    assert cache.file_path.tolist() == ["/b.jpg"]
    (warning,) = caplog.messages
    assert f"line {number} is damaged" in warning and "\n" not in warning


def test_embeddings_of_another_length_cost_that_record(tmp_path, caplog) -> None:
    odd = json.loads(json.dumps(photo("c", "/c.jpg", face(3))))
    odd["faces"][0]["embedding"] = odd["faces"][0]["embedding"][:8]
    assert opened(tmp_path, [HEADER, json.dumps(odd), GOOD]).file_path.tolist() == ["/b.jpg"]
    assert "/c.jpg" in caplog.text


NEWER = json.dumps({**gone("/a.jpg"), "schema": 3})
FOREIGN = json.dumps({"op": "meta", "schema": 1, "meta": {**OLD_META, "recognizer": "beef"}})


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([HEADER, GOOD, NEWER], "newer version"),
        ([GOOD, GOOD], "line 1 is no journal header"),
        ([FOREIGN, GOOD], "move the journal away"),
    ],
)
def test_a_foreign_or_newer_journal_is_refused(tmp_path, lines, reason) -> None:
    with pytest.raises(sf.SortFacesError, match=reason) as caught:
        opened(tmp_path, lines)
    assert "\n" not in str(caught.value)


def test_a_journal_alone_needs_its_header(tmp_path) -> None:
    path = tmp_path / "lib.npz"
    sf.journal_path(path).write_text(f"{HEADER[:50]}\n{GOOD}\n")
    with pytest.raises(sf.SortFacesError, match="its header is damaged"):
        sf.load_cache(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e30])
def test_boxes_that_lie_in_no_picture_are_damage(tmp_path, caplog, value) -> None:
    odd = photo("c", "/c.jpg", {**face(3), "bbox": [value, 0.0, 10.0, 10.0]})
    assert opened(tmp_path, [HEADER, json.dumps(odd), GOOD]).file_path.tolist() == ["/b.jpg"]
    assert "'/c.jpg': a bounding box" in caplog.text
    path = tmp_path / "other.npz"
    cache = fold(photo("a", "/a.jpg", face(1)))
    cache.bbox[0, 2] = value
    sf.save_cache(path, cache)
    with pytest.raises(sf.SortFacesError, match="bbox holds what no picture has"):
        sf.load_cache(path)


def test_an_array_of_terabytes_is_damage(tmp_path) -> None:
    path = tmp_path / "lib.npz"
    sf.save_cache(path, fold(photo("a", "/a.jpg", face(1))))
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": (10**13,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as stream:
                stream.write(head.getvalue()) if name == "blur" else np.save(stream, array)
    with pytest.raises(sf.SortFacesError, match="is no readable cache"):
        sf.load_cache(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said_in_one_line(tmp_path) -> None:
    path = tmp_path / "lib.npz"
    sf.journal_path(path).symlink_to("/dev/full")
    journal = sf.Journal(path, META)
    with pytest.raises(sf.SortFacesError, match="free some space"):
        try:
            journal.append("gone", path="/a.jpg")
        finally:
            journal.close()


# ---------------------------------------------------------------------------- damage


def as_npz(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def as_npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def as_zip(**texts: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return stream.getvalue()


def saved(cache: sf.FaceCache, **changes) -> bytes:
    """The bytes of a cache file with some arrays changed, or left out where None."""
    arrays = {name: getattr(cache, name) for name in NAMES} | changes
    kept = {name: array for name, array in arrays.items() if array is not None}
    return as_npz(**{"meta": np.array(json.dumps(sf.as_json(cache.meta))), **kept})


SMALL = make_cache(people=1, photos=3, dim=4)
DAMAGE = {
    "empty": b"",
    "text": b"not a cache\n",
    "half": saved(SMALL)[: len(saved(SMALL)) // 2],
    "end cut": saved(SMALL)[:-1],
    "start cut": saved(SMALL)[1:],
    "zeros": b"\0" * 5000,
    "pickle": pickle.dumps({"meta": 1}),
    "npy": as_npy(np.arange(10.0)),
    "foreign npz": as_npz(a=np.arange(3)),
    "foreign zip": as_zip(meta='{"schema": 1, "dim": 4}', content="<xml/>"),
    "meta is no JSON": saved(SMALL, meta=np.array("{")),
    "meta is a list": saved(SMALL, meta=np.array("[1]")),
    "meta lacks all but the schema": saved(SMALL, meta=np.array('{"schema": 1}')),
    "dim is no number": saved(SMALL, meta=np.array('{"schema": 1, "dim": "x"}')),
    "an array is missing": saved(SMALL, bbox=None),
    "an array of another shape": saved(SMALL, kps=np.zeros((3, 4, 2), np.float32)),
    "an array of another kind": saved(SMALL, file_size=np.array(["a", "b", "c"])),
    "embeddings of another size": saved(SMALL, embedding=np.zeros((3, 5), np.float32)),
    "too few faces": saved(SMALL, bbox=SMALL.bbox[:2]),
    "too few photos": saved(SMALL, file_path=SMALL.file_path[:2]),
    "a face without a photo": saved(SMALL, face_file=np.array([0, 1, 3], np.int32)),
    "a face before the first photo": saved(SMALL, face_file=np.array([0, 1, -1], np.int32)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_no_whole_cache_is_refused_in_one_line(tmp_path, kind) -> None:
    path = tmp_path / "lib.npz"
    path.write_bytes(DAMAGE[kind])
    with pytest.raises(sf.SortFacesError) as caught:
        sf.load_cache(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["anywhere", "in the table of contents"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_flipped_bits_are_noticed_or_harmless(tmp_path, part) -> None:
    good, path, rng = saved(SMALL), tmp_path / "lib.npz", random.Random(0)
    first = 0 if part == "anywhere" else good.find(b"PK\x01\x02")
    refused = 0
    for _ in range(400):
        data = bytearray(good)
        data[rng.randrange(first, len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            assert_same(sf.load_cache(path), SMALL)
        except sf.SortFacesError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100


def test_pickled_code_in_a_cache_is_never_run(tmp_path) -> None:
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    code = np.array([Payload()], dtype=object)
    for data in (pickle.dumps(Payload()), saved(SMALL, blur=code), as_npy(code)):
        (tmp_path / "lib.npz").write_bytes(data)
        with pytest.raises(sf.SortFacesError):
            sf.load_cache(tmp_path / "lib.npz")
    assert not (tmp_path / "ran").exists()


def test_a_cache_of_a_newer_version_is_refused(tmp_path) -> None:
    path = tmp_path / "lib.npz"
    path.write_bytes(saved(replace(SMALL, meta=changed(SMALL.meta, schema=sf.CACHE_SCHEMA + 1))))
    with pytest.raises(sf.SortFacesError, match="update"):
        sf.load_cache(path)


def test_a_folder_or_nothing_is_no_cache(tmp_path) -> None:
    with pytest.raises(sf.SortFacesError, match="is a folder"):
        sf.load_cache(tmp_path)
    with pytest.raises(sf.SortFacesError, match=r"no such cache.*embed"):
        sf.load_cache(tmp_path / "lib.npz")
    assert not sf.cache_exists(tmp_path / "lib.npz")
    (tmp_path / "names.csv").write_text("path,name")
    with pytest.raises(sf.SortFacesError, match=r"names.csv: is no cache; name the .npz file"):
        sf.load_cache(tmp_path / "names.csv")


def test_what_is_no_npz_is_told_without_the_dangerous_advice_of_numpy(tmp_path) -> None:
    (tmp_path / "lib.npz").write_text("path,name")
    with pytest.raises(sf.SortFacesError, match=r"no readable cache \(it is no .npz\); restore"):
        sf.load_cache(tmp_path / "lib.npz")


# ---------------------------------------------------------------------------- damaged journals


def history(path: Path) -> tuple[bytes, list[dict]]:
    """(bytes of a journal with a line of every kind, what was written)."""
    records = [
        photo("a", "/caf\udce9.jpg", face(1), face(2, landmarks=True), taken=1557671234.25),
        photo("b", "/b.jpg", status=2, error="cannot decode"), path_of("a", "/copy.jpg"),
        enrich("a", f0=4), gone("/b.jpg"),
    ]  # fmt: skip
    return write_journal(path, *records).read_bytes(), records


def test_every_flipped_bit_of_a_journal_is_noticed(tmp_path, caplog) -> None:
    """602 of 1,500 loaded silently before lines had a checksum."""
    path = tmp_path / "lib.npz"
    good, records = history(path)
    without_last = fold(*records[:-1])
    rng = random.Random(1)
    for line in good.splitlines(keepends=True)[-1:]:
        assert sf.object_of(line) is not None
        for flip in range(8 * (len(line) - 1)):
            data = bytearray(line)
            data[flip // 8] ^= 1 << flip % 8
            assert sf.object_of(bytes(data)) is None
    ends = [at for at, byte in enumerate(good) if byte == ord("\n")]
    near_ends = [at for end in ends for at in range(end - 40, end + 1)]  # schema, checksum, newline
    flips = [8 * at + bit for at in near_ends for bit in range(8)]
    for flip in rng.sample(flips, 250) + rng.sample(range(8 * len(good)), 250):
        data = bytearray(good)
        data[flip // 8] ^= 1 << flip % 8
        sf.journal_path(path).write_bytes(data)
        caplog.clear()
        try:
            cache = sf.load_cache(path)
        except sf.SortFacesError as error:  # the header
            assert "\n" not in str(error) and flip // 8 <= ends[0]
            continue
        if "is damaged" not in caplog.text:  # the end of the last line: as a kill would leave it
            assert flip // 8 == len(good) - 1
            assert_same(cache, without_last)


def test_a_line_that_lost_its_checksum_is_damaged(tmp_path, caplog) -> None:
    path = tmp_path / "lib.npz"
    good, _ = history(path)
    lines = good.splitlines(keepends=True)
    lines[2] = lines[2][: lines[2].rindex(b', "crc32"')] + b"}\n"
    sf.journal_path(path).write_bytes(b"".join(lines))
    cache = sf.load_cache(path)
    assert "line 3 is damaged" in caplog.text and "/b.jpg" not in cache.file_path.tolist()


def test_lines_of_version_0_1_0_are_read(tmp_path) -> None:
    """They had schema 1 and no checksum; a run that goes on appends lines that have one."""
    path = tmp_path / "lib.npz"
    records = [photo("a", "/a.jpg", face(1), face(2)), path_of("a", "/b.jpg"), enrich("a", f1=3)]
    lines = [{"op": "meta", "schema": 1, "meta": OLD_META}, *records]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    sf.journal_path(path).write_text(text)
    assert_same(sf.load_cache(path), fold(*records))
    write_journal(path, gone("/b.jpg"))
    assert sf.journal_path(path).read_text().startswith(text)
    assert_same(sf.load_cache(path), fold(*records, gone("/b.jpg")))


ODD_VALUES = [
    None, True, -1, 2**70, 1e400, "", "x", "AAAA", "\0", [], [1], {}, {"a": 1}, [[[]]], math.nan,
]  # fmt: skip


def places(value: object, where: tuple = ()) -> list[tuple]:
    """The way to every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [(*where, key) for key, _ in inner]
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        found += places(part, (*where, key)) if isinstance(part, dict | list) else []
    return found


def mutated(value: dict, rng: random.Random) -> dict:
    """The same with one value replaced or left out."""
    value = json.loads(json.dumps(value))
    *way, last = rng.choice(places(value))
    target = value
    for key in way:
        target = target[key]
    if isinstance(target, dict) and rng.random() < 0.3:
        del target[last]
    else:
        target[last] = rng.choice(ODD_VALUES)
    return value


def test_mutated_lines_cost_that_line_never_a_traceback(tmp_path, caplog) -> None:
    """Journals of before have no checksum: 146 of 500 mutations were tracebacks."""
    path = tmp_path / "lib.npz"
    _, records = history(path)
    lines = [{"op": "meta", "schema": 1, "meta": OLD_META}, *records]
    rng = random.Random(2)
    refused = noticed = 0
    for _ in range(500):
        caplog.clear()
        at = rng.randrange(len(lines))
        some = [*lines[:at], mutated(lines[at], rng), *lines[at + 1 :]]
        sf.journal_path(path).write_text("".join(json.dumps(line) + "\n" for line in some))
        try:
            sf.save_cache(tmp_path / "again.npz", sf.load_cache(path))
        except sf.SortFacesError as error:
            assert "\n" not in str(error)
            refused += 1
        noticed += len(caplog.records)
    assert refused > 20 and noticed > 150


def test_mutated_meta_gives_one_line_never_a_traceback(tmp_path) -> None:
    path, rng = tmp_path / "lib.npz", random.Random(3)
    for _ in range(300):
        path.write_bytes(saved(SMALL, meta=np.array(json.dumps(mutated(OLD_META, rng)))))
        with contextlib.suppress(sf.SortFacesError):
            sf.save_cache(tmp_path / "again.npz", sf.load_cache(path))


DEEP = "[" * 100_000 + "]" * 100_000


def test_deep_nesting_is_damage(tmp_path, caplog) -> None:
    path = tmp_path / "lib.npz"
    path.write_bytes(saved(SMALL, meta=np.array(DEEP)))
    with pytest.raises(sf.SortFacesError, match="no meta"):
        sf.load_cache(path)
    path.unlink()
    good, _ = history(path)
    sf.journal_path(path).write_bytes(good + DEEP.encode() + b"\n")
    whole = sf.load_cache(path)
    sf.journal_path(path).write_bytes(good)
    assert "line 7 is damaged" in caplog.text
    assert_same(whole, sf.load_cache(path))


def test_a_line_that_is_damaged_costs_a_result(tmp_path) -> None:
    """json_lines leaves it to the reader what a damaged line means."""
    lines = sf.AppendOnly(tmp_path / "x.jsonl")
    for number in range(3):
        lines.append({"n": number})
    lines.close()
    whole = (tmp_path / "x.jsonl").read_bytes()
    (tmp_path / "x.jsonl").write_bytes(whole.replace(b'"n": 1', b'"n": 7') + b'{"n": 3')
    found = [record and record["n"] for _, record in sf.json_lines(tmp_path / "x.jsonl")]
    assert found == [0, None, 2]
    start = len(whole.splitlines(keepends=True)[0])
    assert len(list(sf.json_lines(tmp_path / "x.jsonl", start))) == 2
    assert list(sf.json_lines(tmp_path / "none.jsonl")) == []
