"""What is known of crops, a row each, and the keys `arrange` orders and groups them by."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import time, timedelta
from pathlib import Path

import numpy as np

import sort_faces as sf

landmark_filter, looking = sf.companion("landmark_filter"), sf.companion("looking")


@dataclass(frozen=True)
class Crops:
    """Pictures and what is known of the face in each."""

    files: list[Path]
    cache: sf.FaceCache
    row: np.ndarray  # (n,) row of the cache, -1 where no face was found
    reference: np.ndarray | None = None  # (d,) direction that "identity" is measured from

    def take(self, at: np.ndarray) -> Crops:
        """Some of the pictures, by their position."""
        return Crops([self.files[k] for k in at], self.cache, self.row[at], self.reference)

    @property
    def seen(self) -> np.ndarray:
        """(n,) bool: pictures in which a face was found."""
        return self.row >= 0

    @property
    def unit(self) -> np.ndarray:
        """(n, d) float32 of length 1; 0 where there is no face."""
        unit = np.zeros((len(self.row), self.cache.meta.dim), np.float32)
        unit[self.seen] = self.cache.unit[self.row[self.seen]]
        return unit

    def of_faces(self, values: np.ndarray) -> np.ndarray:
        """(n,) float64 of a column with a value a face; NaN without one."""
        found = np.full(len(self.row), np.nan)
        found[self.seen] = values[self.row[self.seen]]
        return found


def crops_of(files: list[Path], shas: Sequence[str], cache: sf.FaceCache) -> Crops:
    """The face nearest the middle of each picture, by the sha256 of its bytes."""
    rows = looking.rows_by_sha(cache)
    return Crops(files, cache, np.array([rows[sha][0] if sha in rows else -1 for sha in shas]))


def nobody(files: list[Path]) -> Crops:
    """Pictures that nobody has looked at: for keys of the whole picture."""
    meta = sf.CacheMeta(
        schema=sf.CACHE_SCHEMA, model="", recognizer="", dim=1, det_size=0, det_threshold=0.0,
        roots=[],
    )  # fmt: skip
    return Crops(files, sf.empty_cache(meta), np.full(len(files), -1))


MIDDLE = 0.25  # of a picture's edges is left out on every side: what is measured is the face
COLOURFUL = 0.05  # of the fullest saturation; a picture below has no hue


def colours(file: Path) -> tuple[float, float, float]:
    """(brightness 0 to 255, saturation 0 to 1, hue in degrees) of the middle of a picture.

    The hue is the direction of the mean of a* and b* of CIE Lab: 0 is reddish, 90 yellow, -90 blue;
    NaN of a grey one. All NaN where it cannot be read.
    """
    import cv2

    try:
        image = sf.read_photo(str(file)).image
    except sf.PhotoError as error:
        sf.log.warning("%s: %s", file, error)
        return np.nan, np.nan, np.nan
    height, width = image.shape[:2]
    top, left = int(height * MIDDLE), int(width * MIDDLE)
    middle = image[top : height - top, left : width - left]
    small = cv2.resize(middle, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    light, a, b = cv2.cvtColor(small, cv2.COLOR_BGR2LAB).reshape(-1, 3).mean(axis=0)
    spread = small.max(axis=2) - small.min(axis=2)
    full = float((spread / np.maximum(small.max(axis=2), 1e-6)).mean())
    hue = np.degrees(np.arctan2(b, a)) if full >= COLOURFUL else np.nan
    return float(light) * 2.55, full, float(hue)


def of_pictures(crops: Crops, at: int) -> np.ndarray:
    """(n,) one of colours() of every picture."""
    found = sf.ordered_map(colours, crops.files, sf.usable_cores())
    return np.array([one[at] for one in sf.progress(found, len(crops.files), "colours", "crop")])


def times(crops: Crops) -> np.ndarray:
    """(n,) seconds: when the photos were taken; where that is told of none, the files' own."""
    taken = crops.of_faces(crops.cache.taken[crops.cache.face_file])
    if np.isfinite(taken).any():
        return taken
    return np.array([os.stat(file).st_mtime for file in crops.files])


def poses(crops: Crops) -> np.ndarray:
    """(n, 3) degrees pitch, yaw, roll; by the five points where no model has told."""
    pose = np.full((len(crops.row), 3), np.nan)
    pose[crops.seen] = crops.cache.pose[crops.row[crops.seen]]
    for at in np.flatnonzero(crops.seen & ~np.isfinite(pose).all(axis=1)):
        row = crops.row[at]
        wh = tuple(crops.cache.file_wh[crops.cache.face_file[row]].tolist())
        pose[at] = sf.pose_from_kps(crops.cache.kps[row : row + 1], wh)[0]
    return pose


def qualities(crops: Crops) -> np.ndarray:
    terms = sf.cached_quality_terms(crops.cache)
    return crops.of_faces(sf.composite_quality(terms, sf.QualityWeights()))


def from_centre(crops: Crops) -> np.ndarray:
    """(n,) cosine distance to the centroid of all, or to the reference."""
    centre = crops.reference
    if centre is None and crops.seen.any():
        centre = sf.centroid(crops.unit[crops.seen])
    away = np.full(len(crops.row), np.nan)
    if centre is not None:
        away[crops.seen] = 1.0 - crops.unit[crops.seen] @ centre
    return away


def from_mean_face(crops: Crops) -> np.ndarray:
    """(n,) percent, of five points for all: those of 68 lie nearer and do not compare."""
    return crops.of_faces(landmark_filter.shapes_of(crops.cache.kps).distance)


def number(value: float) -> str:
    return f"{value:.4g}"


def moment(seconds: float) -> str:
    """`2015-08-31`, with the time of day where it is not midnight."""
    try:
        when = sf.EPOCH + timedelta(seconds=round(seconds))
    except OverflowError:  # beyond the calendar
        return number(seconds)
    return when.strftime("%Y-%m-%d" if when.time() == time.min else "%Y-%m-%d-%H%M%S")


@dataclass(frozen=True)
class Key:
    """What pictures can be ordered and grouped by."""

    values: Callable[[Crops], np.ndarray]  # (n,) float64; NaN where not known
    falling: bool = False  # the largest first
    even: bool = False  # groups of equal width, as degrees ask for; else of equal count
    looks: bool = True  # needs to know the faces
    said: Callable[[float], str] = number  # a value in the name of a folder


KEYS: dict[str, Key] = {
    "identity": Key(from_centre),
    "yaw": Key(lambda crops: poses(crops)[:, 1], even=True),
    "pitch": Key(lambda crops: poses(crops)[:, 0], even=True),
    "roll": Key(lambda crops: poses(crops)[:, 2], even=True),
    "size": Key(lambda crops: crops.of_faces(crops.cache.face_short), falling=True),
    "blur": Key(lambda crops: crops.of_faces(crops.cache.blur), falling=True),
    "quality": Key(qualities, falling=True),
    "mean-face": Key(from_mean_face),
    "time": Key(times, said=moment),
    "brightness": Key(lambda crops: of_pictures(crops, 0), falling=True, looks=False),
    "saturation": Key(lambda crops: of_pictures(crops, 1), falling=True, looks=False),
    "hue": Key(lambda crops: of_pictures(crops, 2), even=True, looks=False),
}
