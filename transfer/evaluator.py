"""What measures a model on one data set, during a run and after it: one class a task, all used alike.

An evaluator is called with a network in eval mode, gives one result a metric on every process, and keeps what it needs
to draw a page of predictions. Detection keeps all predictions, because average precision ranks them together;
segmentation and classification count image by image, and keep only what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from transfer.engine.distributed import World
from transfer.engine.evaluate import measure, predict_all
from transfer.engine.task import ClassificationTask, DetectionTask, SegmentationTask
from transfer.engine.train import MetricLike
from transfer.engine.workers import in_use
from transfer.report.class_pages import page_of_classes
from transfer.report.overlays import page_of_label_maps
from transfer.report.pages import page_of_predictions, spread
from transfer.types import (
    Batch,
    ClassificationDataset,
    DetectionDataset,
    LabelMap,
    Prediction,
    SegmentationDataset,
    Target,
)


class Evaluator(Protocol):
    """What a run asks of it."""

    loader: Iterable[Batch]
    """Of this process's share; its workers stay from one call to the next."""
    results: list[MetricLike]
    """Of the last call."""

    def __call__(self, model: nn.Module, on_batch: Callable[[int], None] = ...) -> list[MetricLike]:
        """Args: the network in eval mode; told how many images were done. Returns: one result a metric."""
        ...

    def draw(self, path: Path, *, count: int = 12) -> None:
        """A page of the last call's predictions, at most `count` images; on process 0."""
        ...


class DetectionEvaluator:
    """Measures a detector; keeps the last predictions and results.

    Args:
        task: knows how to predict.
        dataset: what is measured.
        loader: this process's share of it.
        metrics: what is computed.
        world: this process.
    """

    def __init__(
        self,
        task: DetectionTask,
        dataset: DetectionDataset,
        loader: Iterable[Batch],
        metrics: Sequence[Any],
        world: World,
    ) -> None:
        self.task, self.dataset, self.loader, self.metrics, self.world = task, dataset, loader, metrics, world
        self.predictions: list[Prediction] = []
        self.results: list[MetricLike] = []

    def __call__(self, model: nn.Module, on_batch: Callable[[int], None] = lambda images: None) -> list[MetricLike]:
        """See `Evaluator`."""
        self.predictions = predict_all(self.task, model, self.loader, self.world, on_batch=on_batch)
        self.results = measure(self.metrics, self.dataset, self.predictions, self.world)
        return self.results

    def draw(self, path: Path, *, count: int = 12) -> None:
        """See `Evaluator`."""
        page_of_predictions(self.dataset, self.predictions, path, count=count)


class SegmentationEvaluator:
    """Measures a segmenter; keeps the label maps of some images and the last results.

    Args:
        task: knows how to predict.
        dataset: what is measured.
        loader: this process's share of it; its targets have the masks of the original images.
        metrics: objects with `start(num_classes)`, which gives a matrix with `add(truth, predicted)` and
            `merge(other)`, and `result(matrix, class_names)`.
        world: this process.
        pictures: label maps that are kept to be drawn, spread over the data set.
    """

    def __init__(
        self,
        task: SegmentationTask,
        dataset: SegmentationDataset,
        loader: Iterable[Batch],
        metrics: Sequence[Any],
        world: World,
        *,
        pictures: int = 12,
    ) -> None:
        self.task, self.dataset, self.loader, self.metrics, self.world = task, dataset, loader, metrics, world
        self.drawn = set(spread(len(dataset), pictures))
        self.label_maps: dict[int, LabelMap] = {}
        self.results: list[MetricLike] = []

    def __call__(self, model: nn.Module, on_batch: Callable[[int], None] = lambda images: None) -> list[MetricLike]:
        """See `Evaluator`."""
        matrices = [metric.start(len(self.dataset.class_names)) for metric in self.metrics]
        kept: dict[int, np.ndarray] = {}
        with in_use(self.loader):
            for batch in self.loader:
                batch = batch.to(self.world.device)
                for target, label_map in zip(batch.targets, self.task.predict(model, batch), strict=True):
                    assert target.mask is not None, "a segmentation data set gives masks"
                    labels = label_map.labels.numpy()
                    for matrix in matrices:
                        matrix.add(target.mask.cpu().numpy(), labels)
                    if target.index in self.drawn:
                        kept[target.index] = labels
                on_batch(len(batch.targets))
        self._together(matrices, kept)
        return self.results

    def _together(self, matrices: Sequence[Any], kept: dict[int, np.ndarray]) -> None:
        """Results and label maps from all processes' shares."""
        results: list[Any] | None = None
        for rank, (theirs, maps) in enumerate(self.world.gather((matrices, kept))):
            if rank:
                kept.update(maps)
                for matrix, other in zip(matrices, theirs, strict=True):
                    matrix.merge(other)
        if self.world.is_main:
            names = self.dataset.class_names
            results = [metric.result(matrix, names) for metric, matrix in zip(self.metrics, matrices, strict=True)]
            self.label_maps = {index: LabelMap(torch.from_numpy(kept[index])) for index in sorted(kept)}
        self.results = self.world.broadcast(results)

    def draw(self, path: Path, *, count: int = 12) -> None:
        """See `Evaluator`."""
        page_of_label_maps(self.dataset, self.label_maps, path, count=count)


class ClassificationEvaluator:
    """Measures a classifier; keeps the scores of some images and the last results.

    Args:
        task: knows how to predict.
        dataset: what is measured.
        loader: this process's share of it.
        metrics: objects with `start(num_classes)`, which gives counts with `add(labels, scores)` and `merge(other)`,
            and `result(counts, class_names)`.
        world: this process.
        pictures: images that are drawn, spread over the data set, and as many of the worst mistakes.
    """

    def __init__(
        self,
        task: ClassificationTask,
        dataset: ClassificationDataset,
        loader: Iterable[Batch],
        metrics: Sequence[Any],
        world: World,
        *,
        pictures: int = 12,
    ) -> None:
        self.task, self.dataset, self.loader, self.metrics, self.world = task, dataset, loader, metrics, world
        self.pictures = pictures
        self.drawn = set(spread(len(dataset), pictures))
        self.scores: dict[int, np.ndarray] = {}
        """[K] of the images that are drawn."""
        self.results: list[MetricLike] = []

    def __call__(self, model: nn.Module, on_batch: Callable[[int], None] = lambda images: None) -> list[MetricLike]:
        """See `Evaluator`."""
        counts = [metric.start(len(self.dataset.class_names)) for metric in self.metrics]
        kept: dict[int, np.ndarray] = {}
        wrong: list[tuple[float, int, np.ndarray]] = []  # the surest mistakes: (score, image, scores)
        with in_use(self.loader):
            for batch in self.loader:
                batch = batch.to(self.world.device)
                scores = torch.stack([each.scores for each in self.task.predict(model, batch)]).numpy()  # [B, K]
                labels = np.array([int(_label(target)) for target in batch.targets], np.int64)
                for count in counts:
                    count.add(labels, scores)
                for target, label, row in zip(batch.targets, labels, scores, strict=True):
                    if target.index in self.drawn:
                        kept[target.index] = row
                    if row.argmax() != label:
                        wrong.append((float(row.max()), target.index, row))
                wrong = sorted(wrong, key=lambda each: (-each[0], each[1]))[: self.pictures]
                on_batch(len(batch.targets))
        self._together(counts, kept, wrong)
        return self.results

    def _together(
        self, counts: Sequence[Any], kept: dict[int, np.ndarray], wrong: list[tuple[float, int, np.ndarray]]
    ) -> None:
        """Results and scores from all processes' shares."""
        results: list[Any] | None = None
        mistakes = list(wrong)
        for rank, (theirs, rows, others) in enumerate(self.world.gather((counts, kept, wrong))):
            if rank:
                kept.update(rows)
                mistakes += others
                for count, other in zip(counts, theirs, strict=True):
                    count.merge(other)
        if self.world.is_main:
            names = self.dataset.class_names
            results = [metric.result(count, names) for metric, count in zip(self.metrics, counts, strict=True)]
            worst = sorted(mistakes, key=lambda each: (-each[0], each[1]))[: self.pictures]
            self.scores = {**{index: kept[index] for index in sorted(kept)}, **{i: row for _, i, row in worst}}
        self.results = self.world.broadcast(results)

    def draw(self, path: Path, *, count: int = 12) -> None:
        """See `Evaluator`; `count` images spread over the data set, then as many of the surest mistakes."""
        page_of_classes(self.dataset, self.scores, path, count=2 * count)


def _label(target: Target) -> Tensor:
    assert target.classes is not None, "a classification data set gives classes"
    return target.classes[0]
