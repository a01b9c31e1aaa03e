"""The largest lr of a schedule, what a step does to the weights, and gradients that come late."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from planned_runs import codes, run_of
from torch import Tensor, nn

from transfer.build import Node
from transfer.engine.settings import TrainingSettings
from transfer.optim.precision import Precision
from transfer.optim.schedules import Constant, Cosine, Sequence, Step, WarmUp
from transfer.preflight.gradients import check_gradients
from transfer.preflight.learning_rate import check_lr, peak_factor
from transfer.preflight.preflight import preflight
from transfer.preflight.sandbox import Trial
from transfer.preflight.steps import Steps, finish_steps
from transfer.types import Batch


@pytest.mark.parametrize(
    ("schedule", "peak"),
    [
        (Constant(), 1.0),
        (Step(milestones=[0.5]), 1.0),
        (WarmUp(iterations=7, then=Cosine()), 1.0),
        (WarmUp(epochs=0.5, then=Constant()), 1.0),
        (Sequence([(0.5, Constant()), (0.5, Cosine())]), 1.0),
    ],
)
def test_peak_of_a_schedule(tiny_config: Node, schedule: Any, peak: float) -> None:
    run, _ = run_of(tiny_config)
    run.schedule = schedule
    assert peak_factor(run) == pytest.approx(peak)


def steps_of(totals: list[float], changes: dict[str, float] | None = None) -> Steps:
    return Steps(losses=[{"loss": total} for total in totals], changes=changes or {})


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (steps_of([4, 3, 2, 2]), []),
        (steps_of([4, 11, 2, 2]), []),  # less than threefold
        (steps_of([4, 13, 2, 2]), ["error"]),
        (steps_of([4, 5, math.inf]), ["error"]),
        (steps_of([4, math.nan]), ["error"]),
        (steps_of([4, 3], {str(i): 0.01 for i in range(19)} | {"a": 0.7}), []),  # a single layer
        (steps_of([4, 3], {str(i): 0.01 for i in range(8)} | {"a": 0.2, "b": 0.2}), ["warning"]),
        (steps_of([4, 3], {str(i): 0.01 for i in range(8)} | {"a": 0.7, "b": 0.7}), ["error"]),
    ],
)
def test_signs_of_a_high_lr(steps: Steps, expected: list[str]) -> None:
    outcome = check_lr(steps, lr=0.1)
    assert [finding.severity for finding in outcome.findings] == expected


class Task:
    """A network whose loss is the mean of its output's squares."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (model(batch.images.float()) + 1).square().mean()}


def taken(model: nn.Module, optimizer: torch.optim.Optimizer, **settings: Any) -> Steps:
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    trial = Trial(Task(model), optimizer, Precision(), TrainingSettings(epochs=1, **settings), torch.device("cpu"))  # type: ignore[arg-type]
    batch = Batch(torch.ones(4, 9, dtype=torch.uint8), [])
    return finish_steps(trial, batch, trial.losses(batch), peak=1.0)


def test_the_change_of_a_layer_is_in_units_of_its_input() -> None:
    torch.manual_seed(0)
    model = nn.Linear(9, 5)
    steps = taken(model, torch.optim.Adam(model.parameters(), lr=0.02))  # Adam's first step: the lr, with a sign
    assert steps.changes == {"weight": pytest.approx(0.02 * 3, rel=1e-4)}  # times the root of 9 inputs
    assert len(steps.losses) == 5
    assert len(steps.gradient_norms) == 4


def test_gradients_are_clipped_as_in_the_run() -> None:
    torch.manual_seed(0)
    model = nn.Linear(9, 1, bias=False)
    steps = taken(model, torch.optim.SGD(model.parameters(), lr=1.0), clip_norm=1e-3)
    # a step of norm 0.001 over nine numbers: root mean square 0.001 / 3, times the root of 9
    assert steps.changes["weight"] == pytest.approx(1e-3, rel=1e-3)
    assert steps.gradient_norms[0] > 0.1  # before clipping


class Block(nn.Module):
    """x + gamma * f(x), gamma zero at first: f has no gradient at the first step."""

    def __init__(self, *, learns: bool) -> None:
        super().__init__()
        self.backbone = nn.Linear(9, 9)
        self.neck = nn.Linear(9, 9)
        self.gamma = nn.Parameter(torch.zeros(9), requires_grad=learns)

    def forward(self, x: Tensor) -> Tensor:
        x = self.backbone(x)
        return x + self.gamma * self.neck(x)


def test_a_gamma_of_zero_is_no_fault_unless_it_is_frozen() -> None:
    for learns in (True, False):
        torch.manual_seed(0)
        model = Block(learns=learns)
        steps = taken(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01))
        outcome = check_gradients(model, steps)
        assert [finding.code for finding in outcome.findings] == ([] if learns else ["gradient-zero"])


def test_a_dead_network_is_found(tiny_config: Node) -> None:
    run, dataset = run_of(tiny_config)
    model: Any = run.task.model
    nn.init.constant_(model.rpn_head.conv.bias, -1e6)  # behind it a ReLU
    report = preflight(run, dataset)
    assert codes(report) == []
    zero = [finding.message for finding in report.findings if finding.code == "gradient-zero"]
    assert any("rpn_head.conv (2 tensors)" in text for text in zero)
    nn.init.constant_(model.rpn_head.objectness.weight, math.nan)
    assert "loss-not-finite" in codes(preflight(run, dataset))
