"""False positives by their points: what is no face, or a face whose points are wrong.

The tests are those of Faceswap's aligner: the size of the face box in shares of the photo's shorter
side, the distance of the points from the mean face, the roll that is left when the points are laid
on it, and whether the eyes are above the mouth. As there of 68 landmarks, where the cache has them;
else of the five points every detector of ours gives. Units are theirs, so that their users' numbers
mean what they are used to.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

import sort_faces as sf

geometry = sf.companion("aligned_geometry")
FIRST = 17  # of 68: those before it are the jaw, which the mean face has not
EYES_AND_BROWS = (*range(17, 27), *range(36, 48))
LEFT_EYE, RIGHT_EYE, MOUTH = slice(36, 42), slice(42, 48), slice(48, 68)
FACE_BOX = 4.0  # edge of Faceswap's face box, in distances of the eyes of the mean face
CORE = 2.0  # edge of the square its mean face fills, likewise: the unit of its distance


@dataclass(frozen=True)
class Shapes:
    """How points lie, seen from the mean face."""

    scale: np.ndarray  # (n,) edge of the face box, pixels
    distance: np.ndarray  # (n,) mean distance from the mean face, percent of its core
    roll: np.ndarray  # (n,) degrees the eyes are off the level when all points are laid on it
    gap: np.ndarray  # (n,) from the lowest of the eyes down to the highest of the mouth, of core


def shapes(cache: sf.FaceCache, rows: np.ndarray) -> Shapes:
    """Of faces of a cache: by 68 landmarks where they are known, else by five."""
    found = shapes_of(cache.kps[rows])
    points = np.asarray(cache.landmark_3d_68[rows][..., :2], np.float64)
    known = np.isfinite(points).all(axis=(1, 2))
    if known.any():
        better = shapes_of_68(points[known])
        for item in fields(Shapes):
            getattr(found, item.name)[known] = getattr(better, item.name)
    return found


def shapes_of_68(points: np.ndarray) -> Shapes:
    """Lay landmarks (n, 68, 2), pixels, on the mean face of the 51 that are not the jaw's."""
    mean = geometry.mean_face()  # (51, 2) in a square of 1
    places = sf.similarities(points[:, FIRST:], mean)  # (n, 2, 3)
    laid = np.einsum("nij,nkj->nki", places[..., :2], points) + places[:, None, :, 2]
    zoom = np.hypot(places[:, 0, 0], places[:, 1, 0])
    line = laid[:, RIGHT_EYE].mean(axis=1) - laid[:, LEFT_EYE].mean(axis=1)
    return Shapes(
        scale=FACE_BOX / CORE / np.maximum(zoom, 1e-9),
        distance=100.0 * np.abs(laid[:, FIRST:] - mean).mean(axis=(1, 2)),
        roll=np.degrees(np.arctan2(line[:, 1], line[:, 0])),
        gap=laid[:, MOUTH, 1].min(axis=1) - laid[:, EYES_AND_BROWS, 1].max(axis=1),
    )


def shapes_of(kps: np.ndarray) -> Shapes:
    """Lay key points (n, 5, 2), pixels, on the mean face by the similarity that fits best."""
    side = 112  # px of ArcFace's template
    mean = np.array([sf.ARCFACE_X, sf.ARCFACE_Y], np.float64).T  # (5, 2)
    eyes = float(np.linalg.norm(mean[1] - mean[0]))
    places = sf.arcface_places(kps, side)  # (n, 2, 3)
    laid = np.einsum("nij,nkj->nki", places[..., :2], kps.astype(np.float64))
    laid += places[:, None, :, 2]  # (n, 5, 2)
    zoom = np.hypot(places[:, 0, 0], places[:, 1, 0])
    line = laid[:, 1] - laid[:, 0]
    usual = mean[1] - mean[0]
    roll = np.degrees(np.arctan2(line[:, 1], line[:, 0]) - np.arctan2(usual[1], usual[0]))
    core = CORE * eyes
    return Shapes(
        scale=FACE_BOX * eyes / np.maximum(zoom, 1e-9),
        distance=100.0 * np.abs(laid - mean).mean(axis=(1, 2)) / core,
        roll=(roll + 180.0) % 360.0 - 180.0,
        gap=(laid[:, 3:, 1].min(axis=1) - laid[:, :2, 1].max(axis=1)) / core,
    )


REASONS = (  # in the order of Faceswap's tests; as manifests tell them
    "eyes below the mouth",
    "small for its photo",
    "large for its photo",
    "far from the mean face",
    "its points are rolled",
)


def faults(
    cache: sf.FaceCache, rows: np.ndarray, limits: sf.LandmarkLimits
) -> list[tuple[str, float]]:
    """Why each of these faces is taken for a false positive, and the value that says so.

    ("", 0.0) where it passes; of several reasons the first. A limit of 0 is none.
    """
    lie = shapes(cache, rows)
    share = lie.scale / np.maximum(cache.file_wh[cache.face_file[rows]].min(axis=1), 1)
    roll = np.abs(lie.roll)
    farthest, steepest = limits.max_mean_distance, limits.max_points_roll
    tests = (
        (lie.gap, lie.gap < 0.0),
        (share, share < limits.min_scale),
        (share, (share > limits.max_scale) & (limits.max_scale > 0)),
        (lie.distance, (lie.distance > farthest) & (farthest > 0)),
        (roll, (roll > steepest) & (steepest > 0)),
    )
    found = [("", 0.0)] * len(rows)
    for reason, (values, wrong) in reversed(list(zip(REASONS, tests, strict=True))):
        for at in np.flatnonzero(wrong):
            found[at] = reason, float(values[at])
    return found
