"""Default boxes by hand, against torchvision's for SSD300, and for images of any size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator as TorchvisionBoxes
from torchvision.models.detection.image_list import ImageList

from transfer.heads.ssd import ASPECT_RATIOS, linear_scales
from transfer.ops.anchors import DefaultBoxGenerator

CPU = torch.device("cpu")
RELEASED = (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05)
MAPS_300 = [(side, side) for side in (38, 19, 10, 5, 3, 1)]


def ssd300() -> DefaultBoxGenerator:
    return DefaultBoxGenerator([8, 16, 32, 64, None, None], sides=[300 * s for s in RELEASED], ratios=ASPECT_RATIOS)


def torchvisions(
    map_sizes: list[tuple[int, int]], size: int, *, steps: list[int] | None, clip: bool, scales: tuple[float, ...]
) -> Tensor:
    generator = TorchvisionBoxes(
        [[int(ratio) for ratio in ratios] for ratios in ASPECT_RATIOS], scales=list(scales), steps=steps, clip=clip
    )
    images = ImageList(torch.zeros(1, 3, size, size), [(size, size)])
    return generator(images, [torch.zeros(1, 1, *map_size) for map_size in map_sizes])[0]


def test_two_cells_by_hand() -> None:
    generator = DefaultBoxGenerator([10], sides=[4.0, 9.0], ratios=[[4.0]])
    assert generator.boxes_per_cell == (4,)
    found = generator([(1, 2)], (10, 20), CPU)
    # Centres (5, 5) and (15, 5); 4 by 4, 6 by 6 (the root of 4 * 9), 8 by 2, 2 by 8.
    assert found.boxes.tolist() == [
        [3, 3, 7, 7],
        [2, 2, 8, 8],
        [1, 4, 9, 6],
        [4, 1, 6, 9],
        [13, 3, 17, 7],
        [12, 2, 18, 8],
        [11, 4, 19, 6],
        [14, 1, 16, 9],
    ]
    assert found.corners.tolist() == [[0, 0]] * 4 + [[10, 0]] * 4
    assert found.boxes.dtype == torch.float32


def test_ssd300_has_the_paper_s_8732_boxes() -> None:
    assert ssd300().boxes_per_cell == (4, 6, 6, 6, 4, 4)
    assert len(ssd300()(MAPS_300, (300, 300), CPU)) == 8732
    squares = {round(width) for shapes in ssd300().shapes for width, height in shapes[:1]}
    assert squares == {30, 60, 111, 162, 213, 264}  # the released code's min_sizes


def test_ssd300_s_boxes_are_torchvision_s() -> None:
    """With the released code's steps: 100 and 300 px are the image shared out among 3 cells and 1."""
    steps = [8, 16, 32, 64, 100, 300]
    found = ssd300()(MAPS_300, (300, 300), CPU).boxes
    expected = torchvisions(MAPS_300, 300, steps=steps, clip=False, scales=RELEASED)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    # Its ssd300_vgg16 limits sides to the image's; the released code, like this one, does not.
    clipped = torchvisions(MAPS_300, 300, steps=steps, clip=True, scales=RELEASED)
    sides = found[:, 2:] - found[:, :2]
    same = (sides <= 300).all(dim=1)
    assert int((~same).sum()) == 9 * 2 + 2  # at ratio 2, both ways: 213 px in nine cells, 264 px in one
    torch.testing.assert_close(found[same], clipped[same], rtol=0, atol=1e-3)
    torch.testing.assert_close(clipped[:, 2:] - clipped[:, :2], sides.clamp(max=300), rtol=0, atol=1e-3)


def test_where_strides_divide_the_side_centres_are_the_paper_s() -> None:
    """(i + 0.5) / f for f cells, which torchvision takes where it is given no steps."""
    map_sizes = [(512 // stride, 512 // stride) for stride in (8, 16, 32, 64, 128, 256)]
    scales = linear_scales(6)
    generator = DefaultBoxGenerator(
        [8, 16, 32, 64, 128, 256], sides=[512 * scale for scale in scales], ratios=ASPECT_RATIOS
    )
    expected = torchvisions(map_sizes, 512, steps=None, clip=False, scales=scales)
    torch.testing.assert_close(generator(map_sizes, (512, 512), CPU).boxes, expected, rtol=0, atol=1e-3)


def test_the_paper_s_scales() -> None:
    # Section 3.1: 0.1 on conv4_3; equation 4 with 0.2, 0.9 and five maps for the others; one more for the last square.
    assert linear_scales(6) == pytest.approx((0.1, 0.2, 0.375, 0.55, 0.725, 0.9, 1.075))
    assert linear_scales(4) == pytest.approx((0.1, 0.2, 0.55, 0.9, 1.25))
    for maps in range(1, 9):
        assert len(linear_scales(maps)) == maps + 1
    for exact, released in zip(linear_scales(6)[:-1], RELEASED):  # which steps by int(17.5) hundredths
        assert 0 <= exact - released < 0.021


def test_boxes_do_not_depend_on_how_far_an_image_is_padded() -> None:
    generator = DefaultBoxGenerator([8, 16], sides=[10, 20, 40], ratios=[[2], [2, 3]])
    small = generator([(4, 3), (2, 2)], (32, 24), CPU)
    large = generator([(8, 12), (4, 6)], (64, 96), CPU)
    rows = {tuple(row) for row in torch.cat([large.boxes, large.corners], dim=1).tolist()}
    assert {tuple(row) for row in torch.cat([small.boxes, small.corners], dim=1).tolist()} < rows


def test_boxes_on_padding_alone() -> None:
    found = DefaultBoxGenerator([8, None], sides=[10, 20, 40], ratios=[[2], [2]])([(2, 3), (1, 2)], (16, 24), CPU)
    on_image = found.on_image([(16, 24), (8, 9), (9, 8)]).view(3, 8, 4)
    assert on_image.any(dim=2).equal(on_image.all(dim=2))  # of a cell all or none
    # Cells from x = 0, 8, 16 by y = 0, 8 on the first map, from x = 0, 12 on the second.
    assert on_image[:, :, 0].tolist() == [
        [True] * 8,
        [True, True, False, False, False, False, True, False],
        [True, False, False, True, False, False, True, False],
    ]


def test_equal_shapes_are_made_once_and_other_shapes_are_not_mixed_up() -> None:
    generator = DefaultBoxGenerator([None], sides=[4, 9], ratios=[[2]])
    first = generator([(1, 2)], (30, 40), CPU)
    assert generator([(1, 2)], (30, 40), CPU) is first
    assert not torch.equal(generator([(1, 2)], (30, 50), CPU).boxes, first.boxes)  # the same map of another image
    for side in range(1, 200):  # random shapes must not fill the memory
        generator([(side, 1)], (30, 40), CPU)
    assert len(generator._kept) <= 32
    assert torch.equal(generator([(1, 2)], (30, 40), CPU).boxes, first.boxes)


def test_areas_are_those_of_the_squares() -> None:
    boxes = ssd300()(MAPS_300, (300, 300), CPU).boxes[:4].double()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    assert areas.tolist() == pytest.approx([900, 30 * 60, 900, 900], rel=1e-5)
    width, height = (boxes[2, 2:] - boxes[2, :2]).tolist()
    assert (width, height) == pytest.approx((30 * math.sqrt(2), 30 / math.sqrt(2)), rel=1e-5)
