"""Box arithmetic against hand-computed cases, torchvision's overlap and torchvision's box coder."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from transfer.ops.boxes import box_area, clip_boxes, decode_boxes, encode_boxes, pairwise_iou

CODES = [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (2.0, 3.0, 5.0, 7.0)]


def random_boxes(count: int, seed: int) -> Tensor:
    """[count, 4] xyxy within some 300 px, sides 1..100."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((count, 2), generator=generator) * 200
    return torch.cat([corner, corner + 1 + 99 * torch.rand((count, 2), generator=generator)], dim=1)


def test_area_has_no_one_added() -> None:
    boxes = torch.tensor([[2.0, 3.0, 12.0, 8.0], [0.0, 0.0, 1.0, 1.0], [4.0, 4.0, 4.0, 9.0]])
    assert box_area(boxes).tolist() == [50, 1, 0]


@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (5, 0), (1, 1), (40, 23)])
def test_iou_is_torchvisions(counts: tuple[int, int]) -> None:
    first, second = random_boxes(counts[0], 1), random_boxes(counts[1], 2)
    iou = pairwise_iou(first, second)
    assert iou.shape == counts
    assert iou.dtype == torch.float32
    torch.testing.assert_close(iou, box_iou(first, second))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0.0, 0.0, 10.0, 10.0), 1.0),
        ((5.0, 0.0, 15.0, 10.0), 50 / 150),
        ((2.0, 4.0, 7.0, 6.0), 10 / 100),  # inside
        ((5.0, 6.0, 25.0, 26.0), 20 / 480),
        ((10.0, 0.0, 20.0, 10.0), 0.0),  # touching at an edge: right edges are exclusive
        ((10.0, 10.0, 20.0, 20.0), 0.0),  # touching at a corner
        ((30.0, 40.0, 50.0, 60.0), 0.0),  # apart on both axes: two negative sides must not make an area
        ((30.0, 0.0, 50.0, 10.0), 0.0),
        ((5.0, 0.0, 5.0, 10.0), 0.0),  # no width
        ((5.0, 5.0, 5.0, 5.0), 0.0),  # a point
    ],
)
def test_iou_by_hand(box: tuple[float, ...], expected: float) -> None:
    one, other = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([box])
    assert pairwise_iou(one, other).item() == pytest.approx(expected)
    assert pairwise_iou(other, one).item() == pytest.approx(expected)


def test_iou_of_two_boxes_without_area_is_zero_and_not_a_division_by_zero() -> None:
    flat = torch.tensor([[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 3.0, 9.0]])
    assert torch.equal(pairwise_iou(flat, flat), torch.zeros(2, 2))


def test_clipping_keeps_x_to_the_width_and_y_to_the_height() -> None:
    boxes = torch.tensor([[[-5.0, -6.0, 50.0, 60.0]], [[3.0, 4.0, 5.0, 6.0]], [[35.0, 45.0, 36.0, 46.0]]])
    before = boxes.clone()
    clipped = clip_boxes(boxes, (20, 30))
    assert clipped.tolist() == [[[0, 0, 30, 20]], [[3, 4, 5, 6]], [[30, 20, 30, 20]]]
    assert torch.equal(boxes, before)
    assert clip_boxes(torch.zeros(0, 4), (20, 30)).shape == (0, 4)


def test_deltas_by_hand() -> None:
    # Reference: centre (5, 10), 10 wide, 20 high. Box: centre (15, 15), 20 wide, 10 high.
    reference, box = torch.tensor([[0.0, 0.0, 10.0, 20.0]]), torch.tensor([[5.0, 10.0, 25.0, 20.0]])
    deltas = encode_boxes(box, reference, (1.0, 1.0, 1.0, 1.0))
    torch.testing.assert_close(deltas, torch.tensor([[1.0, 0.25, math.log(2), -math.log(2)]]))
    weighted = encode_boxes(box, reference, (2.0, 3.0, 5.0, 7.0))
    torch.testing.assert_close(weighted, torch.tensor([[2.0, 0.75, 5 * math.log(2), -7 * math.log(2)]]))
    torch.testing.assert_close(decode_boxes(weighted, reference, (2.0, 3.0, 5.0, 7.0)), box)


@pytest.mark.parametrize("code", CODES)
def test_decoding_undoes_encoding(code: tuple[float, float, float, float]) -> None:
    boxes, references = random_boxes(200, 3), random_boxes(200, 4)
    found = decode_boxes(encode_boxes(boxes, references, code), references, code)
    torch.testing.assert_close(found, boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("code", CODES)
def test_the_code_is_that_of_torchvisions_coder(code: tuple[float, float, float, float]) -> None:
    coder = BoxCoder(code)
    boxes, references = random_boxes(100, 5), random_boxes(100, 6)
    torch.testing.assert_close(encode_boxes(boxes, references, code), coder.encode_single(boxes, references))
    deltas = 3 * torch.randn((100, 7, 4), generator=torch.Generator().manual_seed(7))  # some beyond the upper limit
    deltas[:, :, 2:] *= 10
    expected = coder.decode(deltas.flatten(1), [references])  # [100, 7, 4]
    torch.testing.assert_close(decode_boxes(deltas, references, code), expected)
    torch.testing.assert_close(decode_boxes(deltas[:, 2], references, code), expected[:, 2])


def test_a_wild_delta_gives_a_finite_box_of_at_most_sixty_two_times_the_size() -> None:
    reference = torch.tensor([[10.0, 20.0, 26.0, 28.0]])  # 16 by 8
    box = decode_boxes(torch.tensor([[0.0, 0.0, 1e4, -1e4]]), reference, (1.0, 1.0, 1.0, 1.0))
    assert (box[0, 2] - box[0, 0]).item() == pytest.approx(16 * 1000 / 16)
    assert (box[0, 3] - box[0, 1]).item() == 0
    assert (box[0, 1] + box[0, 3]).item() == pytest.approx(2 * 24)


def test_decoding_happens_in_float32() -> None:
    references = random_boxes(20, 8) + 1000
    deltas = torch.randn((20, 4), generator=torch.Generator().manual_seed(9)).to(torch.bfloat16)
    found = decode_boxes(deltas, references, (10.0, 10.0, 5.0, 5.0))
    assert found.dtype == torch.float32
    assert torch.equal(found, decode_boxes(deltas.float(), references, (10.0, 10.0, 5.0, 5.0)))


def test_no_boxes() -> None:
    none = torch.zeros(0, 4)
    assert encode_boxes(none, none, CODES[0]).shape == (0, 4)
    assert decode_boxes(none, none, CODES[0]).shape == (0, 4)
    assert decode_boxes(torch.zeros(0, 3, 4), none, CODES[0]).shape == (0, 3, 4)
    assert box_area(none).shape == (0,)
