"""Presets of classification: Bag of Tricks' steps in order, each switched off by its own argument, any image."""

from __future__ import annotations

import importlib
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from transfer.augment.classification_presets import classification_test, classification_train
from transfer.augment.image_crops import RandomResizedCrop
from transfer.augment.pipeline import Pipeline
from transfer.augment.policies import AutoAugment, TimmRandAugment, TrivialAugment
from transfer.types import Request, Sample, UserError

ANY = Request(0, 0)
OFF = dict(flip=0.0, colour=0.0, pca_noise=0.0)
SIZES = [(40, 56), (5, 5), (5, 500), (400, 3), (1, 1)]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def names(pipeline: Pipeline) -> list[str]:
    return [type(step).__name__ for step in pipeline.steps]


def labelled(make, height: int, width: int, *, grey: bool = False) -> Sample:
    image = make(height, width).image
    image = np.repeat(image[:, :, :1], 3, axis=2) if grey else image
    image.setflags(write=False)
    return replace(make(height, width), image=image, label=2)


def test_the_defaults_are_the_papers_steps_in_order() -> None:
    assert names(classification_train()) == ["RandomResizedCrop", "HorizontalFlip", "ColorJitter", "PCANoise"]
    crop, flip, colour, noise = classification_train().steps
    assert (crop.size, crop.scale, crop.ratio) == ((224, 224), (0.08, 1.0), (0.75, 4 / 3))
    assert (colour.brightness, colour.contrast, colour.saturation) == (0.4,) * 3
    assert (colour.hue, colour.p, flip.p, noise.std) == (0, 1.0, 0.5, 0.1)
    everything = classification_train(policy="autoaugment", hue=0.1, erasing=0.25, cutout=0.5)
    assert names(everything) == [
        *("RandomResizedCrop", "HorizontalFlip", "AutoAugment", "ColorJitter", "PCANoise", "RandomErasing", "Cutout")
    ]
    assert everything.steps[3].hue == 0.1
    assert (everything.steps[5].p, everything.steps[6].side) == (0.25, 0.5)


def test_all_off_is_the_crop_alone_bit_for_bit(noise) -> None:
    off = classification_train(32, interpolation="area", **OFF)
    alone = Pipeline([RandomResizedCrop(32, interpolation="area")])
    assert names(off) == ["RandomResizedCrop"]
    for seed in range(6):
        sample = labelled(noise, 50, 61)
        assert np.array_equal(off(sample, ANY, rng(seed)).image, alone(sample, ANY, rng(seed)).image)


@pytest.mark.parametrize(
    ("argument", "step"),
    [
        ({"flip": 0.3}, "HorizontalFlip"),
        ({"policy": "trivialaugment"}, "TrivialAugment"),
        ({"policy": "rand-m5"}, "TimmRandAugment"),
        ({"colour": 0.2}, "ColorJitter"),
        ({"hue": 0.1}, "ColorJitter"),
        ({"pca_noise": 0.2}, "PCANoise"),
        ({"erasing": 0.4}, "RandomErasing"),
        ({"cutout": 0.3}, "Cutout"),
    ],
)
def test_each_argument_switches_its_own_step(noise, argument, step) -> None:
    on = classification_train(24, **{**OFF, **argument})
    assert names(on) == ["RandomResizedCrop", step]
    sample, off = labelled(noise, 40, 40), classification_train(24, **OFF)
    pairs = [[preset(sample, ANY, rng(seed)).image for preset in (on, off)] for seed in range(25)]
    assert any(not np.array_equal(*pair) for pair in pairs)


def test_hue_alone_keeps_brightness_and_greys(noise) -> None:
    grey = labelled(noise, 40, 40, grey=True)
    turned = classification_train(24, hue=0.5, **OFF)(grey, ANY, rng(0)).image
    assert np.array_equal(turned, classification_train(24, **OFF)(grey, ANY, rng(0)).image)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("policy", [None, "autoaugment", "randaugment", "trivialaugment", "augmix", "rand-m9-mstd0.5"])
def test_any_image_comes_out_in_shape_and_repeats(noise, size, grey, policy) -> None:
    preset = classification_train(16, policy=policy, hue=0.1, erasing=0.5, cutout=0.2)
    again = pickle.loads(pickle.dumps(preset))  # what a worker gets where processes are spawned
    sample = labelled(noise, *size, grey=grey)
    before = torch.get_rng_state()
    for seed in range(3):
        made = preset(sample, ANY, rng(seed))
        assert made.image.shape == (16, 16, 3)
        assert made.image.dtype == np.uint8
        assert (made.label, made.boxes.shape, made.mask) == (2, (0, 4), None)
        assert np.array_equal(made.image, again(sample, ANY, rng(seed)).image)
    assert preset(sample, Request(0, 0, (12, 20)), rng(0)).image.shape == (12, 20, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_colour_and_flip_keep_greys_and_only_pca_noise_tints(noise) -> None:
    grey = labelled(noise, 40, 40, grey=True)
    for seed in range(8):
        image = classification_train(16, pca_noise=0)(grey, ANY, rng(seed)).image.astype(int)
        assert np.ptp(image, axis=2).max() <= 1  # saturation goes through a rounded grey
    tinted = classification_train(16, pca_noise=1.0, flip=0, colour=0)(grey, ANY, rng(1)).image.astype(int)
    assert np.ptp(tinted, axis=2).max() > 1


def test_a_policy_is_a_name_or_any_step() -> None:
    own = AutoAugment("cifar10")
    assert classification_train(policy=own, **OFF).steps[1] is own
    assert isinstance(classification_train(policy="trivialaugment", **OFF).steps[1], TrivialAugment)
    timm = classification_train(policy="rand-m3-n1", **OFF).steps[1]
    assert isinstance(timm, TimmRandAugment)
    assert timm.config == "rand-m3-n1"
    with pytest.raises(UserError, match=r"policy='randaug' is not one of .*'randaugment'"):
        classification_train(policy="randaug")
    for wrong in (AutoAugment, 9):
        with pytest.raises(UserError, match="is neither a name nor a step"):
            classification_train(policy=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "short", "crop"),
    [
        ({}, 256, (224, 224)),  # the paper's
        ({"size": 299}, 342, (299, 299)),
        ({"size": 299, "short": 320}, 320, (299, 299)),
        ({"size": 7, "crop_share": 0.7}, 10, (7, 7)),
        ({"size": 64, "crop_share": 1}, 64, (64, 64)),
        ({"size": (128, 96)}, 147, (128, 96)),  # 146.3
    ],
)
def test_the_test_preset_resizes_the_short_side_and_crops_the_middle(noise, arguments, short, crop) -> None:
    preset = classification_test(**arguments)
    assert names(preset) == ["TrimLongSide", "ResizeShortSide", "CenterCrop"]
    assert (preset.steps[1].short, preset.steps[2].size) == (short, crop)
    made = preset(labelled(noise, 300, 200), Request(0, 0), rng(0))
    assert made.image.shape == (*crop, 3)
    assert made.label == 2


def test_the_test_preset_agrees_with_torchvision_where_nothing_is_averaged(noise) -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    sample = labelled(noise, 40, 60)
    # Enlarged, so that antialiasing has nothing to do: 40 x 60 -> 80 x 120 -> the middle 70.
    theirs = Compose([Resize(80, InterpolationMode.BILINEAR), CenterCrop(70)])
    expected = theirs(torch.tensor(sample.image.transpose(2, 0, 1))).numpy().transpose(1, 2, 0).astype(int)
    made = classification_test(70)(sample, ANY, rng(0)).image.astype(int)
    assert np.abs(made - expected).max() <= 1


@pytest.mark.parametrize("size", [*SIZES, (1, 5000)])
@pytest.mark.parametrize("interpolation", ["bilinear", "area"])
def test_the_test_preset_takes_any_image_and_draws_nothing(noise, size, interpolation) -> None:
    preset = pickle.loads(pickle.dumps(classification_test(64, interpolation=interpolation)))
    sample = labelled(noise, *size)
    first, again = (preset(sample, Request(0, seed), rng(seed)).image for seed in (1, 2))
    assert first.shape == (64, 64, 3)
    assert np.array_equal(first, again)


def test_trimming_a_strip_does_not_move_what_the_crop_sees() -> None:
    ramp = np.repeat(np.abs(np.arange(61) - 30).astype(np.uint8)[None, :, None] * 8, 4, axis=0).repeat(3, axis=2)
    sample = Sample(
        image=ramp,
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        difficult=np.zeros(0, np.bool_),
        weights=np.zeros(0, np.float32),
        index=0,
        image_id="strip",
        path="strip.jpg",
        original_size=(4, 61),
        label=0,
    )
    trimmed = classification_test(7, short=8)(sample, ANY, rng(0)).image
    whole = Pipeline(classification_test(7, short=8).steps[1:])(sample, ANY, rng(0)).image
    assert np.array_equal(trimmed, whole)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"flip=-1 .*colour=True .*hue=0.6 .*erasing='1' "):
        classification_train(flip=-1, colour=True, hue=0.6, erasing="1")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="RandomResizedCrop: interpolation='linear'"):
        classification_train(interpolation="linear")
    for arguments, message in (
        ({"size": 64, "short": 60}, "short=60 must be at least 64"),
        ({"crop_share": 0}, "crop_share=0 "),
        ({"crop_share": 1.1}, r"crop_share=1\.1 "),
        ({"size": 0}, "CenterCrop: size=0"),
    ):
        with pytest.raises(UserError, match=message):
            classification_test(**arguments)  # type: ignore[arg-type]


def test_heavy_libraries_are_imported_only_where_a_step_needs_them(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("transfer.augment")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("albumentations", "torchvision.transforms", "timm.data.auto_augment"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it now raises ImportError
    presets = importlib.import_module("transfer.augment.classification_presets")
    presets.classification_test()
    presets.classification_train(erasing=0.1, cutout=0.1)
    for policy in ("augmix", "rand-m9"):
        with pytest.raises(ImportError):
            presets.classification_train(policy=policy)
