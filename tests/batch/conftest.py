"""A small data set in memory whose every image and box follows from its position."""

from __future__ import annotations

import numpy as np
import pytest

from transfer.types import Record, Sample, UserError


class MemoryDataset:
    """Images of different sizes; the positions in `broken` cannot be read."""

    class_names = ("left", "right")

    def __init__(self, length: int, broken: frozenset[int] = frozenset()) -> None:
        self.length = length
        self.broken = broken

    def __len__(self) -> int:
        return self.length

    def _truth(self, index: int) -> tuple[tuple[int, int], np.ndarray]:
        size = (40 + 8 * (index % 5), 72 - 8 * (index % 4))
        boxes = np.array([[4, 5, 20, 25], [10, 2, 30, 38], [1, 1, 9, 7]], dtype=np.float32)[: index % 4]
        return size, boxes

    def record(self, index: int) -> Record:
        size, boxes = self._truth(index)
        flags = np.zeros(len(boxes), dtype=np.bool_)
        sides = boxes[:, 2:] - boxes[:, :2]
        return Record(
            path=f"folder/image_{index:03d}.jpg",
            image_id=f"image_{index:03d}",
            size=size,
            boxes=boxes,
            labels=np.arange(len(boxes), dtype=np.int64) % 2,
            difficult=flags,
            crowd=flags,
            areas=sides.prod(axis=1),
        )

    def __getitem__(self, index: int) -> Sample:
        if index in self.broken:
            raise UserError("truncated JPEG")
        record = self.record(index)
        image = np.random.default_rng(index).integers(0, 256, (*record.size, 3), dtype=np.uint8)
        weights = np.linspace(0.5, 1, len(record.boxes), dtype=np.float32)
        return Sample(
            image,
            record.boxes,
            record.labels,
            record.difficult,
            weights,
            index,
            record.image_id,
            record.path,
            record.size,
        )

    def category_ids(self) -> list[int]:
        return [1, 2]


@pytest.fixture
def memory_dataset() -> type[MemoryDataset]:
    """The class, so that a test chooses length and broken positions."""
    return MemoryDataset
