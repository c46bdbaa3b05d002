"""Masks and sunglasses by a classifier of face crops: the network of ours, or any other as ONNX.

A companion of sort_faces.py, loaded for `occlusion score --scorer net` (the default), `--scorer
FILE.onnx` and `--scorer FILE.json`, which `occlusion fit` writes, and for the landmark scorer. What
a classifier has to say of itself is in docs/occlusion.md; ours is made by occlusion_train.py.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

import sort_faces as sf

landmarks = sf.companion("landmark_scorer")
OWN = "occlusion_net.onnx"  # in work/
SIDE = 112  # px; ArcFace's crop, and what an input of no stated size gets
BATCH = 16  # PNGs read and scored together; chosen, larger ones gain nothing on a CPU
BYTE_MIDDLE = "127.5"  # mean and std of a classifier that names none: bytes to -1 ... 1
CROPS = ("aligned", "whole")
COLOURS = ("RGB", "BGR")
OUTPUTS = ("probability", "logits", "softmax")
CONTRACT = "see `A classifier of your own` in docs/occlusion.md"


def as_input(
    faces: np.ndarray, mean: Any = 127.5, std: Any = 127.5, colour: str = "RGB"
) -> np.ndarray:
    """(n, 3, s, s) float32 of faces (n, s, s, 3) uint8 BGR."""
    ordered = faces[..., ::-1] if colour == "RGB" else faces
    scaled = (ordered.astype(np.float32) - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class Contract:
    """What a classifier says of itself in its metadata."""

    classes: tuple[str, ...]  # in the order of its output; a+b is a class that shows both
    crop: str  # aligned: the face on ArcFace's template; whole: all of the PNG
    colour: str
    mean: tuple[float, ...]  # of bytes, one or three
    std: tuple[float, ...]
    output: str  # probability; logits: one sigmoid a class; softmax over the classes
    features: str  # name of the output that `occlusion fit` learns from; "" without one

    @classmethod
    def of(cls, facts: dict[str, str]) -> Contract:
        """Raises ValueError where a value is none."""
        found = cls(
            classes=tuple(name.strip() for name in facts.get("classes", "").split(",")),
            crop=facts.get("crop", "aligned"),
            colour=facts.get("colour", "RGB"),
            mean=numbers(facts.get("mean", BYTE_MIDDLE)),
            std=numbers(facts.get("std", BYTE_MIDDLE)),
            output=facts.get("output", "probability"),
            features=facts.get("features", ""),
        )
        shown = {part for name in found.classes for part in name.split("+")}
        missing = [name for name in sf.ATTRIBUTES if name not in shown]
        if missing:
            raise ValueError(f"no class {' or '.join(missing)} in its `classes`")
        for name, allowed in (("crop", CROPS), ("colour", COLOURS), ("output", OUTPUTS)):
            if getattr(found, name) not in allowed:
                raise ValueError(f"{name} is none of {', '.join(allowed)}")
        if 0.0 in found.std:
            raise ValueError("std is 0")
        return found

    def shows(self) -> np.ndarray:
        """(classes, attributes) bool: which classes speak for which attribute."""
        return np.array([[name in own.split("+") for name in sf.ATTRIBUTES]
                         for own in self.classes])  # fmt: skip


def numbers(text: str) -> tuple[float, ...]:
    """One number, or three for the three colours."""
    found = tuple(float(part) for part in text.split(","))
    if len(found) not in (1, 3) or not np.isfinite(found).all():
        raise ValueError(f"{text}: not one or three numbers")
    return found


class Head(sf.OwnFile, tag="occlusion head", kw_only=True):
    """What `occlusion fit` learned: P = sigmoid(features @ weights + bias) of another network."""

    base: str  # sha256 of the network whose features these are
    weights: list[list[float]]  # per attribute
    bias: list[float]
    answers: dict[str, int] = msgspec.field(default_factory=dict)  # how many it was fitted on


class Classifier:
    """Scores face crops by an ONNX file on onnxruntime."""

    def __init__(self, path: Path, spec: sf.EngineSpec, threads: int) -> None:
        models = sf.companion("onnx_models")
        if not path.is_file():
            raise sf.SortFacesError(f"{path}: not there; name an .onnx file")
        try:
            self.session = models.Model(str(path), spec, threads)
        except models.model_errors() as error:
            raise sf.SortFacesError(f"{path}: no model ({sf.one_line(error)})") from None
        self.path, self.digest, self.head = path, sf.sha256_of_file(path), None
        self.label = sf.safe_dst_name(path.stem)  # what the file of scores is named after
        try:
            self.facts = self.session.get_modelmeta().custom_metadata_map
            self.contract = Contract.of(self.facts)
            self.channels_last, self.side = input_shape(self.session)
            self.outputs = self.named_outputs()
            self.rows = {name: self.session.rows(name) for name in self.outputs.values() if name}
            self.score_crops([np.zeros((self.side, self.side, 3), np.uint8)])
        except (ValueError, *models.model_errors()) as error:
            raise sf.SortFacesError(f"{path}: {sf.one_line(error)}; {CONTRACT}") from None

    def named_outputs(self) -> dict[str, str]:
        """The names of the outputs that are used: scores and, where there are some, features."""
        names = [output.name for output in self.session.get_outputs()]
        features = self.contract.features
        if features and features not in names:
            raise ValueError(f"no output {features}")
        return {"scores": next(name for name in names if name != features), "features": features}

    @property
    def aligned(self) -> bool:
        return self.contract.crop == "aligned"

    @property
    def mark(self) -> str:
        """Eight hex digits of all that decides the scores."""
        head = repr((self.head.weights, self.head.bias)) if self.head else ""
        return hashlib.sha256((self.digest + head).encode()).hexdigest()[:8]

    def crop(self, image: np.ndarray, kps: np.ndarray | None) -> np.ndarray:
        """(side, side, 3) uint8 BGR of a PNG and the key points (5, 2) in it."""
        wh = (self.side, self.side)
        if not self.aligned:
            return cv2.resize(image, wh, interpolation=cv2.INTER_AREA)
        place = landmarks.placement(kps) * (self.side / SIDE)
        return cv2.warpAffine(image, place, wh, borderMode=cv2.BORDER_REPLICATE)

    def run(self, crops: Sequence[np.ndarray], output: str) -> np.ndarray:
        """(n, k) float32 output of crops."""
        told = self.contract
        batch = as_input(np.stack(crops), told.mean, told.std, told.colour)
        if self.channels_last:
            batch = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
        return self.rows[output](batch)

    def features(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """(n, d) float64 of crops. Raises SortFacesError where the network gives none."""
        if not self.outputs["features"]:
            raise sf.SortFacesError(f"{self.path}: has no output of features; {CONTRACT}")
        return self.run(crops, self.outputs["features"]).astype(np.float64)

    def score_crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """P(attribute) of crops (side, side, 3): (n, attributes) in [0, 1]."""
        if self.head is not None:
            return probability_of(self.features(crops), self.head)
        raw = self.run(crops, self.outputs["scores"]).astype(np.float64)
        shows = self.contract.shows()
        if raw.shape[1] != len(shows):
            raise ValueError(f"{raw.shape[1]} outputs for {len(shows)} classes")
        if self.contract.output == "softmax":
            raw = np.exp(raw - raw.max(axis=1, keepdims=True))
            raw /= raw.sum(axis=1, keepdims=True)
        elif self.contract.output == "logits":
            raw = sigmoid(raw)
        elif not ((raw >= 0) & (raw <= 1)).all():
            raise ValueError("its output is no probability; name it logits or softmax")
        return np.clip(raw @ shows, 0.0, 1.0)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(values, -500.0, 500.0)))


def probability_of(features: np.ndarray, head: Head) -> np.ndarray:
    """(n, attributes) in [0, 1] of features (n, d)."""
    return sigmoid(features @ np.array(head.weights).T + np.array(head.bias))


def input_shape(session: Any) -> tuple[bool, int]:
    """(channels last, edge in px) of a model's input."""
    shape = session.get_inputs()[0].shape
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise ValueError(f"its input is {shape}, not (n, 3, s, s) or (n, s, s, 3)")
    last = shape[1] != 3
    edges = {
        edge if isinstance(edge, int) else SIDE for edge in (shape[1:3] if last else shape[2:])
    }
    if len(edges) != 1:
        raise ValueError(f"its input is {shape}, which is no square")
    if isinstance(shape[0], int) and shape[0] > 1:
        raise ValueError(f"its input is {shape}; the first number must be 1 or free")
    return last, edges.pop()


def load_classifier(scorer: str, spec: sf.EngineSpec, threads: int) -> Classifier:
    """The classifier `net`, FILE.onnx or FILE.json. Raises SortFacesError for any other file."""
    path = Path(scorer).expanduser()
    own = scorer == "net" or path.suffix == ".json"
    found = Classifier(sf.part_of_work(OWN) if own else path, spec, threads)
    found.label = sf.safe_dst_name(path.stem)
    if path.suffix == ".json":
        head = sf.read_file(path, Head)
        width = {len(row) for row in head.weights}
        size = found.features([np.zeros((found.side, found.side, 3), np.uint8)]).shape[1]
        if head.base != found.digest or width != {size} or len(head.weights) != len(head.bias):
            raise sf.SortFacesError(
                f"{path}: was fitted on another network; run occlusion fit again"
            )
        found.head, found.path = head, path
    return found


# ---------------------------------------------------------------- a corpus


def load_scorer(scorer: str, crew: sf.Crew) -> Classifier | landmarks.KeyPointScorer:
    """What scores crops here: `landmarks`, or a classifier, on the CPU where others do the work."""
    if scorer == "landmarks":
        return landmarks.KeyPointScorer()
    here = replace(crew.spec, provider="cpu", require_gpu=False) if crew.elsewhere else crew.spec
    return load_classifier(scorer, here, 1)


def score_by_crops(corpus: sf.Corpus, crew: sf.Crew, scorer: str) -> tuple[str, dict[str, Any]]:
    """(name of the results, results by sha256) of a classifier or of the key points.

    Where faces lie in the PNGs is looked up by whoever does the work; the crops are scored here.
    """
    found = load_scorer(scorer, crew)
    label, audits = found.label, None
    if found.aligned:
        label = f"{label}-{corpus.master.recognizer}"
        audits = sf.Looker(corpus, crew).audits(corpus.active.values())
    name = f"{sf.OCCLUSION_SCORES}{label}-{found.mark}"

    def work(items: Iterable[sf.Item]) -> Iterator[tuple[sf.Item, sf.Result]]:
        batch = functools.partial(score_batch, found, audits)
        for pairs in sf.ordered_map(batch, sf.batched(items, BATCH), crew.threads):
            yield from pairs

    faces = sf.faces_of(corpus.active.values())
    return name, sf.Kept(corpus, name).complete(faces, work, "scoring")


def score_batch(
    scorer: Any, audits: dict[str, sf.Audit] | None, items: Sequence[sf.Item]
) -> list[tuple[sf.Item, sf.Result]]:
    """(item, its scores or why there are none) of some PNGs.

    What cannot be read costs itself; when the scorer fails, each gets a second try alone.
    """
    try:
        return score_together(scorer, audits, items)
    except (ValueError, *sf.engine_errors()) as error:
        if len(items) == 1:
            return [(items[0], {"failed": sf.one_line(error)})]
    return [pair for item in items for pair in score_batch(scorer, audits, [item])]


def score_together(
    scorer: Any, audits: dict[str, sf.Audit] | None, items: Sequence[sf.Item]
) -> list[tuple[sf.Item, sf.Result]]:
    read = [read_crop(scorer, audits, item) for item in items]
    crops = [one for one in read if isinstance(one, np.ndarray)]
    rows = iter(scorer.score_crops(crops) if crops else ())
    told = [{"error": "", "scores": next(rows).tolist()} if isinstance(one, np.ndarray) else one
            for one in read]  # fmt: skip
    return list(zip(items, told, strict=True))


def read_crop(
    scorer: Any, audits: dict[str, sf.Audit] | None, item: sf.Item
) -> np.ndarray | sf.Result:
    """The crop of a PNG by the key points an audit found in it, or the result without one."""
    audit = audits.get(item["sha256"]) if audits is not None else None
    if audits is not None and (audit is None or not audit.kps):
        return {"error": "no face found", "scores": []}
    photo = sf.read_item(item, scores=[])
    if not isinstance(photo, sf.Photo):
        return photo
    return scorer.crop(photo.image, np.array(audit.kps) if audit else None)
