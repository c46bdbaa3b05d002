"""Crops, numbers and captions for whoever trains or measures: `folder`, `embeddings`, `lora`."""

from __future__ import annotations

import csv
import io
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
    """embeddings.npz, .safetensors and .csv: raw vectors of all faces, and of which recogniser."""
    import safetensors.numpy

    vectors = [subject.embedding for subject in subjects]
    whole = sf.of_one_width([row for some in vectors for row in some])  # (n, d)
    labels = [(subject.manifest.id, subject.name, face.file, face.face, face.sha256)
              for subject in subjects for face in subject.faces]  # fmt: skip
    known = whole.any(axis=1)
    left = {f"{label[0]}/{label[2]}": "embedding not known" for label, is_so in
            zip(labels, known, strict=True) if not is_so}  # fmt: skip
    if not known.any():
        return {"": "no embedding is known; mount the cache, or let verify look at the faces"}
    rows = [label for label, is_so in zip(labels, known, strict=True) if is_so]
    whole, texts = np.ascontiguousarray(whole[known]), np.array(rows, dtype=np.str_).T
    master = subjects[0].corpus.master
    facts = {"model": master.model, "recognizer": master.recognizer, "normalised": "no"}
    arrays = {"embedding": whole, **dict(zip(COLUMNS, texts, strict=True)), **facts}
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    sf.write_part(folder / "embeddings.npz", packed.getvalue())
    about = facts | {"rows": "as in embeddings.csv"}
    sf.write_part(
        folder / "embeddings.safetensors", safetensors.numpy.save({"embedding": whole}, about)
    )
    head = [*COLUMNS, *(f"e{at}" for at in range(whole.shape[1]))]
    lines = [[*row, *map(str, vector)] for row, vector in zip(rows, whole, strict=True)]
    sf.write_part(folder / "embeddings.csv", csv_bytes([head, *lines]))
    return left


COLUMNS = ("set", "person", "png", "face", "sha256")
