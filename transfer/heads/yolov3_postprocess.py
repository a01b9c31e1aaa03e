"""Predictions of YOLOv3.

Source: GluonCV's inference for the models of Bag of Freebies (Zhang et al. 2019, arXiv 1902.04103): a box's score for a
class is sigmoid(objectness) * sigmoid(class logit), one box may be several classes, and the 400 best (box, class) pairs
of an image above 0.01 go into a class-wise NMS of 0.45, which leaves 100 at the most.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer.heads.yolov3 import BOX, CLASSES, OBJECTNESS, YOLOv3Output
from transfer.ops.anchor_grid import Slots
from transfer.ops.best_detections import DetectionFilter
from transfer.types import Prediction, Target


class YOLOv3Postprocess:
    """Predictions in original pixels: sigmoids, decoding, class-wise NMS.

    Slots on padding alone are left out: the criterion teaches them nothing.

    Args:
        score_threshold: detections of this score or less are dropped.
        before_nms: (box, class) pairs of an image that enter NMS, over all classes together.
        nms_iou: suppression threshold within a class.
        max_detections: an image.
        multi_label: a box may be several classes; otherwise its best one alone.
    """

    def __init__(
        self,
        *,
        score_threshold: float = 0.01,
        before_nms: int = 400,
        nms_iou: float = 0.45,
        max_detections: int = 100,
        multi_label: bool = True,
    ) -> None:
        self.filter = DetectionFilter(
            "YOLOv3Postprocess",
            score_threshold=score_threshold,
            before_nms=before_nms,
            nms_iou=nms_iou,
            max_detections=max_detections,
            multi_label=multi_label,
        )

    @torch.no_grad()
    def __call__(self, output: YOLOv3Output, targets: Sequence[Target]) -> list[Prediction]:
        """Args: the model's output; targets for sizes and scales only. Returns: one prediction an image."""
        on_image = output.grid.slots.on_image([target.size for target in targets])
        parts = zip(output.raw, on_image, targets, strict=True)
        return [self._image(raw, kept, output.grid.slots, target) for raw, kept, target in parts]

    def _image(self, raw: Tensor, on_image: Tensor, slots: Slots, target: Target) -> Prediction:
        objectness = torch.sigmoid(raw[:, OBJECTNESS].float())
        # A score is at most the objectness, so most slots need no classes and no box.
        possible = torch.nonzero(on_image & (objectness > self.filter.score_threshold)).flatten()
        raw = raw[possible]
        scores = objectness[possible, None] * torch.sigmoid(raw[:, CLASSES].float())  # [P, K]
        return self.filter(slots.take(possible).decode(raw[:, BOX]), scores, target)
