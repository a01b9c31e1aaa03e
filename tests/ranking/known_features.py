"""A backbone whose features are known functions of the pixels, and images and batches to go with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.types import Batch, Size, Target


class Averages(Backbone):
    """The mean colour, 0..255, of each 4x4 and of each 8x8 pixels; counts how often it is run."""

    def __init__(self) -> None:
        # The backbone divides by 255; `features` takes that back.
        super().__init__((3, 3), (4, 8), name="averages", mean=(0.0,) * 3, std=(1.0,) * 3)
        self.dropout = nn.Dropout(0.5)  # would tell whether it is in eval mode
        self.runs = 0

    def features(self, images: Tensor) -> list[Tensor]:
        self.runs += 1
        images = self.dropout(255 * images)
        return [F.avg_pool2d(images, 4), F.avg_pool2d(images, 8)]


def small_head(classes: int) -> nn.Linear:
    """A source head on such features whose softmax is far from 0 and 1."""
    head = nn.Linear(3, classes)
    nn.init.normal_(head.weight, std=0.01, generator=torch.Generator().manual_seed(0))
    return head


def ramp(size: Size, *, blue: int = 0) -> Tensor:
    """[3, H, W] uint8: red is a pixel's x, green its y. A mean over a region is its centre less half a pixel."""
    y, x = np.mgrid[: size[0], : size[1]]
    return torch.from_numpy(np.stack([x, y, np.full_like(x, blue)]).astype(np.uint8))


def target(
    index: int,
    size: Size,
    *,
    boxes: Sequence[Sequence[float]] = (),
    labels: Sequence[int] = (),
    difficult: Sequence[bool] | None = None,
    mask: np.ndarray | None = None,
    classes: Sequence[int] | None = None,
) -> Target:
    """The truth of an image."""
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        difficult=torch.tensor(difficult or [False] * len(boxes), dtype=torch.bool),
        weights=torch.ones(len(boxes)),
        size=size,
        index=index,
        image_id=index,
        path=f"image_{index}.jpg",
        original_size=size if mask is None else (mask.shape[0], mask.shape[1]),
        scale=(1.0, 1.0),
        mask=None if mask is None else torch.from_numpy(mask),
        classes=None if classes is None else torch.tensor(classes),
    )


def batches_of(images: Sequence[Tensor], targets: Sequence[Target], size: int) -> list[Batch]:
    """Batches of so many images, padded with black."""
    batches = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        height, width = (max(image.shape[side] for image in part) for side in (1, 2))
        padded = [F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in part]
        batches.append(Batch(torch.stack(padded), list(targets[start : start + size])))
    return batches
