"""Faces the operator draws: a box on a photo becomes a face of the cache like any other.

The detector looks again, closely, at what the box shows. Its key points count where it finds
somebody there; without, the points of a mean face are laid into the box, and the face is weak: its
score is 0, so that no gate takes it for a good one. The box stays the operator's in any case. The
face goes behind those the photo has, as a `drawn` line of the journal: nobody is numbered anew.

Contents
    Looking into a box
    Into the cache
    Again, after a re-scan
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

decisions = sf.companion("decisions")

# ============================================================================
# Looking into a box
# ============================================================================

SURROUNDINGS = (1.0, 0.5, 2.0)  # of the box's longer edge, on each side: tried in turn
LEAST_SCORE = 0.2  # of a detection within a box: a person says that somebody is there
SAME_BOX_IOU = 0.3  # a detection that overlaps the box so is what the box means
MEAN_FACE = (  # five points in shares of a box; mean of 68 faces of LFW found by SCRFD
    *((0.28, 0.38), (0.72, 0.38), (0.5, 0.57)),
    *((0.31, 0.735), (0.69, 0.735)),
)


def draw_item(engine: sf.Engine, item: sf.Item) -> sf.Result:
    """Faces in boxes of a photo. item: sha256, path, boxes, landmarks."""
    photo = sf.read_item(item, faces=[])
    if not isinstance(photo, sf.Photo):
        return photo
    records = [draw(engine, photo, np.array(box), item["landmarks"]) for box in item["boxes"]]
    return {"error": "", "faces": sf.as_json(records)}


def draw(engine: sf.Engine, photo: sf.Photo, box: np.ndarray, landmarks: bool) -> sf.FaceRecord:
    """What a cache stores of the face in a box (4,) of a photo, in pixels of it."""
    inside = box / photo.scale
    found = look_closely(engine, photo.image, inside)
    [[record]] = sf.face_records(engine, [(photo.image, found)], landmarks)
    record = sf.enlarged(record, photo.scale)
    edges = (box[2:] - box[:2]).tolist()
    blur = sf.blur_of(photo.image, inside)
    return sf.msgspec.structs.replace(
        record, bbox=tuple(box.tolist()), face_short=min(edges), blur=blur
    )


def look_closely(engine: sf.Engine, image: np.ndarray, box: np.ndarray) -> sf.Detections:
    """The one face that a box (4,) of a picture means; a weak one where the detector sees none."""
    wh, size = (image.shape[1], image.shape[0]), engine.det_size
    for margin in SURROUNDINGS:
        x, y, side = sf.crop_square(box, wh, margin)
        found = engine.detect(sf.cut_window(image, (x, y, side), size))
        found = sf.shifted(sf.resized(found, side / size), x, y)
        overlap = sf.box_iou(box, found.bbox)
        if len(found) and overlap.max() >= SAME_BOX_IOU:
            return found.take([int(overlap.argmax())])
    points = box[:2] + np.array(MEAN_FACE) * (box[2:] - box[:2])
    arrays = (box[None], np.zeros(1), points[None])
    return sf.Detections(*(array.astype(np.float32) for array in arrays))


# ============================================================================
# Into the cache
# ============================================================================

LEAST_EDGE = 8.0  # px of a box: less shows nobody
FILLED_IOU = 0.5  # from here on a face of the photo is what the box shows


@dataclass(frozen=True)
class Box:
    """A box the operator has drawn."""

    photo: str  # first 16 hex of its sha256
    corners: tuple[float, float, float, float]  # x1 y1 x2 y2 pixels of the upright photo


@dataclass(frozen=True)
class Drawn:
    """What came of a box."""

    face: str = ""  # its id
    error: str = ""  # why there is none
    new: bool = False
    weak: bool = False  # the detector sees nobody there


def add_drawn(cache_path: Path, crew: sf.Crew, boxes: Sequence[Box]) -> list[Drawn]:
    """Make faces of boxes and add them to a cache; where a box has a face, that one is it.

    Raises SortFacesError where the crew's models are not the cache's or somebody writes to it.
    """
    with sf.locked_cache(cache_path):
        return add_to_held(cache_path, crew, boxes)


def add_to_held(cache_path: Path, crew: sf.Crew, boxes: Sequence[Box]) -> list[Drawn]:
    """The same for a cache whose lock is held."""
    cache = sf.load_cache(cache_path)
    library = sf.Library(cache, cache_path)
    asked: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)  # by photo: (at, box)
    told: dict[int, Drawn] = {}
    later = []  # what an earlier box shows may be meant again
    row_of = {sha[:16]: row for row, sha in enumerate(cache.file_sha256.tolist())}
    for at, box in enumerate(boxes):
        row = row_of.get(box.photo, -1)
        corners, why = fitted(cache, row, box)
        if why:
            told[at] = Drawn(error=why)
        elif face := face_at(cache, row, corners):
            told[at] = Drawn(face)
        elif any(sf.box_iou(corners, other[None])[0] >= FILLED_IOU for _, other in asked[row]):
            later.append(at)
        else:
            asked[row].append((at, corners))
    if any(asked.values()):
        told |= Drawing(library, looking_crew(cache, crew)).add(asked)
    if later:
        again = add_to_held(cache_path, crew, [boxes[at] for at in later])
        told |= zip(later, again, strict=True)
    return [told[at] for at in range(len(boxes))]


def fitted(cache: sf.FaceCache, row: int, box: Box) -> tuple[np.ndarray, str]:
    """(the box (4,) within its photo, why it is none)."""
    corners = np.array(box.corners, np.float64)
    if row < 0:
        return corners, "no such photo"
    if not np.isfinite(corners).all():
        return corners, "no box"
    corners = np.clip(corners, 0, np.tile(cache.file_wh[row], 2))
    small = (corners[2:] - corners[:2]).min() < LEAST_EDGE
    return corners, f"smaller than {LEAST_EDGE:g} pixels" if small else ""


def face_at(cache: sf.FaceCache, row: int, box: np.ndarray) -> str:
    """Id of the face of a photo that a box (4,) shows, "" for none."""
    rows = np.flatnonzero(cache.face_file == row)
    overlap = sf.box_iou(box, cache.bbox[rows].astype(np.float64))
    if not len(rows) or overlap.max() < FILLED_IOU:
        return ""
    return cache.face_ids[rows[int(overlap.argmax())]]


def looking_crew(cache: sf.FaceCache, crew: sf.Crew) -> sf.Crew:
    """A crew that looks as `add_drawn` does; of such a crew it makes no other, so that who keeps
    it loads its models once."""
    spec = sf.with_engine_of(crew.spec, cache.meta)
    marked = bool(cache.enriched.any())
    return crew.with_spec(replace(spec, det_threshold=LEAST_SCORE, landmarks=marked))


class Drawing:
    """Looks into boxes with the cache's own models and writes down whom it sees."""

    def __init__(self, library: sf.Library, crew: sf.Crew) -> None:
        """crew: a looking_crew."""
        self.library, self.cache, self.crew = library, library.cache, crew
        meta = self.cache.meta
        if self.crew.facts["meta"]["recognizer"] != meta.recognizer:
            raise sf.SortFacesError(
                f"{library.path}: made with another {meta.model} recogniser; use its own model"
            )
        self.door = sf.Doorkeeper(library.path, meta)

    def add(self, asked: dict[int, list[tuple[int, np.ndarray]]]) -> dict[int, Drawn]:
        """What came of the boxes of photos, by their place in the order."""
        items = []
        for row, boxes in asked.items():
            path = self.library.live_path(row) or str(self.cache.file_path[row])
            places = [box.tolist() for _, box in boxes]
            about = {"sha256": str(self.cache.file_sha256[row]), "path": path, "boxes": places}
            items.append({**about, "row": row, "landmarks": self.crew.spec.landmarks})
        told: dict[int, Drawn] = {}
        journal = sf.Journal(self.library.path, self.cache.meta)
        try:
            for item, result in self.crew.run("drawn", items, sf.queue_folder(self.library.path)):
                order = [at for at, _ in asked[item["row"]]]
                if why := result.get("failed") or result.get("error"):
                    told |= dict.fromkeys(order, Drawn(error=why))
                else:
                    told |= zip(order, self.store(item, result["faces"], journal), strict=True)
        finally:
            journal.close()
        return told

    def store(
        self, item: sf.Item, faces: Iterable[dict[str, Any]], journal: sf.Journal
    ) -> list[Drawn]:
        """Journal the faces of one photo behind those it has."""
        sha, told = item["sha256"], []
        own = self.cache.face_file == item["row"]
        index = int(self.cache.face_index[own].max(initial=-1)) + 1
        for face in faces:
            if not self.door.admitted(sha, [face]):
                told.append(Drawn(error="was forgotten"))
                continue
            journal.append("drawn", sha256=sha, index=index, face=face)
            told.append(Drawn(f"{sha[:16]}:{index}", new=True, weak=face["det_score"] == 0))
            index += 1
        return told


# ============================================================================
# Again, after a re-scan
# ============================================================================


def boxes_of(lines: Iterable[decisions.Line]) -> list[Box]:
    """The boxes of decisions: of refs `<16 hex>@x1,y1,x2,y2`."""
    found = []
    for line in lines:
        for ref in line.faces if line.kind == "box" else ():
            photo, _, corners = ref.partition("@")
            if corners:
                found.append(Box(photo[:16], tuple(map(float, corners.split(",")))))
    return found


def add_again(cache_path: Path, crew: sf.Crew) -> int:
    """Add the drawn faces that a cache has no more, its lock held; returns how many."""
    boxes = boxes_of(decisions.Book(cache_path).standing())
    if not boxes or not sf.cache_exists(cache_path):
        return 0
    told = add_to_held(cache_path, crew, boxes)
    for box, drawn in zip(boxes, told, strict=True):
        if drawn.error:
            sf.log.warning("%s: a face drawn there is not added: %s", box.photo, drawn.error)
    return sum(drawn.new for drawn in told)


def undone_rows(cache: sf.FaceCache, lines: Sequence[decisions.Line]) -> np.ndarray:
    """Rows (k,) of faces that only the drawing of a box has brought, which was taken back.

    lines: of a Book, revocations and all. The box of a drawn face is the operator's to the pixel.
    """
    standing = set(boxes_of(decisions.standing(lines)))
    row_of = {sha[:16]: row for row, sha in enumerate(cache.file_sha256.tolist())}
    found = set()
    for box in set(boxes_of(lines)) - standing:
        rows = np.flatnonzero(cache.face_file == row_of.get(box.photo, -1))
        corners = np.array(box.corners, np.float32)
        same = (np.abs(cache.bbox[rows] - corners) < 0.5).all(axis=1)
        found.update(rows[same].tolist())
    return np.array(sorted(found), np.intp)
