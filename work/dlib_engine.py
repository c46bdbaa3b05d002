"""The offline engine: dlib's detector, landmarks and network, whose weights install with pip.

A companion of sort_faces.py, loaded for `--model dlib` wherever the work is done. Its thresholds,
DLIB_THRESHOLDS, stand with those of the other models.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import dlib
import numpy as np

import sort_faces as sf

MAX_UPSCALE = 2.0  # small pictures are enlarged at most this much first
CHIP, CHIP_PADDING = 150, 0.25  # input of dlib_face_recognition_resnet_model_v1
HEAD_POINTS = (30, 8, 36, 45, 48, 54)  # of 68: nose tip, chin, outer eye corners, mouth corners
HEAD_CHIN = (0, -330, -65)  # in the head model of sort_faces.py, as are the eye corners
HEAD_EYE_CORNERS = ((-225, 170, -135), (225, 170, -135))
HEAD = np.array([sf.HEAD_5[2], HEAD_CHIN, *HEAD_EYE_CORNERS, *sf.HEAD_5[3:]])

# Mean of the raw embeddings, 128 float16 in base64; measured by tests/bench/measure_dlib.py on
# half of the people of a labelled library (docs/analysis/dlib.md), the thresholds on the other.
DLIB_MEAN = (
    "Bq67LR8sjqp7riuljaS2ruEwiawSMk6pzrOPp5ynOzD3sEqw1K4xrWki+SipJjkmVrDqtICse63LKUWthCJpLNyx"
    "Cqt/KJYse6o5rH0y1STSseMV9SoJNLYyIR0SJUqsmS9UtMwpszBNL9AsGi3WsBIkWjDIsbEs6yzsruOnk6mGMcct"
    "Vq56sG4xirALqhAtJa4CsUu05ybhNbQvbLFGItGsaqAVJj4qj6x3qfCtmCNlMuSnv6UCM6INEpptKLgqiq/po4Cv"
    "DKVtKDeuSBwzLsaxKzGopwOlWqQ/prCsv5qEMeyzkzKoMbOQQDC0KxwrWpruoTGwxq7GJy2npSTsKA=="
)


@functools.cache
def dlib_mean() -> np.ndarray:
    """(128,) float32 to subtract from dlib's raw embeddings."""
    return np.frombuffer(base64.b64decode(DLIB_MEAN), dtype="<f2").astype(np.float32)


class DlibEngine(sf.Engine):
    """dlib's HOG detector, 68 landmarks and 128-d network; all weights install with pip.

    Its raw embeddings share a large mean (strangers have cosine 0.85), so DLIB_MEAN is
    subtracted, which puts strangers near 0 like an ArcFace model (docs/analysis/dlib.md).
    """

    def __init__(self, spec: sf.EngineSpec) -> None:
        if spec.require_gpu or spec.fp16 or spec.provider not in ("auto", "cpu"):
            raise sf.SortFacesError("--model dlib: runs on the CPU only; use a model pack on a GPU")
        weights = dlib_weights()
        self.model = self.source = sf.DLIB_MODEL
        self.provider, self.has_landmarks = "cpu", True
        self.det_size = spec.det_size or sf.DLIB_DET_SIZE
        self.det_threshold = spec.det_threshold
        self.dim = 128
        self.recognizer = "dlib-resnet-v1"
        self.predictor = dlib.shape_predictor(str(weights["predictor"]))
        self.network = dlib.face_recognition_model_v1(str(weights["network"]))
        self.local = threading.local()  # a HOG detector serves one thread at a time

    def detect(self, image: np.ndarray, det_size: int | None = None) -> sf.Detections:
        """Faces by HOG, with the margin of its decision as their score."""
        if not hasattr(self.local, "detector"):
            self.local.detector = dlib.get_frontal_face_detector()
        size = det_size or self.det_size
        scale = min(MAX_UPSCALE, size / max(image.shape[:2]))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=method)
        margin = math.log(self.det_threshold / (1.0 - self.det_threshold)) / 2.0
        found, margins, _ = self.local.detector.run(rgb_of(small), 0, margin)
        if not len(found):
            return sf.no_detections()
        boxes = np.array([[r.left(), r.top(), r.right(), r.bottom()] for r in found]) / scale
        boxes = boxes.astype(np.float32)
        # The HOG margin is 0 on the decision boundary; the logistic makes it a score like others.
        score = (1.0 / (1.0 + np.exp(-2.0 * np.array(margins)))).astype(np.float32)
        return sf.Detections(boxes, score, kps_of_68(self.points(image, boxes)))

    def points(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """(n, 68, 2) float32 landmarks of face boxes."""
        shapes = self.shapes(rgb_of(image), boxes)
        points = [[(p.x, p.y) for p in shape.parts()] for shape in shapes]
        return np.array(points, np.float32).reshape(-1, 68, 2)

    def shapes(self, rgb: np.ndarray, boxes: np.ndarray) -> list[Any]:
        rounded = np.rint(boxes).astype(int).tolist()
        return [self.predictor(rgb, dlib.rectangle(*box)) for box in rounded]

    def align(self, image: np.ndarray, found: sf.Detections) -> list[np.ndarray]:
        rgb = rgb_of(image)
        return [
            dlib.get_face_chip(rgb, shape, size=CHIP, padding=CHIP_PADDING)
            for shape in self.shapes(rgb, found.bbox)
        ]

    def embed_crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        if not crops:
            return np.zeros((0, self.dim), np.float32)
        raw = np.array(self.network.compute_face_descriptor(np.stack(crops)), np.float32)
        return raw.reshape(-1, self.dim) - dlib_mean()

    def landmarks(self, image: np.ndarray, found: sf.Detections) -> dict[str, np.ndarray]:
        """68 landmarks in the plane of the picture, and the pose by six of them."""
        points = self.points(image, found.bbox)
        wh = (image.shape[1], image.shape[0])
        depth = np.zeros((*points.shape[:2], 1), np.float32)  # dlib's landmarks are flat
        poses = [sf.solve_pose(face[list(HEAD_POINTS)], HEAD, wh) for face in points]
        return {
            "landmark_2d_106": sf.COLUMNS["landmark_2d_106"].filled(len(points), self.dim),
            "landmark_3d_68": np.concatenate([points, depth], axis=2),
            "pose": np.array(poses, np.float32).reshape(-1, 3),
        }


def dlib_weights() -> dict[str, Path]:
    """Weight files of the face_recognition_models package, found without importing it."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        raise ImportError("face_recognition_models is not installed")
    folder = Path(spec.origin).parent / "models"
    return {
        "predictor": folder / "shape_predictor_68_face_landmarks.dat",
        "network": folder / "dlib_face_recognition_resnet_model_v1.dat",
    }


def kps_of_68(points: np.ndarray) -> np.ndarray:
    """Five key points of iBUG-68 landmarks (n, 68, 2): eyes, nose tip, mouth corners."""
    eyes = [points[:, 36:42].mean(axis=1), points[:, 42:48].mean(axis=1)]
    return np.stack([*eyes, points[:, 30], points[:, 48], points[:, 54]], axis=1)


def rgb_of(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, :, ::-1])
