"""tools/fit_anchors.py: its figures on known boxes, its verdict, its line for the config, and mistakes."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Tool = Callable[..., tuple[int, str]]

CONFIG = '''"""A tiny YOLOv3."""

from backbones.timm_backbone import TimmBackbone
from transfer.augment.presets import square_test, square_train
from transfer.data.voc import XMLFolderDataset
from transfer.heads.yolov3 import yolov3
from transfer.heads.yolov3_criterion import YOLOv3Criterion
from transfer.heads.yolov3_postprocess import YOLOv3Postprocess
from transfer.metrics.voc_map import VOCMeanAP
from transfer.optim.optimizers import AdamW
from transfer.optim.schedules import Cosine

model = dict(type=yolov3, backbone=dict(type=TimmBackbone, name="test_resnet", weights=None), width=0.1)
criterion = dict(type=YOLOv3Criterion)
postprocess = dict(type=YOLOv3Postprocess)
data = dict(train=dict(type=XMLFolderDataset, root="ROOT"), val=None, test=dict(type=XMLFolderDataset, root="ROOT"))
augment = dict(train=dict(type=square_train, size=64), test=dict(type=square_test, size=200))
loader = dict(batch_size=2)
optimizer = dict(type=AdamW, lr=1e-3, base_batch=2)
schedule = dict(type=Cosine)
training = dict(epochs=1)
metrics = [dict(type=VOCMeanAP, protocol="voc_area")]
'''


def write_folder(folder: Path, boxes: list[list[tuple[int, int]]], *, size: tuple[int, int] = (200, 400)) -> Path:
    """Images of `size` (height, width) with VOC XML beside them, one for each list of (width, height)."""
    folder.mkdir()
    for number, shapes in enumerate(boxes):
        Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(folder / f"{number:03d}.jpg")
        objects = "".join(
            f"<object><name>thing</name><difficult>{int(number % 2 and index == 2)}</difficult><bndbox><xmin>1</xmin>"
            f"<ymin>1</ymin><xmax>{width}</xmax><ymax>{height}</ymax></bndbox></object>"
            for index, (width, height) in enumerate(shapes)
        )
        (folder / f"{number:03d}.xml").write_text(
            f"<annotation><filename>{number:03d}.jpg</filename><size><width>{size[1]}</width><height>{size[0]}</height>"
            f"<depth>3</depth></size>{objects}</annotation>",
            encoding="utf-8",
        )
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config on 20 images of 400 x 200 px, each with a box of 40 x 40, of 160 x 100 and of 320 x 180."""
    folder = tmp_path_factory.mktemp("fit")
    rng = np.random.default_rng(0)
    shapes = [
        [(w + int(rng.integers(-2, 3)), h + int(rng.integers(-2, 3))) for w, h in ((40, 40), (160, 100), (320, 180))]
        for _ in range(20)
    ]
    root = write_folder(folder / "images", shapes)
    path = folder / "own.py"
    path.write_text(CONFIG.replace("ROOT", root.as_posix()), encoding="utf-8")
    return path


def figures(text: str) -> dict[str, tuple[float, float]]:
    """Mean best IoU and percentage of each row."""
    rows = re.findall(r"^(.+?)\s+(\d\.\d{3})\s+(\d+\.\d) %$", text, flags=re.MULTILINE)
    return {name: (float(iou), float(share)) for name, iou, share in rows}


def fitted_line(text: str) -> Any:
    (line,) = re.findall(r"^model\.update\(anchors=(.*)\)$", text, flags=re.MULTILINE)
    return ast.literal_eval(line)


def test_known_boxes_are_found_at_the_test_size(run_tool: Tool, config: Path) -> None:
    code, text = run_tool("fit_anchors", config, "--anchors", "3")
    assert code == 0
    assert "50 boxes on 20 images, 10 difficult ones left out" in text
    # Squashed from 400 x 200 to 200 x 200: half as wide.
    (small,), (middle,), (large,) = fitted_line(text)
    assert small == pytest.approx([20, 40], abs=2)
    assert middle == pytest.approx([80, 100], abs=2)
    assert large == pytest.approx([160, 180], abs=2)
    rows = figures(text)
    assert list(rows) == ["the config's 9 anchors", "3 fitted ones, same boxes", "3 fitted ones, on other images"]
    # By hand, up to 2 px: 20x40 with 16x30 480 / 800, 80x100 with 59x119 5900 / 9121, 160x180 with 156x198 28080 /
    # 31608.
    expected = (20 * 0.6 + 20 * 5900 / 9121 + 10 * 28080 / 31608) / 50
    assert rows["the config's 9 anchors"][0] == pytest.approx(expected, abs=0.02)
    assert rows["3 fitted ones, on other images"][0] > 0.93
    assert rows["3 fitted ones, on other images"][1] == 100
    assert "\nswitch: the whole interval is above 0.02" in text


def test_fitted_anchors_are_not_to_be_switched_again(run_tool: Tool, config: Path) -> None:
    _, text = run_tool("fit_anchors", config, "--anchors", "3")
    with_fitted = config.with_name("with_fitted.py")
    line = re.search(r"^model\.update.*$", text, flags=re.MULTILINE)
    assert line is not None
    with_fitted.write_text(config.read_text(encoding="utf-8") + line.group() + "\n", encoding="utf-8")
    code, text = run_tool("fit_anchors", with_fitted)
    assert code == 0
    assert "the config's 3 anchors" in text
    assert "\nkeep the config's anchors: not the whole interval is above 0.02" in text
    rows = figures(text)
    assert rows["the config's 3 anchors"] == rows["3 fitted ones, same boxes"]


def test_size_and_difficult_boxes_follow_the_options(run_tool: Tool, config: Path) -> None:
    code, text = run_tool(
        "fit_anchors", config, "--anchors", "3", "--size", "100", "--cfg-options", "criterion.difficult=train"
    )
    assert code == 0
    assert "60 boxes on 20 images, 0 difficult ones left out" in text
    assert fitted_line(text)[2][0] == pytest.approx([80, 90], abs=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--anchors", "4"], "--anchors 4: give a multiple of 3"),
        (["--data", "nowhere"], "nowhere"),
        (["--cfg-options", "model.anchor=3"], "did you mean 'anchors'?"),
        (["--cfg-options", "model.anchors=[[10,13]]"], "anchors of level 0 are"),
        (["--anchors", "300"], "300 anchors cannot be fitted to 50 boxes"),
    ],
)
def test_mistakes_end_in_a_message(run_tool: Tool, config: Path, arguments: list[str], message: str) -> None:
    code, text = run_tool("fit_anchors", config, *arguments)
    assert code == 2
    assert message in text
    assert "Traceback" not in text


def test_a_data_set_without_boxes(run_tool: Tool, config: Path, tmp_path: Path) -> None:
    empty = write_folder(tmp_path / "empty", [[], []])
    code, text = run_tool("fit_anchors", config, "--data", empty, "--cfg-options", "data.train.class_names=['thing']")
    assert code == 2
    assert "data.train has no box to fit anchors to" in text


def test_a_config_of_another_detector(run_tool: Tool, tiny_config_file: Path) -> None:
    code, text = run_tool("fit_anchors", tiny_config_file)
    assert code == 2
    assert "faster_rcnn_fpn' takes no anchors" in text
