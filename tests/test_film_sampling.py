"""What is looked at in a film: little where nothing changes, close-ups with a border."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_video import known_video
from video_material import RATE, empty_picture, face_picture, shot, write_video

import sort_faces as sf

sampling = sf.companion("film_sampling")
DIM = 8


def face(left: float, yaw: float = 0.0, size: float = 100.0, who: int = 0) -> np.ndarray:
    """(FACE_FLOATS + DIM,) a face of a frame."""
    box = [left, 50.0, left + size, 50.0 + size]
    rest = np.zeros(sf.FACE_FLOATS - 8)
    return np.array([*box, 0.9, 0.0, yaw, 0.0, *rest, *np.eye(DIM)[who]], np.float32)


def sight(*faces: np.ndarray, padded: bool = False) -> sampling.Sight:
    seen = sampling.sight_of(np.stack(faces)) if faces else sampling.NOTHING
    return replace(seen, padded=padded, short=360.0)


def looked_at(truth: dict[int, sampling.Sight], **how: int) -> dict[int, bool]:
    """The samples of a scene that a Rule chooses in the end, and whether with a border.

    truth: what a look with a border would show of each; without one padded faces are not seen.
    """
    samples, seen = [*truth], {}
    while True:
        rule = sampling.Rule(samples, samples, seen, **{"step": 4, "probe": 16, **how}).choose()
        if not rule.missing:
            return rule.chosen
        for pts, border in rule.missing.items():
            hidden = truth[pts].padded and not border
            seen[pts] = sight(padded=border) if hidden else truth[pts]
            if border and not len(truth[pts].rows):
                seen[pts] = sight(padded=True)


def test_where_nothing_changes_every_fourth_sample_is_enough():
    assert [*looked_at({n: sight(face(10.0 + n)) for n in range(23)})] == [0, 4, 8, 12, 16, 20, 22]
    assert len(looked_at({n: sight(face(10.0)) for n in range(23)}, step=1)) == 23


def test_where_something_changes_it_is_looked_at_closely():
    come = {n: sight(face(10)) if n >= 9 else sight() for n in range(17)}
    assert {8, 9, 10} <= looked_at(come).keys()  # the first with a face and the one before it
    turn = {n: sight(face(10, yaw=8.0 * max(0, n - 8))) for n in range(17)}
    assert looked_at(turn).keys() >= {*range(8, 17, 2)}
    other = {n: sight(face(10, who=int(n > 5))) for n in range(17)}
    assert {5, 6} <= looked_at(other).keys()


def test_faces_too_small_to_matter_change_nothing():
    flicker = {n: sight(*[face(10, size=20.0)] * (n % 2)) for n in range(21)}
    assert len(looked_at(flicker)) == 6


def test_nobody_is_overlooked_for_as_long_as_a_clip():
    """Of samples twice a second a clip of a second has two; three lie between those looked at."""
    for first in range(1, 15):
        come = {n: sight(face(10)) if first <= n < first + 2 else sight() for n in range(17)}
        assert {first, first + 1} <= looked_at(come, brief=2.0).keys()
    empty = {n: sight() for n in range(17)}
    assert sorted(looked_at(empty, brief=2.0)) == [*range(0, 17, 2)]
    assert sorted(looked_at(empty, brief=1.0)) == [*range(17)]
    assert len(looked_at({n: sight(face(10)) for n in range(17)}, brief=2.0)) == 5


def test_a_border_is_tried_now_and_then_and_kept_where_it_helps():
    empty = {n: sight() for n in range(40)}
    assert [n for n, border in looked_at(empty).items() if border] == [0, 16, 32]
    assert not any(looked_at(empty, probe=0).values())
    close = {n: sight(face(10, size=300.0), padded=True) for n in range(24)}
    assert all(looked_at(close).values())
    nearer = {n: sight(face(10, size=300.0), padded=n > 5) for n in range(17)}
    assert all(border for n, border in looked_at(nearer).items() if n > 5)


def test_what_was_left_out_gets_its_faces_from_both_sides(tmp_path):
    path = write_video(
        tmp_path / "v.mp4", list(shot(empty_picture(1), 9)), times=[*range(0, 9000, 1000)]
    )
    video, scenes = known_video(path)
    assert len(scenes.scenes) == 1
    work = sf.VideoWork(tmp_path / "work", draft=True)
    work.write(sf.VideoList(input="", videos=[sf.Scanned(str(path), video)]))
    work.scenes_of = lambda _: scenes
    looked = [int(scenes.pts[n]) for n in (0, 4, 8)]
    item = sf.Stretch(video.id, str(path), looked, 1.0)
    staged = sf.Staged(rate=1.0, every_sample=False, items=[item])
    even = sampling.Even(work, staged, [(item, pts) for pts in looked], [True] * 3)
    given = np.array([video.id] * 2), np.array(looked[:2]), np.stack([face(10), face(30)])
    _, pts, rows = even.filled(*given)
    assert pts.tolist() == scenes.pts[:5].tolist()
    assert rows[:, 0].tolist() == [10, 15, 20, 25, 30]


# -- whole films --------------------------------------------------------------


def chosen_of(work: Path) -> list[int]:
    return [
        pts
        for item in json.loads((work / "queue.json").read_text())["items"]
        for pts in item["pts"]
    ]


def plan_of(work: Path) -> list[tuple[float, float]]:
    segments = json.loads((work / "plan.json").read_text())["segments"]
    return [(segment["start"], segment["end"]) for segment in segments]


@pytest.fixture
def close_up(mini, shared, tmp_path) -> Path:
    """A folder with a film whose one face fills the picture."""
    photo = sf.decode_photo((shared / "data/portraits/img12.jpg").read_bytes()).image
    engine = sf.load_engine(sf.EngineSpec(model=str(mini)), 1)
    x1, y1, x2, y2 = sf.detect_padded(engine, photo).bbox[0].astype(int)
    picture = cv2.resize(photo[max(0, y1) : y2, max(0, x1) : x2], (288, 400))
    folder = tmp_path / "films"
    write_video(folder / "close.mp4", list(shot(picture, 6 * RATE)))
    return folder


def test_a_face_that_fills_the_picture_gives_a_clip(run, mini, close_up, tmp_path):
    work, clips = tmp_path / "work", tmp_path / "clips"
    code, _, err = run("video", "run", close_up, work, clips, "--model", mini, "-q")
    assert (code, err) == (0, "")
    assert plan_of(work) == [(0.0, 6.0)]
    assert len(chosen_of(work)) < 12
    work = tmp_path / "plain"
    argv = ("--model", mini, "--no-pad-retry", "-q", "--json")
    code, out, err = run("video", "run", close_up, work, tmp_path / "none", *argv)
    assert code == 1 and err == "warning: no face found in close.mp4\n"
    assert json.loads(out)["without_face"] == [str(close_up / "close.mp4")]
    assert "No face found in: close.mp4" in (work / "report/index.html").read_text()


def test_a_face_that_is_there_for_a_second_gives_a_clip(run, mini, tmp_path):
    """It comes and goes between the samples at 2 and at 4 s, in one scene."""
    frames = list(shot(cv2.resize(empty_picture(3), (960, 540)), 6 * RATE))
    for frame in frames[round(2.35 * RATE) : round(3.55 * RATE)]:
        frame[170:390, 400:620] = cv2.resize(face_picture("anna"), (220, 220))
    write_video(tmp_path / "films/brief.mp4", frames)
    plans = []
    for name, *more in (("dense", "--every-sample"), ("sparse",)):
        work = tmp_path / name
        argv = (tmp_path / "films", work, tmp_path / f"{name} clips", "--model", mini, "-q", *more)
        assert run("video", "run", *argv)[0] == 0
        assert len(sf.VideoWork(work).scenes_of(sf.VideoWork(work).list_videos()[0]).scenes) == 1
        plans.append(plan_of(work))
    assert plans[0] == plans[1] and len(plans[0]) == 1


def test_mixtape_gives_the_same_clips_from_half_the_frames(run, mini, shared, tmp_path):
    source, plans, looked = shared / "data/videos/mixtape.mp4", [], []
    for name, *more in (("dense", "--every-sample"), ("sparse",), ("steps",)):
        work = tmp_path / name
        if name == "steps":
            for step in ("scenes", "stage", "detect", "merge", "track", "score"):
                if step == "scenes":
                    assert run("video", "scan", source, work, "-q")[0] == 0
                asked = ("--model", mini) if step == "detect" else ()
                assert run("video", step, work, *asked, "-q")[0] == 0
        else:
            argv = (source, work, tmp_path / f"{name} clips", "--model", mini, "-q", *more)
            assert run("video", "run", *argv)[0] == 0
        plans.append(plan_of(work))
        looked.append(len(chosen_of(work)))
    assert plans[0] == plans[1] == plans[2] and len(plans[0]) == 7
    assert looked[1] == looked[2] <= 0.55 * looked[0]


def test_a_device_that_is_not_there_is_refused_in_one_line(run, close_up, tmp_path):
    argv = (close_up, tmp_path / "work", tmp_path / "clips", "--model", "dlib", "-q")
    code, _, err = run("video", "run", *argv, "--hwaccel", "abacus")
    assert code == 2 and err.count("\n") == 1 and "--hwaccel abacus: this PyAV offers" in err
    assert run("video", "scenes", tmp_path / "work", "-q", "--hwaccel", "abacus")[0] == 2
