#!/usr/bin/env python3
"""Which measure of quality tells the faces that are hard to recognise: error versus discard.

    python sort_faces.py embed PEOPLE_DIR lib.npz [--model ...]
    python sort_faces.py enrich lib.npz --quality-model FILE.onnx      # for the learned row
    python tests/bench/measure_quality.py lib.npz [half.npz ...] [--other other.npz]

A library is a cache (one folder per person, its name is the truth; of each photo the largest
face), or an .npz of raw embeddings with `embedding person det_score face_short blur kps`, person
-1 for bystanders, who are left out. All pairs of faces are compared; of a person at most --most
faces are taken, by chance, or the pairs of a few famous ones would be all there is.

The threshold is the cosine that a share --fmr of all pairs of strangers passes; the error is the
share of a person's own pairs below it (false non-match rate, FNMR). Then the worst faces by each
measure are discarded, and the error of the pairs left is told at the same threshold: the faster it
falls, the better the measure. `area` is the mean of that curve from 0 to 30 % discarded relative to
its start: 1 says nothing, 0 all. `+-` is its standard error over draws of half of the people.
`random` is the mean of random orders; `best` discards the faces that fail most, with the truth.

A recogniser's own length knows its own weaknesses. --other is a cache of the same photos by
another recogniser: the length of its embeddings is a measure that has seen none of the errors.

Method: Grother and Tabassi, Performance of biometric quality measures, IEEE TPAMI 2007;
ISO/IEC 29794-1 (error versus discard characteristic). A pair is as good as its worse face.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import machine, print_table, sf

SHARES = (0.0, 0.05, 0.10, 0.20, 0.30, 0.50)  # of faces discarded, shown
CURVE = np.arange(0.0, 0.301, 0.01)  # of faces discarded, for the area
DRAWS = 20  # of half of the people, and of the order `random`
MADE_SIDE = 250  # px; LFW's pictures, from which the bare archive here comes; for the pose


class Faces:
    """Labelled faces, their quality by each measure and all their pairs."""

    def __init__(self, path: Path, most: int, other: Path | None = None) -> None:
        with np.load(path, allow_pickle=False) as archive:
            bare = "person" in archive.files
            found = {name: archive[name] for name in archive.files} if bare else {}
        cache, person = made_cache(found) if bare else (sf.load_cache(path), None)
        rows = np.flatnonzero(person >= 0) if bare else main_rows(cache)
        if person is None:
            names = [Path(cache.file_path[file]).parent.name for file in cache.face_file]
            person = np.unique(names, return_inverse=True)[1]
        mixed = np.random.default_rng(0).permutation(rows)
        groups = sf.groups_of(person[mixed])
        rows = np.sort(np.concatenate([mixed[group[:most]] for group in groups]))
        self.name, self.person, self.unit = path.stem, person[rows], cache.unit[rows]
        terms = sf.cached_quality_terms(cache)
        made = {
            "det score": cache.det_score,
            "Laplacian": cache.blur,
            "face size": cache.face_short,
            "frontality": terms[:, sf.QUALITY_TERMS.index("frontality")],
            "symmetry": terms[:, sf.QUALITY_TERMS.index("landmark_symmetry")],
            "composite": sf.composite_quality(terms, sf.QualityWeights()),
            "composite + length": sf.composite_quality(
                terms, sf.QualityWeights(embedding_length=1.0)
            ),
            "embedding length": np.linalg.norm(cache.embedding, axis=1),
        }
        if other is not None and not bare:
            made["length by the other"] = lengths_by(sf.load_cache(other), cache)
        if np.isfinite(cache.learned_quality[rows]).all():
            made["learned quality"] = cache.learned_quality
        self.quality = {name: values[rows].astype(np.float64) for name, values in made.items()}


def lengths_by(other: sf.FaceCache, cache: sf.FaceCache) -> np.ndarray:
    """Length of the embedding another recogniser gave the main face of the same photo, or 0."""
    main = main_rows(other)
    photos = other.file_sha256[other.face_file[main]].tolist()
    length = dict(zip(photos, np.linalg.norm(other.embedding[main], axis=1).tolist(), strict=True))
    return np.array([length.get(sha, 0.0) for sha in cache.file_sha256[cache.face_file].tolist()])


def main_rows(cache: sf.FaceCache) -> np.ndarray:
    """The largest face of each photo."""
    order = np.lexsort((-cache.face_short, cache.face_file))
    return order[np.unique(cache.face_file[order], return_index=True)[1]]


def made_cache(found: dict[str, np.ndarray]) -> tuple[sf.FaceCache, np.ndarray]:
    """(a cache without files around bare embeddings, person of each face)."""
    count, dim = found["embedding"].shape
    meta = sf.CacheMeta(schema=1, model="bare", recognizer="bare", dim=dim, det_size=0,
                        det_threshold=0, roots=[])  # fmt: skip
    wanted = {"n": count, "f": count, "a": 0}
    arrays = {name: about.filled(wanted[about.rows], dim) for name, about in sf.COLUMNS.items()}
    arrays |= {name: found[name].astype(np.float32)
               for name in ("embedding", "det_score", "face_short", "blur", "kps")}  # fmt: skip
    arrays["face_file"] = np.arange(count, dtype=np.int32)
    arrays["file_wh"] = np.full((count, 2), MADE_SIDE, np.int32)
    return sf.FaceCache(meta, **arrays), found["person"].astype(int)


def pairs(unit: np.ndarray, person: np.ndarray, fmr: float) -> tuple[np.ndarray, np.ndarray, float]:
    """(pairs of one person (m, 2), their cosines (m,), cosine that a share fmr of strangers pass).

    The cosines of strangers are counted in 200,000 bins, not held.
    """
    same, cosines, histogram = [], [], np.zeros(200_001, np.int64)
    for at in range(0, len(unit), 512):
        block = unit[at : at + 512] @ unit.T  # (512, n)
        own = person[at : at + 512, None] == person[None, :]
        later = np.arange(len(unit))[None, :] > np.arange(at, at + len(block))[:, None]
        first, second = np.nonzero(own & later)
        same.append(np.column_stack([first + at, second]))
        cosines.append(block[first, second])
        other = block[~own & later]
        histogram += np.bincount(
            np.clip((other + 1) * 100_000, 0, 200_000).astype(int), minlength=200_001
        )
    passing = histogram[::-1].cumsum()[::-1] / histogram.sum()
    threshold = np.searchsorted(-passing, -fmr) / 100_000 - 1
    return np.concatenate(same), np.concatenate(cosines), float(threshold)


def curve(
    pair: np.ndarray, failed: np.ndarray, quality: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """FNMR of the pairs left when a share of faces, the worst, is discarded: (len(shares),).

    pair (m, 2) rows, failed (m,) bool, quality (n,). NaN where no pair is left.
    """
    place = np.empty(len(quality))
    place[np.argsort(quality, kind="stable")] = np.arange(len(quality)) / len(quality)
    worse = place[pair].min(axis=1)  # (m,)
    left = [worse >= share for share in shares]
    return np.array([failed[some].mean() if some.any() else np.nan for some in left])


def area(values: np.ndarray) -> float:
    """Mean of a curve relative to its start."""
    return float(np.nanmean(values) / values[0]) if values[0] else float("nan")


def failures(pair: np.ndarray, failed: np.ndarray, count: int) -> np.ndarray:
    """Minus the share of each face's own pairs that fail: the quality that knows the truth."""
    of = np.bincount(pair.ravel(), minlength=count)
    bad = np.bincount(pair[failed].ravel(), minlength=count)
    return -bad / np.maximum(of, 1)


def measure(faces: Faces, fmr: float) -> None:
    """Print the table of one library."""
    pair, cosine, threshold = pairs(faces.unit, faces.person, fmr)
    failed, count = cosine < threshold, len(faces.person)
    owners = faces.person[pair[:, 0]]
    quality = dict(faces.quality)
    quality["best (knows the truth)"] = failures(pair, failed, count)
    print(f"\n{faces.name}: {count} faces, {len(np.unique(faces.person))} people, {len(pair)} own"
          f" pairs of {len(np.unique(owners))} people, threshold {threshold:.3f}")  # fmt: skip
    rng = np.random.default_rng(0)
    orders = [rng.random(count) for _ in range(DRAWS)]
    people = np.unique(owners)
    halves = [np.isin(owners, rng.permutation(people)[: len(people) // 2]) for _ in range(DRAWS)]
    rows = [
        row_of(
            "random",
            lambda some, shares: np.mean(
                [curve(pair[some], failed[some], order, shares) for order in orders], axis=0
            ),
            halves,
        )
    ]
    rows += [
        row_of(name, lambda some, shares, own=own: curve(pair[some], failed[some], own, shares),
               halves)
        for name, own in quality.items()
    ]  # fmt: skip
    print_table("FNMR % by the share of faces discarded, and the area", rows)


def row_of(name: str, of: Callable, halves: list[np.ndarray]) -> dict[str, object]:
    """A line of the table. of: (pairs taken, shares) -> curve."""
    every = np.ones(len(halves[0]), bool)
    shown = {f"{share:.0%}": 100 * float(value)
             for share, value in zip(SHARES, of(every, np.array(SHARES)), strict=True)}  # fmt: skip
    spread = np.nanstd([area(of(half, CURVE)) for half in halves]) if name != "random" else None
    return {"measure": name, **shown, "area": area(of(every, CURVE)), "+-": spread}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("libraries", type=Path, nargs="+", metavar="NPZ")
    parser.add_argument("--fmr", type=float, default=1e-3, help="share of strangers that pass")
    parser.add_argument("--other", type=Path, metavar="NPZ", help="the same by another recogniser")
    parser.add_argument("--most", type=int, default=30, help="faces of one person")
    args = parser.parse_args()
    print(machine())
    for path in args.libraries:
        measure(Faces(path, args.most, args.other), args.fmr)


if __name__ == "__main__":
    main()
