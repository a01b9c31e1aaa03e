"""End a run where the measured figure no longer rises.

Source: Prechelt 1998, Early Stopping - But When?, the criterion that counts evaluations without improvement. The best
checkpoint is the run's own affair: stopping changes no weight.
"""

from __future__ import annotations

import math
from typing import Any

from transfer.types import UserError, is_number


class EarlyStopping:
    """Counts evaluations without improvement. Tell it figures of validation data only."""

    best: float
    """The highest figure told so far; minus infinity before the first."""
    stale: int
    """Evaluations since then."""

    def __init__(self, patience: int, *, min_delta: float = 0.0) -> None:
        """
        Args:
            patience: how many evaluations in a row without improvement end the run, at least 1. (Plateau's patience
                counts those that are put up with: with the same number it acts one evaluation later.)
            min_delta: by how much a figure must exceed the best one to be an improvement, in the figure's unit; at
                least 0.

        Raises:
            UserError: patience or min_delta is out of its range.
        """
        problems = []
        if not (type(patience) is int and patience >= 1):
            problems.append(f"EarlyStopping: patience is {patience!r}; give a whole number of evaluations, 1 or more")
        if not (is_number(min_delta) and 0 <= min_delta < math.inf):
            problems.append(f"EarlyStopping: min_delta is {min_delta!r}; give 0 or a number above")
        if problems:
            raise UserError("\n".join(problems))
        self.patience = patience
        self.min_delta = min_delta
        self.best = -math.inf
        self.stale = 0

    @property
    def stopped(self) -> bool:
        """Whether patience has run out; a run resumed in this state is over."""
        return self.stale >= self.patience

    def tell(self, figure: float) -> bool:
        """Take note of an evaluation.

        Args:
            figure: the measured figure, higher is better; NaN is no improvement.

        Returns:
            Whether to stop.
        """
        if figure > self.best + self.min_delta:
            self.best, self.stale = figure, 0
        else:
            self.stale += 1
        return self.stopped

    def state_dict(self) -> dict[str, Any]:
        """Plain types: the best figure and the evaluations since."""
        return {"best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave; patience and min_delta stay those of the constructor."""
        self.best, self.stale = float(state["best"]), int(state["stale"])
