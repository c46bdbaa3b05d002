"""What people wear before their faces, drawn on photos: what the occlusion network learns from.

A companion of occlusion_train.py and of tests/bench/measure_occlusion.py. A face is laid on a
canvas in about twice the size of its photo; what is drawn stands in space (x along the eyes, y
down, z towards the camera, in distances of the eyes), is turned like the head, lit like the face
and softened like the photo. Mirrors and prints are pieces of other photos.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

import sort_faces as sf

landmarks = sf.companion("landmark_scorer")
SCALE = 2  # canvas px per px of the aligned 112 px face; small photos are enlarged, then drawn on
BORDER = 12  # px of the aligned face around it on the canvas, to shift and turn it later
SIDE = (112 + 2 * BORDER) * SCALE  # px; edge of the canvas
NOSE_DEPTH = 0.5  # of the distance of the eyes; how far the tip of a nose stands before them
MOST_TURNED = 0.8  # radians; beyond, the eyes say too little of the turn

Points = Sequence[Sequence[float]]
Colour = np.ndarray  # (3,) or (h, w, 3) float32 BGR, 0 to 255


@dataclass(frozen=True)
class Head:
    """A face on its canvas, with coordinates of its own."""

    canvas: np.ndarray  # (SIDE, SIDE, 3) float32 BGR, changed in place
    rng: np.random.Generator
    prints: Sequence[np.ndarray]  # photos (h, w, 3) uint8 to cut reflections and patterns from
    origin: np.ndarray  # (2,) px; between the eyes
    right: np.ndarray  # (2,) unit vector along the eyes
    down: np.ndarray  # (2,) unit vector towards the mouth
    unit: float  # px; distance of the eyes seen from the front
    yaw: float  # radians; positive: the nose points along `right`
    nod: float  # radians
    mouth: float  # y of the mouth
    soft: float  # px; how unsharp the photo is on the canvas

    def place(self, points: Points) -> np.ndarray:
        """Points in space (n, 3) as pixels (n, 2)."""
        x, y, z = np.asarray(points, float).T
        across = x * np.cos(self.yaw) + z * np.sin(self.yaw)
        along = y * np.cos(self.nod) + z * np.sin(self.nod)
        return self.origin + self.unit * (across[:, None] * self.right + along[:, None] * self.down)

    @functools.cached_property
    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """(SIDE, SIDE) face coordinates x and y of every pixel, as on a plane before the face."""
        ys, xs = np.indices(self.canvas.shape[:2], np.float32)
        dx, dy = (xs - self.origin[0]) / self.unit, (ys - self.origin[1]) / self.unit
        return dx * self.right[0] + dy * self.right[1], dx * self.down[0] + dy * self.down[1]

    def area(self, outline: np.ndarray, softness: float = 1.0) -> np.ndarray:
        """(SIDE, SIDE) float32 in [0, 1]: what lies inside a polygon (n, 2) of pixels."""
        inside = np.zeros(self.canvas.shape[:2], np.uint8)
        cv2.fillPoly(inside, [np.rint(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        return soften(inside / np.float32(255), self.soft * softness)

    def stroke(self, points: np.ndarray, width: float, closed: bool = False) -> np.ndarray:
        """(SIDE, SIDE) float32 in [0, 1]: a line through pixels (n, 2)."""
        line = np.zeros(self.canvas.shape[:2], np.uint8)
        thick, dots = max(1, round(width)), [np.rint(points * 16).astype(np.int32)]
        cv2.polylines(line, dots, closed, 255, thick, cv2.LINE_AA, 4)
        return soften(line / np.float32(255), self.soft)

    def paint(self, colour: Colour, alpha: np.ndarray) -> None:
        self.canvas[:] += (colour - self.canvas) * alpha[..., None]

    def tint(self, factor: Colour, alpha: np.ndarray) -> None:
        """Let the light through that a coloured glass lets through: factor in [0, 1]."""
        self.canvas[:] *= 1 - (1 - factor) * alpha[..., None]

    def light(self) -> np.ndarray:
        """(SIDE, SIDE) float32: how the face is lit, about 1; darker towards its shaded side."""
        small = cv2.resize(
            self.canvas.mean(axis=2), None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA
        )
        small = cv2.GaussianBlur(small, (0, 0), 0.05 * self.unit)
        grey = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        middle = self.area(self.place([[-0.8, -0.4, 0], [0.8, -0.4, 0], [0.8, 1.6, 0],
                                       [-0.8, 1.6, 0]])) > 0.5  # fmt: skip
        lit = float(grey[middle].mean()) if middle.any() else 120.0
        return np.clip(grey / max(lit, 20.0), 0.35, 1.7) * np.clip(lit / 130, 0.35, 1.25)

    def skin(self) -> np.ndarray:
        """(3,) median colour of forehead and cheeks."""
        dots = self.place([[0, -0.45, 0.2], [-0.55, 0.5, 0.1], [0.55, 0.5, 0.1], [0, 0.2, 0.3]])
        spots = [self.canvas[slice(max(0, y - 4), y + 5), slice(max(0, x - 4), x + 5)]
                 for x, y in np.clip(np.rint(dots).astype(int), 0, SIDE - 1)]  # fmt: skip
        return np.median(np.concatenate([spot.reshape(-1, 3) for spot in spots]), axis=0)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))


def soften(alpha: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(alpha, (0, 0), sigma) if sigma > 0.2 else alpha


def lay_out(image: np.ndarray, kps: np.ndarray) -> np.ndarray:
    """(2, 3) affine from the photo to the canvas: the least-squares fit of aligned_face."""
    place = landmarks.placement(kps)
    return SCALE * (place + np.array([[0, 0, BORDER], [0, 0, BORDER]]))


def head_of(
    image: np.ndarray, kps: np.ndarray, rng: np.random.Generator, prints: Sequence[np.ndarray]
) -> Head:
    """A face with key points (5, 2) px of a photo (h, w, 3) uint8 BGR, on a canvas."""
    place = lay_out(image, kps)
    canvas = cv2.warpAffine(
        image, place, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    points = kps.astype(float) @ place[:, :2].T + place[:, 2]
    across = points[1] - points[0]
    seen = float(np.linalg.norm(across))
    right = across / seen
    down = np.array([-right[1], right[0]])
    eyes = points[:2].mean(axis=0)
    yaw = float(np.arctan((points[2] - eyes) @ right / seen / NOSE_DEPTH))
    yaw = float(np.clip(yaw, -MOST_TURNED, MOST_TURNED))
    mouth = float((points[3:].mean(axis=0) - eyes) @ down) / seen * np.cos(yaw)
    zoom = float(np.sqrt(abs(np.linalg.det(place[:, :2]))))
    return Head(
        canvas.astype(np.float32), rng, prints, eyes, right, down, seen / np.cos(yaw), yaw,
        float(rng.uniform(-0.12, 0.12)), float(np.clip(mouth, 0.8, 1.5)),
        float(np.clip(0.45 * zoom * rng.uniform(0.6, 1.4), 0.5, 3.0)),
    )  # fmt: skip


# ---------------------------------------------------------------- surfaces


def pick(rng: np.random.Generator, choices: Sequence) -> np.ndarray:
    return np.array(choices[rng.integers(len(choices))], np.float32)


def photo_piece(head: Head) -> np.ndarray:
    """(SIDE, SIDE, 3) float32 piece of another photo, enlarged or repeated."""
    rng = head.rng
    photo = head.prints[rng.integers(len(head.prints))]
    h, w = photo.shape[:2]
    edge = int(min(h, w) * rng.uniform(0.15, 0.7))
    x, y = rng.integers(w - edge + 1), rng.integers(h - edge + 1)
    piece = photo[y : y + edge, x : x + edge][:, :: 1 if head.chance(0.5) else -1]
    side = int(SIDE * rng.uniform(0.15, 0.6))
    piece = cv2.resize(piece, (side, side), interpolation=cv2.INTER_AREA)
    times = -(-SIDE // side)
    return np.tile(piece, (times, times, 1))[:SIDE, :SIDE].astype(np.float32)


def cloud(head: Head, size: float) -> np.ndarray:
    """(SIDE, SIDE) float32 smooth noise in [-1, 1]; size: of its spots in face coordinates."""
    cells = max(2, int(SIDE / (size * head.unit)))
    noise = head.rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def any_colour(rng: np.random.Generator, dull: float = 0.5) -> np.ndarray:
    """(3,) BGR; dull: how near to grey on average."""
    hue, light = rng.uniform(0, 180), rng.uniform(20, 245)
    strong = 255 * rng.uniform(0, 1) ** (1 + 3 * dull)
    one = np.array([[[hue, strong, light]]], np.float32).round().astype(np.uint8)
    return cv2.cvtColor(one, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)


def pattern(head: Head) -> np.ndarray:
    """(SIDE, SIDE, 3) printed cloth: stripes, checks, dots, blots, flowers or a photo."""
    rng = head.rng
    x, y = head.coordinates
    turn = rng.uniform(0, np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    period = rng.uniform(0.08, 0.4)
    kind = rng.choice(["stripes", "checks", "dots", "blots", "letters", "photo", "photo"])
    if kind == "photo":
        return photo_piece(head)
    one, two = any_colour(rng, 0.2), any_colour(rng, 0.4)
    if kind == "stripes":
        mix = (u / period % 1 < rng.uniform(0.2, 0.7)).astype(np.float32)
    elif kind == "checks":
        mix = 0.5 * (u / period % 1 < 0.5) + 0.5 * (v / period % 1 < 0.5)
    elif kind == "dots":
        size = rng.uniform(0.2, 0.42)
        mix = ((u / period % 1 - 0.5) ** 2 + (v / period % 1 - 0.5) ** 2 < size**2) * 1.0
    elif kind == "blots":
        mix = (cloud(head, period) > rng.uniform(-0.2, 0.4)).astype(np.float32)
    else:  # letters, a logo, a snout: a few dark or light marks in the middle
        marks = np.zeros((SIDE, SIDE), np.uint8)
        for _ in range(rng.integers(1, 6)):
            at = head.place([[rng.uniform(-0.5, 0.5), head.mouth + rng.uniform(-0.3, 0.4), 0.3]])[0]
            text = "".join(rng.choice(list("ABCEHKMNORSTXZ38*o-w"), rng.integers(1, 5)))
            size = rng.uniform(0.5, 2.0)
            cv2.putText(marks, text, tuple(int(p) for p in at), cv2.FONT_HERSHEY_DUPLEX, size, 255,
                        int(rng.integers(1, 6)), cv2.LINE_AA)  # fmt: skip
        mix = marks / np.float32(255)
    mix = cv2.GaussianBlur(mix.astype(np.float32), (0, 0), 1.0)[..., None]
    return one * mix + two * (1 - mix)


PLAIN_CLOTHS = (  # BGR: white, pale blue, blue, green, black, navy, grey, pink
    (245, 245, 245), (235, 240, 240), (235, 215, 180), (220, 190, 130), (200, 160, 90),
    (190, 215, 165), (28, 28, 28), (18, 18, 20), (40, 36, 36), (60, 40, 30), (120, 120, 120),
    (180, 180, 180), (205, 190, 240), (160, 130, 230), (90, 90, 170), (250, 230, 215),
)  # fmt: skip


def cloth(head: Head) -> np.ndarray:
    """(SIDE, SIDE, 3) unlit cloth: plain, coloured, like skin, or printed."""
    kind = head.rng.choice(["plain", "colour", "skin", "print"], p=[0.5, 0.12, 0.1, 0.28])
    if kind == "print":
        return pattern(head)
    if kind == "skin":
        colour = head.skin() * head.between(0.8, 1.3) + head.rng.uniform(-20, 20, 3)
    else:
        colour = pick(head.rng, PLAIN_CLOTHS) if kind == "plain" else any_colour(head.rng, 0.1)
    grain = head.rng.normal(0, head.between(0, 4), (SIDE, SIDE, 1))
    return np.clip(colour + grain + 8 * cloud(head, 0.5)[..., None], 0, 255).astype(np.float32)


# ---------------------------------------------------------------- glasses

FRAMES = (  # BGR: black, tortoise, white, gold, silver, red, blue, clear plastic
    (15, 15, 15), (20, 20, 20), (30, 45, 70), (20, 35, 90), (240, 240, 240), (225, 225, 230),
    (90, 160, 200), (190, 190, 195), (50, 40, 190), (180, 90, 40), (200, 190, 180), (140, 60, 170),
)  # fmt: skip


@dataclass(frozen=True)
class Glasses:
    """Where lenses and frame lie, in pixels of a canvas."""

    lenses: list[np.ndarray]  # (n, 2) each
    bridge: np.ndarray  # (k, 2)
    temples: list[np.ndarray]  # (k, 2) each
    top: float  # y of the upper edge of the lenses
    height: float


def outline_of_lens(head: Head, width: float, height: float) -> np.ndarray:
    """(48, 2) outline of a right lens about its middle; x away from the nose."""
    rng, turn = head.rng, np.linspace(0, 2 * np.pi, 48, endpoint=False)
    power = rng.choice([1.0, 0.8, 0.6, 0.45])
    x, y = (np.sign(part) * np.abs(part) ** power for part in (np.cos(turn), np.sin(turn)))
    below, above = np.maximum(y, 0), np.maximum(-y, 0)
    style = rng.choice(["even", "aviator", "cat eye", "wayfarer"])
    if style == "aviator":
        x = x * (1 - 0.25 * below) + 0.1 * below
        y = y + 0.12 * below * (x > 0)
    elif style == "cat eye":
        x, y = x * (1 - 0.15 * below), y - rng.uniform(0.15, 0.45) * above * np.maximum(x, 0)
    elif style == "wayfarer":
        x = x * (1 - 0.12 * below)
    return np.stack([x * width / 2, y * height / 2], axis=1)


def fit_glasses(head: Head, drop: float) -> Glasses:
    """Lenses before both eyes, or one shield, `drop` below them."""
    rng = head.rng
    width = head.between(0.6, 0.8) if head.chance(0.2) else head.between(0.8, 1.12)
    height = width * head.between(0.5, 0.95)
    tilt = head.between(-0.05, 0.05)  # not straight on the nose
    depth, wrap = head.between(0.1, 0.3), head.between(0.05, 0.3)

    def placed(flat: np.ndarray) -> np.ndarray:
        x, y = flat[:, 0], flat[:, 1] + drop + tilt * flat[:, 0]
        return head.place(np.stack([x, y, depth - wrap * x**2], axis=1))

    if rng.random() < 0.08:
        shield = outline_of_lens(head, width + 1.05, 0.8 * height)
        lenses = [placed(shield)]
    else:
        lens, apart = outline_of_lens(head, width, height), 0.5 + head.between(-0.02, 0.08)
        apart = max(apart, width / 2 + 0.06)
        lenses = [placed(lens * (side, 1) + (side * apart, 0)) for side in (-1, 1)]
    high, inner = -head.between(0.05, 0.4) * height, head.between(0.06, 0.16)
    bridge = placed(np.array([[-inner, high], [0, high - 0.04], [inner, high]]))
    outer = 0.5 + width / 2
    temples = []
    for side in (-1, 1):
        hinge = placed(np.array([[side * outer, high]]))
        ear = head.place([[side * 1.12, drop + high * 0.5 + tilt * side, -1.1]])
        temples.append(np.concatenate([hinge, ear]))
    return Glasses(lenses, bridge, temples, drop - height / 2, height)


def draw_frame(head: Head, glasses: Glasses, thin: bool = False) -> None:
    """Rims or half rims, bridge and temples, of metal, plastic or something printed."""
    rng = head.rng
    colour = pick(rng, FRAMES) if head.chance(0.8) else any_colour(rng, 0.1)
    surface = colour * np.clip(0.7 + 0.3 * head.light(), 0.5, 1.2)[..., None]
    if head.chance(0.1):
        surface = pattern(head)
    thick = head.unit * (head.between(0.012, 0.04) if thin or head.chance(0.5)
                         else head.between(0.04, 0.14))  # fmt: skip
    shadow = head.stroke(np.concatenate(glasses.lenses) + np.array([0, 0.06 * head.unit]), thick)
    head.tint(np.full(3, 0.85, np.float32), cv2.GaussianBlur(shadow, (0, 0), 3) * 0.5)
    solid = head.between(0.4, 0.9) if head.chance(0.06) else 1.0
    if solid == 1.0 or head.chance(0.9):
        for lens in glasses.lenses:
            if thin or head.chance(0.85):
                head.paint(surface, solid * head.stroke(lens, thick, closed=True))
            else:  # half rims: the upper edge alone
                head.paint(surface, head.stroke(lens[lens[:, 1] < lens[:, 1].mean()], thick))
    head.paint(surface, solid * head.stroke(glasses.bridge, thick))
    for side, temple in zip((-1, 1), glasses.temples, strict=True):
        if side * head.yaw < 0.35:  # the side turned away hides its temple
            head.paint(surface, solid * head.stroke(temple, thick))


def scenery(head: Head, glasses: Glasses) -> np.ndarray:
    """(SIDE, SIDE, 3) what a mirror shows: sky over ground, a photo, or a sheen of colours."""
    rng = head.rng
    _, y = head.coordinates
    down = np.clip((y - glasses.top) / glasses.height, 0, 1)[..., None]
    first, last = any_colour(rng, 0.0), any_colour(rng, 0.0)
    kind = rng.choice(["landscape", "photo", "sheen"])
    if kind == "photo":
        tone = any_colour(rng, 0.2)
        return photo_piece(head) * (0.4 + 0.6 * tone / max(60.0, float(tone.max())))
    if kind == "sheen":
        return first * (1 - down) + last * down + 25 * cloud(head, 0.4)[..., None]
    horizon = rng.uniform(0.35, 0.8) + 0.06 * cloud(head, 0.15)
    sky = np.clip(first * 0.5 + 110 + 60 * (down - 0.5), 0, 255)
    ground = last * rng.uniform(0.2, 0.6) + 20 * cloud(head, 0.1)[..., None]
    return np.where(down[..., 0] < horizon, sky.transpose(2, 0, 1), ground.transpose(2, 0, 1)
                    ).transpose(1, 2, 0)  # fmt: skip


def draw_glints(head: Head, lenses: Sequence[np.ndarray], strength: float) -> None:
    """Light of a window or the sky on the glass."""
    rng = head.rng
    size, at = rng.uniform(0.1, 0.4), rng.uniform(-0.2, 0.2, 2)
    shape = rng.choice(["window", "streak", "spot"])
    for lens in lenses:
        inside = head.area(lens)
        middle = lens.mean(axis=0) + at * head.unit
        if shape == "streak":
            along = np.array([rng.uniform(0.1, 0.3), -1.0]) * head.unit
            glint = head.stroke(np.stack([middle - along, middle + along]), size * 0.4 * head.unit)
        else:
            corners = np.array([[-1, -1], [0.8, -1.1], [0.9, 0.7], [-0.9, 0.8]])
            wide = (0.6, 1.0) if shape == "window" else (0.35, 0.35)
            glint = head.area(middle + corners * size * np.array(wide) * head.unit * 0.6)
        glint = cv2.GaussianBlur(glint, (0, 0), rng.uniform(1, 5))
        head.paint(np.array([250, 245, 240], np.float32), glint * inside * strength)


def fill_lenses(head: Head, glasses: Glasses) -> None:
    """Dark, gradient, tinted or mirrored sunglasses."""
    rng = head.rng
    kind = rng.choice(["dark", "gradient", "tint", "mirror"], p=[0.38, 0.18, 0.14, 0.3])
    _, y = head.coordinates
    down = np.clip((y - glasses.top) / glasses.height, 0, 1)
    inside = np.max([head.area(lens) for lens in glasses.lenses], axis=0)
    hue = any_colour(rng, 0.6)
    hue = hue / max(float(hue.max()), 1.0)
    if kind == "dark":
        head.tint(hue * rng.uniform(0.0, 0.25), inside)
        head.paint(hue * rng.uniform(5, 50), inside * rng.uniform(0.4, 0.9))
    elif kind == "gradient":
        dense = rng.uniform(0.75, 1.0) - rng.uniform(0.2, 0.6) * down
        head.tint(hue * 0.25, inside * np.clip(dense, 0, 1))
    elif kind == "tint":
        strong = any_colour(rng, 0.0)
        strong = strong / max(float(strong.max()), 1.0)
        head.tint(np.clip(strong * rng.uniform(0.5, 0.8), 0, 1), inside * rng.uniform(0.7, 1))
    else:
        head.paint(np.clip(scenery(head, glasses), 0, 255), inside * rng.uniform(0.7, 1))
    if kind != "mirror" and head.chance(0.35):  # a faint reflection on dark glass
        head.paint(np.clip(scenery(head, glasses), 0, 255), inside * rng.uniform(0.08, 0.4))
    if head.chance(0.4):
        draw_glints(head, glasses.lenses, rng.uniform(0.2, 0.9))


def sunglasses(head: Head) -> None:
    glasses = fit_glasses(head, head.between(-0.06, 0.14))
    fill_lenses(head, glasses)
    if head.chance(0.85):
        draw_frame(head, glasses)


def pushed_down(head: Head) -> None:
    """Low on the nose: the upper lids may show above."""
    glasses = fit_glasses(head, head.between(0.16, 0.3))
    fill_lenses(head, glasses)
    draw_frame(head, glasses)


def on_forehead(head: Head) -> None:
    glasses = fit_glasses(head, -head.between(0.85, 1.3))
    fill_lenses(head, glasses)
    draw_frame(head, glasses)


def clear_glasses(head: Head) -> None:
    """With nothing, a haze, a faint tint or glare on them; some low on the nose."""
    rng = head.rng
    glasses = fit_glasses(head, head.between(-0.04, 0.18))
    inside = np.max([head.area(lens) for lens in glasses.lenses], axis=0)
    if head.chance(0.4):
        head.tint(rng.uniform(0.8, 1.0, 3).astype(np.float32), inside)
    if head.chance(0.4):
        head.paint(np.full(3, 225, np.float32), inside * rng.uniform(0.02, 0.18))
    if head.chance(0.4):
        draw_glints(head, glasses.lenses, rng.uniform(0.15, 0.7))
    draw_frame(head, glasses, thin=head.chance(0.4))


# ---------------------------------------------------------------- masks


def mask_outline(head: Head, top: float, chin: float) -> np.ndarray:
    """(n, 3) edge of a mask in space, from the nose over the right cheek around."""
    rng = head.rng
    wide, low = rng.uniform(0.78, 1.15), rng.uniform(0.38, 0.7)
    half = [
        (0.12, top + 0.02, 0.42), (0.3, top + rng.uniform(0.1, 0.2), 0.22),
        (0.62, top + rng.uniform(0.12, 0.3), 0.0), (wide, top + rng.uniform(0.2, 0.45), -0.4),
        (wide - 0.03, head.mouth * 0.95, -0.4), (wide - 0.14, head.mouth + 0.35, -0.25),
        (low, chin - 0.12, 0.0), (low / 2, chin, 0.15),
    ]  # fmt: skip
    other = [(-x, y + rng.uniform(-0.03, 0.03), z) for x, y, z in reversed(half)]
    return np.array([(0, top, 0.45), *half, (0, chin + 0.03, 0.2), *other])


def rounded(points: np.ndarray) -> np.ndarray:
    """The outline (n, 2) with its corners cut (Chaikin's scheme, twice)."""
    for _ in range(2):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1)
        points = points.reshape(-1, 2)
    return points


def mask_shape(head: Head, chin: float) -> np.ndarray:
    """(SIDE, SIDE) float32 light on a mask as it bends round the face, with its folds."""
    rng = head.rng
    x, y = head.coordinates
    x = x - np.tan(head.yaw) * 0.25  # the nose leads
    shape = 1.08 - 0.28 * np.clip(np.abs(x) / 0.9, 0, 1.3) ** 2
    shape -= 0.25 * np.clip((y - head.mouth) / (chin - head.mouth), 0, 1.2) ** 2
    kind = rng.choice(["pleats", "cup", "soft"], p=[0.45, 0.25, 0.3])
    if kind == "pleats":
        bent = y + 0.12 * x**2 + 0.02 * cloud(head, 0.4)
        for at in head.mouth - np.array([0.35, 0.1, -0.15]) + rng.uniform(-0.08, 0.08, 3):
            shape -= rng.uniform(0.04, 0.2) * np.exp(-(((bent - at) / 0.035) ** 2))
            shape += rng.uniform(0.0, 0.1) * np.exp(-(((bent - at - 0.06) / 0.04) ** 2))
    elif kind == "cup":
        shape -= rng.uniform(0.05, 0.3) * np.exp(-((x / 0.03) ** 2))
        shape += rng.uniform(-0.15, 0.15) * np.sign(x)
    shape += rng.uniform(0.02, 0.12) * cloud(head, rng.uniform(0.15, 0.5))
    shape += 0.12 * np.exp(-((x / 0.25) ** 2) - ((y - 0.6) / 0.3) ** 2)  # the nose below
    return shape


def mask(head: Head) -> None:
    """Over mouth and nose: surgical, cup-shaped or cloth, with ear loops."""
    rng = head.rng
    top, chin = head.between(0.16, 0.5), head.mouth + head.between(0.55, 0.95)
    if head.chance(0.08):
        top = head.between(0.5, 0.66)  # slipped, the tip of the nose is still under it
    wear_mask(head, top, chin)
    if rng.random() < 0.1:
        mark = head.stroke(head.place([[-0.12, top + 0.04, 0.45], [0.12, top + 0.04, 0.45]]), 3)
        head.paint(np.full(3, 200, np.float32), 0.6 * mark)


def wear_mask(head: Head, top: float, chin: float) -> None:
    """A mask from y = top to y = chin, its shadow on the skin, its loops and its hem."""
    rng = head.rng
    outline = mask_outline(head, top, chin)
    edge = rounded(head.place(outline))
    light = head.light()
    surface = cloth(head)
    lit = np.clip(surface * (light * mask_shape(head, chin))[..., None], 0, 255)
    inside = head.area(edge)
    head.tint(np.full(3, head.between(0.65, 0.95), np.float32),
              cv2.GaussianBlur(inside, (0, 0), 0.05 * head.unit))  # fmt: skip
    width = head.unit * head.between(0.015, 0.05)
    for side in (-1, 1):
        if side * head.yaw > 0.4 or not head.chance(0.85):
            continue
        for y, ear in ((top + 0.35, 0.15), (head.mouth + 0.25, 0.6)):
            loop = head.place([[side * 0.85, y, -0.35], [side * 1.15, ear, -1.0]])
            head.paint(lit * 0.9, head.stroke(loop, width))
    head.paint(lit, inside * (1.0 if head.chance(0.9) else head.between(0.85, 1.0)))
    if head.chance(0.4):
        seam = head.stroke(edge, head.unit * head.between(0.02, 0.06), closed=True)
        tone = surface * rng.uniform(0.6, 1.15) if head.chance(0.7) else any_colour(rng)
        head.paint(np.clip(tone * light[..., None], 0, 255), seam * head.between(0.3, 0.9))


def under_chin(head: Head) -> None:
    """Pulled down: mouth and nose are free."""
    wear_mask(head, head.mouth + head.between(0.28, 0.5), head.mouth + head.between(0.9, 1.3))


# ---------------------------------------------------------------- what is neither


def lit_skin(head: Head) -> np.ndarray:
    colour = head.skin() * head.between(0.75, 1.2) + head.rng.uniform(-10, 10, 3)
    mottled = colour + 10 * cloud(head, 0.3)[..., None]
    return np.clip(mottled * np.clip(head.light(), 0.6, 1.2)[..., None], 0, 255)


def draw_hand(head: Head, at: tuple[float, float]) -> None:
    """Fingers whose tips lie about `at`, and the back of the hand they grow from."""
    rng = head.rng
    skin = lit_skin(head)
    turn, wide = rng.uniform(-0.95 * np.pi, -0.05 * np.pi), rng.uniform(0.2, 0.3)
    along = np.array([np.cos(turn), np.sin(turn)])  # from below or from the side
    aside = np.array([-along[1], along[0]])
    count, reach = int(rng.integers(2, 5)), rng.uniform(0.7, 1.1)
    root = np.array(at) - along * reach
    half = wide * (count / 2 + 0.15)
    corners = [
        root + aside * a * half + along * b
        for a, b in ((-1, 0.25), (1, 0.25), (1.1, -0.7), (0.7, -2.0), (-0.7, -2.0), (-1.1, -0.7))
    ]
    palm = head.area(rounded(flat(head, corners)))
    head.tint(np.full(3, 0.75, np.float32), cv2.GaussianBlur(palm, (0, 0), 6))
    head.paint(skin, palm)
    bend = rng.uniform(-0.2, 0.2)
    for number in range(count):
        base = root + aside * wide * (number - (count - 1) / 2)
        tip = base + along * (reach - 0.12 * abs(number - 1.3)) + aside * bend
        line = flat(head, [base, (base + tip) / 2 + aside * bend * 0.7, tip])
        finger = head.stroke(line, wide * head.unit * 0.9)
        rim = np.clip(head.stroke(line, wide * head.unit * 1.15) - finger, 0, 1)
        head.tint(np.array([0.5, 0.5, 0.62], np.float32), rim * head.between(0.3, 0.9))
        head.paint(skin * head.between(0.92, 1.06), finger)
        if head.chance(0.4):
            nail = flat(head, [tip, tip + along * 0.03])
            tone = any_colour(rng, 0.2) if head.chance(0.4) else head.skin() * 1.1
            head.paint(np.clip(tone, 0, 255), head.stroke(nail, wide * head.unit * 0.5) * 0.8)


def flat(head: Head, points: Sequence[np.ndarray]) -> np.ndarray:
    """Points (n, 2) before the face as pixels (n, 2)."""
    return head.place([(x, y, 0.4) for x, y in points])


def hand(head: Head) -> None:
    """At the mouth, the chin, a cheek, the forehead; seldom an eye."""
    spots = ((0, head.mouth), (0, head.mouth + 0.4), (0.6, 0.9), (-0.6, 0.9), (0.4, -0.7),
             (-0.4, -0.6), (0.1, head.mouth - 0.1), (-0.2, head.mouth + 0.2))  # fmt: skip
    x, y = spots[head.rng.integers(len(spots))]
    draw_hand(head, (x + head.between(-0.2, 0.2), y + head.between(-0.2, 0.2)))


def held(head: Head, corners: Sequence[tuple[float, float]], surface: np.ndarray) -> None:
    """Something flat or round before the face, with a few fingers round it."""
    inside = head.area(rounded(flat(head, [np.array(c) for c in corners])))
    head.tint(np.full(3, 0.8, np.float32), cv2.GaussianBlur(inside, (0, 0), 6))
    head.paint(surface, inside)


def cup(head: Head) -> None:
    """A cup, glass, bottle, ice cream or microphone at the mouth."""
    x, y = head.between(-0.25, 0.25), head.mouth + head.between(-0.15, 0.3)
    wide, high = head.between(0.2, 0.6), head.between(0.4, 1.2)
    surface = (
        cloth(head) * np.clip(head.light() * (1 - 0.3 * head.coordinates[0]), 0.3, 1.3)[..., None]
    )
    narrow = head.between(0.6, 1.0)
    held(head, [(x - wide, y), (x + wide, y), (x + wide * narrow, y + high),
                (x - wide * narrow, y + high)], np.clip(surface, 0, 255))  # fmt: skip
    if head.chance(0.5):
        draw_hand(head, (x + head.between(-0.2, 0.2), y + 0.5 + head.between(0, 0.3)))


def phone(head: Head) -> None:
    """A telephone before part of the face."""
    x, y = head.rng.choice([-0.8, 0.8, 0.3, -0.3, 0.0]), head.rng.choice([0.9, 1.3, 0.6])
    x, y = x + head.between(-0.2, 0.2), y + head.between(-0.2, 0.4)
    wide, high, turn = head.between(0.3, 0.5), head.between(0.6, 0.9), head.between(-0.6, 0.6)
    colour = pick(head.rng, ((20, 20, 20), (30, 30, 32), (235, 235, 235), (150, 160, 200)))
    surface = np.broadcast_to(colour, head.canvas.shape) + 8 * cloud(head, 0.6)[..., None]
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    corners = [
        spin @ (a * wide, b * high) + (x, y) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    edge = flat(head, corners)
    head.paint(np.clip(surface, 0, 255).astype(np.float32), head.area(edge))
    lens = flat(head, [spin @ (-0.6 * wide, -0.75 * high) + (x, y)] * 2)
    head.paint(np.full(3, 60, np.float32), head.stroke(lens, 0.12 * head.unit))
    if head.chance(0.7):
        draw_hand(head, (x + head.between(-0.3, 0.3), y + high * 0.6))


def scarf(head: Head) -> None:
    """Round the neck, up to the lower lip."""
    top, x = head.mouth + head.between(0.12, 0.5), np.linspace(-1.6, 1.6, 9)
    sag = head.between(0.0, 0.35)
    upper = [(a, top - sag * a**2 / 2 + head.between(-0.05, 0.05)) for a in x]
    surface = cloth(head) * (head.light() + 0.25 * cloud(head, head.between(0.1, 0.3)))[..., None]
    edge = head.place([(a, b, 0.1) for a, b in [*upper, (1.6, 3.2), (-1.6, 3.2)]])
    head.paint(np.clip(surface, 0, 255), head.area(edge))


def headscarf(head: Head) -> None:
    """Hijab or hood: cloth around a face that is free from brow to chin."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    wide, high, low = head.between(0.95, 1.25), head.between(0.85, 1.2), head.mouth + 0.75
    middle = (low - high) / 2
    hole = np.stack([wide * np.cos(turn), middle + (low + high) / 2 * np.sin(turn),
                     -0.2 * np.ones(40)], axis=1)  # fmt: skip
    outside = 1 - head.area(head.place(hole))
    surface = cloth(head) * (head.light() + 0.2 * cloud(head, 0.25))[..., None]
    head.paint(np.clip(surface, 0, 255), outside)


def gum(head: Head) -> None:
    """A bubble, a lollipop, a flower: something round at the mouth."""
    size, colour = head.between(0.15, 0.45), any_colour(head.rng, 0.0)
    at = np.array([head.between(-0.15, 0.15), head.mouth + head.between(-0.05, 0.15)])
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = [at + size * np.array([np.cos(t), np.sin(t)]) for t in turn]
    x, y = head.coordinates
    ball = 1.1 - 0.5 * ((x - at[0]) ** 2 + (y - at[1]) ** 2) / size**2
    held(head, ring, np.clip(colour * ball[..., None] * 1.2, 0, 255))
    shine = flat(head, [at - np.array([0.3, 0.4]) * size] * 2)
    head.paint(np.full(3, 250, np.float32), 0.7 * head.stroke(shine, 0.25 * size * head.unit))


def open_mouth(head: Head) -> None:
    """Laughing, shouting, yawning, a tongue, a pout."""
    wide, high = head.between(0.25, 0.5), head.between(0.15, 0.42)
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    centre = head.mouth + high * 0.5

    def oval(a: float, b: float, y: float) -> np.ndarray:
        return head.place([(a * np.cos(t), y + b * np.sin(t), 0.2) for t in turn])

    lips = np.clip(head.skin() * np.array([0.6, 0.55, 0.95]) * head.between(0.7, 1.1), 0, 255)
    head.paint(lips, head.area(oval(wide + 0.07, high + 0.08, centre), 2))
    head.paint(np.array([25, 20, 60], np.float32), head.area(oval(wide, high, centre)))
    if head.chance(0.7):
        teeth = head.area(oval(wide * 0.85, high * 0.35, centre - high * 0.62))
        head.paint(np.array([215, 225, 230], np.float32) * head.between(0.7, 1), teeth)
    if head.chance(0.4):
        out = head.between(0, 0.3)
        tongue = head.area(oval(wide * 0.6, high * 0.5 + out, centre + high * 0.5 + out), 2)
        head.paint(np.array([110, 100, 200], np.float32), tongue * 0.9)


def hairs(head: Head, inside: np.ndarray, colour: np.ndarray) -> None:
    """Hair of a colour (3,) over an area, with light between."""
    fine = cv2.resize(head.rng.normal(0, 1, (SIDE // 8, SIDE)).astype(np.float32), (SIDE, SIDE))
    strands = np.clip(colour * (1 + 0.35 * fine[..., None]), 0, 255)
    head.paint(strands * np.clip(head.light(), 0.5, 1.2)[..., None], inside)


def beard(head: Head) -> None:
    """On cheeks and chin, the mouth free; full or thin."""
    m = head.mouth
    top = head.between(0.5, 0.9)
    edge = [(0.85, top - 0.1, -0.3), (0.8, m, -0.3), (0.6, m + 0.5, -0.1), (0, m + 0.85, 0.2),
            (-0.6, m + 0.5, -0.1), (-0.8, m, -0.3), (-0.85, top - 0.1, -0.3), (-0.45, m - 0.2, 0.1),
            (0, m - 0.28, 0.3), (0.45, m - 0.2, 0.1)]  # fmt: skip
    lip = [(0.28, m, 0.2), (0, m - 0.1, 0.3), (-0.28, m, 0.2), (0, m + 0.12, 0.3)]
    inside = head.area(rounded(head.place(edge)), 5)
    inside *= 1 - head.area(rounded(head.place(lip)), 2)
    thin = np.clip(head.between(0.5, 1.1) + 0.4 * cloud(head, 0.12), 0, 1)
    tones = ((25, 25, 30), (40, 50, 70), (60, 90, 130), (170, 170, 170), (210, 210, 210))
    hairs(head, inside * thin, pick(head.rng, tones))


def fringe(head: Head) -> None:
    """Hair before the brow, an eye or a cheek."""
    side, low = head.rng.choice([-1, 1]), head.between(-0.4, 0.6)
    inner = head.between(0.0, 0.6)
    edge = [(side * -0.9, -1.3, 0), (side * inner, -0.7, 0.2), (side * (inner + 0.3), low, 0.2),
            (side * 0.9, low + 0.8, 0), (side * 1.3, 1.8, -0.5),
            (side * 1.5, -1.5, -0.5)]  # fmt: skip
    tones = ((20, 20, 25), (30, 45, 75), (70, 120, 170), (120, 170, 210), (50, 40, 150))
    ragged = np.clip(head.area(head.place(edge), 3) * (1.2 + 0.5 * cloud(head, 0.08)), 0, 1)
    hairs(head, ragged, pick(head.rng, tones))


def shade(head: Head) -> None:
    """A cap, a hat, deep sun: the eyes lie in the dark."""
    low, x = head.between(-0.1, 0.55), np.linspace(-1.5, 1.5, 9)
    edge = [(a, low + 0.12 * a**2 * head.between(-1, 1), 0.2) for a in x]
    inside = head.area(head.place([*edge, (1.6, -3, 0), (-1.6, -3, 0)]), 3)
    head.tint(np.full(3, head.between(0.25, 0.75), np.float32), inside)
    if head.chance(0.8):
        brim = -head.between(0.35, 0.75)
        rim = [(a, brim - head.between(0.0, 0.2) * (1 - a**2 / 3), 0.5) for a in x]
        surface = np.clip(cloth(head) * head.light()[..., None] * head.between(0.5, 1), 0, 255)
        head.paint(surface, head.area(head.place([*rim, (1.6, -3, 0), (-1.6, -3, 0)])))


def dark_eyes(head: Head) -> None:
    """Painted, closed, deep or shaded eyes."""
    strength = head.between(0.3, 0.9)
    for side in (-1, 1):
        turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        wide, high = head.between(0.22, 0.4), head.between(0.1, 0.28)
        ring = [(side * 0.5 + wide * np.cos(t), high * np.sin(t), 0) for t in turn]
        colour = any_colour(head.rng, 0.3) * 0.4
        head.paint(colour, head.area(head.place(ring), head.between(2, 7)) * strength)


def paper(head: Head) -> None:
    """A sheet, a book, a flag, a head in front: something printed over one corner of the face."""
    x, y = head.rng.choice([-1.3, 1.3]), head.between(-0.8, 1.8)
    turn, size = head.between(-0.8, 0.8), head.between(0.7, 1.1)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    corners = [
        spin @ (a * size, b * size) + (x, y) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    head.paint(pattern(head), head.area(flat(head, corners)))


def nothing(head: Head) -> None:
    """The face as it is."""


Draw = Callable[[Head], None]
KINDS: dict[str, tuple[bool, bool, float, tuple[Draw, ...]]] = {
    # name: mask, sunglasses, share of the drawings (chosen), what is drawn one after another
    "plain": (False, False, 0.12, (nothing,)),
    "sunglasses": (False, True, 0.25, (sunglasses,)),
    "sunglasses pushed down": (False, True, 0.02, (pushed_down,)),
    "sunglasses and shade": (False, True, 0.03, (shade, sunglasses)),
    "sunglasses and hand": (False, True, 0.02, (sunglasses, hand)),
    "sunglasses and fringe": (False, True, 0.02, (sunglasses, fringe)),
    "sunglasses on forehead": (False, False, 0.04, (on_forehead,)),
    "clear glasses": (False, False, 0.09, (clear_glasses,)),
    "mask": (True, False, 0.16, (mask,)),
    "mask and clear glasses": (True, False, 0.03, (mask, clear_glasses)),
    "mask and hand": (True, False, 0.02, (mask, hand)),
    "mask and fringe": (True, False, 0.02, (mask, fringe)),
    "mask and shade": (True, False, 0.02, (mask, shade)),
    "mask and dark eyes": (True, False, 0.01, (dark_eyes, mask)),
    "mask and sunglasses": (True, True, 0.02, (mask, sunglasses)),
    "mask and forehead": (True, False, 0.01, (mask, on_forehead)),
    "mask under chin": (False, False, 0.02, (under_chin,)),
    "hand": (False, False, 0.02, (hand,)),
    "cup": (False, False, 0.015, (cup,)),
    "phone": (False, False, 0.015, (phone,)),
    "scarf": (False, False, 0.015, (scarf,)),
    "headscarf": (False, False, 0.01, (headscarf,)),
    "gum": (False, False, 0.01, (gum,)),
    "open mouth": (False, False, 0.01, (open_mouth,)),
    "beard": (False, False, 0.015, (beard,)),
    "fringe": (False, False, 0.015, (fringe,)),
    "shade": (False, False, 0.02, (shade,)),
    "dark eyes": (False, False, 0.015, (dark_eyes,)),
    "paper": (False, False, 0.01, (paper,)),
}


def draw(
    image: np.ndarray,
    kps: np.ndarray,
    kind: str,
    rng: np.random.Generator,
    prints: Sequence[np.ndarray],
) -> np.ndarray:
    """A canvas (SIDE, SIDE, 3) uint8 BGR: the face of a photo with what its kind wears.

    image: (h, w, 3) uint8 BGR; kps: (5, 2) px; kind: of KINDS; prints: photos for patterns.
    """
    head = head_of(image, kps, rng, prints)
    for step in KINDS[kind][3]:
        step(head)
    return np.clip(head.canvas, 0, 255).astype(np.uint8)


def canvas_points() -> np.ndarray:
    """(5, 2) px: where an average face has its key points on a canvas."""
    return SCALE * (2 * landmarks.LANDMARK_POINTS + BORDER)
