"""The video commands on made films, with dlib; and on the shared films, where they are."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from conftest import ROOT, SCRIPT
from video_material import (
    RATE,
    empty_picture,
    face_picture,
    ffmpeg,
    film,
    frames_of,
    renamed,
    rotated,
    shot,
    write_video,
)

import sort_faces as sf

writer = sf.companion("clips")
film_reading, film_pass = sf.companion("film_reading"), sf.companion("film_pass")

SHOTS = (("anna", 2.0), ("", 1.6), ("dora", 2.4))  # (who, seconds)
CUTS = [2.0, 3.6]
FACE_SHOTS = [(0.0, 2.0), (3.6, 6.0)]


@pytest.fixture(scope="session")
def films(tmp_path_factory) -> Path:
    """One film of three shots, with sound and one key frame, in a folder of its own."""
    folder = tmp_path_factory.mktemp("films")
    write_video(
        folder / "film.mp4", list(film(SHOTS)), audio="aac", **{"x264-params": "scenecut=0"}
    )
    return folder


@pytest.fixture(scope="session")
def finished(films, tmp_path_factory) -> tuple[Path, Path]:
    """(work folder, clips) of a whole run over the film."""
    base = tmp_path_factory.mktemp("finished")
    assert sf.main(["video", "run", str(films), str(base / "work"), str(base / "clips"), "--model",
                    "dlib", "-q", "--json"]) == 0  # fmt: skip
    return base / "work", base / "clips"


@pytest.fixture
def again(finished, tmp_path) -> tuple[Path, Path]:
    """A copy of the finished run, to go on with."""
    work = Path(shutil.copytree(finished[0], tmp_path / "work"))
    clips = Path(shutil.copytree(finished[1], tmp_path / "clips"))
    renamed(work / "clips.jsonl", finished[1], clips)
    return work, clips


def plan_of(work: Path) -> dict:
    """A plan without where it was carried out."""
    plan = json.loads((work / "plan.json").read_text())
    plan.pop("out", None)
    return plan


def spans(plan: dict) -> list[tuple[float, float]]:
    return [(segment["start"], segment["end"]) for segment in plan["segments"]]


def shows_shots(clip: Path, source: list[np.ndarray], start: float, end: float) -> None:
    """Assert that a clip shows exactly the frames of a stretch of its source."""
    expected = source[round(start * RATE) : round(end * RATE)]
    frames = frames_of(clip)
    assert len(frames) == len(expected)
    for frame, wanted in zip(frames, expected, strict=True):
        assert np.abs(frame - wanted).mean() < 4


# -- the whole chain ---------------------------------------------------------


def test_the_shots_with_a_face_become_clips(films, finished):
    work, clips = finished
    plan = plan_of(work)
    assert spans(plan) == FACE_SHOTS
    scenes = json.loads(next((work / "scenes").iterdir()).read_text())["scenes"]
    video = sf.VideoWork(work).list_videos()[0]
    assert [round(video.seconds(low), 3) for low, _ in scenes] == [0.0, *CUTS]
    source = frames_of(films / "film.mp4")
    for segment in plan["segments"]:
        clip = clips / "film" / f"{segment['uuid']}.mp4"
        shows_shots(clip, source, segment["start"], segment["end"])
        assert segment["checked"]["fault"] == "" and segment["fallback"] == ""
        assert segment["clip"] == f"film/{segment['uuid']}.mp4"
        assert segment["source"] == str(films / "film.mp4")
        assert segment["checked"]["first_frame"] == round(segment["start"] * RATE)
    assert not list(clips.rglob("*.json"))


def test_sound_stays_in_sync(films, finished):
    """The pitch changes every half second; the clips' sound matches the source's at every time."""
    work, clips = finished

    def sound(path: Path) -> tuple[np.ndarray, float]:
        import av

        with av.open(str(path)) as container:
            frames = list(container.decode(audio=0))
            start = float(frames[0].pts * frames[0].time_base)
            return np.concatenate([f.to_ndarray()[0] for f in frames]), start

    whole, zero = sound(films / "film.mp4")
    for segment in plan_of(work)["segments"]:
        part, start = sound(clips / segment["clip"])
        assert abs(len(part) / 44100 - (segment["end"] - segment["start"])) < 0.06
        at = round((segment["start"] + start - zero) * 44100)
        middle = slice(20000, 40000)
        expected = whole[at:][middle]
        assert np.corrcoef(part[middle], expected)[0, 1] > 0.98


def test_the_steps_one_by_one_give_the_same_plan(run, films, finished, tmp_path):
    work, clips = tmp_path / "work", tmp_path / "clips"
    for argv in (
        ("scan", films, work),
        ("scenes", work),
        ("stage", work),
        ("detect", work, "--model", "dlib"),
        ("merge", work),
        ("track", work),
        ("score", work),
        ("cut", work, clips),
        ("report", work),
    ):
        code, _, err = run("video", *argv, "-q")
        assert (code, err) == (0, ""), argv
    assert plan_of(work) == plan_of(finished[0])


def test_a_second_run_has_nothing_to_do(run, films, again):
    work, clips = again
    before = {path: path.stat().st_mtime_ns for path in clips.rglob("*.mp4")}
    size = (work / "results.jsonl").stat().st_size
    code, out, _ = run("video", "run", films, work, clips, "--model", "dlib", "--json")
    assert code == 0 and json.loads(out)["clips"] == 2
    assert {path: path.stat().st_mtime_ns for path in clips.rglob("*.mp4")} == before
    assert (work / "results.jsonl").stat().st_size == size


def test_other_thresholds_set_the_old_clips_aside(run, again):
    work, clips = again
    old = {segment["clip"] for segment in plan_of(work)["segments"]}
    yours = clips / "film" / "mine.mp4"
    yours.write_bytes(b"not written by the tool")
    code, out, _ = run("video", "score", work, "--min-dur", "2.1", "--json")
    assert code == 0 and json.loads(out)["segments"] == 1
    code, out, _ = run("video", "cut", work, clips, "--write-sidecar", "--json")
    assert code == 0 and json.loads(out)["set_aside"] == 1
    (kept,) = plan_of(work)["segments"]
    (gone,) = old - {kept["clip"]}
    assert (clips / "_removed" / gone).exists() and not (clips / gone).exists()
    assert yours.exists()
    sidecar = json.loads((clips / kept["clip"]).with_suffix(".json").read_text())
    assert sidecar["uuid"] == kept["uuid"] and sidecar["quality"]["yaw"] < 75
    rejected = plan_of(work)["rejected"]
    assert any("shorter than 2.1 s" in row["reason"] for row in rejected)


@pytest.mark.parametrize("way", ["copy", "encode"])
def test_the_other_ways_to_cut(run, films, again, way):
    work, clips = again
    code, out, _ = run("video", "cut", work, clips, "--cut", way, "--json")
    assert code == 0 and json.loads(out)["written"] == 2
    source = frames_of(films / "film.mp4")
    second = plan_of(work)["segments"][1]
    assert second["mode"] == way
    if way == "encode":
        shows_shots(clips / second["clip"], source, 3.6, 6.0)
    else:  # the only key frame is the first: a copy begins there, and the plan says so
        assert second["checked"]["start"] == 0.0 and second["checked"]["first_frame"] == 0
        assert len(frames_of(clips / second["clip"])) == len(source)


def test_two_at_once_are_refused(run, films, finished):
    work, _ = finished
    with sf.VideoWork(work).lock():
        code, out, err = run("video", "score", work)
    assert (code, out) == (2, "") and f"process {os.getpid()}" in err and err.count("\n") == 1


# -- whose face --------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path):
    """A .fsz with one crop of a person."""
    import zipfile

    import cv2

    def make(name: str) -> Path:
        path = tmp_path / f"{name}.fsz"
        data = cv2.imencode(".png", face_picture(name))[1].tobytes()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("0001.png", data)
        return path

    return make


def test_identity_keeps_one_person_and_exclude_drops_one(run, again, bundle):
    work, _ = again
    anna, dora = bundle("anna"), bundle("dora")
    assert run("video", "score", work, "--identity", anna)[0] == 0
    plan = plan_of(work)
    assert spans(plan) == [FACE_SHOTS[0]] and plan["segments"][0]["identity"] == ["anna"]
    assert any(row["reason"] == "another person" for row in plan["rejected"])
    assert run("video", "score", work, "--exclude-identity", anna)[0] == 0
    plan = plan_of(work)
    assert spans(plan) == [FACE_SHOTS[1]]
    assert any("excluded" in row["reason"] for row in plan["rejected"])
    assert run("video", "score", work, "--identity", anna, "--identity", dora)[0] == 0
    assert spans(plan_of(work)) == FACE_SHOTS


def test_an_identity_is_embedded_once(run, again, bundle, monkeypatch):
    work, _ = again
    anna = bundle("anna")
    assert run("video", "score", work, "--identity", anna)[0] == 0
    monkeypatch.setattr(sf, "load_engine", lambda *_: pytest.fail("loads a model again"))
    assert run("video", "score", work, "--identity", anna)[0] == 0


def test_an_identity_of_another_model_is_refused(run, again, bundle, mini):
    work, _ = again
    argv = ("score", work, "--identity", bundle("anna"), "--model", mini)
    code, _, err = run("video", *argv)
    assert code == 2 and "two models cannot be compared" in err and err.count("\n") == 1


# -- films of every kind -----------------------------------------------------


def small_film(seconds: float = 2.0) -> list[np.ndarray]:
    return [
        frame for seed in (1, 2) for frame in shot(empty_picture(seed), round(seconds * RATE / 2))
    ]


def uneven(count: int) -> list[int]:
    """Time stamps that leave out every third frame."""
    return [1000 // RATE * (number + number // 2) for number in range(count)]


KINDS = {
    "h264 without sound": lambda p: write_video(p / "a.mp4", small_film()),
    "varying rate": lambda p: write_video(p / "v.mp4", small_film(), times=uneven(50)),
    "b frames and short groups": lambda p: write_video(
        p / "b.mp4", small_film(), g="10", preset="medium", bf="3"
    ),
    "open groups": lambda p: write_video(
        p / "o.mp4", small_film(), g="10", preset="medium", **{"x264-params": "open-gop=1"}
    ),
    "hevc": lambda p: write_video(p / "h.mp4", small_film(), codec="libx265", g="10"),
    "hevc of 10 bits": lambda p: write_video(
        p / "h10.mkv", small_film(), codec="libx265", pix_fmt="yuv420p10le", g="10"
    ),
    "matroska, late start": lambda p: write_video(
        p / "影片 ñ.mkv", small_film(), times=[5000 + 40 * n for n in range(50)], audio="libmp3lame"
    ),
    "transport stream": lambda p: write_video(p / "t.ts", small_film(), audio="aac", g="10"),
    "avi with pcm": lambda p: write_video(
        p / "p.avi", small_film(), codec="mpeg4", audio="pcm_s16le"
    ),
    "vp9": lambda p: write_video(
        p / "w.webm", small_film(), codec="libvpx-vp9", deadline="realtime"
    ),
    "anamorphic": lambda p: write_video(p / "s.mp4", small_film(), sar=Fraction(4, 3)),
    "turned": lambda p: rotated(write_video(p / "r.mp4", small_film()), 90),
}


JOINED = {"b frames and short groups", "hevc", "hevc of 10 bits", "transport stream"}


def known_video(path: Path) -> tuple[sf.Video, sf.Scenes]:
    """Facts, and what one pass finds."""
    facts = path.stat()
    video = film_reading.video_facts(str(path), facts.st_size, facts.st_mtime_ns)
    once = film_pass.VideoPass(video, sf.Sampling.sample_rate, None)
    assert all(image is None for _, image in once.samples())
    return video, once.result()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_sampled_and_cut_exactly(kind, tmp_path):
    path = KINDS[kind](tmp_path)
    video, found = known_video(path)
    frames = found.pts
    assert len(frames) == found.frames >= 49
    assert len(found.scenes) == 2 and found.error == ""
    assert video.vfr == (kind == "varying rate")
    start, end = int(frames[7]), int(frames[33])  # over the cut, off every key frame
    cut = writer.Cut(video, start, end, tmp_path / "out.mp4", frames)
    made = writer.cut_clip(cut, "smart", lambda *_: None)
    assert made.checked.frames == 26 and made.checked.fault == ""
    assert made.checked.difference < 5
    if kind in JOINED:
        assert (made.mode, made.fallback) == ("smart", "")
    if kind == "open groups":  # frames before a key frame are missing: noticed, encoded, told
        assert made.mode == "encode" and made.fallback.startswith("smart: ")
    if video.audio:
        clip = film_reading.video_facts(str(tmp_path / "out.mp4"), 1, 1)
        assert len(clip.audio) == 1


RATES = {  # how ffmpeg makes them of a film of 25 frames a second
    "60 a second.mp4": "-vf fps=60",
    "120 a second.mp4": "-vf fps=120",
    "telecined.mkv": "-vf setpts=25/24*PTS,fps=24,telecine=pattern=23 -flags +ildct+ilme",
    "50 fields.ts": "-vf fps=50,tinterlace=interleave_top -flags +ildct+ilme -c:v mpeg2video -q 2",
    "varying.mkv": "-vf select='gt(random(1)\\,0.5)' -fps_mode vfr",
    "one a second.mp4": "-vf setpts=25*PTS -r 1",
}


def test_films_of_all_rates_are_cut_where_their_shots_end(run, tmp_path):
    """Frames that show both shots, as fields do, belong to neither."""
    source = write_video(
        tmp_path / "source.mp4", list(film((("anna", 2.2), ("", 1.2), ("dora", 2.0))))
    )
    (tmp_path / "in").mkdir()
    for name, words in RATES.items():
        ffmpeg("-i", source, *words.split(), tmp_path / "in" / name)
    argv = (tmp_path / "in", tmp_path / "work", tmp_path / "clips", "--model", "dlib", "-q")
    assert run("video", "run", *argv)[0] == 0
    plan = json.loads((tmp_path / "work/plan.json").read_text())
    slow = {"one a second.mp4": 25, "telecined.mkv": 25 / 24}
    for name in RATES:
        own = [clip for clip in plan["segments"] if Path(clip["source"]).name == name]
        shots = np.array([(0.0, 2.2), (3.4, 5.4)]) * slow.get(name, 1)
        found = np.array([(clip["start"], clip["end"]) for clip in own])
        assert found.shape == shots.shape, name
        assert np.abs(found - shots).max() <= (1.0 if name.startswith("one") else 0.13), name
        for clip in own:
            assert clip["checked"]["difference"] < 6 and not clip["checked"]["changes"]
            looks = frames_of(tmp_path / "clips" / clip["clip"])
            assert max(np.abs(look - looks[0]).mean() for look in looks) < 32  # shots differ by 50


def test_pictures_are_upright_and_square(tmp_path):
    flat = [np.full((96, 160, 3), 90, np.uint8) for _ in range(10)]
    for image in flat:
        image[:20, :20] = 255  # a mark in the corner, top left
    plain = write_video(tmp_path / "p.mp4", flat)
    wide = write_video(tmp_path / "w.mp4", flat, sar=Fraction(3, 2))

    def first(path: Path) -> np.ndarray:
        video, _ = known_video(path)
        ((_, image),) = film_reading.frames_at(video.path, [video.start], video.sar)
        return image

    assert first(plain).shape == (96, 160, 3)
    assert first(wide).shape == (96, 240, 3)
    turned = first(rotated(plain, -90))  # players turn it clockwise: the mark is top right
    assert turned.shape == (160, 96, 3)
    assert turned[:15, -15:].mean() > 200 > turned[:15, :15].mean()


def test_one_pass_samples_what_stage_chooses(tmp_path):
    path = write_video(tmp_path / "v.mp4", small_film(), times=uneven(50))
    video, found = known_video(path)
    once = film_pass.VideoPass(video, 3.0, lambda pts: True)
    passed = [pts for pts, _ in once.samples()]
    assert passed == sf.sample_times(found.pts, 1 / (3.0 * video.tick)).tolist()
    pictures = dict(film_reading.frames_at(video.path, passed, video.sar))
    assert sorted(pictures) == passed


def test_a_truncated_film_counts_as_far_as_it_goes(run, tmp_path):
    whole = write_video(tmp_path / "whole.mkv", small_film(4.0), g="10")
    data = whole.read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cut.mkv").write_bytes(data[: len(data) * 6 // 10])
    (tmp_path / "in" / "head.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 300)
    (tmp_path / "in" / "empty.mp4").write_bytes(b"")
    (tmp_path / "in" / "text.mp4").write_text("no video at all\n" * 30)
    work = tmp_path / "work"
    code, out, _ = run("video", "scan", tmp_path / "in", work, "--json")
    result = json.loads(out)
    assert code == 0 and result["videos"] == 1 and len(result["left_out"]) == 3
    assert any("empty.mp4: empty file" in line for line in result["left_out"])
    assert run("video", "scenes", work)[0] == 0
    found = json.loads(next((work / "scenes").iterdir()).read_text())
    assert 20 < found["frames"] < 90


# -- bad input ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "argv", "word"),
    [
        (lambda p: (p / "in").mkdir(), ("scan", "in", "work"), "no videos found"),
        (lambda p: None, ("scan", "nowhere", "work"), "no such file"),
        (lambda p: None, ("scenes", "work"), "run `video scan` first"),
        (lambda p: None, ("stage", "work"), "run `video scan` first"),
        (lambda p: None, ("merge", "work"), "run `video scan` to `stage` first"),
        (lambda p: None, ("track", "work"), "run `video scan` to `merge` first"),
        (lambda p: None, ("score", "work"), "run `video scan` to `track` first"),
        (lambda p: None, ("cut", "work", "out"), "run `video scan` to `score` first"),
        (lambda p: None, ("report", "work"), "run `video scan` to `score` first"),
        (lambda p: None, ("score", "work", "--max-yaw", "181"), "is not an angle"),
        (lambda p: None, ("score", "work", "--min-good", "1.1"), "is not a number from 0 to 1"),
        (lambda p: None, ("score", "work", "--min-dur", "9", "--max-dur", "3"), "--min-dur 9"),
        (lambda p: None, ("stage", "work", "--sample-rate", "0"), "is not a rate"),
        (lambda p: None, ("scan", "in", "work", "--skip-pattern", "("), "no regular expression"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_bad_input_is_one_line(run, tmp_path, monkeypatch, make, argv, word):
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    code, out, err = run("video", *argv)
    assert (code, out) == (2, "") and word in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("lost", "step"),
    [
        (["tracks.json"], "score"),
        (["frames.npz", "tracks.json"], "score"),
        (["queue.json", "frames.npz", "tracks.json", "plan.json"], "report"),
        (["plan.json"], "report"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else value,
)
def test_the_advice_of_what_to_run_first_is_true(run, again, lost, step):
    work, _ = again
    for name in lost:
        (work / name).unlink()
    code, _, err = run("video", step, work, "-q")
    assert code == 2
    told = re.search(r"run `video (\w+)`(?: to `(\w+)`)? first", err)
    steps = [*sf.STEP_FILES]
    low, high = steps.index(told[1]), steps.index(told[2] or told[1])
    for name in steps[low : high + 1]:
        more = ("--model", "dlib") if name == "detect" else ()
        assert run("video", name, work, "-q", *more)[0] == 0
    assert run("video", step, work, "-q")[0] == 0


def test_what_running_a_step_again_does_not_mend_is_not_advised(run, films, again, monkeypatch):
    work, clips = again
    run("video", "score", work, "--min-face-short", "2000", "-q")
    code, _, err = run("video", "lists", work, clips.parent / "lists", "-q")
    assert code == 2 and "no segment is planned" in err and "score again" not in err
    (work / "videos.json").write_text("{")
    told = [run("video", *argv, "-q")[2] for argv in (("stage", work), ("scan", films, work))]
    assert told[0].endswith(told[1].partition(": ")[2]) and "remove this one" in told[0]

    def refuses(_):
        raise sf.VideoError("its disk is gone")
        yield

    monkeypatch.setattr(film_pass.VideoPass, "samples", refuses)
    argv = (films, work.parent / "new", clips.parent / "new clips", "--model", "dlib", "-q")
    code, _, err = run("video", "run", *argv)
    assert code == 2 and "no video could be decoded" in err.splitlines()[-1]


def test_a_film_that_changed_is_cut_after_all_steps(run, tmp_path):
    film_path = write_video(tmp_path / "in/a.mp4", list(film((("anna", 2.0),))))
    work, clips = tmp_path / "work", tmp_path / "clips"
    argv = (tmp_path / "in", work, clips, "--model", "dlib", "-q")
    assert run("video", "run", *argv)[0] == 0
    shutil.rmtree(clips)
    write_video(film_path, list(film((("dora", 2.4),))))
    code, _, err = run("video", "cut", work, clips, "-q")
    assert code == 1 and "run all steps again, from `video scan` on" in err
    assert run("video", "scan", tmp_path / "in", work, "-q")[0] == 0
    code, _, err = run("video", "cut", work, clips, "-q")
    assert code == 1 and "run all steps again, from `video scan` on" in err
    assert run("video", "run", *argv)[0] == 0


def test_a_folder_without_one_readable_video_exits_1(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.mp4").write_text("no video")
    code, out, err = run("video", "scan", tmp_path / "in", tmp_path / "work", "-q")
    assert code == 1 and "text.mp4" in out + err
    code, _, err = run("video", "run", tmp_path / "in", tmp_path / "w2", tmp_path / "out", "-q")
    assert code == 2 and "no usable video" in err.splitlines()[-1]


def test_work_folders_and_clip_folders_are_not_mixed_up(run, films, again, tmp_path):
    work, _ = again
    other = tmp_path / "other"
    other.mkdir()
    write_video(other / "x.mp4", small_film(0.4))
    code, _, err = run("video", "scan", other, work)
    assert code == 2 and f"belongs to the videos in {films}" in err
    code, _, err = run("video", "cut", work, films / "clips")
    assert code == 2 and "lies inside the videos" in err
    code, _, err = run("video", "detect", work, "--model", "dlib", "--det-size", "800")
    assert code == 0, "nothing is missing, so nothing is mixed"
    lines = (work / "results.jsonl").read_text().splitlines(keepends=True)
    (work / "results.jsonl").write_text("".join(lines[:-2]))
    code, _, err = run("video", "detect", work, "--model", "dlib", "--det-size", "800")
    assert code == 2 and "use another work folder" in err and err.splitlines()[-1].count("det_size")


@pytest.mark.skipif(sys.platform == "win32", reason="needs ulimit")
def test_no_space_for_a_clip_is_one_line(again):
    work, clips = again
    shutil.rmtree(clips)
    (work / "clips.jsonl").unlink()
    command = f"ulimit -f 12; exec {sys.executable} {SCRIPT} video cut {work} {clips} -q"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "free some space" in done.stderr and done.stderr.count("\n") == 1
    assert not list(clips.rglob("*.mp4")), "no half clip is left"


def test_a_filter_and_a_pattern_choose_the_files(run, tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_video(tmp_path / "in" / name, small_film(0.4 + 0.1 * ord(name[0]) % 7))
    work = tmp_path / "work"
    argv = ("scan", tmp_path / "in", work, "--filter-from", "b.mp4", "--skip-pattern", "^c")
    assert run("video", *argv)[0] == 0
    assert [Path(v.path).name for v in sf.VideoWork(work).list_videos()] == ["b.mp4"]


def test_a_copy_of_a_video_is_worked_on_once(run, tmp_path):
    write_video(tmp_path / "in" / "a.mp4", small_film(0.4))
    shutil.copy(tmp_path / "in" / "a.mp4", tmp_path / "in" / "b.mp4")
    code, out, _ = run("video", "scan", tmp_path / "in", tmp_path / "work", "--json")
    assert code == 0 and json.loads(out)["videos"] == 1
    assert "the same video as" in json.loads(out)["left_out"][0]


# -- kill and go on ----------------------------------------------------------

STAGES = ("videos.json", "results.jsonl", "scenes", "queue.json", "frames.npz", "tracks.json",
          "plan.json", "clips.jsonl", "report/index.html")  # fmt: skip


def chain(films: Path, base: Path) -> subprocess.Popen:
    argv = (films, base / "work", base / "clips", "--model", "dlib", "--threads", "1", "-q")
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "video", "run", *map(str, argv)],
        env={**os.environ, "SORT_FACES_LOGS": str(base / "logs")},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_every_stage_the_plan_is_the_same(films, finished, tmp_path):
    killed = Counter()
    for stage in STAGES:
        process = chain(films, tmp_path)
        deadline = time.monotonic() + 60
        while process.poll() is None and not (tmp_path / "work" / stage).exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        killed[process.wait()] += 1
    assert killed[-signal.SIGKILL] >= len(STAGES) - 2
    assert chain(films, tmp_path).wait(60) == 0
    assert plan_of(tmp_path / "work") == plan_of(finished[0])
    lines = (tmp_path / "work" / "results.jsonl").read_text().splitlines()
    names = Counter(json.loads(line)["id"] for line in lines)
    assert max(names.values()) == 1, "no frame was looked at twice"
    left = [p for p in tmp_path.rglob(sf.PART_PREFIX + "*") if "clips" in p.parts]
    assert left == []


def test_a_lost_clip_and_a_torn_line_are_made_again(run, again):
    work, clips = again
    (lost, _) = sorted(clips.rglob("*.mp4"))
    lost.unlink()
    with open(work / "results.jsonl", "ab") as stream:
        stream.write(b'{"schema": 1, "id": "torn')
    assert run("video", "detect", work, "--model", "dlib")[0] == 0
    assert run("video", "merge", work)[0] == 0
    code, out, _ = run("video", "cut", work, clips, "--json")
    assert code == 0 and json.loads(out)["written"] == 1 and lost.exists()


# -- elsewhere, pages, scripts, scale ----------------------------------------


def test_a_worker_gives_the_same_plan(run, films, finished, tmp_path):
    argv = (films, tmp_path / "work", tmp_path / "clips", "--model", "dlib")
    code, _, err = run("video", "run", *argv, "--worker", sys.executable, "-q")
    assert code == 0, err
    assert plan_of(tmp_path / "work") == plan_of(finished[0])
    assert not (tmp_path / "work" / "workers").exists()


def test_the_report_in_a_browser(run, tmp_path):
    from selenium import webdriver

    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("needs chromium and chromedriver")
    frames = list(film((("anna", 1.2), ("", 0.8))))
    name = "<script>document.title='pwned'</script> & é%23.mp4".replace("/", "∕")
    write_video(tmp_path / "in" / name, frames)
    work = tmp_path / "work"
    argv = (tmp_path / "in", work, tmp_path / "clips", "--model", "dlib", "--min-face-short", "70")
    code, _, err = run("video", "run", *argv, "-q")
    assert code == 0, err
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        browser.get((work / "report" / "index.html").as_uri())
        assert browser.title == "Segments with a usable face"
        assert name in browser.find_element("tag name", "body").text
        assert len(browser.find_elements("css selector", "tr.segment")) == 1
        images = browser.find_elements("css selector", ".strip img")
        assert len(images) == 3
        for image in images:
            browser.execute_script("arguments[0].loading = 'eager'", image)
        loaded = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
        deadline = time.monotonic() + 10
        while not browser.execute_script(loaded):
            assert time.monotonic() < deadline, "thumbnails do not load"
        link = browser.find_element("css selector", "tr.segment a").get_attribute("href")
        assert link.startswith("file://") and link.endswith(".mp4")
        assert browser.get_log("browser") == []
    finally:
        browser.quit()


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs bash and flock")
def test_the_chain_script_and_its_status(films, tmp_path):
    env = {**os.environ, "WORK": str(tmp_path / "w k"), "INPUT_DIR": str(films),
           "OUTPUT_DIR": str(tmp_path / "out"), "MODEL": "dlib", "MAX_DUR": "2.2", "SIDECAR": "yes",
           "SKIP_PATTERN": "^nothing$", "FILTER_FROM": "f", "PYTHON": sys.executable,
           "SORT_FACES_LOGS": str(tmp_path / "logs")}  # fmt: skip
    done = subprocess.run(["bash", str(ROOT / "work/run_video_pipeline.sh")], env=env)
    assert done.returncode == 0, next((tmp_path / "logs").glob("video_pipeline-*")).read_text()
    clips = sorted((tmp_path / "out").rglob("*.mp4"))
    assert len(clips) == 1 and clips[0].with_suffix(".json").exists()
    status = subprocess.run(["bash", str(ROOT / "work/status_video_pipeline.sh")], env=env,
                            capture_output=True, text=True)  # fmt: skip
    assert "state    ended" in status.stdout and "video run: exit 0" in status.stdout


def test_a_hundred_thousand_frames_are_scored_in_seconds(run, tmp_path):
    rng = np.random.default_rng(0)
    times = np.arange(50) * 0.5
    tracks = []
    for number in range(2000):
        pose = rng.normal(0, 25, (50, 3))
        short = rng.uniform(60, 300, (50, 1))
        bbox = np.hstack([np.zeros((50, 2)), short, short * 1.2])
        track = sf.Track(f"v-{number}", "v", (30.0 * number, 30.0 * number + 25.0),
                         (30.0 * number, 30.0 * number + 24.5),
                         times + 30.0 * number, bbox, rng.uniform(0.4, 1, 50), pose,
                         rng.normal(size=512).astype(np.float32))  # fmt: skip
        tracks.append(sf.track_json(track))
    video = {"path": "/v.mp4", "fps": 25.0, "start": 0, "tick": 0.001, "scenes": 2000}
    meta = {"model": "buffalo_l", "recognizer": "r", "dim": 512, "det_size": 640}
    head = {"tool": "sort_faces", "kind": "tracks", "period": 0.5,
            "meta": {**meta, "det_threshold": 0.5}}  # fmt: skip
    work = tmp_path / "work"
    sf.write_json(work / "tracks.json", {**head, "videos": {"v": video}, "tracks": tracks})
    began = time.monotonic()
    code, out, _ = run("video", "score", work, "--json")
    assert code == 0 and json.loads(out)["frames"] == 100_000
    assert time.monotonic() - began < 15


# -- the shared films --------------------------------------------------------


def test_mixtape(run, mini, shared, tmp_path):
    """Ten shots, key frames ten seconds apart: every shot with a face is a clip, exactly."""
    source = shared / "data/videos/mixtape.mp4"
    truth = json.loads((shared / "data/videos/mixtape.truth.json").read_text())
    work, clips = tmp_path / "work", tmp_path / "clips"
    code, _, err = run(
        "video", "run", source, work, clips, "--model", mini, "--det-size", "320", "-q"
    )
    assert code == 0, err
    found = json.loads(next((work / "scenes").iterdir()).read_text())["scenes"]
    cuts = [low / 12800 for low, _ in found]
    assert np.abs(np.array(cuts) - [row["start"] for row in truth]).max() < 1.5 / RATE
    frames = frames_of(source)
    with_clip = set()
    for segment in plan_of(work)["segments"]:
        middle = (segment["start"] + segment["end"]) / 2
        row = next(r for r in truth if r["start"] <= middle < r["end"])
        with_clip.add(row["start"])
        assert row["face"] != "no"
        assert row["start"] <= segment["start"] and segment["end"] <= row["end"]
        clip = frames_of(clips / segment["clip"])
        for at, number in ((0, segment["start"] * RATE), (-1, segment["end"] * RATE - 1)):
            same = np.abs(clip[at] - frames[round(number)]).mean()
            others = [np.abs(clip[at] - frames[round(r["start"] * RATE) + 5]).mean()
                      for r in truth if r is not row]  # fmt: skip
            assert same < 4 and same < min(others) / 3
    assert with_clip >= {row["start"] for row in truth if row["face"] == "yes"}


def flipped(frame: av.VideoFrame) -> av.VideoFrame:
    """The same picture upside down, by lines that run backwards in memory."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name,
                              time_base=Fraction(1, 25))  # fmt: skip
    turn, sink = graph.add("vflip"), graph.add("buffersink")
    source.link_to(turn)
    turn.link_to(sink)
    graph.configure()
    graph.push(frame)
    return graph.pull()


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "bgr24", "gray", "rgb555le"])
def test_frames_that_lie_bottom_up_in_memory_are_read(pixels) -> None:
    rows = np.repeat(np.linspace(20, 230, 96).astype(np.uint8), 128 * 3).reshape(96, 128, 3)
    frame = av.VideoFrame.from_ndarray(rows, "bgr24").reformat(format=pixels)
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    turned = flipped(frame)
    assert turned.planes[0].line_size < 0
    upright, small = film_reading.upright_frame(turned, 1.0), film_reading.small_picture(turned, 64)
    assert np.abs(upright[::-1].astype(int) - rows).mean() < 6
    wanted = cv2.resize(rows[::-1], small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - wanted).mean() < 8


@pytest.mark.parametrize("bottom_up", [False, True])
@pytest.mark.parametrize("pixels", ["bgr24", "pal8", "rgb555le"])
def test_the_scenes_of_an_uncompressed_avi_are_found(run, tmp_path, pixels, bottom_up) -> None:
    import imageio_ffmpeg

    path = tmp_path / "in/raw.avi"
    path.parent.mkdir()
    made = ["-f", "lavfi", "-i", "testsrc=size=96x64:rate=10:duration=1"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *made, "-c:v", "rawvideo"]
    subprocess.run([*command, "-pix_fmt", pixels, str(path)], check=True)
    data = bytearray(path.read_bytes())
    height = data.index(b"strf") + 16  # biHeight; rows run upwards where it is positive
    rows = int.from_bytes(data[height : height + 4], "little", signed=True)
    data[height : height + 4] = (abs(rows) * (1 if bottom_up else -1)).to_bytes(
        4, "little", signed=True
    )
    path.write_bytes(data)
    assert run("video", "scan", path.parent, tmp_path / "work")[0] == 0
    code, out, err = run("video", "scenes", tmp_path / "work", "--json")
    assert (code, json.loads(out)["decoded"]) == (0, 1), err


def test_a_video_of_huge_frames_is_refused_before_one_is_decoded(
    run, tmp_path, monkeypatch
) -> None:
    path = write_video(tmp_path / "in/small.mp4", list(film([("", 0.4)])))
    write_video(tmp_path / "in/other.mp4", [np.zeros((64, 64, 3), np.uint8)] * 10)
    monkeypatch.setattr(film_reading, "MAX_FRAME_PIXELS", 64 * 64)
    code, _, err = run("video", "scan", path.parent, tmp_path / "work")
    assert code == 0 and "small.mp4: too large: frames of 256 x 256 pixels" in err


def test_a_frame_has_the_score_that_scenedetect_gives_it() -> None:
    """Ours is the same sum, made by OpenCV."""
    from scenedetect.detectors import AdaptiveDetector

    finder, rng = sf.companion("scene_finder"), np.random.default_rng(5)
    ours, theirs = finder.Cuts(), AdaptiveDetector()
    for number in range(20):
        picture = rng.integers(0, 256, (72, 128, 3), np.uint8) // (1 + number % 3)
        time = finder.FrameTimecode(number, 25.0)
        cuts = [detector.process_frame(time, picture) for detector in (ours, theirs)]
        assert cuts[0] == cuts[1] and ours._frame_score == theirs._frame_score
    assert ours._frame_score > 10
