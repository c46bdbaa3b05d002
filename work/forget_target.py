"""What `forget` works on and whom it is about: our folders, and which faces go.

Contents
    Our folders
    Who is meant
    Which faces
    The cache without them
"""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import sort_faces as sf

traces = sf.companion("forget_traces")
said = sf.companion("forget_decisions")
corpora = sf.companion("forget_corpus")
Target = traces.Target

# ============================================================================
# Our folders
# ============================================================================

TREES = {"raw": sf.RawManifest, "refined": sf.RefinedManifest}
NO_ENTRY = (*sf.SKIPPED_FOLDERS, ".git", sf.RUNS_FOLDER)


def find_places(outs: Sequence[Path], roots: Sequence[str]) -> dict[Path, str]:
    """{folder: kind} of all our outputs in and below some folders, never among the photos."""
    found: dict[Path, str] = {}
    for out in outs:
        for folder, names, files in os.walk(out.resolve()):
            path = Path(folder)
            runs = (path / sf.RUNS_FOLDER).glob(f"*/{sf.JOURNAL}")
            if any(traces.kind_of(run) == "journal" for run in runs):
                # one may be cut short, and the manifest on its way
                with held(path):
                    sf.recover_runs(path)
                files = os.listdir(path)
            kind = folder_kind(path, files)
            if kind:
                found[path] = kind
            inside = kind in ("swap", "raw", "refined", "report")
            among = any(path == Path(root) for root in roots)
            names[:] = [] if inside or among else [name for name in names if name not in NO_ENTRY]
    for path in [path for path, kind in found.items() if kind != "report"]:
        found |= dict.fromkeys(pages_beside(path), "report")
    return found


def held(path: Path) -> contextlib.AbstractContextManager[Any]:
    """Hold a folder with runs; one of crops without a lock in it, which would make it an output."""
    crops = sf.companion("arrange")
    if crops.is_arranged(path):
        return crops.held(path)
    return sf.locked(path / sf.LOCK_NAME, str(path))


def folder_kind(path: Path, files: Sequence[str]) -> str:
    """What of ours a folder is, "" for nothing."""
    for name in ("manifest.json", "refine_manifest.json", "videos.json"):
        kind = traces.kind_of(path / name) if name in files else ""
        if kind in ("swap", "raw", "refined", "report", "videos"):
            return kind
    return ""


def pages_beside(path: Path) -> Iterator[Path]:
    """Folders of pages about an output, where they lie by default."""
    for other in path.parent.glob(f"{glob.escape(path.name)}-*"):
        if other.is_dir() and traces.kind_of(other / "manifest.json") == "report":
            yield other


@dataclass
class Scene:
    """What `forget` works on: the cache and our folders, all of them held."""

    paths: sf.ForgetPaths
    cache: sf.FaceCache
    kinds: dict[Path, str]  # of our folders
    crew: sf.Crew
    corpora: dict[Path, sf.Corpus] = field(default_factory=dict)
    trees: dict[Path, sf.TreeManifest] = field(default_factory=dict)

    def of(self, *kinds: str) -> list[Path]:
        return [path for path, kind in self.kinds.items() if kind in kinds]

    @property
    def outs(self) -> list[str]:
        return [str(out.resolve()) for out in self.paths.outs]

    @functools.cached_property
    def spoken(self) -> said.Spoken:
        return said.Spoken(self.paths.cache, self.cache)

    @property
    def job(self) -> Path:
        return self.beside(Target.FILE)

    def note_folders(self) -> list[Path]:
        """Where our plans and answers may lie: in the outputs, and beside them and the cache."""
        folders = {Path(out) for out in self.outs} | {path.parent for path in self.kinds}
        folders |= {*self.of("report"), self.paths.cache.absolute().parent}
        return sorted(folder for folder in folders if folder.is_dir())

    def remove_unfinished(self) -> None:
        """Delete what killed runs left of files they were writing."""
        begun = re.compile(re.escape(sf.PART_PREFIX) + r"\d+-\d+-.*\.(json|log|npz|jsonl)")
        thumbs = self.beside(said.THUMBS)
        shutil.rmtree(thumbs.with_name(sf.PART_PREFIX + thumbs.name), ignore_errors=True)
        for folder in (*self.note_folders(), sf.log_folder()):
            for path in folder.glob(f"{sf.PART_PREFIX}*"):
                name = path.name.rpartition("-")[2]
                ours = not name.endswith(".npz") or name == self.paths.cache.name
                if path.is_file() and ours and begun.fullmatch(path.name):
                    path.unlink()

    def beside(self, suffix: str) -> Path:
        """A file beside the cache."""
        return self.paths.cache.with_name(self.paths.cache.name + suffix)


@contextlib.contextmanager
def opened(paths: sf.ForgetPaths, crew: sf.Crew) -> Iterator[Scene]:
    """Hold the cache and every output; what killed runs left there is finished or removed."""
    job = sf.read_if_sound(paths.cache.with_name(paths.cache.name + Target.FILE), Target)
    for out in paths.outs:
        if not out.is_dir() and job is None:
            raise sf.SortFacesError(f"{out}: no such folder; name what the tool has made")
    if job is not None:
        outs = {Path(out).resolve() for out in (*paths.outs, *job.outs)}
        paths = replace(paths, outs=sorted(outs))
    with contextlib.ExitStack() as locks:
        locks.enter_context(sf.locked_cache(paths.cache))
        sf.remove_unfinished_file(paths.cache.absolute())
        review = paths.cache.with_name(paths.cache.name + said.REVIEW_LOCK)
        if review.exists():  # a review page would write what it has in memory
            locks.enter_context(sf.locked(review, f"what is decided about {paths.cache}"))
        cache = sf.load_cache(paths.cache)
        for out in paths.outs:
            for root in cache.meta.roots:
                if out.resolve() == Path(root) or Path(root) in out.resolve().parents:
                    raise sf.SortFacesError(
                        f"{out}: lies among the photos in {root}; name an output"
                    )
        scene = Scene(paths, cache, find_places(paths.outs, cache.meta.roots), crew)
        scene.remove_unfinished()
        for path in scene.of("swap"):
            scene.corpora[path] = locks.enter_context(sf.opened_corpus(path))
            check_recognizer(path, scene.corpora[path].master, cache)
        for path in scene.of("raw", "refined", "report", "videos"):
            locks.enter_context(sf.locked(path / sf.LOCK_NAME, str(path)))
            sf.recover_runs(path)
            sf.remove_unfinished(path)
        for path in scene.of(*TREES):
            kind = TREES[scene.kinds[path]]
            scene.trees[path] = sf.read_file(path / kind.FILE, kind)
            check_recognizer(path, scene.trees[path], cache)
        yield scene


def check_recognizer(path: Path, manifest: sf.Manifest, cache: sf.FaceCache) -> None:
    """Refuse an output of another cache's model: its faces could not be told."""
    if manifest.recognizer != cache.meta.recognizer:
        raise sf.SortFacesError(
            f"{path}: made with {manifest.model}, the cache with {cache.meta.model}; name its own "
            "cache"
        )


# ============================================================================
# Who is meant
# ============================================================================

GROUP_ID = re.compile(r"(faceset|person)_\d{3,}.*")
SAME_PERSON = re.compile(r"(?:era of \S+, )?same person as (\S+)")


@dataclass(frozen=True)
class Identity:
    """The groups of a person in our outputs, and the faces they hold."""

    groups: dict[str, list[str]]  # output: ids
    names: list[str]
    listed: set[str]  # faces they list
    dropped: set[str]  # faces that were in them once


def find_identity(scene: Scene, asked: str) -> Identity:
    """Who is called so. Raises SortFacesError for nobody, or where that cannot be told."""
    if asked == sf.UNNAMED:
        raise sf.SortFacesError(f"--person {asked}: is nobody's name; name the folder of a set")
    found = {path: family_of(corpus, asked) for path, corpus in scene.corpora.items()}
    found = {path: sets for path, sets in found.items() if sets}
    if len(found) > 1 and GROUP_ID.fullmatch(asked):
        raise sf.SortFacesError(
            f"--person {asked}: in {' and '.join(map(str, found))}; name one of them, or a name"
        )
    sets = [faceset for some in found.values() for faceset in some]
    listed = {face.face for faceset in sets for face in faceset.manifest.faces}
    dropped = {gone.face for faceset in sets for gone in faceset.manifest.dropped} - {""}
    groups = {str(path): [faceset.id for faceset in some] for path, some in found.items()}
    names = {faceset.name for faceset in sets} - {sf.UNNAMED}
    if not sets:
        for path, tree in scene.trees.items():
            for group in tree.groups:
                if group.id == asked:
                    groups[str(path)], listed = [group.id], listed | {*group.faces}
    listed |= scene.spoken.named(asked, listed)
    if not listed | dropped:
        raise sf.SortFacesError(
            f"--person {asked}: nobody is called so in {', '.join(scene.outs)}; nothing to forget"
        )
    if len(groups) > 1 and not sets:
        raise sf.SortFacesError(f"--person {asked}: in several trees; name one of them")
    names |= set() if GROUP_ID.fullmatch(asked) else {asked}
    return Identity(groups, sorted(names), listed, dropped)


def family_of(corpus: sf.Corpus, asked: str) -> list[sf.FaceSet]:
    """The face sets of a person: eras, and what was merged into them or they into."""
    for why in corpus.broken.values():
        raise sf.SortFacesError(why)
    own = {f: s for f, s in corpus.sets.items() if asked in (s.id, s.name)}
    in_use = {f: s for f, s in own.items() if not s.shelf}
    own = in_use if in_use and GROUP_ID.fullmatch(asked) else own
    people = sorted({s.family for s in own.values() if s.shelf != "_merged"})
    if len(people) > 1:
        raise sf.SortFacesError(
            f"--person {asked}: {' and '.join(people)} in {corpus.root} are called so; name one"
        )
    links = [*eras_and_wholes(corpus), *merged_and_survivors(corpus)]
    before = -1
    while before < len(own):
        before = len(own)
        for pair in links:
            if own.keys() & {*pair}:
                own |= {folder: corpus.sets[folder] for folder in pair}
    return [*own.values()]


def eras_and_wholes(corpus: sf.Corpus) -> Iterator[tuple[str, str]]:
    """(an era, the set it is of), by their folders."""
    for whole in corpus.sets.values():
        if not whole.is_era:
            yield from ((era.folder, whole.folder) for era in corpus.eras_of(whole))


def merged_and_survivors(corpus: sf.Corpus) -> Iterator[tuple[str, str]]:
    """(a set that was merged, the set it went into), by their folders; numbers come again."""
    for folder, faceset in corpus.sets.items():
        into = SAME_PERSON.fullmatch(corpus.note(folder)["reason"])
        if faceset.shelf != "_merged" or not into:
            continue
        named = [s for f, s in corpus.sets.items() if s.id == into[1] and f != folder]
        if named:
            survivor = min(named, key=lambda s: (s.shelf == "_merged", bool(s.shelf)))
            yield folder, survivor.folder


# ============================================================================
# Which faces
# ============================================================================


def directions(cache: sf.FaceCache, groups: Iterable[Iterable[str]]) -> np.ndarray:
    """(k, d) unit mean directions of groups of faces; those without a face in the cache not."""
    rows = [sf.rows_of_faces(cache, faces) for faces in groups]
    found = [sf.centroid(cache.unit[some]) for some in rows if len(some)]
    return np.array(found, np.float32).reshape(-1, cache.meta.dim)


def other_groups(scene: Scene, own: Callable[[Iterable[str]], bool]) -> Iterator[list[str]]:
    """The faces of each face set and refined group that is not the person's."""
    for corpus in scene.corpora.values():
        for faceset in corpus.sets.values():
            faces = [face.face for face in faceset.manifest.faces]
            if faces and not own(faces):
                yield faces
    for path, tree in scene.trees.items():
        for group in tree.groups if scene.kinds[path] == "refined" else ():
            if group.faces and not own(group.faces):
                yield group.faces


def other_persons(
    scene: Scene, own: Callable[[Iterable[str]], bool], centre: np.ndarray
) -> Iterator[list[str]]:
    """The same of raw trees, whose groups may be parts of one person: not those too near."""
    limit = sf.thresholds_for(scene.cache.meta.model).merge
    for path in scene.of("raw"):
        for group in scene.trees[path].groups:
            found = directions(scene.cache, [group.faces])
            if not own(group.faces) and len(found) and (sf.nearest(found, centre)[1] > limit).all():
                yield group.faces


def person_target(scene: Scene, asked: str) -> Target:
    """All faces of a person: what its sets list or listed, and what looks like them."""
    cache, who = scene.cache, find_identity(scene, asked)
    raw_alone = all(scene.kinds[Path(path)] == "raw" for path in who.groups)
    centre = directions(cache, [who.listed])
    if not len(centre):
        centre = seen_direction(scene, who)
    whole = who.listed | who.dropped

    def own(faces: Iterable[str]) -> bool:
        faces = list(faces)
        return 2 * sum(face in whole for face in faces) > len(faces)

    if not raw_alone:
        for path in scene.of("refined"):
            for group in scene.trees[path].groups:
                who.listed.update(group.faces if own(group.faces) else ())
        for path in scene.of("raw"):  # of these the faces that left the cache before
            for group in scene.trees[path].groups:
                left = {face for face in group.faces if face not in cache.row_of_face}
                who.dropped.update(left if own(group.faces) else ())
    taken = {face for faces in other_groups(scene, own) for face in faces}
    if len(centre):
        taken |= {face for faces in other_persons(scene, own, centre) for face in faces}
    near = sf.nearest(cache.unit, centre)[1] <= sf.thresholds_for(cache.meta.model).outlier
    alike = set(sf.face_names(cache, np.flatnonzero(near)))
    taken |= scene.spoken.denied(who.listed)
    faces = who.listed | ((who.dropped | alike) - taken)
    names = {*who.names, *scene.spoken.names(faces)}
    shown = [sf.pack_floats(vector) for vector in centre]
    return Target(
        what="person", asked=asked, outs=scene.outs, faces=sorted(faces), names=sorted(names),
        sets=who.groups, shown=shown,
    )  # fmt: skip


def seen_direction(scene: Scene, who: Identity) -> np.ndarray:
    """(1, d) or (0, d): the person's mean direction where the cache no longer has the faces."""
    vectors = []
    for path, ids in who.groups.items():
        corpus = scene.corpora.get(Path(path))
        if corpus is not None:
            sets = [faceset for faceset in corpus.sets.values() if faceset.id in ids]
            vectors += sf.Looker(corpus, scene.crew).vectors(sets).values()
    unit = np.concatenate([np.zeros((0, scene.cache.meta.dim), np.float32), *vectors])
    unit = unit[unit.any(axis=1)]
    return sf.centroid(unit)[None] if len(unit) else unit


SHA256_DIGITS = 64


def photo_target(scene: Scene, asked: str) -> Target:
    """All faces of one photo."""
    cache = scene.cache
    sha = photo_sha256(scene, asked)
    row = next((at for at, other in enumerate(cache.file_sha256.tolist()) if other == sha), None)
    listed = {face for face in all_faces(scene) if face.startswith(f"{sha[:16]}:")}
    if row is None and not listed:
        raise sf.SortFacesError(f"--photo {asked}: no such photo is known; nothing to forget")
    rows = np.flatnonzero(cache.face_file == (-1 if row is None else row))
    shown = [sf.pack_floats(vector) for vector in cache.unit[rows]]
    faces = {*sf.face_names(cache, rows), *listed}
    photos = [sha] if len(sha) == SHA256_DIGITS else []
    return Target(
        what="photo", asked=asked, outs=scene.outs, faces=sorted(faces), photos=photos, shown=shown
    )


def photo_sha256(scene: Scene, asked: str) -> str:
    """The sha256 of the photo that is meant. Raises SortFacesError for none or several."""
    known = sf.known_paths(scene.cache)
    for path in (asked, os.path.abspath(asked), os.path.realpath(asked)):
        if path in known:
            return known[path][0]
    if not re.fullmatch(r"[0-9a-f]{16,64}", asked):
        raise sf.SortFacesError(
            f"--photo {asked}: the cache knows no such photo; nothing to forget"
        )
    hits = [sha for sha in scene.cache.file_sha256.tolist() if sha.startswith(asked)]
    if len(hits) > 1:
        raise sf.SortFacesError(f"--photo {asked}: several photos begin so; give more digits")
    return hits[0] if hits else asked


def all_faces(scene: Scene) -> Iterator[str]:
    """Every face our outputs list."""
    for corpus in scene.corpora.values():
        for faceset in corpus.sets.values():
            yield from faceset.known()
    yield from tree_faces(scene)


def tree_faces(scene: Scene) -> Iterator[str]:
    """Every face our trees list."""
    for tree in scene.trees.values():
        for group in tree.groups:
            yield from group.faces
        yield from tree.singletons if isinstance(tree, sf.RawManifest) else ()


def face_target(scene: Scene, asked: str) -> Target:
    """One face."""
    row = scene.cache.row_of_face.get(asked)
    if row is None and asked not in {*all_faces(scene)}:
        raise sf.SortFacesError(f"--face {asked}: no such face is known; nothing to forget")
    shown = [] if row is None else [sf.pack_floats(scene.cache.unit[row])]
    return Target(what="face", asked=asked, outs=scene.outs, faces=[asked], shown=shown)


def completed(scene: Scene, target: Target) -> Target:
    """The target with what follows from its faces: photos, boxes, paths, PNGs, notes on crops."""
    cache, going = scene.cache, set(target.faces)
    rows = sf.rows_of_faces(cache, target.faces)
    photos, boxes = {*target.photos}, defaultdict(list)
    left = np.ones(cache.faces, bool)
    left[rows] = False
    stays = {*cache.face_file[left].tolist()}
    for row in rows.tolist():
        file = int(cache.face_file[row])
        sha = str(cache.file_sha256[file])
        if file not in stays:
            photos.add(sha)
        elif sha not in photos:
            boxes[sha].append(tuple(cache.bbox[row].tolist()))
    known = {sha: at for at, sha in enumerate(cache.file_sha256.tolist())}
    paths = {path for sha in photos if sha in known for path in cache.paths[known[sha]]}
    sets = [
        told for path in scene.of("swap")
        for told in (*corpora.told_sets(path).values(),
                     *corpora.told_sets(path, "candidates").values())
    ]  # fmt: skip
    entries = [entry for told in sets for entry in corpora.entries_of(told)]
    own = [entry for entry in entries if entry.get("face") in going]
    others = {entry.get("sha256") for entry in entries if entry.get("face") not in going}
    there = {sha[:16] for sha in known}  # photos of which something stays
    there |= {str(entry.get("face"))[:16] for entry in entries if entry.get("face") not in going}
    there |= {face[:16] for face in tree_faces(scene) if face not in going}
    for entry in own:
        if str(entry["face"])[:16] not in there:  # pruned from the cache before
            photos |= {text for text in [entry.get("photo_sha256")] if isinstance(text, str)}
            paths |= {text for text in [entry.get("source")] if text and isinstance(text, str)}
    pruned = {face[:16] for face in going} - there
    placed = {sha for tree in scene.trees.values() for sha in tree.placed.values()}
    photos |= {sha for sha in placed if sha[:16] in pruned}
    crops = {entry["sha256"] for entry in own if isinstance(entry.get("sha256"), str)} - others
    return msgspec.structs.replace(
        target, photos=sorted(photos), paths=sorted(paths), boxes=dict(boxes),
        crops=sorted(crops), crop_keys=crop_keys(scene, rows, left, sets),
    )  # fmt: skip


# ============================================================================
# The cache without them
# ============================================================================


def reduced_cache(cache: sf.FaceCache, faces: Iterable[str], photos: Iterable[str]) -> sf.FaceCache:
    """A cache without some faces (ids) and without some photos (sha256) and all of theirs."""
    faces, photos = set(faces), set(photos)
    stay = np.array([sha not in photos for sha in cache.file_sha256.tolist()], bool)
    rows = {
        "f": stay,
        "a": stay[cache.alias_file],
        "n": stay[cache.face_file] & np.array([face not in faces for face in cache.face_ids], bool),
    }
    arrays = {name: getattr(cache, name)[rows[about.rows]] for name, about in sf.COLUMNS.items()}
    place = np.cumsum(stay) - 1
    for name in ("alias_file", "face_file"):
        arrays[name] = place[arrays[name]].astype(sf.COLUMNS[name].dtype)
    for name, about in sf.COLUMNS.items():
        if about.dtype is str:
            arrays[name] = np.array(arrays[name].tolist(), str)
    gone = {path for row in np.flatnonzero(~stay) for path in cache.paths[row]}
    roots = [root for root in cache.meta.roots if root not in gone]
    return sf.FaceCache(msgspec.structs.replace(cache.meta, roots=roots), **arrays)


def crop_keys(
    scene: Scene, rows: np.ndarray, left: np.ndarray, sets: Sequence[dict[str, Any]]
) -> dict[str, str]:
    """{key of a note about a crop: "" where it goes, its new key where a neighbour goes}."""
    cache, keys = scene.cache, {}
    going = {*rows.tolist()}
    beside = np.flatnonzero(np.isin(cache.face_file, cache.face_file[rows]) & left)
    reduced = reduced_cache(cache, {*sf.face_names(cache, rows)}, ())
    told = {repr(s.get("params")): s.get("params") for s in sets}
    for params in filter(None, (traces.record_of(ExportHead, p) for p in told.values())):
        before, after = (key_maker(scene, kind, params) for kind in (cache, reduced))
        keys |= {before(row): "" for row in going}
        keys |= {before(row): after(reduced.row_of_face[cache.face_ids[row]]) for row in beside}
    return keys


class ExportHead(sf.Record, kw_only=True):
    """Of the params of an export what decides a crop."""

    pad_ratio: float
    out_size: int
    same_face_threshold: float


def key_maker(scene: Scene, cache: sf.FaceCache, params: ExportHead) -> Callable[[int], str]:
    """What an export names the crop of a cache row by."""
    wanted = replace(
        sf.for_model(sf.ExportParams(), cache.meta.model), **msgspec.structs.asdict(params)
    )
    crew = scene.crew.with_spec(sf.as_consumer(scene.crew.spec, cache.meta))
    return sf.Export(sf.Library(cache, scene.paths.cache), Path(), wanted, crew).crop_key
