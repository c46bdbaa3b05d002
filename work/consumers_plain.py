"""Crops, numbers and captions for whoever trains or measures: `folder`, `embeddings`, `lora`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

consumers = sf.companion("consumers")
Subject = consumers.Subject


def csv_bytes(rows: Sequence[Sequence[Any]]) -> bytes:
    """A CSV file in UTF-8; what is no text (a path of odd bytes) is escaped."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def write_embeddings(folder: Path, subject: Subject, options: dict[str, Any]) -> dict[str, str]:
    """The embeddings of one face set."""
    return write_all_embeddings(folder, [subject], options)


def write_all_embeddings(
    folder: Path, subjects: Sequence[Subject], _options: dict[str, Any]
) -> dict[str, str]:
    """embeddings.npz, .safetensors and .csv: raw vectors of all faces, and of which recogniser;
    also the average that other programs get of each set."""
    import safetensors.numpy

    vectors = [subject.embedding for subject in subjects]
    whole = sf.of_one_width([row for some in vectors for row in some])  # (n, d)
    loaded = {(subject.manifest.id, face.file) for subject in subjects for face in subject.loaded}
    labels = [(subject.manifest.id, subject.name, face.file, face.face, face.sha256,
               "yes" if (subject.manifest.id, face.file) in loaded else "no")
              for subject in subjects for face in subject.faces]  # fmt: skip
    known = whole.any(axis=1)
    left = {f"{label[0]}/{label[2]}": "embedding not known" for label, is_so in
            zip(labels, known, strict=True) if not is_so}  # fmt: skip
    if not known.any():
        return {"": "no embedding is known; mount the cache, or let verify look at the faces"}
    rows = [label for label, is_so in zip(labels, known, strict=True) if is_so]
    whole, texts = np.ascontiguousarray(whole[known]), np.array(rows, dtype=np.str_).T
    means = {subject.manifest.id: mean for subject in subjects
             if (mean := subject.average()) is not None}  # fmt: skip
    mean = np.stack([*means.values()]) if means else np.zeros((0, whole.shape[1]), np.float32)
    master = subjects[0].corpus.master
    facts = {"model": master.model, "recognizer": master.recognizer, "normalised": "no"}
    # more keys than one would come in any order
    about = {"sort_faces": json.dumps({**facts, "mean_set": [*means]})}
    arrays = {"embedding": whole, "mean": mean, "mean_set": np.array([*means], np.str_),
              **dict(zip(COLUMNS, texts, strict=True)), **facts}  # fmt: skip
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    sf.write_part(folder / "embeddings.npz", packed.getvalue())
    sf.write_part(
        folder / "embeddings.safetensors",
        safetensors.numpy.save({"embedding": whole, "mean": mean}, about),
    )
    head = [*COLUMNS, *(f"e{at}" for at in range(whole.shape[1]))]
    lines = [[*row, *map(str, vector)] for row, vector in zip(rows, whole, strict=True)]
    sf.write_part(folder / "embeddings.csv", csv_bytes([head, *lines]))
    return left


COLUMNS = ("set", "person", "png", "face", "sha256", "averaged")

SIDE = 112  # pixels; what ArcFace models take
FACTS = (
    *("rank", "quality", "distance", "source", "photo_sha256"),
    *("taken", "taken_kind", "taken_precision"),
    *("pad", "neighbours_painted", "kept_because", "retouched", "chosen"),
)


def write_folder(folder: Path, subject: Subject, _options: dict[str, Any]) -> dict[str, str]:
    """Crops of 112 px aligned for ArcFace, and faces.csv with all that is known of each."""
    import cv2

    left, rows = {}, []
    known = subject.embedding.any(axis=1)
    for face, has in zip(subject.faces, known, strict=True):
        points = subject.kps(face)
        image = None if points is None else subject.picture(face)
        if image is None:
            why = "its key points are not known" if points is None else "its PNG is damaged"
            left[face.file] = why
            continue
        name = f"{Path(face.file).stem}.png"
        cut = sf.cut_places(image, sf.arcface_places(points[None], SIDE), SIDE)[0]
        sf.write_part(folder / name, cv2.imencode(".png", cut)[1].tobytes())
        rows.append([name, *facts_of(subject, face), "yes" if has else "no"])
    terms = [f"quality_{term}" for term in sf.QUALITY_TERMS]
    head = ["file", "set", "person", "face", "sha256", *FACTS, *BOX, *POSE, *terms, *CACHED,
            "embedding"]  # fmt: skip
    sf.write_part(folder / "faces.csv", csv_bytes([head, *rows]))
    return left


BOX, POSE = ("x1", "y1", "x2", "y2"), ("pitch", "yaw", "roll")
MEASURED = ("det_score", "face_short", "blur", "learned_quality")  # of the photo, by the cache
POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")  # of the picture
CACHED = (
    *MEASURED,
    *("photo_width", "photo_height", "embedding_length"),
    *(f"{point}_{axis}" for point in POINTS for axis in "xy"),
)


def facts_of(subject: Subject, face: sf.Face) -> list[Any]:
    """What is known of a face, in the order of the columns of faces.csv; "" where it is not."""

    def told(value: Any) -> Any:
        return "" if value in (None, sf.UNSET) else value

    pose, terms = subject.pose(face), face.terms or {}
    return [
        subject.manifest.id, subject.name, face.face, face.sha256,
        *(told(getattr(face, fact)) for fact in FACTS),
        *(face.bbox or [""] * len(BOX)),
        *([""] * len(POSE) if pose is None else [round(float(angle), 2) for angle in pose]),
        *(told(terms.get(term)) for term in sf.QUALITY_TERMS),
        *cached_facts(subject, face),
    ]  # fmt: skip


def cached_facts(subject: Subject, face: sf.Face) -> list[Any]:
    """What the cache measured in the photo, in the order of CACHED; "" where it does not know."""
    row = subject.row(face)
    if row is None:
        return [""] * len(CACHED)
    cache = subject.cache
    numbers = [
        *(getattr(cache, name)[row] for name in MEASURED),
        *cache.file_wh[cache.face_file[row]],
        cache.length[row],
        *cache.kps[row].ravel(),
    ]
    return [str(number) if np.isfinite(number) else "" for number in numbers]


def later_facts(corpus: sf.Corpus, manifest: sf.FacesetManifest) -> list[str] | None:
    """What `enrich` has added of each face, None without the cache."""
    cache = corpus.cache
    if cache is None:
        return None
    rows = (cache.row_of_face.get(face.face) for face in manifest.faces)
    return [
        "" if row is None else f"{cache.enriched[row]} {cache.learned_quality[row]}" for row in rows
    ]


def write_lora(folder: Path, subject: Subject, _options: dict[str, Any]) -> dict[str, str]:
    """The square PNGs of head and shoulders, each with a plain caption beside it."""
    for face in subject.faces:
        stem = Path(face.file).stem
        sf.clone_or_copy(subject.folder / face.file, folder / f"{stem}.png")
        caption = ", ".join([f"photo of {subject.name}", *view_of(subject, face)])
        line = " ".join(caption.split())
        sf.write_part(folder / f"{stem}.txt", f"{line}\n".encode("utf-8", "replace"))
    return {}


PROFILE, TURNED, NODDED = 50.0, 20.0, 20.0  # degrees from where on a caption says so
SHOULDERS = 0.4  # border around the face box, of its longer edge, from where on they are seen


def view_of(subject: Subject, face: sf.Face) -> list[str]:
    """How a caption calls the view and the distance of a face."""
    pose, words = subject.pose(face), []
    if pose is not None:
        pitch, yaw = float(pose[0]), abs(float(pose[1]))
        turned = "three-quarter view" if yaw >= TURNED else "front view"
        words.append("profile view" if yaw >= PROFILE else turned)
        words += ["looking up"] * (pitch >= NODDED) + ["looking down"] * (pitch <= -NODDED)
    near = face.pad is not sf.UNSET and face.pad < SHOULDERS
    return [*words, "close-up of the face" if near else "head and shoulders"]
