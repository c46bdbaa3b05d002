"""The quality score and its terms, and head pose from points."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_cache
from hypothesis import given, settings
from hypothesis import strategies as st

import sort_faces as sf

FRONTAL_KPS = np.array([[-30, -35], [30, -35], [0, 0], [-28, 30], [28, 30]], np.float64)
ANY_FLOAT = st.floats(-1e6, 1e6, width=32) | st.just(math.nan)


def rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """Turn about x by pitch, then y by yaw, then z by roll, in degrees."""
    (cx, cy, cz), (sx, sy, sz) = (f(np.radians([pitch, yaw, roll])) for f in (np.cos, np.sin))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def photographed(head: np.ndarray, angles, wh=(4000, 3000), size=300.0, at=(2000, 1500)):
    """Image points (k, 2) of a head about `size` px tall, seen through a pinhole.

    Its model has y up and z towards the lens; in the camera y runs down and z away. The lens is
    as long as the picture is wide.
    """
    head, focal = np.asarray(head, np.float64), max(wh)
    away = focal * np.ptp(head[:, 1]) / size
    points = (head * (1, -1, -1)) @ rotation(*angles).T + (0, 0, away)
    return focal * points[:, :2] / points[:, 2:] + at


def turned(kps: np.ndarray, degrees: float) -> np.ndarray:
    """Points turned in the picture plane."""
    return kps @ rotation(0, 0, degrees)[:2, :2].T


# ---------------------------------------------------------------------------- terms


def terms_of(pose=(0, 0, 0), score=0.8, outline=FRONTAL_KPS, kps=FRONTAL_KPS, short=128, blur=60):
    terms = sf.quality_terms(
        np.float32([pose]), np.float32([score]),
        sf.landmark_symmetry(np.float32([outline]), np.float32([kps])),
        np.float32([short]), np.float32([blur]),
    )  # fmt: skip
    assert terms.shape == (1, 5)
    return dict(zip(sf.QUALITY_TERMS[:5], terms[0].tolist(), strict=True))


def test_each_term_stands_under_its_name() -> None:
    terms = terms_of(pose=(0, 45, 10))
    assert terms["frontality"] == pytest.approx(0.5)
    assert terms["det_score"] == pytest.approx(0.8)
    assert terms["landmark_symmetry"] == pytest.approx(1.0, abs=1e-5)
    assert terms["face_size"] == pytest.approx(0.5)  # half of FULL_SIZE_SHORT
    assert terms["sharpness"] == pytest.approx(0.5)  # at HALF_SHARP_BLUR


def test_terms_grow_with_size_and_sharpness_and_end_at_one() -> None:
    size = [terms_of(short=short)["face_size"] for short in (0, 50, 200, 256, 900)]
    assert size == sorted(size)
    assert (size[0], size[-2:]) == (0.0, [1.0, 1.0])
    sharp = [terms_of(blur=blur)["sharpness"] for blur in (0, 10, 60, 500, 1e6)]
    assert sharp == sorted(set(sharp))
    assert (sharp[0], round(sharp[-1], 3)) == (0.0, 1.0)


def test_what_was_not_measured_counts_nothing() -> None:
    nan = math.nan
    terms = terms_of((nan,) * 3, nan, np.full((5, 2), nan), np.full((5, 2), nan), nan, nan)
    assert set(terms.values()) == {0.0}
    assert terms_of(pose=(nan,) * 3)["det_score"] == pytest.approx(0.8)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(ANY_FLOAT, min_size=3 + 1 + 10 + 10, max_size=24), st.floats(0, 1e6), st.floats(0, 1e6)
)
def test_terms_lie_between_0_and_1_whatever_was_measured(values, short, blur) -> None:
    points = np.array(values[4:]).reshape(2, 5, 2)
    terms = terms_of(values[:3], values[3], points[0], points[1], short, blur)
    assert all(0.0 <= value <= 1.0 for value in terms.values())


def test_no_faces_have_no_terms() -> None:
    none = np.zeros(0, np.float32)
    pose, kps = np.zeros((0, 3), np.float32), np.zeros((0, 5, 2), np.float32)
    assert sf.quality_terms(pose, none, sf.landmark_symmetry(kps, kps), none, none).shape == (0, 5)


@pytest.mark.parametrize(
    ("pitch", "yaw", "expected"),
    [
        (0, 0, 1), (0, 45, 1 / 2), (0, -45, 1 / 2), (30, 0, 2 / 3), (-30, 0, 2 / 3),
        (45, 45, 1 / 4), (0, 90, 0), (90, 0, 0), (0, 135, 0), (-170, 20, 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("roll", [0, 70, -180])
def test_frontality_falls_to_0_at_90_degrees_and_ignores_roll(pitch, yaw, roll, expected) -> None:
    assert sf.frontality(np.float32([[pitch, yaw, roll]])) == pytest.approx([expected])


# ---------------------------------------------------------------------------- symmetry


def made_head(rng, count: int = 40) -> np.ndarray:
    """A cloud of points (2 * count, 3) on the front of a head, mirrored left to right."""
    half = rng.normal(size=(count, 3)) * (1, 1, 0.5) + (0, 0, 1.5)
    half = half / np.linalg.norm(half, axis=1, keepdims=True) * (220, 330, 250) - (0, 0, 250)
    return np.concatenate([half, half * (-1, 1, 1)])


def symmetry(outline: np.ndarray, kps: np.ndarray) -> float:
    return float(sf.landmark_symmetry(outline[None], kps[None])[0])


@pytest.mark.parametrize("seed", range(5))
def test_a_frontal_face_is_symmetric_and_less_so_the_more_it_turns(seed) -> None:
    head = made_head(np.random.default_rng(seed))
    seen = [
        symmetry(photographed(head, (0, yaw, 0)), photographed(sf.HEAD_5, (0, yaw, 0)))
        for yaw in (0, 15, 30, 45)
    ]
    assert seen[0] == pytest.approx(1.0, abs=0.01)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 0.6


@settings(deadline=None)
@given(
    st.floats(-180, 180), st.floats(0.01, 100), st.floats(-2000, 2000), st.floats(-2000, 2000),
    st.sampled_from([0, 25, -40]),
)  # fmt: skip
def test_symmetry_does_not_depend_on_roll_scale_or_place(roll, scale, x, y, yaw) -> None:
    outline = photographed(made_head(np.random.default_rng(1)), (0, yaw, 0), at=(0, 0))
    kps = photographed(sf.HEAD_5, (0, yaw, 0), at=(0, 0))
    moved = [turned(points, roll) * scale + (x, y) for points in (outline, kps)]
    assert symmetry(*moved) == pytest.approx(symmetry(outline, kps), abs=1e-6)


def test_symmetry_is_the_same_turned_to_either_side() -> None:
    outline = photographed(made_head(np.random.default_rng(2)), (10, 30, 5))
    kps = photographed(sf.HEAD_5, (10, 30, 5))
    mirrored = kps[[1, 0, 2, 4, 3]] * (-1, 1)
    assert symmetry(outline * (-1, 1), mirrored) == pytest.approx(symmetry(outline, kps))


def test_the_axis_runs_from_eyes_to_mouth_wherever_the_nose_is() -> None:
    beside = FRONTAL_KPS + np.array([[0, 0], [0, 0], [9, 0], [0, 0], [0, 0]])
    assert symmetry(FRONTAL_KPS, beside) == symmetry(FRONTAL_KPS, FRONTAL_KPS) == 1.0


def test_points_on_one_side_or_a_face_without_an_axis_have_no_symmetry() -> None:
    assert symmetry(np.array([[5.0, 0], [9, 3]]), FRONTAL_KPS) == 0.0
    assert symmetry(FRONTAL_KPS, np.zeros((5, 2))) == 0.0


# ---------------------------------------------------------------------------- composite


def test_composite_is_the_mean_weighted_as_the_readme_says() -> None:
    terms = np.array([[0.9, 0.8, 0.7, 0.6, 0.5], [1] * 5, [0] * 5])
    expected = 0.30 * 0.9 + 0.20 * 0.8 + 0.20 * 0.7 + 0.15 * 0.6 + 0.15 * 0.5
    assert sf.composite_quality(terms, sf.QualityWeights()) == pytest.approx([expected, 1, 0])


@pytest.mark.parametrize("at", range(5))
def test_a_lone_weight_gives_its_term_whatever_its_size(at) -> None:
    terms = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    weights = {name: 7.0 * (name == sf.QUALITY_TERMS[at]) for name in sf.QUALITY_TERMS}
    found = sf.composite_quality(terms, sf.QualityWeights(**weights))
    assert found == pytest.approx([terms[0, at]])


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=5), st.floats(0.1, 50))
def test_only_the_ratio_of_the_weights_counts(weights, factor) -> None:
    terms = np.random.default_rng(0).random((6, 5))
    plain = sf.composite_quality(terms, sf.QualityWeights(*weights))
    scaled = sf.composite_quality(terms, sf.QualityWeights(*(w * factor for w in weights)))
    assert scaled == pytest.approx(plain)
    assert (plain >= terms.min(axis=1) - 1e-9).all()
    assert (plain <= terms.max(axis=1) + 1e-9).all()


# ---------------------------------------------------------------------------- relative terms


def old_composite(terms: np.ndarray) -> np.ndarray:
    """As composite_quality was when there were five terms."""
    shares = np.array([0.30, 0.20, 0.20, 0.15, 0.15])
    return terms @ (shares / shares.sum())


@pytest.mark.parametrize("count", [1, 2, 3, 64, 1001])
def test_by_default_the_composite_is_what_it_was_to_the_bit(count) -> None:
    terms = np.random.default_rng(count).random((count, 7))
    five = np.ascontiguousarray(terms[:, :5])
    assert sf.composite_quality(terms, sf.QualityWeights()).tobytes() == (
        old_composite(five).tobytes()
    )
    cache = replace(make_cache(people=1, photos=3), learned_quality=np.float32([1, 2, 3]))
    found = sf.composite_quality(sf.cached_quality_terms(cache), sf.QualityWeights())
    assert found.tobytes() == old_composite(sf.cached_quality_terms(cache)[:, :5].copy()).tobytes()


def test_the_term_of_scores_is_the_rank_in_the_library() -> None:
    nan = math.nan
    term = sf.rank_term(np.float32([5, nan, -2, 900, 5]))
    assert term == pytest.approx([0.5, 0, 0.125, 0.875, 0.5])
    assert sf.rank_term(np.float32([nan, nan])).tolist() == [0, 0]
    assert sf.rank_term(np.zeros(0, np.float32)).shape == (0,)
    assert sf.rank_term(np.float32([4, 4, 4])).tolist() == [0.5] * 3


@settings(deadline=None)
@given(st.lists(st.integers(-100, 100), min_size=1, max_size=30))
def test_the_term_of_scores_depends_on_their_order_alone(values) -> None:
    scores = np.array(values, np.float64)
    term = sf.rank_term(scores)
    assert ((term > 0) & (term < 1)).all()
    np.testing.assert_array_equal(term, sf.rank_term(8 * scores - 16))
    order = np.argsort(scores, kind="stable")
    assert (np.diff(term[order]) >= 0).all()


def test_the_term_of_length_is_relative_to_the_median() -> None:
    embedding = np.diag([10.0, 20, 30, 40, 2]).astype(np.float32)
    assert sf.length_term(embedding) == pytest.approx([0, 0.5, 1, 1, 0], abs=1e-6)
    assert sf.length_term(7 * embedding) == pytest.approx(sf.length_term(embedding), abs=1e-6)
    assert sf.length_term(np.zeros((0, 5), np.float32)).shape == (0,)
    assert sf.length_term(np.zeros((3, 5), np.float32)).tolist() == [0, 0, 0]


# ---------------------------------------------------------------------------- pose

HEADS = pytest.mark.parametrize(
    "head", [sf.HEAD_5, sf.companion("dlib_engine").HEAD], ids=["5 points", "6 points"]
)
ANGLES = [
    (pitch, yaw, roll) for pitch in (-30, -10, 0, 20) for yaw in (-60, -30, 0, 15, 45)
    for roll in (-90, -20, 0, 35)
]  # fmt: skip


@HEADS
@pytest.mark.parametrize("size", [600, 120])
def test_pose_of_a_photographed_head(head, size) -> None:
    found = [sf.solve_pose(photographed(head, angles, size=size), head, (4000, 3000))
             for angles in ANGLES]  # fmt: skip
    np.testing.assert_allclose(found, ANGLES, atol=4.0)


@HEADS
def test_pose_of_a_small_face_far_away(head) -> None:
    found = [sf.solve_pose(photographed(head, angles, size=25), head, (4000, 3000))
             for angles in ANGLES]  # fmt: skip
    np.testing.assert_allclose(found, ANGLES, atol=6.0)


@HEADS
@pytest.mark.parametrize("at", [(150, 150), (3850, 1500), (3900, 2900)])
def test_pose_does_not_depend_on_where_in_the_picture_the_face_is(head, at) -> None:
    middle = sf.solve_pose(photographed(head, (5, 20, -10)), head, (4000, 3000))
    aside = sf.solve_pose(photographed(head, (5, 20, -10), at=at), head, (4000, 3000))
    np.testing.assert_allclose(aside, middle, atol=0.1)


def test_a_mirrored_face_looks_the_other_way() -> None:
    kps = photographed(sf.HEAD_5, (10, 30, 15))
    mirrored = (kps * (-1, 1) + (4000, 0))[[1, 0, 2, 4, 3]]
    poses = sf.pose_from_kps(np.stack([kps, mirrored]), (4000, 3000))
    np.testing.assert_allclose(poses[1], poses[0] * (1, -1, -1), atol=0.1)


def test_roll_is_the_turn_in_the_picture_plane() -> None:
    kps = photographed(sf.HEAD_5, (0, 0, 0), at=(0, 0))
    poses = sf.pose_from_kps(np.stack([turned(kps, roll) for roll in (-50, 0, 80)]), (4000, 3000))
    np.testing.assert_allclose(poses, [[0, 0, -50], [0, 0, 0], [0, 0, 80]], atol=0.5)


def test_real_looking_key_points_are_frontal() -> None:
    """A detector's points are no projection of the model; the pose stays plausible."""
    pose = sf.pose_from_kps(FRONTAL_KPS[None] + (500, 400), (1000, 800))[0]
    assert np.abs(pose[1:]).max() < 1
    assert abs(pose[0]) < 25


@pytest.mark.parametrize("wh", [(0, 0), (1, 1), (100, 100), (6000, 4000)])
@pytest.mark.parametrize(
    "points",
    [np.zeros((5, 2)), np.full((5, 2), 70.0), np.full((5, 2), np.nan), np.full((5, 2), np.inf),
     np.where(np.arange(5) == 3, np.nan, 1.0)[:, None] * FRONTAL_KPS],
    ids=["origin", "one place", "nan", "inf", "one nan"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_points_without_a_pose_give_nan(points, wh) -> None:
    assert np.isnan(sf.solve_pose(points, sf.HEAD_5, wh)).all()
    assert np.isnan(sf.pose_from_kps(points[None].astype(np.float32), wh)).all()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=10, max_size=10), st.sampled_from([0, 50, 4000]))
def test_any_points_give_angles_or_nan_and_never_raise(values, edge) -> None:
    """Many of these lie on one line or in one place, some heads are upside down or mirrored."""
    pose = np.array(sf.solve_pose(np.reshape(values, (5, 2)) * 10.0, sf.HEAD_5, (edge, edge)))
    assert np.isnan(pose).all() or (np.abs(pose) <= 180).all()


def test_no_faces_have_no_pose() -> None:
    assert sf.pose_from_kps(np.zeros((0, 5, 2), np.float32), (100, 100)).shape == (0, 3)


# ---------------------------------------------------------------------------- what carries it


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def worth(embedding: np.ndarray, rows: np.ndarray) -> float:
    return cosine(embedding[rows].mean(axis=0), embedding.mean(axis=0))


def person(seed: int, faces: int = 40, dim: int = 32) -> np.ndarray:
    """Raw embeddings of one person: a direction, looks that scatter about it, many lengths."""
    rng = np.random.default_rng(seed)
    way = 2.0 * rng.normal(size=dim) / dim**0.5
    unit = sf.unit_rows(way + rng.normal(size=(faces, dim)) / dim**0.5)
    return (unit * rng.uniform(8, 24, (faces, 1))).astype(np.float32)


def test_herding_beats_the_nearest_and_any_random_choice() -> None:
    for seed in range(5):
        embedding = person(seed)
        ours = worth(embedding, sf.herd(embedding, 8))
        nearest = np.argsort(-sf.unit_rows(embedding) @ embedding.mean(axis=0))[:8]
        rng = np.random.default_rng(seed)
        others = [worth(embedding, rng.permutation(40)[:8]) for _ in range(300)]
        assert ours > max(worth(embedding, nearest), *others) and ours > 0.97


@pytest.mark.parametrize("seed", range(8))
def test_no_exchange_makes_a_herd_better(seed) -> None:
    embedding = person(seed, faces=15)
    rows = sf.herd(embedding, 4)
    best = worth(embedding, rows)
    for at, other in np.ndindex(4, 15):
        if other not in rows:
            changed = [*rows[:at], other, *rows[at + 1 :]]
            assert worth(embedding, changed) <= best + 1e-6


def test_lengths_count_as_they_do_for_the_consumer() -> None:
    """One long face outweighs two short ones: among unit vectors the other would stand for all."""
    embedding = np.float32([[30, 0], [0, 10], [0, 10]])
    assert sf.herd(embedding, 1).tolist() == [0]
    assert sf.herd(sf.unit_rows(embedding), 1).tolist() == [1]


@given(st.integers(0, 50), st.integers(1, 20), st.integers(0, 6))
def test_a_herd_has_its_size_whatever_is_known(seed, number, unknown) -> None:
    embedding = person(seed, faces=12, dim=8)
    gone = np.random.default_rng(seed).permutation(12)[:unknown]
    embedding[gone] = 0
    rows = sf.herd(embedding, number)
    assert len(rows) == len(set(rows.tolist())) == min(number, 12)
    if number <= 12 - unknown:
        assert not set(rows.tolist()) & set(gone.tolist())
    top = sf.top_faces(embedding, number)
    assert top[0] == 0 and top.tolist() == sorted(set(top.tolist())) and len(top) == len(rows)


def test_where_nothing_is_known_ranks_choose() -> None:
    for width in (0, 8):
        nothing = np.zeros((5, width), np.float32)
        assert sf.top_faces(nothing, 3).tolist() == [0, 1, 2]
        assert sf.core_faces(nothing, 3).tolist() == []
    assert sf.top_faces(np.zeros((0, 0), np.float32), 3).tolist() == []


def test_the_core_is_smaller_than_the_set_and_passes_over_the_shortest() -> None:
    embedding = person(3, faces=20)
    assert sf.core_faces(embedding, 20).tolist() == sf.core_faces(embedding[:8], 8).tolist() == []
    assert len(sf.core_faces(embedding, 19)) == 19
    short = np.argsort(np.linalg.norm(embedding, axis=1))[:4]  # a fifth of 20
    for number in range(1, 16):
        core = sf.core_faces(embedding, number)
        assert len(core) == number and not set(core.tolist()) & set(short.tolist())
    assert set(sf.core_faces(embedding, 4, floor=0.0).tolist()) <= set(range(20))


def test_the_same_faces_are_chosen_in_any_order() -> None:
    embedding = person(11, faces=30)
    order = np.random.default_rng(1).permutation(30)
    chosen = set(sf.core_faces(embedding, 8).tolist())
    assert {int(order[row]) for row in sf.core_faces(embedding[order], 8)} == chosen


def test_the_held_out_cosine_is_that_of_two_halves() -> None:
    embedding = person(5, faces=10)
    half = np.arange(10) % 3 == 0
    both = sf.average_cosine(embedding[half], embedding[~half])
    assert sf.held_out_cosine(embedding, half, lambda some: np.arange(len(some))) == both
    first = [cosine(embedding[half][0], embedding[~half].mean(axis=0)),
             cosine(embedding[~half][0], embedding[half].mean(axis=0))]  # fmt: skip
    told = sf.held_out_cosine(embedding, half, lambda _: np.array([0]))
    assert told == pytest.approx(sum(first) / 2, abs=1e-6)
    nobody = sf.held_out_cosine(embedding, half, lambda _: np.zeros(0, int))
    assert nobody == both  # a core that would be all
