"""Products on another device give the labels of the CPU; torch's own CPU stands for a GPU here."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import sf
from test_core_grouping import canonical, directions, library, walk

torch = pytest.importorskip("torch", reason="pip install torch")
gpu = sf.companion("gpu_products")


@pytest.fixture(params=[64, 2048])
def on_device(request, monkeypatch) -> list:
    """Every product of threshold_components goes through torch; returns those that did."""
    made = []

    def closeness(unit, min_cosine, on_cpu):
        made.append(gpu.OnDevice(torch, "cpu", unit, min_cosine, on_cpu))
        return made[-1]

    monkeypatch.setattr(sf, "GPU_FACES", 0)
    monkeypatch.setattr(sf, "LINK_BLOCK", request.param)
    monkeypatch.setattr(gpu, "closeness", closeness)
    return made


def on_cpu(unit, limit, boxes=None) -> list[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sf, "GPU_FACES", len(unit) + 1)
        return canonical(sf.threshold_components(unit, limit, boxes))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [library, walk, directions])
def test_labels_are_those_of_the_cpu(on_device, make, seed) -> None:
    rng = np.random.default_rng(seed)
    unit = make(rng, 500, 64)
    boxes = np.stack([np.zeros(500), np.zeros(500), *rng.choice([50, 80], (2, 500))], 1)
    for limit in (0.2, 0.449, 0.7):
        for given in (None, boxes):
            labels = sf.threshold_components(unit, limit, given)
            assert canonical(labels) == on_cpu(unit, limit, given)
    assert len(on_device) == 6
    assert all(device.there is not None for device in on_device)


def at_the_limit(limit: float, steps: np.ndarray) -> np.ndarray:
    """Pairs of rows whose cosines are `limit` and so many smallest steps more; (2 p, 2 p + 1)."""
    unit = np.zeros((2 * len(steps), len(steps) + 1), np.float32)
    for at, step in enumerate(steps):
        cosine = np.float32(limit) + step * np.spacing(np.float32(limit))
        unit[2 * at, at] = 1.0
        unit[2 * at + 1, [at, -1]] = cosine, 0.0
    return unit


def test_pairs_at_the_limit_are_looked_at_again(on_device, monkeypatch) -> None:
    """The device is wrong by less than SLACK; what the CPU says counts."""
    limit, steps = float(np.float32(0.45)), np.arange(-6, 7)
    unit = at_the_limit(limit, steps)
    exact = gpu.OnDevice.cosines
    for error in (0.0, -4e-7, 4e-7, 9e-6):
        monkeypatch.setattr(gpu, "TRUSTED_ERROR", 1.0)
        monkeypatch.setattr(
            gpu.OnDevice, "cosines", lambda *given, error=error: exact(*given) + error
        )
        labels = sf.threshold_components(unit, limit)
        assert (labels[::2] == labels[1::2]).tolist() == (steps >= 0).tolist()
        assert canonical(labels) == on_cpu(unit, limit)


def test_only_doubtful_blocks_are_computed_again(on_device) -> None:
    unit = at_the_limit(0.45, np.array([40_000.0, -40_000.0]))  # 1e-3 off
    sf.threshold_components(unit, 0.45)
    again = []
    (device,) = on_device

    def counted(*given):
        again.append(given)
        return on_blocks(*given)

    on_blocks, device.on_cpu = device.on_cpu, counted
    everyone = np.arange(4)
    close = device(everyone, everyone, everyone)
    assert close.tolist() == (unit @ unit.T >= 0.45).tolist()
    assert not again
    device.min_cosine = float(unit[1] @ unit[0])
    device(everyone, everyone, everyone)
    assert len(again) == 1
    device(everyone, everyone, np.zeros(4, int))  # in doubt, but one group already
    assert len(again) == 1


def test_a_device_that_is_not_exact_is_not_used(on_device, monkeypatch, caplog) -> None:
    exact = gpu.OnDevice.cosines
    monkeypatch.setattr(  # as TF32 does: ten bits
        gpu.OnDevice, "cosines", lambda *given: (exact(*given) * 1024).round() / 1024
    )
    unit = library(np.random.default_rng(0), 200, 64)
    assert canonical(sf.threshold_components(unit, 0.45)) == on_cpu(unit, 0.45)
    assert on_device[0].there is None
    assert "products are wrong by" in caplog.text


def test_a_device_that_fails_halfway_is_given_up(on_device, monkeypatch, caplog) -> None:
    calls = []
    exact = gpu.OnDevice.cosines

    def failing(*given):
        calls.append(given)
        if len(calls) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return exact(*given)

    monkeypatch.setattr(gpu.OnDevice, "cosines", failing)
    unit = library(np.random.default_rng(0), 200, 64)
    assert canonical(sf.threshold_components(unit, 0.45)) == on_cpu(unit, 0.45)
    assert len(calls) == 2
    assert "the CPU is: CUDA out of memory" in caplog.text


def test_a_small_library_never_asks_for_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr(sf, "companion", None)  # called, it would fail
    sf.threshold_components(directions(np.random.default_rng(0), 50, 8), 0.5)


def test_without_a_driver_torch_is_not_loaded(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__spec__=torch.__spec__))
    monkeypatch.setitem(gpu.DRIVERS, sys.platform, ("no-such-driver.so",))
    assert not gpu.has_driver()
    assert gpu.torch_with_gpu() is None
    given = object()
    assert gpu.closeness(np.zeros((2, 2), np.float32), 0.5, given) is given


def test_where_a_gpu_is_it_computes(monkeypatch, caplog) -> None:
    """Runs where there is one; nothing else here has met CUDA."""
    if gpu.torch_with_gpu() is None:
        pytest.skip("no GPU that torch sees")
    monkeypatch.setattr(sf, "GPU_FACES", 0)
    caplog.set_level("INFO", logger=sf.log.name)
    unit = library(np.random.default_rng(0), 5000, 512)
    assert canonical(sf.threshold_components(unit, 0.45)) == on_cpu(unit, 0.45)
    assert "are compared on" in caplog.text
