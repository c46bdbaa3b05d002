"""Photos that only their XMP sidecar says how to turn.

digiKam and others write `tiff:Orientation` into `photo.jpg.xmp` where they may not touch the photo.
It counts where the photo has no orientation of its own. What the cache knows of such a photo says
so in `file_note`; when the sidecar comes, goes or says something else, `embed` looks again.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import sort_faces as sf

NOTE = re.compile(r"turned by its sidecar: ([2-8])")  # in file_note


def noted(note: str) -> int:
    """The orientation, 2 to 8, that a photo was turned by as file_note says; 1 where it was not."""
    found = NOTE.search(note)
    return int(found[1]) if found else 1


def turn_beside(path: str) -> int:
    """The orientation, 1 to 8, that `<path>.xmp` tells; 1 where it cannot be read."""
    try:
        data = Path(f"{path}.xmp").read_bytes()
    except OSError:
        return 1
    if b"Orientation" not in data:
        return 1
    return sf.companion("sources").beside(path).orientation or 1


def has_own(data: bytes) -> bool:
    """Whether a photo's bytes say how to turn it, or cannot be asked."""
    header = sf.open_with_pillow(data)
    if header is None or header.format in ("HEIF", "AVIF"):  # these are turned by other means
        return True
    try:
        return header.getexif().get(sf.EXIF_ORIENTATION) is not None
    except sf.PILLOW_ERRORS:
        return False


def turned(photo: sf.Photo, path: str, data: bytes) -> sf.Photo:
    """The photo at `path`, whose bytes these are, turned as its sidecar says, if that counts."""
    turn = turn_beside(path)
    if turn == 1 or has_own(data):
        return photo
    there = photo.there and sf.turned_box(photo.image.shape[1::-1], photo.there[1::2], turn)
    told = f"turned by its sidecar: {turn}"
    note = f"{photo.note}; {told}" if photo.note else told
    return replace(photo, image=sf.turn_upright(photo.image, turn), there=there, note=note)


def otherwise(cache: sf.FaceCache, sidecars: Iterable[str], cache_path: Path) -> set[str]:
    """sha256 of the photos of a cache that their sidecars turn otherwise than when they were read.

    sidecars: paths of those that were found; of those changed since the cache was written it is
    asked what they say.
    """
    turns = {file: noted(note) for file, note in enumerate(cache.file_note.tolist()) if note}
    found = {
        str(cache.file_sha256[file])
        for file, turn in turns.items()
        if turn > 1 and is_left_alone(str(cache.file_path[file]))
    }
    since = cache_path.stat().st_mtime if cache_path.exists() else 0.0
    changed = [path for path in sidecars if changed_at(path) > since]
    rows = {path: file for file, path in enumerate(cache.file_path.tolist())} if changed else {}
    for path in (sidecar.removesuffix(".xmp") for sidecar in changed):
        file = rows.get(path)
        with contextlib.suppress(OSError):
            own = file is None or has_own(Path(path).read_bytes())
            if not own and turn_beside(path) != turns.get(file, 1):
                found.add(str(cache.file_sha256[file]))
    return found


def changed_at(path: str) -> float:
    """When a file was changed, seconds since 1970; 0 where it is gone, or a link to nowhere."""
    with contextlib.suppress(OSError):
        return os.path.getmtime(path)
    return 0.0


def is_left_alone(path: str) -> bool:
    """Whether a photo is there and its sidecar is not any more."""
    return sf.is_missing(f"{path}.xmp") and not sf.is_missing(path)
