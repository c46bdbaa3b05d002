#!/usr/bin/env python3
"""Who is who: ways of grouping faces against the truth.

    python tests/bench/grouping.py                    # embeddings of ../shared/data/embeddings
    python tests/bench/grouping.py --tune             # how the constants were looked for, an hour

The people of half.npz are split in two by a hash of their number: constants were chosen by
looking at `choose` alone, `report` has only ever been counted. Bystanders (person -1) are in the
library and in nobody's score. `pair` P and R count pairs, `b3` is BCubed, `mixed` is how many
groups hold more than one person, `nobody` the pairs of bystanders put together, of whom few can be
right. bench_people.py prints the same table for the photos of people/.

--tune prints, on `choose`: each term left out, made half and twice as strong; libraries of few
people; the embeddings seen through fewer dimensions, as a weaker recogniser would, and with more
that tell people apart, as a stronger one would: there, too, the constants must beat average
linkage.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from common import SHARED, machine, print_table, sf
from metrics import bcubed_scores, mixed_groups, pairwise_scores

MINI = "0c845ee43af10c1e"  # the recogniser of the embeddings
STRANGERS = -1


@dataclass(frozen=True)
class Faces:
    """Faces whose owners are known, those with person -1 excepted."""

    embedding: np.ndarray  # (n, d) float32 as the model gave them
    photo: np.ndarray  # (n,) int
    person: np.ndarray  # (n,) int
    recognizer: str = MINI
    model: str = "mini"

    @property
    def unit(self) -> np.ndarray:
        return sf.unit_rows(self.embedding)

    @property
    def limits(self) -> sf.Thresholds:
        return sf.thresholds_for(self.model)

    def take(self, rows: np.ndarray) -> Faces:
        return replace(
            self, embedding=self.embedding[rows], photo=self.photo[rows], person=self.person[rows]
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--npz", type=Path, metavar="FILE",
                        default=SHARED / "data" / "embeddings" / "half.npz")  # fmt: skip
    parser.add_argument("--tune", action="store_true", help="what the constants rest on")
    args = parser.parse_args()
    print(machine())
    faces = read_faces(args.npz)
    choose = is_choosing(faces.person)
    if args.tune:
        tune(faces, choose)
        return 0
    known = faces.person != STRANGERS
    results = dict(methods(faces))
    for name, mask in (("all", known), ("choose", known & choose), ("report", known & ~choose)):
        rows = [scored(way, faces, labels, mask) for way, labels in results.items()]
        print_table(f"half.npz, people of {name}: {mask.sum()} faces", rows)
    print_table("half.npz, libraries of few people, means of 30", few_people(faces))
    return 0


def read_faces(path: Path) -> Faces:
    with np.load(path) as data:
        person = data["person"].astype(int)
        return Faces(data["embedding"].astype(np.float32), data["photo"].astype(int), person)


def is_choosing(person: np.ndarray) -> np.ndarray:
    """(n,) bool: the half of the people that constants may be chosen on."""
    return (person * 2654435761 % 2**32 // 2**16) % 2 == 0


def scored(name: str, faces: Faces, labels: np.ndarray, mask: np.ndarray) -> dict:
    nobody = np.bincount(labels[faces.person == STRANGERS])
    person, labels = faces.person[mask], labels[mask]
    pair, b3 = pairwise_scores(person, labels), bcubed_scores(person, labels)
    return {"method": name, "pair P": f"{pair.precision:.4f}", "pair R": f"{pair.recall:.4f}",
            "b3 P": f"{b3.precision:.4f}", "b3 R": f"{b3.recall:.4f}", "b3 F": f"{b3.f:.4f}",
            "mixed": mixed_groups(person, labels),
            "nobody": int((nobody * (nobody - 1) // 2).sum())}  # fmt: skip


def methods(faces: Faces) -> Iterator[tuple[str, np.ndarray]]:
    """Every way of grouping: its name and labels (n,)."""
    unit, limits = faces.unit, faces.limits
    rough = sf.average_linkage(unit, limits.cluster)
    yield f"average {limits.cluster:.2f}", rough
    stricter = sf.average_linkage(unit, limits.cluster - 0.05)
    yield f"average {limits.cluster - 0.05:.2f}", stricter
    looser = sf.average_linkage(unit, limits.cluster + 0.05)
    yield f"average {limits.cluster + 0.05:.2f}", looser
    yield f"+ centroids {limits.merge:.2f}", sf.merge_by_centroid(unit, rough, limits.merge)
    if faces.model != sf.DLIB_MODEL:
        yield "average .50 + centroids .48", sf.merge_by_centroid(unit, stricter, 0.48)
    yield from of_libraries(unit, limits.cluster - 0.05)
    yield "identity", identity(faces)


def of_libraries(unit: np.ndarray, distance: float) -> Iterator[tuple[str, np.ndarray]]:
    """What other tools group by."""
    from dlib import chinese_whispers
    from sklearn.cluster import DBSCAN, HDBSCAN

    left, right = np.nonzero(np.triu(unit @ unit.T >= 1.0 - distance))  # each with itself, too
    pairs = zip(left.tolist(), right.tolist(), strict=True)
    yield f"Chinese Whispers {distance:.2f}", np.array(chinese_whispers(list(pairs)))
    for name, model in (
        (f"DBSCAN {distance:.2f}, 3", DBSCAN(eps=distance, min_samples=3, metric="cosine")),
        ("HDBSCAN, 2", HDBSCAN(min_cluster_size=2, copy=True)),
    ):
        labels = model.fit_predict(unit)
        alone = labels < 0
        labels[alone] = labels.max() + 1 + np.arange(alone.sum())
        yield name, labels


def identity(faces: Faces) -> np.ndarray:
    """Labels by identity linkage as the tool does it, but with recognisers of any separation."""
    unit, length, limits = faces.unit, np.linalg.norm(faces.embedding, axis=1), faces.limits
    how = sf.Linkage("identity", limits.cluster, limits.merge, limits.copy, 0.0)
    start = sf.start_of(unit, how, ())
    measured = sf.figures_of(unit, length, start.rough, limits.copy)
    figures = sf.fitting_figures(measured, faces.recognizer)[0] or measured
    if not figures.reach:  # nobody to compare with
        return start.rough
    apart = sf.one_photo_pairs(unit, faces.photo, limits.copy)
    return sf.identity_linkage(unit, length, start, apart, figures)


# ---------------------------------------------------------------------------- the constants

TERMS = ("SIZE_COST", "CROWDING_COST", "USUAL_CROWDING", "WEAKNESS_CREDIT", "REACH_NEEDED",
         "SPREADS_NEEDED", "CROWD")  # fmt: skip


@contextlib.contextmanager
def changed(**constants: float) -> Iterator[None]:
    own = {name: getattr(sf, name) for name in constants}
    vars(sf).update(constants)
    try:
        yield
    finally:
        vars(sf).update(own)


def tune(faces: Faces, choose: np.ndarray) -> None:
    rows = []
    mask = (faces.person != STRANGERS) & choose
    libraries = list(small_libraries(faces, choose))
    for name, constants in variants():
        with changed(**constants):
            row = scored(name, faces, identity(faces), mask)
            for count, parts in libraries:
                found = [
                    scored("", part, identity(part), part.person != STRANGERS) for part in parts
                ]
                for key in ("pair P", "b3 F"):
                    mean = np.mean([float(one[key]) for one in found])
                    row[f"{count}: {key}"] = f"{mean:.4f}"
        rows.append(row)
        print(".", end="", file=sys.stderr, flush=True)
    print_table("half.npz, choose; and libraries of 30, 100, 300 of these people", rows)
    rows = []
    for name, other in recognisers(faces):
        figures = sf.figures_of(other.unit, np.ones(len(other.unit)),
                                sf.average_linkage(other.unit, other.limits.cluster))  # fmt: skip
        average = max(
            (scored("", other, sf.average_linkage(other.unit, at), mask)
             for at in np.arange(0.30, 0.66, 0.05)),
            key=lambda row: float(row["b3 F"]),
        )  # fmt: skip
        ours = scored("", other, identity(other), mask)
        rows.append({"recogniser": name, "spread": f"{figures.spread:.3f}",
                     "reach / spread": f"{figures.reach / figures.spread:.2f}",
                     "best average P": average["pair P"], "F": average["b3 F"],
                     "identity P": ours["pair P"], "F ": ours["b3 F"]})  # fmt: skip
    print_table("half.npz, choose, as other recognisers might see it", rows)


def variants() -> Iterator[tuple[str, dict[str, float]]]:
    yield "as it is", {}
    for term in ("SIZE_COST", "CROWDING_COST", "WEAKNESS_CREDIT", "WEAK_PAIR_COST"):
        for factor in (0.0, 0.5, 2.0):
            yield f"{term} x {factor:g}", {term: getattr(sf, term) * factor}
    for term, step in (("REACH_NEEDED", 0.04), ("USUAL_CROWDING", 0.05), ("EMPTIEST", 0.1)):
        for sign in (-1, 1):
            yield f"{term} {sign * step:+g}", {term: getattr(sf, term) + sign * step}
    yield "CROWD 50", {"CROWD": 50}


def small_libraries(faces: Faces, choose: np.ndarray) -> Iterator[tuple[int, list[Faces]]]:
    """Five libraries each of 30, 100, 300 people."""
    rng = np.random.default_rng(11)
    people = np.unique(faces.person[choose & (faces.person != STRANGERS)])
    for count in (30, 100, 300):
        yield count, [drawn(faces, rng.choice(people, count, replace=False)) for _ in range(5)]


def drawn(faces: Faces, people: np.ndarray) -> Faces:
    """All photos of these people; who else is in them is nobody."""
    part = faces.take(np.isin(faces.photo, faces.photo[np.isin(faces.person, people)]))
    return replace(part, person=np.where(np.isin(part.person, people), part.person, STRANGERS))


def few_people(faces: Faces, draws: int = 30) -> list[dict]:
    """Average and identity linkage in libraries of few people drawn from these, a row a size."""
    rng, rows = np.random.default_rng(21), []
    people = np.unique(faces.person[faces.person != STRANGERS])
    for count in (3, 5, 10, 20, 60):
        row = {"people": count}
        parts = [drawn(faces, rng.choice(people, count, replace=False)) for _ in range(draws)]
        for name, group in (
            ("average", lambda part: sf.average_linkage(part.unit, part.limits.cluster)),
            ("identity", identity),
        ):
            found = [scored("", part, group(part), part.person != STRANGERS) for part in parts]
            for key in ("b3 P", "b3 F"):
                row[f"{name} {key}"] = f"{np.mean([float(one[key]) for one in found]):.4f}"
        rows.append(row)
    return rows


def recognisers(faces: Faces) -> Iterator[tuple[str, Faces]]:
    """The same faces as weaker and as stronger recognisers might see them."""
    rng = np.random.default_rng(5)
    yield "mini", faces
    for dim in (96, 64, 40, 28):
        basis = np.linalg.qr(rng.normal(size=(faces.embedding.shape[1], dim)))[0]
        seen = faces.embedding @ basis.astype(np.float32)
        yield f"through {dim} dimensions", replace(faces, embedding=seen, recognizer="weaker")
    code = sf.unit_rows(rng.normal(size=(faces.person.max() + 2, 384)))[faces.person]
    nobody = faces.person == STRANGERS
    code[nobody] = sf.unit_rows(rng.normal(size=(nobody.sum(), 384)))
    code = code + rng.normal(size=code.shape) * 0.8 / np.sqrt(384)
    length = np.linalg.norm(faces.embedding, axis=1, keepdims=True)
    for share in (0.5, 0.8):
        both = np.hstack([faces.unit, share * code]).astype(np.float32)
        stronger = sf.unit_rows(both) * length
        yield f"with {share:g} of a code", replace(faces, embedding=stronger, recognizer="stronger")


if __name__ == "__main__":
    sys.exit(main())
