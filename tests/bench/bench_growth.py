#!/usr/bin/env python3
"""What a library that grows costs: a night without news, and a few new photos among many.

    python tests/bench/bench_growth.py [--files 20000 100000] [--new 200] [--model dlib]
    python tests/bench/bench_growth.py --files 500000 --rounds 1 --dir /big/disk

A folder of N tiny files and a cache that knows them all (a photo and a face each; only
size and time of a file are compared, so its bytes do not matter). `walk` is os.scandir and a stat
of every file, nothing else. `nothing new` is `embed` over that folder. `k new` is `embed` after k
small photos came, and `k alone` the same k photos into a cache of their own: what lies between them
is the price of the library around them. `copies` is a first `embed` over N files that are copies of
one photo: listing and hashing alone. All by turns, each in a process of its own; `walks` is CPU
seconds against the walk's. CPU seconds are from the parsed command to its end; loading Python
and numpy is not counted, loading the model is. Peak memory includes the 66 MB of both.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import machine, median, peak_mb, print_table, run_child, sf

FOLDER = 1000  # files of a folder
SIDE = 48  # px of a new photo


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(CHILDREN[sys.argv[2]](*sys.argv[3:])))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, nargs="+", default=[20_000, 100_000], metavar="N")
    parser.add_argument("--new", type=int, default=200, metavar="K", help="photos that come")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="dlib", help="of the new photos (default: %(default)s)")
    parser.add_argument("--skip-copies", action="store_true")
    parser.add_argument("--dir", type=Path, help="where the files are made")
    args = parser.parse_args()
    print(machine())
    for count in args.files:
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            print_table(f"{count} files", library_table(args, Path(folder), count))


# --- made things ------------------------------------------------------------


def files(folder: str, count: str, seed: str = "") -> dict[str, float]:
    """Write files of the same bytes, a photo's where there is a seed."""
    data = photo(int(seed)) if seed else b"of no use"
    for at in range(int(count)):
        place = Path(folder) / f"{at // FOLDER:04d}"
        if at % FOLDER == 0:
            place.mkdir(parents=True)
        (place / f"{at % FOLDER:04d}.jpg").write_bytes(data)
    return {}


def photos(folder: str, count: str) -> dict[str, float]:
    """Write small photos, no two alike."""
    Path(folder).mkdir()
    for at in range(int(count)):
        (Path(folder) / f"{at:04d}.jpg").write_bytes(photo(at))
    return {}


def photo(seed: int) -> bytes:
    """A small JPEG of noise."""
    import cv2

    pixels = np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def plant(path: str, like: str, folder: str) -> dict[str, float]:
    """A cache that knows the files of a folder, with a face in each, by the model of `like`."""
    meta = sf.msgspec.structs.replace(sf.load_cache(Path(like)).meta, roots=[folder])
    found = sorted(str(file) for file in Path(folder).glob("*/*.jpg"))
    facts = [(name, *sf.facts_of(os.stat(name))) for name in found]
    count, rng = len(facts), np.random.default_rng(0)
    columns = {name: about.filled(count, meta.dim) for name, about in sf.COLUMNS.items()}
    columns |= {name: columns[name][:0] for name in columns if name.startswith("alias_")}
    paths, sizes, times = zip(*facts, strict=True)
    columns |= {
        "file_path": np.array(paths),
        "file_sha256": np.array([hashlib.sha256(name.encode()).hexdigest() for name in paths]),
        "file_size": np.array(sizes, np.int64),
        "file_mtime_ns": np.array(times, np.int64),
        "file_passes": np.array(["made"] * count),
        "face_file": np.arange(count, dtype=np.int32),
        "embedding": rng.standard_normal((count, meta.dim), np.float32),
    }
    sf.save_cache(Path(path), sf.FaceCache(meta, **columns))
    return {}


# --- children ---------------------------------------------------------------


def walk(folder: str) -> dict[str, float]:
    """List a folder tree and stat every file."""
    used = time.process_time()
    pending, size = [folder], 0
    while pending:
        for entry in os.scandir(pending.pop()):
            if entry.is_dir():
                pending.append(entry.path)
            else:
                size += os.stat(entry.path).st_size
    return {"cpu": time.process_time() - used, "mb": peak_mb()}


def command(*argv: str) -> dict[str, float]:
    """Run a command of the tool in this process."""
    used = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = sf.main([*argv, "--quiet", "--json"])
    if code != sf.EXIT_OK:
        sys.exit(f"{argv} ended with {code}")
    told = json.loads(out.getvalue())
    return {"cpu": time.process_time() - used, "mb": peak_mb(), **told}


CHILDREN = {"files": files, "photos": photos, "plant": plant, "walk": walk, "command": command}


# --- the table --------------------------------------------------------------


def library_table(args: argparse.Namespace, folder: Path, count: int) -> list[dict[str, object]]:
    """One row a step: CPU seconds, in walks, and peak memory."""
    os.environ["SORT_FACES_LOGS"] = str(folder / "logs")
    model = ("--model", args.model, "--provider", "cpu", "--threads", "1")
    new, copies, photos = folder / "new", folder / "copies", folder / "photos"
    alone, cache, doubles = folder / "alone.npz", folder / "lib.npz", folder / "copies.npz"
    runs: dict[str, list[dict[str, float]]] = {}

    def step(name: str, *argv: object) -> dict[str, float]:
        done = run_child(__file__, "--child", *argv)
        runs.setdefault(name, []).append(done)
        return done

    run_child(__file__, "--child", "photos", new, args.new)
    run_child(__file__, "--child", "files", photos, count)
    if not args.skip_copies:
        run_child(__file__, "--child", "files", copies, count, args.new)
    for _ in range(args.rounds):
        alone.unlink(missing_ok=True)
        step(f"{args.new} alone", "command", "embed", new, alone, *model)
        run_child(__file__, "--child", "plant", cache, alone, photos)
        before = cache.stat().st_mtime_ns
        step("walk", "walk", photos)
        for _ in range(2):
            done = step("nothing new", "command", "embed", photos, cache, *model)
            assert (done["unchanged"], done["new"]) == (count, 0), done
        assert cache.stat().st_mtime_ns == before, "a night without news wrote the cache"
        shutil.copytree(new, photos / "new")
        done = step(f"{args.new} new", "command", "embed", photos, cache, *model)
        assert (done["unchanged"], done["new"]) == (count, args.new), done
        shutil.rmtree(photos / "new")
        doubles.unlink(missing_ok=True)
        if not args.skip_copies:
            step("copies", "command", "embed", copies, doubles, *model)
    cpu = {name: median([run["cpu"] for run in some]) for name, some in runs.items()}
    return [
        {"step": name, "CPU s": cpu[name], "walks": cpu[name] / cpu["walk"],
         "peak MB": median([run["mb"] for run in some])}
        for name, some in runs.items()
    ]  # fmt: skip


if __name__ == "__main__":
    main()
