"""Several predictions of one image made one: suppression over all of them, and box voting.

Source: Gidaris and Komodakis 2015, Object detection via a multi-region and semantic segmentation-aware CNN model, arXiv
1505.01749, section 4 (a box that suppression keeps becomes the mean, weighted by score, of all boxes of its class that
overlap it; its score stays).

Deviation: the paper lets the boxes of one forward pass vote before suppression. Here the votes are those of several
views' predictions, each after its own suppression, so it works for whatever head made them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer.ops.boxes import pairwise_iou
from transfer.ops.nms import nms_within_groups
from transfer.types import Prediction


def merge_predictions(
    predictions: Sequence[Prediction], *, nms_iou: float, voting_iou: float | None, limit: int
) -> Prediction:
    """One prediction from several of the same image; a single one without voting comes back as it is.

    Args:
        predictions: boxes in the same pixels, at least one.
        nms_iou: a box is dropped where its IoU with a better one of its class is above this.
        voting_iou: boxes of a class with at least this IoU vote on a kept one; None: no voting.
        limit: how many to keep at the most.
    """
    if len(predictions) == 1 and voting_iou is None:
        return predictions[0]
    boxes = torch.cat([prediction.boxes for prediction in predictions])
    scores = torch.cat([prediction.scores for prediction in predictions])
    labels = torch.cat([prediction.labels for prediction in predictions])
    kept = nms_within_groups(boxes, scores, labels, iou_threshold=nms_iou, limit=limit)
    voted = boxes[kept] if voting_iou is None else vote(kept, boxes, scores, labels, iou=voting_iou)
    return Prediction(voted, scores[kept], labels[kept])


def vote(kept: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, *, iou: float) -> Tensor:
    """The kept boxes, each moved to the mean of those that overlap it.

    Args:
        kept: [M] int64, indices of boxes.
        boxes: [N, 4] xyxy.
        scores: [N], 0 or more: what a box's vote weighs.
        labels: [N] int64; a box votes on those of its class.
        iou: least overlap of a voter, in (0, 1].
    Returns:
        [M, 4]; a box that nobody else votes on stays as it is, bit for bit.
    """
    voters = (pairwise_iou(boxes[kept], boxes) >= iou) & (labels[kept][:, None] == labels[None])  # [M, N]
    weights = voters * scores
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
    # As a shift of the kept box: without other voters it is exactly zero.
    shifts = boxes[None] - boxes[kept][:, None]  # [M, N, 4]
    return boxes[kept] + (weights[..., None] * shifts).sum(dim=1)
