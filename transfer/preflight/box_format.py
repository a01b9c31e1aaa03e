"""Whether boxes are (left, top, right, bottom) in pixels of their image, and if not, what they are.

A box fits where its sides are above 0 and it lies in its image, to 2 pixels. Boxes as they should be all fit; of boxes
in another format many have a right edge left of their left one, or reach beyond the image. So, with less than 98 % that
fit, the same numbers are read in each other format: (left, top, width, height), (centre x, centre y, width, height),
(top, left, bottom, right), (left, right, top, bottom), (right, bottom, left, top). The one in which 98 % fit, the most
of all, is named. Boxes in shares of the image are known by having no number above 1.5.

What cannot be seen: swapped axes where all images are square, and formats that happen to fit (widths larger than every
left edge): the drawn batch shows them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from transfer.checking.findings import counted
from transfer.preflight.findings import Outcome
from transfer.preflight.truth import Objects

TOLERANCE = 2.0
"""Pixels beyond the image that are still well: rounding, and boxes that count pixels from 1."""
FITTING = 0.98
"""Share of boxes from which a reading is believed."""
OUTSIDE = 0.2
"""Share of boxes that do not fit from which it is an error, whatever they may mean."""
_SHARES = 1.5
_LEAST_SIDE = 16
"""Pixels: of smaller images, boxes of pixels could pass for shares."""


def _from_center(boxes: np.ndarray) -> np.ndarray:
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


READINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "(left, top, width, height)": lambda b: np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], axis=1),
    "(centre x, centre y, width, height)": _from_center,
    "(top, left, bottom, right)": lambda b: b[:, [1, 0, 3, 2]],
    "(left, right, top, bottom)": lambda b: b[:, [0, 2, 1, 3]],
    "(right, bottom, left, top)": lambda b: b[:, [2, 3, 0, 1]],
}
"""Other formats, and what makes (left, top, right, bottom) of them."""


def fitting(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """[M] bool: which boxes have sides above 0 and lie in their image.

    Args:
        boxes: [M, 4], read as xyxy.
        sizes: [M, 2] (height, width).
    """
    left, top, right, bottom = boxes.T
    height, width = sizes.T
    inside = (left >= -TOLERANCE) & (top >= -TOLERANCE) & (right <= width + TOLERANCE) & (bottom <= height + TOLERANCE)
    return (right > left) & (bottom > top) & inside & np.isfinite(boxes).all(axis=1)


def check_boxes(stated: Objects, decoded: Objects) -> Outcome:
    """The format of boxes, in the data set's records and in its decoded samples."""
    outcome = Outcome("boxes")
    for objects, where in ((stated, "the records"), (decoded, "the decoded samples")):
        if len(objects.boxes) and not outcome.is_wrong:  # the samples bring what the records hold: once is enough
            _check(outcome, objects, where)
    return outcome


def _check(outcome: Outcome, objects: Objects, where: str) -> None:
    boxes, sizes = objects.boxes, objects.sizes
    fit = fitting(boxes, sizes)
    share = float(fit.mean())
    outcome.facts[where.removeprefix("the ").replace(" ", "_")] = {"boxes": len(boxes), "share_that_fits": share}
    if sizes.min() >= _LEAST_SIDE and np.mean(np.abs(boxes).max(axis=1) <= _SHARES) >= FITTING:
        outcome.error(
            "boxes-normalised",
            f"the {counted(len(boxes), 'box', 'boxes')} of {where} hold no number above {np.abs(boxes).max():.3g}, in "
            f"images of up to {int(sizes[:, 1].max())}x{int(sizes[:, 0].max())} px: these are shares of the image, as "
            "YOLO's text files have them",
            "multiply x by the image's width and y by its height where data.train makes its boxes (YOLODataset does)",
        )
        return
    if fit.all():
        return
    example = int(np.argmin(fit))
    shown = f"{np.round(boxes[example], 1).tolist()} in {objects.paths[example]}"
    wrong = (
        f"{np.sum(~fit):,} of {len(boxes):,} boxes of {where} do not lie in their image as (left, top, right, bottom), "
        f"such as {shown}"
    )
    shares = {name: float(fitting(read(boxes), sizes).mean()) for name, read in READINGS.items()}
    best = max(shares, key=lambda name: shares[name])
    if share < FITTING <= shares[best]:
        remedy = "give (left, top, right, bottom) in pixels where data.train makes its boxes"
        outcome.error("box-format", f"{wrong}; read as {best}, {shares[best]:.0%} do", remedy)
    elif share < 1 - OUTSIDE:
        remedy = "look whether boxes and images have one resolution and rotation; tools/check_data.py names files"
        outcome.error("boxes-outside", wrong, remedy)
    else:
        outcome.warning("boxes-outside", wrong, "clip or remove them; tools/check_data.py names the files")
