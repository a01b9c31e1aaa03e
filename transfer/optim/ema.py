"""The moving average of a model's weights, evaluated and saved in place of the last ones.

Source of the idea: Polyak and Juditsky 1992. The ramp decay * (1 - exp(-t / 2000)) is that of YOLOv5's ModelEMA,
which YOLOX uses with decay 0.9998: the first updates follow the model closely, so that the average forgets the initial
weights.

What is averaged: every floating parameter, and the running mean and variance of batch and instance norms, so that
statistics and weights are of the same age. What is copied: all other buffers, counters as well as tables (those may
hold infinities, whose average is not a number).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from transfer.types import UserError


class EMA:
    """An exponential moving average of a model. The model itself is never changed."""

    module: nn.Module
    """The average, in eval mode and without gradients."""
    updates: int
    """How often `update` was called."""

    def __init__(self, model: nn.Module, *, decay: float = 0.9998, warm_up: int = 2000) -> None:
        """
        Args:
            model: the bare model, not wrapped for distributed training; it is copied.
            decay: share of the old average that an update keeps in the long run, in [0, 1).
            warm_up: time constant of the ramp in updates; 0 uses `decay` from the first update on.

        Raises:
            UserError: decay or warm_up is out of its range.
        """
        problems = []
        if not 0 <= decay < 1:
            problems.append(f"EMA: decay is {decay!r}; give a number in [0, 1), such as 0.9998")
        if warm_up < 0:
            problems.append(f"EMA: warm_up is {warm_up!r}; give 0 (no ramp) or a number of updates")
        if problems:
            raise UserError("\n".join(problems))
        self.decay = decay
        self.warm_up = warm_up
        self.updates = 0
        self.module = copy.deepcopy(model).eval().requires_grad_(False)

    def decay_at(self, update: int) -> float:
        """The decay of the n-th update, n from 1."""
        return self.decay * (1 - math.exp(-update / self.warm_up)) if self.warm_up else self.decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model`; call it after each optimizer step that was not skipped.

        Args:
            model: of the same structure as the one given at the start.
        """
        self.updates += 1
        averaged, copied = _split_tensors(self.module)
        new_averaged, new_copied = _split_tensors(model)
        assert averaged.keys() == new_averaged.keys(), "the model's structure changed under its average"
        assert copied.keys() == new_copied.keys(), "the model's structure changed under its average"
        torch._foreach_lerp_(  # average + (1 - decay) * (model - average)
            list(averaged.values()), list(new_averaged.values()), 1 - self.decay_at(self.updates)
        )
        for name, tensor in copied.items():
            tensor.copy_(new_copied[name])

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain types: the number of updates and the averaged model's own state."""
        return {"updates": self.updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave; decay and warm_up stay those of the constructor."""
        self.module.load_state_dict(state["module"])
        self.updates = int(state["updates"])


def _split_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By name, what is averaged and what is copied; a tensor of two names comes once, or it would move twice."""
    statistics = {
        f"{name}.{own_name}" if name else own_name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
        for own_name in ("running_mean", "running_var")
    }
    averaged: dict[str, Tensor] = {}
    copied: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        (averaged if parameter.is_floating_point() else copied)[name] = parameter
    for name, buffer in model.named_buffers():
        (averaged if name in statistics else copied)[name] = buffer
    return averaged, copied
