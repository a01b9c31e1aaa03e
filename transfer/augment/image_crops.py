"""Crops for classification, where the truth is the image's one class and a crop cannot make it untrue.

Sources: Szegedy et al. 2014, Going Deeper with Convolutions, arXiv 1409.4842, section 6 (the random resized crop);
He et al. 2018, Bag of Tricks, arXiv 1812.01187, section 2.1 (area 8 to 100 %, aspect 3/4 to 4/3; test: short side 256,
centre crop 224). The aspect is drawn evenly on a logarithmic scale, so that 3/4 is as likely as 4/3, ten crops are
tried, and where none fits, the largest centre crop with an aspect in the range is taken: the law of
torchvision.transforms.RandomResizedCrop.

The crop is a view, so only its own pixels are resized, once. The interpolations are cv2's, as everywhere here:
"bilinear" and "bicubic" do not average when they shrink (what Bag of Tricks' own data pipeline did), "area" does. Where
photographs are more than about twice as large as the crop, "area" is the better choice, in training and test alike.

A sample with boxes or a mask is refused: they would not follow.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from transfer.augment.resizing import checked_size, interpolation_problems, resize_sample, wanted_size
from transfer.types import Request, Sample, Size, UserError, is_number

TRIALS = 10

Slices = tuple[slice, slice]
"""Rows and columns of an image."""


class RandomResizedCrop:
    """Cuts out a part of random area and aspect and brings it to one size (Inception's crop)."""

    def __init__(
        self,
        size: int | Size | None = None,
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
    ) -> None:
        """Set the range; the defaults are those of Bag of Tricks.

        Args:
            size: side of a square or (height, width), pixels, used where the request has no shape; None: the request
                must have one.
            scale: range of the crop's area in areas of the image, in (0, 1], drawn evenly.
            ratio: range of the crop's width to height, in pixels of the image, above 0, drawn evenly in its logarithm.
            interpolation: nearest, bilinear, bicubic, area (averages when it shrinks) or lanczos.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = interpolation_problems(interpolation)
        if not _is_range(scale) or scale[1] > 1:
            problems.append(f"scale={scale!r} must be (low, high) in (0, 1]")
        if not _is_range(ratio):
            problems.append(f"ratio={ratio!r} must be (low, high), above 0: the crop's width to height")
        self.size = checked_size("RandomResizedCrop", size, problems)
        self.scale = (scale[0], scale[1])
        self.ratio = (ratio[0], ratio[1])
        self.interpolation = interpolation

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The crop, of the request's size or else the step's own.

        Raises:
            UserError: when neither the request nor the step has a size, or the sample has boxes or a mask.
        """
        refuse_truth(sample, "RandomResizedCrop")
        size = wanted_size("RandomResizedCrop", request.size, self.size)
        height, width = sample.image.shape[:2]
        window = replace(sample, image=sample.image[self.draw(height, width, rng)])
        cropped = resize_sample(window, size, "RandomResizedCrop", interpolation=self.interpolation)
        return replace(cropped, image=np.ascontiguousarray(cropped.image))  # a crop of that very size is still a view

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Slices:
        """Where the crop lies.

        Args:
            height: of the image, pixels.
            width: of the image, pixels.
            rng: the only source of randomness.
        """
        # All trials at once; the first crop that fits is taken as if they had been drawn one by one.
        areas = rng.uniform(*self.scale, TRIALS) * height * width
        ratios = np.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), TRIALS))
        rows = np.rint(np.sqrt(areas / ratios)).astype(np.int64)
        columns = np.rint(np.sqrt(areas * ratios)).astype(np.int64)
        fits = (rows >= 1) & (rows <= height) & (columns >= 1) & (columns <= width)
        if not fits.any():
            return self._largest(height, width)
        chosen = fits.argmax()
        high, wide = int(rows[chosen]), int(columns[chosen])
        top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
        return slice(top, top + high), slice(left, left + wide)

    def _largest(self, height: int, width: int) -> Slices:
        # The whole image, or as much of its long side, in the middle, as the range of the aspect allows.
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        high = min(height, max(1, round(width / ratio)))
        wide = min(width, max(1, round(height * ratio)))
        return _middle(height, high), _middle(width, wide)


class CenterCrop:
    """Cuts the middle out."""

    def __init__(self, size: int | Size) -> None:
        """Set the size.

        Args:
            size: side of a square or (height, width), pixels.

        Raises:
            UserError: for a size that is not positive.
        """
        if size is None:
            raise UserError("CenterCrop: size=None: give the side of a square or (height, width), pixels")
        own = checked_size("CenterCrop", size, [])
        assert own is not None
        self.size = own

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The middle of the sample; does not look at `request.size`, which says nothing of the size before the crop.

        Raises:
            UserError: when the image is smaller than the crop, or has boxes or a mask.
        """
        refuse_truth(sample, "CenterCrop")
        height, width = sample.image.shape[:2]
        if height < self.size[0] or width < self.size[1]:
            raise UserError(
                f"CenterCrop: {sample.path} is {(height, width)} here, smaller than size={self.size}: put "
                f"ResizeShortSide({max(self.size)}, long_max=...) or more before it"
            )
        return _cut(sample, _middle(height, self.size[0]), _middle(width, self.size[1]))


class TrimLongSide:
    """Cuts off, evenly at both ends, what an image is longer than a multiple of its short side.

    A strip of 1 x 5000 pixels, resized by its short side to 256, would take a gigabyte of which the centre crop sees
    256 x 256. Images within the limit stay as they are.
    """

    def __init__(self, max_aspect: float = 4.0) -> None:
        """Set the limit.

        Args:
            max_aspect: greatest long side in short sides, at least 1; one or two pixels may stay beyond it, so that the
                middle stays where it is.

        Raises:
            UserError: for a limit below 1.
        """
        if not (is_number(max_aspect) and 1 <= max_aspect < math.inf):
            raise UserError(f"TrimLongSide: max_aspect={max_aspect!r} must be a number, at least 1")
        self.max_aspect = max_aspect

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The middle of the sample, or the sample itself.

        Raises:
            UserError: when the sample has boxes or a mask.
        """
        refuse_truth(sample, "TrimLongSide")
        height, width = sample.image.shape[:2]
        limit = math.ceil(min(height, width) * self.max_aspect)
        if max(height, width) <= limit:
            return sample
        # What goes is even in number: the middle stays the middle to the pixel.
        high, wide = (side if side <= limit else limit + (side - limit) % 2 for side in (height, width))
        return _cut(sample, _middle(height, high), _middle(width, wide))


def refuse_truth(sample: Sample, step: str) -> None:
    """Stop a step that would leave boxes or a mask behind.

    Args:
        sample: of any data set.
        step: its name.

    Raises:
        UserError: when the sample has boxes or a mask.
    """
    kind = "a mask" if sample.mask is not None else "boxes" if len(sample.boxes) else None
    if kind is not None:
        raise UserError(
            f"{step}: {sample.path} has {kind}, which would not follow: the step is for classification. For detection "
            "take the steps of transfer.augment.geometry, for segmentation those of transfer.augment.mask_geometry"
        )


def _cut(sample: Sample, rows: slice, columns: slice) -> Sample:
    return replace(sample, image=np.ascontiguousarray(sample.image[rows, columns]))


def _middle(side: int, length: int) -> slice:
    start = round((side - length) / 2)  # half to even, as torchvision's
    return slice(start, start + length)


def _is_range(value: object) -> bool:
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(is_number(end) for end in value):
        return False
    return bool(0 < value[0] <= value[1] < math.inf)
