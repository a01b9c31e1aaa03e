"""Segmentation from a config to figures, pictures and masks, with the tools' own functions, on drawn images."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_masks import draw, write_config, write_masks

from transfer import training
from transfer.assemble import build_data, build_evaluator, build_task
from transfer.build import load_config
from transfer.engine.distributed import World
from transfer.evaluation import evaluate_checkpoint
from transfer.evaluator import SegmentationEvaluator
from transfer.prediction import areas_of, predict_paths
from transfer.types import UserError


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_masks(tmp_path_factory.mktemp("masks"))
    return write_config(root / "tiny_fcn.py", root)


@pytest.fixture(scope="module")
def run_directory(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("runs")
    assert training.run(load_config(config_file), name="tiny", work_dir=work_dir, device="cpu")
    return work_dir / "tiny" / "001"


def test_a_run_leaves_all_that_a_detector_s_leaves(run_directory: Path) -> None:
    names = {path.name for path in run_directory.iterdir()}
    assert {"config.json", "log.txt", "metrics.jsonl", "curves.png", "predictions.jpg", "last.pth"} <= names
    results = json.loads((run_directory / "results.json").read_text())
    (metric,) = results["metrics"]
    assert set(metric["per_class"]) == {"ground", "round", "square"}
    rows = [json.loads(line) for line in (run_directory / "metrics.jsonl").read_text().splitlines()]
    assert {"loss_segmentation", "loss_auxiliary"} <= set(rows[0])


def test_without_pictures_the_test_figures_are_written_all_the_same(config_file: Path, tmp_path: Path) -> None:
    config = load_config(config_file, ("training.pictures=0", "data.val=0.3", "training.epochs=3"))
    assert training.run(config, name="tiny", work_dir=tmp_path, device="cpu")
    folder = tmp_path / "tiny" / "001"
    assert "test set" in json.loads((folder / "results.json").read_text())["measured"]
    assert not list(folder.glob("*predictions.jpg"))
    assert "test set, " in (folder / "log.txt").read_text()
    evaluate_checkpoint(folder / "last.pth", output=str(tmp_path / "out"), device="cpu")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json"}


def test_evaluate_repeats_the_figures_from_the_checkpoint(run_directory: Path, tmp_path: Path) -> None:
    (result,) = evaluate_checkpoint(run_directory / "last.pth", output=str(tmp_path), device="cpu")
    trained = json.loads((run_directory / "results.json").read_text())["metrics"][0]
    assert result.values == trained["values"]
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "predictions.jpg"}  # no detections


def test_predict_writes_masks_areas_and_drawings(run_directory: Path, config_file: Path, tmp_path: Path) -> None:
    (result,) = predict_paths(
        run_directory / "last.pth", [str(config_file.parent / "test" / "101.png")], output=str(tmp_path), device="cpu"
    )
    with Image.open(tmp_path / result["mask"]) as picture:
        labels = np.asarray(picture)
    assert labels.shape == draw(101)[1].shape == (result["height"], result["width"])
    assert result["areas"] == areas_of(labels, ("ground", "round", "square"))
    assert sum(area["pixels"] for area in result["areas"]) == labels.size
    assert json.loads((tmp_path / "predictions.json").read_text()) == [result]
    assert (tmp_path / "101.jpg").is_file()


def test_areas_are_counted_the_largest_first() -> None:
    labels = np.array([[2, 2, 0, 2]], np.uint8)
    assert areas_of(labels, ("a", "b", "c")) == [
        {"class": "c", "pixels": 3, "share": 0.75},
        {"class": "a", "pixels": 1, "share": 0.25},
    ]


class TwoProcesses(World):
    """Process 0 of two, which is handed the other one's share."""

    def __init__(self) -> None:
        super().__init__(0, 2, torch.device("cpu"))

    theirs: Any = None

    def gather(self, value: Any) -> list[Any]:
        return [value, TwoProcesses.theirs]

    def broadcast(self, value: Any) -> Any:
        return value


def test_figures_do_not_depend_on_batches_or_processes(config_file: Path) -> None:
    config = load_config(config_file)
    task = build_task(config, 3)
    task.model.eval()

    def evaluator(batch: int, world: World) -> SegmentationEvaluator:
        changed = copy.deepcopy(config)
        changed["loader"]["test_batch_size"] = batch
        made = build_evaluator(changed, task, build_data(config).measured, world)
        assert isinstance(made, SegmentationEvaluator)
        return made

    alone = World(0, 1, torch.device("cpu"))
    whole = evaluator(1, alone)
    (expected,) = whole(task.model)
    assert set(whole.label_maps) == {0, 1, 2, 4}  # four pictures of five
    second = evaluator(1, World(1, 2, torch.device("cpu")))
    shares: list[Any] = []
    second._together = lambda matrices, kept: shares.append((list(matrices), kept))  # type: ignore[method-assign]
    second(task.model)
    (TwoProcesses.theirs,) = shares
    first = evaluator(1, TwoProcesses())
    (together,) = first(task.model)
    assert together.values == expected.values
    assert set(first.label_maps) == set(whole.label_maps)
    assert all(torch.equal(first.label_maps[i].labels, whole.label_maps[i].labels) for i in whole.label_maps)


def test_scales_flip_and_windows_come_from_the_config(config_file: Path) -> None:
    config = load_config(config_file)
    task = build_task(config, 3)
    task.model.eval()
    for settings in ({"flip": True}, {"flip": False, "window": 48}):
        config["loader"]["test_time"] = settings
        (result,) = build_evaluator(config, task, build_data(config).measured, World(0, 1, torch.device("cpu")))(
            task.model
        )
        assert 0 <= result.values[result.main] <= 1
    config["loader"]["test_time"] = {"voting": 0.5}
    with pytest.raises(UserError, match=r"SegmentationTestTime takes no 'voting'"):
        build_evaluator(config, task, build_data(config).measured, World(0, 1, torch.device("cpu")))


def test_each_tool_refuses_the_other_task(
    run_tool: Callable[..., tuple[int, str]], config_file: Path, tiny_config_file: Path, tmp_path: Path
) -> None:
    code, errors = run_tool("train_det", config_file, "--work-dir", tmp_path)
    assert code == 2
    assert f"its task is segmentation; run tools/train_seg.py {config_file}" in errors
    code, errors = run_tool("train_seg", tiny_config_file, "--work-dir", tmp_path)
    assert code == 2
    assert "its task is detection; run tools/train_det.py" in errors
    assert not any(tmp_path.iterdir())


def test_data_of_the_other_kind_are_refused(config_file: Path, tiny_config: dict[str, Any]) -> None:
    config = load_config(config_file)
    with pytest.raises(UserError, match=r"data\.train is a VOCDataset, whose truth is boxes, but task='segmentation'"):
        build_data({**config, "data": tiny_config["data"]})
    with pytest.raises(UserError, match=r"whose truth is masks, but task='detection'"):
        build_data({**tiny_config, "data": config["data"]})


def test_a_task_that_does_not_exist_is_named(config_file: Path) -> None:
    with pytest.raises(
        UserError, match=r"task='segmentaton' is none of detection, segmentation, classification, did you mean"
    ):
        build_task({**load_config(config_file), "task": "segmentaton"}, 3)
