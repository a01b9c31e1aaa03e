"""COCO's figures against pycocotools run on JSON files, and what this project adds to the protocol."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from detection_builders import make_prediction, make_record, noisy_detections

from transfer.metrics.coco_map import COCOMeanAP
from transfer.types import Prediction, Record, UserError

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
BACKENDS = [
    "pycocotools",
    pytest.param(
        "faster-coco-eval",
        marks=pytest.mark.skipif(importlib.util.find_spec("faster_coco_eval") is None, reason="not installed"),
    ),
]


def pycocotools_on_files(folder: Path, truth: dict, detections: list[dict]) -> tuple[list[float], dict[int, float]]:
    """pycocotools used as its readme says: the twelve figures, and AP by category id; -1 as NaN."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "detections.json").write_text(json.dumps(detections))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(folder / "detections.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    by_category = {}
    for position, category in enumerate(evaluation.params.catIds):
        values = evaluation.eval["precision"][:, :, position, 0, 2]
        by_category[category] = float(values[values > -1].mean()) if (values > -1).any() else math.nan
    return [math.nan if figure == -1 else float(figure) for figure in evaluation.stats], by_category


def as_results(records: list[Record], predictions: list[Prediction], category_ids: list[int]) -> list[dict]:
    """Predictions as COCO results, in full precision."""
    rows = []
    for record, prediction in zip(records, predictions):
        for (x1, y1, x2, y2), score, label in zip(
            prediction.boxes.double().tolist(), prediction.scores.tolist(), prediction.labels.tolist()
        ):
            box = [x1, y1, x2 - x1, y2 - y1]
            category = category_ids[label]
            rows.append({"image_id": record.image_id, "category_id": category, "bbox": box, "score": score})
    return rows


def records_of(truth: dict, category_ids: list[int]) -> list[Record]:
    """Records from a COCO file's content."""
    records = []
    for image in truth["images"]:
        mine = [ann for ann in truth["annotations"] if ann["image_id"] == image["id"]]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (ann["bbox"] for ann in mine)]
        record = make_record(
            boxes,
            [category_ids.index(ann["category_id"]) for ann in mine],
            image_id=image["id"],
            crowd=[bool(ann["iscrowd"]) for ann in mine],
            areas=[ann["area"] for ann in mine],
        )
        record.size = (image["height"], image["width"])
        records.append(record)
    return records


@pytest.fixture(scope="module")
def synthetic() -> tuple[dict, list[int]]:
    """Truth of all three sizes with crowds, unordered ids with gaps, images without truth, a category without truth."""
    generator = np.random.default_rng(3)
    category_ids = [44, 7, 90, 1]
    images, annotations = [], []
    for image_id in generator.permutation(np.arange(100, 130)).tolist():
        images.append({"id": image_id, "height": 480, "width": 640})
        for _ in range(int(generator.integers(0, 9))):
            width, height = (float(side) for side in 2 ** generator.uniform(3, 8, 2))
            box = [float(generator.uniform(0, 640 - width)), float(generator.uniform(0, 480 - height)), width, height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_ids[int(generator.integers(0, 3))],
                    # whole numbers, so that the records' float32 holds them exactly
                    "bbox": [float(round(side)) for side in box],
                    "area": float(round(0.7 * width * height)),  # of a mask, less than the box
                    "iscrowd": int(generator.random() < 0.1),
                }
            )
    categories = [{"id": category, "name": f"c{category}"} for category in category_ids]
    return {"images": images, "annotations": annotations, "categories": categories}, category_ids


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_pycocotools_on_files(synthetic: tuple[dict, list[int]], tmp_path: Path, backend: str) -> None:
    truth, category_ids = synthetic
    records = records_of(truth, category_ids)
    predictions = noisy_detections(records, np.random.default_rng(4), num_classes=4, extra=50)
    names = [f"c{category}" for category in category_ids]
    result = COCOMeanAP(backend=backend).evaluate(records, predictions, names, category_ids)
    figures, by_category = pycocotools_on_files(tmp_path, truth, as_results(records, predictions, category_ids))
    assert list(result.values) == list(NAMES)
    assert list(result.values.values()) == pytest.approx(figures, abs=1e-12)
    assert len(set(figures)) == 12  # no two figures could be exchanged unseen
    for category in category_ids:
        assert result.per_class[f"c{category}"]["ap"] == pytest.approx(by_category[category], abs=1e-12, nan_ok=True)
    assert math.isnan(result.per_class["c1"]["ap"])
    crowds = sum(ann["iscrowd"] for ann in truth["annotations"])
    assert crowds > 0
    assert sum(figures["ignored"] for figures in result.per_class.values()) == crowds
    assert sum(figures["truths"] for figures in result.per_class.values()) == len(truth["annotations"]) - crowds
    # ids and their order are names only
    other = COCOMeanAP(backend=backend).evaluate(records, predictions, names, [1, 2, 3, 4])
    assert other.values == result.values


@pytest.mark.data
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_pycocotools_on_real_truth(shared_data: Path, tmp_path: Path, backend: str) -> None:
    truth = json.loads((shared_data / "voc_mini" / "annotations" / "instances_test.json").read_text())
    category_ids = [category["id"] for category in truth["categories"]]
    names = [category["name"] for category in truth["categories"]]
    records = records_of(truth, category_ids)
    predictions = noisy_detections(records, np.random.default_rng(8), num_classes=len(names), extra=10)
    predictions = [Prediction(p.boxes[:100], p.scores[:100], p.labels[:100]) for p in predictions]
    result = COCOMeanAP(backend=backend).evaluate(records, predictions, names, category_ids)
    # the records hold float32 corners: give pycocotools the same numbers
    for record in records:
        mine = [ann for ann in truth["annotations"] if ann["image_id"] == record.image_id]
        for ann, (x1, y1, x2, y2), area in zip(mine, record.boxes.tolist(), record.areas.tolist()):
            ann["bbox"], ann["area"] = [x1, y1, x2 - x1, y2 - y1], area
    figures, _ = pycocotools_on_files(tmp_path, truth, as_results(records, predictions, category_ids))
    assert 0.1 < figures[0] < 0.95
    assert list(result.values.values()) == pytest.approx(figures, abs=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_box_at_iou_three_quarters(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    """True at 0.50, 0.55, ..., 0.75: six of ten thresholds. And nothing is printed."""
    records = [make_record([[0, 0, 40, 40]], [0])]
    predictions = [make_prediction([[0, 0, 40, 30]], [0.9], [0])]
    result = COCOMeanAP(backend=backend).evaluate(records, predictions, ["thing"], [1])
    expected = dict.fromkeys(NAMES, 0.6) | {"AP50": 1.0, "AP75": 1.0}
    expected |= dict.fromkeys(("APs", "ARs", "APl", "ARl"), math.nan)  # 1600 square pixels is medium
    assert result.values == pytest.approx(expected, nan_ok=True)
    assert result.per_class["thing"] == pytest.approx(
        {"ap": 0.6, "ap50": 1.0, "ar": 0.6, "truths": 1, "ignored": 0, "detections": 1}
    )
    assert result.main == "AP"
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_detection_of_a_box_is_false(backend: str) -> None:
    """Also for the very first detection, whose id must not be 0: the libraries read a match with 0 as no match."""
    truth = [[0, 0, 40, 40], [50, 50, 90, 90]]
    predictions = [make_prediction([truth[0], truth[0], truth[1]], [0.9, 0.8, 0.7], [0, 0, 0])]
    result = COCOMeanAP(backend=backend).evaluate([make_record(truth, [0, 0])], predictions, ["thing"], [1])
    assert result.values["AP"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_found_and_nothing_to_find(backend: str) -> None:
    metric = COCOMeanAP(backend=backend)
    truth, no_truth = make_record([[0, 0, 40, 40]], [0]), make_record([], [])
    some, none = make_prediction([[0, 0, 40, 40]], [0.9], [0]), make_prediction([], [], [])
    missed = metric.evaluate([truth, no_truth], [none, none], ["thing", "other"], [1, 2])
    assert missed.values["AP"] == 0.0
    assert missed.values["AR100"] == 0.0
    assert math.isnan(missed.values["APl"])
    assert missed.per_class["thing"]["ap"] == 0.0
    assert math.isnan(missed.per_class["other"]["ap"])
    ignored = make_record([[0, 0, 40, 40]], [0], difficult=[True])
    for records, predictions in (([no_truth], [some]), ([no_truth], [none]), ([], []), ([ignored], [some])):
        result = metric.evaluate(records, predictions, ["thing", "other"], [1, 2])
        assert list(result.values) == list(NAMES)
        assert all(math.isnan(value) for value in result.values.values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_images_keep_their_best_detections_only(backend: str) -> None:
    truth = [[0, 0, 40, 40], [50, 50, 90, 90]]
    records = [make_record(truth, [0, 1], image_id="a"), make_record(truth, [0, 1], image_id="b")]
    # image a: the second class's detection is third of its image; of equal scores the earlier stays
    boxes = [truth[0], [0, 50, 40, 90], truth[1]]
    predictions = [make_prediction(boxes, [0.9, 0.5, 0.5], [0, 1, 1]), make_prediction(truth, [0.2, 0.1], [0, 1])]
    full = COCOMeanAP(backend=backend).evaluate(records, predictions, ["x", "y"], [1, 2])
    assert full.per_class["y"]["ar"] == 1.0
    assert full.per_class["y"]["detections"] == 3
    cut = COCOMeanAP(backend=backend, max_detections=2).evaluate(records, predictions, ["x", "y"], [1, 2])
    assert cut.per_class["x"]["ar"] == 1.0
    assert cut.per_class["y"]["ar"] == 0.5
    assert cut.per_class["y"]["detections"] == 2
    assert [name for name in cut.values if name.startswith("AR")] == ["AR1", "AR2", "ARs", "ARm", "ARl"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_difficult_boxes_are_neither_right_nor_wrong(backend: str) -> None:
    truth = [[0, 0, 40, 40], [50, 50, 90, 90]]
    # the best detection covers the difficult box by 3/4; the second is a small part of it: an ordinary false one
    boxes = [[50, 50, 90, 80], [50, 50, 60, 60], truth[0]]
    predictions = [make_prediction(boxes, [0.9, 0.8, 0.7], [0, 0, 0])]
    metric = COCOMeanAP(backend=backend)
    counted = metric.evaluate([make_record(truth, [0, 0])], predictions, ["thing"], [1])
    assert counted.values["AP50"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    difficult = metric.evaluate([make_record(truth, [0, 0], difficult=[False, True])], predictions, ["thing"], [1])
    assert difficult.values["AP50"] == pytest.approx(0.5)  # one false before the only true
    assert difficult.values["APm"] != counted.values["APm"]
    # a crowd is matched by the share of the detection, so there the small part vanishes too
    crowd = metric.evaluate([make_record(truth, [0, 0], crowd=[False, True])], predictions, ["thing"], [1])
    assert crowd.values["AP50"] == pytest.approx(1.0)
    for result in (difficult, crowd):
        assert (result.per_class["thing"]["truths"], result.per_class["thing"]["ignored"]) == (1, 1)


def test_backend_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"did you mean 'faster-coco-eval'\?; max_detections=0"):
        COCOMeanAP(backend="faster_coco_eval", max_detections=0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "faster_coco_eval" else object())
    assert COCOMeanAP().backend == "pycocotools"
    with pytest.raises(UserError, match="pip install faster-coco-eval"):
        COCOMeanAP(backend="faster-coco-eval")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert COCOMeanAP().backend == "faster-coco-eval"


def test_nan_names_the_image() -> None:
    records = [make_record([[0, 0, 40, 40]], [0], image_id=17)]
    with pytest.raises(ValueError, match="predicted scores that are not finite: image 17"):
        COCOMeanAP().evaluate(records, [make_prediction([[0, 0, 9, 9]], [math.nan], [0])], ["thing"], [1])
