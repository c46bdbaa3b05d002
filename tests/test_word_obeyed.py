"""Every command obeys what the operator decided, and a named person keeps number and name."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import make_cache, sf
from corpora import faces_in, read
from exports import EACH, Photos, give_scores
from material import Library, manifest_of, ok, refused, tree
from test_extend import Growing

pytestmark = pytest.mark.usefixtures("quick_disk")
decisions = sf.companion("decisions")


def say(
    path: Path, kind: str, faces: Sequence[int], others: Sequence[int] = (), **facts: object
) -> str:
    """Append one decision to the file of a cache; its act."""
    cache, op = sf.load_cache(path), decisions.new_op()
    sides = {"faces": decisions.refs(cache, faces), "others": decisions.refs(cache, others)}
    decisions.Book(path).append([decisions.act(kind, op, **sides, **facts)])
    return op


def folder_of(groups: dict[str, set[str]], faces: set[str]) -> str:
    """The one group that holds these faces, "" if there is no such."""
    found = [name for name, own in groups.items() if faces & own]
    return found[0] if len(found) == 1 and faces <= groups[found[0]] else ""


@pytest.fixture
def grown(run, tmp_path) -> Growing:
    """Four people of 20 photos, of which 16 each are known and sorted."""
    cache = make_cache(people=4, photos=20, root=str(tmp_path / "photos"))
    library = Growing(tmp_path, cache, [row for row in range(80) if row % 20 < 16])
    library.make_trees(run)
    return library


def rows_of(library: Growing, person: int, count: int = 16) -> list[int]:
    """Rows of a person while 16 photos each are known."""
    return list(range(person * 16, person * 16 + count))


def names_of(library: Growing, rows: Sequence[int]) -> set[str]:
    cache = sf.load_cache(library.path)
    return {cache.face_ids[row] for row in rows}


# ---------------------------------------------------------------------------- trees


def test_cluster_and_refine_join_and_part_as_decided(run, grown):
    a, b, c = (rows_of(grown, person) for person in (0, 1, 2))
    say(grown.path, "same", a, b)
    say(grown.path, "not_belongs", c[:2], c[2:])
    ok(run, "cluster", grown.path, grown.raw)
    ok(run, "refine", grown.path, grown.refined, "--min-faces", 3)
    persons, sets = grown.persons(), grown.facesets()
    assert folder_of(persons, names_of(grown, a + b)) == "person_001"
    assert names_of(grown, c[:2]) <= persons["_singletons"]
    assert folder_of(sets, names_of(grown, a + b)) == "faceset_001"
    assert not names_of(grown, c[:2]) & set().union(*sets.values())


def test_a_named_person_keeps_number_and_name_when_all_others_move(run, grown):
    last = rows_of(grown, 3)
    before = folder_of(grown.persons(), names_of(grown, last))
    say(grown.path, "name", last, text="Dora")
    ok(run, "cluster", grown.path, grown.raw)
    ok(run, "refine", grown.path, grown.refined)
    assert folder_of(grown.persons(), names_of(grown, last)) == before == "person_004"
    numbers = [line.text for line in decisions.Book(grown.path).lines if line.kind == "number"]
    assert sorted(numbers) == ["faceset_004", "person_004"]
    say(grown.path, "same", rows_of(grown, 0), rows_of(grown, 1))
    say(grown.path, "not_belongs", last[:6], last[6:])
    for options in ((), ("--strictness", 0.02)):
        for step, out in (("cluster", grown.raw), ("refine", grown.refined)):
            more = ("--min-faces", 3) if step == "refine" else ()
            ok(run, step, grown.path, out, *options, *more)
        assert folder_of(grown.persons(), names_of(grown, last[6:])) == "person_004"
        assert folder_of(grown.facesets(), names_of(grown, last[6:])) == "faceset_004"
    assert len([line for line in decisions.Book(grown.path).lines if line.kind == "number"]) == 2


def test_ignored_strangers_have_their_own_folder_and_new_faces_go_there(run, grown):
    say(grown.path, "ignore", rows_of(grown, 1)[:8])
    ok(run, "cluster", grown.path, grown.raw)
    ok(run, "refine", grown.path, grown.refined)
    stranger = names_of(grown, rows_of(grown, 1))
    assert set(manifest_of(grown.raw)["ignored"]) == stranger
    assert len(list((grown.raw / "_ignored").iterdir())) == 16
    assert not stranger & set().union(*grown.facesets().values())
    known = names_of(grown, range(64))
    grown.grow()
    ok(run, "extend", grown.path, grown.raw, "--refine-out", grown.refined)
    new = set(sf.load_cache(grown.path).face_ids) - known
    strangers = set(manifest_of(grown.raw)["ignored"])
    assert stranger < strangers and len(strangers) == 20
    assert len(new - strangers) == 12
    assert not strangers & set().union(*grown.facesets().values())
    assert not strangers & set().union(*grown.persons().values())


def test_who_is_ignored_no_more_is_a_person_again(run, grown):
    op = say(grown.path, "ignore", rows_of(grown, 1)[:8])
    ok(run, "cluster", grown.path, grown.raw)
    ok(run, "decisions", "undo", grown.path, op)
    ok(run, "extend", grown.path, grown.raw)
    assert folder_of(grown.persons(), names_of(grown, rows_of(grown, 1))) == "person_004"
    assert not manifest_of(grown.raw)["ignored"] and not (grown.raw / "_ignored").exists()


def test_what_is_no_face_is_nowhere_and_its_photo_is_among_those_without(run, grown):
    rows = rows_of(grown, 2)
    op = say(grown.path, "not_face", rows[:1])
    ok(run, "cluster", grown.path, grown.raw)
    assert not names_of(grown, rows[:1]) & set().union(*grown.persons().values())
    assert len(list((grown.raw / "_noface").iterdir())) == 1
    ok(run, "decisions", "undo", grown.path, op)
    ok(run, "cluster", grown.path, grown.raw)
    assert folder_of(grown.persons(), names_of(grown, rows))
    assert not list((grown.raw / "_noface").glob("*"))


def test_extend_joins_parts_and_moves_what_was_decided_since(run, grown):
    a, b, c, d = (rows_of(grown, person) for person in range(4))
    before = {
        person: folder_of(grown.persons(), names_of(grown, rows))
        for person, rows in enumerate((a, b, c, d))
    }
    say(grown.path, "same", a, d)
    say(grown.path, "together", b[:5])
    say(grown.path, "not_belongs", b[:5], b[5:])
    say(grown.path, "belongs", c[:1], b[5:])
    say(grown.path, "not_belongs", c[:1], c[1:])
    moved = [names_of(grown, rows) for rows in (a + d, b[:5], [*b[5:], c[0]], c[1:])]
    grown.grow()
    result = ok(run, "extend", grown.path, grown.raw, "--refine-out", grown.refined)
    persons = grown.persons()
    assert folder_of(persons, moved[0]) == before[0]
    assert folder_of(persons, moved[2]) == before[1]
    assert folder_of(persons, moved[3]) == before[2]
    assert before[3] not in persons
    assert folder_of(persons, moved[1]) == "person_005"
    assert result["new_persons"] == 1
    sets = grown.facesets()
    assert folder_of(sets, moved[0]) == "faceset_001"
    assert not any(
        moved[1] & own for name, own in sets.items() if folder_of(sets, moved[2]) == name
    )
    assert not (grown.raw / before[3]).exists()
    placed = set(manifest_of(grown.raw)["placed"])
    assert placed == {path.relative_to(grown.raw).as_posix() for path in grown.raw.rglob("*.jpg")}
    again = tree(grown.raw)
    ok(run, "extend", grown.path, grown.raw, "--refine-out", grown.refined)
    assert {k: v for k, v in tree(grown.raw).items() if k != "manifest.json"} == {
        k: v for k, v in again.items() if k != "manifest.json"
    }


def test_a_face_that_was_given_to_somebody_passes_the_outlier_gate_and_a_kept_one_all(
    run, tmp_path
):
    cache = make_cache(people=2, photos=20, root=str(tmp_path / "photos"))
    embedding, short = cache.embedding.copy(), cache.face_short.copy()
    embedding[0] = np.roll(embedding[0], 7)
    short[1] = 10
    library = Library(tmp_path, sf.replace(cache, embedding=embedding, face_short=short))
    ids = library.cache.face_ids

    def kept() -> set[str]:
        ok(run, "refine", library.path, library.out, "--min-faces", 5)
        return {face for entry in manifest_of(library.out)["facesets"] for face in entry["faces"]}

    assert not {ids[0], ids[1]} & kept()
    say(library.path, "belongs", [0], range(2, 20))
    assert {ids[0], ids[1]} & kept() == {ids[0]}
    say(library.path, "keep", [1])
    assert {ids[0], ids[1]} <= kept()


# ---------------------------------------------------------------------------- export


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Photos:
    return Photos(tmp_path, monkeypatch)


def export(run, photos: Photos, manifest: Path, *options: object) -> dict:
    command = ("export-swap", photos.folder / "lib.npz", manifest, photos.root)
    return ok(run, *command, "--model", "synthetic", "--out-size", 128, *options)


def in_use(photos: Photos) -> list[str]:
    return sorted(folder.name for folder in photos.root.glob("faceset_*"))


def test_export_drops_keeps_names_and_puts_the_best_picture_first(run, photos):
    path = photos.folder / "lib.npz"
    manifest = photos.refine(photos.rows(0, 0, EACH))
    export(run, photos, manifest)
    first = faces_in(photos.root, "faceset_001")
    row = photos.cache.row_of_face
    say(path, "drop", [row[first[0]]])
    say(path, "best", [row[first[-1]]])
    say(path, "name", [row[face] for face in first], text="Zoë")
    export(run, photos, manifest)
    now = faces_in(photos.root, "faceset_001")
    assert now == [first[-1], *first[1:-1]]
    left = read(photos.root / "faceset_001" / "manifest.json")["dropped"]
    assert [(gone["face"], gone["reason"]) for gone in left] == [
        (first[0], "dropped by the operator")
    ]
    assert (photos.root / "faceset_001" / "NAME.txt").read_text("utf-8").strip() == "Zoë"
    say(path, "keep", [row[face] for face in first[:3]])
    said = export(run, photos, manifest, "--min-face-short", 100000, "--min-survivors", 1)
    assert said["faces"] == 3
    assert set(faces_in(photos.root, "faceset_001")) == set(first[:3])


def test_export_obeys_what_was_said_after_refine(run, photos):
    path = photos.folder / "lib.npz"
    a, b, c = (photos.rows(person, 0, EACH) for person in range(3))
    manifest = photos.refine(a, b, c)
    row = photos.cache.row_of_face
    say(path, "same", [row[face] for face in a], [row[face] for face in b])
    say(path, "ignore", [row[face] for face in c])
    export(run, photos, manifest)
    assert in_use(photos) == ["faceset_001"]
    assert set(faces_in(photos.root, "faceset_001")) == {*a, *b}


def test_a_name_written_by_hand_later_is_the_later_word(run, photos):
    path = photos.folder / "lib.npz"
    faces = photos.rows(0, 0, EACH)
    manifest = photos.refine(faces)
    say(path, "name", [photos.cache.row_of_face[face] for face in faces], text="Anna")
    export(run, photos, manifest)
    note = photos.root / "faceset_001" / "NAME.txt"
    assert note.read_text("utf-8").strip() == "Anna"
    note.write_text("Johanna\n", "utf-8")
    for _ in range(2):
        export(run, photos, manifest)
        assert note.read_text("utf-8").strip() == "Johanna"
    say(path, "name", [photos.cache.row_of_face[face] for face in faces], text="Hanna")
    export(run, photos, manifest)
    assert note.read_text("utf-8").strip() == "Hanna"


def test_a_merge_that_was_made_is_undone_by_a_no(run, photos):
    a, b = photos.rows(0, 0, EACH), photos.rows(1, 0, EACH)
    manifest = photos.refine(a, b)
    export(run, photos, manifest)
    pairs = photos.folder / "pairs.json"
    answer = {"a": "faceset_001", "b": "faceset_002", "answer": "yes"}
    pairs.write_text(
        json.dumps({"tool": "sort_faces", "kind": "pairs", "version": "1", "pairs": [answer]})
    )
    ok(run, "consolidate", photos.root, "--accept", pairs)
    assert in_use(photos) == ["faceset_001"]
    book = decisions.Book(photos.folder / "lib.npz")
    [same] = book.lines
    assert (same.kind, same.tab) == ("same", "pairs.json")
    export(run, photos, manifest)
    assert in_use(photos) == ["faceset_001"]
    row = photos.cache.row_of_face
    say(
        photos.folder / "lib.npz", "different", [row[face] for face in a], [row[face] for face in b]
    )
    export(run, photos, manifest)
    assert in_use(photos) == ["faceset_001", "faceset_002"]


def test_consolidate_asks_no_more_what_was_decided(run, photos):
    a, b, c = (photos.rows(person, 0, EACH) for person in range(3))
    export(run, photos, photos.refine(a, b, c))
    row = photos.cache.row_of_face
    path = photos.folder / "lib.npz"
    assert ok(run, "consolidate", photos.root, "--edge", 0.4, "--dry-run")["almost"] == 0
    say(path, "same", [row[face] for face in a], [row[face] for face in b])
    say(path, "different", [row[face] for face in b], [row[face] for face in c])
    result = ok(run, "consolidate", photos.root, "--edge", -1)
    assert result["shelved"] == 1 and result["almost"] == 0
    assert in_use(photos) == ["faceset_001", "faceset_003"]


def test_maintenance_drops_no_face_that_is_kept(run, photos):
    """Two faces wear masks; one of them is kept."""
    faces = photos.rows(0, 0, EACH)
    export(run, photos, photos.refine(faces))
    first = faces_in(photos.root, "faceset_001")
    give_scores(photos.root, {"faceset_001": ["faces/000.png", "faces/001.png"]})
    say(photos.folder / "lib.npz", "keep", [photos.cache.row_of_face[first[0]]])
    ok(run, "occlusion", "apply", photos.root)
    assert faces_in(photos.root, "faceset_001") == [first[0], *first[2:]]


# ---------------------------------------------------------------------------- command line


def test_list_tells_what_counts_and_what_contradicts(run, grown):
    a, b = rows_of(grown, 0), rows_of(grown, 1)
    say(grown.path, "same", a, b)
    no = say(grown.path, "different", a, b)
    said = ok(run, "decisions", "list", grown.path)
    assert [line["state"] for line in said["lines"]] == ["overruled", "counts"]
    [conflict] = said["conflicts"]
    assert "one person" in conflict["says"] and "two people" in conflict["but"]
    ok(run, "decisions", "undo", grown.path)
    assert [x["state"] for x in ok(run, "decisions", "list", grown.path)["lines"]] == [
        "counts",
        "taken back",
    ]
    ok(run, "decisions", "redo", grown.path, no)
    assert [x["state"] for x in ok(run, "decisions", "list", grown.path)["lines"]] == [
        "overruled",
        "counts",
    ]
    assert "nothing to take back" in refused(
        run, "decisions", "undo", grown.path, "nonsense", word="nonsense"
    )


def test_names_of_another_program_come_in_by_path_and_box(run, grown, tmp_path):
    cache = sf.load_cache(grown.path)
    table = tmp_path / "tags.csv"
    rows = []
    for row in rows_of(grown, 0, 3):
        x1, y1, x2, y2 = cache.bbox[row] / np.tile(cache.file_wh[row], 2)
        rows.append(
            {
                "path": cache.file_path[row],
                "x": x1,
                "y": y1,
                "w": x2 - x1,
                "h": y2 - y1,
                "name": "Anna\u202e B.",
            }
        )
    rows.append({"path": "/elsewhere/" + Path(cache.file_path[20]).name, "name": "Ben"})
    rows.append({"path": "/nowhere/x.jpg", "x": 0, "y": 0, "w": 1, "h": 1, "name": "Eve"})
    rows.append({"path": cache.file_path[0], "x": 0.9, "y": 0.9, "w": 0.1, "h": 0.1, "name": "Eve"})
    with open(table, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["path", "x", "y", "w", "h", "name"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    said = ok(run, "decisions", "import", grown.path, table, code=1)
    assert (said["people"], said["faces"], said["new"], said["not_found"]) == (1, 3, 1, 3)
    assert "no such face" in " ".join(said["misses"])
    again = ok(run, "decisions", "import", grown.path, table, code=1)
    assert again["new"] == 0
    [line] = decisions.Book(grown.path).lines
    assert (line.author, line.text) == ("import tags.csv", "Anna B.")


def test_decisions_go_to_another_machine_and_to_a_spreadsheet(run, grown, tmp_path):
    say(grown.path, "name", rows_of(grown, 0), text="=cmd|' /C calc'!A0")
    say(grown.path, "same", rows_of(grown, 1), rows_of(grown, 2))
    ok(run, "decisions", "undo", grown.path)
    ok(run, "decisions", "export", grown.path, tmp_path / "all.json")
    ok(run, "decisions", "export", grown.path, tmp_path / "all.csv")
    with open(tmp_path / "all.csv", newline="", encoding="utf-8") as stream:
        cells = list(csv.DictReader(stream))
    assert len(cells) == 16 and {row["text"][:2] for row in cells} == {"'="}
    other = Library(tmp_path / "other", grown.whole)
    assert ok(run, "decisions", "import", other.path, tmp_path / "all.json")["new"] == 3
    assert ok(run, "decisions", "import", other.path, tmp_path / "all.json")["new"] == 0
    there, here = decisions.Book(other.path), decisions.Book(grown.path)
    assert there.lines == here.lines and [one.kind for one in there.standing()] == ["name"]
    refused(run, "decisions", "export", grown.path, tmp_path / "all.xlsx", word=".csv")
    (tmp_path / "bad.json").write_text("{")
    refused(run, "decisions", "import", grown.path, tmp_path / "bad.json", word="cannot be read")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("tags.csv", "path;name\na.jpg;Eve\n", "has no columns name and path"),
        ("tags.csv", "file,person\na.jpg,Eve\n", "has no columns name and path"),
        ("nowhere.csv", None, "No such file or directory; name a CSV or JSON file"),
    ],
)
def test_a_table_of_names_that_cannot_be_meant_is_one_line(run, grown, tmp_path, name, text, said):
    if text:
        (tmp_path / name).write_text(text)
    refused(run, "decisions", "import", grown.path, tmp_path / name, word=said)
    assert not decisions.Book(grown.path).lines
