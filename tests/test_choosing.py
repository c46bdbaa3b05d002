"""The faces chosen for real people stand for photos they were not chosen from."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED

sys.path.insert(0, str(Path(__file__).resolve().parent / "bench"))

import choosing


@pytest.fixture(scope="module")
def people() -> list[choosing.Faces]:
    """Those of half.npz no constant was chosen on."""
    npz = SHARED / "data" / "embeddings" / "half.npz"
    if not npz.exists():
        pytest.skip("needs ../shared/data/embeddings, which is not here")
    return [faces for faces in choosing.labelled(npz) if int(faces.name) % 2]


def test_a_core_of_eight_is_nearly_worth_all(people):
    names = ("all", "product top 8", "core 8", "product top 30", "top 30 herding")
    choices = {name: choosing.CHOICES[name] for name in names}
    figures = np.array([choosing.person_figures(faces, choices, 5) for faces in people])
    whole, best, core, top, chosen = figures.mean(axis=0)
    assert len(people) >= 8 and whole - core < 0.008
    assert core - best > 0.005 and chosen > top
    assert whole - chosen < 0.001


def test_a_table_says_what_each_choice_is_worth():
    """Two people who look the same in every photo: whatever is chosen is all of them."""
    same = [choosing.Faces(name, np.ones((20, 4), np.float32), np.linspace(1, 0, 20))
            for name in ("ann", "bob")]  # fmt: skip
    rows = choosing.table(same, splits=2)
    assert [row["chosen"] for row in rows] == list(choosing.CHOICES)
    assert {row["cosine"] for row in rows} == {"1.0000 +- 0.0000"}
    turned = np.eye(2, dtype=np.float32)[np.arange(20) % 2]
    rows = {
        row["chosen"]: row for row in choosing.table([choosing.Faces("cy", turned, np.ones(20))])
    }
    assert float(rows["core 8"]["cosine"][:6]) > float(rows["8 nearest mean"]["cosine"][:6])
