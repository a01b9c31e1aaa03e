"""The IoU losses by hand, against torchvision, and their gradients by finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import (
    box_iou,
    complete_box_iou_loss,
    distance_box_iou,
    generalized_box_iou,
)

from transfer.losses.iou import IOU_LOSSES, box_iou_loss

KINDS = list(IOU_LOSSES)


def random_pairs(count: int = 60, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Boxes of which some overlap and some do not."""
    generator = torch.Generator().manual_seed(0)
    boxes = []
    for _ in range(2):
        corner = torch.rand((count, 2), generator=generator, dtype=dtype) * 40
        boxes.append(torch.cat([corner, corner + 5 + 40 * torch.rand((count, 2), generator=generator, dtype=dtype)], 1))
    return boxes[0], boxes[1]


# Two squares of side 2, one shifted by (1, 1): they share 1 of 7; the box around both has sides 3 and diagonal sqrt 18.
SHIFTED = {
    "iou": 1 - 1 / 7,
    "giou": 1 - 1 / 7 + 2 / 9,
    "diou": 1 - 1 / 7 + 2 / 18,
    "ciou": 1 - 1 / 7 + 2 / 18,  # the aspects are equal
    "cdiou": 1 - 1 / 7 + 4 * math.sqrt(2) / (4 * math.sqrt(18)),
}
# A square of side 4 and one half as wide on its left: 8 of 16 shared; the centres are 1 apart, the diagonal is sqrt 32;
# two of the corners are 2 apart, the other two are the same.
_V = 4 / math.pi**2 * (math.atan(1) - math.atan(0.5)) ** 2
HALVED = {
    "iou": 0.5,
    "giou": 0.5,
    "diou": 0.5 + 1 / 32,
    "ciou": 0.5 + 1 / 32 + _V**2 / (0.5 + _V),
    "cdiou": 0.5 + 4 / (4 * math.sqrt(32)),
}
# Two unit squares with a gap of 2 between them: nothing shared; the box around both is 4 by 1.
DISTANT = {
    "iou": 1.0,
    "giou": 1 + (4 - 2) / 4,
    "diou": 1 + 9 / 17,
    "ciou": 1 + 9 / 17,
    "cdiou": 1 + 4 * 3 / (4 * math.sqrt(17)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_three_pairs_by_hand(kind: str) -> None:
    predicted = torch.tensor([[1.0, 1, 3, 3], [10, 10, 12, 14], [0, 0, 1, 1]], dtype=torch.float64)
    truth = torch.tensor([[2.0, 2, 4, 4], [10, 10, 14, 14], [3, 0, 4, 1]], dtype=torch.float64)
    found = box_iou_loss(kind, predicted, truth)
    expected = [SHIFTED[kind], HALVED[kind], DISTANT[kind]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(box_iou_loss(kind, truth, predicted), found)


@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("iou", lambda a, b: 1 - box_iou(a, b).diagonal()),
        ("giou", lambda a, b: 1 - generalized_box_iou(a, b).diagonal()),
        ("diou", lambda a, b: 1 - distance_box_iou(a, b).diagonal()),
        ("ciou", complete_box_iou_loss),
    ],
)
def test_values_are_torchvisions(kind: str, reference: object) -> None:
    predicted, truth = random_pairs()
    torch.testing.assert_close(box_iou_loss(kind, predicted, truth), reference(predicted, truth), rtol=0, atol=1e-6)  # type: ignore[operator]


def test_the_control_distance_grows_with_the_corners_distances() -> None:
    predicted, truth = random_pairs()
    expected = []
    for a, b in zip(predicted.tolist(), truth.tolist()):
        corners = [math.dist((a[i], a[j]), (b[i], b[j])) for i, j in ((0, 1), (2, 1), (2, 3), (0, 3))]
        around = math.dist((min(a[0], b[0]), min(a[1], b[1])), (max(a[2], b[2]), max(a[3], b[3])))
        expected.append(sum(corners) / (4 * around))
    found = box_iou_loss("cdiou", predicted, truth) - box_iou_loss("iou", predicted, truth)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ciou"])
def test_gradients_by_finite_differences(kind: str) -> None:
    predicted, truth = random_pairs(20)
    assert torch.autograd.gradcheck(lambda x: box_iou_loss(kind, x, truth), (predicted.requires_grad_(),))


def test_the_gradient_of_ciou_by_finite_differences_with_alpha_held() -> None:
    predicted, truth = random_pairs(20)

    def aspect(boxes: Tensor) -> Tensor:
        sides = boxes[:, 2:] - boxes[:, :2]
        return torch.atan(sides[:, 0] / sides[:, 1])

    def parts(boxes: Tensor) -> tuple[Tensor, Tensor]:
        return box_iou_loss("diou", boxes, truth), 4 / math.pi**2 * (aspect(truth) - aspect(boxes)).square()

    _, v = parts(predicted)
    alpha = v / (box_iou_loss("iou", predicted, truth) + v)
    step, numeric = 1e-6, torch.zeros_like(predicted)
    for coordinate in range(4):
        shift = torch.zeros(4, dtype=torch.float64)
        shift[coordinate] = step
        (up, up_v), (down, down_v) = parts(predicted + shift), parts(predicted - shift)
        numeric[:, coordinate] = (up - down + alpha * (up_v - down_v)) / (2 * step)
    predicted.requires_grad_()
    box_iou_loss("ciou", predicted, truth).sum().backward()
    torch.testing.assert_close(predicted.grad, numeric, rtol=1e-4, atol=1e-7)


DEGENERATE = [
    ([5.0, 5, 9, 9], [5.0, 5, 9, 9]),  # equal
    ([5.0, 5, 5, 9], [5.0, 5, 9, 9]),  # no width
    ([5.0, 5, 9, 5], [5.0, 5, 9, 9]),  # no height
    ([5.0, 5, 5, 5], [5.0, 5, 5, 5]),  # two points
    ([5.0, 5, 5, 5], [50.0, 60, 50, 60]),
    ([9.0, 9, 5, 5], [5.0, 5, 9, 9]),  # inside out
    ([0.0, 0, 2e4, 2e4], [5.0, 5, 9, 9]),  # as large as decoding allows
    ([5.0, 5, 9, 9], [9.0, 5, 13, 9]),  # touching
]


@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_boxes_give_finite_losses_and_gradients(kind: str) -> None:
    predicted = torch.tensor([pair[0] for pair in DEGENERATE], requires_grad=True)
    losses = box_iou_loss(kind, predicted, torch.tensor([pair[1] for pair in DEGENERATE]))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert (losses >= -1e-6).all()
    assert losses[0].item() == pytest.approx(0, abs=1e-6)
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_boxes_and_half_precision(kind: str) -> None:
    assert box_iou_loss(kind, torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)
    predicted, truth = random_pairs(5, torch.float32)
    predicted = predicted.half()
    found = box_iou_loss(kind, predicted, truth)
    assert found.dtype == torch.float32
    assert torch.equal(found, box_iou_loss(kind, predicted.float(), truth))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_against_the_gradient_brings_apart_boxes_nearer_except_for_plain_iou(kind: str) -> None:
    predicted = torch.tensor([[0.0, 0, 4, 4]], requires_grad=True)
    truth = torch.tensor([[10.0, 0, 14, 4]])
    box_iou_loss(kind, predicted, truth).sum().backward()
    assert predicted.grad is not None
    toward = -(predicted.grad[0, 0] + predicted.grad[0, 2])
    assert (toward > 1e-4) == (kind != "iou")
