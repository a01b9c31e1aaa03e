"""A training set cut in two for good: one part to train on, one to choose by, each as a data set of its own.

`data.val=0.2` cuts off validation data within a run, and the figure that counts is still the test set's. Where a run is
made to choose something (an lr), the test set must not be looked at: its config names the two parts of the training set
as `data.train` and `data.test`.
"""

from __future__ import annotations

from typing import Literal

from transfer.data.subset import ClassificationSubset, SegmentationSubset, SubsetDataset, split_validation
from transfer.types import AnyDataset, UserError

PARTS = ("rest", "held out")


def held_out(
    dataset: AnyDataset, *, fraction: float, part: Literal["rest", "held out"], seed: int = 0
) -> SubsetDataset | SegmentationSubset | ClassificationSubset:
    """One of the two parts; the same arguments give parts that fit together.

    Args:
        dataset: at least two images.
        fraction: share of the images to hold out, in (0, 1).
        part: "rest" to train on, or "held out".
        seed: which of the equally good splits; see `transfer.data.subset.split_validation`.

    Raises:
        UserError: another part; as `split_validation`.
    """
    if part not in PARTS:
        raise UserError(f"part={part!r} is none of {', '.join(map(repr, PARTS))}")
    parts = split_validation(dataset, fraction, seed)
    return parts[PARTS.index(part)]
