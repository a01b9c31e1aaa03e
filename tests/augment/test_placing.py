"""Placing boxes: clip, drop what vanished, count it, keep each box's own fields."""

from __future__ import annotations

import numpy as np

from transfer.augment.placing import FilterBoxes, place_boxes
from transfer.types import Request

BOXES = [
    [-0.2, 2, 10, 8],  # a hair over the left edge: clipped
    [5, 5, 20.06, 15],  # reaches 1.003 widths: clipped
    [4, 4, 9, 4],  # no height: dropped
    [21, 3, 30, 9],  # outside: dropped
    [19.2, 0, 25, 9],  # 0.8 px stay: dropped
    [3, 3, 4, 4],  # exactly one pixel: stays
    [7, 7, 6, 9],  # negative width: dropped
]
REQUEST = Request(0, 0)


def test_clips_drops_and_counts_and_fields_follow(noise) -> None:
    sample = noise(16, 20, BOXES)
    placed = place_boxes(sample, sample.image, sample.boxes, "Step")
    assert placed.boxes.dtype == np.float32
    assert placed.boxes.tolist() == [[0, 2, 10, 8], [5, 5, 20, 15], [3, 3, 4, 4]]
    assert placed.labels.tolist() == [5, 6, 10]
    assert placed.labels.dtype == np.int64
    assert placed.difficult.tolist() == [False, True, True]
    assert placed.weights.tolist() == sample.weights[[0, 1, 5]].tolist()
    assert placed.dropped == {"Step": 4}
    assert sample.dropped == {}
    assert len(sample.boxes) == 7


def test_counts_add_up_by_name(noise) -> None:
    sample = noise(16, 20, BOXES)
    placed = place_boxes(sample, sample.image, sample.boxes, "A", keep=np.arange(7) != 0)
    assert placed.dropped == {"A": 5}
    again = place_boxes(placed, placed.image, placed.boxes, "A", min_side=10)
    assert again.dropped == {"A": 6}
    assert FilterBoxes(min_side=11)(again, REQUEST, np.random.default_rng(0)).dropped == {"A": 6, "FilterBoxes": 1}
    assert placed.dropped == {"A": 5}


def test_rounding_does_not_drop_a_box_of_exactly_the_smallest_side(noise) -> None:
    sample = noise(16, 20, [[3, 3, 3.9999, 5]])
    assert len(place_boxes(sample, sample.image, sample.boxes, "Step").boxes) == 1


def test_without_limit_every_box_stays_as_it_is(noise) -> None:
    sample = noise(16, 20, BOXES)
    placed = place_boxes(sample, sample.image, sample.boxes, "Step", min_side=None)
    assert np.array_equal(placed.boxes, sample.boxes)
    assert placed.dropped == {}


def test_a_limit_of_zero_still_drops_boxes_without_area(noise) -> None:
    sample = noise(16, 20, [[4, 4, 9, 4], [4, 4, 4.1, 4.1]])
    assert place_boxes(sample, sample.image, sample.boxes, "Step", min_side=0).labels.tolist() == [6]


def test_no_boxes(noise) -> None:
    sample = noise(16, 20)
    placed = FilterBoxes()(sample, REQUEST, np.random.default_rng(0))
    assert placed.boxes.shape == (0, 4)
    assert placed.dropped == {}
