"""What a forward pass shows: the maps between backbone, neck and head, and the scale of every layer's output.

Figures stay on the device until the pass is over, so that a GPU need not wait for each layer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

RECTIFIERS = (nn.ReLU, nn.ReLU6)


@dataclass
class Watched:
    """What was seen; complete after the pass."""

    output: Any = None
    """Of the whole model."""
    maps: dict[str, list[Tensor]] = field(default_factory=dict)
    """"backbone" and "neck" (where the model has one) -> [B, C, H, W] a level, with their graph."""
    largest: dict[str, Tensor] = field(default_factory=dict)
    """Each layer -> largest absolute value of its output; not a number where one of its values is none."""
    silent: dict[str, Tensor] = field(default_factory=dict)
    """Each rectifier -> share of channels that are nowhere above zero."""


@contextlib.contextmanager
def watching(model: nn.Module) -> Iterator[Watched]:
    """Watch the passes within the context.

    Args:
        model: hooks are put on its modules, and taken off at the end.
    """
    watched, handles = Watched(), []

    def watch_layer(name: str) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or not output.is_floating_point() or not output.numel():
                return
            values = output.detach()
            watched.largest[name] = values.abs().amax().float()
            if isinstance(layer, RECTIFIERS) and values.dim() > 1:
                highest = values.transpose(0, 1).flatten(1).amax(dim=1)  # [C]
                watched.silent[name] = (highest <= 0).float().mean()

        return hook

    def watch_maps(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            parts = output.values() if isinstance(output, dict) else output
            maps = [parts] if isinstance(parts, Tensor) else list(parts)
            watched.maps[name] = [x for x in maps if isinstance(x, Tensor) and x.dim() == 4]

        return hook

    def keep_output(module: nn.Module, inputs: Any, output: Any) -> None:
        watched.output = output

    for name, module in model.named_modules():
        if not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(watch_layer(name)))
    owners = {name: getattr(model, name, None) for name in ("backbone", "neck")}
    handles += [
        module.register_forward_hook(watch_maps(name))
        for name, module in owners.items()
        if isinstance(module, nn.Module)
    ]
    handles.append(model.register_forward_hook(keep_output))
    try:
        yield watched
    finally:
        for handle in handles:
            handle.remove()


def numbers(values: dict[str, Tensor]) -> dict[str, float]:
    """Scalars of a device as floats, with one copy."""
    return dict(zip(values, torch.stack(list(values.values())).tolist())) if values else {}
