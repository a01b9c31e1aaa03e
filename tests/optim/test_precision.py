"""Loss scaling on tensors of a few values: the step taken must be float32's, or none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transfer.optim.precision import Precision
from transfer.types import UserError

MODES = ["float32", "bfloat16", "float16"]


def make(momentum: float = 0.0) -> tuple[nn.Linear, torch.optim.Optimizer, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum), torch.randn(8, 4)


def true_gradient() -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient of the weight, and the norm of all gradients, in plain float32."""
    model, _, images = make()
    model(images).square().mean().backward()
    norm = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
    return model.weight.grad, norm


def run(precision: Precision, max_norm: float | None = None):
    model, optimizer, images = make()
    before = model.weight.detach().clone()
    with precision.autocast():
        output = model(images)
    precision.backward(output.float().square().mean())
    result = precision.step(optimizer, max_norm=max_norm)
    return output.dtype, before - model.weight.detach(), result


def test_float32_is_plain_torch_to_the_last_bit() -> None:
    model, optimizer, images = make()
    before = model.weight.detach().clone()
    model(images).square().mean().backward()
    optimizer.step()
    dtype, moved, result = run(Precision("float32"))
    assert dtype == torch.float32
    assert torch.equal(moved, before - model.weight.detach())
    assert result == (None, False)


@pytest.mark.parametrize("mode", MODES)
def test_forward_runs_in_the_format_and_the_step_is_float32s(mode: str) -> None:
    dtype, moved, result = run(Precision(mode, init_scale=1024.0))
    gradient, _ = true_gradient()
    assert dtype == getattr(torch, mode)
    assert not result.skipped
    torch.testing.assert_close(moved, 0.1 * gradient, rtol=0.02, atol=2e-4)


@pytest.mark.parametrize("mode", MODES)
def test_clipping_sees_the_unscaled_gradient(mode: str) -> None:
    gradient, norm = true_gradient()
    limit = norm.item() / 4
    _, moved, result = run(Precision(mode, init_scale=1024.0), max_norm=limit)
    assert result.grad_norm is not None
    torch.testing.assert_close(result.grad_norm, norm, rtol=0.02, atol=0)
    torch.testing.assert_close(moved, 0.1 * gradient / 4, rtol=0.02, atol=1e-4)
    _, unclipped, _ = run(Precision(mode, init_scale=1024.0), max_norm=norm.item() * 4)
    torch.testing.assert_close(unclipped, 0.1 * gradient, rtol=0.02, atol=2e-4)


def test_scaling_saves_gradients_that_float16_cannot_hold() -> None:
    precision = Precision("float16")
    weight = nn.Parameter(torch.ones(1, 1))
    with precision.autocast():
        output = nn.functional.linear(torch.ones(1, 1), weight)
        loss = output.sum().float() * 1e-9  # the gradient is below float16's smallest number, 6e-8
    precision.backward(loss)
    precision.step(torch.optim.SGD([weight], lr=1e8))
    assert weight.item() == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_an_infinite_gradient_skips_the_step_and_halves_the_scale(max_norm: float | None) -> None:
    precision = Precision("float16", init_scale=1024.0)
    model, optimizer, images = make(momentum=0.9)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    precision.backward(model(images).sum() * float("inf"))
    assert precision.step(optimizer, max_norm=max_norm).skipped
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert precision.state_dict()["scaler"]["scale"] == 512.0
    optimizer.zero_grad()
    precision.backward(model(images).sum())
    assert not precision.step(optimizer, max_norm=max_norm).skipped
    assert not torch.equal(before[0], model.weight)
    assert precision.state_dict()["scaler"]["scale"] == 512.0


def test_accumulated_gradients_are_unscaled_once() -> None:
    gradient, _ = true_gradient()
    precision = Precision("float16", init_scale=1024.0)
    model, optimizer, images = make()
    before = model.weight.detach().clone()
    for half in images.chunk(2):
        precision.backward(model(half).square().mean() / 2)
    precision.step(optimizer)
    torch.testing.assert_close(before - model.weight.detach(), 0.1 * gradient)


def test_resume_keeps_the_scale() -> None:
    precision = Precision("float16", init_scale=1024.0)
    model, optimizer, images = make()
    precision.backward(model(images).sum() * float("inf"))
    precision.step(optimizer)
    resumed = Precision("float16")
    resumed.load_state_dict(precision.state_dict())
    assert resumed.state_dict() == precision.state_dict()
    assert resumed.scaler.scale(torch.tensor(1.0)).item() == 512.0
    off = Precision("float32")
    off.load_state_dict(Precision("float32").state_dict())
    assert off.state_dict() == {"mode": "float32", "scaler": {}}


def test_mistakes_name_the_remedy() -> None:
    with pytest.raises(UserError, match="nearest: bfloat16"):
        Precision("bflaot16")
    with pytest.raises(UserError, match="trained in float16"):
        Precision("float32").load_state_dict(Precision("float16").state_dict())
    with pytest.raises(UserError, match="max_norm is 0"):
        run(Precision("float32"), max_norm=0)
    with pytest.raises(UserError, match="init_scale is 0"):
        Precision("float16", init_scale=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="cuda is here")
def test_a_device_that_cannot_is_refused_and_not_run_in_float32() -> None:
    with pytest.raises(UserError, match="does not run on device 'cuda'"):
        Precision("float16", "cuda")


@pytest.mark.parametrize("mode", ["float16", "bfloat16"])
def test_an_update_too_small_for_16_bits_moves_the_float32_weight(mode: str) -> None:
    """Master weights (Micikevicius et al., section 3.1): 1 - 2^-13 is 1 in both formats, and so it would stay."""
    dtype = getattr(torch, mode)
    assert torch.tensor(1 - 2**-13, dtype=dtype).item() == 1.0
    precision = Precision(mode, init_scale=1024.0)
    weight = nn.Parameter(torch.ones(1, 1))
    optimizer = torch.optim.SGD([weight], lr=2.0**-13)
    for _ in range(64):
        optimizer.zero_grad()
        with precision.autocast():
            output = nn.functional.linear(torch.ones(1, 1), weight)  # in 16 bits, from a copy of the weight
        assert output.dtype == dtype
        precision.backward(output.float().sum())  # a gradient of 1
        assert not precision.step(optimizer).skipped
    assert weight.dtype == torch.float32
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert weight.item() == 1 - 64 * 2**-13
