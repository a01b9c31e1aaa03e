"""The binary losses by hand and against torchvision's focal loss."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from transfer.losses.focal import BinaryLoss
from transfer.types import UserError

LOGITS = torch.tensor([[-3.0, -0.4, 0.0], [0.7, 2.5, 40.0]])


def test_focal_loss_by_hand() -> None:
    # p = 0.8: a positive costs 0.25 * 0.2^2 * -log 0.8, a negative 0.75 * 0.8^2 * -log 0.2.
    logits = torch.full((2,), math.log(4))
    found = BinaryLoss("focal", alpha=0.25, gamma=2.0)(logits, torch.tensor([1.0, 0.0]))
    expected = [0.25 * 0.04 * -math.log(0.8), 0.75 * 0.64 * -math.log(0.2)]
    torch.testing.assert_close(found, torch.tensor(expected))
    without = BinaryLoss("focal", alpha=None, gamma=2.0)(logits, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(without, torch.tensor([expected[0] * 4, expected[1] / 0.75]))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [0.25, 0.9, None])
def test_focal_loss_is_torchvisions(alpha: float | None, gamma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(LOGITS.shape, generator=generator).round()
    found = BinaryLoss("focal", alpha=alpha, gamma=gamma)(LOGITS, targets)
    expected = sigmoid_focal_loss(LOGITS, targets, alpha=-1 if alpha is None else alpha, gamma=gamma)
    torch.testing.assert_close(found, expected)


def test_cross_entropy_by_hand_and_focal_loss_without_focus() -> None:
    targets = torch.tensor([[1.0, 0.0, 0.3], [0.0, 1.0, 1.0]])
    plain = BinaryLoss("bce")(LOGITS, targets)
    for x, t, loss in zip(LOGITS.flatten().tolist(), targets.flatten().tolist(), plain.flatten().tolist()):
        expected = t * math.log1p(math.exp(-x)) + (1 - t) * math.log1p(math.exp(x))
        assert loss == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(BinaryLoss("focal", alpha=None, gamma=0.0)(LOGITS, targets), plain)


@pytest.mark.parametrize("kind", ["bce", "focal"])
def test_gradients_are_right_and_finite_far_out(kind: str) -> None:
    loss = BinaryLoss(kind, alpha=0.3, gamma=2.0)  # type: ignore[arg-type]
    targets = torch.tensor([1.0, 0.0, 0.2, 0.975], dtype=torch.float64)
    logits = torch.tensor([-1.5, 0.3, 2.0, -0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), (logits,))
    for gamma in (0.0, 1.0, 2.0):
        far = torch.tensor([-200.0, 200.0, 200.0, -200.0], requires_grad=True)
        BinaryLoss(kind, gamma=gamma)(far, torch.tensor([1.0, 1.0, 0.0, 0.0])).sum().backward()  # type: ignore[arg-type]
        assert far.grad is not None
        assert far.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["bce", "focal"])
def test_half_precision_is_judged_in_float32(kind: str) -> None:
    logits = LOGITS.to(torch.bfloat16)
    targets = torch.ones_like(LOGITS)
    found = BinaryLoss(kind)(logits, targets)  # type: ignore[arg-type]
    assert found.dtype == torch.float32
    assert torch.equal(found, BinaryLoss(kind)(logits.float(), targets))  # type: ignore[arg-type]


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r"class_loss='fokal'.*focal_alpha=2.*focal_gamma=0.5"):
        BinaryLoss("fokal", name="class_loss", alpha=2, gamma=0.5)  # type: ignore[arg-type]
