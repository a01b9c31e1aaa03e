"""Region proposal network: its head, its proposals, its criterion.

Source: Faster R-CNN (Ren et al. 2015, section 3.1). Deviations: proposals are kept per level before NMS, as FPN (Lin et
al. 2017) has it; anchors that cross the image's border are trained on, those centred on padding are not, so that an
image's sample does not depend on what it is batched with; the box loss is smooth L1 with beta 1/9 over the number of
sampled anchors, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transfer.ops.anchors import AnchorGenerator
from transfer.ops.boxes import centred_outside, clip_boxes, decode_boxes, encode_boxes, pairwise_iou
from transfer.ops.matching import NEITHER, check_difficult, match, truth_for_training
from transfer.ops.nms import nms_within_groups
from transfer.ops.sampling import sample_balanced
from transfer.ops.world import mean_over_processes
from transfer.types import Size, Target, UserError, is_number

ANCHOR_CODE = (1.0, 1.0, 1.0, 1.0)


class RPNHead(nn.Module):
    """One 3x3 convolution shared by an objectness and a delta branch, the same on every level.

    Args:
        width: channels of the maps.
        anchors_per_cell: A.
        hidden: channels of the 3x3 convolution's output; None: as many as the maps have.
    """

    def __init__(self, width: int, anchors_per_cell: int, *, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or width
        self.conv = nn.Conv2d(width, hidden, 3, padding=1)
        self.objectness = nn.Conv2d(hidden, anchors_per_cell, 1)
        self.deltas = nn.Conv2d(hidden, 4 * anchors_per_cell, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Args: maps [B, width, H, W]. Returns: logits [B, H*W*A] and deltas [B, H*W*A, 4] of each level."""
        logits, deltas = [], []
        for x in maps:
            x = F.relu(self.conv(x))
            logits.append(self.objectness(x).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.deltas(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4))
        return logits, deltas


class Proposer:
    """Turns RPN outputs into proposals; no gradient flows through them.

    Args:
        before_nms: proposals a level and image that enter NMS, (training, test).
        after_nms: proposals an image that are left, (training, test).
        nms_iou: suppression threshold.
        min_side: a proposal with a shorter side is dropped, in pixels.
    """

    def __init__(
        self,
        *,
        before_nms: tuple[int, int] = (2000, 1000),
        after_nms: tuple[int, int] = (2000, 1000),
        nms_iou: float = 0.7,
        min_side: float = 1.0,
    ) -> None:
        problems = [
            f"{name}={pair!r}: give two whole numbers above 0, (training, test)"
            for name, pair in (("proposals_before_nms", before_nms), ("proposals", after_nms))
            if not isinstance(pair, (list, tuple)) or len(pair) != 2 or any(type(n) is not int or n < 1 for n in pair)
        ]
        if not is_number(nms_iou) or not 0 < nms_iou <= 1:
            problems.append(f"proposal_nms_iou={nms_iou!r} must be a number in (0, 1]")
        if not is_number(min_side) or min_side < 0:
            problems.append(f"proposal_min_side={min_side!r} must be a number of pixels, 0 or more")
        if problems:
            raise UserError("proposals of the RPN: " + "; ".join(problems))
        self.before_nms, self.after_nms, self.nms_iou, self.min_side = before_nms, after_nms, nms_iou, min_side

    @torch.no_grad()
    def __call__(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        sizes: Sequence[Size],
        training: bool,
    ) -> list[Tensor]:
        """Proposals of each image.

        Args:
            logits, deltas: of each level, as `RPNHead` gives them.
            anchors: of each level, [H * W * A, 4].
            sizes: of each image's valid part: proposals are clipped to it.
            training: which of the two limits holds.
        Returns:
            One [P, 4] float32 xyxy tensor an image, best first.
        """
        before, after = self.before_nms[not training], self.after_nms[not training]
        boxes, scores, levels = [], [], []
        for level, (level_logits, level_deltas, level_anchors) in enumerate(zip(logits, deltas, anchors)):
            top_scores, top = level_logits.float().topk(min(before, level_logits.shape[1]), dim=1)  # [B, T]
            top_deltas = level_deltas.gather(1, top[..., None].expand(-1, -1, 4))  # [B, T, 4]
            decoded = decode_boxes(top_deltas.flatten(0, 1), level_anchors[top.flatten()], ANCHOR_CODE)
            boxes.append(decoded.view(*top.shape, 4))
            scores.append(top_scores)
            levels.append(torch.full_like(top, level))
        all_boxes, all_scores, all_levels = torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(levels, 1)
        proposals = []
        for image_boxes, image_scores, image_levels, size in zip(all_boxes, all_scores, all_levels, sizes):
            image_boxes = clip_boxes(image_boxes, size)
            kept = ((image_boxes[:, 2:] - image_boxes[:, :2]) >= self.min_side).all(dim=1) & image_scores.isfinite()
            image_boxes, image_scores, image_levels = image_boxes[kept], image_scores[kept], image_levels[kept]
            survivors = nms_within_groups(
                image_boxes, image_scores, image_levels, iou_threshold=self.nms_iou, limit=after
            )
            proposals.append(image_boxes[survivors])
        return proposals


@dataclass(slots=True)
class RPNOutput:
    """What the first stage gives, over all levels."""

    objectness: Tensor
    """[B, N] logits."""
    deltas: Tensor
    """[B, N, 4]."""
    anchors: Tensor
    """[N, 4]."""
    proposals: list[Tensor]
    """[P_b, 4] an image, best first, without gradient."""


def propose(
    maps: Sequence[Tensor],
    sizes: Sequence[Size],
    *,
    head: nn.Module,
    anchor_generator: AnchorGenerator,
    proposer: Proposer,
    training: bool,
) -> RPNOutput:
    """The first stage of a detector.

    Args:
        maps: [B, C, H_i, W_i] of each level.
        sizes: (height, width) of each image's valid part.
        head: gives logits and deltas of each level.
        anchor_generator: of the levels' strides.
        proposer: turns those into proposals.
        training: which of the proposer's limits hold.
    """
    logits, deltas = head(maps)
    anchors = anchor_generator([(int(x.shape[2]), int(x.shape[3])) for x in maps], maps[0].device)
    proposals = proposer(logits, deltas, anchors, sizes, training)
    return RPNOutput(torch.cat(logits, dim=1), torch.cat(deltas, dim=1), torch.cat(anchors), proposals)


class RPNCriterion:
    """Losses of the RPN: objectness (binary cross entropy) and box (smooth L1), on sampled anchors.

    A box's weight multiplies the losses of its positives; the normaliser, the number of sampled anchors, is unweighted.

    Args:
        count: anchors sampled an image.
        positive_fraction: share of positives among them at the most.
        high, low: IoU from which an anchor is positive, and below which it is negative.
        difficult: "ignore", "train" or "drop"; see `transfer.ops.matching.truth_for_training`.
        beta: where smooth L1 turns from square to linear.
        label_smoothing: eps in [0, 1): objectness is taught 1 - eps / 2 and eps / 2, the usual form for two classes.
    """

    def __init__(
        self,
        *,
        count: int = 256,
        positive_fraction: float = 0.5,
        high: float = 0.7,
        low: float = 0.3,
        difficult: str = "ignore",
        beta: float = 1 / 9,
        label_smoothing: float = 0.0,
    ) -> None:
        problems = [
            f"{name}={value!r} must be a number in [0, 1]"
            for name, value in (("positive_fraction", positive_fraction), ("high", high), ("low", low))
            if not is_number(value) or not 0 <= value <= 1
        ]
        if not problems and low > high:
            problems.append(f"low={low} is above high={high}")
        if not isinstance(count, int) or count < 1:
            problems.append(f"count={count!r} must be a whole number above 0")
        if not is_number(label_smoothing) or not 0 <= label_smoothing < 1:
            problems.append(f"label_smoothing={label_smoothing!r} must be in [0, 1)")
        if not is_number(beta) or beta <= 0:
            problems.append(f"beta={beta!r} must be a number above 0")
        if problems:
            raise UserError("RPNCriterion: " + "; ".join(problems))
        self.label_smoothing = label_smoothing
        self.count, self.positive_fraction, self.high, self.low = count, positive_fraction, high, low
        self.difficult, self.beta = check_difficult(difficult), beta

    def __call__(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, targets: Sequence[Target]
    ) -> tuple[Tensor, Tensor]:
        """The two losses of a batch.

        Args:
            logits: [B, N] over all levels.
            deltas: [B, N, 4].
            anchors: [N, 4].
            targets: of the B images.
        Returns:
            Objectness loss and box loss, scalars.
        """
        logits, deltas = logits.float(), deltas.float()
        objectness_loss, box_loss = logits.sum() * 0, deltas.sum() * 0  # keeps the graph where nothing is positive
        sampled = 0
        for image_logits, image_deltas, target in zip(logits, deltas, targets):
            truth = truth_for_training(target, self.difficult)
            matches = match(anchors, truth, high=self.high, low=self.low, best_for_each_truth=True)
            matches = torch.where(centred_outside(anchors, target.size), NEITHER, matches)
            positives, negatives = sample_balanced(
                matches, count=self.count, positive_fraction=self.positive_fraction, seed=target.seed
            )
            sampled += len(positives) + len(negatives)
            objectness_loss = objectness_loss + self._objectness(image_logits[negatives], positive=False).sum()
            if len(positives):
                matched = matches[positives]
                weights = truth.weights[matched]
                objectness_loss = (
                    objectness_loss + (self._objectness(image_logits[positives], positive=True) * weights).sum()
                )
                wanted = encode_boxes(truth.boxes[matched], anchors[positives], ANCHOR_CODE)
                distance = F.smooth_l1_loss(image_deltas[positives], wanted, beta=self.beta, reduction="none")
                box_loss = box_loss + (distance.sum(dim=1) * weights).sum()
        normalizer = mean_over_processes(sampled, logits.device).clamp(min=1)
        return objectness_loss / normalizer, box_loss / normalizer

    def anchor_fit(self, anchors: Tensor, targets: Sequence[Target]) -> tuple[Tensor, float]:
        """How well the anchors fit the boxes that are learnt from; see `transfer.preflight.anchors`.

        Every box has its best anchor as a positive, however little they overlap; below `low`, that anchor would be
        background otherwise, and the proposal made of it has far to go.

        Args:
            anchors: [N, 4].
            targets: of any images as large as the anchors' or smaller.
        Returns:
            [M] IoU of each box with its best anchor, and `low`.
        """
        boxes = [truth_for_training(target, self.difficult).boxes for target in targets]
        best = [pairwise_iou(of_image, anchors).amax(dim=1) for of_image in boxes if len(of_image)]
        return torch.cat([anchors.new_zeros(0), *best]), self.low

    def _objectness(self, logits: Tensor, *, positive: bool) -> Tensor:
        """Binary cross entropy of each logit with its smoothed target."""
        right = F.softplus(-logits if positive else logits)
        if self.label_smoothing == 0:
            return right
        wrong = F.softplus(logits if positive else -logits)
        return (1 - self.label_smoothing / 2) * right + self.label_smoothing / 2 * wrong
