"""`decisions from-faces`: crops sorted and thinned out by hand become decisions."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import sf
from exports import Photos
from material import ok

decisions = sf.companion("decisions")
from_faces = sf.companion("from_faces")
set_apart = sf.companion("set_apart")


@pytest.fixture
def photos(tmp_path, monkeypatch, run, quick_disk) -> Photos:
    """Two exported sets of eight faces each."""
    made = Photos(tmp_path, monkeypatch)
    made.export(run, made.rows(0, 0, 8), made.rows(1, 0, 8))
    return made


def crops(photos: Photos, folder: Path) -> dict[str, Path]:
    """{face: its crop} in a copy of both sets under names that say nothing."""
    found = {}
    for at, faceset in enumerate(sorted(photos.root.glob("faceset_*"))):
        manifest = sf.read_file(faceset / "manifest.json", sf.FacesetManifest)
        (folder / f"set{at}").mkdir(parents=True)
        for number, face in enumerate(manifest.faces):
            target = folder / f"set{at}" / f"img{7 * number % 11}.png"
            shutil.copy(faceset / face.file, target)
            found[face.face] = target
    return found


def read_back(run, photos: Photos, folder: Path, *options: object, **expected: object) -> dict:
    cache = photos.folder / "lib.npz"
    return ok(run, "decisions", "from-faces", cache, photos.root, folder, *options, **expected)


def word_of(photos: Photos) -> sf.Word:
    return sf.operators_word(photos.folder / "lib.npz", photos.cache)


def faces(photos: Photos, rows: np.ndarray) -> set[str]:
    return {photos.cache.face_ids[row] for row in np.flatnonzero(rows)}


def test_corpus_and_crops_swapped_are_told(run, photos, tmp_path):
    crops(photos, tmp_path / "hand")
    cache = photos.folder / "lib.npz"
    code, _, err = run("decisions", "from-faces", cache, tmp_path / "hand", photos.root)
    assert code == 2 and f"{tmp_path / 'hand'}: holds no manifest.json" in err


def test_an_untouched_copy_says_nothing(run, photos, tmp_path):
    crops(photos, tmp_path / "hand")
    result = read_back(run, photos, tmp_path / "hand")
    assert result["known_by_bytes"] == result["pictures"] > 10
    assert (result["drop"], result["belongs"], result["keep"], result["undo"]) == (0, 0, 0, "")
    assert not decisions.Book(photos.folder / "lib.npz").lines


def test_what_was_deleted_is_dropped_and_stays_out(run, photos, tmp_path):
    files = crops(photos, tmp_path / "hand")
    gone = list(files)[2:4]
    for face in gone:
        files[face].unlink()
    assert read_back(run, photos, tmp_path / "hand", "--dry-run")["drop"] == 2
    assert not decisions.Book(photos.folder / "lib.npz").lines
    assert read_back(run, photos, tmp_path / "hand")["drop"] == 2
    assert faces(photos, word_of(photos).keep < 0) == set(gone)
    again = read_back(run, photos, tmp_path / "hand")
    assert again["drop"] == 0 and again["undo"] == ""
    photos.export(run, photos.rows(0, 0, 8), photos.rows(1, 0, 8))
    manifest = sf.read_file(photos.root / "faceset_001/manifest.json", sf.FacesetManifest)
    assert not {face.face for face in manifest.faces} & set(gone)
    ok(run, "decisions", "undo", photos.folder / "lib.npz")
    assert not (word_of(photos).keep < 0).any()


def test_what_was_dropped_and_lies_there_again_is_kept(run, photos, tmp_path):
    files = crops(photos, tmp_path / "hand")
    face, file = list(files.items())[1]
    data = file.read_bytes()
    file.unlink()
    read_back(run, photos, tmp_path / "hand")
    photos.export(run, photos.rows(0, 0, 8), photos.rows(1, 0, 8))
    cache = photos.cache
    ref = decisions.refs(cache, [cache.row_of_face[face]])[0]
    file.write_bytes(set_apart.with_text(data, set_apart.KEYWORD, ref))
    result = read_back(run, photos, tmp_path / "hand")
    assert (result["keep"], result["drop"], result["known_by_text"]) == (1, 0, 1)
    assert faces(photos, word_of(photos).keep > 0) == {face}


def test_a_crop_in_the_folder_of_another_set_belongs_there(run, photos, tmp_path):
    files = crops(photos, tmp_path / "hand")
    face = next(iter(files))
    files[face].rename(tmp_path / "hand/set1/moved.png")
    result = read_back(run, photos, tmp_path / "hand")
    assert (result["belongs"], result["drop"]) == (1, 0)
    photos.export(run, photos.rows(0, 0, 8), photos.rows(1, 0, 8))
    manifest = sf.read_file(photos.root / "faceset_002/manifest.json", sf.FacesetManifest)
    assert face in {entry.face for entry in manifest.faces}
    assert read_back(run, photos, tmp_path / "hand")["belongs"] == 0


@pytest.mark.parametrize("spread", [("set0", "set1"), ("set1",), ()])
def test_groups_by_pose_and_one_folder_for_all_move_nobody(run, photos, tmp_path, spread):
    for number, file in enumerate(crops(photos, tmp_path / "hand").values()):
        kind = number % 3 if file.parent.name in spread else 0
        place = tmp_path / "hand" / f"{kind}_yaw"
        place.mkdir(exist_ok=True)
        file.rename(place / f"{number}.png")
    result = read_back(run, photos, tmp_path / "hand")
    assert (result["belongs"], result["drop"]) == (0, 0)


def test_a_few_strays_do_not_drop_all_the_rest(run, photos, tmp_path):
    files = crops(photos, tmp_path / "hand")
    _, *others = [face for face in files if files[face].parent.name == "set0"]
    for face in others:
        files[face].unlink()
    result = read_back(run, photos, tmp_path / "hand")
    assert result["drop"] == 0 and len(result["not_taken_as_thinned"]) == 1
    assert result["not_taken_as_thinned"][0].startswith("faceset_001: 1 of")
    assert read_back(run, photos, tmp_path / "hand", "--all")["drop"] == len(others)


def test_a_second_copy_elsewhere_moves_nobody(run, photos, tmp_path):
    files = crops(photos, tmp_path / "hand")
    shutil.copy(next(iter(files.values())), tmp_path / "hand/set1/again.png")
    result = read_back(run, photos, tmp_path / "hand")
    assert (result["belongs"], result["drop"]) == (0, 0)


def test_pictures_too_poor_to_be_told_apart_drop_nothing(run, photos, tmp_path, monkeypatch):
    files = crops(photos, tmp_path / "hand")
    first, second, *_ = files.values()
    first.unlink()
    cv2.imwrite(str(second), np.full((64, 64, 3), 90, np.uint8))
    cache, row = photos.cache, 2
    near = sf.unit_rows(cache.unit[row] + 0.02 * np.random.default_rng(1).normal(size=(1, 64)))
    poor = sf.replace(cache, embedding=np.repeat(near, cache.faces, axis=0).astype(np.float32))
    shown = {sf.sha256_of_file(second): [0]}
    monkeypatch.setattr(from_faces.looking, "looked_at", lambda *_: poor)
    monkeypatch.setattr(from_faces.looking, "rows_by_sha", lambda _: shown)
    copy = from_faces.sf.thresholds_for(cache.meta.model)
    monkeypatch.setattr(from_faces.sf, "thresholds_for", lambda _: sf.replace(copy, copy=1e-6))
    result = read_back(run, photos, tmp_path / "hand", code=1)
    assert (result["drop"], result["unknown"]) == (0, 1)
    said = "faceset_001: 1 unknown pictures look like its faces"
    assert result["not_sure_what_is_missing"] == [said]
    assert read_back(run, photos, tmp_path / "hand", "--all", code=1)["drop"] == 2


def test_an_unknown_picture_is_told_and_costs_nothing(run, photos, tmp_path, monkeypatch):
    crops(photos, tmp_path / "hand")
    cv2.imwrite(str(tmp_path / "hand/set0/other.png"), np.full((64, 64, 3), 90, np.uint8))
    monkeypatch.setattr(
        from_faces.looking, "looked_at", lambda *_: sf.empty_cache(photos.cache.meta)
    )
    result = read_back(run, photos, tmp_path / "hand", code=1)
    assert result["unknown"] == 1 and result["pictures_unknown"][0].endswith("other.png")
    assert result["drop"] == 0


def test_a_faceswap_png_is_known_by_photo_and_box(photos):
    cache, row = photos.cache, 3
    x, y, right, below = cache.bbox[row].astype(int).tolist()
    told = {
        "alignments": {"x": x, "y": y, "w": right - x, "h": below - y, "landmarks_xy": []},
        "source": {"source_filename": str(cache.file_path[row]), "face_index": 0},
    }
    file = photos.folder / "fs.png"
    data = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
    file.write_bytes(set_apart.with_text(data, "faceswap", repr(told)))
    assert from_faces.by_text([file], cache) == {file: row}
    file.write_bytes(set_apart.with_text(data, "faceswap", "__import__('os').getcwd()"))
    assert from_faces.by_text([file], cache) == {}
    file.write_bytes(data[:-20])
    assert from_faces.by_text([file], cache) == {}
    told["alignments"]["x"] = 10**400
    file.write_bytes(set_apart.with_text(data, "faceswap", repr(told)))
    assert from_faces.by_text([file], cache) == {}
    ends_early = b"\0\0\0\x09iTXtfaceswap\0\0\0\0\0"
    file.write_bytes(set_apart.SIGNATURE + ends_early)
    assert from_faces.by_text([file], cache) == {}


def test_our_own_faceswap_export_is_known_by_its_chunk(photos):
    aligned, cache, row = sf.companion("consumers_aligned"), photos.cache, 5
    box, points = cache.bbox[row], np.array([sf.ARCFACE_X, sf.ARCFACE_Y]).T
    face = aligned.AlignedFace(
        face=cache.face_ids[row],
        photo=sf.safe_dst_name(str(cache.file_path[row])),
        index=0,
        points=np.vstack([points + box[:2]] * 13 + [points[:3] + box[:2]]),
        bbox=box,
        wh=(1000, 800),
        matrix=np.eye(2, 3),
    )
    file = photos.folder / "sorted_00012.png"
    data = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
    text = str(aligned.faceswap_facts(face))
    file.write_bytes(set_apart.with_text(data, "faceswap", text))
    assert from_faces.by_text([file], cache) == {file: row}


@pytest.mark.parametrize("edge", [112, 80, 64, 48])
def test_small_copies_are_known_by_their_picture_and_no_model_is_asked(
    run, photos, tmp_path, monkeypatch, edge
):
    files = crops(photos, tmp_path / "hand")
    gone, *rest = files
    files[gone].unlink()
    for face in rest:
        image = cv2.resize(cv2.imread(str(files[face])), (edge, edge), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(files[face].with_suffix(".jpg")), image)
        files[face].unlink()
    monkeypatch.setattr(from_faces.looking, "looked_at", None)
    result = read_back(run, photos, tmp_path / "hand")
    assert (result["known_by_picture"], result["unknown"]) == (len(rest), 0)
    assert (result["drop"], result["belongs"]) == (1, 0)
    assert faces(photos, word_of(photos).keep < 0) == {gone}


def test_pictures_that_two_crops_could_be_and_flat_ones_are_not_known_by_them(photos, monkeypatch):
    corpus = sf.Corpus(photos.root, sf.read_file(photos.root / "manifest.json", sf.SwapManifest))
    face = corpus.sets["faceset_001"].manifest.faces[0]
    image = cv2.imread(str(photos.root / "faceset_001" / face.file))
    row = photos.cache.row_of_face[face.face]
    twin, other = photos.folder / "twin.png", photos.folder / "other.png"
    cv2.imwrite(str(other), image)
    cv2.imwrite(str(twin), cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA))
    assert from_faces.by_picture([twin], corpus, photos.cache) == {twin: row}
    both = [*from_faces.exported_crops(corpus, photos.cache), (other, photos.cache.faces)]
    monkeypatch.setattr(from_faces, "exported_crops", lambda *_: both)
    assert from_faces.by_picture([twin], corpus, photos.cache) == {}
    cv2.imwrite(str(twin), np.full((64, 64, 3), 90, np.uint8))
    twin.with_suffix(".jpg").write_bytes(b"no picture")
    assert from_faces.by_picture([twin, twin.with_suffix(".jpg")], corpus, photos.cache) == {}


def test_real_crops_are_known_by_look_or_in_any_size_by_their_picture(run, tmp_path, shared, mini):
    engine = ("--model", mini, "--det-size", 320)
    for person in ("p001", "p002"):
        shutil.copytree(shared / "data/people" / person, tmp_path / "photos" / person)
    gates = ("--min-short", 60, "--min-blur", 10, "--min-faces", 5)
    ok(run, "run", tmp_path / "photos", tmp_path / "out", *engine, *gates, "--linkage", "average")
    ready, cache = tmp_path / "out/facesets_swap_ready", tmp_path / "out/faces.npz"
    for name, edge, margin in (("look", 320, 60), ("picture", 80, 0), ("picture", 48, 0)):
        hand, there = tmp_path / f"hand{edge}", 0
        for faceset in sorted(ready.glob("faceset_*")):
            (hand / faceset.name).mkdir(parents=True)
            files = sorted((faceset / "faces").glob("*.png"))
            there += len(files) - 1
            for number, file in enumerate(files[1:]):
                image = cv2.imread(str(file))[margin : 512 - margin, margin : 512 - margin]
                small = cv2.resize(image, (edge, edge), interpolation=cv2.INTER_AREA)
                cv2.imwrite(str(hand / faceset.name / f"x{number}.jpg"), small)
        result = ok(run, "decisions", "from-faces", cache, ready, hand, "--dry-run")
        assert result[f"known_by_{name}"] == there and result["unknown"] == 0
        assert (result["drop"], result["belongs"]) == (2, 0)
