"""The cells of a map whose size is not known: where a detector's anchors stand."""

from __future__ import annotations

import torch
from torch import Tensor


def cells_of(x: Tensor) -> Tensor:
    """Column and row of every cell, row by row.

    They are counted on the map itself, so that no arithmetic on its sides enters the graph.

    Args:
        x: [B, C, H, W].
    Returns:
        [H * W, 2] float32.
    """
    ones = torch.ones_like(x[0, 0])
    return torch.stack([ones.cumsum(dim=1), ones.cumsum(dim=0)], dim=-1).flatten(0, 1) - 1
