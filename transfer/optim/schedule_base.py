"""What every learning-rate schedule is: a factor on the lr for each iteration of a run.

A schedule is a pure function of the iteration, so that a resumed run has the lr of an unbroken one. The one exception
is a schedule that listens to what the evaluations measured (`Plateau`): it is told the figures, and what it keeps of
them goes into the checkpoint. For all others the telling is nothing and the state is empty.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from transfer.types import UserError


class Span(NamedTuple):
    """The iterations start <= i < end of a run of `total` that a schedule has to itself."""

    start: int
    end: int
    total: int
    per_epoch: int

    @property
    def length(self) -> int:
        return self.end - self.start


class Schedule(ABC):
    """A factor on the lr for every iteration of a run."""

    def factor(self, iteration: int, *, total: int, per_epoch: int) -> float:
        """The factor in use at one iteration.

        Args:
            iteration: optimizer steps already taken, 0 <= iteration < total.
            total: optimizer steps of the whole run.
            per_epoch: optimizer steps of one epoch.

        Returns:
            What every group's initial_lr is multiplied by, at least 0.

        Raises:
            UserError: the schedule does not fit the run.
        """
        self.check(total=total, per_epoch=per_epoch)
        assert 0 <= iteration < total, f"iteration {iteration} of {total}"
        return self.value(iteration, Span(0, total, total, per_epoch))

    def check(self, *, total: int, per_epoch: int) -> None:
        """Refuse a schedule that does not fit a run of this length, naming all that is wrong.

        Args:
            total: optimizer steps of the whole run.
            per_epoch: optimizer steps of one epoch.

        Raises:
            UserError: the run has no iteration, or the schedule does not fit it.
        """
        if total < 1 or per_epoch < 1:
            raise UserError(f"a run of {total} iterations at {per_epoch} an epoch; both must be at least 1")
        if problems := self.problems(Span(0, total, total, per_epoch)):
            raise UserError("\n".join(problems))

    def tell(self, figure: float, *, iteration: int, total: int, per_epoch: int) -> None:
        """Tell what an evaluation on validation data measured; it acts from the next step on.

        Args:
            figure: the measured figure, higher is better; NaN is no improvement.
            iteration: optimizer steps taken when it was measured, 1 <= iteration <= total.
            total: optimizer steps of the whole run.
            per_epoch: optimizer steps of one epoch.
        """
        assert 1 <= iteration <= total, f"measured after {iteration} of {total} steps"
        self.hear(figure, iteration - 1, Span(0, total, total, per_epoch))

    def state_dict(self) -> dict[str, Any]:
        """Plain types: what was made of the figures told, of the parts that listen; empty where none does."""
        states = {name: part.state_dict() for name, part in self.parts().items()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave.

        Raises:
            UserError: it is of another schedule.
        """
        parts = self.parts()
        if strange := sorted(state.keys() - parts.keys()):
            raise UserError(
                f"the checkpoint's schedule kept a state of {', '.join(strange)}, of which {type(self).__name__} has "
                "none: resume with the schedule of the checkpoint, or start a new run from its weights"
            )
        for name, part in parts.items():
            part.load_state_dict(state.get(name, {}))

    @property
    def listens(self) -> bool:
        """Whether the figures told make a difference, so that a run without validation data could not use it."""
        return any(part.listens for part in self.parts().values())

    @abstractmethod
    def value(self, iteration: int, span: Span) -> float:
        """The factor at an iteration of the run, span.start <= iteration <= span.end; at the end, the level reached."""

    def problems(self, span: Span) -> list[str]:
        """What keeps the schedule from running over `span`, each with its remedy; empty where it fits."""
        return []

    def hear(self, figure: float, iteration: int, span: Span) -> None:
        """Take note of a figure measured after the step of `iteration`; a composed schedule tells the part at work."""
        return

    def parts(self) -> Mapping[str, Schedule]:
        """The schedules this one is composed of, by name."""
        return {}


def whole_periods(done: int, period: float) -> int:
    """How many whole periods lie in the iterations done, each end falling on the nearest iteration.

    Args:
        done: iterations, at least 0.
        period: length in iterations, above 0; it need not be whole.
    """
    return math.ceil((done + 0.5) / period) - 1


def refuse_outside_unit(owner: str, argument: str, value: float) -> None:
    """Raise a UserError where a value of the config is not in [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(f"{owner}: {argument} is {value!r}; give a number in [0, 1]")
