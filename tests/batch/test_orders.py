"""Orders other than each image once: repeated copies, balanced classes, progressive shapes, blended batches."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from transfer.batch.collate import Collate
from transfer.batch.orders import ClassBalanced, Order, OrderByClass, RepeatedAugmentation
from transfer.batch.requests import RequestBatches
from transfer.batch.shapes import PlannedShapes, ProgressiveShapes
from transfer.batch.view import SampleError, ViewedSample
from transfer.types import Request, Target, UserError

LABELS = np.array([0] * 7 + [2] * 3 + [3] * 1)  # of 4 classes; class 1 has no image


def balanced(to: str) -> ClassBalanced:
    order = ClassBalanced(to)
    order.know(LABELS, ("a", "b", "c", "d"))
    return order


def classes_of(indices: np.ndarray) -> Counter[int]:
    return Counter(LABELS[indices].tolist())


@pytest.mark.parametrize(("to", "each"), [("largest", 7), ("smallest", 1), ("mean", 4)])
def test_each_class_with_images_comes_equally_often(to: str, each: int) -> None:
    order = balanced(to)
    assert order.length(len(LABELS)) == 3 * each
    for seed in range(5):
        drawn = order.draw(np.random.default_rng(seed), len(LABELS))
        assert classes_of(drawn) == {0: each, 2: each, 3: each}
        for label in (0, 2, 3):  # of the images of a class, none comes twice more than another
            times = Counter(drawn.tolist())
            counts = [times[index] for index in np.flatnonzero(label == LABELS)]
            assert max(counts) - min(counts) <= 1


def test_under_sampling_takes_other_images_each_epoch_and_over_sampling_all_of_them() -> None:
    rng = np.random.default_rng(0)
    seen = {int(i) for _ in range(60) for i in balanced("smallest").draw(rng, len(LABELS))}
    assert seen == set(range(len(LABELS)))
    assert set(balanced("largest").draw(rng, len(LABELS)).tolist()) == set(range(len(LABELS)))


def test_repeated_augmentation_draws_as_many_images_as_without_and_a_third_of_them() -> None:
    order = RepeatedAugmentation(3)
    drawn = order.draw(np.random.default_rng(0), 11)
    assert order.length(11) == len(drawn) == 11
    assert (drawn[0:9].reshape(3, 3) == drawn[0:9:3, None]).all()  # copies follow each other
    assert sorted(Counter(drawn.tolist()).values()) == [2, 3, 3, 3]


def test_copies_in_a_batch_have_seeds_of_their_own() -> None:
    batches = RequestBatches(12, batch_size=6, seed=0, iterations=2, order=RepeatedAugmentation(3))
    first = next(iter(batches))
    assert sorted(Counter(request.index for request in first).values()) == [3, 3]
    assert len({request.seed for request in first}) == 6


def test_an_order_decides_the_length_of_the_epoch_and_resumes() -> None:
    arguments = {"batch_size": 4, "seed": 5, "iterations": 12}
    whole = RequestBatches(len(LABELS), **arguments, order=balanced("largest"))
    assert whole.iterations_per_epoch == 21 // 4
    rest = RequestBatches(len(LABELS), **arguments, order=balanced("largest"), start=7)
    assert list(rest) == list(whole)[7:]


def test_without_an_order_nothing_changes() -> None:
    # the first epoch of seed 0 as every run of this project drew it before there were orders
    indices = [[request.index for request in batch] for batch in RequestBatches(7, batch_size=3, seed=0, iterations=2)]
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0, 0)))
    assert functools.reduce(operator.iadd, indices, []) == rng.permutation(7)[:6].tolist()


def test_mistakes_are_named() -> None:
    for repeats in (1, 2.5, True):
        with pytest.raises(UserError, match=f"repeats={repeats!r}"):
            RepeatedAugmentation(repeats)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="largest, smallest, mean"):
        ClassBalanced("median")
    assert isinstance(balanced("mean"), OrderByClass)
    assert isinstance(RepeatedAugmentation(), Order)
    assert not isinstance(RepeatedAugmentation(), OrderByClass)


def test_progressive_shapes_grow_in_equal_parts_and_begin_with_the_largest() -> None:
    shapes = ProgressiveShapes(64, 160, step=32, until=0.6)
    assert isinstance(shapes, PlannedShapes)
    shapes.plan(100)
    sides = [shapes.shape(0, iteration) for iteration in range(100)]
    assert sides[0] == (160, 160)
    heights = [side[0] for side in sides if side]
    assert heights[1:20] == [64] * 19
    assert heights[20:40] == [96] * 20
    assert heights[40:60] == [128] * 20
    assert heights[60:] == [160] * 40


def test_progressive_shapes_refuse_what_they_cannot_do() -> None:
    with pytest.raises(UserError, match=r"low=100.*until=0 must be"):
        ProgressiveShapes(100, 224, until=0)
    assert [ProgressiveShapes(96, 96).sides] == [(96,)]


def halves(images: Tensor, targets: list[Target], rng: np.random.Generator) -> tuple[Tensor, list[Target]]:
    """A blend that shows what it was given: the generator's first number goes into the first pixel."""
    changed = images.clone()
    changed[:, 0, 0, 0] = int(rng.integers(256))
    return changed, [dataclasses.replace(target, path="blended") for target in targets]


def viewed(memory_dataset: Any, count: int, blend: int | None) -> list[ViewedSample]:
    dataset = memory_dataset(12)
    samples = [dataclasses.replace(dataset[index], label=index % 3) for index in range(count)]
    return [ViewedSample(sample, Request(sample.index, 0, blend=blend)) for sample in samples]


def test_a_batch_is_blended_from_its_own_seed_where_it_asks_for_it(memory_dataset: Any) -> None:
    collate = Collate((1, 2, 3), blend=halves)
    plain = collate(viewed(memory_dataset, 3, None))
    assert [target.path for target in plain.targets] != ["blended"] * 3
    assert [target.classes.tolist() for target in plain.targets if target.classes is not None] == [[0], [1], [2]]
    assert [target.shares.tolist() for target in plain.targets if target.shares is not None] == [[1.0]] * 3
    first, again, other = (collate(viewed(memory_dataset, 3, seed)) for seed in (7, 7, 8))
    assert [target.path for target in first.targets] == ["blended"] * 3
    assert torch.equal(first.images, again.images)
    assert int(first.images[0, 0, 0, 0]) == int(np.random.default_rng(7).integers(256))
    assert not torch.equal(first.images, other.images)


def test_a_batch_that_is_to_be_blended_needs_a_blend(memory_dataset: Any) -> None:
    with pytest.raises(SampleError, match="blend=None"):
        Collate((0, 0, 0))(viewed(memory_dataset, 2, 1))


def test_the_seed_of_a_blend_is_the_same_on_every_rank_and_ends_where_told() -> None:
    def seeds(rank: int) -> list[set[int | None]]:
        batches = RequestBatches(16, batch_size=4, seed=3, iterations=6, rank=rank, world_size=2, blend_until=4)
        return [{request.blend for request in batch} for batch in batches]

    assert seeds(0) == seeds(1)
    assert all(len(each) == 1 for each in seeds(0))
    assert [None in each for each in seeds(0)] == [False] * 4 + [True] * 2
    assert len(set.union(*seeds(0))) == 5  # four seeds, and none
    assert {request.blend for batch in RequestBatches(16, batch_size=4, seed=3, iterations=2) for request in batch} == {
        None
    }
