"""Faster R-CNN on the last map of a dilated backbone: one level of stride 16, two fully connected layers ("DC5").

Source: Dai et al. 2017, Deformable Convolutional Networks (arXiv 1703.06211), section 4, where it is the aligned plain
baseline: the last stage dilated instead of strided, 7x7 regions, two layers of 1024; Detectron2 ships it as R50-DC5.
There, a 1x1 convolution narrows the map first: `width`; Detectron2 has none, and so it is by default here. Anchors,
proposals and regions are those of `faster_rcnn_c4`, so that the two differ in the head alone. The RPN's convolution has
512 channels as in Ren et al. 2015: at ResNet's 2048 it would cost as much as the whole backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.heads.box_head import BoxPredictor, PyramidRoIAlign, RegionSampler, TwoLayerHead
from transfer.heads.faster_rcnn import FasterRCNN, check_sizes
from transfer.heads.rpn import Proposer, RPNHead
from transfer.ops.anchors import AnchorGenerator
from transfer.types import UserError

ANCHOR_BASE = 16
"""Pixels: the unit of anchor scales, whatever the map's stride."""


class LastLevel(nn.Module):
    """The last of a backbone's maps.

    Args:
        channels: of that map.
        width: a 1x1 convolution with ReLU narrows it to this; None: as it is.
    """

    def __init__(self, channels: int, *, width: int | None = None) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, width, 1) if width else None
        self.width = width or channels
        if self.narrow is not None:
            nn.init.kaiming_normal_(self.narrow.weight, nonlinearity="relu")
            nn.init.zeros_(self.narrow.bias)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Args: all features of the backbone. Returns: one map [B, width, H, W]."""
        last = features[-1]
        return [last if self.narrow is None else self.narrow(last).relu()]


def faster_rcnn_c5(
    backbone: Backbone,
    num_classes: int,
    *,
    width: int | None = None,
    head_width: int = 1024,
    anchor_scales: Sequence[float] = (2.0, 4.0, 8.0, 16.0, 32.0),
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    rpn_width: int = 512,
    proposals_before_nms: tuple[int, int] = (12000, 6000),
    proposals: tuple[int, int] = (2000, 300),
    proposal_nms_iou: float = 0.7,
    proposal_min_side: float = 1.0,
    rois: int = 128,
    roi_positive_fraction: float = 0.25,
    roi_cells: int = 7,
    difficult: str = "ignore",
    cascade: Callable[[FasterRCNN], nn.Module] | None = None,
) -> nn.Module:
    """Faster R-CNN on the last map of a backbone whose output stride is 16 (or 8).

    Args:
        backbone: built with output_stride=16; a plain transformer with patches of 16 px fits as it is.
        num_classes: K, without the background.
        width: channels to which a 1x1 convolution narrows the map; None: none.
        head_width: of the box head's two layers.
        anchor_scales: sides of square anchors in units of 16 px.
        anchor_ratios: height / width.
        rpn_width: channels of the RPN's 3x3 convolution.
        proposals_before_nms: an image, (training, test).
        proposals: an image after NMS, (training, test).
        proposal_nms_iou: threshold of that NMS.
        proposal_min_side: pixels; proposals with a shorter side are dropped.
        rois: regions an image that the box head trains on.
        roi_positive_fraction: share of positives among them at the most.
        roi_cells: cells a side of a pooled region.
        difficult: policy on difficult boxes in the sampling of regions; give the RPN's criterion the same.
        cascade: `transfer.heads.cascade.Cascade` makes several second stages of the one; None: one.
    Returns:
        A `FasterRCNN`, or what `cascade` makes of it.
    Raises:
        UserError: options out of range, or a backbone whose last map is coarser than stride 16.
    """
    check_sizes(num_classes, width=width, head_width=head_width, rpn_width=rpn_width, roi_cells=roi_cells)
    stride = backbone.strides[-1]
    if stride > 16:
        raise UserError(
            f"dilated C5 on {backbone.name}: its last map has stride {stride}, too coarse for boxes: give "
            "model.backbone.output_stride=16 (a backbone that cannot be dilated: use faster_rcnn_fpn)"
        )
    neck = LastLevel(backbone.channels[-1], width=width)
    scales = [scale * ANCHOR_BASE / stride for scale in anchor_scales]  # the generator counts in strides
    generator = AnchorGenerator((stride,), scales=scales, ratios=anchor_ratios)
    detector = FasterRCNN(
        backbone=backbone,
        neck=neck,
        anchor_generator=generator,
        rpn_head=RPNHead(neck.width, generator.anchors_per_cell, hidden=rpn_width),
        proposer=Proposer(
            before_nms=proposals_before_nms,
            after_nms=proposals,
            nms_iou=proposal_nms_iou,
            min_side=proposal_min_side,
        ),
        sampler=RegionSampler(count=rois, positive_fraction=roi_positive_fraction, difficult=difficult),
        roi_pool=PyramidRoIAlign((stride,), output_size=roi_cells),
        box_head=TwoLayerHead(neck.width, roi_cells, width=head_width),
        predictor=BoxPredictor(head_width, num_classes),
    )
    return detector if cascade is None else cascade(detector)
