"""Two drawn images, a short training on them, and how well they were learnt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detector_builders import make_target, noise_images
from torch import Tensor, nn

from transfer.heads.faster_rcnn import FasterRCNNPostprocess
from transfer.metrics.voc_map import VOCMeanAP
from transfer.types import Record, Size, Target

SIZE: Size = (96, 128)


def drawn_images() -> tuple[Tensor, list[Target]]:
    """Two images with framed rectangles, red, green or blue for the three classes."""
    images = torch.full((2, 3, *SIZE), 110, dtype=torch.uint8)
    images += noise_images(2, SIZE) // 16
    contents = [
        ([[8, 10, 48, 50], [64, 6, 124, 54], [70, 60, 100, 90]], [0, 1, 2]),
        ([[20, 30, 60, 70], [84, 8, 116, 40]], [2, 0]),
    ]
    targets = []
    for image, (boxes, labels) in enumerate(contents):
        for (x0, y0, x1, y1), label in zip(boxes, labels):
            images[image, :, y0:y1, x0:x1] = 235
            images[image, :, y0 + 4 : y1 - 4, x0 + 4 : x1 - 4] = 20
            images[image, label, y0 + 4 : y1 - 4, x0 + 4 : x1 - 4] = 235
        targets.append(make_target(boxes, labels, size=SIZE))
    return images, targets


def train_on(
    model: nn.Module, criterion: Any, images: Tensor, targets: Sequence[Target], *, steps: int, lr: float
) -> dict[str, float]:
    """Train in place: AdamW, a short warm-up, a cosine. Returns the last losses."""
    model.train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=lr)
    losses: dict[str, Tensor] = {}
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for image, target in enumerate(targets):
            target.seed = len(targets) * step + image
        losses = criterion(model(images, [target.size for target in targets], targets), targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    return {name: loss.item() for name, loss in losses.items()}


def measured(model: nn.Module, images: Tensor, targets: Sequence[Target], **options: Any) -> float:
    """mAP at IoU 0.5 of the model in eval mode on these images."""
    model.eval()
    with torch.no_grad():
        output = model(images, [target.size for target in targets])
        predictions = FasterRCNNPostprocess(**options)(output, targets)
    records = [
        Record(
            path="image.jpg",
            image_id=image,
            size=target.size,
            boxes=target.boxes.numpy(),
            labels=target.labels.numpy(),
            difficult=target.difficult.numpy(),
            crowd=target.difficult.numpy(),
            areas=target.boxes[:, 0].numpy(),
        )
        for image, target in enumerate(targets)
    ]
    result = VOCMeanAP(protocol="voc_area").evaluate(records, predictions, ["red", "green", "blue"], [1, 2, 3])
    return result.values["mAP50"]
