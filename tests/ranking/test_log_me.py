"""LogME against the density it is the maximum of, by other means, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from transfer.ranking.log_me import log_me

TWO_PI_E = 2 * math.pi * math.e


def log_evidence(features: np.ndarray, target: np.ndarray, alpha: float, beta: float) -> float:
    """By its definition: the target is normal with covariance F F' / alpha + I / beta."""
    covariance = features @ features.T / alpha + np.eye(len(target)) / beta
    square = target @ np.linalg.solve(covariance, target)
    return float(-(len(target) * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1] + square) / 2)


def greatest_evidence(features: np.ndarray, target: np.ndarray) -> float:
    """By a search over both precisions that knows nothing of fixed points."""

    def loss(logs: np.ndarray) -> float:
        return -log_evidence(features, target, *np.exp(logs.clip(-25, 25)))

    starts = [(0.0, 0.0), (8.0, 0.0), (0.0, 4.0)]
    options = {"xatol": 1e-6, "fatol": 1e-9, "maxiter": 2000}
    found = [optimize.minimize(loss, start, method="Nelder-Mead", options=options).fun for start in starts]
    return -min(found)


def made(rows: int, columns: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (rows, columns)) * rng.uniform(0.1, 3, columns)
    return features, features @ rng.normal(0, 1, columns) + rng.normal(0, noise, rows)


@pytest.mark.parametrize(("rows", "columns", "noise"), [(20, 3, 0.5), (20, 3, 20.0), (12, 30, 3.0), (10, 10, 1.0)])
def test_it_is_the_maximum_that_a_search_finds(rows: int, columns: int, noise: float) -> None:
    for seed in range(2):
        features, target = made(rows, columns, noise, seed)
        assert log_me(features, target) * rows == pytest.approx(greatest_evidence(features, target), abs=1e-4)


def test_no_precisions_have_more_evidence() -> None:
    features, target = made(15, 4, 1.0, 7)
    best = log_me(features, target) * 15
    for alpha in np.geomspace(1e-4, 1e4, 25):
        for beta in np.geomspace(1e-4, 1e4, 25):
            assert log_evidence(features, target, alpha, beta) <= best + 1e-9


def test_classes_are_told_one_from_the_rest() -> None:
    features, _ = made(20, 3, 1.0, 1)
    labels = np.arange(20) % 3
    expected = np.mean([greatest_evidence(features, (labels == label).astype(float)) for label in range(3)]) / 20
    assert log_me(features, labels) == pytest.approx(expected, abs=1e-5)
    assert log_me(features, np.array([7, 2, 40])[labels]) == pytest.approx(expected, abs=1e-5)  # names do not matter


def test_several_targets_are_averaged() -> None:
    features, first = made(20, 3, 1.0, 1)
    second = made(20, 3, 1.0, 2)[1]
    both = log_me(features, np.stack([first, second], axis=1))
    assert both == pytest.approx((log_me(features, first) + log_me(features, second)) / 2)


def test_two_rows_by_hand() -> None:
    # One feature (1, 0), target (a, b). With k = t / (t + 1): log p = -log(2 pi e (a^2 k + b^2) / 2) + log(k) / 2,
    # greatest at k = b^2 / a^2 if that is below 1, else at k = 1, where the weight is zero.
    features = np.array([[1.0], [0.0]])
    assert log_me(features, np.array([2.0, 1.0])) == pytest.approx((-math.log(TWO_PI_E) + math.log(0.5)) / 2)
    assert log_me(features, np.array([1.0, 2.0])) == pytest.approx(-math.log(TWO_PI_E * 5 / 2) / 2)


@pytest.mark.parametrize("features", [np.zeros((4, 2)), np.array([[1.0], [1.0], [1.0], [1.0]])])
def test_features_that_say_nothing_leave_the_noise_alone(features: np.ndarray) -> None:
    target = np.array([1.0, -1.0, 2.0, -2.0])  # of mean zero: a constant does not help, either
    assert log_me(features, target) == pytest.approx(-math.log(TWO_PI_E * 10 / 4) / 2)


def test_what_must_not_change_it() -> None:
    features, target = made(30, 5, 1.0, 3)
    plain = log_me(features, target)
    rotation = stats.ortho_group.rvs(5, random_state=0)
    order = np.random.default_rng(0).permutation(30)
    assert log_me(features @ rotation, target) == pytest.approx(plain)
    assert log_me(1000 * features, target) == pytest.approx(plain)
    assert log_me(features[order], target[order]) == pytest.approx(plain)
    assert log_me(np.hstack([features, np.zeros((30, 4))]), target) == pytest.approx(plain)
    assert log_me(np.hstack([features, features]), target) == pytest.approx(plain)
    assert log_me(features, 10 * target) == pytest.approx(plain - math.log(10))  # the unit of a density


def test_features_that_tell_more_score_higher() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 200)
    centers = rng.normal(0, 1, (4, 10))
    scores = [log_me(centers[labels] + rng.normal(0, noise, (200, 10)), labels) for noise in (0.3, 1.0, 3.0, 30.0)]
    assert scores == sorted(scores, reverse=True)
    # and unlike a fit, more features that are noise do not
    noise = rng.normal(0, 1, (200, 150))
    assert log_me(noise, labels) < scores[1]


def test_a_target_that_features_give_exactly_has_a_finite_score() -> None:
    features, _ = made(20, 3, 1.0, 1)
    exact = features @ np.array([1.0, 2.0, 3.0])
    noisy = exact + np.random.default_rng(0).normal(0, 1e-3, 20)
    assert log_me(features, noisy) < log_me(features, exact) < math.inf
