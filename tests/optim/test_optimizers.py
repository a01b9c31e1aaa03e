"""Learning-rate scaling against BoT's figures, the torch optimizers built, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transfer.optim.optimizers import SGD, AdamW
from transfer.types import UserError


@pytest.mark.parametrize(("batch", "lr"), [(256, 0.1), (1024, 0.4), (64, 0.025)])
def test_linear_scaling_gives_the_papers_lr(batch: int, lr: float) -> None:
    optimizer = SGD(lr=0.1, base_batch=256).build(nn.Linear(2, 2), global_batch=batch)
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(lr)]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [pytest.approx(lr)]


def test_square_root_scaling_and_none() -> None:
    assert AdamW(lr=1e-3, base_batch=64, scaling="sqrt").scaled_lr(256) == pytest.approx(2e-3)
    assert AdamW(lr=1e-3, base_batch=64, scaling="none").scaled_lr(256) == 1e-3
    assert SGD(lr=0.3, base_batch=None).scaled_lr(256) == 0.3


def test_the_description_says_whether_the_lr_was_scaled() -> None:
    assert "not scaled" in SGD(lr=0.3, base_batch=None).describe(8)
    assert "not scaled" in SGD(lr=0.3, base_batch=4, scaling="none").describe(8)
    assert "lr 0.6 = 0.3 at batch 4" in SGD(lr=0.3, base_batch=4).describe(8)


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    torch.manual_seed(1)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize(
    ("config", "plain"),
    [
        (
            SGD(lr=0.01, base_batch=8, momentum=0.8, nesterov=True, weight_decay=0.1),
            lambda p, **fused: torch.optim.SGD(p, lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.1, **fused),
        ),
        (
            SGD(lr=0.01, base_batch=8, momentum=0.0, nesterov=False, weight_decay=0.1),
            lambda p, **fused: torch.optim.SGD(p, lr=0.02, weight_decay=0.1, **fused),
        ),
        (
            AdamW(lr=0.01, base_batch=8, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.2),
            lambda p, **fused: torch.optim.AdamW(p, lr=0.02, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.2, **fused),
        ),
    ],
)
def test_steps_like_torchs_optimizer_with_the_same_options(config: SGD | AdamW, plain) -> None:
    torch.manual_seed(0)
    models = [nn.Linear(3, 2) for _ in range(3)]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    ours, fused, loop = models
    found = train(ours, config.build(ours, global_batch=16))
    assert all(torch.equal(a, b) for a, b in zip(found, train(fused, plain(fused.parameters(), fused=True))))
    for a, b in zip(found, train(loop, plain(loop.parameters()))):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_groups_reach_the_optimizer() -> None:
    config = AdamW(lr=0.1, base_batch=2, weight_decay=0.3, decay_norm_and_bias=False, lr_factors={"0": 0.5})
    optimizer = config.build(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), global_batch=4)
    found = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert found == {
        "0/decay": (pytest.approx(0.1), 0.3),
        "0/no_decay": (pytest.approx(0.1), 0.0),
        "model/decay": (pytest.approx(0.2), 0.3),
        "model/no_decay": (pytest.approx(0.2), 0.0),
    }


def test_nonsense_is_refused_all_at_once() -> None:
    with pytest.raises(UserError) as caught:
        SGD(lr=0, base_batch=0, momentum=1.0, weight_decay=-1, scaling="square")
    for argument in ("lr is 0", "base_batch is 0", "momentum is 1.0", "weight_decay is -1", "scaling is 'square'"):
        assert argument in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": "1e-3x"}, "lr is '1e-3x'"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"betas": (0.9, 1.0)}, "betas is"),
        ({"betas": (0.9,)}, "betas is"),
        ({"eps": 0}, "eps is 0"),
    ],
)
def test_adamw_refuses(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        AdamW(**{"lr": 1e-3, "base_batch": 16, **options})


def test_nesterov_needs_momentum_and_a_batch_needs_an_image() -> None:
    with pytest.raises(UserError, match="nesterov"):
        SGD(lr=0.1, base_batch=1, momentum=0)
    with pytest.raises(UserError, match="global batch of 0"):
        SGD(lr=0.1, base_batch=1).scaled_lr(0)


@pytest.mark.parametrize("config", [SGD(lr=0.1, base_batch=None), AdamW(lr=0.1, base_batch=None)], ids=["sgd", "adamw"])
def test_a_first_gradient_may_come_after_those_of_others(config: SGD | AdamW) -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)]) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    plain = torch.optim.SGD if isinstance(config, SGD) else torch.optim.AdamW
    options = {"momentum": 0.9, "nesterov": True} if isinstance(config, SGD) else {}
    optimizers = [
        config.build(ours, global_batch=1),
        plain(theirs.parameters(), lr=0.1, weight_decay=config.weight_decay, **options),  # type: ignore[arg-type]
    ]
    for used in (1, 1, 2, 2):  # the second layer takes part from the third step on
        images = torch.randn(5, 3)
        for layers, optimizer in zip((ours, theirs), optimizers):
            optimizer.zero_grad()
            torch.stack([layer(images).square().sum() for layer in layers[:used]]).sum().backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
