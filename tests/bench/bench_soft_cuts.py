"""Dissolves, wipes and fades between pieces of real films: how many are found, and where they end.

    python tests/bench/bench_soft_cuts.py FOLDER [--seed N] [--soft-cuts MODEL.onnx]
    python tests/bench/bench_soft_cuts.py FOLDER --clips PACK [--seed N] [--soft-cuts MODEL.onnx]

FOLDER: where the made films go; ffmpeg's xfade joins pieces of the shared films. The negative ones
are the shared films themselves, and shared group photos that a camera pans over, zooms into, turns
away from, or that a flash, a lamp or a flickering light falls on.

With --clips, pieces that show faces are joined by more kinds of transitions, `video run` cuts the
films with the face models PACK, and the clips are counted that go through a transition, or begin or
end more than a frame inside one. The constants of work/soft_cuts.py were chosen on seeds 1 and 2. A
camera that turns by just the width of the picture is a slide, and is not among the films here.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import SHARED, print_table, sf

film_reading, film_pass = sf.companion("film_reading"), sf.companion("film_pass")

PIECES = (  # (film, start s, length s) without a cut in it
    ("mixtape.mp4", 0.1, 5.7), ("mixtape.mp4", 9.1, 7.7), ("mixtape.mp4", 17.1, 4.7),
    ("mixtape.mp4", 22.1, 6.7), ("mixtape.mp4", 29.1, 5.7), ("mixtape.mp4", 35.1, 4.7),
    ("mixtape.mp4", 48.0, 8.0), ("marlin_video04.mp4", 1.0, 8.0),
    ("rope_target-1080p.mp4", 0.5, 8.0), ("ff_dance-360p.mp4", 1.0, 8.0),
    ("dlc_DemoTwoFace.mp4", 0.5, 8.0), ("psd_issue-134-rotate.mp4", 0.2, 3.4),
    ("psd_goldeneye-vfr-drop3.mp4", 0.2, 3.4), ("pyfeat_no_face.mp4", 0.1, 3.6),
)  # fmt: skip
KINDS = ("fade", "dissolve", "fadegrays", "fadeblack", "fadewhite", "wipeleft", "wipeup", "diagtl",
         "radial", "circleopen", "smoothleft", "pixelize", "hblur", "slideleft")  # fmt: skip
MORE_KINDS = (*KINDS, "slideright", "slideup", "slidedown", "coverleft", "coverdown", "revealright",
              "revealup", "circleclose", "diagbr", "wipetr", "rectcrop", "horzopen", "vertclose",
              "smoothup", "fadeslow", "squeezeh")  # fmt: skip
FACES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12)  # of PIECES, those that show faces of a size for clips
LENGTHS = (0.32, 0.6, 1.0, 1.6, 2.0)  # s
# Of a transition, on both sides, in which only the one picture shows: libavfilter/vf_xfade.c.
STILL = {"circleopen": 1 / 6, "circleclose": 1 / 6, "radial": 0.1}
RATE = 25  # frames per second
LONGEST = 4.5  # s; of a piece
ENCODED = ("-an", "-r", "25", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20",
           "-pix_fmt", "yuv420p", "-y")  # fmt: skip
FITTED = (
    "fps=25,scale=640:360:force_original_aspect_ratio=decrease,pad=640:360:-1:-1,setsar=1,"
    "format=yuv420p,settb=1/12800"
)
PANS = "crop=640:360:'min(iw-640,abs(mod(t*{},2*(iw-640))-(iw-640)))':'ih/3'"
NOT_CUTS = {  # name: filter over a photo that stands still for five seconds
    **{f"pan {speed} px/s": f"scale=2400:-2,{PANS.format(speed)}" for speed in (100, 400, 1200)},
    "zoom": "scale=1920:-2,zoompan=z='min(1+in/25,5)':d=1:s=640x360:fps=25:x='iw/2-iw/zoom/2':"
            "y='ih/2-ih/zoom/2'",
    **{f"turn by {px} px": f"scale=2400:-2,crop=640:360:'{px}*clip((t-2)/0.6\\,0\\,1)':'ih/3'"
       for px in (512, 960, 1760)},
    "flash": "scale=640:-2,eq=brightness='if(lt(mod(t,2),0.12),0.8,0)':eval=frame",
    "lamp": "scale=640:-2,eq=brightness='-0.45*clip(mod(t,4)-1,0,1)':eval=frame",
    "flicker": "scale=640:-2,eq=brightness='0.25*sin(t*6)':eval=frame",
}  # fmt: skip


def ffmpeg(*args: object) -> None:
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *map(str, args)]
    subprocess.run(command, check=True)


def make_transitions(
    folder: Path, seed: int, pieces: Sequence[tuple], kinds: Sequence[str]
) -> Iterator[tuple[Path, str, float, float]]:
    """(film, kind, start s, end s of the transition)."""
    rng, films = random.Random(seed), SHARED / "data/videos"
    for number, kind in enumerate(kinds):
        pair, length = rng.sample(pieces, 2), LENGTHS[number % len(LENGTHS)]
        lasts = [min(piece[2], LONGEST) for piece in pair]
        length = length if min(lasts) - length >= 1.2 else 0.6
        path, at = folder / f"{number:02d} {kind} {length}.mp4", lasts[0] - length
        if not path.exists():
            inputs = [["-ss", p[1], "-t", last, "-i", films / p[0]]
                      for p, last in zip(pair, lasts, strict=True)]  # fmt: skip
            over = f"xfade=transition={kind}:duration={length}:offset={at:.3f}"
            graph = f"[0:v]{FITTED}[a];[1:v]{FITTED}[b];[a][b]{over}"
            ffmpeg(*inputs[0], *inputs[1], "-filter_complex", graph, *ENCODED, path)
        still = STILL.get(kind, 0) * length
        yield path, kind, at + still, at + length - still


def make_others(folder: Path) -> Iterator[Path]:
    """Films without a transition."""
    yield from (SHARED / "data/videos" / name for name in sorted({piece[0] for piece in PIECES}))
    for photo in sorted((SHARED / "data/groups").rglob("*.jpg"))[:8]:
        for name, graph in NOT_CUTS.items():
            path = folder / f"{photo.stem} {name.replace('/', ' ')}.mp4"
            if not path.exists():
                ffmpeg("-loop", 1, "-t", 5, "-i", photo, "-vf", graph, *ENCODED, path)
            yield path


def spans_of(path: Path, network: Any) -> tuple[list[tuple[float, float]], list[float], float]:
    """(transitions, hard cuts, length) of a film in seconds."""
    facts = path.stat()
    video = film_reading.video_facts(str(path), facts.st_size, facts.st_mtime_ns)
    once = film_pass.VideoPass(video, 1.0, None, None, network)
    for _ in once.samples():
        pass
    found = [tuple(video.seconds(np.array(span))) for span in once.finder.soft.transitions()]
    return found, [float(video.seconds(cut)) for cut in once.finder.cuts], video.duration


def find(folder: Path, seed: int, network: Any) -> None:
    """How many transitions are found, and what is found where there is none."""
    rows: dict[str, dict[str, object]] = {}
    extra = 0
    for path, kind, start, end in make_transitions(folder, seed, PIECES, KINDS * 3):
        found, cuts, _ = spans_of(path, network)
        row = rows.setdefault(kind, {"kind": kind, "made": 0, "found": 0, "hard cut": 0,
                                     "begins late": 0, "ends early": 0})  # fmt: skip
        own = [span for span in found if span[0] < end and span[1] > start]
        extra += len(found) - len(own)
        row["made"] += 1
        row["found"] += bool(own)
        row["hard cut"] += not own and any(start - 0.1 < cut < end + 0.1 for cut in cuts)
        if own:
            late = (own[0][0] - start) / (end - start), (end - own[-1][1]) / (end - start)
            row["begins late"] = max(row["begins late"], round(late[0], 2))
            row["ends early"] = max(row["ends early"], round(late[1], 2))
    print_table("made transitions; late and early in shares of their length", [*rows.values()])
    seconds = count = 0.0
    for path in make_others(folder):
        found, _, length = spans_of(path, network)
        seconds, count = seconds + length, count + len(found)
        if found:
            print(f"{path.name}: {[tuple(np.round(span, 2).tolist()) for span in found]}")
    print(f"extra in made films: {extra}; in {seconds / 60:.1f} minutes without one: {count:g}")


def cut(folder: Path, seed: int, pack: Path, network: Path | None) -> None:
    """How many clips of `video run` go through a transition, or begin or end inside one."""
    films = folder / "films"
    films.mkdir(exist_ok=True)
    pieces = [PIECES[at] for at in FACES]
    made = [*make_transitions(films, seed, pieces, MORE_KINDS * 2)]
    work, clips = folder / "work", folder / "clips"
    told = ["--soft-cuts", network] if network else []
    sf.main([*map(str, ("video", "run", films, work, clips, "--model", pack, "-q", *told))])
    segments = json.loads((work / "plan.json").read_text())["segments"]
    rows: dict[str, dict[str, object]] = {}
    for path, kind, start, end in made:
        row = rows.setdefault(kind, {"kind": kind, "films": 0, "clips": 0, "through": 0,
                                     "inside": 0, "most frames": 0})  # fmt: skip
        row["films"] += 1
        within = np.arange(2 * LONGEST * RATE) / RATE
        within = within[(within > start + 1e-3) & (within < end - 1e-3)]
        for clip in segments:
            if clip["source"] != str(path.resolve()):
                continue
            frames = int(((within >= clip["start"] - 1e-3) & (within < clip["end"] - 1e-3)).sum())
            through = frames == len(within)
            row["clips"] += 1
            row["through"] += through
            row["inside"] += frames > 1 and not through
            row["most frames"] = max(row["most frames"], 0 if through else frames)
            if frames > 1:
                print(f"{path.name}: {clip['start']} to {clip['end']} s, {frames} of {len(within)} "
                      f"frames between {start:.2f} and {end:.2f} s")  # fmt: skip
    whole = {"kind": "all", **{k: sum(row[k] for row in rows.values()) for k in list(row)[1:-1]}}
    whole["most frames"] = max(row["most frames"] for row in rows.values())
    print_table("clips of films with one transition each", [*rows.values(), whole])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder", type=Path)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--clips", type=Path, metavar="PACK")
    p.add_argument("--soft-cuts", type=Path, metavar="MODEL.onnx")
    args = p.parse_args()
    folder, network = args.folder, args.soft_cuts
    folder.mkdir(parents=True, exist_ok=True)
    if args.clips:
        cut(folder, args.seed, args.clips, network)
    else:
        find(folder, args.seed, network and sf.companion("transnet").load(network, None))


if __name__ == "__main__":
    main()
