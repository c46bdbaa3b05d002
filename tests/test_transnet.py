"""`video --soft-cuts MODEL.onnx`: what the network is asked, and what counts of its answers.

The small network here says of each frame how bright it is; the real one is used where it is there:
../shared/models/transnetv2.onnx, or the file that $TRANSNETV2 names.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_soft_cuts import joined_by, panned, two_shots
from test_video import known_video
from video_material import RATE, empty_picture, write_video

import sort_faces as sf

transnet, film_pass = sf.companion("transnet"), sf.companion("film_pass")
film_reading = sf.companion("film_reading")
OPSET, IR = 13, 8  # what onnxruntime 1.17 runs


def save_brightness_model(
    path: Path, middle: float = 128.0, frames: int = 100, outputs: int = 2, gain: float = 0.2
) -> Path:
    """Write a network with TransNetV2's interface: sigmoid(gain * (mean level - middle))."""
    made = {
        "middle": np.float32(middle),
        "gain": np.float32(gain),
        "shape": np.int64([1, frames, 1]),
    }
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[2, 3, 4], keepdims=0),
        helper.make_node("Sub", ["mean", "middle"], ["apart"]),
        helper.make_node("Mul", ["apart", "gain"], ["steep"]),
        helper.make_node("Sigmoid" if gain < 1 else "Identity", ["steep"], ["flat"]),
        *(helper.make_node("Reshape", ["flat", "shape"], [f"out{n}"]) for n in range(outputs)),
    ]
    shape = [1, frames, *transnet.SHAPE[2:]]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(f"out{n}", TensorProto.FLOAT, [1, frames, 1])
            for n in range(outputs)
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in made.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=IR), path)
    return path


@pytest.fixture
def network(tmp_path) -> Path:
    return save_brightness_model(tmp_path / "bright.onnx")


def dissolving_film(path: Path, seconds: float = 12.0) -> Path:
    """Three dark shots that dissolve into each other, brighter on the way."""
    shots = [
        panned(empty_picture(seed) // 2, round(seconds * RATE / 3) + RATE, 0.3) for seed in range(3)
    ]
    film = joined_by("dissolve", joined_by("dissolve", *shots[:2], RATE), shots[2], RATE)
    return write_video(path, film, g="25")


def passed(path: Path, model: Path, log: Path | None = None, stop: int = 0):
    """(scenes, finder, frames known before) of a pass; None if stopped after `stop` samples."""
    facts = path.stat()
    video = film_reading.video_facts(str(path), facts.st_size, facts.st_mtime_ns)
    network = transnet.load(model, None)
    so_far = film_pass.PassLog(log, network.name) if log else None
    known = len(so_far.known.pts) if log else 0
    once = film_pass.VideoPass(video, 5.0, None, so_far, network)
    for number, _ in enumerate(once.samples(), 1):
        if number == stop:
            so_far.close()
            return None
    return once.result(), once.finder.soft, known


@pytest.mark.parametrize("count", [230, 49, 300])
def test_every_frame_of_a_marked_block_is_asked_about_once(network, count):
    """Bright frames are found at their own places, at both ends of the film, too."""
    bright = {*range(10), *range(45, 60), 120, *range(count - 5, count)}
    windows = transnet.Windows(transnet.load(network, None))
    for number in range(count):
        level = 250 if number in bright else 20
        windows.feed(1000 + 40 * number, np.full((72, 128, 3), level, np.uint8))
        windows.thumbnail()
        windows.marked |= {number // transnet.STEP}
    windows.finish()
    assert windows.asked == count
    found = {
        at
        for low, high, peak, frames in windows.found
        for at in range((low - 1000) // 40, -(-(high - 1000) // 40))
        if peak > 0.9
    }
    assert found == {number for number in bright if number < count}
    spans = windows.transitions(0.001)  # a single frame is none
    assert count < 60 or (1000 + 45 * 40 - 120, 1000 + 60 * 40 + 40) in spans
    assert not any(low <= 1000 + 120 * 40 < high for low, high in spans)


def test_only_what_is_marked_is_asked_about(network):
    windows = transnet.Windows(transnet.load(network, None))
    for number in range(400):
        windows.feed(number, np.full((72, 128, 3), 250, np.uint8))
        windows.thumbnail()
        if number == 140:
            windows.mark(35, 2)  # frames 105 to 138
    windows.finish()
    assert windows.asked == transnet.STEP and windows.found == [(100, 150, 1.0, 50)]
    assert len(windows.frames) <= transnet.BESIDE + transnet.STEP


def test_what_it_finds_belongs_to_no_scene(tmp_path):
    """Bright frames in the middle of what our own finder asks about, and no others."""
    film = dissolving_film(tmp_path / "v.mp4", 30.0)
    alone = known_video(film)[1].scenes
    deaf, keen = (
        passed(film, save_brightness_model(tmp_path / f"{level}.onnx", level))
        for level in (255.0, 0.0)
    )
    assert [*map(tuple, deaf[0].scenes)] == [*map(tuple, alone)]
    lengths = [sum(high - low for low, high in found.scenes) for found in (deaf[0], keen[0])]
    assert lengths[1] < lengths[0]
    assert 0 < keen[1].windows.asked < 0.7 * keen[0].frames


def test_a_kill_changes_nothing(tmp_path, network, monkeypatch):
    monkeypatch.setattr(film_pass, "SAVE_EVERY", 0.0)
    film = dissolving_film(tmp_path / "v.mp4", 24.0)
    model = save_brightness_model(tmp_path / "some.onnx", 60.0)
    whole, finder, _ = passed(film, model)
    assert finder.windows.found
    rng, went_on = random.Random(1), set()
    for _ in range(20):
        log = tmp_path / "part.jsonl"
        passed(film, model, log, rng.randint(1, 20))
        went_on.add(len(film_pass.PassLog(log, transnet.name_of(model)).known.pts))
    found, again, known = passed(film, model, tmp_path / "part.jsonl")
    assert found == whole and again.windows.found == finder.windows.found
    assert known > 200 and len(went_on) > 3


def test_the_steps_of_another_network_are_no_use(tmp_path, network, monkeypatch):
    monkeypatch.setattr(film_pass, "SAVE_EVERY", 0.0)
    film, log = dissolving_film(tmp_path / "v.mp4"), tmp_path / "part.jsonl"
    passed(film, network, log, 20)
    assert film_pass.PassLog(log, transnet.name_of(network)).known.pts
    assert not film_pass.PassLog(log, "").known.pts


def test_scenes_are_those_of_the_network_that_is_asked_for(run, tmp_path, network, caplog):
    film = dissolving_film(tmp_path / "films/v.mp4")
    work = tmp_path / "work"
    assert run("video", "scan", film.parent, work, "-q")[0] == 0

    def scenes(*options: object) -> tuple[int, str]:
        code, out, err = run("video", "scenes", work, "--json", *options)
        assert code == 0
        return json.loads(out)["decoded"], err

    with_model = ("--soft-cuts", network)
    assert [scenes()[0], scenes()[0]] == [1, 0]
    decoded, told = scenes(*with_model)
    assert decoded == 1 and "another --soft-cuts" in told
    [file] = (work / "scenes").glob("*.json")
    assert json.loads(file.read_text())["soft_cuts"] == transnet.name_of(network)
    assert scenes(*with_model)[0] == 0
    assert scenes()[0] == 1


def test_a_file_that_is_no_such_network_is_refused(run, tmp_path):
    film = dissolving_film(tmp_path / "films/v.mp4", 3.0)
    work = tmp_path / "work"
    assert run("video", "scan", film.parent, work, "-q")[0] == 0
    (tmp_path / "text.onnx").write_text("no model")
    wrong = {
        tmp_path / "none.onnx": "no such file",
        tmp_path / "text.onnx": "no sound ONNX model",
        save_brightness_model(tmp_path / "short.onnx", frames=50): "takes input",
        save_brightness_model(tmp_path / "one.onnx", outputs=1): "gives [1, 100, 1]",
        save_brightness_model(tmp_path / "far.onnx", gain=2.0): "gives no probabilities",
    }
    for path, why in wrong.items():
        code, out, err = run("video", "scenes", work, "--soft-cuts", path, "-q")
        assert code == 2 and out == "" and err.count("\n") == 1, (path, err)
        assert f"--soft-cuts {path}: {why}" in err and "transnet_export.py OUT.onnx" in err


def test_the_real_network_finds_a_dissolve(shared, tmp_path):
    real = Path(os.environ.get("TRANSNETV2") or shared / "models/transnetv2.onnx")
    if not real.is_file():
        pytest.skip(
            "needs TransNetV2 as ONNX: work/transnet_export.py writes it, $TRANSNETV2 names it"
        )
    shots = two_shots(shared)
    film = write_video(tmp_path / "v.mp4", joined_by("dissolve", *shots, RATE))
    _, finder, _ = passed(film, real)
    begins = len(shots[0]) / RATE - 1
    tick = finder.video.tick
    (span,) = finder.windows.transitions(tick)
    assert span[0] * tick == pytest.approx(begins, abs=0.2)
    assert span[1] * tick == pytest.approx(begins + 1, abs=0.2)
