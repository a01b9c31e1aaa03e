"""Test images under one backbone's predictions, and under their truth: a run of the ledger."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer.assemble import build_dataset, build_evaluator
from transfer.build import Node
from transfer.engine.checkpoint import load_checkpoint
from transfer.engine.distributed import World, choose_device
from transfer.engine.run_directory import new_run_directory
from transfer.engine.workers import end_workers
from transfer.evaluator import DetectionEvaluator, SegmentationEvaluator
from transfer.ranking_run.side_run import leave, part_of
from transfer.report.class_pages import with_classes
from transfer.report.overlays import draw_label_map
from transfer.report.pages import draw_boxes, spread, to_tile, write_picture
from transfer.restoring import restore
from transfer.types import Sample

SIDE = 326
"""Of a drawing with its margin, pixels."""
SCORE = 0.3
"""Weaker detections are not drawn."""


def run(config: Node, *, name: str, work_dir: Path, device: str, resume: str | None) -> bool:
    """Draw; see `transfer.experiments.description.Description.runner`, and `transfer.ranking_run.forecasts.run`.

    Args:
        config: "run", the directory below `work_dir` of the run whose checkpoint is looked at, and "images".
        name: of the run's directory.
        work_dir: holds the runs' directories.
        device: "auto", "cpu", "cuda", "cuda:N".
        resume: not read.
    """
    trained = work_dir / config["run"]
    best = trained / "best.pth"
    here = World(0, 1, choose_device(device))
    restored = restore(load_checkpoint(best if best.is_file() else trained / "last.pth"), here.device, trust=None)
    settings = copy.deepcopy(restored.config)
    settings["training"]["pictures"] = config["images"]  # an evaluator keeps as many
    settings["loader"]["workers"] = 0
    whole = build_dataset(settings["data"]["test"], "data.test", restored.class_names, None)
    dataset = part_of(whole, np.array(spread(len(whole), config["images"])))
    evaluator = build_evaluator(settings, restored.task, dataset, here)
    try:
        evaluator(restored.task.model)
    finally:
        end_workers(evaluator.loader)
    folder = new_run_directory(work_dir / name)
    drawn = []
    for index in range(len(dataset)):
        sample = dataset[index]
        about = {"image_id": str(sample.image_id), "truth": f"{index}-truth.jpg", "drawn": f"{index}.jpg"}
        write_picture(folder / about["truth"], _truth(sample, restored.class_names))
        write_picture(folder / about["drawn"], _predicted(sample, evaluator, index, restored.class_names))
        drawn.append(about)
    return leave(work_dir, name, {"pictures": drawn}, folder)


def _truth(sample: Sample, class_names: Sequence[str]) -> np.ndarray:
    """[h, w, 3] uint8."""
    if sample.mask is not None:
        return to_tile(draw_label_map(sample.image, sample.mask), SIDE)[0]
    image, factor = to_tile(sample.image, SIDE)
    if sample.label is not None:
        return with_classes(image, np.eye(len(class_names))[sample.label], class_names, image.shape[1])
    return draw_boxes(image, sample.boxes * factor, sample.labels, class_names)


def _predicted(sample: Sample, evaluator: Any, index: int, class_names: Sequence[str]) -> np.ndarray:
    """[h, w, 3] uint8."""
    if isinstance(evaluator, SegmentationEvaluator):
        return to_tile(draw_label_map(sample.image, evaluator.label_maps[index].labels.numpy()), SIDE)[0]
    image, factor = to_tile(sample.image, SIDE)
    if isinstance(evaluator, DetectionEvaluator):
        found = evaluator.predictions[index]
        strong = found.scores >= SCORE
        boxes, labels, scores = (each[strong].numpy() for each in (found.boxes, found.labels, found.scores))
        return draw_boxes(image, boxes * factor, labels, class_names, scores=scores)
    return with_classes(image, evaluator.scores[index], class_names, image.shape[1], truth=sample.label)
