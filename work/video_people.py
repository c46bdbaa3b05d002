"""Who is in which clip: the tracks of a work folder as people, and whom the operator means.

sort_faces.py loads this file for `video score`. A person is a group of tracks, through scenes and
films, made by the identity linkage that makes face sets. Two tracks that are seen in one frame are
two people. People get the names of the face sets and pictures they resemble; what they are called
then works in --only, --with, --without and on the page. Nothing here reads a film.

Contents
    Pictures of identities
    Names of a corpus
    Linking tracks
    People
    Whom a clip shows
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

import sort_faces as sf

COPIES_MOST = 2  # rows a track counts for at most; more change nothing: docs/analysis/video.md
SURER = 0.1  # of its length a track is the stronger for twice the frames; measured: as above
PERSON = "person_{:03d}"


def folded(name: str) -> str:
    """A name as names are compared: NFC, without case, spaces at its ends or double ones."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return " ".join(text.split())


# ============================================================================
# Pictures of identities
# ============================================================================


@dataclass(frozen=True)
class Asked:
    """A person the options name, and where its pictures are."""

    name: str
    path: Path
    folder: str = ""  # within the corpus, where it is one of its sets
    faceset: str = ""  # the id of that set


def asked_people(
    choice: sf.IdentityChoice, corpus: sf.Corpus | None
) -> tuple[list[Asked], list[Asked]]:
    """Whom --identity and --exclude-identity name. Raises SortFacesError for who is not there."""
    asked = [
        [resolve(path, corpus) for path in paths]
        for paths in (choice.identity, choice.exclude_identity)
    ]
    times = Counter(folded(one.name) for side in asked for one in side)
    if max(times.values(), default=1) > 1:
        raise sf.SortFacesError("--identity: two of them have the same name; rename one")
    return asked[0], asked[1]


def resolve(path: Path, corpus: sf.Corpus | None) -> Asked:
    """A path, or the name of a face set of the corpus. Raises SortFacesError for neither."""
    if path.exists():
        return Asked(path.name if path.is_dir() else path.stem, path)
    if corpus is None:
        raise sf.SortFacesError(
            f"--identity {path}: no such file or folder; name a .fsz bundle or a folder of crops, "
            "or with --corpus READY the name of one of its face sets"
        )
    names = set_names(corpus)
    found = [f for f, (name, _) in names.items() if folded(str(path)) in (folded(name), f)]
    if len(found) != 1:
        what = f"{len(found)} face sets are called so" if found else "no face set is called so"
        known = ", ".join(sorted({name for name, named in names.values() if named})) or "none"
        raise sf.SortFacesError(
            f"--identity {path}: {what} in {corpus.root}; name a path or one of: {known}"
        )
    faceset = corpus.sets[found[0]]
    path = corpus.root / faceset.folder
    return Asked(names[found[0]][0], path, faceset.folder, faceset.id)


def identity_directions(
    work: sf.VideoWork, meta: sf.FrameMeta, asked: Sequence[Asked], crew: sf.Crew
) -> dict[str, np.ndarray]:
    """{name: mean direction (d,) of its faces} of people the options name by pictures."""
    if not asked:
        return {}
    model = crew.spec.model
    if model and sf.model_label(model) != meta.model:
        raise sf.SortFacesError(
            f"--model {model}: the frames of {work.folder} were embedded with {meta.model}, "
            "and faces of two models cannot be compared; use that one, or another work folder"
        )
    people = {}
    faces_of = identity_faces(work, meta, [one.path for one in asked], crew)
    for one, faces in zip(asked, faces_of, strict=True):
        if None in faces:
            sf.log.warning("%s: %d pictures cannot be read", one.path, faces.count(None))
        vectors = [np.frombuffer(face, "<f4") for face in faces if face]
        if not vectors:
            raise sf.SortFacesError(
                f"--identity {one.path}: no face found in it; name a .fsz or its folder"
            )
        people[one.name] = sf.centroid(sf.unit_rows(np.stack(vectors)))
    return people


def identity_faces(
    work: sf.VideoWork, meta: sf.FrameMeta, paths: Sequence[Path], crew: sf.Crew
) -> list[list[bytes | None]]:
    """Of each picture of some identities its embedding: b"" without a face, None if unreadable.

    Pictures are embedded with the model of the work folder, once: identities.json keeps them.
    """
    file = work.path(sf.Identities)
    kept = sf.read_if_sound(file, sf.Identities)
    if kept is None or {*map(len, kept.faces.values())} - {0, 4 * meta.dim}:
        if file.exists():
            sf.log.warning("%s: is damaged; looking at the pictures of the identities again", file)
        kept = None
    known = kept.faces if kept and kept.recognizer == meta.recognizer else {}
    shown: list[list[str]] = [[] for _ in paths]
    with work.scratch() as folder:
        new: dict[str, Path] = {}
        for path, shas in zip(paths, shown, strict=True):
            for name, data in identity_pictures(path):
                sha = hashlib.sha256(data).hexdigest()
                shas.append(sha)
                if sha not in known and sha not in new:
                    new[sha] = folder / f"{sha}{PurePosixPath(name).suffix}"
                    new[sha].write_bytes(data)
        if new:
            known |= embed_identities(meta, new, crew, folder)
            work.write(sf.Identities(recognizer=meta.recognizer, faces=known))
    return [[known.get(sha) for sha in shas] for shas in shown]


def embed_identities(
    meta: sf.FrameMeta, pictures: dict[str, Path], crew: sf.Crew, folder: Path
) -> dict[str, bytes]:
    """{sha256: embedding of the largest face, or b""} of those pictures that can be read."""
    crew = crew.with_spec(replace(sf.with_engine_of(crew.spec, meta), landmarks=False))
    own = crew.facts["meta"]
    if own["recognizer"] != meta.recognizer:
        raise sf.SortFacesError(
            f"--identity: {own['model']} here is another recogniser ({own['recognizer']}) than "
            "the frames were embedded with; use that model"
        )
    how = {"passes": asdict(sf.Passes(pad_retry=True)), "landmarks": False}
    items = [{"sha256": sha, "path": str(path), **how} for sha, path in pictures.items()]
    found = {}
    for item, result in crew.run("embed", items, folder / "workers"):
        if not (result.get("failed") or result.get("error")):
            largest = max(result["faces"], key=lambda face: face["face_short"], default=None)
            found[item["sha256"]] = base64.b64decode(largest["embedding"]) if largest else b""
    return found


def identity_pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the pictures in a .fsz bundle or a folder; of a face set its faces alone."""
    from zipfile import ZipFile

    exported = path.is_dir() and sf.told_by(path)
    path = path / "faces" if exported else path  # not what it is exported as
    try:
        for file in sorted(path.rglob("*")) if path.is_dir() else ():
            hidden = any(part[0] in "_." for part in file.relative_to(path).parts)
            if file.suffix.lower() in sf.PHOTO_SUFFIXES and file.is_file() and not hidden:
                yield file.name, file.read_bytes()
        if path.is_dir():
            return
        with ZipFile(path) as archive:
            for info in archive.infolist():
                if os.path.splitext(info.filename)[1].lower() in sf.PHOTO_SUFFIXES:
                    yield info.filename, archive.read(info)
    except sf.npz_errors() as error:
        raise sf.SortFacesError(
            f"--identity {path}: {sf.one_line(error)}; name a .fsz bundle or a folder of crops"
        ) from None


# ============================================================================
# Names of a corpus
# ============================================================================


def set_names(corpus: sf.Corpus) -> dict[str, tuple[str, bool]]:
    """{folder of a set in use, no era: (what it is called, whether somebody called it so)}.

    A name that was decided since the export counts before that in NAME.txt.
    """
    found = {}
    for folder, faceset in corpus.active.items():
        if not faceset.is_era:
            rows = corpus.rows(faceset)
            decided = corpus.word.names.get(corpus.word.of_group(rows), "") if len(rows) else ""
            name = decided or ("" if faceset.name == sf.UNNAMED else faceset.name)
            found[folder] = (name or faceset.id, bool(name))
    return found


def set_directions(corpus: sf.Corpus, meta: sf.FrameMeta) -> dict[str, np.ndarray]:
    """{folder: mean direction (d,)} of the sets in use, as consumers of the corpus average them."""
    if corpus.master.recognizer != meta.recognizer:
        sf.log.warning(
            "%s: made with another recogniser than the frames, so its sets name nobody; "
            "--identity NAME looks at their pictures", corpus.root,
        )  # fmt: skip
        return {}
    found = {}
    for folder in set_names(corpus):
        vectors = corpus.embeddings(corpus.sets[folder].faces)
        vectors = vectors[vectors.any(axis=1)] if vectors.size else vectors
        if len(vectors) and vectors.shape[1] == meta.dim:
            found[folder] = sf.centroid(sf.unit_rows(vectors))
    return found


# ============================================================================
# Linking tracks
# ============================================================================


def together(tracks: Sequence[sf.Track], copy: float) -> np.ndarray:
    """Pairs (p, 2) of tracks seen in one frame: two people, unless they are copies.

    copy: cosine distance up to which they are a mirror, a split screen or a photo in the picture.
    """
    at = defaultdict(set)
    for row, track in enumerate(tracks):
        for time in track.time.tolist():
            at[track.video, time].add(row)
    pairs = {(a, b) for rows in at.values() for a in rows for b in rows if a < b}
    found = np.array(sorted(pairs), np.intp).reshape(-1, 2)
    if not len(found):
        return found
    centre = np.stack([track.centre for track in tracks])
    cosine = np.einsum("ij,ij->i", centre[found[:, 0]], centre[found[:, 1]])
    return found[cosine < 1.0 - copy]


def copies_of(track: sf.Track) -> int:
    """How many rows a track counts for: the more frames, the surer its direction."""
    return 1 + min(COPIES_MOST - 1, int(np.log2(len(track.time))))


def strength(track: sf.Track) -> float:
    """How long its embeddings would be in one picture that says as much of a face as its frames."""
    return track.length * (1.0 + SURER * float(np.log2(len(track.time))))


def link_tracks(data: sf.Tracks, how: sf.Linkage | None = None) -> np.ndarray:
    """Label of each track, (n,) int: those of one number are one person.

    The identity linkage of the library, with the figures of its recogniser or those measured here;
    average linkage where neither can be trusted. A track is as many rows as `copies_of` says, its
    mean direction each: they count as one moment.
    """
    tracks = data.tracks
    if not tracks:
        return np.zeros(0, np.intp)
    how = how or linkage_for(data.meta.model)
    row = np.repeat(np.arange(len(tracks)), [copies_of(track) for track in tracks])
    first = np.flatnonzero(np.r_[True, np.diff(row) > 0])
    unit = np.stack([track.centre for track in tracks])[row]
    length = np.array([strength(track) for track in tracks])[row]
    apart = first[together(tracks, how.copy)]
    start = sf.start_of(unit, how, ())
    figures = sf.KNOWN_FIGURES.get(data.meta.recognizer)
    if figures is None:
        measured = sf.figures_of(unit, length, start.rough, how.copy)
        figures, _ = sf.fitting_figures(measured, data.meta.recognizer)
    if figures is None:
        labels = start.rough
        while (labels[apart[:, 0]] == labels[apart[:, 1]]).any():
            labels = sf.companion("constraints").one_each(unit, labels, apart, how.rough)
        return labels[first]
    length = np.where(length > 0, length, figures.length)
    labels = sf.identity_linkage(unit, length, start, apart, figures, how.strictness)[first]
    return weak_by_film(data.tracks, labels, figures.length)


def weak_by_film(tracks: Sequence[sf.Track], labels: np.ndarray, usual: float) -> np.ndarray:
    """Labels (n,) with groups of weak tracks alone divided by film.

    Profiles and faces in the dark resemble each other, whosever they are (docs/identities.md); so
    do they across films, where nothing else says that they are one person.
    """
    strong = np.array([strength(track) >= sf.RefineParams.min_length * usual or not track.length
                       for track in tracks])  # fmt: skip
    weak = ~np.isin(labels, labels[strong])
    films = np.unique([track.video for track in tracks], return_inverse=True)[1]
    return np.unique(np.stack([labels, np.where(weak, films, -1)]), axis=1, return_inverse=True)[1]


def linkage_for(model: str) -> sf.Linkage:
    """How tracks are grouped: as `refine` groups the faces of a library."""
    limits = sf.thresholds_for(model)
    return sf.Linkage(sf.LINKAGES[0], limits.cluster, limits.merge, limits.copy, 0.0)


# ============================================================================
# People
# ============================================================================


@dataclass(frozen=True)
class Named:
    """Whom a person may be: a direction and what it is called."""

    name: str
    direction: np.ndarray  # (d,) float32 of length 1
    faceset: str = ""  # its id in the corpus


@dataclass(frozen=True)
class Cast:
    """The people of a work folder, and whom the options ask for."""

    people: list[sf.Person]
    person_of: dict[str, sf.Person]  # {track: person}
    name_of: dict[str, str]  # {track: name} of those whose person is called something
    asked: list[Asked]  # whom --identity and --exclude-identity name
    wanted: frozenset[str]  # their names; with none of them everybody is wanted
    banned: frozenset[str]
    only: tuple[str, ...] = ()

    def is_wanted(self, track: sf.Track) -> bool:
        """Whether --identity and --only let a track make clips."""
        of_asked = not self.wanted or self.name_of.get(track.name) in self.wanted
        return of_asked and (not self.only or any(self.means(one, track) for one in self.only))

    def is_banned(self, track: sf.Track) -> bool:
        """Whether it is somebody of --exclude-identity."""
        return self.name_of.get(track.name) in self.banned

    def means(self, name: str, track: sf.Track) -> bool:
        """Whether a track is of the person that is called so, by name or id."""
        own = self.person_of[track.name]
        called = self.name_of.get(track.name, ""), own.faceset, own.id
        return folded(name) in {folded(one) for one in called if one}

    def label(self, track: sf.Track) -> str:
        """What the person of a track is called, or its id."""
        return self.name_of.get(track.name, "") or self.person_of[track.name].id

    def names_of(self, tracks: Iterable[sf.Track]) -> list[str]:
        return sorted({self.name_of[t.name] for t in tracks if t.name in self.name_of})


def cast_for(
    work: sf.VideoWork,
    data: sf.Tracks,
    choice: sf.IdentityChoice,
    clips: sf.ClipChoice,
    crew: sf.Crew,
) -> Cast:
    """Find the people, give them their names, and note them in people.json."""
    opened = sf.opened_corpus(clips.corpus) if clips.corpus else contextlib.nullcontext()
    with opened as corpus:
        wanted, banned = asked_people(choice, corpus)
        asked = [*wanted, *banned]
        sets = set_directions(corpus, data.meta) if corpus else {}
        pictures = [one for one in asked if one.folder not in sets]
        shown = identity_directions(work, data.meta, pictures, crew)
        shown |= {one.name: sets[one.folder] for one in asked if one.folder in sets}
        named = [Named(one.name, shown[one.name], one.faceset) for one in asked]
        if corpus is not None:
            near = sf.thresholds_for(data.meta.model).merge
            named += corpus_people(corpus, sets, named, near)
    people = find_people(data, named, choice.identity_distance)
    root = str(clips.corpus.resolve()) if clips.corpus else ""
    work.write(sf.People(recognizer=data.meta.recognizer, corpus=root, people=people))
    person_of = {name: person for person in people for name in person.tracks}
    called = {track.name: person_of[track.name].name for track in data.tracks}
    alone = [track for track in data.tracks if not called[track.name]]
    if alone:  # of a person who resembles nobody a track may yet do so
        centres = np.stack([track.centre for track in alone])
        for row, (one, _) in matches(centres, named, choice.identity_distance).items():
            called[alone[row].name] = one.name
    name_of = {track: name for track, name in called.items() if name}
    sides = [frozenset(one.name for one in side) for side in (wanted, banned)]
    cast = Cast(people, person_of, name_of, asked, *sides, clips.only)
    check_names(cast, named, clips)
    return cast


def corpus_people(
    corpus: sf.Corpus, sets: dict[str, np.ndarray], asked: Sequence[Named], near: float
) -> list[Named]:
    """The face sets of a corpus, without those that are asked for already, by their pictures.

    sets: {folder: direction}; near: cosine distance up to which two directions are one person's.
    """
    names = set_names(corpus)
    found = []
    for folder, direction in sets.items():
        name, faceset = names[folder][0], corpus.sets[folder].id
        taken = (one.faceset == faceset or 1.0 - one.direction @ direction <= near for one in asked)
        if not any(taken):
            found.append(Named(name, direction, faceset))
    return found


def check_names(cast: Cast, named: Sequence[Named], clips: sf.ClipChoice) -> None:
    """Raise SortFacesError where --only and its like name nobody that is known."""
    known = {one.name for one in named}
    ids = {one.faceset for one in named} | {person.id for person in cast.people}
    words = {folded(word) for word in known | ids}
    for flag, names in (("only", clips.only), ("with", clips.with_), ("without", clips.without)):
        for name in names:
            if folded(name) not in words:
                listed = ", ".join(sorted(known)[:20]) or "none"
                raise sf.SortFacesError(
                    f"--{flag} {name}: nobody is called so; name one of: {listed}; or an id of the "
                    f"page, such as {PERSON.format(1)}"
                )


def find_people(data: sf.Tracks, named: Sequence[Named], distance: float) -> list[sf.Person]:
    """The people of all films, the longest seen first.

    distance: cosine distance up to which a person is one of `named`. Nobody gets the name of
    somebody seen beside them in a frame: the nearer does.
    """
    labels = link_tracks(data)
    groups = sf.groups_of(labels)
    if not groups:
        return []
    weight = np.array([copies_of(track) for track in data.tracks], np.float32)[:, None]
    centre = np.stack([track.centre for track in data.tracks])
    directions = np.stack(
        [sf.unit_rows((centre[rows] * weight[rows]).sum(axis=0)[None])[0] for rows in groups]
    )
    names = matches(directions, named, distance)
    group_of = np.empty(len(labels), np.intp)
    for number, rows in enumerate(groups):
        group_of[rows] = number
    copy = linkage_for(data.meta.model).copy
    rivals = {tuple(sorted(pair)) for pair in group_of[together(data.tracks, copy)].tolist()}
    joined: dict[Any, list[int]] = {}
    for number in sorted(names, key=lambda number: names[number][1]):
        one = names[number][0].name
        others = joined.get(one, [])
        if any(tuple(sorted((number, other))) in rivals for other in others):
            del names[number]
        else:
            joined.setdefault(one, []).append(number)
    for number in range(len(groups)):
        if number not in names:
            joined[number] = [number]
    people = []
    for numbers in joined.values():
        rows = np.sort(np.concatenate([groups[number] for number in numbers]))
        near = names.get(numbers[0])
        people.append(person_of([data.tracks[row] for row in rows], data.period, near))
    people.sort(key=lambda person: (-person.seconds, person.tracks[0]))
    return [
        sf.msgspec.structs.replace(person, id=PERSON.format(number))
        for number, person in enumerate(people, 1)
    ]


def matches(
    directions: np.ndarray, named: Sequence[Named], distance: float
) -> dict[int, tuple[Named, float]]:
    """{row: (who it is, cosine distance)} of directions (g, d) within a distance of somebody."""
    if not named:
        return {}
    index, far = sf.nearest(directions, np.stack([one.direction for one in named]))
    found = enumerate(zip(index, far, strict=True))
    return {row: (named[at], float(gap)) for row, (at, gap) in found if gap <= distance}


def person_of(
    tracks: Sequence[sf.Track], period: float, near: tuple[Named, float] | None
) -> sf.Person:
    """A person of these tracks; the id is given later."""
    best = max(tracks, key=clearness)
    row = int(np.argmax(face_worth(best)))
    weight = np.array([copies_of(track) for track in tracks], np.float32)[:, None]
    centre = (np.stack([track.centre for track in tracks]) * weight).sum(axis=0)
    who, far = near or (None, 0.0)
    return sf.Person(
        id=PERSON.format(0),
        name=who.name if who else "",
        faceset=who.faceset if who else "",
        distance=round(far, 3) if who else None,
        seconds=round(
            len({(t.video, time) for t in tracks for time in t.time.tolist()}) * period, 2
        ),
        videos=len({track.video for track in tracks}),
        tracks=[track.name for track in tracks],
        face=(best.video, float(best.time[row]), tuple(best.bbox[row].tolist())),
        centre=sf.float_bytes(sf.unit_rows(centre[None])[0]),
    )


def face_worth(track: sf.Track) -> np.ndarray:
    """(n,) how well a frame of a track shows its face: large, level and sure."""
    turn = np.nan_to_num(np.abs(track.pose[:, :2]).sum(axis=1), nan=90.0)
    return np.minimum(track.short, 256.0) * track.det / (1.0 + turn / 30.0)


def clearness(track: sf.Track) -> float:
    return float(face_worth(track).max())


# ============================================================================
# Whom a clip shows
# ============================================================================


class Sightings:
    """Who is seen when: the tracks of each film, as far as the detector is sure of their faces."""

    def __init__(self, data: sf.Tracks, cast: Cast, min_det: float) -> None:
        self.cast = cast
        self.of: dict[str, list[tuple[sf.Track, np.ndarray]]] = defaultdict(list)
        for track in data.tracks:
            time = track.time[track.det >= min_det]
            if len(time):
                self.of[track.video].append((track, time))
        self.ends = {
            video: np.array([[time[0], time[-1]] for _, time in some])
            for video, some in self.of.items()
        }

    def within(self, segment: sf.Segment) -> list[tuple[sf.Track, np.ndarray]]:
        """(track, its times) of all that are seen in a segment."""
        ends = self.ends.get(segment.video, np.zeros((0, 2)))
        near = (ends[:, 1] >= segment.start) & (ends[:, 0] < segment.end)
        found = []
        for row in np.flatnonzero(near):
            track, time = self.of[segment.video][row]
            inside = time[(time >= segment.start) & (time < segment.end)]
            if len(inside):
                found.append((track, inside))
        return found

    def counts(self, segment: sf.Segment) -> np.ndarray:
        """(k,) int: faces in each of its frames in which there is one."""
        seen = [time for _, time in self.within(segment)]
        return np.unique(np.concatenate(seen), return_counts=True)[1] if seen else np.zeros(0, int)

    def people(self, segment: sf.Segment) -> list[str]:
        """Ids of all that are seen in it, the longest first."""
        frames: Counter[str] = Counter()
        for track, time in self.within(segment):
            frames[self.cast.person_of[track.name].id] += len(time)
        return [who for who, _ in sorted(frames.items(), key=lambda pair: (-pair[1], pair[0]))]

    def judged(self, segment: sf.Segment, clips: sf.ClipChoice) -> sf.Segment:
        """The segment, with a reason where the options do not want whom it shows."""
        if segment.reason:
            return segment
        return replace(segment, reason=self.fault(segment, clips))

    def fault(self, segment: sf.Segment, clips: sf.ClipChoice) -> str:
        """Why whom it shows leaves a segment out, "" if it does not."""
        cast, seen = self.cast, [track for track, _ in self.within(segment)]

        def shown(name: str) -> bool:
            return any(cast.means(name, track) for track in seen)

        missing = [name for name in clips.with_ if not shown(name)]
        unwanted = [name for name in clips.without if shown(name)]
        if missing or unwanted:
            return f"does not show {missing[0]}" if missing else f"shows {unwanted[0]}"
        others = [t for t in seen if not any(cast.means(name, t) for name in clips.only)]
        if clips.only and others:
            return f"shows {cast.label(others[0])}, too"
        people = {cast.person_of[track.name].id: cast.label(track) for track in seen}
        if clips.alone and len(people) > 1:
            return f"shows {len(people)} people: {', '.join(sorted(people.values())[:4])}"
        most = int(self.counts(segment).max(initial=0))
        if clips.max_faces and most > clips.max_faces:
            return f"{most} faces in a frame, more than {clips.max_faces}"
        return ""
