"""CLIP on torch: score by an open_clip model, or turn one into ONNX that needs neither.

Loaded by sort_faces.py for `occlusion prepare` and for a `--clip NAME/WEIGHTS`; needs
work/requirements-clip.txt. Pixels and probabilities are those of clip_scorer.py.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

clip = sf.companion("clip_scorer")
UNTRAINED = "untrained"  # in place of the weights' name: random ones, to test everything but sense
CLIP_TOLERANCE = 0.9999  # least cosine between the exported and the original image embedding
CLIP_PROMPTS = {  # attribute: (it is there, it is not)
    "mask": (
        (
            "a photo of a face with a surgical mask over mouth and nose",
            "a person whose nose and mouth are covered by a cloth mask",
            "a portrait of somebody wearing a medical face mask",
            "a face half hidden behind an FFP2 respirator",
            "a close-up of a person with a protective mask on",
            "a face with a scarf pulled over mouth and nose",
        ),
        (
            "a photo of a face with mouth and nose in plain view",
            "a person whose whole face can be seen",
            "a portrait of somebody smiling, the mouth visible",
            "a bearded face with nothing in front of it",
            "a face with a mask pulled down under the chin, mouth and nose visible",
            "a close-up of a bare face",
        ),
    ),
    "sunglasses": (
        (
            "a photo of a face with dark sunglasses over the eyes",
            "a person whose eyes are hidden behind opaque sunglasses",
            "a portrait of somebody looking through black sunglasses",
            "a face with mirrored sunglasses covering both eyes",
            "a close-up of a person wearing tinted shades, eyes not visible",
        ),
        (
            "a photo of a face with both eyes in plain view",
            "a face with sunglasses pushed up on the forehead, the eyes visible below",
            "a person with sunglasses resting on top of the head, the eyes uncovered",
            "a face wearing clear prescription glasses, the eyes visible through them",
            "a portrait of somebody without glasses",
            "a close-up of a person with open eyes",
        ),
    ),
}


def prompt_ensemble(vectors: np.ndarray) -> np.ndarray:
    """One direction for several sentences (k, d): the normalised mean of the normalised."""
    return sf.centroid(sf.unit_rows(vectors))


class TorchClipScorer(clip.ClipScorer):
    """An open_clip model on torch; needs work/requirements-clip.txt."""

    def __init__(self, name: str) -> None:
        self.torch, self.model, self.texts = load_open_clip(name)
        self.device = torch_device(self.torch)
        self.provider = f"torch on {self.device}"
        self.model.to(self.device)

    def embed_images(self, batch: np.ndarray) -> np.ndarray:
        with self.torch.no_grad():
            images = self.torch.from_numpy(batch).to(self.device)
            return self.model.encode_image(images).float().cpu().numpy()


def torch_device(torch: Any) -> Any:
    """The GPU torch sees, DirectML where torch_directml is installed, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if importlib.util.find_spec("torch_directml") is not None:
        import torch_directml

        return torch_directml.device()
    return torch.device("cpu")


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Let open_clip, which logs to the root logger, keep to itself what becomes our own one line.

    What others log there meanwhile is heard.
    """
    root, hub = logging.getLogger(), logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)

    def of_others(record: logging.LogRecord) -> bool:
        return "open_clip" not in record.pathname

    root.addFilter(of_others)
    try:
        yield
    finally:
        root.removeFilter(of_others)
        hub.setLevel(level)


@silenced()
def load_open_clip(name: str) -> tuple[Any, Any, clip.ClipTexts]:
    """(torch, model in evaluation mode, texts) of an open_clip NAME/WEIGHTS."""
    architecture, _, weights = name.partition("/")
    try:
        import open_clip
        import torch
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises the latter
        needed = sf.part_of_work("requirements-clip.txt")
        raise sf.SortFacesError(
            f"--clip {name}: {sf.one_line(error)}; pip install -r {needed}"
        ) from None
    if architecture not in open_clip.list_models():
        raise sf.SortFacesError(
            f"--clip {name}: open_clip has no {architecture}; see its list_models()"
        )
    try:
        model, _, _ = open_clip.create_model_and_transforms(
            architecture, pretrained="" if weights == UNTRAINED else weights
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise sf.SortFacesError(
            f"--clip {name}: its weights cannot be loaded ({sf.one_line(error)}); download them "
            f"where there is a network and say {architecture}/FILE"
        ) from None
    model.eval()
    return torch, model, texts_of(torch, open_clip, model, name)


def texts_of(torch: Any, open_clip: Any, model: Any, name: str) -> clip.ClipTexts:
    """The embedded prompts of an open_clip model, and how it takes pictures."""
    tokenize = open_clip.get_tokenizer(name.partition("/")[0])
    with torch.no_grad():
        pairs = [
            [
                prompt_ensemble(model.encode_text(tokenize(list(side))).float().numpy())
                for side in sides
            ]
            for sides in CLIP_PROMPTS.values()
        ]
        scale = float(model.logit_scale.exp())
    view = model.visual.preprocess_cfg
    size = view["size"] if isinstance(view["size"], int) else view["size"][0]
    return clip.ClipTexts(
        model=name,
        attributes=np.array(list(CLIP_PROMPTS)),
        texts=np.array(pairs, np.float32),
        logit_scale=scale,
        size=size,
        mean=np.array(view["mean"], np.float32),
        std=np.array(view["std"], np.float32),
        squash=view.get("resize_mode") == "squash",
    )


def export_clip(name: str, out: Path) -> dict[str, Any]:
    """Export the image tower and the prompts; refuse an export that does not match the model.

    Torch on DirectML runs attention on the CPU (2.4x gain measured by the reference), pure ONNX
    runs whole on the GPU (7.5x); the exported files also need neither torch nor open_clip.
    """
    torch, model, texts = load_open_clip(name)
    sf.make_folder(out)
    sample = torch.from_numpy(clip.clip_input(clip_samples(), texts))
    with torch.no_grad():
        expected = model.encode_image(sample).float().numpy()
    with sf.writing(out / "image.onnx") as part:
        save_image_tower(torch, model, sample[:2], part)
        tower_bytes = part.stat().st_size
        actual = run_tower(part, sample.numpy())
        cosine = np.einsum("nd,nd->n", sf.unit_rows(expected), sf.unit_rows(actual))
        if cosine.min() < CLIP_TOLERANCE:
            raise sf.SortFacesError(
                f"--clip {name}: the export differs from the model (cosine {cosine.min():.6f}); "
                "try another version of torch or onnxruntime"
            )
    texts.save(out / "prompts.npz")
    scores = [
        clip.clip_probabilities(sf.unit_rows(e), texts.texts, texts.logit_scale)
        for e in (expected, actual)
    ]
    return {
        "out": str(out),
        "model": name,
        "attributes": texts.attributes.tolist(),
        "image_size": texts.size,
        "logit_scale": texts.logit_scale,
        "bytes": tower_bytes,
        "samples": len(sample),
        "least_cosine": float(cosine.min()),
        "largest_score_difference": float(np.abs(scores[0] - scores[1]).max()),
    }


def save_image_tower(torch: Any, model: Any, sample: Any, path: Path) -> None:
    """Write model.encode_image as one .onnx file with a free batch size."""
    import warnings

    class ImageTower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Any) -> Any:
            return self.model.encode_image(image)

    torch.backends.mha.set_fastpath_enabled(False)  # a fused attention ONNX has no operator for
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracer and deprecation notes: the result is compared
        torch.onnx.export(
            ImageTower().eval(),
            (sample,),
            str(path),
            input_names=["image"],
            output_names=["embedding"],
            opset_version=17,
            dynamo=False,
            dynamic_axes={"image": {0: "n"}, "embedding": {0: "n"}},
        )


def run_tower(path: Path, batch: np.ndarray) -> np.ndarray:
    """Image embeddings by an exported tower on the CPU."""
    session = sf.load_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": batch})[0]


def clip_samples() -> list[np.ndarray]:
    """Pictures to compare two forms of a model on: the demo's people, cut out, and the group."""
    demo = sf.companion("demo_library")
    group = sf.decode_photo(demo.demo_photo()).image
    wh = (group.shape[1], group.shape[0])
    params = sf.ExportParams()
    boxes = [np.array(box, np.float32) for box in demo.DEMO_FACES.values()]
    squares = [sf.crop_square(box, wh, params.pad_ratio) for box in boxes]
    return [*(sf.cut_window(group, square, params.out_size) for square in squares), group]
