"""The engine of InsightFace's model packs: SCRFD detector, ArcFace recogniser, landmark models.

A companion of sort_faces.py, loaded for every --model but dlib wherever the work is done. The
insightface library reads the models and makes boxes of what the detector says; how crops become
embeddings and landmarks is here, so that the faces of several photos can share a call.
"""

from __future__ import annotations

import inspect
import math
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from insightface.app import FaceAnalysis
from insightface.model_zoo.scrfd import SCRFD
from insightface.utils import transform as head_turn

import sort_faces as sf

onnx_models = sf.companion("onnx_models")

PACK_URL = "https://github.com/deepinsight/insightface/releases/tag/model-zoo"
STRIDE = 32  # px; the coarsest grid of SCRFD, of which its input is a multiple
LANDMARK_ROOM = 1.5  # edge of what a landmark model sees, in edges of the box; insightface Landmark


class InsightFaceEngine(sf.Engine):
    """An InsightFace model pack run by onnxruntime."""

    def __init__(self, spec: sf.EngineSpec, threads: int) -> None:
        self.model, self.source = sf.model_label(spec.model), sf.model_source(spec.model)
        self.det_size = spec.det_size or sf.DET_SIZE
        self.det_threshold = spec.det_threshold
        self.provider = onnx_models.choose_provider(spec)
        models = load_pack(spec, self.provider, threads)
        if "detection" not in models or "recognition" not in models:
            has = ", ".join(sorted(models)) or "neither"
            why = f"needs a detection and a recognition .onnx, has {has}; name a complete pack"
            raise sf.no_model(spec, why)
        for model in models.values():
            model.session = onnx_models.Model(model.model_file, spec, threads, model.session)
        self.detector, self.recogniser = models["detection"], models["recognition"]
        self.detector.prepare(
            0, input_size=(self.det_size, self.det_size), det_thresh=self.det_threshold
        )
        self.pose_models = [models[name] for name in sf.LANDMARK_SHAPES if name in models]
        self.has_landmarks = bool(self.pose_models)
        self.recognizer = sf.sha256_of_file(self.recogniser.model_file)[:16]
        self.dim = int(self.recogniser.output_shape[1])
        self.rows = {
            model.taskname: model.session.rows(model.output_names[0])
            for model in (self.recogniser, *self.pose_models)
        }
        if spec.fp16:
            self.use_half_precision(spec, threads)

    def detect(
        self, image: np.ndarray, det_size: int | tuple[int, int] | None = None
    ) -> sf.Detections:
        size = det_size or self.det_size
        shape = size if isinstance(size, tuple) else (size, size)
        boxes, kps = self.detector.detect(image, input_size=shape)
        if kps is None:
            raise sf.SortFacesError(f"--model {self.model}: its detector gives no key points")
        return sf.Detections(boxes[:, :4], boxes[:, 4], kps.astype(np.float32))

    def fitted_size(self, image: np.ndarray) -> tuple[int, int] | None:
        """On CPUs and CUDA; other providers compile every shape."""
        fixed = isinstance(self.detector.session.get_inputs()[0].shape[2], int)
        if fixed or self.provider not in ("cpu", "cuda"):
            return None
        scale = self.det_size / max(image.shape[:2])
        wide, high = (STRIDE * math.ceil(edge * scale / STRIDE) for edge in image.shape[1::-1])
        return min(wide, self.det_size), min(high, self.det_size)

    def align(self, image: np.ndarray, found: sf.Detections) -> list[np.ndarray]:
        side = self.recogniser.input_size[0]
        return sf.cut_places(image, sf.arcface_places(found.kps, side), side)

    def embed_crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        if not len(crops):
            return np.zeros((0, self.dim), np.float32)
        return self.rows["recognition"](as_input(self.recogniser, crops))

    def landmarks(self, image: np.ndarray, found: sf.Detections) -> dict[str, np.ndarray]:
        """By the models in the pack; what no model gives is NaN, but for the pose."""
        columns = sf.LANDMARK_SHAPES
        result = {name: sf.COLUMNS[name].filled(len(found), self.dim) for name in columns}
        for model in self.pose_models if len(found) else ():
            side = model.input_size[0]
            places = landmark_places(found.bbox, side)
            crops = sf.cut_places(image, places, side)
            raw = self.rows[model.taskname](as_input(model, crops))
            points = landmark_points(model, raw, places)
            result[model.taskname] = points
            if model.require_pose:
                result["pose"] = np.array([turn_of(model.mean_lmk, head) for head in points])
        if not np.isfinite(result["pose"]).all():  # a pack with landmark_2d_106 alone
            result["pose"] = sf.pose_from_kps(found.kps, (image.shape[1], image.shape[0]))
        return result

    def use_half_precision(self, spec: sf.EngineSpec, threads: int) -> None:
        """Recognise in float16 from now on where that gives the same embeddings."""
        if self.provider == "cpu":
            raise sf.SortFacesError("--fp16: for GPUs; on a CPU it is slower than float32")
        crops = sample_crops(self)
        exact = sf.unit_rows(self.embed_crops(crops))
        single = self.rows["recognition"]
        half = onnx_models.in_half_precision(self.recogniser.model_file)
        model = onnx_models.Model(half, spec, threads)
        self.rows["recognition"] = model.rows(self.recogniser.output_names[0])
        cosine = float(np.min((exact * sf.unit_rows(self.embed_crops(crops))).sum(axis=1)))
        if not cosine >= onnx_models.MIN_COSINE:
            self.rows["recognition"] = single
            sf.log.warning(
                "--fp16: of %d faces the cosine to float32 falls to %.5f; float32 is used",
                *(len(crops), cosine),
            )


def as_input(model: Any, crops: Sequence[np.ndarray]) -> np.ndarray:
    """Crops (s, s, 3) uint8 BGR as a model takes them: (n, 3, s, s)."""
    mean = (model.input_mean,) * 3
    blob = cv2.dnn.blobFromImages(
        list(crops), 1.0 / model.input_std, tuple(model.input_size), mean, swapRB=True
    )
    return np.ascontiguousarray(blob, getattr(model, "input_dtype", np.float32))


def landmark_places(bbox: np.ndarray, side: int) -> np.ndarray:
    """(n, 2, 3): where boxes (n, 4) go in the picture (side, side) a landmark model sees."""
    scale = side / ((bbox[:, 2:] - bbox[:, :2]).max(axis=1) * LANDMARK_ROOM)
    middle = (bbox[:, :2] + bbox[:, 2:]) / 2
    places = np.zeros((len(bbox), 2, 3))
    places[:, 0, 0] = places[:, 1, 1] = scale
    places[:, :, 2] = side / 2 - middle * scale[:, None]
    return places


def landmark_points(model: Any, raw: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n, k, 2 or 3) float32 landmarks in pixels of the photo, of a model's outputs (n, d).

    They come from -1 to 1 over the crop, as insightface's Landmark.get reads them; 1k3d68 gives 68
    landmarks after 1,035 other points.
    """
    points = raw.reshape(len(raw), -1, model.lmk_dim)[:, -model.lmk_num :].astype(np.float64)
    points[:, :, :2] += 1
    points *= model.input_size[0] // 2
    scale = places[:, :1, :1]
    points[:, :, :2] -= places[:, None, :, 2]
    return (points / scale).astype(np.float32)


def turn_of(mean_head: np.ndarray, head: np.ndarray) -> np.ndarray:
    """(3,) float32 degrees pitch yaw roll of a head (68, 3), by insightface."""
    affine = head_turn.estimate_affine_matrix_3d23d(mean_head, head)
    return np.array(head_turn.matrix2angle(head_turn.P2sRt(affine)[1]), np.float32)


def sample_crops(engine: sf.Engine) -> list[np.ndarray]:
    """Faces to compare two forms of a recogniser on: those of the sample photo, and mirrored."""
    image = sf.decode_photo(sf.companion("demo_library").demo_photo()).image
    crops = engine.align(image, engine.detect(image))
    return [*crops, *(np.ascontiguousarray(crop[:, ::-1]) for crop in crops)]


def load_pack(spec: sf.EngineSpec, provider: str, threads: int) -> dict[str, Any]:
    """Load a pack's models by task name; downloads a named pack that is not there yet."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # scikit-image inside insightface
    folder, name = sf.model_folder(spec), spec.model
    if folder.is_dir():
        name = str(folder)
        if not list(folder.glob("*.onnx")):
            raise sf.no_model(spec, f"no .onnx files in {folder}; {where_to_put(spec)}")
    elif os.sep in name:
        raise sf.no_model(spec, "no such folder; name a pack or its folder")
    elif (beside := Path(spec.model_root).expanduser() / name).is_dir():
        raise sf.no_model(spec, f"is not in {folder} but in {beside}; say --model {beside}")
    else:
        sf.log.warning("%s is not in %s; asking insightface to download it", name, folder)
    tasks = ["detection", "recognition"] + list(sf.LANDMARK_SHAPES)[:2] * spec.landmarks
    root, settings = Path(spec.model_root).expanduser(), pack_settings(spec, provider, threads)
    try:
        with onnx_models.quiet_loading(provider):
            return FaceAnalysis(name, str(root), allowed_modules=tasks, **settings).models
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        why = f"cannot be loaded or downloaded ({sf.one_line(error)}); {where_to_put(spec)}"
    except AssertionError:
        why = f"no detection model in {folder}"
    except onnx_models.model_errors() as error:
        why = f"damaged .onnx file ({sf.one_line(error)}); {where_to_put(spec)}"
    raise sf.no_model(spec, why)


def pack_settings(spec: sf.EngineSpec, provider: str, threads: int) -> dict[str, Any]:
    """How insightface is to open its sessions.

    From version 2 on it would open one more for each input size of the detector, on CPUs, too;
    onnx_models.Model does so where it helps. CoreML wants a kind of its own, which it knows.
    """
    settings = onnx_models.session_settings(spec, provider, threads)
    if provider != "coreml" and "static_shape_sessions" in inspect.signature(SCRFD).parameters:
        settings["static_shape_sessions"] = False
    return settings


def where_to_put(spec: sf.EngineSpec) -> str:
    return (
        f"unpack {spec.model}.zip from {PACK_URL} into {sf.model_folder(spec)}, "
        "or use --model dlib, which needs no download"
    )
