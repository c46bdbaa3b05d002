"""Made face embeddings shaped like a photo library, and what the benchmarks share to print.

    library_faces(count, seed)   identities of power-law size, several eras each, bridging faces
    chained_faces(count, seed)   the same linked by bridges into one component
    drifting_faces(count, seed)  one long walk: every face near the last, none near the first

The numbers are set by what ArcFace-like models give on labelled photos: faces of one person in one
era have a cosine around 0.65 to 0.75, across eras 0.45 to 0.55, strangers 0 +- 0.05.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DIM = 512
LARGEST_SHARE = 0.08  # of a library; its owner's face
POWER = 1.1  # of the identity sizes: P(size > s) ~ s^-POWER, many singles and a few hundreds
ERA_FACES = 40  # faces of one person per era, about
COS_IDENTITY = 0.52  # of two good faces of one person in different eras
COS_ERA = 0.72  # in the same era
BLURRED_SHARE = 0.15  # of the faces: poor ones, a third to two thirds of the way into noise
BRIDGE_SHARE = 0.002  # of the faces: between two people


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def directions(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """(count, dim) float32 of length 1, evenly spread."""
    return unit(rng.standard_normal((count, dim), dtype=np.float32))


def power_law_sizes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Sizes of identities that sum to `count`, largest first."""
    sizes: list[int] = []
    left = count
    while left > 0:
        size = int(min((1.0 - rng.random()) ** (-1.0 / POWER), max(1.0, LARGEST_SHARE * count)))
        sizes.append(min(size, left))
        left -= sizes[-1]
    return np.sort(np.array(sizes))[::-1]


def library_faces(
    count: int, seed: int, dim: int = DIM, sizes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(count, dim) float32 unit faces in random order, and whose each is: (count,) int.

    A face is its identity, plus its era, plus noise of its own; some are poor, and a few lie
    between two people (a blend, a child that looks like a parent, a look-alike).
    """
    rng = np.random.default_rng(seed)
    sizes = power_law_sizes(rng, count) if sizes is None else sizes
    person = np.repeat(np.arange(len(sizes)), sizes)
    eras = np.maximum(1, np.rint(sizes / ERA_FACES)).astype(int)
    era = (np.cumsum(eras) - eras)[person] + rng.integers(0, eras[person])
    weights = np.sqrt([COS_IDENTITY, COS_ERA - COS_IDENTITY, 1.0 - COS_ERA]).astype(np.float32)
    centres = weights[0] * directions(rng, len(sizes), dim)[person]
    centres += weights[1] * directions(rng, int(eras.sum()), dim)[era]
    noise = np.full((count, 1), weights[2], np.float32)
    poor = rng.random(count) < BLURRED_SHARE
    noise[poor, 0] *= rng.uniform(1.3, 2.5, np.count_nonzero(poor))
    faces = unit(centres + noise * directions(rng, count, dim))
    bridges = np.flatnonzero(rng.random(count) < BRIDGE_SHARE)
    others = rng.integers(0, count, len(bridges))
    faces[bridges] = unit(faces[bridges] + faces[others])
    order = rng.permutation(count)
    return np.ascontiguousarray(faces[order], np.float32), person[order]


def chained_faces(count: int, seed: int, dim: int = DIM) -> tuple[np.ndarray, np.ndarray]:
    """Faces of people of 40 each, every one bridged to the next, so that all are one component."""
    rng = np.random.default_rng(seed)
    sizes = np.full(count // ERA_FACES + 1, ERA_FACES)
    sizes[-1] = count - sizes[:-1].sum()
    faces, person = library_faces(count, seed, dim, sizes[sizes > 0])
    first = np.unique(person, return_index=True)[1]
    for here, following in zip(first[:-1], first[1:], strict=True):
        faces[here] = unit(faces[here] + faces[following])
    del rng
    return faces, person
