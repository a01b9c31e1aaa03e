"""Requests: a run is a function of (seed, position), whatever the ranks, the start and the workers."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.batch.requests import RequestBatches, evaluation_batches
from transfer.batch.shapes import FixedShape, RandomShapes
from transfer.types import Mix, Request, UserError

ASPECT = [0.5 + 0.07 * ((7 * index) % 19) for index in range(50)]


def fake_mixer(rng: np.random.Generator, index: int, length: int) -> Mix | None:
    """Half of the images are mixed with another one."""
    return Mix(int(rng.integers(length)), float(rng.beta(1.5, 1.5))) if rng.random() < 0.5 else None


def run(length: int = 50, **options: object) -> list[list[Request]]:
    arguments = {"batch_size": 8, "seed": 3, "shapes": RandomShapes(64, 128, every=2), "mixer": fake_mixer}
    return list(RequestBatches(length, **(arguments | {"iterations": 20} | options)))  # type: ignore[arg-type]


@pytest.mark.parametrize("aspect", [None, ASPECT])
@pytest.mark.parametrize("start", [1, 5, 6, 7, 19])
def test_starting_later_gives_the_tail(start: int, aspect: list[float] | None) -> None:
    assert run(start=start, aspect=aspect) == run(aspect=aspect)[start:]


@pytest.mark.parametrize("aspect", [None, ASPECT])
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_make_the_global_batch(world_size: int, aspect: list[float] | None) -> None:
    ranks = [run(rank=rank, world_size=world_size, aspect=aspect) for rank in range(world_size)]
    together = [[request for part in parts for request in part] for parts in zip(*ranks, strict=True)]
    assert together == run(aspect=aspect)


def test_iterating_again_starts_again() -> None:
    batches = RequestBatches(20, batch_size=4, seed=0, start=2, iterations=9)
    assert list(batches) == list(batches)
    assert len(batches) == len(list(batches)) == 7


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 60),
    batch_size=st.integers(1, 16),
    seed=st.integers(0, 2**63 - 1),
    tall=st.floats(0, 1),
    grouped=st.booleans(),
)
def test_an_epoch_draws_each_image_at_most_once(
    length: int, batch_size: int, seed: int, tall: float, grouped: bool
) -> None:
    aspect = [1.5 if index < tall * length else 0.75 for index in range(length)] if grouped else None
    batches = RequestBatches(length, batch_size=batch_size, seed=seed, aspect=aspect)
    for epoch in range(2):
        order = batches.epoch_batches(epoch)
        assert order.shape == (max(1, length // batch_size), batch_size)
        counts = Counter(order.ravel().tolist())
        assert set(counts) <= set(range(length))
        if length < batch_size:  # repeated within the one batch, as evenly as can be
            assert len(counts) == length
            assert max(counts.values()) - min(counts.values()) <= 1
        else:
            assert max(counts.values()) == 1
            assert len(counts) == length - length % batch_size
        if aspect is not None and length >= batch_size:
            mixed = [row for row in order.tolist() if len({aspect[index] for index in row}) > 1]
            assert len(mixed) <= 1


def test_epochs_and_seeds_differ_in_order() -> None:
    batches = RequestBatches(40, batch_size=8, seed=0)
    assert batches.iterations_per_epoch == 5
    assert [batches.epoch_of(iteration) for iteration in (0, 4, 5, 14)] == [0, 0, 1, 2]
    orders = [batches.epoch_batches(epoch).ravel().tolist() for epoch in range(3)]
    orders.append(RequestBatches(40, batch_size=8, seed=1).epoch_batches(0).ravel().tolist())
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(40)) for order in orders)
    run_of_two_epochs = [request.index for batch in islice(batches, 10) for request in batch]
    assert run_of_two_epochs == orders[0] + orders[1]


def test_dropped_images_have_their_turn_in_other_epochs() -> None:
    batches = RequestBatches(10, batch_size=8, seed=0)
    assert set(np.concatenate([batches.epoch_batches(epoch).ravel() for epoch in range(12)]).tolist()) == set(range(10))


def test_without_shuffling_images_come_in_order() -> None:
    batches = RequestBatches(10, batch_size=3, seed=0, shuffle=False, iterations=3)
    assert [[request.index for request in batch] for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_grouped_batches_come_in_shuffled_order() -> None:
    aspect = [2.0] * 32 + [0.5] * 32
    kinds = RequestBatches(64, batch_size=4, seed=0, aspect=aspect).epoch_batches(0)[:, 0] < 32
    assert 0 < kinds[:8].sum() < 8


def test_seeds_are_unique_in_range_and_new_each_epoch() -> None:
    requests = [request for batch in run(iterations=60) for request in batch]
    assert len({request.seed for request in requests}) == len(requests) == 480
    assert all(0 <= request.seed < 2**63 for request in requests)
    assert len({request.seed >> 53 for request in requests}) > 300  # the high bits vary: expected 383 of 1024 cells
    repeated = run(length=3, iterations=1)[0]  # the same image within one batch, too
    assert len({request.seed for request in repeated}) == 8
    assert {request.seed for request in run(seed=4)[0]}.isdisjoint(request.seed for request in requests)


def test_streams_of_image_mix_and_shape_are_apart() -> None:
    without = run(mixer=None, shapes=None)
    assert [[(r.index, r.seed) for r in batch] for batch in without] == [
        [(r.index, r.seed) for r in batch] for batch in run()
    ]
    assert all(request.size is None and request.mix is None for batch in without for request in batch)


def test_a_batch_has_one_shape_and_mixing_ends_where_told() -> None:
    batches = run(mix_until=12)
    shapes = RandomShapes(64, 128, every=2)
    assert [{request.size for request in batch} for batch in batches] == [{shapes.shape(3, i)} for i in range(20)]
    mixed = [sum(request.mix is not None for request in batch) for batch in batches]
    assert 24 < sum(mixed[:12]) < 72  # half of 96
    assert sum(mixed[12:]) == 0
    assert batches[:12] == run()[:12]


def test_without_end_there_is_no_length() -> None:
    batches = RequestBatches(4, batch_size=2, seed=0, shapes=FixedShape(64))
    with pytest.raises(TypeError, match="no end"):
        len(batches)
    assert len(list(islice(batches, 100))) == 100
    assert len(RequestBatches(4, batch_size=2, seed=0, start=9, iterations=5)) == 0


def test_every_wrong_argument_is_named_at_once() -> None:
    with pytest.raises(UserError) as error:
        RequestBatches(0, batch_size=10, seed=-1, rank=4, world_size=4, start=-2, aspect=[1.0])
    for part in (
        "length=0",
        "batch_size=10",
        "world_size=4",
        "nearest is 8",
        "seed=-1",
        "rank=4",
        "start=-2",
        "1 entries",
    ):
        assert part in str(error.value)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 40), batch_size=st.integers(1, 9), world_size=st.integers(1, 5), grouped=st.booleans())
def test_evaluation_covers_every_image_once(length: int, batch_size: int, world_size: int, grouped: bool) -> None:
    aspect = ASPECT[:length] if grouped else None
    parts = [
        evaluation_batches(length, batch_size, rank=rank, world_size=world_size, aspect=aspect, size=(64, 96))
        for rank in range(world_size)
    ]
    requests = [request for part in parts for batch in part for request in batch]
    assert sorted(request.index for request in requests) == list(range(length))
    assert {(request.seed, request.size, request.mix) for request in requests} == {(0, (64, 96), None)}
    batches = {tuple(request.index for request in batch) for part in parts for batch in part}
    alone = evaluation_batches(length, batch_size, aspect=aspect)
    assert batches == {tuple(request.index for request in batch) for batch in alone}
    order = [request.index for batch in alone for request in batch]
    assert order == (sorted(order, key=lambda index: (ASPECT[index], index)) if grouped else list(range(length)))
