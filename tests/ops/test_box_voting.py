"""Merging predictions: box voting by hand, suppression over views, and nothing to merge as nothing done."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from transfer.ops.box_voting import merge_predictions, vote
from transfer.types import Prediction


def prediction(*rows: tuple[list[float], float, int]) -> Prediction:
    """Rows of (box, score, label)."""
    return Prediction(
        torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([row[1] for row in rows], dtype=torch.float32),
        torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )


def merged(*predictions: Prediction, nms: float = 0.5, voting: float | None = 0.5, limit: int = 100) -> Prediction:
    return merge_predictions(predictions, nms_iou=nms, voting_iou=voting, limit=limit)


def rows(found: Prediction) -> list[tuple[list[float], float, int]]:
    return [(b, round(s, 6), k) for b, s, k in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist())]


def test_a_vote_worked_out_by_hand() -> None:
    # Boxes of 10x10; the second is shifted by 2 to the right: IoU 80 / 120 = 2/3. Scores 3:1, so x moves by 2/4.
    first, second = prediction(([0, 0, 10, 10], 0.75, 0)), prediction(([2, 0, 12, 10], 0.25, 0))
    assert rows(merged(first, second)) == [([0.5, 0, 10.5, 10], 0.75, 0)]
    assert rows(merged(first, second, voting=0.7)) == [([0, 0, 10, 10], 0.75, 0)]  # does not overlap enough to vote
    assert rows(merged(first, second, voting=None)) == [([0, 0, 10, 10], 0.75, 0)]
    apart = merged(first, second, nms=0.7, voting=0.6)  # both kept, each moved by both votes
    assert rows(apart) == [([0.5, 0, 10.5, 10], 0.75, 0), ([0.5, 0, 10.5, 10], 0.25, 0)]


def test_only_the_own_class_votes_and_suppresses() -> None:
    found = merged(prediction(([0, 0, 10, 10], 0.75, 0)), prediction(([2, 0, 12, 10], 0.25, 1)))
    assert rows(found) == [([0, 0, 10, 10], 0.75, 0), ([2, 0, 12, 10], 0.25, 1)]


def test_a_box_without_other_voters_stays_bit_for_bit() -> None:
    torch.manual_seed(0)
    corners = torch.rand(20, 2) * 9 + torch.arange(20)[:, None] * 100
    boxes = torch.cat([corners, corners + 1 + torch.rand(20, 2) * 50], dim=1)
    alone = Prediction(boxes, torch.linspace(0.9, 0.1, 20), torch.arange(20) % 3)
    found = merged(alone)
    assert torch.equal(found.boxes, boxes)
    assert torch.equal(found.scores, alone.scores)
    assert torch.equal(found.labels, alone.labels)


def test_a_single_prediction_without_voting_is_itself() -> None:
    # Also where suppression would drop something of it: its own head decided otherwise.
    found = prediction(([0, 0, 10, 10], 0.75, 0), ([1, 0, 11, 10], 0.5, 0))
    assert merged(found, voting=None) is found
    assert len(merged(found, found, voting=None).scores) == 1


def test_the_same_prediction_twice_is_that_prediction() -> None:
    found = prediction(([3, 4, 50, 60], 0.75, 2), ([80, 4, 120, 60], 0.5, 0), ([3, 100, 50, 160], 0.25, 2))
    for voting in (None, 0.5):
        assert rows(merged(found, found, voting=voting)) == rows(found)


def test_best_first_and_no_more_than_the_limit() -> None:
    first = prediction(([0, 0, 9, 9], 0.5, 0), ([50, 0, 59, 9], 0.25, 0))
    second = prediction(([100, 0, 109, 9], 0.75, 1), ([150, 0, 159, 9], 0.375, 0))
    assert merged(first, second).scores.tolist() == [0.75, 0.5, 0.375, 0.25]
    assert merged(first, second, limit=3).scores.tolist() == [0.75, 0.5, 0.375]


@pytest.mark.parametrize("voting", [None, 0.5])
def test_views_without_detections(voting: float | None) -> None:
    nothing, something = prediction(), prediction(([0, 0, 9, 9], 0.5, 1))
    empty = merged(nothing, nothing, voting=voting)
    assert (empty.boxes.shape, empty.scores.shape, empty.labels.shape) == ((0, 4), (0,), (0,))
    assert (empty.boxes.dtype, empty.labels.dtype) == (torch.float32, torch.int64)
    assert rows(merged(nothing, something, voting=voting)) == rows(something)


def test_scores_of_zero_move_nothing() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10]])
    voted = vote(torch.tensor([0]), boxes, torch.zeros(2), torch.zeros(2, dtype=torch.int64), iou=0.5)
    assert voted.tolist() == [[0, 0, 10, 10]]


def naive(kept: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> list[list[float]]:
    """Box voting as the paper writes it, in plain loops and float64."""
    result = []
    for i in kept.tolist():
        total, sums = 0.0, [0.0] * 4
        for j in range(len(boxes)):
            a, b = boxes[i].double().tolist(), boxes[j].double().tolist()
            wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            shared = max(0.0, wide) * max(0.0, high)
            areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
            if labels[i] == labels[j] and shared / (sum(areas) - shared) >= iou:
                weight = float(scores[j])
                total += weight
                sums = [s + weight * x for s, x in zip(sums, b)]
        result.append([s / total for s in sums])
    return result


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.8])
def test_against_the_formula_in_plain_loops(iou: float) -> None:
    torch.manual_seed(1)
    corners = torch.rand(60, 2) * 40
    boxes = torch.cat([corners, corners + 20 + torch.rand(60, 2) * 40], dim=1)
    scores, labels, kept = torch.rand(60), torch.randint(0, 2, (60,)), torch.randperm(60)[:20]
    found = vote(kept, boxes, scores, labels, iou=iou)
    torch.testing.assert_close(found, torch.tensor(naive(kept, boxes, scores, labels, iou)), rtol=1e-5, atol=1e-4)
