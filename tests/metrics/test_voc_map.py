"""VOC scoring against a slow loop that follows the devkit's text, hand-computed cases and invariances."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from detection_builders import make_prediction, make_record, noisy_detections

from transfer.metrics import voc_map
from transfer.metrics.voc_map import VOCMeanAP
from transfer.types import Prediction, Record, UserError

PROTOCOLS = ("voc07_11point", "voc_area")


def score(records, predictions, *, num_classes=1, protocol="voc07_11point", **options):
    """The result for classes named "0", "1", ..."""
    metric = VOCMeanAP(protocol=protocol, **options)
    return metric.evaluate(records, predictions, [str(k) for k in range(num_classes)], list(range(1, num_classes + 1)))


# ---- the devkit, told again as a plain loop over 1-based inclusive corners ----


def devkit_outcomes(records, predictions, label, events) -> tuple[list[str], int]:
    """ "true", "false" or "neither" of each detection of a class, best first, and the number of truth boxes to find."""
    truth_of_image = []
    num_truths = 0
    for record in records:
        truth = []
        for box, box_label, difficult, crowd in zip(
            record.boxes.tolist(), record.labels.tolist(), record.difficult, record.crowd
        ):
            if box_label == label:
                inclusive = (box[0] + 1, box[1] + 1, box[2], box[3])
                truth.append({"box": inclusive, "difficult": bool(difficult or crowd), "taken": False})
                num_truths += not (difficult or crowd)
        truth_of_image.append(truth)

    ranking = []
    for image, prediction in enumerate(predictions):
        columns = zip(prediction.boxes.tolist(), prediction.scores.tolist(), prediction.labels.tolist())
        for box, confidence, box_label in columns:
            if box_label == label:
                ranking.append((confidence, image, (box[0] + 1, box[1] + 1, box[2], box[3])))
    ranking.sort(key=lambda row: -row[0])
    events["equal scores"] += len(ranking) - len({row[0] for row in ranking})

    outcomes = []
    for _, image, box in ranking:
        best, best_overlap = None, -math.inf
        for truth in truth_of_image[image]:
            other = truth["box"]
            width = min(box[2], other[2]) - max(box[0], other[0]) + 1
            height = min(box[3], other[3]) - max(box[1], other[1]) + 1
            if width > 0 and height > 0:
                area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
                other_area = (other[2] - other[0] + 1) * (other[3] - other[1] + 1)
                overlap = width * height / (area + other_area - width * height)
                if overlap == best_overlap and overlap >= 0.5 and truth["difficult"] != best["difficult"]:
                    events["equal IoU, one difficult"] += 1
                if overlap > best_overlap:
                    best, best_overlap = truth, overlap
        events["IoU exactly 0.5"] += best_overlap == 0.5
        if best_overlap < 0.5:
            outcome = "false"
        elif best["difficult"]:
            outcome = "neither"
        elif best["taken"]:
            outcome = "false"
            events["already taken"] += 1
        else:
            best["taken"] = True
            outcome = "true"
        events[outcome] += 1
        outcomes.append(outcome)
    return outcomes, num_truths


def devkit_average_precision(outcomes: list[str], num_truths: int) -> dict[str, float]:
    """Both forms of AP, in exact fractions."""
    recalls, precisions = [], []
    true = false = 0
    for outcome in outcomes:
        true += outcome == "true"
        false += outcome == "false"
        recalls.append(Fraction(true, num_truths))
        precisions.append(Fraction(true, true + false) if true + false else Fraction(0))

    eleven = Fraction(0)
    for k in range(11):
        reached = [precision for recall, precision in zip(recalls, precisions) if recall >= Fraction(k, 10)]
        eleven += max(reached, default=Fraction(0)) / 11

    area = Fraction(0)
    padded_recalls, padded_precisions = [Fraction(0), *recalls, Fraction(1)], [Fraction(0), *precisions, Fraction(0)]
    for place in range(1, len(padded_recalls)):
        area += (padded_recalls[place] - padded_recalls[place - 1]) * max(padded_precisions[place:])
    return {"voc07_11point": float(eleven), "voc_area": float(area)}


def random_case(generator: np.random.Generator) -> tuple[list[Record], list[Prediction]]:
    """A few images on a coarse grid, so that equal scores, equal IoU and IoU of exactly 0.5 are common."""
    unit = generator.choice([0.25, 1.0, 7.0])  # all exact in binary
    records, predictions = [], []

    def boxes(count: int) -> np.ndarray:
        corner = generator.integers(0, 3, (count, 2))
        return unit * np.concatenate([corner, corner + generator.integers(1, 4, (count, 2))], axis=1)

    for image in range(generator.integers(1, 6)):
        num_truths = int(generator.integers(0, 5))
        labels = generator.choice([0, 0, 1, 1, 2], num_truths)
        truth_boxes = boxes(num_truths)
        if num_truths > 1 and generator.random() < 0.3:  # one box twice
            truth_boxes[0] = truth_boxes[1]
        difficult = generator.random(num_truths) < 0.3
        crowd = generator.random(num_truths) < 0.05
        records.append(make_record(truth_boxes, labels, image_id=image, difficult=difficult, crowd=crowd))
        num_detections = int(generator.integers(0, 7))
        found = boxes(num_detections)
        found_labels = generator.integers(0, 4, num_detections)
        if num_truths:  # half of the detections copy a truth box, half a label, a quarter both
            copied = generator.integers(0, num_truths, num_detections)
            found = np.where(generator.random((num_detections, 1)) < 0.5, truth_boxes[copied], found)
            found_labels = np.where(generator.random(num_detections) < 0.5, labels[copied], found_labels)
        scores = generator.integers(1, 9, num_detections) / 8
        predictions.append(make_prediction(found, scores.tolist(), found_labels.tolist()))
    return records, predictions


def test_equals_the_devkit_loop_on_random_cases() -> None:
    generator = np.random.default_rng(20070607)
    events: Counter[str] = Counter()
    for case in range(1000):
        records, predictions = random_case(generator)
        expected: dict[str, list[float]] = {protocol: [] for protocol in PROTOCOLS}
        by_class = {}
        for label in range(4):
            outcomes, num_truths = devkit_outcomes(records, predictions, label, events)
            if num_truths:
                by_class[str(label)] = devkit_average_precision(outcomes, num_truths)
                for protocol in PROTOCOLS:
                    expected[protocol].append(by_class[str(label)][protocol])
            else:
                events["class without truth"] += 1
        events["image without both"] += sum(
            len(record.labels) + len(prediction.labels) == 0 for record, prediction in zip(records, predictions)
        )
        for protocol in PROTOCOLS:
            result = score(records, predictions, num_classes=4, protocol=protocol)
            for name, figures in result.per_class.items():
                wanted = by_class[name][protocol] if name in by_class else math.nan
                assert figures["ap"] == pytest.approx(wanted, abs=1e-9, nan_ok=True), (case, name, protocol)
            mean = np.mean(expected[protocol]) if expected[protocol] else math.nan
            assert result.values["mAP50"] == pytest.approx(mean, abs=1e-9, nan_ok=True), (case, protocol)
    # the cases hold what they are meant to hold
    for event in (
        "equal scores",
        "equal IoU, one difficult",
        "IoU exactly 0.5",
        "already taken",
        "true",
        "false",
        "neither",
        "class without truth",
        "image without both",
    ):
        assert events[event] >= 50, events


# ---- cases computed by hand ----


def test_two_truths_three_detections() -> None:
    records = [make_record([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0])]
    # true, false, true: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]]
    predictions = [make_prediction(boxes, [0.9, 0.8, 0.3], [0, 0, 0])]
    eleven = score(records, predictions)
    assert eleven.values["mAP50"] == pytest.approx((6 * 1 + 5 * 2 / 3) / 11, abs=1e-12)
    area = score(records, predictions, protocol="voc_area")
    assert area.values["mAP50"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3, abs=1e-12)
    expected = {"precision": 0.5, "recall": 0.5, "truths": 2, "ignored": 0, "detections": 3}
    assert {name: area.per_class["0"][name] for name in expected} == expected


@pytest.mark.parametrize("num_truths", [10, 20, 70])
@pytest.mark.parametrize("tenths", range(11))
def test_eleven_points_meet_recall_tenths_exactly(tenths: int, num_truths: int) -> None:
    """Recall of exactly k/10 at full precision reaches thresholds 0 to k: AP is (k + 1) / 11, also for 3, 6 and 7."""
    boxes = np.arange(num_truths)[:, None] * 20 + np.array([0, 0, 10, 10])
    found = num_truths * tenths // 10
    # one false detection at the end keeps the class present for k = 0 without changing any maximum
    scores = [0.9] * found + [0.1]
    predictions = [make_prediction([*boxes[:found], [5000, 0, 5001, 1]], scores, [0] * (found + 1))]
    expected = (tenths + 1) / 11 if tenths else 0.0
    result = score([make_record(boxes, [0] * num_truths)], predictions)
    assert result.values["mAP50"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("box", "average_precision"),
    [
        ([0, 0, 10, 5], 1.0),  # IoU 50/100, and at the threshold counts
        ([0, 0, 10, 4.999], 0.0),
        ([0, 0, 5, 10], 1.0),
    ],
)
def test_threshold_is_inclusive(box: list[float], average_precision: float) -> None:
    records = [make_record([[0, 0, 10, 10]], [0])]
    assert score(records, [make_prediction([box], [0.9], [0])]).values["mAP50"] == average_precision


def test_boxes_are_exclusive() -> None:
    """IoU 3/9; adding 1 to every width and height would make it 8/16."""
    records = [make_record([[0, 0, 3, 3]], [0])]
    predictions = [make_prediction([[0, 0, 3, 1]], [0.9], [0])]
    assert score(records, predictions).values["mAP50"] == 0.0
    # and as VOC writes it: corners 1..3 inclusive against 1..3 x 1..2, IoU 6/9
    assert score(records, [make_prediction([[0, 0, 3, 2]], [0.9], [0])]).values["mAP50"] == 1.0


def test_other_iou_threshold() -> None:
    records = [make_record([[0, 0, 10, 10]], [0])]
    predictions = [make_prediction([[0, 0, 10, 7]], [0.9], [0])]
    assert score(records, predictions, iou_threshold=0.7).values == {"mAP70": 1.0}
    assert score(records, predictions, iou_threshold=0.75).values == {"mAP75": 0.0}


def test_difficult_is_neither_true_nor_false() -> None:
    boxes = [[0, 0, 10, 10], [50, 50, 60, 60]]
    # the first, best detection lies on box 1
    predictions = [make_prediction([boxes[1], boxes[1], boxes[0]], [0.9, 0.8, 0.7], [0, 0, 0])]
    easy = score([make_record(boxes, [0, 0])], predictions, protocol="voc_area")
    assert easy.values["mAP50"] == pytest.approx(0.5 + 0.5 * 2 / 3)
    for flag in ("difficult", "crowd"):
        records = [make_record(boxes, [0, 0], **{flag: [False, True]})]
        result = score(records, predictions, protocol="voc_area")
        assert result.values["mAP50"] == 1.0, flag  # both detections of box 1 vanish
        expected = {"precision": 1.0, "recall": 1.0, "truths": 1, "ignored": 1, "detections": 3}
        assert {name: result.per_class["0"][name] for name in expected} == expected


def test_difficult_box_of_highest_overlap_is_not_passed_over() -> None:
    """A detection whose best box is difficult does not fall back on an easy box it overlaps well enough."""
    records = [make_record([[0, 0, 10, 10], [0, 0, 10, 8]], [0, 0], difficult=[True, False])]
    result = score(records, [make_prediction([[0, 0, 10, 10]], [0.9], [0])])
    assert result.values["mAP50"] == 0.0
    assert math.isnan(result.per_class["0"]["precision"])  # nothing counted


def test_taken_box_gives_false_and_no_second_choice() -> None:
    truth = [[0, 0, 10, 10], [0, 0, 10, 8]]
    # both detections overlap box 0 most (1.0, 0.9) and the second overlaps box 1 by 8/9: still false
    predictions = [make_prediction([[0, 0, 10, 10], [0, 0, 10, 9.2]], [0.9, 0.8], [0, 0])]
    result = score([make_record(truth, [0, 0])], predictions)
    assert result.per_class["0"]["precision"] == 0.5
    assert result.per_class["0"]["recall"] == 0.5
    assert result.values["mAP50"] == pytest.approx(6 / 11)


def test_first_of_equal_overlaps_is_matched() -> None:
    twice = [[0, 0, 10, 10], [0, 0, 10, 10]]
    predictions = [make_prediction([[0, 0, 10, 10]], [0.9], [0])]
    assert score([make_record(twice, [0, 0], difficult=[True, False])], predictions).per_class["0"]["recall"] == 0.0
    assert score([make_record(twice, [0, 0], difficult=[False, True])], predictions).per_class["0"]["recall"] == 1.0


def test_equal_scores_keep_the_order_image_then_detection() -> None:
    truth, nowhere = [0, 0, 10, 10], [50, 50, 60, 60]
    records = [make_record([truth], [0], image_id="a"), make_record([truth], [0], image_id="b")]
    right, wrong = make_prediction([truth], [0.5], [0]), make_prediction([nowhere], [0.5], [0])
    assert score(records, [right, wrong], protocol="voc_area").values["mAP50"] == 0.5
    assert score(records, [wrong, right], protocol="voc_area").values["mAP50"] == 0.25
    both = make_prediction([nowhere, truth], [0.5, 0.5], [0, 0])
    nothing = make_prediction([], [], [])
    assert score(records, [both, nothing], protocol="voc_area").values["mAP50"] == 0.25


def test_classes_and_images_are_kept_apart() -> None:
    records = [make_record([[0, 0, 10, 10]], [0], image_id="a"), make_record([[0, 0, 10, 10]], [1], image_id="b")]
    right_place_wrong_class = [make_prediction([[0, 0, 10, 10]], [0.9], [1]), make_prediction([], [], [])]
    assert score(records, right_place_wrong_class, num_classes=2).values["mAP50"] == 0.0
    right = [make_prediction([[0, 0, 10, 10]], [0.9], [k]) for k in (0, 1)]
    assert score(records, right, num_classes=2).values["mAP50"] == 1.0


def test_class_without_truth_is_left_out_of_the_mean() -> None:
    records = [make_record([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 2], difficult=[False, True])]
    predictions = [make_prediction([[0, 0, 10, 10], [0, 0, 9, 9]], [0.9, 0.8], [0, 1])]
    result = score(records, predictions, num_classes=3)
    assert result.values["mAP50"] == 1.0
    for name in ("1", "2"):  # no truth; only difficult truth
        assert all(math.isnan(result.per_class[name][column]) for column in ("ap", "precision", "recall"))
        assert result.per_class[name]["truths"] == 0
    assert result.per_class["1"]["detections"] == 1
    assert result.per_class["2"]["ignored"] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_found_and_nothing_to_find(protocol: str) -> None:
    truth, no_truth = make_record([[0, 0, 10, 10]], [0]), make_record([], [])
    some, none = make_prediction([[0, 0, 10, 10]], [0.9], [0]), make_prediction([], [], [])
    missed = score([truth], [none], protocol=protocol)
    assert missed.values["mAP50"] == 0.0
    assert missed.per_class["0"]["recall"] == 0.0
    assert math.isnan(missed.per_class["0"]["precision"])
    for records, predictions in (([no_truth], [some]), ([no_truth], [none]), ([], [])):
        assert math.isnan(score(records, predictions, protocol=protocol).values["mAP50"])


def test_precision_and_recall_at_a_score_that_float32_rounds_down() -> None:
    """0.9 as float32 is below 0.9 as float64; a detection of 0.9 still counts at 0.9."""
    predictions = [make_prediction([[0, 0, 10, 10], [30, 30, 40, 40]], [0.9, 0.89], [0, 0])]
    result = score([make_record([[0, 0, 10, 10]], [0])], predictions, score_for_precision_recall=0.9)
    assert result.per_class["0"]["recall"] == 1.0
    assert result.per_class["0"]["precision"] == 1.0


def test_boxes_without_area_match_nothing() -> None:
    records = [make_record([[5, 5, 5, 9], [20, 20, 30, 30]], [0, 0])]
    boxes = [[5, 5, 5, 9], [30, 30, 20, 20]]  # no width; corners swapped
    assert score(records, [make_prediction(boxes, [0.9, 0.8], [0, 0])]).values["mAP50"] == 0.0


# ---- invariances ----


@pytest.fixture(scope="module")
def crowded() -> tuple[list[Record], list[Prediction]]:
    """Forty images with truth, detections of distinct scores, difficult boxes."""
    generator = np.random.default_rng(5)
    records = []
    for image in range(40):
        count = int(generator.integers(0, 6))
        corner = generator.integers(0, 60, (count, 2))
        boxes = np.concatenate([corner, corner + generator.integers(8, 40, (count, 2))], axis=1)
        difficult = generator.random(count) < 0.2
        records.append(make_record(boxes, generator.integers(0, 3, count), image_id=image, difficult=difficult))
    return records, noisy_detections(records, generator, num_classes=3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_invariances(crowded: tuple[list[Record], list[Prediction]], protocol: str) -> None:
    records, predictions = crowded
    base = score(records, predictions, num_classes=3, protocol=protocol)
    assert 0.2 < base.values["mAP50"] < 0.95

    order = np.random.default_rng(1).permutation(len(records))
    moved = score([records[i] for i in order], [predictions[i] for i in order], num_classes=3, protocol=protocol)
    assert moved.values == pytest.approx(base.values, abs=1e-12)

    wider = score(records, predictions, num_classes=4, protocol=protocol)
    assert wider.values == base.values

    # a strictly increasing map of the scores changes no rank
    cubed = [Prediction(p.boxes, p.scores.double() ** 3, p.labels) for p in predictions]
    assert score(records, cubed, num_classes=3, protocol=protocol).values == base.values

    # detections of an image in another order, scores distinct
    flipped = [Prediction(p.boxes.flip(0), p.scores.flip(0), p.labels.flip(0)) for p in predictions]
    assert score(records, flipped, num_classes=3, protocol=protocol).values == base.values

    shifted_records = [
        make_record(r.boxes + 16, r.labels.tolist(), image_id=r.image_id, difficult=r.difficult) for r in records
    ]
    shifted = [Prediction(p.boxes.double() + 16, p.scores, p.labels) for p in predictions]
    assert score(shifted_records, shifted, num_classes=3, protocol=protocol).values == base.values


def test_pieces_of_pairs_give_the_same_figures(
    crowded: tuple[list[Record], list[Prediction]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs are compared in pieces to bound the memory: the size of a piece changes nothing."""
    records, predictions = crowded
    base = score(records, predictions, num_classes=3)
    for pairs in (1, 2, 7, 100):
        monkeypatch.setattr(voc_map, "_PAIRS_AT_ONCE", pairs)
        assert score(records, predictions, num_classes=3).per_class == base.per_class


def test_arrays_tensors_and_other_dtypes_are_alike(crowded: tuple[list[Record], list[Prediction]]) -> None:
    records, predictions = crowded
    base = score(records, predictions, num_classes=3)
    arrays = [(p.boxes.numpy(), p.scores.numpy(), p.labels.numpy().astype(np.int32)) for p in predictions]
    tensors = [(p.boxes.requires_grad_(), p.scores.double(), p.labels) for p in predictions]
    assert score(records, arrays, num_classes=3).per_class == base.per_class
    assert score(records, tensors, num_classes=3).per_class == base.per_class
    brain_floats = [(p.boxes.detach().bfloat16(), p.scores.bfloat16(), p.labels) for p in predictions]
    assert 0 < score(records, brain_floats, num_classes=3).values["mAP50"] < 1


# ---- mistakes ----


def test_unknown_options_are_all_named() -> None:
    with pytest.raises(UserError, match=r"did you mean 'voc07_11point'.*iou_threshold=50") as caught:
        VOCMeanAP(protocol="voc07_11points", iou_threshold=50)
    assert "voc_area" in str(caught.value)
