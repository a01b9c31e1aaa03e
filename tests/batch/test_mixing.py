"""Mixed pairs over a run: who is mixed follows from the position, and mixing ends at the iteration it should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from transfer.assemble import build_data
from transfer.augment.box_mixup import BoxMixup
from transfer.batch.collate import Collate, make_loader
from transfer.batch.mixing import mixed_iterations
from transfer.batch.requests import RequestBatches
from transfer.batch.view import TrainingView
from transfer.engine.distributed import World
from transfer.loading import loader_settings, training_batches
from transfer.types import Request, Sample, UserError

ALONE = World(0, 1, torch.device("cpu"))
BOX_MIXUP = "transfer.augment.box_mixup.BoxMixup"


def add_noise(sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
    return replace(sample, image=sample.image ^ rng.integers(0, 256, sample.image.shape, dtype=np.uint8))


def requests_of(**options: Any) -> list[list[Request]]:
    arguments = {"batch_size": 8, "seed": 3, "iterations": 14, "mixer": BoxMixup().draw, "mix_until": 11}
    return list(RequestBatches(50, **(arguments | options)))


def test_requests_are_the_same_for_any_number_of_ranks_and_start() -> None:
    whole = requests_of()
    assert sum(request.mix is not None for batch in whole for request in batch) == 11 * 8
    assert all(request.mix is None or request.mix.index != request.index for batch in whole for request in batch)
    for world_size in (2, 4):
        ranks = [requests_of(rank=rank, world_size=world_size) for rank in range(world_size)]
        assert [[request for part in parts for request in part] for parts in zip(*ranks, strict=True)] == whole
    for start in (5, 10, 11, 13):
        assert requests_of(start=start) == whole[start:]
    weights = [request.mix.weight for batch in whole for request in batch if request.mix is not None]
    assert len(set(weights)) == len(weights)


def test_batches_are_the_same_for_any_number_of_workers(memory_dataset) -> None:
    view = TrainingView(memory_dataset(13), add_noise, combine=BoxMixup().combine)

    def loaded(workers: int) -> list[Any]:
        requests = RequestBatches(13, batch_size=4, seed=5, iterations=6, mixer=BoxMixup().draw, mix_until=4)
        return list(make_loader(view, requests, Collate((1, 2, 3)), workers=workers))

    alone, others = loaded(0), loaded(2)
    assert len(alone) == len(others) == 6
    for ours, theirs in zip(others, alone, strict=True):
        assert torch.equal(ours.images, theirs.images)
        for a, b in zip(ours.targets, theirs.targets, strict=True):
            assert a.path == b.path
            assert torch.equal(a.boxes, b.boxes)
            assert torch.equal(a.weights, b.weights)
    assert all("mixed with" in target.path for batch in alone[:4] for target in batch.targets)


# ---- when mixing ends ----


@pytest.mark.parametrize(
    ("last", "total", "per_epoch", "mixed"),
    [
        (0, 280, 1, 280),
        (20, 280, 1, 260),  # COCO's recipe, epochs as iterations
        (20, 21 * 7, 7, 7),
        (1.5, 40, 10, 25),
        (0.001, 40, 10, 39),  # asked for, so not rounded to none
        (1, 25, 10, 15),  # a run of two epochs and a half
    ],
)
def test_mixed_iterations(last: float, total: int, per_epoch: int, mixed: int) -> None:
    mixing = BoxMixup(last_epochs_without=last)
    assert mixed_iterations(mixing, total=total, per_epoch=per_epoch, images=9) == mixed


@pytest.mark.parametrize(("last", "epochs"), [(20, 20), (20, 12), (0.5, 0.25)])
def test_a_run_that_would_never_mix_is_refused(last: float, epochs: float) -> None:
    with pytest.raises(UserError) as error:
        mixed_iterations(BoxMixup(last_epochs_without=last), total=round(epochs * 8), per_epoch=8, images=9)
    for part in (f"loader.mixup.last_epochs_without={last:g}", f"{epochs:g} epochs", "smaller", "loader.mixup=None"):
        assert part in str(error.value)


def test_what_cannot_mix_is_refused() -> None:
    with pytest.raises(UserError, match=r"loader.mixup=True .*BoxMixup"):
        mixed_iterations(True, total=8, per_epoch=4, images=9)
    with pytest.raises(UserError, match=r"data.train has 1: give loader.mixup=None"):
        mixed_iterations(BoxMixup(), total=8, per_epoch=4, images=1)


# ---- from a config ----


def with_run(config: dict[str, Any], mixup: dict[str, Any] | None, **training: Any) -> dict[str, Any]:
    if mixup is not None:
        config["loader"]["mixup"] = {"type": BOX_MIXUP, **mixup}
    config["training"].update(training)
    return config


class EightImages:
    """Requests are looked at, images are not."""

    def __len__(self) -> int:
        return 8


def sampler_of(config: dict[str, Any], iteration: int = 0) -> list[list[Request]]:
    batches_from, _ = training_batches(config, EightImages(), (0, 0, 0), ALONE)  # type: ignore[arg-type]
    return list(batches_from(iteration).batch_sampler)  # type: ignore[attr-defined]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_config_turns_mixing_off_at_the_right_iteration(tiny_config: dict[str, Any], accumulate: int) -> None:
    # 8 images, 2 an optimizer step: 4 steps an epoch, 12 in all, mixed but for the last 4 (in micro-batches the same
    # number of images each).
    config = with_run(tiny_config, {"last_epochs_without": 1}, epochs=3, accumulate=accumulate)
    batches = sampler_of(config)
    assert len(batches) == 12 * accumulate
    mixed = [[request.mix is not None for request in batch] for batch in batches]
    size = 2 // accumulate
    assert mixed == [[True] * size] * (8 * accumulate) + [[False] * size] * (4 * accumulate)
    for iteration in (7, 8, 9):
        assert sampler_of(config, iteration) == batches[iteration * accumulate :]


def test_without_mixup_requests_are_as_ever_and_mixup_adds_nothing_but_the_partner(
    tiny_config: dict[str, Any],
) -> None:
    assert loader_settings(tiny_config).mixup is None
    plain = sampler_of(with_run(tiny_config, None, epochs=3))
    assert plain == list(RequestBatches(8, batch_size=2, seed=0, iterations=12))
    assert all(request.mix is None for batch in plain for request in batch)
    mixed = sampler_of(with_run(tiny_config, {"even": True}, epochs=3))
    assert [[request._replace(mix=None) for request in batch] for batch in mixed] == plain
    assert {request.mix.weight for batch in mixed for request in batch if request.mix is not None} == {0.5}
    assert all(request.mix is not None for batch in mixed for request in batch)


def test_a_configs_batches_carry_the_boxes_of_both_images(tiny_config: dict[str, Any]) -> None:
    config = with_run(tiny_config, {"last_epochs_without": 1}, epochs=2)
    data = build_data(config).train
    batches_from, per_epoch = training_batches(config, data, (0, 0, 0), ALONE)
    loader = batches_from(0)
    for step, (requests, batch) in enumerate(zip(loader.batch_sampler, loader, strict=True)):  # type: ignore[attr-defined]
        for request, target in zip(requests, batch.targets, strict=True):
            pair = [(request.index, 1.0)]
            if step < per_epoch:
                pair = [(request.index, request.mix.weight), (request.mix.index, 1 - request.mix.weight)]
            records = [data.record(index) for index, _ in pair]
            weights = [share for (_, share), record in zip(pair, records, strict=True) for _ in record.labels]
            assert target.labels.tolist() == [label for record in records for label in record.labels]
            assert target.weights.tolist() == pytest.approx(weights)
            assert ("mixed with" in target.path) == (step < per_epoch)
            assert target.original_size == tuple(np.max([record.size for record in records], axis=0))
