"""The L1 penalty: strength * sum |w|, added to the loss.

Source: Tibshirani 1996, Regression Shrinkage and Selection via the Lasso, as a penalty on a network's weights. It acts
on what weight decay acts on under "no bias decay" (`transfer.optim.param_groups`): the weights of convolutions and
linear layers. Its gradient is the plain subgradient, strength * sign(w) and 0 at w = 0, which passes through the
optimizer like the loss's own: weights come near 0 and seldom on it. An lr factor of a group does not change the
penalty, only the step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from transfer.optim.param_groups import weights_without_norm_and_bias
from transfer.types import UserError, is_number


class L1Penalty:
    """Adds the penalty of a model's trained weights to a loss."""

    def __init__(self, model: nn.Module, strength: float | None, *, norm_and_bias: bool = False) -> None:
        """
        Args:
            model: the bare model, not wrapped for distributed training; which parameters count is settled here.
            strength: factor of the sum, at least 0; 0 or None: no penalty.
            norm_and_bias: whether biases and the parameters of norms count, too.

        Raises:
            UserError: the strength is not such a number.
        """
        if strength is not None and not (is_number(strength) and 0 <= strength < math.inf):
            raise UserError(f"l1: the strength is {strength!r}; give a number such as 1e-5, or None for no penalty")
        self.strength = strength or 0.0
        if norm_and_bias:
            self.weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        else:
            self.weights = weights_without_norm_and_bias(model)

    def __call__(self, loss: Tensor) -> Tensor:
        """Loss and penalty together.

        Args:
            loss: scalar, the total of one micro-batch before it is divided by the number of them.

        Returns:
            Scalar, in the wider format of loss and weights; `loss` itself where there is no penalty.
        """
        if not self.strength or not self.weights:
            return loss
        sums = [weight.abs().sum() for weight in self.weights]  # float32 as the weights are, under autocast, too
        return loss + self.strength * torch.stack(sums).sum()
