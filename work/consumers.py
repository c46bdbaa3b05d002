"""What is written of a corpus for other programs: which kinds there are, and how they follow it.

A kind is a row of KINDS and one short writer, or two: of a face set, below its exports/KIND, and of
all people at once, below exports/KIND of the corpus. A writer fills an empty folder from a Subject;
the manifest beside notes every file and a mark of all it was made of, so that a set that changes,
by hand or by a run, has its exports made anew in the same run.

Contents
    What is wanted
    Following the corpus
    Writing
    Verifying
"""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import sort_faces as sf

SOLVED_SIGNS = (-1.0, -1.0, 1.0)  # of pitch, yaw, roll by solve_pose, to be insightface's
W600K = "4c06341c"  # how the sha256 of w600k_r50.onnx begins, the recogniser of buffalo_l
NO_CACHE = "needs the cache, which is not there or numbers faces another way"
UNKNOWN = "?"  # ends a mark of which not all could be told
Exports = Mapping[str, dict[str, Any]]  # kind: its options


@dataclass(frozen=True)
class Kind:
    """A form in which face sets are written.

    A writer `one(folder, subject, options)` or `all(folder, subjects, options)` is named as
    companion:function. It writes what it wants below the folder, which it makes where it needs it,
    and returns {file of a face, or "" for all: why it is left out}.
    """

    one: str = ""  # the writer of a face set
    all: str = ""  # the writer of all people at once
    recognizer: str = ""  # whose embeddings it means; how that sha256 begins
    options: tuple[str, ...] = ()  # its own fields of ToOptions
    placed: bool = False  # its files name others by absolute paths
    facts: tuple[str, ...] = ()  # what else of a set: companion:function of (corpus, manifest),
    # which returns None where that is not known
    averages: bool = False  # it holds an average, that of the bundle a program is given first
    version: int = 1  # raised when its files change; earlier ones are then made anew


VECTORS, PLAIN, SUBSETS = "consumers_vectors:write", "consumers_plain:write", "consumers_subsets:"
ALIGNED, ENRICHED, LOOKED_AT = "consumers_aligned:", "consumers:enriched", "consumers:looked_at"
KINDS = {
    "fsz2": Kind(
        "consumers_fsz2:write_metadata",
        recognizer=W600K,
        facts=("consumers:numbered", LOOKED_AT),
        version=2,
    ),
    "rope": Kind(
        f"{VECTORS}_rope",
        f"{VECTORS}_all_rope",
        W600K,
        facts=(LOOKED_AT,),
        averages=True,
        version=2,
    ),
    "visomaster": Kind(
        f"{VECTORS}_visomaster",
        f"{VECTORS}_all_visomaster",
        W600K,
        facts=(LOOKED_AT,),
        averages=True,
        version=2,
    ),
    "reactor": Kind(
        f"{VECTORS}_reactor",
        f"{VECTORS}_all_reactor",
        W600K,
        options=("genderage",),
        facts=(ENRICHED, LOOKED_AT),
        averages=True,
        version=2,
    ),
    "facefusion": Kind(
        "consumers_facefusion:write_sources",
        "consumers_facefusion:write_jobs",
        options=("clips",),
        placed=True,
        version=2,
    ),
    "faceswap": Kind(
        f"{ALIGNED}write_faceswap",
        options=("faceswap_size", "refeed"),
        facts=(f"{ALIGNED}lacking",),
    ),
    "dfl": Kind(
        f"{ALIGNED}write_dfl",
        options=("dfl_face", "dfl_size", "refeed"),
        facts=(f"{ALIGNED}lacking",),
    ),
    "xmp": Kind(
        all="consumers_xmp:write_xmp",
        options=("xmp_beside",),
        facts=("consumers_xmp:told_faces", "consumers_xmp:place"),
        version=3,
    ),
    "folder": Kind(f"{PLAIN}_folder", facts=("consumers_plain:later_facts",), version=2),
    "embeddings": Kind(
        f"{PLAIN}_embeddings",
        f"{PLAIN}_all_embeddings",
        facts=(LOOKED_AT,),
        averages=True,
        version=2,
    ),
    "lora": Kind(f"{PLAIN}_lora", facts=(ENRICHED,)),
    "poses": Kind(f"{SUBSETS}write_poses", facts=(ENRICHED,)),
    "glasses": Kind(f"{SUBSETS}write_glasses", facts=(f"{SUBSETS}glasses_of",)),
    "eras": Kind(f"{SUBSETS}write_eras", facts=(LOOKED_AT,)),
}


@dataclass(frozen=True)
class Subject:
    """A face set as a writer gets it."""

    corpus: sf.Corpus
    manifest: sf.FacesetManifest  # with its final faces and bundles
    name: str  # its person's, else its id; of all people no two are the same
    folder: Path  # where its PNGs lie now
    place: Path  # where they will lie; absolute
    earlier: Path | None = None  # its earlier self, of which unchanged files can be taken over

    @property
    def faces(self) -> list[sf.Face]:
        return self.manifest.faces

    @functools.cached_property
    def embedding(self) -> np.ndarray:
        """(n, d) float32 of its faces, raw, as consumers get them; zeros where not known."""
        return self.corpus.embeddings(self.faces)

    @functools.cached_property
    def loaded(self) -> list[sf.Face]:
        """The faces of its top bundle: those that roop gets where nobody chooses another."""
        top = set(next(iter(sf.bundles_of(self.manifest).values()), ()))
        return [face for face in self.faces if face.file in top]

    def average(self) -> np.ndarray | None:
        """(d,) float32 mean of the raw embeddings known of those, None where none is."""
        some = self.corpus.embeddings(self.loaded)
        known = some[some.any(axis=1)]
        return known.mean(axis=0, dtype=np.float64).astype(np.float32) if len(known) else None

    @property
    def cache(self) -> sf.FaceCache | None:
        """The cache, where it is there and still numbers faces the same way."""
        return self.corpus.cache

    def row(self, face: sf.Face) -> int | None:
        """Cache row of a face; None of one the operator added, and without the cache."""
        return None if self.cache is None else self.cache.row_of_face.get(face.face)

    def window(self, face: sf.Face) -> tuple[int, int, int] | None:
        """(x, y, side) of the square in upright photo pixels that its PNG shows."""
        row = self.row(face)
        if row is None or face.pad is sf.UNSET:
            return None
        wh = tuple(self.cache.file_wh[self.cache.face_file[row]].tolist())
        return sf.crop_square(self.cache.bbox[row], wh, face.pad)

    def in_png(self, face: sf.Face, points: np.ndarray) -> np.ndarray | None:
        """(..., 2) upright photo pixels as pixels of its PNG, None where that is not known."""
        window = self.window(face)
        if window is None:
            return None
        x, y, side = window
        return (points - (x, y)) * (self.manifest.params.out_size / side)

    def kps(self, face: sf.Face) -> np.ndarray | None:
        """(5, 2) its key points in its PNG: as somebody saw them there, else by the cache."""
        seen, row = seen_points(self.corpus).get(face.sha256), self.row(face)
        return self.in_png(face, self.cache.kps[row]) if seen is None and row is not None else seen

    def points(self, face: sf.Face) -> np.ndarray | None:
        """(5, 2) the same in pixels of any picture: of the photo where the PNG's are not known."""
        seen, row = self.kps(face), self.row(face)
        return self.cache.kps[row] if seen is None and row is not None else seen

    def pose(self, face: sf.Face) -> np.ndarray | None:
        """(3,) degrees pitch, yaw, roll with insightface's signs, None where not known.

        Up, and to the right of the picture, are positive there.
        """
        row, points = self.row(face), self.kps(face)
        if row is not None and self.cache.enriched[row]:
            pose, solved = self.cache.pose[row], self.corpus.master.model == sf.DLIB_MODEL
        elif points is not None:
            size = self.manifest.params.out_size
            pose, solved = sf.pose_from_kps(points[None], (size, size))[0], True
        else:
            return None
        pose = pose * SOLVED_SIGNS if solved else pose
        return pose if np.isfinite(pose).all() else None

    def picture(self, face: sf.Face) -> np.ndarray | None:
        """(h, w, 3) uint8 BGR, its PNG; None of one that is damaged, as verify will tell."""
        try:
            return sf.decode_photo((self.folder / face.file).read_bytes()).image
        except sf.PhotoError as error:
            sf.log.warning("%s: %s", self.place / face.file, error)
            return None

    def photo(self, face: sf.Face) -> str:
        """Path of the photo of a face, where it lies there unchanged, else ""."""
        row = self.row(face)
        return "" if row is None else library_of(self.corpus).live_path(self.cache.face_file[row])


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a corpus that is asked by every set and every step of a run: its first answer
    stays with the corpus as it was opened."""

    @functools.wraps(function)
    def answered(corpus: sf.Corpus, *more: Any) -> Any:
        name = f"{function.__module__}:{function.__name__}"
        with sf.LOADING:
            if name not in corpus.__dict__:
                corpus.__dict__[name] = function(corpus, *more)
            return corpus.__dict__[name]

    return answered


@once
def library_of(corpus: sf.Corpus) -> sf.Library:
    """The cache of a corpus and where its photos lie."""
    return sf.Library(corpus.cache, Path(corpus.master.cache))


def enriched(corpus: sf.Corpus, manifest: sf.FacesetManifest) -> list[bool] | None:
    """Which faces have landmarks and a pose of their own, None without the cache."""
    if corpus.cache is None:
        return None
    rows = (corpus.cache.row_of_face.get(face.face) for face in manifest.faces)
    return [row is not None and bool(corpus.cache.enriched[row]) for row in rows]


def numbered(corpus: sf.Corpus, manifest: sf.FacesetManifest) -> list[bool] | None:
    """Which faces the cache knows, None without it."""
    if corpus.cache is None:
        return None
    return [face.face in corpus.cache.row_of_face for face in manifest.faces]


def looked_at(corpus: sf.Corpus, manifest: sf.FacesetManifest) -> list[bool]:
    """Of which faces the embedding is that of the PNG, not that of the photo."""
    return [face.sha256 in corpus.seen for face in manifest.faces]


@once
def seen_points(corpus: sf.Corpus) -> dict[str, np.ndarray]:
    """{sha256 of a PNG: (5, 2) key points in it} where somebody has looked."""
    scores = corpus.root / sf.SCORES_FOLDER
    return {
        sha: np.array(audit.kps, np.float64)
        for path in sorted(scores.glob(f"audit-{corpus.master.recognizer}*.jsonl"))
        for sha, audit in sf.read_results(path).items()
        if len(audit.kps) and np.any(audit.kps)
    }


def writer_of(name: str) -> Any:
    """The function companion:function names."""
    module, _, function = name.partition(":")
    return getattr(sf.companion(module), function)


# ============================================================================
# What is wanted
# ============================================================================


def wanted(master: sf.SwapManifest, to: sf.ToOptions, off: Sequence[str] = ()) -> Exports:
    """The kinds a corpus is to have, with their options; raises SortFacesError where that cannot
    be: a program would take an embedding of another recogniser for somebody else."""
    for kind in set(to.to) & set(off):
        raise sf.SortFacesError(f"--to {kind} and --off {kind}: choose one of them")
    exports = {kind: as_now(options) for kind, options in master.exports.items() if kind not in off}
    given = {name: value for name, value in asdict(to).items() if value is not None}
    for kind in to.to:
        if kind not in KINDS:
            raise sf.SortFacesError(f"--to {kind}: cannot be written by this version yet")
        own = [as_option(name, given[name]) for name in KINDS[kind].options if name in given]
        exports[kind] = exports.get(kind, {}) | {key: told[key] for told in own for key in told}
    for name in given.keys() - {"to"} - {name for kind in to.to for name in KINDS[kind].options}:
        owners = [kind for kind, about in KINDS.items() if name in about.options]
        if given[name] != getattr(sf.ToOptions(), name):
            raise sf.SortFacesError(
                f"--{name.replace('_', '-')}: is an option of --to {' or '.join(owners)}; say both"
            )
    check_recognizer(exports, master.model, master.recognizer)
    return exports


def check_recognizer(kinds: Iterable[str], model: str, recognizer: str) -> None:
    """Refuse kinds that mean the embeddings of another recogniser."""
    for kind in kinds:
        means = KINDS[kind].recognizer if kind in KINDS else ""
        if not recognizer.startswith(means):
            raise sf.SortFacesError(
                f"--to {kind}: means embeddings of w600k_r50 (buffalo_l); these are of "
                f"{model} ({recognizer[:8] or 'not told'}) and would be somebody "
                f"else there; embed with --model buffalo_l, or leave {kind} out"
            )


def check_chain(crew: sf.Crew, to: Sequence[str]) -> None:
    """Refuse before the long work of `run` what its last step would: another recogniser."""
    kinds = [kind for kind in to if kind in KINDS and KINDS[kind].recognizer]
    if kinds:
        meta = crew.facts["meta"]
        check_recognizer(kinds, meta["model"], meta["recognizer"])


FILE_OPTIONS = {"clips", "genderage"}
BESIDE = {"clips": "people.json"}  # what lies beside the file of an option and belongs to it


def as_option(name: str, value: Any) -> dict[str, Any]:
    """An option as manifests keep it: a file by its absolute path and what it holds now."""
    if not isinstance(value, Path):
        return {name: sf.as_json(value)}
    sha = sf.sha_of_own(value)
    if not sha:
        raise sf.SortFacesError(f"--{name} {value}: not there; name a file")
    beside = sf.sha_of_own(value.with_name(BESIDE[name])) if name in BESIDE else ""
    more = {f"{name}_beside_sha256": beside} if beside else {}
    return {name: str(value.resolve()), f"{name}_sha256": sha, **more}


def as_now(options: dict[str, Any]) -> dict[str, Any]:
    """Options told earlier, with what their files hold now; as they are where those are gone."""
    told = dict(options)
    for name in FILE_OPTIONS & options.keys():
        if sf.sha_of_own(Path(options[name])):
            told.pop(f"{name}_beside_sha256", None)
            told |= as_option(name, Path(options[name]))
    return told


def decide(corpus: sf.Corpus, to: sf.ToOptions, off: Sequence[str]) -> sf.Decision:
    """What `bundle` does: which sets get other exports."""
    exports = wanted(corpus.master, to, off)
    known = {move.folder for move in corpus.repairs()}
    moves = [move for move in repairs(corpus, [], exports) if move.folder not in known]
    params = {"to": list(to.to), "off": list(off)}
    return sf.Decision(moves, params, exports=dict(exports))


# ============================================================================
# Following the corpus
# ============================================================================


def repairs(
    corpus: sf.Corpus, moves: Sequence[sf.Move], exports: Exports | None = None
) -> list[sf.Move]:
    """Moves that make anew what was made of other faces, under another name, or is gone.

    moves: what is done to sets anyhow. exports: what the corpus is to have; as it is.
    """
    busy, found = {move.folder for move in moves}, []
    for folder, faceset in corpus.active.items():
        fault = fault_of_set(corpus, faceset, exports) or first_missing(
            corpus.root / folder, faceset.manifest.exports
        )
        if fault and folder not in busy:
            found.append(sf.move_file("rebuild", folder, "", "", fault))
    told = told_of_all(corpus.root)
    fault = fault_of_all(corpus, exports) or first_missing(corpus.root / sf.EXPORTS_FOLDER, told)
    if fault:
        found.append(sf.move_file("rebuild", sf.EXPORTS_FOLDER, "", "", fault))
    return found


def first_missing(folder: Path, exports: Sequence[sf.Exported]) -> str:
    """Which exported file is not there, or ""."""
    files = (file for exported in exports for file in exported.files)
    return next((f"{file} is missing" for file in files if not (folder / file).is_file()), "")


def kinds_for(exports: Exports, scope: str) -> dict[str, dict[str, Any]]:
    """Those that have a writer `one` or `all`, with their options."""
    return {kind: told for kind, told in exports.items() if getattr(KINDS.get(kind), scope, "")}


def fault_of_set(corpus: sf.Corpus, faceset: sf.FaceSet, exports: Exports | None = None) -> str:
    """Why the exports of a face set are not what they should be, by its manifest, or ""."""
    manifest = faceset.manifest
    exports = corpus.master.exports if exports is None else exports
    expected = kinds_for(exports, "one") if manifest.faces else {}
    place = corpus.root.resolve() / faceset.folder
    facts = facts_of_set(manifest, label_of(faceset), place.parent)
    return fault_of(
        {kind: mark(kind, told, facts_for(kind, corpus, manifest, facts)) for kind, told in
         expected.items()}, manifest,
    )  # fmt: skip


def fault_of_all(corpus: sf.Corpus, exports: Exports | None = None) -> str:
    """Why what is written of all people is not what it should be, by its manifest, or ""."""
    exports = corpus.master.exports if exports is None else exports
    marks, told = marks_of_all(corpus, corpus.active, exports), told_of_all(corpus.root)
    fault = fault_of(marks, sf.ExportsManifest(files=[], exports=told))
    return fault or fault_beside(corpus, exports, told)


def fault_beside(corpus: sf.Corpus, exports: Exports, told: Sequence[sf.Exported]) -> str:
    """Why what was written beside the photos is not what it should be, or ""."""
    if exports.get("xmp", {}).get("xmp_beside") != "yes":
        return ""
    return seen_beside(corpus, told)


@once
def seen_beside(corpus: sf.Corpus, told: Sequence[sf.Exported]) -> str:
    """What is wrong beside the photos, each of which is looked at."""
    left = {photo: why for one in told if one.kind == "xmp" for photo, why in one.left.items()}
    return writer_of("consumers_xmp:fault_beside")(corpus, left)


def fault_of(marks: dict[str, str], manifest: sf.FacesetManifest | sf.ExportsManifest) -> str:
    """Why a manifest does not tell of just these kinds with these marks, or ""."""
    told = {exported.kind: exported.made_of for exported in manifest.exports}
    both = marks.keys() & told.keys()
    other = [kind for kind in both if not is_as_told(told[kind], marks[kind])]
    for kinds, why in (
        (marks.keys() - told.keys(), "not written yet"),
        (told.keys() - marks.keys(), "not wanted any more"),
        (other, "made of other faces, names or options"),
    ):
        if kinds:
            return f"{', '.join(sorted(kinds))}: {why}"
    return ""


def facts_of_set(manifest: sf.FacesetManifest, name: str, root: Path) -> tuple[str, str]:
    """(all that exports of a set are made of, where it lies), for marks."""
    faces = [sf.as_json(face) for face in manifest.faces]
    bundles = [sf.as_json(bundle) for bundle in manifest.bundles]
    return repr((manifest.id, name, manifest.recognizer, faces, bundles)), str(root)


def facts_for(
    kind: str, corpus: sf.Corpus, manifest: sf.FacesetManifest, facts: tuple[str, str]
) -> tuple[str, str, list[Any]]:
    """The same with what only this kind is made of."""
    return (*facts, [writer_of(more)(corpus, manifest) for more in KINDS[kind].facts])


def mark(kind: str, options: dict[str, Any], facts: tuple[str, str, list[Any]]) -> str:
    """Sixteen hex digits of all that an export is made of, and sixteen or UNKNOWN of what only
    this kind is made of."""
    what, where, more = facts
    about = (kind, KINDS[kind].version, sorted(options.items()), where * KINDS[kind].placed, what)
    own = "" if not more else UNKNOWN if None in more else digest(more)
    return digest(about) + own


def digest(about: Any) -> str:
    return hashlib.sha256(repr(about).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def is_as_told(told: str, now: str) -> bool:
    """Whether a mark is that of before; what is not known now, as without the cache, may be."""
    return told == now or (now.endswith(UNKNOWN) and told.startswith(now.removesuffix(UNKNOWN)))


def marks_of_all(
    corpus: sf.Corpus, active: Mapping[str, sf.FaceSet], exports: Exports
) -> dict[str, str]:
    """{kind: mark} of what is written of all people; active: the sets in use, by folder."""
    kinds, root = kinds_for(exports, "all"), corpus.root.resolve()
    active = with_faces(active)
    names = labels_of(active)
    what = digest([facts_of_set(one.manifest, names[at], root)[0] for at, one in active.items()])
    found = {}
    for kind, told in kinds.items() if active else ():
        parts = (facts_for(kind, corpus, one.manifest, ("", ""))[2] for one in active.values())
        found[kind] = mark(kind, told, (what, str(root), [fact for part in parts for fact in part]))
    return found


def with_faces(sets: Mapping[str, sf.FaceSet]) -> dict[str, sf.FaceSet]:
    """Those that are in use and have faces, by number."""
    return {
        folder: sets[folder]
        for folder in sorted(sets, key=sf.natural)
        if "/" not in folder and sets[folder].manifest.faces
    }


def label_of(faceset: sf.FaceSet) -> str:
    """What a face set is called where people are: its person's name, else its id."""
    return called(faceset.id, faceset.name)


def called(name_of_set: str, person: str) -> str:
    """The person's name in one line, the set's where it has none."""
    return name_of_set if person == sf.UNNAMED else " ".join(person.split())


def labels_of(active: Mapping[str, sf.FaceSet]) -> dict[str, str]:
    """{folder: label}, no two the same."""
    labels = told_apart((label_of(faceset), faceset.id) for faceset in active.values())
    return dict(zip(active, labels, strict=True))


def told_apart(named: Iterable[tuple[str, str]]) -> list[str]:
    """The names of (name, id), no two the same whatever their case: later ones get their id."""
    found: list[str] = []
    taken: set[str] = set()
    for name, own in named:
        if name.casefold() in taken:
            name = sf.first_free(f"{name} {own}", lambda text: text.casefold() in taken, " ", 2)
        taken.add(name.casefold())
        found.append(name)
    return found


# ============================================================================
# Writing
# ============================================================================


def export_set(
    stage: Path, record: sf.FacesetManifest, corpus: sf.Corpus, draft: sf.Draft
) -> sf.FacesetManifest:
    """Write the exports of a face set that is being built in `stage`; it with them."""
    label = called(record.id, sf.read_name(stage))
    place = corpus.root.resolve() / draft.folder
    subject = Subject(corpus, record, label, stage, place, corpus.root / draft.lies)
    facts = facts_of_set(record, label, place.parent)
    exports = [
        written(stage, kind, options, subject,
                mark(kind, options, facts_for(kind, corpus, record, facts)))
        for kind, options in kinds_for(corpus.master.exports, "one").items()
    ]  # fmt: skip
    return msgspec.structs.replace(record, exports=exports)


def export_corpus(run: sf.Run, corpus: sf.Corpus, after: Mapping[str, sf.FaceSet]) -> None:
    """Build what is written of all people, where that changes; after: the sets there will be."""
    tell_unwritten(one for at, one in after.items() if (run.folder / "stage" / at).is_dir())
    active = with_faces(after)
    exports = corpus.master.exports
    marks, here = marks_of_all(corpus, active, exports), corpus.root / sf.EXPORTS_FOLDER
    told = told_of_all(corpus.root)
    fault = fault_of(marks, sf.ExportsManifest(files=[], exports=told))
    if not (fault or any(file_faults(here, told)) or fault_beside(corpus, exports, told)):
        return
    if not marks and not sf.foreign_files(here) - {"manifest.json"}:
        run.clear(sf.EXPORTS_FOLDER)
        return
    stage, names = run.place(sf.EXPORTS_FOLDER), labels_of(active)
    subjects = []
    for at, one in active.items():
        place, built = corpus.root.resolve() / at, run.folder / "stage" / at
        now, earlier = built if built.is_dir() else place, here if here.is_dir() else None
        subjects.append(Subject(corpus, one.manifest, names[at], now, place, earlier))
    stage.mkdir(parents=True, exist_ok=True)
    good = {one.kind: one for one in told if is_good(here, one, marks.get(one.kind, ""))}
    if fault_beside(corpus, exports, told):
        good.pop("xmp", None)
    made = [
        taken_over(here, stage, good[kind])
        if kind in good
        else written(stage, kind, options, subjects, marks[kind])
        for kind, options in kinds_for(exports, "all").items()
        if kind in marks
    ]
    if made:
        head = {key: getattr(corpus.master, key) for key in HEAD}
        files = ["manifest.json", *(file for exported in made for file in exported.files)]
        manifest = sf.ExportsManifest(**head, files=files, exports=made)
        sf.write_file(stage / "manifest.json", manifest)
    if here.is_dir():
        sf.carry_over(here, stage)


def is_good(here: Path, told: sf.Exported, now: str) -> bool:
    """Whether what was written of all people is what it should be, by the mark it would have."""
    return is_as_told(told.made_of, now) and not any(file_faults(here, [told]))


def taken_over(here: Path, stage: Path, told: sf.Exported) -> sf.Exported:
    """The same as it is, in a folder that is being built: perhaps it could not be made now."""
    for file in told.files:
        sf.clone_or_copy(here / file, stage / file)
    return told


HEAD = ("created", "cache", "model", "recognizer", "rescans")


def written(
    stage: Path, kind: str, options: dict[str, Any], of: Subject | list[Subject], made_of: str
) -> sf.Exported:
    """Write one kind of one subject, or of all, below a folder that is being built."""
    alone = isinstance(of, Subject)
    below = f"{sf.EXPORTS_FOLDER}/{kind}" if alone else kind
    folder = stage / below
    left = writer_of(KINDS[kind].one if alone else KINDS[kind].all)(folder, of, options)
    if "" in left and not alone:
        sf.log.warning("%s of all: not written: %s", kind, left[""])
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    files = {path.relative_to(stage).as_posix(): sf.sha256_of_file(path) for path in found}
    sets = [of] if alone else of
    tops = [next(iter(sf.bundles_of(one.manifest))) for one in sets if KINDS[kind].averages]
    return sf.Exported(
        kind=kind, options=options, made_of=made_of, averaged=tops if files else [],
        files=files, left=left,
    )  # fmt: skip


SHOWN = 3  # sets that a line names


def tell_unwritten(sets: Iterable[sf.FaceSet]) -> None:
    """Say of each kind and reason once for which of these sets nothing is written."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for faceset in sets:
        for exported in faceset.manifest.exports:
            if "" in exported.left:
                found[exported.kind, exported.left[""]].append(faceset.id)
    for (kind, why), ids in found.items():
        names = ", ".join([*ids[:SHOWN], *["..."] * (len(ids) > SHOWN)])
        sf.log.info("%s: not written of %d sets (%s): %s", kind, len(ids), names, why)


def overview(corpus: sf.Corpus) -> list[dict[str, Any]]:
    """How many sets have each kind, and why the first that has none of it does not."""
    rows = []
    told = [one for faceset in corpus.active.values() for one in faceset.manifest.exports]
    told_all = told_of_all(corpus.root)
    for kind in corpus.master.exports:
        some = [one for one in (*told, *told_all) if one.kind == kind]
        reasons = [why for one in some for why in one.left.values()]
        row = {
            "kind": kind,
            "sets": sum(one.kind == kind and bool(one.files) for one in told),
            "files": sum(len(one.files) for one in some),
            "left_out": len(reasons),
            "because": reasons[0] if reasons else "",
        }
        rows.append(row)
    return rows


# ============================================================================
# Verifying
# ============================================================================


def told_of_all(root: Path) -> list[sf.Exported]:
    """What was written of all people, by its manifest."""
    manifest = sf.read_if_sound(root / sf.EXPORTS_FOLDER / "manifest.json", sf.ExportsManifest)
    return manifest.exports if manifest else []


def file_faults(folder: Path, exports: Sequence[sf.Exported]) -> Iterator[tuple[str, str]]:
    """(file, what is wrong with it) of exported files below a folder."""
    for exported in exports:
        for file, sha in exported.files.items():
            now = sf.sha_of_own(folder / file)
            if now != sha:
                yield file, "is not as it was written" if now else "is missing"


def findings(corpus: sf.Corpus) -> sf.Findings:
    """What is wrong with the exports of a corpus: missing, changed, foreign, or of before."""
    for folder, faceset in corpus.sets.items():
        move = sf.move_file("rebuild", folder, "", "", "verify")
        for file, why in file_faults(corpus.root / folder, faceset.manifest.exports):
            yield sf.Finding(faceset.id, file, "export", why), move
        fault = "" if faceset.shelf else fault_of_set(corpus, faceset)
        if fault:
            yield sf.Finding(faceset.id, sf.EXPORTS_FOLDER, "export", fault), move
    here, move = (
        corpus.root / sf.EXPORTS_FOLDER,
        sf.move_file("rebuild", sf.EXPORTS_FOLDER, "", "", "verify"),
    )
    for file, why in file_faults(here, told_of_all(corpus.root)):
        yield sf.Finding("", f"{sf.EXPORTS_FOLDER}/{file}", "export", why), move
    fault = fault_of_all(corpus)
    if fault:
        yield sf.Finding("", sf.EXPORTS_FOLDER, "export", fault), move
    for file in sorted(sf.foreign_files(here)):
        place = f"{sf.EXPORTS_FOLDER}/{file}"
        yield sf.Finding("", place, "unknown file", "no manifest knows it"), None
