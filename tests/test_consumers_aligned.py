"""Aligned pictures for Faceswap and DeepFaceLab, against their formulas and readers of our own.

The formulas (PEERS.md 1.8, 1.9) are written here a second time and another way: the similarity by
singular values, the pose by least squares, the square by its corners.
"""

from __future__ import annotations

import ast
import io
import itertools
import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from aligned_material import Shelf
from conftest import sf
from corpora import assert_agrees, assert_clean, copied, edit, faces_in, read, write_master
from material import ok
from scipy.interpolate import RBFInterpolator
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

geometry = sf.companion("aligned_geometry")
aligned = sf.companion("consumers_aligned")

CORNERS = np.array([(0, 0), (511, 0), (511, 511), (0, 511)], float)
CENTRES = {"head": ((0, 0, -2.3), 0.625), "face": ((0, -1.5, 4.2), 0.5)}
MIRRORED = {17: 26, 18: 25, 19: 24, 20: 23, 21: 22, 31: 35, 32: 34, 36: 45, 37: 44, 38: 43,
            39: 42, 40: 47, 41: 46, 48: 54, 49: 53, 50: 52, 59: 55, 58: 56, 60: 64, 61: 63,
            67: 65, 6: 10, 7: 9}  # fmt: skip
MIDDLE = (27, 28, 29, 30, 33, 51, 57, 62, 66)


def project(pose: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Places (k, 3) seen by a lens of focal length 4 with its axis through (0.5, 0.5).

    pose: rotation vector and move; HEAD's axes want the head at a negative depth.
    """
    there = Rotation.from_rotvec(pose[:3]).apply(places) + pose[3:]
    return 4.0 * there[:, :2] / there[:, 2:] + 0.5


def made_head() -> np.ndarray:
    """(68, 3) a head in the units of HEAD: its points, and the others where they fit in between."""
    known = list(geometry.HEAD)
    places = np.array(list(geometry.HEAD.values()))
    angle = np.linspace(np.pi * 0.97, np.pi * 0.03, 17)
    jaw = np.column_stack([0.5 + 0.62 * np.cos(angle), 0.25 + 0.88 * np.sin(angle)])
    flat = np.column_stack([np.vstack([jaw, geometry.mean_face()]), np.ones(68)])
    head = flat @ np.linalg.lstsq(flat[known], places[:, :2], rcond=None)[0]
    depth = RBFInterpolator(places[:, :2], places[:, 2], smoothing=0.1)(head)
    head = np.column_stack([head, depth])
    head[:17, 2] -= 6 * ((np.arange(17) - 8) / 8) ** 2  # the jaw runs back to the ears
    head[known] = places
    return head


def made_faces(count: int = 10) -> list[np.ndarray]:
    """Landmarks (68, 2) of heads turned, tilted and distorted, somewhere in a large photo."""
    rng, head, faces = np.random.default_rng(11), made_head(), []
    for _ in range(count):
        pitch, yaw, roll = rng.uniform((-0.3, -0.7, -0.8), (0.3, 0.7, 0.8))
        face = project(np.array([pitch, yaw, 0, 0, 0, -57]), head) + rng.normal(0, 0.008, (68, 2))
        turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        faces.append((face @ turn.T * rng.uniform(60, 1500) + rng.uniform(0, 3000, 2)).round(3))
    return faces


FACES = made_faces()


def umeyama(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) similarity (Umeyama 1991, equations 38 to 43)."""
    own, wanted = points - points.mean(axis=0), target - target.mean(axis=0)
    u, sizes, v = np.linalg.svd(wanted.T @ own / len(points))
    sign = np.diag([1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    scale = np.trace(np.diag(sizes) @ sign) / own.var(axis=0).sum()
    turn = scale * u @ sign @ v
    return np.column_stack([turn, target.mean(axis=0) - turn @ points.mean(axis=0)])


def head_by_formula(points: np.ndarray, size: int, centre: tuple, share: float) -> np.ndarray:
    """The matrix of CONSUMERS.md 7.5: similarity, minus the offset of the pose, scaled, padded."""
    matrix = umeyama(points[17:], geometry.mean_face())
    square = points @ matrix[:, :2].T + matrix[:, 2]
    own, places = square[list(geometry.HEAD)], np.array(list(geometry.HEAD.values()))
    ahead = (0, 0, 0, 0, 0, -55.0)
    exact = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15)
    pose = least_squares(lambda pose: (project(pose, places) - own).ravel(), ahead, **exact).x
    offset = project(pose, np.array([centre]))[0] - 0.5
    padding = round(size * share / 2)
    matrix[:, 2] -= offset
    matrix = matrix * (size - 2 * padding)
    matrix[:, 2] += padding
    return matrix


def dfl_by_formula(points: np.ndarray, size: int, face_type: str) -> np.ndarray:
    """The matrix of PEERS.md 1.9, by the corners and diagonals of the square in the photo."""
    target = np.vstack([geometry.mean_face()[:32], geometry.mean_face()[37]]) - (0.009873, 0)
    matrix = umeyama(np.vstack([points[17:49], points[54]]), target)
    back = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))[:2]
    left_top, right_top, right_low, left_low, middle = (
        np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0.5, 0.5)]) @ back[:, :2].T + back[:, 2]
    )
    down, across = right_low - left_top, right_top - left_low
    padding = {"full_face": 0.2109375, "whole_face": 0.40, "head": 0.70}[face_type]
    half = np.linalg.norm(down) * (padding * np.sqrt(2) + 0.5)
    if face_type == "whole_face":
        middle = middle + 0.07 * (left_top - left_low)
    if face_type == "head":
        x = (points @ matrix[:, :2].T + matrix[:, 2])[:, 0]
        right = sum(x[jaw] - x[nose] for jaw, nose in ((16, 27), (15, 28), (14, 29))) / 3
        left = sum(x[nose] - x[jaw] for jaw, nose in ((0, 27), (1, 28), (2, 29))) / 3
        yaw = (right - left) * abs(np.tanh(2 * (right - left)))
        middle = middle - (left_top - right_top) * yaw / 2 + 0.50 * (left_top - left_low)
    ends = [middle - down / np.linalg.norm(down) * half,
            middle + across / np.linalg.norm(across) * half,
            middle + down / np.linalg.norm(down) * half]  # fmt: skip
    ends = np.column_stack([ends, np.ones(3)])
    return np.linalg.solve(ends, np.array([(0, 0), (size, 0), (size, size)], float)).T


def apart(left: np.ndarray, right: np.ndarray, points: np.ndarray) -> float:
    """Farthest that two maps put one of the points from each other, px of the picture."""
    gap = geometry.transformed(left, points) - geometry.transformed(right, points)
    return float(np.abs(gap).max())


def corners_apart(left: np.ndarray, right: np.ndarray) -> float:
    """The same of the picture's corners in the photo, px of the photo."""
    here, there = (
        geometry.transformed(cv2.invertAffineTransform(matrix), CORNERS) for matrix in (left, right)
    )
    return float(np.abs(here - there).max())


# --- geometry ---------------------------------------------------------------


def test_tables_are_mirrored_in_themselves():
    mean = dict(zip(range(17, 68), geometry.mean_face(), strict=True))
    for left, right in MIRRORED.items():
        if left >= 17:
            assert mean[left][0] + mean[right][0] == pytest.approx(1, abs=2e-6), left
            assert mean[left][1] == mean[right][1], left
        if left in geometry.HEAD:
            x, *rest = geometry.HEAD[left]
            assert geometry.HEAD[right] == (-x, *rest), left
    assert all(mean[at][0] == 0.5 for at in MIDDLE) and len(mean) == 2 * 21 + len(MIDDLE)
    assert [at for at, place in geometry.HEAD.items() if place[0] == 0] == [8, 33, 51, 57]


@pytest.mark.parametrize("points", FACES, ids=range(10))
@pytest.mark.parametrize("centring", ["head", "face"])
def test_faceswap_matrix_is_that_of_the_formula(points: np.ndarray, centring: str):
    wanted = head_by_formula(points, 512, *CENTRES[centring])
    got = geometry.faceswap_matrix(points, 512, centring)
    assert apart(got, wanted, points) < 0.01
    assert corners_apart(got, wanted) < 0.5


def test_head_is_centred_where_the_skull_is():
    """512 px leave 160 on each side; a head that looks straight ahead lies in the middle."""
    face = np.vstack([np.full((17, 2), 0.5), geometry.mean_face()])
    face[list(range(6, 11))] = [(0.34, 1.08), (0.42, 1.13), (0.5, 1.14), (0.58, 1.13), (0.66, 1.08)]
    matrix = geometry.faceswap_matrix(face * 300 + 40, 512)
    assert geometry.scale_of(matrix) == pytest.approx((512 - 2 * 160) / 300)
    placed = geometry.transformed(matrix, face * 300 + 40)
    assert placed[[36, 45], 0].mean() == pytest.approx(256, abs=0.01)
    assert 200 < placed[[36, 45], 1].mean() < 270


@pytest.mark.parametrize("points", FACES, ids=range(10))
@pytest.mark.parametrize("face_type", geometry.DFL_TYPES)
def test_dfl_matrix_is_that_of_the_formula(points: np.ndarray, face_type: str):
    wanted = dfl_by_formula(points, 512, face_type)
    got = geometry.dfl_matrix(points, 512, face_type)
    assert apart(got, wanted, points) < 0.01
    assert corners_apart(got, wanted) < 0.5


@pytest.mark.parametrize("size", [256, 1024])
def test_size_scales_the_picture(size: int):
    for make in (geometry.faceswap_matrix, lambda p, s: geometry.dfl_matrix(p, s, "head")):
        small, large = make(FACES[0], 512), make(FACES[0], size)
        assert np.allclose(small * size / 512, large, rtol=1e-9)


@pytest.mark.parametrize("extended", [False, True])
def test_masks_are_the_face(extended: bool):
    face = np.vstack([FACES[0]])
    points = geometry.transformed(geometry.faceswap_matrix(face, 256, "face"), face)
    mask = geometry.landmark_mask(points, 256, extended)
    assert mask.shape == (256, 256) and mask.dtype == np.uint8
    outline = points[:27].astype(np.float32)  # jaw and brows
    area = cv2.contourArea(cv2.convexHull(outline))
    grown = mask.sum() / 255 / area
    assert (1.10 < grown < 1.25) if extended else (1.0 < grown < 1.08)  # half a pixel more
    for at in (30, 33, 62, 39, 42):
        assert mask[tuple(np.rint(points[at, ::-1]).astype(int))] == 255
    outside = points[8] + 0.15 * (points[8] - points[27])  # below the chin
    assert mask[tuple(np.clip(np.rint(outside[::-1]).astype(int), 0, 255))] == 0


# --- files ------------------------------------------------------------------


class Unpickler(pickle.Unpickler):
    """Of plain types alone."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain type")


def plain_pickle(data: bytes) -> object:
    assert data[:2] == b"\x80\x04"  # protocol 4: Python 3.6 reads it
    stream = io.BytesIO(data)
    value = Unpickler(stream).load()
    assert not stream.read()
    return value


def png_facts(path: Path) -> dict:
    """As faceswap finds them: the iTXt chunk right before the first IDAT."""
    data, at, last = path.read_bytes(), 8, b""
    while True:
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        crc = struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]
        assert crc == zlib.crc32(kind + body)
        if kind == b"IDAT":
            break
        last, at = kind + body, at + 12 + length
    assert last.startswith(b"iTXtfaceswap" + bytes(5))
    return ast.literal_eval(last[17:].decode("utf-8"))


def jpeg_facts(data: bytes) -> dict:
    """As DeepFaceLab finds them: JFIF first, then the pickle of the APP15 segment."""
    assert data[:4] == b"\xff\xd8\xff\xe0" and data[6:10] == b"JFIF"
    at, told = 2, []
    while data[at + 1] != 0xDA:
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        if marker == 0xEF:
            assert length < 65_533
            told.append(plain_pickle(data[at + 4 : at + 2 + length]))
        at += 2 + length
    assert len(told) == 1
    return told[0]


def packed(path: Path) -> list[tuple[dict, bytes]]:
    """(config, bytes) of each picture of a faceset.pak."""
    data = path.read_bytes()
    version, length = struct.unpack("<QQ", data[:16])
    assert version == 1
    configs = plain_pickle(data[16 : 16 + length])
    table = 16 + length
    start = table + 8 * (len(configs) + 1)
    offsets = struct.unpack(f"<{len(configs) + 1}Q", data[table:start])
    assert start + offsets[-1] == len(data)
    spans = itertools.pairwise(offsets)
    return [
        (config, data[start + a : start + b]) for config, (a, b) in zip(configs, spans, strict=True)
    ]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("aligned"))


@pytest.fixture(scope="module")
def faceswap(shelf, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faceswap")
    written, left = shelf.write(folder, aligned.Faceswap())
    assert len(written) == len(shelf.rows) > 12 and not left
    return folder


def test_faceswap_reads_the_chunk(shelf, faceswap):
    for path in faceswap.glob("*.png"):
        facts = png_facts(path)
        assert set(facts) == {"alignments", "source"}
        told, source = facts["alignments"], facts["source"]
        assert set(told) == {"x", "y", "w", "h", "landmarks_xy", "mask", "identity"}
        assert np.array(told["landmarks_xy"]).shape == (68, 2)
        assert all(type(told[key]) is int for key in "xywh")
        assert source["alignments_version"] == 2.4 and source["source_is_video"] is False
        assert source["original_filename"] == path.name
        assert path.stem == f"{Path(source['source_filename']).stem}_{source['face_index']}"
        assert set(source) == {"alignments_version", "original_filename", "face_index",
                               "source_filename", "source_is_video",
                               "source_frame_dims"}  # fmt: skip
        assert cv2.imread(str(path)).shape == (512, 512, 3)


def test_faces_of_a_photo_are_numbered_and_photos_of_one_name_kept_apart(shelf, faceswap):
    by_photo: dict[str, list[int]] = {}
    for path in faceswap.glob("*.png"):
        source = png_facts(path)["source"]
        by_photo.setdefault(source["source_filename"], []).append(source["face_index"])
    assert len(by_photo) == 4  # one for each photo, whatever its folder and ending
    assert all(sorted(some) == list(range(len(some))) for some in by_photo.values())
    assert sum("IMG_1" in name for name in by_photo) == 3
    assert any("Zoë__Füß.jpg" in name for name in by_photo)


def test_pictures_are_the_photo_at_the_matrix(shelf, faceswap):
    names = aligned.flat_names(shelf.cache.file_path.tolist())
    paths = {name: path for path, name in names.items()}
    for path in sorted(faceswap.glob("*.png")):
        facts = png_facts(path)
        points = np.array(facts["alignments"]["landmarks_xy"], np.float32)
        matrix = head_by_formula(points.astype(float), 512, *CENTRES["head"])
        photo = cv2.imread(paths[facts["source"]["source_filename"]])
        assert facts["source"]["source_frame_dims"] == photo.shape[:2]
        grows = np.hypot(*matrix[0, :2]) >= 1
        wanted = cv2.warpAffine(
            photo, matrix, (512, 512), flags=cv2.INTER_CUBIC if grows else cv2.INTER_AREA
        )
        assert np.abs(wanted.astype(int) - cv2.imread(str(path))).mean() <= 1.0


def test_masks_lie_over_the_face_in_the_photo(faceswap):
    facts = png_facts(next(faceswap.glob("*.png")))
    points = np.array(facts["alignments"]["landmarks_xy"])
    height, width = facts["source"]["source_frame_dims"]
    areas = {}
    for name, mask in facts["alignments"]["mask"].items():
        assert (mask["stored_size"], mask["stored_centering"]) == (128, "face")
        small = np.frombuffer(zlib.decompress(mask["mask"]), np.uint8).reshape(128, 128)
        matrix = np.array(mask["affine_matrix"], np.float32)
        flags = cv2.WARP_INVERSE_MAP | mask["interpolator"]
        whole = cv2.warpAffine(small, matrix, (width, height), flags=flags)
        hull = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(hull, cv2.convexHull(np.rint(points[:27]).astype(np.int32)), 255)
        both = np.logical_and(whole > 127, hull > 127).sum()
        assert both / (hull > 127).sum() > 0.95, name
        areas[name] = (whole > 127).sum()
    assert list(areas) == ["components", "extended"]
    assert areas["extended"] > areas["components"] * 1.02


@pytest.mark.parametrize("face_type", geometry.DFL_TYPES)
def test_dfl_reads_the_segment_and_the_pack(shelf, tmp_path, face_type):
    form = aligned.DeepFaceLab(face_type)
    written, left = shelf.write(tmp_path / "aligned", form)
    assert len(written) == len(shelf.rows) and not left
    size = 768 if face_type == "head" else 512
    for path in written:
        facts = jpeg_facts(path.read_bytes())
        assert set(facts) == {"face_type", "landmarks", "source_filename", "source_rect",
                              "source_landmarks", "image_to_face_mat"}  # fmt: skip
        assert facts["face_type"] == face_type and path.suffix == ".jpg"
        matrix, own = np.array(facts["image_to_face_mat"]), np.array(facts["source_landmarks"])
        wanted = dfl_by_formula(own, size, face_type)
        assert apart(matrix, wanted, own) < 0.01 and corners_apart(matrix, wanted) < 0.5
        placed = np.array(facts["landmarks"])
        assert np.abs(placed - geometry.transformed(matrix, own)).max() < 0.01
        if face_type != "full_face":  # which ends at the chin
            assert (placed > 0).all() and (placed < size).all()
        picture = cv2.imread(str(path))
        assert picture.shape == (size, size, 3)
    pack = tmp_path / "faceset.pak"
    aligned.write_pack(
        pack, [(path, form.config(path, face, "Zoë")) for path, face in written.items()]
    )
    found = packed(pack)
    assert [config["filename"] for config, _ in found] == [path.name for path in written]
    for (config, data), path in zip(found, written, strict=True):
        assert data == path.read_bytes()
        assert config["person_name"] == "Zoë" and config["shape"] == [size, size, 3]
        assert config["face_type"] == {"full_face": 2, "whole_face": 4, "head": 10}[face_type]
        assert config["landmarks"] == jpeg_facts(data)["landmarks"]


def test_faces_without_68_points_are_left_out(shelf, tmp_path):
    points = shelf.cache.landmark_3d_68.copy()
    points[0] = np.nan
    points[1] = 7.0  # all in one place
    points[2, :, 1] = points[2, :, 0]  # on one line
    cache = sf.replace(shelf.cache, landmark_3d_68=points)
    for form in (aligned.Faceswap(), aligned.DeepFaceLab("head")):
        folder = tmp_path / type(form).__name__
        written, left = shelf.write(folder, form, cache=cache)
        ids = cache.face_ids
        assert "no 68 landmarks" in left[ids[0]] and "enrich" in left[ids[0]]
        assert "no 68 landmarks" in left[ids[1]]
        assert {face.face for face in written.values()} | set(left) == set(ids)
        assert set(left) <= set(ids[:3])
        numbers: dict[str, list[int]] = {}
        for face in written.values():
            numbers.setdefault(face.photo, []).append(face.index)
        assert all(some == list(range(len(some))) for some in numbers.values())


def test_what_was_cut_before_is_taken_over_though_its_photo_is_gone(shelf, faceswap, tmp_path):
    cache = sf.replace(shelf.cache, file_size=shelf.cache.file_size + 1)  # other files now
    form = aligned.Faceswap()
    written, left = shelf.write(tmp_path / "a", form, cache=cache)
    assert not written and set(left.values()) == {sf.PHOTO_GONE}
    written, left = shelf.write(tmp_path / "b", form, faceswap, cache=cache)
    assert len(written) == len(shelf.rows) and not left
    assert all(path.read_bytes() == (faceswap / path.name).read_bytes() for path in written)
    written, left = shelf.write(tmp_path / "c", aligned.Faceswap(256), faceswap, cache=cache)
    assert not written  # of another size


def test_sizes_are_options(shelf, tmp_path):
    for form in (aligned.Faceswap(256), aligned.DeepFaceLab("whole_face", 320)):
        written, _ = shelf.write(tmp_path / form.ending, form)
        for path in written:
            assert cv2.imread(str(path)).shape == (form.size, form.size, 3)


# --- re-feed ----------------------------------------------------------------


@pytest.fixture(scope="module")
def dlib() -> sf.Engine:
    return sf.load_engine(sf.EngineSpec(model="dlib"))


def test_refed_landmarks_are_the_average_of_jittered_boxes(shelf, dlib, tmp_path):
    photos = aligned.Photos(sf.Library(shelf.cache, shelf.path))
    landmarks = aligned.refed_landmarks(dlib, photos, 5)
    file = int(shelf.cache.face_file[0])
    rows = [row for row in shelf.rows if shelf.cache.face_file[row] == file]
    got = landmarks(file, rows)
    image = cv2.imread(str(shelf.cache.file_path[file]))
    for points, row in zip(got, rows, strict=True):
        box = shelf.cache.bbox[row]
        boxes = aligned.jittered(box, shelf.cache.face_ids[row], 5)
        assert np.array_equal(boxes[0], box) and len({tuple(one) for one in boxes}) == 6
        edge = np.tile(box[2:] - box[:2], 2)
        assert (np.abs(boxes - box) <= 0.05 * edge + 1e-3).all()
        assert np.allclose(points, dlib.points(image, boxes).mean(axis=0), atol=1e-3)
    known = shelf.cache.landmark_3d_68[rows, :, :2]
    assert 0 < np.abs(got - known).max() < 0.1 * np.ptp(known[0])
    assert np.array_equal(got, landmarks(file, rows))
    written, left = shelf.write(tmp_path, aligned.Faceswap(), landmarks=landmarks)
    assert len(written) == len(shelf.rows) and not left
    told = png_facts(next(iter(written)))["alignments"]["landmarks_xy"]
    assert np.allclose(told, next(iter(written.values())).points)


def test_refed_landmarks_agree_with_each_other_more_than_single_ones(shelf, dlib):
    """What re-feed is for: two looks at a face, from boxes a little apart, differ less."""
    row = 0
    image = cv2.imread(str(shelf.cache.file_path[shelf.cache.face_file[row]]))
    box = shelf.cache.bbox[row]
    looks = [dlib.points(image, aligned.jittered(box, f"look {at}", 12)[1:]) for at in range(6)]
    single = np.std([look[0] for look in looks], axis=0).mean()
    averaged = np.std([look.mean(axis=0) for look in looks], axis=0).mean()
    assert averaged < 0.7 * single


def test_refeed_needs_landmark_models(shelf, mini):
    photos = aligned.Photos(sf.Library(shelf.cache, shelf.path))
    engine = sf.load_engine(sf.EngineSpec(model=str(mini)))
    with pytest.raises(sf.SortFacesError, match="no landmark models"):
        aligned.refed_landmarks(engine, photos, 5)


# --- as exports of a corpus -------------------------------------------------


@pytest.fixture(scope="module")
def template(shelf, tmp_path_factory) -> Path:
    return shelf.corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def root(template, tmp_path) -> Path:
    return copied(template, tmp_path / "ready")


def told_of(root: Path, folder: str, kind: str) -> dict:
    exports = read(root / folder / "manifest.json")["exports"]
    return next(exported for exported in exports if exported["kind"] == kind)


def largest(root: Path) -> str:
    """The face set with the most faces."""
    folders = [path.parent.name for path in root.glob("faceset_*/manifest.json")]
    return max(sorted(folders), key=lambda folder: len(faces_in(root, folder)))


def test_a_corpus_has_its_pictures_and_they_follow_what_is_taken_out(run, root):
    folder = largest(root)
    ok(run, "bundle", root, "--to", "faceswap,dfl")
    here = root / folder / "exports"
    count = len(faces_in(root, folder))
    before = {path.name: path.read_bytes() for path in (here / "dfl/aligned").iterdir()}
    assert len(before) == len(list((here / "faceswap").iterdir())) == count >= 2
    inside = {told["filename"]: data for told, data in packed(here / "dfl/packed/faceset.pak")}
    assert inside == before
    assert all(jpeg_facts(data)["face_type"] == "whole_face" for data in before.values())
    assert_clean(run, root)
    (root / folder / "faces/000.png").unlink()
    ok(run, "optimize", root, "--no-bytes", "--no-near", "--no-audit")
    after = {path.name: path.read_bytes() for path in (here / "dfl/aligned").iterdir()}
    assert len(after) == count - 1 and len(packed(here / "dfl/packed/faceset.pak")) == count - 1
    assert_clean(run, root)
    assert_agrees(root)


def test_pictures_outlive_their_photos(run, root, shelf, tmp_path):
    """A disk that is not there when a set changes takes no picture away."""
    folder = largest(root)
    ok(run, "bundle", root, "--to", "faceswap,dfl")
    (root / folder / "faces/000.png").unlink()
    away = shelf.src.rename(tmp_path / "away")
    try:
        ok(run, "optimize", root, "--no-bytes", "--no-near", "--no-audit")
    finally:
        away.rename(shelf.src)
    for kind, place in (("faceswap", "faceswap"), ("dfl", "dfl/aligned")):
        assert told_of(root, folder, kind)["left"] == {}
        pictures = list((root / folder / "exports" / place).iterdir())
        assert len(pictures) == len(faces_in(root, folder)) > 0
    assert_clean(run, root)


def test_options_of_the_pictures(run, root, shelf):
    folder = largest(root)
    ok(run, "bundle", root, "--to", "faceswap,dfl", "--faceswap-size", 256, "--dfl-face", "head",
       "--refeed", 2)  # fmt: skip
    here = root / folder / "exports"
    for path in (here / "faceswap").iterdir():
        assert cv2.imread(str(path)).shape == (256, 256, 3)
        told = np.array(png_facts(path)["alignments"]["landmarks_xy"])
        gap = np.abs(shelf.cache.landmark_3d_68[:, :, :2] - told).max(axis=(1, 2)).min()
        assert 0.01 < gap < 30  # near to what the cache has of the face, but not that
    for path in (here / "dfl/aligned").iterdir():
        assert cv2.imread(str(path)).shape == (768, 768, 3)
        assert jpeg_facts(path.read_bytes())["face_type"] == "head"
    assert_clean(run, root)


def with_cache(root: Path, path: Path) -> None:
    """Say that a corpus was made of another cache file."""
    for manifest in [root / "manifest.json", *root.glob("faceset_*/manifest.json")]:
        edit(manifest, lambda told: told.update(cache=str(path)))
    write_master(root)


def test_without_landmarks_a_corpus_says_so_until_they_are_there(run, root, shelf, tmp_path):
    bare = sf.replace(shelf.cache, landmark_3d_68=shelf.cache.landmark_3d_68 * np.nan)
    sf.save_cache(tmp_path / "lib.npz", bare)
    with_cache(root, tmp_path / "lib.npz")
    code, _, err = run("bundle", root, "--to", "dfl", "--json")
    assert code == 0 and "enrich" in err
    assert "no 68 landmarks" in told_of(root, largest(root), "dfl")["left"][""]
    assert not list(root.glob("faceset_*/exports/dfl/aligned/*"))
    assert_clean(run, root)
    sf.save_cache(tmp_path / "lib.npz", shelf.cache)  # as `enrich` leaves it
    ok(run, "bundle", root)
    assert list(root.glob("faceset_*/exports/dfl/aligned/*"))
    assert_clean(run, root)


def test_a_cache_that_is_away_takes_nothing_until_its_set_changes(run, root, shelf, tmp_path):
    folder, path = largest(root), tmp_path / "lib.npz"
    sf.save_cache(path, shelf.cache)
    with_cache(root, path)
    ok(run, "bundle", root, "--to", "faceswap")
    pictures = sorted((root / folder / "exports/faceswap").iterdir())
    path.unlink()
    assert_clean(run, root)
    ok(run, "optimize", root, "--no-bytes", "--no-near", "--no-audit")
    assert sorted((root / folder / "exports/faceswap").iterdir()) == pictures
    (root / folder / "faces/000.png").unlink()
    run("optimize", root, "--no-bytes", "--no-near", "--no-audit", "--json")
    assert "needs the cache" in told_of(root, folder, "faceswap")["left"][""]
    sf.save_cache(path, shelf.cache)
    ok(run, "bundle", root)
    assert len(list((root / folder / "exports/faceswap").iterdir())) == len(pictures) - 1
    assert_clean(run, root)


def test_an_added_png_is_left_out_with_the_reason(run, root):
    folder = largest(root)
    (root / folder / "faces/mine.png").write_bytes((root / folder / "faces/001.png").read_bytes())
    ok(run, "bundle", root, "--to", "faceswap")
    (why,) = told_of(root, folder, "faceswap")["left"].values()
    assert "no photo to cut it from" in why
