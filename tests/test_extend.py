"""extend: new faces join what is there; numbers, paths and times of the old stay."""

from __future__ import annotations

import json
import os
import shutil
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
    tree,
    with_twins,
    with_values,
)
from msgspec.structs import replace as changed


class Growing(Library):
    """A library of which at first only the photos `first` are known; grow() embeds the rest."""

    def __init__(self, folder: Path, whole: sf.FaceCache, first: list[int]) -> None:
        super().__init__(folder, whole)
        self.whole, self.first = self.cache, first
        self.raw, self.refined = folder / "raw", folder / "refined"
        self.save(pick(self.whole, first))

    def make_trees(self, run, *refine_options: object) -> None:
        ok(run, "cluster", self.path, self.raw)
        ok(run, "refine", self.path, self.refined, *refine_options)

    def grow(self, files: list[int] | None = None) -> None:
        later = files or [row for row in range(self.whole.files) if row not in self.first]
        self.save(pick(self.whole, self.first + later))

    def persons(self) -> dict[str, set[str]]:
        """{person: face ids} of the raw manifest, `_singletons` among them."""
        manifest = manifest_of(self.raw)
        groups = {entry["id"]: set(entry["faces"]) for entry in manifest["persons"]}
        return {**groups, "_singletons": set(manifest["singletons"])}

    def facesets(self) -> dict[str, set[str]]:
        return {entry["id"]: set(entry["faces"]) for entry in manifest_of(self.refined)["facesets"]}

    def faces(self, files: list[int]) -> set[str]:
        """Ids of the faces in photos of the whole library."""
        return {face for face, file in zip(self.whole.face_ids, self.whole.face_file, strict=True)
                if file in files}  # fmt: skip


@pytest.fixture
def library(tmp_path) -> Growing:
    """Four people of 20: at first 16 photos of two, 1 of the third; the rest comes later."""
    whole = make_cache(people=4, photos=20, root=str(tmp_path / "photos"))
    return Growing(tmp_path, whole, [*range(16), *range(20, 36), 40])


def test_new_faces_join_persons_and_new_persons_get_the_next_numbers(run, library):
    library.make_trees(run)
    before = library.persons()
    assert sorted(before) == ["_singletons", "person_001", "person_002"]
    library.grow()
    result = ok(run, "extend", library.path, library.raw)
    after = library.persons()
    assert sorted(after) == ["_singletons", "person_001", "person_002", "person_003", "person_004"]
    assert after["person_001"] == before["person_001"] | library.faces(list(range(16, 20)))
    assert after["person_002"] == before["person_002"] | library.faces(list(range(36, 40)))
    people = [library.faces(list(range(start, start + 20))) for start in (40, 60)]
    assert sorted(map(sorted, (after["person_003"], after["person_004"]))) == sorted(
        map(sorted, people)
    )
    assert (result["new_faces"], result["joined_persons"], result["new_persons"]) == (47, 8, 2)


def test_existing_files_keep_their_path_and_time(run, library):
    library.make_trees(run)
    raw, refined = stamps(library.raw), stamps(library.refined)
    library.grow()
    ok(run, "extend", library.path, library.raw, "--refine-out", library.refined)
    for before, now in ((raw, stamps(library.raw)), (refined, stamps(library.refined))):
        assert {name: now.get(name) for name in before} == before
        assert len(now) > len(before)


def test_the_manifests_agree_with_the_disk(run, library):
    library.make_trees(run)
    library.grow()
    ok(run, "extend", library.path, library.raw, "--refine-out", library.refined)
    assert_agrees(library.raw)
    assert_agrees(library.refined)
    placed = manifest_of(library.raw)["placed"]
    assert set(placed.values()) == set(library.whole.file_sha256)


def test_extending_twice_changes_nothing_more(run, library):
    library.make_trees(run)
    library.grow()
    ok(run, "extend", library.path, library.raw, "--refine-out", library.refined)
    before, times = tree(library.folder), (stamps(library.raw), stamps(library.refined))
    result = ok(run, "extend", library.path, library.raw, "--refine-out", library.refined)
    assert tree(library.folder) == before
    assert (stamps(library.raw), stamps(library.refined)) == times
    assert (result["new_faces"], result["new_persons"], result["new_facesets"]) == (0, 0, 0)
    assert (result["files_placed"], result["refined"]["files_placed"]) == (0, 0)


def test_extending_by_nothing_changes_nothing_but_the_threshold_noted(run, library):
    library.make_trees(run)
    raw, refined = photos_in(library.raw), tree(library.refined)
    groups = library.persons()
    ok(run, "extend", library.path, library.raw, "--refine-out", library.refined)
    assert (photos_in(library.raw), library.persons()) == (raw, groups)
    assert {**tree(library.refined), "refine_manifest.json": ""} == {
        **refined, "refine_manifest.json": ""
    }  # fmt: skip


def test_an_old_singleton_founds_a_person_with_a_new_face_and_stays_where_it_lies(run, library):
    library.make_trees(run)
    [single] = (library.raw / "_singletons").iterdir()
    library.grow([41, 42])
    ok(run, "extend", library.path, library.raw)
    assert library.persons()["person_003"] == library.faces([40, 41, 42])
    assert library.persons()["_singletons"] == set()
    assert single.exists()
    assert len(list((library.raw / "person_003").iterdir())) == 3


def test_a_new_face_like_nobody_becomes_a_singleton(run, library):
    library.make_trees(run)
    library.grow([60])
    result = ok(run, "extend", library.path, library.raw)
    assert library.persons()["_singletons"] == library.faces([40, 60])
    assert (result["new_persons"], result["files_placed"]) == (0, 1)


def test_new_photos_without_a_face_go_to_noface(run, library):
    library.make_trees(run)
    cache = pick(library.whole, [*library.first, 70], faces=range(60))
    library.save(cache)
    ok(run, "extend", library.path, library.raw)
    assert len(list((library.raw / "_noface").iterdir())) == 1


def test_in_a_tree_without_persons_new_faces_found_the_first(run, tmp_path):
    whole = make_cache(people=2, photos=6, root=str(tmp_path / "photos"))
    library = Growing(tmp_path, whole, [0, 6])
    ok(run, "cluster", library.path, library.raw)
    library.grow()
    ok(run, "extend", library.path, library.raw)
    assert sorted(library.persons()) == ["_singletons", "person_001", "person_002"]
    assert_agrees(library.raw)


def test_numbers_continue_after_the_highest_in_use(run, library):
    library.make_trees(run)
    path = library.raw / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["persons"][0]["id"] = "person_1200"
    path.write_text(json.dumps(manifest))
    library.grow()
    ok(run, "extend", library.path, library.raw)
    assert {"person_1200", "person_1201", "person_1202"} <= set(library.persons())


# --- face sets --------------------------------------------------------------


def test_new_faces_join_face_sets_and_a_person_grown_large_becomes_one(run, library):
    library.make_trees(run)
    before = library.facesets()
    assert sorted(before) == ["faceset_001", "faceset_002"]
    library.grow([*range(16, 20), *range(41, 58), 60, 61])
    result = ok(run, "extend", library.path, library.raw, "--refine-out", library.refined)
    after = library.facesets()
    assert sorted(after) == ["faceset_001", "faceset_002", "faceset_003"]
    assert after["faceset_001"] | after["faceset_002"] == (
        before["faceset_001"] | before["faceset_002"] | library.faces(list(range(16, 20)))
    )
    assert after["faceset_003"] == library.faces(list(range(40, 58)))  # 18 with the old single one
    assert (result["joined_facesets"], result["new_facesets"]) == (4, 1)
    assert manifest_of(library.refined)["extended"] is True


def test_new_faces_must_pass_the_gates_the_face_sets_were_made_with(run, library):
    library.make_trees(run, "--min-blur", 70)
    library.whole = with_values(library.whole, blur={16: 69.0, 17: 71.0}, face_short={18: 50.0})
    library.grow([16, 17, 18])
    result = ok(run, "extend", library.path, library.raw, "--refine-out", library.refined)
    assert (result["failed_gates"]["blurred"], result["failed_gates"]["small"]) == (1, 1)
    options = {row["because"]: (row["faces"], row["option"]) for row in result["gates"]}
    assert options == {"small": (1, "--min-short 60"), "blurred": (1, "--min-blur 70")}
    members = set().union(*library.facesets().values())
    assert members & library.faces([16, 17, 18]) == library.faces([17])


def test_of_two_new_faces_in_one_photo_a_face_set_takes_one(run, tmp_path):
    whole = make_cache(people=2, photos=20, root=str(tmp_path / "photos"))
    whole = move_face(whole, 18, to_file=17)  # photo 18 is gone, 19 and up move down by one
    library = Growing(tmp_path, whole, [*range(16), *range(19, 36)])
    library.make_trees(run)
    library.grow([17])
    ok(run, "extend", library.path, library.raw, "--refine-out", library.refined)
    members = set().union(*library.facesets().values())
    assert len(members & library.faces([17])) == 1


def test_extending_a_face_set_by_a_copy_places_the_copy(run, library):
    library.make_trees(run)
    twin = str(library.src / "backup" / "twin.jpg")
    library.save(with_twins(library.cache, {twin: 0}))
    result = ok(run, "extend", library.path, library.raw, "--refine-out", library.refined)
    assert (result["files_placed"], result["refined"]["files_placed"]) == (1, 1)
    assert_agrees(library.raw)
    assert_agrees(library.refined)


def test_without_refine_out_the_face_sets_stay_untouched(run, library):
    library.make_trees(run)
    before = tree(library.refined)
    library.grow()
    ok(run, "extend", library.path, library.raw)
    assert tree(library.refined) == before


# --- what changed meanwhile -------------------------------------------------


def test_faces_that_left_the_cache_leave_the_groups_but_not_the_disk(run, library):
    library.make_trees(run)
    raw, refined = photos_in(library.raw), photos_in(library.refined)
    gone = library.faces([0, 1])
    library.save(pick(library.whole, [row for row in library.first if row > 1] + [16]))
    ok(run, "extend", library.path, library.raw, "--refine-out", library.refined)
    for groups in (library.persons(), library.facesets()):
        members = set().union(*groups.values())
        assert not members & gone and library.faces([16]) <= members
    assert raw.items() <= photos_in(library.raw).items()
    assert refined.items() <= photos_in(library.refined).items()
    assert_agrees(library.raw)


def test_a_person_whose_faces_all_left_keeps_the_number(run, library):
    library.make_trees(run)
    library.save(pick(library.whole, [*range(20, 36), 40, *range(60, 70)]))
    ok(run, "extend", library.path, library.raw)
    sizes = {name: len(faces) for name, faces in library.persons().items()}
    assert sorted(sizes.values()) == [0, 1, 10, 16]
    assert sizes["person_003"] == 10


def test_photos_gone_from_the_source_stay_in_the_tree(run, library):
    library.make_trees(run)
    before = photos_in(library.raw)
    for row in (0, 21):
        Path(library.whole.file_path[row]).unlink()
    library.grow()
    result = ok(run, "extend", library.path, library.raw)
    assert result["files_missing"] == 0
    assert before.items() <= photos_in(library.raw).items()
    assert_agrees(library.raw)


def test_a_new_photo_gone_before_it_was_placed_is_not_listed(run, library):
    library.make_trees(run)
    library.grow()
    Path(library.whole.file_path[17]).unlink()
    result = ok(run, "extend", library.path, library.raw, warned="is gone and cannot be placed")
    assert result["files_missing"] == 1
    assert_agrees(library.raw)


def test_a_new_name_that_differs_only_in_case_leaves_the_old_file_alone(run, library):
    """NTFS folds case, so the newcomer's name must give way; no photo is placed twice."""
    library.make_trees(run)
    old = Path(library.whole.file_path[0])
    twin = old.with_name(old.name.upper())
    shutil.copy2(library.whole.file_path[16], twin)
    library.whole = with_values(library.whole, file_path={16: str(twin)})
    before = stamps(library.raw)
    library.grow([16])
    assert ok(run, "extend", library.path, library.raw)["files_placed"] == 1
    now = stamps(library.raw)
    assert {name: now.get(name) for name in before} == before
    assert len({name.casefold() for name in now}) == len(now) == len(before) + 1
    ok(run, "extend", library.path, library.raw)
    assert stamps(library.raw) == now


def test_foreign_files_stay_and_are_not_overwritten(run, library):
    library.make_trees(run)
    mine = library.raw / "person_001" / "mine.txt"
    mine.write_text("mine")
    library.grow()
    ok(run, "extend", library.path, library.raw)
    assert mine.read_text() == "mine"


def test_links_are_used_for_what_is_new(run, library):
    library.make_trees(run)
    library.grow([16])
    ok(run, "extend", library.path, library.raw, "--link", "sym")
    links = [path for path in library.raw.rglob("*.jpg") if path.is_symlink()]
    assert [os.readlink(path) for path in links] == [library.whole.file_path[16]]


def test_dry_run_leaves_everything_as_it_is(run, library):
    library.make_trees(run)
    library.grow()
    argv = ("extend", library.path, library.raw, "--refine-out", library.refined)
    before = tree(library.folder)
    planned = ok(run, *argv, "--dry-run")
    assert tree(library.folder) == before
    assert planned == ok(run, *argv)


def test_killed_while_placing_it_goes_on_where_it_stopped(run, library, tmp_path):
    library.make_trees(run)
    shutil.copytree(library.raw, tmp_path / "undisturbed")
    library.grow()
    old = count_files(library.raw)
    for more in (1, 15, 30):
        kill_when(
            lambda more=more: count_files(library.raw) >= old + more,
            "extend", library.path, library.raw,
        )  # fmt: skip
    ok(run, "extend", library.path, library.raw)
    ok(run, "extend", library.path, tmp_path / "undisturbed")
    assert tree(library.raw) == tree(tmp_path / "undisturbed")
    assert_agrees(library.raw)


# --- refusals ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "newer", "foreign", "absent"])
def test_a_file_that_is_no_cache_is_refused(run, library, kind):
    library.make_trees(run)
    before = tree(library.raw)
    bad = library.folder / "bad"
    bad.mkdir()
    refused(run, "extend", broken_caches(bad)[kind], library.raw, word=kind)
    assert tree(library.raw) == before


def test_a_tree_of_another_model_is_refused(run, library):
    library.make_trees(run)
    meta = changed(library.cache.meta, model="other", recognizer="0123456789abcdef")
    library.save(sf.replace(library.cache, meta=meta))
    before = tree(library.folder)
    refused(run, "extend", library.path, library.raw, word="made with synthetic")
    assert tree(library.folder) == before


def test_a_refined_tree_of_another_model_is_refused_before_the_raw_tree_changes(run, library):
    library.make_trees(run)
    path = library.refined / "refine_manifest.json"
    path.write_text(path.read_text().replace("feedfeedfeedfeed", "0123456789abcdef"))
    library.grow()
    before = tree(library.folder)
    refused(run, "extend", library.path, library.raw, "--refine-out", library.refined,
            word="made with")  # fmt: skip
    assert tree(library.folder) == before


def test_a_tree_of_another_library_is_refused(run, library, tmp_path):
    """None of its faces is in this cache: every file would be placed in it a second time."""
    library.make_trees(run)
    other = Library(tmp_path / "other", people=2, photos=20, seed=9)
    before = tree(library.folder)
    refused(run, "extend", other.path, library.raw, word=str(library.raw))
    refused(run, "extend", other.path, library.raw, "--refine-out", library.refined,
            word=str(library.folder))  # fmt: skip
    assert tree(library.folder) == before


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"tool": "sort_faces", "kind": "swap"}',
     '{"tool": "sort_faces", "kind": "raw", "recognizer": "feedfeedfeedfeed"}'],
)  # fmt: skip
def test_a_damaged_manifest_is_refused(run, library, text):
    library.make_trees(run)
    (library.raw / "manifest.json").write_text(text)
    refused(run, "extend", library.path, library.raw, word="manifest.json")


def test_a_folder_that_no_run_of_cluster_wrote_is_refused(run, library):
    refused(run, "extend", library.path, library.folder / "nowhere", word="manifest.json")
    refused(run, "extend", library.path, library.src, word="manifest.json")


def test_a_face_belongs_to_one_group_only(run, library):
    library.make_trees(run)
    library.grow()
    ok(run, "extend", library.path, library.raw, "--refine-out", library.refined)
    for groups in (library.persons(), library.facesets()):
        members = [face for faces in groups.values() for face in faces]
        assert len(members) == len(set(members))
    everyone = np.array(sorted(library.whole.face_ids))
    assert sorted(face for faces in library.persons().values() for face in faces) == list(everyone)


@pytest.mark.parametrize("tree", ["raw", "refined"])
def test_a_kill_while_the_manifest_is_away_is_no_end(run, library, monkeypatch, tree):
    """Between two renames a tree has no manifest; whoever needs it ends what was begun."""
    library.make_trees(run, "--min-faces", "5")
    library.grow()
    out = getattr(library, tree)
    name = "manifest.json" if tree == "raw" else "refine_manifest.json"
    rename = os.rename

    def cut(source, target):
        rename(source, target)
        if Path(source) == out / name:
            raise KeyboardInterrupt

    extend = ("extend", library.path, library.raw, "--refine-out", library.refined)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", cut)
        code, _, _ = run(*extend)
    assert code == 130
    assert not (out / name).exists()
    ok(run, *extend)
    assert_agrees(out)
    assert len(library.facesets()) == 4
