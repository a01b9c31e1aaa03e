"""The COCO results file: what other readers find in it, and that it appears whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from detection_builders import make_prediction, make_record, noisy_detections

from transfer.metrics.coco_map import COCOMeanAP
from transfer.metrics.detections import write_coco_detections
from transfer.types import Record, UserError


def average_precision_of_file(path: Path, records: list[Record], category_ids: list[int]) -> list[float]:
    """The twelve figures of pycocotools reading the file."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": record.image_id} for record in records],
            "categories": [{"id": category} for category in category_ids],
            "annotations": [],
        }
        for record in records:
            for (x1, y1, x2, y2), label, area in zip(record.boxes.tolist(), record.labels, record.areas.tolist()):
                truth.dataset["annotations"].append(
                    {
                        "id": len(truth.dataset["annotations"]) + 1,
                        "image_id": record.image_id,
                        "category_id": category_ids[label],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": area,
                        "iscrowd": 0,
                    }
                )
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(str(path)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def random_records(image_ids: list[int] | list[str]) -> list[Record]:
    generator = np.random.default_rng(6)
    records = []
    for image_id in image_ids:
        corner = generator.integers(0, 60, (4, 2))
        boxes = np.concatenate([corner, corner + generator.integers(8, 40, (4, 2))], axis=1)
        records.append(make_record(boxes, generator.integers(0, 2, 4), image_id=image_id))
    return records


@pytest.mark.parametrize("image_ids", [[9, 4, 139, 7, 21, 80], ["000009", "b", "a b", "007", "2008_000001", "0"]])
def test_pycocotools_reads_the_same_figures(tmp_path: Path, image_ids: list[int] | list[str]) -> None:
    records = random_records(image_ids)
    predictions = noisy_detections(records, np.random.default_rng(7), num_classes=2, extra=100)
    category_ids = [90, 3]
    path = tmp_path / "new" / "folder" / "detections.json"
    write_coco_detections(path, records, predictions, category_ids, max_detections=100)
    result = COCOMeanAP(backend="pycocotools").evaluate(records, predictions, ["x", "y"], category_ids)
    expected = [-1.0 if math.isnan(value) else value for value in result.values.values()]
    assert average_precision_of_file(path, records, category_ids) == pytest.approx(expected, abs=1e-4)
    assert 0.03 < result.values["AP"] < 0.95
    rows = json.loads(path.read_text())
    assert {row["image_id"] for row in rows} == set(image_ids)
    assert {row["category_id"] for row in rows} == set(category_ids)
    assert len(rows) == 600

    write_coco_detections(path, records, predictions, category_ids)
    assert len(json.loads(path.read_text())) == sum(len(prediction.labels) for prediction in predictions)


def test_one_row(tmp_path: Path) -> None:
    path = tmp_path / "detections.json"
    records = [make_record([], [], image_id=np.int64(12)), make_record([], [], image_id="012")]
    found = make_prediction([[1.00049, 2, 11.25, 22.5004]], [0.1], [1])
    write_coco_detections(path, records, [found, make_prediction([], [], [])], [5, 8])
    expected = {"image_id": 12, "category_id": 8, "bbox": [1.0, 2.0, 10.25, 20.5], "score": float(np.float32(0.1))}
    assert json.loads(path.read_text()) == [expected]
    write_coco_detections(path, records[1:], [found], [5, 8])
    assert json.loads(path.read_text())[0]["image_id"] == "012"
    write_coco_detections(path, records[1:], [make_prediction([], [], [])], [5, 8])
    assert json.loads(path.read_text()) == []


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "detections.json"
    records = [make_record([], [], image_id="a")]
    good = make_prediction([[0, 0, 1, 1]], [0.5], [0])
    write_coco_detections(path, records, [good], [1])
    before = path.read_text()
    with pytest.raises(ValueError, match="not finite: image 'a'"):
        write_coco_detections(path, records, [make_prediction([[0, 0, 1, 1]], [math.nan], [0])], [1])

    def full_disk(self: Path, text: str, **_: object) -> None:
        with self.open("w") as file:
            file.write(text[: len(text) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_coco_detections(path, records, [make_prediction([[0, 0, 2, 2]], [0.5], [0])], [1])
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["detections.json"]


def test_mistakes_are_named(tmp_path: Path) -> None:
    records = [make_record([], [], image_id=name) for name in ("twice", "once", "twice")]
    none = make_prediction([], [], [])
    with pytest.raises(UserError, match="is a folder") as caught:
        write_coco_detections(tmp_path, records, [none] * 3, [1])
    assert "more than once: 'twice'" in str(caught.value)
    with pytest.raises(ValueError, match="category ids must be distinct"):
        write_coco_detections(tmp_path / "x.json", records[:1], [none], [1, 1])
