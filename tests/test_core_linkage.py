"""Identity linkage: against one merge at a time, its rules, and where it steps back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import make_cache, sf
from hypothesis import given, settings
from hypothesis import strategies as st
from material import Library, manifest_of, ok
from msgspec.structs import replace as changed
from test_core_grouping import at_angles, canonical, directions

SEEDS = st.integers(0, 2**32 - 1)
NOBODY = np.zeros((0, 2), np.intp)
HOW = sf.Linkage("identity", rough=0.55, tight=0.40, copy=0.20, strictness=0.0)
USUAL = sf.Figures(strangers=0.0, spread=0.1, same=0.65, length=20.0)


def people(seed: int, count: int = 300, dim: int = 48, faces: float = 5.0):
    """Unit rows, lengths and owners of a library: weak faces are short, and far from their own."""
    rng = np.random.default_rng(seed)
    sizes = 1 + rng.geometric(1.0 / faces, size=max(count // int(faces), 2))
    person = np.repeat(np.arange(len(sizes)), sizes)[:count]
    centres = directions(rng, len(sizes), dim)
    noise = rng.uniform(0.4, 1.3, size=(len(person), 1))
    unit = sf.unit_rows(centres[person] + noise * directions(rng, len(person), dim))
    return unit, (25.0 - 8.0 * noise[:, 0]).astype(np.float32), person


def start(unit: np.ndarray, how: sf.Linkage = HOW, persons=()) -> sf.Start:
    return sf.start_of(unit, how, persons)


def linkage(unit, length, apart=NOBODY, figures=USUAL, persons=(), strictness=0.0) -> np.ndarray:
    return sf.identity_linkage(unit, length, start(unit, HOW, persons), apart, figures, strictness)


def one_at_a_time(unit, length, apart=NOBODY, figures=USUAL) -> list[int]:
    """The same by the words of the issue: the best merge of all, again and again."""
    begin = start(unit)
    labels = begin.tight.copy()
    for left, right in apart:
        if labels[left] == labels[right]:
            own = np.flatnonzero(labels == labels[left])
            labels[own] = labels.max() + 1 + np.arange(len(own))
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    centre_of = np.stack([sf.centroid(unit[begin.rough == k]) for k in np.unique(begin.rough)])
    crowd = np.zeros(len(unit))
    for rows in groups:
        cosine = np.delete(unit[rows].mean(axis=0) @ centre_of.T, begin.rough[rows[0]])
        crowd[rows] = np.sort(cosine)[::-1][: sf.CROWD].mean() if len(cosine) else 0.0
    barred = {frozenset(pair) for pair in apart.tolist()}
    reach = figures.same - figures.strangers
    least = figures.strangers + sf.SPREADS_NEEDED * figures.spread + sf.REACH_NEEDED * reach

    def worth(a, b) -> float:
        if any(frozenset((x, y)) in barred for x in a.tolist() for y in b.tolist()):
            return -9.0
        usual = figures.strangers + sf.USUAL_CROWDING * reach
        both = [max(crowd[rows].mean() - usual, -sf.EMPTIEST * reach) for rows in (a, b)]
        crowded = sum(both) / 2
        weak, less = sorted(
            (1 - length[rows].mean() / figures.length for rows in (a, b)), reverse=True
        )
        weak -= sf.WEAK_PAIR_COST * max(less, 0.0)
        return (
            float(sf.centroid(unit[a]) @ sf.centroid(unit[b]))
            - sf.SIZE_COST * reach * np.log2(min(len(a), len(b)))
            - sf.CROWDING_COST * crowded
            + sf.WEAKNESS_CREDIT * reach * weak
        )

    while len(groups) > 1:
        pairs = [(worth(a, b), i, j) for i, a in enumerate(groups) for j, b in enumerate(groups)
                 if i < j]  # fmt: skip
        value, i, j = max(pairs)
        if value < least:
            break
        groups[i] = np.concatenate([groups[i], groups.pop(j)])
    result = np.zeros(len(unit), int)
    for number, rows in enumerate(groups):
        result[rows] = number
    return canonical(result)


def agreement(person: np.ndarray, labels: np.ndarray) -> float:
    """Share of pairs that both or neither put together, of those that either does."""
    same, found = person[:, None] == person, labels[:, None] == labels
    upper = np.triu_indices(len(person), 1)
    return (same & found)[upper].sum() / (same | found)[upper].sum()


# ---------------------------------------------------------------------------- what it finds


def test_rounds_of_reciprocal_merges_find_what_one_merge_at_a_time_finds():
    """Not always to the face: a merge can bring a third group nearer, and then the order counts."""
    equal = 0
    for seed in range(8):
        unit, length, _ = people(seed, 60, 24)
        apart = np.random.default_rng(seed).integers(0, len(unit), (12, 2))
        apart = apart[apart[:, 0] != apart[:, 1]]
        labels, expected = linkage(unit, length, apart), one_at_a_time(unit, length, apart)
        assert agreement(np.array(expected), labels) > 0.8
        equal += canonical(labels) == expected
    assert equal >= 7


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_order_of_the_faces_does_not_matter(seed):
    unit, length, _ = people(seed % 1000, 150, 32)
    order = np.random.default_rng(seed).permutation(len(unit))
    labels = linkage(unit, length)
    assert canonical(linkage(unit[order], length[order])) == canonical(labels[order])


def test_it_finds_more_of_a_person_than_average_linkage_at_no_cost():
    better = 0
    for seed in range(4):
        unit, length, person = people(seed, 600, 48)
        figures = sf.figures_of(unit, length, start(unit).rough)
        ours = agreement(person, linkage(unit, length, figures=figures))
        average = agreement(person, sf.average_linkage(unit, HOW.rough))
        better += ours - average
        assert ours >= average
    assert better > 0.1


def test_each_term_moves_the_merge_its_way():
    """Two pairs of faces at a cosine just below what is needed, or just above."""
    least = USUAL.strangers + sf.SPREADS_NEEDED * USUAL.spread + sf.REACH_NEEDED * USUAL.reach
    unit = sf.unit_rows(np.eye(12, dtype=np.float32)[[0, 1]])
    usual = sf.USUAL_CROWDING * USUAL.reach
    unit[1] = [least + 0.01, *np.sqrt([1 - (least + 0.01) ** 2]), *np.zeros(10)]

    def merged(
        size=1.0, moments=0.0, crowded=usual, lengths=(20, 20), owners=(-1, -1), cosine_less=0.0
    ) -> bool:
        state = sf.Agglomeration(
            figures=USUAL,
            least=least + cosine_less,
            sums=unit * size,
            size=np.full(2, size, np.float32),
            moments=np.full(2, moments or size, np.float32),
            crowded=np.full(2, size * crowded, np.float32),
            length=np.array(lengths, np.float32) * size,
            rivals=NOBODY,
            owner=np.array(owners),
        )
        return len(set(sf.agglomerate(state))) == 1

    assert merged()
    assert not merged(size=4.0)
    assert merged(size=4.0, moments=1.0)  # a burst is one face
    assert not merged(crowded=usual + 0.1)
    assert not merged(cosine_less=0.02)
    assert merged(cosine_less=0.02, lengths=(20, 12))
    assert not merged(lengths=(12, 12))
    assert merged(cosine_less=0.02, crowded=usual - 0.1)
    assert not merged(cosine_less=0.1, crowded=usual - 0.5)  # few people are no proof
    assert not merged(owners=(0, 1))
    assert merged(owners=(1, 1)) and merged(owners=(-1, 1))


# ---------------------------------------------------------------------------- its rules


def test_two_faces_of_one_photo_are_two_people_unless_they_are_copies():
    near = at_angles(0, 30, 60, 90)  # cosines .87, .5 and 0
    pairs = sf.one_photo_pairs(near, np.array([7, 7, 7, 3]), copy=0.2)
    assert sorted(map(tuple, pairs.tolist())) == [(0, 2)]
    assert sf.one_photo_pairs(near, np.arange(4), 0.2).shape == (0, 2)
    assert sf.one_photo_pairs(near[:0], np.zeros(0, int), 0.2).shape == (0, 2)


def test_rows_set_apart_never_meet_even_when_all_lie_close():
    unit, length, _ = people(1, 200)
    unit = sf.unit_rows(unit * 0.2 + unit[0])  # all alike: tight groups hold everything
    apart = np.array([[0, 1], [1, 2], [0, 2], [5, 9]])
    labels = linkage(unit, length, apart)
    assert (labels[apart[:, 0]] != labels[apart[:, 1]]).all()
    assert len(set(labels.tolist())) < 30


def test_persons_that_stand_keep_their_faces_and_stay_apart():
    unit, length, person = people(2, 300, 32)
    halves = [np.flatnonzero(person == 0), np.flatnonzero(person == 1)[::2]]
    halves.append(np.setdiff1d(np.flatnonzero(person == 1), halves[1]))
    labels = linkage(unit, length, persons=halves)
    own = [set(labels[rows].tolist()) for rows in halves]
    assert all(len(labels) == 1 for labels in own)
    assert len(set.union(*own)) == 3
    free = linkage(unit, length)
    assert len(set(free[person == 1].tolist())) == 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_faces(count):
    labels = linkage(at_angles(0, 90)[:count], np.full(count, 20.0))
    assert len(set(labels.tolist())) == count
    assert sf.figures_of(at_angles(0, 90)[:count], np.ones(count), np.arange(count)).groups == 0


def test_faces_without_a_direction_stay_alone():
    unit, length, _ = people(5, 120)
    unit[[3, 40]] = 0.0
    labels = linkage(unit, length)
    assert (labels == labels[3]).sum() == (labels == labels[40]).sum() == 1


# ---------------------------------------------------------------------------- its figures


def test_figures_are_those_the_faces_were_made_with():
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(200), 6)
    unit = sf.unit_rows(directions(rng, 200, 256)[person] + 0.7 * directions(rng, 1200, 256))
    figures = sf.figures_of(unit, rng.uniform(15, 25, 1200), person)
    assert figures.groups == 200
    assert figures.strangers == pytest.approx(0.0, abs=0.01)
    assert figures.spread == pytest.approx(1 / 16, rel=0.1)
    assert figures.same == pytest.approx(1 / 1.49, abs=0.02)
    assert figures.length == pytest.approx(20.0, abs=0.3)
    assert figures.separates


def test_the_shots_of_a_burst_share_one_moment():
    unit, _, _ = people(4, 60)
    alone = start(unit).share
    shots = np.repeat(unit, 3, axis=0) + 0.1 * directions(np.random.default_rng(0), 180, 48)
    share = start(sf.unit_rows(shots)).share
    assert share.sum() == pytest.approx(alone.sum(), rel=0.1)
    assert share.max() <= 0.5 < alone.mean()


def test_bursts_say_nothing_of_a_person():
    """Three shots of each moment: who measures them as three faces takes all people for closer."""
    rng = np.random.default_rng(1)
    person = np.repeat(np.arange(80), 5)
    unit = sf.unit_rows(directions(rng, 80, 128)[person] + 0.9 * directions(rng, 400, 128))
    shots = sf.unit_rows(np.repeat(unit, 3, axis=0) + 0.3 * directions(rng, 1200, 128))
    of_moment = np.repeat(person, 3)
    once = sf.figures_of(unit, np.ones(400), person).same
    left_out = sf.figures_of(shots, np.ones(1200), of_moment).same
    counted = sf.figures_of(shots, np.ones(1200), of_moment, copy=0.0).same
    assert left_out <= once  # the shots have noise of their own
    assert counted > left_out + 0.04


def test_what_a_small_library_goes_by():
    few, some = replace(USUAL, groups=5), replace(USUAL, groups=20)
    known, stored = next(iter(sf.KNOWN_FIGURES.items()))
    assert sf.fitting_figures(few, known) == (stored, "")
    assert sf.fitting_figures(some, known) == (stored, "")
    assert sf.fitting_figures(some, "another") == (some, "")
    figures, why = sf.fitting_figures(few, "another")
    assert figures is None
    assert "only 5 people" in why


@pytest.mark.parametrize(
    "figures", [replace(USUAL, groups=99, spread=0.2), sf.Figures(0, 0, 0, 0, 99)]
)
def test_a_recogniser_unlike_those_it_was_made_for_is_not_grouped_by_it(figures):
    assert sf.fitting_figures(figures, "another")[0] is None


# ---------------------------------------------------------------------------- the commands


@pytest.fixture
def library(tmp_path) -> Library:
    """20 people of 4 photos; of the first photo of the second person one face is the first's."""
    cache = make_cache(people=20, photos=4, spread=0.35, root=str(tmp_path / "photos"))
    return Library(tmp_path, cache)


def test_cluster_says_how_it_grouped_and_the_manifest_remembers(run, library):
    assert ok(run, "cluster", library.path, library.out)["linkage"] == "identity"
    manifest = manifest_of(library.out)
    assert manifest["params"]["linkage"] == "identity"
    assert len(manifest["persons"]) == 20


def test_a_distance_of_average_linkage_asks_for_average_linkage(run, library):
    assert ok(run, "cluster", library.path, library.out, "--threshold", 0.5)["linkage"] == "average"
    both = ("--threshold", 0.5, "--linkage", "identity")
    assert ok(run, "cluster", library.path, library.out, *both)["linkage"] == "identity"
    refined = library.out.with_name("refined")
    options = ("--min-faces", 3, "--merge-threshold", 0.3)
    assert ok(run, "refine", library.path, refined, *options)["linkage"] == "average"
    assert ok(run, "refine", library.path, refined, "--min-faces", 3)["linkage"] == "identity"


def test_a_library_it_was_not_made_for_says_why(run, tmp_path):
    library = Library(tmp_path, make_cache(people=4, root=str(tmp_path / "photos")))
    result = ok(run, "cluster", library.path, library.out)
    assert result["linkage"] == "average"
    assert "only 4 people" in result["because"]
    code, out, err = run("cluster", library.path, library.out)
    assert (code, err) == (0, "")
    assert "only 4 people with several photos" in out
    assert sf.headline(result).endswith("by average linkage: " + result["because"])


def test_strictness_splits_and_joins(run, library):
    def persons(strictness: float) -> int:
        return ok(run, "cluster", library.path, library.out, "--strictness", strictness)["persons"]

    counts = [persons(value) for value in (-0.6, 0.0, 0.45)]
    assert counts[0] < counts[1] == 20
    assert ok(run, "cluster", library.path, library.out, "--strictness", 0.45)["singletons"] >= 0


def test_no_person_owns_two_faces_of_one_photo(run, tmp_path):
    cache = make_cache(people=12, photos=6, root=str(tmp_path / "photos"))
    meta = changed(cache.meta, recognizer="beefbeefbeefbeef")
    file, index = cache.face_file.copy(), cache.face_index.copy()
    file[1], index[1] = file[0], 1  # two faces of person 0 in one photo, too far apart for copies
    library = Library(tmp_path, replace(cache, meta=meta, face_file=file, face_index=index))
    for linkage in ("average", "identity"):
        ok(run, "cluster", library.path, library.out, "--linkage", linkage)
        faces = [entry["faces"] for entry in manifest_of(library.out)["persons"]]
        first, second = library.cache.face_ids[0], library.cache.face_ids[1]
        assert any({first, second} & set(own) for own in faces)
        assert not any({first, second} <= set(own) for own in faces)


def test_extend_joins_as_cluster_would(run, tmp_path):
    from test_extend import Growing

    whole = make_cache(people=16, photos=6, root=str(tmp_path / "photos"))
    first = [row for row in range(whole.files) if row % 6 < 4 and row < 90]
    library = Growing(tmp_path, whole, first)
    ok(run, "cluster", library.path, library.raw)
    before = library.persons()
    library.grow()
    result = ok(run, "extend", library.path, library.raw)
    after = library.persons()
    assert result["linkage"] == "identity"
    assert result["joined_persons"] == 30
    assert result["new_persons"] == 1
    assert all(before[name] <= after[name] for name in before if name != "_singletons")
    fresh = ok(run, "cluster", library.path, tmp_path / "fresh")
    groups = {frozenset(entry["faces"]) for entry in manifest_of(tmp_path / "fresh")["persons"]}
    assert fresh["linkage"] == "identity"
    assert groups == {frozenset(faces) for name, faces in after.items() if name != "_singletons"}
