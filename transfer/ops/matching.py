"""Which truth box an anchor or a proposal answers for.

Source: Faster R-CNN (Ren et al. 2015, section 3.1.2): positive at or above the high threshold; also, where asked, the
best reference of each truth box (where it overlaps at all); negative below the low threshold; between the two, neither.
SSD (Liu et al. 2016, section 2.2) instead gives each truth box a reference of its own before the threshold, in the
released code by pairs of highest overlap.
`difficult` boxes that are to be ignored take the references that overlap them out of the negatives (VOC's rule for
scoring, applied to training).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transfer.ops.boxes import pairwise_iou
from transfer.types import Target, UserError

NEGATIVE = -1
NEITHER = -2

DIFFICULT_POLICIES = ("ignore", "train", "drop")


@dataclass(frozen=True, slots=True)
class Truth:
    """What a detector may learn from one image."""

    boxes: Tensor
    """[N, 4] float32 xyxy."""
    labels: Tensor
    """[N] int64."""
    weights: Tensor
    """[N] float32."""
    ignored: Tensor
    """[M, 4] float32 xyxy: regions that are neither object nor background."""


def check_difficult(policy: str) -> str:
    """The policy itself. Raises: UserError where it is none of `DIFFICULT_POLICIES`."""
    if policy not in DIFFICULT_POLICIES:
        raise UserError(f"difficult={policy!r} is not one of {', '.join(DIFFICULT_POLICIES)}")
    return policy


def truth_for_training(target: Target, difficult: str) -> Truth:
    """The boxes to learn from, after the policy on difficult ones.

    Args:
        target: truth of one image.
        difficult: "train": like any box; "drop": as if not there, so background; "ignore": neither.
    """
    if difficult == "train":
        return Truth(target.boxes, target.labels, target.weights, target.boxes[:0])
    easy = ~target.difficult
    ignored = target.boxes[target.difficult] if difficult == "ignore" else target.boxes[:0]
    return Truth(target.boxes[easy], target.labels[easy], target.weights[easy], ignored)


def match(
    references: Tensor,
    truth: Truth,
    *,
    high: float,
    low: float,
    best_for_each_truth: bool = False,
    own_for_each_truth: bool = False,
) -> Tensor:
    """The truth box of each reference.

    Args:
        references: [R, 4] xyxy anchors or proposals.
        truth: the boxes of the same image.
        high: IoU from which on a reference is positive.
        low: IoU below which a reference is negative, at most `high`.
        best_for_each_truth: the references of highest IoU with a truth box are positive, too, if that IoU is above 0;
            they answer for whichever box they overlap most.
        own_for_each_truth: each truth box gets one reference, which answers for it whatever else it overlaps: the pair
            of highest IoU first, then the best one of what is left, while that IoU is above 0. Of each ignored region,
            the best reference is no negative.
    Returns:
        [R] int64: index into `truth.boxes`, NEGATIVE or NEITHER.
    """
    matches = torch.full((len(references),), NEGATIVE, dtype=torch.int64, device=references.device)
    if len(truth.boxes):
        iou = pairwise_iou(truth.boxes, references)  # [N, R]
        best_iou, best_truth = iou.max(dim=0)
        matches = torch.where(best_iou >= low, NEITHER, matches)
        matches = torch.where(best_iou >= high, best_truth, matches)
        if best_for_each_truth:
            best_of_truth = iou.amax(dim=1, keepdim=True)
            is_best = ((iou == best_of_truth) & (iou > 0)).any(dim=0)
            # A reference that is the best one of some truth box answers for the box it overlaps most.
            matches = torch.where(is_best, best_truth, matches)
        if own_for_each_truth:
            truths, own = one_to_one(iou)
            matches[own] = truths
    if len(truth.ignored):
        iou = pairwise_iou(truth.ignored, references)
        over_ignored = iou.amax(dim=0) >= low
        if own_for_each_truth:
            over_ignored[one_to_one(iou)[1]] = True
        matches = torch.where((matches == NEGATIVE) & over_ignored, NEITHER, matches)
    return matches


def one_to_one(iou: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of a truth box and a reference, none twice: the highest IoU first, then the highest of those left.

    Args:
        iou: [N, R].
    Returns:
        Indices of truth boxes and of references, [P] int64 each: one pair a truth box where there are references that
        overlap it and that no better pair took.
    """
    count = min(iou.shape)
    # As the others take one each, every truth box finds its own among its `count` best.
    rest, references = iou.topk(count, dim=1)  # [N, count]
    pairs = []
    for _ in range(count):
        place = rest.argmax()[None]
        truth, reference = place // count, references.flatten()[place]
        pairs.append(torch.cat([truth, reference, rest.flatten()[place] > 0]))
        rest = rest.index_fill(0, truth, -1.0).masked_fill(references == reference, -1.0)
    if not pairs:
        empty = torch.zeros(0, dtype=torch.int64, device=iou.device)
        return empty, empty
    truths, own, overlaps = torch.stack(pairs, dim=1)
    return truths[overlaps > 0], own[overlaps > 0]
