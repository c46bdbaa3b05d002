"""dedup: byte-identical files and near-duplicate faces in one report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import make_cache, sf
from material import Library, broken_caches, move_face, ok, refused, tree, with_twins


@pytest.fixture
def library(tmp_path) -> Library:
    return Library(tmp_path, people=3, photos=6)


def alike(cache: sf.FaceCache, rows: list[int], distance: float, sizes: bool = True):
    """Make faces look like the first of them, at a cosine distance from it and from each other."""
    embedding, bbox = cache.embedding.copy(), cache.bbox.copy()
    rng = np.random.default_rng(3)
    model = cache.unit[rows[0]].astype(np.float64)
    for row in rows[1:]:
        aside = rng.normal(size=len(model))
        aside -= model * (aside @ model)
        aside /= np.linalg.norm(aside)
        cosine = 1 - distance
        embedding[row] = 18 * (cosine * model + np.sqrt(1 - cosine**2) * aside)
        if sizes:
            bbox[row] = bbox[rows[0]] + 7
    return sf.replace(cache, embedding=embedding, bbox=bbox)


def dedup(run, library: Library, *options: object) -> tuple[dict, dict]:
    """(result, report) of a dedup run; the counts of both agree."""
    result = ok(run, "dedup", library.path, *options)
    report = json.loads((library.folder / "lib.duplicates.json").read_text(encoding="utf-8"))
    assert result["report"] == str(library.folder / "lib.duplicates.json")
    for kind in ("byte_groups", "visual_groups"):
        assert result[kind] == len(report[kind])
    return result, report


def test_a_library_without_duplicates_gives_an_empty_report(run, library):
    result, report = dedup(run, library)
    assert (report["byte_groups"], report["visual_groups"]) == ([], [])
    assert (result["byte_copies"], result["visual_faces"]) == (0, 0)
    assert (report["kind"], report["params"]) == ("duplicates", {"threshold": 0.03})


def test_byte_identical_files_are_one_group_with_every_path(run, library):
    twins = {str(library.src / "b" / "été.jpg"): 2, str(library.src / "c" / "日本.jpg"): 2,
             str(library.src / "d.jpg"): 9}  # fmt: skip
    library.save(with_twins(library.cache, twins))
    result, report = dedup(run, library)
    groups = {group["sha256"]: set(group["paths"]) for group in report["byte_groups"]}
    cache = library.cache
    assert groups == {
        cache.file_sha256[row]: {cache.file_path[row], *(p for p in twins if twins[p] == row)}
        for row in (2, 9)
    }
    assert result["byte_copies"] == 3
    for group in report["byte_groups"]:
        assert {sf.sha256_of_file(path) for path in group["paths"]} == {group["sha256"]}


def test_near_duplicates_are_one_group_that_keeps_the_best(run, library):
    cache = alike(library.cache, [1, 2, 4], 0.01)
    short, blur, score = cache.face_short.copy(), cache.blur.copy(), cache.det_score.copy()
    short[[1, 2, 4]], blur[[1, 2, 4]], score[[1, 2, 4]] = 120, 90, (0.7, 0.9, 0.8)
    library.save(sf.replace(cache, face_short=short, blur=blur, det_score=score))
    _, report = dedup(run, library)
    ids = cache.face_ids
    [group] = report["visual_groups"]
    assert set(group["faces"]) == {ids[1], ids[2], ids[4]}
    assert set(group["paths"]) == {str(library.photo(row)) for row in (1, 2, 4)}
    assert group["keep"] == ids[2]


@pytest.mark.parametrize("measure", ["face_short", "blur", "det_score"])
def test_larger_sharper_and_surer_is_better(run, library, measure):
    cache = alike(library.cache, [1, 2], 0.01)
    values = {name: getattr(cache, name).copy() for name in ("face_short", "blur", "det_score")}
    for array in values.values():
        array[2] = array[1]
    values[measure][2] *= 1.1
    library.save(sf.replace(cache, **values))
    assert dedup(run, library)[1]["visual_groups"][0]["keep"] == cache.face_ids[2]


@pytest.mark.parametrize(("distance", "groups"), [(0.029, 1), (0.032, 0)])
def test_near_means_a_distance_of_at_most_three_hundredths(run, library, distance, groups):
    library.save(alike(library.cache, [1, 2], distance))
    assert len(dedup(run, library)[1]["visual_groups"]) == groups


def test_the_threshold_is_an_option(run, library):
    library.save(alike(library.cache, [1, 2], 0.08))
    report = dedup(run, library, "--threshold", 0.1)[1]
    assert (len(report["visual_groups"]), report["params"]) == (1, {"threshold": 0.1})


def test_faces_of_different_size_are_no_duplicates(run, library):
    cache = alike(library.cache, [1, 2], 0.01)
    bbox = cache.bbox.copy()
    bbox[2, 2:] = bbox[2, :2] + (bbox[1, 2:] - bbox[1, :2]) * 1.25
    library.save(sf.replace(cache, bbox=bbox))
    assert dedup(run, library)[1]["visual_groups"] == []


def test_two_like_faces_of_one_photo_are_no_duplicates(run, tmp_path):
    cache = make_cache(people=2, photos=6, root=str(tmp_path / "photos"))
    cache = alike(move_face(cache, 4, to_file=1), [1, 4], 0.01)
    assert dedup(run, Library(tmp_path, cache))[1]["visual_groups"] == []


def test_dedup_writes_its_report_and_nothing_else(run, library):
    before = tree(library.folder)
    dedup(run, library)
    after = tree(library.folder)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"lib.duplicates.json"}
    dedup(run, library)
    assert tree(library.folder) == after


def test_an_empty_cache_gives_an_empty_report(run, tmp_path):
    sf.save_cache(tmp_path / "lib.npz", sf.empty_cache(make_cache().meta))
    assert ok(run, "dedup", tmp_path / "lib.npz")["visual_groups"] == 0


@pytest.mark.parametrize("kind", ["text", "newer", "foreign", "absent", "folder"])
def test_a_file_that_is_no_cache_is_refused(run, tmp_path, kind):
    path = broken_caches(tmp_path)[kind]
    before = tree(tmp_path)
    refused(run, "dedup", path, word=path.name)
    assert tree(tmp_path) == before
