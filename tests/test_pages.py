"""Folders of pages: whose they are, what stays, what goes; for every command that writes pages."""

from __future__ import annotations

import contextlib
import html
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from conftest import SCRIPT, sf
from corpora import Space, build, edit, read, rewrite, turned
from material import ok, refused, tree
from video_material import film, write_video

pytestmark = pytest.mark.usefixtures("quick_disk")

pages = sf.companion("pages")
film_reading = sf.companion("film_reading")

KINDS = ("report", "occlusion", "consolidate", "video")
OLD_HEAD = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="referrer" content="no-referrer">
<title>{}</title>
"""
OLD = {  # what version 0.1.0 wrote: title, other files
    "occlusion": (
        "Occluded faces",
        ["mask.html", "sunglasses.html", "thumbs/0123456789abcdef.jpg"],
    ),
    "consolidate": ("Nearly the same person", ["thumbs/0123456789abcdef.jpg"]),
    "video": ("Segments with a usable face", ["thumbs/fedcba9876543210/-7.jpg"]),
}
JPEG = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Two people that are nearly one, with scores of occlusion."""
    space = Space()
    root = build(tmp_path, [space.faces(0, 5), space.faces(turned(0.55), 8)])
    faces = [face for own in ("faceset_001", "faceset_002") for face in faces_of(root, own)]
    lines = [{"sha256": f["sha256"], "error": "", "scores": [0.9, 0.1]} for f in faces]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    sf.write_part(root / "_scores" / "occlusion-made.jsonl", text.encode())
    return root


@pytest.fixture(scope="module")
def scanned(tmp_path_factory) -> Path:
    """A film, and the work folder of a scan."""
    base = tmp_path_factory.mktemp("film")
    write_video(base / "in" / "film.mp4", list(film((("", 4.0),))))
    with contextlib.redirect_stdout(io.StringIO()):
        assert sf.main(["video", "scan", str(base / "in"), str(base / "work"), "-q"]) == 0
    return base


@pytest.fixture
def work(scanned, tmp_path) -> Path:
    """A work folder with a plan: two segments, three rejected tracks, each at a time of its own."""
    text = (scanned / "work/videos.json").read_text(encoding="utf-8")
    sf.write_part(tmp_path / "work/videos.json", text.encode())
    [video] = sf.VideoWork(tmp_path / "work").list_videos()
    rows = [{"video": video.id, "start": at, "end": at + 0.4, "strip": [at + 0.2], "name": f"t{n}"}
            for n, at in enumerate((1.2, 0.4, 0.8, 0.0, 1.6))]  # fmt: skip
    seen = dict.fromkeys(sf.Checked.__struct_fields__[:-2], 1)
    plan = {
        "tool": sf.TOOL, "kind": "segments", "version": sf.VERSION, "identities": {},
        "gates": asdict(sf.Gates()), "out": str(tmp_path / "clips & more"),
        "segments": [{**row, "uuid": f"u{n}", "source": video.path, "pts": [0, 9], "tracks": [],
                      "frames": [0, 9], "quality": {"yaw": n}, "identity": [],
                      "clip": f"film/{n}.mp4", "mode": "copy", "fallback": "", "checked": seen}
                     for n, row in enumerate(rows[:2])],
        "rejected": [{**row, "reason": "too dark"} for row in rows[2:]],
    }  # fmt: skip
    sf.write_json(tmp_path / "work/plan.json", plan)
    return tmp_path / "work"


def faces_of(root: Path, name: str) -> list[dict]:
    return read(root / name / "manifest.json")["faces"]


@pytest.fixture
def command(request, tmp_path) -> tuple[list, Path]:
    """(argv of a command that writes pages, the folder they go to)."""
    kind = request.param
    if kind == "video":
        work = request.getfixturevalue("work")
        return ["video", "report", work], work / "report"
    root, out = request.getfixturevalue("corpus"), tmp_path / "out"
    argv = {
        "report": ["report", root, "--out", out],
        "occlusion": ["occlusion", "report", root, "--out", out],
        "consolidate": ["consolidate", root, "--dry-run", "--review", out],
    }
    return argv[kind], out


def every_command(*kinds: str) -> Callable:
    return pytest.mark.parametrize("command", kinds or KINDS, indirect=True)


def files_in(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def pictures_on(out: Path) -> set[str]:
    texts = [page.read_text(encoding="utf-8") for page in out.glob("*.html")]
    return {unquote(name) for text in texts for name in re.findall(r'<img src="([^"]+)"', text)}


@every_command()
def test_the_manifest_names_every_file(run, command):
    argv, out = command
    ok(run, *argv)
    listed = read(out / "manifest.json")["files"]
    assert files_in(out) == {*listed, "manifest.json", sf.LOCK_NAME}
    assert {name for name in listed if name.endswith(".jpg")} == pictures_on(out) != set()
    again = tree(out)
    edit(out / "manifest.json", lambda value: value.update(created="earlier"))
    stamps = {name: (out / name).stat().st_mtime_ns for name in pictures_on(out)}
    ok(run, *argv)
    assert {**tree(out), "manifest.json": ""} == {**again, "manifest.json": ""}
    assert stamps == {name: (out / name).stat().st_mtime_ns for name in stamps}


@every_command()
def test_pages_are_no_photos(run, command):
    argv, out = command
    ok(run, *argv)
    told = sf.scan_photos([out.parent])
    assert [f for f in told.files if str(out) in f.path] == []
    assert str(out) in told.skipped_outputs


@every_command()
@pytest.mark.parametrize("name", ["index.html", "thumbs/me.jpg", "pairs.json", "manifest.json"])
def test_a_folder_of_others_is_refused(run, command, name):
    argv, out = command
    own = b'{"tool": "theirs", "kind": "report"}' if name == "manifest.json" else b"<title>My page"
    sf.write_part(out / name, own)
    before = tree(out)
    word = {"manifest.json": "is no report manifest", "pairs.json": str(out)}
    refused(run, *argv, word=word.get(name, "holds other files"))
    assert tree(out) == before


@every_command("occlusion", "consolidate", "report")
def test_thumbnails_of_deleted_faces_go_and_files_of_others_stay(run, command, corpus):
    argv, out = command
    ok(run, *argv)
    sf.write_part(out / "thumbs/mine.jpg", JPEG)
    sf.write_part(out / "notes.html", b"mine")
    before, gone = pictures_on(out), faces_of(corpus, "faceset_002")[0]
    rewrite(corpus, "faceset_002", faces_of(corpus, "faceset_002")[1:])
    (corpus / "faceset_002" / gone["file"]).unlink(missing_ok=True)
    ok(run, *argv)
    [removed] = before - pictures_on(out)
    assert not (out / removed).exists()
    assert (out / "thumbs/mine.jpg").read_bytes() == JPEG and (out / "notes.html").exists()
    assert set(pictures_on(out)) < files_in(out)


def test_thumbnails_of_segments_that_are_gone_go(run, work):
    ok(run, "video", "report", work)
    before = pictures_on(work / "report")
    edit(work / "plan.json", lambda plan: plan["rejected"].pop())
    ok(run, "video", "report", work)
    [removed] = before - pictures_on(work / "report")
    assert not (work / "report" / removed).exists()
    edit(work / "plan.json", lambda plan: plan.update(segments=[], rejected=[]))
    ok(run, "video", "report", work)
    assert files_in(work / "report") == {"index.html", "manifest.json", sf.LOCK_NAME}
    assert not (work / "report/thumbs").exists() or not any((work / "report/thumbs").iterdir())


@every_command("occlusion", "consolidate", "video")
def test_folders_of_version_0_1_0_go_on(run, command, request):
    argv, out = command
    title, files = OLD[request.node.callspec.params["command"]]
    for name in files:
        sf.write_part(out / name, JPEG)
    sf.write_part(out / "index.html", OLD_HEAD.format(title).encode())
    sf.write_part(out / "thumbs/holiday.jpg", JPEG)
    answer = {"a": "faceset_001", "b": "faceset_002", "answer": "no"}
    pairs = {"tool": sf.TOOL, "kind": "pairs", "pairs": [answer]}
    if "consolidate" in argv:
        sf.write_json(out / "pairs.json", pairs)
    ok(run, *argv)
    assert read(out / "manifest.json")["kind"] == "report"
    assert (out / "thumbs/holiday.jpg").exists() and not (out / files[-1]).exists()
    assert OLD_HEAD not in (out / "index.html").read_text(encoding="utf-8")
    if "consolidate" in argv:
        assert read(out / "pairs.json")["pairs"] == [answer]
    ok(run, *argv)


def test_a_video_report_that_version_0_1_0_did_not_finish_goes_on(run, work):
    sf.write_part(work / "report" / OLD["video"][1][0], JPEG)
    ok(run, "video", "report", work)
    assert not (work / "report" / OLD["video"][1][0]).exists()


@every_command()
def test_a_killed_run_is_finished_by_the_next(run, command, monkeypatch):
    argv, out = command

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pages.PageFolder, "write", stop)
        assert run(*argv)[0] == 130
    listed = {*read(out / "manifest.json")["files"], "manifest.json", sf.LOCK_NAME}
    assert files_in(out) <= listed
    monkeypatch.setattr(pages, "write_thumbnail", lambda *_: pytest.fail("made again"))
    ok(run, *argv)
    assert files_in(out) == listed


@every_command("occlusion", "consolidate", "report")
def test_a_killed_run_forgets_nothing_it_has_to_remove(run, command, corpus, monkeypatch):
    argv, out = command
    ok(run, *argv)
    before, gone = pictures_on(out), faces_of(corpus, "faceset_002")[0]
    rewrite(corpus, "faceset_002", faces_of(corpus, "faceset_002")[1:])
    (corpus / "faceset_002" / gone["file"]).unlink(missing_ok=True)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pages.PageFolder, "write", stop)
        assert run(*argv)[0] == 130
    assert before <= files_in(out)  # the old pages still show all of it
    for name in before:
        (out / name).write_bytes(b"")  # the machine went down, too
    ok(run, *argv)
    assert {name for name in before if not (out / name).exists()} == before - pictures_on(out)
    assert len(before - pictures_on(out)) == 1
    assert all((out / name).stat().st_size for name in pictures_on(out))


@every_command()
def test_the_script_alone_says_what_is_missing(run, command, monkeypatch, tmp_path):
    argv, out = command
    monkeypatch.setattr(sf, "WORK_FOLDER", tmp_path / "elsewhere/work")
    pages.page_templates.cache_clear()
    refused(run, *argv, word="keep the folder work/ beside sort_faces.py")
    pages.page_templates.cache_clear()
    assert not out.exists()


def as_script(script: Path, *argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own that says on stderr what it imports."""
    argv = (sys.executable, "-X", "importtime", str(script), *argv)
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)


def test_run_as_a_script_it_stays_one_module(corpus):
    done = as_script(SCRIPT, "report", corpus.name, "--json", "-q", cwd=corpus.parent)
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["look_at"]).is_file()
    told = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.split("|")[-1].strip() for line in told}
    assert "jinja2" in imported and "sort_faces" not in imported


def test_the_script_copied_alone_says_so_in_one_line(corpus, tmp_path):
    (tmp_path / "alone").mkdir()
    script = shutil.copy(SCRIPT, tmp_path / "alone")
    done = as_script(script, "report", corpus.name, "-q", cwd=corpus.parent)
    told = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert (done.returncode, done.stdout, len(told)) == (2, "", 1)
    assert "work/pages.py: not there; keep the folder work/ beside sort_faces.py" in told[0]
    assert not (corpus.parent / f"{corpus.name}-report").exists()


@every_command()
def test_pages_fetch_nothing(run, command):
    argv, out = command
    ok(run, *argv)
    for page in out.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert text.startswith("<!DOCTYPE html>") and text.count("<style>") == 1
        assert not re.search(r"https?:|@import|url\(|<script src|{[{%#]", text)


@every_command()
def test_every_link_says_in_words_what_it_leads_to(run, command):
    argv, out = command
    if argv[0] == "report":  # faces that were left out have no rank to be called by
        path = argv[1] / "faceset_002/manifest.json"
        manifest = read(path)
        last = manifest["faces"].pop()
        manifest["dropped"].append({**last, "reason": "outlier"})
        sf.write_json(path, manifest)
    ok(run, *argv)
    pages = [page.read_text(encoding="utf-8") for page in out.glob("*.html")]
    links = [link for page in pages for link in re.findall(r"<a href.*?</a>", page, re.DOTALL)]
    words = [re.sub(r'<img [^>]*alt="([^"]*)"[^>]*>', r"\1", link) for link in links]
    assert links and [w for w in words if not re.sub("<[^>]*>", "", w).strip()] == []


@pytest.mark.parametrize("where", ["", "report"])
def test_pages_inside_the_corpus_are_refused(run, corpus, where):
    before = tree(corpus)
    refused(run, "occlusion", "report", corpus, "--out", corpus / where, word="lies inside")
    refused(run, "consolidate", corpus, "--review", corpus / where, word="lies inside")
    assert {**tree(corpus), sf.LOCK_NAME: ""} == {**before, sf.LOCK_NAME: ""}


# --- what comes next --------------------------------------------------------


def commands_on(page: Path) -> list[list[str]]:
    """The command lines of a page, as a shell takes them apart."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'<pre class="command" tabindex="0">(.*?)</pre>', text, re.DOTALL)
    return [shlex.split(html.unescape(line)) for line in found]


@every_command()
def test_every_page_names_a_next_command_that_can_be_pasted(run, command, monkeypatch, tmp_path):
    argv, out = command
    ok(run, *argv)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for page in out.glob("*.html"):
        [(_, script, *words), *_] = commands_on(page)
        assert Path(script) == SCRIPT.resolve()
        args = sf.parse_command_line(words)
        [place] = [value for value in vars(args).values() if isinstance(value, Path)][:1]
        assert place.is_absolute() and place.exists()


def test_the_next_command_has_the_options_of_this_run(run, corpus, tmp_path):
    out = tmp_path / "it's & odd"
    words = ("--edge", 0.5, "--review", out)
    ok(run, "consolidate", corpus, "--dry-run", *words)
    [(_, _, *told)] = commands_on(out / "index.html")
    accepted = ("--accept", out / "pairs.json")
    assert told == ["consolidate", *map(str, (corpus, *accepted, *words))]
    ok(run, *told, "--dry-run")
    ok(run, "occlusion", "report", corpus, "--out", tmp_path / "o", "--min-survivors", 3)
    [(_, _, *told)] = commands_on(tmp_path / "o/index.html")
    assert told[3:] == ["--scores", "occlusion-made", "--min-survivors", "3"]


def test_what_comes_after_a_scan_is_cutting_and_then_choosing_anew(run, work):
    ok(run, "video", "report", work)
    assert [line[2:4] for line in commands_on(work / "report/index.html")] == [
        ["video", "score"], ["video", "cut"]
    ]  # fmt: skip
    edit(work / "plan.json", lambda plan: plan["segments"][0].update(clip=None))
    edit(work / "plan.json", lambda plan: plan["gates"].update(max_yaw=25.0))
    ok(run, "video", "report", work)
    [cut] = commands_on(work / "report/index.html")
    assert cut[2:] == ["video", "cut", str(work), str(work.parent / "clips & more")]


def test_two_people_are_two_rows_of_eight(run, corpus, tmp_path):
    out = tmp_path / "out"
    ok(run, "consolidate", corpus, "--dry-run", "--review", out)
    text = (out / "index.html").read_text(encoding="utf-8")
    rows = text.split('<div class="person">')[1:]
    assert [row.count("<img") for row in rows] == [5, pages.REVIEW_FACES]
    links = re.findall(r'<a href="([^"]+)"', text)
    assert len(links) == 13 and "<a>" not in text
    assert all((out / unquote(link)).is_file() for link in links)


# --- the video page ---------------------------------------------------------


def rows_of(work: Path) -> list[str]:
    page = (work / "report/index.html").read_text(encoding="utf-8")
    return re.findall(r'<tr class="(?:segment|rejected)">.*?</tr>', page, re.DOTALL)


@pytest.mark.parametrize(("limit", "pictured"), [(0, 2), (2, 4), (3, 5), (9, 5)])
def test_so_many_rejected_tracks_get_thumbnails(run, work, monkeypatch, limit, pictured):
    """Segments do not count; what has no thumbnails still says when and why."""
    monkeypatch.setattr(sf.companion("video_page"), "REPORT_REJECTED", limit)
    ok(run, "video", "report", work)
    rows = rows_of(work)
    assert [("<img" in row) for row in rows] == [True] * pictured + [False] * (5 - pictured)
    assert [
        re.search(r"[\d:.]+ to [\d:.]+", row)[0] for row in rows
    ] == ["0:00:00.4 to 0:00:00.8", "0:00:01.2 to 0:00:01.6", "0:00:00.0 to 0:00:00.4",
            "0:00:00.8 to 0:00:01.2", "0:00:01.6 to 0:00:02.0"]  # fmt: skip
    assert all("too dark" in row for row in rows[2:]) and "yaw 0" in rows[1]


def test_links_to_clips_are_relative(run, work, tmp_path):
    ok(run, "video", "report", work)
    links = [re.search(r'href="([^"]+)"', row)[1] for row in rows_of(work)[:2]]
    assert links == ["../../clips%20%26%20more/film/1.mp4", "../../clips%20%26%20more/film/0.mp4"]


def test_a_film_that_is_gone_is_shown_without_pictures(run, work, monkeypatch, tmp_path):
    edit(work / "videos.json", lambda v: v["videos"][0]["facts"].update(path=str(tmp_path / "g")))
    ok(run, "video", "report", work, warned=str(tmp_path / "g"))
    assert len(rows_of(work)) == 5 and pictures_on(work / "report") == set()


@pytest.fixture
def boxed(work) -> Path:
    """A work folder whose first segment shows a face of 40 px in the frame of 0.6 s."""
    edit(work / "plan.json", lambda plan: plan["segments"][1].update(boxes=[[[20, 10, 60, 60]]]))
    return work


def test_a_row_shows_the_face_it_means(run, boxed):
    ok(run, "video", "report", boxed)
    strip, *face = re.findall(r'<img src="([^"]+)"', rows_of(boxed)[0])
    assert [name.count("-crop-") for name in (strip, *face)] == [0, 1]
    drawn, crop = (cv2.imread(str(boxed / "report" / name)) for name in (strip, *face))
    [video] = sf.VideoWork(boxed).list_videos()
    [(_, frame)] = film_reading.frames_at(
        video.path, [video.start + round(0.6 / video.tick)], video.sar
    )
    scale = drawn.shape[1] / frame.shape[1]
    x1, y1, x2, y2 = (round(value * scale) for value in (20, 10, 60, 60))
    plain = cv2.resize(frame, drawn.shape[1::-1], interpolation=cv2.INTER_AREA)
    changed = np.abs(drawn.astype(int) - plain).max(axis=2) > 60
    assert changed[y1, x1:x2].mean() > 0.9 and changed[y1:y2, x2].mean() > 0.9
    assert not changed[y1 + 6 : y2 - 6, x1 + 6 : x2 - 6].any() and not changed[:, x2 + 6 :].any()
    x, y, side = sf.crop_square(np.array([20, 10, 60, 60]), frame.shape[1::-1], pages.PAGE_PAD)
    shown = cv2.resize(frame[max(y, 0) : y + side, max(x, 0) : x + side], crop.shape[1::-1])
    assert np.abs(shown.astype(int) - crop).mean() < 12


@pytest.mark.parametrize("boxes", [[], [[]], [[[1, 2, 3, 4]], [[5, 6, 7, 8]], []]])
def test_boxes_may_be_missing_or_too_many(run, work, boxes):
    edit(work / "plan.json", lambda plan: plan["segments"][0].update(boxes=boxes))
    ok(run, "video", "report", work)
    assert rows_of(work)[1].count("<img") == 1 + bool(boxes and boxes[0])


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0:00:00.0"), (59.94, "0:00:59.9"), (59.97, "0:01:00.0"), (3599.96, "1:00:00.0"),
    (3723.44, "1:02:03.4"), (36000.05, "10:00:00.0"), (1e6, "277:46:40.0"),
])  # fmt: skip
def test_the_clock(seconds, text):
    assert sf.clock(seconds) == text


def test_a_retouched_face_gets_a_new_thumbnail(run, corpus, tmp_path):
    """What the pages show is what lies there, not what its name once stood for."""
    argv = ("occlusion", "report", corpus, "--out", tmp_path / "out")
    ok(run, *argv)
    before = pictures_on(tmp_path / "out")
    path = corpus / "faceset_001/faces/000.png"
    cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    ok(run, *argv)
    [new] = pictures_on(tmp_path / "out") - before
    assert cv2.imread(str(tmp_path / "out" / new)).max() < 8


# --- what the pages say -----------------------------------------------------


def test_the_threshold_is_drawn_below_the_last_face_that_reaches_it(run, corpus, tmp_path):
    path = corpus / "_scores/occlusion-made.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line, mask in zip(lines, (0.9, 0.7, 0.6999, *[0.1] * 10), strict=True):
        line["scores"] = [mask, 0.7]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ok(run, "occlusion", "report", corpus, "--out", tmp_path / "out")
    text = (tmp_path / "out/mask.html").read_text(encoding="utf-8")
    drawn = text.index("threshold 0.7")
    assert text.index("<b>0.900</b>") < text.index("<b>0.700</b>") < drawn
    assert [m.start() > drawn for m in re.finditer("<figcaption>", text)] == [False] * 2 + [
        True
    ] * 11
    assert "threshold 0" not in (tmp_path / "out/sunglasses.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("far", "small", "flags"), [
    (0, 0, []), (0, 1, []), (0, 2, ["small"]), (1, 1, ["far"]), (1, 4, ["far", "small"]),
])  # fmt: skip
def test_a_group_has_a_flag_of_half_its_faces_or_a_grave_one(tmp_path, far, small, flags):
    folder = pages.PageFolder(tmp_path, tmp_path)
    folder.have.add("")
    run = pages.ReportRun(tmp_path, {"kind": "swap", "model": "buffalo_l"}, None, folder)
    entries = [{"face": f"a:{n}", "distance": 0.5 if n < far else 0.1,
                "bbox": [0, 0, 50 if n < small else 200, 200]} for n in range(4)]  # fmt: skip
    faces = [run.face(entry) for entry in entries]
    group = pages.ShownGroup("faceset_001", "Ada", "", "a note", faces, [])
    card = pages.group_card(run, group, "x.html")
    assert (card.title, card.flags) == ("Ada", flags)
    assert card.lines[:2] == ["faceset_001", "4 faces"] and card.lines[-1] == "a note"


@pytest.mark.parametrize("change", [
    {"faces": [{"file": []}]}, {"dropped": [{"file": {}, "reason": 5}]}, {"faces": [5, None, "x"]},
    {"faces": [{"file": "faces/000.png", "face": ["a"], "terms": 5, "bbox": {}, "taken": []}]},
    {"dropped": 7},
])  # fmt: skip
def test_a_hand_edited_manifest_costs_no_page(run, corpus, tmp_path, change):
    edit(corpus / "faceset_001/manifest.json", lambda manifest: manifest.update(change))
    told = ok(run, "report", corpus, "--out", tmp_path / "out")
    assert told["identities"] == 2 and (tmp_path / "out/faceset_002.html").exists()
