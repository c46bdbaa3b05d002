"""The engines on real faces: what they find, that embeddings tell people apart, how they fail."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import demo_library
from onnx import TensorProto, helper, numpy_helper

import sort_faces as sf

CPU_ONLY = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="a GPU is here"
)
CLOSED_PORT = "http://127.0.0.1:9"  # every download through this proxy fails at once


@pytest.fixture(scope="module")
def group() -> np.ndarray:
    """The photo of six people, (h, w, 3) BGR."""
    return sf.decode_photo(demo_library.demo_photo()).image


@functools.cache
def engine_of(model: str) -> sf.Engine:
    """Each engine is loaded once for all tests."""
    return sf.load_engine(sf.EngineSpec(model=model))


@functools.cache
def faces_of_group(model: str) -> sf.Detections:
    return engine_of(model).detect(sf.decode_photo(demo_library.demo_photo()).image)


@pytest.fixture(params=["dlib", "mini"])
def model(request) -> str:
    """Each --model in turn; the pack where ../shared is."""
    return "dlib" if request.param == "dlib" else str(request.getfixturevalue("mini"))


@pytest.fixture
def engine(model) -> sf.Engine:
    return engine_of(model)


@pytest.fixture
def found(model) -> sf.Detections:
    """What the engine found in the group photo."""
    return faces_of_group(model)


@pytest.fixture
def mini_engine(mini) -> sf.Engine:
    return engine_of(str(mini))


@pytest.fixture
def photo(tmp_path, group_photo) -> Path:
    """A folder with the group photo in it."""
    path = tmp_path / "photos/group.jpg"
    path.parent.mkdir()
    path.write_bytes(group_photo)
    return path.parent


def refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2 and exactly one line of ours that holds these words."""
    code, out, err = result
    assert (code, out) == (2, ""), err
    lines = [line for line in err.splitlines() if line.startswith("sort_faces ")]
    assert len(lines) == 1 and err.endswith(lines[0] + "\n"), err
    assert "Traceback" not in err
    for word in words:
        assert word in lines[0], lines[0]


def overlap_share(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the smaller box that lies inside the other."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inner = np.prod(np.maximum(high - low, 0))
    return float(inner / min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2])))


def person_of(box: np.ndarray) -> str:
    """Whose face of the group photo a box shows, "" if nobody's."""
    for name, truth in demo_library.DEMO_FACES.items():
        if overlap_share(box, np.array(truth, np.float32)) > 0.5:
            return name
    return ""


# ---------------------------------------------------------------------------- detection


def test_the_people_of_the_group_photo_are_found(engine, found) -> None:
    people = [person_of(box) for box in found.bbox]
    assert len(set(people) - {""}) >= (5 if engine.model == "dlib" else 6)
    assert len(people) == len(set(people)), "a face came twice"
    assert (np.diff(found.score) <= 0).all() and found.score[-1] >= 0.5
    assert found.bbox.shape == (len(found), 4) and found.bbox.dtype == np.float32
    assert found.kps.shape == (len(found), 5, 2) and found.kps.dtype == np.float32


def test_key_points_lie_in_the_face_in_the_right_order(found) -> None:
    for box, (left_eye, right_eye, nose, left_mouth, right_mouth) in zip(
        found.bbox, found.kps, strict=True
    ):
        for x, y in (left_eye, right_eye, nose, left_mouth, right_mouth):
            assert box[0] < x < box[2] and box[1] < y < box[3]
        assert left_eye[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_a_higher_threshold_leaves_the_better_faces(model, found, group) -> None:
    between = float(found.score[2] + found.score[3]) / 2
    strict = sf.load_engine(sf.EngineSpec(model=model, det_threshold=between))
    assert np.allclose(strict.detect(group).score, found.score[:3], atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (2, 30), (1, 1500), (1500, 1), (3, 20_000), (700, 700)])
def test_a_picture_of_any_shape_without_a_face_gives_none(engine, shape) -> None:
    """Rulers and spacers of old web pages lie in photo libraries too."""
    blank = np.full((*shape, 3), 128, np.uint8)
    assert len(sf.find_faces(engine, blank, sf.Passes())) == 0
    assert len(sf.find_faces(engine, blank, sf.Passes(tiles=True, pad_retry=True))) == 0


def test_no_faces_give_empty_arrays_of_the_right_shape(engine, group) -> None:
    assert engine.embed(group, sf.no_detections()).shape == (0, engine.dim)
    for name, values in engine.landmarks(group, sf.no_detections()).items():
        assert values.shape == (0, *sf.LANDMARK_SHAPES[name])


# ---------------------------------------------------------------------------- embedding


def test_the_same_face_at_80_percent_is_closer_than_any_two_people(engine, found, group) -> None:
    smaller = cv2.resize(group, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    again = engine.detect(smaller)
    full, small = (
        dict(zip(map(person_of, boxes), sf.unit_rows(engine.embed(image, faces)), strict=True))
        for image, faces, boxes in (
            (group, found, found.bbox),
            (smaller, again, again.bbox / 0.8),
        )
    )
    both = (full.keys() & small.keys()) - {""}
    assert len(both) >= 5
    same = [1.0 - full[name] @ small[name] for name in both]
    pairs = itertools.permutations(both, 2)
    others = [1.0 - full[a] @ faces[b] for a, b in pairs for faces in (full, small)]
    assert max(same) < min(others)
    limit = sf.thresholds_for(engine.model).cluster
    assert max(same) < limit < min(others), "and the default threshold lies between them"


def test_a_batch_gives_what_single_faces_give(engine, found, group) -> None:
    batch = engine.embed(group, found)
    single = np.concatenate([engine.embed(group, found.take([row])) for row in range(len(found))])
    assert np.allclose(batch, single, rtol=1e-3, atol=1e-4)
    assert np.linalg.norm(batch, axis=1).std() > 0, "raw embeddings are not normalised"


def test_detection_and_embedding_equal_those_of_the_insightface_library(mini, mini_engine, group):
    from insightface.app import FaceAnalysis

    library = FaceAnalysis(name=str(mini), providers=["CPUExecutionProvider"])
    library.prepare(ctx_id=-1, det_size=(640, 640))
    faces = {person_of(face.bbox): face for face in library.get(group)}
    found = mini_engine.detect(group)
    embeddings = mini_engine.embed(group, found)
    assert len(faces) == len(found) == 6
    for row, box in enumerate(found.bbox):
        face = faces[person_of(box)]
        assert np.allclose(box, face.bbox, atol=0.5)
        assert np.allclose(found.kps[row], face.kps, atol=0.5)
        ours = embeddings[row] / np.linalg.norm(embeddings[row])
        assert float(ours @ face.normed_embedding) >= 0.9999


def test_embedding_equals_that_of_the_dlib_library(group) -> None:
    """Up to the mean, which DLIB_MEAN takes away."""
    import dlib

    found = faces_of_group("dlib").take([0, 1])
    weights = {name: str(path) for name, path in sf.companion("dlib_engine").dlib_weights().items()}
    predictor = dlib.shape_predictor(weights["predictor"])
    network = dlib.face_recognition_model_v1(weights["network"])
    rgb = np.ascontiguousarray(group[:, :, ::-1])
    for box, ours in zip(found.bbox, engine_of("dlib").embed(group, found), strict=True):
        shape = predictor(rgb, dlib.rectangle(*np.rint(box).astype(int).tolist()))
        theirs = np.array(network.compute_face_descriptor(rgb, shape))
        assert np.allclose(ours + sf.companion("dlib_engine").dlib_mean(), theirs, atol=2e-3)


def test_a_recogniser_with_a_fixed_batch_is_fed_in_steps(
    mini, tmp_path, group, mini_engine
) -> None:
    """Packs exported with batch 1 must not be fed six faces at once."""
    folder = copy_of(mini, tmp_path / "fixed")
    model = onnx.load(folder / "rec.onnx")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, folder / "rec.onnx")
    fixed = sf.load_engine(sf.EngineSpec(model=str(folder)))
    found = mini_engine.detect(group)
    assert fixed.recogniser.input_shape[0] == 1
    assert np.allclose(fixed.embed(group, found), mini_engine.embed(group, found), atol=1e-3)


def test_threads_give_what_one_thread_gives(engine, group) -> None:
    crops = [(y1 - 50, y2 + 50, max(0, x1 - 50), x2 + 50) for x1, y1, x2, y2 in
             [demo_library.DEMO_FACES[name] for name in ("anna", "cleo", "finn")]]  # fmt: skip
    images = [np.ascontiguousarray(group[a:b, c:d]) for a, b, c, d in crops]

    def work(image: np.ndarray) -> tuple[sf.Detections, np.ndarray]:
        faces = engine.detect(image)
        return faces, engine.embed(image, faces)

    alone = [work(image) for image in images]
    assert all(len(faces) for faces, _ in alone)
    together = sf.ordered_map(work, images * 2, threads=4)
    for (faces, embedding), (same, expected) in zip(together, alone * 2, strict=True):
        assert np.allclose(faces.bbox, same.bbox, atol=0.01)
        assert np.allclose(embedding, expected, rtol=1e-3, atol=1e-4)


def test_recognisers_are_told_apart(mini, tmp_path) -> None:
    same = sf.load_engine(sf.EngineSpec(model=str(copy_of(mini, tmp_path / "same"))))
    other = copy_of(mini, tmp_path / "other")
    with open(other / "rec.onnx", "ab") as stream:  # protobuf: one more unknown field
        stream.write(b"\xf8\x07\x00")
    changed = sf.load_engine(sf.EngineSpec(model=str(other)))
    assert same.recognizer == sf.sha256_of_file(mini / "rec.onnx")[:16]
    assert len({same.recognizer, changed.recognizer, engine_of("dlib").recognizer}) == 3


# ---------------------------------------------------------------------------- landmarks


def copy_of(pack: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for path in pack.glob("*.onnx"):
        shutil.copyfile(path, folder / path.name)
    return folder


def constant_model(path: Path, output: np.ndarray) -> None:
    """An .onnx with a landmark model's input that always answers `output` (k,)."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["data"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["fc1"]),
    ]
    graph = helper.make_graph(
        nodes,
        "landmarks",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 192, 192])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, len(output)])],
        [
            numpy_helper.from_array(np.zeros((3, len(output)), np.float32), "weight"),
            numpy_helper.from_array(output.astype(np.float32), "bias"),
        ],
    )
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def add_landmark_models(folder: Path, kinds: str) -> Path:
    """Put stand-ins for 2d106det.onnx and 1k3d68.onnx into a pack; they see a frontal face."""
    from insightface.data import get_object

    spread = np.linspace(-0.5, 0.5, 106)
    if "2" in kinds:
        constant_model(folder / "2d106det.onnx", np.stack([spread, -spread], axis=1).ravel())
    if "3" in kinds:
        head = get_object("meanshape_68.pkl").astype(np.float64)
        head = (head - head.mean(axis=0)) / np.ptp(head, axis=0).max()
        points = np.concatenate([np.zeros((1103 - 68, 3)), head])
        constant_model(folder / "1k3d68.onnx", points.ravel())
    return folder


@pytest.fixture
def pack(mini, tmp_path) -> Path:
    """A complete pack: detector, recogniser and both landmark models."""
    return add_landmark_models(copy_of(mini, tmp_path / "complete"), "23")


def test_landmarks_of_a_pack_have_their_shapes_and_a_finite_pose(pack, group) -> None:
    engine = sf.load_engine(sf.EngineSpec(model=str(pack), landmarks=True))
    assert engine.has_landmarks
    found = engine.detect(group)
    marks = engine.landmarks(group, found)
    assert {name: values.shape for name, values in marks.items()} == {
        name: (6, *shape) for name, shape in sf.LANDMARK_SHAPES.items()
    }
    assert all(np.isfinite(values).all() for values in marks.values())
    assert np.abs(marks["pose"]).max() < 10, "the stand-in always sees a frontal head"
    for row, box in enumerate(found.bbox):  # in photo pixels, around their own face
        middle = (box[:2] + box[2:]) / 2
        for name in ("landmark_2d_106", "landmark_3d_68"):
            away = np.abs(marks[name][row, :, :2] - middle).max()
            assert away < 1.5 * (box[2:] - box[:2]).max()


def test_a_pack_with_2d_landmarks_alone_still_gets_a_pose(mini, tmp_path, group) -> None:
    folder = add_landmark_models(copy_of(mini, tmp_path / "flat"), "2")
    engine = sf.load_engine(sf.EngineSpec(model=str(folder), landmarks=True))
    marks = engine.landmarks(group, engine.detect(group))
    assert np.isfinite(marks["landmark_2d_106"]).all() and np.isfinite(marks["pose"]).all()
    assert np.isnan(marks["landmark_3d_68"]).all()
    assert np.abs(marks["pose"]).max() < 90


@pytest.mark.parametrize("free", [False, True])
def test_landmarks_equal_those_of_the_insightface_library(mini, tmp_path, group, free) -> None:
    """Models that answer to what they see, with a batch of one and of any size."""
    from insightface.app.common import Face

    folder = add_landmark_models(copy_of(mini, tmp_path / "seeing"), "23")
    rng = np.random.default_rng(2)
    for name in ("2d106det.onnx", "1k3d68.onnx"):
        model = onnx.load(folder / name)
        weight = model.graph.initializer[0]
        values = rng.normal(0, 0.2, numpy_helper.to_array(weight).shape).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        if free:
            for value in (model.graph.input[0], model.graph.output[0]):
                value.type.tensor_type.shape.dim[0].dim_param = "n"
        onnx.save(model, folder / name)
    engine = sf.load_engine(sf.EngineSpec(model=str(folder), landmarks=True))
    found = engine.detect(group)
    marks = engine.landmarks(group, found)
    for row in range(len(found)):
        face = Face(bbox=found.bbox[row], kps=found.kps[row], det_score=found.score[row])
        for model in engine.pose_models:
            model.get(group, face)
        for name in sf.LANDMARK_SHAPES:
            assert np.allclose(marks[name][row], face[name], atol=0.05), name
    spread = marks["landmark_2d_106"] - found.bbox[:, None, :2]
    assert spread.std(axis=0).mean() > 1, "faces get landmarks of their own"


def test_landmark_models_are_loaded_only_on_demand(pack) -> None:
    assert not sf.load_engine(sf.EngineSpec(model=str(pack))).has_landmarks


def test_landmarks_of_dlib(group) -> None:
    found = faces_of_group("dlib")
    marks = engine_of("dlib").landmarks(group, found)
    assert marks["landmark_3d_68"].shape == (len(found), 68, 3)
    assert np.isnan(marks["landmark_2d_106"]).all()
    assert np.isfinite(marks["landmark_3d_68"]).all()
    nose = marks["landmark_3d_68"][:, 30, :2]
    assert ((nose > found.bbox[:, :2]) & (nose < found.bbox[:, 2:])).all()
    pose = dict(zip(map(person_of, found.bbox), marks["pose"], strict=True))
    assert abs(pose["cleo"][1]) < 15 and abs(pose["emil"][1]) > 40


def test_pose_of_a_mirrored_face_has_the_opposite_yaw_and_roll(group) -> None:
    engine = engine_of("dlib")
    x1, y1, x2, y2 = demo_library.DEMO_FACES["anna"]
    image = np.ascontiguousarray(group[y1 - 60 : y2 + 60, max(0, x1 - 59) : x2 + 60])
    mirrored = np.ascontiguousarray(image[:, ::-1])
    (plain,), (other,) = (
        engine.landmarks(x, engine.detect(x).take([0]))["pose"] for x in (image, mirrored)
    )
    assert np.allclose(plain, other * (1, -1, -1), atol=6)


@pytest.mark.parametrize("how", ["enrich", "embed --enrich"])
def test_enrich_stores_what_the_landmark_models_say(run, pack, photo, tmp_path, how) -> None:
    cache = tmp_path / "lib.npz"
    flags = ["--enrich"] if how == "embed --enrich" else []
    code, out, err = run("embed", photo, cache, "--model", pack, "--json", *flags)
    assert (code, json.loads(out)["faces"]) == (0, 6), err
    if how == "enrich":
        assert not sf.load_cache(cache).enriched.any()
        code, out, err = run("enrich", cache, "--model", pack, "--json")
        assert (code, json.loads(out)) == (0, {"lacking": 6, "enriched": 6, "photos_lost": 0}), err
    stored = sf.load_cache(cache)
    assert stored.enriched.all()
    engine = sf.load_engine(sf.EngineSpec(model=str(pack), landmarks=True))
    image = sf.read_photo(str(photo / "group.jpg")).image
    found = sf.Detections(stored.bbox, stored.det_score, stored.kps)
    for name, values in engine.landmarks(image, found).items():
        assert np.allclose(getattr(stored, name), values, atol=0.01), name
    code, out, _ = run("enrich", cache, "--model", pack, "--json")
    assert (code, json.loads(out)) == (0, {"lacking": 0, "enriched": 0, "photos_lost": 0})


def test_enrich_with_a_pack_without_landmark_models_is_an_error(run, mini, photo, tmp_path) -> None:
    cache = tmp_path / "lib.npz"
    assert run("embed", photo, cache, "--model", mini)[0] == 0
    refused(run("enrich", cache, "--model", mini), "landmark_2d_106")


# ---------------------------------------------------------------------------- further passes


class SquareEngine(sf.Engine):
    """Finds white squares that are at least MIN_SEEN px once the picture is shrunk to det_size."""

    MIN_SEEN = 8
    model, det_size = "squares", 100

    def detect(self, image: np.ndarray, det_size: int | None = None) -> sf.Detections:
        scale = min(1.0, self.det_size / max(image.shape[:2]))
        _, _, stats, _ = cv2.connectedComponentsWithStats((image[:, :, 0] > 128).astype(np.uint8))
        boxes = [(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:] if w * scale >= self.MIN_SEEN]
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        edges = boxes[:, 2] - boxes[:, 0]
        score = edges / (edges + 100)
        order = np.argsort(-score)
        kps = np.repeat(boxes[:, None, :2], 5, axis=1)
        return sf.Detections(boxes[order], score[order], kps[order])


def square_picture(*squares: tuple[int, int, int], width: int = 900, height: int = 500):
    image = np.zeros((height, width, 3), np.uint8)
    for x, y, edge in squares:
        image[y : y + edge, x : x + edge] = 255
    return image


def test_tiles_add_the_small_faces_and_none_twice() -> None:
    """Small squares everywhere, also across tile borders, beside one that only the whole shows."""
    squares = [(20, 20, 30), (190, 180, 30), (640, 120, 30), (860, 460, 30), (300, 150, 300)]
    image = square_picture(*squares)
    plain = sf.find_faces(SquareEngine(), image, sf.Passes())
    tiled = sf.find_faces(SquareEngine(), image, sf.Passes(tiles=True))
    assert [tuple(box) for box in plain.bbox] == [(300, 150, 600, 450)]
    found = sorted((x, y, x2 - x) for x, y, x2, _ in tiled.bbox.astype(int).tolist())
    assert found == sorted(squares)
    assert (tiled.kps[:, 0] == tiled.bbox[:, :2]).all()


@pytest.mark.parametrize("x", range(0, 860, 37))
def test_a_small_face_is_whole_in_some_tile_wherever_it_is(x) -> None:
    for y in (0, 170, 230, 460):
        image = square_picture((x, y, 40))
        found = sf.find_faces(SquareEngine(), image, sf.Passes(tiles=True))
        assert found.bbox.tolist() == [[x, y, x + 40, y + 40]]


def test_a_picture_within_one_tile_is_looked_at_once(monkeypatch) -> None:
    engine, calls = SquareEngine(), []
    monkeypatch.setattr(engine, "detect", lambda image: calls.append(1) or sf.no_detections())
    image = square_picture(width=200, height=200)
    assert sf.add_tiles(engine, image, sf.no_detections()) is sf.no_detections()
    assert calls == []


def test_the_padded_retry_runs_only_where_nothing_was_found(monkeypatch) -> None:
    engine, shapes = SquareEngine(), []
    real = engine.detect
    monkeypatch.setattr(engine, "detect", lambda image: shapes.append(image.shape) or real(image))
    sf.find_faces(engine, square_picture((0, 0, 50), width=90, height=60), sf.Passes(False, True))
    assert len(shapes) == 1
    found = sf.find_faces(engine, square_picture(width=90, height=60), sf.Passes(False, True))
    assert len(found) == 0 and len(shapes) == 3
    assert shapes[2][0] > shapes[1][0] and shapes[2][1] > shapes[1][1]


@pytest.mark.parametrize("name", ["group_27.jpg", "group_23.jpg"])
def test_tiles_find_more_faces_in_a_big_group_and_none_twice(shared, mini_engine, name) -> None:
    image = sf.read_photo(str(shared / "data/groups" / name)).image
    plain = sf.find_faces(mini_engine, image, sf.Passes())
    tiled = sf.find_faces(mini_engine, image, sf.Passes(tiles=True))
    assert len(tiled) > len(plain)
    for box in plain.bbox:  # none is lost either
        assert max(overlap_share(box, other) for other in tiled.bbox) > 0.5
    for a, b in itertools.combinations(tiled.bbox, 2):
        assert overlap_share(a, b) < 0.65
    unit = sf.unit_rows(mini_engine.embed(image, tiled))
    distance = 1.0 - unit @ unit.T
    np.fill_diagonal(distance, 2)
    assert distance.min() > 0.3, "the same face twice"


@pytest.mark.parametrize("name", demo_library.DEMO_FACES)
def test_a_face_that_fills_the_picture_shows_with_a_border(mini_engine, group, name) -> None:
    x1, y1, x2, y2 = demo_library.DEMO_FACES[name]
    image = cv2.resize(group[y1:y2, x1:x2], None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    assert len(mini_engine.detect(image)) == 0
    found = sf.find_faces(mini_engine, image, sf.Passes(pad_retry=True))
    assert len(found) == 1
    whole = np.array([0, 0, *image.shape[1::-1]], np.float32)
    assert overlap_share(found.bbox[0], whole) > 0.8
    assert (found.kps[0] > 0).all() and (found.kps[0] < whole[2:]).all()
    apart = sf.unit_rows(
        np.concatenate(
            [
                mini_engine.embed(image, found),
                mini_engine.embed(group, detected(mini_engine, group, name)),
            ]
        )
    )
    assert 1.0 - apart[0] @ apart[1] < 0.4, "still the same person"


def detected(engine: sf.Engine, group: np.ndarray, name: str) -> sf.Detections:
    found = engine.detect(group)
    return found.take([[person_of(box) for box in found.bbox].index(name)])


# ---------------------------------------------------------------------------- what can fail


@CPU_ONLY
@pytest.mark.parametrize("model", ["dlib", "mini"])
def test_a_provider_that_is_not_here_is_an_error(run, request, photo, tmp_path, model) -> None:
    pack = request.getfixturevalue("mini") if model == "mini" else model
    names = ("cuda", "rocm", "tensorrt")
    for flags in (["--require-gpu"], *(["--provider", name] for name in names)):
        result = run("embed", photo, tmp_path / "lib.npz", "--model", pack, *flags)
        words = [flags[0], "install"] if model == "mini" else ["runs on the CPU only"]
        refused(result, *words)
    assert not (tmp_path / "lib.npz").exists()


def test_a_provider_onnxruntime_does_not_bind_is_an_error() -> None:
    class Session:
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    check = sf.companion("onnx_models").check_bound_provider
    check("cpu", Session())
    with pytest.raises(sf.SortFacesError, match="bound CPUExecutionProvider instead"):
        check("cuda", Session())


def test_an_unknown_provider_is_an_error(run, photo, tmp_path) -> None:
    refused(run("embed", photo, tmp_path / "lib.npz", "--provider", "warp"), "--provider")


def test_a_pack_that_cannot_be_downloaded_says_where_to_put_it(
    run, photo, tmp_path, monkeypatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, CLOSED_PORT)
        monkeypatch.setenv(name.lower(), CLOSED_PORT)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    result = run(
        "embed", photo, tmp_path / "lib.npz", "--model", "no_such_pack", "--model-root", tmp_path
    )
    refused(result, str(tmp_path / "models/no_such_pack"), "--model dlib")
    assert not (tmp_path / "lib.npz").exists()


def test_a_model_root_one_folder_too_deep_says_where_the_pack_lies(run, photo, tmp_path) -> None:
    pack = tmp_path / "models/mypack"
    pack.mkdir(parents=True)
    wrong = ("--model", "mypack", "--model-root", tmp_path / "models")
    refused(run("embed", photo, tmp_path / "lib.npz", *wrong), f"say --model {pack}")


def onnx_pack(tmp_path: Path, **files: bytes) -> Path:
    folder = tmp_path / "pack"
    folder.mkdir()
    for name, data in files.items():
        (folder / f"{name}.onnx").write_bytes(data)
    return folder


def test_a_folder_without_models_is_an_error(run, photo, tmp_path) -> None:
    folder = onnx_pack(tmp_path)
    refused(run("embed", photo, tmp_path / "lib.npz", "--model", folder), "no .onnx", str(folder))


def test_a_folder_that_is_not_there_is_an_error(run, photo, tmp_path) -> None:
    missing = tmp_path / "nowhere/pack"
    refused(run("embed", photo, tmp_path / "lib.npz", "--model", missing), "no such folder")


@pytest.mark.parametrize("data", [b"", b"no model", bytes(1000), b"\x08\x07" * 500])
def test_damaged_model_files_are_an_error(run, photo, tmp_path, data) -> None:
    folder = onnx_pack(tmp_path, det=data, rec=data)
    refused(run("embed", photo, tmp_path / "lib.npz", "--model", folder), f"--model {folder}")


@pytest.mark.parametrize("name", ["det_2.5g.onnx", "rec.onnx"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_model_file_is_an_error(run, mini, photo, tmp_path, name, share) -> None:
    folder = copy_of(mini, tmp_path / "cut")
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * share)])
    refused(run("embed", photo, tmp_path / "lib.npz", "--model", folder), f"--model {folder}")


@pytest.mark.parametrize(("name", "word"), [("det_2.5g.onnx", "detection"), ("rec.onnx", "recog")])
def test_an_incomplete_pack_is_an_error(run, mini, photo, tmp_path, name, word) -> None:
    folder = copy_of(mini, tmp_path / "half")
    (folder / name).unlink()
    refused(run("embed", photo, tmp_path / "lib.npz", "--model", folder), word)


def test_a_pack_of_other_models_is_an_error(run, photo, tmp_path) -> None:
    folder = onnx_pack(tmp_path)
    constant_model(folder / "2d106det.onnx", np.zeros(212))
    refused(run("embed", photo, tmp_path / "lib.npz", "--model", folder), "detection")


def test_a_pack_is_found_below_the_model_root_even_nested(mini, tmp_path) -> None:
    """The antelopev2 archive unpacks to antelopev2/antelopev2."""
    copy_of(mini, tmp_path / "models/plain")
    copy_of(mini, tmp_path / "models/nested/nested")
    for name in ("plain", "nested"):
        engine = sf.load_engine(sf.EngineSpec(model=name, model_root=str(tmp_path)))
        assert engine.model == name


def test_dlib_without_its_weights_says_what_to_install(run, photo, tmp_path, monkeypatch) -> None:
    real = sf.importlib.util.find_spec
    monkeypatch.setattr(
        sf.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "face_recognition_models" else real(name, *rest),
    )
    result = run("embed", photo, tmp_path / "lib.npz", "--model", "dlib")
    refused(result, "face_recognition_models", "pip install")


def test_the_provider_is_said_once(run, photo, tmp_path) -> None:
    _, _, err = run("embed", photo, tmp_path / "lib.npz", "--model", "dlib", "--threads", "2")
    assert err.count("engine: dlib on cpu") == 1
