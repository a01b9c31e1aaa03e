"""Matching at its thresholds, low-quality matches, difficult boxes; torchvision's matcher where the rules agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher

from transfer.ops.boxes import pairwise_iou
from transfer.ops.matching import NEGATIVE, NEITHER, Truth, check_difficult, match, truth_for_training
from transfer.types import Target, UserError

NONE = torch.zeros(0, 4)


def truth_of(boxes: Tensor, ignored: Tensor = NONE) -> Truth:
    return Truth(boxes, torch.zeros(len(boxes), dtype=torch.int64), torch.ones(len(boxes)), ignored)


def columns(*widths: float) -> Tensor:
    """Boxes at the origin, 10 high: their IoU with the square of side 10 is width / 10."""
    return torch.tensor([[0.0, 0.0, width, 10.0] for width in widths])


SQUARE = columns(10.0)


def test_positive_from_the_high_threshold_on_and_negative_below_the_low_one() -> None:
    references = columns(10.0, 7.01, 7.0, 6.99, 5.0, 3.01, 3.0, 2.99, 0.5)
    matches = match(references, truth_of(SQUARE), high=0.7, low=0.3)
    assert matches.tolist() == [0, 0, 0, NEITHER, NEITHER, NEITHER, NEITHER, NEGATIVE, NEGATIVE]
    assert matches.dtype == torch.int64


def test_one_threshold_leaves_nothing_between() -> None:
    matches = match(columns(5.01, 5.0, 4.99, 0.5), truth_of(SQUARE), high=0.5, low=0.5)
    assert matches.tolist() == [0, 0, NEGATIVE, NEGATIVE]


def test_a_reference_belongs_to_the_truth_it_overlaps_most() -> None:
    truth = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [50.0, 0.0, 60.0, 10.0]])
    references = torch.tensor([[0.0, 0.0, 10.0, 8.5], [0.0, 0.0, 10.0, 9.5], [51.0, 0.0, 60.0, 10.0]])
    assert match(references, truth_of(truth), high=0.5, low=0.5).tolist() == [1, 0, 2]


def test_the_best_references_of_a_truth_are_positive_however_little_they_overlap() -> None:
    references = columns(2.0, 1.0, 2.0, 0.5)  # two are equally good
    assert match(references, truth_of(SQUARE), high=0.7, low=0.3).tolist() == [NEGATIVE] * 4
    found = match(references, truth_of(SQUARE), high=0.7, low=0.3, best_for_each_truth=True)
    assert found.tolist() == [0, NEGATIVE, 0, NEGATIVE]
    between = match(columns(5.0, 4.0), truth_of(SQUARE), high=0.7, low=0.3, best_for_each_truth=True)
    assert between.tolist() == [0, NEITHER]


def test_a_truth_that_nothing_overlaps_takes_no_reference() -> None:
    # Its best IoU is 0, which every reference far away reaches: torchvision's matcher would make all of them positive.
    truth = torch.tensor([[0.0, 0.0, 10.0, 10.0], [500.0, 500.0, 501.0, 501.0], [5.0, 5.0, 5.0, 5.0]])
    found = match(columns(10.0, 1.0), truth_of(truth), high=0.7, low=0.3, best_for_each_truth=True)
    assert found.tolist() == [0, NEGATIVE]


def test_the_best_reference_of_one_truth_answers_for_another_that_it_overlaps_more() -> None:
    # IoU with the first truth, a strip of the second, 0.4 / 0.9: the best that the strip has. With the second 0.9.
    truth, reference = columns(4.0, 10.0), columns(9.0)
    found = match(reference, truth_of(truth), high=0.95, low=0.3, best_for_each_truth=True)
    assert found.tolist() == [1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("thresholds", [(0.7, 0.3), (0.5, 0.5)])
def test_random_boxes_match_as_in_torchvision(seed: int, low_quality: bool, thresholds: tuple[float, float]) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((8, 2), generator=generator) * 100
    truth = torch.cat([corner, corner + 10 + 50 * torch.rand((8, 2), generator=generator)], dim=1)
    references = truth.repeat(40, 1) + 8 * torch.randn((320, 4), generator=generator)
    references[:, 2:] = torch.maximum(references[:, 2:], references[:, :2] + 1)
    high, low = thresholds
    expected = Matcher(high, low, low_quality)(pairwise_iou(truth, references))
    found = match(references, truth_of(truth), high=high, low=low, best_for_each_truth=low_quality)
    assert torch.equal(found, expected)
    assert len(found.unique()) > 5


def test_without_truth_everything_is_negative() -> None:
    for best in (False, True):
        found = match(columns(1.0, 9.0), truth_of(NONE), high=0.7, low=0.3, best_for_each_truth=best)
        assert found.tolist() == [NEGATIVE, NEGATIVE]


def test_without_references_there_are_no_matches() -> None:
    for best in (False, True):
        for truth in (truth_of(NONE), truth_of(NONE, SQUARE)):
            assert match(NONE, truth, high=0.5, low=0.5, best_for_each_truth=best).shape == (0,)
    assert match(NONE, truth_of(SQUARE, SQUARE), high=0.5, low=0.5).shape == (0,)


def test_an_ignored_region_takes_references_out_of_the_negatives_only() -> None:
    truth = truth_of(SQUARE, ignored=torch.tensor([[0.0, 0.0, 10.0, 10.0], [100.0, 0.0, 110.0, 10.0]]))
    beside = torch.tensor([[100.0, 0.0, 103.0, 10.0], [100.0, 0.0, 102.9, 10.0], [200.0, 0.0, 210.0, 10.0]])
    found = match(torch.cat([SQUARE, beside]), truth, high=0.7, low=0.3)
    assert found.tolist() == [0, NEITHER, NEGATIVE, NEGATIVE]
    only_ignored = match(columns(10.0, 3.0, 2.9), truth_of(NONE, SQUARE), high=0.7, low=0.3)
    assert only_ignored.tolist() == [NEITHER, NEITHER, NEGATIVE]


def make_target() -> Target:
    """An easy box, a difficult one and another easy one, apart."""
    return Target(
        boxes=torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [40.0, 0.0, 50.0, 10.0]]),
        labels=torch.tensor([5, 6, 7]),
        difficult=torch.tensor([False, True, False]),
        weights=torch.tensor([0.1, 0.2, 0.3]),
        size=(60, 60),
        index=0,
        image_id="a",
        path="a.jpg",
        original_size=(60, 60),
        scale=(1.0, 1.0),
    )


@pytest.mark.parametrize(
    ("policy", "labels", "matches"),
    [
        ("train", [5, 6, 7], [0, 1, 2, NEGATIVE]),
        ("drop", [5, 7], [0, NEGATIVE, 1, NEGATIVE]),
        ("ignore", [5, 7], [0, NEITHER, 1, NEGATIVE]),
    ],
)
def test_the_three_policies_on_difficult_boxes(policy: str, labels: list[int], matches: list[int]) -> None:
    target = make_target()
    truth = truth_for_training(target, policy)
    assert truth.labels.tolist() == labels
    kept = [5, 6, 7]
    rows = [kept.index(label) for label in labels]
    assert torch.equal(truth.boxes, target.boxes[rows])
    assert torch.equal(truth.weights, target.weights[rows])
    references = torch.cat([target.boxes, torch.tensor([[0.0, 40.0, 10.0, 50.0]])])
    assert match(references, truth, high=0.5, low=0.5).tolist() == matches


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    assert check_difficult("drop") == "drop"
    with pytest.raises(UserError, match=r"difficult='ignored'.*ignore, train, drop"):
        check_difficult("ignored")
