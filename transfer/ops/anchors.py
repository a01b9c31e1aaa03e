"""Anchor boxes on a grid.

Source: Faster R-CNN (Ren et al. 2015, section 3.1.1); one size a level as in FPN (Lin et al. 2017, section 4.1).
The anchors of cell (i, j) are centred on the cell's middle, ((j + 0.5) * stride, (i + 0.5) * stride), which agrees with
RoIAlign's aligned form; several older implementations centre them on the cell's top-left corner.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer.types import Size, UserError


class AnchorGenerator:
    """Anchors of every level of a feature pyramid, kept from call to call for equal shapes.

    Args:
        strides: pixels between neighbouring cells, one value a level.
        scales: side of a square anchor in strides; several give several anchors a cell.
        ratios: height / width; the area does not depend on it.
    """

    def __init__(
        self, strides: Sequence[int], *, scales: Sequence[float] = (8.0,), ratios: Sequence[float] = (0.5, 1.0, 2.0)
    ) -> None:
        if not scales or not ratios or min(scales) <= 0 or min(ratios) <= 0:
            raise UserError(f"anchor scales={tuple(scales)} and ratios={tuple(ratios)} must be positive and not empty")
        self.strides = tuple(strides)
        self.scales = tuple(scales)
        self.ratios = tuple(ratios)
        self._kept: dict[tuple[tuple[Size, ...], torch.device], list[Tensor]] = {}

    @property
    def anchors_per_cell(self) -> int:
        """A: how many anchors stand on each cell."""
        return len(self.scales) * len(self.ratios)

    def __call__(self, map_sizes: Sequence[Size], device: torch.device) -> list[Tensor]:
        """Anchors of each level.

        Args:
            map_sizes: (height, width) of each level's feature map, in cells.
            device: where the anchors are wanted.
        Returns:
            One [H * W * A, 4] float32 xyxy tensor a level, cells in row order, anchors of a cell together. Not to be
            written to: it is handed out again.
        """
        key = (tuple(map_sizes), device)
        if key not in self._kept:
            if len(self._kept) >= 32:  # random shapes: a run meets few, but never keep without bound
                self._kept.clear()
            self._kept[key] = [self._level(size, stride, device) for size, stride in zip(map_sizes, self.strides)]
        return self._kept[key]

    def _level(self, map_size: Size, stride: int, device: torch.device) -> Tensor:
        sides = [
            (scale * stride / ratio**0.5, scale * stride * ratio**0.5)  # (width, height)
            for scale in self.scales
            for ratio in self.ratios
        ]
        half = torch.tensor(sides, dtype=torch.float32, device=device) / 2  # [A, 2]
        around_zero = torch.cat([-half, half], dim=1)  # [A, 4]
        y = (torch.arange(map_size[0], dtype=torch.float32, device=device) + 0.5) * stride
        x = (torch.arange(map_size[1], dtype=torch.float32, device=device) + 0.5) * stride
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        centers = torch.stack([grid_x, grid_y, grid_x, grid_y], dim=-1).reshape(-1, 1, 4)
        return (centers + around_zero).reshape(-1, 4)
