"""LogME: how probable the targets are, given the features, for a linear model whose weights are integrated out.

Source: You et al. 2021, *LogME: Practical Assessment of Pre-trained Models for Transfer Learning* (ICML,
arXiv 2102.11005), section 4; the fixed point in one number alpha / beta is that of You et al. 2022 (JMLR,
arXiv 2110.10545), who also prove when it converges. The model: weights normal with precision alpha, noise normal with
precision beta; alpha and beta are those of greatest evidence p(targets | features, alpha, beta).

With t = alpha / beta, singular values s of the features and z the targets along their left singular vectors, the best
beta is N / q(t), where q(t) = sum z^2 t / (t + s^2) + what the features cannot express, and the evidence is

    log p = -N/2 log(2 pi e q(t) / N) + 1/2 sum log(t / (t + s^2)).

Deviations: the iteration starts from the best of a grid of t instead of alpha = beta = 1, so that the score does not
depend on the features' unit and does not stop at a lesser maximum; where no t is better than weights of zero
(t infinite), the evidence is theirs. Targets that the features give exactly would have infinite evidence: of their sum
of squares, 1e-12 is taken for noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from transfer.ranking.inputs import checked_classes, checked_regression, is_classes, one_hot

LEAST_NOISE = 1e-12
ITERATIONS = 200
_TOLERANCE = 1e-9
_GRID = np.geomspace(1e-12, 1e6, 73)
"""Of t, in units of the greatest squared singular value."""


def log_me(features: Any, targets: Any) -> float:
    """The logarithm of the maximum evidence, a row and target column, mean over columns; the higher the better.

    Args:
        features: [N, D], as they are: neither centred nor scaled.
        targets: [N] whole numbers: classes, of which each is told from the rest; or [N] or [N, T] floating point.

    Returns:
        Of classes comparable between backbones on the same rows alone: it hangs on how the classes are mixed.

    Raises:
        UserError: features or targets are not as said above, or not finite, or all rows are of one class.
    """
    if is_classes(targets):
        features, labels, _ = checked_classes("LogME", features, targets)
        columns = one_hot(labels)
    else:
        features, columns, _ = checked_regression("LogME", features, targets)
    vectors, singular, _ = np.linalg.svd(features, full_matrices=False)  # [N, r], [r]
    kept = singular > singular[0] * max(features.shape) * np.finfo(np.float64).eps
    squares, along = singular[kept] ** 2, vectors[:, kept].T @ columns  # [r], [r, T]
    totals = (columns**2).sum(axis=0)
    evidence = [_maximum_log_evidence(squares, z**2, total, len(features)) for z, total in zip(along.T, totals)]
    return float(np.mean(evidence) / len(features))


def _maximum_log_evidence(squares: np.ndarray, along: np.ndarray, total: float, rows: int) -> float:
    """The evidence of one target column.

    Args:
        squares: [r] squared singular values, above 0.
        along: [r] squared projections of the target on the left singular vectors.
        total: sum of the target's squares.
        rows: N.
    """
    without_weights = -rows / 2 * np.log(2 * np.pi * np.e * total / rows)
    if not len(squares):
        return float(without_weights)
    beyond = max(total - float(along.sum()), LEAST_NOISE * total)

    def evidence(ratio: float) -> float:
        kept = ratio / (ratio + squares)
        return float(-rows / 2 * np.log(2 * np.pi * np.e * (along @ kept + beyond) / rows) + np.log(kept).sum() / 2)

    grid = _GRID * squares.max()
    values = [evidence(ratio) for ratio in grid]
    ratio = float(grid[int(np.argmax(values))])
    best = max(*values, float(without_weights))
    for _ in range(ITERATIONS):
        following = _next_ratio(ratio, squares, along, beyond, rows)
        settled = abs(following - ratio) <= _TOLERANCE * ratio
        ratio = float(np.clip(following, grid[0], grid[-1]))
        best = max(best, evidence(ratio))
        if settled:
            break
    return best


def _next_ratio(ratio: float, squares: np.ndarray, along: np.ndarray, beyond: float, rows: int) -> float:
    """One step of the fixed point: alpha = gamma / |m|^2, beta = (N - gamma) / |F m - y|^2, and their ratio."""
    gamma = float((squares / (ratio + squares)).sum())  # how many weights the data determine
    weights = float((squares * along / (ratio + squares) ** 2).sum())  # |m|^2
    error = float((along * (ratio / (ratio + squares)) ** 2).sum()) + beyond
    free = rows - len(squares) + float((ratio / (ratio + squares)).sum())  # N - gamma, without cancellation
    return np.inf if weights == 0 else gamma / weights * error / free
