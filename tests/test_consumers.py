"""Sets written for other programs: each form read as its program reads it, and all of them followed
through the life of a corpus."""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import json
import os
import shlex
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import sf
from corpora import (
    DIM,
    SIZE,
    TOP_N,
    Death,
    Saboteur,
    Space,
    assert_agrees,
    assert_clean,
    audits_of,
    build,
    changes_of,
    content,
    copied,
    edit,
    exact,
    give_audits,
    read,
    recover,
    write_master,
    wrong,
)
from exports import Photos, give_scores
from material import ok

pytestmark = pytest.mark.usefixtures("quick_disk")

W600K = "4c06341c33c2ca1f"
SET, OTHER = "faceset_001", "faceset_002"
POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
NAMES = {1: "Anna Müller", 2: "Zoë\u2028 Ł & <Co>", 3: "anna müller"}


def stamped(folder: Path, recognizer: str = W600K, names: dict[int, str] | None = None) -> Path:
    """A corpus of three people whose faces, so it says, this recogniser described."""
    space = Space()
    sets = [
        [space.face(0, year=2001 + rank // 5 * 12) for rank in range(7)],
        space.faces(1, 5),
        space.faces(2, 3),
    ]
    root = build(folder, sets, NAMES if names is None else names)
    cache = sf.load_cache(folder / "lib.npz")
    meta = sf.msgspec.structs.replace(cache.meta, recognizer=recognizer)
    sf.save_cache(folder / "lib.npz", sf.replace(cache, meta=meta))
    for path in [root / "manifest.json", *root.glob("faceset_*/manifest.json")]:
        edit(path, lambda told: told.update(recognizer=recognizer))
    write_master(root)
    return root


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    return stamped(tmp_path_factory.mktemp("template"))


@pytest.fixture
def root(template, tmp_path) -> Path:
    return copied(template, tmp_path / "ready")


def mean_of(root: Path, folder: str, bundle: str = f"_top{TOP_N}") -> np.ndarray:
    """What the classic loader averages of a bundle: the raw embeddings of its PNGs."""
    cache = sf.load_cache(Path(read(root / "manifest.json")["cache"]))
    [path] = (root / folder).glob(f"{folder}{bundle}.fsz")
    with zipfile.ZipFile(path) as archive:
        pngs = [name for name in archive.namelist() if name.endswith(".png")]
    entries = read(root / folder / "manifest.json")["faces"]
    faces = [entry["face"] for entry in entries if Path(entry["file"]).name in pngs]
    assert len(faces) == len(pngs)
    return cache.embedding[sf.rows_of_faces(cache, faces)].mean(axis=0, dtype=np.float64)


# --- Rope -------------------------------------------------------------------


def rope(path: Path, width: int = DIM) -> list[tuple[str, np.ndarray]]:
    """What Rope shows of merged_embeddings.txt: one wrong line and there is nothing at all."""
    try:
        lines = path.read_text(encoding="cp1252").splitlines()
        found, stride = [], width + 1
        for at in range(0, len(lines), stride):
            numbers = [float(lines[at + k]) for k in range(1, stride)]
            found.append((lines[at][6:], np.array(numbers, np.float32)))
    except (ValueError, IndexError):
        return []
    return found


def test_rope_shows_every_person_in_order(run, root):
    ok(run, "bundle", root, "--to", "rope")
    people = rope(root / "exports/rope/merged_embeddings.txt")
    assert [name for name, _ in people] == [
        "Anna Mueller",
        "Zoe L & <Co>",
        "anna mueller faceset_003",
    ]
    for (_, vector), folder in zip(people, (SET, OTHER, "faceset_003"), strict=True):
        np.testing.assert_allclose(vector, mean_of(root, folder), rtol=1e-5, atol=1e-6)
    [(name, _)] = rope(root / SET / "exports/rope/merged_embeddings.txt")
    assert name == "Anna Mueller"
    assert_clean(run, root)
    assert_agrees(root)


def test_an_embedding_of_another_recogniser_is_refused_in_one_line(run, root, tmp_path):
    root = stamped(tmp_path / "other", "feedfeedfeedfeed")
    before = exact(root)
    code, out, err = run("bundle", root, "--to", "embeddings,rope")
    assert code == 2 and not out and err.count("\n") == 1 and "rope" in err and "w600k_r50" in err
    assert exact(root) == before


# --- following the corpus ---------------------------------------------------


def test_what_is_taken_out_by_hand_leaves_the_exports_and_restore_brings_them_back(run, root):
    ok(run, "bundle", root, "--to", "rope,embeddings")
    (root / SET / "faces/002.png").unlink()
    (root / OTHER / "NAME.txt").write_text("Otto\n", encoding="utf-8")
    ok(run, "optimize", root, "--no-bytes", "--no-near", "--no-audit")
    people = dict(rope(root / "exports/rope/merged_embeddings.txt"))
    assert list(people) == ["Anna Mueller", "Otto", "anna mueller faceset_003"]
    np.testing.assert_allclose(people["Anna Mueller"], mean_of(root, SET), rtol=1e-5, atol=1e-6)
    assert_clean(run, root)
    assert_agrees(root)


def test_restore_takes_exports_away_and_brings_them_back(run, root):
    plain = exact(root)
    ok(run, "bundle", root, "--to", "rope,embeddings")
    written = exact(root)
    ok(run, "bundle", root, "--off", "rope")
    assert not [*root.glob("exports/rope"), *root.glob("faceset_*/exports/rope")]
    assert (root / "exports/embeddings/embeddings.npz").is_file()
    assert_clean(run, root)
    ok(run, "bundle", root, "--off", "embeddings")
    assert not (root / "exports").exists() and not (root / SET / "exports").exists()
    assert_clean(run, root)
    ok(run, "restore", root, "2")
    assert exact(root) == written
    ok(run, "restore", root)
    assert exact(root) == plain


def test_verify_finds_and_mends_what_is_missing_changed_and_foreign(run, root, tmp_path):
    ok(run, "bundle", root, "--to", "rope,embeddings")
    good = {k: v for k, v in exact(root).items() if "exports/" in k and "_runs" not in k}
    text = "merged_embeddings.txt"
    (root / SET / "exports/rope" / text).unlink()
    (root / OTHER / "exports/rope" / text).write_text("x", encoding="utf-8")
    (root / "exports/rope" / text).write_text("x", encoding="utf-8")
    (root / "exports/mine.txt").write_text("mine", encoding="utf-8")
    (root / SET / "exports/mine.txt").write_text("mine", encoding="utf-8")
    assert wrong(run, root) == [
        ("", "exports/mine.txt", "unknown file"),
        ("", f"exports/rope/{text}", "export"),
        (SET, "exports/mine.txt", "unknown file"),
        (SET, f"exports/rope/{text}", "export"),
        (OTHER, f"exports/rope/{text}", "export"),
    ]
    plan = tmp_path / "mend.json"
    ok(run, "verify", root, "--no-faces", "--fix", "--plan", plan, code=1)
    ok(run, "verify", root, "--apply", plan)
    assert wrong(run, root) == [("", "exports/mine.txt", "unknown file")]
    assert (root / SET / "_yours/exports/mine.txt").is_file()
    now = {k: v for k, v in exact(root).items() if k in good and "manifest" not in k}
    assert now == {k: v for k, v in good.items() if "manifest" not in k}


# --- VisoMaster -------------------------------------------------------------


def visomaster(path: Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """What VisoMaster takes in: a list of entries with a name and arrays by recogniser."""
    found = json.loads(path.read_text(encoding="ascii"), parse_constant=pytest.fail)
    assert isinstance(found, list)
    return [
        (one["name"], {key: np.array(value) for key, value in one["embedding_store"].items()})
        for one in found
    ]


def test_visomaster_gets_names_and_the_one_key_it_means(run, root):
    ok(run, "bundle", root, "--to", "visomaster")
    people = visomaster(root / "exports/visomaster/embeddings.json")
    assert [name for name, _ in people] == [
        "Anna Müller",
        "Zoë Ł & <Co>",
        "anna müller faceset_003",
    ]
    for (_, store), folder in zip(people, (SET, OTHER, "faceset_003"), strict=True):
        assert list(store) == ["Inswapper128ArcFace"]
        np.testing.assert_allclose(store["Inswapper128ArcFace"], mean_of(root, folder), rtol=1e-6)
    assert len(visomaster(root / OTHER / "exports/visomaster/embeddings.json")) == 1


# --- ReActor ----------------------------------------------------------------

SHAPES = {
    "bbox": (4,), "kps": (5, 2), "det_score": (), "landmark_3d_68": (68, 3), "pose": (3,),
    "landmark_2d_106": (106, 2), "embedding": (DIM,), "gender": (), "age": (),
}  # fmt: skip


def genderage(path: Path) -> Path:
    """A model of the pack's form: whoever it sees is male and 35."""
    from onnx import TensorProto, checker, helper, save

    told = helper.make_tensor("told", TensorProto.FLOAT, [1, 3], [0.1, 0.9, 0.35])
    nothing = helper.make_tensor("nothing", TensorProto.FLOAT, [1], [0.0])
    nodes = [
        helper.make_node("ReduceMean", ["data"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"], name="zeroed"),
        helper.make_node("Add", ["told", "zero"], ["fc1"]),
    ]
    value = functools.partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes, "made", [value("data", shape=[1, 3, 96, 96])], [value("fc1", shape=[1, 3])],
        [told, nothing],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    save(model, str(path))
    return path


def enriched(root: Path) -> None:
    """Give the cache of a corpus landmarks and poses."""
    path = Path(read(root / "manifest.json")["cache"])
    cache = sf.load_cache(path)
    rng, count = np.random.default_rng(5), cache.faces
    turns = np.stack([np.linspace(-30, 30, count), np.linspace(60, -60, count), np.zeros(count)], 1)
    sf.save_cache(path, sf.replace(
        cache, landmark_2d_106=rng.uniform(60, 200, (count, 106, 2)).astype(np.float32),
        landmark_3d_68=rng.uniform(60, 200, (count, 68, 3)).astype(np.float32),
        pose=turns.astype(np.float32),
    ))  # fmt: skip


def test_reactor_models_hold_what_its_own_hold(run, tmp_path):
    from safetensors.numpy import load_file

    root = stamped(tmp_path)
    ok(run, "bundle", root, "--to", "reactor")
    plain = load_file(root / "exports/reactor/Anna Mueller.safetensors")
    assert set(plain) == {"embedding", "bbox", "kps", "det_score"}
    enriched(root)
    assert (SET, "exports", "export") in wrong(run, root)
    model = genderage(tmp_path / "genderage.onnx")
    ok(run, "bundle", root, "--to", "reactor", "--genderage", model)
    models = sorted(path.name for path in (root / "exports/reactor").iterdir())
    assert models == ["Anna Mueller.safetensors", "Zoe L & _Co_.safetensors",
                      "anna mueller faceset_003.safetensors"]  # fmt: skip
    for file, folder in zip(models, (SET, OTHER, "faceset_003"), strict=True):
        told = load_file(root / "exports/reactor" / file)
        assert {name: array.shape for name, array in told.items()} == SHAPES
        kinds = {array.dtype.name for name, array in told.items() if name not in ("gender", "age")}
        assert kinds == {"float32"}
        assert told["gender"].dtype == told["age"].dtype == np.int64
        assert (int(told["gender"]), int(told["age"])) == (1, 35)
        np.testing.assert_allclose(told["embedding"], mean_of(root, folder), rtol=1e-5, atol=1e-6)
    assert_clean(run, root)


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (("A/B", "A:B", "a?b"), ["A_B", "A_B faceset_002", "a_b faceset_003"]),
        (("CON", "nul.txt", "Conny"), ["Conny", "_CON", "_nul.txt"]),
        (("x" * 300, "X" * 300, "../.."), ["X" * 100 + " faceset_002", "_", "x" * 100]),
    ],
)
def test_reactor_files_have_names_that_any_disk_takes(run, tmp_path, names, files):
    """A person whose file is written over by another is not in the list, and nobody is told."""
    root = stamped(tmp_path, names=dict(enumerate(names, 1)))
    ok(run, "bundle", root, "--to", "reactor")
    found = (root / "exports/reactor").iterdir()
    assert sorted(path.name.removesuffix(".safetensors") for path in found) == sorted(files)
    assert len(list((root / SET).rglob("*.safetensors"))) == 1
    assert_clean(run, root)


def test_a_name_told_apart_by_its_id_may_be_somebodys_name():
    named = [("Bob faceset_003", "faceset_001"), ("Bob", "faceset_002"), ("bob", "faceset_003")]
    found = sf.companion("consumers").told_apart(named)
    assert found == ["Bob faceset_003", "Bob", "bob faceset_003 2"]


def test_names_that_differ_in_blanks_alone_are_told_apart(run, tmp_path):
    """So are those with a line separator in them, which programs would read as two lines."""
    root = stamped(tmp_path, names={1: "Anna  B", 2: "Anna\u2028B", 3: "Anna B"})
    ok(run, "bundle", root, "--to", "visomaster,rope")
    told = [name for name, _ in visomaster(root / "exports/visomaster/embeddings.json")]
    assert told == ["Anna B", "Anna B faceset_002", "Anna B faceset_003"]
    assert [name for name, _ in rope(root / "exports/rope/merged_embeddings.txt")] == told


# --- FaceSet V2 -------------------------------------------------------------


def faceset_v2(path: Path) -> dict | None:
    """What the roop fork reads of a bundle. Raises ValueError where it would refuse it."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "metadata.json" not in names:
            return None
        told = json.loads(archive.read("metadata.json").decode("utf-8"), parse_constant=pytest.fail)
        if told.get("schema") != "roop.fsz" or int(told.get("version", -1)) != 2:
            raise ValueError("unsupported FaceSet schema")
        members = [source["reference_member"] for source in told["sources"]]
        for member in members:
            if os.path.basename(member) != member or not member.endswith(".png"):
                raise ValueError("unsafe member")
            if member not in names:
                raise ValueError(f"{member} is missing")
        if not members or len(set(members)) != len(members):
            raise ValueError("no or doubled members")
        for source in told["sources"]:
            box = source["geometry"].get("bbox")
            if box and not (len(box) == 4 and box[2] > box[0] and box[3] > box[1]):
                raise ValueError("bbox")
            assert all(np.isfinite(source["geometry"].get(key, 0.0)) for key in ("yaw", "pitch"))
        indexes = [*told["pose_bank"].values(), *(c["members"] for c in told["pose_bins"].values())]
        if any(not 0 <= at < len(members) for some in indexes for at in some):
            raise ValueError("pose index")
        for member, sha in told["integrity"]["sha256"].items():
            if member not in members or hashlib.sha256(archive.read(member)).hexdigest() != sha:
                raise ValueError("checksum mismatch")
    return told


def reference_for(told: dict, pose: tuple[float, float], unit: np.ndarray, light: float) -> int:
    """Which reference it takes for a frame: by identity, pose, light and quality, the nearest."""

    def far(source: dict) -> float:
        own, place = np.array(source["identity"]["normalized_embedding"]), source["geometry"]
        lit = abs(source["appearance"]["luminance"]["mean"] - light) / 0.25
        yaw, pitch = abs(place["yaw"] - pose[0]) / 45, abs(place["pitch"] - pose[1]) / 35
        gaps = 0.25 * min(2, yaw) + 0.1 * min(2, pitch) + 0.05 * min(2, lit)
        return 0.6 * (1 - float(own @ unit)) + gaps - 0.04 * source["quality"]["score"]

    return min(range(len(told["sources"])), key=lambda at: far(told["sources"][at]))


def head_seen(yaw: float, pitch: float) -> np.ndarray:
    """(5, 2) where the fork's own head shows its key points, turned by these degrees."""
    a, b = np.radians([yaw, pitch])
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    eyes, mouth = (0.3345, 0.3787, 0.17), (0.368, -0.547, 0.299)
    head = [(-eyes[0], *eyes[1:]), eyes, (0, -0.098, 0.547), (-mouth[0], *mouth[1:]), mouth]
    return (np.array(head) @ (nod @ turn).T)[:, :2] * (40, -40) + (300, 200)


@pytest.mark.parametrize("yaw", [-80, -30, 0, 12, 60])
@pytest.mark.parametrize("pitch", [-35, 0, 20])
def test_a_pose_is_that_which_the_fork_measures(yaw, pitch):
    fsz2 = sf.companion("consumers_fsz2")
    frontal = head_seen(0, 0)
    points = head_seen(yaw, pitch)
    if pitch == 0 and yaw:  # to the right of the picture is positive
        assert (points[2, 0] > frontal[2, 0]) == (yaw > 0)
    if yaw == 0 and pitch:  # and down
        assert (points[2, 1] > frontal[2, 1]) == (pitch > 0)
    assert fsz2.own_pose(points)[:2] == pytest.approx((yaw, pitch), abs=0.1)


def test_a_face_whose_pose_nobody_knows_is_frontal_as_the_fork_has_it(run, root, tmp_path):
    """It subtracts the pose of every reference from that of a frame: None would end the run."""
    cache = Path(read(root / "manifest.json")["cache"])
    cache.rename(tmp_path / "away.npz")
    ok(run, "bundle", root, "--to", "fsz2")
    told = faceset_v2(root / SET / f"{SET}.fsz")
    assert all(s["geometry"] == {"yaw": 0, "pitch": 0, "roll": 0} for s in told["sources"])
    assert told["pose_bank"] == {"frontal": [*range(len(told["sources"]))]}
    (tmp_path / "away.npz").rename(cache)
    ok(run, "bundle", root)  # and is made anew when it is known
    told = faceset_v2(root / SET / f"{SET}.fsz")
    assert all(s["geometry"]["pitch"] and "bbox" in s["geometry"] for s in told["sources"])


def test_light_is_that_of_the_face():
    fsz2 = sf.companion("consumers_fsz2")
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:60, 30:70] = (255, 0, 0)  # blue is dark to an eye: .114
    box = np.array([[30.4, 20.0], [69.5, 60.0]])
    assert fsz2.light_of(image, box) == pytest.approx(0.114, abs=0.004)
    assert fsz2.light_of(image, None) == pytest.approx(0.114 * 0.16, abs=0.002)
    assert fsz2.light_of(image, box - 1000) == fsz2.light_of(image, None)


def test_bundles_are_facesets_of_both_versions(run, tmp_path):
    root = stamped(tmp_path)
    assert faceset_v2(root / SET / f"{SET}.fsz") is None
    enriched(root)
    ok(run, "bundle", root, "--to", "fsz2")
    for folder in (SET, OTHER, "faceset_003"):
        for bundle in (root / folder).glob("*.fsz"):
            told = faceset_v2(bundle)
            with zipfile.ZipFile(bundle) as archive:
                classic = [name for name in archive.namelist() if name.endswith(".png")]
                assert archive.namelist() == [*classic, "metadata.json"]
            assert [source["reference_member"] for source in told["sources"]] == classic
            for at, source in enumerate(told["sources"]):
                place, unit = source["geometry"], source["identity"]["normalized_embedding"]
                assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-4)
                light = source["appearance"]["luminance"]["mean"]
                pose = place["yaw"], place["pitch"]
                assert reference_for(told, pose, np.array(unit), light) == at
                size = (place["bbox"][3] - place["bbox"][1]) / SIZE  # the border is half of it
                assert 0.4 < size < 0.6 and 0 <= source["appearance"]["luminance"]["mean"] <= 1
        full = faceset_v2(root / folder / f"{folder}.fsz")
        mean = mean_of(root, folder, "")
        assert np.array(full["default_embedding"]) @ mean / np.linalg.norm(mean) > 0.9999
    assert_clean(run, root)
    assert len(full["sources"]) == 3 and full["pose_bank"]


def test_the_first_fault_in_a_faceset_v2_is_found(run, root, tmp_path):
    ok(run, "bundle", root, "--to", "fsz2")
    with zipfile.ZipFile(root / SET / f"{SET}.fsz") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    spoiled = {
        "checksum": {**held, "000.png": held["000.png"][:-1] + b"x"},
        "missing": {name: data for name, data in held.items() if name != "001.png"},
    }
    for why, members in spoiled.items():
        with zipfile.ZipFile(tmp_path / "bad.fsz", "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        with pytest.raises(ValueError, match=why):
            faceset_v2(tmp_path / "bad.fsz")
    (root / SET / f"{SET}.fsz").write_bytes((tmp_path / "bad.fsz").read_bytes())
    assert (SET, f"{SET}.fsz", "bundle") in wrong(run, root)


# --- FaceFusion -------------------------------------------------------------


def plan_of(folder: Path, *clips: str) -> Path:
    """A plan of `video` whose clips lie in folder/clips."""
    segments = []
    for number, clip in enumerate(clips):
        sf.write_part(folder / "clips" / clip, b"a clip")
        segments.append(sf.PlannedClip(
            uuid=f"u{number}", video="v", source="/v.mp4", start=0.0, end=2.0, pts=(0, 50),
            frames=(0, 50), tracks=["t"], identity=[], quality={}, strip=[], clip=clip,
            mode="copy", fallback="", checked=sf.Checked(
                first_frame=0, start=0.0, frames=50, last_time=1.9, duration=2.0, difference=0.0),
        ))  # fmt: skip
    plan = sf.ClipPlan(gates=sf.Gates(), identities={}, segments=segments, rejected=[],
                       out=str(folder / "clips"))  # fmt: skip
    sf.write_file(folder / "plan.json", plan)
    return folder / "plan.json"


def job(path: Path) -> dict:
    """A job as FaceFusion takes it."""
    assert path.stem.replace("-", "").isalnum() and path.stem.isascii()
    told = json.loads(path.read_text(encoding="utf-8"))
    assert set(told) == {"version", "date_created", "date_updated", "steps"}
    assert told["version"] == "1" and told["date_updated"] is None
    assert sf.datetime.fromisoformat(told["date_created"]).tzinfo
    for step in told["steps"]:
        args = step["args"]
        assert step["status"] == "drafted" and args["processors"] == ["face_swapper"]
        target, output = Path(args["target_path"]), Path(args["output_path"])
        assert target.is_file() and output.parent.is_dir() and target.suffix == output.suffix
        assert all(
            Path(path).is_file() and Path(path).is_absolute() for path in args["source_paths"]
        )
    outputs = [step["args"]["output_path"] for step in told["steps"]]
    assert len(set(outputs)) == len(outputs)
    return told


def test_facefusion_gets_all_sources_in_rank_order_and_a_step_a_clip(run, root, tmp_path):
    plan = plan_of(tmp_path, "a b.mp4", "c.mov")
    ok(run, "bundle", root, "--to", "facefusion", "--clips", plan)
    pngs = [str(root / SET / "faces" / name) for name in members(root / SET / f"{SET}_top3.fsz")]
    assert len(pngs) == 3 and pngs[0].endswith("000.png")
    here = root / SET / "exports/facefusion"
    assert (here / "sources.txt").read_text(encoding="utf-8").splitlines() == pngs
    words = shlex.split((here / "headless-run.txt").read_text(encoding="utf-8"))
    assert words[:3] == ["python", "facefusion.py", "headless-run"]
    at = words.index("-s")
    assert words[at + 1 : words.index("-t")] == pngs
    jobs = root / "exports/facefusion/jobs/drafted"
    assert sorted(path.stem for path in jobs.iterdir()) == [
        "faceset-001", "faceset-002", "faceset-003"]  # fmt: skip
    told = job(jobs / "faceset-001.json")
    assert [step["args"]["source_paths"] for step in told["steps"]] == [pngs, pngs]
    assert [Path(s["args"]["target_path"]).name for s in told["steps"]] == ["a b.mp4", "c.mov"]


def test_jobs_follow_the_plan_of_last_time(run, root, tmp_path):
    """After another `video cut` a plain `bundle` knows where the plan lies, and reads it again."""
    plan = plan_of(tmp_path, "a.mp4")
    ok(run, "bundle", root, "--to", "facefusion,rope", "--clips", plan)
    before = exact(root)
    ok(run, "bundle", root)
    assert exact(root) == before
    assert plan_of(tmp_path, "a.mp4", "b.mp4") == plan
    ok(run, "bundle", root)
    told = job(root / "exports/facefusion/jobs/drafted/faceset-001.json")
    assert [Path(s["args"]["target_path"]).name for s in told["steps"]] == ["a.mp4", "b.mp4"]
    sf.write_part(plan.with_name("people.json"), b"{}")  # what video score writes beside it
    assert "facefusion" in str(ok(run, "bundle", root, "--dry-run")["moves"])
    plan.with_name("people.json").unlink()
    before = exact(root)
    plan.unlink()  # a disk that is away
    ok(run, "bundle", root)
    assert exact(root) == before
    assert_clean(run, root)


def test_a_corpus_that_was_moved_gets_its_paths_told_anew(run, root, tmp_path):
    ok(run, "bundle", root, "--to", "facefusion,rope")
    moved = root.rename(tmp_path / "elsewhere")
    faults = {(folder, rule) for folder, _, rule in wrong(run, moved)}
    assert faults == {(f"faceset_00{n}", "export") for n in (1, 2, 3)} | {("", "export")}
    ok(run, "bundle", moved)
    assert_clean(run, moved)
    first = (moved / SET / "exports/facefusion/sources.txt").read_text(encoding="utf-8")
    assert first.startswith(str(moved))


def test_options_of_other_kinds_and_files_that_are_not_there_are_refused(run, root, tmp_path):
    for words, said in (
        (("--to", "rope", "--clips", plan_of(tmp_path, "a.mp4")), "--to facefusion; say both"),
        (("--to", "rope,lora", "--off", "lora"), "--to lora and --off lora: choose one of them"),
        (("--to", "facefusion", "--clips", tmp_path / "no.json"), "not there"),
        (("--to", "paint"), "none of"),
    ):
        code, _, err = run("bundle", root, *words)
        assert code == 2 and said in err, err
    assert not (root / "exports").exists()


def test_a_folder_beside_the_corpus_is_told_and_left_alone(run, root, tmp_path):
    (tmp_path / "mine").mkdir()
    shutil.copytree(root, tmp_path / "mine/facesets_swap_ready")
    before = exact(tmp_path)
    for folder, said in (
        (root / SET, "is one face set; name the folder export-swap wrote"),
        (tmp_path / "mine", f"name {tmp_path / 'mine/facesets_swap_ready'}"),
        (tmp_path / "nowhere", "no such folder; name the folder export-swap wrote"),
    ):
        code, _, err = run("bundle", folder, "--to", "lora")
        assert code == 2 and err.count("\n") == 1 and f"{folder}: " in err
        assert said in err
    assert exact(tmp_path) == before
    assert_clean(run, root)


# --- crops, numbers, captions -----------------------------------------------


def test_folder_holds_aligned_crops_and_every_fact(run, root):
    ok(run, "bundle", root, "--to", "folder")
    here = root / SET / "exports/folder"
    with (here / "faces.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    entries = read(root / SET / "manifest.json")["faces"]
    assert [row["face"] for row in rows] == [entry["face"] for entry in entries]
    assert {row["person"] for row in rows} == {"Anna Müller"}
    for row, entry in zip(rows, entries, strict=True):
        assert float(row["quality"]) == entry["quality"] and row["source"] == entry["source"]
        assert float(row["x2"]) == entry["bbox"][2] and row["yaw"]
        assert sf.decode_photo((here / row["file"]).read_bytes()).wh == (112, 112)
    assert len(list(here.iterdir())) == len(entries) + 1
    cache = sf.load_cache(Path(read(root / "manifest.json")["cache"]))
    for row in rows:
        at = cache.row_of_face[row["face"]]
        for name in ("det_score", "face_short", "blur"):
            assert np.float32(row[name]) == getattr(cache, name)[at]
        assert (int(row["photo_width"]), int(row["photo_height"])) == tuple(
            cache.file_wh[cache.face_file[at]]
        )
        assert float(row["embedding_length"]) == pytest.approx(
            np.linalg.norm(cache.embedding[at]), rel=1e-5
        )
        places = [row[f"{point}_{axis}"] for point in POINTS for axis in "xy"]
        np.testing.assert_array_equal(np.array(places, np.float32), cache.kps[at].ravel())
        assert row["learned_quality"] == ""


def test_facts_that_are_measured_later_are_told_then(run, tmp_path):
    root = stamped(tmp_path)
    ok(run, "bundle", root, "--to", "folder")
    path = Path(read(root / "manifest.json")["cache"])
    cache = sf.load_cache(path)
    scores = np.linspace(0.25, 0.75, cache.faces).astype(np.float32)
    sf.save_cache(path, sf.replace(cache, learned_quality=scores))
    assert (SET, "exports", "export") in wrong(run, root)
    ok(run, "bundle", root)
    with (root / SET / "exports/folder/faces.csv").open(encoding="utf-8", newline="") as file:
        assert [float(row["learned_quality"]) > 0 for row in csv.DictReader(file)] == [True] * 7
    assert_clean(run, root)


def test_embeddings_come_in_three_forms_that_agree(run, root):
    from safetensors import safe_open

    ok(run, "bundle", root, "--to", "embeddings")
    here = root / "exports/embeddings"
    packed = np.load(here / "embeddings.npz", allow_pickle=False)
    assert str(packed["recognizer"]) == W600K and len(packed["embedding"]) == 15
    with safe_open(here / "embeddings.safetensors", "np") as file:
        assert json.loads(file.metadata()["sort_faces"])["recognizer"] == W600K
        np.testing.assert_array_equal(file.get_tensor("embedding"), packed["embedding"])
    with (here / "embeddings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    vectors = np.array([[row[f"e{at}"] for at in range(DIM)] for row in rows], np.float32)
    np.testing.assert_array_equal(vectors, packed["embedding"])
    assert [row["person"] for row in rows] == packed["person"].tolist()
    assert packed["mean_set"].tolist() == [SET, OTHER, "faceset_003"]
    with safe_open(here / "embeddings.safetensors", "np") as file:
        assert json.loads(file.metadata()["sort_faces"])["mean_set"] == [*packed["mean_set"]]
        np.testing.assert_array_equal(file.get_tensor("mean"), packed["mean"])
    for folder, mean in zip(packed["mean_set"], packed["mean"], strict=True):
        own = [row["set"] == folder and row["averaged"] == "yes" for row in rows]
        np.testing.assert_allclose(mean, mean_of(root, folder), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(vectors[own].mean(axis=0), mean, rtol=1e-5, atol=1e-6)
    assert sum(row["averaged"] == "no" for row in rows) == 7 + 5 - 2 * TOP_N


def test_averages_are_those_of_the_bundle_that_is_loaded(run, root):
    """A few faces do not average like all: where the top bundle is small, its mean is meant."""
    ok(run, "bundle", root, "--to", "rope,visomaster,reactor,embeddings,folder")
    own, whole = mean_of(root, SET), mean_of(root, SET, "")
    assert own @ whole / np.linalg.norm(own) / np.linalg.norm(whole) < 0.98
    told = read(root / SET / "manifest.json")["exports"]
    top = f"{SET}_top{TOP_N}.fsz"
    assert {one["kind"]: one.get("averaged", []) for one in told} == {
        **{kind: [top] for kind in ("rope", "visomaster", "reactor", "embeddings")},
        "folder": [],
    }
    [of_all] = [
        one["averaged"] for one in read(root / "exports/manifest.json")["exports"]
        if one["kind"] == "rope"
    ]  # fmt: skip
    assert of_all == [f"{folder}_top{TOP_N}.fsz" for folder in (SET, OTHER, "faceset_003")]


def test_averages_are_made_anew_when_somebody_looks_at_the_pngs(run, root):
    """Of the photos' embeddings first, as nobody has looked; then of those that the PNGs give."""
    ok(run, "bundle", root, "--to", "rope,reactor,embeddings,fsz2,visomaster")
    before = content(root)
    assert ok(run, "bundle", root)["run"].startswith("none")
    face = read(root / SET / "manifest.json")["faces"][0]
    give_audits(root, **{face["sha256"]: np.arange(DIM, dtype=np.float32)})
    found = ok(run, "verify", root, "--no-faces", code=1)["findings"]
    assert "embeddings, fsz2, reactor, rope, visomaster: made of other faces" in str(found)
    ok(run, "bundle", root)
    after = content(root)
    changed = {name for name in before if name in after and before[name] != after[name]}
    assert {
        f"{SET}/exports/rope/merged_embeddings.txt",
        "exports/rope/merged_embeddings.txt",
    } < changed
    assert_clean(run, root)
    assert ok(run, "bundle", root)["run"].startswith("none")


def test_captions_say_name_view_and_distance(run, tmp_path):
    root = stamped(tmp_path)
    enriched(root)
    ok(run, "bundle", root, "--to", "lora")
    here = root / SET / "exports/lora"
    said = {path.stem: path.read_text(encoding="utf-8") for path in here.glob("*.txt")}
    assert said["000"] == ("photo of Anna Müller, profile view, looking down, head and shoulders\n")
    assert said["006"].startswith("photo of Anna Müller, front view")
    for path in here.glob("*.png"):
        assert path.read_bytes() == (root / SET / "faces" / path.name).read_bytes()
    assert len(list(here.iterdir())) == 14
    captions = "".join(p.read_text(encoding="utf-8") for p in (root / OTHER).rglob("lora/*.txt"))
    assert captions.count("\n") == 5 and "\u2028" not in captions


# --- further bundles --------------------------------------------------------


def members(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_poses_and_eras_are_bundles_of_their_faces(run, tmp_path):
    root = stamped(tmp_path)
    enriched(root)
    ok(run, "bundle", root, "--to", "poses,eras,glasses")
    cache = sf.load_cache(tmp_path / "lib.npz")
    for folder in (SET, OTHER, "faceset_003"):
        found: dict[str, set[str]] = {}
        for path in (root / folder / "exports/poses").iterdir():
            found[path.stem.removeprefix(f"{folder}_")] = set(members(path))
        expected: dict[str, set[str]] = {}
        for entry in read(root / folder / "manifest.json")["faces"]:
            pitch, yaw, _ = cache.pose[cache.row_of_face[entry["face"]]]
            sides = {"left": yaw < -25, "right": yaw > 25, "up": pitch > 15, "down": pitch < -15}
            names = [name for name, is_so in sides.items() if is_so] or ["frontal"]
            for name in names:
                expected.setdefault(name, set()).add(Path(entry["file"]).name)
        assert found == expected
    [era] = (root / SET / "exports/eras").iterdir()
    assert era.name == f"{SET}_2001.fsz" and members(era) == [f"00{rank}.png" for rank in range(5)]
    manifest = read(root / SET / "manifest.json")
    told = {one["kind"]: one["left"] for one in manifest["exports"]}
    assert told["eras"] == dict.fromkeys(["faces/005.png", "faces/006.png"], "of an era of 2 faces")
    assert "occlusion score" in told["glasses"][""]


@pytest.mark.parametrize(
    ("nose", "expected"),
    [((0, 0), "frontal"), ((-50, 0), "left"), ((50, 0), "right"), ((0, 30), "down"),
     ((0, -50), "up")],
)  # fmt: skip
def test_the_side_of_a_pose_is_that_of_the_picture(run, root, nose, expected):
    """Who looks to the left of the picture has his nose there."""
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * 200
    points[2] += nose
    sha = read(root / SET / "manifest.json")["faces"][0]["sha256"]
    seen = {"sha256": sha, "error": "", "counts": [1, 1], "kps": points.tolist(),
            "embedding": sf.pack_floats(np.ones(DIM))}  # fmt: skip
    sf.write_part(audits_of(root), json.dumps(seen).encode() + b"\n")
    ok(run, "bundle", root, "--to", "poses")
    bundles = (root / SET / "exports/poses").iterdir()
    assert [p.stem for p in bundles if "000.png" in members(p)] == [f"{SET}_{expected}"]


def test_glasses_follow_the_scores(run, root):
    ok(run, "bundle", root, "--to", "glasses")
    lines = []
    for at, entry in enumerate(read(root / SET / "manifest.json")["faces"]):
        score = {"sha256": entry["sha256"], "error": "", "scores": [0.0, 0.9 * (at % 2)]}
        lines.append(json.dumps(score) + "\n")
    sf.write_part(root / "_scores/occlusion-made-00000000.jsonl", "".join(lines).encode())
    assert (SET, "exports", "export") in wrong(run, root)
    ok(run, "bundle", root)
    here = root / SET / "exports/glasses"
    assert members(here / f"{SET}_sunglasses.fsz") == ["001.png", "003.png", "005.png"]
    assert members(here / f"{SET}_no_sunglasses.fsz") == [
        "000.png",
        "002.png",
        "004.png",
        "006.png",
    ]
    assert_clean(run, root)


# --- the life of a corpus ---------------------------------------------------

ALL = "fsz2,rope,visomaster,reactor,facefusion,folder,embeddings,lora,poses,glasses,eras"


def in_exports(root: Path, folder: str) -> set[str]:
    """The PNGs that an export of a set shows, by its embeddings."""
    path = root / folder / "exports/embeddings/embeddings.npz"
    return set(np.load(path, allow_pickle=False)["png"].tolist())


def assert_follows(run, root: Path) -> None:
    """Every export tells of the faces and names there are now."""
    assert_clean(run, root)
    assert_agrees(root)
    sets = sorted(root.glob("faceset_*"), key=lambda path: sf.natural(path.name))
    people = rope(root / "exports/rope/merged_embeddings.txt")
    assert len(people) == len(sets)
    for folder, (name, vector) in zip(sets, people, strict=True):
        entries = read(folder / "manifest.json")["faces"]
        assert in_exports(root, folder.name) == {entry["file"] for entry in entries}
        np.testing.assert_allclose(vector, mean_of(root, folder.name), rtol=1e-5, atol=1e-6)
        called = sf.read_name(folder)
        assert name == folder.name if called == sf.UNNAMED else name
        assert faceset_v2(folder / f"{folder.name}.fsz")["source_name"]
        captions = list((folder / "exports/lora").glob("*.txt"))
        assert len(captions) == len(entries)


def unnamed(root: Path, folder: str) -> None:
    """Take the name of a set away, so that it may be somebody else's."""
    (root / folder / "NAME.txt").write_text("unnamed\n", encoding="utf-8")


def test_all_exports_follow_a_set_through_its_life(run, root):
    ok(run, "bundle", root, "--to", ALL)
    assert_follows(run, root)
    (root / SET / "faces/004.png").unlink()
    ok(run, "bundle", root)  # taken in as a run of its own
    assert_follows(run, root)
    assert "faces/004.png" not in in_exports(root, SET)
    give_scores(root, {OTHER: ["faces/000.png"]})
    ok(run, "occlusion", "apply", root, "--min-survivors", 3)
    assert_follows(run, root)
    assert len(in_exports(root, OTHER)) == 4
    (root / OTHER / "NAME.txt").write_text("Otto Ångström\n", encoding="utf-8")
    ok(run, "bundle", root)
    assert_follows(run, root)
    assert rope(root / OTHER / "exports/rope/merged_embeddings.txt")[0][0] == "Otto Angstroem"
    ok(run, "era", "split", root, SET, "--min-faces", 2)
    assert_follows(run, root)
    eras = [path.name for path in root.glob(f"{SET}_*")]
    assert eras and all((root / era / "exports/lora").is_dir() for era in eras)
    unnamed(root, "faceset_003")
    ok(run, "consolidate", root, "--edge", -0.5, "--review", root.parent / "review")
    assert_follows(run, root)
    assert (root / "_merged/faceset_003/exports/rope").is_dir()
    ok(run, "restore", root, "0002")
    assert not (root / SET / "faces/004.png").exists()  # what he deleted himself stays so
    ok(run, "bundle", root)
    assert_follows(run, root)


def test_restore_brings_every_exported_byte_back(run, root):
    unnamed(root, "faceset_003")
    ok(run, "bundle", root, "--to", ALL)
    before = exact(root)
    give_scores(root, {OTHER: ["faces/000.png"]})
    ok(run, "occlusion", "apply", root, "--min-survivors", 3)
    ok(run, "era", "split", root, SET, "--min-faces", 2)
    ok(run, "consolidate", root, "--edge", -0.5, "--review", root.parent / "review")
    assert (root / "_merged/faceset_003").is_dir()
    ok(run, "restore", root, "0002")
    assert exact(root) == before
    ok(run, "restore", root)
    assert not list(root.glob("faceset_*/exports")) and not (root / "exports").exists()


def test_export_swap_writes_them_at_once_and_goes_on_doing_so(run, tmp_path, monkeypatch):
    photos = Photos(tmp_path, monkeypatch)
    sets = photos.rows(0, 0, 8), photos.rows(1, 0, 8)
    kinds = ("embeddings", "lora", "facefusion")
    ok(run, *photos.command(*sets), "--to", ",".join(kinds))
    root = photos.root
    assert sorted(read(root / "manifest.json")["exports"]) == sorted(kinds)
    assert len(in_exports(root, SET)) == len(read(root / SET / "manifest.json")["faces"])
    assert_clean(run, root)
    once = exact(root)
    photos.export(run, *sets)
    assert exact(root) == once  # nothing has changed
    photos.export(run, photos.rows(0, 0, 5), sets[1])
    assert len(in_exports(root, SET)) == 5
    assert_clean(run, root)
    code, _, err = run(*photos.command(*sets), "--to", "rope")
    assert code == 2 and "w600k_r50" in err


def test_a_set_without_any_known_embedding_says_so_and_loses_nothing(run, root, tmp_path):
    edit(root / "manifest.json", lambda master: master.update(cache=str(tmp_path / "gone.npz")))
    ok(run, "bundle", root, "--to", "rope,lora", warned="no embedding of its faces is known")
    told = {one["kind"]: one for one in read(root / SET / "manifest.json")["exports"]}
    assert not told["rope"]["files"] and "" in told["rope"]["left"] and told["lora"]["files"]
    assert_clean(run, root)


def test_what_is_not_written_is_told_once_a_reason(run, root):
    code, _, err = run("bundle", root, "--to", "glasses,faceswap")
    lines = [line for line in err.splitlines() if "not written" in line]
    assert code == 0 and len(lines) == 2
    assert all(
        "not written of 3 sets (faceset_001, faceset_002, faceset_003): " in x for x in lines
    )
    assert "no face of it is scored" in lines[0]


def test_a_png_that_is_damaged_costs_itself_and_not_the_exports(run, root):
    png = root / SET / "faces/001.png"
    png.write_bytes(png.read_bytes()[:60])
    ok(run, "bundle", root, "--to", "folder,fsz2,reactor,lora", warned=f"{png}: cut off")
    told = {one["kind"]: one for one in read(root / SET / "manifest.json")["exports"]}
    assert told["folder"]["left"] == {"faces/001.png": "its PNG is damaged"}
    assert f"{SET}/exports/folder/000.png" in content(root)
    places = (root / SET / "exports/fsz2").rglob("metadata.json")
    light = [["appearance" in source for source in read(place)["sources"]] for place in places]
    assert max(some.count(False) for some in light) == 1


def test_a_dry_run_and_a_plan_change_nothing_until_it_is_applied(run, root, tmp_path):
    before = exact(root)
    ok(run, "bundle", root, "--to", "rope", "--dry-run", "--plan", tmp_path / "plan.json")
    assert exact(root) == before
    ok(run, "bundle", root, "--apply", tmp_path / "plan.json")
    assert (root / "exports/rope/merged_embeddings.txt").is_file()
    assert_clean(run, root)


def test_who_is_forgotten_is_in_no_export_and_the_others_have_theirs(run, tmp_path):
    root = stamped(tmp_path, "feedfeedfeedfeed", {2: "Eve"})
    kinds = "folder,embeddings,lora,facefusion,poses"
    ok(run, "bundle", root, "--to", kinds)
    face = read(root / SET / "manifest.json")["faces"][2]
    ok(run, "forget", root, "--face", face["face"], "--cache", tmp_path / "lib.npz")
    assert "faces/002.png" not in in_exports(root, SET) and len(in_exports(root, SET)) == 6
    held = np.load(root / "exports/embeddings/embeddings.npz")
    assert len(held["embedding"]) == 14 and face["face"] not in held["face"].tolist()
    traces = [face["face"].encode(), face["sha256"].encode()]
    files = [path for path in root.rglob("*") if path.is_file()]
    assert not [path for path in files if any(mark in path.read_bytes() for mark in traces)]
    assert face["sha256"] not in map(sf.sha256_of_file, files)
    assert_clean(run, root)
    ok(run, "forget", root, "--photo", read(root / SET / "manifest.json")["faces"][0]["source"],
       "--cache", tmp_path / "lib.npz")  # fmt: skip
    assert len(in_exports(root, SET)) == 5
    assert_clean(run, root)


def test_a_bundle_that_dies_at_any_change_is_whole_or_not_there(run, template, tmp_path):
    root = copied(template, tmp_path / "ready")
    argv = ("bundle", root, "--to", "rope,fsz2,poses")
    before = content(root)
    changes = changes_of(run, root, *argv)
    after = content(root)
    assert changes > 40 and any("exports/rope" in name for name in after)
    for at in range(1, changes + 1, 7):
        root = copied(template, tmp_path / "ready")
        with Saboteur(root, "death", at), contextlib.suppress(Death):
            run(*argv)
        recover(root)
        now = content(root)
        assert now == before or set(now) == set(after)
        ok(run, *argv)
        assert set(content(root)) == set(after)
        assert_clean(run, root)


def test_an_identity_of_a_video_is_the_faces_of_the_set_and_not_its_exports(tmp_path):
    space = Space()
    root = build(tmp_path, [space.faces(0, 3)])
    home = root / "faceset_001"
    (home / "exports" / "lora").mkdir(parents=True)
    (home / "exports" / "lora" / "x.png").write_bytes(b"not looked at")
    names = [name for name, _ in sf.companion("video_people").identity_pictures(home)]
    assert names == ["000.png", "001.png", "002.png"]
    assert len(list(sf.companion("video_people").identity_pictures(home / "exports"))) == 1
