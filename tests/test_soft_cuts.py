"""Dissolves, wipes and fades end scenes; pans, zooms, flashes and lamps do not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from test_video import known_video
from video_material import EDGE, RATE, empty_picture, face_picture, write_video

import sort_faces as sf

soft_cuts = sf.companion("soft_cuts")
film_reading, film_pass = sf.companion("film_reading"), sf.companion("film_pass")
LENGTH = 3.0  # s; of a shot beside a transition


def panned(picture: np.ndarray, frames: int, speed: float) -> list[np.ndarray]:
    """A picture that drifts to and fro, by `speed` px a frame."""
    way = [round(abs(n * speed % 24 - 12)) for n in range(frames)]
    return [np.ascontiguousarray(np.roll(picture, step, axis=1)) for step in way]


def wipe(share: float, shape: tuple[int, ...]) -> np.ndarray:
    """(h, w, 1) share of the second picture, which comes from the left."""
    return np.broadcast_to(np.arange(shape[1])[None, :, None] < share * shape[1], (*shape[:2], 1))


def corner(share: float, shape: tuple[int, ...]) -> np.ndarray:
    """(h, w, 1) the same, which takes the picture from a corner."""
    rows, columns = np.indices(shape[:2])
    return (rows / shape[0] + columns / shape[1] < 2 * share)[..., None]


MASKS: dict[str, Callable] = {
    "dissolve": lambda share, shape: np.full((*shape[:2], 1), share),
    "wipe": wipe,
    "wipe down": lambda share, shape: wipe(share, (shape[1], shape[0])).transpose(1, 0, 2),
    "corner": corner,
}


def slid(before: np.ndarray, after: np.ndarray, at: int, goes: bool, comes: bool) -> np.ndarray:
    """A slide to the left that has come `at` px far; which of the two pictures move."""
    keep = before.shape[1] - at
    left = before[:, at:] if goes else before[:, :keep]
    return np.hstack([left, after[:, :at] if comes else after[:, keep:]])


SLIDES = {"push": (True, True), "cover": (False, True), "reveal": (True, False)}
COLOURS = {"over black": 0, "over white": 255, "over grey": 100}
OVER = (*MASKS, *SLIDES, *COLOURS)


def between(kind: str, before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    """The picture that has come `share` of the way from the one to the other."""
    if kind in SLIDES:
        return slid(before, after, round(share * before.shape[1]), *SLIDES[kind])
    if kind in COLOURS:
        side, left = (before, 1 - 2 * share) if share < 0.5 else (after, 2 * share - 1)
        return np.rint(side * left + COLOURS[kind] * (1 - left)).astype(np.uint8)
    mask = MASKS[kind](share, before.shape)
    return np.rint(before * (1 - mask) + after * mask).astype(np.uint8)


def joined_by(
    kind: str, one: Sequence[np.ndarray], two: Sequence[np.ndarray], length: int
) -> list[np.ndarray]:
    """Two shots of which the first goes over into the second for `length` frames."""
    pairs = enumerate(zip(one[-length:], two, strict=False), 1)
    film = [between(kind, *pair, number / (length + 1)) for number, pair in pairs]
    return [*one[: len(one) - length], *film, *two[length:]]


DRIFTS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "pan": lambda picture, n: np.roll(picture, 3 * n, axis=1),
    "whip": lambda picture, n: np.roll(picture, 9 * n, axis=1),
    "turn": lambda picture, n: np.roll(picture, int(np.clip(n - 50, 0, 15)) * 27, axis=1),
    "lamp": lambda picture, n: np.rint(picture * (0.4 + 0.6 * min(1, abs(n - 75) / 40))),
    "flash": lambda picture, n: np.clip(picture.astype(int) + 70 * (n in (50, 51)), 0, 255),
}


def made_film(kind: str, picture: np.ndarray, frames: int = 150) -> Iterator[np.ndarray]:
    for number in range(frames):
        yield DRIFTS[kind](picture, number).astype(np.uint8)


def scenes_of(path: Path) -> list[tuple[float, float]]:
    video, found = known_video(path)
    return [tuple(np.round(video.seconds(np.array(s)), 3).tolist()) for s in found.scenes]


@pytest.mark.parametrize("seconds", [0.32, 1.0, 2.0])
@pytest.mark.parametrize("kind", OVER)
def test_what_goes_over_slowly_belongs_to_no_scene(tmp_path, kind, seconds):
    shots = [panned(empty_picture(seed), round(LENGTH * RATE) + 50, 0.3) for seed in (1, 4)]
    path = write_video(tmp_path / "v.mp4", joined_by(kind, *shots, round(seconds * RATE)))
    first, last, *more = scenes_of(path)
    assert not more
    begins = len(shots[0]) / RATE - seconds
    assert begins - 0.7 <= first[1] <= begins + 1.1 / RATE  # one frame inside at most
    assert begins + seconds - 1.1 / RATE <= last[0] <= begins + seconds + 0.7


@pytest.mark.parametrize("kind", [*DRIFTS])
def test_what_moves_or_lights_up_is_no_transition(tmp_path, kind):
    path = write_video(tmp_path / "v.mp4", list(made_film(kind, face_picture("anna"))))
    once = film_pass.VideoPass(known_video(path)[0], 1.0, None)
    assert len(list(once.samples())) == 6 and once.finder.soft.transitions() == []


def test_black_between_two_shots_belongs_to_none(tmp_path):
    black = [np.zeros((EDGE, EDGE, 3), np.uint8)] * RATE
    shots = [panned(empty_picture(seed), 3 * RATE, 0.3) for seed in (1, 4)]
    dim = [np.round(shots[0][-1] * k / 30).astype(np.uint8) for k in range(30, 0, -1)]
    first, last = scenes_of(write_video(tmp_path / "v.mp4", [*shots[0], *dim, *black, *shots[1]]))
    assert 2.5 <= first[1] <= 3.2 and last[0] == round(3 + 30 / RATE + 1, 3)


def test_scenes_beside_gaps():
    scenes = [(0, 100), (100, 200)]
    assert sf.scenes_beside(scenes, [(40, 60)], 10) == [[0, 40], [60, 100], [100, 200]]
    assert sf.scenes_beside(scenes, [(40, 95)], 10) == [[0, 40], [100, 200]]  # too little is left
    assert sf.scenes_beside(scenes, [(90, 120)], 10) == [[0, 90], [120, 200]]
    assert sf.scenes_beside(scenes, [], 10) == [[0, 100], [100, 200]]


@pytest.mark.parametrize("kind", ["dissolve", "push", "over black"])
def test_it_finds_the_same_whenever_it_begins(kind, tmp_path):
    """What a kill costs must not change the outcome: a finder that saw MEMORY knows as much."""
    shots = [panned(empty_picture(seed), 5 * RATE, 0.3) for seed in (1, 4)]
    path = write_video(tmp_path / "v.mp4", joined_by(kind, *shots, RATE))
    video, found = known_video(path)
    frames = [
        (pts, np.ascontiguousarray(image[::2, ::2]))
        for pts, image in film_reading.frames_at(video.path, found.pts.tolist(), video.sar)
    ]
    whole = soft_cuts.SoftCuts(video)
    at = [(whole.feed(*frame), (len(whole.found), len(whole.sure)))[1] for frame in frames]
    assert sum(at[-1]) > (5 if kind == "dissolve" else 0)
    for stop in range(60, len(frames) - 1, 17):
        seconds, count = soft_cuts.MEMORY
        low = frames[stop - 1][0] - round(seconds / video.tick)
        first = max(0, min(np.searchsorted(found.pts, low), stop - count))
        again = soft_cuts.SoftCuts(video)
        for frame in frames[first:stop]:
            again.feed(*frame)
        again.found, again.sure = (
            known[:count]
            for known, count in zip((whole.found, whole.sure), at[stop - 1], strict=True)
        )
        for frame in frames[stop:]:
            again.feed(*frame)
        assert again.found == whole.found and again.sure == whole.sure


def two_shots(shared) -> list[list[np.ndarray]]:
    """Frames of two shots of mixtape.mp4 with a face, nearly four seconds each."""
    truth = json.loads((shared / "data/videos/mixtape.truth.json").read_text())
    rows = [r for r in truth if r["face"] == "yes" and r["end"] - r["start"] > 4][:2]
    video, found = known_video(shared / "data/videos/mixtape.mp4")
    times = video.seconds(found.pts)
    shots = []
    for row in rows:
        wanted = found.pts[(times > row["start"] + 0.1) & (times < row["start"] + 3.9)]
        shots.append([i for _, i in film_reading.frames_at(video.path, wanted.tolist(), video.sar)])
    return shots


def test_no_clip_of_a_made_film_ends_in_another_shot(run, mini, shared, tmp_path):
    """Two shots of mixtape.mp4 with a face, which dissolve into each other."""
    shots = two_shots(shared)
    film = write_video(tmp_path / "films/v.mp4", joined_by("dissolve", *shots, RATE))
    work, clips = tmp_path / "work", tmp_path / "clips"
    code, _, err = run("video", "run", film.parent, work, clips, "--model", mini, "-q")
    assert code == 0, err
    begins = len(shots[0]) / RATE - 1
    spans = [
        (s["start"], s["end"]) for s in json.loads((work / "plan.json").read_text())["segments"]
    ]
    assert len(spans) == 2
    for start, end in spans:
        assert end <= begins + 0.05 or start >= begins + 0.95
    assert all(b[0] - a[1] > 0.8 for a, b in itertools.pairwise(spans))


@pytest.mark.parametrize("kind", ["cut", "dissolve"])
def test_the_check_of_a_clip_sees_another_scene_in_it(tmp_path, kind):
    clips = sf.companion("clips")
    shots = [panned(empty_picture(seed), 3 * RATE, 0.3) for seed in (1, 4)]
    film = joined_by("dissolve", *shots, RATE) if kind == "dissolve" else [*shots[0], *shots[1]]
    video, found = known_video(write_video(tmp_path / "v.mp4", film))
    changes = []
    for low, high in ((0, 40), (10, len(film) - 10)):
        span = int(found.pts[low]), int(found.pts[high])
        cut = clips.Cut(video, *span, tmp_path / f"{low}.mp4", found.pts)
        changes.append(clips.cut_clip(cut, "smart", lambda *_: None).checked.changes)
    assert changes[0] == ()
    assert changes[1] == pytest.approx([2.6 if kind == "cut" else 2.1], abs=0.3)
