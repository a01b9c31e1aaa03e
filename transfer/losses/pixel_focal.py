"""Focal loss of every pixel: segmentation_models_pytorch's, normalised over the valid pixels of all processes.

Source: Lin et al. 2017, Focal Loss for Dense Object Detection (arXiv 1708.02002), section 3; smp's multi-class form:
each class against the rest by its own sigmoid, averaged over pixels and over classes.

smp 0.6 gives not-a-number for a batch without a valid pixel; the sum of its losses is divided here instead.
"""

from __future__ import annotations

from torch import Tensor

from transfer.losses.pixel_cross_entropy import pixel_mean
from transfer.types import IGNORED_PIXEL, UserError, is_number


class PixelFocal:
    """Focal loss, averaged over the valid pixels and the classes.

    Args:
        gamma: how much easy pixels count less; 0, or 1 and more (between them the gradient has a pole at p = 1).
        alpha: weight of a class's own pixels in [0, 1], all others have 1 - alpha; None: both have 1.

    Raises:
        UserError: an argument is not as said above.
    """

    def __init__(self, *, gamma: float = 2.0, alpha: float | None = None) -> None:
        problems = []
        if not is_number(gamma) or (gamma != 0 and not gamma >= 1):
            problems.append(f"gamma={gamma!r} must be 0 or a number from 1 on")
        if alpha is not None and (not is_number(alpha) or not 0 <= alpha <= 1):
            problems.append(f"alpha={alpha!r} must be None or a number in [0, 1]")
        if problems:
            raise UserError(f"PixelFocal: {'; '.join(problems)}")
        from segmentation_models_pytorch.losses import MULTICLASS_MODE, FocalLoss  # 7 s: not before it is asked for

        self.loss = FocalLoss(MULTICLASS_MODE, alpha=alpha, gamma=gamma, ignore_index=IGNORED_PIXEL, reduction="sum")

    def __call__(self, logits: Tensor, masks: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: [B, K, H, W] floating.
            masks: [B, H, W] uint8 or int64: 0..K-1 or IGNORED_PIXEL.
        Returns:
            Scalar; 0 where no process has a valid pixel.
        """
        return pixel_mean(*self.sums(logits, masks))

    def sums(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the pixels' losses and the number of valid pixels: a batch's are the sums of its images'."""
        return self.loss(logits, masks), (masks != IGNORED_PIXEL).sum()
