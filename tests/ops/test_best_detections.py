"""From scored boxes to detections: each limit by hand, suppression against a plain loop, the way back to the image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from transfer.ops.best_detections import DetectionFilter
from transfer.types import Prediction, Target, UserError

SIZE = (96, 128)


def make_filter(**options: Any) -> DetectionFilter:
    settings = {"score_threshold": 0.01, "before_nms": 400, "nms_iou": 0.45, "max_detections": 100}
    return DetectionFilter("Postprocess", **{**settings, **options})


def target(**options: Any) -> Target:
    settings: dict[str, Any] = {"size": SIZE, "original_size": SIZE, "scale": (1.0, 1.0)}
    none = torch.zeros(0)
    return Target(
        none.view(0, 4), none.long(), none.bool(), none, index=0, image_id=0, path="", **{**settings, **options}
    )


def detections(boxes: list[list[float]], scores: list[list[float]], **options: Any) -> Prediction:
    return make_filter(**options)(torch.tensor(boxes), torch.tensor(scores), target())


def apart(count: int) -> list[list[float]]:
    return [[10.0 * k, 0.0, 10.0 * k + 8, 8.0] for k in range(count)]


def test_a_box_may_be_several_classes_or_its_best_one() -> None:
    scores = [[0.5, 0.9, 0.01], [0.3, 0.2, 0.4]]
    both = detections(apart(2), scores)
    assert both.labels.tolist() == [1, 0, 2, 0, 1]  # 0.01 is not above the threshold
    torch.testing.assert_close(both.scores, torch.tensor([0.9, 0.5, 0.4, 0.3, 0.2]))
    assert both.boxes[:, 0].tolist() == [0, 0, 10, 10, 10]
    best = detections(apart(2), scores, multi_label=False)
    assert best.labels.tolist() == [1, 2]
    assert best.boxes[:, 0].tolist() == [0, 10]


def test_the_limits() -> None:
    scores = [[0.1 * (k + 1), 0.05] for k in range(6)]
    assert detections(apart(6), scores, score_threshold=0.35).boxes[:, 0].tolist() == [50, 40, 30]
    assert detections(apart(6), scores, max_detections=2).boxes[:, 0].tolist() == [50, 40]
    # Over all classes together: the four best pairs are of the first class.
    assert detections(apart(6), scores, before_nms=4).labels.tolist() == [0] * 4


def test_the_limit_before_suppression_is_before_it() -> None:
    same = [[0.0, 0.0, 8.0, 8.0]] * 3 + [[20.0, 0.0, 28.0, 8.0]]
    scores = [[0.9], [0.8], [0.7], [0.6]]
    assert len(detections(same, scores).boxes) == 2
    assert len(detections(same, scores, before_nms=3).boxes) == 1


def test_suppression_is_within_a_class_and_a_plain_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand((80, 2), generator=generator) * 60
    boxes = torch.cat([corner, corner + 10 + 20 * torch.rand((80, 2), generator=generator)], dim=1)
    scores = torch.rand((80, 2), generator=generator)

    def iou(a: Tensor, b: Tensor) -> float:
        shared = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
        return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))

    pairs = sorted(
        ((float(scores[i, k]), i, k) for i in range(80) for k in range(2) if scores[i, k] > 0.2), reverse=True
    )
    kept: list[tuple[float, int, int]] = []
    for score, i, k in pairs:
        if all(k != other or iou(boxes[i], boxes[j]) <= 0.3 for _, j, other in kept):
            kept.append((score, i, k))
    found = make_filter(score_threshold=0.2, nms_iou=0.3)(boxes, scores, target())
    assert 5 < len(kept) < len(pairs)
    assert found.labels.tolist() == [k for _, _, k in kept]
    assert torch.equal(found.boxes, boxes[[i for _, i, _ in kept]])
    assert found.scores.tolist() == [score for score, _, _ in kept]


def test_boxes_return_to_the_original_image_and_are_clipped_to_it() -> None:
    # 100 by 300 px by factors 0.5 (y) and 0.25 (x).
    image = target(size=(50, 75), original_size=(100, 300), scale=(0.5, 0.25))
    boxes = torch.tensor([[10.0, 20.0, 30.0, 40.0], [-8.0, 30.0, 20.0, 60.0], [60.0, -9.0, 90.0, 10.0]])
    found = make_filter()(boxes, torch.tensor([[0.9], [0.8], [0.7]]), image)
    assert found.boxes.tolist() == [[40, 40, 120, 80], [0, 60, 80, 100], [240, 0, 300, 20]]


def test_nothing_is_nothing() -> None:
    for multi_label in (True, False):
        for count in (0, 3):
            found = make_filter(multi_label=multi_label)(torch.zeros(count, 4), torch.zeros(count, 2), target())
            assert (found.boxes.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))
            assert found.labels.dtype == torch.int64


def test_a_score_that_is_no_number_is_no_detection() -> None:
    found = detections(apart(2), [[float("nan"), 0.4], [0.5, float("nan")]])
    assert found.labels.tolist() == [0, 1]


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(UserError) as error:
        make_filter(score_threshold=1.5, nms_iou="0.5", before_nms=0, max_detections=2.5, multi_label=1)
    message = str(error.value)
    assert message.startswith("Postprocess: ")
    for part in ("score_threshold=1.5", "nms_iou='0.5'", "before_nms=0", "max_detections=2.5", "multi_label=1"):
        assert part in message
