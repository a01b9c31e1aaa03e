"""How much of the image a cell of the coarsest map sees, measured, against the objects to be found.

The gradient of the central cell's squared length with respect to the input says what the cell depends on (Luo et al.
2016, arXiv 1701.04128); its extent is the height and width that hold the middle 99 % of the gradient's absolute
values. That is less than what the cell is connected with, and it depends on the weights. A box with a side beyond it is
judged from a part of the object. More than a quarter of such boxes is a warning, unless the cell sees three quarters of
the image's height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backbones.contract import Backbone
from transfer.preflight.findings import Outcome
from transfer.types import Batch

MASS = 0.99
SHARE = 0.25
WHOLE = 0.75
"""Of the image's side: a cell that sees so much sees the image."""


def extent(gradient: Tensor) -> tuple[int, int]:
    """Height and width of the middle part that holds `MASS` of the absolute values along each axis.

    Args:
        gradient: [C, H, W].
    Returns:
        Pixels; 0 where the gradient is zero everywhere.
    """
    magnitude = gradient.detach().double().abs().sum(dim=0)  # [H, W]
    sides = []
    for axis in (1, 0):
        profile = magnitude.sum(dim=axis)
        if float(profile.sum()) == 0:
            return 0, 0
        done = profile.cumsum(dim=0) / profile.sum()
        outside = (1 - MASS) / 2
        first, last = int((done < outside).sum()), int((done < 1 - outside).sum())
        sides.append(last - first + 1)
    return sides[0], sides[1]


def check_receptive_field(backbone: Backbone, batch: Batch, batches: Sequence[Batch]) -> Outcome:
    """The coarsest map's central cell against the batches' boxes.

    Args:
        backbone: a copy, in eval mode.
        batch: on the device; its first image is looked through.
        batches: whose boxes are asked.
    """
    outcome = Outcome("receptive_field")
    with torch.enable_grad():
        images = backbone.normalize(batch.images[:1]).requires_grad_()
        coarsest = backbone.features(images.clone())[-1]  # [1, C, H, W]; a copy: its first layer may work in place
        cell = coarsest[0, :, coarsest.shape[2] // 2, coarsest.shape[3] // 2]
        (gradient,) = torch.autograd.grad(cell.float().square().sum(), images)
    height, width = extent(gradient[0])
    image_height, image_width = batch.targets[0].size
    outcome.facts = {"stride": backbone.strides[-1], "height": height, "width": width}
    line = (
        f"a cell of stride {backbone.strides[-1]} sees {height}x{width} px of a {image_height}x{image_width} px image"
    )
    boxes = torch.cat([target.boxes for each in batches for target in each.targets])
    if len(boxes) and height and (height < WHOLE * image_height or width < WHOLE * image_width):
        sides = boxes[:, 2:] - boxes[:, :2]
        share = float(((sides[:, 1] > height) | (sides[:, 0] > width)).float().mean())
        outcome.facts["share_of_larger_boxes"] = share
        line += f"; {share:.0%} of {len(boxes)} boxes are larger"
        if share > SHARE:
            outcome.warning(
                "receptive-field-small",
                line,
                "use a deeper backbone or a coarser level (out_strides), or smaller images (augment)",
            )
    outcome.lines.append(line)
    return outcome
