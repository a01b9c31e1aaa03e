"""Checkpoints of tiny networks with random weights, whose heads tell things apart as trained ones do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from whole_checkpoint import whole_checkpoint

from transfer.assemble import build_task
from transfer.engine.checkpoint import save_checkpoint

_HEADS, _AUGMENT = "transfer.heads", "transfer.augment"


def config_of(task: str, root: Path) -> dict[str, Any]:
    """A config of "classification", "segmentation" or "detection" (YOLOv3); its data are below `root`."""
    backbone = {"type": "backbones.timm_backbone.TimmBackbone", "name": "test_resnet", "weights": None}
    pixels = {"type": "transfer.data.mask_folder.MaskFolderDataset", "root": str(root)}
    pixels["classes"] = ["ground", "round", "square"]  # type: ignore[assignment]
    common: dict[str, Any] = {
        "task": task,
        "criterion": {},
        "loader": {"batch_size": 2, "test_batch_size": 2, "workers": 0},
        "optimizer": {},
        "schedule": {},
        "training": {"epochs": 1},
        "data": {
            "train": {**pixels, "images": "train", "masks": "trainannot"},
            "val": None,
            "test": {**pixels, "images": "test", "masks": "testannot"},
        },
    }
    if task == "segmentation":
        return {
            **common,
            "model": {"type": f"{_HEADS}.fcn.fcn", "backbone": {**backbone, "output_stride": 16}, "width": 16},
            "criterion": {"type": f"{_HEADS}.segmentation.SegmentationCriterion"},
            "postprocess": {"type": f"{_HEADS}.segmentation.SegmentationPostprocess"},
            "augment": {"train": {}, "test": {"type": f"{_AUGMENT}.presets.segmentation_test"}},
            "metrics": [{"type": "transfer.metrics.mean_iou.MeanIoU"}],
        }
    if task == "classification":
        backbone = {**backbone, "type": "backbones.classifier_backbone.ClassifierBackbone"}
        return {
            **common,
            "model": {"type": f"{_HEADS}.classification.classifier", "backbone": backbone},
            "criterion": {"type": f"{_HEADS}.classification_criterion.ClassificationCriterion"},
            "postprocess": {"type": f"{_HEADS}.classification.ClassificationPostprocess"},
            "augment": {
                "train": {},
                "test": {"type": f"{_AUGMENT}.classification_presets.classification_test", "size": 64},
            },
            "metrics": [{"type": "transfer.metrics.accuracy.Accuracy"}],
        }
    return {
        **common,
        "model": {"type": f"{_HEADS}.yolov3.yolov3", "backbone": backbone, "width": 0.125, "depth": 1},
        "criterion": {"type": f"{_HEADS}.yolov3_criterion.YOLOv3Criterion"},
        "postprocess": {"type": f"{_HEADS}.yolov3_postprocess.YOLOv3Postprocess", "score_threshold": 0.3},
        "augment": {"train": {}, "test": {"type": f"{_AUGMENT}.presets.square_test", "size": 96}},
        "metrics": [{"type": "transfer.metrics.voc_map.VOCMeanAP"}],
    }


def sharpen(model: nn.Module) -> None:
    """Spread what the last layers say, so that no two scores are equal but for rounding."""
    model.eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                module.weight.normal_(std=2.0 / module.weight[0].numel() ** 0.5)
                module.bias.normal_()


def write_checkpoint(path: Path, task: str, root: Path) -> Path:
    """Write the checkpoint of a tiny network of this task."""
    config = config_of(task, root)
    torch.manual_seed(0)
    built = build_task(config, 3)
    sharpen(built.model)
    checkpoint = whole_checkpoint() | {
        "model": built.model.state_dict(),
        "config": json.dumps(config),
        "class_names": ["ground", "round", "square"],
        "category_ids": [1, 2, 3] if task == "detection" else [],
        "backbone": built.model.backbone.describe(),
    }
    save_checkpoint(path, checkpoint)
    return path
