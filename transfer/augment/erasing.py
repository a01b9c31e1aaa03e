"""Random erasing and cutout that keep boxes true: an object that is mostly erased has no box any more.

Sources: Zhong et al. 2017, Random Erasing, arXiv 1708.04896 (a rectangle of random area and aspect, within the image,
filled with random values); DeVries and Taylor 2017, Cutout, arXiv 1708.04552 (squares of one size whose centre is
anywhere in the image, so that they may hang over its edge).

The rule: a box of which more than `max_covered` of the area is under the union of the erased rectangles is dropped and
counted; every other box stays as it was, bit for bit, because a covered object still is where it is. The default, 0.7,
is a choice and not a measurement. albumentations 2.0.8 (CoarseDropout, Erasing) can drop by the same share, but shrinks
the boxes that stay to what is left of them and cuts every coordinate off to whole pixels: (60, 60, 70, 70), touched by
no rectangle, comes back as (60, 60, 69, 69). So it is not used.

Deviations: the aspect is drawn evenly on a logarithmic scale, so that wide and tall are equally likely (the paper draws
it evenly in width to height). Cutout's side is a share of the image's short side: 16 px of a 32 px image, as in the
paper, say nothing about a photograph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from transfer.augment.geometry import IMAGENET_MEAN
from transfer.augment.placing import place_boxes
from transfer.types import Request, Sample, UserError, is_number

TRIALS = 50

Fill = str | Sequence[int]
""""noise" (every pixel drawn for itself), or RGB, 0..255."""


class RandomErasing:
    """Erases rectangles of random area and aspect that lie within the image."""

    def __init__(
        self,
        *,
        count: int = 1,
        area: tuple[float, float] = (0.02, 0.4),
        max_aspect: float = 10 / 3,
        fill: Fill = "noise",
        max_covered: float = 0.7,
        p: float = 0.5,
    ) -> None:
        """Set the range; the defaults are the paper's.

        Args:
            count: rectangles, at least 1.
            area: range of a rectangle's area in areas of the image, in (0, 1], drawn evenly.
            max_aspect: greatest ratio of a rectangle's sides, at least 1.
            fill: "noise", or RGB, 0..255.
            max_covered: a box covered more than this is dropped, in [0, 1]; 1 keeps every box.
            p: probability, in [0, 1].

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = _problems(count, fill, max_covered, p)
        if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
            problems.append(f"area={area!r} must be (low, high) in (0, 1]")
        if not 1 <= max_aspect < math.inf:
            problems.append(f"max_aspect={max_aspect!r} must be at least 1")
        if problems:
            raise UserError("RandomErasing: " + "; ".join(problems))
        self.count = count
        self.area = (area[0], area[1])
        self.max_aspect = max_aspect
        self.fill = fill
        self.max_covered = max_covered
        self.p = p

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The sample with rectangles erased, or the sample itself."""
        if rng.random() >= self.p:
            return sample
        height, width = sample.image.shape[:2]
        drawn = [self._draw(height, width, rng) for _ in range(self.count)]
        rectangles = [rectangle for rectangle in drawn if rectangle is not None]
        return erase(sample, rectangles, self.fill, rng, "RandomErasing", max_covered=self.max_covered)

    def _draw(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray | None:
        # All trials at once; the first rectangle that fits into the image, or none.
        pixels = height * width * rng.uniform(*self.area, TRIALS)
        root = np.exp(rng.uniform(-1, 1, TRIALS) * math.log(self.max_aspect) / 2)  # of height / width
        rows = np.maximum(1, np.rint(np.sqrt(pixels) * root)).astype(np.int64)
        columns = np.maximum(1, np.rint(np.sqrt(pixels) / root)).astype(np.int64)
        fits = (rows <= height) & (columns <= width)
        if not fits.any():
            return None
        rows, columns = rows[fits.argmax()], columns[fits.argmax()]
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        return np.array([left, top, left + columns, top + rows])


class Cutout:
    """Erases squares of one size whose centre is anywhere in the image."""

    def __init__(
        self,
        side: float = 0.25,
        *,
        count: int = 1,
        fill: Fill = IMAGENET_MEAN,
        max_covered: float = 0.7,
        p: float = 1.0,
    ) -> None:
        """Set the squares.

        Args:
            side: of a square, in short sides of the image, above 0.
            count: squares, at least 1.
            fill: "noise", or RGB, 0..255; the backbone's mean, which normalisation makes about zero.
            max_covered: a box covered more than this is dropped, in [0, 1]; 1 keeps every box.
            p: probability, in [0, 1].

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = _problems(count, fill, max_covered, p)
        if not (is_number(side) and 0 < side < math.inf):
            problems.append(f"side={side!r} must be above 0, in short sides of the image")
        if problems:
            raise UserError("Cutout: " + "; ".join(problems))
        self.side = side
        self.count = count
        self.fill = fill
        self.max_covered = max_covered
        self.p = p

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The sample with squares erased, or the sample itself."""
        if rng.random() >= self.p:
            return sample
        height, width = sample.image.shape[:2]
        length = max(1, round(self.side * min(height, width)))
        limits = np.array([width, height] * 2)
        rectangles = []
        for _ in range(self.count):
            left, top = (int(rng.integers(side)) - length // 2 for side in (width, height))
            rectangles.append(np.clip(np.array([left, top, left + length, top + length]), 0, limits))
        return erase(sample, rectangles, self.fill, rng, "Cutout", max_covered=self.max_covered)


def erase(
    sample: Sample,
    rectangles: Sequence[np.ndarray],
    fill: Fill,
    rng: np.random.Generator,
    step: str,
    *,
    max_covered: float,
) -> Sample:
    """The sample with rectangles erased, without the boxes that are mostly under them.

    Args:
        sample: stays as it is.
        rectangles: [4] xyxy whole pixels each, within the image.
        fill: "noise", or RGB, 0..255.
        rng: draws the noise.
        step: name that the dropped boxes are counted under.
        max_covered: a box of which the rectangles' union covers more than this is dropped, in [0, 1].

    Returns:
        A new sample; `dropped` is counted up.
    """
    image = sample.image.copy()
    erased = np.zeros(image.shape[:2], dtype=np.bool_)
    for left, top, right, bottom in rectangles:
        part = image[top:bottom, left:right]
        part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8) if isinstance(fill, str) else fill
        erased[top:bottom, left:right] = True
    keep = covered_share(sample.boxes, erased) <= max_covered
    return place_boxes(sample, image, sample.boxes, step, keep=keep, min_side=None)


def covered_share(boxes: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The share of each box's area that a mask covers, exact for boxes that end within pixels.

    Args:
        boxes: [N, 4] xyxy pixels; what of them is outside the mask is not covered.
        mask: [H, W] bool.

    Returns:
        [N] float64 in [0, 1]; 0 for a box without area.
    """
    boxes = boxes.astype(np.float64)
    rows = _lengths(boxes[:, 1], boxes[:, 3], mask.shape[0])  # [N, H]
    columns = _lengths(boxes[:, 0], boxes[:, 2], mask.shape[1])  # [N, W]
    covered = ((rows @ mask.astype(np.float64)) * columns).sum(axis=1)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return np.divide(covered, areas, out=np.zeros_like(areas), where=areas > 0)


def _lengths(low: np.ndarray, high: np.ndarray, count: int) -> np.ndarray:
    # How much of each of `count` pixels lies in each interval: [N], [N] -> [N, count] in [0, 1]
    start = np.arange(count)
    return np.clip(np.minimum(high[:, None], start + 1) - np.maximum(low[:, None], start), 0, 1)


def _problems(count: int, fill: Fill, max_covered: float, p: float) -> list[str]:
    problems = []
    if not isinstance(count, int) or count < 1:
        problems.append(f"count={count!r} must be a whole number, at least 1")
    if isinstance(fill, str):
        wrong = fill != "noise"
    else:
        wrong = len(fill) != 3 or any(not isinstance(value, int) or not 0 <= value <= 255 for value in fill)
    if wrong:
        problems.append(f"fill={fill!r} must be 'noise' or three integers in 0..255, such as {IMAGENET_MEAN}")
    for name, value in (("max_covered", max_covered), ("p", p)):
        if not (is_number(value) and 0 <= value <= 1):
            problems.append(f"{name}={value!r} must be in [0, 1]")
    return problems
