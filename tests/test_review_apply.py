"""Preview and apply of the review server: outputs follow the decisions, whatever is killed when."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from conftest import make_cache, sf
from material import assert_agrees, manifest_of, ok
from test_review_server import Book, Served, draw_photos

WAIT = 60  # seconds

jobs, events = sf.companion("review/jobs"), sf.companion("review/events")


class Review(Book):
    """A page over an output folder."""

    def preview(self) -> dict[str, Any]:
        reply = self.client.post("/api/preview")
        assert reply.status == 202, reply
        name = reply.json["preview"]
        deadline = time.monotonic() + WAIT
        while (reply := self.client.ask("GET", f"/api/preview/{name}")).status != 200:
            assert reply.json["error"] == "not_yet" and time.monotonic() < deadline
            time.sleep(0.05)
        self.rest()
        return reply.json

    def rest(self) -> dict[str, Any]:
        """The end of the job at work."""
        deadline = time.monotonic() + WAIT
        while (job := self.client.get("/api/state")["apply"])["state"] in ("preview", "apply"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return job

    def apply(self, preview: dict[str, Any]) -> Any:
        return self.client.post("/api/apply", preview=preview["preview"], rev=preview["rev"])


def sets_of(preview: dict[str, Any]) -> list[tuple[int, ...]]:
    """(faces before, after, joined, left) of the sets that change."""
    return [
        (one["before"], one["after"], one["joined"], one["left"])
        for one in preview["sets"]
        if one["joined"] or one["left"]
    ]


@pytest.fixture
def out(tmp_path, run) -> Path:
    """The output of cluster and refine: four people in a folder as `run` leaves them."""
    cache = draw_photos(make_cache(people=4, photos=8, root=str(tmp_path / "photos")))
    sf.save_cache(tmp_path / "out/faces.npz", cache)
    out = tmp_path / "out"
    ok(run, "cluster", out / "faces.npz", out / "raw_full")
    ok(run, "refine", out / "faces.npz", out / "facesets_full", "--min-faces", 3)
    return out


@pytest.fixture
def server(out) -> Iterator[Served]:
    server = Served(out)
    yield server
    if server.process.poll() is None:
        server.end()


def test_what_is_previewed_is_what_is_done(server, out):
    page = Review(server)
    assert page.client.get("/api/state")["outputs"] == ["raw", "refined"]
    before = {path: path.read_bytes() for path in out.rglob("*.json") if "review" not in path.name}
    first, second, third, _ = page.people()
    assert sets_of(page.preview()) == []
    page.act({"kind": "merge", "people": [first, second], "name": "Anna"})
    loose = page.client.get(f"/api/people/{third.replace(':', '%3A')}/faces")["columns"]["id"][3]
    page.act({"kind": "not_face", "faces": [loose]})
    preview = page.preview()
    assert {path: path.read_bytes() for path in before} == before  # a preview changes nothing
    changes = sets_of(preview)
    assert sorted(changes) == [(8, 0, 0, 8), (8, 7, 0, 1), (8, 16, 8, 0)]
    anna = next(one for one in preview["sets"] if one["after"] == 16)
    assert anna["name"] == "Anna"
    assert [one["into"] for one in preview["sets"] if not one["after"]] == [anna["id"]]
    assert page.apply(preview).status == 202 and page.rest()["state"] == "done"
    for tree in ("raw_full", "facesets_full"):
        assert_agrees(out / tree)
    sets = manifest_of(out / "facesets_full")["facesets"]
    assert {group["id"]: len(group["faces"]) for group in sets} == {
        one["id"]: one["after"] for one in preview["sets"] if one["after"]
    }
    assert sets_of(page.preview()) == []
    assert page.people()[first]["faces"] == 16


def test_outputs_that_extend_has_grown_are_grown_again(run, out):
    faces, trees = out / "faces.npz", (out / "raw_full", out / "facesets_full")
    ok(run, "extend", faces, trees[0], "--refine-out", trees[1])
    server = Served(out)
    try:
        page = Review(server)
        first, second, *_ = page.people()
        page.act({"kind": "merge", "people": [first, second], "name": "Anna"})
        preview = page.preview()
        assert sorted(sets_of(preview)) == [(8, 0, 0, 8), (8, 16, 8, 0)]
        assert page.apply(preview).status == 202 and page.rest()["state"] == "done"
        assert sets_of(page.preview()) == []
    finally:
        server.end()
    for tree in trees:
        assert_agrees(tree)
        manifest = manifest_of(tree)
        groups = manifest.get("persons") or manifest["facesets"]
        assert sorted(len(group["faces"]) for group in groups) == [8, 8, 16]


def test_nothing_is_applied_that_was_not_previewed(server):
    page = Review(server)
    first, *_ = page.people()
    preview = page.preview()
    page.act({"kind": "name", "people": [first], "text": "Anna"})
    assert page.apply(preview).json["error"] == "moved"
    again = {**preview, "rev": page.base}
    assert page.apply(again).json["error"] == "moved"
    assert page.client.post("/api/apply", preview="unheard", rev=page.base).status == 404
    assert page.client.post("/api/apply/unheard/cancel").json["error"] == "not_running"


def test_undo_of_all_leads_back_even_after_apply(server, out):
    """The tree has the decision in it; the page stands on what was before."""
    page = Review(server)
    before, trees = page.people(), {}
    for tree in ("raw_full", "facesets_full"):
        trees[tree] = manifest_of(out / tree)
    first, second, *_ = before
    page.act({"kind": "merge", "people": [first, second]})
    assert page.apply(page.preview()).status == 202 and page.rest()["state"] == "done"
    assert manifest_of(out / "raw_full")["counts"]["persons"] == 3
    assert page.client.post("/api/undo", op="back", tab="one").status == 200
    faces = {pid: one["faces"] for pid, one in page.people().items()}
    assert faces == {pid: one["faces"] for pid, one in before.items()}
    server.kill()
    server.start()
    page = Review(server)
    assert {pid: one["faces"] for pid, one in page.people().items()} == faces
    assert page.apply(page.preview()).status == 202 and page.rest()["state"] == "done"
    for tree, old in trees.items():
        assert_agrees(out / tree)
        now = manifest_of(out / tree)
        key = "persons" if "persons" in old else "facesets"
        assert sorted(sorted(group["faces"]) for group in now[key]) == sorted(
            sorted(group["faces"]) for group in old[key]
        )


@pytest.mark.parametrize("how", ["cancel", "kill the server"])
def test_an_apply_cut_short_leaves_trees_that_are_whole(server, out, how):
    page = Review(server)
    first, second, *_ = page.people()
    page.act({"kind": "merge", "people": [first, second]})
    for moment in (0.0, 0.4, 0.8):
        preview = page.preview()
        assert page.apply(preview).status == 202
        time.sleep(moment)
        if how == "cancel":
            page.client.post(f"/api/apply/{preview['preview']}/cancel")
            assert page.rest()["state"] in ("stopped", "done")
        else:
            server.kill()
            wait_for_child(out)
            server.start()
            page = Review(server)
        for tree in ("raw_full", "facesets_full"):
            assert_agrees(out / tree)
    assert page.apply(page.preview()).status == 202 and page.rest()["state"] == "done"
    assert manifest_of(out / "raw_full")["counts"]["persons"] == 3


def test_a_word_to_stop_that_comes_after_the_end_leaves_nothing_at_work(out):
    at_work = jobs.Jobs(out / "faces.npz", {"raw": out / "raw_full"}, events.Events())
    at_work.start("late", "apply", ["--dry-run"], lambda _: at_work.cancel("late"))
    at_work.thread.join(WAIT)
    assert at_work.status()["state"] == "done" and at_work.process is None


@pytest.mark.parametrize("error", [OSError("the drive went away"), KeyError("a bug")])
def test_a_result_that_cannot_be_taken_in_is_told(out, error):
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise error

    at_work = jobs.Jobs(out / "faces.npz", {"raw": out / "raw_full"}, events.Events())
    name = at_work.preview(0, refuse)
    at_work.thread.join(WAIT)
    assert at_work.status()["state"] == "failed" and at_work.process is None
    told = at_work.previewed(name)
    assert told["error"] in ("the drive went away", "KeyError")
    with pytest.raises(jobs.Refused, match="moved"):
        at_work.apply(name, 0, lambda: None)


def test_lines_of_a_library_among_what_a_job_says_are_passed_over():
    assert jobs.line_of("Corrupt JPEG data\n") == jobs.line_of("[1, 2]\n") == {}
    assert jobs.line_of('{"stopped": true}\n') == {"stopped": True}


def wait_for_child(out: Path) -> None:
    """Until no process of an apply over this folder is left."""
    deadline = time.monotonic() + WAIT
    mark = str(out).encode()
    while True:
        lines = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
            except OSError:
                continue
        if not any(b"apply_process" in line and mark in line for line in lines):
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_cache_alone_has_nothing_to_apply(tmp_path):
    cache = draw_photos(make_cache(people=2, photos=3, root=str(tmp_path / "photos")))
    sf.save_cache(tmp_path / "lib.npz", cache)
    server = Served(tmp_path / "lib.npz")
    reply = Review(server).client.post("/api/preview")
    server.end()
    assert reply.status == 409 and reply.json == {"error": "no_outputs"}


def test_the_cache_is_found_through_any_output(server, out):
    review = sf.companion("review/review")
    for path in (out, out / "raw_full", out / "facesets_full", out / "faces.npz"):
        target = review.find_target(path)
        assert target.cache.resolve() == (out / "faces.npz").resolve(), path
        assert target.trees == {"raw": out / "raw_full", "refined": out / "facesets_full"}, path


def test_what_is_no_output_is_told(run, tmp_path):
    (tmp_path / "photos").mkdir()
    code, _, err = run("review", tmp_path / "photos", "--no-browser")
    assert code == 2 and "neither a cache nor an output" in err
    code, _, err = run("review", tmp_path / "none.npz", "--no-browser")
    assert code == 2 and "embed" in err


def test_new_faces_go_with_those_they_are_grouped_with():
    desk = sf.companion("review/desk")
    now = np.array([0, 0, 0, 1, 1, 2])
    known = {"a": 7, "b": 7, "c": 3, "d": 3}  # c has left the group it was in
    assert desk.with_known(list("abcdef"), now, known).tolist() == [7, 7, 3, 3, 3, 10]


def test_sets_are_compared_with_what_they_were():
    process = sf.companion("review/apply_process")
    before = {"s_1": list("abc"), "s_2": list("de"), "s_3": list("fgh"), "s_4": list("xy")}
    after = {"s_1": list("abcde"), "s_2": list("fgi"), "s_5": list("z"), "s_4": list("xy")}
    rows = process.compared_sets(before, after)
    assert [tuple(row.values()) for row in rows] == [
        ("s_1", "a", 3, 5, 2, 0, False, "", ""),
        ("s_2", "f", 3, 3, 1, 1, False, "s_3", ""),
        ("s_2", "d", 2, 0, 0, 2, False, "", "s_1"),
        ("s_5", "z", 0, 1, 1, 0, True, "", ""),
        ("s_4", "x", 2, 2, 0, 0, False, "", ""),
    ]


def test_an_output_made_while_a_decision_stood_is_known_by_the_second(out):
    desk, decisions = sf.companion("review/desk"), sf.companion("decisions")
    cache = sf.load_cache(out / "faces.npz")
    base = desk.Base(cache, out / "faces.npz", out / "raw_full")
    made = base.raw.created[:19]
    face = decisions.refs(cache, [0])
    name = decisions.act("name", "a", faces=face, text="Anna")
    undo = decisions.act("revoke", "b", text="a")

    def at(line: Any, time: str) -> Any:
        return msgspec.structs.replace(line, time=time)

    early, same, late = "2000-01-01T00:00:00.5", f"{made}.5", "2999-01-01T00:00:00.5"
    assert not base.was_decided([])
    assert not base.was_decided([at(name, late)])
    assert not base.was_decided([at(name, early), at(undo, early)])
    assert not base.was_decided([msgspec.structs.replace(at(name, early), author="rule")])
    for lines in ([at(name, early)], [at(name, early), at(undo, late)], [at(name, same)],
                  [at(name, early), at(undo, same)], [at(name, same), at(undo, same)]):  # fmt: skip
        assert base.was_decided(lines)
