"""Every test image once, over all processes, to predictions in the data set's order, and those to figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from transfer.engine.distributed import World
from transfer.engine.task import DetectionTask
from transfer.engine.workers import in_use
from transfer.types import Batch, DetectionDataset, Prediction


def predict_all(
    task: DetectionTask,
    model: nn.Module,
    batches: Iterable[Batch],
    world: World,
    *,
    on_batch: Callable[[int], None] = lambda images: None,
) -> list[Prediction]:
    """Predictions in the order of the data set, on process 0; an empty list elsewhere.

    Args:
        task: knows how to predict.
        model: the network in eval mode; not wrapped.
        batches: this process's share; over all processes, each image once.
        world: this process.
        on_batch: told how many images were done.
    """
    own: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
    with in_use(batches):
        for batch in batches:
            batch = batch.to(world.device)
            for target, prediction in zip(batch.targets, task.predict(model, batch)):
                own[target.index] = (prediction.boxes, prediction.scores, prediction.labels)
            on_batch(len(batch.targets))
    together: dict[int, Any] = {}
    for part in world.gather(own):
        together.update(part)
    return [Prediction(*together[index]) for index in sorted(together)]


def measure(
    metrics: Sequence[Any], dataset: DetectionDataset, predictions: Sequence[Prediction], world: World
) -> list[Any]:
    """The results of each metric, the same on every process.

    Args:
        metrics: objects with `evaluate(records, predictions, class_names, category_ids)`.
        dataset: what was predicted.
        predictions: as `predict_all` gives them.
        world: this process.
    """
    results = None
    if world.is_main:
        assert len(predictions) == len(dataset), "every image is predicted once"
        records = [dataset.record(index) for index in range(len(dataset))]
        names, ids = dataset.class_names, dataset.category_ids()
        results = [metric.evaluate(records, predictions, names, ids) for metric in metrics]
    return world.broadcast(results)
