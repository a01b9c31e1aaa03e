"""Several segmentation losses as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from transfer.types import UserError, is_number


class SegmentationLoss(Protocol):
    """A loss of every pixel's logits; one that has `check_classes(num_classes)` is shown the number of classes.

    One whose class has `sums(logits, masks)`, the sums of losses and of weights whose `pixel_mean` it is, is taken
    image by image: see `transfer.losses.image_by_image`.
    """

    def __call__(self, logits: Tensor, masks: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: [B, K, H, W] floating.
            masks: [B, H, W] uint8 or int64: 0..K-1 or IGNORED_PIXEL.
        Returns:
            Scalar; ignored pixels get no gradient, and without a valid pixel it is 0.
        """
        ...


class WeightedSum:
    """The sum of weight * loss.

    Args:
        losses: of any kind.
        weights: one number of at least 0 a loss.

    Raises:
        UserError: no losses, or not one weight for each.
    """

    def __init__(self, losses: Sequence[SegmentationLoss], weights: Sequence[float]) -> None:
        problems = []
        if not isinstance(losses, Sequence) or not losses or not all(callable(loss) for loss in losses):
            problems.append(f"losses={losses!r} must be a list of at least one loss, such as dict(type=Dice)")
        elif not isinstance(weights, Sequence) or len(weights) != len(losses):
            problems.append(f"weights={weights!r} must be a list of {len(losses)} numbers, one for each of losses")
        if isinstance(weights, Sequence) and not all(is_number(w) and 0 <= w < math.inf for w in weights):
            problems.append(f"weights={weights!r} must be numbers of at least 0")
        if problems:
            raise UserError(f"WeightedSum: {'; '.join(problems)}")
        self.losses, self.weights = tuple(losses), tuple(float(weight) for weight in weights)

    def check_classes(self, num_classes: int) -> None:
        """Raises: UserError where one of the losses does not fit the number of classes."""
        for loss in self.losses:
            check_classes(loss, num_classes)

    def __call__(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Args: as of its losses. Returns: scalar."""
        parts = [weight * loss(logits, masks) for weight, loss in zip(self.weights, self.losses)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


def check_classes(loss: SegmentationLoss, num_classes: int) -> None:
    """Show a loss the number of classes, where it wants to know. Raises: UserError where it does not fit."""
    check = getattr(loss, "check_classes", None)
    if check is not None:
        check(num_classes)
