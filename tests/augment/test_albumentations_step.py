"""The albumentations step: exact boxes, fields that follow, and independent streams."""

from __future__ import annotations

import pickle
import random
from collections import Counter

import albumentations
import numpy as np
import pytest

from transfer.augment.albumentations_step import AlbumentationsStep
from transfer.types import Request, UserError

ANY = Request(0, 0)
BOXES = [[60, 3, 131, 88], [1.3, 2.7, 30.1, 39.9], [0, 0, 10, 90], [100, 50, 160, 120]]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_boxes_come_back_exactly_where_nothing_moves_them(noise) -> None:
    sample = noise(607, 631, [*BOXES, [226, 323, 542, 534]])  # albumentations gives 226.000006, ... back
    quiet = [albumentations.HorizontalFlip(p=0), albumentations.VerticalFlip(p=0)]
    for transforms in ([albumentations.NoOp(p=1)], quiet, [albumentations.RandomBrightnessContrast(p=1)]):
        same = AlbumentationsStep(transforms)(sample, ANY, rng(0))
        assert np.array_equal(same.boxes, sample.boxes)
        assert same.boxes.dtype == np.float32


def test_a_flip_agrees_with_the_formula_and_fields_keep_their_types(noise) -> None:
    sample = noise(120, 333, BOXES)
    flipped = AlbumentationsStep([albumentations.HorizontalFlip(p=1)])(sample, ANY, rng(0))
    expected = np.array([[333 - x2, y1, 333 - x1, y2] for x1, y1, x2, y2 in BOXES])
    assert flipped.boxes == pytest.approx(expected, abs=1e-3)
    assert np.array_equal(flipped.boxes[:, 1::2], sample.boxes[:, 1::2])  # rows did not move: exact
    assert np.array_equal(flipped.image, sample.image[:, ::-1])
    assert np.array_equal(flipped.labels, sample.labels)
    assert (flipped.labels.dtype, flipped.difficult.dtype) == (np.int64, np.bool_)
    assert (flipped.weights.dtype, flipped.boxes.dtype) == (np.float32, np.float32)


def test_a_crop_drops_counts_and_keeps_each_boxs_own_fields(noise) -> None:
    sample = noise(120, 333, BOXES)
    step = AlbumentationsStep([albumentations.Crop(x_min=50, y_min=40, x_max=150, y_max=110, p=1)], name="Crop")
    cropped = step(sample, ANY, rng(0))
    assert cropped.boxes == pytest.approx(np.array([[10, 0, 81, 48], [50, 10, 100, 70]]), abs=1e-3)
    assert cropped.labels.tolist() == [5, 8]
    assert cropped.difficult.tolist() == [False, True]
    assert cropped.weights.tolist() == sample.weights[[0, 3]].tolist()
    assert cropped.dropped == {"Crop": 2}
    assert len(sample.boxes) == 4


def test_bad_boxes_are_dropped_and_counted_not_raised(noise) -> None:
    sample = noise(100, 100, [[50, 20, 100.3, 60], [10, 10, 10, 40], [-0.5, 3, 20, 30]])
    flipped = AlbumentationsStep([albumentations.HorizontalFlip(p=1)])(sample, ANY, rng(0))
    assert flipped.boxes == pytest.approx(np.array([[0, 20, 50, 60], [80, 3, 100, 30]]), abs=1e-3)
    assert flipped.labels.tolist() == [5, 7]
    assert flipped.dropped == {"AlbumentationsStep": 1}


def test_no_boxes(noise) -> None:
    sample = noise(40, 50)
    for transforms in ([albumentations.HorizontalFlip(p=1)], [albumentations.Blur(p=1)]):
        moved = AlbumentationsStep(transforms)(sample, ANY, rng(0))
        assert moved.boxes.shape == (0, 4)
        assert moved.labels.dtype == np.int64
        assert moved.labels.shape == (0,)


@pytest.mark.parametrize("nested", [False, True])
def test_two_flips_fire_independently(noise, nested: bool) -> None:
    sample = noise(3, 3)
    flips = [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)]
    step = AlbumentationsStep([albumentations.Sequential(flips, p=1)] if nested else flips)
    turned = {
        (across, down): sample.image[:: -1 if down else 1, :: -1 if across else 1].tobytes()
        for across in (False, True)
        for down in (False, True)
    }
    names = {content: name for name, content in turned.items()}
    counts = Counter(names[step(sample, ANY, rng(seed)).image.tobytes()] for seed in range(400))
    # 100 of each of the four expected, standard deviation 8.7; one shared stream gives 200, 200, 0, 0.
    assert all(abs(counts[name] - 100) < 43 for name in turned), counts


@pytest.mark.parametrize("nested", [False, True])
def test_what_one_transform_draws_does_not_move_the_next(noise, nested: bool) -> None:
    sample = noise(3, 3, [[0, 0, 2, 3]])

    def flips(first: albumentations.BasicTransform) -> list[bool]:
        transforms = [first, albumentations.HorizontalFlip(p=0.5)]
        step = AlbumentationsStep([albumentations.Sequential(transforms, p=1)] if nested else transforms)
        return [step(sample, ANY, rng(seed)).boxes[0, 0] > 0 for seed in range(40)]

    alone = flips(albumentations.NoOp(p=1))
    assert 10 < sum(alone) < 30  # of 40 at even odds: it does flip
    assert alone == flips(albumentations.RandomBrightnessContrast(p=0.5))


def test_children_of_one_of_have_streams_of_their_own(noise) -> None:
    sample = noise(3, 3)
    choice = albumentations.OneOf(
        [albumentations.HorizontalFlip(p=1), albumentations.Sequential([albumentations.VerticalFlip(p=0.5)], p=1)], p=1
    )
    step = AlbumentationsStep([choice])
    images = [sample.image, sample.image[:, ::-1], sample.image[::-1]]
    counts = Counter(
        next(i for i, image in enumerate(images) if np.array_equal(made.image, image))
        for made in (step(sample, ANY, rng(seed)) for seed in range(400))
    )
    # Half horizontal; of the other half one half vertical: 100, 200, 100 expected.
    assert abs(counts[1] - 200) < 50
    assert abs(counts[0] - 100) < 43


def test_the_generator_alone_decides(noise) -> None:
    sample = noise(60, 80, [[5, 5, 40, 40]])
    transforms = [albumentations.RandomSizedBBoxSafeCrop(32, 32, p=1), albumentations.ColorJitter(p=1)]
    first, second = AlbumentationsStep(transforms), pickle.loads(pickle.dumps(AlbumentationsStep(transforms)))
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    made = [first(sample, ANY, rng(seed)) for seed in range(5)]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    again = [second(sample, ANY, rng(seed)) for seed in reversed(range(5))][::-1]
    for a, b in zip(made, again, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.boxes, b.boxes)
    assert len({a.image.tobytes() for a in made}) == 5


def test_geometric_boxes_stay_on_their_pixels(painted, extent) -> None:
    step = AlbumentationsStep([albumentations.Affine(scale=(0.6, 1.2), translate_percent=(-0.1, 0.1), p=1)])
    for seed in range(15):
        moved = step(painted(97, 110, (30, 25, 71, 60)), ANY, rng(seed))
        assert np.abs(extent(moved.image) - moved.boxes[0]).max() <= 1


def test_mistakes_are_named(noise) -> None:
    with pytest.raises(UserError, match="not albumentations transforms: function"):
        AlbumentationsStep([lambda image: image])  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"float32.*uint8"):
        AlbumentationsStep([albumentations.Normalize(p=1)])(noise(4, 4), ANY, rng(0))
