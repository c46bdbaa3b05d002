"""The clustering scores of tests/bench/metrics.py, against cases worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "bench"))

from metrics import bcubed_scores, harmonic_mean, mixed_groups, pairwise_scores

TRUTH = ["ann", "ann", "ann", "bob", "bob", "cy"]


def test_perfect_grouping_scores_one_whatever_the_names() -> None:
    labels = [7, 7, 7, -3, -3, 0]
    assert pairwise_scores(TRUTH, labels) == (1.0, 1.0, 1.0)
    assert bcubed_scores(TRUTH, labels) == (1.0, 1.0, 1.0)
    assert mixed_groups(TRUTH, labels) == 0


def test_one_big_group() -> None:
    """15 pairs claimed, 3 + 1 of them true; each face finds all of its own."""
    labels = [0] * 6
    assert pairwise_scores(TRUTH, labels) == pytest.approx((4 / 15, 1.0, 8 / 19))
    precision = (3 * 3 / 6 + 2 * 2 / 6 + 1 / 6) / 6  # 7/18
    assert bcubed_scores(TRUTH, labels) == pytest.approx((precision, 1.0, 14 / 25))
    assert mixed_groups(TRUTH, labels) == 1


def test_every_face_alone() -> None:
    """No pair is claimed, so none is wrong; BCubed recall counts the face itself."""
    labels = range(6)
    assert pairwise_scores(TRUTH, labels) == (1.0, 0.0, 0.0)
    recall = (3 * 1 / 3 + 2 * 1 / 2 + 1) / 6  # 1/2
    assert bcubed_scores(TRUTH, labels) == pytest.approx((1.0, recall, 2 / 3))


def test_one_face_in_the_wrong_group() -> None:
    """ann ann | ann bob bob | cy: pairs 1 + 1 right of 1 + 3 claimed, of 3 + 1 true."""
    labels = [0, 0, 1, 1, 1, 2]
    assert pairwise_scores(TRUTH, labels) == pytest.approx((2 / 4, 2 / 4, 1 / 2))
    precision = (1 + 1 + 1 / 3 + 2 / 3 + 2 / 3 + 1) / 6  # 7/9
    recall = (2 / 3 + 2 / 3 + 1 / 3 + 1 + 1 + 1) / 6  # 7/9
    assert bcubed_scores(TRUTH, labels) == pytest.approx((precision, recall, 7 / 9))
    assert mixed_groups(TRUTH, labels) == 1


def test_order_of_the_faces_does_not_matter() -> None:
    truth, labels = np.array(TRUTH), np.array([0, 0, 1, 1, 1, 2])
    order = np.random.default_rng(0).permutation(len(truth))
    assert pairwise_scores(truth[order], labels[order]) == pairwise_scores(truth, labels)
    assert bcubed_scores(truth[order], labels[order]) == pytest.approx(bcubed_scores(truth, labels))


@pytest.mark.parametrize("score", [pairwise_scores, bcubed_scores])
def test_nothing_to_score(score) -> None:
    assert score([], []) == (1.0, 1.0, 1.0)
    assert score(["ann"], [3]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("score", [pairwise_scores, bcubed_scores, mixed_groups])
def test_unequal_lengths_are_refused(score) -> None:
    with pytest.raises(ValueError):
        score([1, 2], [1])


def test_harmonic_mean_of_nothing() -> None:
    assert harmonic_mean(0.0, 0.0) == 0.0
