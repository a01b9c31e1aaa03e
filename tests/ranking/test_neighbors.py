"""k-NN against a loop over pairs of rows, by hand, and in pieces."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from transfer.ranking import neighbors
from transfer.ranking.neighbors import knn_accuracy
from transfer.types import UserError


def by_a_loop(features: np.ndarray, labels: np.ndarray, k: int, groups: np.ndarray) -> float:
    right = 0
    for row, x in enumerate(features):
        others = [
            (float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)), other)
            for other, y in enumerate(features)
            if groups[other] != groups[row]
        ]
        votes: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for likeness, other in sorted(others, key=lambda pair: -pair[0])[:k]:
            votes[int(labels[other])][0] += 1
            votes[int(labels[other])][1] += likeness
        right += max(votes, key=lambda label: votes[label]) == labels[row]
    return right / len(features)


@pytest.mark.parametrize("k", [1, 2, 5, 100])
def test_against_a_loop(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(k)
    labels = rng.integers(0, 3, 40)
    features = rng.normal(0, 1, (3, 4))[labels] + rng.normal(0, 1, (40, 4))
    groups = rng.integers(0, 12, 40)
    alone, together = (by_a_loop(features, labels, k, of) for of in (np.arange(40), groups))
    assert knn_accuracy(features, labels, k) == alone
    assert knn_accuracy(features, labels, k, groups=groups) == together
    monkeypatch.setattr(neighbors, "_NUMBERS", 7 * 40)  # 7 rows at a time
    assert knn_accuracy(features, labels, k, groups=groups) == together


def test_length_does_not_count_but_direction_does() -> None:
    features = np.array([[1.0, 0.1], [100.0, 0.0], [0.0, 1.0], [0.0, 1e-200]])
    labels = np.array([0, 0, 1, 1])
    assert knn_accuracy(features, labels, 1) == 1.0
    assert knn_accuracy(features, np.array([0, 1, 0, 1]), 1) == 0.0


def test_of_equal_votes_the_more_similar_win() -> None:
    angles = np.radians([0.0, 5.0, 20.0, 180.0])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # Of the first row's two neighbours one says 1 (5 degrees away) and one 2 (20 degrees); the last says nothing.
    for label, expected in ((1, True), (2, False)):
        labels = np.array([label, 1, 2, 9])
        others = knn_accuracy(features, np.array([7, 1, 2, 9]), 2)  # the first is then never told
        assert (knn_accuracy(features, labels, 2) > others) is expected


def test_rows_of_the_same_image_do_not_vote() -> None:
    # Pairs of equal rows, each pair an image with a label of its own: of no use to other images.
    features = np.repeat(np.eye(4), 2, axis=0)
    labels, groups = np.repeat([0, 1, 0, 1], 2), np.repeat(np.arange(4), 2)
    assert knn_accuracy(features, labels, 1) == 1.0
    assert knn_accuracy(features, labels, 1, groups=groups) < 1.0


def test_rows_of_zeros_are_like_nothing() -> None:
    features = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]])
    assert knn_accuracy(features, np.array([1, 0, 0, 1]), 1) == 0.75  # the last one's nearest is the row of zeros


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_numbers_of_neighbors_that_are_none(k: int) -> None:
    with pytest.raises(UserError, match=r"k-NN: k="):
        knn_accuracy(np.eye(3), np.array([0, 1, 1]), k)
