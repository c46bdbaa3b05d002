"""refine: which faces make a face set, what each gate took, and the tree that comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_cache, sf
from material import (
    Library,
    assert_agrees,
    broken_caches,
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


@pytest.fixture
def library(tmp_path) -> Library:
    return Library(tmp_path, people=3, photos=20)


def refine(run, library: Library, *options: object) -> dict:
    """The manifest of a refine run, after checking that it accounts for every face."""
    result = ok(run, "refine", library.path, library.out, *options)
    manifest = manifest_of(library.out)
    assert_agrees(library.out)
    counts = manifest["counts"]
    assert counts["faces_kept"] + sum(counts["dropped"].values()) == library.cache.faces
    assert counts == {key: result[key] for key in counts}
    return manifest


def sets_of(manifest: dict) -> dict[str, set[str]]:
    return {entry["id"]: set(entry["faces"]) for entry in manifest["facesets"]}


# --- what is kept -----------------------------------------------------------


def test_clean_people_become_numbered_face_sets(run, library):
    manifest = refine(run, library)
    ids = library.cache.face_ids
    people = [set(ids[start : start + 20]) for start in (0, 20, 40)]
    assert list(sets_of(manifest)) == ["faceset_001", "faceset_002", "faceset_003"]
    assert sorted(sets_of(manifest).values(), key=min) == sorted(people, key=min)
    assert not any(manifest["counts"]["dropped"].values())


def test_the_largest_set_comes_first(run, tmp_path):
    cache = make_cache(people=3, photos=24, root=str(tmp_path / "photos"))
    sizes = {0: 16, 1: 24, 2: 20}
    files = [24 * person + at for person, size in sizes.items() for at in range(size)]
    manifest = refine(run, Library(tmp_path, pick(cache, files)))
    assert [entry["image_count"] for entry in manifest["facesets"]] == [24, 20, 16]


def test_of_two_faces_in_one_photo_the_identity_keeps_the_nearer_one(run, tmp_path):
    """W1: a person stands in a photo once; the other face is nobody's, and alone."""
    cache = move_face(make_cache(people=2, photos=20, root=str(tmp_path / "photos")), 5, to_file=3)
    library = Library(tmp_path, cache)
    manifest = refine(run, library)
    lost = manifest["counts"]["dropped"]
    assert (lost["same_photo"], lost["too_few_images"]) == (0, 1)
    pair = [row for row in range(cache.faces) if cache.face_file[row] == 3]
    person = cache.unit[:20]
    middle = person.mean(axis=0)
    far = min(pair, key=lambda row: float(cache.unit[row] @ middle))
    kept = set().union(*sets_of(manifest).values())
    assert set(library.cache.face_ids) - kept == {library.cache.face_ids[far]}
    assert all(entry["face_count"] == entry["image_count"] for entry in manifest["facesets"])


def test_a_mirror_image_in_the_same_photo_may_stay(run, tmp_path):
    cache = move_face(make_cache(people=1, photos=20, root=str(tmp_path / "photos")), 5, to_file=3)
    embedding = cache.embedding.copy()
    embedding[5] = embedding[3] * 1.1
    library = Library(tmp_path, sf.replace(cache, embedding=embedding))
    manifest = refine(run, library)
    assert manifest["counts"]["dropped"]["same_photo"] == 0
    assert [(e["face_count"], e["image_count"]) for e in manifest["facesets"]] == [(20, 19)]


def test_two_people_in_one_photo_both_keep_it(run, tmp_path):
    cache = make_cache(people=2, photos=20, root=str(tmp_path / "photos"))
    library = Library(tmp_path, move_face(cache, 25, to_file=3))
    manifest = refine(run, library)
    sha = library.cache.file_sha256[3]
    places = [name for name, own in manifest["placed"].items() if own == sha]
    assert sorted(name.split("/")[0] for name in places) == ["faceset_001", "faceset_002"]


@pytest.mark.parametrize(
    ("name", "reason", "just_in", "just_out"),
    [
        ("face_short", "small", 60.0, 59.9),
        ("blur", "blurred", 40.0, 39.9),
        ("det_score", "low_score", 0.6, 0.59),
    ],
)
def test_each_gate_counts_what_it_takes(run, library, name, reason, just_in, just_out):
    changes = {0: just_in, 1: just_out, 25: just_out}
    library.save(with_values(library.cache, **{name: changes}))
    manifest = refine(run, library)
    taken = {key: number for key, number in manifest["counts"]["dropped"].items() if number}
    assert taken == {reason: 2}
    kept = set().union(*sets_of(manifest).values())
    ids = library.cache.face_ids
    assert ids[0] in kept and not {ids[1], ids[25]} & kept


def test_the_gates_are_options(run, library):
    library.save(
        with_values(library.cache, face_short={0: 50.0}, blur={1: 5.0}, det_score={2: 0.3})
    )
    options = ("--min-short", 50, "--min-blur", 5, "--min-det-score", 0.3)
    assert refine(run, library, *options)["counts"]["faces_kept"] == 60


@pytest.mark.parametrize(("photos", "sets"), [(15, 1), (14, 0)])
def test_a_face_set_needs_fifteen_unique_images(run, tmp_path, photos, sets):
    cache = make_cache(people=1, photos=photos, root=str(tmp_path / "photos"))
    library = Library(tmp_path, cache)
    twins = {str(library.src / f"twin {row}.jpg"): row for row in range(3)}
    library.save(with_twins(library.cache, twins))  # copies are no further images
    manifest = refine(run, library)
    assert len(manifest["facesets"]) == sets
    assert manifest["counts"]["dropped"].get("too_few_images", 0) == (0 if sets else 14)


def test_a_mirror_image_is_no_further_unique_image(run, tmp_path):
    cache = move_face(make_cache(people=1, photos=15, root=str(tmp_path / "photos")), 5, to_file=3)
    embedding = cache.embedding.copy()
    embedding[5] = embedding[3]
    library = Library(tmp_path, sf.replace(cache, embedding=embedding))
    assert refine(run, library)["facesets"] == []
    assert len(refine(run, library, "--min-faces", 14)["facesets"]) == 1


def test_an_outlier_is_trimmed_from_a_set(run, tmp_path):
    cache = make_cache(people=1, photos=20, root=str(tmp_path / "photos"))
    centre = sf.centroid(cache.unit)
    aside = np.random.default_rng(5).normal(size=64)
    aside -= centre * (aside @ centre)
    aside /= np.linalg.norm(aside)
    embedding = cache.embedding.copy()
    embedding[4] = 20 * (0.62 * centre + np.sqrt(1 - 0.62**2) * aside)  # 0.38 away, cluster 0.55
    library = Library(tmp_path, sf.replace(cache, embedding=embedding.astype(np.float32)))
    assert refine(run, library)["counts"]["dropped"]["outlier"] == 0
    manifest = refine(run, library, "--outlier-threshold", 0.33)
    assert manifest["counts"]["dropped"]["outlier"] == 1
    assert library.cache.face_ids[4] not in sets_of(manifest)["faceset_001"]


def test_an_over_split_person_is_reunited_by_centroids(run, library):
    split = refine(run, library, "--initial-threshold", 0.3, "--merge-threshold", 0, "--min-faces",
                   1, "--outlier-threshold", 2)  # fmt: skip
    joined = refine(run, library, "--initial-threshold", 0.3, "--merge-threshold", 0.6,
                    "--min-faces", 1, "--outlier-threshold", 2)  # fmt: skip
    assert len(split["facesets"]) > len(joined["facesets"]) == 3


# --- the tree ---------------------------------------------------------------


def test_the_parameters_are_stored_with_the_model_they_belong_to(run, library):
    options = {
        "initial_threshold": 0.5, "merge_threshold": 0.35, "outlier_threshold": 0.6, "min_faces": 3,
        "min_short": 80.0, "min_blur": 30.0, "min_det_score": 0.55,
        "outlier_spreads": 4.0, "min_length": 0.5,
    }  # fmt: skip
    flags = [part for name, value in options.items()
             for part in (f"--{name.replace('_', '-')}", value)]  # fmt: skip
    manifest = refine(run, library, *flags)
    rest = {"copy_threshold": sf.Thresholds.copy, "linkage": "average", "strictness": 0.0}
    assert manifest["params"] == {**options, **rest}
    assert manifest["model"] == library.cache.meta.model
    assert manifest["cache"] == str(library.path)


def test_the_defaults_follow_the_model_of_the_cache(run, library):
    assert refine(run, library)["params"] == {
        "initial_threshold": 0.55, "merge_threshold": 0.40, "outlier_threshold": 0.55,
        "copy_threshold": 0.20, "min_faces": 15, "min_short": 60.0, "min_blur": 40.0,
        "min_det_score": 0.6, "linkage": "average", "strictness": 0.0,
        "outlier_spreads": 5.5, "min_length": 0.7,
    }  # fmt: skip
    library.save(sf.replace(library.cache, meta=changed(library.cache.meta, model="dlib")))
    own = refine(run, library)["params"]["initial_threshold"]
    assert own == sf.thresholds_for("dlib").cluster


def test_copies_are_placed_and_counted(run, library):
    twins = {str(library.src / "backup" / f"{row}.jpg"): row for row in (0, 1, 45)}
    library.save(with_twins(library.cache, twins))
    manifest = refine(run, library)
    assert len(manifest["placed"]) == 63
    for entry in manifest["facesets"]:
        files = sorted(path.relative_to(library.out).as_posix()
                       for path in (library.out / entry["id"]).iterdir())  # fmt: skip
        assert sorted(entry["images"]) == files
        assert entry["alias_count"] == len(files) - entry["image_count"]
    assert sum(entry["alias_count"] for entry in manifest["facesets"]) == 3


def test_a_rerun_changes_nothing(run, library):
    refine(run, library)
    before, times = tree(library.out), stamps(library.out)
    refine(run, library)
    assert (tree(library.out), stamps(library.out)) == (before, times)


def test_a_stricter_rerun_equals_a_fresh_run_and_sets_nothing_aside(run, library, tmp_path):
    """Every photo is still in the source: there is nothing that could not be made again."""
    refine(run, library)
    blur = with_values(library.cache, blur=dict.fromkeys(range(20), 1.0)).blur
    library.save(sf.replace(library.cache, blur=blur))
    assert len(refine(run, library)["facesets"]) == 2
    ok(run, "refine", library.path, tmp_path / "fresh")
    assert tree(library.out) == tree(tmp_path / "fresh")


def test_a_photo_that_is_gone_and_no_longer_wanted_is_set_aside(run, library):
    refine(run, library)
    library.photo(4).unlink()
    library.save(with_values(library.cache, blur={4: 1.0}))
    refine(run, library)
    aside = [path for path in (library.out / sf.REMOVED_FOLDER).rglob("*") if path.is_file()]
    assert [sf.sha256_of_file(path) for path in aside] == [library.cache.file_sha256[4]]


def test_dry_run_leaves_everything_as_it_is(run, library, tmp_path):
    before = tree(tmp_path)
    planned = ok(run, "refine", library.path, library.out, "--dry-run")
    assert tree(tmp_path) == before
    assert planned == ok(run, "refine", library.path, library.out)


def test_foreign_files_stay(run, library):
    refine(run, library)
    mine = library.out / "faceset_003" / "mine.txt"
    mine.write_text("mine")
    library.save(with_values(library.cache, blur=dict.fromkeys(range(20), 1.0)))
    ok(run, "refine", library.path, library.out)
    assert mine.read_text() == "mine"


def test_hard_links_work_here_too(run, library):
    refine(run, library, "--link", "hard")
    assert {i for i, _ in stamps(library.out).values()} == {
        i for i, _ in stamps(library.src).values()
    }


def test_a_library_without_any_person_gives_an_empty_tree(run, library):
    manifest = refine(run, library, "--min-faces", 21)
    assert (manifest["facesets"], photos_in(library.out)) == ([], {})


def test_the_table_for_people_names_every_set(run, library):
    code, out, err = run("refine", library.path, library.out)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines() if "faceset_" in line] == [
        "faceset_001", "faceset_002", "faceset_003"
    ]  # fmt: skip


# --- refusals ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "newer", "foreign", "absent"])
def test_a_file_that_is_no_cache_is_refused(run, tmp_path, kind):
    refused(run, "refine", broken_caches(tmp_path)[kind], tmp_path / "out", word=kind)
    assert not (tmp_path / "out").exists()


def test_bad_outputs_are_refused(run, library):
    refused(run, "refine", library.path, library.src / "sets", word="inside the source")
    library.out.mkdir()
    mine = library.out / "mine.txt"
    mine.write_text("mine")
    refused(run, "refine", library.path, library.out, word="holds other files")
    refused(run, "refine", library.path, mine, word="is a file")
    assert mine.read_text() == "mine"


def test_a_foreign_refine_manifest_is_not_overwritten(run, library):
    library.out.mkdir()
    path = library.out / "refine_manifest.json"
    path.write_text(json.dumps({"recipe": "sugar"}))
    refused(run, "refine", library.path, library.out, word=str(library.out))
    assert json.loads(path.read_text()) == {"recipe": "sugar"}


@pytest.mark.parametrize(
    "option", ["--min-faces=0", "--min-short=-1", "--min-det-score=1.5", "--merge-threshold=nan"]
)
def test_an_option_out_of_range_is_refused(run, library, option):
    code, out, err = run("refine", library.path, library.out, option)
    assert (code, out, err.count("\n")) == (2, "", 1) and option.split("=")[0] in err
    assert not Path(library.out).exists()
