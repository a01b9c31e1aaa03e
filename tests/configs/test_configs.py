"""Every config loads and builds at full size, without memory: on torch's meta device."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones.contract import Backbone
from transfer.assemble import backbone_of, build_run, build_task, task_name
from transfer.build import TRUSTED_MODULES, Node, build, from_json, load_config, resolve, to_json
from transfer.engine.distributed import World
from transfer.engine.train import Step, train
from transfer.loading import build_augment, loader_settings, training_settings
from transfer.train_command import TOOLS

CONFIGS = sorted(path for path in (Path(__file__).parents[2] / "configs").glob("*.py"))


def without_weights(node: Any) -> None:
    if isinstance(node, dict):
        if "weights" in node:
            node["weights"] = None
        for value in node.values():
            without_weights(value)


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def config(path: Path) -> Node:
    return load_config(path)


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 3


def test_the_header_says_the_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith('"""')
    header = text[3 : text.index('"""', 3)]
    tool = TOOLS[task_name(load_config(path))]
    assert f"{tool} configs/{path.name}" in header
    assert len(header.splitlines()[0]) > 20


def test_everything_builds_at_full_size(config: Node) -> None:
    without_weights(config["model"])
    assert from_json(to_json(config)) == config
    config["criterion"] = {key: value for key, value in config["criterion"].items() if key != "teacher"}  # a file
    with torch.device("meta"):
        task = build_task(config, num_classes=20, trusted=TRUSTED_MODULES)  # as from a checkpoint
    assert all(parameter.device.type == "meta" for parameter in task.model.parameters())
    backbone = backbone_of(task.model)
    assert isinstance(backbone, Backbone)
    assert backbone.pad_value == tuple(round(255 * mean) for mean in backbone.mean)
    settings, loader = training_settings(config), loader_settings(config)
    assert loader.batch_size % settings.accumulate == 0
    optimizer_config = build(config["optimizer"])
    optimizer = optimizer_config.build(task.model, global_batch=loader.batch_size)
    trained = {id(p) for p in task.model.parameters() if p.requires_grad}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == trained
    schedule = build(config["schedule"])
    per_epoch = 500  # a few thousand images
    schedule.check(total=settings.total(per_epoch), per_epoch=per_epoch)
    factors = [schedule.factor(i, total=settings.total(per_epoch), per_epoch=per_epoch) for i in (0, 499, 999)]
    assert all(0 <= factor <= 1 for factor in factors)
    for metric in build(config["metrics"]):
        assert callable(metric.evaluate if task_name(config) == "detection" else metric.start)
    for which in ("train", "test"):
        assert callable(build_augment(config, which))


def test_data_sets_are_named_with_arguments_they_have(config: Node) -> None:
    from transfer.build import check_arguments

    for name in ("train", "val", "test"):
        node = config["data"][name]
        if isinstance(node, dict):
            arguments = {key: value for key, value in node.items() if key != "type"}
            check_arguments(resolve(node["type"]), arguments, f"data.{name}")
        else:
            assert node is None or 0 < node < 1


TWO_STAGE = {
    "voc_frcnn_r50d": "predictor",
    "voc_frcnn_fpn_r50d": "predictor",
    "voc_frcnn_vgg19": "predictor",
    "voc_cascade_r50d": "stages.2.predictor",
}
"""Config -> the module that gives its last logits."""


def in_small(name: str, repository: Path) -> Node:
    """A config of `TWO_STAGE` for two steps of one small image, from random weights; its network is of full size."""
    config = load_config(repository / "configs" / f"{name}.py", ["model.backbone.weights=None"])
    if name == "voc_frcnn_r50d":
        config["model"]["backbone"]["zero_gamma"] = True  # random blocks behind frozen norms would let the maps explode
    if name == "voc_frcnn_vgg19":
        config["model"]["backbone"]["model_options"] = {"mlp_ratio": 0.02}  # but for fc6 and fc7: 120 million numbers
    for pipeline in config["augment"].values():
        pipeline.update(short=96, long_max=128)
    config["model"]["rois"] = 16
    config["loader"].update(batch_size=1, workers=0)
    config["training"].update(epochs=None, iterations=2)
    config["schedule"] = {"type": "transfer.optim.schedules.Constant"}
    return config


def losses_of_two_steps(config: Node, name: str) -> list[dict[str, float]]:
    """Train as a run does; the last layer must have moved."""
    run, _, _ = build_run(config, World(0, 1, torch.device("cpu")))
    losses: list[dict[str, float]] = []
    logits: Any = run.task.model.get_submodule(TWO_STAGE[name]).logits
    before = logits.weight.detach().clone()
    assert train(
        run, lambda model: [], [lambda event: losses.append(event.losses) if isinstance(event, Step) else None]
    )
    assert not torch.equal(logits.weight, before)
    return losses


def check_losses(losses: list[dict[str, float]], name: str) -> None:
    stages = ("_1", "_2", "_3") if "cascade" in name else ("",)
    names = {"loss_rpn_objectness", "loss_rpn_box"} | {f"loss_{kind}{n}" for kind in ("class", "box") for n in stages}
    assert [set(step) for step in losses] == [names] * 2
    assert all(math.isfinite(value) for step in losses for value in step.values())
    assert losses[0]["loss_rpn_objectness"] == pytest.approx(math.log(2), abs=0.05)  # an untrained RPN knows nothing


@pytest.mark.slow
@pytest.mark.parametrize("name", TWO_STAGE)
def test_two_stage_configs_take_two_steps_in_small(name: str, repository: Path, devkit: Path) -> None:
    config = in_small(name, repository)
    for part, split in (("train", "trainval"), ("test", "test")):
        config["data"][part].update(root=str(devkit), splits=f"2007_{split}", class_names=["blue", "green", "red"])
    check_losses(losses_of_two_steps(config, name), name)


@pytest.mark.data
def test_the_voc_config_takes_two_steps_on_photographs(repository: Path, shared_data: Path) -> None:
    config = in_small("voc_frcnn_r50d", repository)
    root = str(shared_data / "voc_mini" / "VOCdevkit")
    config["data"]["train"].update(root=root, splits="2007_trainval")
    config["data"]["test"].update(root=root)
    check_losses(losses_of_two_steps(config, "voc_frcnn_r50d"), "voc_frcnn_r50d")


def test_the_table_s_recipe(repository: Path) -> None:
    """Bag of Tricks, table 8, with GluonCV's script: lr 0.001 an image without warm-up, /10 at epoch 14 of 20."""
    config = load_config(repository / "configs" / "voc_frcnn_r50d.py")
    settings, loader, per_epoch = training_settings(config), loader_settings(config), 4137  # 16,551 images by four
    schedule, optimizer = build(config["schedule"]), build(config["optimizer"])
    total = settings.total(per_epoch)
    lrs = [
        optimizer.scaled_lr(loader.batch_size) * schedule.factor(iteration, total=total, per_epoch=per_epoch)
        for iteration in (0, 14 * per_epoch - 1, 14 * per_epoch, 20 * per_epoch - 1)
    ]
    assert total == 20 * per_epoch
    assert lrs == pytest.approx([0.001 * 4, 0.001 * 4, 0.0001 * 4, 0.0001 * 4])
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.9, False, 5e-4)
    task = build_task_on_meta(config)
    assert task.model.sampler.difficult == task.criterion.rpn.difficult == "train"
    assert (task.postprocess.nms_iou, task.postprocess.nms, task.criterion.box.beta) == (0.3, "hard", 1.0)
    frozen = {name for name, p in task.model.backbone.named_parameters() if not p.requires_grad}
    assert {"body.conv1.0.weight", "body.layer1.0.conv1.weight", "body.layer2.0.bn1.weight"} <= frozen
    assert "body.layer2.0.conv1.weight" not in frozen


def build_task_on_meta(config: Node) -> Any:
    without_weights(config["model"])
    with torch.device("meta"):
        return build_task(config, num_classes=20)
