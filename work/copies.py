"""Where crops were put outside all outputs, noted beside the cache so that `forget` finds them.

`arrange --copy` and `--save-filtered` write where the operator says; what lies there is his, but it
shows people. A line of <cache>.copies.jsonl tells a folder, or the sha256 of a file in it and which
face that shows. It holds no embedding and no name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sort_faces as sf

SUFFIX = ".copies.jsonl"


def journal(cache_path: Path) -> Path:
    return sf.beside(cache_path, SUFFIX)


def noted(cache_path: Path) -> Iterator[dict[str, Any]]:
    """The sound lines: {folder} or {folder, sha256, face}, the face as decisions name it."""
    for _, value in sf.json_lines(journal(cache_path)):
        if value is not None and isinstance(value.get("folder"), str):
            yield value


class Notes:
    """Notes which files are about to lie in a folder or below it.

    Before they do: a kill leaves a line too many and never a copy that nobody knows of.
    """

    def __init__(self, cache_path: Path, folder: Path) -> None:
        self.path, self.folder = journal(cache_path), os.path.realpath(folder)
        self.failed = False  # and that was told
        told = (v for v in noted(cache_path) if v["folder"] == self.folder)
        self.known = {(v.get("sha256"), v.get("face")) for v in told}
        if (None, None) not in self.known:
            self.append([{"folder": self.folder}])

    def add(self, shown: Iterable[tuple[str, str]]) -> None:
        """Note (sha256, face as decisions name it) of files."""
        fresh = [pair for pair in dict.fromkeys(shown) if pair not in self.known]
        self.known.update(fresh)
        self.append([{"folder": self.folder, "sha256": sha, "face": face} for sha, face in fresh])

    def append(self, values: Iterable[dict[str, str]]) -> None:
        """Write lines one by one, as others may note at the same time; what cannot be is told."""
        with contextlib.closing(sf.AppendOnly(self.path)) as lines:
            try:
                for value in values:
                    lines.append(value)
            except sf.SortFacesError as error:
                if not self.failed:
                    sf.log.warning("%s (forget will not know these copies)", error)
                self.failed = True
