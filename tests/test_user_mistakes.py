"""A user's mistake ends in exit code 2 and one message that names the value and the remedy, without a traceback."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_devkit import write_config

from transfer.engine.checkpoint import load_checkpoint

Tool = Callable[..., tuple[int, str]]


@pytest.fixture
def refused(run_tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Calls a tool that has to refuse, in an empty folder, and gives the message; nothing may be left behind."""
    here = tmp_path / "working directory"
    here.mkdir()
    monkeypatch.chdir(here)

    def call(tool: str, *arguments: str | Path, leaves: tuple[str, ...] = ()) -> str:
        code, errors = run_tool(tool, *arguments)
        assert code == 2, errors
        assert errors.count("error:") == 1, errors
        assert "Traceback" not in errors
        assert sorted(path.name for path in here.iterdir()) == sorted(leaves)
        return errors[errors.index("error:") :]

    return call


@pytest.fixture
def changed(devkit: Path, tmp_path: Path) -> Callable[..., Path]:
    """A config file with something replaced."""
    return lambda *changes: write_config(tmp_path / "mine.py", devkit, *changes)


def names(message: str, *parts: str) -> None:
    missing = [part for part in parts if part not in message]
    assert not missing, f"{missing} not in: {message}"


# The config


def test_config_path_mistyped(refused: Callable[..., str], tiny_config_file: Path) -> None:
    message = refused("train_det", tiny_config_file.with_name("tinny.py"))
    names(message, "tinny.py", "did you mean", str(tiny_config_file))


def test_config_is_a_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    names(refused("train_det", tmp_path), "no config file", str(tmp_path))


def test_top_level_name_misspelt(refused: Callable[..., str], changed: Callable[..., Path]) -> None:
    message = refused("train_det", changed(("augment = dict", "augmentation = dict")))
    names(message, "mine.py", "'augmentation'", "did you mean 'augment'?", "missing 'augment'")


def test_python_error_in_the_config(refused: Callable[..., str], changed: Callable[..., Path]) -> None:
    message = refused("train_det", changed(("label_smoothing=0.0", "label_smoothing=0.0 eps=1")))
    names(message, "mine.py", "SyntaxError", "line 2")


def test_class_that_does_not_exist(refused: Callable[..., str], changed: Callable[..., Path]) -> None:
    path = changed(("import SGD", "import SGDD"), ("type=SGD", "type=SGDD"))
    names(refused("train_det", path), "SGDD", "did you mean 'SGD'?")


def test_argument_misspelt(refused: Callable[..., str], changed: Callable[..., Path]) -> None:
    message = refused("train_det", changed(("head_width=32", "head_widht=32")))
    names(message, "model: faster_rcnn_fpn takes no 'head_widht'", "did you mean 'head_width'?")


def test_argument_misspelt_deep_inside(refused: Callable[..., str], changed: Callable[..., Path]) -> None:
    message = refused("train_det", changed(("label_smoothing", "label_smoothin")))
    names(message, "criterion.box: BoxCriterion takes no 'label_smoothin'", "did you mean 'label_smoothing'?")


def test_settings_misspelt(refused: Callable[..., str], changed: Callable[..., Path]) -> None:
    message = refused("train_det", changed(("log_every", "log_evry")))
    names(message, "training: TrainingSettings takes no 'log_evry'", "'log_every'")
    message = refused("train_det", changed(("workers", "worker")))
    names(message, "loader: LoaderSettings takes no 'worker'", "'workers'")


def test_pipeline_misspelt(refused: Callable[..., str], changed: Callable[..., Path]) -> None:
    message = refused("train_det", changed(("augment = dict(train=", "augment = dict(trian=")))
    names(message, "augment has 'trian', 'test'", "give train and test")


def test_override_key_misspelt(refused: Callable[..., str], tiny_config_file: Path) -> None:
    message = refused("train_det", tiny_config_file, "--cfg-options", "optimizer.ler=0.1")
    names(message, "'optimizer.ler'", "did you mean 'lr'?")
    message = refused("train_det", tiny_config_file, "--cfg-options", "optimizer.lr")
    names(message, "'optimizer.lr'", "key.subkey=value")


def test_override_makes_a_section_something_else(refused: Callable[..., str], tiny_config_file: Path) -> None:
    names(refused("train_det", tiny_config_file, "--cfg-options", "loader=8"), "loader is 8", "dict", "batch size")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optimizer.lr=-0.1", ["lr is -0.1", "above 0"]),
        ("optimizer.lr=1e-4x", ["lr is '1e-4x'", "give a number above 0"]),
        ("training.accumulate=3", ["batch_size=2", "accumulate=3", "multiple"]),
        ("schedule.iterations=50", ["WarmUp: 50 iterations", "8 iterations", "shorten the warm-up", "training.epochs"]),
        ("training.epochs=-1", ["epochs=-1", "above 0"]),
        ("training.ema=True", ["ema=True", "None or a dict"]),
        ("training.ema={'deacy': 0.9}", ["training.ema", "'deacy'", "'decay'"]),
        ("training.precision=float61", ["float61", "float16"]),
        ("loader.batch_size=0", ["batch_size=0", "above 0"]),
        ("loader.on_broken=ignore", ["on_broken='ignore'", "'stop' or 'skip'"]),
        (
            "loader.mixup={'type': 'transfer.augment.box_mixup.BoxMixup', 'last_epochs_without': 2}",
            ["loader.mixup.last_epochs_without=2", "2 epochs", "8 iterations", "never", "train longer"],
        ),
        (
            "loader.mixup={'type': 'transfer.augment.box_mixup.BoxMixup', 'off_epochs': 2}",
            ["loader.mixup: BoxMixup takes no 'off_epochs'"],
        ),
        (
            "loader.mixup={'type': 'transfer.augment.box_mixup.BoxMixup', 'alpha': -1.5}",
            ["BoxMixup: alpha=-1.5", "above 0"],
        ),
        ("loader.mixup=1.5", ["loader.mixup=1.5", "dict(type=BoxMixup"]),
        ("model.backbone.name=resnet50x", ["'resnet50x'", "did you mean", "'resnet50"]),
        ("model.backbone.weights=weights/none.pth", ["weights/none.pth"]),
        ("model.backbone.norm=frosen", ["norm='frosen'", "frozen"]),
        ("metrics.0.protocol=voc07", ["voc07", "voc07_11point"]),
        (
            "metrics=[{'type': 'transfer.metrics.mean_iou.MeanIoU'}]",
            ["metrics.0: MeanIoU measures segmentation", "VOCMeanAP"],
        ),
        ("metrics=[{'type': 'transfer.optim.schedules.Constant'}]", ["metrics.0: Constant is no metric"]),
        ("metrics=[]", ["metrics=[] must be a list of at least one"]),
        ("metrics=[{}]", ["metrics.0: dict is no metric"]),
        (
            "data.train.splits=trian",
            ["split 'trian'", "Splits that exist: 2007_test, 2007_train, 2007_trainval, 2007_val"],
        ),
        ("data.val=1.5", ["1.5", "between 0 and 1"]),
        ("data.val=val", ["data.val='val'", "dict(type=..., ...)"]),
        ("augment.train.size=-3", ["-3"]),
        ("model.proposals=200", ["proposals=200", "(training, test)"]),
        ("model.rois=0", ["rois=0", "above 0"]),
        ("model.width=0", ["width=0", "above 0"]),
        ("model.difficult=train", ["model.difficult='train'", "criterion.rpn.difficult='ignore'"]),
        ("criterion.rpn.low=0.9", ["low=0.9", "high=0.7"]),
        ("postprocess.score_threshold=2", ["score_threshold=2", "[0, 1]"]),
        ("model.backbone.model_options={'pretrained': True}", ["pretrained", "weights=..."]),
    ],
)
def test_values_that_do_not_fit(
    refused: Callable[..., str], tiny_config_file: Path, override: str, parts: list[str]
) -> None:
    names(refused("train_det", tiny_config_file, "--device", "cpu", "--cfg-options", override), *parts)


# The data


def test_data_folder_that_is_not_there(refused: Callable[..., str], tiny_config_file: Path) -> None:
    names(refused("train_det", tiny_config_file, "--data", "my/dta"), "my/dta", "no such folder")


def test_data_folder_of_another_kind(refused: Callable[..., str], tiny_config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    message = refused("train_det", tiny_config_file, "--data", tmp_path / "photos")
    names(message, "photos", "no VOC data", "expected VOCdevkit/VOC2007", "XMLFolderDataset")


def test_class_name_that_is_not_in_class_names(refused: Callable[..., str], changed: Callable[..., Path]) -> None:
    message = refused(
        "train_det", changed(('splits="train")', 'splits="train", class_names=["blue", "green", "redd"])'))
    )
    names(message, "'red'", "nearest known name 'redd'", "rename={'red': 'redd'}", ".xml")


def test_test_data_of_other_classes(refused: Callable[..., str], changed: Callable[..., Path]) -> None:
    message = refused("train_det", changed(('splits="train")', 'splits="train", rename={"red": "rot"})')))
    names(message, "(test)", "'red'", "not in class_names (blue, green, rot)", "rename=")


def test_a_mistake_in_the_test_data_shows_before_training(refused: Callable[..., str], tiny_config_file: Path) -> None:
    options = ("data.val=0.25", "data.test.splits=tset")
    names(refused("train_det", tiny_config_file, "--device", "cpu", "--cfg-options", *options), "tset", "test")


def test_one_folder_for_data_that_keep_training_and_test_apart(
    refused: Callable[..., str], repository: Path, devkit: Path
) -> None:
    message = refused("train_det", repository / "configs" / "xml_folder_frcnn_lite0.py", "--data", devkit)
    names(message, str(devkit), "data.train.root", "data.test.root")


def test_split_without_images(
    refused: Callable[..., str], tiny_config_file: Path, devkit: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    shutil.copytree(devkit, empty)
    (empty / "VOC2007" / "ImageSets" / "Main" / "train.txt").write_text("\n", encoding="utf-8")
    names(refused("train_det", tiny_config_file, "--data", empty), "train.txt", "names no images")


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image(
    refused: Callable[..., str], tiny_config_file: Path, devkit: Path, tmp_path: Path, workers: int
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(devkit, broken)
    for index in range(8):
        (broken / "VOC2007" / "JPEGImages" / f"{index:06d}.jpg").write_bytes(b"\xff\xd8\xff not a photograph")
    options = ("--cfg-options", f"loader.workers={workers}", "--device", "cpu")
    message = refused("train_det", tiny_config_file, "--data", broken, *options, leaves=("runs",))
    names(message, ".jpg", "no image in a known format", "Mend or remove", "on_broken")


def test_broken_annotation(refused: Callable[..., str], tiny_config_file: Path, devkit: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(devkit, broken)
    for index in (2, 5):
        (broken / "VOC2007" / "Annotations" / f"{index:06d}.xml").write_text("<annotation>", encoding="utf-8")
    names(refused("train_det", tiny_config_file, "--data", broken), "2 unusable", "000002.xml", "000005.xml", "Mend")


# Resuming, devices


def test_resume_without_a_run(refused: Callable[..., str], tiny_config_file: Path) -> None:
    message = refused("train_det", tiny_config_file, "--resume")
    names(message, "--resume: no run with a last.pth", "runs", "start without --resume")


def test_resume_with_a_changed_config(refused: Callable[..., str], tiny_config_file: Path, finished_run: Path) -> None:
    options = ("--resume", finished_run / "last.pth", "--seed", "7", "--cfg-options", "optimizer.lr=0.5")
    message = refused("train_det", tiny_config_file, *options)
    names(message, "last.pth", "optimizer.lr", "training.seed", "Start a new run, or undo that")


def test_resume_path_mistyped(refused: Callable[..., str], tiny_config_file: Path, finished_run: Path) -> None:
    message = refused("train_det", tiny_config_file, "--resume", finished_run / "lst.pth")
    names(message, "lst.pth", "did you mean", "last.pth")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_not_there(refused: Callable[..., str], tiny_config_file: Path, finished_run: Path) -> None:
    for command in (
        ("train_det", tiny_config_file),
        ("evaluate", finished_run / "last.pth"),
        ("predict", finished_run / "last.pth", finished_run / "predictions.jpg"),
    ):
        names(refused(*command, "--device", "cuda"), "--device 'cuda'", "0 CUDA devices", "give cpu")


# Checkpoints and pictures


@pytest.mark.parametrize("tool", ["evaluate", "predict"])
def test_checkpoint_path_mistyped(refused: Callable[..., str], finished_run: Path, tool: str) -> None:
    pictures = (finished_run / "predictions.jpg",) if tool == "predict" else ()
    message = refused(tool, finished_run / "lsat.pth", *pictures)
    names(message, "lsat.pth", "did you mean", "last.pth")
    names(refused(tool, finished_run / "config.json", *pictures), "config.json", "is no checkpoint", "last.pth")


def test_weights_in_place_of_a_checkpoint(refused: Callable[..., str], finished_run: Path, tmp_path: Path) -> None:
    torch.save(load_checkpoint(finished_run / "last.pth")["model"], tmp_path / "resnet.pth")
    message = refused("evaluate", tmp_path / "resnet.pth")
    names(message, "resnet.pth", "not a checkpoint of this project", "model.backbone.weights")


def test_evaluating_data_that_is_not_there(refused: Callable[..., str], finished_run: Path) -> None:
    names(refused("evaluate", finished_run / "last.pth", "--data", "my/dta"), "--data 'my/dta'", "no such folder")
    names(refused("evaluate", finished_run / "last.pth", "--split", "val"), "--split val", "no data.val")


def test_evaluating_data_of_other_classes(
    refused: Callable[..., str], changed: Callable[..., Path], finished_run: Path
) -> None:
    path = changed(('splits="test")', 'splits="test", rename={"red": "rot"})'))
    names(refused("evaluate", finished_run / "last.pth", "--data", path), "'rot'", "blue, green, red")


def test_output_that_cannot_be_a_folder(refused: Callable[..., str], finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for command in (
        ("evaluate", finished_run / "last.pth"),
        ("predict", finished_run / "last.pth", finished_run / "predictions.jpg"),
    ):
        names(refused(*command, "--output", tmp_path / "file"), "--output", "file", "give another folder")


def test_predicting_without_pictures(refused: Callable[..., str], finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refused("predict", finished_run / "last.pth", tmp_path / "empty")
    names(message, "empty", "a folder without images", ".jpg, .jpeg, .png")
    message = refused("predict", finished_run / "last.pth", tmp_path / "photo*.jpg")
    names(message, "photo*.jpg", "neither a file nor a folder nor a glob")


def test_predicting_what_is_no_picture(refused: Callable[..., str], finished_run: Path) -> None:
    message = refused("predict", finished_run / "last.pth", finished_run / "log.txt", leaves=("predictions",))
    names(message, "none of the 1 files could be read as an image")


@pytest.mark.parametrize("score", ["-0.1", "1.5", "30"])
def test_score_out_of_range(refused: Callable[..., str], finished_run: Path, score: str) -> None:
    picture = finished_run / "predictions.jpg"
    names(
        refused("predict", finished_run / "last.pth", picture, f"--score={score}"), f"--score {float(score)}", "0 to 1"
    )


# The command line itself


@pytest.mark.parametrize("tool", ["train_det", "evaluate", "predict"])
def test_help_and_missing_arguments(run_tool: Tool, tool: str) -> None:
    code, _ = run_tool(tool, "--help")
    assert code == 0
    code, errors = run_tool(tool)
    assert code == 2
    assert "required" in errors
    code, errors = run_tool(tool, "x", "--no-such-option")
    assert code == 2
    assert "--no-such-option" in errors or "required" in errors
