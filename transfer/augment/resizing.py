"""Resizing with boxes and masks: by the short side, to a shape, or within a shape.

Boxes are multiplied by the ratio of the rounded sizes, which is what the pixels went through (cv2 aligns the outer
edges of the images), and `sample.scale` takes the same ratio, so boxes / (scale_x, scale_y) are the original ones.

A mask follows its image by nearest neighbour, never mixing two classes; or, in a test pipeline (mask="keep"), it stays
as it is, because predictions are measured in original pixels. The neighbour is the nearest by pixel centres
(cv2.INTER_NEAREST_EXACT): cv2.INTER_NEAREST takes the pixel's top-left corner, which moves a mask by up to half a pixel
against an image that was resized with any other interpolation.

Deviation: cv2's "bilinear" and "bicubic" do not average when they shrink, unlike PIL's, which most classifiers are
trained with; "area" averages when it shrinks and is bilinear when it enlarges.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import Literal, get_args

import cv2
import numpy as np

from transfer.augment.placing import fitting_mask, place_boxes
from transfer.types import Request, Sample, Size, UserError, is_number

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


LARGEST = 1 << 28
"""Pixels of a resized image: beyond any that is read."""

MaskRule = Literal["follow", "keep"]
"""What becomes of a mask where its image is resized: it is resized, too, or stays of the original size (test)."""


def resize_sample(
    sample: Sample,
    size: Size,
    step: str,
    *,
    interpolation: str = "bilinear",
    min_side: float | None = 1.0,
    mask: MaskRule = "follow",
) -> Sample:
    """The sample at another size, not keeping its aspect.

    Args:
        sample: stays as it is.
        size: (height, width), pixels.
        step: name that dropped boxes are counted under.
        interpolation: a key of INTERPOLATIONS.
        min_side: as in `place_boxes`.
        mask: "follow" resizes the sample's mask, too; "keep" leaves it as it is (test).

    Raises:
        UserError: when a mask is to follow that has another size than the image, or the size is beyond `LARGEST`.
    """
    height, width = sample.image.shape[:2]
    if size[0] * size[1] > LARGEST:
        raise UserError(
            f"{step}: {sample.path} would have {size[0]}x{size[1]} px, at most {LARGEST} in all are made: lower the "
            "size (or the scale) of augment or loader.test_time"
        )
    moved = sample.mask if mask == "keep" else fitting_mask(sample, step)
    if (height, width) == size:
        return place_boxes(sample, sample.image, sample.boxes, step, min_side=min_side, mask=moved)
    if moved is not None and mask == "follow":
        moved = cv2.resize(moved, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    mode = INTERPOLATIONS[interpolation]
    if interpolation == "area" and (size[0] > height or size[1] > width):
        mode = cv2.INTER_LINEAR
    image = cv2.resize(sample.image, (size[1], size[0]), interpolation=mode)
    scale_y, scale_x = size[0] / height, size[1] / width
    boxes = sample.boxes * np.array([scale_x, scale_y, scale_x, scale_y])  # in float64; rounded once, to float32
    resized = place_boxes(sample, image, boxes, step, min_side=min_side, mask=moved)
    return replace(resized, scale=(sample.scale[0] * scale_y, sample.scale[1] * scale_x))


class ResizeShortSide:
    """Brings the short side to a length unless the long side would get too long; keeps the aspect."""

    def __init__(
        self,
        short: int = 600,
        long_max: int = 1000,
        *,
        interpolation: str = "bilinear",
        min_side: float | None = 1.0,
        mask: MaskRule = "follow",
    ) -> None:
        """Set the size.

        Args:
            short: wanted length of the short side, pixels.
            long_max: greatest length of the long side, pixels; it rules where both cannot hold.
            interpolation: nearest, bilinear, bicubic, area or lanczos.
            min_side: boxes with a side below it are dropped, pixels; None: keep all (test).
            mask: "follow" or "keep" (test), as in `resize_sample`.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = interpolation_problems(interpolation) + _mask_problems(mask)
        if not 1 <= short <= long_max:
            problems.append(f"short={short} must be at least 1 and at most long_max={long_max}")
        if problems:
            raise UserError("ResizeShortSide: " + "; ".join(problems))
        self.short = short
        self.long_max = long_max
        self.interpolation = interpolation
        self.min_side = min_side
        self.mask = mask

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The resized sample; does not look at `request.size`."""
        height, width = sample.image.shape[:2]
        ratio = min(self.short / min(height, width), self.long_max / max(height, width))
        size = (rounded(height * ratio), rounded(width * ratio))
        return resize_sample(
            sample, size, "ResizeShortSide", interpolation=self.interpolation, min_side=self.min_side, mask=self.mask
        )


class ResizeBy:
    """Brings both sides to a factor of their own length: what testing at several scales does to whole images."""

    def __init__(
        self,
        factor: float = 1.0,
        *,
        interpolation: str = "bilinear",
        min_side: float | None = 1.0,
        mask: MaskRule = "follow",
    ) -> None:
        """Set the factor.

        Args:
            factor: pixels of the resized image per pixel, above 0.
            interpolation: nearest, bilinear, bicubic, area or lanczos.
            min_side: boxes with a side below it are dropped, pixels; None: keep all (test).
            mask: "follow" or "keep" (test), as in `resize_sample`.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = interpolation_problems(interpolation) + _mask_problems(mask)
        if not is_number(factor) or not 0 < factor <= 100:
            problems.append(f"factor={factor!r} must be a number in (0, 100]")
        if problems:
            raise UserError("ResizeBy: " + "; ".join(problems))
        self.factor = factor
        self.interpolation = interpolation
        self.min_side = min_side
        self.mask = mask

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The resized sample; does not look at `request.size`."""
        height, width = sample.image.shape[:2]
        size = (rounded(height * self.factor), rounded(width * self.factor))
        return resize_sample(
            sample, size, "ResizeBy", interpolation=self.interpolation, min_side=self.min_side, mask=self.mask
        )


class ResizeTo:
    """Brings the image to the requested shape, not keeping its aspect (the one-stage detectors' way)."""

    def __init__(
        self,
        size: int | Size | None = None,
        *,
        interpolation: str = "bilinear",
        min_side: float | None = 1.0,
        mask: MaskRule = "follow",
    ) -> None:
        """Set the size.

        Args:
            size: side of a square or (height, width), pixels, used where the request has no shape; None: the request
                must have one.
            interpolation: nearest, bilinear, bicubic, area or lanczos.
            min_side: boxes with a side below it are dropped, pixels; None: keep all (test).
            mask: "follow" or "keep" (test), as in `resize_sample`.

        Raises:
            UserError: with every argument that does not fit.
        """
        self.size = checked_size("ResizeTo", size, interpolation_problems(interpolation) + _mask_problems(mask))
        self.interpolation = interpolation
        self.min_side = min_side
        self.mask = mask

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The resized sample.

        Raises:
            UserError: when neither the request nor the step has a size.
        """
        size = wanted_size("ResizeTo", request.size, self.size)
        return resize_sample(
            sample, size, "ResizeTo", interpolation=self.interpolation, min_side=self.min_side, mask=self.mask
        )


class LetterboxTo:
    """Brings the image to the largest size that fits the requested shape, keeping its aspect, at the top-left corner.

    The rest of the shape is left to collate, which pads with the backbone's mean and writes down which part is image.
    """

    def __init__(
        self,
        size: int | Size | None = None,
        *,
        interpolation: str = "bilinear",
        min_side: float | None = 1.0,
        mask: MaskRule = "follow",
    ) -> None:
        """Set the size.

        Args:
            size: side of a square or (height, width), pixels, used where the request has no shape; None: the request
                must have one.
            interpolation: nearest, bilinear, bicubic, area or lanczos.
            min_side: boxes with a side below it are dropped, pixels; None: keep all (test).
            mask: "follow" or "keep" (test), as in `resize_sample`.

        Raises:
            UserError: with every argument that does not fit.
        """
        self.size = checked_size("LetterboxTo", size, interpolation_problems(interpolation) + _mask_problems(mask))
        self.interpolation = interpolation
        self.min_side = min_side
        self.mask = mask

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The resized sample; at least one of its sides is the requested one.

        Raises:
            UserError: when neither the request nor the step has a size.
        """
        wanted = wanted_size("LetterboxTo", request.size, self.size)
        height, width = sample.image.shape[:2]
        ratio = min(wanted[0] / height, wanted[1] / width)
        size = (min(rounded(height * ratio), wanted[0]), min(rounded(width * ratio), wanted[1]))
        return resize_sample(
            sample, size, "LetterboxTo", interpolation=self.interpolation, min_side=self.min_side, mask=self.mask
        )


def interpolation_problems(interpolation: str) -> list[str]:
    """What is wrong with an interpolation's name: nothing, or one message."""
    if interpolation in INTERPOLATIONS:
        return []
    near = get_close_matches(str(interpolation), INTERPOLATIONS, n=1, cutoff=0)
    return [f"interpolation={interpolation!r} is not one of {', '.join(INTERPOLATIONS)}; the nearest is {near[0]!r}"]


def checked_size(step: str, size: int | Size | None, problems: list[str]) -> Size | None:
    """A step's own size as (height, width).

    Args:
        step: its name.
        size: side of a square or (height, width), pixels; None: the step has none.
        problems: what is wrong with its other arguments.

    Raises:
        UserError: with every argument that does not fit.
    """
    pair = (size, size) if isinstance(size, int) else size
    if pair is not None and (len(pair) != 2 or min(pair) < 1):
        problems = [*problems, f"size={size!r} must be positive pixels, as 416 or (height, width)"]
    if problems:
        raise UserError(f"{step}: " + "; ".join(problems))
    return None if pair is None else (int(pair[0]), int(pair[1]))


def wanted_size(step: str, requested: Size | None, own: Size | None) -> Size:
    """The size that the batch asks for, or else the step's own.

    Raises:
        UserError: when there is neither.
    """
    size = own if requested is None else requested
    if size is None:
        raise UserError(f"{step}: no size: give {step}(size=...), or the batches a shape (FixedShape, RandomShapes)")
    return size


def rounded(length: float) -> int:
    """A side in whole pixels, half up (Python's round takes 2.5 to 2), at least 1."""
    return max(1, int(length + 0.5))


def _mask_problems(mask: str) -> list[str]:
    return [] if mask in get_args(MaskRule) else [f"mask={mask!r} is neither 'follow' nor 'keep'"]
