"""What is wrong with a corpus, as the programs that load it will meet it: the rules of `verify`."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import sort_faces as sf


def mending(found: Sequence[tuple[sf.Finding, sf.Move | None]]) -> list[sf.Move]:
    """The moves that mend findings, one a file; rebuilding is implied where a set changes."""
    moves = {move.source: move for _, move in reversed(found) if move is not None}
    changed = {move.folder for move in moves.values() if move.action != "rebuild"}
    return [m for m in moves.values() if m.action != "rebuild" or m.folder not in changed]


def corpus_findings(corpus: sf.Corpus, options: sf.VerifyOptions, looker: sf.Looker) -> sf.Findings:
    """Everything wrong with a corpus."""
    for folder, why in corpus.broken.items():
        yield sf.Finding(folder, "manifest.json", "manifest", why), None
    yield from master_findings(corpus)
    if corpus.exports:
        yield from sf.companion("consumers").findings(corpus)
    for faceset in sf.progress(corpus.sets.values(), len(corpus.sets), "verify", "set"):
        yield from set_findings(corpus.root, faceset)
    active = list(corpus.active.values())
    if not options.no_faces and active:
        audits = looker.audits(active)
        vectors = looker.vectors(active, by_crop=True)
        gate = sf.for_model(options, corpus.master.model).gate
        for faceset in active:
            yield from sf.face_count_findings(faceset, audits)
            yield from identity_findings(faceset, vectors[faceset.folder], gate)


def corpus_doubts(corpus: sf.Corpus, looker: sf.Looker) -> list[dict[str, Any]]:
    """The active face sets that may show more than one person: set, verdict and why."""
    rules, active = sf.companion("purity"), list(corpus.active.values())
    if not active:
        return []
    vectors = looker.vectors(active, by_crop=True)
    known = {one.folder: vectors[one.folder][vectors[one.folder].any(axis=1)] for one in active}
    unit = np.concatenate(list(known.values()))
    ends = np.cumsum([len(rows) for rows in known.values()])
    rows = dict(zip(known, np.split(np.arange(len(unit)), ends[:-1]), strict=True))
    family = {one.folder: one.family for one in active}
    names = sorted(set(family.values()))
    labels = np.concatenate(
        [np.full(len(known[name]), names.index(family[name])) for name in known]
    )
    figures = sf.known_or_measured(corpus.master.recognizer, unit, np.ones(len(unit)), labels)
    usual = sf.Usual(figures.strangers, figures.spread, figures.same)
    rivals = rules.rivals_of(unit, rows, families=family)
    found = {
        one.id: rules.purity_of(known[one.folder], usual, rival=rivals[one.folder])
        for one in active
    }
    return rules.in_question(found)


def master_findings(corpus: sf.Corpus) -> sf.Findings:
    """Where the master manifest and the top of the corpus disagree."""
    lists = corpus.lists(corpus.sets, {})
    for key, right in lists.items():
        told = {entry.folder or entry.id: entry for entry in getattr(corpus.master, key)}
        for entry in right:
            listing = told.pop(entry.folder or entry.id, None)
            if listing is None or msgspec.structs.replace(listing, name=entry.name) != entry:
                what = (
                    "is not listed" if listing is None else "is listed otherwise than it lies there"
                )
                yield sf.Finding(entry.id, "manifest.json", "master", f"{key}: {what}"), None
        for name in told:
            yield sf.Finding(name, "manifest.json", "master", f"{key}: is not there"), None
    ours = {"manifest.json", sf.LOCK_NAME, f"{sf.LOCK_NAME}.holder", "_candidates", *sf.SHELVES}
    ours |= {sf.EXPORTS_FOLDER}
    ours |= {sf.REMOVED_FOLDER, sf.RUNS_FOLDER, sf.SCORES_FOLDER}
    ours |= {".DS_Store", "Thumbs.db", "desktop.ini"}
    folders = {folder.split("/")[0] for folder in (*corpus.sets, *corpus.broken)}
    for path in sorted(corpus.root.iterdir()):
        if path.name not in ours | folders:
            yield sf.Finding("", path.name, "unknown file", "no manifest knows it"), None


def set_findings(root: Path, faceset: sf.FaceSet) -> sf.Findings:
    """What is wrong with the files of one face set."""
    folder = root / faceset.folder
    rebuild = sf.move_file("rebuild", faceset.folder, "", "", "verify")
    for move in faceset.repairs:
        yield sf.Finding(faceset.id, move.file, "by hand", move.reason), move
    for file in sorted(sf.foreign_files(folder)):
        if not file.startswith(f"{sf.YOURS}/") and not any(m.file == file for m in faceset.repairs):
            why = "no manifest knows it"
            move = sf.move_file("yours", faceset.folder, file, f"{sf.YOURS}/{file}", why)
            yield sf.Finding(faceset.id, file, "unknown file", why), move
    photos: set[str] = set()
    for face in faceset.faces:
        data = (folder / face.file).read_bytes()
        wrong = png_fault(data, faceset.manifest.params.out_size)
        if wrong:
            yield sf.Finding(faceset.id, face.file, "png", wrong), sf.drop(faceset, face, wrong)
        elif hashlib.sha256(data).hexdigest() != face.sha256:
            yield sf.Finding(faceset.id, face.file, "changed", "is not the listed PNG"), rebuild
        if face.photo_sha256 and face.photo_sha256 in photos:
            move = sf.drop(faceset, face, "photo twice")
            yield sf.Finding(faceset.id, face.file, "photo twice", face.photo_sha256[:16]), move
        photos.add(face.photo_sha256 or "")
    names = [face.file for face in faceset.manifest.faces]
    if names != sorted(names) or not all(map(sf.RANKED_PNG.fullmatch, names)):
        yield sf.Finding(faceset.id, "faces", "names", "do not sort in rank order"), rebuild
    beside = sf.companion("faceset_files")
    for bundle, files in beside.members_of(faceset.manifest).items():
        wrong = beside.bundle_fault(folder / bundle, folder, files) if names else ""
        if wrong:
            yield sf.Finding(faceset.id, bundle, "bundle", wrong), rebuild
    for gone in faceset.manifest.dropped:
        if gone.file and not (folder / gone.file).is_file():
            yield sf.Finding(faceset.id, gone.file, "by hand", "dropped PNG is gone"), rebuild


def png_fault(data: bytes, size: int) -> str:
    """Why bytes are no 8-bit RGB PNG of size x size pixels without metadata, or ""."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 33:
        return "is no PNG"
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    if (width, height) != (size, size):
        return f"is {width}x{height}, not {size}x{size}"
    if (depth, colour) != (8, 2):
        return "is not 8-bit RGB"
    try:
        note = sf.decode_photo(data).note
    except sf.PhotoError as error:
        return f"cannot be decoded: {error}"
    if note:
        return note
    return "has an orientation tag" if b"eXIf" in data[:4096] else ""


def identity_findings(faceset: sf.FaceSet, unit: np.ndarray, gate: float) -> sf.Findings:
    """Faces farther from the centroid of their set than the gate."""
    known = unit.any(axis=1)
    if np.count_nonzero(known) < sf.OUTLIER_MIN_CLUSTER:
        return
    distance = 1.0 - unit @ sf.centroid(unit[known])
    for face, away, seen in zip(faceset.faces, distance, known, strict=True):
        if seen and away > gate:
            number = round(float(away), 4)
            move = sf.drop(faceset, face, "outlier", distance=number)
            yield sf.Finding(faceset.id, face.file, "identity", f"distance {number}"), move
