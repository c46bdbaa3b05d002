"""Films as a source of faces: `embed --films`, and reading a kept frame again.

A kept frame is a photo of the cache. Its path is the film's, then `#pts=1068544@83.480s`: the time
stamp that finds it, and the seconds since the first frame for people; its sha256 is that of
"<content id of the film>:<pts>"; size and modification time are the film's. <cache>.films.jsonl
says which films were looked at, and how; <cache>.film.jsonl what was seen so far of the one a
killed run was at.

Contents
    Frames as photos
    Clips in photos
    Looking at a film
    The films of a library
"""

from __future__ import annotations

import atexit
import bisect
import contextlib
import functools
import hashlib
import io
import itertools
import math
import mmap
import os
import re
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import sort_faces as sf

choice, capture_time = sf.companion("film_choice"), sf.companion("capture_time")
film_pass, film_reading = sf.companion("film_pass"), sf.companion("film_reading")
film_sampling, film_times = sf.companion("film_sampling"), sf.companion("film_times")

# ============================================================================
# Frames as photos
# ============================================================================

HELD_FRAMES = 2  # decoded pictures of a film kept for who asks again
OPEN_FILMS = 2  # at once
COMMENT = b"sort_faces frame "  # then the frame's sha256: of a picture placed in a tree
JPEG_QUALITY = 95


def frame_path(film: str, pts: int, seconds: float) -> str:
    """How a cache names a frame of a film; sf.FRAME_PATH reads it."""
    return f"{film}#pts={pts}@{max(0.0, seconds):.3f}s"


def frame_sha(film_id: str, pts: int) -> str:
    """64 hex digits that stand for a frame."""
    return hashlib.sha256(f"{film_id}:{pts}".encode()).hexdigest()


@functools.lru_cache(256)
def film_id(path: str, size: int, mtime_ns: int) -> str:
    """Content id of a film, read once while its file stays the same."""
    return sf.content_id(path, size)


class FilmReader:
    """An open film: frames asked for in rising order come of one decode, others by a seek."""

    def __init__(self, path: str) -> None:
        self.stack = contextlib.ExitStack()
        try:
            self.file = self.stack.enter_context(playable(path))
            self.container, self.stream = self.stack.enter_context(
                film_reading.open_video(self.file)
            )
            self.joined = film_reading.joined_in(self.file)
        except BaseException:
            self.stack.close()
            raise
        self.frames: Iterator[Any] = iter(())
        self.at = math.inf  # pts of the newest frame decoded
        self.held: dict[int, np.ndarray] = {}
        self.lock = threading.Lock()

    def picture(self, pts: int) -> np.ndarray:
        """The upright frame of a pts, (h, w, 3) uint8 BGR. Raises VideoError."""
        with self.lock:
            if pts not in self.held:
                while len(self.held) >= HELD_FRAMES:
                    self.held.pop(next(iter(self.held)))
                self.held[pts] = self.decoded(pts)
            return self.held[pts]

    def decoded(self, pts: int) -> np.ndarray:
        """The same, which nobody has asked for lately."""
        near = film_times.SEEK_BACK / float(self.stream.time_base)
        if not self.at < pts <= self.at + near:
            self.frames = film_reading.sought_frames(self.container, self.stream, pts, self.joined)
        aspect = round(float(self.stream.sample_aspect_ratio or 1), 4)  # as Video.sar has it
        for frame in self.frames:
            self.at = frame.pts
            if frame.pts == pts:
                return film_reading.upright_frame(frame, aspect)
            if frame.pts > pts:
                break
        self.at = math.inf
        # of some a seek finds no key frame before it
        with film_reading.open_video(self.file) as opened:
            found = (frame for frame in film_reading.decoded(*opened) if frame.pts == pts)
            for frame in found:
                return film_reading.upright_frame(frame, aspect)
        raise sf.VideoError("the frame is not found in the film")


@functools.lru_cache(OPEN_FILMS)
def reader_of(path: str, size: int, mtime_ns: int) -> FilmReader:
    """The open film of a path; one not used for a while is closed when nobody holds it."""
    return FilmReader(path)


atexit.register(reader_of.cache_clear)  # while the decoder is still there to be closed


def read_frame(path: str, sha256: str | None) -> sf.Photo:
    """What read_photo returns for a frame of a film: (h, w, 3) uint8 BGR, upright, without a date.

    Raises PhotoGone where the film is gone or another one, PhotoError where it cannot be decoded.
    """
    film, pts, _ = sf.FRAME_PATH.fullmatch(path).groups()
    try:
        facts = sf.facts_of(os.stat(film))
        if sha256 is not None and frame_sha(film_id(film, *facts), int(pts)) != sha256:
            raise sf.PhotoGone("the film is another one now")
        with sf.SPENT.on("decode"):
            return sf.Photo(reader_of(film, *facts).picture(int(pts)))
    except OSError as error:
        raise sf.PhotoGone(error.strerror or str(error)) from None
    except sf.VideoError as error:
        raise sf.PhotoError(str(error)) from None


def jpeg_of(path: str) -> bytes:
    """A frame as the JPEG that trees hold, which says what it is."""
    import PIL.Image

    film = sf.film_of(path)
    sha = frame_sha(
        film_id(film, *sf.facts_of(os.stat(film))), int(sf.FRAME_PATH.fullmatch(path)[2])
    )
    image, stream = read_frame(path, sha).image, io.BytesIO()
    picture = PIL.Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
    comment = COMMENT + sha.encode()
    picture.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0, comment=comment)
    return stream.getvalue()


def place(path: str, target: Path) -> None:
    """Write a frame into a tree, with the film's modification time."""
    try:
        data = jpeg_of(path)
    except sf.PhotoError as error:
        raise sf.SortFacesError(f"{path}: {error}; run `embed` again") from None
    with sf.writing(target, sync=False) as part:
        part.write_bytes(data)
        facts = os.stat(sf.film_of(path))
        os.utime(part, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def frame_of_picture(file: Path) -> str:
    """The sha256 of the frame that a picture of a tree shows, "" if it is none of ours."""
    try:
        with open(file, "rb") as stream:
            found = re.search(re.escape(COMMENT) + rb"([0-9a-f]{64})", stream.read(4096))
    except OSError:
        return ""
    return found[1].decode() if found else ""


def holds(library: sf.Library, file: Path) -> bool:
    """Whether a tree's picture of a frame can be made again, to the byte."""
    row = library.row_of_sha.get(frame_of_picture(file))
    path = "" if row is None else library.live_path(row)
    with contextlib.suppress(sf.SortFacesError, OSError):
        return bool(path) and jpeg_of(path) == file.read_bytes()
    return False


# ============================================================================
# Clips in photos
# ============================================================================

MP4_BRANDS = (b"mp4", b"iso", b"qt  ", b"avc1", b"M4V")  # how the major brand begins
CLIP_LENGTH = 6.0  # s; what is longer beside a photo is a film; phones take 1.5 to 3.2
COPY_NUMBER = re.compile(r"\(\d+\)$")


def clip_start(path: str) -> int:
    """Where the MP4 begins that a motion photo carries behind its picture, 0 if there is none.

    Google and Samsung append it to a JPEG, in HEIC it is the box `mpvd`: both are found by the
    MP4's own first box, which lies at the start of the file in a HEIC itself.
    """
    if not os.path.getsize(path):
        return 0
    with (
        open(path, "rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        at = data.rfind(b"ftyp")
        while at > 16:
            size = int.from_bytes(data[at - 4 : at], "big")
            if 16 <= size <= 128 and data[at + 4 : at + 8].startswith(MP4_BRANDS):
                return at - 4
            at = data.rfind(b"ftyp", 0, at)
    return 0


@contextlib.contextmanager
def playable(path: str) -> Iterator[str]:
    """A film's file: itself, or for a motion photo a copy of the clip it carries, for a while."""
    if Path(path).suffix.lower() not in sf.PHOTO_SUFFIXES:
        yield path
        return
    start = clip_start(path)
    if not start:
        raise sf.VideoError("holds no clip")
    with tempfile.TemporaryDirectory(prefix="sort_faces-") as folder:
        clip = Path(folder) / "clip.mp4"
        with open(path, "rb") as stream:
            stream.seek(start)
            clip.write_bytes(stream.read())
        yield str(clip)


def photo_names(photos: Sequence[sf.FoundFile]) -> set[tuple[str, str]]:
    """(folder, name without ending, case folded) of photos."""
    split = (os.path.split(file.path) for file in photos)
    return {(folder, os.path.splitext(name)[0].casefold()) for folder, name in split}


def is_beside(film: sf.FoundFile, names: set[tuple[str, str]]) -> bool:
    """Whether a film is named as a photo of its folder is: IMG_1.MOV by IMG_1.HEIC, X.MP by
    X.MP.jpg, and in Google's exports IMG_1(1).MP4 by IMG_1.JPG."""
    folder, name = os.path.split(film.path)
    stem = os.path.splitext(name)[0]
    own = {name.casefold(), stem.casefold(), COPY_NUMBER.sub("", stem).casefold()}
    return any((folder, one) in names for one in own)


# ============================================================================
# Looking at a film
# ============================================================================

CREATED = {  # where a film says when it was begun, best first: of capture_time.RANKS
    "com.apple.quicktime.creationdate": "quicktime",  # the local clock, with its zone
    "creation_time": "container",
}


class SoundPass(film_pass.VideoPass):
    """A pass that does not look at what a damaged place has spoilt, up to the next key frame."""

    spoilt = False

    def is_due(self, frame: Any) -> bool:
        self.spoilt = frame.is_corrupt or (self.spoilt and not frame.key_frame)
        return not self.spoilt and self.is_wanted(frame)

    def is_wanted(self, frame: Any) -> bool:
        """Whether a sound frame is one to look at."""
        return super().is_due(frame)


class EveryNth(SoundPass):
    """A pass that looks at every nth frame."""

    def __init__(self, video: sf.Video, nth: int, skip: Any, network: Any) -> None:
        super().__init__(video, 1.0, skip, network=network)
        self.nth = nth

    def is_wanted(self, frame: Any) -> bool:
        return (len(self.pts) - 1) % self.nth == 0


def created(path: str) -> dict[str, datetime]:
    """{of capture_time.RANKS: when a film was begun}; whether to believe it is asked there."""
    with film_reading.open_video(path) as (container, stream):
        told = {**dict(stream.metadata), **dict(container.metadata)}
    found = {}
    for key, where in CREATED.items():
        with contextlib.suppress(ValueError, KeyError):
            text = re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", told[key].replace("Z", "+00:00"))
            found[where] = datetime.fromisoformat(text)
    return found


def dates_of(begun: dict[str, datetime], seconds: float) -> str:
    """What a film that was begun then says of a frame, as FaceCache.file_dates holds it."""
    after = timedelta(seconds=seconds)
    told = []
    for where, when in begun.items():
        with contextlib.suppress(OverflowError):
            text = (when + after).isoformat(timespec="seconds")
            told.append(capture_time.Statement(where, text))
    return capture_time.stored(told, capture_time.Camera())


def seen_in(engine: Any, image: np.ndarray, how: dict[str, Any], border: bool = False) -> sf.Result:
    """Size and FaceRecords of an upright frame, or why the engine gave up on it.

    border: look again with one around it where nothing is found; `padded` says that this was done.
    """
    try:
        found, padded = sf.find_in_frame(engine, image, sf.Passes(**how["passes"]), border)
        faces = sf.face_records(engine, [(image, found)], how["landmarks"])[0]
    except sf.engine_errors() as error:
        return {"failed": sf.one_line(error)}
    told = {"padded": True} if padded else {}
    return {"wh": list(image.shape[1::-1]), **told, "faces": sf.as_json(faces)}


def stretch_item(engine: Any, item: sf.Item) -> sf.Result:
    """Frames of a film -> seen_in of each.

    item: path, pts (rising), sar, passes, landmarks, joined, padded (of those pts).
    """
    frames = {pts: {"failed": "not found in the film"} for pts in item["pts"]}
    try:
        joined = item.get("joined") and sf.as_record(sf.Joined, item["joined"])
        with playable(item["path"]) as file:
            for pts, image in film_reading.frames_at(file, item["pts"], item["sar"], joined):
                frames[pts] = seen_in(engine, image, item, pts in item.get("padded", ()))
    except (sf.VideoError, OSError) as error:
        lost = [pts for pts, found in frames.items() if "failed" in found]
        frames |= {pts: {"failed": str(error)} for pts in lost}
    return {"frames": [{"pts": pts, **found} for pts, found in frames.items()]}


def seen_of(line: dict[str, Any]) -> sf.Result:
    """What a line of the log says was seen."""
    return {key: line[key] for key in ("wh", "padded", "faces", "failed") if key in line}


NO_CLIP = "no clip"  # settings of the line of such a photo


class FilmLine(sf.Record, kw_only=True):
    """A line of <cache>.films.jsonl: what came of looking at a film; the last of an id counts."""

    id: str  # content id; "" of a photo that carries no clip
    path: str
    size: int  # bytes
    mtime_ns: int
    settings: str
    seconds: float = 0.0
    frames: int = 0  # decoded
    looked: int = 0  # at for faces
    faces: int = 0  # found in those
    kept: tuple[str, ...] = ()  # frames, as they end their paths
    error: str = ""

    def paths(self, film: str) -> list[str]:
        return [f"{film}#pts={end}" for end in self.kept]

    def shas(self) -> list[str]:
        return [frame_sha(self.id, int(end.partition("@")[0])) for end in self.kept]


class Film:
    """One film being looked at for an EmbedRun."""

    def __init__(self, run: sf.EmbedRun, file: sf.FoundFile, name: str, settings: str) -> None:
        self.run, self.file, self.id, self.settings = run, file, name, settings
        self.options = run.options.films
        self.network: Any = None  # transnet.Network, of --soft-cuts
        self.counts: Counter[str] = Counter()
        self.log = sf.AppendOnly(begun_path(run.path))
        self.known: dict[int, None] = {}  # pts of frames that a killed run has looked at
        self.twice: dict[int, sf.Result] = {}  # {pts: what it saw when it looked again}
        self.cuts, self.close = 0, False  # passed so far; a border has shown a face since then
        told = {"passes": run.told_passes(), "landmarks": run.crew.spec.landmarks}
        self.how: dict[str, Any] = told
        plain = not told["passes"]["pad_retry"] and not self.options.every_frames
        self.probe = film_sampling.rule_steps(sf.Sampling())["probe"] if plain else 0

    def look(self) -> FilmLine:
        """Decode it once and store the frames that are kept. Raises VideoError."""
        with playable(self.file.path) as file:
            self.video = film_reading.video_facts(file, *sf.facts_of(os.stat(file)))
            self.begun = created(file)
            try:
                kept = self.keep_all() if self.options.every_frames else self.keep_best()
            finally:
                self.log.close()
        begun_path(self.run.path).unlink(missing_ok=True)
        if self.once.error:
            sf.log.warning("%s: %s; using what came before", self.file.path, self.once.error)
        if not self.counts["faces"]:
            sf.log.info("%s: film: no face found", self.file.path)
        video, counts = self.video, self.counts
        ends = [path.rpartition("#pts=")[2] for path in kept]
        length = round(float(video.seconds(self.once.pts[-1])), 3)
        about = {"seconds": length, "frames": len(self.once.pts), "looked": counts["looked"]}
        return self.line(kept=tuple(ends), faces=counts["faces"], **about)

    def line(self, **more: Any) -> FilmLine:
        facts = {"size": self.file.size, "mtime_ns": self.file.mtime_ns}
        return FilmLine(id=self.id, path=self.file.path, settings=self.settings, **facts, **more)

    def known_frames(self) -> dict[int, None]:
        """pts of frames that a killed run has looked at; the log of another film is removed."""
        head = {"film": self.id, "settings": self.settings, "how": sf.as_json(self.how)}
        head["recognizer"] = self.run.crew.facts["meta"]["recognizer"]
        lines = (value for _, value in sf.json_lines(self.log.path))
        first = next(lines, None)
        same = bool(first) and all(first.get(key) == value for key, value in head.items())
        known: list[int | None] = []
        for line in lines if same else ():
            if line and "again" in line:
                self.twice[line["pts"]] = seen_of(line)
            else:
                known.append(line["pts"] if line else None)
        if not same or None in known or known != sorted(known):
            self.log.path.unlink(missing_ok=True)
            known, self.twice = [], {}
        if self.log.is_new():
            self.log.append(head)
        return dict.fromkeys(known)

    def frames(self) -> Iterator[tuple[int, sf.Result | None]]:
        """(pts, what is seen) of the sampled frames in order; None where it was known before."""
        crew = self.run.crew
        if crew.elsewhere:
            self.once.skip = lambda _: True
            sampled = [pts for pts, _ in self.once.samples()]
            rule = sf.Sampling(every_sample=True, no_pad_retry=not self.probe)
            chosen, _ = film_sampling.choose(self.video, self.once.result(), rule, {})
            wanted = [pts for pts in sampled if pts not in self.known]
            seen = self.seen_elsewhere(wanted, [pts for pts in wanted if chosen.get(pts)])
            yield from ((pts, None) if pts in self.known else next(seen) for pts in sampled)
            return
        engine, how = crew.engine(), self.how

        def see(sample: tuple[int, Any, bool]) -> tuple[int, sf.Result | None]:
            pts, image, border = sample
            return pts, None if image is None else seen_in(engine, image, how, border)

        yield from sf.ordered_map(see, self.bordered(), crew.threads)

    def bordered(self) -> Iterator[tuple[int, Any, bool]]:
        """(pts, picture, whether to look with a border at once) of the sampled frames.

        Each comes a sample late, when a cut before it is known. What is not asked for here and
        chosen when its scene is over is decoded once more (`again`).
        """
        late: tuple[int, Any] | None = None
        for sample in itertools.chain(self.once.samples(), [None]):
            if late is not None:
                yield *late, self.is_probed(late[0])
            late = sample

    def is_probed(self, pts: int) -> bool:
        """Whether a frame will be looked at with a border for sure, as far as that is known."""
        cuts = bisect.bisect(self.once.finder.cuts, pts)
        begins, self.cuts = cuts != self.cuts, cuts
        self.close = self.close and not begins
        slot = film_sampling.slots_of(self.video, np.array([pts]), sf.Sampling.sample_rate)[0]
        return bool(self.probe) and bool(begins or self.close or slot % self.probe == 0)

    def seen_elsewhere(
        self, wanted: Sequence[int], padded: Sequence[int]
    ) -> Iterator[tuple[int, sf.Result]]:
        """What a worker or a cluster sees, which decodes the frames there; in their order.

        padded: those of them that are looked at with a border, too.
        """
        about = {"path": self.file.path, "sar": self.video.sar, **self.how, "film": self.id}
        items, joined, border = [], self.once.joined, frozenset(padded)
        for some in sf.batched(wanted, sf.CHUNK_SAMPLES):
            item = {**about, "pts": some, "padded": [pts for pts in some if pts in border]}
            if joined:
                item["joined"] = sf.as_json(joined.between(some[0], some[-1]))
            items.append(item)
        waiting: dict[int, list[sf.Result]] = {}
        order = iter([item["pts"][0] for item in items])
        due = next(order, None)
        for item, result in self.run.crew.run("film", items, sf.queue_folder(self.run.path)):
            failed = [{"pts": pts, "failed": result.get("failed")} for pts in item["pts"]]
            waiting[item["pts"][0]] = result.get("frames", failed)
            while due in waiting:
                yield from ((found["pts"], found) for found in waiting.pop(due))
                due = next(order, None)

    def again(self, wanted: list[int]) -> Iterator[choice.Looked]:
        """Frames with what is seen with a border; they are decoded once more for it."""
        for pts, found in self.seen_again([pts for pts in wanted if pts not in self.twice]):
            self.log.append({"pts": pts, "again": True, **found})
            self.twice[pts] = found
        for pts in wanted:
            if pts in self.twice:
                found = self.twice.pop(pts)
                self.counts["faces"] += len(found.get("faces", ()))
                yield self.looked(pts, found)

    def seen_again(self, wanted: Sequence[int]) -> Iterator[tuple[int, sf.Result]]:
        """(pts, what is seen with a border) of frames of this film."""
        if self.run.crew.elsewhere:
            yield from self.seen_elsewhere(wanted, wanted)
            return
        engine, how = self.run.crew.engine(), self.how

        def see(frame: tuple[int, Any]) -> tuple[int, sf.Result]:
            return frame[0], seen_in(engine, frame[1], how, True)

        joined, threads = self.once.joined, self.run.crew.threads
        with contextlib.suppress(sf.VideoError):  # the pass says what is wrong with the film
            frames = film_reading.frames_at(self.video.path, wanted, self.video.sar, joined)
            yield from sf.ordered_map(see, frames, threads)

    def noted(self) -> Iterator[tuple[int, sf.Result]]:
        """frames(), with what a killed run saw, and the rest written down as it comes."""
        before = (line for _, line in sf.json_lines(self.log.path) if line and "again" not in line)
        next(before, None)  # the head
        expected = round(self.video.duration * sf.Sampling.sample_rate)
        name = os.path.basename(self.file.path)
        for pts, found in sf.progress(self.frames(), expected, f"film {name}", "frame"):
            if pts in self.known:
                found = seen_of(next(before))
            else:
                self.log.append({"pts": pts, **found})
            self.count(found)
            self.close = self.close or bool(found.get("padded") and found.get("faces"))
            yield pts, found

    def looked(self, pts: int, found: sf.Result) -> choice.Looked:
        """A frame as the choice wants it."""
        boxes = np.array([face["bbox"] for face in found.get("faces", ())], np.float32)
        rows = np.pad(boxes.reshape(-1, 4), ((0, 0), (0, 4)))
        spent = bool(found.get("padded")) or "failed" in found
        short = float(min(found.get("wh", (0,))))
        sight = film_sampling.Sight(rows, film_sampling.NOTHING.embedding, spent, short)
        found = self.wanted(found)
        return choice.Looked(pts, sight, self.photo_line(pts, found) if found["faces"] else None)

    def wanted(self, found: sf.Result | None) -> sf.Result:
        """What is seen, without the faces that --filter and --nfilter take."""
        faces = (found or {}).get("faces", [])
        chooser = self.run.filter
        return {**(found or {}), "faces": chooser.admitted(faces)[0] if chooser else faces}

    def count(self, found: sf.Result) -> None:
        self.counts.update(looked=1, faces=len(found.get("faces", ())), failed="failed" in found)

    def photo_line(self, pts: int, found: sf.Result) -> sf.PhotoLine:
        """A frame as the journal tells of a photo."""
        seconds = float(self.video.seconds(pts))
        dates = dates_of(self.begun, seconds)
        when = capture_time.of_file(dates, os.path.basename(self.file.path))
        about = {
            "path": frame_path(self.file.path, pts, seconds),
            "sha256": frame_sha(self.id, pts),
        }
        about |= {"size": self.file.size, "mtime_ns": self.file.mtime_ns, "dates": dates}
        about |= {"taken_kind": when.kind, "taken_precision": when.precision}
        about |= {"taken": when.seconds if when.is_known else None}
        about |= {"wh": found["wh"], "faces": found["faces"], "passes": self.run.passes}
        return sf.as_record(
            sf.PhotoLine, {"op": "photo", "status": sf.STATUS_FACES, "error": "", **about}
        )

    def keep_best(self) -> list[str]:
        """Store the best few faces of each track; returns the paths of their frames."""
        self.known = self.known_frames()
        rate = sf.Sampling.sample_rate
        self.once = SoundPass(self.video, rate, self.known.__contains__, network=self.network)
        retry = choice.Retry(self.video, self.probe, self.again)
        best = choice.Best(self.once, self.run.cache.meta, self.options, retry)
        for pts, found in self.noted():
            best.add(self.looked(pts, found))
        for line in (lines := best.finish()):
            self.store(line)
        return [line.path for line in lines]

    def keep_all(self) -> list[str]:
        """Store every sampled frame that shows a face, scene by scene."""

        def is_known(pts: int) -> bool:
            return frame_sha(self.id, pts) in self.run.paths_of

        kept, nth = [], self.options.every_frames
        self.once = EveryNth(self.video, nth, is_known, self.network)
        scenes = choice.ByScene(self.once)
        expected = round(self.video.duration * self.video.fps / nth)
        name = os.path.basename(self.file.path)
        for pts, found in sf.progress(self.frames(), expected, f"film {name}", "frame"):
            self.count({"faces": [None]} if found is None else found)
            frame = choice.Looked(pts, None, None) if found is None else self.looked(pts, found)
            if found is None or frame.line:
                kept += self.stored(scenes.add(frame))
        return kept + self.stored(scenes.finish())

    def stored(self, parts: Iterator[choice.Part]) -> list[str]:
        """The paths of all frames of some scenes; those that are new are stored."""
        kept = []
        for frame in (frame for part in parts for frame in part.frames):
            if frame.line:
                self.store(frame.line)
            seconds = float(self.video.seconds(frame.pts))
            kept.append(frame_path(self.file.path, frame.pts, seconds))
        return kept

    def store(self, line: sf.PhotoLine) -> None:
        """Journal a frame, without whom `forget` keeps out."""
        if not self.run.door.refuses(line.sha256):
            facts = {key: value for key, value in sf.as_json(line).items() if key != "op"}
            self.run.store({"path": line.path, "sha256": line.sha256}, facts)


# ============================================================================
# The films of a library
# ============================================================================


def films_path(cache: Path) -> Path:
    """Where a cache keeps which films were looked at."""
    return cache.with_name(f"{cache.name}.films.jsonl")


def begun_path(cache: Path) -> Path:
    """What was seen so far of the film that is being looked at."""
    return cache.with_name(f"{cache.name}.film.jsonl")


def film_lines(cache: Path) -> list[FilmLine]:
    """What is known of films, oldest first; a damaged line costs that film."""
    read = functools.partial(sf.as_record, FilmLine)
    return list(sf.sound_lines(films_path(cache), read, "that film is looked at again"))


class Films:
    """The films below the sources of an EmbedRun, and what is known of them."""

    def __init__(self, run: sf.EmbedRun, draft: bool = False) -> None:
        """draft: nothing is written."""
        self.run, self.options, self.draft = run, run.options.films, draft
        known = film_lines(run.path)
        self.lines = {line.id: line for line in known if line.id}
        self.by_path = {line.path: line for line in known}
        self.book = sf.AppendOnly(films_path(run.path))
        self.counts: Counter[str] = Counter()
        own = asdict(self.options)
        how = [own[key] for key in ("every", "per_track", "per_minute")]
        nth = self.options.every_frames
        kept = f"every {nth} frames" if nth else f"best {how} retry"
        asked = self.options.soft_cuts and sf.companion("transnet").name_of(self.options.soft_cuts)
        self.settings = f"{run.passes} {kept}" + (f" soft cuts {asked}" if asked else "")
        self.of_film: dict[str, list[str]] = defaultdict(list)  # paths of frames
        for path in run.paths:
            if film := sf.film_of(path):
                self.of_film[film].append(path)

    @functools.cached_property
    def network(self) -> Any:
        """The network of --soft-cuts, loaded when the first film is looked at."""
        model = self.options.soft_cuts
        return sf.companion("transnet").load(model, self.run.crew) if model else None

    def take(self) -> dict[str, Any]:
        """Look at what is wanted and not known; returns the counts for the summary."""
        for film in self.wanted():
            self.one(film)
        self.book.close()
        if self.counts["other_settings"]:
            sf.log.info(
                "%d films were taken with other settings; --rescan looks at them again",
                self.counts["other_settings"],
            )
        told = {f"films_{key}" if key else "films": self.counts[key or "found"]
                for key in ("", "looked_at", "frames_kept", "faceless", "passed_over")}  # fmt: skip
        return {key: value for key, value in told.items() if value}

    def wanted(self) -> Iterator[sf.FoundFile]:
        """The films to take: all, or only clips of photos, or none."""
        names = photo_names(self.run.files)
        for film in self.run.scan.films:
            clip = is_beside(film, names) and self.is_short(film)
            ending = os.path.splitext(film.path)[1].lower()
            if clip or ending not in sf.VIDEO_SUFFIXES:  # a clip whose photo is not there
                if self.options.motion:
                    yield film
            elif self.options.films:
                yield film
            else:
                self.counts["passed_over"] += 1
        if self.options.motion:
            yield from (photo for photo in self.run.files if self.has_clip(photo))

    def is_short(self, film: sf.FoundFile) -> bool:
        """Whether a film beside a photo is no longer than a phone's clip of it.

        Where no film is taken that is not asked; a film that cannot be opened is taken for one.
        """
        if not self.options.wanted:
            return True
        with (
            contextlib.suppress(sf.VideoError),
            film_reading.open_video(film.path) as (container, _),
        ):
            return (container.duration or 0) / 1e6 <= CLIP_LENGTH
        return False

    def has_clip(self, photo: sf.FoundFile) -> bool:
        """Whether a photo carries a clip, or was seen to carry one as it is."""
        known = self.by_path.get(photo.path)
        if known and (known.size, known.mtime_ns) == (photo.size, photo.mtime_ns):
            return bool(known.id)
        try:
            found = clip_start(photo.path) > 0
        except OSError:
            return False  # told when it was hashed
        if not found and not self.draft:  # else every run would read all photos again
            facts = msgspec.structs.asdict(photo)
            self.book.append(sf.as_json(FilmLine(id="", settings=NO_CLIP, **facts)))
        return found

    def one(self, file: sf.FoundFile) -> None:
        """Take one film, unless it is known; what goes wrong costs this film only."""
        self.counts["found"] += 1
        known = self.by_path.get(file.path)
        if known and (known.size, known.mtime_ns) != (file.size, file.mtime_ns):
            known = None
        try:
            name = known.id if known else film_id(file.path, file.size, file.mtime_ns)
            film = Film(self.run, file, name, self.settings)
            if self.is_done(self.lines.get(name)):
                self.note(file, self.lines[name], known)
                return
            if self.run.held is None:
                self.run.check_cache()  # before anything is computed in vain
            film.network = self.network
            line = film.look()
        except OSError as error:
            self.run.fail(file.path, f"film: {error.strerror or error}")
            return  # tried again in every run
        except sf.VideoError as error:
            self.run.fail(file.path, f"film: {error}")
            line = film.line(error=str(error))
        self.counts.update(looked_at=1, frames_kept=len(line.kept))
        self.counts["faceless"] += not line.faces and not line.error
        self.remember(line)
        kept = set(line.paths(file.path))
        for path in self.of_film[file.path]:  # other bytes were there, or other settings
            if path not in kept and not line.error:
                self.run.forget(path)

    def is_done(self, line: FilmLine | None) -> bool:
        """Whether a film need not be looked at; --retry-errors and --rescan ask for it again."""
        if line is None:
            return False
        if line.error:
            return not self.run.options.retry_errors
        if line.settings != self.settings:
            if self.run.options.rescan or not line.kept:
                return False
            self.counts["other_settings"] += 1
        run = self.run  # its frames may have been pruned meanwhile, or forgotten for good
        there = (sha in run.paths_of or run.door.refuses(sha) for sha in line.shas())
        return not line.kept or any(there)

    def note(self, file: sf.FoundFile, line: FilmLine, known: FilmLine | None) -> None:
        """A known film at another path, or with another time: its frames lie there, too."""
        if known is not None or line.error:
            return
        for path, sha in zip(line.paths(file.path), line.shas(), strict=True):
            if sha in self.run.paths_of:
                self.run.note_path(sf.FoundFile(path, file.size, file.mtime_ns), sha)
        facts = {"path": file.path, "size": file.size, "mtime_ns": file.mtime_ns}
        self.remember(msgspec.structs.replace(line, **facts))

    def remember(self, line: FilmLine) -> None:
        self.lines[line.id] = self.by_path[line.path] = line
        self.book.append(sf.as_json(line))


def take_films(run: sf.EmbedRun) -> dict[str, Any]:
    """Take the films of a library as the options say; returns counts for the summary."""
    return Films(run).take()


def number_to_look_at(run: sf.EmbedRun) -> int:
    """How many films an EmbedRun would decode."""
    films = Films(run, draft=True)
    names = ((film_id(file.path, file.size, file.mtime_ns)) for file in films.wanted())
    return sum(not films.is_done(films.lines.get(name)) for name in names)
