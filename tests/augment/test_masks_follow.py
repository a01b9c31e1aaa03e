"""Image and mask move together through every step that moves masks; the other steps refuse a sample with a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import albumentations
import cv2
import numpy as np
import pytest
from mask_samples import COLOURS, FILL, assert_exact, masked_sample, painted_sample, pure_share

from transfer.augment.albumentations_step import AlbumentationsStep, GaussianBlur
from transfer.augment.box_mixup import BoxMixup
from transfer.augment.color_jitter import ColorJitter
from transfer.augment.copy_paste import CopyPasteSmall
from transfer.augment.erasing import Cutout, RandomErasing
from transfer.augment.geometry import CropWithBoxes, Expand, HorizontalFlip
from transfer.augment.mosaic import Mosaic
from transfer.augment.pipeline import Augment
from transfer.augment.placing import FilterBoxes
from transfer.augment.resizing import LetterboxTo, ResizeShortSide, ResizeTo
from transfer.types import Mix, Request, Sample, UserError

ANY = Request(0, 0)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_flip_by_hand_and_everywhere() -> None:
    sample = painted_sample(np.array([[1, 2, 255], [0, 0, 3]], dtype=np.uint8))
    flipped = HorizontalFlip(1.0)(sample, ANY, rng(0))
    assert flipped.mask is not None
    assert flipped.mask.tolist() == [[255, 2, 1], [3, 0, 0]]
    assert_exact(flipped)
    assert_exact(HorizontalFlip(1.0)(masked_sample(31, 47), ANY, rng(0)))
    assert HorizontalFlip(0.0)(sample, ANY, rng(0)) is sample


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area", "lanczos"])
@pytest.mark.parametrize("size", [(30, 41), (64, 96), (97, 131), (150, 100), (200, 400), (128, 192), (17, 17)])
def test_resizing_takes_the_mask_along(size: tuple[int, int], interpolation: str) -> None:
    resized = ResizeTo(size, interpolation=interpolation)(masked_sample(128, 192), ANY, rng(0))
    assert resized.image.shape == (*size, 3)
    # Only borders are blended; lanczos rings, so even a pixel of one colour may be off beside a border.
    assert pure_share(resized) > (0.25 if interpolation == "lanczos" or min(size) < 20 else 0.5)


def test_a_masks_pixel_is_the_nearest_by_pixel_centres() -> None:
    mask = rng(0).integers(0, 200, (48, 75), dtype=np.uint8)
    for size in ((31, 53), (96, 150), (100, 77), (16, 25)):
        resized = ResizeTo(size)(painted_sample(mask), ANY, rng(0)).mask
        assert resized is not None
        # In whole numbers: the centre of output pixel k is (2k + 1) * side / (2 * new side); ties are left out.
        rows, columns = ((2 * np.arange(new) + 1) * old / (2 * new) for new, old in zip(size, mask.shape))
        sure = np.ix_(np.abs(rows - np.rint(rows)) > 1e-6, np.abs(columns - np.rint(columns)) > 1e-6)
        expected = mask[rows.astype(int)][:, columns.astype(int)]
        assert np.array_equal(resized[sure], expected[sure])
        assert sure[0].size * sure[1].size > 0.5 * resized.size


def test_the_other_resizing_steps() -> None:
    sample = masked_sample(60, 90)
    for step, shape in (
        (ResizeShortSide(40, 100), (40, 60)),
        (LetterboxTo((80, 60)), (40, 60)),
        (ResizeTo(33), (33, 33)),
    ):
        resized = step(sample, ANY, rng(0))
        assert resized.image.shape == (*shape, 3)
        assert pure_share(resized) > 0.5
    same = ResizeTo((60, 90))(sample, ANY, rng(0))
    assert_exact(same)
    assert ResizeTo(33)(replace(sample, mask=None), ANY, rng(0)).mask is None


@pytest.mark.parametrize(
    "step", [ResizeShortSide(40, 100, mask="keep"), ResizeTo(32, mask="keep"), LetterboxTo(32, mask="keep")]
)
def test_test_steps_leave_the_mask_at_its_size(step: Augment) -> None:
    sample = masked_sample(60, 90)
    resized = step(sample, ANY, rng(0))
    assert resized.mask is sample.mask
    assert resized.image.shape[:2] != (60, 90)
    scale_y, scale_x = resized.scale
    assert (60 * scale_y, 90 * scale_x) == pytest.approx(resized.image.shape[:2])
    for moving in (HorizontalFlip(1.0), ResizeTo(16), AlbumentationsStep([albumentations.VerticalFlip(p=1)])):
        with pytest.raises(UserError, match=r"mask is \(60, 90\), the image \(.*mask='keep'"):
            moving(resized, ANY, rng(0))


def test_the_rule_for_masks_is_checked() -> None:
    for make in (lambda: ResizeShortSide(mask="stay"), lambda: ResizeTo(mask="stay"), lambda: LetterboxTo(mask="stay")):  # type: ignore[arg-type]
        with pytest.raises(UserError, match="mask='stay' is neither 'follow' nor 'keep'"):
            make()
    with pytest.raises(UserError, match=r"interpolation='linear'.*mask='stay'.*size=0"):
        ResizeTo(0, interpolation="linear", mask="stay")  # type: ignore[arg-type]


def test_albumentations_move_masks_and_what_is_outside_is_ignored() -> None:
    outside = {"fill": FILL, "fill_mask": 255}
    moves = [
        albumentations.Affine(rotate=(-40, 40), scale=(0.6, 1.3), p=1, **outside),
        albumentations.Rotate(limit=(30, 30), p=1, **outside),
        albumentations.PadIfNeeded(150, 150, border_mode=cv2.BORDER_CONSTANT, p=1, **outside),
    ]
    for seed, move in enumerate(moves):
        moved = AlbumentationsStep([move])(masked_sample(80, 120, classes=(0, 1, 2)), ANY, rng(seed))
        assert pure_share(moved) > 0.6
        assert moved.mask is not None
        assert (moved.mask == 255).mean() > 0.02
    exact = [albumentations.HorizontalFlip(p=1), albumentations.RandomRotate90(p=1), albumentations.Transpose(p=1)]
    for seed in range(5):
        assert_exact(AlbumentationsStep(exact)(masked_sample(40, 60), ANY, rng(seed)))
        cropped = AlbumentationsStep([albumentations.RandomCrop(20, 30, fill_mask=255)])(
            masked_sample(40, 60), ANY, rng(seed)
        )
        assert cropped.image.shape == (20, 30, 3)
        assert_exact(cropped)


def test_albumentations_that_would_untrue_a_mask_are_refused_with_the_remedy() -> None:
    sample = masked_sample(40, 60)
    wrong = [
        albumentations.Sequential([albumentations.Rotate(p=0.5)], p=1),
        albumentations.Affine(fill_mask=255, mask_interpolation=cv2.INTER_LINEAR, p=0.5),
    ]
    step = AlbumentationsStep(wrong, name="Turn")
    with pytest.raises(
        UserError, match=r"Turn: .*Rotate has fill_mask=0.*fill_mask=255.*Affine has mask_interpolation=1"
    ):
        step(sample, ANY, rng(0))
    assert step(replace(sample, mask=None), ANY, rng(0)).mask is None  # without masks as before


def test_albumentations_give_the_same_image_with_and_without_a_mask() -> None:
    sample = masked_sample(40, 60)
    step = AlbumentationsStep([albumentations.Affine(rotate=(-40, 40), fill_mask=255, p=0.7), albumentations.D4(p=0.5)])
    for seed in range(6):
        with_mask, without = step(sample, ANY, rng(seed)), step(replace(sample, mask=None), ANY, rng(seed))
        assert np.array_equal(with_mask.image, without.image)


def test_colour_and_blur_leave_the_mask_alone() -> None:
    sample = masked_sample(40, 60)
    for step in (ColorJitter(), GaussianBlur(1.0, sigma=(0.8, 1.0))):
        changed = step(sample, ANY, rng(0))
        assert not np.array_equal(changed.image, sample.image)
        assert changed.mask is sample.mask


def test_blur_is_a_gaussian_of_its_sigma() -> None:
    impulse = painted_sample(np.zeros((41, 41), dtype=np.uint8))
    impulse.image = np.zeros((41, 41, 3), dtype=np.uint8)
    impulse.image[:, 20] = 255
    for sigma in (0.5, 0.9, 2.0):
        line = GaussianBlur(1.0, sigma=(sigma, sigma))(impulse, ANY, rng(0)).image[20, :, 0].astype(np.float64)
        bell = np.exp(-((np.arange(41) - 20) ** 2) / (2 * sigma**2))
        assert line == pytest.approx(255 * bell / bell.sum(), abs=1.5)
    fired = [
        not np.array_equal(GaussianBlur(0.5)(masked_sample(9, 9), ANY, rng(s)).image, COLOURS[masked_sample(9, 9).mask])
        for s in range(200)
    ]
    assert 50 < sum(fired) < 110  # half of them, less those with a sigma too small to change anything
    with pytest.raises(UserError, match=r"p=2.*sigma=\(0, 1\) must be \(low, high\), above 0"):
        GaussianBlur(2, sigma=(0, 1))


def test_filtering_boxes_keeps_the_mask() -> None:
    sample = masked_sample(40, 60)
    assert FilterBoxes()(sample, ANY, rng(0)).mask is sample.mask


def mosaic(sample: Sample, request: Request, generator: np.random.Generator) -> Sample:
    return Mosaic(32).join([sample] * 4, request, generator)


def box_mixup(sample: Sample, request: Request, generator: np.random.Generator) -> Sample:
    return BoxMixup().combine(
        replace(sample, mask=None), replace(sample, index=9), Request(0, 0, mix=Mix(9, 0.5)), generator
    )


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (Expand(2.0, p=1.0), "Expand"),
        (CropWithBoxes(whole=False), "CropWithBoxes"),
        (RandomErasing(p=1.0), "RandomErasing"),
        (Cutout(), "Cutout"),
        (CopyPasteSmall(), "CopyPasteSmall"),
        (mosaic, "Mosaic"),
        (box_mixup, "BoxMixup"),
    ],
)
def test_steps_that_know_nothing_of_masks_refuse_them(step: Callable[..., Sample], name: str) -> None:
    with pytest.raises(UserError, match=f"{name} moves pixels and boxes, but not masks"):
        step(masked_sample(40, 60), ANY, rng(0))
