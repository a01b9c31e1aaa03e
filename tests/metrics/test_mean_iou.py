"""Mean IoU: a hand-computed case, sets of pixels, the benchmark's definition, any split of the images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from transfer.metrics.mean_iou import ConfusionMatrix, MeanIoU
from transfer.metrics.result import MetricResult
from transfer.types import UserError

Pairs = list[tuple[np.ndarray, np.ndarray]]


def random_case(seed: int) -> tuple[int, Pairs]:
    """Number of classes and a few images; some pixels ignored, mostly some classes absent."""
    rng = np.random.default_rng(seed)
    num_classes = int(rng.integers(1, 9)) if seed % 10 else int(rng.integers(200, 256))
    pairs = []
    for _ in range(rng.integers(1, 5)):
        size = tuple(rng.integers(1, 9, 2))
        used = rng.permutation(num_classes)[: rng.integers(1, num_classes + 1)]
        truth = rng.choice(used, size).astype(np.uint8)
        guesses = rng.permutation(num_classes)[: rng.integers(1, num_classes + 1)]
        predicted = np.where(rng.random(size) < 0.5, truth, rng.choice(guesses, size)).astype(np.uint8)
        truth[rng.random(size) < 0.2] = 255
        pairs.append((truth, predicted))
    return num_classes, pairs


def counted(num_classes: int, pairs: Pairs) -> ConfusionMatrix:
    matrix = MeanIoU().start(num_classes)
    for truth, predicted in pairs:
        matrix.add(truth, predicted)
    return matrix


def names_of(num_classes: int) -> list[str]:
    return [f"class {label}" for label in range(num_classes)]


def measured(num_classes: int, pairs: Pairs, protocol: str = "mean_iou") -> MetricResult:
    return MeanIoU(protocol=protocol).result(counted(num_classes, pairs), names_of(num_classes))


def by_sets(num_classes: int, pairs: Pairs) -> tuple[dict[str, float], dict[int, tuple[float, float]]]:
    """The figures from sets of pixels, without a matrix."""
    true: list[set[tuple[int, int, int]]] = [set() for _ in range(num_classes)]
    found: list[set[tuple[int, int, int]]] = [set() for _ in range(num_classes)]
    for image, (truth, predicted) in enumerate(pairs):
        for row in range(truth.shape[0]):
            for column in range(truth.shape[1]):
                if truth[row, column] != 255:
                    true[truth[row, column]].add((image, row, column))
                    found[predicted[row, column]].add((image, row, column))
    ious, accuracies, weighted, right = [], [], 0.0, 0
    total = sum(map(len, true))
    per_class = {}
    for label, (a, b) in enumerate(zip(true, found)):
        iou = len(a & b) / len(a | b) if a | b else math.nan
        accuracy = len(a & b) / len(a) if a else math.nan
        per_class[label] = (iou, accuracy)
        right += len(a & b)
        if a | b:
            ious.append(iou)
        if a:
            accuracies.append(accuracy)
            weighted += len(a) / total * iou
    values = {
        "mIoU": sum(ious) / len(ious) if ious else math.nan,
        "pixel_accuracy": right / total if total else math.nan,
        "mean_accuracy": sum(accuracies) / len(accuracies) if accuracies else math.nan,
        "frequency_weighted_iou": weighted if total else math.nan,
    }
    return values, per_class


def test_three_classes_by_hand() -> None:
    truth = np.array([[0, 0, 0, 1], [1, 1, 2, 255]], dtype=np.uint8)
    predicted = np.array([[0, 0, 1, 1], [1, 0, 2, 2]], dtype=np.uint8)
    result = measured(3, [(truth, predicted)])
    # Class 0: 3 true, 3 predicted, 2 in common, union 4. Class 1: 3, 3, 2, 4. Class 2: 1, 1, 1, 1.
    assert result.values == pytest.approx(
        {
            "mIoU": (2 / 4 + 2 / 4 + 1) / 3,
            "pixel_accuracy": 5 / 7,
            "mean_accuracy": (2 / 3 + 2 / 3 + 1) / 3,
            "frequency_weighted_iou": (3 * 0.5 + 3 * 0.5 + 1) / 7,
        },
        rel=1e-12,
    )
    assert result.main == "mIoU"
    assert result.per_class["class 2"] == {"iou": 1, "accuracy": 1, "truth_pixels": 1, "predicted_pixels": 1}
    assert result.per_class["class 0"] == pytest.approx(
        {"iou": 0.5, "accuracy": 2 / 3, "truth_pixels": 3, "predicted_pixels": 3}
    )
    matrix = counted(3, [(truth, predicted)])
    assert matrix.counts.dtype == np.int64
    assert matrix.counts.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 1]]  # rows are the truth


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_random_cases_equal_sets_of_pixels(start: int) -> None:
    absent = 0
    for seed in range(start, start + 50):
        num_classes, pairs = random_case(seed)
        values, per_class = by_sets(num_classes, pairs)
        result = measured(num_classes, pairs)
        assert result.values == pytest.approx(values, rel=1e-12, nan_ok=True), seed
        for label, (iou, accuracy) in per_class.items():
            figures = result.per_class[f"class {label}"]
            assert [figures["iou"], figures["accuracy"]] == pytest.approx([iou, accuracy], rel=1e-12, nan_ok=True)
            absent += math.isnan(iou)
    assert absent > 10


def test_a_class_without_truth_counts_where_it_was_predicted_and_is_left_out_where_not() -> None:
    truth = np.array([[0, 0, 1, 1]], dtype=np.uint8)
    assert measured(3, [(truth, truth)]).values["mIoU"] == 1
    predicted = np.array([[0, 0, 1, 2]], dtype=np.uint8)
    result = measured(3, [(truth, predicted)])
    assert result.values["mIoU"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert result.values["mean_accuracy"] == pytest.approx((1 + 0.5) / 2)
    assert math.isnan(result.per_class["class 2"]["accuracy"])
    assert measured(3, [(truth, truth)], "sceneparsing").values["mIoU"] == pytest.approx(2 / 3)


def scene_parsing(num_classes: int, pairs: Pairs) -> tuple[float, float, list[float]]:
    """The benchmark's definition: 0 is unlabelled, areas of single images, the smallest float added to each union."""
    intersections, unions, right, labelled = [], [], 0, 0
    for truth, predicted in pairs:
        truth, predicted = (np.where(truth == 255, -1, mask.astype(np.int64)) + 1 for mask in (truth, predicted))
        areas = [
            (np.sum((predicted == k) & (truth == k)), np.sum(predicted == k), np.sum(truth == k))
            for k in range(1, num_classes + 1)
        ]
        intersections.append([both for both, _, _ in areas])
        unions.append([a + b - both + np.spacing(1) for both, a, b in areas])
        right += int(np.sum((predicted == truth) & (truth > 0)))
        labelled += int(np.sum(truth > 0))
    iou = np.sum(intersections, axis=0) / np.sum(unions, axis=0)
    return float(iou.mean()), float(right / labelled), iou.tolist()


def test_the_benchmarks_definition() -> None:
    differs = 0
    for seed in range(60):
        num_classes, pairs = random_case(seed)
        if all((truth == 255).all() for truth, _ in pairs):
            continue
        mean, accuracy, iou = scene_parsing(num_classes, pairs)
        result = measured(num_classes, pairs, "sceneparsing")
        assert result.values["mIoU"] == pytest.approx(mean, rel=1e-12), seed
        assert result.values["pixel_accuracy"] == pytest.approx(accuracy, rel=1e-12)
        assert [figures["iou"] for figures in result.per_class.values()] == pytest.approx(iou, rel=1e-12)
        own = measured(num_classes, pairs)
        if all(not math.isnan(figures["iou"]) for figures in own.per_class.values()):
            assert own.values == pytest.approx(result.values, rel=1e-12, nan_ok=True)
        else:
            differs += own.values["mIoU"] > result.values["mIoU"]
            assert own.values["frequency_weighted_iou"] == result.values["frequency_weighted_iou"]
    assert differs > 10


def test_any_order_split_and_number_of_processes_gives_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 7, size, np.uint8), rng.integers(0, 7, size, np.uint8)) for size in [(9, 5)] * 12]
    whole = counted(7, pairs)
    for world in (1, 2, 3, 5, 12):
        order = rng.permutation(len(pairs))
        parts = [counted(7, [pairs[position] for position in order[rank::world]]) for rank in range(world)]
        merged = MeanIoU().start(7)
        for rank, part in enumerate(parts):
            merged.merge(part if rank % 2 else part.counts)
        assert np.array_equal(merged.counts, whole.counts)
        names = names_of(7)
        assert MeanIoU().result(merged, names) == MeanIoU().result(whole, names)
        assert MeanIoU().result(merged.counts, names) == MeanIoU().result(whole, names)
    rows = counted(7, [(truth[i : i + 1], guess[i : i + 1]) for truth, guess in pairs for i in range(9)])
    assert np.array_equal(rows.counts, whole.counts)
    assert counted(7, pairs[:1]).counts.sum() == 45


def test_counts_stay_exact_beyond_what_a_float32_holds() -> None:
    truth = np.zeros((4097, 4099), dtype=np.uint8)  # 2**24 + 16387 pixels
    truth[0, :2] = 1  # an odd number of zeros remains: float32 has only even numbers there
    matrix = counted(2, [(truth, np.zeros_like(truth))])
    assert matrix.counts.tolist() == [[4097 * 4099 - 2, 0], [2, 0]]


def test_views_and_other_memory_orders_count_alike() -> None:
    rng = np.random.default_rng(1)
    truth, guess = rng.integers(0, 4, (2, 12, 10), np.uint8)
    expected = counted(4, [(truth[::2, 1::3].copy(), guess[::2, 1::3].copy())])
    assert np.array_equal(counted(4, [(truth[::2, 1::3], guess[::2, 1::3])]).counts, expected.counts)
    assert np.array_equal(counted(4, [(np.asfortranarray(truth), guess)]).counts, counted(4, [(truth, guess)]).counts)


def test_no_pixels_at_all() -> None:
    ignored = np.full((2, 2), 255, dtype=np.uint8)
    for protocol in ("mean_iou", "sceneparsing"):
        result = measured(3, [(ignored, ignored)], protocol)
        assert all(math.isnan(value) for value in result.values.values())


def test_what_a_prediction_says_of_ignored_pixels_does_not_matter() -> None:
    truth = np.array([[0, 255], [1, 255]], dtype=np.uint8)
    for guess in (0, 1, 7, 254, 255):
        predicted = np.array([[0, guess], [1, guess]], dtype=np.uint8)
        assert counted(2, [(truth, predicted)]).counts.tolist() == [[1, 0], [0, 1]]


def test_the_table_says_its_protocol_and_what_is_undefined() -> None:
    truth = np.array([[0, 0, 1, 1]], dtype=np.uint8)
    lines = measured(3, [(truth, truth)]).table().splitlines()
    assert lines[0] == "Mean IoU over 4 labelled pixels; absent classes left out of the mean"
    assert lines[2].startswith("mIoU *")
    assert lines[2].endswith("100.00  mean IoU of 2 of 3 classes")
    assert next(line for line in lines if line.startswith("class 2")).split() == ["class", "2", "-", "-", "0", "0"]
    assert "is left out of mIoU" in lines[-1]
    scene = measured(3, [(truth, truth)], "sceneparsing").table()
    assert "mean IoU of 3 of 3 classes" in scene
    assert "has IoU 0" in scene.splitlines()[-1]


def test_mistakes_are_named_and_count_nothing() -> None:
    good = np.zeros((2, 3), dtype=np.uint8)
    matrix = MeanIoU().start(3)
    wrong: list[tuple[np.ndarray, np.ndarray, str]] = [
        (good, good[:, :2], r"truth is \(2, 3\), the prediction \(2, 2\)"),
        (good.astype(np.int64), good[0], r"truth is .*int64.*prediction is \(3,\)"),
        (np.array([[0, 3, 255]], np.uint8), np.array([[0, 1, 2]], np.uint8), r"truth holds 3, but classes are 0..2"),
        (
            np.array([[0, 9, 4]], np.uint8),
            np.array([[5, 255, 2]], np.uint8),
            "truth holds 4, 9; the prediction holds 5, 255",
        ),
        (good[:0], good[:0], "not empty"),
    ]
    for truth, predicted, message in wrong:
        with pytest.raises(UserError, match=message):
            matrix.add(truth, predicted)
    assert matrix.counts.sum() == 0
    for counts in (np.zeros((2, 2), np.int64), np.zeros((3, 3))):
        with pytest.raises(UserError, match="cannot add"):
            matrix.merge(counts)
    with pytest.raises(UserError, match="for 2 class names"):
        MeanIoU().result(matrix, ["a", "b"])
    for num_classes in (0, 256):
        with pytest.raises(UserError, match=f"num_classes={num_classes} must be in 1..255"):
            MeanIoU().start(num_classes)
    with pytest.raises(UserError, match=r"protocol='scene_parsing'.*did you mean 'sceneparsing'"):
        MeanIoU(protocol="scene_parsing")


@pytest.mark.parametrize("num_classes", [1, 2, 150, 255])
def test_any_number_of_classes_a_mask_can_hold(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    truth, predicted = rng.integers(0, num_classes, (2, 40, 60), np.uint8)
    expected = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(expected, (truth, predicted), 1)
    assert np.array_equal(counted(num_classes, [(truth, predicted)]).counts, expected)
