"""Dissolves, wipes and fades: cuts that take a while, so that no frame is unlike the one before.

Twin comparison: two pictures up to three seconds apart that have nothing in common, while every
pixel between them lies between its two values. So it is in a dissolve, where all pixels go over
together, in a wipe, where each does at its own time, and in a fade, where the one picture is black
or white. A camera that pans, or somebody who walks through the picture, shows what neither of the
two pictures has there. Fades over a colour, which may be too short for that, and slides, in which
both pictures move, are looked for by themselves.

Looked at are thumbnails of the pictures that scene detection sees anyway, twelve and a half a
second: how fast the film runs plays no part.
"""

from __future__ import annotations

import bisect
import math
import types
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

import sort_faces as sf

film_reading, slides = sf.companion("film_reading"), sf.companion("slides")

if TYPE_CHECKING:
    from av import VideoFrame

EVERY = 0.08  # s between thumbnails
LONGEST = 3.0  # s; of a transition
SPANS = (3, 5, 8, 12, 17, 23, 30, 37)  # thumbnails from the picture before to the one after
BESIDE = 2  # thumbnails before and after that must be calm
SIZE = (16, 9)  # px
UNLIKE = 22.0  # mean levels between the two pictures at least
COMMON = 0.6  # correlation of the two at most
OUTSIDE = 0.16  # of the way from one picture to the other that pixels lie beside it, at most
CALM = 0.35  # the same of what moves before and after
JUMP = 0.6  # the same of a step from thumbnail to thumbnail: more is a cut
MOST_STEP = 0.85  # the same in mean levels, for a first look
BACK = 0.12  # the same of such a step back
BLACK = 24.0  # levels
FLAT = 24.0  # levels between the brightest and the darkest of a picture that shows nothing
EMPTY = 0.3  # s; shortest time of such pictures that separates two scenes
FEW_FOUND = 3  # times that a transition is found at least, with pictures a little farther apart
WIDER = 20  # percent of these times that it may begin earlier, and end later
MARGIN = 0.115  # of its length, that is given up on both sides, where a wipe takes few pixels
HALFWAY = 0.4  # of the pixels, that are half over in the middle of a wipe at most
FEW_PIXELS = 0.03  # of the pixels, that a wipe may have taken where it begins
FEWEST = 0.005  # the same of those it has taken for good, as it takes corners first
WIDENED = 0.4  # of its length, by which that makes it begin earlier and end later at most
BEGUN = 0.3  # of its way, that a pixel has gone that has begun it
GOES_ON = 1.0  # goes_on, of how far both ends are apart, at most; 0.02 to 0.95 in dissolves and
# wipes, pans and zooms from 1.12 on
INNER = (0.2, 0.8)  # the same between which a transition runs evenly
KEEP = SPANS[-1] + 2 * BESIDE + 1  # thumbnails that are compared
DIP = 0.3  # contrast in the middle of a fade over a colour, of that beside it, at most
FADED = 0.7  # the same of two of its thumbnails at least
RISE = 1.02  # times that contrast grows from thumbnail to thumbnail, at least, until it is over
MIXED = 0.25  # what a fade leaves unexplained of its pictures, of the contrast beside, at most
SLIDES = 2.0  # mean levels of a slide's last step at least
STOPS = 0.5  # of them after it, at most
ALONE = 2.0  # times the second largest of its steps, that the largest has at most; a cut has more
GOES = 0.1  # of the largest of its steps, that each of them has at least
SLIDE = 0.35  # what slides leave unexplained, of the way from one picture to the other, at most
# (s, frames): what a finder must have seen at least to find what another one does
MEMORY = (EVERY * (SPANS[-1] + 2 * BESIDE + 6), SPANS[-1] + 2 * BESIDE + 6)


class SoftCuts:
    """Finds transitions in the frames of a film, fed in display order.

    found: (pts of a frame before, pts of one after) of each, often several times.
    sure: the same of fades over a colour and of slides, which are found once.
    """

    def __init__(self, video: sf.Video) -> None:
        self.video = video
        self.windows: Any = None  # transnet.Windows, where a network is asked as well
        self.slot: int | None = None  # of the newest frame; None: no frame was seen
        self.pts: list[int] = []  # of the thumbnails
        self.store = np.zeros((4 * KEEP, SIZE[0] * SIZE[1] * 3), np.float32)
        self.end = 0  # of what is used of it
        self.steps: list[float] = []  # mean levels from each thumbnail to the next
        self.shook: list[float] = []  # mean levels from each thumbnail to those before it
        self.contrast: list[float] = []  # of each thumbnail
        self.found: list[tuple[int, int]] = []
        self.sure: list[tuple[int, int]] = []
        self.flat: list[tuple[int, int]] = []  # (thumbnail before, thumbnail that shows nothing)

    @property
    def table(self) -> np.ndarray:
        """(n, d) the thumbnails that are compared, row by row as in pts."""
        return self.store[self.end - len(self.pts) : self.end]

    def feed(self, pts: int, small: np.ndarray) -> None:
        """Take the next frame; small (h, w, 3) uint8."""
        if self.windows:
            self.windows.feed(pts, small)
        slot = math.floor(self.video.seconds(pts) / EVERY + 1e-6)
        begins, self.slot = slot != self.slot and self.slot is not None, slot
        if not begins:  # the first slot may have begun before the first frame that we see
            return
        self.append(pts, cv2.resize(small, SIZE, interpolation=cv2.INTER_AREA))
        if self.windows:
            self.windows.thumbnail()
        if len(self.pts) > 2 * BESIDE:
            self.look()
            self.look_for_dip()
            self.look_for_slide()

    def append(self, pts: int, thumb: np.ndarray) -> None:
        """Take the next thumbnail."""
        if self.end == len(self.store):
            self.store[: KEEP - 1] = self.store[-KEEP + 1 :]
            self.end = KEEP - 1
        row = self.store[self.end]
        row[:] = thumb.reshape(-1)
        beside = [apart(self.store[at], row) for at in range(max(0, self.end - BESIDE), self.end)]
        contrast = float(cv2.meanStdDev(cv2.cvtColor(thumb, cv2.COLOR_BGR2GRAY))[1][0, 0])
        if self.pts and contrast <= FLAT / 2 + 1 and np.ptp(thumb.reshape(-1, 3), 0).max() <= FLAT:
            self.flat.append((self.pts[-1], pts))
        if self.pts:
            self.steps = [*self.steps[-KEEP + 2 :], beside[-1]]
        self.shook = [*self.shook[-KEEP + 1 :], sum(beside) / BESIDE]
        self.contrast = [*self.contrast[-KEEP + 1 :], contrast]
        self.pts = [*self.pts[-KEEP + 1 :], pts]
        self.end += 1

    def transitions(self) -> list[tuple[int, int]]:
        """[first frame, frame after the last) in pts of what lies between two scenes, rising.

        That is what was found, and frames that show nothing, alone or beside that.
        """
        tick = self.video.tick
        spans = [span for span in joined(self.flat) if (span[1] - span[0]) * tick >= EMPTY]
        spans += self.sure
        if self.windows:
            self.windows.finish()
            spans += self.windows.transitions(tick)
        found = sorted(self.found)
        for low, high in joined(found):
            own = np.array(found[bisect.bisect(found, (low,)) : bisect.bisect(found, (high,))])
            if len(own) >= FEW_FOUND:
                ends = np.percentile(own[:, 0], WIDER), np.percentile(own[:, 1], 100 - WIDER)
                margin = MARGIN * (ends[1] - ends[0]) + EVERY / tick
                spans.append((round(ends[0] - margin), round(ends[1] + margin)))
        return joined(spans)

    def look(self) -> None:
        """Compare the newest picture with calm ones after it with those up to LONGEST before."""
        last, table = len(self.pts) - 1 - BESIDE, self.table
        after = table[last]
        spans = [span for span in SPANS if last - span >= BESIDE]
        # No picture is farther off than all steps to it together, and these only grow.
        while spans and sum(self.steps[last - spans[0] : last]) < UNLIKE:
            if sum(self.steps[last - spans[-1] : last]) < UNLIKE:
                return
            spans.pop(0)
        calm = sum(apart(one, after) for one in table[-BESIDE:]) / BESIDE
        for span in spans:
            first = last - span
            far = apart(table[first], after)
            if self.pts[last] - self.pts[first] > 2 * LONGEST / self.video.tick:
                return
            if far < UNLIKE or max(self.steps[first:last]) > MOST_STEP * far:
                continue
            if max(self.shook[first], calm) > CALM * far:
                continue
            before = table[first]
            if alike(before, after) > COMMON:
                continue
            if self.windows:
                self.windows.mark(span + BESIDE, BESIDE)
            part = table[first : last + 1]
            share = way_of(part, before, after)
            if share is not None:
                self.note(first, share, local_ends(part, before, after))

    def look_for_dip(self) -> None:
        """See whether the picture has gone into one colour and come back as another."""
        last, level = len(self.pts) - 1 - BESIDE, self.contrast
        low = min(level[:last])
        if low >= DIP * level[last]:
            return
        bottom = level.index(low)
        first, last = bottom, bottom
        while first and (level[first - 1] > RISE * level[first] or level[first] < 2 * low + 1):
            first -= 1
        while last + BESIDE + 1 < len(level) and (
            level[last + 1] > RISE * level[last] or level[last] < 2 * low + 1
        ):
            last += 1
        sides = min(level[first], level[last])
        few = sum(one < FADED * sides for one in level[first:last])
        if first < BESIDE or low >= DIP * sides or few < 2 or last + BESIDE + 1 >= len(level):
            return
        if (self.pts[last] - self.pts[first]) * self.video.tick > LONGEST:
            return
        before, after = self.table[first], self.table[last]
        if alike(before, after) <= COMMON and faded(self.table[first : last + 1]) <= MIXED * sides:
            self.sure.append((self.pts[first], self.pts[last]))

    def look_for_slide(self) -> None:
        """See whether a picture has been pushed out, covered or uncovered by another."""
        last, steps = len(self.pts) - 1 - BESIDE, self.steps
        most = steps[last - 1]
        if most < SLIDES or max(steps[last : last + BESIDE]) > STOPS * most:
            return
        first = last - 1
        while first and steps[first - 1] > max(SLIDES, GOES * max(steps[first:last])):
            first -= 1
        if last - first < 3 or first < BESIDE:
            return
        second, largest = sorted(steps[first:last])[-2:]
        if largest > ALONE * second:
            return
        before, after = self.table[first - 1], self.table[last + 1]
        far = apart(before, after)
        if far < UNLIKE or alike(before, after) > COMMON:
            return
        if slides.fits(self.table[first : last + 1], before, after, SIZE) <= SLIDE * far:
            self.sure.append((self.pts[first - 1], self.pts[last + 1]))

    def note(self, first: int, share: np.ndarray, ends: tuple[int, int]) -> None:
        """Note where the way from one picture to the other begins and ends.

        That is where the line through what lies in its middle would do so: what moves in the
        pictures hides the ends themselves.
        """
        at = np.array([np.flatnonzero(share <= one)[-1] for one in INNER], float)
        reach = max(1.0, at[1] - at[0]) * INNER[0] / (INNER[1] - INNER[0])
        low = max(0.0, min(at[0] - reach, ends[0]))
        high = min(len(share) - 1.0, max(at[1] + 1 + reach, ends[1]))
        rows = first + int(np.floor(low)), first + int(np.ceil(high))
        if goes_on(self.steps, *rows) <= GOES_ON * apart(self.table[rows[0]], self.table[rows[1]]):
            self.found.append((self.pts[rows[0]], self.pts[rows[1]]))


def joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those that touch or overlap as one, rising."""
    together: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if together and low <= together[-1][1]:
            together[-1] = together[-1][0], max(together[-1][1], high)
        else:
            together.append((low, high))
    return together


def apart(one: np.ndarray, two: np.ndarray) -> float:
    """Mean levels between two pictures."""
    return cv2.norm(one, two, cv2.NORM_L1) / one.size


def alike(one: np.ndarray, two: np.ndarray) -> float:
    """Correlation in [-1, 1] of two pictures where not both are black; 0 where one shows nothing.

    Bars above and below the picture would make all of a film's pictures alike.
    """
    shown = np.maximum(one, two) > BLACK
    one, two = (side[shown] - side[shown].mean() if shown.any() else side for side in (one, two))
    size = float(np.linalg.norm(one) * np.linalg.norm(two))
    return float(one @ two) / size if size > 1.0 else 0.0


def faded(part: np.ndarray) -> float:
    """Mean levels by which (n, d) pictures are no mixtures of the first, the last and one colour.

    Those of the picture that is it least.
    """
    n = part.shape[1] // 3
    colours = np.tile(np.eye(3, dtype=np.float32), (n, 1))
    base = np.column_stack([part[0], part[-1], colours])
    rest = base @ np.linalg.lstsq(base, part.T, rcond=None)[0] - part.T
    return float(np.abs(rest).mean(axis=0).max())


def goes_on(steps: Sequence[float], first: int, last: int) -> float:
    """Mean levels that pictures would change between two thumbnails at the pace beside them.

    steps: from each thumbnail to the next. Of a transition that is less than the two are apart; a
    camera that pans does not stop, and takes longer for what it shows.
    """
    beside = steps[max(0, first - 3) : first], steps[last : last + 3]
    return (last - first) * max(sum(part) / len(part) for part in beside)


def way_of(between: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray | None:
    """How far each picture has come from one to the other, (n,) about 0 to 1; None: not so.

    between: (n, d) from the one to the other.
    """
    far = np.abs(after - before).mean()
    low, high = np.minimum(before, after), np.maximum(before, after)
    middle = between[len(between) // 2]
    if apart(middle, np.minimum(np.maximum(middle, low), high)) > OUTSIDE * far:  # most often
        return None
    beside = np.abs(between - np.minimum(np.maximum(between, low), high))
    if beside.mean(axis=1).max() > OUTSIDE * far:
        return None
    move = after - before
    share = (between - before) @ move / float(move @ move)
    if np.diff(share).max() > JUMP or np.diff(share).min() < -BACK:
        return None
    return share


def local_ends(between: np.ndarray, before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Rows of (n, d) between which a wipe goes from the first of its pixels to the last.

    The middle of them where no wipe is it: there all pixels go over at once.
    """
    middle, differs = len(between) // 2, np.abs(after - before) > 2 * UNLIKE
    if not differs.any():
        return middle, middle
    before, move = before[differs], (after - before)[differs]
    if (np.abs((between[middle][differs] - before) / move - 0.5) < 0.25).mean() > HALFWAY:
        return middle, middle
    share = (between[:, differs] - before) / move
    over = (share > 0.5).mean(axis=1)
    begun, ended = np.flatnonzero(over <= FEW_PIXELS), np.flatnonzero(over >= 1 - FEW_PIXELS)
    last = len(share) - 1
    core = begun[-1] if len(begun) else 0, ended[0] if len(ended) else last
    first_for_good, last_to_arrive = wide_ends(share)
    most = 1 + WIDENED * (core[1] - core[0])
    return max(first_for_good, round(core[0] - most)), min(last_to_arrive, round(core[1] + most))


def wide_ends(share: np.ndarray) -> tuple[int, int]:
    """Rows of (n, k) between which the first pixel has begun for good and the last has arrived.

    But for the FEWEST of them.
    """
    last, few = len(share) - 1, int(FEWEST * share.shape[1])
    waits, arrived = share[::-1] <= BEGUN, share >= 1 - BEGUN
    leaves = np.where(waits.any(axis=0), last - waits.argmax(axis=0), 0)
    comes = np.where(arrived.any(axis=0), arrived.argmax(axis=0), last)
    return int(np.sort(leaves)[few]), int(np.sort(comes)[-1 - few])


class ClipWatch:
    """Looks for scene changes in a clip that should show one scene; fed with all of its frames.

    It is sure: what changes at once must leave nothing of the picture, and be calm on both sides.
    """

    def __init__(self, tick: float) -> None:
        self.soft = SoftCuts(types.SimpleNamespace(tick=tick, seconds=lambda pts: pts * tick))
        self.tick, self.times = tick, deque(maxlen=2 * BESIDE)
        self.thumbs: deque[np.ndarray] = deque(maxlen=2 * BESIDE)  # of the newest frames
        self.changes: list[float] = []  # s

    def feed(self, frame: VideoFrame) -> None:
        """Take the next frame."""
        small = film_reading.small_picture(frame)
        self.soft.feed(frame.pts, small)
        thumb = cv2.resize(small, SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)
        self.thumbs.append(thumb.reshape(-1))
        self.times.append(frame.pts * self.tick)
        if len(self.thumbs) == 2 * BESIDE:
            steps = np.abs(np.diff(np.stack(self.thumbs), axis=0)).mean(axis=1)
            most, beside = steps[BESIDE - 1], np.delete(steps, BESIDE - 1).max()
            apart = alike(self.thumbs[BESIDE - 1], self.thumbs[BESIDE]) < COMMON / 2
            if most > 2 * UNLIKE and beside < CALM * most and apart:
                self.changes.append(self.times[BESIDE])

    def found(self) -> tuple[float, ...]:
        """When a scene changes, s of the clip's time, rising."""
        soft = [(low + high) / 2 * self.tick for low, high in self.soft.transitions()]
        return tuple(round(at, 2) for at in sorted([*self.changes, *soft]))
