"""Vectors and grouping, and average linkage against scikit-learn."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import AgglomerativeClustering

import sort_faces as sf

SEEDS = st.integers(0, 2**32 - 1)


def canonical(labels) -> list[int]:
    """The labels renamed in order of appearance, so that equal groupings are equal."""
    names: dict[int, int] = {}
    return [names.setdefault(label, len(names)) for label in np.asarray(labels).tolist()]


def directions(rng, count: int, dim: int) -> np.ndarray:
    return sf.unit_rows(rng.normal(size=(count, dim)))


def library(rng, count: int, dim: int) -> np.ndarray:
    """Unit rows of people of very different sizes, some rows strung between two people."""
    people = max(1, count // 12)
    centres = directions(rng, people, dim)
    share = rng.power(0.5, size=people) + 0.01
    person = rng.choice(people, size=count, p=share / share.sum())
    other = centres[rng.integers(people, size=count)]
    way = np.where(rng.random(count) < 0.2, rng.random(count), 0.0)[:, None]
    noise = rng.normal(size=(count, dim)) * rng.uniform(0.3, 1.2, size=(count, 1)) / math.sqrt(dim)
    return sf.unit_rows((1 - way) * centres[person] + way * other + noise)


def walk(rng, count: int, dim: int) -> np.ndarray:
    """Every row close to the last and none close to the first: one chain."""
    return sf.unit_rows(np.cumsum(rng.normal(size=(count, dim)), axis=0) + 3)


def at_angles(*degrees: float) -> np.ndarray:
    """Unit rows in a plane."""
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def by_sklearn(unit: np.ndarray, threshold: float) -> list[int]:
    model = AgglomerativeClustering(
        metric="cosine", linkage="average", distance_threshold=threshold, n_clusters=None
    )
    return canonical(model.fit(unit.astype(np.float64)).labels_)


# ---------------------------------------------------------------------------- vectors


def test_unit_rows_have_length_one_and_zero_rows_stay_zero() -> None:
    unit = sf.unit_rows(np.array([[3, 4], [0, 0], [-2, 0]]))
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-6)
    assert sf.unit_rows(np.zeros((0, 5))).shape == (0, 5)


def test_centroid_is_the_direction_of_the_mean() -> None:
    np.testing.assert_allclose(sf.centroid(at_angles(10, 50)), at_angles(30)[0], atol=1e-6)
    np.testing.assert_allclose(sf.centroid(at_angles(20)), at_angles(20)[0], atol=1e-6)
    np.testing.assert_allclose(sf.centroid(np.float32([[1, 0], [-1, 0]])), [0, 0])


@pytest.mark.parametrize("block", [1, 7, 2048])
def test_nearest_finds_the_closest_centre_of_every_row(monkeypatch, block) -> None:
    monkeypatch.setattr(sf, "LINK_BLOCK", block)
    rng = np.random.default_rng(0)
    unit, centres = directions(rng, 50, 8), directions(rng, 9, 8)
    distance = 1 - unit.astype(float) @ centres.T.astype(float)
    index, found = sf.nearest(unit, centres)
    assert index.tolist() == distance.argmin(axis=1).tolist()
    np.testing.assert_allclose(found, distance.min(axis=1), atol=1e-6)


def test_nearest_without_centres_or_rows() -> None:
    index, distance = sf.nearest(at_angles(0, 10), np.zeros((0, 2), np.float32))
    assert index.tolist() == [-1, -1]
    assert np.isinf(distance).all()
    assert [len(part) for part in sf.nearest(np.zeros((0, 2), np.float32), at_angles(0))] == [0, 0]


def test_groups_come_largest_first_and_ties_by_their_first_row() -> None:
    groups = sf.groups_of(np.array([9, -1, 5, -1, 9, 7, -1, 5]))
    assert [rows.tolist() for rows in groups] == [[1, 3, 6], [0, 4], [2, 7], [5]]
    assert sf.groups_of(np.array([], int)) == []


@settings(deadline=None)
@given(st.data(), st.integers(1, 30))
def test_joined_labels_agree_with_following_the_pairs(data, count) -> None:
    row = st.integers(0, count - 1)
    start = data.draw(st.lists(row, min_size=count, max_size=count))
    pairs = data.draw(st.lists(st.tuples(row, row), max_size=20))
    expected = list(start)
    for a, b in pairs:
        expected = [expected[a] if label == expected[b] else label for label in expected]
    left, right = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
    joined = sf.join_labels(np.array(start), left, right)
    assert canonical(joined) == canonical(expected)
    assert joined.min() >= 0
    assert joined.max() < count


@pytest.mark.parametrize("block", [1, 5, 2048])
def test_components_follow_chains_of_close_pairs(monkeypatch, block) -> None:
    monkeypatch.setattr(sf, "LINK_BLOCK", block)
    unit = at_angles(0, 100, 20, 40, 200, 60, 110)  # 0-20-40-60 and 100-110; 200 is alone
    labels = sf.threshold_components(unit, math.cos(math.radians(21)))
    assert canonical(labels) == [0, 1, 0, 0, 2, 0, 1]


def test_components_include_pairs_exactly_at_the_limit() -> None:
    unit = np.float32([[1, 0, 0], [0, 1, 0], [-1, 0, 0]])
    assert canonical(sf.threshold_components(unit, 0.0)) == [0, 0, 0]
    assert canonical(sf.threshold_components(unit, 0.001)) == [0, 1, 2]


def by_following_pairs(unit: np.ndarray, limit: float, boxes: np.ndarray | None) -> list[int]:
    """Components by scipy from the whole matrix of close pairs."""
    close = unit @ unit.T >= limit
    if boxes is not None:
        width, height = (boxes[:, 2:] - boxes[:, :2]).T
        for size in (width, height):
            close &= np.abs(size - size[:, None]) <= 0.10 * np.maximum(size, size[:, None])
    return canonical(connected_components(csr_array(close), directed=False)[1])


def star(rng, count: int, dim: int) -> np.ndarray:
    """One row close to all others, which are close to nobody else."""
    others = directions(rng, count - 1, dim)
    others[:, 0] = 0.0
    return sf.unit_rows(np.vstack([np.eye(1, dim), sf.unit_rows(others) + np.eye(1, dim)]))


def one_person(rng, count: int, dim: int) -> np.ndarray:
    return sf.unit_rows(directions(rng, 1, dim) + 0.8 * directions(rng, count, dim))


def person_and_strangers(rng, count: int, dim: int) -> np.ndarray:
    few = count // 8
    unit = np.vstack([one_person(rng, count - few, dim), directions(rng, few, dim)])
    return unit[rng.permutation(count)]


def copies(rng, count: int, dim: int) -> np.ndarray:
    return np.tile(library(rng, count // 5, dim), (5, 1))[rng.permutation(count // 5 * 5)]


INPUTS = [library, walk, star, one_person, person_and_strangers, copies, directions]


@pytest.mark.parametrize("listed", [0, 2, 32])
@pytest.mark.parametrize("block", [9, 40, 2048])
@pytest.mark.parametrize("make", INPUTS)
def test_components_of_any_shape_equal_scipys(monkeypatch, make, block, listed) -> None:
    """Listed pairs, spanning pairs, joined early or late, known groups left out."""
    monkeypatch.setattr(sf, "LINK_BLOCK", block)
    monkeypatch.setattr(sf, "LISTED_PAIRS", listed)
    monkeypatch.setattr(sf, "HELD_PAIRS", 30)
    rng = np.random.default_rng(block + listed)
    unit = make(rng, 150, 16)
    low, high = rng.choice([50, 53, 80], (2, len(unit)))
    boxes = np.stack([low * 0, low * 0, low, high], axis=1)
    for limit in (0.3, 0.55, 0.8):
        for sizes in (None, boxes):
            labels = canonical(sf.threshold_components(unit, limit, sizes))
            assert labels == by_following_pairs(unit, limit, sizes)


def test_what_is_one_group_already_is_not_multiplied_again(monkeypatch) -> None:
    monkeypatch.setattr(sf, "LINK_BLOCK", 10)
    asked = []
    closeness = sf.closeness

    def counted(unit, limit):
        is_close = closeness(unit, limit)
        return lambda *given: asked.append(given[:2]) or is_close(*given)

    monkeypatch.setattr(sf, "closeness", counted)
    assert not sf.threshold_components(one_person(np.random.default_rng(0), 100, 16), -1.0).any()
    assert len(asked) == 10  # the first ten rows with all; 55 blocks otherwise
    del asked[:]
    sf.threshold_components(directions(np.random.default_rng(0), 100, 16), 0.99)
    assert len(asked) == 55


@pytest.mark.parametrize("make", [library, one_person])
def test_memory_of_components_is_linear_in_the_rows(make) -> None:
    """20,000 rows have 400 million pairs: as bools 381 MB, and 200 million of them are close."""
    unit = make(np.random.default_rng(0), 20_000, 8)
    tracemalloc.start()
    try:
        sf.threshold_components(unit, 0.45)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150e6


def test_memory_of_one_large_component_is_linear_in_its_rows() -> None:
    unit = one_person(np.random.default_rng(0), 12_000, 8)
    tracemalloc.start()
    try:
        labels = sf.average_linkage(unit, 0.55)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert labels.max() < 200
    assert peak < 300e6  # all distances are 576 MB of float32


# ---------------------------------------------------------------------------- average linkage


@pytest.fixture(
    params=["as it is", "lists", "short lists in small blocks", "dense after lists", "small blocks"]
)
def way(request, monkeypatch) -> str:
    """Each way through average_linkage."""
    large = sf.companion("large_components")
    if "lists" in request.param:
        monkeypatch.setattr(sf, "DENSE_COMPONENT", 25 if "dense" in request.param else 1)
    if "short" in request.param:
        monkeypatch.setattr(large, "NEAREST", 3)
        monkeypatch.setattr(large, "SAMPLE", 20)
        monkeypatch.setattr(large, "HELD_LISTS", 0)
        monkeypatch.setattr(large, "DOTS", 5)
    if "small" in request.param:
        monkeypatch.setattr(sf, "LINK_BLOCK", 17)
        monkeypatch.setattr(sf, "LISTED_PAIRS", 1)
        monkeypatch.setattr(sf, "HELD_PAIRS", 8)
    return request.param


@pytest.mark.parametrize("threshold", [0.2, 0.45, 0.55, 0.8])
@pytest.mark.parametrize(
    ("count", "dim"), [(2, 4), (3, 2), (10, 3), (40, 128), (150, 16), (300, 64), (600, 512)]
)
def test_labels_equal_sklearn(way, count, dim, threshold) -> None:
    unit = library(np.random.default_rng(count + dim), count, dim)
    labels = sf.average_linkage(unit, threshold)
    assert canonical(labels) == by_sklearn(unit, threshold)
    assert sorted(set(labels.tolist())) == list(range(labels.max() + 1))


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.55])
@pytest.mark.parametrize("count", [50, 400])
def test_labels_equal_sklearn_along_one_chain(way, count, threshold) -> None:
    unit = walk(np.random.default_rng(count), count, 24)
    assert canonical(sf.average_linkage(unit, threshold)) == by_sklearn(unit, threshold)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 60), st.integers(2, 32), st.floats(0.05, 1.2))
def test_labels_equal_sklearn_on_anything(seed, count, dim, threshold) -> None:
    rng = np.random.default_rng(seed)
    unit = library(rng, count, dim) if seed % 3 else directions(rng, count, dim)
    expected = by_sklearn(unit, threshold)
    assert canonical(sf.average_linkage(unit, threshold)) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sf, "DENSE_COMPONENT", 1 + seed % 30)
        patch.setattr(sf, "LINK_BLOCK", 1 + seed % 40)
        patch.setattr(sf, "LISTED_PAIRS", seed % 4)
        patch.setattr(sf.companion("large_components"), "NEAREST", 1 + seed % 9)
        assert canonical(sf.average_linkage(unit, threshold)) == expected


@pytest.mark.parametrize("dense", [1, 300])
@pytest.mark.parametrize(
    ("make", "threshold"), [(walk, 0.4), (one_person, 0.34), (person_and_strangers, 0.36)]
)
def test_all_ways_agree_on_one_large_component(monkeypatch, make, threshold, dense) -> None:
    unit = make(np.random.default_rng(1), 900, 32)
    whole = sf.average_linkage(unit, threshold)
    monkeypatch.setattr(sf, "DENSE_COMPONENT", dense)
    assert canonical(sf.average_linkage(unit, threshold)) == canonical(whole)
    assert 1 < whole.max() < 450


def test_thousands_of_copies_in_a_large_component_are_one_step(monkeypatch) -> None:
    """Ties that would be merged one at a time, each time with a look at all others."""
    monkeypatch.setattr(sf, "DENSE_COMPONENT", 100)
    large = sf.companion("large_components")
    rounds = []
    merge = large.Clusters.merge
    monkeypatch.setattr(large.Clusters, "merge", lambda *given: rounds.append(1) or merge(*given))
    unit = walk(np.random.default_rng(2), 400, 24)
    many = np.vstack([unit, np.tile(unit[7], (3000, 1))])
    labels = sf.average_linkage(many, 0.3)
    assert (labels[400:] == labels[7]).all()
    assert canonical(labels) == by_sklearn(many, 0.3)
    assert len(rounds) < 100


def test_distance_to_a_group_is_the_mean_of_its_pairs(way) -> None:
    """0 and 35 degrees join at 0.18; 80 is 0.83 from the one, 0.29 from the other: 0.56."""
    unit = at_angles(0, 35, 80)
    assert canonical(sf.average_linkage(unit, 0.57)) == [0, 0, 0]
    assert canonical(sf.average_linkage(unit, 0.55)) == [0, 0, 1]


def test_a_merge_exactly_at_the_threshold_is_not_made(way) -> None:
    corner = np.eye(3, dtype=np.float32)[:2]
    assert canonical(sf.average_linkage(corner, 1.0)) == [0, 1]
    assert canonical(sf.average_linkage(corner, 1.001)) == [0, 0]


def test_exact_copies_share_a_label(way) -> None:
    rng = np.random.default_rng(3)
    unit = np.tile(library(rng, 40, 16), (5, 1))[rng.permutation(200)]
    labels = canonical(sf.average_linkage(unit, 0.5))
    assert labels == by_sklearn(unit, 0.5)
    assert canonical(sf.average_linkage(np.tile(unit[:1], (50, 1)), 0.5)) == [0] * 50


def test_zero_rows_stay_alone_and_disturb_nobody(way) -> None:
    unit = library(np.random.default_rng(4), 60, 16)
    gaps = np.insert(unit, [0, 30, 30, 60], 0.0, axis=0)
    labels = sf.average_linkage(gaps, 0.55)
    zero = ~gaps.any(axis=1)
    assert canonical(labels[~zero]) == canonical(sf.average_linkage(unit, 0.55))
    assert all(np.count_nonzero(labels == label) == 1 for label in labels[zero])


def test_empty_input_and_one_row(way) -> None:
    assert sf.average_linkage(np.zeros((0, 8), np.float32), 0.55).shape == (0,)
    assert sf.average_linkage(at_angles(30), 0.55).tolist() == [0]


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 80), st.sampled_from([1, 12, 3000]))
def test_permuting_the_rows_permutes_the_labels(seed, count, dense) -> None:
    rng = np.random.default_rng(seed)
    unit, order = library(rng, count, 24), rng.permutation(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sf, "DENSE_COMPONENT", dense)
        labels = sf.average_linkage(unit, 0.5)
        assert canonical(sf.average_linkage(unit[order], 0.5)) == canonical(labels[order])


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(2, 80), st.sampled_from([1, 12, 3000]))
def test_a_cluster_on_its_own_is_one_cluster(seed, count, dense) -> None:
    unit = library(np.random.default_rng(seed), count, 24)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sf, "DENSE_COMPONENT", dense)
        for rows in sf.groups_of(sf.average_linkage(unit, 0.5)):
            assert not sf.average_linkage(unit[rows], 0.5).any()


def test_a_cycle_of_nearest_neighbours_gives_its_closest_pair() -> None:
    """Rounding can make d(a, b) and d(b, a) differ; without this, rounds would never end."""
    active, neighbour = np.arange(3), np.array([1, 2, 0])
    keep, gone = sf.reciprocal_pairs(active, neighbour, np.float32([0.3, 0.2, 0.1]))
    assert (keep.tolist(), gone.tolist()) == ([2], [0])


def test_no_active_cluster_gives_no_pair() -> None:
    none = np.zeros(0, int)
    keep, gone = sf.reciprocal_pairs(none, np.array([1, 0]), np.float32([0.1, 0.1]))
    assert (len(keep), len(gone)) == (0, 0)
