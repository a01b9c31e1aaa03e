"""Samples to transform: with given boxes, or with boxes that are painted into the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from transfer.types import Sample

BACKGROUND = (30, 30, 30)


def sample_of(image: np.ndarray, boxes: Sequence[Sequence[float]]) -> Sample:
    count = len(boxes)
    return Sample(
        image=image,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.arange(count, dtype=np.int64) + 5,
        difficult=np.arange(count) % 2 == 1,
        weights=(np.arange(count, dtype=np.float32) + 1) / (count + 1),
        index=3,
        image_id="three",
        path="three.jpg",
        original_size=(image.shape[0], image.shape[1]),
    )


@pytest.fixture
def noise() -> Callable[..., Sample]:
    """(height, width, boxes) -> a sample of noise."""

    def make(height: int, width: int, boxes: Sequence[Sequence[float]] = ()) -> Sample:
        return sample_of(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8), boxes)

    return make


@pytest.fixture
def painted() -> Callable[..., Sample]:
    """(height, width, box) -> a dark sample with a white rectangle that fills the integer box exactly."""

    def make(height: int, width: int, box: tuple[int, int, int, int]) -> Sample:
        image = np.empty((height, width, 3), dtype=np.uint8)
        image[:] = BACKGROUND
        image[box[1] : box[3], box[0] : box[2]] = 255
        return sample_of(image, [box])

    return make


@pytest.fixture
def extent() -> Callable[[np.ndarray], np.ndarray]:
    """image -> [4] box of its bright pixels, exclusive right and bottom."""

    def find(image: np.ndarray) -> np.ndarray:
        rows, columns = np.nonzero(image.min(axis=2) > 142)  # half way between the background and white
        return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])

    return find
