"""An export over an earlier one: who is whose heir when sets merge, split, vanish or swap numbers.

Also what such an export finds on disk: retouched PNGs, torn crops, odd names, notes and manifests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import sf
from corpora import assert_agrees, edit, exact, faces_in, folders, name_of, picture, read
from exports import Photos, give_scores, in_use
from material import ok

pytestmark = pytest.mark.usefixtures("quick_disk")

TOUCHED = picture(5000)


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Photos:
    return Photos(tmp_path, monkeypatch)


def consolidate(run: Callable, photos: Photos) -> dict:
    return ok(run, "consolidate", photos.root, "--review", photos.folder / "review")


def split(run: Callable, root: Path, folder: str, least: int = 2) -> dict:
    return ok(run, "era", "split", root, folder, "--min-faces", least)


def mask(run: Callable, root: Path, folder: str) -> None:
    """A set all of whose faces are hidden goes to _masked."""
    files = [path.relative_to(root / folder).as_posix() for path in (root / folder).rglob("*.png")]
    give_scores(root, {folder: files})
    assert ok(run, "occlusion", "apply", root, "--min-survivors", 2)["shelved"] == 1


def call(root: Path, folder: str, name: str) -> None:
    (root / folder / "NAME.txt").write_text(f"{name}\n", encoding="utf-8")


def eras_of(root: Path, folder: str) -> dict[str, set[str]]:
    return {n: set(faces_in(root, n)) for n in folders(root) if n.startswith(f"{folder}_")}


def pngs_of(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in (folder / "faces").glob("*.png")}


# --- merged sets ------------------------------------------------------------


def test_a_merged_person_stays_one_set_while_the_numbers_go_round(run, photos) -> None:
    root, first, second = photos.root, photos.rows(0, 0, 5), photos.rows(0, 5, 8)
    photos.export(run, first, second, photos.rows(1, 0, 6))
    consolidate(run, photos)
    photos.export(run, photos.rows(1, 0, 6), second, first)
    assert in_use(root) == {"faceset_001": set(photos.rows(1, 0, 6)),
                            "faceset_003": set(first + second)}  # fmt: skip
    argv = photos.command(photos.rows(1, 0, 7), second, first)
    told = ok(run, *argv, "--dry-run")
    assert told["merged_as_before"] == ["faceset_002 into faceset_003"]
    ok(run, *argv)
    assert in_use(root) == {"faceset_001": set(photos.rows(1, 0, 7)),
                            "faceset_003": set(first + second)}  # fmt: skip
    [merged] = read(root / "manifest.json")["merged"]
    assert merged["reason"] == "same person as faceset_003"


def test_an_export_said_twice_changes_nothing_the_second_time(run, photos) -> None:
    """Also where the number of a merged set was given to another person."""
    root = photos.root
    sets = photos.rows(0, 0, 5), photos.rows(0, 5, 8), photos.rows(1, 0, 8)
    photos.export(run, *sets)
    consolidate(run, photos)
    photos.export(run, sets[2], *sets[:2])
    before = exact(root)
    photos.export(run, sets[2], *sets[:2])
    assert exact(root) == before


def test_a_merge_never_takes_in_another_person(run, photos) -> None:
    """Neither where all that changes is an option."""
    root, sets = photos.root, (photos.rows(0, 0, 4), photos.rows(0, 4, 8), photos.rows(1, 0, 4))
    photos.export(run, *sets)
    consolidate(run, photos)
    photos.export(run, sets[2], *sets[:2])
    ok(run, *photos.command(sets[2], *sets[:2]), "--outlier-threshold", 0.9)
    assert in_use(root) == {"faceset_001": set(sets[2]), "faceset_002": set(sets[0] + sets[1])}


def test_the_parts_of_a_merge_stay_one_set_when_its_survivor_vanishes(run, photos) -> None:
    root = photos.root
    parts = photos.rows(0, 4, 6), photos.rows(0, 6, 8)
    photos.export(run, photos.rows(0, 0, 4), *parts, photos.rows(1, 0, 5))
    assert consolidate(run, photos)["shelved"] == 2
    (root / "faceset_001/notes.txt").write_text("mine")
    photos.export(run, *parts, photos.rows(1, 0, 5))
    assert set(parts[0] + parts[1]) in in_use(root).values()
    assert set(photos.rows(1, 0, 5)) in in_use(root).values()
    assert len(in_use(root)) == 2


def test_parts_of_a_merge_without_a_face_to_export_are_no_error(run, photos) -> None:
    parts = photos.rows(0, 4, 6), photos.rows(0, 6, 8)
    photos.export(run, photos.rows(0, 0, 4), *parts, photos.rows(1, 0, 5))
    consolidate(run, photos)
    argv = (*photos.command(*parts, photos.rows(1, 0, 5)), "--min-face-short", 9999)
    told = ok(run, *argv, warned="no face passed; nothing exported", code=1)
    assert (told["facesets"], in_use(photos.root)) == ([], {})


@pytest.mark.parametrize("merged", [True, False], ids=["merged before", "in use"])
def test_a_deleted_face_stays_deleted_when_refine_merges_its_set(run, photos, merged) -> None:
    root = photos.root
    photos.export(run, photos.rows(0, 0, 5), photos.rows(0, 5, 8), photos.rows(1, 0, 5))
    deleted = faces_in(root, "faceset_002")[0]
    (root / "faceset_002/faces/000.png").unlink()
    if merged:
        consolidate(run, photos)
    photos.export(run, photos.rows(0, 0, 8), photos.rows(1, 0, 5))
    assert in_use(root)["faceset_001"] == set(photos.rows(0, 0, 8)) - {deleted}


# --- eras and shelves -------------------------------------------------------


def test_eras_of_a_merged_set_take_in_nobody_who_gets_its_number(run, photos) -> None:
    root = photos.root
    photos.export(run, photos.rows(0, 0, 5), photos.rows(0, 5, 8), photos.rows(1, 0, 6))
    split(run, root, "faceset_002")
    consolidate(run, photos)
    other = photos.rows(2, 0, 8)
    photos.export(run, photos.rows(0, 0, 8), other, photos.rows(1, 0, 6))
    assert not any(faces & set(other) for faces in eras_of(root, "_merged/faceset_002").values())
    assert not eras_of(root, "faceset_002") and not eras_of(root, "_thin/faceset_002")
    split(run, root, "faceset_002")  # it has none yet
    assert set().union(*eras_of(root, "faceset_002").values()) == set(other)


def test_eras_stay_when_the_masked_set_of_the_same_number_gets_another(run, photos) -> None:
    root, first = photos.root, photos.rows(2, 0, 5)
    hidden, other = photos.rows(0, 0, 5), photos.rows(1, 0, 8)
    photos.export(run, first, hidden)
    mask(run, root, "faceset_002")
    photos.export(run, first, other)
    split(run, root, "faceset_002")
    before = eras_of(root, "faceset_002")
    photos.export(run, first, other, hidden)  # who was not in refine for a while
    assert eras_of(root, "faceset_002") == before and len(before) == 2
    assert not eras_of(root, "faceset_003")
    assert set(faces_in(root, "_masked/faceset_003")) == set(hidden)


def shelf_reasons(root) -> list[str]:
    """Why each masked set lies there."""
    return [
        entry["reason"] for entry in json.loads((root / "manifest.json").read_bytes())["masked"]
    ]


def test_of_two_heirs_of_a_masked_set_one_stays_masked(run, photos) -> None:
    """The same one, whatever its number."""
    root, other = photos.root, photos.rows(1, 0, 5)
    photos.export(run, photos.rows(0, 0, 8), other)
    mask(run, root, "faceset_001")
    halves = photos.rows(0, 0, 4), photos.rows(0, 4, 8)
    reason = shelf_reasons(root)
    photos.export(run, other, *halves)
    assert shelf_reasons(root) == reason and "same person" not in reason[0]
    assert folders(root) == {"faceset_001", "_masked/faceset_002", "faceset_003"}
    assert set(faces_in(root, "_masked/faceset_002")) == set(halves[0])
    photos.export(run, other, *halves[::-1])
    assert folders(root) == {"faceset_001", "faceset_002", "_masked/faceset_003"}
    assert set(faces_in(root, "_masked/faceset_003")) == set(halves[0])
    assert_agrees(root)


def test_a_thin_era_of_a_vanished_person_is_set_aside_with_the_others(run, photos) -> None:
    """The era that gets its number does not replace it."""
    root, gone, other = photos.root, photos.rows(0, 0, 7), photos.rows(1, 0, 7)
    photos.export(run, gone, other)
    for folder in ("faceset_001", "faceset_002"):
        split(run, root, folder, least=4)
    before = {folder: set(faces_in(root, folder)) for folder in folders(root)}
    photos.export(run, other)
    assert_agrees(root)
    after = {folder: set(faces_in(root, folder)) for folder in folders(root)}
    assert after == {folder.replace("faceset_002", "faceset_001"): faces
                     for folder, faces in before.items() if faces <= set(other)}  # fmt: skip
    aside = {folder: faces for folder, faces in before.items() if faces <= set(gone)}
    assert len(aside) == len(after) == 3 and "_thin/faceset_001_2001" in aside
    assert {folder: set(faces_in(root, f"_removed/{folder}")) for folder in aside} == aside


# --- names and notes --------------------------------------------------------


def test_two_people_of_one_name_keep_it(run, photos) -> None:
    root, sets = photos.root, (photos.rows(0, 0, 5), photos.rows(1, 0, 5))
    photos.export(run, *sets)
    for folder in ("faceset_001", "faceset_002"):
        call(root, folder, "Ada")
    photos.export(run, *sets)
    assert [name_of(root, folder) for folder in in_use(root)] == ["Ada", "Ada"]


def test_a_new_name_outdoes_the_one_in_removed(run, photos) -> None:
    root, sets = photos.root, (photos.rows(0, 0, 5), photos.rows(1, 0, 5))
    photos.export(run, *sets)
    call(root, "faceset_001", "Ada")
    ok(run, *photos.command(sets[1]), warned="the name 'Ada' fits no face set any more")
    photos.export(run, *sets)
    assert name_of(root, "faceset_001") == "Ada"
    call(root, "faceset_001", "Ada Lovelace")
    photos.export(run, *sets)
    assert name_of(root, "faceset_001") == "Ada Lovelace"


def test_a_name_that_is_no_utf8_keeps_its_bytes(run, photos) -> None:
    photos.export(run, photos.rows(0, 0, 5))
    name = photos.root / "faceset_001/NAME.txt"
    name.write_bytes("Zoë\n".encode("latin-1"))
    photos.export(run, photos.rows(0, 0, 6))
    assert name.read_bytes() == "Zoë\n".encode("latin-1")


def test_restore_gives_names_and_notes_back_to_the_person_not_the_number(run, photos) -> None:
    root, sets = photos.root, (photos.rows(0, 0, 5), photos.rows(1, 0, 5))
    photos.export(run, *sets)
    call(root, "faceset_001", "Ada")
    call(root, "faceset_002", "Bob")
    photos.export(run, *sets[::-1])
    assert name_of(root, "faceset_002") == "Ada"
    call(root, "faceset_002", "Ada Lovelace")
    (root / "faceset_002/notes.txt").write_text("on Ada")
    (root / "faceset_002/faces/000.png").unlink()
    ok(run, "restore", root)
    assert name_of(root, "faceset_001") == "Ada Lovelace"
    assert name_of(root, "faceset_002") == "Bob"
    assert (root / "faceset_001/notes.txt").read_text() == "on Ada"
    assert not (root / "faceset_002/notes.txt").exists()


def test_notes_go_with_the_person_not_to_a_new_one_of_the_number(run, photos) -> None:
    root, sets = photos.root, (photos.rows(0, 0, 5), photos.rows(1, 0, 5))
    photos.export(run, *sets)
    (root / "faceset_001/notes.txt").write_text("on Ada")
    photos.export(run, photos.rows(2, 0, 5), *sets[::-1])
    assert (root / "faceset_003/notes.txt").read_text() == "on Ada"
    assert not (root / "faceset_001/notes.txt").exists()


def test_files_carried_over_never_overwrite_one_another(tmp_path) -> None:
    old, stage = tmp_path / "old", tmp_path / "stage"
    (old / sf.YOURS).mkdir(parents=True)
    stage.mkdir()
    for name in "abcdefgh":  # in whatever order they are met
        (old / name).write_text(f"mine {name}")
        (old / sf.YOURS / name).write_text(f"mine {name}, earlier")
        (stage / name).write_text(f"the tool's {name}")
    manifest = {"kind": "faceset", "files": ["manifest.json"]}
    (old / "manifest.json").write_text(json.dumps(manifest))
    sf.carry_over(old, stage)
    found = {path.read_text() for path in stage.rglob("*") if path.is_file()}
    kinds = "mine {}", "mine {}, earlier", "the tool's {}"
    assert found == {kind.format(name) for kind in kinds for name in "abcdefgh"}


# --- what lies there --------------------------------------------------------


@pytest.mark.parametrize("last", [6, 7], ids=["same", "grown"])
def test_a_retouched_png_stays_at_the_second_export_too(run, photos, last) -> None:
    root = photos.root
    photos.export(run, photos.rows(0, 0, 5))
    (root / "faceset_001/faces/001.png").write_bytes(TOUCHED)
    for rows in (6, last):
        photos.export(run, photos.rows(0, 0, rows))
        assert TOUCHED in pngs_of(root / "faceset_001")


def test_a_crop_torn_by_a_power_cut_is_cut_again(run, photos, monkeypatch) -> None:
    root, argv = photos.root, photos.command(photos.rows(0, 0, 5))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sf, "stage_sets", stop)
        run(*argv)
    torn = min((root / "_scores/crops").glob("*.png"))
    torn.write_bytes(b"")
    assert ok(run, *argv)["cut"] == 1
    assert b"" not in pngs_of(root / "faceset_001") and len(in_use(root)["faceset_001"]) == 5
    assert_agrees(root)


def test_a_candidate_whose_file_lies_outside_is_not_taken_for_a_crop(run, photos) -> None:
    root = photos.root
    photos.export(run, photos.rows(0, 0, 5))
    sha = read(root / "faceset_001/manifest.json")["faces"][0]["sha256"]
    (photos.folder / "secret.txt").write_text("secret")
    sf.shutil.rmtree(root / "faceset_001")
    face = {"face": "x", "sha256": sha, "quality": 1, "file": str(photos.folder / "secret.txt")}
    head = {"tool": "sort_faces", "kind": "candidates", "files": []}
    (root / "_candidates").mkdir()
    (root / "_candidates/manifest.json").write_text(json.dumps({**head, "faces": [face]}))
    run(*photos.command(photos.rows(0, 0, 5)))
    assert b"secret" not in pngs_of(root / "faceset_001")
    assert len(in_use(root)["faceset_001"]) == 5


@pytest.mark.parametrize("command", ["export", "verify", "fix", "optimize", "restore"])
def test_a_file_name_in_a_manifest_is_no_pattern(run, photos, command) -> None:
    root, other = photos.root, photos.rows(1, 0, 5)
    photos.export(run, photos.rows(0, 0, 5), other)
    if command == "restore":
        photos.export(run, photos.rows(0, 0, 6), other)
    manifest = root / "faceset_001/manifest.json"
    edit(manifest, lambda value: value["faces"][0].update(file="faces/**.png"))
    if command == "verify":
        assert ok(run, "verify", root, "--no-faces", code=1)["wrong"]
    elif command == "fix":
        ok(run, "verify", root, "--no-faces", "--fix", code=1)
        ok(run, "verify", root, "--apply", f"{root}-verify.json")
    else:
        argv = {
            "export": photos.command(photos.rows(0, 0, 6), other),
            "optimize": ("optimize", root, "--no-audit"),
            "restore": ("restore", root),
        }
        ok(run, *argv[command])
        assert_agrees(root)


@pytest.mark.parametrize("name", ["x\0y", "\ud800x"], ids=["zero byte", "lone surrogate"])
@pytest.mark.parametrize("state", ["applying", "restoring"])
def test_a_journal_with_a_name_no_file_can_have_is_not_usable(run, photos, name, state) -> None:
    root = photos.root
    photos.export(run, photos.rows(0, 0, 5))
    step = ["faceset_001", name]
    journal = {"tool": "sort_faces", "kind": "journal", "version": "1", "run": "0002-x",
               "state": state, "steps": [step if state == "applying" else step[::-1]]}  # fmt: skip
    (root / "_runs/0002-x").mkdir()
    (root / "_runs/0002-x/journal.json").write_text(json.dumps(journal))
    before = exact(root)
    assert ok(run, "verify", root, "--no-faces", warned="no usable journal")["wrong"] == 0
    assert exact(root) == before
