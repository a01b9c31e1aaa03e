"""Forecasts, costs and pictures of one backbone on one task, and the check before anything runs."""

from __future__ import annotations

import copy
import json
import math
import mmap
import shutil
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import tiny_masks
import torch

from transfer.assemble import build_data, build_run
from transfer.build import Node, load_config
from transfer.engine.distributed import World
from transfer.ranking.box_features import BoxFeatures
from transfer.ranking_run import costs, forecasts, pictures
from transfer.ranking_run.forecasts import features_of
from transfer.report.pages import spread

HERE = World(0, 1, torch.device("cpu"))


def result_of(runner: Any, config: Node, work_dir: Path) -> dict[str, Any]:
    before = copy.deepcopy(config)
    assert runner.run(config, name="side", work_dir=work_dir, device="cpu", resume=None)
    assert config == before  # the ledger finds a run's directory by its config
    return dict(json.loads((work_dir / "side" / "001" / "results.json").read_text()))


def test_what_a_backbone_costs(tiny_config: Node, tmp_path: Path) -> None:
    tiny_config["model"]["backbone"]["weights"] = "not/there/yet.pth"
    found = result_of(costs, {"config": tiny_config}, tmp_path)
    cost = found["cost"]
    tiny_config["model"]["backbone"]["weights"] = None
    model = build_run(tiny_config, HERE)[0].task.model
    assert cost["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    for key in ("training_images_per_second", "inference_images_per_second"):
        assert math.isfinite(cost[key])
        assert cost[key] > 0
    assert cost["device"].startswith("cpu, 1 thread")
    assert found["peak"] == costs.ON_CPU


def test_peak_memory_counts_what_was_held_at_most() -> None:
    held = costs._start_counting(False)
    # The system's own pages: the allocator may have freed ones of earlier tests left, which add nothing.
    with mmap.mmap(-1, 200_000_000) as big:
        pages = np.frombuffer(big, np.uint8)
        pages += 1
        del pages
    assert costs._peak(False) - held == pytest.approx(200e6, rel=0.1)  # given back before it is asked for


@pytest.mark.parametrize(("threads", "clock"), [(1, "process_time"), (2, "perf_counter")])
def test_speed_is_the_median_and_leaves_the_first_step_out(
    threads: int, clock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time of the process where it has one thread, which other load does not lengthen."""
    ticks = iter([0.0, 100.0, 100.0, 101.0, 101.0, 103.0, 103.0, 107.0])  # steps of 100, 1, 2 and 4 seconds
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(time, clock, lambda: next(ticks))
    assert costs._speed(lambda each: None, [8, 8, 8, 8], int, torch.device("cpu")) == 4.0


def test_backbones_are_asked_about_the_same_boxes(tiny_config: Node) -> None:
    other = copy.deepcopy(tiny_config)
    other["model"]["backbone"].update(name="resnet18", model_options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]})
    ours, theirs = (features_of(config, 5, 0, HERE) for config in (tiny_config, other))
    assert isinstance(ours, BoxFeatures)
    assert isinstance(theirs, BoxFeatures)
    assert ours.features.shape[1] != theirs.features.shape[1]
    assert np.array_equal(ours.labels, theirs.labels)
    assert np.array_equal(ours.groups, theirs.groups)
    assert np.array_equal(ours.deltas, theirs.deltas)
    assert len(set(ours.groups.tolist())) <= 5
    whole = features_of(tiny_config, 500, 0, HERE)
    truth = build_data(tiny_config).train
    assert len(whole.labels) == sum(int((~truth.record(i).difficult).sum()) for i in range(len(truth)))
    again = features_of(tiny_config, 5, 0, HERE)
    assert np.array_equal(ours.features, again.features)  # of random values, too


def test_scores_of_a_segmenter(tmp_path: Path) -> None:
    config = load_config(tiny_masks.write_config(tmp_path / "c.py", tiny_masks.write_masks(tmp_path / "data")))
    wanted = {"config": config, "forecast": {"images": 6, "seed": 0}}
    scores = result_of(forecasts, wanted, tmp_path)["scores"]
    assert list(scores) == ["LogME", "H-score", "k-NN", "linear probe"]
    assert all(math.isfinite(score) for score in scores.values())
    assert 0 <= scores["k-NN"] <= 1


def test_leep_is_among_the_scores_where_the_weights_have_a_classifier(tiny_config: Node, tmp_path: Path) -> None:
    backbone = tiny_config["model"]["backbone"]
    network = timm.create_model(backbone["name"], num_classes=6, **backbone.get("model_options", {}))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    backbone["weights"] = str(tmp_path / "weights.pth")
    wanted = {"config": tiny_config, "forecast": {"images": 5, "seed": 0}}
    scores = result_of(forecasts, wanted, tmp_path)["scores"]
    assert -10 < scores["LEEP"] <= 0


def test_pictures_of_a_finished_run(finished_run: Path, tiny_config: Node, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run" / "001")
    found = result_of(pictures, {"run": "run/001", "images": 3}, tmp_path)["pictures"]
    folder = tmp_path / "side" / "001"
    test = build_data(tiny_config).test
    assert [each["image_id"] for each in found] == [str(test.record(i).image_id) for i in spread(len(test), 3)]
    for place, each in zip(spread(len(test), 3), found):
        height, width = test.record(place).size
        for name in (each["truth"], each["drawn"]):
            drawn = cv2.imread(str(folder / name))
            assert max(drawn.shape) == pictures.SIDE - 6
            assert (drawn.shape[0] > drawn.shape[1]) == (height > width)
