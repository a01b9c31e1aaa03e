"""Flooding: the gradient by hand above and below the level, and off as if it were not there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toy_task import ToyTask, batch, gradient, toy_run

from transfer.engine.settings import TrainingSettings
from transfer.engine.train import Step, train
from transfer.types import UserError


def trained(flooding: float | None, **settings: Any) -> tuple[torch.Tensor, list[Step]]:
    """The weight and the steps of a run."""
    run, steps = toy_run(ToyTask(), flooding=flooding, **settings), []
    assert train(run, lambda model: [], [lambda event: steps.append(event) if isinstance(event, Step) else None])
    return run.task.model.weight.detach(), steps


def loss(weight: torch.Tensor, number: int) -> float:
    return float(((batch(number).images[:, :, 0, 0].float() @ weight) ** 2).mean())


@pytest.mark.parametrize(("level", "sign"), [(0.5, 1), (1.5, -1)])
def test_the_first_step_goes_down_above_the_level_and_up_below_it(level: float, sign: int) -> None:
    start = torch.tensor([1.0, -2.0, 0.5])
    first = loss(start, 0)
    weight, (step,) = trained(level * first, iterations=1)
    torch.testing.assert_close(weight, start - sign * 0.01 * gradient(start, [batch(0)]))
    assert step.losses == {"loss_square": pytest.approx(first)}  # the loss itself is told, not the flooded one


def test_the_value_is_the_formula() -> None:
    """|loss - b| + b at a loss of 0.25: b 0.75 gives 1.25; from b 0.25 down it is the loss."""
    settings = [TrainingSettings(epochs=1, flooding=level) for level in (0.75, 0.25, 0.125)]
    assert [float(each.flooded(torch.tensor(0.25))) for each in settings] == [1.25, 0.25, 0.25]


def test_each_micro_batch_is_flooded_by_itself() -> None:
    start = torch.tensor([1.0, -2.0, 0.5])
    losses = [loss(start, number) for number in (0, 1)]
    level = sum(losses) / 2  # one of the two is above it, the other below
    signs = [1 if each > level else -1 for each in losses]
    assert sorted(signs) == [-1, 1]
    weight, _ = trained(level, iterations=1, accumulate=2)
    mean = sum(sign * gradient(start, [batch(number)]) for number, sign in enumerate(signs)) / 2
    torch.testing.assert_close(weight, start - 0.01 * mean)


def test_a_level_that_is_never_reached_trains_as_without() -> None:
    plain, plain_steps = trained(None, iterations=6)
    flooded, steps = trained(1e-30, iterations=6)
    assert torch.equal(plain, flooded)
    assert [step.losses for step in steps] == [step.losses for step in plain_steps]


def test_off_is_the_default_and_leaves_the_loss_itself() -> None:
    total = torch.tensor(0.25)
    assert TrainingSettings(epochs=1).flooded(total) is total


def test_the_loss_floats_around_the_level() -> None:
    _, steps = trained(1.0, iterations=200)
    late = [step.losses["loss_square"] for step in steps[100:]]
    _, steps = trained(None, iterations=200)
    assert sum(step.losses["loss_square"] for step in steps[100:]) / 100 < 0.5
    assert 0.5 < sum(late) / 100 < 2


@pytest.mark.parametrize("level", [0, -0.1, "0.1x", True])
def test_a_level_that_makes_no_sense_is_refused(level: Any) -> None:
    with pytest.raises(UserError, match=r"training: flooding=.* must be a number, above 0"):
        TrainingSettings(epochs=1, flooding=level)
