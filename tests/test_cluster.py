"""cluster: the raw tree on disk, its manifest, reruns, links, kills and refusals."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_cache, sf
from material import (
    Library,
    assert_agrees,
    broken_caches,
    count_files,
    kill_when,
    manifest_of,
    move_face,
    ok,
    photos_in,
    pick,
    refused,
    stamps,
    start,
    tree,
    wait_until,
    with_twins,
    with_values,
)

ALL_ONE = 1.9  # a threshold at which everybody is the same person


@pytest.fixture
def library(tmp_path) -> Library:
    return Library(tmp_path, people=3, photos=6)


def uneven(tmp_path: Path) -> Library:
    """Persons of 6, 4 and 2 photos, one single photo and two without a face."""
    src = tmp_path / "photos"
    cache = make_cache(people=5, photos=6, root=str(src))
    files = [*range(6), *range(6, 10), *range(12, 14), 18, 24, 25]
    cache = pick(cache, files)
    bare = [row for row, file in enumerate(files) if file >= 24]
    faces = [row for row in range(cache.faces) if cache.face_file[row] not in bare]
    return Library(tmp_path, pick(cache, range(cache.files), faces))


# --- layout -----------------------------------------------------------------


def test_persons_are_numbered_from_the_largest(run, tmp_path):
    library = uneven(tmp_path)
    result = ok(run, "cluster", library.path, library.out)
    folders = Counter(name.split("/")[0] for name in photos_in(library.out))
    assert folders == {
        "person_001": 6, "person_002": 4, "person_003": 2, "_singletons": 1, "_noface": 2
    }  # fmt: skip
    assert (result["persons"], result["singletons"], result["without_face"]) == (3, 1, 2)
    assert (result["files_placed"], result["files_missing"]) == (15, 0)


def test_every_person_folder_holds_one_person(run, library):
    ok(run, "cluster", library.path, library.out)
    for folder in sorted(library.out.glob("person_*")):
        assert len({name.split("__")[-2] for name in os.listdir(folder)}) == 1, folder


def test_the_manifest_agrees_with_the_disk(run, tmp_path):
    library = uneven(tmp_path)
    ok(run, "cluster", library.path, library.out, "--threshold", "0.5")
    assert_agrees(library.out)
    manifest = manifest_of(library.out)
    assert manifest["kind"] == "raw"
    assert manifest["params"] == {"threshold": 0.5, "linkage": "average", "strictness": 0.0}
    assert manifest["recognizer"] == library.cache.meta.recognizer
    listed = [face for person in manifest["persons"] for face in person["faces"]]
    assert sorted(listed + manifest["singletons"]) == sorted(library.cache.face_ids)
    for person in manifest["persons"]:
        assert person["face_count"] == len(person["faces"])
        assert person["image_count"] == len(os.listdir(library.out / person["id"]))


def test_copies_keep_the_bytes_and_the_time_of_the_photo(run, library):
    ok(run, "cluster", library.path, library.out)
    times = {int(ns) for ns in library.cache.file_mtime_ns}
    assert {ns for _, ns in stamps(library.out).values()} == times
    assert sorted(photos_in(library.out).values()) == sorted(library.cache.file_sha256)


def test_a_photo_of_two_people_lies_in_both_folders(run, tmp_path):
    cache = make_cache(people=2, photos=6, root=str(tmp_path / "photos"))
    library = Library(tmp_path, move_face(cache, 7, to_file=2))
    ok(run, "cluster", library.path, library.out)
    shared = [name for name, sha in photos_in(library.out).items()
              if sha == library.cache.file_sha256[2]]  # fmt: skip
    assert sorted(name.split("/")[0] for name in shared) == ["person_001", "person_002"]


def test_every_copy_of_a_photo_is_placed_under_its_own_name(run, library):
    twin = str(library.src / "backup" / "copy of 0.jpg")
    library.save(with_twins(library.cache, {twin: 0}))
    result = ok(run, "cluster", library.path, library.out)
    assert result["files_placed"] == library.cache.files + 1
    same = [name for name, sha in photos_in(library.out).items()
            if sha == library.cache.file_sha256[0]]  # fmt: skip
    assert len(same) == 2 and len({os.path.dirname(name) for name in same}) == 1
    assert any(name.endswith("backup__copy of 0.jpg") for name in same)
    assert_agrees(library.out)


NAMES = (
    "été.jpg", "e\u0301te\u0301.jpg", "照片 1.jpg", "фото.jpg", "صورة.jpg", "😀☀.jpg", "a b.jpg",
    "what? 5:30*.jpg", "dot..jpg", "IMG.jpg", "img.jpg", "Img.jpg", "x__y.jpg", "no suffix",
    "n" * 240 + ".jpg", "ж" * 120 + ".jpg", os.fsdecode(b"\xff\xfe.jpg"),
)  # fmt: skip


def test_names_of_any_alphabet_and_names_that_differ_only_in_case(run, tmp_path):
    src = tmp_path / "photos"
    cache = pick(make_cache(people=1, photos=len(NAMES), root=str(src)), range(len(NAMES)))
    cache = with_values(
        cache, file_path={row: str(src / name) for row, name in enumerate(NAMES)}
    )  # fmt: skip
    library = Library(tmp_path, cache)
    ok(run, "cluster", library.path, library.out)
    names = os.listdir(library.out / "person_001")
    assert len({name.casefold() for name in names}) == len(NAMES)  # NTFS folds case
    assert all(len(os.fsencode(name)) <= 255 and not set(name) & set('<>:"|?*\\') for name in names)
    assert_agrees(library.out)
    before = tree(library.out)
    ok(run, "cluster", library.path, library.out)
    assert tree(library.out) == before


def test_a_cache_without_any_face_gives_only_noface(run, tmp_path):
    cache = make_cache(people=1, photos=3, root=str(tmp_path / "photos"))
    library = Library(tmp_path, pick(cache, range(3), faces=[]))
    result = ok(run, "cluster", library.path, library.out)
    assert (result["faces"], result["persons"]) == (0, 0)
    assert {name.split("/")[0] for name in photos_in(library.out)} == {"_noface"}


# --- reruns -----------------------------------------------------------------


def test_a_rerun_changes_nothing(run, library):
    ok(run, "cluster", library.path, library.out)
    before, times = tree(library.out), stamps(library.out)
    result = ok(run, "cluster", library.path, library.out)
    assert (tree(library.out), stamps(library.out)) == (before, times)
    assert result["files_kept"] == library.cache.files
    assert result["files_placed"] == result["files_moved"] == result["files_removed"] == 0


def test_another_threshold_moves_files_and_leaves_none_behind(run, library, tmp_path):
    ok(run, "cluster", library.path, library.out)
    inodes = {inode for inode, _ in stamps(library.out).values()}
    result = ok(run, "cluster", library.path, library.out, "--threshold", ALL_ONE)
    assert (result["files_placed"], result["files_removed"]) == (0, 0)
    assert result["files_moved"] == 2 * 6
    assert {inode for inode, _ in stamps(library.out).values()} == inodes
    assert_agrees(library.out)
    ok(run, "cluster", library.path, tmp_path / "fresh", "--threshold", ALL_ONE)
    assert tree(library.out) == tree(tmp_path / "fresh")
    ok(run, "cluster", library.path, library.out)
    ok(run, "cluster", library.path, tmp_path / "fresh2")
    assert tree(library.out) == tree(tmp_path / "fresh2")


def test_a_file_deleted_from_the_tree_is_placed_again(run, library):
    ok(run, "cluster", library.path, library.out)
    before = tree(library.out)
    next(library.out.glob("person_002/*")).unlink()
    assert ok(run, "cluster", library.path, library.out)["files_placed"] == 1
    assert tree(library.out) == before


def test_a_photo_that_left_the_cache_leaves_the_tree(run, library):
    ok(run, "cluster", library.path, library.out)
    library.save(pick(library.cache, range(1, library.cache.files)))
    result = ok(run, "cluster", library.path, library.out)
    assert result["files_removed"] == 1
    assert_agrees(library.out)


def test_a_folder_emptied_by_a_rerun_is_removed(run, library):
    ok(run, "cluster", library.path, library.out)
    ok(run, "cluster", library.path, library.out, "--threshold", ALL_ONE)
    assert [path.name for path in library.out.iterdir() if path.is_dir()] == ["person_001"]


# --- files of others --------------------------------------------------------


def test_foreign_files_in_the_tree_stay_through_every_rerun(run, library):
    ok(run, "cluster", library.path, library.out)
    mine = [library.out / "notes.txt", library.out / "person_002" / "mine.jpg",
            library.out / "person_003" / "deep" / "x.jpg"]  # fmt: skip
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    for threshold in (ALL_ONE, "0.55", "0.01"):
        ok(run, "cluster", library.path, library.out, "--threshold", threshold)
        assert [path.read_text() for path in mine] == [path.name for path in mine]


def test_a_foreign_file_in_the_place_of_a_photo_is_refused_not_overwritten(run, library):
    ok(run, "cluster", library.path, library.out)
    target = next(library.out.glob("person_001/*"))
    manifest = manifest_of(library.out)
    del manifest["placed"][f"person_001/{target.name}"]
    (library.out / "manifest.json").write_text(json.dumps(manifest))
    target.write_bytes(b"mine")
    refused(run, "cluster", library.path, library.out, word="not written by this tool")
    assert target.read_bytes() == b"mine"


def test_a_folder_of_other_files_is_refused(run, library):
    library.out.mkdir()
    (library.out / "holiday.txt").write_text("mine")
    refused(run, "cluster", library.path, library.out, word="holds other files")
    assert [path.name for path in library.out.iterdir()] == ["holiday.txt"]


@pytest.mark.parametrize("text", ['{"name": "My app", "icons": []}', "[]", "not json"])
def test_a_manifest_json_of_another_program_is_refused_not_overwritten(run, library, text):
    library.out.mkdir()
    (library.out / "manifest.json").write_text(text)
    (library.out / "app.js").write_text("mine")
    before = tree(library.out)
    refused(run, "cluster", library.path, library.out, word=str(library.out))
    assert tree(library.out) == before


def test_a_manifest_of_another_step_is_refused_not_overwritten(run, library):
    head = {"tool": "sort_faces", "kind": "swap"}
    sf.write_json(library.out / "manifest.json", {**head, "facesets": []})
    before = tree(library.out)
    refused(run, "cluster", library.path, library.out, word=str(library.out))
    assert tree(library.out) == before


# --- dry run and links ------------------------------------------------------


def test_dry_run_leaves_everything_as_it_is(run, library, tmp_path):
    before = tree(tmp_path)
    planned = ok(run, "cluster", library.path, library.out, "--dry-run")
    assert tree(tmp_path) == before
    assert planned == ok(run, "cluster", library.path, library.out)
    before, times = tree(tmp_path), stamps(tmp_path)
    planned = ok(run, "cluster", library.path, library.out, "--dry-run", "--threshold", ALL_ONE)
    assert (tree(tmp_path), stamps(tmp_path)) == (before, times)
    assert planned["files_moved"] == 12


def test_hard_links_share_the_photos_bytes(run, library):
    ok(run, "cluster", library.path, library.out, "--link", "hard")
    inodes = {inode for inode, _ in stamps(library.out).values()}
    assert inodes == {inode for inode, _ in stamps(library.src).values()}
    assert_agrees(library.out)
    ok(run, "cluster", library.path, library.out, "--link", "hard", "--threshold", ALL_ONE)
    assert {inode for inode, _ in stamps(library.out).values()} == inodes


def test_symbolic_links_point_at_the_photos(run, library):
    ok(run, "cluster", library.path, library.out, "--link", "sym")
    links = [path for path in library.out.glob("person_*/*") if path.is_symlink()]
    assert sorted(os.readlink(path) for path in links) == sorted(library.cache.file_path.tolist())
    assert_agrees(library.out)
    before = tree(library.out)
    assert ok(run, "cluster", library.path, library.out, "--link", "sym")["files_kept"] == 18
    assert tree(library.out) == before


def test_symbolic_links_work_from_a_relative_cache_path(run, library, monkeypatch):
    monkeypatch.chdir(library.folder)
    ok(run, "cluster", "lib.npz", "out", "--link", "sym")
    assert_agrees(library.out)


def test_copies_share_nothing_with_the_photos(run, library):
    ok(run, "cluster", library.path, library.out, "--link", "copy")
    inodes = {inode for inode, _ in stamps(library.out).values()}
    assert not inodes & {inode for inode, _ in stamps(library.src).values()}


def test_reflinks_work_or_are_refused_in_one_line(run, library):
    code, out, err = run("cluster", library.path, library.out, "--link", "reflink", "--json")
    if code == 0:
        assert_agrees(library.out)
        return
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "use --link copy" in err
    assert not photos_in(library.out)
    ok(run, "cluster", library.path, library.out)
    assert_agrees(library.out)


def test_placing_never_writes_to_the_photos(run, library):
    before, times = tree(library.src), stamps(library.src)
    for link in ("hard", "copy", "sym"):
        ok(run, "cluster", library.path, library.folder / link, "--link", link)
        ok(run, "cluster", library.path, library.folder / link, "--threshold", ALL_ONE)
    assert (tree(library.src), stamps(library.src)) == (before, times)


# --- photos that went -------------------------------------------------------


def test_a_photo_gone_from_the_source_stays_in_the_tree_and_moves_with_it(run, library):
    ok(run, "cluster", library.path, library.out)
    for row in range(6, 9):
        library.photo(row).unlink()
    result = ok(run, "cluster", library.path, library.out, "--threshold", ALL_ONE)
    assert (result["files_moved"], result["files_missing"]) == (12, 0)
    assert set(library.cache.file_sha256) == set(photos_in(library.out).values())
    assert_agrees(library.out)


def test_the_last_copy_of_a_photo_is_set_aside_never_deleted(run, library):
    ok(run, "cluster", library.path, library.out)
    sha = str(library.cache.file_sha256[7])
    name = next(name for name, own in photos_in(library.out).items() if own == sha)
    library.photo(7).unlink()
    library.save(pick(library.cache, [row for row in range(18) if row != 7]))
    ok(run, "cluster", library.path, library.out)
    assert sf.sha256_of_file(library.out / sf.REMOVED_FOLDER / name) == sha
    assert_agrees(library.out)


def test_a_second_last_copy_of_the_same_name_is_set_aside_beside_the_first(run, library):
    ok(run, "cluster", library.path, library.out)
    name = next(iter(manifest_of(library.out)["placed"]))
    aside = library.out / sf.REMOVED_FOLDER / name
    aside.parent.mkdir(parents=True)
    aside.write_text("an earlier one")
    row = library.cache.file_sha256.tolist().index(manifest_of(library.out)["placed"][name])
    library.photo(row).unlink()
    library.save(pick(library.cache, [other for other in range(18) if other != row]))
    ok(run, "cluster", library.path, library.out)
    assert aside.read_text() == "an earlier one"
    assert len(list(aside.parent.iterdir())) == 2


def test_a_photo_edited_and_embedded_again_does_not_destroy_the_last_copy_of_the_old_one(
    run, library
):
    ok(run, "cluster", library.path, library.out)
    old = str(library.cache.file_sha256[0])
    library.photo(0).write_bytes(b"edited")
    facts = library.photo(0).stat()
    library.save(
        with_values(
            library.cache, file_sha256={0: sf.sha256_of_file(library.photo(0))},
            file_size={0: facts.st_size}, file_mtime_ns={0: facts.st_mtime_ns},
        )
    )  # fmt: skip
    ok(run, "cluster", library.path, library.out)
    assert_agrees(library.out)
    aside = library.out / sf.REMOVED_FOLDER
    assert [sf.sha256_of_file(path) for path in aside.rglob("*.jpg")] == [old]


def test_a_photo_gone_before_it_was_placed_is_counted_and_not_listed(run, library):
    library.photo(3).unlink()
    result = ok(run, "cluster", library.path, library.out, warned="is gone and cannot be placed")
    assert (result["files_missing"], result["files_placed"]) == (1, 17)
    assert_agrees(library.out)


def test_a_photo_changed_since_embed_counts_as_missing(run, library):
    library.photo(3).write_bytes(b"someone else's picture now")
    result = ok(run, "cluster", library.path, library.out, warned="is gone and cannot be placed")
    assert result["files_missing"] == 1
    assert sf.sha256_of_file(library.photo(3)) not in photos_in(library.out).values()
    assert_agrees(library.out)


def test_a_photo_that_came_back_is_placed(run, library, tmp_path):
    shutil.move(library.photo(3), tmp_path / "away.jpg")
    ok(run, "cluster", library.path, library.out, warned="is gone")
    shutil.move(tmp_path / "away.jpg", library.photo(3))
    assert ok(run, "cluster", library.path, library.out)["files_placed"] == 1
    assert_agrees(library.out)


def test_a_foreign_file_under_the_name_of_a_missing_photo_is_not_taken_for_ours(run, library):
    missing = library.photo(3)
    data, times = missing.read_bytes(), missing.stat()
    missing.unlink()
    ok(run, "cluster", library.path, library.out, warned="is gone")
    folder = next(p for p in library.out.glob("person_*") if "0__0.jpg" in str(list(p.iterdir())))
    mine = folder / sf.safe_dst_name(str(missing))
    mine.write_bytes(b"mine")
    missing.write_bytes(data)
    os.utime(missing, ns=(times.st_atime_ns, times.st_mtime_ns))
    run("cluster", library.path, library.out)
    assert mine.read_bytes() == b"mine"


def test_a_copy_serves_where_the_first_path_of_a_photo_is_gone(run, library):
    twin = str(library.src / "backup" / "twin.jpg")
    library.save(with_twins(library.cache, {twin: 0}))
    library.photo(0).unlink()
    result = ok(run, "cluster", library.path, library.out)
    assert (result["files_missing"], result["files_placed"]) == (0, 19)
    assert_agrees(library.out)


# --- kills and second runs --------------------------------------------------


def big_library(tmp_path: Path) -> Library:
    """300 photos of 64 kB: long enough to place that a kill comes in between."""
    library = Library(tmp_path, people=3, photos=100)
    cache = library.cache
    noise = np.random.default_rng(1).integers(0, 256, (300, 65536), dtype=np.uint8)
    for row in range(cache.files):
        library.photo(row).write_bytes(noise[row].tobytes())
    facts = [library.photo(row).stat() for row in range(cache.files)]
    library.save(
        replace(
            cache,
            file_sha256=np.array([sf.sha256_of_file(path) for path in cache.file_path]),
            file_size=np.array([fact.st_size for fact in facts]),
            file_mtime_ns=np.array([fact.st_mtime_ns for fact in facts]),
        )
    )
    return library


def test_a_tree_killed_five_times_while_it_is_filled_ends_up_like_an_undisturbed_one(run, tmp_path):
    library = big_library(tmp_path)
    killed = 0
    for after in sorted(random.Random(3).sample(range(5, 280), 5)):
        killed += kill_when(
            lambda after=after: count_files(library.out) >= after,
            "cluster", library.path, library.out,
        )  # fmt: skip
    assert killed, "no kill came in time; the test proves nothing"
    ok(run, "cluster", library.path, library.out)
    assert_agrees(library.out)
    ok(run, "cluster", library.path, tmp_path / "undisturbed")
    assert tree(library.out) == tree(tmp_path / "undisturbed")


@pytest.mark.parametrize("moves", [0, 1, 7])
def test_interrupted_while_files_are_moved_it_goes_on_where_it_stopped(
    run, library, monkeypatch, moves
):
    ok(run, "cluster", library.path, library.out)
    rename, left = os.rename, iter(range(moves))

    def stop_after(*paths) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        rename(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", stop_after)
        code, out, err = run("cluster", library.path, library.out, "--threshold", ALL_ONE)
    assert (code, out, err.count("\n")) == (130, "", 1) and "run the same command again" in err
    ok(run, "cluster", library.path, library.out, "--threshold", ALL_ONE)
    ok(run, "cluster", library.path, library.folder / "fresh", "--threshold", ALL_ONE)
    assert tree(library.out) == tree(library.folder / "fresh")


@pytest.mark.parametrize("placed", [0, 9])
def test_interrupted_and_run_again_with_another_threshold_it_leaves_nothing_behind(
    run, library, monkeypatch, placed
):
    """The files of the run that never finished are the tool's own, too."""
    place, left = sf.place_file, iter(range(placed))

    def stop_after(*options) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        place(*options)

    with monkeypatch.context() as patch:
        patch.setattr(sf, "place_file", stop_after)
        assert run("cluster", library.path, library.out)[0] == 130
    ok(run, "cluster", library.path, library.out, "--threshold", ALL_ONE)
    ok(run, "cluster", library.path, library.folder / "fresh", "--threshold", ALL_ONE)
    assert tree(library.out) == tree(library.folder / "fresh")


def test_interrupted_before_an_edited_photo_is_placed_the_rerun_places_it(
    run, library, monkeypatch
):
    """The old and the new picture have the same size, so only the hash tells them apart."""
    ok(run, "cluster", library.path, library.out)
    library.photo(0).write_bytes(library.photo(0).read_bytes()[::-1])
    sha, facts = sf.sha256_of_file(library.photo(0)), library.photo(0).stat()
    library.save(
        with_values(
            library.cache, file_sha256={0: sha}, file_mtime_ns={0: facts.st_mtime_ns}
        )
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(sf, "place_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run("cluster", library.path, library.out)[0] == 130
    ok(run, "cluster", library.path, library.out)
    assert sha in photos_in(library.out).values()
    assert_agrees(library.out)


def test_a_second_run_at_once_is_refused_and_told_who_is_writing(run, tmp_path):
    library = big_library(tmp_path)
    first = start("cluster", library.path, library.out)
    try:
        assert wait_until(first, lambda: count_files(library.out) >= 5)
        first.send_signal(signal.SIGSTOP)
        line = refused(run, "cluster", library.path, library.out, word=f"process {first.pid} ")
        assert "wait for it" in line
        first.send_signal(signal.SIGCONT)
        assert first.wait(60) == 0
    finally:
        first.kill()
        first.wait()
    assert_agrees(library.out)
    ok(run, "cluster", library.path, library.out)


# --- refusals ---------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["empty", "text", "cut short", "newer", "foreign", "folder", "absent"]
)
def test_a_file_that_is_no_cache_is_refused(run, tmp_path, kind):
    path = broken_caches(tmp_path)[kind]
    refused(run, "cluster", path, tmp_path / "out", word=path.name)
    assert not (tmp_path / "out").exists()


def test_an_output_inside_the_source_is_refused(run, library):
    before = tree(library.folder)
    for out in (library.src, library.src / "sorted", library.src / ".." / "photos" / "new"):
        refused(run, "cluster", library.path, out, word="inside the source")
    link = library.folder / "link"
    link.symlink_to(library.src)
    refused(run, "cluster", library.path, link / "sorted", word="inside the source")
    link.unlink()
    assert tree(library.folder) == before


def test_an_output_that_is_a_file_is_refused(run, library):
    library.out.write_text("mine")
    refused(run, "cluster", library.path, library.out, word="is a file")
    refused(run, "cluster", library.path, library.out / "below", word=str(library.out))
    assert library.out.read_text() == "mine"


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere"
)
def test_an_output_without_permission_to_write_is_refused(run, library):
    library.out.mkdir(mode=0o555)
    refused(run, "cluster", library.path, library.out, word="permission")


@pytest.mark.parametrize("value", ["-0.1", "2.1", "nan", "warm"])
def test_a_threshold_that_is_no_cosine_distance_is_refused(run, library, value):
    code, out, err = run("cluster", library.path, library.out, f"--threshold={value}")
    assert (code, out, err.count("\n")) == (2, "", 1) and "cosine distance" in err


# --- what a manifest says is not believed -----------------------------------


def everything(folder: Path) -> dict[str, str]:
    """{path: sha256} of every file below a folder."""
    return {
        str(path.relative_to(folder)): sf.sha256_of_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith((".lock", ".holder"))
    }


@pytest.mark.parametrize("command", ["cluster", "refine"])
@pytest.mark.parametrize("name", ["../photos/0/0.jpg", "{photos}/0/0.jpg", "person_001/../../x"])
def test_a_manifest_that_names_files_elsewhere_is_refused_and_removes_none(
    run, library, command, name
):
    kind = {"cluster": sf.RawManifest, "refine": sf.RefinedManifest}[command]
    ok(run, command, library.path, library.out)
    path = library.out / kind.FILE
    manifest = json.loads(path.read_text())
    named = name.format(photos=library.photo(0).parents[1])
    manifest["placed"] = {named: str(library.cache.file_sha256[0])}
    path.write_text(json.dumps(manifest))
    before = everything(library.out.parent)
    refused(run, command, library.path, library.out, word=kind.FILE)
    assert everything(library.out.parent) == before


def test_a_manifest_that_names_the_originals_removes_none(run, library):
    """The tree lies around the photos: every path is inside it, and every photo is named."""
    around = library.out.parent
    ok(run, "cluster", library.path, library.out)
    manifest = manifest_of(library.out)
    names = [library.photo(row).relative_to(around).as_posix() for row in range(18)]
    manifest["placed"] = dict(zip(names, library.cache.file_sha256.tolist(), strict=True))
    (around / "manifest.json").write_text(json.dumps(manifest))
    before = everything(around)
    refused(run, "cluster", library.path, around, word="holds the source")
    assert everything(around) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_nothing_is_changed_through_a_link_planted_in_the_tree(run, library):
    """person_002 leads to the photos, and the manifest calls its files the tool's."""
    ok(run, "cluster", library.path, library.out)
    folder = library.out / "person_002"
    shutil.rmtree(folder)
    folder.symlink_to(library.photo(0).parent)
    manifest = manifest_of(library.out)
    rows = [row for row in range(18) if library.photo(row).parent == library.photo(0).parent]
    manifest["placed"] |= {
        f"person_002/{library.photo(row).name}": str(library.cache.file_sha256[row]) for row in rows
    }
    (library.out / "manifest.json").write_text(json.dumps(manifest))
    before = everything(library.out.parent)
    for threshold in (0.55, ALL_ONE):
        refused(
            run, "cluster", library.path, library.out, "--threshold", threshold, word="is a link"
        )
        assert everything(library.out.parent) == before


@pytest.mark.parametrize("longer", [True, False])
def test_a_placed_file_that_was_edited_is_set_aside_not_deleted(run, library, longer):
    ok(run, "cluster", library.path, library.out)
    name = next(name for name in manifest_of(library.out)["placed"] if "person_002" in name)
    edited = library.out / name
    data = edited.read_bytes()
    edited.write_bytes(data + b"mine" if longer else b"mine" + data[4:])
    sha = sf.sha256_of_file(edited)
    library.save(pick(library.cache, range(6)))  # whoever person_002 was has left
    ok(run, "cluster", library.path, library.out)
    found = {sf.sha256_of_file(path) for path in library.out.rglob("*.jpg")}
    assert sha in found and not edited.exists()


def test_an_edited_file_in_the_way_of_its_photo_is_set_aside(run, library):
    ok(run, "cluster", library.path, library.out)
    before = everything(library.out)
    name = next(iter(manifest_of(library.out)["placed"]))
    (library.out / name).write_bytes(b"mine")
    ok(run, "cluster", library.path, library.out)
    assert (library.out / sf.REMOVED_FOLDER / name).read_bytes() == b"mine"
    assert everything(library.out)[name] == before[name]
