"""Four images learnt by heart, to a mean average precision of 1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from detector_builders import TinyBackbone
from learning_by_heart import SIZE, drawn_images, train_on
from torch import Tensor

from transfer.heads.ssd import ssd
from transfer.heads.ssd_criterion import SSDCriterion
from transfer.heads.ssd_postprocess import SSDPostprocess
from transfer.metrics.voc_map import VOCMeanAP
from transfer.types import Record, Target


def four_images() -> tuple[Tensor, list[Target]]:
    """The two drawn images and their mirror images."""
    images, targets = drawn_images()
    mirrored = []
    for target in targets:
        boxes = target.boxes.clone()
        boxes[:, [0, 2]] = SIZE[1] - target.boxes[:, [2, 0]]
        mirrored.append(replace(target, boxes=boxes))
    return torch.cat([images, images.flip(3)]), [*targets, *mirrored]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "smoothing"),
    [({"l2_norm": "all", "head_std": 0.001}, 0.0), ({"l2_norm": "all", "head_std": 0.001}, 0.1), ({}, 0.0)],
    ids=["light", "smoothed", "paper"],
)
def test_four_images_are_learnt_by_heart(options: dict[str, Any], smoothing: float) -> None:
    torch.manual_seed(0)
    images, targets = four_images()
    model = ssd(TinyBackbone(), 3, image_size=112, aspect_ratios=[[2], [2, 3], [2], [2]], extra_widths=[32], **options)
    criterion = SSDCriterion(label_smoothing=smoothing)
    losses = train_on(model, criterion, images, targets, steps=100, lr=5e-3)
    model.eval()
    with torch.no_grad():
        predictions = SSDPostprocess()(model(images, [SIZE] * 4), targets)
    records = [
        Record(
            path="image.jpg",
            image_id=image,
            size=SIZE,
            boxes=target.boxes.numpy(),
            labels=target.labels.numpy(),
            difficult=target.difficult.numpy(),
            crowd=target.difficult.numpy(),
            areas=target.boxes[:, 0].numpy(),
        )
        for image, target in enumerate(targets)
    ]
    result = VOCMeanAP(protocol="voc_area").evaluate(records, predictions, ["red", "green", "blue"], [1, 2, 3])
    assert result.values["mAP50"] == 1.0, losses
