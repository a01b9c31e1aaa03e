"""AdaBound: Adam at first, SGD with momentum in the end, with a gradual passage between them.

Source: Luo et al. 2019, Adaptive Gradient Methods with Dynamic Bound of Learning Rate (arXiv 1902.09843), algorithm 2,
with the bounds of its experiments: the rate of each value, lr / sqrt(v), is held between

    final * (1 - 1 / (gamma * t + 1))    and    final * (1 + 1 / (gamma * t)),    t the number of the step from 1,

which begin near 0 and infinity and close on `final`. m and v are Adam's means of the gradient and of its square.

Deviations, with the authors' published code: the 1 / sqrt(t) that the algorithm multiplies each rate by serves its
proof and is left to the schedule; lr / sqrt(v) has Adam's correction for means that begin at 0, and eps beside the
root; weight decay is added to the gradient. `final` is a multiple of the lr in use: a schedule lowers both, as there,
and a group's lr factor acts on both (there, `final` begins at one value in all groups).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class AdaBound(torch.optim.Optimizer):
    """An optimizer of torch's kind; its values are checked where a config names them (`optimizers.AdaBound`)."""

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        final_lr_factor: float = 100.0,
        gamma: float = 1e-3,
    ) -> None:
        """
        Args:
            params: parameters, or groups of them, which may have values of their own for all that follows.
            lr: of Adam, above 0.
            betas: share of the old mean of the gradient and of its square that a step keeps, each in [0, 1).
            eps: added to the root, above 0.
            weight_decay: at least 0.
            final_lr_factor: the rate the bounds close on, as a multiple of lr; above 0.
            gamma: how fast they close, in (0, 1).
        """
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "final_lr_factor": final_lr_factor,
            "gamma": gamma,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step; parameters without a gradient stay as they are.

        Args:
            closure: computes the loss and the gradients anew; None: they are there.

        Returns:
            What the closure gave.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _move(parameter, self.state[parameter], group)
        return loss


def _move(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """One step of one parameter."""
    if not state:
        state.update(step=0, mean=torch.zeros_like(parameter), mean_square=torch.zeros_like(parameter))
    state["step"] += 1
    step, mean, mean_square = state["step"], state["mean"], state["mean_square"]
    first, second = group["betas"]

    gradient = parameter.grad
    assert gradient is not None
    if group["weight_decay"] != 0:
        gradient = gradient.add(parameter, alpha=group["weight_decay"])
    mean.lerp_(gradient, 1 - first)
    mean_square.mul_(second).addcmul_(gradient, gradient, value=1 - second)

    final = group["lr"] * group["final_lr_factor"]
    low, high = final * (1 - 1 / (group["gamma"] * step + 1)), final * (1 + 1 / (group["gamma"] * step))
    unbiased = group["lr"] * math.sqrt(1 - second**step) / (1 - first**step)
    rates = (unbiased / mean_square.sqrt().add_(group["eps"])).clamp_(low, high)
    parameter.addcmul_(rates, mean, value=-1)
