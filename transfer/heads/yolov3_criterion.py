"""The losses of YOLOv3.

Source: YOLOv3 (Redmon and Farhadi 2018, arXiv 1804.02767, section 2.1) as Bag of Freebies (Zhang et al. 2019, arXiv
1902.04103) trains it, read in GluonCV's code. Each truth box has one slot: the anchor nearest in shape among all
levels, in the cell of its centre. That slot is a positive; of the others, those whose decoded box overlaps any truth
box by more than 0.7 are ignored, the rest are negatives. Losses are summed over slots, coordinates and classes and
divided by the number of images, as in GluonCV (its losses undo the mean over an image, and its trainer divides by the
batch size); here it is the mean number of images over the processes, so that two processes equal one.

Mixup: a box's weight multiplies the objectness, box and class losses of its positive; negatives weigh 1 and the
normaliser stays unweighted. Where several boxes have one slot, it takes the box of the largest weight (of equal ones
the first, where GluonCV takes the last) and the classes of all, each class with its own box's weight.

`positive_iou` (off in the paper and in GluonCV; YOLOv4, Bochkovskiy et al. 2020, arXiv 2004.10934, section 3.4, does
likewise) gives a box further slots: of every anchor whose shape overlaps its own by more, in the cell of its centre.
A slot that is some box's own is never taken this way; of several boxes that want another one, the one of the largest
weight has it, then the one that fits it best.

Deviations: a slot whose cell holds no pixel of the image is no negative, so that the loss of an image does not depend
on how far its batch is padded (GluonCV pads nothing). Of a difficult box that is to be ignored, its slot and the slots
that overlap it by more than 0.7 are no negatives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transfer.heads.yolov3 import BOX, CLASSES, OBJECTNESS, YOLOv3Output
from transfer.losses.focal import BinaryLoss
from transfer.losses.iou import IOU_LOSSES, box_iou_loss
from transfer.ops.anchor_grid import Grid
from transfer.ops.matching import check_difficult, truth_for_training
from transfer.ops.world import mean_over_processes
from transfer.types import Target, UserError, is_number

BOX_LOSSES = ("paper", *IOU_LOSSES)
_UNFIT = 0.25
"""IoU of shapes that a box twice as wide and twice as high as its anchor has: below, none of the anchors fits."""
_PAIRS = 2**23
"""Slots times truth boxes that are compared at once: what bounds the memory of the ignore rule."""


@dataclass(slots=True)
class BatchTruth:
    """The boxes of a batch, one image after another."""

    boxes: Tensor
    """[M, 4] float32 xyxy."""
    labels: Tensor
    """[M] int64."""
    weights: Tensor
    """[M] float32."""
    images: Tensor
    """[M] int64: which image of the batch each belongs to."""
    ignored: Tensor
    """[I, 4] float32 xyxy: regions that are neither object nor background."""
    ignored_images: Tensor
    """[I] int64."""

    def and_again(self, rows: Tensor) -> BatchTruth:
        """With the boxes `rows`, [E] int64, a second time at the end."""
        parts = (self.boxes, self.labels, self.weights, self.images)
        boxes, labels, weights, images = (torch.cat([part, part[rows]]) for part in parts)
        return BatchTruth(boxes, labels, weights, images, self.ignored, self.ignored_images)


@dataclass(slots=True)
class Assignment:
    """What the slots of a batch are to be taught; P positives in the order of their slots."""

    positives: Tensor
    """[P] int64 into the B * N slots of the batch, ascending, each once."""
    negatives: Tensor
    """[B * N] bool."""
    boxes: Tensor
    """[P, 4] float32 xyxy."""
    images: Tensor
    """[P] int64."""
    weights: Tensor
    """[P] float32: the box's."""
    classes: Tensor
    """[P, K] bool."""
    class_weights: Tensor
    """[P, K] float32: for each class of the slot the weight of its box; elsewhere that of the slot."""


class YOLOv3Criterion:
    """Objectness, box and class losses.

    Args:
        box_loss: "paper": cross entropy of sigmoid(tx), sigmoid(ty) with the centre's offsets in its cell and L1 on tw,
            th, both times 2 - (share of the image that the box covers), as `loss_center` and `loss_size`; or "iou",
            "giou", "diou", "ciou", "cdiou" of the decoded box, as `loss_box`, without that factor: they are relative to
            the box's size already.
        box_weight: factor on the box losses.
        objectness_loss: "bce" or "focal".
        class_loss: "bce" or "focal".
        focal_alpha, focal_gamma: of the focal losses.
        label_smoothing: classes are taught 1 - s and s instead of 1 and 0, with s = min(1 / K, 1 / 40).
        positive_iou: a box is also taught to the slots of anchors whose shape has more than this IoU with its own, in
            the cell of its centre; None: to the nearest anchor's alone, as in the paper.
        ignore_iou: a slot whose box overlaps a truth box by more than this is no negative.
        difficult: "ignore", "train" or "drop"; see `transfer.ops.matching.truth_for_training`.
    """

    def __init__(
        self,
        *,
        box_loss: str = "paper",
        box_weight: float = 1.0,
        objectness_loss: Literal["bce", "focal"] = "bce",
        class_loss: Literal["bce", "focal"] = "bce",
        focal_alpha: float | None = 0.25,
        focal_gamma: float = 2.0,
        label_smoothing: bool = False,
        positive_iou: float | None = None,
        ignore_iou: float = 0.7,
        difficult: str = "ignore",
    ) -> None:
        problems = []
        if box_loss not in BOX_LOSSES:
            problems.append(f"box_loss={box_loss!r} is none of {', '.join(BOX_LOSSES)}")
        if not is_number(box_weight) or not box_weight > 0:
            problems.append(f"box_weight={box_weight!r} must be a number above 0")
        if not isinstance(label_smoothing, bool):
            problems.append(
                f"label_smoothing={label_smoothing!r} must be True or False: how much follows from the classes' number"
            )
        if positive_iou is not None and (not is_number(positive_iou) or not 0 < positive_iou < 1):
            problems.append(f"positive_iou={positive_iou!r} must be a number in (0, 1), or None")
        if not is_number(ignore_iou) or not 0 < ignore_iou <= 1:
            problems.append(f"ignore_iou={ignore_iou!r} must be a number in (0, 1]")
        if problems:
            raise UserError("YOLOv3Criterion: " + "; ".join(problems))
        self.box_loss, self.box_weight = box_loss, box_weight
        self.objectness_loss = BinaryLoss(objectness_loss, name="objectness_loss", alpha=focal_alpha, gamma=focal_gamma)
        self.class_loss = BinaryLoss(class_loss, name="class_loss", alpha=focal_alpha, gamma=focal_gamma)
        self.label_smoothing, self.positive_iou, self.ignore_iou = label_smoothing, positive_iou, ignore_iou
        self.difficult = check_difficult(difficult)

    def __call__(self, output: YOLOv3Output, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Args: the model's output and the targets of its images. Returns: scalar losses named `loss_*`."""
        assigned = self.assign(output, targets)
        positives = output.raw.flatten(0, 1)[assigned.positives]  # [P, 5 + K]
        positives = positives.float() if positives.element_size() < 4 else positives
        losses = {
            "loss_objectness": self._objectness(output.raw[..., OBJECTNESS].flatten(), assigned),
            **self._box(positives[:, BOX], assigned, output.grid, targets),
            "loss_class": self._classes(positives[:, CLASSES], assigned),
        }
        images = mean_over_processes(len(targets), output.raw.device)
        return {name: loss / images for name, loss in losses.items()}

    def expected_first_losses(
        self, model: nn.Module, output: YOLOv3Output, targets: Sequence[Target]
    ) -> dict[str, float]:
        """Losses of an untrained head: every slot's objectness at the prior, its other numbers zero.

        See `transfer.preflight.first_loss` for the arguments. Of N slots with P positives an image it is about
        -N ln(1 - p) - P ln p for the objectness, P K ln 2 for the classes.
        """
        prior = model.head.objectness_prior  # type: ignore[union-attr]
        raw = torch.zeros_like(output.raw)
        raw[..., OBJECTNESS] = math.log(prior / (1 - prior))  # type: ignore[operator, arg-type]
        return {name: float(loss) for name, loss in self(replace(output, raw=raw), targets).items()}

    def anchor_fit(self, output: YOLOv3Output, targets: Sequence[Target]) -> tuple[Tensor, float]:
        """How well the anchors' shapes fit the boxes that are learnt from; see `transfer.preflight.anchors`.

        Args:
            output: of the model; its grid's shapes are asked.
            targets: of any images.
        Returns:
            [M] IoU of each box's shape with the nearest anchor's, and what a box twice as wide and high has.
        """
        boxes = torch.cat([truth_for_training(target, self.difficult).boxes for target in targets])
        return output.grid.fit(boxes).amax(dim=1), _UNFIT

    @torch.no_grad()
    def assign(self, output: YOLOv3Output, targets: Sequence[Target]) -> Assignment:
        """Which slots are positive, for what, and which are negative."""
        truth = once = self._truth(targets)
        count, classes = len(output.grid.slots), output.raw.shape[2] - CLASSES.start
        slots = truth.images * count + output.grid.slot_of(truth.boxes)  # [M]
        if self.positive_iou is not None:
            more, rows = self._further_slots(once, output.grid, slots)
            slots, truth = torch.cat([slots, more]), once.and_again(rows)
        order = torch.argsort(truth.weights, descending=True, stable=True)
        order = order[torch.argsort(slots[order], stable=True)]  # by slot, the largest weight first
        slots = slots[order]
        is_first = _is_first(slots)
        winners, positives = order[is_first], slots[is_first]  # [P]
        place = (torch.cumsum(is_first, 0) - 1) * classes + truth.labels[order]  # in [P * K]
        own = truth.weights.new_zeros(len(winners) * classes)
        own = own.scatter_reduce(0, place, truth.weights[order], "amax").view(-1, classes)
        weights = truth.weights[winners]
        return Assignment(
            positives=positives,
            negatives=self._negatives(output, targets, once, positives),
            boxes=truth.boxes[winners],
            images=truth.images[winners],
            weights=weights,
            classes=own > 0,
            class_weights=torch.where(own > 0, own, weights[:, None]),
        )

    def _further_slots(self, truth: BatchTruth, grid: Grid, own: Tensor) -> tuple[Tensor, Tensor]:
        """Slots of other anchors that fit: [E] int64, each once and none of `own`; and [E] whose box each is."""
        assert self.positive_iou is not None
        fit = grid.fit(truth.boxes)  # [M, A]
        rows, anchors = torch.nonzero(fit > self.positive_iou, as_tuple=True)
        slots = truth.images[rows] * len(grid.slots) + grid.slot_at(truth.boxes[rows], anchors)
        free = ~torch.isin(slots, own)
        rows, slots, fits = rows[free], slots[free], fit[rows, anchors][free]
        order = torch.argsort(fits, descending=True, stable=True)
        order = order[torch.argsort(truth.weights[rows[order]], descending=True, stable=True)]
        order = order[torch.argsort(slots[order], stable=True)]  # by slot, then weight, then fit
        slots, rows = slots[order], rows[order]
        first = _is_first(slots)
        return slots[first], rows[first]

    def _truth(self, targets: Sequence[Target]) -> BatchTruth:
        parts = [truth_for_training(target, self.difficult) for target in targets]
        numbers = torch.arange(len(parts), device=targets[0].boxes.device)

        def images(counts: list[int]) -> Tensor:
            return numbers.repeat_interleave(torch.tensor(counts, device=numbers.device), output_size=sum(counts))

        return BatchTruth(
            boxes=torch.cat([part.boxes for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
            weights=torch.cat([part.weights for part in parts]),
            images=images([len(part.boxes) for part in parts]),
            ignored=torch.cat([part.ignored for part in parts]),
            ignored_images=images([len(part.ignored) for part in parts]),
        )

    def _negatives(
        self, output: YOLOv3Output, targets: Sequence[Target], truth: BatchTruth, positives: Tensor
    ) -> Tensor:
        """[B * N] bool: neither positive, nor ignored, nor on padding."""
        grid = output.grid
        negatives = grid.slots.on_image([target.size for target in targets])  # [B, N]
        regions, images = torch.cat([truth.boxes, truth.ignored]), torch.cat([truth.images, truth.ignored_images])
        if len(regions):
            predicted = grid.slots.decode(output.raw[..., BOX])  # [B, N, 4]
            negatives &= ~overlaps(predicted, regions, images, self.ignore_iou)
        negatives = negatives.flatten()
        negatives[positives] = False
        negatives[truth.ignored_images * len(grid.slots) + grid.slot_of(truth.ignored)] = False
        return negatives

    def _objectness(self, logits: Tensor, assigned: Assignment) -> Tensor:
        weights = assigned.negatives.float()
        wanted = torch.zeros_like(weights)
        weights[assigned.positives], wanted[assigned.positives] = assigned.weights, 1.0
        return (self.objectness_loss(logits, wanted) * weights).sum()

    def _box(self, raw: Tensor, assigned: Assignment, grid: Grid, targets: Sequence[Target]) -> dict[str, Tensor]:
        slots = grid.slots.take(assigned.positives % len(grid.slots))
        weights = assigned.weights * self.box_weight
        if self.box_loss != "paper":
            losses = box_iou_loss(self.box_loss, slots.decode(raw), assigned.boxes)
            return {"loss_box": (losses * weights).sum()}
        areas = torch.tensor([target.size[0] * target.size[1] for target in targets], device=raw.device)
        sides = assigned.boxes[:, 2:] - assigned.boxes[:, :2]
        weights = weights * (2 - sides.prod(dim=1) / areas[assigned.images])
        offsets, log_sides = slots.encode(assigned.boxes)
        center = F.binary_cross_entropy_with_logits(raw[:, :2], offsets.to(raw.dtype), reduction="none").sum(dim=1)
        size = (raw[:, 2:] - log_sides).abs().sum(dim=1)
        return {"loss_center": (center * weights).sum(), "loss_size": (size * weights).sum()}

    def _classes(self, logits: Tensor, assigned: Assignment) -> Tensor:
        wanted = assigned.classes.float()
        if self.label_smoothing:
            smoothing = min(1 / max(1, logits.shape[1]), 1 / 40)
            wanted = torch.where(assigned.classes, 1 - smoothing, smoothing)
        return (self.class_loss(logits, wanted) * assigned.class_weights).sum()


def _is_first(ordered: Tensor) -> Tensor:
    """[N] bool: where a new value begins, in [N] ordered ones."""
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return is_first


def overlaps(boxes: Tensor, regions: Tensor, images: Tensor, threshold: float) -> Tensor:
    """Which boxes overlap a region of their image by more than a threshold.

    Args:
        boxes: [B, N, 4] xyxy.
        regions: [M, 4] xyxy.
        images: [M] int64, whose region each is.
        threshold: an IoU.
    Returns:
        [B, N] bool.
    """
    found = torch.zeros(boxes.shape[:2], device=boxes.device)
    left, top, right, bottom = boxes.unbind(dim=2)  # [B, N]
    areas = (right - left) * (bottom - top)
    step = max(1, _PAIRS // max(1, boxes.shape[1]))
    for part, image in zip(regions.split(step), images.split(step)):
        x0, y0, x1, y1 = part[:, :, None].unbind(dim=1)  # [m, 1]
        widths = (torch.minimum(right[image], x1) - torch.maximum(left[image], x0)).clamp_(min=0)  # [m, N]
        heights = (torch.minimum(bottom[image], y1) - torch.maximum(top[image], y0)).clamp_(min=0)
        intersection = widths.mul_(heights)
        union = areas[image] + (x1 - x0) * (y1 - y0) - intersection
        found.index_add_(0, image, (intersection > threshold * union).float())
    return found > 0
