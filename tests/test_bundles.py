"""The bundles of a face set through its life: which faces are in top and core, and who says so."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import sf
from corpora import (
    CORE_N,
    TOP_N,
    Space,
    assert_agrees,
    assert_clean,
    audits_of,
    build,
    chosen_of,
    copied,
    edit,
    exact,
    files_of,
    give_audits,
    read,
    rewrite,
    wrong,
)
from material import ok

pytestmark = pytest.mark.usefixtures("quick_disk")

SET = "faceset_001"
TOP, FULL, CORE = f"{SET}_top{TOP_N}.fsz", f"{SET}.fsz", f"{SET}_core.fsz"


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A corpus of before there were cores, one person in two sets; only read."""
    space = Space()
    return build(tmp_path_factory.mktemp("template"), [space.faces(0, 7), space.faces(1, 5)])


@pytest.fixture
def root(template, tmp_path) -> Path:
    return copied(template, tmp_path / "ready")


def rebuilt(run, root: Path, folder: str = SET) -> dict:
    """The manifest of a set after it was written anew."""
    (root / folder / f"{folder}.fsz").unlink()
    ok(run, "optimize", root, "--no-bytes", "--no-near", "--no-audit")
    return read(root / folder / "manifest.json")


def members(root: Path, bundle: str = CORE, folder: str = SET) -> list[str]:
    with zipfile.ZipFile(root / folder / bundle) as archive:
        return archive.namelist()


def best_pair(vectors: np.ndarray) -> set[str]:
    """Names of the two PNGs, of those above the floor, whose average is nearest that of all."""
    length = np.linalg.norm(vectors, axis=1)
    strong = np.flatnonzero(length >= np.quantile(length, 0.2)).tolist()
    pairs = [(a, b) for a in strong for b in strong if a < b]
    cosines = [sf.average_cosine(vectors[[*pair]], vectors) for pair in pairs]
    return {f"{row:03d}.png" for row in pairs[int(np.argmax(cosines))]}


def cached(root: Path, folder: str = SET) -> np.ndarray:
    """(n, d) raw embeddings of the faces of a set."""
    cache = sf.load_cache(Path(read(root / "manifest.json")["cache"]))
    faces = [face["face"] for face in read(root / folder / "manifest.json")["faces"]]
    return cache.embedding[sf.rows_of_faces(cache, faces)]


def test_a_corpus_of_before_is_clean_and_gets_its_core_when_it_is_written(run, root):
    before = exact(root)
    assert not list(root.rglob("*_core.fsz")) and "bundles" not in str(before)
    assert_clean(run, root)
    (row,) = ok(run, "status", root)["trees"]
    assert row["missing"] == 0
    rebuilt(run, root)
    assert_agrees(root)
    assert_clean(run, root)
    assert len(members(root)) == CORE_N and not (root / "faceset_002/faceset_002_core.fsz").exists()
    listed = {
        entry["id"]: entry["core_bundle"] for entry in read(root / "manifest.json")["facesets"]
    }
    assert listed == {SET: f"{SET}/{CORE}", "faceset_002": ""}
    ok(run, "restore", root)
    del before[f"{SET}/{FULL}"]  # which was missing then
    assert exact(root) == before


def test_the_core_is_the_pair_nearest_the_set(run, root):
    told = {one["file"]: one for one in rebuilt(run, root)["bundles"]}
    vectors = cached(root)
    assert set(members(root)) == best_pair(vectors)
    for bundle, one in told.items():
        rows = [int(name[:3]) for name in members(root, bundle)]
        assert one["cosine"] == pytest.approx(sf.average_cosine(vectors[rows], vectors), abs=1e-4)
    assert members(root, TOP)[0] == "000.png"


def test_what_was_seen_in_the_pngs_counts_more_than_the_cache(run, root):
    """A face that its crop hides is not in the core, whatever its photo showed."""
    rebuilt(run, root)
    victim, _ = members(root)
    sha = files_of(root, SET)[f"faces/{victim}"]["sha256"]
    vectors = cached(root)
    vectors[int(victim[:3])] = np.eye(160)[150] * 12
    give_audits(root, **{sha: vectors[int(victim[:3])]})
    rebuilt(run, root)
    assert victim not in members(root) and set(members(root)) == best_pair(vectors)
    assert_clean(run, root)


def test_without_any_embedding_ranks_choose_and_nothing_is_claimed(run, root):
    edit(root / "manifest.json", lambda master: master.update(cache=str(root / "gone.npz")))
    manifest = rebuilt(run, root)
    assert members(root, TOP) == [f"{rank:03d}.png" for rank in range(TOP_N)]
    assert not (root / SET / CORE).exists()
    assert not any("cosine" in one or "held_out" in one for one in manifest["bundles"])
    assert_agrees(root)
    assert_clean(run, root)


def test_scores_that_are_damaged_cost_no_more_than_themselves(run, root):
    give_audits(root)
    path = audits_of(root)
    lines = path.read_text(encoding="utf-8").splitlines()
    odd = ['{"sha256": 5, "embedding": "AAAA"}', '{"embedding": [1]}', "[]", "{", "",
           '{"sha256": "x", "embedding": "AAAAAAAA"}']  # fmt: skip
    path.write_text("\n".join([*lines[:3], *odd, *lines[3:]]) + "\n", encoding="utf-8")
    rebuilt(run, root)
    core = members(root)
    sha = files_of(root, SET)[f"faces/{core[0]}"]["sha256"]
    nan = {"sha256": sha, "embedding": sf.pack_floats(np.full(160, np.nan))}
    path.write_text(path.read_text(encoding="utf-8") + sf.json.dumps(nan) + "\n", encoding="utf-8")
    rebuilt(run, root)
    assert members(root) == core
    assert_agrees(root)


def test_a_face_taken_out_by_hand_leaves_the_core_and_another_comes(run, root):
    rebuilt(run, root)
    victim = members(root)[0]
    (root / SET / "faces" / victim).unlink()
    ok(run, "optimize", root, "--no-bytes", "--no-near", "--no-audit")
    assert victim not in members(root) and len(members(root)) == CORE_N
    assert_agrees(root)
    assert_clean(run, root)


def test_a_png_nobody_has_looked_at_comes_last(run, root):
    (root / SET / "faces" / "mine.png").write_bytes(
        (root / SET / "faces/000.png").read_bytes()[:-1]
    )
    rebuilt(run, root)
    manifest = read(root / SET / "manifest.json")
    [mine] = [face["file"] for face in manifest["faces"] if face["face"].endswith(":yours")]
    held = {bundle: [face["file"] for face in part] for bundle, part in chosen_of(manifest).items()}
    assert mine in held[FULL] and mine not in held[TOP] + held[CORE]


def test_halves_are_held_out_from_twenty_faces_on(run, tmp_path):
    space = Space()
    root = build(tmp_path, [space.faces(0, 20), space.faces(1, 19)])
    for folder, told in ((SET, True), ("faceset_002", False)):
        bundles = {one["file"]: one for one in rebuilt(run, root, folder)["bundles"]}
        assert all(("held_out" in one) == told for one in bundles.values())
        if told:
            assert (
                bundles[CORE]["held_out"] < bundles[FULL]["held_out"] < bundles[FULL]["cosine"] == 1
            )
    again = rebuilt(run, root)["bundles"]
    assert again == rebuilt(run, root)["bundles"]  # the halves are always the same


def test_a_set_no_larger_than_its_core_has_none(run, root):
    edit(root / SET / "manifest.json", lambda told: told["params"].update(core_n=7))
    rebuilt(run, root)
    assert not (root / SET / CORE).exists()
    edit(root / SET / "manifest.json", lambda told: told["params"].update(core_n=6))
    rebuilt(run, root)
    assert len(members(root)) == 6
    assert_agrees(root)


@pytest.mark.parametrize(
    "change",
    [
        lambda core: core.update(faces=["faces/900.png", "faces/901.png"]),
        lambda core: core.update(faces=core["faces"][::-1]),
        lambda core: core.update(faces=core["faces"][:1]),
    ],
)
def test_verify_finds_a_core_that_is_not_what_the_manifest_says(run, root, tmp_path, change):
    rebuilt(run, root)

    def spoil(told: dict) -> None:
        change(next(one for one in told["bundles"] if one["file"] == CORE))

    edit(root / SET / "manifest.json", spoil)
    assert wrong(run, root) == [(SET, CORE, "bundle")]
    ok(run, "verify", root, "--no-faces", "--fix", "--plan", tmp_path / "mend.json", code=1)
    ok(run, "verify", root, "--apply", tmp_path / "mend.json")
    assert_agrees(root)
    assert_clean(run, root)


def test_a_bundle_whose_name_leads_elsewhere_is_refused(run, root):
    rebuilt(run, root)
    edit(root / SET / "manifest.json", lambda told: told["bundles"][2].update(file="../x.fsz"))
    assert [rule for _, _, rule in wrong(run, root)] == ["manifest"]


def test_a_manifest_written_before_is_read_as_it_was_meant(root):
    rewrite(root, SET, list(files_of(root, SET).values()))
    told = read(root / SET / "manifest.json")
    del told["bundles"]
    manifest = sf.as_record(sf.FacesetManifest, told)
    names = [face["file"] for face in told["faces"]]
    assert sf.bundles_of(manifest) == {TOP: names[:TOP_N], FULL: names}
    core = sf.Bundle(file=CORE, faces=names[1:3])
    alone = sf.msgspec.structs.replace(manifest, bundles=[core])
    assert list(sf.bundles_of(alone)) == [TOP, FULL, CORE]
    empty = sf.msgspec.structs.replace(manifest, faces=[])
    assert sf.bundles_of(empty) == {} and sf.listed(SET, empty, "").bundle == ""
