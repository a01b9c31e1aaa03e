"""Whether one arm is better than another, from a few seeds, and what those seeds could have shown at all.

Two arms at the same seed share the data order and the initial weights, so the differences by seed are looked at.

- `paired_gain`: the t interval of the mean difference. With 3 seeds its half width is 2.48 standard deviations of the
  difference; a bootstrap over 3 seeds would claim 95 % and cover about 74 %.
- `holm`: several comparisons at once (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).
- `power`, `smallest_gain`, `seeds_needed`: exact for normal differences, by the noncentral t distribution (Cohen 1988,
  Statistical Power Analysis, chapter 2). They take the standard deviation for known; one estimated from 3 seeds lies
  between 0.52 and 6.3 times itself with 95 % confidence, so the figures are a guide.
- `bootstrap_images`: the other source of chance, which images happen to be in the test set. It says nothing of seeds.

All intervals are two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
POWER = 0.8
MOST_SEEDS = 10_000
"""Where `seeds_needed` stops to count."""


@dataclass(frozen=True)
class Gain:
    """The mean difference of two arms over seeds, in the figures' unit."""

    differences: tuple[float, ...]
    """By seed."""
    mean: float
    low: float
    """Of the interval; NaN with fewer than two seeds, as are `high`, `sd` and `p`."""
    high: float
    sd: float
    """Of the differences."""
    p: float
    """Two-sided, of a mean of zero."""

    @property
    def is_evident(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def paired_gain(after: Sequence[float], before: Sequence[float], *, confidence: float = CONFIDENCE) -> Gain:
    """The t interval of the mean of after - before.

    Args:
        after: figures of one arm, one a seed.
        before: of the other, the same seeds in the same order.
        confidence: of the interval, in (0, 1).
    """
    from scipy import stats

    assert len(after) == len(before) > 0, "the same seeds, one at least"
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    mean, count = float(differences.mean()), len(differences)
    of_each = tuple(differences.tolist())
    if count < 2:
        return Gain(of_each, mean, math.nan, math.nan, math.nan, math.nan)
    sd = float(differences.std(ddof=1))
    if sd == 0:  # the seeds change nothing: there is no chance in it
        return Gain(of_each, mean, mean, mean, 0.0, float(mean == 0))
    error = sd / math.sqrt(count)
    half = float(stats.t.ppf(0.5 + confidence / 2, count - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, count - 1))
    return Gain(of_each, mean, mean - half, mean + half, sd, p)


def t_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Low and high end of the t interval of a mean; NaN with fewer than two values."""
    gain = paired_gain(values, [0.0] * len(values), confidence=confidence)
    return gain.low, gain.high


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted so that, over all of them, one below 0.05 is by chance in at most 5 % of cases.

    Args:
        p_values: of the comparisons; NaN (not tested) stays NaN and does not count.
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))  # never below that of a smaller p
        adjusted[place] = largest
    return adjusted


def power(gain: float, sd: float, seeds: int, *, confidence: float = CONFIDENCE) -> float:
    """How often the interval lies above zero where the true gain is this.

    Args:
        gain: true mean difference, 0 or more.
        sd: standard deviation of the differences, above 0.
        seeds: of each arm, 2 or more.
        confidence: of the interval.
    """
    from scipy import stats

    critical = stats.t.ppf(0.5 + confidence / 2, seeds - 1)
    return float(stats.nct.sf(critical, seeds - 1, gain / sd * math.sqrt(seeds)))


def smallest_gain(sd: float, seeds: int, *, wanted: float = POWER) -> float:
    """The gain that is found with the wanted power; NaN where fewer than two seeds leave no interval.

    Args:
        sd: standard deviation of the differences, 0 or more.
        seeds: of each arm.
        wanted: power, in (0.5, 1).
    """
    from scipy import optimize

    if seeds < 2 or math.isnan(sd):
        return math.nan
    if sd == 0:
        return 0.0
    return sd * float(optimize.brentq(lambda gain: power(gain, 1.0, seeds) - wanted, 0.0, 1000.0))


def seeds_needed(gain: float, sd: float, *, wanted: float = POWER, confidence: float = CONFIDENCE) -> int | None:
    """How many seeds find a gain with the wanted power; None where it were more than MOST_SEEDS.

    Args:
        gain: true mean difference, above 0.
        sd: standard deviation of the differences, 0 or more.
        wanted: power, in (0.5, 1).
        confidence: of the interval.
    """
    if sd == 0:
        return 2
    low, high = 1, 2  # too few, perhaps enough
    while power(gain, sd, high, confidence=confidence) < wanted:
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(gain, sd, middle, confidence=confidence) >= wanted else (middle, high)
    return high


def pooled_sd(gains: Sequence[Gain]) -> float:
    """One standard deviation of the differences for several comparisons: more seeds stand behind it."""
    known = [(len(gain.differences) - 1, gain.sd) for gain in gains if not math.isnan(gain.sd)]
    if not known:
        return math.nan
    return math.sqrt(sum(weight * sd**2 for weight, sd in known) / sum(weight for weight, _ in known))


def bootstrap_images(
    score: Callable[[np.ndarray], float],
    images: int,
    *,
    other: Callable[[np.ndarray], float] | None = None,
    draws: int = 1000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[float, float, float]:
    """How far a figure, or the difference of two arms' figures, hangs on which images are in the test set.

    Args:
        score: from image indices, [images] int64 with repetitions, to the figure.
        images: in the test set, 1 or more.
        other: of another arm; it is given the same images, and subtracted.
        draws: of as many images as there are, with replacement.
        seed: of the draws.
        confidence: of the percentile interval.
    Returns:
        The figure (or difference) of the whole test set, and the ends of the interval. Draws for which it is undefined
        (NaN) are left out.
    """
    rng = np.random.default_rng(seed)

    def figure(indices: np.ndarray) -> float:
        return score(indices) - (0.0 if other is None else other(indices))

    drawn = [figure(rng.integers(images, size=images)) for _ in range(draws)]
    tail = 50 * (1 - confidence)
    low, high = np.nanpercentile(drawn, [tail, 100 - tail])
    return figure(np.arange(images)), float(low), float(high)
