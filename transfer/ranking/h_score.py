"""H-score: how much of the features' variance, made white, lies between the classes.

Source: Bao et al. 2019, *An Information-Theoretic Approach to Transferability in Task Transfer Learning* (ICIP),
tr(cov(f)^-1 cov(E[f|y])); with shrinkage Ibrahim et al. 2022, *Newer is not always better* (arXiv 2110.06893),
tr(cov_a(f)^-1 (1 - a) cov(E[f|y])), where cov_a is the covariance shrunk by Ledoit and Wolf 2004, *A well-conditioned
estimator for large-dimensional covariance matrices* (Journal of Multivariate Analysis 88, 365-411), lemmas 3.2 to 3.4.

All covariances are divided by N, so that the score without shrinkage lies in [0, min(D, K - 1)].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from transfer.ranking.inputs import checked_classes


def h_score(features: Any, labels: Any, *, shrinkage: bool = True) -> float:
    """The H-score; the higher the better.

    Without shrinkage, features of as many columns as rows or more give K - 1 whatever they are.

    Args:
        features: [N, D]. A constant column adds nothing; features that are all constant score 0.
        labels: [N] whole numbers.
        shrinkage: whether the covariance is shrunk; if not, one without an inverse gets its pseudo-inverse.

    Raises:
        UserError: features or labels are not as said above, or not finite, or all rows are of one class.
    """
    features, labels, _ = checked_classes("H-score", features, labels)
    centred = features - features.mean(axis=0)
    counts = np.bincount(labels)
    sums = np.zeros((len(counts), features.shape[1]))
    np.add.at(sums, labels, centred)
    between = sums / np.sqrt(counts * len(features))[:, None]  # [K, D]; between.T @ between is cov(E[f|y])
    covariance = centred.T @ centred / len(features)
    variance = float(np.trace(covariance)) / len(covariance)
    if variance == 0:
        return 0.0
    if not shrinkage:
        return float(((between @ np.linalg.pinv(covariance, hermitian=True)) * between).sum())
    amount = ledoit_wolf(centred)
    if amount == 1:
        return 0.0
    shrunk = (1 - amount) * covariance
    shrunk.flat[:: len(shrunk) + 1] += amount * variance
    # With next to no shrinkage, two equal columns say, there may be no inverse.
    inverse = np.linalg.pinv(shrunk, hermitian=True) if amount < 1e-9 else np.linalg.inv(shrunk)
    return float((1 - amount) * ((between @ inverse) * between).sum())


def ledoit_wolf(centred: np.ndarray) -> float:
    """How far the covariance of rows is to be shrunk towards a multiple of the identity, in [0, 1].

    Args:
        centred: [N, D], each column of mean zero.
    """
    rows, columns = centred.shape
    covariance = centred.T @ centred / rows
    variance = float(np.trace(covariance)) / columns
    squared = float((covariance**2).sum())
    away = squared / columns - variance**2  # d^2: from the identity's multiple
    # b^2: the mean of |x x' - S|^2 over the rows, over N; the sum of x' S x over the rows is N |S|^2.
    error = (float(((centred**2).sum(axis=1) ** 2).mean()) - squared) / columns / rows
    return 1.0 if away <= 0 else float(np.clip(error / away, 0.0, 1.0))
