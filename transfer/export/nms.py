"""Non-maximum suppression as one operation whose shapes do not depend on the data: scores in, scores out.

What is suppressed gets the score minus infinity, so that a batch keeps its shape and torch's exporter meets nothing
that depends on values. In torch it is torchvision's NMS, image by image; in ONNX it is NonMaxSuppression, which takes a
batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

NOTHING = float("-inf")
"""Score of a place that holds no box."""
_LOWEST = -3.4e38
_ALL = 1 << 31


@torch.library.custom_op("trickstack::scores_after_nms", mutates_args=())
def scores_after_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The scores, minus infinity where a box is suppressed.

    Args:
        boxes: [B, N, 4] float32 xyxy.
        scores: [B, N] float32; boxes of score `NOTHING` take no part.
        iou_threshold: a box is suppressed where its IoU with a better one that stays is above this.
    Returns:
        [B, N] float32.
    """
    left = torch.full_like(scores, NOTHING)
    for own, own_scores, own_left in zip(boxes, scores, left):
        candidates = torch.nonzero(own_scores > _LOWEST).flatten()
        kept = candidates[nms(own[candidates], own_scores[candidates], iou_threshold)]
        own_left[kept] = own_scores[kept]
    return left


@scores_after_nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return torch.empty_like(scores)


def translations() -> dict[Any, Callable[..., Any]]:
    """What torch's exporter writes for the operation: to be given as its `custom_translation_table`."""
    import onnx
    from onnxscript import opset18 as op

    nothing = onnx.helper.make_tensor("nothing", onnx.TensorProto.FLOAT, [1], [NOTHING])

    def written(boxes: Any, scores: Any, iou_threshold: float) -> Any:
        selected = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, [1]), _ALL, iou_threshold, _LOWEST)
        places = op.Gather(selected, [0, 2], axis=1)  # [M, 2] of [M, 3]: image and box; the class between is always 0
        return op.ScatterND(op.ConstantOfShape(op.Shape(scores), value=nothing), places, op.GatherND(scores, places))

    return {torch.ops.trickstack.scores_after_nms.default: written}
