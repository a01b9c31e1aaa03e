"""Non-maximum suppression within groups (classes or pyramid levels)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms


def nms_within_groups(boxes: Tensor, scores: Tensor, groups: Tensor, *, iou_threshold: float, limit: int) -> Tensor:
    """Indices that survive, best score first.

    Args:
        boxes: [N, 4] xyxy.
        scores: [N].
        groups: [N] int64; boxes of different groups do not suppress each other.
        iou_threshold: a box is dropped where its IoU with a better one of its group is above this.
        limit: how many to keep at the most.
    Returns:
        [M] int64, M <= limit.
    """
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    # In float32: the offsets that keep groups apart would eat a half's precision.
    return batched_nms(boxes.float(), scores.float(), groups, iou_threshold)[:limit]
