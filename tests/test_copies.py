"""Copies of crops outside all outputs: where they lie is noted, and forget takes them."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from conftest import sf
from corpora import Space, build, edit, write_master
from exports import Photos
from material import ok

copies = sf.companion("copies")

pytestmark = pytest.mark.usefixtures("quick_disk")
ADA = "Ada"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A corpus of Ada and Bob; no model made its faces, so none can look at them."""
    proof = sf.companion("forget_proof")
    monkeypatch.setattr(proof.Gallery, "vectors", lambda self: iter(()))
    monkeypatch.setattr(sf.companion("forget").Work, "check_engine", lambda self: None)
    space = Space()
    return build(tmp_path, [space.faces(0, 4), space.faces(1, 4)], {1: ADA})


def arranged(run, root: Path, name: str = "look", *argv: object) -> Path:
    """A copy of both sets by size, with one crop of Ada renamed and moved to Bob's."""
    out = root.parent / "elsewhere" / name
    ok(run, "arrange", root, "--by", "size", "--copy", out, *argv)
    first = sorted((out / "faceset_001").iterdir())[0]
    first.rename(out / "faceset_002" / "mine.png")
    return out


def forget(run, root: Path, *argv: object, **expected: object) -> dict:
    return ok(run, "forget", root, "--cache", root.parent / "lib.npz", *argv, **expected)


def pictures(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_a_copy_is_noted_once_and_without_name_or_embedding(run, root):
    out = arranged(run, root)
    path = copies.journal(root.parent / "lib.npz")
    noted = list(copies.noted(root.parent / "lib.npz"))
    assert {value["folder"] for value in noted} == {str(out)} and len(noted) == 9
    assert path.stat().st_mode & 0o777 == 0o600 and ADA.encode() not in path.read_bytes()
    shutil.rmtree(out)
    arranged(run, root)
    assert len(list(copies.noted(root.parent / "lib.npz"))) == 9
    path.write_bytes(path.read_bytes()[:-9])  # of a kill
    copies.Notes(root.parent / "lib.npz", out).add([("0" * 64, "0" * 16 + ":0")])
    again = list(copies.noted(root.parent / "lib.npz"))
    assert len(again) == 9 and again[-1]["sha256"] == "0" * 64


def test_forget_takes_the_copies_wherever_they_lie_in_their_folder(run, root):
    out = arranged(run, root)
    theirs = [name for name in pictures(out) if name.startswith("faceset_002/0")]
    plan = forget(run, root, "--person", ADA, "--dry-run")
    row = next(row for row in plan["changes"] if row["why"] == "a copy of it")
    assert (row["place"], row["action"], row["count"]) == (str(out), "remove", 4)
    assert len(pictures(out)) == 8
    result = forget(run, root, "--person", ADA)
    assert result["files_with_traces"] == 0 and pictures(out) == theirs
    noted = list(copies.noted(root.parent / "lib.npz"))
    assert len(noted) == 1 + len(theirs)
    ok(run, "restore", out, warned="deleted by hand")
    assert pictures(out) == []


def test_a_kill_after_the_copies_forgets_none(run, root, monkeypatch):
    out, real = arranged(run, root), sf.companion("forget_traces").Place.carry_out

    def carry_out(place) -> None:
        real(place)
        if place.kind == "copies":
            raise KeyboardInterrupt

    monkeypatch.setattr(sf.companion("forget_traces").Place, "carry_out", carry_out)
    code, _, _ = run("forget", root, "--cache", root.parent / "lib.npz", "--person", ADA)
    assert code == 130
    monkeypatch.setattr(sf.companion("forget_traces").Place, "carry_out", real)
    assert forget(run, root, "--person", ADA)["files_with_traces"] == 0
    assert len(pictures(out)) == 4


def test_the_proof_finds_what_was_made_of_a_copy_and_a_folder_that_is_gone_is_told(
    run, root, monkeypatch
):
    out, moved = arranged(run, root), arranged(run, root, "moved")
    face = json.loads((root / "faceset_001/manifest.json").read_text())["faces"][0]["face"]
    (out / "notes.txt").write_text(f"the best is {face}")
    shutil.rmtree(moved)
    result = forget(
        run, root, "--person", ADA, code=1, warned=f"{moved}: copies were put there, and it is gone"
    )
    assert [row["file"] for row in result["left"]] == [str(out / "notes.txt")]


def test_beside_a_cache_that_cannot_be_written_copies_are_made_all_the_same(run, root, monkeypatch):
    journal, real = copies.journal(root.parent / "lib.npz"), sf.AppendOnly.open

    def opened(lines: sf.AppendOnly) -> object:
        if lines.path == journal:
            raise PermissionError(13, "Permission denied")
        return real(lines)

    monkeypatch.setattr(sf.AppendOnly, "open", opened)
    out = root.parent / "out"
    told = "Permission denied; mend that and run again, everything up to here is kept (forget will"
    ok(run, "arrange", root, "--by", "size", "--copy", out, warned=told)
    assert len(pictures(out)) == 8 and not journal.exists()


def test_a_named_folder_of_copies_stays_the_operators(run, root):
    out = arranged(run, root)
    assert out.name in {path.name for path in out.parent.iterdir()}
    known = root.parent / "lib.npz"
    result = ok(run, "forget", root, out.parent, "--cache", known, "--person", ADA)
    assert result["files_with_traces"] == 0 and len(pictures(out)) == 4
    assert not list(out.rglob(sf.LOCK_NAME))
    ok(run, "arrange", out / "faceset_002", "--by", "brightness", "--in-place")


def test_a_folder_of_crops_with_a_cache_of_its_own(run, tmp_path, monkeypatch):
    photos = Photos(tmp_path, monkeypatch)
    known, crops = photos.folder / "lib.npz", tmp_path / "crops"
    crops.mkdir()
    for row in range(3):
        shutil.copy(photos.cache.file_path[row], crops / f"{row}.jpg")
    (crops / "x.jpg").write_bytes(b"unknown")
    command = ("arrange", crops, "--by", "none", "--group", "size", "--cache", known)
    ok(run, *command, "--copy", tmp_path / "out", "--dry-run")
    assert not copies.journal(known).exists()
    ok(run, *command, "--copy", tmp_path / "out")
    faces = [value["face"].partition("@")[0] for value in copies.noted(known) if "face" in value]
    assert faces == photos.cache.face_ids[:3]


@pytest.mark.parametrize("folder_gone", [False, True])
def test_copies_are_noted_where_the_cache_is_not_there(run, root, folder_gone):
    cache, away = root.parent / "lib.npz", root.parent / "elsewhere.npz"
    if folder_gone:
        for path in (root / "manifest.json", *root.glob("faceset_*/manifest.json")):
            edit(path, lambda told: told.update(cache="/not/mounted/lib.npz"))
        write_master(root)
    cache.rename(away)
    out = root.parent / "out"
    ok(run, "arrange", root, "--by", "brightness", "--copy", out)
    away.rename(cache)
    place = root if folder_gone else cache
    assert len(list(copies.noted(place))) == 9
    result = forget(run, root, "--person", ADA)
    assert result["files_with_traces"] == 0 and len(pictures(out)) == 4
    assert len(list(copies.noted(place))) == 5


def test_one_writes_the_journal_at_a_time(run, root, monkeypatch):
    arranged(run, root)
    monkeypatch.setattr(sf.companion("decisions"), "LOCK_SECONDS", 0.1)
    cache = root.parent / "lib.npz"
    with copies.held(copies.journal(cache)):
        told = "held for 0 s; try again (forget will not know these copies)"
        ok(run, "arrange", root, "--by", "size", "--copy", root.parent / "more", warned=told)
        code, _, err = run("forget", root, "--cache", cache, "--person", ADA)
        assert code == 2 and "copies.jsonl.lock: held for" in err
    assert forget(run, root, "--person", ADA)["files_with_traces"] == 0


def test_a_copy_of_a_corpus_is_hashed_only_where_a_file_is_younger_than_its_manifest(
    run, root, monkeypatch
):
    arrange, real, hashed = sf.companion("arrange"), sf.sha256_of_file, []
    monkeypatch.setattr(
        arrange.sf, "sha256_of_file", lambda path: hashed.append(path) or real(path)
    )
    time.sleep(0.05)  # a file system's clock is coarse
    for manifest in root.glob("faceset_*/manifest.json"):
        os.utime(manifest)
    shown = root / "faceset_001/faces/000.png"
    before = shown.stat()
    ok(run, "arrange", root, "--by", "size", "--copy", root.parent / "one")
    assert [path for path in hashed if path.suffix == ".png"] == []
    time.sleep(0.05)
    shown.write_bytes(shown.read_bytes() + b"retouched")
    os.utime(shown, ns=(before.st_atime_ns, before.st_mtime_ns))
    ok(run, "arrange", root, "--by", "size", "--copy", root.parent / "two")
    assert [path for path in hashed if path.suffix == ".png"] == [shown]
    assert real(shown) in {value.get("sha256") for value in copies.noted(root.parent / "lib.npz")}
