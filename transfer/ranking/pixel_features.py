"""Features of single pixels: what a segmentation head would have to tell their class from.

A pixel's vector is read bilinearly from the last map at the pixel's centre, as logits of that map would be upsampled
(corners not aligned, see `transfer.heads.segmentation`); or from all maps, one behind the other, as decoders with skip
connections see them. Of each image some pixels are drawn, of each of its classes about as many: drawn uniformly, sky
and road would leave nothing for a traffic light.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.contract import Backbone
from transfer.ranking.features import (
    TaskFeatures,
    as_rows,
    check_maps,
    draw,
    evaluating,
    gathered,
    head_on_map,
    source_probabilities,
)
from transfer.ranking.reservoir import ClassReservoir
from transfer.types import IGNORED_PIXEL, Batch, Target, UserError


@dataclass(frozen=True)
class _Drawn:
    """A pixel that is to be looked at."""

    image: int
    """Its place in the batch."""
    label: int
    priority: float
    point: tuple[float, float]
    """(x, y) of its centre in the batch's image, pixels."""


def pixel_features(
    backbone: Backbone,
    batches: Iterable[Batch],
    *,
    all_maps: bool = False,
    per_image: int = 32,
    per_class: int = 400,
    total: int = 2000,
    seed: int = 0,
) -> TaskFeatures:
    """The features of pixels, ignored ones left out.

    Args:
        backbone: any with maps; an attribute `source_head`, a module from the mean of the last map to logits, gives the
            source's probabilities.
        batches: each image once, with masks of the image's or of the original size.
        all_maps: read all maps, not the last alone.
        per_image: pixels of an image at the most.
        per_class: pixels of a class at the most.
        total: pixels at the most.
        seed: of the draw.

    Raises:
        UserError: arguments out of range, an image without mask, no maps, no pixels.
    """
    if type(per_image) is not int or per_image < 1:
        raise UserError(f"per_image={per_image!r} must be a whole number of 1 or more")
    check_maps(backbone)
    head, kept = head_on_map(backbone), ClassReservoir(per_class=per_class, total=total)
    with evaluating(backbone, head) as device:
        for batch in batches:
            found = [
                drawn
                for image, target in enumerate(batch.targets)
                for drawn in _draw_pixels(image, target, per_image, seed)
                if kept.wants(drawn.label, drawn.priority)
            ]
            if not found:
                continue
            maps = backbone(batch.images.to(device))
            last = _read(maps[-1], found, backbone.strides[-1])
            read = last
            if all_maps:
                finer = [_read(x, found, stride) for x, stride in zip(maps[:-1], backbone.strides)]
                read = torch.cat([*finer, last], dim=1)
            targets = [batch.targets[drawn.image] for drawn in found]
            for drawn, row in zip(found, as_rows(targets, read, source_probabilities(head, last)), strict=True):
                kept.add(drawn.label, drawn.priority, row)
    return gathered(kept, f"{backbone.name}: there are no pixels to compute features of, but for ignored ones")


def _draw_pixels(image: int, target: Target, count: int, seed: int) -> list[_Drawn]:
    """Some pixels of an image, as many of each class as there are to be had."""
    if target.mask is None:
        raise UserError(f"{target.path}: has no mask: give test batches of a segmentation data set")
    mask = target.mask.cpu().numpy()  # [h, w] of the image's or of the original size
    rng = draw(seed, target)
    pixels = mask.ravel()
    counts = np.bincount(pixels, minlength=IGNORED_PIXEL + 1)[:IGNORED_PIXEL]
    drawn = []
    for label, wanted in shares(counts, count).items():
        places = rng.choice(np.flatnonzero(pixels == label), wanted, replace=False)
        for place, priority in zip(places.tolist(), rng.random(wanted).tolist()):
            row, column = divmod(place, mask.shape[1])
            x = (column + 0.5) * target.size[1] / mask.shape[1]
            y = (row + 0.5) * target.size[0] / mask.shape[0]
            drawn.append(_Drawn(image, label, priority, (x, y)))
    return drawn


def shares(counts: np.ndarray, wanted: int) -> dict[int, int]:
    """How many pixels to draw of each class: equally many, but no more than there are; the rarer one gets the odd one.

    Args:
        counts: [K] pixels of each class.
        wanted: in all.

    Returns:
        Class -> how many, at least one; classes without pixels, or that come away with nothing, are missing.
    """
    present = sorted(np.flatnonzero(counts).tolist(), key=lambda label: (counts[label], label))
    drawn = {}
    for place, label in enumerate(present):
        drawn[label] = min(int(counts[label]), -(-wanted // (len(present) - place)))
        wanted -= drawn[label]
    return {label: number for label, number in drawn.items() if number}


def _read(features: Tensor, found: Sequence[_Drawn], stride: int) -> Tensor:
    """The bilinear features [R, C] at the pixels' centres."""
    height, width = features.shape[2:]
    # Cell i covers i * stride to (i + 1) * stride; grid_sample counts from -1 to 1 over the whole map.
    extent = torch.tensor([width * stride, height * stride], dtype=torch.float32)
    read = []
    for image in sorted({drawn.image for drawn in found}):
        points = torch.tensor([drawn.point for drawn in found if drawn.image == image])  # [R_b, 2]
        grid = (2 * points / extent - 1).view(1, 1, -1, 2).to(features.device)
        sampled = F.grid_sample(
            features[image : image + 1].float(), grid, mode="bilinear", padding_mode="border", align_corners=False
        )  # [1, C, 1, R_b]
        read.append(sampled[0, :, 0].T)
    return torch.cat(read)  # in the order of `found`: image by image
