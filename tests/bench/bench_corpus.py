#!/usr/bin/env python3
"""optimize's work on embeddings, and a whole maintenance run, against the obvious way.

    python tests/bench/bench_corpus.py [--faces 12500 25000 50000] [--sets 300] [--rounds 3]

The near-duplicate pass of `optimize` on n faces, a tenth of them near-duplicates, against comparing
all pairs of faces (blocked matrix products, the fastest plain way), each in a process of its own.
Both find the same faces. First in face sets of 10 to 1,500 faces, as corpora are; then, the worst
case, all in one set. Then a corpus of 300 face sets: applying a run that drops one PNG of every
set, and restoring it, against copying the corpus once with shutil.copytree, in turns; `--faces`
without numbers leaves the rest out. A run ends when all of it is on the disk; a plain copy does
not, so there is a row for one that does. Each step begins with nothing left to be written.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from common import machine, peak_mb, print_table, run_child, sf

R = TypeVar("R")
DIM = 512  # of buffalo_l
SIZES = (10, 15, 20, 30, 50, 80, 150, 300, 600, 1500)  # faces of a set, in turn
PNGS = 12  # of a face set of the corpus
BLOCK = 2048  # rows of a matrix product


def made_faces(count: int, seed: int = 0) -> np.ndarray:
    """(n, 512) float32 unit rows of one person; every tenth repeats an earlier one, nearly."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=DIM)
    centre /= np.linalg.norm(centre)
    noise = rng.normal(size=(count, DIM)) / np.sqrt(DIM)
    unit = sf.unit_rows(centre + 0.9 * noise)
    twins = np.arange(9, count, 10)
    shift = rng.normal(size=(len(twins), DIM)) / np.sqrt(DIM)
    unit[twins] = sf.unit_rows(unit[twins - 5] + 0.15 * shift)
    return unit


def made_sets(count: int) -> list[np.ndarray]:
    """Face sets of SIZES, together of `count` faces."""
    sets: list[np.ndarray] = []
    while count:
        size = min(count, SIZES[len(sets) % len(SIZES)])
        sets.append(made_faces(size, len(sets)))
        count -= size
    return sets


def plain_keeper(unit: np.ndarray, distance: float) -> np.ndarray:
    """What nearest_keeper does, by comparing every face with every better one that stays."""
    keeper = np.arange(len(unit))
    for start in range(0, len(unit), BLOCK):
        stop = min(start + BLOCK, len(unit))
        cosine = unit[start:stop] @ unit[:stop].T
        for row in range(start, stop):
            better = cosine[row - start, :row]
            better[keeper[:row] != np.arange(row)] = -1.0
            if row and better.max() >= 1.0 - distance - sf.DUPLICATE_SLACK:
                keeper[row] = int(better.argmax())
    return keeper


def child(way: str, kind: str, count: int) -> None:
    """Time one way on `count` faces, in `many` sets or `one`; prints JSON."""
    sets = made_sets(count) if kind == "many" else [made_faces(count)]
    parts = [np.concatenate(sets)] if way == "plain" else sets
    run = sf.nearest_keeper if way == "optimize" else plain_keeper
    started = time.perf_counter()
    keepers = [run(unit, sf.OptimizeOptions.twin_distance) for unit in parts]
    seconds = time.perf_counter() - started
    dropped = sum(int(np.count_nonzero(own != np.arange(len(own)))) for own in keepers)
    print(json.dumps({"seconds": seconds, "dropped": dropped, "mb": peak_mb()}))


def embedding_table(kind: str, counts: list[int]) -> list[dict[str, float]]:
    """One row a size: both ways, their ratio, growth against the size before."""
    rows = []
    for count in counts:
        ours, plain = (
            run_child(__file__, "--child", way, kind, count) for way in ("optimize", "plain")
        )
        rows.append(
            {
                "faces": count,
                "optimize s": ours["seconds"],
                "all pairs s": plain["seconds"],
                "ratio": plain["seconds"] / ours["seconds"],
                "dropped": ours["dropped"],
                "plain dropped": plain["dropped"],
                "MB": ours["mb"],
                "growth": ours["seconds"] / rows[-1]["optimize s"] if rows else None,
            }
        )
    return rows


def make_corpus(root: Path, sets: int) -> None:
    """A corpus of face sets of PNGS pictures of noise."""
    import cv2

    rng = np.random.default_rng(1)
    for number in range(1, sets + 1):
        name = sf.numbered("faceset", number)
        faces = []
        for rank in range(PNGS):
            picture = cv2.resize(rng.integers(0, 255, (64, 64, 3), np.uint8), (512, 512))
            file = f"faces/{rank:03d}.png"
            sf.write_part(root / name / file, cv2.imencode(".png", picture)[1].tobytes())
            sha = sf.sha256_of_file(root / name / file)
            about = {"file": file, "rank": rank, "face": f"{sha[:16]}:0", "sha256": sha}
            faces.append(sf.Face(**about, photo_sha256=sha, quality=1 - rank / 100))
        sf.write_part(root / name / "NAME.txt", b"unnamed\n")
        params = sf.ExportParams()
        made = sf.FacesetManifest(id=name, params=params, faces=faces, dropped=[])
        sf.finish_faceset(root / name, made)
    corpus = sf.Corpus(root, sf.SwapManifest(facesets=[]))
    lists = corpus.lists(corpus.sets, {})
    sf.write_file(root / "manifest.json", sf.SwapManifest(**lists))


def timed(times: dict[str, list[tuple[float, float]]], what: str, step: Callable[[], R]) -> R:
    """What a step returns; its (wall, CPU) seconds are added to `times`."""
    os.sync()
    started, cpu = time.perf_counter(), time.process_time()
    result = step()
    times[what].append((time.perf_counter() - started, time.process_time() - cpu))
    return result


def corpus_round(root: Path, copy: Path, times: dict[str, list[tuple[float, float]]]) -> None:
    """Copy a corpus, apply a run that drops the last PNG of every set, and restore it."""

    def synced_copy() -> None:
        shutil.copytree(root, copy)
        os.sync()

    for what, step in (("plain copy", partial(shutil.copytree, root, copy)),
                       ("plain copy on the disk", synced_copy)):  # fmt: skip
        timed(times, what, step)
        shutil.rmtree(copy)
    with sf.opened_corpus(root) as corpus:
        timed(times, "open", lambda: sf.Corpus(root, corpus.master))
        moves = [sf.drop(own, own.faces[-1], "bench") for own in corpus.sets.values()]
        plan = sf.Plan("optimize", {}, moves)
        run = timed(times, "apply", lambda: sf.carry_out(corpus, plan))
        folder = root / sf.RUNS_FOLDER / run
        timed(times, "restore", lambda: sf.companion("restore").restore_run(root, folder))


def corpus_table(folder: Path, sets: int, rounds: int) -> list[dict[str, object]]:
    """Least seconds of each step over a whole corpus, and against a plain copy of it."""
    make_corpus(folder / "corpus", sets)
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(rounds):
        corpus_round(folder / "corpus", folder / "copy", times)
    least = {what: np.min(some, axis=0).tolist() for what, some in times.items()}
    wall, cpu = least["plain copy"]
    return [
        {"step": what, "s": own[0], "CPU s": own[1], "plain copies": own[0] / wall,
         "in CPU s": own[1] / cpu}
        for what, own in least.items()
    ]  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--faces", type=int, nargs="*", default=[12_500, 25_000, 50_000])
    parser.add_argument("--sets", type=int, default=300, help="of the corpus")
    parser.add_argument("--rounds", type=int, default=3, help="of copy, apply and restore")
    parser.add_argument("--dir", type=Path, help="where the corpus is made (3 GB for 100 sets)")
    args = parser.parse_args()
    print(machine())
    if args.faces:
        print_table("near-duplicates, faces in many sets", embedding_table("many", args.faces))
        print_table("near-duplicates, all faces in one set", embedding_table("one", args.faces))
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        rows = corpus_table(Path(folder), args.sets, args.rounds)
        print_table(f"{args.sets} face sets of {PNGS} PNGs", rows)


if __name__ == "__main__":
    main()
