"""Knowledge distillation: a student is taught what a teacher says of the same images.

Source: He et al. 2018, Bag of Tricks (arXiv 1812.01187), section 5.3, after Hinton et al. 2015 (arXiv 1503.02531). For
logits z of the student and r of the teacher, true probabilities p and a temperature T (20 in the paper)

    L(p, softmax(z)) + T^2 L(softmax(r / T), softmax(z / T))

Here is the second term; L is the cross entropy, as in the paper. The Kullback-Leibler divergence, which others take, is
less by the entropy of softmax(r / T), times T^2, a constant for the student: the gradients are the same. So the term
does not fall to 0: it begins at T^2 log K (1842 for T = 20 and K = 100), and most of that is the constant.

The gradient with respect to z is T (softmax(z / T) - softmax(r / T)). For a large T it becomes (z - r) / K, where z and
r each have mean 0 (Hinton et al., equations 2 to 4): the factor T^2 keeps the term's pull the same for any T.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from transfer.losses.soft_targets import soft_cross_entropy
from transfer.types import UserError, is_number


def distillation_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 20.0,
    reduction: Literal["sum", "none", "mean"] = "sum",
) -> Tensor:
    """T^2 times the cross entropy of the two softened distributions, in float32 at the least.

    Args:
        logits: [N, K] of the student.
        teacher_logits: [N, K]; no gradient goes to them.
        temperature: T, above 0.
        reduction: "sum" leaves the normaliser to the caller, "mean" is over rows, "none" gives one loss a row.

    Returns:
        Scalar, or [N] for reduction "none".

    Raises:
        UserError: temperature or reduction is not as said above.
    """
    if not is_number(temperature) or not 0 < temperature < float("inf"):
        raise UserError(f"distillation_loss: temperature={temperature!r} must be a number above 0")
    assert logits.shape == teacher_logits.shape, f"{tuple(logits.shape)} and {tuple(teacher_logits.shape)}"
    logits = logits.float() if logits.element_size() < 4 else logits
    softened = (teacher_logits.detach().to(logits.dtype) / temperature).softmax(dim=1)
    return temperature**2 * soft_cross_entropy(logits / temperature, softened, reduction=reduction)


class Teacher:
    """A trained network that only answers: in eval mode, without gradients, and in nobody's state_dict.

    It runs in the precision around it, so under autocast in 16 bits. It never changes, so a deep copy of it is itself:
    a copy of a criterion does not hold a large network twice.

    Args:
        network: [B, 3, H, W] images to logits [B, K], or to an object whose `logits` are that. A module is put into
            eval mode, and moved to the device of the first images.
    """

    def __init__(self, network: Callable[[Tensor], Any]) -> None:
        self.network = network
        self.device: torch.device | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """What it says of images.

        Args:
            images: [B, 3, H, W], the very tensor that the student was given.
        Returns:
            [B, K] logits without gradient.
        Raises:
            UserError: the network gives something else.
        """
        if isinstance(self.network, nn.Module):
            self.network.eval()  # each time: whoever else holds it may have put it into training mode
            if self.device != images.device:
                self.network.to(images.device)
                self.device = images.device
        answer = self.network(images)
        logits = getattr(answer, "logits", answer)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images):
            found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(f"the teacher gives {found} for {len(images)} images: logits [{len(images)}, K] are needed")
        return logits

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self
