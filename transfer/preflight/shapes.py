"""Whether the maps are what backbone and neck declare: channels, and cells for the image's size.

A map of stride s has about side / s cells, rounded up. Unpadded networks give fewer (Inception-V3 at 256 px 6 for 8), a
wrong stride is off by a factor of two: between 2/3 and 1.5 of the expected number is well.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.preflight.findings import Outcome
from transfer.preflight.watching import Watched
from transfer.types import Batch

LEAST, MOST = 2 / 3, 1.5


def check_shapes(model: nn.Module, backbone: Backbone, watched: Watched, batch: Batch) -> Outcome:
    """The maps of one pass.

    Args:
        model: its `neck` is looked at where it has one with `strides`.
        backbone: the model's.
        watched: the pass.
        batch: what went through.
    """
    outcome = Outcome("shapes")
    height, width = (int(side) for side in batch.images.shape[2:])
    outcome.facts["image"] = [height, width]
    outcome.lines = [f"images of {height}x{width} px (height x width), {len(batch.targets)} in the network"]
    maps = watched.maps.get("backbone", [])
    if tuple(x.shape[1] for x in maps) != backbone.channels:
        outcome.error(
            "channels-differ",
            f"{backbone.name} gives maps of {_listed([x.shape[1] for x in maps])} channels, declared are "
            f"{_listed(backbone.channels)}",
            "declare what it gives, or leave channels out: backbones.contract.wrap measures them",
        )
    _check(outcome, backbone.name, maps, backbone.strides, (height, width))
    neck = getattr(model, "neck", None)
    strides = getattr(neck, "strides", None)
    if neck is not None and isinstance(strides, Sequence):
        _check(outcome, f"the neck ({type(neck).__name__})", watched.maps.get("neck", []), strides, (height, width))
    return outcome


def _check(outcome: Outcome, owner: str, maps: Sequence[Tensor], strides: Sequence[int], size: tuple[int, int]) -> None:
    found = [(int(x.shape[2]), int(x.shape[3])) for x in maps]
    wanted = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]
    outcome.facts[owner] = {"strides": list(strides), "cells": [list(cells) for cells in found]}
    fits = len(found) == len(wanted) and all(
        LEAST <= have / want <= MOST for cells, others in zip(found, wanted) for have, want in zip(cells, others)
    )
    if not fits:
        outcome.error(
            "stride-differs",
            f"{owner} declares strides {_listed(strides)} and gives maps of {_cells(found)} cells of a "
            f"{size[0]}x{size[1]} px image, where {_cells(wanted)} are due: anchors and regions would lie elsewhere",
            "declare what it gives, or leave strides out: backbones.contract.wrap measures them",
        )


def _listed(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values) or "none"


def _cells(sizes: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in sizes) or "no"
