"""Near-duplicates, in blocks of all pairs, against brute force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sort_faces as sf


def directions(rng, count: int, dim: int) -> np.ndarray:
    return sf.unit_rows(rng.normal(size=(count, dim)))


def at_distance(rng, unit: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Rows at the given cosine distances from `unit`, each in a random direction."""
    exact = unit.astype(np.float64)
    aside = rng.normal(size=unit.shape)
    aside -= np.sum(aside * exact, axis=1, keepdims=True) * exact
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    cosine = (1.0 - distance)[:, None]
    return (cosine * exact + np.sqrt(1.0 - cosine**2) * aside).astype(np.float32)


def box(width: float, height: float, x: float = 0, y: float = 0) -> list[float]:
    return [x, y, x + width, y + height]


def groups(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(rows.tolist()) for rows in sf.groups_of(labels)}


def by_all_pairs(unit: np.ndarray, limit: float, boxes: np.ndarray | None = None) -> set:
    """Groups found by looking at every pair, one by one."""
    group = {row: {row} for row in range(len(unit))}
    distance = 1.0 - unit.astype(np.float64) @ unit.astype(np.float64).T
    for a, b in zip(*np.nonzero(np.triu(distance <= limit, k=1)), strict=True):
        if boxes is not None:
            size_a, size_b = boxes[a, 2:] - boxes[a, :2], boxes[b, 2:] - boxes[b, :2]
            if (np.abs(size_a - size_b) > 0.10 * np.maximum(size_a, size_b)).any():
                continue
        if group[a] is not group[b]:
            group[a] |= group[b]
            for row in group[b]:
                group[row] = group[a]
    return {frozenset(rows) for rows in group.values()}


@pytest.fixture(params=["all pairs", "all pairs in small blocks"])
def way(request, monkeypatch) -> str:
    if "small" in request.param:
        monkeypatch.setattr(sf, "LINK_BLOCK", 13)
    return request.param


def burst(rng, count: int, dim: int) -> np.ndarray:
    """Rows of which many lie 0 to 0.05 from another, in chains."""
    unit = directions(rng, count, dim)
    for row in range(max(1, count // 2), count):
        source = unit[[rng.integers(row)]]
        unit[row] = at_distance(rng, source, rng.uniform(0.0, 0.05, size=1))[0]
    return unit


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_comparison_of_all_pairs(way, seed) -> None:
    rng = np.random.default_rng(seed)
    unit = burst(rng, 400, 32)
    size = rng.choice([100, 105, 112, 130], size=(400, 2))
    boxes = np.hstack([np.zeros((400, 2)), size])
    assert groups(sf.near_duplicate_labels(unit, 0.03)) == by_all_pairs(unit, 0.03)
    expected = by_all_pairs(unit, 0.03, boxes)
    assert groups(sf.near_duplicate_labels(unit, 0.03, boxes)) == expected
    assert expected != by_all_pairs(unit, 0.03)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.sampled_from([0.01, 0.03, 0.2]))
def test_equals_the_comparison_of_all_pairs_on_anything(seed, count, limit) -> None:
    unit = burst(np.random.default_rng(seed), count, 16)
    assert groups(sf.near_duplicate_labels(unit, limit)) == by_all_pairs(unit, limit)


@pytest.mark.parametrize("count", [3200, 7000])
def test_planted_pairs_among_thousands_of_strangers(count) -> None:
    """600 pairs at 0.001 to 0.029 join, 200 pairs at 0.04 do not, and nobody else does."""
    rng = np.random.default_rng(5)
    strangers = directions(rng, count, 128)
    distance = np.concatenate([np.linspace(0.001, 0.029, 600), np.full(200, 0.04)])
    unit = np.concatenate([strangers, at_distance(rng, strangers[:800], distance)])
    order = rng.permutation(len(unit))
    labels = np.empty(len(unit), int)
    labels[order] = sf.near_duplicate_labels(unit[order], 0.03)
    found = {rows for rows in groups(labels) if len(rows) > 1}
    assert found == {frozenset({row, len(strangers) + row}) for row in range(600)}


def test_a_long_burst_takes_no_longer_than_strangers(monkeypatch) -> None:
    """Thousands of faces of one person in one light: hashing compared 14 times as many pairs."""
    rng = np.random.default_rng(3)
    strangers = directions(rng, 6000, 64)
    middle = np.repeat(strangers[:1], 6000, axis=0)
    alike = at_distance(rng, middle, np.full(6000, 0.05))
    open_pairs, compared = sf.open_pairs, [0, 0]

    def counted(*asked: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows, columns in open_pairs(*asked):
            compared[-1] += len(rows) * len(columns)
            yield rows, columns

    monkeypatch.setattr(sf, "open_pairs", counted)
    for unit in (strangers, alike):
        compared = [*compared[1:], 0]
        assert len(groups(sf.near_duplicate_labels(unit, 0.03))) == 6000
    assert 0 < compared[1] <= compared[0] < 6000**2


def test_a_chain_of_near_duplicates_is_one_group(way) -> None:
    angle = np.radians(np.arange(0, 60, 10))  # 0.015 from one to the next
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert groups(sf.near_duplicate_labels(unit, 0.03)) == {frozenset(range(6))}


def test_many_exact_copies_are_one_group(way) -> None:
    unit = np.repeat(directions(np.random.default_rng(1), 3, 64), [500, 1, 20], axis=0)
    sizes = sorted(len(rows) for rows in groups(sf.near_duplicate_labels(unit, 0.03)))
    assert sizes == [1, 20, 500]


def test_permuting_the_rows_permutes_the_labels(way) -> None:
    rng = np.random.default_rng(7)
    unit, order = burst(rng, 300, 32), rng.permutation(300)
    labels = sf.near_duplicate_labels(unit, 0.03)
    again = np.empty(300, int)
    again[order] = sf.near_duplicate_labels(unit[order], 0.03)
    assert groups(again) == groups(labels)


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        (box(100, 200, 500, 40), True),  # where it lies does not matter
        (box(90, 200), True),
        (box(89, 200), False),
        (box(111, 200), True),
        (box(112, 200), False),
        (box(100, 180), True),
        (box(100, 179), False),
        (box(200, 100), False),
        (box(50, 100), False),
    ],
)
def test_boxes_must_agree_in_width_and_height(way, other, alike) -> None:
    unit = np.tile(directions(np.random.default_rng(2), 1, 16), (2, 1))
    labels = sf.near_duplicate_labels(unit, 0.03, np.array([box(100, 200), other]))
    assert (labels[0] == labels[1]) is np.bool_(alike)


def test_sizes_may_differ_through_others_between_them(way) -> None:
    unit = np.tile(directions(np.random.default_rng(2), 1, 16), (3, 1))
    boxes = np.array([box(100, 100), box(84, 84), box(92, 92)])
    assert groups(sf.near_duplicate_labels(unit, 0.03, boxes)) == {frozenset({0, 1, 2})}
    assert len(groups(sf.near_duplicate_labels(unit[:2], 0.03, boxes[:2]))) == 2


def test_empty_input_and_one_row(way) -> None:
    assert sf.near_duplicate_labels(np.zeros((0, 8), np.float32), 0.03).shape == (0,)
    assert sf.near_duplicate_labels(np.eye(8, dtype=np.float32)[:1], 0.03).shape == (1,)


@pytest.mark.parametrize(("limit", "expected"), [(0.0, 30), (2.0, 1)])
def test_the_ends_of_the_threshold_range(way, limit, expected) -> None:
    """The command line takes 0 to 2: only exact copies, and everything."""
    unit = np.tile(directions(np.random.default_rng(3), 30, 64), (2, 1))
    assert len(groups(sf.near_duplicate_labels(unit, limit))) == expected


# ---------------------------------------------------------------------------- nearest_keeper


def test_of_a_chain_every_row_beyond_the_limit_stays() -> None:
    angle = np.radians([0, 10, 20, 30, 40, 24])  # 0.03 is 14 degrees
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert sf.nearest_keeper(unit, 0.03).tolist() == [0, 0, 2, 2, 4, 2]
    assert sf.nearest_keeper(unit[:0], 0.03).tolist() == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.sampled_from([0.01, 0.03, 0.2]))
def test_keepers_lie_apart_and_stand_for_later_rows_near_them(seed, count, limit) -> None:
    unit = burst(np.random.default_rng(seed), count, 8)
    keeper = sf.nearest_keeper(unit, limit)
    distance = 1.0 - unit.astype(np.float64) @ unit.astype(np.float64).T
    stays = np.flatnonzero(keeper == np.arange(count))
    assert (distance[np.ix_(stays, stays)] + 9 * np.eye(len(stays)) > limit).all()
    for row in np.flatnonzero(keeper != np.arange(count)):
        earlier = stays[stays < row]
        assert keeper[row] == earlier[distance[row, earlier].argmin()]
        assert distance[row, keeper[row]] <= limit + 1e-6
