"""The canvas on which one object of the embedded sample is drawn: shapes, textures and light.

Coordinates are the object's own: x right, y down, the object inside [-1, 1]. The canvas is larger than the object will
be in the photograph and is warped down into it, which is the antialiasing. Colours are premultiplied by alpha, and
planar ([3, H, W]), which numpy handles several times faster.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from transfer.data import sample_noise

MARGIN = 1.05
"""The canvas shows [-MARGIN, MARGIN]."""
AMBIENT = 0.38
DIRECT = 0.80
RELIEF_SIDE = 40
"""Normals of irregular shapes are computed on a grid of at most this side."""

_TURN = np.arange(40) * (2 * np.pi / 40)
_CIRCLE = np.column_stack([np.cos(_TURN), np.sin(_TURN)])

Points = Sequence[Sequence[float] | np.ndarray] | np.ndarray


@dataclass(slots=True)
class Shading:
    """Light on a surface: `diffuse` multiplies its colour, `gloss` in [0, 1] is where the highlight lies."""

    diffuse: np.ndarray
    gloss: np.ndarray | None = None


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB, [3, 1, 1] float32 in [0, 1]; hue wraps, the others are clipped."""
    rgb = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return np.array(rgb, np.float32)[:, None, None]


@lru_cache(maxsize=32)
def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    axis = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1) * MARGIN
    return np.tile(axis, (side, 1)), np.tile(axis[:, None], (1, side))


@lru_cache(maxsize=256)
def _spline_tables(count: int, closed: bool, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights of four neighbouring knots at each step of a segment, and those knots' indices."""
    t = (np.arange(steps) / steps)[:, None]
    weights = [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3]
    segments = count if closed else count - 3
    neighbours = np.arange(segments)[:, None] + np.arange(4) - (1 if closed else 0)
    return np.concatenate(weights, 1) / 2, neighbours % count


def spline(points: Points, *, closed: bool = True, steps: int = 7) -> np.ndarray:
    """A Catmull-Rom curve through the points.

    Args:
        points: [N, 2].
        closed: whether the last point joins the first.
        steps: points a segment.

    Returns:
        [M, 2] float64.
    """
    knots = np.asarray(points, np.float64)
    if not closed:
        knots = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    basis, neighbours = _spline_tables(len(knots), closed, steps)
    curve = (basis @ knots[neighbours]).reshape(-1, 2)  # [steps, 4] @ [segments, 4, 2]
    return curve if closed else np.concatenate([curve, knots[-2:-1]])


class Canvas:
    """One object in the making.

    Args:
        side: pixels of the square canvas.
        rng: source of everything random about the object.
        light: unit vector to the light in the object's frame: x right, y down, z to the viewer.
        variation: how far proportions stray from the middle of their range; 1 uses the whole range.
    """

    def __init__(
        self, side: int, rng: np.random.Generator, light: tuple[float, float, float], *, variation: float = 1.0
    ) -> None:
        self.side = side
        self.rng = rng
        self.light = light
        self.variation = variation
        self.x, self.y = _grid(side)
        self.rgb = np.zeros((3, side, side), np.float32)
        self.alpha = np.zeros((side, side), np.float32)

    # Random choices

    def vary(self, low: float, high: float) -> float:
        """A proportion in [low, high], nearer the middle for a small `variation`."""
        return (low + high) / 2 + (self.rng.random() - 0.5) * (high - low) * self.variation

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def pick(self, *options: str) -> str:
        """One of the options."""
        return options[int(self.rng.integers(len(options)))]

    def paint_colour(self) -> np.ndarray:
        """A colour as made things have it: any hue, or white, grey, black, brown."""
        rng = self.rng
        if rng.random() < 0.62:
            return hsv(rng.random(), rng.uniform(0.35, 0.9), rng.uniform(0.3, 0.92))
        return hsv(rng.uniform(0.02, 0.15), rng.uniform(0.0, 0.35), rng.uniform(0.08, 0.95))

    def near(self, colour: np.ndarray, amount: float = 0.08) -> np.ndarray:
        """The colour, a little off."""
        return np.clip(colour + self.rng.normal(0, amount, (3, 1, 1)).astype(np.float32), 0.01, 1)

    # Shapes: uint8 masks

    def _pixels(self, points: Points) -> np.ndarray:
        scaled = (np.asarray(points, np.float64) / MARGIN * 0.5 + 0.5) * self.side - 0.5
        return np.round(scaled * 16).astype(np.int32)

    def polygon(self, points: Points) -> np.ndarray:
        """Mask of a filled polygon."""
        mask = np.zeros((self.side, self.side), np.uint8)
        cv2.fillPoly(mask, [self._pixels(points)], 255, cv2.LINE_AA, 4)
        return mask

    def blob(self, points: Points) -> np.ndarray:
        """Mask of a closed smooth outline through the points."""
        return self.polygon(spline(points))

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0) -> np.ndarray:
        """Mask of an ellipse turned by `angle` radians."""
        c, s = math.cos(angle), math.sin(angle)
        axes = np.array([(radius_x * c, radius_x * s), (-radius_y * s, radius_y * c)])
        return self.polygon(_CIRCLE @ axes + (x, y))

    def box(self, left: float, top: float, right: float, bottom: float) -> np.ndarray:
        """Mask of an upright rectangle."""
        return self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)])

    def lines(self, curves: Sequence[Points], width: float) -> np.ndarray:
        """Mask of several open lines of one width, at least a pixel."""
        mask = np.zeros((self.side, self.side), np.uint8)
        thickness = max(1, round(width / MARGIN * 0.5 * self.side))
        cv2.polylines(mask, [self._pixels(curve) for curve in curves], False, 255, thickness, cv2.LINE_AA, 4)
        return mask

    def dots(self, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """Mask of several filled circles; centres [N, 2], radii [N]."""
        mask = np.zeros((self.side, self.side), np.uint8)
        sizes = np.maximum(radii / MARGIN * 0.5 * self.side * 16, 8).astype(int)
        for (x, y), radius in zip(self._pixels(centres).tolist(), sizes.tolist()):
            cv2.circle(mask, (x, y), radius, 255, -1, cv2.LINE_AA, 4)
        return mask

    # Texture

    def noise(self, zoom: float | tuple[float, float] = 1.0, kind: str = "soft") -> np.ndarray:
        """Noise over the canvas, the same coarseness on the object whatever the canvas's side."""
        factor = self.side / 160
        zoom_y, zoom_x = zoom if isinstance(zoom, tuple) else (zoom, zoom)
        return sample_noise.noise(self.rng, (self.side, self.side), (zoom_y * factor, zoom_x * factor), kind)

    def radial_noise(self, x: float, y: float, *, angular: float = 60, radial: float = 20) -> np.ndarray:
        """Noise in strands that run away from (x, y), mirrored left and right; larger numbers are finer."""
        angle = np.abs(np.arctan2(self.x - x, -(self.y - y)))
        radius = np.hypot(self.x - x, self.y - y)
        shift = self.rng.uniform(0, 800, 2).astype(np.float32)
        field = sample_noise.bank("fine")
        return cv2.remap(
            field, angle * angular + shift[0], radius * radial + shift[1], cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT
        )

    def mottled(self, colour: np.ndarray, amount: float = 0.12, zoom: float | tuple[float, float] = 1.0) -> np.ndarray:
        """The colour with uneven brightness, [3, side, side]."""
        return colour * (1 + amount * self.noise(zoom))

    def wood(self, colour: np.ndarray, *, along_x: bool = False) -> np.ndarray:
        """Wood of this colour, grain along y unless `along_x`; [3, side, side]."""
        zoom = (0.7, 6.0) if along_x else (6.0, 0.7)
        grain = np.sin(self.noise(zoom) * 5) * 0.13 + self.noise(zoom, "fine") * 0.07
        return colour * (1 + grain)

    # Light

    def lit(self, normal_x: np.ndarray, normal_y: np.ndarray, shine: int = 0) -> Shading:
        """Light on a surface with these normals (their z is what remains of length 1); a highlight if `shine` > 0."""
        normal_z = np.sqrt(np.maximum(1 - normal_x * normal_x - normal_y * normal_y, 0))
        x, y, z = self.light
        diffuse = AMBIENT + DIRECT * np.maximum(normal_x * x + normal_y * y + normal_z * z, 0)
        if not shine:
            return Shading(diffuse)
        norm = math.sqrt(x * x + y * y + (z + 1) ** 2)
        half = (x / norm, y / norm, (z + 1) / norm)
        gloss = cv2.pow(np.maximum(normal_x * half[0] + normal_y * half[1] + normal_z * half[2], 0), shine)
        return Shading(diffuse, gloss)

    def relief(self, mask: np.ndarray, roundness: float = 1.0, shine: int = 0) -> Shading:
        """Light on the mask as if it were blown up to a cushion.

        Args:
            mask: [side, side] uint8.
            roundness: 1 makes a disc a half sphere; less is flatter.
            shine: exponent of the highlight; 0 for a surface without.
        """
        left, top, width, height = cv2.boundingRect(mask)
        full = Shading(
            np.empty_like(self.alpha), np.empty_like(self.alpha) if shine else None
        )  # filled, and read, only where the mask is
        if width == 0:
            return full
        part = (slice(top, top + height), slice(left, left + width))
        shrink = max(1.0, max(width, height) / RELIEF_SIDE)
        size = (max(2, round(width / shrink)), max(2, round(height / shrink)))
        small = cv2.copyMakeBorder(cv2.resize(mask[part], size, interpolation=cv2.INTER_AREA), 2, 2, 2, 2, 0)
        depth = cv2.distanceTransform((small > 127).view(np.uint8), cv2.DIST_L2, 3)
        peak = max(float(depth.max()), 1.0)
        height_map = cv2.GaussianBlur(np.sqrt(depth * (2 * peak - depth)), (0, 0), 0.6 + peak / 9)
        slope_x = cv2.Sobel(height_map, cv2.CV_32F, 1, 0, scale=roundness / 8)
        slope_y = cv2.Sobel(height_map, cv2.CV_32F, 0, 1, scale=roundness / 8)
        length = np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
        shading = self.lit(-slope_x / length, -slope_y / length, shine)
        full.diffuse[part] = cv2.resize(shading.diffuse[2:-2, 2:-2], (width, height))
        if full.gloss is not None and shading.gloss is not None:
            full.gloss[part] = cv2.resize(shading.gloss[2:-2, 2:-2], (width, height))
        return full

    def column(self, middle: np.ndarray | float, half_width: np.ndarray | float, shine: int = 0) -> Shading:
        """Light on an upright round body with this axis and half width at each row ([side, 1] or numbers)."""
        normal_x = np.clip((self.x - middle) / np.maximum(half_width, 1e-3), -1, 1) * 0.97
        return self.lit(normal_x, np.zeros_like(normal_x), shine)

    # Painting

    def paint(
        self,
        mask: np.ndarray,
        colour: np.ndarray,
        shading: Shading | None = None,
        *,
        gloss: float = 0.0,
        opacity: float = 1.0,
        inside: np.ndarray | None = None,
    ) -> None:
        """Lay a colour over the mask.

        Args:
            mask: [side, side] uint8.
            colour: [3, 1, 1] or [3, side, side] float32.
            shading: light on the surface; None leaves the colour as it is.
            gloss: strength of the highlight in [0, 1].
            opacity: share of the paint in the mix.
            inside: mask that the paint must not leave.
        """
        if inside is not None:
            mask = cv2.multiply(mask, inside, scale=1 / 255)
        left, top, width, height = cv2.boundingRect(mask)
        if width == 0:
            return
        part = (slice(top, top + height), slice(left, left + width))
        share = mask[part].astype(np.float32) * np.float32(opacity / 255)
        layer = colour[:, part[0], part[1]] if colour.shape[2] > 1 else colour
        if shading is not None:
            layer = layer * shading.diffuse[part]
            if gloss and shading.gloss is not None:
                layer = layer + shading.gloss[part] * np.float32(gloss)
        under = self.rgb[:, part[0], part[1]]
        under += (layer - under) * share
        cover = self.alpha[part]
        cover += (1 - cover) * share

    def darken(self, mask: np.ndarray, amount: float, blur: float = 0.0) -> None:
        """Darken what is drawn under the mask by `amount` in [0, 1], with an edge `blur` wide."""
        if blur:
            mask = cv2.GaussianBlur(mask, (0, 0), max(blur * self.side * 0.5, 0.3))
        left, top, width, height = cv2.boundingRect(mask)
        part = (slice(None), slice(top, top + height), slice(left, left + width))
        self.rgb[part] *= 1 - mask[part[1:]].astype(np.float32) * np.float32(amount / 255)

    def see_through(self, mask: np.ndarray, amount: float) -> None:
        """Make what is drawn under the mask transparent by `amount` in [0, 1]."""
        keep = 1 - mask.astype(np.float32) * np.float32(amount / 255)
        self.rgb *= keep
        self.alpha *= keep

    def finished(self) -> np.ndarray:
        """[side, side, 4] float32: premultiplied RGB and alpha, in [0, 1]."""
        return cv2.merge([*np.minimum(np.maximum(self.rgb, 0), self.alpha), self.alpha])
