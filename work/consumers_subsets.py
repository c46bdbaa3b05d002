"""Further bundles of a face set: by pose, by sunglasses, by era."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

consumers, files = sf.companion("consumers"), sf.companion("faceset_files")
Subject = consumers.Subject

YAW_EDGE, PITCH_EDGE = 25.0, 15.0  # degrees; as FaceSet V2 cuts poses
WORN = 0.5  # probability from which on sunglasses are on a face


def write_subsets(
    folder: Path, subject: Subject, subsets: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Write {name: its PNGs} as ID_NAME.fsz, those that hold any."""
    for name, pngs in subsets.items():
        if pngs:
            folder.mkdir(parents=True, exist_ok=True)
            bundle = folder / f"{subject.manifest.id}_{name}.fsz"
            files.write_bundle(bundle, subject.folder, pngs)
    return {}


def write_poses(folder: Path, subject: Subject, _options: dict[str, Any]) -> dict[str, str]:
    """frontal, left, right, up and down; left and up are those of the picture."""
    subsets: dict[str, list[str]] = {
        name: [] for name in ("frontal", "left", "right", "up", "down")
    }
    left = {}
    for face in subject.faces:
        pose = subject.pose(face)
        if pose is None:
            left[face.file] = "its pose is not known"
            continue
        for name in poses_of(float(pose[1]), float(pose[0])):
            subsets[name].append(face.file)
    return left | write_subsets(folder, subject, subsets)


def poses_of(yaw: float, pitch: float) -> list[str]:
    """The subsets a face belongs to, by its degrees."""
    names = ["left"] * (yaw < -YAW_EDGE) + ["right"] * (yaw > YAW_EDGE)
    names += ["down"] * (pitch < -PITCH_EDGE) + ["up"] * (pitch > PITCH_EDGE)
    return names or ["frontal"]


@consumers.once
def sunglasses(corpus: sf.Corpus) -> dict[str, float]:
    """{sha256 of a PNG: P(sunglasses)} by the scores made last."""
    scores = corpus.root / sf.SCORES_FOLDER
    paths = sorted(scores.glob(f"{sf.OCCLUSION_SCORES}*.jsonl"), key=sf.os.path.getmtime)
    at = sf.ATTRIBUTES.index("sunglasses")
    return {
        sha: record.scores[at]
        for path in paths[-1:]
        for sha, record in sf.read_results(path).items()
        if record.scores
    }


def glasses_of(corpus: sf.Corpus, manifest: sf.FacesetManifest) -> list[bool | None]:
    """Whether each face wears sunglasses, None where nobody has scored it."""
    scores = (sunglasses(corpus).get(face.sha256) for face in manifest.faces)
    return [None if score is None else score >= WORN for score in scores]


def write_glasses(folder: Path, subject: Subject, _options: dict[str, Any]) -> dict[str, str]:
    """sunglasses and no_sunglasses, of the faces `occlusion score` has scored."""
    worn = glasses_of(subject.corpus, subject.manifest)
    if all(one is None for one in worn):
        return {"": "no face of it is scored; run occlusion score, then bundle again"}
    pairs = list(zip(subject.faces, worn, strict=True))
    subsets = {
        "sunglasses": [face.file for face, one in pairs if one is True],
        "no_sunglasses": [face.file for face, one in pairs if one is False],
    }
    write_subsets(folder, subject, subsets)
    return {face.file: "is not scored" for face, one in pairs if one is None}


def write_eras(folder: Path, subject: Subject, _options: dict[str, Any]) -> dict[str, str]:
    """A bundle an era, as `era split` would part the set; the rest of too few is left out."""
    if subject.manifest.era is not sf.UNSET:
        return {}
    params, rules = sf.EraParams(), sf.companion("eras")
    known = np.flatnonzero(subject.embedding.any(axis=1))
    faces = [subject.faces[row] for row in known]
    years = np.array([face.year for face in faces])
    if not np.isfinite(years).any():
        return {"": "none of its faces has a capture time and an embedding"}
    subsets: dict[str, list[str]] = {}
    left = {face.file: "embedding not known" for face in subject.faces if face not in faces}
    for _, rows in rules.split_eras(sf.unit_rows(subject.embedding[known]), years, params):
        pngs = [faces[row].file for row in rows]
        if len(rows) < params.min_faces:
            left |= dict.fromkeys(pngs, f"of an era of {len(rows)} faces")
            continue
        span = rules.year_range(years[rows])
        again = sum(name.split("_")[0] == span for name in subsets)
        subsets[f"{span}_{again + 1}" if again else span] = pngs
    return left | write_subsets(folder, subject, subsets)
