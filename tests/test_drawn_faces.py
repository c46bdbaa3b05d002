"""Faces the operator draws: looked at closely, added behind the others, and there again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import demo_library, sf
from material import ok, prepare, real_engine, refused

drawn = sf.companion("drawn_faces")
decisions = sf.companion("decisions")
whom = sf.companion("forget_target")

pytestmark = pytest.mark.usefixtures("quick_disk")

GROUP = "2019/group.jpg"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """photos/ with a group and singles of two of it, whole.npz of all faces; only read."""
    base = tmp_path_factory.mktemp("drawn")
    for name, data in demo_library.demo_pictures().items():
        if name in (GROUP, "2020/no face.png") or Path(name).name.startswith(("anna", "bert")):
            sf.write_part(base / "photos" / name, data)
    argv = ("embed", base / "photos", base / "whole.npz", "--model", "dlib")
    prepare(base / "logs", real_engine("dlib"), *argv)
    return base


class Missed:
    """A cache that lacks a face of the group photo."""

    def __init__(self, made: Path, folder: Path) -> None:
        self.path, self.photos = folder / "lib.npz", made / "photos"
        self.whole = sf.load_cache(made / "whole.npz")
        [file] = [at for at, path in enumerate(self.whole.file_path) if path.endswith(GROUP)]
        rows = np.flatnonzero(self.whole.face_file == file)
        centre = {who: sf.centroid(self.whole.unit[self.rows_of(who)]) for who in ("anna", "bert")}
        self.row = int(rows[np.argmax(self.whole.unit[rows] @ centre["anna"])])
        self.others = [
            face for face in self.whole.face_ids if face != self.whole.face_ids[self.row]
        ]
        self.sha = str(self.whole.file_sha256[file])
        self.box = self.whole.bbox[self.row].astype(float) + np.array([-3, 2, 4, -1])
        self.centre = centre["anna"]
        self.index = int(self.whole.face_index[rows].max()) + 1  # the next free one

    def rows_of(self, who: str) -> list[int]:
        names = [Path(self.whole.file_path[file]).name for file in self.whole.face_file]
        return [row for row, name in enumerate(names) if name.startswith(who)]

    @property
    def asked(self) -> drawn.Box:
        return drawn.Box(self.sha[:16], tuple(self.box.round().tolist()))

    @property
    def crew(self) -> sf.Crew:
        return sf.Crew(sf.EngineSpec(model=""), sf.WorkOptions(threads=1))

    def draw(self, *boxes: drawn.Box) -> list[drawn.Drawn]:
        return drawn.add_drawn(self.path, self.crew, boxes or (self.asked,))

    def decide(self, corners: tuple[float, ...]) -> None:
        ref = f"{self.sha[:16]}@{','.join(str(round(value)) for value in corners)}"
        decisions.Book(self.path).append([decisions.act("box", "drawn", faces=[ref])])

    def embed(self, run: Callable, *options: object) -> sf.FaceCache:
        ok(run, "embed", self.photos, self.path, "--model", "dlib", *options)
        return sf.load_cache(self.path)


@pytest.fixture
def missed(made, tmp_path, monkeypatch) -> Missed:
    """The group's Anna is not found: her face is the last of the photo's, or is taken out."""
    monkeypatch.setattr(sf, "load_engine", lambda spec, threads=1: real_engine("dlib"))
    library = Missed(made, tmp_path)
    gone = library.whole.face_ids[library.row]
    sf.save_cache(library.path, whom.reduced_cache(library.whole, [gone], []))
    return library


def columns(cache: sf.FaceCache, faces: list[str]) -> dict[str, bytes]:
    """All that a cache knows of some faces."""
    rows = sf.rows_of_faces(cache, faces)
    assert len(rows) == len(faces)
    names = [name for name, about in sf.COLUMNS.items() if about.rows == "n"]
    return {name: getattr(cache, name)[rows].tobytes() for name in names}


def test_a_drawn_face_is_added_and_no_other_changes(missed):
    before, archive = sf.load_cache(missed.path), missed.path.read_bytes()
    [told] = missed.draw()
    assert told == drawn.Drawn(f"{missed.sha[:16]}:{missed.index}", new=True)
    after = sf.load_cache(missed.path)
    assert after.faces == before.faces + 1 and after.meta.rescans == before.meta.rescans
    assert columns(after, missed.others) == columns(before, missed.others)
    assert (np.diff(after.face_file) >= 0).all(), "faces lie by photo"
    assert missed.path.read_bytes() == archive, "an added face costs a line"
    row = after.row_of_face[told.face]
    assert after.bbox[row].tolist() == list(missed.asked.corners)
    assert after.face_short[row] == np.min(after.bbox[row][2:] - after.bbox[row][:2])
    assert after.unit[row] @ missed.whole.unit[missed.row] > 0.95
    assert after.unit[row] @ missed.centre > 0.6
    assert np.abs(after.kps[row] - missed.whole.kps[missed.row]).max() < 8


def test_drawing_again_adds_nothing(missed):
    [first] = missed.draw()
    near = replace(missed.asked, corners=tuple(np.array(missed.asked.corners) + 4))
    assert missed.draw(missed.asked, near) == [drawn.Drawn(first.face)] * 2
    assert sf.load_cache(missed.path).faces == len(missed.others) + 1


def test_two_boxes_of_one_face_are_one_face(missed):
    near = replace(missed.asked, corners=tuple(np.array(missed.asked.corners) + 4))
    first, second = missed.draw(missed.asked, near)
    assert first.new and second == drawn.Drawn(first.face)


def test_a_journal_folded_twice_gives_the_same(missed, run):
    missed.draw()
    journal = sf.journal_path(missed.path)
    kept, told = journal.read_bytes(), sf.load_cache(missed.path)
    after = missed.embed(run)
    assert not journal.exists() and after.face_ids == told.face_ids
    journal.write_bytes(kept)  # killed between the two
    again = sf.load_cache(missed.path)
    assert again.face_ids == told.face_ids and again.meta.rescans == told.meta.rescans
    assert columns(again, told.face_ids) == columns(told, told.face_ids)


def test_a_re_scan_brings_a_drawn_face_back_under_its_id(missed, run):
    """Nobody is numbered anew, so that the manifests of before still hold."""
    whole = missed.embed(run, "--rescan", "--det-threshold", 0.51)  # finds all of them
    [told] = missed.draw(replace(missed.asked, corners=free_place(missed)))
    missed.decide(free_place(missed))
    before = sf.load_cache(missed.path)
    assert told.new and before.faces == whole.faces + 1
    after = missed.embed(run, "--rescan")
    assert after.face_ids.count(told.face) == 1 and sorted(after.face_ids) == sorted(
        before.face_ids
    )
    assert after.meta.rescans == before.meta.rescans
    decisions.Book(missed.path).append([decisions.act("revoke", "undone", text="drawn")])
    lines = decisions.Book(missed.path).lines
    assert [after.face_ids[row] for row in drawn.undone_rows(after, lines)] == [told.face]
    last = missed.embed(run, "--rescan", "--det-threshold", 0.51)
    assert told.face not in last.face_ids and last.meta.rescans == before.meta.rescans + 1


def test_a_face_drawn_after_a_killed_re_scan_numbers_nobody_anew(missed, run, monkeypatch):
    before = missed.embed(run, "--rescan", "--det-threshold", 0.51)

    def die(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sf.EmbedRun, "finish", die)
        assert run("embed", missed.photos, missed.path, "--model", "dlib", "--rescan")[0] == 130
    assert missed.draw(replace(missed.asked, corners=free_place(missed)))[0].new
    after = missed.embed(run)
    assert after.faces == before.faces + 1 and after.meta.rescans == before.meta.rescans


def free_place(missed: Missed) -> tuple[float, ...]:
    """A box of the group photo where nobody is."""
    file = missed.whole.file_sha256.tolist().index(missed.sha)
    width, height = missed.whole.file_wh[file].tolist()
    boxes = missed.whole.bbox[missed.whole.face_file == file].astype(float)
    for x in range(0, int(width) - 60, 20):
        for y in range(0, int(height) - 80, 20):
            box = np.array([x, y, x + 60, y + 80], float)
            if not (sf.box_overlap(box, boxes) > 0).any():
                return tuple(box.tolist())
    raise AssertionError("no room")


def test_where_the_detector_sees_nobody_the_face_is_weak(missed):
    [told] = missed.draw(replace(missed.asked, corners=free_place(missed)))
    cache = sf.load_cache(missed.path)
    row = cache.row_of_face[told.face]
    assert told.weak and told.new and cache.det_score[row] == 0
    box = cache.bbox[row]
    assert ((cache.kps[row] > box[:2]) & (cache.kps[row] < box[2:])).all()


def test_a_photo_without_a_face_has_one_now(missed):
    file = missed.whole.file_path.tolist().index(str(missed.photos / "2020/no face.png"))
    sha = str(missed.whole.file_sha256[file])
    [told] = missed.draw(drawn.Box(sha[:16], (20.0, 20.0, 120.0, 140.0)))
    cache = sf.load_cache(missed.path)
    assert told.face == f"{sha[:16]}:0" and cache.file_status[file] == sf.STATUS_FACES


@pytest.mark.parametrize(("photo", "corners", "why"), [
    ("0" * 16, (0, 0, 50, 50), "no such photo"),
    ("", (10, 10, 14, 60), "smaller than 8 pixels"),
    ("", (9e6, 10, 9e6 + 50, 60), "smaller than 8 pixels"),
    ("", (60, 60, 10, 10), "smaller than 8 pixels"),
    ("", (float("nan"), 0, 50, 50), "no box"),
])  # fmt: skip
def test_what_is_no_box_is_told(missed, photo, corners, why):
    asked = drawn.Box(photo or missed.sha[:16], corners)
    wrong, right = missed.draw(asked, missed.asked)
    assert wrong == drawn.Drawn(error=why) and right.new
    assert {*sf.load_cache(missed.path).face_ids} == {*missed.others, right.face}


def test_a_photo_that_is_gone_is_told(missed, made, tmp_path):
    cache = sf.load_cache(missed.path)
    moved = np.char.replace(cache.file_path, str(made), str(tmp_path / "nowhere"))
    sf.save_cache(missed.path, replace(cache, file_path=moved))
    [told] = missed.draw()
    assert not told.face and told.error
    assert not any(True for _ in sf.json_lines(sf.journal_path(missed.path)))


def test_another_model_and_a_busy_cache_are_refused(missed):
    cache = sf.load_cache(missed.path)
    meta = sf.msgspec.structs.replace(cache.meta, recognizer="another")
    sf.save_cache(missed.path, replace(cache, meta=meta))
    with pytest.raises(sf.SortFacesError, match="another dlib recogniser"):
        missed.draw()
    with sf.locked_cache(missed.path), pytest.raises(sf.SortFacesError, match="is being written"):
        missed.draw()


def test_a_forgotten_face_is_not_drawn_again(missed, run):
    gone = missed.whole.face_ids[missed.row]
    stone = sf.Tombstone(salt="s")
    box = tuple(missed.whole.bbox[missed.row].tolist())
    stone = sf.msgspec.structs.replace(stone, boxes={stone.mark(missed.sha): [box]})
    sf.write_file(sf.tombstone_path(missed.path), stone)
    assert missed.draw() == [drawn.Drawn(error="was forgotten")]
    assert gone not in sf.load_cache(missed.path).row_of_face


def test_of_an_enriched_cache_a_drawn_face_has_landmarks_too(missed, run):
    ok(run, "enrich", missed.path, "--model", "dlib")
    [told] = missed.draw()
    cache = sf.load_cache(missed.path)
    row = cache.row_of_face[told.face]
    assert cache.enriched.all() and np.isfinite(cache.landmark_3d_68[row]).all()


def test_a_worker_sees_the_same(missed, monkeypatch):
    [here] = missed.draw()
    told = columns(sf.load_cache(missed.path), [here.face])
    sf.journal_path(missed.path).unlink()
    monkeypatch.undo()  # the engine of its own
    crew = sf.Crew(sf.EngineSpec(model=""), sf.WorkOptions(threads=1, worker=sys.executable))
    assert drawn.add_drawn(missed.path, crew, [missed.asked]) == [here]
    assert columns(sf.load_cache(missed.path), [here.face]) == told


def test_only_what_is_asked_for_is_loaded(missed, run, monkeypatch):
    """embed over a library in which nothing is drawn, or nothing is lost, asks no model."""
    missed.draw()
    missed.decide(missed.asked.corners)
    missed.embed(run)
    monkeypatch.setattr(sf, "load_engine", lambda *_: pytest.fail("a model was loaded"))
    missed.embed(run)


# --- real photos ------------------------------------------------------------


@pytest.fixture(scope="module")
def engine_of_mini() -> Callable[[Path], sf.Engine]:
    loaded = {}
    return lambda mini: loaded.setdefault(mini, sf.load_engine(sf.EngineSpec(model=str(mini)), 1))


def test_faces_a_strict_detector_missed_are_found_in_their_boxes(run, mini, shared, tmp_path):
    photos = tmp_path / "photos"
    for folder in ("p003", "p005"):
        for path in sorted((shared / "data" / "people" / folder).iterdir())[:6]:
            sf.write_part(photos / folder / path.name, path.read_bytes())
    model = ("--model", mini, "--det-size", 320)
    ok(run, "embed", photos, tmp_path / "whole.npz", *model)
    ok(run, "embed", photos, tmp_path / "strict.npz", *model, "--det-threshold", 0.82)
    whole, strict = (sf.load_cache(tmp_path / f"{name}.npz") for name in ("whole", "strict"))
    main = [max(np.flatnonzero(whole.face_file == file), key=lambda row: whole.face_short[row])
            for file in range(whole.files)]  # fmt: skip
    lost = [row for row in main if whole.face_ids[row] not in strict.row_of_face]
    boxes = [drawn.Box(whole.face_ids[row][:16], tuple(whole.bbox[row].tolist())) for row in lost]
    crew = sf.Crew(sf.EngineSpec(model=""), sf.WorkOptions(threads=1))
    told = drawn.add_drawn(tmp_path / "strict.npz", crew, boxes)
    cache = sf.load_cache(tmp_path / "strict.npz")
    assert len(lost) >= 3 and all(one.new and not one.weak for one in told)
    for row, one in zip(lost, told, strict=True):
        unit = cache.unit[cache.row_of_face[one.face]]
        folder = Path(whole.file_path[whole.face_file[row]]).parent
        same = [other for other in main if other != row
                and Path(whole.file_path[whole.face_file[other]]).parent == folder]  # fmt: skip
        others = [other for other in main if other not in same and other != row]
        assert (whole.unit[same] @ unit).mean() > 0.45 > 0.3 > (whole.unit[others] @ unit).mean()


def test_the_mean_face_lies_where_faces_are(mini, shared, engine_of_mini):
    """By its box alone a weak face is aligned as well as its head is not turned."""
    engine, cosines = engine_of_mini(mini), []
    for folder in sorted((shared / "data" / "people").iterdir())[:12]:
        image = cv2.imread(str(sorted(folder.iterdir())[0]))
        found = engine.detect(image, 320).take([0])
        size = found.bbox[:, None, 2:] - found.bbox[:, None, :2]
        points = found.bbox[:, None, :2] + np.array(drawn.MEAN_FACE) * size
        laid = replace(found, kps=points.astype(np.float32))
        left, right = (sf.unit_rows(engine.embed(image, some)) for some in (found, laid))
        cosines.append(float((left * right).sum()))
    assert np.median(cosines) > 0.65


def test_a_held_cache_says_by_whom(missed, run):
    with sf.locked_cache(missed.path):
        refused(run, "embed", missed.photos, missed.path, word="is being written by process")
