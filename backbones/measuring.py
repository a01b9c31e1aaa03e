"""What a network gives, found out by running it: channels, strides and shapes of its feature maps.

Source: the project's own design. Strides come from how much a map GROWS with its image: exact for padded and unpadded
convolutions alike, where dividing one size by the other is not. The passes run on the meta device: shapes only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from backbones.errors import BackboneError

Size = tuple[int, int]
"""(height, width) in pixels."""

# Multiples of 2..32 and of 14 (patches of 14 px), grown by a multiple of 64; not square: a swap of the axes shows.
_MEASURED_SIZE: Size = (224, 448)
_GROWTH = 448


def measure(module: nn.Module) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and strides of a module's feature maps, from two forward passes.

    The passes run on the meta device (shapes only, no arithmetic); a module that cannot is run for real on one image.

    Args:
        module: maps normalised images [B, 3, H, W] to a map, a list of maps or a dict of maps, fine to coarse.

    Returns:
        (channels, strides), fine to coarse.

    Raises:
        BackboneError: maps that are not [B, C, H, W], whose size does not grow in proportion with the image, or that
            come coarse before fine.
    """
    height, width = _MEASURED_SIZE
    small = map_shapes(module, (height, width))
    large = map_shapes(module, (height + _GROWTH, width + _GROWTH))
    channels, strides = [], []
    for level, (before, after) in enumerate(zip(small, large, strict=True)):
        if len(before) != 4:
            raise BackboneError(f"feature map {level} has shape {list(before)}: give maps of shape [B, C, H, W]")
        if before[1] != after[1]:
            raise BackboneError(
                f"feature map {level} has shape {list(before)} for a {height}x{width} image and {list(after)} for a "
                f"{height + _GROWTH}x{width + _GROWTH} one, so its channels come last: permute it to [B, C, H, W]"
            )
        grown = {after[2] - before[2], after[3] - before[3]}
        cells = grown.pop()
        if grown or cells <= 0 or _GROWTH % cells:
            raise BackboneError(
                f"feature map {level} grows from {before[2]}x{before[3]} to {after[2]}x{after[3]} when the image grows "
                f"by {_GROWTH} px on each side: a stride that is one whole number for both axes is needed"
            )
        channels.append(before[1])
        strides.append(_GROWTH // cells)
    check_levels(channels, strides)
    return tuple(channels), tuple(strides)


def map_shapes(module: nn.Module, size: Size) -> list[tuple[int, ...]]:
    """Shapes of a module's feature maps for one image, without arithmetic where the module allows.

    Args:
        module: as for `measure`.
        size: (height, width) of the image, pixels.

    Raises:
        BackboneError: the module refuses such an image; its own words are in the message.
    """
    with eval_mode(module), torch.no_grad():
        try:
            try:
                maps = run_on_meta(module, size)
            except (NotImplementedError, RuntimeError, AttributeError):
                # Some modules keep plain tensors, which no swap reaches, or use an operator without a meta form.
                parameter = next(module.parameters(), torch.empty(0))
                maps = module(torch.zeros(1, 3, *size, device=parameter.device, dtype=parameter.dtype))
        except Exception as error:
            raise BackboneError(
                f"the backbone fails on an image of {size[0]}x{size[1]} px ({type(error).__name__}: {error}): "
                "detection and segmentation need one that takes images of any size"
            ) from error
    return [tuple(level.shape) for level in as_list(maps)]


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Every submodule in eval mode for a while (training mode moves the statistics of batch norm), then as it was."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes.items():
            child.training = mode


def on_meta(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a module as stand-ins without values; a parameter keeps whether it is trained."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {key: value.detach().to("meta").requires_grad_(value.requires_grad) for key, value in tensors}


def run_on_meta(module: nn.Module, size: Size, state: Mapping[str, Tensor] | None = None) -> Any:
    """What a module gives for one image, without values: as fast for a large network as for a small one.

    Args:
        module: maps images [B, 3, H, W] to anything.
        size: (height, width) of the image, pixels.
        state: from `on_meta`; None makes it.

    Raises:
        NotImplementedError, RuntimeError or AttributeError: the module has tensors or operators without a meta form.
    """
    image = torch.empty(1, 3, *size, device="meta")
    return torch.func.functional_call(module, dict(on_meta(module) if state is None else state), (image,))


def as_list(maps: Tensor | Mapping[str, Tensor] | Sequence[Tensor]) -> list[Tensor]:
    """One map, a dict of maps or a sequence of maps, as a list."""
    if isinstance(maps, Tensor):
        return [maps]
    return list(maps.values()) if isinstance(maps, Mapping) else list(maps)


def check_levels(channels: Sequence[int], strides: Sequence[int]) -> None:
    """Raise unless there is one positive stride a level, fine to coarse."""
    if not channels or len(channels) != len(strides):
        raise BackboneError(f"channels={tuple(channels)} and strides={tuple(strides)}: give one of each per level")
    if min(*channels, *strides) < 1:
        raise BackboneError(f"channels={tuple(channels)} and strides={tuple(strides)}: all must be positive")
    if list(strides) != sorted(strides):
        raise BackboneError(f"strides={tuple(strides)}: order the feature maps fine to coarse")
