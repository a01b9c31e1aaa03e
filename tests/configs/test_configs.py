"""Every config loads and builds at full size, without memory: on torch's meta device."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones.contract import Backbone
from transfer.assemble import backbone_of, build_augment, build_run, build_task, loader_settings, training_settings
from transfer.build import Node, build, from_json, load_config, resolve, to_json
from transfer.engine.distributed import World
from transfer.engine.train import Step, train

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
    assert f"tools/train_det.py configs/{path.name}" in header
    assert len(header.splitlines()[0]) > 20


def test_everything_builds_at_full_size(config: Node) -> None:
    without_weights(config["model"])
    assert from_json(to_json(config)) == config
    with torch.device("meta"):
        task = build_task(config, num_classes=20)
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
        assert callable(metric.evaluate)
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


@pytest.mark.data
def test_the_voc_config_takes_two_steps_in_small(repository: Path, shared_data: Path) -> None:
    config = load_config(repository / "configs" / "voc_frcnn_r50d.py", ["model.backbone.weights=None"])
    root = str(shared_data / "voc_mini" / "VOCdevkit")
    config["data"]["train"].update(root=root, splits="2007_trainval")
    config["data"]["test"].update(root=root)
    for pipeline in config["augment"].values():
        pipeline.update(short=128, long_max=128)
    config["model"]["rois"] = 16
    config["loader"].update(batch_size=1, workers=0)
    config["training"].update(epochs=None, iterations=2)
    config["schedule"] = {"type": "transfer.optim.schedules.Constant"}
    run, _, data = build_run(config, World(0, 1, torch.device("cpu")))
    assert len(data.train) == 97
    assert len(data.train.class_names) == 20
    losses: list[dict[str, float]] = []
    before = run.task.model.predictor.logits.weight.detach().clone()  # type: ignore[union-attr]
    assert train(
        run, lambda model: [], [lambda event: losses.append(event.losses) if isinstance(event, Step) else None]
    )
    assert [set(step) for step in losses] == [{"loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box"}] * 2
    assert all(math.isfinite(value) for step in losses for value in step.values())
    assert losses[0]["loss_rpn_objectness"] == pytest.approx(math.log(2), abs=0.05)  # an untrained RPN knows nothing
    assert not torch.equal(run.task.model.predictor.logits.weight, before)  # type: ignore[union-attr]
