"""Made face embeddings shaped like a photo library, for the benchmarks.

    library_faces(count, seed)   identities of power-law size, several eras each, bridging faces
    chained_faces(count, seed)   identities of equal size bridged into one component
    drifting_faces(count, seed)  one long walk: every face near the last, none near the first
    one_person(count, seed)      a single identity, the costly case for average linkage

The weights follow what ArcFace-like models give on labelled photos: good faces of one person have
a cosine of about 0.72 within an era and 0.52 across eras, poor ones less, strangers 0 +- 0.05.
"""

from __future__ import annotations

import itertools

import numpy as np

DIM = 512
LARGEST_SHARE = 0.08  # of a library's faces: its owner
POWER = 1.1  # of the identity sizes: P(size > s) ~ s^-POWER, many singles and a few hundreds
ERA_FACES = 40  # faces of one person per era, about
COS_IDENTITY = 0.52  # two good faces of one person in different eras
COS_ERA = 0.72  # in the same era
POOR_SHARE = 0.15  # of the faces: profiles, blur; their own noise is POOR_NOISE times as strong
POOR_NOISE = (1.3, 2.5)
BRIDGE_SHARE = 0.002  # of the faces: half one person, half another
DRIFT_COS = 0.85  # of one face of a walk and the next


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

    A face is its identity plus its era plus noise of its own; some are poor, and a few lie between
    two people (a blend, a child that looks like a parent, a look-alike).
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
    poor = rng.random(count) < POOR_SHARE
    noise[poor, 0] *= rng.uniform(*POOR_NOISE, np.count_nonzero(poor))
    faces = unit(centres + noise * directions(rng, count, dim))
    bridges = np.flatnonzero(rng.random(count) < BRIDGE_SHARE)
    others = rng.integers(0, count, len(bridges))
    faces[bridges] = unit(faces[bridges] + faces[others])
    order = rng.permutation(count)
    return np.ascontiguousarray(faces[order], np.float32), person[order]


def chained_faces(count: int, seed: int, dim: int = DIM) -> tuple[np.ndarray, np.ndarray]:
    """As library_faces, but people of ERA_FACES faces each, one face of each bridged to the next.

    Almost all faces are one connected component at the cluster threshold, yet hundreds of people.
    """
    sizes = np.full(-(-count // ERA_FACES), ERA_FACES)
    sizes[-1] -= sizes.sum() - count
    faces, person = library_faces(count, seed, dim, sizes)
    first = np.unique(person, return_index=True)[1]
    for here, following in itertools.pairwise(first):
        faces[here] = unit(faces[here] + faces[following])
    return faces, person


def drifting_faces(count: int, seed: int, dim: int = DIM) -> tuple[np.ndarray, np.ndarray]:
    """A random walk on the sphere with cosine DRIFT_COS per step; "person" is every 40th step."""
    rng = np.random.default_rng(seed)
    faces = directions(rng, count, dim)
    keep, turn = np.sqrt([DRIFT_COS**2, 1.0 - DRIFT_COS**2]).astype(np.float32)
    for at in range(1, count):
        faces[at] = unit(keep * faces[at - 1] + turn * faces[at])
    order = rng.permutation(count)
    return faces[order], np.arange(count)[order] // ERA_FACES


def one_person(count: int, seed: int, dim: int = DIM) -> tuple[np.ndarray, np.ndarray]:
    """One identity in one era of good faces: cosines of COS_IDENTITY, give or take 0.04."""
    rng = np.random.default_rng(seed)
    weights = np.sqrt([COS_IDENTITY, 1.0 - COS_IDENTITY]).astype(np.float32)
    faces = weights[0] * directions(rng, 1, dim) + weights[1] * directions(rng, count, dim)
    return unit(faces), np.zeros(count, int)
