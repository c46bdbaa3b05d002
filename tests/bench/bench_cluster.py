#!/usr/bin/env python3
"""Time and memory of average and identity linkage against scikit-learn, and at large sizes.

    python tests/bench/bench_cluster.py
    python tests/bench/bench_cluster.py --sizes 5000 --rounds 1      # a quick look
    python tests/bench/bench_cluster.py --no-sklearn                 # only the tool itself

Faces are made (synthetic.py), 512-d. Both sides must give the same clusters up to renaming;
otherwise the run stops with exit code 1. Each run has a process of its own, so `MB` is the peak of
the whole process with the input in it; `s` is the clustering alone, the median of --rounds runs in
which the two sides take turns. `ratio` is scikit-learn's seconds over ours: above 1 we are faster.

The lower table is the tool's two linkages alone: a large library, and inputs that are one connected
component, which no cut by components makes smaller: people bridged into a chain, a walk without
people, and a single person. `largest` is the largest component at the threshold, `clusters` the
result, `F` the pairwise F score against the made truth, to see that the input is no nonsense.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import synthetic
from common import machine, median, peak_mb, print_table, run_child, sf
from grouping import Faces, identity
from metrics import pairwise_scores

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
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 20000], metavar="N",
                        help="libraries both sides cluster (default: 5000 20000)")  # fmt: skip
    parser.add_argument("--large", type=int, default=100_000, metavar="N",
                        help="library we cluster alone; 0 for none (default: 100000)")  # fmt: skip
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
        print(json.dumps(work(side, kind, int(count), Path(out), args.threshold, args.seed)))
        return 0
    print(machine())
    compare(args)
    alone(args)
    return 0


def compare(args: argparse.Namespace) -> None:
    """The upper table: both sides at the same sizes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in args.sizes:
            sides = ["ours"] if args.no_sklearn else ["ours", "sklearn"]
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
    """The lower table: what scikit-learn cannot do, and what identity linkage costs more."""
    inputs = [("library", args.large)] * bool(args.large)
    inputs += [(kind, args.component) for kind in ("chain", "drift", "person") if args.component]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, count in inputs:
            runs = {side: child(args, side, kind, count, folder) for side in ("ours", "identity")}
            for side, run in runs.items():
                rows.append({
                    "linkage": "average" if side == "ours" else side,
                    "input": kind, "faces": count, "largest": run["largest"],
                    "clusters": run["clusters"], "s": run["seconds"], "MB": run["mb"],
                    "F": run["f"], "ratio": run["seconds"] / runs["ours"]["seconds"],
                })  # fmt: skip
    if rows:
        print_table("without scikit-learn, one run; ratio: to average linkage", rows)


def child(args: argparse.Namespace, side: str, kind: str, count: int, folder: str) -> dict:
    return run_child(
        __file__, "--worker", side, kind, count, folder,
        "--threshold", args.threshold, "--seed", args.seed,
    )  # fmt: skip


def work(side: str, kind: str, count: int, out: Path, threshold: float, seed: int) -> dict:
    """One clustering in this process; leaves the labels in out/SIDE.npy."""
    faces, person = KINDS[kind](count, seed)
    largest: list[int] = []
    components = sf.threshold_components

    def counted(*given: object) -> np.ndarray:
        labels = components(*given)
        largest.append(int(np.bincount(labels).max()))
        return labels

    sf.threshold_components = counted
    if side == "ours":

        def cluster(rows: np.ndarray) -> np.ndarray:
            return sf.average_linkage(rows, threshold)
    elif side == "identity":

        def cluster(rows: np.ndarray) -> np.ndarray:
            return identity(Faces(rows, np.arange(len(rows)), person, "", "synthetic"))
    else:
        from sklearn.cluster import AgglomerativeClustering

        cluster = AgglomerativeClustering(
            metric="cosine", linkage="average", distance_threshold=threshold, n_clusters=None
        ).fit_predict
    cluster(faces[:64])  # imports and first calls are not what is measured
    start = time.perf_counter()
    labels = cluster(faces)
    seconds, mb = time.perf_counter() - start, peak_mb()
    np.save(out / f"{side}.npy", labels)
    return {
        "seconds": seconds, "mb": mb, "clusters": len(np.unique(labels)),
        "largest": max(largest, default=None), "f": pairwise_scores(person, labels).f,
    }  # fmt: skip


def assert_same(count: int, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Stop unless two labellings are one up to renaming."""
    both = len(np.unique(np.stack([ours, theirs]), axis=1).T)
    sizes = len(np.unique(ours)), len(np.unique(theirs))
    if (both, both) != sizes:
        sys.exit(f"{count} faces: the clusters differ ({sizes[0]} and {sizes[1]}, {both} joint)")


if __name__ == "__main__":
    sys.exit(main())
