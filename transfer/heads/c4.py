"""Faster R-CNN on one map of stride 16, with the backbone's own last stage as the box head ("C4").

Source: Ren et al. 2015 with VGG-16, He et al. 2015 (Deep Residual Learning, appendix A) with ResNet: stages 1 to 3 are
the features, stage 4 runs on every region. The defaults are those of GluonCV's `faster_rcnn_resnet50_v1b_voc`, with
which table 8 of Bag of Tricks (arXiv 1812.01187) was measured: 15 anchors a cell (base 16, scales 2 to 32), 12000 to
2000 proposals in training and 6000 to 300 in test, RoIAlign to 14x14, 128 regions an image.

With VGG the tail is fc6 and fc7 of its ImageNet classifier, which read 7x7 cells: build the backbone with
`classifier_layers=True` and give `roi_cells=7`. Deviations: RoIAlign instead of the RoI max pooling of 2015, aligned by
half a pixel; the proposals' least side is 1 px where GluonCV and the authors take 16 (`proposal_min_side`).

The tail's parameters are named `box_head.tail...`, not `backbone...`: an optimizer that trains the backbone at a lower
lr needs both, `lr_factors={"backbone": 0.1, "box_head": 0.1}`. What is frozen in the tail (batch norm under
norm="frozen", frozen stages) stays frozen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from backbones.contract import Backbone, Tail
from transfer.heads.box_head import BoxPredictor, PyramidRoIAlign, RegionSampler
from transfer.heads.faster_rcnn import FasterRCNN, check_sizes
from transfer.heads.rpn import Proposer, RPNHead
from transfer.ops.anchors import AnchorGenerator
from transfer.types import UserError

STRIDE = 16


class TailHead(nn.Module):
    """The backbone's last stages on pooled regions, then the mean over what cells are left.

    Args:
        tail: second part of `Backbone.split`.
    """

    def __init__(self, tail: Tail) -> None:
        super().__init__()
        self.tail = tail
        self.width = tail.channels

    def another(self) -> TailHead:
        """A copy with the same, pretrained values."""
        return copy.deepcopy(self)

    def forward(self, regions: Tensor) -> Tensor:
        """Args: regions [R, C, cells, cells]. Returns: [R, width]."""
        return self.tail(regions).mean(dim=(2, 3))


def faster_rcnn_c4(
    backbone: Backbone,
    num_classes: int,
    *,
    anchor_scales: Sequence[float] = (2.0, 4.0, 8.0, 16.0, 32.0),
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    rpn_width: int | None = None,
    proposals_before_nms: tuple[int, int] = (12000, 6000),
    proposals: tuple[int, int] = (2000, 300),
    proposal_nms_iou: float = 0.7,
    proposal_min_side: float = 1.0,
    rois: int = 128,
    roi_positive_fraction: float = 0.25,
    roi_cells: int = 14,
    difficult: str = "ignore",
    cascade: Callable[[FasterRCNN], nn.Module] | None = None,
) -> nn.Module:
    """Faster R-CNN whose box head is the backbone's last stage.

    Args:
        backbone: one that can be split at stride 16: ResNet and its relatives, Darknet-53, VGG with its fully
            connected layers.
        num_classes: K, without the background.
        anchor_scales: sides of square anchors in units of 16 px.
        anchor_ratios: height / width.
        rpn_width: channels of the RPN's 3x3 convolution; None: as many as the map has (1024 of ResNet-50, 512 of VGG).
        proposals_before_nms: an image, (training, test).
        proposals: an image after NMS, (training, test).
        proposal_nms_iou: threshold of that NMS.
        proposal_min_side: pixels; proposals with a shorter side are dropped.
        rois: regions an image that the box head trains on.
        roi_positive_fraction: share of positives among them at the most.
        roi_cells: cells a side of a pooled region; 7 costs a quarter of 14.
        difficult: policy on difficult boxes in the sampling of regions; give the RPN's criterion the same.
        cascade: `transfer.heads.cascade.Cascade` makes several second stages of the one; None: one.
    Returns:
        A `FasterRCNN`, or what `cascade` makes of it.
    Raises:
        UserError: options out of range; a tail that learns nothing or does not take such regions.
        BackboneError: the backbone cannot be split.
    """
    check_sizes(num_classes, rpn_width=rpn_width, roi_cells=roi_cells)
    body, tail = backbone.split(STRIDE)
    (channels,) = body.channels
    _check_tail(tail, channels, roi_cells, backbone.name)
    generator = AnchorGenerator((STRIDE,), scales=anchor_scales, ratios=anchor_ratios)
    detector = FasterRCNN(
        backbone=body,
        neck=nn.Identity(),  # the body's one map as it is
        anchor_generator=generator,
        rpn_head=RPNHead(channels, generator.anchors_per_cell, hidden=rpn_width),
        proposer=Proposer(
            before_nms=proposals_before_nms,
            after_nms=proposals,
            nms_iou=proposal_nms_iou,
            min_side=proposal_min_side,
        ),
        sampler=RegionSampler(count=rois, positive_fraction=roi_positive_fraction, difficult=difficult),
        roi_pool=PyramidRoIAlign((STRIDE,), output_size=roi_cells),
        box_head=TailHead(tail),
        predictor=BoxPredictor(tail.channels, num_classes),
    )
    return detector if cascade is None else cascade(detector)


def _check_tail(tail: Tail, channels: int, cells: int, name: str) -> None:
    """Raise unless the tail has layers that learn and maps regions to its channels, tried on the meta device."""
    if not any(True for _ in tail.parameters()):
        raise UserError(
            f"C4 on {name}: behind its map of stride {STRIDE} no layer is left that learns; of VGG, keep the fully "
            "connected layers: model.backbone.classifier_layers=True and model.roi_cells=7"
        )
    state = {key: value.to("meta") for key, value in [*tail.named_parameters(), *tail.named_buffers()]}
    regions = torch.empty(2, channels, cells, cells, device="meta")
    try:
        shape = tuple(torch.func.functional_call(tail, state, (regions,)).shape)
    except Exception as error:
        raise UserError(
            f"model.roi_cells={cells}: the last stages of {name} do not take regions of {cells}x{cells} cells ({error})"
        ) from error
    if len(shape) != 4 or shape[1] != tail.channels:
        raise UserError(f"C4 on {name}: its tail gives {shape} where [2, {tail.channels}, h, w] is needed")
