"""Whether a forecast orders the backbones as the measurement does, and whether these backbones can tell.

Source: Kendall's tau-b (Kendall 1945, Biometrika 33, 239-251), the share of pairs in the same order less that in the
other.

- `p`: how often a random order agrees as much or more, either way. Exact for up to 8 backbones, by all permutations,
  ties and all; beyond that scipy's, which is exact without ties.
- `by_seeds`: where tau would be if the same backbones were measured again: each mean is moved by its own t error. Where
  backbones share what a seed does to all of them, it is wider than need be.
- `interval`: both chances, that of the seeds and that of so few backbones; see `mallows.py`.

With five backbones only a tau of 1 or -1 has p < 0.05, and with four or fewer none has.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from transfer.experiments.statistics import CONFIDENCE
from transfer.ranking.mallows import distance_probabilities, tau_interval

SIGNIFICANT = 1 - CONFIDENCE
FEWEST = 5
"""Backbones of which full agreement has p < 0.05: 2 / 5! = 0.017, but 2 / 4! = 0.083."""
MOST_PERMUTED = 8
_EQUAL = 1e-9


@dataclass(frozen=True)
class Agreement:
    """A forecast beside the measurement."""

    score: str
    """Name of the forecast."""
    backbones: tuple[str, ...]
    """That have both a score and a figure."""
    left_out: tuple[str, ...]
    """That have only one of them."""
    tau: float
    """Kendall's tau-b; NaN, as all below, with fewer than two backbones, or where all scores (or figures) are equal."""
    p: float
    """Two-sided, of no agreement."""
    by_seeds: tuple[float, float]
    """95 % interval of tau for these backbones; NaN where no backbone has two seeds."""
    interval: tuple[float, float]
    """95 % interval of tau for backbones such as these."""
    needed: float
    """The smallest tau that so many backbones would tell from chance; NaN: none is."""

    @property
    def can_tell(self) -> bool:
        """Whether agreement, or the reverse, is evident."""
        low, high = self.interval
        return self.p < SIGNIFICANT and (low > 0 or high < 0)

    @property
    def verdict(self) -> str:
        """ "agrees", "failed", "cannot tell", or "undefined" where there is no tau."""
        if math.isnan(self.tau):
            return "undefined"
        if len(self.backbones) < FEWEST or (self.tau > 0 and not self.can_tell):
            return "cannot tell"
        return "agrees" if self.tau > 0 else "failed"

    def sentence(self) -> str:
        """The verdict with its figures, in one line."""
        count = len(self.backbones)
        if self.verdict == "undefined":
            why = "all scores or all figures are equal" if count > 1 else f"backbones with both: {count}"
            return f"{self.score}: nothing to compare, {why}."
        figures = f"tau {self.tau:.2f}, 95 % interval {_range(self.interval)}, {self._seeds()}, p = {self.p:.2g}"
        if self.verdict == "agrees":
            return f"{self.score} orders these {count} backbones much as the measurement does ({figures})."
        if self.verdict == "failed":
            end = "it orders them the wrong way round" if self.can_tell else "its order is no better than chance"
            return f"{self.score} failed on these {count} backbones: {end} ({figures})."
        if count < FEWEST:
            return (
                f"{self.score}: {count} backbones cannot tell, even full agreement would come by chance too often; "
                f"{FEWEST} at least are needed ({figures})."
            )
        return f"{self.score}: {count} backbones cannot tell its order from chance; {self._remedy()} ({figures})."

    def _seeds(self) -> str:
        if math.isnan(self.by_seeds[0]):
            return "the seeds' part unknown (one seed each)"
        return f"by seeds alone {_range(self.by_seeds)}"

    def _remedy(self) -> str:
        if self.p < SIGNIFICANT:
            return "the figures are too uncertain, more seeds are needed"
        if math.isnan(self.needed):
            return "there are too many ties"
        return f"it would take a tau of {self.needed:.2f}, or more backbones"


def agreement(
    score: str,
    values: Mapping[str, float | None],
    figures: Mapping[str, Sequence[float]],
    *,
    draws: int = 4000,
    seed: int = 0,
) -> Agreement:
    """Compare a forecast with the measurement.

    Args:
        score: name of the forecast.
        values: backbone -> forecast, the higher the better; None or NaN: it has none.
        figures: backbone -> measured figures, one a seed, the higher the better; NaN ones do not count.
        draws: of the means, for the intervals.
        seed: of the draws.
    """
    measured = {name: [float(value) for value in of if math.isfinite(value)] for name, of in figures.items()}
    names = tuple(name for name, of in measured.items() if of and _is_known(values.get(name)))
    left_out = tuple(name for name in dict.fromkeys([*figures, *values]) if name not in names)
    forecasts = np.array([values[name] for name in names], dtype=float)
    means = np.array([np.mean(measured[name]) for name in names])
    nothing = (math.nan, math.nan)
    if len(names) < 2 or np.ptp(forecasts) == 0 or np.ptp(means) == 0:
        return Agreement(score, names, left_out, math.nan, math.nan, nothing, nothing, math.nan)
    surplus, tau = _compare(forecasts, means[None])
    p, needed = _chance(forecasts, means, abs(float(tau[0])))
    by_seeds = nothing
    errors = _errors([measured[name] for name in names], draws, np.random.default_rng(seed))
    if errors is not None:
        surplus, drawn = _compare(forecasts, means + errors)
        low, high = np.nanpercentile(drawn, [50 * SIGNIFICANT, 100 - 50 * SIGNIFICANT])
        by_seeds = (float(low), float(high))
    pairs = len(names) * (len(names) - 1) / 2
    interval = tau_interval(len(names), (pairs - surplus) / 2)
    return Agreement(score, names, left_out, float(tau[0]), p, by_seeds, interval, needed)


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}"


def _compare(one: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order [n] with each of others [M, n]: pairs in the same order less pairs in the other, [M], and tau-b, [M]."""
    first, second = np.triu_indices(len(one), 1)
    signs = np.sign(one[first] - one[second])  # [pairs]
    other_signs = np.sign(others[:, first] - others[:, second])  # [M, pairs]
    surplus = other_signs @ signs
    untied = np.sqrt(abs(signs).sum() * abs(other_signs).sum(axis=1))
    return surplus, np.divide(surplus, untied, out=np.full(len(others), np.nan), where=untied > 0)


def _chance(forecasts: np.ndarray, means: np.ndarray, tau: float) -> tuple[float, float]:
    """How often chance gives this |tau| or more, and the smallest |tau| that it gives in less than 5 % of cases."""
    count = len(forecasts)
    if count <= MOST_PERMUTED:
        _, taus = _compare(forecasts, means[np.array(list(itertools.permutations(range(count))))])
        possible, times = np.unique(abs(taus).round(9), return_counts=True)
        shares = times[::-1].cumsum()[::-1] / len(taus)  # of each possible |tau| or more
        p = float((abs(taus) >= tau - _EQUAL).mean())
    else:
        from scipy import stats

        p = float(stats.kendalltau(forecasts, means).pvalue)
        chances = distance_probabilities(count, 0.0)
        half = chances[: (len(chances) + 1) // 2]  # distances of a tau of 0 or more
        possible = 1 - 2 * np.arange(len(half)) / (len(chances) - 1)
        shares = 2 * half.cumsum()
    rare = possible[shares < SIGNIFICANT]
    return p, float(rare.min()) if len(rare) else math.nan


def _errors(measured: Sequence[Sequence[float]], draws: int, rng: np.random.Generator) -> np.ndarray | None:
    """What the means [draws, n] may be off by; None where no backbone has two seeds.

    A backbone of one seed is given the standard deviation of the others.
    """
    freedom = np.array([len(of) - 1 for of in measured])
    if not freedom.any():
        return None
    squares = np.array([np.var(of) * len(of) for of in measured])  # sums of squared deviations
    alone = freedom == 0
    own = np.where(alone, squares.sum(), squares) / np.where(alone, freedom.sum(), freedom)
    spread = np.sqrt(own / (freedom + 1))
    return spread * rng.standard_t(np.where(alone, freedom.sum(), freedom), (draws, len(measured)))
