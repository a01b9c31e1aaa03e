"""From a config file to a run directory, and from its checkpoint alone to figures and to detections in pictures."""

from __future__ import annotations

import contextlib
import copy
import errno
import io
import json
import math
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_devkit import CLASS_NAMES, write_config

from transfer import training
from transfer.build import from_json, load_config, to_json
from transfer.data.voc import VOCDataset
from transfer.engine.checkpoint import load_checkpoint
from transfer.engine.hooks import ProgressLog
from transfer.engine.train import Event, Step
from transfer.evaluation import evaluate_checkpoint
from transfer.prediction import find_images, predict_paths
from transfer.restoring import restore
from transfer.types import UserError

Tool = Callable[..., tuple[int, str]]
CPU = torch.device("cpu")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# What a run leaves


def test_a_run_leaves_all_of_its_files(finished_run: Path, tiny_config_file: Path) -> None:
    names = {path.name for path in finished_run.iterdir()}
    assert names == {
        "config.json",
        "curves.png",
        "last.pth",
        "log.txt",
        "metrics.jsonl",
        "predictions.jpg",
        "preflight.jpg",
        "preflight.json",
        "results.json",
        "tensorboard",
    }
    assert from_json((finished_run / "config.json").read_text(encoding="utf-8")) == load_config(tiny_config_file)
    rows = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["iteration"] for row in rows if "total" in row] == [*range(1, 9)]
    assert [row["iteration"] for row in rows if "evaluation" in row] == [4, 8]
    assert rows[0]["total"] == pytest.approx(sum(value for key, value in rows[0].items() if key.startswith("loss_")))
    log = (finished_run / "log.txt").read_text(encoding="utf-8")
    assert "iteration 8/8" in log
    assert "8 images, 8 iterations of 4, device cpu" in log
    assert "test_resnet" in log  # also what was said before the directory was made
    assert "SGD: lr 0.01" in log
    assert "curves: too little to say: 2 evaluations" in log
    assert cv2.imread(str(finished_run / "curves.png")).shape == (360, 1350, 3)
    assert cv2.imread(str(finished_run / "predictions.jpg")).shape == (360, 4 * 360, 3)  # four of them, one row
    assert list((finished_run / "tensorboard").glob("events.out.tfevents.*"))
    results = read_json(finished_run / "results.json")
    assert results["measured"] == "last.pth, test set"
    evaluated = [row for row in rows if "evaluation" in row][-1]["evaluation"][0]
    assert results["metrics"][0]["values"] == evaluated["values"]


def test_the_checkpoint_tells_what_it_is(finished_run: Path, tiny_config: dict[str, Any]) -> None:
    checkpoint = load_checkpoint(finished_run / "last.pth")
    assert (checkpoint["iteration"], checkpoint["seed"], checkpoint["world_size"]) == (8, 0, 1)
    assert checkpoint["class_names"] == list(CLASS_NAMES)
    assert checkpoint["category_ids"] == [1, 2, 3]
    assert from_json(checkpoint["config"]) == tiny_config
    assert checkpoint["backbone"]["name"] == "test_resnet"
    assert checkpoint["versions"]["torch"]
    assert checkpoint["ema"] is None
    assert checkpoint["metrics"][0]["values"]["mAP50"] >= 0


def test_training_lowers_the_loss(finished_run: Path) -> None:
    rows = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    totals = [row["total"] for row in rows if "total" in row]
    assert sum(totals[-3:]) < 0.9 * sum(totals[:3])


def test_each_start_makes_a_directory_of_its_own(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    tiny_config["training"].update(epochs=None, iterations=3, pictures=0)
    for _ in range(2):
        training.run(copy.deepcopy(tiny_config), name="a", work_dir=tmp_path, device="cpu")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["001", "002"]
    assert not (tmp_path / "a" / "001" / "predictions.jpg").exists()  # none were asked for


def test_a_run_that_cannot_start_leaves_nothing(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    tiny_config["data"]["train"]["root"] = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nowhere"):
        training.run(tiny_config, name="a", work_dir=tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()


def test_with_validation_data_the_best_checkpoint_is_measured_on_the_test_set(
    tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    tiny_config["data"]["val"] = 0.25
    assert training.run(tiny_config, name="a", work_dir=tmp_path, device="cpu")
    folder = tmp_path / "a" / "001"
    results = read_json(folder / "results.json")
    assert results["measured"] == "best.pth (chosen on validation data), test set"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    on_validation = [row["evaluation"][0]["values"]["mAP50"] for row in rows if "evaluation" in row]
    best = load_checkpoint(folder / "best.pth")
    assert best["best"] == best["metrics"][0]["values"]["mAP50"] == max(on_validation)
    (measured,) = evaluate_checkpoint(folder / "best.pth", output=str(tmp_path / "out"), device="cpu")
    assert measured.values == pytest.approx(results["metrics"][0]["values"], abs=1e-6)
    # and both parts of the held-out split, again from the checkpoint alone
    assert evaluate_checkpoint(folder / "best.pth", split="val", output=str(tmp_path / "val"), device="cpu")
    assert read_json(tmp_path / "val" / "results.json")["images"] == 2
    assert measured_on(folder / "best.pth", "train", tmp_path) == 6
    val = read_json(tmp_path / "val" / "results.json")["metrics"][0]["values"]
    assert val["mAP50"] == pytest.approx(max(on_validation), abs=1e-6)


def measured_on(checkpoint: Path, split: str, folder: Path) -> int:
    evaluate_checkpoint(checkpoint, split=split, output=str(folder / split), device="cpu")
    return int(read_json(folder / split / "results.json")["images"])


def test_a_backbone_of_ones_own_trains_to_the_end_and_is_trusted_by_name(
    devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "my_backbone_module.py").write_text(
        "from backbones.timm_backbone import TimmBackbone\nclass MyBackbone(TimmBackbone):\n    pass\n", "utf-8"
    )
    config_file = write_config(
        tmp_path / "own.py",
        devkit,
        ("from backbones.timm_backbone import TimmBackbone", "from my_backbone_module import MyBackbone"),
        ("type=TimmBackbone", "type=MyBackbone"),
        ("val=None", "val=0.25"),
        ("epochs=2", "epochs=None, iterations=3"),
    )
    training.run(load_config(config_file), name="own", work_dir=tmp_path / "runs", device="cpu")
    folder = tmp_path / "runs" / "own" / "001"
    assert (folder / "results.json").is_file()  # best.pth was measured: a run trusts its own config
    with pytest.raises(UserError, match=r"--trust my_backbone_module"):
        evaluate_checkpoint(folder / "best.pth", device="cpu")
    evaluate_checkpoint(folder / "best.pth", device="cpu", trust=["my_backbone_module"])


# Stopped and resumed, by the command line


def test_interrupted_by_the_user_and_resumed_it_ends_as_an_unbroken_run(
    finished_run: Path, tiny_config_file: Path, tmp_path: Path, run_tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupts(ProgressLog):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, Step) and event.iteration == 4:  # at the end of an epoch, before its evaluation
                signal.raise_signal(signal.SIGINT)

    command = ("train_det", tiny_config_file, "--work-dir", tmp_path, "--device", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(training, "ProgressLog", Interrupts)
        code, errors = run_tool(*command)
    assert code == 130
    assert "--resume" in errors
    folder = tmp_path / "tiny" / "001"
    assert not (folder / "results.json").exists()
    assert (folder / "curves.png").exists()
    code, errors = run_tool(*command, "--resume")
    assert code == 0
    assert "going on from iteration 4 of 8" in errors
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["001"]
    ours, whole = load_checkpoint(folder / "last.pth"), load_checkpoint(finished_run / "last.pth")
    assert all(torch.equal(ours["model"][name], tensor) for name, tensor in whole["model"].items())
    assert read_json(folder / "results.json") == read_json(finished_run / "results.json")
    (folder / "results.json").unlink()  # as if killed between the last checkpoint and the report
    kept = {name: (folder / name).read_bytes() for name in ("last.pth", "metrics.jsonl")}
    code, errors = run_tool(*command, "--resume")
    assert code == 0
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert read_json(folder / "results.json") == read_json(finished_run / "results.json")
    code, errors = run_tool(*command, "--resume")
    assert code == 2
    assert "at its end already" in errors


def test_one_command_again_and_again_ends_with_one_finished_run(
    finished_run: Path, tiny_config_file: Path, tmp_path: Path, run_tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a scheduler gives it: --resume auto with a time limit."""
    command = ("train_det", tiny_config_file, "--work-dir", tmp_path, "--device", "cpu", "--resume", "auto")
    clock = time.monotonic

    class Slow(ProgressLog):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, Step) and event.iteration == 3:
                monkeypatch.setattr(time, "monotonic", lambda: math.inf)

    with monkeypatch.context() as patch:
        patch.setattr(training, "ProgressLog", Slow)
        code, errors = run_tool(*command, "--time-limit", "10:00:00")
    monkeypatch.setattr(time, "monotonic", clock)
    assert code == 0
    assert "nothing to go on with" in errors
    assert "out of time; go on with the same command and --resume" in errors
    assert load_checkpoint(tmp_path / "tiny" / "001" / "last.pth")["iteration"] == 3
    code, errors = run_tool(*command, "--time-limit", "10:00:00")
    assert code == 0
    assert "going on from iteration 3 of 8" in errors
    assert read_json(tmp_path / "tiny" / "001" / "results.json") == read_json(finished_run / "results.json")
    code, errors = run_tool(*command)
    assert code == 0
    assert "at its end already" in errors
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["001"]
    code, errors = run_tool(*command, "--time-limit", "1:xx")
    assert code == 2
    assert "must be a time above 0" in errors


def test_from_another_checkpoint_a_run_branches_off_into_a_directory_of_its_own(
    finished_run: Path, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    earlier = {**load_checkpoint(finished_run / "last.pth"), "iteration": 6, "measured_at": 4}
    torch.save(earlier, tmp_path / "earlier.pth")
    runs = tmp_path / "runs"
    assert training.run(tiny_config, name="a", work_dir=runs, device="cpu", resume=str(tmp_path / "earlier.pth"))
    rows = [json.loads(line) for line in (runs / "a" / "001" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [row["iteration"] for row in rows] == [7, 8, 8]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["earlier.pth"]


# Figures and pictures from a checkpoint


def test_the_checkpoint_alone_gives_the_runs_figures(finished_run: Path, tmp_path: Path, run_tool: Tool) -> None:
    code, errors = run_tool("evaluate", finished_run / "last.pth", "--output", tmp_path, "--device", "cpu")
    assert code == 0
    ours, runs = read_json(tmp_path / "results.json"), read_json(finished_run / "results.json")
    assert ours["metrics"][0]["values"] == pytest.approx(runs["metrics"][0]["values"], abs=1e-6)
    assert ours["metrics"][0]["protocol"] == runs["metrics"][0]["protocol"]
    assert (ours["iteration"], ours["images"], ours["split"]) == (8, 5, "test")
    assert "mAP50" in errors
    assert (tmp_path / "predictions.jpg").is_file()


def test_other_data_of_the_same_kind_can_be_measured(finished_run: Path, devkit: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(devkit, moved)
    for source in (str(moved), str(write_config(tmp_path / "other.py", moved))):
        (result,) = evaluate_checkpoint(finished_run / "last.pth", data=source, output=str(tmp_path), device="cpu")
        runs = read_json(finished_run / "results.json")["metrics"][0]["values"]
        assert result.values == pytest.approx(runs, abs=1e-6)
    shutil.rmtree(moved)
    with pytest.raises(UserError, match="elsewhere"):
        evaluate_checkpoint(finished_run / "last.pth", data=str(moved), device="cpu")


def test_detections_are_cocos_format(finished_run: Path, devkit: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    evaluate_checkpoint(finished_run / "last.pth", output=str(tmp_path), device="cpu")
    detections = read_json(tmp_path / "detections.json")
    test = VOCDataset(devkit, "test")
    truth = COCO()
    truth.dataset = {
        "images": [{"id": test.record(i).image_id} for i in range(len(test))],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASS_NAMES)],
        "annotations": [],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        loaded = truth.loadRes(str(tmp_path / "detections.json"))
    assert len(loaded.anns) == len(detections) > 0
    sizes = {test.record(i).image_id: test.record(i).size for i in range(len(test))}
    for detection in detections:
        height, width = sizes[detection["image_id"]]
        x, y, w, h = detection["bbox"]
        assert min(x, y) >= 0
        assert min(w, h) > 0
        assert x + w <= width + 0.01
        assert y + h <= height + 0.01
        assert detection["category_id"] in (1, 2, 3)


def test_each_evaluation_gets_a_folder_of_its_own(finished_run: Path, tmp_path: Path) -> None:
    shutil.copy(finished_run / "last.pth", tmp_path)
    for _ in range(2):
        evaluate_checkpoint(tmp_path / "last.pth", device="cpu", workers=0)
    assert sorted(path.name for path in (tmp_path / "evaluation").iterdir()) == ["001", "002"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of what people have: greyscale, names with spaces and beyond ASCII, equal stems, a subfolder, a text."""
    folder = tmp_path / "my pictures"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (50, 80), dtype=np.uint8)).save(folder / "grey.png")
    for name in ("with space.jpg", "Größe 図.JPG", "grey.jpg", "sub/deep.webp"):
        Image.fromarray(rng.integers(0, 256, (60, 40, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not a picture", encoding="utf-8")
    return folder


def test_predictions_for_a_folder(finished_run: Path, pictures: Path, tmp_path: Path, run_tool: Tool) -> None:
    output = tmp_path / "out"
    code, _ = run_tool(
        "predict", finished_run / "last.pth", pictures, "--output", output, "--score", "0.01", "--device", "cpu"
    )
    assert code == 0
    results = read_json(output / "predictions.json")
    files = ["Größe 図.JPG", "grey.jpg", "grey.png", "sub/deep.webp", "with space.jpg"]
    assert [Path(r["file"]).relative_to(pictures).as_posix() for r in results] == files
    sizes = {Path(r["file"]).name: (r["width"], r["height"]) for r in results}
    assert sizes["grey.png"] == (80, 50)
    assert sizes["with space.jpg"] == (40, 60)
    assert sum(len(r["detections"]) for r in results) > 0
    for result in results:
        for detection in result["detections"]:
            assert detection["class"] in CLASS_NAMES
            assert 0.01 <= detection["score"] <= 1
            left, top, right, bottom = detection["box"]
            assert 0 <= left < right <= result["width"]
            assert 0 <= top < bottom <= result["height"]
    drawings = {path.name for path in output.iterdir()} - {"predictions.json"}
    assert drawings == {"Größe 図.jpg", "grey.jpg", "grey_2.jpg", "deep.jpg", "with space.jpg"}
    shapes = {name: np.array(Image.open(output / name)).shape for name in drawings}
    assert {shapes["grey.jpg"], shapes["grey_2.jpg"]} == {(60, 40, 3), (50, 80, 3)}


def test_predictions_for_a_file_and_a_glob(finished_run: Path, pictures: Path, tmp_path: Path) -> None:
    checkpoint, output = finished_run / "last.pth", tmp_path / "out"
    (alone,) = predict_paths(checkpoint, [str(pictures / "grey.png")], output=str(output), device="cpu", score=0.0)
    together = predict_paths(
        checkpoint,
        [str(pictures / "**" / "*.[pw]*"), str(pictures / "grey.png")],
        output=str(tmp_path / "together"),
        device="cpu",
        score=0.0,
        pictures=False,
    )
    assert [Path(r["file"]).name for r in together] == ["grey.png", "deep.webp"]  # each once
    assert together[0] == alone
    assert [path.name for path in (tmp_path / "together").iterdir()] == ["predictions.json"]
    assert (output / "grey.jpg").exists()


def test_predictions_of_before_are_kept(
    finished_run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_tool: Tool
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        predict_paths(finished_run / "last.pth", [str(pictures / "grey.png")], device="cpu", pictures=False)
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == ["001", "002"]
    before = (tmp_path / "predictions" / "001" / "predictions.json").read_bytes()
    code, errors = run_tool("predict", finished_run / "last.pth", pictures, "--output", "predictions/001")
    assert code == 2
    assert "--output 'predictions/001' has predictions.json of before: give another folder" in errors
    assert [path.name for path in (tmp_path / "predictions" / "001").iterdir()] == ["predictions.json"]
    assert (tmp_path / "predictions" / "001" / "predictions.json").read_bytes() == before


def test_a_run_directory_in_place_of_its_checkpoint_is_answered_with_that(finished_run: Path, run_tool: Tool) -> None:
    code, errors = run_tool("evaluate", finished_run)
    assert code == 2
    assert re.search(r"is a folder, no checkpoint: give '.*/(best|last)\.pth'", errors)
    code, errors = run_tool("evaluate", finished_run.parent)
    assert code == 2
    assert "is a folder, no checkpoint: give a last.pth or best.pth" in errors


def test_a_picture_is_predicted_as_in_evaluation(finished_run: Path, devkit: Path, tmp_path: Path) -> None:
    """Both ways into the network are the same: files on the command line, and the data set."""
    evaluate_checkpoint(finished_run / "last.pth", output=str(tmp_path), device="cpu")
    measured = [d for d in read_json(tmp_path / "detections.json") if d["image_id"] == "000013"]
    path = devkit / "VOC2007" / "JPEGImages" / "000013.jpg"
    (result,) = predict_paths(finished_run / "last.pth", [str(path)], output=str(tmp_path), score=0.0, device="cpu")
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (d["bbox"] for d in measured)]
    np.testing.assert_allclose([d["box"] for d in result["detections"]], boxes, atol=0.02)
    np.testing.assert_allclose([d["score"] for d in result["detections"]], [d["score"] for d in measured], atol=1e-4)


def test_an_unreadable_picture_is_named_and_left_out(
    finished_run: Path, pictures: Path, tmp_path: Path, run_tool: Tool
) -> None:
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a JPEG")
    code, errors = run_tool("predict", finished_run / "last.pth", pictures, "--output", tmp_path / "out")
    assert code == 0
    assert "left out" in errors
    assert "broken.jpg" in errors
    assert len(read_json(tmp_path / "out" / "predictions.json")) == 5


def test_the_users_own_pictures_are_never_replaced(finished_run: Path, pictures: Path) -> None:
    before = {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"would replace .*(with space|grey)\.jpg.*give another folder"):
        predict_paths(finished_run / "last.pth", [str(pictures)], output=str(pictures), device="cpu")
    assert {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()} == before


def test_images_are_found_once_in_order(pictures: Path) -> None:
    found = find_images([str(pictures / "sub"), str(pictures), str(pictures / "notes.txt")])
    names = [path.name for path in found]
    assert names[0] == "deep.webp"
    assert names[-1] == "notes.txt"  # named by the user: whether it is an image shows when it is read
    assert len(set(found)) == len(found) == 6


def test_the_average_is_what_a_checkpoint_predicts_with(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    tiny_config["training"].update(epochs=None, iterations=3, ema={"decay": 0.9, "warm_up": 0}, pictures=0)
    training.run(tiny_config, name="a", work_dir=tmp_path, device="cpu")
    checkpoint = load_checkpoint(tmp_path / "a" / "001" / "last.pth")
    model = restore(checkpoint, CPU).task.model
    assert not model.training
    average, last = checkpoint["ema"]["module"], checkpoint["model"]
    assert all(torch.equal(tensor, average[name]) for name, tensor in model.state_dict().items())
    assert not torch.equal(average["predictor.logits.weight"], last["predictor.logits.weight"])
    results = read_json(tmp_path / "a" / "001" / "results.json")["metrics"][0]["values"]
    (result,) = evaluate_checkpoint(tmp_path / "a" / "001" / "last.pth", device="cpu")
    assert result.values == pytest.approx(results, abs=1e-6)


def test_a_checkpoint_carries_its_input_statistics(tiny_config: dict[str, Any], finished_run: Path) -> None:
    checkpoint = load_checkpoint(finished_run / "last.pth")
    checkpoint["backbone"].update(mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    backbone = restore(checkpoint, CPU).task.model.backbone
    assert backbone.mean == pytest.approx((0.1, 0.2, 0.3))  # type: ignore[union-attr]
    assert backbone.std == pytest.approx((0.5, 0.6, 0.7))  # type: ignore[union-attr]


def test_a_checkpoints_config_runs_nothing(finished_run: Path, devkit: Path, tmp_path: Path) -> None:
    """Whatever part of the config names something else than this project's parts is refused, and no file appears."""
    mark = tmp_path / "was_run"
    evil = {"type": "os.system", "command": f"touch '{mark}'"}
    writer = {
        "type": "transfer.metrics.detections.write_coco_detections",
        "path": str(mark),
        "records": [],
        "predictions": [],
        "category_ids": [1],
    }
    module = {"type": "this_module_does_not_exist.Thing", "splits": "test"}
    checkpoint = load_checkpoint(finished_run / "last.pth")
    for places in (("model", "backbone"), ("criterion",), ("postprocess",), ("augment", "test"), ("data", "test")):
        for node in (evil, writer, module):
            config = from_json(checkpoint["config"])
            inner: Any = config
            for place in places[:-1]:
                inner = inner[place]
            inner[places[-1]] = node
            torch.save({**checkpoint, "config": to_json(config)}, tmp_path / "evil.pth")
            for data in (None, str(devkit)):
                with pytest.raises(UserError, match=r"trust|may name"):
                    evaluate_checkpoint(tmp_path / "evil.pth", data=data, output=str(tmp_path / "out"), device="cpu")
    assert not mark.exists()


def test_a_restart_by_torchrun_goes_on_with_its_own_run(
    tiny_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> bool:
        return bool(training.run(tiny_config, name="a", work_dir=tmp_path, device="cpu"))

    assert start()  # somebody's earlier run: not to be touched
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert start()  # has saved nothing yet: begins
    assert start()  # restarted after its end: its own run is found, and nothing is left to do
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["001", "002"]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    assert start()
    assert (tmp_path / "a" / "003" / "results.json").is_file()


def test_the_log_file_holds_what_was_said_before_the_directory_was_made(finished_run: Path) -> None:
    text = (finished_run / "log.txt").read_text(encoding="utf-8")
    assert text.index("backbone: name test_resnet") < text.index("run directory")


def test_detections_carry_the_ids_of_the_data_they_were_made_on(
    finished_run: Path, devkit: Path, tmp_path: Path
) -> None:
    """A COCO file whose ids differ from the training data's: its own ids are written."""
    photographs = devkit / "VOC2007" / "JPEGImages"
    content = {
        "images": [{"id": 7, "file_name": min(path.name for path in photographs.iterdir())}],
        "categories": [{"id": 10 * (3 - k), "name": name} for k, name in enumerate(CLASS_NAMES)],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 10, "bbox": [2, 2, 20, 20], "area": 400, "iscrowd": 0}],
    }
    (tmp_path / "other.json").write_text(json.dumps(content), encoding="utf-8")
    config = write_config(tmp_path / "other.py", devkit)
    with config.open("a", encoding="utf-8") as file:
        file.write(
            "\nfrom transfer.data.coco import COCODataset\n"
            f"data['test'] = dict(type=COCODataset, annotations={str(tmp_path / 'other.json')!r}, "
            f"images={str(photographs)!r})\n"
        )
    evaluate_checkpoint(finished_run / "last.pth", data=str(config), output=str(tmp_path / "out"), device="cpu")
    written = read_json(tmp_path / "out" / "detections.json")
    assert {row["category_id"] for row in written} - {1, 2, 3}
    assert {row["category_id"] for row in written} <= {10, 20, 30}
    assert {row["image_id"] for row in written} == {7}


def test_predict_leaves_out_what_is_weaker_than_the_score(finished_run: Path, devkit: Path, tmp_path: Path) -> None:
    image = str(devkit / "VOC2007" / "JPEGImages" / "000012.jpg")

    def scores(least: float) -> list[float]:
        (result,) = predict_paths(
            finished_run / "last.pth",
            [image],
            output=str(tmp_path / str(least)),
            score=least,
            device="cpu",
            pictures=False,
        )
        return [detection["score"] for detection in result["detections"]]

    everything = scores(0.0)
    assert len(everything) > 1
    assert min(everything) < max(everything)
    middle = (min(everything) + max(everything)) / 2
    assert scores(middle) == [score for score in everything if score >= middle]
    assert scores(1.0) == []


def test_a_full_disk_is_told_and_the_last_checkpoint_kept(
    tiny_config_file: Path, tmp_path: Path, run_tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(ProgressLog):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, Step) and event.iteration == 6:
                raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(training, "ProgressLog", Full)
        code, errors = run_tool("train_det", tiny_config_file, "--work-dir", tmp_path, "--device", "cpu")
    assert code == 2
    message = errors.splitlines()[-1]
    assert "001': No space left on device; its last.pth is kept. Free the place and go on with --resume" in message
    assert load_checkpoint(tmp_path / "tiny" / "001" / "last.pth")["iteration"] == 4
