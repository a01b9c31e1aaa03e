"""The optimizers as a config names them: what they are, at which batch their lr was chosen, and on which parameters.

Source: He et al. 2018, Bag of Tricks (arXiv 1812.01187), section 3.1, "linear scaling": lr = 0.1 * b / 256, after Goyal
et al. 2017 (arXiv 1706.02677). A learning rate means nothing without its batch, so `base_batch` has no default: None
says that the lr is used as it stands, whatever the batch. Square-root scaling is offered for AdamW (Malladi et al.
2022, arXiv 2205.10287); linear is the default of both, so that a config reads the same whichever it names.

foreach and fused kernels are left to torch's own choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from transfer.optim.param_groups import parameter_groups
from transfer.types import UserError, is_number


@dataclass(frozen=True, kw_only=True)
class _OptimizerConfig:
    """What SGD and AdamW have in common."""

    lr: float
    """At a global batch of `base_batch`; above 0."""
    base_batch: int | None
    """Images per optimizer step, over devices and accumulation, that `lr` was chosen for. None: lr is not scaled."""
    weight_decay: float = 0.0
    """At least 0."""
    decay_norm_and_bias: bool = True
    """True is the baseline, everything decays; False is BoT's "no bias decay"."""
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    """Prefix of a parameter's dotted name -> factor on its lr; the longest prefix wins."""
    scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How lr follows the global batch."""

    def __post_init__(self) -> None:
        if problems := self._problems():
            raise UserError("\n".join(f"{type(self).__name__}: {problem}" for problem in problems))

    def scaled_lr(self, global_batch: int) -> float:
        """The lr at this many images per optimizer step.

        Args:
            global_batch: images per optimizer step over all devices and accumulated steps, at least 1.

        Returns:
            lr * r for linear scaling, lr * sqrt(r) for sqrt, with r = global_batch / base_batch.

        Raises:
            UserError: global_batch is below 1.
        """
        if global_batch < 1:
            raise UserError(f"{type(self).__name__}: a global batch of {global_batch!r}; at least 1 image is needed")
        if self.base_batch is None or self.scaling == "none":
            return self.lr
        ratio = global_batch / self.base_batch
        return self.lr * (math.sqrt(ratio) if self.scaling == "sqrt" else ratio)

    def describe(self, global_batch: int) -> str:
        """One line for the log: the lr in use and how it came about."""
        name, lr = type(self).__name__, self.scaled_lr(global_batch)
        if self.base_batch is None:
            return f"{name}: lr {lr:g} as given, not scaled to the batch of {global_batch} (base_batch=None)"
        if self.scaling == "none":
            return (
                f"{name}: lr {lr:g} as given for batch {self.base_batch}, not scaled to {global_batch} (scaling='none')"
            )
        return f"{name}: lr {lr:g} = {self.lr:g} at batch {self.base_batch}, scaled ({self.scaling}) to {global_batch}"

    def build(self, model: nn.Module, *, global_batch: int) -> torch.optim.Optimizer:
        """The torch optimizer over the trained parameters of `model`.

        Args:
            model: the bare model, not wrapped for distributed training.
            global_batch: images per optimizer step over all devices and accumulated steps, at least 1.

        Returns:
            An optimizer whose groups carry name, lr, initial_lr, weight_decay and lr_factor.

        Raises:
            UserError: a prefix of lr_factors matches nothing, or nothing is left to train.
        """
        lr = self.scaled_lr(global_batch)
        groups = parameter_groups(
            model,
            lr=lr,
            weight_decay=self.weight_decay,
            decay_norm_and_bias=self.decay_norm_and_bias,
            lr_factors=self.lr_factors,
        )
        return self._torch_optimizer(groups, lr)

    def _torch_optimizer(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        raise NotImplementedError

    def _problems(self) -> list[str]:
        problems = []
        if not (is_number(self.lr) and 0 < self.lr < math.inf):
            problems.append(f"lr is {self.lr!r}; give a number above 0")
        if self.base_batch is not None and not (type(self.base_batch) is int and self.base_batch >= 1):
            problems.append(
                f"base_batch is {self.base_batch!r}; give the batch the lr was chosen for (1, 2, ...) or None"
            )
        if not (is_number(self.weight_decay) and 0 <= self.weight_decay < math.inf):
            problems.append(f"weight_decay is {self.weight_decay!r}; give 0 or a number above")
        if self.scaling not in ("linear", "sqrt", "none"):
            problems.append(f"scaling is {self.scaling!r}; give 'linear', 'sqrt' or 'none'")
        return problems


@dataclass(frozen=True, kw_only=True)
class SGD(_OptimizerConfig):
    """Stochastic gradient descent with momentum; Nesterov's form unless switched off, as in BoT's baseline."""

    momentum: float = 0.9
    """In [0, 1)."""
    nesterov: bool = True
    """Needs a momentum above 0."""
    weight_decay: float = 1e-4

    def _torch_optimizer(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=lr, momentum=self.momentum, nesterov=self.nesterov)

    def _problems(self) -> list[str]:
        problems = super()._problems()
        if not (is_number(self.momentum) and 0 <= self.momentum < 1):
            problems.append(f"momentum is {self.momentum!r}; give a number in [0, 1)")
        elif self.nesterov and self.momentum == 0:
            problems.append("nesterov=True with momentum 0; give a momentum such as 0.9, or nesterov=False")
        return problems


@dataclass(frozen=True, kw_only=True)
class AdamW(_OptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101)."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Each in [0, 1)."""
    eps: float = 1e-8
    """Above 0."""
    weight_decay: float = 0.05
    """Multiplied by lr at each step: the value for SGD is far too small here."""

    def _torch_optimizer(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        first, second = self.betas
        return torch.optim.AdamW(groups, lr=lr, betas=(first, second), eps=self.eps)

    def _problems(self) -> list[str]:
        problems = super()._problems()
        if not (
            isinstance(self.betas, tuple | list)
            and len(self.betas) == 2
            and all(is_number(beta) and 0 <= beta < 1 for beta in self.betas)
        ):
            problems.append(f"betas is {self.betas!r}; give two numbers in [0, 1)")
        if not (is_number(self.eps) and 0 < self.eps < math.inf):
            problems.append(f"eps is {self.eps!r}; give a number above 0")
        return problems
