"""FaceSet V2 of the roop fork: metadata.json inside the same .fsz.

The fork takes the reference that fits a frame best, by identity, pose and light, and so needs of
each PNG what the cache knows. The classic loader passes over what is no PNG.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

import sort_faces as sf

consumers, files = sf.companion("consumers"), sf.companion("faceset_files")
Subject = consumers.Subject

YAW_EDGE, PITCH_EDGE = 25.0, 15.0  # degrees; of its 3 x 3 cells
YAW_STEPS = {10.0: "mild", 25.0: "medium", 45.0: "strong", 70.0: "profile"}  # degrees from where on
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
    pose, row = subject.pose(face), subject.row(face)
    geometry: dict[str, Any] = {}
    box = None if row is None else subject.in_png(face, subject.cache.bbox[row].reshape(2, 2))
    if box is not None:
        geometry["bbox"] = box.ravel().round(2).tolist()
    if pose is not None:
        pitch, yaw, roll = (round(float(angle), 3) for angle in pose)
        geometry |= {"yaw": yaw, "pitch": pitch, "roll": roll}
    image = sf.decode_photo((subject.folder / face.file).read_bytes()).image
    light = float(image.mean() / 255)
    entry = {
        "reference_member": PurePosixPath(face.file).name,
        "geometry": geometry,
        "quality": {"score": float(np.clip(face.quality, 0, 1))},
        "appearance": {"luminance": {"mean": round(light, 5)}},
        "sha256": face.sha256,
    }
    if vector.any():
        entry["identity"] = {"normalized_embedding": unit_list(vector)}
    if pose is not None:
        entry |= {"pose_bin": step_of(yaw), "pose_cell": cell_of(yaw, pitch)}
    return entry


def metadata(subject: Subject, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """metadata.json of a bundle of these PNGs."""
    names = [entry["reference_member"] for entry in entries]
    rows = [at for at, face in enumerate(subject.faces) if Path(face.file).name in names]
    vectors = {at: subject.embedding[row] for at, row in enumerate(rows)}
    known = [vector for vector in vectors.values() if vector.any()]
    sources = [{key: entry[key] for key in entry if key != "sha256"} for entry in entries]
    sources = [{**source, "source_index": at} for at, source in enumerate(sources)]
    cells, steps = defaultdict(list), defaultdict(list)
    for at, entry in enumerate(entries):
        if "pose_cell" in entry:
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
    """Its cell of 3 x 3: `left_down` is negative in both."""
    across = "left" if yaw < -YAW_EDGE else "right" if yaw > YAW_EDGE else "center"
    return f"{across}_{'down' if pitch < -PITCH_EDGE else 'up' if pitch > PITCH_EDGE else 'center'}"


def step_of(yaw: float) -> str:
    """How far it is turned, and where to: `frontal`, `mild_left`, ... `profile_right`."""
    steps = [name for edge, name in YAW_STEPS.items() if abs(yaw) >= edge]
    return f"{steps[-1]}_{'left' if yaw < 0 else 'right'}" if steps else "frontal"
