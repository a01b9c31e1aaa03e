"""Suppression within groups against a plain loop and hand cases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from transfer.ops.boxes import pairwise_iou
from transfer.ops.nms import nms_within_groups


def greedy(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, limit: int) -> list[int]:
    """The definition, one box after another."""
    iou = pairwise_iou(boxes, boxes)
    kept: list[int] = []
    alive = torch.ones(len(boxes), dtype=torch.bool)
    for candidate in scores.argsort(descending=True, stable=True).tolist():
        if alive[candidate]:
            kept.append(candidate)
            alive &= ~((groups == groups[candidate]) & (iou[candidate] > iou_threshold))
    return kept[:limit]


def random_detections(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((count, 2), generator=generator) * 100
    boxes = torch.cat([corner, corner + 20 + 40 * torch.rand((count, 2), generator=generator)], dim=1)
    return boxes, torch.rand(count, generator=generator), torch.randint(0, 3, (count,), generator=generator)


@pytest.mark.parametrize("count", [1, 2, 50, 1500])  # beyond 1000 torchvision takes another way
@pytest.mark.parametrize("iou_threshold", [0.3, 0.7])
@pytest.mark.parametrize("limit", [7, 10_000])
def test_as_the_plain_loop(count: int, iou_threshold: float, limit: int) -> None:
    boxes, scores, groups = random_detections(count)
    found = nms_within_groups(boxes, scores, groups, iou_threshold=iou_threshold, limit=limit)
    assert found.tolist() == greedy(boxes, scores, groups, iou_threshold, limit)


def test_a_box_is_suppressed_by_its_own_group_only_and_only_above_the_threshold() -> None:
    boxes = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 5.01]]
    )
    scores, groups = torch.tensor([0.9, 0.95, 0.8, 0.7]), torch.tensor([0, 1, 0, 0])
    # In group 0 the third box has IoU 0.5 with the first, which is not above 0.5; the fourth has 0.501.
    assert nms_within_groups(boxes, scores, groups, iou_threshold=0.5, limit=10).tolist() == [1, 0, 2]


def test_no_boxes() -> None:
    kept = nms_within_groups(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), iou_threshold=0.5, limit=10
    )
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


def test_half_precision_keeps_many_groups_apart() -> None:
    # 100 groups of a 1000 px image: as half, offsets of about 100,000 px would be infinite.
    boxes = torch.tensor([[0.0, 0.0, 1000.0, 1000.0], [16.0, 16.0, 64.0, 64.0]]).repeat(100, 1)
    scores = torch.linspace(1, 0.5, 200)
    groups = torch.arange(100).repeat_interleave(2)
    options = {"iou_threshold": 0.5, "limit": 1000}
    assert len(nms_within_groups(boxes.half(), scores.half(), groups, **options)) == 200
