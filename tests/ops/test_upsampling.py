"""Upsampling by matrix products, against torch's kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from transfer.ops.upsampling import upsample_bilinear


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (4, 48), (4, 6), (5, 7)])
def test_values_and_gradients_are_those_of_torchs_bilinear_interpolation(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    slopes = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)
    wanted = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    got = upsample_bilinear(maps, size)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(torch.autograd.grad(got, maps, slopes), torch.autograd.grad(wanted, maps, slopes))


@pytest.mark.parametrize("cells", [(4, 380), (4, 381)])
def test_what_takes_the_large_maps_gives_the_same(cells: tuple[int, int]) -> None:
    maps = torch.randn(1, 2, *cells, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    size = (8, 2 * cells[1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = upsample_bilinear(maps, size)
    assert got.dtype == torch.float32
    wanted = F.interpolate(maps.double(), size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(got, wanted.float())
    torch.testing.assert_close(torch.autograd.grad(got.sum(), maps), torch.autograd.grad(wanted.sum(), maps))


def test_maps_of_the_size_are_taken_as_they_are() -> None:
    maps = torch.randn(1, 2, 3, 5)
    assert upsample_bilinear(maps, (3, 5)) is maps


def test_half_precision_and_autocast_give_float32() -> None:
    maps = torch.randn(1, 2, 4, 6)
    wanted = upsample_bilinear(maps.bfloat16().float(), (16, 24))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = upsample_bilinear(maps.bfloat16(), (16, 24))
    assert got.dtype == torch.float32
    assert torch.equal(got, wanted)


def test_maps_that_were_first_seen_in_inference_mode_can_be_trained_on_later() -> None:
    with torch.inference_mode():
        upsample_bilinear(torch.randn(1, 2, 9, 11), (18, 22))
    maps = torch.randn(1, 2, 9, 11, requires_grad=True)
    upsample_bilinear(maps, (18, 22)).sum().backward()
    assert maps.grad is not None
