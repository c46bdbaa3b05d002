#!/usr/bin/env python3
"""Fit and measure the landmark scorer of `occlusion score` on masked, plain and drawn-on faces.

    python tests/bench/measure_occlusion.py --data ../shared/data --model ../shared/models/mini

Masks are real photos (data/occlusion); sunglasses are DRAWN on photos of data/occlusion/plain and
data/people, as are the hard negatives (clear glasses, sunglasses on the forehead) and the masks
of the within-person tables. Every face goes the way of export-swap: found in its photo, cut to
512 px, found again in the crop. Prints LANDMARK_FEATURES for work/landmark_scorer.py (fitted on
everything) and tables of precision and recall (fitted on other people only). Aligned faces are kept
in the system's temporary folder, so a second run takes seconds. What the numbers led to is in
docs/analysis/occlusion.md.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import sort_faces  # noqa: E402
from sort_faces import (  # noqa: E402
    CONSUMER_DET_SIZES,
    CROP_FACE_IOU,
    DLIB_MODEL,
    Engine,
    EngineSpec,
    ExportParams,
    Passes,
    box_iou,
    crop_square,
    cut_window,
    find_faces,
    read_photo,
    unit_rows,
)

OUT_SIZE, PAD_RATIO = ExportParams.out_size, ExportParams.pad_ratio

landmarks = sort_faces.companion("landmark_scorer")
CACHE_VERSION = 1  # raise when the drawing or the choice of the main face changes
ATTRIBUTES = ("mask", "sunglasses")
THRESHOLD = 0.7  # what `occlusion apply` flags at
QUARANTINE = 0.4  # flagged share of a face set that sends it to _masked/
FOLDS = 5
RIDGE = 3.0  # L2 penalty per attribute, against a total sample weight of the number of faces
SAME_MASKED = 0.6  # cosine; photos of data/occlusion that may show one person stay in one fold
MANY = 18  # photos; people of data/people with so many make the face sets
SHARES = ((20, 0), (8, 2), (10, 10), (1, 9), (0, 10))  # clear and occluded photos of a face set
SWEEP = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
PREVALENCES = (0.01, 0.05, 0.20)

POSITIVE = {"mask": "mask", "sunglasses": "sunglasses"}  # attribute: kind of photo
NEGATIVE = {
    "mask": ("plain", "sunglasses", "clear glasses", "on forehead"),
    "sunglasses": ("plain", "clear glasses", "on forehead", "mask", "drawn mask"),
}
REAL_SUNGLASSES = (  # neither fitted nor counted
    "mask/mask_073.jpg",  # worn with a mask
    "p016/p016_17.jpg",
    "p170/p170_01.jpg",
)
OWN_PRIOR = 5.0  # average clear faces counted in with a person's own
DRAWN_POSITIVE = {"mask": "drawn mask", "sunglasses": "sunglasses"}


@dataclass(frozen=True)
class Sample:
    """One photo per row, found or not."""

    path: np.ndarray  # (n,) str
    person: np.ndarray  # (n,) str; folder in data/people, else the photo's stem
    kind: np.ndarray  # (n,) str; mask, plain, sunglasses, clear glasses, on forehead, drawn mask
    found: np.ndarray  # (n, 3) bool; in the photo, in the crop at 640 and at 320
    aligned: np.ndarray  # (n, 112, 112, 3) uint8; black if not found
    embedding: np.ndarray  # (n, d) float32

    def take(self, rows: np.ndarray) -> Sample:
        return Sample(*(getattr(self, item.name)[rows] for item in fields(self)))


# ============================================================================
# Drawing
# ============================================================================

DRAW_EDGE, DRAW_ZOOM = 800.0, 3.0  # px; small photos are drawn on at up to three times their size
SHAPES = ("round", "square", "aviator", "cat eye", "visor")
TINTS = ((12, 12, 12), (20, 24, 40), (45, 25, 15), (20, 35, 20), (40, 40, 40), (30, 20, 50))  # BGR
MIRRORS = ((150, 110, 60), (60, 120, 190), (130, 130, 130), (120, 80, 140))
CLOTHS = (
    (235, 225, 200), (240, 240, 240), (225, 190, 140), (30, 30, 30), (70, 60, 60), (120, 60, 30),
    (60, 90, 40), (150, 60, 200), (170, 190, 215), (90, 110, 90), (140, 150, 190),
)  # fmt: skip


@dataclass(frozen=True)
class Easel:
    """A picture being drawn on, with the face's own coordinates (unit: distance of the eyes)."""

    canvas: np.ndarray  # (h, w, 3) float32, changed in place
    origin: np.ndarray  # (2,) px; between the eyes
    right: np.ndarray  # (2,) unit vector along the eyes
    down: np.ndarray  # (2,) unit vector towards the mouth
    unit: float  # px

    def place(self, points: object) -> np.ndarray:
        """Face coordinates (n, 2) as pixels (n, 2)."""
        xy = np.asarray(points, float)
        return self.origin + self.unit * (xy[:, :1] * self.right + xy[:, 1:] * self.down)

    def along_down(self) -> np.ndarray:
        """(h, w) face coordinate downwards of every pixel."""
        ys, xs = np.indices(self.canvas.shape[:2])
        return ((xs - self.origin[0]) * self.down[0] + (ys - self.origin[1]) * self.down[1]) / (
            self.unit
        )

    def fill(self, polygon: np.ndarray, colour: np.ndarray, opacity: float) -> None:
        import cv2

        layer = np.zeros(self.canvas.shape[:2], np.float32)
        cv2.fillPoly(layer, [np.rint(polygon).astype(np.int32)], 1.0, cv2.LINE_AA)
        layer = cv2.GaussianBlur(layer, (0, 0), 1.5)[..., None] * opacity
        self.canvas[:] = self.canvas * (1 - layer) + colour * layer

    def line(self, points: np.ndarray, colour: np.ndarray, width: int, closed: bool) -> None:
        import cv2

        layer = np.zeros(self.canvas.shape[:2], np.float32)
        cv2.polylines(layer, [np.rint(points).astype(np.int32)], closed, 1.0, width, cv2.LINE_AA)
        self.canvas[:] = self.canvas * (1 - layer[..., None]) + colour * layer[..., None]


def set_up(image: np.ndarray, kps: np.ndarray) -> Easel:
    import cv2

    zoom = max(1.0, min(DRAW_ZOOM, DRAW_EDGE / max(image.shape[:2])))
    canvas = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    points = kps.astype(float) * zoom
    eyes, across = points[:2].mean(axis=0), points[1] - points[0]
    unit = float(np.linalg.norm(across))
    right = across / unit
    down = np.array([-right[1], right[0]])
    if (points[3:].mean(axis=0) - eyes) @ down < 0:
        down = -down
    return Easel(canvas.astype(np.float32), eyes, right, down, unit)


def take_down(easel: Easel, image: np.ndarray) -> np.ndarray:
    import cv2

    small = cv2.resize(easel.canvas, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    return np.clip(small, 0, 255).astype(np.uint8)


def pick(rng: np.random.Generator, choices: Sequence) -> np.ndarray:
    return np.array(choices[rng.integers(len(choices))], np.float32)


def lens_outline(shape: str, width: float, height: float) -> np.ndarray:
    """(64, 2) outline of a right lens around its middle."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x, y = np.cos(turn), np.sin(turn)
    if shape != "round":
        x, y = np.sign(x) * np.sqrt(abs(x)), np.sign(y) * np.sqrt(abs(y))
    below = np.maximum(y, 0)
    if shape == "aviator":
        return np.stack([x * width / 2 * (1 - 0.22 * below) + 0.06 * width * below,
                         y * height / 2 + 0.08 * height], axis=1)  # fmt: skip
    if shape == "cat eye":
        lift = 0.12 * height * x * (x > 0) * (y < 0)
        return np.stack([x * width / 2 * (1 - 0.15 * below), y * height / 2 - lift], axis=1)
    return np.stack([x * width / 2, y * height / 2], axis=1)


def draw_glasses(
    image: np.ndarray, kps: np.ndarray, rng: np.random.Generator, kind: str
) -> np.ndarray:
    """The picture with glasses: `sunglasses`, `clear glasses`, or sunglasses `on forehead`."""
    easel = set_up(image, kps)
    turned = float((kps[2] - kps[:2].mean(axis=0)) @ easel.right) / np.linalg.norm(kps[1] - kps[0])
    drop = rng.uniform(0, 0.1) - (rng.uniform(0.85, 1.25) if kind == "on forehead" else 0)
    shape = SHAPES[rng.integers(len(SHAPES))]
    width = rng.uniform(0.8, 1.02)
    height = width * (rng.uniform(0.52, 0.8) if shape == "square" else rng.uniform(0.62, 0.9))
    if shape == "visor":
        outlines = [lens_outline("square", width + 1.12, 0.75 * height) + np.array([0, drop])]
    else:  # the side turned away is shorter
        outlines = [
            lens_outline(shape, width * (1 - side * np.clip(turned, -0.3, 0.3)), height)
            * (side, 1) + (0.52 * side, drop)
            for side in (-1, 1)
        ]  # fmt: skip
    lenses = [easel.place(outline) for outline in outlines]
    draw_lenses(easel, lenses, rng, kind, (drop, height))
    frame, thick = pick(rng, TINTS), max(1, int(easel.unit * rng.uniform(0.015, 0.06)))
    if kind == "clear glasses" or rng.random() < 0.7:
        for lens in lenses:
            easel.line(lens, frame, thick, closed=True)
    high = drop - 0.15 * height
    if shape != "visor":
        bridge = [[width / 2 - 0.53, high], [0.53 - width / 2, high]]
        easel.line(easel.place(bridge), frame, thick, closed=False)
    for side in (-1, 1):
        temple = [[side * (0.5 + width / 2), high], [side * 1.25, high - 0.05]]
        easel.line(easel.place(temple), frame, thick, closed=False)
    return take_down(easel, image)


def draw_lenses(
    easel: Easel,
    lenses: Sequence[np.ndarray],
    rng: np.random.Generator,
    kind: str,
    span: tuple[float, float],
) -> None:
    """Dark lenses of opacity 0.75 to 1, one in ten mirrored, some with a gradient or a highlight;
    clear ones get a faint reflection at most. `span`: middle and height in face coordinates."""
    if kind == "clear glasses":
        if rng.random() < 0.4:
            haze = rng.uniform(0.03, 0.15)
            for lens in lenses:
                easel.fill(lens, np.array([235, 225, 215], np.float32), haze)
        return
    mirrored, opacity = rng.random() < 0.1, rng.uniform(0.75, 1)
    colour = np.broadcast_to(pick(rng, MIRRORS if mirrored else TINTS), easel.canvas.shape)
    if mirrored or rng.random() < 0.3:
        ramp = np.clip((easel.along_down() - span[0]) / span[1] + 0.5, 0, 1)[..., None]
        colour = colour * (0.6 + 0.8 * ramp) if mirrored else colour + 35 * ramp
    for lens in lenses:
        easel.fill(lens, colour, opacity)
    if rng.random() < 0.35:
        glint = np.array([[-0.2, -0.15], [-0.05, -0.2], [-0.12, 0.02], [-0.22, 0.02]])
        size, strength = rng.uniform(0.6, 1.2), rng.uniform(0.2, 0.6)
        for lens in lenses:
            spot = easel.place(glint * size) - easel.origin + lens.mean(axis=0)
            easel.fill(spot, np.full(3, 235, np.float32), strength)


def draw_mask(image: np.ndarray, kps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture with a mask over mouth and nose: cloth shaded like the face, folds, straps."""
    import cv2

    easel = set_up(image, kps)
    eyes, unit = kps[:2].mean(axis=0), np.linalg.norm(kps[1] - kps[0])
    mouth = float((kps[3:].mean(axis=0) - eyes) @ easel.down) / unit
    nose = float((kps[2] - eyes) @ easel.right) / unit  # turned heads
    top = rng.uniform(0.25, 0.5)
    left, right = top + 0.12 + rng.uniform(0, 0.15, 2)
    outline = easel.place(
        [[0.9 * nose, top], [nose + 0.3, top + 0.1], [0.85, right], [0.84, 0.9 * mouth],
         [0.62, mouth + 0.42], [0.25 + nose / 2, mouth + 0.68], [nose / 2, mouth + 0.74],
         [-0.25 + nose / 2, mouth + 0.68], [-0.62, mouth + 0.42], [-0.84, 0.9 * mouth],
         [-0.85, left], [nose - 0.3, top + 0.1]]
    )  # fmt: skip
    inside = np.zeros(easel.canvas.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.rint(outline).astype(np.int32)], 1)
    covered = easel.canvas[inside > 0]
    if not len(covered):
        return image
    shade = cv2.GaussianBlur(easel.canvas.mean(axis=2), (0, 0), 0.35 * easel.unit)
    shade = shade / shade[inside > 0].mean() * np.clip(covered.mean() / 140, 0.5, 1.2)
    cloth = pick(rng, CLOTHS) * shade[..., None]
    if rng.random() < 0.3:  # patterned
        noise = rng.normal(0, 180, cloth.shape).astype(np.float32)
        cloth = cloth + cv2.GaussianBlur(noise, (0, 0), 0.05 * easel.unit)
    if rng.random() < 0.5:  # folds
        phase = easel.along_down() * rng.uniform(3, 6) % 1 - 0.5
        cloth = cloth * (1 - 0.12 * np.exp(-((phase / 0.06) ** 2)))[..., None]
    for side in (-1, 1):
        for start, end in ((top + 0.2, 0.1), (mouth + 0.3, 0.5)):
            strap = easel.place([[side * 0.84, start], [side * 1.2, end]])
            easel.line(strap, cloth, max(1, int(0.03 * easel.unit)), closed=False)
    easel.fill(outline, np.clip(cloth, 0, 255), rng.uniform(0.93, 1))
    return take_down(easel, image)


# ============================================================================
# Faces
# ============================================================================


def wanted_photos(data: Path, people: bool) -> Iterator[tuple[Path, str, str]]:
    """(photo, person, kind) of everything measured; kinds other than mask and plain are drawn.

    Without `people` those of data/occlusion alone, for a second engine.
    """
    for kind in ("mask", "plain"):
        for path in sorted((data / "occlusion" / kind).iterdir()):
            yield path, path.stem, kind
            if kind == "plain":
                yield path, path.stem, "sunglasses"
    for folder in sorted((data / "people").iterdir()) if people else ():
        photos = sorted(folder.iterdir())
        many = len(photos) >= MANY
        for at, path in enumerate(photos):
            yield path, folder.name, "plain"
            if at == 0 or (many and at % 2 == 0):
                yield path, folder.name, "sunglasses"
            if many and at % 2:
                yield path, folder.name, "drawn mask"
                yield path, folder.name, "clear glasses" if at % 4 == 1 else "on forehead"
            elif at == 0 and not many:
                yield path, folder.name, "on forehead"


def drawn(image: np.ndarray, kps: np.ndarray, kind: str, path: Path) -> np.ndarray:
    """The photo as its kind wants it, the same in every run."""
    rng = np.random.default_rng(zlib.crc32(f"{path.parent.name}/{path.name}/{kind}".encode()))
    if kind == "drawn mask":
        return draw_mask(image, kps, rng)
    return draw_glasses(image, kps, rng, kind)


def nearest_middle(bbox: np.ndarray, wh: tuple[int, int]) -> int:
    """Which box (n, 4) is nearest the middle of a picture."""
    middle = (bbox[:, :2] + bbox[:, 2:]) / 2
    return int(np.linalg.norm(middle - np.array(wh) / 2, axis=1).argmin())


def face_of(engine: Engine, image: np.ndarray) -> tuple[list[bool], np.ndarray, np.ndarray]:
    """Go the way of export-swap: (found (3,), aligned face, embedding) of the main face."""
    found = [False, False, False]
    aligned, embedding = np.zeros((112, 112, 3), np.uint8), np.zeros(engine.dim, np.float32)
    faces = find_faces(engine, image, Passes(pad_retry=True))
    if not len(faces):
        return found, aligned, embedding
    found[0] = True
    wh = image.shape[1], image.shape[0]
    box = faces.bbox[nearest_middle(faces.bbox, wh)]
    x, y, side = window = crop_square(box, wh, PAD_RATIO)
    crop = cut_window(image, window, OUT_SIZE)
    expected, done = (box - (x, y, x, y)) * OUT_SIZE / side, False
    for at, size in enumerate(CONSUMER_DET_SIZES, start=1):
        if engine.model == DLIB_MODEL and at > 1:  # it has one size
            found[at] = found[1]
            continue
        again = engine.detect(crop, None if engine.model == DLIB_MODEL else size)
        overlap = box_iou(expected, again.bbox) if len(again) else np.zeros(1)
        found[at] = bool(overlap.max() >= CROP_FACE_IOU)
        if found[at] and not done:
            best, done = again.take([int(overlap.argmax())]), True
            aligned = landmarks.aligned_face(crop, best.kps[0])
            embedding = engine.embed(crop, best)[0]
    return found, aligned, embedding


def collect(data: Path, engine: Engine, artist: Engine, people: bool) -> Sample:
    """All faces; the artist's key points say where to draw."""
    rows, last, image, kps = [], None, None, None
    for path, person, kind in wanted_photos(data, people):
        if path != last:
            image, last, kps = read_photo(str(path)).image, path, None
            faces = find_faces(artist, image, Passes(pad_retry=True))
            if len(faces):
                kps = faces.kps[nearest_middle(faces.bbox, (image.shape[1], image.shape[0]))]
        if kind not in ("mask", "plain") and kps is None:
            continue
        picture = image if kind in ("mask", "plain") else drawn(image, kps, kind, path)
        rows.append((f"{path.parent.name}/{path.name}", person, kind, *face_of(engine, picture)))
        if len(rows) % 100 == 0:
            print(f"{len(rows)} faces", file=sys.stderr)
    return Sample(*(np.array(column) for column in zip(*rows, strict=True)))


def collect_once(data: Path, model: str, artist: str) -> Sample:
    """`collect`, kept in the temporary folder."""
    key = f"{CACHE_VERSION} {data.resolve()} {model} {artist}"
    name = f"measure-occlusion-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    path = Path(tempfile.gettempdir()) / name
    if not path.exists():
        engine = sort_faces.load_engine(EngineSpec(model=model), 1)
        drawer = sort_faces.load_engine(EngineSpec(model=artist), 1)
        sample = collect(data, engine, drawer, people=model == artist)
        np.savez(path, **{item.name: getattr(sample, item.name) for item in fields(Sample)})
    with np.load(path) as archive:
        return Sample(*(archive[item.name] for item in fields(Sample)))


# ============================================================================
# Fitting
# ============================================================================


def truth_of(sample: Sample, attribute: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool each: the photos that show an attribute, and those that must not be flagged."""
    negative = np.isin(sample.kind, NEGATIVE[attribute])
    if attribute == "sunglasses":
        negative &= ~np.isin(sample.path, REAL_SUNGLASSES)
    return sample.kind == POSITIVE[attribute], negative


@dataclass(frozen=True)
class Weights:
    """The constants of the scorer."""

    table: np.ndarray  # (k, 4) mean of clear faces, spread, weight for mask, for sunglasses
    bias: np.ndarray  # (2,)

    def use(self) -> None:
        """Put them into the code that ships, so that this is what is measured."""
        names = landmarks.LANDMARK_FEATURES
        landmarks.LANDMARK_FEATURES = dict(zip(names, map(tuple, self.table), strict=True))
        landmarks.LANDMARK_BIAS = self.bias


MASK_FEATURES = 9  # the first ones; the others are about the eyes


def fold_of(sample: Sample, folds: int) -> np.ndarray:
    """(n,) fold of each row; one person, or what may be one, is never in two."""
    group = sample.person.tolist()
    for kind in ("mask", "plain"):
        rows = np.flatnonzero((sample.kind == kind) & np.char.startswith(sample.path, f"{kind}/"))
        unit = unit_rows(sample.embedding[rows])
        labels = sort_faces.threshold_components(unit, SAME_MASKED)
        names = {
            sample.person[row]: f"{kind}{label}" for row, label in zip(rows, labels, strict=True)
        }
        group = [f"{kind} {names[name]}" if name in names else name for name in group]
    return np.array([zlib.crc32(str(name).encode()) % folds for name in group])


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


def fit(features: np.ndarray, sample: Sample) -> Weights:
    """Constants from the features (n, k) of a sample."""
    count = features.shape[1]
    usual = features[sample.kind == "plain"].mean(axis=0)
    columns = {"mask": slice(0, MASK_FEATURES), "sunglasses": slice(MASK_FEATURES, count)}
    table = np.column_stack([usual, np.ones(count), np.zeros((count, 2))])
    bias = np.zeros(2)
    for at, attribute in enumerate(ATTRIBUTES):
        positive, negative = truth_of(sample, attribute)
        use, own = positive | negative, columns[attribute]
        table[own, 1] = features[use][:, own].std(axis=0)
        scaled = (features[use] - table[:, 0]) / table[:, 1]
        limit = landmarks.LANDMARK_LIMIT
        scaled = np.clip(scaled, -limit, limit)
        table[own, 2 + at], bias[at] = logistic(scaled[:, own], positive[use])
    return Weights(table, bias)


def features_of(sample: Sample) -> np.ndarray:
    """(n, k) features; aligned faces have their key points where the template has them."""
    kps = 2 * landmarks.LANDMARK_POINTS
    return np.array([landmarks.region_features(face, kps) for face in sample.aligned])


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


def print_found(sample: Sample) -> None:
    """How many faces ever become a crop."""
    rows = []
    for kind in dict.fromkeys(sample.kind.tolist()):
        found = sample.found[sample.kind == kind]
        both, either = found[:, 1:].all(axis=1).sum(), found[:, 1:].any(axis=1).sum()
        rows.append([kind, len(found), *found.sum(axis=0).tolist(), int(both), int(either)])
    head = ["kind", "photos", "found in photo", "in crop at 640", "at 320", "at both", "at either"]
    print_table("Faces the detector finds", head, rows)


def share(flagged: np.ndarray) -> str:
    return f"{int(flagged.sum())}/{len(flagged)}"


def print_scores(title: str, sample: Sample, chance: np.ndarray) -> None:
    """Recall and false positives at THRESHOLD; precision of the mix and of rarer occlusion."""
    rows = []
    for at, attribute in enumerate(ATTRIBUTES):
        flagged = chance[:, at] >= THRESHOLD
        positive, negative = truth_of(sample, attribute)
        hit, false = flagged[positive], flagged[negative]
        rows.append([attribute, share(hit), float(hit.mean()), share(false), float(false.mean()),
                     float(hit.sum() / max(1, hit.sum() + false.sum())),
                     *(float(p * hit.mean() / max(1e-9, p * hit.mean() + (1 - p) * false.mean()))
                       for p in PREVALENCES)])  # fmt: skip
    head = ["attribute", "found", "recall", "false", "false rate", "precision",
            *(f"at {p:.0%}" for p in PREVALENCES)]  # fmt: skip
    print_table(title, head, rows)
    where = np.where(np.char.startswith(sample.path, "p"), sample.path, "")
    people = ~np.isin(np.char.partition(where, "/")[:, 0], ("plain", ""))
    rows = []
    for kind in dict.fromkeys(sample.kind.tolist()):
        for source, of in (("occlusion", ~people), ("people", people)):
            own = (sample.kind == kind) & of
            if own.any():
                flags = [chance[own, at] >= THRESHOLD for at in (0, 1)]
                persons = [len(np.unique(sample.person[own][flag])) for flag in flags]
                rows.append([kind, source, share(flags[0]), share(flags[1]), *persons,
                             len(np.unique(sample.person[own]))])  # fmt: skip
    head = ["kind", "from", *ATTRIBUTES, *(f"people with {name}" for name in ATTRIBUTES), "people"]
    print_table(f"{title}: flagged by kind of photo", head, rows)


def print_sweep(title: str, sample: Sample, chance: np.ndarray) -> None:
    """Other thresholds."""
    rows = []
    for limit in SWEEP:
        row: list[object] = [f"{limit:g}"]
        for at, attribute in enumerate(ATTRIBUTES):
            flagged = chance[:, at] >= limit
            positive, negative = truth_of(sample, attribute)
            hit, false = flagged[positive], flagged[negative]
            row += [float(hit.sum() / max(1, hit.sum() + false.sum())), float(hit.mean()),
                    float(false.mean())]  # fmt: skip
        rows.append(row)
    head = ["threshold", *(f"{a} {x}" for a in ATTRIBUTES for x in ("P", "R", "false rate"))]
    print_table(title, head, rows)


def face_sets(sample: Sample, attribute: str) -> Iterator[tuple[int, np.ndarray]]:
    """(which of SHARES, rows) of face sets made from people with many photos, drawn on."""
    covered = DRAWN_POSITIVE[attribute]
    for person in np.unique(sample.person):
        own = sample.person == person
        plain, hidden = (np.flatnonzero(own & (sample.kind == k)) for k in ("plain", covered))
        if len(plain) < MANY - 2 or len(hidden) < 5:
            continue
        apart = plain[~np.isin(sample.path[plain], sample.path[hidden])]
        for at, (clear, occluded) in enumerate(SHARES):
            pool = plain if not occluded else apart
            yield at, np.concatenate([pool[:clear], hidden[:occluded]])


def print_face_sets(sample: Sample, features: np.ndarray, models: dict, fold: np.ndarray) -> None:
    """Flags of whole face sets, each photo alone and against the person's own photos."""
    for at, attribute in enumerate(ATTRIBUTES):
        tally = {share: {"alone": [], "relative": []} for share in range(len(SHARES))}
        for which, rows in face_sets(sample, attribute):
            models[int(fold[rows[0]])].use()
            truth = sample.kind[rows] != "plain"
            for name, given in (
                ("alone", features[rows]),
                ("relative", relative_features(features[rows])),
            ):
                flagged = landmarks.occlusion_probabilities(given)[:, at] >= THRESHOLD
                tally[which][name].append((truth, flagged))
        table = []
        for which, (clear, occluded) in enumerate(SHARES):
            for name, sets in tally[which].items():
                truth = np.concatenate([t for t, _ in sets])
                flagged = np.concatenate([f for _, f in sets])
                gone = sum(f.mean() >= QUARANTINE for _, f in sets)
                table.append([f"{clear} + {occluded}", name, share(flagged[truth]),
                              share(flagged[~truth]), f"{gone}/{len(sets)}"])  # fmt: skip
        head = ["clear + occluded", "way", "recall", "false", "sets quarantined"]
        print_table(f"{attribute}, DRAWN, face sets of one person", head, table)


def print_grey(sample: Sample, fold: np.ndarray, models: dict[int, Weights]) -> None:
    """The same faces without colour, as old photos have none."""
    grey = sample.aligned.mean(axis=3, keepdims=True).astype(np.uint8).repeat(3, axis=3)
    chance = probabilities(features_of(replace(sample, aligned=grey)), fold, models)
    print_scores("The same faces in black and white", sample, chance)


def print_weights(weights: Weights) -> None:
    print("\nLANDMARK_FEATURES = {  # feature: mean of clear faces, spread, weights")
    for name, values in zip(landmarks.LANDMARK_FEATURES, weights.table, strict=True):
        print(f'    "{name}": ({", ".join(f"{value:.3g}" for value in values)}),')
    print("}")
    print(f"LANDMARK_BIAS = np.array([{', '.join(f'{value:.3g}' for value in weights.bias)}])")


# ============================================================================
# Entry point
# ============================================================================


def held_out(
    features: np.ndarray, sample: Sample, fold: np.ndarray
) -> tuple[np.ndarray, dict[int, Weights]]:
    """Probabilities (n, 2) by models that have seen none of the fold's people, and the models."""
    models = {
        one: fit(features[fold != one], sample.take(np.flatnonzero(fold != one)))
        for one in np.unique(fold).tolist()
    }
    return probabilities(features, fold, models), models


def probabilities(features: np.ndarray, fold: np.ndarray, models: dict[int, Weights]) -> np.ndarray:
    """(n, 2) probabilities, each face by the model that has not seen its fold."""
    chance = np.zeros((len(features), 2))
    for one, weights in models.items():
        weights.use()
        chance[fold == one] = landmarks.occlusion_probabilities(features[fold == one])
    return chance


def print_wrong(sample: Sample, chance: np.ndarray) -> None:
    """What to look at by eye."""
    for at, attribute in enumerate(ATTRIBUTES):
        flagged = chance[:, at] >= THRESHOLD
        positive, negative = truth_of(sample, attribute)
        wrong = np.flatnonzero((positive & ~flagged) | (negative & flagged))
        print(f"\nwrong for {attribute}:")
        for row in wrong:
            print(f"  {chance[row, at]:.2f} {sample.kind[row]} {sample.path[row]}")


def relative_features(features: np.ndarray) -> np.ndarray:
    """Features (n, 16) of one person's photos as if that person had an average clear face.

    What the person's own clear photos have in common (a beard, dark eye sockets) is taken out. A
    photo counts as clear by 1 - its larger probability, and OWN_PRIOR average clear faces
    are counted in, so that a person without clear photos keeps the features as they are.
    """
    usual = np.array(list(landmarks.LANDMARK_FEATURES.values()))[:, 0]  # of clear faces
    clear = 1.0 - landmarks.occlusion_probabilities(features).max(axis=1, initial=0.0)  # (n,)
    own = (clear @ features + OWN_PRIOR * usual) / (clear.sum() + OWN_PRIOR)
    return features - own + usual


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", required=True, metavar="NAME|DIR", help="engine to fit with")
    parser.add_argument("--other", metavar="NAME|DIR", help="second engine, e.g. dlib: transfer")
    parser.add_argument("--wrong", action="store_true", help="list the wrongly judged photos")
    args = parser.parse_args(argv)
    import cv2

    cv2.setNumThreads(1)
    everything = collect_once(args.data, args.model, args.model)
    print_found(everything)
    sample = everything.take(np.flatnonzero(everything.found[:, 1:].any(axis=1)))
    features = features_of(sample)
    chance, _ = held_out(features, sample, fold_of(sample, 2))
    print_scores("Fitted on the other half of the people", sample, chance)
    fold = fold_of(sample, FOLDS)
    chance, models = held_out(features, sample, fold)
    print_scores(f"{FOLDS} folds of people", sample, chance)
    print_sweep(f"{FOLDS} folds of people: other thresholds", sample, chance)
    print_grey(sample, fold, models)
    print_face_sets(sample, features, models, fold)
    if args.wrong:
        print_wrong(sample, chance)
    if args.other:
        other = collect_once(args.data, args.other, args.model)
        print_found(other)
        other = other.take(np.flatnonzero(other.found[:, 1:].any(axis=1)))
        fold_by_person = dict(zip(sample.person.tolist(), fold.tolist(), strict=True))
        other_fold = np.array([fold_by_person.get(name, 0) for name in other.person.tolist()])
        chance = probabilities(features_of(other), other_fold, models)
        print_scores(f"{args.other}: same constants, people not seen in fitting", other, chance)
    print_weights(fit(features, sample))
    return 0


if __name__ == "__main__":
    sys.exit(main())
