"""Sets written for other programs: each form read as its program reads it, and all of them followed
through the life of a corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import sf
from corpora import (
    DIM,
    Space,
    assert_agrees,
    assert_clean,
    build,
    copied,
    edit,
    exact,
    read,
    write_master,
    wrong,
)
from material import ok

pytestmark = pytest.mark.usefixtures("quick_disk")

W600K = "4c06341c33c2ca1f"
SET, OTHER = "faceset_001", "faceset_002"
NAMES = {1: "Anna Müller", 2: "Zoë\u2028 Ł & <Co>", 3: "anna müller"}


def stamped(folder: Path, recognizer: str = W600K, names: dict[int, str] | None = None) -> Path:
    """A corpus of three people whose faces, so it says, this recogniser described."""
    space = Space()
    sets = [
        [space.face(0, year=2001 + rank // 4 * 12) for rank in range(7)],
        space.faces(1, 5),
        space.faces(2, 3),
    ]
    root = build(folder, sets, NAMES if names is None else names)
    cache = sf.load_cache(folder / "lib.npz")
    meta = sf.msgspec.structs.replace(cache.meta, recognizer=recognizer)
    sf.save_cache(folder / "lib.npz", sf.replace(cache, meta=meta))
    for path in [root / "manifest.json", *root.glob("faceset_*/manifest.json")]:
        edit(path, lambda told: told.update(recognizer=recognizer))
    write_master(root)
    return root


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    return stamped(tmp_path_factory.mktemp("template"))


@pytest.fixture
def root(template, tmp_path) -> Path:
    return copied(template, tmp_path / "ready")


def mean_of(root: Path, folder: str) -> np.ndarray:
    """The mean of the raw embeddings of a set, from the cache."""
    cache = sf.load_cache(Path(read(root / "manifest.json")["cache"]))
    faces = [face["face"] for face in read(root / folder / "manifest.json")["faces"]]
    rows = sf.rows_of_faces(cache, faces)
    return cache.embedding[rows].mean(axis=0, dtype=np.float64)


# --- Rope -------------------------------------------------------------------


def rope(path: Path, width: int = DIM) -> list[tuple[str, np.ndarray]]:
    """What Rope shows of merged_embeddings.txt: one wrong line and there is nothing at all."""
    try:
        lines = path.read_text(encoding="cp1252").splitlines()
        found, stride = [], width + 1
        for at in range(0, len(lines), stride):
            numbers = [float(lines[at + k]) for k in range(1, stride)]
            found.append((lines[at][6:], np.array(numbers, np.float32)))
    except (ValueError, IndexError):
        return []
    return found


def test_rope_shows_every_person_in_order(run, root):
    ok(run, "bundle", root, "--to", "rope")
    people = rope(root / "exports/rope/merged_embeddings.txt")
    assert [name for name, _ in people] == [
        "Anna Mueller",
        "Zoe L & <Co>",
        "anna mueller faceset_003",
    ]
    for (_, vector), folder in zip(people, (SET, OTHER, "faceset_003"), strict=True):
        np.testing.assert_allclose(vector, mean_of(root, folder), rtol=1e-5, atol=1e-6)
    [(name, _)] = rope(root / SET / "exports/rope/merged_embeddings.txt")
    assert name == "Anna Mueller"
    assert_clean(run, root)
    assert_agrees(root)


def test_an_embedding_of_another_recogniser_is_refused_in_one_line(run, root, tmp_path):
    root = stamped(tmp_path / "other", "feedfeedfeedfeed")
    before = exact(root)
    code, out, err = run("bundle", root, "--to", "embeddings,rope")
    assert code == 2 and not out and err.count("\n") == 1 and "rope" in err and "w600k_r50" in err
    assert exact(root) == before


# --- following the corpus ---------------------------------------------------


def test_what_is_taken_out_by_hand_leaves_the_exports_and_restore_brings_them_back(run, root):
    ok(run, "bundle", root, "--to", "rope,embeddings")
    (root / SET / "faces/002.png").unlink()
    (root / OTHER / "NAME.txt").write_text("Otto\n", encoding="utf-8")
    ok(run, "optimize", root, "--no-bytes", "--no-near", "--no-audit")
    people = dict(rope(root / "exports/rope/merged_embeddings.txt"))
    assert list(people) == ["Anna Mueller", "Otto", "anna mueller faceset_003"]
    np.testing.assert_allclose(people["Anna Mueller"], mean_of(root, SET), rtol=1e-5, atol=1e-6)
    assert_clean(run, root)
    assert_agrees(root)


def test_restore_takes_exports_away_and_brings_them_back(run, root):
    plain = exact(root)
    ok(run, "bundle", root, "--to", "rope,embeddings")
    written = exact(root)
    ok(run, "bundle", root, "--off", "rope")
    assert not [*root.glob("exports/rope"), *root.glob("faceset_*/exports/rope")]
    assert (root / "exports/embeddings/embeddings.npz").is_file()
    assert_clean(run, root)
    ok(run, "bundle", root, "--off", "embeddings")
    assert not (root / "exports").exists() and not (root / SET / "exports").exists()
    assert_clean(run, root)
    ok(run, "restore", root, "2")
    assert exact(root) == written
    ok(run, "restore", root)
    assert exact(root) == plain


def test_verify_finds_and_mends_what_is_missing_changed_and_foreign(run, root, tmp_path):
    ok(run, "bundle", root, "--to", "rope,embeddings")
    good = {k: v for k, v in exact(root).items() if "exports/" in k and "_runs" not in k}
    text = "merged_embeddings.txt"
    (root / SET / "exports/rope" / text).unlink()
    (root / OTHER / "exports/rope" / text).write_text("x", encoding="utf-8")
    (root / "exports/rope" / text).write_text("x", encoding="utf-8")
    (root / "exports/mine.txt").write_text("mine", encoding="utf-8")
    (root / SET / "exports/mine.txt").write_text("mine", encoding="utf-8")
    assert wrong(run, root) == [
        ("", "exports/mine.txt", "unknown file"),
        ("", f"exports/rope/{text}", "export"),
        (SET, "exports/mine.txt", "unknown file"),
        (SET, f"exports/rope/{text}", "export"),
        (OTHER, f"exports/rope/{text}", "export"),
    ]
    plan = tmp_path / "mend.json"
    ok(run, "verify", root, "--no-faces", "--fix", "--plan", plan, code=1)
    ok(run, "verify", root, "--apply", plan)
    assert wrong(run, root) == [("", "exports/mine.txt", "unknown file")]
    assert (root / SET / "_yours/exports/mine.txt").is_file()
    now = {k: v for k, v in exact(root).items() if k in good and "manifest" not in k}
    assert now == {k: v for k, v in good.items() if "manifest" not in k}
