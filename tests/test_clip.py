"""CLIP scores: arithmetic, prompts, files; a small random model on torch and as ONNX."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

import sort_faces as sf

clip_scorer = sf.companion("clip_scorer")
clip_torch = sf.companion("clip_torch")
TINY = {  # an open_clip model of 3 M parameters, nearly all of them the vocabulary
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
RNG = np.random.default_rng(0)


def unit(*shape: int) -> np.ndarray:
    return sf.unit_rows(RNG.normal(size=shape).reshape(-1, shape[-1])).reshape(shape)


def texts(size: int = 32, squash: bool = False) -> clip_scorer.ClipTexts:
    return clip_scorer.ClipTexts(
        model="tiny/untrained", attributes=np.array(["mask", "sunglasses"]),
        texts=unit(2, 2, 8).astype(np.float32), logit_scale=100.0, size=size,
        mean=np.array([0.5, 0.4, 0.3], np.float32), std=np.array([0.2, 0.25, 0.5], np.float32),
        squash=squash,
    )  # fmt: skip


# --- arithmetic -------------------------------------------------------------


def test_probabilities_are_a_softmax_over_each_pair() -> None:
    images, pairs = unit(7, 16), unit(3, 2, 16)
    for scale in (1.0, 14.3, 100.0):
        expected = softmax(scale * np.einsum("nd,ktd->nkt", images, pairs), axis=2)[..., 0]
        assert np.allclose(
            clip_scorer.clip_probabilities(images, pairs, scale), expected, atol=1e-12
        )


def test_without_the_scale_nothing_separates() -> None:
    """CLIP's cosines lie close together, here 0.25 and 0.20."""
    pairs = np.array([[[1.0, 0, 0], [0, 1.0, 0]]])
    rest = np.sqrt(1 - 0.25**2 - 0.20**2)
    images = np.array([[0.25, 0.20, rest], [0.20, 0.25, rest]])
    flat = clip_scorer.clip_probabilities(images, pairs, 1.0)[:, 0]
    assert np.abs(flat - 0.5).max() < 0.02
    clear = clip_scorer.clip_probabilities(images, pairs, 100.0)[:, 0]
    assert clear[0] > 0.99
    assert clear[1] < 0.01
    assert np.isfinite(clip_scorer.clip_probabilities(images, pairs, 1e6)).all()


def test_ensemble_weighs_sentences_alike() -> None:
    vectors = RNG.normal(size=(5, 16))
    mean = clip_torch.prompt_ensemble(vectors)
    assert np.isclose(np.linalg.norm(mean), 1.0)
    lengths = RNG.uniform(0.1, 10, (5, 1))
    assert np.allclose(clip_torch.prompt_ensemble(vectors * lengths), mean, atol=1e-6)
    assert np.allclose(mean, sf.unit_rows(sf.unit_rows(vectors).mean(0)[None])[0], atol=1e-6)


@pytest.mark.parametrize("sides", clip_torch.CLIP_PROMPTS.values(), ids=clip_torch.CLIP_PROMPTS)
def test_prompts(sides: tuple) -> None:
    assert len(sides) == 2
    for side in sides:
        assert 5 <= len(side) <= 6
        assert len(set(side)) == len(side)
    assert not set(sides[0]) & set(sides[1])


def test_every_attribute_has_its_prompts() -> None:
    assert tuple(clip_torch.CLIP_PROMPTS) == sf.ATTRIBUTES


# --- files and pixels -------------------------------------------------------


@pytest.mark.parametrize("squash", [False, True])
def test_texts_come_back(tmp_path, squash: bool) -> None:
    before = texts(squash=squash)
    before.save(tmp_path / "prompts.npz")
    after = clip_scorer.ClipTexts.load(tmp_path / "prompts.npz")
    for name, value in vars(before).items():
        assert np.array_equal(getattr(after, name), value), name
        assert isinstance(getattr(after, name), type(value)), name


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "foreign", "folder"])
def test_damaged_texts(tmp_path, damage: str) -> None:
    path = tmp_path / "prompts.npz"
    texts().save(path)
    whole = path.read_bytes()
    path.unlink()
    if damage == "foreign":
        np.savez(path, weights=np.zeros(3))
    elif damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(
            {"empty": b"", "text": b"hello\n", "cut": whole[: len(whole) // 2]}[damage]
        )
    with pytest.raises(sf.SortFacesError, match="no prompts file"):
        clip_scorer.ClipTexts.load(path)


def test_input_is_the_middle_or_the_whole_squashed() -> None:
    """A picture three times as wide as high: blue, green, red from the left."""
    picture = np.zeros((40, 120, 3), np.uint8)
    for third in range(3):
        picture[:, third * 40 : third * 40 + 40, third] = 255  # BGR
    middle = clip_scorer.clip_input([picture], texts())[0]
    whole = clip_scorer.clip_input([picture], texts(squash=True))[0]
    assert middle.shape == whole.shape == (3, 32, 32)
    assert middle.dtype == np.float32
    back = [x * texts().std[:, None, None] + texts().mean[:, None, None] for x in (middle, whole)]
    assert np.allclose(back[0][:, 16, 16], [0, 1, 0], atol=1e-3)
    assert np.allclose(back[0][:, 16, 3], [0, 1, 0], atol=0.2)
    assert np.allclose(back[1][:, 16, 3], [0, 0, 1], atol=1e-3)  # blue: last channel of RGB
    assert np.allclose(back[1][:, 16, 28], [1, 0, 0], atol=1e-3)


@pytest.mark.parametrize("shape", [(32, 32), (31, 500), (500, 31), (1, 1), (33, 32)])
def test_input_of_any_shape(shape: tuple[int, int]) -> None:
    pictures = [np.full((*shape, 3), 128, np.uint8)] * 2
    for squash in (False, True):
        assert clip_scorer.clip_input(pictures, texts(squash=squash)).shape == (2, 3, 32, 32)


def test_folder_without_the_tower(run, tmp_path) -> None:
    texts().save(tmp_path / "prompts.npz")
    with pytest.raises(sf.SortFacesError, match="run `occlusion prepare"):
        clip_scorer.load_scorer(sf.EngineSpec(clip=str(tmp_path), provider="cpu"), 1)


# --- a real model -----------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    """The name of a small untrained model, known to open_clip."""
    torch = pytest.importorskip("torch", reason="needs torch")
    if importlib.util.find_spec("open_clip") is None:
        pytest.skip("needs open_clip")
    library = declare_torchvision(torch)
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"open_clip does not load: {error}")
    folder = tmp_path_factory.mktemp("configs")
    (folder / "tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    torch.manual_seed(3)
    yield "tiny/untrained"
    del library


def declare_torchvision(torch):
    """Name the operators of a torchvision whose C++ part does not fit torch; none is called."""
    spec = importlib.util.find_spec("torchvision")
    try:
        importlib.import_module("torchvision")
        return None
    except (ImportError, RuntimeError):
        if spec is None:
            return None
    source = (Path(spec.origin).parent / "_meta_registrations.py").read_text(encoding="utf-8")
    library = torch.library.Library("torchvision", "FRAGMENT")
    names = re.findall(r'torchvision::(\w+)|register_meta\("(\w+)"\)', source)
    for name in {one or other for one, other in names}:
        library.define(f"{name}(Tensor a) -> Tensor")
    for module in [name for name in sf.sys.modules if name.split(".")[0] == "torchvision"]:
        del sf.sys.modules[module]
    return library


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory) -> tuple[Path, dict, clip_torch.TorchClipScorer]:
    """(folder `occlusion prepare` made, what it said, the same model on torch)."""
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    import torch

    torch.manual_seed(3)
    scorer = clip_torch.TorchClipScorer(tiny)
    torch.manual_seed(3)  # the same random weights again
    return folder, clip_torch.export_clip(tiny, folder), scorer


def test_export_agrees_with_the_model(exported) -> None:
    folder, said, _ = exported
    assert said["least_cosine"] > clip_torch.CLIP_TOLERANCE
    assert said["largest_score_difference"] < 1e-3
    assert said["image_size"] == 64
    assert said["bytes"] == (folder / "image.onnx").stat().st_size
    assert {path.name for path in folder.iterdir()} == {"image.onnx", "prompts.npz"}


def test_both_scorers_agree(exported) -> None:
    folder, _, on_torch = exported
    on_onnx = clip_scorer.load_scorer(sf.EngineSpec(clip=str(folder), provider="cpu"), 2)
    pictures = clip_torch.clip_samples()
    ours, theirs = on_onnx.score(pictures), on_torch.score(pictures)
    assert ours.shape == (len(pictures), 2)
    assert np.abs(ours - theirs).max() < 1e-3
    assert ours.std(axis=0).min() > 1e-4  # it is the pictures that decide
    alone = np.concatenate([on_onnx.score([picture]) for picture in pictures])
    assert np.allclose(alone, ours, atol=1e-4)
    assert on_onnx.facts()["attributes"] == list(sf.ATTRIBUTES)


def test_input_equals_open_clips_own(exported) -> None:
    import PIL.Image
    from open_clip.transform import PreprocessCfg, image_transform_v2

    _, _, on_torch = exported
    preprocess = image_transform_v2(
        PreprocessCfg(**on_torch.model.visual.preprocess_cfg), is_train=False
    )
    for picture in clip_torch.clip_samples():
        expected = preprocess(PIL.Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))).numpy()
        actual = clip_scorer.clip_input([picture], on_torch.texts)[0]
        assert actual.shape == expected.shape
        assert np.abs(actual - expected).max() < 1e-4


def test_export_that_differs_is_refused(tiny, tmp_path, monkeypatch) -> None:
    right = clip_torch.run_tower
    monkeypatch.setattr(clip_torch, "run_tower", lambda *args: right(*args) + 9.0)
    with pytest.raises(sf.SortFacesError, match="the export differs"):
        clip_torch.export_clip(tiny, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "word"), [("none-such/untrained", "has no none-such"), ("tiny/none.pt", "weights")]
)
def test_model_that_is_not_there(run, tiny, tmp_path, name: str, word: str) -> None:
    code, out, err = run("occlusion", "prepare", tmp_path / "out", "--clip", name)
    assert (code, out) == (2, "")
    assert word in err
    assert err.count("sort_faces occlusion:") == 1
    assert not (tmp_path / "out").exists()


def test_without_open_clip_one_line(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sf.sys.modules, "open_clip", None)
    code, _, err = run("occlusion", "prepare", tmp_path / "out")
    assert code == 2
    assert "requirements-clip.txt" in err
