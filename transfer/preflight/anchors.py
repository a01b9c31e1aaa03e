"""Whether the anchors fit the objects: each box's overlap with the anchor that fits it best, by the head's own rule.

A criterion says so in `anchor_fit`, with the overlap below which no anchor fits. Boxes are those of the augmented
batches. An object without a fitting anchor is trained on a poor one or not at all, so more than a quarter of them is a
warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from transfer.preflight.findings import Outcome
from transfer.types import Batch, Size, Target

SHARE = 0.25


@runtime_checkable
class JudgesAnchors(Protocol):
    """A criterion of a head with anchors."""

    def anchor_fit(self, output: Any, targets: Sequence[Target]) -> tuple[Tensor, float]:
        """How well the best anchor of each box fits it.

        Args:
            output: of the model; its anchors are those of the image's size.
            targets: of any images of that size or smaller.
        Returns:
            [M] overlap with the best anchor, of the boxes to be learnt from, one image after another; and the overlap
            below which no anchor fits.
        """
        ...


def check_anchors(criterion: Any, model: nn.Module, output: Any, size: Size, batches: Sequence[Batch]) -> Outcome:
    """The anchors against the boxes of some batches.

    Args:
        criterion: is asked where it can tell.
        model: makes another output where some batch is larger than `size`; in any mode, left as it is.
        output: of the model, for images of `size`.
        size: (height, width).
        batches: as training gets them, on the CPU.
    """
    outcome = Outcome("anchors")
    if not isinstance(criterion, JudgesAnchors):
        outcome.lines.append(f"anchors: not checked, {type(criterion).__name__} has no anchor_fit")
        return outcome
    device = next(model.parameters()).device
    targets = [target.to(device) for batch in batches for target in batch.targets]
    canvas = tuple(max(int(batch.images.shape[axis]) for batch in batches) for axis in (2, 3))
    with torch.no_grad():
        if canvas != tuple(size):
            output = _of_blank_image(model, (canvas[0], canvas[1]))
        overlaps, least = criterion.anchor_fit(output, targets)
    if not len(overlaps):
        outcome.lines.append("anchors: no box to check them with")
        return outcome
    unfit = float((overlaps < least).float().mean())
    outcome.facts = {
        "boxes": len(overlaps),
        "mean_best_overlap": float(overlaps.mean()),
        "least_overlap": least,
        "share_without_anchor": unfit,
    }
    line = (
        f"anchors: the best one overlaps each of {len(overlaps)} boxes by {float(overlaps.mean()):.2f} in the mean; "
        f"{unfit:.0%} have none with {least:g} or more"
    )
    outcome.lines.append(line)
    if unfit > SHARE:
        outcome.warning(
            "anchors-do-not-fit",
            line.removeprefix("anchors: "),
            "fit them: tools/fit_anchors.py (YOLOv3), or model.anchor_scales and anchor_ratios; or larger images",
        )
    return outcome


def _of_blank_image(model: nn.Module, size: Size) -> Any:
    """The output for one empty image of a size: for its anchors."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        images = torch.zeros((1, 3, *size), dtype=torch.uint8, device=next(model.parameters()).device)
        return model(images, [size])
    finally:
        for module, mode in training.items():
            module.training = mode
