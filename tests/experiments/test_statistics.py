"""Intervals, Holm and power against scipy, tables and planted truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from transfer.experiments.statistics import (
    Gain,
    bootstrap_images,
    holm,
    paired_gain,
    pooled_sd,
    power,
    seeds_needed,
    smallest_gain,
    t_interval,
)


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_intervals_are_those_of_scipy(count: int) -> None:
    rng = np.random.default_rng(count)
    before = rng.normal(80, 1, count)
    after = before + rng.normal(0.4, 0.5, count)
    gain, expected = paired_gain(after.tolist(), before.tolist()), stats.ttest_rel(after, before)
    interval = expected.confidence_interval(0.95)
    assert (gain.low, gain.high, gain.p) == pytest.approx((interval.low, interval.high, expected.pvalue))
    assert gain.mean == pytest.approx(float((after - before).mean()))
    narrower = paired_gain(after.tolist(), before.tolist(), confidence=0.8)
    assert (narrower.low, narrower.high) == pytest.approx(tuple(expected.confidence_interval(0.8)))
    own = stats.ttest_1samp(after, 0).confidence_interval()
    assert t_interval(after.tolist()) == pytest.approx((own.low, own.high))


def test_half_width_at_three_seeds_is_2_48_sd() -> None:
    gain = paired_gain([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])  # sd 1
    assert (gain.high - gain.low) / 2 == pytest.approx(2.48, abs=0.005)
    assert not gain.is_evident


def test_one_seed_has_no_interval_and_proves_nothing() -> None:
    gain = paired_gain([3.0], [1.0])
    assert gain.mean == 2.0
    assert all(math.isnan(value) for value in (gain.low, gain.high, gain.sd, gain.p))
    assert not gain.is_evident


def test_seeds_that_change_nothing() -> None:
    same, better = paired_gain([1.0, 1.0], [1.0, 1.0]), paired_gain([1.5, 1.5], [1.0, 1.0])
    assert (same.low, same.high, same.p, same.is_evident) == (0.0, 0.0, 1.0, False)
    assert (better.low, better.high, better.p, better.is_evident) == (0.5, 0.5, 0.0, True)


def test_a_loss_is_evident_too() -> None:
    assert paired_gain([1.0, 1.1, 0.9], [3.0, 3.1, 3.0]).is_evident


@pytest.mark.parametrize("seeds", [3, 5])
def test_planted_ties_are_found_tied(seeds: int) -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 3, (1000, 1, seeds))  # what a seed does to both arms
    figures = 80 + shared + rng.normal(0, 0.5, (1000, 2, seeds))
    evident = [paired_gain(after.tolist(), before.tolist()).is_evident for before, after in figures]
    assert np.mean(evident) <= 0.07
    assert np.mean(evident) >= 0.03  # and no wider than need be


@pytest.mark.parametrize("seeds", [3, 4, 5])
def test_a_planted_gap_of_three_sd_is_found_as_often_as_the_power_says(seeds: int) -> None:
    rng = np.random.default_rng(2)
    differences = 3 + rng.normal(0, 1, (1000, seeds))  # the gap is 3 sd of the difference
    found = np.mean([paired_gain(row.tolist(), [0.0] * seeds).low > 0 for row in differences])
    assert found == pytest.approx(power(3.0, 1.0, seeds), abs=0.04)
    if seeds == 3:
        assert found < 0.8  # 3 seeds do not do: 75 %
    else:
        assert found >= 0.9  # 4 seeds find it in 97 %


def test_power_against_another_program() -> None:
    # G*Power, paired t test, two-sided 0.05, power 0.8: 34 pairs for an effect of 0.5 sd, 15 for 0.8
    assert seeds_needed(0.5, 1.0) == 34
    assert seeds_needed(0.8, 1.0) == 15
    assert power(0.5, 1.0, 34) == pytest.approx(0.808, abs=0.001)
    assert power(0.0, 1.0, 5) == pytest.approx(0.025)  # the upper half of 5 %


def test_smallest_gain_and_seeds_needed_undo_power() -> None:
    for seeds in (2, 3, 5, 20):
        gain = smallest_gain(0.5, seeds)
        assert power(gain, 0.5, seeds) == pytest.approx(0.8)
        assert seeds_needed(gain * 1.0001, 0.5) == seeds
    assert smallest_gain(0.5, 3) == pytest.approx(0.5 * smallest_gain(1.0, 3))
    assert smallest_gain(0.0, 3) == 0.0
    assert seeds_needed(0.1, 0.0) == 2
    assert math.isnan(smallest_gain(1.0, 1))
    assert math.isnan(smallest_gain(math.nan, 3))
    assert seeds_needed(1e-6, 1.0) is None
    needed = seeds_needed(0.05, 1.0)  # more than three thousand
    assert needed is not None
    assert power(0.05, 1.0, needed) >= 0.8 > power(0.05, 1.0, needed - 1)


def test_holm_by_hand() -> None:
    # sorted 0.005 * 4 = 0.02, 0.01 * 3 = 0.03, 0.03 * 2 = 0.06, 0.04 * 1 raised to 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []
    untested = holm([0.01, math.nan, 0.02])
    assert [untested[0], untested[2]] == pytest.approx([0.02, 0.02])
    assert math.isnan(untested[1])


def test_holm_keeps_the_error_of_the_whole_family() -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(size=(2000, 5))
    assert np.mean([min(holm(row.tolist())) < 0.05 for row in p]) == pytest.approx(0.05, abs=0.015)


def test_pooled_sd_weights_by_degrees_of_freedom() -> None:
    def gain(sd: float, seeds: int) -> Gain:
        return Gain((0.0,) * seeds, 0.0, 0.0, 0.0, sd, 1.0)

    assert pooled_sd([gain(1.0, 3), gain(2.0, 5)]) == pytest.approx(math.sqrt((2 * 1 + 4 * 4) / 6))
    assert pooled_sd([gain(1.0, 3), paired_gain([1.0], [0.0])]) == 1.0
    assert math.isnan(pooled_sd([]))


def test_image_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    values = np.random.default_rng(4).normal(0.6, 0.2, 400)
    figure, low, high = bootstrap_images(lambda chosen: float(values[chosen].mean()), 400, draws=2000)
    half = 1.96 * values.std() / 20
    assert figure == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((figure - half, figure + half), abs=0.1 * half)


def test_image_bootstrap_is_paired_and_reproducible() -> None:
    easy = np.random.default_rng(5).normal(0.6, 0.2, 200)  # what images do to both arms
    better = easy + 0.01

    def of(values: np.ndarray) -> tuple[float, float, float]:
        return bootstrap_images(
            lambda chosen: float(values[chosen].mean()), 200, other=lambda chosen: float(easy[chosen].mean()), draws=200
        )

    assert of(better) == pytest.approx((0.01, 0.01, 0.01))
    assert of(better) == of(better)
    assert of(easy) == (0.0, 0.0, 0.0)
    figure, low, high = bootstrap_images(lambda chosen: math.nan if 0 in chosen else 1.0, 3, draws=50)
    assert math.isnan(figure)  # of all three images
    assert (low, high) == (1.0, 1.0)
