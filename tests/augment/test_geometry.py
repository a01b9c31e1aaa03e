"""Flip, expand and crop: hand-computed boxes, invariances, and boxes against painted pixels."""

from __future__ import annotations

import numpy as np
import pytest

from transfer.augment.geometry import CropWithBoxes, Expand, HorizontalFlip, centres_inside, crop_iou
from transfer.types import Request, UserError

ANY = Request(0, 0)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_flip_by_hand(noise) -> None:
    sample = noise(10, 20, [[0, 1, 5, 9], [12.5, 0, 20, 4]])
    flipped = HorizontalFlip(1.0)(sample, ANY, rng(0))
    assert flipped.boxes.tolist() == [[15, 1, 20, 9], [0, 0, 7.5, 4]]
    assert flipped.boxes.dtype == np.float32
    assert np.array_equal(flipped.image, sample.image[:, ::-1])
    assert sample.boxes[0].tolist() == [0, 1, 5, 9]


def test_flipping_twice_is_the_identity(noise) -> None:
    sample = noise(10, 21, [[0, 1, 5, 9], [12.5, 0, 20, 4]])
    flip = HorizontalFlip(1.0)
    twice = flip(flip(sample, ANY, rng(0)), ANY, rng(1))
    assert np.array_equal(twice.image, sample.image)
    assert np.array_equal(twice.boxes, sample.boxes)
    assert twice.labels.tolist() == sample.labels.tolist()


def test_flip_fires_with_its_probability(noise) -> None:
    sample = noise(4, 4)
    generator = rng(0)
    fired = sum(HorizontalFlip(0.3)(sample, ANY, generator) is not sample for _ in range(2000))
    assert abs(fired - 600) < 100  # five standard deviations of 20.5
    assert HorizontalFlip(0.0)(sample, ANY, generator) is sample


def test_expand_puts_the_image_on_a_canvas_of_the_fill(noise) -> None:
    sample = noise(30, 40, [[3, 4, 20, 25], [35, 20, 44, 30]])  # the second hangs over the edge by 4 px
    places, ratios = set(), []
    for seed in range(40):
        grown = Expand(3.0, fill=(9, 8, 7), p=1.0)(sample, ANY, rng(seed))
        height, width = grown.image.shape[:2]
        left, top = (grown.boxes[0, :2] - [3, 4]).astype(int)
        assert np.array_equal(grown.image[top : top + 30, left : left + 40], sample.image)
        outside = np.ones((height, width), dtype=bool)
        outside[top : top + 30, left : left + 40] = False
        assert (grown.image[outside] == (9, 8, 7)).all()
        assert (grown.boxes - [left, top, left, top]).tolist() == [[3, 4, 20, 25], [35, 20, 40, 30]]
        assert 30 <= height <= 90
        assert abs(width / height - 4 / 3) < 0.06
        assert grown.labels.tolist() == [5, 6]
        ratios.append(height / 30)
        places.add((left, top))
    assert len(places) > 30
    assert max(ratios) > 2.7
    assert min(ratios) < 1.3


def test_expand_by_one_is_the_identity(noise) -> None:
    sample = noise(30, 40, [[3, 4, 20, 25]])
    grown = Expand(1.0, p=1.0)(sample, ANY, rng(0))
    assert np.array_equal(grown.image, sample.image)
    assert np.array_equal(grown.boxes, sample.boxes)
    assert Expand(2.0, p=0.0)(sample, ANY, rng(0)) is sample


def test_crop_iou_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [40, 40, 50, 50]], dtype=np.float32)
    crops = np.array([[0, 0, 10, 10], [0, 0, 5, 10]])
    assert crop_iou(boxes, crops) == pytest.approx(np.array([[1, 50 / 150, 0], [0.5, 0, 0]]))


def test_centres_inside_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [9, 0, 11, 10], [-6, 0, 6, 2]], dtype=np.float32)  # centres 5, 10 and 0
    crops = np.array([[0, 0, 10, 10], [5, 5, 20, 20]])
    assert centres_inside(boxes, crops).tolist() == [[True, False, True], [True, True, False]]


@pytest.mark.parametrize(("overlap", "box"), [(0.1, [5, 5, 60, 50]), (0.5, [5, 5, 60, 50]), (0.9, [2, 1, 78, 59])])
def test_crop_overlaps_a_box_by_the_minimum(noise, overlap: float, box: list[int]) -> None:
    sample = noise(60, 80, [box, [50, 30, 76, 58], [1, 50, 8, 58]])
    crop, cropped = CropWithBoxes([overlap], whole=False), 0
    for seed in range(60):
        part = crop(sample, ANY, rng(seed))
        if part is sample:  # no valid crop among the trials
            continue
        cropped += 1
        height, width = part.image.shape[:2]
        windows = np.lib.stride_tricks.sliding_window_view(sample.image[:, :, 0], (height, width))
        (top, left) = np.argwhere((windows == part.image[:, :, 0]).all(axis=(2, 3)))[0]
        window = np.array([[left, top, left + width, top + height]])
        assert crop_iou(sample.boxes, window).max() >= overlap
        centres = (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
        stay = ((centres >= window[0, :2]) & (centres < window[0, 2:])).all(axis=1)
        expected = np.clip(sample.boxes[stay] - [left, top, left, top], 0, [width, height, width, height])
        assert part.boxes == pytest.approx(expected)
        assert part.labels.tolist() == sample.labels[stay].tolist()
        assert part.difficult.tolist() == sample.difficult[stay].tolist()
        assert part.weights.tolist() == sample.weights[stay].tolist()
        assert sum(part.dropped.values()) == 3 - stay.sum()
        assert stay.any()
    assert cropped > 20


def test_crop_sides_and_aspect_stay_in_range(noise) -> None:
    sample = noise(200, 400)
    crop = CropWithBoxes([None], min_scale=0.3, max_aspect=2.0, whole=False)
    shapes = np.array([crop(sample, ANY, rng(seed)).image.shape[:2] for seed in range(300)]) / [200, 400]
    assert shapes.min() >= 0.3 - 0.5 / 200
    assert shapes.max() <= 1
    assert shapes.min(axis=0).max() < 0.34
    ratio = shapes[:, 1] / shapes[:, 0]
    assert 1 / 2.02 <= ratio.min() < 0.6
    assert 1.7 < ratio.max() <= 2.02


def test_crop_reaches_every_corner_and_whole_is_one_choice_of_seven(noise) -> None:
    sample = noise(8, 8)
    crop = CropWithBoxes()
    made = [crop(sample, ANY, rng(seed)) for seed in range(700)]
    assert abs(sum(part is sample for part in made) - 100) < 46  # five standard deviations of 9.3
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        corner = sample.image[row, column]
        assert any(part is not sample and (part.image[row, column] == corner).all() for part in made)
    assert not any(CropWithBoxes(whole=False)(sample, ANY, rng(seed)) is sample for seed in range(50))
    assert CropWithBoxes(p=0.0)(sample, ANY, rng(0)) is sample


@pytest.mark.parametrize(
    "step", [HorizontalFlip(1.0), Expand(4.0, p=1.0, fill=(30, 30, 30)), CropWithBoxes(whole=False)]
)
def test_boxes_stay_on_their_pixels(painted, extent, step) -> None:
    for seed in range(30):
        generator = rng(seed)
        left, top = (int(value) for value in generator.integers(0, 50, 2))
        sample = painted(97, 110, (left, top, left + 41, top + 33))
        moved = step(sample, ANY, generator)
        assert len(moved.boxes) == 1
        assert np.array_equal(extent(moved.image), moved.boxes[0])


def test_no_boxes(noise) -> None:
    sample = noise(30, 40)
    for step in (HorizontalFlip(1.0), Expand(p=1.0), CropWithBoxes([0.5], whole=False)):
        moved = step(sample, ANY, rng(1))
        assert moved.boxes.shape == (0, 4)
        assert moved.boxes.dtype == np.float32
        assert moved.dropped == {}


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"p=1\.5"):
        HorizontalFlip(1.5)
    with pytest.raises(UserError, match=r"max_ratio=0\.5"):
        Expand(0.5)
    with pytest.raises(UserError) as error:
        CropWithBoxes([], min_scale=0, max_aspect=0.5, trials=0)
    for part in ("overlaps=", "min_scale=0", "max_aspect=0.5", "trials=0"):
        assert part in str(error.value)
