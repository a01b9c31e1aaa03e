"""Test-time augmentation: each image at several scales and mirrored, the predictions merged with box voting.

Source: multi-scale and flip testing as it is usual in detection; the merging is that of `transfer.ops.box_voting`.

It works on predictions alone, in pixels of the original image, so any detector can be tested so. The scales change what
the config's test pipeline resizes to, so a larger view is made of the original image and not of a reduced one; the
mirrored view is made of the batch. Costs as many forward passes as there are views. Figures measured so are not
comparable with single-view ones: whoever reports them must say it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from transfer.build import Node, parameters_of, resolve
from transfer.engine.task import DetectionTask
from transfer.types import Batch, Prediction, UserError, is_number

LENGTHS = ("size", "short", "long", "long_max")
"""Arguments that hold pixels, of this project's resizing steps and test presets."""
FACTOR = "factor"
"""Argument that holds a factor on the image's own size; it is changed where none of `LENGTHS` is set beside it."""


@dataclass(frozen=True, kw_only=True)
class TestTime:
    """The config's `loader.test_time`: which views of a test image are predicted, and how they become one."""

    __test__ = False  # no test class, whatever pytest thinks of the name

    scales: Sequence[float] = (1.0,)
    """Factors of what the test pipeline resizes to."""
    flip: bool = True
    """Each scale also mirrored."""
    voting: float | None = 0.5
    """IoU from which on boxes vote on a kept one; None: no voting."""
    nms_iou: float = 0.5
    """Suppression threshold over the views, within a class."""
    max_detections: int = 100
    """An image, over all views."""

    def __post_init__(self) -> None:
        problems = check_scales(self.scales)
        if not isinstance(self.flip, bool):
            problems.append(f"flip={self.flip!r} must be True or False")
        if self.voting is not None and not (is_number(self.voting) and 0 < self.voting <= 1):
            problems.append(f"voting={self.voting!r} must be an IoU in (0, 1], or None for no voting")
        if not (is_number(self.nms_iou) and 0 <= self.nms_iou <= 1):
            problems.append(f"nms_iou={self.nms_iou!r} must be in [0, 1]")
        if not isinstance(self.max_detections, int) or self.max_detections < 1:
            problems.append(f"max_detections={self.max_detections!r} must be a whole number above 0")
        if problems:
            raise UserError("loader.test_time: " + "; ".join(problems))


def check_scales(scales: object) -> list[str]:
    """What is wrong with the scales of a `loader.test_time`: nothing, or one message."""
    given = scales if isinstance(scales, (list, tuple)) else []
    if not given or not all(is_number(scale) and 0 < scale < math.inf for scale in given):
        return [f"scales={scales!r} must be a list of numbers above 0, such as [0.8, 1.0, 1.2]"]
    return [f"scales={scales!r} has a scale twice"] if len(set(given)) < len(given) else []


@dataclass(slots=True)
class Views(Batch):
    """A batch, and the same images at further scales."""

    others: list[Batch] = field(default_factory=list)

    def to(self, device: torch.device | str) -> Views:
        """A copy whose tensors are on `device`."""
        moved = Batch.to(self, device)
        others = [other.to(device) for other in self.others]
        return Views(moved.images, moved.targets, moved.dropped, moved.skipped, others)


def views_of(batches: Sequence[Batch]) -> Views:
    """One batch from the same images at several scales; truth and sizes are the first one's."""
    first, *others = batches
    return Views(first.images, first.targets, first.dropped, first.skipped, others)


class ViewsLoader:
    """Loaders of the same images at several scales, in step.

    Args:
        loaders: the same number of batches each, the same images in each.
    """

    def __init__(self, loaders: Sequence[Iterable[Batch]]) -> None:
        self.loaders = loaders

    def __iter__(self) -> Iterator[Views]:
        return (views_of(batches) for batches in zip(*self.loaders, strict=True))


class TestTimeTask(DetectionTask):
    """A task whose predictions are merged from several views.

    Args:
        task: predicts a single view.
        flip: whether each view is predicted mirrored, too.
        merge: from the predictions of all views of an image to one.
    """

    __test__ = False

    def __init__(self, task: DetectionTask, *, flip: bool, merge: Callable[[Sequence[Prediction]], Prediction]) -> None:
        super().__init__(task.model, task.criterion, task.postprocess)
        self.single, self.flip, self.merge = task, flip, merge

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """As `DetectionTask.predict`; a batch may be `Views`."""
        predictions = []
        for view in (batch, *batch.others) if isinstance(batch, Views) else (batch,):
            predictions.append(self.single.predict(model, view))
            if self.flip:
                mirrored = self.single.predict(model, mirror(view))
                widths = [target.original_size[1] for target in view.targets]
                predictions.append([mirror_back(p, width) for p, width in zip(mirrored, widths, strict=True)])
        return [self.merge(each) for each in zip(*predictions, strict=True)]


def mirror(batch: Batch) -> Batch:
    """The batch with left and right exchanged in every image; padding stays where it is, targets stay as they are."""
    images = batch.images.clone()
    for image, target in zip(images, batch.targets, strict=True):
        height, width = target.size
        image[:, :height, :width] = image[:, :height, :width].flip(-1)
    return Batch(images, batch.targets)


def mirror_back(prediction: Prediction, width: int) -> Prediction:
    """The boxes where they are in the image itself.

    Args:
        prediction: of the mirrored image.
        width: of the original image, pixels.
    """
    left, top, right, bottom = prediction.boxes.unbind(dim=1)
    boxes: Tensor = torch.stack([width - right, top, width - left, bottom], dim=1)
    return Prediction(boxes, prediction.scores, prediction.labels)


def scaled_pipeline(node: Any, factor: float, trusted: Sequence[str] | None = None) -> Node:
    """The config of a test pipeline that resizes to other lengths.

    Args:
        node: the config of a pipeline; stays as it is.
        factor: of the lengths, above 0.
        trusted: see `transfer.build.resolve`.
    Raises:
        UserError: nothing in it has a length to change.
    """
    if factor == 1:
        return node
    scaled, count = _scaled(node, factor, trusted)
    if not count:
        raise UserError(
            f"loader.test_time: scale {factor:g}: nothing in augment.test has {', '.join(LENGTHS)}; give scales=[1.0], "
            "or a pipeline of transfer.augment (square_test, two_stage_test, ResizeTo, ...)"
        )
    return scaled


def _scaled(node: Any, factor: float, trusted: Sequence[str] | None) -> tuple[Any, int]:
    # The node with its lengths changed, and how many there were.
    if isinstance(node, list):
        pairs = [_scaled(item, factor, trusted) for item in node]
        return [item for item, _ in pairs], sum(count for _, count in pairs)
    if not isinstance(node, dict):
        return node, 0
    changed, count = {}, 0
    for key, value in node.items():
        changed[key], found = _scaled(value, factor, trusted)
        count += found
    parameters = {} if "type" not in node else parameters_of(resolve(node["type"], trusted)) or {}
    own = False
    for name in LENGTHS:
        value = node.get(name, parameters[name].default) if name in parameters else None
        if is_number(value):
            changed[name] = max(1, round(value * factor))  # type: ignore[operator]
            count += 1
        elif isinstance(value, (list, tuple)):
            changed[name] = [max(1, round(side * factor)) for side in value]
            count += 1
        else:
            continue
        own = True
    if FACTOR in parameters and not own:
        changed[FACTOR] = node.get(FACTOR, parameters[FACTOR].default) * factor
        count += 1
    return changed, count
