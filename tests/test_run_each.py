"""run --each: a set of outputs for every folder, over one cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from video_material import film, write_video

import sort_faces as sf

demo_library = sf.companion("demo_library")
each = sf.companion("run_each")

OPTIONS = ("--each", "--model", "dlib", "--min-faces", 2, "--films")


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, Path]:
    """(folder of folders, OUT): the demo's people in two folders, one photo in both, one broken."""
    base = tmp_path_factory.mktemp("each")
    src = base / "src"
    for name, data in demo_library.demo_pictures().items():
        person = Path(name).name.split("_")[0]
        folder = {"anna": "first", "bert": "second"}.get(person)
        if folder:
            sf.write_part(src / folder / Path(name).name, data)
    for folder in ("first", "second"):
        sf.write_part(src / folder / "group.jpg", demo_library.demo_photo())
    sf.write_part(src / "broken/a.txt", b"nothing to see")
    write_video(src / "party.mp4", list(film((("dora", 5.0),))))
    (src / "loose.jpg").write_bytes(demo_library.demo_photo())
    assert sf.main(["run", str(src), str(base / "out"), *map(str, OPTIONS), "-q", "--json"]) == 1
    return src, base / "out"


def test_every_folder_has_outputs_of_its_own(done):
    src, out = done
    for name in ("first", "second"):
        cache = sf.load_cache(out / name / "faces.npz")
        assert cache.files and all(p.startswith(f"{src / name}/") for p in cache.file_path)
        assert not len(cache.alias_path)  # the copy in the other folder is none of its own
        assert cache.meta.roots == [str(src / name)]
        assert list((out / name / "facesets_swap_ready").glob("*/*.fsz"))
        placed = {path.name for path in (out / name / "raw_full").rglob("*.jpg")}
        assert placed and not [file for file in placed if "loose" in file]
    film_part = sf.load_cache(out / "party/faces.npz")
    assert {sf.film_of(path) for path in film_part.file_path} == {str(src / "party.mp4")}


def test_one_cache_has_looked_at_all_once(done):
    src, out = done
    cache = sf.load_cache(out / "faces.npz")
    group = sf.sha256_of_file(src / "first/group.jpg")
    row = cache.file_sha256.tolist().index(group)
    assert len(cache.paths[row]) == 2
    first, second = (sf.load_cache(out / name / "faces.npz") for name in ("first", "second"))
    known = {*first.file_sha256.tolist(), *second.file_sha256.tolist()}
    party = sf.load_cache(out / "party/faces.npz").file_sha256.tolist()
    assert {*cache.file_sha256.tolist()} == known | {*party}


def test_again_nothing_is_looked_at_and_one_failure_is_told(done, run, monkeypatch):
    src, out = done
    monkeypatch.setitem(sf.TASKS, "embed", lambda *_: pytest.fail("looked at again"))
    code, text, err = run("run", src, out, *OPTIONS, "--json")
    told = json.loads(text)
    rows = {row["source"]: row for row in told["each"]}
    assert code == 1 and told["failed"] == 1 and [*rows] == ["broken", "first", "party", "second"]
    assert "no photos found" in rows["broken"]["problem"]
    assert rows["first"]["facesets"] and rows["second"]["facesets"]
    assert "1 files beside the folders are in no source" in err


def test_what_a_part_has_forgotten_stays_forgotten(done, run, tmp_path):
    src, out = done
    out = Path(shutil.copytree(out, tmp_path / "out"))
    part = out / "first/faces.npz"
    cache = sf.load_cache(part)
    row = cache.file_sha256.tolist().index(sf.sha256_of_file(src / "first/group.jpg"))
    face = cache.face_ids[list(cache.face_file).index(row)]
    code, _, err = run("forget", out / "first", "--cache", part, "--face", face)
    assert code == 0, err
    crew = sf.Crew(sf.EngineSpec(model="dlib"), sf.WorkOptions(threads=1))
    each.take_part(out / "faces.npz", src / "first", part, crew)
    again = sf.load_cache(part)
    assert face not in again.face_ids and again.faces == cache.faces - 1
    assert face in sf.load_cache(out / "faces.npz").face_ids


def test_a_folder_without_folders_is_refused(tmp_path, run):
    (tmp_path / "a.jpg").write_bytes(demo_library.demo_photo())
    code, _, err = run("run", tmp_path, tmp_path.parent / "out", "--each", "--model", "dlib")
    assert code == 2 and "leave out --each" in err
