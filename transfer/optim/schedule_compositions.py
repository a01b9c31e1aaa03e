"""Schedules made of other schedules: a warm-up before one, several in a row, one held for whole epochs.

Sources of the warm-up: Goyal et al. 2017 (arXiv 1706.02677), section 2.2, which has both forms: a constant low lr for
the first epochs, then the full one; and a gradual rise. The gradual one is stepped as in He et al. 2018, Bag of Tricks
(arXiv 1812.01187), section 3.1: lr i * eta / m at batch i, 1 <= i <= m, so (i + 1) / m with i from 0. The first step
after a warm-up is at factor 1, as was the last of a gradual one.

Each part has its own span of the run, and hears only of the figures measured within it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Literal

from transfer.optim.schedule_base import Schedule, Span, refuse_outside_unit, whole_periods
from transfer.types import UserError, is_number


@dataclass(frozen=True, kw_only=True)
class WarmUp(Schedule):
    """A low lr at first, then another schedule over the iterations that are left."""

    then: Schedule
    epochs: float | None = None
    """Length of the warm-up in epochs, above 0. Give this or `iterations`."""
    iterations: int | None = None
    """Length of the warm-up in optimizer steps, at least 1."""
    start: float = 0.0
    """In [0, 1]. Gradual: where the line would be before the first step, which is one n-th of the way up already.
    Constant: the factor all through the warm-up, above 0."""
    mode: Literal["gradual", "constant"] = "gradual"
    """A straight line from `start` up to 1; or `start`, and then a jump to 1."""

    def __post_init__(self) -> None:
        refuse_outside_unit("WarmUp", "start", self.start)
        if self.mode not in ("gradual", "constant"):
            raise UserError(f"WarmUp: mode is {self.mode!r}; give 'gradual' or 'constant'")
        if self.mode == "constant" and self.start == 0:
            raise UserError("WarmUp: mode='constant' at start=0 trains nothing; give start a factor such as 0.1")
        if (self.epochs is None) == (self.iterations is None):
            raise UserError(
                f"WarmUp: epochs is {self.epochs!r} and iterations is {self.iterations!r}; give exactly one of them"
            )
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise UserError(f"WarmUp: epochs is {self.epochs!r}; give a number above 0, or leave the warm-up out")
        if self.iterations is not None and (type(self.iterations) is not int or self.iterations < 1):
            raise UserError(
                f"WarmUp: iterations is {self.iterations!r}; give a whole number above 0, or leave the warm-up out"
            )

    def value(self, iteration: int, span: Span) -> float:
        length = self._length(span)
        rest = span._replace(start=span.start + length)
        if iteration >= rest.start:
            return self.then.value(iteration, rest)
        if self.mode == "constant":
            return self.start
        return self.start + (1 - self.start) * (iteration - span.start + 1) / length

    def problems(self, span: Span) -> list[str]:
        length = self._length(span)
        if length >= span.length:
            return [
                f"WarmUp: {length} iterations of warm-up ({length / span.per_epoch:g} epochs) leave nothing of the "
                f"{span.length} iterations there are; shorten the warm-up (schedule.iterations or "
                "its like) or train longer (training.epochs)"
            ]
        return self.then.problems(span._replace(start=span.start + length))

    def hear(self, figure: float, iteration: int, span: Span) -> None:
        rest = span._replace(start=span.start + self._length(span))
        if iteration >= rest.start:
            self.then.hear(figure, iteration, rest)

    def parts(self) -> Mapping[str, Schedule]:
        return {"then": self.then}

    def _length(self, span: Span) -> int:
        if self.iterations is not None:
            return self.iterations
        assert self.epochs is not None
        return max(1, round(self.epochs * span.per_epoch))


@dataclass(frozen=True)
class Sequence(Schedule):
    """Several schedules one after the other, such as steps for the first half and a cosine for the second."""

    pieces: SequenceOf[tuple[float, Schedule]]
    """(fraction of the span, schedule); the fractions sum to 1."""
    carry: bool = field(default=True, kw_only=True)
    """True: each piece starts at the level the one before arrived at. False: each starts anew at 1 (warm restarts)."""

    def __post_init__(self) -> None:
        if not self.pieces:
            raise UserError("Sequence: no pieces; give a list of (fraction, schedule)")
        fractions = [fraction for fraction, _ in self.pieces]
        if any(not 0 < fraction <= 1 for fraction in fractions) or abs(sum(fractions) - 1) > 1e-6:
            raise UserError(
                f"Sequence: fractions {fractions} sum to {sum(fractions):g}; give fractions above 0 that sum to 1"
            )

    def value(self, iteration: int, span: Span) -> float:
        level = 1.0
        for piece, (_, schedule) in zip(self._spans(span), self.pieces):
            if iteration < piece.end or piece.end == span.end:
                return level * schedule.value(iteration, piece)
            if self.carry:
                level *= schedule.value(piece.end, piece)
        raise AssertionError("the last piece ends where the span does")

    def problems(self, span: Span) -> list[str]:
        problems = []
        for number, (piece, (fraction, schedule)) in enumerate(zip(self._spans(span), self.pieces), start=1):
            if piece.length < 1:
                problems.append(
                    f"Sequence: piece {number} has fraction {fraction:g} of {span.length} iterations, which is none; "
                    "give it more or train longer"
                )
                continue
            found = [f"Sequence, piece {number}: {problem}" for problem in schedule.problems(piece)]
            problems += found
            if self.carry and not found and number < len(self.pieces) and schedule.value(piece.end, piece) <= 0:
                problems.append(
                    f"Sequence: piece {number} arrives at lr 0, where all later pieces would stay; "
                    "give it a final level above 0, or carry=False to start each piece anew"
                )
        return problems

    def hear(self, figure: float, iteration: int, span: Span) -> None:
        for piece, (_, schedule) in zip(self._spans(span), self.pieces):
            if piece.start <= iteration < piece.end:
                schedule.hear(figure, iteration, piece)

    def parts(self) -> Mapping[str, Schedule]:
        return {f"piece {number}": schedule for number, (_, schedule) in enumerate(self.pieces, start=1)}

    def _spans(self, span: Span) -> list[Span]:
        done, bounds = 0.0, [span.start]
        for fraction, _ in self.pieces:
            done += fraction
            bounds.append(span.start + round(done * span.length))
        bounds[-1] = span.end  # the sum of the fractions may be off by rounding
        return [span._replace(start=start, end=end) for start, end in zip(bounds, bounds[1:])]


@dataclass(frozen=True)
class Held(Schedule):
    """Another schedule, changed only every so many epochs: each block has the factor of its first iteration."""

    schedule: Schedule
    epochs: float = field(default=1.0, kw_only=True)
    """Length of a block, above 0, counted from where the schedule begins."""

    def __post_init__(self) -> None:
        if not (is_number(self.epochs) and 0 < self.epochs < math.inf):
            raise UserError(f"Held: epochs is {self.epochs!r}; give a number above 0")

    def value(self, iteration: int, span: Span) -> float:
        period = self.epochs * span.per_epoch
        done = iteration - span.start
        begun = math.floor(whole_periods(done, period) * period + 0.5)  # the nearest iteration
        return self.schedule.value(span.start + min(begun, done), span)

    def problems(self, span: Span) -> list[str]:
        problems = self.schedule.problems(span)
        if not 1 <= self.epochs * span.per_epoch < span.length:
            problems.append(
                f"Held: blocks of {self.epochs:g} epochs in the {span.length / span.per_epoch:g} epochs this schedule "
                f"has, at {span.per_epoch} iterations an epoch; a block needs an iteration, and the schedule two blocks"
            )
        if self.schedule.listens:
            problems.append(
                f"Held: {type(self.schedule).__name__} follows the evaluations and cannot be held; "
                "leave Held out (training.evaluate_every says how often it may change)"
            )
        return problems

    def parts(self) -> Mapping[str, Schedule]:
        return {"schedule": self.schedule}
