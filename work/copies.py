"""Where crops were put outside all outputs, noted so that `forget` finds them.

`arrange --copy` and `--save-filtered` write where the operator says; what lies there is his, but it
shows people. A line of <cache>.copies.jsonl tells a folder, or the sha256 of a file in it and which
face that shows. It holds no embedding and no name. Where the disk of the cache is not there, it is
<corpus>.copies.jsonl.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sort_faces as sf

held = sf.companion("decisions").held  # of a file of lines that several programs write
SUFFIX = ".copies.jsonl"


def journal(place: Path) -> Path:
    """The file beside a cache or a corpus."""
    return sf.beside(place, SUFFIX)


def place_of(corpus: sf.Corpus) -> Path:
    """What copies of a corpus are noted beside: its cache, or itself where that has no folder."""
    cache = Path(corpus.master.cache)
    return cache if corpus.master.cache and cache.parent.is_dir() else corpus.root


def noted(place: Path) -> Iterator[dict[str, Any]]:
    """The sound lines: {folder} or {folder, sha256, face}, the face as decisions name it."""
    for _, value in sf.json_lines(journal(place)):
        if value is not None and isinstance(value.get("folder"), str):
            yield value


class Notes:
    """Notes which files are about to lie in a folder or below it.

    Before they do: a kill leaves a line too many and never a copy that nobody knows of.
    """

    def __init__(self, place: Path, folder: Path) -> None:
        self.path, self.folder = journal(place), os.path.realpath(folder)
        self.failed = False  # and that was told
        told = (v for v in noted(place) if v["folder"] == self.folder)
        self.known = {(v.get("sha256"), v.get("face")) for v in told}
        if (None, None) not in self.known:
            self.append([{"folder": self.folder}])

    def add(self, shown: Iterable[tuple[str, str]]) -> None:
        """Note (sha256, face as decisions name it) of files."""
        fresh = [pair for pair in dict.fromkeys(shown) if pair not in self.known]
        self.known.update(fresh)
        self.append([{"folder": self.folder, "sha256": sha, "face": face} for sha, face in fresh])

    def append(self, values: Iterable[dict[str, str]]) -> None:
        """Write lines while nobody else does; what cannot be is told."""
        with contextlib.closing(sf.AppendOnly(self.path)) as lines:
            try:
                with held(self.path):
                    for value in values:
                        lines.append(value)
            except (sf.SortFacesError, OSError) as error:
                if not self.failed:
                    sf.log.warning("%s (forget will not know these copies)", error)
                self.failed = True
