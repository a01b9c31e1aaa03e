"""Slots on a grid: where a detector of the YOLO kind predicts, what its numbers mean there, and whose slot a box is.

Source: YOLOv3 (Redmon and Farhadi 2018, arXiv 1804.02767, section 2.1). A slot is one anchor on one cell of one level;
an image's slots are ordered by level (fine to coarse), cell (row by row) and anchor. Unlike the anchors of
`transfer.ops.anchors`, an anchor here is a shape alone: (width, height) in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transfer.ops.boxes import MAX_LOG_SCALE, cells_on_images
from transfer.types import Size, UserError, is_number


def shape_iou(sides_a: Tensor, sides_b: Tensor) -> Tensor:
    """Intersection over union of every pair of boxes laid on one centre.

    Args:
        sides_a: [N, 2] widths and heights, above 0.
        sides_b: [M, 2].
    Returns:
        [N, M] in (0, 1].
    """
    intersection = torch.minimum(sides_a[:, None], sides_b[None]).prod(dim=-1)
    return intersection / (sides_a.prod(dim=-1)[:, None] + sides_b.prod(dim=-1)[None] - intersection)


@dataclass(frozen=True, slots=True)
class Slots:
    """Some slots of a grid, and the code of their boxes: (tx, ty, tw, th)."""

    cells: Tensor
    """[N, 2] float32: column and row of the slot's cell."""
    strides: Tensor
    """[N, 1] float32: pixels a cell."""
    anchors: Tensor
    """[N, 2] float32: width and height, pixels."""

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, chosen: Tensor) -> Slots:
        """The slots of these indices, [P] int64."""
        return Slots(self.cells[chosen], self.strides[chosen], self.anchors[chosen])

    def decode(self, raw: Tensor) -> Tensor:
        """Args: raw [..., N, 4], (tx, ty, tw, th). Returns: xyxy boxes in pixels, float32, not clipped to any image."""
        raw = raw.float()  # half precision cannot tell neighbouring pixels apart beyond 2048
        centers = (self.cells + torch.sigmoid(raw[..., :2])) * self.strides
        half_sides = torch.exp(raw[..., 2:].clamp(max=MAX_LOG_SCALE)) * self.anchors / 2
        return torch.cat([centers - half_sides, centers + half_sides], dim=-1)

    def encode(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """What the slots must say to mean these boxes.

        Args:
            boxes: [N, 4] xyxy.
        Returns:
            [N, 2] offsets of the centres in the cells, in [0, 1]: sigmoid(tx), sigmoid(ty); and [N, 2] tw, th.
        """
        sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-2)  # a box without area must not become -inf
        offsets = (boxes[:, :2] + boxes[:, 2:]) / 2 / self.strides - self.cells
        return offsets.clamp(0, 1), torch.log(sides / self.anchors)

    def on_image(self, sizes: Sequence[Size]) -> Tensor:
        """Which slots stand on a cell that holds a pixel of the image; the others stand on padding alone.

        Args:
            sizes: (height, width) of the part of each image that is not padding.
        Returns:
            [B, N] bool.
        """
        return cells_on_images(self.cells * self.strides, sizes)


@dataclass(frozen=True, slots=True)
class Grid:
    """All slots of an image, and the way from a box to its slot."""

    slots: Slots
    map_sizes: tuple[Size, ...]
    """(height, width) of each level in cells."""
    shapes: Tensor
    """[A, 2] float32: the anchors of all levels, one after another."""
    levels: Tensor
    """[A, 6] of each anchor's level: stride, columns, rows, first slot, anchors a cell; and its place among those."""

    def slot_of(self, boxes: Tensor) -> Tensor:
        """The slot that is to find each box: the anchor nearest in shape among all levels, in the cell of its centre.

        Args:
            boxes: [M, 4] xyxy. A centre outside the grid falls to the nearest cell.
        Returns:
            [M] int64.
        """
        return self.slot_at(boxes, self.fit(boxes).argmax(dim=1))  # of equals the first

    def fit(self, boxes: Tensor) -> Tensor:
        """[M, A]: the IoU of each box's shape with each anchor's, of boxes [M, 4] xyxy."""
        return shape_iou((boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-2), self.shapes)

    def slot_at(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """The slot of a given anchor in the cell of each box's centre.

        Args:
            boxes: [M, 4] xyxy. A centre outside the grid falls to the nearest cell.
            anchors: [M] int64 into `shapes`.
        Returns:
            [M] int64.
        """
        stride, columns, rows, first, per_cell, place = self.levels[anchors].unbind(dim=1)
        centers = ((boxes[:, :2] + boxes[:, 2:]) / 2 / stride[:, None]).long().clamp(min=0)
        column, row = torch.minimum(centers[:, 0], columns - 1), torch.minimum(centers[:, 1], rows - 1)
        return first + (row * columns + column) * per_cell + place


class AnchorGrid:
    """Makes grids, and keeps them from call to call for equal shapes.

    Args:
        anchors: of each level, fine to coarse, the (width, height) of its anchors in pixels.
        strides: pixels between neighbouring cells, one value a level.
    """

    def __init__(self, anchors: Sequence[Sequence[Sequence[float]]], strides: Sequence[int]) -> None:
        self.anchors = checked_anchors(anchors, len(strides))
        self.strides = tuple(strides)
        self._kept: dict[tuple[tuple[Size, ...], torch.device], Grid] = {}

    def __call__(self, map_sizes: Sequence[Size], device: torch.device) -> Grid:
        """The grid of maps of these sizes. Not to be written to: it is handed out again.

        Args:
            map_sizes: (height, width) of each level's map, in cells.
            device: where the grid is wanted.
        """
        key = (tuple(map_sizes), device)
        if key not in self._kept:
            if len(self._kept) >= 32:  # random shapes: a run meets few, but never keep without bound
                self._kept.clear()
            self._kept[key] = self._make(tuple(map_sizes), device)
        return self._kept[key]

    def _make(self, map_sizes: tuple[Size, ...], device: torch.device) -> Grid:
        parts, levels, first = [], [], 0
        for (rows, columns), stride, anchors in zip(map_sizes, self.strides, self.anchors, strict=True):
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            cells = torch.stack([x, y], dim=-1).float().reshape(-1, 1, 2).expand(-1, len(anchors), 2)
            shapes = torch.tensor(anchors).expand(cells.shape)
            strides = torch.full((cells[..., 0].numel(), 1), float(stride))
            parts.append(Slots(cells.reshape(-1, 2), strides, shapes.reshape(-1, 2)))
            levels += [(stride, columns, rows, first, len(anchors), place) for place in range(len(anchors))]
            first += len(parts[-1])
        slots = Slots(
            torch.cat([part.cells for part in parts]).to(device),
            torch.cat([part.strides for part in parts]).to(device),
            torch.cat([part.anchors for part in parts]).to(device),
        )
        shapes = torch.tensor([shape for anchors in self.anchors for shape in anchors])
        return Grid(slots, map_sizes, shapes.to(device), torch.tensor(levels).to(device))


def checked_anchors(anchors: object, levels: int) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Anchors as tuples of floats.

    Args:
        anchors: of each level, fine to coarse, a list of (width, height) in pixels.
        levels: how many there must be.
    Raises:
        UserError: with an example of the form, where they have another.
    """
    form = f"give a list for each of the {levels} levels, fine to coarse, of (width, height) in pixels"

    def is_list(value: object, length: int | None = None) -> bool:
        return isinstance(value, (list, tuple)) and (length is None or len(value) == length)

    if not is_list(anchors, levels):
        raise UserError(f"anchors={anchors!r}: {form}")
    assert isinstance(anchors, (list, tuple))
    for level, shapes in enumerate(anchors):
        good = is_list(shapes) and len(shapes) > 0
        if not good or not all(is_list(x, 2) and all(is_number(side) and side > 0 for side in x) for x in shapes):
            raise UserError(f"anchors of level {level} are {shapes!r}: {form}, each above 0")
    return tuple(tuple((float(width), float(height)) for width, height in shapes) for shapes in anchors)
