"""Cascade R-CNN: several second stages in a row, each taught on the boxes of the one before at a higher overlap.

Source: Cai and Vasconcelos 2018, Cascade R-CNN (arXiv 1712.00726), section 4, and the authors' released networks. Three
stages at IoU 0.5, 0.6, 0.7; one set of box deltas for all classes; codes (10, 10, 5, 5), twice and three times that;
losses weighted 1, 1/2, 1/4. Between stages nothing is drawn: all decoded boxes of the stage before are labelled anew at
the higher IoU (the resampling of the paper), together with the truth boxes, as in the first stage. In test, every
stage's classifier is asked about the last stage's regions, and the probabilities are averaged.

Here: boxes that a stage made degenerate are dropped; those it made of truth boxes stay among the regions. The authors
train the heads of stages 2 and 3 at two and four times the lr, which undoes the loss weights there and not in the
backbone: `lr_factors={"stages.1": 2, "stages.2": 4}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.heads.box_head import BoxCode, BoxCriterion, BoxPredictor, RegionSampler, RegionTargets
from transfer.heads.faster_rcnn import FasterRCNN, FasterRCNNOutput
from transfer.heads.rpn import Proposer, RPNCriterion, propose
from transfer.ops.anchors import AnchorGenerator
from transfer.ops.boxes import clip_boxes, decode_boxes
from transfer.types import Size, Target, UserError, is_number


@dataclass(slots=True)
class StageOutput:
    """Raw outputs of one second stage."""

    regions: list[Tensor]
    """[R_b, 4] an image."""
    class_logits: Tensor
    """[R, K + 1], background last, images one after another."""
    box_deltas: Tensor
    """[R, 1, 4]."""
    region_targets: RegionTargets | None
    """What the regions are to be taught; None in test."""
    box_code: BoxCode
    """Of the box deltas."""


@dataclass(slots=True)
class CascadeOutput(FasterRCNNOutput):
    """What `FasterRCNNOutput` holds is here of the last stage; in test, its logits are of the mean probabilities."""

    stages: list[StageOutput] = field(default_factory=list)
    """Of all second stages, in their order."""


class CascadeStage(nn.Module):
    """One second stage.

    Args:
        sampler: says what the regions are taught.
        box_head: [R, C, h, w] -> [R, D].
        predictor: [R, D] -> logits [R, K + 1], deltas [R, 1, 4].
        code: of the deltas.
    """

    def __init__(self, sampler: RegionSampler, box_head: nn.Module, predictor: nn.Module, code: BoxCode) -> None:
        super().__init__()
        self.sampler, self.box_head, self.predictor, self.code = sampler, box_head, predictor, code

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Args: pooled regions [R, C, h, w]. Returns: logits [R, K + 1] and deltas [R, 1, 4]."""
        return self.predictor(self.box_head(pooled))


class CascadeRCNN(nn.Module):
    """A detector with several second stages, from built parts.

    Args:
        backbone, neck, anchor_generator, rpn_head, proposer, roi_pool: as of `FasterRCNN`.
        stages: the second stages, in their order.
        min_side: a decoded box with a shorter side does not reach the next stage, in pixels.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: nn.Module,
        anchor_generator: AnchorGenerator,
        rpn_head: nn.Module,
        proposer: Proposer,
        roi_pool: nn.Module,
        stages: Sequence[CascadeStage],
        *,
        min_side: float = 1.0,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.rpn_head, self.roi_pool = backbone, neck, rpn_head, roi_pool
        self.stages: Sequence[CascadeStage] = nn.ModuleList(stages)  # type: ignore[assignment]  # iterates as one
        self.anchor_generator, self.proposer, self.min_side = anchor_generator, proposer, min_side

    def forward(self, images: Tensor, sizes: Sequence[Size], targets: Sequence[Target] | None = None) -> CascadeOutput:
        """Raw outputs of all stages.

        Args:
            images: [B, 3, H, W] uint8.
            sizes: (height, width) of each image's valid part.
            targets: given in training, to label regions; read for nothing else.
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
        regions = rpn.proposals
        outputs: list[StageOutput] = []
        for stage in self.stages:
            if outputs:
                regions = refine(outputs[-1], sizes, min_side=self.min_side)
            region_targets = None
            if targets is not None:
                regions, region_targets = stage.sampler(regions, targets)
            pooled = self.roi_pool(maps, regions)
            logits, deltas = stage(pooled)
            outputs.append(StageOutput(regions, logits, deltas, region_targets, stage.code))
        last = outputs[-1]
        return CascadeOutput(
            objectness=rpn.objectness,
            anchor_deltas=rpn.deltas,
            anchors=rpn.anchors,
            regions=last.regions,
            class_logits=last.class_logits if targets is not None else self._mean_logits(pooled, last.class_logits),
            box_deltas=last.box_deltas,
            region_targets=last.region_targets,
            box_code=last.box_code,
            stages=outputs,
        )

    def _mean_logits(self, pooled: Tensor, last: Tensor) -> Tensor:
        """Logits of the mean over all stages of the class probabilities of the last stage's regions, [R, K + 1]."""
        logits = [*(stage(pooled)[0] for stage in list(self.stages)[:-1]), last]
        return torch.stack([F.softmax(x.float(), dim=1) for x in logits]).mean(dim=0).log()


@torch.no_grad()
def refine(output: StageOutput, sizes: Sequence[Size], *, min_side: float) -> list[Tensor]:
    """The boxes a stage has made of its regions, clipped; degenerate ones dropped; no gradient flows through them.

    Args:
        output: of the stage.
        sizes: of each image's valid part.
        min_side: a box with a shorter side is dropped, in pixels.
    Returns:
        One [P, 4] float32 xyxy tensor an image.
    """
    counts = [len(x) for x in output.regions]
    refined = []
    for regions, deltas, size in zip(output.regions, output.box_deltas[:, 0].split(counts), sizes):
        boxes = clip_boxes(decode_boxes(deltas, regions, output.box_code), size)
        refined.append(boxes[((boxes[:, 2:] - boxes[:, :2]) >= min_side).all(dim=1)])
    return refined


class Cascade:
    """Makes a `CascadeRCNN` of a `FasterRCNN`, whatever its backbone, neck and box head.

    The first stage takes over the box head; each later one gets another of the same kind: fully connected layers with
    random values, a backbone's tail (C4) with a copy of the pretrained ones. `rois` and `roi_positive_fraction` hold
    for the first stage.

    Args:
        ious: from which on a region is positive, a stage each.
        codes: factors of the box deltas, a stage each.
    """

    def __init__(
        self,
        *,
        ious: Sequence[float] = (0.5, 0.6, 0.7),
        codes: Sequence[Sequence[float]] = ((10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15)),
    ) -> None:
        problems = [
            f"ious={list(ious)}: {iou!r} must be a number in (0, 1]"
            for iou in ious
            if not is_number(iou) or not 0 < iou <= 1
        ]
        problems += [
            f"codes: {code!r} must be four numbers above 0"
            for code in codes
            if len(code) != 4 or not all(is_number(factor) and factor > 0 for factor in code)
        ]
        if not ious or len(ious) != len(codes):
            problems.append(f"{len(ious)} ious and {len(codes)} codes: give one of each a stage")
        if problems:
            raise UserError("Cascade: " + "; ".join(problems))
        self.ious = tuple(float(iou) for iou in ious)
        self.codes: tuple[BoxCode, ...] = tuple((float(x), float(y), float(w), float(h)) for x, y, w, h in codes)

    def __call__(self, detector: FasterRCNN) -> CascadeRCNN:
        """Args: a detector just built; its parts go over into the result."""
        first, predictor = detector.sampler, detector.predictor
        heads = [detector.box_head, *(detector.box_head.another() for _ in self.ious[1:])]  # type: ignore[operator]
        stages = [
            CascadeStage(
                RegionSampler(
                    count=None if number else first.count,
                    positive_fraction=first.positive_fraction,
                    iou=iou,
                    difficult=first.difficult,
                ),
                head,
                BoxPredictor(predictor.width, predictor.num_classes, class_agnostic=True),  # type: ignore[arg-type]
                code,
            )
            for number, (head, iou, code) in enumerate(zip(heads, self.ious, self.codes))
        ]
        return CascadeRCNN(
            backbone=detector.backbone,
            neck=detector.neck,
            anchor_generator=detector.anchor_generator,
            rpn_head=detector.rpn_head,
            proposer=detector.proposer,
            roi_pool=detector.roi_pool,
            stages=stages,
        )


class CascadeCriterion:
    """The losses of the RPN, and of every second stage with its weight.

    Args:
        rpn: criterion of the first stage.
        box: criterion of every second stage.
        stage_weights: what each second stage's losses are multiplied by.
    """

    def __init__(
        self, *, rpn: RPNCriterion, box: BoxCriterion, stage_weights: Sequence[float] = (1.0, 0.5, 0.25)
    ) -> None:
        wrong = [weight for weight in stage_weights if not is_number(weight) or weight <= 0]
        if wrong or not stage_weights:
            raise UserError(f"CascadeCriterion: stage_weights={list(stage_weights)} must be numbers above 0, not empty")
        self.rpn, self.box, self.stage_weights = rpn, box, tuple(stage_weights)

    def check_model(self, model: nn.Module) -> None:
        """Raises: UserError where the model is of another kind, or does not fit these weights or the RPN's policy."""
        if not isinstance(model, CascadeRCNN):
            raise UserError(
                f"criterion: CascadeCriterion does not fit a {type(model).__name__}: give "
                "model.cascade=dict(type=transfer.heads.cascade.Cascade), or FasterRCNNCriterion"
            )
        problems = []
        if len(model.stages) != len(self.stage_weights):
            problems.append(
                f"model.cascade has {len(model.stages)} stages and criterion.stage_weights {len(self.stage_weights)}"
            )
        policies = {stage.sampler.difficult for stage in model.stages} - {self.rpn.difficult}
        if policies:
            problems.append(
                f"model.difficult={policies.pop()!r} and criterion.rpn.difficult={self.rpn.difficult!r}: all stages "
                "need the same policy on difficult boxes"
            )
        if problems:
            raise UserError("; ".join(problems))

    def __call__(self, output: CascadeOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Args: the model's output in training, and its targets. Returns: scalar losses named `loss_*`."""
        objectness, anchor_box = self.rpn(output.objectness, output.anchor_deltas, output.anchors, targets)
        losses = {"loss_rpn_objectness": objectness, "loss_rpn_box": anchor_box}
        for number, (stage, weight) in enumerate(zip(output.stages, self.stage_weights), start=1):
            assert stage.region_targets is not None, "the criterion needs an output made with targets"
            classes, box = self.box(
                stage.class_logits, stage.box_deltas, stage.regions, stage.region_targets, code=stage.box_code
            )
            losses[f"loss_class_{number}"] = weight * classes
            losses[f"loss_box_{number}"] = weight * box
        return losses

    def expected_first_losses(
        self, model: nn.Module, output: CascadeOutput, targets: Sequence[Target]
    ) -> dict[str, float]:
        """As of `FasterRCNNCriterion`; those of each second stage times its weight."""
        untrained = replace(
            output,
            objectness=torch.zeros_like(output.objectness),
            anchor_deltas=torch.zeros_like(output.anchor_deltas),
            stages=[
                replace(
                    stage,
                    class_logits=torch.zeros_like(stage.class_logits),
                    box_deltas=torch.zeros_like(stage.box_deltas),
                )
                for stage in output.stages
            ],
        )
        return {name: float(loss) for name, loss in self(untrained, targets).items()}

    def anchor_fit(self, output: CascadeOutput, targets: Sequence[Target]) -> tuple[Tensor, float]:
        """See `transfer.heads.rpn.RPNCriterion.anchor_fit`."""
        return self.rpn.anchor_fit(output.anchors, targets)
