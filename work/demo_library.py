"""The photo library of `demo`, made out of one group photo, and the means to make more like it.

A companion of sort_faces.py, loaded by `demo`; the tests make their photos with it, too.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

import sort_faces as sf

VARIANTS = 18  # photos per person
PICTURES = 115  # photos in all
EDGE = 420  # px; edge of a made photo before it is scaled

# The six people of t1.jpg, the group photo inside the insightface package: x1 y1 x2 y2 pixels.
DEMO_FACES = {
    "anna": (59, 263, 169, 396),
    "bert": (269, 147, 371, 265),
    "cleo": (465, 265, 573, 416),
    "dora": (746, 339, 846, 481),
    "emil": (905, 54, 1013, 204),
    "finn": (1131, 271, 1226, 399),
}


def demo_photo() -> bytes:
    """The group photo that ships inside the insightface package."""
    spec = importlib.util.find_spec("insightface")
    path = Path(spec.origin).parent / "data" / "images" / "t1.jpg" if spec else None
    if path is None or not path.exists():
        error = ModuleNotFoundError("No module named 'insightface'")
        raise sf.SortFacesError(sf.package_hint(error))
    return path.read_bytes()


def demo_pictures() -> dict[str, bytes]:
    """{path: bytes} of photos of six people with what real libraries hold.

    That is copies, a photo turned by its EXIF orientation, one without a face, a broken one.
    """
    source = demo_photo()
    group = cv2.imdecode(np.frombuffer(source, np.uint8), cv2.IMREAD_COLOR)
    rng = np.random.default_rng(7)
    pictures: dict[str, bytes] = {"2019/group.jpg": source, "backup/group (copy).jpg": source}
    for name, box in DEMO_FACES.items():
        for number in range(VARIANTS):
            image = demo_variant(group, np.array(box, np.float32), rng)
            path = f"{2012 + number % 9}/{name}_{20120101 + number % 9 * 10000}_{number:02d}.jpg"
            pictures[path] = encode_jpeg(image, int(rng.integers(80, 96)))
    some = sorted(pictures)
    pictures["backup/Übersicht ☀ 日本.jpg"] = pictures[some[3]]  # a byte-identical copy
    turned = sf.turn_upright(cv2.imdecode(np.frombuffer(pictures[some[5]], np.uint8), 1), 8)
    pictures["2020/turned by the camera.jpg"] = with_orientation(encode_jpeg(turned, 90), 6)
    pictures["2020/half group.jpg"] = encode_jpeg(cv2.resize(group, None, fx=0.75, fy=0.75), 90)
    pictures["2020/no face.png"] = cv2.imencode(
        ".png", np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 320, 3))
    )[1].tobytes()
    pictures["2020/broken.jpg"] = b"\xff\xd8\xff\xe0 this is no picture"
    return pictures


def missing_pictures(folder: Path) -> dict[Path, bytes]:
    """{path: bytes} of the demo's photos that are not in a folder, or not as they should be."""
    pictures = {folder / name: data for name, data in demo_pictures().items()}
    return {
        path: data
        for path, data in pictures.items()
        if not path.exists() or path.read_bytes() != data
    }


def demo_variant(group: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One face of the group as another photo: own frame, tilt, perspective, light and noise."""
    edge = float(np.max(box[2:] - box[:2]))
    middle = (box[:2] + box[2:]) / 2
    reach = edge * rng.uniform(0.85, 1.25)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32) * reach
    tilt = math.radians(rng.uniform(-20, 20))
    turn = np.array([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]])
    corners = corners @ turn.T + middle + rng.uniform(-0.2, 0.2, (4, 2)) * edge
    target = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * EDGE
    warp = cv2.getPerspectiveTransform(corners.astype(np.float32), target)
    image = cv2.warpPerspective(
        group, warp, (EDGE, EDGE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    if rng.random() < 0.5:
        image = image[:, ::-1]
    light = (image / 255.0) ** rng.uniform(0.45, 2.2) * rng.uniform(0.8, 1.2, 3)
    noisy = light * 255.0 + rng.normal(0, rng.uniform(1, 6), image.shape)
    image = np.clip(noisy, 0, 255).astype(np.uint8)
    scale = rng.uniform(0.8, 1.6)
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def crowd(count: int) -> np.ndarray:
    """(h, w, 3) uint8 BGR: a sheet with this many faces of the group, in rows, upright."""
    group = cv2.imdecode(np.frombuffer(demo_photo(), np.uint8), cv2.IMREAD_COLOR)
    columns = math.ceil(math.sqrt(count))
    sheet = np.full((math.ceil(count / columns) * EDGE, columns * EDGE, 3), 128, np.uint8)
    boxes = list(DEMO_FACES.values())
    for at in range(count):
        box = np.array(boxes[at % len(boxes)], np.float32)
        corner, reach = (box[:2] + box[2:]) / 2, float(np.max(box[2:] - box[:2]))
        move = np.array([[1, 0, reach], [0, 1, reach]]) * (EDGE / (2 * reach))
        move[:, 2] -= corner * (EDGE / (2 * reach))
        y, x = at // columns * EDGE, at % columns * EDGE
        sheet[y : y + EDGE, x : x + EDGE] = cv2.warpAffine(
            group, move, (EDGE, EDGE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )
    return sheet


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Put an EXIF orientation into a JPEG without touching its pixels."""
    exif = PIL.Image.Exif()
    exif[sf.EXIF_ORIENTATION] = orientation
    block = exif.tobytes()
    return jpeg[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]
