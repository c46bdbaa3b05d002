"""What keeps strangers out of face sets, and how sure refine is of each: gates and purity."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_cache, sf
from corpora import SHARE, Face, Space, axis, build, give_audits, wrong
from material import Library, manifest_of, ok, pick

purity = sf.companion("purity")
USUAL = sf.Usual(strangers=0.0, stranger_spread=0.1, same=0.72, length=20.0, spread=0.05)
DIM = 128


def noisy(person: np.ndarray, count: int, seed: int, share: float = SHARE) -> np.ndarray:
    """Unit faces at cosine `share` to a direction, their noise at random: pairs share**2."""
    rng = np.random.default_rng(seed)
    noise = sf.unit_rows(rng.normal(size=(count, DIM)))
    noise -= np.outer(noise @ person, person)
    return sf.unit_rows(share * person + np.sqrt(1 - share**2) * sf.unit_rows(noise))


def way(at: int) -> np.ndarray:
    return np.eye(DIM)[at]


def lookalike(cosine: float) -> np.ndarray:
    """A person at this cosine to the one at way(0)."""
    return cosine * way(0) + np.sqrt(1 - cosine**2) * way(1)


def verdict_of(*people: np.ndarray, **facts: object) -> str:
    return purity.purity_of(np.concatenate(people), USUAL, **facts).verdict


# --- the outlier gate -------------------------------------------------------


def test_own_distance_is_the_distance_to_all_the_others() -> None:
    unit = noisy(way(0), 9, seed=1)
    expected = [
        1.0 - float(unit[row] @ sf.centroid(np.delete(unit, row, axis=0))) for row in range(9)
    ]
    assert np.allclose(sf.own_distances(unit), expected, atol=1e-6)


def test_a_set_knows_its_own_spread_and_a_small_one_the_librarys() -> None:
    """Many faces outweigh the library; four do not."""
    around = np.array([0.2 - 0.1, 0.2, 0.2, 0.2 + 0.1])
    wide, few = np.tile(around, 250), around
    own = sf.spread_of([wide])
    assert own == pytest.approx(sf.MAD_SIGMA * 0.05)
    limits = sf.outlier_limits([wide, few, few[:3]], 5.0, 0.03)
    assert limits[0] == pytest.approx(0.2 + 5 * own, rel=0.03)
    assert limits[1] == pytest.approx(0.2 + 5 * ((4 * own**2 + 60 * 0.03**2) / 64) ** 0.5)
    assert limits[2] == np.inf
    burst = sf.outlier_limits([np.full(2000, 0.2)], 5.0, 0.03)
    assert burst[0] == pytest.approx(0.2 + 5 * sf.LEAST_SPREAD)


@pytest.mark.parametrize(("spreads", "usual"), [(0.0, 0.05), (5.5, 0.0)])
def test_without_spreads_or_what_is_usual_there_is_no_limit(spreads, usual) -> None:
    unit = np.concatenate([noisy(way(0), 10, seed=1), noisy(way(9), 1, seed=2)])
    assert not sf.strays(unit, [np.arange(11)], spreads, usual)[0].any()


def test_a_face_nearer_to_another_person_goes_even_within_the_limit() -> None:
    """The one in the middle between the two belongs to neither by its distance alone."""
    unit = np.concatenate(
        [noisy(way(0), 12, seed=1), noisy(way(1), 12, seed=2), noisy(lookalike(0.5), 1, seed=3)]
    )
    mine, other = np.append(np.arange(12), 24), np.arange(12, 24)
    alone = sf.strays(unit, [mine], 20.0, 0.05)
    assert not alone[0].any()
    both = sf.strays(unit, [mine, other], 20.0, 0.05)
    assert both[0].tolist() == [False] * 12 + [True] and not both[1].any()


def refined(unit: np.ndarray, **params: object) -> sf.Refined:
    """refine_identities of faces that all lie in one group."""
    cache = make_cache(people=1, photos=len(unit), dim=DIM)
    cache = replace(cache, embedding=(unit * 20).astype(np.float32))
    usual = sf.Usual(0.0, 0.1, 0.72, 20.0, 0.03)
    params = sf.RefineParams(initial_threshold=1.9, outlier_threshold=2.0, min_faces=5, **params)
    return sf.refine_identities(cache, np.arange(len(unit)), params, usual)


def test_refine_drops_a_stranger_by_the_spread_of_the_set_and_keeps_it_without() -> None:
    unit = np.concatenate([noisy(way(0), 20, seed=1), noisy(lookalike(0.3), 1, seed=2)])
    found = refined(unit)
    assert found.identities[0].tolist() == list(range(20))
    assert found.dropped["outlier"] == 1 == found.lost[0]["outlier"]
    assert len(refined(unit, outlier_spreads=0.0).identities[0]) == 21


def growing(tmp_path: Path, stranger: float) -> Library:
    """A library of 20 faces of one person and ten others, and a new face at a cosine to her."""
    faces = [noisy(way(0), 20, seed=1)]
    faces += [noisy(way(10 + at), 4, seed=10 + at) for at in range(10)]
    faces.append(noisy(lookalike(stranger), 1, seed=5))
    unit = np.concatenate(faces)
    cache = make_cache(people=1, photos=len(unit), dim=DIM, root=str(tmp_path / "photos"))
    return Library(tmp_path, replace(cache, embedding=(unit * 20).astype(np.float32)))


@pytest.mark.parametrize(("cosine", "joins"), [(1.0, 1), (0.6, 0)])
def test_extend_asks_a_new_face_what_refine_asked_the_others(run, tmp_path, cosine, joins):
    """A face 0.49 from the centroid is within --outlier-threshold and far outside the set."""
    library = growing(tmp_path, cosine)
    whole, last = library.cache, library.cache.files - 1
    library.save(pick(whole, range(last)))
    ok(run, "cluster", library.path, tmp_path / "raw")
    refine = ("refine", library.path, tmp_path / "refined")
    ok(run, *refine, "--min-faces", 10)
    library.save(whole)
    trees = (tmp_path / "raw", "--refine-out", tmp_path / "refined")
    assert ok(run, "extend", library.path, *trees)["joined_facesets"] == joins


def test_extend_of_a_tree_from_before_the_gates_joins_as_ever(run, tmp_path):
    library = growing(tmp_path, 0.6)
    whole, last = library.cache, library.cache.files - 1
    library.save(pick(whole, range(last)))
    ok(run, "cluster", library.path, tmp_path / "raw")
    ok(run, "refine", library.path, tmp_path / "refined", "--min-faces", 10)
    path = tmp_path / "refined" / "refine_manifest.json"
    old = json.loads(path.read_text())
    del old["usual"], old["params"]["outlier_spreads"], old["params"]["min_length"]
    for entry in old["facesets"]:
        del entry["purity"]
    path.write_text(json.dumps(old))
    library.save(whole)
    trees = (tmp_path / "raw", "--refine-out", tmp_path / "refined")
    assert ok(run, "extend", library.path, *trees)["joined_facesets"] == 1


# --- short embeddings -------------------------------------------------------


def with_lengths(cache: sf.FaceCache, lengths: np.ndarray) -> sf.FaceCache:
    return replace(cache, embedding=(cache.unit * lengths[:, None]).astype(np.float32))


def of_lengths(lengths: np.ndarray, **params: object) -> sf.Refined:
    cache = with_lengths(make_cache(people=2, photos=10), lengths)
    cache = replace(cache, meta=sf.msgspec.structs.replace(cache.meta, recognizer=MINI))
    return sf.refine_identities(cache, np.arange(20), sf.RefineParams(min_faces=5, **params))


MINI = "0c845ee43af10c1e"


def test_a_weak_face_goes_and_a_set_of_weak_faces_goes_whole() -> None:
    """Seven tenths of the 17.15 that are usual with `mini` are 12.0."""
    lengths = np.full(20, 17.0)
    lengths[3] = 11.9  # one of the first person's
    lengths[10:16] = 9.0  # six of the second's ten
    found = of_lengths(lengths)
    assert [rows.tolist() for rows in found.identities] == [[0, 1, 2, 4, 5, 6, 7, 8, 9]]
    assert (found.dropped["weak"], found.dropped["weak_set"]) == (7, 4)
    assert sum(found.dropped.values()) == 11
    lengths[15] = 12.1  # now half of them are strong
    assert len(of_lengths(lengths).identities) == 2
    assert [len(rows) for rows in of_lengths(lengths, min_length=0.0).identities] == [10, 10]


def test_what_is_usual_is_stored_of_a_known_recogniser_and_measured_of_others() -> None:
    cache = with_lengths(make_cache(people=2, photos=10), np.full(20, 5.0))
    rows = np.arange(20)
    assert sf.usual_length(cache, rows) == pytest.approx(5.0)
    known = replace(cache, meta=sf.msgspec.structs.replace(cache.meta, recognizer=MINI))
    assert sf.usual_length(known, rows) == sf.KNOWN_FIGURES[MINI].length
    assert sf.usual_length(cache, rows[:0]) == 0.0


# --- the report of a set ----------------------------------------------------


def test_a_set_of_one_person_is_clean() -> None:
    for seed, count in enumerate((4, 8, 20, 60, 700)):
        assert verdict_of(noisy(way(0), count, seed=seed)) == purity.CLEAN, count


def test_strangers_are_doubtful_however_many() -> None:
    owner = noisy(way(0), 40, seed=1)
    assert verdict_of(owner, noisy(way(1), 2, seed=2)) == purity.DOUBTFUL
    assert verdict_of(owner, noisy(way(1), 8, seed=2)) == purity.DOUBTFUL
    many = [noisy(way(at), 1, seed=at) for at in range(1, 9)]
    assert verdict_of(owner, *many) == purity.DOUBTFUL


@pytest.mark.parametrize(
    ("cosine", "verdict"), [(0.4, "doubtful"), (0.65, "look"), (0.95, "clean")]
)
def test_two_sides_are_found_by_how_far_apart_they_are(cosine, verdict) -> None:
    """The likeness of the two parts is the cosine of the people behind them."""
    both = noisy(way(0), 40, seed=1), noisy(lookalike(cosine), 20, seed=2)
    found = purity.purity_of(np.concatenate(both), USUAL)
    assert found.verdict == verdict
    if verdict != "clean":
        assert found.parts == pytest.approx(cosine, abs=0.05)
        assert found.part == pytest.approx(1 / 3, abs=0.02)


def test_one_odd_face_does_not_hide_two_sides() -> None:
    """Average linkage parts the odd face last, which is like enough; 2-means sees the sides."""
    both = noisy(way(0), 40, seed=1), noisy(lookalike(0.68), 40, seed=2)
    middle = sf.centroid(np.concatenate(both)).astype(np.float64)
    odd = noisy(middle, 1, seed=3, share=0.5)
    unit = np.concatenate([*both, odd])
    assert purity.last_merge(unit).sum() in (1, len(unit) - 1)
    found = purity.purity_of(unit, USUAL)
    assert found.verdict == purity.LOOK and "two sides" in found.why[0]


def test_each_other_doubt_has_its_words() -> None:
    owner = noisy(way(0), 20, seed=1)
    for facts, word in (
        ({"length": np.full(20, 15.0)}, "weak"),
        ({"rival": ("faceset_007", 0.6)}, "faceset_007 may be the same person"),
        ({"doubles": 3}, "two faces in 3 photos"),
        ({"outliers": 3}, "3 outliers"),
    ):
        found = purity.purity_of(owner, USUAL, **facts)
        assert found.verdict == purity.LOOK and word in found.why[0] and len(found.why) == 1
    assert verdict_of(owner, length=np.full(20, 9.0)) == purity.DOUBTFUL
    loose = noisy(way(0), 20, seed=1, share=0.65)
    assert "little alike" in " ".join(purity.purity_of(loose, USUAL).why)


def test_a_few_faces_and_an_unknown_recogniser_tell_nothing() -> None:
    few = purity.purity_of(noisy(way(0), 3, seed=1), USUAL)
    assert few.verdict == "" and few.why == [purity.NOT_TOLD]
    assert purity.purity_of(noisy(way(0), 30, seed=1), sf.Usual()).verdict == purity.CLEAN


def test_the_rival_is_the_nearest_other_family() -> None:
    unit = np.concatenate(
        [noisy(way(0), 6, seed=1), noisy(lookalike(0.9), 6, seed=2), noisy(lookalike(0.5), 6, 3)]
    )
    sets = {"a": np.arange(6), "a_1999": np.arange(6, 12), "b": np.arange(12, 18)}
    assert purity.rivals_of(unit, sets)["a"][0] == "a_1999"
    kin = {"a": "a", "a_1999": "a", "b": "b"}
    name, cosine = purity.rivals_of(unit, sets, families=kin)["a"]
    assert name == "b" and cosine == pytest.approx(
        float(sf.centroid(unit[:6]) @ sf.centroid(unit[12:])), abs=1e-6
    )
    assert purity.rivals_of(unit, {"a": np.arange(6)})["a"][0] == ""
    only = purity.rivals_of(unit, {"a": np.arange(6)}, [np.arange(12, 18)])
    assert only["a"][0] == "a group of 6 faces"


# --- where it is told -------------------------------------------------------


@pytest.fixture
def mixed(tmp_path) -> Library:
    """A person and her look-alike whom the loosest grouping takes for one, and a clean one."""
    faces = [noisy(way(0), 12, 1), noisy(lookalike(0.4), 8, 2), noisy(way(3), 15, 3)]
    unit = np.concatenate(faces)
    cache = make_cache(people=1, photos=len(unit), dim=DIM, root=str(tmp_path / "photos"))
    return Library(tmp_path, replace(cache, embedding=(unit * 20).astype(np.float32)))


LOOSE = ("--initial-threshold", 0.75, "--outlier-threshold", 1, "--min-faces", 5)


def test_refine_status_and_report_name_the_set_in_question(run, mixed):
    said = ok(run, "refine", mixed.path, mixed.out, *LOOSE)
    odd = [row for row in said["in_question"] if row["verdict"] != "clean"]
    assert [row["faceset"] for row in odd] == ["faceset_001"] and "two sides" in odd[0]["why"]
    assert said["purity"]["clean"] == 1 and sum(said["purity"].values()) == 2
    assert [entry["purity"] for entry in said["facesets"]] == [odd[0]["verdict"], "clean"]
    kept = manifest_of(mixed.out)["facesets"][0]["purity"]
    assert kept["verdict"] == odd[0]["verdict"] and kept["parts"] < 0.6
    assert ok(run, "status", mixed.out)["trees"][0]["in_question"] == 1
    pages = mixed.folder / "pages"
    ok(run, "report", mixed.out, "--out", pages, warned="not a picture this tool can read")
    page = (pages / "index.html").read_text()
    assert f'<span class="flag">{odd[0]["verdict"]}</span>' in page and "two sides" in page


def test_verify_names_doubts_and_ends_well_all_the_same(run, tmp_path):
    space = Space()
    clean = space.faces(0, 12)
    other = 0.5 * axis(1) + 0.75**0.5 * axis(2)
    both = [*space.faces(1, 8), *space.faces(other, 6)]
    more = [space.faces(at, 6) for at in range(3, 9)]
    root = build(tmp_path, [clean, both, *more])
    give_audits(root)
    code, out, err = run("verify", root, "--gate", 1, "--json")
    assert code == 0, out + err
    doubts = json.loads(out)["in_question"]
    assert [row["faceset"] for row in doubts] == ["faceset_002"] and "two sides" in doubts[0]["why"]
    assert wrong(run, root, "--gate", 1) == []
    assert "in_question" not in json.loads(run("verify", root, "--no-faces", "--json")[1])


def test_a_corpus_of_one_set_or_of_none_has_no_doubts_to_tell(run, tmp_path):
    for name, sets in (("one", [[Face(axis(0))] * 3]), ("none", [])):
        root = build(tmp_path / name, sets)
        give_audits(root)
        assert json.loads(run("verify", root, "--json")[1])["in_question"] == []


# --- on real faces ----------------------------------------------------------


def test_real_people_are_clean_and_planted_ones_are_found(shared):
    """The sets of 12 faces and more of half of the people; then with a look-alike in each."""
    import sys

    sys.path.insert(0, str(Path(__file__).parent / "bench"))
    bench = __import__("measure_purity")
    people = bench.read_people(shared / "data" / "embeddings" / "half.npz")
    half = bench.second_half(people.person)
    sets = {
        int(people.person[rows[0]]): rows
        for rows in sf.groups_of(people.person)
        if people.person[rows[0]] >= 0 and len(rows) >= 12 and half[rows[0]]
    }
    verdicts, counts = bench.judged(people, sets, sf.RefineParams.outlier_spreads)
    assert sum(verdict == purity.CLEAN for verdict, _ in verdicts) >= 0.9 * len(sets)
    assert counts["lost"] <= 0.01 * counts["own"]
    plants = bench.planted(people, sets, "look-alike", 0.2)
    free, _ = bench.judged(plants, sets, 0.0)
    assert sum(verdict != purity.CLEAN for verdict, _ in free) >= 0.9 * len(sets)
    _, counts = bench.judged(plants, sets, sf.RefineParams.outlier_spreads)
    assert counts["caught"] >= 0.7 * counts["strangers"]
