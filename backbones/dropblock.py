"""DropBlock: in training, square blocks of the coarsest feature maps are zero, more of them as the training goes on.

Source: Ghiasi et al. 2018, DropBlock, arXiv 1810.12890, section 3 (blocks lie wholly within the map, every channel has
its own, and the keep probability falls linearly from 1 to its end value over the training).

Deviations: the rate at which blocks are drawn is solved for, so that the expected share of dropped cells is exactly 1 -
keep; the paper's formula leaves out that blocks overlap, and drops 0.37 of a 10x10 map where 0.5 was asked for. What is
kept is divided by the keep probability, as in dropout, and not by the kept share of the batch, so an image's maps do
not depend on the images around it. It acts on the maps that a backbone returns, and not within its residual blocks, so
that it fits any backbone. A map smaller than a block has blocks as large as itself.

Neither library does this: timm 1.0.31 draws blocks that reach over the edge, at the rate for blocks that do not, and
drops 0.36 of a 10x10 map and 0.93 of a 7x7 one where 0.1 was asked for; torchvision 0.29 fails on maps of an even side
below the block's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.contract import Backbone, BackboneError


class DropBlock(nn.Module):
    """Drops blocks of the coarsest maps in training; in testing it does nothing.

    Args:
        keep: keep probability at the end of the training, in (0, 1].
        block: side of a block, cells.
        levels: how many maps it acts on, counted from the coarsest.

    Raises:
        BackboneError: with every argument that does not fit.
    """

    def __init__(self, keep: float = 0.9, *, block: int = 7, levels: int = 2) -> None:
        super().__init__()
        problems = []
        if isinstance(keep, bool) or not isinstance(keep, (int, float)) or not 0 < keep <= 1:
            problems.append(f"keep={keep!r} must be above 0, up to 1")
        for name, value in (("block", block), ("levels", levels)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                problems.append(f"{name}={value!r} must be a whole number above 0")
        if problems:
            raise BackboneError("DropBlock: " + "; ".join(problems))
        self.keep, self.block, self.levels = keep, block, levels
        self.progress = 1.0  # full strength until told otherwise; follows from the iteration, so it is no state

    def set_progress(self, done: float) -> None:
        """Tell how much of the training is done, in [0, 1]; the training loop does so before each step."""
        self.progress = done

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps [B, C, H, W], fine to coarse, the coarsest of them with blocks of zeros."""
        keep = 1 + self.progress * (self.keep - 1)
        if not self.training or keep == 1:
            return list(maps)
        untouched = max(0, len(maps) - self.levels)
        return [*maps[:untouched], *(self._dropped(level, keep) for level in maps[untouched:])]

    def _dropped(self, level: Tensor, keep: float) -> Tensor:
        batch, channels, *size = level.shape
        sides = [min(self.block, side) for side in size]
        rooms = [side - block + 1 for side, block in zip(size, sides)]  # places for a block's corner
        rate = block_rate((size[0], size[1]), (sides[0], sides[1]), keep)
        corners = (torch.rand(batch, channels, *rooms, device=level.device) < rate).float()  # [B, C, rooms]
        # Each corner grows to its block: a cell is dropped where a corner is at most a block before it.
        grown = F.max_pool2d(F.pad(corners, (0, 0, sides[0] - 1, sides[0] - 1)), (sides[0], 1), stride=1)
        grown = F.max_pool2d(F.pad(grown, (sides[1] - 1, sides[1] - 1)), (1, sides[1]), stride=1)  # [B, C, H, W]
        return level * ((1 - grown) / keep).to(level.dtype)


def attach_dropblock(backbone: Backbone, dropblock: DropBlock) -> None:
    """Let the maps that a backbone returns go through DropBlock.

    It has no parameters and no buffers: the backbone's state stays what it was.

    Args:
        backbone: changed in place.
        dropblock: becomes its submodule `dropblock`.

    Raises:
        BackboneError: it has one already.
    """
    if hasattr(backbone, "dropblock"):
        raise BackboneError(f"{backbone.name} has DropBlock already")
    backbone.dropblock = dropblock
    backbone.register_forward_hook(_through_dropblock)


def _through_dropblock(backbone: Any, images: Any, maps: list[Tensor]) -> list[Tensor]:
    # A function of the module, so that a copy of the backbone uses the copy's own DropBlock.
    return backbone.dropblock(maps)


def block_rate(size: tuple[int, int], block: tuple[int, int], keep: float) -> float:
    """The probability of a block at each place at which the expected share of cells in no block is `keep`.

    Args:
        size: (height, width) of the map, cells.
        block: (height, width) of a block, cells, not larger than the map.
        keep: in (0, 1].
    """
    rows, columns = (_coverage(side, length) for side, length in zip(size, block))
    blocks, cells = np.unique(np.outer(rows, columns), return_counts=True)  # how many cells so many blocks can reach
    low, high = 0.0, 1.0
    for _ in range(60):  # kept(rate) = mean of (1 - rate)^blocks falls from 1 to 0
        rate = (low + high) / 2
        kept = float((cells * (1 - rate) ** blocks).sum() / cells.sum())
        low, high = (rate, high) if kept > keep else (low, rate)
    return (low + high) / 2


def _coverage(side: int, block: int) -> np.ndarray:
    # How many places of a block cover each cell along one side: [side]
    cells = np.arange(side)
    return np.minimum(cells, side - block) - np.maximum(cells - block + 1, 0) + 1
