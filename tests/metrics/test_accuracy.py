"""Accuracy and calibration: by hand, against torch's top-k and the definition of the error, for any split of images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from transfer.metrics.accuracy import Accuracy, ClassificationCounts, calibration_error
from transfer.metrics.result import MetricResult
from transfer.types import UserError

Case = tuple[np.ndarray, np.ndarray]


def random_case(seed: int) -> Case:
    """Labels and scores without ties: softmax of drawn logits, from unsure to very sure, or sigmoids."""
    rng = np.random.default_rng(seed)
    num_classes, images = int(rng.integers(2, 30)), int(rng.integers(1, 200))
    labels = rng.integers(0, num_classes, images)
    logits = rng.normal(size=(images, num_classes)) * rng.choice([0.1, 1.0, 5.0])
    logits[np.arange(images), labels] += rng.choice([0.0, 1.0, 5.0])
    chosen = torch.from_numpy(logits)
    scores = (chosen / 5).sigmoid() if seed % 4 == 0 else chosen.softmax(1)  # undivided, several would be 1 in float32
    return labels, scores.float().numpy()


def counted(labels: np.ndarray, scores: np.ndarray, **options: int) -> ClassificationCounts:
    counts = Accuracy(**options).start(scores.shape[1])  # type: ignore[arg-type]
    counts.add(labels, scores)
    return counts


def names_of(num_classes: int) -> list[str]:
    return [f"class {label}" for label in range(num_classes)]


def measured(labels: np.ndarray, scores: np.ndarray) -> MetricResult:
    return Accuracy().result(counted(labels, scores), names_of(scores.shape[1]))


def equation_3(labels: np.ndarray, scores: np.ndarray, bins: int) -> float:
    """Guo et al., bin by bin: |B_m| / n * |acc(B_m) - conf(B_m)|, B_m = ((m - 1) / M, m / M]."""
    confidence, right = scores.max(axis=1).astype(np.float64), scores.argmax(axis=1) == labels
    total = 0.0
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        if inside.any():
            total += inside.sum() / len(labels) * abs(right[inside].mean() - confidence[inside].mean())
    return total


def test_three_classes_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    scores = np.array(
        [[0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.25, 0.7, 0.05], [0.6, 0.3, 0.1]], dtype=np.float32
    )
    result = measured(labels, scores)
    # Predicted 0, 1, 1, 1, 0. Bins of 1/15: 0.5 and 0.6 alone (right, wrong), 0.7 twice (one right), 0.8 alone (right).
    ece = (0.5 + 0.6 + abs(1 - 1.4) + 0.2) / 5
    assert result.values == pytest.approx({"top1": 3 / 5, "mean_class_accuracy": (1 / 2 + 2 / 3) / 2, "ece": ece})
    assert result.main == "top1"
    assert result.per_class["class 0"] == {"accuracy": 1 / 2, "precision": 1 / 2, "images": 2}
    assert result.per_class["class 1"] == {"accuracy": 2 / 3, "precision": 2 / 3, "images": 3}
    empty = result.per_class["class 2"]
    assert math.isnan(empty["accuracy"])
    assert math.isnan(empty["precision"])
    assert empty["images"] == 0
    assert counted(labels, scores).confusion.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]  # rows are the truth


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_random_cases_equal_torchs_topk_and_the_definition_of_the_error(start: int) -> None:
    for seed in range(start, start + 50):
        labels, scores = random_case(seed)
        num_classes = scores.shape[1]
        values = measured(labels, scores).values
        assert list(values) == ["top1", *(["top5"] if num_classes > 5 else []), "mean_class_accuracy", "ece"]
        for k in (1, 5):
            if f"top{k}" in values:
                best = torch.from_numpy(scores).topk(k, dim=1).indices.numpy()
                assert values[f"top{k}"] == (best == labels[:, None]).any(axis=1).mean(), seed
        predicted = scores.argmax(axis=1)
        recalls = [(predicted[labels == k] == k).mean() for k in np.unique(labels)]
        assert values["mean_class_accuracy"] == pytest.approx(np.mean(recalls), rel=1e-12), seed
        assert values["ece"] == pytest.approx(equation_3(labels, scores, 15), abs=1e-9), seed


@pytest.mark.parametrize("seed", range(10))
def test_figures_of_each_class_and_the_matrix(seed: int) -> None:
    labels, scores = random_case(seed)
    counts, predicted = counted(labels, scores), scores.argmax(axis=1)
    per_class = measured(labels, scores).per_class
    for k, figures in enumerate(per_class.values()):
        assert figures["images"] == (labels == k).sum()
        for name, chosen in (("accuracy", labels == k), ("precision", predicted == k)):
            expected = (labels == predicted)[chosen].mean() if chosen.any() else math.nan
            assert figures[name] == pytest.approx(expected, nan_ok=True)
        for other in range(scores.shape[1]):
            assert counts.confusion[k, other] == ((labels == k) & (predicted == other)).sum()


@pytest.mark.parametrize("bins", [1, 10, 16])
def test_other_numbers_of_bins(bins: int) -> None:
    for seed in range(10):
        labels, scores = random_case(seed)
        found = calibration_error(counted(labels, scores, bins=bins))
        assert found == pytest.approx(equation_3(labels, scores, bins), abs=1e-9)


def test_a_confidence_on_a_border_is_in_the_lower_bin() -> None:
    """With 4 bins 0.5 is in (0.25, 0.5]; 0 is in the first and 1 in the last."""
    scores = np.array([[0.5, 0.1], [0.0, 0.0], [1.0, 0.0], [0.25, 0.2], [0.5000001, 0.1]], dtype=np.float32)
    counts = counted(np.zeros(5, dtype=np.int64), scores, bins=4)
    assert counts.bin_images.tolist() == [2, 1, 1, 1]


def test_perfectly_calibrated_and_always_sure() -> None:
    labels = np.array([0, 0, 0, 1] * 10)
    calibrated = np.tile(np.array([[0.75, 0.25]], dtype=np.float32), (40, 1))
    assert measured(labels, calibrated).values["ece"] == 0
    sure = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (40, 1))
    assert measured(labels, sure).values["ece"] == 0.25


def test_of_equal_scores_the_first_class_comes_first() -> None:
    labels = np.arange(7)
    counts = Accuracy(topk=(1, 3, 5)).start(7)
    counts.add(labels, np.full((7, 7), 1 / 7, dtype=np.float32))
    assert counts.hits.tolist() == [1, 3, 5]
    assert counts.confusion[:, 0].tolist() == [1] * 7
    # The true class 2 ties with 1 and 4, and 0 is above: it is the third.
    counts = Accuracy(topk=(1, 2, 3)).start(5)
    counts.add(np.array([2]), np.array([[0.4, 0.2, 0.2, 0.0, 0.2]], dtype=np.float32))
    assert counts.hits.tolist() == [0, 0, 1]


def test_a_score_that_is_no_number_is_wrong_and_counts() -> None:
    labels, scores = random_case(1)
    right = int((scores.argmax(axis=1) == labels).sum())
    clean = measured(labels, scores)
    strange = scores[:3].copy()
    strange[0] = np.nan
    strange[1, labels[1]] = np.nan
    strange[2, (labels[2] + 1) % scores.shape[1]] = np.nan
    counts = counted(np.concatenate([labels, labels[:3]]), np.concatenate([scores, strange]))
    result = Accuracy().result(counts, names_of(scores.shape[1]))
    assert result.values["top1"] == right / (len(labels) + 3)
    assert result.values["ece"] == clean.values["ece"]
    assert counts.class_images.sum() == len(labels) + 3
    assert counts.undecided.sum() == 3
    assert [figures["precision"] for figures in result.per_class.values()] == pytest.approx(
        [figures["precision"] for figures in clean.per_class.values()], nan_ok=True
    )
    alone = counted(labels[:3], strange)
    assert Accuracy().result(alone, names_of(scores.shape[1])).values["top1"] == 0


@pytest.mark.parametrize("seed", range(20))
def test_any_split_and_order_give_the_same_figures_to_the_last_bit(seed: int) -> None:
    labels, scores = random_case(seed)
    scores[::7, 0] = np.nan
    whole, rng = counted(labels, scores), np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    processes = [Accuracy().start(scores.shape[1]) for _ in range(3)]
    for place, part in enumerate(np.array_split(order, rng.integers(1, len(order) + 1))):
        processes[place % 3].add(labels[part], scores[part])
    for other in processes[1:]:
        processes[0].merge(other)
    names = names_of(scores.shape[1])
    found, expected = Accuracy().result(processes[0], names), Accuracy().result(whole, names)
    assert found.values == expected.values
    assert repr(found.per_class) == repr(expected.per_class)  # NaN equals itself here
    assert np.array_equal(processes[0].bin_confidence, whole.bin_confidence)


def test_top5_only_where_there_are_more_classes_and_one_class() -> None:
    for num_classes, there in ((5, False), (6, True)):
        scores = np.full((2, num_classes), 0.1, dtype=np.float32)
        assert ("top5" in measured(np.array([0, 1]), scores).values) is there
    assert measured(np.zeros(2, dtype=np.int64), np.ones((2, 1), dtype=np.float32)).values["top1"] == 1


def test_no_image_at_all() -> None:
    counts = Accuracy().start(3)
    counts.add(np.zeros(0, dtype=np.int64), np.zeros((0, 3), dtype=np.float32))
    result = Accuracy().result(counts, names_of(3))
    assert all(math.isnan(value) for value in result.values.values())
    assert "-" in result.table()


def test_the_table_says_how_it_was_measured() -> None:
    labels, scores = random_case(2)
    text = measured(labels, scores).table()
    assert text.startswith(f"Accuracy over {len(labels)} images of {scores.shape[1]} classes")
    assert "15 bins" in text
    assert "top1 *" in text


def test_scores_that_are_slightly_above_one_are_sure() -> None:
    counts = counted(np.array([0]), np.array([[1.00001, 0.0]], dtype=np.float32))
    assert counts.bin_images[-1] == 1
    assert calibration_error(counts) == 0


def test_a_matrix_of_many_classes_is_counted_in_place() -> None:
    """1000 classes: each image has its own place in the matrix, and top-5 is of the ranks."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, 64)
    scores = torch.from_numpy(rng.normal(size=(64, 1000))).softmax(1).float().numpy()
    counts = counted(labels, scores)
    assert counts.confusion.sum() == 64
    best = torch.from_numpy(scores).topk(5, dim=1).indices.numpy()
    assert counts.hits.tolist() == [int((scores.argmax(1) == labels).sum()), int((best == labels[:, None]).sum())]


def test_mistakes_in_what_is_added_are_named() -> None:
    counts = Accuracy().start(3)
    good = np.array([[0.2, 0.3, 0.5]], dtype=np.float32)
    with pytest.raises(UserError, match=r"labels hold 3 to 3, but classes are 0\.\.2.*scores hold -4 to 9.*probabilit"):
        counts.add(np.array([3]), np.array([[9.0, -4.0, 0.0]], dtype=np.float32))
    with pytest.raises(UserError, match="labels hold -1"):
        counts.add(np.array([-1]), good)
    with pytest.raises(UserError, match=r"labels are \(1,\), float64.*scores are \(1, 2\), float32"):
        counts.add(np.array([0.0]), good[:, :2])
    with pytest.raises(UserError, match="2 labels for scores of 1 images"):
        counts.add(np.array([0, 1]), good)
    assert counts.class_images.sum() == 0
    with pytest.raises(UserError, match=r"cannot add counts of 4 classes.*to counts of 3 classes"):
        counts.merge(Accuracy().start(4))
    with pytest.raises(UserError, match="10 bins"):
        counts.merge(Accuracy(bins=10).start(3))
    with pytest.raises(UserError, match=r"counts of 3 classes.*where 2 classes"):
        Accuracy().result(counts, ["a", "b"])


def test_mistakes_in_settings_are_named() -> None:
    for topk in ((5,), (1, 1), (1, 0), "15", (1, 2.0), 1):
        with pytest.raises(UserError, match="topk="):
            Accuracy(topk=topk)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"topk=.*bins=0"):
        Accuracy(topk=(), bins=0)
    with pytest.raises(UserError, match="num_classes=0"):
        Accuracy().start(0)
