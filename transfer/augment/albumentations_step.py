"""Any albumentations transforms as one step, with exact boxes, true masks and a random stream for each transform.

albumentations gives every transform of a Compose the same stream (two flips then always fire together), takes boxes
through normalised float32 (60 comes back as 59.9999987) and label fields through floats. So each transform, nested ones
too, is seeded by itself from the step's generator; boxes go in with their position as the only field, and whatever
belongs to a box is taken from the original by that position; and boxes that a transform left alone come back exactly.

A mask moves with its image. What comes into the image from outside albumentations gives class 0 by default
(`fill_mask=0`), where it must be ignored: such a transform is refused. Its GaussianBlur with a sigma of exactly 0 gives
a black image (0 / 0), so the range must begin above.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from transfer.augment.placing import TOLERANCE, fitting_mask, place_boxes
from transfer.types import IGNORED_PIXEL, Request, Sample, UserError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer version

if TYPE_CHECKING:
    import albumentations


class AlbumentationsStep:
    """Runs albumentations transforms on image, boxes and mask."""

    def __init__(
        self,
        transforms: Sequence[albumentations.BasicTransform | albumentations.BaseCompose],
        *,
        name: str = "AlbumentationsStep",
        min_side: float = 1.0,
    ) -> None:
        """Wrap transforms.

        Args:
            transforms: run in turn, each by its own probability; the image must stay uint8.
            name: what dropped boxes are counted under.
            min_side: after geometric transforms, boxes with a side below it are dropped, pixels.

        Raises:
            UserError: when something among them is not an albumentations transform.
        """
        import albumentations

        kinds = (albumentations.BasicTransform, albumentations.BaseCompose)
        wrong = [type(transform).__name__ for transform in transforms if not isinstance(transform, kinds)]
        if wrong:
            raise UserError(
                f"{name}: not albumentations transforms: {', '.join(wrong)}; put them in the Pipeline itself"
            )
        nodes = [node for transform in transforms for node in _nodes(transform, albumentations.BaseCompose)]
        self.geometric = any(isinstance(node, albumentations.DualTransform) for node in nodes)
        boxes = albumentations.BboxParams(
            format="pascal_voc", label_fields=["positions"], clip=True, filter_invalid_bboxes=True
        )
        self.compose = albumentations.Compose(list(transforms), bbox_params=boxes if self.geometric else None)
        self._seeded = tuple(_nodes(self.compose, albumentations.BaseCompose))
        self._mask_problems = [problem for node in nodes for problem in _mask_problems(node)]
        self.name = name
        self.min_side = min_side

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The transformed sample; does not look at `request.size`.

        Raises:
            UserError: when a transform gave anything but a uint8 image, or cannot keep a mask true.
        """
        mask = fitting_mask(sample, self.name)
        if mask is not None and self._mask_problems:
            raise UserError(f"{self.name}: the data have masks: " + "; ".join(self._mask_problems))
        self._seed(rng)
        if not self.geometric:
            return replace(sample, image=self._checked(self.compose(image=sample.image.copy())["image"]))
        count = len(sample.boxes)
        inputs: dict[str, Any] = {"image": sample.image.copy(), "positions": np.arange(count)}
        inputs["bboxes"] = sample.boxes.astype(np.float32).reshape(-1, 4)
        if mask is not None:
            inputs["mask"] = mask.copy()
        result = self.compose(**inputs)
        positions = np.asarray(result["positions"]).astype(np.int64).reshape(-1)  # which boxes are left
        moved = np.asarray(result["bboxes"], dtype=np.float32).reshape(-1, 4)
        untouched = np.abs(moved - sample.boxes[positions]) <= TOLERANCE
        boxes = sample.boxes.astype(np.float32)
        boxes[positions] = np.where(untouched, boxes[positions], moved)
        keep = np.zeros(count, dtype=np.bool_)
        keep[positions] = True
        image = self._checked(result["image"])
        if mask is not None:
            mask = np.ascontiguousarray(result["mask"])
        return place_boxes(sample, image, boxes, self.name, keep=keep, min_side=self.min_side, mask=mask)

    def _seed(self, rng: np.random.Generator) -> None:
        # Parents first: set_random_state of a compose hands its own generator to its children, which then get theirs.
        for node in self._seeded:
            seeds = rng.integers(2**63, size=2)
            node.set_random_state(np.random.default_rng(seeds[0]), random.Random(int(seeds[1])))

    def _checked(self, image: np.ndarray) -> np.ndarray:
        if image.dtype != np.uint8 or image.ndim != 3:
            raise UserError(
                f"{self.name}: gave an image of shape {image.shape}, {image.dtype}; it must stay [H, W, 3] uint8: take "
                "Normalize, ToFloat and ToTensorV2 out, the backbone normalises"
            )
        return np.ascontiguousarray(image)


class GaussianBlur:
    """Blurs by a Gaussian of random width."""

    def __init__(self, p: float = 0.5, *, sigma: tuple[float, float] = (0.1, 1.0)) -> None:
        """Set the strength; the defaults are those of GluonCV's segmentation (after PSPNet), which draws from [0, 1].

        Args:
            p: probability, in [0, 1].
            sigma: range of the standard deviation, pixels, above 0, drawn evenly; below 0.25 hardly anything changes.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = [] if 0 <= p <= 1 else [f"p={p} must be in [0, 1]"]
        if len(sigma) != 2 or not 0 < sigma[0] <= sigma[1]:
            problems.append(f"sigma={sigma!r} must be (low, high), above 0")
        if problems:
            raise UserError("GaussianBlur: " + "; ".join(problems))
        import albumentations

        # blur_limit=0: the kernel is as large as sigma needs.
        blur = albumentations.GaussianBlur(blur_limit=0, sigma_limit=(sigma[0], sigma[1]), p=p)
        self.step = AlbumentationsStep([blur], name="GaussianBlur")

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The blurred sample with the same boxes and mask, or one equal to the sample itself."""
        return self.step(sample, request, rng)


def _mask_problems(node: object) -> list[str]:
    # What a transform would do to a mask that makes it untrue. fill_mask=None leaves the mask alone.
    problems = []
    name = type(node).__name__
    fill = getattr(node, "fill_mask", None)
    if fill is not None and (np.asarray(fill) != IGNORED_PIXEL).any():
        problems.append(f"{name} has fill_mask={fill!r}, which is a class: give fill_mask={IGNORED_PIXEL}")
    interpolation = getattr(node, "mask_interpolation", cv2.INTER_NEAREST)
    if interpolation not in (cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT):
        problems.append(f"{name} has mask_interpolation={interpolation!r}, which mixes classes: leave it at nearest")
    return problems


def _nodes(
    transform: albumentations.BasicTransform | albumentations.BaseCompose,
    compose: type[albumentations.BaseCompose],
) -> Iterator[albumentations.BasicTransform | albumentations.BaseCompose]:
    # The transform and everything nested in it, parents first. (Its ColorJitter has `transforms`, too: functions.)
    yield transform
    if isinstance(transform, compose):
        for child in transform.transforms:
            yield from _nodes(child, compose)
