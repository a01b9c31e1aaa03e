"""Short ways to write records and predictions in the tests of detection metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from transfer.types import Prediction, Record


def make_record(
    boxes: Any,
    labels: Sequence[int],
    *,
    image_id: int | str = "image",
    difficult: Sequence[bool] | None = None,
    crowd: Sequence[bool] | None = None,
    areas: Sequence[float] | None = None,
) -> Record:
    """A record of a 100x100 image."""
    box_array = np.array(boxes, np.float32).reshape(-1, 4)
    none = np.zeros(len(labels), bool)
    sizes = box_array[:, 2:] - box_array[:, :2]
    return Record(
        path=f"{image_id}.jpg",
        image_id=image_id,
        size=(100, 100),
        boxes=box_array,
        labels=np.array(labels, np.int64),
        difficult=none if difficult is None else np.array(difficult, bool),
        crowd=none if crowd is None else np.array(crowd, bool),
        areas=sizes[:, 0] * sizes[:, 1] if areas is None else np.array(areas, np.float32),
    )


def make_prediction(boxes: Any, scores: Sequence[float], labels: Sequence[int]) -> Prediction:
    """A prediction from plain lists."""
    return Prediction(
        torch.tensor(np.array(boxes, np.float32).reshape(-1, 4)),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
    )


def noisy_detections(
    records: Sequence[Record], generator: np.random.Generator, *, num_classes: int, extra: int = 5
) -> list[Prediction]:
    """Detections around the truth, some of a wrong class, and `extra` anywhere; scores all different."""
    counts = [2 * len(record.labels) + extra for record in records]
    scores = iter((generator.permutation(sum(counts)) + 1) / (sum(counts) + 1))
    predictions = []
    for record, count in zip(records, counts):
        height, width = record.size
        truth = np.repeat(record.boxes, 2, axis=0)
        near = truth + generator.normal(0, 0.08, truth.shape) * np.tile(truth[:, 2:] - truth[:, :2], 2)
        far = generator.random((extra, 4)) * np.array([width, height, width, height])
        boxes = np.concatenate([near, far])
        boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
        labels = np.concatenate([np.repeat(record.labels, 2), generator.integers(0, num_classes, extra)])
        labels = np.where(generator.random(count) < 0.1, generator.integers(0, num_classes, count), labels)
        predictions.append(make_prediction(boxes, [next(scores) for _ in range(count)], labels.tolist()))
    return predictions
