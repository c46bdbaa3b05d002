"""What version 0.1.0 has left is opened and gone on with: caches, trees, corpora, videos, queues.

The files in tests/fixtures/v0.1 were written by that version (make_v01.py says how). Everything is
asserted through the CLI and the files, so that no change inside the program needs a change here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from material import ok, refused
from relocate import fingerprint, unpack

pytestmark = pytest.mark.usefixtures("quick_disk")

V01 = Path(__file__).resolve().parent / "fixtures" / "v0.1"
RUNS = ("0001-occlusion-apply", "0002-consolidate", "0003-era-split", "0004-optimize")
CLIPS = ("3adfba88-a747-5646-8eb3-d9464a900393", "992808d7-94a0-5fb3-b06e-9f8dda7c41b2")
SPANS = [(0.0, 1.6), (2.4, 4.0)]


@pytest.fixture
def old(tmp_path_factory) -> Callable[[str], Path]:
    """One part of the fixtures in a folder of its own, as if it had been made there."""
    return lambda part: unpack(V01, tmp_path_factory.mktemp("old"), part) / part


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def sha_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def without(value: dict, *keys: str) -> dict:
    return {key: value[key] for key in value if key not in keys}


def faces_of(cache: Path) -> dict[str, dict[str, bytes]]:
    """{face id: its numbers} of a cache, read as docs/cache.md describes it."""
    with np.load(cache, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    photos = arrays["file_sha256"][arrays["face_file"]]
    names = [f"{s[:16]}:{at}" for s, at in zip(photos, arrays["face_index"], strict=True)]
    kinds = ("bbox", "det_score", "kps", "face_short", "blur", "embedding", "landmark_2d_106",
             "landmark_3d_68", "pose")  # fmt: skip
    return {
        name: {kind: arrays[kind][row].tobytes() for kind in kinds if kind in arrays}
        for row, name in enumerate(names)
    }


# --- a cache with the journal of a killed run -------------------------------


def test_status_of_a_cache_and_its_journal(run, old):
    cache = old("library") / "lib.npz"
    journal = cache.with_name("lib.npz.journal")
    told = ok(run, "status", cache)
    expected = {
        "model": "dlib", "recognizer": "dlib-resnet-v1", "photos": 8, "copies": 2, "with_faces": 6,
        "without_face": 1, "unreadable": 1, "gone_or_changed": 0, "faces": 6, "enriched": 3,
        "years": "2019-2019", "journal_bytes": journal.stat().st_size,
        "sources": [str(cache.parent / "photos")],
    }  # fmt: skip
    assert {key: told[key] for key in expected} == expected


def test_embed_goes_on_where_the_killed_one_ended(run, old):
    folder = old("library")
    cache, photos = folder / "lib.npz", folder / "photos"
    journal = lines_of_whole(cache.with_name("lib.npz.journal"))
    before = faces_of(cache)
    told = ok(run, "embed", photos, cache, "--model", "dlib", "--threads", 1)
    assert (told["photos"], told["unchanged"], told["new"], told["faces"]) == (10, 10, 0, 6)
    assert (told["copies"], told["without_face"], told["unreadable"]) == (2, 1, 1)
    assert not cache.with_name("lib.npz.journal").exists()
    with np.load(cache, allow_pickle=False) as archive:
        paths = dict(zip(archive["file_sha256"].tolist(), archive["file_path"].tolist(),
                         strict=True))  # fmt: skip
        alias = dict(zip(archive["alias_path"].tolist(), archive["alias_file"].tolist(),
                         strict=True))  # fmt: skip
        errors = [text for text in archive["file_error"].tolist() if text]
        taken, owner = archive["file_taken"], archive["file_path"].tolist()
        kinds = archive["file_taken_kind"].tolist()
        meta = json.loads(str(archive["meta"]))
    names = ("2019/anna_20190405.jpg", "2019/dora.jpg", "2019/nobody.jpg", "2019/broken.jpg",
             "2020/dora again.jpg", "2020/anna.jpg", "2021/moved.jpg", "2021/new.jpg")  # fmt: skip
    assert paths == {sha_of(photos / name): str(photos / name) for name in names}
    assert {path: owner[row] for path, row in alias.items()} == {
        str(photos / "backup/copy of anna.jpg"): str(photos / "2019/anna_20190405.jpg"),
        str(photos / "2021/copy of dora.jpg"): str(photos / "2019/dora.jpg"),
    }
    assert errors == ["not a picture this tool can read"]
    kind_of = {Path(path).name: kind for path, kind in zip(owner, kinds, strict=True)}
    assert kind_of.pop("anna_20190405.jpg") == ""  # by its name, of 5 April 2019
    assert set(kind_of.values()) == {"folder"}  # of what had no date
    assert taken[owner.index(str(photos / names[0]))] // 86400 == 17991
    assert (meta["schema"], meta["dim"], meta["roots"]) == (1, 128, [str(photos)])
    after = faces_of(cache)
    assert_folded(before, journal, after)
    assert len(after) == 6 and len(before.keys() - after.keys()) == 1  # the face of goes.jpg


def lines_of_whole(path: Path) -> list[dict]:
    """The whole lines of a journal whose last line is torn."""
    lines = path.read_bytes().splitlines()
    with pytest.raises(ValueError):
        json.loads(lines[-1])
    return [json.loads(line) for line in lines[:-1]]


def assert_folded(before: dict, journal: list[dict], after: dict) -> None:
    """Every face is as the old cache or its journal has it, to the bit."""
    enriched = {f"{line['sha256'][:16]}:{face['index']}": face for line in journal
                if line["op"] == "enrich" for face in line["faces"]}  # fmt: skip
    new = {f"{line['sha256'][:16]}:{at}": face for line in journal
           if line["op"] == "photo" for at, face in enumerate(line["faces"])}  # fmt: skip
    assert len(enriched) == len(new) == 1 and after.keys() - before.keys() == new.keys()
    for name, face in after.items():
        for kind, data in face.items():
            if name in enriched and kind in enriched[name]:
                assert data == base64.b64decode(enriched[name][kind])
            elif name not in new:
                assert data == before[name][kind], (name, kind)
            elif kind == "embedding":
                assert data == base64.b64decode(new[name][kind])
            elif kind in new[name]:
                assert data == np.array(new[name][kind], np.float32).tobytes()
            else:
                assert np.isnan(np.frombuffer(data, np.float32)).all()  # not enriched


def test_enrich_goes_on_where_the_killed_one_ended(run, old):
    cache = old("library") / "lib.npz"
    before = faces_of(cache)
    told = ok(run, "enrich", cache, "--threads", 1)
    assert told == {"lacking": 3, "enriched": 3, "photos_lost": 0}
    after = faces_of(cache)
    assert np.isfinite([np.frombuffer(face["pose"], np.float32) for face in after.values()]).all()
    kept = [n for n in before if np.isfinite(np.frombuffer(before[n]["pose"], np.float32)).all()]
    assert len(kept) == 2 and all(after[name] == before[name] for name in kept)


def test_the_duplicates_report_is_written_over(run, old):
    cache = old("library") / "lib.npz"
    target = cache.with_name("lib.duplicates.json")
    before = read(target)
    assert (len(before["byte_groups"]), len(before["visual_groups"])) == (1, 1)
    told = ok(run, "dedup", cache)
    assert (told["byte_groups"], told["byte_copies"], told["visual_groups"]) == (2, 2, 1)
    after = read(target)
    new = [group for group in after["byte_groups"] if group not in before["byte_groups"]]
    photos = cache.parent / "photos"
    assert [group["paths"] for group in new] == [
        [str(photos / "2019/dora.jpg"), str(photos / "2021/copy of dora.jpg")]
    ]
    told = ("created", "version", "byte_groups")
    assert without(after, *told) == without(before, *told)


# --- trees ------------------------------------------------------------------


def placed_in(tree: Path) -> dict[str, str]:
    return {path.relative_to(tree).as_posix(): sha_of(path) for path in tree.rglob("*.jpg")}


def names_in(tree: Path) -> set[str]:
    return {Path(name).name for name in placed_in(tree)}


def named_after(photos: Path) -> set[str]:
    """What all photos are called in a tree."""
    return {str(path)[1:].replace("/", "__") for path in photos.rglob("*.jpg")}


def groups_in(manifest: dict) -> dict[str, int]:
    groups = manifest.get("persons") or manifest["facesets"]
    return {group["id"]: len(group["faces"]) for group in groups}


def test_status_of_trees(run, old):
    folder = old("trees")
    told = {}
    for name in ("raw", "refined", "cut"):
        (told[name],) = ok(run, "status", folder / name)["trees"]
    facts = ("kind", "groups", "faces", "files", "missing", "unfinished")
    assert {name: [row[key] for key in facts] for name, row in told.items()} == {
        "raw": ["raw", 3, 12, 14, 0, False],
        "refined": ["refined", 3, 12, 13, 0, False],
        "cut": ["raw", 3, 12, 14, 13, True],
    }


def test_extend_adds_to_old_trees_and_touches_nothing(run, old):
    folder = old("trees")
    raw, refined = folder / "raw", folder / "refined"
    was = {tree: {p: p.stat() for p in tree.rglob("*.jpg")} for tree in (raw, refined)}
    before = read(raw / "manifest.json"), read(refined / "refine_manifest.json")
    ok(run, "extend", folder / "lib.npz", raw, "--refine-out", refined)
    for files in was.values():
        for path, facts in files.items():
            assert (path.stat().st_ino, path.stat().st_mtime_ns) == (
                facts.st_ino, facts.st_mtime_ns,
            )  # fmt: skip
    after = read(raw / "manifest.json"), read(refined / "refine_manifest.json")
    assert groups_in(before[0]) == {"person_001": 5, "person_002": 4, "person_003": 3}
    assert groups_in(after[0]) == {
        "person_001": 5, "person_002": 4, "person_003": 5, "person_004": 5,
    }  # fmt: skip
    assert groups_in(after[1]) == {
        "faceset_001": 5, "faceset_002": 4, "faceset_003": 5, "faceset_004": 5,
    }  # fmt: skip
    for then, now, key in zip(before, after, ("persons", "facesets"), strict=True):
        for group, grown in zip(then[key], now[key], strict=False):
            assert grown["faces"][: len(group["faces"])] == group["faces"]
    assert after[1]["extended"] is True and len(after[1]["seen"]) == 20
    assert placed_in(raw) == after[0]["placed"] and placed_in(refined) == after[1]["placed"]
    assert names_in(raw) == named_after(folder / "photos")
    ok(run, "extend", folder / "lib.npz", raw, "--refine-out", refined)
    assert without(read(raw / "manifest.json"), "created") == without(after[0], "created")


@pytest.mark.parametrize("tree", ["raw", "cut"])
def test_cluster_over_an_old_or_unfinished_tree(run, old, tree):
    folder = old("trees")
    out = folder / tree
    inodes = {sha_of(path): path.stat().st_ino for path in out.rglob("[!.]*.jpg")}
    told = ok(run, "cluster", folder / "lib.npz", out)
    assert told["files_placed"] + told["files_moved"] + told["files_kept"] == 21
    assert told["files_kept"] + told["files_moved"] == (14 if tree == "raw" else 15)
    assert (told["files_removed"], told["files_missing"]) == (0, 0)
    ok(run, "cluster", folder / "lib.npz", folder / "fresh")
    made, fresh = read(out / "manifest.json"), read(folder / "fresh" / "manifest.json")
    assert made["placed"] == fresh["placed"] == placed_in(out)
    assert names_in(out) == named_after(folder / "photos")
    assert without(made, "created") == without(fresh, "created")
    assert not (out / "manifest.json.pending").exists()
    now = {sha_of(path): path.stat().st_ino for path in out.rglob("*.jpg")}
    twin = {s for s in now if list(fresh["placed"].values()).count(s) > 1}
    assert all(now[sha] == inodes[sha] for sha in inodes.keys() - twin)  # moved, never copied anew


def test_refine_over_an_old_tree(run, old):
    folder = old("trees")
    out = folder / "refined"
    no_gate = ("--min-length", 0)  # the made embeddings are of any length
    told = ok(run, "refine", folder / "lib.npz", out, "--min-faces", 3, *no_gate)
    assert told["files_removed"] == 0 and told["files_kept"] + told["files_moved"] == 13
    made = read(out / "refine_manifest.json")
    assert sorted(groups_in(made).values()) == [4, 5, 5, 5]
    assert placed_in(out) == made["placed"]


# --- an export ---------------------------------------------------------------


def test_names_follow_their_person_into_a_new_export(run, old):
    """The face sets have changed numbers since; Anna is now the second."""
    folder = old("export")
    ready, refined = folder / "ready", folder / "refined" / "refine_manifest.json"
    verified(run, ready)
    faces = {entry["id"]: entry["faces"] for entry in read(ready / "manifest.json")["facesets"]}
    manifest = read(refined)
    for entry, name in zip(manifest["facesets"], ("faceset_002", "faceset_001"), strict=True):
        entry["id"] = name
    manifest["facesets"].reverse()
    write(refined, manifest)
    small = ("--out-size", 64, "--min-face-short", 40, "--top-n", 1, "--threads", 1)
    told = ok(run, "export-swap", folder / "lib.npz", refined, ready, *small)
    rows = {row["id"]: (row["name"], row["face_count"]) for row in told["facesets"]}
    assert rows == {"faceset_001": ("unnamed", 2), "faceset_002": ("Anna", 2)}
    assert names_of(ready) == {"faceset_001": "unnamed", "faceset_002": "Anna"}
    now = {entry["id"]: entry["faces"] for entry in read(ready / "manifest.json")["facesets"]}
    assert now == {"faceset_001": faces["faceset_002"], "faceset_002": faces["faceset_001"]}
    verified(run, ready)


def test_a_report_of_old_photos_and_an_old_export(run, old):
    folder = old("export")
    for tree in ("refined", "ready"):
        told = ok(run, "report", folder / tree, "--out", folder / f"{tree} pages")
        facts = ("identities", "faces", "missing", "thumbnails_made", "pages")
        assert [told[key] for key in facts] == [2, 4, 0, 4, 3]
    assert "Anna" in (folder / "ready pages" / "index.html").read_text(encoding="utf-8")


# --- a corpus ---------------------------------------------------------------


@pytest.fixture
def corpus(old) -> Path:
    return old("corpus") / "ready"


def names_of(root: Path) -> dict[str, str]:
    found = sorted([*root.glob("faceset_*/NAME.txt"), *root.glob("_*/faceset_*/NAME.txt")])
    return {p.parent.relative_to(root).as_posix(): p.read_text("utf-8").strip() for p in found}


def verified(run: Callable, root: Path) -> None:
    told = ok(run, "verify", root, "--no-faces")
    assert told["wrong"] == 0 and told["findings"] == []


def state_of(root: Path) -> dict[str, str]:
    return fingerprint(root, root.parents[1])


def test_status_and_verify_of_a_corpus(run, corpus):
    told = ok(run, "verify", corpus, "--no-faces")
    assert (told["facesets"], told["shelved"], told["faces"], told["wrong"]) == (7, 3, 37, 0)
    (row,) = ok(run, "status", corpus)["trees"]
    assert (row["kind"], row["groups"], row["faces"], row["missing"]) == ("swap", 7, 37, 0)
    assert names_of(corpus) == {
        "faceset_001": "Ada", "_merged/faceset_002": "Ada", "faceset_003": "unnamed",
        "faceset_004": "Zoë Ω", "faceset_004_2001-2003": "Zoë Ω 2001-2003",
        "faceset_004_2014-2015": "Zoë Ω 2014-2015", "_masked/faceset_005": "unnamed",
        "faceset_006": "unnamed", "_thin/faceset_007": "unnamed", "faceset_008": "unnamed",
    }  # fmt: skip


def test_verify_believes_the_audits_of_then(run, corpus):
    """With every PNG looked at by the old version, nothing is looked at again."""
    (audits,) = corpus.glob("_scores/audit-*.jsonl")
    before = audits.read_bytes()
    code, out, err = run("verify", corpus, "--json")
    assert code == 0 and json.loads(out)["findings"] == [], err
    assert audits.read_bytes() == before
    lines = lines_of(audits)
    face = read(corpus / "faceset_001/manifest.json")["faces"][2]
    for line in lines:
        if line["sha256"] == face["sha256"]:
            line["counts"] = [1, 2]
    audits.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, err = run("verify", corpus, "--json")
    assert code == 1, err
    (found,) = json.loads(out)["findings"]
    assert (found["faceset"], found["file"], found["rule"]) == (
        "faceset_001", face["file"], "one face",
    )  # fmt: skip


def test_restore_step_by_step_to_the_byte(run, corpus):
    states = read(corpus.parent / "states.json")
    assert state_of(corpus) == states[4]
    for at in (3, 2, 1, 0):
        told = ok(run, "restore", corpus)
        assert (told["undone"], told["left"]) == ([RUNS[at]], list(RUNS[:at][::-1]))
        assert state_of(corpus) == states[at]
        verified(run, corpus)
    refused(run, "restore", corpus, word="no maintenance run")


def test_restore_several_runs_at_once(run, corpus):
    assert ok(run, "restore", corpus, "--dry-run")["left"] == list(RUNS[:3][::-1])
    told = ok(run, "restore", corpus, "2")
    assert told["undone"] == list(RUNS[:0:-1]) and told["left"] == [RUNS[0]]
    assert state_of(corpus) == read(corpus.parent / "states.json")[1]


def test_restore_keeps_what_was_done_by_hand_since(run, corpus):
    (corpus / "faceset_001/NAME.txt").write_text("Ada L.\n")
    (corpus / "faceset_006/notes.txt").write_text("mine")
    (corpus / "faceset_003/faces/001.png").unlink()
    told = ok(run, "restore", corpus, "1")
    assert len(told["undone"]) == 4
    assert names_of(corpus)["faceset_001"] == "Ada L."
    assert (corpus / "faceset_006/notes.txt").read_text() == "mine"
    files = [face["file"] for face in read(corpus / "faceset_003/manifest.json")["faces"]]
    assert files == ["faces/000.png", "faces/002.png", "faces/003.png", "faces/004.png"]
    assert (corpus / "faceset_003/faces/_dropped/001.png").exists()


def test_a_plan_of_then_is_carried_out(run, corpus):
    plan = corpus.parent / "plan.json"
    before = state_of(corpus)
    told = ok(run, "optimize", corpus, "--apply", plan)
    assert (told["run"], told["dropped"]) == ("0005-optimize", 2)
    for name, png in (("faceset_004", "007.png"), ("faceset_004_2001-2003", "004.png")):
        assert not (corpus / name / "faces" / png).exists()
        assert (corpus / name / "faces/_dropped" / png).exists()
        (gone,) = read(corpus / name / "manifest.json")["dropped"]
        assert gone["reason"] == "near-duplicate of 000.png"
    verified(run, corpus)
    ok(run, "restore", corpus)
    assert state_of(corpus) == before
    (corpus / "faceset_008/faces/000.png").unlink()
    refused(run, "optimize", corpus, "--apply", plan, word="changed")


def test_the_same_plan_is_made_today(run, corpus):
    today = corpus.parent / "today.json"
    ok(run, "optimize", corpus, "--dry-run", "--plan", today)
    assert without(read(today), "version") == without(read(corpus.parent / "plan.json"), "version")


def test_consolidate_goes_on_with_the_pairs_of_then(run, corpus):
    review = corpus.parent / "review"
    pairs = read(review / "pairs.json")
    assert [(p["a"], p["b"], p["answer"]) for p in pairs["pairs"]] == [
        ("faceset_006", "faceset_008", "")
    ]
    told = ok(run, "consolidate", corpus, "--review", review)
    assert (told["almost"], told["moves"]) == (1, [])
    pairs["pairs"][0]["answer"] = "yes"
    write(review / "pairs.json", pairs)
    answers = ("--review", review, "--accept", review / "pairs.json")
    told = ok(run, "consolidate", corpus, *answers)
    assert (told["shelved"], told["copied"]) == (1, 4)
    assert (corpus / "_merged/faceset_006").is_dir()
    assert len(read(corpus / "faceset_008/manifest.json")["faces"]) == 9
    verified(run, corpus)


def test_a_no_of_then_stays_a_no(run, corpus):
    review = corpus.parent / "review"
    pairs = read(review / "pairs.json")
    pairs["pairs"][0]["answer"] = "no"
    write(review / "pairs.json", pairs)
    told = ok(run, "consolidate", corpus, "--review", review, "--edge", 0.4)
    assert told["moves"] == [] and read(review / "pairs.json")["pairs"][0]["answer"] == "no"


def without_a_face(root: Path, folder: str, file: str) -> dict:
    """Make a face set as if one of its faces had never come; the face."""
    manifest = read(root / folder / "manifest.json")
    (gone,) = (face for face in manifest["faces"] if face["file"] == file)
    manifest["faces"].remove(gone)
    write(root / folder / "manifest.json", manifest)
    (root / folder / file).unlink()
    return gone


def test_era_extend_goes_by_the_anchors_of_then(run, corpus):
    told = ok(run, "era", "extend", corpus, "Zoë Ω")
    assert (told["moves"], told["of_no_era"]) == ([], 0)
    era = "faceset_004_2014-2015"
    came = without_a_face(corpus, era, "faces/002.png")
    told = ok(run, "era", "extend", corpus, "faceset_004")
    assert [(m["action"], m["count"]) for m in told["moves"]] == [("copy", 1)]
    back = {face["face"]: face["sha256"] for face in read(corpus / era / "manifest.json")["faces"]}
    assert len(back) == 3 and back[came["face"]] == came["sha256"]
    verified(run, corpus)


@pytest.mark.parametrize("change", [{"anchor_year": 1990}, {"max_years": 0.4, "anchor_year": 2014}])
def test_the_rule_of_the_split_of_then_decides(run, corpus, change):
    """With another anchor or other years on record the face of 2015 fits no era."""
    eras = ("faceset_004_2001-2003", "faceset_004_2014-2015")
    without_a_face(corpus, eras[1], "faces/002.png")
    for era in eras:
        manifest = read(corpus / era / "manifest.json")
        manifest["era"] |= change
        write(corpus / era / "manifest.json", manifest)
    told = ok(run, "era", "extend", corpus, "faceset_004", "--dry-run")
    assert (told["moves"], told["of_no_era"]) == ([], 1)


def test_occlusion_by_the_scores_of_then(run, corpus):
    told = ok(run, "occlusion", "report", corpus, "--out", corpus.parent / "occlusion")
    rows = {row["id"]: (row["faces"], row["mask"], row["sunglasses"], row["verdict"])
            for row in told["facesets"]}  # fmt: skip
    assert rows["faceset_001"] == (8, 0, 0, "keep") and len(rows) == 7
    ok(run, "restore", corpus, "1")
    told = ok(run, "occlusion", "apply", corpus, "--scores", "occlusion-landmarks")
    assert told["verdicts"] == {"keep": 5, "masked": 1, "prune": 1, "thin": 1}
    states = read(corpus.parent / "states.json")
    chosen = (
        "faceset_006/faceset_006_top3.fsz"  # then the first three, now those that stand for all
    )
    same = [name for name in states[1] if "manifest.json" not in name and "_runs" not in name]
    same.remove(chosen)
    same.remove("faceset_006/previews/top_20_grid.jpg")  # its faces are now taken over, not decoded
    assert {name: state_of(corpus)[name] for name in same} == {n: states[1][n] for n in same}
    verified(run, corpus)
    score = {gone["reason"]: gone["score"]
             for gone in read(corpus / "faceset_006/manifest.json")["dropped"]}  # fmt: skip
    assert score == {"sunglasses": 0.91}


def test_deleting_by_hand_is_taken_in_and_undone(run, corpus):
    before = read(corpus / "faceset_008/manifest.json")
    (corpus / "faceset_008/faces/001.png").unlink()
    told = ok(run, "optimize", corpus, "--no-near", "--no-bytes", "--no-audit")
    assert told["gone"] == 1 and told["run"].startswith("0005-")
    after = read(corpus / "faceset_008/manifest.json")
    assert len(after["faces"]) == 4
    assert [gone["face"] for gone in after["dropped"]] == [before["faces"][1]["face"]]
    verified(run, corpus)


def test_the_report_is_brought_up_to_date(run, corpus):
    out = corpus.parent / "report"
    thumbs = {p.name: p.stat().st_ino for p in (out / "thumbs").iterdir()}
    told = ok(run, "report", corpus, "--out", out)
    assert (told["identities"], told["missing"], told["thumbnails_made"]) == (7, 0, 0)
    assert {p.name: p.stat().st_ino for p in (out / "thumbs").iterdir()} == thumbs
    index = (out / "index.html").read_text(encoding="utf-8")
    assert "Zoë Ω 2014-2015" in index and "Set aside: masked" in index
    assert len(list(out.glob("*.html"))) == told["pages"] == 11


# --- corpora whose maintenance was killed -----------------------------------


def test_a_killed_run_is_finished_and_can_be_undone(run, old):
    root = old("killed") / "applying"
    states = read(root.parent / "states.json")
    assert read(root / "_runs/0001-consolidate/journal.json")["state"] == "applying"
    verified(run, root)
    journal = "_runs/0001-consolidate/journal.json"  # says more today
    stage = "_runs/0001-consolidate/stage"  # an empty folder stays today
    assert {**state_of(root), journal: ""} == {**states["after"], journal: "", stage: "folder"}
    assert read(root / journal)["state"] == "done"
    assert names_of(root) == {"_merged/faceset_002": "Ada", "faceset_001": "Ada"}
    assert ok(run, "restore", root)["undone"] == ["0001-consolidate"]
    assert state_of(root) == states["before"]


def test_a_killed_restore_is_finished(run, old):
    root = old("killed") / "restoring"
    assert read(root / "_runs/0001-consolidate/journal.json")["state"] == "restoring"
    verified(run, root)
    assert state_of(root) == read(root.parent / "states.json")["before"]
    assert not (root / "_runs").exists()
    told = ok(run, "consolidate", root, "--review", root.parent / "review")
    assert (told["run"], told["copied"], told["shelved"]) == ("0001-consolidate", 1, 1)


# --- videos -----------------------------------------------------------------


@pytest.fixture
def video(old) -> Path:
    return old("video")


def spans(work: Path) -> list[tuple[float, float]]:
    return [(segment["start"], segment["end"]) for segment in read(work / "plan.json")["segments"]]


def unversioned(data: bytes) -> bytes:
    return re.sub(rb'"version": "[^"]*"', b"", data)


KNOWN_OF_OLD = {"yaw", "pitch", "size", "faces"}  # of a clip's envelope: no light, no sharpness


def assert_tracks_grew(now: dict, before: dict) -> None:
    """Tracks of old have no length of their embeddings, which the frames tell."""
    for track in now["tracks"]:
        assert track.pop("length") > 0
    assert without(now, "version") == without(before, "version")


def test_a_finished_work_folder_has_nothing_left_to_do(run, video):
    work, clips = video / "work", video / "clips"
    files = {p: p.read_bytes() for p in work.rglob("*") if p.suffix in (".json", ".jsonl")}
    was = {path: path.stat().st_mtime_ns for path in clips.rglob("*.mp4")}
    assert ok(run, "video", "scan", video / "films", work)["videos"] == 1
    assert ok(run, "video", "scenes", work)["decoded"] == 0
    ok(run, "video", "stage", work, "--every-sample", "--no-pad-retry")
    told = ok(run, "video", "detect", work, "--model", "dlib")
    assert (told["frames"], told["already_known"]) == (0, told["wanted"])
    ok(run, "video", "merge", work)
    ok(run, "video", "track", work)
    assert ok(run, "video", "score", work)["segments"] == 2
    told = ok(run, "video", "cut", work, clips)
    assert (told["clips"], told["written"]) == (2, 0)
    plan = work / "plan.json"
    for path, data in files.items():
        if path == work / "tracks.json":
            assert_tracks_grew(read(path), json.loads(data))
        elif path.name == "queue.json":  # now says how it was chosen
            now, before = read(path), json.loads(data)
            assert now["items"] == before["items"] and now["every_sample"] is True
        elif path != plan:
            assert unversioned(data) == unversioned(path.read_bytes()), path
    now, before = read(plan), json.loads(files[plan])
    for row in (*now["segments"], *now["rejected"]):
        assert len(row.pop("boxes")) == len(row["strip"])  # plans of old have none
    for row in now["segments"]:  # nor do they say who is seen, and which are the best
        assert len(row.pop("people")) == 1 and row.pop("rank") in (1, 2)
        assert 0 < row.pop("expected") <= 1 and set(row.pop("terms")) == KNOWN_OF_OLD
        envelope = row.pop("envelope")
        assert {name for name, pair in envelope.items() if pair != [None, None]} == KNOWN_OF_OLD
        assert row["checked"].pop("changes") == []  # nobody looked for any
    assert {**now, "version": ""} == {**before, "version": ""}
    assert {path: path.stat().st_mtime_ns for path in clips.rglob("*.mp4")} == was


def test_scoring_and_cutting_go_on_from_old_tracks(run, video):
    work, clips = video / "work", video / "clips"
    for name in ("frames.npz", "results.jsonl", "queue.json"):
        (work / name).unlink()
    assert spans(work) == SPANS
    told = ok(run, "video", "score", work, "--max-yaw", 20)
    assert told["segments"] == 1 and spans(work) == SPANS[:1]
    told = ok(run, "video", "cut", work, clips)
    assert (told["written"], told["set_aside"]) == (0, 1)
    assert (clips / "_removed/film" / f"{CLIPS[1]}.mp4").exists()
    assert ok(run, "video", "score", work)["segments"] == 2
    assert ok(run, "video", "cut", work, clips)["written"] == 1
    segments = read(work / "plan.json")["segments"]
    assert [segment["clip"] for segment in segments] == [f"film/{name}.mp4" for name in CLIPS]
    assert [segment["checked"]["frames"] for segment in segments] == [40, 40]
    assert [line["uuid"] for line in lines_of(work / "clips.jsonl")] == [
        *CLIPS
    ]  # alike to the letter


def test_tracks_are_made_of_old_frames(run, video):
    work = video / "work"
    before = read(work / "tracks.json")
    (work / "tracks.json").unlink()
    assert len(before["tracks"]) == 2
    ok(run, "video", "track", work)
    assert_tracks_grew(read(work / "tracks.json"), before)


def test_identities_of_then_are_believed(run, video):
    """Turned around on record, anna is nobody; were she embedded anew, she would be found."""
    work, anna = video / "work", video / "anna.fsz"
    whole = (work / "identities.json").read_bytes()
    known = json.loads(whole)
    ((sha, packed),) = known["faces"].items()
    turned = -np.frombuffer(base64.b64decode(packed), "<f4")
    known["faces"][sha] = base64.b64encode(turned.tobytes()).decode()
    write(work / "identities.json", known)
    ok(run, "video", "score", work, "--identity", anna, code=1)
    assert spans(work) == []
    (work / "identities.json").write_bytes(whole)
    assert ok(run, "video", "score", work, "--identity", anna)["segments"] == 1
    assert spans(work) == SPANS[:1]
    assert ok(run, "video", "score", work, "--exclude-identity", anna)["segments"] == 1
    assert spans(work) == SPANS[1:]


def test_frames_that_are_missing_are_looked_at(run, video):
    work = video / "work"
    results = work / "results.jsonl"
    whole = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(b"".join(whole[:-1]) + whole[-1][:30])
    told = ok(run, "video", "detect", work, "--model", "dlib", "--threads", 1)
    assert (told["frames"], told["already_known"]) == (1, len(whole) - 2)
    assert [line["id"] for line in lines_of(results)] == [json.loads(line)["id"] for line in whole]
    assert results.read_bytes().splitlines(keepends=True)[:-1] == whole[:-1]
    ok(run, "video", "merge", work)
    ok(run, "video", "track", work)
    ok(run, "video", "score", work)
    assert spans(work) == SPANS


def test_the_video_report_is_made_anew(run, video):
    work = video / "work"
    thumbs = {p.name for p in (work / "report").rglob("*.jpg")}
    (work / "report/index.html").unlink()
    ok(run, "video", "report", work)
    page = (work / "report/index.html").read_text(encoding="utf-8")
    assert len(re.findall(r'<tr class="segment', page)) == 2 and all(n in page for n in CLIPS)
    assert {p.name for p in (work / "report").rglob("*.jpg")} == thumbs


# --- the queue of a killed run with a worker --------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="the queue has POSIX paths")
def test_results_of_a_killed_worker_run_are_taken_over(run, old):
    """A marked result shows that it is not made anew."""
    folder = old("worker")
    cache, photos = folder / "lib.npz", folder / "photos"
    (results,) = folder.glob("lib.npz.queue/*/results.jsonl")
    lines = results.read_bytes().splitlines(keepends=True)
    kept = [json.loads(line) for line in lines[:-1]]
    assert len(kept) == 2 and not lines[-1].endswith(b"\n")
    marked = "".join(json.dumps({**line, "taken": 1e9}) + "\n" for line in kept)
    results.write_bytes(marked.encode() + lines[-1])
    argv = ("--model", "dlib", "--threads", 1, "--worker", sys.executable)
    told = ok(run, "embed", photos, cache, *argv)
    assert (told["photos"], told["new"], told["faces"], told["failed"]) == (4, 4, 4, [])
    with np.load(cache, allow_pickle=False) as archive:
        taken = archive["file_taken"]
        vectors = archive["embedding"]
    assert (taken == 1e9).sum() == 2 and np.isnan(taken).sum() == 2
    for line in kept:
        known = np.frombuffer(base64.b64decode(line["faces"][0]["embedding"]), "<f4")
        assert (vectors == known).all(axis=1).sum() == 1
    assert not (folder / "lib.npz.queue").exists()
