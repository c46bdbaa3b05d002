"""FaceSet V2 of the roop fork: metadata.json inside the same .fsz.

The fork takes the reference that fits a frame best, by identity, pose and light, and so needs of
each PNG what the cache knows. The classic loader passes over what is no PNG. Pose and light are
measured as the fork measures those of a frame (its solve_pose_5pt, measure_lighting), or the two
could not be compared.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

import sort_faces as sf

consumers, files = sf.companion("consumers"), sf.companion("faceset_files")
Subject = consumers.Subject

YAW_EDGE, PITCH_EDGE = 25.0, 15.0  # degrees; of its 3 x 3 cells
YAW_STEPS = {10.0: "mild", 25.0: "medium", 45.0: "strong", 70.0: "profile"}  # above how many
# Its reference head: eyes, nose, corners of the mouth; x to the right of the picture, y up, z to
# the lens (rishabh4496/roop-unleashed-wip app/roop/face_3d_recon.py, eyes averaged).
HEAD = np.array(
    [
        *((-0.3345, 0.378667, 0.17), (0.3345, 0.378667, 0.17), (0.0, -0.098, 0.547)),
        *((-0.368, -0.547, 0.299), (0.368, -0.547, 0.299)),
    ]
)
UNKNOWN_POSE = (0.0, 0.0, 0.0)  # what it takes a face for whose pose it does not know
TINY = 1e-9
DIGITS = 6  # of numbers in embeddings of length 1


def write_metadata(folder: Path, subject: Subject, _options: dict[str, Any]) -> dict[str, str]:
    """One metadata.json for all bundles of the same PNGs."""
    entries = [entry_of(subject, at) for at in range(len(subject.faces))]
    of_file = {face.file: entry for face, entry in zip(subject.faces, entries, strict=True)}
    bundles = sf.bundles_of(subject.manifest)
    for name, pngs in bundles.items():
        place = folder.parents[1] / files.metadata_of(bundles, name)
        text = json.dumps(
            metadata(subject, [of_file[png] for png in pngs]),
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
        )
        sf.write_part(place, text.encode("ascii"))
    return {}


def entry_of(subject: Subject, at: int) -> dict[str, Any]:
    """What it tells of one PNG; without what is not known."""
    face, vector = subject.faces[at], subject.embedding[at]
    row, points = subject.row(face), subject.points(face)
    pose = UNKNOWN_POSE if points is None else own_pose(points)
    yaw, pitch, roll = (round(float(angle), 3) for angle in pose)
    geometry: dict[str, Any] = {"yaw": yaw, "pitch": pitch, "roll": roll}
    box = None if row is None else subject.in_png(face, subject.cache.bbox[row].reshape(2, 2))
    if box is not None:
        geometry["bbox"] = box.ravel().round(2).tolist()
    image = subject.picture(face)
    entry = {
        "reference_member": PurePosixPath(face.file).name,
        "geometry": geometry,
        "quality": {"score": float(np.clip(face.quality, 0, 1))},
        "pose_bin": step_of(yaw),
        "pose_cell": cell_of(yaw, pitch),
        "sha256": face.sha256,
    }
    if image is not None:
        entry["appearance"] = {"luminance": {"mean": round(light_of(image, box), 5)}}
    if vector.any():
        entry["identity"] = {"normalized_embedding": unit_list(vector)}
    return entry


def own_pose(points: np.ndarray) -> tuple[float, float, float]:
    """Degrees (yaw, pitch, roll) of key points (5, 2): HEAD in weak perspective.

    Yaw is positive to the right of the picture, pitch downwards. UNKNOWN_POSE of points on a line.
    """
    model = (HEAD - HEAD.mean(axis=0)) * (1.0, -1.0, 1.0)  # y runs down in pictures
    across, down = (np.linalg.pinv(model) @ (points - points.mean(axis=0))).T
    across = across / max(np.linalg.norm(across), TINY)
    down = down - (down @ across) * across
    down = down / max(np.linalg.norm(down), TINY)
    if not (across.any() and down.any()):
        return UNKNOWN_POSE
    ahead = np.cross(across, down)
    yaw = -np.arctan2(ahead[0], ahead[2])
    pitch = np.arcsin(np.clip(-ahead[1], -1.0, 1.0))
    return tuple(np.degrees([yaw, pitch, np.arctan2(across[1], down[1])]).tolist())


def light_of(image: np.ndarray, box: np.ndarray | None) -> float:
    """Mean brightness, 0 to 1, of the face in a PNG: of its box (2, 2), or of all of it."""
    if box is not None:
        limit = image.shape[1::-1]
        (x1, y1), (x2, y2) = (
            np.clip(at, 0, limit).astype(int) for at in (np.floor(box[0]), np.ceil(box[1]))
        )
        image = image[y1:y2, x1:x2] if x2 > x1 and y2 > y1 else image
    return float(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean() / 255)


def metadata(subject: Subject, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """metadata.json of a bundle of these PNGs."""
    names = {entry["reference_member"] for entry in entries}
    rows = [at for at, face in enumerate(subject.faces) if Path(face.file).name in names]
    vectors = {at: subject.embedding[row] for at, row in enumerate(rows)}
    known = [vector for vector in vectors.values() if vector.any()]
    sources = [{key: entry[key] for key in entry if key != "sha256"} for entry in entries]
    sources = [{**source, "source_index": at} for at, source in enumerate(sources)]
    cells, steps = defaultdict(list), defaultdict(list)
    for at, entry in enumerate(entries):
        cells[entry["pose_cell"]].append(at)
        steps[entry["pose_bin"]].append(at)
    told = {
        "schema": "roop.fsz",
        "version": 2,
        "source_name": subject.name.encode("utf-8", "replace").decode(),
        "compatibility": {"legacy_root_png_members": True},
        "sources": sources,
        "pose_bank": steps,
        "pose_bins": {
            cell: {
                "yaw_bin": cell.split("_")[0],
                "pitch_bin": cell.split("_")[1],
                "members": members,
                "support": len(members),
                "embedding": unit_list(np.mean([vectors[at] for at in members], axis=0)),
            }
            for cell, members in cells.items()
            if all(vectors[at].any() for at in members)
        },
        "integrity": {"sha256": {e["reference_member"]: e["sha256"] for e in entries}},
    }
    if known:
        mean = np.mean(known, axis=0, dtype=np.float64)
        raw, unit = [float(str(number)) for number in mean.astype(np.float32)], unit_list(mean)
        identity = {"embedding": raw, "normalized_embedding": unit, "aggregation": "mean"}
        told |= {"default_embedding": unit, "identity": identity}
    return told


def unit_list(vector: np.ndarray) -> list[float]:
    """A vector made to length 1."""
    return (vector / np.linalg.norm(vector)).astype(float).round(DIGITS).tolist()


def cell_of(yaw: float, pitch: float) -> str:
    """Its cell of 3 x 3: `left_down` is negative in both, whatever it looks like."""
    across = "left" if yaw < -YAW_EDGE else "right" if yaw > YAW_EDGE else "center"
    return f"{across}_{'down' if pitch < -PITCH_EDGE else 'up' if pitch > PITCH_EDGE else 'center'}"


def step_of(yaw: float) -> str:
    """How far it is turned, and where to: `frontal`, `mild_left`, ... `profile_right`."""
    steps = [name for edge, name in YAW_STEPS.items() if abs(yaw) > edge]
    return f"{steps[-1]}_{'left' if yaw < 0 else 'right'}" if steps else "frontal"
