"""The one operation that suppresses a batch, against torchvision's NMS and by hand."""

from __future__ import annotations

import torch
from torchvision.ops import nms

from transfer.export.nms import NOTHING, scores_after_nms


def test_the_weaker_of_two_that_overlap_is_suppressed() -> None:
    boxes = torch.tensor([[[0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30]]], dtype=torch.float32)  # IoU 0.8
    scores = torch.tensor([[0.5, 0.9, 0.1]])
    assert scores_after_nms(boxes, scores, 0.7).tolist() == [[NOTHING, torch.tensor(0.9).item(), scores[0, 2].item()]]
    assert torch.equal(scores_after_nms(boxes, scores, 0.81), scores)


def test_it_is_torchvision_s_for_each_image() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 40, 2, generator=generator) * 50
    boxes = torch.cat([corners, corners + 5 + 30 * torch.rand(3, 40, 2, generator=generator)], dim=2)
    scores = torch.randn(3, 40, generator=generator)  # logits may be negative
    left = scores_after_nms(boxes, scores, 0.4)
    for image in range(3):
        kept = nms(boxes[image], scores[image], 0.4)
        assert sorted(torch.nonzero(left[image] > NOTHING).flatten().tolist()) == sorted(kept.tolist())
        assert torch.equal(left[image, kept], scores[image, kept])


def test_empty_places_suppress_nothing() -> None:
    boxes = torch.tensor([[[0, 0, 10, 10], [0, 0, 10, 10]]], dtype=torch.float32)
    assert scores_after_nms(boxes, torch.tensor([[NOTHING, -3.0]]), 0.5).tolist() == [[NOTHING, -3.0]]
