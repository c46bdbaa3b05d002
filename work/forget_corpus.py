"""How `forget` rids a swap-ready corpus of a person or a face, its history included.

What goes is found by the faces the manifests list, wherever a face set lies: in use, on a shelf,
set aside, or in the `before` of a run. The history is read backwards to see which set lay where, so
that the journals lose the renames of what goes, and `restore` brings back all others to the byte.

Contents
    Face sets
    History
    Candidates and scores
    All of it
"""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

import sort_faces as sf

traces = sf.companion("forget_traces")
Change, Target, Words, Looks = traces.Change, traces.Target, traces.Words, traces.Looks

LISTS = ("facesets", *sf.SHELVES.values())

# ============================================================================
# Face sets
# ============================================================================


def told_sets(root: Path, kind: str = "faceset") -> dict[str, dict[str, Any]]:
    """{folder below a corpus: its manifest} of all face sets, wherever they lie."""
    found = {}
    for path in sorted(root.rglob("manifest.json")):
        folder = path.parent.relative_to(root).as_posix()
        told = sf.told_by(path.parent) if folder != "." else {}
        if told.get("kind") == kind:
            found[folder] = told
    return found


def entries_of(told: dict[str, Any], *keys: str) -> list[dict[str, Any]]:
    """The faces a manifest lists, whatever a person has made of it."""
    lists = (told.get(key) for key in keys or ("faces", "dropped"))
    some = [entry for part in lists if isinstance(part, list) for entry in part]
    return [entry for entry in some if isinstance(entry, dict)]


def faces_of(told: dict[str, Any], *keys: str) -> list[str]:
    return [str(entry["face"]) for entry in entries_of(told, *keys) if entry.get("face")]


def png_hashes(told: dict[str, Any]) -> set[str]:
    """sha256 of all PNGs a manifest lists."""
    return {entry["sha256"] for entry in entries_of(told) if isinstance(entry.get("sha256"), str)}


def is_owned(told: dict[str, Any], target: Target) -> bool:
    """Whether a face set is the person's."""
    return target.owns(faces_of(told, "faces") or faces_of(told, "dropped"))


@dataclass
class Trim:
    """A face set of somebody else that holds faces that go."""

    folder: str
    told: dict[str, Any]
    target: Target
    corpus: sf.Corpus | None = None  # None where the master is damaged

    @functools.cached_property
    def after(self) -> dict[str, Any]:
        """Its manifest without them."""
        lists = {
            key: [entry for entry in self.told.get(key) or [] if not self.target.takes(entry)]
            for key in ("faces", "dropped")
        }
        goes = {*self.gone, *self.exported}
        files = [file for file in self.told.get("files") or [] if file not in goes]
        counts = {key: len(entries) for key, entries in lists.items()}
        for rank, entry in enumerate(lists["faces"]):
            if isinstance(entry, dict) and "rank" in entry:
                lists["faces"][rank] = {**entry, "rank": rank}
        exports = {"exports": []} if self.exported else {}
        return {**self.told, **lists, "counts": counts, "files": files, **exports}

    @functools.cached_property
    def record(self) -> sf.FacesetManifest | None:
        """The same with the bundles it will have, None where it is damaged."""
        manifest = traces.record_of(sf.FacesetManifest, self.after)
        if manifest is None or not self.shrinks:
            return manifest
        if self.corpus is None:
            return msgspec.structs.replace(manifest, bundles=[])
        return sf.with_bundles(manifest, self.corpus.embeddings(manifest.faces))

    @property
    def gone(self) -> list[str]:
        """The PNGs that go."""
        going = [entry for entry in entries_of(self.told) if self.target.takes(entry)]
        files = [entry.get("file") for entry in going]
        return [file for file in files if isinstance(file, str) and file]

    @functools.cached_property
    def exported(self) -> list[str]:
        """What was written for other programs while it had the faces; the next run does it anew."""
        if not any(map(self.target.takes, entries_of(self.told, "faces"))):
            return []
        told = (entry.get("files") for entry in entries_of(self.told, "exports"))
        return [file for files in told if isinstance(files, dict) for file in files]

    @property
    def shrinks(self) -> bool:
        """Whether it loses one of its faces, not only a note on a dropped one."""
        return len(self.after["faces"]) < len(self.told["faces"])

    @property
    def is_empty(self) -> bool:
        return not self.after["faces"] and not self.after["dropped"]

    def changes(self, root: Path) -> Iterator[Change]:
        """Take the faces out of its folder."""
        if not self.shrinks:
            yield Change(
                f"{self.folder}/manifest.json",
                "lists a face",
                traces.write_later(self.after),
            )
            for file in self.gone:
                yield Change(f"{self.folder}/{file}", "shows the face")
        else:
            write = functools.partial(self.build, root / self.folder)
            yield Change(self.folder, f"loses {len(self.gone)} of its PNGs", write)

    def build(self, old: Path, stage: Path) -> None:
        """The set without them, its bundles and contact sheet made anew."""
        unwanted = {*self.gone, *self.exported, "previews/top_20_grid.jpg", "manifest.json"}
        unwanted |= {path.name for path in old.glob("*.fsz")}
        for path in old.rglob("*"):
            file = path.relative_to(old).as_posix()
            if file not in unwanted and (path.is_file() or path.is_symlink()):
                (stage / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, stage / file, follow_symlinks=False)
        if self.record is None:  # damaged, and its bundles with it
            sf.write_json(stage / "manifest.json", self.after)
        else:
            sf.finish_faceset(stage, self.record)

    def listing(self, entry: dict[str, Any], name: str) -> dict[str, Any]:
        """What the master manifest says of it then."""
        if self.record is None:
            return entry
        folder = str(entry.get("folder") or entry.get("id"))
        return {**entry, **sf.as_json(sf.listed(folder, self.record, name))}


# ============================================================================
# History
# ============================================================================


@dataclass
class Moment:
    """What is known of a corpus between two runs."""

    lies: dict[str, str | None] = field(default_factory=dict)  # place then: where it lies now

    def now(self, place: str) -> str:
        """Where what lay at a place then lies now; "" for nothing."""
        return self.lies.get(place, place) or ""

    def undo(self, source: str, target: str) -> str:
        """Go back before a rename; where what it moved lies now."""
        thing = self.now(target)
        self.lies[target], self.lies[source] = None, thing
        return thing


@dataclass
class Corpus:
    """A corpus and what goes of it."""

    root: Path
    target: Target
    words: Words
    sets: dict[str, dict[str, Any]]
    gone: set[str] = field(default_factory=set)  # folders
    trims: dict[str, Trim] = field(default_factory=dict)

    def is_gone(self, thing: str) -> bool:
        """Whether a file or folder goes, with the set it lies in or as one."""
        return any(thing == folder or thing.startswith(f"{folder}/") for folder in self.gone)

    def listed_after(self, moment: Moment, entry: dict[str, Any]) -> dict[str, Any] | None:
        """An entry of a master manifest of that moment as it is to be, None where it goes."""
        thing = moment.now(str(entry.get("folder") or entry.get("id")))
        faces = [face for face in entry.get("faces") or [] if isinstance(face, str)]
        if thing in self.gone or (thing not in self.sets and self.target.owns(faces) and faces):
            return None
        if thing in self.trims:
            return self.trims[thing].listing(entry, str(entry.get("name") or sf.UNNAMED))
        return entry

    def master_after(self, value: dict[str, Any], moment: Moment, ids: dict[str, set[str]]) -> Any:
        """A master manifest of a moment without what goes; ids: of the groups at each run."""
        lists = {}
        for key in LISTS:
            if isinstance(value.get(key), list):
                some = (self.listed_after(moment, e) for e in entries_of(value, key))
                lists[key] = [entry for entry in some if entry is not None]
        runs = [self.run_after(run, ids) for run in entries_of(value, "runs")]
        return {**value, **lists, **({"runs": runs} if "runs" in value else {})}

    def run_after(self, run: dict[str, Any], ids: dict[str, set[str]]) -> dict[str, Any]:
        """A note on a run without what names the person."""
        params = self.params_after(run.get("params"), ids.get(str(run.get("id")), set()))
        return {**run, "params": params} if params != run.get("params") else run

    def params_after(self, params: Any, ids: set[str]) -> Any:
        """The options of a run without the sets of the person; ids: what they were called."""
        if not isinstance(params, dict):
            return params
        kept = {key: value for key, value in params.items() if key != "faceset" or value not in ids}
        answers = kept.get("accept")
        if isinstance(answers, list):
            own = [
                told for told in answers if not (isinstance(told, list) and ids & {*map(str, told)})
            ]
            kept["accept"] = own
        return self.words.without(kept)

    def ids_gone(self, moment: Moment) -> set[str]:
        """Ids of the sets of that moment that go."""
        places = {place for place in moment.lies if moment.now(place) in self.gone}
        places |= {folder for folder in self.gone if folder not in moment.lies}
        sets = filter(re.compile(sf.SET_PATH).fullmatch, places)
        return {PurePosixPath(place).name for place in sets}

    def plan_after(self, value: dict[str, Any], moments: Sequence[Moment]) -> dict[str, Any]:
        """The plan of a run without the moves of what goes; moments: before and after it."""

        def stays(text: Any) -> bool:
            found = re.match(sf.SET_PATH, text) if isinstance(text, str) else None
            return not (found and any(self.is_gone(m.now(found[0])) for m in moments))

        ids = set().union(*(self.ids_gone(moment) for moment in moments))
        moves = [
            move for move in entries_of(value, "moves")
            if stays(move.get("from")) and stays(move.get("to")) and not self.words.mention(move)
        ]  # fmt: skip
        sets = value.get("sets")
        if isinstance(sets, dict):
            sets = {folder: about for folder, about in sets.items() if stays(folder)}
        params = self.params_after(value.get("params"), ids)
        counts = value.get("counts")
        told = [traces.record_of(sf.Move, move) for move in moves]
        if len(moves) < len(entries_of(value, "moves")):
            counts = sf.move_counts([move for move in told if move is not None])
        return {**value, "moves": moves, "sets": sets, "params": params, "counts": counts}

    def history(self) -> Iterator[Change]:
        """Rewrite the runs and the masters, the last first."""
        moment, ids = Moment(), {}
        masters: list[tuple[str, Moment]] = [("manifest.json", Moment())]
        for folder in sf.runs_of(self.root):
            journal = sf.read_if_sound(folder / sf.JOURNAL, sf.RunJournal)
            if journal is None:
                continue
            after = Moment(dict(moment.lies))
            gone = [step for step in reversed(journal.steps) if self.is_gone(moment.undo(*step))]
            here = f"{sf.RUNS_FOLDER}/{folder.name}"
            ids[folder.name] = self.ids_gone(after) | self.ids_gone(moment)
            masters.append((f"{here}/before/manifest.json", Moment(dict(moment.lies))))
            yield from self.journal_change(f"{here}/{sf.JOURNAL}", journal, gone, after)
            before = Moment(dict(moment.lies))
            plan = functools.partial(self.plan_after, moments=(before, after))
            yield from self.json_change(f"{here}/plan.json", plan)
        for file, then in masters:
            yield from self.json_change(file, lambda v, m=then: self.master_after(v, m, ids))

    def journal_change(
        self, file: str, journal: sf.RunJournal, gone: list[tuple[str, str]], after: Moment
    ) -> Iterator[Change]:
        """The journal of a run without the renames of what goes."""
        steps = [step for step in journal.steps if step not in gone]

        def kept(told: dict[str, str]) -> dict[str, str]:
            return {
                place: text for place, text in told.items() if not self.is_gone(after.now(place))
            }

        fresh = msgspec.structs.replace(
            journal, steps=steps, names=kept(journal.names), before=kept(journal.before)
        )
        if fresh != journal:
            yield Change(file, "tells of it", functools.partial(write_record, fresh))

    def json_change(self, file: str, change: Callable[[Any], Any]) -> Iterator[Change]:
        value = traces.json_of(self.root / file)
        if isinstance(value, dict):
            fresh = change(value)
            if fresh != value:
                yield Change(file, "lists it", traces.write_later(fresh))


def write_record(record: sf.OwnFile, path: Path) -> None:
    sf.write_file(path, record)


# ============================================================================
# Candidates and scores
# ============================================================================


def candidate_changes(
    folder: str, told: dict[str, Any], target: Target, ids: set[str]
) -> Iterator[Change]:
    """Take out of a folder of candidates what shows the person or was thought to."""

    def goes(entry: dict[str, Any]) -> bool:
        group = str(entry.get("file")).split("/")[0]
        return target.takes(entry) or group.removeprefix("to_") in ids

    lists = {
        key: [entry for entry in entries_of(told, key) if not goes(entry)]
        for key in ("faces", "dropped")
    }
    if all(lists[key] == (told.get(key) or []) for key in lists):
        return
    if not any(lists.values()):
        yield Change(folder, "shows candidates for the person")
        return
    files = [str(e.get("file")) for e in entries_of(told, "faces") if goes(e)]
    known = [file for file in told.get("files") or [] if file not in files]
    after = {**told, **lists, "files": known}
    yield Change(f"{folder}/manifest.json", "lists candidates", traces.write_later(after))
    for file in files:
        yield Change(f"{folder}/{file}", "shows a candidate")


def score_changes(
    root: Path, target: Target, looks: Looks, known: set[str], thorough: bool
) -> Iterator[Change]:
    """Drop the results on PNGs that go, and on those that are in no face set and look like it.

    thorough: on all that are in no face set, as they may be of the person.
    """
    folder = root / sf.SCORES_FOLDER

    def is_known(value: dict[str, Any]) -> bool:
        sha, packed = value.get("sha256"), value.get("embedding")
        unlike = not (isinstance(packed, str) and looks.packed_alike(packed, looks.reach))
        return sha in known or (not thorough and sha not in target.crop_set and unlike)

    def keep(line: bytes) -> bytes | None:
        value = sf.object_of(line)
        return line if value is not None and is_known(value) else None

    def keep_note(line: bytes) -> bytes | None:
        value = sf.object_of(line)
        if value is None or (value.get("sha256") and not is_known(value)):
            return None
        key = value.get("key")
        fresh = target.crop_keys.get(key, key)
        if fresh == key:
            return line
        return sf.checked_line({**value, "key": fresh}) if fresh else None

    for path in sorted(folder.glob("*.jsonl")):
        look = keep_note if path.name == f"{PurePosixPath(sf.CROPS_FOLDER).name}.jsonl" else keep
        for change in traces.cleaned_lines(path, look):
            yield replace(change, path=f"{sf.SCORES_FOLDER}/{path.name}")
    for name in (sf.CROPS_FOLDER, f"{sf.SCORES_FOLDER}/queue"):
        if (root / name).exists():
            yield Change(name, "left by a killed run")


# ============================================================================
# All of it
# ============================================================================


def kept_files(root: Path, folder: str, taken: set[str], hashes: set[str]) -> Iterator[Change]:
    """Move the operator's files out of a set that goes; a copy of one kept already goes with it."""
    for file in sorted(sf.foreign_files(root / folder)):
        path = root / folder / file
        sha = sf.sha_of_own(path)
        if sha and sha in hashes:
            continue
        hashes.add(sha)
        name = f"{sf.REMOVED_FOLDER}/yours/{PurePosixPath(folder).name}/{file}"
        to = sf.first_free(name, lambda place: place in taken or (root / place).exists(), ".", 1)
        taken.add(to)
        look = path.suffix.lower() in sf.PHOTO_SUFFIXES
        yield Change(f"{folder}/{file}", "is yours, not the tool's", to=to, look=look)


def corpus_changes(root: Path, target: Target, words: Words, looks: Looks) -> list[Change]:
    """All it takes to rid a corpus of what goes."""
    corpus = Corpus(root, target, words, told_sets(root))
    master = sf.read_if_sound(root / "manifest.json", sf.SwapManifest)
    lies = None if master is None else sf.Corpus(root, master)
    for folder, told in corpus.sets.items():
        trim = Trim(folder, told, target, lies)
        if is_owned(told, target):
            corpus.gone.add(folder)
        elif any(map(target.takes, entries_of(told))):
            corpus.trims[folder] = trim
            if trim.is_empty:
                corpus.gone.add(folder)
    changes, taken, hashes = [], set(), set()
    exports = told_sets(root, "exports") if corpus.gone or corpus.trims else {}
    corpus.gone |= exports.keys()
    for folder in sorted(corpus.gone):
        changes += kept_files(root, folder, taken, hashes)
        why = "is the person's" if target.is_person else "has no other face"
        changes.append(Change(folder, "is of all people" if folder in exports else why))
    known = set()
    for folder, told in corpus.sets.items():
        if folder in corpus.trims and folder not in corpus.gone:
            changes += corpus.trims[folder].changes(root)
            told = corpus.trims[folder].after
        known |= png_hashes(told) if folder not in corpus.gone else set()
    ids = {*target.sets.get(str(root), ())}
    for folder, told in told_sets(root, "candidates").items():
        some = list(candidate_changes(folder, told, target, ids))
        if any(change.path == folder for change in some):
            changes += kept_files(root, folder, taken, hashes)
        changes += some
        known |= {e.get("sha256") for e in entries_of(told) if not target.takes(e)} - {None}
    changes += corpus.history()
    changes += score_changes(root, target, looks, known - target.crop_set, bool(changes))
    if (root / sf.NAMES_PENDING).exists():
        changes.append(Change(sf.NAMES_PENDING, "left by a killed run"))
    return changes
