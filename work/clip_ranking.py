"""How well a clip suits a face swap: what is measured of its faces, and in which order clips come.

    look_of       light and sharpness of a face in a frame, which `video detect` stores
    envelope_of   a segment against the working envelope of a swap: median and worst of each measure
    ranked        clips by what they are expected to be worth, and what --top and --total leave out

What a clip is worth is the product of its TERMS, each the share that is left: 1 where nothing is
lost. Shares of one thing need no weights to be multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import msgspec
import numpy as np

import sort_faces as sf

LOOK_SIDE = 64  # px; larger faces are measured at this size: one measure for all the gates let pass
LOOK_INNER = 0.6  # of the box, in its middle, is skin for certain; chosen


def look_of(image: np.ndarray, bbox: Sequence[float]) -> np.ndarray:
    """(2,) float32 light and sharpness of a face in a picture (h, w, 3) uint8 BGR; NaN outside it.

    Light is the mean grey level of the middle of the box, 0 to 255. Sharpness is the variance of
    the Laplacian in thousandths of the variance of the grey levels, so that neither exposure nor
    contrast counts: blur_of, which a photo gets, is far less in a face at dusk.
    """
    x1, y1, x2, y2 = np.rint(np.clip(bbox, 0, [*image.shape[1::-1]] * 2)).astype(int)
    crop = image[y1:y2, x1:x2]
    if min(crop.shape[:2]) < 3:
        return np.full(2, np.nan, np.float32)
    scale = min(1.0, LOOK_SIDE / min(crop.shape[:2]))
    if scale < 1.0:
        wh = [max(3, round(length * scale)) for length in crop.shape[1::-1]]
        crop = cv2.resize(crop, wh, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
    edges = cv2.Laplacian(grey, cv2.CV_16S)
    contrast = max(float(grey.std()) ** 2, 1.0)
    margin = [round(length * (1 - LOOK_INNER) / 2) for length in grey.shape]
    inner = grey[margin[0] : grey.shape[0] - margin[0], margin[1] : grey.shape[1] - margin[1]]
    return np.array([inner.mean(), 1000.0 * float(edges.std()) ** 2 / contrast], np.float32)


# Measure: (values, what is left of a face's worth there); straight lines between, level beyond.
# Measured are, as the share left of a face's likeness to its person: size to 56 px, light,
# sharpness, yaw to 45 and pitch to 40 degrees (docs/analysis/video.md). Chosen: size to 128 px,
# which a swap makes; more turned heads, within the reference's gates of 75 and 45 degrees;
# occlusion; faces, as a swap may take the wrong one.
TERMS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "yaw": ((20.0, 37.0, 75.0, 90.0), (1.0, 0.97, 0.6, 0.3)),  # degrees off
    "pitch": ((15.0, 25.0, 36.0, 60.0), (1.0, 0.97, 0.87, 0.5)),
    "size": ((16.0, 20.0, 26.0, 40.0, 56.0, 80.0, 128.0),
             (0.5, 0.7, 0.85, 0.92, 0.94, 0.96, 1.0)),  # px, short edge
    "light": ((6.0, 12.0, 20.0, 40.0, 70.0, 190.0, 212.0, 225.0),
              (0.13, 0.55, 0.83, 0.96, 1.0, 1.0, 0.95, 0.91)),  # grey level
    "sharpness": ((58.0, 68.0, 85.0, 105.0, 144.0), (0.52, 0.7, 0.87, 0.96, 1.0)),  # thousandths
    "occlusion": ((0.3, 0.7, 1.0), (1.0, 0.5, 0.2)),  # P
    "faces": ((1.0, 2.0, 4.0), (1.0, 0.9, 0.7)),  # in a frame
}  # fmt: skip
WORST_COUNTS = 0.25  # of a clip's worth is that of its worst frames; chosen
WORST_SHARE = 0.1  # of the frames are its worst ones: one bad frame of twenty is none
LOW_IS_BAD = frozenset({"size", "sharpness"})
LIGHT_MIDDLE = 128.0  # grey level that the worst light is farthest from


def envelope_of(segment: sf.Segment, sightings: Any, masks: Any) -> dict[str, Any]:
    """What PlannedClip says of how a segment suits a swap: people, envelope, terms, expected.

    sightings: Sightings of video_people.py; masks: Masks of clip_occlusion.py.
    """
    pose, look = np.abs(segment.seen("pose")), segment.seen("look")
    values = {
        "yaw": pose[:, 1],
        "pitch": pose[:, 0],
        "size": segment.seen("short"),
        "light": look[:, 0],
        "sharpness": look[:, 1],
        "occlusion": masks.of(segment),
        "faces": sightings.counts(segment).astype(float),
    }
    envelope = {name: middle_and_worst(name, some) for name, some in values.items()}
    terms = terms_of(envelope)
    return {
        "people": sightings.people(segment),
        "envelope": envelope,
        "terms": terms,
        "expected": round(math.prod(terms.values()), 4),
    }


def middle_and_worst(name: str, values: np.ndarray) -> tuple[float | None, float | None]:
    """Median and worst tenth of a measure; None where it is not known of any frame."""
    known = np.sort(np.asarray(values, float)[np.isfinite(values)])
    if not len(known):
        return None, None
    if name == "light":
        known = known[np.argsort(np.abs(known - LIGHT_MIDDLE), kind="stable")]
        middle = float(np.median(known))
    else:
        known = known[::-1] if name in LOW_IS_BAD else known
        middle = float(np.median(known))
    worst = float(known[min(len(known) - 1, math.ceil(len(known) * (1.0 - WORST_SHARE)))])
    digits = 3 if name == "occlusion" else 1
    return round(middle, digits), round(worst, digits)


def terms_of(envelope: dict[str, tuple[float | None, float | None]]) -> dict[str, float]:
    """{measure: what is left of a clip's worth, 0 to 1} of those that are known."""
    found = {}
    for name, (middle, worst) in envelope.items():
        if middle is not None:
            at, left = TERMS[name]
            usual, poor = np.interp([middle, worst], at, left)
            found[name] = round(float((1 - WORST_COUNTS) * usual + WORST_COUNTS * poor), 3)
    return found


def ranked(
    clips: Sequence[sf.PlannedClip], choice: sf.ClipChoice
) -> tuple[list[sf.PlannedClip], list[sf.LeftOut]]:
    """(the clips to make, with their rank, in the order given; those left out, with the reason).

    Hidden faces go first; then the best N, then the best that fit in the minutes: a clip that is
    too long for what is left of them makes room for the next. Of equals the longer comes first.
    """
    hidden = {clip.uuid for clip in clips if choice.occlusion == "drop" and is_hidden(clip)}
    order = sorted(
        (clip for clip in clips if clip.uuid not in hidden),
        key=lambda clip: (-clip.expected, clip.start - clip.end, clip.source, clip.start),
    )
    reasons = dict.fromkeys(hidden, "its face is hidden by a mask or sunglasses in most frames")
    rank = {clip.uuid: number for number, clip in enumerate(order, 1)}
    spent = 0.0
    for clip in order:
        place = f"rank {rank[clip.uuid]} of {len(order)}"
        length = clip.end - clip.start
        if choice.top and rank[clip.uuid] > choice.top:
            reasons[clip.uuid] = f"{place}; --top {choice.top}"
        elif choice.total and spent + length > choice.total * 60.0 + 1e-6:
            reasons[clip.uuid] = f"{place}; --total {choice.total:g} minutes are filled"
        else:
            spent += length
    kept = [
        msgspec.structs.replace(clip, rank=rank[clip.uuid])
        for clip in clips
        if clip.uuid not in reasons
    ]
    return kept, [left_out(clip, reasons[clip.uuid]) for clip in clips if clip.uuid in reasons]


def is_hidden(clip: sf.PlannedClip) -> bool:
    """Whether most of its faces that were looked at are behind a mask or sunglasses."""
    middle, _ = clip.envelope.get("occlusion", (None, None))
    return middle is not None and middle >= sf.companion("clip_occlusion").HIDDEN


def left_out(clip: sf.PlannedClip, reason: str) -> sf.LeftOut:
    """What the plan tells of a segment that becomes no clip."""
    name = "+".join(clip.tracks)
    return sf.LeftOut(name, clip.video, clip.start, clip.end, reason, clip.strip, clip.boxes)
