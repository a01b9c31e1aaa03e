"""Random brightness, contrast, saturation and hue, as one map of colours.

Sources: He et al. 2018, Bag of Tricks, arXiv 1812.01187, section 2.1 (factors U[0.6, 1.4]); Zhang et al. 2019, Bag of
Freebies, arXiv 1902.04103, whose data pipeline (GluonCV, after MXNet's image augmenters) turns the hue by rotating the
two colour axes of YIQ, which is linear, and clips once, at the end. So each change is a matrix. Brightness and contrast
stretch a colour, saturation stretches its two colour axes and the hue turns them: whatever the order, the result is the
same, and all of them together are one matrix, by which the photograph is read and written once.

Deviations from torchvision's and albumentations' ColorJitter, which pass over the photograph for each change, through
HSV for the hue (1.4 ms for 500x375, where this takes 0.2): values are rounded and clipped once, at the end, so that
no order need be drawn. A turn in YIQ keeps the luma of a colour, where HSV keeps its largest and smallest channel; grey
stays grey in both, and a tenth of a turn here is 0.07 to 0.14 of one there.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from transfer.types import Request, Sample, UserError

YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""RGB to the luma and the two colour axes of NTSC; the luma is what OpenCV, Pillow and torchvision call grey."""

_RGB = np.linalg.inv(YIQ)


class ColorJitter:
    """Changes brightness, contrast, saturation and hue at random."""

    def __init__(
        self,
        *,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        p: float = 1.0,
    ) -> None:
        """Set the strengths; the defaults are Bag of Tricks' factors U[0.6, 1.4], with a gentler hue.

        Args:
            brightness: factors are drawn from [1 - brightness, 1 + brightness], in [0, 1].
            contrast: as brightness.
            saturation: as brightness.
            hue: shift is drawn from [-hue, hue] turns of the colour circle, in [0, 0.5].
            p: probability, in [0, 1].

        Raises:
            UserError: with every argument that does not fit.
        """
        limits = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5, "p": 1.0}
        values = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue, "p": p}
        problems = [
            f"{name}={value} must be in [0, {limits[name]}]"
            for name, value in values.items()
            if not 0 <= value <= limits[name]
        ]
        if problems:
            raise UserError("ColorJitter: " + "; ".join(problems))
        self.brightness, self.contrast, self.saturation, self.hue, self.p = brightness, contrast, saturation, hue, p

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The sample with other colours and the same boxes and mask, or the sample itself."""
        if rng.random() >= self.p:
            return sample
        limits = np.array([self.brightness, self.contrast, self.saturation, self.hue])
        brightness, contrast, saturation, turns = rng.uniform(-limits, limits).tolist()
        mean = float(YIQ[0] @ cv2.mean(sample.image)[:3])
        colours = colour_map(1 + brightness, 1 + contrast, 1 + saturation, turns, mean)
        return replace(sample, image=cv2.transform(sample.image, colours))


def colour_map(brightness: float, contrast: float, saturation: float, turns: float, mean: float) -> np.ndarray:
    """The map of all four changes.

    Args:
        brightness: factor of a colour.
        contrast: factor of its distance from the mean grey.
        saturation: factor of its distance from its own grey.
        turns: its hue's way around the colour circle; 1 is the whole circle.
        mean: the mean grey of the image, 0..255.

    Returns:
        [3, 4]: times (red, green, blue, 1), 0..255, it gives the new colour.
    """
    cosine, sine = saturation * math.cos(2 * math.pi * turns), saturation * math.sin(2 * math.pi * turns)
    linear = _RGB @ np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]]) @ YIQ
    shift = np.full((3, 1), brightness * (1 - contrast) * mean)
    return np.hstack([brightness * contrast * linear, shift])
