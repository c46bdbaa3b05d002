#!/usr/bin/env python3
"""Time and memory of average and identity linkage: against scikit-learn, and against the bare
products of all pairs, to 200,000 faces.

    python tests/bench/bench_cluster.py
    python tests/bench/bench_cluster.py --sizes 5000 --rounds 1 --large 20000 --component 5000
                                                                     # a quick look
    python tests/bench/bench_cluster.py --no-sklearn                 # only the tool itself

Faces are made (synthetic.py), 512-d. Both sides must give the same clusters up to renaming;
otherwise the run stops with exit code 1. Each run has a process of its own, so `MB` is the peak of
the whole process with the input in it; `s` is the clustering alone, the median of --rounds runs in
which the two sides take turns. `ratio` is scikit-learn's seconds over ours: above 1 we are faster.

The lower table is the tool alone. For each input one process computes the bare products (the same
blocks of float32 products of all pairs, a comparison and nothing else), then both linkages; `ratio`
is their seconds over those of the products, `cpu` the same in seconds of CPU, which other work on
the machine changes less. `MB` is the peak of the process so far. Libraries come at the sizes of
--large. The other inputs are one connected component, which no cut by components makes smaller:
people bridged into a chain, a walk without people, and a single person. `largest` is the largest
component at the threshold, `clusters` the result, `F` the pairwise F score against the made truth,
to see that the input is no nonsense.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
from common import machine, median, peak_mb, print_table, run_child, sf
from grouping import Faces, identity
from metrics import pairwise_scores

COMPONENTS = sf.threshold_components
KINDS = {
    "library": synthetic.library_faces,
    "chain": synthetic.chained_faces,
    "drift": synthetic.drifting_faces,
    "person": synthetic.one_person,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[5000, 20000], metavar="N",
                        help="libraries both sides cluster (default: 5000 20000)")  # fmt: skip
    parser.add_argument("--large", type=int, nargs="*", metavar="N",
                        default=[50_000, 100_000, 200_000],
                        help="libraries we cluster alone (50000 100000 200000)")  # fmt: skip
    parser.add_argument("--component", type=int, default=20_000, metavar="N",
                        help="faces of the one-component inputs; 0: none (20000)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side (default: 3)")
    parser.add_argument("--threshold", type=float, default=sf.Thresholds.cluster)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-sklearn", action="store_true", help="leave scikit-learn out")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        side, kind, count, out = args.worker
        job = of_products if side == "products" else work
        print(json.dumps(job(side, kind, int(count), Path(out), args.threshold, args.seed)))
        return 0
    print(machine())
    if args.sizes:
        compare(args)
    alone(args)
    print(machine())
    return 0


def compare(args: argparse.Namespace) -> None:
    """The upper table: both sides at the same sizes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in args.sizes:
            sides = ["average"] if args.no_sklearn else ["average", "sklearn"]
            runs: dict[str, list[dict]] = {side: [] for side in sides}
            for _ in range(args.rounds):
                for side in sides:
                    runs[side].append(child(args, side, "library", count, folder))
            if not args.no_sklearn:
                assert_same(count, *(np.load(f"{folder}/{side}.npy") for side in sides))
            for side in sides:
                rows.append({
                    "by": side, "faces": count, "clusters": runs[side][0]["clusters"],
                    "s": median([run["seconds"] for run in runs[side]]),
                    "MB": median([run["mb"] for run in runs[side]]),
                })  # fmt: skip
            if not args.no_sklearn:
                ours, theirs = rows[-2:]
                ratio, less = theirs["s"] / ours["s"], theirs["MB"] / ours["MB"]
                rows[-2:] = [{**ours, "ratio": None}, {**theirs, "ratio": ratio}]
                print(f"{count} faces: same clusters, {ratio:.1f} x as fast, 1/{less:.1f} memory")
    print_table(f"average linkage, median of {args.rounds}", rows)


def alone(args: argparse.Namespace) -> None:
    """The lower table: what scikit-learn cannot do, beside the bare products."""
    inputs = [("library", count) for count in args.large]
    inputs += [(kind, args.component) for kind in ("chain", "drift", "person") if args.component]
    for kind, count in inputs:
        with tempfile.TemporaryDirectory() as folder:
            found = child(args, "products", kind, count, folder)["rows"]
        bare = found[0]
        rows = [
            {**row, "ratio": row["s"] / bare["s"], "cpu": row["cpu s"] / bare["cpu s"]}
            for row in found
        ]
        print_table(f"{kind}, {count} faces; load {os.getloadavg()[0]:.1f}", rows)


def child(args: argparse.Namespace, side: str, kind: str, count: int, folder: str) -> dict:
    return run_child(
        __file__, "--worker", side, kind, count, folder,
        "--threshold", args.threshold, "--seed", args.seed,
    )  # fmt: skip


def of_products(
    _: str, kind: str, count: int, out: Path, threshold: float, seed: int
) -> dict[str, list[dict]]:
    """Bare products and both linkages of one input, one after the other in this process."""
    faces, person = KINDS[kind](count, seed)
    rows = []
    for name in ("products", "average", "identity"):
        largest: list[int] = []
        cluster = clustering(name, person, threshold, largest)
        cluster(faces[:64])
        del largest[:]
        start, cpu = time.perf_counter(), time.process_time()
        labels = cluster(faces)
        row = {"what": name, "s": time.perf_counter() - start, "cpu s": time.process_time() - cpu}
        row |= {"MB": peak_mb(), "largest": max(largest, default=None)}
        if labels is not None:
            row |= {"clusters": len(np.unique(labels)), "F": pairwise_scores(person, labels).f}
        rows.append({"what": "", "clusters": None, "F": None} | row)
        print(kind, count, name, f"{row['cpu s']:.1f} s of CPU", file=sys.stderr, flush=True)
    return {"rows": rows}


def bare_products(faces: np.ndarray, min_cosine: float) -> None:
    """All that grouping by cosine cannot do without: every pair once, compared."""
    starts = range(0, len(faces), sf.LINK_BLOCK)
    for i, j in itertools.combinations_with_replacement(starts, 2):
        faces[i : i + sf.LINK_BLOCK] @ faces[j : j + sf.LINK_BLOCK].T >= min_cosine  # noqa: B015


def clustering(side: str, person: np.ndarray, threshold: float, largest: list[int]) -> Any:
    """A function of faces that groups them as `side` does; sizes of components go to `largest`."""
    if side == "products":
        return lambda faces: bare_products(faces, 1.0 - threshold)
    if side == "sklearn":
        from sklearn.cluster import AgglomerativeClustering

        return AgglomerativeClustering(
            metric="cosine", linkage="average", distance_threshold=threshold, n_clusters=None
        ).fit_predict
    components = COMPONENTS

    def counted(*given: object) -> np.ndarray:
        labels = components(*given)
        largest.append(int(np.bincount(labels).max()))
        return labels

    sf.threshold_components = counted
    if side == "average":
        return lambda faces: sf.average_linkage(faces, threshold)
    return lambda faces: identity(
        Faces(faces, np.arange(len(faces)), person[: len(faces)], "", "synthetic")
    )


def work(side: str, kind: str, count: int, out: Path, threshold: float, seed: int) -> dict:
    """One clustering in this process; leaves the labels in out/SIDE.npy."""
    faces, person = KINDS[kind](count, seed)
    cluster = clustering(side, person, threshold, [])
    cluster(faces[:64])  # imports and first calls are not what is measured
    start = time.perf_counter()
    labels = cluster(faces)
    seconds, mb = time.perf_counter() - start, peak_mb()
    np.save(out / f"{side}.npy", labels)
    return {"seconds": seconds, "mb": mb, "clusters": len(np.unique(labels))}


def assert_same(count: int, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Stop unless two labellings are one up to renaming."""
    both = len(np.unique(np.stack([ours, theirs]), axis=1).T)
    sizes = len(np.unique(ours)), len(np.unique(theirs))
    if (both, both) != sizes:
        sys.exit(f"{count} faces: the clusters differ ({sizes[0]} and {sizes[1]}, {both} joint)")


if __name__ == "__main__":
    sys.exit(main())
