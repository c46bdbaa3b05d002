"""Where Faceswap and DeepFaceLab put a face in their aligned pictures: maps and masks, no files.

All of it follows from 68 landmarks (iBUG order) in pixels of the upright photo. The templates and
numbers are those of the two programs, as they must be for a picture to fit: a face is cut out of
the photo as it would have been by them (docs/consumers_aligned.md, formulas with their sources).
"""

from __future__ import annotations

import math

import cv2
import numpy as np

import sort_faces as sf

LANDMARKS = 68

# A mean face, landmarks 17 to 67, the brows' tops at 0 and the chin's height at 1; as
# deepfakes/faceswap has it (lib/align/constants.py, 51 points).
MEAN_X = (
    *(0.010086, 0.085135, 0.191003, 0.300643, 0.403270),  # brows
    *(0.596729, 0.699356, 0.808997, 0.914864, 0.989913),
    *(0.5, 0.5, 0.5, 0.5, 0.376753, 0.435909, 0.5, 0.564090, 0.623246),  # nose
    *(0.131610, 0.196995, 0.275698, 0.344479, 0.270791, 0.192616),  # eyes
    *(0.655520, 0.724301, 0.803005, 0.868389, 0.807383, 0.729208),
    *(0.264022, 0.350858, 0.438731, 0.5, 0.561268, 0.649141, 0.735977),  # mouth
    *(0.652032, 0.566594, 0.5, 0.433405, 0.347967),
    *(0.300252, 0.437969, 0.5, 0.562030, 0.699747, 0.563237, 0.5, 0.436763),
)
MEAN_Y = (
    *(0.106454, 0.038915, 0.018748, 0.034489, 0.077391),
    *(0.077391, 0.034489, 0.018748, 0.038915, 0.106454),
    *(0.203352, 0.307009, 0.409805, 0.515625, 0.587326, 0.609345, 0.628106, 0.609345, 0.587326),
    *(0.216423, 0.178758, 0.179852, 0.231733, 0.245099, 0.244077),
    *(0.231733, 0.179852, 0.178758, 0.216423, 0.244077, 0.245099),
    *(0.780233, 0.745405, 0.727388, 0.742578, 0.727388, 0.745405, 0.780233),
    *(0.864805, 0.902192, 0.909281, 0.902192, 0.864805),
    *(0.784792, 0.778746, 0.785343, 0.778746, 0.784792, 0.824182, 0.831803, 0.824182),
)

# --- Faceswap ---------------------------------------------------------------

# {landmark: its place on a head, x to the left of the picture's middle, y up, z to the lens}; the
# "anthropometric" model of the University of Coimbra, of which faceswap takes 26 points.
HEAD = {
    6: (4.056931, -11.432347, 1.636229),
    7: (1.833492, -12.542305, 4.061275),
    8: (0.0, -12.901019, 4.070434),
    9: (-1.833492, -12.542305, 4.061275),
    10: (-4.056931, -11.432347, 1.636229),
    17: (6.825897, 1.275284, 4.402142),
    21: (1.330353, 1.636816, 6.903745),
    22: (-1.330353, 1.636816, 6.903745),
    26: (-6.825897, 1.275284, 4.402142),
    31: (1.930245, -5.060977, 5.914376),
    32: (0.746313, -5.136947, 6.263227),
    33: (0.0, -5.485328, 6.76343),
    34: (-0.746313, -5.136947, 6.263227),
    35: (-1.930245, -5.060977, 5.914376),
    36: (5.311432, 0.0, 3.987654),
    39: (1.78993, -0.091703, 4.413414),
    42: (-1.78993, -0.091703, 4.413414),
    45: (-5.311432, 0.0, 3.987654),
    48: (2.774015, -7.566103, 5.048531),
    50: (0.509714, -7.056507, 6.566167),
    51: (0.0, -7.131772, 6.704956),
    52: (-0.509714, -7.056507, 6.566167),
    54: (-2.774015, -7.566103, 5.048531),
    56: (-0.589441, -8.443925, 6.109526),
    57: (0.0, -8.601736, 6.097667),
    58: (0.589441, -8.443925, 6.109526),
}
CAMERA = ((4.0, 0.0, 0.5), (0.0, 4.0, 0.5), (0.0, 0.0, 1.0))  # looks at the mean face's square
# {centring: (what the picture's middle shows, on that head; share of its edge beside the square)}
CENTRES = {"head": ((0.0, 0.0, -2.3), 0.625), "face": ((0.0, -1.5, 4.2), 0.5)}

# What faceswap's masks by landmarks are made of: the convex hulls of these points.
HULLS = (
    (*range(9), 17),  # jaws
    (*range(8, 17), 26),
    (17, 18, 19, 8),  # cheeks
    (24, 25, 26, 8),
    (*range(19, 25), 8),  # ridge of the nose
    (*range(17, 22), 27, *range(31, 36), 8),  # eyes
    (*range(22, 27), 27, *range(31, 36), 8),
    (*range(27, 36),),  # nose
)

# --- DeepFaceLab ------------------------------------------------------------

DFL_POINTS = (*range(17, 49), 54)  # those it fits
DFL_LEFT = 0.009873  # its mean face is the same, so much farther left
# {face type: (padding, how far up its middle lies)}, shares of the mean face's square
DFL_TYPES = {"full_face": (0.2109375, 0.0), "whole_face": (0.40, 0.07), "head": (0.70, 0.50)}


def mean_face(points: tuple[int, ...] = tuple(range(17, LANDMARKS))) -> np.ndarray:
    """(k, 2) float64 places of landmarks, from 17 on, of the mean face."""
    return np.array([MEAN_X, MEAN_Y]).T[np.array(points) - 17]


def fits(points: np.ndarray) -> bool:
    """Whether these (68, 2) may be the landmarks of a face: all known, not all in one place."""
    return bool(np.isfinite(points).all() and np.ptp(points, axis=0).max() > 0)


def transformed(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (k, 2) under an affine map (2, 3): (k, 2) float64."""
    return points.astype(float) @ matrix[:, :2].T + matrix[:, 2]


def framed(square: np.ndarray, size: int, padding: float, middle: np.ndarray) -> np.ndarray:
    """(2, 3): a map onto the unit square carried on to a picture of `size` px.

    `middle` (2,) of the square lies in the middle of the picture, with `padding` px on each side.
    """
    result = square * (size - 2 * padding)
    result[:, 2] += size / 2 - np.asarray(middle) * (size - 2 * padding)
    return result


def faceswap_matrix(points: np.ndarray, size: int, centring: str = "head") -> np.ndarray:
    """(2, 3): where Faceswap puts a face with landmarks (68, 2) in a picture of `size` px.

    The landmarks from 17 on fit the mean face by a similarity; then the middle of the skull, as
    a head turned like this face has it, or that of the face comes to the middle of the picture.
    """
    square = sf.similarities(points[None, 17:], mean_face())[0]
    centre, share = CENTRES[centring]
    return framed(square, size, round(size * share / 2), seen(transformed(square, points), centre))


def seen(points: np.ndarray, place: tuple[float, float, float]) -> np.ndarray:
    """(2,): where a place on HEAD is seen, for landmarks (68, 2) in the mean face's square."""
    camera, own = np.array(CAMERA), points[list(HEAD)]
    model = np.array(list(HEAD.values()))
    _, turn, move = cv2.solvePnP(model, own, camera, None, flags=cv2.SOLVEPNP_ITERATIVE)
    return cv2.projectPoints(np.array([place]), turn, move, camera, None)[0].reshape(2)


def dfl_matrix(points: np.ndarray, size: int, face_type: str) -> np.ndarray:
    """(2, 3): where DeepFaceLab puts a face with landmarks (68, 2) in a picture of `size` px."""
    target = mean_face(DFL_POINTS) - (DFL_LEFT, 0.0)
    square = sf.similarities(points[None, list(DFL_POINTS)], target)[0]
    padding, up = DFL_TYPES[face_type]
    side = 1.0 + 2.0 * math.sqrt(2.0) * padding  # it measures its padding along the diagonal
    aside = dfl_yaw(transformed(square, points)) / 2 if face_type == "head" else 0.0
    edge = size / side
    return framed(square, size, (size - edge) / 2, np.array([0.5 + aside, 0.5 - up]))


def dfl_yaw(points: np.ndarray) -> float:
    """How far a head is turned, as DeepFaceLab estimates it of landmarks (68, 2) in the square:
    how much farther one side of the jaw lies from the nose, damped near zero."""
    x, nose = points[:, 0], points[27:30, 0]
    yaw = float(np.mean(x[[16, 15, 14]] - nose) - np.mean(nose - x[:3]))
    return yaw * abs(math.tanh(2 * yaw))


def scale_of(matrix: np.ndarray) -> float:
    """Pixels of the picture for each of the photo."""
    return float(np.hypot(*matrix[0, :2]))


def landmark_mask(points: np.ndarray, size: int, extended: bool = False) -> np.ndarray:
    """(size, size) uint8, 255 on the face: Faceswap's mask `components`, or `extended`.

    points: (68, 2) in pixels of the mask.
    """
    mask = np.zeros((size, size), np.uint8)
    points = raised_brows(points) if extended else points
    for hull in HULLS:
        outline = cv2.convexHull(np.rint(points[list(hull)]).astype(np.int32))
        cv2.fillConvexPoly(mask, outline, 255, lineType=cv2.LINE_AA)
    return mask


def raised_brows(points: np.ndarray) -> np.ndarray:
    """Landmarks (68, 2) with the brows half as far again above the eyes."""
    points = points.astype(float)
    result = points.copy()
    for brow, eye, corner, jaw in (
        (range(17, 22), (None, 36, 37, 38, 39), 36, 0),
        (range(22, 27), (42, 43, 44, 45, None), 45, 16),
    ):
        beside = (3 * points[corner] + points[jaw]) / 4  # a quarter of the way to the jaw
        below = np.array([beside if at is None else points[at] for at in eye])
        result[brow] = points[brow] + (points[brow] - below) / 2
    return result
