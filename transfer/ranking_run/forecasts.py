"""The transferability scores of one backbone on one task, without training: a run of the ledger.

The training images (a part of them that is the same for all backbones) pass through the task's test augmentation, so
that the backbone sees them as in a test; what is asked of its maps is in `transfer.ranking.box_features` and its like.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backbones.source_head import source_head
from transfer.assemble import build_data, task_name
from transfer.build import Node, build
from transfer.engine.distributed import World, choose_device
from transfer.engine.workers import end_workers, in_use
from transfer.loading import build_augment, loader_settings, test_loader
from transfer.ranking.box_features import box_features
from transfer.ranking.features import TaskFeatures, image_features
from transfer.ranking.forecast import forecast
from transfer.ranking.pixel_features import pixel_features
from transfer.ranking_run.side_run import leave, part_of

logger = logging.getLogger("trickstack")

FEATURES = {"detection": box_features, "segmentation": pixel_features, "classification": image_features}


def run(config: Node, *, name: str, work_dir: Path, device: str, resume: str | None) -> bool:
    """Compute the scores; see `transfer.experiments.description.Description.runner`.

    Args:
        config: "config", of the backbone on the task, and "forecast": images at the most, and the seed of their draw.
        name: of the run's directory.
        work_dir: holds the runs' directories.
        device: "auto", "cpu", "cuda", "cuda:N".
        resume: not read, as nothing is kept half-way.
    """
    wanted = config["forecast"]
    found = features_of(config["config"], wanted["images"], wanted["seed"], World(0, 1, choose_device(device)))
    scores = forecast(found)
    logger.info("%s: %s", name, ", ".join(f"{score} {value:.4g}" for score, value in scores.items()))
    return leave(work_dir, name, {"scores": scores, "rows": len(found.labels)})


def features_of(config: Node, images: int, seed: int, here: World) -> TaskFeatures:
    """What a config's backbone, as its training would begin with it, knows of the task.

    Args:
        config: of the backbone on the task.
        images: training images at the most.
        seed: of their draw, and of random values.
        here: this process.
    """
    torch.manual_seed(seed)
    dataset: Any = build_data(config).train
    if len(dataset) > images:
        dataset = part_of(dataset, np.sort(np.random.default_rng(seed).permutation(len(dataset))[:images]))
    backbone = build(config["model"]["backbone"], "model.backbone").to(here.device)
    backbone.source_head = source_head(backbone)
    settings = loader_settings(config)
    loader = test_loader(dataset, build_augment(config, "test"), settings, backbone.pad_value, here)
    try:
        with in_use(loader):
            return FEATURES[task_name(config)](backbone, loader, seed=seed)
    finally:
        end_workers(loader)
