"""Kendall's tau against scipy, its chance against a count, and what is said of it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from transfer.ranking.agreement import Agreement, agreement


def of(scores: list[float], means: list[float], spread: float = 0.0, seeds: int = 3) -> Agreement:
    """Figures whose seeds lie evenly about their mean."""
    offsets = spread * np.linspace(-1, 1, seeds) if seeds > 1 else np.zeros(1)
    return agreement(
        "LogME",
        {f"b{place}": score for place, score in enumerate(scores)},
        {f"b{place}": [mean + offset for offset in offsets] for place, mean in enumerate(means)},
    )


@pytest.mark.parametrize("count", [3, 6, 8, 12])
def test_tau_and_p_are_those_of_scipy(count: int) -> None:
    for seed in range(3):
        rng = np.random.default_rng([count, seed])
        scores, means = rng.normal(0, 1, count).tolist(), rng.normal(0, 1, count).tolist()
        expected = stats.kendalltau(scores, means, method="exact")
        found = of(scores, means)
        assert (found.tau, found.p) == pytest.approx((expected.statistic, expected.pvalue))
        tied = rng.integers(0, 3, count).astype(float).tolist()
        if len(set(tied)) > 1:
            assert of(tied, means).tau == pytest.approx(stats.kendalltau(tied, means).statistic)


def test_p_of_ties_is_a_count_of_all_orders() -> None:
    scores, means = [1.0, 1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0]
    taus = [stats.kendalltau(scores, order).statistic for order in itertools.permutations(means)]
    expected = np.mean([abs(tau) >= stats.kendalltau(scores, means).statistic - 1e-9 for tau in taus])
    assert of(scores, means).p == pytest.approx(expected)
    assert expected == pytest.approx(4 / 120)  # the right order and its reverse, each with the tied ones either way


def test_of_five_backbones_only_full_agreement_tells() -> None:
    for order in itertools.permutations(range(5)):
        found = of([0.0, 1.0, 2.0, 3.0, 4.0], list(map(float, order)))
        assert found.can_tell == (abs(found.tau) > 0.99)
        assert found.needed == 1.0
    assert of([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]).p == pytest.approx(2 / 120)
    assert of([0, 1, 2, 3, 4], [0, 1, 2, 4, 3]).p == pytest.approx(2 * 5 / 120)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_four_backbones_never_tell(count: int) -> None:
    found = of(list(map(float, range(count))), list(map(float, range(count))))
    assert found.tau == 1.0
    assert not found.can_tell
    assert math.isnan(found.needed)
    assert found.verdict == "cannot tell"
    assert found.sentence().startswith(f"LogME: {count} backbones cannot tell, even full agreement")


def test_many_backbones() -> None:
    # Of 12, by the exact null distribution: the least tau with p < 0.05 is 0.45.
    found = of(list(map(float, range(12))), list(map(float, range(12))))
    assert found.can_tell
    pairs = 66
    wrong = round((1 - found.needed) / 2 * pairs)
    chance = [
        stats.kendalltau(range(12), order, method="exact").pvalue for order in (swapped(wrong), swapped(wrong + 1))
    ]
    assert chance[0] < 0.05 <= chance[1]


def swapped(wrong: int) -> list[int]:
    """An order of twelve with so many pairs in the wrong order."""
    order: list[int] = []
    for thing in range(12):  # passed by as many as are still wanted
        place = max(0, len(order) - wrong)
        wrong -= len(order) - place
        order.insert(place, thing)
    assert wrong == 0
    return order


def test_seeds_without_spread_leave_tau_as_it_is() -> None:
    found = of([0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 1.0, 3.0, 4.0])
    assert found.tau == pytest.approx(0.8)
    assert found.by_seeds == pytest.approx((0.8, 0.8))
    assert found.interval[0] < 0 < 0.8 < found.interval[1]  # but so few backbones do not


def test_the_more_the_seeds_scatter_the_wider_both_intervals() -> None:
    scores, means = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    spread = [of(scores, means, spread) for spread in (0.0, 0.3, 3.0)]
    lows, interval_lows = [found.by_seeds[0] for found in spread], [found.interval[0] for found in spread]
    assert lows == sorted(lows, reverse=True)
    assert lows[0] > lows[-1]
    assert interval_lows == sorted(interval_lows, reverse=True)
    assert [found.can_tell for found in spread] == [True, True, False]
    assert "more seeds are needed" in spread[-1].sentence()
    assert spread[-1].p < 0.05


def test_errors_of_the_means_are_t_errors() -> None:
    # Two backbones whose means have a standard error of 1 at two degrees of freedom: the gap at which they swap in
    # 2.5 % of cases, which is where the interval begins to reach from -1 to 1.
    rng = np.random.default_rng(0)
    gap = float(np.quantile(rng.standard_t(2, 400_000) - rng.standard_t(2, 400_000), 0.975))
    assert gap > 4.5  # of normal errors it were 2.8
    spread = math.sqrt(3)  # seeds at mean - spread, mean, mean + spread: their standard deviation is `spread`
    assert of([0.0, 1.0], [0.0, 0.85 * gap], spread).by_seeds == (-1.0, 1.0)
    assert of([0.0, 1.0], [0.0, 1.15 * gap], spread).by_seeds == (1.0, 1.0)


def test_one_seed_takes_the_spread_of_the_others() -> None:
    scores = {"a": 1.0, "b": 2.0, "c": 3.0}
    figures = {"a": [10.0], "b": [8.0, 12.4], "c": [10.4, 10.5]}
    assert agreement("k-NN", scores, figures).by_seeds == (-1.0, 1.0)
    alone = agreement("k-NN", scores, {name: values[:1] for name, values in figures.items()})
    assert all(map(math.isnan, alone.by_seeds))
    assert "one seed each" in alone.sentence()
    certain = agreement("k-NN", scores, {"a": [10.0] * 2, "b": [8.0] * 2, "c": [10.4] * 2})
    assert alone.interval == pytest.approx(certain.interval)


def test_verdicts_and_their_sentences() -> None:
    rising = [float(place) for place in range(6)]
    good = of(rising, rising, 0.01)
    assert good.verdict == "agrees"
    assert good.sentence().startswith("LogME orders these 6 backbones much as the measurement does (tau 1.00, 95 %")
    bad = of(rising, rising[::-1], 0.01)
    assert (bad.verdict, bad.can_tell) == ("failed", True)
    assert "LogME failed on these 6 backbones: it orders them the wrong way round" in bad.sentence()
    none = of(rising, [3.0, 2.0, 5.0, 0.0, 4.0, 1.0], 0.01)
    assert none.tau < 0
    assert (none.verdict, none.can_tell) == ("failed", False)
    assert "no better than chance" in none.sentence()
    weak = of(rising, [2.0, 0.0, 1.0, 5.0, 3.0, 4.0], 0.01)
    assert weak.tau > 0
    assert weak.verdict == "cannot tell"
    # Of 6, two pairs may be wrong: 2 (1 + 5 + 14) / 720 = 0.056 is too much, 2 (1 + 5) / 720 = 0.017 is not.
    assert weak.needed == pytest.approx(1 - 2 / 15)
    assert "6 backbones cannot tell its order from chance; it would take a tau of 0.87" in weak.sentence()
    assert "\n" not in weak.sentence()


def test_uncertain_figures_do_not_make_an_order_more_certain() -> None:
    """Two pairs in the wrong order, each as well the other way round: many draws agree more than what was found."""
    found = of([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.01, 0.0, 10.0, 20.01, 20.0, 30.0], 0.5)
    assert found.interval[0] > 0
    assert found.p == pytest.approx(40 / 720)
    assert not found.can_tell


def test_ties_without_end() -> None:
    found = of([0.0, 0.0, 0.0, 0.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0], 0.01)
    assert math.isnan(found.needed)
    assert "too many ties" in found.sentence()


def test_backbones_without_a_score_or_a_figure() -> None:
    figures = {"a": [1.0, 2.0], "b": [2.0, math.nan], "c": [math.nan], "d": [4.0]}
    found = agreement("top-1", {"a": 70.0, "b": 75.0, "c": 80.0, "d": None, "e": 76.0}, figures)
    assert found.backbones == ("a", "b")
    assert found.left_out == ("c", "d", "e")
    assert found.tau == 1.0
    nothing = agreement("top-1", {"a": math.nan}, figures)
    assert nothing.verdict == "undefined"
    assert nothing.sentence() == "top-1: nothing to compare, backbones with both: 0."
    equal = agreement("top-1", {"a": 1.0, "b": 1.0}, figures)
    assert (equal.verdict, equal.can_tell) == ("undefined", False)
    assert "all scores or all figures are equal" in equal.sentence()


def test_it_is_the_same_each_time() -> None:
    scores, means = [0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.5, 2.0, 4.0]
    assert of(scores, means, 1.0) == of(scores, means, 1.0)
