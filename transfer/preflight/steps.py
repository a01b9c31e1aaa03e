"""A few training steps on a copy of the run: losses, gradients and what the steps do to the weights, all recorded.

The steps are taken on one small batch at the largest lr of the schedule, so without its warm-up; gradients are clipped
as in the run. Several steps are needed for more than the lr: behind a norm whose gamma starts at zero nothing has a
gradient before gamma has moved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from transfer.optim.schedules import set_lr
from transfer.preflight.sandbox import Trial
from transfer.types import Batch

STEPS = 5
"""With their losses; after the last no gradient is needed."""


@dataclass
class Steps:
    """What the steps gave."""

    losses: list[dict[str, float]] = field(default_factory=list)
    """Of each step that was taken; the list ends with the first that is not finite."""
    gradient_norms: list[float] = field(default_factory=list)
    """Of all gradients together, before clipping."""
    without_gradient: set[str] = field(default_factory=set)
    """Parameters that no loss depended on in any step."""
    zero_gradient: set[str] = field(default_factory=set)
    """Parameters whose gradient was there and zero, or not there, in every step."""
    infinite_gradient: set[str] = field(default_factory=set)
    """Parameters with a gradient that was not finite; in float16, where that is part of finding the scale, none."""
    changes: dict[str, float] = field(default_factory=dict)
    """Of each weight (not of biases and norms): root mean square of its first change, times the root of its inputs.

    It is by how much the output of its layer changes, in units of the input's: a usual weight has about 1 itself.
    """

    @property
    def totals(self) -> list[float]:
        """The sum of all terms of each step."""
        return [sum(losses.values()) for losses in self.losses]


def finish_steps(trial: Trial, batch: Batch, losses: dict[str, Tensor], *, peak: float) -> Steps:
    """Backward and step with the losses of a first forward pass, then the other steps.

    Args:
        trial: is changed.
        batch: on the device.
        losses: of the first pass, with their graph.
        peak: factor on every group's initial lr.
    """
    steps = Steps(without_gradient=set(trial.trained()), zero_gradient=set(trial.trained()))
    set_lr(trial.optimizer, peak)
    for number in range(STEPS):
        if number:
            losses = trial.losses(batch, number)
        steps.losses.append({name: float(loss.detach()) for name, loss in losses.items()})
        if not all(map(math.isfinite, steps.losses[-1].values())) or number == STEPS - 1:
            break
        trial.precision.backward(trial.settings.flooded(torch.stack(list(losses.values())).sum()))
        _look_at_gradients(trial, steps)
        before = _weights(trial) if number == 0 else {}
        trial.precision.step(trial.optimizer, max_norm=trial.settings.clip_norm)
        trial.optimizer.zero_grad(set_to_none=True)
        if number == 0:
            after = _weights(trial)
            steps.changes = {
                name: float((after[name] - weight).square().mean().sqrt()) * math.sqrt(weight[0].numel())
                for name, weight in before.items()
            }
    return steps


@torch.no_grad()
def _look_at_gradients(trial: Trial, steps: Steps) -> None:
    there = {name: p.grad for name, p in trial.trained().items() if p.grad is not None}
    if not there:
        return
    norms = torch.stack(torch._foreach_norm(list(there.values()))).float() / trial.precision.scaler.get_scale()
    steps.gradient_norms.append(float(norms.square().sum().sqrt()))
    for name, norm in zip(there, norms.tolist()):
        steps.without_gradient.discard(name)
        if not math.isfinite(norm) and not trial.precision.scaler.is_enabled():
            steps.infinite_gradient.add(name)
        if norm != 0:
            steps.zero_gradient.discard(name)


def _weights(trial: Trial) -> dict[str, Tensor]:
    """Copies of the weights of convolutions and linear layers, [out, in, ...]."""
    return {name: p.detach().clone() for name, p in trial.trained().items() if p.ndim > 1}
