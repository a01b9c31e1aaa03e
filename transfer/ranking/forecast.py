"""Every score of a backbone's features, by name: what is set beside the measured ranking.

The null predictor, ImageNet top-1, is no score of the features: it comes with the backbone.
"""

from __future__ import annotations

import numpy as np

from transfer.ranking.box_features import BoxFeatures
from transfer.ranking.features import TaskFeatures
from transfer.ranking.h_score import h_score
from transfer.ranking.leep import leep
from transfer.ranking.linear_probe import linear_probe
from transfer.ranking.log_me import log_me
from transfer.ranking.neighbors import knn_accuracy


def forecast(found: TaskFeatures, *, neighbors: int = 5) -> dict[str, float]:
    """All scores that these features allow; of each, the higher the better.

    k-NN and linear probe leave out the rows of a row's own image.

    Args:
        found: of images, boxes or pixels; all backbones that are compared must have been asked about the same rows.
        neighbors: that vote in k-NN.

    Returns:
        Score -> value, in the order to be shown: LEEP only where the source head is there, what is regressed only of
        boxes.

    Raises:
        UserError: all rows are of one class or one image, or features are not finite.
    """
    scores = {
        "LogME": log_me(found.features, found.labels),
        "H-score": h_score(found.features, found.labels),
        "k-NN": knn_accuracy(found.features, found.labels, neighbors, groups=found.groups),
        "linear probe": linear_probe(found.features, found.labels, groups=found.groups),
    }
    if found.source_probabilities is not None:
        scores["LEEP"] = leep(found.source_probabilities, found.labels)
    if isinstance(found, BoxFeatures):
        deltas = found.deltas.astype(np.float64)
        scores["LogME, boxes"] = log_me(found.near, deltas)
        scores["linear probe, boxes"] = linear_probe(found.near, deltas, groups=found.groups)
    return scores
