"""How well a linear model on the features predicts rows it has not seen.

Ridge regression with an intercept that is not penalised; classes are regressed as zeros and ones and the largest wins.
Every row is predicted by the model that was fitted without it, or without all rows of its image, exactly and without
fitting again: with the hat matrix H, the errors of the rows G when they are left out are (I - H_GG)^-1 times their
errors when they are not (Hastie, Tibshirani and Friedman, *The Elements of Statistical Learning*, section 7.10, for one
row).

The penalty is that of a grid with the least squared error of the rows left out. Generalised cross-validation (Golub,
Heath and Wahba 1979), which stands for this error where it is dear, cannot leave out images. The choice among ten
penalties makes the figure a little too good, for every backbone alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from transfer.ranking.inputs import checked_classes, checked_regression, is_classes, one_hot

PENALTIES = tuple(float(value) for value in np.geomspace(1e-6, 1e3, 10))
"""In units of the mean squared singular value of the centred features."""


def linear_probe(features: Any, targets: Any, *, groups: Any = None) -> float:
    """Accuracy, or the explained share of the variance, on rows left out; the higher the better.

    Args:
        features: [N, D]; they are centred, and not scaled.
        targets: [N] whole numbers: classes; or [N] or [N, T] floating point.
        groups: [N] whole numbers: rows of one number (of one image) are left out together; None: one by one.

    Returns:
        Of classes, the share that is told rightly, in [0, 1]; a class with rows of one group alone never is. Of
        floating point, 1 - squared error / variance, mean over columns; below 0 where the mean would do better.

    Raises:
        UserError: an argument is not as said above or not finite, all rows are of one class or one group.
    """
    if is_classes(targets):
        features, labels, groups = checked_classes("linear probe", features, targets, groups)
        columns = one_hot(labels)
    else:
        features, columns, groups = checked_regression("linear probe", features, targets, groups)
        columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)  # each weighs the same
    errors = [columns - predicted for predicted in _predictions(features, columns, groups, PENALTIES)]
    best = min(errors, key=lambda error: float((error**2).sum()))
    if is_classes(targets):
        return float(((columns - best).argmax(axis=1) == labels).mean())
    return 1 - float((best**2).mean())


def left_out_predictions(features: Any, targets: Any, penalty: float, *, groups: Any = None) -> np.ndarray:
    """What ridge regression says of each row when fitted without its group.

    Args:
        features: [N, D].
        targets: [N] or [N, T] floating point.
        penalty: above 0, as in `PENALTIES`.
        groups: as in `linear_probe`.

    Returns:
        [N, T].

    Raises:
        UserError: as in `linear_probe`.
    """
    features, columns, groups = checked_regression("linear probe", features, targets, groups)
    (predicted,) = _predictions(features, columns, groups, (penalty,))
    return predicted


def _predictions(
    features: np.ndarray, columns: np.ndarray, groups: np.ndarray, penalties: tuple[float, ...]
) -> Iterator[np.ndarray]:
    """For each penalty, what is said of each row without its group, [N, T]."""
    means = columns.mean(axis=0)
    vectors, singular, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    kept = singular > singular[0] * max(features.shape) * np.finfo(np.float64).eps
    vectors, squares = vectors[:, kept], singular[kept] ** 2  # [N, r], [r]
    along = vectors.T @ (columns - means)  # [r, T]
    unit = squares.mean() if len(squares) else 1.0
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    for penalty in penalties:
        shares = squares / (squares + penalty * unit)
        error = columns - means - vectors @ (shares[:, None] * along)
        yield columns - _left_out_errors(error, vectors, shares, members)


def _left_out_errors(
    error: np.ndarray, vectors: np.ndarray, shares: np.ndarray, members: list[np.ndarray]
) -> np.ndarray:
    """The errors [N, T] that rows have when their group is left out, from those when it is not."""
    intercept = 1 / len(error)  # its part of every element of the hat matrix
    if len(members) == len(error):  # one by one
        return error / (1 - intercept - (vectors**2) @ shares)[:, None]
    left_out = np.empty_like(error)
    for rows in members:
        hat = (vectors[rows] * shares) @ vectors[rows].T + intercept  # [g, g]
        left_out[rows] = np.linalg.solve(np.eye(len(rows)) - hat, error[rows])
    return left_out
