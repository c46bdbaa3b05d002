"""HTML pages for a person to look at: what sort_faces.py has made or decided.

sort_faces.py loads this file for the commands that show something, and decides what is shown;
each of them calls one function here:

    report            report_pages      every face of an output, and what was left out and why
    occlusion report  occlusion_pages   every face by its score, with the threshold drawn
    consolidate       review_pages      pairs of face sets that are nearly the same person

Pages are static files that fetch nothing, with a thumbnail (a Picture) per face or frame. They lie
in a PageFolder, which knows its own files: a run cut short is finished by the next, and what is
no longer shown goes. Templates, style and script are in work/pages/; Jinja escapes every value.

Contents
    Pictures and cards
    Folders of pages
    Occluded faces
    Pairs of face sets
    Report: what is shown
    Report: its pages
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path, PurePath, PurePosixPath
from typing import Any
from urllib.parse import quote

import cv2
import jinja2
import numpy as np

import sort_faces as sf

# ============================================================================
# Pictures and cards
# ============================================================================

PAGE_THUMBNAIL = 192  # px; longer edge; what a card shows, and a little more for dense screens
PAGE_PAD = 0.25  # of the face box, around a face cut from its photo; chosen: hair and chin
THUMBS = "thumbs"


@dataclass(frozen=True)
class Picture:
    """A thumbnail and what it shows."""

    thumb: str = ""  # its file in a page folder, named by what it shows; "" without a picture
    source: Any = None  # what is read once for all its parts: (path, sha256 or None) of a photo
    part: Any = None  # of a photo: the box (4,) of a face in it, None shows all; of a video: Seen


@dataclass(frozen=True)
class Card:
    """A picture with its facts, as cards.html shows them in a grid.

    The page gets a button per flag; pressed, it leaves the cards with that flag.
    """

    title: str
    picture: Picture = Picture()
    link: str = ""  # where a click on the picture leads
    lines: Sequence[str] = ()
    facts: str = ""  # a line each; behind the caption, for who asks
    flags: Sequence[str] = ()  # words without |
    rule: str = ""  # text of a line drawn across the page before this card: a threshold


def flag_counts(cards: Iterable[Card]) -> list[tuple[str, int]]:
    """(flag, cards that have it), the most frequent first; "" stands for cards without any."""
    return Counter(flag for card in cards for flag in card.flags or ("",)).most_common()


def thumb_name(name: str, shows: str) -> str:
    """File of the thumbnail of a face: another one when it `shows` something else."""
    mark = sf.path_mark(f"{PAGE_THUMBNAIL} {PAGE_PAD} {shows}")
    return f"{THUMBS}/{sf.safe_dst_name(name)}-{mark}.jpg"


def png_picture(name: str, path: Path) -> Picture:
    """The PNG of an exported face; no picture where it is gone."""
    if not path.is_file():
        return Picture()
    facts = path.stat()
    return Picture(thumb_name(name, f"{facts.st_size} {facts.st_mtime_ns}"), (str(path), None))


def faceset_picture(corpus: sf.Corpus, faceset: sf.FaceSet, face: sf.Face) -> Picture:
    """An exported face on a page."""
    return png_picture(face.face, corpus.root.resolve() / faceset.folder / face.file)


Drawing = Callable[[Any, dict[str, Any]], Iterable[tuple[str, np.ndarray]]]
# Pictures of a source and {thumbnail: part of it}: (thumbnail, picture) as far as they can be made.


def photo_parts(
    source: tuple[str, str | None], parts: dict[str, np.ndarray | None]
) -> Iterator[tuple[str, np.ndarray]]:
    """(thumbnail, picture of its face box or of all) from one photo, if that can be read."""
    path, sha256 = source
    try:
        photo = sf.read_photo(path, sha256)
    except sf.PhotoError as error:
        sf.log.warning("%s: %s", path, error)
        return
    for name, box in parts.items():
        image = photo.image
        if box is not None:
            image = photo.cut(sf.crop_square(box, photo.wh, PAGE_PAD), PAGE_THUMBNAIL)
        yield name, image


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) uint8, at most PAGE_THUMBNAIL px each way."""
    scale = min(1.0, PAGE_THUMBNAIL / max(image.shape[:2]))
    wh = [max(1, round(length * scale)) for length in image.shape[1::-1]]
    return cv2.resize(image, wh, interpolation=cv2.INTER_AREA)


def write_thumbnail(path: Path, image: np.ndarray) -> None:
    """Write the thumbnail of a picture (h, w, 3) uint8 BGR as a JPEG."""
    small = thumbnail(image)
    with sf.writing(path, sync=False) as part:  # a torn one would be taken for finished
        part.write_bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())


# ============================================================================
# Folders of pages
# ============================================================================

Next = tuple[str, str]  # what for, and the command line to paste
PAGE_FILE = re.compile(rf"{THUMBS}/(\w+/)?[^/\\]+\.jpg|[^/\\]+\.html")  # all that is removed
OUR_PAGE = re.compile(rb'<!DOCTYPE html>\n<html lang="en">\n(?:<meta [^>]*>\n)+<title>')
OLD_PAGE = re.compile(  # begins the pages of version 0.1.0, which wrote no manifest beside them
    rb'<!DOCTYPE html>\n<html lang="en">\n(?:<meta [^>]*>\n)+'
    rb"<title>(?:Occluded faces|Nearly the same person|Segments with a usable face)</title>"
)
OLD_THUMB = re.compile(rf"{THUMBS}/(?:[0-9a-f]{{16}}|[0-9a-f]{{16}}/-?\d+)\.jpg")


class PageList(sf.OwnFile, tag="report", kw_only=True):
    """manifest.json of a folder of pages: whose the folder is, and which of its files."""

    of: str = ""  # what the pages show
    created: str = ""
    files: list[str]  # paths within the folder


@functools.cache
def page_templates() -> Any:
    """The Jinja environment of work/pages."""
    loader = jinja2.FileSystemLoader(sf.part_of_work("pages"))
    env = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    env.filters |= {"flag_counts": flag_counts, "clock": sf.clock}
    return env


class PageFolder:
    """A folder of pages and thumbnails; files that are not in its manifest are never touched.

    `page_folder` opens one, `start` names all files and makes thumbnails, `write` writes a page.
    Each page ends with the `commands` that come next.
    """

    def __init__(self, path: Path, of: Path, commands: Sequence[Next] = ()) -> None:
        self.path, self.of, self.commands = path.resolve(), str(of.resolve()), commands
        self.before = files_of_pages(path)
        self.files: list[str] = []
        self.have: set[str] = set()  # thumbnails that are there
        self.templates = page_templates()

    def start(
        self,
        files: Sequence[str],
        pictures: Iterable[Picture],
        threads: int = 1,
        draw: Drawing = photo_parts,
    ) -> int:
        """Make the thumbnails that are not there yet, reading each source once; returns how many.

        `files` are all others that will be written. A killed run goes on where it was, and the
        pages of the run before work until the new ones are there.
        """
        thumbs = {picture.thumb: picture for picture in pictures if picture.thumb}
        self.files = [*files, *sorted(thumbs)]
        self.save_list(sorted({*self.before, *self.files}))
        jobs: dict[Any, dict[str, Any]] = defaultdict(dict)
        for name, picture in thumbs.items():
            file = self.path / name
            if file.is_file() and file.stat().st_size:
                self.have.add(name)
            elif picture.source:
                jobs[picture.source][name] = picture.part
        before = len(self.have)
        work = functools.partial(self.make_thumbnails, draw)
        made = sf.ordered_map(work, jobs.items(), threads)
        for names in sf.progress(made, len(jobs), "thumbnails"):
            self.have.update(names)
        return len(self.have) - before

    def make_thumbnails(self, draw: Drawing, job: tuple[Any, dict[str, Any]]) -> list[str]:
        """Write the thumbnails of one source; returns those that could be made."""
        names = []
        for name, image in draw(*job):
            write_thumbnail(sf.place_in(self.path, name), image)
            names.append(name)
        return names

    def shown(self, picture: Picture) -> str:
        """Link to a thumbnail, "" where there is none."""
        return quote(picture.thumb) if picture.thumb in self.have else ""

    def link(self, target: Path | str) -> str:
        """Link to a file (absolute) from these pages: relative and percent-encoded."""
        try:
            relative = os.path.relpath(target, self.path)
        except ValueError:  # another drive
            return Path(target).as_uri()
        return quote(os.fsencode(relative.replace(os.sep, "/")))

    def source_link(self, picture: Picture) -> str:
        """Link to the file a picture was made from, "" where there is none.

        A film opens at the frame: W3C Media Fragments URI 1.0, section 4.2.1.
        """
        if not picture.source:
            return ""
        frame = sf.FRAME_PATH.fullmatch(str(picture.source[0]))
        return f"{self.link(frame[1])}#t={frame[3]}" if frame else self.link(picture.source[0])

    def write(self, name: str, template: str, title: str, **values: Any) -> None:
        """Write one page; `values` and this folder as `pages` are what its template can show."""
        page = self.templates.get_template(template).render(title=title, pages=self, **values)
        sf.write_bytes(self.path / name, page.encode("utf-8", "backslashreplace"))

    def save_list(self, files: list[str]) -> None:
        record = PageList(of=self.of, created=sf.now_text(), files=files)
        sf.write_file(self.path / "manifest.json", record)

    def finish(self) -> None:
        """Remove what earlier runs wrote and the pages no longer show."""
        for file in {*self.before} - {*self.files}:
            path = sf.place_in(self.path, file) if PAGE_FILE.fullmatch(file) else None
            if path is not None and path.is_file() and is_ours(path):
                path.unlink()
                sf.remove_empty(path.parent)
        self.save_list(self.files)


def to_paste(*words: object) -> str:
    """A command line for a page, which is read later and anywhere: its paths are absolute."""
    full = (word.resolve() if isinstance(word, Path) else word for word in words)
    return sf.own_command(*full, anywhere=True)


def options_of(params: Any) -> list[object]:
    """The words of a dataclass of options that say what its defaults do not."""
    defaults = type(params)()
    names = [item.name for item in fields(params)]
    told = [(name, getattr(params, name)) for name in names]
    changed = [pair for pair in told if pair[1] != getattr(defaults, pair[0])]
    return [word for name, value in changed for word in (f"--{name.replace('_', '-')}", value)]


def is_ours(path: Path) -> bool:
    """Whether a file is one of our pages or thumbnails, whatever a manifest says of it."""
    data = path.read_bytes()
    if path.suffix == ".html" or not data:  # an empty one is of a machine that went down
        return not data or OUR_PAGE.match(data[:1000]) is not None
    with contextlib.suppress(sf.PhotoError):
        return max(sf.decode_photo(data).wh) <= PAGE_THUMBNAIL
    return False


@contextlib.contextmanager
def page_folder(
    out: Path, of: Path, roots: Sequence[str] = (), commands: Sequence[Next] = ()
) -> Iterator[PageFolder]:
    """Hold a folder while its pages are written.

    of: what they show; commands: what comes next. Raises SortFacesError for a folder of others or
    one inside the `roots`.
    """
    sf.check_place(out, roots)
    pages = PageFolder(out, of, commands)
    sf.make_folder(out)
    with sf.locked(out / sf.LOCK_NAME, str(out)):
        sf.remove_unfinished(out)
        yield pages
        pages.finish()


def files_of_pages(out: Path) -> list[str]:
    """What earlier runs wrote into a folder. Raises SortFacesError where others' files lie."""
    manifest, index = out / "manifest.json", out / "index.html"
    if manifest.exists():
        known = sf.read_if_sound(manifest, PageList)
        if known is None:
            what = f"is no report manifest of {sf.TOOL}; move it away or choose another folder"
            raise sf.SortFacesError(f"{manifest}: {what}")
        return known.files
    found = (file.relative_to(out).as_posix() for file in out.glob(f"{THUMBS}/**/*.jpg"))
    old = [file for file in found if OLD_THUMB.fullmatch(file)]
    names = os.listdir(out) if out.is_dir() else []
    names = [name for name in names if not name.startswith((sf.LOCK_NAME, sf.PART_PREFIX))]
    begun = names == [THUMBS] and old
    finished = index.is_file() and OLD_PAGE.match(index.read_bytes()[:1000])
    if names and not begun and not finished:
        raise sf.SortFacesError(f"{out}: holds other files; name a new or empty folder")
    return old


# ============================================================================
# Occluded faces
# ============================================================================


def occlusion_pages(
    corpus: sf.Corpus, scores: sf.OcclusionScores, rules: sf.VerdictRules, out: Path, threads: int
) -> dict[str, Any]:
    """Write the verdict per set and, per attribute, every face sorted by score."""
    rows, faces = [], []
    for faceset in corpus.active.values():
        values = scores.of(faceset)
        flagged = values >= rules.threshold
        verdict, _ = sf.occlusion_verdict(flagged, rules.dominance, rules.min_survivors)
        counts = dict(zip(sf.ATTRIBUTES, flagged.sum(axis=0).tolist(), strict=True))
        about = {"id": faceset.id, "name": faceset.name, "faces": len(faceset.faces)}
        rows.append({**about, **counts, "verdict": verdict})
        for face, row in zip(faceset.faces, values, strict=True):
            lines = (faceset.id, PurePosixPath(face.file).name)
            faces.append((row, lines, faceset_picture(corpus, faceset, face)))
    files = {name: f"{name}.html" for name in sf.ATTRIBUTES}
    chosen = options_of(replace(rules, scores=scores.name))
    apply = to_paste("occlusion", "apply", corpus.root, *chosen)
    after = [("Set aside what is occluded here (restore brings it back)", apply)]
    with page_folder(out, corpus.root, [str(corpus.root.resolve())], after) as pages:
        pages.start(["index.html", *files.values()], [face[-1] for face in faces], threads)
        for at, (name, file) in enumerate(files.items()):
            ranked = sorted(faces, key=lambda face: -face[0][at])
            cards = [
                Card(f"{row[at]:.3f}", shows, pages.source_link(shows), lines)
                for row, lines, shows in ranked
            ]
            above = sum(row[at] >= rules.threshold for row, _, _ in faces)
            if above < len(cards):
                cards[above] = replace(cards[above], rule=f"threshold {rules.threshold}")
            links, parts = [("all face sets", "index.html")], [("", "", cards)]
            pages.write(file, "cards.html", f"Faces by {name}", links=links, parts=parts)
        about = {"rows": rows, "scores": scores.name, "threshold": rules.threshold}
        pages.write("index.html", "occlusion.html", "Occluded faces", files=files, **about)
    look_at = str(out / "index.html")
    told = {"out": str(out), "scores": scores.name, "faces": len(faces)}
    return {**told, "facesets": rows, "look_at": look_at}


# ============================================================================
# Pairs of face sets
# ============================================================================

REVIEW_FACES = 8  # best faces of each set on the contact sheet


def review_pages(
    corpus: sf.Corpus,
    pairs: Sequence[sf.AlmostPair],
    answers: Path,
    threads: int,
    chosen: Sequence[object],
) -> None:
    """Show the best faces of each pair beside `answers`, the pairs.json a person answers in.

    Two people are two rows. chosen: as of sf.chosen_again.
    """
    shown = {
        faceset.id: [faceset_picture(corpus, faceset, f) for f in faceset.faces[:REVIEW_FACES]]
        for pair in pairs
        for faceset in (pair.a, pair.b)
    }
    accept = to_paste("consolidate", corpus.root, "--accept", answers, *chosen)
    after = [("When the answers are written", accept)]
    with page_folder(answers.parent, corpus.root, [str(corpus.root.resolve())], after) as pages:
        pictures = [picture for row in shown.values() for picture in row]
        pages.start(["index.html", answers.name], pictures, threads)
        about = {
            "pairs": pairs,
            "shown": shown,
            "answers": answers.resolve(),
            "unnamed": sf.UNNAMED,
        }
        pages.write("index.html", "review.html", "Nearly the same person", **about)


# ============================================================================
# Report: what is shown
# ============================================================================

REPORT_PARTS = {  # lists of a swap-ready manifest, and the heading each gets
    "facesets": "",
    "masked": "Set aside: masked",
    "thin_eras": "Set aside: too few faces left",
    "merged": "Merged into other sets",
}


@dataclass(frozen=True)
class ShownFace:
    """One face of a report."""

    facts: dict[str, Any]  # face_entry with its quality terms; what is not known is not there
    picture: Picture  # of its PNG, or of what the cache's photo shows of it
    missing: bool  # the file it should be is not there

    def number(self, key: str) -> float:
        return number_of(self.facts.get(key))


@dataclass(frozen=True)
class ShownGroup:
    """A person, a face set, or what else gets a page of its own."""

    id: str
    name: str  # the operator's, or UNNAMED
    part: str  # heading it stands under; "" for the persons
    note: str  # why it was set aside, or what is wrong with it
    faces: list[ShownFace]  # in rank order
    dropped: list[ShownFace]
    purity: dict[str, Any] = field(default_factory=dict)  # what refine said, see Purity

    @property
    def title(self) -> str:
        return self.id if self.name == sf.UNNAMED else self.name

    @property
    def facts(self) -> list[str]:
        """Id, size, spread and note, in words."""
        distance = np.array([face.number("distance") for face in self.faces])
        distance = distance[np.isfinite(distance)]
        facts = [self.id] * (self.title != self.id)
        facts.append(f"{len(self.faces)} face{'s' * (len(self.faces) != 1)}")
        if len(distance):
            facts.append(f"spread {distance.mean():.2f} · max {distance.max():.2f}")
        return facts + [self.note] * bool(self.note) + self.doubts

    @property
    def verdict(self) -> str:
        """What refine found doubtful about the set, as a flag; "" if nothing."""
        verdict = self.purity.get("verdict")
        return str(verdict) if verdict not in (None, "", "clean") else ""

    @property
    def doubts(self) -> list[str]:
        """Why, in words."""
        why = self.purity.get("why")
        return (
            [f"{self.verdict}: {reason}" for reason in why]
            if self.verdict and isinstance(why, list)
            else []
        )


@dataclass(frozen=True)
class ReportRun:
    """One report: what it is about, and where it goes."""

    path: Path
    manifest: dict[str, Any]
    library: sf.Library | None
    pages: PageFolder
    dated: bool = True  # whether any face is: where none is, that is no news of one

    @property
    def swap(self) -> bool:
        return self.manifest["kind"] == "swap"

    def face(self, entry: dict[str, Any], folder: Path | None = None) -> ShownFace:
        """Find the picture of a face: its PNG in a face set, else the photo the cache knows."""
        name, file = str(entry.get("face") or entry.get("file")), entry.get("file")
        png = below(folder, file) if folder is not None and isinstance(file, str) else None
        picture = png_picture(name, png) if png is not None else Picture()
        missing = file is not None and not picture.thumb
        if not picture.thumb and self.library and name in self.library.cache.row_of_face:
            cache = self.library.cache
            row = cache.row_of_face[name]
            photo, box = int(cache.face_file[row]), cache.bbox[row]
            path = self.library.live_path(photo)
            source = (path, str(cache.file_sha256[photo])) if path else None
            picture = Picture(thumb_name(name, str(box.tolist())), source, box)
            missing |= not self.swap and not path
        terms = entry["terms"] if isinstance(entry.get("terms"), dict) else {}
        facts = {**terms, **entry, "pixels": short_edge(entry.get("bbox"))}
        return ShownFace(facts, picture, missing)

    def is_missing(self, face: ShownFace) -> bool:
        """Whether a face's file is gone or cannot be read."""
        unreadable = "reason" not in face.facts and face.picture.thumb not in self.pages.have
        return face.missing or unreadable


def read_tree(path: Path) -> dict[str, Any]:
    """The manifest of an output tree, whatever its kind."""
    for tree in (sf.RefinedManifest, sf.SwapManifest, sf.RawManifest):
        kind, file = sf.tag_of(tree), path / tree.FILE
        groups = "persons" if tree is sf.RawManifest else "facesets"
        if file.is_file() and re.search(f'"kind":\\s*"{kind}"'.encode(), file.read_bytes()):
            manifest = read_loosely(file, kind, groups)
            if manifest:
                return manifest
            raise sf.SortFacesError(f"{file}: is damaged; run the step that writes it again")
    trees = [name for name in sf.RUN_TREES.values() if (path / name).is_dir()]
    hint = f"one of its folders {', '.join(trees)}" if trees else "a folder with a manifest"
    raise sf.SortFacesError(
        f"{path}: no raw, refined or swap-ready output of {sf.TOOL}; name {hint}"
    )


def read_loosely(path: Path, kind: str, groups: str) -> dict[str, Any]:
    """A manifest with a list of `groups`, whatever a person made of the rest; {} without one."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        value = json.loads(path.read_text(encoding="utf-8"))
        ours = isinstance(value, dict) and (value.get("tool"), value.get("kind")) == (sf.TOOL, kind)
        return value if ours and isinstance(value.get(groups), list) else {}
    return {}


def entries_of(value: Any) -> list[dict[str, Any]]:
    """The objects in a list of a JSON file, whatever a person has made of it."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def report_library(path: Path, manifest: dict[str, Any], cache: Path | None) -> sf.Library | None:
    """The cache an output was made from; a swap-ready one can be shown without."""
    kind, given = manifest["kind"], cache or Path(str(manifest.get("cache")))
    try:
        if cache is None and not manifest.get("cache"):
            raise sf.SortFacesError(f"{path}: its manifest names no cache; name it with --cache")
        library = sf.Library(sf.load_cache(given), given)
        meta = library.cache.meta
        made = (meta.recognizer, meta.rescans)
        if kind != "swap":
            tree = sf.RawManifest if kind == "raw" else sf.RefinedManifest
            sf.load_manifest(path / tree.FILE, tree, library.cache)
        elif made != (manifest.get("recognizer"), manifest.get("rescans") or 0):
            raise sf.SortFacesError(
                f"{given}: is not the cache as it was at the export; export again"
            )
        return library
    except sf.SortFacesError as error:
        if cache is not None or kind != "swap":
            raise
        sf.log.warning("faces left out are shown without a picture: %s", error)
        return None


def below(folder: Path, relative: str) -> Path | None:
    """A path inside a folder, None where the text (of a hand-edited manifest) leads out of it."""
    path = PurePath(relative)
    return None if path.is_absolute() or ".." in path.parts else folder / path


def number_of(value: Any) -> float:
    """A number of a manifest, NaN where there is none."""
    return float(value) if isinstance(value, (int, float)) else math.nan


def short_edge(box: Any) -> float:
    """Short edge in pixels of the face box in a manifest, NaN where there is none."""
    corners = [number_of(value) for value in box] if isinstance(box, list) else []
    return min(corners[2] - corners[0], corners[3] - corners[1]) if len(corners) == 4 else math.nan


def as_object(value: Any) -> dict[str, Any]:
    """An object of a manifest, {} where there is none."""
    return value if isinstance(value, dict) else {}


def cached_groups(run: ReportRun) -> list[ShownGroup]:
    """The persons of a raw or the face sets of a refined tree, best faces first."""
    manifest, terms = run.manifest, sf.cached_quality_terms(run.library.cache)
    groups = [
        cached_group(run, entry["id"], "", entry["faces"], terms, entry.get("purity"))
        for entry in manifest.get("persons", manifest.get("facesets", []))
    ]
    if singles := manifest.get("singletons"):
        groups.append(cached_group(run, "_singletons", "Faces that are alone", singles, terms))
    return groups


def cached_group(
    run: ReportRun,
    name: str,
    part: str,
    ids: list[str],
    terms: np.ndarray,
    purity: Any = None,
) -> ShownGroup:
    """A group of cached faces by rank; with a heading of its own it is no person.

    terms: quality terms (n, 7) of every face of the cache.
    """
    cache = run.library.cache
    rows = sf.rows_of_faces(cache, ids)
    unit = cache.unit[rows]
    distance = np.full(len(rows), np.nan) if part else 1.0 - unit @ sf.centroid(unit)
    quality = sf.composite_quality(terms[rows], sf.QualityWeights())
    faces = []
    for at in np.argsort(-quality, kind="stable"):
        row, file = rows[at], cache.face_file[rows[at]]
        entry = {  # a face_entry from the cache alone
            **sf.told_terms(terms[row], sf.QualityWeights()),
            "face": cache.face_ids[row],
            "source": str(cache.file_path[file]),
            "bbox": cache.bbox[row].tolist(),
            "taken": float(cache.file_taken[file]),
            "taken_kind": str(cache.file_taken_kind[file]),
            "taken_precision": str(cache.file_taken_precision[file]),
            "quality": float(quality[at]),
            "distance": float(distance[at]),
        }
        faces.append(run.face(entry))
    folder = below(run.path, name)
    there = folder is not None and folder.is_dir()
    note = "" if there or part else "its folder is missing"
    title = sf.read_name(folder) if there else sf.UNNAMED
    return ShownGroup(name, title, part, note, faces, [], as_object(purity))


def swap_groups(run: ReportRun) -> list[ShownGroup]:
    """The face sets of a swap-ready corpus, those set aside, and the candidates."""
    groups = [
        swap_group(run, entry, part)
        for key, part in REPORT_PARTS.items()
        for entry in entries_of(run.manifest.get(key))
    ]
    candidates: dict[str, list[ShownFace]] = defaultdict(list)
    folder = run.path / "_candidates"
    manifest = read_loosely(folder / "manifest.json", "candidates", "faces")
    for entry in entries_of(manifest.get("faces")):
        at = PurePosixPath(str(entry.get("file"))).parent
        candidates[f"_candidates/{at}"].append(run.face(entry, folder))
    for name, faces in candidates.items():
        groups.append(ShownGroup(name, sf.UNNAMED, "Candidates", "", faces, []))
    return groups


def swap_group(run: ReportRun, entry: dict[str, Any], part: str) -> ShownGroup:
    """A face set as its own manifest and folder have it."""
    name = str(entry.get("folder") or entry.get("id") or "?")
    folder, note = below(run.path, name), str(entry.get("reason") or "")
    manifest = read_loosely(folder / "manifest.json", "faceset", "faces") if folder else {}
    faces, dropped = entries_of(manifest.get("faces")), entries_of(manifest.get("dropped"))
    if folder is None or not folder.is_dir():
        folder, note = run.path, "its folder is missing"
    elif not manifest:
        note = "its manifest is missing or damaged"
    if not manifest:  # each face's own file is then unknown, and so missing
        ids = entry.get("faces")
        faces = [{"face": face, "file": ""} for face in ids] if isinstance(ids, list) else []
    known = {str(item.get("file")) for item in [*faces, *dropped]}
    pngs = [*sorted(folder.glob("faces/*.png")), *sorted(folder.glob(f"{sf.DROPPED}/*.png"))]
    found = [png.relative_to(folder).as_posix() for png in pngs]
    dropped += [{"file": file, "reason": "in no manifest"} for file in found if file not in known]
    shown, left_out = ([run.face(item, folder) for item in items] for items in (faces, dropped))
    purity = as_object(manifest.get("purity"))
    return ShownGroup(name, sf.read_name(folder), part, note, shown, left_out, purity)


# ============================================================================
# Report: its pages
# ============================================================================

REPORT_FACES = 5000  # on one page; it opens in well under 2 seconds (tests/bench/bench_report.py)
REPORT_FRONTAL = 0.5  # frontality of a face turned by 45 degrees
REPORT_SHARE = 0.5  # of a group's faces that makes a flag one of the group
REPORT_GRAVE = ("missing", "far")  # flags of a group that has them on one face
REPORT_FACTS = (  # of a face, in the order they are told
    *("quality", "distance", "value", "pad", *sf.QUALITY_TERMS, "pixels"),
    *("taken", "taken_kind"),
    *("kept_because", "reason", "run", "file", "source", "face"),
)
REASON_DETAIL = re.compile(r" \(|: | \d+\.\d")  # what follows differs from face to face


def report_pages(path: Path, out: Path, cache: Path | None, threads: int) -> dict[str, Any]:
    """Write the report of an output tree; returns the counts."""
    manifest = read_tree(path)
    library = report_library(path, manifest, cache)
    roots = library.cache.meta.roots if library is not None else []
    after = after_tree(path.resolve(), manifest["kind"], library)
    with page_folder(out, path, [str(path.resolve()), *roots], after) as pages:
        run = ReportRun(path.resolve(), manifest, library, pages)
        groups = swap_groups(run) if run.swap else cached_groups(run)
        faces = (face for group in groups for face in (*group.faces, *group.dropped))
        dated = any(date_text(face.facts.get("taken")) for face in faces)
        return write_report(replace(run, dated=dated), groups, threads)


def after_tree(path: Path, kind: str, library: sf.Library | None) -> list[Next]:
    """What comes after an output tree: the next tree, or a look at it where it is there."""
    trees, folders = list(map(sf.tag_of, sf.RUN_TREES)), list(sf.RUN_TREES.values())
    if kind == trees[-1] or library is None:
        merge = to_paste("consolidate", path, "--dry-run")
        return [("Find sets that are one person", merge)]
    at = trees.index(kind) + 1
    out = path.with_name(folders[at])
    if path.name != folders[at - 1]:
        out = sf.beside(path, "-refined" if at == 1 else "-ready")
    if out.is_dir():
        return [("Look at what was made of it", to_paste("report", out))]
    if at == 1:
        return [("Make face sets of these persons", to_paste("refine", library.path, out))]
    words = (library.path, path / sf.RefinedManifest.FILE, out)
    return [("Cut the faces for face-swap programs", to_paste("export-swap", *words))]


def write_report(run: ReportRun, groups: Sequence[ShownGroup], threads: int) -> dict[str, Any]:
    """Bring the pages to what the groups say; returns the counts."""
    persons = [group for group in groups if not group.part]
    faces = [face for group in groups for face in group.faces]
    shown = [*faces, *(face for group in groups for face in group.dropped)]
    pages = plan_pages(groups)
    files = ["index.html", *pages]
    made = run.pages.start(files, [face.picture for face in shown], threads)
    for before, file, after in zip(["", *pages], pages, [*pages, ""][1:], strict=False):
        links = [("all", "index.html"), ("previous", before), ("next", after)]
        write_group(run, file, *pages[file], [link for link in links if link[1]])
    write_index(run, groups, {id(group): file for file, (group, at) in pages.items() if not at})
    return {
        "out": str(run.pages.path),
        "pages": len(files),
        "identities": len(persons),
        "faces": sum(len(group.faces) for group in persons),
        "faces_elsewhere": sum(len(group.faces) for group in groups if group.part),
        "left_out": len(shown) - len(faces),
        "thumbnails": len(run.pages.have),
        "thumbnails_made": made,
        "missing": sum(run.is_missing(face) for face in shown),
        "look_at": str(run.pages.path / "index.html"),
    }


def plan_pages(groups: Sequence[ShownGroup]) -> dict[str, tuple[ShownGroup, int]]:
    """{file name: (group, its first face on this page)}; large groups get several pages."""
    pages: dict[str, tuple[ShownGroup, int]] = {}
    taken = {"index"}
    for group in groups:
        for start in range(0, max(len(group.faces), 1), REPORT_FACES):
            stem = sf.safe_dst_name(group.id) or "set"
            stem = sf.first_free(stem, lambda name: name.casefold() in taken, "-", 2)
            taken.add(stem.casefold())
            pages[f"{stem}.html"] = group, start
    return pages


def face_flags(run: ReportRun, face: ShownFace) -> list[str]:
    """What a person should look at twice; of a face left out, why it was."""
    if "reason" in face.facts:
        words = REASON_DETAIL.split(str(face.facts["reason"]))[0].replace("|", "/")
        return [words] + ["missing"] * face.missing
    params = run.manifest.get("params")
    params = params if isinstance(params, dict) else {}
    pad = number_of(params.get("pad_ratio"))
    sharp = sf.RefineParams.min_blur / (sf.RefineParams.min_blur + sf.HALF_SHARP_BLUR)
    small = params.get("min_face_short" if run.swap else "min_short", sf.RefineParams.min_short)
    far = sf.thresholds_for(str(run.manifest.get("model"))).merge
    tests = {  # every comparison with NaN is false
        "missing": run.is_missing(face),
        "far": face.number("distance") > far,
        "small": face.number("pixels") < number_of(small),
        "blurred": face.number("sharpness") < sharp,
        "low score": face.number("det_score") < sf.RefineParams.min_det_score,
        "turned": face.number("frontality") < REPORT_FRONTAL,
        "cut tight": face.number("pad") < pad,
        "neighbours painted": face.facts.get("neighbours_painted") is True,
        "undated": run.dated and "taken" in face.facts and not date_text(face.facts["taken"]),
    }
    return [flag for flag, is_so in tests.items() if is_so]


def date_text(taken: Any, precision: Any = "") -> str:
    """The day of a capture time in seconds, or the month or year if no more is known; "" if not."""
    with contextlib.suppress(ValueError, OverflowError):
        day = f"{sf.EPOCH + timedelta(seconds=number_of(taken)):%Y-%m-%d}"
        return day[: {"year": 4, "month": 7}.get(str(precision))]
    return ""


def face_card(run: ReportRun, face: ShownFace, title: str) -> Card:
    """A face on the page of its group."""
    day = date_text(face.facts.get("taken"), face.facts.get("taken_precision"))
    facts = {**face.facts, "pixels": np.round(face.number("pixels")), "taken": day}
    shown = [(key.replace("_", " "), facts.get(key)) for key in REPORT_FACTS]
    known = [(key, value) for key, value in shown if value not in (None, "") and value == value]
    numbers = [face.number(key) for key in ("quality", "value")]
    line = [f"{value:.2f}" for value in numbers if not math.isnan(value)]
    return Card(
        title=title,
        picture=face.picture,
        link=run.pages.source_link(face.picture),
        lines=[" · ".join(filter(None, [*line, day[:4]]))],
        facts="\n".join(f"{key}  {sf.plain(value)}" for key, value in known),
        flags=face_flags(run, face),
    )


def write_group(
    run: ReportRun, file: str, group: ShownGroup, start: int, links: Sequence[tuple[str, str]]
) -> None:
    """The page of one group, or of REPORT_FACES of its faces from `start`."""
    some = group.faces[start : start + REPORT_FACES]
    about, last = group.facts, start + REPORT_FACES >= len(group.faces)
    parts = [("", "", [face_card(run, face, str(rank)) for rank, face in enumerate(some, start)])]
    if start or not last:
        about.append(f"ranks {start} to {start + len(some) - 1} on this page")
    if last and group.dropped:
        left_out = [face_card(run, face, "") for face in group.dropped]
        parts.append(("Left out", len(left_out), left_out))
    run.pages.write(file, "cards.html", group.title, about=about, links=links, parts=parts)


def write_index(run: ReportRun, groups: Sequence[ShownGroup], files: dict[int, str]) -> None:
    """The first page: a card per group, and what was left out in sum."""
    manifest, unreadable = run.manifest, []
    parts: dict[str, list[Card]] = defaultdict(list)
    for group in groups:
        parts[group.part].append(group_card(run, group, quote(files[id(group)])))
    reasons = Counter(face_flags(run, face)[0] for group in groups for face in group.dropped)
    counts = manifest["counts"] if isinstance(manifest.get("counts"), dict) else {}
    if isinstance(counts.get("dropped"), dict):
        reasons.update({key.replace("_", " "): times for key, times in counts["dropped"].items()})
    if run.library is not None and not run.swap:
        cache = run.library.cache
        bad = np.flatnonzero(cache.file_status == sf.STATUS_UNREADABLE)
        unreadable = list(zip(cache.file_path[bad], cache.file_error[bad], strict=True))
    totals = {
        "persons" if manifest["kind"] == "raw" else "face sets": len(parts.get("", ())),
        "faces": sum(len(group.faces) for group in groups if not group.part),
        "left out": reasons.total(),
        "photos without a face": counts.get("without_face"),
    }
    about = [str(run.path), *(f"{value} {key}" for key, value in totals.items() if value)]
    about.append(f"made with {manifest.get('model')}, {str(manifest.get('created'))[:10]}")
    shown = [(part, len(cards), cards) for part, cards in parts.items()]
    left_out = [(reason, times) for reason, times in reasons.most_common() if times]
    values = {"about": about, "parts": shown, "left_out": left_out, "unreadable": unreadable}
    run.pages.write("index.html", "report.html", run.path.name, **values)


def group_card(run: ReportRun, group: ShownGroup, link: str) -> Card:
    """A group on the first page, with its best face and the flags its faces have."""
    flags = Counter(flag for face in group.faces for flag in face_flags(run, face))
    pictures = (face.picture for face in group.faces)
    return Card(
        title=group.title,
        picture=next(filter(run.pages.shown, pictures), Picture()),
        link=link,
        lines=group.facts,
        facts="\n".join(f"{times} {flag}" for flag, times in flags.most_common()),
        flags=[group.verdict] * bool(group.verdict)
        + [
            flag
            for flag, times in flags.items()
            if flag in REPORT_GRAVE or times >= REPORT_SHARE * len(group.faces)
        ],
    )
