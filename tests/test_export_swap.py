"""export-swap: real photos, a real engine, and the bundles as a face-swap program loads them."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import filelock
import numpy as np
import PIL.Image
import pytest
from conftest import SHARED, demo_library, sf
from corpora import chosen_of
from material import (
    MemoEngine,
    broken_caches,
    kill_when,
    ok,
    prepare,
    real_engine,
    refused,
    some_time_after,
    stamps,
    tree,
)

PEOPLE = ("dora", "emil", "finn")
PHOTOS_EACH = 7
EASY = ("--min-face-short", 60)  # the group photo's faces are small
SIZES = (640, 320)  # px; the two detector sizes face-swap programs offer
WEIGHTS = ("frontality", "det-score", "landmark-symmetry", "face-size", "sharpness")


@dataclass(frozen=True)
class Corpus:
    """Photos with everything before export-swap done, by one engine."""

    src: Path
    cache: Path
    raw: Path
    refined: Path
    model: str
    engine: MemoEngine

    @property
    def manifest(self) -> Path:
        return self.refined / "refine_manifest.json"

    def facesets(self) -> dict[str, list[str]]:
        return {entry["id"]: entry["faces"] for entry in read(self.manifest)["facesets"]}

    def with_sets(self, folder: Path, sets: list[list[str]]) -> Path:
        """A refine manifest with these faces as faceset_001, faceset_002, ..."""
        manifest = read(self.manifest)
        manifest["facesets"] = [
            {"id": f"faceset_{number:03d}", "face_count": len(faces), "image_count": len(faces),
             "alias_count": 0, "faces": faces, "images": []}
            for number, faces in enumerate(sets, 1)
        ]  # fmt: skip
        return write(folder / f"refine-{len(os.listdir(folder))}.json", manifest)

    def with_singletons(self, folder: Path, faces: list[str]) -> Path:
        manifest = read(self.raw / "manifest.json")
        return write(folder / "raw.json", {**manifest, "singletons": faces})


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def build(folder: Path, src: Path, model: str, gates: tuple) -> Corpus:
    """Everything before export-swap, through the CLI."""
    made = Corpus(
        src, folder / "lib.npz", folder / "raw", folder / "refined", model, real_engine(model)
    )
    for argv in (
        ("embed", src, made.cache, "--model", model, *(["--enrich"] * (model == "dlib"))),
        ("cluster", made.cache, made.raw),
        ("refine", made.cache, made.refined, *gates),
    ):
        prepare(folder / "logs", made.engine, *argv)
    return made


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Corpus:
    """Three people of the demo library and the group photo with its copy."""
    folder = tmp_path_factory.mktemp("corpus")
    src = folder / "photos"
    for path, data in demo_library.missing_pictures(src).items():
        sf.write_bytes(path, data)
    for path in sorted(src.rglob("*.*")):
        name = path.name.split("_")
        wanted = name[0] in PEOPLE and int(name[-1].split(".")[0]) < PHOTOS_EACH
        if not wanted and not path.name.startswith("group"):
            path.unlink()
    gates = ("--min-faces", 4, "--min-blur", 1, "--min-short", 60)
    return build(folder, src, "dlib", gates)


@pytest.fixture(scope="session")
def exported(corpus, tmp_path_factory) -> Path:
    """The undisturbed export of the corpus; only read."""
    out = tmp_path_factory.mktemp("exported") / "ready"
    argv = ("export-swap", corpus.cache, corpus.manifest, out, "--model", "dlib", *EASY)
    prepare(out.parent / "logs", corpus.engine, *argv)
    return out


@pytest.fixture(autouse=True)
def one_engine(request, monkeypatch) -> None:
    """The same crop gets the same answer without asking the models again."""
    for name in {"corpus", "people"} & set(request.fixturenames):
        engine = request.getfixturevalue(name).engine
        monkeypatch.setattr(sf, "load_engine", lambda *_, engine=engine: engine)


@pytest.fixture
def out(exported, tmp_path) -> Path:
    """A copy of the export, to be changed."""
    return Path(shutil.copytree(exported, tmp_path / "out"))


def export(
    run: Callable,
    corpus: Corpus,
    out: Path,
    *options: object,
    manifest: Path | None = None,
    **expected: object,
) -> dict:
    argv = ("export-swap", corpus.cache, manifest or corpus.manifest, out, "--model", corpus.model)
    return ok(run, *argv, *EASY, *options, **expected)


def folders(out: Path) -> list[Path]:
    found = sorted(out.glob("faceset_*"))
    assert found
    return found


def manifests(out: Path) -> Iterator[dict]:
    for folder in folders(out):
        yield read(folder / "manifest.json")


def pictures(out: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path)) for path in sorted(out.glob("faceset_*/faces/*.png"))]


def found_at(engine: MemoEngine, image: np.ndarray) -> list[int]:
    return [len(engine.detect(image, size)) for size in SIZES]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def assert_complete(folder: Path) -> None:
    """A face set's manifest lists exactly its files, with the right hashes and bundles."""
    manifest = read(folder / "manifest.json")
    on_disk = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "notes.txt"  # the operator's
    ]
    assert sorted(manifest["files"]) == sorted(on_disk)
    for face in manifest["faces"]:
        assert sf.sha256_of_file(folder / face["file"]) == face["sha256"]
    names = {path.name: zipfile.ZipFile(path).namelist() for path in folder.glob("*.fsz")}
    chosen = chosen_of(manifest)
    assert names == {
        one: [face["file"].removeprefix("faces/") for face in part] for one, part in chosen.items()
    }


# --- layout and bundles -----------------------------------------------------


def test_every_face_set_has_its_layout(exported, corpus):
    assert [folder.name for folder in folders(exported)] == list(corpus.facesets())
    assert len(folders(exported)) == 3
    for folder in folders(exported):
        name = folder.name
        faces = sorted(path.name for path in (folder / "faces").iterdir())
        assert faces == [f"{number:03d}.png" for number in range(len(faces))]
        rest = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
        assert rest - {f"faces/{face}" for face in faces} == {
            "manifest.json", "NAME.txt", "previews/top_20_grid.jpg", f"{name}.fsz",
            f"{name}_top30.fsz",
        }  # fmt: skip
        assert_complete(folder)
        sheet = cv2.imread(str(folder / "previews" / "top_20_grid.jpg"))
        assert sheet is not None and sheet.shape[1] == sf.GRID_COLUMNS * sf.GRID_CELL


def test_the_master_manifest_lists_every_set(exported, corpus):
    master = read(exported / "manifest.json")
    assert (master["kind"], master["model"]) == ("swap", "dlib")
    for entry, own in zip(master["facesets"], manifests(exported), strict=True):
        assert (entry["id"], entry["face_count"]) == (own["id"], len(own["faces"]))
        assert entry["left_out"] == len(own["dropped"])
        assert (exported / entry["bundle"]).exists() and (exported / entry["full_bundle"]).exists()
        assert entry["faces"] == [face["face"] for face in own["faces"]]
    assert [entry["id"] for entry in master["facesets"]] == list(corpus.facesets())


def test_bundles_are_flat_stored_zips_of_the_same_pngs(exported):
    for folder in folders(exported):
        faces = sorted((folder / "faces").iterdir())
        for bundle, count in ((f"{folder.name}.fsz", len(faces)),
                              (f"{folder.name}_top30.fsz", min(30, len(faces)))):  # fmt: skip
            with zipfile.ZipFile(folder / bundle) as archive:
                assert archive.testzip() is None
                assert archive.namelist() == [path.name for path in faces[:count]]
                for info, path in zip(archive.infolist(), faces, strict=False):
                    assert info.compress_type == zipfile.ZIP_STORED
                    assert info.filename == info.filename.lower() and not info.is_dir()
                    assert archive.read(info) == path.read_bytes()


def test_every_png_is_plain_512_rgb(exported):
    for path in exported.glob("faceset_*/faces/*.png"):
        data = path.read_bytes()
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
        depth, colour, interlace = data[24], data[25], data[28]
        assert (width, height, depth, colour, interlace) == (512, 512, 8, 2, 0), path
        picture = PIL.Image.open(io.BytesIO(data))
        assert (picture.format, picture.mode, dict(picture.info)) == ("PNG", "RGB", {})


def test_the_same_photos_give_the_same_bytes(run, corpus, exported, tmp_path):
    export(run, corpus, tmp_path / "again")
    assert tree(tmp_path / "again") == tree(exported)


def test_a_rerun_changes_nothing_and_cuts_nothing(run, corpus, out):
    before = tree(out)
    assert export(run, corpus, out)["cut"] == 0
    assert len(read(out / "manifest.json")["runs"]) == 1
    assert tree(out) == before


def test_a_grown_library_cuts_only_the_new_faces(run, corpus, exported, tmp_path):
    """And ends with the very PNGs of an export of everything at once."""
    sets = list(corpus.facesets().values())
    out, engine = tmp_path / "out", corpus.engine
    first = export(run, corpus, out, manifest=corpus.with_sets(tmp_path, [s[:4] for s in sets]))
    asked = engine.asked
    second = export(run, corpus, out)
    assert first["cut"] and second["cut"] == sum(map(len, sets)) - first["cut"] - sum(
        entry["left_out"] for entry in second["facesets"]
    ) + sum(entry["left_out"] for entry in first["facesets"])
    assert engine.asked - asked <= second["cut"] * len(sf.CROP_VARIANTS) * 3
    pngs = {name: sha for name, sha in tree(exported).items() if name.endswith(".png")}
    assert {name: sha for name, sha in tree(out).items() if name in pngs} == pngs
    for folder in folders(out):
        assert_complete(folder)


def test_the_refined_folder_and_the_photos_stay_untouched(run, corpus, tmp_path):
    watched = (corpus.src, corpus.refined, corpus.raw)
    before = [(tree(path), stamps(path)) for path in watched]
    cache = corpus.cache.read_bytes()
    export(run, corpus, tmp_path / "out")
    assert [(tree(path), stamps(path)) for path in watched] == before
    assert corpus.cache.read_bytes() == cache


# --- the faces --------------------------------------------------------------


def test_faces_are_ranked_by_the_weighted_mean_of_their_terms(exported):
    shares = dict(zip(sf.QUALITY_TERMS[:5], (0.30, 0.20, 0.20, 0.15, 0.15), strict=True))
    for manifest in manifests(exported):
        quality = [face["quality"] for face in manifest["faces"]]
        assert quality == sorted(quality, reverse=True) and len(set(quality)) > 1
        assert [face["rank"] for face in manifest["faces"]] == list(range(len(quality)))
        for face in manifest["faces"]:
            assert all(0 <= value <= 1 for value in face["terms"].values())
            mean = sum(shares[term] * value for term, value in face["terms"].items())
            assert face["quality"] == pytest.approx(mean, abs=2e-4)


def test_a_photo_gives_a_set_one_face(exported):
    for manifest in manifests(exported):
        photos = [face["photo_sha256"] for face in manifest["faces"]]
        assert len(photos) == len(set(photos))


def test_of_a_collage_the_better_copy_is_exported(run, corpus, tmp_path):
    """refine lets a mirror image or collage copy stay; a bundle must not count it twice."""
    (tmp_path / "more").mkdir()
    face = cv2.imread(str(next(corpus.src.rglob("emil_*_01.jpg"))))
    soft = cv2.GaussianBlur(face, (0, 0), 1.0)
    cv2.imwrite(str(tmp_path / "more" / "collage.jpg"), np.hstack([face, soft]))
    cache_path = Path(shutil.copy(corpus.cache, tmp_path / "lib.npz"))
    ok(run, "embed", tmp_path / "more", cache_path, "--model", "dlib", "--enrich")
    cache = sf.load_cache(cache_path)
    collage = next(row for row, path in enumerate(cache.file_path) if path.endswith("collage.jpg"))
    twice = np.array(cache.face_ids)[cache.face_file == collage].tolist()
    assert len(twice) == 2
    others = next(iter(corpus.facesets().values()))
    manifest = corpus.with_sets(tmp_path, [others + twice])
    ok(run, "export-swap", cache_path, manifest, tmp_path / "out", "--model", "dlib", *EASY,
       "--outlier-threshold", 2, "--outlier-spreads", 0)  # fmt: skip
    [own] = manifests(tmp_path / "out")
    reasons = {face["face"]: face["reason"] for face in own["dropped"]}
    exported = [face["face"] for face in own["faces"] if face["face"] in twice]
    assert len(exported) == 1
    [other] = set(twice) - set(exported)
    assert "faces in its photo" in reasons[other]


def test_near_duplicates_are_collapsed_to_the_best(exported, corpus):
    cache = sf.load_cache(corpus.cache)
    limit = sf.thresholds_for("dlib").duplicate
    collapsed = 0
    for manifest in manifests(exported):
        rows = sf.rows_of_faces(cache, [face["face"] for face in manifest["faces"]])
        likeness = cache.unit[rows] @ cache.unit[rows].T
        assert (likeness[~np.eye(len(rows), dtype=bool)] < 1 - limit).all()
        for face in manifest["dropped"]:
            if "near-duplicates" in face["reason"]:
                collapsed += 1
                row = sf.rows_of_faces(cache, [face["face"]])
                twins = cache.unit[rows] @ cache.unit[row[0]] >= 1 - 3 * limit
                qualities = [f["quality"] for f in manifest["faces"]]
                assert face["value"] <= max(itertools.compress(qualities, twins))
    assert collapsed, "the corpus has no near-duplicates; the test proves nothing"


def test_every_face_of_the_refined_set_is_exported_or_left_out_with_a_reason(exported, corpus):
    for manifest in manifests(exported):
        exported_faces = [face["face"] for face in manifest["faces"]]
        left_out = [face["face"] for face in manifest["dropped"]]
        assert sorted(exported_faces + left_out) == sorted(corpus.facesets()[manifest["id"]])
        assert all(face["reason"] and face["source"] for face in manifest["dropped"])
        assert all(face["kept_because"] and face["source"] for face in manifest["faces"])
        assert manifest["counts"] == {"faces": len(exported_faces), "dropped": len(left_out)}


def test_every_png_shows_exactly_one_face_at_both_detector_sizes(exported, corpus):
    images = pictures(exported)
    assert len(images) >= 9
    assert [found_at(corpus.engine, image) for image in images] == [[1, 1]] * len(images)


def test_every_png_is_recognised_as_its_own_set(exported, corpus):
    cache = sf.load_cache(corpus.cache)
    centres = {name: sf.centroid(cache.unit[sf.rows_of_faces(cache, faces)])
               for name, faces in corpus.facesets().items()}  # fmt: skip
    limit = sf.thresholds_for("dlib").export_outlier
    for folder in folders(exported):
        for path in (folder / "faces").iterdir():
            image = cv2.imread(str(path))
            seen = corpus.engine.embed(image, corpus.engine.detect(image, 640))[0]
            likeness = {name: cosine(seen, centre) for name, centre in centres.items()}
            assert max(likeness, key=likeness.get) == folder.name
            assert 1 - likeness[folder.name] <= limit


def test_the_face_fills_half_of_the_crop(exported, corpus):
    """Half a face of border on each side, so detectors that need head-room find it."""
    for image in pictures(exported):
        box = corpus.engine.detect(image, 640).bbox[0]
        assert 0.35 < max(box[2:] - box[:2]) / 512 < 0.75
        middle = (box[:2] + box[2:]) / 2 / 512
        assert (abs(middle - 0.5) < 0.25).all()


def load_like_roop(bundle: Path, folder: Path, engine: MemoEngine) -> list[np.ndarray]:
    """Embeddings roop-unleashed would average: of every face in every PNG, in listdir order."""
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    assert not any(path.is_dir() for path in folder.iterdir())  # its next load would fail
    embeddings: list[np.ndarray] = []
    for name in os.listdir(folder):
        if name.endswith(".png"):
            data = np.fromfile(folder / name, np.uint8)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
            embeddings += list(engine.embed(image, engine.detect(image, 640)))
    return embeddings


def test_roops_loader_gets_exactly_the_faces_of_the_set(exported, corpus, tmp_path):
    cache = sf.load_cache(corpus.cache)
    for manifest in manifests(exported):
        name = manifest["id"]
        for bundle in (f"{name}.fsz", f"{name}_top30.fsz"):
            got = load_like_roop(exported / name / bundle, tmp_path / bundle, corpus.engine)
            assert len(got) == len(manifest["faces"])
            rows = sf.rows_of_faces(cache, [face["face"] for face in manifest["faces"]])
            mean = cache.embedding[rows].mean(axis=0)
            assert cosine(np.mean(got, axis=0), mean) > 0.95


def group_faces(corpus: Corpus) -> list[str]:
    cache = sf.load_cache(corpus.cache)
    group = next(row for row, path in enumerate(cache.file_path) if "group" in path)
    return np.array(cache.face_ids)[cache.face_file == group].tolist()


def test_crops_from_a_group_photo_show_no_neighbour(run, corpus, tmp_path):
    faces = group_faces(corpus)
    assert len(faces) == 6
    manifest = corpus.with_sets(tmp_path, [[face] for face in faces])
    export(run, corpus, tmp_path / "out", "--pad-ratio", 1.0, manifest=manifest)
    cache = sf.load_cache(corpus.cache)
    units = cache.unit[sf.rows_of_faces(cache, faces)]
    crops = 0
    for own in manifests(tmp_path / "out"):
        [face] = own["faces"]
        image = cv2.imread(str(tmp_path / "out" / own["id"] / face["file"]))
        assert found_at(corpus.engine, image) == [1, 1]
        seen = corpus.engine.embed(image, corpus.engine.detect(image, 640))[0]
        assert int((units @ seen).argmax()) == faces.index(face["face"])
        crops += 1
    assert crops >= 5


# --- operator's files -------------------------------------------------------


def test_a_new_set_is_unnamed(exported):
    assert {path.read_text() for path in exported.glob("*/NAME.txt")} == {"unnamed\n"}


@pytest.mark.parametrize(
    ("written", "name"),
    [("Dóra Ünal 日本\n", "Dóra Ünal 日本"), ("Dora", "Dora"), ("Dora\r\n", "Dora"),
     ("\ufeffDora\n", "Dora")],
)  # fmt: skip
def test_the_operators_name_stays(run, corpus, out, written, name):
    (out / "faceset_001" / "NAME.txt").write_bytes(written.encode())
    export(run, corpus, out)
    assert (out / "faceset_001" / "NAME.txt").read_text(encoding="utf-8-sig").strip() == name
    assert read(out / "manifest.json")["facesets"][0]["name"] == name


def test_a_name_written_in_an_old_encoding_is_not_lost(run, corpus, out):
    (out / "faceset_001" / "NAME.txt").write_bytes("Jos\u00e9".encode("latin-1"))
    export(run, corpus, out)
    kept = [path.read_bytes() for path in out.rglob("NAME.txt*")]
    assert any(b"Jos" in data for data in kept), kept


def name_sets(out: Path) -> dict[str, set[str]]:
    """Name every set after its number; {name: photos of its faces}."""
    names = {}
    for folder in folders(out):
        (folder / "NAME.txt").write_text(f"was {folder.name}\n")
        faces = read(folder / "manifest.json")["faces"]
        names[f"was {folder.name}"] = {face["face"] for face in faces}
    return names


def assert_names_follow(out: Path, names: dict[str, set[str]]) -> None:
    got = {(folder / "NAME.txt").read_text().strip():
           {face["face"] for face in read(folder / "manifest.json")["faces"]}
           for folder in folders(out)}  # fmt: skip
    assert got == names


def test_names_follow_the_identity_when_the_numbers_change(run, corpus, out, tmp_path):
    names = name_sets(out)
    turned = corpus.with_sets(tmp_path, list(corpus.facesets().values())[::-1])
    export(run, corpus, out, manifest=turned)
    assert_names_follow(out, names)
    listed = [entry["name"] for entry in read(out / "manifest.json")["facesets"]]
    assert listed == ["was faceset_003", "was faceset_002", "was faceset_001"]


@pytest.mark.parametrize("renames", range(5))
def test_names_and_own_files_survive_a_kill_while_the_numbers_change(
    run, corpus, out, tmp_path, monkeypatch, renames
):
    names = name_sets(out)
    (out / "faceset_001" / "notes.txt").write_text("mine")
    turned = corpus.with_sets(tmp_path, list(corpus.facesets().values())[::-1])
    rename, left = os.rename, iter(range(renames))

    def stop_after(*paths) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        rename(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", stop_after)
        argv = ("export-swap", corpus.cache, turned, out, "--model", "dlib", *EASY)
        assert run(*argv)[0] == 130
    for folder in folders(out):
        assert_complete(folder)
    export(run, corpus, out, manifest=turned)
    assert_names_follow(out, names)
    notes = [path for path in out.rglob("notes.txt") if "_runs" not in path.parts]
    assert [path.read_text() for path in notes] == ["mine"]


def test_the_operators_own_files_stay(run, corpus, out, tmp_path):
    mine = [out / "faceset_001" / "notes.txt", out / "faceset_002" / "faces" / "best of all.txt",
            out / "faceset_002" / "ideas" / "a.txt", out / "readme.txt"]  # fmt: skip
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    for _ in range(2):
        export(run, corpus, out)
        assert [path.read_text() for path in mine] == [path.name for path in mine]


def test_an_operators_file_whose_name_is_needed_is_put_aside(run, corpus, out):
    (out / "faceset_001" / "faceset_001_top2.fsz").write_text("mine")
    export(run, corpus, out, "--top-n", 2)
    kept = [path for path in (out / "faceset_001").rglob("*_top2.fsz") if path.stat().st_size == 4]
    assert [path.read_text() for path in kept] == ["mine"]


def test_a_set_that_vanished_goes_to_removed(run, corpus, out, tmp_path):
    (out / "faceset_003" / "NAME.txt").write_text("Finn\n")
    before = tree(out / "faceset_003")
    fewer = corpus.with_sets(tmp_path, list(corpus.facesets().values())[:2])
    export(run, corpus, out, manifest=fewer, warned="'Finn'")
    assert [folder.name for folder in folders(out)] == ["faceset_001", "faceset_002"]
    assert tree(out / sf.REMOVED_FOLDER / "faceset_003") == before


def test_a_vanished_set_whose_number_is_used_again_is_not_destroyed(run, corpus, out, tmp_path):
    (out / "faceset_001" / "NAME.txt").write_text("gone but not forgotten\n")
    (out / "faceset_001" / "notes.txt").write_text("about the first")
    fewer = corpus.with_sets(tmp_path, list(corpus.facesets().values())[1:])
    export(run, corpus, out, manifest=fewer, warned="gone but not forgotten")
    names = [path.read_text() for path in (out / sf.REMOVED_FOLDER).rglob("NAME.txt")]
    assert "gone but not forgotten\n" in names
    assert [path.read_text() for path in out.rglob("notes.txt")] == ["about the first"]


# --- options ----------------------------------------------------------------


def test_top_n_is_the_size_of_the_small_bundle(run, corpus, out):
    export(run, corpus, out, "--top-n", 2)
    for folder in folders(out):
        assert sorted(path.name for path in folder.glob("*.fsz")) == [
            f"{folder.name}.fsz", f"{folder.name}_top2.fsz"
        ]  # fmt: skip
        with zipfile.ZipFile(folder / f"{folder.name}_top2.fsz") as archive:
            best, other = archive.namelist()
        assert best == "000.png" and other > best
        assert_complete(folder)


def bundle_means(folder: Path, tmp_path: Path, engine: MemoEngine) -> dict[str, np.ndarray]:
    """{bundle: the average roop-unleashed makes of it}."""
    return {
        path.name: np.mean(load_like_roop(path, tmp_path / path.name, engine), axis=0)
        for path in sorted(folder.glob("*.fsz"))
    }


def test_the_bundles_are_worth_what_the_manifest_says(run, corpus, out, tmp_path):
    """Their averages as the program that loads them makes them, not as the cache would."""
    export(run, corpus, out, "--top-n", 4, "--core-n", 3)
    for folder in folders(out):
        assert_complete(folder)
        name = folder.name
        means = bundle_means(folder, tmp_path, corpus.engine)
        told = {one["file"]: one for one in read(folder / "manifest.json")["bundles"]}
        assert set(means) == set(told) == {f"{name}{end}.fsz" for end in ("", "_top4", "_core")}
        for bundle, one in told.items():
            assert one["cosine"] == pytest.approx(
                cosine(means[bundle], means[f"{name}.fsz"]), abs=1e-4
            )
            assert "held_out" not in one  # fewer than 20 faces
        assert told[f"{name}.fsz"]["cosine"] == 1 > told[f"{name}_core.fsz"]["cosine"] > 0.9
    [*entries] = read(out / "manifest.json")["facesets"]
    assert [one["core_bundle"] for one in entries] == [
        f"{one['id']}/{one['id']}_core.fsz" for one in entries
    ]


def test_a_set_of_few_faces_has_no_core(run, corpus, exported, out):
    assert not list(exported.glob("*/*_core.fsz"))  # at most 8 faces each
    export(run, corpus, out, "--core-n", 2)
    assert len(list(out.glob("*/*_core.fsz"))) == len(folders(out))
    export(run, corpus, out)
    assert not list(out.glob("*/*_core.fsz"))
    assert not any(one["core_bundle"] for one in read(out / "manifest.json")["facesets"])


def test_out_size_and_pad_ratio_shape_the_crop(run, corpus, exported, tmp_path):
    options = ("--out-size", 384, "--pad-ratio", 0.3)
    export(run, corpus, tmp_path / "out", *options)
    images = pictures(tmp_path / "out")
    assert {image.shape for image in images} == {(384, 384, 3)}
    assert [found_at(corpus.engine, image) for image in images] == [[1, 1]] * len(images)

    def share(image: np.ndarray) -> float:
        box = corpus.engine.detect(image, 640).bbox[0]
        return float(max(box[2:] - box[:2])) / len(image)

    tight, usual = map(share, images), map(share, pictures(exported))
    assert np.median(list(tight)) > np.median(list(usual)) + 0.08
    for manifest in manifests(tmp_path / "out"):
        assert (manifest["params"]["out_size"], manifest["params"]["pad_ratio"]) == (384, 0.3)


@pytest.mark.parametrize("kept", ["sharpness", "det-score", "face-size"])
def test_a_single_weight_ranks_by_that_term(run, corpus, tmp_path, kept):
    options = [part for name in WEIGHTS if name != kept for part in (f"--weight-{name}", 0)]
    export(run, corpus, tmp_path / "out", *options)
    for manifest in manifests(tmp_path / "out"):
        values = [face["terms"][kept.replace("-", "_")] for face in manifest["faces"]]
        assert values == sorted(values, reverse=True)


def test_all_weights_zero_is_refused(run, corpus, tmp_path):
    options = [part for name in WEIGHTS for part in (f"--weight-{name}", 0)]
    refused(run, "export-swap", corpus.cache, corpus.manifest, tmp_path / "out", "--model", "dlib",
            *options, word="weight")  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_the_size_gate_names_what_it_left_out(run, corpus, tmp_path):
    ok(run, "export-swap", corpus.cache, corpus.manifest, tmp_path / "out", "--model", "dlib",
       "--min-face-short", 130)  # fmt: skip
    cache = sf.load_cache(corpus.cache)
    small = 0
    for manifest in manifests(tmp_path / "out"):
        for face in manifest["faces"]:
            assert cache.face_short[cache.row_of_face[face["face"]]] >= 130
        small += sum(face["reason"] == "face too small" for face in manifest["dropped"])
    assert small


def test_a_tight_outlier_gate_leaves_out_the_far_ones(run, corpus, exported, tmp_path):
    distances = [face["distance"] for m in manifests(exported) for face in m["faces"]]
    limit = float(np.median(distances))
    argv = ("--outlier-threshold", limit, "--min-survivors", 1)
    export(run, corpus, tmp_path / "out", *argv)
    for manifest in manifests(tmp_path / "out"):
        assert all(face["distance"] <= limit for face in manifest["faces"])
        assert any(face["reason"] == "outlier" and face["value"] > limit
                   for face in manifest["dropped"])  # fmt: skip


def test_a_set_that_gates_make_too_small_is_thin_until_they_let_more_pass(run, corpus, tmp_path):
    out, ids = tmp_path / "out", list(corpus.facesets())
    full = export(run, corpus, out)
    [shortest, *_] = sorted(entry["face_count"] for entry in full["facesets"])
    faces = {entry["id"]: entry["face_count"] for entry in full["facesets"]}
    limit = float(np.median([face["distance"] for m in manifests(out) for face in m["faces"]]))
    (out / ids[0] / "NAME.txt").write_text("Anna\n")
    tight = ("--outlier-threshold", limit, "--min-survivors", shortest)
    some = export(run, corpus, out, *tight, warned="left by export-swap")
    master = json.loads((out / "manifest.json").read_bytes())
    assert some["thin"] == len(master["thin_eras"]) >= 1
    assert some["thin"] + len(master["facesets"]) == len(ids)
    for entry in master["thin_eras"]:
        assert entry["folder"] == f"_thin/{entry['id']}" and "outlier" in entry["reason"]
        assert 0 < entry["face_count"] < shortest <= faces[entry["id"]]
        assert (out / entry["folder"] / entry["bundle"].rpartition("/")[2]).is_file()
    before = tree(out)
    again = export(run, corpus, out, *tight, warned="left by export-swap")
    assert again["cut"] == 0 and tree(out) == before
    back = export(run, corpus, out)
    assert "thin" not in back
    assert {p.name for p in out.glob("faceset_*")} == set(ids) and not any(out.glob("_thin/*"))
    assert (out / ids[0] / "NAME.txt").read_text().strip() == "Anna"


def test_dry_run_writes_nothing(run, corpus, out, tmp_path):
    before = tree(tmp_path)
    planned = export(run, corpus, tmp_path / "new", "--dry-run")
    assert export(run, corpus, out, "--dry-run")["facesets"] == planned["facesets"]
    assert tree(tmp_path) == before
    assert [entry["id"] for entry in planned["facesets"]] == list(corpus.facesets())
    assert all(entry["faces"] for entry in planned["facesets"])


# --- candidates -------------------------------------------------------------


def test_candidates_join_a_set_or_each_other(run, corpus, tmp_path):
    first, second, third = corpus.facesets().values()
    manifest = corpus.with_sets(tmp_path, [first[:-1], second])
    raw = corpus.with_singletons(tmp_path, [first[-1], *third[:2]])
    out = tmp_path / "out"
    options = ("--candidates", "--raw-manifest", raw, "--candidate-min-score", 0)
    result = export(run, corpus, out, *options, manifest=manifest)
    found = sorted(path.parent.name for path in out.glob("_candidates/*/*.png"))
    assert found == ["new_001", "new_001", "to_faceset_001"]
    assert (result["candidates"], result["candidate_groups"]) == (3, 2)
    assert_candidates_listed(out)
    names = [path.name for path in (out / "_candidates" / "to_faceset_001").iterdir()]
    assert names[0].endswith(f"_{first[-1].replace(':', '-')}.png")
    before = tree(out / "_candidates")
    export(run, corpus, out, *options, manifest=manifest)
    assert tree(out / "_candidates") == before


def assert_candidates_listed(out: Path) -> None:
    folder = out / "_candidates"
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(read(folder / "manifest.json")["files"])


def test_candidates_need_the_quality_and_the_likeness_asked_for(run, corpus, tmp_path):
    first, second, third = corpus.facesets().values()
    manifest = corpus.with_sets(tmp_path, [first[:-1], second])
    raw = corpus.with_singletons(tmp_path, [first[-1], third[0]])
    options = ("--candidates", "--raw-manifest", raw)
    poor = export(run, corpus, tmp_path / "a", *options, "--candidate-min-score", 1,
                  manifest=manifest)  # fmt: skip
    unlike = export(run, corpus, tmp_path / "b", *options, "--candidate-min-score", 0,
                    "--candidate-match-threshold", 0.001, manifest=manifest)  # fmt: skip
    assert (poor["candidates"], unlike["candidates"]) == (0, 0)
    for name in ("a", "b"):
        assert not list((tmp_path / name / "_candidates").rglob("*.png"))


def test_candidates_without_any_face_set_are_grouped_among_themselves(run, corpus, tmp_path):
    first = next(iter(corpus.facesets().values()))
    manifest = corpus.with_sets(tmp_path, [])
    raw = corpus.with_singletons(tmp_path, first[:3])
    options = ("--candidates", "--raw-manifest", raw, "--candidate-min-score", 0)
    export(run, corpus, tmp_path / "out", *options, manifest=manifest, code=1)
    assert len(list((tmp_path / "out" / "_candidates" / "new_001").iterdir())) >= 2


def test_candidates_without_the_raw_manifest_are_refused(run, corpus, tmp_path):
    refused(run, "export-swap", corpus.cache, corpus.manifest, tmp_path / "out", "--model", "dlib",
            "--candidates", word="--raw-manifest")  # fmt: skip
    assert not (tmp_path / "out").exists()


# --- photos gone, kills -----------------------------------------------------


def test_a_photo_that_is_gone_is_left_out_with_the_reason(run, corpus, tmp_path):
    src = Path(shutil.copytree(corpus.src, tmp_path / "photos"))
    cache = sf.load_cache(corpus.cache)
    moved = [path.replace(str(corpus.src), str(src)) for path in cache.file_path.tolist()]
    sf.save_cache(tmp_path / "lib.npz", sf.replace(cache, file_path=np.array(moved),
        alias_path=cache.alias_path[:0], alias_file=cache.alias_file[:0],
        alias_size=cache.alias_size[:0], alias_mtime_ns=cache.alias_mtime_ns[:0]))  # fmt: skip
    name, faces = next(iter(corpus.facesets().items()))
    rows = sf.rows_of_faces(cache, faces)
    gone, changed = (Path(moved[file]) for file in np.unique(cache.face_file[rows])[:2])
    gone.unlink()
    changed.write_bytes(b"another picture")
    loose = corpus.with_sets(tmp_path, [faces])
    ok(run, "export-swap", tmp_path / "lib.npz", loose, tmp_path / "out", "--model", "dlib", *EASY)
    manifest = read(tmp_path / "out" / name / "manifest.json")
    reasons = {face["source"]: face["reason"] for face in manifest["dropped"]}
    kept = {face["source"] for face in manifest["faces"]}
    assert not {str(gone), str(changed)} & kept
    assert "gone or changed" in reasons[str(gone)] or "near-duplicates" in reasons[str(gone)]
    assert any("gone or changed" in reason for reason in reasons.values())
    assert_complete(tmp_path / "out" / name)


def test_a_set_of_which_no_face_is_left_is_not_exported(run, corpus, tmp_path):
    result = export(
        run, corpus, tmp_path / "out", "--min-face-short", 5000, warned="no face passed", code=1
    )
    assert (result["facesets"], result["faces"]) == ([], 0)
    assert not list((tmp_path / "out").glob("faceset_*"))
    [row] = result["gates"]  # the face sets are gone, but not without a word
    assert row["faces"] == sum(map(len, corpus.facesets().values()))
    assert row["option"] == "--min-face-short 5000"


def test_killed_three_times_the_rerun_gives_the_undisturbed_result(run, corpus, tmp_path):
    """SIGKILL while the first, then a later set is built; then while an old one is replaced."""
    sets = [faces[:3] for faces in corpus.facesets().values()]
    manifest = corpus.with_sets(tmp_path, sets)
    out = tmp_path / "out"
    argv = ("export-swap", corpus.cache, manifest, out, "--model", "dlib", *EASY)
    chance = random.Random(5)
    killed = 0
    for moment in (
        lambda: any(out.glob(".*/faces/*.png")),
        lambda: (out / "faceset_001").exists(),
        lambda: (out / "faceset_001").exists() and any(out.glob(".*faceset_002/faces")),
    ):
        killed += kill_when(some_time_after(moment, chance.uniform(0, 0.3)), *argv)
        for folder in out.glob("faceset_*"):
            assert_complete(folder)
    assert killed, "no kill came in time; the test proves nothing"
    export(run, corpus, out, manifest=manifest)
    export(run, corpus, tmp_path / "undisturbed", manifest=manifest)
    assert tree(out) == tree(tmp_path / "undisturbed")


# --- refusals ---------------------------------------------------------------


def attempt(run, corpus: Corpus, out: Path, word: str, **instead: object) -> None:
    paths = {"cache": corpus.cache, "manifest": corpus.manifest, "model": "dlib", **instead}
    refused(run, "export-swap", paths["cache"], paths["manifest"], out, "--model", paths["model"],
            word=word)  # fmt: skip


@pytest.mark.parametrize("kind", ["text", "newer", "foreign", "absent"])
def test_a_file_that_is_no_cache_is_refused(run, corpus, tmp_path, kind):
    attempt(run, corpus, tmp_path / "out", kind, cache=broken_caches(tmp_path)[kind])
    assert not (tmp_path / "out").exists()


def test_a_cache_of_another_model_than_asked_for_is_refused(run, corpus, tmp_path):
    attempt(run, corpus, tmp_path / "out", "holds faces of dlib", model="buffalo_l")
    assert not (tmp_path / "out").exists()


def test_a_manifest_of_another_model_or_kind_is_refused(run, corpus, tmp_path):
    other = {**read(corpus.manifest), "model": "other", "recognizer": "0123456789abcdef"}
    path = write(tmp_path / "other.json", other)
    attempt(run, corpus, tmp_path / "out", "made with other", manifest=path)
    attempt(run, corpus, tmp_path / "out", "manifest.json", manifest=corpus.raw / "manifest.json")
    attempt(run, corpus, tmp_path / "out", "is a folder", manifest=corpus.refined)
    attempt(run, corpus, tmp_path / "out", "not found", manifest=tmp_path / "nowhere.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tool": "sort_faces", "kind": "refined"}'])
def test_a_damaged_manifest_is_refused(run, corpus, tmp_path, text):
    value = text
    if text.endswith("}"):  # ours, of this model, but without its face sets
        value = json.dumps({**json.loads(text), "recognizer": read(corpus.manifest)["recognizer"]})
    path = tmp_path / "refine_manifest.json"
    path.write_text(value)
    attempt(run, corpus, tmp_path / "out", "refine_manifest.json", manifest=path)
    assert not (tmp_path / "out").exists()


def test_a_manifest_of_another_library_is_refused(run, corpus, out, tmp_path):
    """No face of it is in the cache; every face set there is would be taken away."""
    strangers = [[f"{hashlib.sha256(bytes([n])).hexdigest()[:16]}:0" for n in range(9)]]
    before = tree(out)
    attempt(run, corpus, out, "manifest", manifest=corpus.with_sets(tmp_path, strangers))
    assert tree(out) == before


def test_bad_outputs_are_refused(run, corpus, tmp_path):
    attempt(run, corpus, corpus.src / "ready", "inside the source")
    assert not (corpus.src / "ready").exists()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("mine")
    attempt(run, corpus, foreign, "holds other files")
    attempt(run, corpus, foreign / "mine.txt", "is a file")
    assert tree(foreign) == {"mine.txt": hashlib.sha256(b"mine").hexdigest()}


@pytest.mark.parametrize("text", ['{"name": "My app"}', "[]", "not json"])
def test_a_manifest_json_of_another_program_is_refused_not_overwritten(run, corpus, tmp_path, text):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "manifest.json").write_text(text)
    before = tree(foreign)
    attempt(run, corpus, foreign, str(foreign))
    assert tree(foreign) == before


def test_the_raw_tree_is_no_place_for_an_export(run, corpus):
    before = tree(corpus.raw)
    attempt(run, corpus, corpus.raw, str(corpus.raw))
    assert tree(corpus.raw) == before


def test_a_second_export_at_once_is_refused(run, corpus, out):
    before = tree(out)
    with filelock.FileLock(out / sf.LOCK_NAME):
        attempt(run, corpus, out, "wait for it")
    assert tree(out) == before


# --- another engine: a model pack, and photos of real people ----------------


@pytest.fixture(scope="session")
def people(tmp_path_factory) -> Corpus:
    """Twelve photos each of three labelled people through the mini pack."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs ../shared, which is not here")
    folder = tmp_path_factory.mktemp("people")
    for person in ("p001", "p003", "p010"):
        for path in sorted((SHARED / "data" / "people" / person).iterdir())[:12]:
            (folder / "photos" / person).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / "photos" / person)
    gates = ("--min-faces", 6, "--min-short", 70, "--min-blur", 5)
    return build(folder, folder / "photos", str(SHARED / "models" / "mini"), gates)


def test_a_core_of_real_people_averages_like_all(run, people, tmp_path):
    """Nearer than nine in ten others of that number."""
    out = tmp_path / "out"
    ok(run, "export-swap", people.cache, people.manifest, out, "--model", people.model,
       "--core-n", 4, "--top-n", 4)  # fmt: skip
    for folder in folders(out):
        found = load_like_roop(folder / f"{folder.name}.fsz", tmp_path / folder.name, people.engine)
        rng, whole = np.random.default_rng(1), np.mean(found, axis=0)
        others = [rng.permutation(len(found))[:4] for _ in range(100)]
        usual = [cosine(np.mean([found[row] for row in some], axis=0), whole) for some in others]
        told = {one["file"]: one["cosine"] for one in read(folder / "manifest.json")["bundles"]}
        assert told[f"{folder.name}_core.fsz"] > np.quantile(usual, 0.9)
        assert told[f"{folder.name}_top4.fsz"] > np.quantile(usual, 0.9)


def test_a_model_pack_exports_people_who_are_recognised(run, people, tmp_path):
    out = tmp_path / "out"
    ok(run, "export-swap", people.cache, people.manifest, out, "--model", people.model)
    assert len(folders(out)) == 3
    for manifest in manifests(out):
        assert_complete(out / manifest["id"])
        assert len({Path(face["source"]).parent.name for face in manifest["faces"]}) == 1
        bundle = out / manifest["id"] / f"{manifest['id']}.fsz"
        got = load_like_roop(bundle, tmp_path / manifest["id"], people.engine)
        assert len(got) == len(manifest["faces"]) >= 5
        cache = sf.load_cache(people.cache)
        rows = sf.rows_of_faces(cache, [face["face"] for face in manifest["faces"]])
        assert cosine(np.mean(got, axis=0), cache.embedding[rows].mean(axis=0)) > 0.9
    images = pictures(out)
    assert [found_at(people.engine, image) for image in images] == [[1, 1]] * len(images)


@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_crops_from_a_crowd_show_no_neighbour(run, people, tmp_path, shared, threshold):
    """Consumers detect at 0.5, whatever the cache was made with; verify sees what they see."""
    crowd = min((shared / "data" / "groups").iterdir(), key=lambda path: path.stat().st_size)
    (tmp_path / "crowd").mkdir()
    shutil.copy(crowd, tmp_path / "crowd")
    ok(run, "embed", tmp_path / "crowd", tmp_path / "crowd.npz", "--model", people.model,
       "--det-threshold", threshold)  # fmt: skip
    cache = sf.load_cache(tmp_path / "crowd.npz")
    assert cache.faces >= 5
    manifest = people.with_sets(tmp_path, [[face] for face in cache.face_ids])
    out = tmp_path / "out"
    code, _, err = run("export-swap", tmp_path / "crowd.npz", manifest, out, "--model",
                       people.model, "--min-face-short", 20, "--pad-ratio", 1.0)  # fmt: skip
    assert code == 0, err
    images = pictures(out)
    assert len(images) >= cache.faces // 2
    assert [found_at(people.engine, image) for image in images] == [[1, 1]] * len(images)
    planted = min(out.glob("faceset_*/faces/*.png"))
    shutil.copy(tmp_path / "crowd" / crowd.name, planted)  # a picture of them all
    code, told, _ = run("verify", out, "--model", people.model, "--json")
    found = json.loads(told)["findings"]
    assert code == 1 and f"faces/{planted.name}" in {item["file"] for item in found}


# --- painting neighbours over ------------------------------------------------


def test_a_neighbour_is_filled_from_around_it_and_the_own_face_stays_as_it_is():
    crop = np.full((512, 512, 3), (40, 90, 160), np.uint8)
    crop[:, 256:] = (180, 60, 30)
    crop[100:180, 60:120] = 255  # a neighbour on the left
    crop[200:420, 180:340] = np.random.default_rng(0).integers(0, 255, (220, 160, 3))
    own = np.array([180.0, 200.0, 340.0, 420.0])
    boxes = np.array([[60.0, 100.0, 120.0, 180.0], [150.0, 380.0, 260.0, 480.0]])
    painted = sf.paint_over(crop, boxes, own)
    assert np.array_equal(painted[200:420, 180:340], crop[200:420, 180:340])
    assert np.abs(painted[110:170, 70:110].astype(int) - (40, 90, 160)).max() < 12
    assert np.array_equal(painted[:60], crop[:60])


def test_a_face_that_needs_no_paint_comes_before_one_that_does():
    def face(quality: float, **facts: object) -> sf.Face:
        return sf.Face(face="", sha256="", quality=quality, file="faces/000.png", **facts)

    plain, painted = face(0.75), face(0.8, neighbours_painted=True)
    much_better, chosen = face(0.9, neighbours_painted=True), face(0.1, chosen=True)
    order = sorted([painted, plain, much_better, chosen], key=sf.rank_of)
    assert order == [chosen, much_better, plain, painted]
