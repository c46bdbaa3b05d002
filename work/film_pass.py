"""How far the one decode of a film has come, so that a kill late in a long film goes on from there.

scenes/<id>.part.jsonl grows by a line every few seconds: the frames since the line before, and what
they told the scene finder. Going on, the finder sees the last of those frames again, from where
none of its cuts lie near, and then knows what it knew.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sort_faces as sf

if TYPE_CHECKING:
    from fractions import Fraction

    from av import VideoFrame

film_times, soft_cuts = sf.companion("film_times"), sf.companion("soft_cuts")

SAVE_EVERY = 10.0  # s of work between two lines; what a kill costs
GROWING = ("cuts", "jumps", "keys", "found", "flat", "sure", "hot")  # lists that a line adds to
SEEN_AGAIN = 12  # frames at least that the finder sees again: more than twice its window


class Progress(sf.Record):
    """A line: what a pass has learned since the line before."""

    after: sf.Pts | None  # the last frame of the line before; None: this is the first
    first: sf.Pts  # frame of this line
    steps: list[tuple[sf.PositiveInt, sf.PositiveInt]]  # pack_steps
    cuts: list[sf.Pts]
    jumps: list[sf.Pts]
    keys: list[tuple[sf.Pts, int]]
    found: list[tuple[sf.Pts, sf.Pts]]  # of soft_cuts.SoftCuts
    flat: list[tuple[sf.Pts, sf.Pts]]
    joins: list[sf.Join]  # all of them so far
    shape: tuple[int, ...]  # of the finder's pictures
    length: int  # pts; of the last frame
    lost: int  # frames not used so far
    sure: tuple[tuple[sf.Pts, sf.Pts], ...] = ()
    hot: tuple[tuple[sf.Pts, sf.Pts, float, sf.PositiveInt], ...] = ()  # of transnet.Windows
    soft_cuts: str = ""  # its network


@dataclass
class Known:
    """What all lines say together."""

    pts: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    jumps: list[int] = field(default_factory=list)
    keys: list[tuple[int, int]] = field(default_factory=list)
    found: list[tuple[int, int]] = field(default_factory=list)
    flat: list[tuple[int, int]] = field(default_factory=list)
    sure: list[tuple[int, int]] = field(default_factory=list)
    hot: list[tuple[int, int, float, int]] = field(default_factory=list)
    joins: list[sf.Join] = field(default_factory=list)
    shape: tuple[int, ...] | None = None
    length: int = 0
    lost: int = 0

    def add(self, line: Progress) -> bool:
        """Take the next line; False if it does not follow the ones before."""
        if line.after != (self.pts[-1] if self.pts else None):
            return False
        self.pts += sf.unpack_steps(line.first, line.steps).tolist()
        for name in GROWING:
            getattr(self, name).extend(getattr(line, name))
        self.joins, self.shape = line.joins, line.shape
        self.length, self.lost = line.length, line.lost
        return True


class PassLog(sf.AppendOnly):
    """scenes/<id>.part.jsonl of one video."""

    def __init__(self, path: Path, soft_cuts: str = "") -> None:
        """soft_cuts: what Scenes say of the network that is asked; lines of another are no use."""
        super().__init__(path)
        self.known, self.soft_cuts = Known(), soft_cuts
        read = functools.partial(sf.as_record, Progress)
        lines = sf.sound_lines(path, read, "the film is decoded again") if path.exists() else ()
        whole = [  # read to the end before it is removed
            line.soft_cuts == soft_cuts and self.known.add(line) for line in lines
        ]
        if not all(whole):
            self.forget()
        self.began()

    def began(self) -> None:
        """From now on a line says what is new."""
        self.saved = time.monotonic()
        known = self.known
        self.counts = {name: len(getattr(known, name)) for name in ("pts", *GROWING)}
        self.last = known.pts[-1] if known.pts else None

    def forget(self) -> None:
        """Begin again."""
        self.close()
        self.path.unlink(missing_ok=True)
        self.known = Known()
        self.began()

    def joined(self) -> sf.Joined | None:
        """What is known of the film's time; None: nothing."""
        return sf.Joined(self.known.joins, self.known.keys) if self.known.pts else None

    def go_on(self, finder: Any, line: Any) -> Iterator[VideoFrame]:
        """The frames after those that are known; the finder has seen the last of these again.

        line: film_times.Timeline. Raises LookupError where the file does not show them again.
        """
        known, again, base = self.known, [], line.stream.time_base
        at = warm_from(known.pts, len(known.pts), base, *soft_cuts.MEMORY)
        windows = finder.soft.windows
        if windows:
            at = windows.sleep(warm_from(known.pts, len(known.pts), base, *windows.MEMORY))
        both = known.pts[warm_from(known.pts, len(known.pts), base)]
        finder.shape = known.shape
        frames = film_times.sought(line, known.pts[at])
        for frame in frames:
            if frame.pts > known.pts[-1]:
                frames = itertools.chain([frame], frames)
                break
            finder.feed(frame, soft_only=frame.pts < both)
            again.append(frame.pts)
        if again != known.pts[at:]:
            raise LookupError("other frames than before")
        finder.cuts, finder.jumps = known.cuts, known.jumps
        finder.soft.found, finder.soft.flat = known.found, known.flat
        finder.soft.sure = known.sure
        if windows:
            windows.wake(known.hot)
        yield from frames

    def save(self, once: sf.VideoPass, line: Any, lost: int) -> None:
        """Write down what is new, if it is time and no cut lies near."""
        finder, count = once.finder, len(once.pts)
        if time.monotonic() - self.saved < SAVE_EVERY or count <= self.counts["pts"]:
            return
        calm = 2 * warm_from(once.pts, count, line.stream.time_base) - count
        if calm < 0 or max(finder.cuts[-1:], default=-math.inf) >= once.pts[calm]:
            return
        whole = {"pts": once.pts, "cuts": finder.cuts, "jumps": finder.jumps, "keys": line.keys}
        soft, windows = finder.soft, finder.soft.windows
        whole |= {"found": soft.found, "flat": soft.flat, "sure": soft.sure}
        whole["hot"] = windows.found if windows else []
        new = {name: some[self.counts[name] :] for name, some in whole.items()}
        pts = new.pop("pts")
        about = {"after": self.last, "first": pts[0], "steps": sf.pack_steps(pts)}
        about |= {"joins": line.joins, "shape": finder.shape, "lost": lost}
        about["soft_cuts"] = self.soft_cuts
        self.append(sf.as_json(Progress(**about, **new, length=once.last_length)))
        self.counts = {name: len(some) for name, some in whole.items()}
        self.saved, self.last = time.monotonic(), pts[-1]


def warm_from(
    pts: Sequence[int],
    count: int,
    base: Fraction,
    seconds: float = sf.SCENE_MEMORY,
    frames: int = SEEN_AGAIN,
) -> int:
    """Index of the frame from which on the finder sees what led up to the first `count` again."""
    low = pts[count - 1] - round(seconds / base)
    return max(0, min(bisect.bisect_left(pts, low), count - frames))
