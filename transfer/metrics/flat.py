"""Truth and detections of a whole data set as a few flat, checked arrays.

Metrics then work on all images at once, without a Python loop over detections. Coordinates become float64: the IoU of
whole-number boxes is then one correctly rounded division, so "IoU >= 0.5" is exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from transfer.types import Prediction, Record

Predicted: TypeAlias = "Prediction | tuple[Any, Any, Any]"
"""A Prediction, or (boxes [N, 4], scores [N], labels [N]) as arrays or tensors, in original pixels."""

_MAX_NAMED_IMAGES = 5


@dataclass(slots=True, frozen=True)
class Truths:
    """The truth boxes of all images, in the order image, box."""

    image: np.ndarray
    """[T] int64: position of the box's image in the records."""
    boxes: np.ndarray
    """[T, 4] float64, xyxy pixels."""
    labels: np.ndarray
    """[T] int64."""
    difficult: np.ndarray
    """[T] bool."""
    crowd: np.ndarray
    """[T] bool."""
    areas: np.ndarray
    """[T] float64, square pixels."""

    @property
    def ignored(self) -> np.ndarray:
        """[T] bool: difficult or crowd; finding such a box is neither right nor wrong."""
        return self.difficult | self.crowd


@dataclass(slots=True, frozen=True)
class Detections:
    """The detections of all images, in the order image, detection."""

    image: np.ndarray
    """[D] int64: position of the detection's image in the records."""
    boxes: np.ndarray
    """[D, 4] float64, xyxy pixels."""
    scores: np.ndarray
    """[D] float64."""
    labels: np.ndarray
    """[D] int64."""

    def best_per_image(self, limit: int) -> Detections:
        """The `limit` detections of highest score of each image, in unchanged order; of equal scores the earlier."""
        order = np.lexsort((-self.scores, self.image))
        image = self.image[order]
        # position in the sorted list, minus the position where the image begins: 0 for the image's best
        rank = np.arange(len(image)) - np.searchsorted(image, image, side="left")
        kept = np.sort(order[rank < limit])
        return Detections(self.image[kept], self.boxes[kept], self.scores[kept], self.labels[kept])


def check_classes(class_names: Sequence[str], category_ids: Sequence[int]) -> None:
    """Refuse class names or ids that would fold two classes into one.

    Raises:
        ValueError: The names are not distinct, the ids are not distinct, or their numbers differ.
    """
    problems = []
    if len(class_names) != len(category_ids):
        problems.append(f"{len(class_names)} class names but {len(category_ids)} category ids")
    named: tuple[tuple[str, Sequence[object]], ...] = (("class names", class_names), ("category ids", category_ids))
    for what, values in named:
        repeated = [repr(value) for value, count in Counter(values).items() if count > 1]
        if repeated:
            problems.append(f"{what} must be distinct; found more than once: {', '.join(repeated)}")
    if problems:
        raise ValueError("; ".join(problems))


def flatten_truths(records: Sequence[Record], num_classes: int) -> Truths:
    """Join the truth of all records.

    Args:
        records: one per image.
        num_classes: labels must lie in 0..num_classes - 1.

    Returns:
        Truths with T boxes, T possibly 0.

    Raises:
        ValueError: A box is not finite or a label out of range; names the images.
    """
    truths = Truths(
        image=np.repeat(np.arange(len(records)), [len(record.labels) for record in records]),
        boxes=_joined([record.boxes.reshape(-1, 4) for record in records], np.float64, (0, 4)),
        labels=_joined([record.labels for record in records], np.int64),
        difficult=_joined([record.difficult for record in records], np.bool_),
        crowd=_joined([record.crowd for record in records], np.bool_),
        areas=_joined([record.areas for record in records], np.float64),
    )
    lengths = {len(truths.boxes), len(truths.labels), len(truths.difficult), len(truths.crowd), len(truths.areas)}
    assert len(lengths) == 1, "a record's arrays differ in length"
    problems = [
        *_bad_images(records, truths.image, ~np.isfinite(truths.boxes).all(axis=1), "truth boxes that are not finite"),
        *_bad_images(records, truths.image, *_out_of_range("truth", truths.labels, num_classes)),
    ]
    if problems:
        raise ValueError("\n".join(problems))
    return truths


def flatten_detections(records: Sequence[Record], predictions: Sequence[Predicted], num_classes: int) -> Detections:
    """Join the detections of all images.

    Args:
        records: one per image, only to name images in errors.
        predictions: predictions[i] belongs to records[i]; on any device.
        num_classes: labels must lie in 0..num_classes - 1.

    Returns:
        Detections with D boxes, D possibly 0.

    Raises:
        ValueError: The numbers of records and predictions differ, shapes do not fit, a box or score is not finite, or
            a label is out of range; names the images.
    """
    if len(records) != len(predictions):
        raise ValueError(f"{len(records)} records but {len(predictions)} predictions: they must cover the same images")
    arrays: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    problems: list[str] = []
    for record, predicted in zip(records, predictions):
        fields = (
            (predicted.boxes, predicted.scores, predicted.labels) if isinstance(predicted, Prediction) else predicted
        )
        boxes, scores, labels = (_to_numpy(value) for value in fields)
        count = len(scores)
        if boxes.shape != (count, 4) or scores.ndim != 1 or labels.shape != (count,):
            if count + len(boxes) + len(labels) > 0:  # any empty shape means: nothing found
                shapes = f"boxes {boxes.shape}, scores {scores.shape}, labels {labels.shape}"
                problems.append(f"{_name(record)}: expected [N, 4], [N], [N], found {shapes}")
            boxes, scores, labels = np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
        elif count and labels.dtype.kind not in "iu":
            problems.append(f"{_name(record)}: predicted labels must be integers, found {labels.dtype}")
        arrays.append((boxes, scores, labels))
    if problems:
        raise ValueError("\n".join(problems))

    detections = Detections(
        image=np.repeat(np.arange(len(records)), [len(scores) for _, scores, _ in arrays]),
        boxes=_joined([boxes for boxes, _, _ in arrays], np.float64, (0, 4)),
        scores=_joined([scores for _, scores, _ in arrays], np.float64),
        labels=_joined([labels for _, _, labels in arrays], np.int64),
    )
    image = detections.image
    problems = [
        *_bad_images(records, image, ~np.isfinite(detections.boxes).all(axis=1), "predicted boxes that are not finite"),
        *_bad_images(records, image, ~np.isfinite(detections.scores), "predicted scores that are not finite"),
        *_bad_images(records, image, *_out_of_range("predicted", detections.labels, num_classes)),
    ]
    if problems:
        raise ValueError("\n".join(problems))
    return detections


def _to_numpy(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()  # numpy has no bfloat16
    return np.asarray(value)


def _joined(arrays: list[np.ndarray], dtype: Any, empty_shape: tuple[int, ...] = (0,)) -> np.ndarray:
    """One array of `dtype` from many along the first axis; `empty_shape` where there is none."""
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(empty_shape, dtype)


def _out_of_range(whose: str, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, str]:
    """Which labels are no class, and how to say so."""
    bad = (labels < 0) | (labels >= num_classes)
    found = ", ".join(str(label) for label in np.unique(labels[bad])[:_MAX_NAMED_IMAGES])
    return bad, f"{whose} labels outside 0..{num_classes - 1} ({found})"


def _bad_images(records: Sequence[Record], image: np.ndarray, bad: np.ndarray, what: str) -> list[str]:
    """A line naming the images whose boxes are marked in `bad`, or nothing."""
    positions = np.unique(image[bad])
    if len(positions) == 0:
        return []
    names = ", ".join(_name(records[position]) for position in positions[:_MAX_NAMED_IMAGES])
    more = f" and {len(positions) - _MAX_NAMED_IMAGES} more" if len(positions) > _MAX_NAMED_IMAGES else ""
    return [f"{what}: {names}{more}"]


def _name(record: Record) -> str:
    return f"image {record.image_id!r} ({record.path})"
