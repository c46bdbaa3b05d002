"""The operator's word: what of his decisions holds, and how groupings are brought under it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_cache, sf
from hypothesis import given, settings
from hypothesis import strategies as st

decisions, constraints = sf.companion("decisions"), sf.companion("constraints")
PEOPLE, PHOTOS = 5, 6
CACHE = make_cache(people=PEOPLE, photos=PHOTOS, dim=32)
TRUTH = np.repeat(np.arange(PEOPLE), PHOTOS)


def line(kind: str, faces: Sequence[int] = (), others: Sequence[int] = (), **facts: object):
    op = str(facts.pop("op", decisions.new_op()))
    sides = {"faces": decisions.refs(CACHE, faces), "others": decisions.refs(CACHE, others)}
    return decisions.act(kind, op, **sides, **facts)


def resolved(*lines, cache: sf.FaceCache = CACHE):
    return decisions.resolve(cache, lines)


def grouped(labels: np.ndarray, *lines) -> list[list[int]]:
    """The groups of a grouping under decisions, as sorted lists of rows."""
    settled = sf.settle(CACHE.unit, labels, resolved(*lines).word)
    return sorted(rows.tolist() for rows in sf.groups_of(settled))


def of_person(person: int, *without: int) -> list[int]:
    return [row for row in np.flatnonzero(person == TRUTH).tolist() if row not in without]


# ---------------------------------------------------------------------------- random decisions

FACES = st.integers(0, CACHE.faces - 1)
SIDE = st.lists(FACES, min_size=1, max_size=4, unique=True)


@st.composite
def said(draw):
    """A decision about random faces."""
    kind = draw(
        st.sampled_from(["same", "different", "belongs", "not_belongs", "together", "name"])
    )
    faces = draw(SIDE)
    others = draw(
        st.lists(FACES.filter(lambda row: row not in faces), min_size=1, max_size=4, unique=True)
    )
    if kind == "name":
        return line(kind, faces, text=draw(st.sampled_from(["Anna", "Ben", "Çelik 李"])))
    return line(kind, faces, () if kind == "together" else others)


LABELS = st.lists(st.integers(0, 6), min_size=CACHE.faces, max_size=CACHE.faces).map(np.array)
SAID = st.lists(said(), max_size=12)


def broken(labels: np.ndarray, word: sf.Word) -> list[str]:
    """Which promises of a word a grouping breaks."""
    faults = [
        f"person {person} in several groups"
        for person in np.unique(word.person[word.person >= 0])
        if len(set(labels[word.person == person])) > 1
    ]
    faults += [f"{a} with {b}" for a, b in word.apart.tolist() if labels[a] == labels[b]]
    for label in np.unique(labels):
        owners = set(word.owner[labels == label]) - {-1}
        faults += [f"two owners in group {label}"] if len(owners) > 1 else []
    return faults


@settings(max_examples=300, deadline=None)
@given(LABELS, SAID)
def test_no_promise_is_ever_broken(labels, lines):
    word = resolved(*lines).word
    assert not broken(sf.settle(CACHE.unit, labels, word), word)


@settings(max_examples=60, deadline=None)
@given(SAID, st.sampled_from(["identity", "average"]), st.booleans())
def test_no_promise_is_broken_by_the_grouping_of_a_whole_library(lines, kind, reunite):
    word = resolved(*lines).word
    how = sf.Linkage(kind, 0.55, 0.45, 0.1, 0.0, reunite=reunite)
    found = sf.group_faces(CACHE, np.arange(CACHE.faces), how, word)
    assert not broken(found.labels, word)


@pytest.mark.parametrize("kind", ["identity", "average"])
def test_without_a_word_the_labels_are_those_without_it(kind):
    how = sf.Linkage(kind, 0.55, 0.45, 0.1, 0.0)
    rows = np.arange(CACHE.faces)
    plain = sf.group_faces(CACHE, rows, how).labels
    for lines in ([], [line("hide", [])], [line("skip", [0], [7])], [line("not_face", [3])]):
        found = sf.group_faces(CACHE, rows, how, resolved(*lines).word)
        assert np.array_equal(found.labels, plain)
    labels = np.arange(CACHE.faces)[::-1]
    assert sf.settle(CACHE.unit, labels, sf.no_word(CACHE.faces)) is labels


@settings(max_examples=200, deadline=None)
@given(LABELS, SAID, st.randoms(use_true_random=False))
def test_decisions_that_do_not_conflict_come_in_any_order(labels, lines, chance: random.Random):
    calm = [one for one in lines if one.kind != "name"]  # of two names the later is the name
    first = resolved(*calm)
    shuffled = list(calm)
    chance.shuffle(shuffled)
    again = resolved(*shuffled)
    if first.conflicts or again.conflicts or partly(calm, first.word) or partly(calm, again.word):
        return
    one, two = (sf.settle(CACHE.unit, labels, found.word) for found in (first, again))
    assert np.array_equal(one, two)


def partly(lines, word: sf.Word) -> bool:
    """Whether a decision holds for some of its faces only."""
    return not all(holds(one, word) for one in lines)


def holds(said_line, word: sf.Word) -> bool:
    """Whether all that a decision says is in a word."""
    faces, others = (
        decisions.rows_of_refs(CACHE, side) for side in (said_line.faces, said_line.others)
    )
    people = {int(word.person[row]) for row in faces}
    apart = {tuple(sorted(pair)) for pair in word.apart.tolist()}

    def two(a: int, b: int) -> bool:
        return (min(a, b), max(a, b)) in apart or word.person[a] != word.person[b] != -1

    match said_line.kind:
        case "different":
            return all(two(a, b) for a in faces for b in others)
        case "not_belongs":
            together = len({int(word.person[row]) for row in others}) == 1
            return together and all(two(face, others[0]) for face in faces)
        case "same" | "belongs":
            people |= {int(word.person[row]) for row in others}
    return len(people) == 1 and -1 not in people


@settings(max_examples=200, deadline=None)
@given(SAID, said())
def test_the_last_word_stands_whatever_was_said_before(lines, last):
    word = resolved(*lines, last).word
    assert holds(last, word)
    if last.kind == "name":
        rows = decisions.rows_of_refs(CACHE, last.faces)
        assert word.names[int(word.person[rows[0]])] == last.text


@settings(max_examples=150, deadline=None)
@given(LABELS, SAID, said())
def test_revoking_gives_the_former_state(labels, lines, last):
    def state(*some) -> tuple:
        word = resolved(*some).word
        return sf.settle(CACHE.unit, labels, word).tolist(), word.names, word.person.tolist()

    undo = decisions.act("revoke", "undo", text=last.op)
    redo = decisions.act("revoke", "redo", text="undo")
    assert state(*lines, last, undo) == state(*lines)
    assert state(*lines, last, undo, redo) == state(*lines, last)


# ---------------------------------------------------------------------------- one yes


def toy(within: float, across: float, size: int = 40) -> np.ndarray:
    """Two groups of unit vectors with these cosines within and across."""
    rng = np.random.default_rng(3)
    dim = 4 * size
    base = np.linalg.qr(rng.normal(size=(dim, 2 * size + 2)))[0].T
    both = across**0.5
    own = (within - across) ** 0.5
    rest = (1 - within) ** 0.5
    middle, sides, noise = base[0], base[1:3], base[3:]
    noise = np.vstack([noise, base[:1] * 0])[: 2 * size]
    return sf.unit_rows(
        np.stack(
            [both * middle + own * sides[k // size] + rest * noise[k] for k in range(2 * size)]
        )
    )


@pytest.mark.parametrize("shown", [1, 8, 16, 40])
def test_one_yes_joins_two_people_into_one_and_never_makes_three(shown):
    unit = toy(0.6, 0.2)
    cache = make_cache(people=2, photos=40, dim=unit.shape[1])
    cache = replace(cache, embedding=unit * 20)
    how = sf.Linkage("average", 0.55, 0.45, 0.1, 0.0)
    rows = np.arange(80)
    assert [len(some) for some in sf.groups_of(sf.group_faces(cache, rows, how).labels)] == [40, 40]
    sides = [rows[:40][:shown], rows[40:][:shown]]
    faces, others = (decisions.refs(cache, side) for side in sides)
    yes = decisions.act("same", "yes", faces=faces, others=others)
    word = decisions.resolve(cache, [yes]).word
    assert len(sf.groups_of(sf.group_faces(cache, rows, how, word).labels)) == 1


# ---------------------------------------------------------------------------- what each kind does


def test_a_group_comes_along_with_most_of_the_faces_that_stood_for_it():
    labels = TRUTH.copy()
    same = line("same", of_person(0)[:4], of_person(1)[:4])
    assert grouped(labels, same) == sorted(
        [of_person(0) + of_person(1), *map(of_person, (2, 3, 4))]
    )


def test_a_face_that_fell_in_with_others_does_not_bring_them_along():
    labels = TRUTH.copy()
    labels[0] = 2  # one face of person 0 was grouped with person 2
    named = line("name", of_person(0), text="Anna")
    assert of_person(0) in grouped(labels, named)
    assert of_person(2) in grouped(labels, named)


def test_a_face_that_is_moved_goes_alone():
    stray = of_person(1)[0]
    moved = [
        line("belongs", [stray], of_person(0)[:4]),
        line("not_belongs", [stray], of_person(1)[1:]),
    ]
    groups = grouped(TRUTH, *moved)
    assert sorted([*of_person(0), stray]) in groups and of_person(1, stray) in groups


def test_who_is_thrown_out_leaves_alone_and_takes_nobody_along():
    out = of_person(0)[:2]
    groups = grouped(TRUTH, line("not_belongs", out, of_person(0)[2:]))
    assert of_person(0)[2:] in groups and all([row] in groups for row in out)


def test_split_off_faces_are_one_person():
    off, rest = of_person(0)[:3], of_person(0)[3:]
    groups = grouped(TRUTH, line("together", off, op="a"), line("not_belongs", off, rest, op="a"))
    assert off in groups and rest in groups


def test_named_people_stay_apart_and_a_yes_makes_them_one_with_the_later_name():
    names = [line("name", of_person(0), text="Anna"), line("name", of_person(1), text="Ann")]
    one = np.zeros(CACHE.faces, int)
    groups = grouped(one, *names)
    assert not any({*of_person(0)} & {*g} and {*of_person(1)} & {*g} for g in groups)
    both = resolved(*names, line("same", of_person(0), of_person(1)))
    assert set(both.word.names.values()) == {"Ann"} and not both.conflicts


def test_a_no_after_a_yes_is_a_conflict_told_with_what_proves_it():
    yes = [line("same", of_person(0), of_person(1)), line("same", of_person(1), of_person(2))]
    no = line("different", of_person(0), of_person(2))
    found = resolved(*yes, no)
    [conflict] = found.conflicts
    assert conflict.line is yes[0] and {one.id for one in conflict.by} == {yes[1].id, no.id}
    groups = grouped(TRUTH, *yes, no)
    assert sorted(of_person(1) + of_person(2)) in groups and of_person(0) in groups


def test_a_persons_word_counts_more_than_an_imported_one_whatever_came_later():
    mine = line("different", of_person(0), of_person(1))
    theirs = line("same", of_person(0), of_person(1), author="import lightroom.csv")
    assert resolved(mine, theirs).conflicts[0].line is theirs
    assert of_person(0) in grouped(TRUTH, mine, theirs)


def test_ignored_strangers_take_new_faces_that_look_like_them_along():
    word = resolved(line("ignore", of_person(3)[:4])).word
    settled = sf.settle(CACHE.unit, TRUTH, word)
    [rows] = [rows for rows in sf.groups_of(settled) if word.is_ignored(rows)]
    assert sorted(rows) == of_person(3)
    sorting = sf.sorted_out(word, sf.groups_of(settled))
    assert sorted(sorting.ignored) == of_person(3) and len(sorting.persons) == 4


def test_a_name_after_that_makes_a_stranger_somebody():
    ignore, name = line("ignore", of_person(3)), line("name", of_person(3), text="Dora")
    assert not resolved(ignore, name).word.ignored
    assert resolved(name, ignore).word.ignored
    assert not resolved(ignore, line("ignore", of_person(3), off=True)).word.ignored


def test_two_faces_of_one_photo_are_one_person_where_he_says_so():
    file = CACHE.face_file.copy()
    file[1] = file[0]
    cache = replace(CACHE, face_file=file)
    pairs = sf.one_photo_pairs(cache.unit, file, 0.01)
    assert pairs.tolist() == [[0, 1]]
    faces, others = decisions.refs(cache, [0]), decisions.refs(cache, [1])
    same = decisions.act("same", "s", faces=faces, others=others)
    word = decisions.resolve(cache, [same]).word
    assert not len(word.with_photos(pairs))
    assert len(sf.no_word(cache.faces).with_photos(pairs)) == 1


# ---------------------------------------------------------------------------- faces found again


def test_a_face_is_found_again_by_its_box_when_it_was_numbered_anew():
    refs = decisions.refs(CACHE, [4, 5])
    index, bbox = CACHE.face_index.copy(), CACHE.bbox.copy()
    index[4], bbox[4] = 7, bbox[4] + 6.0
    again = replace(CACHE, face_index=index, bbox=bbox)
    assert decisions.rows_of_refs(again, refs).tolist() == [4, 5]
    bbox[4] += 500.0
    gone = replace(CACHE, face_index=index, bbox=bbox)
    assert decisions.rows_of_refs(gone, refs).tolist() == [-1, 5]
    lost = decisions.resolve(gone, [line("name", [4], text="Anna")]).lost
    assert [one.text for one in lost] == ["Anna"]


def test_a_number_that_means_another_face_now_is_not_believed():
    """A rescan found a further face before it: the id is the neighbour's now."""
    index, file, bbox = CACHE.face_index.copy(), CACHE.face_file.copy(), CACHE.bbox.copy()
    file[9] = file[4]
    index[4], index[9] = 1, 0
    bbox[9] = bbox[4] + 400.0
    refs = decisions.refs(CACHE, [4])
    again = replace(CACHE, face_index=index, face_file=file, bbox=bbox)
    assert decisions.rows_of_refs(again, refs).tolist() == [4]


def test_dates_of_any_precision():
    seconds = decisions.seconds_of
    assert seconds("1970-01-01T00:00:10") == 10
    assert seconds("1970-01-02") == 86400 * 1.5
    assert sf.year_of(seconds("1999")) == 1999 and seconds("1999") > seconds("1999-06-30")
    assert [seconds(text) for text in ("", "summer", "1999-13", "99", "1999-02-30")] == [None] * 5
    photo = CACHE.face_ids[0].split(":")[0]
    told = decisions.act("date", "d", faces=[photo], text="2001-05")
    assert list(resolved(told).word.taken) == [0] and not resolved(told).lost


# ---------------------------------------------------------------------------- the file


def book_of(folder: Path) -> decisions.Book:
    return decisions.Book(folder / "lib.npz")


def test_the_file_grows_by_whole_acts_and_each_once(tmp_path):
    book, other = book_of(tmp_path), book_of(tmp_path)
    first = [line("name", [0], text="Anna", op="a"), line("hide", [0], op="a")]
    assert book.append(first) == 2
    assert other.append(first) == 2  # sent again
    assert other.append([line("hide", [1], op="b")]) == 3
    assert book.rev == 2 and book.refresh() and book.rev == 3
    assert [one.op for one in book.lines] == ["a", "a", "b"]
    assert oct(book.path.stat().st_mode)[-3:] == "600"


def test_a_torn_last_line_is_cut_and_a_damaged_one_does_not_count(tmp_path, caplog):
    book = book_of(tmp_path)
    for op in "abc":
        book.append([line("hide", [0], op=op)])
    text = book.path.read_bytes().splitlines(keepends=True)
    book.path.write_bytes(text[0] + text[1].replace(b"hide", b"nide") + text[2][:40])
    again = book_of(tmp_path)
    assert [one.op for one in again.lines] == ["a"] and "does not count" in caplog.text
    again.append([line("hide", [0], op="d")])
    assert [one.op for one in book_of(tmp_path).lines] == ["a", "d"]


def test_undo_and_redo_go_back_and_forth(tmp_path):
    book = book_of(tmp_path)

    def undo(tab: str) -> str:
        aim = book.last_op(tab)
        book.append([decisions.act("revoke", decisions.new_op(), text=aim, tab=tab)])
        return aim

    def redo(tab: str) -> str | None:
        aim = book.last_undone(tab)
        if aim:
            book.append([decisions.act("revoke", decisions.new_op(), text=aim, tab=tab)])
        return aim

    for op, tab in (("a", "1"), ("b", "1"), ("x", "2")):
        book.append([line("hide", [0], op=op, tab=tab)])
    assert (undo("1"), undo("1"), book.last_op("1")) == ("b", "a", None)
    assert [one.op for one in book.standing()] == ["x"]
    redo("1")
    assert [one.op for one in book.standing()] == ["a", "x"]
    redo("1")
    assert [one.op for one in book.standing()] == ["a", "b", "x"]
    assert redo("1") is None
    undo("1")
    book.append([line("hide", [0], op="c", tab="1")])
    assert book.last_undone("1") is None  # a new act leaves nothing to redo
    assert undo("2") == "x" and book.last_undone("1") is None


def test_a_rewritten_file_is_read_from_its_beginning(tmp_path):
    book = book_of(tmp_path)
    for op in "ab":
        book.append([line("hide", [0], op=op)])
    kept = book.path.read_bytes().splitlines(keepends=True)[1]
    sf.write_bytes(book.path, kept)  # as `forget` does
    assert book.refresh() and [one.op for one in book.lines] == ["b"] and book.rev == 1


def test_a_full_disk_leaves_nothing_of_an_act(tmp_path, monkeypatch):
    import errno
    import os

    book = book_of(tmp_path)
    book.append([line("hide", [0], op="a")])
    before = book.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(sf.SortFacesError, match="No space left on device; free some space"):
        book.append([line("hide", [0], op="b"), line("hide", [1], op="b")])
    assert book.path.read_bytes() == before
