"""occlusion score --scorer net and FILE, occlusion fit: the network that comes along, classifiers
made here, answers made here."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import corpora
import cv2
import numpy as np
import pytest
from conftest import sf
from corpora import Face, axis, build, read
from test_occlusion import corpus_of, demo_faces, mask_crops, with_sunglasses  # noqa: F401

net = sf.companion("occlusion_net")
fitting = sf.companion("occlusion_fit")
landmark_scorer = sf.companion("landmark_scorer")
drawing = sf.companion("occlusion_draw")

Pairs = list[tuple[np.ndarray, np.ndarray]]
FACTS = {"classes": "mask,sunglasses", "crop": "whole", "output": "logits"}
RED_AND_BLUE = np.array([[6.0, 0, 0], [0, 0, 6.0]])  # the logits of a picture's mean RGB, -1 to 1


def classifier(
    path: Path, facts: dict[str, str], weights: np.ndarray = RED_AND_BLUE, last: bool = False,
    shape: Sequence[object] = (), squash: bool = False,
) -> Path:  # fmt: skip
    """A classifier of the mean colour of a picture."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shape = list(shape or (["n", 32, 32, 3] if last else ["n", 3, 32, 32]))
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2] if last else [2, 3],
                         keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["chance"]),
    ]  # fmt: skip
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    out = "chance" if squash else "logits"
    value = helper.make_tensor_value_info(out, TensorProto.FLOAT, [shape[0], len(weights)])
    tensor = numpy_helper.from_array(weights.T.astype(np.float32), "weights")
    graph = helper.make_graph(nodes[: 3 if squash else 2], "colours", [image], [value], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, facts)
    onnx.save(model, str(path))
    return path


def score(run, root: Path, scorer: object, *options: object) -> dict:
    argv = ("occlusion", "score", root, "--scorer", scorer, *options)
    code, out, err = run(*argv, "--json", "-q")
    assert code == 0, err
    return json.loads(out)


def scores_of(root: Path, said: dict, name: str = "faceset_001") -> list[list[float]]:
    lines = [json.loads(line) for line in Path(said["scores"]).read_text().splitlines()]
    by_sha = {line["sha256"]: line["scores"] for line in lines}
    return [by_sha[face["sha256"]] for face in read(root / name / "manifest.json")["faces"]]


# --- a classifier of one's own ----------------------------------------------


CLEAR = np.array([[0.0, 6.0, 0], [0, 0, 6.0], [6.0, 0, 0]])  # green: clear; blue; red
BOTH = np.array([[0.0, 6.0, 0], [0, 0, 6.0], [6.0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("facts", "made"),
    [
        ({}, {}),
        ({}, {"last": True}),
        ({}, {"shape": (1, 3, 32, 32)}),
        ({}, {"shape": ("n", 3, "h", "w")}),
        ({"output": "probability"}, {"squash": True}),
        ({"output": "softmax", "classes": "clear, sunglasses, mask"}, {"weights": CLEAR}),
        ({"output": "softmax", "classes": "clear,sunglasses,mask,mask+sunglasses"},
         {"weights": BOTH}),
        ({"colour": "BGR"}, {"weights": RED_AND_BLUE[:, ::-1]}),
        ({"mean": "0", "std": "255"}, {"weights": RED_AND_BLUE - 3}),
        ({"mean": "127.5,127.5,127.5", "std": "127.5, 127.5,127.5"}, {}),
    ],
)  # fmt: skip
def test_a_classifier_of_ones_own(run, tmp_path, facts, made):
    root = corpus_of(tmp_path / "c", "rbg")
    path = classifier(tmp_path / "mine.onnx", {**FACTS, **facts}, **made)
    red, blue, green = scores_of(root, score(run, root, path))
    assert red[0] > 0.6 > 0.4 > red[1] and blue[1] > 0.6 > 0.4 > blue[0]
    assert max(green) < 0.4


def test_its_scores_have_a_file_of_their_own_and_are_kept(run, tmp_path, monkeypatch):
    root = corpus_of(tmp_path / "c", "rbg", "ggggg")
    first = score(run, root, classifier(tmp_path / "mine.onnx", FACTS))
    path = Path(first["scores"])
    assert path.name.startswith("occlusion-mine-") and first["faces"] == 8
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    again, reads = score(run, root, tmp_path / "mine.onnx", "--threads", 3), []
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())
    monkeypatch.setattr(net, "read_crop", lambda *_: reads.append(1))
    assert score(run, root, tmp_path / "mine.onnx") == again and not reads
    monkeypatch.undo()
    other = classifier(tmp_path / "mine.onnx", FACTS, weights=-RED_AND_BLUE)
    assert score(run, root, other)["scores"] != first["scores"]
    code, out, _ = run("occlusion", "apply", root, "--dry-run", "--json", "--scores", path.stem)
    assert code == 0 and json.loads(out)["verdicts"]["thin"] == 1


def test_a_damaged_png_costs_itself(run, tmp_path):
    root = corpus_of(tmp_path / "c", "rgggggg")
    (root / "faceset_001" / "faces" / "003.png").write_bytes(b"no picture")
    path = classifier(tmp_path / "mine.onnx", FACTS)
    code, out, err = run("occlusion", "score", root, "--scorer", path, "--json")
    assert code == 0 and json.loads(out)["without_score"] == 1
    assert "faceset_001/faces/003.png: no score" in err


def test_a_picture_the_classifier_fails_on_costs_itself(run, tmp_path):
    """Its output is a probability for dark pictures only."""
    root = corpus_of(tmp_path / "c", "ggrg")
    facts = {**FACTS, "output": "probability", "mean": "0", "std": "255"}
    path = classifier(tmp_path / "mine.onnx", facts)
    code, out, err = run("occlusion", "score", root, "--scorer", path, "--json")
    assert code == 0 and json.loads(out)["without_score"] == 1
    assert "faceset_001/faces/002.png: its output is no probability" in err


@pytest.mark.parametrize(
    ("facts", "made", "what"),
    [
        ({"classes": "mask,hat"}, {}, "no class sunglasses in its `classes`"),
        ({"classes": "mask,sunglasses,clear"}, {}, "2 outputs for 3 classes"),
        ({"output": "percent"}, {}, "output is none of probability, logits, softmax"),
        ({"output": "probability"}, {}, "its output is no probability"),
        ({"mean": "a"}, {}, "could not convert string to float"),
        ({"std": "0"}, {}, "std is 0"),
        ({}, {"shape": ("n", 3, 32, 48)}, "which is no square"),
        ({}, {"shape": (4, 3, 32, 32)}, "the first number must be 1 or free"),
        ({"features": "deep"}, {}, "no output deep"),
    ],
)
def test_a_classifier_that_is_none(run, tmp_path, facts, made, what):
    root = corpus_of(tmp_path / "c", "rg")
    path = classifier(tmp_path / "bad.onnx", {**FACTS, **facts}, **made)
    code, out, err = run("occlusion", "score", root, "--scorer", path, "-q")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert what in err and "docs/occlusion.md" in err


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("none.onnx", None, "not there; name an .onnx file"),
        ("bad.onnx", b"no model", "no model ("),
        ("bad.json", b"{}", "is no occlusion head file"),
        ("gone.json", None, "not found"),
        ("clap", None, "clap: not there"),
    ],
)
def test_a_file_that_is_no_scorer(run, tmp_path, name, data, what):
    root = corpus_of(tmp_path / "c", "rg")
    if data is not None:
        (tmp_path / name).write_bytes(data)
    code, out, err = run("occlusion", "score", root, "--scorer", tmp_path / name, "-q")
    assert (code, out) == (2, "") and what in err and err.count("\n") == 1


def test_crops_of_other_sizes_show_the_same(demo_faces, tmp_path):  # noqa: F811
    """An aligned crop of 56 px is the one of 112 px, half as large."""
    spec, facts = sf.EngineSpec(provider="cpu"), {**FACTS, "crop": "aligned"}
    large, small = (
        net.Classifier(classifier(tmp_path / f"{s}.onnx", facts, shape=(1, 3, s, s)), spec, 1)
        for s in (112, 56)
    )
    image, kps = demo_faces[0]
    one = large.crop(image, kps)
    assert np.array_equal(one, landmark_scorer.aligned_face(image, kps))
    half = cv2.resize(one, (56, 56), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(half - small.crop(image, kps)).mean() < 12


# --- the network that comes along -------------------------------------------


@pytest.fixture(scope="module")
def network() -> net.Classifier:
    return net.load_classifier("net", sf.EngineSpec(provider="cpu"), 1)


def aligned(pairs: Pairs) -> list[np.ndarray]:
    return [landmark_scorer.aligned_face(crop, kps) for crop, kps in pairs]


def drawn(pairs: Pairs, kind: str, number: int = 12) -> list[np.ndarray]:
    """Aligned faces with what a kind wears, several of each."""
    edge, faces = drawing.BORDER * drawing.SCALE, []
    for seed in range(number):
        for at, (crop, kps) in enumerate(pairs):
            rng = np.random.default_rng([seed, at])
            canvas = drawing.draw(crop, kps, kind, rng, [one for one, _ in pairs])
            face = canvas[edge:-edge, edge:-edge]
            faces.append(cv2.resize(face, (112, 112), interpolation=cv2.INTER_AREA))
    return faces


def test_it_is_small_and_tells_bare_faces_from_sunglasses(network, demo_faces):  # noqa: F811
    assert network.path.stat().st_size < 500_000
    limit = sf.VerdictRules.threshold
    assert network.score_crops(aligned(demo_faces)).max() < limit
    shaded = aligned([(with_sunglasses(crop, kps), kps) for crop, kps in demo_faces])
    chance = network.score_crops(shaded)
    assert (chance[:, 1] >= limit).mean() >= 0.8 and chance[:, 0].max() < limit


@pytest.mark.parametrize(
    ("kind", "mask", "sunglasses"),
    [
        ("mask", 0.9, None),
        ("mask and clear glasses", 0.9, None),
        ("mask and sunglasses", 0.8, 0.4),
        ("sunglasses", None, 0.8),
        ("clear glasses", None, None),
        ("sunglasses on forehead", None, None),
        ("hand", None, None),
    ],
)
def test_what_is_worn_is_seen_and_nothing_else(
    network,
    demo_faces,  # noqa: F811
    kind,
    mask,
    sunglasses,
):
    """Drawn on people the network never saw: the least share found, or at most 10 % flagged."""
    flagged = network.score_crops(drawn(demo_faces, kind)) >= sf.VerdictRules.threshold
    for share, least in zip(flagged.mean(axis=0), (mask, sunglasses), strict=True):
        assert share <= 0.1 if least is None else share >= least


def test_real_masks_are_masks_and_no_sunglasses(network, shared, mini):
    """98 of 250 masked faces were also called sunglassed by the landmark scorer."""
    engine = sf.load_engine(sf.EngineSpec(model=str(mini)))
    pairs = []
    for crop in mask_crops(engine, sorted((shared / "data/occlusion/mask").iterdir()), 16):
        pairs.append((crop, engine.detect(crop).kps[0]))
    flagged = network.score_crops(aligned(pairs)) >= sf.VerdictRules.threshold
    assert flagged[:, 0].sum() >= 12 and flagged[:, 1].sum() == 0


def test_a_worker_looks_for_the_key_points(run, demo_faces, tmp_path):  # noqa: F811
    """The same scores as here, from crops nobody has looked at."""
    found = {}
    for who, options in (("here", ()), ("there", ("--worker", sys.executable))):
        root = corpus_of_faces(tmp_path / who, [demo_faces])
        corpora.audits_of(root).unlink()
        about = {
            "model": "dlib",
            "recognizer": sf.load_engine(sf.EngineSpec(model="dlib")).recognizer,
        }
        corpora.edit(root / "manifest.json", lambda master, about=about: master.update(about))
        said = score(run, root, "net", *options)
        assert said["without_score"] == 0 and Path(said["scores"]).name.startswith("occlusion-net-")
        found[who] = scores_of(root, said)
    assert np.allclose(found["here"], found["there"], atol=1e-6)


# --- fit --------------------------------------------------------------------


def corpus_of_faces(folder: Path, sets: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]]) -> Path:
    """A corpus of real crops whose key points an audit has found already."""
    root = build(folder, [[Face(axis(at)) for _ in own] for at, own in enumerate(sets)])
    points = {}
    for number, own in enumerate(sets, 1):
        name = f"faceset_{number:03d}"
        faces = read(root / name / "manifest.json")["faces"]
        for face, (crop, kps) in zip(faces, own, strict=True):
            path = root / name / face["file"]
            path.write_bytes(cv2.imencode(".png", crop)[1].tobytes())
            face["sha256"] = sf.sha256_of_file(path)
            points[face["sha256"]] = np.asarray(kps, float).tolist()
        corpora.rewrite(root, name, faces)
    corpora.give_audits(root)
    path = corpora.audits_of(root)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = [json.dumps({**line, "kps": points[line["sha256"]]}) for line in lines]
    path.write_text("".join(line + "\n" for line in told))
    return root


@pytest.fixture(scope="module")
def answered(tmp_path_factory, demo_faces) -> tuple[Path, Path]:  # noqa: F811
    """(a corpus of faces bare and with sunglasses, answers to each of them)."""
    rng = np.random.default_rng(1)

    def again(image: np.ndarray) -> np.ndarray:
        return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)

    sets = [
        [(again(image), kps) for _ in range(3) for image in (crop, with_sunglasses(crop, kps))]
        for crop, kps in demo_faces
    ]
    root = corpus_of_faces(tmp_path_factory.mktemp("answered"), sets)
    rows = []
    for path in sorted(root.glob("faceset_*/manifest.json")):
        for at, face in enumerate(read(path)["faces"]):
            name = (f"{path.parent.name}/{face['file']}", face["sha256"], face["face"])[at % 3]
            rows.append((name, "sunglasses", "yes") if at % 2 else (name, "clear", "yes"))
    answers = root.parent / "answers.csv"
    with open(answers, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([fitting.COLUMNS, *rows])
    return root, answers


def fit(run, root: Path, answers: Path, out: Path, *options: object) -> tuple[int, str, str]:
    return run("occlusion", "fit", root, "--answers", answers, "--out", out, *options, "-q")


def test_answers_make_a_scorer(run, answered, tmp_path):
    root, answers = answered
    out = tmp_path / "mine.json"
    code, told, err = fit(run, root, answers, out, "--json")
    assert code == 0, err
    said = json.loads(told)
    assert said["not_used"] == 0 and said["sunglasses"]["yes"] == said["sunglasses"]["no"]
    assert said["mask"]["kept"].startswith("the shipped weights: 0 answers")
    made = score(run, root, out)
    assert Path(made["scores"]).name.startswith("occlusion-mine-") and not made["without_score"]
    chance = np.concatenate([scores_of(root, made, path.parent.name)
                             for path in sorted(root.glob("faceset_*/manifest.json"))])  # fmt: skip
    assert chance[1::2, 1].min() > chance[0::2, 1].max()
    plain = score(run, root, "net")
    assert plain["scores"] != made["scores"]
    code, _, err = fit(run, root, answers, out)
    assert code == 2 and "is there already" in err and err.count("\n") == 1


def test_wrong_answers_turn_it_round(run, answered, tmp_path):
    """Enough answers outweigh the shipped weights, and the figures left out say so."""
    root, answers = answered
    text = answers.read_text().replace("sunglasses,yes", "sunglasses,no")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(text.replace("clear,yes", "sunglasses,yes"))
    code, told, err = fit(run, root, wrong, tmp_path / "wrong.json", "--json")
    assert code == 0, err
    said = json.loads(told)["sunglasses"]
    assert said["before"]["recall"] == 0 and said["left_out"]["recall"] > 0.5


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("face,attribute,answer\n", "too few answers; an attribute needs 10 yes and 10 no"),
        ("face,attribute,answer\nnobody,mask,yes\n", "too few answers"),
        ("face,attribute,answer\nx,hat,yes\n", "line 2 is no answer"),
        ("face,attribute,answer\nx,mask,maybe\n", "line 2 is no answer"),
        ("file\nx\n", "line 2 is no answer"),
        (None, "no answers (["),
    ],
)
def test_answers_that_are_too_few_or_none(run, answered, tmp_path, text, what):
    root, _ = answered
    path = tmp_path / "answers.csv"
    if text is not None:
        path.write_text(text)
    code, out, err = fit(run, root, path, tmp_path / "out.json")
    assert (code, out) == (2, "") and what in err and err.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


def test_a_head_of_another_network(run, answered, tmp_path):
    root, _ = answered
    sf.write_file(
        tmp_path / "old.json", net.Head(base="0" * 64, weights=[[0.0], [0.0]], bias=[0, 0])
    )
    code, _, err = run("occlusion", "score", root, "--scorer", tmp_path / "old.json", "-q")
    assert code == 2 and "was fitted on another network; run occlusion fit again" in err


def some_answers(number: int, shift: float) -> fitting.Answered:
    rng = np.random.default_rng(3)
    shown = np.arange(number) % 2 == 0
    features = rng.normal(0, 1, (number, 6)) + np.outer(shown, [1.0, 0, 0, 0, 0, shift])
    return fitting.Answered(features, shown, np.array([f"p{at % 25}" for at in range(number)]))


def test_a_strong_pull_keeps_the_shipped_weights_and_a_weak_one_leaves_them():
    shipped = fitting.Layer(np.array([1.0, 0, 0, 0, 0, 0]), -0.5)
    answers = some_answers(200, 2.0)
    near, far = (fitting.fit_layer(answers, shipped, pull) for pull in (1e6, 1e-3))
    assert np.abs(near.weights - shipped.weights).max() < 1e-3
    assert far.weights[5] > 1.0


def test_a_fit_that_helps_nobody_is_not_used():
    rng = np.random.default_rng(5)
    shipped = fitting.Layer(np.array([3.0, 0, 0, 0, 0, 0]), -1.5)
    features = rng.normal(0, 1, (60, 6))
    features[:, 0] = np.where(np.arange(60) % 2 == 0, 2.0, -2.0)
    answers = fitting.Answered(features, features[:, 0] > 0, np.arange(60).astype(str))
    answers = fitting.Answered(features * [5, 1, 1, 1, 1, 1], answers.shown, answers.person)
    layer, told = fitting.fit_attribute(answers, shipped)
    assert told["before"] == {"recall": 1.0, "false": 0.0}
    assert layer is shipped or told["left_out"]["recall"] == 1.0


def test_a_person_is_never_in_two_folds():
    answers = some_answers(200, 1.0)
    folds = list(fitting.folds_of(answers))
    assert np.sum(folds, axis=0).tolist() == [1] * 200
    for out in folds:
        assert not set(answers.person[out]) & set(answers.person[~out])


# --- training ---------------------------------------------------------------


def test_the_training_script_makes_such_a_network(demo_faces, tmp_path):  # noqa: F811
    pytest.importorskip("torch", reason="the training needs torch")
    train = sf.companion("occlusion_train")
    people = [train.Portrait(Path("x"), str(at), *pair) for at, pair in enumerate(demo_faces)]
    some = train.draw_some(people, range(96))
    drawn_faces = train.Drawn(np.array([train.shrink(canvas) for canvas, _ in some]),
                              np.array([kind for _, kind in some]))  # fmt: skip
    training = train.replace(train.Training(), epochs=1, batch=32)
    model = train.learn(drawn_faces, training)
    train.calibrate(model, drawn_faces, training)
    path = tmp_path / "small.onnx"
    train.export(model, path, "a test")
    found = net.Classifier(path, sf.EngineSpec(provider="cpu"), 1)
    faces = list(train.middle(drawn_faces.canvas)[:5])
    layers = fitting.shipped_layers(found.facts)
    by_hand = np.stack([layer.chance(found.features(faces)) for layer in layers], axis=1)
    assert np.allclose(found.score_crops(faces), by_hand, atol=1e-4)
    assert path.stat().st_size < 500_000
    shutil.rmtree(tmp_path)
