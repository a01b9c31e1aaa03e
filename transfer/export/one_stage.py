"""YOLOv3 and SSD as graphs: images to the scored boxes of all slots, and those to detections.

The models ask for their slots by sizes that must be known and keep them; here they are computed from the shapes of the
maps, in the same order, so that one file takes images of many sizes. Scores of slots that stand on padding are 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transfer.export.cells import cells_of
from transfer.export.nms import NOTHING, scores_after_nms
from transfer.heads.ssd import BOX_CODE, SSD
from transfer.heads.yolov3 import BOX, CLASSES, OBJECTNESS, STRIDES, YOLOv3
from transfer.ops.anchor_grid import Slots
from transfer.ops.anchors import DefaultBoxes
from transfer.ops.best_detections import DetectionFilter
from transfer.ops.boxes import decode_boxes


class YOLOv3Graph(nn.Module):
    """Images to the boxes of all slots and their scores."""

    inputs, outputs = ("images", "sizes"), ("boxes", "scores")

    def __init__(self, model: YOLOv3) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Scored boxes.

        Args:
            images: [B, 3, H, W] uint8, H and W multiples of 32.
            sizes: [B, 2] int64, (height, width) of each image's valid part.
        Returns:
            [B, N, 4] float32 xyxy pixels and [B, N, K] float32.
        """
        features = self.model.backbone(images)
        maps = self.model.neck([features[level] for level in self.model.levels])
        raw = self.model.head(maps)  # [B, N, 5 + K]
        slots = _slots(maps, self.model.anchor_grid.anchors)
        scores = torch.sigmoid(raw[..., OBJECTNESS, None]) * torch.sigmoid(raw[..., CLASSES])
        return slots.decode(raw[..., BOX]), scores * _on_image(slots.cells * slots.strides, sizes)


class SSDGraph(nn.Module):
    """Images to the boxes of all default boxes and their scores."""

    inputs, outputs = ("images", "sizes"), ("boxes", "scores")

    def __init__(self, model: SSD) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """See `YOLOv3Graph.forward`."""
        model = self.model
        features = model.backbone(images)
        maps = [features[level] for level in model.levels]
        if model.fc is not None:
            maps[-1] = model.fc(maps[-1])
        maps = [norm(x) for norm, x in zip(model.norms, maps, strict=True)]
        for extra in model.extras:
            maps.append(extra(maps[-1]))
        logits, deltas = model.head(maps)
        references = self._references(maps, images)
        boxes = decode_boxes(deltas.transpose(0, 1), references.boxes, BOX_CODE).transpose(0, 1)
        return boxes, F.softmax(logits, dim=2)[..., :-1] * _on_image(references.corners, sizes)

    def _references(self, maps: Sequence[Tensor], images: Tensor) -> DefaultBoxes:
        """The default boxes of maps [B, C, H_i, W_i], in the order of `transfer.ops.anchors.DefaultBoxGenerator`."""
        generator = self.model.default_boxes
        if None in generator.strides:  # cells spread over the image: its size must be known
            sizes = [(int(x.shape[2]), int(x.shape[3])) for x in maps]
            return generator._make(tuple(sizes), (int(images.shape[2]), int(images.shape[3])), images.device)
        boxes, corners = [], []
        for x, stride, shapes in zip(maps, generator.strides, generator.shapes, strict=True):
            assert stride is not None
            corner = cells_of(x)[:, None] * stride  # [H * W, 1, 2]
            half = torch.tensor(shapes) / 2  # [A, 2]
            centers = corner + stride / 2
            boxes.append(torch.cat([centers - half, centers + half], dim=2).flatten(0, 1))
            corners.append((corner + torch.zeros_like(half)).flatten(0, 1))
        return DefaultBoxes(torch.cat(boxes), torch.cat(corners))


class BestDetections(nn.Module):
    """Images to detections: `transfer.ops.best_detections.DetectionFilter` behind the scored boxes, for a batch.

    Args:
        scored: gives boxes [B, N, 4] and scores [B, N, K].
        rules: thresholds and limits.
    """

    inputs, outputs = ("images", "sizes"), ("boxes", "scores", "labels")

    def __init__(self, scored: nn.Module, rules: DetectionFilter) -> None:
        super().__init__()
        self.scored, self.rules = scored, rules

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The detections of each image, best first.

        Args:
            images, sizes: as `scored` takes them.
        Returns:
            [B, M, 4] float32 xyxy pixels of the network's input, [B, M] float32 scores, 0 where nothing is left, and
            [B, M] int64 labels.
        """
        boxes, scores = self.scored(images, sizes)
        rules, num_classes = self.rules, scores.shape[2]
        if not rules.multi_label:
            best, label = scores.max(dim=2, keepdim=True)
            scores = torch.zeros_like(scores).scatter(2, label, best)
        # A small image may have fewer pairs of box and class than are asked for: empty ones make up the number.
        pairs, top = F.pad(scores.flatten(1), (0, rules.before_nms)).topk(rules.before_nms, dim=1)  # [B, P]
        pairs = torch.where(pairs > rules.score_threshold, pairs, NOTHING)
        box, label = (top // num_classes).clamp(max=boxes.shape[1] - 1), top % num_classes
        boxes = boxes.gather(1, box[..., None].expand(-1, -1, 4))  # [B, P, 4]
        reach = boxes.amax(dim=(1, 2), keepdim=True) - boxes.amin(dim=(1, 2), keepdim=True) + 1
        left = scores_after_nms(boxes + label[..., None] * reach, pairs, rules.nms_iou)  # classes never meet
        scores, kept = left.topk(min(rules.max_detections, rules.before_nms), dim=1)
        return boxes.gather(1, kept[..., None].expand(-1, -1, 4)), scores.clamp(min=0), label.gather(1, kept)


def _slots(maps: Sequence[Tensor], anchors: Sequence[Sequence[Sequence[float]]]) -> Slots:
    """The slots of maps [B, C, H_i, W_i], in the order of `transfer.ops.anchor_grid.AnchorGrid`."""
    cells, strides, shapes = [], [], []
    for x, stride, of_level in zip(maps, STRIDES, anchors, strict=True):
        own = torch.tensor(of_level)  # [A, 2]
        cell = cells_of(x)[:, None]  # [H * W, 1, 2]
        cells.append((cell + torch.zeros_like(own)).flatten(0, 1))
        shapes.append((torch.zeros_like(cell) + own).flatten(0, 1))
        strides.append(torch.full_like(cells[-1][:, :1], float(stride)))
    return Slots(torch.cat(cells), torch.cat(strides), torch.cat(shapes))


def _on_image(corners: Tensor, sizes: Tensor) -> Tensor:
    """[B, N, 1] bool, as `transfer.ops.boxes.cells_on_images`, of sizes [B, 2]."""
    inside = (corners[:, 0] < sizes[:, 1:]) & (corners[:, 1] < sizes[:, :1])
    return inside[..., None]
