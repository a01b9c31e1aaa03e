"""Anchor shapes fitted to boxes, and how much better they fit boxes that they were not fitted to.

Source: YOLO9000 (Redmon and Farhadi 2016, arXiv 1612.08242, section 2, "dimension clusters"): k-means of widths and
heights with the distance 1 - IoU of shapes laid on one centre, so that large boxes do not count more than small ones.

Deviations: centres start as in k-means++ (Arthur and Vassilvitskii 2007), from several seeds, and the best of all
rounds is kept, since the mean of a cluster need not be its best shape under this distance. Nothing is mutated after.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from transfer.ops.anchor_grid import shape_iou
from transfer.types import UserError

_ROUNDS = 100
_MOST = 20_000
"""Boxes that are fitted to; more change the third digit of a side."""


def best_ious(sides: Tensor, anchors: Tensor) -> Tensor:
    """IoU of each shape with the anchor that fits it best.

    Args:
        sides: [N, 2] widths and heights.
        anchors: [A, 2].
    Returns:
        [N].
    """
    return shape_iou(sides, anchors).amax(dim=1)


def fit_anchors(sides: Tensor, count: int, *, seed: int = 0, starts: int = 5) -> Tensor:
    """The shapes whose mean best IoU with the given ones is greatest, as far as k-means finds them.

    Args:
        sides: [N, 2] widths and heights, above 0.
        count: how many to fit.
        seed: of the starts, and of the draw where there are more than 20,000 shapes.
        starts: how often to start anew.
    Returns:
        [count, 2] float64, smallest area first.
    Raises:
        UserError: fewer different shapes than anchors.
    """
    sides, boxes = sides.double(), len(sides)
    rng = np.random.default_rng(seed)
    if boxes > _MOST:
        sides = sides[torch.from_numpy(rng.choice(boxes, _MOST, replace=False))]
    different = len(torch.unique(sides, dim=0))
    if different < count:
        raise UserError(
            f"{count} anchors cannot be fitted to {boxes} boxes of {different} different shapes: ask for fewer "
            "anchors, or give more images"
        )
    fits = [_one_fit(sides, count, rng) for _ in range(starts)]
    _, anchors = max(fits, key=lambda fit: fit[0])
    return anchors[anchors.prod(dim=1).argsort(stable=True)]


def _one_fit(sides: Tensor, count: int, rng: np.random.Generator) -> tuple[float, Tensor]:
    """Mean best IoU and anchors [count, 2] of the best round of one start."""
    anchors, best = _spread(sides, count, rng), (-1.0, sides[:count])
    before = None
    for _ in range(_ROUNDS):
        iou, nearest = shape_iou(sides, anchors).max(dim=1)
        if iou.mean().item() > best[0]:
            best = iou.mean().item(), anchors
        if before is not None and torch.equal(nearest, before):
            break
        before = nearest
        members = torch.bincount(nearest, minlength=count)[:, None]
        means = torch.zeros_like(anchors).index_add_(0, nearest, sides) / members.clamp(min=1)
        anchors = torch.where(members > 0, means, anchors)  # a cluster that lost all its boxes stays where it was
    return best


def _spread(sides: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Shapes to start from: each next one drawn with a probability that grows with its distance from those chosen."""
    chosen = [int(rng.integers(len(sides)))]
    while len(chosen) < count:
        distance = (1 - best_ious(sides, sides[chosen])).clamp(min=0).square().numpy()
        chosen.append(int(rng.choice(len(sides), p=distance / distance.sum())))
    return sides[chosen]


def held_out_best_ious(
    sides: Tensor, images: np.ndarray, count: int, *, folds: int = 5, seed: int = 0, starts: int = 2
) -> Tensor:
    """Best IoU of each shape with anchors that were fitted to the shapes of other images.

    Args:
        sides: [N, 2] widths and heights.
        images: [N] int, which image each shape comes from.
        count: how many anchors to fit.
        folds: parts that the images are divided into; each is measured with anchors fitted to all others.
        seed: of the division and of the fits.
        starts: of each fit.
    Returns:
        [N].
    Raises:
        UserError: too few images or boxes for that.
    """
    names, position = np.unique(images, return_inverse=True)
    if len(names) < folds:
        raise UserError(f"{len(names)} images with boxes: at least {folds} are needed to judge anchors on other images")
    fold = np.random.default_rng(seed).permutation(len(names))[position] % folds  # [N]
    result = torch.empty(len(sides), dtype=torch.float64)
    for part in range(folds):
        held_out = torch.from_numpy(fold == part)
        anchors = fit_anchors(sides[~held_out], count, seed=seed + part, starts=starts)
        result[held_out] = best_ious(sides[held_out].double(), anchors)
    return result


def mean_with_interval(
    values: Tensor, images: np.ndarray, *, draws: int = 500, seed: int = 0
) -> tuple[float, float, float]:
    """A mean over boxes with its 95 % interval from a bootstrap of whole images.

    Args:
        values: [N], one a box.
        images: [N] int, which image each box comes from: the boxes of one image are no independent draws.
        draws: how often the images are drawn anew.
        seed: of the draws.
    Returns:
        Mean, and the 2.5 % and 97.5 % quantiles of the draws' means.
    """
    _, position = np.unique(images, return_inverse=True)
    sums, counts = np.bincount(position, weights=values.double().numpy()), np.bincount(position)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(draws):
        drawn = rng.integers(len(sums), size=len(sums))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.double().mean()), float(low), float(high)
