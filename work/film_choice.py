"""Which faces of a film are worth keeping: the best few different ones of each track.

Scenes and tracks are those of `video`. A scene is chosen from as soon as it is over, so that what
is held of a film is its best faces and one scene. Numbers: docs/analysis/sources.md.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

import sort_faces as sf

POSE_BINS = (15.0, 40.0)  # degrees of yaw: frontal, three quarters, profile; each side its own
DIFFERENT = 0.15  # cosine distance from where on two faces of a track are two pictures
ALIKE = 0.06  # and up to where it is one picture even if the head has turned beyond a bin's edge
LATER = 30.0  # s; so far apart less than DIFFERENT will do, where else too little comes of a film
SHARP_SHARE = 0.7  # of a track's faces of one pose are softer than those taken
CUT_FRAMES = 3  # next to a cut: fades and the decoder's rest
MIN_SHORT = 40.0  # px; smaller faces are of no use to anybody later
SAID_OFTEN = 10  # faces of a person that even the shortest film may give
LONGEST_SCENE = 600.0  # s; a scene without an end is chosen from in parts
SAME_TRACK, SAME_BIN = 0.04, 0.01  # of quality, that each face of its kind costs the next one
BEYOND = 2**62  # later than any frame


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


class Best:
    """Takes the sampled frames of a film in order and tells in the end which are kept."""

    def __init__(self, once: sf.VideoPass, meta: sf.CacheMeta, options: sf.FilmOptions) -> None:
        """once: the pass the frames come from, whose finder has seen no less than we have."""
        self.once, self.video, self.meta, self.options = once, once.video, meta, options
        self.reach = sf.for_model(sf.Reach(strict=None), meta.model)
        self.near = sf.SCENE_LENGTH / self.video.tick
        self.low: int | None = None  # pts; where the scene at hand begins
        self.cuts = 0  # of the finder's, used so far
        self.frames: list[tuple[int, sf.PhotoLine]] = []  # of the scene at hand, with a face
        self.picks: list[Pick] = []
        self.tracks = self.scenes = 0

    def add(self, pts: int, line: sf.PhotoLine | None) -> None:
        """The next sampled frame; line: its faces, if it shows any."""
        self.low = pts if self.low is None else self.low
        self.close_scenes(pts - 2 * self.near)
        if line is not None:
            self.frames.append((pts, line))
        if self.video.seconds(pts) - self.video.seconds(self.low) > LONGEST_SCENE:
            self.choose(pts, pts)

    def close_scenes(self, until: float) -> None:
        """Choose from the scenes that ended before `until` (pts); see sf.scenes_between."""
        cuts, jumps = self.once.finder.cuts, self.once.finder.jumps
        while self.cuts < len(cuts) and cuts[self.cuts] <= until:
            cut = cuts[self.cuts]
            self.cuts += 1
            if cut <= self.low:
                continue
            low, high = (bisect.bisect_left(jumps, cut + way * self.near) for way in (-1, 1))
            *over, (start, _) = sf.scenes_between(
                self.low, BEYOND, [cut], jumps[low:high], self.near
            )
            self.choose(over[0][1] if over else self.low, start)

    def choose(self, end: int, start: int) -> None:
        """Pick the faces of the scene at hand, which ends at `end`; the next begins at `start`."""
        self.scenes += 1
        beside = CUT_FRAMES * max(1, self.once.last_length)
        inside = [(pts, line) for pts, line in self.frames if self.low <= pts < end]
        clear = [pair for pair in inside if self.low + beside <= pair[0] < end - beside]
        self.frames = [pair for pair in self.frames if pair[0] >= start]
        self.low = start
        if clear or inside:
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
        if self.low is not None:
            self.close_scenes(BEYOND)
            self.choose(BEYOND, BEYOND)
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
