"""Random values to start a training from.

Source: "xavier" is Glorot and Bengio 2010 as He et al. 2018 use it (*Bag of Tricks*, arXiv 1812.01187, section 2.1):
U[-a, a] with a = sqrt(6 / (d_in + d_out)), biases 0, gamma 1, beta 0. "kaiming" is He et al. 2015 (arXiv 1502.01852,
section 2.2, backward form): normal with a variance of 2 / d_out, for ReLU.

Of a convolution, d counts channels times the kernel's cells, as torch's nn.init counts them. Deviation: in "kaiming",
d_out of a grouped convolution counts the outputs that one input reaches (those of its group), which is what the paper
derives and timm's mobile networks have; torch counts all, and a depthwise convolution of C channels would start
sqrt(C) times too small. In "xavier" torch's count stands.

Bag of Tricks and its authors' script differ: the script has a third one, MSRA-PReLU. What is no weight or bias of a
convolution, linear layer or norm (layer scales, embeddings of positions and classes) stays as timm made it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from backbones.errors import BackboneError


def initialize(body: nn.Module, kind: str) -> None:
    """Give every convolution, linear layer and norm new values, drawn from torch's global generator.

    Args:
        body: changed in place, layer by layer in the network's order.
        kind: "xavier" or "kaiming".

    Raises:
        BackboneError: unknown kind.
    """
    if kind not in INITIALIZATIONS:
        nearest = difflib.get_close_matches(str(kind).lower(), INITIALIZATIONS, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else "leave it out (None) for the values timm gives"
        raise BackboneError(f"init={kind!r} is none of {', '.join(INITIALIZATIONS)}: {hint}")
    for layer in body.modules():
        if isinstance(layer, (_ConvNd, nn.Linear)):
            INITIALIZATIONS[kind](layer)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, (_NormBase, nn.GroupNorm, nn.LayerNorm)):
            _start_norm(layer)


def _xavier(layer: _ConvNd | nn.Linear) -> None:
    nn.init.xavier_uniform_(layer.weight)


def _kaiming(layer: _ConvNd | nn.Linear) -> None:
    weight: Tensor = layer.weight
    outputs, groups = weight.shape[0], 1
    if isinstance(layer, _ConvNd):
        outputs, groups = layer.out_channels, layer.groups
    reached = outputs * weight[0, 0].numel() / groups  # weight [out, in / groups, *kernel]
    nn.init.normal_(weight, std=(2 / reached) ** 0.5)


INITIALIZATIONS: dict[str, Callable[[_ConvNd | nn.Linear], None]] = {"xavier": _xavier, "kaiming": _kaiming}


def _start_norm(layer: _NormBase | nn.GroupNorm | nn.LayerNorm) -> None:
    """gamma 1, beta 0, and of a batch norm the statistics of nothing seen."""
    if isinstance(layer, _NormBase):
        layer.reset_running_stats()
    for values, start in ((layer.weight, 1.0), (layer.bias, 0.0)):
        if values is not None:
            with torch.no_grad():
                values.fill_(start)
