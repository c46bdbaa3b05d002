"""Slides: one picture pushes the other out of the frame, comes over it, or uncovers it.

Like a camera that pans, both move; but all that is ever seen is the two pictures themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

FINE = 4  # places within a pixel that a picture is moved to
MOVES = ((1, 1), (0, 1), (1, 0))  # whether the one that goes moves, and the one that comes
UNEVEN = 2.2  # times the way that an even slide goes from thumbnail to thumbnail, at most


def fits(part: np.ndarray, before: np.ndarray, after: np.ndarray, size: tuple[int, int]) -> float:
    """Mean levels by which (n, d) pictures of `size` (w, h) px differ from the nearest slide.

    Those of the picture that differs most; infinite where they do not go on and on. d = h * w * 3.
    """
    best = np.inf
    for table in ways(*(side.reshape(size[1], size[0], 3) for side in (before, after))):
        table = table.reshape(len(table), -1)
        apart = np.stack([np.abs(table - one).mean(axis=1) for one in part])
        at = apart.argmin(axis=1) / (len(table) - 1)
        strides = np.diff([0.0, *at, 1.0])
        if strides.min() >= 0 and strides.max() * (len(part) - 1) <= UNEVEN:
            best = min(best, float(apart.min(axis=1).max()))
    return best


def ways(before: np.ndarray, after: np.ndarray) -> Iterator[np.ndarray]:
    """(m, h, w, 3) the pictures on the way of each kind of slide, from (h, w, 3) to (h, w, 3)."""
    for turns in range(4):
        one, two = (np.ascontiguousarray(np.rot90(side, turns)) for side in (before, after))
        for moves in MOVES:
            yield np.rot90(to_the_left(one, two, *moves), -turns, axes=(1, 2))


def to_the_left(before: np.ndarray, after: np.ndarray, goes: int, comes: int) -> np.ndarray:
    """(m, h, w, 3) the one going out to the left, the other coming in from the right."""
    wide = before.shape[1] * FINE
    column = np.arange(wide)
    moved = np.arange(wide + 1)[:, None]  # fine pixels
    shown = column < wide - moved  # (m, wide) of the one that goes
    left = np.where(shown, column + goes * moved, 0)
    right = np.where(shown, 0, column - comes * (wide - moved))
    size = wide, before.shape[0]
    fine = [cv2.resize(side, size, interpolation=cv2.INTER_LINEAR) for side in (before, after)]
    picture = np.where(shown[None, :, :, None], fine[0][:, left], fine[1][:, right])
    cells = picture.reshape(*picture.shape[:2], -1, FINE, 3).mean(axis=3)
    return cells.transpose(1, 0, 2, 3)
