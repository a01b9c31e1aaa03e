"""Which graph a model becomes: from uint8 images to the tensors that its postprocess reads, or to detections.

Classifiers and segmenters are here; detectors, whose anchors and suppression need more, in `one_stage` and `two_stage`.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.export.one_stage import BestDetections, SSDGraph, YOLOv3Graph
from transfer.export.two_stage import TwoStageDetections, TwoStageGraph
from transfer.heads.cascade import CascadeRCNN
from transfer.heads.classification import Classifier
from transfer.heads.faster_rcnn import FasterRCNN, FasterRCNNPostprocess
from transfer.heads.fcn import FCN
from transfer.heads.smp_decoder import SMPDecoder
from transfer.heads.ssd import SSD
from transfer.heads.ssd_postprocess import SSDPostprocess
from transfer.heads.yolov3 import STRIDES, YOLOv3
from transfer.heads.yolov3_postprocess import YOLOv3Postprocess
from transfer.types import UserError

Suppression = Literal["inside", "outside"]


class ClassifierGraph(nn.Module):
    """Images to class logits."""

    inputs, outputs = ("images",), ("logits",)

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Args: images [B, 3, H, W] uint8. Returns: [B, K]."""
        return self.model.fc(self.model.backbone.pooled(images))


class SegmenterGraph(nn.Module):
    """Images to the logits of each cell; the caller pads, see `multiple_of`."""

    inputs, outputs = ("images",), ("logits",)

    def __init__(self, model: FCN | SMPDecoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Args: images [B, 3, H, W] uint8, H and W multiples of the stride. Returns: [B, K, h, w]."""
        model, maps = self.model, self.model.backbone(images)
        if isinstance(model, FCN):
            return model.head(maps[-1])
        features = [maps[level] for level in model.levels]
        if model.table.reads == "resized":
            return model.head(model.decoder(features, [None] * len(features)))
        if model.table.reads == "stages":  # with empty maps where no stage is, as in `SMPDecoder`
            batch, _, height, width = images.shape
            missing = (1,) if model.backbone.strides[model.levels[0]] == 2 else (1, 2)
            empty = [features[0].new_zeros((batch, 0, height // stride, width // stride)) for stride in missing]
            features = empty + features
        return model.head(model.decoder(features))


def graph_of(model: nn.Module, postprocess: Any, suppression: Suppression) -> nn.Module:
    """The graph of a trained model, with `inputs` and `outputs`: the names of what it takes and gives.

    Args:
        model: in eval mode.
        postprocess: of the same task; read where its rules go inside.
        suppression: whether a detector's NMS goes inside; of other models not read.
    Raises:
        UserError: a model or a form of NMS that has no graph.
    """
    if isinstance(model, Classifier):
        return ClassifierGraph(model)
    if isinstance(model, (FCN, SMPDecoder)):
        return SegmenterGraph(model)
    if isinstance(model, (YOLOv3, SSD)):
        scored = YOLOv3Graph(model) if isinstance(model, YOLOv3) else SSDGraph(model)
        if suppression == "outside":
            return scored
        if not isinstance(postprocess, (YOLOv3Postprocess, SSDPostprocess)):
            raise _no_rules(postprocess)
        return BestDetections(scored, postprocess.filter)
    if isinstance(model, (FasterRCNN, CascadeRCNN)):
        regions = TwoStageGraph(model)
        if suppression == "outside":
            return regions
        if not isinstance(postprocess, FasterRCNNPostprocess):
            raise _no_rules(postprocess)
        if postprocess.nms != "hard":
            raise UserError(
                f"--nms inside: ONNX has no soft NMS (postprocess.nms={postprocess.nms!r}): give --nms outside"
            )
        return TwoStageDetections(regions, postprocess)
    raise UserError(
        f"a {type(model).__name__} cannot be exported; these can: Classifier, FCN, SMPDecoder, YOLOv3, SSD, "
        "FasterRCNN, CascadeRCNN"
    )


def _no_rules(postprocess: Any) -> UserError:
    return UserError(
        f"--nms inside: the rules of a {type(postprocess).__name__} are not known to the exporter: give --nms outside"
    )


def multiple_of(model: nn.Module) -> int:
    """What both sides of an image must be multiples of: the caller pads at the right and bottom."""
    backbone: Backbone = model.backbone  # type: ignore[assignment]
    own = STRIDES[-1] if isinstance(model, YOLOv3) else model.multiple if isinstance(model, SMPDecoder) else 1
    return math.lcm(max(backbone.strides), own)


def with_fixed_padding(model: nn.Module) -> nn.Module:
    """A copy in which convolutions that pad by the size of their map ("same" in TensorFlow's sense) pad by constants.

    On images whose sides are multiples of the coarsest stride that is the same, and it is what an exporter can write
    where sizes are not known.

    Args:
        model: in eval mode.
    """
    from timm.layers import Conv2dSame

    copied = copy.deepcopy(model)
    for parent in list(copied.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, Conv2dSame):
                parent.add_module(name, _FixedPadding(child))
    return copied


class _FixedPadding(nn.Module):
    """What a `Conv2dSame` does to a map whose sides are multiples of its stride."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.pads: list[int] = []  # left, right, top, bottom
        for kernel, stride, dilation in zip(conv.kernel_size[::-1], conv.stride[::-1], conv.dilation[::-1]):
            total = max((kernel - 1) * dilation + 1 - stride, 0)
            self.pads += [total // 2, total - total // 2]

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        padded = nn.functional.pad(x, self.pads)
        return torch.conv2d(padded, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)
