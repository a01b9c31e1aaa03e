"""Features of whole images, and all scores of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from known_features import Averages, batches_of, small_head, target
from torch import Tensor

from transfer.ranking.features import TaskFeatures, image_features
from transfer.ranking.forecast import forecast
from transfer.ranking.h_score import h_score
from transfer.ranking.leep import leep
from transfer.ranking.linear_probe import linear_probe
from transfer.ranking.log_me import log_me
from transfer.ranking.neighbors import knn_accuracy
from transfer.types import Batch, UserError

CLASSES = [0, 1, 2, 0, 1, 2, 2, 2]


def some_batches(size: int) -> list[Batch]:
    """Grey images of brightness 10, 11, ... 17."""
    images = [torch.full((3, 16, 24), 10 + index, dtype=torch.uint8) for index in range(8)]
    return batches_of(images, [target(index, (16, 24), classes=[label]) for index, label in enumerate(CLASSES)], size)


class OwnPooling(Averages):
    """Does something of its own behind the last map."""

    @property
    def pooled_channels(self) -> int:
        return 1

    def pooled(self, images: Tensor) -> Tensor:
        return self(images)[-1].amax(dim=(1, 2, 3))[:, None] + 0.25


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_feature_of_an_image_is_what_a_classifier_reads(size: int) -> None:
    found = image_features(Averages(), some_batches(size))
    assert found.features == pytest.approx(np.repeat(10.0 + found.groups[:, None], 3, axis=1), abs=1e-4)
    assert found.labels.tolist() == sorted(CLASSES)
    assert [CLASSES[index] for index in found.groups] == found.labels.tolist()
    own = image_features(OwnPooling(), some_batches(size))
    assert own.features == pytest.approx(10.25 + own.groups[:, None], abs=1e-4)


def test_limits_hold_and_what_is_not_wanted_is_not_run() -> None:
    backbone = Averages()
    found = image_features(backbone, some_batches(1) * 20, per_class=2, total=5)
    assert np.bincount(found.labels).tolist() in ([2, 2, 1], [2, 1, 2], [1, 2, 2])
    assert backbone.runs < 30


def test_source_probabilities_are_those_of_the_head() -> None:
    backbone = Averages()
    backbone.source_head = small_head(5)
    found = image_features(backbone, some_batches(3))
    with torch.no_grad():
        expected = backbone.source_head(torch.from_numpy(found.features)).softmax(dim=1).numpy()
    assert found.source_probabilities == pytest.approx(expected, abs=1e-5)


def test_every_score_is_under_its_name() -> None:
    rng = np.random.default_rng(0)
    labels, groups = np.arange(30) % 3, np.arange(30) // 2
    features = rng.normal(0, 1, (30, 4)).astype(np.float32)
    probabilities = rng.dirichlet(np.ones(4), 30)
    scores = forecast(TaskFeatures(features, labels, groups, probabilities), neighbors=3)
    assert scores == {
        "LogME": log_me(features, labels),
        "H-score": h_score(features, labels),
        "k-NN": knn_accuracy(features, labels, 3, groups=groups),
        "linear probe": linear_probe(features, labels, groups=groups),
        "LEEP": leep(probabilities, labels),
    }
    assert "LEEP" not in forecast(TaskFeatures(features, labels, groups, None))


def test_images_without_one_class() -> None:
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    for classes, told in ((None, "no class"), ([1, 2], "2 classes")):
        with pytest.raises(UserError, match=f"image_0.jpg: has {told}"):
            image_features(Averages(), batches_of([image], [target(0, (16, 16), classes=classes)], 1))
    with pytest.raises(UserError, match="averages: there are no images"):
        image_features(Averages(), [])
