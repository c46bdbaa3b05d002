"""`arrange`: the order of crops, their groups, what it refuses, and that restore undoes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import make_cache, sf
from exports import Photos
from material import ok

arrange = sf.companion("arrange")
crop_facts = sf.companion("crop_facts")
COLOURS = {  # file: blue, green, red
    "a.png": (40, 40, 200),
    "b.png": (200, 60, 40),
    "c.png": (60, 160, 60),
    "d.png": (250, 250, 250),
    "e.png": (10, 10, 10),
}


def paint(folder: Path, colours: dict[str, tuple] = COLOURS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, colour in colours.items():
        cv2.imwrite(str(folder / name), np.full((64, 64, 3), colour, np.uint8))
    return folder


def held(folder: Path) -> dict[str, bytes]:
    """{path: bytes} of all files below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def names(folder: Path) -> list[str]:
    return [name for name in held(folder) if not name.startswith("_runs/")]


def test_order_by_brightness_and_back(run, tmp_path):
    crops = paint(tmp_path / "crops")
    before = held(crops)
    result = ok(run, "arrange", crops, "--in-place", "--by", "brightness")
    assert result["run"] == "0001-arrange" and result["pictures"] == 5
    assert [name[6:] for name in names(crops)] == ["d.png", "c.png", "a.png", "b.png", "e.png"]
    assert names(crops)[0] == "00001_d.png"
    ok(run, "restore", crops)
    assert held(crops) == before


def test_reverse_and_hue(run, tmp_path):
    crops = paint(tmp_path / "crops")
    ok(run, "arrange", crops, "--by", "hue", "--copy", tmp_path / "out")
    order = [name[6:] for name in names(tmp_path / "out")]
    assert order == ["b.png", "a.png", "c.png", "d.png", "e.png"]  # blue, red, green; grey last
    ok(run, "arrange", crops, "--by", "brightness", "--reverse", "--copy", tmp_path / "back")
    assert names(tmp_path / "back")[0] == "00001_e.png"


def test_a_second_arranging_takes_groups_and_prefixes_of_the_first(run, tmp_path):
    crops = paint(tmp_path / "crops")
    before = held(crops)
    ok(
        run,
        "arrange",
        crops,
        "--in-place",
        "--by",
        "brightness",
        "--threshold",
        "60",
        "--threshold",
        "200",
    )
    assert {Path(name).parent.name for name in names(crops)} == {
        "1_brightness_below_60",
        "2_brightness_60_to_200",
        "3_brightness_from_200",
    }
    moved = crops / "3_brightness_from_200" / "00001_d.png"  # by hand, into another group
    moved.rename(crops / "1_brightness_below_60" / "00001_d.png")
    (crops / "2_brightness_60_to_200" / "00003_a.png").unlink()
    ok(run, "arrange", crops, "--in-place", "--by", "saturation")
    assert names(crops) == ["00001_b.png", "00002_c.png", "00003_d.png", "00004_e.png"]
    ok(run, "arrange", crops, "--in-place", "--by", "saturation", "--groups", "2")
    ok(run, "arrange", crops, "--in-place", "--by", "brightness")
    assert names(crops) == ["00001_d.png", "00002_c.png", "00003_b.png", "00004_e.png"]
    ok(run, "restore", crops, "1", warned="gone, deleted by hand")
    mine = "1_brightness_below_60/00001_d.png"  # stays where the operator had put it
    assert held(crops) == {mine: before["d.png"]} | {
        n: before[n] for n in ("b.png", "c.png", "e.png")
    }


def test_names_that_some_disks_take_for_one_are_told_apart():
    moves = [("a/x.png", "g/x.png"), ("b/X.png", "g/X.png"), ("y.png", "Y.png"), ("d", "e/Z\u0308")]
    aims = [target for _, target in arrange.apart(moves, {"y.png", "e/z\u0308", "e/\u017c"})]
    assert aims == ["g/x.png", "g/X-2.png", "Y.png", "e/Z\u0308-2"]


def test_what_has_no_value_comes_last_backwards_too(run, tmp_path):
    colours = {"grey.png": (90, 90, 90), "blue.png": (200, 20, 20), "red.png": (20, 20, 200)}
    crops = paint(tmp_path / "crops", colours)
    for name, options in (("there", ()), ("back", ("--reverse",))):
        ok(run, "arrange", crops, "--by", "hue", "--copy", tmp_path / name, *options)
    assert names(tmp_path / "there") == ["00001_blue.png", "00002_red.png", "00003_grey.png"]
    assert names(tmp_path / "back") == ["00001_red.png", "00002_blue.png", "00003_grey.png"]


def test_a_name_that_is_taken_gets_a_number(run, tmp_path):
    crops = paint(tmp_path / "crops", {"x.png": (9, 9, 9), "00001_x.png": (200, 200, 200)})
    before = held(crops)
    ok(run, "arrange", crops, "--in-place", "--by", "brightness", "--reverse")
    assert names(crops) == ["00001_x-2.png", "00002_00001_x.png"]
    ok(run, "restore", crops)
    assert held(crops) == before


def test_two_orders_do_not_mix_in_one_copy(run, tmp_path):
    crops, out = paint(tmp_path / "crops"), tmp_path / "out"
    ok(run, "arrange", crops, "--by", "hue", "--copy", out)
    before = held(out)
    code, _, err = run("arrange", crops, "--by", "brightness", "--copy", out)
    assert code == 2 and "0001-arrange has put crops there" in err and held(out) == before
    ok(run, "restore", out)
    ok(run, "arrange", crops, "--by", "brightness", "--copy", out)
    for path in out.glob("*.png"):
        path.unlink()
    ok(run, "arrange", crops, "--by", "hue", "--copy", out)  # moved away by hand meanwhile
    assert names(out)[0] == "00001_b.png" and len(names(out)) == 5


def test_a_dry_run_and_a_second_run_of_the_same_change_nothing(run, tmp_path):
    crops = paint(tmp_path / "crops")
    before = held(crops)
    result = ok(run, "arrange", crops, "--by", "brightness", "--dry-run")
    assert held(crops) == before and result["run"] == "none: dry run"
    ok(run, "arrange", crops, "--in-place", "--by", "brightness")
    result = ok(run, "arrange", crops, "--in-place", "--by", "brightness")
    assert result["run"] == "none: it is in order already"
    assert len(list((crops / "_runs").iterdir())) == 1


def test_each_sub_folder_on_its_own(run, tmp_path):
    paint(tmp_path / "crops" / "anna")
    paint(tmp_path / "crops" / "bert", {"x.png": (9, 9, 9), "y.png": (90, 90, 90)})
    before = held(tmp_path / "crops")
    code, _, err = run("arrange", tmp_path / "crops", "--in-place", "--by", "brightness")
    assert code == 2 and "--subfolders" in err
    ok(run, "arrange", tmp_path / "crops", "--in-place", "--by", "brightness", "--subfolders")
    assert names(tmp_path / "crops")[-2:] == ["bert/00001_y.png", "bert/00002_x.png"]
    ok(run, "restore", tmp_path / "crops")
    assert held(tmp_path / "crops") == before


def test_a_kill_between_two_renames_is_ended_by_the_next_call(run, tmp_path, monkeypatch):
    crops = paint(tmp_path / "crops")
    before, real, count = held(crops), sf.os.rename, []

    def rename(*paths: object) -> None:
        if str(paths[0]).endswith(".png"):
            count.append(paths)
            if len(count) == 3:
                raise KeyboardInterrupt
        real(*paths)

    monkeypatch.setattr(sf.os, "rename", rename)
    code, _, _ = run("arrange", crops, "--in-place", "--by", "brightness")
    assert code == 130 and len(set(names(crops)) & set(before)) == 3
    monkeypatch.undo()
    result = ok(run, "arrange", crops, "--in-place", "--by", "brightness")
    assert result["run"] == "none: it is in order already"
    assert names(crops)[0] == "00001_d.png"
    ok(run, "restore", crops)
    assert held(crops) == before


def test_names_as_long_as_can_be_are_cut_and_come_back(run, tmp_path):
    long = "ü" * 125 + ".png"
    crops = paint(tmp_path / "crops", {"a.png": (9, 9, 9), "b.png": (200, 200, 200)})
    (crops / "b.png").rename(crops / long)
    before = held(crops)
    ok(run, "arrange", crops, "--in-place", "--by", "brightness")
    first, second = names(crops)
    assert first.startswith("00001_üü") and first.endswith("ü.png") and second == "00002_a.png"
    ok(run, "arrange", crops, "--in-place", "--by", "none")
    assert names(crops)[0] == "a.png" and len(names(crops)) == 2
    ok(run, "restore", crops, "1")
    assert held(crops) == before


def test_a_run_that_cannot_be_finished_can_be_undone(run, tmp_path, monkeypatch):
    crops = paint(tmp_path / "crops")
    before, real = held(crops), sf.os.rename

    def rename(source: object, target: object) -> None:
        if str(target).endswith("00004_b.png"):
            raise PermissionError(13, "Permission denied", str(target))
        real(source, target)

    monkeypatch.setattr(sf.os, "rename", rename)
    for _ in range(2):
        code, _, err = run("arrange", crops, "--in-place", "--by", "brightness")
        assert code == 2 and "Permission denied" in err
    assert held(crops) != before
    ok(run, "restore", crops, warned="cannot be finished")
    assert held(crops) == before


def test_links_are_no_sub_folders_and_are_not_broken(run, tmp_path):
    paint(tmp_path / "crops" / "anna")
    (tmp_path / "crops" / "bert").symlink_to(paint(tmp_path / "elsewhere"))
    before = held(tmp_path)
    result = ok(run, "arrange", tmp_path / "crops", "--in-place", "--by", "hue", "--subfolders")
    assert [group["folder"] for group in result["groups"]] == ["anna"]
    ok(run, "restore", tmp_path / "crops")
    assert held(tmp_path) == before
    (tmp_path / "elsewhere" / "near.png").symlink_to("a.png")
    command = ("arrange", tmp_path / "elsewhere", "--by", "hue")
    code, _, err = run(*command, "--in-place")
    assert code == 2 and "near.png: is a link that renaming would break" in err
    assert ok(run, *command, "--copy", tmp_path / "out")["pictures"] == 6


def test_groups_by_time_are_called_by_dates_and_parted_at_dates(run, tmp_path):
    crops = paint(tmp_path / "crops")
    for day, name in enumerate(sorted(COLOURS)):
        seconds = (sf.datetime(2015, 1, 1 + day, tzinfo=sf.timezone.utc) - sf.EPOCH).total_seconds()
        sf.os.utime(crops / name, (seconds, seconds))
    known = tmp_path / "known.npz"
    sf.save_cache(known, make_cache(people=1, photos=1))
    command = ("arrange", crops, "--copy", tmp_path / "out", "--dry-run", "--by", "time")
    command += ("--cache", known)
    result = ok(run, *command, "--groups", "2")
    assert [(one["folder"], one["pictures"]) for one in result["groups"]] == [
        ("1_time_below_2015-01-03", 2),
        ("2_time_from_2015-01-03", 3),
    ]
    told = ("--threshold", "2015-01-02", "--threshold", "2015-01-04 12:30")
    assert [one["folder"] for one in ok(run, *command, *told)["groups"]] == [
        "1_time_below_2015-01-02",
        "2_time_2015-01-02_to_2015-01-04-123000",
        "3_time_from_2015-01-04-123000",
    ]
    year = ok(run, *command, "--threshold", "2015")["groups"]
    assert [one["folder"] for one in year] == ["2_time_from_2015-01-01"]
    code, _, err = run(*command, "--threshold", "soon")
    assert code == 2 and "--threshold soon: by time it is a date" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--by", "size", "--threshold", "far", "--copy", "out"), "by size it is a number"),
        (("--threshold", "2010", "--copy", "out"), "by face it is a cosine distance, from 0 to 2"),
        (("--by", "none", "--groups", "3"), "need --group"),
        (("--by", "face", "--groups", "3"), "no --groups"),
        (("--by", "size", "--copy", "crops/in"), "lies in"),
        (("--by", "size"), "say --copy DIR, or --in-place"),
        (("--copy", "out", "--in-place"), "choose one"),
    ],
)
def test_what_makes_no_sense_is_one_line(run, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "crops")
    code, out, err = run("arrange", "crops", *options)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1


def test_a_corpus_is_arranged_as_a_copy_from_what_its_cache_knows(
    run, tmp_path, monkeypatch, quick_disk
):
    photos = Photos(tmp_path, monkeypatch)
    photos.export(run, photos.rows(0, 0, 8), photos.rows(1, 0, 8))
    root = photos.root
    before = {name: data for name, data in held(root).items() if "lock" not in name}
    code, _, err = run("arrange", root, "--by", "size")
    assert code == 2 and "--copy" in err and err.count("\n") == 1
    looked = photos.looked
    result = ok(run, "arrange", root, "--by", "size", "--copy", tmp_path / "out")
    assert photos.looked == looked and result["without_face"] == 0
    code, _, err = run("arrange", root / "faceset_001/previews", "--copy", tmp_path / "no")
    assert code == 2 and f"previews: is no face set of {root}; name that, one" in err
    corpus = sf.Corpus(root, sf.read_file(root / "manifest.json", sf.SwapManifest))
    for folder, faceset in corpus.active.items():
        short = {
            face.sha256: photos.cache.face_short[photos.cache.row_of_face[face.face]]
            for face in faceset.faces
        }
        copies = sorted((tmp_path / "out" / folder).iterdir())
        sizes = [short[sf.sha256_of_file(path)] for path in copies]
        assert len(sizes) == len(short) and sizes == sorted(sizes, reverse=True)
    assert {name: data for name, data in held(root).items() if "lock" not in name} == before
    ok(run, "verify", root, "--no-faces")
    ok(run, "arrange", root / "faceset_001", "--by", "quality", "--copy", tmp_path / "one")
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"faceset_001", "_runs"}


def test_keys_are_those_the_command_line_names():
    assert {"face", *crop_facts.KEYS} == set(sf.ARRANGE_KEYS)
    looks = {name for name, key in crop_facts.KEYS.items() if key.looks}
    assert looks == {*sf.FACE_KEYS, "time"} - {"face"}


def test_by_face_keeps_people_together_and_the_faceless_last():
    cache = make_cache(people=5, photos=6, spread=0.3)
    shuffled = np.random.default_rng(3).permutation(cache.faces)
    unit = np.vstack([cache.unit[shuffled], np.zeros((2, 64), np.float32)])
    order = arrange.by_face(unit, arrange.people(unit, 0.55))
    assert sorted(order) == list(range(32)) and set(order[-2:]) == {30, 31}
    person = (shuffled // 6)[order[:-2]]
    assert np.count_nonzero(np.diff(person)) == 4


def test_a_chain_goes_to_the_nearest_face_each_time():
    angle = np.radians([0, 10, 22, 36, 52, 70])
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    mixed = np.array([3, 0, 5, 2, 4, 1])
    walk = arrange.chain(unit[mixed], np.arange(6))
    steps = [abs(a - b) for a, b in zip(mixed[walk], mixed[walk][1:], strict=False)]
    assert sorted(walk) == list(range(6)) and sorted(steps)[:4] == [1, 1, 1, 1]


def test_bins_have_equal_width_for_degrees_and_equal_count_else():
    values = np.array([-90.0, -1, 0, 1, 2, 90, np.nan])
    even = arrange.by_value("yaw", values, 3, ())
    assert even.of.tolist() == [0, 1, 1, 1, 1, 2, 3] and even.names[-1] == "unknown"
    counts = arrange.by_value("size", values, 3, ())
    assert np.bincount(counts.of).tolist() == [2, 2, 2, 1]
    told = arrange.by_value("yaw", values, 3, (0.0,))
    assert told.names == ["1_yaw_below_0", "2_yaw_from_0", "unknown"]
    assert told.of.tolist() == [0, 0, 1, 1, 1, 1, 2]


def test_real_crops_by_face_yaw_and_a_reference(run, tmp_path, shared, mini):
    crops = tmp_path / "crops"
    crops.mkdir()
    for person in ("p001", "p002", "p003"):
        for path in sorted((shared / "data/people" / person).iterdir())[:5]:
            shutil.copy(path, crops / path.name)
    paint(crops, {"wall.png": (90, 90, 90)})
    engine = ("--model", mini, "--det-size", 320)
    known = tmp_path / "known.npz"
    ok(run, "embed", crops, known, *engine, "--pad-retry")
    result = ok(run, "arrange", crops, "--group", "face", "--copy", tmp_path / "out", *engine)
    assert result["without_face"] == 1
    groups = {
        folder.name: {path.name[6:10] for path in folder.iterdir()}
        for folder in (tmp_path / "out").iterdir()
        if folder.name != "_runs"
    }
    assert sorted(map(sorted, groups.values())) == [["p001"], ["p002"], ["p003"], ["wall"]]
    wanted = shared / "data/people/p002"
    said = ("--by", "identity", "--reference", wanted, "--cache", known, *engine)
    ok(
        run,
        "arrange",
        crops,
        "--in-place",
        *said,
        warned="1 pictures of several people are not used",
    )
    assert {name[6:10] for name in names(crops)[:5]} == {"p002"}
    assert names(crops)[-1] == "00016_wall.png"
