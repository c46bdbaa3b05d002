"""The error-versus-discard curves of tests/bench/measure_quality.py, on cases that are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import make_cache

sys.path.insert(0, str(Path(__file__).resolve().parent / "bench"))

import measure_quality as bench

import sort_faces as sf


def test_the_threshold_lets_so_many_strangers_pass() -> None:
    cache = make_cache(people=30, photos=8, spread=0.9)
    person = np.repeat(np.arange(30), 8)
    pair, cosine, threshold = bench.pairs(cache.unit, person, 0.01)
    assert len(pair) == 30 * 8 * 7 / 2 and (person[pair[:, 0]] == person[pair[:, 1]]).all()
    table = cache.unit @ cache.unit.T
    np.testing.assert_allclose(cosine, table[pair[:, 0], pair[:, 1]], atol=1e-6)
    strangers = table[np.triu(person[:, None] != person[None], 1)]
    assert (strangers >= threshold).mean() == pytest.approx(0.01, rel=0.05)


def test_a_curve_falls_with_the_faces_that_fail() -> None:
    pair = np.array([[0, 1], [0, 2], [1, 2], [3, 4], [3, 5], [4, 5]])
    failed = np.array([True, True, False, False, False, False])  # all of face 0
    shares = np.array([0, 1 / 6, 5 / 6])
    telling = np.array([0.1, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert bench.curve(pair, failed, telling, shares)[:2] == pytest.approx([1 / 3, 0])
    assert np.isnan(bench.curve(pair, failed, telling, shares)[2]), "one face makes no pair"
    misled = bench.curve(pair, failed, -telling, shares)
    assert misled[:2] == pytest.approx([1 / 3, 1 / 2])
    np.testing.assert_allclose(bench.failures(pair, failed, 6), [-1, -0.5, -0.5, 0, 0, 0])
    assert bench.area(np.array([0.2, 0.1, 0.0])) == pytest.approx(0.5)


def test_the_table_of_a_cache_with_scores(tmp_path, monkeypatch, capsys) -> None:
    """Faces that look away are embedded short and apart: length tells them, noise does not."""
    rng = np.random.default_rng(0)
    cache = make_cache(people=20, photos=12, spread=0.3)
    spoilt = rng.random(cache.faces) < 0.1
    embedding = cache.embedding / 20 + spoilt[:, None] * rng.normal(size=cache.embedding.shape) / 4
    embedding *= np.where(spoilt, 5, 15)[:, None] / np.linalg.norm(embedding, axis=1)[:, None]
    arrays = {"embedding": embedding.astype(np.float32),
              "learned_quality": rng.random(cache.faces).astype(np.float32)}  # fmt: skip
    sf.save_cache(tmp_path / "lib.npz", bench.sf.replace(cache, **arrays))
    other = str(tmp_path / "lib.npz")
    monkeypatch.setattr(sys, "argv", ["measure_quality", other, "--other", other, "--most", "10"])
    bench.main()
    table = {line[2:24].strip(): line[24:].split()
             for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}  # fmt: skip
    area = {name: float(cells[6]) for name, cells in table.items() if name != "measure"}
    assert area["embedding length"] < 0.5 < min(area["learned quality"], area["random"])
    assert area["length by the other"] == area["embedding length"]
    assert area["best (knows the truth)"] <= area["embedding length"]
