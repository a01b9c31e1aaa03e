"""One cycle and the exponential at every step: against torch's schedulers, and against formulas written out here."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from lr_curves import EXACT, PER_EPOCH, TOTAL, curve, torch_curve
from torch.optim import lr_scheduler

from transfer.optim.schedules import Constant, Exponential, OneCycle, Schedule, Sequence, WarmUp
from transfer.types import UserError


def torch_one_cycle(
    total: int, *, peak: float, warm_up: float, initial: float, final: float, shape: str
) -> list[float]:
    def make(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=peak,
            total_steps=total,
            pct_start=warm_up,
            anneal_strategy={"cosine": "cos", "linear": "linear"}[shape],
            cycle_momentum=False,
            div_factor=peak / initial,
            final_div_factor=initial / final,
        )

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return torch_curve(make, total)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize(
    ("total", "options"),
    [
        (120, {}),
        (37, {}),  # the peak falls between two steps
        (120, {"peak": 3.0, "warm_up": 0.45, "initial": 0.5, "final": 0.01}),
        (10, {"warm_up": 0.11, "initial": 0.9, "final": 0.9}),
    ],
)
def test_one_cycle_is_torchs_at_every_step(total: int, options: dict, shape: str) -> None:
    schedule = OneCycle(**options, shape=shape)
    defaults = {"peak": 1.0, "warm_up": 0.3, "initial": 1 / 25, "final": 1 / 25 / 1e4}  # torch's own
    theirs = torch_one_cycle(total, **{**defaults, **options}, shape=shape)
    assert curve(schedule, total) == pytest.approx(theirs, **EXACT)


def test_linear_one_cycle_by_hand() -> None:
    """10 steps, the peak after 0.4 * 10 - 1 = 3 of them, the last at 9."""
    found = curve(OneCycle(warm_up=0.4, initial=0.1, final=0.4, shape="linear"), total=10)
    assert found == pytest.approx([0.1, 0.4, 0.7, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4], **EXACT)


def test_one_cycle_runs_over_the_span_it_is_given() -> None:
    cycle = OneCycle(shape="linear")
    found = curve(Sequence([(0.5, cycle), (0.5, Constant())], carry=True))
    assert found[:60] == curve(cycle, total=60)
    assert found[60:] == pytest.approx([4e-6] * 60, **EXACT)  # goes on from the last level
    assert curve(WarmUp(iterations=20, then=cycle))[20:] == curve(cycle, total=100)


def test_exponential_every_two_epochs() -> None:
    found = curve(Exponential(gamma=0.94, every=2))
    assert found == pytest.approx([0.94 ** (i // 20) for i in range(TOTAL)], **EXACT)
    theirs = torch_curve(lambda optimizer: lr_scheduler.StepLR(optimizer, step_size=20, gamma=0.94))
    assert found == pytest.approx(theirs, **EXACT)


def test_smooth_exponential() -> None:
    found = curve(Exponential(gamma=0.5, every=3, staircase=False))
    assert found == pytest.approx([0.5 ** (i / 30) for i in range(TOTAL)], **EXACT)
    theirs = torch_curve(lambda optimizer: lr_scheduler.ExponentialLR(optimizer, gamma=0.5 ** (1 / 30)))
    assert found == pytest.approx(theirs, **EXACT)


def test_periods_that_are_no_whole_number_end_at_the_nearest_iteration() -> None:
    found = curve(Exponential(gamma=0.5, every=1 / 3))  # ends at 3.33, 6.67, 10, 13.33, ...
    assert found[:14] == [0.5**n for n in (0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4)]
    tenths = curve(Exponential(gamma=0.5, every=0.1 * 3), total=12)  # 3.0000000000000004 iterations
    assert tenths == [0.5 ** (i // 3) for i in range(12)]


def test_an_exponential_counts_from_the_end_of_the_warm_up() -> None:
    found = curve(WarmUp(epochs=1, then=Exponential(gamma=0.94, every=2)))
    assert found[10:] == curve(Exponential(gamma=0.94, every=2), total=110)


def problem(schedule: Schedule, total: int = TOTAL) -> str:
    with pytest.raises(UserError) as caught:
        schedule.factor(0, total=total, per_epoch=PER_EPOCH)
    return str(caught.value)


def test_curves_that_do_not_fit_the_run_are_refused() -> None:
    assert "warm_up is 0.1 of 10 iterations" in problem(OneCycle(warm_up=0.1), total=10)
    assert "less than one of the 10 iterations" in problem(Exponential(gamma=0.9, every=0.05))
    assert math.isclose(curve(Exponential(gamma=0.9, every=0.05, staircase=False))[1], 0.81)


@pytest.mark.parametrize(
    ("make", "messages"),
    [
        (lambda: Exponential(gamma=0), ["gamma is 0"]),
        (lambda: Exponential(gamma=1.5, every=0), ["gamma is 1.5", "every is 0"]),
        (lambda: Exponential(gamma="0.9"), ["gamma is '0.9'"]),
        (lambda: OneCycle(peak=0), ["peak is 0"]),
        (lambda: OneCycle(initial=2, final=-1), ["initial is 2", "final is -1"]),
        (lambda: OneCycle(warm_up=1.0, shape="cos"), ["warm_up is 1.0", "shape is 'cos'"]),
    ],
)
def test_nonsense_is_refused_all_at_once(make, messages: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert all(message in str(caught.value) for message in messages)
