"""Four images learnt by heart, with each box loss, to a mean average precision of 1."""

from __future__ import annotations

import math

import pytest
import torch
from detector_builders import TinyBackbone, make_target, noise_images
from torch import Tensor, nn

from transfer.heads.yolov3 import yolov3
from transfer.heads.yolov3_criterion import BOX_LOSSES, YOLOv3Criterion
from transfer.heads.yolov3_postprocess import YOLOv3Postprocess
from transfer.metrics.voc_map import VOCMeanAP
from transfer.types import Record, Target

SIZE = (64, 64)
ANCHORS = [[[10, 10], [16, 12]], [[24, 16], [16, 24]], [[30, 30], [40, 36]]]


def drawn_images() -> tuple[Tensor, list[Target]]:
    """Four images with a red, a green or a blue rectangle for each class."""
    images = torch.full((4, 3, *SIZE), 110, dtype=torch.uint8) + noise_images(4, SIZE) // 16
    contents = [
        ([[4, 6, 26, 22], [34, 30, 62, 60]], [0, 1]),
        ([[10, 20, 34, 52], [44, 4, 56, 16]], [2, 0]),
        ([[20, 24, 58, 62]], [1]),
        ([[2, 2, 20, 26], [28, 8, 44, 20], [30, 34, 60, 58]], [1, 2, 0]),
    ]
    targets = []
    for image, (boxes, labels) in zip(images, contents):
        for (x0, y0, x1, y1), label in zip(boxes, labels):
            image[:, y0:y1, x0:x1] = 20
            image[label, y0:y1, x0:x1] = 235
        targets.append(make_target(boxes, labels, size=SIZE))
    return images, targets


@pytest.mark.slow
@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_four_images_are_learnt_by_heart(box_loss: str) -> None:
    torch.manual_seed(0)
    images, targets = drawn_images()
    model = yolov3(TinyBackbone(), 3, width=0.1, norm="group", anchors=ANCHORS)
    criterion = YOLOv3Criterion(box_loss=box_loss, box_weight=1.0 if box_loss == "paper" else 3.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    steps = 60
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / steps))
        losses = criterion(model(images, [SIZE] * 4, targets), targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    model.eval()
    with torch.no_grad():
        predictions = YOLOv3Postprocess()(model(images, [SIZE] * 4), targets)
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
    assert result.values["mAP50"] == 1.0, {name: loss.item() for name, loss in losses.items()}
