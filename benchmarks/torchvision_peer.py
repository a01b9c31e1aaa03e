"""torchvision's Faster R-CNN behind this project's interfaces, so that one config trains either.

RPN, samplers, losses, RoI heads and postprocess are torchvision's own objects; the backbone, its weights, the pyramid
(torchvision's module in both), the pipeline, the optimizer and the scoring are shared. What is left to differ: where
anchors are centred (torchvision: on a cell's corner), RoIAlign's half-pixel shift, initial weights of the box head, how
regions are sampled, and the treatment of padding.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from backbones.contract import Backbone
from transfer.heads.fpn import FPN
from transfer.types import Prediction, Size, Target


class TorchvisionFasterRCNN(nn.Module):
    """Takes the arguments of `transfer.heads.faster_rcnn.faster_rcnn_fpn`; difficult objects are trained on."""

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        width: int = 256,
        fpn_norm: str = "none",
        head_width: int = 1024,
        anchor_scales: Sequence[float] = (8.0,),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        proposals_before_nms: Sequence[int] = (2000, 1000),
        proposals: Sequence[int] = (2000, 1000),
        proposal_nms_iou: float = 0.7,
        rois: int = 512,
        roi_positive_fraction: float = 0.25,
        roi_cells: int = 7,
        roi_canonical_side: float = 224.0,
        difficult: str = "train",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = FPN(backbone.channels, backbone.strides, width=width, norm=fpn_norm)
        self.neck.out_channels = width  # type: ignore[assignment]
        sizes = tuple(tuple(int(scale * stride) for scale in anchor_scales) for stride in self.neck.strides)
        levels = [str(level) for level in range(len(self.neck.backbone_strides))]
        detector = FasterRCNN(
            self.neck,
            rpn_anchor_generator=AnchorGenerator(sizes, (tuple(anchor_ratios),) * len(sizes)),
            rpn_pre_nms_top_n_train=proposals_before_nms[0],
            rpn_pre_nms_top_n_test=proposals_before_nms[1],
            rpn_post_nms_top_n_train=proposals[0],
            rpn_post_nms_top_n_test=proposals[1],
            rpn_nms_thresh=proposal_nms_iou,
            box_roi_pool=MultiScaleRoIAlign(levels, roi_cells, 2, canonical_scale=roi_canonical_side),
            box_head=TwoMLPHead(width * roi_cells**2, head_width),
            box_predictor=FastRCNNPredictor(head_width, num_classes + 1),
            box_batch_size_per_image=rois,
            box_positive_fraction=roi_positive_fraction,
        )
        self.rpn, self.roi_heads = detector.rpn, detector.roi_heads

    def forward(self, images: Tensor, sizes: Sequence[Size], targets: Sequence[Target] | None = None) -> Any:
        """Losses in training, else the detections in the network's pixels: torchvision's own dicts."""
        maps = OrderedDict((str(level), x) for level, x in enumerate(self.neck(self.backbone(images))))
        truth = None
        if targets is not None:  # torchvision's background is class 0
            truth = [{"boxes": target.boxes, "labels": target.labels + 1} for target in targets]
        shown = ImageList(images.float(), [(int(height), int(width)) for height, width in sizes])
        proposals, rpn_losses = self.rpn(shown, maps, truth)
        detections, box_losses = self.roi_heads(maps, proposals, shown.image_sizes, truth)
        return detections if targets is None else {**rpn_losses, **box_losses}


class TorchvisionLosses:
    """The model's own losses, under names the loop adds up."""

    def __call__(self, output: dict[str, Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        return {f"loss_{name.removeprefix('loss_')}": loss for name, loss in output.items()}


class TorchvisionPostprocess:
    """Detections in original pixels."""

    def __call__(self, output: list[dict[str, Tensor]], targets: Sequence[Target]) -> list[Prediction]:
        predictions = []
        for found, target in zip(output, targets):
            scale_y, scale_x = target.scale
            boxes = found["boxes"] / found["boxes"].new_tensor([scale_x, scale_y, scale_x, scale_y])
            predictions.append(Prediction(boxes, found["scores"], found["labels"] - 1))
        return predictions
