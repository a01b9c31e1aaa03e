"""When an exported file counts as the same, by hand."""

from __future__ import annotations

import torch

from transfer.export.agreement import Agreement
from transfer.types import ClassScores, LabelMap, Prediction


def prediction(*rows: tuple[float, float, int]) -> Prediction:
    """Boxes of 10 px at (x, 0), each with its score and label."""
    boxes = torch.tensor([[x, 0, x + 10, 10] for x, _, _ in rows]).reshape(-1, 4)
    return Prediction(boxes, torch.tensor([score for _, score, _ in rows]), torch.tensor([label for *_, label in rows]))


def compared(one: Prediction, other: Prediction) -> Agreement:
    result = Agreement()
    result.add(one, other)
    return result


def test_near_boxes_of_one_class_are_counterparts() -> None:
    one, other = prediction((0, 0.9, 1), (50, 0.8, 0)), prediction((50.25, 0.8, 0), (0, 0.9, 1))
    result = compared(one, other)
    assert (result.compared, result.unlike, result.problems) == (4, 0, [])
    assert result.box == 0.25


def test_another_class_place_or_score_has_no_counterpart() -> None:
    one = prediction((0, 0.9, 1))
    assert compared(one, prediction((0, 0.9, 2))).unlike == 2
    assert compared(one, prediction((1, 0.9, 1))).unlike == 2
    assert compared(one, prediction((0, 0.85, 1))).unlike == 2
    assert compared(one, prediction()).unlike == 1
    assert compared(one, prediction()).problems == ["1 of 1 detections differ, 1% is tolerated"]


def test_the_tolerances() -> None:
    """Half a pixel, a thousandth of a score."""
    one = prediction((0, 0.9, 1))
    assert compared(one, prediction((0.49, 0.9, 1))).unlike == 0
    assert compared(one, prediction((0.51, 0.9, 1))).unlike == 2
    assert compared(one, prediction((0, 0.9009, 1))).unlike == 0
    assert compared(one, prediction((0, 0.9011, 1))).unlike == 2


def test_of_nothing_nothing_differs() -> None:
    assert compared(prediction(), prediction()).problems == []


def test_pixels_and_classes_are_counted() -> None:
    result = Agreement()
    result.add(LabelMap(torch.tensor([[0, 1], [2, 2]])), LabelMap(torch.tensor([[0, 1], [2, 1]])))
    result.add(ClassScores(torch.tensor([0.6, 0.4])), ClassScores(torch.tensor([0.3, 0.7])))
    assert (result.compared, result.unlike) == (5, 2)
    assert result.problems == ["2 of 5 pixels or images differ, 1% is tolerated"]


def test_logits_differ_as_a_share_of_the_largest() -> None:
    result = Agreement()
    result.add_logits(torch.tensor([10.0, -20.0]), torch.tensor([10.1, -20.0]))
    assert abs((result.logits or 0) - 0.005) < 1e-6
    assert result.problems
    result.add_logits(torch.zeros(2), torch.zeros(3))
    assert result.logits == float("inf")


def test_what_is_not_a_number_never_agrees() -> None:
    result = Agreement()
    result.add_logits(torch.tensor([1.0]), torch.tensor([float("nan")]))
    assert result.problems
