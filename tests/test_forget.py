"""Forgetting a person, a photo, a face: what goes, what stays to the byte, and the proof."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import io
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

import cv2
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest
from conftest import demo_library, sf
from corpora import (
    Death,
    Face,
    Saboteur,
    Space,
    assert_agrees,
    axis,
    build,
    edit,
    exact,
    folders,
    give_audits,
    read,
    turned,
)
from material import ok, prepare, real_engine, refused
from video_material import film, write_video

pytestmark = pytest.mark.usefixtures("quick_disk")

PEOPLE = ("anna", "bert", "cleo")
NAME = "Cléo <O'Hara>"  # with what JSON, HTML and links write otherwise
SHELF = ("--person", NAME)
GROUP, TWIN = "2019/group.jpg", "backup/group (copy).jpg"


# --- a library in which all commands have been ------------------------------


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("forget"))


def built(base: Path) -> Path:
    """A folder with photos, all that is made of them, and a film; `snap` beside it as it was."""
    home, logs = base / "home", base / "home" / "logs"
    for name, data in demo_library.demo_pictures().items():
        if Path(name).name.startswith(PEOPLE) or name in (GROUP, TWIN, "2020/no face.png"):
            sf.write_part(home / "photos" / name, data)
    engine, out = real_engine("dlib"), home / "out"
    cache, ready = out / "faces.npz", out / "facesets_swap_ready"
    call = functools.partial(prepare, logs, engine)
    call("run", home / "photos", out, "--model", "dlib", "--min-faces", 4)
    folder = set_of(out, "cleo")
    (ready / folder / "NAME.txt").write_text(NAME + "\n", encoding="utf-8")
    call("occlusion", "score", ready, "--scorer", "landmarks")
    call("optimize", ready, "--twin-distance", 0.08)
    call("consolidate", ready, "--review", f"{ready}-consolidate", "--edge", 0.99)
    call("era", "split", ready, NAME, "--years", 2, "--distance", 0.05, "--min-faces", 1)
    export = ("export-swap", cache, out / "facesets_full" / "refine_manifest.json", ready)
    call(*export, "--raw-manifest", out / "raw_full" / "manifest.json", "--candidates")
    call("report", ready)
    call("report", out / "raw_full")
    shots = (("cleo", 1.2), ("", 1.0), ("bert", 1.2))
    write_video(home / "films" / "film.mp4", list(film(shots)))
    call("video", "run", home / "films", home / "video", home / "clips", "--model", "dlib",
         "--identity", ready / folder / f"{folder}.fsz", "--write-sidecar")  # fmt: skip
    call("video", "score", home / "video")
    call("video", "cut", home / "video", home / "clips", "--write-sidecar")
    call("video", "report", home / "video")
    shutil.copytree(home, base / "snap", symlinks=True)
    return home


def set_of(out: Path, person: str) -> str:
    """The face set of one of the demo's people."""
    for path in sorted((out / "facesets_swap_ready").glob("faceset_*/manifest.json")):
        faces = read(path)["faces"]
        if sum(Path(face["source"]).name.startswith(person) for face in faces) * 2 > len(faces):
            return path.parent.name
    raise AssertionError(person)


class Library:
    """The library as it was before anything was forgotten."""

    def __init__(self, home: Path) -> None:
        self.home, self.out, self.video = home, home / "out", home / "video"
        self.cache_path, self.ready = self.out / "faces.npz", self.out / "facesets_swap_ready"
        self.cache = sf.load_cache(self.cache_path)
        self.person = set_of(self.out, "cleo")
        self.faces = {face for told in self.manifests(self.person) for face in faces_of(told)}
        self.faces |= {
            face
            for face, file in zip(self.cache.face_ids, self.cache.face_file, strict=True)
            if "/cleo_" in self.cache.file_path[file]
        }
        self.crops = {sha for told in self.manifests(self.person) for sha in pngs_of(told)}

    def manifests(self, prefix: str) -> list[dict]:
        found = self.ready.glob(f"**/{prefix}*/manifest.json")
        return [read(path) for path in found if "candidates" not in path.parts]

    @property
    def places(self) -> tuple[Path, ...]:
        return self.out, self.video, self.home / "clips"

    def forget(self, run: Callable, *argv: object, code: int = 0) -> dict:
        return ok(run, "forget", *self.places, *argv, "--cache", self.cache_path, code=code)


def faces_of(told: dict) -> set[str]:
    return {entry["face"] for entry in (*told["faces"], *told["dropped"])}


def pngs_of(told: dict) -> set[str]:
    return {e["sha256"] for e in (*told["faces"], *told["dropped"]) if e.get("sha256")}


@pytest.fixture
def library(home, monkeypatch) -> Library:
    """A fresh copy, always in the same place, as manifests and pages hold absolute paths."""
    shutil.rmtree(home)
    shutil.copytree(home.parent / "snap", home, symlinks=True)
    monkeypatch.setenv("SORT_FACES_LOGS", str(home / "logs"))
    monkeypatch.setattr(sf, "load_engine", lambda spec, threads=1: real_engine("dlib"))
    return Library(home)


# --- a look of the tests' own at what is left -------------------------------


def contents(path: Path, name: str = "") -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of a file and of all that is packed in it."""
    data = path.read_bytes()
    yield name or str(path), data
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield f"{path}/{member}", archive.read(member)


def all_files(*tops: Path) -> Iterator[tuple[str, bytes]]:
    for top in tops:
        for path in sorted(top.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield from contents(path)


def words_left(tops: tuple[Path, ...], words: set[bytes]) -> set[tuple[str, bytes]]:
    """(file, word) of words that stand in a file or in its name."""
    return {
        (name, word)
        for name, data in all_files(*tops)
        for word in words
        if word in data or word in os.fsencode(name)
    }


def vectors_in(data: bytes) -> np.ndarray:
    """(n, 128) embeddings in the bytes of a file: packed in text, or a plain array."""
    if data[:6] == b"\x93NUMPY":
        array = np.load(io.BytesIO(data), allow_pickle=False)
        fits = array.dtype.kind == "f" and array.ndim == 2 and array.shape[1] == 128
        return array if fits else np.zeros((0, 128), np.float32)
    found = []
    for word in data.split(b'"'):
        if len(word) == 684:
            with pytest.MonkeyPatch.context():
                try:
                    found.append(np.frombuffer(base64.b64decode(word, validate=True), "<f4"))
                except ValueError:
                    continue
    return np.array(found, np.float32).reshape(-1, 128)


def faces_in(data: bytes) -> np.ndarray:
    """(n, 128) embeddings of the faces a picture shows."""
    engine = real_engine("dlib")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return np.zeros((0, 128), np.float32)
    found = engine.detect(image)
    return engine.embed(image, found) if len(found) else np.zeros((0, 128), np.float32)


def lookalikes(library: Library, tops: tuple[Path, ...], centre: np.ndarray) -> set[str]:
    """Files with an embedding or a face that is the person, but not photos of others."""
    limit = sf.DLIB_THRESHOLDS.same_face
    photos = {sf.sha256_of_file(p) for p in library.home.glob("photos/**/*") if p.is_file()}
    found = set()
    for name, data in all_files(*tops):
        picture = data[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0")
        if picture and hashlib.sha256(data).hexdigest() in photos:
            continue
        vectors = faces_in(data) if picture else vectors_in(data)
        if len(vectors) and (1 - sf.unit_rows(vectors) @ centre).min() <= limit:
            found.add(name)
    return found


def traces_of(library: Library) -> set[bytes]:
    """Words that tell of the person: hashes and paths of its photos, ids of faces, the name."""
    going = [row for row, path in enumerate(library.cache.file_path) if "/cleo_" in path]
    words = {library.cache.file_sha256[row][:16].encode() for row in going}
    words |= {os.path.basename(library.cache.file_path[row]).encode() for row in going}
    words |= {sha[:16].encode() for sha in library.crops}
    words |= {NAME.encode(), json.dumps(NAME)[1:-1].encode(), b"O&#39;Hara", b"O%27Hara"}
    in_groups = [face for face in library.faces if face.split(":")[0].encode() not in words]
    return words | {mark.join(f.split(":")).encode() for f in in_groups for mark in (":", "_", "-")}


def centre_of(library: Library) -> np.ndarray:
    rows = [
        row
        for row, file in enumerate(library.cache.face_file)
        if "/cleo_" in library.cache.file_path[file]
    ]
    return sf.centroid(library.cache.unit[rows])


def others_sets(library: Library) -> dict[str, str]:
    """{file: hash} of everybody else's sets, wherever they lie, and of _candidates."""
    return {
        name: sha
        for name, sha in exact(library.ready).items()
        if "faceset_" in name and library.person not in name and not name.endswith(".json.part")
    }


# --- a person ---------------------------------------------------------------


def test_nothing_of_a_person_is_left_and_nothing_of_others_changes(run, library):
    before, words, centre = others_sets(library), traces_of(library), centre_of(library)
    tops = (*library.places, library.home / "logs")
    assert len(words_left(tops, words)) > 100 and lookalikes(library, tops, centre)
    result = library.forget(run, *SHELF)
    assert result["files_with_traces"] == 0 and result["pictures_looked_at"] > 10
    assert words_left(tops, words) == set()
    assert lookalikes(library, tops, centre) == set()
    assert others_sets(library) == before
    assert not library.cache_path.with_name("faces.npz.forgetting.json").exists()
    assert ok(run, "verify", library.ready, "--no-faces")["wrong"] == 0


def test_older_runs_are_undone_without_the_person_and_else_to_the_byte(run, library):
    kept = library.home.parent / "as before"
    shutil.copytree(library.ready, kept)
    library.forget(run, *SHELF)
    steps = 0
    while list(library.ready.glob("_runs/0*")):
        undone = [ok(run, "restore", root)["undone"] for root in (kept, library.ready)]
        assert undone[0] == undone[1] and len(undone[0]) == 1
        own, ours = (
            {name: sha for name, sha in exact(root).items()
             if library.person not in name and not name.startswith("_removed")}
            for root in (kept, library.ready)
        )  # fmt: skip
        masters = {name for name in own if name.endswith(("/journal.json", "manifest.json"))}
        differ = {name for name in own.keys() | ours.keys() if own.get(name) != ours.get(name)}
        assert {name for name in differ if "faceset_" in name} == set()
        assert differ <= masters | {name for name in own if name.endswith("plan.json")}
        if (library.ready / "manifest.json").exists():
            listed = [entry["id"] for entry in read(library.ready / "manifest.json")["facesets"]]
            assert listed == [
                entry["id"]
                for entry in read(kept / "manifest.json")["facesets"]
                if not entry["id"].startswith(library.person)
            ]
            assert ok(run, "verify", library.ready, "--no-faces")["wrong"] == 0
        steps += 1
    shutil.rmtree(kept)
    assert steps == 4
    assert words_left((library.ready,), traces_of(library)) == set()


def test_an_export_after_it_changes_nothing_for_the_others(run, library):
    before = others_sets(library)
    library.forget(run, *SHELF)
    export = (
        "export-swap",
        library.cache_path,
        library.out / "facesets_full" / "refine_manifest.json",
    )
    result = ok(run, *export, library.ready, "--raw-manifest",
                library.out / "raw_full" / "manifest.json", "--candidates")  # fmt: skip
    assert result["cut"] == 0
    assert others_sets(library) == before


def crop_store(library: Library) -> sf.CropStore:
    """What an export knows of finished crops."""
    cache = sf.load_cache(library.cache_path)
    told = sf.read_file(library.ready / "faceset_001" / "manifest.json", sf.FacesetManifest)
    spec = sf.as_consumer(sf.EngineSpec(model=""), cache.meta)
    crew = sf.Crew(spec, sf.WorkOptions())
    export = sf.Export(sf.Library(cache, library.cache_path), library.ready, told.params, crew)
    master = sf.read_file(library.ready / "manifest.json", sf.SwapManifest)
    return sf.CropStore(export, sf.Corpus(library.ready, master))


def test_a_crop_beside_a_forgotten_face_need_not_be_cut_again(run, library):
    store = crop_store(library)
    by_photo = [face[:16] for face in library.cache.face_ids]
    gone = next(face for face in sorted(library.faces) if by_photo.count(face[:16]) > 1)
    beside = next(face for face in library.cache.face_ids
                  if face[:16] == gone[:16] and face not in library.faces)  # fmt: skip
    png = read(library.ready / "faceset_001" / "manifest.json")["faces"][0]["sha256"]
    notes = sf.AppendOnly(store.lines.path)
    for face, sha in ((beside, png), (gone, "")):
        key = store.export.crop_key(library.cache.row_of_face[face])
        notes.append(sf.as_json(sf.CropNote(key=key, sha256=sha, reason="made up")))
    notes.close()
    before = set(crop_store(library).notes)
    library.forget(run, *SHELF)
    after = crop_store(library)
    row = after.export.cache.row_of_face[beside]
    assert after.get(row).note.reason == "made up" and after.export.crop_key(row) not in before
    assert store.export.crop_key(library.cache.row_of_face[gone]) not in after.notes


def test_a_plan_changes_nothing_and_is_carried_out_as_it_was_edited(run, library):
    plan = library.home / "forget.plan.json"
    before = exact(library.out), exact(library.video)
    told = library.forget(run, *SHELF, "--dry-run")
    assert library.forget(run, *SHELF, "--plan", plan) == told
    assert (exact(library.out), exact(library.video)) == before
    assert {entry["face"] for entry in read(plan)["faces"]} == library.faces
    assert {place["action"] for place in read(plan)["places"]} == {"remove", "rewrite"}
    spared = next(face for face in sorted(library.faces) if face in library.cache.row_of_face)
    edit(plan, lambda value: value.update(
        faces=[entry for entry in value["faces"] if entry["face"] != spared]))  # fmt: skip
    library.forget(run, "--apply", plan)
    assert not plan.exists()
    assert spared in sf.load_cache(library.cache_path).row_of_face
    assert not library.faces - {spared} & sf.load_cache(library.cache_path).row_of_face.keys()


def test_a_plan_for_another_state_is_refused(run, library):
    plan = library.home / "forget.plan.json"
    library.forget(run, *SHELF, "--plan", plan)
    (library.ready / "faceset_001" / "faces" / "000.png").unlink()
    argv = ("forget", *library.places, "--apply", plan, "--cache", library.cache_path)
    refused(run, *argv, word="have changed")


def test_what_is_asked_for_is_checked(run, library):
    argv = ("forget", library.out, "--cache", library.cache_path)
    refused(run, *argv, word="name one of --person")
    refused(run, *argv, "--person", "Ada", "--face", "x:1", word="name one of --person")
    refused(run, *argv, "--person", "Ada", word="nobody is called so")
    refused(run, *argv, "--face", f"{'0' * 16}:1", word="no such face")
    refused(run, *argv, "--photo", "/no/such.jpg", word="no such photo")
    refused(run, *argv, *SHELF, "--keep-out", "cleo", word="the very words of --person")
    refused(run, *argv, "--person", "unnamed", word="nobody's name")
    photos = ("forget", library.home / "photos", "--cache", library.cache_path)
    refused(run, *photos, *SHELF, word="lies among the photos")
    refused(
        run, "forget", library.home / "no", "--cache", library.cache_path, *SHELF, word="no such"
    )
    alone = ("forget", library.out, library.video, "--cache", library.cache_path, *SHELF)
    refused(run, *alone, word="name that folder, too")


def test_a_finished_forget_repeated_finds_nothing(run, library):
    library.forget(run, *SHELF)
    argv = ("forget", *library.places, *SHELF, "--cache", library.cache_path)
    refused(run, *argv, word="nothing to forget")


def test_what_the_operator_said_of_a_person_goes_too(run, library):
    decisions = sf.companion("decisions")
    rows = {who: [row for row, file in enumerate(library.cache.face_file)
                  if f"/{who}_" in library.cache.file_path[file]] for who in PEOPLE}  # fmt: skip
    refs = {who: decisions.refs(library.cache, some) for who, some in rows.items()}
    book = decisions.Book(library.cache_path)
    book.append([
        decisions.act("name", "1", faces=refs["cleo"], text="Chloé"),
        decisions.act("keep", "1", faces=[refs["cleo"][0], refs["bert"][0]]),
        decisions.act("name", "1", faces=refs["bert"], text="Bert"),
    ])  # fmt: skip
    crop = next((library.ready / library.person / "faces").glob("*.png")).read_bytes()
    sf.write_part(library.cache_path.with_name("faces.npz.thumbs") / "ab" / "1-96.jpg", crop)
    note = library.out / "note.txt"
    note.write_text("Chloé and Bert")
    result = library.forget(run, *SHELF, code=1)
    assert [(row["file"], row["trace"]) for row in result["left"]] == [(str(note), "name")]
    note.unlink()
    words = {*traces_of(library), "Chloé".encode(), b"Chlo\\u00e9"}
    tops = (*library.places, library.home / "logs")
    assert words_left(tops, words) == set()
    assert lookalikes(library, tops, centre_of(library)) == set()
    after = decisions.Book(library.cache_path).lines
    assert [line.faces for line in after] == [refs["bert"][:1], refs["bert"]]


# --- the proof --------------------------------------------------------------


def plant_crop(library: Library) -> Path:
    path = library.out / "raw_full" / "attic" / "backup.bin"
    sf.write_part(path, next((library.ready / library.person / "faces").glob("*.png")).read_bytes())
    return path


def plant_recoded_crop(library: Library) -> Path:
    path = library.ready / "somewhere" / "IMG_1.webp"
    png = next((library.ready / library.person / "faces").glob("*.png"))
    path.parent.mkdir()
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(png)), (300, 300)))
    return path


def plant_log(library: Library) -> Path:
    path = library.out / "mail.txt"
    photo = next(path for path in library.cache.file_path.tolist() if "/cleo_" in path)
    path.write_text(f"see {photo}: blurred\n")
    return path


def plant_note(library: Library) -> Path:
    path = library.out / "facesets_full" / "todo.csv"
    path.write_text(f"look at,{sorted(library.faces)[0]},later\n")
    return path


def plant_name(library: Library) -> Path:
    path = library.video / "page.html"
    path.write_text("<p>Cléo &lt;O&#39;Hara&gt;</p>", encoding="utf-8")
    return path


def plant_embedding(library: Library) -> Path:
    path = library.out / "old" / "vectors.npz"
    path.parent.mkdir()
    np.savez(path, anything=library.cache.embedding[[library.cache.row_of_face[f] for f in
             sorted(library.faces) if f in library.cache.row_of_face]])  # fmt: skip
    return path


def plant_archive(library: Library) -> Path:
    path = library.home / "clips" / "old.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.png", plant_crop(library).read_bytes())
    shutil.rmtree(library.out / "raw_full" / "attic")
    return path


def plant_comment(library: Library) -> Path:
    path, note = library.out / "facesets_full" / "grey.png", PIL.PngImagePlugin.PngInfo()
    note.add_text("Comment", f"from {next(p for p in library.cache.file_path if '/cleo_' in p)}")
    PIL.Image.new("L", (64, 64), 128).save(path, pnginfo=note)
    return path


PLANTED = {
    plant_crop: "looks like it, the very bytes",
    plant_recoded_crop: "looks like it",
    plant_log: "path",
    plant_note: "face id, sha256",
    plant_name: "name",
    plant_embedding: "embedding",
    plant_comment: "path",
    plant_archive: "looks like it, the very bytes",
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_leftover_is_found(run, library, plant):
    path = plant(library)
    result = library.forget(run, *SHELF, code=1)
    assert [row["trace"] for row in result["left"]] == [PLANTED[plant]]
    assert result["left"][0]["file"].startswith(str(path))
    report = library.cache_path.with_name("faces.npz.forget-report.json")
    assert [row["trace"] for row in read(report)["findings"]] == [PLANTED[plant]]
    assert path.exists()  # it is not ours


def test_the_report_names_nobody(run, library):
    photo = next(path for path in library.cache.file_path.tolist() if "/cleo_" in path)
    named = library.out / f"copy of {sf.safe_dst_name(photo)}"
    shutil.copyfile(photo, named)
    report = library.home / "report.json"
    result = library.forget(run, *SHELF, "--report", report, code=1)
    assert [row["file"] for row in result["left"]] == [str(named)]
    assert len(read(report)["findings"]) == 1
    words = traces_of(library)
    assert not {word for word in words if word in report.read_bytes()}


def test_files_of_the_operator_are_kept_and_his_pictures_of_the_person_named(run, library):
    folder = library.ready / library.person
    (folder / "notes.txt").write_text("hello")
    shutil.copyfile(folder / "faces" / "000.png", folder / "mine.png")
    result = library.forget(run, *SHELF, code=1)
    kept = library.ready / "_removed" / "yours" / library.person
    assert (kept / "notes.txt").read_text() == "hello"
    assert [row["file"] for row in result["left"]] == [str(kept / "mine.png")]
    whys = {row["why"] for row in result["changes"] if row["action"] == "keep"}
    assert whys == {
        "is yours, not the tool's",
        "is yours, and shows the person: to be deleted by you",
    }


# --- what embed may not bring back ------------------------------------------


def embed(run: Callable, library: Library, *options: object) -> dict:
    return ok(run, "embed", library.home / "photos", library.cache_path, *options)


def names_in(library: Library) -> set[str]:
    cache = sf.load_cache(library.cache_path)
    return {Path(path).name for paths in cache.paths for path in paths}


def test_embed_does_not_bring_the_person_back(run, library):
    group = library.home / "photos" / GROUP
    library.forget(run, *SHELF)
    after = sf.load_cache(library.cache_path)
    cleo = next((library.home / "photos").rglob("cleo_*.jpg"))
    shutil.copyfile(cleo, library.home / "photos" / "new name.jpg")
    shutil.copyfile(group, library.home / "photos" / "group again.jpg")
    result = embed(run, library)
    assert (result["forgotten"], result["new"], result["unreadable"]) == (19, 0, 0)
    result = embed(run, library, "--rescan", "--det-size", 1400)
    assert result["forgotten"] == 19 and result["forgotten_faces"] == 1
    cache = sf.load_cache(library.cache_path)
    assert not [name for name in names_in(library) if "cleo" in name or name == "new name.jpg"]
    assert cache.faces == after.faces and cache.meta.rescans == after.meta.rescans + 1
    assert (sf.nearest(cache.unit, centre_of(library)[None])[1] > sf.DLIB_THRESHOLDS.outlier).all()


def test_a_dry_run_does_not_count_what_was_forgotten(run, library):
    library.forget(run, *SHELF)
    add_new(library, "bert")
    argv = (library.home / "photos", library.home / "sets", "--cache", library.cache_path)
    said = ok(run, "run", *argv, "--dry-run")
    assert said["photos_to_look_at"] == 1


def test_who_is_not_kept_out_may_come_again_in_new_photos(run, library):
    library.forget(run, *SHELF)
    add_new(library, "cleo", "bert")
    assert embed(run, library)["new"] == 2


def test_who_is_kept_out_stays_out_and_others_come_in(run, library):
    library.forget(run, *SHELF, "--keep-out", NAME)
    add_new(library, "cleo", "bert")
    result = embed(run, library)
    assert (result["new"], result["kept_out"], result["unreadable"]) == (1, 1, 0)
    assert "new bert.jpg" in names_in(library) and "new cleo.jpg" not in names_in(library)
    again = embed(run, library)
    assert (again["new"], again["forgotten"]) == (0, 19)  # known by its hash from now on


def add_new(library: Library, *people: str) -> None:
    """A new photo of each."""
    group = cv2.imdecode(np.frombuffer(demo_library.demo_photo(), np.uint8), cv2.IMREAD_COLOR)
    rng = np.random.default_rng(3)
    for name in people:
        box = np.array(demo_library.DEMO_FACES[name], np.float32)
        image = demo_library.demo_variant(group, box, rng)
        path = library.home / "photos" / f"new {name}.jpg"
        path.write_bytes(demo_library.encode_jpeg(image, 92))


def test_embed_refuses_a_damaged_tombstone(run, library):
    library.forget(run, *SHELF)
    library.cache_path.with_name("faces.npz.forgotten.json").write_text("{}")
    argv = ("embed", library.home / "photos", library.cache_path)
    refused(run, *argv, word="forgotten.json")


def test_a_tombstone_holds_neither_paths_nor_hashes_nor_embeddings(run, library):
    library.forget(run, *SHELF)
    stone = library.cache_path.with_name("faces.npz.forgotten.json")
    data = stone.read_bytes()
    assert not {word for word in traces_of(library) if word in data}
    assert not len(vectors_in(data)) and len(read(stone)["photos"]) == 18
    assert [len(boxes) for boxes in read(stone)["boxes"].values()] == [1]


def test_a_worker_brings_nobody_back(run, library):
    library.forget(run, *SHELF, "--keep-out", NAME)
    add_new(library, "cleo", "bert")
    result = embed(run, library, "--worker", sys.executable)
    assert (result["new"], result["kept_out"], result["forgotten"]) == (1, 1, 18)
    assert not [name for name in names_in(library) if "cleo" in name]


# --- a photo, a face --------------------------------------------------------


def test_a_group_photo_goes_with_all_its_paths(run, library):
    twin = str(library.home / "photos" / TWIN)
    row = next(row for row, paths in enumerate(library.cache.paths) if twin in paths)
    sha = str(library.cache.file_sha256[row])
    library.forget(run, "--photo", twin)
    cache = sf.load_cache(library.cache_path)
    assert set(library.cache.file_sha256.tolist()) - set(cache.file_sha256.tolist()) == {sha}
    assert words_left(library.places, {sha[:16].encode(), b"group (copy)"}) == set()
    assert {path.name for path in library.ready.glob("faceset_*")} >= {library.person}
    assert ok(run, "verify", library.ready, "--no-faces")["wrong"] == 0
    assert embed(run, library)["forgotten"] == 2


def test_a_photo_without_a_face_goes_too(run, library):
    path = library.home / "photos" / "2020" / "no face.png"
    row = library.cache.file_path.tolist().index(str(path))
    sha = str(library.cache.file_sha256[row])
    library.forget(run, "--photo", sha[:20])
    assert words_left(library.places, {sha[:16].encode(), b"no face.png"}) == set()


@pytest.mark.parametrize("other", ["", "Bert & Söhne"])
def test_sidecars_beside_the_photos_lose_the_person(run, library, other):
    """They are ours, name the person and lie where `forget` is not told to look."""
    photos = library.home / "photos"
    if other:
        name = library.ready / set_of(library.out, "bert") / "NAME.txt"
        name.write_text(other, encoding="utf-8")
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    ok(run, "bundle", library.ready, "--to", "xmp", "--xmp-beside", "yes")
    foreign = photos / "2020/foreign.jpg.xmp"
    foreign.write_text(f"<x>{escape(NAME)}</x>", encoding="utf-8")
    beside = {path: path.read_text(encoding="utf-8") for path in photos.rglob("*.xmp")}
    told = {path for path, text in beside.items() if escape(NAME) in text} - {foreign}
    group = {path for path in told if Path(GROUP).name in path.name}
    assert len(told) > 3 and group and all(escape(other) in beside[path] for path in group)
    planned = library.forget(run, "--person", NAME, "--dry-run")
    rows = [row for row in planned["changes"] if "beside a photo" in row["why"]]
    assert sum(row["count"] for row in rows) == len(told)
    assert {row["action"] for row in rows} == ({"remove", "rewrite"} if other else {"remove"})
    assert beside == {path: path.read_text(encoding="utf-8") for path in photos.rglob("*.xmp")}
    warned = None if other else "nobody has a name"
    argv = "--person", NAME, "--cache", library.cache_path
    ok(run, "forget", *library.places, *argv, warned=warned)
    left = {path: path.read_text(encoding="utf-8") for path in photos.rglob("*.xmp")}
    assert {path for path, text in left.items() if escape(NAME) in text} == {foreign}
    assert group <= left.keys() if other else left.keys() == {foreign}
    assert all(left[path].count(escape(other)) == 2 for path in left.keys() & group)
    assert before.items() <= {path: path.read_bytes() for path in photos.rglob("*.*")}.items()
    assert ok(run, "verify", library.ready, "--no-faces")["wrong"] == 0


def test_one_face_goes_and_the_ids_of_its_photo_stay(run, library):
    shown = [face[:16] for face in library.cache.face_ids]
    face = next(face for face in sorted(library.faces) if shown.count(face[:16]) > 1)
    library.forget(run, "--face", face)
    cache = sf.load_cache(library.cache_path)
    assert set(library.cache.face_ids) - set(cache.face_ids) == {face}
    number = face.split(":")[1]
    words = {f"{face[:16]}{mark}{number}".encode() for mark in ":_-"}
    assert words_left(library.places, words) == set()
    assert (library.ready / library.person / "manifest.json").exists()
    assert ok(run, "verify", library.ready, "--no-faces")["wrong"] == 0
    refused(
        run, "forget", library.out, "--cache", library.cache_path, "--face", face, word="nothing"
    )


# --- trees alone, and real photos -------------------------------------------


def test_a_person_of_a_raw_tree_goes_without_any_corpus(run, library):
    raw = library.out / "raw_full"
    persons = read(raw / "manifest.json")["persons"]
    person = next(p for p in persons if library.faces & {*p["faces"]})
    shutil.rmtree(library.ready)
    result = ok(run, "forget", raw, library.out / "facesets_full", "--person", person["id"],
                "--cache", library.cache_path)  # fmt: skip
    assert result["faces"] >= len(person["faces"])
    after = read(raw / "manifest.json")
    assert [p["id"] for p in after["persons"]] == [p["id"] for p in persons if p != person]
    assert not (raw / person["id"]).exists()
    on_disk = {path.relative_to(raw).as_posix() for path in raw.glob("*/*")}
    assert on_disk == {*after["placed"]}
    tops = (raw, library.out / "facesets_full")
    assert words_left(tops, traces_of(library) - {NAME.encode()}) == set()
    assert ok(run, "status", library.out)["faces"] == library.cache.faces - result["faces"]


def test_a_photo_whose_source_is_gone_is_told_to_be_the_only_copy(run, library):
    cleo = next((library.home / "photos").rglob("cleo_*.jpg"))
    cleo.unlink()
    result = library.forget(run, *SHELF, "--dry-run")
    rows = [row for row in result["changes"] if row["why"].endswith("only copy")]
    assert result["only_copies"] == sum(row["count"] for row in rows) > 0


def test_a_person_among_real_people_and_groups(run, mini, shared, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    for person in ("p001", "p002", "p003"):
        shutil.copytree(shared / "data" / "people" / person, photos / person)
    for group in sorted((shared / "data" / "groups").iterdir())[:4]:
        shutil.copyfile(group, photos / group.name)
    gates = ("--min-short", 70, "--min-face-short", 70)
    ok(run, "run", photos, out, "--model", mini, *gates)
    ready = out / "facesets_swap_ready"
    sets = {path.parent.name: read(path) for path in ready.glob("faceset_*/manifest.json")}
    person = next(n for n, told in sets.items() if "/p002/" in told["faces"][0]["source"])
    others = {n: sha for n, sha in exact(ready).items() if "faceset_" in n and person not in n}
    faces = set(faces_in_set(ready, person))
    result = ok(run, "forget", out, "--person", person, "--cache", out / "faces.npz")
    assert result["files_with_traces"] == 0 and result["pictures_looked_at"] > 20
    assert {n: sha for n, sha in exact(ready).items() if "faceset_" in n} == others
    assert words_left((out,), {face.encode() for face in faces}) == set()
    left = sf.load_cache(out / "faces.npz")
    with_others = {path for path in left.file_path.tolist() if "/p002/" in path}
    assert len(with_others) == result["group_photos"] < 5
    again = ok(run, "embed", photos, out / "faces.npz")
    assert again["forgotten"] == result["photos"] and again["new"] == 0


# --- what is not as it should be --------------------------------------------


def test_no_change_leads_out_of_a_folder(run, library, tmp_path):
    raw = library.out / "raw_full"
    placed = next(name for name in read(raw / "manifest.json")["placed"] if "cleo_" in name)
    folder = raw / placed.split("/")[0]
    outside = tmp_path / "elsewhere"
    shutil.move(folder, outside)
    folder.symlink_to(outside)
    before = exact(outside)
    ok(run, "forget", *library.places, *SHELF, "--cache", library.cache_path,
       warned="lead out of it", code=1)  # fmt: skip
    assert exact(outside) == before


def test_a_journal_of_a_killed_embed_is_cleaned(run, library):
    journal = sf.Journal(library.cache_path, library.cache.meta)
    cleo = next((library.home / "photos").rglob("cleo_*.jpg"))
    facts = {"size": 1, "mtime_ns": 1, "sha256": sf.sha256_of_file(cleo)}
    journal.append("path", path="/mnt/old/cleo_by the sea.jpg", **facts)
    journal.append("gone", path="/mnt/old/cleo_elsewhere.jpg")
    journal.close()
    library.forget(run, *SHELF)
    assert words_left((library.out,), {b"by the sea", b"cleo_elsewhere"}) == set()
    assert not sf.journal_path(library.cache_path).exists()


def test_a_person_whose_photos_left_the_cache_before_goes_from_the_rest(run, library):
    journal = sf.Journal(library.cache_path, library.cache.meta)
    for paths in library.cache.paths:
        for path in paths:
            if "cleo_" in path or "group" in path:
                journal.append("gone", path=path)
    journal.close()
    words = {word for word in traces_of(library) if b"group" not in word}
    library.forget(run, *SHELF)
    assert words_left((*library.places, library.home / "logs"), words) == set()
    assert not sf.journal_path(library.cache_path).exists()
    assert not list(library.ready.glob(f"**/{library.person}*"))


def test_a_queue_of_a_killed_worker_run_is_cleaned(run, library):
    queue = sf.queue_folder(library.cache_path) / "embed-00000000"
    going = next(path for path in library.cache.file_path.tolist() if "/cleo_" in path)
    staying = next(path for path in library.cache.file_path.tolist() if "/bert_" in path)
    items = [{"id": name, "path": path, "sha256": sf.sha256_of_file(path)}
             for name, path in (("a", going), ("b", staying))]  # fmt: skip
    sf.write_json(queue / "queue.json", {"tool": sf.TOOL, "kind": "queue", "items": items})
    lines = [sf.checked_line({"id": name, "faces": []}) for name in "ab"]
    (queue / "results.jsonl").write_bytes(b"".join(lines))
    (queue / "worker.log").write_text(f"looking at {going}\nlooking at {staying}\n")
    library.forget(run, *SHELF)
    assert [item["id"] for item in read(queue / "queue.json")["items"]] == ["b"]
    assert (queue / "results.jsonl").read_bytes() == lines[1]
    assert (queue / "worker.log").read_text() == f"looking at {staying}\n"


# --- kills ------------------------------------------------------------------


@pytest.fixture
def unproved(monkeypatch) -> None:
    """Without the looks at pictures: kills concern what is changed."""
    proof = sf.companion("forget_proof")
    monkeypatch.setattr(proof.Gallery, "vectors", lambda self: iter(()))


def test_a_kill_anywhere_is_finished_by_repeating(run, library, unproved, home):
    argv = ("forget", *library.places, *SHELF, "--cache", library.cache_path)
    with Saboteur(library.home) as watcher:
        library.forget(run, *SHELF)
    stone = library.cache_path.with_name("faces.npz.forgotten.json").name
    expected = state(library, stone)
    tops = (*library.places, library.home / "logs")
    points = range(1, watcher.seen, max(1, watcher.seen // 16))
    for at in points:
        shutil.rmtree(home)
        shutil.copytree(home.parent / "snap", home, symlinks=True)
        with Saboteur(library.home, "death", at), pytest.raises(Death):
            run(*argv)
        code, _, err = run(*argv, "--json")
        assert code in (0, 2) and "Traceback" not in err, (at, err)
        assert code == 0 or at < 3 or "nothing to forget" in err, (at, err)
        assert state(library, stone) == expected, at
        assert words_left(tops, traces_of(library)) == set(), at


def state(library: Library, *unseen: str) -> dict[str, str]:
    """Everything there is, without what differs from run to run."""
    skipped = (*unseen, "faces.npz", "faces.npz.forget-report.json", "plan.json")
    found = {}
    for top in (*library.places, library.home / "logs"):
        for name, sha in exact(top).items():
            if not name.endswith((*skipped, ".lock", ".holder")):
                found[f"{top.name}/{name}"] = sha
    cache = sf.load_cache(library.cache_path)
    found["faces"] = repr((cache.face_ids, cache.file_path.tolist()))
    return found


# --- made corpora: whatever maintenance has done ----------------------------


@pytest.fixture
def blind(monkeypatch, unproved) -> None:
    """No model made the faces of these corpora, so none can look at them."""
    monkeypatch.setattr(sf.companion("forget").Work, "check_engine", lambda self: None)


def forget_in(run: Callable, root: Path, *argv: object, **expected: object) -> dict:
    return ok(run, "forget", root, "--cache", root.parent / "lib.npz", *argv, **expected)


def maintained(run: Callable, folder: Path) -> Path:
    """People 0 to 3, 0 in two sets; merged, split, thinned; a face of 0 was once in 1's set."""
    space = Space()
    years = [2000, 2001, 2002, 2003, 2014, 2015]
    both = space.face(0, picture=7, quality=0.5)
    stray = Face(both.vector, picture=7, quality=0.4)
    sets = [[*(space.face(0, year=year) for year in years), both], [*space.faces(1, 5), stray],
            [space.face(0, year=year) for year in (2001, 2014)],
            space.faces(2, 4), space.faces(3, 3)]  # fmt: skip
    root = build(folder, sets, {1: "Ada", 2: "Eve"})
    give_audits(root)
    ok(run, "optimize", root, "--no-audit", "--no-near")
    ok(run, "consolidate", root, "--review", folder / "ready-consolidate")
    ok(run, "era", "split", root, "Ada", "--min-faces", 3)
    (root / "_thin").mkdir(exist_ok=True)
    (root / "faceset_005").rename(root / "_thin" / "faceset_005")
    (root / "faceset_004" / "faces" / "001.png").unlink()
    ok(run, "optimize", root, "--no-audit", "--no-near")
    return root


def ids_of_person(root: Path, person: int) -> set[str]:
    cache = sf.load_cache(root.parent / "lib.npz")
    near = cache.unit @ axis(person).astype(np.float32) > 0.5
    return {face for face, is_near in zip(cache.face_ids, near, strict=True) if is_near}


def test_a_person_goes_from_all_that_maintenance_has_made(run, blind, tmp_path):
    root = maintained(run, tmp_path)
    faces = ids_of_person(root, 0)
    tops = (root, tmp_path / "ready-consolidate")
    words = {face.encode() for face in faces} | {b"Ada"}
    assert len(list(root.glob("_merged/*"))) == 1 and len(faces) == 10
    assert list(root.glob("_thin/faceset_001*")) or list(root.glob("faceset_001_*"))
    dropped = read(root / "faceset_002" / "manifest.json")["dropped"]
    assert {entry["face"] for entry in dropped} <= faces  # the stray one
    kept = Path(shutil.copytree(root, tmp_path / "kept"))
    before = {name: sha for name, sha in exact(root).items() if name.startswith("faceset_004")}
    forget_in(run, root, "--person", "Ada")
    assert words_left(tops, words) == set()
    assert folders(root) == {"faceset_002", "faceset_004", "_thin/faceset_005"}
    assert {n: s for n, s in exact(root).items() if n.startswith("faceset_004")} == before
    assert_agrees(root)
    while list(root.glob("_runs/0*")):
        ok(run, "restore", kept)
        ok(run, "restore", root)
        assert words_left((root,), words) == set()
        mine = {"faceset_001", "faceset_003"}
        own = {name for name in folders(kept) if name.split("/")[-1][:11] not in mine}
        assert folders(root) == own
        for other in ("faceset_004", "faceset_005", "_thin/faceset_005"):
            ours, theirs = ({n: s for n, s in exact(at).items() if n.startswith(other)}
                            for at in (root, kept))  # fmt: skip
            assert ours == theirs
        assert set(faces_in_set(root, "faceset_002")) == set(
            faces_in_set(kept, "faceset_002")) - faces  # fmt: skip


def faces_in_set(root: Path, folder: str) -> list[str]:
    return [face["face"] for face in read(root / folder / "manifest.json")["faces"]]


@pytest.mark.parametrize("asked", ["faceset_003", "faceset_001", "faceset_001_2000-2003"])
def test_any_part_of_a_person_stands_for_all_of_it(run, blind, tmp_path, asked):
    root = maintained(run, tmp_path)
    parts = {folder.split("/")[-1] for folder in folders(root)}
    asked = asked if asked in parts else next(p for p in sorted(parts) if p.startswith(asked[:12]))
    forget_in(run, root, "--person", asked)
    assert folders(root) == {"faceset_002", "faceset_004", "_thin/faceset_005"}


def test_a_number_given_again_is_another_person(run, blind, tmp_path):
    space = Space()
    root = build(tmp_path, [space.faces(0, 5), space.faces(1, 5), space.faces(2, 4)])
    (root / "_thin").mkdir()
    (root / "faceset_001").rename(root / "_thin" / "faceset_001")
    (root / "faceset_002").rename(root / "faceset_001")
    for path in (*(root / "faceset_001").glob("faceset_002*"), root / "faceset_001/manifest.json"):
        if path.suffix == ".json":
            path.write_text(path.read_text().replace("faceset_002", "faceset_001"))
        path.rename(path.with_name(path.name.replace("faceset_002", "faceset_001")))
    ok(run, "optimize", root, "--no-audit")
    before = {n: s for n, s in exact(root).items() if n.startswith("_thin/")}
    forget_in(run, root, "--person", "faceset_001")
    assert folders(root) == {"_thin/faceset_001", "faceset_003"}
    assert {n: s for n, s in exact(root).items() if n.startswith("_thin/")} == before


def test_faces_of_others_that_look_alike_stay_with_them(run, blind, tmp_path):
    space = Space()
    alike = turned(0.9)  # of another person, whose set lists them
    root = build(tmp_path, [space.faces(0, 5), space.faces(alike, 5), space.faces(3, 5)])
    before = {n: s for n, s in exact(root).items() if n.startswith(("faceset_002", "faceset_003"))}
    faces = set(faces_in_set(root, "faceset_001"))
    forget_in(run, root, "--person", "faceset_001")
    assert {n: s for n, s in exact(root).items() if n.startswith("faceset_00")} == before
    left = sf.load_cache(tmp_path / "lib.npz").face_ids
    assert len(left) == 10 and not faces & set(left)


def test_faces_that_are_in_no_set_go_with_the_person_they_look_like(run, blind, tmp_path):
    space = Space()
    root = build(tmp_path, [space.faces(0, 5), space.faces(1, 5), [space.face(0), space.face(2)]])
    shutil.rmtree(root / "faceset_003")
    ok(run, "optimize", root, "--no-audit")
    forget_in(run, root, "--person", "faceset_001")
    assert sf.load_cache(tmp_path / "lib.npz").faces == 6


def test_an_answer_or_a_saved_plan_about_the_person_goes_and_others_stay(run, blind, tmp_path):
    space = Space()
    root = build(tmp_path, [space.faces(n, 4) for n in range(4)])
    pairs = [{"a": "faceset_001", "b": "faceset_002", "answer": "no"},
             {"a": "faceset_003", "b": "faceset_004", "answer": "no"}]  # fmt: skip
    answers = tmp_path / "answers.json"
    sf.write_json(answers, {"tool": sf.TOOL, "kind": "pairs", "pairs": pairs})
    ok(run, "consolidate", root, "--edge", -1, "--accept", answers, "--review", tmp_path / "r",
       "--dry-run", "--plan", tmp_path / "saved.json")  # fmt: skip
    assert "faceset_001" in (tmp_path / "saved.json").read_text()
    forget_in(run, root, "--person", "faceset_001")
    assert read(answers)["pairs"] == pairs[1:]
    assert not (tmp_path / "saved.json").exists()  # it was for a state that is no more


def test_one_face_leaves_its_set_and_the_bundles(run, blind, tmp_path):
    space = Space()
    root = build(tmp_path, [space.faces(0, 5), space.faces(1, 4)])
    face = read(root / "faceset_001" / "manifest.json")["faces"][1]
    other = {n: s for n, s in exact(root).items() if n.startswith("faceset_002")}
    forget_in(run, root, "--face", face["face"])
    names = [entry["file"] for entry in read(root / "faceset_001" / "manifest.json")["faces"]]
    assert names == ["faces/000.png", "faces/002.png", "faces/003.png", "faces/004.png"]
    assert_agrees(root)
    assert {n: s for n, s in exact(root).items() if n.startswith("faceset_002")} == other
    assert words_left((root,), {face["face"].encode(), face["sha256"].encode()}) == set()


def test_a_name_two_people_have_is_refused(run, blind, tmp_path):
    space = Space()
    root = build(tmp_path, [space.faces(n, 4) for n in range(3)], {1: "Ada", 3: "Ada"})
    before = exact(tmp_path)
    refused(run, "forget", root, "--cache", tmp_path / "lib.npz", "--person", "Ada",
            word="faceset_001 and faceset_003")  # fmt: skip
    assert {n: s for n, s in exact(tmp_path).items() if not n.endswith(".lock")} == before


def test_files_of_the_operator_among_candidates_are_kept(run, blind, tmp_path):
    space = Space()
    root = build(tmp_path, [space.faces(0, 4), space.faces(1, 4)])
    face = {
        **read(root / "faceset_001" / "manifest.json")["faces"][0],
        "file": "to_faceset_001/a.png",
    }
    folder = root / "_candidates"
    shutil.copytree(root / "faceset_001" / "faces", folder / "to_faceset_001")
    (folder / "to_faceset_001" / "000.png").rename(folder / "to_faceset_001" / "a.png")
    for rest in (folder / "to_faceset_001").glob("0*.png"):
        rest.unlink()
    sf.write_json(folder / "manifest.json", {
        "tool": sf.TOOL, "kind": "candidates", "files": ["manifest.json", face["file"]],
        "faces": [face]})  # fmt: skip
    (folder / "to_faceset_001" / "yes, her.txt").write_text("look at a.png")
    forget_in(run, root, "--person", "faceset_001")
    assert not folder.exists()
    kept = root / "_removed" / "yours" / "_candidates" / "to_faceset_001" / "yes, her.txt"
    assert kept.read_text() == "look at a.png"


def test_the_name_in_a_path_of_the_operator_is_no_trace(run, blind, tmp_path):
    space = Space()
    name = "library"  # where the photos of all lie
    root = build(tmp_path, [space.faces(0, 4), space.faces(1, 4)], {1: name})
    forget_in(run, root, "--person", name)
    note = root / "note.json"
    note.write_text(f'{{"who": "{name}"}}')
    forget_in(run, root, "--person", "faceset_002")
    (tmp_path / "again").mkdir()
    root = build(tmp_path / "again", [space.faces(0, 4), space.faces(1, 4)], {1: name})
    shutil.copyfile(note, root / "note.json")
    result = forget_in(run, root, "--person", name, code=1)
    assert [row["trace"] for row in result["left"]] == ["name"]


def test_one_after_the_other_may_be_forgotten(run, blind, tmp_path):
    space = Space()
    both = [space.face(0, photo="both"), space.face(1, photo="both")]
    root = build(tmp_path, [[*space.faces(0, 3), both[0]], [*space.faces(1, 3), both[1]],
                            space.faces(2, 3)])  # fmt: skip
    first = forget_in(run, root, "--person", "faceset_001")
    second = forget_in(run, root, "--person", "faceset_002")
    assert (first["photos"], first["group_photos"]) == (3, 1)
    assert (second["photos"], second["group_photos"]) == (4, 0)
    stone = read(tmp_path / "lib.npz.forgotten.json")
    assert (len(stone["photos"]), stone["boxes"]) == (7, {})
    assert sf.load_cache(tmp_path / "lib.npz").faces == 3 and folders(root) == {"faceset_003"}
    assert_agrees(root)


def test_a_set_that_loses_its_only_face_goes(run, blind, tmp_path):
    space = Space()
    root = build(tmp_path, [space.faces(0, 1), space.faces(1, 4)])
    forget_in(run, root, "--face", faces_in_set(root, "faceset_001")[0])
    assert folders(root) == {"faceset_002"}
    assert_agrees(root)


# --- in words ---------------------------------------------------------------

ODD = '/photos/Zoë & "Max"/it\'s <1>\udcff.jpg'


@pytest.mark.parametrize(
    "text",
    [
        ODD, json.dumps(ODD), json.dumps(ODD, ensure_ascii=False), html.escape(ODD),
        quote(os.fsencode(ODD)), ODD.encode(errors="backslashreplace").decode(),
        f"person_001/{sf.safe_dst_name(ODD)}", ODD.replace("/", "\\"),
        "0123456789abcdef:2 is blurred", "thumbs/0123456789abcdef_2-1a2b3c4d.jpg",
        "0.57_0123456789abcdef-2.png", "7" * 64, f"({'7' * 16})", "Ada's", "<b>Ada</b>",
    ],
)  # fmt: skip
def test_every_way_to_tell_of_the_forgotten_is_known(text):
    assert words_of_ada().kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "0123456789abcdef:21", "0123456789abcdef:1", "a0123456789abcdef:2", "Adam", "CAda",
        "/photos/Zoe/it's.jpg", "7" * 15, "7" * 63, "/home/Ada/group.jpg: blurred",
        "/photos/x.jpgx",
    ],
)  # fmt: skip
def test_what_only_resembles_it_is_left_alone(text):
    assert not words_of_ada("/home/Ada/group.jpg").kinds(text)


def words_of_ada(*kept: str) -> object:
    traces = sf.companion("forget_traces")
    target = traces.Target(
        what="person", asked="Ada", outs=[], faces=["0123456789abcdef:2"], photos=["7" * 64],
        paths=[ODD, "/photos/x.jpg"], names=["Ada"],
    )  # fmt: skip
    return traces.Words(target, kept)
