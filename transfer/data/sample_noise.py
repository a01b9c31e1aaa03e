"""Cheap fractal noise for the embedded sample: windows cut from a bank that is computed once.

A window with a random place, flip and zoom costs microseconds where fresh octaves cost a millisecond each; the bank is
the same for every seed, the windows are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from transfer.types import Size

BANK_SIDE = 1024
BANK_SEED = 20070101


def _standardised(field: np.ndarray) -> np.ndarray:
    return ((field - field.mean()) / field.std()).astype(np.float32)


@cache
def bank(kind: str) -> np.ndarray:
    """The bank of one kind of noise, with mean 0 and standard deviation 1.

    Args:
        kind: `soft` (clouds: amplitude falls as 1/f), `fine` (grain a few pixels wide) or `white`.

    Returns:
        [BANK_SIDE, BANK_SIDE] float32.
    """
    rng = np.random.default_rng([BANK_SEED, ("soft", "fine", "white").index(kind)])
    if kind == "white":
        return rng.standard_normal((BANK_SIDE, BANK_SIDE), dtype=np.float32)
    field = np.zeros((BANK_SIDE, BANK_SIDE), np.float32)
    first, last, slope = (3, 10, 1.0) if kind == "soft" else (7, 10, 0.4)
    for octave in range(first, last + 1):
        grid = rng.standard_normal((2**octave, 2**octave), dtype=np.float32)
        field += cv2.resize(grid, (BANK_SIDE, BANK_SIDE), interpolation=cv2.INTER_CUBIC) * 2.0 ** (-slope * octave)
    return _standardised(field)


@cache
def cell_bank() -> tuple[np.ndarray, np.ndarray]:
    """Random cells (a Voronoi diagram) in the manner of pebbles.

    Returns:
        Height in a cell [BANK_SIDE, BANK_SIDE] float32 in [0, 1], 1 at its middle; tint of the cell, same shape, in
        [-1, 1].
    """
    rng = np.random.default_rng([BANK_SEED, 9])
    seeds = np.full((BANK_SIDE, BANK_SIDE), 255, np.uint8)
    spots = rng.integers(0, BANK_SIDE, (5000, 2))
    seeds[spots[:, 0], spots[:, 1]] = 0
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    tint = rng.uniform(-1, 1, labels.max() + 1).astype(np.float32)[labels]
    smooth = cv2.GaussianBlur(np.asarray(distance, np.float32), (0, 0), 1.0)
    return np.clip(1 - smooth / 11.0, 0, 1).astype(np.float32), tint


def cut(rng: np.random.Generator, fields: Sequence[np.ndarray], size: Size, zoom: float | tuple[float, float]) -> list:
    """The same random window of several bank fields.

    Args:
        rng: source of the place and the flips.
        fields: [BANK_SIDE, BANK_SIDE] float32 each.
        size: of the window to return.
        zoom: magnification, or (y, x) magnifications; above 1 makes the pattern coarser.

    Returns:
        One [H, W] float32 array per field.
    """
    zoom_y, zoom_x = zoom if isinstance(zoom, tuple) else (zoom, zoom)
    height = min(max(2, round(size[0] / zoom_y)), BANK_SIDE)
    width = min(max(2, round(size[1] / zoom_x)), BANK_SIDE)
    top, left = (int(v) for v in rng.integers(0, (BANK_SIDE - height + 1, BANK_SIDE - width + 1)))
    flip = int(rng.integers(-1, 2))  # both ways, upside down, left to right
    windows = []
    for field in fields:
        window = field[top : top + height, left : left + width]
        if window.shape != size:
            window = cv2.resize(window, size[::-1], interpolation=cv2.INTER_LINEAR)
        windows.append(cv2.flip(window, flip))
    return windows


def noise(
    rng: np.random.Generator, size: Size, zoom: float | tuple[float, float] = 1.0, kind: str = "soft"
) -> np.ndarray:
    """A window of noise, [H, W] float32, about mean 0 and standard deviation 1. See `cut` and `bank`."""
    return cut(rng, [bank(kind)], size, zoom)[0]


def cells(rng: np.random.Generator, size: Size, zoom: float | tuple[float, float] = 1.0) -> tuple:
    """A window of pebbles: height and tint, [H, W] float32 each. See `cell_bank`."""
    height, tint = cut(rng, cell_bank(), size, zoom)
    return height, tint


def blend(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Colour `first` where share is 0, `second` where it is 1.

    Args:
        first: [3, 1, 1] or [3, H, W] float32.
        second: [3, 1, 1] or [3, H, W] float32.
        share: [H, W] float32 in [0, 1].

    Returns:
        [3, H, W] float32.
    """
    return first + (second - first) * share


def soft_step(field: np.ndarray, edge: float, width: float) -> np.ndarray:
    """0 well below `edge`, 1 well above it, with a ramp of `width` between; float32."""
    return np.clip((field - edge) * np.float32(1 / width) + np.float32(0.5), 0, 1)
