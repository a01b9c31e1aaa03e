"""Flip, zoom out and crop, with boxes; the flip moves a mask, too.

Source: Liu et al. 2016, SSD, arXiv 1512.02325, section 2.2 (data augmentation) and 3.6 (zoom out).

Deviations: the crop's sides are 0.3 to 1 of the image's sides (the paper says 0.1 to 1 of its size), and its aspect,
1/2 to 2, is relative to the image's. The choices are the paper's: the whole image, a minimum overlap, or any crop. A
crop is valid when at least one box overlaps it enough and at least one box stays; without boxes every crop is valid. A
box stays when its centre is in the crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from transfer.augment.placing import fitting_mask, place_boxes
from transfer.types import Request, Sample, UserError

IMAGENET_MEAN = (124, 117, 104)
"""RGB, 0..255, rounded: what expanding fills with unless told the backbone's own mean."""


class HorizontalFlip:
    """Mirrors left and right."""

    def __init__(self, p: float = 0.5) -> None:
        """Set the chance.

        Args:
            p: probability, in [0, 1].

        Raises:
            UserError: for a probability outside [0, 1].
        """
        self.p = _probability("HorizontalFlip", p)

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The mirrored sample, or the sample itself."""
        if rng.random() >= self.p:
            return sample
        width = sample.image.shape[1]
        boxes = sample.boxes.copy()
        boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]  # the right edge becomes the left one
        mask = fitting_mask(sample, "HorizontalFlip")
        mask = None if mask is None else cv2.flip(mask, 1)
        return replace(sample, image=cv2.flip(sample.image, 1), boxes=boxes, mask=mask)


class Expand:
    """Puts the image at a random place of a larger canvas, so that objects get smaller."""

    def __init__(self, max_ratio: float = 4.0, *, fill: tuple[int, int, int] = IMAGENET_MEAN, p: float = 0.5) -> None:
        """Set the range.

        Args:
            max_ratio: greatest side of the canvas in sides of the image, at least 1; drawn uniformly from 1 up.
            fill: RGB of the canvas, 0..255; the backbone's mean.
            p: probability, in [0, 1].

        Raises:
            UserError: for a ratio below 1 or a probability outside [0, 1].
        """
        if max_ratio < 1:
            raise UserError(f"Expand: max_ratio={max_ratio} must be at least 1")
        self.max_ratio = max_ratio
        self.fill = fill
        self.p = _probability("Expand", p)

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The sample on its canvas, or the sample itself."""
        if rng.random() >= self.p:
            return sample
        height, width = sample.image.shape[:2]
        ratio = rng.uniform(1, self.max_ratio)
        rows, columns = int(height * ratio) - height, int(width * ratio) - width  # what the canvas has more
        top, left = int(rng.integers(rows + 1)), int(rng.integers(columns + 1))
        image = cv2.copyMakeBorder(
            sample.image, top, rows - top, left, columns - left, cv2.BORDER_CONSTANT, value=self.fill
        )
        shift = np.array([left, top, left, top], dtype=np.float32)
        # Filtered against the canvas: a box hanging over the image's edge must be clipped to the image first.
        inside = np.clip(sample.boxes, 0, np.array([width, height, width, height], dtype=np.float32))
        return place_boxes(sample, image, inside + shift, "Expand")


class CropWithBoxes:
    """Cuts a random part out, chosen so that it overlaps an object by a drawn minimum."""

    def __init__(
        self,
        overlaps: Sequence[float | None] = (None, 0.1, 0.3, 0.5, 0.7, 0.9),
        *,
        min_scale: float = 0.3,
        max_aspect: float = 2.0,
        whole: bool = True,
        trials: int = 50,
        p: float = 1.0,
        min_side: float = 1.0,
    ) -> None:
        """Set the range.

        Args:
            overlaps: minimum IoU of the crop and a box, drawn evenly; None: any crop.
            min_scale: smallest side of the crop in sides of the image, in (0, 1].
            max_aspect: greatest ratio of the crop's two relative sides, at least 1.
            whole: the whole image is one more choice beside `overlaps`.
            trials: crops drawn; the first valid one is taken, and the whole image where none is.
            p: probability, in [0, 1].
            min_side: boxes with a side below it, after clipping, are dropped, pixels.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = []
        if not overlaps or any(overlap is not None and not 0 <= overlap <= 1 for overlap in overlaps):
            problems.append(f"overlaps={overlaps!r} must be None or numbers in [0, 1], at least one")
        if not 0 < min_scale <= 1:
            problems.append(f"min_scale={min_scale} must be in (0, 1]")
        if max_aspect < 1:
            problems.append(f"max_aspect={max_aspect} must be at least 1")
        if trials < 1:
            problems.append(f"trials={trials} must be at least 1")
        if problems:
            raise UserError("CropWithBoxes: " + "; ".join(problems))
        self.overlaps = tuple(overlaps)
        self.min_scale = min_scale
        self.max_aspect = max_aspect
        self.whole = whole
        self.trials = trials
        self.p = _probability("CropWithBoxes", p)
        self.min_side = min_side

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The cropped sample, or the sample itself."""
        if rng.random() >= self.p:
            return sample
        choice = int(rng.integers(len(self.overlaps) + self.whole))
        if choice == len(self.overlaps):
            return sample
        crop = self._choose(sample, self.overlaps[choice], rng)
        if crop is None:
            return sample
        left, top, right, bottom = (int(edge) for edge in crop)
        image = np.ascontiguousarray(sample.image[top:bottom, left:right])
        keep = centres_inside(sample.boxes, crop[None])[0]
        shift = np.array([left, top, left, top], dtype=np.float32)
        return place_boxes(sample, image, sample.boxes - shift, "CropWithBoxes", keep=keep, min_side=self.min_side)

    def _choose(self, sample: Sample, overlap: float | None, rng: np.random.Generator) -> np.ndarray | None:
        # All trials at once; the first valid crop is taken as if they had been drawn one by one.
        crops = self._draw(sample.image.shape[0], sample.image.shape[1], rng)  # [trials, 4] int64 xyxy
        if not len(sample.boxes):
            return crops[0]
        valid = centres_inside(sample.boxes, crops).any(axis=1)  # [trials]
        if overlap is not None:
            valid &= crop_iou(sample.boxes, crops).max(axis=1) >= overlap
        return crops[valid.argmax()] if valid.any() else None

    def _draw(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        scale = rng.uniform(self.min_scale, 1, self.trials)
        limit = np.minimum(self.max_aspect, 1 / scale**2)  # so that neither side exceeds the image
        limit = np.minimum(limit, scale**2 / self.min_scale**2)  # nor falls below the smallest scale
        root = np.sqrt(np.exp(rng.uniform(-1, 1, self.trials) * np.log(limit)))
        heights = np.clip(np.rint(height * scale / root), 1, height).astype(np.int64)
        widths = np.clip(np.rint(width * scale * root), 1, width).astype(np.int64)
        tops = rng.integers(height - heights + 1)
        lefts = rng.integers(width - widths + 1)
        return np.stack([lefts, tops, lefts + widths, tops + heights], axis=1)


def centres_inside(boxes: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """Whether each box's centre is in each crop.

    Args:
        boxes: [N, 4] xyxy pixels.
        crops: [M, 4] xyxy pixels; the right and bottom edge are outside.

    Returns:
        [M, N] bool.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2  # [N, 2]
    return ((centres >= crops[:, None, :2]) & (centres < crops[:, None, 2:])).all(axis=2)


def crop_iou(boxes: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """Intersection over union of each crop with each box.

    Args:
        boxes: [N, 4] xyxy pixels.
        crops: [M, 4] xyxy pixels.

    Returns:
        [M, N] float64 in [0, 1].
    """
    low = np.maximum(boxes[:, :2], crops[:, None, :2])  # [M, N, 2]
    high = np.minimum(boxes[:, 2:], crops[:, None, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2, dtype=np.float64)  # [M, N]
    box_areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1, dtype=np.float64)  # [N]
    crop_areas = (crops[:, 2:] - crops[:, :2]).prod(axis=1)  # [M], at least 1
    return shared / (box_areas + crop_areas[:, None] - shared)


def _probability(step: str, p: float) -> float:
    if not 0 <= p <= 1:
        raise UserError(f"{step}: p={p} is a probability, in [0, 1]")
    return p
