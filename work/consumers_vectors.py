"""Averaged identities as Rope, VisoMaster and ReActor load them.

All mean raw embeddings of w600k_r50, averaged as the .fsz would be: without making them unit.
"""

from __future__ import annotations

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
LETTERS = {  # what Unicode does not take apart, and German as Germans write it
    "ß": "ss", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "ı": "i", "œ": "oe", "þ": "th",
    "Æ": "Ae", "Ø": "O", "Ł": "L", "Đ": "D", "Œ": "Oe",
    "ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue",
}  # fmt: skip


def plain_name(subject: Subject) -> str:
    """Its name in ASCII on one line; its id where nothing of it is left."""
    text = unicodedata.normalize("NFC", subject.name).translate(str.maketrans(LETTERS))
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    text = " ".join(re.sub(r"[\x00-\x20\x7f]+", " ", text).split())
    return text or subject.manifest.id


def plain_names(subjects: Iterable[Subject]) -> list[str]:
    """The same of many; what would be the same name twice gets its id added."""
    names: list[str] = []
    for subject in subjects:
        name = plain_name(subject)
        taken = {other.casefold() for other in names}
        names.append(f"{name} {subject.manifest.id}" if name.casefold() in taken else name)
    return names


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
