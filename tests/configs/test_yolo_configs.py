"""The YOLOv3 configs: the published recipe, each freebie switched off as its comment says, and steps in small."""

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
from transfer.heads.yolov3_criterion import YOLOv3Criterion
from transfer.optim import schedules

CONFIGS = Path(__file__).parents[2] / "configs"
PAPER = {"loss_objectness", "loss_center", "loss_size", "loss_class"}


def voc(*overrides: str) -> Node:
    return load_config(CONFIGS / "voc_yolov3_darknet53.py", overrides)


@pytest.fixture(scope="module")
def full_voc() -> Node:
    return voc()


def test_the_recipe_is_the_published_one(full_voc: Node) -> None:
    optimizer = build(full_voc["optimizer"])
    assert (optimizer.lr, optimizer.base_batch, optimizer.momentum, optimizer.weight_decay) == (1e-3, 64, 0.9, 5e-4)
    assert not optimizer.nesterov
    assert full_voc["loader"]["batch_size"] == 64
    assert full_voc["training"]["epochs"] == 200
    shapes = build(full_voc["loader"]["shapes"])
    assert shapes.sides == tuple(range(320, 609, 32))
    assert shapes.every == 10
    mixup = build(full_voc["loader"]["mixup"])
    assert (mixup.alpha, mixup.last_epochs_without) == (1.5, 20)
    criterion, postprocess = build(full_voc["criterion"]), build(full_voc["postprocess"])
    assert (criterion.box_loss, criterion.label_smoothing, criterion.ignore_iou) == ("paper", True, 0.7)
    assert criterion.difficult == "train"
    limits = postprocess.filter
    assert (limits.score_threshold, limits.before_nms, limits.nms_iou, limits.max_detections) == (0.01, 400, 0.45, 100)
    assert full_voc["augment"]["test"]["size"] == 416
    assert full_voc["metrics"][0]["protocol"] == "voc07_11point"
    schedule = build(full_voc["schedule"])
    epoch = {"total": 200 * 258, "per_epoch": 258}  # 16,551 images
    assert schedule.factor(4 * 258, **epoch) == pytest.approx(1)
    assert schedule.factor(2 * 258, **epoch) == pytest.approx(0.5, abs=0.01)
    assert schedule.factor(102 * 258, **epoch) == pytest.approx(0.5, abs=0.01)
    assert schedule.factor(200 * 258 - 1, **epoch) < 1e-5


def test_coco_differs_in_length_and_data_only(full_voc: Node) -> None:
    coco = load_config(CONFIGS / "coco_yolov3_darknet53.py")
    differing = {key for key in full_voc if full_voc[key] != coco[key]}
    assert differing == {"data", "schedule", "training", "metrics"}
    assert (coco["training"]["epochs"], coco["schedule"]["epochs"]) == (280, 2)
    assert coco["metrics"][0]["type"].endswith("COCOMeanAP")
    with torch.device("meta"):
        model = build_task({**coco, "model": {**coco["model"], "backbone": without_weights(coco)}}, 80).model
    assert sum(parameter.numel() for parameter in model.parameters()) == 61_949_149


def without_weights(config: Node) -> Node:
    return {**config["model"]["backbone"], "weights": None}


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("model.backbone.norm=batch", "model", ("backbone", "norm", "batch")),
        ("criterion.label_smoothing=False", "criterion", ("label_smoothing", False)),
        ("loader.shapes=None", "loader", ("shapes", None)),
        ("loader.mixup=None", "loader", ("mixup", None)),
    ],
)
def test_a_freebie_is_switched_off_as_its_comment_says(
    full_voc: Node, override: str, key: str, value: tuple[Any, ...]
) -> None:
    assert override in (CONFIGS / "voc_yolov3_darknet53.py").read_text(encoding="utf-8")
    changed = voc(override)
    assert {name for name in full_voc if full_voc[name] != changed[name]} == {key}
    *path, expected = value
    node = changed[key]
    for part in path:
        node = node[part]
    assert node is expected if expected is None or expected is False else node == expected


def test_the_other_two_are_switched_off_as_their_comments_say(full_voc: Node) -> None:
    text = (CONFIGS / "voc_yolov3_darknet53.py").read_text(encoding="utf-8")
    off = ["augment.train.colour=False", "augment.train.expand=0", "augment.train.crop=0"]
    assert all(option in text for option in off)
    steps = [type(step).__name__ for step in build(voc(*off)["augment"]["train"]).steps]
    assert steps == ["FilterBoxes", "ResizeTo", "HorizontalFlip"]
    assert "then=dict(type=Step, milestones=[0.8, 0.9])" in text
    epochs = {"total": 2000, "per_epoch": 10}
    schedule = schedules.WarmUp(epochs=4, then=schedules.Step(milestones=[0.8, 0.9]))
    factors = [schedule.factor(10 * epoch, **epochs) for epoch in (100, 159, 160, 179, 180)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def few_steps(config: Node, root: Path, steps: int = 2) -> list[dict[str, float]]:
    """Steps on drawn images, from random weights, at 64 px."""
    config["model"]["backbone"]["weights"] = None
    for part, split in (("train", "trainval"), ("test", "test")):
        config["data"][part] = {"type": "transfer.data.voc.VOCDataset", "root": str(root), "splits": split}
    config["data"]["val"] = None
    for pipeline in config["augment"].values():
        pipeline["size"] = 64
    config["loader"].update(batch_size=2, workers=0)
    config["training"].update(epochs=None, iterations=steps)
    config["schedule"] = {"type": "transfer.optim.schedules.Constant"}
    run, _, _ = build_run(config, World(0, 1, torch.device("cpu")))
    losses: list[dict[str, float]] = []

    def keep(event: Event) -> None:
        if isinstance(event, Step):
            losses.append(event.losses)

    assert train(run, lambda model: [], [keep])
    return losses


def test_the_light_recipe_takes_steps(devkit: Path) -> None:
    config = load_config(CONFIGS / "voc_folder_yolov3_lite0.py")
    losses = few_steps(config, devkit, 3)
    assert [set(step) for step in losses] == [PAPER] * 3
    assert all(math.isfinite(value) for step in losses for value in step.values())
    # An untrained detector: 252 slots at a prior of 0.01, less the positives, and these.
    assert 2 < losses[0]["loss_objectness"] < 40
    assert losses[0]["loss_class"] > 3 * math.log(2) * 0.8  # a positive an image at the least, 3 undecided classes


def test_the_voc_recipe_takes_a_step_with_every_freebie(devkit: Path) -> None:
    config = voc("loader.shapes.low=32", "loader.shapes.high=64", "loader.mixup.last_epochs_without=0")
    losses = few_steps(config, devkit, 1)
    assert [set(step) for step in losses] == [PAPER]
    assert all(math.isfinite(value) for value in losses[0].values())


def test_the_light_configs_are_light() -> None:
    for name in ("sample", "voc_folder", "xml_folder"):
        config = load_config(CONFIGS / f"{name}_yolov3_lite0.py")
        with torch.device("meta"):
            config["model"]["backbone"]["weights"] = None
            task = build_task(config, 20)
        assert isinstance(task.criterion, YOLOv3Criterion)
        neck = sum(parameter.numel() for parameter in task.model.neck.parameters())  # type: ignore[union-attr]
        backbone = sum(parameter.numel() for parameter in task.model.backbone.parameters())  # type: ignore[union-attr]
        assert neck < backbone
