"""Crop squares, boxes, distinct faces, tiles, and turning pictures upright."""

from __future__ import annotations

import io
import itertools

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sort_faces as sf

BOXES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 30), st.integers(0, 30)),
    max_size=12,
)


def detections(*boxes, scores=None) -> sf.Detections:
    """Detections of these boxes, each weaker than the last unless scores say otherwise."""
    bbox = np.array(boxes, np.float32).reshape(-1, 4)
    score = np.linspace(0.9, 0.6, len(bbox)) if scores is None else np.array(scores)
    kps = np.arange(len(bbox) * 10, dtype=np.float32).reshape(-1, 5, 2)
    return sf.Detections(bbox, score.astype(np.float32), kps)


# ---------------------------------------------------------------------------- crop_square

WH = (1000, 800)
FACE = 100  # px, both edges; with a pad of 0.5 the square has 200


@pytest.mark.parametrize(
    ("x", "y", "corner"),
    [
        (400, 300, (350, 250)),
        (50, 300, (0, 250)),  # just fits
        (10, 300, (0, 250)),
        (-30, 300, (0, 250)),
        (890, 300, (800, 250)),
        (950, 300, (800, 250)),
        (400, 10, (350, 0)),
        (400, 690, (350, 600)),
        (-20, -20, (0, 0)),
        (950, 750, (800, 600)),
    ],
)
def test_the_square_is_shifted_in_at_each_border(x, y, corner) -> None:
    box = np.float32([x, y, x + FACE, y + FACE])
    assert sf.crop_square(box, WH, 0.5) == (*corner, 200)


def test_the_pad_counts_from_the_longer_edge() -> None:
    assert sf.crop_square(np.float32([400, 300, 460, 400]), WH, 0.5) == (330, 250, 200)
    assert sf.crop_square(np.float32([400, 300, 500, 360]), WH, 0.0) == (400, 280, 100)


def test_a_square_larger_than_the_picture_covers_it() -> None:
    box = np.float32([50, 10, 150, 90])
    assert sf.crop_square(box, (300, 100), 1.0) == (0, -100, 300)  # as wide, too high
    x, y, side = sf.crop_square(box, (200, 100), 3.0)
    assert side == 700
    assert x <= 0 < 200 <= x + side
    assert y <= 0 < 100 <= y + side


@settings(deadline=None)
@given(
    st.floats(-100, 1000), st.floats(-100, 1000), st.floats(0.1, 900), st.floats(0.1, 900),
    st.integers(1, 1000), st.integers(1, 1000), st.floats(0, 3),
)  # fmt: skip
def test_the_square_keeps_its_size_and_stays_in_the_picture_if_it_can(
    x, y, width, height, picture_width, picture_height, pad
) -> None:
    box = np.array([x, y, x + width, y + height])
    left, top, side = sf.crop_square(box, (picture_width, picture_height), pad)
    assert side == max(1, round(max(width, height) * (1 + 2 * pad)))
    for start, length, low, high in (
        (left, picture_width, x, x + width),
        (top, picture_height, y, y + height),
    ):
        assert isinstance(start, int)
        if side <= length:
            assert 0 <= start <= length - side
        else:
            assert start <= 0
            assert start + side >= length
        inside = max(low, 0), min(high, length)  # what the picture shows of the face
        assert inside[0] >= inside[1] or (start <= inside[0] + 1 and inside[1] - 1 <= start + side)


# ---------------------------------------------------------------------------- boxes


def test_iou_and_overlap_of_known_boxes() -> None:
    box = np.float32([0, 0, 10, 10])
    others = np.float32(
        [[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [50, 50, 60, 60], [2, 2, 4, 7]]
    )
    assert sf.box_overlap(box, others).tolist() == [100, 50, 0, 0, 10]
    assert sf.box_iou(box, others) == pytest.approx([1, 1 / 3, 0, 0, 0.1])
    assert sf.box_area(others).tolist() == [100, 100, 100, 100, 10]


def test_empty_and_inverted_boxes_have_no_area() -> None:
    flat = np.float32([[5, 5, 5, 9], [8, 8, 2, 9], [3, 3, 3, 3]])
    assert sf.box_area(flat).tolist() == [0, 0, 0]
    assert sf.box_iou(np.float32([0, 0, 10, 10]), flat).tolist() == [0, 0, 0]
    assert sf.box_iou(flat[2], flat).tolist() == [0, 0, 0]


def test_one_box_against_none() -> None:
    box, none = np.float32([0, 0, 10, 10]), np.zeros((0, 4), np.float32)
    assert sf.box_iou(box, none).shape == sf.box_overlap(box, none).shape == (0,)


# ---------------------------------------------------------------------------- distinct_faces


@pytest.mark.parametrize(("shift", "kept"), [(42, 1), (44, 2)])  # IoU 0.408 and 0.389
def test_overlapping_detections_are_one_face_above_the_nms_limit(shift, kept) -> None:
    found = detections([0, 0, 100, 100], [shift, 0, 100 + shift, 100])
    assert len(sf.distinct_faces(found)) == kept


@pytest.mark.parametrize(("inside", "kept"), [(62, 1), (58, 2)])  # percent of the small box
def test_a_box_mostly_inside_a_larger_one_is_the_same_face(inside, kept) -> None:
    small, large = [100 - inside / 10, 40, 110 - inside / 10, 50], [0, 0, 100, 100]
    assert len(sf.distinct_faces(detections(large, small))) == kept
    assert len(sf.distinct_faces(detections(small, large))) == kept


def test_the_best_detection_of_a_face_stays_whole() -> None:
    found = detections(
        [0, 0, 100, 100], [300, 0, 400, 100], [2, 0, 102, 100], [301, 1, 399, 99],
        scores=[0.6, 0.9, 0.8, 0.7],
    )  # fmt: skip
    kept = sf.distinct_faces(found)
    assert kept.bbox.tolist() == [[300, 0, 400, 100], [2, 0, 102, 100]]  # best first
    assert kept.score.tolist() == pytest.approx([0.9, 0.8])
    assert kept.kps.tolist() == found.kps[[1, 2]].tolist()


def test_no_detections_stay_none() -> None:
    assert len(sf.distinct_faces(sf.no_detections())) == 0


@settings(deadline=None)
@given(BOXES)
def test_distinct_faces_are_distinct_and_cover_all_that_was_found(found) -> None:
    found = detections(*[[x, y, x + w, y + h] for x, y, w, h in found])
    kept = sf.distinct_faces(found)
    assert sf.distinct_faces(kept).bbox.tolist() == kept.bbox.tolist()
    assert kept.score.tolist() == sorted(kept.score.tolist(), reverse=True)
    for row in range(len(found)):
        covered = sf.box_overlap(found.bbox[row], kept.bbox).max() > 0
        assert covered or found.bbox[row].tolist() in kept.bbox.tolist()


# ---------------------------------------------------------------------------- tile_windows


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(64, 1400))
def test_tiles_cover_the_picture_and_overlap(width, height, side) -> None:
    windows = sf.tile_windows(width, height, side)
    assert len(set(windows)) == len(windows)
    columns = sorted({(x1, x2) for x1, _, x2, _ in windows})
    rows = sorted({(y1, y2) for _, y1, _, y2 in windows})
    assert set(windows) == {(x1, y1, x2, y2) for x1, x2 in columns for y1, y2 in rows}
    for spans, length in ((columns, width), (rows, height)):
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert {end - start for start, end in spans} == {min(side, length)}
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert end - start >= side * sf.TILE_OVERLAP - 1  # px lost by rounding


def test_a_picture_no_larger_than_a_tile_is_one_window() -> None:
    assert sf.tile_windows(640, 480, 640) == [(0, 0, 640, 480)]
    assert len(sf.tile_windows(641, 640, 640)) == 2


def test_tiles_are_no_more_than_the_overlap_needs() -> None:
    assert [x for x, *_ in sf.tile_windows(1000 + 750 * 3, 1000, 1000)] == [0, 750, 1500, 2250]


# ---------------------------------------------------------------------------- turn_upright


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_equals_pillow(orientation) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    exif = PIL.Image.Exif()
    exif[sf.EXIF_ORIENTATION] = orientation
    stored = io.BytesIO()
    PIL.Image.fromarray(image).save(stored, "PNG", exif=exif)
    expected = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(stored)))
    found = sf.turn_upright(image, orientation)
    assert found.tolist() == expected.tolist()
    assert found.flags.c_contiguous
