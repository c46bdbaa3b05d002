"""Face quality as a network has learned it: `enrich --quality-model FILE.onnx`.

A companion of sort_faces.py, loaded for that option, wherever the work is done. The model sees
what a recogniser sees, faces turned and scaled by their five key points to 112 px, and says how
good each is to recognise. Weights are never bundled; these are known to have this shape:

- eDifFIQA(T), OpenCV zoo, models/face_image_quality_assessment_ediffiqa (CC-BY-4.0): Babnik et al.,
  IEEE T-BIOM 2024; its ediffiqa.py feeds RGB, (x / 255 - 0.5) / 0.5.
- CR-FIQA, github.com/fdbtrs/CR-FIQA: Boutros et al., CVPR 2023; its QualityModel.py feeds the same
  (extract_bin.py swaps the colours of the files it reads) and gives an embedding beside the score.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

SIDE = 112  # px; edge of an aligned face, ArcFace's
MIDDLE = HALF = 127.5  # of a pixel's values: they become -1 to 1, as both models above want them
NO_SCORES = np.zeros(0, np.float32)
PROBES = (3, 1)  # faces a model of any batch is tried with; some exports take one at a time only
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
WANTED = (
    f"a face quality model takes faces as (n, 3, {SIDE}, {SIDE}) floats and gives one number for "
    "each, such as eDifFIQA or CR-FIQA"
)


class QualityModel:
    """A face quality model on onnxruntime."""

    def __init__(self, spec: sf.EngineSpec, threads: int) -> None:
        """Load it and try it out. Raises SortFacesError for a file that is no such model."""
        self.path = Path(spec.quality)
        if not self.path.is_file():
            raise self.refusal("no such file")
        self.sha256 = sf.sha256_of_file(self.path)
        self.session = self.loaded(spec, threads)
        self.provider = self.session.provider
        self.input, self.kind, fixed = self.understood()
        taken, output = self.tried([fixed] if fixed else PROBES)
        name = self.session.get_outputs()[output].name
        self.rows = self.session.rows(name, 0 if taken > 1 else 1)
        sf.log.info("quality model: %s on %s", self.path.name, self.provider)

    def refusal(self, why: str) -> sf.SortFacesError:
        return sf.SortFacesError(f"--quality-model {self.path}: {why}; {WANTED}")

    def loaded(self, spec: sf.EngineSpec, threads: int) -> Any:
        """The model of the file."""
        models = sf.companion("onnx_models")
        try:
            return models.Model(str(self.path), spec, threads)
        except (*models.model_errors(), *sf.engine_errors()) as error:
            raise self.refusal(f"no sound ONNX model ({sf.one_line(error)})") from None

    def understood(self) -> tuple[str, Any, int]:
        """(name of the input, its type, faces per call or 0 for any number)."""
        wants = self.session.get_inputs()
        shape = list(wants[0].shape) if len(wants) == 1 else []
        free = [not isinstance(size, int) or size <= 0 for size in shape]  # any number
        fits = all(map(operator.or_, free[1:], map(operator.eq, shape[1:], (3, SIDE, SIDE))))
        if len(shape) != 4 or not fits or wants[0].type not in FLOATS:
            inputs = ", ".join(f"{one.name} {one.type} {one.shape}" for one in wants)
            raise self.refusal(f"takes {inputs or 'nothing'}")
        return wants[0].name, FLOATS[wants[0].type], 0 if free[0] else shape[0]

    def tried(self, sizes: Sequence[int]) -> tuple[int, int]:
        """(the first of the sizes it takes, which output is the quality), tried with noise."""
        why = ""
        noise = np.random.default_rng(0).integers(0, 256, (max(sizes), SIDE, SIDE, 3), np.uint8)
        for size in sizes:
            try:
                outputs = self.session.run(None, {self.input: self.blob(noise[:size])})
            except sf.engine_errors() as error:
                why = f"does not run on {size} faces ({sf.one_line(error)})"
                continue
            for at, values in enumerate(outputs):
                if np.size(values) == size and np.issubdtype(np.asarray(values).dtype, np.floating):
                    return size, at
            shapes = ", ".join(str(list(np.shape(values))) for values in outputs)
            why = f"gives {shapes} for {size} face{'s' * (size != 1)}"
        raise self.refusal(why)

    def blob(self, crops: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Aligned faces (k, 112, 112, 3) uint8 BGR as the model takes them: (k, 3, 112, 112)."""
        rgb = np.asarray(crops)[..., ::-1].astype(np.float32)
        return np.ascontiguousarray(((rgb - MIDDLE) / HALF).transpose(0, 3, 1, 2), self.kind)

    def scores(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """(k,) float32 quality of aligned faces (112, 112, 3) uint8 BGR, higher is better."""
        return np.ravel(self.rows(self.blob(crops))).astype(np.float32) if len(crops) else NO_SCORES

    def rate(self, items: Sequence[sf.Item]) -> list[sf.Result]:
        """Photos -> scores of their known faces. item: as of enrich_queue, and model."""
        read = [sf.read_item(item, faces=[]) for item in items]
        photos = [(item, one) for item, one in zip(items, read, strict=True)
                  if isinstance(one, sf.Photo)]  # fmt: skip
        crops = [crop for item, photo in photos for crop in aligned_faces(photo, item["faces"])]
        scores = iter(self.scores(crops).tolist())
        results = []
        for item, one in zip(items, read, strict=True):
            if isinstance(one, sf.Photo):
                own = [(face["index"], score)
                       for face, score in zip(item["faces"], scores, strict=False)
                       if np.isfinite(score)]  # fmt: skip
                one = {"error": "" if own else "the model gave no number", "faces": own}
            results.append(one)
        return results

    def facts(self) -> dict[str, Any]:
        return {"model": self.path.name, "sha256": self.sha256, "provider": self.provider}


def aligned_faces(photo: sf.Photo, faces: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """(112, 112, 3) uint8 BGR of each known face of a photo, aligned as for a recogniser."""
    points = np.array([face["kps"] for face in faces], np.float32) / photo.scale
    return sf.cut_places(photo.image, sf.arcface_places(points, SIDE), SIDE)


def scoring_crew(crew: sf.Crew, model: Path) -> sf.Crew:
    """The crew with a quality model in place of its engine."""
    spec = sf.EngineSpec(
        provider=crew.spec.provider,
        require_gpu=crew.spec.require_gpu,
        quality=str(model.expanduser().absolute()),
    )
    return crew.with_spec(spec)


def score_library(path: Path, crew: sf.Crew, model: Path) -> dict[str, Any]:
    """Score the faces of a cache that have no score of this model; returns the counts.

    Scores of another model go with the first one of this: two never stand side by side.
    """
    with sf.locked_cache(path):
        cache = sf.load_cache(path)
        crew = scoring_crew(crew, model)
        sha256 = crew.facts["sha256"]
        known = int(np.count_nonzero(np.isfinite(cache.learned_quality)))
        if known and cache.meta.quality_model != sha256:
            sf.log.warning(
                "%s: its %d scores are of another quality model (%s...); all faces are scored anew",
                *(path, known, cache.meta.quality_model[:16]),
            )
            cache = sf.with_scores(cache, sha256, {})
        rows = np.flatnonzero(~np.isfinite(cache.learned_quality))
        items, lost = sf.enrich_queue(sf.Library(cache, path), rows)
        items = [{**item, "model": sha256} for item in items]
        done, failed = sf.journal_results(path, cache, crew, "quality", items)
    return {"unscored": len(rows), "scored": done, "photos_not_scored": lost + failed}


def check_scored(path: Path, cache: sf.FaceCache | None) -> None:
    """Refuse a weight of scores nobody brought; cache: None where there is none yet."""
    scored = np.isfinite(cache.learned_quality) if cache else np.zeros(0, bool)
    if not scored.any():
        raise sf.SortFacesError(
            f"--weight-learned-quality: no face of {path} has a score; "
            f"run `enrich {path} --quality-model FILE.onnx` first"
        )
    if not scored.all():
        sf.log.warning(
            "%s: %d faces have no learned quality, which counts as 0; run enrich --quality-model",
            *(path, np.count_nonzero(~scored)),
        )


def check_chain(crew: sf.Crew, model: Path | None, path: Path) -> None:
    """Refuse before the long work of `run` what a late step would: a wrong model, no scores."""
    if model is not None:
        _ = scoring_crew(crew, model).facts
    else:
        check_scored(path, sf.load_cache(path) if sf.cache_exists(path) else None)
