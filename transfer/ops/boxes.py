"""Arithmetic on boxes: area, overlap, clipping, and the regression code of anchors and proposals.

Source: the delta code (dx, dy, dw, dh) is that of R-CNN (Girshick et al. 2014, appendix C) with the per-coordinate
weights of Fast R-CNN's released code; SSD's variances are their inverses. Widths are x_max - x_min (right edge
exclusive), without the +1 of older code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from transfer.types import Size

MAX_LOG_SCALE = math.log(1000.0 / 16.0)
"""Upper limit of a decoded dw or dh: keeps exp() finite when an untrained head is far off."""


def box_area(boxes: Tensor) -> Tensor:
    """Areas in square pixels.

    Args:
        boxes: [N, 4] xyxy.
    Returns:
        [N].
    """
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def pairwise_iou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Intersection over union of every pair; 0 where the union has no area.

    Args:
        boxes_a: [N, 4] xyxy.
        boxes_b: [M, 4] xyxy.
    Returns:
        [N, M] float32 in [0, 1].
    """
    top_left = torch.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])
    bottom_right = torch.minimum(boxes_a[:, None, 2:], boxes_b[None, :, 2:])
    sides = (bottom_right - top_left).clamp(min=0)  # [N, M, 2]
    intersection = sides[..., 0] * sides[..., 1]
    union = box_area(boxes_a)[:, None] + box_area(boxes_b)[None, :] - intersection
    return torch.where(union > 0, intersection / union.clamp(min=1e-12), torch.zeros_like(union))


def clip_boxes(boxes: Tensor, size: Size) -> Tensor:
    """Boxes cut at the borders of an image.

    Args:
        boxes: [..., 4] xyxy.
        size: (height, width) of the image.
    Returns:
        A new tensor of the same shape.
    """
    height, width = size
    limits = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limits)


def centred_outside(boxes: Tensor, size: Size) -> Tensor:
    """Which boxes have their centre at or beyond the right or bottom border.

    Args:
        boxes: [N, 4] xyxy.
        size: (height, width).
    Returns:
        [N] bool.
    """
    height, width = size
    return (boxes[:, 0] + boxes[:, 2] >= 2 * width) | (boxes[:, 1] + boxes[:, 3] >= 2 * height)


def cells_on_images(corners: Tensor, sizes: Sequence[Size]) -> Tensor:
    """Which cells of a grid hold a pixel of the image; the others stand on padding alone.

    Args:
        corners: [N, 2] x and y of the cells' top left corners, pixels.
        sizes: (height, width) of the part of each image that is not padding.
    Returns:
        [B, N] bool.
    """
    limits = torch.tensor(list(sizes), dtype=torch.float32).to(corners.device)  # [B, 2]: height and width
    return (corners[:, 0] < limits[:, 1:]) & (corners[:, 1] < limits[:, :1])


def encode_boxes(boxes: Tensor, references: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """The deltas that lead from reference boxes to boxes.

    Args:
        boxes: [N, 4] xyxy, of positive width and height.
        references: [N, 4] xyxy anchors or proposals, of positive width and height.
        weights: factors of (dx, dy, dw, dh); (10, 10, 5, 5) brings a box head's deltas to unit variance.
    Returns:
        [N, 4] deltas.
    """
    sides, reference_sides = boxes[:, 2:] - boxes[:, :2], references[:, 2:] - references[:, :2]
    shift = (boxes[:, :2] + boxes[:, 2:] - references[:, :2] - references[:, 2:]) / 2 / reference_sides
    return torch.cat([shift, torch.log(sides / reference_sides)], dim=1) * boxes.new_tensor(weights)


def decode_boxes(deltas: Tensor, references: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """The boxes that deltas lead to; the inverse of `encode_boxes`.

    Args:
        deltas: [N, C, 4] or [N, 4].
        references: [N, 4] xyxy.
        weights: as in `encode_boxes`.
    Returns:
        xyxy boxes in the shape of `deltas`, float32, not clipped to any image.
    """
    deltas = deltas.float() / deltas.new_tensor(weights, dtype=torch.float32)
    sides = references[:, 2:] - references[:, :2]
    centers = references[:, :2] + sides / 2
    if deltas.dim() == 3:
        sides, centers = sides[:, None], centers[:, None]  # [N, 1, 2]
    new_centers = centers + deltas[..., :2] * sides
    half_sides = torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE)) * sides / 2
    return torch.cat([new_centers - half_sides, new_centers + half_sides], dim=-1)
