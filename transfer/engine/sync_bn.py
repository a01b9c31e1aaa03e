"""Batch norm whose statistics are those of all processes: which form is chosen where, and the one for CPU processes.

Source: batch norm (Ioffe and Szegedy 2015, section 3); over processes as in MegDet (Peng et al. 2018). On CUDA it is
torch's SyncBatchNorm, put in by timm's converter, which keeps fused activations. That one refuses CPU tensors, so
processes on CPUs have `SynchronizedBatchNorm` below, with one collective in the forward pass and one in the backward.

Statistics are merged as (count, mean, sum of squared deviations), with the formula of Chan, Golub and LeVeque (1979): a
sum of squares would lose the variance of channels whose mean is large. Both forms count images: processes need not have
equally many, and may have none.

All processes must meet in every collective: a layer is in training mode on all of them or on none, and what it gave is
used by the loss on all of them or on none. The loop sees to the first: modes change at the same iteration everywhere. A
process that has left training mode alone keeps the others waiting until gloo's timeout, except where its next layer of
as many channels takes the place: that is found by the layers' numbers and stops the run instead of mixing statistics.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from transfer.engine.distributed import World
from transfer.types import UserError

logger = logging.getLogger("trickstack")


def synchronize(model: nn.Module, world: World) -> nn.Module:
    """Replace a model's batch norms by ones that share statistics between the processes of a run.

    One process keeps plain batch norm. Layers whose affine values are frozen stay plain, too: they are in eval mode and
    would only add communication. Parameters and buffers are the same objects afterwards and have the same names, so an
    optimizer stays valid and checkpoints load into either form.

    Args:
        model: the whole network; changed in place, except where it is a batch norm itself.
        world: this process.
    Returns:
        The model, or its replacement.
    Raises:
        UserError: a batch norm with a forward of its own, which a replacement would drop.
    """
    if world.size == 1:
        logger.info("batch norm: one process, nothing to synchronize")
        return model
    named = {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}
    frozen = [name for name, layer in named.items() if is_frozen(layer)]
    chosen = {name: layer for name, layer in named.items() if not (is_frozen(layer) or _is_synchronized(layer))}
    _check_replaceable(chosen)
    on_cuda = world.device.type == "cuda"
    replacements: dict[nn.Module, nn.Module] = {
        layer: _torch_form(layer) if on_cuda else SynchronizedBatchNorm(layer, number=number)
        for number, layer in enumerate(chosen.values())
    }
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # a layer shared by several parents has one replacement
            if child in replacements:
                setattr(parent, name, replacements[child])
    logger.info(
        "batch norm: %d layers synchronized over %d processes (%s), %d frozen ones stay plain",
        len(chosen),
        world.size,
        "torch's SyncBatchNorm on CUDA" if on_cuda else "this project's form for CPU processes",
        len(frozen),
    )
    return replacements.get(model, model)


def lone_statistics(model: nn.Module) -> int:
    """How many batch norms would train on the statistics of their own process: neither frozen nor synchronized."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    return sum(layer.training and not is_frozen(layer) and not _is_synchronized(layer) for layer in layers)


def is_frozen(layer: _BatchNorm) -> bool:
    """Whether a batch norm has affine values and none of them gets a gradient."""
    parameters = list(layer.parameters(recurse=False))
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _is_synchronized(layer: _BatchNorm) -> bool:
    return isinstance(layer, nn.SyncBatchNorm | SynchronizedBatchNorm)


def _check_replaceable(layers: dict[str, _BatchNorm]) -> None:
    """Raises: UserError that names every layer which does something else than a batch norm or timm's fused one."""
    from timm.layers import BatchNormAct2d

    known = (_BatchNorm.forward, BatchNormAct2d.forward)
    wrong = [f"{name} ({type(layer).__name__})" for name, layer in layers.items() if type(layer).forward not in known]
    if wrong:
        raise UserError(
            f"norm='synchronized': {', '.join(wrong)} would lose a forward of its own; choose norm='frozen' or "
            "'batch', or make it a torch.nn.BatchNorm2d"
        )


def _torch_form(layer: _BatchNorm) -> nn.Module:
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm(layer)


class SynchronizedBatchNorm(_BatchNorm):
    """Batch norm over all processes; takes the place of a BatchNorm1d, 2d, 3d or timm's BatchNormAct2d.

    In eval mode, or without a process group, it is plain batch norm and communicates nothing.

    Args:
        layer: its parameters, buffers, drop layer and activation are taken over.
        number: of this layer in the model, from 0; the same on every process.
    """

    def __init__(self, layer: _BatchNorm, *, number: int = 0) -> None:
        super().__init__(
            layer.num_features,
            eps=layer.eps,
            momentum=layer.momentum,
            affine=layer.affine,
            track_running_stats=layer.track_running_stats,
            device="meta",  # nothing is allocated: the next lines bring the values
        )
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self.drop, self.act = getattr(layer, "drop", None), getattr(layer, "act", None)
        self.number = number
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """Norm, then drop and activation where there are any, of [B, C, ...] with B >= 0.

        Raises:
            UserError: in training, one value a channel over all processes.
        """
        together = self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        output = self._over_processes(input) if together else super().forward(input)
        for layer in (self.drop, self.act):
            output = output if layer is None else layer(output)
        return output

    def _over_processes(self, input: Tensor) -> Tensor:
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        statistics = share_statistics(values.detach(), self.number)
        if statistics.count == 1:
            raise UserError(
                f"a batch norm of {self.num_features} channels has one value a channel over all processes, so no "
                "variance: raise loader.batch_size, or choose norm='frozen' or 'group'"
            )
        self._track(statistics)
        weight, bias = (None if tensor is None else tensor.to(values.dtype) for tensor in (self.weight, self.bias))
        output: Tensor = _Normalize.apply(values, weight, bias, statistics, self.eps)
        return output.to(input.dtype)

    @torch.no_grad()
    def _track(self, statistics: Statistics) -> None:
        """Move the running statistics; a batch that is empty everywhere does not count."""
        if not self.track_running_stats or statistics.count == 0:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        unbiased = statistics.variance * (statistics.count / (statistics.count - 1))
        for running, new in ((self.running_mean, statistics.mean), (self.running_var, unbiased)):
            running.lerp_(new.to(running.dtype), share)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected an input of [B, C] or [B, C, ...], got {input.dim()} dimensions")


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of all processes' values, and how this process' values lie to them."""

    count: int
    """Values a channel, over all processes."""
    mean: Tensor
    """[C] float64."""
    variance: Tensor
    """[C] float64, with divisor `count`."""
    centred: Tensor
    """[B, C, ...] this process' values less about their own mean: small numbers, exact where the values are not."""
    offset: Tensor
    """[C] float64; centred + offset are the deviations from `mean`."""


def share_statistics(values: Tensor, number: int = 0) -> Statistics:
    """Count, mean and variance over all processes, with one collective; bit for bit the same on each of them.

    Args:
        values: [B, C, ...] float32 or float64, of this process; B may be 0.
        number: of the layer that asks, checked against those of the other processes.
    """
    axes, count, channels = _axes(values), values.numel() // values.shape[1], values.shape[1]
    about_mean = values.sum(axes) / max(count, 1)  # [C]
    centred = values - _wide(about_mean, values)
    rest = centred.sum(axes).double()  # [C]: what rounding the mean has left
    squares = centred.square().sum(axes).double() - rest.square() / max(count, 1)
    mean = about_mean.double() + rest / max(count, 1)
    parts = _gather(torch.cat([rest.new_tensor([number, count]), mean, squares.clamp(min=0)]))  # [P, 2 + 2 C]
    assert bool((parts[:, 0] == number).all()), (
        f"processes are in different batch norms (numbers {parts[:, 0].int().tolist()}): some are in eval mode, some "
        "in training mode, or their networks run in different orders"
    )
    counts, means, deviations = parts[:, 1:].split([1, channels, channels], dim=1)  # [P, 1], [P, C], [P, C]
    total = counts.sum().clamp(min=1)
    mean_of_all = (counts * means).sum(dim=0) / total
    variance = (deviations + counts * (means - mean_of_all).square()).sum(dim=0) / total
    return Statistics(int(counts.sum()), mean_of_all, variance, centred, about_mean.double() - mean_of_all)


class _Normalize(torch.autograd.Function):
    """(values - mean) / sqrt(variance + eps) * weight + bias, through whose statistics the gradient flows, too."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, values: Tensor, weight: Tensor | None, bias: Tensor | None, given: Statistics, eps: float
    ) -> Tensor:
        inverse = (given.variance + eps).rsqrt()  # [C]
        scale = inverse if weight is None else inverse * weight.double()
        shift = given.offset * scale if bias is None else given.offset * scale + bias.double()
        ctx.save_for_backward(given.centred, given.offset, inverse, scale)
        ctx.count = given.count  # type: ignore[attr-defined]
        return (given.centred * _wide(scale, values)).add_(_wide(shift, values))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The sums over values are this process' share for weight and bias, whose gradients DDP joins afterwards.

        With d the deviations, s the scale and i the inverse deviation, means over all processes' values:
        grad_input = s (g - mean(g) - d i^2 mean(g d)).
        """
        centred, offset, inverse, scale = ctx.saved_tensors
        axes = _axes(centred)
        of_gradient = gradient.sum(axes).double()  # [C]
        product = gradient * centred
        of_product = product.sum(axes).double() + offset * of_gradient  # [C]: gradient * deviation
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[1]:
            grad_weight = (of_product * inverse).to(gradient.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = of_gradient.to(gradient.dtype)
        if ctx.needs_input_grad[0]:
            means = _sum(torch.cat([of_gradient, of_product])) / max(ctx.count, 1)  # [2 C]
            mean_gradient, mean_product = means.chunk(2)
            slope = -scale * inverse.square() * mean_product
            constant = slope * offset - scale * mean_gradient
            grad_input = torch.mul(centred, _wide(slope, gradient), out=product)  # no second map in memory
            grad_input.add_(_wide(constant, gradient)).addcmul_(gradient, _wide(scale, gradient))
        return grad_input, grad_weight, grad_bias, None, None


def _axes(values: Tensor) -> list[int]:
    """All axes but that of the channels."""
    return [axis for axis in range(values.dim()) if axis != 1]


def _wide(channels: Tensor, like: Tensor) -> Tensor:
    """[C] as [1, C, 1, ...], to go with a map, in its dtype."""
    return channels.to(like.dtype).view(1, -1, *[1] * (like.dim() - 2))


def _gather(own: Tensor) -> Tensor:
    """Every process' vector [K], in order of rank: [P, K]."""
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return torch.stack(parts)


def _sum(own: Tensor) -> Tensor:
    """The sum of all processes' tensors; takes the place of the given one."""
    dist.all_reduce(own)
    return own
