"""Soft-NMS against hand-computed scores, a plain loop over numbers, and what it becomes at its limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from transfer.heads.faster_rcnn import FasterRCNNOutput, FasterRCNNPostprocess
from transfer.ops.soft_nms import soft_nms_within_groups
from transfer.types import Prediction, Target, UserError


def soft(boxes: Any, scores: Any, groups: Any = None, **options: Any) -> tuple[list[int], list[float]]:
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    scores = torch.as_tensor(scores, dtype=torch.float32)
    groups = torch.zeros(len(boxes), dtype=torch.int64) if groups is None else torch.as_tensor(groups)
    settings = {"method": "linear", "iou_threshold": 0.3, "sigma": 0.5, "score_threshold": 0.0, "limit": 100}
    indices, left = soft_nms_within_groups(boxes, scores, groups, **{**settings, **options})
    assert indices.dtype == torch.int64
    assert left.dtype == torch.float32
    return indices.tolist(), left.tolist()


# In order of score: IoU of the second with the first 1/2; of the third with the first 1/4 and with the second 1/2.
BOXES = [[0.0, 0.0, 10.0, 20.0], [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [50.0, 50.0, 60.0, 60.0]]
SCORES = [0.9, 0.8, 0.7, 0.3]


@pytest.mark.parametrize(
    ("options", "order", "scores"),
    [
        # 0.8 * (1 - 1/2) = 0.4; the third keeps 0.7 beside the first (1/4 is not above 0.3), is the next to be taken,
        # and takes half of the second's 0.4.
        ({}, [0, 2, 3, 1], [0.9, 0.7, 0.3, 0.2]),
        # Both the others lose to the first: 0.4 and 0.7 * 3/4 = 0.525; then the third halves the second again.
        ({"iou_threshold": 0.2}, [0, 2, 3, 1], [0.9, 0.525, 0.3, 0.2]),
        ({"iou_threshold": 0.5}, [0, 1, 2, 3], SCORES),  # at the threshold nothing is lost, as in hard NMS
        (
            {"method": "gaussian"},
            [0, 2, 3, 1],
            [0.9, 0.7 * math.exp(-1 / 16 / 0.5), 0.3, 0.8 * math.exp(-1 / 4 / 0.5) * math.exp(-1 / 4 / 0.5)],
        ),
        (
            {"method": "gaussian", "sigma": 5.0},
            [0, 1, 2, 3],
            [0.9, 0.8 * math.exp(-1 / 20), 0.7 * math.exp(-1 / 80) * math.exp(-1 / 20), 0.3],
        ),
    ],
)
def test_scores_by_hand(options: dict[str, Any], order: list[int], scores: list[float]) -> None:
    found, left = soft(BOXES, SCORES, **options)
    assert found == order
    assert left == pytest.approx(scores, abs=1e-6)


def plain_loop(boxes: Tensor, scores: Tensor, groups: Tensor, options: dict[str, Any]) -> list[tuple[int, float]]:
    """The paper's algorithm on numbers, each group by itself, until nothing is left."""

    def iou(a: list[float], b: list[float]) -> float:
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
        return width * height / (area_a + area_b - width * height)

    done: list[tuple[int, float]] = []
    for group in set(groups.tolist()):
        rest = [(i, scores[i].item()) for i in range(len(boxes)) if groups[i] == group]
        while rest:
            best = max(rest, key=lambda pair: pair[1])
            done.append(best)
            rest.remove(best)
            overlaps = [iou(boxes[best[0]].tolist(), boxes[i].tolist()) for i, _ in rest]
            if options["method"] == "linear":
                shares = [1 - overlap if overlap > options["iou_threshold"] else 1.0 for overlap in overlaps]
            else:
                shares = [math.exp(-overlap * overlap / options["sigma"]) for overlap in overlaps]
            rest = [(i, score * share) for (i, score), share in zip(rest, shares)]
    done.sort(key=lambda pair: -pair[1])
    return [(i, score) for i, score in done if score > options["score_threshold"]][: options["limit"]]


def random_boxes(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = 60 * torch.rand((count, 2), generator=generator)
    boxes = torch.cat([corner, corner + 5 + 40 * torch.rand((count, 2), generator=generator)], dim=1)
    scores = torch.rand(count, generator=generator)
    return boxes, scores, torch.randint(0, 3, (count,), generator=generator)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize(("score_threshold", "limit"), [(0.0, 1000), (0.2, 1000), (0.05, 12)])
def test_a_plain_loop_over_numbers_agrees(method: str, score_threshold: float, limit: int) -> None:
    for seed in range(3):
        boxes, scores, groups = random_boxes(60, seed)
        options = {
            "method": method,
            "iou_threshold": 0.35,
            "sigma": 0.4,
            "score_threshold": score_threshold,
            "limit": limit,
        }
        expected = plain_loop(boxes, scores, groups, options)
        found, left = soft(boxes, scores, groups, **options)
        assert 0 < len(expected) <= limit
        assert found == [i for i, _ in expected]
        assert left == pytest.approx([score for _, score in expected], rel=1e-4)


def test_a_reach_of_nothing_is_hard_suppression_of_every_overlap() -> None:
    boxes, scores, _ = random_boxes(80, seed=5)
    found, left = soft(boxes, scores, method="gaussian", sigma=1e-9, score_threshold=1e-3)
    expected = nms(boxes, scores, 0.0)
    expected = expected[scores[expected] > 1e-3]
    assert found == expected.tolist()
    assert left == scores[expected].tolist()


def test_groups_do_not_touch_each_other() -> None:
    _, alone = soft(BOXES[:1] * 2, [0.9, 0.8])
    found, apart = soft(BOXES[:1] * 2, [0.9, 0.8], [0, 1])
    assert alone == pytest.approx([0.9])  # the same box again loses everything
    assert found == [0, 1]
    assert apart == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_no_box_and_one_box(method: str) -> None:
    assert soft([], [], method=method) == ([], [])
    found, left = soft(BOXES[:1], [0.25], method=method)
    assert (found, left) == ([0], [0.25])
    assert soft(BOXES[:1], [0.25], method=method, score_threshold=0.25) == ([], [])


def test_what_is_given_stays_as_it_is() -> None:
    boxes, scores, groups = random_boxes(20, seed=1)
    before = scores.clone()
    soft(boxes, scores, groups)
    assert torch.equal(scores, before)


# ---- as an option of the detector's postprocess ----


def detected(**options: Any) -> Prediction:
    """What is made of 60 regions of one image, 160 px wide, at half scale."""
    boxes, _, _ = random_boxes(60, seed=3)
    generator = torch.Generator().manual_seed(4)
    logits, deltas = 2 * torch.randn((60, 4), generator=generator), torch.randn((60, 3, 4), generator=generator)
    output = FasterRCNNOutput(torch.zeros(1, 0), torch.zeros(1, 0, 4), torch.zeros(0, 4), [boxes], logits, deltas, None)
    nothing = torch.zeros(0)
    target = Target(
        nothing.reshape(0, 4), nothing.long(), nothing.bool(), nothing, (120, 160), 0, "a", "a", (240, 320), (0.5, 0.5)
    )
    (prediction,) = FasterRCNNPostprocess(**options)(output, [target])
    return prediction


def test_off_is_hard_suppression_to_the_last_bit() -> None:
    default, off = detected(), detected(nms="hard", sigma=0.1)
    for ours, theirs in ((default.boxes, off.boxes), (default.scores, off.scores), (default.labels, off.labels)):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_forms_keep_the_best_and_give_lower_scores_to_what_overlaps(method: str) -> None:
    low = {"score_threshold": 0.001, "max_detections": 1000}
    hard, everything, found = detected(**low), detected(**low, nms_iou=1.0), detected(**low, nms=method)
    assert len(hard.boxes) < len(found.boxes) <= len(everything.boxes)
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    assert torch.equal(found.boxes[0], hard.boxes[0])
    assert found.scores[0] == hard.scores[0]
    full_score = {tuple(box): score for box, score in zip(everything.boxes.tolist(), everything.scores.tolist())}
    before = torch.tensor([full_score[tuple(box)] for box in found.boxes.tolist()])
    assert (found.scores <= before).all()
    assert (found.scores < before).any()
    assert len(detected(nms=method, max_detections=7).boxes) == 7


def test_linear_with_a_threshold_of_one_is_no_suppression_at_all() -> None:
    hard, linear = detected(nms_iou=1.0), detected(nms="linear", nms_iou=1.0)
    assert torch.equal(hard.boxes, linear.boxes)
    assert torch.equal(hard.scores, linear.scores)


@pytest.mark.parametrize(("options", "words"), [({"nms": "softer"}, "nms='softer'"), ({"sigma": 0}, "sigma=0")])
def test_impossible_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        FasterRCNNPostprocess(**options)
