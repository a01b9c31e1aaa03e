"""A detector small enough to test, and short ways to write targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.heads.faster_rcnn import FasterRCNN, faster_rcnn_fpn
from transfer.types import Size, Target


class TinyBackbone(Backbone):
    """One convolution a level, of strides 4 to 32, with group norm: nothing in it depends on the batch."""

    def __init__(self, channels: Sequence[int] = (8, 12, 16, 16)) -> None:
        super().__init__(channels, (4, 8, 16, 32), name="tiny", mean=(0.5,) * 3, std=(0.25,) * 3)
        inputs, steps = (3, *channels[:-1]), (4, 2, 2, 2)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 2 * step - 1, stride=step, padding=step - 1), nn.GroupNorm(4, after), nn.ReLU()
            )
            for before, after, step in zip(inputs, channels, steps)
        )

    def features(self, images: Tensor) -> list[Tensor]:
        maps = []
        for level in self.levels:
            images = level(images)
            maps.append(images)
        return maps


def tiny_detector(num_classes: int = 3, *, seed: int = 0, **options: Any) -> FasterRCNN:
    """A detector with random weights, the same for the same seed."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "width": 16,
        "head_width": 32,
        "anchor_scales": (4.0,),
        "proposals_before_nms": (200, 100),
        "proposals": (100, 50),
        "rois": 16,
        "roi_cells": 3,
    }
    return faster_rcnn_fpn(TinyBackbone(), num_classes, **{**settings, **options})


def make_target(
    boxes: Any = (),
    labels: Sequence[int] = (),
    *,
    weights: Sequence[float] | None = None,
    difficult: Sequence[bool] | None = None,
    size: Size = (96, 128),
    original_size: Size | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
    seed: int = 0,
) -> Target:
    """A target from plain lists: weights 1, nothing difficult, unless said otherwise."""
    count = len(labels)
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        difficult=torch.tensor(difficult if difficult is not None else [False] * count, dtype=torch.bool),
        weights=torch.tensor(weights if weights is not None else [1.0] * count, dtype=torch.float32),
        size=size,
        index=0,
        image_id="image",
        path="image.jpg",
        original_size=original_size or size,
        scale=scale,
        seed=seed,
    )


def noise_images(count: int, size: Size = (96, 128), seed: int = 0) -> Tensor:
    """[count, 3, H, W] uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)
