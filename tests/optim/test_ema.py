"""The moving average against numbers worked out by hand, and its promise to leave the model alone."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch import nn

from transfer.optim.ema import EMA
from transfer.types import UserError


class Tied(nn.Module):
    """A weight under two names, and a table that holds an infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(1, 1, bias=False)
        self.second = nn.Linear(1, 1, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))


def fill(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def test_two_updates_by_hand() -> None:
    model = nn.Linear(1, 1)
    fill(model, 0.0)
    ema = EMA(model, decay=0.75, warm_up=0)
    fill(model, 8.0)
    ema.update(model)  # 0.75 * 0 + 0.25 * 8 = 2
    assert ema.module.weight.item() == 2.0
    fill(model, 4.0)
    ema.update(model)  # 0.75 * 2 + 0.25 * 4 = 2.5
    assert ema.module.weight.item() == 2.5
    assert ema.module.bias.item() == 2.5
    assert model.weight.item() == 4.0


def test_ramp() -> None:
    model = nn.Linear(1, 1)
    ema = EMA(model, decay=0.9998, warm_up=2000)
    assert ema.decay_at(2000) == pytest.approx(0.9998 * (1 - 1 / math.e), rel=1e-12)
    assert ema.decay_at(1) == pytest.approx(0.0004997751, rel=1e-6)
    assert ema.decay_at(10**6) == pytest.approx(0.9998, rel=1e-12)
    fill(ema.module, 0.0)
    fill(model, 1.0)
    ema.update(model)
    assert ema.module.weight.item() == pytest.approx(1 - 0.0004997751, rel=1e-6)


def test_running_statistics_are_averaged_and_counters_copied() -> None:
    model = nn.BatchNorm1d(1, momentum=1.0)
    ema = EMA(model, decay=0.5, warm_up=0)
    model(torch.tensor([[2.0], [6.0]]))  # mean 4, unbiased variance 8
    ema.update(model)
    assert ema.module.running_mean.item() == pytest.approx(2.0)  # half of 0 and 4
    assert ema.module.running_var.item() == pytest.approx(4.5)  # half of 1 and 8
    assert ema.module.num_batches_tracked.item() == 1
    assert ema.module.num_batches_tracked.dtype == torch.int64


def test_a_shared_weight_moves_once_and_an_infinity_stays_one() -> None:
    model = Tied()
    fill(model, 0.0)
    ema = EMA(model, decay=0.5, warm_up=0)
    fill(model, 1.0)
    ema.update(model)
    assert ema.module.first.weight is ema.module.second.weight
    assert ema.module.first.weight.item() == 0.5
    assert ema.module.mask.tolist() == [0.0, -math.inf]


def test_frozen_weights_stay_equal_to_the_last_bit() -> None:
    torch.manual_seed(0)
    model = nn.Linear(64, 64)
    ema = EMA(model)
    for _ in range(50):
        ema.update(model)
    assert torch.equal(ema.module.weight, model.weight)


def train(with_ema: bool) -> tuple[nn.Module, EMA | None, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    ema = EMA(model, decay=0.9, warm_up=5) if with_ema else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
        if ema is not None:
            ema.update(model)
    return model, ema, torch.rand(1)


def test_training_is_the_same_with_and_without() -> None:
    plain, _, plain_draw = train(with_ema=False)
    model, ema, draw = train(with_ema=True)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), model.state_dict().values()))
    assert torch.equal(plain_draw, draw)
    assert model.training
    assert ema is not None
    assert not any(module.training for module in ema.module.modules())
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
    assert not torch.equal(ema.module[0].weight, model[0].weight)


def test_resume_goes_on_as_if_unbroken() -> None:
    model, ema, _ = train(with_ema=True)
    assert ema is not None
    file = io.BytesIO()
    torch.save(ema.state_dict(), file)
    file.seek(0)
    resumed = EMA(model, decay=0.9, warm_up=5)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.updates == 5
    fill(model, 0.25)
    for average in (ema, resumed):
        average.update(model)
    assert all(
        torch.equal(a, b) for a, b in zip(ema.module.state_dict().values(), resumed.module.state_dict().values())
    )


def test_nonsense_is_refused_all_at_once() -> None:
    with pytest.raises(UserError, match=r"decay is 1\.0(.|\n)*warm_up is -1"):
        EMA(nn.Linear(1, 1), decay=1.0, warm_up=-1)
