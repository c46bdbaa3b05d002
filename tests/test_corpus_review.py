"""Corpus maintenance after a review: one test for each fault it found."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from conftest import sf
from corpora import (
    DIM,
    Face,
    Space,
    assert_agrees,
    assert_clean,
    audits_of,
    axis,
    build,
    copied,
    edit,
    exact,
    faces_in,
    files_of,
    folders,
    give_audits,
    picture,
    planned,
    put_face,
    read,
    turned,
    wrong,
)
from material import ok, refused

pytestmark = pytest.mark.usefixtures("quick_disk")

IDLE = ("--no-bytes", "--no-near", "--no-audit")  # optimize, but only what the operator did
ONE = ("--threads", 1)
MINE = picture(4711)  # the operator's own PNG


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """001 and 002 are one person, 003 is another, of some years; only read."""
    space = Space()
    years = (2001, 2001, 2001, 2002, 2022, 2022)
    sets = [space.faces(0, 5), space.faces(0, 3), [space.face(1, year=year) for year in years]]
    return build(tmp_path_factory.mktemp("template"), sets, {3: "Zoë"})


@pytest.fixture
def root(template, tmp_path) -> Path:
    return copied(template, tmp_path / "ready")


class Eyes(sf.Engine):
    """Sees one face in every picture, that of the same person."""

    model = source = "synthetic"
    recognizer, provider, has_landmarks = "feedfeedfeedfeed", "cpu", False
    dim, det_size, det_threshold = DIM, 640, 0.5
    blind = False

    def __init__(self) -> None:
        self.asked = 0

    def detect(self, image: np.ndarray, det_size: int | None = None) -> sf.Detections:
        self.asked += det_size == sf.CONSUMER_DET_SIZES[0]
        if self.blind:
            return sf.no_detections()
        box = np.array([[32, 32, 96, 96]], np.float32)
        return sf.Detections(box, np.ones(1, np.float32), np.full((1, 5, 2), 64, np.float32))

    def embed(self, image: np.ndarray, found: sf.Detections) -> np.ndarray:
        return np.repeat(axis(0)[None], len(found), axis=0).astype(np.float32)


@pytest.fixture
def eyes(monkeypatch) -> Eyes:
    engine = Eyes()
    monkeypatch.setattr(sf, "load_engine", lambda spec, threads=1: engine)
    return engine


def idle(run: Callable, root: Path, **expected: object) -> dict:
    return ok(run, "optimize", root, *IDLE, **expected)


def merge(run: Callable, root: Path, *options: object) -> dict:
    result = ok(run, "consolidate", root, *options)
    assert result["moves"], "nothing happened; the test proves nothing"
    return result


def hashes(root: Path) -> set[str]:
    """Of all PNGs in use, dropped, shelved or removed; not of what restore needs."""
    paths = (path for path in root.rglob("*.png") if path.is_file())
    return {sf.sha256_of_file(path) for path in paths if path.relative_to(root).parts[0] != "_runs"}


def sha(data: bytes) -> str:
    return sf.hashlib.sha256(data).hexdigest()


def withstands(run: Callable, *argv: object) -> int:
    """A command did its work or said in one line why not; its exit code."""
    code, _, err = run(*argv, "--json", "-q")
    assert code in (0, 1, 2) and "Traceback" not in err
    assert code != 2 or (err.count("\n") == 1 and err.startswith(f"sort_faces {argv[0]}: ")), err
    return code


def hide_cache(root: Path) -> None:
    edit(root / "manifest.json", lambda value: value.update(cache="/nowhere/lib.npz"))


def scores_of(root: Path) -> Path:
    return audits_of(root)


# --- PNGs the operator added, retouched, deleted ----------------------------


@pytest.fixture
def adopted(run, root) -> Path:
    """The operator's PNG, which a command has taken in."""
    (root / "faceset_001/faces/mine.png").write_bytes(MINE)
    assert idle(run, root)["adopted"] == 1
    return root / "faceset_001/faces/005.png"


def delete(path: Path) -> None:
    path.unlink()


def to_dropped(path: Path) -> None:
    (path.parent / "_dropped").mkdir(exist_ok=True)
    path.rename(path.parent / "_dropped" / path.name)


@pytest.mark.parametrize("action", [delete, to_dropped])
def test_an_adopted_png_that_goes_blocks_no_command(run, root, adopted, action):
    action(adopted)
    merge(run, root)
    assert sha(MINE) not in {face["sha256"] for face in files_of(root, "faceset_001").values()}
    assert (sha(MINE) in hashes(root)) is (action is to_dropped)
    assert_agrees(root)
    assert_clean(run, root)


class Scorer:
    def score(self, images: list[np.ndarray]) -> np.ndarray:
        return np.full((len(images), len(sf.ATTRIBUTES)), 0.25)


def test_nothing_is_said_of_a_png_that_is_not_the_listed_one(root):
    faces = list(files_of(root, "faceset_001").values())[:2]
    items = [
        {"path": str(root / "faceset_001" / face["file"]), "sha256": face["sha256"]}
        for face in faces
    ]
    Path(items[0]["path"]).write_bytes(MINE)
    for results in (sf.TASKS["audit"](Eyes(), items), sf.score_items(Scorer(), items)):
        assert list(results[0]) == ["failed"]
        assert results[1]["error"] == ""
    assert results[1]["scores"] == [0.25, 0.25]


def test_a_retouched_png_is_not_dropped_and_verify_mends_it(run, root, tmp_path, eyes):
    file, plan = "faceset_001/faces/001.png", tmp_path / "fix.json"
    listed, faces = sf.sha256_of_file(root / file), faces_in(root, "faceset_001")
    (root / file).write_bytes(MINE)
    result = ok(run, "optimize", root, *ONE, warned="changed")
    assert result["not_looked_at"] == 1 and not result["moves"]
    assert listed not in sf.read_results(scores_of(root))
    code, out, _ = run("verify", root, *ONE, "--fix", "--plan", plan, "--json")
    assert code == 1 and json.loads(out)["rules"] == {"changed": 1, "one face": 1, "bundle": 2}
    assert {move["action"] for move in read(plan)["moves"]} == {"rebuild"}
    ok(run, "verify", root, "--apply", plan)
    assert faces_in(root, "faceset_001") == faces and sha(MINE) in hashes(root)
    assert_clean(run, root, *ONE)
    assert_agrees(root)


@pytest.mark.parametrize("failing", ["faceset_001/faces/001.png", ".png"])
def test_an_engine_that_fails_costs_no_face(run, root, eyes, monkeypatch, failing):
    def audit(engine: sf.Engine, item: dict, real: Callable = sf.audit_item) -> dict:
        if item["path"].endswith(failing):
            raise RuntimeError("out of memory")
        return real(engine, item)

    monkeypatch.setitem(sf.TASKS, "audit", sf.one_by_one(audit))
    before, number = exact(root), 14 if failing == ".png" else 1
    result = ok(run, "optimize", root, *ONE, warned="out of memory")
    assert result["not_looked_at"] == number and not result["moves"]
    code, out, _ = run("verify", root, *ONE, "--json")
    said = json.loads(out)
    assert code == 1 and said["rules"] == {"one face": number} and said["can_be_mended"] == 0
    assert exact(root) == before


# --- restore ----------------------------------------------------------------


def test_restore_overwrites_no_earlier_dropped_png(run, root, eyes):
    first = root / "faceset_001/faces/003.png"
    data = first.read_bytes()
    to_dropped(first)
    (root / "faceset_001/faces/mine.png").write_bytes(MINE)
    idle(run, root)  # 003 is another face now
    second = files_of(root, "faceset_001")["faces/003.png"]
    merge(run, root, *ONE)
    files = files_of(root, "faceset_001")
    [now] = [file for file in files if files[file]["sha256"] == second["sha256"]]
    (root / "faceset_001" / now).unlink()
    ok(run, "restore", root)
    assert (root / "faceset_001/faces/_dropped/003.png").read_bytes() == data
    assert second["sha256"] in hashes(root)
    assert second["face"] not in faces_in(root, "faceset_001")
    assert_agrees(root)
    assert_clean(run, root)


def test_retouched_pngs_survive_restore_where_numbers_change(run, root):
    before = {face["face"]: file for file, face in files_of(root, "faceset_001").items()}
    merge(run, root)
    pngs = {}
    for at, (file, face) in enumerate(files_of(root, "faceset_001").items()):
        pngs[face["face"]] = picture(5000 + at)
        (root / "faceset_001" / file).write_bytes(pngs[face["face"]])
    assert len(pngs) == 8
    ok(run, "restore", root)
    for face, file in before.items():
        assert (root / "faceset_001" / file).read_bytes() == pngs[face]
    assert {sha(data) for data in pngs.values()} <= hashes(root)  # also those of faceset_002


def test_a_set_pruned_shelved_and_moved_back_by_hand_loses_nothing(run, root, tmp_path):
    before, plan = hashes(root), tmp_path / "plan.json"
    planned(run, plan, "consolidate", root)
    names = {"from": "faceset_002/faces/001.png", "to": "faceset_002/faces/_dropped/001.png"}
    edit(plan, lambda value: value["moves"].insert(0, {"action": "drop", **names}))
    ok(run, "consolidate", root, "--apply", plan)
    (root / "_merged/faceset_002").rename(root / "faceset_002")
    (root / "faceset_002/faces/000.png").write_bytes(picture(5000))
    (root / "faceset_002/faces/mine.png").write_bytes(MINE)
    code, _, err = run("restore", root, "--json")
    assert code == 0 and "changed by hand meanwhile" in err
    assert before | {sha(MINE), sha(picture(5000))} <= hashes(root)
    idle(run, root)
    assert before | {sha(MINE), sha(picture(5000))} <= hashes(root)


def bad_steps(journal: Path) -> None:
    edit(journal, lambda value: value["steps"].append(["../../x", 3]))


@pytest.mark.parametrize("damage", [delete, lambda path: path.write_bytes(b'{"too'), bad_steps])
def test_a_finished_run_without_its_journal_is_kept_and_not_undone(run, root, damage):
    first = root / "_runs" / merge(run, root)["run"]
    kept = exact(first / "before")
    damage(first / "journal.json")
    before = exact(root)
    code, out, err = run("restore", root, "--json")
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert (code, out, len(lines)) == (2, "", 1) and lines[0].startswith("sort_faces restore: ")
    assert exact(root) == before
    (root / "faceset_003/faces/000.png").unlink()
    warned = "no usable journal"
    second = idle(run, root, warned=warned)["run"]
    assert exact(first / "before") == kept and second.startswith("0002-")
    assert ok(run, "restore", root, warned=warned)["undone"] == [second]
    assert exact(first / "before") == kept


@pytest.mark.parametrize("where", [".", "_runs/0001-consolidate/before"])
@pytest.mark.parametrize("key", ["sha256", "file", None])
def test_odd_manifest_entries_do_not_stop_restore(run, root, where, key):
    before = exact(root)
    merge(run, root)
    change = (lambda faces: faces[0].pop(key)) if key else (lambda faces: faces.append("?"))
    edit(root / where / "faceset_001/manifest.json", lambda value: change(value["faces"]))
    run_of = ok(run, "restore", root)
    assert run_of["undone"] == ["0001-consolidate"]
    after = exact(root)
    differ = {name for name in before if after.get(name) != before[name]}
    assert differ <= ({"faceset_001/manifest.json"} if where != "." else set())


# --- links and folders ------------------------------------------------------


def test_the_operators_links_survive_a_run_and_its_restore(run, root, tmp_path):
    (tmp_path / "notes").mkdir()
    links = {"nowhere": "nothing/there", "folder": str(tmp_path / "notes"), "NAME": "NAME.txt",
             "faces/x.png": "nothing.png"}  # fmt: skip
    for name, target in links.items():
        (root / "faceset_001" / name).symlink_to(target)
    merge(run, root)
    assert {name: os.readlink(root / "faceset_001" / name) for name in links} == links
    ok(run, "restore", root)
    assert {name: os.readlink(root / "faceset_001" / name) for name in links} == links


def test_restores_beside_a_dangling_link_come_to_an_end(run, root):
    """A link that was there before is nothing the operator did since."""
    (root / "faceset_001/nowhere").symlink_to("nothing/there")
    (root / "faceset_001/faces/001.png").unlink()
    merge(run, root)
    assert 2 in [withstands(run, "restore", root) for _ in range(5)]


@pytest.mark.parametrize("name", ["x.png", "002.png"])
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_folder_or_a_dangling_link_is_no_png(run, root, name, kind):
    path = root / "faceset_001/faces" / name
    path.unlink(missing_ok=True)
    if kind == "folder":
        sf.write_part(path / "notes.txt", b"mine")
    else:
        path.symlink_to("nothing.png")
    found = wrong(run, root)
    assert ("faceset_001", f"faces/{name}", "by hand") in found or name == "x.png"
    (root / "faceset_001/faces/001.png").unlink()
    idle(run, root)
    assert len(faces_in(root, "faceset_001")) == (4 if name == "x.png" else 3)
    if kind == "folder":
        assert (path / "notes.txt").read_bytes() == b"mine"
    assert path.is_symlink() or kind == "folder" or name == "002.png"
    merge(run, root)
    assert withstands(run, "restore", root) == 0


def test_a_dangling_link_in_the_place_of_a_dropped_png_blocks_no_restore(run, root, tmp_path):
    plan, path = tmp_path / "plan.json", root / "faceset_003/faces/005.png"
    (root / "faceset_003/faces/000.png").rename(path.with_name("mine.png"))
    idle(run, root)
    planned(run, plan, "optimize", root, *IDLE)
    move = {"action": "drop", "from": "faceset_003/faces/005.png",
            "to": "faceset_003/faces/_dropped/005.png"}  # fmt: skip
    edit(plan, lambda value: value["moves"].append(move))
    ok(run, "optimize", root, "--apply", plan)
    path.symlink_to("nothing.png")
    ok(run, "restore", root)
    assert path.is_file()
    assert "nothing.png" in [os.readlink(p) for p in root.rglob("*") if p.is_symlink()]


# --- what nobody knows, and damaged values ----------------------------------


def test_sets_without_any_known_embedding_stay_as_they_are(run, root, eyes):
    give_audits(root)
    hide_cache(root)
    lines = scores_of(root).read_text().splitlines(keepends=True)
    eyes.blind = True
    for kept in (lines[:5], []):  # of set 001 only, then of none
        scores_of(root).write_text("".join(kept))
        before = exact(root)
        for argv in (("consolidate", root, "--edge", -1), ("optimize", root, "--no-audit")):
            assert not ok(run, *argv, *ONE)["moves"]
        withstands(run, "era", "split", root, "faceset_003", "--dry-run")
        assert exact(root) == before


def test_embeddings_of_another_length_are_unknown(run, root, eyes):
    short = [face["sha256"] for face in files_of(root, "faceset_003").values()][:2]
    give_audits(root, **{mark: np.ones(7) for mark in short})
    hide_cache(root)
    assert not ok(run, "optimize", root, "--no-audit", *ONE)["moves"]
    wrong(run, root, *ONE)
    assert merge(run, root, *ONE)["shelved"] == 1
    assert len(faces_in(root, "faceset_003")) == 6


SOUND = {"error": "", "counts": [1, 1], "kps": np.zeros((5, 2)).tolist(),
         "embedding": sf.pack_floats(axis(0))}  # fmt: skip


def without(key: str) -> dict:
    return {name: value for name, value in SOUND.items() if name != key}


@pytest.mark.parametrize(
    "line",
    ["text", [], {}, without("error"), without("counts"), without("embedding"), without("kps"),
     {**SOUND, "counts": [1]}, {**SOUND, "counts": ["1", "1"]}, {**SOUND, "embedding": "AAA"},
     {**SOUND, "kps": [1]}, {"error": "boom"}, {"error": "", "scores": [0.1, 0.2]}],
)  # fmt: skip
def test_a_damaged_audit_is_made_again(run, root, eyes, line):
    give_audits(root, **{f["sha256"]: axis(0) for f in files_of(root, "faceset_001").values()})
    lines = scores_of(root).read_text().splitlines()
    whole = json.loads(lines[0])
    lines[0] = json.dumps({"sha256": whole["sha256"], **line} if isinstance(line, dict) else line)
    scores_of(root).write_text("\n".join(lines) + "\n")
    assert_clean(run, root, *ONE)
    code = withstands(run, "occlusion", "score", root, "--scorer", "landmarks", *ONE)
    assert (code, eyes.asked) == (0, 1)
    assert sf.read_results(scores_of(root))[whole["sha256"]].counts == [1, 1]


@pytest.mark.parametrize("scores", [[0.5], [[0.5, 0.5]], ["a", "b"], [None, 1], 1, {}, [1, 1e999]])
def test_a_damaged_score_is_made_again(tmp_path, scores):
    path = tmp_path / "occlusion-x.jsonl"
    good = {"sha256": "a", "error": "", "scores": [0.5, 0.5]}
    lines = [{**good, "sha256": "b", "scores": scores}, good]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert list(sf.read_results(path)) == ["a"]


def first_face(**facts: object) -> Callable[[dict], None]:
    return lambda value: value["faces"][0].update(facts)


@pytest.mark.parametrize(
    ("change", "sound"),
    [(first_face(taken="2004"), False), (first_face(taken=1e18), True),
     (first_face(taken=-1e300), True), (first_face(photo_sha256=["x"]), False),
     (lambda value: value["files"].extend([3, None, {}, ["x"]]), True)],
)  # fmt: skip
def test_bad_values_in_a_manifest_are_one_line_or_no_matter(run, root, tmp_path, change, sound):
    edit(root / "faceset_003/manifest.json", change)
    found = [rule for _, _, rule in wrong(run, root)]
    assert ("manifest" in found) is not sound
    for argv in (("consolidate", root), ("optimize", root, "--no-audit"),
                 ("era", "split", root, "faceset_003"), ("era", "extend", root, "faceset_003"),
                 ("report", root, "--out", tmp_path / "report"), ("status", root)):  # fmt: skip
        code = withstands(run, *argv)
        assert argv[0] in ("report", "status") or code == (0 if sound else 2), argv


@pytest.mark.parametrize("value", ["x", None])
def test_a_damaged_era_is_one_line_or_no_matter(run, root, value):
    ok(run, "era", "split", root, "faceset_003", "--min-faces", 3)
    thin = root / "_thin/faceset_003_2022/manifest.json"
    edit(thin, lambda manifest: manifest["era"].update(min_faces=value))
    withstands(run, "era", "extend", root, "faceset_003")


@pytest.mark.parametrize(
    "change",
    [lambda plan: plan["moves"][0].update(action=["copy"]),
     lambda plan: plan["moves"][0].update(action={}),
     lambda plan: next(iter(plan["sets"].values())).update(params=3),
     lambda plan: next(iter(plan["sets"].values())).update(era=3),
     lambda plan: next(iter(plan["sets"].values())).update(name=3, reason=[])],
)  # fmt: skip
def test_bad_values_in_a_plan_are_one_line_or_no_matter(run, root, tmp_path, change):
    plan, argv = tmp_path / "plan.json", ("era", "split", root, "faceset_003")
    planned(run, plan, *argv)
    edit(plan, change)
    before = exact(root)
    if withstands(run, *argv, "--apply", plan) == 2:
        assert exact(root) == before
    assert_clean(run, root)


# --- what the operator answers ----------------------------------------------


def answers(root: Path, **said: str) -> Path:
    """A file of answers: answers(root, f1_f2="yes")."""
    pairs = [
        {"a": f"faceset_00{key[1]}", "b": f"faceset_00{key[4]}", "answer": text}
        for key, text in said.items()
    ]
    path = root.parent / "answers.json"
    path.write_text(json.dumps({"tool": sf.TOOL, "kind": "pairs", "pairs": pairs}))
    return path


def active(root: Path) -> Iterable[str]:
    return sorted(folder for folder in folders(root) if "/" not in folder)


@pytest.fixture
def three(tmp_path) -> Path:
    space = Space()
    return build(tmp_path, [space.faces(who, 5 - at) for at, who in enumerate((0, 1, 2))])


def test_two_yes_are_a_third(run, three):
    ok(run, "consolidate", three, "--accept", answers(three, f1_f2="yes", f2_f3="yes"))
    assert active(three) == ["faceset_001"]
    assert_agrees(three)


def test_a_yes_that_meets_a_no_is_told(run, three):
    path = answers(three, f1_f2="yes", f2_f3="yes", f1_f3="no")
    result = ok(run, "consolidate", three, "--accept", path, warned="your yes meets a no")
    assert result["shelved"] == 1 and len(active(three)) == 2


def test_a_no_in_the_default_review_holds(run, tmp_path):
    space = Space()
    root = build(tmp_path, [space.faces(0, 5), space.faces(turned(0.5), 4)])
    assert ok(run, "consolidate", root)["almost"] == 1
    review = tmp_path / "ready-consolidate/pairs.json"
    edit(review, lambda value: value["pairs"][0].update(answer="no"))
    for _ in range(3):
        result = ok(run, "consolidate", root, "--edge", 0.2)
        assert not result["moves"] and result["almost"] == 0
        assert [pair["answer"] for pair in read(review)["pairs"]] == ["no"]
    edit(review, lambda value: value["pairs"][0].update(answer=""))
    assert ok(run, "consolidate", root, "--edge", 0.2)["shelved"] == 1


# --- eras, scores, disk -----------------------------------------------------


def test_a_retouched_face_is_in_an_era_once_and_a_grown_one_is_told(run, root, tmp_path):
    ok(run, "era", "split", root, "faceset_003", "--min-faces", 3)
    thin, plan = "_thin/faceset_003_2022", tmp_path / "fix.json"
    assert thin in folders(root)
    (root / "faceset_003/faces/001.png").write_bytes(MINE)
    ok(run, "verify", root, "--no-faces", "--fix", "--plan", plan, code=1)
    ok(run, "verify", root, "--apply", plan)
    assert sha(MINE) in {face["sha256"] for face in files_of(root, "faceset_003").values()}
    result = ok(run, "era", "extend", root, "faceset_003")
    assert not result["moves"] and result["thin_no_more"] == []
    new = picture(4713)
    put_face(root, "faceset_003", new, Face(axis(1), year=2022))
    give_audits(root, **{sha(new): axis(1)})
    result = ok(run, "era", "extend", root, "faceset_003")
    assert result["copied"] == 1 and result["thin_no_more"] == [f"{thin}: 3 faces"]
    assert_agrees(root)


def test_apply_takes_the_scores_asked_for_last(run, root, tmp_path, monkeypatch):
    for name in ("one", "two"):
        words, zero = np.array(list(sf.ATTRIBUTES)), np.zeros((2, 2, 3))
        texts = sf.companion("clip_scorer").ClipTexts(
            f"tiny/{name}", words, zero, 1.0, 32, zero, zero, True
        )
        texts.save(tmp_path / name / "prompts.npz")
    monkeypatch.setattr(sf, "load_models", lambda spec, threads: Scorer())
    files = []
    for at, name in enumerate(("one", "two")):
        said = ok(run, "occlusion", "score", root, "--clip", tmp_path / name, *ONE)
        files.append(Path(said["scores"]))
        os.utime(files[-1], (1e9 + at, 1e9 + at))
    for asked in (0, 1, 0):
        ok(run, "occlusion", "score", root, "--clip", tmp_path / ("one", "two")[asked], *ONE)
        result = ok(run, "occlusion", "apply", root, "--dry-run")
        assert result["scores"] == files[asked].stem


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini"])
def test_what_file_managers_leave_at_the_top_is_no_finding(run, root, name):
    (root / name).write_bytes(b"icons")
    assert_clean(run, root)


@pytest.mark.parametrize("name", [".DS_Store", "desktop.ini"])
def test_what_file_managers_leave_among_the_runs_is_no_run(run, root, name):
    merge(run, root)
    (root / "_runs" / name).write_bytes(b"icons")
    assert ok(run, "restore", root)["undone"] == ["0001-consolidate"]


def test_a_full_disk_names_the_corpus(run, root, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    before = exact(root)
    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    assert "No space" in refused(run, "consolidate", root, word=str(root))
    assert exact(root) == before


def test_a_command_that_fails_says_that_it_took_in_what_was_done_by_hand(run, root):
    (root / "faceset_001/faces/000.png").unlink()
    err = refused(run, "era", "split", root, "nobody", word="no such face set")
    assert "taken in first, as 0001-reconcile" in err
    assert [path.name for path in (root / "_runs").iterdir()] == ["0001-reconcile"]
    assert_clean(run, root)


def test_verify_writes_no_plan_in_a_dry_run(run, root, tmp_path):
    (root / "faceset_001/faces/000.png").unlink()
    before = exact(root)
    for options in (("--fix",), ("--plan", tmp_path / "plan.json")):
        assert run("verify", root, "--no-faces", "--dry-run", *options)[0] == 1
    assert exact(root) == before
    assert not list(root.parent.glob("*verify.json")) and not (tmp_path / "plan.json").exists()
