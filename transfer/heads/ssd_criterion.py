"""The losses of SSD.

Source: SSD (Liu et al. 2016, arXiv 1512.02325, section 2.2). Each truth box first gets the default box that overlaps it
most, each one its own; then every other default box answers for the truth box it overlaps most, if by an IoU of 0.5 (of
0.5 and more, as in torchvision; the paper says more than 0.5). Those are the positives; of the rest, the three times as
many of the same image whose background loss is highest are its negatives (hard negative mining). The class loss,
softmax cross entropy, is summed over both; the box loss, smooth L1 on the four offsets, over the positives; both are
divided by the number of positives of the batch, here by its mean over the processes, so that two processes equal one.
An image without positives has no negatives: it teaches nothing, as in the paper.

Mixup: a box's weight multiplies the class and box losses of its positives; negatives weigh 1, and neither their number
nor the normaliser depends on weights.

Label smoothing is not the paper's: e goes evenly to the K + 1 classes, background included, for positives and negatives
alike. Which negatives are hardest is decided without it: smoothed, a box that is very surely background counts as hard.

Deviations: default boxes whose cell holds no pixel of the image are neither, so that the loss of an image does not
depend on how far its batch is padded. Of a difficult box that is to be ignored, the default box that overlaps it most
and those that overlap it by 0.5 and more are no negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transfer.heads.ssd import BOX_CODE, SSDOutput
from transfer.losses.soft_targets import soft_cross_entropy
from transfer.ops.boxes import encode_boxes, pairwise_iou
from transfer.ops.matching import NEGATIVE, NEITHER, Truth, check_difficult, match, truth_for_training
from transfer.ops.world import mean_over_processes
from transfer.types import Target, UserError, is_number

_UNFIT = 0.25
"""IoU of concentric boxes, one twice as wide and high as the other."""


@dataclass(slots=True)
class SSDAssignment:
    """What the default boxes of a batch are to be taught; P positives in the order of their places."""

    positives: Tensor
    """[P] int64 into the B * N default boxes of the batch, ascending, each once."""
    possible_negatives: Tensor
    """[B, N] bool: neither positive, nor ignored, nor on padding."""
    counts: Tensor
    """[B] int64: positives of each image."""
    boxes: Tensor
    """[P, 4] float32 xyxy."""
    labels: Tensor
    """[P] int64."""
    weights: Tensor
    """[P] float32."""


class SSDCriterion:
    """Class and box losses.

    Args:
        iou: from which overlap on a default box answers for a truth box.
        negatives_per_positive: of an image, at the most.
        box_weight: factor on the box loss (the paper's alpha).
        label_smoothing: e in [0, 1), see the module's docstring.
        difficult: "ignore", "train" or "drop"; see `transfer.ops.matching.truth_for_training`.
    """

    def __init__(
        self,
        *,
        iou: float = 0.5,
        negatives_per_positive: int = 3,
        box_weight: float = 1.0,
        label_smoothing: float = 0.0,
        difficult: str = "ignore",
    ) -> None:
        problems = []
        if not is_number(iou) or not 0 < iou <= 1:
            problems.append(f"iou={iou!r} must be a number in (0, 1]")
        if type(negatives_per_positive) is not int or negatives_per_positive < 1:
            problems.append(f"negatives_per_positive={negatives_per_positive!r} must be a whole number above 0")
        if not is_number(box_weight) or not box_weight > 0:
            problems.append(f"box_weight={box_weight!r} must be a number above 0")
        if not is_number(label_smoothing) or not 0 <= label_smoothing < 1:
            problems.append(f"label_smoothing={label_smoothing!r} must be a number in [0, 1)")
        if problems:
            raise UserError("SSDCriterion: " + "; ".join(problems))
        self.iou, self.negatives_per_positive = iou, negatives_per_positive
        self.box_weight, self.label_smoothing = box_weight, label_smoothing
        self.difficult = check_difficult(difficult)

    def expected_first_losses(self, model: nn.Module, output: SSDOutput, targets: Sequence[Target]) -> dict[str, float]:
        """Losses of an untrained head: equal logits, offsets of zero; see `transfer.preflight.first_loss`."""
        untrained = replace(output, logits=torch.zeros_like(output.logits), deltas=torch.zeros_like(output.deltas))
        return {name: float(loss) for name, loss in self(untrained, targets).items()}

    def anchor_fit(self, output: SSDOutput, targets: Sequence[Target]) -> tuple[Tensor, float]:
        """How well the default boxes fit the boxes that are learnt from; see `transfer.preflight.anchors`.

        Args:
            output: of the model; its default boxes are asked.
            targets: of any images.
        Returns:
            [M] IoU of each box with its best default box, and the least that fits: of a box twice as wide and high.
            Below `iou`, but above that, a box still has its best default box to itself.
        """
        boxes = [truth_for_training(target, self.difficult).boxes for target in targets]
        best = [pairwise_iou(part, output.default_boxes.boxes).amax(dim=1) for part in boxes if len(part)]
        return torch.cat([output.default_boxes.boxes.new_zeros(0), *best]), _UNFIT

    def __call__(self, output: SSDOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Args: the model's output and the targets of its images. Returns: scalar losses named `loss_*`."""
        assigned = self.assign(output, targets)
        negatives = hardest_negatives(
            output.logits.detach(), assigned.possible_negatives, assigned.counts * self.negatives_per_positive
        )
        losses = {
            "loss_class": self._classes(output.logits, assigned, negatives),
            "loss_box": self._box(output, assigned),
        }
        positives = mean_over_processes(len(assigned.positives), output.logits.device)
        positives = torch.where(positives > 0, positives, 1.0)  # without any, both sums are zero
        return {name: loss / positives for name, loss in losses.items()}

    @torch.no_grad()
    def assign(self, output: SSDOutput, targets: Sequence[Target]) -> SSDAssignment:
        """Which default boxes are positive, for what, and which may be negative."""
        defaults = output.default_boxes
        on_image = defaults.on_image([target.size for target in targets])  # [B, N]
        truths = [truth_for_training(target, self.difficult) for target in targets]
        matches = torch.stack([self._match(defaults.boxes, here, truth) for here, truth in zip(on_image, truths)])
        is_positive = matches >= 0
        chosen = [(truth, found[positive]) for truth, found, positive in zip(truths, matches, is_positive)]
        return SSDAssignment(
            positives=torch.nonzero(is_positive.flatten()).flatten(),
            possible_negatives=matches == NEGATIVE,
            counts=is_positive.sum(dim=1),
            boxes=torch.cat([truth.boxes[index] for truth, index in chosen]),
            labels=torch.cat([truth.labels[index] for truth, index in chosen]),
            weights=torch.cat([truth.weights[index] for truth, index in chosen]),
        )

    def _match(self, boxes: Tensor, on_image: Tensor, truth: Truth) -> Tensor:
        """[N] int64, as from `match`; NEITHER on padding."""
        matches = torch.full((len(boxes),), NEITHER, dtype=torch.int64, device=boxes.device)
        matches[on_image] = match(boxes[on_image], truth, high=self.iou, low=self.iou, own_for_each_truth=True)
        return matches

    def _classes(self, logits: Tensor, assigned: SSDAssignment, negatives: Tensor) -> Tensor:
        rows = torch.cat([assigned.positives, torch.nonzero(negatives.flatten()).flatten()])
        others = len(rows) - len(assigned.positives)
        background = assigned.labels.new_full((others,), logits.shape[2] - 1)
        chosen = logits.flatten(0, 1)[rows]
        return soft_cross_entropy(
            chosen.float() if chosen.element_size() < 4 else chosen,
            torch.cat([assigned.labels, background]),
            smoothing=self.label_smoothing,
            weights=torch.cat([assigned.weights, assigned.weights.new_ones(others)]),
        )

    def _box(self, output: SSDOutput, assigned: SSDAssignment) -> Tensor:
        references = output.default_boxes.boxes[assigned.positives % len(output.default_boxes)]
        wanted = encode_boxes(assigned.boxes, references, BOX_CODE)
        deltas = output.deltas.flatten(0, 1)[assigned.positives]
        deltas = deltas.float() if deltas.element_size() < 4 else deltas
        distances = F.smooth_l1_loss(deltas, wanted.to(deltas.dtype), reduction="none").sum(dim=1)  # [P]
        return (distances * (assigned.weights * self.box_weight)).sum()


def hardest_negatives(logits: Tensor, possible: Tensor, counts: Tensor) -> Tensor:
    """Of each image, the default boxes that are least surely background.

    Args:
        logits: [B, N, K + 1], background last.
        possible: [B, N] bool: which may be chosen.
        counts: [B] int64: how many at the most.
    Returns:
        [B, N] bool.
    """
    logits = logits.float() if logits.element_size() < 4 else logits
    hardness = (logits.logsumexp(dim=2) - logits[..., -1]).masked_fill(~possible, -torch.inf)
    order = hardness.argsort(dim=1, descending=True, stable=True)  # of equals the first
    ranks = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return possible & (ranks < counts[:, None])
