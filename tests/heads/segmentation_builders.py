"""Small segmentation targets, four drawn images, and how well they were learnt."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detector_builders import make_target, noise_images
from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.heads.segmentation import SegmentationCriterion, SegmentationPostprocess
from transfer.types import LabelMap, Size, Target


class StagedBackbone(Backbone):
    """One convolution with group norm a level: rounds sizes up, as ResNet does; nothing in it depends on the batch."""

    def __init__(self, strides: Sequence[int] = (4, 8, 16, 32), channels: Sequence[int] = (16, 16, 32, 32)) -> None:
        super().__init__(channels, strides, name="staged", mean=(0.5,) * 3, std=(0.25,) * 3)
        self.stages = nn.ModuleList()
        inputs, reached = 3, 1
        for outputs, stride in zip(channels, strides, strict=True):
            step, reached = stride // reached, stride
            kernel = 2 * step + 1
            self.stages.append(
                nn.Sequential(
                    nn.Conv2d(inputs, outputs, kernel, stride=step, padding=kernel // 2),
                    nn.GroupNorm(4, outputs),
                    nn.ReLU(),
                )
            )
            inputs = outputs

    def features(self, images: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps


def mask_target(
    mask: Tensor,
    *,
    size: Size | None = None,
    original_size: Size | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
) -> Target:
    """A target with this mask and no boxes."""
    target = make_target(size=size or tuple(mask.shape), original_size=original_size, scale=scale)
    target.mask = mask.to(torch.uint8)
    return target


def drawn_scenes(count: int = 4, size: Size = (64, 96)) -> tuple[Tensor, list[Target]]:
    """Images with a red disc (class 1), a blue bar (class 2) and an ignored seam around the disc."""
    generator = torch.Generator().manual_seed(1)
    images = torch.full((count, 3, *size), 110, dtype=torch.uint8) + noise_images(count, size) // 16
    rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    targets = []
    for image in images:
        y, x = (int(torch.randint(20, side - 20, (), generator=generator)) for side in size)
        distance = ((rows - y) ** 2 + (columns - x) ** 2).float().sqrt()
        left = int(torch.randint(0, size[1] - 30, (), generator=generator))
        bar = (columns >= left) & (columns < left + 24) & (rows >= size[0] - 14)
        mask = torch.zeros(size, dtype=torch.uint8)
        mask[bar.expand(size)] = 2
        mask[distance < 16] = 1
        mask[(distance >= 15) & (distance < 17)] = 255
        image[:, mask == 2] = torch.tensor([20, 40, 230], dtype=torch.uint8)[:, None]
        image[:, distance < 16] = torch.tensor([230, 30, 20], dtype=torch.uint8)[:, None]
        targets.append(mask_target(mask))
    return images, targets


def learn(
    model: nn.Module,
    criterion: SegmentationCriterion,
    images: Tensor,
    targets: Sequence[Target],
    *,
    steps: int,
    lr: float,
) -> None:
    """Train in place: AdamW, a short warm-up, a cosine."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / steps))
        losses = criterion(model(images, [target.size for target in targets], targets), targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()  # type: ignore[union-attr]
        optimizer.step()


@torch.no_grad()
def predicted(model: nn.Module, images: Tensor, targets: Sequence[Target]) -> list[LabelMap]:
    model.eval()
    return SegmentationPostprocess()(model(images, [target.size for target in targets]), targets)


def mean_iou(maps: Sequence[LabelMap], targets: Sequence[Target], num_classes: int) -> float:
    """Over all valid pixels of all images, averaged over classes."""
    found = torch.cat([x.labels.flatten() for x in maps])
    truth = torch.cat([x.mask.flatten() for x in targets if x.mask is not None])
    found, truth = found[truth != 255], truth[truth != 255]
    ious = [
        ((found == k) & (truth == k)).sum().item() / ((found == k) | (truth == k)).sum().item()
        for k in range(num_classes)
    ]
    return sum(ious) / num_classes
