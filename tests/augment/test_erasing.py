"""Erasing: the covered share by hand and by counting, which boxes go, and where the rectangles lie."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.augment.erasing import Cutout, RandomErasing, covered_share, erase
from transfer.augment.geometry import IMAGENET_MEAN
from transfer.batch.requests import RequestBatches
from transfer.batch.view import TrainingView
from transfer.types import Request, Sample, UserError

REQUEST = Request(3, 0)
Make = Callable[..., Sample]


def rectangles(*edges: tuple[int, int, int, int]) -> list[np.ndarray]:
    return [np.array(edge) for edge in edges]


def run(step: Callable[..., Sample], sample: Sample, seed: int = 0) -> Sample:
    return step(sample, REQUEST, np.random.default_rng(seed))


def extent(erased: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(erased)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


# ---- the rule ----


def test_the_covered_share_worked_out_by_hand() -> None:
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:6, 4:12] = True
    boxes = [
        [4, 2, 12, 6],  # all of it
        [0, 0, 20, 10],  # 32 of 200
        [12, 2, 20, 6],  # touches only
        [8, 4, 16, 8],  # 4x2 of 8x4
        [4.5, 2.25, 5.5, 10.25],  # 3.75 of 8 rows, and within columns
        [11.5, 5.5, 12.5, 6.5],  # a quarter of a pixel of one
        [-8, 2, 8, 6],  # half of it is outside the image: 16 of 64
        [5, 3, 5, 9],  # no area
    ]
    share = covered_share(np.array(boxes, dtype=np.float32), mask)
    assert share.tolist() == pytest.approx([1, 32 / 200, 0, 8 / 32, 3.75 / 8, 0.25, 16 / 64, 0])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_covered_share_of_whole_pixels_is_a_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((17, 23)) < 0.4
    corners = np.sort(rng.integers(0, (24, 18), (9, 2, 2)), axis=1)
    boxes = corners.reshape(9, 4)
    counted = [mask[top:bottom, left:right].mean() if right > left and bottom > top else 0
               for left, top, right, bottom in boxes]  # fmt: skip
    assert covered_share(boxes.astype(np.float32), mask).tolist() == pytest.approx(counted)


def test_a_box_goes_where_the_union_covers_more_than_its_limit(noise: Make) -> None:
    sample = noise(40, 40, [[0, 0, 10, 10], [10, 0, 20, 10], [0, 20, 40, 40.5], [30, 0, 40, 10]])
    sample.dropped["crop"] = 2
    # Two rectangles that overlap: together they cover 8 of the first box's 10 columns, each 5; of the second, 7.
    erased = rectangles((0, 0, 5, 10), (3, 0, 8, 10), (10, 0, 17, 10))
    result = erase(sample, erased, (1, 2, 3), np.random.default_rng(0), "step", max_covered=0.7)
    assert result.boxes.tolist() == [[10, 0, 20, 10], [0, 20, 40, 40.5], [30, 0, 40, 10]]  # 0.7 is not more than 0.7
    assert result.dropped == {"crop": 2, "step": 1}
    assert sample.dropped == {"crop": 2}
    for name in ("labels", "difficult", "weights"):
        assert np.array_equal(getattr(result, name), getattr(sample, name)[1:])
    white = np.zeros((40, 40), dtype=bool)
    white[:10, :8] = white[:10, 10:17] = True
    assert (result.image[white] == (1, 2, 3)).all()
    assert np.array_equal(result.image[~white], sample.image[~white])


@pytest.mark.parametrize(("limit", "left"), [(0.0, 1), (0.25, 2), (0.5, 3), (1.0, 4)])
def test_the_limit(noise: Make, limit: float, left: int) -> None:
    sample = noise(20, 80, [[0, 0, 20, 20], [20, 0, 40, 20], [40, 0, 60, 20], [60, 0, 80, 20]])
    erased = rectangles((0, 0, 20, 20), (20, 0, 30, 20), (40, 0, 45, 20))  # all, a half, a quarter, nothing
    result = erase(sample, erased, (0, 0, 0), np.random.default_rng(0), "step", max_covered=limit)
    assert len(result.boxes) == left
    assert result.dropped == ({} if left == 4 else {"step": 4 - left})


def test_images_without_boxes(noise: Make) -> None:
    for step in (RandomErasing(p=1), Cutout()):
        result = run(step, noise(30, 40))
        assert (result.boxes.shape, result.boxes.dtype) == ((0, 4), np.float32)
        assert (result.labels.shape, result.weights.shape, result.dropped) == ((0,), (0,), {})


# ---- where, and what is filled in ----


def test_random_rectangles_have_the_drawn_areas_and_aspects(noise: Make) -> None:
    sample, step = noise(200, 300), RandomErasing(p=1, area=(0.05, 0.2), max_aspect=3, fill=(7, 7, 7))
    areas, aspects, corners = [], [], []
    for seed in range(600):
        erased = (run(step, sample, seed).image == 7).all(axis=2)
        left, top, right, bottom = extent(erased)
        assert erased[top:bottom, left:right].mean() > 0.999  # one rectangle (a pixel of the noise may be so, too)
        areas.append((right - left) * (bottom - top) / 60000)
        aspects.append((bottom - top) / (right - left))
        corners.append((left / max(1, 300 - right + left), top / max(1, 200 - bottom + top)))
    assert 0.049 < min(areas) < 0.055
    assert 0.19 < max(areas) < 0.202
    assert np.mean(areas) == pytest.approx(0.125, abs=5 * 0.15 / 12**0.5 / 600**0.5)
    assert 0.32 < min(aspects) < 0.4
    assert 2.5 < max(aspects) < 3.1
    assert np.mean(np.log(aspects)) == pytest.approx(0, abs=5 * 2 * np.log(3) / 12**0.5 / 600**0.5)
    assert np.mean(corners, axis=0) == pytest.approx([0.5, 0.5], abs=5 / 12**0.5 / 600**0.5)


def test_a_rectangle_that_does_not_fit_is_drawn_again_or_left_out(noise: Make) -> None:
    low = noise(10, 1000)  # 0.4 of it, as a square: 63 px
    for seed in range(20):
        erased = (run(RandomErasing(p=1, area=(0.3, 0.4), fill=(7, 7, 7)), low, seed).image == 7).all(axis=2)
        assert not erased.any()
    wide = run(RandomErasing(p=1, area=(0.3, 0.4), max_aspect=1000, fill=(7, 7, 7)), low).image
    assert 0.29 < (wide == 7).all(axis=2).mean() < 0.42


def test_cutout_squares_reach_over_the_edge_and_have_one_size_within(noise: Make) -> None:
    sample, sides = noise(80, 120), []
    for seed in range(300):
        left, top, right, bottom = extent((run(Cutout(0.25, fill=(7, 7, 7)), sample, seed).image == 7).all(axis=2))
        sides.append((right - left, bottom - top))
        assert (right - left == 20) or left == 0 or right == 120
        assert (bottom - top == 20) or top == 0 or bottom == 80
    assert max(sides) == (20, 20)
    assert sides.count((20, 20)) / 300 == pytest.approx(100 / 120 * 60 / 80, abs=0.13)  # the centre 10 px from any edge
    assert min(min(pair) for pair in sides) <= 11


def test_the_fill_is_noise_or_the_mean(noise: Make) -> None:
    sample = noise(60, 60)
    sample.image[:] = 255
    erased = run(Cutout(0.5), sample).image
    assert {tuple(pixel) for pixel in erased.reshape(-1, 3).tolist()} == {(255, 255, 255), IMAGENET_MEAN}
    noisy = run(RandomErasing(p=1, area=(0.3, 0.4)), sample).image
    part = noisy[(noisy != 255).any(axis=2)].astype(float)
    assert part.mean() == pytest.approx(127.5, abs=5)
    assert part.std() == pytest.approx(256 / 12**0.5, abs=3)


@pytest.mark.parametrize("count", [1, 3])
def test_count(noise: Make, count: int) -> None:
    sample = noise(200, 200)
    sample.image[:] = 255
    step = Cutout(0.1, count=count, fill=(0, 0, 0))
    shares = [(run(step, sample, seed).image == 0).all(axis=2).mean() for seed in range(60)]
    assert np.mean(shares) == pytest.approx(count * 0.01, rel=0.15)


# ---- off, and the same everywhere ----


def test_p_of_zero_is_the_sample_itself_and_p_is_the_share(noise: Make) -> None:
    sample = noise(40, 40, [[0, 0, 30, 30]])
    for make in (RandomErasing, Cutout):
        assert run(make(p=0.0), sample) is sample
        changed = sum(run(make(p=0.3), sample, seed) is not sample for seed in range(400))
        assert changed / 400 == pytest.approx(0.3, abs=5 * (0.21 / 400) ** 0.5)


def test_the_sample_is_left_alone_and_the_seed_decides(noise: Make) -> None:
    for step in (RandomErasing(p=1), Cutout(0.5, fill="noise")):
        sample, untouched = noise(40, 40, [[0, 0, 30, 30]]), noise(40, 40)
        first, again, other = run(step, sample, 1), run(step, sample, 1), run(step, sample, 2)
        assert np.array_equal(sample.image, untouched.image)
        assert np.array_equal(first.image, again.image)
        assert not np.array_equal(first.image, other.image)


def test_a_request_makes_the_same_in_any_view(noise: Make) -> None:
    class OneImage:
        class_names = ("a",)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return noise(40, 40, [[0, 0, 30, 30]])

    (requests,) = RequestBatches(1, batch_size=3, seed=0, iterations=1)
    made = [[TrainingView(OneImage(), Cutout())[r].sample.image for r in requests] for _ in range(2)]  # type: ignore
    assert all(np.array_equal(a, b) for a, b in zip(*made, strict=True))
    assert not np.array_equal(made[0][0], made[0][1])


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: RandomErasing(area=(0.4, 0.02), count=0), ["area=(0.4, 0.02)", "count=0"]),
        (lambda: RandomErasing(max_aspect=0.3, fill="mean"), ["max_aspect=0.3", "fill='mean'", "(124, 117, 104)"]),
        (lambda: RandomErasing(fill=(0, 0, 256), p=2), ["fill=(0, 0, 256)", "p=2 must be in [0, 1]"]),
        (lambda: Cutout(0, max_covered=1.1), ["side=0", "max_covered=1.1"]),
        (lambda: Cutout("half"), ["side='half'", "short sides"]),
    ],
)
def test_arguments_are_checked(make: Callable[[], object], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        make()
    assert all(part in str(error.value) for part in parts)
