"""The optimizers as a config names them: what they are, at which batch their lr was chosen, and on which parameters.

    SGD, AdamW, RMSprop   torch's own
    LARS, LAMB            timm's: layer-wise rates for large batches
    AdaBound              `transfer.optim.ada_bound`

Source: He et al. 2018, Bag of Tricks (arXiv 1812.01187), section 3.1, "linear scaling": lr = 0.1 * b / 256, after Goyal
et al. 2017 (arXiv 1706.02677). A learning rate means nothing without its batch, so `base_batch` has no default: None
says that the lr is used as it stands, whatever the batch. Square-root scaling is offered for AdamW (Malladi et al.
2022, arXiv 2205.10287), and by LAMB's authors; linear is the default of all, so that a config reads the same whichever
it names.

Weight decay is added to the gradient (L2) by SGD, RMSprop and AdaBound; LARS and LAMB add it before the layer's rate
is taken; AdamW alone decouples it. SGD and AdamW take torch's fused kernels, which read and write every tensor once: on
one CPU thread a step on ResNet-18-D takes 12 ms instead of 62 (SGD), 17 instead of 85 (AdamW). Gradients are clipped by
training.clip_norm alone: LAMB's own clipping is off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from transfer.optim import ada_bound
from transfer.optim.param_groups import parameter_groups
from transfer.types import UserError, is_number


@dataclass(frozen=True, kw_only=True)
class _OptimizerConfig:
    """What all of them have in common."""

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


def _can_be_fused(groups: list[dict[str, Any]]) -> bool | None:
    """Whether torch has fused kernels for all parameters; None leaves the choice to torch."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    fits = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    return True if fits else None


def _begin_momentum(optimizer: torch.optim.Optimizer, arguments: Any, options: Any) -> None:
    """Momentum of zero before a parameter's first gradient: the same step (0 * momentum + gradient).

    torch's fused SGD (2.14) fails where only some parameters of a group have a momentum already.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            if parameter.grad is not None and optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _scaled_outside(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Let the gradient scaler of float16 unscale gradients and skip steps itself, as for optimizers that are not fused.

    torch's fused SGD (2.14) would take a first step that overflows as done, and go on with a momentum it never wrote.
    """
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer


@dataclass(frozen=True, kw_only=True)
class SGD(_OptimizerConfig):
    """Stochastic gradient descent with momentum; Nesterov's form unless switched off, as in BoT's baseline."""

    momentum: float = 0.9
    """In [0, 1)."""
    nesterov: bool = True
    """Needs a momentum above 0."""
    weight_decay: float = 1e-4

    def _torch_optimizer(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        fused = _can_be_fused(groups)
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=self.momentum, nesterov=self.nesterov, fused=fused)
        optimizer.register_step_pre_hook(_begin_momentum)
        return _scaled_outside(optimizer)

    def _problems(self) -> list[str]:
        problems = super()._problems() + _problems_of_shares({"momentum": self.momentum})
        if self.nesterov and self.momentum == 0:
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
        fused = _can_be_fused(groups)
        return _scaled_outside(torch.optim.AdamW(groups, lr=lr, betas=(first, second), eps=self.eps, fused=fused))

    def _problems(self) -> list[str]:
        return super()._problems() + _problems_of_betas(self.betas) + _problems_unless_positive("eps", self.eps)


@dataclass(frozen=True, kw_only=True)
class RMSprop(_OptimizerConfig):
    """Gradients over the root of their mean square, then momentum (Tieleman and Hinton 2012).

    As torch has it: eps is added to the root. TensorFlow, in which MobileNet and Inception-V3 were trained with it,
    adds it below the root, and starts the mean square at 1 instead of 0.
    """

    alpha: float = 0.9
    """Share of the old mean square that a step keeps, in [0, 1)."""
    momentum: float = 0.9
    """In [0, 1)."""
    eps: float = 1e-8
    """Above 0."""
    weight_decay: float = 4e-5

    def _torch_optimizer(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(groups, lr=lr, alpha=self.alpha, eps=self.eps, momentum=self.momentum)

    def _problems(self) -> list[str]:
        shares = {"alpha": self.alpha, "momentum": self.momentum}
        return super()._problems() + _problems_of_shares(shares) + _problems_unless_positive("eps", self.eps)


@dataclass(frozen=True, kw_only=True)
class LARS(_OptimizerConfig):
    """SGD in which each layer's gradient is first scaled to a share of its weights' norm.

    Source: You, Gitman and Ginsburg 2017 (arXiv 1708.03888). The share is trust_coefficient * |w| / (|g| + decay * |w|)
    and 1 where either norm is 0. It acts on what decays: with decay_norm_and_bias=False, norms and biases take plain
    SGD steps at the same lr. Deviation (timm's): the lr multiplies the momentum's sum, as in torch's SGD, and not each
    gradient that enters it, so that a lower lr acts at once.
    """

    momentum: float = 0.9
    """In [0, 1)."""
    nesterov: bool = False
    """Needs a momentum above 0."""
    trust_coefficient: float = 0.001
    """Above 0."""
    always_adapt: bool = False
    """True: what does not decay is adapted, too."""
    weight_decay: float = 1e-4

    def _torch_optimizer(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        from timm.optim import Lars  # late: timm takes seconds to import

        return Lars(
            groups,
            lr=lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            trust_coeff=self.trust_coefficient,
            always_adapt=self.always_adapt,
        )

    def _problems(self) -> list[str]:
        problems = super()._problems() + _problems_of_shares({"momentum": self.momentum})
        if self.nesterov and self.momentum == 0:
            problems.append("nesterov=True with momentum 0; give a momentum such as 0.9, or nesterov=False")
        problems += _problems_unless_positive("trust_coefficient", self.trust_coefficient)
        return problems + _problems_if_nothing_adapts(self.weight_decay, self.always_adapt, "SGD")


@dataclass(frozen=True, kw_only=True)
class LAMB(_OptimizerConfig):
    """Adam in which each layer's step, decay included, is scaled to its weights' norm.

    Source: You et al. 2019 (arXiv 1904.00962). The factor is |w| / |step| and 1 where either is 0. It acts on what
    decays: with decay_norm_and_bias=False, norms and biases take plain Adam steps at the same lr.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    """Each in [0, 1)."""
    eps: float = 1e-6
    """Above 0."""
    always_adapt: bool = False
    """True: what does not decay is adapted, too."""
    weight_decay: float = 0.02
    """That of Wightman et al. 2021 (arXiv 2110.00476) for ResNet-50."""

    def _torch_optimizer(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        from timm.optim import Lamb  # late: timm takes seconds to import

        first, second = self.betas
        return Lamb(
            groups,
            lr=lr,
            betas=(first, second),
            eps=self.eps,
            always_adapt=self.always_adapt,
            max_grad_norm=None,  # training.clip_norm clips, once
        )

    def _problems(self) -> list[str]:
        problems = super()._problems() + _problems_of_betas(self.betas) + _problems_unless_positive("eps", self.eps)
        return problems + _problems_if_nothing_adapts(self.weight_decay, self.always_adapt, "Adam")


@dataclass(frozen=True, kw_only=True)
class AdaBound(_OptimizerConfig):
    """Adam whose rates are held between two bounds that close on one rate, that of SGD."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Each in [0, 1)."""
    eps: float = 1e-8
    """Above 0."""
    final_lr_factor: float = 100.0
    """The rate the bounds close on, as a multiple of lr, so that scaling and schedule act on both; above 0."""
    gamma: float = 1e-3
    """How fast they close, in (0, 1); 1 - beta2 in the paper."""
    weight_decay: float = 5e-4

    def _torch_optimizer(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        first, second = self.betas
        return ada_bound.AdaBound(
            groups,
            lr=lr,
            betas=(first, second),
            eps=self.eps,
            final_lr_factor=self.final_lr_factor,
            gamma=self.gamma,
        )

    def _problems(self) -> list[str]:
        problems = super()._problems() + _problems_of_betas(self.betas) + _problems_unless_positive("eps", self.eps)
        problems += _problems_unless_positive("final_lr_factor", self.final_lr_factor)
        if not (is_number(self.gamma) and 0 < self.gamma < 1):
            problems.append(f"gamma is {self.gamma!r}; give a number in (0, 1)")
        return problems


def _problems_of_shares(shares: Mapping[str, object]) -> list[str]:
    return [
        f"{name} is {value!r}; give a number in [0, 1)"
        for name, value in shares.items()
        if not (is_number(value) and 0 <= value < 1)  # type: ignore[operator]
    ]


def _problems_of_betas(betas: object) -> list[str]:
    fits = isinstance(betas, (tuple, list)) and len(betas) == 2 and all(is_number(b) and 0 <= b < 1 for b in betas)
    return [] if fits else [f"betas is {betas!r}; give two numbers in [0, 1)"]


def _problems_unless_positive(name: str, value: float) -> list[str]:
    return [] if is_number(value) and 0 < value < math.inf else [f"{name} is {value!r}; give a number above 0"]


def _problems_if_nothing_adapts(weight_decay: float, always_adapt: bool, remainder: str) -> list[str]:
    if weight_decay == 0 and not always_adapt:
        return [f"weight_decay=0 with always_adapt=False adapts no layer, which is {remainder}; give always_adapt=True"]
    return []
