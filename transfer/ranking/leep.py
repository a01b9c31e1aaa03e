"""LEEP: how well the classes follow from those that the source classifier sees in the same images.

Source: Nguyen et al. 2020, *LEEP: A New Measure to Evaluate Transferability of Learned Representations* (ICML,
arXiv 2002.12462), equations 1 and 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from transfer.ranking.inputs import checked_classes
from transfer.types import UserError


def leep(source_probabilities: Any, labels: Any) -> float:
    """The mean log probability of the labels under the expected empirical predictor; at most 0, the higher the better.

    Args:
        source_probabilities: [N, Z] of the source's classes: not negative, each row summing to 1.
        labels: [N] whole numbers.

    Raises:
        UserError: an argument is not as said above, or not finite, or all rows are of one class.
    """
    probabilities, labels, _ = checked_classes("LEEP", source_probabilities, labels)
    wrong = (probabilities < 0).any(axis=1) | (abs(probabilities.sum(axis=1) - 1) > 1e-3)
    if wrong.any():
        raise UserError(
            f"LEEP: {wrong.sum()} of {len(wrong)} rows, first row {np.flatnonzero(wrong)[0]}, are no probabilities "
            "(not negative, summing to 1): give the softmax of the source head's logits"
        )
    joint = np.zeros((int(labels.max()) + 1, probabilities.shape[1]))  # [K, Z], P(y, z)
    np.add.at(joint, labels, probabilities / len(labels))
    marginal = joint.sum(axis=0)
    conditional = np.divide(joint, marginal, out=np.zeros_like(joint), where=marginal > 0)  # P(y | z)
    return float(np.log((conditional[labels] * probabilities).sum(axis=1)).mean())
