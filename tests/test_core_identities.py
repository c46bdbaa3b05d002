"""From faces to clean identities: merging, gates, outliers, one face per photo, size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import make_cache
from hypothesis import given, settings
from hypothesis import strategies as st
from material import FACE_ARRAYS

import sort_faces as sf


def at_angles(*degrees: float, dim: int = 4) -> np.ndarray:
    """Unit rows in one plane."""
    rows = np.zeros((len(degrees), dim), np.float32)
    rows[:, 0], rows[:, 1] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return rows


def degrees_apart(distance: float) -> float:
    return float(np.degrees(np.arccos(1.0 - distance)))


def cache_of(embedding: np.ndarray, face_file=None) -> sf.FaceCache:
    """A cache of these faces, one photo each unless face_file says otherwise; all are good."""
    count = len(embedding)
    cache = make_cache(people=1, photos=max(count, 1), dim=embedding.shape[1])
    file = np.arange(count) if face_file is None else np.asarray(face_file)
    faces = {name: getattr(cache, name)[:count] for name in FACE_ARRAYS}
    return replace(cache, **{**faces, "embedding": embedding, "face_file": file.astype(np.int32)})


def every(cache: sf.FaceCache) -> np.ndarray:
    return np.arange(cache.faces)


def everybody_once(refined: sf.Refined, rows: np.ndarray) -> bool:
    placed = np.concatenate([*refined.identities, np.zeros(0, int)]).tolist()
    inside = len(set(placed)) == len(placed) and set(placed) <= set(rows.tolist())
    return inside and len(placed) + sum(refined.dropped.values()) == len(rows)


# ---------------------------------------------------------------------------- refine_identities


def test_people_of_a_clean_library_are_found_whole() -> None:
    cache = make_cache(people=5, photos=20)
    refined = sf.refine_identities(cache, every(cache), sf.RefineParams())
    assert sorted(rows.tolist() for rows in refined.identities) == [
        list(range(first, first + 20)) for first in range(0, 100, 20)
    ]
    assert sum(refined.dropped.values()) == 0


def test_only_the_rows_asked_for_are_placed() -> None:
    cache = make_cache(people=2, photos=20)
    rows = np.arange(2, 38)
    refined = sf.refine_identities(cache, rows, sf.RefineParams(min_faces=1))
    assert sorted(len(identity) for identity in refined.identities) == [18, 18]
    assert everybody_once(refined, rows)


def test_identities_come_with_the_most_photos_first() -> None:
    """One person in one photo, one in three, and one four times in two photos."""
    angles = [0, 60, 60, 60, 120, 120, 120, 120]
    cache = cache_of(at_angles(*angles), [0, 1, 2, 3, 4, 4, 5, 5])
    params = sf.RefineParams(min_faces=1, initial_threshold=0.1, merge_threshold=0.1)
    found = sf.refine_identities(cache, every(cache), params).identities
    assert [rows.tolist() for rows in found] == [[1, 2, 3], [4, 5, 6, 7], [0]]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.integers(1, 12),
    st.floats(0.1, 3.0),
    st.integers(1, 8),
)
def test_every_face_is_placed_once_or_counted_once(seed, people, photos, spread, least) -> None:
    """Group photos, poor faces and strangers included."""
    rng = np.random.default_rng(seed)
    cache = make_cache(people, photos, 16, spread, seed)
    cache = replace(
        cache,
        face_file=rng.integers(cache.files, size=cache.faces).astype(np.int32),
        face_short=rng.uniform(60, 200, cache.faces).astype(np.float32),
        blur=rng.uniform(20, 200, cache.faces).astype(np.float32),
        det_score=rng.uniform(0.5, 1, cache.faces).astype(np.float32),
    )
    rows = np.flatnonzero(rng.random(cache.faces) < 0.9)
    params = sf.RefineParams(min_faces=least)
    refined = sf.refine_identities(cache, rows, params)
    assert everybody_once(refined, rows)
    for identity in refined.identities:
        assert len(np.unique(cache.face_file[identity])) >= least
        assert len(sf.gate_faces(cache, identity, params, 0.0)[0]) == len(identity)


def test_each_loss_is_counted_under_its_reason() -> None:
    """Three faces fail a gate, the one at 50 degrees is far off, the one at 45 shares a photo and
    so is somebody else."""
    cache = cache_of(pictures(at_angles(*range(10), 50, 45)), [*range(9), 9, 10, 9])
    short, blur = cache.face_short.copy(), cache.blur.copy()
    short[0], blur[1], blur[2] = 10, 1, 2
    cache = replace(cache, face_short=short, blur=blur)
    params = sf.RefineParams(
        min_faces=5, outlier_threshold=0.18, outlier_spreads=0, copy_threshold=0.05
    )
    refined = sf.refine_identities(cache, every(cache), params)
    assert [rows.tolist() for rows in refined.identities] == [[3, 4, 5, 6, 7, 8, 9]]
    lost = {name: number for name, number in refined.dropped.items() if number}
    assert lost == {"small": 1, "blurred": 2, "outlier": 1, "too_few_images": 1}


def pictures(unit: np.ndarray) -> np.ndarray:
    """The same directions, each as a picture of its own: no two are near-duplicates."""
    own = np.radians(15)
    return np.hstack([unit * np.cos(own), np.eye(len(unit)) * np.sin(own)])


@pytest.mark.parametrize("other", [0, 4])
def test_one_picture_many_times_is_one(other: int) -> None:
    """Sixteen times the same picture, and a few others."""
    unit = at_angles(*[10] * (16 + other))
    unit = np.vstack([np.pad(unit[:16], [(0, 0), (0, other)]), pictures(unit[16:])])
    cache = cache_of(unit, np.arange(16 + other))
    assert sf.distinct_pictures(cache, every(cache)) == 1 + other
    assert sf.distinct_pictures(cache, every(cache)[:0]) == 0
    for least, kept in ((1 + other, 1), (2 + other, 0)):
        refined = sf.refine_identities(cache, every(cache), sf.RefineParams(min_faces=least))
        assert len(refined.identities) == kept


def test_nothing_to_refine() -> None:
    cache = make_cache(people=1, photos=3)
    refined = sf.refine_identities(cache, np.zeros(0, int), sf.RefineParams())
    assert refined.identities == []
    assert sum(refined.dropped.values()) == 0


@pytest.mark.parametrize(("least", "kept"), [(10, 1), (11, 0)])
def test_min_faces_counts_photos_and_not_faces(least, kept) -> None:
    """Ten photos show her twice, as collages do: twenty faces, ten photos."""
    photos = np.repeat(np.arange(10), 2)
    cache = cache_of(pictures(at_angles(*[10] * 20)), photos)
    refined = sf.refine_identities(cache, every(cache), sf.RefineParams(min_faces=least))
    assert [len(rows) for rows in refined.identities] == [20] * kept
    assert refined.dropped.get("too_few_images", 0) == 20 * (1 - kept)


# ---------------------------------------------------------------------------- merging


@pytest.mark.parametrize(("distance", "together"), [(0.39, True), (0.41, False)])
def test_clusters_merge_by_the_distance_of_their_centroids(distance, together) -> None:
    angle = degrees_apart(distance)
    unit = at_angles(-5, 5, angle - 20, angle + 20, 175)
    labels = sf.merge_by_centroid(unit, np.array([7, 7, 3, 3, 5]), sf.Thresholds.merge)
    assert labels[0] == labels[1]
    assert labels[2] == labels[3]
    assert (labels[0] == labels[2]) is np.bool_(together)
    assert labels[4] not in labels[:4]


def test_one_cluster_or_none_stays_as_it_is() -> None:
    assert sf.merge_by_centroid(at_angles(0, 90), np.array([4, 4]), 0.4).tolist() == [4, 4]
    assert sf.merge_by_centroid(at_angles(), np.zeros(0, int), 0.4).tolist() == []


# ---------------------------------------------------------------------------- gates


@pytest.mark.parametrize(
    ("array", "least", "reason"),
    [("face_short", 60.0, "small"), ("blur", 40.0, "blurred"), ("det_score", 0.6, "low_score")],
)
def test_a_gate_lets_its_limit_through_and_nothing_below(array, least, reason) -> None:
    cache = make_cache(people=1, photos=4)
    values = np.array([least, np.nextafter(np.float32(least), 0), np.nan, least * 1.01], np.float64)
    cache = replace(cache, **{array: values})
    rows, failed = sf.gate_faces(cache, every(cache), sf.RefineParams(), 0.0)
    assert rows.tolist() == [0, 3]
    assert {name: number for name, number in failed.items() if number} == {reason: 2}


def test_a_face_is_counted_by_the_first_gate_it_fails() -> None:
    cache = make_cache(people=1, photos=3)
    cache = replace(
        cache,
        face_short=np.float32([10, 100, 100]),
        blur=np.float32([1, 1, 100]),
        det_score=np.float32([0.1, 0.1, 0.1]),
    )
    rows, failed = sf.gate_faces(cache, every(cache), sf.RefineParams(), 0.0)
    assert rows.tolist() == []
    assert +failed == {"small": 1, "blurred": 1, "low_score": 1}


# ---------------------------------------------------------------------------- outliers


def test_a_stranger_among_four_faces_is_trimmed_but_not_among_three() -> None:
    unit = at_angles(0, 0, 0, 90)
    assert sf.trim_outliers(unit, np.arange(4), 0.55).tolist() == [0, 1, 2]
    assert sf.trim_outliers(unit, np.arange(1, 4), 0.55).tolist() == [1, 2, 3]


@pytest.mark.parametrize(("distance", "stays"), [(0.54, True), (0.56, False)])
def test_outliers_are_measured_from_the_centroid(distance, stays) -> None:
    """Far faces on both sides leave the centroid at 0 degrees."""
    angle = degrees_apart(distance)
    unit = at_angles(0, 0, 0, 0, angle, -angle)
    kept = sf.trim_outliers(unit, np.arange(6), 0.55).tolist()
    assert kept == ([0, 1, 2, 3, 4, 5] if stays else [0, 1, 2, 3])


def test_no_face_has_no_outlier() -> None:
    assert len(sf.trim_outliers(at_angles(), np.zeros(0, int), 0.55)) == 0


# ---------------------------------------------------------------------------- one face per photo


def test_of_two_faces_in_a_photo_the_nearest_stays() -> None:
    cache = cache_of(at_angles(0, 0, 60, 5, 0), [0, 1, 2, 2, 3])
    kept = sf.one_face_per_photo(cache, every(cache), 0.2)
    assert kept.tolist() == [0, 1, 3, 4]


def test_nearest_means_nearest_to_the_identity_not_to_the_rows_at_hand() -> None:
    cache = cache_of(at_angles(60, 5), [0, 0])
    centre = cache_of(at_angles(0)).unit[0]
    assert sf.one_face_per_photo(cache, every(cache), 0.2, centre).tolist() == [1]


@pytest.mark.parametrize(("distance", "stays"), [(0.19, True), (0.21, False)])
def test_a_mirror_copy_in_the_photo_may_stay(distance, stays) -> None:
    copy = 5 + degrees_apart(distance)
    cache = cache_of(at_angles(0, 0, 0, 0, 5, copy), [0, 1, 2, 3, 4, 4])
    kept = sf.one_face_per_photo(cache, every(cache), 0.2)
    assert (5 in kept) == stays


def test_photos_with_one_face_lose_nothing() -> None:
    cache = cache_of(at_angles(0, 80, 160))
    kept = sf.one_face_per_photo(cache, every(cache), 0.0)
    assert kept.tolist() == [0, 1, 2]
    kept = sf.one_face_per_photo(cache, np.zeros(0, int), 0.0)
    assert len(kept) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 10))
def test_one_face_of_every_photo_stays_and_the_rest_is_evicted(seed, faces, photos) -> None:
    rng = np.random.default_rng(seed)
    photos = min(photos, faces)
    cache = cache_of(
        rng.normal(size=(faces, 4)).astype(np.float32), rng.integers(photos, size=faces)
    )
    kept = sf.one_face_per_photo(cache, every(cache), -1.0)  # nothing passes as a copy
    assert sorted(cache.face_file[kept].tolist()) == np.unique(cache.face_file).tolist()
