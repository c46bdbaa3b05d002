#!/usr/bin/env python3
"""Measure the scorers of `occlusion score` on real masks and sunglasses, and on drawn ones.

    python tests/bench/measure_occlusion.py --data ../shared/data --model ../shared/models/mini

Real: data/occlusion/real (truth.csv; empty: not judged), data/occlusion/mask and /plain, and the
photos of that half of data/people on which nothing is drawn for training. Drawn: what
work/occlusion_draw.py draws on the same half. Every real face goes the way of export-swap: found in
its photo (the largest there; in people the middle one), cut to 512 px, found again in the crop.
`--refit` fits the landmark scorer again on drawings of the training half, prints its constants and
measures it, too. Faces are kept in the system's temporary folder, so a second run takes seconds.
What the numbers led to is in docs/analysis/occlusion.md.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import sort_faces as sf  # noqa: E402

landmarks = sf.companion("landmark_scorer")
train = sf.companion("occlusion_train")
net = sf.companion("occlusion_net")
CACHE_VERSION = 2  # raise when the drawing or the choice of the main face changes
THRESHOLD = sf.VerdictRules.threshold
SWEEP = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
FALSE_RATES = (0.002, 0.005, 0.01, 0.02, 0.05)
DRAWINGS = 1500  # of the measuring half
FITTED_DRAWINGS = 4000  # of the training half, for --refit
RIDGE = 3.0  # L2 penalty per attribute, against a total sample weight of the number of faces
MASK_FEATURES = 9  # the first ones of the landmark scorer; the others are about the eyes
NOT_JUDGED = -1

Score = Callable[[np.ndarray], np.ndarray]  # (n, 112, 112, 3) uint8 -> (n, 2)


@dataclass(frozen=True)
class Faces:
    """One face per row, found or not."""

    name: np.ndarray  # (n,) str; FOLDER/FILE
    source: np.ndarray  # (n,) str; real, mask, plain, people, drawn
    kind: np.ndarray  # (n,) str; what is drawn; else the source
    truth: np.ndarray  # (n, 2) int8; mask, sunglasses: 1, 0, NOT_JUDGED
    found: np.ndarray  # (n,) bool
    aligned: np.ndarray  # (n, 112, 112, 3) uint8; black if not found

    def take(self, rows: np.ndarray) -> Faces:
        return Faces(*(getattr(self, item.name)[rows] for item in fields(self)))


def joined(*parts: Faces) -> Faces:
    return Faces(
        *(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Faces))
    )


# ============================================================================
# Faces
# ============================================================================


def real_photos(data: Path) -> Iterator[tuple[Path, str, tuple[int, int]]]:
    """(photo, source, truth) of everything that is not drawn."""
    folder = data / "occlusion"
    with open(folder / "real" / "truth.csv", encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            judged = (int(row[name] or NOT_JUDGED) for name in sf.ATTRIBUTES)
            yield folder / "real" / row["file"], "real", tuple(judged)
    for kind, truth in (("mask", (1, NOT_JUDGED)), ("plain", (0, 0))):
        for path in sorted((folder / kind).iterdir()):
            yield path, kind, truth
    for path in sorted((data / "people").glob("*/*")):
        if train.half_of(path.parent.name) == 1:
            yield path, "people", (0, int(path.stem in train.WEARS_SUNGLASSES))


def face_of(engine: sf.Engine, image: np.ndarray, central: bool) -> np.ndarray | None:
    """The main face the way of export-swap: aligned (112, 112, 3), None if it is not found.

    That is the largest, or where the folder's name is the truth the one nearest the middle.
    """
    faces = sf.find_faces(engine, image, sf.Passes(pad_retry=True))
    if not len(faces):
        return None
    wh = image.shape[1], image.shape[0]
    edges = faces.bbox[:, 2:] - faces.bbox[:, :2]
    away = np.linalg.norm(faces.bbox[:, :2] + edges / 2 - np.array(wh) / 2, axis=1)
    box = faces.bbox[away.argmin() if central else edges.prod(axis=1).argmax()]
    x, y, side = window = sf.crop_square(box, wh, sf.ExportParams.pad_ratio)
    crop = sf.cut_window(image, window, sf.ExportParams.out_size)
    expected = (box - (x, y, x, y)) * sf.ExportParams.out_size / side
    for size in sf.CONSUMER_DET_SIZES:
        again = engine.detect(crop, size)
        overlap = sf.box_iou(expected, again.bbox) if len(again) else np.zeros(1)
        if overlap.max() >= sf.CROP_FACE_IOU:
            return landmarks.aligned_face(crop, again.kps[overlap.argmax()])
    return None


def collect_real(data: Path, model: str) -> Faces:
    engine, rows = sf.load_engine(sf.EngineSpec(model=model), 1), []
    for path, source, truth in real_photos(data):
        image = sf.read_photo(str(path)).image
        face = face_of(engine, image, source == "people")
        black = np.zeros((112, 112, 3), np.uint8)
        name = f"{path.parent.name}/{path.name}"
        rows.append(
            (name, source, source, truth, face is not None, black if face is None else face)
        )
        if len(rows) % 100 == 0:
            print(f"{len(rows)} photos", file=sys.stderr)
    return Faces(*(np.array(column) for column in zip(*rows, strict=True)))


def collect_drawn(data: Path, model: str, half: int, count: int) -> Faces:
    """Drawings of a half of the people, photographed as in training."""
    people = train.portraits(data / "people", model, half)
    seed = train.Training.seed + 10 * half  # of the other half not those the threshold is set on
    drawn = train.draw_many(people, count, seed, 2)
    rng = np.random.default_rng(seed)
    faces = np.array([train.photographed(canvas, rng) for canvas in drawn.canvas])
    everywhere = np.full(count, "drawn")
    return Faces(everywhere, everywhere, drawn.kind, drawn.truth.astype(np.int8),
                 np.ones(count, bool), faces)  # fmt: skip


def kept(name: str, make: Callable[[], Faces], key: str) -> Faces:
    """What `make` gives, kept in the temporary folder."""
    digest = hashlib.sha256(f"{CACHE_VERSION} {key}".encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"measure-occlusion-{name}-{digest}.npz"
    if not path.exists():
        made = make()
        np.savez(path, **{item.name: getattr(made, item.name) for item in fields(Faces)})
    with np.load(path) as archive:
        return Faces(*(archive[item.name] for item in fields(Faces)))


# ============================================================================
# The landmark scorer, fitted again
# ============================================================================


def landmark_score(faces: np.ndarray) -> np.ndarray:
    return landmarks.KeyPointScorer().score_crops(faces)


def logistic(features: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (k,) and bias of a ridge logistic regression, both classes weighing the same."""
    size = len(positive)
    weight = np.where(positive, size / 2 / positive.sum(), size / 2 / (~positive).sum())
    design = np.column_stack([features, np.ones(size)])
    penalty = RIDGE * np.diag([*np.ones(features.shape[1]), 0.0])
    solution = np.zeros(design.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(design @ solution, -30, 30)))
        slope = design.T @ (weight * (chance - positive)) + penalty @ solution
        curve = (design * (weight * chance * (1 - chance))[:, None]).T @ design + penalty
        step = np.linalg.solve(curve + 1e-9 * np.eye(len(curve)), slope)
        solution -= step
        if np.abs(step).max() < 1e-8:
            break
    return solution[:-1], float(solution[-1])


def refit(faces: Faces) -> None:
    """Put constants fitted on drawn faces into the scorer, and print them."""
    features = np.array([landmarks.face_features(face) for face in faces.aligned])
    count, truth = features.shape[1], faces.truth == 1
    table = np.zeros((count, 4))
    table[:, 0] = features[faces.kind == "plain"].mean(axis=0)
    table[:, 1] = features.std(axis=0)
    limit = landmarks.LANDMARK_LIMIT
    scaled = np.clip((features - table[:, 0]) / table[:, 1], -limit, limit)
    bias = np.zeros(2)
    for at, own in enumerate((slice(0, MASK_FEATURES), slice(MASK_FEATURES, count))):
        table[own, 2 + at], bias[at] = logistic(scaled[:, own], truth[:, at])
    names = landmarks.LANDMARK_FEATURES
    landmarks.LANDMARK_FEATURES = dict(zip(names, map(tuple, table), strict=True))
    landmarks.LANDMARK_BIAS = bias
    print("\nLANDMARK_FEATURES = {  # feature: mean of clear faces, spread, weights")
    for name, values in landmarks.LANDMARK_FEATURES.items():
        print(f'    "{name}": ({", ".join(f"{value:.3g}" for value in values)}),')
    print("}")
    print(f"LANDMARK_BIAS = np.array([{', '.join(f'{value:.3g}' for value in bias)}])")


# ============================================================================
# Tables
# ============================================================================


def print_table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table; floats with three digits."""
    print(f"\n{title}\n")
    print("| " + " | ".join(head) + " |")
    print("|" + " ---: |" * len(head))
    for row in rows:
        cells = [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
        print("| " + " | ".join(cells) + " |")


def share(flagged: np.ndarray) -> str:
    if not len(flagged):
        return "-"
    return f"{int(flagged.sum())}/{len(flagged)} ({flagged.mean():.3f})"


def print_sources(title: str, faces: Faces, chance: np.ndarray) -> None:
    """Recall and false alarms at THRESHOLD by source, and masks called sunglasses."""
    rows = []
    for source in dict.fromkeys(faces.source.tolist()):
        own, row = faces.source == source, [source]
        for at in range(len(sf.ATTRIBUTES)):
            flagged = chance[:, at] >= THRESHOLD
            row += [share(flagged[own & (faces.truth[:, at] == value)]) for value in (1, 0)]
        masked = own & (faces.truth[:, 0] == 1) & (faces.truth[:, 1] != 1)
        rows.append([*row, share(chance[masked, 1] >= THRESHOLD)])
    head = ["faces", *(f"{name}: {what}" for name in sf.ATTRIBUTES for what in ("found", "false")),
            "masked called sunglassed"]  # fmt: skip
    print_table(f"{title}: at {THRESHOLD:g}", head, rows)


def print_curves(title: str, faces: Faces, chance: np.ndarray) -> None:
    """Recall on `real` against false alarms on all real faces, over thresholds and at rates."""
    rows = []
    real, photos = faces.source == "real", faces.source != "drawn"
    for limit in SWEEP:
        row: list[object] = [f"{limit:g}"]
        for at in range(len(sf.ATTRIBUTES)):
            flagged, truth = chance[:, at] >= limit, faces.truth[:, at]
            row += [float(flagged[real & (truth == 1)].mean()),
                    float(flagged[real & (truth == 0)].mean()),
                    float(flagged[photos & (truth == 0)].mean())]  # fmt: skip
        rows.append(row)
    what = ("recall", "false on real", "false on all photos")
    head = ["threshold", *(f"{name}: {one}" for name in sf.ATTRIBUTES for one in what)]
    print_table(f"{title}: other thresholds", head, rows)
    rows = []
    for rate in FALSE_RATES:
        row = [f"{rate:.1%}"]
        for at in range(len(sf.ATTRIBUTES)):
            truth = faces.truth[:, at]
            limit = np.quantile(chance[photos & (truth == 0), at], 1 - rate, method="higher")
            row.append(float((chance[real & (truth == 1), at] > limit).mean()))
        rows.append(row)
    head = ["false on all photos", *(f"{name}: recall" for name in sf.ATTRIBUTES)]
    print_table(f"{title}: recall on `real` at a rate of false alarms", head, rows)


def print_kinds(title: str, faces: Faces, chance: np.ndarray) -> None:
    rows = []
    for kind in train.drawing.KINDS:
        own = faces.kind == kind
        rows.append([kind, int(own.sum()), *(share(chance[own, at] >= THRESHOLD)
                                             for at in range(len(sf.ATTRIBUTES)))])  # fmt: skip
    print_table(f"{title}: flagged by what is drawn", ["kind", "faces", *sf.ATTRIBUTES], rows)


def print_wrong(faces: Faces, chance: np.ndarray) -> None:
    """What to look at by eye."""
    for at, attribute in enumerate(sf.ATTRIBUTES):
        flagged, truth = chance[:, at] >= THRESHOLD, faces.truth[:, at]
        wrong = ((truth == 1) & ~flagged) | ((truth == 0) & flagged)
        print(f"\nwrong for {attribute}:")
        for row in np.flatnonzero(wrong & (faces.source != "drawn")):
            print(f"  {chance[row, at]:.2f} {faces.name[row]}")


# ============================================================================
# Entry point
# ============================================================================


def measure(title: str, score: Score, faces: Faces, wrong: bool) -> None:
    chance = score(faces.aligned)
    print_sources(title, faces, chance)
    print_curves(title, faces, chance)
    print_kinds(title, faces, chance)
    grey = faces.aligned.mean(axis=3, keepdims=True).astype(np.uint8).repeat(3, axis=3)
    photos = faces.take(np.flatnonzero(faces.source != "drawn"))
    print_sources(f"{title}, black and white", photos, score(grey[faces.source != "drawn"]))
    if wrong:
        print_wrong(faces, chance)


def classifier(name: str) -> Score:
    """The score of a classifier, some faces at a time."""
    loaded = net.load_classifier(name, sf.EngineSpec(provider="cpu"), 1)

    def score(faces: np.ndarray) -> np.ndarray:
        parts = [loaded.score_crops(list(faces[at : at + 64])) for at in range(0, len(faces), 64)]
        return np.concatenate(parts)

    return score


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", required=True, metavar="NAME|DIR", help="finds the faces")
    parser.add_argument("--scorer", nargs="*", default=["net", "landmarks"], metavar="NAME|FILE")
    parser.add_argument("--refit", action="store_true", help="fit the landmark scorer again")
    parser.add_argument("--wrong", action="store_true", help="list the wrongly judged photos")
    args = parser.parse_args(argv)
    import cv2

    cv2.setNumThreads(1)
    key = f"{args.data.resolve()} {args.model}"
    real = kept("real", lambda: collect_real(args.data, args.model), key)
    for source in dict.fromkeys(real.source.tolist()):
        print(f"found in the crop, {source}: {share(real.found[real.source == source])}")
    drawn = kept("drawn", lambda: collect_drawn(args.data, args.model, 1, DRAWINGS), key)
    faces = joined(real.take(np.flatnonzero(real.found)), drawn)
    for name in args.scorer:
        score = landmark_score if name == "landmarks" else classifier(name)
        measure(name, score, faces, args.wrong)
    if args.refit:
        fitted = kept(
            "fitted", lambda: collect_drawn(args.data, args.model, 0, FITTED_DRAWINGS), key
        )
        refit(fitted)
        measure("landmarks, fitted again", landmark_score, faces, args.wrong)
    return 0


if __name__ == "__main__":
    sys.exit(main())
