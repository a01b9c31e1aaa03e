"""Small objects pasted again into their own image, so that training meets them more often and in more places.

Source: Kisantal et al. 2019, Augmentation for small object detection, arXiv 1902.07296 (every small object several
times, slightly rescaled, where it covers nothing).

Deviations: the paper cuts objects out by their masks; here there are only boxes, so a rectangle is pasted with the
background that was in it, and its edges show. A detector may learn these edges: measure before trusting it. No
rotation, for the same reason (the box of a rotated rectangle is loose), but a mirrored copy. Objects marked difficult,
and those that another box reaches into, are not copied: nobody could say what the copy shows.

"Small" is in pixels of the image as it comes in: behind the step that resizes, it means the network's input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from transfer.augment.placing import refuse_mask
from transfer.types import Request, Sample, UserError, is_number

EDGE = 5
"""Pixels that a copy keeps from the image's edges."""
TRIALS = 30
"""Places drawn for a copy; the first free one is taken, and the copy is left out where none is."""


class CopyPasteSmall:
    """Pastes every small object at free places of its own image."""

    def __init__(
        self,
        *,
        copies: int = 3,
        max_side: float = 32.0,
        min_side: float = 4.0,
        scale: tuple[float, float] = (0.8, 1.2),
        flip: float = 0.5,
        max_overlap: float = 0.0,
        p: float = 0.5,
    ) -> None:
        """Set what is copied, and where to.

        Args:
            copies: of each small object, at least 1.
            max_side: objects of less than its square in area are small, pixels (32 is COCO's limit).
            min_side: objects with a shorter side are not copied, pixels.
            scale: range of a copy's size in sizes of the object, drawn evenly.
            flip: probability of a mirrored copy.
            max_overlap: greatest share of a box, or of the copy, that the two may have in common, in [0, 1].
            p: probability, in [0, 1].

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = []
        if not isinstance(copies, int) or copies < 1:
            problems.append(f"copies={copies!r} must be a whole number, at least 1")
        if not 1 <= min_side < max_side < math.inf:
            problems.append(f"min_side={min_side!r} must be at least 1 pixel and below max_side={max_side!r}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] < math.inf:
            problems.append(f"scale={scale!r} must be (low, high), above 0")
        for name, value in (("flip", flip), ("max_overlap", max_overlap), ("p", p)):
            if not (is_number(value) and 0 <= value <= 1):
                problems.append(f"{name}={value!r} must be in [0, 1]")
        if problems:
            raise UserError("CopyPasteSmall: " + "; ".join(problems))
        self.copies = copies
        self.max_side = max_side
        self.min_side = min_side
        self.scale = (scale[0], scale[1])
        self.flip = flip
        self.max_overlap = max_overlap
        self.p = p

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The sample with copies behind its own boxes, or the sample itself."""
        refuse_mask(sample, "CopyPasteSmall")
        if rng.random() >= self.p:
            return sample
        image, boxes, sources = sample.image.copy(), list(sample.boxes), []
        for source in self._small(sample):
            for _ in range(self.copies):
                patch, box = self._copy(sample.image, sample.boxes[source], rng)
                place = self._place(patch, np.array(boxes), image, rng)
                if place is None:
                    continue
                left, top = place
                image[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
                boxes.append(box + np.array([left, top] * 2, dtype=np.float32))
                sources.append(source)
        if not sources:
            return sample
        return replace(
            sample,
            image=image,
            boxes=np.array(boxes, dtype=np.float32),
            labels=np.concatenate([sample.labels, sample.labels[sources]]),
            difficult=np.concatenate([sample.difficult, sample.difficult[sources]]),
            weights=np.concatenate([sample.weights, sample.weights[sources]]),
        )

    def _small(self, sample: Sample) -> Sequence[int]:
        # Which objects are copied.
        height, width = sample.image.shape[:2]
        sides = sample.boxes[:, 2:] - sample.boxes[:, :2]  # [N, 2]
        inside = (sample.boxes >= 0).all(axis=1) & (sample.boxes <= [width, height] * 2).all(axis=1)
        small = inside & (sides.min(axis=1, initial=np.inf) >= self.min_side) & (sides.prod(axis=1) < self.max_side**2)
        others = _overlap(sample.boxes, sample.boxes)  # [N, N]
        np.fill_diagonal(others, 0)
        clear = others.max(axis=1, initial=0) <= self.max_overlap
        return [int(index) for index in np.flatnonzero(small & clear & ~sample.difficult)]

    def _copy(self, image: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        # A patch with the object, and its box in the patch. The patch ends at whole pixels, the box where it will.
        left, top = (int(edge) for edge in np.floor(box[:2]))
        right, bottom = (int(edge) for edge in np.ceil(box[2:]))
        patch, box = image[top:bottom, left:right], box - np.array([left, top] * 2)
        factor = rng.uniform(*self.scale)
        height, width = (max(1, round(side * factor)) for side in patch.shape[:2])
        box = box * np.array([width / patch.shape[1], height / patch.shape[0]] * 2)
        patch = cv2.resize(patch, (width, height), interpolation=cv2.INTER_LINEAR)
        if rng.random() < self.flip:
            patch, box = cv2.flip(patch, 1), np.array([width - box[2], box[1], width - box[0], box[3]])
        return patch, box.astype(np.float32)

    def _place(
        self, patch: np.ndarray, boxes: np.ndarray, image: np.ndarray, rng: np.random.Generator
    ) -> tuple[int, int] | None:
        # (left, top) of the first drawn place where the whole patch is free.
        room = np.array([image.shape[1] - patch.shape[1], image.shape[0] - patch.shape[0]]) - 2 * EDGE
        if room.min() < 0:
            return None
        places = EDGE + rng.integers(room + 1, size=(TRIALS, 2))  # [TRIALS, 2] left, top
        patches = np.concatenate([places, places + np.array(patch.shape[1::-1])], axis=1)  # [TRIALS, 4]
        free = _overlap(patches, boxes).max(axis=1, initial=0) <= self.max_overlap
        return (int(places[free.argmax()][0]), int(places[free.argmax()][1])) if free.any() else None


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    # [M, 4], [N, 4] -> [M, N]: what two have in common, in areas of the smaller one
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2, dtype=np.float64)
    areas, other_areas = ((each[:, 2:] - each[:, :2]).prod(axis=1, dtype=np.float64) for each in (boxes, others))
    smaller = np.minimum(areas[:, None], other_areas[None])
    return np.divide(shared, smaller, out=np.zeros_like(shared), where=smaller > 0)
