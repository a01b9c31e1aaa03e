"""Box losses that are measured on the boxes themselves: IoU, GIoU, DIoU, CIoU and CDIoU.

Sources: IoU 1 - IoU; GIoU, Rezatofighi et al. 2019 (arXiv 1902.09630); DIoU 1 - IoU + d^2 / c^2 and CIoU, which adds
alpha * v for the aspect, Zheng et al. 2019 (arXiv 1911.08287); CDIoU, Chen and Miao 2021 (arXiv 2103.11696): 1 - IoU
plus the distances of the four pairs of corners, summed, over four diagonals of the enclosing box. GIoU, DIoU and CIoU
are torchvision's, which treats alpha as a constant in the gradient.

Deviation: a side below 0.01 px counts as 0.01 px, because the aspect of a box without area is not a number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

_LEAST_SIDE = 0.01
_EPS = 1e-7
"""Added to denominators, as torchvision does."""


def iou_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """1 - IoU of each pair; no gradient where the two do not overlap.

    Args:
        predicted: [N, 4] xyxy.
        truth: [N, 4] xyxy.
    Returns:
        [N] in [0, 1].
    """
    corner, opposite = torch.maximum(predicted[:, :2], truth[:, :2]), torch.minimum(predicted[:, 2:], truth[:, 2:])
    intersection = (opposite - corner).clamp(min=0).prod(dim=1)
    areas = (predicted[:, 2:] - predicted[:, :2]).prod(dim=1) + (truth[:, 2:] - truth[:, :2]).prod(dim=1)
    return 1 - intersection / (areas - intersection + _EPS)


def control_distance_iou_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """1 - IoU + (sum of the four corner distances) / (4 * diagonal of the enclosing box) of each pair.

    Args:
        predicted: [N, 4] xyxy.
        truth: [N, 4] xyxy.
    Returns:
        [N] in [0, 2).
    """
    left, top, right, bottom = (predicted - truth).unbind(dim=1)  # how far each edge is off
    corners = torch.stack([left, top, right, top, right, bottom, left, bottom], dim=1).view(-1, 4, 2)
    # vector_norm and not the root of a sum: its gradient at zero is zero, that of the root is not a number.
    distances = torch.linalg.vector_norm(corners, dim=2).sum(dim=1)
    enclosing = torch.maximum(predicted[:, 2:], truth[:, 2:]) - torch.minimum(predicted[:, :2], truth[:, :2])
    diagonal = torch.linalg.vector_norm(enclosing, dim=1)
    return iou_loss(predicted, truth) + distances / (4 * diagonal + _EPS)


IOU_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "iou": iou_loss,
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
    "cdiou": control_distance_iou_loss,
}


def box_iou_loss(kind: str, predicted: Tensor, truth: Tensor) -> Tensor:
    """The loss of each pair of boxes.

    Args:
        kind: a key of IOU_LOSSES.
        predicted: [N, 4] xyxy, pixels.
        truth: [N, 4] xyxy, pixels.
    Returns:
        [N] float32 (float64 where the boxes are), at least 0; finite, with finite gradients, also for boxes without
        area.
    """
    return IOU_LOSSES[kind](_with_area(predicted), _with_area(truth))


def _with_area(boxes: Tensor) -> Tensor:
    """The boxes in float32 at the least, with sides of at least `_LEAST_SIDE`; others stay bit for bit."""
    boxes = boxes.float() if boxes.element_size() < 4 else boxes
    corner = boxes[:, :2]
    return torch.cat([corner, torch.maximum(boxes[:, 2:], corner + _LEAST_SIDE)], dim=1)
