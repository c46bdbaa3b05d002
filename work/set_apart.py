"""--save-filtered: the faces that filters took, as crops that can be looked at and read back.

A crop carries the name of its face in the text of the PNG; `decisions from-faces` reads it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import sort_faces as sf

likeness, points = sf.companion("reference_filter"), sf.companion("landmark_filter")
FILTERS = frozenset((likeness.NOT_LIKE, likeness.LIKE, *points.REASONS))  # reasons of theirs
SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORD = "sort_faces"  # of the text that names the face of a crop
MOST_TEXT = 1 << 20  # bytes of a text that is read


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(type, body) of the chunks of a PNG, as far as they are whole; of other files none."""
    found, at = [], len(SIGNATURE)
    while data.startswith(SIGNATURE) and at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        if at + 12 + size > len(data):
            break
        found.append((kind, data[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def text_of(data: bytes, keyword: str) -> str:
    """The uncompressed iTXt of a PNG under a keyword, "" where there is none."""
    for kind, body in chunks(data):
        if kind == b"iTXt" and body.startswith(keyword.encode() + b"\0") and len(body) < MOST_TEXT:
            parts = body[len(keyword) + 3 :].split(b"\0", 2)
            if body[len(keyword) + 1] == 0 and len(parts) == 3:
                return parts[2].decode("utf-8", "replace")
    return ""


def with_text(data: bytes, keyword: str, text: str) -> bytes:
    """A PNG with a text more, before its pixels."""
    body = keyword.encode() + b"\0" * 5 + text.encode()
    chunk = struct.pack(">I", len(body)) + b"iTXt" + body
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    at = data.index(b"IDAT") - 4
    return data[:at] + chunk + data[at:]


def save(export: sf.Export, plans: Sequence[sf.FacesetPlan], folder: Path) -> int:
    """Write a crop of every face that a filter took, a folder a reason; returns how many.

    The photo is only read; a crop that lies there is not made again.
    """
    import cv2

    cache, made = export.cache, 0
    sf.make_folder(folder)
    wanted = [(plan.name, left) for plan in plans for left in plan.left if left.reason in FILTERS]
    rows = [cache.row_of_face[left.face] for _, left in wanted]
    refs = sf.companion("decisions").refs(cache, rows)
    for row, ref, (name, left) in sf.progress(
        list(zip(rows, refs, wanted, strict=True)), len(rows), "saving what was filtered", "crop"
    ):
        place = re.sub(r"\W+", "_", left.reason).strip("_")
        target = folder / place / f"{name}_{left.face.replace(':', '_')}.png"
        path, sha = export.photo(row)
        try:
            photo = None if target.exists() else sf.read_photo(path, sha)
        except sf.PhotoError as error:
            sf.log.warning("%s: %s", path, error)
            continue
        if photo is not None:
            window = sf.crop_square(cache.bbox[row], photo.wh, export.params.pad_ratio)
            crop = photo.cut(window, export.params.out_size)
            data = cv2.imencode(".png", np.ascontiguousarray(crop))[1].tobytes()
            target.parent.mkdir(exist_ok=True)
            sf.write_bytes(target, with_text(data, KEYWORD, ref))
        made += 1
    return made
