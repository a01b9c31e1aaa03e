"""What every segmentation head shares: its output, its losses, its label maps.

Source: the FCN of He et al. 2018, Bag of Tricks (arXiv 1812.01187, section 6.2), as GluonCV trains it: logits are
upsampled bilinearly to the image, an auxiliary head on the stage before the last adds its loss with weight 0.5.

The corners of logits and image are not aligned (align_corners=False, as in torchvision and MMSegmentation; smp aligns
them in its last upsampling): cell i of stride s then covers the pixels from i * s to (i + 1) * s, whatever the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transfer.losses.image_by_image import sums_image_by_image, sums_of
from transfer.losses.pixel_cross_entropy import PixelCrossEntropy, pixel_mean
from transfer.losses.weighted_sum import SegmentationLoss, check_classes
from transfer.ops.upsampling import upsample_bilinear
from transfer.types import IGNORED_PIXEL, LabelMap, Size, Target, UserError, is_number

AUXILIARY_WEIGHT = 0.5
_NUMBERS = 2**26
"""Upsampled logits of one image that are held at once: what bounds the memory of a label map (256 MB)."""


@dataclass(slots=True)
class SegmentationOutput:
    """Raw logits of a batch."""

    logits: Tensor
    """[B, K, h, w] at the head's own stride."""
    auxiliary: Tensor | None
    """[B, K, h', w'] of the auxiliary head; None in eval mode, or without such a head."""
    size: Size
    """(height, width) in pixels of what the logits cover, from the batch's top-left corner on: at least the batch."""


class SegmentationCriterion:
    """The loss of the head, and that of the auxiliary head.

    Args:
        loss: of logits [B, K, H, W] and masks [B, H, W]; None: plain cross entropy.
        auxiliary_weight: factor on the auxiliary head's loss, at least 0; None: 0.5 where the model has such a head.

    Raises:
        UserError: an argument is not as said above.
    """

    def __init__(self, loss: SegmentationLoss | None = None, *, auxiliary_weight: float | None = None) -> None:
        problems = []
        if loss is not None and not callable(loss):
            problems.append(f"loss={loss!r} must be a loss, such as dict(type=PixelCrossEntropy)")
        if auxiliary_weight is not None and (not is_number(auxiliary_weight) or not 0 <= auxiliary_weight < 1e6):
            problems.append(f"auxiliary_weight={auxiliary_weight!r} must be a number of at least 0, or None")
        if problems:
            raise UserError(f"SegmentationCriterion: {'; '.join(problems)}")
        self.loss: SegmentationLoss = PixelCrossEntropy() if loss is None else loss
        self.asked_weight = auxiliary_weight
        self.auxiliary_weight = AUXILIARY_WEIGHT if auxiliary_weight is None else float(auxiliary_weight)

    def check_model(self, model: nn.Module) -> None:
        """Raises: UserError where a setting asks for what the model does not have, or does not fit its classes."""
        if self.asked_weight and getattr(model, "auxiliary_head", None) is None:
            raise UserError(
                f"criterion.auxiliary_weight={self.asked_weight}: the model has no auxiliary head; give it one "
                "(model.auxiliary=True), or leave the weight out"
            )
        num_classes = getattr(model, "num_classes", None)
        if num_classes is not None:
            check_classes(self.loss, num_classes)

    def expected_first_losses(
        self, model: nn.Module, output: SegmentationOutput, targets: Sequence[Target]
    ) -> dict[str, float]:
        """Losses of an untrained head, whose logits are equal; see `transfer.preflight.first_loss`."""
        auxiliary = None if output.auxiliary is None else torch.zeros_like(output.auxiliary)
        untrained = replace(output, logits=torch.zeros_like(output.logits), auxiliary=auxiliary)
        return {name: float(loss) for name, loss in self(untrained, targets).items()}

    def __call__(self, output: SegmentationOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Args: the model's output and the targets of its images. Returns: scalar losses named `loss_*`."""
        # int64 once for both heads: torch's losses take no other labels
        masks = stacked_masks(targets, output.size, output.logits.shape[1], output.logits.device).long()
        losses = {"loss_segmentation": self._loss(output.logits, masks)}
        if output.auxiliary is not None:
            # Also with weight 0: DistributedDataParallel waits for the gradients of the auxiliary head.
            losses["loss_auxiliary"] = self.auxiliary_weight * self._loss(output.auxiliary, masks)
        return losses

    def _loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Of logits [B, K, h, w], upsampled to the masks [B, H, W]."""
        sums = sums_of(self.loss)
        if sums is not None:
            return pixel_mean(*sums_image_by_image(logits, masks, sums))
        return self.loss(upsample_bilinear(logits, (int(masks.shape[1]), int(masks.shape[2]))), masks)


class SegmentationPostprocess:
    """Label maps in original pixels.

    The logits are upsampled to the batch, cut to the image, and resized to its original size, bilinearly each time.
    """

    @torch.no_grad()
    def __call__(self, output: SegmentationOutput, targets: Sequence[Target]) -> list[LabelMap]:
        """Args: the model's output; targets for their sizes only. Returns: one label map an image."""
        pairs = zip(output.logits, targets, strict=True)
        return [self._label_map(logits, output.size, target) for logits, target in pairs]

    @torch.no_grad()
    def probabilities(
        self, output: SegmentationOutput, targets: Sequence[Target], *, sizes: Sequence[Size] | None = None
    ) -> list[Tensor]:
        """Softmax of every pixel, to be averaged over scales, flips and windows; `label_map` ends it.

        Args:
            output: the model's.
            targets: for their sizes only.
            sizes: (height, width) of each result; None: of the original images.
        Returns:
            [K, H, W] float32 an image.
        """
        sizes = [target.original_size for target in targets] if sizes is None else sizes
        triples = zip(output.logits, targets, sizes, strict=True)
        return [image_logits(logits, output.size, target.size, size).softmax(dim=0) for logits, target, size in triples]

    def _label_map(self, logits: Tensor, covered: Size, target: Target) -> LabelMap:
        """The class of the largest logit; of equal ones the first."""
        pixels = max(covered[0] * covered[1], target.original_size[0] * target.original_size[1])
        step = max(1, _NUMBERS // pixels)
        best = labels = None
        for start in range(0, len(logits), step):
            part = image_logits(logits[start : start + step], covered, target.size, target.original_size)
            value, index = part.max(dim=0)  # [H, W]
            if best is None or labels is None:
                best, labels = value, index
            else:
                labels = torch.where(value > best, index + start, labels)
                best = torch.maximum(value, best)
        assert labels is not None
        return LabelMap(labels.to(torch.uint8))


def label_map(scores: Tensor) -> LabelMap:
    """The class of the highest score [K, H, W] at each pixel."""
    return LabelMap(scores.argmax(dim=0).to(torch.uint8))


def image_logits(logits: Tensor, covered: Size, valid: Size, size: Size) -> Tensor:
    """The logits of one image at a size of its own.

    Args:
        logits: [K, h, w].
        covered: (height, width) in pixels of what they cover.
        valid: (height, width) of the image within that, from the top-left corner.
        size: wanted.
    Returns:
        [K, size] float32 (float64 for such logits).
    """
    at_batch = upsampled(logits[None], covered)[..., : valid[0], : valid[1]]
    return upsampled(at_batch, size)[0]


def upsampled(logits: Tensor, size: Size) -> Tensor:
    """Logits [B, K, h, w] resized bilinearly to [B, K, size], in float32 at the least."""
    logits = logits.float() if logits.element_size() < 4 else logits
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def stacked_masks(targets: Sequence[Target], size: Size, num_classes: int, device: torch.device) -> Tensor:
    """The masks of a batch, with the ignored pixel where it is padded.

    Returns:
        [B, size] uint8.
    Raises:
        UserError: an image without a mask, a mask that holds a class the model does not have.
    """
    masks = torch.full((len(targets), *size), IGNORED_PIXEL, dtype=torch.uint8, device=device)
    for image, target in enumerate(targets):
        if target.mask is None:
            raise UserError(f"{target.path}: has no mask: a segmentation model is trained on a segmentation data set")
        assert tuple(target.mask.shape) == tuple(target.size), f"{target.path}: {target.mask.shape} for {target.size}"
        height, width = target.size
        masks[image, :height, :width] = target.mask
    strange = (masks >= num_classes) & (masks != IGNORED_PIXEL)
    # A loss would index out of its classes, or, worse, take the pixel for one of no class.
    if bool(strange.any()):
        image = int(strange.flatten(1).any(dim=1).nonzero()[0])
        raise UserError(
            f"{targets[image].path}: its mask holds class {int(masks[image][strange[image]].max())}, the model has the "
            f"classes 0 to {num_classes - 1} (and {IGNORED_PIXEL} for what is ignored)"
        )
    return masks


def class_problems(num_classes: Any) -> list[str]:
    """What is wrong with a number of classes of a segmentation model, for its builder's error."""
    if type(num_classes) is not int or not 2 <= num_classes <= IGNORED_PIXEL:
        return [
            f"num_classes={num_classes!r}: each pixel has one of 2 to {IGNORED_PIXEL} classes; what belongs to no "
            "object is a class, too, or ignored"
        ]
    return []
