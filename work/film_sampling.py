"""Which frames of a film are looked at for faces: few where nothing changes, and how.

A film has a sample twice a second, as before; what is looked at of those is chosen scene by scene.
First its first and last sample and one every two seconds. Where two neighbours are not alike, the
one in the middle, and so on until nothing lies between; what was left out between two that are
alike gets its faces from them, so that all that comes later sees even samples. Where nobody is
seen, no more is left out than what is shorter than a clip.

A detector is blind for a face that fills the picture. Where it finds none it looks again with a
border around the picture: in a scene's first sample, every eight seconds, and beside a large face.
Where that finds one, in all samples of the scene.

The choice follows from scenes and results alone: it is the same in one go, step by step, after a
kill and through a worker. While the film is decoded in one go it is made in advance, with the cuts
known so far; what that misses is looked at by the step `detect`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

BRIEF = sf.Gates.min_dur  # s; a face that comes and goes in less gives no clip
SPARSE = 2.0  # s between samples looked at where nothing changes; under Reach.gap
PROBE = 8.0  # s between frames without a face that are looked at again with a border
LARGE = 0.35  # short edge of a face, in short edges of the frame, beside which one is
TURN = 20.0  # degrees that a head turns at most between two frames that are alike
GROWTH = 1.3  # times that a face grows at most between them
OVERLAP = 0.3  # IoU of its boxes at least; Reach.iou
MINOR = 40.0  # px; short edge under which a face changes nothing; half of Gates.min_face_short
FEW = 5  # films that a line names
APART = 0.55  # cosine distance of its embeddings at most; Reach.strict


@dataclass(frozen=True)
class Sight:
    """What was found in a frame; row i of each array is one face."""

    rows: np.ndarray  # (k, 8) float32 or more: box, score, pose
    embedding: np.ndarray  # (k, dim) float16 or float32
    padded: bool = False  # looked at with a border, too
    short: float = 0.0  # short edge of the frame, px

    @property
    def is_close(self) -> bool:
        """Whether a face is so large that it may soon fill the picture."""
        edges = (self.rows[:, 2:4] - self.rows[:, :2]).min(axis=1)
        return bool(len(edges) and self.short and edges.max() >= LARGE * self.short)


NOTHING = Sight(np.zeros((0, 8), np.float32), np.zeros((0, 0), np.float16))


class Sightings:
    """What is known of the frames of films: {video: {pts: Sight}}."""

    def __init__(self, path: Path | None = None) -> None:
        self.films: dict[str, dict[int, Sight]] = {}
        for line in sf.frame_lines(path) if path and path.exists() else ():
            if line.meta is None:
                self.add(line)

    def of(self, video: str) -> dict[int, Sight]:
        return self.films.setdefault(video, {})

    def add(self, line: sf.FrameLine) -> None:
        """Take a line of results.jsonl; the last of a frame counts."""
        video, _, pts = line.id.rpartition(":")
        if line.failed is not None:  # nothing can be seen there, with a border or without
            self.of(video).setdefault(int(pts), replace(NOTHING, padded=True))
            return
        data = b"".join(face.measured()[:32] for face in line.faces)  # box, score, pose
        rows = np.frombuffer(data, "<f4").reshape(-1, 8)
        vectors = [np.frombuffer(face.embedding, "<f4") for face in line.faces]
        own = np.array(vectors, np.float16).reshape(len(vectors), -1) if vectors else None
        embedding = NOTHING.embedding if own is None else own
        short = float(min(line.wh or (0,)))
        self.of(video)[int(pts)] = Sight(rows, embedding, line.padded, short)


def large(sight: Sight) -> np.ndarray:
    """(k,) which faces of a frame are large enough to matter."""
    return (sight.rows[:, 2:4] - sight.rows[:, :2]).min(axis=1, initial=np.inf) >= MINOR


def matched(one: Sight, two: Sight) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows of the same faces in two frames, (k,) each; None if the frames are not alike.

    They are where each large face of the one is in the other, much as it is there.
    """
    rows = [np.flatnonzero(large(sight)) for sight in (one, two)]
    if len(rows[0]) != len(rows[1]) or not len(rows[0]):
        return (rows[0], rows[1]) if len(rows[0]) == len(rows[1]) else None
    first, last = one.rows[rows[0]], two.rows[rows[1]]
    iou = np.stack([sf.box_iou(box, last[:, :4]) for box in first[:, :4]])
    order = iou.argmax(axis=1)
    if len(set(order.tolist())) < len(order):
        return None
    last, other = last[order], rows[1][order]
    sides = [np.maximum(some[:, 2:4] - some[:, :2], 1.0) for some in (first, last)]
    growth = np.maximum(sides[0] / sides[1], sides[1] / sides[0])
    turn = np.abs(first[:, 5:7] - last[:, 5:7])  # an unknown pose is alike to none
    units = [
        sf.unit_rows(sight.embedding[own].astype(np.float32))
        for sight, own in ((one, rows[0]), (two, other))
    ]
    near = (units[0] * units[1]).sum(axis=1) >= 1 - APART
    overlaps = iou[np.arange(len(order)), order] >= OVERLAP
    fits = near.all() and overlaps.all() and (growth <= GROWTH).all() and (turn <= TURN).all()
    return (rows[0], other) if fits else None


@dataclass
class Rule:
    """Chooses among the samples of one scene.

    samples: pts, rising; slots: the number of the sampling period each lies in; seen: what is
    known of frames. `chosen` then says of which samples what is found counts, and whether with a
    border; `missing` which of those must be looked at, as far as that is known.
    """

    samples: Sequence[int]
    slots: Sequence[int]
    seen: dict[int, Sight]
    step: int  # samples from one to the next that is always looked at; 1: look at all
    probe: int  # the same of those looked at with a border; 0: none is
    chosen: dict[int, bool] = field(default_factory=dict)
    missing: dict[int, bool] = field(default_factory=dict)
    opens: bool = True  # the first sample is the scene's first
    close: bool = False  # a border has shown a face in this scene
    brief: float = math.inf  # sampling periods; nobody may be overlooked for so long

    def choose(self) -> Rule:
        """Fill in chosen and missing."""
        last = len(self.samples) - 1
        fixed = [i for i in range(last + 1) if i in (0, last) or self.slots[i] % self.step == 0]
        for at in fixed:
            probed = bool(self.probe) and self.slots[at] % self.probe == 0
            self.take(at, probed or (at == 0 and self.opens))
        for near in itertools.pairwise(fixed):  # both ways
            for one, other in (near, near[::-1]):
                if self.sight(one) and self.sight(one).is_close:
                    self.take(other, True)
        sights = [self.sight(at) for at in fixed]
        self.close = self.close or any(s and s.padded and len(s.rows) for s in sights)
        for at in fixed if self.close else ():
            self.take(at, True)
        for one, other in itertools.pairwise(fixed):
            self.between(one, other)
        return self

    def take(self, at: int, padded: bool) -> None:
        """Choose a sample."""
        pts = self.samples[at]
        padded = bool(self.probe) and (padded or self.chosen.get(pts, False))
        self.chosen[pts] = padded
        known = self.seen.get(pts)
        if known is None or (padded and not known.padded and not len(known.rows)):
            self.missing[pts] = padded

    def sight(self, at: int) -> Sight | None:
        """What counts of a chosen sample; None while that is not known."""
        return counted(self.samples[at], self.chosen, self.seen, self.missing)

    def between(self, low: int, high: int) -> None:
        """Choose from what lies between two chosen samples."""
        ends = self.sight(low), self.sight(high)
        if high - low < 2 or None in ends:
            return
        same = matched(*ends)
        hidden = self.slots[high - 1] - self.slots[low + 1] + 1
        if same is not None and (len(same[0]) or hidden < self.brief):
            return
        middle = (low + high) // 2
        self.take(middle, self.close)
        self.between(low, middle)
        self.between(middle, high)


def counted(
    pts: int, chosen: dict[int, bool], seen: dict[int, Sight], missing: dict[int, bool] | None
) -> Sight | None:
    """What counts of a frame: not what only a border has shown where none was asked for."""
    known = seen.get(pts)
    if missing and pts in missing and known is None:
        return None
    if known is not None and known.padded and not chosen.get(pts):
        return NOTHING
    return known


def rule_steps(sampling: sf.Sampling) -> dict[str, Any]:
    """step, probe and brief of a Rule."""
    rate = sampling.sample_rate
    return {
        "step": 1 if sampling.every_sample else max(1, round(SPARSE * rate)),
        "probe": 0 if sampling.no_pad_retry else max(1, round(PROBE * rate)),
        "brief": BRIEF * rate,
    }


def slots_of(video: sf.Video, samples: np.ndarray, rate: float) -> np.ndarray:
    """(n,) int: the sampling period that samples (pts) lie in."""
    return np.floor(video.seconds(samples) * rate + 1e-6).astype(np.int64)


def choose(
    video: sf.Video, scenes: sf.Scenes, sampling: sf.Sampling, seen: dict[int, Sight]
) -> tuple[dict[int, bool], dict[int, bool]]:
    """(chosen, missing) of a film: {pts: whether with a border}, rising."""
    samples = sf.sampled_pts(video, scenes, sampling.sample_rate)
    slots = slots_of(video, samples, sampling.sample_rate)
    chosen: dict[int, bool] = {}
    missing: dict[int, bool] = {}
    for low, high in scenes.scenes:
        own = slice(*np.searchsorted(samples, [low, high]))
        about = samples[own].tolist(), slots[own].tolist()
        rule = Rule(*about, seen, **rule_steps(sampling)).choose()
        chosen |= rule.chosen
        missing |= rule.missing
    return dict(sorted(chosen.items())), dict(sorted(missing.items()))


def stretches(video: sf.Video, scenes: sf.Scenes, chosen: dict[int, bool]) -> Iterator[sf.Stretch]:
    """Items of the queue for frames to look at."""
    for some in sf.batched(chosen, sf.CHUNK_SAMPLES):
        joined = scenes.joined and scenes.joined.between(some[0], some[-1])
        padded = [pts for pts in some if chosen[pts]]
        yield sf.Stretch(video.id, video.path, some, video.sar, joined, padded)


# -- what was left out -------------------------------------------------------


def without_face(
    order: Sequence[tuple[sf.Stretch, int]], looked: Sequence[bool], frame: np.ndarray
) -> list[str]:
    """Films that were looked at and show no face, one line told of them.

    order: all frames, and `looked` which were looked at; frame (n,): in which one each face is.
    """
    shown = {order[at][0].video for at in np.unique(frame).tolist()}
    films = {item.video: item.path for (item, _), known in zip(order, looked, strict=True) if known}
    empty = [path for video, path in films.items() if video not in shown]
    if empty:
        names = [Path(path).name for path in empty]
        more = f" and {len(names) - FEW} more" if names[FEW:] else ""
        sf.log.warning("no face found in %s%s", ", ".join(names[:FEW]), more)
    return empty


class Even:
    """Gives the samples that were left out between alike ones their faces."""

    def __init__(
        self,
        work: sf.VideoWork,
        staged: sf.Staged,
        order: Sequence[tuple[sf.Stretch, int]],
        looked: Sequence[bool],
    ) -> None:
        self.work, self.rate = work, staged.rate
        self.known: dict[str, list[int]] = {}  # pts of frames that were looked at
        for (item, pts), known in zip(order, looked, strict=True):
            self.known.setdefault(item.video, []).extend([pts] * known)

    def filled(
        self, video: np.ndarray, pts: np.ndarray, faces: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(videos, pts, faces) with those of samples left out; faces (n, FACE_FLOATS + dim).

        What is given is sorted by video and pts within it, in the order of the queue.
        """
        films: list[np.ndarray] = []
        times: list[np.ndarray] = []
        more: list[np.ndarray] = []
        for one in self.work.list_videos():
            scenes, own = self.work.scenes_of(one), np.flatnonzero(video == one.id)
            if not scenes or not len(own):
                continue
            rows = slice(own[0], own[-1] + 1)
            for at, mixed in self.between(one, scenes, pts[rows], faces[rows]):
                films.append(np.full(len(mixed), one.id, video.dtype))
                times.append(np.full(len(mixed), at, np.int64))
                more.append(mixed)
        if not more:
            return video, pts, faces
        films, times = np.concatenate([video, *films]), np.concatenate([pts, *times])
        order = np.lexsort((times, films))
        return films[order], times[order], np.concatenate([faces, *more])[order]

    def between(
        self, video: sf.Video, scenes: sf.Scenes, pts: np.ndarray, faces: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(pts, faces) of samples of a film between two that are alike; pts, faces: of its frames.

        Boxes, scores and whatever was measured lie on the line from the one to the other; the
        embedding is the nearer one's.
        """
        samples = sf.sampled_pts(video, scenes, self.rate)
        known = np.array(self.known.get(video.id, []), np.int64)
        for low, high in scenes.scenes:
            own = known[slice(*np.searchsorted(known, [low, high]))]
            for first, last in itertools.pairwise(own.tolist()):
                left = samples[slice(*np.searchsorted(samples, [first + 1, last]))].tolist()
                ends = [faces[slice(*np.searchsorted(pts, [at, at + 1]))] for at in (first, last)]
                same = matched(*map(sight_of, ends)) if left else None
                if same is None or not len(same[0]):
                    continue
                one, two = ends[0][same[0]], ends[1][same[1]]
                for at in left:
                    share = (at - first) / (last - first)
                    mixed = ((1 - share) * one + share * two).astype(np.float32)
                    nearer = one if share <= 1 / 2 else two
                    mixed[:, sf.FACE_FLOATS :] = nearer[:, sf.FACE_FLOATS :]
                    yield at, mixed


def sight_of(faces: np.ndarray) -> Sight:
    """What matched wants to know of faces (k, FACE_FLOATS + dim)."""
    return Sight(faces[:, :8], faces[:, sf.FACE_FLOATS :])
