"""Predictions of SSD.

Source: SSD (Liu et al. 2016, arXiv 1512.02325, section 2.2, hard negative mining and inference) and its released code:
softmax scores above 0.01, class-wise NMS of 0.45, at most 200 detections an image.

Deviation: the released code takes the 400 best boxes of each class into NMS, the paper all; here it is the 2000 best
(box, class) pairs of an image, over all classes together, as for the other one-stage detectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from transfer.heads.ssd import BOX_CODE, SSDOutput
from transfer.ops.best_detections import DetectionFilter
from transfer.ops.boxes import decode_boxes
from transfer.types import Prediction, Target


class SSDPostprocess:
    """Predictions in original pixels: softmax, decoding, class-wise NMS.

    Default boxes on padding alone are left out: the criterion teaches them nothing.

    Args:
        score_threshold: detections of this score or less are dropped.
        before_nms: (box, class) pairs of an image that enter NMS, over all classes together.
        nms_iou: suppression threshold within a class.
        max_detections: an image.
    """

    def __init__(
        self,
        *,
        score_threshold: float = 0.01,
        before_nms: int = 2000,
        nms_iou: float = 0.45,
        max_detections: int = 200,
    ) -> None:
        self.filter = DetectionFilter(
            "SSDPostprocess",
            score_threshold=score_threshold,
            before_nms=before_nms,
            nms_iou=nms_iou,
            max_detections=max_detections,
        )

    @torch.no_grad()
    def __call__(self, output: SSDOutput, targets: Sequence[Target]) -> list[Prediction]:
        """Args: the model's output; targets for sizes and scales only. Returns: one prediction an image."""
        scores = F.softmax(output.logits.float(), dim=2)[..., :-1]  # [B, N, K]: the background goes
        on_image = output.default_boxes.on_image([target.size for target in targets])
        possible = on_image & (scores.amax(dim=2) > self.filter.score_threshold)
        return [
            self._image(scores[image], output.deltas[image], torch.nonzero(possible[image]).flatten(), output, target)
            for image, target in enumerate(targets)
        ]

    def _image(self, scores: Tensor, deltas: Tensor, possible: Tensor, output: SSDOutput, target: Target) -> Prediction:
        boxes = decode_boxes(deltas[possible], output.default_boxes.boxes[possible], BOX_CODE)
        return self.filter(boxes, scores[possible], target)
