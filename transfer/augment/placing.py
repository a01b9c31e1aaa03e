"""New boxes for a sample: clipped, without the ones that vanished, and with a count of those.

Every step that can lose a box ends here, so none can hand on a box outside the image or without area, nor lose one in
silence. For the same reason a step that moves boxes, but knows nothing of masks, refuses a sample with a mask here:
left behind, the mask would be that of another image.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from transfer.types import Request, Sample, UserError

TOLERANCE = 1e-3
"""Pixels: what rounding may do to a side of exactly the smallest length."""


def place_boxes(
    sample: Sample,
    image: np.ndarray,
    boxes: np.ndarray,
    step: str,
    *,
    keep: np.ndarray | None = None,
    min_side: float | None = 1.0,
    mask: np.ndarray | None = None,
) -> Sample:
    """The sample with a new image and new boxes; labels, difficult and weights follow their boxes.

    Args:
        sample: stays as it is.
        image: [H, W, 3] uint8.
        boxes: [N, 4] xyxy pixels of `image`, one for each box of `sample`, in its order; may reach over the edges.
        step: name that the dropped boxes are counted under.
        keep: [N] bool, False for boxes the step itself drops; None: it drops none.
        min_side: boxes with a side below it, after clipping to the image, are dropped, pixels. None: keep every box,
            neither clipped nor judged (test transforms, where the truth must stay complete).
        mask: [H, W] uint8: the sample's mask, as the step moved it. None: the step knows nothing of masks.

    Returns:
        A new sample; `dropped` is counted up.

    Raises:
        UserError: when the sample has a mask and the step gives none.
    """
    if mask is None:
        refuse_mask(sample, step)
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    keep = np.ones(len(boxes), dtype=np.bool_) if keep is None else keep
    if min_side is not None:
        height, width = image.shape[:2]
        # Not np.clip: of a few boxes, its checks take longer than the two comparisons.
        boxes = np.minimum(np.maximum(boxes, 0), np.array([width, height, width, height], dtype=np.float32))
        sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)  # [N] the shorter one
        # A side of zero goes whatever the limit; so does a side that is not a number.
        keep = keep & (sides >= min_side - TOLERANCE) & (sides > 0)
    dropped = dict(sample.dropped)
    lost = int(len(keep) - keep.sum())
    if lost:
        dropped[step] = dropped.get(step, 0) + lost
    return replace(
        sample,
        image=image,
        boxes=boxes[keep],
        labels=sample.labels[keep],
        difficult=sample.difficult[keep],
        weights=sample.weights[keep],
        mask=mask,
        dropped=dropped,
    )


def refuse_mask(sample: Sample, step: str) -> None:
    """Stop a step that would leave the sample's mask behind.

    Args:
        sample: of a detection data set.
        step: its name.

    Raises:
        UserError: when the sample has a mask.
    """
    if sample.mask is not None:
        raise UserError(
            f"{step} moves pixels and boxes, but not masks: take it out of the segmentation recipe. Steps that move "
            "both: those of transfer.augment.mask_geometry, HorizontalFlip, ResizeShortSide, ResizeTo, LetterboxTo and "
            "AlbumentationsStep; pairs are mixed by transfer.augment.mask_mixing"
        )


def fitting_mask(sample: Sample, step: str) -> np.ndarray | None:
    """The sample's mask, for a step that moves image and mask together.

    Args:
        sample: with or without a mask.
        step: its name.

    Returns:
        [H, W] uint8 of the image's size; None where the sample has no mask.

    Raises:
        UserError: when the mask has another size than the image.
    """
    if sample.mask is not None and sample.mask.shape != sample.image.shape[:2]:
        raise UserError(
            f"{step}: the mask is {sample.mask.shape}, the image {sample.image.shape[:2]}: an earlier step left the "
            "mask as it was (mask='keep' is for test pipelines, where no later step may move the image), or the data "
            "set's mask does not fit its image"
        )
    return sample.mask


class FilterBoxes:
    """Clips boxes to the image and drops those too small to learn from."""

    def __init__(self, *, min_side: float = 1.0) -> None:
        """Set the limit.

        Args:
            min_side: smallest side of a box, pixels.
        """
        self.min_side = min_side

    def __call__(self, sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
        """The sample without the small boxes."""
        return place_boxes(sample, sample.image, sample.boxes, "FilterBoxes", min_side=self.min_side, mask=sample.mask)
