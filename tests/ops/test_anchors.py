"""Anchors against hand-computed cases, torchvision's generator and RoIAlign's idea of where a cell lies."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionAnchors
from torchvision.ops import roi_align

from transfer.ops.anchors import AnchorGenerator
from transfer.ops.boxes import box_area
from transfer.types import UserError

CPU = torch.device("cpu")


def test_two_cells_by_hand() -> None:
    generator = AnchorGenerator([8], scales=(2.0,), ratios=(0.25, 1.0, 4.0))
    (anchors,) = generator([(1, 2)], CPU)
    # Centres (4, 4) and (12, 4); side 16: 32 wide and 8 high, 16 by 16, 8 wide and 32 high.
    assert anchors.tolist() == [
        [-12, 0, 20, 8],
        [-4, -4, 12, 12],
        [0, -12, 8, 20],
        [-4, 0, 28, 8],
        [4, -4, 20, 12],
        [8, -12, 16, 20],
    ]
    assert anchors.dtype == torch.float32


def test_cells_come_in_row_order_and_levels_in_the_order_of_the_strides() -> None:
    generator = AnchorGenerator([4, 8], scales=(1.0,), ratios=(1.0,))
    fine, coarse = generator([(2, 3), (1, 2)], CPU)
    centers = (fine[:, :2] + fine[:, 2:]) / 2
    assert centers.tolist() == [[2, 2], [6, 2], [10, 2], [2, 6], [6, 6], [10, 6]]
    assert coarse.tolist() == [[0, 0, 8, 8], [8, 0, 16, 8]]


def test_the_area_is_that_of_the_scale_whatever_the_ratio() -> None:
    scales, ratios, stride = (2.0, 8.0), (0.3, 0.5, 1.0, 2.0, 5.0), 16
    generator = AnchorGenerator([stride], scales=scales, ratios=ratios)
    assert generator.anchors_per_cell == 10
    (anchors,) = generator([(2, 2)], CPU)
    assert anchors.shape == (2 * 2 * 10, 4)
    areas = box_area(anchors).view(4, 2, 5)  # cell, scale, ratio
    torch.testing.assert_close(areas, torch.tensor([32.0**2, 128.0**2]).view(1, 2, 1).expand(4, 2, 5))
    sides = (anchors[:, 2:] - anchors[:, :2]).view(4, 2, 5, 2)
    torch.testing.assert_close(sides[..., 1] / sides[..., 0], torch.tensor(ratios).expand(4, 2, 5))


def test_anchors_are_torchvisions_moved_to_the_middle_of_the_cell() -> None:
    strides, map_sizes, ratios = [4, 8, 16], [(5, 7), (3, 4), (2, 2)], (0.25, 1.0, 4.0)
    found = AnchorGenerator(strides, scales=(8.0,), ratios=ratios)(map_sizes, CPU)
    theirs = TorchvisionAnchors(tuple((8 * stride,) for stride in strides), (ratios,) * 3)
    grids = theirs.grid_anchors([list(size) for size in map_sizes], [[torch.tensor(s)] * 2 for s in strides])
    for ours, other, stride in zip(found, grids, strides, strict=True):
        torch.testing.assert_close(ours, other + stride / 2)


def test_an_anchor_as_large_as_its_cell_pools_that_cell_alone() -> None:
    features = torch.rand((1, 1, 4, 6), generator=torch.Generator().manual_seed(0))
    (anchors,) = AnchorGenerator([8], scales=(1.0,), ratios=(1.0,))([(4, 6)], CPU)
    pooled = roi_align(features, [anchors], 1, 1 / 8, sampling_ratio=1, aligned=True)
    torch.testing.assert_close(pooled.flatten(), features.flatten())


def test_equal_shapes_are_made_once_and_other_shapes_are_not_mixed_up() -> None:
    generator = AnchorGenerator([8])
    first = generator([(2, 3)], CPU)[0]
    second = generator([(3, 2)], CPU)[0]
    assert generator([(2, 3)], CPU)[0] is first
    assert not torch.equal(first, second)
    for side in range(1, 200):  # random shapes must not fill the memory
        generator([(side, 1)], CPU)
    assert len(generator._kept) <= 32
    assert torch.equal(generator([(2, 3)], CPU)[0], first)


@pytest.mark.parametrize("wrong", [{"scales": ()}, {"ratios": ()}, {"scales": (8.0, 0.0)}, {"ratios": (1.0, -1.0)}])
def test_impossible_anchors_are_refused(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        AnchorGenerator([8], **wrong)
