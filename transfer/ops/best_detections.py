"""From the scored boxes of one image to its detections: threshold, best of all classes, NMS, original pixels.

Shared by the one-stage detectors. The order is GluonCV's: the limit before NMS is on the (box, class) pairs of an
image, over all classes together, and boxes are clipped only after NMS.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transfer.ops.boxes import clip_boxes
from transfer.ops.nms import nms_within_groups
from transfer.types import Prediction, Target, UserError, is_number


class DetectionFilter:
    """What is left of the scored boxes of an image.

    Args:
        owner: name that begins messages.
        score_threshold: pairs of this score or less are dropped.
        before_nms: pairs of an image that enter NMS, the best ones.
        nms_iou: suppression threshold within a class.
        max_detections: an image.
        multi_label: a box may be several classes; otherwise its best one alone.
    """

    def __init__(
        self,
        owner: str,
        *,
        score_threshold: float,
        before_nms: int,
        nms_iou: float,
        max_detections: int,
        multi_label: bool = True,
    ) -> None:
        problems = [
            f"{name}={value!r} must be a number in [0, 1]"
            for name, value in (("score_threshold", score_threshold), ("nms_iou", nms_iou))
            if not is_number(value) or not 0 <= value <= 1
        ]
        problems += [
            f"{name}={value!r} must be a whole number above 0"
            for name, value in (("before_nms", before_nms), ("max_detections", max_detections))
            if type(value) is not int or value < 1
        ]
        if not isinstance(multi_label, bool):
            problems.append(f"multi_label={multi_label!r} must be True or False")
        if problems:
            raise UserError(f"{owner}: " + "; ".join(problems))
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.before_nms, self.max_detections, self.multi_label = before_nms, max_detections, multi_label

    def __call__(self, boxes: Tensor, scores: Tensor, target: Target) -> Prediction:
        """The detections of one image, best first.

        Args:
            boxes: [N, 4] float32 xyxy, pixels of the network's input.
            scores: [N, K] float32; nan counts as 0.
            target: for the image's size and scale.
        """
        if self.multi_label:
            box, label = torch.nonzero(scores > self.score_threshold, as_tuple=True)
        else:
            best, labels = scores.max(dim=1)
            box = torch.nonzero(best > self.score_threshold).flatten()
            label = labels[box]
        pairs = scores[box, label]
        if len(pairs) > self.before_nms:
            pairs, top = pairs.topk(self.before_nms)
            box, label = box[top], label[top]
        kept = nms_within_groups(boxes[box], pairs, label, iou_threshold=self.nms_iou, limit=self.max_detections)
        scale_y, scale_x = target.scale
        original = boxes[box[kept]] / boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
        return Prediction(clip_boxes(original, target.original_size), pairs[kept], label[kept])
