"""SSD's matching: a default box of its own for each truth box, then the threshold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import SSDMatcher

from transfer.ops.boxes import pairwise_iou
from transfer.ops.matching import NEGATIVE, NEITHER, Truth, match, one_to_one

NONE = torch.zeros(0, 4)


def truth_of(boxes: Tensor, ignored: Tensor = NONE) -> Truth:
    return Truth(boxes, torch.zeros(len(boxes), dtype=torch.int64), torch.ones(len(boxes)), ignored)


def columns(*widths: float) -> Tensor:
    """Boxes at the origin, 10 high: their IoU with the square of side 10 is width / 10."""
    return torch.tensor([[0.0, 0.0, width, 10.0] for width in widths])


def pairs_of(iou: list[list[float]]) -> set[tuple[int, int]]:
    truths, references = one_to_one(torch.tensor(iou))
    assert truths.dtype == references.dtype == torch.int64
    return set(zip(truths.tolist(), references.tolist()))


def test_the_best_pair_comes_first_and_nothing_is_taken_twice() -> None:
    # Both want reference 1; it goes to the second, which it overlaps more, and the first has to do with 0.3.
    assert pairs_of([[0.2, 0.8, 0.3], [0.1, 0.9, 0.7]]) == {(0, 2), (1, 1)}
    assert pairs_of([[0.4], [0.6], [0.5]]) == {(1, 0)}  # more truth boxes than references


def test_what_does_not_overlap_is_no_pair() -> None:
    assert pairs_of([[0.0, 0.0, 0.0], [0.0, 0.1, 0.0]]) == {(1, 1)}
    assert pairs_of([[0.5, 0.0], [0.4, 0.0]]) == {(0, 0)}  # what is left for the second has nothing of it
    for shape in ((0, 3), (2, 0), (0, 0)):
        truths, references = one_to_one(torch.zeros(shape))
        assert len(truths) == len(references) == 0


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_those_of_a_sorted_list(seed: int) -> None:
    iou = torch.rand((7, 30), generator=torch.Generator().manual_seed(seed))
    expected: set[tuple[int, int]] = set()
    for _, row, column in sorted((-iou[r, c].item(), r, c) for r in range(7) for c in range(30)):
        if all(row != r and column != c for r, c in expected):
            expected.add((row, column))
    assert pairs_of(iou.tolist()) == expected
    assert len(expected) == 7


def test_the_own_reference_answers_for_its_truth_whatever_else_it_overlaps() -> None:
    # The strip of 4 overlaps the reference of 9 by 0.4 / 0.9; the square does by 0.9, but has one of 10 of its own.
    truth, references = columns(4.0, 10.0), columns(9.0, 10.0, 8.0, 1.0)
    found = match(references, truth_of(truth), high=0.5, low=0.5, own_for_each_truth=True)
    assert found.tolist() == [1, 1, 0, NEGATIVE]  # of 8, 9 and 10, 8 overlaps the strip most, by a half
    without = match(references, truth_of(truth), high=0.5, low=0.5)
    assert without.tolist() == [1, 1, 1, NEGATIVE]


def test_a_truth_that_nothing_overlaps_by_half_has_one_reference_all_the_same() -> None:
    found = match(columns(1.0, 2.0, 0.5), truth_of(columns(10.0)), high=0.5, low=0.5, own_for_each_truth=True)
    assert found.tolist() == [NEGATIVE, 0, NEGATIVE]
    equals = match(columns(2.0, 1.0, 2.0), truth_of(columns(10.0)), high=0.5, low=0.5, own_for_each_truth=True)
    assert sorted(equals.tolist()) == [NEGATIVE, NEGATIVE, 0]  # one of them


@pytest.mark.parametrize("seed", range(5))
def test_random_boxes_match_as_in_torchvision(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((8, 2), generator=generator) * 100
    truth = torch.cat([corner, corner + 10 + 50 * torch.rand((8, 2), generator=generator)], dim=1)
    references = truth.repeat(40, 1) + 20 * torch.randn((320, 4), generator=generator)
    references[:, 2:] = torch.maximum(references[:, 2:], references[:, :2] + 1)
    iou = pairwise_iou(truth, references)
    assert len(iou.argmax(dim=1).unique()) == 8  # where two want one, torchvision leaves it to the last
    found = match(references, truth_of(truth), high=0.5, low=0.5, own_for_each_truth=True)
    assert torch.equal(found, SSDMatcher(0.5)(iou))
    assert len(found.unique()) > 5


def test_the_best_reference_of_an_ignored_region_is_no_negative() -> None:
    ignored = torch.tensor([[100.0, 0.0, 110.0, 10.0]])
    beside = torch.tensor([[100.0, 0.0, 104.0, 10.0], [100.0, 0.0, 103.0, 10.0], [200.0, 0.0, 210.0, 10.0]])
    references = torch.cat([columns(10.0), beside])
    truth = truth_of(columns(10.0), ignored)
    found = match(references, truth, high=0.5, low=0.5, own_for_each_truth=True)
    assert found.tolist() == [0, NEITHER, NEGATIVE, NEGATIVE]
    assert match(references, truth, high=0.5, low=0.5).tolist() == [0, NEGATIVE, NEGATIVE, NEGATIVE]
    far = truth_of(NONE, torch.tensor([[500.0, 500.0, 510.0, 510.0]]))
    assert match(references, far, high=0.5, low=0.5, own_for_each_truth=True).tolist() == [NEGATIVE] * 4


def test_without_truth_or_references() -> None:
    assert match(columns(1.0, 9.0), truth_of(NONE), high=0.5, low=0.5, own_for_each_truth=True).tolist() == [-1, -1]
    for truth in (truth_of(columns(10.0)), truth_of(NONE, columns(10.0))):
        assert match(NONE, truth, high=0.5, low=0.5, own_for_each_truth=True).shape == (0,)
