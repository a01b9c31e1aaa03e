"""Which parameters decay, and at which learning rate each part of the model trains.

Source: He et al. 2018, Bag of Tricks (arXiv 1812.01187), section 3.1, "no bias decay": weight decay on the weights of
convolutions and linear layers only, none on biases and on the gamma and beta of normalisation.

Two rules find what does not decay, and either is enough: the parameter belongs to a normalisation module, or it has at
most one dimension or is named `bias`. The second is timm's rule. It goes further than the paper, which had no such
parameters in mind: layer-scale gammas, PReLU slopes and learned scalars do not decay either, since they scale
activations as a norm's gamma does. The first adds norms over several axes, such as LayerNorm([C, H, W]). Position
embeddings and class tokens have more dimensions and do decay.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from transfer.types import UserError

_NORMS = (
    nn.modules.batchnorm._BatchNorm,  # BatchNorm*d, SyncBatchNorm and timm's BatchNormAct2d
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    decay_norm_and_bias: bool = True,
    lr_factors: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Split the trained parameters into groups for a torch optimizer, each parameter exactly once.

    A parameter shared under several names takes the longest prefix that matches any of them, and does not decay where
    any of its owners is a norm. Parameters with requires_grad off are left out.

    Args:
        model: the bare model, not wrapped for distributed training (the wrapper would prefix every name).
        lr: learning rate of a parameter without a factor, above 0.
        weight_decay: at least 0.
        decay_norm_and_bias: True is the baseline, everything decays; False is the trick.
        lr_factors: prefix of a parameter's dotted name, in whole parts -> factor above 0. The longest prefix wins.
            None: all 1.

    Returns:
        Groups in the order their first parameter appears, each with params, name, lr, initial_lr, weight_decay and
        lr_factor.

    Raises:
        UserError: a prefix matches no parameter, a factor is not a positive number, or nothing is left to train.
    """
    factors = dict(lr_factors or {})
    names_of, parameters, in_norm = _named(model)
    _refuse_bad_factors(factors, [name for names in names_of.values() for name in names])

    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for key, parameter in parameters.items():
        if not parameter.requires_grad:
            continue
        prefix = max((_longest_prefix(name, factors) for name in names_of[key]), key=len)
        decays = decay_norm_and_bias or not _is_bare(parameter, names_of[key], in_norm=key in in_norm)
        factor = float(factors.get(prefix, 1.0))
        if (prefix, decays) not in groups:
            groups[prefix, decays] = {
                "params": [],
                "name": f"{prefix or 'model'}/{'decay' if decays else 'no_decay'}",
                "lr": lr * factor,
                "initial_lr": lr * factor,
                "weight_decay": weight_decay if decays else 0.0,
                "lr_factor": factor,
            }
        groups[prefix, decays]["params"].append(parameter)
    if not groups:
        raise UserError("the model has no parameter to train: every one is frozen. Freeze fewer stages.")
    return list(groups.values())


def weights_without_norm_and_bias(model: nn.Module) -> list[nn.Parameter]:
    """The trained parameters that still decay under the trick: the weights of convolutions and linear layers.

    Args:
        model: the bare model, not wrapped for distributed training.

    Returns:
        Each once, in the model's order; empty where every one is frozen.
    """
    names_of, parameters, in_norm = _named(model)
    return [
        parameter
        for key, parameter in parameters.items()
        if parameter.requires_grad and not _is_bare(parameter, names_of[key], in_norm=key in in_norm)
    ]


def describe_groups(groups: list[dict[str, Any]]) -> str:
    """One line a group: its name, number of tensors and values, learning rate and weight decay."""
    width = max([len("group")] + [len(group["name"]) for group in groups])
    lines = [f"{'group':<{width}}  {'tensors':>7}  {'values':>12}  {'lr':>10}  {'weight decay':>12}"]
    for group in groups:
        values = sum(parameter.numel() for parameter in group["params"])
        lines.append(
            f"{group['name']:<{width}}  {len(group['params']):>7}  {values:>12,}"
            f"  {group['initial_lr']:>10.4g}  {group['weight_decay']:>12.4g}"
        )
    return "\n".join(lines)


def _named(model: nn.Module) -> tuple[dict[int, list[str]], dict[int, nn.Parameter], set[int]]:
    """By identity: every name a parameter goes by, the parameter itself, and which ones a norm owns."""
    names_of: dict[int, list[str]] = {}
    parameters: dict[int, nn.Parameter] = {}
    in_norm: set[int] = set()
    for module_name, module in model.named_modules(remove_duplicate=False):
        for own_name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{module_name}.{own_name}" if module_name else own_name
            names_of.setdefault(id(parameter), []).append(name)
            parameters[id(parameter)] = parameter
            if isinstance(module, _NORMS):
                in_norm.add(id(parameter))
    return names_of, parameters, in_norm


def _is_bare(parameter: nn.Parameter, names: list[str], *, in_norm: bool) -> bool:
    """Whether a parameter stays without weight decay under the trick; `names` are all it goes by."""
    return in_norm or parameter.ndim <= 1 or any(name.split(".")[-1] == "bias" for name in names)


def _longest_prefix(name: str, factors: Mapping[str, float]) -> str:
    """The longest key of `factors` that is `name` or whole leading parts of it; "" where there is none."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:count])) in factors:
            return prefix
    return ""


def _refuse_bad_factors(factors: Mapping[str, float], names: list[str]) -> None:
    """Name every factor that is no positive number and every prefix that matches nothing."""
    prefixes: dict[str, None] = {}  # in the model's order
    for name in names:
        parts = name.split(".")
        prefixes.update(dict.fromkeys(".".join(parts[:count]) for count in range(1, len(parts) + 1)))
    problems = []
    for prefix, factor in factors.items():
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
            problems.append(
                f"lr_factors[{prefix!r}] is {factor!r}; give a number above 0 (to train nothing there, freeze it)"
            )
        if prefix not in prefixes:
            near = difflib.get_close_matches(prefix, prefixes, n=3)
            known = near or [name for name in prefixes if "." not in name][:10]
            problems.append(
                f"lr_factors[{prefix!r}] matches no parameter; "
                f"{'nearest' if near else 'the model has'}: {', '.join(known)}"
            )
    if problems:
        raise UserError("\n".join(problems))
