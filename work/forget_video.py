"""How `forget` rids the work folder of a set of videos, and its clips, of a person.

A person is known there by embeddings alone: faces of frames and tracks that look like them go, and
with a track the segments and clips in which it is seen. The frames stay known, so nothing is looked
at again.

Contents
    Who is seen when
    The work folder
    Clips
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

import sort_faces as sf

traces = sf.companion("forget_traces")
Change, Place, Target = traces.Change, traces.Place, traces.Target
Words, Looks = traces.Words, traces.Looks

# ============================================================================
# Who is seen when
# ============================================================================

BOX_SLACK = 0.1  # px; tracks keep boxes to one decimal
TIME_SLACK = 1e-5  # s; and times to seven


class Spots:
    """Faces of frames by where and when they are."""

    def __init__(self) -> None:
        self.boxes: dict[tuple[str, int], list[np.ndarray]] = defaultdict(list)

    def add(self, video: str, time: float, box: np.ndarray) -> None:
        self.boxes[video, round(time / TIME_SLACK)].append(box)

    def has(self, video: str, time: float, box: np.ndarray) -> bool:
        at = round(time / TIME_SLACK)
        near = (own for tick in (at - 1, at, at + 1) for own in self.boxes.get((video, tick), ()))
        return any(np.abs(box - own).max() <= BOX_SLACK for own in near)


@dataclass
class Seen:
    """The tracks of a person in a work folder, and when they are seen in which video."""

    tracks: set[str]  # names
    spots: Spots  # their faces
    alike: Spots  # faces that look like the person
    times: dict[str, list[float]]  # video: when the person is seen, s

    def between(self, video: str, start: float, end: float) -> bool:
        return any(start - TIME_SLACK <= at <= end + TIME_SLACK for at in self.times.get(video, ()))


def who_is_seen(work: sf.VideoWork, looks: Looks) -> Seen:
    """Where the person is, by the tracks of a work folder and by the faces of its frames."""
    seen = Seen(set(), Spots(), Spots(), defaultdict(list))
    tracks = sf.read_if_sound(work.path(sf.Tracks), sf.Tracks)
    for track in tracks.tracks if tracks else ():
        if looks.alike(track.centre[None], looks.reach)[0]:
            seen.tracks.add(track.name)
            seen.times[track.video] += track.time.tolist()
            for time, box in zip(track.time.tolist(), track.bbox, strict=True):
                seen.spots.add(track.video, time, box)
    videos = {video.id: video for video in listed_videos(work)}
    for line in frame_lines(work):
        name, pts = frame_of(line.id)
        if name not in videos or not line.faces:
            continue
        time = float(videos[name].seconds(pts))
        for face, near in zip(line.faces, looks.alike(vectors_of(line), looks.reach), strict=True):
            if near:
                seen.times[name].append(time)
                seen.alike.add(name, time, np.array(face.bbox))
    return seen


def listed_videos(work: sf.VideoWork) -> list[sf.Video]:
    known = sf.read_if_sound(work.path(sf.VideoList), sf.VideoList)
    return [entry.facts for entry in known.videos if entry.facts] if known else []


def frame_lines(work: sf.VideoWork) -> Iterator[sf.FrameLine]:
    """The results of frames; those that are damaged are passed over."""
    for _, value in sf.json_lines(work.results):
        line = traces.record_of(sf.FrameLine, value)
        if line is not None and line.meta is None:
            yield line


def frame_of(name: str) -> tuple[str, int]:
    """(video, pts) of a frame_name."""
    video, _, pts = name.partition(":")
    return video, int(pts) if pts.lstrip("-").isdigit() else 0


def vectors_of(line: sf.FrameLine) -> np.ndarray:
    """(n, d) embeddings of the faces of a frame."""
    found = [np.frombuffer(face.embedding, "<f4") for face in line.faces]
    return np.array(found, np.float32).reshape(len(found), -1)


# ============================================================================
# The work folder
# ============================================================================


def video_places(scene: Any, target: Target, words: Words, looks: Looks) -> Iterator[Place]:
    """The changes of every work folder and of the folders of its clips."""
    for root in scene.of("videos"):
        work = sf.VideoWork(root)
        if not target.is_person or not len(looks.shown) or not fits(work, scene):
            continue
        seen = who_is_seen(work, looks)
        changes = list(work_changes(work, seen, words, looks))
        yield from clip_places(scene, work, seen)
        yield Place(root, "videos", False, changes)


def fits(work: sf.VideoWork, scene: Any) -> bool:
    """Whether the faces of a work folder were embedded with the cache's model."""
    first = next((value for _, value in sf.json_lines(work.results)), None)
    line = traces.record_of(sf.FrameLine, first)
    tracks = sf.read_if_sound(work.path(sf.Tracks), sf.Tracks)
    meta = line.meta if line is not None and line.meta is not None else None
    meta = meta or (tracks.meta if tracks else None)
    if meta is None:
        return False
    if meta.recognizer != scene.cache.meta.recognizer:
        raise sf.SortFacesError(
            f"{work.folder}: made with {meta.model}, the cache with {scene.cache.meta.model}; "
            "leave it out, and remove it yourself where it shows the person"
        )
    return True


def work_changes(work: sf.VideoWork, seen: Seen, words: Words, looks: Looks) -> Iterator[Change]:
    """Take the person out of the files of a work folder, so that a kill in between does no harm."""
    yield from plan_change(work, seen, words)  # first what is found by the tracks
    yield from people_change(work, seen, words, looks)
    masks = sf.companion("clip_occlusion").MASKS
    if seen.times and (work.folder / masks).exists():
        yield Change(masks, "tells where faces are; looked at again when asked for")
    yield from identities_change(work, words, looks)
    yield from frames_change(work, seen, looks)
    yield from traces.cleaned_lines(work.results, frame_keeper(work, seen, looks))
    yield from tracks_change(work, seen)
    if (work.folder / "workers").exists():
        yield Change("workers", "left by a killed run")


def frame_keeper(work: sf.VideoWork, seen: Seen, looks: Looks) -> Any:
    """Keeps the lines of frames, without the faces of the person."""
    videos = {video.id: video for video in listed_videos(work)}

    def keep(raw: bytes) -> bytes | None:
        value = sf.object_of(raw)
        line = traces.record_of(sf.FrameLine, value)
        if line is None or not line.faces:
            return raw
        name, pts = frame_of(line.id)
        gone = looks.alike(vectors_of(line), looks.reach)
        if name in videos:
            time = float(videos[name].seconds(pts))
            boxes = [np.array(face.bbox) for face in line.faces]
            gone |= np.array([seen.spots.has(name, time, box) for box in boxes], bool)
        if not gone.any():
            return raw
        faces = [face for face, goes in zip(value["faces"], gone, strict=True) if not goes]
        return sf.checked_line({**value, "faces": faces})

    return keep


def frames_change(work: sf.VideoWork, seen: Seen, looks: Looks) -> Iterator[Change]:
    """frames.npz without the rows of the person."""
    path = work.path(sf.Frames)
    if not path.exists():
        return
    frames = sf.Frames.load(path)
    videos = {video.id: video for video in listed_videos(work)}
    gone = looks.alike(frames.embedding, looks.reach)
    for row, name in enumerate(frames.video.tolist()):
        if name in videos:
            time = float(videos[name].seconds(int(frames.pts[row])))
            gone[row] |= seen.spots.has(name, time, frames.bbox[row])
    if gone.any():
        yield Change(path.name, f"{gone.sum()} faces", frames.take(np.flatnonzero(~gone)).save)


def tracks_change(work: sf.VideoWork, seen: Seen) -> Iterator[Change]:
    """tracks.json without the tracks of the person, and others without faces that look like it."""
    path = work.path(sf.Tracks)
    known = sf.read_if_sound(path, sf.Tracks)
    if known is None:
        return
    tracks, changed = [], 0
    for track in known.tracks:
        faces = zip(track.time.tolist(), track.bbox, strict=True)
        stay = ~np.array([seen.alike.has(track.video, *face) for face in faces], bool)
        if track.name in seen.tracks or not stay.any():
            changed += 1
        elif stay.all():
            tracks.append(track)
        else:
            changed += 1
            parts = {name: getattr(track, name)[stay] for name in sf.TRACK_DIGITS}
            tracks.append(replace(track, **parts))
    if changed:
        fresh = msgspec.structs.replace(known, tracks=tracks)
        yield Change(path.name, f"{changed} tracks", fresh.save)


def shows(segment: sf.PlannedClip | sf.LeftOut, seen: Seen) -> bool:
    """Whether a segment, or what was left out, is of the person or shows them."""
    names = getattr(segment, "tracks", None) or segment.name.split("+")
    own = bool(seen.tracks.intersection(names))
    return own or seen.between(segment.video, segment.start, segment.end)


def plan_change(work: sf.VideoWork, seen: Seen, words: Words) -> Iterator[Change]:
    """plan.json without the segments that show the person."""
    path = work.path(sf.ClipPlan)
    plan = sf.read_if_sound(path, sf.ClipPlan)
    if plan is None:
        return
    segments = [segment for segment in plan.segments if not shows(segment, seen)]
    rejected = [row for row in plan.rejected if not shows(row, seen)]
    asked = {
        name: about
        for name, about in plan.identities.items()
        if not (words.mention(name) or words.mention(about))
    }
    if (len(segments), len(rejected), len(asked)) != (
        len(plan.segments), len(plan.rejected), len(plan.identities)
    ):  # fmt: skip
        fresh = msgspec.structs.replace(
            plan, segments=segments, rejected=rejected, identities=asked
        )
        gone = len(plan.segments) - len(segments)
        yield Change(path.name, f"{gone} segments", lambda target: sf.write_file(target, fresh))


def people_change(work: sf.VideoWork, seen: Seen, words: Words, looks: Looks) -> Iterator[Change]:
    """people.json without the person, and without what others have of their tracks."""
    path = work.path(sf.People)
    known = sf.read_if_sound(path, sf.People)
    if known is None:
        return
    stay = []
    for person in known.people:
        left = [name for name in person.tracks if name not in seen.tracks]
        own = words.mention(person.name) or is_of(person.centre, looks)
        if left and not own:
            stay.append(msgspec.structs.replace(person, tracks=left))
    if stay != known.people:
        fresh = msgspec.structs.replace(known, people=stay)
        yield Change(path.name, "the person", functools.partial(write_record, fresh))


def identities_change(work: sf.VideoWork, words: Words, looks: Looks) -> Iterator[Change]:
    """identities.json without the pictures of the person."""
    path = work.path(sf.Identities)
    known = sf.read_if_sound(path, sf.Identities)
    if known is None:
        return
    stay = {
        sha: packed
        for sha, packed in known.faces.items()
        if not (words.mention(sha) or is_of(packed, looks))
    }
    if len(stay) < len(known.faces):
        fresh = msgspec.structs.replace(known, faces=stay)
        why = f"{len(known.faces) - len(stay)} pictures"
        yield Change(path.name, why, functools.partial(write_record, fresh))


def is_of(packed: bytes, looks: Looks) -> bool:
    vector = np.frombuffer(packed, "<f4") if len(packed) == 4 * looks.dim else np.zeros(0)
    return bool(vector.size) and bool(looks.alike(vector[None], looks.reach)[0])


def write_record(record: sf.OwnFile, path: Path) -> None:
    sf.write_file(path, record)


# ============================================================================
# Clips
# ============================================================================


def clip_places(scene: Any, work: sf.VideoWork, seen: Seen) -> Iterator[Place]:
    """The clips that show the person, and the lines of clips.jsonl about them.

    Raises SortFacesError where clips lie in a folder that is not named.
    """
    going: dict[str, list[Any]] = defaultdict(list)
    clips = sf.companion("clips")

    def keep(raw: bytes) -> bytes | None:
        line = traces.record_of(clips.WrittenClip, sf.object_of(raw))
        return None if line is not None and clip_shows(line, seen) else raw

    for _, value in sf.json_lines(work.clips):
        line = traces.record_of(clips.WrittenClip, value)
        if line is not None and clip_shows(line, seen):
            going[line.out].append(line)
    named = [Path(out) for out in scene.outs]
    for out, lines in sorted(going.items()):
        folder = Path(out).resolve()
        if folder.is_dir() and not any(folder == n or n in folder.parents for n in named):
            raise sf.SortFacesError(
                f"{work.folder}: clips of the person lie in {out}; name that folder, too"
            )
        if folder.is_dir():
            tops = {PurePosixPath(line.file).parts[0] for line in lines}
            tidy = [f"{sf.REMOVED_FOLDER}/{top}" for top in sorted(tops)]
            tidy += [sf.REMOVED_FOLDER, *sorted(tops)]
            yield Place(folder, "clips", False, list(clip_changes(folder, lines)), tidy)
    yield Place(work.folder, "videos", False, list(traces.cleaned_lines(work.clips, keep)))


def clip_shows(line: Any, seen: Seen) -> bool:
    """Whether the person is seen in a clip, by the time it covers."""
    return seen.between(line.video, line.checked.start, line.checked.last_time)


def clip_changes(folder: Path, lines: list[Any]) -> Iterator[Change]:
    """The clips, their sidecars, and what was set aside of them."""
    done = set()
    for line in lines:
        name = PurePosixPath(line.file)
        if name.stem != line.uuid or not traces.stays_inside(folder, line.file):
            continue
        for top in (folder, folder / sf.REMOVED_FOLDER):
            for path in sorted((top / name.parent).glob(f"{sf.glob.escape(name.stem)}.*")):
                file = path.relative_to(folder).as_posix()
                if file not in done:
                    done.add(file)
                    yield Change(file, "shows the person")
