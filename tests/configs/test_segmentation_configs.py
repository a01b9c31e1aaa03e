"""The segmentation configs: the papers' recipe in numbers, and two steps in small on data in the real layouts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from transfer.assemble import build_run, build_task
from transfer.build import Node, build, load_config
from transfer.engine.distributed import World
from transfer.engine.train import Step, train
from transfer.loading import loader_settings, training_settings


def ade20k(repository: Path) -> Node:
    return load_config(repository / "configs" / "ade20k_fcn_r50d.py", ["model.backbone.weights=None"])


def test_the_table_s_recipe(repository: Path) -> None:
    """Bag of Tricks, table 9, with GluonCV's script: 20,210 images by 16, poly 0.9 over 120 epochs, heads x 10."""
    config = ade20k(repository)
    per_epoch = 20210 // 16
    total = training_settings(config).total(per_epoch)
    assert total == 120 * per_epoch
    schedule = build(config["schedule"])
    factors = [schedule.factor(i, total=total, per_epoch=per_epoch) for i in (0, total // 2)]
    assert factors == pytest.approx([1.0, 0.5**0.9])
    with torch.device("meta"):
        task = build_task(config, 150)
    optimizer = build(config["optimizer"]).build(task.model, global_batch=loader_settings(config).batch_size)
    lr = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert lr[id(task.model.head[4].weight)] == pytest.approx(0.1)
    assert lr[id(task.model.auxiliary_head[4].weight)] == pytest.approx(0.1)
    assert all(lr[id(p)] == pytest.approx(0.01) for p in task.model.backbone.parameters())
    assert task.model.backbone.strides[-1] == 8
    assert task.model.backbone.norm == "synchronized"
    assert (task.model.head[3].p, task.criterion.auxiliary_weight) == (0.1, 0.5)


@pytest.mark.data
@pytest.mark.slow
def test_ade20k_takes_two_steps_in_small(repository: Path, shared_data: Path) -> None:
    config = ade20k(repository)
    for part in ("train", "test"):
        config["data"][part].update(root=str(shared_data / "ade_mini"), split="training")
    config["augment"]["train"].update(base=96, crop=64)
    config["loader"].update(batch_size=2, workers=0)
    config["training"].update(epochs=None, iterations=2)
    run, _, data = build_run(config, World(0, 1, torch.device("cpu")))
    assert len(data.train.class_names) == 150
    losses: list[dict[str, float]] = []

    def keep(event: Any) -> None:
        if isinstance(event, Step):
            losses.append(event.losses)

    assert train(run, lambda model: [], [keep])
    assert [set(step) for step in losses] == [{"loss_segmentation", "loss_auxiliary"}] * 2
    assert all(math.isfinite(value) for step in losses for value in step.values())
    # an untrained head guesses among 150 classes; its logits are not quite equal
    assert losses[0]["loss_segmentation"] == pytest.approx(math.log(150), rel=0.15)
    assert losses[0]["loss_auxiliary"] == pytest.approx(0.5 * math.log(150), rel=0.15)
