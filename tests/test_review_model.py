"""The model behind the review page: people, doubts, tables, acts as lines, history, undo."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_cache, sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from material import move_face, with_values

decisions = sf.companion("decisions")
people = sf.companion("review/people")
measures = sf.companion("review/measures")
acts = sf.companion("review/acts")

PEOPLE, FACES = 6, 8


class Desk:
    """A model with its file, as the server holds them."""

    def __init__(self, folder, cache, base, **more):
        self.cache, self.book = cache, decisions.Book(folder / "lib.npz")
        self.model = people.Model(cache, base, self.book.lines, **more)
        self.count = self.book.rev

    def act(self, *items, tab="t", base=None, op=""):
        self.count += 1
        base = self.book.rev if base is None else base
        body = {"op": op or f"op{self.count}", "base": base, "tab": tab, "items": list(items)}
        return acts.decide(self.model, self.book, body)

    def undo(self, tab="t", which=None):
        self.count += 1
        return acts.undo(self.model, self.book, f"op{self.count}", tab, which)

    def redo(self, tab="t", which=None):
        self.count += 1
        return acts.redo(self.model, self.book, f"op{self.count}", tab, which)

    def pid(self, row):
        return self.cache.face_ids[row]

    def ids(self, *rows):
        return [self.cache.face_ids[row] for row in rows]

    def groups(self):
        """{lowest row: its person's rows}"""
        return {label: self.model.members(label).tolist() for label in self.model.alive.tolist()}

    def told(self, row):
        return self.model.told(int(self.model.view.labels[row]))

    def together(self, *rows):
        return len(set(self.model.view.labels[list(rows)].tolist())) == 1


@pytest.fixture
def desk(tmp_path, quick_disk):
    """Six people of eight faces each, the first and the last of them cut in two halves."""
    cache = make_cache(PEOPLE, FACES, spread=0.45)
    return Desk(tmp_path, cache, halved(np.repeat(np.arange(PEOPLE), FACES)))


def halved(truth: np.ndarray) -> np.ndarray:
    """The truth, with the first and the last person in two halves."""
    labels = truth.copy()
    labels[4:8], labels[-4:] = truth.max() + 1, truth.max() + 2
    return labels


def brute(model) -> dict:
    """Every table of a model that was built at once, to compare one that was kept up to date."""
    fresh = people.Model(model.cache, model.base, model.lines, model.facts)
    return {"people": people.people_columns(fresh), "faces": every_face(fresh)}


def every_face(model) -> dict:
    return {
        model.pid(label): people.person_faces(model, model.pid(label))
        for label in model.alive.tolist()
    }


# --- people and faces ---------------------------------------------------------


def test_a_library_without_decisions_is_its_base_grouping(desk):
    columns = people.people_columns(desk.model)
    assert sorted(columns["faces"]) == [4, 4, 4, 4, 8, 8, 8, 8]
    assert columns["id"][0] == desk.pid(0) and columns["name"] == [""] * 8
    assert {len(values) for values in columns.values()} == {8}
    assert people.counts(desk.model) == {
        "people": 8, "faces": 48, "singles": 0, "named": 0, "ignored": 0, "hidden": 0,
        "not_faces": 0,
    }  # fmt: skip


def test_faces_come_in_rank_order_with_what_is_known_of_them(desk):
    reply = people.person_faces(desk.model, desk.pid(9))
    columns = reply["columns"]
    rows = sf.rows_of_faces(desk.cache, columns["id"])
    quality = sf.composite_quality(sf.cached_quality_terms(desk.cache), sf.QualityWeights())
    assert sorted(rows.tolist()) == list(range(8, 16)) and reply["total"] == 8
    assert np.allclose(columns["quality"], quality[rows], atol=1e-4)
    assert columns["quality"] == sorted(columns["quality"], reverse=True)
    assert columns["rank"] == list(range(1, 9)) and reply["id"] == desk.pid(8)
    centre = sf.centroid(desk.cache.unit[8:16])
    assert np.allclose(columns["likeness"], desk.cache.unit[rows] @ centre, atol=1e-3)
    assert len(reply["near"]) == 3 and desk.pid(8) not in [one["id"] for one in reply["near"]]
    likeness = [one["likeness"] for one in reply["near"]]
    assert likeness == sorted(likeness, reverse=True)
    paged = people.person_faces(desk.model, desk.pid(9), 3, 2)["columns"]
    assert paged["id"] == columns["id"][3:5] and paged["rank"] == [4, 5]


def test_the_likest_other_person_stands_first(desk):
    assert people.person_faces(desk.model, desk.pid(0))["near"][0]["id"] == desk.pid(4)


def test_everything_told_is_plain_json(desk):
    desk.act({"kind": "name", "people": [desk.pid(0)], "text": "Anna"})
    told = [
        people.people_columns(desk.model),
        people.person_faces(desk.model, desk.pid(0)),
        people.photo_facts(desk.model, desk.pid(0)[:16]),
        people.halves_of(desk.model, desk.pid(8)),
        people.counts(desk.model),
        acts.history(desk.model, desk.book),
    ]
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_an_unknown_face_is_refused(desk):
    with pytest.raises(people.Refused, match="unknown"):
        people.person_faces(desk.model, "ffffffffffffffff:0")


# --- doubts -------------------------------------------------------------------


def doubts_of(model, row: int) -> list[str]:
    columns = people.person_faces(model, model.cache.face_ids[row])["columns"]
    return columns["doubts"][columns["id"].index(model.cache.face_ids[row])]


def one_person(**changes) -> sf.FaceCache:
    return with_values(make_cache(1, 20, spread=0.3), **changes)


def test_a_stranger_among_the_faces_is_far():
    cache = make_cache(2, 20, spread=0.3)
    base = np.zeros(40, int)
    base[21:] = 1  # row 20 is the other person's
    model = people.Model(cache, base)
    assert doubts_of(model, 20) == ["far"] and model.doubtful[0] == 1
    assert people.people_columns(model)["doubtful"] == [1, 0]


def test_weak_faces_are_those_refine_would_not_take():
    cache = make_cache(1, 20, spread=0.3)
    weak = with_values(cache, embedding={3: cache.embedding[3] * 0.6})
    assert doubts_of(people.Model(weak, np.zeros(20, int)), 3) == ["weak"]
    assert doubts_of(people.Model(cache, np.zeros(20, int)), 3) == []


def test_of_two_faces_in_one_photo_the_less_like_is_doubtful_but_copies_are_not():
    cache = make_cache(1, 20, spread=0.3)
    both = move_face(cache, 7, 3)  # photo 7 goes, its face is row 7 still, in photo 3
    model = people.Model(both, np.zeros(20, int))
    found = [row for row in range(20) if "same_photo" in doubts_of(model, row)]
    likely = model.likeness[[3, 7]]
    assert found == [[3, 7][int(likely.argmin())]]
    copied = replace(both, embedding=both.embedding.copy())
    copied.embedding[7] = copied.embedding[3]
    model = people.Model(copied, np.zeros(20, int))
    assert not any("same_photo" in doubts_of(model, row) for row in range(20))
    assert sum("duplicate" in doubts_of(model, row) for row in (3, 7)) == 1


def test_a_photo_before_the_birth_is_doubtful_once_it_is_told(tmp_path, quick_disk):
    cache = make_cache(1, 6)
    taken = {row: (20 + 5 * row) * 365.25 * 86400 + 1e7 for row in range(5)}  # in spring
    desk = Desk(tmp_path, with_values(cache, file_taken=taken), np.zeros(6, int))
    assert doubts_of(desk.model, 0) == []
    desk.act({"kind": "born", "people": [desk.pid(0)], "text": "1994"})
    assert doubts_of(desk.model, 0) == ["before_birth"] and doubts_of(desk.model, 1) == []
    reply = people.person_faces(desk.model, desk.pid(0))
    assert reply["born"] == 1994 and people.people_columns(desk.model)["born"] == [1994]
    spans = [(era["from"], era["to"]) for era in reply["eras"]]
    assert spans == [(1990, 1995), (2000, 2005), (2010, 2010), (None, None)]
    columns = people.people_columns(desk.model)
    assert (columns["first_year"], columns["last_year"]) == ([1990], [2010])


def test_a_date_told_by_hand_counts(tmp_path, quick_disk):
    desk = Desk(tmp_path, make_cache(1, 4), np.zeros(4, int))
    desk.act({"kind": "date", "photos": [desk.pid(2)[:16]], "text": "1987-06"})
    columns = people.person_faces(desk.model, desk.pid(0))["columns"]
    assert columns["year"][columns["id"].index(desk.pid(2))] == 1987
    assert people.people_columns(desk.model)["first_year"] == [1987]
    desk.undo()
    assert people.people_columns(desk.model)["first_year"] == [None]


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_measures_of_all_at_once_are_those_of_each(seed):
    rng = np.random.default_rng(seed)
    cache = make_cache(4, 10, dim=16, seed=seed)
    labels = measures.lowest_rows(rng.integers(0, 9, 40))
    parts = measures.parts_of(labels, np.arange(40))
    several = parts.take(parts.size > 1)
    sums = measures.sums_of(cache.unit, several)
    away = measures.apart_from_rest(
        measures.along(cache.unit, several, sums), sums, several
    )  # fmt: skip
    groups = [rows for rows in sf.groups_of(labels) if len(rows) > 1]
    for rows in groups:
        at = np.flatnonzero(labels[several.rows] == labels[rows[0]])
        assert np.array_equal(several.rows[at], rows)
        assert np.allclose(away[at], sf.own_distances(cache.unit[rows]), atol=1e-4)
        part = several.of_row[at[0]]
        assert math.isclose(several.middle(away)[part], np.median(away[at]), abs_tol=1e-6)


def test_what_the_outputs_say_of_each_face(tmp_path, shared, mini, run):
    """Twenty photos of one person and six of another through the whole chain."""
    for name, count in (("p001", 20), ("p002", 6)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for photo in sorted((shared / "data" / "people" / name).iterdir())[:count]:
            shutil.copy(photo, tmp_path / "photos" / name)
    out = tmp_path / "out"
    code, _, err = run("run", tmp_path / "photos", out, "--model", mini, "--min-faces", 8,
                       "--min-short", 70, "--min-face-short", 70, "--quiet")  # fmt: skip
    assert code == 0, err
    cache = sf.load_cache(out / "faces.npz")
    facts = people.facts_of(cache, out)
    corpus = sf.Corpus(out / "facesets_swap_ready", sf.read_file(
        out / "facesets_swap_ready" / "manifest.json", sf.SwapManifest))  # fmt: skip
    exported = {face.face for one in corpus.sets.values() for face in one.faces}
    found = {cache.face_ids[row] for row in np.flatnonzero(facts.state == people.EXPORTED)}
    assert found == exported and len(found) > 12 and facts.sets == ["faceset_001"]
    left = set(np.flatnonzero(facts.state == people.LEFT_OUT).tolist())
    assert left == set(facts.why)
    base = np.zeros(cache.faces, int)
    columns = people.people_columns(people.Model(cache, base, (), facts))
    assert (columns["exported"], columns["set"]) == ([len(exported)], ["faceset_001"])
    nothing = people.facts_of(cache, tmp_path)
    assert not nothing.state.any() and nothing.sets == []


# --- acts ---------------------------------------------------------------------


def test_merge_makes_one_person_and_keeps_the_name(desk):
    desk.act({"kind": "name", "people": [desk.pid(4)], "text": "Anna"})
    result = desk.act({"kind": "merge", "people": [desk.pid(0), desk.pid(6)]})
    assert desk.together(*range(8)) and desk.told(0).name == "Anna"
    assert result["effects"]["people"] == 1 and result["effects"]["faces"] == 4
    now = desk.model.pid(0)
    assert result["changed"] == [now] and result["gone"] == {desk.pid(0): now}
    assert now in desk.ids(4, 5, 6, 7)  # the oldest anchor
    assert people.person_faces(desk.model, desk.pid(0))["id"] == now


def test_one_yes_makes_one_person_of_many(desk):
    pids = [desk.pid(row) for row in (0, 4, 8, 16)]
    desk.act({"kind": "merge", "people": pids, "name": "All"})
    assert desk.together(*range(24)) and desk.told(20).name == "All"
    assert len(desk.groups()) == 5


def test_a_merge_with_itself_or_again_is_refused(desk):
    desk.act({"kind": "merge", "people": [desk.pid(0), desk.pid(4)]})
    for item in (
        {"kind": "merge", "people": desk.ids(0, 4)},
        {"kind": "merge", "people": desk.ids(9, 10)},
        {"kind": "not_face", "faces": desk.ids(0), "off": True},
        {"kind": "ignore", "people": desk.ids(0), "off": True},
        {"kind": "name", "people": desk.ids(0), "text": ""},
        {"kind": "move", "faces": desk.ids(1, 2), "to": desk.pid(0)},
        {"kind": "not_belongs", "faces": desk.ids(*range(8)), "person": desk.pid(0)},
    ):
        before = desk.book.rev
        with pytest.raises(people.Refused) as refused:
            desk.act(item)
        assert refused.value.error == "nothing" and desk.book.rev == before


def test_merging_a_stranger_into_a_named_person_is_no_more_a_stranger(desk):
    desk.act({"kind": "ignore", "people": [desk.pid(8)]})
    desk.act({"kind": "name", "people": [desk.pid(16)], "text": "Ben"})
    assert desk.told(8).ignored and people.counts(desk.model)["ignored"] == 1
    desk.act({"kind": "merge", "people": desk.ids(16, 8)})
    assert desk.together(8, 16) and desk.told(8) == people.Told(name="Ben")


@pytest.mark.parametrize("chosen", [[9], [9, 12], list(range(8, 15))])
def test_not_this_person_moves_exactly_the_chosen(desk, chosen):
    before = desk.groups()
    desk.act({"kind": "not_belongs", "faces": desk.ids(*chosen), "person": desk.pid(8)})
    rest = sorted({*range(8, 16)} - {*chosen})
    assert desk.together(*rest)
    assert not any(desk.together(rest[0], row) for row in chosen)
    others = {label: rows for label, rows in before.items() if label != 8}
    now = desk.groups()
    assert {label: now[label] for label in others} == others


@pytest.mark.parametrize("chosen", [[9], [9, 12], [0, 9, 12], list(range(8, 16))])
def test_move_takes_exactly_the_chosen(desk, chosen):
    before = desk.groups()
    result = desk.act({"kind": "move", "faces": desk.ids(*chosen), "to": desk.pid(24)})
    assert desk.together(*chosen, *range(24, 32))
    kept = {row: label for label, rows in before.items() for row in rows if row not in chosen}
    for label in set(kept.values()):
        assert desk.together(*[row for row, own in kept.items() if own == label])
    assert len(desk.model.members(int(desk.model.view.labels[24]))) == 8 + len(chosen)
    assert result["effects"]["faces"] == len(chosen)


def test_split_off_makes_a_person_with_a_name(desk):
    desk.act({"kind": "split", "faces": desk.ids(8, 9, 10), "name": "  Ca\u0301ra\u202e\n x "})
    assert desk.together(8, 9, 10) and not desk.together(8, 11) and desk.together(*range(11, 16))
    assert desk.told(8).name == "C\u00e1ra x" and desk.told(11).name == ""


def test_a_person_that_was_told_splits_and_the_name_stays_with_the_rest(desk):
    desk.act({"kind": "name", "people": [desk.pid(8)], "text": "Anna"})
    desk.act({"kind": "split", "faces": desk.ids(8, 9)})
    assert desk.told(12).name == "Anna" and desk.told(8).name == ""
    desk.act({"kind": "move", "faces": desk.ids(10), "to": desk.pid(8)})
    assert desk.together(8, 9, 10) and desk.together(*range(11, 16))


def test_halves_are_shown_as_they_are_cut(tmp_path, quick_disk):
    cache = make_cache(3, 10, spread=0.4)
    desk = Desk(tmp_path, cache, np.repeat([0, 0, 2], 10))
    shown = people.halves_of(desk.model, desk.pid(0))
    parts = [sorted(shown[name]["members"]) for name in ("left", "right")]
    assert sorted(parts) == [sorted(desk.ids(*range(10))), sorted(desk.ids(*range(10, 20)))]
    assert len(shown["left"]["shown"]) == 8 and shown["left"]["faces"] == 10
    desk.act({"kind": "halves", "person": desk.pid(0)})
    assert desk.together(*range(10)) and desk.together(*range(10, 20)) and not desk.together(0, 10)


def test_not_a_face_leaves_its_person(desk):
    desk.act({"kind": "not_face", "faces": desk.ids(8, 10)})
    assert desk.model.view.labels[[8, 10]].tolist() == [-1, -1]
    assert people.counts(desk.model)["not_faces"] == 2 and len(desk.groups()[9]) == 6
    box = people.photo_facts(desk.model, desk.pid(8)[:16])["boxes"][0]
    assert box["not_face"] and box["person"] is None
    desk.act({"kind": "not_face", "faces": desk.ids(8, 10), "off": True})
    assert len(desk.groups()[8]) == 8


def test_the_best_picture_is_the_cover_and_there_is_one(desk):
    for row in (9, 11):
        desk.act({"kind": "best", "face": desk.pid(row)})
        assert desk.model.cover[8] == row
        columns = people.person_faces(desk.model, desk.pid(8))["columns"]
        assert [columns["id"][at] for at, best in enumerate(columns["best"]) if best] == desk.ids(
            row
        )
    desk.act({"kind": "best", "face": desk.pid(9)})  # again: it is the latest word
    assert desk.model.cover[8] == 9
    desk.undo()
    desk.act({"kind": "merge", "people": desk.ids(8, 16)})
    assert desk.model.cover[8] == 11


def test_hidden_and_ignored_are_flags_and_are_no_near_people(desk):
    desk.act({"kind": "hide", "people": desk.ids(4)}, {"kind": "ignore", "people": desk.ids(8)})
    flags = dict(zip(desk.model.alive, desk.model.flags(desk.model.alive), strict=True))
    assert (flags[4], flags[8], flags[0]) == (people.HIDDEN, people.IGNORED, 0)
    near = [one["id"] for one in people.person_faces(desk.model, desk.pid(0))["near"]]
    assert not {desk.model.pid(4), desk.model.pid(8)} & {*near}


def test_keep_and_drop_are_told(desk):
    desk.act({"kind": "keep", "faces": desk.ids(8)}, {"kind": "drop", "faces": desk.ids(9)})
    columns = people.person_faces(desk.model, desk.pid(8))["columns"]
    told = dict(zip(columns["id"], columns["keep"], strict=True))
    assert (told[desk.pid(8)], told[desk.pid(9)], told[desk.pid(10)]) == (1, -1, 0)


def test_loose_faces_near_a_changed_person_are_counted(tmp_path, quick_disk):
    cache = make_cache(3, 10, spread=0.3)
    base = np.repeat(np.arange(3), 10)
    base[6:10] = [3, 4, 5, 6]  # four faces of the first person are loose
    base[3:6] = 7
    desk = Desk(tmp_path, cache, base)
    lone = desk.act({"kind": "merge", "people": desk.ids(10, 20)})
    assert lone["effects"]["newly"] == 0
    joined = desk.act({"kind": "move", "faces": desk.ids(6), "to": desk.pid(7)})
    near = cache.unit[8:10] @ sf.centroid(cache.unit[6:8]) >= 1 - sf.Thresholds.candidate
    assert joined["effects"]["newly"] == near.sum() == 2


@pytest.mark.parametrize(
    "item",
    [
        {"kind": "fly"},
        {"kind": "name", "people": [], "text": "x"},
        {"kind": "name", "people": ["../../etc"], "text": "x"},
        {"kind": "name", "people": ["0" * 16 + ":0"], "text": "x" * 201},
        {"kind": "name", "people": ["0" * 16 + ":0"], "text": "x", "more": 1},
        {"kind": "born", "people": ["0" * 16 + ":0"], "text": "19x4"},
        {"kind": "date", "photos": ["0" * 16], "text": "yesterday"},
        {"kind": "best", "face": None},
    ],
)
def test_what_is_not_of_the_shape_is_refused(desk, item):
    with pytest.raises(people.Refused) as refused:
        desk.act(item)
    assert refused.value.error == "unusable" and desk.book.rev == 0


# --- several pages ------------------------------------------------------------


def test_two_pages_on_different_people_never_meet(desk):
    desk.act({"kind": "name", "people": desk.ids(8), "text": "Anna"}, tab="a", base=0)
    desk.act({"kind": "name", "people": desk.ids(16), "text": "Ben"}, tab="b", base=0)
    assert (desk.told(8).name, desk.told(16).name) == ("Anna", "Ben")


def test_a_page_that_has_not_seen_a_change_of_its_person_is_refused(desk):
    desk.act({"kind": "merge", "people": desk.ids(8, 16)}, tab="a", base=0)
    with pytest.raises(people.Refused) as refused:
        desk.act({"kind": "name", "people": desk.ids(16), "text": "Ben"}, tab="b", base=0)
    facts = refused.value.facts
    assert refused.value.error == "changed" and facts["rev"] == desk.book.rev == 1
    assert [act["op"] for act in facts["theirs"]] == ["op1"]
    assert [one["id"] for one in facts["mine"]] == [desk.pid(8)]
    desk.act({"kind": "name", "people": desk.ids(16), "text": "Ben"}, tab="a", base=0)  # own act
    assert desk.told(8).name == "Ben"


def test_a_repeated_act_is_made_once(desk):
    item = {"kind": "name", "people": desk.ids(8), "text": "Anna"}
    first = desk.act(item, op="same-op")
    again = desk.act(item, op="same-op")
    assert (first["rev"], again["rev"], again["lines"]) == (1, 1, 1)


def test_what_another_process_wrote_is_taken_in(desk):
    other = decisions.Book(desk.book.path.with_name("lib.npz"))
    refs = decisions.refs(desk.cache, range(8, 16))
    other.append([decisions.act("name", "elsewhere", faces=refs, text="Cid")])
    change = acts.follow(desk.model, desk.book)
    assert change.changed == [desk.model.pid(8)] and desk.told(8).name == "Cid"
    assert acts.follow(desk.model, desk.book) is None


# --- undo and history ---------------------------------------------------------


def test_undo_and_redo_go_step_by_step(desk):
    start = desk.groups()
    desk.act({"kind": "merge", "people": desk.ids(0, 4)})
    desk.act({"kind": "name", "people": desk.ids(0), "text": "Anna"})
    assert desk.undo()["undone"] == "op2" and desk.told(0).name == "" and desk.together(0, 4)
    result = desk.undo()
    assert result["undone"] == "op1" and desk.groups() == start and result["act"]["revoked"]
    assert result["act"]["sentence"]["key"] == "same"
    with pytest.raises(people.Refused, match="nothing"):
        desk.undo()
    desk.redo()
    assert desk.together(0, 4) and desk.told(0).name == ""
    desk.redo()
    assert desk.told(0).name == "Anna"
    with pytest.raises(people.Refused, match="nothing"):
        desk.redo()


def test_undo_takes_this_pages_act_or_the_one_named(desk):
    desk.act({"kind": "name", "people": desk.ids(8), "text": "Anna"}, tab="a")
    desk.act({"kind": "name", "people": desk.ids(16), "text": "Ben"}, tab="b")
    assert desk.undo(tab="a")["undone"] == "op1" and desk.told(16).name == "Ben"
    assert desk.undo(tab="a", which="op2")["undone"] == "op2" and desk.told(16).name == ""
    assert desk.redo(tab="a", which="op1")["undone"]  # the undo of op1 is taken back
    assert desk.told(8).name == "Anna"


def test_acts_that_fit_in_go_on_from_those_before_and_others_are_read_anew(desk):
    desk.act({"kind": "merge", "people": desk.ids(0, 4)})
    resolver = desk.model.resolver
    desk.act({"kind": "name", "people": desk.ids(0), "text": "Anna"})
    desk.act({"kind": "not_belongs", "faces": desk.ids(9), "person": desk.pid(8)})
    assert desk.model.resolver is resolver
    desk.act({"kind": "split", "faces": desk.ids(4, 5, 6, 7)})  # says otherwise than the first
    assert desk.model.resolver is not resolver and not desk.together(0, 4)
    whole = decisions.resolve(desk.cache, desk.book.lines)
    assert np.array_equal(whole.word.person, desk.model.view.word.person)
    assert np.array_equal(whole.word.apart, desk.model.view.word.apart)


def test_history_tells_acts_newest_first(desk):
    desk.act({"kind": "merge", "people": desk.ids(0, 4), "name": "Anna"})
    desk.act({"kind": "move", "faces": desk.ids(9), "to": desk.pid(0)})
    desk.act({"kind": "ignore", "people": desk.ids(16)})
    desk.undo()
    story = acts.history(desk.model, desk.book)
    told = [(act["kind"], act["revoked"]) for act in story["acts"]]
    assert told == [("undo", False), ("ignore", True), ("move", False), ("same", False)]
    values = story["acts"][2]["sentence"]["values"]
    assert (values["left_faces"], values["right"], values["right_faces"]) == (1, "Anna", 8)
    assert story["acts"][3]["count"] == 8 and story["acts"][1]["by"] == story["acts"][0]["op"]
    part = acts.history(desk.model, desk.book, before=story["acts"][2]["rev"], most=5)
    assert [act["op"] for act in part["acts"]] == ["op1"]
    assert len(acts.history(desk.model, desk.book, most=2)["acts"]) == 2


def test_words_that_cannot_both_be_true_are_told(desk):
    desk.act({"kind": "merge", "people": desk.ids(8, 16)})
    desk.act({"kind": "split", "faces": desk.ids(*range(16, 24))})
    assert not desk.together(8, 16)
    conflicts = acts.history(desk.model, desk.book)["conflicts"]
    assert [(one["op"], one["by"]) for one in conflicts] == [("op1", ["op2"])]


@given(st.data())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_acts_kept_up_to_date_are_as_if_read_anew_and_undo_of_all_is_the_start(
    tmp_path_factory, quick_disk, data
):
    cache = make_cache(PEOPLE, FACES, spread=0.45)
    truth = np.repeat(np.arange(PEOPLE), FACES)
    desk = Desk(tmp_path_factory.mktemp("acts"), cache, halved(truth))
    start = brute(desk.model)
    row = st.integers(0, cache.faces - 1)
    some = st.lists(row, min_size=1, max_size=5, unique=True)
    for _ in range(data.draw(st.integers(1, 6))):
        faces = desk.ids(*data.draw(some))
        item = data.draw(st.sampled_from([
            {"kind": "merge", "people": faces}, {"kind": "split", "faces": faces},
            {"kind": "move", "faces": faces, "to": desk.pid(data.draw(row))},
            {"kind": "not_face", "faces": faces}, {"kind": "hide", "people": faces},
            {"kind": "name", "people": faces[:1], "text": "Anna"},
            {"kind": "ignore", "people": faces[:2]}, {"kind": "best", "face": faces[0]},
            {"kind": "halves", "person": faces[0]},
            {"kind": "not_belongs", "faces": faces[:1], "person": faces[0]},
        ]))  # fmt: skip
        try:
            desk.act(item)
        except people.Refused as refused:
            assert refused.error in ("nothing", "unknown")
        now = {"people": people.people_columns(desk.model), "faces": every_face(desk.model)}
        assert now == brute(desk.model)
    while True:
        try:
            desk.undo()
        except people.Refused:
            break
    now = {"people": people.people_columns(desk.model), "faces": every_face(desk.model)}
    assert now == start
