"""Which frames of a film are looked at for faces: few where nothing changes, and how.

A film has a sample twice a second, as before; what is looked at of those is chosen scene by scene.
First its first and last sample and one every two seconds. Where two neighbours are not alike, the
one in the middle, and so on until nothing lies between; what was left out between two that are
alike gets its faces from them, so that all that comes later sees even samples.

A detector is blind for a face that fills the picture. Where it finds none it looks again with a
border around the picture: in a scene's first sample, every eight seconds, and beside a large face.
Where that finds one, in all samples of the scene.

The choice follows from scenes and results alone: it is the same in one go, step by step, after a
kill and through a worker. While the film is decoded in one go it is made in advance, with the cuts
known so far; what that misses is looked at by the step `detect`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

import sort_faces as sf

SPARSE = 2.0  # s between samples looked at where nothing changes; under Reach.gap
PROBE = 8.0  # s between frames without a face that are looked at again with a border
LARGE = 0.35  # short edge of a face, in short edges of the frame, beside which one is
TURN = 20.0  # degrees that a head turns at most between two frames that are alike
GROWTH = 1.3  # times that a face grows at most between them
OVERLAP = 0.3  # IoU of its boxes at least; Reach.iou
MINOR = 40.0  # px; short edge under which a face changes nothing; half of Gates.min_face_short
APART = 0.55  # cosine distance of its embeddings at most; Reach.strict


@dataclass(frozen=True)
class Sight:
    """What was found in a frame; row i of each array is one face."""

    rows: np.ndarray  # (k, 8 + dim) float32: box, score, pose, embedding
    padded: bool = False  # looked at with a border, too
    short: float = 0.0  # short edge of the frame, px
    failed: bool = False  # the engine gave up on it

    @property
    def is_close(self) -> bool:
        """Whether a face is so large that it may soon fill the picture."""
        edges = (self.rows[:, 2:4] - self.rows[:, :2]).min(axis=1)
        return bool(len(edges) and self.short and edges.max() >= LARGE * self.short)


NOTHING = Sight(np.zeros((0, 8), np.float32))


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
            self.of(video).setdefault(int(pts), Sight(NOTHING.rows, True, failed=True))
            return
        rows = [face_row(face) for face in line.faces]
        table = np.stack(rows) if rows else NOTHING.rows
        self.of(video)[int(pts)] = Sight(table, line.padded, float(min(line.wh or (0,))))


def face_row(face: sf.SeenFace) -> np.ndarray:
    """(8 + dim,) float32: box, score, pose, embedding."""
    head = np.array([*face.bbox, face.det_score], np.float32)
    return np.concatenate([head, np.frombuffer(face.pose + face.embedding, "<f4")])


def large(rows: np.ndarray) -> np.ndarray:
    """Of faces (k, 8 + dim) those large enough to matter."""
    return rows[(rows[:, 2:4] - rows[:, :2]).min(axis=1) >= MINOR] if len(rows) else rows


def matched(one: np.ndarray, two: np.ndarray) -> np.ndarray | None:
    """Which face of `two` (k, 8 + dim) each of `one` is; None if the frames are not alike."""
    if len(one) != len(two) or not len(one):
        return None if len(one) != len(two) else np.zeros(0, int)
    boxes = (one[:, :4], two[:, :4])
    iou = np.array([sf.box_iou(box, boxes[1]) for box in boxes[0]]).reshape(len(one), len(two))
    order = iou.argmax(axis=1)
    if len(set(order.tolist())) < len(order):
        return None
    other = two[order]
    sides = [np.maximum(rows[:, 2:4] - rows[:, :2], 1.0) for rows in (one, other)]
    growth = np.maximum(sides[0] / sides[1], sides[1] / sides[0])
    turn = np.abs(one[:, 5:7] - other[:, 5:7])  # an unknown pose is alike to none
    near = (sf.unit_rows(one[:, 8:]) * sf.unit_rows(other[:, 8:])).sum(axis=1) >= 1 - APART
    overlaps = iou[np.arange(len(one)), order] >= OVERLAP
    fits = near.all() and overlaps.all() and (growth <= GROWTH).all() and (turn <= TURN).all()
    return order if fits else None


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
        if (
            high - low < 2
            or None in ends
            or matched(large(ends[0].rows), large(ends[1].rows)) is not None
        ):
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


def rule_steps(sampling: sf.Sampling) -> dict[str, int]:
    """step and probe of a Rule."""
    rate = sampling.sample_rate
    return {
        "step": 1 if sampling.every_sample else max(1, round(SPARSE * rate)),
        "probe": 0 if sampling.no_pad_retry else max(1, round(PROBE * rate)),
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


def filled(
    samples: np.ndarray,
    scenes: sf.Scenes,
    chosen: dict[int, bool],
    seen: dict[int, Sight],
) -> Iterator[tuple[int, np.ndarray]]:
    """(pts, (k, 8 + dim) faces) of every sample of a film, of those left out between alike ones.

    Boxes, scores and poses lie on the line from the one to the other; the embedding is the
    nearer one's.
    """
    rows_of = {pts: sight.rows for pts in chosen if (sight := counted(pts, chosen, seen, None))}
    for low, high in scenes.scenes:
        own = samples[slice(*np.searchsorted(samples, [low, high]))].tolist()
        known = [at for at, pts in enumerate(own) if pts in rows_of]
        for one, other in itertools.pairwise([*known, len(own)]):
            yield own[one], rows_of[own[one]]
            if other == len(own) or other - one < 2:
                continue
            first, last = large(rows_of[own[one]]), large(rows_of[own[other]])
            order = matched(first, last)
            if order is None or not len(first):
                continue
            for at in range(one + 1, other):
                share = (own[at] - own[one]) / (own[other] - own[one])
                mixed = (1 - share) * first + share * last[order]
                mixed[:, 8:] = first[:, 8:] if share <= 1 / 2 else last[order][:, 8:]
                yield own[at], mixed.astype(np.float32)


class Gathered:
    """The faces of all samples of films, as frames.npz holds them."""

    def __init__(self, meta: sf.FrameMeta, staged: sf.Staged) -> None:
        self.meta = msgspec.structs.replace(meta, rate=staged.rate)
        self.rate = staged.rate
        self.chosen: dict[str, dict[int, bool]] = {}
        for item in staged.items:
            own, padded = self.chosen.setdefault(item.video, {}), {*item.padded}
            own |= {pts: pts in padded for pts in item.pts}
        self.data = bytearray()  # (n, 8 + dim) float32
        self.video: list[str] = []
        self.pts: list[int] = []
        self.counts = dict.fromkeys(("frames", "faces", "filled", "failed", "missing"), 0)
        self.empty: list[str] = []  # films in which nothing was found

    def add(self, video: sf.Video, scenes: sf.Scenes | None, seen: dict[int, Sight]) -> None:
        """Take what was found in the frames of a film."""
        chosen = self.chosen.get(video.id, {})
        if not scenes or not chosen:
            return
        before = len(self.pts)
        for pts, rows in filled(sf.sampled_pts(video, scenes, self.rate), scenes, chosen, seen):
            self.data += rows.astype("<f4").tobytes() if len(rows) else b""
            self.pts += [pts] * len(rows)
            self.video += [video.id] * len(rows)
            self.counts["filled"] += bool(len(rows)) and pts not in chosen
        known = [seen[pts] for pts in chosen if pts in seen]
        self.counts["frames"] += len(known)
        self.counts["failed"] += sum(sight.failed for sight in known)
        self.counts["missing"] += len(chosen) - len(known)
        self.counts["faces"] += len(self.pts) - before
        if known and len(self.pts) == before:
            self.empty.append(video.path)

    def frames(self) -> sf.Frames:
        table = np.frombuffer(self.data, "<f4").reshape(-1, 8 + self.meta.dim)
        parts = table[:, :4], table[:, 4], table[:, 5:8], table[:, 8:]
        about = np.array(self.video, "U16"), np.array(self.pts, np.int64)
        return sf.Frames(self.meta, *about, *parts)
