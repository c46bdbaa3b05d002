"""Reference filters: only faces like these (`--filter`), none like those (`--nfilter`).

As in Faceswap a face matches when it is as like any one of the references as the threshold asks,
and higher is stricter. The threshold is a likeness: 0 is what two strangers have with this
recogniser, 1 what two faces of one person have on average. So a number means the same with every
recogniser, and about what it means there: docs/analysis/filters.md.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

looking = sf.companion("looking")

NOT_LIKE, LIKE = "not like --filter", "like --nfilter"  # reasons, as manifests tell them
BUNDLE, LARGEST = ".fsz", 1 << 26  # bytes of a face in it
USUAL = sf.Figures(0.0, 0.1, 0.65, 1.0)  # of ArcFace, where nothing of a recogniser is known


@dataclass(frozen=True)
class ReferenceFilter:
    """References and what is normal for their recogniser."""

    wanted: np.ndarray | None  # (k, d) float32 of length 1; None: all are
    unwanted: np.ndarray | None  # (m, d) likewise; None: nobody is
    figures: sf.Figures
    threshold: float  # a likeness

    def likeness(self, unit: np.ndarray, references: np.ndarray) -> np.ndarray:
        """(n,) likeness of unit rows (n, d) to the nearest reference."""
        cosine = 1.0 - sf.nearest(unit, references)[1]
        return (cosine - self.figures.strangers) / self.figures.reach

    def faults(self, unit: np.ndarray) -> list[tuple[str, float]]:
        """Why each of unit rows (n, d) is filtered, and its likeness; ("", 0.0) where it is not."""
        found = [("", 0.0)] * len(unit)
        if self.wanted is not None:
            alike = self.likeness(unit, self.wanted)
            found = [("", 0.0) if one >= self.threshold else (NOT_LIKE, one) for one in alike]
        if self.unwanted is not None:
            alike = self.likeness(unit, self.unwanted)
            for at in np.flatnonzero(alike >= self.threshold):
                found[at] = LIKE, float(alike[at])
        return found

    def admitted(self, faces: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Counter[str]]:
        """(those of the faces of a PhotoRecord that pass, how many do not, by the reason)."""
        if not faces:
            return [], Counter()
        rows = [sf.unpack_floats(face["embedding"], (-1,)) for face in faces]
        reasons = [why for why, _ in self.faults(sf.unit_rows(np.stack(rows)))]
        stay = [face for face, why in zip(faces, reasons, strict=True) if not why]
        return stay, Counter(filter(None, reasons))

    @property
    def mark(self) -> str:
        """Eight hex digits that stand for whom it lets pass."""
        digest = hashlib.sha256(str(self.threshold).encode())
        for side in (self.wanted, self.unwanted):
            digest.update(b"-" if side is None else np.ascontiguousarray(side).tobytes())
        return digest.hexdigest()[:8]


def filter_of(
    options: sf.ReferenceOptions,
    crew: sf.Crew,
    meta: sf.CacheMeta | sf.FrameMeta,
    usual: sf.Usual | None = None,
) -> ReferenceFilter | None:
    """The filter the options ask for, None where they ask for none. Raises SortFacesError.

    meta: of the cache it is for; usual: what refine measured there.
    """
    if not (options.filter or options.nfilter):
        return None
    crew = crew.with_spec(sf.as_consumer(crew.spec, meta))
    sides = [
        [references(Path(path), crew, meta, alone) for path in paths]
        for paths, alone in ((options.filter, True), (options.nfilter, False))
    ]
    wanted, unwanted = (np.concatenate(side) if side else None for side in sides)
    return ReferenceFilter(wanted, unwanted, figures_for(meta, usual), options.ref_threshold)


def figures_for(meta: sf.CacheMeta | sf.FrameMeta, usual: sf.Usual | None) -> sf.Figures:
    """What is normal for a recogniser: as stored, else as measured, else as with its like."""
    known = sf.KNOWN_FIGURES.get(meta.recognizer)
    if known is None and usual is not None and usual.same > usual.strangers:
        known = sf.Figures(usual.strangers, usual.stranger_spread, usual.same, usual.length)
    return known or USUAL


def references(path: Path, crew: sf.Crew, meta: sf.CacheMeta, alone: bool) -> np.ndarray:
    """(k, d) float32 of length 1: the faces of a file, a folder, a bundle, or a corpus's face set.

    alone: a picture with several faces is not used, as nobody knows who is meant; else all its
    faces are. Raises SortFacesError where no face is left, or another recogniser made the set.
    """
    with tempfile.TemporaryDirectory(prefix="sort_faces-") as scratch:
        is_bundle = path.suffix.lower() == BUNDLE and path.is_file()
        files = unpacked(path, Path(scratch)) if is_bundle else reference_files(path)
        shas = looking.hashes(files)
        seen = looking.looked_at(files, shas, crew) if files else sf.empty_cache(meta)
    if seen.meta.recognizer != meta.recognizer:
        raise sf.SortFacesError(
            f"{path}: {crew.spec.model} is another recogniser than the faces were made with; "
            f"name --model {meta.model_source or meta.model}"
        )
    found = looking.rows_by_sha(seen).values()
    rows = [row for some in found for row in some if not alone or len(some) == 1]
    crowds = sum(len(some) > 1 for some in found)
    if not rows:
        why = "only pictures of several people" if crowds and alone else "no face in it"
        raise sf.SortFacesError(f"{path}: {why}; name pictures of one person, best 8 to 16")
    if crowds and alone:
        sf.log.warning("%s: %d pictures of several people are not used", path, crowds)
    return seen.unit[rows]


def unpacked(bundle: Path, folder: Path) -> list[Path]:
    """The PNGs of a bundle as files in a folder, under names of ours. Raises SortFacesError."""
    files = []
    try:
        with zipfile.ZipFile(bundle) as archive:
            for info in archive.infolist():
                if info.filename.lower().endswith(".png") and info.file_size <= LARGEST:
                    files.append(folder / f"{len(files):05d}.png")
                    put_down(files[-1], archive.read(info))
    except sf.npz_errors() as error:
        raise sf.SortFacesError(f"{bundle}: is no bundle: {sf.one_line(error)}") from None
    return files


def put_down(file: Path, data: bytes) -> None:
    """Write a file of the scratch folder. Raises SortFacesError, as of a full disk."""
    try:
        file.write_bytes(data)
    except OSError as error:
        raise sf.SortFacesError(
            f"{file.parent}: {error.strerror or error}; free some space there, or name another "
            "temporary folder with TMPDIR"
        ) from None


def reference_files(path: Path) -> list[Path]:
    """The pictures of a file or folder; of a face set those in use. Raises SortFacesError."""
    if not path.exists():
        raise sf.SortFacesError(f"{path}: no such file or folder; name faces to filter by")
    if sf.read_if_sound(path / "manifest.json", sf.SwapManifest) is not None:
        raise sf.SortFacesError(f"{path}: holds many people; name one of its face sets")
    told = sf.read_if_sound(path / "manifest.json", sf.FacesetManifest)
    if told is not None:
        return [path / face.file for face in told.faces if (path / face.file).is_file()]
    return [Path(file.path) for file in sf.scan_photos([path]).files]


def unlike(library: sf.Library, filters: ReferenceFilter | None) -> dict[int, str]:
    """{cache row: why it is filtered} of a library; what the operator keeps is not."""
    if filters is None:
        return {}
    faults, keep = filters.faults(library.cache.unit), library.word.keep
    return {row: why for row, (why, _) in enumerate(faults) if why and keep[row] <= 0}


def unlike_tracks(
    tracks: Sequence[sf.Track], options: sf.ReferenceOptions, crew: sf.Crew, meta: sf.FrameMeta
) -> dict[str, str]:
    """{name: why it is filtered} of tracks, each by its mean face."""
    filters = filter_of(options, crew, meta) if tracks else None
    if filters is None:
        return {}
    faults = filters.faults(np.stack([track.centre for track in tracks]))
    named = zip(tracks, faults, strict=True)
    return {track.name: why for track, (why, _) in named if why}
