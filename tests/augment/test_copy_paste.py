"""Copies of small objects: their pixels and boxes, where they may lie, and what is not copied."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from transfer.augment.copy_paste import EDGE, CopyPasteSmall
from transfer.types import Request, Sample, UserError

REQUEST = Request(3, 0)
Make = Callable[..., Sample]


def plain(sample: Sample) -> Sample:
    """Nothing difficult, weights 1."""
    sample.difficult = np.zeros(len(sample.boxes), dtype=np.bool_)
    return sample


def run(sample: Sample, seed: int = 0, **options: object) -> Sample:
    step = CopyPasteSmall(**{"p": 1.0, **options})  # type: ignore[arg-type]
    return step(sample, REQUEST, np.random.default_rng(seed))


def test_copies_without_scaling_and_flipping_are_the_objects_pixels(noise: Make) -> None:
    sample = plain(noise(200, 300, [[10, 20, 34, 40], [100, 100, 180, 180]]))
    result = run(sample, copies=4, scale=(1.0, 1.0), flip=0.0)
    assert np.array_equal(result.boxes[:2], sample.boxes)
    assert len(result.boxes) == 6  # only the first is small
    assert result.labels.tolist() == [5, 6, 5, 5, 5, 5]
    assert result.weights.tolist() == [*sample.weights.tolist(), *[float(sample.weights[0])] * 4]
    assert result.difficult.tolist() == [False] * 6
    changed = np.zeros((200, 300), dtype=bool)
    for left, top, right, bottom in result.boxes[2:].astype(int):
        assert np.array_equal(result.image[top:bottom, left:right], sample.image[20:40, 10:34])
        changed[top:bottom, left:right] = True
    assert np.array_equal(result.image[~changed], sample.image[~changed])
    assert result.dropped == {}
    assert [x.dtype for x in (result.boxes, result.labels, result.difficult, result.weights)] == [
        np.float32,
        np.int64,
        np.bool_,
        np.float32,
    ]


def test_a_mirrored_copy_and_a_box_that_ends_within_pixels(noise: Make) -> None:
    # The patch is 8..20 x 10..18; the box begins a quarter of a pixel and ends 1.5 px within it.
    sample = plain(noise(100, 100, [[8.25, 10, 18.5, 18]]))
    result = run(sample, copies=1, scale=(1.0, 1.0), flip=1.0)
    left, top, right, bottom = result.boxes[1].tolist()
    assert (right - left, bottom - top) == (10.25, 8)
    start = int(left - 0.5)  # 19 - 18.5 behind the patch's edge, which is now the left one
    assert left == start + 0.5
    patch = result.image[int(top) : int(top) + 8, start : start + 11]
    assert np.array_equal(patch, sample.image[10:18, 8:19][:, ::-1])


def test_boxes_are_where_the_copied_pixels_are(painted: Make, extent: Callable[[np.ndarray], np.ndarray]) -> None:
    for seed in range(40):
        sample = plain(painted(150, 200, (60, 70, 84, 90)))
        result = run(sample, seed, copies=1, scale=(0.6, 1.3))
        assert len(result.boxes) == 2
        image = result.image.copy()
        image[70:90, 60:84] = 30  # only the copy is left
        assert np.abs(extent(image) - result.boxes[1]).max() < 1
        ratio = (result.boxes[1, 2:] - result.boxes[1, :2]) / [24, 20]
        assert ((ratio > 0.57) & (ratio < 1.33)).all()


def test_copies_lie_within_the_image_and_cover_no_box(noise: Make) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        corners = rng.uniform(0, 150, (8, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (8, 2))], axis=1)
        sample = plain(noise(200, 200, boxes.tolist()))
        result = run(sample, seed)
        own, copies = result.boxes[:8], result.boxes[8:]
        assert np.array_equal(own, sample.boxes)
        assert (copies >= EDGE).all()
        assert (copies <= 200 - EDGE).all()
        for index, copy in enumerate(copies):
            others = np.concatenate([own, copies[:index]])
            low, high = np.maximum(copy[:2], others[:, :2]), np.minimum(copy[2:], others[:, 2:])
            assert (np.clip(high - low, 0, None).prod(axis=1) == 0).all()
        for left, top, right, bottom in np.concatenate([np.ceil(own[:, :2]), np.floor(own[:, 2:])], axis=1).astype(int):
            assert np.array_equal(result.image[top:bottom, left:right], sample.image[top:bottom, left:right])


def test_the_bound_on_overlap(noise: Make) -> None:
    # A large box nearly everywhere: a copy of 100 px^2 would lie within it.
    sample = plain(noise(60, 60, [[0, 0, 60, 44], [20, 47, 30, 57]]))
    assert len(run(sample, scale=(1.0, 1.0), max_overlap=0.0, copies=50).boxes) <= 2 + 5
    assert len(run(sample, scale=(1.0, 1.0), max_overlap=1.0, copies=5).boxes) == 2 + 5
    found = run(sample, scale=(1.0, 1.0), flip=0.0, max_overlap=0.3, copies=20).boxes[2:]
    covered = np.clip(44 - found[:, 1], 0, 10) / 10
    assert len(found) > 0
    assert covered.max() <= 0.3


@pytest.mark.parametrize(
    ("boxes", "why"),
    [
        ([], "no box"),
        ([[10, 10, 42, 42]], "32x32 is not below 32x32"),
        ([[10, 10, 40, 13]], "a side below min_side"),
        ([[-1, 10, 20, 30]], "reaches over the edge"),
        ([[10, 10, 30, 30], [25, 25, 90, 90]], "another box reaches in"),
    ],
)
def test_what_is_not_copied(noise: Make, boxes: list[list[float]], why: str) -> None:
    sample = plain(noise(100, 100, boxes))
    assert run(sample) is sample, why


def test_difficult_objects_are_not_copied(noise: Make) -> None:
    sample = noise(100, 100, [[10, 10, 30, 30], [50, 50, 70, 70]])  # the second is difficult
    assert set(run(sample).labels[2:].tolist()) == {5}


def test_where_no_place_is_free_nothing_is_pasted(noise: Make) -> None:
    small = plain(noise(30, 30, [[2, 2, 26, 26]]))  # no room beside it
    assert run(small) is small
    tiny = plain(noise(14, 14, [[2, 2, 10, 10]]))  # the copy and its margin are larger than the image
    assert run(tiny, scale=(1.0, 1.0)) is tiny


def test_off_and_probability(noise: Make) -> None:
    sample = plain(noise(100, 100, [[10, 10, 30, 30]]))
    assert run(sample, p=0.0) is sample
    changed = sum(run(sample, seed, p=0.3) is not sample for seed in range(400))
    assert changed / 400 == pytest.approx(0.3, abs=5 * (0.21 / 400) ** 0.5)


def test_the_sample_is_left_alone_and_the_seed_decides(noise: Make) -> None:
    sample, untouched = (plain(noise(100, 100, [[10, 10, 30, 30]])) for _ in range(2))
    first, again, other = run(sample, 1), run(sample, 1), run(sample, 2)
    assert np.array_equal(sample.image, untouched.image)
    assert np.array_equal(sample.boxes, untouched.boxes)
    assert np.array_equal(first.image, again.image)
    assert first.boxes.tolist() == again.boxes.tolist()
    assert first.boxes.tolist() != other.boxes.tolist()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"copies": 0, "p": 1.5}, ["copies=0", "p=1.5 must be in [0, 1]"]),
        ({"min_side": 40}, ["min_side=40", "max_side=32"]),
        ({"scale": (1.2, 0.8), "flip": "yes"}, ["scale=(1.2, 0.8)", "flip='yes'"]),
        ({"max_overlap": -1}, ["max_overlap=-1"]),
    ],
)
def test_arguments_are_checked(options: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        CopyPasteSmall(**options)  # type: ignore[arg-type]
    assert all(part in str(error.value) for part in ["CopyPasteSmall", *parts])
