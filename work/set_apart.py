"""--save-filtered: the faces that filters took, as crops that can be looked at and read back.

A crop carries the name of its face in the text of the PNG; `decisions from-faces` reads it.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

copies = sf.companion("copies")
likeness, points = sf.companion("reference_filter"), sf.companion("landmark_filter")
FILTERS = frozenset((likeness.NOT_LIKE, likeness.LIKE, *points.REASONS))  # reasons of theirs
SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORD = "sort_faces"  # of the text that names the face of a crop
MOST_TEXT = 1 << 20  # bytes of a text that is read
USUAL = sf.ExportParams()  # how crops are cut where no export says
SHOWN = 20  # filtered faces that `extend` names


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
        plain = keyword.encode() + b"\0\0"  # the second: not compressed
        if kind == b"iTXt" and body.startswith(plain) and len(body) < MOST_TEXT:
            parts = body[len(plain) + 1 :].split(b"\0", 2)
            if len(parts) == 3:
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
    """Write a crop of every face that a filter took of an export; returns how many."""
    row_of = export.cache.row_of_face
    taken = {
        row_of[left.face]: (plan.name, left.reason)
        for plan in plans
        for left in plan.left
        if left.reason in FILTERS
    }
    return save_crops(export.library, taken, folder, export.params)


def save_new(
    library: sf.Library, raw: sf.RawManifest, unlike: Mapping[int, str], folder: Path | None
) -> dict[str, Any]:
    """What `extend` says of the new faces a filter takes; with a folder their crops go there."""
    cache = library.cache
    known = [*raw.singletons, *raw.ignored]
    known += [face for entry in raw.persons for face in entry.faces]
    new = np.setdiff1d(np.array([*unlike], np.intp), sf.rows_of_faces(cache, known)).tolist()
    taken = {row: ("new", unlike[row]) for row in new}
    told = [
        {
            "face": cache.face_ids[row],
            "photo": str(cache.file_path[cache.face_file[row]]),
            "because": unlike[row],
        }
        for row in new[:SHOWN]
    ]
    saved = {} if folder is None else {"saved_apart": save_crops(library, taken, folder)}
    return {"filtered_faces": told, **saved} if unlike else {}


def save_crops(
    library: sf.Library,
    taken: Mapping[int, tuple[str, str]],
    folder: Path,
    params: sf.ExportParams = USUAL,
) -> int:
    """Write crops of {cache row: (beginning of its name, reason)}, a folder a reason; how many.

    The photo is only read; a crop that lies there is not made again.
    """
    import cv2

    cache, made = library.cache, 0
    sf.make_folder(folder)
    notes, refs = copies.Notes(library.path, folder), sf.companion("decisions").refs(cache, taken)
    for (row, (name, reason)), ref in sf.progress(
        list(zip(taken.items(), refs, strict=True)), len(taken), "saving what was filtered", "crop"
    ):
        place = re.sub(r"\W+", "_", reason).strip("_")
        target = folder / place / f"{name}_{cache.face_ids[row].replace(':', '_')}.png"
        file = int(cache.face_file[row])
        path, sha = str(cache.file_path[file]), str(cache.file_sha256[file])
        try:
            photo = None if target.exists() else sf.read_photo(path, sha)
        except sf.PhotoError as error:
            sf.log.warning("%s: %s", path, error)
            continue
        if photo is None:
            notes.add([(sf.sha256_of_file(target), ref)])
        else:
            window = sf.crop_square(cache.bbox[row], photo.wh, params.pad_ratio)
            crop = np.ascontiguousarray(photo.cut(window, params.out_size))
            data = with_text(cv2.imencode(".png", crop)[1].tobytes(), KEYWORD, ref)
            notes.add([(hashlib.sha256(data).hexdigest(), ref)])
            target.parent.mkdir(exist_ok=True)
            sf.write_bytes(target, data)
        made += 1
    return made
