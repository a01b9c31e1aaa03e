"""Two steps of each adaptive optimizer worked out in numpy; resume, loss scaling and parameters without gradient."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from transfer.optim.optimizers import LAMB, LARS, SGD, AdaBound, AdamW, RMSprop
from transfer.optim.precision import Precision
from transfer.optim.schedules import set_lr
from transfer.types import UserError

Array = np.ndarray
Rule = Callable[[Array, list[Array], list[float], float], Array]
"""From a parameter, its gradient and lr at each step, and its decay to the parameter after the steps."""

CONFIGS: dict[str, Any] = {
    "sgd": SGD(lr=0.1, base_batch=None, weight_decay=0.1, decay_norm_and_bias=False),
    "adamw": AdamW(lr=0.1, base_batch=None, decay_norm_and_bias=False),
    "rmsprop": RMSprop(lr=0.01, base_batch=None, weight_decay=0.1, decay_norm_and_bias=False),
    "lars": LARS(lr=0.5, base_batch=None, weight_decay=0.1, decay_norm_and_bias=False),
    "lamb": LAMB(lr=0.1, base_batch=None, decay_norm_and_bias=False),
    "ada_bound": AdaBound(lr=0.01, base_batch=None, final_lr_factor=10, decay_norm_and_bias=False),
}
ALL = pytest.mark.parametrize("name", list(CONFIGS))


def rmsprop(weight: Array, gradients: list[Array], lrs: list[float], decay: float) -> Array:
    square = momentum = np.zeros_like(weight)
    for gradient, lr in zip(gradients, lrs):
        gradient = gradient + decay * weight
        square = 0.8 * square + 0.2 * gradient**2
        momentum = 0.7 * momentum + gradient / (np.sqrt(square) + 0.01)
        weight = weight - lr * momentum
    return weight


def lars(nesterov: bool) -> Rule:
    def rule(weight: Array, gradients: list[Array], lrs: list[float], decay: float) -> Array:
        momentum = np.zeros_like(weight)
        for gradient, lr in zip(gradients, lrs):
            if decay:
                norm = np.sqrt((weight**2).sum())
                share = 0.02 * norm / (np.sqrt((gradient**2).sum()) + decay * norm)
                gradient = share * (gradient + decay * weight)
            momentum = 0.8 * momentum + gradient
            weight = weight - lr * (gradient + 0.8 * momentum if nesterov else momentum)
        return weight

    return rule


def lamb(weight: Array, gradients: list[Array], lrs: list[float], decay: float) -> Array:
    mean = square = np.zeros_like(weight)
    for step, (gradient, lr) in enumerate(zip(gradients, lrs), start=1):
        mean, square = 0.8 * mean + 0.2 * gradient, 0.9 * square + 0.1 * gradient**2
        update = mean / (1 - 0.8**step) / (np.sqrt(square / (1 - 0.9**step)) + 0.01) + decay * weight
        share = np.sqrt((weight**2).sum()) / np.sqrt((update**2).sum()) if decay else 1.0
        weight = weight - lr * share * update
    return weight


def ada_bound(weight: Array, gradients: list[Array], lrs: list[float], decay: float) -> Array:
    mean = square = np.zeros_like(weight)
    for step, (gradient, lr) in enumerate(zip(gradients, lrs), start=1):
        gradient = gradient + decay * weight
        mean, square = 0.5 * mean + 0.5 * gradient, 0.9 * square + 0.1 * gradient**2
        low, high = 2 * lr * (1 - 1 / (0.5 * step + 1)), 2 * lr * (1 + 1 / (0.5 * step))
        rates = lr * np.sqrt(1 - 0.9**step) / (1 - 0.5**step) / (np.sqrt(square) + 0.01)
        weight = weight - np.minimum(np.maximum(rates, low), high) * mean
    return weight


def small_model() -> nn.Sequential:
    """Float64; a layer, a norm and a second layer, which the tests train at half the lr."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(
    ("make", "options", "rule"),
    [
        (RMSprop, {"alpha": 0.8, "momentum": 0.7, "eps": 0.01}, rmsprop),
        (LARS, {"momentum": 0.8, "trust_coefficient": 0.02}, lars(nesterov=False)),
        (LARS, {"momentum": 0.8, "trust_coefficient": 0.02, "nesterov": True}, lars(nesterov=True)),
        (LAMB, {"betas": (0.8, 0.9), "eps": 0.01}, lamb),
        (AdaBound, {"betas": (0.5, 0.9), "eps": 0.01, "final_lr_factor": 2, "gamma": 0.5}, ada_bound),
    ],
)
def test_two_steps_by_hand(make, options: dict, rule: Rule) -> None:
    """At half the batch and, in the second step, a third of the lr; norms and biases do not decay."""
    config = make(lr=0.2, base_batch=16, weight_decay=0.3, decay_norm_and_bias=False, lr_factors={"2": 0.5}, **options)
    model = small_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    # From far below to far above 1, so that both bounds of AdaBound hold some values and leave others.
    gradients = [{name: torch.randn_like(p) * 10 ** torch.randn_like(p) for name, p in before.items()} for _ in "12"]
    optimizer = config.build(model, global_batch=8)
    for factor, step in zip((1.0, 1 / 3), gradients):
        set_lr(optimizer, factor)
        for name, parameter in model.named_parameters():
            parameter.grad = step[name].clone()
        optimizer.step()
    for name, parameter in model.named_parameters():
        lr = 0.1 * (0.5 if name.startswith("2.") else 1)
        decay = 0.3 if name in ("0.weight", "2.weight") else 0.0
        expected = rule(before[name].numpy(), [step[name].numpy() for step in gradients], [lr, lr / 3], decay)
        moved, expected_move = parameter.detach() - before[name], expected - before[name].numpy()
        assert torch.allclose(moved, torch.from_numpy(expected_move), rtol=1e-6, atol=0), name


def first_moves(config: Any, gradient: list[float], weight: float = 0.0) -> list[float]:
    """By how much a first step lowers each value of a parameter that begins as `weight` everywhere."""
    model = nn.Module()
    model.weight = nn.Parameter(torch.full((1, len(gradient)), weight, dtype=torch.float64))
    model.weight.grad = torch.tensor([gradient], dtype=torch.float64)
    config.build(model, global_batch=1).step()
    return (weight - model.weight.detach())[0].tolist()


def test_the_first_step_of_ada_bound_between_its_bounds() -> None:
    """Rates 0.2 / |g| (for beta1 0.5), held between 0.2 * (1 - 1 / 1.5) and 0.2 * (1 + 1 / 0.5), times g / 2."""
    config = AdaBound(
        lr=0.1, base_batch=None, betas=(0.5, 0.75), eps=1e-12, final_lr_factor=2, gamma=0.5, weight_decay=0
    )
    found = first_moves(config, [1.0, -1.0, 5.0, 0.01, 0.0])
    assert found == pytest.approx([0.1, -0.1, 0.2 / 3 * 2.5, 0.6 * 0.005, 0.0], rel=1e-9)


def test_ada_bound_is_adam_with_bounds_far_away() -> None:
    found, expected = small_model(), small_model()
    config = AdaBound(lr=0.01, base_batch=None, eps=1e-14, gamma=1e-9, final_lr_factor=0.1, weight_decay=0.1)
    optimizers = [
        config.build(found, global_batch=1),
        torch.optim.Adam(expected.parameters(), lr=0.01, eps=1e-14, weight_decay=0.1),
    ]
    images = torch.randn(8, 3, dtype=torch.float64)
    for _ in range(5):
        for model, optimizer in zip((found, expected), optimizers):
            optimizer.zero_grad()
            model(images).pow(2).sum().backward()
            optimizer.step()
    for a, b in zip(found.parameters(), expected.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


def test_ada_bound_is_sgd_once_its_bounds_have_closed() -> None:
    weight = nn.Linear(2, 1, bias=False).double()
    config = AdaBound(lr=0.01, base_batch=None, betas=(0.0, 0.9), final_lr_factor=50, weight_decay=0.0)
    optimizer = config.build(weight, global_batch=1)
    weight.weight.grad = torch.tensor([[3.0, -0.1]], dtype=torch.float64)
    optimizer.step()
    for state in optimizer.state.values():
        state["step"] = 10**10
    before = weight.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(before - weight.weight.detach(), 0.5 * weight.weight.grad, rtol=1e-6, atol=0)


def test_what_does_not_decay_is_adapted_only_on_demand() -> None:
    """|w| = 5 and |g| = 10: LARS takes half a thousandth of g, LAMB a first step of length 5 * lr."""
    bare = {"lr": 1.0, "base_batch": None, "weight_decay": 0.0, "always_adapt": True}
    gradient, weight = [5.0, -5.0, 5.0, 5.0], 2.5
    assert first_moves(LARS(**bare), gradient, weight) == pytest.approx([0.001 * 0.5 * g for g in gradient], rel=1e-6)
    lamb_moves = first_moves(LAMB(**bare), gradient, weight)
    assert lamb_moves == pytest.approx([2.5 if g > 0 else -2.5 for g in gradient], rel=1e-6)


def test_lamb_does_not_clip_by_itself() -> None:
    """Adam's first step does not depend on the gradients' size, its second does: here by more than clipping to 1."""
    model = nn.Linear(2, 1, bias=False).double()
    optimizer = LAMB(lr=0.1, base_batch=None, weight_decay=0, always_adapt=True, betas=(0.0, 0.5), eps=1e-12).build(
        model, global_batch=1
    )
    for gradient in ([[1.0, 1.0]], [[100.0, 1.0]]):
        model.weight.grad = torch.tensor(gradient, dtype=torch.float64)
        before = model.weight.detach().clone()
        optimizer.step()
    update = np.array([100 / np.sqrt((0.25 + 5000) / 0.75), 1.0])
    expected = 0.1 * before.norm().item() * update / np.linalg.norm(update)
    assert (before - model.weight.detach())[0].tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[torch.Tensor]:
    for step in steps:
        set_lr(optimizer, 1 / (1 + step))
        torch.manual_seed(step)
        optimizer.zero_grad(set_to_none=True)
        model(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@ALL
def test_resume_goes_on_as_if_unbroken(name: str) -> None:
    models = [small_model().float() for _ in range(3)]
    optimizers = [CONFIGS[name].build(model, global_batch=1) for model in models]
    unbroken = train(models[0], optimizers[0], range(6))
    assert all(parameter.isfinite().all() for parameter in unbroken)
    train(models[1], optimizers[1], range(3))
    file = io.BytesIO()
    torch.save({"model": models[1].state_dict(), "optimizer": optimizers[1].state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    models[2].load_state_dict(saved["model"])
    optimizers[2].load_state_dict(saved["optimizer"])
    found = train(models[2], optimizers[2], range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(found, unbroken))
    assert [group["name"] for group in optimizers[2].param_groups] == ["model/decay", "model/no_decay"]


@ALL
def test_parameters_without_gradient_stay_as_they_are(name: str) -> None:
    model = small_model().float()
    optimizer = CONFIGS[name].build(model, global_batch=1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.step()  # no gradient at all
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    model[0](torch.randn(5, 3)).square().sum().backward()  # a gradient for the first layer alone
    for _ in range(2):
        optimizer.step()
    changed = [not torch.equal(a, b) for a, b in zip(before, model.parameters())]
    assert changed == [True, True, False, False, False, False]


@ALL
def test_the_loss_scale_changes_no_step_and_a_skipped_step_leaves_no_trace(name: str) -> None:
    found, expected = small_model().float(), small_model().float()
    images = torch.randn(8, 3)
    optimizers = [CONFIGS[name].build(model, global_batch=1) for model in (found, expected)]
    precision = Precision("float16", init_scale=1024.0)
    precision.backward(found(images).sum() * float("inf"))
    assert precision.step(optimizers[0]).skipped
    for _ in range(2):
        for model, optimizer in zip((found, expected), optimizers):
            optimizer.zero_grad(set_to_none=True)
            loss = model(images).square().mean()
            if model is found:
                precision.backward(loss)
                assert not precision.step(optimizer).skipped
            else:
                loss.backward()
                optimizer.step()
    for a, b in zip(found.parameters(), expected.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "options", "messages"),
    [
        (RMSprop, {"alpha": 1.0, "momentum": -1, "eps": 0}, ["alpha is 1.0", "momentum is -1", "eps is 0"]),
        (LARS, {"trust_coefficient": 0, "momentum": 1}, ["trust_coefficient is 0", "momentum is 1"]),
        (LARS, {"nesterov": True, "momentum": 0}, ["nesterov=True with momentum 0"]),
        (LARS, {"weight_decay": 0}, ["adapts no layer, which is SGD; give always_adapt=True"]),
        (LAMB, {"weight_decay": 0, "eps": -1}, ["adapts no layer, which is Adam", "eps is -1"]),
        (LAMB, {"betas": (0.9, "0.999")}, ["betas is"]),
        (
            AdaBound,
            {"betas": 0.9, "final_lr_factor": 0, "gamma": 1},
            ["betas is", "final_lr_factor is 0", "gamma is 1"],
        ),
    ],
)
def test_nonsense_is_refused_all_at_once(make, options: dict, messages: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        make(lr=0.1, base_batch=1, **options)
    assert all(message in str(caught.value) for message in messages)
