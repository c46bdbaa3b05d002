#!/usr/bin/env python3
"""Photos per second of `embed` against the plain loop, and what one flush of results costs.

    python tests/bench/bench_embed.py
    python tests/bench/bench_embed.py --photos 20 --rounds 2 --skip-flush     # a quick look

Speed. Made JPEGs of 12 megapixels with a few faces each go through `sort_faces.py embed` and
through the loop everyone writes first: cv2.imread, insightface's FaceAnalysis.get with default
session options on the CPU, np.savez of everything after every 50 photos. Each run is a process of
its own; imports are not counted, loading the models is. The two take turns for --rounds rounds;
`ratio` is the median of the per-round ratios of photos per second: above 1 we are faster. Faces
are matched by box; exit code 1 if a photo has another number of faces or a face a cosine below
0.999. `one thread` shows embed with --threads 1, to see what the worker threads bring. `bare` is as
many threads that only decode each photo with OpenCV and run the two models on noise, the detector
on a square of 640 px, the recogniser on as many faces as the photo has; `to bare` is embed's time
over that. `reduced` is embed with --decode reduced. `CPU ms` is processor time per photo; on a
machine with other work it says more than the clock.

Flush. Microseconds of one Journal.append of a photo with two 512-d faces beside caches of growing
size, which must stay flat, and of np.savez of the whole cache, which is what the plain way pays
every 50 photos. `first` is the append that opens the journal.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from common import SHARED, machine, median, print_table, run_child, sf

WIDTH, HEIGHT = 4000, 3000  # px; 12 megapixels
NOISE = 4.0  # grey levels; makes files of 3 to 4 MB, as phones do
QUALITY = 92  # of the JPEGs
FLUSH_EVERY = 50  # photos; the plain loop
MIN_COSINE = 0.999
SAME_BOX = 0.9  # IoU
APPENDS = 300
MADE_META = sf.CacheMeta(
    schema=sf.CACHE_SCHEMA, model="made", recognizer="0" * 16, dim=512, det_size=640,
    det_threshold=0.5, roots=["/p"],
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(SHARED / "models" / "mini"), metavar="PACK",
                        help="folder of a pack's .onnx files (default: %(default)s)")  # fmt: skip
    parser.add_argument("--photos", type=int, default=60, help="how many (default: 60)")
    parser.add_argument("--rounds", type=int, default=3, help="A/B rounds (default: 3)")
    parser.add_argument("--threads", type=int, default=sf.usable_cores(),
                        help="of embed (default: the usable cores)")  # fmt: skip
    parser.add_argument("--decode", default="full", help=argparse.SUPPRESS)
    parser.add_argument("--caches", type=int, nargs="+", default=[1000, 10_000, 100_000],
                        metavar="N", help="cached faces (default: 1000 10000 100000)")  # fmt: skip
    parser.add_argument("--skip-speed", action="store_true")
    parser.add_argument("--skip-flush", action="store_true")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        side, photos, out = args.worker
        print(json.dumps(SIDES[side](args, Path(photos), Path(out))))
        return 0
    print(machine())
    good = args.skip_speed or speed(args)
    if not args.skip_flush:
        flush(args)
    return 0 if good else 1


# --- speed ------------------------------------------------------------------


def speed(args: argparse.Namespace) -> bool:
    """Print the speed table; returns whether both sides found the same faces."""
    sides = {"ours": args.threads, "plain": None, "one thread": 1, "reduced": args.threads,
             "bare": args.threads}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        size = make_photos(photos, args.photos)
        runs: dict[str, list[float]] = {side: [] for side in sides}
        cpu: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(args.rounds):
            for side, threads in sides.items():
                options = [] if threads is None else ["--threads", threads]
                worker = side if side in SIDES else "ours"
                out = Path(folder) / f"{worker}-{side.replace(' ', '')}-{turn}"
                out.mkdir()
                options += ["--decode", "reduced"] * (side == "reduced")
                done = run_child(__file__, "--worker", worker, photos, out,
                                 "--model", args.model, *options)  # fmt: skip
                runs[side].append(args.photos / done["seconds"])
                cpu[side].append(done["cpu"] / args.photos * 1e3)
        names = ("ours-ours-0", "plain-plain-0", "ours-reduced-0")
        found = [read_faces(Path(folder) / name) for name in names]
    rows = [
        {
            "by": side, "threads": threads, "photos/s": median(rates),
            "slowest": min(rates), "fastest": max(rates), "CPU ms": median(cpu[side]),
            "ratio": ratio(rates, runs["plain"]) if side != "plain" else None,
            "to bare": ratio(runs["bare"], rates) if side != "bare" else None,
        }
        for (side, threads), rates in zip(sides.items(), runs.values(), strict=True)
    ]  # fmt: skip
    print_table(f"embed, {args.photos} photos of 12 MP and {size:.1f} MB, "
                f"{args.rounds} rounds, {Path(args.model).name}", rows)  # fmt: skip
    print("  reduced against plain, where faces are cut from other pixels:")
    same_faces(found[2], found[1])
    print("  ours against plain:")
    return same_faces(*found[:2])


def ratio(ours: list[float], theirs: list[float]) -> float:
    return median([a / b for a, b in zip(ours, theirs, strict=True)])


def make_photos(folder: Path, number: int) -> float:
    """Write JPEGs cut from group photos, grained, no two alike; returns their mean size in MB."""
    import cv2

    rng = np.random.default_rng(0)
    sources = sorted((SHARED / "data" / "groups").glob("*.jp*g"))[:12]
    images = [cv2.imread(str(path)) for path in sources] or [
        cv2.imdecode(
            np.frombuffer(sf.companion("demo_library").demo_photo(), np.uint8), cv2.IMREAD_COLOR
        )
    ]
    grain = np.clip(rng.normal(128, NOISE * 1.4, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    for at in range(number):
        image = images[at % len(images)]
        side = min(image.shape[0] / 3, image.shape[1] / 4) * rng.uniform(0.3, 0.5)
        height, width = int(side * 3), int(side * 4)
        y = int(rng.integers(0, image.shape[0] - height) // 2)  # heads are in the upper part
        x = int(rng.integers(0, image.shape[1] - width))
        large = cv2.resize(image[y : y + height, x : x + width], (WIDTH, HEIGHT),
                           interpolation=cv2.INTER_CUBIC)  # fmt: skip
        moved = np.roll(grain, tuple(rng.integers(0, 999, 2)), axis=(0, 1))
        noisy = cv2.addWeighted(large, 1.0, moved, 1.0, -128.0)
        cv2.imwrite(str(folder / f"{at:04d}.jpg"), noisy, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    sizes = [path.stat().st_size for path in folder.iterdir()]
    return sum(sizes) / len(sizes) / 1e6


def run_ours(args: argparse.Namespace, photos: Path, out: Path) -> dict[str, Any]:
    """The command, in process; leaves its faces in `out`."""
    import_engines()
    os.environ["SORT_FACES_LOGS"] = str(out)
    argv = ["embed", str(photos), str(out / "cache.npz"), "--model", args.model, "--provider",
            "cpu", "--threads", str(args.threads), "--decode", args.decode, "--quiet",
            "--json"]  # fmt: skip
    start, used = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        code = sf.main(argv)
    if code != sf.EXIT_OK:
        sys.exit(f"embed ended with {code}")
    spent = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
    cache = sf.load_cache(out / "cache.npz")
    name = np.array([Path(path).name for path in cache.file_path])
    np.savez(out / "faces.npz", photo=name[cache.face_file], bbox=cache.bbox,
             embedding=cache.embedding)  # fmt: skip
    return spent


def run_plain(args: argparse.Namespace, photos: Path, out: Path) -> dict[str, Any]:
    """The plain loop."""
    import_engines()
    import cv2
    from insightface.app import FaceAnalysis

    names, boxes, embeddings = [], [], []

    def save() -> None:
        np.savez(out / "faces.npz", photo=names, bbox=boxes, embedding=embeddings)

    start, used = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        app = FaceAnalysis(name=args.model, providers=["CPUExecutionProvider"])
        app.prepare(ctx_id=-1, det_thresh=sf.EngineSpec.det_threshold, det_size=(640, 640))
    for number, path in enumerate(sorted(photos.iterdir()), 1):
        for face in app.get(cv2.imread(str(path))):
            names.append(path.name)
            boxes.append(face.bbox)
            embeddings.append(face.embedding)
        if number % FLUSH_EVERY == 0:
            save()
    save()
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}


def run_bare(args: argparse.Namespace, photos: Path, out: Path) -> dict[str, Any]:
    """Decoding and the models alone, in threads."""
    import_engines()
    import cv2
    import onnxruntime
    from insightface.app import FaceAnalysis

    faces = read_faces(out.parent / "ours-ours-0")
    start, used = time.perf_counter(), time.process_time()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1 if args.threads > 1 else 0
    with contextlib.redirect_stdout(sys.stderr):
        models = FaceAnalysis(
            name=args.model, providers=["CPUExecutionProvider"], sess_options=options
        ).models
    rng, shapes = np.random.default_rng(0), {"detection": (1, 3, 640, 640)}
    noise = {
        task: rng.random(shapes.get(task, (64, 3, 112, 112)), np.float32)
        for task in ("detection", "recognition")
    }

    def one(path: Path) -> None:
        cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        found = len(faces.get(path.name, ((), ()))[0])
        for task, rows in (("detection", 1), ("recognition", min(found, 64))):
            session = models[task].session
            if rows:
                session.run(None, {session.get_inputs()[0].name: noise[task][:rows]})

    with ThreadPoolExecutor(args.threads) as pool:
        list(pool.map(one, sorted(photos.iterdir())))
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}


SIDES = {"ours": run_ours, "plain": run_plain, "bare": run_bare}


def import_engines() -> None:
    """Import what both sides need, so that neither is timed doing it."""
    import warnings

    import cv2  # noqa: F401
    import insightface.app
    import insightface.utils.face_align  # noqa: F401
    import onnxruntime  # noqa: F401
    import pillow_heif  # noqa: F401

    warnings.filterwarnings("ignore")


def read_faces(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """photo -> (boxes, unit embeddings) of one run."""
    with np.load(folder / "faces.npz") as found:
        photo, bbox, embedding = found["photo"], found["bbox"], sf.unit_rows(found["embedding"])
    return {str(name): (bbox[photo == name], embedding[photo == name]) for name in set(photo)}


def same_faces(ours: dict, plain: dict) -> bool:
    """Print and judge whether two runs found the same faces."""
    cosines, counts_differ, unmatched = [], [], 0
    for name in sorted(ours.keys() | plain.keys()):
        none = np.zeros((0, 4)), np.zeros((0, 1))
        (boxes, faces), (boxes_, faces_) = ours.get(name, none), plain.get(name, none)
        if len(boxes) != len(boxes_):
            counts_differ.append(f"{name} ({len(boxes)} and {len(boxes_)})")
        for box, face in zip(boxes, faces, strict=True):
            overlap = sf.box_iou(box, boxes_) if len(boxes_) else np.zeros(1)
            if overlap.max() < SAME_BOX:
                unmatched += 1
            else:
                cosines.append(float(face @ faces_[overlap.argmax()]))
    per_photo = [len(boxes) for boxes, _ in plain.values()]
    lowest = min(cosines, default=0.0)
    good = not counts_differ and not unmatched and lowest >= MIN_COSINE
    print(f"  faces {sum(per_photo)}, {min(per_photo)} to {max(per_photo)} a photo in "
          f"{len(per_photo)} photos; matched {len(cosines)}, unmatched {unmatched}, "
          f"min cosine {lowest:.6f}: {'same' if good else 'NOT THE SAME'}")  # fmt: skip
    if counts_differ:
        print("  another number of faces in", ", ".join(counts_differ[:10]))
    return good


# --- flush ------------------------------------------------------------------


def flush(args: argparse.Namespace) -> None:
    """Print what one append costs beside caches of growing size."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{faces}.npz" for faces in args.caches]
        saving = [time_save(path, made_cache(faces))
                  for path, faces in zip(paths, args.caches, strict=True)]  # fmt: skip
        appends = time_appends(paths)
        rows = []
        for at, faces in enumerate(args.caches):
            cache = made_cache(faces)
            whole = median([time_savez(Path(folder) / "plain.npz", cache) for _ in range(3)])
            usual, each = median(appends[at][1:]), whole / FLUSH_EVERY
            rows.append({
                "cached faces": faces, "append us": usual * 1e6, "first us": appends[at][0] * 1e6,
                "savez us": whole * 1e6, "savez/50 us": each * 1e6, "ratio": each / usual,
                "save_cache s": saving[at],
            })  # fmt: skip
    print_table(f"one flush, median of {APPENDS} appends and 3 savez", rows)
    slope = rows[-1]["append us"] / rows[0]["append us"]
    print(f"  append at {args.caches[-1]} faces over {args.caches[0]}: {slope:.2f} (flat is 1)")


def made_cache(faces: int) -> sf.FaceCache:
    """A cache of made faces, two a photo."""
    rng = np.random.default_rng(0)
    photos = faces // 2
    records = [{"op": "photo", **photo_record(at, rng)} for at in range(min(photos, 1000))]
    lines = [sf.as_record(sf.JournalLine, record) for record in records]
    few = sf.fold_records(sf.empty_cache(MADE_META), lines)
    pick = np.arange(photos) % few.files
    names = [item.name for item in fields(sf.FaceCache)]
    arrays = {name: getattr(few, name)[pick] for name in names if name.startswith("file_")}
    arrays["file_sha256"] = np.array([f"{at:064x}" for at in range(photos)])
    arrays["file_path"] = np.array([f"/photos/2019/{at:06d}.jpg" for at in range(photos)])
    pick = np.arange(photos * 2) % few.faces
    arrays |= {name: getattr(few, name)[pick] for name, about in sf.COLUMNS.items()
               if about.rows == "n"}  # fmt: skip
    arrays["face_file"] = np.repeat(np.arange(photos, dtype=np.int32), 2)
    empty = {name: getattr(few, name) for name in names if name.startswith("alias_")}
    return sf.FaceCache(meta=MADE_META, **arrays, **empty)


def photo_record(at: int, rng: np.random.Generator) -> dict[str, Any]:
    """What embed journals of a photo with two faces."""
    face = {
        "bbox": [901.3456, 702.1234, 1210.9876, 1105.4321], "det_score": 0.8123,
        "kps": rng.uniform(900, 1200, (5, 2)).tolist(), "face_short": 309.642, "blur": 187.25,
    }  # fmt: skip
    return {
        "passes": "640@0.5", "path": f"/photos/2019/{at:06d}.jpg", "sha256": f"{at:064x}",
        "size": 4_512_345, "mtime_ns": 1_557_670_992_000_000_000, "wh": [4000, 3000],
        "taken": 1557670992.0, "status": sf.STATUS_FACES, "error": "",
        "faces": [{**face, "embedding": sf.pack_floats(rng.normal(0, 1, 512))} for _ in range(2)],
    }  # fmt: skip


def time_appends(paths: list[Path]) -> list[list[float]]:
    """Seconds of each append beside each cache, the caches taking turns."""
    rng = np.random.default_rng(1)
    os.sync()  # what was just saved is not to be written back meanwhile
    journals = [sf.Journal(path, MADE_META) for path in paths]
    times: list[list[float]] = [[] for _ in paths]
    for number in range(APPENDS + 1):
        record = photo_record(10**6 + number, rng)
        for journal, own in zip(journals, times, strict=True):
            start = time.perf_counter()
            journal.append("photo", **record)
            own.append(time.perf_counter() - start)
    for journal in journals:
        journal.close()
    return times


def time_save(path: Path, cache: sf.FaceCache) -> float:
    """Seconds of sf.save_cache."""
    start = time.perf_counter()
    sf.save_cache(path, cache)
    return time.perf_counter() - start


def time_savez(path: Path, cache: sf.FaceCache) -> float:
    """Seconds of writing every array once."""
    names = [item.name for item in fields(sf.FaceCache)]
    arrays = {name: getattr(cache, name) for name in names if name not in sf.LANDMARK_SHAPES}
    del arrays["meta"]
    start = time.perf_counter()
    np.savez(path, **arrays)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
