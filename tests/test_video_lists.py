"""The plan of `video` for other programs: what editors, ffmpeg and OpenTimelineIO make of it."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname
from xml.etree import ElementTree

import av
import pytest
from conftest import sf
from hypothesis import given
from hypothesis import strategies as st
from material import ok
from video_material import film, write_video

lists = sf.companion("clip_lists")
NAME = "it's; a=film #1 Müller"  # all that the formats give a meaning to
SHOTS = (("anna", 1.4), ("", 1.2), ("dora", 1.6))
NTSC = Fraction(30000, 1001)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run over two films, cut."""
    base = tmp_path_factory.mktemp("made")
    write_video(base / "films" / f"{NAME}.mp4", list(film(SHOTS)), audio="aac", g="10")
    write_video(base / "films" / "plain.mkv", list(film(SHOTS[:2])), g="10")
    assert sf.main(["video", "run", str(base / "films"), str(base / "work"), str(base / "clips"),
                    "--model", "dlib", "-q", "--json"]) == 0  # fmt: skip
    return base


@pytest.fixture(scope="module")
def written(made) -> Path:
    """All lists of it."""
    assert sf.main(["video", "lists", str(made / "work"), str(made / "lists"), "--in-file", "-q",
                    "--json"]) == 0  # fmt: skip
    return made / "lists"


def segments(made: Path, name: str) -> list[dict]:
    plan = json.loads((made / "work" / "plan.json").read_text())
    return [s for s in plan["segments"] if Path(s["source"]).stem == name]


def ffmpeg(*words: object) -> None:
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, words)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def chapters_in(path: Path) -> list[tuple[float, float, str]]:
    with av.open(str(path)) as container:
        return [
            (float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]),
             c["metadata"].get("title", ""))
            for c in container.chapters()
        ]  # fmt: skip


# --- timecodes --------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "rate", "told"),
    [
        (0, NTSC, "00:00:00;00"),
        (1799, NTSC, "00:00:59;29"),
        (1800, NTSC, "00:01:00;02"),  # SMPTE ST 12-1: numbers 0 and 1 are dropped
        (17981, NTSC, "00:09:59;29"),
        (17982, NTSC, "00:10:00;00"),  # but not every tenth minute
        (107892, NTSC, "01:00:00;00"),
        (3600, 2 * NTSC, "00:01:00;04"),
        (215784, 2 * NTSC, "01:00:00;00"),
        (1500, Fraction(25), "00:01:00:00"),
        (1440, Fraction(24000, 1001), "00:01:00:00"),
    ],
)
def test_timecodes(frame, rate, told):
    assert lists.timecode(frame, rate) == told


@given(st.integers(0, 24 * 107892), st.sampled_from([NTSC, 2 * NTSC, Fraction(25)]))
def test_no_frame_has_the_number_of_another_nor_a_dropped_one(frame, rate):
    first, second = lists.timecode(frame, rate), lists.timecode(frame + 1, rate)
    assert first < second
    _, minute, second, number = map(int, re.split("[:;]", first))
    if rate in lists.DROPPED and minute % 10 and not second:
        assert number >= lists.DROPPED[rate]


@pytest.mark.parametrize("rate", [NTSC, 2 * NTSC, Fraction(25), Fraction(24)])
def test_opentimelineio_counts_the_same(rate):
    otio = pytest.importorskip("opentimelineio")
    for frame in (0, 1799, 1800, 3600, 17981, 17982, 40000, 107891, 107892, 200000):
        time = otio.opentime.RationalTime(frame, float(rate))
        assert time.to_timecode() == lists.timecode(frame, rate)


def video_at(fps: float, vfr: bool = False) -> sf.Video:
    return sf.Video(
        id="v", path="/f.mp4", size=1, mtime_ns=1, duration=10.0, fps=fps, vfr=vfr, rotation=0,
        sar=1.0, width=640, height=360, codec="h264", pix_fmt="yuv420p", audio=(),
        time_base=(1, 90000), start=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fps", "vfr", "rate"),
    [
        (29.97003, False, NTSC),
        (29.97, False, NTSC),
        (30.0, False, Fraction(30)),
        (23.976, False, Fraction(24000, 1001)),
        (24.0, False, Fraction(24)),
        (59.94006, False, 2 * NTSC),
        (16.051, True, Fraction(24)),
        (26.4, True, Fraction(30)),
        (12.5, False, Fraction(25, 2)),
    ],
)
def test_the_rate_an_editor_counts_by(fps, vfr, rate):
    assert lists.rate_of(video_at(fps, vfr)) == rate


# --- edit lists -------------------------------------------------------------

EVENT = re.compile(r"(\d{3})  (\S{1,8}) +V     C        (\S+) (\S+) (\S+) (\S+)")


def number(code: str, base: int = 25) -> int:
    hours, minutes, seconds, frames = map(int, re.split("[:;]", code))
    return ((hours * 60 + minutes) * 60 + seconds) * base + frames


def test_an_edl_has_the_planned_frames_one_after_the_other(made, written):
    files = sorted(path.name for path in written.glob("*.edl"))
    assert len(files) == 2
    for name in (NAME, "plain"):
        clips = segments(made, name)
        text = next(
            path.read_text("utf-8") for path in written.glob("*.edl")
            if f"* FROM CLIP NAME: {name}" in path.read_text("utf-8")
        )  # fmt: skip
        head, events = text.splitlines()[:2], [*map(EVENT.fullmatch, text.splitlines())]
        events = [event for event in events if event]
        assert head[0].startswith("TITLE: ") and head[1] == "FCM: NON-DROP FRAME"
        assert [int(event[1]) for event in events] == [*range(1, len(clips) + 1)]
        at = 0
        for event, clip in zip(events, clips, strict=True):
            low, high, start, end = map(number, event.groups()[2:])
            assert [low, high] == clip["frames"] and start == at and end - start == high - low
            at = end


def test_ntsc_films_are_told_in_drop_frame(made, tmp_path):
    work = Path(shutil.copytree(made / "work", tmp_path / "work"))
    listed = json.loads((work / "videos.json").read_text())
    for entry in listed["videos"]:
        entry["facts"] |= {"fps": 29.97003, "time_base": [1001, 30000]}
    (work / "videos.json").write_text(json.dumps(listed))
    plan = json.loads((work / "plan.json").read_text())
    for segment in plan["segments"]:
        segment["pts"] = [1790, 1810]
    (work / "plan.json").write_text(json.dumps(plan))
    assert sf.main(["video", "lists", str(work), str(tmp_path / "out"), "--to", "edl,otio,fcpxml",
                    "-q"]) == 0  # fmt: skip
    text = (tmp_path / "out" / "plain.edl").read_text()
    assert "FCM: DROP FRAME" in text and "00:00:59;20 00:01:00;12 00:00:00;00" in text
    root = ElementTree.parse(tmp_path / "out" / "clips.xml").getroot()
    assert {e.text for e in root.iter("ntsc")} == {"TRUE"}
    assert {e.text for e in root.iter("displayformat")} == {"DF"}


def test_more_events_than_an_edl_holds_are_several_files():
    clip = sf.PlannedClip(
        uuid="u", video="v", source="/f.mp4", start=0.0, end=1.0, pts=(0, 90000), frames=(0, 25),
        tracks=["t"], identity=[], quality={}, strip=[],
    )  # fmt: skip
    many = [lists.Entry(clip, video_at(25.0), (), None)] * 1500
    files = dict(lists.edl(many))
    assert sorted(files) == ["f-1.edl", "f-2.edl"]
    assert files["f-1.edl"].count(b" V     C ") == 999


def test_opentimelineio_reads_the_timeline(made, written):
    otio = pytest.importorskip("opentimelineio")
    timeline = otio.adapters.read_from_file(str(written / "clips.otio"))
    video, audio = timeline.tracks
    assert (video.kind, audio.kind) == ("Video", "Audio")
    clips = segments(made, NAME) + segments(made, "plain")
    assert len(video) == len(audio) == len(clips)
    found = {clip.metadata["sort_faces"]["uuid"]: clip for clip in video}
    for clip in clips:
        own = found[clip["uuid"]]
        span = own.source_range
        frames = [span.start_time.value, span.end_time_exclusive().value]
        assert frames == clip["frames"] and span.start_time.rate == 25
        whole = own.media_reference.available_range
        assert whole.start_time <= span.start_time
        assert span.end_time_exclusive() <= whole.end_time_exclusive()
        target = urlsplit(own.media_reference.target_url)
        assert url2pathname(target.path) == clip["source"]
    silent = [item for item in audio if isinstance(item, otio.schema.Gap)]
    assert len(silent) == len(segments(made, "plain"))


def test_fcp_xml_names_each_film_once_and_its_clips_at_the_planned_frames(made, written):
    root = ElementTree.parse(written / "clips.xml").getroot()
    sequences = root.findall("./project/children/sequence")
    assert root.tag == "xmeml" and len(sequences) == 2
    for sequence in sequences:
        paths = [e.text for e in sequence.iter("pathurl")]
        assert len(paths) == 1
        source = unquote(urlsplit(paths[0]).path)
        clips = segments(made, Path(source).stem)
        items = sequence.findall("./media/video/track/clipitem")
        spans = [[int(item.findtext(key)) for key in ("in", "out")] for item in items]
        assert spans == [clip["frames"] for clip in clips]
        at = 0
        for item, (low, high) in zip(items, spans, strict=True):
            assert int(item.findtext("start")) == at
            at += high - low
            assert int(item.findtext("end")) == at
            assert int(item.findtext("duration")) >= high
        assert int(sequence.findtext("duration")) == at
        ids = {item.get("id") for item in sequence.iter("clipitem")}
        assert {link.findtext("linkclipref") for link in sequence.iter("link")} <= ids
        sound = sequence.findall("./media/audio/track/clipitem")
        assert len(sound) == (len(items) if Path(source).suffix == ".mp4" else 0)


# --- tables and ffmpeg ------------------------------------------------------


def test_the_table_has_a_row_a_clip(made, written):
    data = (written / "clips.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    clips = segments(made, NAME) + segments(made, "plain")
    assert {row["uuid"] for row in rows} == {clip["uuid"] for clip in clips}
    for row in rows:
        clip = next(clip for clip in clips if clip["uuid"] == row["uuid"])
        assert row["source"] == clip["source"] and int(row["rank"]) == clip["rank"]
        assert row["people"] and float(row["size_middle"]) == clip["envelope"]["size"][0]
        assert Path(row["clip"]).is_file()


def test_ffmpeg_joins_the_clips_of_a_list(made, written, tmp_path):
    files = sorted(written.glob("*.ffconcat"))
    assert len(files) == 2
    for file in files:
        ffmpeg("-f", "concat", "-safe", "0", "-i", file, "-c", "copy", tmp_path / "joined.mp4")
        name = NAME if "Müller" in file.name else "plain"
        frames = sum(clip["checked"]["frames"] for clip in segments(made, name))
        assert frames_in(tmp_path / "joined.mp4") == frames


def test_ffmpeg_and_the_copies_have_the_clips_as_chapters(made, written, tmp_path):
    for name, suffix in ((NAME, ".mp4"), ("plain", ".mkv")):
        source = made / "films" / f"{name}{suffix}"
        notes = written.glob("*.chapters.txt")
        (note,) = (f for f in notes if ("Müller" in f.name) == (name == NAME))
        told = tmp_path / f"told{suffix}"
        ffmpeg("-i", source, "-i", note, "-map", "0", "-map_chapters", "1", "-c", "copy", told)
        (copy,) = (f for f in written.glob(f"*.chapters{suffix}"))
        for path in (told, copy):
            found = [c for c in chapters_in(path) if c[2] != lists.NO_CLIP]
            spans = [(round(low, 2), round(high, 2)) for low, high, _ in found]
            clips = segments(made, name)
            assert spans == [(round(c["start"], 2), round(c["end"], 2)) for c in clips], path
            assert all("rank" in title for _, _, title in found)
        assert frames_in(copy) == frames_in(source)
        with av.open(str(copy)) as new, av.open(str(source)) as old:
            assert [s.type for s in new.streams if s.type in ("audio", "video")] == [
                s.type for s in old.streams]  # fmt: skip


# --- the folder -------------------------------------------------------------


def test_a_rerun_replaces_its_own_and_leaves_the_rest(run, made, tmp_path):
    out = tmp_path / "out"
    told = ok(run, "video", "lists", made / "work", out)
    (out / "yours.edl").write_text("mine")
    again = ok(run, "video", "lists", made / "work", out, "--to", "csv", "--order", "rank")
    assert told["clips"] == 3 and again["files"] == ["clips.csv"]
    assert sorted(p.name for p in out.iterdir() if not p.name.startswith(".")) == [
        "clips.csv", "lists.json", "yours.edl"]  # fmt: skip
    rows = list(csv.DictReader(io.StringIO((out / "clips.csv").read_text("utf-8-sig"))))
    assert [int(row["rank"]) for row in rows] == [1, 2, 3]


def test_clips_that_are_not_cut_cost_their_list_alone(run, made, tmp_path):
    work = Path(shutil.copytree(made / "work", tmp_path / "work"))
    ok(run, "video", "score", work)
    code, out, _ = run("video", "lists", work, tmp_path / "out", "--json")
    told = json.loads(out)
    assert code == 1 and told["failed"] == ["concat: no clip is cut yet; run `video cut` first"]
    assert "clips.otio" in told["files"] and (tmp_path / "out" / "clips.otio").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "paint"), "none of"),
        (("INSIDE",), "lies inside the videos"),
        (("OTHERS",), "holds lists of"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(run, made, tmp_path, words, said):
    out = tmp_path / "out"
    if words == ("INSIDE",):
        out, words = made / "films" / "lists", ()
    elif words == ("OTHERS",):
        work = Path(shutil.copytree(made / "work", tmp_path / "work"))
        ok(run, "video", "lists", work, out, "--to", "csv")
        words = ()
    code, text, err = run("video", "lists", made / "work", out, *words)
    assert (code, text) == (2, "") and err.count("\n") == 1 and said in err
    assert not (made / "films" / "lists").exists()
