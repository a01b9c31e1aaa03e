"""Faster R-CNN: the model, its criterion, its postprocess, and `faster_rcnn_fpn`, which joins them to a backbone.

Source: Faster R-CNN (Ren et al. 2015) with FPN (Lin et al. 2017). The other ways to join it to a backbone are in `c4`
and `dilated_c5`; `cascade` puts several second stages in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.heads.box_head import (
    PROPOSAL_CODE,
    BoxCode,
    BoxCriterion,
    BoxPredictor,
    PyramidRoIAlign,
    RegionSampler,
    RegionTargets,
    TwoLayerHead,
)
from transfer.heads.fpn import FPN
from transfer.heads.rpn import Proposer, RPNCriterion, RPNHead, propose
from transfer.ops.anchors import AnchorGenerator
from transfer.ops.boxes import clip_boxes, decode_boxes
from transfer.ops.nms import nms_within_groups
from transfer.ops.soft_nms import soft_nms_within_groups
from transfer.types import Prediction, Size, Target, UserError, is_number


@dataclass(slots=True)
class FasterRCNNOutput:
    """Raw logits and deltas of both stages."""

    objectness: Tensor
    """[B, N] logits over the anchors of all levels."""
    anchor_deltas: Tensor
    """[B, N, 4]."""
    anchors: Tensor
    """[N, 4]."""
    regions: list[Tensor]
    """[R_b, 4] an image: the proposals, or in training the sample of them."""
    class_logits: Tensor
    """[R, K + 1], background last, images one after another."""
    box_deltas: Tensor
    """[R, K, 4], or [R, 1, 4]: one set for all classes."""
    region_targets: RegionTargets | None
    """What the regions are to be taught; None in test."""
    box_code: BoxCode = PROPOSAL_CODE
    """Of the box deltas."""


class FasterRCNN(nn.Module):
    """A two-stage detector from built parts.

    Args:
        backbone: gives the features.
        neck: turns features into maps; has `.strides`.
        anchor_generator: of the neck's strides.
        rpn_head: gives objectness and deltas of the anchors.
        proposer: turns those into proposals.
        sampler: draws the regions to train on.
        roi_pool: (maps, boxes) -> [R, C, h, w].
        box_head: [R, C, h, w] -> [R, D].
        predictor: [R, D] -> logits [R, K + 1], deltas [R, K, 4].
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: nn.Module,
        anchor_generator: AnchorGenerator,
        rpn_head: nn.Module,
        proposer: Proposer,
        sampler: RegionSampler,
        roi_pool: nn.Module,
        box_head: nn.Module,
        predictor: nn.Module,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.rpn_head = backbone, neck, rpn_head
        self.roi_pool, self.box_head, self.predictor = roi_pool, box_head, predictor
        self.anchor_generator, self.proposer, self.sampler = anchor_generator, proposer, sampler

    def forward(
        self, images: Tensor, sizes: Sequence[Size], targets: Sequence[Target] | None = None
    ) -> FasterRCNNOutput:
        """Raw outputs of both stages.

        Args:
            images: [B, 3, H, W] uint8.
            sizes: (height, width) of each image's valid part.
            targets: given in training, to sample regions; read for nothing else.
        """
        maps = self.neck(self.backbone(images))
        rpn = propose(
            maps,
            sizes,
            head=self.rpn_head,
            anchor_generator=self.anchor_generator,
            proposer=self.proposer,
            training=targets is not None,
        )
        regions, region_targets = rpn.proposals, None
        if targets is not None:
            regions, region_targets = self.sampler(regions, targets)
        class_logits, box_deltas = self.predictor(self.box_head(self.roi_pool(maps, regions)))
        return FasterRCNNOutput(
            objectness=rpn.objectness,
            anchor_deltas=rpn.deltas,
            anchors=rpn.anchors,
            regions=regions,
            class_logits=class_logits,
            box_deltas=box_deltas,
            region_targets=region_targets,
        )


class FasterRCNNCriterion:
    """The four losses of both stages, equally weighted.

    Args:
        rpn: criterion of the first stage.
        box: criterion of the second.
    """

    def __init__(self, *, rpn: RPNCriterion, box: BoxCriterion) -> None:
        self.rpn, self.box = rpn, box

    def check_model(self, model: nn.Module) -> None:
        """Raises: UserError where the model is of another kind, or its stages treat difficult boxes differently."""
        if not isinstance(model, FasterRCNN):
            raise UserError(
                f"criterion: FasterRCNNCriterion does not fit a {type(model).__name__}; one with model.cascade needs "
                "transfer.heads.cascade.CascadeCriterion"
            )
        if model.sampler.difficult != self.rpn.difficult:
            raise UserError(
                f"model.difficult={model.sampler.difficult!r} and criterion.rpn.difficult={self.rpn.difficult!r}: "
                "both stages need the same policy on difficult boxes"
            )

    def __call__(self, output: FasterRCNNOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Args: the model's output in training, and its targets. Returns: scalar losses named `loss_*`."""
        assert output.region_targets is not None, "the criterion needs an output made with targets"
        objectness, anchor_box = self.rpn(output.objectness, output.anchor_deltas, output.anchors, targets)
        classes, box = self.box(output.class_logits, output.box_deltas, output.regions, output.region_targets)
        return {
            "loss_rpn_objectness": objectness,
            "loss_rpn_box": anchor_box,
            "loss_class": classes,
            "loss_box": box,
        }

    def expected_first_losses(
        self, model: nn.Module, output: FasterRCNNOutput, targets: Sequence[Target]
    ) -> dict[str, float]:
        """Losses of an untrained head, whose logits are equal and deltas zero: ln 2, ln(K + 1), the boxes' distances.

        See `transfer.preflight.first_loss` for the arguments. Boxes of mixed images count by their weight.
        """
        untrained = replace(
            output,
            objectness=torch.zeros_like(output.objectness),
            anchor_deltas=torch.zeros_like(output.anchor_deltas),
            class_logits=torch.zeros_like(output.class_logits),
            box_deltas=torch.zeros_like(output.box_deltas),
        )
        return {name: float(loss) for name, loss in self(untrained, targets).items()}

    def anchor_fit(self, output: FasterRCNNOutput, targets: Sequence[Target]) -> tuple[Tensor, float]:
        """See `transfer.heads.rpn.RPNCriterion.anchor_fit`."""
        return self.rpn.anchor_fit(output.anchors, targets)


class FasterRCNNPostprocess:
    """Predictions in original pixels: softmax, decoding, class-wise NMS.

    Args:
        score_threshold: detections of this score or less are dropped.
        nms_iou: overlap within a class above which a detection is suppressed ("hard") or loses score ("linear").
        max_detections: an image.
        min_side: a detection with a shorter side is dropped, in pixels of the network's input.
        nms: "hard", or the soft forms "linear" and "gaussian"; see `transfer.ops.soft_nms`. Those go on from a score
            threshold of 0.001 in their paper: at a higher one, what has lost score is dropped again.
        sigma: how far the gaussian form reaches, above 0.
    """

    def __init__(
        self,
        *,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_detections: int = 100,
        min_side: float = 1.0,
        nms: Literal["hard", "linear", "gaussian"] = "hard",
        sigma: float = 0.5,
    ) -> None:
        problems = [
            f"{name}={value!r} must be a number in [0, 1]"
            for name, value in (("score_threshold", score_threshold), ("nms_iou", nms_iou))
            if not is_number(value) or not 0 <= value <= 1
        ]
        if not isinstance(max_detections, int) or max_detections < 1:
            problems.append(f"max_detections={max_detections!r} must be a whole number above 0")
        if nms not in ("hard", "linear", "gaussian"):
            problems.append(f"nms={nms!r} is none of hard, linear, gaussian")
        if not is_number(sigma) or sigma <= 0:
            problems.append(f"sigma={sigma!r} must be a number above 0")
        if problems:
            raise UserError("FasterRCNNPostprocess: " + "; ".join(problems))
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.max_detections, self.min_side, self.nms, self.sigma = max_detections, min_side, nms, sigma

    @torch.no_grad()
    def __call__(self, output: FasterRCNNOutput, targets: Sequence[Target]) -> list[Prediction]:
        """Args: the model's output in test; targets for sizes and scales only. Returns: one prediction an image."""
        counts = [len(regions) for regions in output.regions]
        logits, deltas = output.class_logits.float().split(counts), output.box_deltas.split(counts)
        parts = zip(output.regions, logits, deltas, targets)
        return [self._image(*of_image, code=output.box_code) for of_image in parts]

    def _image(self, regions: Tensor, logits: Tensor, deltas: Tensor, target: Target, *, code: BoxCode) -> Prediction:
        scores = F.softmax(logits, dim=1)[:, :-1]  # [R, K]: the background goes
        boxes = clip_boxes(decode_boxes(deltas, regions, code), target.size)  # [R, K or 1, 4]
        boxes = boxes.expand(-1, scores.shape[1], -1)  # [R, K, 4]
        wide = ((boxes[..., 2:] - boxes[..., :2]) >= self.min_side).all(dim=-1)
        region, label = torch.nonzero((scores > self.score_threshold) & wide, as_tuple=True)
        boxes, scores = boxes[region, label], scores[region, label]
        kept, scores = self._suppress(boxes, scores, label)
        scale_y, scale_x = target.scale
        original = boxes[kept] / boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
        return Prediction(clip_boxes(original, target.original_size), scores, label[kept])

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the detections that stay, best first, and their scores."""
        if self.nms == "hard":
            kept = nms_within_groups(boxes, scores, labels, iou_threshold=self.nms_iou, limit=self.max_detections)
            return kept, scores[kept]
        return soft_nms_within_groups(
            boxes,
            scores,
            labels,
            method=self.nms,
            iou_threshold=self.nms_iou,
            sigma=self.sigma,
            score_threshold=self.score_threshold,
            limit=self.max_detections,
        )


def faster_rcnn_fpn(
    backbone: Backbone,
    num_classes: int,
    *,
    width: int = 256,
    fpn_norm: str = "none",
    head_width: int = 1024,
    anchor_scales: Sequence[float] = (8.0,),
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    proposals_before_nms: tuple[int, int] = (2000, 1000),
    proposals: tuple[int, int] = (2000, 1000),
    proposal_nms_iou: float = 0.7,
    rois: int = 512,
    roi_positive_fraction: float = 0.25,
    roi_cells: int = 7,
    roi_canonical_side: float = 224.0,
    difficult: str = "ignore",
    cascade: Callable[[FasterRCNN], nn.Module] | None = None,
) -> nn.Module:
    """Faster R-CNN with a feature pyramid on any backbone.

    Args:
        backbone: its levels of stride 4 and coarser are used.
        num_classes: K, without the background.
        width: channels of the pyramid.
        fpn_norm: "none" or "group"; see `transfer.heads.fpn.FPN`.
        head_width: of the box head's two layers.
        anchor_scales: sides of square anchors in strides.
        anchor_ratios: height / width.
        proposals_before_nms: a level and image, (training, test).
        proposals: an image after NMS, (training, test).
        proposal_nms_iou: threshold of that NMS.
        rois: regions an image that the box head trains on.
        roi_positive_fraction: share of positives among them at the most.
        roi_cells: cells a side of a pooled region.
        roi_canonical_side: pixels; a region of this side is read from the level of stride 16. Less suits small images.
        difficult: policy on difficult boxes in the sampling of regions; give the RPN's criterion the same.
        cascade: `transfer.heads.cascade.Cascade` makes several second stages of the one; None: one.
    Returns:
        A `FasterRCNN`, or what `cascade` makes of it.
    """
    check_sizes(num_classes, width=width, head_width=head_width, roi_cells=roi_cells)
    neck = FPN(backbone.channels, backbone.strides, width=width, norm=fpn_norm)
    generator = AnchorGenerator(neck.strides, scales=anchor_scales, ratios=anchor_ratios)
    detector = FasterRCNN(
        backbone=backbone,
        neck=neck,
        anchor_generator=generator,
        rpn_head=RPNHead(width, generator.anchors_per_cell),
        proposer=Proposer(before_nms=proposals_before_nms, after_nms=proposals, nms_iou=proposal_nms_iou),
        sampler=RegionSampler(count=rois, positive_fraction=roi_positive_fraction, difficult=difficult),
        roi_pool=PyramidRoIAlign(neck.backbone_strides, output_size=roi_cells, canonical_side=roi_canonical_side),
        box_head=TwoLayerHead(width, roi_cells, width=head_width),
        predictor=BoxPredictor(head_width, num_classes),
    )
    return detector if cascade is None else cascade(detector)


def check_sizes(num_classes: int, **sizes: int | None) -> None:
    """Raises: UserError naming every argument of a builder that is no whole number above 0; None is a builder's own."""
    problems = [
        f"model.{name}={value!r} must be a whole number above 0"
        for name, value in sizes.items()
        if value is not None and (type(value) is not int or value < 1)
    ]
    if num_classes < 1:
        problems.append(f"num_classes={num_classes}: a detector needs at least one class")
    if problems:
        raise UserError("; ".join(problems))
