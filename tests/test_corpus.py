"""Corpus maintenance: plans, journals, restoring, what operators do by hand, kills, verify."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import filelock
import numpy as np
import PIL.Image
import pytest
from conftest import sf
from corpora import (
    DIM,
    SIZE,
    TOP_N,
    Death,
    Face,
    Saboteur,
    Space,
    assert_agrees,
    assert_clean,
    audits_of,
    axis,
    build,
    changes_of,
    content,
    copied,
    edit,
    exact,
    faces_in,
    files_of,
    folders,
    give_audits,
    killed,
    lasts,
    name_of,
    picture,
    planned,
    read,
    recover,
    rewrite,
    wrong,
)
from material import ok, refused

pytestmark = pytest.mark.usefixtures("quick_disk")

KILLS = 15  # of apply, and as many of restore
IDLE = ("--no-bytes", "--no-near", "--no-audit")  # optimize, but only what the operator did
KINDS = ("consolidate", "era", "optimize")


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """Four sets of three people with something to do for every command; only read.

    001 and 002 are one person. 003 holds a byte copy of a face of 004, which is dated, holds a
    near copy and is named.
    """
    space = Space()
    dated = [space.face(2, year=year) for year in (2001, 2002, 2001, 2015)]
    shared = space.face(2, year=2016, picture=7)
    sets = [
        space.faces(0, 6),
        space.faces(0, 4),
        [*space.faces(1, 5), Face(shared.vector, picture=7)],
        [*dated, shared, space.near(dated[0], 0.97, year=2001)],
    ]
    return build(tmp_path_factory.mktemp("template"), sets, {2: "Ada", 4: "Zoë Ω"})


@pytest.fixture(scope="module")
def couple(tmp_path_factory) -> Path:
    """One person in two sets, the smaller one named; only read."""
    space = Space()
    folder = tmp_path_factory.mktemp("couple")
    return build(folder, [space.faces(0, 3), space.faces(0, 2)], {2: "Ada"})


@pytest.fixture
def root(template, tmp_path) -> Path:
    return copied(template, tmp_path / "ready")


def command(kind: str, root: Path) -> tuple:
    return {
        "consolidate": ("consolidate", root, "--review", root.parent / "review"),
        "era": ("era", "split", root, "faceset_004", "--min-faces", 3),
        "optimize": ("optimize", root, "--no-audit"),
        "idle": ("optimize", root, *IDLE),
    }[kind]


def do(run: Callable, kind: str, root: Path) -> dict:
    result = ok(run, *command(kind, root))
    assert result["moves"], "nothing happened; the test proves nothing"
    return result


# --- plan, dry run, apply ---------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_writes_a_readable_plan_and_changes_nothing(run, root, tmp_path, kind):
    before = exact(root)
    moves = planned(run, tmp_path / "plan.json", *command(kind, root))
    assert exact(root) == before and moves
    for move in moves:
        assert list(move) == ["action", "faceset", "file", "from", "to", "reason", "numbers"]
        assert move["reason"] and isinstance(move["numbers"], dict)
        assert (root / move["from"]).exists()
        assert move["faceset"] in move["from"] and move["from"].endswith(move["file"])
    numbers = [move["numbers"] for move in moves if move["action"] in ("copy", "drop")]
    assert all(set(given) & {"distance", "cosine"} for given in numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_applying_a_plan_does_what_the_command_would(run, root, template, tmp_path, kind):
    plan = tmp_path / "plan.json"
    planned(run, plan, *command(kind, root))
    ok(run, *command(kind, root), "--apply", plan)
    by_plan = content(root)
    do(run, kind, copied(template, root))
    assert content(root) == by_plan


def test_applying_a_plan_dry_changes_nothing(run, root, tmp_path):
    planned(run, tmp_path / "plan.json", *command("consolidate", root))
    before = exact(root)
    result = ok(run, *command("consolidate", root), "--apply", tmp_path / "plan.json", "--dry-run")
    assert result["moves"] and exact(root) == before


def test_applying_an_edited_plan_does_what_is_left_of_it(run, root, tmp_path):
    plan = tmp_path / "plan.json"
    moves = planned(run, plan, *command("optimize", root))
    assert len(moves) == 2
    kept, removed = moves
    edit(plan, lambda value: value.update(moves=[kept]))
    result = ok(run, *command("optimize", root), "--apply", plan)
    assert result["dropped"] == 1
    assert not (root / kept["from"]).exists() or kept["from"] not in files_of(root, kept["faceset"])
    assert removed["file"] in files_of(root, removed["faceset"])
    assert_agrees(root)
    assert_clean(run, root)


def test_the_runs_are_told_in_the_master_manifest(run, root):
    for kind in KINDS:
        do(run, kind, root)
    runs = read(root / "manifest.json")["runs"]
    assert [entry["command"] for entry in runs] == [
        "export-swap", "consolidate", "era split", "optimize",
    ]  # fmt: skip
    for entry in runs[1:]:
        assert entry["params"] and entry["counts"] and entry["at"] and entry["id"]
    assert runs[-1]["counts"] == {"dropped": 3}  # the byte copy, and the near copy in two sets


def bad(change: Callable[[dict], object]) -> Callable[[dict], object]:
    """A plan whose first move is spoilt."""
    return lambda plan: change(plan["moves"][0])


BAD_PLANS = {
    "unknown action": bad(lambda move: move.update(action="delete")),
    "no action": bad(lambda move: move.pop("action")),
    "from outside": bad(lambda move: move.update({"from": "../faceset_003/faces/000.png"})),
    "from climbs": bad(
        lambda move: move.update({"from": "faceset_003/faces/../../faceset_001/faces/000.png"})
    ),
    "from absolute": bad(lambda move: move.update({"from": "/etc/passwd"})),
    "to climbs": bad(lambda move: move.update(to="faceset_003/faces/_dropped/../../../../x.png")),
    "to outside": bad(lambda move: move.update(to="../x.png")),
    "to another set": bad(lambda move: move.update(to="faceset_001/faces/_dropped/005.png")),
    "to a number": bad(lambda move: move.update(to=5)),
    "from is missing": bad(lambda move: move.update({"from": "faceset_003/faces/099.png"})),
    "no such set": bad(
        lambda move: move.update(
            {"from": "faceset_099/faces/000.png", "to": "faceset_099/faces/_dropped/000.png"}
        )
    ),
    "a move is text": lambda plan: plan.update(moves=["drop"]),
    "a move is null": lambda plan: plan["moves"].append(None),
    "the same move twice": lambda plan: plan["moves"].append(plan["moves"][0]),
    "two files to one place": lambda plan: plan["moves"].append(
        {**plan["moves"][0], "file": "faces/000.png", "from": "faceset_003/faces/000.png"}
    ),
    "an unknown new set": lambda plan: plan["moves"].append(
        {**plan["moves"][0], "action": "copy", "to": "faceset_077/faces/"}
    ),
    "sets are nonsense": lambda plan: plan.update(
        sets={"faceset_077": "?"},
        moves=[{**plan["moves"][0], "action": "copy", "to": "faceset_077/faces/"}],
    ),
    "shelved under another name": lambda plan: plan["moves"].append(
        {"action": "shelve", "from": "faceset_001", "to": "_thin/faceset_777"}
    ),
    "two sets to one shelf": lambda plan: plan["moves"].extend(
        {"action": "shelve", "from": name, "to": "_thin/faceset_001"}
        for name in ("faceset_001", "faceset_002")
    ),
    "shelved twice": lambda plan: plan["moves"].extend(
        {"action": "shelve", "from": "faceset_001", "to": f"{shelf}/faceset_001"}
        for shelf in ("_thin", "_masked")
    ),
    "adopting what is listed": lambda plan: plan["moves"].append(
        {"action": "adopt", "from": "faceset_001/faces/000.png", "to": "faceset_001/faces/000.png"}
    ),
    "no moves": lambda plan: plan.pop("moves"),
    "of another tool": lambda plan: plan.update(tool="other"),
    "another command": lambda plan: plan.update(command="consolidate"),
    "another corpus": lambda plan: plan.update(corpus="/elsewhere"),
    "an older state": lambda plan: plan.update(state="0" * 16),
}


@pytest.mark.parametrize("what", BAD_PLANS)
def test_a_bad_plan_is_one_line_and_changes_nothing(run, root, tmp_path, what):
    plan = tmp_path / "plan.json"
    planned(run, plan, *command("optimize", root))
    edit(plan, BAD_PLANS[what])
    before = exact(root)
    refused(run, *command("optimize", root), "--apply", plan, word="")
    assert exact(root) == before


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b'"plan"'])
def test_a_plan_that_is_no_plan_is_refused(run, root, tmp_path, data):
    (tmp_path / "plan.json").write_bytes(data)
    before = exact(root)
    refused(run, *command("optimize", root), "--apply", tmp_path / "plan.json", word="plan.json")
    assert exact(root) == before


def test_a_plan_for_an_older_state_is_refused(run, root, tmp_path):
    plan = tmp_path / "plan.json"
    planned(run, plan, *command("optimize", root))
    do(run, "consolidate", root)
    before = exact(root)
    refused(run, *command("optimize", root), "--apply", plan, word="changed")
    assert exact(root) == before
    ok(run, "restore", root)
    ok(run, *command("optimize", root), "--apply", plan)  # the old state again


def test_a_plan_made_before_the_operator_deleted_a_png_is_refused(run, root, tmp_path):
    plan = tmp_path / "plan.json"
    planned(run, plan, *command("optimize", root))
    (root / "faceset_001/faces/001.png").unlink()
    before = exact(root)
    refused(run, *command("optimize", root), "--apply", plan, word="changed")
    assert exact(root) == before


def test_a_plan_for_another_corpus_is_refused(run, root, template, tmp_path):
    plan = tmp_path / "plan.json"
    planned(run, plan, *command("optimize", root))
    other = copied(template, tmp_path / "other")
    before = exact(other)
    refused(run, *command("optimize", other), "--apply", plan, word="ready")
    assert exact(other) == before


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_command_everything_agrees_and_names_are_kept(run, root, kind):
    assert_agrees(root)
    assert_clean(run, root)
    do(run, kind, root)
    assert_agrees(root)
    assert_clean(run, root)
    assert name_of(root, "faceset_004") == "Zoë Ω"
    if kind == "consolidate":
        assert name_of(root, "faceset_001") == "Ada"
        assert name_of(root, "_merged/faceset_002") == "Ada"
        entries = {e["id"]: e["name"] for e in read(root / "manifest.json")["facesets"]}
        assert entries["faceset_001"] == "Ada"


def test_a_command_with_nothing_to_do_makes_no_run(run, root):
    before = exact(root)
    result = ok(run, *command("idle", root))
    assert result["run"] == "none: nothing to do" and exact(root) == before


# --- restore ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_undone_to_the_byte(run, root, kind):
    before = exact(root)
    result = do(run, kind, root)
    assert exact(root) != before
    undone = ok(run, "restore", root)
    assert undone["undone"] == [result["run"]] and undone["left"] == []
    assert exact(root) == before


@pytest.mark.parametrize("order", list(itertools.permutations(KINDS)), ids="-".join)
def test_all_runs_together_are_undone_to_the_byte(run, root, order):
    states, names = [exact(root)], []
    for kind in order:
        names.append(do(run, kind, root)["run"])
        assert_agrees(root)
        states.append(exact(root))
    undone = ok(run, "restore", root, names[1])  # and with it the one after
    assert undone["undone"] == [names[2], names[1]] and undone["left"] == [names[0]]
    assert exact(root) == states[1]
    ok(run, "restore", root, names[0][:4])
    assert exact(root) == states[0]


def test_without_a_name_the_last_run_is_undone(run, root):
    do(run, "consolidate", root)
    between = exact(root)
    do(run, "optimize", root)
    ok(run, "restore", root)
    assert exact(root) == between


def test_a_restored_run_can_be_made_again(run, root):
    do(run, "consolidate", root)
    once = content(root)
    ok(run, "restore", root)
    do(run, "consolidate", root)
    assert content(root) == once


def test_restore_dry_run_changes_nothing(run, root):
    name = do(run, "optimize", root)["run"]
    before = exact(root)
    assert ok(run, "restore", root, "--dry-run")["undone"] == [name]
    assert exact(root) == before


def test_there_may_be_nothing_to_undo(run, root):
    before = exact(root)
    refused(run, "restore", root, word="no maintenance run")
    assert exact(root) == before


@pytest.mark.parametrize("name", ["0009", "9", "", "consolidate", "../0001", "0001-other"])
def test_an_unknown_run_is_one_line(run, root, name):
    do(run, "optimize", root)
    before = exact(root)
    refused(run, "restore", root, name, word="0001-optimize")
    assert exact(root) == before


def test_the_operators_new_name_survives_restore(run, root):
    do(run, "consolidate", root)
    for name in ("faceset_001", "faceset_003", "_merged/faceset_002"):
        (root / name / "NAME.txt").write_text(f"New {name}\n", encoding="utf-8")
    ok(run, "restore", root)
    assert name_of(root, "faceset_001") == "New faceset_001"
    assert name_of(root, "faceset_003") == "New faceset_003"
    assert name_of(root, "faceset_002") == "New _merged/faceset_002"
    assert name_of(root, "faceset_004") == "Zoë Ω"
    assert_agrees(root)
    assert_clean(run, root)


def test_an_inherited_name_goes_back_with_its_run(run, root):
    do(run, "consolidate", root)
    ok(run, "restore", root)
    assert name_of(root, "faceset_001") == "unnamed" and name_of(root, "faceset_002") == "Ada"


def test_files_of_the_operator_survive_a_run_and_its_restore(run, root):
    mine = {"faceset_001/notes.txt": "early", "notes.txt": "top", "faceset_003/a/b.txt": "deep"}
    later = {"faceset_001/later.txt": "late", "faceset_004/x/y.txt": "deep and late"}
    for file, text in mine.items():
        sf.write_part(root / file, text.encode())
    do(run, "consolidate", root)
    do(run, "optimize", root)
    assert {file: (root / file).read_text() for file in mine} == mine
    for file, text in later.items():
        sf.write_part(root / file, text.encode())
    assert_agrees(root, foreign={*mine, *later})
    ok(run, "restore", root, "1")
    for file, text in {**mine, **later}.items():
        assert (root / file).read_text() == text
    assert_agrees(root, foreign={*mine, *later})


def test_what_the_operator_put_into_a_set_that_goes_is_kept(run, root):
    do(run, "era", root)
    [era] = [name for name in folders(root) if name.startswith("faceset_004_")]
    (root / era / "notes.txt").write_text("mine")
    (root / era / "NAME.txt").write_text("Young Zoë")
    ok(run, "restore", root)
    assert not (root / era).exists()
    kept = list((root / "_removed").rglob("notes.txt"))
    assert [path.read_text() for path in kept] == ["mine"]
    assert_agrees(root)


def test_a_name_file_deleted_after_a_run_is_no_obstacle(run, root):
    do(run, "optimize", root)
    (root / "faceset_004/NAME.txt").unlink()
    ok(run, "restore", root)
    assert_agrees(root)
    do(run, "optimize", root)


def test_a_png_retouched_in_one_set_is_not_retouched_in_others(run, root):
    """Editors write into the file they opened; copies of it must be copies."""
    parent = exact(root / "faceset_004")
    do(run, "era", root)
    [era] = [name for name in folders(root) if name.startswith("faceset_004_")]
    with open(root / era / "faces/000.png", "r+b") as stream:
        stream.write(picture(4712))
    assert exact(root / "faceset_004") == parent


def test_a_png_retouched_after_a_run_is_kept_and_the_state_before_is_not_touched(run, root):
    before = exact(root)
    file = "faceset_004/faces/000.png"
    do(run, "optimize", root)
    [kept] = (root / "_runs").glob(f"*/before/{file}")
    with open(root / file, "r+b") as stream:
        stream.write(picture(4712))
    retouched = sf.sha256_of_file(root / file)
    assert sf.sha256_of_file(kept) == before[file] != retouched
    ok(run, "restore", root)
    assert exact(root) == {**before, file: retouched}


def test_a_png_deleted_after_a_run_stays_deleted_after_restore(run, root):
    do(run, "optimize", root)
    victim = files_of(root, "faceset_004")["faces/001.png"]
    (root / "faceset_004/faces/001.png").unlink()
    ok(run, "restore", root)
    assert victim["face"] not in faces_in(root, "faceset_004")
    assert_agrees(root)
    assert_clean(run, root)
    bundle = zipfile.ZipFile(root / "faceset_004/faceset_004.fsz")
    assert len(bundle.namelist()) == 5


def test_a_png_deleted_before_a_run_stays_deleted_after_restore(run, root):
    victim = files_of(root, "faceset_004")["faces/001.png"]
    (root / "faceset_004/faces/001.png").unlink()
    do(run, "optimize", root)
    assert victim["face"] not in faces_in(root, "faceset_004")
    ok(run, "restore", root)
    assert victim["face"] not in faces_in(root, "faceset_004")
    assert_agrees(root)
    assert_clean(run, root)


def test_a_png_added_after_a_run_survives_restore_and_overwrites_nothing(run, root):
    """The next free number after the run was a face of the set before it."""
    before = {face["sha256"] for face in files_of(root, "faceset_004").values()}
    do(run, "optimize", root)
    assert not (root / "faceset_004/faces/005.png").exists()
    mine = picture(4711)
    (root / "faceset_004/faces/005.png").write_bytes(mine)
    ok(run, "restore", root)
    after = {face["sha256"] for face in files_of(root, "faceset_004").values()}
    assert after == before | {sf.hashlib.sha256(mine).hexdigest()}
    assert_agrees(root)
    assert_clean(run, root)


def test_a_png_the_operator_took_back_is_there_once_after_restore(run, root):
    before = sorted(face["sha256"] for face in files_of(root, "faceset_004").values())
    do(run, "optimize", root)
    [dropped] = (root / "faceset_004/faces/_dropped").iterdir()
    dropped.rename(root / "faceset_004/faces/mine.png")
    ok(run, "restore", root)
    assert sorted(face["sha256"] for face in files_of(root, "faceset_004").values()) == before
    assert_agrees(root)
    assert_clean(run, root)


def test_restores_after_reconciling_come_to_an_end(run, root):
    """What the operator did cannot be undone by restoring for ever."""
    (root / "faceset_001/faces/001.png").unlink()
    do(run, "consolidate", root)
    for _ in range(4):
        code, _, err = run("restore", root, "--json")
        if code == 2:
            break
    assert "no maintenance run" in err


# --- what the operator does by hand -----------------------------------------


def delete_png(root: Path) -> None:
    (root / "faceset_001/faces/002.png").unlink()


def delete_all_pngs(root: Path) -> None:
    for path in (root / "faceset_002/faces").iterdir():
        path.unlink()


def add_png(root: Path) -> None:
    (root / "faceset_001/faces/mine.png").write_bytes(picture(99))


def add_many_pngs(root: Path) -> None:
    for number in range(4):
        (root / f"faceset_003/faces/{number + 6:03d}.png").write_bytes(picture(200 + number))


def to_dropped(root: Path) -> None:
    (root / "faceset_001/faces/_dropped").mkdir(exist_ok=True)
    (root / "faceset_001/faces/003.png").rename(root / "faceset_001/faces/_dropped/003.png")


def swap_two(root: Path) -> None:
    faces = root / "faceset_001/faces"
    (faces / "000.png").rename(faces / "x")
    (faces / "001.png").rename(faces / "000.png")
    (faces / "x").rename(faces / "001.png")


def delete_bundle(root: Path) -> None:
    (root / "faceset_001/faceset_001.fsz").unlink()


def delete_bundles(root: Path) -> None:
    for bundle in root.rglob("*.fsz"):
        bundle.unlink()


def retouch(root: Path) -> None:
    (root / "faceset_001/faces/000.png").write_bytes(picture(98))


BY_HAND = (delete_png, delete_all_pngs, add_png, add_many_pngs, to_dropped, delete_bundle,
           delete_bundles)  # fmt: skip


@pytest.mark.parametrize("action", BY_HAND)
def test_what_the_operator_did_is_reported_and_taken_in(run, root, action):
    action(root)
    assert {rule for _, _, rule in wrong(run, root)} >= {"by hand"}
    on_disk = {path for path in exact(root) if path.endswith(".png")}
    hand = {exact(root)[path] for path in on_disk if "_dropped" not in path}
    do(run, "idle", root)
    assert_agrees(root)
    assert_clean(run, root)
    after = {sha for path, sha in exact(root).items() if path.endswith(".png")
             and "_dropped" not in path and "_runs" not in path}  # fmt: skip
    assert after == hand  # no PNG appears, none is lost
    before = exact(root)
    assert ok(run, *command("idle", root))["run"].startswith("none")
    assert exact(root) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", BY_HAND[:4])
def test_any_command_takes_in_what_the_operator_did(run, root, action, kind):
    action(root)
    see_added(root)
    do(run, kind, root)
    assert_agrees(root)
    assert_clean(run, root)
    ok(run, "restore", root)
    ok(run, *command("idle", root))  # where only that was undone, it is taken in again
    assert_agrees(root)
    assert_clean(run, root)


def see_added(root: Path) -> None:
    """Note what a detector would have seen in the PNGs the operator added: one new face."""
    lines = []
    for at, path in enumerate(sorted(root.glob("faceset_*/faces/*.png"))):
        if f"faces/{path.name}" not in files_of(root, path.parts[-3]):
            lines.append({"sha256": sf.sha256_of_file(path), "error": "", "counts": [1, 1],
                          "kps": [], "embedding": sf.pack_floats(axis(DIM - 1 - at))})  # fmt: skip
    (root / "_scores").mkdir(exist_ok=True)
    with open(audits_of(root), "a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)


def test_a_deleted_png_is_noted_and_leaves_the_bundles(run, root):
    entry = files_of(root, "faceset_001")["faces/002.png"]
    delete_png(root)
    do(run, "idle", root)
    manifest = read(root / "faceset_001/manifest.json")
    assert entry["face"] not in [face["face"] for face in manifest["faces"]]
    [gone] = [face for face in manifest["dropped"] if face["face"] == entry["face"]]
    assert gone["reason"] == "deleted by the operator" and not gone["file"]
    with zipfile.ZipFile(root / "faceset_001/faceset_001.fsz") as archive:
        assert len(archive.namelist()) == 5
    assert read(root / "manifest.json")["facesets"][0]["face_count"] == 5


def test_a_png_moved_to_dropped_and_back_is_its_old_self(run, root):
    entry = files_of(root, "faceset_001")["faces/003.png"]
    to_dropped(root)
    do(run, "idle", root)
    [gone] = read(root / "faceset_001/manifest.json")["dropped"]
    assert (gone["face"], gone["file"]) == (entry["face"], "faces/_dropped/003.png")
    (root / "faceset_001/faces/_dropped/003.png").rename(root / "faceset_001/faces/003.png")
    do(run, "idle", root)
    back = files_of(root, "faceset_001")["faces/003.png"]
    kept = set(entry) - {"kept_because"}
    assert {key: back[key] for key in kept} == {key: entry[key] for key in kept}
    assert not read(root / "faceset_001/manifest.json")["dropped"]
    assert_agrees(root)
    assert_clean(run, root)


def test_an_added_png_is_ranked_last_and_bundled(run, root):
    add_png(root)
    do(run, "idle", root)
    faces = files_of(root, "faceset_001")
    assert list(faces)[-1] == "faces/006.png"
    assert (
        sf.sha256_of_file(root / "faceset_001/faces/006.png")
        == sf.hashlib.sha256(picture(99)).hexdigest()
    )
    assert_agrees(root)


def test_two_exchanged_pngs_are_found_and_mended(run, root, tmp_path):
    swap_two(root)
    assert wrong(run, root)
    ok(run, "verify", root, "--no-faces", "--fix", "--plan", tmp_path / "fix.json", code=1)
    ok(run, "verify", root, "--apply", tmp_path / "fix.json")
    assert_clean(run, root)
    assert_agrees(root)


def test_a_dropped_png_deleted_for_good_is_no_trouble(run, root):
    do(run, "optimize", root)
    shutil.rmtree(root / "faceset_004/faces/_dropped")
    assert wrong(run, root) == [("faceset_004", "faces/_dropped/005.png", "by hand")]
    do(run, "era", root)
    delete_png(root)
    sf.write_part(root / "faceset_004/faces/mine.png", picture(97))
    do(run, "idle", root)
    assert_agrees(root)
    assert_clean(run, root)


@pytest.fixture
def merged(run, root) -> Path:
    """The corpus after consolidate; faceset_002 lies in _merged."""
    do(run, "consolidate", root)
    assert (root / "_merged/faceset_002").is_dir()
    return root


def test_a_png_deleted_in_a_shelved_set_is_taken_in_too(run, merged):
    (merged / "_merged/faceset_002/faces/001.png").unlink()
    assert {rule for _, _, rule in wrong(run, merged)} >= {"by hand"}
    do(run, "optimize", merged)
    assert_agrees(merged)
    assert_clean(run, merged)


def test_a_set_moved_back_by_hand_is_active_again(run, merged):
    (merged / "_merged/faceset_002").rename(merged / "faceset_002")
    assert {rule for _, _, rule in wrong(run, merged)} == {"master"}
    ok(run, *command("idle", merged))
    master = read(merged / "manifest.json")
    assert "faceset_002" in [entry["id"] for entry in master["facesets"]]
    assert not master["merged"]
    assert_agrees(merged)
    assert_clean(run, merged)


def test_a_set_shelved_by_hand_is_listed_there(run, root):
    (root / "_masked").mkdir()
    (root / "faceset_003").rename(root / "_masked/faceset_003")
    assert {rule for _, _, rule in wrong(run, root)} == {"master"}
    do(run, "consolidate", root)
    [entry] = read(root / "manifest.json")["masked"]
    assert entry["id"] == "faceset_003"
    assert_agrees(root)
    assert_clean(run, root)


def test_a_set_deleted_by_hand_is_gone(run, root):
    shutil.rmtree(root / "faceset_003")
    assert [rule for _, _, rule in wrong(run, root)] == ["master"]
    do(run, "consolidate", root)
    assert_agrees(root)
    assert_clean(run, root)


def test_a_shelved_set_deleted_by_hand_can_still_be_restored(run, merged, template):
    shutil.rmtree(merged / "_merged")
    code, _, err = run("restore", merged, "--json")
    assert code in (0, 2) and "Traceback" not in err and err.count("\n") <= 1, err
    code, _, err = run("verify", merged, "--no-faces", "--json")
    assert code in (0, 1), err  # the corpus can still be worked with
    assert {"faceset_001", "faceset_003", "faceset_004"} <= folders(merged)
    assert_agrees(merged)


def test_a_changed_set_deleted_after_a_run_is_no_dead_end(run, root):
    do(run, "optimize", root)
    shutil.rmtree(root / "faceset_004")
    code, _, err = run("restore", root, "--json")
    assert code in (0, 2) and err.count("\n") <= 1, err
    code, _, err = run("verify", root, "--no-faces", "--json")
    assert code in (0, 1), err
    do(run, "consolidate", root)
    assert_agrees(root)


def test_a_set_added_by_hand_under_a_shelved_name_blocks_nothing(run, merged, template):
    """Restoring must not overwrite what the operator put in the place of a merged set."""
    shutil.copytree(template / "faceset_002", merged / "faceset_002")
    (merged / "faceset_002/notes.txt").write_text("mine")
    code, _, err = run("restore", merged, "--json")
    assert code in (0, 2) and err.count("\n") <= 1, err
    assert [path.read_text() for path in merged.rglob("notes.txt")] == ["mine"]
    code, _, err = run("verify", merged, "--no-faces", "--json")
    assert code in (0, 1), err


def test_a_png_that_is_none_is_one_line_or_taken_out(run, root):
    """An added file that cannot be decoded must not break every command."""
    (root / "faceset_001/faces/mine.png").write_bytes(b"no picture")
    before = exact(root)
    code, _, err = run(*command("idle", root), "--json")
    assert code in (0, 1, 2) and "Traceback" not in err
    if code:
        assert err.count("\n") == 1 and exact(root) == before
    else:
        assert_agrees(root)


@pytest.mark.parametrize("data", [b"\xff\xfe broken", b"\xef\xbb\xbfBom\r\n", b"", b"  \n\n"])
def test_any_name_survives_every_command(run, root, data):
    (root / "faceset_003/NAME.txt").write_bytes(data)
    do(run, "optimize", root)
    assert (root / "faceset_003/NAME.txt").read_bytes() == data
    ok(run, "restore", root)
    assert (root / "faceset_003/NAME.txt").read_bytes() == data


# --- bad corpora ------------------------------------------------------------


def break_id(root: Path) -> None:
    edit(root / "faceset_003/manifest.json", lambda value: value.update(id="faceset_009"))


def break_json(root: Path) -> None:
    (root / "faceset_003/manifest.json").write_text("{")


def break_path(root: Path) -> None:
    edit(
        root / "faceset_003/manifest.json",
        lambda value: value["faces"][0].update(file="../faceset_001/faces/000.png"),
    )


def break_entry(root: Path) -> None:
    edit(root / "faceset_003/manifest.json", lambda value: value["faces"].append("x"))


def break_params(root: Path) -> None:
    edit(root / "faceset_003/manifest.json", lambda value: value.update(params=[]))


def break_top_n(root: Path) -> None:
    edit(root / "faceset_003/manifest.json", lambda value: value["params"].update(top_n="many"))


def break_era(root: Path) -> None:
    edit(root / "faceset_003/manifest.json", lambda value: value.update(era=5))


def break_dropped(root: Path) -> None:
    edit(
        root / "faceset_003/manifest.json",
        lambda value: value["dropped"].append({"face": 1, "file": 7, "reason": []}),
    )


def no_manifest(root: Path) -> None:
    (root / "faceset_003/manifest.json").unlink()


BROKEN = (break_id, break_json, break_path, break_entry, break_params, break_top_n, break_era,
          no_manifest)  # fmt: skip


@pytest.mark.parametrize("damage", BROKEN)
def test_a_damaged_manifest_is_one_line(run, root, damage):
    damage(root)
    before = exact(root)
    for kind in KINDS:
        refused(run, *command(kind, root), word="faceset_003")
    assert exact(root) == before
    found = wrong(run, root)
    assert any("faceset_003" in name and rule == "manifest" for name, _, rule in found), found
    assert all("faceset_003" in name for name, _, _ in found), found


def test_odd_entries_among_the_dropped_are_one_line_or_no_trouble(run, root):
    break_dropped(root)
    before = exact(root)
    for argv in (("verify", root, "--no-faces"), *(command(kind, root) for kind in KINDS)):
        code, _, err = run(*argv, "--json")
        assert code in (0, 1, 2) and "Traceback" not in err
        assert code < 2 or (err.count("\n") == 1 and exact(root) == before), err
        if code == 0 and argv[0] != "verify":
            ok(run, "restore", root)


@pytest.mark.parametrize(
    "data", [None, b"", b"{", b"{}", b'{"tool": "sort_faces", "kind": "swap"}']
)
def test_a_damaged_master_is_one_line(run, root, data):
    (root / "manifest.json").unlink()
    if data is not None:
        (root / "manifest.json").write_bytes(data)
    before = exact(root)
    for argv in (*(command(kind, root) for kind in KINDS), ("verify", root), ("restore", root)):
        refused(run, *argv, word="manifest.json")
    assert exact(root) == before


@pytest.mark.parametrize("lists", [{"merged": 5}, {"thin_eras": None}, {"runs": "x"},
                                   {"masked": ["x", 3]}, {"merged": {}}])  # fmt: skip
def test_a_master_with_odd_lists_is_one_line_or_mended(run, root, lists):
    edit(root / "manifest.json", lambda value: value.update(lists))
    for argv in (("verify", root, "--no-faces"), *(command(kind, root) for kind in KINDS)):
        code, _, err = run(*argv, "--json")
        assert code in (0, 1, 2) and "Traceback" not in err
        assert code < 2 or err.count("\n") == 1, err


def test_a_folder_that_is_no_corpus_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    for argv in (("optimize",), ("verify",), ("restore",), ("consolidate",)):
        refused(run, *argv, tmp_path / "empty", word="manifest.json")
        refused(run, *argv, tmp_path / "absent", word="absent")
    assert not list((tmp_path / "empty").iterdir())


def test_a_second_run_at_once_is_refused(run, root):
    before = exact(root)
    with filelock.FileLock(root / sf.LOCK_NAME):
        for argv in (*(command(kind, root) for kind in KINDS), ("verify", root), ("restore", root)):
            refused(run, *argv, word="wait")
    assert exact(root) == before
    do(run, "optimize", root)


# --- kills and full disks ---------------------------------------------------


@pytest.fixture
def states(run, couple, tmp_path) -> tuple[Path, dict, dict]:
    """(a corpus after a run, what it held before, what it holds now)."""
    after = copied(couple, tmp_path / "after")
    merge(run, after)
    return after, content(couple), content(after)


def merge(run: Callable, root: Path) -> dict:
    return ok(run, *merging(root))


def merging(root: Path) -> tuple:
    return ("consolidate", root, "--review", root.parent / "review", "-q")


def settled(root: Path, before: dict, after: dict) -> str:
    """Which of two states a corpus is in once the next command has begun."""
    recover(root)
    now = content(root)
    assert now in (before, after), sorted(set(now.items()) ^ set(after.items()))
    assert not list(root.rglob(".sort_faces-*"))
    runs = [path.name for path in (root / "_runs").glob("*")]
    assert runs == (["0001-consolidate"] if now == after else [])
    assert now == after or not (root / "_runs").exists()
    return "after" if now == after else "before"


def test_a_death_at_any_moment_of_a_run_leaves_one_of_two_states(run, states, couple, tmp_path):
    _, before, after = states
    root = tmp_path / "ready"
    changes = changes_of(run, copied(couple, root), *merging(root))
    seen = []
    for moment in range(1, changes + 1):
        copied(couple, root)
        with Saboteur(root, "death", moment), contextlib.suppress(Death):
            run(*merging(root))
        seen.append(settled(root, before, after))
    assert seen == sorted(seen, reverse=True) and set(seen) == {"before", "after"}
    assert_clean(run, root)
    assert_agrees(root)
    ok(run, "restore", root)
    assert exact(root) == exact(couple)


def test_a_death_at_any_moment_of_a_restore_leaves_one_of_two_states(run, states, couple, tmp_path):
    finished, before, after = states
    root = tmp_path / "ready"
    changes = changes_of(run, copied(finished, root), "restore", root)
    seen = []
    for moment in range(1, changes + 1):
        copied(finished, root)
        with Saboteur(root, "death", moment), contextlib.suppress(Death):
            run("restore", root)
        seen.append(settled(root, before, after))
        if seen[-1] == "after":
            ok(run, "restore", root)
        assert exact(root) == exact(couple), moment
    assert seen == sorted(seen) and set(seen) == {"before", "after"}
    assert_clean(run, root)


def test_a_death_while_recovering_leaves_one_of_two_states(run, states, couple, tmp_path):
    """The next start may be killed, too."""
    finished, before, after = states
    root, half = tmp_path / "ready", tmp_path / "half"
    for template, argv in ((couple, merging), (finished, lambda root: ("restore", root))):
        changes = changes_of(run, copied(template, root), *argv(root))
        for moment in range(1, changes + 1, 9):
            copied(template, half)
            with Saboteur(half, "death", moment), contextlib.suppress(Death):
                run(*argv(half))
            for second in range(1, 100, 4):
                copied(half, root)
                with Saboteur(root, "death", second) as late, contextlib.suppress(Death):
                    recover(root)
                settled(root, before, after)
                if late.seen < second:
                    break


@pytest.mark.parametrize("how", ["interrupt", "full"])
def test_an_interrupt_or_a_full_disk_at_any_moment_leaves_one_of_two_states(
    run, states, couple, tmp_path, how
):
    finished, before, after = states
    root = tmp_path / "ready"
    for template, argv in ((couple, merging), (finished, lambda root: ("restore", root))):
        changes = changes_of(run, copied(template, root), *argv(root))
        seen = set()
        for moment in range(1, changes + 1, 1 if how == "full" else 2):
            copied(template, root)
            with Saboteur(root, how, moment):
                code, _, err = run(*argv(root), "--json")
            codes = {"interrupt": (130, 0), "full": (2, 0) if template == couple else (0,)}[how]
            assert code in codes, err
            lines = [line for line in err.splitlines() if line.startswith("sort_faces ")]
            assert "Traceback" not in err and len(lines) == (code != 0), err
            seen.add(settled(root, before, after))
        needs_room = how == "interrupt" or template == couple
        assert seen == ({"before", "after"} if needs_room else {"before"})


def runs_in(root: Path) -> list[str]:
    """The runs of a corpus, and the marks of a restore."""
    return sorted(path.name for path in (root / "_runs").glob("**/*") if "before" not in path.parts)


def grown_by_runs(run: Callable, template: Path, root: Path) -> None:
    """A corpus with three runs, on which the operator has worked since the second."""
    copied(template, root)
    ok(run, *merging(root))
    (root / "faceset_001/more.txt").write_text("mine")
    (root / "faceset_001/faces/001.png").unlink()
    ok(run, "optimize", root, *IDLE)
    (root / "faceset_001/notes.txt").write_text("mine")
    (root / "faceset_001/faces/000.png").unlink()
    ok(run, "optimize", root, *IDLE)
    (root / "faceset_001/NAME.txt").write_text("Anna")


@pytest.mark.parametrize("back_to", [(), ("1",)])
def test_a_restore_killed_anywhere_and_called_again_is_one_restore(run, couple, tmp_path, back_to):
    template, root = tmp_path / "template", tmp_path / "ready"
    grown_by_runs(run, couple, template)
    changes = changes_of(run, copied(template, root), "restore", root, *back_to)
    wanted = content(root), runs_in(root)
    assert changes > 8
    for moment in range(1, changes + 1):
        copied(template, root)
        with Saboteur(root, "death", moment), contextlib.suppress(Death):
            run("restore", root, *back_to)
        if moment < changes:  # the last change ends it: a call after that is another one
            ok(run, "restore", root, *back_to)
        assert (content(root), runs_in(root)) == wanted, moment


def test_another_command_ends_an_interrupted_restore_where_it_is(run, couple, tmp_path):
    template, root = tmp_path / "template", tmp_path / "ready"
    grown_by_runs(run, couple, template)
    changes = changes_of(run, copied(template, root), "restore", root, "1")
    left = set()
    for moment in range(1, changes, 3):
        copied(template, root)
        with Saboteur(root, "death", moment), contextlib.suppress(Death):
            run("restore", root, "1")
        run("verify", root, "--no-faces")
        assert not list((root / "_runs").glob("[!0-9]*"))
        left.add(len(list((root / "_runs").glob("*"))) if (root / "_runs").is_dir() else 0)
    assert len(left) > 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("what", ["apply", "restore"])
def test_kills_at_random_moments_leave_one_of_two_states(run, states, couple, tmp_path, what):
    finished, before, after = states
    root, note = tmp_path / "ready", tmp_path / "note"
    template = couple if what == "apply" else finished
    argv = merging(root) if what == "apply" else ("restore", root)
    copied(template, root)
    longest = lasts(note, *argv)
    rng, kills, seen = random.Random(what), 0, set()
    for _ in range(6 * KILLS):
        copied(template, root)
        kills += killed(rng.uniform(0, longest), note, *argv)
        seen.add(settled(root, before, after))
        assert_clean(run, root)
        if kills == KILLS:
            break
    assert kills == KILLS and seen


NO_ROOM = OSError(28, os.strerror(28))


def full(*_: object, **__: object) -> None:
    raise NO_ROOM


@pytest.mark.parametrize("at", ["copy", "write", "zip", "journal"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_while_staging_leaves_nothing(run, root, monkeypatch, at, kind):
    before = exact(root)
    with monkeypatch.context() as patch:
        if at == "copy":
            patch.setattr(shutil, "copyfile", full)
        elif at == "write":
            patch.setattr(sf, "write_part", full)
        elif at == "zip":
            patch.setattr(zipfile.ZipFile, "writestr", full)
        else:
            real = sf.write_bytes
            patch.setattr(
                sf, "write_bytes", lambda p, d: full() if p.name == "journal.json" else real(p, d)
            )
        refused(run, *command(kind, root), word="No space")
    assert exact(root) == before
    do(run, kind, root)


def test_where_files_can_share_blocks_everything_is_the_same(run, root, template, monkeypatch):
    before = exact(root)
    do(run, "consolidate", root)
    copies = content(root)
    copied(template, root)
    copy = shutil.copyfile
    monkeypatch.setattr(sf, "CLONELESS", set())  # the disk was asked before, and could not
    monkeypatch.setattr(sf, "clone_file", lambda source, target: copy(source, target))
    monkeypatch.setattr(shutil, "copyfile", lambda *_: pytest.fail("copied"))
    do(run, "consolidate", root)
    assert content(root) == copies
    monkeypatch.undo()
    ok(run, "restore", root)
    assert exact(root) == before


# --- verify -----------------------------------------------------------------


def encoded(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def pixels(*shape: int, kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, (8, 8, *shape)).astype(kind)


def blown_up(image: np.ndarray, size: int = SIZE) -> bytes:
    return encoded(cv2.resize(image, (size, size), interpolation=cv2.INTER_NEAREST))


def with_exif() -> bytes:
    import io

    exif = PIL.Image.Exif()
    exif[274] = 6
    stream = io.BytesIO()
    PIL.Image.open(io.BytesIO(picture(5))).save(stream, "PNG", exif=exif)
    return stream.getvalue()


ODD_PNGS = {
    "16 bit": lambda: blown_up(pixels(3, kind=np.uint16) * 256),
    "RGBA": lambda: blown_up(pixels(4)),
    "grey": lambda: blown_up(pixels()),
    "too large": lambda: blown_up(pixels(3), 300),
    "too low": lambda: encoded(np.zeros((SIZE - 1, SIZE, 3), np.uint8)),
    "cut short": lambda: picture(5)[: len(picture(5)) // 2],
    "only a head": lambda: picture(5)[:40],
    "empty": lambda: b"",
    "a JPEG": lambda: cv2.imencode(".jpg", np.zeros((SIZE, SIZE, 3), np.uint8))[1].tobytes(),
    "turned": with_exif,
}


def plant_png(root: Path, data: bytes) -> None:
    """Put other bytes in the place of faceset_001's last PNG, with manifest and bundles."""
    folder = root / "faceset_001"
    (folder / "faces/005.png").write_bytes(data)
    sha = sf.hashlib.sha256(data).hexdigest()
    edit(folder / "manifest.json", lambda value: value["faces"][5].update(sha256=sha))
    manifest = sf.read_file(folder / "manifest.json", sf.FacesetManifest)
    sf.companion("faceset_files").write_bundles(folder, sf.bundles_of(manifest))


@pytest.mark.parametrize("kind", ODD_PNGS)
def test_verify_finds_and_mends_a_png_consumers_cannot_use(run, root, tmp_path, kind):
    plant_png(root, ODD_PNGS[kind]())
    assert wrong(run, root) == [("faceset_001", "faces/005.png", "png")]
    mend(run, root, tmp_path)
    assert len(files_of(root, "faceset_001")) == 5
    assert (root / "faceset_001/faces/_dropped/005.png").read_bytes() == ODD_PNGS[kind]()


@pytest.mark.parametrize("kind", ["cut short", "empty", "RGBA"])
def test_a_png_consumers_cannot_use_breaks_no_other_command(run, root, kind):
    plant_png(root, ODD_PNGS[kind]())
    before = exact(root)
    for name in KINDS:
        code, _, err = run(*command(name, root), "--json")
        assert code in (0, 2) and "Traceback" not in err
        assert code == 0 or (err.count("\n") == 1 and exact(root) == before)
        if code == 0:
            ok(run, "restore", root)
            assert exact(root) == before


def mend(run: Callable, root: Path, tmp_path: Path) -> None:
    """verify --fix and --apply make the corpus clean; restore brings all back."""
    before, plan = exact(root), tmp_path / "fix.json"
    report = ok(run, "verify", root, "--no-faces", "--fix", "--plan", plan, code=1)
    assert exact(root) == before and report["can_be_mended"] and read(plan)["moves"]
    ok(run, "verify", root, "--apply", plan)
    assert_clean(run, root)
    mended = content(root)
    ok(run, "restore", root)
    assert exact(root) == before
    ok(run, "verify", root, "--apply", plan)
    assert content(root) == mended


def rezip(root: Path, change: Callable[[zipfile.ZipFile, list], object]) -> None:
    path = root / "faceset_001/faceset_001.fsz"
    with zipfile.ZipFile(path) as archive:
        files = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        change(archive, files)


def put_all(archive: zipfile.ZipFile, files: list, **options: object) -> None:
    for name, data in files:
        archive.writestr(name, data, **options)


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0xFF
    path.write_bytes(data)


BUNDLE_DAMAGE = {
    "cut short": lambda root: os.truncate(root / "faceset_001/faceset_001.fsz", 1500),
    "empty": lambda root: os.truncate(root / "faceset_001/faceset_001.fsz", 0),
    "a flipped bit": lambda root: flip(root / "faceset_001/faceset_001.fsz", 0.4),
    "a flipped name": lambda root: flip(root / "faceset_001/faceset_001.fsz", 0.97),
    "compressed": lambda root: rezip(
        root, lambda z, files: put_all(z, files, compress_type=zipfile.ZIP_DEFLATED)
    ),
    "in a folder": lambda root: rezip(
        root, lambda z, files: put_all(z, [(f"faces/{name}", data) for name, data in files])
    ),
    "with a folder": lambda root: rezip(root, lambda z, files: put_all(z, [*files, ("sub/", b"")])),
    "upper case": lambda root: rezip(
        root, lambda z, files: put_all(z, [(name.upper(), data) for name, data in files])
    ),
    "another order": lambda root: rezip(root, lambda z, files: put_all(z, files[::-1])),
    "one more": lambda root: rezip(
        root, lambda z, files: put_all(z, [*files, ("006.png", picture(1))])
    ),
    "one less": lambda root: rezip(root, lambda z, files: put_all(z, files[:-1])),
    "other bytes": lambda root: rezip(
        root, lambda z, files: put_all(z, [(files[0][0], picture(1)), *files[1:]])
    ),
}


@pytest.mark.parametrize("kind", BUNDLE_DAMAGE)
def test_verify_finds_and_mends_a_damaged_bundle(run, root, tmp_path, kind):
    BUNDLE_DAMAGE[kind](root)
    assert wrong(run, root) == [("faceset_001", "faceset_001.fsz", "bundle")]
    mend(run, root, tmp_path)


def test_verify_finds_the_small_bundle_too(run, root, tmp_path):
    path = root / f"faceset_004/faceset_004_top{TOP_N}.fsz"
    os.truncate(path, 50)
    assert wrong(run, root) == [("faceset_004", path.name, "bundle")]
    mend(run, root, tmp_path)


def test_verify_finds_an_unnoticed_change_of_a_png(run, root, tmp_path):
    retouch(root)
    found = wrong(run, root)
    assert ("faceset_001", "faces/000.png", "changed") in found
    assert {rule for _, _, rule in found} == {"changed", "bundle"}
    mend(run, root, tmp_path)


def test_verify_finds_a_photo_twice(run, tmp_path):
    space = Space()
    twice = [*space.faces(0, 4), space.face(0, photo="p"), space.face(0, photo="p")]
    root = build(tmp_path, [twice, space.faces(1, 4)])
    assert wrong(run, root) == [("faceset_001", "faces/005.png", "photo twice")]
    mend(run, root, tmp_path)
    ok(run, "restore", root)
    shutil.rmtree(root)


def test_verify_finds_unknown_files(run, root, tmp_path):
    for file in ("faceset_001/notes.txt", "faceset_001/faces/x.jpg",
                 "faceset_003/faces/_dropped/old.png", "faceset_003/sub/deep.txt"):  # fmt: skip
        sf.write_part(root / file, b"mine")
    assert wrong(run, root) == [
        ("faceset_001", "faces/x.jpg", "unknown file"),
        ("faceset_001", "notes.txt", "unknown file"),
        ("faceset_003", "faces/_dropped/old.png", "unknown file"),
        ("faceset_003", "sub/deep.txt", "unknown file"),
    ]
    mend(run, root, tmp_path)
    assert (root / "faceset_001/_yours/notes.txt").read_bytes() == b"mine"


def test_verify_finds_an_unknown_file_at_the_top(run, root):
    (root / "notes.txt").write_text("mine")
    (root / "sub").mkdir()
    assert wrong(run, root) == [("", "notes.txt", "unknown file"), ("", "sub", "unknown file")]


MASTER_DAMAGE = {
    "a count": lambda master: master["facesets"][1].update(face_count=77),
    "a face": lambda master: master["facesets"][1]["faces"].pop(),
    "a set less": lambda master: master["facesets"].pop(1),
    "a bundle": lambda master: master["facesets"][1].update(bundle="elsewhere.fsz"),
}


@pytest.mark.parametrize("kind", MASTER_DAMAGE)
def test_verify_finds_and_mends_a_stale_master(run, root, tmp_path, kind):
    edit(root / "manifest.json", MASTER_DAMAGE[kind])
    assert wrong(run, root) == [("faceset_002", "manifest.json", "master")]
    plan = tmp_path / "fix.json"
    ok(run, "verify", root, "--no-faces", "--fix", "--plan", plan, code=1)
    ok(run, "verify", root, "--apply", plan)
    assert_clean(run, root)
    assert_agrees(root)


def test_a_stale_master_is_right_again_after_any_command(run, root):
    edit(root / "manifest.json", MASTER_DAMAGE["a set less"])
    ok(run, *command("idle", root))
    assert_agrees(root)
    assert_clean(run, root)


def test_verify_finds_a_set_the_master_has_made_up(run, root):
    def invent(master: dict) -> None:
        master["masked"].append({**master["facesets"][0], "id": "faceset_050"})

    edit(root / "manifest.json", invent)
    assert wrong(run, root) == [("faceset_050", "manifest.json", "master")]


def test_verify_finds_names_out_of_rank_order(run, root, tmp_path):
    folder = root / "faceset_001"
    for old, new in (("000", "anna"), ("001", "10")):
        (folder / f"faces/{old}.png").rename(folder / f"faces/{new}.png")
        edit(
            folder / "manifest.json",
            lambda value, old=old, new=new: [
                face.update(file=f"faces/{new}.png")
                for face in value["faces"]
                if face["file"] == f"faces/{old}.png"
            ],
        )
    rewrite(root, "faceset_001", list(files_of(root, "faceset_001").values()))
    assert wrong(run, root) == [("faceset_001", "faces", "names")]
    mend(run, root, tmp_path)
    assert list(files_of(root, "faceset_001")) == [f"faces/{rank:03d}.png" for rank in range(6)]


def test_verify_looks_into_shelved_sets(run, merged, tmp_path):
    os.truncate(merged / "_merged/faceset_002/faceset_002.fsz", 100)
    assert wrong(run, merged) == [("faceset_002", "faceset_002.fsz", "bundle")]
    mend(run, merged, tmp_path)


def test_verify_counts_what_it_looked_at(run, merged):
    result = ok(run, "verify", merged, "--no-faces")
    assert (result["facesets"], result["shelved"], result["wrong"]) == (3, 1, 0)
    assert result["faces"] == 10 + 6 + 6


def test_verify_changes_nothing(run, root, tmp_path):
    plant_png(root, b"")
    (root / "faceset_003/notes.txt").write_text("mine")
    before = exact(root)
    wrong(run, root)
    ok(run, "verify", root, "--no-faces", "--fix", code=1)
    assert exact(root) == before
    assert (root.parent / "ready-verify.json").exists()


def test_the_command_that_mends_can_be_pasted(run, root, tmp_path):
    moved = root.rename(tmp_path / "face sets ü")
    (moved / "faceset_003/notes.txt").write_text("mine")
    _, _, err = run("verify", moved, "--no-faces", "--fix")
    words = shlex.split(err.partition("carry it out: ")[2])
    assert words[2] == "verify", err
    assert run(*words[2:])[0] == 0
    assert not wrong(run, moved)


def test_an_edited_fix_does_what_is_left_of_it(run, root, tmp_path):
    plant_png(root, ODD_PNGS["RGBA"]())
    sf.write_part(root / "faceset_003/notes.txt", b"mine")
    plan = tmp_path / "fix.json"
    ok(run, "verify", root, "--no-faces", "--fix", "--plan", plan, code=1)
    edit(
        plan, lambda value: value.update(moves=[m for m in value["moves"] if m["action"] == "drop"])
    )
    ok(run, "verify", root, "--apply", plan)
    assert wrong(run, root) == [("faceset_003", "notes.txt", "unknown file")]


# --- verify: what is in the pictures ----------------------------------------


@pytest.fixture
def people(tmp_path) -> Path:
    """Two people, one face of the first far from the others, seen by a detector before."""
    space = Space()
    sets = [[*space.faces(0, 7), space.face(0, share=0.3)], space.faces(1, 6)]
    return build(tmp_path, sets)


def test_verify_finds_and_mends_what_detector_and_recogniser_see(run, people, tmp_path):
    seen = {"faceset_002/faces/001.png": (2, 1), "faceset_002/faces/003.png": (1, 0)}
    give_audits(people, seen)
    expected = [
        ("faceset_001", "faces/007.png", "identity"),
        ("faceset_002", "faces/001.png", "one face"),
        ("faceset_002", "faces/003.png", "one face"),
    ]
    assert wrong(run, people, "--threads", 1) == expected
    before, plan = exact(people), tmp_path / "fix.json"
    report = ok(run, "verify", people, "--fix", "--plan", plan, code=1)
    details = {item["file"]: item["detail"] for item in report["findings"]}
    assert "2 faces at 640" in details["faces/001.png"]
    assert "no faces at 320" in details["faces/003.png"]
    assert exact(people) == before
    ok(run, "verify", people, "--apply", plan)
    assert_clean(run, people, "--threads", 1)
    assert_agrees(people)
    ok(run, "restore", people)
    assert exact(people) == before


@pytest.mark.parametrize(("gate", "found"), [(0.80, 0), (0.45, 1)])
def test_the_identity_gate_has_two_sides(run, people, gate, found):
    give_audits(people)
    assert len(wrong(run, people, "--gate", gate)) == found


def test_verify_asks_for_the_model_of_the_corpus(run, people, shared):
    """What nobody has looked at yet needs the model that made the corpus."""
    before = exact(people)
    refused(run, "verify", people, "-q", "--model", shared / "models" / "mini", word="synthetic")
    assert exact(people) == before


def test_a_plan_that_empties_a_set_leaves_no_empty_bundle(run, tmp_path):
    root = build(tmp_path, [[Face(axis(0))], Space().faces(1, 4)])
    give_audits(root, {"faceset_001/faces/000.png": (2, 2)})
    plan = tmp_path / "fix.json"
    ok(run, "verify", root, "--fix", "--plan", plan, code=1)
    ok(run, "verify", root, "--apply", plan)
    assert_clean(run, root, "--threads", 1)
    assert_agrees(root)
    assert json.loads((root / "manifest.json").read_text())["facesets"][0]["id"] == "faceset_002"


# --- links that lead elsewhere, plans applied twice -------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
@pytest.mark.parametrize("place", ["_runs", "_scores", "_merged", "_removed", "faceset_002"])
def test_nothing_is_changed_behind_a_link_in_a_corpus(run, couple, tmp_path, place):
    root, elsewhere = copied(couple, tmp_path / "ready"), tmp_path / "elsewhere"
    if (root / place).exists():
        shutil.move(root / place, elsewhere)
    else:
        elsewhere.mkdir()
    for name in (".sort_faces-part-1-1-x", "0001-consolidate/x", "letter.txt"):
        (elsewhere / name).parent.mkdir(exist_ok=True)
        (elsewhere / name).write_text("mine")
    (root / place).symlink_to(elsewhere)
    before = exact(elsewhere)
    for argv in (merging(root), ("verify", root), ("optimize", root, *IDLE), ("restore", root)):
        code, _, err = run(*argv)
        assert code in (0, 1, 2) and "Traceback" not in err
        assert exact(elsewhere) == before, argv


def test_a_plan_applied_twice_is_applied_once(run, couple, tmp_path):
    """The second call may be the same one, after a kill that came too late."""
    root, plan = copied(couple, tmp_path / "ready"), tmp_path / "plan.json"
    ok(run, *merging(root), "--dry-run", "--plan", plan)
    command = merging(root)[0]
    ok(run, command, root, "--apply", plan)
    before = exact(root)
    assert ok(run, command, root, "--apply", plan)["run"] == "none: nothing to do"
    assert exact(root) == before
    ok(run, "optimize", root, "--no-near", "--no-audit")
    (root / "faceset_001/faces/000.png").unlink()
    ok(run, "optimize", root, *IDLE)
    refused(run, command, root, "--apply", plan, word="has changed since")
