"""The one decode of a film, and how far it has come: after a kill it goes on from there.

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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import sort_faces as sf

if TYPE_CHECKING:
    from fractions import Fraction

    from av import VideoFrame

film_reading, film_times = sf.companion("film_reading"), sf.companion("film_times")
soft_cuts = sf.companion("soft_cuts")

SAVE_EVERY = 10.0  # s of work between two lines; what a kill costs
SCENE_LENGTH = 0.5  # s; shortest scene; PySceneDetect's 15 frames are 0.6 s at 25 fps
SCENE_MEMORY = 1.0  # s; after so long without a cut the finder knows nothing of what was before
GROWING = ("cuts", "jumps", "keys", "found", "flat", "sure", "hot")  # lists that a line adds to
SEEN_AGAIN = 12  # frames at least that the finder sees again: more than twice its window


class VideoPass:
    """One sequential decode of a video: finds its scenes and yields the frames to look at.

    log: where it writes down how far it is (PassLog), to go on there after a kill.
    network: transnet.Network, where one is asked for transitions, too.
    """

    def __init__(
        self,
        video: sf.Video,
        rate: float,
        skip: Callable[[int], bool] | None,
        log: Any = None,
        network: Any = None,
    ) -> None:
        self.video, self.period, self.skip, self.log = video, 1.0 / rate, skip, log
        self.network = network
        self.hwaccel = ""  # open_video
        self.line: Any = None  # film_times.Timeline
        self.begin()

    def begin(self) -> None:
        """Know nothing of its frames."""
        self.finder = sf.companion("scene_finder").SceneFinder(self.video, self.network)
        self.pts: list[int] = []
        self.error = ""
        self.last_length = 0
        self.newest = -1  # slot of the newest frame asked about

    def is_due(self, frame: VideoFrame) -> bool:
        """Whether a frame is one to look at; asked of each, in the order of their times."""
        before, self.newest = self.newest, self.slot(frame.pts)
        return self.newest > before

    def samples(self) -> Iterator[tuple[int, np.ndarray | None]]:
        """Yield (pts, upright picture) of each sampled frame; without a picture where `skip`."""
        video, lost = self.video, Counter()
        try:
            with film_reading.open_video(video.path, self.hwaccel) as opened:
                known = self.log.joined() if self.log else None
                self.line = line = film_times.Timeline(*opened, known)
                for frame in self.frames(line, lost):
                    if frame.pts < video.start:
                        continue
                    self.pts.append(frame.pts)
                    self.last_length = frame.duration or self.last_length
                    self.finder.feed(frame)
                    if self.is_due(frame):
                        unwanted = self.skip is None or self.skip(frame.pts)
                        yield (
                            frame.pts,
                            None if unwanted else film_reading.upright_frame(frame, video.sar),
                        )
                    if self.log:
                        self.log.save(self, line, lost["frames"])
        except sf.VideoError as error:
            if not self.pts:
                raise
            self.error = str(error)  # what came before it is as good as ever
        if lost["frames"] > video.fps:
            self.error = self.error or f"time stamps jump back; {lost['frames']} frames not used"

    def slot(self, pts: int) -> int:
        """The number of the sampling period that a frame lies in."""
        return math.floor(self.video.seconds(pts) / self.period + 1e-6)

    def frames(self, line: Any, lost: Counter) -> Iterator[VideoFrame]:
        """All frames of the video, or those that a pass before this one has not seen."""
        known = self.log.known if self.log else None
        if known and known.pts:
            try:
                frames = self.log.go_on(self.finder, line)
                first = next(frames, None)
            except LookupError:
                self.log.forget()
                self.begin()
                line.begin()
            else:
                self.pts, self.last_length, lost["frames"] = known.pts, known.length, known.lost
                self.newest = self.slot(known.pts[-1])
                yield from itertools.chain([] if first is None else [first], frames)
                return
        yield from line.rising(lost)

    @property
    def joined(self) -> sf.Joined | None:
        """Where its time begins anew, as far as it was read."""
        return self.line.joined() if self.line else None

    def scenes(self) -> list[list[int]]:
        """Scenes [first frame, frame after the last) in pts of the frames so far; the last is open.

        The last few seconds may still be divided otherwise by frames to come.
        """
        length = self.last_length or (self.pts[-1] - self.pts[0]) // max(1, len(self.pts) - 1) or 1
        near = SCENE_LENGTH / self.video.tick
        ends = self.pts[0], self.pts[-1] + length
        scenes = sf.scenes_between(*ends, self.finder.cuts, self.finder.jumps, near)
        snap = [*self.pts, ends[1]]  # a scene begins with a frame
        gaps = [
            (snap[bisect.bisect_left(self.pts, low)], snap[bisect.bisect_left(self.pts, high)])
            for low, high in self.finder.soft.transitions()
        ]
        return sf.scenes_beside(scenes, gaps, near) or scenes

    def result(self) -> sf.Scenes:
        """What is known once all samples are taken."""
        return sf.Scenes(
            video=self.video.id,
            scenes=self.scenes(),
            frames=len(self.pts),
            first=self.pts[0],
            steps=sf.pack_steps(self.pts),
            error=self.error,
            joined=self.joined,
            soft_cuts=self.network.name if self.network else "",
        )


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

    def save(self, once: VideoPass, line: Any, lost: int) -> None:
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
    seconds: float = SCENE_MEMORY,
    frames: int = SEEN_AGAIN,
) -> int:
    """Index of the frame from which on the finder sees what led up to the first `count` again."""
    low = pts[count - 1] - round(seconds / base)
    return max(0, min(bisect.bisect_left(pts, low), count - frames))
