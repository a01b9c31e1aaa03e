"""The truth of some images as flat arrays: as a data set states it, and as its decoded samples bring it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transfer.report.pages import spread
from transfer.types import DetectionDataset, Record, Sample, Size, UserError

MOST_RECORDS = 5000
"""Images whose records are read: a read takes some 20 microseconds."""
DECODED = 8
"""Images that are decoded apart from the batches."""


@dataclass(slots=True)
class Objects:
    """M boxes of some images."""

    boxes: np.ndarray
    """[M, 4] float64, as they are given: xyxy pixels if all is well."""
    labels: np.ndarray
    """[M] int64."""
    sizes: np.ndarray
    """[M, 2] float64: (height, width) of each one's image."""
    paths: list[str]
    """[M]: each one's image."""
    images: int
    """Images that were looked at."""
    total: int
    """Images of the data set."""


def stated_objects(dataset: DetectionDataset) -> Objects:
    """What the data set says without decoding, over at most `MOST_RECORDS` images; crowd regions are no objects."""
    records = [dataset.record(index) for index in spread(len(dataset), MOST_RECORDS)]
    return _joined([_without_crowd(record) for record in records], len(dataset))


def decoded_samples(dataset: DetectionDataset) -> list[Sample]:
    """Some decoded images, before any augmentation; what cannot be read is left to the loader's own rule."""
    samples = []
    for index in spread(len(dataset), DECODED):
        try:
            samples.append(dataset[index])
        except UserError:
            continue
    return samples


def decoded_objects(samples: Sequence[Sample], total: int) -> Objects:
    """The boxes that decoded samples bring.

    Args:
        samples: before any augmentation.
        total: images of the data set.
    """
    return _joined(
        [(sample.boxes, sample.labels, tuple(sample.image.shape[:2]), sample.path) for sample in samples], total
    )


def _without_crowd(record: Record) -> tuple[np.ndarray, np.ndarray, Size, str]:
    kept = ~np.asarray(record.crowd, dtype=bool)
    return np.asarray(record.boxes).reshape(-1, 4)[kept], np.asarray(record.labels)[kept], record.size, record.path


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray, Size, str]], total: int) -> Objects:
    boxes, labels, sizes, paths = [np.zeros((0, 4))], [np.zeros(0, np.int64)], [np.zeros((0, 2))], list[str]()
    for of_boxes, of_labels, size, path in parts:
        count = len(of_boxes)
        boxes.append(np.asarray(of_boxes, dtype=np.float64).reshape(-1, 4))
        labels.append(np.asarray(of_labels, dtype=np.int64))
        sizes.append(np.tile(np.asarray(size, dtype=np.float64), (count, 1)))
        paths += [path] * count
    return Objects(
        np.concatenate(boxes), np.concatenate(labels), np.concatenate(sizes), paths, images=len(parts), total=total
    )
