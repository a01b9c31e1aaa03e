"""Collate: padding, sizes and truth of a batch, against hand-computed cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from transfer.batch.collate import Collate
from transfer.batch.view import ViewedSample
from transfer.types import Request, Sample, Size, UserError

PAD = (1, 2, 3)


def item(height: int, width: int, *, size: Size | None = None, boxes: int = 1, **changes: Any) -> ViewedSample:
    image = np.random.default_rng(height * width).integers(10, 256, (height, width, 3), dtype=np.uint8)
    sample = Sample(
        image=image,
        boxes=np.tile(np.array([[1.5, 2, 3, 4]], dtype=np.float32), (boxes, 1)),
        labels=np.arange(boxes, dtype=np.int64),
        difficult=np.arange(boxes) % 2 == 1,
        weights=np.full(boxes, 0.25, dtype=np.float32),
        index=7,
        image_id="seven",
        path="seven.jpg",
        original_size=(2 * height, 2 * width),
        scale=(0.5, 0.5),
    )
    return ViewedSample(replace(sample, **changes), Request(7, 2**62 + 1, size))


def test_images_are_channel_first_and_padded_at_the_right_and_bottom() -> None:
    items = [item(33, 50), item(20, 64)]
    batch = Collate(PAD)(items)
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (2, 3, 64, 64)  # 33 and 64 up to multiples of 32
    assert batch.images.is_contiguous()
    for images, (sample, _, _) in zip(batch.images, items, strict=True):
        height, width = sample.image.shape[:2]
        for row in (0, height - 1, height, 63):
            for column in (0, width - 1, 63):
                inside = row < height and column < width
                expected = tuple(sample.image[row, column]) if inside else PAD
                assert tuple(images[:, row, column].tolist()) == expected, (row, column)
        assert images[:, :height, :width].equal(torch.from_numpy(sample.image).permute(2, 0, 1))
        assert (images == torch.tensor(PAD)[:, None, None]).all(dim=0).sum() == 64 * 64 - height * width
    assert [target.size for target in batch.targets] == [(33, 50), (20, 64)]


def test_an_image_may_be_a_view_and_stays_as_it_is() -> None:
    given = item(32, 64)
    views = (given.sample.image[:, ::-1], given.sample.image[::2, 5:], given.sample.image[..., ::-1])
    for image in views:
        before = image.copy()
        batch = Collate(PAD)([ViewedSample(replace(given.sample, image=image), given.request)])
        height, width = image.shape[:2]
        assert batch.images[0, :, :height, :width].equal(torch.from_numpy(before).permute(2, 0, 1))
        batch.images.zero_()
        assert np.array_equal(image, before)


def test_a_requested_shape_is_exact() -> None:
    shape = (50, 70)
    assert Collate(PAD)([item(50, 70, size=shape), item(50, 70, size=shape)]).images.shape[2:] == shape
    letterboxed = Collate(PAD)([item(50, 30, size=shape), item(40, 30, size=shape)])
    assert letterboxed.images.shape[2:] == shape
    assert letterboxed.targets[1].size == (40, 30)
    assert Collate(PAD, size_divisor=1)([item(50, 30), item(40, 31)]).images.shape[2:] == (50, 31)
    assert Collate(PAD)([item(64, 64)]).images.shape[2:] == (64, 64)


def test_truth_travels_as_tensors_of_its_own() -> None:
    given = item(20, 30, boxes=2, dropped={"Expand": 1})
    batch = Collate(PAD)([given])
    target = batch.targets[0]
    assert target.boxes.dtype == torch.float32
    assert target.boxes.tolist() == [[1.5, 2, 3, 4]] * 2
    assert target.labels.dtype == torch.int64
    assert target.labels.tolist() == [0, 1]
    assert target.difficult.dtype == torch.bool
    assert target.difficult.tolist() == [False, True]
    assert target.weights.dtype == torch.float32
    assert target.weights.tolist() == [0.25, 0.25]
    assert (target.index, target.image_id, target.path) == (7, "seven", "seven.jpg")
    assert (target.original_size, target.scale, target.seed) == ((40, 60), (0.5, 0.5), 2**62 + 1)
    target.boxes.zero_()
    assert given.sample.boxes[0, 0] == 1.5


def test_no_boxes() -> None:
    target = Collate(PAD)([item(20, 30, boxes=0)]).targets[0]
    assert target.boxes.shape == (0, 4)
    assert target.labels.shape == target.difficult.shape == target.weights.shape == (0,)


def test_dropped_boxes_are_summed_and_skipped_files_joined() -> None:
    first = item(8, 8, dropped={"Crop": 1, "Expand": 2})._replace(skipped=("a.jpg",))
    second = item(8, 8, dropped={"Crop": 3})._replace(skipped=("b.jpg", "c.jpg"))
    batch = Collate(PAD)([first, second])
    assert batch.dropped == {"Crop": 4, "Expand": 2}
    assert batch.skipped == ["a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (item(20, 30, image=np.zeros((20, 30, 3), dtype=np.float32)), "seven.jpg.*float32.*uint8"),
        (item(20, 30, image=np.zeros((20, 30), dtype=np.uint8)), r"seven.jpg.*\(20, 30\)"),
        (item(20, 30, size=(20, 29)), r"seven.jpg.*\(20, 29\).*\(20, 30\).*ResizeTo"),
    ],
)
def test_a_misfitting_image_is_named(wrong: ViewedSample, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Collate(PAD)([wrong])


def test_every_wrong_argument_is_named_at_once() -> None:
    with pytest.raises(UserError, match=r"pad_value=\(0.5, 0, 256\).*size_divisor=0"):
        Collate((0.5, 0, 256), size_divisor=0)  # type: ignore[arg-type]
