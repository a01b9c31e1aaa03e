"""Light and lens of the embedded sample: shadows, vignetting, colour temperature, blur and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from transfer.data.sample_noise import BANK_SIDE, noise


@dataclass(frozen=True, slots=True)
class Light:
    """Where the light of a scene is (unit vector: x right, y down, z to the camera) and how hard its shadows are."""

    x: float
    y: float
    z: float
    depth: float
    """Darkness of the shadows in [0, 1]."""
    softness: float
    """Blur of the shadows as a share of the object's side."""

    @classmethod
    def draw(cls, rng: np.random.Generator, *, above: bool) -> Light:
        """A random light; it comes from above the ground where the camera looks ahead."""
        azimuth = rng.uniform(0, 2 * math.pi) if above else rng.uniform(-0.9, 0.9) * math.pi / 2 - math.pi / 2
        lift = rng.uniform(0.5, 1.2)
        flat = math.cos(lift)
        depth, softness = rng.uniform(0.25, 0.7), rng.uniform(0.02, 0.07)
        return cls(math.cos(azimuth) * flat, math.sin(azimuth) * flat, math.sin(lift), depth, softness)

    def cast(self, image: np.ndarray, alpha: np.ndarray, left: int, top: int, *, above: bool, floats: bool) -> None:
        """Darken the picture where an object throws its shadow.

        Args:
            image: [H, W, 3] float32, changed in place.
            alpha: [h, w] float32 of the object, whose corner is at (left, top).
            above: the camera looks down on the ground; otherwise ahead, over it.
            floats: the object does not touch the ground.
        """
        height, width = alpha.shape
        side = max(height, width)
        blur = max(self.softness * side, 0.8) * (2.5 if floats else 1.0)
        if above:
            reach = side * (0.35 if floats else 0.1)
            matrix = np.array([[1, 0, left - self.x / self.z * reach], [0, 1, top - self.y / self.z * reach]])
        else:
            # The ground shadow: flattened to a quarter about the foot, leaning away from the light.
            lean, flat, foot = self.x * 0.5, 0.22, top + height - 2.0
            drop = height * 0.5 if floats else 0.0
            matrix = np.array([[1, lean, left - lean * (height - 2)], [0, flat, foot + drop - flat * (height - 2)]])
        self._darken(image, alpha, matrix, blur, self.depth)
        if not above and not floats and side > 24:
            contact = np.array([[0.9, 0, left + width * 0.05], [0, 0.06, top + height - 2 - height * 0.05]])
            self._darken(image, alpha, contact, max(0.02 * side, 0.7), 0.6)

    @staticmethod
    def _darken(image: np.ndarray, alpha: np.ndarray, matrix: np.ndarray, blur: float, depth: float) -> None:
        height, width = alpha.shape
        corners = matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
        pad = 2 * blur + 2
        x0, y0 = (max(int(v), 0) for v in np.floor(corners.min(1) - pad))
        x1, y1 = (min(int(v), limit) for v, limit in zip(np.ceil(corners.max(1) + pad), image.shape[1::-1]))
        if x1 - x0 < 2 or y1 - y0 < 2:
            return
        step = 4 if blur > 6 else 2 if blur > 2 else 1  # a soft shadow needs few pixels
        local = matrix.copy()
        local[:, 2] -= x0, y0
        size = (math.ceil((x1 - x0) / step), math.ceil((y1 - y0) / step))
        shade = cv2.warpAffine(alpha, local / step, size, flags=cv2.INTER_LINEAR)
        shade = cv2.GaussianBlur(shade, (0, 0), blur / step)
        if step > 1:
            shade = cv2.resize(shade, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
        image[y0:y1, x0:x1] *= cv2.merge([1 - np.float32(depth) * shade] * 3)


def photograph(rng: np.random.Generator, image: np.ndarray, *, noise_limit: float, blur_limit: float) -> np.ndarray:
    """What the camera makes of the scene: uneven light, tint, exposure, vignetting, blur and sensor noise.

    Args:
        image: [H, W, 3] float32, about [0, 1].
        noise_limit: largest standard deviation of the noise, of full scale.
        blur_limit: largest standard deviation of the blur in pixels.

    Returns:
        [H, W, 3] uint8.
    """
    height, width = image.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    field = 1 - np.float32(rng.uniform(0.0, 0.22)) * (x * x + y * y)
    slope = rng.normal(0, 0.09, 2).astype(np.float32)
    field += slope[0] * x + slope[1] * y
    if rng.random() < 0.25:  # dappled light
        dapple = cv2.resize(noise(rng, (12, 12), 0.5), (width, height), interpolation=cv2.INTER_CUBIC)
        field += np.float32(0.13) * np.clip(dapple, -1.5, 1.5)
    warmth = rng.normal(0, 0.07)
    exposure = math.exp(rng.normal(0, 0.16))
    gains = np.array([1 + warmth, 1 + rng.normal(0, 0.015), 1 - warmth]) * exposure
    contrast, lift, grey = rng.uniform(0.72, 1.12), rng.uniform(0.0, 0.07), rng.uniform(-0.1, 0.35)
    # Gains, then contrast about 0.45, then the lens's loss of saturation: one matrix, [3, 4].
    desaturate = (1 - grey) * np.eye(3) + grey / 3
    colours = np.column_stack([desaturate @ np.diag(gains) * contrast, np.full(3, 0.45 * (1 - contrast) + lift)])
    image = cv2.multiply(image, cv2.merge([field] * 3))
    image = cv2.transform(image, colours, dst=image)
    blur = rng.uniform(0.25, max(blur_limit, 0.26))
    image = cv2.GaussianBlur(image, (5, 5), blur)
    if rng.random() < 0.06:
        image = cv2.blur(image, (3, 1) if rng.random() < 0.5 else (1, 3))
    level = noise_limit * rng.random() ** 1.5
    zoom = max(1.0, 3 * width / BANK_SIDE)
    grain = noise(rng, (height, 3 * width), (1.0, zoom), "white").reshape(height, width, 3)
    return cv2.addWeighted(image, 255.0, grain, 255.0 * level, 0.0, dtype=cv2.CV_8U)
