"""Resizing: sizes by the published rules, boxes by hand, and against the pixels themselves."""

from __future__ import annotations

import numpy as np
import pytest

from transfer.augment.resizing import LetterboxTo, ResizeShortSide, ResizeTo
from transfer.types import Request, UserError

RNG = np.random.default_rng(0)
ANY = Request(0, 0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((375, 500), (600, 800)),  # the usual VOC photograph
        ((500, 375), (800, 600)),
        ((250, 500), (500, 1000)),  # the long side rules: 600 would make it 1200
        ((600, 1000), (600, 1000)),
        ((1200, 1600), (600, 800)),
        ((333, 500), (600, 901)),  # 900.9
        ((1, 400), (3, 1000)),  # 2.5 is rounded up
    ],
)
def test_short_side(noise, size: tuple[int, int], expected: tuple[int, int]) -> None:
    resized = ResizeShortSide(600, 1000)(noise(*size), Request(0, 0, (64, 64)), RNG)
    assert resized.image.shape == (*expected, 3)
    assert resized.scale == (expected[0] / size[0], expected[1] / size[1])
    assert resized.original_size == size


def test_resize_to_squashes_and_the_request_rules(noise) -> None:
    sample = noise(100, 200, [[20, 10, 60, 90]])
    resized = ResizeTo(416)(sample, Request(0, 0, (50, 400)), RNG)
    assert resized.image.shape == (50, 400, 3)
    assert resized.boxes.tolist() == [[40, 5, 120, 45]]
    assert resized.scale == (0.5, 2.0)
    assert ResizeTo((30, 40))(sample, ANY, RNG).image.shape == (30, 40, 3)
    assert ResizeTo(32)(sample, ANY, RNG).image.shape == (32, 32, 3)
    twice = ResizeTo((200, 200))(resized, ANY, RNG)  # scales multiply
    assert twice.scale == (2.0, 1.0)
    assert sample.scale == (1.0, 1.0)


@pytest.mark.parametrize(
    ("size", "wanted", "expected"),
    [
        ((100, 200), (416, 416), (208, 416)),
        ((200, 100), (416, 416), (416, 208)),
        ((100, 200), (64, 256), (64, 128)),
        ((333, 500), (320, 320), (213, 320)),  # 213.12
        ((1000, 3), (100, 100), (100, 1)),  # 0.3: no side falls below a pixel
    ],
)
def test_letterbox_fits_and_keeps_the_aspect(noise, size, wanted, expected) -> None:
    resized = LetterboxTo()(noise(*size), Request(0, 0, wanted), RNG)
    assert resized.image.shape == (*expected, 3)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "area", "lanczos"])
@pytest.mark.parametrize("size", [(90, 150), (31, 260), (200, 77), (240, 320)])
def test_boxes_stay_on_their_pixels(painted, extent, interpolation: str, size: tuple[int, int]) -> None:
    sample = painted(120, 160, (33, 20, 101, 87))
    resized = ResizeTo(size, interpolation=interpolation)(sample, ANY, RNG)
    assert np.abs(extent(resized.image) - resized.boxes[0]).max() <= 1
    original = resized.boxes[0] / np.array([resized.scale[1], resized.scale[0]] * 2)
    assert original == pytest.approx(sample.boxes[0], rel=1e-6)


def test_area_averages_when_it_shrinks_and_is_bilinear_when_it_enlarges(noise) -> None:
    sample = noise(40, 60)
    shrunk = ResizeTo((20, 30), interpolation="area")(sample, ANY, RNG).image
    means = sample.image.reshape(20, 2, 30, 2, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - means).max() <= 0.5
    grown = [ResizeTo((80, 30), interpolation=name)(sample, ANY, RNG).image for name in ("area", "bilinear")]
    assert np.array_equal(*grown)


def test_the_same_size_is_the_identity(noise) -> None:
    sample = noise(40, 60, [[1.3, 2.7, 30.1, 39.9]])
    for step in (ResizeTo((40, 60)), LetterboxTo(60), ResizeShortSide(40, 60)):
        resized = step(sample, ANY, RNG)
        assert np.array_equal(resized.image, sample.image)
        assert np.array_equal(resized.boxes, sample.boxes)
        assert resized.scale == (1.0, 1.0)


def test_boxes_that_got_too_small_are_dropped_in_training_only(noise) -> None:
    sample = noise(100, 100, [[10, 10, 15, 60], [10, 10, 60, 60]])
    resized = ResizeTo(10)(sample, ANY, RNG)
    assert resized.labels.tolist() == [6]
    assert resized.dropped == {"ResizeTo": 1}
    assert ResizeTo(10, min_side=None)(sample, ANY, RNG).labels.tolist() == [5, 6]
    assert LetterboxTo(10)(sample, ANY, RNG).dropped == {"LetterboxTo": 1}
    assert ResizeShortSide(10, 20)(sample, ANY, RNG).dropped == {"ResizeShortSide": 1}


def test_mistakes_are_named(noise) -> None:
    with pytest.raises(UserError, match=r"short=700.*long_max=600|interpolation='bilinaer'.*'bilinear'") as error:
        ResizeShortSide(700, 600, interpolation="bilinaer")
    assert "short=700" in str(error.value)
    assert "nearest is 'bilinear'" in str(error.value)
    with pytest.raises(UserError, match="size="):
        ResizeTo((416, 0))
    for step in (ResizeTo(), LetterboxTo()):
        with pytest.raises(UserError, match="no size: give"):
            step(noise(8, 8), ANY, RNG)
