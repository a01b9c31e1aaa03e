"""Batch norm at rest: statistics and affine values fixed while what lies below and above is trained.

Its values are those of batch norm in eval mode, bit for bit. torch keeps the layer's whole input for the gradients of
affine values, also where these have none; here one factor a channel is kept, which is all that the input's gradient
needs. That halves what a frozen network keeps for its backward pass: of convolution, norm and activation in place, only
the last one's output, which the next convolution reads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _Affine(torch.autograd.Function):
    """Batch norm by given statistics whose input alone has a gradient."""

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Any:
        ctx.save_for_backward(weight * torch.rsqrt(variance + eps))
        return F.batch_norm(maps, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_output: Tensor) -> Any:
        (factor,) = ctx.saved_tensors  # [C]
        (slope,) = of_output  # [B, C, H, W]
        return (slope * factor[:, None, None]).to(slope.dtype), None, None, None, None, None


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """As batch norm, with less kept for the backward pass wherever statistics and affine values are at rest."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps [B, C, H, W] -> the same shape."""
        if not _keeps_less(self, input):
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        return _Affine.apply(input, self.running_mean, self.running_var, self.weight, self.bias, self.eps)


class FrozenBatchNormAct2d(BatchNormAct2d):
    """The same with the drop layer and activation of timm's fused form."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] -> the same shape."""
        if not _keeps_less(self, x):
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        normalized = _Affine.apply(x, self.running_mean, self.running_var, self.weight, self.bias, self.eps)
        return self.act(self.drop(normalized))


def _keeps_less(layer: nn.BatchNorm2d, maps: Tensor) -> bool:
    """Whether the maps alone need a gradient; elsewhere torch's own operator is as good."""
    if layer.training or not layer.affine or layer.running_mean is None:
        return False
    trained = layer.weight.requires_grad or layer.bias.requires_grad
    return torch.is_grad_enabled() and maps.requires_grad and not trained


_AT_REST = {nn.BatchNorm2d: FrozenBatchNorm2d, BatchNormAct2d: FrozenBatchNormAct2d}


def rest_batch_norms(module: nn.Module) -> None:
    """Let every plain batch norm within a module keep less where it is at rest; names, values and hooks stay."""
    for layer in module.modules():
        if type(layer) in _AT_REST:
            layer.__class__ = _AT_REST[type(layer)]  # not a new object: hooks and second names of the old one hold on
