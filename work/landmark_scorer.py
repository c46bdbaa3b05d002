"""Masks and sunglasses without CLIP: colours and edges around a face's five key points.

A companion of sort_faces.py, loaded for `occlusion score --scorer landmarks`. The key points put
the face on a 56 px template, where eyes, nose and mouth always lie in the same regions; measured
are colours against the skin beside them, and edges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import cv2
import numpy as np

import sort_faces as sf

LANDMARK_SIDE = 56  # px; half of ArcFace's 112, and about what the smallest usable face has
LANDMARK_POINTS = np.array([sf.ARCFACE_X, sf.ARCFACE_Y]).T / 2  # (5, 2) px of 56
REGIONS = {  # name: boxes x1 y1 x2 y2 in px of 56; chosen around LANDMARK_POINTS
    "forehead": ((19, 12, 37, 18),),
    "lids": ((12, 18, 24, 21), (32, 18, 44, 21)),
    "eyes": ((14, 22, 24, 29), (32, 22, 42, 29)),
    "under eyes": ((15, 29, 23, 33), (33, 29, 41, 33)),
    "eye band": ((10, 20, 46, 34),),
    "bridge": ((25, 23, 31, 30),),
    "upper": ((25, 23, 31, 30), (15, 29, 23, 33), (33, 29, 41, 33)),  # skin above a mask
    "cheeks": ((12, 36, 19, 43), (37, 36, 44, 43)),
    "nose": ((24, 32, 32, 39),),
    "lip": ((23, 39, 33, 43),),
    "mouth": ((21, 42, 35, 50),),
    "middle": ((24, 32, 32, 39), (23, 39, 33, 43), (21, 42, 35, 50)),  # under a mask
}
# Feature: mean of clear faces, spread, weight for mask, weight for sunglasses; a ridge logistic
# regression fitted by tests/bench/measure_occlusion.py (docs/analysis/occlusion.md).
LANDMARK_FEATURES = {
    "mouth lines against eye lines": (-0.0943, 0.694, -1.21, 0),
    "mouth lines down": (0.674, 0.235, -2.63, 0),
    "mouth lines across": (0.331, 0.109, 0.644, 0),
    "nostrils": (-1.21, 0.68, 1.03, 0),
    "red lips": (8, 6.17, -1.06, 0),
    "mouth colour against forehead": (7.26, 6.55, 1.44, 0),
    "cheek colour against upper face": (4.1, 10.1, 0.94, 0),
    "mouth redness against upper face": (1.96, 7.43, -1.68, 0),
    "mouth lightness against upper face": (-7.09, 19.5, -0.529, 0),
    "dark share of eye band": (0.148, 0.251, 0, 1.57),
    "lines across eyes": (-1.98, 0.649, 0, -2.25),
    "eye colour against skin": (6.92, 11.2, 0, 1.12),
    "whites of the eyes": (-0.178, 0.493, 0, 0.24),
    "lightness of lids": (-0.0741, 0.373, 0, 0.386),
    "lightness under eyes": (-0.0378, 0.505, 0, -1.04),
    "lightness of bridge": (-0.0358, 0.461, 0, -1.04),
}
LANDMARK_BIAS = np.array([-7.78, -4.18])  # mask, sunglasses; same source
LANDMARK_LIMIT = 4.0  # spreads; chosen, one odd region must not outvote the others


def region_features(image: np.ndarray, kps: np.ndarray) -> np.ndarray:
    """(16,) float64 measurements of a face (h, w, 3) uint8 BGR with key points (5, 2) pixels."""
    return face_features(aligned_face(image, kps))


def face_features(face: np.ndarray) -> np.ndarray:
    """(16,) float64 measurements of an aligned face (112, 112, 3) uint8 BGR.

    In the order of LANDMARK_FEATURES; colours are CIE Lab, lightness 0 to 100.
    """
    lab = lab_of_face(face)  # (56, 56, 3)
    light = lab[..., 0]
    down = np.pad(np.abs(light[2:] - light[:-2]), ((1, 1), (0, 0)))
    across = np.pad(np.abs(light[:, 2:] - light[:, :-2]), ((0, 0), (1, 1)))
    contrast = light[10:54, 10:46].std() + 3.0  # of the whole face
    median = {name: np.median(region(lab, name), axis=0) for name in REGIONS}
    skin = np.median([median["cheeks"], median["nose"], median["forehead"]], axis=0)
    eyes, upper, middle = median["eyes"], median["upper"], median["middle"]
    mouth, lit = region(lab, "mouth"), skin[0] + 3.0
    return np.array(
        [
            np.log((region(down, "mouth").mean() + 0.5) / (region(down, "eyes").mean() + 0.5)),
            region(down, "mouth").mean() / contrast,
            region(across, "mouth").mean() / contrast,
            (np.percentile(region(light, "lip"), 10) - median["nose"][0]) / contrast,
            np.percentile(mouth[:, 1], 90) - median["cheeks"][1],
            np.linalg.norm(middle[1:] - median["forehead"][1:]),
            np.linalg.norm(median["cheeks"][1:] - upper[1:]),
            middle[1] - upper[1],
            middle[0] - upper[0],
            (region(light, "eye band") < 0.55 * skin[0]).mean(),
            np.log((region(across, "eyes").mean() + 0.5) / lit),
            np.linalg.norm(eyes[1:] - skin[1:]),
            np.log((np.percentile(region(light, "eyes"), 75) + 3.0) / lit),
            np.log((median["lids"][0] + 3.0) / lit),
            np.log((median["under eyes"][0] + 3.0) / lit),
            np.log((median["bridge"][0] + 3.0) / lit),
        ]
    )


def aligned_face(image: np.ndarray, kps: np.ndarray) -> np.ndarray:
    """(112, 112, 3) uint8 face, turned and scaled by least squares to meet LANDMARK_POINTS."""
    side = 2 * LANDMARK_SIDE
    return cv2.warpAffine(image, placement(kps), (side, side), borderMode=cv2.BORDER_REPLICATE)


def placement(kps: np.ndarray) -> np.ndarray:
    """(2, 3) float64: the similarity that takes key points (5, 2) to the 112 px template."""
    return sf.arcface_places(np.asarray(kps)[None], 2 * LANDMARK_SIDE)[0]


def lab_of_face(face: np.ndarray) -> np.ndarray:
    """(56, 56, 3) float32 Lab of an aligned face.

    Averaged down to half the size, so that sharp faces and soft ones compare.
    """
    small = cv2.resize(face, (LANDMARK_SIDE, LANDMARK_SIDE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small.astype(np.float32) / 255.0, cv2.COLOR_BGR2LAB)


def region(picture: np.ndarray, name: str) -> np.ndarray:
    """Pixels of a region of a (56, 56, ...) picture: (n, ...)."""
    parts = [picture[y1:y2, x1:x2] for x1, y1, x2, y2 in REGIONS[name]]
    return np.concatenate([part.reshape(-1, *picture.shape[2:]) for part in parts])


def occlusion_probabilities(features: np.ndarray) -> np.ndarray:
    """P(mask), P(sunglasses) of features (n, 16): (n, 2) in [0, 1].

    A logistic regression per attribute on standardised features, far-off ones limited.
    """
    mean, spread, *weights = np.array(list(LANDMARK_FEATURES.values())).T  # (16,) each
    scaled = np.clip((features - mean) / spread, -LANDMARK_LIMIT, LANDMARK_LIMIT)
    return 1.0 / (1.0 + np.exp(-(scaled @ np.stack(weights, axis=1) + LANDMARK_BIAS)))


class KeyPointScorer:
    """Scores aligned faces; to occlusion_net.py what its Classifier is."""

    label = "landmarks"
    aligned = True
    crop = staticmethod(aligned_face)

    @property
    def mark(self) -> str:
        """Eight hex digits of the weights."""
        weights = repr((LANDMARK_FEATURES, LANDMARK_BIAS.tolist())).encode()
        return hashlib.sha256(weights).hexdigest()[:8]

    def score_crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """P(mask), P(sunglasses) of aligned faces (112, 112, 3): (n, 2) in [0, 1]."""
        return occlusion_probabilities(np.array([face_features(crop) for crop in crops]))
