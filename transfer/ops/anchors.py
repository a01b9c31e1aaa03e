"""Anchor boxes on a grid: those of Faster R-CNN and FPN, and the default boxes of SSD.

Source: Faster R-CNN (Ren et al. 2015, section 3.1.1); one size a level as in FPN (Lin et al. 2017, section 4.1); SSD
(Liu et al. 2016, section 2.2, "Choosing scales and aspect ratios for default boxes").
The anchors of cell (i, j) are centred on the cell's middle, ((j + 0.5) * stride, (i + 0.5) * stride), which agrees with
RoIAlign's aligned form; several older implementations centre them on the cell's top-left corner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transfer.ops.boxes import cells_on_images
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
        centers = _cells(map_size, device).add(0.5).mul(stride).repeat(1, 2)[:, None]  # [H * W, 1, 4]
        return (centers + around_zero).reshape(-1, 4)


def _cells(map_size: Size, device: torch.device) -> Tensor:
    """[H * W, 2] float32: column and row of every cell, row by row."""
    y, x = (torch.arange(cells, dtype=torch.float32, device=device) for cells in map_size)
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid_x, grid_y], dim=-1).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class DefaultBoxes:
    """The default boxes of all maps, by map (fine to coarse), cell (row by row) and shape."""

    boxes: Tensor
    """[N, 4] float32 xyxy, pixels of the network's input; not clipped to it."""
    corners: Tensor
    """[N, 2] float32: x and y of the top left corner of each one's cell, pixels."""

    def __len__(self) -> int:
        return len(self.boxes)

    def on_image(self, sizes: Sequence[Size]) -> Tensor:
        """[B, N] bool: which stand on a cell that holds a pixel of the image; see `boxes.cells_on_images`."""
        return cells_on_images(self.corners, sizes)


class DefaultBoxGenerator:
    """SSD's default boxes, kept from call to call for equal shapes.

    On map k stand a square of side s_k, one of side sqrt(s_k * s_(k+1)), and for each ratio a box of s_k * sqrt(ratio)
    by s_k / sqrt(ratio) and one that lies the other way. Their sides are pixels, whatever the image: a network of
    convolutions sees pixels and cannot tell how large the whole image is, so with shapes that vary a side that grew
    with the image would ask different answers of the same pixels.

    Args:
        strides: pixels between neighbouring cells of each map, fine to coarse: cell i is centred on (i + 0.5) * stride,
            where the map's features come from, however far the image is padded. (The paper's (i + 0.5) / f for f cells
            on an image of side 1 is the same where the stride divides the side, and drifts by up to a cell where it
            does not.) None: a map without a stride of its own, whose cells are spread evenly over the image, as in the
            paper.
        sides: s_1 to s_(m+1) for m maps, pixels.
        ratios: of each map, width / height, above 1.
    """

    def __init__(
        self, strides: Sequence[int | None], *, sides: Sequence[float], ratios: Sequence[Sequence[float]]
    ) -> None:
        assert len(strides) == len(ratios) == len(sides) - 1
        self.strides = tuple(strides)
        self.shapes = tuple(self._shapes(*of_map) for of_map in zip(sides, sides[1:], ratios))
        self._kept: dict[tuple[tuple[Size, ...], Size, torch.device], DefaultBoxes] = {}

    @staticmethod
    def _shapes(side: float, next_side: float, ratios: Sequence[float]) -> tuple[tuple[float, float], ...]:
        """(width, height) of the boxes of one cell."""
        shapes = [(side, side), (math.sqrt(side * next_side),) * 2]
        for ratio in ratios:
            long, short = side * math.sqrt(ratio), side / math.sqrt(ratio)
            shapes += [(long, short), (short, long)]
        return tuple(shapes)

    @property
    def boxes_per_cell(self) -> tuple[int, ...]:
        """Of each map."""
        return tuple(len(shapes) for shapes in self.shapes)

    def __call__(self, map_sizes: Sequence[Size], image_size: Size, device: torch.device) -> DefaultBoxes:
        """The default boxes of maps of these sizes. Not to be written to: they are handed out again.

        Args:
            map_sizes: (height, width) of each map, in cells.
            image_size: (height, width) of the network's input, padding included, pixels.
            device: where the boxes are wanted.
        """
        key = (tuple(map_sizes), image_size, device)
        if key not in self._kept:
            if len(self._kept) >= 32:  # random shapes: a run meets few, but never keep without bound
                self._kept.clear()
            self._kept[key] = self._make(tuple(map_sizes), image_size, device)
        return self._kept[key]

    def _make(self, map_sizes: tuple[Size, ...], image_size: Size, device: torch.device) -> DefaultBoxes:
        boxes, corners = [], []
        for map_size, stride, shapes in zip(map_sizes, self.strides, self.shapes, strict=True):
            height, width = (side / cells if stride is None else stride for side, cells in zip(image_size, map_size))
            step = torch.tensor([width, height], device=device)
            cells = _cells(map_size, device)[:, None]  # [H * W, 1, 2]
            half = torch.tensor(shapes, device=device) / 2  # [A, 2]
            centers = (cells + 0.5) * step
            boxes.append(torch.cat([centers - half, centers + half], dim=2).view(-1, 4))
            corners.append((cells * step).expand(-1, len(shapes), 2).reshape(-1, 2))
        return DefaultBoxes(torch.cat(boxes), torch.cat(corners))
