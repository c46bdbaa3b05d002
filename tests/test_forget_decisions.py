"""forget and the operator's decisions: what is said of the forgotten goes, all else stays."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import sf
from corpora import Death, Saboteur, Space, build, exact, read
from material import ok, refused

decisions = sf.companion("decisions")
said = sf.companion("forget_decisions")

pytestmark = pytest.mark.usefixtures("quick_disk", "blind")

ADA, BOB = "Ada & <Co>", "Bob"


@pytest.fixture
def blind(monkeypatch) -> None:
    """No model made the faces of these corpora, so none can look at them."""
    proof = sf.companion("forget_proof")
    monkeypatch.setattr(proof.Gallery, "vectors", lambda self: iter(()))
    monkeypatch.setattr(sf.companion("forget").Work, "check_engine", lambda self: None)


@pytest.fixture
def root(tmp_path) -> Path:
    """A corpus of Ada, Bob and Eve; the last photo shows Ada and Bob."""
    space = Space()
    both = [space.face(0, photo="both"), space.face(1, photo="both")]
    sets = [[*space.faces(0, 4), both[0]], [*space.faces(1, 4), both[1]], space.faces(2, 4)]
    return build(tmp_path, sets, {1: ADA})


class Said:
    """The decisions beside the cache of a corpus, written as the program writes them."""

    def __init__(self, root: Path) -> None:
        self.cache_path = root.parent / "lib.npz"
        self.cache = sf.load_cache(self.cache_path)
        self.book = decisions.Book(self.cache_path)
        self.refs = {}
        for number, who in enumerate(("ada", "bob", "eve"), 1):
            faces = read(root / f"faceset_00{number}" / "manifest.json")["faces"]
            rows = sf.rows_of_faces(self.cache, [face["face"] for face in faces])
            self.refs[who] = decisions.refs(self.cache, rows)

    def add(self, kind: str, op: str = "", **facts: object) -> bytes:
        """Append one decision; the bytes of its line."""
        before = self.book.path.stat().st_size if self.book.path.exists() else 0
        self.book.append([decisions.act(kind, op or decisions.new_op(), **facts)])
        return self.book.path.read_bytes()[before:]

    @property
    def lines(self) -> list[bytes]:
        return self.book.path.read_bytes().splitlines(keepends=True)

    def values(self) -> list[dict]:
        return [sf.object_of(line) for line in self.lines]


@pytest.fixture
def told(root) -> Said:
    return Said(root)


def forget(run: Callable, root: Path, *argv: object, **expected: object) -> dict:
    return ok(run, "forget", root, "--cache", root.parent / "lib.npz", *argv, **expected)


def test_what_is_said_of_the_forgotten_alone_goes_and_all_else_stays_to_the_byte(run, root, told):
    ada, bob, eve = told.refs["ada"], told.refs["bob"], told.refs["eve"]
    told.add("name", "named", faces=ada, text=ADA)
    told.add("same", faces=ada[:2], others=ada[2:])
    told.add("different", faces=ada, others=bob)
    told.add("not_belongs", faces=bob[:1], others=ada)
    told.add("belongs", faces=ada[:1], others=ada[1:])
    told.add("hide", faces=ada)
    told.add("best", faces=ada[:1])
    told.add("date", faces=[ada[0][:16]], text="1999")
    told.add("number", faces=ada, text="raw:person_001", author="rule")
    told.add("box", faces=[ada[0][:16] + "@1,2,30,40"], text=ada[0].partition("@")[0])
    told.add("revoke", "undone", text="named")
    told.add("revoke", text="undone")
    told.add("skip", faces=eve, others=bob, text=f"like {ADA}")  # her name, about others
    stay = [
        told.add("name", faces=bob, text=BOB),
        told.add("different", faces=bob, others=eve),
        told.add("date", faces=[bob[4][:16]], text="2001-02"),  # of the photo of both
        told.add("belongs", "once", faces=eve[:1], others=bob),
        told.add("revoke", text="once"),
        told.add("revoke", text="an act of which nothing is known"),
    ]
    with open(told.book.path, "ab") as file:
        file.write(stay[0].replace(b"Bob", b"B0b"))  # damaged
        file.write(b'{"id": "torn')
    plan = forget(run, root, "--person", ADA, "--dry-run", warned="line 20 is damaged")
    assert "14 of its lines go, 0 lose faces" in [row["why"] for row in plan["changes"]]
    result = forget(run, root, "--person", ADA, warned="line 20 is damaged")
    assert result["files_with_traces"] == 0
    assert told.lines == [*stay, stay[0].replace(b"Bob", b"B0b")]
    assert stat.S_IMODE(told.book.path.stat().st_mode) == 0o600
    after = decisions.Book(told.cache_path)
    word = sf.operators_word(told.cache_path, sf.load_cache(told.cache_path))
    assert after.rev == 7 and list(word.names.values()) == [BOB]


def test_lines_about_others_too_lose_the_forgotten_faces(run, root, told):
    ada, bob, eve = told.refs["ada"], told.refs["bob"], told.refs["eve"]
    lines = [
        told.add("keep", faces=[ada[0], bob[0]]),
        told.add("together", faces=[*eve[:2], *ada[:3]]),
        told.add("belongs", faces=[ada[4], bob[4]], others=bob[:4]),
        told.add("name", faces=[*bob, ada[0]], text=BOB),
        told.add("different", faces=[*bob, *ada[:2]], others=eve),
    ]
    before = [sf.object_of(line) for line in lines]
    forget(run, root, "--person", ADA)
    kept = [bob[:1], eve[:2], bob[4:], bob, bob]
    assert [value["faces"] for value in told.values()] == kept
    assert told.values() == [
        {**value, "faces": faces} for value, faces in zip(before, kept, strict=True)
    ]


def test_a_group_that_was_mostly_the_person_binds_nobody_any_more(run, root, told):
    """Who was taken for Ada is not taken for whoever Ada was joined with."""
    ada, bob, eve = told.refs["ada"], told.refs["bob"], told.refs["eve"]
    told.add("same", faces=[*ada, bob[0]], others=[*ada[:2], eve[0]])
    told.add("name", faces=[*ada, bob[0]], text="Addie")
    told.add("not_belongs", faces=[bob[0], eve[0]], others=ada)
    assert forget(run, root, "--person", ADA)["faces"] == 5
    assert told.lines == []


def test_a_face_is_found_by_its_box_whatever_its_number_was(run, root, told):
    ada, bob = told.refs["ada"][4], told.refs["bob"][4]  # of one photo
    (mine, box), (his, his_box) = ada.split("@"), bob.split("@")
    told.add("keep", faces=[f"{his}@{box}", f"{mine}@{his_box}"])
    told.add("drop", faces=[f"{mine[:16]}:77@{box}"])
    told.add("keep", faces=[f"{mine[:16]}:77@9000,9000,9100,9100"])  # nobody's
    forget(run, root, "--person", ADA)
    assert [value["faces"] for value in told.values()] == [
        [f"{his}@{his_box}"], [f"{mine[:16]}:77@9000,9000,9100,9100"]
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["photo", "face"])
def test_of_a_photo_or_a_face_only_that_goes(run, root, told, what):
    ada, bob = told.refs["ada"], told.refs["bob"]
    named = told.add("name", faces=ada[1:], text=ADA)
    told.add("name", faces=ada[:1], text="a name for this face alone")
    told.add("same", faces=ada[:3], others=ada[3:])
    face = ada[0].partition("@")[0]
    forget(run, root, f"--{what}", face if what == "face" else face[:16])
    assert told.lines[0] == named
    assert [value["faces"] for value in told.values()[1:]] == [ada[1:3]]
    assert bob == decisions.refs(sf.load_cache(told.cache_path), decisions.rows_of_refs(
        sf.load_cache(told.cache_path), bob))  # fmt: skip


def test_all_who_are_called_so_are_forgotten(run, root, told):
    """A second half of Ada that nobody has joined yet."""
    told.add("name", faces=told.refs["eve"], text=ADA)
    assert forget(run, root, "--person", ADA)["faces"] == 9
    assert told.lines == []


def test_a_person_named_by_a_decision_alone_is_found(run, root, told):
    bob, eve = told.refs["bob"], told.refs["eve"]
    told.add("name", faces=[*bob, eve[0]], text="Robert")
    told.add("not_belongs", faces=[eve[1]], others=bob)
    result = forget(run, root, "--person", "Robert")
    assert result["faces"] == 6 and result["files_with_traces"] == 0
    cache = sf.load_cache(told.cache_path)
    assert (decisions.rows_of_refs(cache, eve) >= 0).tolist() == [False, True, True, True]
    assert told.lines == []


def test_what_the_review_page_has_kept_goes(run, root, told):
    thumbs, groups = (told.cache_path.with_name("lib.npz" + end) for end in
                      (said.THUMBS, said.GROUPS))  # fmt: skip
    sf.write_part(thumbs / "ab" / "0123-96.jpg", b"\xff\xd8\xff")
    np.savez(groups, labels=np.zeros(3))
    plan = forget(run, root, "--person", ADA, "--dry-run")
    assert thumbs.exists() and {"pictures of faces; a review makes them anew"} <= {
        row["why"] for row in plan["changes"]
    }
    forget(run, root, "--person", ADA)
    assert not thumbs.exists() and not groups.exists()


def test_a_review_that_runs_is_waited_for(run, root, told):
    before = exact(root.parent)
    lock = told.cache_path.with_name("lib.npz" + said.REVIEW_LOCK)
    with sf.locked(lock, "review"):
        text = refused(run, "forget", root, "--cache", told.cache_path, "--person", ADA,
                       word="is being written by process")  # fmt: skip
        assert "decided" in text
    assert {n: s for n, s in exact(root.parent).items() if not n.endswith(".lock")} == before


def test_the_proof_knows_a_decision_that_was_missed(run, root, told, monkeypatch):
    box, his = told.refs["ada"][4].split("@")[1], told.refs["bob"][4].split("@")[0]
    told.add("keep", faces=[f"{his}@{box}"])  # Ada's face under Bob's number: no word tells
    monkeypatch.setattr(said, "decision_changes", lambda *_: iter(()))
    result = forget(run, root, "--person", ADA, code=1)
    assert [(row["file"], row["trace"]) for row in result["left"]] == [
        (str(told.book.path), "decision")
    ]


def test_a_decision_made_meanwhile_stays(run, root, told, monkeypatch):
    told.add("name", faces=told.refs["ada"], text=ADA)
    real, late = sf.write_file, []

    def write_file(path: Path, record: object) -> None:
        if path.name.endswith(".forgetting.json"):  # the plan stands, no change is made yet
            late.append(told.add("name", faces=told.refs["bob"], text=BOB))
            late.append(told.add("keep", faces=told.refs["ada"][:1]))
        real(path, record)

    monkeypatch.setattr(sf, "write_file", write_file)
    forget(run, root, "--person", ADA)
    assert told.lines == late[:1]


def test_a_kill_anywhere_is_finished_by_repeating(run, tmp_path):
    def begin(folder: Path) -> tuple[Path, Said]:
        space = Space()
        folder.mkdir()
        root = build(folder, [space.faces(0, 3), space.faces(1, 3), space.faces(2, 2)], {1: ADA})
        told = Said(root)
        told.add("name", faces=told.refs["ada"], text=ADA)
        told.add("keep", faces=[told.refs["ada"][0], told.refs["bob"][0]])
        for name in ("ab/1-96.jpg", "cd/2-96.jpg"):
            sf.write_part(told.cache_path.with_name("lib.npz" + said.THUMBS) / name, b"x")
        return root, told

    root, told = begin(tmp_path / "whole")
    with Saboteur(root.parent) as watcher:
        forget(run, root, "--person", ADA)
    kept = [value["faces"] for value in told.values()]
    for at in range(2, watcher.seen, max(1, watcher.seen // 20)):
        root, told = begin(tmp_path / str(at))
        argv = ("forget", root, "--cache", told.cache_path, "--person", ADA)
        with Saboteur(root.parent, "death", at), pytest.raises(Death):
            run(*argv)
        code, _, err = run(*argv, "--json")
        assert code == 0 or "nothing to forget" in err, (at, err)
        assert [value["faces"] for value in told.values()] == kept, at
        assert not re.search("thumbs", " ".join(exact(root.parent))), at
