"""What every score refuses, and says so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from transfer.ranking.h_score import h_score
from transfer.ranking.leep import leep
from transfer.ranking.linear_probe import linear_probe
from transfer.ranking.log_me import log_me
from transfer.ranking.neighbors import knn_accuracy
from transfer.types import UserError

SCORES = {"LogME": log_me, "H-score": h_score, "k-NN": knn_accuracy, "linear probe": linear_probe, "LEEP": leep}
GOOD = np.random.default_rng(0).dirichlet(np.ones(3), 6)
CLASSES = np.array([0, 1, 0, 1, 2, 2])


@pytest.mark.parametrize("name", SCORES)
def test_classes(name: str) -> None:
    score: Callable[..., float] = SCORES[name]
    assert np.isfinite(score(GOOD, CLASSES))
    with pytest.raises(UserError, match=rf"{name}: every label is 4: .*two classes"):
        score(GOOD, np.full(6, 4))
    with pytest.raises(UserError, match=f"{name}: there are 6 features and 5 labels"):
        score(GOOD, CLASSES[:5])
    broken = GOOD.copy()
    broken[[2, 4], 1] = np.nan, np.inf
    with pytest.raises(UserError, match=f"{name}: features are infinite or no number in 2 of 6 rows, first in row 2"):
        score(broken, CLASSES)
    with pytest.raises(UserError, match=r"features are float64 of shape \[6\]"):
        score(GOOD[:, 0], CLASSES)
    with pytest.raises(UserError, match=r"features have shape \[1, 3\].*two rows"):
        score(GOOD[:1], CLASSES[:1])


def test_everything_wrong_is_told_at_once() -> None:
    with pytest.raises(UserError, match=r"k-NN: features .*; every label is 1.*; groups are float64 of shape \[2\]"):
        knn_accuracy(np.full((6, 2), np.nan), np.ones(6, int), groups=np.zeros(2))


@pytest.mark.parametrize("score", [log_me, linear_probe])
def test_regression(score: Callable[..., float]) -> None:
    targets = np.random.default_rng(1).normal(0, 1, (6, 3))
    assert np.isfinite(score(GOOD, targets))
    with pytest.raises(UserError, match=r"target column 1 is constant"):
        score(GOOD, targets * [1, 0, 1])
    with pytest.raises(UserError, match=r"targets are infinite or no number in 1 of 6 rows, first in row 5"):
        score(GOOD, np.where(np.arange(6)[:, None] == 5, np.nan, targets))
    with pytest.raises(UserError, match=r"there are 6 features and 4 targets"):
        score(GOOD, targets[:4])
    with pytest.raises(UserError, match=r"targets are .* of shape \[6\, 3\, 1\]"):
        score(GOOD, targets[..., None])


@pytest.mark.parametrize("score", [knn_accuracy, linear_probe])
def test_a_single_image(score: Callable[..., float]) -> None:
    with pytest.raises(UserError, match="all rows are of one group"):
        score(GOOD, CLASSES, groups=np.zeros(6, int))
