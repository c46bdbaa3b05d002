"""Calls of one shape that threads share, and that faces come out of them as they do alone."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from conftest import demo_library
from test_engines import copy_of

import sort_faces as sf

batches, onnx_models = sf.companion("batches"), sf.companion("onnx_models")


def doubled(rows: np.ndarray) -> np.ndarray:
    return rows * 2


def in_threads(function, things: list) -> list:
    """function of each thing, all called at the same time."""
    found: list = [None] * len(things)
    start = threading.Barrier(len(things))

    def work(at: int) -> None:
        start.wait()
        try:
            found[at] = function(things[at])
        except Exception as error:
            found[at] = error

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(things))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


# ---------------------------------------------------------------------------- sharing


def test_every_thread_gets_its_own_answers_in_its_own_order() -> None:
    calls = []

    def compute(things: list[int]) -> list[int]:
        calls.append(len(things))
        time.sleep(0.001)
        return [-thing for thing in things]

    shared = batches.Shared(compute, 5)
    asked = [list(range(at * 100, at * 100 + at)) for at in range(1, 14)]
    assert in_threads(shared, asked) == [[-thing for thing in things] for things in asked]
    assert max(calls) == 5 and sum(calls) == sum(range(1, 14))
    assert not shared.waiting and not shared.busy


def test_what_is_asked_during_a_call_shares_the_next() -> None:
    """The first computes alone; the nine that came meanwhile take two calls, not nine."""
    calls, going, gathered = [], threading.Event(), threading.Event()

    def compute(things: list[int]) -> list[int]:
        calls.append(len(things))
        going.set()
        gathered.wait(30)
        return things

    shared = batches.Shared(compute, 8)
    first = threading.Thread(target=shared, args=([0],))
    first.start()
    going.wait(30)
    others = [threading.Thread(target=shared, args=([at],)) for at in range(9)]
    for thread in others:
        thread.start()
    while len(shared.waiting) < 9:
        time.sleep(0.001)
    gathered.set()
    for thread in (first, *others):
        thread.join(30)
    assert calls == [1, 8, 1]


def test_an_error_reaches_those_who_asked_and_nobody_else() -> None:
    def compute(things: list[int]) -> list[int]:
        if 13 in things:
            raise RuntimeError("unlucky")
        return things

    shared = batches.Shared(compute, 2)
    asked = [[1], [2, 3], [12, 13, 14, 15], [4], [5, 6, 7]]
    found = in_threads(shared, asked)
    assert isinstance(found[2], RuntimeError)
    right = [things for things, answers in zip(asked, found, strict=True) if answers == things]
    shared_a_call = len(asked) - 1 - len(right)
    assert shared_a_call <= 1, "at most the one whose thing was in the same call of two"
    assert not shared.waiting and shared([8, 9, 10]) == [8, 9, 10], "and it goes on"


def test_what_a_failed_thread_still_waited_for_is_given_up() -> None:
    calls = []

    def compute(things: list[int]) -> list[int]:
        calls.append(things)
        raise RuntimeError("unlucky")

    shared = batches.Shared(compute, 2)
    with pytest.raises(RuntimeError, match="unlucky"):
        shared([1, 2, 3, 4, 5])
    assert calls == [[1, 2]] and not shared.waiting


# ---------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("count", "calls"), [(8, [8]), (32, [8] * 4), (33, [64]), (64, [64]), (72, [64, 8])]
)
def test_a_large_call_is_made_where_it_is_more_than_half_full(count, calls) -> None:
    sizes = []
    rows = batches.Rows(lambda some: sizes.append(len(some)) or some, (8, 64), True, False)
    rows(np.ones((count, 1)))
    assert sizes == calls


@pytest.mark.parametrize("count", [1, 7, 8, 9, 32, 33, 64, 65, 131])
@pytest.mark.parametrize("shared", [False, True])
def test_a_padded_model_sees_two_shapes_only(count, shared) -> None:
    sizes = []
    rows = batches.Rows(
        lambda some: sizes.append(len(some)) or doubled(some), (8, 64), True, shared
    )
    given = np.random.default_rng(count).random((count, 3, 2)).astype(np.float32)
    assert np.array_equal(rows(given), given * 2)
    assert set(sizes) <= {8, 64} and sizes == sorted(sizes, reverse=True)
    assert sum(sizes) - count < 32, "less than half of the last call is filler"


def test_a_model_of_any_shape_is_not_padded() -> None:
    sizes = []
    rows = batches.Rows(lambda some: sizes.append(len(some)) or doubled(some), (8,), False, False)
    assert np.array_equal(rows(np.ones((19, 2))), np.full((19, 2), 2.0))
    assert sizes == [8, 8, 3]


def test_a_size_that_is_too_much_for_the_card_is_given_up() -> None:
    sizes = []

    def compute(some: np.ndarray) -> np.ndarray:
        sizes.append(len(some))
        if len(some) > 8:
            raise RuntimeError("out of memory")
        return doubled(some)

    rows = batches.Rows(compute, (8, 64), True, True)
    assert np.array_equal(rows(np.ones((40, 2))), np.full((40, 2), 2.0))
    assert sizes == [64, 8, 8, 8, 8, 8]
    rows(np.ones((40, 2)))
    assert sizes[6:] == [8] * 5, "it does not try again"


def test_a_row_that_no_size_can_compute_is_an_error() -> None:
    def compute(some: np.ndarray) -> np.ndarray:
        raise RuntimeError("no driver")

    with pytest.raises(RuntimeError, match="no driver"):
        batches.Rows(compute, (8, 64), True, True)(np.ones((20, 2)))


# ---------------------------------------------------------------------------- faces


@pytest.fixture
def group() -> np.ndarray:
    return sf.decode_photo(demo_library.demo_photo()).image


def as_on_a_gpu(engine: sf.Engine) -> None:
    """Let an engine on the CPU take its shapes and share its calls as it would on a GPU."""
    for model in (engine.detector, engine.recogniser, *engine.pose_models):
        model.session.provider = "openvino"
    engine.provider = "openvino"
    for model in (engine.recogniser, *engine.pose_models):
        engine.rows[model.taskname] = model.session.rows(model.output_names[0])


def test_faces_are_the_same_with_and_without_shared_calls(mini, group) -> None:
    """Twelve threads look at photos of one to six faces; each is compared with itself alone."""
    alone, shared = (sf.load_engine(sf.EngineSpec(model=str(mini))) for _ in range(2))
    as_on_a_gpu(shared)
    boxes = list(demo_library.DEMO_FACES.values())
    photos = [group, group[:, ::-1].copy()]
    for x1, y1, x2, y2 in boxes:
        photos.append(group[max(0, y1 - 90) : y2 + 90, max(0, x1 - 90) : x2 + 90].copy())

    def look(engine: sf.Engine, image: np.ndarray) -> list[sf.FaceRecord]:
        return sf.face_records(engine, [(image, sf.find_faces(engine, image, sf.Passes()))], False)[
            0
        ]

    expected = [look(alone, image) for image in photos]
    assert len({len(faces) for faces in expected}) > 1, "photos with different numbers of faces"
    found = list(sf.ordered_map(lambda image: look(shared, image), photos * 3, 12))
    for faces, others in zip(found, expected * 3, strict=True):
        assert len(faces) == len(others)
        for one, other in zip(faces, others, strict=True):
            assert sf.box_iou(np.array(one.bbox), np.array([other.bbox]))[0] > 0.99
            a, b = (
                sf.unit_rows(np.frombuffer(face.embedding, "<f4")[None])[0] for face in (one, other)
            )
            assert float(a @ b) >= 0.9999
    seen = {shape[0][0] for shape in shared.recogniser.session.of_shape}
    assert seen <= {8, 64} and len(shared.detector.session.of_shape) == 1


def test_each_shape_has_a_session_of_its_own(mini) -> None:
    """Kernels are searched for whenever a session's shape changes, so none may change it."""
    model = onnx_models.Model(str(mini / "det_2.5g.onnx"), sf.EngineSpec(), 1)
    model.provider = "openvino"
    sessions = [model.session_for(((1, 3, edge, edge),)) for edge in (640, 320, 640, 320)]
    assert sessions[0] is sessions[2] is model.first
    assert sessions[1] is sessions[3] and sessions[1] is not sessions[0]
    for edge in range(32, 32 * 20, 32):
        model.session_for(((1, 3, edge, edge),))
    assert len({id(session) for session in model.of_shape.values()}) == onnx_models.MOST_SHAPES


@pytest.mark.parametrize("batch", [1, 3])
def test_a_recogniser_of_a_fixed_batch_gets_full_calls(mini, tmp_path, group, batch) -> None:
    folder = copy_of(mini, tmp_path / "fixed")
    model = onnx.load(folder / "rec.onnx")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    onnx.save(model, folder / "rec.onnx")
    fixed, free = (sf.load_engine(sf.EngineSpec(model=str(one))) for one in (folder, mini))
    found = free.detect(group)
    assert len(found) % 3 == 0
    some = found.take(range(len(found) - 1))  # the last call is not full
    assert np.allclose(fixed.embed(group, some), free.embed(group, some), atol=1e-3)


# ---------------------------------------------------------------------------- half precision


def test_half_precision_is_refused_on_a_cpu(run, mini, tmp_path, library) -> None:
    code, out, err = run("embed", library, tmp_path / "a.npz", "--model", mini, "--fp16")
    assert (code, out) == (2, "") and "--fp16: for GPUs" in err


@pytest.fixture
def library(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "group.jpg").write_bytes(demo_library.demo_photo())
    return folder


def test_half_precision_gives_the_same_embeddings(mini, group) -> None:
    exact, engine = (sf.load_engine(sf.EngineSpec(model=str(mini))) for _ in range(2))
    engine.provider = "openvino"
    before = engine.rows["recognition"]
    engine.use_half_precision(sf.EngineSpec(provider="cpu"), 1)
    assert engine.rows["recognition"] is not before
    found = exact.detect(group)
    a, b = (sf.unit_rows(one.embed(group, found)) for one in (exact, engine))
    assert 0.9999 <= (a * b).sum(axis=1).min() < 1.0


def test_half_precision_that_changes_the_embeddings_is_not_used(mini, monkeypatch, caplog) -> None:
    """A recogniser with a weight beyond what float16 can hold."""
    engine = sf.load_engine(sf.EngineSpec(model=str(mini)))
    engine.provider = "openvino"
    before = engine.rows["recognition"]

    def spoiled(path: str) -> bytes:
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.ndim == 4:
                rough = np.round(values * 8) / 8
                tensor.CopyFrom(
                    onnx.numpy_helper.from_array(rough.astype(values.dtype), tensor.name)
                )
        return model.SerializeToString()

    monkeypatch.setattr(onnx_models, "in_half_precision", spoiled)
    with caplog.at_level("WARNING", sf.log.name):
        engine.use_half_precision(sf.EngineSpec(provider="cpu"), 1)
    assert engine.rows["recognition"] is before and "float32 is used" in caplog.text


# ---------------------------------------------------------------------------- alignment


def test_faces_are_aligned_as_insightface_does(mini, group) -> None:
    from insightface.utils import face_align

    rng = np.random.default_rng(5)
    kps = np.concatenate([
        sf.load_engine(sf.EngineSpec(model=str(mini))).detect(group).kps,
        rng.uniform(0, 400, (40, 5, 2)).astype(np.float32),
    ])  # fmt: skip
    for side in (112, 224, 128):
        for points, place in zip(kps, sf.arcface_places(kps, side), strict=True):
            assert np.allclose(face_align.estimate_norm(points, side), place, atol=1e-4)
            crop = cv2.warpAffine(group, place, (side, side))
            theirs = face_align.norm_crop(group, points, side)
            assert np.abs(crop.astype(int) - theirs).max() <= 2


def test_key_points_in_one_place_do_no_harm() -> None:
    places = sf.arcface_places(np.full((1, 5, 2), 7.0, np.float32), 112)
    assert np.isfinite(places).all()


# ---------------------------------------------------------------------------- provider options


def test_options_reach_the_provider_after_the_folder_of_its_cache(tmp_path) -> None:
    told = (("device_type", "GPU"), ("cache_dir", "/elsewhere"))
    spec = sf.EngineSpec(model_root=str(tmp_path), provider_option=told)
    assert onnx_models.provider_options(spec, "cpu") == dict(told)
    assert onnx_models.provider_options(spec, "openvino") == dict(told)
    own = sf.EngineSpec(model_root=str(tmp_path))
    folder = tmp_path / "cache/openvino"
    assert onnx_models.provider_options(own, "openvino") == {"cache_dir": str(folder)}
    assert folder.is_dir()
    assert onnx_models.provider_options(own, "cuda") == {}
    tensorrt = onnx_models.provider_options(own, "tensorrt")
    assert (
        tensorrt["trt_engine_cache_enable"] == "1"
        and "tensorrt" in tensorrt["trt_engine_cache_path"]
    )


def test_without_a_folder_for_its_cache_a_provider_runs_all_the_same(tmp_path, caplog) -> None:
    (tmp_path / "cache").write_text("no folder")
    spec = sf.EngineSpec(model_root=str(tmp_path))
    with caplog.at_level("WARNING", sf.log.name):
        assert onnx_models.provider_options(spec, "openvino") == {}
    assert "is not kept" in caplog.text


def test_a_wrong_option_is_what_is_named_first() -> None:
    class Session:
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    with pytest.raises(sf.SortFacesError, match="try without --provider-option"):
        onnx_models.check_bound_provider("openvino", Session(), [("device_type", "GPU")])


@pytest.mark.parametrize("text", ["device_id", "=1", "device_id="])
def test_an_option_is_a_key_and_a_value(run, library, tmp_path, text) -> None:
    code, out, err = run("embed", library, tmp_path / "a.npz", "--provider-option", text)
    assert (code, out) == (2, "") and f"{text!r} is not KEY=VALUE" in err
