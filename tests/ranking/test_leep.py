"""LEEP by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from transfer.ranking.leep import leep
from transfer.types import UserError


def test_certain_source_classes() -> None:
    # P(0 | z=0) = P(1 | z=0) = 1/2, P(1 | z=1) = 1
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert leep(probabilities, np.array([0, 1, 1])) == pytest.approx(2 * math.log(0.5) / 3)


def test_doubtful_source_classes() -> None:
    # P(y, z): 0.25 0.25 / 0.5 0; P(y | z): 1/3 1 / 2/3 0; first row 0.5 / 3 + 0.5 = 2/3, second 2/3
    probabilities = np.array([[0.5, 0.5], [1.0, 0.0]])
    assert leep(probabilities, np.array([0, 1])) == pytest.approx(math.log(2 / 3))


def test_bounds() -> None:
    labels = np.array([0, 1, 2, 0])
    assert leep(np.eye(3)[labels], labels) == 0.0  # the source's classes are the target's
    blind = np.full((4, 5), 0.2)  # the frequencies of the labels are all that is known
    assert leep(blind, labels) == pytest.approx(0.5 * math.log(0.5) + 0.5 * math.log(0.25))


def test_what_must_not_change_it() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), 20), rng.integers(0, 3, 20)
    plain = leep(probabilities, labels)
    assert leep(np.hstack([probabilities, np.zeros((20, 2))]), labels) == pytest.approx(plain)  # classes never seen
    assert leep(probabilities[:, ::-1], 10 + labels) == pytest.approx(plain)
    assert leep(probabilities.astype(np.float32), labels) == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("row", [[0.5, 0.6], [1.5, -0.5], [3.0, 2.0]])
def test_logits_are_not_taken_for_probabilities(row: list[float]) -> None:
    with pytest.raises(UserError, match=r"1 of 3 rows, first row 2.*softmax"):
        leep(np.array([[0.5, 0.5], [1.0, 0.0], row]), np.array([0, 1, 1]))
