"""`decisions from-faces`: a folder of crops that a person has sorted by hand, read back.

Whatever the files are called now, a crop is known by its bytes, by what its PNG says of itself, by
being the same picture in another size, or by its look. What a face set had and the folder has not
becomes `drop`; what lies with the crops of another set `belongs` there; what is in no set, as an
export had left it out, and lies there `keep`.
That is the Faceswap way: sort, delete in a file manager, then remove-faces or from-faces.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

decisions, looking = sf.companion("decisions"), sf.companion("looking")
set_apart = sf.companion("set_apart")

THERE = 0.25  # share of a set's faces that has to lie in the folder for the others to be missing
SHOWN = 20  # of the pictures that nothing is known of
EDGE = 16  # px of the grey thumbnails by which pictures are compared
SAME_PICTURE = 0.005  # cosine distance of those; docs/analysis/filters.md
APART = 3.0  # times as far the next face has to be: two of a burst are not told apart


@dataclass
class Found:
    """What a folder of crops holds."""

    row: dict[Path, int] = field(default_factory=dict)  # picture: cache row, -1 unknown
    known_by: Counter[str] = field(default_factory=Counter)  # bytes, text, picture, look
    like: dict[Path, int] = field(default_factory=dict)  # unknown picture of somebody: nearest row

    def take(self, how: str, found: dict[Path, int]) -> None:
        """Note the rows that one way of knowing has found."""
        good = {file: row for file, row in found.items() if row >= 0}
        self.row |= good
        self.known_by[how] += len(good)


@dataclass(frozen=True)
class Sets:
    """The face sets of a corpus as rows of its cache."""

    faces: dict[str, np.ndarray]  # {id: rows of the faces in it}
    home: dict[int, str]  # {row: the set it is in}


def take_in(
    cache_path: Path, root: Path, folder: Path, crew: sf.Crew, options: sf.FromFacesOptions
) -> dict[str, Any]:
    """Make decisions of a folder of crops; returns what became of them. Raises SortFacesError.

    root: the corpus the crops came from.
    """
    cache = sf.load_cache(cache_path)
    with sf.opened_corpus(root) as corpus:
        files = crops_in(folder)
        if (corpus.master.recognizer, corpus.master.rescans) != (
            cache.meta.recognizer,
            cache.meta.rescans,
        ):
            raise sf.SortFacesError(f"{root}: was not made from {cache_path}; name its own cache")
        sets = sets_of(corpus, cache)
        found = recognised(files, corpus, cache, crew)
    word = sf.operators_word(cache_path, cache)
    thin, strays = present(sets, found, options.all)
    unsure = {} if options.all else perhaps_there(sets, found, thin)
    missing = [row for name in thin if name not in unsure for row in sets.faces[name].tolist()]
    missing = np.setdiff1d(missing, list(found.row.values())).astype(np.intp)
    moved = moved_faces(sets, found, folder, thin)
    back = sorted(set(found.row.values()) - sets.home.keys())
    lines = lines_of(cache, sets, word, missing, moved, np.array(back, np.intp))
    if lines and not options.dry_run:
        decisions.Book(cache_path).append(lines)
    counts = Counter()
    for line in lines:
        counts[line.kind] += len(line.faces)
    unknown = [str(file) for file in files if found.row.get(file, -1) < 0]
    return {
        "folder": str(folder),
        "pictures": len(files),
        **{f"known_by_{how}": count for how, count in found.known_by.items()},
        "unknown": len(unknown),
        **{kind: counts[kind] for kind in ("drop", "belongs", "keep")},
        "not_taken_as_thinned": [
            f"{name}: {count} of {len(sets.faces[name])} there" for name, count in strays.items()
        ],
        "not_sure_what_is_missing": [
            f"{name}: {count} unknown pictures look like its faces"
            for name, count in unsure.items()
        ],
        "sets_not_there": len(sets.faces) - len(thin) - len(strays),
        "pictures_unknown": unknown[:SHOWN],
        "undo": sf.own_command("decisions", "undo", cache_path)
        if lines and not options.dry_run
        else "",
    }


def crops_in(folder: Path) -> list[Path]:
    """The pictures of a folder and below, but for what runs keep there. Raises SortFacesError."""
    if not folder.is_dir():
        raise sf.SortFacesError(f"{folder}: no such folder; name one with crops of a face set")
    files = [Path(file.path) for file in sf.scan_photos([folder], exclude=["_runs/*"]).files]
    if not files:
        raise sf.SortFacesError(f"{folder}: no pictures in it; a set that is to go: drop it")
    return files


def sets_of(corpus: sf.Corpus, cache: sf.FaceCache) -> Sets:
    """The sets in use, but for eras: those are parts of others."""
    faces, home = {}, {}
    for faceset in corpus.active.values():
        if faceset.is_era:
            continue
        rows = [cache.row_of_face.get(face.face, -1) for face in faceset.manifest.faces]
        faces[faceset.id] = np.array([row for row in rows if row >= 0], np.intp)
        home |= dict.fromkeys(faces[faceset.id].tolist(), faceset.id)
    return Sets(faces, home)


# Each way of knowing takes what the ones before it have left.


def recognised(
    files: Sequence[Path], corpus: sf.Corpus, cache: sf.FaceCache, crew: sf.Crew
) -> Found:
    """The faces of crops: by their bytes, their text, their picture, or else by their look."""
    found, shas = Found(), dict(zip(files, looking.hashes(files), strict=True))
    exported = {
        face.sha256: cache.row_of_face.get(face.face, -1)
        for faceset in corpus.sets.values()
        for face in (*faceset.manifest.faces, *faceset.manifest.dropped)
        if face.sha256
    }
    found.take("bytes", {file: exported.get(sha, -1) for file, sha in shas.items()})
    rest = [file for file in files if file not in found.row]
    found.take("text", by_text(rest, cache))
    rest = [file for file in rest if file not in found.row]
    if rest:
        found.take("picture", by_picture(rest, corpus, cache))
    rest = [file for file in rest if file not in found.row]
    if rest:
        near = by_look(rest, [shas[file] for file in rest], corpus, cache, crew)
        limits = sf.thresholds_for(cache.meta.model)
        found.take("look", {file: row for file, (row, away) in near.items() if away <= limits.copy})
        close = {file: row for file, (row, away) in near.items() if away <= limits.same_face}
        found.like = {file: row for file, row in close.items() if file not in found.row}
    return found


def by_text(files: Iterable[Path], cache: sf.FaceCache) -> dict[Path, int]:
    """Cache rows by what PNGs say of themselves: ours by face, Faceswap's by photo and box."""
    finder = decisions.Finder(cache)
    photos = sf.companion("decisions_exchange").Photos(cache)
    flat = {sf.safe_dst_name(path): file for path, file in photos.by_path.items()}  # our exports'
    rows = {}
    for file in files:
        if file.suffix.lower() != ".png":
            continue
        data = file.read_bytes()
        ref = set_apart.text_of(data, set_apart.KEYWORD)
        if re.fullmatch(decisions.REF, ref):
            rows[file] = finder.row(ref)
            continue
        name, box = faceswap_place(set_apart.text_of(data, "faceswap"))
        photo = flat.get(name, photos.row({"path": name}) if name else -1)
        if photo >= 0:
            rows[file] = finder.at(str(cache.file_sha256[photo])[:16], box)
    return rows


def faceswap_place(text: str) -> tuple[str, np.ndarray]:
    """(file name of the photo, box x1 y1 x2 y2) of a Faceswap PNG's text; "" where it is none."""
    try:
        told = ast.literal_eval(text)
        x, y, w, h = (float(told["alignments"][key]) for key in "xywh")
        return str(told["source"]["source_filename"]), np.array([x, y, x + w, y + h])
    except (ValueError, SyntaxError, LookupError, TypeError, MemoryError, ArithmeticError,
            RecursionError):  # fmt: skip
        return "", np.zeros(4)


def by_picture(files: Sequence[Path], corpus: sf.Corpus, cache: sf.FaceCache) -> dict[Path, int]:
    """Cache rows of exported crops that were made smaller or written anew.

    The look of a face of 35 px is too rough for it, and the picture needs no face.
    """
    crops = exported_crops(corpus, cache)
    rows, known = thumbnails([path for path, _ in crops], [row for _, row in crops])
    at, own = thumbnails(files, range(len(files)))
    found = {}
    for block in sf.blocks(len(own) if len(known) else 0):
        cosine = own[block] @ known.T  # (b, m)
        best = cosine.argmax(axis=1)
        away = 1.0 - cosine.max(axis=1)
        others = np.where(rows[None] == rows[best][:, None], -1.0, cosine)
        sure = (away <= SAME_PICTURE) & (1.0 - others.max(axis=1) >= APART * away)
        found |= {files[at[block][k]]: int(rows[best[k]]) for k in np.flatnonzero(sure)}
    return found


def exported_crops(corpus: sf.Corpus, cache: sf.FaceCache) -> list[tuple[Path, int]]:
    """(PNG, cache row) of the crops of all face sets, in use or taken out, that lie there."""
    named = [
        (corpus.root / folder / face.file, cache.row_of_face.get(face.face, -1))
        for folder, faceset in corpus.sets.items()
        for face in (*faceset.manifest.faces, *faceset.manifest.dropped)
        if face.file
    ]
    return [(path, row) for path, row in named if row >= 0 and path.is_file()]


def thumbnails(files: Sequence[Path], names: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """((n,) names, (n, EDGE * EDGE) float32) of the pictures that can be read and are not flat."""
    found = sf.ordered_map(thumbnail, files, sf.usable_cores())
    told = sf.progress(found, len(files), "comparing pictures", "picture")
    pairs = [(name, one) for name, one in zip(names, told, strict=True) if one is not None]
    rows = [one for _, one in pairs]
    return (
        np.array([name for name, _ in pairs], np.intp),
        np.stack(rows) if rows else np.zeros((0, EDGE * EDGE), np.float32),
    )


def thumbnail(file: Path) -> np.ndarray | None:
    """(EDGE * EDGE,) float32 of length 1: a picture's grey, whatever its light and contrast."""
    import cv2

    try:
        image = sf.read_photo(str(file)).image
    except sf.PhotoError:
        return None
    small = cv2.resize(image, (EDGE, EDGE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32).ravel()
    grey -= grey.mean()
    length = np.linalg.norm(grey)
    return grey / length if length >= EDGE else None  # a flat one is like all others


def by_look(
    files: Sequence[Path],
    shas: Sequence[str],
    corpus: sf.Corpus,
    cache: sf.FaceCache,
    crew: sf.Crew,
) -> dict[Path, tuple[int, float]]:
    """(cache row of the nearest face, exported or not, cosine distance) of pictures with a face."""
    spec = sf.as_consumer(crew.spec, cache.meta)
    seen = looking.looked_at(files, shas, crew.with_spec(spec))
    if seen.meta.recognizer != cache.meta.recognizer:
        raise sf.SortFacesError(f"{crew.spec.model}: is another recogniser than the cache's")
    faces = [face for s in corpus.sets.values() for face in s.manifest.faces]
    rows = np.array([cache.row_of_face.get(face.face, -1) for face in faces], np.intp)
    exported = sf.unit_rows(corpus.embeddings(faces))
    all_rows = np.concatenate([rows, np.arange(cache.faces)])
    known = np.concatenate([exported.reshape(len(faces), -1), cache.unit])
    own = looking.rows_by_sha(seen)
    at, away = sf.nearest(seen.unit, known)
    mine = {file: own[sha][0] for file, sha in zip(files, shas, strict=True) if sha in own}
    return {file: (int(all_rows[at[row]]), float(away[row])) for file, row in mine.items()}


def present(sets: Sets, found: Found, take_all: bool) -> tuple[list[str], dict[str, int]]:
    """(sets that lie in the folder, {those of which it holds a few faces: how many})."""
    count = Counter(sets.home[row] for row in set(found.row.values()) if row in sets.home)
    thin = [
        name
        for name in sets.faces
        if count[name] and (take_all or count[name] >= THERE * len(sets.faces[name]))
    ]
    return thin, {name: count[name] for name in sets.faces if count[name] and name not in thin}


def perhaps_there(sets: Sets, found: Found, thin: Sequence[str]) -> dict[str, int]:
    """{set: how many unknown pictures look like the person of one that lacks faces there}.

    Too small or too blurred to be told apart, they may be the very faces that seem to be missing.
    """
    there = set(found.row.values())
    lacking = {name for name in thin if set(sets.faces[name].tolist()) - there}
    count = Counter(sets.home.get(row, "") for row in found.like.values())
    return {name: count[name] for name in sets.faces if name in lacking and count[name]}


def moved_faces(
    sets: Sets, found: Found, folder: Path, there: Sequence[str]
) -> dict[str, np.ndarray]:
    """{set: rows that lie in its folder now and are not in it}.

    A folder is that of a set if most of its crops lie in it, and of no other. A set that is spread
    over many, as in groups by pose, has none, and its crops stay where they are.
    """
    places: dict[Path, set[int]] = defaultdict(set)
    for file, row in found.row.items():
        places[file.parent].add(row)
    votes = {
        place: Counter(sets.home.get(row, "") for row in rows) for place, rows in places.items()
    }
    total = sum(votes.values(), Counter())
    at_home = {
        place: [name for name in there if count[name] > total[name] / 2]
        for place, count in votes.items()
    }
    spread = set(there).difference(*at_home.values())
    settled = {
        row
        for place, rows in places.items()
        for row in rows
        if sets.home.get(row) in at_home[place]
    }  # where it has two copies one of them is at home
    moved: dict[str, set[int]] = defaultdict(set)
    for place, rows in places.items():
        if len(at_home[place]) == 1:
            own = at_home[place][0]
            moved[own] |= {row for row in rows - settled if sets.home.get(row, "") not in spread}
    return {name: np.array(sorted(rows), np.intp) for name, rows in moved.items() if rows}


def lines_of(
    cache: sf.FaceCache,
    sets: Sets,
    word: sf.Word,
    missing: np.ndarray,
    moved: dict[str, np.ndarray],
    back: np.ndarray,
) -> list[decisions.Line]:
    """One act of all that was done by hand and is not decided already."""
    op, lines = decisions.new_op(), []
    missing, back = missing[word.keep[missing] >= 0], back[word.keep[back] <= 0]
    for name, rows in moved.items():
        there = np.setdiff1d(sets.faces[name], missing)
        own = word.person[there]
        told = (word.person[rows] >= 0) & np.isin(word.person[rows], own[own >= 0])
        rows = rows[~told]
        for left in sorted({sets.home[row] for row in rows.tolist() if row in sets.home}):
            gone = rows[[sets.home.get(row) == left for row in rows.tolist()]]
            lines += pair(cache, "not_belongs", op, gone, np.setdiff1d(sets.faces[left], rows))
        lines += pair(cache, "belongs", op, rows, there)
    for kind, rows in (("drop", missing), ("keep", back)):
        if len(rows):
            lines.append(decisions.act(kind, op, faces=decisions.refs(cache, rows)))
    return lines


def pair(
    cache: sf.FaceCache, kind: str, op: str, rows: np.ndarray, there: np.ndarray
) -> list[decisions.Line]:
    """A line that faces are, or are not, those of a group; none without faces."""
    if not (len(rows) and len(there)):
        return []
    facts = {"faces": decisions.refs(cache, rows), "others": decisions.anchors(cache, there)}
    return [decisions.act(kind, op, sides=(len(rows), len(there)), **facts)]
