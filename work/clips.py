"""Carries out the plan of `video cut`: a folder of clips, each written, checked and remembered.

clip_writer writes a clip. What was written is then decoded and compared, and the work folder's
clips.jsonl remembers it: what lies there as it was written is not made again.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec
import numpy as np

import sort_faces as sf

clip_writer, clip_sound = sf.companion("clip_writer"), sf.companion("clip_sound")
film_reading, soft_cuts = sf.companion("film_reading"), sf.companion("soft_cuts")
Cut, ClipWriter = clip_writer.Cut, clip_writer.ClipWriter

CLIP_DIFFERENCE = 12.0  # mean grey levels between a frame and its re-encoded copy; measured < 3
CLIP_TIME_SLACK = 0.002  # s; time bases round differently


class MadeClip(sf.Record):
    """How a clip was made."""

    mode: str
    fallback: str  # why not in the mode that was asked for, "" if it was
    checked: sf.Checked
    notes: tuple[str, ...] = ()  # what of the source it lacks


def check_clip(path: Path, writer: ClipWriter) -> sf.Checked:
    """Decode a clip and compare it with the source: number, times and look of its frames.

    Looked at are the first and the last frame and those beside a join. Raises VideoError where
    they are not as planned; a copy may end before the last planned frame.
    """
    cut, copy, times, looks = writer.cut, writer.mode == "copy", [], {}
    low, high = np.searchsorted(cut.frames, [writer.first, cut.end])
    expected = cut.frames[low:high]
    joins = set(np.searchsorted(expected, writer.joins).tolist())
    beside = {0} | joins | {at - 1 for at in joins}
    with film_reading.open_video(str(path)) as (container, stream):
        watch = soft_cuts.ClipWatch(float(stream.time_base))
        for number, frame in enumerate(film_reading.decoded(container, stream)):
            watch.feed(frame)
            times.append(float(frame.pts * stream.time_base))
            if number in beside:
                looks[number] = look_of(film_reading.upright_frame(frame, 1.0))
        if not times:
            raise sf.VideoError("no frame can be decoded")
        looks[number] = look_of(film_reading.upright_frame(frame, 1.0))
    shown = expected[: len(times)]
    looks = {int(shown[number]): look for number, look in looks.items() if number < len(shown)}
    difference = max(frame_differences(cut, looks), default=255.0)
    drift = np.abs(cut.video.tick * (shown - shown[0]) - times[: len(shown)]).max()
    if copy and writer.first > cut.start:
        raise sf.VideoError("no key frame lies before it")
    if len(times) > len(expected) or (len(times) < len(expected) and not copy):
        raise sf.VideoError(f"{len(times)} frames, {len(expected)} expected")
    if drift > CLIP_TIME_SLACK:
        raise sf.VideoError(f"frames up to {drift:.3f} s off")
    if difference > CLIP_DIFFERENCE:
        raise sf.VideoError(f"frames differ from the source by {difference:.0f} grey levels")
    return sf.Checked(
        first_frame=int(low),
        start=round(cut.video.seconds(writer.first), 3),
        frames=len(times),
        last_time=round(cut.video.seconds(int(shown[-1])), 3),
        duration=round(times[-1] - times[0] + (times[-1] - times[-2] if times[1:] else 0.0), 3),
        difference=round(difference, 2),
        changes=watch.found(),
    )


def frame_differences(cut: Cut, looks: dict[int, np.ndarray]) -> Iterator[float]:
    """Mean grey levels between looks {pts: of the clip's frame} and the source's frames there."""
    for pts, image in film_reading.frames_at(cut.video.path, sorted(looks), 1.0, cut.joined):
        yield float(np.abs(look_of(image) - looks[pts]).mean())


def look_of(image: np.ndarray) -> np.ndarray:
    """(36, 64) int16 grey levels of a picture, for comparing two."""
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return cv2.resize(grey, (64, 36), interpolation=cv2.INTER_AREA).astype(np.int16)


def cut_clip(
    cut: Cut, mode: str, note_down: Callable[[MadeClip, int], None], compatible: bool = False
) -> MadeClip:
    """Write one clip and check it; a join that does not hold is encoded instead, and says so.

    Sound whose packets an mp4 does not take after all is encoded, and left out where that fails,
    too. note_down: told of the clip and its size in bytes before it is moved into its place.
    """
    note, unheard = "", ""
    for way in dict.fromkeys((mode, "encode")):
        for sound in ("copy", "encode", "none"):
            writer = ClipWriter(cut, way, compatible, sound)
            try:
                with film_reading.film_faults(), sf.writing(cut.path) as part:
                    writer.write(part)
                    checked = check_clip(part, writer)
                    missing = [f"sound left out ({unheard})"] if sound == "none" else []
                    made = MadeClip(way, note, checked, (*writer.notes, *missing))
                    note_down(made, part.stat().st_size)
                return made
            except clip_sound.SoundError as error:
                unheard = str(error)
            except sf.VideoError as error:
                note = f"{way}: {error}"
                break
    raise sf.VideoError(note)


class WrittenClip(MadeClip, kw_only=True):
    """A line of clips.jsonl: a clip that was written, checked and put in its place."""

    uuid: str
    out: str
    video: str = ""
    file: Annotated[str, msgspec.Meta(pattern=rf"\A{sf.PART}/{sf.PART}\Z")]  # below out
    asked: str = ""  # the mode it was to be made in
    size: int  # bytes


class ClipFolder:
    """OUT: the clips of one work folder, and what clips.jsonl says of them."""

    def __init__(self, out: Path, work: sf.VideoWork) -> None:
        self.out = out
        self.videos = {video.id: video for video in work.list_videos()}
        self.scenes_of = functools.lru_cache(1)(work.scenes_of)  # segments come video by video
        lines = read_ledger(work.clips, out)
        self.done = {line.uuid: line for line in lines}
        self.ours = {(line.file, line.size) for line in lines}
        self.folders = clip_folders([*self.videos.values()], self.done.values())

    def file_of(self, segment: sf.PlannedClip) -> str:
        """Where its clip goes, below OUT."""
        return f"{self.folders.get(segment.video, sf.REMOVED_FOLDER)}/{segment.uuid}.mp4"

    def written(self, segment: sf.PlannedClip) -> WrittenClip | None:
        """How its clip was made, if it lies there as it was written."""
        line, file = self.done.get(segment.uuid), self.file_of(segment)
        there = line is not None and line.file == file and (self.out / file).is_file()
        return line if there and (self.out / file).stat().st_size == line.size else None

    def is_cut(self, segment: sf.PlannedClip, options: sf.ClipOptions) -> bool:
        """Whether its clip lies there, made in the same way."""
        line = self.written(segment)
        return line is not None and line.asked == options.asked

    def cut_of(self, segment: sf.PlannedClip) -> Cut:
        """What is to be cut for it. Raises VideoError where its source is gone."""
        video = self.videos.get(segment.video)
        if video is None:
            raise sf.VideoError(
                "its video is no longer listed; run all steps again, from `video scan` on"
            )
        scenes = self.scenes_of(video)
        if scenes is None:
            raise sf.VideoError("its scenes are gone; run `video scenes` again")
        frames = scenes.pts
        start = int(frames[min(np.searchsorted(frames, segment.pts[0]), len(frames) - 1)])
        path = sf.place_in(self.out, self.file_of(segment))
        source = sf.checked_source(video)
        return Cut(source, start, segment.pts[1], path, frames, scenes.joined)

    def make(
        self, segment: sf.PlannedClip, options: sf.ClipOptions, ledger: sf.AppendOnly
    ) -> WrittenClip:
        """Cut and check one clip; one that was edited since goes to _removed first.

        It is in the ledger before it lies in its place: a kill between the two must not let it
        look like a file of the operator's. Raises VideoError when its source is gone or cannot be
        cut.
        """
        cut, file = self.cut_of(segment), self.file_of(segment)
        if cut.path.is_file() and (file, cut.path.stat().st_size) not in self.ours:
            sf.set_aside(self.out, file)
        lines: list[WrittenClip] = []

        def note_down(made: MadeClip, size: int) -> None:
            about = {"uuid": segment.uuid, "video": segment.video, "file": file}
            about["asked"] = options.asked
            facts = {**msgspec.structs.asdict(made), **about, "size": size}
            lines.append(WrittenClip(out=str(self.out.resolve()), **facts))
            if self.done.get(segment.uuid) != lines[-1]:  # else noted when a kill came
                ledger.append(sf.as_json(lines[-1]))

        cut_clip(cut, options.cut, note_down, options.compatible)
        return lines[-1]

    def stale(self, segments: Sequence[sf.PlannedClip]) -> list[str]:
        """Clips that the plan no longer has.

        Those of videos that are not known now are not among them, nor the earlier ones of segments
        that failed this time.
        """
        known = {name for name, video in self.videos.items() if self.scenes_of(video)}
        files = {self.file_of(segment) for segment in segments}
        failed = {segment.uuid for segment in segments if segment.clip is None}
        stale = (
            line.file
            for line in self.done.values()
            if line.video in known and line.file not in files and line.uuid not in failed
        )
        return [*dict.fromkeys(stale)]

    def clear(self, files: Sequence[str]) -> int:
        """Move clips and what is told beside them to OUT/_removed; returns how many there were."""
        there = sum((self.out / file).exists() for file in files)
        for file in files:
            for path in (file, str(PurePosixPath(file).with_suffix(".json"))):
                if (self.out / path).exists():
                    sf.set_aside(self.out, path)
            sf.remove_empty((self.out / file).parent)
        return there


def read_ledger(path: Path, out: Path) -> list[WrittenClip]:
    """What clips.jsonl says was written to a folder; a damaged line costs that clip, cut again."""
    read = functools.partial(sf.as_record, WrittenClip)
    written = sf.sound_lines(path, read, "that clip is cut again")
    return [line for line in written if line.out == str(out.resolve())]


def clip_folders(videos: Sequence[sf.Video], done: Iterable[WrittenClip] = ()) -> dict[str, str]:
    """{video: folder of its clips}: the name of the file, made distinct where two share it.

    A video keeps the folder its earlier clips are in: `done` are lines of the ledger.
    """
    stems = {video.id: Path(video.path).stem for video in videos}
    folders = {
        line.video: PurePosixPath(line.file).parts[0] for line in done if line.video in stems
    }
    times = Counter(stem.casefold() for stem in stems.values())
    for video in videos:
        if video.id in folders:
            continue
        stem = stems[video.id]
        plain = sf.safe_dst_name(stem.replace("_", "-")) == stem.replace("_", "-")
        name = stem if plain else sf.safe_dst_name(stem)
        shared = times[stem.casefold()] > 1 or name == sf.REMOVED_FOLDER
        folders[video.id] = f"{name}-{sf.path_mark(video.path)}" if shared else name
    return folders


def cut_plan(
    work: sf.VideoWork, plan: sf.ClipPlan, out: Path, options: sf.ClipOptions
) -> sf.Outcome:
    """Bring the clips in `out` to what the plan says, and the plan to what became of each."""
    if options.dry_run:
        return foresee_clips(ClipFolder(out, work), plan, options)
    sf.make_folder(out)
    with sf.locked(out / sf.LOCK_NAME, f"clip folder {out}"):
        sf.remove_unfinished(out)
        folder = ClipFolder(out, work)
        missing = sum(not folder.is_cut(segment, options) for segment in plan.segments)
        with contextlib.closing(sf.AppendOnly(work.clips)) as ledger:
            segments = sf.progress(plan.segments, len(plan.segments), "cut")
            done = [cut_segment(folder, segment, options, ledger) for segment in segments]
        moved = folder.clear(folder.stale(done))
        work.write(msgspec.structs.replace(plan, segments=done, out=str(out.resolve())))
    lacks = lacking(done)
    for line in lacks:
        sf.log.warning("%s", line)
    for segment in done:
        if segment.clip and segment.checked.changes:
            at = ", ".join(f"{change:g}" for change in segment.checked.changes)
            sf.log.warning("%s: shows another scene from %s s on", segment.clip, at)
    failed = [f"{s.source} at {s.start:.1f} s: {s.failed}" for s in done if s.clip is None]
    result = {
        "out": str(out),
        "segments": len(done),
        "clips": len(done) - len(failed),
        "written": missing - len(failed),
        "encoded_instead": sum(bool(s.fallback) for s in done) or None,
        "set_aside": moved or None,
        "not_kept": lacks,
        "failed": failed,
    }
    return sf.Outcome(result, bool(result["clips"]) and not failed)


def lacking(done: Sequence[sf.PlannedClip]) -> list[str]:
    """What the clips of each film lack of it, a line each."""
    notes: dict[str, dict[str, None]] = {}
    for segment in done:
        own = segment.notes or []
        notes.setdefault(segment.source, {}).update(dict.fromkeys(own))
    return [f"{source}: not kept in its clips: {', '.join(n)}" for source, n in notes.items() if n]


def cut_segment(
    folder: ClipFolder, segment: sf.PlannedClip, options: sf.ClipOptions, ledger: sf.AppendOnly
) -> sf.PlannedClip:
    """Write the clip of a segment unless it is there; returns it with what became of it."""
    line = folder.written(segment)
    if line is None or line.asked != options.asked:
        try:
            with film_reading.film_faults():
                line = folder.make(segment, options, ledger)
        except sf.VideoError as error:
            sf.log.warning("%s at %.1f s: %s", segment.source, segment.start, error)
            return segment.cut(clip=None, failed=str(error))
    segment = segment.cut(
        clip=line.file,
        mode=line.mode,
        fallback=line.fallback,
        checked=line.checked,
        notes=line.notes or sf.UNSET,
    )
    if options.write_sidecar:
        sf.write_json((folder.out / line.file).with_suffix(".json"), sf.as_json(segment))
    return segment


def foresee_clips(folder: ClipFolder, plan: sf.ClipPlan, options: sf.ClipOptions) -> sf.Outcome:
    """What cutting would do to each clip; nothing is written."""
    rows = []
    for segment in plan.segments:
        do = "keep" if folder.is_cut(segment, options) else "write"
        try:
            folder.cut_of(segment)
        except sf.VideoError as error:
            do = do if do == "keep" else f"fail: {error}"
        span = f"{sf.clock(segment.start)} to {sf.clock(segment.end)}"
        rows.append({"do": do, "clip": folder.file_of(segment), "of": segment.source, "at": span})
    for file in folder.stale(plan.segments):
        if (folder.out / file).exists():
            rows.append({"do": "set aside", "clip": file, "of": "", "at": ""})
    times = Counter(row["do"].partition(":")[0] for row in rows)
    counts = {f"would_{do.replace(' ', '_')}": number for do, number in times.items()}
    result = {"out": str(folder.out), "segments": len(plan.segments), **counts, "clips": rows}
    return sf.Outcome(result, bool(times["keep"] + times["write"]))
