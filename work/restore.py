"""Undo runs of a corpus: which, how far, and what the operator did since is carried back.

How far a restore is, is told by empty files (RESTORING, TAKE_IN, UNDOING), which need no room on a
full disk: killed at any moment and called again, it ends what it had begun and no more.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import msgspec

import sort_faces as sf


def is_run(name: str, word: str) -> bool:
    """Whether a word names a run: `0003-era-split`, `0003`, `3`."""
    return word in (name, name[:4], name[:4].lstrip("0"))


def runs_to_undo(root: Path, asked: str | None) -> tuple[list[Path], list[Path]]:
    """(runs to undo, newest first; those that stay).

    asked: back to which run; by default the last, or that of a restore a kill cut short.
    """
    runs = sf.runs_of(root)
    begun = sf.begun_restore(root)
    if begun is not None:
        target, last = begun
        undo = [folder for folder in runs if target[:4] <= folder.name[:4] <= f"{last:04d}"]
        return undo, [folder for folder in runs if folder.name[:4] < target[:4]]
    if not runs:
        raise sf.SortFacesError(f"{root}: no maintenance run to undo")
    wanted = runs[0].name if asked is None else asked
    hits = [at for at, folder in enumerate(runs) if is_run(folder.name, wanted)]
    if not hits:
        known = ", ".join(folder.name for folder in reversed(runs))
        raise sf.SortFacesError(f"{root}: no run {wanted}; there are: {known}")
    return runs[: hits[0] + 1], runs[hits[0] + 1 :]


def undo_all(root: Path, undo: Sequence[Path]) -> str:
    """Undo runs; returns the run that takes in what the operator did since, "" for none.

    A kill leaves marks from which the same call goes on; the last of them goes last.
    """
    for folder in undo:
        sf.read_run(folder)  # nothing is begun that could not be ended
    runs = root / sf.RUNS_FOLDER
    if sf.begun_restore(root) is None:
        (runs / f"restoring-{undo[0].name[:4]}-to-{undo[-1].name}").touch()
    _, last = sf.begun_restore(root)
    for folder in undo:
        restore_run(root, folder)
    run = ""
    if (root / "manifest.json").exists():  # else its first export was undone
        corpus = sf.Corpus(root, sf.read_file(root / "manifest.json", sf.SwapManifest))
        plan = sf.by_hand(corpus) if (runs / sf.TAKE_IN).exists() else sf.Plan("", {}, [])
        run = sf.carry_out(corpus, plan, last)  # a number that was undone means that run for good
    sf.end_restore(root)
    return run


def restore_run(root: Path, folder: Path) -> None:
    """Bring back what a run replaced, with what the operator has done since.

    Where he did anything, TAKE_IN tells it.
    """
    if carry_all_back(root, folder):
        (root / sf.RUNS_FOLDER / sf.TAKE_IN).touch()
    (folder / sf.UNDOING).touch()  # from here on recover_runs ends it
    sf.undo_run(root, folder)
    sf.forget_run(root, folder)


def carry_all_back(root: Path, folder: Path) -> bool:
    """Take what the operator did since a run over into what it replaced; whether he did any."""
    journal = sf.read_run(folder)
    stage = f"{sf.RUNS_FOLDER}/{folder.name}/stage/"
    touched = False
    for source, target in journal.steps:
        name = source.removeprefix(stage)
        now, lay = root / target, journal.before.get(target, name)
        before = folder / "before" / lay
        if name == source or name == "manifest.json" or not now.is_dir():
            continue
        if before.is_dir():
            touched |= carry_back(now, before, journal.names.get(target, ""))
        elif sf.foreign_files(now) or sf.read_name(now) != journal.names.get(target):
            keep = root / sf.REMOVED_FOLDER / folder.name / name  # a new set the operator worked on
            shutil.copytree(now, keep, dirs_exist_ok=True)
    return touched


def carry_back(now: Path, before: Path, staged_name: str) -> bool:
    """Take what the operator did to a face set since a run over into its earlier self.

    That is his name for it, files of his own, PNGs he retouched, and PNGs he deleted: those stay
    out of use. Returns whether there was anything.
    """
    added, theirs = sf.foreign_files(now), sf.foreign_files(before)
    file_of = {face.sha256: face.file for face in faces_listed(before)}
    known = {sf.sha_of_own(before / file) for file in (*theirs, *file_of.values()) if added}
    wanted = {file: file for file in added if sf.sha_of_own(now / file) not in known - {""}}
    links = [file for file in added & theirs if (now / file).is_symlink()]
    for file in links:
        if (before / file).is_symlink() and os.readlink(now / file) == os.readlink(before / file):
            wanted.pop(file, None)
    gone = set()
    for face in faces_listed(now):
        if not (now / face.file).is_file():
            gone.add(face.sha256)
        elif sf.sha256_of_file(now / face.file) != face.sha256:
            wanted[face.file] = file_of.get(face.sha256, f"{sf.YOURS}/{face.file}")
    for source, file in sorted(wanted.items()):
        target = sf.place_in(before, file)
        mine = theirs if source in added else file_of.values()
        if os.path.lexists(target) and file not in mine:
            mark = sf.sha_of_own(now / source) or "link"
            target = target.with_stem(f"{target.stem}-{mark[:8]}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(now / source, target, follow_symlinks=False)
    renamed = (now / "NAME.txt").is_file() and sf.read_name(now) != staged_name
    if renamed:
        with sf.writing(before / "NAME.txt") as part:
            shutil.copyfile(now / "NAME.txt", part)
    for sha in gone & file_of.keys():
        if (before / file_of[sha]).is_file():
            put_in_dropped(before, file_of[sha], sha)
    return bool(wanted or renamed or gone)


def put_in_dropped(folder: Path, file: str, sha256: str) -> None:
    """Move a PNG of a face set into its _dropped, under a longer name where its own is taken."""
    target = sf.place_in(folder, f"{sf.DROPPED}/{PurePosixPath(file).name}")
    if target.exists():
        target = target.with_stem(f"{target.stem}-{sha256[:8]}")
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(folder / file, target)


def faces_listed(folder: Path) -> list[sf.Face]:
    """The usable faces of a face set's manifest."""
    faces = []
    for entry in sf.told_by(folder).get("faces", []):
        with contextlib.suppress(msgspec.ValidationError):
            faces.append(sf.as_record(sf.Face, entry))
    return faces
