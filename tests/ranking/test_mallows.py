"""The distribution against a count of all orders, and the interval's coverage, exactly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from transfer.ranking.mallows import distance_probabilities, mean_tau, tau_interval


@pytest.mark.parametrize("strength", [-1.0, 0.0, 0.3, 2.0])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_against_a_count_of_all_orders(count: int, strength: float) -> None:
    weights = np.zeros(count * (count - 1) // 2 + 1)
    for order in itertools.permutations(range(count)):
        wrong = sum(order[one] > order[other] for one, other in itertools.combinations(range(count), 2))
        weights[wrong] += np.exp(-strength * wrong)
    assert distance_probabilities(count, strength) == pytest.approx(weights / weights.sum())
    taus = np.linspace(1, -1, len(weights))
    assert mean_tau(count, strength) == pytest.approx(taus @ weights / weights.sum())


@pytest.mark.parametrize("count", [3, 5, 8])
def test_the_interval_holds_the_truth_in_95_of_100_cases_or_more(count: int) -> None:
    pairs = count * (count - 1) // 2
    intervals = [tau_interval(count, np.array([distance])) for distance in range(pairs + 1)]
    for strength in np.linspace(-3, 3, 61):
        truth = mean_tau(count, strength)
        holds = np.array([low - 1e-9 <= truth <= high + 1e-9 for low, high in intervals])
        assert distance_probabilities(count, strength) @ holds >= 0.95 - 1e-9


def test_ends() -> None:
    assert tau_interval(2, np.array([0])) == (pytest.approx(-0.95), 1.0)  # the right order in 2.5 % of cases
    for count in range(3, 8):
        pairs = count * (count - 1) // 2
        low, high = tau_interval(count, np.array([0]))
        assert high == 1.0
        assert (low > 0) == (count >= 5)  # 1 / 4! is above 2.5 %
        assert tau_interval(count, np.array([pairs])) == (pytest.approx(-high), pytest.approx(-low))
        ends = [tau_interval(count, np.array([distance])) for distance in range(pairs + 1)]
        assert sorted(ends, reverse=True) == ends


def test_what_was_found_may_be_uncertain_itself() -> None:
    sure, unsure = tau_interval(6, np.array([3])), tau_interval(6, np.array([1, 3, 5]))
    assert unsure[0] < sure[0] < sure[1] < unsure[1]
    tied = tau_interval(6, np.array([2.5]))  # a tie counts as either
    assert tied == (sure[0], tau_interval(6, np.array([2]))[1])
