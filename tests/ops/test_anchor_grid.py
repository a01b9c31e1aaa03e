"""Slots of a grid by hand: their order, the code of boxes, and whose slot a box is."""

from __future__ import annotations

import math

import pytest
import torch

from transfer.ops.anchor_grid import AnchorGrid, Grid, checked_anchors, shape_iou
from transfer.types import UserError

CPU = torch.device("cpu")
ANCHORS = (((4.0, 6.0), (10.0, 8.0)), ((20.0, 24.0),))


def small_grid(height: int = 32, width: int = 48) -> Grid:
    """Two anchors on cells of 8 px, one on cells of 16."""
    return AnchorGrid(ANCHORS, (8, 16))([(height // 8, width // 8), (height // 16, width // 16)], CPU)


def test_iou_of_shapes_by_hand() -> None:
    iou = shape_iou(torch.tensor([[4.0, 6.0], [10.0, 2.0]]), torch.tensor([[4.0, 6.0], [2.0, 12.0], [10.0, 10.0]]))
    # 4x6 with 2x12 share 2x6 of 24 + 24; with 10x10 all of 24 of 100. 10x2 shares 4x2 with 4x6, 2x2 with 2x12.
    expected = [[1, 12 / 36, 0.24], [8 / 36, 4 / 40, 0.2]]
    torch.testing.assert_close(iou, torch.tensor(expected))


def test_slots_are_ordered_by_level_cell_and_anchor() -> None:
    slots = small_grid().slots
    assert len(slots) == 2 * 4 * 6 + 2 * 3
    assert slots.strides[:, 0].tolist() == [8] * 48 + [16] * 6
    assert slots.anchors[:3].tolist() == [[4, 6], [10, 8], [4, 6]]
    assert slots.cells[:4].tolist() == [[0, 0], [0, 0], [1, 0], [1, 0]]  # two anchors, then the next column
    assert slots.cells[12:14].tolist() == [[0, 1], [0, 1]]  # the second row of six columns
    assert slots.cells[48:].tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]


def test_a_box_is_decoded_by_hand() -> None:
    slots = small_grid().slots.take(torch.tensor([2 * (6 * 2 + 3) + 1]))  # row 2, column 3, anchor 10 x 8
    raw = torch.tensor([[0.0, math.log(3), math.log(2), -math.log(2)]])
    # Centre (3.5 * 8, 2.75 * 8) = (28, 22), sides 20 and 4.
    torch.testing.assert_close(slots.decode(raw), torch.tensor([[18.0, 20.0, 38.0, 24.0]]))
    assert slots.decode(raw.half()).dtype == torch.float32


def test_wild_numbers_give_finite_boxes() -> None:
    raw = torch.tensor([[1e4, -1e4, 1e4, 1e4]]).expand(54, 4)
    assert small_grid().slots.decode(raw).isfinite().all()


def test_encoding_is_the_inverse_of_decoding_and_batches_decode_alike() -> None:
    slots = small_grid().slots
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn((3, len(slots), 4), generator=generator)
    boxes = slots.decode(raw)
    for image in range(3):
        offsets, log_sides = slots.encode(boxes[image])
        torch.testing.assert_close(offsets, torch.sigmoid(raw[image, :, :2]), rtol=0, atol=1e-4)
        torch.testing.assert_close(log_sides, raw[image, :, 2:], rtol=0, atol=1e-4)


def test_a_box_without_area_has_a_finite_code() -> None:
    grid = small_grid()
    boxes = torch.tensor([[5.0, 5.0, 5.0, 9.0], [5.0, 5.0, 5.0, 5.0]])
    slot = grid.slot_of(boxes)
    assert all(part.isfinite().all() for part in grid.slots.take(slot).encode(boxes))


def test_the_slot_of_a_box_by_hand() -> None:
    boxes = torch.tensor(
        [
            [17.0, 9.0, 21.0, 15.0],  # 4 x 6 around (19, 12): column 2, row 1
            [24.0, 16.0, 34.0, 25.0],  # 10 x 9 around (29, 20.5): column 3, row 2
            [20.0, 8.0, 44.0, 32.0],  # 24 x 24 around (32, 20): column 2, row 1 of the coarse level
            [44.0, 28.0, 48.0, 32.0],  # in the last cell
            [44.0, 28.0, 56.0, 40.0],  # its centre is outside, at (50, 34): it falls to the last cell
        ]
    )
    expected = [2 * (6 + 2), 2 * (2 * 6 + 3) + 1, 48 + 3 + 2, 2 * 23, 2 * 23 + 1]
    assert small_grid().slot_of(boxes).tolist() == expected
    assert small_grid().slot_of(boxes[:0]).tolist() == []


@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_the_slot_of_a_box_contains_its_centre_and_no_other_shape_fits_better(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    height, width = size
    corner = torch.rand((200, 2), generator=generator) * torch.tensor([width - 40.0, height - 40.0])
    boxes = torch.cat([corner, corner + 1 + 39 * torch.rand((200, 2), generator=generator)], dim=1)
    grid = small_grid(height, width)
    chosen = grid.slots.take(grid.slot_of(boxes))
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert (chosen.cells * chosen.strides <= centers).all()
    assert (centers < (chosen.cells + 1) * chosen.strides).all()
    for (x0, y0, x1, y1), anchor in zip(boxes.tolist(), chosen.anchors.tolist()):

        def iou(w: float, h: float, sides: tuple[float, float] = (x1 - x0, y1 - y0)) -> float:
            shared = min(w, sides[0]) * min(h, sides[1])
            return shared / (w * h + sides[0] * sides[1] - shared)

        best = max((shape for level in ANCHORS for shape in level), key=lambda shape: iou(*shape))
        assert tuple(anchor) == best


def test_cells_that_hold_a_pixel_are_on_the_image() -> None:
    slots = small_grid().slots
    # 17 x 20 px: columns 0 to 2 and rows 0 to 2 of the fine level, 0 and 1 of the coarse one.
    cut, whole = slots.on_image([(17, 20), (32, 48)])
    assert whole.all()
    expected = (slots.cells * slots.strides < torch.tensor([20.0, 17.0])).all(dim=1)
    assert torch.equal(cut, expected)
    assert int(cut.sum()) == 2 * 3 * 3 + 2 * 2
    assert int(slots.on_image([(16, 16)]).sum()) == 2 * 2 * 2 + 1  # a cell that begins at the border is outside


def test_grids_are_kept_for_equal_maps() -> None:
    generator = AnchorGrid(ANCHORS, (8, 16))
    first = generator([(4, 6), (2, 3)], CPU)
    assert generator([(4, 6), (2, 3)], CPU) is first
    assert len(generator([(6, 4), (3, 2)], CPU).slots) == len(first.slots)
    assert generator([(6, 4), (3, 2)], CPU) is not first


def test_anchors_of_another_form_are_refused_with_the_form() -> None:
    for wrong in ((10, 13), [[(10, 13)]], "paper", None):
        with pytest.raises(UserError, match=r"2 levels, fine to coarse, of .width, height. in pixels"):
            checked_anchors(wrong, 2)
    for level in ([], [(10, 13, 4)], [10, 13], [(10, 0)], [(10, "13")]):
        with pytest.raises(UserError, match="anchors of level 1 are"):
            checked_anchors([[(10, 13)], level], 2)
    assert checked_anchors([[[10, 13]], [[3, 4.5]]], 2) == (((10.0, 13.0),), ((3.0, 4.5),))
