"""The pyramid against the top-down sum of the paper, worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from transfer.heads.fpn import FPN
from transfer.types import UserError


def make_maps(channels: tuple[int, ...], sizes: list[tuple[int, int]], batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand((batch, c, *size), generator=generator) for c, size in zip(channels, sizes)]


def pass_through(module: nn.Module) -> None:
    """Every convolution hands its one channel on unchanged."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
            side = layer.kernel_size[0] // 2
            layer.weight.data[0, 0, side, side] = 1
            nn.init.zeros_(layer.bias)


def test_every_level_is_itself_plus_all_coarser_ones_enlarged() -> None:
    fpn = FPN((1, 1, 1), (8, 16, 32), width=1)
    pass_through(fpn)
    c3, c4, c5 = make_maps((1, 1, 1), [(8, 12), (4, 6), (2, 3)])

    def enlarged(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    p3, p4, p5, p6 = fpn([c3, c4, c5])
    torch.testing.assert_close(p5, c5)
    torch.testing.assert_close(p4, c4 + enlarged(c5))
    torch.testing.assert_close(p3, c3 + enlarged(c4 + enlarged(c5)))
    torch.testing.assert_close(p6, c5[:, :, ::2, ::2])


def test_levels_finer_than_four_are_left_out_and_one_coarser_is_added() -> None:
    channels = (5, 6, 7, 8, 9)
    fpn = FPN(channels, (2, 4, 8, 16, 32), width=10)
    assert fpn.backbone_strides == (4, 8, 16, 32)
    assert fpn.strides == (4, 8, 16, 32, 64)
    maps = fpn(make_maps(channels, [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]))
    assert [tuple(x.shape) for x in maps] == [
        (2, 10, 16, 24),
        (2, 10, 8, 12),
        (2, 10, 4, 6),
        (2, 10, 2, 3),
        (2, 10, 1, 2),
    ]


def test_sizes_that_do_not_halve_evenly_work() -> None:
    fpn = FPN((3, 3, 3), (8, 16, 32), width=4)
    maps = fpn(make_maps((3, 3, 3), [(9, 13), (5, 7), (3, 4)]))
    assert [tuple(x.shape[2:]) for x in maps] == [(9, 13), (5, 7), (3, 4), (2, 2)]


def test_an_image_does_not_depend_on_its_batch() -> None:
    fpn = FPN((3, 4), (16, 32), width=4).eval()
    features = make_maps((3, 4), [(6, 8), (3, 4)])
    together = fpn(features)
    for image in range(2):
        alone = fpn([x[image : image + 1] for x in features])
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one, other[image : image + 1])


def test_strides_that_do_not_double_are_refused_with_a_remedy() -> None:
    with pytest.raises(UserError, match=r"\(4, 8, 8\).*out_strides"):
        FPN((4, 4, 4), (4, 8, 8))
    with pytest.raises(UserError, match=r"\(8, 32\)"):
        FPN((4, 4), (8, 32))
    with pytest.raises(UserError, match="stride 4 or coarser"):
        FPN((4,), (2,))
