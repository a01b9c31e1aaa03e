"""Learning-rate schedules as pure functions of the iteration, so that a resumed run has the lr of an unbroken one.

A schedule says by which factor the lr that each parameter group started with is multiplied. Iterations count optimizer
steps from 0: the factor of iteration i is in use for step i + 1. Configs name the schedules from here:

    curves         Constant, Step, Cosine, Poly, Exponential, OneCycle     `schedule_curves`
    compositions   WarmUp, Sequence, Held                                  `schedule_compositions`
    by the figure  Plateau, told what evaluations measured                 `schedule_plateau`

Lengths and points: a cosine, a polynomial, one cycle and the pieces of a Sequence run over the span they are given,
which is the whole run, what a WarmUp leaves of it, or one piece. The periods of an Exponential and the blocks of a Held
count from the start of their span. The milestones of a Step are points of the whole run wherever the Step stands, as
the papers print them: /10 at epoch 30 is at epoch 30 with or without a warm-up of 5 epochs. Fractional positions fall
on the nearest iteration.
"""

from __future__ import annotations

import torch

from transfer.optim.schedule_base import Schedule, Span
from transfer.optim.schedule_compositions import Held, Sequence, WarmUp
from transfer.optim.schedule_curves import Constant, Cosine, Exponential, OneCycle, Poly, Step
from transfer.optim.schedule_plateau import Plateau

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "Held",
    "OneCycle",
    "Plateau",
    "Poly",
    "Schedule",
    "Sequence",
    "Span",
    "Step",
    "WarmUp",
    "set_lr",
]


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's lr to its initial_lr times the factor.

    Args:
        optimizer: one whose groups carry initial_lr, as those of `parameter_groups` do.
        factor: from a schedule, at least 0.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
