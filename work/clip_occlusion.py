"""Masks and sunglasses in clips: the tool's own scorer on a few faces of each segment.

sort_faces.py loads this file for `video score`. What was looked at is kept in WORK/masks.json, so
scoring anew decodes nothing that it has seen; without --occlusion nothing is decoded at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import sort_faces as sf

film_reading = sf.companion("film_reading")

MASKS = "masks.json"
FACES_LOOKED_AT = 5  # of a track in a segment, spread over it; chosen: as many as the page shows
HIDDEN = sf.VerdictRules.threshold  # from this P on a face is hidden, as in `occlusion`


class FaceMasks(sf.OwnFile, tag="masks", kw_only=True):
    """P(attribute) of faces of frames by a scorer."""

    scorer: str  # its mark
    faces: dict[str, tuple[float, ...]]  # face_key: in the order of ATTRIBUTES


@dataclass(frozen=True)
class Spot:
    """A face of a frame."""

    video: str
    pts: int
    box: tuple[float, ...]  # px, to one decimal

    @property
    def key(self) -> str:
        return f"{self.video}:{self.pts}:" + ",".join(f"{edge:.0f}" for edge in self.box)


@dataclass(frozen=True)
class Place:
    """A film and where its time begins anew."""

    video: sf.Video
    joined: sf.Joined | None


@dataclass(frozen=True)
class Masks:
    """How hidden the faces of segments are, as far as somebody has looked."""

    faces: dict[str, tuple[float, ...]]
    data: sf.Tracks

    def of(self, segment: sf.Segment) -> np.ndarray:
        """(k,) of its faces that were looked at the higher P of a mask and of sunglasses."""
        found = [self.faces.get(spot.key) for spot in spots_of(segment, self.data)]
        return np.array([max(scores) for scores in found if scores], float)


def masks_of(
    work: sf.VideoWork, data: sf.Tracks, segments: Sequence[sf.Segment], look: sf.Crew | None
) -> Masks:
    """Masks of segments; faces nobody has looked at are scored first.

    Without `look` none are known: those of earlier runs would let clips that were looked at rank
    behind those that were not.
    """
    if look is None or not segments:
        return Masks({}, data)
    path = work.folder / MASKS
    kept = sf.read_if_sound(path, FaceMasks)
    known = dict(kept.faces) if kept else {}
    scorer = sf.companion("occlusion_net").load_scorer("net", look)
    if kept is not None and kept.scorer != scorer.mark:
        known = {}
    missing: dict[str, dict[str, Spot]] = defaultdict(dict)
    for segment in segments:
        for spot in spots_of(segment, data):
            if spot.key not in known:
                missing[spot.video][spot.key] = spot
    videos = [video for video in work.list_videos() if video.id in missing]
    points = key_points(work, missing) if videos else {}
    for video in sf.progress(videos, len(videos), "occlusion"):
        spots = [spot for key, spot in missing[video.id].items() if key in points]
        if len(spots) < len(missing[video.id]):
            sf.log.warning(
                "%s: its faces were found by an older version, which kept no key points; "
                "masks in it are not looked for", video.path,
            )  # fmt: skip
        try:
            scenes = work.scenes_of(video)
            at = Place(sf.checked_source(video), scenes.joined if scenes else None)
            known.update(scored(scorer, at, spots, points))
        except sf.VideoError as error:
            sf.log.warning("%s: %s; masks in it are not looked for", video.path, error)
        if not work.draft:
            sf.write_file(path, FaceMasks(scorer=scorer.mark, faces=known))
    return Masks(known, data)


def spots_of(segment: sf.Segment, data: sf.Tracks) -> Iterator[Spot]:
    """Some faces of each track of a segment, spread over it."""
    video = data.videos[segment.video]
    for track in segment.tracks:
        rows = np.flatnonzero((track.time >= segment.start) & (track.time < segment.end))
        spread = np.linspace(0, len(rows) - 1, min(FACES_LOOKED_AT, len(rows)))
        for row in rows[np.round(spread).astype(int)]:
            pts = video.start + round(float(track.time[row]) / video.tick)
            yield Spot(segment.video, pts, tuple(track.bbox[row].tolist()))


def key_points(work: sf.VideoWork, wanted: dict[str, dict[str, Spot]]) -> dict[str, np.ndarray]:
    """{face_key: (5, 2) px} of those faces whose key points were kept."""
    frames = work.read(sf.Frames)
    known = np.isfinite(frames.kps).all(axis=(1, 2))
    times = {(spot.video, spot.pts) for some in wanted.values() for spot in some.values()}
    pairs = zip(frames.video.tolist(), frames.pts.tolist(), strict=True)
    found = {}
    for row, pair in enumerate(pairs):
        if pair in times and known[row]:
            box = tuple(np.round(frames.bbox[row].astype(float), sf.TRACK_DIGITS["bbox"]).tolist())
            found[Spot(*pair, box).key] = frames.kps[row]
    return found


def scored(
    scorer: Any, film: Place, spots: Sequence[Spot], points: dict[str, np.ndarray]
) -> Iterator[tuple[str, tuple[float, ...]]]:
    """(face_key, P of each attribute) of faces of a film, decoded once. Raises VideoError."""
    at = defaultdict(list)
    for spot in spots:
        at[spot.pts].append(spot)
    video, wanted = film.video, sorted(at)
    for pts, image in film_reading.frames_at(video.path, wanted, video.sar, film.joined):
        crops = [scorer.crop(image, points[spot.key]) for spot in at[pts]]
        for spot, row in zip(at[pts], scorer.score_crops(crops), strict=True):
            yield spot.key, tuple(round(float(value), 3) for value in row)
