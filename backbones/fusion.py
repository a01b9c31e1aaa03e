"""Batch norm folded into the convolution before it, for inference: one pass over the map less for each.

In testing a batch norm is a scale and a shift of each channel, which the convolution before it can take over: W' = W *
gamma / sqrt(variance + eps), b' = (b - mean) * gamma / sqrt(variance + eps) + beta (torch.nn.utils.fusion has the
arithmetic).

What follows what is not read from names or from the order of layers but watched while an image runs through: a norm is
folded if it is the only reader of a convolution's output, each time either is run. Any network will do, detectors
included; what is no such pair (group norm, a norm before its convolution, convolutions that change their weights
themselves) is left alone. Weights are folded in float64 and rounded once.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backbones.contract import Backbone, BackboneError, Size

_logger = logging.getLogger(__name__)

_ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-9}
"""How far values may be apart that differ by rounding alone, as a share of the largest."""

Run = Callable[[nn.Module], Any]
"""Runs a model, which may be in float32 or float64, on the CPU on an image of its choice; gives what came out."""


def fuse_conv_bn(model: nn.Module, *, size: Size = (128, 128), run: Run | None = None) -> nn.Module:
    """A copy for inference, in eval mode, with each batch norm that directly follows a convolution folded into it.

    Args:
        model: a backbone, a body, or a whole model of a task; is left as it was.
        size: (height, width) of the random image that is run through it, pixels.
        run: for a model whose `forward` takes other arguments than images (and sizes); None: not needed.

    Returns:
        The copy, on the model's device and in its dtype. Which norms were folded is logged.

    Raises:
        BackboneError: the model cannot be run, or gives other values afterwards.
    """
    run = run or (lambda network: _run(network, size))
    device, dtype = _device_and_dtype(model)
    own = torch.promote_types(dtype, torch.float32)
    fused = _copy(model, own)
    pairs, expected = _watch(fused, run)
    _fold_all(fused, pairs)
    difference = _difference(expected, _call(fused, run))
    if difference > _ROUNDING[own]:
        # Rounding alone may change which regions a detector selects; in float64 it hides no mistake and changes none.
        exact = _copy(model, torch.float64)
        expected = _call(exact, run)
        _fold_all(exact, pairs)
        difference = _difference(expected, _call(exact, run))
        if difference > _ROUNDING[torch.float64]:
            raise BackboneError(
                f"folding {len(pairs)} batch norms of {type(model).__name__} into convolutions changes what it gives "
                f"by {difference:.2g} of the largest value: it reads a convolution's output in a second place, or "
                "gives another result each time; use it as it is"
            )
    _logger.info("%d batch norms folded into convolutions: %s", len(pairs), ", ".join(pairs.values()) or "none")
    return fused.to(device=device, dtype=dtype)


def foldable_norms(model: nn.Module, *, size: Size = (128, 128), run: Run | None = None) -> dict[str, str]:
    """Which batch norms `fuse_conv_bn` folds: name of the convolution -> name of its norm, in the order they run."""
    copied = _copy(model, torch.promote_types(_device_and_dtype(model)[1], torch.float32))
    return _watch(copied, run or (lambda network: _run(network, size)))[0]


def _copy(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy on the CPU in eval mode that takes no gradients."""
    return copy.deepcopy(model).to(device="cpu", dtype=dtype).eval().requires_grad_(False)


def _device_and_dtype(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Of the first parameter."""
    for tensor in model.parameters():
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    raise BackboneError(f"{type(model).__name__} has no parameters: there is nothing to fold")


def _fold_all(model: nn.Module, pairs: Mapping[str, str]) -> None:
    """Fold the norms of a model into their convolutions, in place."""
    replacements: dict[nn.Module, nn.Module] = {}
    for conv_name, norm_name in pairs.items():
        conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
        replacements |= {conv: _folded(conv, norm), norm: _without_norm(norm)}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # not named_children: a layer may have two names there
            if child in replacements:
                parent.add_module(name, replacements[child])


def _run(model: nn.Module, size: Size) -> Any:
    """The model on a random image, always the same."""
    generator = torch.Generator().manual_seed(0)
    if any(isinstance(module, Backbone) for module in model.modules()):
        images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=generator)
    else:
        images = torch.randn(1, 3, *size, dtype=_device_and_dtype(model)[1], generator=generator)
    needed = [
        name
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    if len(needed) > 2 or (len(needed) == 2 and needed[1] != "sizes"):
        raise BackboneError(
            f"{type(model).__name__}.forward needs {', '.join(needed)}: give run=..., a function of the model that "
            "calls it and returns what it gives"
        )
    return model(images, [size]) if len(needed) == 2 else model(images)


def _call(model: nn.Module, run: Run) -> list[Tensor]:
    """The tensors that a model gives, without a trace in the caller's random stream."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return list(_tensors(run(model)))
        except BackboneError:
            raise
        except Exception as error:
            # A model may refuse an image with any exception; the remedy is the same.
            raise BackboneError(
                f"{type(model).__name__} fails on the image that is to show its order of layers "
                f"({type(error).__name__}: {error}): give size=(height, width) that it takes, or run=..."
            ) from error


class _Readers(TorchDispatchMode):
    """Counts how often the memory of a tensor is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for leaf in {_memory(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}:
            self.reads[leaf] += 1
        return func(*args, **(kwargs or {}))


def _memory(tensor: Tensor) -> int:
    """Where a tensor's values lie; the same for its views."""
    return tensor.untyped_storage().data_ptr()


def _watch(model: nn.Module, run: Run) -> tuple[dict[str, str], list[Tensor]]:
    """Run a model and see which norm follows which convolution: (conv -> norm by name, the tensors the model gave)."""
    names = {module: name for name, module in model.named_modules()}
    readers = _Readers()
    made: dict[int, tuple[nn.Module, int, Tensor]] = {}  # by memory: the convolution, earlier reads, its output
    calls: Counter[nn.Module] = Counter()
    follows: dict[tuple[nn.Module, nn.Module], list[int]] = {}  # (conv, norm): the memory between them, each time

    def after_conv(conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[conv] += 1
        memory = _memory(output)
        made[memory] = (conv, readers.reads[memory], output)  # kept, so that no later tensor gets this memory

    def after_norm(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[norm] += 1
        memory = _memory(inputs[0])
        if memory in made and made[memory][2].shape == inputs[0].shape:
            follows.setdefault((made[memory][0], norm), []).append(memory)

    handles = [
        module.register_forward_hook(after_conv if isinstance(module, _ConvNd) else after_norm)
        for module in model.modules()
        if isinstance(module, _ConvNd) or _is_fixed_norm(module)
    ]
    try:
        with readers:
            outputs = _call(model, run)
    finally:
        for handle in handles:
            handle.remove()
    given = {_memory(output) for output in outputs}
    pairs = {
        names[conv]: names[norm]
        for (conv, norm), memories in follows.items()
        if len(memories) == calls[conv] == calls[norm]
        and all(readers.reads[memory] - made[memory][1] == 1 for memory in memories)
        and given.isdisjoint(memories)
        and _folds(conv, norm)
    }
    return pairs, outputs


def _folds(conv: Any, norm: nn.Module) -> bool:
    """Whether a folded convolution equals the pair: not where it changes its weights itself, to standardise them."""
    sides = [dilation * (kernel - 1) + 1 for kernel, dilation in zip(conv.kernel_size, conv.dilation)]
    image = torch.randn(
        1, conv.in_channels, *sides, dtype=conv.weight.dtype, generator=torch.Generator().manual_seed(0)
    )
    difference = _difference([norm(conv(image))], [_without_norm(norm)(_folded(conv, norm)(image))])
    return difference <= _ROUNDING[image.dtype]


def _is_fixed_norm(module: nn.Module) -> bool:
    """Whether a module in eval mode scales and shifts each channel by stored values: batch norm in all its forms."""
    needed = ("running_mean", "running_var", "weight", "bias")
    return hasattr(module, "eps") and all(isinstance(getattr(module, name, None), Tensor) for name in needed)


def _folded(conv: Any, norm: Any) -> nn.Module:
    """A convolution that does what the two do, without what a fused norm does after it."""
    folded = copy.copy(conv)
    folded._parameters = dict(conv._parameters)
    weight, bias = fuse_conv_bn_weights(
        conv.weight.double(),
        None if conv.bias is None else conv.bias.double(),
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.eps,
        norm.weight.double(),
        norm.bias.double(),
        transpose=isinstance(conv, _ConvTransposeNd),
    )
    dtype = conv.weight.dtype
    folded.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    folded.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return folded


def _without_norm(norm: nn.Module) -> nn.Module:
    """What is left of a norm: the activation of timm's fused ones (their drop layer does nothing in testing)."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def _tensors(outputs: Any) -> Iterator[Tensor]:
    """The floating-point tensors in what a model gives: lists, dicts and dataclasses of them."""
    if isinstance(outputs, Tensor):
        if outputs.is_floating_point():
            yield outputs
    elif dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        for field in dataclasses.fields(outputs):
            yield from _tensors(getattr(outputs, field.name))
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            yield from _tensors(value)
    elif isinstance(outputs, Sequence) and not isinstance(outputs, str):
        for value in outputs:
            yield from _tensors(value)


def _difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The largest difference, as a share of the largest value of its tensor; infinite where shapes differ."""
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in found]:
        return float("inf")
    shares = [0.0]
    for before, after in zip(expected, found):
        if before.numel():
            share = (before - after).abs().max() / before.abs().max().clamp(min=1e-30)
            shares.append(float(share.nan_to_num(nan=float("inf"))))
    return max(shares)
