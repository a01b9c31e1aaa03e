"""Presets: the recipes' shapes, boxes on their pixels through the whole pipeline, no heavy import without need."""

from __future__ import annotations

import importlib
import os
import pickle
import sys

import numpy as np
import pytest

from transfer.augment.pipeline import Pipeline
from transfer.augment.presets import one_stage_train, square_test, square_train, two_stage_test, two_stage_train
from transfer.types import Request, Sample

BOXES = [[60, 30, 131, 88], [1.25, 2.75, 30, 40], [100, 50, 100.5, 120]]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_pipeline_runs_in_order_and_gives_each_step_a_stream_of_its_own(noise) -> None:
    drawn: list[tuple[str, float]] = []

    def drawing(name: str, draws: int):
        def step(sample: Sample, request: Request, generator: np.random.Generator) -> Sample:
            drawn.append((name, float(generator.random(draws)[0])))
            return sample

        return step

    sample = noise(4, 4)
    Pipeline([drawing("a", 1), drawing("b", 1)])(sample, Request(0, 0), rng(0))
    Pipeline([drawing("a", 9), drawing("b", 1)])(sample, Request(0, 0), rng(0))
    assert [name for name, _ in drawn] == ["a", "b", "a", "b"]
    assert drawn[:2] == drawn[2:]  # what the first step draws does not move the second
    assert drawn[0][1] != drawn[1][1]
    assert Pipeline([])(sample, Request(0, 0), rng(0)) is sample


def test_two_stage_train_is_short_side_and_flip(noise) -> None:
    sample = noise(120, 160, BOXES)
    straight = two_stage_train(60, 100, flip=0.0)(sample, Request(0, 0), rng(0))
    assert straight.image.shape == (60, 80, 3)
    assert straight.boxes.tolist() == [[30, 15, 65.5, 44], [0.625, 1.375, 15, 20]]
    assert straight.dropped == {"ResizeShortSide": 1}  # a quarter of a pixel wide
    # Flipped before it is resized: the same but for rounding, at any scale.
    larger = [two_stage_train(200, 400, flip=flip)(sample, Request(0, 0), rng(0)) for flip in (0.0, 1.0)]
    assert np.abs(larger[1].image.astype(int) - larger[0].image[:, ::-1]).max() <= 1
    flipped = two_stage_train(60, 100, flip=1.0)(sample, Request(0, 0), rng(0))
    assert flipped.boxes.tolist() == [[14.5, 15, 50, 44], [65, 1.375, 79.375, 20]]
    assert np.array_equal(flipped.image, straight.image[:, ::-1])


@pytest.mark.parametrize(
    ("preset", "shape"),
    [
        (two_stage_test(60, 100), (60, 80)),
        (square_test(64), (64, 64)),
        (square_test((32, 48)), (32, 48)),
        (square_test(64, keep_aspect=True), (48, 64)),
    ],
)
def test_test_presets_keep_every_box_and_can_be_undone(noise, preset: Pipeline, shape: tuple[int, int]) -> None:
    sample = noise(120, 160, BOXES)
    made = preset(sample, Request(0, 0), rng(0))
    assert made.image.shape == (*shape, 3)
    assert made.original_size == (120, 160)
    scale_y, scale_x = made.scale
    assert made.boxes / [scale_x, scale_y, scale_x, scale_y] == pytest.approx(sample.boxes, rel=1e-6)
    again = preset(sample, Request(0, 9), rng(1))
    assert np.array_equal(made.image, again.image)


def test_training_presets_come_out_in_the_requested_shape(noise) -> None:
    sample = noise(120, 160, BOXES)
    for preset in (square_train(320), one_stage_train(), one_stage_train(None, colour=False)):
        assert preset(sample, Request(0, 0, (64, 96)), rng(0)).image.shape == (64, 96, 3)
    assert square_train(40)(sample, Request(0, 0), rng(0)).image.shape == (40, 40, 3)
    assert square_train(40, keep_aspect=True)(sample, Request(0, 0), rng(0)).image.shape == (30, 40, 3)


def test_one_stage_boxes_stay_on_their_pixels(painted, extent) -> None:
    preset = one_stage_train(128, colour=False, expand_ratio=2, fill=(30, 30, 30))
    plain, crops = square_train(128, flip=0.0)(painted(97, 110, (30, 25, 71, 60)), Request(0, 0), rng(0)), 0
    for seed in range(40):
        made = preset(painted(97, 110, (30, 25, 71, 60)), Request(0, 0), rng(seed))
        assert made.image.shape == (128, 128, 3)
        assert np.abs(extent(made.image) - made.boxes[0]).max() <= 1
        crops += not np.allclose(made.boxes, plain.boxes)
    assert crops > 25


def test_one_stage_off_equals_the_square_preset(noise) -> None:
    sample = noise(120, 160, BOXES[:2])
    off = one_stage_train(64, colour=False, expand=0, crop=0, flip=1.0)(sample, Request(0, 0), rng(3))
    plain = square_train(64, flip=1.0)(sample, Request(0, 0), rng(4))
    assert np.array_equal(off.image, plain.image)
    assert np.array_equal(off.boxes, plain.boxes)


def test_one_stage_is_a_function_of_its_generator(noise) -> None:
    sample = noise(120, 160, BOXES)
    first = one_stage_train(64)
    second = pickle.loads(pickle.dumps(first))  # what a worker gets where processes are spawned
    for seed in range(6):
        a, b = first(sample, Request(0, 0), rng(seed)), second(sample, Request(0, 0), rng(seed))
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.boxes, b.boxes)
        assert a.dropped == b.dropped


def test_only_blur_imports_albumentations_and_its_search_for_updates_is_off(monkeypatch) -> None:
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE", raising=False)
    for name in [name for name in sys.modules if name.startswith("transfer.augment")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "albumentations", None)  # importing it now raises ImportError
    presets = importlib.import_module("transfer.augment.presets")
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
    for preset in (presets.two_stage_train, presets.two_stage_test, presets.square_train, presets.square_test):
        preset()
    presets.one_stage_train()
    presets.segmentation_train(blur=0, colour=True)
    with pytest.raises(ImportError):
        presets.segmentation_train()
