"""How strongly an order follows another one, from a single pair of orders of few things.

Source: Mallows 1957, *Non-null ranking models* (Biometrika 44, 114-130): an order that differs from the true one in d
pairs has a probability proportional to exp(-strength * d). At strength 0 all orders are alike, which is the exact null
distribution of Kendall's tau. The number of orders at each distance is a product of polynomials, so any number of
things is counted exactly, and an interval is found as Clopper and Pearson's is (Biometrika 26, 1934, 404-413): its ends
are the strengths under which what was found, or more, has a probability of 2.5 %. A strength is told as the tau that it
has on average.

A bootstrap over five things would draw each of them twice or not at all, and an interval by Fisher's z needs more than
ten.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from transfer.experiments.statistics import CONFIDENCE

_STRONGEST = 40.0
"""Strength at which every order is the true one, to all digits."""


def distance_probabilities(count: int, strength: float) -> np.ndarray:
    """How probable each number of pairs in the wrong order is.

    Args:
        count: things that are ordered, 1 or more.
        strength: of the true order; below 0 of its reverse.

    Returns:
        [count * (count - 1) / 2 + 1] probabilities.
    """
    found = np.ones(1)
    for things in range(2, count + 1):  # the next thing is passed by 0 to things - 1 of those before it
        step = np.exp(-abs(strength) * np.arange(things))
        found = np.convolve(found, step / step.sum())
    return found if strength >= 0 else found[::-1]


def mean_tau(count: int, strength: float) -> float:
    """Kendall's tau with the true order, on average; `count` is 2 or more."""
    probabilities = distance_probabilities(count, strength)
    pairs = len(probabilities) - 1
    return 1 - 2 * float(probabilities @ np.arange(pairs + 1)) / pairs


def tau_interval(count: int, distances: np.ndarray, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of the average tau.

    Args:
        count: things that are ordered, 2 or more.
        distances: [M] pairs in the wrong order, tied ones counted half. Several where what was found is itself
            uncertain: the tails are averaged over them.
        confidence: of the interval, in (0, 1).

    Returns:
        Low and high end, in [-1, 1]; for ties, which the model does not know, on the wide side.
    """
    pairs = count * (count - 1) // 2
    tail = (1 - confidence) / 2
    nearer = np.ceil(np.asarray(distances) - 1e-9).astype(int).clip(0, pairs)
    further = np.floor(np.asarray(distances) + 1e-9).astype(int).clip(0, pairs)

    def agreeing_more(strength: float) -> float:
        return float(np.cumsum(distance_probabilities(count, strength))[nearer].mean()) - tail

    def agreeing_less(strength: float) -> float:
        return float(np.cumsum(distance_probabilities(count, strength)[::-1])[pairs - further].mean()) - tail

    low, high = _root(agreeing_more), _root(agreeing_less)
    return (
        -1.0 if math.isnan(low) else mean_tau(count, low),
        1.0 if math.isnan(high) else mean_tau(count, high),
    )


def _root(function: Callable[[float], float]) -> float:
    """Where a monotone function of the strength is zero; NaN where it never is."""
    from scipy import optimize

    if (function(-_STRONGEST) > 0) == (function(_STRONGEST) > 0):
        return math.nan
    return float(optimize.brentq(function, -_STRONGEST, _STRONGEST, xtol=1e-9))
