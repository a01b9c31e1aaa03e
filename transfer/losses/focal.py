"""Binary losses of logits, element by element: cross entropy and focal loss.

Source: Lin et al. 2017, Focal Loss for Dense Object Detection (arXiv 1708.02002), section 3: cross entropy times
alpha_t * (1 - p_t) ** gamma, in torchvision's form, which also takes targets between 0 and 1 (p_t and alpha_t are then
the same mixtures as the target). Not summed and not normalised here: the paper divides the sum by the number of
positives, a criterion says what it divides by.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from transfer.types import UserError, is_number

KINDS = ("bce", "focal")


class BinaryLoss:
    """Cross entropy or focal loss of each logit with its target.

    Args:
        kind: "bce" or "focal".
        name: of the argument that `kind` came from, for messages.
        alpha: weight of positives in [0, 1], negatives have 1 - alpha; None: both have 1.
        gamma: how much easy examples count less; 0, or 1 and more (between them the gradient has a pole at p_t = 1).
    """

    def __init__(
        self,
        kind: Literal["bce", "focal"] = "bce",
        *,
        name: str = "kind",
        alpha: float | None = 0.25,
        gamma: float = 2.0,
    ) -> None:
        problems = []
        if kind not in KINDS:
            problems.append(f"{name}={kind!r} is none of {', '.join(KINDS)}")
        if alpha is not None and (not is_number(alpha) or not 0 <= alpha <= 1):
            problems.append(f"focal_alpha={alpha!r} must be None or a number in [0, 1]")
        if not is_number(gamma) or (gamma != 0 and not gamma >= 1):
            problems.append(f"focal_gamma={gamma!r} must be 0 or a number from 1 on")
        if problems:
            raise UserError("; ".join(problems))
        self.kind, self.alpha, self.gamma = kind, alpha, gamma

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The losses, in float32 at the least.

        Args:
            logits: any shape.
            targets: of that shape, in [0, 1].
        Returns:
            Of that shape.
        """
        logits = logits.float() if logits.element_size() < 4 else logits
        targets = targets.to(logits.dtype)  # torch computes float64 logits in the targets' float32 otherwise
        if self.kind == "bce":
            return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        alpha = -1 if self.alpha is None else self.alpha  # torchvision's sign for "no alpha"
        return sigmoid_focal_loss(logits, targets, alpha, self.gamma, reduction="none")
