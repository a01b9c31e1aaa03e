"""Sums of a pixel loss image by image, against the loss of the whole batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from transfer.losses.image_by_image import sums_image_by_image
from transfer.losses.pixel_cross_entropy import OHEMCrossEntropy, PixelCrossEntropy, pixel_mean
from transfer.losses.pixel_focal import PixelFocal

LOSSES: dict[str, Any] = {
    "plain": lambda: PixelCrossEntropy(),
    "smoothed": lambda: PixelCrossEntropy(smoothing=0.1),
    "weighted": lambda: PixelCrossEntropy(class_weights=[0.5, 2.0, 0.0]),
    "hard pixels": lambda: OHEMCrossEntropy(threshold=0.5, min_kept=0.3),
    "focal": lambda: PixelFocal(),
}


def logits_and_masks(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Three images of 3 classes, 4x5 cells, 16x20 pixels; a third of the pixels of the second are ignored."""
    generator = torch.Generator().manual_seed(0)
    logits = (2 * torch.randn(3, 3, 4, 5, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()
    masks = torch.randint(3, (3, 16, 20), generator=generator, dtype=torch.uint8)
    masks[1, :, :7] = 255
    return logits, masks


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_those_of_the_whole_batch_upsampled(name: str) -> None:
    loss = LOSSES[name]()
    logits, masks = logits_and_masks()
    full = F.interpolate(logits, size=(16, 20), mode="bilinear", align_corners=False)
    wanted = loss(full, masks)
    got = pixel_mean(*sums_image_by_image(logits, masks, loss.sums))
    # pixel_mean divides by a float32 number of pixels
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=0)
    (slope,), (right,) = torch.autograd.grad(3 * got, logits), torch.autograd.grad(3 * wanted, logits)
    torch.testing.assert_close(slope, right, rtol=1e-5, atol=1e-9)


def test_a_gradient_scale_acts_before_half_precision_does() -> None:
    """A pixel's share of 2**24 pixels is below half precision's smallest number; scaled by 2**16 it is not."""
    logits, masks = logits_and_masks(torch.float16)
    losses, _ = sums_image_by_image(logits, masks, PixelCrossEntropy().sums)
    (losses * 2.0**16 / 2.0**24).backward()
    exact = logits.detach().float().requires_grad_()
    sums_image_by_image(exact, masks, PixelCrossEntropy().sums)[0].backward()
    assert exact.grad is not None
    assert logits.grad is not None
    assert logits.grad.dtype == torch.float16
    torch.testing.assert_close(logits.grad.float() * 256, exact.grad, rtol=1e-2, atol=1e-3)


def test_small_gradients_live_until_they_are_scaled() -> None:
    """Of a class with e**-20 of the probability: 2e-9, below half precision's smallest number until it is scaled."""
    logits = torch.tensor([20.0, 0.0], dtype=torch.float16).view(1, 2, 1, 1).requires_grad_()
    losses, _ = sums_image_by_image(logits, torch.zeros(1, 1, 1, dtype=torch.uint8), PixelCrossEntropy().sums)
    (losses * 2.0**16).backward()
    assert logits.grad is not None
    assert logits.grad[0, 1, 0, 0].item() == pytest.approx(math.exp(-20) * 2**16, rel=1e-2)


def test_a_gradient_of_the_gradient_is_refused() -> None:
    logits, masks = logits_and_masks()
    losses, _ = sums_image_by_image(logits, masks, PixelCrossEntropy().sums)
    (slope,) = torch.autograd.grad(losses.square(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_without_a_gradient_to_take_the_sums_are_the_same() -> None:
    logits, masks = logits_and_masks()
    trained = sums_image_by_image(logits, masks, PixelCrossEntropy().sums)
    with torch.no_grad():
        shown = sums_image_by_image(logits, masks, PixelCrossEntropy().sums)
    constant = sums_image_by_image(logits.detach(), masks, PixelCrossEntropy().sums)
    assert [x.item() for x in shown] == [x.item() for x in trained] == [x.item() for x in constant]
    assert trained[0].requires_grad
    assert not trained[1].requires_grad
    assert not shown[0].requires_grad
