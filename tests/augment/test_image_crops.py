"""Crops for classification: torchvision's law and edges, exact pixels, and refusal of what would not follow."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from transfer.augment.image_crops import CenterCrop, RandomResizedCrop, TrimLongSide
from transfer.types import Request, Sample, UserError

ANY = Request(0, 0)
BOX = [[1, 1, 4, 4]]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def coordinates(height: int, width: int, make) -> Sample:
    """A sample whose pixels say where they are: column in the two lower digits, row in the third channel."""
    rows, columns = np.indices((height, width))
    image = np.stack([columns % 256, columns // 256, rows % 256], axis=2).astype(np.uint8)
    image.setflags(write=False)
    return replace(make(height, width), image=image, label=4)


def drawn_parts(height: int, width: int, count: int) -> np.ndarray:
    """[count, 4] area share, log aspect, and where the crop lies in what is left, each in [0, 1] (nan: no choice)."""
    step = RandomResizedCrop(8)
    parts = []
    for seed in range(count):
        rows, columns = step.draw(height, width, rng(seed))
        parts.append((rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start))
    return described(np.array(parts), height, width)


def described(parts: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left, high, wide = parts.T.astype(np.float64)
    with np.errstate(invalid="ignore"):
        places = top / (height - high), left / (width - wide)
    return np.stack([high * wide / (height * width), np.log(wide / high), *places], axis=1)


def test_the_law_is_torchvisions() -> None:
    from torchvision.transforms import RandomResizedCrop as Theirs

    empty = torch.empty(3, 300, 420)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = np.array([Theirs.get_params(empty, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(2000)])
    reference, own = described(theirs, 300, 420), drawn_parts(300, 420, 2000)
    for column in range(4):
        pair = [values[np.isfinite(values[:, column]), column] for values in (own, reference)]
        assert stats.ks_2samp(*pair).pvalue > 0.01, column


def test_area_is_even_and_aspect_even_in_its_logarithm() -> None:
    step = RandomResizedCrop(8, scale=(0.1, 0.4), ratio=(0.5, 2.0))
    shapes = np.array([[side.stop - side.start for side in step.draw(600, 600, rng(seed))] for seed in range(1500)])
    # 0.4 of the area fits a square image at any of these aspects, so no trial is lost.
    assert stats.kstest(shapes.prod(axis=1) / 360_000, stats.uniform(0.1, 0.3).cdf).pvalue > 0.01
    aspects = np.log(shapes[:, 1] / shapes[:, 0])
    assert stats.kstest(aspects, stats.uniform(-math.log(2), 2 * math.log(2)).cdf).pvalue > 0.01


@pytest.mark.parametrize("size", [(5, 500), (500, 5), (1, 3000), (3000, 1), (7, 110), (13, 1000)])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (0.9, 1.0), (2.0, 3.0)])
def test_where_nothing_fits_the_centre_crop_is_torchvisions(size, ratio) -> None:
    from torchvision.transforms import RandomResizedCrop as Theirs

    top, left, high, wide = Theirs.get_params(torch.empty(3, *size), [0.9, 1.0], list(ratio))
    rows, columns = RandomResizedCrop(8, scale=(0.9, 1.0), ratio=ratio).draw(*size, rng(0))
    if 0 in (high, wide):  # theirs fails there
        assert min(rows.stop - rows.start, columns.stop - columns.start) == 1
        return
    assert (rows.stop - rows.start, columns.stop - columns.start) == (high, wide)
    assert abs(rows.start - top) <= 1  # theirs cuts the half pixel off
    assert abs(columns.start - left) <= 1


@pytest.mark.parametrize("size", [(40, 60), (5, 5), (9, 300), (1, 1)])
def test_the_crop_is_cut_at_the_drawn_place_and_resized_once(noise, size) -> None:
    step = RandomResizedCrop(8)
    for seed in range(20):
        sample = coordinates(*size, noise)
        rows, columns = step.draw(*size, rng(seed))
        high, wide = rows.stop - rows.start, columns.stop - columns.start
        cropped = step(sample, Request(0, 0, (high, wide)), rng(seed))  # nothing to resize: exact
        assert np.array_equal(cropped.image, sample.image[rows, columns])
        assert cropped.image.flags.c_contiguous
        large = RandomResizedCrop(8, interpolation="nearest")(sample, Request(0, 0, (2 * high, 3 * wide)), rng(seed))
        assert np.array_equal(large.image, sample.image[rows, columns].repeat(2, axis=0).repeat(3, axis=1))
        assert (cropped.label, cropped.boxes.shape, cropped.index) == (4, (0, 4), sample.index)


def test_only_area_averages_where_it_shrinks(noise) -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::4] = 255  # a quarter of every four columns
    sample = replace(noise(64, 64), image=stripes)
    whole = dict(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert np.all(RandomResizedCrop(16, interpolation="area", **whole)(sample, ANY, rng(0)).image == 64)
    assert not RandomResizedCrop(16, interpolation="bilinear", **whole)(sample, ANY, rng(0)).image.any()


def test_the_requests_size_comes_first(noise) -> None:
    sample = noise(50, 70)
    assert RandomResizedCrop(24)(sample, ANY, rng(0)).image.shape == (24, 24, 3)
    assert RandomResizedCrop((24, 16))(sample, ANY, rng(0)).image.shape == (24, 16, 3)
    assert RandomResizedCrop(24)(sample, Request(0, 0, (32, 40)), rng(0)).image.shape == (32, 40, 3)
    assert RandomResizedCrop(None)(sample, Request(0, 0, (32, 40)), rng(0)).image.shape == (32, 40, 3)
    with pytest.raises(UserError, match="RandomResizedCrop: no size"):
        RandomResizedCrop()(sample, ANY, rng(0))


@pytest.mark.parametrize("size", [(5, 5), (5, 500), (500, 5), (1, 1), (2, 2000)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "area", "lanczos"])
def test_tiny_and_elongated_images_come_out_whole(noise, size, interpolation) -> None:
    step = pickle.loads(pickle.dumps(RandomResizedCrop(16, interpolation=interpolation)))
    for seed in range(5):
        first, again = (step(noise(*size), ANY, rng(seed)).image for _ in range(2))
        assert first.shape == (16, 16, 3)
        assert first.dtype == np.uint8
        assert np.array_equal(first, again)


def test_grey_stays_grey(noise) -> None:
    grey = replace(noise(31, 45), image=np.repeat(noise(31, 45).image[:, :, :1], 3, axis=2))
    for interpolation in ("bilinear", "bicubic", "area"):
        made = RandomResizedCrop(16, interpolation=interpolation)(grey, ANY, rng(3)).image
        assert (made == made[:, :, :1]).all()


@pytest.mark.parametrize("image", [(9, 12), (10, 11), (8, 8), (15, 8), (8, 200)])
@pytest.mark.parametrize("size", [8, 7, (5, 8), (1, 1)])
def test_centre_crop_is_torchvisions(noise, image, size) -> None:
    from torchvision.transforms import CenterCrop as Theirs

    sample = coordinates(*image, noise)
    expected = Theirs(size)(torch.tensor(sample.image.transpose(2, 0, 1))).numpy().transpose(1, 2, 0)
    cropped = CenterCrop(size)(sample, Request(0, 0, (99, 99)), rng(0))
    assert np.array_equal(cropped.image, expected)
    assert cropped.image.flags.c_contiguous
    assert cropped.label == 4


def test_centre_crop_refuses_a_smaller_image(noise) -> None:
    with pytest.raises(UserError, match=r"three.jpg is \(5, 9\) here, smaller than size=\(8, 8\): put ResizeShortSide"):
        CenterCrop(8)(noise(5, 9), ANY, rng(0))


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((5, 20), 4, (5, 20)),  # at the limit: as it is
        ((5, 21), 4, (5, 21)),  # one pixel more cannot go evenly
        ((5, 22), 4, (5, 20)),
        ((5, 2001), 4, (5, 21)),
        ((300, 1), 2.5, (4, 1)),  # 3 from above, and one for evenness
        ((7, 7), 1, (7, 7)),
    ],
)
def test_trimming_keeps_the_middle(noise, size, limit, expected) -> None:
    sample = coordinates(*size, noise)
    trimmed = TrimLongSide(limit)(sample, ANY, rng(0))
    assert trimmed.image.shape == (*expected, 3)
    if max(size) <= limit * min(size):
        assert trimmed is sample
    axis = int(size[1] > size[0])
    cut = (size[axis] - expected[axis]) // 2
    window = [slice(None)] * 2
    window[axis] = slice(cut, size[axis] - cut)  # as much at one end as at the other
    assert np.array_equal(trimmed.image, sample.image[tuple(window)])


@pytest.mark.parametrize("step", [RandomResizedCrop(8), CenterCrop(4), TrimLongSide()])
def test_boxes_and_masks_are_refused(noise, step) -> None:
    name = type(step).__name__
    with pytest.raises(UserError, match=f"{name}: three.jpg has boxes, which would not follow"):
        step(noise(9, 9, BOX), ANY, rng(0))
    with pytest.raises(UserError, match=f"{name}: three.jpg has a mask, which would not follow"):
        step(replace(noise(9, 9), mask=np.zeros((9, 9), np.uint8)), ANY, rng(0))


def test_mistakes_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r"interpolation='linear'.*scale=\(0, 1\).*ratio=\(2, 1\).*size=\(1, 2, 3\)"):
        RandomResizedCrop((1, 2, 3), scale=(0, 1), ratio=(2, 1), interpolation="linear")  # type: ignore[arg-type]
    for scale in ((0.5, 1.5), (0.5,), 0.5, ("0.1", "1")):
        with pytest.raises(UserError, match="scale="):
            RandomResizedCrop(8, scale=scale)  # type: ignore[arg-type]
    for size in (0, None, (4,)):
        with pytest.raises(UserError, match="CenterCrop: size="):
            CenterCrop(size)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"max_aspect=0\.5"):
        TrimLongSide(0.5)
