"""Aligned training pictures, cut from the photos as Faceswap and DeepFaceLab cut them.

`faceswap` writes head-centred PNGs whose iTXt chunk tells all that its alignments file would;
`dfl` writes JPEGs with its facts in APP15, and the same faces packed as faceset.pak. Both need 68
landmarks (iBUG order): those of the cache, or of several jittered boxes averaged (re-feed). Where
a face lies in a picture is for aligned_geometry. The formats: docs/consumers_aligned.md.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pickle
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import sort_faces as sf

consumers = sf.companion("consumers")
geometry = sf.companion("aligned_geometry")
Subject = consumers.Subject

NO_LANDMARKS = "no 68 landmarks; `enrich` finds them with buffalo_l, antelopev2 or dlib"
NO_PHOTO = "a PNG of the operator's; there is no photo to cut it from"
FACESWAP_SIZE = 512  # px; what its extractor writes
FACESWAP_VERSION = 2.4  # of its alignments, and of what the chunk may say
MASKS = {"components": False, "extended": True}  # {name there: with raised brows}
MASK_DRAWN, MASK_SIZE = 256, 128  # px; its plugins draw at the one and keep the other
DFL_SIZES = {"full_face": 512, "whole_face": 512, "head": 768}  # px; its extractor's defaults
DFL_NUMBERS = {"full_face": 2, "whole_face": 4, "head": 10}  # its FaceType, in a pack
DFL_QUALITY = 95  # of JPEG; its own default of 90 is for frames of films, of which there are more
DFL_SAMPLE = 1  # its SampleType.FACE
PICKLE_PROTOCOL = 4  # its Python is 3.6
DECIMALS = 3  # of a pixel, of landmarks; the maps are those of the landmarks as they are written

REFEED_SHIFT = 0.05  # share of the box's edge, chosen: what two detectors differ by
REFEED_SEED = 68  # any; the same faces give the same landmarks


Why = dict[str, str]  # {face left out: why}


@dataclass(frozen=True)
class AlignedFace:
    """A face and where it goes."""

    face: str  # id in the cache
    photo: str  # flattened name of the photo
    index: int  # among the exported faces of that photo
    points: np.ndarray  # (68, 2) float64, pixels of the upright photo
    bbox: np.ndarray  # (4,)
    wh: tuple[int, int]  # of the upright photo
    matrix: np.ndarray  # (2, 3), from the photo to the picture

    @property
    def stem(self) -> str:
        return f"{os.path.splitext(self.photo)[0]}_{self.index}"


class Form:
    """How a program has its aligned pictures: what a kind of export is made of."""

    ending: str
    size: int  # px

    def place(self, points: np.ndarray) -> np.ndarray:
        """(2, 3): where landmarks (68, 2) go."""
        raise NotImplementedError

    def told(self, face: AlignedFace) -> bytes:
        """The part of a file that says what it shows."""
        raise NotImplementedError

    def drawn(self, face: AlignedFace, image: np.ndarray) -> bytes:
        """The picture as a file, from the upright photo (h, w, 3) BGR; yet without that part."""
        raise NotImplementedError

    def joined(self, picture: bytes, told: bytes) -> bytes:
        """The file."""
        raise NotImplementedError

    def is_of_size(self, data: bytes) -> bool:
        """Whether a file written before has this form's size."""
        raise NotImplementedError

    def cut(self, face: AlignedFace, image: np.ndarray, method: int) -> np.ndarray:
        """(size, size, 3) uint8; black where the photo ends, as both programs have it."""
        return cv2.warpAffine(image, face.matrix, (self.size, self.size), flags=method)


class Photos:
    """The photos of a library, read when they are needed; the last one is held."""

    def __init__(self, library: sf.Library) -> None:
        self.library = library
        self.of = functools.lru_cache(1)(self.read)

    def read(self, file: int) -> np.ndarray | str:
        """(h, w, 3) uint8 BGR of a photo of the cache, or why there is none."""
        path = self.library.live_path(file)
        if not path:
            return sf.PHOTO_GONE
        try:
            return sf.read_photo(path, str(self.library.cache.file_sha256[file])).image
        except sf.PhotoError as error:
            return f"photo unreadable: {error}"


Landmarks = Callable[[int, Sequence[int]], "np.ndarray | str"]  # of a photo's faces, by row


def aligned_faces(
    library: sf.Library, rows: Iterable[int], form: Form, left: Why, landmarks: Landmarks
) -> Iterator[tuple[int, AlignedFace]]:
    """(photo, face) of the faces `rows` of a cache, photo by photo.

    Why a face has no place in the form is noted in `left`.
    """
    cache = library.cache
    by_photo = itertools.groupby(
        sorted(map(int, rows), key=lambda row: (cache.face_file[row], row)),
        key=lambda row: int(cache.face_file[row]),
    )
    photos = {file: list(some) for file, some in by_photo}
    names = flat_names(str(cache.file_path[file]) for file in photos)
    for file, some in photos.items():
        known = landmarks(file, some)
        numbers = itertools.count()
        for at, row in enumerate(some):
            face = cache.face_ids[row]
            if isinstance(known, str):
                left[face] = known
                continue
            points = known[at].astype(float).round(DECIMALS)
            matrix, why = placing(points, form)
            if matrix is None:
                left[face] = why
                continue
            name, wh = names[str(cache.file_path[file])], tuple(cache.file_wh[file].tolist())
            number = next(numbers)
            yield file, AlignedFace(face, name, number, points, cache.bbox[row], wh, matrix)


def placing(points: np.ndarray, form: Form) -> tuple[np.ndarray | None, str]:
    """The map of a face's landmarks; or None, and why there is none."""
    if not geometry.fits(points):
        return None, NO_LANDMARKS
    matrix = np.full((2, 3), np.nan)
    with contextlib.suppress(cv2.error):  # of landmarks on one line
        matrix = form.place(points)
    if np.isfinite(matrix).all() and geometry.scale_of(matrix) > 0:
        return matrix, ""
    return None, "its landmarks fit no head"


def known_landmarks(cache: sf.FaceCache) -> Landmarks:
    """Those of the cache."""
    return lambda _, rows: cache.landmark_3d_68[rows, :, :2]


def write_faces(
    folder: Path,
    faces: Iterable[tuple[int, AlignedFace]],
    form: Form,
    photos: Photos,
    left: Why,
    earlier: Path | None = None,
) -> dict[Path, AlignedFace]:
    """Write the pictures of faces; those that `earlier` has of just these are taken over.

    Without its photo, too: a face that cannot be cut any more is not lost when its set changes.
    """
    written = {}
    for file, face in faces:
        name, told = f"{face.stem}{form.ending}", form.told(face)
        data = taken_over(earlier / name, form, told) if earlier else b""
        if not data:
            image = photos.of(file)
            if isinstance(image, str):
                left[face.face] = image
                continue
            data = form.joined(form.drawn(face, image), told)
        sf.write_part(folder / name, data)
        written[folder / name] = face
    return written


def taken_over(path: Path, form: Form, told: bytes) -> bytes:
    """A file written before that tells just this, or b""."""
    with contextlib.suppress(OSError):
        data = path.read_bytes()
        if told in data and form.is_of_size(data):
            return data
    return b""


def flat_names(paths: Iterable[str]) -> dict[str, str]:
    """{path: name} as raw trees flatten paths; no two names differ in case or suffix alone.

    Faces are named after the stem, and one folder holds those of all photos.
    """
    names, taken = {}, set()
    for path in sorted(paths):
        name = sf.safe_dst_name(path)
        stem, suffix = os.path.splitext(name)
        if stem.casefold() in taken:
            stem = f"{stem}-{sf.path_mark(path)}"
        taken.add(stem.casefold())
        names[path] = stem + suffix
    return names


def encoded(ending: str, image: np.ndarray, *settings: int) -> bytes:
    return cv2.imencode(ending, image, settings)[1].tobytes()


# --- re-feed ----------------------------------------------------------------


def refed_landmarks(engine: sf.Engine, photos: Photos, times: int) -> Landmarks:
    """Landmarks of a face's box and of `times` jittered ones, averaged, by an engine's models."""
    if not engine.has_landmarks:
        raise sf.SortFacesError(f"--refeed: --model {engine.model} has no landmark models")
    cache = photos.library.cache

    def found(file: int, rows: Sequence[int]) -> np.ndarray | str:
        image = photos.of(file)
        if isinstance(image, str):
            return image
        boxes = np.concatenate([jittered(cache.bbox[row], cache.face_ids[row], times)
                                for row in rows])  # fmt: skip
        every = np.repeat(rows, times + 1)
        seen = sf.Detections(boxes, cache.det_score[every], cache.kps[every])
        points = engine.landmarks(image, seen)["landmark_3d_68"][:, :, :2]
        return points.reshape(len(rows), times + 1, geometry.LANDMARKS, 2).mean(axis=1, dtype=float)

    return found


def jittered(bbox: np.ndarray, face: str, times: int) -> np.ndarray:
    """(times + 1, 4) float32: a box (4,) and others, moved and grown by REFEED_SHIFT at most.

    The same for the same face in every run.
    """
    random = np.random.default_rng([REFEED_SEED, zlib.crc32(face.encode())])
    shifts = random.uniform(-REFEED_SHIFT, REFEED_SHIFT, (times, 4))
    edges = np.tile(bbox[2:] - bbox[:2], 2)
    return (bbox + np.vstack([np.zeros(4), shifts]) * edges).astype(np.float32)


# --- Faceswap ---------------------------------------------------------------


class Faceswap(Form):
    """Head-centred PNGs with an iTXt chunk."""

    ending = ".png"

    def __init__(self, size: int = FACESWAP_SIZE) -> None:
        self.size = size

    def place(self, points: np.ndarray) -> np.ndarray:
        return geometry.faceswap_matrix(points, self.size)

    def told(self, face: AlignedFace) -> bytes:
        """The chunk: facts as a Python literal, as faceswap reads them."""
        body = b"iTXt" + b"faceswap" + bytes(5) + str(faceswap_facts(face)).encode()
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

    def drawn(self, face: AlignedFace, image: np.ndarray) -> bytes:
        grows = geometry.scale_of(face.matrix) >= 1
        return encoded(".png", self.cut(face, image, cv2.INTER_CUBIC if grows else cv2.INTER_AREA))

    def joined(self, picture: bytes, told: bytes) -> bytes:
        at = picture.index(b"IDAT") - 4  # right before the first
        return picture[:at] + told + picture[at:]

    def is_of_size(self, data: bytes) -> bool:
        return struct.unpack(">II", data[16:24]) == (self.size, self.size)


def faceswap_facts(face: AlignedFace) -> dict[str, Any]:
    """What the chunk tells: plain numbers and bytes, no key that faceswap does not know."""
    x1, y1, x2, y2 = np.rint(face.bbox).astype(int).tolist()
    masks = {name: mask_facts(face.points, extended) for name, extended in MASKS.items()}
    alignments = {"x": x1, "y": y1, "w": x2 - x1, "h": y2 - y1}
    alignments |= {"landmarks_xy": face.points.tolist(), "mask": masks, "identity": {}}
    source = {
        "alignments_version": FACESWAP_VERSION,
        "original_filename": f"{face.stem}.png",
        "face_index": face.index,
        "source_filename": face.photo,
        "source_is_video": False,
        "source_frame_dims": face.wh[::-1],
    }
    return {"alignments": alignments, "source": source}


def mask_facts(points: np.ndarray, extended: bool) -> dict[str, Any]:
    """A mask by landmarks as faceswap stores it: face-centred, with the map from the photo."""
    drawn = geometry.faceswap_matrix(points, MASK_DRAWN, "face")
    mask = geometry.landmark_mask(geometry.transformed(drawn, points), MASK_DRAWN, extended)
    small = cv2.resize(mask, (MASK_SIZE, MASK_SIZE), interpolation=cv2.INTER_AREA)
    matrix = geometry.faceswap_matrix(points, MASK_SIZE, "face")
    back = cv2.INTER_AREA if geometry.scale_of(matrix) >= 1 else cv2.INTER_CUBIC
    return {
        "mask": zlib.compress(small.tobytes()),
        "affine_matrix": matrix.tolist(),
        "interpolator": back,  # to lay it over the photo again
        "stored_size": MASK_SIZE,
        "stored_centering": "face",
    }


# --- DeepFaceLab ------------------------------------------------------------


class DeepFaceLab(Form):
    """JPEGs of one of its face types, with facts in an APP15 segment."""

    ending = ".jpg"

    def __init__(self, face_type: str, size: int = 0) -> None:
        """size: 0 is its own default for the face type."""
        self.face_type, self.size = face_type, size or DFL_SIZES[face_type]

    def place(self, points: np.ndarray) -> np.ndarray:
        return geometry.dfl_matrix(points, self.size, self.face_type)

    def told(self, face: AlignedFace) -> bytes:
        """The segment: a pickle of plain lists and numbers, so that it loads with any numpy."""
        told = pickle.dumps(self.facts(face), PICKLE_PROTOCOL)
        return b"\xff\xef" + struct.pack(">H", len(told) + 2) + told

    def facts(self, face: AlignedFace) -> dict[str, Any]:
        return {
            "face_type": self.face_type,
            "landmarks": geometry.transformed(face.matrix, face.points).tolist(),
            "source_filename": face.photo,
            "source_rect": np.rint(face.bbox).astype(int).tolist(),
            "source_landmarks": face.points.tolist(),
            "image_to_face_mat": face.matrix.tolist(),
        }

    def drawn(self, face: AlignedFace, image: np.ndarray) -> bytes:
        picture = self.cut(face, image, cv2.INTER_LANCZOS4)
        return encoded(".jpg", picture, cv2.IMWRITE_JPEG_QUALITY, DFL_QUALITY)

    def joined(self, picture: bytes, told: bytes) -> bytes:
        at = 4 + struct.unpack(">H", picture[4:6])[0]  # after SOI and JFIF's APP0
        return picture[:at] + told + picture[at:]

    def is_of_size(self, data: bytes) -> bool:
        return True  # the map it tells of is that of the size

    def config(self, path: Path, face: AlignedFace, person: str) -> dict[str, Any]:
        """What a pack tells of one picture, in plain types."""
        facts = self.facts(face)
        return {
            "sample_type": DFL_SAMPLE,
            "filename": path.name,
            "face_type": DFL_NUMBERS[self.face_type],
            "shape": [self.size, self.size, 3],
            "landmarks": facts["landmarks"],
            "eyebrows_expand_mod": 1.0,
            "source_filename": facts["source_filename"],
            "person_name": person,
        }


def write_pack(path: Path, pictures: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """Write a faceset.pak of (JPEG, its config): version, configs, offsets, bytes."""
    configs = pickle.dumps([dict(config) for _, config in pictures], PICKLE_PROTOCOL)
    sizes = [jpeg.stat().st_size for jpeg, _ in pictures]
    offsets = itertools.accumulate(sizes, initial=0)
    with sf.writing(path, sync=False) as part, part.open("wb") as stream:
        stream.write(struct.pack("<QQ", 1, len(configs)) + configs)
        stream.write(struct.pack(f"<{len(sizes) + 1}Q", *offsets))
        for jpeg, _ in pictures:
            stream.write(jpeg.read_bytes())


# --- kinds of export --------------------------------------------------------


def write_faceswap(folder: Path, subject: Subject, options: dict[str, Any]) -> Why:
    """The pictures of one face set for Faceswap."""
    form = Faceswap(options.get("faceswap_size") or FACESWAP_SIZE)
    return write_set(folder, "faceswap", subject, form, options)[1]


def write_dfl(folder: Path, subject: Subject, options: dict[str, Any]) -> Why:
    """The pictures of one face set for DeepFaceLab, in `aligned`; and packed, in `packed`.

    Apart, as it looks no further where a pack lies beside pictures: who deletes some of those
    would have trained with them all the same.
    """
    form = DeepFaceLab(options.get("dfl_face") or "whole_face", options.get("dfl_size") or 0)
    written, left = write_set(folder / "aligned", "dfl/aligned", subject, form, options)
    if written:
        configs = [(path, form.config(path, face, subject.name)) for path, face in written.items()]
        write_pack(folder / "packed" / "faceset.pak", configs)
    return left


def write_set(
    folder: Path, below: str, subject: Subject, form: Form, options: dict[str, Any]
) -> tuple[dict[Path, AlignedFace], Why]:
    """(pictures, {file of a face, or "" for all: why it is left out}) of one face set.

    below: where its earlier self has them, in its exports.
    """
    if subject.cache is None:
        return {}, {"": consumers.NO_CACHE}
    photos, left = Photos(consumers.library_of(subject.corpus)), {}
    files = {face.face: face.file for face in subject.faces}
    rows = {face.face: subject.row(face) for face in subject.faces}
    left |= {face: NO_PHOTO for face, row in rows.items() if row is None}
    landmarks = known_landmarks(subject.cache)
    if options.get("refeed"):
        landmarks = refed_landmarks(landmark_engine(subject.cache.meta), photos, options["refeed"])
    known = [row for row in rows.values() if row is not None]
    faces = aligned_faces(photos.library, known, form, left, landmarks)
    earlier = subject.earlier / sf.EXPORTS_FOLDER / below if subject.earlier else None
    written = write_faces(folder, faces, form, photos, left, earlier)
    if not written and left:
        return {}, {"": next(iter(left.values()))}
    return written, {files[face]: why for face, why in left.items()}


def lacking(corpus: sf.Corpus, manifest: sf.FacesetManifest) -> list[str] | None:
    """The faces of a set whose landmarks the cache lacks; None where the cache is not there."""
    if corpus.cache is None:
        return None
    rows = sf.rows_of_faces(corpus.cache, (face.face for face in manifest.faces))
    points = corpus.cache.landmark_3d_68
    return [corpus.cache.face_ids[row] for row in rows if not geometry.fits(points[row, :, :2])]


ENGINES: dict[sf.EngineSpec, sf.Engine] = {}  # of this process, for re-feed


def landmark_engine(meta: sf.CacheMeta) -> sf.Engine:
    """The engine a cache was made with, loaded when it is first needed."""
    model = meta.model_source or meta.model
    spec = sf.with_engine_of(sf.EngineSpec(model=model, landmarks=True), meta)
    with sf.LOADING:
        if spec not in ENGINES:
            ENGINES[spec] = sf.load_engine(spec)
        return ENGINES[spec]
