"""An export over an earlier one: a run like any other, which keeps what was decided before."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import sf
from corpora import (
    Death,
    Saboteur,
    assert_agrees,
    assert_clean,
    changes_of,
    content,
    exact,
    faces_in,
    files_of,
    name_of,
    read,
    wrong,
)
from exports import EACH, Photos, give_scores, in_use
from material import ok

pytestmark = pytest.mark.usefixtures("quick_disk")


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Photos:
    return Photos(tmp_path, monkeypatch)


def test_maintenance_stays_in_force_when_a_library_grows(run, photos):
    """Exported, maintained, grown, exported again; and back through every step to the byte."""
    root = photos.root
    small = (photos.rows(0, 0, 5), photos.rows(1, 0, 5), photos.rows(0, 5, 7), photos.rows(2, 0, 6),
             photos.rows(3, 0, 5))  # fmt: skip
    first = photos.export(run, *small)
    assert (first["cut"], photos.looked) == (23, 23)
    for folder, name in (("faceset_001", "Ada"), ("faceset_004", "Zoë")):
        (root / folder / "NAME.txt").write_text(f"{name}\n", encoding="utf-8")

    give_scores(root, {"faceset_002": ["faces/001.png"],
                       "faceset_005": [f"faces/00{n}.png" for n in range(3)]})  # fmt: skip
    hidden = faces_in(root, "faceset_002")[1]
    told = ok(run, "occlusion", "apply", root, "--min-survivors", 2)
    assert (told["dropped"], told["shelved"]) == (1, 1)
    assert ok(run, "consolidate", root, "--review", photos.folder / "review")["shelved"] == 1
    era = ok(run, "era", "split", root, "faceset_004", "--min-faces", 2)
    assert era["copied"] == 6
    (root / "faceset_002/faces/000.png").unlink()  # the operator's word
    deleted = faces_in(root, "faceset_002")[0]
    (root / "faceset_001/notes.txt").write_text("mine")

    grown = (photos.rows(0, 0, 5), photos.rows(1, 0, 8), photos.rows(0, 5, 8), photos.rows(2, 0, 8),
             photos.rows(3, 0, 6))  # fmt: skip
    plan = photos.export(run, *grown)
    assert (plan["cut"], photos.looked) == (7, 30)
    assert_agrees(root, ["faceset_001/notes.txt"])
    assert wrong(run, root) == [("faceset_001", "notes.txt", "unknown file")]
    sets = in_use(root)
    assert sets["faceset_001"] == set(photos.rows(0, 0, 8)) and "faceset_003" not in sets
    assert sets["faceset_002"] == set(photos.rows(1, 0, 8)) - {hidden, deleted}
    assert sets["faceset_004"] == set(photos.rows(2, 0, 8))
    eras = [faces for name, faces in sets.items() if name.startswith("faceset_004_")]
    assert set().union(*eras) == set(photos.rows(2, 0, 8)) and len(eras) == 2
    assert set(faces_in(root, "_masked/faceset_005")) == set(photos.rows(3, 0, 6))
    assert (name_of(root, "faceset_001"), name_of(root, "faceset_004")) == ("Ada", "Zoë")
    assert (root / "faceset_001/notes.txt").read_text() == "mine"
    dropped = read(root / "faceset_002/manifest.json")["dropped"]
    assert {hidden: "mask", deleted: "deleted by the operator"}.items() <= {
        gone["face"]: gone["reason"] for gone in dropped
    }.items()
    [kept] = [gone["file"] for gone in dropped if gone["face"] == hidden]
    assert (root / "faceset_002" / kept).is_file()

    for name in ("era-extend", "export-swap", "reconcile", "era-split", "consolidate"):
        assert ok(run, "restore", root)["undone"][0].split("-", 1)[1] == name


def test_every_step_goes_back_to_the_byte(run, photos):
    root = photos.root
    photos.export(run, photos.rows(0, 0, 5), photos.rows(0, 5, 7), photos.rows(1, 0, 5))
    states = [exact(root)]
    give_scores(root, {"faceset_003": ["faces/001.png"]})
    for argv in (
        ("occlusion", "apply", root, "--min-survivors", 2),
        ("consolidate", root, "--review", photos.folder / "review"),
        ("optimize", root, "--no-audit", "--twin-distance", 0.2),
    ):
        ok(run, *argv)
        states.append(exact(root))
    photos.export(run, photos.rows(1, 0, 8), photos.rows(0, 0, 8), photos.rows(2, 0, 5))
    assert exact(root) != states[-1] and len(in_use(root)) == 3
    for state in states[::-1]:
        ok(run, "restore", root)
        assert exact(root) == state


def test_the_heirs_keep_names_shelves_and_eras_when_the_numbers_change(run, photos):
    root = photos.root
    sets = photos.rows(0, 0, 8), photos.rows(1, 0, 7), photos.rows(2, 0, 6)
    photos.export(run, *sets)
    (root / "faceset_001/NAME.txt").write_text("Ada\n")
    ok(run, "era", "split", root, "faceset_001", "--min-faces", 2)
    before = in_use(root)
    photos.export(run, *sets[::-1])
    after = in_use(root)
    assert name_of(root, "faceset_003") == "Ada"
    assert after["faceset_003"] == before["faceset_001"]
    assert {name.replace("faceset_001", "faceset_003"): faces for name, faces in before.items()
            if name.startswith("faceset_001_")} == {
        name: faces for name, faces in after.items() if name.startswith("faceset_003_")
    }  # fmt: skip
    assert_agrees(root)
    assert_clean(run, root)
    ok(run, "restore", root)
    assert in_use(root) == before


def test_an_adopted_and_a_retouched_png_stay(run, photos):
    root = photos.root
    sets = photos.rows(0, 0, 5), photos.rows(1, 0, 5)
    photos.export(run, *sets)
    own = cv2.imencode(".png", np.full((128, 128, 3), 90, np.uint8))[1].tobytes()
    (root / "faceset_001/faces/mine.png").write_bytes(own)
    ok(run, "optimize", root, "--no-audit", "--no-near")  # takes it in
    touched = cv2.imencode(".png", np.full((128, 128, 3), 50, np.uint8))[1].tobytes()
    (root / "faceset_002/faces/001.png").write_bytes(touched)
    grown = photos.rows(0, 0, 6), photos.rows(1, 0, 6)
    assert photos.export(run, *grown)["cut"] == 2
    assert any(face["face"].endswith(":yours") for face in files_of(root, "faceset_001").values())
    pngs = {path.read_bytes() for path in (root / "faceset_001/faces").glob("*.png")}
    assert own in pngs and len(pngs) == 7
    assert touched in {path.read_bytes() for path in (root / "faceset_002/faces").glob("*.png")}
    assert_agrees(root)


def test_crops_of_photos_that_are_gone_stay(run, photos):
    root = photos.root
    photos.export(run, photos.rows(0, 0, 5))
    before = faces_in(root, "faceset_001")
    Path(photos.cache.file_path[0]).unlink()
    photos.export(run, photos.rows(0, 0, 6))
    assert len(faces_in(root, "faceset_001")) == len(before) + 1


def pngs_of(state: dict[str, str]) -> dict[str, str]:
    """The exported faces; of a set that cannot be read all files are kept in _yours as well."""
    return {n: sha for n, sha in state.items() if n.endswith(".png") and "_yours" not in n}


@pytest.mark.parametrize("what", ["PNG", "note"])
def test_a_crop_that_was_lost_is_cut_again(run, photos, what):
    root = photos.root
    photos.export(run, photos.rows(0, 0, 5), photos.rows(1, 0, 5))
    before = content(root)
    notes = root / "_scores" / "crops.jsonl"
    if what == "note":
        notes.write_text(notes.read_text()[:-30] + "\n")
    else:
        (root / "faceset_002/manifest.json").write_text("{}")
    assert photos.export(run, photos.rows(0, 0, 5), photos.rows(1, 0, 5))["cut"] >= 1
    assert pngs_of(content(root)) == pngs_of(before)


def test_a_dry_run_says_what_an_export_would_do(run, photos):
    root = photos.root
    photos.export(run, photos.rows(0, 0, 5), photos.rows(0, 5, 7), photos.rows(1, 0, 5))
    ok(run, "consolidate", root, "--review", photos.folder / "review")
    before = exact(root)
    argv = photos.command(photos.rows(0, 0, 5), photos.rows(0, 5, 8))
    told = ok(run, *argv, "--dry-run")
    assert exact(root) == before and photos.looked == 12
    assert told["to_cut"] == 1
    assert told["merged_as_before"] == ["faceset_002 into faceset_001"]
    assert told["set_aside"] == ["faceset_003"]
    assert told["facesets"] == [{"id": "faceset_001", "faces": 8, "left_out": 0}]


def test_a_death_at_any_moment_of_an_export_leaves_one_of_two_states(run, photos):
    """The run is the transaction; what was cut before the death is not cut again."""
    root = photos.root
    photos.export(run, photos.rows(0, 0, 3), photos.rows(1, 0, 3))
    (root / "faceset_001/NAME.txt").write_text("Ada\n")
    template = photos.folder / "template"
    root.rename(template)
    argv = photos.command(photos.rows(1, 0, 4), photos.rows(0, 0, 4), photos.rows(2, 0, 3))

    def fresh() -> Path:
        sf.shutil.rmtree(root, ignore_errors=True)
        return Path(sf.shutil.copytree(template, root))

    before = content(fresh())
    changes = changes_of(run, root, *argv)
    after = content(root)
    looked, seen = photos.looked, []
    for moment in range(1, changes + 1, 3):
        fresh()
        with Saboteur(root, "death", moment), contextlib.suppress(Death):
            run(*argv)
        with sf.opened_corpus(root):
            pass
        now = content(root)
        assert now in (before, after), moment
        seen.append(now == after)
        photos.looked = 0
        ok(run, *argv)  # fewer were cut, says the log of runs in the master manifest
        assert {**content(root), "manifest.json": ""} == {**after, "manifest.json": ""}
        assert photos.looked <= looked
    assert seen == sorted(seen) and set(seen) == {False, True}


def test_a_damaged_set_stays_in_the_master_list(run, photos):
    """restore and export of the others do not forget it."""
    root = photos.root
    photos.export(run, photos.rows(0, 0, 5), photos.rows(1, 0, 5))
    (root / "faceset_001/notes.txt").write_text("mine")
    ok(run, "optimize", root, "--no-audit", "--no-near", "--no-bytes")
    give_scores(root, {"faceset_001": ["faces/001.png"]})
    ok(run, "occlusion", "apply", root, "--min-survivors", 2)
    (root / "faceset_001/faces/000.png").unlink()
    (root / "faceset_002/manifest.json").write_text("{")
    code, out, _ = run("restore", root, "--json")
    assert code == 0
    told = json.loads(out)
    assert [entry["id"] for entry in read(root / "manifest.json")["facesets"]] == [
        "faceset_001", "faceset_002"
    ]  # fmt: skip
    assert told["taken_in"].split("-")[0] > told["undone"][0].split("-")[0]


def test_a_set_that_loses_more_than_half_says_by_which_gate_and_what_would_not(
    run, tmp_path, monkeypatch
):
    photos = Photos(tmp_path, monkeypatch)
    short = photos.cache.face_short.copy()
    rows = [photos.cache.row_of_face[face] for face in photos.rows(0, 0, EACH)]
    short[:] = 200
    short[rows] = [200, 201, 70, 75, 71.5, 79.25, 60, 72]
    photos.cache = sf.replace(photos.cache, face_short=short)
    sf.save_cache(tmp_path / "lib.npz", photos.cache)
    people = photos.rows(0, 0, EACH), photos.rows(1, 0, EACH)
    told = ok(run, *photos.command(*people), "--min-face-short", 80, "--min-survivors", 1)
    assert told["less_than_half"] == [
        {"id": "faceset_001", "kept": 2, "of": EACH, "faces": 6, "because": "face too small",
         "option": "--min-face-short 75 lets 2 more pass"},
    ]  # fmt: skip
    told = ok(run, *photos.command(*people), "--min-face-short", 75, "--min-survivors", 1)
    assert "less_than_half" not in told
    assert len(in_use(photos.root)["faceset_001"]) == EACH // 2
