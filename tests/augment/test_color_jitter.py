"""Colour jitter: its changes against torchvision and colorsys, its draws, and what it leaves alone."""

from __future__ import annotations

import colorsys
import itertools
import math
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

import transfer.augment.color_jitter as module
from transfer.augment.color_jitter import ColorJitter, colour_map
from transfer.types import Request, UserError

ANY = Request(0, 0)
LUMA = np.array([0.299, 0.587, 0.114])
OFF = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def recoloured(
    image: np.ndarray, brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0, turns: float = 0.0
) -> np.ndarray:
    mean = float(image.mean(axis=(0, 1)) @ LUMA)
    return cv2.transform(image, colour_map(brightness, contrast, saturation, turns, mean))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_three_changes_equal_torchvisions_one_after_another_in_any_order(order: tuple[int, ...]) -> None:
    image = rng(0).integers(90, 150, (40, 50, 3), dtype=np.uint8)  # nothing gets near the ends: torchvision clips there
    adjust = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for factors in itertools.product((0.7, 1.3), repeat=3):
        pixels = torch.from_numpy(image).permute(2, 0, 1) / 255
        for change in order:
            pixels = adjust[change](pixels, factors[change])
        # Rounded once, to within half a level; a quarter more, for OpenCV works with whole numbers.
        assert np.abs(recoloured(image, *factors) - 255 * pixels.permute(1, 2, 0).numpy()).max() < 0.8


@pytest.mark.parametrize("change", range(3))
def test_a_single_change_equals_torchvisions(change: int, noise) -> None:
    adjust = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    image = noise(40, 50).image  # of all levels: both clip at the end
    for factor in (0.0, 0.6, 0.95, 1.4):
        factors = [factor if position == change else 1.0 for position in range(3)]
        expected = adjust[change](torch.from_numpy(image).permute(2, 0, 1) / 255, factor)
        assert np.abs(recoloured(image, *factors) - 255 * expected.permute(1, 2, 0).numpy()).max() < 0.8


def test_the_hue_is_a_rotation_of_the_two_colour_axes() -> None:
    axes = np.array([colorsys.rgb_to_yiq(*unit) for unit in np.eye(3)]).T  # rounded to two digits: 0.59 for 0.587
    for turns in (-0.1, 0.05, 0.25, 0.5):
        cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
        turned = colour_map(1, 1, 1, turns, 128)
        for colour in rng(1).uniform(80, 180, (20, 3)):
            y, i, q = axes @ colour
            expected = np.linalg.inv(axes) @ [y, cosine * i + sine * q, cosine * q - sine * i]
            assert turned @ [*colour, 1] == pytest.approx(expected, abs=2.5)
        assert turned @ [77, 77, 77, 1] == pytest.approx(np.full(3, 77), abs=1e-9)  # grey stays
        assert LUMA @ turned == pytest.approx([*LUMA, 0], abs=1e-9)
    there, back = colour_map(1, 1, 1, 0.3, 128)[:, :3], colour_map(1, 1, 1, -0.3, 128)[:, :3]
    assert there @ back == pytest.approx(np.eye(3), abs=1e-9)


@pytest.mark.parametrize("turns", [0.1, -0.1])
def test_the_hue_turns_the_way_that_hsv_turns_it(turns: float) -> None:
    moved = []
    for colour in rng(1).uniform(0.2, 0.8, (200, 3)):
        if np.ptp(colour) > 0.2:  # a colour that is nearly grey has no hue to speak of
            before, after = (
                colorsys.rgb_to_hsv(*each)[0] for each in (colour, colour_map(1, 1, 1, turns, 0)[:, :3] @ colour)
            )
            moved.append((after - before + 0.5) % 1 - 0.5)
    assert np.mean(moved) == pytest.approx(turns, abs=0.015)
    assert np.abs(np.array(moved) - turns).max() < 0.05


def test_all_four_at_once_are_one_after_another() -> None:
    amounts, mean = (1.2, 0.7, 1.4, 0.08), 100.0
    whole = np.vstack([colour_map(*amounts, mean), [0, 0, 0, 1]])
    for order in itertools.permutations(range(4)):
        product, grey = np.eye(4), mean
        for change in order:
            single = [
                amounts[change] if position == change else neutral for position, neutral in enumerate((1, 1, 1, 0))
            ]
            product = np.vstack([colour_map(*single, grey), [0, 0, 0, 1]]) @ product
            grey *= amounts[0] if change == 0 else 1  # nothing else moves the mean grey
        assert product == pytest.approx(whole, abs=1e-9)


def test_what_is_too_bright_or_too_dark_is_clipped() -> None:
    image = np.repeat(np.array([250, 3], np.uint8), 6).reshape(2, 2, 3)
    assert np.unique(recoloured(image, brightness=1.4)).tolist() == [4, 255]
    assert np.unique(recoloured(image, contrast=1.4)).tolist() == [0, 255]


def test_it_changes_colours_only(noise) -> None:
    sample = noise(40, 50, [[1.3, 2.7, 30.1, 39.9]])
    before = sample.image.copy()
    jittered = ColorJitter()(sample, ANY, rng(0))
    assert jittered.image.dtype == np.uint8
    assert not np.array_equal(jittered.image, before)
    assert np.array_equal(sample.image, before)
    assert jittered.boxes is sample.boxes
    assert np.array_equal(ColorJitter(**OFF)(sample, ANY, rng(0)).image, before)
    assert ColorJitter(p=0.0)(sample, ANY, rng(0)) is sample


def test_brightness_stays_within_its_factors(noise) -> None:
    sample = noise(40, 50)
    sample.image[:] = 100
    step = ColorJitter(**{**OFF, "brightness": 0.4})
    levels = [float(step(sample, ANY, rng(seed)).image.mean()) for seed in range(60)]
    assert min(levels) >= 59
    assert max(levels) <= 141
    assert max(levels) - min(levels) > 60


def test_amounts_are_drawn_evenly_each_for_itself(noise, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, ...]] = []

    def keeping(*amounts: float) -> np.ndarray:
        drawn.append(amounts)
        return np.eye(3, 4)

    monkeypatch.setattr(module, "colour_map", keeping)
    step, sample = ColorJitter(brightness=0.2, contrast=0.4, saturation=0.6, hue=0.1, p=0.5), noise(2, 2)
    generator = rng(0)
    for _ in range(4000):
        step(sample, ANY, generator)
    assert abs(len(drawn) - 2000) < 160  # five standard deviations of 31.6
    *amounts, means = np.array(drawn).T
    assert means == pytest.approx(np.full(len(drawn), sample.image.mean(axis=(0, 1)) @ LUMA))
    scaled = (np.array(amounts) - [[1], [1], [1], [0]]) / [[0.2], [0.4], [0.6], [0.1]]
    assert np.abs(scaled).max() <= 1
    assert np.abs(scaled.mean(axis=1)).max() < 0.065  # five standard deviations of 0.577 / sqrt(2000)
    assert scaled.std(axis=1) == pytest.approx(np.full(4, 1 / math.sqrt(3)), abs=0.04)
    assert np.abs(np.corrcoef(scaled) - np.eye(4)).max() < 0.12


def test_it_is_a_function_of_its_generator(noise) -> None:
    sample = noise(20, 30)
    first, second = ColorJitter(), pickle.loads(pickle.dumps(ColorJitter()))
    made = [first(sample, ANY, rng(seed)).image for seed in range(5)]
    again = [second(replace(sample), ANY, rng(seed)).image for seed in reversed(range(5))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    assert len({image.tobytes() for image in made}) == 5


def test_every_mistake_is_named() -> None:
    with pytest.raises(UserError, match=r"brightness=2.*hue=0.7"):
        ColorJitter(brightness=2, hue=0.7)
