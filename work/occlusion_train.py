#!/usr/bin/env python3
"""Train the occlusion network from drawn faces alone, and write work/occlusion_net.onnx.

    python work/occlusion_train.py PHOTOS --model PACK --out occlusion_net.onnx

PHOTOS has a folder per person. Half of the people (by a checksum of the folder's name) are drawn on
for training, the other half for the threshold. Needs torch and onnx, which the tool itself does
not. A few minutes on two cores; the same seed gives the same drawings.
"""

from __future__ import annotations

import argparse
import functools
import sys
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sort_faces as sf

drawing = sf.companion("occlusion_draw")
net = sf.companion("occlusion_net")
ATTRIBUTES = tuple(sf.ATTRIBUTES)
# Photos of the test people on which real sunglasses are worn, seen by eye.
WEARS_SUNGLASSES = ("p016_14", "p016_17", "p170_01")
PHOTO = ("*.jpg", "*.jpeg", "*.png")


@dataclass(frozen=True)
class Portrait:
    """The main face of a photo."""

    path: Path
    person: str
    image: np.ndarray  # (h, w, 3) uint8 BGR
    kps: np.ndarray  # (5, 2) px


@dataclass(frozen=True)
class Drawn:
    """Drawings of one half of the people."""

    canvas: np.ndarray  # (n, side, side, 3) uint8 BGR; the aligned face with a border
    kind: np.ndarray  # (n,) str; of drawing.KINDS

    @functools.cached_property
    def truth(self) -> np.ndarray:
        """(n, 2) bool: mask, sunglasses."""
        return np.array([drawing.KINDS[kind][:2] for kind in self.kind.tolist()]).reshape(-1, 2)


@dataclass(frozen=True)
class Training:
    """How much is drawn, and how long is learned."""

    drawings: int = 9000  # chosen; 9,000 faces of 90 people
    checks: int = 2500  # drawings of the other half, for the threshold
    epochs: int = 14  # chosen; the loss on the other half is flat after ten
    batch: int = 64
    rate: float = 4e-3  # highest learning rate of the one-cycle schedule
    decay: float = 0.02  # AdamW
    smooth: float = 0.02  # of the labels: some drawings hide what they are called by
    false_rate: float = 0.01  # on drawn faces of the other half, at the tool's threshold
    seed: int = 11
    processes: int = 2


# ---------------------------------------------------------------- drawings


def half_of(person: str) -> int:
    """0: people who are drawn on for training; 1: those of the threshold and the figures."""
    return zlib.crc32(person.encode()) % 2


def portraits(folder: Path, model: str, half: int) -> list[Portrait]:
    """The face nearest the middle of each photo of a half of the people."""
    engine = sf.load_engine(sf.EngineSpec(model=model), 1)
    found = []
    for path in sorted(p for own in PHOTO for p in folder.glob(f"*/{own}")):
        person = path.parent.name
        if half_of(person) != half or path.stem in WEARS_SUNGLASSES:
            continue
        image = sf.read_photo(str(path)).image
        faces = sf.find_faces(engine, image, sf.Passes(pad_retry=True))
        if len(faces):
            middle = (faces.bbox[:, :2] + faces.bbox[:, 2:]) / 2 - np.array(image.shape[1::-1]) / 2
            kps = faces.kps[np.linalg.norm(middle, axis=1).argmin()]
            found.append(Portrait(path, person, image, kps))
    if not found:
        raise sf.SortFacesError(f"{folder}: no faces; it needs a folder of photos per person")
    return found


def draw_some(people: list[Portrait], seeds: Sequence[int]) -> list[tuple[np.ndarray, str]]:
    """(canvas, kind) per seed; people with many photos come a little more often."""
    cv2.setNumThreads(1)
    _, number, count = np.unique([p.person for p in people], return_inverse=True,
                                     return_counts=True)  # fmt: skip
    weight = 1 / np.sqrt(count[number])
    kinds, share = list(drawing.KINDS), np.array([row[2] for row in drawing.KINDS.values()])
    prints = [p.image for p in people]
    drawn = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        one = people[rng.choice(len(people), p=weight / weight.sum())]
        kind = kinds[rng.choice(len(kinds), p=share / share.sum())]
        drawn.append((drawing.draw(one.image, one.kps, kind, rng, prints), kind))
    return drawn


def draw_many(people: list[Portrait], count: int, seed: int, processes: int) -> Drawn:
    seeds = [np.arange(start, min(start + 250, count)) + seed * 1_000_000
             for start in range(0, count, 250)]  # fmt: skip
    with ProcessPoolExecutor(processes) as pool:
        parts = list(pool.map(draw_some, [people] * len(seeds), seeds))
    canvases, kinds = zip(*(one for part in parts for one in part), strict=True)
    small = [shrink(canvas) for canvas in canvases]
    return Drawn(np.array(small), np.array(kinds))


def shrink(canvas: np.ndarray) -> np.ndarray:
    """(112 + 2 * BORDER) px of a canvas."""
    side = 112 + 2 * drawing.BORDER
    return cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)


def middle(canvas: np.ndarray) -> np.ndarray:
    """The aligned faces (n, 112, 112, 3) of canvases as `shrink` gives them."""
    edge = drawing.BORDER
    return canvas[:, edge:-edge, edge:-edge]


# ---------------------------------------------------------------- photography


def photographed(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A (112, 112, 3) uint8 face as another camera, key point finder and filter would give it."""
    face = shifted(canvas, rng)
    if rng.random() < 0.5:
        face = face[:, ::-1]
    if rng.random() < 0.5:
        face = resampled(face, rng)
    face = coloured(face.astype(np.float32), rng)
    if rng.random() < 0.3:
        face += rng.normal(0, rng.uniform(2, 12), face.shape).astype(np.float32)
    face = np.clip(face, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))]
        face = cv2.imdecode(cv2.imencode(".jpg", face, quality)[1], cv2.IMREAD_COLOR)
    return face


def shifted(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The aligned face turned, moved, and narrowed as heads that are turned away look.

    And enlarged: on drawn masks the detector's key points make the face 7 % larger (at most 15 %),
    since it takes the mouth to be higher than it is.
    """
    side = canvas.shape[0]
    turn, zoom = rng.normal(0, 0.07), rng.uniform(0.9, 1.2)
    wide, high = zoom * rng.uniform(0.84, 1.12), zoom * rng.uniform(0.92, 1.1)
    lean = rng.normal(0, 0.05)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    place = spin @ np.array([[wide, lean], [0, high]])
    offset = 56 + rng.normal(0, 3, 2) - place @ np.full(2, side / 2)
    return cv2.warpAffine(canvas, np.column_stack([place, offset]), (112, 112),
                          borderMode=cv2.BORDER_REPLICATE)  # fmt: skip


def resampled(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As a smaller or an unsharp photo."""
    if rng.random() < 0.5:
        return cv2.GaussianBlur(face, (0, 0), rng.uniform(0.4, 2.0))
    side = int(rng.uniform(24, 80))
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)


def coloured(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light, contrast, white balance, the filters of selfies, black and white."""
    face = 255 * (np.clip(face, 0, 255) / 255) ** np.exp(rng.normal(0, 0.3))
    face = (face - 128) * rng.uniform(0.6, 1.4) + 128 + rng.normal(0, 22)
    face = face * np.exp(rng.normal(0, 0.08, 3)) + rng.normal(0, 8, 3)
    grey = face @ np.array([0.114, 0.587, 0.299])
    strength = 0.0 if rng.random() < 0.1 else rng.uniform(0.3, 1.5)
    face = grey[..., None] + (face - grey[..., None]) * strength
    if rng.random() < 0.15:  # one colour in the shadows, one in the lights
        ramp = np.clip(grey / 255, 0, 1)[..., None]
        face = face + rng.normal(0, 25, 3) * ramp + rng.normal(0, 25, 3) * (1 - ramp)
    if rng.random() < 0.25:  # light from one side
        slope = np.linspace(-1, 1, 112)
        across, along = rng.normal(0, 0.25, 2)
        face = face * np.clip(1 + across * slope[None, :, None] + along * slope[:, None, None],
                              0.3, 1.8)  # fmt: skip
    return face.astype(np.float32)


# ---------------------------------------------------------------- network


def network() -> Any:
    """About 55,000 weights: four convolutions to 7 x 7, two separable ones, one weight per place
    and channel as in MobileFaceNet's global depthwise layer (Chen et al. 2018, 3.2), 48 features,
    two logits."""
    from torch import nn

    def full(width: int, out: int) -> list[Any]:
        return [nn.Conv2d(width, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]

    def separable(width: int, out: int) -> list[Any]:
        return [
            nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False), nn.BatchNorm2d(width),
            nn.ReLU(), nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
        ]  # fmt: skip

    places = [nn.Conv2d(96, 96, 7, groups=96, bias=False), nn.BatchNorm2d(96), nn.Flatten()]
    body = nn.Sequential(
        *full(3, 12), *full(12, 24), *full(24, 32), *full(32, 64), *separable(64, 96),
        *separable(96, 96), *places, nn.Linear(96, 48), nn.ReLU(),
    )  # fmt: skip
    return nn.Sequential(body, nn.Dropout(0.2), nn.Linear(48, len(ATTRIBUTES)))


@dataclass(frozen=True)
class Photographs:
    """Drawings photographed anew in every epoch, as torch's DataLoader reads them."""

    drawn: Drawn
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.drawn.kind)

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        cv2.setNumThreads(1)
        face = photographed(
            self.drawn.canvas[row], np.random.default_rng([self.seed, self.epoch, row])
        )
        return net.as_input(face[None])[0], self.drawn.truth[row].astype(np.float32)


def learn(drawn: Drawn, training: Training) -> Any:
    """The trained network, in evaluation mode."""
    import torch

    torch.manual_seed(training.seed)
    layout = torch.channels_last  # twice as fast on CPUs
    model = network().to(memory_format=layout)
    steps = training.epochs * (len(drawn.kind) // training.batch)
    optimiser = torch.optim.AdamW(model.parameters(), training.rate, weight_decay=training.decay)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.rate, total_steps=steps)
    loss_of = torch.nn.BCEWithLogitsLoss()
    for epoch in range(training.epochs):
        loader = torch.utils.data.DataLoader(
            Photographs(drawn, training.seed, epoch), training.batch, shuffle=True,
            num_workers=training.processes, drop_last=True,
        )  # fmt: skip
        model.train()
        losses = []
        for faces, truth in loader:
            goal = truth * (1 - 2 * training.smooth) + training.smooth
            loss = loss_of(model(faces.to(memory_format=layout)), goal)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}", file=sys.stderr, flush=True)
    return model.eval()


def logits_of(model: Any, faces: np.ndarray) -> np.ndarray:
    """(n, 2) float32 logits of aligned faces (n, 112, 112, 3) uint8 BGR."""
    import torch

    with torch.no_grad():
        parts = [model(torch.from_numpy(net.as_input(faces[at : at + 256]))).numpy()
                 for at in range(0, len(faces), 256)]  # fmt: skip
    return np.concatenate(parts)


def calibrate(model: Any, drawn: Drawn, training: Training) -> None:
    """Move each bias so that the tool's threshold calls `false_rate` of the drawn faces wrongly."""
    import torch

    rng = np.random.default_rng(training.seed)
    faces = np.array([photographed(canvas, rng) for canvas in drawn.canvas])
    logits, truth = logits_of(model, faces), drawn.truth
    threshold = sf.VerdictRules.threshold
    wanted = np.log(threshold / (1 - threshold))
    for at, name in enumerate(ATTRIBUTES):
        limit = float(np.quantile(logits[~truth[:, at], at], 1 - training.false_rate))
        recall = float((logits[truth[:, at], at] >= limit).mean())
        print(f"{name}: limit {limit:.2f}, recall on drawn faces {recall:.3f}")
        with torch.no_grad():
            model[-1].bias[at] += wanted - limit


def export(model: Any, path: Path, source: str) -> None:
    """Write the network with what occlusion_net.py asks for; features come out as well."""
    import onnx
    import torch

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, faces: Any) -> tuple[Any, Any]:
            features = self.model[0](faces)
            return torch.sigmoid(self.model[2](features)), features

    with sf.writing(path) as part:
        torch.onnx.export(
            Both(), (torch.zeros(1, 3, 112, 112),), str(part), dynamo=False, opset_version=17,
            input_names=["face"], output_names=["probability", "features"],
            dynamic_axes={name: {0: "n"} for name in ("face", "probability", "features")},
        )  # fmt: skip
        graph = onnx.load(str(part))
        facts = {"classes": ",".join(ATTRIBUTES), "crop": "aligned", "colour": "RGB",
                 "mean": "127.5", "std": "127.5", "output": "probability",
                 "features": "features", "head": head_text(model[-1]),
                 "source": source}  # fmt: skip
        onnx.helper.set_model_props(graph, facts)
        onnx.save(graph, str(part))


def head_text(layer: Any) -> str:
    """A row of weights and bias per attribute; `occlusion fit` starts from them."""
    rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    return ";".join(" ".join(f"{value:.7g}" for value in (*row, bias)) for row, bias in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, learn, set the threshold, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="a folder of photos per person")
    parser.add_argument("--model", default="buffalo_l", metavar="PACK", help="finds the faces")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--drawings", type=int, default=Training.drawings, metavar="N")
    parser.add_argument("--epochs", type=int, default=Training.epochs, metavar="N")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)  # before anything is drawn: a fork of OpenCV's threads hangs
    training = replace(
        Training(), drawings=args.drawings, epochs=args.epochs, processes=args.processes
    )
    drawn, checks = (
        draw_many(portraits(args.photos, args.model, half), count, training.seed + half,
                  training.processes)
        for half, count in ((0, training.drawings), (1, training.checks))
    )  # fmt: skip
    model = learn(drawn, training)
    calibrate(model, checks, training)
    source = f"{training.drawings} drawn faces; photos for research: see docs/occlusion.md"
    export(model, args.out, source)
    print(f"{args.out}: {sum(p.numel() for p in model.parameters())} weights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
