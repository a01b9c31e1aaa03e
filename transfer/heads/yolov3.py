"""YOLOv3: the model, and `yolov3`, which joins it to a backbone.

Source: YOLOv3 (Redmon and Farhadi 2018, arXiv 1804.02767, sections 2.1 to 2.3), with the neck of its released
configuration, which Bag of Freebies (Zhang et al. 2019, arXiv 1902.04103) and GluonCV use: on each level five
convolutions, 1x1 and 3x3 in turn, then a 3x3 one and the 1x1 output; a 1x1 convolution, nearest upsampling and
concatenation lead to the next finer level. Each of them but the output has a norm and a leaky ReLU of slope 0.1. With
Darknet-53 and 80 classes it has 61,949,149 trained parameters, as published.

Deviation: the objectness starts at a prior of 0.01 (RetinaNet, Lin et al. 2017, arXiv 1708.02002, section 4.1) and not
at 0.5. Of the 10,647 slots of a 416 px image all but a few are background; at 0.5 they start with a summed loss of
7,380 an image that drowns the rest of the first steps, at 0.01 with 107. `objectness_prior=0.5` is the original.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.ops.anchor_grid import AnchorGrid, Grid
from transfer.types import Size, Target, UserError, is_number

STRIDES = (8, 16, 32)
ANCHORS = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
"""The paper's, fitted to COCO at 416 px: (width, height) of each level, fine to coarse."""
WIDTHS = (128, 256, 512)
"""Channels of the 1x1 convolutions of each level, fine to coarse, at width 1; the 3x3 ones have twice as many."""
BOX, OBJECTNESS, CLASSES = slice(0, 4), 4, slice(5, None)
"""Where tx, ty, tw, th, the objectness logit and the class logits stand among the 5 + K numbers of a slot."""


@dataclass(slots=True)
class YOLOv3Output:
    """Raw numbers of every slot."""

    raw: Tensor
    """[B, N, 5 + K]: tx, ty, tw, th, objectness logit, class logits; slots by level (fine to coarse), cell, anchor."""
    grid: Grid
    """Where the N slots are."""


class ConvNormLeaky(nn.Sequential):
    """Convolution without bias, norm, leaky ReLU; keeps the size of the map.

    Args:
        inputs: channels.
        outputs: channels, a multiple of 16 for norm="group".
        kernel: side of the kernel, odd.
        norm: "batch", or "group" (Wu and He 2018, 16 channels a group).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, norm: str) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs) if norm == "batch" else nn.GroupNorm(outputs // 16, outputs),
            nn.LeakyReLU(0.1, inplace=True),
        )


class YOLOv3Neck(nn.Module):
    """Three maps from the backbone's levels of stride 8, 16 and 32, each having seen all coarser ones.

    Args:
        channels: of the three levels, fine to coarse.
        widths: channels of the 1x1 convolutions on each level, fine to coarse.
        depth: convolutions of each level, 1x1 and 3x3 in turn, before the last 3x3 one; odd.
        norm: "batch" or "group".
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int], *, depth: int = 5, norm: str = "batch") -> None:
        super().__init__()
        coarser = [*widths[1:], None]  # width of the level that is upsampled into this one
        self.bodies, self.tips, self.laterals = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for inputs, width, above in zip(channels, widths, coarser, strict=True):
            if above is not None:
                self.laterals.append(ConvNormLeaky(above, width, 1, norm=norm))
                inputs += width
            layers = [ConvNormLeaky(inputs, width, 1, norm=norm)]
            for _ in range(depth // 2):
                layers += [ConvNormLeaky(width, 2 * width, 3, norm=norm), ConvNormLeaky(2 * width, width, 1, norm=norm)]
            self.bodies.append(nn.Sequential(*layers))
            self.tips.append(ConvNormLeaky(width, 2 * width, 3, norm=norm))
        self.channels = tuple(2 * width for width in widths)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Args: features [B, C_i, H_i, W_i] of the three levels. Returns: [B, channels[i], H_i, W_i] of the same."""
        maps: list[Tensor] = []
        above = None
        for level in range(len(self.bodies) - 1, -1, -1):
            x = features[level]
            if above is not None:
                lateral = self.laterals[level](above)
                x = torch.cat([F.interpolate(lateral, size=x.shape[-2:], mode="nearest"), x], dim=1)
            above = self.bodies[level](x)
            maps.insert(0, self.tips[level](above))
        return maps


class YOLOv3Head(nn.Module):
    """The 1x1 output convolution of each level.

    Args:
        channels: of each level.
        anchors_per_cell: of each level.
        num_classes: K.
        objectness_prior: what an untrained head says of every slot, in (0, 1); see the module's docstring.
    """

    def __init__(
        self,
        channels: Sequence[int],
        anchors_per_cell: Sequence[int],
        num_classes: int,
        *,
        objectness_prior: float = 0.01,
    ) -> None:
        super().__init__()
        self.numbers = 5 + num_classes
        self.objectness_prior = objectness_prior
        self.outputs = nn.ModuleList(
            nn.Conv2d(inputs, anchors * self.numbers, 1)
            for inputs, anchors in zip(channels, anchors_per_cell, strict=True)
        )
        for layer in self.outputs:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
            with torch.no_grad():
                layer.bias.view(-1, self.numbers)[:, OBJECTNESS] = math.log(objectness_prior / (1 - objectness_prior))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Args: maps [B, C_i, H_i, W_i]. Returns: [B, N, 5 + K], slots by level, cell, anchor."""
        raw = []
        for layer, x in zip(self.outputs, maps, strict=True):
            x = layer(x).permute(0, 2, 3, 1)  # [B, H, W, A * (5 + K)]
            raw.append(x.reshape(x.shape[0], -1, self.numbers))
        return torch.cat(raw, dim=1)


class YOLOv3(nn.Module):
    """A one-stage detector from built parts.

    Args:
        backbone: gives the features; its last level of each of the strides 8, 16 and 32 is used.
        neck: turns those into maps of the same sizes.
        head: maps to raw numbers.
        anchor_grid: of the three strides.
    """

    def __init__(self, backbone: Backbone, neck: nn.Module, head: nn.Module, anchor_grid: AnchorGrid) -> None:
        super().__init__()
        self.backbone, self.neck, self.head, self.anchor_grid = backbone, neck, head, anchor_grid
        self.levels = levels_of(backbone)

    def forward(self, images: Tensor, sizes: Sequence[Size], targets: Sequence[Target] | None = None) -> YOLOv3Output:
        """Raw numbers of every slot.

        Args:
            images: [B, 3, H, W] uint8, H and W multiples of 32.
            sizes: not read: nothing here depends on which part of an image is padding.
            targets: not read: the criterion does.
        Raises:
            UserError: another height or width.
        """
        height, width = int(images.shape[2]), int(images.shape[3])
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise UserError(
                f"YOLOv3 got images of {height}x{width} px; both sides must be multiples of {STRIDES[-1]}: "
                f"the nearest are {_nearest(height)} and {_nearest(width)} (augment.train.size, augment.test.size)"
            )
        features = self.backbone(images)
        maps = self.neck([features[level] for level in self.levels])
        map_sizes = [(int(x.shape[2]), int(x.shape[3])) for x in maps]
        if any(size != (height // stride, width // stride) for size, stride in zip(map_sizes, STRIDES)):
            raise UserError(
                f"{self.backbone.name} makes maps of {map_sizes} cells of a {height}x{width} px image: YOLOv3 needs "
                "side / 8, / 16 and / 32, which networks with unpadded convolutions do not give"
            )
        return YOLOv3Output(self.head(maps), self.anchor_grid(map_sizes, images.device))


def _nearest(side: int) -> int:
    return max(1, round(side / STRIDES[-1])) * STRIDES[-1]


def levels_of(backbone: Backbone) -> list[int]:
    """Which of the backbone's levels are read. Raises: UserError where it does not have strides 8, 16 and 32."""
    strides = backbone.strides
    missing = [stride for stride in STRIDES if stride not in strides]
    if missing or strides[-1] > STRIDES[-1]:
        raise UserError(
            f"YOLOv3 needs levels of strides {', '.join(map(str, STRIDES))} and no coarser ones; {backbone.name} gives "
            f"{', '.join(map(str, strides))}: set out_strides={list(STRIDES)} and output_stride=32 on the backbone"
        )
    return [len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES]


def yolov3(
    backbone: Backbone,
    num_classes: int,
    *,
    width: float = 1.0,
    depth: int = 5,
    norm: str = "batch",
    anchors: Sequence[Sequence[Sequence[float]]] = ANCHORS,
    objectness_prior: float = 0.01,
) -> YOLOv3:
    """YOLOv3 on any backbone with levels of stride 8, 16 and 32.

    Args:
        backbone: "darknet53" of `backbones.named.NamedBackbone` in the paper.
        num_classes: K.
        width: factor on the neck's channels, which are rounded to multiples of 16; light backbones need less than 1.
        depth: convolutions of the neck on each level before its last one: 1, 3 or 5, as in the paper. A short run on a
            pretrained backbone learns much more with 1 (figures in configs/_base_/light_yolov3_lite0.py).
        norm: of the neck. "batch" becomes synchronized along with the backbone, where the backbone's norm is
            "synchronized"; "group" for batches too small for statistics.
        anchors: of each level, fine to coarse, (width, height) in pixels of the network's input; tools/fit_anchors.py
            fits them to a data set.
        objectness_prior: what an untrained head says of every slot, in (0, 1).
    """
    problems = []
    if type(num_classes) is not int or num_classes < 1:
        problems.append(f"num_classes={num_classes!r}: a detector needs at least one class")
    if not is_number(width) or not 0 < width <= 4:
        problems.append(f"model.width={width!r} must be a number in (0, 4]: a factor on {WIDTHS} channels")
    if type(depth) is not int or depth not in (1, 3, 5):
        problems.append(f"model.depth={depth!r} must be 1, 3 or 5: convolutions of each level, 1x1 and 3x3 in turn")
    if norm not in ("batch", "group"):
        problems.append(f"model.norm={norm!r} is none of batch, group (the backbone has a norm of its own)")
    if not is_number(objectness_prior) or not 0 < objectness_prior < 1:
        problems.append(f"model.objectness_prior={objectness_prior!r} must be a number in (0, 1)")
    if problems:
        raise UserError("; ".join(problems))
    grid = AnchorGrid(anchors, STRIDES)
    widths = [max(1, round(width * channels / 16)) * 16 for channels in WIDTHS]
    neck = YOLOv3Neck([backbone.channels[level] for level in levels_of(backbone)], widths, depth=depth, norm=norm)
    head = YOLOv3Head(
        neck.channels, [len(shapes) for shapes in grid.anchors], num_classes, objectness_prior=objectness_prior
    )
    return YOLOv3(backbone, neck, head, grid)
