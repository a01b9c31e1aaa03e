"""AlexNet's colour noise: one shift of the whole image along the main directions of ImageNet's colours.

Sources: Krizhevsky et al. 2012, ImageNet Classification with Deep CNNs, section 4.1; He et al. 2018, Bag of Tricks,
arXiv 1812.01187, section 2.1 (coefficients from N(0, 0.1)). The eigenvalues and eigenvectors are those that the usual
training scripts list for ImageNet's RGB pixels (MXNet's for 0..255; Torch's 0.2175, 0.0188, 0.0045 are the same for
0..1). albumentations' FancyPCA takes the directions from the one image instead, so it is not used.

Rounding: images stay uint8, so the shift of each channel is rounded to the nearest whole grey level (an error of at
most a half) and the result is clipped to 0..255. With the default the shift's standard deviation is about 3.2.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from transfer.types import Request, Sample, UserError, is_number

EIGENVALUES = (55.46, 4.794, 1.148)
"""Of ImageNet's colours, for 0..255."""

EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
"""Rows R, G, B; one column for each eigenvalue."""


class PCANoise:
    """Adds one random colour to all pixels, drawn along the main directions of ImageNet's colours."""

    def __init__(self, std: float = 0.1) -> None:
        """Set the strength; the default is that of Bag of Tricks (and of AlexNet).

        Args:
            std: standard deviation of the three coefficients, which multiply the eigenvalues; 0 or more, 0 for none.

        Raises:
            UserError: for a negative strength.
        """
        if not (is_number(std) and 0 <= std < math.inf):
            raise UserError(f"PCANoise: std={std!r} must be a number, 0 or more (0.1 in the papers)")
        self.std = std
        self._directions = np.array(EIGENVECTORS) * np.array(EIGENVALUES)  # [3 channels, 3 directions]

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The shifted sample with the same boxes and mask, or the sample itself."""
        if self.std == 0:
            return sample
        return replace(sample, image=shift_colours(sample.image, self._directions @ rng.normal(0, self.std, 3)))


def shift_colours(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The image with a colour added to every pixel, rounded and clipped.

    Args:
        image: [H, W, 3] uint8; stays as it is.
        shift: [3] grey levels, RGB.

    Returns:
        [H, W, 3] uint8.
    """
    return cv2.add(image, (*np.rint(shift).tolist(), 0))  # saturates; a scalar of OpenCV has four parts
