"""Whether a noisy curve has changed, by more than its noise alone would show.

Source of the noise estimate: Gasser, Sroka and Jennen-Steinmetz 1986 (Residual variance and residual pattern in
nonlinear regression, Biometrika 73): each point's distance from the straight line between its neighbours, which a slow
curve hardly touches. Deviation: over a whole curve the median of those distances instead of their mean square, so that
the steep beginning does not count as noise. At the end of a curve it is the mean square: there the noise often dies out
with the learning rate, and the median would be that of the last, quiet points.

How large a change noise alone shows depends on how many points there are and on what was looked for (the best of many
is always above the rest), so it is found by drawing: the same statistic, in units of the same estimate, of many curves
that are level but for normal noise. A change counts if it is beyond 99.5 % of theirs. Neighbouring points are taken to
be independent: a figure that wanders slowly for no reason passes for one that changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

_DRAWS = 8000
_CONFIDENCE = 0.995
IN_A_ROW = 5
"""So many points in one order happen by chance once in 120."""

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(places [n], curves [..., n]) -> [...]: an amount in the curve's units."""


@dataclass(frozen=True, slots=True)
class Change:
    """How far a curve has moved."""

    amount: float
    """In the curve's units; above 0 is up."""
    limit: float
    """What noise alone exceeds in 1 of 200 curves, to one side."""
    error: float
    """What it exceeds in 1 of 20: the amount is known to about as much."""

    @property
    def up(self) -> bool:
        """Whether it rose by more than noise shows."""
        return self.amount > self.limit

    @property
    def down(self) -> bool:
        """Whether it fell by more than noise shows."""
        return -self.amount > self.limit


def noise_of(x: np.ndarray, y: np.ndarray, *, median: bool = True) -> np.ndarray:
    """The standard deviation of the noise.

    Args:
        x: [n] places, rising, at least 3.
        y: [..., n] curves.
        median: estimate it from the median distance, else from the mean square.
    Returns:
        [...].
    """
    before = (x[2:] - x[1:-1]) / (x[2:] - x[:-2])
    after = 1 - before
    distances = before * y[..., :-2] + after * y[..., 2:] - y[..., 1:-1]
    distances = distances / np.sqrt(before**2 + after**2 + 1)
    if median:
        return np.median(np.abs(distances), axis=-1) / 0.6745  # of a normal deviate, half are nearer to 0 than this
    return np.sqrt((distances**2).mean(axis=-1))


def change(x: np.ndarray, y: np.ndarray, statistic: Statistic, *, recent: bool = False) -> Change:
    """A statistic of a curve, and how large it must be to count.

    Args:
        x: [n] places, rising, at least 4.
        y: [n].
        statistic: an amount that is in proportion to the curve and 0 on average for level ones, or negative.
        recent: estimate the noise by the last half (at least 7 points), for a statistic of the end alone.
    """
    first = max(0, len(x) - max(7, -(-len(x) // 2))) if recent else 0
    noise = float(noise_of(x[first:], y[first:], median=not recent))
    limit, error = _limits(tuple(x.tolist()), statistic, first, recent)
    return Change(float(statistic(x, y)), limit * noise, error * noise)


@cache
def _limits(places: tuple[float, ...], statistic: Statistic, first: int, recent: bool) -> tuple[float, float]:
    """What noise alone exceeds in 1 of 200 curves and in 1 of 20, in units of its estimate from point `first` on."""
    x = np.array(places)
    curves = np.random.default_rng(0).standard_normal((_DRAWS, len(x)))
    noise = noise_of(x[first:], curves[:, first:], median=not recent)
    limit, error = np.quantile(statistic(x, curves) / noise, [_CONFIDENCE, 0.95])
    return float(limit), float(error)


def window_of(count: int) -> int:
    """How many of so many points are averaged to one level."""
    return 2 if count < 8 else 3


def levels(y: np.ndarray) -> np.ndarray:
    """[..., n] -> [..., n - window + 1]: running means."""
    windows = np.lib.stride_tricks.sliding_window_view(y, window_of(y.shape[-1]), axis=-1)
    return windows.mean(axis=-1)


def below_best(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Best level minus the last one, at least 0."""
    running = levels(y)
    return running.max(axis=-1) - running[..., -1]


@cache
def rise_at_end(count: int) -> Statistic:
    """What the straight line through the last points rises over them. Args: count: of the points, at least 3."""

    def statistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        places = x[-count:] - x[-count:].mean()
        slope = (y[..., -count:] * places).sum(axis=-1) / (places**2).sum()
        return slope * (x[-1] - x[-count])

    return statistic


@cache
def rise_from(position: int) -> Statistic:
    """The last level minus the one that begins at a point; the last but overlapping one where that is too late."""

    def statistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        running = levels(y)
        first = max(0, min(position, len(x) - 2 * window_of(len(x))))
        return running[..., -1] - running[..., first]

    return statistic


def in_a_row(y: np.ndarray) -> int:
    """1 where each of the last points is above the one before, -1 where each is below, else 0."""
    steps = np.diff(y[-IN_A_ROW:])
    if len(y) < IN_A_ROW:
        return 0
    return int((steps > 0).all()) - int((steps < 0).all())
