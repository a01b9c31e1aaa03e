"""A copy of what a run trains, and the states of all random generators: a check leaves no trace in the run.

Weights, statistics of batch norm, gradients, training modes, the optimizer's state and the loss scale are those of a
copy, so that even a check that is interrupted half-way leaves the run as it was. The price is the memory of a second
model. The generators of Python, numpy and torch (CPU and every CUDA device) are set back at the end.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from transfer.engine.settings import TrainingSettings
from transfer.engine.task import Task
from transfer.engine.train import Run
from transfer.optim.precision import Precision
from transfer.types import Batch

_PROBE_SCALE = 1024.0
"""Of float16's losses: at torch's first scale, 65536, the first steps of a run are skipped to find a lower one."""


@contextlib.contextmanager
def random_states_kept() -> Iterator[None]:
    """Whatever is drawn or seeded within the context, all generators are afterwards where they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the global generator is what is kept
    on_cpu = torch.get_rng_state()
    on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(on_cpu)
        if on_cuda:
            torch.cuda.set_rng_state_all(on_cuda)


@dataclass
class Trial:
    """A copy of a run's task and optimizer, in training mode; steps on it do nothing to the run."""

    task: Task
    optimizer: torch.optim.Optimizer
    precision: Precision
    settings: TrainingSettings
    device: torch.device

    @property
    def model(self) -> nn.Module:
        """The copied network."""
        return self.task.model

    def losses(self, batch: Batch, number: int = 0) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            batch: on the device.
            number: of the step: regions and dropout are drawn anew at each.
        """
        torch.manual_seed(self.settings.seed + number)
        targets = [dataclasses.replace(target, seed=target.seed + number) for target in batch.targets]
        with self.precision.autocast():
            return self.task.losses(self.model, Batch(batch.images, targets))

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}


def trial_of(run: Run) -> Trial:
    """A copy to try steps on.

    Args:
        run: stays as it is.
    """
    task, optimizer = copy.deepcopy((run.task, run.optimizer))  # together: the optimizer is to hold the copy's weights
    task.model.train()
    optimizer.zero_grad(set_to_none=True)
    for module in task.model.modules():
        if hasattr(module, "set_progress"):  # what grows with the run (DropBlock) is at its start
            module.set_progress(0.0)  # type: ignore[operator]
    device = run.world.device
    precision = Precision(run.precision.mode, device.type, init_scale=_PROBE_SCALE)
    return Trial(task, optimizer, precision, run.settings, device)
