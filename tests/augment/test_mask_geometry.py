"""Random scale and crop: sizes, padding, shares of classes, and image and mask that stay together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from mask_samples import COLOURS, FILL, assert_exact, masked_sample, painted_sample, pure_share

from transfer.augment.mask_geometry import RandomCropWithMask, RandomScale, largest_share
from transfer.augment.presets import segmentation_test, segmentation_train
from transfer.build import TRUSTED_MODULES, build
from transfer.types import Request, UserError

ANY = Request(0, 0)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("height", "width", "side"), [(60, 90, "long"), (90, 60, "long"), (60, 90, "short")])
def test_scale_brings_one_side_to_the_base_times_a_factor(height: int, width: int, side: str) -> None:
    sample = masked_sample(height, width)
    lengths = []
    for seed in range(150):
        scaled = RandomScale(80, (0.5, 2.0), side=side)(sample, ANY, rng(seed))
        sides = scaled.image.shape[:2]
        lengths.append(max(sides) if side == "long" else min(sides))
        assert sides[0] / sides[1] == pytest.approx(height / width, rel=0.03)
        if seed % 30 == 0:
            assert pure_share(scaled) > 0.4
    assert 40 <= min(lengths) < 45
    assert 155 < max(lengths) <= 160
    assert np.mean(lengths) == pytest.approx(100, abs=3 * 120 / 12**0.5 / 150**0.5)  # even: mean 1.25 of the base


def test_scale_one_of_the_images_own_length_changes_nothing() -> None:
    sample = masked_sample(60, 90)
    same = RandomScale(90, (1.0, 1.0))(sample, ANY, rng(0))
    assert same.image is sample.image
    assert same.mask is sample.mask


def test_crop_is_of_the_batchs_shape_or_its_own_and_exact() -> None:
    sample = masked_sample(60, 90)
    for seed in range(10):
        assert_exact(RandomCropWithMask(40)(sample, ANY, rng(seed)))
    assert RandomCropWithMask(40)(sample, ANY, rng(0)).image.shape == (40, 40, 3)
    assert RandomCropWithMask((20, 50))(sample, ANY, rng(0)).image.shape == (20, 50, 3)
    assert RandomCropWithMask(40)(sample, Request(0, 0, (32, 64)), rng(0)).image.shape == (32, 64, 3)
    with pytest.raises(UserError, match="RandomCropWithMask: no size"):
        RandomCropWithMask()(sample, ANY, rng(0))


def test_every_place_is_as_likely() -> None:
    mask = np.arange(30, dtype=np.uint8).reshape(5, 6)
    counts: Counter[int] = Counter()
    for seed in range(600):
        cropped = RandomCropWithMask((3, 5))(painted_sample(mask), ANY, rng(seed))
        assert cropped.mask is not None
        corner = int(cropped.mask[0, 0])
        assert np.array_equal(cropped.mask, mask[corner // 6 : corner // 6 + 3, corner % 6 : corner % 6 + 5])
        counts[corner] += 1
    assert sorted(counts) == [0, 1, 6, 7, 12, 13]
    assert all(abs(count - 100) < 40 for count in counts.values())  # standard deviation 9


def test_what_is_missing_is_ignored_and_filled_at_the_right_and_bottom() -> None:
    mask = np.zeros((3, 9), dtype=np.uint8)  # class 0 everywhere, so that padding of class 0 would show
    padded = RandomCropWithMask((5, 6), fill=(1, 2, 3))(painted_sample(mask), ANY, rng(0))
    assert padded.mask is not None
    assert (padded.mask[:3] == 0).all()
    assert (padded.mask[3:] == 255).all()
    assert (padded.image[:3] == COLOURS[0]).all()
    assert (padded.image[3:] == (1, 2, 3)).all()
    both = RandomCropWithMask(16, fill=FILL)(masked_sample(11, 13), ANY, rng(0))
    assert_exact(both)
    assert both.mask is not None
    assert (both.mask == 255).sum() >= 256 - 11 * 13
    assert np.array_equal(both.mask[:11, :13], masked_sample(11, 13).mask)


def test_without_a_mask_the_image_is_cropped_alike() -> None:
    sample = masked_sample(60, 90)
    for size in (40, 100):
        with_mask = RandomCropWithMask(size)(sample, ANY, rng(3))
        without = RandomCropWithMask(size)(replace(sample, mask=None), ANY, rng(3))
        assert np.array_equal(with_mask.image, without.image)
        assert without.mask is None


def test_boxes_are_cropped_with_the_image_and_never_reach_into_padding(noise) -> None:
    sample = noise(10, 20, [[2, 3, 6, 8], [13, -4, 25, 12], [20, 1, 21, 2]])  # the second hangs over the edges
    padded = RandomCropWithMask((16, 30))(sample, ANY, rng(0))
    assert padded.boxes.tolist() == [[2, 3, 6, 8], [13, 0, 20, 10]]  # the third one's centre is not in the image
    cropped = RandomCropWithMask((10, 8))
    for seed in range(20):
        made = cropped(sample, ANY, rng(seed))
        left = next(x for x in range(13) if np.array_equal(sample.image[:, x : x + 8], made.image))
        if left <= 3:
            assert made.boxes[0].tolist() == [max(2 - left, 0), 3, 6 - left, 8]
        assert made.dropped["RandomCropWithMask"] == 3 - len(made.boxes)


def test_largest_share() -> None:
    assert largest_share(np.array([[0, 0, 1, 255]], dtype=np.uint8)) == pytest.approx(2 / 3)
    assert largest_share(np.array([[254, 255]], dtype=np.uint8)) == 1
    assert largest_share(np.full((2, 2), 255, dtype=np.uint8)) == 1


def test_a_limit_on_one_class() -> None:
    halves = painted_sample(np.repeat(np.array([[0, 1]], dtype=np.uint8), 20, axis=1).repeat(20, axis=0))
    free = [RandomCropWithMask(10)(halves, ANY, rng(seed)).mask for seed in range(60)]
    limited = [
        RandomCropWithMask(10, category_max_ratio=0.75, trials=60)(halves, ANY, rng(seed)).mask for seed in range(60)
    ]
    shares = [largest_share(mask) for mask in free if mask is not None]
    assert sum(share == 1 for share in shares) > 30  # most crops are of one class
    assert max(largest_share(mask) for mask in limited if mask is not None) <= 0.75
    assert len({mask.tobytes() for mask in limited if mask is not None}) > 3  # the first that fits, not the best


def test_where_no_crop_fits_the_one_with_the_least_of_one_class_is_taken() -> None:
    mask = masked_sample(12, 14, classes=(0, 0, 0, 1, 255)).mask
    assert mask is not None
    step = RandomCropWithMask(6, category_max_ratio=0.01, trials=1500)  # all 63 places are among them
    best = min(largest_share(mask[y : y + 6, x : x + 6]) for y in range(7) for x in range(9))
    for seed in range(3):
        cropped = step(painted_sample(mask), ANY, rng(seed)).mask
        assert cropped is not None
        assert largest_share(cropped) == best
    lonely = painted_sample(np.zeros((8, 8), dtype=np.uint8))
    assert RandomCropWithMask(4, category_max_ratio=0.5)(lonely, ANY, rng(0)).image.shape == (4, 4, 3)
    with pytest.raises(UserError, match="no masks"):
        step(replace(lonely, mask=None), ANY, rng(0))


def test_mistakes_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r"interpolation='linear'.*base=0.*scale=\(2, 1\).*side='middle'"):
        RandomScale(0, (2, 1), side="middle", interpolation="linear")
    with pytest.raises(UserError, match=r"category_max_ratio=75.*trials=0.*size=0"):
        RandomCropWithMask(0, category_max_ratio=75, trials=0)


def test_the_training_preset_keeps_image_and_mask_together() -> None:
    preset = segmentation_train(60, 48, blur=0.0, fill=FILL)
    flipped, padded = set(), 0
    for seed in range(40):
        made = preset(masked_sample(50, 70), ANY, rng(seed))
        assert made.image.shape == (48, 48, 3)
        assert pure_share(made) > 0.4
        assert made.mask is not None
        padded += bool((made.mask[-1] == 255).all())
        flipped.add(bool((made.mask[:, 0] == 255).all()))
    assert padded > 5
    assert flipped == {True, False}  # flipped last, so padding comes to the left, too
    shaped = preset(masked_sample(50, 70), Request(0, 0, (64, 32)), rng(0))
    assert shaped.image.shape == (64, 32, 3)
    assert pure_share(shaped) > 0.4


def test_the_training_preset_is_a_function_of_its_generator_and_off_is_off() -> None:
    sample = masked_sample(50, 70)
    preset = segmentation_train(60, 48, colour=True, category_max_ratio=0.75)
    first, again = ([preset(sample, ANY, rng(seed)) for seed in range(4)] for _ in range(2))
    for a, b in zip(first, again):
        assert np.array_equal(a.image, b.image)
        assert a.mask is not None
        assert np.array_equal(a.mask, b.mask)
    assert len({a.image.tobytes() for a in first}) == 4
    # Blur and colour come last and change no pixel's place.
    bare = segmentation_train(60, 48, blur=0.0, category_max_ratio=0.75)
    assert np.array_equal(bare(sample, ANY, rng(2)).mask, first[2].mask)
    still = segmentation_train(70, (50, 70), scale=(1, 1), flip=0.0, blur=0.0)(sample, ANY, rng(0))
    assert np.array_equal(still.image, sample.image)
    assert np.array_equal(still.mask, sample.mask)


def test_the_test_preset_leaves_the_mask_and_resizes_the_image() -> None:
    sample = masked_sample(60, 90)
    assert segmentation_test()(sample, ANY, rng(0)) is sample
    for preset, shape in (
        (segmentation_test(32), (32, 32)),
        (segmentation_test((30, 50)), (30, 50)),
        (segmentation_test(short=40), (40, 60)),
        (segmentation_test(long=45), (30, 45)),
        (segmentation_test(long=180), (120, 180)),
        (segmentation_test(short=40, long=48), (32, 48)),
        (segmentation_test(factor=1.5), (90, 135)),
    ):
        made = preset(sample, ANY, rng(0))
        assert made.image.shape == (*shape, 3)
        assert made.mask is sample.mask
        assert made.scale == (shape[0] / 60, shape[1] / 90)
    with pytest.raises(UserError, match=r"factor=2\.0 is of the image's own size"):
        segmentation_test(long=45, factor=2.0)
    with pytest.raises(UserError, match="size=32 squashes"):
        segmentation_test(32, short=40)


def test_a_checkpoint_may_name_the_presets() -> None:
    made = build(
        {"type": "transfer.augment.presets.segmentation_train", "crop": 32}, "augment.train", trusted=TRUSTED_MODULES
    )
    assert made(masked_sample(20, 30), ANY, rng(0)).image.shape == (32, 32, 3)
    build({"type": "transfer.augment.presets.segmentation_test", "long": 32}, "augment.test", trusted=TRUSTED_MODULES)
