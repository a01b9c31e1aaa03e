"""Random scale and crop of an image with its mask.

Source: GluonCV's recipe for ADE20K (base 520, crop 480, scale 0.5 to 2, padding at the right and bottom), which He et
al. 2018, Bag of Tricks, arXiv 1812.01187, section 6.2, trained FCN with; the limit on one class's share of a crop is
MMSegmentation's (0.75 there).

What is outside the image is the mean colour and an ignored pixel, not class 0: the earliest form of that recipe padded
the mask with 0, which is a class there. It scaled the short side; later forms of it scale the long side, as here by
default.

Deviations: the scale is drawn evenly, not in whole pixels. Where every crop drawn has too much of one class, the one
that has least is taken, where MMSegmentation takes the last. The base length belongs to the recipe and does not follow
the batch's shape: with random shapes the crop gets larger or smaller, and objects keep their size.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from transfer.augment.geometry import IMAGENET_MEAN, centres_inside
from transfer.augment.placing import fitting_mask, place_boxes
from transfer.augment.resizing import checked_size, interpolation_problems, resize_sample, rounded, wanted_size
from transfer.types import IGNORED_PIXEL, Request, Sample, Size, UserError, is_number


class RandomScale:
    """Brings one side to a random length around the recipe's, keeping the aspect."""

    def __init__(
        self,
        base: int = 520,
        scale: tuple[float, float] = (0.5, 2.0),
        *,
        side: str = "long",
        interpolation: str = "bilinear",
        min_side: float = 1.0,
    ) -> None:
        """Set the range.

        Args:
            base: length of the side at scale 1, pixels.
            scale: range of the factor, above 0, drawn evenly.
            side: which side: "long" or "short".
            interpolation: of the image: nearest, bilinear, bicubic, area or lanczos; a mask's is always nearest.
            min_side: boxes with a side below it are dropped, pixels.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = interpolation_problems(interpolation)
        if not (is_number(base) and 1 <= base < math.inf):
            problems.append(f"base={base!r} must be at least 1 pixel")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] < math.inf:
            problems.append(f"scale={scale!r} must be (low, high), above 0")
        if side not in ("long", "short"):
            problems.append(f"side={side!r} is neither 'long' nor 'short'")
        if problems:
            raise UserError("RandomScale: " + "; ".join(problems))
        self.base = base
        self.scale = (scale[0], scale[1])
        self.side = side
        self.interpolation = interpolation
        self.min_side = min_side

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The resized sample; does not look at `request.size`."""
        height, width = sample.image.shape[:2]
        length = max(height, width) if self.side == "long" else min(height, width)
        ratio = self.base * rng.uniform(*self.scale) / length
        size = (rounded(height * ratio), rounded(width * ratio))
        return resize_sample(sample, size, "RandomScale", interpolation=self.interpolation, min_side=self.min_side)


class RandomCropWithMask:
    """Cuts a random part of one size out; where the image is too small, the rest is padding at the right and bottom."""

    def __init__(
        self,
        size: int | Size | None = None,
        *,
        category_max_ratio: float | None = None,
        trials: int = 10,
        fill: tuple[int, int, int] = IMAGENET_MEAN,
        min_side: float = 1.0,
    ) -> None:
        """Set the size.

        Args:
            size: side of a square or (height, width), pixels, used where the request has no shape; None: the request
                must have one.
            category_max_ratio: greatest share that one class may have of the crop's pixels with a class, in (0, 1];
                None: any crop will do.
            trials: crops drawn where there is such a limit; the first one within it is taken.
            fill: RGB of the padding, 0..255; the backbone's mean.
            min_side: boxes with a side below it are dropped, pixels, and so are those with their centre outside.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = []
        ratio = category_max_ratio
        if ratio is not None and not (is_number(ratio) and 0 < ratio <= 1):
            problems.append(f"category_max_ratio={ratio!r} must be above 0, up to 1, such as 0.75, or None")
        if trials < 1:
            problems.append(f"trials={trials} must be at least 1")
        self.size = checked_size("RandomCropWithMask", size, problems)
        self.category_max_ratio = category_max_ratio
        self.trials = trials
        self.fill = fill
        self.min_side = min_side

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The cropped sample, of exactly the wanted size.

        Raises:
            UserError: when neither the request nor the step has a size, or classes are to be counted without a mask.
        """
        size = wanted_size("RandomCropWithMask", request.size, self.size)
        mask = fitting_mask(sample, "RandomCropWithMask")
        if self.category_max_ratio is not None and mask is None:
            raise UserError(
                "RandomCropWithMask: category_max_ratio counts classes, but the data have no masks: give None"
            )
        height, width = sample.image.shape[:2]
        rows, columns = min(size[0], height), min(size[1], width)  # of the image, within the crop
        top, left = self._choose(mask, (rows, columns), (height, width), rng)

        missing = (0, size[0] - rows, 0, size[1] - columns)  # top, bottom, left, right
        window = sample.image[top : top + rows, left : left + columns]
        image = cv2.copyMakeBorder(window, *missing, cv2.BORDER_CONSTANT, value=self.fill)
        if mask is not None:
            window = mask[top : top + rows, left : left + columns]
            mask = cv2.copyMakeBorder(window, *missing, cv2.BORDER_CONSTANT, value=IGNORED_PIXEL)
        crop = np.array([left, top, left + columns, top + rows])
        keep = centres_inside(sample.boxes, crop[None])[0]
        # Clipped to the image first: a box must not reach into the padding.
        boxes = np.clip(sample.boxes, crop[[0, 1, 0, 1]], crop[[2, 3, 2, 3]]) - crop[[0, 1, 0, 1]]
        return place_boxes(sample, image, boxes, "RandomCropWithMask", keep=keep, min_side=self.min_side, mask=mask)

    def _choose(self, mask: np.ndarray | None, crop: Size, image: Size, rng: np.random.Generator) -> tuple[int, int]:
        # (top, left) of the first crop within the limit; of the one nearest to it where there is none.
        limit = self.category_max_ratio
        room = np.array([image[0] - crop[0], image[1] - crop[1]])
        corners = rng.integers(room + 1, size=(1 if limit is None else self.trials, 2))  # [trials, 2] top, left
        if limit is None or mask is None:
            return int(corners[0, 0]), int(corners[0, 1])
        best, least = corners[0], math.inf
        for top, left in corners:
            share = largest_share(mask[top : top + crop[0], left : left + crop[1]])
            if share < least:
                best, least = (top, left), share
            if share <= limit:
                break
        return int(best[0]), int(best[1])


def largest_share(mask: np.ndarray) -> float:
    """The share that the most frequent class has of the pixels with a class.

    Args:
        mask: [H, W] uint8, IGNORED_PIXEL where there is no class.

    Returns:
        A number in (0, 1]; 1 where no pixel has a class.
    """
    counts = np.bincount(mask.ravel(), minlength=IGNORED_PIXEL + 1)[:IGNORED_PIXEL]
    return float(counts.max() / counts.sum()) if counts.any() else 1.0
