"""`arrange`: crops put in order by name and into groups by folder, in place or as a copy.

Every picture is a row of facts: those of a corpus set come from its cache, those of any other
folder by looking at the face nearest the middle of each picture. A plan names what lies where
afterwards; carrying it out is one run in `_runs`, which `restore` undoes. A second arranging finds
the names of before in those journals, so that prefixes and groups do not pile up.

Contents
    Pictures
    Orders
    Groups
    Names
    Carrying out
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

import sort_faces as sf

crop_facts, looking = sf.companion("crop_facts"), sf.companion("looking")
copies, dates_in_text = sf.companion("copies"), sf.companion("dates_in_text")

# ============================================================================
# Pictures
# ============================================================================

COMMAND = "arrange"
DIGITS = 5  # of the prefix that orders the files, as Faceswap has it
Places = dict[str, list[str]]  # {job: paths within the folder, in the order of their names}


@dataclass(frozen=True)
class Source:
    """A folder to arrange: which pictures make a job each, and what is known of them already."""

    root: Path
    jobs: Places
    titles: dict[str, str]  # {path within the root: its name before any arranging}
    corpus: sf.Corpus | None = None
    faces: dict[str, sf.Face] = field(default_factory=dict)  # {path: face}, of a corpus


def source_of(folder: Path, batch: bool) -> Source:
    """What an operator means by a folder. Raises SortFacesError where it holds no picture."""
    folder = Path(os.path.normpath(folder.absolute()))
    if not folder.is_dir():
        raise sf.SortFacesError(f"{folder}: no such folder; name one with crops in it")
    root = corpus_above(folder)
    source = plain_source(folder, batch) if root is None else corpus_source(root, folder)
    if root not in (None, folder) and not source.jobs:
        raise sf.SortFacesError(
            f"{folder}: is no face set of {root}; name that, one of its sets, or a copy"
        )
    if not any(source.jobs.values()):
        hint = "" if batch else "; --subfolders takes those in it"
        raise sf.SortFacesError(f"{folder}: no pictures in it{hint}")
    return source


def corpus_above(folder: Path) -> Path | None:
    """The corpus a folder lies in or is."""
    for root in (folder, *list(folder.parents)[:3]):
        if sf.read_if_sound(root / "manifest.json", sf.SwapManifest) is not None:
            return root
    return None


def corpus_source(root: Path, folder: Path) -> Source:
    """The face sets of a corpus below a folder, a job each."""
    corpus = sf.Corpus(root, sf.read_file(root / "manifest.json", sf.SwapManifest))
    inside = folder.relative_to(root).as_posix()
    jobs: Places = {}
    faces = {}
    for name, faceset in corpus.sets.items():
        if inside in (name, f"{name}/faces") or (inside == "." and not faceset.shelf):
            jobs[name] = [f"{name}/{face.file}" for face in faceset.faces]
            faces |= {f"{name}/{face.file}": face for face in faceset.faces}
    titles = {path: PurePosixPath(path).name for some in jobs.values() for path in some}
    return Source(root, jobs, titles, corpus, faces)


def plain_source(folder: Path, batch: bool) -> Source:
    """The pictures of a folder, or of each of its sub-folders, and of the groups made of them."""
    groups, titles = earlier(folder)
    inside = sorted(os.scandir(folder), key=name_of)
    names = [entry.name for entry in inside if entry.is_dir() and not entry.is_symlink()]
    made = {group for some in groups.values() for group in some}
    tops = [name for name in names if not name.startswith((".", "_")) and name not in made]
    jobs: Places = {}
    for job in tops if batch else ["."]:
        found = [path for place in (job, *groups[job]) for path in pictures(folder, place)]
        jobs[job] = sorted(found, key=lambda path: sf.natural(titles.get(path, path)))
    jobs = {job: some for job, some in jobs.items() if some}
    paths = [path for some in jobs.values() for path in some]
    known = {path: titles.get(path, PurePosixPath(path).name) for path in paths}
    return Source(folder, jobs, known)


def name_of(entry: os.DirEntry[str]) -> str:
    return entry.name


def pictures(root: Path, place: str) -> list[str]:
    """Paths within `root` of the pictures that lie in a folder, not below it."""
    here = root / place
    if not here.is_dir():
        return []
    names = [entry.name for entry in os.scandir(here) if entry.is_file()]
    good = [
        n for n in names if not n.startswith(".") and Path(n).suffix.lower() in sf.PHOTO_SUFFIXES
    ]
    return [(PurePosixPath(place) / name).as_posix() for name in good]


class Groups(dict[str, list[str]]):
    """{job: folders that earlier runs made of its pictures}."""

    def __missing__(self, job: str) -> list[str]:
        return []


def earlier(root: Path) -> tuple[Groups, dict[str, str]]:
    """(folders that earlier runs have made by job, {path: name before all of them}).

    A picture the operator has moved from group to group since is known by its name.
    """
    home: dict[str, tuple[str, str]] = {}  # path: job, name
    by_name: dict[str, str] = {}  # of a file, as some run has called it: before all runs
    folders = Groups()
    for folder in reversed(sf.runs_of(root)):
        steps = sf.read_run(folder).steps if folder.name.endswith(f"-{COMMAND}") else []
        for source, target in steps:
            at, aim = PurePosixPath(source), PurePosixPath(target)
            where = at.parent.as_posix()
            job = next((job for job, groups in folders.items() if where in groups), where)
            job, name = home.pop(source, (job, by_name.get(at.name, at.name)))
            if where.startswith(sf.RUNS_FOLDER):  # a copy
                continue
            home[target], by_name[aim.name] = (job, name), name
            group = aim.parent.as_posix()
            if group != job and group not in folders[job]:
                folders[job] = [*folders[job], group]
    titles = {path: name for path, (_, name) in home.items()}
    for job, groups in folders.items():
        for path in [path for place in (job, *groups) for path in pictures(root, place)]:
            name = PurePosixPath(path).name
            titles.setdefault(path, by_name.get(name, name))
    return folders, titles


# ============================================================================
# Orders
# ============================================================================


def ordered(
    key: str, crops: crop_facts.Crops, labels: np.ndarray | None, backwards: bool = False
) -> np.ndarray:
    """(n,) positions of the pictures in the order of a key; what has no value comes last.

    labels: (n,) of by_face, for the key "face". backwards: the last one with a value first.
    """
    if key == "face":
        order, known = by_face(crops.unit, labels), crops.seen
    else:
        values = crop_facts.KEYS[key].values(crops)
        order = np.lexsort((-values if crop_facts.KEYS[key].falling else values,))  # stable
        known = np.isfinite(values)
    is_known = known[order]
    return np.concatenate([order[is_known][::-1], order[~is_known]]) if backwards else order


def by_face(unit: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n,) rows in an order in which neighbours look alike: one person after the other.

    unit: (n, d), 0 where there is no face: those come last; labels: (n,) of people. The largest
    group comes first, single faces behind all groups; within each a chain of nearest neighbours,
    begun at the face nearest its centre. Memory is linear in n.
    """
    seen = unit.any(axis=1)
    groups = [rows[seen[rows]] for rows in sf.groups_of(labels)]
    singles = np.array([rows[0] for rows in groups if len(rows) == 1], np.intp)
    chains = [chain(unit, rows) for rows in (*(g for g in groups if len(g) > 1), singles)]
    return np.concatenate([*chains, np.flatnonzero(~seen)]).astype(np.intp)


def chain(unit: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows in the order of a walk that goes on to the nearest row not visited yet."""
    if len(rows) < 3:
        return rows
    left, names, count = unit[rows].copy(), rows.copy(), len(rows)
    at = int((left @ sf.centroid(left)).argmax())
    walk = np.empty(count, np.intp)
    for step in range(count):
        here, walk[step] = left[at].copy(), names[at]
        count -= 1
        left[at], names[at] = left[count], names[count]
        at = int((left[:count] @ here).argmax()) if count else 0
    return walk


def people(unit: np.ndarray, threshold: float) -> np.ndarray:
    """(n,) labels of rows that are one person by average linkage; faceless ones are one group."""
    seen = unit.any(axis=1)
    labels = np.full(len(unit), -1)
    labels[seen] = sf.average_linkage(unit[seen], threshold)
    return labels


# ============================================================================
# Groups
# ============================================================================


@dataclass(frozen=True)
class Bins:
    """Which group each picture is in, and what the groups are called."""

    of: np.ndarray  # (n,) int
    names: list[str]


def by_people(labels: np.ndarray) -> Bins:
    """A group a person, the largest first; single faces share one."""
    groups = sf.groups_of(labels)
    groups = [rows for rows in groups if labels[rows[0]] >= 0]
    several = [rows for rows in groups if len(rows) > 1]
    of, count = np.full(len(labels), len(several)), len(str(len(several)))
    for number, rows in enumerate(several):
        of[rows] = number
    names = [f"face_{number:0{max(3, count)}d}" for number in range(1, len(several) + 1)]
    of[labels < 0] = len(several) + 1
    return Bins(of, [*names, "face_single", "unknown"])


MOST_DISTANT = 2.0  # the largest cosine distance there is
WHAT_BORDERS_ARE = {
    "time": "a date, such as 2015 or 2015-08-31",
    "face": "a cosine distance, from 0 to 2",
}


def borders_of(key: str, told: Sequence[str]) -> list[float]:
    """What --threshold says: a number, of time a date in seconds. Raises SortFacesError."""
    borders = []
    for text in told:
        when = dates_in_text.when_in(text) if key == "time" else None
        try:
            value = when.seconds if when is not None else float(text) if key != "time" else np.nan
        except ValueError:
            value = np.nan
        if not np.isfinite(value) or (key == "face" and not 0 <= value <= MOST_DISTANT):
            what = WHAT_BORDERS_ARE.get(key, "a number")
            raise sf.SortFacesError(f"--threshold {text}: by {key} it is {what}")
        borders.append(value)
    return borders


def by_value(key: str, values: np.ndarray, count: int, borders: Sequence[float]) -> Bins:
    """Groups between borders, or so many of equal width or count; unknown values in the last."""
    known = values[np.isfinite(values)]
    if not len(borders) and len(known):
        if crop_facts.KEYS[key].even:
            edges = np.linspace(known.min(), known.max(), count + 1)
        else:
            edges = np.quantile(known, np.linspace(0, 1, count + 1))
        borders = np.unique(edges[1:-1]).tolist()
    borders = sorted(borders)
    of = np.searchsorted(borders, values, side="right")
    ends = [-np.inf, *borders, np.inf]
    width = len(str(len(ends)))
    told = [crop_facts.KEYS[key].said(end) if np.isfinite(end) else "" for end in ends]
    said = [bin_name(key, low, high) for low, high in itertools.pairwise(told)]
    names = [f"{number:0{width}d}_{name}" for number, name in enumerate(said, 1)]
    of[~np.isfinite(values)] = len(names)
    return Bins(of, [*names, "unknown"])


def bin_name(key: str, low: str, high: str) -> str:
    """`yaw_-30_to_10`, `blur_below_40`: a folder name on every system. "": no end."""
    if not low:
        return f"{key}_below_{high}" if high else key
    return f"{key}_{low}_to_{high}" if high else f"{key}_from_{low}"


# ============================================================================
# Names
# ============================================================================


def arranged(
    source: Source, crops: crop_facts.Crops, paths: Sequence[str], options: sf.ArrangeOptions
) -> list[tuple[str, str]]:
    """(path within the source, path it gets) of every picture, job after job in the new order."""
    moves: list[tuple[str, str]] = []
    ends = itertools.accumulate(map(len, source.jobs.values()))
    for (job, some), end in zip(source.jobs.items(), ends, strict=True):
        own = crops.take(np.arange(end - len(some), end))
        order, bins = order_and_bins(own, options)
        titles = [source.titles[path] for path in some]
        aims = targets(job, titles, order, bins, options)
        moves += zip([some[at] for at in order], aims, strict=True)
    return moves


def order_and_bins(
    crops: crop_facts.Crops, options: sf.ArrangeOptions
) -> tuple[np.ndarray, Bins | None]:
    """(positions in their order, groups or None) of the pictures of one job."""
    by, group = options.by, options.grouped_by
    borders, labels = borders_of(group, options.threshold), None
    if "face" in (by, group):
        own = sf.thresholds_for(crops.cache.meta.model).cluster
        labels = people(crops.unit, borders[0] if group == "face" and borders else own)
    if by == "none":
        order = np.arange(len(crops.row))[:: -1 if options.reverse else 1]
    else:
        order = ordered(by, crops, labels, options.reverse)
    if group == "none":
        return order, None
    if group == "face":
        return order, by_people(labels)
    values = crop_facts.KEYS[group].values(crops)
    return order, by_value(group, values, options.groups or DEFAULT_GROUPS, borders)


DEFAULT_GROUPS = 5


def targets(
    job: str,
    titles: Sequence[str],
    order: np.ndarray,
    bins: Bins | None,
    options: sf.ArrangeOptions,
) -> Iterator[str]:
    """Where each picture goes, in the new order; numbers run through all groups of a job."""
    width = max(DIGITS, len(str(len(order))))
    for number, at in enumerate(order.tolist(), 1):
        name = titles[at] if options.by == "none" else f"{number:0{width}d}_{titles[at]}"
        name = fitting(name)
        place = PurePosixPath(job)
        place = place / bins.names[bins.of[at]] if bins is not None else place
        yield (place / name).as_posix()


LONGEST = 245  # bytes: 255 are allowed, and a number may be added


def fitting(name: str) -> str:
    """A file name, its stem cut where the file system would refuse it for its length."""
    stem, suffix = os.path.splitext(name)
    while len(os.fsencode(stem + suffix)) > LONGEST:
        stem = stem[:-1]
    return stem + suffix


def apart(moves: Sequence[tuple[str, str]], taken: set[str]) -> list[tuple[str, str]]:
    """The moves with a number in each name that lies there now or was given before.

    A rename can be done again after a kill only if its place was empty until then; so no picture
    gets the name another one has now. Names that differ in case alone are one on many disks, where
    a rename would put one picture in place of another.
    """
    given: set[str] = set()
    taken = {alike(name) for name in taken}
    result = []
    for source, target in moves:
        stem, suffix = os.path.splitext(target)

        def is_taken(name: str, suffix: str = suffix, own: str = source) -> bool:
            full = alike(name + suffix)
            return full in given or (full in taken and full != alike(own))

        name = sf.first_free(stem, is_taken, "-", 2) + suffix
        given.add(alike(name))
        result.append((source, name))
    return result


def alike(path: str) -> str:
    """The same of paths that some disk takes for one."""
    return unicodedata.normalize("NFC", path).casefold()


# ============================================================================
# Carrying out
# ============================================================================


def arrange(folder: Path, options: sf.ArrangeOptions, crew: sf.Crew) -> dict[str, Any]:
    """Arrange a folder, or say what would be done; returns the counts. Raises SortFacesError."""
    source = source_of(folder, options.subfolders)
    refuse_in_place(source, options)
    borders_of(options.grouped_by, options.threshold)  # before anything is looked at
    root = source.root if options.copy is None else options.copy.absolute()
    with contextlib.nullcontext() if options.dry_run else held(root):
        if options.copy is None:
            source = source_of(
                folder, options.subfolders
            )  # as a run that was cut short has left it
        crops, paths = facts_for(source, options, crew)
        moves = arranged(source, crops, paths, options)
        there = {path for path, _ in moves} if options.copy is None else set()
        moves = apart(moves, there | names_below(root, moves))
        run = ""
        if not options.dry_run:
            if options.copy is not None:
                note_copies(source, paths, root, options.cache)
            run = carried_out(root, source, moves, options.copy is not None)
    groups = sf.Counter(PurePosixPath(target).parent.as_posix() for _, target in moves)
    return {
        "folder": str(root),
        "run": run or f"none: {'dry run' if options.dry_run else 'it is in order already'}",
        "pictures": len(moves),
        **({"without_face": int(np.count_nonzero(~crops.seen))} if crops.cache.files else {}),
        "groups": [{"folder": name, "pictures": count} for name, count in groups.items()],
        "first": [target for _, target in moves[:3]],
        "undo": sf.own_command("restore", root) if run else "",
    }


def refuse_in_place(source: Source, options: sf.ArrangeOptions) -> None:
    """Raise SortFacesError where renaming would break what another command keeps there."""
    if options.copy is None:
        links = (path for some in source.jobs.values() for path in some)
        broken = next((path for path in links if is_relative_link(source.root / path)), "")
        if broken:
            raise sf.SortFacesError(
                f"{source.root / broken}: is a link that renaming would break; "
                "arrange a copy with --copy DIR"
            )
        for place in (source.root, *list(source.root.parents)[:3]):
            if sf.is_own_output(str(place)):
                raise sf.SortFacesError(
                    f"{source.root}: {place} is an output of this tool, whose files keep their "
                    "names; arrange a copy with --copy DIR"
                )
        if not (options.in_place or options.dry_run):
            raise sf.SortFacesError(
                f"{source.root}: say --copy DIR, or --in-place to have its files renamed"
            )
        return
    copy = Path(os.path.normpath(options.copy.absolute()))
    if copy == source.root or source.root in copy.parents:
        raise sf.SortFacesError(f"{copy}: lies in {source.root}; name a folder outside it")
    if corpus_above(copy) is not None or sf.is_own_output(str(copy)):
        raise sf.SortFacesError(f"{copy}: is an output of this tool; name a folder of its own")
    run = run_that_fills(copy, source.jobs)
    if run:
        raise sf.SortFacesError(
            f"{copy}: run {run} has put crops there, orders would mix; name another folder, "
            f"or take them back: {sf.own_command('restore', copy)}"
        )


def run_that_fills(copy: Path, jobs: Places) -> str:
    """A run whose copies of the same jobs lie in a folder still, "" for none."""
    for folder in sf.runs_of(copy):
        for _, target in sf.read_run(folder).steps:
            inside = {path.as_posix() for path in PurePosixPath(target).parents}
            if inside & jobs.keys() and os.path.lexists(copy / target):
                return folder.name
    return ""


def is_relative_link(path: Path) -> bool:
    return path.is_symlink() and not os.path.isabs(os.readlink(path))


def facts_for(
    source: Source, options: sf.ArrangeOptions, crew: sf.Crew
) -> tuple[crop_facts.Crops, list[str]]:
    """The facts that the keys need, and no more."""
    wanted = {options.by, options.grouped_by} - {"none"}
    if not any(key == "face" or crop_facts.KEYS[key].looks for key in wanted):
        paths = [path for some in source.jobs.values() for path in some]
        return crop_facts.nobody([source.root / path for path in paths]), paths
    crops, paths = look_at(source, crew, options.cache)
    if options.reference is not None:
        direction = reference_of(options.reference, crew, crops.cache.meta)
        crops = sf.replace(crops, reference=direction)
    return crops, paths


def look_at(
    source: Source, crew: sf.Crew, known: Path | None
) -> tuple[crop_facts.Crops, list[str]]:
    """The facts of every picture of a source, and their paths within it, job after job."""
    paths = [path for some in source.jobs.values() for path in some]
    files = [source.root / path for path in paths]
    cache = source.corpus.cache if source.corpus is not None else None
    if cache is not None:
        rows = [cache.row_of_face.get(source.faces[path].face, -1) for path in paths]
        if min(rows) >= 0:
            return crop_facts.Crops(files, cache, np.array(rows)), paths
    shas = looking.hashes(files)
    seen = looking.looked_at(files, shas, crew) if known is None else sf.load_cache(known)
    return crop_facts.crops_of(files, shas, seen), paths


def reference_of(path: Path, crew: sf.Crew, meta: sf.CacheMeta) -> np.ndarray:
    """The direction of the faces a folder or file of references shows. Raises SortFacesError."""
    return sf.centroid(sf.companion("reference_filter").references(path, crew, meta, alone=True))


def names_below(root: Path, moves: Sequence[tuple[str, str]]) -> set[str]:
    """Paths within `root` of all that lies in the folders that moves aim at."""
    places = {PurePosixPath(target).parent for _, target in moves}
    found = set()
    for place in places:
        with contextlib.suppress(OSError):
            found |= {(place / name).as_posix() for name in os.listdir(root / place)}
    return found


def note_copies(source: Source, paths: Sequence[str], root: Path, known: Path | None) -> None:
    """Tell whose faces will lie in a folder: beside the cache, or the corpus where that is not
    there. Of crops that no cache knows nobody could tell."""
    if source.corpus is not None:
        place, faces = copies.place_of(source.corpus), source.faces
        shown = [(sha_of(source.root / path, faces[path]), ref_of(faces[path])) for path in paths]
        copies.Notes(place, root).add(shown)
    elif known is not None:
        cache, shas = sf.load_cache(known), looking.hashes(source.root / path for path in paths)
        by_sha = looking.rows_by_sha(cache)
        pairs = [(sha, row) for sha in shas for row in by_sha.get(sha, ())]
        refs = sf.companion("decisions").refs(cache, (row for _, row in pairs))
        copies.Notes(known, root).add((sha, ref) for (sha, _), ref in zip(pairs, refs, strict=True))


def sha_of(png: Path, face: sf.Face) -> str:
    """sha256 of an exported PNG: by its manifest, unless the file is younger than that."""
    facts, told = os.stat(png), os.stat(png.parents[1] / "manifest.json")
    changed = max(facts.st_mtime_ns, facts.st_ctime_ns)  # the latter also of what keeps its date
    return face.sha256 if changed < told.st_mtime_ns else sf.sha256_of_file(png)


def ref_of(face: sf.Face) -> str:
    """How decisions name a face of a manifest; without a box where an earlier version told none."""
    box = [] if face.bbox is sf.UNSET else [str(round(edge)) for edge in face.bbox]
    return "@".join([face.face, *[",".join(box)] * bool(box)])


def carried_out(root: Path, source: Source, moves: list[tuple[str, str]], is_copy: bool) -> str:
    """Rename or copy all pictures as one run; returns its name, "" where nothing changes."""
    if not is_copy:
        moves = [(path, target) for path, target in moves if path != target]
        if not moves:
            return ""
    with sf.new_run(root, sf.next_run(root, COMMAND)) as run:
        for path, target in sf.progress(moves, len(moves), "arranging", "crop"):
            if is_copy:
                place = run.place(target)
                sf.clone_or_copy(source.root / path, place)
                facts = os.stat(source.root / path)
                os.utime(place, ns=(facts.st_atime_ns, facts.st_mtime_ns))
            else:
                run.move(path, target)
        run.commit()
        return run.name


@contextlib.contextmanager
def held(root: Path, undoing: bool = False) -> Iterator[None]:
    """Hold a folder of crops; what a killed run left is finished or undone first.

    undoing: as runs are about to be undone, one that cannot be finished stays as it is.

    The lock lies elsewhere: one in the folder would make it look like an output of this tool.
    """
    sf.make_folder(root)
    mark = hashlib.sha256(os.path.realpath(root).encode("utf-8", "surrogateescape")).hexdigest()
    user = re.sub(r"\W", "", str(getattr(os, "getuid", lambda: "")()))
    with sf.locked(Path(tempfile.gettempdir()) / f"{sf.TOOL}-{user}-{mark[:16]}.lock", str(root)):
        try:
            sf.recover_runs(root)
        except (OSError, sf.SortFacesError) as error:
            if not undoing:
                raise
            sf.log.warning("%s: cannot be finished: %s", root, error)
        yield


def is_arranged(root: Path) -> bool:
    """Whether the runs of a folder are all of this command: it is no corpus."""
    runs = sf.runs_of(root)
    own = all(folder.name.endswith(f"-{COMMAND}") for folder in runs)
    return bool(runs) and own and not (root / "manifest.json").exists()
