"""What every score asks of its features and targets, checked once.

Features are rows of numbers, one an object that is to be told (an image, a box, a pixel); targets are classes (whole
numbers) or what is to be regressed (floating point); groups say which rows are of one image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from transfer.types import UserError


def is_classes(targets: Any) -> bool:
    """Whether targets are classes, by their type: whole numbers, not floating point."""
    return np.issubdtype(np.asarray(targets).dtype, np.integer)


def checked_classes(score: str, features: Any, labels: Any, groups: Any = None) -> tuple[np.ndarray, ...]:
    """Features, classes and groups as a score computes with them.

    Args:
        score: its name, for errors.
        features: [N, D].
        labels: [N] whole numbers; classes that no row has do not count.
        groups: [N] whole numbers, rows of equal number are of one image; None: each row is of its own.

    Returns:
        [N, D] float64; [N] int64, numbered 0..K-1 without gaps; [N] int64, likewise.

    Raises:
        UserError: with everything that does not fit.
    """
    rows, problems = _feature_problems(features)
    labels = np.asarray(labels)
    if labels.ndim != 1 or not is_classes(labels):
        problems.append(f"labels are {labels.dtype} of shape {list(labels.shape)}: give [N] whole numbers")
    elif len(labels) != rows:
        problems.append(f"there are {rows} features and {len(labels)} labels: give one label a row")
    elif len(labels) and labels.min() == labels.max():
        problems.append(f"every label is {labels[0]}: a score needs two classes at least; sample more images")
    numbered = _numbered_groups(groups, rows, problems)
    if problems:
        raise UserError(f"{score}: {'; '.join(problems)}")
    return np.asarray(features, np.float64), np.unique(labels, return_inverse=True)[1], numbered


def checked_regression(score: str, features: Any, targets: Any, groups: Any = None) -> tuple[np.ndarray, ...]:
    """Features, regression targets and groups as a score computes with them.

    Args:
        score: its name, for errors.
        features: [N, D].
        targets: [N] or [N, T] floating point.
        groups: as in `checked_classes`.

    Returns:
        [N, D] float64; [N, T] float64; [N] int64.

    Raises:
        UserError: with everything that does not fit.
    """
    rows, problems = _feature_problems(features)
    targets = np.asarray(targets)
    targets = targets[:, None] if targets.ndim == 1 else targets
    if targets.ndim != 2 or not targets.shape[1] or not np.issubdtype(targets.dtype, np.floating):
        problems.append(f"targets are {targets.dtype} of shape {list(targets.shape)}: give [N, T] floating point")
    elif len(targets) != rows:
        problems.append(f"there are {rows} features and {len(targets)} targets: give one target a row")
    else:
        targets = targets.astype(np.float64)
        problems += _rows_not_finite("targets", targets)
        constant = [str(column) for column, values in enumerate(targets.T) if len(values) and np.ptp(values) == 0]
        if constant:
            problems.append(f"target column {', '.join(constant)} is constant: nothing is to be predicted")
    numbered = _numbered_groups(groups, rows, problems)
    if problems:
        raise UserError(f"{score}: {'; '.join(problems)}")
    return np.asarray(features, np.float64), targets, numbered


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Classes [N], numbered 0..K-1 -> [N, K] float64 of zeros and ones."""
    return np.eye(int(labels.max()) + 1)[labels]


def _feature_problems(features: Any) -> tuple[int, list[str]]:
    """The number of rows, and what is wrong with features."""
    features = np.asarray(features)
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.number) or np.iscomplexobj(features):
        return len(features) if features.ndim else 0, [
            f"features are {features.dtype} of shape {list(features.shape)}: give [N, D] floating point"
        ]
    if len(features) < 2 or not features.shape[1]:
        return len(features), [f"features have shape {list(features.shape)}: give two rows and one column at least"]
    return len(features), _rows_not_finite("features", features)


def _rows_not_finite(name: str, values: np.ndarray) -> list[str]:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if not len(bad):
        return []
    return [
        f"{name} are infinite or no number in {len(bad)} of {len(values)} rows, first in row {bad[0]}: look at the "
        "backbone's weights and input"
    ]


def _numbered_groups(groups: Any, rows: int, problems: list[str]) -> np.ndarray:
    """Groups numbered without gaps; appends what is wrong with them."""
    if groups is None:
        return np.arange(rows)
    groups = np.asarray(groups)
    if groups.shape != (rows,) or not is_classes(groups):
        problems.append(f"groups are {groups.dtype} of shape {list(groups.shape)}: give {rows} whole numbers")
        return np.arange(rows)
    if rows > 1 and groups.min() == groups.max():
        problems.append("all rows are of one group: leaving it out leaves nothing to learn from; sample more images")
    return np.unique(groups, return_inverse=True)[1]
