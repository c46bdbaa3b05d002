"""What is left of a face's identity when it is smaller, blurred, darker or turned.

    python tests/bench/measure_video_quality.py MODEL [PEOPLE]

Needs ../shared. Of each person with six photos and more one sharp, level, large face is made
worse, step by step; told is its cosine to the mean of the person's other photos, as a share of what
it was. Turned faces are those of the photos as they are. The curves are TERMS of
work/clip_ranking.py, the table is in docs/analysis/video.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from common import print_table  # noqa: E402

import sort_faces as sf  # noqa: E402

ranking = sf.companion("clip_ranking")
SHARED = ROOT.parent / "shared" / "data"
SIDE = 160  # px; short edge the good face is brought to
MIDDLE = 130.0  # grey level it is brought to
NOISE = 3.0  # grey levels; of a camera, which darkness does not take along


@dataclass(frozen=True)
class Good:
    """A good face and what its person looks like otherwise."""

    image: np.ndarray
    found: object  # Detections of one face
    mean: np.ndarray  # (d,) direction of the person's other faces


def largest(engine: object, image: np.ndarray) -> object | None:
    found = sf.find_faces(engine, image, sf.Passes(pad_retry=True))
    if not len(found.bbox):
        return None
    row = int(np.argmax(found.bbox[:, 2] - found.bbox[:, 0]))
    return sf.Detections(found.bbox[row : row + 1], found.score[row : row + 1], found.kps[[row]])


def embedded(engine: object, image: np.ndarray, found: object) -> np.ndarray:
    return sf.unit_rows(engine.embed_crops(engine.align(image, found)))[0]


def poses(found: object, image: np.ndarray) -> np.ndarray:
    """(3,) degrees pitch yaw roll."""
    return sf.pose_from_kps(found.kps, image.shape[1::-1])[0]


def scaled(image: np.ndarray, found: object, scale: float) -> tuple[np.ndarray, object]:
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return small, sf.resized(found, scale)


def around(image: np.ndarray, found: object) -> tuple[np.ndarray, object]:
    """The face with a border, at SIDE px."""
    box = found.bbox[0]
    x1, y1 = np.maximum(np.floor(box[:2] - 0.5 * (box[2:] - box[:2])), 0).astype(int)
    x2, y2 = np.ceil(box[2:] + 0.5 * (box[2:] - box[:2])).astype(int)
    part = np.ascontiguousarray(image[y1:y2, x1:x2])
    moved = sf.shifted(found, -float(x1), -float(y1))
    return scaled(part, moved, SIDE / float(np.min(box[2:] - box[:2])))


def small(px: float) -> Callable[[Good], tuple[np.ndarray, object]]:
    return lambda good: scaled(good.image, good.found, px / SIDE)


def moved(length: int) -> Callable[[Good], tuple[np.ndarray, object]]:
    """Motion blur of so many px across a face of SIDE px."""

    def apply(good: Good) -> tuple[np.ndarray, object]:
        kernel = np.full((1, length), 1.0 / length, np.float32)
        return cv2.filter2D(good.image, -1, kernel), good.found

    return apply


def lit(level: float) -> Callable[[Good], tuple[np.ndarray, object]]:
    """Darker or brighter, with the noise of a camera and clipping."""

    def apply(good: Good) -> tuple[np.ndarray, object]:
        light = ranking.look_of(good.image, good.found.bbox[0])[0]
        noise = np.random.default_rng(0).normal(0, NOISE, good.image.shape)
        image = good.image.astype(np.float32) * (level / max(light, 1.0)) + noise
        return np.rint(image.clip(0, 255)).astype(np.uint8), good.found

    return apply


STEPS: dict[str, dict[float, Callable]] = {
    "short edge, px": {px: small(px) for px in (16, 20, 26, 32, 40, 56, 80, 112, 160)},
    "motion blur, px of 160": {n: moved(n) for n in (1, 3, 5, 9, 13, 19, 27)},
    "light, grey level": {level: lit(level) for level in (6, 12, 20, 40, 70, 130, 190, 230, 260)},
}


def good_faces(engine: object, most: int) -> tuple[list[Good], list[tuple[float, float, float]]]:
    """(good faces, (yaw, pitch, cosine to the mean of its person) of all faces)."""
    good, turned = [], []
    for folder in sorted((SHARED / "people").iterdir()):
        photos = sorted(folder.glob("*.jpg")) if folder.is_dir() else []
        if len(photos) < 6 or len(good) >= most:
            continue
        seen = []
        for photo in photos[:12]:
            image = sf.read_photo(str(photo)).image
            found = largest(engine, image)
            if found is not None:
                seen.append((image, found, embedded(engine, image, found), poses(found, image)))
        if len(seen) < 6:
            continue
        vectors = np.stack([vector for *_, vector, _ in seen])
        for row, (*_, vector, pose) in enumerate(seen):
            rest = sf.centroid(np.delete(vectors, row, axis=0))
            turned.append((abs(pose[1]), abs(pose[0]), float(vector @ rest)))

        def level(row: int, seen: list = seen) -> float:
            _, found, _, pose = seen[row]
            short = float(np.min(found.bbox[0, 2:] - found.bbox[0, :2]))
            return min(short, 160.0) - 2.0 * (abs(pose[0]) + abs(pose[1]))

        best = max(range(len(seen)), key=level)
        image, found, *_ = seen[best]
        if np.min(found.bbox[0, 2:] - found.bbox[0, :2]) >= 80:
            rest = sf.centroid(np.delete(vectors, best, axis=0))
            good.append(Good(*around(image, found), rest))
    return good, turned


def rows(engine: object, good: list[Good]) -> Iterator[dict[str, object]]:
    before = np.array([embedded(engine, g.image, g.found) @ g.mean for g in good])
    for name, steps in STEPS.items():
        for step, worse in steps.items():
            made = [worse(one) for one in good]
            after = np.array(
                [embedded(engine, *m) @ g.mean for m, g in zip(made, good, strict=True)]
            )
            looks = np.array([ranking.look_of(image, found.bbox[0]) for image, found in made])
            light, sharp = np.nanmedian(looks, axis=0)
            yield {"made worse": name, "to": step, "left": f"{after.mean() / before.mean():.2f}",
                   "light": f"{light:.0f}", "sharpness": f"{sharp:.0f}"}  # fmt: skip


def turned_rows(turned: list[tuple[float, float, float]]) -> Iterator[dict[str, object]]:
    values = np.array(turned)
    level = values[(values[:, 0] < 10) & (values[:, 1] < 10), 2].mean()
    for axis, name in ((0, "yaw"), (1, "pitch")):
        for low, high in ((0, 10), (10, 20), (20, 30), (30, 45), (45, 60), (60, 90)):
            at = (values[:, axis] >= low) & (values[:, axis] < high)
            if at.sum() >= 3:
                left = values[at, 2].mean() / level
                yield {"turned": name, "degrees": f"{low}-{high}", "faces": int(at.sum()),
                       "left": f"{left:.2f}"}  # fmt: skip


def main() -> None:
    model, most = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60
    engine = sf.load_engine(sf.EngineSpec(model=model), 2)
    good, turned = good_faces(engine, most)
    print(f"{len(good)} good faces, {len(turned)} faces of their people")
    print_table("made worse", list(rows(engine, good)))
    print_table("turned", list(turned_rows(turned)))


if __name__ == "__main__":
    main()
