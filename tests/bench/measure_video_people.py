"""People across scenes and films against the truth: pairwise precision and recall.

    python tests/bench/measure_video_people.py SCRATCH MODEL [mixtape|shuffled|photos ...]

Needs ../shared. Three materials, each in a folder below SCRATCH, where a rerun goes on:

    mixtape    the film of ten shots, whose sources are known; one of them returns
    shuffled   two films cut into pieces of 2 s, which are shuffled and joined into two films; who
               is who is told by the tracks of the films as they were
    photos     two films of shots of a second, a photo each, of people with several photos and of
               people with one

Figures are in docs/analysis/video.md.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent), str(ROOT / "tests")]

from common import print_table  # noqa: E402
from metrics import mixed_groups, pairwise_scores  # noqa: E402
from video_material import RATE, shot, write_video  # noqa: E402

import sort_faces as sf  # noqa: E402

film_reading = sf.companion("film_reading")

SHARED = ROOT.parent / "shared" / "data"
PIECE = 2.0  # s
PAIRS = (  # films whose people are shuffled together
    ("ff_dance-360p.mp4", "dlc_DemoTwoFace.mp4"),
    ("marlin_video04.mp4", "rope_target-1080p.mp4"),
)
BY_EYE = {  # who the tracks of a film are; None: several, or a face swapped from another
    "ff_dance-360p.mp4": ["man", "red", "plait", "plait", "afro", None, "afro", "man", "man", "red",
                          "red", "red", "afro", "afro", "plait"],
    "dlc_DemoTwoFace.mp4": ["left", "right", None, None],
    "marlin_video04.mp4": ["marlin"],
    "rope_target-1080p.mp4": ["rope"],
}  # fmt: skip
PHOTOS = 6  # of a person at most
LONERS = 40  # people with one photo


class Piece(NamedTuple):
    """A stretch of a made film and where it comes from."""

    film: str
    start: float  # s
    source: str
    source_start: float
    length: float


# --- films ------------------------------------------------------------------


def whole_run(films: Path, work: Path, model: str) -> sf.Tracks:
    """The tracks of a folder of films; what was looked at is not looked at again."""
    code = sf.main(["video", "scan", str(films), str(work), "-q"])
    steps = (("scenes",), ("stage",), ("detect", "--model", model), ("merge",), ("track",))
    for step, *more in steps:
        code = code or sf.main(["video", step, str(work), *more, "-q"])
    if code:
        raise SystemExit(code)
    return sf.VideoWork(work).read(sf.Tracks)


def frames_of(path: Path) -> tuple[list[np.ndarray], float]:
    """(frames, frames per second) of a film."""
    with film_reading.open_video(str(path)) as (container, stream):
        rate = float(stream.average_rate)
        return [f.to_ndarray(format="bgr24") for f in film_reading.decoded(container, stream)], rate


def padded(image: np.ndarray, wh: tuple[int, int]) -> np.ndarray:
    """A picture in the corner of a black one, so that no face changes its size."""
    canvas = np.zeros((wh[1], wh[0], 3), np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def shuffle(names: Sequence[str], folder: Path) -> list[Piece]:
    """Write two films of the shuffled pieces of some films."""
    pieces, pictures = [], {}
    for name in names:
        frames, rate = frames_of(SHARED / "videos" / name)
        pictures[name] = frames, rate
        length = len(frames) / rate
        pieces += [(name, at) for at in np.arange(0.0, length - PIECE + 1e-6, PIECE)]
    wh = tuple(max(frames[0].shape[axis] for frames, _ in pictures.values()) for axis in (1, 0))
    wh = tuple(length + length % 2 for length in wh)
    order = np.random.default_rng(0).permutation(len(pieces))
    told = []
    for number, half in enumerate(np.array_split(order, 2)):
        shown, film = [], f"half_{number}.mp4"
        for at in half:
            name, start = pieces[at]
            frames, rate = pictures[name]
            told.append(Piece(film, len(shown) / RATE, name, float(start), PIECE))
            picked = [round((start + k / RATE) * rate) for k in range(round(PIECE * RATE))]
            shown += [padded(frames[min(p, len(frames) - 1)], wh) for p in picked]
        write_video(folder / film, shown, g="50", crf="18")
    return told


def photo_films(folder: Path) -> list[Piece]:
    """Write two films of photos, a shot each."""
    people = sorted(path for path in (SHARED / "people").iterdir() if path.is_dir())
    many, one = [], []
    for person in people:
        photos = sorted(person.glob("*.jpg"))
        if len(photos) >= 4:
            many += [(person.name, photo) for photo in photos[:PHOTOS]]
        elif len(photos) == 1:
            one.append((person.name, photos[0]))
    chosen = many + one[:LONERS]
    order = np.random.default_rng(0).permutation(len(chosen))
    told = []
    for number, half in enumerate(np.array_split(order, 2)):
        shown, film = [], f"photos_{number}.mp4"
        for at in half:
            person, photo = chosen[at]
            image = sf.read_photo(str(photo)).image
            scale = min(640 / image.shape[1], 480 / image.shape[0])
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            told.append(Piece(film, len(shown) / RATE, person, 0.0, 1.0))
            shown += [padded(frame, (640, 480)) for frame in shot(small, RATE)]
        write_video(folder / film, shown, g="25", crf="18")
    return told


def made(folder: Path, make: object) -> list[Piece]:
    """The pieces of the films in a folder, which are made once."""
    note = folder / "pieces.json"
    if not note.exists():
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(make()))
    return [Piece(*piece) for piece in json.loads(note.read_text())]


# --- truth ------------------------------------------------------------------


def by_name(data: sf.Tracks) -> dict[str, str]:
    """{video: name of its file}"""
    return {video: Path(about.path).name for video, about in data.videos.items()}


def truth_of_mixtape(data: sf.Tracks) -> dict[str, str]:
    """{track: source of its shot} where that shows one person."""
    shots = json.loads((SHARED / "videos" / "mixtape.truth.json").read_text())
    found = {}
    for track in data.tracks:
        middle = float(np.median(track.time))
        shown = next(s for s in shots if s["start"] <= middle < s["end"])
        if shown["face"] == "yes":
            found[track.name] = shown["source"]
    return found


def largest(data: sf.Tracks, pieces: Sequence[Piece]) -> dict[str, str]:
    """{track: source} of the largest face of each piece."""
    names, best = by_name(data), {}
    for track in data.tracks:
        piece = piece_at(pieces, names[track.video], float(np.median(track.time)))
        if piece and track.short.max() > best.get(piece, (0.0, ""))[0]:
            best[piece] = float(track.short.max()), track.name
    return {name: piece.source for piece, (_, name) in best.items()}


def piece_at(pieces: Sequence[Piece], film: str, time: float) -> Piece | None:
    inside = (p for p in pieces if p.film == film and p.start <= time < p.start + p.length)
    return next(inside, None)


def truth_of_pieces(data: sf.Tracks, pieces: Sequence[Piece], sources: sf.Tracks) -> dict[str, str]:
    """{track: who it is} by time and place in the source; most of its frames must agree."""
    names, own, faces = by_name(data), by_name(sources), defaultdict(list)
    numbers: Counter[str] = Counter()
    who = {}
    for track in sources.tracks:
        film = own[track.video]
        if film in BY_EYE:
            who[track.name] = BY_EYE[film][numbers[film]]
            numbers[film] += 1
    for track in sources.tracks:
        for time, box in zip(track.time.tolist(), track.bbox, strict=True):
            faces[own[track.video]].append((time, box, track.name))
    found = {}
    for track in data.tracks:
        votes: Counter[str] = Counter()
        for time, box in zip(track.time.tolist(), track.bbox, strict=True):
            piece = piece_at(pieces, names[track.video], time)
            if piece is None:
                continue
            at = piece.source_start + time - piece.start
            near = [(abs(t - at), -float(sf.box_iou(box, b[None])[0]), name)
                    for t, b, name in faces[piece.source] if abs(t - at) < 0.3]  # fmt: skip
            near = [entry for entry in near if entry[1] < -0.3]
            votes.update([min(near)[2]] if near else [])
        most, times = (*votes.most_common(1), ("", 0))[0]
        if times * 2 > len(track.time) and who.get(most):
            found[track.name] = who[most]
    return found


# --- scores -----------------------------------------------------------------


def row_of(what: str, data: sf.Tracks, truth: dict[str, str]) -> dict[str, object]:
    """A line of the table."""
    people = sf.companion("video_people")
    label = {
        track: person.id for person in people.find_people(data, [], 0.5) for track in person.tracks
    }
    names = sorted(truth)
    who, given = [truth[name] for name in names], [label[name] for name in names]
    scores = pairwise_scores(who, given)
    return {
        "films": what,
        "tracks": len(names),
        "people": len({*who}),
        "groups": len({*given}),
        "precision": f"{scores.precision:.3f}",
        "recall": f"{scores.recall:.3f}",
        "mixed groups": mixed_groups(who, given),
    }


def lines(scratch: Path, model: str, kinds: Sequence[str]) -> Iterator[dict[str, object]]:
    if "mixtape" in kinds:
        data = whole_run(SHARED / "videos" / "mixtape.mp4", scratch / "mixtape", model)
        yield row_of("mixtape", data, truth_of_mixtape(data))
    if "shuffled" in kinds:
        sources = whole_run(SHARED / "videos", scratch / "sources", model)
        for number, names in enumerate(PAIRS):
            folder = scratch / f"shuffled_{number}"
            pieces = made(folder, lambda names=names, folder=folder: shuffle(names, folder))
            data = whole_run(folder, scratch / f"shuffled_{number}_work", model)
            truth = truth_of_pieces(data, pieces, sources)
            yield row_of(" + ".join(names), data, truth)
    if "photos" in kinds:
        folder = scratch / "photos"
        pieces = made(folder, lambda: photo_films(folder))
        data = whole_run(folder, scratch / "photos_work", model)
        yield row_of("photos", data, largest(data, pieces))


def main() -> None:
    scratch, model, *kinds = sys.argv[1:]
    kinds = kinds or ["mixtape", "shuffled", "photos"]
    print_table("people", list(lines(Path(scratch).resolve(), model, kinds)))


if __name__ == "__main__":
    main()
