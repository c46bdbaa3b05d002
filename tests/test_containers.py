"""Clips of a dozen made films of odd containers and codecs; batches in which films fail; kills."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import clip_measures as measures
import numpy as np
import pytest
from conftest import SCRIPT
from video_material import FRAMES, MADE, RATE, empty_picture, ffmpeg, film, shot, write_video

import sort_faces as sf

writer, sound = sf.companion("clips"), sf.companion("clip_sound")
film_reading = sf.companion("film_reading")
film_times, film_pass = sf.companion("film_times"), sf.companion("film_pass")

CHOSEN = (
    "h264 bframes mp3 avi",
    "xvid mp3 avi",
    "h264 dts 5.1 mkv",
    "h264 interlaced mp4",
    "h264 joined aac ts",
    "mpeg2 joined ac3 vob",
    "mpeg2 ac3 vob",
    "hevc 10 bit hdr10 mp4",
    "hevc hvc1 aac mp4",
    "av1 turned bt709 mp4",
    "vp9 odd size webm",
    "wmv2 wma wmv",
    "flv1 mp3 flv",
)
LATE = 0.02  # s; the sound of an AVI says no more exactly when it is heard


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A function that makes a film of the table, once."""
    folder, films = tmp_path_factory.mktemp("made"), {}

    def make(name: str) -> Path:
        if name not in films:
            films[name] = MADE[name].make(folder / name.replace(" ", "_").replace(":", ""))
        return films[name]

    return make


@pytest.mark.parametrize("name", CHOSEN)
def test_clips_of_odd_films_are_exact(name, made, tmp_path):
    path = made(name)
    source = measures.shown_in(path)
    twice = "joined" in name
    assert source.numbers == list(range(FRAMES)) * (1 + twice)
    span = (50, 110) if twice else (20, 60)
    for mode in ("smart", "encode"):
        cut = measures.cut_of(path, tmp_path / f"{mode}.mp4", *span)
        found = measures.measure(cut, mode, source)
        assert found.mode == mode and found.fallback == ""
        assert found.frames == (span[1] - span[0],) * 2
        assert found.drift < 0.001
        assert abs(found.sound) < LATE
        assert found.warnings == []
        told = " ".join(found.notes)
        for tag in found.lost:  # what is lost is told
            assert (tag.startswith("size") and "became 176x144" in told) or (
                tag.startswith("sound") and "became AAC" in told
            ), tag


def test_a_film_joined_of_parts_is_sought(made, tmp_path):
    """Frames behind the join, sought one by one, are those of the one pass."""
    for name in ("h264 joined aac ts", "mpeg2 joined ac3 vob"):
        path = made(name)
        video, scenes = measures.known_film(path)
        assert scenes.joined is not None and len(scenes.joined.joins) == 1
        assert len(scenes.pts) == 2 * FRAMES and (np.diff(scenes.pts) == 3600).all()
        for number in (3, FRAMES - 1, FRAMES, FRAMES + 1, 2 * FRAMES - 1):
            pts = int(scenes.pts[number])
            joined = scenes.joined.between(pts, pts)
            ((found, image),) = film_reading.frames_at(video.path, [pts], 1.0, joined)
            assert found == pts and measures.number_of(image, 0) == number % FRAMES
        cut = measures.cut_of(path, tmp_path / "behind.mp4", FRAMES + 10, FRAMES + 50)
        found = measures.measure(cut, "smart", measures.shown_in(path))
        assert found.frames == (40, 40) and abs(found.sound) < LATE


def test_subtitles_and_chapters_are_kept(tmp_path):
    plain = MADE["h264 aac mp4"].make(tmp_path / "plain")
    srt = "1\n00:00:00,200 --> 00:00:01,200\nearly\n\n2\n00:00:01,600 --> 00:00:09,000\nläte\n"
    (tmp_path / "s.srt").write_text(srt)
    (tmp_path / "c.txt").write_text(
        ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=One\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=1000\nEND=3000\ntitle=Two\n"
    )
    path = tmp_path / "film.mkv"
    words = f"-map 0 -map 1 -map 1 -c copy -c:s:0 subrip -c:s:1 dvdsub -map_metadata 2 {path}"
    inputs = ["-i", plain, "-i", tmp_path / "s.srt", "-i", tmp_path / "c.txt"]
    try:
        ffmpeg(*inputs, *words.split())
    except RuntimeError:  # no font to draw subtitles with
        ffmpeg(
            *inputs, *words.replace("-map 1 -map 1", "-map 1").replace("-c:s:1 dvdsub", "").split()
        )
    cut = measures.cut_of(path, tmp_path / "clip.mp4", 20, 60)  # 0.8 s to 2.4 s
    made = writer.cut_clip(cut, "smart", lambda *_: None)
    with av.open(str(cut.path)) as clip:
        (track,) = clip.streams.subtitles
        shown = [
            (float(p.pts * p.time_base), bytes(p)[2:]) for p in clip.demux(track) if p.size > 2
        ]
        chapters = [(c["metadata"]["title"], float(c["start"] * c["time_base"]),
                     float(c["end"] * c["time_base"])) for c in clip.chapters()]  # fmt: skip
    assert [(round(at, 2), text.decode()) for at, text in shown] == [(0.0, "early"), (0.8, "läte")]
    assert [title for title, *_ in chapters] == ["One", "Two"]
    assert np.allclose([times for _, *times in chapters], [[0, 0.2], [0.2, 1.6]], atol=0.002)
    assert not [note for note in made.notes if "subrip" in note]


def test_compatible_clips_are_h264_of_8_bits_with_aac(made, tmp_path):
    for name in ("hevc 10 bit hdr10 mp4", "h264 dts 5.1 mkv"):
        path = made(name)
        cut = measures.cut_of(path, tmp_path / "clip.mp4", 20, 60)
        found = measures.measure(cut, "smart", measures.shown_in(path), compatible=True)
        assert found.frames == (40, 40) and abs(found.sound) < LATE
        facts = film_reading.video_facts(str(cut.path), 1, 1)
        assert (facts.codec, facts.pix_fmt, facts.audio) == ("h264", "yuv420p", ("aac",))
        if "10 bit" in name:
            assert any("yuv420p10le became yuv420p" in note for note in found.notes)


# -- stamps of sound ---------------------------------------------------------


def packets_at(stamps: list[int | None], length: int = 10) -> list[SimpleNamespace]:
    """Packets with these stamps and their numbers."""
    base = Fraction(1, 1000)
    return [
        SimpleNamespace(
            pts=stamp, dts=stamp, duration=length, size=1, time_base=base, number=number
        )
        for number, stamp in enumerate(stamps)
    ]


@pytest.mark.parametrize(
    ("stamps", "numbers", "times"),
    [
        ([0, 10, 20, 30], [0, 1, 2, 3], [0, 10, 20, 30]),
        ([0, 10, 10, 30], [0, 1, 2, 3], [0, 10, 20, 30]),  # one stands twice
        ([0, 0, 0, 30, 30, 30], [0, 1, 2, 3, 4, 5], [0, 10, 20, 30, 40, 50]),
        ([0, 10, None, None, 40], [0, 1, 2, 3, 4], [0, 10, 20, 30, 40]),
        ([None, 10, 20], [1, 2], [10, 20]),
        ([0, 10, 200, 210], [0, 1, 2, 3], [0, 10, 200, 210]),  # a hole stays one
        ([0, 10, 20, 30, 12, 22, 32, 42], [0, 1, 2, 3, 7], [0, 10, 20, 30, 42]),  # heard already
        ([0, 10, 20, 9, 8], [0, 1, 2, 3, 4], [0, 10, 20, 30, 40]),  # never reached again
    ],
)
def test_sound_follows_on(stamps, numbers, times):
    kept = sound.placed(packets_at(stamps))
    assert [packet.number for packet in kept] == numbers
    assert [packet.pts for packet in kept] == times == [packet.dts for packet in kept]


# -- batches -----------------------------------------------------------------


@pytest.fixture(scope="session")
def batch(tmp_path_factory) -> Path:
    """Ten films with a face, as of different containers, and three that must fail."""
    folder = tmp_path_factory.mktemp("batch")
    frames = list(film((("anna", 1.6), ("", 0.8))))
    for number, suffix in enumerate(("mp4", "mkv", "avi", "mov")):
        write_video(folder / f"film{number}.{suffix}", frames[number:], audio="aac", g="10")
    (folder / "a text.mp4").write_text("no film\n" * 40)
    return folder


def clips_of(work: Path, out: Path) -> dict[str, int]:
    """{file: its frames} of what a plan says was made."""
    plan = json.loads((work / "plan.json").read_text())
    return {s["clip"]: s["checked"]["frames"] for s in plan["segments"] if s.get("clip")}


def test_films_that_fail_cost_the_others_nothing(run, batch, tmp_path, monkeypatch):
    """One cannot be read, one not decoded, of one no clip can be written: all others are made."""
    argv = ("--model", "dlib", "-q", "--json")
    clean = tmp_path / "clean"
    shutil.copytree(batch, clean / "in")
    (clean / "in/a text.mp4").unlink()
    code, _, err = run("video", "run", clean / "in", clean / "work", clean / "out", *argv)
    assert code == 0, err
    whole = clips_of(clean / "work", clean / "out")
    assert len(whole) == 4

    write, samples = writer.ClipWriter.write, film_pass.VideoPass.samples

    def broken_write(self, part):
        if "film1" in self.cut.video.path:
            raise TypeError("unsupported operand")
        write(self, part)

    def broken_samples(self):
        if "film2" in self.video.path:
            raise ValueError("no such thing")
        return samples(self)

    monkeypatch.setattr(writer.ClipWriter, "write", broken_write)
    monkeypatch.setattr(film_pass.VideoPass, "samples", broken_samples)
    code, out, err = run("video", "run", batch, tmp_path / "work", tmp_path / "out", *argv)
    result = json.loads(out)
    assert code == 1
    assert [name for name in result["left_out"] if "a text.mp4" in name]
    assert [name for name in result["left_out"] if "film2" in name and "no such thing" in name]
    *others, failed = result["failed"]
    assert sorted(others) == sorted(result["left_out"])
    assert "film1" in failed and "a bug of ours (TypeError at test_containers.py" in failed
    assert "Traceback" not in err
    found = clips_of(tmp_path / "work", tmp_path / "out")
    assert found == {k: v for k, v in whole.items() if "film1" not in k and "film2" not in k}
    page = (tmp_path / "work/report/index.html").read_text()
    assert "unsupported operand" in page and "a text.mp4" in page
    monkeypatch.undo()
    code, out, _ = run("video", "run", batch, tmp_path / "work", tmp_path / "out", *argv)
    (failed,) = json.loads(out)["failed"]  # one film still cannot be read
    assert code == 1 and "a text.mp4" in failed
    assert clips_of(tmp_path / "work", tmp_path / "out") == whole


# -- kill and go on ----------------------------------------------------------


def known_pass(path: Path, log: Path, stop: int = 0) -> tuple[sf.Scenes, int] | None:
    """A pass over a film that writes down how far it is; None if it is stopped after `stop`."""
    facts = path.stat()
    video = film_reading.video_facts(str(path), facts.st_size, facts.st_mtime_ns)
    so_far = film_pass.PassLog(log)
    known = len(so_far.known.pts)
    once = film_pass.VideoPass(video, 5.0, None, so_far)
    for number, _ in enumerate(once.samples(), 1):
        if number == stop:
            so_far.close()
            return None
    return once.result(), known


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mpg"])
def test_a_pass_goes_on_where_it_was(suffix, tmp_path, monkeypatch):
    """Stopped twenty times; what it finds is what one undisturbed pass finds."""
    monkeypatch.setattr(film_pass, "SAVE_EVERY", 0.0)
    pictures = [frame for seed in range(4) for frame in shot(empty_picture(seed), 4 * RATE)]
    made = tmp_path / f"long.{suffix}"
    long = write_video(
        made.with_suffix(".mp4") if suffix == "mpg" else made,
        pictures,
        g="25",
        bf="2",
        preset="fast",
    )
    if suffix == "mpg":  # a recorder's
        ffmpeg("-i", long, *["-c:v", "mpeg2video", "-q:v", "4", "-g", "15", "-bf", "2"], made)
        made.write_bytes(made.read_bytes() * 2)
        long = made
    whole, _ = known_pass(long, tmp_path / "whole.part.jsonl")
    assert len(whole.scenes) >= 4 and (whole.joined is not None) == (suffix == "mpg")
    rng, went_on = random.Random(1), set()
    for _ in range(20):
        known_pass(long, tmp_path / "part.jsonl", stop=rng.randint(1, 30))
        went_on.add(len(film_pass.PassLog(tmp_path / "part.jsonl").known.pts))
    found, known = known_pass(long, tmp_path / "part.jsonl")
    assert found == whole and known > 200 and len(went_on) > 3


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_twenty_moments_plan_and_clips_are_the_same(batch, tmp_path):
    code = (
        "import sys, sort_faces as sf; sf.companion('film_pass').SAVE_EVERY = 0.0; "
        "sf.run_as_program()"
    )

    def chain(base: Path) -> subprocess.Popen:
        argv = ["video", "run", batch, base / "work", base / "out", "--model", "dlib"]
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, argv), "--threads", "1", "-q"],
            env={**os.environ, "PYTHONPATH": str(SCRIPT.parent)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def outcome(base: Path) -> tuple[dict, dict]:
        """The plan and the clips of a run that came to its end."""
        plan = json.loads((base / "work/plan.json").read_text())
        plan.pop("out")
        assert list((base / "work").rglob("*.part.jsonl")) == []
        found = (base / "out").rglob("*.mp4")
        return plan, {path.relative_to(base): path.read_bytes() for path in found}

    began = time.monotonic()
    assert chain(tmp_path / "whole").wait(120) == 1
    long, whole = time.monotonic() - began, outcome(tmp_path / "whole")
    assert len(whole[1]) == 4
    rng, moments, base = random.Random(2), 0, tmp_path / "killed"
    while moments < 20:
        process = chain(base)
        try:
            assert process.wait(rng.uniform(0.3, 0.9) * long) == 1
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            moments += process.wait() == -signal.SIGKILL
        else:  # it came to its end between two kills
            assert outcome(base) == whole
            shutil.rmtree(base)
    assert chain(base).wait(120) == 1
    assert outcome(base) == whole
