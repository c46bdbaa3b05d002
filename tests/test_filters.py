"""Reference filters and landmark filters: what they take, what they say of it, what counts more."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import make_cache, sf
from exports import EACH, Photos
from material import ok

decisions = sf.companion("decisions")
film_reading = sf.companion("film_reading")
landmark_filter = sf.companion("landmark_filter")
reference_filter = sf.companion("reference_filter")
set_apart = sf.companion("set_apart")
FIGURES = sf.Figures(0.0, 0.1, 0.8, 20.0)


def faces_out(root: Path, reason: str) -> dict[str, float]:
    """{face: value} of what a corpus says was left out for a reason."""
    manifests = (json.loads(path.read_bytes()) for path in root.glob("faceset_*/manifest.json"))
    dropped = [left for manifest in manifests for left in manifest["dropped"]]
    return {left["face"]: left.get("value") for left in dropped if left["reason"] == reason}


def of_rows(photos: Photos, monkeypatch: pytest.MonkeyPatch, folder: Path, rows: list[int]) -> Path:
    """A folder whose pictures show the faces of these rows, as far as the filter can tell."""
    folder.mkdir()
    for row in rows:
        shutil.copy(photos.cache.file_path[row], folder / f"{row}.jpg")

    def looked_at(files: list, shas: list, _: object) -> sf.FaceCache:
        return photos.cache

    monkeypatch.setattr(reference_filter.looking, "looked_at", looked_at)
    monkeypatch.setattr(
        reference_filter.looking, "rows_by_sha", lambda _: {str(row): [row] for row in rows}
    )
    return folder


def test_a_face_passes_if_any_reference_is_as_like_as_asked():
    unit = sf.unit_rows(np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0, 1]]))
    wanted = sf.unit_rows(np.array([[1, 0, 0], [0, 0, 1]]))
    lenient, strict = (
        reference_filter.ReferenceFilter(wanted, None, FIGURES, limit) for limit in (0.9, 1.01)
    )
    assert [reason for reason, _ in lenient.faults(unit)] == ["", "", "not like --filter", ""]
    assert [bool(reason) for reason, _ in strict.faults(unit)] == [False, True, True, False]
    assert lenient.faults(unit)[2][1] == pytest.approx(0.0, abs=1e-6)
    both = reference_filter.ReferenceFilter(wanted, wanted[:1], FIGURES, 0.9)
    assert [why for why, _ in both.faults(unit)] == [
        "like --nfilter",
        "like --nfilter",
        "not like --filter",
        "",
    ]


def test_a_filter_leaves_out_strangers_and_says_why(run, tmp_path, monkeypatch, quick_disk):
    photos = Photos(tmp_path, monkeypatch)
    mixed = [*photos.rows(0, 0, 8), *photos.rows(1, 0, 3)]
    wanted = of_rows(photos, monkeypatch, tmp_path / "anna", [0, 1, 2])
    command = photos.command(mixed)
    result = ok(run, *command, "--filter", wanted, "--save-filtered", tmp_path / "apart")
    out = faces_out(photos.root, "not like --filter")
    assert set(out) == set(photos.rows(1, 0, 3)) and all(value < 0.7 for value in out.values())
    assert result["saved_apart"] == 3
    gate = next(row for row in result["gates"] if row["because"] == "not like --filter")
    assert (gate["faces"], gate["option"]) == (3, "--ref-threshold 0.7")
    crops = sorted((tmp_path / "apart" / "not_like_filter").iterdir())
    assert len(crops) == 3
    refs = {set_apart.text_of(path.read_bytes(), "sort_faces") for path in crops}
    assert {ref.partition("@")[0] for ref in refs} == set(out)
    assert all(cv2.imread(str(path)).shape == (128, 128, 3) for path in crops)
    crops[0].unlink()
    told = ok(run, "decisions", "from-faces", command[1], photos.root, tmp_path / "apart")
    assert (told["keep"], told["known_by_text"], told["drop"]) == (2, 2, 0)
    ok(run, *command, "--filter", wanted)
    assert len(faces_out(photos.root, "not like --filter")) == 1


def test_candidates_are_none_that_a_filter_or_the_operator_keeps_out(
    run, tmp_path, monkeypatch, quick_disk
):
    photos = Photos(tmp_path, monkeypatch)
    path, raw = photos.folder / "lib.npz", tmp_path / "raw/manifest.json"
    own, alone = photos.rows(0, 0, 5), photos.rows(0, 5, EACH)
    head = sf.manifest_head(sf.Library(photos.cache, path))
    sf.write_file(raw, sf.RawManifest(**head, params={}, persons=[], singletons=alone, placed={}))
    shown = ("--candidates", "--raw-manifest", raw, "--candidate-min-score", 0)

    def offered(*options: object) -> list[str]:
        ok(run, *photos.command(own), *shown, *options)
        manifest = json.loads((photos.root / "_candidates/manifest.json").read_bytes())
        to_set = {f["face"] for f in manifest["faces"] if f["file"].startswith("to_faceset_001/")}
        return [face for face in alone if face in to_set]

    def decide(kind: str, **facts: object) -> None:
        act = decisions.act(kind, decisions.new_op(), **facts)
        decisions.Book(path).append([act])

    def refs(faces: list[str]) -> list[str]:
        return decisions.refs(photos.cache, [photos.cache.row_of_face[face] for face in faces])

    assert offered() == alone
    decide("keep", faces=refs(own))
    unwanted = of_rows(photos, monkeypatch, tmp_path / "unwanted", [0])
    assert offered("--nfilter", unwanted, "--ref-threshold", 0) == []
    decide("drop", faces=refs(alone[:1]))
    assert offered() == alone[1:]
    decide("different", faces=refs(alone[1:2]), others=refs(own[:1]))
    assert offered() == alone[2:]


def test_nfilter_takes_who_is_like_and_a_keep_counts_more(run, tmp_path, monkeypatch, quick_disk):
    photos = Photos(tmp_path, monkeypatch)
    unwanted = of_rows(photos, monkeypatch, tmp_path / "bert", [EACH, EACH + 1])
    sets = (photos.rows(0, 0, 8), photos.rows(1, 0, 8))
    path = photos.folder / "lib.npz"
    kept = photos.rows(1, 4, 5)
    refs = decisions.refs(photos.cache, [photos.cache.row_of_face[face] for face in kept])
    decisions.Book(path).append([decisions.act("keep", decisions.new_op(), faces=refs)])
    ok(run, *photos.command(*sets), "--nfilter", unwanted, "--min-survivors", 1)
    out = faces_out(photos.root, "like --nfilter")
    assert set(out) == set(photos.rows(1, 0, 8)) - set(kept)
    manifest = json.loads((photos.root / "faceset_002/manifest.json").read_bytes())
    assert [face["face"] for face in manifest["faces"]] == kept
    assert manifest["params"]["references"]["nfilter"] == [str(unwanted)]
    ok(run, *photos.command(*sets))
    assert not faces_out(photos.root, "like --nfilter")


def test_extend_keeps_out_who_is_filtered_and_takes_him_later(run, tmp_path, monkeypatch):
    photos = Photos(tmp_path, monkeypatch)
    cache, path = photos.cache, photos.folder / "lib.npz"
    old = cache.faces - 2 * EACH
    paths = cache.file_path.tolist()
    first = sf.rebuild_cache(
        cache, {}, {p: sf.known_paths(cache)[p] for p in paths[:old]}, sf.Counter()
    )
    sf.save_cache(path, first)
    raw, sets = tmp_path / "raw", tmp_path / "sets"
    ok(run, "cluster", path, raw, "--linkage", "average")
    ok(run, "refine", path, sets, "--min-faces", 3, "--linkage", "average")
    sf.save_cache(path, cache)
    unwanted = of_rows(photos, monkeypatch, tmp_path / "bert", [old, old + 1])
    engine = ("--model", "synthetic")
    result = ok(run, "extend", path, raw, "--nfilter", unwanted, "--dry-run", *engine)
    assert result["filtered"] == {"like --nfilter": EACH} and result["new_faces"] == EACH
    apart = tmp_path / "apart"
    saved = ("--save-filtered", apart, "--refine-out", sets)
    ok(run, "extend", path, raw, "--nfilter", unwanted, "--dry-run", *saved, *engine)
    assert not apart.exists()
    result = ok(run, "extend", path, raw, "--nfilter", unwanted, *saved, *engine)
    assert result["new_persons"] == 1 and result["saved_apart"] == EACH
    assert result["new_facesets"] == 1
    assert [one["face"] for one in result["filtered_faces"]] == cache.face_ids[old : old + EACH]
    crops = sorted((apart / "like_nfilter").iterdir())
    refs = {set_apart.text_of(crop.read_bytes(), "sort_faces") for crop in crops}
    assert refs == set(decisions.refs(cache, range(old, old + EACH)))
    result = ok(run, "extend", path, raw, "--refine-out", sets)
    assert result["new_faces"] == EACH and result["new_persons"] == 1
    assert result["new_facesets"] == 1  # the sets have not seen him either


@pytest.mark.parametrize("alone", [True, False])
def test_a_picture_of_several_is_used_for_nfilter_alone(
    tmp_path, shared, mini, alone, caplog, group_photo
):
    folder = tmp_path / "refs"
    folder.mkdir()
    (folder / "group.jpg").write_bytes(group_photo)
    shutil.copy(shared / "data/people/p001/p001_01.jpg", folder)
    spec = sf.EngineSpec(model=str(mini), det_size=320)
    crew = sf.Crew(spec, sf.WorkOptions(threads=1))
    meta = sf.as_record(sf.CacheMeta, crew.facts["meta"])
    unit = reference_filter.references(folder, crew, meta, alone)
    assert len(unit) == (1 if alone else 7)


def test_of_a_face_set_the_faces_in_use_are_the_references(run, tmp_path, monkeypatch, quick_disk):
    photos = Photos(tmp_path, monkeypatch)
    photos.export(run, photos.rows(0, 0, 8), photos.rows(1, 0, 8))
    faceset = photos.root / "faceset_001"
    (faceset / "faces/_dropped").mkdir()
    shutil.copy(photos.root / "faceset_002/faces/000.png", faceset / "faces/_dropped/000.png")
    found = {
        path.relative_to(faceset).as_posix() for path in reference_filter.reference_files(faceset)
    }
    assert found == {f"faces/{path.name}" for path in (faceset / "faces").glob("*.png")}
    with pytest.raises(sf.SortFacesError, match="many people"):
        reference_filter.reference_files(photos.root)


def test_a_bundle_is_as_good_as_the_folder_of_its_faces(tmp_path, shared, mini):
    folder, bundle = tmp_path / "refs", tmp_path / "anna.fsz"
    folder.mkdir()
    with zipfile.ZipFile(bundle, "w") as archive:
        for number in (1, 2):
            photo = cv2.imread(str(shared / f"data/people/p001/p001_0{number}.jpg"))
            cv2.imwrite(str(folder / f"{number}.png"), photo)
            archive.write(folder / f"{number}.png", f"../{number}.png")
        archive.writestr("metadata.json", "{}")
    crew = sf.Crew(sf.EngineSpec(model=str(mini), det_size=320), sf.WorkOptions(threads=1))
    meta = sf.as_record(sf.CacheMeta, crew.facts["meta"])
    packed, plain = (
        reference_filter.references(path, crew, meta, True) for path in (bundle, folder)
    )
    assert len(packed) == 2 and np.allclose(packed, plain)
    assert not list(tmp_path.glob("*.png"))
    bundle.write_bytes(b"PK\x03\x04nothing")
    with pytest.raises(sf.SortFacesError, match="is no bundle"):
        reference_filter.references(bundle, crew, meta, True)


def test_a_full_temporary_disk_is_no_fault_of_the_bundle(tmp_path, monkeypatch):
    bundle, scratch = tmp_path / "one.fsz", tmp_path / "scratch"
    scratch.mkdir()
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("000.png", b"a face")

    def full(*_: object) -> None:
        raise OSError(28, "No space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(sf.SortFacesError) as told:
        reference_filter.unpacked(bundle, scratch)
    assert str(told.value).startswith(f"{scratch}: No space left; free some space there")


def test_references_without_a_face_or_of_another_recogniser_are_refused(
    run, tmp_path, monkeypatch, shared, mini
):
    photos = Photos(tmp_path, monkeypatch)
    code, _, err = run(*photos.command(photos.rows(0, 0, 8)), "--filter", tmp_path / "nobody")
    assert code == 2 and "no such file or folder" in err and err.count("\n") == 1
    crew = sf.Crew(sf.EngineSpec(model=str(mini), det_size=320), sf.WorkOptions(threads=1))
    monkeypatch.undo()
    person = shared / "data/people/p001/p001_01.jpg"
    with pytest.raises(sf.SortFacesError, match="another recogniser"):
        reference_filter.references(person, crew, photos.cache.meta, True)
    wall = tmp_path / "wall.png"
    cv2.imwrite(str(wall), np.full((200, 200, 3), 90, np.uint8))
    meta = sf.as_record(sf.CacheMeta, crew.facts["meta"])
    with pytest.raises(sf.SortFacesError, match="no face in it"):
        reference_filter.references(wall, crew, meta, True)


def points(turn: float = 0.0, edge: float = 100.0) -> np.ndarray:
    """(5, 2) the mean face, turned by degrees and so large that its face box has this edge."""
    mean = np.array([sf.ARCFACE_X, sf.ARCFACE_Y]).T
    angle, zoom = np.radians(turn), edge / 4 / np.linalg.norm(mean[1] - mean[0])
    spin = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (mean - mean.mean(axis=0)) @ spin.T * zoom + 400


def with_points(*kps: np.ndarray) -> sf.FaceCache:
    cache = make_cache(people=1, photos=len(kps))
    return sf.replace(cache, kps=np.array(kps, np.float32))


def test_the_mean_face_passes_however_it_is_turned():
    cache = with_points(points(), points(90), points(-170))
    shapes = landmark_filter.shapes_of(cache.kps)
    assert np.allclose(shapes.scale, 100, atol=0.1) and np.allclose(shapes.roll, 0, atol=0.1)
    assert np.allclose(shapes.distance, 0, atol=0.1) and (shapes.gap > 0.2).all()
    found = landmark_filter.faults(cache, np.arange(3), sf.LandmarkLimits())
    assert [reason for reason, _ in found] == ["", "", ""]


def landmarks(turn: float = 0.0, edge: float = 100.0) -> np.ndarray:
    """(68, 2) the mean face of 51 in a face box of this edge, turned; the jaw anywhere."""
    geometry = sf.companion("aligned_geometry")
    mean = np.vstack([np.zeros((17, 2)), geometry.mean_face()])
    angle = np.radians(turn)
    spin = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (mean - 0.5) @ spin.T * edge / 2 + 400


def test_68_landmarks_count_where_they_are_known():
    bad = landmarks()
    bad[48:] -= (0, 40)  # the mouth above the eyes
    odd = np.random.default_rng(0).uniform(300, 500, (68, 2))
    odd[48:, 1] += 300
    cache = with_points(*[points()] * 4, points(edge=30))
    known = np.full((5, 68, 3), np.nan, np.float32)
    known[:4, :, :2] = landmarks(), landmarks(170), bad, odd
    cache = sf.replace(cache, landmark_3d_68=known)
    lie = landmark_filter.shapes(cache, np.arange(5))
    assert np.allclose(lie.scale[[0, 1, 4]], [100, 100, 30], atol=0.1)
    assert np.allclose(lie.distance[[0, 1]], 0, atol=0.01) and lie.distance[3] > 14
    assert np.allclose(lie.roll[[0, 1]], 0, atol=0.5)
    found = landmark_filter.faults(cache, np.arange(5), sf.LandmarkLimits(min_scale=0.04))
    assert [reason for reason, _ in found][:3] == ["", "", "eyes below the mouth"]
    assert found[3][0] == "far from the mean face"


def test_each_limit_takes_its_own_and_0_takes_nothing():
    folded, scattered = points(), points()
    folded[3] -= (0, 60)  # a corner of the mouth above the eyes
    scattered[2] += (60, 0)  # the nose beside the face
    cache = with_points(points(), folded, points(edge=30), points(edge=700), scattered)
    limits = sf.LandmarkLimits(max_scale=0.8, min_scale=0.05)
    found = landmark_filter.faults(cache, np.arange(5), limits)
    assert [reason for reason, _ in found] == [
        "",
        "eyes below the mouth",
        "small for its photo",
        "large for its photo",
        "far from the mean face",
    ]
    assert found[2][1] == pytest.approx(30 / 800, rel=0.01)
    none = sf.LandmarkLimits(min_scale=0, max_scale=0, max_mean_distance=0, max_points_roll=0)
    found = landmark_filter.faults(cache, np.array([0, 2, 3, 4]), none)
    assert [reason for reason, _ in found] == [""] * 4


def test_false_positives_are_off_warned_of_or_dropped(run, tmp_path, monkeypatch, quick_disk):
    photos = Photos(tmp_path, monkeypatch)
    odd = photos.cache.kps.copy()
    odd[2] = points(edge=20)
    sf.save_cache(photos.folder / "lib.npz", sf.replace(photos.cache, kps=odd))
    command = photos.command(photos.rows(0, 0, 8))
    ok(run, *command)
    assert not faces_out(photos.root, "small for its photo")
    command = (*command, "--min-scale", 0.05)
    ok(run, *command, "--false-positives", "warn", warned="small for its photo (0.025)")
    assert not faces_out(photos.root, "small for its photo")
    ok(run, *command, "--false-positives", "drop")
    out = faces_out(photos.root, "small for its photo")
    assert set(out) == set(photos.rows(0, 2, 3))


def test_embed_keeps_only_whom_the_filter_lets_in_until_it_is_another(run, tmp_path, shared, mini):
    library, refs = tmp_path / "photos", tmp_path / "refs"
    library.mkdir()
    refs.mkdir()
    people = shared / "data/people"
    wanted = sorted((people / "p001").glob("*.jpg"))
    for photo in (*wanted[:6], *(people / "p002").glob("*_0[12]*")):
        shutil.copy(photo, library)
    for photo in wanted[6:]:
        shutil.copy(photo, refs)
    cache = tmp_path / "c.npz"
    argv = ("embed", library, cache, "--model", mini, "--det-size", "320")
    several = "several people"
    only = ok(run, *argv, "--filter", refs, warned=several)
    held = sf.load_cache(cache)
    names = [Path(path).name[:4] for path in held.file_path[held.face_file].tolist()]
    assert set(names) == {"p001"} and only["faces"] == len(names) >= 5
    assert only["filtered"]["not like --filter"] >= 2 and only["without_face"] == 0
    assert ok(run, *argv, "--filter", refs, warned=several)["unchanged"] == 8
    without = ok(run, *argv, "--nfilter", refs)
    assert without["new"] == 8 and without["filtered"]["like --nfilter"] >= only["faces"]
    everybody = ok(run, *argv)
    assert everybody["new"] == 8
    assert everybody["faces"] == sum(without["filtered"].values()) + without["faces"]
    unchanged = ok(run, *argv, "--filter", refs, warned=several)
    assert unchanged["unchanged"] == 8 and unchanged["faces"] == everybody["faces"]


def test_video_judges_tracks_by_the_references(run, tmp_path, shared, mini):
    films, work = tmp_path / "films", tmp_path / "work"
    films.mkdir()
    shutil.copy(shared / "data/videos/dlc_DemoTwoFace.mp4", films)
    engine = ("--model", mini, "--det-size", "320")
    ok(run, "video", "run", films, work, tmp_path / "clips", *engine, "--cut", "copy")
    plan = json.loads((work / "plan.json").read_bytes())
    [segment] = plan["segments"]
    with film_reading.open_video(segment["source"]) as (container, stream):
        frame = film_reading.upright_frame(next(film_reading.decoded(container, stream)), 1.0)
    x1, y1, x2, y2 = np.rint(segment["boxes"][0][0]).astype(int)
    high, wide = y2 - y1, x2 - x1
    face = tmp_path / "face.png"
    cv2.imwrite(str(face), frame[y1 - high // 2 : y2 + high // 2, x1 - wide // 2 : x2 + wide // 2])
    assert ok(run, "video", "score", work, "--filter", face)["segments"] == 1
    code, out, _ = run("video", "score", work, "--nfilter", face, "--json")
    assert code == 1 and json.loads(out)["segments"] == 0
    plan = json.loads((work / "plan.json").read_bytes())
    assert "like --nfilter" in {left["reason"] for left in plan["rejected"]}
    people = shared / "data/people/p001"
    code, out, _ = run("video", "score", work, "--filter", people, "--json")
    assert code == 1 and json.loads(out)["segments"] == 0
