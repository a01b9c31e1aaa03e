"""The factors of a schedule over a small run, and the lr of a torch scheduler over the same."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LRScheduler

from transfer.optim.schedules import Schedule

TOTAL, PER_EPOCH = 120, 10
EXACT = {"rel": 0, "abs": 1e-12}


def curve(schedule: Schedule, total: int = TOTAL, per_epoch: int = PER_EPOCH) -> list[float]:
    """The factor in use at each step."""
    return [schedule.factor(i, total=total, per_epoch=per_epoch) for i in range(total)]


def torch_curve(
    make: Callable[[torch.optim.Optimizer], LRScheduler], total: int = TOTAL, *, every: int = 1
) -> list[float]:
    """The lr in use at each step under a torch scheduler that is stepped every so many, with a base lr of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    lrs = []
    for step in range(1, total + 1):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step % every == 0 and step < total:  # torch's one-cycle refuses a step beyond its last
            scheduler.step()
    return lrs
