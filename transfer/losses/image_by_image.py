"""A pixel loss of upsampled logits, image by image, without ever holding those of all images.

A head's logits are small at their own stride and large once upsampled: 150 classes of 8 images of 480x480 pixels are
1.1 GB, of which a cross entropy keeps two tensors for the backward pass and makes two more in it. Where the loss is a
sum over images, its gradient by the small logits can be taken at once, one image after another, and is all that need be
kept. On a CPU one image also fits the cache. The factor that the loss gets later, a normaliser that all images enter
or a gradient scale, multiplies that gradient, which stays in float32 until then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from transfer.ops.upsampling import upsample_bilinear

Sums = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(logits [1, K, H, W], masks [1, H, W]) -> the sums over pixels of losses and of weights, scalars."""


def sums_image_by_image(logits: Tensor, masks: Tensor, sums: Sums) -> tuple[Tensor, Tensor]:
    """The sums of a whole batch.

    Args:
        logits: [B, K, h, w] floating, B at least 1; upsampled bilinearly to the masks, in float32 at the least.
        masks: [B, H, W].
        sums: of one image.
    Returns:
        Sum of losses and sum of weights, scalars. The first has a gradient once, not a gradient of gradients.
    """
    return _SumsImageByImage.apply(logits, masks, sums)


def sums_of(loss: object) -> Sums | None:
    """The method `sums` of a loss whose `pixel_mean` it is; None where it has none.

    A class that has its own `__call__` below the one that has `sums` is another loss than its sums say: None, too.
    """
    for kind in type(loss).__mro__:
        if "sums" in vars(kind):
            return loss.sums  # type: ignore[attr-defined]
        if "__call__" in vars(kind):
            return None
    return None


class _SumsImageByImage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, masks: Tensor, sums: Sums) -> tuple[Tensor, Tensor]:
        losses, weights, gradients = [], [], []
        for of_image, mask in zip(logits.detach()[:, None], masks[:, None], strict=True):
            with torch.set_grad_enabled(ctx.needs_input_grad[0]):
                # A float32 leaf: half precision would lose the gradients of single pixels.
                small = of_image.float() if of_image.element_size() < 4 else of_image  # [1, K, h, w]
                small = small.detach().requires_grad_(ctx.needs_input_grad[0])
                loss, weight = sums(upsample_bilinear(small, (int(mask.shape[1]), int(mask.shape[2]))), mask)
            losses.append(loss.detach())
            weights.append(weight)
            if ctx.needs_input_grad[0]:
                gradients += torch.autograd.grad(loss, small)
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))  # [B, K, h, w]
        ctx.dtype = logits.dtype
        total = torch.stack(weights).sum()
        ctx.mark_non_differentiable(total)
        return torch.stack(losses).sum(), total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_sums: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * of_sums[0]).to(ctx.dtype), None, None
