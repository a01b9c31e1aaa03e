"""The SSD configs: the published recipe, a step on VGG-16 in small, and steps of the light recipe at varying shapes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from transfer.assemble import build_run, build_task
from transfer.build import Node, build, load_config
from transfer.engine.distributed import World
from transfer.engine.train import Event, Step, train
from transfer.heads.ssd import SSD

CONFIGS = Path(__file__).parents[2] / "configs"


def on_meta(config: Node) -> SSD:
    config["model"]["backbone"]["weights"] = None
    with torch.device("meta"):
        model = build_task(config, 20).model
    assert isinstance(model, SSD)
    return model


def test_the_recipe_is_the_published_one() -> None:
    config = load_config(CONFIGS / "voc_ssd300_vgg16.py")
    optimizer, schedule = build(config["optimizer"]), build(config["schedule"])
    assert (optimizer.lr, optimizer.base_batch, optimizer.momentum, optimizer.weight_decay) == (1e-3, 32, 0.9, 5e-4)
    assert not optimizer.nesterov
    assert config["loader"]["batch_size"] == 32
    run = {"total": config["training"]["iterations"], "per_epoch": 517}  # 16,551 images
    assert run["total"] == 120_000
    factors = [schedule.factor(i, **run) for i in (0, 79_999, 80_000, 99_999, 100_000, 119_999)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    criterion, limits = build(config["criterion"]), build(config["postprocess"]).filter
    assert (criterion.iou, criterion.negatives_per_positive, criterion.box_weight) == (0.5, 3, 1.0)
    assert (criterion.label_smoothing, criterion.difficult) == (0.0, "train")
    assert (limits.score_threshold, limits.nms_iou, limits.max_detections) == (0.01, 0.45, 200)
    assert config["metrics"][0]["protocol"] == "voc07_11point"
    assert config["loader"]["size_divisor"] == 1  # 300 is no multiple of 32
    assert (
        config["augment"]["train"]["size"] == config["augment"]["test"]["size"] == config["model"]["image_size"] == 300
    )


def test_the_voc_config_is_ssd300() -> None:
    model = on_meta(load_config(CONFIGS / "voc_ssd300_vgg16.py"))
    output = model(torch.zeros((2, 3, 300, 300), dtype=torch.uint8, device="meta"), [(300, 300)] * 2)
    assert output.logits.shape == (2, 8732, 21)
    assert sum(parameter.numel() for parameter in model.parameters()) == 26_285_486
    squares = [shapes[0][0] for shapes in model.default_boxes.shapes]
    assert squares == pytest.approx([30, 60, 111, 162, 213, 264])


def few_steps(config: Node, root: Path, steps: int, size: int) -> list[dict[str, float]]:
    """Steps on drawn images, from random weights."""
    config["model"]["backbone"]["weights"] = None
    for part, split in (("train", "trainval"), ("test", "test")):
        config["data"][part] = {"type": "transfer.data.voc.VOCDataset", "root": str(root), "splits": split}
    config["data"]["val"] = None
    for pipeline in config["augment"].values():
        pipeline["size"] = size
    config["model"]["image_size"] = size
    config["loader"].update(batch_size=2, workers=0)
    config["training"].update(epochs=None, iterations=steps)
    config["schedule"] = {"type": "transfer.optim.schedules.Constant"}
    run, _, _ = build_run(config, World(0, 1, torch.device("cpu")))
    losses: list[dict[str, float]] = []

    def keep(event: Event) -> None:
        if isinstance(event, Step):
            losses.append(event.losses)

    last: Any = run.task.model.head.logits[0]  # type: ignore[index, union-attr]
    before = last.weight.detach().clone()
    assert train(run, lambda model: [], [keep])
    assert not torch.equal(last.weight, before)
    return losses


def check_losses(losses: list[dict[str, float]], steps: int) -> None:
    assert [set(step) for step in losses] == [{"loss_class", "loss_box"}] * steps
    assert all(math.isfinite(value) for step in losses for value in step.values())
    # A positive and three negatives of four undecided classes; random features make it more, not less.
    assert losses[0]["loss_class"] > 4 * math.log(4) * 0.8
    assert losses[0]["loss_box"] > 0.1


@pytest.mark.slow
def test_the_voc_recipe_takes_two_steps_in_small(devkit: Path) -> None:
    config = load_config(CONFIGS / "voc_ssd300_vgg16.py")
    config["model"]["backbone"].update(model_options={"mlp_ratio": 0.25})  # fc6 of 1024 channels, not of 4096
    check_losses(few_steps(config, devkit, 2, 96), 2)


@pytest.mark.parametrize("shapes", [None, {"low": 32, "high": 96, "every": 1, "rectangular": True}])
def test_the_light_recipe_takes_steps_also_at_shapes_that_vary(shapes: Node | None, devkit: Path) -> None:
    config = load_config(CONFIGS / "voc_folder_ssd_lite0.py")
    if shapes is not None:
        config["loader"]["shapes"] = {"type": "transfer.batch.shapes.RandomShapes", **shapes}
    check_losses(few_steps(config, devkit, 4, 64), 4)


def test_mixup_takes_a_step(devkit: Path) -> None:
    config = load_config(CONFIGS / "voc_folder_ssd_lite0.py")
    config["loader"]["mixup"] = {"type": "transfer.augment.box_mixup.BoxMixup", "alpha": 1.5, "last_epochs_without": 0}
    check_losses(few_steps(config, devkit, 1, 64), 1)


@pytest.mark.parametrize("name", ["sample", "voc_folder"])
def test_the_light_configs_are_light_and_their_boxes_fit_their_images(name: str) -> None:
    config = load_config(CONFIGS / f"{name}_ssd_lite0.py")
    assert config["model"]["image_size"] == config["augment"]["train"]["size"] == config["augment"]["test"]["size"]
    model = on_meta(config)
    assert model.default_boxes.boxes_per_cell == (4, 6, 6, 6, 4, 4)
    backbone = sum(parameter.numel() for parameter in model.backbone.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) < 2 * backbone
