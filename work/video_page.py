"""The page of `video report`: who is seen, every segment, and what was left out and why.

Built on pages.py. The grid shows each person once, at their clearest; a row shows frames with a box
around the faces that are meant, those faces, and everybody else that is seen in it.

Contents
    Pictures of frames
    The page
    People
    Rows
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import sort_faces as sf

film_reading, pages = sf.companion("film_reading"), sf.companion("pages")

# ============================================================================
# Pictures of frames
# ============================================================================

REPORT_REJECTED = 500  # rejected tracks of a video that get thumbnails
REPORT_PEOPLE = 300  # people in the grid
BOX_LINES = (((0, 0, 0), 3), ((255, 255, 255), 1))  # BGR, px: seen on any ground


Box = Sequence[float]  # (4,) of a face, in upright pixels of a frame


@dataclass(frozen=True)
class Seen:
    """What a picture shows of a video: a frame with boxes drawn, or the face in one box."""

    pts: int
    boxes: Sequence[Box] = ()
    crop: bool = False

    def picture(self, video: sf.Video, row: int) -> pages.Picture:
        """The picture for a row of the page; those of a row are read together."""
        what = [f"{self.pts}", "-crop" * self.crop]
        if self.boxes:
            what.append("-" + sf.path_mark(str([list(box) for box in self.boxes])))
        return pages.Picture(f"{pages.THUMBS}/{video.id}/{''.join(what)}.jpg", (video, row), self)

    def of(self, frame: np.ndarray) -> np.ndarray:
        """The picture (h, w, 3) uint8 BGR from its frame."""
        height, width = frame.shape[:2]
        if self.crop:
            square = sf.crop_square(np.asarray(self.boxes[0]), (width, height), pages.PAGE_PAD)
            return sf.cut_window(frame, square, pages.PAGE_THUMBNAIL)
        small = pages.thumbnail(frame)
        for box in self.boxes:
            corners = np.rint(np.asarray(box) * (small.shape[1] / width)).astype(int).tolist()
            for colour, thick in BOX_LINES:
                cv2.rectangle(small, corners[:2], corners[2:], colour, thick)
        return small


def frame_parts(
    joined: dict[str, sf.Joined | None], source: tuple[sf.Video, int], parts: dict[str, Seen]
) -> Iterator[tuple[str, np.ndarray]]:
    """(thumbnail, picture) of one row of the page, as far as the video can be read."""
    video, names = source[0], defaultdict(list)
    for name, seen in parts.items():
        names[seen.pts].append(name)
    try:
        path, wanted = sf.checked_source(video).path, sorted(names)
        for pts, image in film_reading.frames_at(path, wanted, video.sar, joined.get(video.id)):
            yield from ((name, parts[name].of(image)) for name in names[pts])
    except sf.VideoError as error:
        sf.log.warning("%s: %s", video.path, error)


# ============================================================================
# The page
# ============================================================================


def video_pages(
    work: sf.VideoWork, plan: dict[str, Any], videos: Sequence[sf.Video]
) -> dict[str, Any]:
    """Write the page of a work folder; thumbnails that are there already stay.

    plan: plan.json as JSON. Returns where the page lies, and the counts.
    """
    known = sf.read_if_sound(work.path(sf.People), sf.People)  # an older run has none
    people = shown_people(known.people if known else [], plan, videos)
    by_id = {person["id"]: person for person in people}
    own = {track: p.id for p in (known.people if known else ()) for track in p.tracks}
    shown = [(Path(video.path), video_rows(plan, video, own)) for video in videos]
    pictures = [
        picture for _, rows in shown for row in rows for picture in (*row["faces"], *row["strip"])
    ]
    pictures += [person["picture"] for person in people]
    seconds = sum(entry["end"] - entry["start"] for entry in plan["segments"])
    counts = {"segments": len(plan["segments"]), "rejected": len(plan["rejected"])}
    with pages.page_folder(work.report, work.folder, commands=after_video(work, plan)) as folder:
        joined = {v.id: scenes.joined for v in videos if (scenes := work.scenes_of(v))}
        folder.start(["index.html"], pictures, draw=functools.partial(frame_parts, joined))
        about = {**counts, "minutes": round(seconds / 60, 1), "out": plan.get("out")}
        title = "Segments with a usable face"
        about["failed"] = video_failures(work, plan, videos)
        about["empty"] = [path.name for path, rows in shown if not rows]
        of = {"videos": shown, "people": people, "by_id": by_id, "corpus": known and known.corpus}
        folder.write("index.html", "video.html", title, **of, **about)
    found = {"look_at": str(work.report / "index.html"), **counts}
    return found | ({"people": len(known.people)} if known else {})


def video_failures(
    work: sf.VideoWork, plan: dict[str, Any], videos: Sequence[sf.Video]
) -> list[str]:
    """Clips that could not be made, and films that could not be read, a line each."""
    listed = work.read(sf.VideoList).videos
    lines = [f"{entry.path}: {entry.error}" for entry in listed if entry.error]
    lines += [f"{v.path}: could not be decoded" for v in videos if work.scenes_of(v) is None]
    for entry in plan["segments"]:
        if entry.get("failed"):
            lines.append(f"{entry['source']} at {sf.clock(entry['start'])}: {entry['failed']}")
    return lines


def after_video(work: sf.VideoWork, plan: dict[str, Any]) -> list[pages.Next]:
    """Cut the clips of the plan; once they are there, choose others, or hand them over."""
    out = Path(plan.get("out") or sf.beside(work.folder, "-clips"))
    cut = ("Write these segments as clips", pages.to_paste("video", "cut", work.folder, out))
    if not plan["segments"] or all(entry.get("clip") for entry in plan["segments"]):
        gates = pages.options_of(sf.Gates(**plan["gates"]))
        again = "Choose other segments: change or add options (and name --identity again)"
        return [(again, pages.to_paste("video", "score", work.folder, *gates)), cut]
    return [cut]


# ============================================================================
# People
# ============================================================================


def shown_people(
    people: Sequence[sf.Person], plan: dict[str, Any], videos: Sequence[sf.Video]
) -> list[dict[str, Any]]:
    """The grid: whoever has clips first, then by time in sight."""
    clips, lengths, listed = Counter(), Counter(), {video.id: video for video in videos}
    owner = {track: person.id for person in people for track in person.tracks}
    for entry in plan["segments"]:
        for who in {owner[track] for track in entry["tracks"] if track in owner}:
            clips[who] += 1
            lengths[who] += entry["end"] - entry["start"]
    found = []
    for person in people:
        video, time, box = person.face
        if video in listed:
            seen = Seen(listed[video].start + round(time / listed[video].tick), [box], crop=True)
            found.append(
                {
                    "id": person.id,
                    "name": person.name,
                    "picture": seen.picture(listed[video], -1),
                    "clips": clips[person.id],
                    "clip_seconds": lengths[person.id],
                    "seconds": person.seconds,
                    "videos": person.videos,
                }
            )
    found.sort(key=lambda about: (-about["clip_seconds"], -about["seconds"], about["id"]))
    return found[:REPORT_PEOPLE]


# ============================================================================
# Rows
# ============================================================================


def video_rows(
    plan: dict[str, Any], video: sf.Video, owner: dict[str, str]
) -> list[dict[str, Any]]:
    """What the page shows of a video: its segments, then what was left out, each by time.

    owner: {track: id of its person}.
    """
    rows = []
    for kept, key in ((True, "segments"), (False, "rejected")):
        entries = [entry for entry in plan[key] if entry["video"] == video.id]
        entries.sort(key=lambda entry: (entry["start"], entry["end"]))
        for at, entry in enumerate(entries):
            frames = frames_of(entry, video) if kept or at < REPORT_REJECTED else []
            strip = [frame.picture(video, len(rows)) for frame in frames]
            faces = [face.picture(video, len(rows)) for face in clearest_faces(frames)]
            tracks = entry["tracks"] if kept else entry["name"].split("+")
            own = sorted({owner[track] for track in tracks if track in owner})
            others = [who for who in entry.get("people", ()) if who not in own]
            who = {"own": own, "others": others}
            rows.append({"entry": entry, "kept": kept, "faces": faces, "strip": strip, **who})
    return rows


def frames_of(entry: dict[str, Any], video: sf.Video) -> list[Seen]:
    """The frames of a row by time, with the boxes of its faces; a plan of old has no boxes."""
    boxes = [*entry.get("boxes", ()), *([] for _ in entry["strip"])]
    frames = sorted(zip(entry["strip"], boxes, strict=False))
    return [Seen(video.start + round(time / video.tick), own) for time, own in frames]


def clearest_faces(frames: Sequence[Seen]) -> list[Seen]:
    """The faces of the frame that shows most of them, and then the largest."""

    def clear(frame: Seen) -> tuple[float, ...]:
        return len(frame.boxes), *map(pages.short_edge, frame.boxes[:1])

    best = max(frames, key=clear, default=Seen(0))
    return [Seen(best.pts, [box], crop=True) for box in best.boxes]
