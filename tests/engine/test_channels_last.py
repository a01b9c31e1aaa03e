"""Maps stored pixel by pixel: the same training to rounding, and a resume to the last bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from toy_task import ToyTask, toy_run

from transfer.engine.settings import TrainingSettings
from transfer.engine.train import Ending, Event, Run, Step, train
from transfer.optim.optimizers import SGD
from transfer.types import UserError


class SmallNetwork(nn.Module):
    """Convolutions of 3x3 and 1x1 with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 1)
        )
        self.layouts: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        maps = self.layers(images.float() / 4)  # [B, 4, 2, 2]
        self.layouts.append(maps.is_contiguous(memory_format=torch.channels_last))
        return maps.mean(dim=(1, 2, 3))


def small_run(*, channels_last: bool, ema: bool = False) -> Run:
    """Six steps with momentum."""
    torch.manual_seed(0)
    task = ToyTask()
    task.model = SmallNetwork()  # type: ignore[assignment]
    run = toy_run(task, iterations=6, channels_last=channels_last, ema={"decay": 0.5} if ema else None)
    run.optimizer = SGD(lr=0.1, base_batch=None, weight_decay=0.01).build(task.model, global_batch=2)
    return run


def test_it_trains_the_same_to_rounding() -> None:
    losses: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for on, told in losses.items():
        run = small_run(channels_last=on, ema=True)

        def note(event: Event, told: list[dict[str, float]] = told) -> None:
            if isinstance(event, Step):
                told.append(event.losses)

        assert train(run, lambda model: [], [note])
        assert run.ema is not None
        for network in (run.task.model, run.ema.module):
            weight = network.layers[0].weight  # type: ignore[index, union-attr]
            assert weight.is_contiguous(memory_format=torch.channels_last) == on
        assert set(run.task.model.layouts) == {on}  # type: ignore[arg-type]
    assert len(losses[True]) == 6
    for got, wanted in zip(losses[True], losses[False], strict=True):
        assert got == {"loss_square": pytest.approx(wanted["loss_square"], rel=1e-4)}


def test_a_run_goes_on_as_if_it_had_not_stopped() -> None:
    whole = small_run(channels_last=True)
    assert train(whole, lambda model: [], [])
    first, second = small_run(channels_last=True), small_run(channels_last=True)

    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.iteration == 3:
            first.deadline = 0.0

    assert train(first, lambda model: [], [stop]) is Ending.OUT_OF_TIME
    second.restore(copy.deepcopy(first.state()))
    assert train(second, lambda model: [], [])
    for name, tensor in whole.task.model.state_dict().items():
        assert torch.equal(second.task.model.state_dict()[name], tensor), name


def test_it_is_off_by_default_and_yes_or_no() -> None:
    assert TrainingSettings(epochs=1).channels_last is False
    with pytest.raises(UserError, match=r"channels_last='yes' must be True or False"):
        TrainingSettings(epochs=1, channels_last="yes")  # type: ignore[arg-type]
