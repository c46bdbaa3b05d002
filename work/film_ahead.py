"""Looks at frames while a film is decoded, before it is known which of them are chosen in the end.

film_sampling chooses among the samples of a scene, from what was found in some of them. Here that
is done with what is known so far: a few pictures are held until what lies on both sides of them was
looked at. What this looks at too much does not count, what it misses is decoded once more by the
step `detect`: the outcome is the same.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

import sort_faces as sf

film_pass, film_sampling = sf.companion("film_pass"), sf.companion("film_sampling")

HELD_BYTES = 256_000_000  # of pictures that may still be looked at


@dataclass
class Held:
    """A sample of the film at hand."""

    pts: int
    slot: int  # number of the sampling period it lies in
    image: np.ndarray | None


class LookAhead:
    """Finds the faces of frames for a FrameLog as VideoPass yields them."""

    def __init__(self, frames: sf.FrameLog, sampling: sf.Sampling) -> None:
        self.frames, self.crew = frames, frames.crew
        self.rate, self.steps = sampling.sample_rate, film_sampling.rule_steps(sampling)
        self.jobs: deque[tuple[str, int, Future]] = deque()  # (video, pts, what is found)
        self.asked: set[tuple[str, int, bool]] = set()
        self.window: list[Held] = []  # from a sample that is always looked at on
        self.once: film_pass.VideoPass | None = None

    def begin(self, once: film_pass.VideoPass) -> None:
        """The samples that come now are those of another film."""
        if self.once is not None:
            self.finish()
        self.once, self.video = once, once.video
        self.asked.clear()
        self.opens = self.close = False  # film_sampling.Rule, of what the window begins with

    def look(self, samples: Iterable[sf.Sample]) -> Iterator[None]:
        """Yields once for each sample."""
        with ThreadPoolExecutor(max_workers=self.crew.threads) as self.pool:
            try:
                for video, pts, image in samples:
                    slot = film_sampling.slots_of(video, np.array([pts]), self.rate)
                    self.opens = self.opens or (not self.window and len(self.once.pts) == 1)
                    self.window.append(Held(pts, int(slot[0]), image))
                    self.advance(False)
                    yield None
                if self.once is not None:
                    self.finish()
            finally:
                self.pool.shutdown(wait=True, cancel_futures=True)

    def finish(self) -> None:
        """Look at what is left of a film."""
        while self.advance(True):
            self.collect(1)
        self.collect(len(self.jobs))
        self.window.clear()

    def advance(self, over: bool) -> bool:
        """Look at what is asked for now; True while more may be. over: no sample follows."""
        if not self.window:
            return False
        while self.jobs and self.jobs[0][2].done():
            self.collect(1)
        waiting = self.submit(over)
        while self.window and self.is_busy():
            self.collect(1)
            waiting = bool(self.window) and self.submit(over)
        while self.is_full() and len(self.window) > 1:  # detect decodes it again
            self.window.pop(0)
            self.opens = False
        return bool(waiting and self.jobs)

    def is_busy(self) -> bool:
        """Whether some must be done before more is asked for."""
        return len(self.jobs) > 2 * self.crew.threads or (bool(self.jobs) and self.is_full())

    def is_full(self) -> bool:
        return sum(h.image.nbytes for h in self.window if h.image is not None) > HELD_BYTES

    def collect(self, count: int) -> None:
        """Wait for the oldest jobs and note what they found."""
        for _ in range(count):
            video, pts, job = self.jobs.popleft()
            self.frames.store(video, pts, job.result())

    def submit(self, over: bool) -> bool:
        """Ask for what is missing and let go of what is settled; whether anything is missing."""
        seen, waiting = self.frames.known.of(self.video.id), False
        pieces = self.pieces(over)
        for number, piece in enumerate(pieces):
            begins = {"opens": self.opens, "close": self.close} if number == 0 else {}
            about = [held.pts for held in piece], [held.slot for held in piece], seen
            rule = film_sampling.Rule(*about, **self.steps, **begins).choose()
            waiting = waiting or bool(rule.missing)
            self.ask(piece, rule.missing)
            if number == 0:
                first = piece, rule, number < len(pieces) - 1
        if pieces:
            self.settle(*first)
        return waiting

    def pieces(self, over: bool) -> list[list[Held]]:
        """The window, scene by scene; the last is open, and ends with a sample always looked at."""
        pts = [held.pts for held in self.window]
        cuts = self.once.finder.cuts
        inside = {bisect.bisect_left(pts, cut) for cut in cuts[bisect.bisect(cuts, pts[0]) :]}
        edges = sorted({0, *inside, len(pts)})
        pieces = [self.window[low:high] for low, high in itertools.pairwise(edges)]
        if not over:
            last = pieces[-1][:-1]  # whether a cut lies before the newest is not known yet
            while len(last) > 1 and last[-1].slot % self.steps["step"]:
                last.pop()
            pieces[-1] = last
        return [piece for piece in pieces if piece]

    def ask(self, piece: list[Held], missing: dict[int, bool]) -> None:
        """Let frames be looked at whose pictures are still there."""
        engine, landmarks = self.crew.engine(), self.crew.spec.landmarks
        for held in piece:
            look = (self.video.id, held.pts, missing.get(held.pts, False))
            asked = look in self.asked or any(job[:2] == look[:2] for job in self.jobs)
            if held.pts not in missing or held.image is None or asked:
                continue
            self.asked.add(look)
            about = engine, held.image, landmarks, look[2]
            self.jobs.append((*look[:2], self.pool.submit(see, *about)))

    def settle(self, piece: list[Held], rule: film_sampling.Rule, ended: bool) -> None:
        """Let go of the beginning of the window, of which nothing more is asked.

        ended: the scene at the beginning of the window, `piece` of it, goes no further.
        """
        if ended and not rule.missing:
            self.window = [held for held in self.window if held.pts > piece[-1].pts]
            self.opens, self.close = True, False
            return
        fixed = [held.pts for held in piece if held.slot % self.steps["step"] == 0]
        low = max((p for p in fixed if p < min(rule.missing, default=math.inf)), default=0)
        if low > piece[0].pts:
            self.window = [held for held in self.window if held.pts >= low]
            self.opens, self.close = False, rule.close


def see(engine: sf.Engine, image: np.ndarray, landmarks: bool, border: bool) -> sf.Result:
    """frame_result, as one of several at a time."""
    with sf.DECODING.work():
        return sf.frame_result(engine, image, landmarks, border)
