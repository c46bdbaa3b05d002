#!/usr/bin/env python3
"""Where a GPU's time goes: `embed` against its limits, the bare models and bare decoding.

    python tests/bench/bench_gpu.py                                    # CUDA, a few minutes
    python tests/bench/bench_gpu.py --model ~/.insightface/models/buffalo_l --fp16
    python tests/bench/bench_gpu.py --provider openvino --photos 12    # any other provider

Says `skipped` and ends with 0 where this onnxruntime does not offer the provider. The photos are
those of bench_embed.py: made JPEGs of 12 megapixels with a few faces each. Each row is a process of
its own that loads, warms up on four photos and then takes the time; imports, loading and the search
for kernels, which is paid once for each shape, are not in it.

decode: cv2.imdecode by one and by all threads, nvImageCodec by 32 where it is installed.
detector, recogniser: the pack's models on noise, the detector with 640 x 640 px by one and by eight
threads, the recogniser by one, eight and 64 faces a call. plain loop: insightface's
FaceAnalysis.get, photo by photo. embed: the command.

`limit` is the smaller of decoding by all threads (the better decoder) and inference, one photo
after the other: 1 / (1 / detector by eight + faces / recogniser by 64). At the end the faces are
compared with those of the command on the CPU; exit code 1 if a photo has another number of faces,
or a face a cosine below 0.9999 (0.999 with --fp16).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bench_embed
import numpy as np
from common import SHARED, machine, print_table, run_child, sf

WARM_UP = 4  # photos, before the clock starts
SECONDS = 3.0  # at least, of a bare model
DETECTORS, SIZES = (1, 8), (1, 8, 64)  # threads; faces a call


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(SHARED / "models" / "mini"), metavar="PACK",
                        help="folder of a pack's .onnx files (default: %(default)s)")  # fmt: skip
    parser.add_argument("--provider", default="cuda", choices=sorted(sf.PROVIDERS))
    parser.add_argument("--fp16", action="store_true", help="of embed and one more recogniser row")
    parser.add_argument("--decode", default="full", choices=("full", "reduced", "nvjpeg"))
    parser.add_argument("--photos", type=int, default=160, help="how many (default: 160)")
    parser.add_argument("--threads", type=int, default=sf.usable_cores(),
                        help="of embed and of decoding (default: the usable cores)")  # fmt: skip
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        what, folder = args.worker
        print(json.dumps(WORKERS[what](args, Path(folder))))
        return 0
    offered = sf.load_onnxruntime().get_available_providers()
    if not set(sf.PROVIDERS[args.provider]).intersection(offered):
        print(f"skipped: this onnxruntime offers {', '.join(offered)}")
        return 0
    print(f"{machine()}; {args.provider}, {Path(args.model).name}")
    with tempfile.TemporaryDirectory() as folder:
        return measure(args, Path(folder))


def measure(args: argparse.Namespace, folder: Path) -> int:
    """Print the table and compare the faces; returns the exit code."""
    (folder / "photos").mkdir()
    bench_embed.make_photos(folder / "photos", args.photos)
    rates: dict[str, float] = {}
    faces = 0.0
    for what in WORKERS:
        found = child(args, what, folder)
        faces = found.pop("faces a photo", faces)
        rates.update(found)
    decode = max(rate for name, rate in rates.items() if name.startswith("decode"))
    recognise = rates[f"recogniser by {SIZES[-1]}"]
    inference = 1 / (1 / rates[f"detector, {DETECTORS[-1]} threads"] + faces / recognise)
    limit = min(decode, inference)
    rows = [{"what": name, "a second": rate} for name, rate in rates.items()]
    print_table(f"{args.photos} photos, {faces:.1f} faces each; photos or faces a second", rows)
    print(f"  limits: decode {decode:.1f}, inference {inference:.1f} photos/s; "
          f"embed has a share of {rates['embed'] / limit:.0%} of the smaller, "
          f"{rates['embed'] / rates['plain loop']:.1f} x the plain loop, "
          f"{rates['embed'] / rates['embed, cpu']:.1f} x the CPU")  # fmt: skip
    bench_embed.MIN_COSINE = 0.999 if args.fp16 else 0.9999
    same = bench_embed.same_faces(
        *(bench_embed.read_faces(folder / name) for name in ("gpu", "cpu"))
    )
    return 0 if same else 1


def child(args: argparse.Namespace, what: str, folder: Path) -> dict[str, float]:
    more = ["--fp16"] * args.fp16
    return run_child(__file__, "--worker", what, folder, "--model", args.model, "--provider",
                     args.provider, "--decode", args.decode, "--threads", args.threads,
                     *more)  # fmt: skip


# --- what is measured, each in a process of its own ---------------------------


def photos_of(folder: Path) -> list[Path]:
    return sorted((folder / "photos").iterdir())


def measure_decoding(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Photos a second by OpenCV, and by nvImageCodec where it is."""
    import cv2

    cv2.setNumThreads(1)
    files = [path.read_bytes() for path in photos_of(folder)]

    def by_opencv(data: bytes) -> None:
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    rates = {}
    for threads in sorted({1, args.threads}):
        some = files[: max(4, len(files) // (1 if threads > 1 else args.threads))]
        rates[f"decode, {threads} threads"] = per_second(by_opencv, some, threads)
    try:
        nvjpeg = sf.companion("nvjpeg").JpegDecoder()
    except sf.SortFacesError:
        return rates
    nvjpeg.decode_all(files[:32])
    chunks = [files[at : at + 32] for at in range(0, len(files), 32)]
    start = time.perf_counter()
    for chunk in chunks:
        nvjpeg.decode_all(chunk)
    return {**rates, "decode, nvjpeg": len(files) / (time.perf_counter() - start)}


def per_second(work: Callable[[Any], Any], things: Sequence[Any], threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(work, things))
        return len(things) / (time.perf_counter() - start)


def measure_models(args: argparse.Namespace, _: Path) -> dict[str, float]:
    """Calls of the bare models on noise, as many as take a few seconds."""
    engine = sf.load_engine(spec_of(args, fp16=False), args.threads)
    rng, rates = np.random.default_rng(0), {}
    detector = engine.detector
    square = rng.random((1, 3, 640, 640), np.float32)

    def detect(_: int) -> None:
        detector.session.run(None, {detector.input_name: square})

    for threads in DETECTORS:
        rates[f"detector, {threads} threads"] = sustained(detect, threads)
    recognisers = {"recogniser": engine.recogniser.session}
    if args.fp16:
        models = sf.companion("onnx_models")
        half = models.in_half_precision(engine.recogniser.model_file)
        recognisers["fp16 recogniser"] = models.Model(half, spec_of(args, fp16=False), 1)
    for name, session in recognisers.items():
        for size in SIZES:
            crops = rng.random((size, 3, 112, 112), np.float32)
            feeds = {engine.recogniser.input_name: crops}
            rate = sustained(lambda _, feeds=feeds, run=session.run: run(None, feeds), 1)
            rates[f"{name} by {size}"] = rate * size
    return rates


def sustained(work: Callable[[int], Any], threads: int) -> float:
    """Calls a second, after a first one in every thread."""
    per_second(work, range(threads), threads)
    rate = per_second(work, range(4 * threads), threads)
    return per_second(work, range(max(4 * threads, int(rate * SECONDS))), threads)


def spec_of(args: argparse.Namespace, fp16: bool) -> sf.EngineSpec:
    return sf.EngineSpec(model=args.model, provider=args.provider, fp16=fp16)


def measure_plain_loop(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The loop everyone writes first, on the provider."""
    bench_embed.import_engines()
    import cv2
    from insightface.app import FaceAnalysis

    names = [*sf.PROVIDERS[args.provider], "CPUExecutionProvider"]
    app = FaceAnalysis(name=args.model, providers=list(dict.fromkeys(names)))
    app.prepare(ctx_id=0, det_thresh=sf.EngineSpec.det_threshold, det_size=(640, 640))
    paths = photos_of(folder)
    for path in paths[:WARM_UP]:
        app.get(cv2.imread(str(path)))
    start = time.perf_counter()
    found = [len(app.get(cv2.imread(str(path)))) for path in paths]
    seconds = time.perf_counter() - start
    return {"plain loop": len(paths) / seconds, "faces a photo": sum(found) / len(paths)}


def measure_embed(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    return {"embed": embed(args, folder, args.provider, "gpu")}


def measure_embed_on_cpu(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    return {"embed, cpu": embed(args, folder, "cpu", "cpu")}


def embed(args: argparse.Namespace, folder: Path, provider: str, name: str) -> float:
    """Photos a second of the command's own functions; its faces go to folder/NAME/faces.npz."""
    bench_embed.import_engines()
    spec = spec_of(args, args.fp16 and provider != "cpu")
    crew = sf.Crew(sf.replace(spec, provider=provider), sf.WorkOptions(threads=args.threads))
    sf.keep_freed_memory()
    out = folder / name
    out.mkdir()
    options = sf.ScanOptions(passes=sf.Passes(decode=args.decode))
    warm = folder / f"{name}-warm"
    warm.mkdir()
    for path in photos_of(folder)[:: max(1, len(photos_of(folder)) // WARM_UP)]:
        (warm / path.name).symlink_to(path)
    sf.embed_library([warm], out / "warm.npz", crew, options)
    start = time.perf_counter()
    sf.embed_library([folder / "photos"], out / "cache.npz", crew, options)
    seconds = time.perf_counter() - start
    cache = sf.load_cache(out / "cache.npz")
    photo = np.array([Path(path).name for path in cache.file_path])[cache.face_file]
    np.savez(out / "faces.npz", photo=photo, bbox=cache.bbox, embedding=cache.embedding)
    return len(photos_of(folder)) / seconds


WORKERS = {
    "decode": measure_decoding,
    "models": measure_models,
    "plain": measure_plain_loop,
    "embed": measure_embed,
    "cpu": measure_embed_on_cpu,
}


if __name__ == "__main__":
    sys.exit(main())
