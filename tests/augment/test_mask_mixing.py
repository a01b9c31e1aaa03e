"""CutMix and ClassMix: every pixel accounted for, and every pixel's colour that of its class."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from mask_samples import assert_exact, masked_sample, painted_sample, pure_share

from transfer.augment.mask_mixing import ClassMix, MaskCutMix
from transfer.batch.mixing import PairMixing, mixed_iterations
from transfer.types import Mix, Request, Sample, UserError

FIRST, SECOND = (0, 1, 2, 255), (10, 11, 12, 13, 14, 255)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def request(share: float = 0.5) -> Request:
    return Request(0, 0, mix=Mix(1, share))


def two(height: int = 40, width: int = 60, size: tuple[int, int] | None = None) -> tuple[Sample, Sample]:
    """Two samples without a class in common; their arrays cannot be written to."""
    pair = (
        masked_sample(height, width, classes=FIRST),
        masked_sample(*(size or (height, width)), seed=1, classes=SECOND),
    )
    for sample in pair:
        sample.image.setflags(write=False)
        assert sample.mask is not None
        sample.mask.setflags(write=False)
    return pair


def mask_of(sample: Sample) -> np.ndarray:
    assert sample.mask is not None
    return sample.mask


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8, 0.99, 1.0])
def test_cutmix_pastes_one_box_of_the_right_area_at_the_same_place(share: float) -> None:
    second = painted_sample(np.full((40, 60), 7, dtype=np.uint8), index=1)
    first = painted_sample(np.zeros((40, 60), dtype=np.uint8))
    rows, columns = (int(side * math.sqrt(1 - share) + 0.5) for side in (40, 60))
    whole = 0
    for seed in range(60):
        mixed = MaskCutMix().combine(first, second, request(share), rng(seed))
        assert_exact(mixed)
        pasted = np.argwhere(mask_of(mixed) == 7)
        assert len(pasted) <= rows * columns
        if rows * columns == 0:
            assert mixed is first
            continue
        (top, left), (bottom, right) = pasted.min(axis=0), pasted.max(axis=0) + 1
        assert len(pasted) == (bottom - top) * (right - left)  # a full box
        # Less than the whole box only where it hangs over that edge; its centre is inside.
        assert bottom - top == rows or ((top == 0 or bottom == 40) and bottom - top >= rows // 2)
        assert right - left == columns or ((left == 0 or right == 60) and right - left >= columns // 2)
        whole += len(pasted) == rows * columns
    assert whole > 0 or share in (0.0, 0.1, 1.0)
    placed = [MaskCutMix().combine(*two(), request(share), rng(seed)) for seed in range(5)]
    for mixed in placed:  # every pixel is that of one or the other image, at its own place
        assert_exact(mixed)
        first_mask, second_mask = (mask_of(sample) for sample in two())
        assert ((mask_of(mixed) == first_mask) | (mask_of(mixed) == second_mask)).all()


def test_cutmix_boxes_have_their_centres_anywhere() -> None:
    first, second = painted_sample(np.zeros((9, 9), np.uint8)), painted_sample(np.ones((9, 9), np.uint8), index=1)
    share = 1 - 1 / 81  # a box of one pixel
    counts = np.sum([mask_of(MaskCutMix().combine(first, second, request(share), rng(s))) for s in range(1620)], axis=0)
    assert counts.sum() == 1620
    assert np.abs(counts.astype(np.int64) - 20).max() < 21  # standard deviation 4.4


def test_classmix_pastes_half_of_the_classes_whole_and_never_the_ignored() -> None:
    first, second = two()
    chosen_by_seed = []
    for seed in range(80):
        mixed = ClassMix().combine(first, second, request(), rng(seed))
        assert_exact(mixed)
        chosen = [label for label in SECOND[:-1] if (mask_of(mixed) == label).any()]
        assert len(chosen) == 2  # 5 // 2
        expected = np.where(np.isin(mask_of(second), chosen), mask_of(second), mask_of(first))
        assert np.array_equal(mask_of(mixed), expected)
        chosen_by_seed.append(tuple(chosen))
    assert len(set(chosen_by_seed)) == 10  # every pair of the five
    counts = Counter(label for chosen in chosen_by_seed for label in chosen)
    assert all(abs(counts[label] - 32) < 18 for label in SECOND[:-1])  # standard deviation 4.4


def test_classmix_of_one_class_gives_the_first_image() -> None:
    first = two()[0]
    for mask in (np.full((40, 60), 3, np.uint8), np.full((40, 60), 255, np.uint8)):
        assert ClassMix().combine(first, painted_sample(mask, index=1), request(), rng(0)) is first


def test_cutmix_pastes_ignored_pixels_as_ignored() -> None:
    first = painted_sample(np.zeros((8, 8), np.uint8))
    nothing = painted_sample(np.full((8, 8), 255, np.uint8), index=1)
    mixed = MaskCutMix().combine(first, nothing, request(0.5), rng(0))
    assert_exact(mixed)
    assert set(np.unique(mask_of(mixed))) == {0, 255}


@pytest.mark.parametrize("size", [(20, 30), (80, 120), (100, 30), (23, 200), (41, 60)])
@pytest.mark.parametrize("mixing", [MaskCutMix(), ClassMix()])
def test_images_of_other_sizes_come_out_in_the_first_ones(mixing: MaskCutMix | ClassMix, size: tuple[int, int]) -> None:
    first, second = two(size=size)
    for seed in range(4):
        mixed = mixing.combine(first, second, request(0.3), rng(seed))
        assert mixed.image.shape == first.image.shape
        assert mixed.original_size == first.original_size == (40, 60)
        assert pure_share(mixed) > 0.5
        own = mask_of(mixed) < 10
        assert np.array_equal(mixed.image[own], first.image[own])


def test_the_second_image_covers_the_first_and_loses_evenly() -> None:
    first = painted_sample(np.full((20, 20), 200, np.uint8))
    columns = painted_sample(np.repeat(np.arange(8, dtype=np.uint8), 10)[None].repeat(40, axis=0), index=1)  # 40 x 80
    seen = np.zeros((20, 20), dtype=np.int64) - 1
    for seed in range(40):
        pasted = mask_of(MaskCutMix().combine(first, columns, request(0.2), rng(seed)))
        inside = pasted != 200
        assert np.array_equal(pasted[inside], np.repeat([2, 3, 4, 5], 5)[None].repeat(20, axis=0)[inside])
        seen[inside] = pasted[inside]
    assert seen.min() >= 0  # columns 20 to 60 of the second, halved, over all the seeds everywhere


def test_draw_is_any_other_image_with_the_stated_share() -> None:
    for mixing in (MaskCutMix(p=0.6), ClassMix(p=0.6)):
        drawn = [mixing.draw(rng(seed), 2, 5) for seed in range(500)]
        partners = Counter(mix.index for mix in drawn if mix is not None)
        assert sorted(partners) == [0, 1, 3, 4]
        assert abs(sum(partners.values()) - 300) < 50
        assert all(abs(count - 75) < 40 for count in partners.values())
        assert mixing.draw(rng(0), 0, 1) is None
        assert MaskCutMix(p=1.0).draw(rng(0), 1, 2) is not None
    shares = np.array([mix.weight for seed in range(500) if (mix := MaskCutMix(p=1.0).draw(rng(seed), 0, 9))])
    assert len(shares) == 500
    assert np.histogram(shares, 4, (0, 1))[0] == pytest.approx([125] * 4, abs=45)  # Beta(1, 1) is even
    narrow = [mix.weight for seed in range(50) if (mix := MaskCutMix(1000.0, p=1.0).draw(rng(seed), 0, 9))]
    assert narrow == pytest.approx([0.5] * 50, abs=0.1)


@pytest.mark.parametrize("mixing", [MaskCutMix(), ClassMix()])
def test_fields_and_determinism(mixing: MaskCutMix | ClassMix) -> None:
    first, second = two()
    mixed, again = (mixing.combine(first, second, request(), rng(5)) for _ in range(2))
    assert np.array_equal(mixed.image, again.image)
    assert np.array_equal(mask_of(mixed), mask_of(again))
    assert mixed.image.dtype == mask_of(mixed).dtype == np.uint8
    assert (mixed.index, mixed.image_id, mixed.path) == (0, "0", "0.jpg mixed with 1.jpg")
    assert len({mixing.combine(first, second, request(), rng(seed)).image.tobytes() for seed in range(6)}) > 3
    assert mixing.combine(first, replace(second, index=0), request(), rng(0)) is first
    assert isinstance(mixing, PairMixing)
    assert mixed_iterations(mixing, total=10, per_epoch=5, images=4) == 10


@pytest.mark.parametrize("mixing", [MaskCutMix(), ClassMix()])
def test_samples_without_masks_or_with_boxes_are_refused(mixing: MaskCutMix | ClassMix, noise) -> None:
    first, second = two()
    with pytest.raises(UserError, match=r"1\.jpg has no mask.*BoxMixup"):
        mixing.combine(first, replace(second, mask=None), request(), rng(0))
    boxed = replace(noise(40, 60, [[1, 2, 3, 4]]), mask=mask_of(first))
    with pytest.raises(UserError, match=r"three\.jpg has boxes"):
        mixing.combine(boxed, second, request(), rng(0))
    with pytest.raises(UserError, match=r"mask is \(40, 60\), the image \(20, 60\)"):
        mixing.combine(replace(first, image=first.image[:20]), second, request(), rng(0))


def test_mistakes_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r"alpha=0 .*interpolation='linear'.*p=0 .*last_epochs_without=-1"):
        MaskCutMix(0, p=0, interpolation="linear", last_epochs_without=-1)
    with pytest.raises(UserError, match=r"interpolation='linear'.*p=1.5 .*last_epochs_without='2'"):
        ClassMix(p=1.5, interpolation="linear", last_epochs_without="2")  # type: ignore[arg-type]
