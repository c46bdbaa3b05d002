"""CLIP zero-shot: pictures against two ensembles of sentences per attribute.

Loaded by sort_faces.py for `occlusion score` with CLIP, wherever the work is done. The image tower
runs on onnxruntime (any provider) once `occlusion prepare` has exported it, or on torch
(clip_torch.py, which has the sentences, too).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

import sort_faces as sf


def clip_probabilities(images: np.ndarray, texts: np.ndarray, logit_scale: float) -> np.ndarray:
    """P(attribute) of unit image embeddings (n, d) against texts (k, 2, d): (n, k) in [0, 1].

    softmax(logit_scale * [with, without]). CLIP cosines lie within 0.1 of each other; without the
    scale (about 100) every probability would be 0.5.
    """
    cosine = np.einsum("nd,ktd->nkt", images.astype(np.float64), texts.astype(np.float64))
    gap = logit_scale * (cosine[..., 1] - cosine[..., 0])
    return 1.0 / (1.0 + np.exp(np.clip(gap, -500.0, 500.0)))


@dataclass(frozen=True)
class ClipTexts:
    """What scoring needs beside the image tower; saved as prompts.npz."""

    model: str
    attributes: np.ndarray  # (k,) str
    texts: np.ndarray  # (k, 2, d) float32 unit vectors: with, without
    logit_scale: float
    size: int  # px; edge of the square the tower sees
    mean: np.ndarray  # (3,) float32 RGB in [0, 1]
    std: np.ndarray  # (3,) float32
    squash: bool  # resize the whole picture to the square, else its middle

    def save(self, path: Path) -> None:
        with sf.writing(path) as part, open(part, "wb") as stream:
            np.savez(stream, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> ClipTexts:
        """Read what `save` wrote. Raises SortFacesError for any other file."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                values = {item.name: archive[item.name] for item in fields(cls)}
        except sf.npz_errors() as error:
            raise sf.SortFacesError(
                f"{path}: no prompts file ({sf.one_line(error)}); run `occlusion prepare`"
            ) from None
        scalars = {key: value.item() if value.ndim == 0 else value for key, value in values.items()}
        return cls(**scalars)


def clip_input(images: Sequence[np.ndarray], texts: ClipTexts) -> np.ndarray:
    """Pictures (h, w, 3) uint8 BGR as open_clip's own preprocessing gives them: (n, 3, s, s)."""
    prepared = []
    for image in images:
        picture = PIL.Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
        if texts.squash:
            wh = (texts.size, texts.size)
        else:
            scale = texts.size / min(picture.size)
            wh = tuple(max(texts.size, int(edge * scale)) for edge in picture.size)
        picture = picture.resize(wh, PIL.Image.Resampling.BICUBIC)
        left, top = (round((edge - texts.size) / 2) for edge in wh)
        picture = picture.crop((left, top, left + texts.size, top + texts.size))
        pixels = np.asarray(picture, np.float32) / 255.0
        prepared.append(((pixels - texts.mean) / texts.std).transpose(2, 0, 1))
    return np.ascontiguousarray(np.stack(prepared), dtype=np.float32)


class ClipScorer:
    """Scores pictures by CLIP; subclasses run the image tower."""

    texts: ClipTexts
    provider: str

    def embed_images(self, batch: np.ndarray) -> np.ndarray:
        """(n, d) float32 image embeddings of a prepared batch (n, 3, s, s)."""
        raise NotImplementedError

    def score(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """P(attribute) of pictures: (n, attributes) in [0, 1]."""
        embeddings = sf.unit_rows(self.embed_images(clip_input(images, self.texts)))
        return clip_probabilities(embeddings, self.texts.texts, self.texts.logit_scale)

    def facts(self) -> dict[str, Any]:
        names = self.texts.attributes.tolist()
        return {"model": self.texts.model, "attributes": names, "provider": self.provider}


class OnnxClipScorer(ClipScorer):
    """An image tower that `occlusion prepare` exported, on onnxruntime."""

    def __init__(self, folder: Path, spec: sf.EngineSpec, threads: int) -> None:
        models = sf.companion("onnx_models")
        self.texts = ClipTexts.load(folder / "prompts.npz")
        tower = folder / "image.onnx"
        if not tower.is_file():
            raise sf.SortFacesError(f"{tower}: not there; run `occlusion prepare {folder}`")
        try:
            model = models.Model(str(tower), spec, threads)
        except models.model_errors() as error:
            raise sf.SortFacesError(
                f"{tower}: damaged ({sf.one_line(error)}); run `occlusion prepare {folder}` again"
            ) from None
        self.provider, self.rows = model.provider, model.rows(model.get_outputs()[0].name)

    def embed_images(self, batch: np.ndarray) -> np.ndarray:
        return self.rows(batch)


def load_scorer(spec: sf.EngineSpec, threads: int) -> ClipScorer:
    """The scorer of spec.clip: a folder `occlusion prepare` wrote, or an open_clip NAME/WEIGHTS."""
    folder = Path(spec.clip).expanduser()
    if folder.is_dir():
        scorer: ClipScorer = OnnxClipScorer(folder, spec, threads)
    else:
        scorer = sf.companion("clip_torch").TorchClipScorer(spec.clip)
    sf.log.info("scorer: %s on %s", scorer.texts.model, scorer.provider)
    return scorer


def score_by_clip(corpus: sf.Corpus, crew: sf.Crew, clip: str) -> tuple[str, dict[str, sf.Scores]]:
    """(name of the results, results by sha256) of a CLIP model; scores are kept per model."""
    crew = crew.with_spec(replace(crew.spec, clip=clip))
    folder = Path(clip).expanduser()
    if folder.is_dir():
        texts = ClipTexts.load(folder / "prompts.npz")
        if texts.attributes.tolist() != list(sf.ATTRIBUTES):
            raise sf.SortFacesError(f"{folder}: of another version; run occlusion prepare again")
        model, words = texts.model, texts.texts.tobytes()
    else:
        model, words = clip, json.dumps(sf.companion("clip_torch").CLIP_PROMPTS).encode()
    mark = hashlib.sha256(words).hexdigest()[:8]
    name = f"{sf.OCCLUSION_SCORES}{sf.safe_dst_name(model)}-{mark}"
    work = sf.crew_work(corpus, "score", crew)
    return name, sf.Kept(corpus, name).complete(
        sf.faces_of(corpus.active.values()), work, "scoring"
    )
