"""RoIAlign by rows of a table, against torchvision's operator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align

from transfer.ops.roi_rows import roi_align_rows

STRIDES = (4, 8)


def maps_of(batch: int = 2, channels: int = 3) -> list[Tensor]:
    """Maps of a 64x96 image, in float64."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, channels, 64 // s, 96 // s, generator=generator, dtype=torch.float64, requires_grad=True)
        for s in STRIDES
    ]


def random_regions(count: int, *, beyond: float) -> Tensor:
    """[count, 5]: image, then a box whose corners reach `beyond` pixels outside the image."""
    generator = torch.Generator().manual_seed(1)
    size = torch.tensor([96.0, 64.0], dtype=torch.float64)
    ends = torch.rand(2, count, 2, generator=generator, dtype=torch.float64) * (size + 2 * beyond) - beyond
    images = torch.randint(2, (count, 1), generator=generator).double()
    return torch.cat([images, ends.amin(dim=0), ends.amax(dim=0)], dim=1)


def expected(maps: list[Tensor], regions: Tensor, levels: Tensor, cells: int, samples: int) -> Tensor:
    """Region after region by torchvision."""
    pooled = [
        roi_align(maps[level], region[None], cells, 1 / STRIDES[level], samples, aligned=True)
        for region, level in zip(regions, levels.tolist())
    ]
    return torch.cat(pooled)


@pytest.mark.parametrize("beyond", [0.0, 40.0])
@pytest.mark.parametrize(("cells", "samples"), [(7, 2), (3, 1), (2, 3)])
def test_values_and_gradients_are_torchvisions_also_beyond_the_image(beyond: float, cells: int, samples: int) -> None:
    maps, regions = maps_of(), random_regions(20, beyond=beyond)
    levels = torch.arange(20) % 2
    pooled = roi_align_rows(maps, regions, levels, strides=STRIDES, output_size=cells, sampling_ratio=samples)
    wanted = expected(maps, regions, levels, cells, samples)
    torch.testing.assert_close(pooled, wanted)
    slopes = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for got, right in zip(torch.autograd.grad(pooled, maps, slopes), torch.autograd.grad(wanted, maps, slopes)):
        torch.testing.assert_close(got, right)


def test_in_float32_a_cell_of_a_large_image_is_off_by_less_than_a_thousandth() -> None:
    # The map rises by 1 a cell, so an error of the value is one of the place, in cells.
    ramp = torch.arange(400.0).expand(1, 1, 300, 400)
    corners = torch.rand(50, 2, generator=torch.Generator().manual_seed(3)) * torch.tensor([700.0, 500.0]) + 8
    regions = torch.cat([torch.zeros(50, 1), corners, corners + 777.7], dim=1)
    pooled = roi_align_rows([ramp], regions, torch.zeros(50).long(), strides=(4,), output_size=7, sampling_ratio=2)
    middles = regions[:, 1:2] + (torch.arange(7) + 0.5) * 777.7 / 7
    torch.testing.assert_close(pooled[:, 0, 0], middles / 4 - 0.5, rtol=0, atol=1e-3)


def test_regions_without_area_and_no_regions_at_all() -> None:
    maps = maps_of()
    point = torch.tensor([[1.0, 30.0, 20.0, 30.0, 20.0]], dtype=torch.float64)
    level = torch.zeros(1, dtype=torch.int64)
    pooled = roi_align_rows(maps, point, level, strides=STRIDES, output_size=2, sampling_ratio=2)
    torch.testing.assert_close(pooled, expected(maps, point, level, 2, 2))
    nothing = roi_align_rows(maps, point[:0], level[:0], strides=STRIDES, output_size=2, sampling_ratio=2)
    assert nothing.shape == (0, 3, 2, 2)
    assert not any(slope.any() for slope in torch.autograd.grad(nothing.sum(), maps))
