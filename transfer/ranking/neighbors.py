"""How often the nearest rows, by cosine similarity, have the class of a row.

Source: leave-one-out k-nearest-neighbours as self-supervised features are commonly judged by (Wu et al. 2018,
arXiv 1805.01978, section 4.2), with plain votes. Rows of the same image are left out, too: pixels and boxes of one
image resemble each other whatever their class.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from transfer.ranking.inputs import checked_classes
from transfer.types import UserError

_NUMBERS = 2**22
"""Similarities that are held at once: what bounds the memory (32 MB, and twice that to sort)."""


def knn_accuracy(features: Any, labels: Any, k: int = 5, *, groups: Any = None) -> float:
    """The share of rows whose nearest rows vote for their class, in [0, 1].

    Of equally many votes, those of the greater similarity win; then the smaller label. Of equally similar rows, the
    first counts. A row of zeros is similar to none (cosine 0).

    Args:
        features: [N, D].
        labels: [N] whole numbers.
        k: voters; where fewer rows are of other groups, these.
        groups: [N] whole numbers: a row's own group has no vote; None: each row is its own group.

    Raises:
        UserError: an argument is not as said above, features are not finite, all rows are of one class or one group.
    """
    if type(k) is not int or k < 1:
        raise UserError(f"k-NN: k={k!r} must be a whole number of 1 or more")
    features, labels, groups = checked_classes("k-NN", features, labels, groups)
    # First by the largest number, so that squares neither overflow nor vanish.
    features = features / np.maximum(abs(features).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)
    classes, right = int(labels.max()) + 1, 0
    step = max(1, _NUMBERS // len(unit))
    for start in range(0, len(unit), step):
        own = slice(start, start + step)
        similar = unit[own] @ unit.T  # [B, N]
        similar[groups[own, None] == groups] = -np.inf
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, :k]  # [B, k]
        likeness = np.take_along_axis(similar, nearest, axis=1)
        may_vote = np.isfinite(likeness)
        chosen = labels[nearest]
        votes = np.zeros((len(similar), classes))
        rows = np.broadcast_to(np.arange(len(similar))[:, None], chosen.shape)
        np.add.at(votes, (rows[may_vote], chosen[may_vote]), 1.0)
        sums = np.zeros_like(votes)
        np.add.at(sums, (rows[may_vote], chosen[may_vote]), likeness[may_vote])
        # A sum of k cosines is at most k: a share of it never outweighs a vote.
        right += int(((votes + sums / (4 * k)).argmax(axis=1) == labels[own]).sum())
    return right / len(unit)
