"""What a face set that is built anew takes over from its earlier self, and what it must not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import sf
from corpora import TOP_N, Space, assert_clean, build, copied, edit, exact, picture, read
from material import ok

pytestmark = pytest.mark.usefixtures("quick_disk")

SET = "faceset_001"
TOP, FULL, SHEET = f"{SET}_top{TOP_N}.fsz", f"{SET}.fsz", "previews/top_20_grid.jpg"
FACES = 7


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A corpus of one person with more faces than the top bundle holds; only read.

    Its cache is lost, so that the best faces are the top ones, whoever else goes.
    """
    root = build(tmp_path_factory.mktemp("template"), [Space().faces(0, FACES)])
    edit(root / "manifest.json", lambda value: value.update(cache=""))
    return root


@pytest.fixture
def root(template, tmp_path) -> Path:
    return copied(template, tmp_path / "ready")


def drop(root: Path, rank: int) -> str:
    """Drop the face of a rank by a run; its name."""
    with sf.opened_corpus(root) as corpus:
        own = corpus.sets[SET]
        return sf.carry_out(corpus, sf.Plan("optimize", {}, [sf.drop(own, own.faces[rank], "")]))


def inode(path: Path) -> int:
    return path.stat().st_ino


def sheet(folder: Path) -> np.ndarray:
    """(h, w, 3) float pixels of the contact sheet in a folder."""
    return cv2.imread(str(folder / SHEET)).astype(float)


def made_anew(folder: Path, at: Path) -> np.ndarray:
    """The contact sheet of the face set in a folder, of its PNGs alone."""
    manifest = sf.read_file(folder / "manifest.json", sf.FacesetManifest)
    (at / "previews").mkdir(parents=True, exist_ok=True)
    data = sf.companion("faceset_files").contact_sheet(folder, manifest.faces)
    (at / SHEET).write_bytes(data)
    return sheet(at)


def test_a_bundle_whose_pngs_stay_is_the_same_file(run, root):
    drop(root, FACES - 1)
    now, before = root / SET, root / "_runs" / "0001-optimize" / "before" / SET
    assert inode(now / TOP) == inode(before / TOP)
    assert inode(now / FULL) != inode(before / FULL)
    assert_clean(run, root)


def test_no_png_is_one_file_with_that_of_before(run, root):
    drop(root, 0)
    now, before = root / SET, root / "_runs" / "0001-optimize" / "before" / SET
    pngs = list(now.rglob("*.png"))
    assert len(pngs) == FACES
    assert not {inode(png) for png in pngs} & {inode(png) for png in before.rglob("*.png")}


def test_bundles_of_the_same_pngs_are_one_file(run, root):
    for _ in range(FACES - TOP_N):
        drop(root, -1)
    assert inode(root / SET / TOP) == inode(root / SET / FULL)
    assert_clean(run, root)
    drop(root, 0)
    assert len(read(root / SET / "manifest.json")["faces"]) == TOP_N - 1
    assert inode(root / SET / TOP) == inode(root / SET / FULL)
    assert_clean(run, root)


def test_without_hard_links_everything_is_the_same(run, root, template, monkeypatch):
    drop(root, -1)
    linked = exact(root / SET)
    copied(template, root)
    monkeypatch.setattr(os, "link", no_link)
    drop(root, -1)
    before = root / "_runs" / "0001-optimize" / "before" / SET
    assert inode(root / SET / TOP) != inode(before / TOP)
    assert exact(root / SET) == linked


def no_link(*_: object) -> None:
    raise OSError(95, "Operation not supported")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def other(path: Path) -> None:
    path.write_bytes((path.parent / FULL).read_bytes())


@pytest.mark.parametrize("damage", [flipped, cut, other, Path.unlink])
def test_a_bundle_that_is_not_as_it_must_be_is_written_anew(
    run, root, damage: Callable[[Path], None]
):
    whole = (root / SET / TOP).read_bytes()
    damage(root / SET / TOP)
    assert not (root / SET / TOP).exists() or (root / SET / TOP).read_bytes() != whole
    drop(root, FACES - 1)
    assert (root / SET / TOP).read_bytes() == whole
    assert_clean(run, root)


def test_the_contact_sheet_hardly_changes_however_often_it_is_taken_over(run, root, tmp_path):
    for _ in range(4):
        drop(root, 0)
    ours, fresh = sheet(root / SET), made_anew(root / SET, tmp_path / "fresh")
    assert ours.shape == fresh.shape and len(read(root / SET / "manifest.json")["faces"]) == 3
    assert np.abs(ours - fresh).mean() < 1.0
    assert np.abs(ours - np.roll(fresh, sf.GRID_CELL, axis=1)).mean() > 20


def test_faces_known_from_the_contact_sheet_are_not_decoded(run, root, monkeypatch):
    monkeypatch.setattr(sf, "decode_photo", lambda *_: pytest.fail("decoded"))
    drop(root, 0)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", picture(3)])
def test_a_contact_sheet_that_is_damaged_or_another_is_made_anew(run, root, tmp_path, data):
    (root / SET / SHEET).write_bytes(data)
    drop(root, 0)
    assert (sheet(root / SET) == made_anew(root / SET, tmp_path / "fresh")).all()
    ok(run, "restore", root)
    (root / SET / SHEET).unlink()
    drop(root, 0)
    assert (sheet(root / SET) == made_anew(root / SET, tmp_path / "fresh")).all()


def test_a_retouched_png_is_shown_as_it_is_now(run, root, tmp_path):
    (root / SET / "faces/002.png").write_bytes(picture(77))
    drop(root, 0)
    ours, fresh = sheet(root / SET), made_anew(root / SET, tmp_path / "fresh")
    assert np.abs(ours - fresh).mean() < 1.0
