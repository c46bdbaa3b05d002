#!/usr/bin/env python3
"""What work elsewhere costs: the queue's files per item, a Dask cluster, what stays on one machine.

    python tests/bench/bench_workers.py
    python tests/bench/bench_workers.py --items 300 --skip-cluster     # a quick look

Overhead. Milliseconds per photo with two 512-d faces and no inference: naming the item, writing
queue.json and reading it as the worker does, a line of results written and read again, a line of
the journal, and folding the journal into the cache. The sum is what a worker costs beyond its
models; `direct` is the part (journal and fold) that a run in this process pays too.

One machine. What does not move to a worker: listing a file, hashing a MB that is in memory
already, and one cell of the blocked product that finds which faces belong together.

Cluster. `embed` of photos of people, in this process and on two Dask worker processes of one
thread each, in turns; `ratio` is the median per-round ratio of photos per second, above 1 the
cluster is faster. The cluster is up before the clock starts; loading the models counts.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import SHARED, machine, median, print_table, sf

elsewhere = sf.companion("worker_process")

GOAL_MS = 2.0  # per item
DIM = 512


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=2000, help="of the queue (default: 2000)")
    parser.add_argument("--photos", type=int, default=120, help="for the cluster (default: 120)")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: 3)")
    parser.add_argument("--model", default=str(SHARED / "models" / "mini"), metavar="PACK")
    parser.add_argument("--skip-cluster", action="store_true")
    args = parser.parse_args()
    print(machine())
    good = overhead(args)
    one_machine(args)
    if not args.skip_cluster:
        cluster(args)
    return 0 if good else 1


# --- overhead ---------------------------------------------------------------


def overhead(args: argparse.Namespace) -> bool:
    """Print what each piece of the protocol costs; returns whether the sum is within the goal."""
    rounds = [pieces(args.items, turn) for turn in range(args.rounds)]
    ms = {name: median([times[name] for times, _ in rounds]) for name in rounds[0][0]}
    worst = {name: max(times[name] for times, _ in rounds) for name in ms}
    rows = [
        {"piece": name, "ms": ms[name], "slowest": worst[name], "bytes": rounds[0][1].get(name)}
        for name in ms
    ]
    total, direct = sum(ms.values()), ms["journal line"] + ms["fold"]
    rows += [
        {"piece": "all", "ms": total, "slowest": sum(worst.values()), "bytes": None},
        {"piece": "direct", "ms": direct, "slowest": worst["journal line"] + worst["fold"],
         "bytes": None},
    ]  # fmt: skip
    print_table(
        f"per item, {args.items} photos with 2 faces of {DIM}-d, {args.rounds} rounds", rows
    )
    print(f"  goal {GOAL_MS:g} ms: {'met' if total <= GOAL_MS else 'MISSED'}")
    return total <= GOAL_MS


def pieces(number: int, seed: int) -> tuple[dict[str, float], dict[str, int]]:
    """(milliseconds, bytes) per item of every piece."""
    rng = np.random.default_rng(seed)
    crew = sf.Crew(sf.EngineSpec(), sf.WorkOptions(threads=2))
    items = [
        {"sha256": f"{at:064x}", "path": f"/mnt/e/Photos/2021/holiday {at % 40}/IMG_{at:05d}.JPG",
         "size": 3_000_000, "mtime_ns": 1_600_000_000_000_000_000 + at,
         "passes": {"tiles": False, "pad_retry": False}, "landmarks": False}
        for at in range(number)
    ]  # fmt: skip
    results = [made_result(rng) for _ in items]
    times: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        value = work()
        times[name] = (time.perf_counter() - start) / number * 1e3
        return value

    with tempfile.TemporaryDirectory() as folder:
        files = elsewhere.QueueFiles(Path(folder) / "queue")
        files.folder.mkdir()
        cache = Path(folder) / "x.npz"
        waiting = timed("item id", lambda: {elsewhere.item_id(item): item for item in items})
        timed("write queue", lambda: elsewhere.write_queue("embed", "run", waiting, crew, files))
        timed("read queue", lambda: sf.read_file(files.queue, elsewhere.Queue))
        named = [{"id": name, **result} for name, result in zip(waiting, results, strict=True)]
        lines = sf.AppendOnly(files.results)
        timed("results line", lambda: [lines.append(record) for record in named])
        lines.close()
        read = timed("read results", lambda: list(sf.ResultTail(files.results).read()))
        assert len(read) == number
        meta = sf.CacheMeta(schema=1, model="x", recognizer="f" * 16, dim=DIM, det_size=640,
                            det_threshold=0.5, roots=[])  # fmt: skip
        journal = sf.Journal(cache, meta)

        def store() -> None:
            for item, result in zip(items, read, strict=True):
                journal.append("photo", **{**item, **result, "passes": "640@0.5"})

        timed("journal line", store)
        journal.close()

        def fold() -> sf.FaceCache:
            header, records = sf.read_journal(sf.journal_path(cache))
            return sf.fold_records(sf.empty_cache(header), records)

        assert timed("fold", fold).faces == 2 * number
        sizes = {"write queue": files.queue, "results line": files.results,
                 "journal line": sf.journal_path(cache)}  # fmt: skip
        return times, {name: path.stat().st_size // number for name, path in sizes.items()}


def made_result(rng: np.random.Generator) -> dict[str, Any]:
    """What `embed` finds in a photo of two people."""
    faces = [
        {"bbox": rng.uniform(0, 4000, 4).astype(np.float32).tolist(), "det_score": rng.random(),
         "kps": rng.uniform(0, 4000, (5, 2)).astype(np.float32).tolist(),
         "face_short": rng.random() * 400, "blur": rng.random() * 300,
         "embedding": sf.pack_floats(rng.normal(size=DIM))}
        for _ in range(2)
    ]  # fmt: skip
    return {"wh": [4000, 3000], "taken": 1.6e9, "error": "", "faces": faces, "status": 0}


# --- one machine ------------------------------------------------------------


def one_machine(args: argparse.Namespace) -> None:
    """Print what scanning, hashing and comparing cost."""
    rng = np.random.default_rng(1)
    faces = sf.unit_rows(rng.normal(size=(4 * sf.LINK_BLOCK, DIM)).astype(np.float32))
    runs: dict[str, list[float]] = {"scan, us per file": [], "hash, ms per MB": [],
                                    "compare, ns per pair of faces": []}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for at in range(args.items):
            (root / str(at % 40)).mkdir(exist_ok=True)
            (root / str(at % 40) / f"{at}.jpg").touch()
        (root / "large").write_bytes(rng.bytes(64 << 20))
        for _ in range(args.rounds):
            start = time.perf_counter()
            assert len(sf.scan_photos([root], [], [], sf.ScanReport())) == args.items
            runs["scan, us per file"].append((time.perf_counter() - start) / args.items * 1e6)
            start = time.perf_counter()
            sf.sha256_of_file(root / "large")
            runs["hash, ms per MB"].append((time.perf_counter() - start) / 64 / 1.048576 * 1e3)
            start = time.perf_counter()
            for at in range(0, len(faces), sf.LINK_BLOCK):
                np.argwhere(faces[at : at + sf.LINK_BLOCK] @ faces.T > 0.4)
            each = (time.perf_counter() - start) / len(faces) ** 2 * 1e9
            runs["compare, ns per pair of faces"].append(each)
    rows = [
        {"step": step, "median": median(some), "fastest": min(some), "slowest": max(some)}
        for step, some in runs.items()
    ]
    print_table(f"on one machine, {args.rounds} rounds", rows)


# --- cluster ----------------------------------------------------------------


def cluster(args: argparse.Namespace) -> None:
    """Print photos per second here and on two worker processes, and the bytes that travel."""
    import distributed

    photos = sorted((SHARED / "data" / "people").glob("*/*.jp*g"))[: args.photos]
    rates: dict[str, list[float]] = {"here, 2 threads": [], "2 Dask processes": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        distributed.LocalCluster(
            processes=True, n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as two,
    ):
        root = Path(folder) / "photos"
        root.mkdir()
        for photo in photos:
            shutil.copy(photo, root)
        os.environ["SORT_FACES_LOGS"] = folder
        for turn in range(args.rounds + 1):  # the first round warms the disk and the workers
            for side, options in zip(
                rates, ([], ["--cluster", two.scheduler_address]), strict=True
            ):
                cache = Path(folder) / f"{len(options)}-{turn}.npz"
                rates[side].append(len(photos) / seconds(args.model, root, cache, options))
        there, back = message_bytes(args.model, root)
    rates = {side: some[1:] for side, some in rates.items()}
    rows = [
        {"by": side, "photos/s": median(some), "slowest": min(some), "fastest": max(some),
         "ratio": median([a / b for a, b in zip(some, rates["here, 2 threads"], strict=True)])}
        for side, some in rates.items()
    ]  # fmt: skip
    name = Path(args.model).name
    print_table(f"embed, {len(photos)} photos of people, {name}, {args.rounds} rounds", rows)
    print(f"  JSON bytes per photo: item {there}, result {back}")


def seconds(model: str, root: Path, cache: Path, options: list[str]) -> float:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = sf.main(["embed", str(root), str(cache), "--model", model, "--threads", "2",
                        "--quiet", *options])  # fmt: skip
    if code != sf.EXIT_OK:
        sys.exit(f"embed ended with {code}")
    return time.perf_counter() - start


def message_bytes(model: str, root: Path) -> tuple[int, int]:
    """Mean size of an item and of its result as JSON, over the first photos."""
    engine = sf.load_engine(sf.EngineSpec(model=model), 2)
    paths = sorted(root.iterdir())[:20]
    items = [
        {"sha256": sf.sha256_of_file(path), "path": str(path), "size": path.stat().st_size,
         "mtime_ns": path.stat().st_mtime_ns, "passes": dataclasses.asdict(sf.Passes()),
         "landmarks": False}
        for path in paths
    ]  # fmt: skip
    results = [sf.embed_items(engine, [item])[0] for item in items]
    sizes = [sum(len(json.dumps(value)) for value in values) for values in (items, results)]
    return sizes[0] // len(items), sizes[1] // len(items)


if __name__ == "__main__":
    sys.exit(main())
