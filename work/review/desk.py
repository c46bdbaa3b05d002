"""The desk of the review server: the library, what was decided of it, and every act on it.

A companion of sort_faces.py; nothing of HTTP is in here. Its methods may be called by several
threads.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import sort_faces as sf

guard = sf.companion("review/guard")
pictures = sf.companion("review/thumbs")
Refused = guard.Refused


class Desk:
    """What one server works on. trees: folder by kind of output; events: tells the pages."""

    def __init__(self, cache: Path, trees: dict[str, Path], events: Any) -> None:
        self.path, self.trees, self.events = cache, trees, events
        self.cache = sf.load_cache(cache)
        self.library = sf.Library(self.cache, cache)
        self.thumbs = pictures.Thumbs(self.library)
        self.lock = threading.RLock()
        self.rev = 0
        shas = self.cache.file_sha256.tolist()
        self.photos = {sha[:16]: row for row, sha in enumerate(shas)}

    def close(self) -> None:
        self.thumbs.close()

    def row_of_photo(self, photo: str) -> int:
        if photo not in self.photos:
            raise Refused(404, "unknown")
        return self.photos[photo]

    def state(self) -> dict[str, Any]:
        """How things stand."""
        return {"rev": self.rev, "cache": self.path.name, "counts": {"faces": self.cache.faces}}
