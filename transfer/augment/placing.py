"""New boxes for a sample: clipped, without the ones that vanished, and with a count of those.

Every step that can lose a box ends here, so none can hand on a box outside the image or without area, nor lose one in
silence.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from transfer.types import Request, Sample

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

    Returns:
        A new sample; `dropped` is counted up.
    """
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    keep = np.ones(len(boxes), dtype=np.bool_) if keep is None else keep
    if min_side is not None:
        height, width = image.shape[:2]
        boxes = np.clip(boxes, 0, np.array([width, height, width, height], dtype=np.float32))
        sides = boxes[:, 2:] - boxes[:, :2]  # [N, 2] width, height
        # A side of zero goes whatever the limit; so does a side that is not a number.
        keep = keep & (sides >= min_side - TOLERANCE).all(axis=1) & (sides > 0).all(axis=1)
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
        dropped=dropped,
    )


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
        return place_boxes(sample, sample.image, sample.boxes, "FilterBoxes", min_side=self.min_side)
