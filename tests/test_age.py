"""One person over thirty years, and siblings: what `era` and the two linkages make of them.

No public series of a person's photos over decades may be used here, so ageing is made: the
direction of a person turns steadily, from 1990 to 2019, by an angle each test names. How far a
real one turns depends on person and recogniser: these tests say what is done, not how often.
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import sf

eras_of_life = sf.companion("eras")

DIM = 256
SHARE = 0.85  # of a face's direction that is its person's: two photos of one day have cosine .72
USUAL = sf.Figures(0.0, 1 / DIM**0.5, SHARE**2, 20.0, 0)


def direction(rng: np.random.Generator) -> np.ndarray:
    return sf.unit_rows(rng.normal(size=(1, DIM)))[0].astype(np.float64)


def orthogonal(rng: np.random.Generator, to: np.ndarray) -> np.ndarray:
    other = direction(rng)
    other -= (other @ to) * to
    return other / np.linalg.norm(other)


def photos(rng: np.random.Generator, ways: np.ndarray) -> np.ndarray:
    """One face for each direction (n, d) of its person, with noise of its own."""
    noise = np.stack([orthogonal(rng, way) for way in ways])
    return sf.unit_rows(SHARE * ways + (1 - SHARE**2) ** 0.5 * noise)


def life(seed: int, cosine_after_30: float, each: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Faces (n, d) of 30 years, `each` a year, and their years; a person ends at this cosine to
    the one who began."""
    rng = np.random.default_rng(seed)
    start = direction(rng)
    end = orthogonal(rng, start)
    years = np.repeat(np.arange(1990, 2020), each).astype(float)
    angle = np.arccos(cosine_after_30) * (years - 1990) / 29
    ways = np.outer(np.cos(angle), start) + np.outer(np.sin(angle), end)
    return photos(rng, ways), years


def by_identity(unit: np.ndarray, photo: np.ndarray | None = None) -> np.ndarray:
    """Identity linkage with the figures of a recogniser that all these faces come from."""
    usual = sf.Thresholds()
    how = sf.Linkage("identity", usual.cluster, usual.merge, usual.copy, 0.0)
    start = sf.start_of(unit, how, ())
    length = np.full(len(unit), 20.0)
    apart = sf.one_photo_pairs(unit, np.arange(len(unit)) if photo is None else photo, 0.2)
    return sf.identity_linkage(unit, length, start, apart, USUAL, 0.0)


# --- era --------------------------------------------------------------------


@pytest.mark.parametrize("cosine", [0.9, 0.6, 0.3])
def test_eras_part_thirty_years_by_time_and_lose_nobody(cosine) -> None:
    """Every face is in one era, and within the years of its anchor unless it founded it."""
    unit, years = life(1, cosine)
    params = sf.EraParams()
    eras = eras_of_life.split_eras(unit, years, params)
    assert sorted(np.concatenate([rows for _, rows in eras])) == list(range(len(unit)))
    middle = [anchor.year for anchor, _ in eras]
    assert middle == sorted(middle) and len(eras) >= 30 / (2 * params.years)
    for anchor, rows in eras:
        assert np.abs(years[rows] - anchor.year).max() <= 2 * params.years


def test_more_ageing_makes_no_fewer_eras_and_tighter_ones_than_the_whole() -> None:
    counts = []
    for cosine in (0.9, 0.5, 0.0):
        unit, years = life(2, cosine)
        eras = eras_of_life.split_eras(unit, years, sf.EraParams())
        counts.append(len(eras))
        spread = np.mean([sf.own_distances(unit[rows]).mean() for _, rows in eras if len(rows) > 3])
        assert spread < sf.own_distances(unit).mean() + 0.01
    assert counts == sorted(counts)
    unit, years = life(2, 0.0)
    eras = eras_of_life.split_eras(unit, years, sf.EraParams())
    whole = sf.own_distances(unit).mean()
    assert np.mean([sf.own_distances(unit[rows]).mean() for _, rows in eras]) < whole - 0.05


def test_a_face_without_a_date_goes_to_the_era_it_looks_like() -> None:
    unit, years = life(3, 0.0)
    true = years.copy()
    lost = np.arange(3, len(years), 10)
    years[lost] = np.nan
    eras = eras_of_life.split_eras(unit, years, sf.EraParams())
    anchor = np.empty(len(unit))
    for era, rows in eras:
        anchor[rows] = era.year
    assert np.abs(anchor[lost] - true[lost]).mean() < 8


# --- one person, thirty years -----------------------------------------------


@pytest.mark.parametrize("group", [by_identity, lambda unit: sf.average_linkage(unit, 0.55)])
def test_a_person_who_ages_slowly_is_one_person(group) -> None:
    unit, _ = life(4, 0.8)
    assert len(sf.groups_of(group(unit))) == 1


def test_two_lives_side_by_side_never_mix() -> None:
    """Their years drift apart until linkage parts them, but no year joins the other person's."""
    for seed in range(3):
        unit = np.concatenate([life(10 + seed, 0.3)[0], life(20 + seed, 0.3)[0]])
        owner = np.repeat([0, 1], len(unit) // 2)
        for group in (by_identity, lambda rows: sf.average_linkage(rows, 0.55)):
            groups = sf.groups_of(group(unit))
            assert all(len(set(owner[rows])) == 1 for rows in groups)
            assert len(groups) <= 6


def test_the_gate_keeps_the_ends_of_a_long_life() -> None:
    """The first and the last years lie farthest from the middle; they are no outliers, as the
    set's own spread is wide, and a stranger among them is one."""
    unit, _ = life(5, 0.3)
    rng = np.random.default_rng(0)
    others = [photos(rng, np.repeat([direction(rng)], 20, axis=0)) for _ in range(20)]
    groups = [unit, *others]
    usual = sf.spread_of([sf.own_distances(rows) for rows in groups])
    everybody = np.concatenate(groups)
    rows = np.split(np.arange(len(everybody)), np.cumsum([len(own) for own in groups])[:-1])
    taken = sf.strays(everybody, rows, sf.RefineParams.outlier_spreads, usual)
    assert taken[0].sum() == 0
    stranger = photos(rng, direction(rng)[None])
    mixed = np.concatenate([everybody, stranger])
    rows[0] = np.append(rows[0], len(everybody))
    taken = sf.strays(mixed, rows, sf.RefineParams.outlier_spreads, usual)
    assert taken[0].tolist() == [False] * len(unit) + [True]


# --- siblings ---------------------------------------------------------------


def siblings(seed: int, cosine: float, each: int = 25) -> np.ndarray:
    rng = np.random.default_rng(seed)
    one = direction(rng)
    two = cosine * one + (1 - cosine**2) ** 0.5 * orthogonal(rng, one)
    return photos(rng, np.repeat([one, two], each, axis=0))


@pytest.mark.parametrize(("cosine", "people"), [(0.3, 2), (0.45, 2), (0.6, 2), (0.95, 1)])
def test_siblings_are_two_as_long_as_their_averages_are_apart(cosine, people) -> None:
    """Identity linkage asks the averages; .95 is one person by any measure."""
    for seed in range(3):
        groups = sf.groups_of(by_identity(siblings(seed, cosine)))
        assert len(groups) == people
        assert people == 1 or {len({int(row >= 25) for row in rows}) for rows in groups} == {1}


def test_siblings_who_often_stand_in_one_photo_are_two_at_any_likeness() -> None:
    """The same-photo rule: what no cosine tells, one picture of both does."""
    unit = siblings(1, 0.8)
    assert len(sf.groups_of(by_identity(unit))) == 1
    together = np.concatenate([np.arange(25), np.arange(25)])  # every photo shows both
    groups = sf.groups_of(by_identity(unit, together))
    assert all(len(set(together[rows])) == len(rows) for rows in groups)


def test_the_purity_report_sees_two_siblings_in_one_set() -> None:
    """Up to a cosine of about .7; beyond, nothing but the photos tells them apart."""
    purity = sf.companion("purity")
    usual = sf.Usual(USUAL.strangers, USUAL.spread, USUAL.same)
    said = [
        purity.purity_of(siblings(2, cosine), usual).verdict for cosine in (0.3, 0.5, 0.7, 0.95)
    ]
    assert said == ["doubtful", "doubtful", "look", "clean"]
