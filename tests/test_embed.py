"""embed: what is computed, what is remembered, and that nothing is computed twice or lost.

Real photos go through the real dlib engine; its answers are kept, so that each picture costs
its inference once per session.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from conftest import ROOT, demo_library
from msgspec.structs import replace as changed

import sort_faces as sf

REAL_LOAD = sf.load_engine
PEOPLE = list(demo_library.DEMO_FACES)


class Remembered:
    """dlib's recogniser, answering what it answered before."""

    def __init__(self, network: object) -> None:
        self.network, self.known = network, {}

    def compute_face_descriptor(self, chips: np.ndarray) -> list:
        return [self.one(chip) for chip in chips]

    def one(self, chip: np.ndarray) -> np.ndarray:
        key = hashlib.sha256(chip.tobytes()).digest()
        if key not in self.known:
            answer = self.network.compute_face_descriptor(chip[None])
            self.known[key] = np.array(answer, np.float32).ravel()
        return self.known[key]


@functools.cache
def remembering_engine(spec: sf.EngineSpec) -> sf.Engine:
    engine, known = REAL_LOAD(spec), {}
    real_detect = engine.detect

    def detect(image: np.ndarray, *rest) -> sf.Detections:
        key = (hashlib.sha256(image.tobytes()).digest(), image.shape, rest)
        if key not in known:
            known[key] = real_detect(image, *rest)
        return known[key]

    engine.detect = detect
    engine.network = Remembered(engine.network)
    return engine


@pytest.fixture
def embed(run, tmp_path, monkeypatch):
    """embed(src..., flags...) -> (exit code, result, stderr) over tmp_path/lib.npz."""
    monkeypatch.setattr(sf, "load_engine", lambda spec, *rest: remembering_engine(spec))

    def call(*args, cache: Path | None = None) -> tuple[int, dict, str]:
        sources = [arg for arg in args if isinstance(arg, Path)]
        flags = [arg for arg in args if not isinstance(arg, Path)]
        cache = cache or tmp_path / "lib.npz"
        code, out, err = run("embed", *sources, cache, "--model", "dlib", "--json", *flags)
        return code, json.loads(out) if out else {}, err

    return call


@pytest.fixture
def no_engine(monkeypatch):
    """From here on, any inference fails the test."""

    def forbid() -> None:
        def load(*args):
            raise AssertionError("the engine was loaded")

        monkeypatch.setattr(sf, "load_engine", load)

    return forbid


@functools.cache
def jpeg(name: str, edge: int = 240) -> bytes:
    """A small photo of one of the six people, or of nobody."""
    if name == "nobody":
        return demo_library.encode_jpeg(np.full((edge, edge, 3), (90, 140, 60), np.uint8), 90)
    group = sf.decode_photo(demo_library.demo_photo()).image
    x1, y1, x2, y2 = demo_library.DEMO_FACES[name]
    x, y = max(0, (x1 + x2) // 2 - 120), max(0, (y1 + y2) // 2 - 120)
    image = group[y : y + 240, x : x + 240]
    return demo_library.encode_jpeg(
        cv2.resize(image, (edge, edge), interpolation=cv2.INTER_AREA), 92
    )


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def library(tmp_path) -> Path:
    """Three people, one photo each."""
    root = tmp_path / "photos"
    for name in ("anna", "cleo", "finn"):
        put(root / f"{name}.jpg", jpeg(name))
    return root


@pytest.fixture
def cache_path(tmp_path) -> Path:
    return tmp_path / "lib.npz"


def paths_of(cache_path: Path, root: Path) -> dict[str, list[str]]:
    """Canonical path -> further paths, relative to root."""
    cache = sf.load_cache(cache_path)
    return {
        os.path.relpath(first, root): sorted(os.path.relpath(path, root) for path in more)
        for first, *more in cache.paths
    }


def embedding_at(cache_path: Path, path: Path) -> np.ndarray:
    cache = sf.load_cache(cache_path)
    (row,) = [row for row, paths in enumerate(cache.paths) if str(path) in paths]
    return cache.embedding[cache.face_file == row]


def refused(code: int, out: object, err: str, *words: str) -> None:
    """Exit code 2, no result, and exactly one line of ours that holds these words."""
    assert code == 2 and not out, err
    lines = [line for line in err.splitlines() if line.startswith(("sort_faces ", "sort_faces: "))]
    assert len(lines) == 1 and err.endswith(lines[0] + "\n"), err
    assert "Traceback" not in err
    for word in words:
        assert word in lines[0], lines[0]


# ---------------------------------------------------------------------------- first run


def test_the_first_run_stores_every_face(embed, library, cache_path) -> None:
    put(library / "nobody.jpg", jpeg("nobody"))
    put(library / "notes.txt", b"hello")
    code, result, err = embed(library)
    assert code == 0, err
    expected = {"photos": 4, "new": 4, "unchanged": 0, "copies": 0, "moved_or_gone": 0, "faces": 3,
                "without_face": 1, "unreadable": 0, "failed": [], "damaged": 0,
                "other_files": {"documents": 1}}  # fmt: skip
    assert {key: result[key] for key in expected} == expected
    cache = sf.load_cache(cache_path)
    assert sorted(cache.file_path.tolist()) == sorted(str(p) for p in library.glob("*.jpg"))
    assert cache.file_sha256.tolist() == [sf.sha256_of_file(path) for path in cache.file_path]
    assert cache.meta.roots == [str(library.resolve())]
    assert (cache.meta.model, cache.meta.dim) == ("dlib", 128)
    assert not sf.journal_path(cache_path).exists()


def test_what_is_stored_of_a_face_is_what_the_engine_says(embed, library, cache_path) -> None:
    embed(library)
    cache = sf.load_cache(cache_path)
    engine = remembering_engine(sf.EngineSpec(model="dlib"))
    for row, file in enumerate(cache.face_file):
        photo = sf.read_photo(cache.file_path[file])
        assert tuple(cache.file_wh[file]) == photo.wh
        found = engine.detect(photo.image)
        assert np.array_equal(cache.bbox[row], found.bbox[0])
        assert np.array_equal(cache.kps[row], found.kps[0])
        assert cache.det_score[row] == found.score[0]
        assert np.allclose(cache.embedding[row], engine.embed(photo.image, found)[0], atol=1e-6)
        assert cache.face_short[row] == (found.bbox[0, 2:] - found.bbox[0, :2]).min()
        x1, y1, x2, y2 = found.bbox[0].round().astype(int)
        grey = cv2.cvtColor(photo.image[max(y1, 0) : y2, max(x1, 0) : x2], cv2.COLOR_BGR2GRAY)
        assert cache.blur[row] == pytest.approx(cv2.Laplacian(grey, cv2.CV_64F).var(), rel=0.05)


def test_boxes_are_in_upright_pixels(embed, tmp_path, cache_path) -> None:
    """A photo the camera held sideways gives the same face as the upright one."""
    image = cv2.imdecode(np.frombuffer(jpeg("anna"), np.uint8), cv2.IMREAD_COLOR)[:, 20:]
    put(tmp_path / "photos/up.png", cv2.imencode(".png", image)[1].tobytes())
    side = cv2.imencode(".jpg", sf.turn_upright(image, 8), [cv2.IMWRITE_JPEG_QUALITY, 100])[1]
    put(tmp_path / "photos/side.jpg", demo_library.with_orientation(side.tobytes(), 6))
    assert embed(tmp_path / "photos")[1]["faces"] == 2
    cache = sf.load_cache(cache_path)
    assert cache.file_wh.tolist() == [[220, 240], [220, 240]]
    assert np.abs(cache.bbox[0] - cache.bbox[1]).max() < 4
    assert cache.unit[0] @ cache.unit[1] > 0.9


def test_two_sources_and_capture_times(embed, tmp_path, cache_path) -> None:
    put(tmp_path / "a/IMG_20190512_142312.jpg", jpeg("anna"))
    put(tmp_path / "b/cleo.jpg", jpeg("cleo"))
    code, result, _ = embed(tmp_path / "a", tmp_path / "b")
    assert (code, result["photos"], result["faces"]) == (0, 2, 2)
    cache = sf.load_cache(cache_path)
    assert cache.meta.roots == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert cache.file_taken[0] == 1557670992 and np.isnan(cache.file_taken[1])


def test_a_single_file_as_source(embed, library, cache_path) -> None:
    code, result, err = embed(library / "anna.jpg")
    assert (code, result.get("photos"), result.get("faces")) == (0, 1, 1), err


def test_include_and_exclude(embed, library) -> None:
    put(library / "2019/dora.jpg", jpeg("dora"))
    assert embed(library, "--include", "a*", "--include", "2019/*")[1]["photos"] == 2
    result = embed(library, "--exclude", "anna.jpg", "--exclude", "2019/*")[1]
    assert (result["photos"], result["new"], result["faces"]) == (2, 2, 4)


def test_a_relative_cache_name_and_a_new_folder_for_it(embed, library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert embed(library, cache=Path("deep/er/lib.npz"))[0] == 0
    assert sf.load_cache(tmp_path / "deep/er/lib.npz").faces == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows names are text")
def test_names_in_any_alphabet_and_in_none_survive_the_cache(embed, tmp_path, no_engine) -> None:
    root = tmp_path / "photos"
    names = ["日本 ☀️.jpg".encode(), b"caf\xe9 \xff.jpg", b"new\nline.jpg"]
    for name, person in zip(names, PEOPLE, strict=False):
        put(Path(os.fsdecode(os.fsencode(root) + b"/" + name)), jpeg(person))
    put(Path(os.fsdecode(os.fsencode(root) + b"/broken \xfe.jpg")), b"no picture")
    code, result, _ = embed(root)
    assert (code, result["faces"], result["unreadable"]) == (0, 3, 1)
    no_engine()
    code, result, _ = embed(root)
    assert (code, result["unchanged"]) == (0, 4)
    stored = {
        os.path.basename(os.fsencode(p)) for p in sf.load_cache(tmp_path / "lib.npz").file_path
    }
    assert stored == {*names, b"broken \xfe.jpg"}


@pytest.mark.skipif(os.name == "nt", reason="Windows names are text")
def test_a_name_that_is_no_text_can_be_reported(tmp_path) -> None:
    """The table for people names the failed file; its bytes are no UTF-8."""
    put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/photos/broken \xfe.jpg")), b"no picture")
    put(tmp_path / "photos/nobody.jpg", jpeg("nobody"))
    done = cli("embed", tmp_path / "photos", tmp_path / "lib.npz", "--model", "dlib")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "broken" in done.stdout


def cli(*argv: object, wrapper: str = "", **options) -> subprocess.CompletedProcess:
    """The tool in a process of its own; `wrapper` is Python to run before it."""
    code = f"{wrapper}\nimport sys\nimport sort_faces\nsys.exit(sort_faces.main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, argv)],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"},
        **options,
    )


# ---------------------------------------------------------------------------- further runs


def test_the_second_run_computes_nothing_and_writes_nothing(
    embed, library, cache_path, no_engine
) -> None:
    put(library / "nobody.jpg", jpeg("nobody"))
    put(library / "broken.jpg", b"no picture")
    embed(library)
    before = cache_path.read_bytes(), os.stat(cache_path).st_mtime_ns
    no_engine()
    code, result, _ = embed(library)
    assert (code, result["unchanged"], result["new"], result["faces"]) == (0, 5, 0, 3)
    assert (cache_path.read_bytes(), os.stat(cache_path).st_mtime_ns) == before


def test_a_new_file_is_added_and_only_that_is_computed(embed, library, cache_path) -> None:
    embed(library)
    before = sf.load_cache(cache_path)
    put(library / "dora.jpg", jpeg("dora"))
    code, result, _ = embed(library)
    assert (code, result["unchanged"], result["new"], result["faces"]) == (0, 3, 1, 4)
    after = sf.load_cache(cache_path)
    assert np.array_equal(after.embedding[:3], before.embedding)
    assert after.file_path.tolist() == [*before.file_path.tolist(), str(library / "dora.jpg")]


def test_a_file_changed_under_its_path_is_done_again(embed, library, cache_path) -> None:
    embed(library)
    old = embedding_at(cache_path, library / "anna.jpg")
    put(library / "anna.jpg", jpeg("dora"))
    code, result, _ = embed(library)
    assert (code, result["new"], result["unchanged"], result["faces"]) == (0, 1, 2, 3)
    assert len(sf.load_cache(cache_path).file_path) == 3
    new = embedding_at(cache_path, library / "anna.jpg")
    unit = sf.unit_rows(np.concatenate([old, new]))
    assert unit[0] @ unit[1] < 0.8


def test_a_touched_file_is_hashed_but_not_computed(embed, library, cache_path, no_engine) -> None:
    embed(library)
    os.utime(library / "anna.jpg", (1, 1))
    no_engine()
    code, result, _ = embed(library)
    assert (code, result["unchanged"], result["new"], result["copies"]) == (0, 2, 0, 0)
    assert 10**9 in sf.load_cache(cache_path).file_mtime_ns
    assert embed(library)[1]["unchanged"] == 3


@pytest.mark.parametrize("first", ["same run", "later run"])
def test_a_byte_identical_copy_becomes_an_alias(
    embed, library, cache_path, no_engine, first
) -> None:
    if first == "later run":
        embed(library)
        no_engine()
    put(library / "backup/again.jpg", jpeg("anna"))  # sorts behind the original
    put(library / "Again.jpg", jpeg("cleo"))  # sorts before it
    code, result, _ = embed(library)
    assert (code, result["copies"], result["faces"]) == (0, 2, 3)
    known = paths_of(cache_path, library)
    assert {frozenset([first, *more]) for first, more in known.items()} == {
        frozenset({"anna.jpg", "backup/again.jpg"}),
        frozenset({"cleo.jpg", "Again.jpg"}),
        frozenset({"finn.jpg"}),
    }
    no_engine()
    assert embed(library)[1]["unchanged"] == 5


def test_many_copies_at_once_are_all_remembered(embed, tmp_path, cache_path, no_engine) -> None:
    """Copies are noted while their photo is still being computed."""
    root = tmp_path / "photos"
    for person in ("anna", "cleo"):
        for number in range(6):
            put(root / f"{number}/{person}.jpg", jpeg(person))
    result = embed(root, "--threads", "3")[1]
    assert (result["new"], result["copies"], result["faces"]) == (2, 10, 2)
    no_engine()
    result = embed(root)[1]
    assert (result["unchanged"], result["copies"]) == (12, 10)
    assert set(paths_of(cache_path, root)) == {"0/anna.jpg", "0/cleo.jpg"}


def test_a_moved_file_is_recognised_and_its_old_path_forgotten(
    embed, library, cache_path, no_engine
) -> None:
    embed(library)
    before = embedding_at(cache_path, library / "anna.jpg")
    (library / "rome").mkdir()
    (library / "anna.jpg").rename(library / "rome/a.jpg")
    no_engine()
    code, result, _ = embed(library)
    assert (code, result["new"], result["moved_or_gone"], result["copies"]) == (0, 0, 1, 0)
    assert set(paths_of(cache_path, library)) == {"rome/a.jpg", "cleo.jpg", "finn.jpg"}
    assert np.array_equal(embedding_at(cache_path, library / "rome/a.jpg"), before)


def test_files_that_swap_names_keep_their_faces(embed, library, cache_path, no_engine) -> None:
    embed(library)
    faces = {name: embedding_at(cache_path, library / f"{name}.jpg") for name in ("anna", "cleo")}
    (library / "anna.jpg").rename(library / "t")
    (library / "cleo.jpg").rename(library / "anna.jpg")
    (library / "t").rename(library / "cleo.jpg")
    no_engine()
    code, result, _ = embed(library)
    assert (code, result["new"], result["faces"]) == (0, 0, 3)
    assert np.array_equal(embedding_at(cache_path, library / "anna.jpg"), faces["cleo"])
    assert np.array_equal(embedding_at(cache_path, library / "cleo.jpg"), faces["anna"])


def test_a_file_moved_and_copied_counts_as_one_that_moved(embed, library, no_engine) -> None:
    embed(library)
    put(library / "x/copy.jpg", jpeg("anna"))
    (library / "anna.jpg").rename(library / "x/moved.jpg")
    no_engine()
    result = embed(library, "--prune")[1]
    assert (result["moved_or_gone"], result["copies"], result["faces"]) == (1, 1, 3)


def test_a_file_moved_away_from_a_root_not_scanned_keeps_its_old_path(
    embed, tmp_path, cache_path, no_engine
) -> None:
    """The other root may only be unplugged."""
    put(tmp_path / "usb/anna.jpg", jpeg("anna"))
    put(tmp_path / "home/cleo.jpg", jpeg("cleo"))
    embed(tmp_path / "usb", tmp_path / "home")
    (tmp_path / "usb/anna.jpg").rename(tmp_path / "home/anna.jpg")
    no_engine()
    code, result, _ = embed(tmp_path / "home")
    assert (code, result["moved_or_gone"]) == (0, 0)
    assert paths_of(cache_path, tmp_path) == {
        "usb/anna.jpg": ["home/anna.jpg"],
        "home/cleo.jpg": [],
    }
    code, result, _ = embed(tmp_path / "home", "--prune")  # its bytes live elsewhere
    assert (code, result["moved_or_gone"], result["faces"]) == (0, 1, 2)
    assert set(paths_of(cache_path, tmp_path)) == {"home/anna.jpg", "home/cleo.jpg"}


def test_prune_takes_an_empty_root_for_an_unplugged_disk(embed, tmp_path, no_engine) -> None:
    put(tmp_path / "usb/anna.jpg", jpeg("anna"))
    put(tmp_path / "home/cleo.jpg", jpeg("cleo"))
    embed(tmp_path / "usb", tmp_path / "home")
    (tmp_path / "usb/anna.jpg").unlink()
    no_engine()
    code, result, _ = embed(tmp_path / "usb", tmp_path / "home", "--prune")
    assert (code, result["moved_or_gone"], result["faces"]) == (0, 0, 2)


def test_a_file_that_is_gone_is_kept_until_prune(embed, library, cache_path, no_engine) -> None:
    embed(library)
    (library / "anna.jpg").unlink()
    no_engine()
    assert embed(library)[1]["faces"] == 3
    result = embed(library, "--prune")[1]
    assert (result["moved_or_gone"], result["faces"]) == (1, 2)
    assert set(paths_of(cache_path, library)) == {"cleo.jpg", "finn.jpg"}
    assert embed(library, "--prune")[1]["moved_or_gone"] == 0


def test_prune_keeps_a_photo_as_long_as_one_of_its_paths_lives(
    embed, library, cache_path, no_engine
) -> None:
    put(library / "backup/anna.jpg", jpeg("anna"))
    embed(library)
    before = embedding_at(cache_path, library / "anna.jpg")
    (library / "anna.jpg").unlink()
    no_engine()
    result = embed(library, "--prune")[1]
    assert (result["moved_or_gone"], result["copies"], result["faces"]) == (1, 0, 3)
    assert np.array_equal(embedding_at(cache_path, library / "backup/anna.jpg"), before)


def test_prune_leaves_files_that_only_the_globs_hide(embed, library, no_engine) -> None:
    embed(library)
    no_engine()
    result = embed(library, "--prune", "--include", "anna*")[1]
    assert (result["photos"], result["moved_or_gone"], result["faces"]) == (1, 0, 3)


@pytest.mark.parametrize("year", [1890, 2300, 2440])
def test_a_photo_of_any_time_is_kept_and_found_unchanged(
    embed, run, library, cache_path, no_engine, year
) -> None:
    """64 bits of nanoseconds end in the year 2262; file systems go on."""
    ns = int(datetime(year, 1, 1, tzinfo=timezone.utc).timestamp()) * 10**9
    os.utime(library / "anna.jpg", ns=(ns, ns))
    if (library / "anna.jpg").stat().st_mtime_ns != ns:
        pytest.skip("this file system does not hold such times")
    assert embed(library)[1]["faces"] == 3
    no_engine()
    assert embed(library)[1]["unchanged"] == 3
    code, out, err = run("cluster", cache_path, library.parent / "out", "--json")
    assert code == 0 and json.loads(out)["files_placed"] == 3, err
    code, out, err = run("cluster", cache_path, library.parent / "out", "--json")
    assert code == 0 and json.loads(out)["files_kept"] == 3, err


@pytest.fixture
def nobody():
    """Rights are those of an ordinary user, whoever runs the tests; yields a folder of his."""
    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder).resolve()
        as_root = hasattr(os, "geteuid") and os.geteuid() == 0
        if as_root:
            os.chown(mine, 65534, 65534)
            os.seteuid(65534)
        yield mine
        if as_root:
            os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs permission bits")
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o600, 0o100])
def test_prune_forgets_no_photo_in_a_folder_it_may_not_enter(embed, nobody, mode) -> None:
    library, cache = nobody / "photos", nobody / "lib.npz"
    places = ("open", "locked", "locked/deep", "gone/deep")
    for place, person in zip(places, PEOPLE, strict=False):
        put(library / place / f"{person}.jpg", jpeg(person))
    assert embed(library, cache=cache)[1]["faces"] == 4
    shutil.rmtree(library / "gone")
    (library / "locked").chmod(mode)
    result = embed(library, "--prune", cache=cache)[1]
    (library / "locked").chmod(0o700)
    assert (result["moved_or_gone"], result["faces"]) == (1, 3)


# ---------------------------------------------------------------------------- no face, no photo


def test_a_photo_without_a_face_is_retried_only_with_other_settings(
    embed, library, no_engine, cache_path
) -> None:
    assert embed(library, "--det-size", "64")[1]["without_face"] == 3
    result = embed(library, "--det-size", "64")[1]
    assert (result["unchanged"], result["new"]) == (3, 0)
    for flags in (["--det-size", "64", "--pad-retry"], ["--det-size", "100"]):
        result = embed(library, *flags)[1]
        assert (result["new"], result["unchanged"]) == (3, 0)
    result = embed(library)[1]
    assert (result["new"], result["faces"], result["without_face"]) == (3, 3, 0)
    assert len(sf.load_cache(cache_path).file_path) == 3


def test_a_photo_with_faces_is_redone_with_other_settings_only_on_rescan(
    embed, library, no_engine, cache_path
) -> None:
    embed(library)
    assert embed(library, "--det-size", "64", "--rescan")[1]["faces"] == 0
    assert embed(library, "--rescan")[1]["faces"] == 3
    no_engine()
    for flags in (["--rescan"], ["--det-size", "64"], ["--pad-retry"]):
        result = embed(library, *flags)[1]
        assert (result["unchanged"], result["faces"]) == (3, 3)


def test_unreadable_files_are_recorded_and_named(embed, library, cache_path) -> None:
    put(library / "broken.jpg", b"no picture at all")
    code, result, err = embed(library)
    assert (code, result["unreadable"], result["faces"]) == (0, 1, 3)
    assert [line.split(": ")[0] for line in result["failed"]] == [str(library / "broken.jpg")]
    assert f"warning: {library / 'broken.jpg'}: " in err
    cache = sf.load_cache(cache_path)
    bad = cache.file_status == sf.STATUS_UNREADABLE
    assert cache.file_error[bad].tolist() == ["not a picture this tool can read"]


def test_unreadable_files_are_retried_only_when_asked(
    embed, library, cache_path, monkeypatch
) -> None:
    put(library / "broken.jpg", b"no picture at all")
    put(library / "twin.jpg", b"no picture at all")
    assert len(embed(library)[1]["failed"]) == 1
    result = embed(library)[1]
    assert (result["unchanged"], result["unreadable"], result["failed"]) == (5, 2, [])
    result = embed(library, "--retry-errors")[1]
    assert (result["unchanged"], result["unreadable"], result["copies"]) == (3, 2, 1)
    assert len(result["failed"]) == 1
    real = sf.decode_photo  # a newer version may be able to read it
    monkeypatch.setattr(
        sf,
        "decode_photo",
        lambda data, *how: real(jpeg("dora") if data.startswith(b"no pict") else data, *how),
    )
    result = embed(library, "--retry-errors")[1]
    assert (result["new"], result["unreadable"], result["faces"]) == (1, 0, 4)
    assert sf.load_cache(cache_path).file_error.tolist() == [""] * 4


def test_a_repaired_file_is_read_again_by_itself(embed, library) -> None:
    put(library / "dora.jpg", jpeg("dora")[:200])
    assert embed(library)[1]["unreadable"] == 1
    put(library / "dora.jpg", jpeg("dora"))
    result = embed(library)[1]
    assert (result["new"], result["unreadable"], result["faces"]) == (1, 0, 4)


def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_run(
    embed, library, cache_path, monkeypatch
) -> None:
    real = sf.sha256_of_file
    monkeypatch.setattr(
        sf, "sha256_of_file", lambda path: "0" * 64 if "anna" in str(path) else real(path)
    )
    code, result, _ = embed(library)
    assert (code, result["unreadable"], result["faces"]) == (0, 1, 2)
    assert "changed while being read" in result["failed"][0]
    assert len(sf.load_cache(cache_path).file_path) == 2
    monkeypatch.setattr(sf, "sha256_of_file", real)
    assert embed(library)[1]["faces"] == 3


def test_a_file_that_vanishes_before_it_is_read_costs_only_itself(
    embed, library, monkeypatch
) -> None:
    real = sf.scan_photos

    def scan(*args):
        report = real(*args)
        (library / "anna.jpg").unlink()
        return report

    monkeypatch.setattr(sf, "scan_photos", scan)
    code, result, err = embed(library)
    assert (code, result.get("unreadable"), result.get("faces")) == (0, 1, 2), err
    assert "No such file" in result["failed"][0]


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1), (2, 2)])
def test_a_spacer_picture_costs_nobody_else_anything(embed, library, cache_path, shape) -> None:
    put(library / "aaa.png", cv2.imencode(".png", np.full((*shape, 3), 9, np.uint8))[1].tobytes())
    code, result, err = embed(library)
    assert (code, result.get("faces")) == (0, 3), err
    assert result["without_face"] == 1


def test_a_damaged_avif_costs_nobody_else_anything_and_is_remembered(
    embed, library, no_engine
) -> None:
    stream = io.BytesIO()
    PIL.Image.open(io.BytesIO(jpeg("dora"))).save(stream, "AVIF")
    data = bytearray(stream.getvalue())
    pixels = data.index(b"mdat") + 4
    data[pixels : pixels + 64] = bytes(64)
    put(library / "dora.avif", bytes(data))
    code, result, err = embed(library)
    assert (code, result.get("unreadable"), result.get("faces")) == (0, 1, 3), err
    no_engine()
    assert embed(library)[1]["unchanged"] == 4


def test_only_unreadable_files_give_exit_code_1_every_time(embed, tmp_path) -> None:
    put(tmp_path / "photos/a.jpg", b"no picture")
    put(tmp_path / "photos/b.jpg", b"no picture either")
    for run in range(2):
        code, result, err = embed(tmp_path / "photos")
        assert (code, result["unreadable"], result["faces"]) == (1, 2, 0), run
        assert "Traceback" not in err


# ---------------------------------------------------------------------------- enrich


def test_enrich_in_the_same_pass(embed, library, cache_path, no_engine) -> None:
    code, result, err = embed(library, "--enrich")
    assert (code, result["faces"]) == (0, 3), err
    cache = sf.load_cache(cache_path)
    assert cache.enriched.all() and np.isfinite(cache.landmark_3d_68).all()
    no_engine()
    code, result, _ = embed(library, "--enrich")
    assert (code, result["unchanged"], result["lacking"]) == (0, 3, 0)


def test_enrich_later_gives_the_same_as_at_once(embed, library, tmp_path, run) -> None:
    embed(library, cache=tmp_path / "later.npz")
    assert not sf.load_cache(tmp_path / "later.npz").enriched.any()
    code, out, _ = run("enrich", tmp_path / "later.npz", "--model", "dlib", "--json")
    assert (code, json.loads(out)["enriched"]) == (0, 3)
    embed(library, "--enrich", cache=tmp_path / "once.npz")
    later, once = (sf.load_cache(tmp_path / f"{name}.npz") for name in ("later", "once"))
    for name in ("landmark_3d_68", "pose"):
        assert np.allclose(getattr(later, name), getattr(once, name), atol=0.01)


def test_enrich_of_new_faces_keeps_that_of_the_old(embed, library, cache_path) -> None:
    embed(library, "--enrich")
    before = sf.load_cache(cache_path).pose
    put(library / "dora.jpg", jpeg("dora"))
    result = embed(library, "--enrich")[1]
    after = sf.load_cache(cache_path)
    assert result["faces"] == 4 and after.enriched.all()
    assert np.array_equal(after.pose[:3], before)


def test_a_redone_photo_is_enriched_anew(embed, library, cache_path) -> None:
    """Landmarks of the faces found before must not stick to those found now."""
    embed(library, "--enrich")
    embed(library, "--rescan", "--det-size", "700")
    stale = sf.load_cache(cache_path)
    assert not stale.enriched.any()
    assert embed(library, "--rescan", "--det-size", "700", "--enrich")[1]["enriched"] == 3


def no_space(*args) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_landmarks_of_an_unfinished_enrich_do_not_stick_to_redone_faces(
    embed, library, cache_path, run, monkeypatch
) -> None:
    embed(library)
    with monkeypatch.context() as full_disk:
        full_disk.setattr(sf, "save_cache", no_space)
        refused(*run("enrich", cache_path, "--model", "dlib"), "No space left")
    assert sf.load_cache(cache_path).enriched.all(), "it is all in the journal"
    assert embed(library, "--rescan", "--det-size", "700")[1]["faces"] == 3
    assert not sf.load_cache(cache_path).enriched.any()


# ---------------------------------------------------------------------------- refusals


def test_a_missing_source(embed, tmp_path) -> None:
    code, out, err = embed(tmp_path / "nowhere")
    refused(code, out, err, "nowhere", "no such file or folder")
    assert not (tmp_path / "lib.npz").exists()


def test_one_missing_source_of_two(embed, library, tmp_path) -> None:
    """A library with half of it unplugged must not look complete."""
    refused(*embed(library, tmp_path / "nowhere"), "nowhere")


@pytest.mark.parametrize("content", [None, "notes.txt", ".hidden.jpg"])
def test_a_source_without_photos(embed, tmp_path, content) -> None:
    (tmp_path / "photos").mkdir()
    if content:
        put(tmp_path / "photos" / content, b"x")
    refused(*embed(tmp_path / "photos"), "no photos found")
    assert not (tmp_path / "lib.npz").exists()


def test_globs_that_leave_nothing(embed, library) -> None:
    refused(*embed(library, "--include", "*.bmp"), "no photos found")


def test_an_output_of_the_tool_as_source(embed, library) -> None:
    sf.write_json(library / "manifest.json", {"tool": sf.TOOL, "kind": "raw"})
    refused(*embed(library), "output of this tool")


def test_a_cache_of_another_model(embed, library, cache_path) -> None:
    embed(library)
    cache = sf.load_cache(cache_path)
    sf.save_cache(cache_path, replace(cache, meta=changed(cache.meta, model="buffalo_l")))
    before = cache_path.read_bytes()
    refused(*embed(library), "holds faces of buffalo_l", "another cache")
    assert cache_path.read_bytes() == before


def test_a_grown_library_takes_the_model_of_its_cache(embed, run, library, cache_path) -> None:
    """Without --model; the engine's own default counts for a new cache alone."""
    embed(library)
    put(library / "dora.jpg", jpeg("dora"))
    code, out, err = run("embed", library, cache_path, "--json")
    assert (code, json.loads(out or "{}").get("new")) == (0, 1), err
    assert sf.load_cache(cache_path).meta.model == "dlib"
    refused(*run("embed", library, cache_path, "--model", "buffalo_l"), "not buffalo_l")


def test_run_takes_the_model_of_its_cache(embed, run, library, cache_path, tmp_path) -> None:
    embed(library)
    before = sf.load_cache(cache_path)
    _, out, err = run("run", library, tmp_path / "out", "--cache", cache_path, "--json")
    assert "export-swap" in [row["step"] for row in json.loads(out)["steps"]], err
    after = sf.load_cache(cache_path)
    assert (after.meta.model, after.faces) == ("dlib", before.faces)


def test_a_new_cache_takes_the_default_model(run, library, cache_path, tmp_path) -> None:
    model_root = tmp_path / "models"
    (model_root / "models" / "buffalo_l").mkdir(parents=True)
    refused(*run("embed", library, cache_path, "--model-root", model_root), "--model buffalo_l")


def test_what_libraries_print_goes_to_the_log_file(
    run, library, cache_path, tmp_path, monkeypatch
) -> None:
    """insightface prints where it downloads a pack to."""

    def no_network(*args, **more) -> None:
        raise OSError("no network")

    monkeypatch.setattr("insightface.utils.storage.download_file", no_network)
    code, out, err = run("embed", library, cache_path, "--model-root", tmp_path / "models")
    refused(code, out, err, "--model buffalo_l", "no network")
    assert "download_path" not in err
    (log_file,) = Path(os.environ["SORT_FACES_LOGS"]).glob("embed-*.log")
    assert "download_path" in log_file.read_text(encoding="utf-8")


def test_a_cache_of_the_same_name_but_other_weights(embed, library, cache_path) -> None:
    embed(library)
    cache = sf.load_cache(cache_path)
    sf.save_cache(cache_path, replace(cache, meta=changed(cache.meta, recognizer="other")))
    before = cache_path.read_bytes()
    put(library / "dora.jpg", jpeg("dora"))
    refused(*embed(library), "another dlib recogniser", "use another cache")
    assert cache_path.read_bytes() == before
    assert sf.load_cache(cache_path).faces == 3


@pytest.mark.parametrize("name", ["lib", "lib.npy", "lib.npz.bak", "lib.NPZ.txt"])
def test_a_cache_not_named_npz(embed, library, tmp_path, name) -> None:
    refused(*embed(library, cache=tmp_path / name), name, ".npz")
    assert not (tmp_path / name).exists()


def test_arguments_in_the_wrong_order(embed, library, cache_path) -> None:
    """embed CACHE SRC: the photos must stay untouched."""
    embed(library)
    before = sorted(os.listdir(library))
    refused(*embed(cache_path, cache=library), ".npz")
    assert sorted(os.listdir(library)) == before


def test_a_cache_that_is_a_folder(embed, library, cache_path) -> None:
    cache_path.mkdir()
    refused(*embed(library), "is a folder")


def test_a_cache_below_a_file(embed, library, tmp_path) -> None:
    put(tmp_path / "file", b"x")
    refused(*embed(library, cache=tmp_path / "file/lib.npz"), str(tmp_path / "file"))


def test_a_cache_that_is_no_cache_stays_untouched(embed, library, cache_path) -> None:
    put(cache_path, b"something of somebody else")
    refused(*embed(library), "no readable cache")
    assert cache_path.read_bytes() == b"something of somebody else"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_cache_folder_without_permission_to_write(embed, library, tmp_path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(*embed(library, cache=tmp_path / "locked/lib.npz"), "permission")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_cache_folder_nobody_can_write_to(embed, library) -> None:
    refused(*embed(library, cache=Path("/proc/sort_faces/lib.npz")), "/proc/sort_faces")


def test_a_second_writer_is_told_who_is_first(embed, library, cache_path) -> None:
    embed(library)
    put(library / "dora.jpg", jpeg("dora"))
    code = (
        "import sys, pathlib, sort_faces as sf\n"
        "with sf.locked_cache(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(cache_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        refused(*embed(library), str(cache_path), f"process {holder.pid}", "wait for it or stop it")
        assert sf.load_cache(cache_path).faces == 3
    finally:
        holder.communicate()
    code, result, _ = embed(library)
    assert (code, result["faces"]) == (0, 4)


def test_a_writer_that_was_killed_holds_nobody_up(embed, library, cache_path) -> None:
    for suffix in (".lock", ".lock.holder"):
        put(cache_path.with_name(cache_path.name + suffix), b"process 1 on nowhere")
    assert embed(library)[0] == 0


OUT_OF_RANGE = [
    ("--threads", ["0", "-1", "2.5", "nan", "inf", "two", "", "99999999999"]),
    ("--det-size", ["3", "31", "-640", "640.5", "nan", "1e3", "100000", ""]),
    ("--det-threshold", ["0", "1", "-0.5", "1.5", "nan", "inf", "-inf", "half", ""]),
]


@pytest.mark.parametrize(("flag", "value"), [(f, v) for f, values in OUT_OF_RANGE for v in values])
def test_a_number_out_of_range(embed, library, flag, value) -> None:
    refused(*embed(library, f"{flag}={value}"), flag)


@pytest.mark.parametrize("flags", [["--unknown"], ["--model"], ["--det-size"], ["--link", "hard"]])
def test_an_unknown_or_unfinished_option(embed, library, flags) -> None:
    refused(*embed(library, *flags), flags[0])


def test_too_few_arguments(run) -> None:
    refused(*run("embed"), "SRC")
    refused(*run("embed", "only-one"), "CACHE")


@pytest.mark.parametrize("left", [b"", b'{"op": "meta", "sch'])
def test_a_journal_cut_in_its_first_line_holds_nobody_up(embed, library, cache_path, left) -> None:
    """A first run killed at its first byte has left this behind."""
    put(sf.journal_path(cache_path), left)
    code, result, err = embed(library)
    assert (code, result.get("faces")) == (0, 3), err


def test_a_half_written_cache_of_a_killed_run_is_cleared_away(embed, library, cache_path) -> None:
    """It may be as large as the cache; what another cache's run is writing stays."""
    own, *others = (
        put(cache_path.parent / f"{sf.PART_PREFIX}1-2-{name}", b"x" * 99)
        for name in ("lib.npz", "other.npz", "old-lib.npz")
    )
    assert embed(library)[0] == 0
    assert not own.exists()
    assert [path.name for path in others if not path.exists()] == []


def test_a_journal_cut_anywhere_costs_at_most_its_last_record(
    embed, library, cache_path, monkeypatch
) -> None:
    """A power cut may tear the last line wherever it likes."""
    put(library / "copy.jpg", jpeg("anna"))
    journal = sf.journal_path(cache_path)
    with monkeypatch.context() as full_disk:
        full_disk.setattr(sf, "save_cache", no_space)
        refused(*embed(library), "No space left")
    whole, header = journal.read_bytes(), journal.read_bytes().index(b"\n") + 1
    embed(library)
    expected = paths_of(cache_path, library)
    assert {len(more) for more in expected.values()} == {0, 1}
    for cut in np.linspace(header, len(whole) - 1, 15).astype(int):
        cache_path.unlink()
        journal.write_bytes(whole[:cut])
        lines = whole[:cut].rpartition(b"\n")[0].splitlines()
        before = sf.load_cache(cache_path)
        assert before.files == sum(b'"op": "photo"' in line for line in lines)
        code, result, err = embed(library)
        assert (code, result["new"]) == (0, 3 - before.files), err
        assert paths_of(cache_path, library) == expected


def test_who_reads_the_old_cache_while_a_new_one_is_written_goes_on(
    embed, library, cache_path
) -> None:
    embed(library)
    with open(cache_path, "rb") as reader:
        before = cache_path.read_bytes()
        put(library / "dora.jpg", jpeg("dora"))
        assert embed(library)[1]["faces"] == 4
        assert reader.read() == before != cache_path.read_bytes()


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_run_stopped_while_it_writes_the_cache_keeps_the_old_one(
    embed, library, cache_path, no_engine, monkeypatch, moment
) -> None:
    embed(library)
    before = cache_path.read_bytes()
    put(library / "dora.jpg", jpeg("dora"))

    def stop(*args) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(sf.os, moment, stop)
        code, _, err = embed(library)
    assert code == 130 and "run the same command again" in err
    assert cache_path.read_bytes() == before
    assert sf.load_cache(cache_path).faces == 4, "the journal holds the rest"
    no_engine()
    assert embed(library)[1]["faces"] == 4
    assert not sf.journal_path(cache_path).exists()


# ---------------------------------------------------------------------------- a full disk

LIMIT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, resource.RLIM_INFINITY))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit")
@pytest.mark.parametrize("limit", [100, 1800, 4500])
def test_a_full_disk_is_one_line_and_costs_nothing(embed, library, tmp_path, limit) -> None:
    """No byte may be written past the limit: in the journal's first line, in a photo's, in the
    finished cache."""
    full, spare = tmp_path / "full/lib.npz", tmp_path / "spare/lib.npz"
    full.parent.mkdir()
    done = cli(
        "embed", library, full, "--model", "dlib", "--threads", 1, wrapper=LIMIT.format(limit)
    )
    refused(done.returncode, done.stdout, done.stderr, str(full.parent))
    assert "too large" in done.stderr
    code, result, err = embed(library, cache=full)
    assert code == 0, err
    assert result["new"] == {100: 3, 1800: 2, 4500: 0}[limit]
    embed(library, cache=spare)
    left, right = sf.load_cache(full), sf.load_cache(spare)
    assert left.file_path.tolist() == right.file_path.tolist()
    assert np.array_equal(left.embedding, right.embedding)
    assert {path.name for path in full.parent.iterdir()} == {p.name for p in spare.parent.iterdir()}


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit")
def test_a_log_that_cannot_grow_stops_nothing(library, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SORT_FACES_LOGS", str(tmp_path / "logs"))
    first = cli("embed", library, tmp_path / "a.npz", "--model", "dlib")
    assert first.returncode == 0, first.stderr
    (log,) = (tmp_path / "logs").iterdir()
    put(log, b"x" * 100_000)
    wrapper = LIMIT.format(90_000)
    done = cli("embed", library, tmp_path / "b.npz", "--model", "dlib", wrapper=wrapper)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    shutil.rmtree(tmp_path / "logs")


# ---------------------------------------------------------------------------- decoding, time


@pytest.fixture
def scales(monkeypatch) -> list[int]:
    """The scale of every photo that is decoded."""
    seen: list[int] = []
    real = sf.decode_photo

    def decode_photo(*args) -> sf.Photo:
        photo = real(*args)
        seen.append(photo.scale)
        return photo

    monkeypatch.setattr(sf, "decode_photo", decode_photo)
    return seen


def test_a_large_face_is_cut_from_a_reduced_photo(embed, tmp_path, scales) -> None:
    """Boxes are in pixels of the photo, and it is the same person."""
    root = tmp_path / "large"
    put(root / "anna.jpg", jpeg("anna", 3200))
    assert embed(root, "--det-size", "640")[1]["faces"] == 1
    put(root / "nobody.jpg", jpeg("nobody", 3200))
    scales.clear()
    again = tmp_path / "reduced.npz"
    embed(root, "--det-size", "640", "--decode", "reduced", cache=again)
    assert scales == [4, 4]
    whole, reduced = (sf.load_cache(path) for path in (tmp_path / "lib.npz", again))
    assert sf.box_iou(whole.bbox[0], reduced.bbox)[0] > 0.85
    assert reduced.file_wh.tolist() == [[3200, 3200]] * 2
    apart = sf.unit_rows(np.concatenate([whole.embedding, reduced.embedding]))
    assert 1 - float(apart[0] @ apart[1]) < sf.DLIB_THRESHOLDS.same_face
    assert set(reduced.file_passes) == {"640@0.5+reduced"}


def test_a_photo_with_a_small_face_is_read_whole(embed, tmp_path, group_photo, scales) -> None:
    root = tmp_path / "small"
    image = cv2.imdecode(np.frombuffer(group_photo, np.uint8), cv2.IMREAD_COLOR)
    large = cv2.resize(image, None, fx=2.6, fy=2.6, interpolation=cv2.INTER_CUBIC)
    put(root / "group.jpg", demo_library.encode_jpeg(large, 92))
    embed(root, "--decode", "reduced", "--det-size", "1600")
    assert scales == [2, 1]
    cache = sf.load_cache(tmp_path / "lib.npz")
    embed(root, "--det-size", "1600", cache=tmp_path / "whole.npz")
    whole = sf.load_cache(tmp_path / "whole.npz")
    assert cache.faces == whole.faces > 3
    for box, blur in zip(cache.bbox, cache.blur, strict=True):
        overlap = sf.box_iou(box, whole.bbox)
        assert overlap.max() > 0.8
        assert 0.5 < blur / whole.blur[overlap.argmax()] < 2, "measured in all its pixels"


def test_tiles_need_whole_photos(embed, tmp_path, scales) -> None:
    put(tmp_path / "large/anna.jpg", jpeg("anna", 2400))
    scales.clear()
    embed(tmp_path / "large", "--decode", "reduced", "--tiles", "--det-size", "640")
    assert scales == [1]


def test_nvjpeg_is_refused_where_it_cannot_be(embed, library, cache_path) -> None:
    """Before anything is written; here neither the library nor a GPU is needed for the test."""
    code, result, err = embed(library, "--decode", "nvjpeg")
    if code == 0:
        pytest.skip("nvImageCodec and a GPU are here")
    assert (code, result) == (2, {}) and "nvidia-nvimgcodec" in err
    assert len([line for line in err.splitlines() if line.startswith("sort_faces ")]) == 1
    assert not cache_path.exists()


def test_jpegs_come_from_nvimagecodec_as_from_opencv(group_photo) -> None:
    """By its decoder for CPUs, the same calls as on a GPU."""
    pytest.importorskip("nvidia.nvimgcodec", reason="pip install nvidia-nvimgcodec-cu12")
    ours = sf.companion("nvjpeg").JpegDecoder(on_cpu=True)
    found, none = ours.ask([group_photo, b"no picture"])
    assert np.array_equal(found, cv2.imdecode(np.frombuffer(group_photo, np.uint8), 1))
    assert none is None


def test_the_end_of_a_run_says_where_the_time_went(embed, library) -> None:
    _, _, err = embed(library)
    (line,) = [line for line in err.splitlines() if line.startswith("time of ")]
    shares = dict(part.rsplit(" ", 1) for part in line.split(": ", 1)[1].split(", "))
    assert {"decode", "detect", "recognise", "write"} <= shares.keys()
    assert 95 <= sum(int(share.rstrip("%")) for share in shares.values()) <= 105
    assert "time of" not in embed(library)[2], "nothing was done"


# --- growth: what comes costs what is new -----------------------------------


@pytest.fixture
def reads(monkeypatch) -> list[bool]:
    """Of every reading of a cache's arrays from here on: whether the embeddings were read."""
    seen, real = [], np.lib.npyio.NpzFile.__getitem__

    def read(archive, name: str) -> np.ndarray:
        if name == "meta":
            seen.append(False)
        seen[-1:] = [seen[-1] or name == "embedding"] if seen else []
        return real(archive, name)

    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", read)
    return seen


def facts_of_file(path: Path) -> tuple[int, int, str]:
    return path.stat().st_ino, path.stat().st_mtime_ns, sf.sha256_of_file(path)


def test_a_night_without_news_reads_no_face_and_writes_nothing(
    embed, library, cache_path, no_engine, reads
) -> None:
    first, before = embed(library)[1], facts_of_file(cache_path)
    del reads[:]
    no_engine()
    code, again, _ = embed(library)
    assert (code, again["unchanged"], again["new"], reads) == (0, 3, 0, [False])
    same = ("photos", "copies", "faces", "without_face", "unreadable")
    assert [again[key] for key in same] == [first[key] for key in same]
    assert facts_of_file(cache_path) == before


def test_a_cache_is_read_once_however_many_photos_come(embed, library, cache_path, reads) -> None:
    embed(library)
    put(library / "dora.jpg", jpeg("dora"))
    put(library / "copy.jpg", jpeg("anna"))
    del reads[:]
    assert embed(library)[1]["faces"] == 4
    assert reads == [False, True]  # of the photos, then of all
    alone = cache_path.with_name("alone.npz")
    embed(library, cache=alone)
    ours, theirs = sf.load_cache(cache_path), sf.load_cache(alone)
    order = np.argsort(ours.face_ids), np.argsort(theirs.face_ids)
    assert np.array_equal(ours.embedding[order[0]], theirs.embedding[order[1]])


def test_a_damaged_cache_is_told_before_a_new_photo_is_looked_at(
    embed, library, cache_path, no_engine
) -> None:
    embed(library)
    data = bytearray(cache_path.read_bytes())
    data[data.index(sf.load_cache(cache_path).embedding.tobytes()) + 100] ^= 255
    cache_path.write_bytes(data)
    put(library / "dora.jpg", jpeg("dora"))
    no_engine()
    code, _, err = embed(library)
    assert code == 2 and "is no readable cache" in err and err.count("\n") == 1
    assert not sf.journal_path(cache_path).exists()


def test_columns_nobody_has_filled_take_no_room_and_stay_away(
    embed, library, cache_path, monkeypatch
) -> None:
    embed(library)
    put(library / "dora.jpg", jpeg("dora"))
    saved, real = [], sf.save_cache
    monkeypatch.setattr(sf, "save_cache", lambda *args: saved.append(args[1]) or real(*args))
    embed(library)
    assert all(sf.is_absent(getattr(saved[0], name)) for name in sf.LATER_COLUMNS)
    with np.load(cache_path) as archive:
        assert not set(sf.LATER_COLUMNS) & set(archive.files)
    cache = sf.load_cache(cache_path)
    assert cache.landmark_3d_68.shape == (4, 68, 3) and not cache.enriched.any()
    assert all(sf.is_absent(getattr(cache, name)) for name in sf.LATER_COLUMNS)


def test_the_known_copies_of_a_photo_are_looked_for_once(
    embed, library, monkeypatch, no_engine
) -> None:
    for number in range(10):
        put(library / "old" / f"{number}.jpg", jpeg("anna"))
    embed(library)
    for number in range(10):
        put(library / "new" / f"{number}.jpg", jpeg("anna"))
    looked, real = [], sf.is_missing
    monkeypatch.setattr(sf, "is_missing", lambda path: looked.append(path) or real(path))
    no_engine()
    assert embed(library)[1]["copies"] == 20
    assert sorted(looked) == sorted(set(looked)) and len(looked) == 11


def test_a_photo_is_found_once_though_it_is_named_and_lies_in_a_named_folder(library) -> None:
    found = sf.scan_photos([library, library / "anna.jpg"]).files
    assert [Path(file.path).name for file in found] == ["anna.jpg", "cleo.jpg", "finn.jpg"]
