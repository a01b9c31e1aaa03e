"""Leaving rows out by the hat matrix against leaving them out by fitting again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from transfer.ranking.linear_probe import PENALTIES, left_out_predictions, linear_probe


def ridge(features: np.ndarray, targets: np.ndarray, penalty: float, asked: np.ndarray) -> np.ndarray:
    """Predictions by the normal equations of (1, features), whose intercept is not penalised."""
    design = np.hstack([np.ones((len(features), 1)), features])
    penalties = penalty * np.eye(design.shape[1])
    penalties[0, 0] = 0
    weights = np.linalg.solve(design.T @ design + penalties, design.T @ targets)
    return np.hstack([np.ones((len(asked), 1)), asked]) @ weights


def fitted_again(features: np.ndarray, targets: np.ndarray, penalty: float, groups: np.ndarray) -> np.ndarray:
    centred = features - features.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)
    unit = (singular[singular > 1e-9] ** 2).mean()
    predicted = np.empty_like(targets)
    for group in np.unique(groups):
        out = groups == group
        predicted[out] = ridge(features[~out], targets[~out], penalty * unit, features[out])
    return predicted


def made(rows: int, columns: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    features = 2 * rng.normal(0, 1, (3, columns))[labels] + rng.normal(0, 2, (rows, columns)) + 4
    return features, labels, rng.integers(0, rows // 4, rows)


@pytest.mark.parametrize(("rows", "columns"), [(30, 4), (16, 25)])
@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_leaving_out_is_fitting_again(rows: int, columns: int, penalty: float) -> None:
    features, _, groups = made(rows, columns, rows)
    targets = np.random.default_rng(0).normal(3, 1, (rows, 2))
    one_by_one = left_out_predictions(features, targets, penalty)
    assert one_by_one == pytest.approx(fitted_again(features, targets, penalty, np.arange(rows)), rel=1e-6, abs=1e-6)
    by_image = left_out_predictions(features, targets, penalty, groups=groups)
    assert by_image == pytest.approx(fitted_again(features, targets, penalty, groups), rel=1e-6, abs=1e-6)
    assert abs(by_image - one_by_one).max() > 1e-3


@pytest.mark.parametrize("by_image", [False, True])
def test_accuracy_is_that_of_the_best_penalty_fitted_again(by_image: bool) -> None:
    features, labels, groups = made(40, 5, 1)
    features += np.random.default_rng(5).normal(0, 4, features.shape)
    columns = np.eye(3)[labels]
    out = groups if by_image else np.arange(40)
    tried = [fitted_again(features, columns, penalty, out) for penalty in PENALTIES]
    best = min(tried, key=lambda predicted: ((predicted - columns) ** 2).sum())
    expected = (best.argmax(axis=1) == labels).mean()
    assert 0.4 < expected < 1
    assert linear_probe(features, labels, groups=groups if by_image else None) == pytest.approx(expected)
    assert linear_probe(features, labels + 5, groups=out) == pytest.approx(expected)


def test_explained_variance_is_that_of_the_best_penalty_fitted_again() -> None:
    features, _, groups = made(40, 5, 2)
    rng = np.random.default_rng(3)
    targets = features[:, :2] * [1, 100] + rng.normal(0, 1, (40, 2)) * [2, 50]
    scaled = (targets - targets.mean(axis=0)) / targets.std(axis=0)
    tried = [((fitted_again(features, scaled, penalty, groups) - scaled) ** 2).mean() for penalty in PENALTIES]
    assert linear_probe(features, targets, groups=groups) == pytest.approx(1 - min(tried))


def test_what_must_not_change_it() -> None:
    features, labels, _ = made(40, 5, 4)
    targets = features @ np.arange(5.0) + np.random.default_rng(0).normal(0, 5, 40)
    rotation = stats.ortho_group.rvs(5, random_state=0)
    for wanted in (labels, targets):
        plain = linear_probe(features, wanted)
        assert linear_probe(1000 * features @ rotation - 7, wanted) == pytest.approx(plain)
        assert linear_probe(np.hstack([features, np.full((40, 2), 3.0)]), wanted) == pytest.approx(plain)
    assert linear_probe(features, -3 * targets + 8) == pytest.approx(linear_probe(features, targets))


def test_features_that_say_nothing() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    assert linear_probe(np.ones((5, 3)), labels) == pytest.approx(3 / 5)  # always the more frequent class
    noise = np.random.default_rng(0).normal(0, 1, (60, 30))
    told = linear_probe(noise, np.random.default_rng(1).normal(0, 1, 60))
    assert -0.3 < told < 0.1  # in sample, 30 columns would explain half of it


def test_images_that_share_their_background_do_not_help_each_other() -> None:
    # The feature tells the image, and the image has one class: worth nothing on another image.
    groups = np.repeat(np.arange(10), 5)
    labels = np.random.default_rng(2).permutation(np.repeat([0, 1], 5))[groups]
    features = np.eye(10)[groups] + np.random.default_rng(3).normal(0, 0.01, (50, 10))
    assert linear_probe(features, labels) == 1.0
    assert linear_probe(features, labels, groups=groups) <= 0.5
