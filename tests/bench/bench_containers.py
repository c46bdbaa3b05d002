"""Clips of made films of every container and codec: frames, drift, sound, tags, warnings.

    python tests/bench/bench_containers.py [WORD]

Makes the films of tests/video_material.py (those whose name has WORD in it), cuts 40 frames off
every key frame out of each (60 over the join of a joined one) in the three modes, and prints the
table of docs/analysis/video.md. Every frame shows its number and the sound is a tone that rises.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import ROOT, machine, sf

sys.path.insert(0, str(ROOT / "tests"))

import clip_measures as measures
from video_material import MADE, Made, joined_twice

MODES = ("smart", "copy", "encode")


def row(name: str, made: Made, folder: Path) -> Iterator[str]:
    """The cells of a film."""
    path = made.make(folder / name.replace(" ", "-").replace(":", ""))
    source = measures.shown_in(path)
    twice = made.then is joined_twice
    last = len(source.numbers) * 4 // 5
    cut = measures.cut_of(path, folder / "clip.mp4", *((50, 110) if twice else (20, last)))
    yield name
    lost: dict[str, None] = {}
    told: dict[str, None] = {}
    warnings = 0
    for mode in MODES:
        try:
            found = measures.measure(cut, mode, source)
        except sf.VideoError as error:
            yield f"failed: {error}"
            continue
        sound = "" if math.isnan(found.sound) else f", {1000 * found.sound:+.1f}"
        way = "" if found.mode == mode else f" {found.mode}"
        yield f"{found.frames[0]}/{found.frames[1]}, {1000 * found.drift:.1f}{sound}{way}"
        warnings += len(found.warnings)
        lost |= dict.fromkeys(found.lost)
        told |= dict.fromkeys(found.notes)
    yield "; ".join(told) or "; ".join(lost)
    yield str(warnings)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("word", nargs="?", default="")
    args = p.parse_args()
    print(machine())
    head = ["film", *(f"{mode}: frames, drift, sound ms" for mode in MODES), "not kept", "warnings"]
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    with tempfile.TemporaryDirectory() as folder:
        for name, made in MADE.items():
            if args.word in name:
                print(f"| {' | '.join(row(name, made, Path(folder)))} |", flush=True)


if __name__ == "__main__":
    main()
