"""What the review page asks: likelihoods, order, windows that imply nothing, when it is done."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from conftest import make_cache, sf
from hypothesis import given, settings
from hypothesis import strategies as st
from test_review_model import Desk

constraints = sf.companion("constraints")
decisions = sf.companion("decisions")
people = sf.companion("review/people")
questions = sf.companion("review/questions")
acts = sf.companion("review/acts")

LATER = "2999-01-01T00:00:00+00:00"


class Asker(Desk):
    """A desk with its queues."""

    def __init__(self, folder, cache, base, started=""):
        super().__init__(folder, cache, base)
        self.queues = questions.Queues(self.model, started)

    def act(self, *items, tab="t", base=None, op=""):
        self.count += 1
        base = self.book.rev if base is None else base
        body = {"op": op or f"op{self.count}", "base": base, "tab": tab, "items": list(items)}
        result = acts.decide(self.model, self.book, body, self.queues.question_of)
        result["dropped_questions"] = self.queues.update(result.pop("change"))
        return result

    def undo(self, tab="t", which=None):
        result = super().undo(tab, which)
        result["dropped_questions"] = self.queues.update(result.pop("change"))
        return result

    def ask(self, kind="same", most=12, after=()):
        return self.queues.questions(kind, most, after)

    def answer(self, question, answer, **more):
        return self.act({"kind": "answer", "qid": question.qid, "answer": answer, **more})

    def pairs(self, kind="same", most=100):
        return [question.labels for question in self.ask(kind, most)]


def library(people_=8, faces=12, parts=3, spread=0.8, seed=0):
    """(cache, labels of people in that many parts each, truth); likenesses are not all alike."""
    cache = make_cache(people_, faces, spread=spread, seed=seed)
    truth = np.repeat(np.arange(people_), faces)
    return cache, np.arange(len(truth)) // (faces // parts), truth


@pytest.fixture
def asker(tmp_path, quick_disk):
    cache, base, _ = library()
    return Asker(tmp_path, cache, base)


def truth_of(asker, question):
    """Whether a question's two sides are one person; faces come in twelves."""
    return question.left[0] // 12 == question.right[0] // 12


# --- likelihood and worth -----------------------------------------------------


@given(st.floats(-0.5, 1.2), st.floats(0, 1), st.integers(1, 100), st.floats(0.3, 1.5))
def test_a_likelihood_grows_with_the_likeness(likeness, more, smaller, length):
    low, high = (
        questions.TWO_GROUPS.of(np.array(one), smaller, length, length)
        for one in (likeness, likeness + more)
    )
    assert 0.0 <= low <= high <= 1.0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=80))
def test_own_answers_move_likelihoods_and_keep_them_in_order(given_):
    learned = questions.Learned()
    grid = np.linspace(0, 1, 101)
    before = learned.adjusted(grid)
    assert np.allclose(before, grid, atol=1e-9)
    for likelihood, yes in given_:
        learned.note(likelihood, yes)
    after = learned.adjusted(grid)
    assert (np.diff(after) >= -1e-12).all() and after[0] == 0.0 and after[-1] == 1.0
    if given_ and all(yes for _, yes in given_):
        assert (after >= before - 1e-12).all() and after.sum() > before.sum()
    if given_ and not any(yes for _, yes in given_):
        assert (after <= before + 1e-12).all() and after.sum() < before.sum()


def test_what_an_answer_is_worth():
    assert questions.value_of(np.array(40.0), np.array(40.0)) == 40.0
    assert questions.value_of(np.array(1.0), np.array(99.0)) == pytest.approx(1.98)
    easy, hard = questions.seconds(np.array([0.0, 0.5]))
    assert (easy, hard) == (questions.SECONDS_EASY, questions.SECONDS_HARD)


def test_the_best_question_comes_first(asker):
    ranked = asker.queues.same()
    assert (np.diff(ranked.gain) <= 0).all() and len(ranked) > 12
    value = questions.value_of(*(asker.model.worth[side] for side in (ranked.left, ranked.right)))
    gain = value * ranked.believed / questions.seconds(ranked.believed)
    assert np.allclose(gain, ranked.gain)
    assert asker.pairs(most=1) == [(ranked.left[0], ranked.right[0])]


def test_a_named_person_counts_double_and_stands_on_the_left(asker):
    left, right = asker.pairs(most=1)[0]
    before = asker.queues.same()
    asker.act({"kind": "name", "people": [asker.model.pid(right)], "text": "Anna"})
    after = asker.queues.same()
    pair = {int(left), int(right)}
    at = [{int(a), int(b)} == pair for a, b in zip(after.left, after.right, strict=True)].index(
        True
    )
    assert after.left[at] == right and after.gain[at] == pytest.approx(2 * before.gain[0])


# --- what is never asked ------------------------------------------------------


def test_ignored_hidden_and_not_faces_are_never_asked(asker):
    left, right = asker.pairs(most=1)[0]
    asker.act({"kind": "ignore", "people": [asker.model.pid(left)]})
    assert left not in {one for pair in asker.pairs() for one in pair}
    asker.undo()
    assert (left, right) in asker.pairs()
    asker.act({"kind": "hide", "people": [asker.model.pid(right)]})
    assert right not in {one for pair in asker.pairs() for one in pair}
    asker.undo()
    asker.act({"kind": "not_face", "faces": asker.ids(*asker.model.members(left))})
    assert left not in {one for pair in asker.pairs() for one in pair}


def test_two_named_people_are_never_asked(asker):
    left, right = asker.pairs(most=1)[0]
    asker.act(
        {"kind": "name", "people": [asker.model.pid(left)], "text": "Anna"},
        {"kind": "name", "people": [asker.model.pid(right)], "text": "Ben"},
    )
    found = asker.queues.same()
    named = (asker.model.flags(found.left) & asker.model.flags(found.right) & people.NAMED) > 0
    assert not named.any()


def test_what_the_answers_imply_is_not_asked(asker):
    one, two, three = (asker.pid(row) for row in (0, 4, 8))
    asker.act({"kind": "merge", "people": [one, two]})
    labels = {asker.model.label_of(pid) for pid in (one, two)}
    assert len(labels) == 1 and not any(len(set(pair)) == 1 for pair in asker.pairs())
    question = next(q for q in asker.ask(most=100) if asker.model.label_of(three) in q.labels)
    asker.answer(question, "different")
    assert question.labels not in asker.pairs()
    other = next(label for label in question.labels if label != asker.model.label_of(three))
    asker.act({"kind": "merge", "people": [asker.model.pid(other), asker.pid(90)]})
    pair = {asker.model.label_of(three), asker.model.label_of(asker.pid(90))}
    assert pair not in [set(pair) for pair in asker.pairs()]


def test_a_skipped_question_rests_for_this_session_and_comes_once_more(tmp_path, quick_disk):
    cache, base, _ = library()
    asker = Asker(tmp_path, cache, base)
    question = asker.ask(most=1)[0]
    assert asker.answer(question, "skip")["dropped_questions"] == [question.qid]
    assert question.labels not in asker.pairs()
    again = Asker(tmp_path, cache, base, started=LATER)
    assert question.labels in again.pairs()
    first = next(q for q in again.ask(most=100) if q.labels == question.labels)
    again.answer(first, "skip")
    assert question.labels not in again.pairs()
    assert question.labels not in Asker(tmp_path, cache, base, started=LATER).pairs()


# --- windows ------------------------------------------------------------------


def implied(pairs, known_two, answers) -> list[bool]:
    """For each pair: whether the answers to all the others decide it already."""
    found, answers_of = [], list(zip(pairs, answers, strict=True))
    for at, (left, right) in enumerate(pairs):
        links = constraints.Links()
        others = [(pair, yes) for k, (pair, yes) in enumerate(answers_of) if k != at]
        for pair, yes in others:
            if yes and not links.join(*pair):
                return [True]  # they contradict each other: one was implied by some
        for pair in [*known_two, *(pair for pair, yes in others if not yes)]:
            if not links.part(*pair):
                return [True]
        found.append(links.find(left) == links.find(right) or links.apart(left, right))
    return found


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_question_of_a_window_is_implied_by_answers_to_the_others(data):
    node = st.integers(0, 7)
    edge = st.tuples(node, node).filter(lambda pair: pair[0] != pair[1])
    asked = data.draw(st.lists(edge, min_size=1, max_size=14))
    two = data.draw(st.lists(edge, max_size=5))
    forest = constraints.Links()
    for pair in two:
        forest.part(*pair)
    left, right = np.array(asked).T
    chosen = [asked[at] for at in questions.independent(left, right, 6, forest)]
    assert len(chosen) <= 6
    for answers in itertools.product([True, False], repeat=len(chosen)):
        assert not any(implied(chosen, two, answers))


def test_the_left_person_stays_for_seven_questions_at_most():
    left, right = np.zeros(20, int), np.arange(1, 21)
    left = np.append(left, 50)
    right = np.append(right, 51)
    chosen = questions.independent(left, right, 12, constraints.Links())
    assert chosen[:8] == [*range(7), 20] and len(chosen) == 12


def test_a_window_is_refilled_behind_what_is_shown(asker):
    first = asker.ask(most=4)
    shown = [question.qid for question in first[:2]]
    more = asker.ask(most=6, after=shown)
    assert not {question.qid for question in more} & {*shown}
    links = constraints.Links()
    for question in [*first[:2], *more]:
        assert links.find(question.labels[0]) != links.find(question.labels[1])
        assert links.join(*question.labels)


def test_an_answer_drops_what_it_touches_and_nothing_else(asker):
    shown = asker.ask(most=12)
    result = asker.answer(shown[0], "same")
    gone = {q.qid for q in shown if {*q.labels} & {*shown[0].labels}}
    assert {*result["dropped_questions"]} == gone
    kept = [question for question in shown if question.qid not in gone]
    assert kept and all(asker.queues.question_of(q.qid) is q for q in kept)
    with pytest.raises(people.Refused, match="stale"):
        asker.answer(shown[0], "same")


def test_neighbours_kept_up_to_date_are_those_found_anew(asker):
    rng = np.random.default_rng(0)
    for _ in range(12):
        rows = rng.choice(asker.cache.faces, 3, replace=False)
        kind = rng.choice(["merge", "split", "ignore"])
        item = {"kind": str(kind), "people": asker.ids(*rows)}
        if kind == "split":
            item = {"kind": "split", "faces": asker.ids(*rows)}
        asker.act(item)
        fresh = questions.Pairs(asker.model)
        own = best_of(asker.queues.pairs)
        assert own == best_of(fresh) and len(own) > 5


def best_of(pairs) -> dict[int, int]:
    """{label: its nearest neighbour}"""
    nodes = np.flatnonzero(pairs.label >= 0)
    best = pairs.cosine[nodes].argmax(axis=1)
    near = pairs.label[pairs.near[nodes, best]]
    return dict(zip(pairs.label[nodes].tolist(), near.tolist(), strict=True))


# --- the other queues ---------------------------------------------------------


@pytest.fixture
def loose(tmp_path, quick_disk):
    """Three people of ten, and two more faces of the first, one of the second, loose."""
    cache = make_cache(3, 12, spread=0.35)
    base = np.repeat(np.arange(3), 12)
    base[[10, 11, 22]] = [5, 6, 7]
    base[[23, 34, 35]] = [1, 2, 2]
    return Asker(tmp_path, cache, base)


def test_loose_faces_are_asked_with_the_three_likest_people(loose):
    found = loose.ask("whose")
    assert sorted(q.labels[0] for q in found) == [10, 11, 22]
    told = {q.labels[0]: questions.told(loose.queues, q) for q in found}
    for row, home in ((10, 0), (11, 0), (22, 12)):
        assert told[row]["choices"][0]["id"] == loose.pid(home) and len(told[row]["choices"]) == 3
    assert [one["id"] for one in told[10]["alike"]] == loose.ids(11)
    assert told[10]["face"]["photo"] == loose.pid(10)[:16]


def test_a_face_is_given_with_those_like_it(loose):
    question = next(q for q in loose.ask("whose") if q.labels == (10,))
    loose.answer(question, loose.pid(0), faces=loose.ids(11))
    assert loose.together(0, 10, 11) and [q.labels for q in loose.ask("whose")] == [(22,)]
    loose.undo()
    assert len(loose.ask("whose")) == 3


@pytest.mark.parametrize("answer", ["stranger", "not_face", "skip"])
def test_a_face_of_nobody_is_asked_no_more(loose, answer):
    question = next(q for q in loose.ask("whose") if q.labels == (22,))
    loose.answer(question, answer)
    assert sorted(q.labels[0] for q in loose.ask("whose")) == [10, 11]
    assert loose.told(22).ignored == (answer == "stranger")


def test_loose_faces_kept_up_to_date_are_as_compared_anew(loose):
    loose.ask("whose")
    for item in (
        {"kind": "split", "faces": loose.ids(24, 25)},
        {"kind": "merge", "people": loose.ids(0, 12)},
        {"kind": "not_belongs", "faces": loose.ids(3, 26), "person": loose.pid(3)},
        {"kind": "hide", "people": loose.ids(24)},
    ):
        if item["kind"] == "not_belongs":
            item["faces"] = loose.ids(3)
        loose.act(item)
        loose.ask("whose")
        kept, fresh = loose.queues.loose, questions.Loose(loose.model)
        while fresh.step():
            pass
        assert np.array_equal(kept.rows, fresh.rows)
        assert np.array_equal(kept.label, fresh.label)
        assert np.allclose(kept.cosine, fresh.cosine, atol=1e-6)


@pytest.fixture
def mixed(tmp_path, quick_disk):
    """Two people in one group, and two whole ones."""
    cache = make_cache(4, 12, spread=0.5)
    return Asker(tmp_path, cache, np.repeat([0, 0, 2, 3], 12))


def test_a_person_that_is_two_is_looked_at_first(mixed):
    question = mixed.ask("look")[0]
    assert question.labels == (0,) and question.likelihood < 0.5
    assert {frozenset(question.left), frozenset(question.right)} == {
        frozenset(range(12)), frozenset(range(12, 24)),
    }  # fmt: skip
    mixed.answer(question, "different")
    assert not mixed.together(0, 12) and mixed.together(*range(12)) and mixed.together(12, 23)
    mixed.undo()
    mixed.answer(mixed.ask("look")[0], "same")
    assert mixed.together(*range(24)) and 0 not in {q.labels[0] for q in mixed.ask("look")}


def test_both_queues_are_told_as_plain_json(mixed, loose):
    for asker, kind in ((mixed, "look"), (mixed, "same"), (loose, "whose")):
        page = questions.page(asker.queues, kind)
        assert json.loads(json.dumps(page, allow_nan=False)) == page
        assert page["questions"] or kind == "same"


def test_the_background_does_the_same_in_small_steps(loose):
    steps = 0
    while loose.queues.idle():
        steps += 1
    state = loose.queues.state()
    assert steps > 2 and not loose.queues.stale
    assert state["queues"]["whose"] == 3 and len(loose.queues.ranked_now["whose"]) == 3


# --- when to stop -------------------------------------------------------------


def test_answers_bring_the_queue_to_its_end(tmp_path, quick_disk):
    cache, base, _ = library(spread=0.55)
    asker = Asker(tmp_path, cache, base)
    begun = asker.queues.state()["wrong"]
    assert begun["low"] <= begun["expected"] <= begun["high"] and begun["expected"] > 10
    asked = 0
    while (ranked := asker.queues.same()) and ranked.gain[:1].sum() >= questions.WORTH_ASKING:
        question = asker.ask(most=1)[0]
        asker.answer(question, "same" if truth_of(asker, question) else "different")
        asked += 1
        assert asked < 200
    ended = asker.queues.state()
    assert ended["queues"]["same"] == 0 and ended["wrong"]["expected"] < begun["expected"] / 4
    assert len(asker.groups()) == 8
    assert asker.ask("whose") == [] and not ended["done"]  # nobody has looked for strangers yet
    for _ in range(8):
        if found := asker.ask("look", 1):
            asker.answer(found[0], "same")
    assert asker.queues.state()["done"]


def test_what_is_wrong_is_counted_once():
    ranked = questions.Ranked(
        left=np.array([0, 1, 2, 5]), right=np.array([1, 2, 0, 6]),
        likelihood=np.full(4, 0.5), believed=np.array([0.9, 0.5, 0.8, 0.5]),
        wrong=np.array([10, 10, 10, 4]), gain=np.ones(4),
    )  # fmt: skip
    found = questions.Queues.heaviest(None, ranked)
    assert sorted(found.tolist()) == [0, 2, 3]
