"""H-score by hand, by its definition, and its bounds; the shrinkage likewise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from transfer.ranking.h_score import h_score, ledoit_wolf

BY_HAND = np.array([[3.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-3.0, 1.0]])
"""Covariance diag(5, 1); the classes' means are (2, 0) and (-2, 0)."""
CLASSES = np.array([0, 0, 1, 1])


def made(rows: int, columns: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, rows)
    mixing = rng.normal(0, 1, (columns, columns))
    return rng.normal(0, 1, (4, columns))[labels] + rng.normal(0, 1, (rows, columns)) @ mixing + 5, labels


def shrinkage_by_its_definition(features: np.ndarray) -> float:
    """Ledoit and Wolf 2004, lemmas 3.2 to 3.4, with their norm |A|^2 = tr(A A') / D, row by row."""
    rows, columns = features.shape
    centred = features - features.mean(axis=0)
    covariance = np.cov(features.T, bias=True).reshape(columns, columns)
    mean_variance = np.trace(covariance) / columns
    d2 = np.linalg.norm(covariance - mean_variance * np.eye(columns)) ** 2 / columns
    b2 = sum(np.linalg.norm(np.outer(x, x) - covariance) ** 2 / columns for x in centred) / rows**2
    return min(b2, d2) / d2


def test_by_hand() -> None:
    assert h_score(BY_HAND, CLASSES, shrinkage=False) == pytest.approx(4 / 5)
    # m = 3, |S|^2 = 26, d^2 = 26 / 2 - 9 = 4; |x|^4 is 100, 4, 4, 100, so b^2 = (52 - 26) / 2 / 4 = 13 / 4
    assert ledoit_wolf(BY_HAND) == pytest.approx(13 / 16)
    # (1 - 13/16) 4 / ((1 - 13/16) 5 + 13/16 3) = 0.75 / 3.375
    assert h_score(BY_HAND, CLASSES) == pytest.approx(2 / 9)


@pytest.mark.parametrize(("rows", "columns"), [(60, 4), (15, 40)])
def test_by_definition(rows: int, columns: int) -> None:
    features, labels = made(rows, columns, rows)
    expected_of_class = np.stack([features[labels == label].mean(axis=0) for label in labels])
    between = np.cov(expected_of_class.T, bias=True)
    covariance = np.cov(features.T, bias=True)
    if rows > columns:
        expected = np.trace(np.linalg.inv(covariance) @ between)
        assert h_score(features, labels, shrinkage=False) == pytest.approx(expected)
    amount = shrinkage_by_its_definition(features)
    assert 0 < amount < 1
    assert ledoit_wolf(features - features.mean(axis=0)) == pytest.approx(amount)
    shrunk = (1 - amount) * covariance + amount * np.trace(covariance) / columns * np.eye(columns)
    assert h_score(features, labels) == pytest.approx((1 - amount) * np.trace(np.linalg.inv(shrunk) @ between))


def test_shrinkage_is_that_of_scikit_learn() -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    for rows, columns in ((60, 4), (15, 40), (200, 30)):
        features, _ = made(rows, columns, columns)
        centred = features - features.mean(axis=0)
        assert ledoit_wolf(centred) == pytest.approx(covariance.ledoit_wolf_shrinkage(features))


def test_bounds() -> None:
    features, labels = made(60, 6, 2)
    assert 0 < h_score(features, labels) < h_score(features, labels, shrinkage=False) < 3  # K - 1
    exact = np.eye(4)[labels]  # each class in one point
    assert h_score(exact, labels, shrinkage=False) == pytest.approx(3)
    many, few = made(15, 40, 3)  # more columns than rows: any features tell everything
    assert h_score(many, few, shrinkage=False) == pytest.approx(len(set(few)) - 1)
    noise = np.random.default_rng(4).normal(0, 1, (15, 40))
    assert h_score(noise, few, shrinkage=False) == pytest.approx(len(set(few)) - 1)
    assert h_score(np.ones((4, 2)), CLASSES) == 0
    assert h_score(np.ones((4, 2)), CLASSES, shrinkage=False) == 0


def test_what_must_not_change_it() -> None:
    features, labels = made(60, 5, 6)
    rotation = stats.ortho_group.rvs(5, random_state=0)
    for shrinkage in (True, False):
        plain = h_score(features, labels, shrinkage=shrinkage)
        assert h_score(10 * features @ rotation + 3, labels, shrinkage=shrinkage) == pytest.approx(plain)
        assert h_score(features, 9 - labels, shrinkage=shrinkage) == pytest.approx(plain)
    any_mixing = np.random.default_rng(0).normal(0, 1, (5, 5))
    unshrunk = h_score(features, labels, shrinkage=False)
    assert h_score(features @ any_mixing, labels, shrinkage=False) == pytest.approx(unshrunk)
    constant = np.hstack([features, np.full((60, 1), 4.0)])
    assert h_score(constant, labels, shrinkage=False) == pytest.approx(unshrunk)
    assert np.isfinite(h_score(constant, labels))


def test_isotropic_features_are_shrunk_all_the_way() -> None:
    square = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])  # covariance is the identity
    assert ledoit_wolf(square) == 1.0
    assert h_score(square, CLASSES) == 0.0
