"""The classification configs: Bag of Tricks in numbers, each trick alone, and every row of its tables built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from transfer.assemble import build_task
from transfer.build import Node, build, load_config
from transfer.loading import loader_settings, training_settings
from transfer.restoring import differing_keys

IMAGES = 1_281_167


def recipe(repository: Path, name: str, *overrides: str) -> Node:
    return load_config(repository / "configs" / f"{name}.py", overrides)


def lr_curve(config: Node) -> tuple[list[float], int]:
    """The lr at every epoch's first step, and the steps of an epoch."""
    batch = loader_settings(config).batch_size
    per_epoch = IMAGES // batch
    total = training_settings(config).total(per_epoch)
    schedule, base = build(config["schedule"]), build(config["optimizer"]).scaled_lr(batch)
    return [base * schedule.factor(i, total=total, per_epoch=per_epoch) for i in range(0, total, per_epoch)], per_epoch


def on_meta(config: Node) -> Any:
    config["criterion"]["teacher"] = None
    with torch.device("meta"):
        return build_task(config, 1000)


def test_the_baseline_is_the_paper_s(repository: Path) -> None:
    config = recipe(repository, "imagenet_r50_baseline")
    curve, per_epoch = lr_curve(config)
    assert (len(curve), per_epoch) == (120, 5004)
    assert curve == pytest.approx([0.1] * 30 + [0.01] * 30 + [0.001] * 30 + [0.0001] * 30)
    task = on_meta(config)
    optimizer = build(config["optimizer"]).build(task.model, global_batch=256)
    assert {(g["momentum"], g["nesterov"], g["weight_decay"]) for g in optimizer.param_groups} == {(0.9, True, 1e-4)}
    assert sum(p.numel() for p in task.model.parameters()) == 25_557_032
    gammas = [p for name, p in task.model.named_parameters() if name.endswith("bn3.weight")]
    assert len(gammas) == 16
    assert (config["criterion"]["label_smoothing"], config["loader"]["blend"]) == (0.0, None)


def test_efficient_training_changes_five_things_in_the_paper_s_order(repository: Path) -> None:
    baseline, efficient = recipe(repository, "imagenet_r50_baseline"), recipe(repository, "imagenet_r50_efficient")
    changed = {key for key in differing_keys(baseline, efficient) if not key.startswith("schedule")}
    assert changed == {
        "loader.batch_size",
        "model.backbone.zero_gamma",
        "optimizer.decay_norm_and_bias",
        "training.precision",
    }
    curve, per_epoch = lr_curve(efficient)
    assert per_epoch == 1251
    warm_up = 5 * per_epoch
    assert curve[:5] == pytest.approx([0.4 * (epoch * per_epoch + 1) / warm_up for epoch in range(5)])
    assert curve[5:] == pytest.approx([0.4] * 25 + [0.04] * 30 + [0.004] * 30 + [0.0004] * 30)


def test_the_best_recipe_has_all_refinements(repository: Path) -> None:
    efficient, best = recipe(repository, "imagenet_r50_efficient"), recipe(repository, "imagenet_r50_best")
    changed = {key for key in differing_keys(efficient, best) if not key.startswith("schedule")}
    assert changed == {
        "criterion.label_smoothing",
        "criterion.teacher",
        "loader.blend",
        "model.backbone.name",
        "training.epochs",
    }
    assert best["criterion"]["temperature"] == 20
    assert best["loader"]["blend"]["alpha"] == 0.2
    curve, _per_epoch = lr_curve(best)
    assert len(curve) == 200
    assert curve[5] == pytest.approx(0.4)
    halfway = [0.4 * (1 + torch.cos(torch.tensor(torch.pi * e / 195)).item()) / 2 for e in range(195)]
    assert curve[5:] == pytest.approx(halfway, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "parameters"),  # with 1,000 classes; forms C and D have 19,232 more in their stem
    [
        ("imagenet_r50_efficient", 25_557_032),
        ("imagenet_r50_best", 25_576_264),
        ("imagenet_inceptionv3_best", 23_834_568),
        ("imagenet_mobilenet_best", 4_231_976),
        ("imagenet_r152d_teacher", 60_192_808 + 19_232),
    ],
)
def test_the_networks_are_the_published_ones(repository: Path, name: str, parameters: int) -> None:
    assert sum(p.numel() for p in on_meta(recipe(repository, name)).model.parameters()) == parameters


def test_inception_sees_299_pixels(repository: Path) -> None:
    config = recipe(repository, "imagenet_inceptionv3_best")
    assert {config["augment"][which]["size"] for which in ("train", "test")} == {299}
    assert on_meta(config).model.backbone.input_size == (299, 299)
