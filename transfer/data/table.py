"""The truth of a whole data set as flat arrays, and the dataset that serves it.

Flat arrays, not one object per image: 16,551 VOC images pickle to a worker as a few blocks, and a forked worker's
reference counts do not copy the memory page by page. Formats (voc.py, coco.py) fill the table by table_builder.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from transfer.data.image import read_image
from transfer.data.texts import Texts, packed_ids
from transfer.types import DetectionDataset, Record, Sample, SegmentationDataset


@dataclass(slots=True)
class DetectionTable:
    """N images with M boxes in all."""

    paths: Sequence[str]
    image_ids: Sequence[int | str]
    sizes: np.ndarray
    """[N, 2] int64, (height, width)."""
    starts: np.ndarray
    """[N + 1] int64: image i owns the rows starts[i] to starts[i + 1] of what follows."""
    boxes: np.ndarray
    """[M, 4] float32, xyxy pixels."""
    labels: np.ndarray
    """[M] int64."""
    difficult: np.ndarray
    """[M] bool."""
    crowd: np.ndarray
    """[M] bool."""
    areas: np.ndarray
    """[M] float32, square pixels."""

    def take(self, indices: Sequence[int]) -> DetectionTable:
        """The images `indices` in this order."""
        images = np.asarray(indices, np.int64)
        counts = np.diff(self.starts)[images]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        # [M] rows: those of the first image from its first one on, those of the second from its first one on, ...
        rows = np.arange(starts[-1]) + np.repeat(self.starts[images] - starts[:-1], counts)
        return DetectionTable(
            paths=Texts(self.paths[index] for index in images.tolist()),
            image_ids=packed_ids([self.image_ids[index] for index in images.tolist()]),
            sizes=self.sizes[images].reshape(-1, 2),
            starts=starts,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            difficult=self.difficult[rows],
            crowd=self.crowd[rows],
            areas=self.areas[rows],
        )


class ByColumns:
    """A data set that knows some things of all images at once: a million records take ten seconds and more."""

    def sizes(self) -> np.ndarray:
        """[N, 2] int64, (height, width) of every image."""
        raise NotImplementedError

    def image_ids(self) -> Sequence[int | str]:
        """Of every image."""
        raise NotImplementedError


class TableDataset(ByColumns):
    """A detection dataset over a `DetectionTable`; the formats' classes only differ in how they fill it."""

    def __init__(
        self,
        table: DetectionTable,
        class_names: Sequence[str],
        *,
        skipped: Sequence[str] = (),
        counts: Mapping[str, int] | None = None,
        category_ids: Sequence[int] | None = None,
    ) -> None:
        """Keep the table.

        Args:
            table: the truth.
            class_names: the name of each label.
            skipped: what was left out because on_broken="skip", one line each.
            counts: boxes dropped or changed, by reason.
            category_ids: the id of each label in COCO-format files; None: label + 1.
        """
        self.table = table
        self.class_names = tuple(class_names)
        self.skipped = list(skipped)
        self.counts = dict(counts or {})
        self._category_ids = tuple(category_ids or range(1, len(self.class_names) + 1))

    def __len__(self) -> int:
        return len(self.table.paths)

    def category_ids(self) -> Sequence[int]:
        """The id that label k is written as in COCO-format files."""
        return self._category_ids

    def sizes(self) -> np.ndarray:
        """[N, 2] int64, (height, width) of every image."""
        return self.table.sizes.copy()

    def image_ids(self) -> Sequence[int | str]:
        """Of every image."""
        return self.table.image_ids

    def record(self, index: int) -> Record:
        """Truth and size without decoding pixels; copies, so a caller may change them.

        Raises:
            IndexError: no such image.
        """
        table = self.table
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of a dataset of {len(self)}")
        index %= len(self)
        rows = slice(int(table.starts[index]), int(table.starts[index + 1]))
        height, width = table.sizes[index]
        return Record(
            path=table.paths[index],
            image_id=table.image_ids[index],
            size=(int(height), int(width)),
            boxes=table.boxes[rows].copy(),
            labels=table.labels[rows].copy(),
            difficult=table.difficult[rows].copy(),
            crowd=table.crowd[rows].copy(),
            areas=table.areas[rows].copy(),
        )

    def __getitem__(self, index: int) -> Sample:
        """Decoded image with its truth; crowd regions are no training targets and are left to `record`.

        Raises:
            BrokenSample: the image cannot be decoded, or has another size than its annotation says.
            IndexError: no such image.
        """
        record = self.record(index)
        image = read_image(record.path, size=record.size)
        kept = ~record.crowd
        return Sample(
            image=image,
            boxes=record.boxes[kept],
            labels=record.labels[kept],
            difficult=record.difficult[kept],
            weights=np.ones(int(kept.sum()), np.float32),
            index=index % len(self),
            image_id=record.image_id,
            path=record.path,
            original_size=record.size,
        )


def sizes_of(dataset: DetectionDataset | SegmentationDataset) -> np.ndarray:
    """[N, 2] int64, (height, width) of every image."""
    if isinstance(dataset, ByColumns):
        return dataset.sizes()
    return np.array([dataset.record(index).size for index in range(len(dataset))], np.int64).reshape(-1, 2)


def image_ids_of(dataset: DetectionDataset) -> Sequence[int | str]:
    """The id of every image."""
    if isinstance(dataset, ByColumns):
        return dataset.image_ids()
    return [dataset.record(index).image_id for index in range(len(dataset))]
