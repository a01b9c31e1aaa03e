"""The L1 penalty by hand, its gradient, whom it leaves out, and off as if it were not there."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from transfer.optim.param_groups import parameter_groups, weights_without_norm_and_bias
from transfer.optim.penalties import L1Penalty
from transfer.types import UserError


def small_model() -> nn.Sequential:
    """A convolution with weights 1 and -2, biases of 3; a norm of 3s; a linear layer with a 0."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3.0)
        model[0].weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
        model[3].weight.copy_(torch.tensor([[0.0, 0.5]]))
    return model


def test_value_and_gradient_by_hand() -> None:
    model = small_model()
    loss = torch.tensor(2.0, requires_grad=True)
    total = L1Penalty(model, 0.1)(loss)
    assert total.item() == pytest.approx(2 + 0.1 * (1 + 2 + 0.5), rel=1e-6)
    total.backward()
    assert loss.grad is not None
    assert loss.grad.item() == 1.0
    assert model[0].weight.grad.flatten().tolist() == pytest.approx([0.1, -0.1])
    assert model[3].weight.grad.flatten().tolist() == pytest.approx([0.0, 0.1])  # 0 at 0
    assert all(parameter.grad is None for parameter in (*model[1].parameters(), model[0].bias, model[3].bias))


def test_norms_and_biases_on_demand() -> None:
    penalty = L1Penalty(small_model(), 0.1, norm_and_bias=True)
    assert penalty(torch.tensor(0.0)).item() == pytest.approx(0.1 * (3.5 + 3 * (2 + 4 + 1)), rel=1e-6)


def test_frozen_weights_do_not_count_and_shared_ones_once() -> None:
    model = small_model()
    model.append(nn.Linear(2, 1, bias=False))
    model[4].weight = model[3].weight
    model[0].requires_grad_(False)
    assert L1Penalty(model, 1.0)(torch.tensor(0.0)).item() == 0.5
    assert L1Penalty(model, 1.0, norm_and_bias=True)(torch.tensor(0.0)).item() == 0.5 + 3 * (4 + 1)
    assert L1Penalty(model.requires_grad_(False), 1.0)(torch.tensor(7.0)).item() == 7.0


def test_it_acts_on_what_decays_without_norm_and_bias() -> None:
    model = small_model()
    groups = parameter_groups(model, lr=0.1, weight_decay=0.1, decay_norm_and_bias=False)
    (decaying,) = [group["params"] for group in groups if group["weight_decay"]]
    assert [id(weight) for weight in weights_without_norm_and_bias(model)] == [id(weight) for weight in decaying]
    assert [id(weight) for weight in decaying] == [id(model[0].weight), id(model[3].weight)]


@pytest.mark.parametrize("strength", [None, 0, 0.0])
def test_off_is_the_loss_itself(strength: float | None) -> None:
    loss = torch.tensor(2.0, requires_grad=True) * 3
    assert L1Penalty(small_model(), strength)(loss) is loss


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_sum_is_float32s_under_autocast(dtype: torch.dtype) -> None:
    """4096 weights of 2^-12 + 2^-24: in 16 bits neither the sum nor the total with 1000 would come out."""
    model = nn.Linear(4096, 1, bias=False)
    nn.init.constant_(model.weight, 2**-12 + 2**-24)
    loss = torch.tensor(1000.0, dtype=dtype)
    with torch.autocast("cpu", dtype=dtype):
        total = L1Penalty(model, 0.25)(loss)
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(1000 + 0.25 * (1 + 2**-12), rel=1e-7)
    total.backward()
    assert model.weight.grad is not None
    assert torch.equal(model.weight.grad, torch.full((1, 4096), 0.25))


def test_accumulated_as_the_loss_it_counts_once() -> None:
    whole, halves = small_model(), small_model()
    images = torch.randn(4, 1, 1, 1)
    for model, parts in ((whole.eval(), 1), (halves.eval(), 2)):
        penalised = L1Penalty(model, 0.1)
        for part in images.chunk(parts):
            (penalised(model(part).square().mean()) / parts).backward()
    for a, b in zip(whole.parameters(), halves.parameters()):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("strength", [-1e-5, math.nan, math.inf, "1e-5", True])
def test_nonsense_is_refused(strength: object) -> None:
    with pytest.raises(UserError, match="l1: the strength is"):
        L1Penalty(small_model(), strength)  # type: ignore[arg-type]
