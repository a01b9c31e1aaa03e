"""The curves that the lr follows: constant, steps, cosine, polynomial, exponential and one cycle.

Sources: He et al. 2018, Bag of Tricks (arXiv 1812.01187), section 5.1 for the cosine (eta / 2 * (1 + cos(t * pi / T)),
T without the warm-up). The polynomial is DeepLab's (Chen et al., arXiv 1606.00915, section 4.1). The exponential in
steps of some epochs is that of Szegedy et al. (arXiv 1512.00567, section 8: 0.94 every two epochs). One cycle is Smith
and Topin 2017 (arXiv 1708.07120) in the two-phase form of fastai and of torch's OneCycleLR, whose lr it equals at every
step. Deviations of one cycle: the momentum, which the authors move against the lr, stays what the optimizer has; there
is no third phase at the end.

Lengths and points: see `transfer.optim.schedules`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Literal

from transfer.optim.schedule_base import Schedule, Span, refuse_outside_unit, whole_periods
from transfer.types import UserError, is_number


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
        refuse_outside_unit("Cosine", "final", self.final)

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
        refuse_outside_unit("Poly", "final", self.final)
        if not 0 < self.power < math.inf:
            raise UserError(f"Poly: power is {self.power!r}; give a number above 0")

    def value(self, iteration: int, span: Span) -> float:
        left = (span.end - iteration) / span.length
        return self.final + (1 - self.final) * left**self.power


@dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """Multiply by gamma once every so many epochs, counted from where the schedule begins."""

    gamma: float
    """In (0, 1]."""
    every: float = 1.0
    """Epochs, above 0."""
    staircase: bool = True
    """True: at once, at the end of each period. False: evenly over its iterations."""

    def __post_init__(self) -> None:
        problems = []
        if not (is_number(self.gamma) and 0 < self.gamma <= 1):
            problems.append(f"Exponential: gamma is {self.gamma!r}; give a number in (0, 1], such as 0.94")
        if not (is_number(self.every) and 0 < self.every < math.inf):
            problems.append(f"Exponential: every is {self.every!r}; give a number of epochs above 0")
        if problems:
            raise UserError("\n".join(problems))

    def value(self, iteration: int, span: Span) -> float:
        done, period = iteration - span.start, self.every * span.per_epoch
        return self.gamma ** (whole_periods(done, period) if self.staircase else done / period)

    def problems(self, span: Span) -> list[str]:
        if self.staircase and self.every * span.per_epoch < 1:
            return [
                f"Exponential: every is {self.every:g} epochs, less than one of the {span.per_epoch} iterations of an "
                "epoch; give more, or staircase=False"
            ]
        return []


@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """Up from `initial` to `peak` over the first part of the span, then down to `final` at its last step."""

    peak: float = 1.0
    """Above 0; 1 makes the optimizer's lr the largest one."""
    warm_up: float = 0.3
    """Share of the span until the peak, in (0, 1)."""
    initial: float = 0.04
    """Factor of the first step, in [0, peak]."""
    final: float = 4e-6
    """Factor of the last step, in [0, peak]."""
    shape: Literal["cosine", "linear"] = "cosine"
    """Of both ways."""

    def __post_init__(self) -> None:
        problems = []
        if not (is_number(self.peak) and 0 < self.peak < math.inf):
            problems.append(f"OneCycle: peak is {self.peak!r}; give a number above 0")
        else:
            for name in ("initial", "final"):
                value = getattr(self, name)
                if not (is_number(value) and 0 <= value <= self.peak):
                    problems.append(f"OneCycle: {name} is {value!r}; give a number in [0, {self.peak:g}], the peak")
        if not (is_number(self.warm_up) and 0 < self.warm_up < 1):
            problems.append(f"OneCycle: warm_up is {self.warm_up!r}; give a share of the span in (0, 1)")
        if self.shape not in ("cosine", "linear"):
            problems.append(f"OneCycle: shape is {self.shape!r}; give 'cosine' or 'linear'")
        if problems:
            raise UserError("\n".join(problems))

    def value(self, iteration: int, span: Span) -> float:
        top, last = self._top(span), span.length - 1
        done = min(iteration - span.start, last)
        if done <= top:
            return self._between(self.initial, self.peak, done / top)
        return self._between(self.peak, self.final, (done - top) / (last - top))

    def problems(self, span: Span) -> list[str]:
        if self._top(span) > 0:
            return []
        return [
            f"OneCycle: warm_up is {self.warm_up:g} of {span.length} iterations, which is one or less; "
            "give it a larger share or train longer"
        ]

    def _top(self, span: Span) -> float:
        """Where the peak is, in iterations from the start of the span; it may fall between two of them."""
        return self.warm_up * span.length - 1

    def _between(self, start: float, end: float, share: float) -> float:
        """From start (share 0) to end (share 1)."""
        return start + (end - start) * (share if self.shape == "linear" else (1 - math.cos(math.pi * share)) / 2)
