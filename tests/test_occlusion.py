"""occlusion score, report, apply: a real ONNX tower made here, the rules, the landmark scorer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import corpora
import cv2
import numpy as np
import pytest
from conftest import demo_library, sf
from corpora import Face, axis, build, exact, read

clip_scorer = sf.companion("clip_scorer")
landmark_scorer = sf.companion("landmark_scorer")

RED, BLUE, GREEN = (30, 30, 220), (220, 30, 30), (30, 220, 30)  # BGR: mask, sunglasses, neither


def png(colour: tuple[int, int, int], seed: int) -> bytes:
    """A 512 px PNG of about one colour; the seed makes the bytes unique."""
    image = np.full((512, 512, 3), colour, np.uint8)
    image[:64, :64] = np.random.default_rng(seed).integers(0, 255, 3)
    return cv2.imencode(".png", image)[1].tobytes()


def corpus_of(folder: Path, *sets: str) -> Path:
    """A corpus of coloured PNGs: "rrgb" is a set of four faces."""
    rows = [[Face(axis(at)) for _ in own] for at, own in enumerate(sets)]
    root = build(folder, rows)
    for number, own in enumerate(sets, 1):
        name = f"faceset_{number:03d}"
        faces = read(root / name / "manifest.json")["faces"]
        for at, (face, letter) in enumerate(zip(faces, own, strict=True)):
            data = png({"r": RED, "b": BLUE, "g": GREEN}[letter], 100 * number + at)
            (root / name / face["file"]).write_bytes(data)
            face["sha256"] = sf.sha256_of_file(root / name / face["file"])
        corpora.rewrite(root, name, faces)
    return root


def make_tower(folder: Path) -> Path:
    """A CLIP in miniature: the mean colour of a picture is its embedding."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["embedding"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32])
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "tower", [image], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "image.onnx"))
    sides = [[(1, -1, -1), (-1, 1, 1)], [(-1, -1, 1), (1, 1, -1)]]  # RGB, with and without
    clip_scorer.ClipTexts(
        model="tiny/colours", attributes=np.array(list(sf.ATTRIBUTES)),
        texts=np.array([[sf.unit_rows(np.array([side]))[0] for side in pair] for pair in sides]),
        logit_scale=10.0, size=32, mean=np.full(3, 0.5, np.float32),
        std=np.full(3, 0.5, np.float32), squash=True,
    ).save(folder / "prompts.npz")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def tower(tmp_path_factory) -> Path:
    return make_tower(tmp_path_factory.mktemp("clip"))


def score(run, root: Path, tower: Path) -> dict:
    code, out, err = run("occlusion", "score", root, "--clip", tower, "--json", "-q")
    assert code == 0, err
    return json.loads(out)


# --- score ------------------------------------------------------------------


def test_every_face_is_scored_once(run, tmp_path, tower, monkeypatch):
    root = corpus_of(tmp_path, "rbg", "ggggg")
    said = score(run, root, tower)
    assert (said["faces"], said["without_score"]) == (8, 0)
    path = Path(said["scores"])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 8
    by_sha = {line["sha256"]: line["scores"] for line in lines}
    faces = read(root / "faceset_001" / "manifest.json")["faces"]
    red, blue, green = (by_sha[face["sha256"]] for face in faces)
    assert red[0] > 0.99 and red[1] < 0.5 and blue[1] > 0.99 and blue[0] < 0.5
    assert max(green) < 0.5
    before = path.read_bytes()
    monkeypatch.setattr(sf, "score_items", lambda *_: pytest.fail("scored again"))
    monkeypatch.setitem(sf.TASKS, "score", sf.score_items)
    score(run, root, tower)
    assert path.read_bytes() == before


def test_scoring_goes_on_after_a_kill(run, tmp_path, tower):
    root = corpus_of(tmp_path, "rbg", "ggggg")
    path = Path(score(run, root, tower)["scores"])
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    score(run, root, tower)
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_scores_are_kept_per_model(run, tmp_path, tower):
    root = corpus_of(tmp_path, "rg")
    first = Path(score(run, root, tower)["scores"])
    other = tmp_path / "other"
    other.mkdir()
    (other / "image.onnx").write_bytes((tower / "image.onnx").read_bytes())
    texts = clip_scorer.ClipTexts.load(tower / "prompts.npz")
    replace(texts, texts=-texts.texts).save(other / "prompts.npz")
    second = Path(score(run, root, other)["scores"])
    assert first != second and first.exists() and second.exists()
    code, out, _ = run("occlusion", "apply", root, "--dry-run", "--json", "--scores", first.name)
    assert code == 0 and json.loads(out)["shelved"] == 1


def test_a_damaged_png_costs_itself(run, tmp_path, tower):
    root = corpus_of(tmp_path, "rgggggg")
    (root / "faceset_001" / "faces" / "003.png").write_bytes(b"no picture")
    code, out, err = run("occlusion", "score", root, "--clip", tower, "--json")
    assert code == 0 and json.loads(out)["without_score"] == 1
    assert "faceset_001/faces/003.png: no score" in err
    code, out, err = run("occlusion", "apply", root, "--json")
    assert code == 0 and json.loads(out)["dropped"] == 1
    assert "faceset_001/faces/003.png: is not the listed PNG, stays" in err


def test_a_tower_of_another_version(run, tmp_path, tower):
    texts = clip_scorer.ClipTexts.load(tower / "prompts.npz")
    replace(texts, attributes=np.array(["hat", "scarf"])).save(tmp_path / "old" / "prompts.npz")
    root = corpus_of(tmp_path / "c", "rg")
    code, _, err = run("occlusion", "score", root, "--clip", tmp_path / "old", "-q")
    assert code == 2 and "run occlusion prepare again" in err and err.count("\n") == 1


# --- apply ------------------------------------------------------------------


def test_the_rules(run, tmp_path, tower):
    """40 % of one attribute, 5 survivors, and small sets that lost nothing."""
    root = corpus_of(tmp_path, "rrrggggggg", "rrrrgggggg", "rbgggg", "ggg", "rrrbbggggg")
    score(run, root, tower)
    before = exact(root)
    code, out, _ = run("occlusion", "apply", root, "--json", "-q")
    said = json.loads(out)
    assert code == 0
    assert said["verdicts"] == {"prune": 2, "masked": 1, "thin": 1, "keep": 1}
    corpora.assert_agrees(root)
    assert [len(read(root / f"faceset_00{n}" / "manifest.json")["faces"]) for n in (1, 4, 5)] == [
        7, 3, 5,
    ]  # fmt: skip
    assert (root / "_masked" / "faceset_002").is_dir() and (root / "_thin" / "faceset_003").is_dir()
    master = read(root / "manifest.json")
    assert master["masked"][0]["reason"] == "40 % mask, 0 % sunglasses"
    assert master["thin_eras"][0]["reason"] == "4 of 6 faces are not occluded"
    assert master["runs"][-1]["params"]["threshold"] == sf.VerdictRules.threshold
    dropped = read(root / "faceset_005" / "manifest.json")["dropped"]
    assert [gone["reason"] for gone in dropped] == ["mask"] * 3 + ["sunglasses"] * 2
    assert all(gone["score"] >= 0.7 for gone in dropped)
    assert run("restore", root, "-q")[0] == 0
    assert exact(root) == before


def test_thresholds_are_options(run, tmp_path, tower):
    root = corpus_of(tmp_path, "rrrggggggg")
    score(run, root, tower)
    _, out, _ = run("occlusion", "apply", root, "--dry-run", "--dominance", 0.3, "--json")
    assert json.loads(out)["verdicts"] == {"masked": 1}
    _, out, _ = run("occlusion", "apply", root, "--dry-run", "--min-survivors", 8, "--json")
    assert json.loads(out)["verdicts"] == {"thin": 1}
    _, out, _ = run("occlusion", "apply", root, "--dry-run", "--threshold", 1, "--json")
    assert json.loads(out)["verdicts"] == {"keep": 1}


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (("apply",), "no scores; run occlusion score"),
        (("report",), "no scores; run occlusion score"),
        (("apply", "--scores", "nobody"), "nobody: no scores"),
        (("apply", "--threshold", "1.5"), "is not a number from 0 to 1"),
        (("score", "--clip", "no-such-model/x"), "--clip no-such-model/x"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, argv, what):
    root = corpus_of(tmp_path, "rg")
    before = exact(root)
    code, out, err = run("occlusion", argv[0], root, *argv[1:])
    assert (code, out) == (2, "") and what in err and err.count("\n") == 1
    assert exact(root) == before


def test_new_faces_must_be_scored_first(run, tmp_path, tower):
    root = corpus_of(tmp_path, "rgggggg")
    score(run, root, tower)
    corpora.put_face(root, "faceset_001", png(GREEN, 7))
    code, _, err = run("occlusion", "apply", root)
    assert code == 2 and "faces without a score: 1" in err


# --- report -----------------------------------------------------------------


def test_pages_are_sorted_with_the_threshold_drawn(run, tmp_path, tower):
    root = corpus_of(tmp_path, "rgggg", "bgg")
    (root / "faceset_002" / "NAME.txt").write_text("<script>alert(1)</script>", encoding="utf-8")
    score(run, root, tower)
    code, out, _ = run("occlusion", "report", root, "--json", "-q")
    said = json.loads(out)
    folder = Path(said["out"])
    assert code == 0 and folder == tmp_path / "ready-occlusion"
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in index and "<script>alert" not in index
    page = (folder / "mask.html").read_text(encoding="utf-8")
    scores = [float(part[:5]) for part in page.split("<b>")[1:] if part[1:2] == "."]
    assert len(scores) == 8 and scores == sorted(scores, reverse=True)
    assert page.index("threshold 0.7") > page.index(f"<b>{scores[0]:.3f}")
    assert page.count("threshold 0.7") == 1
    assert len(list((folder / "thumbs").iterdir())) == 8
    assert [row["mask"] for row in said["facesets"]] == [1, 0]


def test_pages_do_not_go_into_foreign_folders(run, tmp_path, tower):
    root = corpus_of(tmp_path, "rg")
    score(run, root, tower)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    code, _, err = run("occlusion", "report", root, "--out", tmp_path / "mine")
    assert code == 2 and "holds other files" in err


# --- landmarks --------------------------------------------------------------


@pytest.fixture(scope="module")
def demo_faces() -> list[tuple[np.ndarray, np.ndarray]]:
    """(512 px crop, key points in it) of the demo's people, by the dlib engine."""
    engine = sf.load_engine(sf.EngineSpec(model="dlib"))
    group = sf.decode_photo(demo_library.demo_photo()).image
    wh = (group.shape[1], group.shape[0])
    faces = []
    for box in demo_library.DEMO_FACES.values():
        square = sf.crop_square(np.array(box, np.float32), wh, sf.ExportParams.pad_ratio)
        crop = sf.cut_window(group, square, sf.ExportParams.out_size)
        found = engine.detect(crop)
        if len(found):
            faces.append((crop, found.kps[0]))
    assert len(faces) >= 5
    return faces


def with_sunglasses(crop: np.ndarray, kps: np.ndarray) -> np.ndarray:
    """Two dark lenses and a bridge drawn over the eyes."""
    left, right = kps[:2]
    reach = float(np.linalg.norm(right - left))
    angle = float(np.degrees(np.arctan2(*(right - left)[::-1])))
    drawn = crop.copy()
    for eye in (left, right):
        centre = tuple(round(float(value)) for value in eye)
        axes = (round(0.42 * reach), round(0.32 * reach))
        cv2.ellipse(drawn, centre, axes, angle, 0, 360, (18, 16, 15), -1)
    ends = [tuple(round(float(value)) for value in eye) for eye in (left, right)]
    cv2.line(drawn, *ends, (18, 16, 15), max(2, round(0.06 * reach)))
    return drawn


def probabilities(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return landmark_scorer.occlusion_probabilities(
        np.array([landmark_scorer.region_features(crop, kps) for crop, kps in pairs])
    )


def test_bare_faces_are_clear_and_drawn_sunglasses_are_seen(demo_faces):
    clear = probabilities(demo_faces)
    assert clear.shape == (len(demo_faces), 2) and clear.max() < sf.VerdictRules.threshold
    drawn = probabilities([(with_sunglasses(crop, kps), kps) for crop, kps in demo_faces])
    assert (drawn[:, 1] >= sf.VerdictRules.threshold).mean() >= 0.8
    assert (drawn[:, 1] > clear[:, 1]).all()


def test_features_do_not_depend_on_size_or_place(demo_faces):
    crop, kps = demo_faces[0]
    moved = cv2.copyMakeBorder(crop, 40, 0, 25, 0, cv2.BORDER_REPLICATE)
    large = cv2.resize(crop, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
    own = probabilities([(crop, kps)])
    assert np.allclose(probabilities([(moved, kps + np.array([25, 40]))]), own, atol=0.02)
    assert np.allclose(probabilities([(large, kps * 1.5)]), own, atol=0.1)


@pytest.mark.parametrize("scorer", ["net", "landmarks"])
def test_real_masks_are_found_by_the_whole_command(run, tmp_path, shared, mini, scorer):
    """A set of masked faces goes to _masked, one of plain faces stays."""
    engine = sf.load_engine(sf.EngineSpec(model=str(mini)))
    root = build(tmp_path, [[Face(axis(0))] * 8, [Face(axis(1))] * 8])
    for number, kind in enumerate(("mask", "plain"), 1):
        name = f"faceset_{number:03d}"
        faces = read(root / name / "manifest.json")["faces"]
        crops = mask_crops(engine, sorted((shared / "data" / "occlusion" / kind).iterdir()), 8)
        for face, crop in zip(faces, crops, strict=True):
            (root / name / face["file"]).write_bytes(cv2.imencode(".png", crop)[1].tobytes())
            face["sha256"] = sf.sha256_of_file(root / name / face["file"])
        corpora.rewrite(root, name, faces)
    head = {"model": sf.model_label(str(mini)), "recognizer": engine.recognizer}
    corpora.edit(root / "manifest.json", lambda master: master.update(head))
    code, out, err = run(
        "occlusion", "score", root, "--scorer", scorer, "--model", mini, "--json", "-q"
    )
    assert code == 0, err
    assert json.loads(out)["without_score"] == 0
    code, out, err = run("occlusion", "apply", root, "--json", "-q")
    assert code == 0, err
    assert json.loads(out)["verdicts"] == {"masked": 1, "keep": 1}
    assert (root / "_masked" / "faceset_001").is_dir()


def mask_crops(engine: sf.Engine, photos: list[Path], wanted: int) -> list[np.ndarray]:
    """512 px crops in which the engine finds a face."""
    crops = []
    for path in photos:
        image = sf.read_photo(str(path)).image
        found = engine.detect(image)
        if len(found):
            wh = (image.shape[1], image.shape[0])
            square = sf.crop_square(found.bbox[0], wh, sf.ExportParams.pad_ratio)
            crop = sf.cut_window(image, square, sf.ExportParams.out_size)
            if len(engine.detect(crop)):
                crops.append(crop)
        if len(crops) == wanted:
            return crops
    raise AssertionError("too few faces")
