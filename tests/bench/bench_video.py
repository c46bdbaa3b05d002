"""One decode against two passes, score on 100,000 frames, and the speed of detection.

    python tests/bench/bench_video.py [VIDEO ...] [--model PACK] [--rounds N]

Without VIDEO: the shared films, where they are. Everything but detection runs without a model:
decode, scenes, sampling to BGR, tracking and scoring (of made-up faces at the sampled times),
against ffmpeg decoding the same file into nothing, and against PySceneDetect (its defaults)
followed by a second decode for the samples. The ways take turns, the medians are compared.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import SHARED, machine, median, print_table, sf

film_reading, film_pass = sf.companion("film_reading"), sf.companion("film_pass")

USUAL = ("mixtape.mp4", "marlin_video04.mp4", "rope_target-1080p.mp4")
FACES = 2  # made-up faces per sampled frame


def ffmpeg_decode(path: str) -> None:
    import shutil

    import imageio_ffmpeg

    ffmpeg = shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run(
        [ffmpeg, "-v", "error", "-i", path, "-map", "0:v:0", "-f", "null", "-"], check=True
    )


def pyav_decode(path: str) -> None:
    with film_reading.open_video(path) as opened:
        for _ in film_reading.decoded(*opened):
            pass


def samples_in_a_second_pass(video: sf.Video) -> None:
    """What the original's worker did: decode again in sequence and convert two frames a second."""
    slot = -1
    with film_reading.open_video(video.path) as opened:
        for frame in film_reading.decoded(*opened):
            now = int(video.seconds(frame.pts) * sf.Sampling.sample_rate + 1e-6)
            if now > slot:
                slot = now
                film_reading.upright_frame(frame, video.sar)


def two_passes(video: sf.Video) -> None:
    import scenedetect

    scenedetect.detect(video.path, scenedetect.AdaptiveDetector())
    samples_in_a_second_pass(video)


def one_pass(video: sf.Video) -> None:
    """The pipeline without inference: made-up faces stand in for found ones."""
    once = film_pass.VideoPass(video, sf.Sampling.sample_rate, lambda pts: False)
    pts = [pts for pts, _ in once.samples()]
    scenes = once.result().scenes
    n = len(pts) * FACES
    rng = np.random.default_rng(0)
    bbox = np.tile(np.array([[50, 50, 170, 190], [300, 50, 420, 190]], np.float32), (len(pts), 1))
    seen = {
        "video": np.full(n, video.id),
        "pts": np.repeat(pts, FACES),
        "bbox": bbox,
        "det": np.full(n, 0.8, np.float32),
        "pose": rng.normal(0, 20, (n, 3)).astype(np.float32),
        "embedding": np.tile(rng.normal(size=(FACES, 512)), (len(pts), 1)).astype(np.float32),
        "look": np.full((n, 2), np.nan, np.float32),
        "kps": np.full((n, 5, 2), np.nan, np.float32),
    }
    faces = sf.Frames(meta=None, **seen)
    tracks = sf.video_tracks(video, scenes, np.array(pts), faces, sf.Reach())
    gates = sf.Gates()
    good = [track for track in tracks if not sf.track_fault(track, gates)]
    sf.merge_segments([s for t in good for s in sf.track_segments(t, gates, 0.5)], gates)


def seconds(function: Callable, *args: object) -> float:
    began = time.perf_counter()
    function(*args)
    return time.perf_counter() - began


def cost(function: Callable, *args: object) -> tuple[float, float]:
    """(wall, processor) seconds, those of child processes included."""
    before = os.times()
    wall = seconds(function, *args)
    return wall, sum(os.times()[:4]) - sum(before[:4])


def compare(path: Path, rounds: int) -> dict[str, object]:
    """Medians of `rounds` turns over one file."""
    facts = path.stat()
    video = film_reading.video_facts(str(path), facts.st_size, facts.st_mtime_ns)
    ways: dict[str, tuple[Callable, object]] = {
        "ffmpeg": (ffmpeg_decode, video.path),
        "pyav": (pyav_decode, video.path),
        "one pass": (one_pass, video),
        "two passes": (two_passes, video),
    }
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            costs[name].append(cost(*way))
    row: dict[str, object] = {"video": path.name, "size": f"{video.width}x{video.height}"}
    for name, pairs in costs.items():
        row[f"{name} s"], row[f"{name} cpu"] = (median(side) for side in zip(*pairs, strict=True))
    return row


def with_ratios(row: dict[str, float]) -> dict[str, object]:
    """A row without the processor seconds, and what the issue asks: at most 1.5, at least 1.7."""
    ratios = {}
    for unit in ("s", "cpu"):
        one = row[f"one pass {unit}"]
        mark = " (cpu)" * (unit == "cpu")
        ratios[f"of ffmpeg{mark}"] = one / row[f"ffmpeg {unit}"]
        ratios[f"two passes take{mark}"] = row[f"two passes {unit}"] / one
    return {**{key: value for key, value in row.items() if not key.endswith("cpu")}, **ratios}


def score_rows(frames: int = 100_000, length: int = 50) -> dict[str, object]:
    """Read, gate and merge made-up tracks."""
    rng = np.random.default_rng(0)
    time_ = np.arange(length) * 0.5
    tracks = []
    for number in range(frames // length):
        short = rng.uniform(60, 300, (length, 1))
        bbox = np.hstack([np.zeros((length, 2)), short, short])
        scene = (30.0 * number, 30.0 * number + length / 2)
        track = sf.Track(str(number), "v", scene, scene, time_ + scene[0], bbox,
                         rng.uniform(0.4, 1, length), rng.normal(0, 25, (length, 3)),
                         rng.normal(size=512).astype(np.float32))  # fmt: skip
        tracks.append(sf.track_json(track))

    def score() -> None:
        gates = sf.Gates()
        read = (sf.as_record(sf.Track, track) for track in tracks)
        good = [track for track in read if not sf.track_fault(track, gates)]
        for track in good:
            sf.merge_segments(sf.track_segments(track, gates, 0.5), gates)

    return {"frames": frames, "tracks": len(tracks), "score s": seconds(score)}


def detect_row(path: Path, model: str, threads: int) -> dict[str, object]:
    """Frames per second of detector, recogniser and pose on decoded samples."""
    facts = path.stat()
    video = film_reading.video_facts(str(path), facts.st_size, facts.st_mtime_ns)
    once = film_pass.VideoPass(video, sf.Sampling.sample_rate, lambda pts: False)
    images = [image for _, image in once.samples() if image is not None][:40]
    engine = sf.load_engine(sf.EngineSpec(model=model, landmarks=True), threads)
    sf.frame_result(engine, images[0], True)
    began = time.perf_counter()
    work = lambda image: sf.frame_result(engine, image, True)  # noqa: E731
    faces = sum(len(r["faces"]) for r in sf.ordered_map(work, images, threads))
    rate = len(images) / (time.perf_counter() - began)
    return {"model": Path(model).name, "video": path.name, "frames": len(images), "faces": faces,
            "threads": threads, "frames/s": rate}  # fmt: skip


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("videos", nargs="*", type=Path)
    p.add_argument("--model", default="dlib")
    p.add_argument("--rounds", type=int, default=5)
    args = p.parse_args()
    videos = args.videos or [SHARED / "data/videos" / name for name in USUAL]
    print(machine())
    rows = [compare(path, args.rounds) for path in videos]
    total = {k: sum(row[k] for row in rows) for k in rows[0] if k.endswith((" s", " cpu"))}
    rows.append({"video": "all", "size": "", **total})
    print_table("without inference, median of turns", [with_ratios(row) for row in rows])
    print_table("score", [score_rows()])
    threads = sf.usable_cores()
    print_table("detect", [detect_row(path, args.model, threads) for path in videos])


if __name__ == "__main__":
    main()
