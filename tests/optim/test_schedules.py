"""Every schedule at every iteration: against its formula written out here, and against torch's schedulers."""

from __future__ import annotations

import math

import pytest
import torch
from lr_curves import EXACT, PER_EPOCH, TOTAL, curve, torch_curve
from torch.optim import lr_scheduler

from transfer.build import TRUSTED_MODULES, build, resolve
from transfer.optim import schedules
from transfer.optim.schedules import (
    Constant,
    Cosine,
    Held,
    OneCycle,
    Plateau,
    Poly,
    Schedule,
    Sequence,
    Step,
    WarmUp,
    set_lr,
)
from transfer.types import UserError


def test_constant_is_one() -> None:
    assert curve(Constant()) == [1.0] * TOTAL


@pytest.mark.parametrize("final", [0.0, 0.25])
def test_cosine(final: float) -> None:
    found = curve(Cosine(final=final))
    formula = [final + (1 - final) * (1 + math.cos(i * math.pi / TOTAL)) / 2 for i in range(TOTAL)]
    assert found == pytest.approx(formula, **EXACT)
    theirs = torch_curve(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=TOTAL, eta_min=final))
    assert found == pytest.approx(theirs, **EXACT)
    assert found[0] == 1
    assert found[TOTAL // 2] == pytest.approx((1 + final) / 2, **EXACT)


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
def test_poly(power: float) -> None:
    found = curve(Poly(power=power))
    assert found == pytest.approx([(1 - i / TOTAL) ** power for i in range(TOTAL)], **EXACT)
    theirs = torch_curve(lambda optimizer: lr_scheduler.PolynomialLR(optimizer, total_iters=TOTAL, power=power))
    assert found == pytest.approx(theirs, **EXACT)


def test_poly_ends_above_its_final_level() -> None:
    found = curve(Poly(power=1, final=0.4))
    assert found == pytest.approx([1 - 0.6 * i / TOTAL for i in range(TOTAL)], **EXACT)


@pytest.mark.parametrize(
    "step",
    [Step([3, 6, 9], unit="epoch", gamma=0.1), Step([0.25, 0.5, 0.75], gamma=0.1)],
)
def test_step_in_epochs_and_in_fractions(step: Step) -> None:
    found = curve(step)
    assert found == pytest.approx([1.0] * 30 + [0.1] * 30 + [0.01] * 30 + [0.001] * 30, **EXACT)
    theirs = torch_curve(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [30, 60, 90], gamma=0.1))
    assert found == pytest.approx(theirs, **EXACT)


def test_fractions_that_floats_miss_fall_on_the_nearest_iteration() -> None:
    for tenths in range(1, 10):
        found = curve(Step([tenths / 10]), total=10)
        assert found == [1.0] * tenths + [0.1] * (10 - tenths)
    assert curve(Step([0.29]), total=100).index(0.1) == 29  # 0.29 * 100 is 28.999999999999996


def test_warm_up_then_cosine_is_bag_of_tricks() -> None:
    warm, total = 5 * PER_EPOCH, TOTAL
    found = curve(WarmUp(epochs=5, then=Cosine()))
    formula = [i / warm for i in range(1, warm + 1)]  # batch i of m, from 1
    rest = total - warm
    formula += [(1 + math.cos(t * math.pi / rest)) / 2 for t in range(rest)]
    assert found == pytest.approx(formula, **EXACT)
    assert found == curve(WarmUp(iterations=warm, then=Cosine()))


def test_warm_up_against_torchs_linear_and_sequential() -> None:
    warm = 20

    def make(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        # Torch's line includes both its ends: from our first point, start + (1 - start) / warm, in warm - 1 steps.
        line = lr_scheduler.LinearLR(optimizer, start_factor=0.1 + 0.9 / warm, total_iters=warm - 1)
        poly = lr_scheduler.PolynomialLR(optimizer, total_iters=TOTAL - warm, power=0.9)
        return lr_scheduler.SequentialLR(optimizer, [line, poly], milestones=[warm])

    found = curve(WarmUp(iterations=warm, start=0.1, then=Poly(power=0.9)))
    assert found == pytest.approx(torch_curve(make), **EXACT)


def test_milestones_count_from_the_start_of_the_run_under_a_warm_up() -> None:
    plain = curve(Step([3, 6, 9], unit="epoch"))
    warmed = curve(WarmUp(epochs=2, then=Step([3, 6, 9], unit="epoch")))
    assert warmed[20:] == plain[20:]
    assert warmed[:20] == pytest.approx([i / 20 for i in range(1, 21)], **EXACT)
    fractions = curve(WarmUp(epochs=2, then=Step([0.25, 0.5, 0.75])))
    assert fractions == warmed


def test_half_an_epoch_of_warm_up() -> None:
    found = curve(WarmUp(epochs=0.5, then=Constant()))
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0] + [1.0] * (TOTAL - 5), **EXACT)


def test_sequence_goes_on_from_the_level_reached() -> None:
    found = curve(Sequence([(0.5, Step([0.25])), (0.5, Cosine())]))
    cosine = [0.1 * (1 + math.cos(t * math.pi / 60)) / 2 for t in range(60)]
    assert found == pytest.approx([1.0] * 30 + [0.1] * 30 + cosine, **EXACT)


def test_sequence_without_carry_restarts_as_torchs_warm_restarts() -> None:
    found = curve(Sequence([(1 / 3, Cosine()), (1 / 3, Cosine()), (1 / 3, Cosine())], carry=False))
    theirs = torch_curve(lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=40))
    assert found == pytest.approx(theirs, **EXACT)


def test_warm_up_around_a_sequence() -> None:
    found = curve(WarmUp(iterations=20, then=Sequence([(0.5, Constant()), (0.5, Poly(power=1))])))
    expected = [i / 20 for i in range(1, 21)] + [1.0] * 50 + [1 - t / 50 for t in range(50)]
    assert found == pytest.approx(expected, **EXACT)


def test_set_lr_multiplies_each_groups_own_lr_and_does_not_accumulate() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [w], "lr": lr, "initial_lr": lr} for w, lr in zip(weights, (1.0, 0.1))]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    for factor in (0.5, 0.0, 0.25):
        set_lr(optimizer, factor)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.025]


def problem(schedule: Schedule, total: int = TOTAL) -> str:
    with pytest.raises(UserError) as caught:
        schedule.factor(0, total=total, per_epoch=PER_EPOCH)
    return str(caught.value)


def test_schedules_that_do_not_fit_the_run_are_refused() -> None:
    assert "leave nothing of the 120" in problem(WarmUp(iterations=120, then=Cosine()))
    assert "13 epochs" in problem(WarmUp(epochs=13, then=Cosine()))
    assert "[12]" in problem(Step([3, 12], unit="epoch"))
    assert "[2]" in problem(WarmUp(epochs=3, then=Step([2, 6], unit="epoch")))  # inside the warm-up
    assert "share an iteration" in problem(Step([0.500, 0.501]))
    assert "which is none" in problem(Sequence([(0.999, Constant()), (0.001, Cosine())]))
    assert "arrives at lr 0" in problem(Sequence([(0.5, Cosine()), (0.5, Cosine())]))
    assert "0 iterations" in problem(Constant(), total=0)
    both = problem(Sequence([(0.5, Step([0.75])), (0.5, WarmUp(epochs=9, then=Constant()))]))
    assert "piece 1" in both
    assert "piece 2" in both


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Step([]), "no milestones"),
        (lambda: Step([0.5, 0.25]), "not ascending"),
        (lambda: Step([0.5, 0.5]), "not ascending"),
        (lambda: Step([30, 60]), "unit='epoch'"),
        (lambda: Step([0], unit="epoch"), "above 0"),
        (lambda: Step([0.5], gamma=0), "gamma"),
        (lambda: Step([0.5], unit="epochs"), "unit is 'epochs'"),
        (lambda: Cosine(final=-0.1), "final"),
        (lambda: Poly(power=0), "power"),
        (lambda: WarmUp(then=Cosine()), "exactly one"),
        (lambda: WarmUp(epochs=1, iterations=5, then=Cosine()), "exactly one"),
        (lambda: WarmUp(epochs=0, then=Cosine()), "epochs is 0"),
        (lambda: WarmUp(iterations=2.5, then=Cosine()), "iterations is 2.5"),
        (lambda: WarmUp(epochs=1, start=2, then=Cosine()), "start is 2"),
        (lambda: Sequence([]), "no pieces"),
        (lambda: Sequence([(0.5, Cosine()), (0.6, Cosine())]), "sum to 1.1"),
    ],
)
def test_nonsense_is_refused(make, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_a_checkpoint_may_name_every_schedule_from_here() -> None:
    prefix = "transfer.optim.schedules"
    names = {name for name, value in vars(schedules).items() if isinstance(value, type) and issubclass(value, Schedule)}
    for name in names - {"Schedule"}:
        assert resolve(f"{prefix}.{name}", TRUSTED_MODULES) is getattr(schedules, name)
    node = {
        "type": f"{prefix}.WarmUp",
        "epochs": 1,
        "then": {
            "type": f"{prefix}.Sequence",
            "pieces": [
                [0.5, {"type": f"{prefix}.Held", "schedule": {"type": f"{prefix}.OneCycle", "final": 0.1}}],
                [0.5, {"type": f"{prefix}.Plateau", "gamma": 0.5}],
            ],
        },
    }
    built = build(node, trusted=TRUSTED_MODULES)
    pieces = [(0.5, Held(OneCycle(final=0.1))), (0.5, Plateau(gamma=0.5))]
    assert curve(built) == curve(WarmUp(epochs=1, then=Sequence(pieces)))
