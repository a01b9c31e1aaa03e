"""Training shapes: multiples of 32, the largest first, redrawn every few batches, from seed and position alone."""

from __future__ import annotations

import itertools

import pytest

from transfer.batch.shapes import FixedShape, RandomShapes
from transfer.types import UserError


def test_fixed_shape_takes_a_side_a_pair_or_nothing() -> None:
    assert FixedShape(416).shape(0, 5) == (416, 416)
    assert FixedShape((320, 480)).shape(7, 0) == (320, 480)
    assert FixedShape(None).shape(0, 0) is None


@pytest.mark.parametrize("size", [0, (416, -1)])
def test_fixed_shape_refuses_no_pixels(size: int | tuple[int, int]) -> None:
    with pytest.raises(UserError, match="must be positive"):
        FixedShape(size)


def test_random_shapes_are_the_papers_ten_squares_redrawn_every_ten_batches() -> None:
    shapes = RandomShapes()
    drawn = [shapes.shape(3, iteration) for iteration in range(3000)]
    assert {height for height, _ in drawn} == set(range(320, 609, 32))
    assert all(height == width for height, width in drawn)
    for first in range(0, 3000, 10):
        assert len(set(drawn[first : first + 10])) == 1
    # Even draws: each of 10 sides has 30 of 300 expected; five standard deviations are 26.
    counts = [sum(side == height for height, _ in drawn[10::10]) for side in range(320, 609, 32)]
    assert max(abs(count - 30) for count in counts) < 26
    # Changes do fall on multiples of ten: nine of ten neighbours differ.
    changes = sum(a != b for a, b in itertools.pairwise(drawn[::10]))
    assert 240 < changes < 299


@pytest.mark.parametrize("rectangular", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_run_starts_with_the_largest_shape(seed: int, rectangular: bool) -> None:
    shapes = RandomShapes(64, 160, every=4, rectangular=rectangular)
    assert [shapes.shape(seed, iteration) for iteration in range(4)] == [(160, 160)] * 4
    assert {shapes.shape(seed, iteration) for iteration in range(4, 80)} != {(160, 160)}


def test_rectangular_draws_height_and_width_apart() -> None:
    shapes = RandomShapes(64, 128, step=32, every=1, rectangular=True)
    assert {shapes.shape(0, iteration) for iteration in range(200)} == set(itertools.product((64, 96, 128), repeat=2))


def test_shapes_follow_from_seed_and_position_alone() -> None:
    here, there = RandomShapes(every=3), RandomShapes(every=3)
    backwards = [there.shape(5, iteration) for iteration in reversed(range(60))]
    assert [here.shape(5, iteration) for iteration in range(60)] == backwards[::-1]
    assert backwards != [here.shape(6, iteration) for iteration in reversed(range(60))]


def test_every_wrong_argument_is_named_at_once() -> None:
    with pytest.raises(UserError) as error:
        RandomShapes(300, 620, every=0)
    for part in ("low=300", "nearest is 288", "high=620", "nearest is 608", "every=0"):
        assert part in str(error.value)
    with pytest.raises(UserError, match="exchange"):
        RandomShapes(608, 320)
    with pytest.raises(UserError, match="not reached"):
        RandomShapes(320, 608, step=64)
