"""Plateau against torch's ReduceLROnPlateau over random figures; who hears what in composed schedules; resume."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from transfer.optim.schedules import Constant, Cosine, Held, Plateau, Schedule, Sequence, WarmUp
from transfer.types import UserError

TOTAL, PER_EPOCH = 120, 10
RUN = {"total": TOTAL, "per_epoch": PER_EPOCH}


def random_figures(seed: int, count: int = 60) -> list[float]:
    """A noisy rise of few distinct values, so that ties occur, with some that are not numbers."""
    generator = np.random.default_rng(seed)
    figures = np.round(np.log1p(np.arange(count)) / 4 + generator.normal(0, 0.15, count), 1)
    figures[generator.random(count) < 0.1] = np.nan
    return figures.tolist()


def factors(schedule: Schedule, figures: list[float]) -> list[float]:
    """The factor after each figure, all measured at the middle of the run."""
    found = []
    for figure in figures:
        schedule.tell(figure, iteration=60, **RUN)
        found.append(schedule.factor(60, **RUN))
    return found


OPTIONS = [
    {},
    {"gamma": 0.5, "patience": 0},
    {"gamma": 0.3, "patience": 2, "min_delta": 0.25},
    {"gamma": 0.5, "patience": 1, "cooldown": 3},
    {"gamma": 0.1, "patience": 1, "floor": 0.05},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_the_factor_is_torchs_after_every_figure(options: dict, seed: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = ReduceLROnPlateau(
        optimizer,
        mode="max",
        threshold_mode="abs",
        factor=options.get("gamma", 0.1),
        patience=options.get("patience", 10),
        threshold=options.get("min_delta", 0.0),
        cooldown=options.get("cooldown", 0),
        min_lr=options.get("floor", 0.0),
        eps=0,
    )
    expected = []
    for figure in (figures := random_figures(seed)):
        theirs.step(figure)
        expected.append(optimizer.param_groups[0]["lr"])
    assert expected[-1] < 1  # something happens
    assert factors(Plateau(**options), figures) == expected


def test_by_hand() -> None:
    """Patience 2: the third evaluation in a row without improvement lowers; equal is no improvement, nor is NaN."""
    schedule = Plateau(gamma=0.1, patience=2, floor=0.005)
    assert schedule.factor(0, **RUN) == 1.0
    figures = [0.5, 0.6, 0.6, math.nan, 0.4, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    expected = [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.005]
    assert factors(schedule, figures) == pytest.approx(expected, rel=1e-12)


def saved_and_loaded(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("told", [0, 7, 23])
def test_resume_goes_on_as_if_unbroken(told: int) -> None:
    def make() -> Schedule:
        return WarmUp(epochs=1, then=Plateau(gamma=0.5, patience=1, cooldown=2))

    figures = random_figures(5)
    unbroken = factors(make(), figures)
    first, second = make(), make()
    begun = factors(first, figures[:told])
    second.load_state_dict(saved_and_loaded(first.state_dict()))
    assert begun + factors(second, figures[told:]) == unbroken


def test_two_schedules_do_not_share_what_they_heard() -> None:
    first, second = Plateau(patience=0), Plateau(patience=0)
    factors(first, [1.0, 0.0])
    assert (first.factor(0, **RUN), second.factor(0, **RUN)) == (0.1, 1.0)


def test_a_warm_up_hears_nothing_and_passes_on_what_comes_after_it() -> None:
    schedule = WarmUp(epochs=2, start=0.5, mode="constant", then=Plateau(patience=0))
    for iteration in (10, 20):  # 20 steps taken: all of them in the warm-up
        schedule.tell(math.nan, iteration=iteration, **RUN)
    assert schedule.factor(20, **RUN) == 1.0
    schedule.tell(math.nan, iteration=21, **RUN)
    assert schedule.factor(21, **RUN) == 0.1
    assert schedule.factor(0, **RUN) == 0.5


def test_a_piece_of_a_sequence_hears_only_of_its_own_part() -> None:
    schedule = Sequence([(0.5, Constant()), (0.5, Plateau(patience=0))])
    schedule.tell(math.nan, iteration=60, **RUN)
    assert schedule.factor(60, **RUN) == 1.0
    schedule.tell(math.nan, iteration=61, **RUN)
    assert schedule.factor(61, **RUN) == 0.1
    first = Sequence([(0.5, Plateau(patience=0)), (0.5, Cosine())])
    first.tell(math.nan, iteration=60, **RUN)
    first.tell(math.nan, iteration=70, **RUN)  # the piece is over: its level stays what it was
    assert first.factor(60, **RUN) == 0.1


def test_state_lies_where_the_plateau_does_and_others_have_none() -> None:
    for schedule in (Constant(), Held(Cosine()), WarmUp(epochs=1, then=Sequence([(0.5, Constant()), (0.5, Cosine())]))):
        schedule.tell(0.5, iteration=1, **RUN)
        assert schedule.state_dict() == {}
        assert not schedule.listens
        schedule.load_state_dict({})
    deep = WarmUp(epochs=1, then=Sequence([(0.5, Constant()), (0.5, Plateau(patience=0))]))
    assert deep.listens
    deep.tell(0.75, iteration=100, **RUN)
    deep.tell(0.25, iteration=110, **RUN)
    assert deep.state_dict() == {"then": {"piece 2": {"level": 0.1, "best": 0.75, "stale": 0, "cooling": 0}}}


def test_a_state_of_another_schedule_is_refused() -> None:
    state = WarmUp(epochs=1, then=Plateau()).state_dict()
    with pytest.raises(UserError, match="kept a state of then, of which Cosine has none"):
        Cosine().load_state_dict(state)
    with pytest.raises(UserError, match="kept a state of best, cooling, level, stale"):
        Held(Cosine()).load_state_dict(Plateau().state_dict())
    with pytest.raises(UserError, match="kept nothing, a Plateau keeps"):
        WarmUp(epochs=1, then=Plateau()).load_state_dict({})


def test_nonsense_is_refused_all_at_once() -> None:
    with pytest.raises(UserError) as caught:
        Plateau(gamma=1, patience=-1, min_delta=-0.1, cooldown=1.5, floor=2)
    for argument in ("gamma is 1", "patience is -1", "min_delta is -0.1", "cooldown is 1.5", "floor is 2"):
        assert argument in str(caught.value)
