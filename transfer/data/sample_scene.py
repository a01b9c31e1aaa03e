"""Scenes of the embedded sample: where objects lie, who hides whom, shadows, the camera, and the truth about it all.

The constants below set how hard the detection is; all of them enter the stamp of a written sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from transfer.data.sample_camera import Light, photograph
from transfer.data.sample_canvas import Canvas
from transfer.data.sample_clutter import CLUTTER
from transfer.data.sample_objects import CROP_ONLY, KINDS, SAMPLE_CLASSES
from transfer.data.sample_surfaces import from_above, with_horizon
from transfer.types import IGNORED_PIXEL, Size

SMALL_SHARE = 0.22
"""Share of objects whose box is under 32 x 32 pixels (of a 320 pixel scene)."""
LARGE_SHARE = 0.30
"""Share of objects whose box is over 96 x 96 pixels."""
OCCLUSION_SHARE = 0.40
"""Share of objects placed so that they overlap another one."""
TRUNCATION_SHARE = 0.12
"""Share of objects placed across the picture's edge."""
CLUTTER_COUNT = 4.0
"""Mean number of small things of no class in a scene."""
DISTRACTOR_SHARE = 0.35
"""Share of scenes with an object of a class that only the crops know, without box."""
VARIATION = 1.0
"""How far proportions within a class stray, in [0, 1]."""
SENSOR_NOISE = 0.035
"""Largest standard deviation of the camera's noise, of full scale."""
BLUR = 0.9
"""Largest standard deviation of the camera's blur in pixels."""

COUNT_WEIGHTS = (0.12, 0.18, 0.22, 0.20, 0.14, 0.09, 0.05)
"""Probability of 1, 2, ... 7 objects in a scene."""
UNSEEN_BELOW = 0.15
"""Objects visible less than this share of their area get no box; their pixels are void."""
DIFFICULT_BELOW = 0.35
"""Objects visible less than this share are difficult."""
DIFFICULT_SIDE = 14.0
"""Objects whose box has an area under this squared are difficult."""
OCCLUDED_ABOVE = 0.06
"""Objects hidden by others by more than this share are marked occluded."""
CANVAS_SIDES = (48, 56, 64, 80, 96, 112, 128, 144, 160, 192)
CANDIDATES = 24


@dataclass(slots=True)
class Truth:
    """One annotated object."""

    name: str
    box: tuple[int, int, int, int]
    """x_min, y_min, x_max, y_max in pixels, right and bottom exclusive, around the visible part."""
    pose: str
    truncated: bool
    occluded: bool
    difficult: bool


@dataclass(slots=True)
class Scene:
    """A finished picture with its truth."""

    image: np.ndarray
    """[H, W, 3] uint8, RGB."""
    mask: np.ndarray
    """[H, W] uint8: 0 background, 1..K classes, 255 borders and void."""
    objects: list[Truth]


@dataclass(slots=True)
class _Piece:
    """One thing, drawn and turned, at (left, top) of the picture."""

    name: str | None
    rgb: np.ndarray
    """[h, w, 3] float32, premultiplied, at the picture's scale."""
    alpha: np.ndarray
    """[h, w] float32."""
    pose: str = "Unspecified"
    flies: bool = False
    left: int = 0
    top: int = 0

    def rectangle(self) -> tuple[int, int, int, int]:
        height, width = self.alpha.shape
        return self.left, self.top, self.left + width, self.top + height


def _render(
    rng: np.random.Generator, light: Light, size: Size, extent: float, name: str | None, *, above: bool
) -> _Piece:
    """Draw one thing whose box has an area of about `extent` squared; a piece of clutter if `name` is None."""
    kind = KINDS[name] if name else None
    limit = (kind.turn_above if above else kind.turn_level) if kind else (180.0 if above else 8.0)
    turn, mirrored = math.radians(rng.uniform(-limit, limit)), bool(rng.random() < 0.5)
    sign = -1.0 if mirrored else 1.0
    cosine, sine = math.cos(turn), math.sin(turn)
    x, y = cosine * light.x + sine * light.y, -sine * light.x + cosine * light.y
    side = next((s for s in CANVAS_SIDES if s >= 1.2 * extent), CANVAS_SIDES[-1])
    canvas = Canvas(side, rng, (sign * x, y, light.z), variation=VARIATION)
    (kind.draw if kind else CLUTTER[int(rng.integers(len(CLUTTER)))])(canvas)
    sprite = canvas.finished()
    squeeze = 1 + rng.uniform(-0.15, 0.15, 2) * VARIATION
    shear = rng.uniform(-0.12, 0.12) * VARIATION
    linear = np.array([[cosine, -sine], [sine, cosine]]) @ np.array([[sign * squeeze[0], shear], [0.0, squeeze[1]]])
    spread = linear @ _outline(canvas.alpha > 0.5)  # [2, N]
    wide, tall = np.ptp(spread, axis=1) + 2
    scale = min(extent / math.sqrt(wide * tall), 0.92 * size[1] / wide, 0.92 * size[0] / tall)
    if scale < 0.45:
        sprite = cv2.resize(sprite, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        spread, scale = spread / 2, scale * 2
    linear, spread = linear * scale, spread * scale
    origin = np.floor(spread.min(1)) - 2
    target = np.ceil(np.ptp(spread, axis=1)).astype(int) + 5
    matrix = np.column_stack([linear, -origin])
    layer = cv2.warpAffine(sprite, matrix, (int(target[0]), int(target[1])), flags=cv2.INTER_LINEAR)
    pose = ("Left" if mirrored else "Right") if kind and kind.faces and cosine > 0.7 else "Unspecified"
    *rgb, alpha = cv2.split(layer)
    return _Piece(name, cv2.merge(rgb), alpha, pose, kind.flies if kind else False)


def _outline(solid: np.ndarray) -> np.ndarray:
    """The first and the last pixel of each row of a mask, as x and y: [2, N]."""
    rows = np.flatnonzero(solid.any(1))
    first = solid[rows].argmax(1)
    last = solid.shape[1] - 1 - solid[rows, ::-1].argmax(1)
    return np.stack([np.concatenate([first, last]), np.concatenate([rows, rows])])


def _extent(rng: np.random.Generator, unit: float) -> float:
    """Draw a size class, then a size in it; unit is 1 for a picture of 320 pixels."""
    draw = rng.random()
    if draw < SMALL_SHARE:
        low, high = 12.0, 31.0
    elif draw < 1 - LARGE_SHARE:
        low, high = 33.0, 94.0
    else:
        low, high = 98.0, 190.0
    return math.exp(rng.uniform(math.log(low), math.log(high))) * unit


def _place(rng: np.random.Generator, piece: _Piece, others: list[_Piece], size: Size, horizon: int | None) -> bool:
    """Find a place for the piece; False if it would hide or be hidden too much."""
    height, width = piece.alpha.shape
    lowest = 0 if horizon is None or piece.flies else horizon - height * 0.9 + (size[0] - horizon) * 0.12
    x = rng.uniform(0, max(size[1] - width, 1), CANDIDATES)
    y = rng.uniform(max(min(lowest, size[0] - height), -0.2 * height), max(size[0] - height, 1), CANDIDATES)
    cut, wanted = rng.uniform(0.15, 0.5), rng.uniform(0.2, 0.65) if rng.random() < OCCLUSION_SHARE else 0.0
    if rng.random() < TRUNCATION_SHARE:
        edge = int(rng.integers(3 if horizon is not None else 4))
        if edge < 2:
            x[:] = -cut * width if edge == 0 else size[1] - (1 - cut) * width
        else:
            y[:] = size[0] - (1 - cut) * height if edge == 2 else -cut * height
    best = 0
    if others:
        boxes = np.array([other.rectangle() for other in others], np.float64)  # [N, 4]
        across = np.minimum(x[:, None] + width, boxes[:, 2]) - np.maximum(x[:, None], boxes[:, 0])
        along = np.minimum(y[:, None] + height, boxes[:, 3]) - np.maximum(y[:, None], boxes[:, 1])
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        share = np.maximum(across, 0) * np.maximum(along, 0) / np.minimum(areas, width * height)
        overlap = share.max(1)  # [CANDIDATES]
        best = int(np.argmin(np.abs(overlap - wanted)))
        if overlap[best] > 0.7:
            return False
    piece.left, piece.top = round(float(x[best])), round(float(y[best]))
    return True


def _furnish(
    rng: np.random.Generator, light: Light, size: Size, names: list[str], horizon: int | None, extent: float | None
) -> list[_Piece]:
    """Draw and place everything, back to front."""
    unit, above = min(size) / 320, horizon is None
    pieces: list[_Piece] = []
    for name in names:
        piece = _render(rng, light, size, extent or _extent(rng, unit), name, above=above)
        if _place(rng, piece, pieces, size, horizon):
            pieces.append(piece)
    strangers = int(rng.poisson(CLUTTER_COUNT if extent is None else CLUTTER_COUNT / 4))
    for number in range(strangers):
        odd = None
        if number == 0 and extent is None and rng.random() < DISTRACTOR_SHARE:
            odd = CROP_ONLY[int(rng.integers(len(CROP_ONLY)))]
        span = rng.uniform(25, 80) * unit if odd else rng.uniform(6, 40) * min(size) / 320
        piece = _render(rng, light, size, max(span, 5.0), odd, above=above)
        if _place(rng, piece, pieces, size, horizon):
            piece.name = None
            pieces.insert(int(rng.integers(len(pieces) + 1)), piece)
    if not above:
        pieces.sort(key=lambda piece: piece.top + piece.alpha.shape[0])
    return pieces


def _paint(image: np.ndarray, owner: np.ndarray, pieces: list[_Piece], light: Light, *, above: bool) -> list[int]:
    """Lay the pieces with their shadows into the picture.

    Returns:
        The full area of each piece in pixels, hidden and cut parts included. `owner` holds 1 + index of the topmost.
    """
    areas = []
    for index, piece in enumerate(pieces):
        solid = piece.alpha > 0.5
        areas.append(int(np.count_nonzero(solid)))
        light.cast(image, piece.alpha, piece.left, piece.top, above=above, floats=piece.flies)
        left, top, right, bottom = piece.rectangle()
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, image.shape[1]), min(bottom, image.shape[0])
        if x0 >= x1 or y0 >= y1:
            continue
        part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        under = image[y0:y1, x0:x1]
        under *= cv2.merge([1 - piece.alpha[part]] * 3)
        under += piece.rgb[part]
        owner[y0:y1, x0:x1][solid[part]] = index + 1
    return areas


def _annotate(owner: np.ndarray, pieces: list[_Piece], areas: list[int], unit: float) -> tuple[np.ndarray, list[Truth]]:
    """The semantic mask and the boxes."""
    paint = np.zeros(256, np.uint8)
    identity = np.zeros(256, np.uint8)
    found = []
    for index, piece in enumerate(pieces, 1):
        if piece.name is None:
            continue
        identity[index] = index
        x0, y0, x1, y1 = piece.rectangle()
        x0, y0 = max(x0, 0), max(y0, 0)
        visible = (owner[y0 : max(y1, 0), x0 : max(x1, 0)] == index).view(np.uint8)
        seen = int(np.count_nonzero(visible))
        left, top, width, height = cv2.boundingRect(visible) if seen else (0, 0, 0, 0)
        left, top = left + x0, top + y0
        if seen < UNSEEN_BELOW * areas[index - 1] or min(width, height) < 3:
            paint[index] = IGNORED_PIXEL
            continue
        within = _inside_area(piece, owner.shape)
        difficult = seen < DIFFICULT_BELOW * areas[index - 1] or width * height < (DIFFICULT_SIDE * unit) ** 2
        if difficult:
            paint[index] = IGNORED_PIXEL
        elif piece.name in SAMPLE_CLASSES:
            paint[index] = SAMPLE_CLASSES.index(piece.name) + 1
        truncated, occluded = within < 0.98 * areas[index - 1], within - seen > OCCLUDED_ABOVE * areas[index - 1]
        box = (left, top, left + width, top + height)
        found.append(Truth(piece.name, box, piece.pose, truncated, occluded, difficult))
    mask = cv2.LUT(owner, paint)
    pieces_only = cv2.LUT(owner, identity)
    kernel = np.ones((3, 3), np.uint8)
    mask[cv2.dilate(pieces_only, kernel) != cv2.erode(pieces_only, kernel)] = IGNORED_PIXEL
    return mask, found


def _inside_area(piece: _Piece, size: Size) -> int:
    """Pixels of the piece within the picture, hidden or not."""
    rows = slice(max(-piece.top, 0), max(size[0] - piece.top, 0))
    columns = slice(max(-piece.left, 0), max(size[1] - piece.left, 0))
    return int(np.count_nonzero(piece.alpha[rows, columns] > 0.5))


def make_scene(rng: np.random.Generator, size: Size, names: list[str], *, extent: float | None = None) -> Scene:
    """Compose one photograph.

    Args:
        rng: source of everything random about it.
        size: of the picture.
        names: classes of the objects to place; one that finds no place is left out.
        extent: side in pixels of the objects' boxes, for a close-up; None draws small, medium and large ones.

    Returns:
        The picture, its mask and its annotated objects.
    """
    above = bool(rng.random() < 0.5)
    light = Light.draw(rng, above=above)
    image, horizon = (from_above(rng, size), None) if above else with_horizon(rng, size)
    image = np.ascontiguousarray(image, np.float32)
    pieces = _furnish(rng, light, size, names, horizon, extent)
    owner = np.zeros(size, np.uint8)
    areas = _paint(image, owner, pieces, light, above=above)
    mask, objects = _annotate(owner, pieces, areas, min(size) / 320)
    return Scene(photograph(rng, image, noise_limit=SENSOR_NOISE, blur_limit=BLUR), mask, objects)


def scene_names(rng: np.random.Generator, first: str) -> list[str]:
    """The classes of one scene: `first` and up to six more, some of them alike."""
    names = [first]
    for _ in range(int(rng.choice(len(COUNT_WEIGHTS), p=COUNT_WEIGHTS))):
        alike = rng.random() < 0.2
        options = names if alike else SAMPLE_CLASSES
        names.append(options[int(rng.integers(len(options)))])
    return names


def make_crop(rng: np.random.Generator, size: Size, name: str) -> np.ndarray:
    """A close-up of one object, [H, W, 3] uint8, RGB."""
    return make_scene(rng, size, [name], extent=min(size) * float(rng.uniform(0.5, 0.92))).image
