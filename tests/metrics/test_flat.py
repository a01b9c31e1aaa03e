"""Flattening: what does not fit together, or is not a number, is refused with the image's name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from detection_builders import make_prediction, make_record

from transfer.metrics.result import MetricResult
from transfer.metrics.voc_map import VOCMeanAP


def evaluate(records, predictions) -> MetricResult:
    """One class."""
    return VOCMeanAP().evaluate(records, predictions, ["thing"], [1])


def test_numbers_that_are_not_finite_name_every_image() -> None:
    records = [make_record([[0, 0, 9, 9]], [0], image_id=name) for name in ("good", "bad-score", "bad-box")]
    predictions = [make_prediction([[0, 0, 9, 9]], [value], [0]) for value in (0.5, math.nan, 0.5)]
    predictions[2].boxes[0, 2] = math.inf
    with pytest.raises(ValueError, match="not finite") as caught:
        evaluate(records, predictions)
    assert "bad-score" in str(caught.value)
    assert "bad-box" in str(caught.value)
    assert "'good'" not in str(caught.value)
    with pytest.raises(ValueError, match="truth boxes that are not finite: image 'nan'"):
        evaluate([make_record([[0, 0, math.nan, 9]], [0], image_id="nan")], [make_prediction([], [], [])])


def test_what_does_not_fit_together_is_refused() -> None:
    record, none = make_record([[0, 0, 9, 9]], [0], image_id="one"), make_prediction([], [], [])
    with pytest.raises(ValueError, match="2 records but 1 predictions"):
        evaluate([record, record], [none])
    with pytest.raises(ValueError, match=r"predicted labels outside 0\.\.0 \(3\): image 'one'"):
        evaluate([record], [make_prediction([[0, 0, 9, 9]], [0.5], [3])])
    with pytest.raises(ValueError, match=r"truth labels outside 0\.\.0 \(-1\): image 'two'"):
        evaluate([make_record([[0, 0, 9, 9]], [-1], image_id="two")], [none])
    with pytest.raises(ValueError, match=r"image 'one'.*boxes \(2, 4\), scores \(1,\), labels \(1,\)"):
        evaluate([record], [(np.zeros((2, 4)), np.zeros(1), np.zeros(1, int))])
    with pytest.raises(ValueError, match="must be integers, found float"):
        evaluate([record], [(np.zeros((1, 4)), np.zeros(1), np.zeros(1))])
    with pytest.raises(ValueError, match="'cat'") as caught:
        VOCMeanAP().evaluate([record], [none], ["cat", "cat"], [1, 1, 2])
    assert "2 class names but 3 category ids" in str(caught.value)
    assert "category ids must be distinct; found more than once: 1" in str(caught.value)


def test_empty_detections_of_any_shape() -> None:
    """A head that found nothing may return boxes of shape [0]."""
    nothing = (torch.zeros(0), torch.zeros(0), torch.zeros(0))
    assert evaluate([make_record([[0, 0, 9, 9]], [0])], [nothing]).values["mAP50"] == 0.0
