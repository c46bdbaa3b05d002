"""Which faces of a film are worth keeping: the best few different ones of each track.

Scenes and tracks are those of `video`, and so is which frames are looked at with a border. A scene
is chosen from once it is known where it ends, so that what is held of a film is its best faces and
one scene. Numbers: docs/analysis/sources.md.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

import sort_faces as sf

film_pass, film_sampling = sf.companion("film_pass"), sf.companion("film_sampling")

POSE_BINS = (15.0, 40.0)  # degrees of yaw: frontal, three quarters, profile; each side its own
DIFFERENT = 0.15  # cosine distance from where on two faces of a track are two pictures
ALIKE = 0.06  # and up to where it is one picture even if the head has turned beyond a bin's edge
LATER = 30.0  # s; so far apart less than DIFFERENT will do, where else too little comes of a film
SHARP_SHARE = 0.7  # of a track's faces of one pose are softer than those taken
CUT_FRAMES = 3  # next to a cut: fades and the decoder's rest
MIN_SHORT = 40.0  # px; smaller faces are of no use to anybody later
SAID_OFTEN = 10  # faces of a person that even the shortest film may give
LONGEST_SCENE = 600.0  # s; a scene without an end is chosen from in parts
CLOSE_EVERY = 30.0  # s of film after which it is asked which scenes are over
UNSETTLED = 10.0  # s; a slow transition is known no later than that after it began
SAME_TRACK, SAME_BIN = 0.04, 0.01  # of quality, that each face of its kind costs the next one


@dataclass
class Pick:
    """A face that may be kept."""

    line: sf.PhotoLine  # of its frame
    unit: np.ndarray  # (d,) of length 1
    quality: float  # 0 to 1
    pose_bin: int
    time: float  # s
    track: int
    centre: np.ndarray  # (d,) mean direction of its track


def pose_bin(yaw: np.ndarray) -> np.ndarray:
    """(n,) int of degrees (n,): 0 frontal, 1 and 2 to one side, -1 and -2 to the other.

    An unknown pose counts as profile.
    """
    turned = np.digitize(np.nan_to_num(np.abs(yaw), nan=90.0), POSE_BINS)
    return turned * np.where(yaw < 0, -1, 1)


def poses_of(cache: sf.FaceCache) -> np.ndarray:
    """(n, 3) degrees; where no model told, from the five key points."""
    pose = cache.pose.copy()
    for row in np.flatnonzero(~cache.enriched):
        wh = tuple(cache.file_wh[cache.face_file[row]].tolist())
        pose[row] = sf.pose_from_kps(cache.kps[row : row + 1], wh)[0]
    return pose


@dataclass
class Looked:
    """A sampled frame of a film."""

    pts: int
    sight: film_sampling.Sight | None  # None: it was known before, and is not looked at again
    line: sf.PhotoLine | None  # with its faces, if it shows any


@dataclass
class Part:
    """A scene, or of a very long one a part."""

    low: int  # pts of its first frame
    high: int  # pts of the first frame beyond
    frames: list[Looked]
    opens: bool  # it begins where the scene does
    ends: bool = True  # likewise


class ByScene:
    """Hands out the sampled frames of a film scene by scene; those in transitions are dropped."""

    def __init__(self, once: film_pass.VideoPass) -> None:
        """once: the pass the frames come from, whose finder has seen no less than we have."""
        self.once, self.video = once, once.video
        self.frames: list[Looked] = []  # of the scene at hand and after it
        self.low: int | None = None  # pts; where the scene at hand begins
        self.opens = True  # nothing of it was handed out yet
        self.next = CLOSE_EVERY  # s; when to look again

    def add(self, frame: Looked) -> Iterator[Part]:
        """Take the next frame; yields what is over."""
        self.frames.append(frame)
        self.low = frame.pts if self.low is None else self.low
        if self.video.seconds(frame.pts) >= self.next:
            self.next = self.video.seconds(frame.pts) + CLOSE_EVERY
            yield from self.over(self.settled(frame.pts))

    def finish(self) -> Iterator[Part]:
        """The rest; to be asked when the pass is over."""
        if self.low is not None:
            yield from self.over(math.inf)

    def settled(self, pts: int) -> float:
        """Up to where (pts) the scenes stay as they are now, when a sample has come."""
        until = pts - round(UNSETTLED / self.video.tick)
        for low, high in self.once.finder.soft.transitions():
            if low < until < high:  # it may go on, and begin elsewhere then
                return low - round(film_pass.SCENE_LENGTH / self.video.tick)
        return until

    def over(self, until: float) -> Iterator[Part]:
        """The scenes, or parts of one, that end before `until`."""
        for low, high in self.once.scenes():
            if high <= self.low:
                continue
            low = max(low, self.low)
            if high <= until:
                yield self.part(low, high, True)
                continue
            if self.video.seconds(until) - self.video.seconds(low) > LONGEST_SCENE:
                yield self.part(low, int(until), False)
            return

    def part(self, low: int, high: int, ends: bool) -> Part:
        """The frames from `low` to `high`; what comes before is let go of."""
        at = [bisect.bisect_left(self.frames, pts, key=lambda f: f.pts) for pts in (low, high)]
        part = Part(low, high, self.frames[slice(*at)], self.opens, ends)
        self.frames, self.low, self.opens = self.frames[at[1] :], high, ends
        return part


class Retry:
    """Looks again with a border at the frames of a scene that film_sampling.Rule names."""

    def __init__(
        self, video: sf.Video, probe: int, again: Callable[[list[int]], Iterable[Looked]]
    ) -> None:
        """probe: of the Rule; again: looks at frames (pts) with a border."""
        self.video, self.probe, self.again = video, probe, again
        self.close = False  # of the Rule

    def lines(self, part: Part) -> list[tuple[int, sf.PhotoLine]]:
        """(pts, faces) of the frames of the next part that show any."""
        seen = {frame.pts: frame.sight for frame in part.frames}
        lines = {frame.pts: frame.line for frame in part.frames}
        samples, tried = [*seen], set()
        slots = film_sampling.slots_of(self.video, np.array(samples), sf.Sampling.sample_rate)
        while True:
            how = {"probe": self.probe, "opens": part.opens, "close": self.close}
            rule = film_sampling.Rule(samples, slots, seen, step=1, **how).choose()
            missing = [pts for pts in rule.missing if pts not in tried]
            if not missing:
                break
            tried.update(missing)
            for frame in self.again(missing):
                seen[frame.pts], lines[frame.pts] = frame.sight, frame.line
        self.close = rule.close and not part.ends
        counts = {pts: not seen[pts].padded or rule.chosen[pts] for pts in samples}
        return [(pts, line) for pts, line in lines.items() if line and counts[pts]]


class Best:
    """Takes the sampled frames of a film in order and tells in the end which are kept."""

    def __init__(
        self,
        once: film_pass.VideoPass,
        meta: sf.CacheMeta,
        options: sf.FilmOptions,
        retry: Retry,
    ) -> None:
        self.once, self.video, self.meta, self.options = once, once.video, meta, options
        self.scenes, self.retry = ByScene(once), retry
        self.reach = sf.for_model(sf.Reach(strict=None), meta.model)
        self.picks: list[Pick] = []
        self.tracks = 0

    def add(self, frame: Looked) -> None:
        """The next sampled frame."""
        for part in self.scenes.add(frame):
            self.choose(part)

    def choose(self, part: Part) -> None:
        """Pick the faces of a scene."""
        beside = CUT_FRAMES * max(1, self.once.last_length)
        inside = self.retry.lines(part) if part.frames else []
        clear = [(p, line) for p, line in inside if part.low + beside <= p < part.high - beside]
        if inside:
            self.pick([line for _, line in clear or inside])

    def pick(self, lines: list[sf.PhotoLine]) -> None:
        """Pick faces of one scene's frames, track by track."""
        cache = sf.fold_records(sf.empty_cache(self.meta), lines)
        order = {path: row for row, path in enumerate(cache.file_path.tolist())}
        line_of = {order[line.path]: line for line in lines}
        seconds = [float(sf.FRAME_PATH.fullmatch(p)[3]) for p in cache.file_path.tolist()]
        time = np.array(seconds)[cache.face_file]
        quality = sf.composite_quality(sf.cached_quality_terms(cache), sf.QualityWeights())
        bins = pose_bin(poses_of(cache)[:, 1])
        labels = sf.stitch_tracks(time, cache.bbox, cache.unit, self.reach)
        for label in range(labels.max(initial=-1) + 1):
            rows = np.flatnonzero(labels == label)
            centre = sf.centroid(cache.unit[rows])
            for row in self.best_of(cache, rows, time, quality, bins):
                line = line_of[int(cache.face_file[row])]
                about = float(quality[row]), int(bins[row]), float(time[row]), self.tracks, centre
                self.picks.append(Pick(line, cache.unit[row].copy(), *about))
            self.tracks += 1

    def best_of(
        self,
        cache: sf.FaceCache,
        rows: np.ndarray,
        time: np.ndarray,
        quality: np.ndarray,
        bins: np.ndarray,
    ) -> list[int]:
        """The best few different faces of a track (rows), best first."""
        rows = rows[cache.face_short[rows] >= MIN_SHORT]
        if not len(rows):
            return []
        sharp = np.zeros(len(rows), bool)
        for one in np.unique(bins[rows]):
            own = bins[rows] == one
            least = np.quantile(cache.blur[rows[own]], SHARP_SHARE, method="lower")
            sharp |= own & (cache.blur[rows] >= least)
        minutes = (time[rows[-1]] - time[rows[0]]) / 60
        most = max(self.options.per_track, math.ceil(minutes * self.options.per_minute))
        best = rows[sharp][np.argsort(-quality[rows[sharp]], kind="stable")]
        taken: list[int] = []
        for different, seconds in (DIFFERENT, self.options.every), (ALIKE, LATER):
            for row in best.tolist():
                if len(taken) == most:
                    return taken
                apart = all(abs(time[row] - time[other]) >= seconds for other in taken)
                new = all(bins[row] != bins[other] for other in taken)
                far = 1.0 - cache.unit[taken] @ cache.unit[row]
                if apart and (far > (ALIKE if new else different)).all():
                    taken.append(row)
        return taken

    def finish(self) -> list[sf.PhotoLine]:
        """The frames to keep, in order of time; to be asked when the pass is over."""
        for part in self.scenes.finish():
            self.choose(part)
        minutes = self.video.seconds(self.once.pts[-1]) / 60 if self.once.pts else 0.0
        most = max(SAID_OFTEN, math.ceil(minutes * self.options.per_minute))
        kept: dict[str, sf.PhotoLine] = {}
        for picks in people_among(self.picks, sf.thresholds_for(self.meta.model).candidate):
            for pick in spread(picks, most):
                kept[pick.line.sha256] = pick.line
        at = {line.sha256: float(sf.FRAME_PATH.fullmatch(line.path)[3]) for line in kept.values()}
        return sorted(kept.values(), key=lambda line: (at[line.sha256], line.path))


def people_among(picks: list[Pick], distance: float) -> list[list[Pick]]:
    """Picks by person: a track joins the person it is nearest to, within a cosine distance.

    Only to share out what a film may give; who is who is for refine to say.
    """
    sums: list[np.ndarray] = []
    people: list[list[Pick]] = []
    owner: dict[int, int] = {}  # of tracks
    for pick in picks:
        if pick.track not in owner:
            units = sf.unit_rows(np.stack(sums)) if sums else np.zeros((0, len(pick.centre)))
            far = 1.0 - units @ pick.centre
            at = int(far.argmin()) if len(far) and far.min() <= distance else len(people)
            if at == len(people):
                people.append([])
                sums.append(np.zeros_like(pick.centre))
            sums[at] = sums[at] + pick.centre
            owner[pick.track] = at
        people[owner[pick.track]].append(pick)
    return people


def spread(picks: list[Pick], most: int) -> list[Pick]:
    """At most so many picks of one person: good ones, of many scenes and poses, no two alike."""
    tracks: Counter[int] = Counter()
    bins: Counter[int] = Counter()
    units = np.stack([pick.unit for pick in picks])
    quality = np.array([pick.quality for pick in picks])
    track = np.array([pick.track for pick in picks])
    turned = np.array([pick.pose_bin for pick in picks])
    time = np.array([pick.time for pick in picks])
    chosen: list[int] = []
    for different, seconds in (DIFFERENT, 0.0), (ALIKE, LATER):
        left = np.ones(len(picks), bool)
        left[chosen] = False
        for one in chosen:
            left &= is_another(one, units, turned, different) & (abs(time - time[one]) >= seconds)
        while left.any() and len(chosen) < most:
            cost = [
                SAME_TRACK * tracks[a] + SAME_BIN * bins[b]
                for a, b in zip(track, turned, strict=True)
            ]
            best = int(np.where(left, quality - np.array(cost), -np.inf).argmax())
            chosen.append(best)
            tracks[track[best]] += 1
            bins[turned[best]] += 1
            left[best] = False
            left &= is_another(best, units, turned, different) & (abs(time - time[best]) >= seconds)
    return [picks[at] for at in chosen]


def is_another(one: int, units: np.ndarray, turned: np.ndarray, different: float) -> np.ndarray:
    """(n,) bool: which faces are another picture than face `one`, in a pose of its own or not."""
    return 1.0 - units @ units[one] > np.where(turned == turned[one], different, ALIKE)
