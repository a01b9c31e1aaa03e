"""Backgrounds of the embedded sample: textured surfaces, skies, hills and rooms, as large as the picture wants them.

Surfaces are planar ([3, H, W], quick in numpy); what goes into the picture is interleaved ([H, W, 3], quick in cv2).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from transfer.data.sample_canvas import hsv
from transfer.data.sample_noise import blend, cells, noise, soft_step
from transfer.types import Size

Rng = np.random.Generator


def _grid(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Column [1, W] and row [H, 1] numbers, float32."""
    return np.arange(size[1], dtype=np.float32)[None], np.arange(size[0], dtype=np.float32)[:, None]


def grass(rng: Rng, size: Size) -> np.ndarray:
    """Lawn or meadow, green to straw."""
    first = hsv(rng.uniform(0.14, 0.33), rng.uniform(0.35, 0.7), rng.uniform(0.25, 0.5))
    second = hsv(rng.uniform(0.12, 0.28), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.7))
    blades = noise(rng, size, (rng.uniform(3, 7), 1.0), "white") * 0.22 + noise(rng, size, 0.7, "fine") * 0.16
    image = blend(first, second, np.clip(noise(rng, size, 1.5) * 0.25 + blades + 0.45, 0, 1))
    spots, tall = rng.uniform(0, size[::-1], (90, 2)), rng.uniform(8, 24)
    tips = spots + np.column_stack([rng.normal(0, tall * 0.4, 90), -rng.uniform(0.4, 1, 90) * tall])
    strokes = np.round(np.stack([spots, tips], 1) * 16).astype(np.int32)
    canvas = cv2.merge(list(image))
    for part, tone in ((strokes[:45], second * 1.15), (strokes[45:], first * 0.5)):
        cv2.polylines(canvas, list(part), False, tone.ravel().tolist(), 1, cv2.LINE_AA, 4)
    return np.stack(cv2.split(canvas))


def gravel(rng: Rng, size: Size) -> np.ndarray:
    """Pebbles, cobbles or bark: rounded pieces, each with its own tint."""
    height, tint = cells(rng, size, rng.uniform(0.5, 2.2))
    colour = hsv(rng.uniform(0.04, 0.13), rng.uniform(0.05, 0.45), rng.uniform(0.4, 0.75))
    other = hsv(rng.uniform(0.0, 0.6), rng.uniform(0.05, 0.3), rng.uniform(0.25, 0.7))
    image = blend(colour, other, tint * 0.5 + 0.5)
    return image * (0.45 + 0.65 * np.sqrt(height) + 0.07 * noise(rng, size, 0.5, "fine"))


def sand(rng: Rng, size: Size) -> np.ndarray:
    """Sand, soil or asphalt, sometimes rippled."""
    colour = hsv(rng.uniform(0.05, 0.13), rng.uniform(0.05, 0.5), rng.uniform(0.25, 0.8))
    soft = noise(rng, size, 2.0)
    tone = (
        1 + 0.08 * soft + rng.uniform(0.03, 0.14) * noise(rng, size, 0.6, "fine") + 0.04 * noise(rng, size, 1, "white")
    )
    if rng.random() < 0.4:
        x, y = _grid(size)
        tone += 0.09 * np.sin(y * rng.uniform(0.2, 0.6) + x * rng.uniform(-0.1, 0.1) + 2 * soft)
    return colour * tone


def planks(rng: Rng, size: Size) -> np.ndarray:
    """Wooden boards, or one table top, lengthwise or across."""
    across = rng.random() < 0.5
    shape = (size[1], size[0]) if across else size
    y = np.arange(shape[0], dtype=np.float32)[:, None]
    wide = rng.uniform(30, 90) if rng.random() < 0.75 else 2000.0
    shift = rng.random()
    board = np.floor(y / wide + shift)
    colour = hsv(rng.uniform(0.04, 0.11), rng.uniform(0.2, 0.65), rng.uniform(0.3, 0.8))
    tints = 1 + 0.12 * np.sin(board * 12.9 + rng.random() * 9)
    grain = noise(rng, shape, (0.9, rng.uniform(6, 12)))
    tone = 1 + 0.11 * np.sin(grain * rng.uniform(4, 9) + board) + 0.08 * noise(rng, shape, (0.6, 9), "fine")
    gap = np.abs(y / wide + shift - board - 0.5)
    tone = tone * tints * (1 - 0.6 * soft_step(gap, 0.5 - 1.2 / wide, 1.0 / wide))
    image = colour * tone
    return np.ascontiguousarray(image.transpose(0, 2, 1)) if across else image


def cloth(rng: Rng, size: Size) -> np.ndarray:
    """Woven cloth: plain, striped or checked, with soft folds."""
    x, y = _grid(size)
    first = hsv(rng.random(), rng.uniform(0.05, 0.6), rng.uniform(0.3, 0.85))
    second = hsv(rng.random(), rng.uniform(0.05, 0.5), rng.uniform(0.4, 0.9))
    soft = noise(rng, size, 3.0)
    period, kind = rng.uniform(0.08, 0.3), rng.integers(3)
    across = np.sin((x + 4 * soft) * period) > 0.1 if kind else np.zeros(size, bool)
    along = np.sin((y + 4 * soft) * period) > 0.1 if kind == 2 else np.zeros(size, bool)
    image = blend(first, second, across * np.float32(0.35) + along * np.float32(0.35))
    weave = np.sin(x * 1.9) * np.sin(y * 1.9)
    return image * (1 + 0.07 * weave + 0.09 * soft + 0.07 * noise(rng, size, 0.5, "fine"))


def tiles(rng: Rng, size: Size) -> np.ndarray:
    """Tiles or bricks with joints, each piece a little different."""
    x, y = _grid(size)
    tall = rng.uniform(12, 45)
    wide = tall * float(rng.choice([1.0, 2.0, 3.0]))
    row = np.floor(y / tall)
    shifted = x / wide + (0.5 * (row % 2) if wide > tall else 0 * row)  # [H, W]
    column = np.floor(shifted)
    tints = rng.uniform(-1, 1, (16, 16)).astype(np.float32)
    piece = tints[row.astype(np.int64) % 16, column.astype(np.int64) % 16]
    joint = np.minimum((y / tall % 1) * tall, (shifted - column) * wide)
    colour = hsv(
        rng.uniform(0.0, 0.13) if rng.random() < 0.7 else rng.random(), rng.uniform(0.05, 0.6), rng.uniform(0.4, 0.85)
    )
    tone = 1 + 0.1 * piece + 0.09 * noise(rng, size, 0.9) + 0.07 * noise(rng, size, 0.5, "fine")
    return blend(hsv(0.1, 0.1, rng.uniform(0.3, 0.75)), colour * tone, soft_step(joint, rng.uniform(1.2, 2.5), 1.2))


def plaster(rng: Rng, size: Size) -> np.ndarray:
    """Painted wall, paper or a plain table, with stains."""
    colour = hsv(rng.random(), rng.uniform(0.0, 0.35), rng.uniform(0.45, 0.92))
    return colour * (1 + 0.07 * noise(rng, size, 2.0) + 0.03 * noise(rng, size, 0.7, "fine"))


def marble(rng: Rng, size: Size) -> np.ndarray:
    """Veined stone, pale or dark."""
    colour = hsv(rng.uniform(0.0, 0.6), rng.uniform(0.03, 0.25), rng.uniform(0.35, 0.9))
    field = noise(rng, size, 1.5)
    veins = np.exp(-np.abs(noise(rng, size, 2.5) + 0.3 * field) * rng.uniform(6, 14))
    return colour * (1 + 0.07 * field - rng.uniform(0.1, 0.45) * veins)


def litter(rng: Rng, size: Size) -> np.ndarray:
    """Forest floor: soil under a mess of fallen bits and twigs."""
    image = cv2.merge(list(gravel(rng, size) * np.float32(0.8)))
    hues = [hsv(rng.uniform(0.02, 0.3), rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.6)) for _ in range(4)]
    for number in range(50):
        centre = (int(rng.integers(size[1])), int(rng.integers(size[0])))
        axes = (int(rng.integers(5, 15)), int(rng.integers(2, 6)))
        tone = hues[number % 4] * rng.uniform(0.6, 1.2)
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, tone.ravel().tolist(), -1)
    return np.stack(cv2.split(image)) * (1 + 0.12 * noise(rng, size, 0.7, "fine"))


GROUNDS: tuple[Callable[[Rng, Size], np.ndarray], ...] = (
    grass, gravel, sand, planks, cloth, tiles, plaster, marble, litter
)  # fmt: skip
OUTDOORS: tuple[Callable[[Rng, Size], np.ndarray], ...] = (grass, gravel, sand, sand, litter)
WALLS: tuple[Callable[[Rng, Size], np.ndarray], ...] = (tiles, planks, plaster, plaster, cloth)


def _sky(rng: Rng, size: Size, horizon: int) -> np.ndarray:
    """Sky with clouds and one to three ranges of hills or trees in the haze."""
    height = max(horizon, 2)
    _, y = _grid((height, size[1]))
    top = hsv(rng.uniform(0.52, 0.66), rng.uniform(0.1, 0.6), rng.uniform(0.5, 0.9))
    low = hsv(rng.uniform(0.03, 0.6), rng.uniform(0.02, 0.3), rng.uniform(0.7, 0.98))
    image = blend(top, low, np.broadcast_to(y / height, (height, size[1])))
    clouds = soft_step(noise(rng, (height, size[1]), (1.5, 3.0)), rng.uniform(0.0, 1.5), 1.5) * 0.8
    image = blend(image, hsv(0.1, 0.03, rng.uniform(0.7, 1.0)), clouds)
    for layer in range(int(rng.integers(0, 4))):
        ridge = noise(rng, (2, size[1]), (1.0, rng.uniform(0.3, 2.0)))[0]
        level = height * (rng.uniform(0.55, 0.95) + 0.05 * layer) - ridge * height * 0.12
        tone = hsv(rng.uniform(0.2, 0.62), rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.6))
        rough = tone * (1 + 0.18 * noise(rng, (height, size[1]), 0.6, "fine"))
        image = blend(image, rough, soft_step(y - level[None], 0.0, 2.0))
    return cv2.merge(list(image))


def _room(rng: Rng, size: Size, horizon: int) -> np.ndarray:
    """A blurred room behind a table: patches of colour and light."""
    height = max(horizon, 2)
    small = (max(height // 4, 2), max(size[1] // 4, 2))  # nothing sharp is in it: a quarter of the side will do
    patches = rng.random((3, 5, 1)) * 0.6 + rng.random((3, 5, 3)) * 0.25
    image = cv2.resize(patches.astype(np.float32), small[::-1], interpolation=cv2.INTER_LINEAR)
    for _ in range(int(rng.integers(2, 9))):
        spot = (int(rng.integers(small[1])), int(rng.integers(small[0])))
        corner = (spot[0] + int(rng.integers(2, 22)), spot[1] + int(rng.integers(2, 30)))
        tone = hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.15, 0.9))
        cv2.rectangle(image, spot, corner, tone.ravel().tolist(), -1)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.7, 2.0))
    return cv2.resize(image, (size[1], height), interpolation=cv2.INTER_CUBIC)


def from_above(rng: Rng, size: Size) -> np.ndarray:
    """One surface looked down upon, turned a little.

    Returns:
        [H, W, 3] float32, about [0, 1].
    """
    surface = GROUNDS[int(rng.integers(len(GROUNDS)))]
    if rng.random() < 0.4:
        return cv2.merge(list(surface(rng, size)))
    large = (round(size[0] * 1.3), round(size[1] * 1.3))
    turn = cv2.getRotationMatrix2D((large[1] / 2, large[0] / 2), rng.uniform(-25, 25), rng.uniform(1.05, 1.35))
    turn[:, 2] -= (large[1] - size[1]) / 2, (large[0] - size[0]) / 2
    return cv2.warpAffine(cv2.merge(list(surface(rng, large))), turn, (size[1], size[0]), borderMode=cv2.BORDER_REFLECT)


def with_horizon(rng: Rng, size: Size) -> tuple[np.ndarray, int]:
    """A ground in perspective before a sky, a wall or a room.

    Returns:
        [H, W, 3] float32, about [0, 1]; the row where the ground begins.
    """
    kind = int(rng.integers(3))
    horizon = int(size[0] * rng.uniform(0.22, 0.55))
    grounds = OUTDOORS if kind == 0 else GROUNDS
    if kind == 0:
        back = _sky(rng, size, horizon)
    elif kind == 1:
        back = cv2.merge(list(WALLS[int(rng.integers(len(WALLS)))](rng, (horizon, size[1]))))
        back *= np.linspace(1.05, rng.uniform(0.6, 0.95), horizon, dtype=np.float32)[:, None, None]
        back = cv2.GaussianBlur(back, (0, 0), rng.uniform(0.4, 2.5))
    else:
        back = _room(rng, size, horizon)
    low = size[0] - horizon
    texture = cv2.merge(list(grounds[int(rng.integers(len(grounds)))](rng, (round(low * 1.5), size[1]))))
    height, width = texture.shape[:2]
    spread = rng.uniform(0.5, 1.2) * width
    corners = np.array([(0, 0), (width, 0), (width + spread, low), (-spread, low)], np.float32)
    source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    matrix = cv2.getPerspectiveTransform(source, corners)
    ground = cv2.warpPerspective(texture, matrix, (width, low), borderMode=cv2.BORDER_REFLECT)
    ground *= np.linspace(rng.uniform(0.75, 1.1), 1.0, low, dtype=np.float32)[:, None, None]
    image = np.concatenate([back, ground])
    edge = slice(max(horizon - 3, 0), horizon + 4)
    image[edge] = cv2.blur(image[edge], (3, 5))
    return image, horizon
