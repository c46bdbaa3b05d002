#!/usr/bin/env python3
"""Measure the mean and the thresholds of the dlib engine on a labelled library.

    python tests/bench/measure_dlib.py PEOPLE_DIR

PEOPLE_DIR holds one folder per person; the folder's name is the truth and the person is the face
nearest the middle of each photo. Half of the people give the mean vector (DLIB_MEAN in
sort_faces.py); everything else is measured on the other half, which the mean has not seen.
--cluster and --merge say at which distances the later tables group the faces; they default to
what sort_faces.py uses. Raw embeddings are kept in the system's temporary folder, so a second run
takes seconds. What the numbers led to is in docs/analysis/dlib.md.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from metrics import bcubed_scores, mixed_groups, pairwise_scores  # noqa: E402

import sort_faces  # noqa: E402
from sort_faces import (  # noqa: E402
    CONSUMER_DET_SIZES,
    CROP_FACE_IOU,
    CROP_VARIANTS,
    DLIB_THRESHOLDS,
    OUTLIER_MIN_CLUSTER,
    Engine,
    EngineSpec,
    ExportParams,
    average_linkage,
    box_iou,
    centroid,
    crop_square,
    cut_window,
    groups_of,
    merge_by_centroid,
    read_photo,
    same_box_size,
    trim_outliers,
    unit_rows,
)

OUT_SIZE, PAD_RATIO = ExportParams.out_size, ExportParams.pad_ratio

# A face found: box (4,) and raw embedding (128,), or None. A variant makes another form of a photo
# (h, w, 3) and finds the face with this box in it again.
Found = tuple[np.ndarray, np.ndarray] | None
Variant = Callable[[Engine, np.ndarray, np.ndarray], Found]

CACHE_VERSION = 2  # raise when a variant or the choice of the main face changes
DIM = 128  # of dlib_face_recognition_resnet_model_v1
SIZE_CLASSES = (2, 7)  # faces; the sample has people with 1, with 3-6 and with 18-20
COARSE_STEP, FINE_STEP = 0.05, 0.025  # of the cluster sweep
CLUSTER_SWEEP = np.arange(0.25, 0.651, COARSE_STEP)
MERGE_SWEEP = np.arange(0.20, 0.551, 0.05)
OUTLIER_SWEEP = np.arange(0.30, 0.701, 0.05)
CANDIDATE_SWEEP = np.arange(0.30, 0.651, 0.05)
DUPLICATE_SWEEP = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.15)
COPY_SWEEP = (0.03, 0.05, 0.08, 0.10, 0.12, 0.15, 0.20, 0.25, 0.30)
SAME_FACE_SWEEP = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.35, 0.40, 0.45)
PERCENTILES = (1, 5, 50, 95, 99, 99.9)
MIN_IDENTITY = 5  # faces; what an identity needs here before single faces are offered to it
PLANTED = 2  # strangers put into each person for the outlier table, the most alike there are
JPEG_QUALITIES = (90, 75, 50)
SMALLER = 0.7  # of width and height


@dataclass(frozen=True)
class Sample:
    """Main face of every photo: row i is one photo in which a face was found."""

    person: np.ndarray  # (n,) str; folder name
    photo: np.ndarray  # (n,) str; path below PEOPLE_DIR
    bbox: np.ndarray  # (n, 4) float32 pixels
    raw: np.ndarray  # (n, 128) float32 embeddings before centring

    def take(self, rows: np.ndarray) -> Sample:
        return Sample(self.person[rows], self.photo[rows], self.bbox[rows], self.raw[rows])


# ============================================================================
# Embedding
# ============================================================================


def main_face(engine: Engine, image: np.ndarray) -> Found:
    """Box (4,) and raw embedding (128,) of the face nearest the middle; None without a face."""
    found = engine.detect(image)
    if not len(found):
        return None
    middle = (found.bbox[:, :2] + found.bbox[:, 2:]) / 2
    away = np.linalg.norm(middle - np.array(image.shape[1::-1]) / 2, axis=1)
    row = [int(away.argmin())]
    return found.bbox[row][0], engine.embed(image, found.take(row))[0]


def face_at(
    engine: Engine, image: np.ndarray, expected: np.ndarray, det_size: int | None = None
) -> Found:
    """Box and raw embedding of the face found again where it must be; None if it is not."""
    found = engine.detect(image, det_size)
    if not len(found):
        return None
    overlap = box_iou(expected, found.bbox)
    if overlap.max() < CROP_FACE_IOU:
        return None
    row = [int(overlap.argmax())]
    return found.bbox[row][0], engine.embed(image, found.take(row))[0]


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """The picture after a round trip through JPEG."""
    import cv2

    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def reencoded(engine: Engine, image: np.ndarray, bbox: np.ndarray, quality: int) -> Found:
    """The picture saved as JPEG once more."""
    return face_at(engine, jpeg(image, quality), bbox)


def smaller(engine: Engine, image: np.ndarray, bbox: np.ndarray, quality: int) -> Found:
    """The picture at SMALLER of its size, then saved as JPEG."""
    import cv2

    small = cv2.resize(image, None, fx=SMALLER, fy=SMALLER, interpolation=cv2.INTER_AREA)
    return face_at(engine, jpeg(small, quality), bbox * SMALLER)


def mirrored(engine: Engine, image: np.ndarray, bbox: np.ndarray) -> Found:
    """The picture seen in a mirror."""
    width = image.shape[1]
    box = np.array([width - bbox[2], bbox[1], width - bbox[0], bbox[3]], np.float32)
    return face_at(engine, np.ascontiguousarray(image[:, ::-1]), box)


def cropped(
    engine: Engine, image: np.ndarray, bbox: np.ndarray, pad: float, det_size: int
) -> Found:
    """The face in a crop as export-swap cuts it, looked at with a consumer's detector size."""
    x, y, side = crop_square(bbox, (image.shape[1], image.shape[0]), pad)
    crop = cut_window(image, (x, y, side), OUT_SIZE)
    expected = (bbox - np.array([x, y, x, y])) * (OUT_SIZE / side)
    return face_at(engine, crop, expected.astype(np.float32), det_size)


def variants() -> dict[str, Variant]:
    """The ways in which one photo comes back, by the name the tables use."""
    known: dict[str, Variant] = {
        f"jpeg {quality}": partial(reencoded, quality=quality) for quality in JPEG_QUALITIES
    }
    for quality in JPEG_QUALITIES[:2]:
        known[f"{SMALLER:.0%}, jpeg {quality}"] = partial(smaller, quality=quality)
    known["mirror"] = mirrored
    for share in (CROP_VARIANTS[0][0], CROP_VARIANTS[-1][0]):
        pad = PAD_RATIO * share
        for size in CONSUMER_DET_SIZES:
            known[f"crop pad {pad:g} det {size}"] = partial(cropped, pad=pad, det_size=size)
    return known


def photos_of(folder: Path) -> list[Path]:
    """Photos of all people in path order."""
    found = sorted(
        path for path in folder.glob("*/*") if path.suffix.lower() in sort_faces.PHOTO_SUFFIXES
    )
    if not found:
        raise SystemExit(f"{folder}: no photos in sub-folders; name a folder with one per person")
    return found


def cache_path(folder: Path, photos: Sequence[Path]) -> Path:
    """Where the raw embeddings of these photos are kept; other photos give another name."""
    lines = [f"{CACHE_VERSION} {folder.resolve()}", *variants()]
    lines += [f"{path.relative_to(folder)} {path.stat().st_size}" for path in photos]
    key = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"sort_faces-measure_dlib-{key}.npz"


def raw_engine(threads: int) -> Engine:
    """The dlib engine without its mean subtracted."""
    sort_faces.companion("dlib_engine").dlib_mean = lambda: np.zeros(DIM, np.float32)
    return sort_faces.load_engine(EngineSpec(model=sort_faces.DLIB_MODEL), threads)


def embed_photo(engine: Engine, path: Path, with_variants: bool) -> dict[str, np.ndarray] | None:
    """Box, raw embedding and, if asked, (v, 4) boxes and (v, 128) raw embeddings of variants.

    A variant in which the face is not found again is a row of NaN.
    """
    image = read_photo(str(path)).image
    main = main_face(engine, image)
    if main is None:
        return None
    missing = np.full(4, np.nan, np.float32), np.full(DIM, np.nan, np.float32)
    made = variants().values() if with_variants else [None] * len(variants())
    again = [(make(engine, image, main[0]) if make else None) or missing for make in made]
    return {
        "bbox": main[0],
        "raw": main[1],
        "again_bbox": np.stack([box for box, _ in again]),
        "again_raw": np.stack([raw for _, raw in again]),
    }


def embed_all(folder: Path, threads: int) -> dict[str, np.ndarray]:
    """Raw embeddings of every photo, from the cache where there is one; photos that were missed.

    Arrays: photo, person, missed (str); bbox, raw (n, .); again_bbox, again_raw (n, v, .).
    """
    photos = photos_of(folder)
    cache = cache_path(folder, photos)
    if cache.exists():
        print(f"embeddings: {cache} (delete it to measure again)", file=sys.stderr)
        with np.load(cache, allow_pickle=False) as stored:
            return dict(stored)
    engine = raw_engine(threads)
    people = [path.parent.name for path in photos]
    held = set(np.array(people)[~mean_half(people)].tolist())
    jobs = [(path, path.parent.name in held) for path in photos]
    results = sort_faces.ordered_map(lambda job: embed_photo(engine, *job), jobs, threads)
    rows, seen, missed = defaultdict(list), [], []
    for done, (path, result) in enumerate(zip(photos, results, strict=True), 1):
        if done % 50 == 0:
            print(f"embedded {done} of {len(photos)} photos", file=sys.stderr)
        if result is None:
            missed.append(str(path.relative_to(folder)))
            continue
        seen.append(str(path.relative_to(folder)))
        for name, value in result.items():
            rows[name].append(value)
    arrays = {name: np.stack(values) for name, values in rows.items()}
    arrays |= {"photo": np.array(seen), "person": np.array([Path(p).parent.name for p in seen])}
    arrays["missed"] = np.array(missed, dtype=str)
    with sort_faces.writing(cache) as part, open(part, "wb") as stream:
        np.savez(stream, **arrays)
    return arrays


# ============================================================================
# Halves, mean and pairs
# ============================================================================


def mean_half(people: Sequence[str] | np.ndarray) -> np.ndarray:
    """(n,) bool: faces of every other person, by sorted name within each class of size.

    people: (n,) names, one per photo. The rest is the held-back half.
    """
    names, which, counts = np.unique(people, return_inverse=True, return_counts=True)
    chosen = np.zeros(len(names), dtype=bool)
    size_class = np.searchsorted(SIZE_CLASSES, counts, side="right")
    for one in np.unique(size_class):
        chosen[np.flatnonzero(size_class == one)[::2]] = True
    return chosen[which]


def mean_over_people(sample: Sample) -> np.ndarray:
    """(128,) float16 mean of each person's mean, so that a big folder weighs no more."""
    means = [sample.raw[sample.person == name].mean(axis=0) for name in np.unique(sample.person)]
    return np.mean(means, axis=0).astype("<f2")


def pair_cosines(unit: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of all pairs of unit rows (n, d) of one person, and of all pairs of strangers."""
    left, right = np.triu_indices(len(unit), k=1)
    cosine = (unit @ unit.T)[left, right]
    same = person[left] == person[right]
    return cosine[same], cosine[~same]


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


def print_pairs(held: Sample, mean: np.ndarray) -> None:
    """Cosines of pairs before and after centring."""
    rows = []
    for name, vectors in (("raw", held.raw), ("centred", held.raw - mean)):
        split = pair_cosines(unit_rows(vectors), held.person)
        for who, cosine in zip(("same person", "strangers"), split, strict=True):
            spread = [float(value) for value in np.percentile(cosine, PERCENTILES)]
            rows.append([f"{name}, {who}", len(cosine), float(cosine.mean()), *spread])
    head = ["cosine", "pairs", "mean", *(f"{p:g} %" for p in PERCENTILES)]
    print_table("Pairs of held-back main faces: mean and percentiles of the cosine", head, rows)


def grouping_row(person: np.ndarray, labels: np.ndarray) -> list[object]:
    """Scores of one grouping: pairwise P R F, BCubed P R F, groups, groups with several people."""
    return [
        *pairwise_scores(person, labels),
        *bcubed_scores(person, labels),
        len(np.unique(labels)),
        mixed_groups(person, labels),
    ]


GROUPING_HEAD = [
    "pair P",
    "pair R",
    "pair F",
    "BCubed P",
    "BCubed R",
    "BCubed F",
    "groups",
    "mixed",
]


def print_cluster_sweep(title: str, unit: np.ndarray, person: np.ndarray) -> None:
    """Average linkage at every distance of the sweep, finer next to the best BCubed F."""

    def row(distance: float) -> list[object]:
        return [float(distance), *grouping_row(person, average_linkage(unit, float(distance)))]

    rows = [row(distance) for distance in CLUSTER_SWEEP]
    best = max(rows, key=lambda values: values[GROUPING_HEAD.index("BCubed F") + 1])[0]
    rows += [row(best - FINE_STEP), row(best + FINE_STEP)]
    print_table(title, ["cluster", *GROUPING_HEAD], sorted(rows, key=lambda values: values[0]))


def print_merge_sweep(title: str, unit: np.ndarray, person: np.ndarray, cluster: float) -> None:
    """merge_by_centroid after average linkage at `cluster`; the first row is without it."""
    before = average_linkage(unit, cluster)
    rows: list[list[object]] = [["none", *grouping_row(person, before)]]
    for distance in MERGE_SWEEP:
        labels = merge_by_centroid(unit, before, float(distance))
        rows.append([float(distance), *grouping_row(person, labels)])
    print_table(title, ["merge", *GROUPING_HEAD], rows)


def merged_groups(
    unit: np.ndarray, person: np.ndarray, cluster: float, merge: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Groups as refine makes them: (rows, which of them are not the group's main person)."""
    labels = merge_by_centroid(unit, average_linkage(unit, cluster), merge)
    groups = []
    for rows in groups_of(labels):
        names, counts = np.unique(person[rows], return_counts=True)
        groups.append((rows, person[rows] != names[counts.argmax()]))
    return [group for group in groups if len(group[0]) >= OUTLIER_MIN_CLUSTER]


def planted_groups(unit: np.ndarray, person: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each person's own faces with the PLANTED strangers nearest to their centroid among them."""
    groups = []
    for name in np.unique(person):
        own = np.flatnonzero(person == name)
        if len(own) < OUTLIER_MIN_CLUSTER:
            continue
        closeness = np.where(person == name, -np.inf, unit @ centroid(unit[own]))
        strangers = np.argsort(-closeness)[:PLANTED]
        groups.append((np.r_[own, strangers], np.arange(len(own) + PLANTED) >= len(own)))
    return groups


def print_outlier_sweep(
    title: str, unit: np.ndarray, groups: Sequence[tuple[np.ndarray, np.ndarray]]
) -> None:
    """Share of wrong faces that trim_outliers takes out, and of right ones that go with them."""
    wrong = sum(int(bad.sum()) for _, bad in groups)
    right = sum(len(rows) for rows, _ in groups) - wrong
    table = []
    for distance in OUTLIER_SWEEP:
        kept = [np.isin(rows, trim_outliers(unit, rows, float(distance))) for rows, _ in groups]
        out = sum(int((bad & ~keep).sum()) for (_, bad), keep in zip(groups, kept, strict=True))
        lost = sum(int((~bad & ~keep).sum()) for (_, bad), keep in zip(groups, kept, strict=True))
        table.append([float(distance), f"{out}/{wrong}", f"{lost}/{right}", lost / right])
    head = ["outlier", "wrong faces removed", "right faces lost", "share lost"]
    print_table(title, head, table)


def nearest_identity(unit: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest identity of at least MIN_IDENTITY faces for every face, itself left out of it.

    Returns the identity's name (n,) and the distance to its centroid (n,).
    """
    names, counts = np.unique(person, return_counts=True)
    names = names[counts >= MIN_IDENTITY]
    sums = np.stack([unit[person == name].sum(axis=0) for name in names])  # (k, d)
    own = person[:, None] == names[None]  # (n, k)
    others = sums[None] - np.where(own[..., None], unit[:, None], 0.0)  # (n, k, d)
    others /= np.linalg.norm(others, axis=2, keepdims=True)
    distance = 1.0 - np.einsum("nkd,nd->nk", others, unit)
    return names[distance.argmin(axis=1)], distance.min(axis=1)


def print_candidate_sweep(title: str, unit: np.ndarray, person: np.ndarray) -> None:
    """Single faces against the identities: faces that have one, and faces that have none."""
    name, distance = nearest_identity(unit, person)
    sizes = dict(zip(*np.unique(person, return_counts=True), strict=True))
    has_one = np.array([sizes[who] >= MIN_IDENTITY for who in person])
    correct = name == person
    rows = []
    for limit in CANDIDATE_SWEEP:
        near = distance <= limit
        right, wrong = near & has_one & correct, near & has_one & ~correct
        stranger = near & ~has_one
        rows.append(
            [float(limit), f"{right.sum()}/{has_one.sum()}", f"{wrong.sum()}/{has_one.sum()}",
             f"{stranger.sum()}/{(~has_one).sum()}",
             float(right.sum() / max(1, near.sum()))]
        )  # fmt: skip
    head = ["candidate", "to the right identity", "to a wrong one", "strangers taken in",
            "right among taken"]  # fmt: skip
    print_table(title, head, rows)


def again_distances(held: Sample, again_raw: np.ndarray, mean: np.ndarray) -> dict[str, np.ndarray]:
    """Cosine distance of every held-back face to each of its variants, NaN if not found again."""
    unit, distances = unit_rows(held.raw - mean), {}
    for at, name in enumerate(variants()):
        found = np.isfinite(again_raw[:, at]).all(axis=1)  # unit_rows would make NaN a zero row
        again = unit_rows(np.where(found[:, None], again_raw[:, at], 0.0) - mean)
        distances[name] = np.where(found, 1.0 - np.einsum("nd,nd->n", unit, again), np.nan)
    return distances


def print_again(held: Sample, again_bbox: np.ndarray, distances: dict[str, np.ndarray]) -> None:
    """How far one face moves when its photo comes back in another form."""
    rows = []
    for at, (name, distance) in enumerate(distances.items()):
        found = np.isfinite(distance)
        scale = SMALLER if name.startswith(f"{SMALLER:.0%}") else 1.0
        alike = same_box_size(held.bbox[found] * scale, again_bbox[found, at])
        sizes = f"{alike.mean():.3f}" if not name.startswith("crop") else "-"
        spread = [float(value) for value in np.percentile(distance[found], (50, 95, 99, 100))]
        rows.append([name, f"{found.sum()}/{len(found)}", *spread, sizes])
    head = ["the same face in", "found again", "50 %", "95 %", "99 %", "max", "box size agrees"]
    print_table("Distance of a face to itself in another form of its photo", head, rows)


def print_limit_sweep(
    title: str, limits: Sequence[float], wanted: dict[str, np.ndarray], held: Sample,
    mean: np.ndarray,
) -> None:  # fmt: skip
    """Share of each form under a limit, against pairs of different photos under it."""
    same, strangers = pair_cosines(unit_rows(held.raw - mean), held.person)
    rows = []
    for limit in limits:
        under = [float((d[np.isfinite(d)] <= limit).mean()) for d in wanted.values()]
        rows.append(
            [f"{limit:g}", *under, f"{(1 - same <= limit).sum()}/{len(same)}",
             f"{(1 - strangers <= limit).sum()}/{len(strangers)}"]
        )  # fmt: skip
    print_table(title, ["limit", *wanted, "same person, other photo", "strangers"], rows)


def print_closest(title: str, held: Sample, mean: np.ndarray, same: bool, count: int = 12) -> None:
    """The closest pairs of photos of one person or of strangers, to be looked at by eye."""
    unit = unit_rows(held.raw - mean)
    left, right = np.triu_indices(len(unit), k=1)
    wanted = (held.person[left] == held.person[right]) == same
    left, right = left[wanted], right[wanted]
    distance = 1.0 - np.einsum("nd,nd->n", unit[left], unit[right])
    order = np.argsort(distance)[:count]
    rows = [(float(distance[at]), held.photo[left[at]], held.photo[right[at]]) for at in order]
    print_table(title, ["distance", "photo", "photo"], rows)


# ============================================================================
# Entry point
# ============================================================================


def print_grouping_tables(
    everyone: Sample, held: Sample, mean: np.ndarray, args: argparse.Namespace
) -> None:
    """Everything that groups faces: cluster, merge, outlier and candidate."""
    unit, person = unit_rows(held.raw - mean), held.person
    all_unit = unit_rows(everyone.raw - mean)
    half = f"held-back half ({len(unit)} faces)"
    both = f"both halves ({len(all_unit)} faces; the mean knows half of them)"
    print_cluster_sweep(f"Average linkage, {half}", unit, person)
    print_cluster_sweep(f"Average linkage, {both}", all_unit, everyone.person)
    step = f"merge_by_centroid after average linkage at {args.cluster:g}"
    print_merge_sweep(f"{step}, {half}", unit, person, args.cluster)
    print_merge_sweep(f"{step}, {both}", all_unit, everyone.person, args.cluster)
    where = f"cluster {args.cluster:g}, merge {args.merge:g}"
    for vectors, names, which in ((unit, person, half), (all_unit, everyone.person, both)):
        groups = merged_groups(vectors, names, args.cluster, args.merge)
        title = f"trim_outliers on the {len(groups)} groups of {OUTLIER_MIN_CLUSTER} faces and more"
        print_outlier_sweep(f"{title}, {where}, {which}", vectors, groups)
    planted = planted_groups(unit, person)
    print_outlier_sweep(
        f"trim_outliers on the {len(planted)} people of {OUTLIER_MIN_CLUSTER} faces and more, "
        f"each with the {PLANTED} strangers most like them planted", unit, planted,
    )  # fmt: skip
    step = f"Single faces against identities of {MIN_IDENTITY} faces and more"
    print_candidate_sweep(f"{step}, {half}", unit, person)
    print_candidate_sweep(f"{step}, {both}", all_unit, everyone.person)


def print_single_face_tables(
    held: Sample, again_bbox: np.ndarray, again_raw: np.ndarray, mean: np.ndarray
) -> None:
    """Everything about one face seen twice: duplicate, copy and same_face."""
    distances = again_distances(held, again_raw, mean)
    print_again(held, again_bbox, distances)

    def some(*starts: str) -> dict[str, np.ndarray]:
        return {name: d for name, d in distances.items() if name.startswith(starts)}

    copies = some("jpeg", f"{SMALLER:.0%}")
    print_limit_sweep("duplicate: share under a limit", DUPLICATE_SWEEP, copies, held, mean)
    print_closest("Closest photos of one person", held, mean, same=True)
    print_closest("Closest strangers", held, mean, same=False)
    print_limit_sweep("copy: share under a limit", COPY_SWEEP, some("mirror"), held, mean)
    print_limit_sweep("same_face: share under a limit", SAME_FACE_SWEEP, some("crop"), held, mean)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("people", type=Path, metavar="PEOPLE_DIR", help="one folder per person")
    parser.add_argument("--cluster", type=float, default=DLIB_THRESHOLDS.cluster, metavar="COS")
    parser.add_argument("--merge", type=float, default=DLIB_THRESHOLDS.merge, metavar="COS")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    stored = embed_all(args.people, args.threads)
    everyone = Sample(*(stored[name] for name in ("person", "photo", "bbox", "raw")))
    people = [path.parent.name for path in photos_of(args.people)]
    in_mean = set(np.array(people)[mean_half(people)].tolist())
    known = np.array([name in in_mean for name in everyone.person])
    held = everyone.take(np.flatnonzero(~known))
    half_mean = mean_over_people(everyone.take(np.flatnonzero(known)))
    print(f"photos: {len(people)}, main face found in {len(everyone.raw)}, "
          f"none in: {' '.join(stored['missed'].tolist()) or '-'}")  # fmt: skip
    print(f"mean from {len(in_mean)} people, {known.sum()} faces; held back "
          f"{len(np.unique(held.person))} people, {len(held.raw)} faces")  # fmt: skip
    print(f"\nDLIB_MEAN = {base64.b64encode(half_mean.tobytes()).decode()}")
    mean = half_mean.astype(np.float32)
    print_pairs(held, mean)
    print_grouping_tables(everyone, held, mean, args)
    print_single_face_tables(held, stored["again_bbox"][~known], stored["again_raw"][~known], mean)
    return 0


if __name__ == "__main__":
    sys.exit(main())
