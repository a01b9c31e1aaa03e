"""From a checkpoint to a file, and from the file to what the checkpoint says: tools/export.py, predict, evaluate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from tiny_checkpoints import write_checkpoint
from tiny_masks import write_masks

from transfer.evaluation import evaluate_checkpoint
from transfer.export.agreement import agreement
from transfer.export.command import export_checkpoint
from transfer.export.onnx_file import read
from transfer.export.session import restore_exported
from transfer.prediction import predict_paths
from transfer.restoring import restore
from transfer.types import Batch, Target, UserError

Tool = Callable[..., tuple[int, str]]
TASKS = ("classification", "segmentation", "detection")

pytestmark = pytest.mark.slow  # torch's exporter takes seconds for the smallest network


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of two sizes, and their masks."""
    return write_masks(tmp_path_factory.mktemp("pictures"), train=6, test=4)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> dict[str, Path]:
    """Task -> the file; its checkpoint is beside it."""
    folder = tmp_path_factory.mktemp("exported")
    files = {}
    for task in TASKS:
        checkpoint = write_checkpoint(folder / f"{task}.pth", task, pictures)
        files[task] = export_checkpoint(
            checkpoint, check_on=[str(pictures / "test")], int8=task == "segmentation", images=4
        )
    return files


def batch_of(images: torch.Tensor) -> Batch:
    nothing = torch.zeros(0)
    size = (int(images.shape[2]), int(images.shape[3]))
    target = Target(
        boxes=torch.zeros(0, 4), labels=nothing.long(), difficult=nothing.bool(), weights=nothing, size=size,
        index=0, image_id=0, path="", original_size=size, scale=(1.0, 1.0), seed=0,
    )  # fmt: skip
    return Batch(images, [target] * len(images))


@pytest.mark.parametrize("task", TASKS)
def test_a_file_takes_batches_and_sizes_it_was_not_made_with(task: str, exported: dict[str, Path]) -> None:
    from transfer.engine.checkpoint import load_checkpoint

    model = restore(load_checkpoint(exported[task].with_suffix(".pth")), torch.device("cpu")).task
    file = restore_exported(exported[task])[1].task
    generator = torch.Generator().manual_seed(0)
    batches = [
        batch_of(torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator))
        for count, size in ((1, (32, 32)), (3, (96, 160)), (2, (64, 224)))
    ]
    found = agreement(model, file, batches)
    assert found.problems == []
    assert found.compared >= 6


@pytest.mark.parametrize("task", TASKS)
def test_a_file_predicts_what_its_checkpoint_predicts(
    task: str, exported: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"pictures": False, "device": "cpu"}
    paths = [str(pictures / "test")]
    plain = predict_paths(
        exported[task].with_suffix(".pth"), paths, output=str(tmp_path / "a"), fuse=False, **arguments
    )
    fused = predict_paths(exported[task].with_suffix(".pth"), paths, output=str(tmp_path / "b"), **arguments)
    file = predict_paths(exported[task], paths, output=str(tmp_path / "c"), **arguments)
    for other in (fused, file):
        assert len(other) == len(plain) == 4
        for one, two in zip(plain, other, strict=True):
            assert all(one[key] == two[key] for key in ("file", "width", "height"))
            assert_alike(one, two)
    assert json.loads((tmp_path / "c" / "predictions.json").read_text()) == file


def assert_alike(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Equal but for the last digit."""
    if "areas" in one:
        counts = [{area["class"]: area["pixels"] for area in each["areas"]} for each in (one, two)]
        assert counts[0].keys() == counts[1].keys()
        assert all(abs(counts[0][name] - counts[1][name]) <= 2 for name in counts[0])
        return
    key = "classes" if "classes" in one else "detections"
    assert len(one[key]) == len(two[key]) > 0
    for first, second in zip(one[key], two[key], strict=True):
        assert first["class"] == second["class"]
        assert first["score"] == pytest.approx(second["score"], abs=2e-4)
        if key == "detections":
            assert first["box"] == pytest.approx(second["box"], abs=0.05)


def test_test_time_views_work_on_a_file(exported: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    views = {"scales": [1.0, 1.5], "flip": True}
    both = [
        predict_paths(
            path, [str(pictures / "test")], output=str(tmp_path / path.suffix), pictures=False, test_time=views
        )
        for path in (exported["segmentation"].with_suffix(".pth"), exported["segmentation"])
    ]
    for one, two in zip(*both, strict=True):
        assert_alike(one, two)


def test_a_file_measures_what_its_checkpoint_measures(exported: dict[str, Path], tmp_path: Path) -> None:
    both = [
        evaluate_checkpoint(path, output=str(tmp_path / path.suffix[1:]), device="cpu")[0].values["mIoU"]
        for path in (exported["segmentation"].with_suffix(".pth"), exported["segmentation"])
    ]
    assert both[0] == pytest.approx(both[1], abs=1e-3)
    results = json.loads((tmp_path / "onnx" / "results.json").read_text())
    assert results["checkpoint"] == str(exported["segmentation"])


def test_a_file_says_what_it_is_and_passes_the_library_s_check(exported: dict[str, Path]) -> None:
    checkpoint, facts, _ = read(exported["detection"])
    assert checkpoint["class_names"] == ["ground", "round", "square"]
    assert (facts.gives, facts.multiple, facts.size, facts.batch) == ("detections", 32, None, None)
    model = onnx.load(exported["detection"])
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["images", "sizes"]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert model.producer_name == "trickstack"


def test_integers_are_smaller_and_close(exported: dict[str, Path], pictures: Path) -> None:
    integers = exported["segmentation"].with_suffix(".int8.onnx")
    assert read(integers)[1].precision == "int8"
    assert {node.op_type for node in onnx.load(integers).graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    image = cv2.imread(str(next((pictures / "test").iterdir())))[:64, :64, ::-1]
    images = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    logits = [
        restore_exported(path)[1].task.model(images, [(64, 64)]).logits for path in (exported["segmentation"], integers)
    ]
    assert 0 < float((logits[0] - logits[1]).abs().max() / logits[0].abs().max()) < 0.2


def test_nothing_is_overwritten_and_arguments_are_checked(
    exported: dict[str, Path], run_tool: Tool, tmp_path: Path
) -> None:
    checkpoint = exported["classification"].with_suffix(".pth")
    before = exported["classification"].read_bytes()
    for arguments, message in (
        ([], "is there already: give another name"),
        (["--output", tmp_path / "a.bin"], "ends in .onnx"),
        (["--output", tmp_path / "nowhere" / "a.onnx"], "there is no folder"),
        (["--output", tmp_path / "a.onnx", "--opset", "9"], "--opset 9: give 18 to"),
        (["--output", tmp_path / "a.onnx", "--check", tmp_path], "folder without images"),
        (["--output", tmp_path / "a.onnx", "--int8", "--images", "0"], "--images 0"),
    ):
        code, said = run_tool("export", checkpoint, *arguments)
        assert code == 2
        assert message in said
        assert "Traceback" not in said
    assert exported["classification"].read_bytes() == before
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_the_network_does_not_take_is_refused(exported: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--size 65 64: this network takes sides that are multiples of 32"):
        export_checkpoint(exported["detection"].with_suffix(".pth"), tmp_path / "a.onnx", size=(65, 64))


def test_a_file_of_one_size_takes_smaller_images(exported: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    file = export_checkpoint(
        exported["segmentation"].with_suffix(".pth"),
        tmp_path / "a.onnx",
        size=(96, 112),
        check_on=[str(pictures / "test")],
    )
    assert read(file)[1].size == (96, 112)
    assert onnx.load(file).graph.input[0].type.tensor_type.shape.dim[3].dim_value == 112
    results = predict_paths(file, [str(pictures / "test")], output=str(tmp_path / "out"), pictures=False)
    assert all(sum(area["pixels"] for area in each["areas"]) == each["width"] * each["height"] for each in results)
    with pytest.raises(UserError, match="this file takes images that are of 96x112 px"):
        restore_exported(file)[1].task.model(torch.zeros(1, 3, 128, 112, dtype=torch.uint8), [(128, 112)])


def test_a_file_that_differs_gets_no_name(
    exported: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Path
) -> None:
    from transfer.export import graph

    forward = graph.ClassifierGraph.forward
    monkeypatch.setattr(graph.ClassifierGraph, "forward", lambda self, images: forward(self, images) * 1.01)
    monkeypatch.setattr("transfer.export.command._BATCHES", (None,))
    with pytest.raises(UserError, match=r"logits differ by 0.01 of the largest, 0.001 is tolerated"):
        export_checkpoint(
            exported["classification"].with_suffix(".pth"),
            tmp_path / "a.onnx",
            size=(64, 64),
            check_on=[str(pictures / "test")],
        )
    assert list(tmp_path.iterdir()) == []


def test_a_two_stage_detector_is_exported_with_its_suppression_outside(
    finished_run: Path, devkit: Path, tmp_path: Path
) -> None:
    checkpoint = Path(shutil.copy(finished_run / "last.pth", tmp_path / "last.pth"))
    file = export_checkpoint(checkpoint, suppression="outside", check_on=[str(devkit / "VOC2007" / "JPEGImages")])
    assert read(file)[1].gives == "regions"
    both = [
        predict_paths(path, [str(devkit)], output=str(tmp_path / path.suffix), pictures=False, score=0.0)
        for path in (checkpoint, file)
    ]
    scores = [[row["score"] for image in each for row in image["detections"]] for each in both]
    assert scores[0] == pytest.approx(scores[1], abs=2e-4)
