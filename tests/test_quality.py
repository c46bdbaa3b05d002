"""`enrich --quality-model`: scores of aligned faces, where they are kept, what they may weigh."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import demo_library, make_cache
from hypothesis import given, settings
from hypothesis import strategies as st
from quality_models import save_length_model, save_sharpness_model, sharpness

import sort_faces as sf

quality_model = sf.companion("quality_model")
PHOTOS = 4
ONE_LINE = "takes faces as (n, 3, 112, 112)"


def scorer_of(path: Path) -> quality_model.QualityModel:
    return quality_model.QualityModel(sf.EngineSpec(quality=str(path), provider="cpu"), 1)


def some_crops(count: int) -> list[np.ndarray]:
    """Aligned faces of 112 px: parts of the demo's photo, sharp and blurred."""
    group = sf.decode_photo(demo_library.demo_photo()).image
    rng = np.random.default_rng(3)
    crops = []
    for at in range(count):
        x, y = rng.integers(0, min(group.shape[:2]) - 112, 2)
        crop = np.ascontiguousarray(group[y : y + 112, x : x + 112])
        crops.append(cv2.GaussianBlur(crop, (0, 0), 0.3 + at % 5))
    return crops


# --- the model --------------------------------------------------------------

SHAPES = {
    "any batch": {},
    "one at a time": {"batch": 1},
    "four at a time": {"batch": 4},
    "three at a time": {"batch": 3},
    "(n,)": {"bare": True},
    "an embedding beside it": {"embedding": 512},
    "one at a time, an embedding beside it": {"batch": 1, "embedding": 128},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("count", [0, 1, 6, 70])
def test_scores_are_what_the_model_computes_of_rgb_faces(tmp_path, shape, count) -> None:
    scorer, crops = scorer_of(save_sharpness_model(tmp_path / "q.onnx", **shape)), some_crops(count)
    found = scorer.scores(crops)
    assert (found.shape, found.dtype) == ((count,), np.float32)
    np.testing.assert_allclose(found, sharpness(crops), atol=1e-4)
    if count > 1:
        assert np.ptp(found) > 1
        swapped = sharpness([crop[..., ::-1] for crop in crops])
        assert np.abs(found - swapped).max() > 0.01, "red and blue are told apart"


def no_model(path: Path, _: Path) -> None:
    path.write_bytes(b"no model at all")


def wrong_size(path: Path, _: Path) -> None:
    save_sharpness_model(path, side=192)


def wrong_channels(path: Path, _: Path) -> None:
    """Takes grey pictures."""
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("ReduceMean", ["faces"], ["quality"], axes=[1, 2, 3], keepdims=0)
    grey = helper.make_tensor_value_info("faces", TensorProto.FLOAT, ["n", 1, 112, 112])
    out = helper.make_tensor_value_info("quality", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([node], "grey", [grey], [out])
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def recogniser(path: Path, mini: Path) -> None:
    shutil.copyfile(mini / "rec.onnx", path)


def detector(path: Path, mini: Path) -> None:
    shutil.copyfile(mini / "det_2.5g.onnx", path)


WRONG = {
    "no such file": (lambda path, mini: None, "no such file"),
    "a folder": (lambda path, mini: path.mkdir(), "no such file"),
    "empty": (lambda path, mini: path.touch(), "no sound ONNX model"),
    "no onnx": (no_model, "no sound ONNX model"),
    "a landmark model's size": (wrong_size, "takes faces tensor(float) ['n', 3, 192, 192]"),
    "grey": (wrong_channels, "takes faces tensor(float) ['n', 1, 112, 112]"),
}
WRONG_OF_MINI = {
    "a recogniser": (recogniser, "gives [1, 128] for 1 face;"),
    "a detector": (detector, ""),
}


def refused_model(run, cache: Path, path: Path, word: str) -> None:
    """enrich exits with 2 and one line that names the file, the reason and what is wanted."""
    before = cache.read_bytes()
    code, out, err = run("enrich", cache, "--quality-model", path, "--model", "synthetic")
    lines = [line for line in err.splitlines() if line.startswith("sort_faces ")]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert all(part in lines[0] for part in (str(path), word, ONE_LINE)), err
    assert cache.read_bytes() == before


@pytest.fixture
def plain_cache(tmp_path) -> Path:
    """A synthetic cache with landmarks: `enrich` has nothing left but the scores."""
    cache = make_cache(people=2, photos=3)
    marks = {name: np.ones_like(getattr(cache, name)) for name in sf.LANDMARK_SHAPES}
    sf.save_cache(tmp_path / "plain.npz", replace(cache, **marks))
    return tmp_path / "plain.npz"


@pytest.mark.parametrize(("make", "word"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_in_one_line(run, plain_cache, tmp_path, make, word) -> None:
    make(tmp_path / "wrong.onnx", tmp_path)
    refused_model(run, plain_cache, tmp_path / "wrong.onnx", word)


@pytest.mark.parametrize(("make", "word"), WRONG_OF_MINI.values(), ids=WRONG_OF_MINI)
def test_another_kind_of_model_is_refused(run, mini, plain_cache, tmp_path, make, word) -> None:
    make(tmp_path / "wrong.onnx", mini)
    refused_model(run, plain_cache, tmp_path / "wrong.onnx", word)


# --- the command ------------------------------------------------------------


@pytest.fixture
def library(tmp_path) -> Path:
    """Photos of the demo's group, each blurrier than the last, six faces each."""
    group = sf.decode_photo(demo_library.demo_photo()).image
    folder = tmp_path / "photos"
    for at in range(PHOTOS):
        soft = cv2.GaussianBlur(group, (0, 0), 0.1 + 0.6 * at)
        sf.write_bytes(folder / f"{at}.jpg", demo_library.encode_jpeg(soft, 92))
    return folder


@pytest.fixture
def cache_path(run, library, tmp_path) -> Path:
    path = tmp_path / "lib.npz"
    assert run("embed", library, path, "--model", "dlib", "--enrich")[0] == 0
    return path


@pytest.fixture
def sharp(tmp_path) -> Path:
    return save_sharpness_model(tmp_path / "sharp.onnx")


def score(run, cache: Path, model: Path, *options: object) -> dict:
    code, out, err = run("enrich", cache, "--quality-model", model, "--json", *options)
    assert code == 0, err
    return json.loads(out)


def expected_scores(cache: sf.FaceCache) -> np.ndarray:
    """What the sharpness model must give, from the photos and insightface's alignment."""
    from insightface.utils.face_align import norm_crop

    found = []
    for row in range(cache.faces):
        image = sf.read_photo(cache.file_path[cache.face_file[row]]).image
        found += [sharpness([norm_crop(image, cache.kps[row], 112)])]
    return np.concatenate(found)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("options", [(), ("--threads", 2, "--batch", 3)], ids=["plain", "batches"])
def test_every_face_gets_its_score(run, cache_path, sharp, options) -> None:
    before = sf.load_cache(cache_path)
    told = score(run, cache_path, sharp, *options)
    assert told == {"lacking": 0, "enriched": 0, "photos_lost": 0, "unscored": before.faces,
                    "scored": before.faces, "photos_not_scored": 0}  # fmt: skip
    after = sf.load_cache(cache_path)
    np.testing.assert_allclose(after.learned_quality, expected_scores(after), atol=1e-3)
    assert after.meta.quality_model == sf.sha256_of_file(sharp)
    for name in sf.COLUMNS:
        if name != "learned_quality":
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name), name)
    by_photo = [after.learned_quality[after.face_file == at].mean() for at in range(PHOTOS)]
    names = [Path(path).name for path in after.file_path]
    assert [names[at] for at in np.argsort(by_photo)[::-1]] == sorted(names), "sharp ones first"
    assert score(run, cache_path, sharp)["unscored"] == 0
    code, out, _ = run("status", cache_path, "--json")
    status = json.loads(out)
    assert (code, status["scored"]) == (0, after.faces)
    assert status["quality_model"] == after.meta.quality_model


def test_a_photo_decoded_at_a_part_of_its_size_gives_nearly_the_same_faces(cache_path) -> None:
    """Key points are in pixels of the photo, huge JPEGs are read at a half to an eighth."""
    cache = sf.load_cache(cache_path)
    image = sf.read_photo(cache.file_path[0]).image
    faces = [{"kps": kps.tolist()} for kps in cache.kps[cache.face_file == 0]]
    whole = quality_model.aligned_faces(sf.Photo(image), faces)
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    reduced = quality_model.aligned_faces(sf.Photo(half, scale=2), faces)
    assert len(whole) == len(faces) >= 5
    for one, other in zip(whole, reduced, strict=True):
        assert one.shape == other.shape == (112, 112, 3)
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.97


def test_scores_do_not_need_landmark_models(run, mini, library, sharp, tmp_path) -> None:
    cache = tmp_path / "mini.npz"
    assert run("embed", library, cache, "--model", mini)[0] == 0
    told = score(run, cache, sharp, "--model", mini)
    assert (told["scored"], told["enriched"]) == (sf.load_cache(cache).faces, 0)


def test_a_recogniser_told_for_its_length_says_what_the_cache_has(
    run, mini, shared, tmp_path
) -> None:
    """Alignment, colours and range are the recogniser's: a learned model agrees with `embed`."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((shared / "data/people").glob("*/*.jp*g"))[::40]:
        shutil.copy(path, photos / f"{path.parent.name} {path.name}")
    shutil.copy(shared / "data/groups/group_23.jpg", photos)
    cache = tmp_path / "mini.npz"
    assert run("embed", photos, cache, "--model", mini)[0] == 0
    model = save_length_model(mini / "rec.onnx", tmp_path / "length.onnx")
    score(run, cache, model, "--model", mini, "--batch", 5)
    found = sf.load_cache(cache)
    assert found.faces > 25
    length = np.linalg.norm(found.embedding, axis=1)
    np.testing.assert_allclose(found.learned_quality, length, rtol=1e-4)
    assert np.ptp(length) > 5


def test_new_photos_alone_are_scored_later(run, library, cache_path, sharp) -> None:
    score(run, cache_path, sharp)
    old = sf.load_cache(cache_path)
    group = sf.decode_photo(demo_library.demo_photo()).image
    sf.write_bytes(library / "new.jpg", demo_library.encode_jpeg(group[:, ::-1].copy(), 92))
    assert run("embed", library, cache_path, "--model", "dlib", "--enrich")[0] == 0
    mixed = sf.load_cache(cache_path)
    new = mixed.faces - old.faces
    assert new >= 5 and np.isnan(mixed.learned_quality).sum() == new
    assert score(run, cache_path, sharp)["scored"] == new
    after = sf.load_cache(cache_path)
    known = [after.row_of_face[face] for face in old.face_ids]
    np.testing.assert_array_equal(after.learned_quality[known], old.learned_quality)


def test_a_second_model_scores_all_anew_and_says_so(run, cache_path, sharp, tmp_path) -> None:
    score(run, cache_path, sharp)
    old = sf.load_cache(cache_path)
    other = save_sharpness_model(tmp_path / "other.onnx", gain=2.0)
    code, out, err = run("enrich", cache_path, "--quality-model", other, "--json", "-q")
    assert (code, json.loads(out)["scored"]) == (0, old.faces)
    assert len(err.splitlines()) == 1 and "another quality model" in err
    assert f"its {old.faces} scores" in err
    after = sf.load_cache(cache_path)
    np.testing.assert_allclose(after.learned_quality, 2 * old.learned_quality, rtol=1e-4)
    assert after.meta.quality_model == sf.sha256_of_file(other) != old.meta.quality_model


def test_a_photo_that_is_gone_costs_its_scores_alone(run, library, cache_path, sharp) -> None:
    cache = sf.load_cache(cache_path)
    (library / "1.jpg").unlink()
    lost = [Path(path).name for path in cache.file_path].index("1.jpg")
    code, out, err = run("enrich", cache_path, "--quality-model", sharp, "--json")
    told = json.loads(out)
    assert (code, told["photos_not_scored"]) == (0, 1) and "1.jpg" in err
    after = sf.load_cache(cache_path)
    assert (np.isnan(after.learned_quality) == (after.face_file == lost)).all()
    shutil.rmtree(library)
    assert run("enrich", cache_path, "--quality-model", sharp)[0] == 1, "none could be scored"


@pytest.mark.parametrize("stop_after", range(1, PHOTOS))
def test_what_a_killed_run_scored_is_kept(
    run, cache_path, sharp, tmp_path, monkeypatch, stop_after
) -> None:
    """A kill between two photos of a second model: what the first gave is gone, not mixed."""
    whole = shutil.copy(cache_path, tmp_path / "whole.npz")
    other = save_sharpness_model(tmp_path / "other.onnx", gain=3.0)
    score(run, cache_path, sharp)
    score(run, whole, other)
    append, count = sf.Journal.append, []

    def failing(self, op, **facts):
        if len(count) == stop_after:
            raise sf.SortFacesError("no space left")
        count.append(op)
        append(self, op, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(sf.Journal, "append", failing)
        assert run("enrich", cache_path, "--quality-model", other)[0] == 2
    half, peace = sf.load_cache(cache_path), sf.load_cache(whole)
    done = np.isfinite(half.learned_quality)
    assert 0 < done.sum() < half.faces
    assert half.meta.quality_model == peace.meta.quality_model
    np.testing.assert_array_equal(half.learned_quality[done], peace.learned_quality[done])
    assert half.enriched.all(), "the landmarks stay"
    assert score(run, cache_path, other)["scored"] == (~done).sum()
    np.testing.assert_array_equal(sf.load_cache(cache_path).learned_quality, peace.learned_quality)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a POSIX script")
@pytest.mark.parametrize("native", [False, True])
def test_scores_through_the_worker(
    run, cache_path, sharp, tmp_path, monkeypatch, native: bool
) -> None:
    from test_worker import STAND_IN, write_worker

    monkeypatch.setenv("WSL_DISTRO_NAME", "Test")
    sf.companion("paths_there").distro_name.cache_clear()
    worker = sys.executable if native else write_worker(tmp_path, STAND_IN)
    there = Path(shutil.copy(cache_path, tmp_path / "there.npz"))
    here = score(run, cache_path, sharp)
    assert score(run, there, sharp, "--worker", worker) == here
    caches = sf.load_cache(cache_path), sf.load_cache(there)
    np.testing.assert_array_equal(*(cache.learned_quality for cache in caches))
    assert caches[0].meta.quality_model == caches[1].meta.quality_model
    assert not sf.queue_folder(there).exists()
    code, _, err = run("enrich", there, "--quality-model", there, "--worker", worker)
    assert code == 2 and "no sound ONNX model" in err and "Traceback" not in err


# --- cache and journal ------------------------------------------------------


def scored(sha: str, model: str, **values: float) -> sf.QualityLine:
    """scored("a", "m", f1=0.5): model m gave face 1 of photo a 0.5."""
    faces = [(int(key[1:]), value) for key, value in values.items()]
    return sf.QualityLine(sha256=sha, model=model, faces=faces)


def small_cache() -> sf.FaceCache:
    return make_cache(people=1, photos=3)


def sha_of(at: int) -> str:
    return f"{at:016x}" + "0" * 48


def test_scores_of_a_cache_come_back_and_are_left_out_without_any(tmp_path) -> None:
    path, cache = tmp_path / "lib.npz", small_cache()
    sf.save_cache(path, cache)
    with np.load(path) as archive:
        assert "learned_quality" not in archive.files
    assert np.isnan(sf.load_cache(path).learned_quality).all()
    column = np.float32([0.25, np.nan, 3])
    sf.save_cache(path, replace(cache, learned_quality=column))
    np.testing.assert_array_equal(sf.load_cache(path).learned_quality, column)


def test_enrich_lines_and_quality_lines_do_not_take_from_each_other() -> None:
    cache = small_cache()
    packed = {name: sf.float_bytes(np.full(shape, 7.0)) for name, shape in
              sf.LANDMARK_SHAPES.items()}  # fmt: skip
    marks = sf.EnrichLine(sha256=sha_of(0), faces=[sf.MarkedFace(index=0, **packed)])
    for lines in ([marks, scored(sha_of(0), "m", f0=2)], [scored(sha_of(0), "m", f0=2), marks]):
        found = sf.fold_records(cache, lines)
        assert found.enriched.tolist() == [True, False, False]
        np.testing.assert_array_equal(found.learned_quality, np.float32([2, np.nan, np.nan]))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 2), st.integers(0, 9)), max_size=8),
    st.sampled_from(["", "x", "y"]),
)
def test_scores_of_two_models_never_stand_side_by_side(told, before) -> None:
    """Every history of records, folded once and twice."""
    start = sf.with_scores(small_cache(), before, {sha_of(0): {0: 5.0}} if before else {})
    lines = [scored(sha_of(at), model, f0=ord(model) * 10 + value) for model, at, value in told]
    found = sf.fold_records(start, lines)
    last = told[-1][0] if told else before
    assert found.meta.quality_model == last
    scores = found.learned_quality[np.isfinite(found.learned_quality)]
    old = scores == 5.0
    assert (scores[~old] // 10 == (ord(last) if last else -1)).all()
    assert not old.any() or last == before
    again = sf.fold_records(found, lines)
    np.testing.assert_array_equal(again.learned_quality, found.learned_quality)
    assert again.meta == found.meta


def test_a_journal_of_scores_is_read_back_and_damage_costs_a_line(tmp_path, caplog) -> None:
    path, cache = tmp_path / "lib.npz", small_cache()
    sf.save_cache(path, cache)
    with contextlib.closing(sf.Journal(path, cache.meta)) as journal:
        for at in range(3):
            journal.append("quality", sha256=sha_of(at), model="m", faces=[(0, at / 2)])
    found = sf.load_cache(path)
    assert found.learned_quality.tolist() == [0.0, 0.5, 1.0]
    lines = sf.journal_path(path).read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"faces"', '"fades"')
    sf.journal_path(path).write_text("".join(lines))
    np.testing.assert_array_equal(sf.load_cache(path).learned_quality, np.float32([0, np.nan, 1]))


# --- export-swap ------------------------------------------------------------


@pytest.fixture
def refined(run, cache_path, tmp_path) -> Path:
    """Sets of the six people of the demo's photo."""
    out = tmp_path / "refined"
    gates = ("--min-faces", 2, "--min-blur", 0, "--min-short", 40, "--min-det-score", 0)
    assert run("refine", cache_path, out, *gates)[0] == 0
    return out / "refine_manifest.json"


def export(run, cache: Path, refined: Path, out: Path, *options: object) -> tuple[int, str, str]:
    sizes = ("--min-face-short", 40, "--outlier-threshold", 1)
    return run("export-swap", cache, refined, out, *sizes, "--model", "dlib", *options)


def faces_in(out: Path) -> list[dict]:
    paths = sorted(out.glob("faceset_*/manifest.json"))
    return [face for path in paths for face in json.loads(path.read_text())["faces"]]


def test_a_weight_puts_the_term_into_score_and_manifest(
    run, cache_path, refined, sharp, tmp_path
) -> None:
    assert export(run, cache_path, refined, tmp_path / "plain")[0] == 0
    score(run, cache_path, sharp)
    assert export(run, cache_path, refined, tmp_path / "same")[0] == 0
    plain, same = faces_in(tmp_path / "plain"), faces_in(tmp_path / "same")
    assert len(plain) > 5 and plain == same, "scores without a weight change nothing"
    assert list(plain[0]["terms"]) == list(sf.QUALITY_TERMS[:5])
    alone = [f"--weight-{name.replace('_', '-')}=0" for name in sf.QUALITY_TERMS[:5]]
    weights = [*alone, "--weight-learned-quality", 3, "--weight-embedding-length", 1]
    code, _, err = export(run, cache_path, refined, tmp_path / "learned", *weights)
    assert code == 0, err
    cache, faces = sf.load_cache(cache_path), faces_in(tmp_path / "learned")
    assert {face["face"] for face in faces} == {face["face"] for face in plain}
    learned, length = sf.rank_term(cache.learned_quality), sf.length_term(cache.embedding)
    for face in faces:
        row = cache.row_of_face[face["face"]]
        assert list(face["terms"]) == list(sf.QUALITY_TERMS)
        assert face["terms"]["learned_quality"] == pytest.approx(learned[row], abs=1e-4)
        assert face["terms"]["embedding_length"] == pytest.approx(length[row], abs=1e-4)
        mean = (3 * learned[row] + length[row]) / 4
        assert face["quality"] == pytest.approx(mean, abs=1e-4)
    manifest = json.loads((tmp_path / "learned/faceset_001/manifest.json").read_text())
    assert manifest["quality_terms"] == list(sf.QUALITY_TERMS)
    assert manifest["params"]["weights"]["learned_quality"] == 3


def test_a_weight_of_scores_nobody_brought_is_refused(run, cache_path, refined, tmp_path) -> None:
    code, out, err = export(
        run, cache_path, refined, tmp_path / "no", "--weight-learned-quality", 1
    )
    lines = err.splitlines()
    assert (code, out) == (2, "") and "enrich" in lines[-1] and "--quality-model" in lines[-1]
    assert "Traceback" not in err and not (tmp_path / "no").exists()


def test_faces_without_a_score_are_counted(run, library, cache_path, refined, sharp, tmp_path):
    (library / "3.jpg").rename(tmp_path / "3.jpg")
    score(run, cache_path, sharp)
    (tmp_path / "3.jpg").rename(library / "3.jpg")
    weight = ("--weight-learned-quality", 1)
    code, _, err = export(run, cache_path, refined, tmp_path / "some", *weight)
    unscored = int(np.isnan(sf.load_cache(cache_path).learned_quality).sum())
    assert code == 0 and f"{unscored} faces have no learned quality" in err


def test_run_scores_on_the_way(run, library, sharp, tmp_path) -> None:
    gates = ("--min-faces", 2, "--min-blur", 0, "--min-short", 40, "--min-det-score", 0,
             "--min-face-short", 40)  # fmt: skip
    out = tmp_path / "out"
    chain = ("run", library, out, "--model", "dlib", *gates, "--weight-learned-quality", 1)
    code, _, err = run(*chain)
    assert code == 2 and "--quality-model" in err and not (out / "faces.npz").exists()
    code, _, err = run(*chain, "--quality-model", library / "0.jpg")
    assert code == 2 and ONE_LINE in err and not (out / "faces.npz").exists()
    code, _, err = run(*chain, "--quality-model", sharp)
    assert code == 0, err
    assert np.isfinite(sf.load_cache(out / "faces.npz").learned_quality).all()
    assert "learned_quality" in faces_in(out / "facesets_swap_ready")[0]["terms"]
    assert run(*chain)[0] == 0, "the scores are there now"
