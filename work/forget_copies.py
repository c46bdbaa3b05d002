"""How `forget` finds the copies of crops that lie outside all outputs, and what is noted of them.

A copy is known by its bytes, wherever in its folder it lies now and whatever it is called. The
proof looks at everything else in these folders: what the operator has made of a copy is his.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import sort_faces as sf

traces = sf.companion("forget_traces")
copies, decisions = sf.companion("copies"), sf.companion("decisions")
Change, Place, Target, Words = traces.Change, traces.Place, traces.Target, traces.Words


def places_noted(cache_path: Path, corpora: Mapping[Path, sf.Corpus]) -> list[Path]:
    """What has a journal beside it: the cache, where it lay for a corpus, or a corpus."""
    told = [Path(corpus.master.cache) for corpus in corpora.values() if corpus.master.cache]
    journals = {copies.journal(place): place for place in (*corpora, *told, cache_path)}
    return [place for path, place in sorted(journals.items()) if path.is_file()]


def folders(noted: Iterable[Path]) -> list[Path]:
    """Where copies may lie, as noted beside these; not all need be there any more."""
    return sorted({Path(value["folder"]) for place in noted for value in copies.noted(place)})


class Shown:
    """Tells which noted copies show a face that goes."""

    def __init__(self, cache: sf.FaceCache, target: Target) -> None:
        self.cache, self.faces = cache, target.face_set
        self.photos = {sha[:16] for sha in target.photos}
        self.finder = decisions.Finder(cache)

    def goes(self, value: dict[str, Any]) -> bool:
        """Whether a line of the journal tells of a face or photo that goes."""
        ref = str(value.get("face", ""))
        row = self.finder.row(ref) if ref else -1
        ids = {ref.partition("@")[0], self.cache.face_ids[row] if row >= 0 else ""}
        return bool(ids & self.faces) or ref[:16] in self.photos


def places(noted: Iterable[Path], shown: Shown) -> Iterator[Place]:
    """The folders, each with the copies in it that go. One that is gone is told."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for value in (value for place in noted for value in copies.noted(place)):
        if shown.goes(value):
            wanted[value["folder"]].add(str(value.get("sha256")))
    for name, shas in sorted(wanted.items()):
        root = Path(name)
        if not root.is_dir():
            sf.log.warning("%s: copies were put there, and it is gone; where is it now?", root)
            continue
        files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        found = [path for path in files if sf.sha256_of_file(path) in shas]
        changes = [Change(path.relative_to(root).as_posix(), "a copy of it") for path in found]
        yield Place(root, "copies", False, changes)


def journal_changes(place: Path, shown: Shown) -> Iterator[Change]:
    """Lines of the journal beside a cache or corpus that go; a damaged one goes, too."""
    path = copies.journal(place)

    def keep(line: bytes) -> bytes | None:
        value = sf.object_of(line)
        return None if value is None or shown.goes(value) else line

    for change in traces.cleaned_lines(path, keep):

        def write(target: Path, write: Callable[[Path], None] = change.write) -> None:
            with copies.held(path):  # arrange may note something meanwhile
                write(target)

        yield dataclasses.replace(change, write=write)
