"""Averaged identities as Rope, VisoMaster and ReActor load them.

All mean raw embeddings of w600k_r50, averaged as the .fsz would be: without making them unit.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

consumers = sf.companion("consumers")
Subject = consumers.Subject

UNKNOWN = "no embedding of its faces is known; mount the cache, or let verify look at them"
DEVICE = re.compile(  # of Windows, no file
    r"(con|prn|aux|nul|(com|lpt)\d) *(\.|\Z)", re.IGNORECASE
)
LONGEST_STEM = 100  # letters of a file's name; file systems take 255 bytes with all that is added
LETTERS = {  # what Unicode does not take apart, and German as Germans write it
    "ß": "ss", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "ı": "i", "œ": "oe", "þ": "th",
    "Æ": "Ae", "Ø": "O", "Ł": "L", "Đ": "D", "Œ": "Oe",
    "ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue",
}  # fmt: skip


def plain_name(subject: Subject) -> str:
    """Its name in ASCII on one line; its id where nothing of it is left."""
    text = unicodedata.normalize("NFC", " ".join(subject.name.split()))
    text = text.translate(str.maketrans(LETTERS))
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    text = " ".join(re.sub(r"[\x00-\x20\x7f]+", " ", text).split())
    return text or subject.manifest.id


def plain_names(subjects: Iterable[Subject]) -> list[str]:
    """The same of many; what would be the same name twice gets its id added."""
    return consumers.told_apart((plain_name(subject), subject.manifest.id) for subject in subjects)


def averages(subjects: Sequence[Subject]) -> tuple[list[tuple[str, np.ndarray]], dict[str, str]]:
    """([(name, (d,) mean raw embedding)] of those of whom one is known, what is left out)."""
    pairs = [(name, subject.average()) for name, subject in
             zip(plain_names(subjects), subjects, strict=True)]  # fmt: skip
    found = [(name, average) for name, average in pairs if average is not None]
    return found, {} if found else {"": UNKNOWN}


def write_rope(folder: Path, subject: Subject, options: dict[str, Any]) -> dict[str, str]:
    """merged_embeddings.txt of one person."""
    return write_all_rope(folder, [subject], options)


def write_all_rope(
    folder: Path, subjects: Sequence[Subject], _options: dict[str, Any]
) -> dict[str, str]:
    """merged_embeddings.txt: 513 lines a person, one after the other, as Rope itself appends."""
    found, left = averages(subjects)
    if found:
        text = "".join(
            f"Name: {name}\n" + "".join(f"{number!s}\n" for number in average)
            for name, average in found
        )
        sf.write_part(folder / "merged_embeddings.txt", text.encode("ascii"))
    return left


def write_visomaster(folder: Path, subject: Subject, options: dict[str, Any]) -> dict[str, str]:
    """embeddings.json of one person."""
    return write_all_visomaster(folder, [subject], options)


def write_all_visomaster(
    folder: Path, subjects: Sequence[Subject], _options: dict[str, Any]
) -> dict[str, str]:
    """embeddings.json; VisoMaster puts what it loads in place of all it had, so that it is one
    file for all people. ASCII, as it opens the file in the encoding of the platform."""
    found, left = averages(subjects)
    names = names_in_json(subjects)
    if found:
        people = [
            {"name": names[name], "embedding_store": {"Inswapper128ArcFace": numbers_of(average)}}
            for name, average in found
        ]
        sf.write_part(folder / "embeddings.json", json.dumps(people, indent=4).encode("ascii"))
    return left


def names_in_json(subjects: Sequence[Subject]) -> dict[str, str]:
    """{plain name: name as it is written}, on one line and without half characters."""
    own = (" ".join(subject.name.encode("utf-8", "replace").decode().split()) for subject in
           subjects)  # fmt: skip
    return dict(zip(plain_names(subjects), own, strict=True))


def numbers_of(vector: np.ndarray) -> list[float]:
    """float32 as the shortest decimals that give the same again."""
    return [float(str(number)) for number in vector]


# What ReActor's own models hold beside the embedding: the column of the cache each comes from.
OF_BEST = ("bbox", "kps", "det_score", "landmark_3d_68", "pose", "landmark_2d_106")


def write_reactor(folder: Path, subject: Subject, options: dict[str, Any]) -> dict[str, str]:
    """One face model, named as its person."""
    return write_all_reactor(folder, [subject], options)


def write_all_reactor(
    folder: Path, subjects: Sequence[Subject], options: dict[str, Any]
) -> dict[str, str]:
    """A face model for each person: their average, and all else of the best face."""
    import safetensors.numpy

    left, some = {}, False
    for stem, subject in zip(file_stems(subjects), subjects, strict=True):
        tensors = face_model(subject, options)
        if tensors is None:
            left[subject.manifest.id] = UNKNOWN
            continue
        sf.write_part(folder / f"{stem}.safetensors", safetensors.numpy.save(tensors))
        some = True
    return left if some else {"": UNKNOWN}


def file_stems(subjects: Sequence[Subject]) -> list[str]:
    """Their plain names as any file system takes them, no two the same."""
    named = []
    for name, subject in zip(plain_names(subjects), subjects, strict=True):
        stem = sf.WINDOWS_FORBIDDEN.sub("_", name.replace("/", "_"))[:LONGEST_STEM].strip(". ")
        stem = f"_{stem}" if DEVICE.match(stem) else stem
        named.append((stem or subject.manifest.id, subject.manifest.id))
    return consumers.told_apart(named)


def face_model(subject: Subject, options: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """{name: array} of a face model, None where no embedding is known; what nobody has measured
    is not in it."""
    average = subject.average()
    if average is None:
        return None
    best, tensors = subject.faces[0], {"embedding": average}
    row = subject.row(best)
    for name in OF_BEST if row is not None else ():
        value = np.asarray(getattr(subject.cache, name)[row], np.float32)
        if np.isfinite(value).all():
            tensors[name] = value
    pack = sf.model_folder(sf.EngineSpec(model=subject.corpus.master.model))
    model = Path(options.get("genderage") or pack / "genderage.onnx")
    return tensors | (gender_and_age(model, subject, best) if model.is_file() else {})


def gender_and_age(model: Path, subject: Subject, face: sf.Face) -> dict[str, np.ndarray]:
    """{"gender": 1 for male, 0 for female, "age": years} of a face, as the pack's model says."""
    row = subject.row(face)
    box = None if row is None else subject.in_png(face, subject.cache.bbox[row].reshape(2, 2))
    image = None if box is None else subject.picture(face)
    if image is None:
        return {}
    from insightface.app.common import Face

    with sf.LOADING:  # one at a time
        gender, age = attributes_model(str(model)).get(image, Face(bbox=box.ravel()))
    return {"gender": np.array(gender, np.int64), "age": np.array(age, np.int64)}


@functools.cache
def attributes_model(path: str) -> Any:
    """insightface's own reader of genderage.onnx. Raises SortFacesError for another file."""
    from insightface.model_zoo.attribute import Attribute

    try:
        session = sf.load_onnxruntime().InferenceSession(path, providers=["CPUExecutionProvider"])
        model = Attribute(path, session)
    except Exception as error:  # onnx and onnxruntime have no common one
        raise sf.SortFacesError(f"{path}: {sf.one_line(error)}; name a genderage.onnx") from None
    if model.taskname != "genderage":
        raise sf.SortFacesError(f"{path}: tells no gender and age; name a genderage.onnx")
    return model
