"""Losses of whole regions, from segmentation_models_pytorch: Dice, Jaccard, Tversky, Lovasz.

Source: Milletari et al. 2016, V-Net (arXiv 1606.04797), for Dice; Salehi et al. 2017 (arXiv 1706.05721) for Tversky;
Berman et al. 2018 (arXiv 1705.08790) for Lovasz; Wang et al. 2023 (arXiv 2302.05666) for the form of the first three.
They compare, class by class, the softmax of all valid pixels of a batch with the truth.

What smp does and a user should know: Dice, Jaccard and Tversky give a class that is absent from the batch's truth the
loss 0 and still average over all K classes, so with 150 classes of which ten are present the loss is at most 1/15, and
nothing is paid for predicting an absent class. Lovasz averages over the classes present.

Wrapped, of smp 0.6: Lovasz returns an empty tensor for a batch without a valid pixel, and, image by image, for any
batch in which one image has none. Tversky's exponent below 1 has an infinite gradient at loss 0, so it is refused.

A region loss is no mean over pixels: each process takes it over its own part of the batch, and two processes with one
image each differ from one process with two.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from transfer.types import IGNORED_PIXEL, UserError, is_number


class RegionLoss:
    """A loss of smp's on logits and masks; the base of Dice, Jaccard and Tversky."""

    loss: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, logits: Tensor, masks: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: [B, K, H, W] floating.
            masks: [B, H, W] uint8 or int64: 0..K-1 or IGNORED_PIXEL.
        Returns:
            Scalar; 0 where there is no valid pixel.
        """
        return self.loss(logits, masks)


class Dice(RegionLoss):
    """1 - 2 I / (P + T) of each class: I the overlap, P and T the sums of prediction and truth.

    Args:
        smooth: added to I, and twice that below the fraction line; at least 0.
        log_loss: -log of the score instead of 1 - score.
    """

    def __init__(self, *, smooth: float = 0.0, log_loss: bool = False) -> None:
        _check("Dice", smooth=smooth, log_loss=log_loss)
        from segmentation_models_pytorch.losses import MULTICLASS_MODE, DiceLoss  # 7 s: not before it is asked for

        self.loss = DiceLoss(MULTICLASS_MODE, smooth=smooth, log_loss=log_loss, ignore_index=IGNORED_PIXEL)


class Jaccard(RegionLoss):
    """1 - I / (P + T - I) of each class.

    Args:
        smooth: added above and below the fraction line, at least 0.
        log_loss: -log of the score instead of 1 - score.
    """

    def __init__(self, *, smooth: float = 0.0, log_loss: bool = False) -> None:
        _check("Jaccard", smooth=smooth, log_loss=log_loss)
        from segmentation_models_pytorch.losses import MULTICLASS_MODE, JaccardLoss

        self.loss = JaccardLoss(MULTICLASS_MODE, smooth=smooth, log_loss=log_loss, ignore_index=IGNORED_PIXEL)


class Tversky(RegionLoss):
    """1 - I / (I + alpha * (P - I) + beta * (T - I)) of each class; their mean to the power of gamma.

    Args:
        alpha: weight of false positives, at least 0.
        beta: weight of false negatives, at least 0; larger than alpha favours recall. Both 0.5: Dice.
        gamma: exponent of the mean, from 1 on.
        smooth: added above and below the fraction line, at least 0.
        log_loss: -log of the score instead of 1 - score.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        beta: float = 0.5,
        gamma: float = 1.0,
        smooth: float = 0.0,
        log_loss: bool = False,
    ) -> None:
        _check("Tversky", alpha=alpha, beta=beta, gamma=gamma, smooth=smooth, log_loss=log_loss)
        from segmentation_models_pytorch.losses import MULTICLASS_MODE, TverskyLoss

        self.loss = TverskyLoss(
            MULTICLASS_MODE,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            smooth=smooth,
            log_loss=log_loss,
            ignore_index=IGNORED_PIXEL,
        )


class Lovasz:
    """The Lovasz extension of the Jaccard loss, averaged over the classes present.

    Args:
        per_image: take it of each image with valid pixels and average; otherwise of the batch as one image.
    """

    def __init__(self, *, per_image: bool = False) -> None:
        _check("Lovasz", per_image=per_image)
        from segmentation_models_pytorch.losses import MULTICLASS_MODE, LovaszLoss

        self.per_image = per_image
        self.loss = LovaszLoss(MULTICLASS_MODE, ignore_index=IGNORED_PIXEL)

    def __call__(self, logits: Tensor, masks: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: [B, K, H, W] floating.
            masks: [B, H, W] uint8 or int64: 0..K-1 or IGNORED_PIXEL.
        Returns:
            Scalar; 0 where there is no valid pixel.
        """
        count = len(masks) if self.per_image else 1
        parts = [
            self.loss(part, mask)
            for part, mask in zip(logits.tensor_split(count), masks.tensor_split(count))
            if bool((mask != IGNORED_PIXEL).any())
        ]
        # Without a part the logits still get a gradient, of zeros: DistributedDataParallel waits for one.
        return torch.stack(parts).mean() if parts else logits[..., :0].sum()


def _check(name: str, **arguments: object) -> None:
    """Raises: UserError naming every argument out of range."""
    problems = []
    for argument, value in arguments.items():
        least = 1 if argument == "gamma" else 0
        if argument in ("log_loss", "per_image"):
            if not isinstance(value, bool):
                problems.append(f"{argument}={value!r} must be True or False")
        elif not is_number(value) or not least <= value < float("inf"):  # type: ignore[operator]
            reason = ": below it the gradient at loss 0 is infinite" if argument == "gamma" else ""
            problems.append(f"{argument}={value!r} must be a number of at least {least}{reason}")
    if arguments.get("alpha") == 0 and arguments.get("beta") == 0:
        problems.append("alpha and beta are both 0: every prediction that touches the truth would be perfect")
    if problems:
        raise UserError(f"{name}: {'; '.join(problems)}")
