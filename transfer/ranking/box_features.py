"""Features of truth boxes: what a detector would have to tell their class from, and where they are exactly.

The vector of a box is the mean of its RoIAlign (He et al. 2017) over 14x14 points, from the last map of at most stride
16, which C4 and dilated C5 read. Where a box is, is asked as a detector is asked: each truth box gets one box beside
it, moved by up to 0.15 of its sides and scaled by up to 1.2 (IoU above 0.53), and the deltas of R-CNN that lead back
are to be predicted from what that box encloses. There, few cells are kept apart instead of their mean, because a mean
does not say on which side the object sticks out. None of this is from a paper: the scores' authors regress other
things.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_align

from backbones.contract import Backbone
from transfer.ops.boxes import clip_boxes, encode_boxes
from transfer.ranking.features import (
    TaskFeatures,
    as_rows,
    draw,
    evaluating,
    gathered,
    head_on_map,
    level_of,
    source_probabilities,
    stacked,
)
from transfer.ranking.reservoir import ClassReservoir
from transfer.types import Batch, Target, UserError

SHIFT = 0.15
"""Greatest distance of a jittered box's centre from the truth's, in sides of the truth."""
SCALE = 1.2
"""Greatest ratio of a jittered box's side to the truth's, either way."""
POINTS = 14
"""Samples along each side of a box."""
LEAST_SIDE = 1.0
"""Pixels of the batch's image; smaller boxes are left out."""


@dataclass(frozen=True)
class BoxFeatures(TaskFeatures):
    """What a backbone, as it is, knows of boxes."""

    near: np.ndarray
    """[N, cells * cells * D] float32: of the jittered boxes, cell by cell."""
    deltas: np.ndarray
    """[N, 4] float32: (dx, dy, dw, dh) from the jittered box to the truth, unweighted."""


@dataclass(frozen=True)
class _Drawn:
    """A box that is to be looked at."""

    image: int
    """Its place in the batch."""
    label: int
    priority: float
    box: Tensor
    """[4] xyxy."""
    near: Tensor
    """[4] xyxy: the jittered box."""


def box_features(
    backbone: Backbone,
    batches: Iterable[Batch],
    *,
    max_stride: int | None = 16,
    cells: int = 2,
    per_class: int = 200,
    total: int = 1000,
    seed: int = 0,
) -> BoxFeatures:
    """The features of truth boxes, difficult ones left out.

    Args:
        backbone: any with maps; an attribute `source_head`, a module from the mean of the last map to logits, gives the
            source's probabilities.
        batches: each image once, with boxes in the batch's pixels.
        max_stride: the last map of at most this stride is read, pixels; None: the last map.
        cells: a side, of a jittered box's features; 1: the mean alone.
        per_class: boxes of a class at the most.
        total: boxes at the most.
        seed: of the draw and the jitter.

    Raises:
        UserError: arguments out of range, no such map, no boxes.
    """
    if type(cells) is not int or not 1 <= cells <= POINTS:
        raise UserError(f"cells={cells!r} must be a whole number from 1 to {POINTS}")
    level, head = level_of(backbone, max_stride), head_on_map(backbone)
    kept = ClassReservoir(per_class=per_class, total=total)
    with evaluating(backbone, head) as device:
        for batch in batches:
            found = [
                drawn
                for image, target in enumerate(batch.targets)
                for drawn in _draw_boxes(image, target, seed)
                if kept.wants(drawn.label, drawn.priority)
            ]
            if not found:
                continue
            maps = backbone(batch.images.to(device))
            boxes, near = _regions(found, "box", device), _regions(found, "near", device)
            pooled = _pooled(maps[level], boxes, backbone.strides[level], 1)
            probabilities = None
            if head is not None:
                probabilities = source_probabilities(head, _pooled(maps[-1], boxes, backbone.strides[-1], 1))
            rows = as_rows([batch.targets[drawn.image] for drawn in found], pooled, probabilities)
            around = _pooled(maps[level], near, backbone.strides[level], cells).float().cpu().numpy()
            deltas = encode_boxes(boxes[:, 1:], near[:, 1:], (1.0, 1.0, 1.0, 1.0)).cpu().numpy()
            for place, (drawn, row) in enumerate(zip(found, rows, strict=True)):
                row.update(near=around[place].copy(), deltas=deltas[place].copy())
                kept.add(drawn.label, drawn.priority, row)
    return _as_box_features(kept, backbone.name)


def _as_box_features(kept: ClassReservoir, name: str) -> BoxFeatures:
    common = gathered(kept, f"{name}: there are no boxes to compute features of, but for difficult ones: see the data")
    columns = stacked(kept.labels_and_rows()[1])
    return BoxFeatures(
        common.features,
        common.labels,
        common.groups,
        common.source_probabilities,
        columns["near"],
        columns["deltas"],
    )


def _draw_boxes(image: int, target: Target, seed: int) -> list[_Drawn]:
    """The boxes of an image, each with its priority and the box beside it."""
    rng = draw(seed, target)
    # Also for boxes that are left out: the others' draw does not hang on them.
    priorities, moves = rng.random(len(target.boxes)), rng.uniform(-1, 1, (len(target.boxes), 4))
    boxes = clip_boxes(target.boxes.float().cpu(), target.size)
    near = clip_boxes(jittered(boxes, torch.from_numpy(moves).float()), target.size)
    sides = torch.minimum(boxes[:, 2:] - boxes[:, :2], near[:, 2:] - near[:, :2]).min(dim=1).values
    usable = (sides >= LEAST_SIDE / SCALE) & ((boxes[:, 2:] - boxes[:, :2]).min(dim=1).values >= LEAST_SIDE)
    usable &= ~target.difficult.cpu()
    return [
        _Drawn(image, int(target.labels[place]), float(priorities[place]), boxes[place], near[place])
        for place in torch.nonzero(usable).flatten().tolist()
    ]


def jittered(boxes: Tensor, moves: Tensor) -> Tensor:
    """Boxes beside boxes.

    Args:
        boxes: [N, 4] xyxy.
        moves: [N, 4] in [-1, 1]: of the centre in x and y by `SHIFT` sides, of width and height by a factor of `SCALE`.

    Returns:
        [N, 4] xyxy.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2 + SHIFT * moves[:, :2] * sides
    half = sides * SCALE ** moves[:, 2:] / 2
    return torch.cat([centers - half, centers + half], dim=1)


def _regions(found: Sequence[_Drawn], which: str, device: torch.device) -> Tensor:
    """[R, 5]: the image's place in the batch, and the box."""
    images = torch.tensor([[float(drawn.image)] for drawn in found])
    return torch.cat([images, torch.stack([getattr(drawn, which) for drawn in found])], dim=1).to(device)


def _pooled(features: Tensor, regions: Tensor, stride: int, cells: int) -> Tensor:
    """RoIAlign of regions [R, 5], [R, C * cells * cells]."""
    # About as many points whatever the cells, so that one cell is the mean of several.
    points = max(1, POINTS // cells)
    return roi_align(features.float(), regions.float(), cells, 1 / stride, points, aligned=True).flatten(1)
