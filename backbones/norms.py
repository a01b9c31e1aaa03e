"""The norm policy of a backbone: what its batch norm does once the network is fine-tuned.

- "batch": plain batch norm; needs batches large enough for statistics.
- "frozen": statistics and affine values stay as pretrained; what Faster R-CNN's papers do with one or two images a GPU.
- "synchronized": statistics over all processes. Plain batch norm here: only who starts the processes knows how many
  there are, and heads may have batch norms, too. `transfer.engine.sync_bn` replaces them all after building; one
  process keeps plain batch norm.
- "group": GroupNorm (Wu and He 2018, arXiv 1803.08494) of 16 channels a group, the size section 4 of that paper finds
  good; for networks trained from scratch on small batches. Where 16 does not divide the channels (mobile networks:
  24, 40, 72), the largest divisor below 16 takes its place.

timm fuses norm and activation in one module that inherits from batch norm (`BatchNormAct2d`); replacing it by a plain
norm would drop the activation in silence. The converter here keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones.contract import NORM_POLICIES, BackboneError

CHANNELS_PER_GROUP = 16


class GroupNormAct2d(nn.GroupNorm):
    """Group norm followed by the drop layer and activation that a fused batch norm carried.

    Args:
        num_groups: groups of channels that share statistics.
        num_channels: channels of the map.
        eps: added to the variance.
        affine: whether there is a scale and shift for each channel.
        drop: applied after the norm.
        act: applied last.
    """

    def __init__(
        self, num_groups: int, num_channels: int, *, eps: float, affine: bool, drop: nn.Module, act: nn.Module
    ) -> None:
        super().__init__(num_groups, num_channels, eps=eps, affine=affine)
        self.drop = drop
        self.act = act

    def forward(self, input: Tensor) -> Tensor:
        """Norm, drop, activation of a map [B, C, H, W]."""
        return self.act(self.drop(super().forward(input)))


def apply_norm_policy(module: nn.Module, policy: str) -> nn.Module:
    """Give every batch norm of a network the behaviour that a policy names.

    Args:
        module: changed in place, except where it is a batch norm itself and "group" replaces it.
        policy: "batch", "frozen", "synchronized" or "group".

    Returns:
        The module, or its replacement.

    Raises:
        BackboneError: unknown policy.
    """
    if policy not in NORM_POLICIES:
        raise BackboneError(f"norm={policy!r} is none of {', '.join(NORM_POLICIES)}: choose one of them")
    if policy == "group":
        return _replace(module, to_group_norm)
    if policy == "frozen":
        for layer in batch_norms(module):
            layer.eval()
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(False)
    return module


def batch_norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """Every batch norm of a network, also the fused and the synchronized ones."""
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm))


def channels_per_group(channels: int) -> int:
    """The largest divisor of `channels` that is at most 16."""
    return next(size for size in range(min(channels, CHANNELS_PER_GROUP), 0, -1) if channels % size == 0)


def to_group_norm(layer: _BatchNorm) -> nn.GroupNorm:
    """Group norm in place of a batch norm: affine values copied, drop and activation of a fused one kept."""
    norm = GroupNormAct2d(
        layer.num_features // channels_per_group(layer.num_features),
        layer.num_features,
        eps=layer.eps,
        affine=layer.affine,
        drop=getattr(layer, "drop", nn.Identity()),
        act=getattr(layer, "act", nn.Identity()),
    )
    if layer.affine:
        norm.to(device=layer.weight.device, dtype=layer.weight.dtype)
        with torch.no_grad():
            norm.weight.copy_(layer.weight)
            norm.bias.copy_(layer.bias)
        norm.requires_grad_(layer.weight.requires_grad)
    return norm.train(layer.training)


def _replace(module: nn.Module, convert: Callable[[_BatchNorm], nn.Module]) -> nn.Module:
    """The module with every batch norm replaced by what `convert` makes of it."""
    if isinstance(module, _BatchNorm):
        return convert(module)
    for name, child in module.named_children():
        replacement = _replace(child, convert)
        if replacement is not child:
            module.add_module(name, replacement)
    return module
