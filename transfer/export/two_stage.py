"""Faster R-CNN and Cascade R-CNN as graphs: images to regions with logits and deltas, and those to detections.

The models keep as many proposals as NMS leaves; here each image has the limit's number of places for them, and a mask
says which hold one. That costs the box head what the empty places cost, and lets a batch have one shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transfer.export.cells import cells_of
from transfer.export.nms import NOTHING, scores_after_nms
from transfer.heads.box_head import PROPOSAL_CODE, BoxCode, PyramidRoIAlign
from transfer.heads.cascade import CascadeRCNN
from transfer.heads.faster_rcnn import FasterRCNN, FasterRCNNPostprocess
from transfer.heads.rpn import ANCHOR_CODE
from transfer.ops.boxes import decode_boxes


class TwoStageGraph(nn.Module):
    """Images to regions, and what the second stage says of them."""

    inputs, outputs = ("images", "sizes"), ("regions", "found", "logits", "deltas")

    def __init__(self, model: FasterRCNN | CascadeRCNN) -> None:
        super().__init__()
        self.model = model
        stages = list(model.stages) if isinstance(model, CascadeRCNN) else []
        self.code: BoxCode = stages[-1].code if stages else PROPOSAL_CODE
        generator = model.anchor_generator
        self.of_first_cell = generator([(1, 1)] * len(generator.strides), torch.device("cpu"))  # [A, 4] a level

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Regions and what is said of them.

        Args:
            images: [B, 3, H, W] uint8, H and W multiples of the coarsest stride.
            sizes: [B, 2] int64, (height, width) of each image's valid part.
        Returns:
            [B, P, 4] float32 xyxy pixels; [B, P] bool, whether there is one; logits [B, P, K + 1], background last; and
            deltas [B, P, K or 1, 4].
        """
        model = self.model
        maps = model.neck(model.backbone(images))
        limits = sizes[:, None, [1, 0, 1, 0]].float()  # [B, 1, 4]
        regions, found = self._proposals(maps, limits)
        if isinstance(model, FasterRCNN):
            logits, deltas = model.predictor(model.box_head(self._pooled(maps, regions)))
        else:
            for number, stage in enumerate(model.stages):
                if number:
                    code = model.stages[number - 1].code
                    decoded = decode_boxes(deltas[:, 0], regions.flatten(0, 1), code).view(regions.shape)
                    regions = _clipped(decoded, limits)
                    found = found & _wide(regions, model.min_side)
                pooled = self._pooled(maps, regions)
                logits, deltas = stage(pooled)
            logits = model._mean_logits(pooled, logits)
        places = regions.shape[:2]
        return regions, found, logits.unflatten(0, places), deltas.unflatten(0, places)

    def _proposals(self, maps: Sequence[Tensor], limits: Tensor) -> tuple[Tensor, Tensor]:
        """What `transfer.heads.rpn.Proposer` gives, with a fixed number of places: [B, P, 4], and [B, P] bool."""
        proposer = self.model.proposer
        before, after = proposer.before_nms[1], proposer.after_nms[1]
        boxes, scores = [], []
        levels = zip(*self.model.rpn_head(maps), maps, self.of_first_cell, self.model.anchor_generator.strides)
        for logits, deltas, x, own, stride in levels:
            anchors = ((cells_of(x) * stride).repeat(1, 2)[:, None] + own).flatten(0, 1)  # [H * W * A, 4]
            top_logits, top = F.pad(logits, (0, before), value=NOTHING).topk(before, dim=1)  # [B, T]
            top = top.clamp(max=logits.shape[1] - 1)
            chosen = deltas.gather(1, top[..., None].expand(-1, -1, 4)).flatten(0, 1)
            decoded = _clipped(decode_boxes(chosen, anchors[top.flatten()], ANCHOR_CODE).view(*top.shape, 4), limits)
            top_logits = torch.where(_wide(decoded, proposer.min_side), top_logits, NOTHING)
            scores.append(scores_after_nms(decoded, top_logits, proposer.nms_iou))
            boxes.append(decoded)
        best, kept = F.pad(torch.cat(scores, dim=1), (0, after), value=NOTHING).topk(after, dim=1)  # [B, P]
        every = torch.cat(boxes, dim=1)
        kept = kept.clamp(max=every.shape[1] - 1)
        return every.gather(1, kept[..., None].expand(-1, -1, 4)), best > NOTHING

    def _pooled(self, maps: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Features [B * P, C, cells, cells] of regions [B, P, 4]."""
        pool = self.model.roi_pool
        assert isinstance(pool, PyramidRoIAlign)
        number = torch.arange(regions.shape[0], dtype=torch.float32)[:, None, None].expand(-1, regions.shape[1], 1)
        numbered = torch.cat([number, regions], dim=2).flatten(0, 1)  # [B * P, 5]
        if len(pool.strides) == 1:
            return pool._read(maps[0], numbered, pool.strides[0])
        levels = pool.levels(numbered[:, 1:])
        pooled = maps[0].new_zeros((numbered.shape[0], maps[0].shape[1], pool.output_size, pool.output_size))
        for level, stride in enumerate(pool.strides):
            chosen = torch.nonzero(levels == level).flatten()
            pooled = pooled.index_copy(0, chosen, pool._read(maps[level], numbered[chosen], stride))
        return pooled


class TwoStageDetections(nn.Module):
    """Images to detections: `FasterRCNNPostprocess` with hard NMS behind the regions, for a batch.

    Args:
        regions: gives regions, found, logits and deltas.
        rules: thresholds and limits.
    """

    inputs, outputs = ("images", "sizes"), ("boxes", "scores", "labels")

    def __init__(self, regions: TwoStageGraph, rules: FasterRCNNPostprocess) -> None:
        super().__init__()
        self.regions, self.rules = regions, rules

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `transfer.export.one_stage.BestDetections.forward`."""
        regions, found, logits, deltas = self.regions(images, sizes)
        rules, places = self.rules, regions.shape[1]
        decoded = decode_boxes(deltas.flatten(0, 1), regions.flatten(0, 1), self.regions.code).view(deltas.shape)
        boxes = _clipped(decoded, sizes[:, None, None, [1, 0, 1, 0]].float())  # [B, P, K or 1, 4]
        scores = F.softmax(logits, dim=2)[..., :-1]  # [B, P, K]
        allowed = (scores > rules.score_threshold) & found[..., None] & _wide(boxes, rules.min_side)
        scores = torch.where(allowed, scores, NOTHING)
        boxes = boxes.expand(-1, -1, scores.shape[2], -1).transpose(1, 2)  # [B, K, P, 4]
        left = scores_after_nms(boxes.flatten(0, 1), scores.transpose(1, 2).flatten(0, 1), rules.nms_iou)  # [B * K, P]
        left = left.unflatten(0, boxes.shape[:2]).flatten(1)  # [B, K * P]
        scores, kept = left.topk(min(rules.max_detections, left.shape[1]), dim=1)
        boxes = boxes.flatten(1, 2).gather(1, kept[..., None].expand(-1, -1, 4))
        return boxes, scores.clamp(min=0), kept // places


def _clipped(boxes: Tensor, limits: Tensor) -> Tensor:
    """Boxes [..., 4] cut at limits (width, height, width, height) of their images."""
    return torch.minimum(boxes.clamp(min=0), limits)


def _wide(boxes: Tensor, least: float) -> Tensor:
    """Which of boxes [..., 4] have no side below the least, in pixels."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= least).all(dim=-1)
