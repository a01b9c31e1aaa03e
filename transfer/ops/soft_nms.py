"""Soft non-maximum suppression within groups: overlap with a better box costs score instead of ending a box.

Source: Bodla et al. 2017, Soft-NMS (arXiv 1704.04503), figure 2 and section 3. The best box is taken, the scores of the
others of its group fall with their overlap with it, and so on. Linear: by 1 - IoU where the IoU is above the threshold
(the paper: at or above; here as the hard form counts it). Gaussian: by exp(-IoU^2 / sigma), no threshold.

The paper goes on until nothing is left; here only until `limit` boxes are taken, over all groups together. That is the
same: scores only fall, so the boxes come out best first and none of the later ones could be among the first.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from transfer.ops.boxes import pairwise_iou


def soft_nms_within_groups(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    *,
    method: Literal["linear", "gaussian"],
    iou_threshold: float,
    sigma: float,
    score_threshold: float,
    limit: int,
) -> tuple[Tensor, Tensor]:
    """Indices that are left, best first, and their new scores.

    Args:
        boxes: [N, 4] xyxy.
        scores: [N] in [0, 1].
        groups: [N] int64; boxes of different groups do not touch each other's scores.
        method: "linear" or "gaussian".
        iou_threshold: overlap above which the linear form takes score.
        sigma: of the gaussian form, above 0.
        score_threshold: boxes of this score or less are dropped, at least 0.
        limit: how many to keep at the most.
    Returns:
        [M] int64 and [M] float32, M <= limit.
    """
    boxes, left = boxes.float(), scores.float().clone()
    taken, final = [], []
    for _ in range(min(limit, len(boxes))):
        best = left.argmax()
        if left[best] <= score_threshold:
            break
        taken.append(best)
        final.append(left[best].clone())
        iou = pairwise_iou(boxes[best][None], boxes)[0]  # [N]
        if method == "linear":
            kept_share = torch.where(iou > iou_threshold, 1 - iou, torch.ones_like(iou))
        else:
            kept_share = torch.exp(-iou.square() / sigma)
        left = torch.where(groups == groups[best], left * kept_share, left)
        left[best] = -1.0  # below any threshold: not to be taken again
    if not taken:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device), left[:0]
    return torch.stack(taken), torch.stack(final)
