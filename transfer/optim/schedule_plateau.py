"""Lower the lr where the measured figure no longer rises.

The rule is that of torch's ReduceLROnPlateau with mode="max" and threshold_mode="abs", on a factor instead of on the
optimizer's lr. Deviation: no smallest change of the lr (torch's eps), which depends on the lr's size.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transfer.optim.schedule_base import Schedule, Span
from transfer.types import UserError, is_number


@dataclass
class _Heard:
    """What the figures told so far have come to."""

    level: float = 1.0
    best: float = -math.inf
    stale: int = 0
    """Evaluations since the best, or since the factor was last lowered."""
    cooling: int = 0
    """Evaluations still to pass before stale ones count again."""


@dataclass(frozen=True, kw_only=True)
class Plateau(Schedule):
    """Multiply by gamma when `patience` evaluations without improvement were followed by one more."""

    gamma: float = 0.1
    """In (0, 1)."""
    patience: int = 10
    """Evaluations without improvement that are put up with, at least 0."""
    min_delta: float = 0.0
    """By how much a figure must exceed the best one to be an improvement, in the figure's unit; at least 0."""
    cooldown: int = 0
    """Evaluations after each lowering that do not count as without improvement, at least 0."""
    floor: float = 0.0
    """The factor never falls below; in [0, 1]."""
    _heard: _Heard = field(default_factory=_Heard, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        problems = []
        if not (is_number(self.gamma) and 0 < self.gamma < 1):
            problems.append(f"Plateau: gamma is {self.gamma!r}; give a number in (0, 1)")
        for name in ("patience", "cooldown"):
            value = getattr(self, name)
            if not (type(value) is int and value >= 0):
                problems.append(f"Plateau: {name} is {value!r}; give a whole number of evaluations, 0 or more")
        if not (is_number(self.min_delta) and 0 <= self.min_delta < math.inf):
            problems.append(f"Plateau: min_delta is {self.min_delta!r}; give 0 or a number above")
        if not (is_number(self.floor) and 0 <= self.floor <= 1):
            problems.append(f"Plateau: floor is {self.floor!r}; give a number in [0, 1]")
        if problems:
            raise UserError("\n".join(problems))

    def value(self, iteration: int, span: Span) -> float:
        return self._heard.level

    def hear(self, figure: float, iteration: int, span: Span) -> None:
        heard = self._heard
        if figure > heard.best + self.min_delta:  # never so for NaN
            heard.best, heard.stale = figure, 0
        else:
            heard.stale += 1
        if heard.cooling > 0:
            heard.cooling, heard.stale = heard.cooling - 1, 0
        if heard.stale > self.patience:
            heard.level = max(heard.level * self.gamma, self.floor)
            heard.cooling, heard.stale = self.cooldown, 0

    @property
    def listens(self) -> bool:
        return True

    def state_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self._heard)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        names = {each.name for each in dataclasses.fields(_Heard)}
        if state.keys() != names:
            raise UserError(
                f"the checkpoint's schedule kept {sorted(state) or 'nothing'}, a Plateau keeps {sorted(names)}: resume "
                "with the schedule of the checkpoint, or start a new run from its weights"
            )
        for name in names:
            setattr(self._heard, name, state[name])
