"""Data sets and models with one fault each, to be named in a config."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from transfer.data.voc import VOCDataset
from transfer.heads.faster_rcnn import FasterRCNN, faster_rcnn_fpn
from transfer.types import ImageRecord, MaskRecord, Record, Sample


class ChangedTruth(VOCDataset):
    """VOC data whose boxes and labels are changed on their way out."""

    def changed(self, boxes: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return boxes, labels

    def record(self, index: int) -> Record:
        record = super().record(index)
        record.boxes, record.labels = self.changed(record.boxes, record.labels, record.size)
        return record

    def __getitem__(self, index: int) -> Sample:
        return super().__getitem__(index)  # reads its truth from the record


class LabelsFromOne(ChangedTruth):
    def changed(self, boxes: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return boxes, labels + 1


class LabelsBeyond(ChangedTruth):
    def changed(self, boxes: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return boxes, np.where(labels == 2, 7, labels)


class LabelsBeyondInSamples(VOCDataset):
    """Only the decoded samples are wrong."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        sample.labels = sample.labels - 1
        return sample


class WidthAndHeight(ChangedTruth):
    def changed(self, boxes: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1), labels


class Shares(ChangedTruth):
    def changed(self, boxes: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return boxes / np.float32([size[1], size[0], size[1], size[0]]), labels


class DarkImages(VOCDataset):
    """Images divided by 255 before they become uint8: zeros and ones."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        sample.image = (sample.image / 255).astype(np.uint8)
        return sample


class Detached(nn.Module):
    """A module whose input has lost its graph."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x.detach())


class Silenced(nn.Module):
    """A module whose output is multiplied by zero."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * 0


def _with(change: Callable[[FasterRCNN], None]) -> Callable[..., FasterRCNN]:
    def build(backbone: Any, num_classes: int, **options: Any) -> FasterRCNN:
        model = faster_rcnn_fpn(backbone, num_classes, **options)
        assert isinstance(model, FasterRCNN)
        change(model)
        return model

    return build


def head_not_connected(backbone: Any, num_classes: int, **options: Any) -> FasterRCNN:
    """The box head's features are cut off from the predictor."""

    def change(model: FasterRCNN) -> None:
        model.predictor = Detached(model.predictor)

    return _with(change)(backbone, num_classes, **options)


def unused_layer(backbone: Any, num_classes: int, **options: Any) -> FasterRCNN:
    """A layer that forward never calls."""

    def change(model: FasterRCNN) -> None:
        model.box_head.extra = nn.Linear(4, 4)

    return _with(change)(backbone, num_classes, **options)


def silent_head(backbone: Any, num_classes: int, **options: Any) -> FasterRCNN:
    """The box head gives zeros, whatever it is given."""

    def change(model: FasterRCNN) -> None:
        model.box_head = Silenced(model.box_head)

    return _with(change)(backbone, num_classes, **options)


def wide_head(backbone: Any, num_classes: int, **options: Any) -> FasterRCNN:
    """The class logits begin a thousand times too wide."""

    def change(model: FasterRCNN) -> None:
        nn.init.normal_(model.predictor.logits.weight, std=10.0)  # type: ignore[union-attr, arg-type]

    return _with(change)(backbone, num_classes, **options)


def tiny_anchors(backbone: Any, num_classes: int, **options: Any) -> FasterRCNN:
    return faster_rcnn_fpn(backbone, num_classes, **{**options, "anchor_scales": (0.1,)})  # type: ignore[return-value]


class _Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ x.flatten(1)


def broken_forward(backbone: Any, num_classes: int, **options: Any) -> FasterRCNN:
    """A box head that cannot multiply what it is given."""

    def change(model: FasterRCNN) -> None:
        model.box_head = _Broken()

    return _with(change)(backbone, num_classes, **options)


class DrawnMasks:
    """The drawn images with a class for each pixel: background, and that of the box it is in. No fault."""

    def __init__(self, root: str, splits: str) -> None:
        self.boxes = VOCDataset(root, splits)
        self.class_names = ("background", *self.boxes.class_names)

    def __len__(self) -> int:
        return len(self.boxes)

    def record(self, index: int) -> MaskRecord:
        record = self.boxes.record(index)
        return MaskRecord(record.path, record.image_id, record.size, None)

    def mask(self, index: int) -> np.ndarray:
        record = self.boxes.record(index)
        mask = np.zeros(record.size, np.uint8)
        for (left, top, right, bottom), label in zip(record.boxes.astype(int), record.labels):
            mask[top:bottom, left:right] = label + 1
        return mask

    def __getitem__(self, index: int) -> Sample:
        sample = self.boxes[index]
        none = np.zeros(0, np.float32)
        return dataclasses.replace(
            sample,
            boxes=none.reshape(0, 4),
            labels=none.astype(np.int64),
            difficult=none.astype(bool),
            weights=none,
            mask=self.mask(index),
        )


class DrawnClasses:
    """The drawn images with a class each: that of their first box, else the first one. No fault."""

    def __init__(self, root: str, splits: str) -> None:
        self.boxes = VOCDataset(root, splits)
        self.class_names = tuple(self.boxes.class_names)

    def __len__(self) -> int:
        return len(self.boxes)

    def labels(self) -> np.ndarray:
        found = [self.boxes.record(index).labels for index in range(len(self))]
        return np.array([int(labels[0]) if len(labels) else 0 for labels in found])

    def record(self, index: int) -> ImageRecord:
        record = self.boxes.record(index)
        return ImageRecord(record.path, record.image_id, int(self.labels()[index]))

    def __getitem__(self, index: int) -> Sample:
        sample = self.boxes[index]
        none = np.zeros(0, np.float32)
        return dataclasses.replace(
            sample,
            boxes=none.reshape(0, 4),
            labels=none.astype(np.int64),
            difficult=none.astype(bool),
            weights=none,
            label=int(self.labels()[index]),
        )
