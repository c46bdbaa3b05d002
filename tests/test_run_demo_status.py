"""run, demo, status and doctor: the whole chain, and what the tool tells about its results."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
from pathlib import Path

import pytest
from conftest import SHARED, demo_library, sf
from material import (
    Library,
    assert_agrees,
    broken_caches,
    ok,
    photos_in,
    prepare,
    real_engine,
    refused,
    stamps,
    tree,
    write_photo,
)

STEPS = ["embed", "enrich", "cluster", "refine", "dedup", "export-swap"]
TREES = ["raw_full", "facesets_full", "facesets_swap_ready"]
EASY = ("--min-short", 70, "--min-blur", 5, "--min-faces", 6, "--min-face-short", 70)


class Demo:
    """The demo, run once for all tests, and again on request."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.photos, self.cache = folder / "photos", folder / "out" / "faces.npz"
        self.first = self.run()

    def run(self) -> dict:
        return prepare(self.folder.parent / "logs", real_engine("dlib"), "demo", self.folder)


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Demo:
    return Demo(tmp_path_factory.mktemp("demo") / "demo")


@pytest.fixture
def library(tmp_path) -> Library:
    return Library(tmp_path, people=3, photos=6)


# --- demo -------------------------------------------------------------------


def test_demo_makes_a_library_with_what_real_ones_hold(demo):
    names = {path.relative_to(demo.photos).as_posix() for path in demo.photos.rglob("*.*")}
    assert len(names) == demo.first["photos_made"] > 100
    assert {"2020/broken.jpg", "2020/no face.png", "backup/Übersicht ☀ 日本.jpg"} <= names
    hashes = [sf.sha256_of_file(path) for path in demo.photos.rglob("*.*")]
    assert len(hashes) - len(set(hashes)) == 2


def test_demo_writes_all_three_trees_and_the_report(demo):
    assert sorted(path.name for path in demo.out.iterdir() if path.is_dir()) == sorted(TREES)
    assert_agrees(demo.out / "raw_full")
    assert_agrees(demo.out / "facesets_full")
    assert (demo.out / "faces.duplicates.json").exists()
    assert len(list((demo.out / "raw_full").glob("person_*"))) == 6
    assert not list(demo.out.rglob(sf.PART_PREFIX + "*"))


def test_demo_finds_the_six_people_and_does_not_mix_them(demo):
    for tree_name in ("raw_full", "facesets_full"):
        people = []
        for folder in (demo.out / tree_name).iterdir():
            if folder.is_dir() and not folder.name.startswith("_"):
                who = {path.name.split("__")[-1].split("_")[0] for path in folder.iterdir()}
                people.append(who & set(demo_library.DEMO_FACES))
        assert sorted(map(len, people)) == [1] * 6 and len(set().union(*people)) == 6


def test_demo_closes_with_a_table_of_every_step_and_face_set(demo):
    assert [row["step"] for row in demo.first["steps"]] == STEPS
    assert all(row["seconds"] >= 0 for row in demo.first["steps"])
    sets = demo.first["facesets"]
    assert [row["id"] for row in sets] == [f"faceset_{n:03d}" for n in range(1, 7)]
    for row in sets:
        assert row["face_count"] >= 1
        assert (demo.out / "facesets_swap_ready" / row["bundle"]).exists()
    assert Path(demo.first["look_at"]).name == "top_20_grid.jpg"
    assert Path(demo.first["look_at"]).exists()


def test_a_rerun_of_demo_embeds_nothing_and_changes_nothing(demo, monkeypatch):
    before, times = tree(demo.folder), stamps(demo.folder)
    cache = demo.cache.stat().st_mtime_ns
    monkeypatch.setattr(sf, "face_records", None)  # any photo looked at anew would fail
    again = demo.run()
    master = "out/facesets_swap_ready/manifest.json"
    assert {**tree(demo.folder), master: ""} == {**before, master: ""}
    assert demo.cache.stat().st_mtime_ns == cache
    kept = {name: time for name, time in stamps(demo.folder).items() if "swap_ready" not in name
            and not name.endswith((".lock", ".json"))}  # fmt: skip
    assert kept.items() <= times.items()
    results = {row["step"]: row["result"] for row in again["steps"]}
    assert "new" not in results["embed"] and "unchanged" in results["embed"]
    assert "placed" not in results["cluster"] + results["refine"]
    assert again["facesets"] == demo.first["facesets"]


def test_demo_tells_what_each_gate_took_and_which_option_moves_it(demo):
    rows = demo.first["left_out"]
    refined = json.loads((demo.out / "facesets_full/refine_manifest.json").read_text())
    took = {row["because"].replace(" ", "_"): row["faces"]
            for row in rows if row["step"] == "refine"}  # fmt: skip
    assert took == {why: count for why, count in refined["counts"]["dropped"].items() if count}
    exported = [row for row in rows if row["step"] == "export-swap"]
    assert sum(row["faces"] for row in exported) == sum(
        row["left_out"] for row in demo.first["facesets"]
    )
    options = {row["because"]: row["option"] for row in rows if row["option"]}
    assert options["blurred"] == "--min-blur 40" and options["low score"] == "--min-det-score 0.6"
    for option in options.values():
        sf.build_parser().parse_args(["run", "src", "out", *option.split()])


def test_the_gates_show_the_names_of_run_and_the_distances_used(demo):
    why = ["outlier", "the crop looks like someone else (distance 0.51)", "face too small",
           "the crop looks like someone else (distance 0.6)", "photo unreadable: cut"]  # fmt: skip
    dropped = [sf.Left(face="0123456789abcdef:0", source="a.jpg", reason=one) for one in why]
    dropped.append(sf.Left(reason="sunglasses", run="0002-occlusion-apply"))  # no gate took it
    params = sf.for_model(sf.RefineParams(outlier_threshold=None), "dlib")
    took = {"outlier": 3, "same_photo": 1, "small": 0}
    rows = sf.gate_rows(sf.REFINE_GATES, sf.asdict(params), took)
    assert [tuple(row.values()) for row in rows] == [
        (3, "outlier", "--outlier-spreads 5.5, --outlier-threshold 0.4"),
        (1, "same photo", ""),
    ]
    params = sf.for_model(sf.ExportParams(outlier_threshold=None, min_face_short=60.0), "dlib")
    library = sf.Library(sf.load_cache(demo.cache), demo.cache)
    crew = sf.Crew(sf.EngineSpec(model="dlib"), sf.WorkOptions())
    export = sf.Export(library, demo.out, params, crew, **sf.EXPORT_NAMES)
    assert [tuple(row.values()) for row in sf.export_gates(export, dropped)] == [
        (1, "outlier", "--export-outlier-threshold 0.35, --export-outlier-spreads 5.5"),
        (2, "the crop looks like someone else", ""),
        (1, "face too small", "--min-face-short 60"),
        (1, "photo unreadable", ""),
    ]


def test_demo_names_the_next_command(demo):
    words = shlex.split(demo.first["next"])
    assert Path(words[0]).exists() or words[0] == "python"
    assert sf.build_parser().parse_args(words[2:]).path == demo.out / "facesets_swap_ready"


def test_demo_dry_run_writes_nothing(demo, run, tmp_path):
    before, times = tree(demo.folder), stamps(demo.folder)
    said = ok(run, "demo", demo.folder, "--dry-run")
    assert (said["photos"], said["photos_to_look_at"]) == (demo.first["photos_made"], 0)
    assert [row["step"] for row in said["steps"]] == ["cluster", "refine"]
    assert not any("placed" in row["result"] for row in said["steps"])
    assert said["left_out"] == [row for row in demo.first["left_out"] if row["step"] == "refine"]
    assert [(row["id"], row["faces"]) for row in said["facesets"]] == [
        (row["id"], row["face_count"]) for row in demo.first["facesets"]
    ]
    assert "dry run" in said["run"]
    more = ok(run, "demo", demo.folder, "--dry-run", "--min-faces", 9)
    assert "facesets" not in more and "refine" in more["export-swap"]
    assert (tree(demo.folder), stamps(demo.folder)) == (before, times)
    fresh = ok(run, "demo", tmp_path / "new", "--dry-run")
    assert fresh["photos_to_make"] == demo.first["photos_made"] and "dry run" in fresh["run"]
    assert list(tmp_path.iterdir()) == []


# --- run --------------------------------------------------------------------


def test_run_dry_run_counts_what_is_new_and_writes_nothing(run, tmp_path):
    library = Library(tmp_path, people=3, photos=6)
    write_photo(str(library.src / "new" / "a.jpg"), b"new", 1_600_000_000)
    out = tmp_path / "sets"
    argv = ("run", library.src, out, "--dry-run", "--model", "synthetic")
    before, times = tree(tmp_path), stamps(tmp_path)
    said = ok(run, *argv)
    assert (said["photos"], said["photos_to_look_at"]) == (19, 19)
    said = ok(run, *argv, "--cache", library.path)
    assert (said["photos"], said["photos_to_look_at"]) == (19, 1)
    assert "steps" not in said and "new photos" in said["trees"]
    said = ok(run, *argv, "--cache", library.path, "--exclude", "new/*", "--min-faces", 6)
    assert (said["photos"], said["photos_to_look_at"]) == (18, 0)
    assert ["18 files placed" in row["result"] for row in said["steps"]] == [True, True]
    assert (tree(tmp_path), stamps(tmp_path)) == (before, times)
    refused(run, *argv, "--include", "*.none", word="no photos found")


def test_run_refuses_an_output_inside_the_source(run, library):
    before = tree(library.folder)
    for out in (library.src, library.src / "sets"):
        refused(run, "run", library.src, out, "--model", "dlib", "-q", word="inside the source")
    assert tree(library.folder) == before


@pytest.mark.parametrize("tree_name", TREES)
def test_run_refuses_an_occupied_output_before_the_long_work(run, library, tree_name):
    mine = library.out / tree_name / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    before = tree(library.folder)
    refused(run, "run", library.src, library.out, "--model", "dlib", "-q", word="holds other files")
    assert tree(library.folder) == before


def test_run_refuses_a_source_that_is_not_there_or_holds_no_photo(run, tmp_path):
    refused(
        run, "run", tmp_path / "nowhere", tmp_path / "out", "--model", "dlib", "-q", word="nowhere"
    )
    (tmp_path / "empty").mkdir()
    refused(
        run, "run", tmp_path / "empty", tmp_path / "out", "--model", "dlib", "-q", word="no photos"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_run_refuses_an_output_that_is_a_file(run, library):
    library.out.write_text("mine")
    word = f"{library.out}: is a file; name a folder"
    refused(run, "run", library.src, library.out, "--model", "dlib", "-q", word=word)
    assert library.out.read_text() == "mine"


def test_run_refuses_exports_of_another_recogniser_before_the_long_work(run, library):
    before = tree(library.folder)
    word = "--to rope: means embeddings of w600k_r50"
    argv = ("run", library.src, library.out, "--model", "dlib", "--to", "lora,rope", "-q")
    refused(run, *argv, word=word)
    assert tree(library.folder) == before


def test_run_refuses_useless_weights_before_the_long_work(run, library):
    weights = [part for term in sf.QUALITY_TERMS
               for part in (f"--weight-{term.replace('_', '-')}", 0)]  # fmt: skip
    before = tree(library.folder)
    refused(run, "run", library.src, library.out, "--model", "dlib", *weights, "-q", word="weight")
    assert tree(library.folder) == before


def test_run_takes_real_people_from_photos_to_bundles(run, shared, tmp_path):
    src = tmp_path / "photos"
    for person in ("p001", "p003"):
        for path in sorted((shared / "data" / "people" / person).iterdir())[:9]:
            (src / person).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, src / person)
    before = (tree(src), stamps(src))
    argv = ("run", src, tmp_path / "out", "--model", SHARED / "models" / "mini", *EASY)
    result = ok(run, *argv)
    assert [row["step"] for row in result["steps"]] == STEPS
    assert len(result["facesets"]) == 2
    for name in ("raw_full", "facesets_full"):
        assert_agrees(tmp_path / "out" / name)
        for folder in (tmp_path / "out" / name).glob("[pf]*_*"):
            assert len({file.name.split("__")[-2] for file in folder.iterdir()}) == 1
    assert (tree(src), stamps(src)) == before


# --- status -----------------------------------------------------------------


def test_status_of_a_cache_counts_what_is_in_it(run, library):
    before = tree(library.folder)
    status = ok(run, "status", library.path)
    assert {key: status[key] for key in ("photos", "faces", "with_faces", "copies", "enriched",
            "gone_or_changed", "unreadable", "model")} == {
        "photos": 18, "faces": 18, "with_faces": 18, "copies": 0, "enriched": 0,
        "gone_or_changed": 0, "unreadable": 0, "model": "synthetic"}  # fmt: skip
    assert status["passing_default_gates"] == 18
    assert tree(library.folder) == before


def test_status_of_a_cache_tells_how_many_photos_moved_on(run, library):
    library.photo(0).unlink()
    write_photo(str(library.photo(1)), b"another picture", 1_700_000_000)
    assert ok(run, "status", library.path)["gone_or_changed"] == 2


def test_status_of_a_tree_tells_what_is_missing(run, library):
    ok(run, "cluster", library.path, library.out)
    [row] = ok(run, "status", library.out)["trees"]
    assert (row["kind"], row["groups"], row["faces"], row["files"]) == ("raw", 3, 18, 18)
    assert (row["missing"], row["unfinished"]) == (0, False)
    (library.out / next(iter(photos_in(library.out)))).unlink()
    (library.out / "manifest.json.pending").write_text("{}")
    [row] = ok(run, "status", library.out)["trees"]
    assert (row["missing"], row["unfinished"]) == (1, True)


def test_status_of_everything_demo_made(run, demo):
    before = tree(demo.folder)
    status = ok(run, "status", demo.out)
    assert [row["kind"] for row in status["trees"]] == ["raw", "refined", "swap"]
    assert [row["missing"] for row in status["trees"]] == [0, 0, 0]
    assert status["photos"] == demo.first["photos_made"] - 2
    assert ok(run, "status", demo.cache)["faces"] == status["faces"]
    for name in TREES:
        assert len(ok(run, "status", demo.out / name)["trees"]) == 1
    assert tree(demo.folder) == before


def test_status_for_people_is_a_table(run, demo):
    code, out, err = run("status", demo.out)
    assert (code, err) == (0, "")
    assert all(name in out for name in TREES)


def test_status_of_something_else_is_refused(run, library):
    refused(run, "status", library.src, word="neither a cache nor an output")
    for name in ("nowhere", "nowhere.npz", "no/where"):
        refused(run, "status", library.folder / name, word=f"{name}: nothing is there")
    refused(run, "status", library.photo(0), word=library.photo(0).name)
    (library.src / "manifest.json").write_text('{"name": "My app"}')
    refused(run, "status", library.src, word="neither a cache nor an output")


@pytest.mark.parametrize("kind", ["empty", "text", "cut short", "newer", "foreign", "absent"])
def test_status_of_a_file_that_is_no_cache_is_refused(run, tmp_path, kind):
    refused(run, "status", broken_caches(tmp_path)[kind], word=kind)


def test_status_of_a_damaged_manifest_is_refused_or_told(run, library):
    ok(run, "cluster", library.path, library.out)
    (library.out / "manifest.json").write_text('{"tool": "sort_faces", "kind": "raw"}')
    refused(run, "status", library.out, word=str(library.out))


# --- doctor -----------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch) -> list:
    """Every attempt to reach another machine, which fails."""
    tried = []

    def refuse(*where: object) -> None:
        tried.append(where)
        raise OSError("offline")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(sf.companion("doctor"), "ROUNDS", 1)
    monkeypatch.setattr(sf.companion("doctor"), "CROWDS", (1, 2))
    return tried


def doctor(run, *options: object) -> tuple[int, dict[str, dict]]:
    code, out, err = run("doctor", "--threads", 1, "--det-size", 640, *options, "--json")
    assert "Traceback" not in err
    checks = json.loads(out)["checks"]
    for check in checks:
        assert bool(check["what_to_do"]) != check["ok"], check
    return code, {check["what"]: check for check in checks}


def test_doctor_is_content_with_dlib_alone(run, offline):
    code, checks = doctor(run, "--model", "dlib")
    assert (code, offline) == (0, [])
    assert checks["packages"]["ok"] and checks["engine dlib"]["ok"]
    finding = checks["engine dlib"]["finding"]
    assert finding.startswith("cpu, ")
    assert " photos/s (2 of 1 and 2 faces in turn, 3 of 3 faces found), landmarks yes" in finding


def test_doctor_names_a_missing_pack_and_downloads_nothing(run, offline, tmp_path):
    code, checks = doctor(run, "--model", "buffalo_l", "--model-root", tmp_path)
    assert (code, offline) == (1, [])
    assert checks["engine dlib"]["ok"]
    pack = checks["engine buffalo_l"]
    assert not pack["ok"] and str(tmp_path) in pack["finding"]
    assert "buffalo_l.zip" in pack["what_to_do"]
    assert list(tmp_path.iterdir()) == []


def test_the_timed_pictures_hold_as_many_faces_as_they_say(mini):
    """So that the recogniser's input changes its shape from picture to picture, as in a library."""
    engine, crowd = sf.load_engine(sf.EngineSpec(str(mini))), sf.companion("demo_library").crowd
    crowds = sf.companion("doctor").CROWDS
    found = [len(sf.find_faces(engine, crowd(count), sf.Passes())) for count in crowds]
    assert tuple(found) == crowds and len(set(crowds)) == len(crowds) > 4


def test_doctor_begins_no_further_picture_when_its_time_is_up(run, offline, monkeypatch):
    monkeypatch.setattr(sf.companion("doctor"), "PATIENCE", 1e-9)
    _, checks = doctor(run, "--model", "dlib")
    assert checks["engine dlib"]["ok"] and "0 of 0 faces" in checks["engine dlib"]["finding"]


def test_doctor_times_both_engines(run, offline, mini):
    code, checks = doctor(run, "--model", mini)
    assert (code, offline) == (0, [])
    for what in ("engine dlib", f"engine {mini}"):
        assert checks[what]["ok"] and "photos/s" in checks[what]["finding"]


def test_doctor_reports_a_provider_this_machine_lacks(run, offline, mini):
    if "CUDAExecutionProvider" in pytest.importorskip("onnxruntime").get_available_providers():
        pytest.skip("this machine has it")
    code, checks = doctor(run, "--model", mini, "--provider", "cuda")
    assert code == 1
    assert "onnxruntime-gpu" in checks[f"engine {mini}"]["what_to_do"]


def test_doctor_speaks_while_it_works(run, offline, tmp_path):
    argv = ("doctor", "--threads", 1, "--det-size", 640, "--model-root", tmp_path)
    lines = run(*argv)[2].splitlines()
    assert lines[0] == "looking for the packages"
    assert [line for line in lines if line.startswith("timing")] == [
        "timing the engine dlib", "timing the engine buffalo_l"]  # fmt: skip
    assert run(*argv, "-q")[2] == ""


def test_doctor_for_people_says_what_to_do(run, offline, tmp_path):
    code, out, _ = run("doctor", "--threads", 1, "--det-size", 640, "--model-root", tmp_path)
    assert code == 1
    assert "what to do" in out and "buffalo_l.zip" in out
