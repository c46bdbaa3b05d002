"""Faults that reviews of the video commands found: each stays mended."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_video import known_video
from test_video_core import make_track
from video_material import face_picture, film, renamed, write_video

import sort_faces as sf

writer = sf.companion("clips")
film_reading, film_pass = sf.companion("film_reading"), sf.companion("film_pass")


def numbered(count: int) -> list[np.ndarray]:
    """Pictures that show their number in eight blocks, white for 1."""
    bits = np.arange(count)[:, None] >> np.arange(8) & 1
    blocks = (40 + 170 * bits).astype(np.uint8).reshape(count, 2, 4)
    return [np.kron(b, np.ones((48, 32), np.uint8))[..., None].repeat(3, 2) for b in blocks]


def numbers(path: Path) -> list[int]:
    """What the frames of a clip of numbered pictures show."""
    with film_reading.open_video(str(path)) as (container, stream):
        shown = [f.to_ndarray(format="gray") for f in film_reading.decoded(container, stream)]
    bits = [image.reshape(2, 48, 4, 32).mean(axis=(1, 3)).reshape(8) > 125 for image in shown]
    return [int((row << np.arange(8)).sum()) for row in bits]


def clip_of(path: Path, first: int, beyond: int, mode: str) -> tuple[Path, writer.MadeClip]:
    """A clip of the frames [first, beyond) of a film, and what the plan will say of it."""
    (video, found), clip = known_video(path), path.with_name(f"{mode}-{first}.mp4")
    frames = found.pts
    cut = writer.Cut(video, int(frames[first]), int(frames[beyond]), clip, frames)
    return clip, writer.cut_clip(cut, mode, lambda *_: None)


@pytest.mark.parametrize(("group", "preset"), [("10", "ultrafast"), ("30", "medium")])
def test_a_transport_stream_is_cut_where_planned(tmp_path, group, preset):
    options = {"g": group, "preset": preset, "sc_threshold": "0"}
    late = [5000 + 40 * n for n in range(75)]
    path = write_video(tmp_path / "t.ts", numbered(75), times=late, audio="aac", **options)
    for first, mode in itertools.product((0, 3, 27), ("smart", "copy", "encode")):
        clip, made = clip_of(path, first, 55, mode)
        assert (made.mode, made.fallback) == (mode, "")
        begin = first - first % int(group) if mode == "copy" else first
        shown = numbers(clip)  # a copy ends before frames that need one beyond the end
        beyond = begin + len(shown) if mode == "copy" else 55
        assert shown == list(range(begin, beyond)) and 52 < beyond <= 55, (first, mode)


@pytest.mark.parametrize("name", ["m.mp4", "t.ts", "k.mkv"])
def test_a_copied_clip_has_sound_from_its_first_frame_on(tmp_path, name):
    """A copy begins at the key frame before: what is heard there is what was heard then."""
    import av

    codec = {"k.mkv": "libmp3lame"}.get(name, "aac")
    path = write_video(tmp_path / name, numbered(100), audio=codec, g="25")
    clip, made = clip_of(path, 45, 80, "copy")
    assert (made.mode, made.checked.start, numbers(clip)[0]) == ("copy", 1.0, 25)

    def heard(of: Path) -> tuple[np.ndarray, float]:
        """The sound, and when it begins after the picture."""
        with av.open(str(of)) as one, av.open(str(of)) as two:
            frames, first = list(one.decode(audio=0)), next(two.decode(video=0))
        return np.concatenate([f.to_ndarray()[0] for f in frames]), frames[0].time - first.time

    (whole, zero), (part, start) = heard(path), heard(clip)
    assert -0.05 < start < 0.03 and abs(start + len(part) / 44100 - 2.2) < 0.06  # frames 25 to 79
    for moment in (0.1, 0.4, 1.4):  # the pitch changes at 0.5 and 1.5
        a = part[round((moment - start) * 44100) :][:8820]
        b = whole[round((moment + 1.0 - zero) * 44100) - 100 :][:9020]  # .mkv counts in ms
        assert max(np.corrcoef(a, b[at : at + 8820])[0, 1] for at in range(201)) > 0.98


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("v.webm", "libvpx", "yuv420p"), ("r.mkv", "rawvideo", "yuv420p"), ("f.mkv", "ffv1", "bgr0")],
)
def test_what_cannot_be_copied_is_encoded_and_says_so(tmp_path, name, codec, pix_fmt):
    fast = {"deadline": "realtime"} if codec == "libvpx" else {}
    path = write_video(tmp_path / name, numbered(40), codec, pix_fmt=pix_fmt, **fast)
    clip, made = clip_of(path, 7, 29, "copy")
    assert numbers(clip) == list(range(made.checked.first_frame, 29))
    if codec != "ffv1":  # which an .mp4 may hold
        assert made.mode == "encode" and made.fallback.startswith("copy: ")


def test_a_title_that_is_no_utf_8_does_not_matter(run, tmp_path):
    import av
    import imageio_ffmpeg

    plain, named = write_video(tmp_path / "p.avi", numbered(20), "mpeg4"), tmp_path / "in/t.avi"
    named.parent.mkdir()
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(plain), "-c", "copy",
                    "-metadata", "title=QQQQQQ", str(named)], check=True)  # fmt: skip
    named.write_bytes(named.read_bytes().replace(b"QQQQQQ", "B\xe9b\xe9 \xe9".encode("latin-1")))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(named))
    code, out, _ = run("video", "scan", named.parent, tmp_path / "work", "--json")
    assert (code, json.loads(out)["videos"], json.loads(out)["left_out"]) == (0, 1, [])
    assert numbers(clip_of(named, 5, 15, "encode")[0]) == list(range(5, 15))


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_uneven_samples_never_lead_out_of_the_scene(data):
    moments = st.floats(0, 30).map(lambda value: round(value, 3))
    low, *samples, high = sorted(data.draw(st.sets(moments, min_size=3, max_size=14)))
    seen = sorted(data.draw(st.sets(st.sampled_from(samples), min_size=1)))
    track = make_track(seen, scene=(low, high), sampled=(samples[0], samples[-1]))
    segments = sf.track_segments(track, sf.Gates(), data.draw(st.sampled_from([0.1, 0.5, 5.0])))
    assert all(low <= s.start < s.end <= high for s in segments)
    assert all(any(s.start <= moment < s.end for s in segments) for moment in seen)


@example([(0, 80), (60, 70)])  # together longer than the longest clip
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 120)), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_segments_that_fit_never_become_too_long_or_overlap(spans):
    parts = [sf.Segment("v", low, low + length, ()) for low, length in spans]
    merged = sf.merge_segments(parts, sf.Gates(max_dur=120))
    assert all("longer" not in segment.reason for segment in merged)
    assert all(a.end <= b.start for a, b in itertools.pairwise(merged))
    for second in {at for low, length in spans for at in range(low, low + length)}:
        assert any(s.start <= second and second + 1 <= s.end for s in merged)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with in/a.mp4 (anna), in/b.mp4 (dora), and work and out of a run over them."""
    base = tmp_path_factory.mktemp("review")
    for name, person in (("a", "anna"), ("b", "dora")):
        write_video(base / "in" / f"{name}.mp4", list(film([(person, 1.2)])))
    argv = ["video", "run", base / "in", base / "work", base / "out", "--model", "dlib", "-q"]
    assert sf.main([*map(str, argv), "--json"]) == 0
    return base


@pytest.fixture
def done(finished, tmp_path) -> Path:
    """A copy of it, to go on with."""
    base = Path(shutil.copytree(finished, tmp_path / "base"))
    for path in (base / "work").glob("*.json*"):
        renamed(path, finished, base)
    return base


def clips_in(base: Path) -> dict[str, bytes]:
    return {str(p.relative_to(base / "out")): p.read_bytes() for p in base.glob("out/**/*.mp4")}


def refused(answer: tuple[int, str, str], *words: object) -> None:
    """Assert that a command ended with one line that explains itself."""
    code, out, err = answer
    assert (code, out, err.count("\n")) == (2, "", 1), answer
    assert all(str(word) in err for word in words), err


def test_clips_of_a_changed_film_stay_where_they_are(run, done):
    before = clips_in(done)
    for path in (done / "in").iterdir():
        os.utime(path, (1, 1))
    code, out, _ = run("video", "cut", done / "work", done / "out", "--cut", "encode", "--json")
    assert code == 1 and out.count("changed since the scan") == 2
    assert clips_in(done) == before


def test_other_films_leave_the_clips_of_the_first_as_they_are(run, done):
    before = clips_in(done)
    argv = ("video", "run", done / "in", done / "work", done / "out", "--model", "dlib", "-q")
    code, out, _ = run(*argv, "--filter-from", "b.mp4", "--json")
    assert (code, json.loads(out)["clips"], clips_in(done)) == (0, 1, before)
    write_video(done / "in/0/A.mp4", list(film([("dora", 1.4)])))
    assert run(*argv)[0] == 0
    after = clips_in(done)
    (new,) = set(after) - set(before)
    assert before.items() <= after.items() and new.startswith("A-")


def test_an_edited_clip_is_kept_when_it_is_written_again(run, done):
    name, data = sorted(clips_in(done).items())[0]
    (done / "out" / name).write_bytes(data + b"yours")
    code, out, _ = run("video", "cut", done / "work", done / "out", "--json")
    after = clips_in(done)
    assert (code, json.loads(out)["written"], len(after)) == (0, 1, 3)
    assert after["_removed/" + name] == data + b"yours" and len(after[name]) == len(data)


def test_a_work_folder_of_something_else_is_left_alone(run, done, tmp_path):
    (tmp_path / "plan.json").write_text("yours")
    for step, *out in (["scan"], ["run", done / "out", "-q"]):
        refused(run("video", step, done / "in", tmp_path, *out), tmp_path, "of something else")
    assert (tmp_path / "plan.json").read_text() == "yours"


@pytest.mark.parametrize(
    ("out", "word"),
    [("work", "is the work folder"), ("in/clips", "inside the videos"), ("in", "inside the videos"),
     (".", "holds the videos")],
)  # fmt: skip
def test_a_wrong_folder_for_clips_is_refused_before_decoding(run, done, monkeypatch, out, word):
    monkeypatch.setattr(film_pass, "VideoPass", lambda *_: pytest.fail("decodes"))
    refused(run("video", "cut", done / "work", done / out), word)
    shutil.rmtree(done / "work")
    argv = (done / "in", done / "work", done / out, "--model", "dlib", "-q")
    refused(run("video", "run", *argv), word)


def test_detecting_in_films_that_are_gone_fails(run, done):
    (done / "work/results.jsonl").unlink()
    shutil.rmtree(done / "in")
    assert run("video", "detect", done / "work", "--model", "dlib", "-q")[0] == 1


def test_another_model_is_refused_even_when_all_frames_are_known(run, done, monkeypatch):
    monkeypatch.setattr(sf, "load_engine", lambda *_: pytest.fail("loads a model"))
    argv = ("video", "detect", done / "work", "--model")
    refused(run(*argv, "no_such_pack"), "made with dlib, not no_such_pack")
    whole = ("video", "run", done / "in", done / "work", done / "out", "-q", "--model")
    refused(run(*whole, "no_such_pack"), "made with dlib, not no_such_pack")
    assert run(*argv, "dlib")[0] == 0


DAMAGE = [  # (file, the steps that read it, places in it that they cannot do without)
    ("queue.json", "merge", "items/0/video items/0/pts items rate"),
    ("tracks.json", "score", "tracks/0/time tracks/0/bbox tracks/0/pose tracks/0/centre "
     "tracks/0/scene tracks/0/name tracks/0 tracks period meta/model meta videos"),
    ("plan.json", "report", "segments/0/video segments/0/start segments/0/strip segments"),
    ("plan.json", "cut", "segments/0/uuid segments/0/video segments/0 segments"),
    ("videos.json", "stage track report", "videos/0/facts/start videos"),
]  # fmt: skip


def damaged(text: str, place: str, bad: object) -> str:
    """A JSON text with something else, or nothing (...), at a place like items/0/pts."""
    value = inside = json.loads(text)
    *steps, last = [int(part) if part.isdigit() else part for part in place.split("/")]
    for step in steps:
        inside = inside[step]
    inside[last] = None if bad is ... else bad
    if bad is ... and isinstance(inside, dict):
        del inside[last]
    return json.dumps(value)


@pytest.mark.parametrize(("file", "steps", "places"), DAMAGE, ids=lambda word: word[:12])
def test_a_damaged_work_file_is_one_line(run, done, file, steps, places):
    work, path, before = done / "work", done / "work" / file, clips_in(done)
    argv = {"cut": (work, done / "out"), "scan": (done / "in", work)}
    whole, bads = path.read_text(), (..., -1, "x", [])
    for place, bad, step in itertools.product(places.split(), bads, steps.split()):
        path.write_text(damaged(whole, place, bad))
        answer = run("video", step, *argv.get(step, (work,)), "-q")
        if bad is ... or answer[0] == 2:
            refused(answer, *[path] * (bad is ...))
    assert {*before.values()} <= {*clips_in(done).values()}


@pytest.mark.parametrize("place", ["videos/0/path", "videos/0/facts", "videos/0", "videos"])
@pytest.mark.parametrize("bad", [..., -1, "x", []], ids=str)
def test_a_scan_makes_damaged_entries_anew(run, done, place, bad):
    path = done / "work/videos.json"
    whole = path.read_text()
    path.write_text(damaged(whole, place, bad))
    answer = run("video", "scan", done / "in", done / "work", "-q")
    if answer[0] == 2:
        refused(answer, path)
    else:
        assert json.loads(path.read_text()) == json.loads(whole)


@pytest.mark.parametrize(("at", "value"), [(6, 1), (8, 99), (8, 8)], ids=str)
def test_an_odd_bundle_is_one_line_that_names_it(run, done, at, value):
    """An encrypted one, one packed in an unknown way, one whose packed data are none."""
    bundle = done / "odd.fsz"
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("0.png", b"no picture" * 99)
    data = bytearray(bundle.read_bytes())
    data[at] = data[data.index(b"PK\1\2") + at + 2] = value  # both headers of the picture
    bundle.write_bytes(data)
    refused(run("video", "score", done / "work", "--identity", bundle, "-q"), bundle)


def test_a_folder_named_like_a_picture_is_no_identity(run, done):
    (done / "me/x.png").mkdir(parents=True)
    answer = run("video", "score", done / "work", "--identity", done / "me", "-q")
    refused(answer, done / "me", "no face found")


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs bash and flock")
@pytest.mark.parametrize(
    ("wrong", "word"),
    [({"SIDECAR": "1"}, "SIDECAR=1 is"), ({"INPUT_DIR": "/no where"}, "/no where: no such")],
)
def test_the_script_says_why_it_does_not_begin(done, wrong, word):
    env = {"WORK": done / "w k", "INPUT_DIR": done / "in", "OUTPUT_DIR": done / "clips",
           "SORT_FACES_LOGS": done / "logs", "MODEL": "dlib", "PYTHON": sys.executable}  # fmt: skip
    env = {**os.environ, **{key: str(value) for key, value in env.items()}, **wrong}
    answer = subprocess.run(["bash", str(ROOT / "work/run_video_pipeline.sh")], env=env,
                            capture_output=True, text=True)  # fmt: skip
    assert answer.returncode == 2 and not (done / "clips").exists()
    assert word in answer.stderr and answer.stderr.count("\n") == 1


# -- bugs are said to be ours, damaged files are named themselves -----------------


@pytest.mark.parametrize(
    ("step", "broken"),
    [("cut", "clip_folders"), ("track", "stitch_tracks"), ("score", "track_segments"),
     ("merge", "frame_name"), ("stage", "sample_times")],
)  # fmt: skip
def test_a_bug_in_a_step_blames_no_file(run, done, monkeypatch, step, broken):
    def bug(*_args, **_options):
        raise TypeError("planted")

    shutil.rmtree(done / "out")
    monkeypatch.setattr(writer if step == "cut" else sf, broken, bug)
    argv = (done / "work", done / "out") if step == "cut" else (done / "work",)
    code, out, err = run("video", step, *argv, "-q")
    assert (code, out, err.count("\n")) == (70, "", 1)
    assert "a bug of ours (TypeError at test_video_review.py:" in err and "planted" in err


def crop_of(done: Path, person: str) -> Path:
    """A folder with a crop of somebody."""
    import cv2

    picture = done / person / "0.png"
    picture.parent.mkdir()
    picture.write_bytes(cv2.imencode(".png", face_picture(person))[1].tobytes())
    return picture.parent


@pytest.mark.parametrize("bad", [5, "x", "AAAA", None], ids=str)
def test_damaged_identities_blame_no_other_file_and_are_made_anew(run, done, bad):
    path, anna = done / "work/identities.json", crop_of(done, "anna")
    assert run("video", "score", done / "work", "--identity", anna)[0] == 0
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "faces": dict.fromkeys(whole["faces"], bad)}))
    code, _, err = run("video", "score", done / "work", "--identity", anna)
    assert code == 0 and "identities.json: is damaged" in err and "tracks.json" not in err
    assert json.loads(path.read_text()) == whole


@pytest.mark.parametrize(
    ("line", "place", "bad"),
    [(1, "faces/0/embedding", "AAAA"), (1, "faces/0/pose", "AAAA"), (1, "faces/0/bbox", [1, 2]),
     (0, "meta/dim", "x"), (0, "meta", ...)],
)  # fmt: skip
def test_a_damaged_line_of_the_results_costs_that_frame(run, done, line, place, bad):
    path = done / "work/results.jsonl"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    lines[line] = damaged(lines[line], place, bad) + "\n"
    path.write_text("".join(lines))
    detect = ("video", "detect", done / "work", "--model", "dlib")
    if line == 0:  # which models looked at the frames is not known any more
        refused(run("video", "merge", done / "work", "-q"), path, "line 1")
        return
    code, _, err = run("video", "merge", done / "work", "-q")
    assert code == 0 and f"{path}: line {line + 1} is damaged" in err
    assert run(*detect)[0] == 0
    looked = [json.loads(text)["id"] for text in path.read_text().splitlines()[len(lines) :]]
    assert looked == [json.loads(whole.splitlines()[line])["id"]]


def places_in(value: object, place: str = "") -> Iterator[str]:
    """Every place in a JSON value, like items/0/pts; of lists the first two entries."""
    if place:
        yield place[1:]
    inside = value.items() if isinstance(value, dict) else enumerate(value[:2])
    for key, part in inside:
        nested = isinstance(part, dict | list)
        yield from places_in(part, f"{place}/{key}") if nested else [f"{place}/{key}"[1:]]


@pytest.mark.parametrize(
    ("file", "argv"),
    [("videos.json", "stage"), ("queue.json", "merge"), ("results.jsonl", "merge"),
     ("tracks.json", "score"), ("plan.json", "report"), ("plan.json", "cut out --dry-run"),
     ("clips.jsonl", "cut out --dry-run")],
)  # fmt: skip
def test_whatever_is_wrong_in_a_work_file_no_bug_comes_of_it(run, done, monkeypatch, file, argv):
    monkeypatch.chdir(done)
    rng, path, (step, *rest) = random.Random(0), done / "work" / file, argv.split()
    first, *others = path.read_text().splitlines(keepends=True) if "jsonl" in file else [
        path.read_text()]  # fmt: skip
    bads = (..., None, -1, 1e300, 10**30, math.nan, math.inf, "", "x", "AAAA", [], {}, True)
    for place in rng.choices([*places_in(json.loads(first))], k=40):
        path.write_text("".join([damaged(first, place, rng.choice(bads)) + "\n", *others]))
        answer = run("video", step, "work", *rest, "-q")
        if answer[0] == 2:
            refused(answer, file.partition(".")[0])


def test_a_flipped_letter_in_the_list_of_clips_costs_that_clip(run, done):
    """It is cut again; what lies in its place goes to _removed, whoever made it."""
    path, before = done / "work/clips.jsonl", clips_in(done)
    path.write_text(path.read_text().replace('"asked": "smart"', '"asked": "smaru"', 1))
    code, _, err = run("video", "cut", done / "work", done / "out")
    assert code == 0 and f"{path}: line 1 is damaged" in err and err.count("is damaged") == 1
    assert set(clips_in(done)) >= set(before)


def test_arrays_that_do_not_fit_together_are_damage(run, done):
    path = done / "work/frames.npz"
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **{**arrays, "det": arrays["det"][1:]})
    refused(run("video", "track", done / "work", "-q"), path, "run `video merge` again")


# -- what became of a segment ------------------------------------------------


def test_a_clip_that_is_cut_after_it_failed_is_told_so(run, done, monkeypatch):
    argv = ("video", "cut", done / "work", done / "out", "--write-sidecar", "-q")
    whole, cut_clip = json.loads((done / "work/plan.json").read_text()), writer.cut_clip

    def fail(*_args):
        raise sf.VideoError("planted")

    monkeypatch.setattr(writer, "cut_clip", fail)
    assert run(*argv, "--cut", "encode")[0] == 1
    for segment in json.loads((done / "work/plan.json").read_text())["segments"]:
        assert (segment["clip"], segment["failed"]) == (None, "planted")
        assert not {"mode", "fallback", "checked"} & segment.keys()
    monkeypatch.setattr(writer, "cut_clip", cut_clip)
    assert run(*argv)[0] == 0
    assert json.loads((done / "work/plan.json").read_text()) == whole
    for segment in whole["segments"]:
        sidecar = (done / "out" / segment["clip"]).with_suffix(".json")
        assert json.loads(sidecar.read_text()) == segment
    assert run("video", "report", done / "work")[0] == 0
    assert "planted" not in (done / "work/report/index.html").read_text()


def test_a_plan_without_segments_cuts_nothing_and_says_so(run, done):
    before = clips_in(done)
    assert run("video", "score", done / "work", "--min-dur", "100")[0] == 1
    code, out, _ = run("video", "cut", done / "work", done / "out", "--json")
    assert (code, json.loads(out)["clips"], json.loads(out)["set_aside"]) == (1, 0, len(before))


@pytest.mark.parametrize("step", ["stage", "merge", "track", "score", "report"])
def test_a_mistyped_work_folder_is_not_made(run, tmp_path, step):
    refused(run("video", step, tmp_path / "typo"), tmp_path / "typo", "not found")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59.94, "0:00:59.9"), (59.97, "0:01:00.0"), (3599.96, "1:00:00.0"), (3723.4, "1:02:03.4")],
)
def test_seconds_never_read_60(seconds, text):
    assert sf.clock(seconds) == text


# -- no more work than needed ------------------------------------------------


def write_results(work: sf.VideoWork, frames: int, dim: int = 512) -> None:
    """A queue of one film and a result of one face for each of its frames."""
    rng = np.random.default_rng(0)
    text = sf.pack_floats(rng.normal(size=dim))
    meta = {"model": "m", "recognizer": "r", "dim": dim, "det_size": 640, "det_threshold": 0.5}
    head = {"tool": "sort_faces", "kind": "staged", "version": sf.VERSION, "rate": 2.0}
    pts = list(range(frames))
    sf.write_json(work.folder / "queue.json", {**head, "items": [
        {"video": "v", "path": "/v.mp4", "pts": pts, "sar": 1.0}]})  # fmt: skip
    face = {"bbox": [0, 0, 9, 9], "det_score": 0.5, "pose": sf.pack_floats(np.zeros(3)),
            "embedding": text}  # fmt: skip
    with open(work.folder / "results.jsonl", "w") as stream:
        for entry in ({"id": "meta", "meta": meta}, *({"id": f"v:{at}", "wh": [9, 9],
                      "faces": [face]} for at in pts)):  # fmt: skip
            print(json.dumps({"schema": 1, **entry}), file=stream)


def test_merging_takes_little_more_memory_than_its_arrays(tmp_path):
    import tracemalloc

    work = sf.VideoWork(tmp_path)
    write_results(work, 10_000)
    tracemalloc.start()
    try:
        sf.merge_frames(work)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    with np.load(tmp_path / "frames.npz") as archive:
        assert archive["embedding"].shape == (10_000, 512)
        arrays = sum(archive[name].nbytes for name in archive.files)
    assert peak < 1.5 * arrays + 2**25  # numpy writes through two buffers of 16 MiB


def test_of_several_results_of_a_frame_the_last_counts(run, tmp_path):
    work = sf.VideoWork(tmp_path)
    write_results(work, 4, dim=2)
    face = {"bbox": [0, 0, 5, 5], "det_score": 0.25, "pose": sf.pack_floats(np.ones(3)),
            "embedding": sf.pack_floats(np.ones(2))}  # fmt: skip
    with open(tmp_path / "results.jsonl", "a") as stream:
        for entry in ({"id": "v:2", "failed": "first"}, {"id": "v:1", "faces": [face, face]},
                      {"id": "v:3", "faces": []}, {"id": "else:3", "faces": [face]}):  # fmt: skip
            print(json.dumps({"schema": 1, **entry}), file=stream)
    code, out, _ = run("video", "merge", tmp_path, "--json")
    assert (code, json.loads(out)) == (0, {"frames": 4, "faces": 3, "failed": 1, "missing": 0})
    with np.load(tmp_path / "frames.npz") as archive:
        assert archive["pts"].tolist() == [0, 1, 1]
        assert archive["det"].tolist() == [0.5, 0.25, 0.25]
        assert archive["bbox"][:, 2].tolist() == [9, 5, 5] and archive["video"][0] == "v"
        assert archive["pose"][:, 0].tolist() == [0, 1, 1] and archive["embedding"][1, 1] == 1


@pytest.mark.parametrize("step", ["detect", "merge"])
def test_a_step_reads_the_results_once(run, done, monkeypatch, step):
    path, lines, parse = done / "work/results.jsonl", [], sf.json_lines

    def counted(file: Path, offset: int = 0):
        for pair in parse(file, offset):
            lines.extend([pair] * (file == path))
            yield pair

    monkeypatch.setattr(sf, "json_lines", counted)
    whole = path.read_bytes().splitlines(keepends=True)
    if step == "detect":
        path.write_bytes(b"".join(whole[:-1]))
    argv = ("--model", "dlib") if step == "detect" else ()
    assert run("video", step, done / "work", *argv, "-q")[0] == 0
    assert len(lines) == len(whole) - (step == "detect")


def test_a_check_converts_only_frames_it_compares(tmp_path, monkeypatch):
    path = write_video(tmp_path / "f.mp4", numbered(60), g="20")
    (video, found), seen, upright = known_video(path), [], film_reading.upright_frame
    cut = writer.Cut(video, int(found.pts[5]), int(found.pts[55]), tmp_path / "c.mp4", found.pts)
    monkeypatch.setattr(
        film_reading, "upright_frame", lambda *args: seen.append(1) or upright(*args)
    )
    assert writer.cut_clip(cut, "smart", lambda *_: None).mode == "smart"
    assert len(seen) <= 12, "first, last and two beside each join, here and in the source"


# -- saying what would be done -----------------------------------------------


def tree(base: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in base.rglob("*")}


def told(answer: tuple[int, str, str]) -> tuple[dict, list[str]]:
    """The result of a dry run that ended well, and what it would do to each clip."""
    assert answer[0] == 0, answer
    result = json.loads(answer[1])
    return result, [row["do"] for row in result.get("clips", [])]


def test_a_dry_cut_says_what_would_become_of_each_clip(run, done):
    work, out = done / "work", done / "out"
    (lost, _) = sorted(out.rglob("*.mp4"))
    assert run("video", "score", work, "--min-dur", "0.5")[0] == 0
    lost.unlink()
    before = tree(done)
    result, does = told(run("video", "cut", work, out, "--dry-run", "--json"))
    assert does == ["write", "keep"] and (result["would_write"], result["would_keep"]) == (1, 1)
    assert tree(done) == before
    os.utime(done / "in/a.mp4", (1, 1))
    _, does = told(run("video", "cut", work, out, "--dry-run", "--json"))
    assert does[0].startswith("fail: changed since the scan")
    assert run("video", "score", work, "--min-dur", "100")[0] == 1
    before = tree(done)
    code, said, _ = run("video", "cut", work, out, "--dry-run", "--json")
    assert (code, json.loads(said)["would_set_aside"]) == (1, 1)
    assert tree(done) == before


def test_a_dry_run_decodes_nothing_and_leaves_all_as_it_is(run, done, monkeypatch):
    monkeypatch.setattr(film_pass, "VideoPass", lambda *_: pytest.fail("decodes"))
    monkeypatch.setattr(sf, "load_engine", lambda *_: pytest.fail("loads a model"))
    argv = ("video", "run", done / "in", done / "work", done / "out", "--model", "dlib")
    argv = (*argv, "--dry-run", "--json")
    before = tree(done)
    result, does = told(run(*argv))
    assert does == ["keep", "keep"] and result["would_decode"] == []
    _, does = told(run(*argv, "--cut", "encode"))
    assert does == ["write", "write"]
    assert tree(done) == before
    write_video(done / "in/c.mp4", list(film([("anna", 1.4)])))
    before = tree(done)
    result, does = told(run(*argv))
    assert does == ["keep", "keep"] and result["would_decode"] == [str(done / "in/c.mp4")]
    fresh = (*argv[:3], done / "none/work", done / "none/out", *argv[5:])
    result, does = told(run(*fresh))
    assert len(result["would_decode"]) == 3 and does == []
    assert tree(done) == before


def test_a_dry_run_for_a_new_person_leaves_all_as_it_is(run, done):
    argv = ("video", "run", done / "in", done / "work", done / "out", "--model", "dlib")
    anna, before = crop_of(done, "anna"), tree(done)
    _, does = told(run(*argv, "--identity", anna, "--dry-run", "--json"))
    assert does == ["keep", "set aside"]
    assert tree(done) == before


# -- identities elsewhere ----------------------------------------------------


def test_identities_are_embedded_by_the_worker(run, done, monkeypatch):
    monkeypatch.setattr(sf, "load_engine", lambda *_: pytest.fail("loads a model here"))
    argv = ("--identity", crop_of(done, "anna"), "--worker", sys.executable)
    code, out, err = run("video", "score", done / "work", *argv, "--json")
    assert code == 0 and json.loads(out)["segments"] == 1, err
    left = {path.name for path in (done / "work").iterdir()}
    assert "workers" not in left and not any(name.startswith(sf.PART_PREFIX) for name in left)
