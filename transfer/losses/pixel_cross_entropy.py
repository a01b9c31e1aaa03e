"""Cross entropy of every pixel with its class: smoothed, weighted by class, or of the hard pixels alone (OHEM).

Source: Shrivastava et al. 2016, Training Region-based Object Detectors with Online Hard Example Mining (arXiv
1604.03540), in the form that segmentation uses (MMSegmentation's OHEM sampler, HRNet's and CCNet's loss): a pixel is
hard where its own class has a probability below a threshold, and a least number of pixels is kept whatever they are.

The mean is over valid pixels of all processes. With class weights it is torch's weighted mean: the sum of w[class] *
loss over the sum of w[class]. The weight multiplies the whole loss of a pixel of that class; torch, where smoothing and
weights meet, weighs each term of the smoothed target by its own class instead.

Deviation: the hard pixels are chosen image by image, and the least number is a share of the image's valid pixels, not a
count for the whole batch. What is kept of an image then depends neither on the batch around it nor on the number of
processes, and a count made for large crops (100,000) does not silently keep every pixel of small ones.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from transfer.losses.soft_targets import soft_cross_entropy
from transfer.ops.world import mean_over_processes
from transfer.types import IGNORED_PIXEL, UserError, is_number

FORMS = ("usual", "paper")


class PixelCrossEntropy:
    """Cross entropy averaged over the valid pixels.

    Args:
        smoothing: of the labels, in [0, 1).
        form: "usual" or "paper", the two ways to smooth; see `transfer.losses.soft_targets`.
        class_weights: one number of at least 0 a class; None: all 1.

    Raises:
        UserError: an argument is not as said above.
    """

    def __init__(
        self,
        *,
        smoothing: float = 0.0,
        form: Literal["usual", "paper"] = "usual",
        class_weights: Sequence[float] | None = None,
    ) -> None:
        problems = _problems(smoothing, form, class_weights)
        if problems:
            raise UserError(f"{type(self).__name__}: {'; '.join(problems)}")
        self.smoothing, self.form = smoothing, form
        self.class_weights = None if class_weights is None else tuple(float(weight) for weight in class_weights)

    def check_classes(self, num_classes: int) -> None:
        """Raises: UserError where there is not one weight a class."""
        if self.class_weights is not None and len(self.class_weights) != num_classes:
            raise UserError(
                f"{type(self).__name__}: class_weights has {len(self.class_weights)} numbers, the model has "
                f"{num_classes} classes: give one for each"
            )

    def __call__(self, logits: Tensor, masks: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: [B, K, H, W] floating.
            masks: [B, H, W] uint8 or int64: 0..K-1 or IGNORED_PIXEL.
        Returns:
            Scalar; 0 where no process has a valid pixel.
        """
        return pixel_mean(*self.sums(logits, masks))

    def sums(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the pixels' weighted losses and that of their weights: a batch's are the sums of its images'."""
        labels = masks.long()
        if self.class_weights is None:
            return self._cross_entropy(logits, labels, None, "sum"), (labels != IGNORED_PIXEL).sum()
        weights = self.weights_of(logits, labels)
        return self._cross_entropy(logits, labels, weights, "sum"), weights.sum()

    def weights_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[B, H, W]: the weight of each pixel's class, 0 where it is ignored."""
        self.check_classes(logits.shape[1])
        kept = labels != IGNORED_PIXEL
        if self.class_weights is None:
            return kept.to(logits.dtype)
        table = logits.new_tensor(self.class_weights)  # [K]
        return table[labels.where(kept, torch.zeros_like(labels))] * kept

    def _cross_entropy(
        self, logits: Tensor, labels: Tensor, weights: Tensor | None, reduction: Literal["sum", "none"]
    ) -> Tensor:
        return soft_cross_entropy(
            logits,
            labels,
            smoothing=self.smoothing,
            form=self.form,
            weights=weights,
            reduction=reduction,
            ignore_index=IGNORED_PIXEL,
        )


class OHEMCrossEntropy(PixelCrossEntropy):
    """Cross entropy averaged over the hard pixels alone.

    Args:
        threshold: a pixel is hard where the model gives its class a probability below this, in (0, 1].
        min_kept: of an image with fewer hard pixels than this share of its valid ones, so many are kept, the hardest
            first; in [0, 1]. 1 keeps all.
        smoothing, form, class_weights: of the loss, as above; which pixels are hard does not depend on them.

    Raises:
        UserError: an argument is not as said above.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.7,
        min_kept: float = 1 / 16,
        smoothing: float = 0.0,
        form: Literal["usual", "paper"] = "usual",
        class_weights: Sequence[float] | None = None,
    ) -> None:
        problems = []
        if not is_number(threshold) or not 0 < threshold <= 1:
            problems.append(f"threshold={threshold!r} must be a number in (0, 1]: a probability")
        if not is_number(min_kept) or not 0 <= min_kept <= 1:
            problems.append(
                f"min_kept={min_kept!r} must be a number in [0, 1]: a share of an image's valid pixels "
                "(100,000 of 512x1024 are 0.19)"
            )
        if problems:
            raise UserError(f"OHEMCrossEntropy: {'; '.join(problems + _problems(smoothing, form, class_weights))}")
        super().__init__(smoothing=smoothing, form=form, class_weights=class_weights)
        self.threshold, self.min_kept = threshold, min_kept

    def sums(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """As above, of the hard pixels."""
        labels = masks.long()
        weights = self.weights_of(logits, labels)
        losses = self._cross_entropy(logits, labels, None if self.class_weights is None else weights, "none")
        hard = self.hard_pixels(logits, labels)
        return (losses * hard).sum(), (weights * hard).sum()

    @torch.no_grad()
    def hard_pixels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[B, H, W] bool: the valid pixels that are learnt from."""
        kept = labels != IGNORED_PIXEL
        surprise = F.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED_PIXEL)  # -log p of its class
        surprise = surprise.masked_fill(~kept, -math.inf)
        hard = surprise > -math.log(self.threshold)
        for image in range(len(labels)):
            least = math.ceil(self.min_kept * int(kept[image].sum()))
            if int(hard[image].sum()) < least:
                hard[image].view(-1)[surprise[image].flatten().topk(least).indices] = True
        return hard


def pixel_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """The sum of losses over the sum of weights, the latter of all processes.

    Args:
        losses: any shape, or their sum.
        weights: any shape, at least 0: with none above 0 the loss is 0.
    """
    total = mean_over_processes(weights.sum(), losses.device)
    return losses.sum() / torch.where(total > 0, total, torch.ones_like(total))


def _problems(smoothing: float, form: str, class_weights: Sequence[float] | None) -> list[str]:
    """What is wrong with the arguments of a cross entropy."""
    problems = []
    if not is_number(smoothing) or not 0 <= smoothing < 1:
        problems.append(f"smoothing={smoothing!r} must be a number in [0, 1)")
    if form not in FORMS:
        near = difflib.get_close_matches(str(form), FORMS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        problems.append(f"form={form!r} is none of {', '.join(FORMS)}{hint}")
    if class_weights is not None and (
        isinstance(class_weights, str)
        or not isinstance(class_weights, Sequence)
        or not all(is_number(weight) and 0 <= weight < math.inf for weight in class_weights)
        or not any(weight > 0 for weight in class_weights)
    ):
        problems.append(
            f"class_weights={class_weights!r} must be a list of one number a class, each at least 0, not all 0"
        )
    return problems
