"""Learning-rate schedules as pure functions of the iteration, so that a resumed run has the lr of an unbroken one.

A schedule says by which factor the lr that each parameter group started with is multiplied. Iterations count optimizer
steps from 0: the factor of iteration i is in use for step i + 1.

Sources: He et al. 2018, Bag of Tricks (arXiv 1812.01187): section 3.1 for the warm-up (lr i * eta / m at batch i,
1 <= i <= m: so (i + 1) / m with i from 0), section 5.1 for the cosine (eta / 2 * (1 + cos(t * pi / T)), T without the
warm-up). The polynomial is DeepLab's (Chen et al., arXiv 1606.00915, section 4.1). The first step after a warm-up is
at factor 1, as was its last.

Lengths and points: a cosine, a polynomial and the pieces of a Sequence run over the span they are given, which is the
whole run, what a WarmUp leaves of it, or one piece. The milestones of a Step are points of the whole run wherever the
Step stands, as the papers print them: /10 at epoch 30 is at epoch 30 with or without a warm-up of 5 epochs.
Fractional positions fall on the nearest iteration.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

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

    @abstractmethod
    def value(self, iteration: int, span: Span) -> float:
        """The factor at an iteration of the run, span.start <= iteration <= span.end; at the end, the level reached."""

    def problems(self, span: Span) -> list[str]:
        """What keeps the schedule from running over `span`, each with its remedy; empty where it fits."""
        return []


@dataclass(frozen=True)
class Constant(Schedule):
    """The baseline: the lr stays what it is."""

    def value(self, iteration: int, span: Span) -> float:
        return 1.0


@dataclass(frozen=True)
class Step(Schedule):
    """Multiply by gamma at each milestone."""

    milestones: SequenceOf[float]
    """Points of the whole run, ascending: fractions in (0, 1), or epochs."""
    unit: Literal["fraction", "epoch"] = field(default="fraction", kw_only=True)
    gamma: float = field(default=0.1, kw_only=True)
    """In (0, 1]."""

    def __post_init__(self) -> None:
        problems = []
        if self.unit not in ("fraction", "epoch"):
            problems.append(f"Step: unit is {self.unit!r}; give 'fraction' or 'epoch'")
        if not 0 < self.gamma <= 1:
            problems.append(f"Step: gamma is {self.gamma!r}; give a number in (0, 1]")
        if not self.milestones:
            problems.append("Step: no milestones; give at least one, or use Constant")
        if any(later <= earlier for earlier, later in zip(self.milestones, self.milestones[1:])):
            problems.append(f"Step: milestones {list(self.milestones)} are not ascending; sort them and name each once")
        limit = 1 if self.unit == "fraction" else math.inf
        if outside := [milestone for milestone in self.milestones if not 0 < milestone < limit]:
            remedy = "give fractions in (0, 1), or unit='epoch'" if self.unit == "fraction" else "epochs are above 0"
            problems.append(f"Step: milestones {outside}; {remedy}")
        if problems:
            raise UserError("\n".join(problems))

    def value(self, iteration: int, span: Span) -> float:
        return self.gamma ** sum(iteration >= point for point in self._points(span))

    def problems(self, span: Span) -> list[str]:
        points = self._points(span)
        problems = []
        if outside := [m for m, point in zip(self.milestones, points) if not span.start < point < span.end]:
            length = f"epochs {span.start / span.per_epoch:g} to {span.end / span.per_epoch:g}"
            if self.unit == "fraction":
                length = f"fractions {span.start / span.total:g} to {span.end / span.total:g}"
            problems.append(
                f"Step: milestones {outside} do not fall inside the part of the run this schedule has, {length} "
                f"(iterations {span.start} to {span.end}); move or drop them"
            )
        if len(set(points)) < len(points):
            problems.append(
                f"Step: milestones {list(self.milestones)} share an iteration ({points}); drop some or train longer"
            )
        return problems

    def _points(self, span: Span) -> list[int]:
        unit = span.total if self.unit == "fraction" else span.per_epoch
        return [round(milestone * unit) for milestone in self.milestones]


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from 1 down to `final`."""

    final: float = 0.0
    """In [0, 1]."""

    def __post_init__(self) -> None:
        _refuse_outside_unit("Cosine", "final", self.final)

    def value(self, iteration: int, span: Span) -> float:
        done = (iteration - span.start) / span.length
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True, kw_only=True)
class Poly(Schedule):
    """(1 - t / T) ** power, from 1 down to `final`."""

    power: float = 0.9
    """Above 0; 1 is a straight line."""
    final: float = 0.0
    """In [0, 1]."""

    def __post_init__(self) -> None:
        _refuse_outside_unit("Poly", "final", self.final)
        if not 0 < self.power < math.inf:
            raise UserError(f"Poly: power is {self.power!r}; give a number above 0")

    def value(self, iteration: int, span: Span) -> float:
        left = (span.end - iteration) / span.length
        return self.final + (1 - self.final) * left**self.power


@dataclass(frozen=True, kw_only=True)
class WarmUp(Schedule):
    """A straight line from `start` up to 1, then another schedule over the iterations that are left."""

    then: Schedule
    epochs: float | None = None
    """Length of the warm-up in epochs, above 0. Give this or `iterations`."""
    iterations: int | None = None
    """Length of the warm-up in optimizer steps, at least 1."""
    start: float = 0.0
    """In [0, 1]: where the line would be before the first step, which is one n-th of the way up already."""

    def __post_init__(self) -> None:
        _refuse_outside_unit("WarmUp", "start", self.start)
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
        return self.start + (1 - self.start) * (iteration - span.start + 1) / length

    def problems(self, span: Span) -> list[str]:
        length = self._length(span)
        if length >= span.length:
            return [
                f"WarmUp: {length} iterations of warm-up ({length / span.per_epoch:g} epochs) leave nothing of the "
                f"{span.length} iterations there are; shorten the warm-up or train longer"
            ]
        return self.then.problems(span._replace(start=span.start + length))

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

    def _spans(self, span: Span) -> list[Span]:
        done, bounds = 0.0, [span.start]
        for fraction, _ in self.pieces:
            done += fraction
            bounds.append(span.start + round(done * span.length))
        bounds[-1] = span.end  # the sum of the fractions may be off by rounding
        return [span._replace(start=start, end=end) for start, end in zip(bounds, bounds[1:])]


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's lr to its initial_lr times the factor.

    Args:
        optimizer: one whose groups carry initial_lr, as those of `parameter_groups` do.
        factor: from a schedule, at least 0.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _refuse_outside_unit(owner: str, argument: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{owner}: {argument} is {value!r}; give a number in [0, 1]")
