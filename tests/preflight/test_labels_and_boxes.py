"""Rules on labels and box formats, on data written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from transfer.assemble import build_dataset
from transfer.data.sample_dataset import SampleDetection
from transfer.preflight.box_format import READINGS, check_boxes, fitting
from transfer.preflight.findings import Outcome
from transfer.preflight.labels import check_labels, check_mask_labels
from transfer.preflight.truth import Objects, stated_objects
from transfer.types import MaskRecord, Sample

NAMES = ("cat", "dog", "hen")


def objects(boxes: object = (), labels: object = (), *, size: tuple[int, int] = (200, 300), total: int = 4) -> Objects:
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    labels = np.asarray(labels, dtype=np.int64) if len(labels) else np.zeros(len(boxes), np.int64)  # type: ignore[arg-type]
    count = max(len(boxes), len(labels))
    if not len(boxes):
        boxes = np.tile([0.0, 0, 10, 10], (count, 1))
    return Objects(boxes, labels, np.tile(np.float64(size), (count, 1)), ["a.jpg"] * count, images=4, total=total)


def found(outcome: Outcome) -> list[tuple[str, str]]:
    return [(finding.severity, finding.code) for finding in outcome.findings]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, 2], []),
        ([1, 2, 3], [("error", "labels-off-by-one")]),
        ([0, 1, 2, 3], [("error", "label-out-of-range")]),  # 0 occurs: not off by one
        ([1, 2, 3, 4], [("error", "label-out-of-range")]),
        ([-1, 0, 1], [("error", "label-out-of-range")]),
        ([1, 2], [("warning", "class-without-objects")]),  # 0 absent, but so is K
        ([], [("error", "no-objects")]),
    ],
)
def test_labels(labels: list[int], expected: list[tuple[str, str]]) -> None:
    assert found(check_labels(objects(labels=labels), objects(), NAMES)) == expected


def test_absent_classes_are_no_warning_where_only_a_part_was_looked_at() -> None:
    outcome = check_labels(objects(labels=[0, 2], total=9999), objects(), NAMES)
    assert found(outcome) == [("note", "class-without-objects")]
    assert "1 class without an object: dog" in outcome.findings[0].message


def test_the_histogram_is_sorted_and_named() -> None:
    outcome = check_labels(objects(labels=[2, 0, 2, 2]), objects(), NAMES)
    assert outcome.facts["counts"] == {"hen": 3, "cat": 1}
    assert "hen 75%, cat 25%" in outcome.lines[0]


class Masks:
    """Two masks."""

    class_names = NAMES

    def __init__(self, *values: int) -> None:
        self.values = values

    def __len__(self) -> int:
        return 2

    def record(self, index: int) -> MaskRecord:
        return MaskRecord(f"{index}.jpg", index, (2, 4), None)

    def mask(self, index: int) -> np.ndarray:
        return np.resize(np.uint8(self.values), (2, 4))

    def __getitem__(self, index: int) -> Sample:
        raise AssertionError("masks are read without images")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 1, 2, 255), []),
        ((1, 2, 3, 255), [("error", "labels-off-by-one")]),
        ((0, 1, 2, 9), [("error", "label-out-of-range")]),
        ((255,), [("error", "no-objects")]),
        ((0, 1), [("warning", "class-without-objects")]),
    ],
)
def test_masks(values: tuple[int, ...], expected: list[tuple[str, str]]) -> None:
    outcome = check_mask_labels(Masks(*values))
    assert found(outcome) == expected
    assert outcome.facts["ignored_pixels"] == 16 * values.count(255) // len(values)


# Two boxes, of 30x20 and 100x50 pixels, in an image 200 high and 300 wide; the same in every other format
CORNERS = np.array([[20.0, 150, 50, 170], [180, 40, 280, 90]])
FORMATS = {
    "(left, top, width, height)": [[20, 150, 30, 20], [180, 40, 100, 50]],
    "(centre x, centre y, width, height)": [[35, 160, 30, 20], [230, 65, 100, 50]],
    "(top, left, bottom, right)": [[150, 20, 170, 50], [40, 180, 90, 280]],
    "(left, right, top, bottom)": [[20, 50, 150, 170], [180, 280, 40, 90]],
    "(right, bottom, left, top)": [[50, 170, 20, 150], [280, 90, 180, 40]],
}


def test_corners_fit() -> None:
    assert fitting(CORNERS, np.tile([200.0, 300.0], (2, 1))).all()
    assert found(check_boxes(objects(CORNERS), objects(CORNERS))) == []


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_named(name: str) -> None:
    given = np.array(FORMATS[name], dtype=np.float64)
    assert np.allclose(READINGS[name](given), CORNERS)
    outcome = check_boxes(objects(given), objects())
    assert found(outcome) == [("error", "box-format")]
    assert f"read as {name}, 100% do" in outcome.findings[0].message


def test_shares_of_the_image() -> None:
    outcome = check_boxes(objects(CORNERS / [300, 200, 300, 200]), objects())
    assert found(outcome) == [("error", "boxes-normalised")]
    assert "300x200 px" in outcome.findings[0].message


def test_boxes_of_a_larger_image() -> None:
    assert found(check_boxes(objects(CORNERS * 3), objects())) == [("error", "boxes-outside")]


def test_a_few_boxes_that_reach_out_are_a_warning() -> None:
    many = np.tile(CORNERS, (25, 1))
    many[7, 2] = 305
    outcome = check_boxes(objects(many), objects())
    assert found(outcome) == [("warning", "boxes-outside")]
    assert "1 of 50 boxes" in outcome.findings[0].message
    many[7, 2] = 301.5  # rounding
    assert found(check_boxes(objects(many), objects())) == []


def test_decoded_samples_are_asked_where_the_records_are_well() -> None:
    wrong = np.array(FORMATS["(left, top, width, height)"], dtype=np.float64)
    outcome = check_boxes(objects(CORNERS), objects(wrong))
    assert found(outcome) == [("error", "box-format")]
    assert "the decoded samples" in outcome.findings[0].message


def real_set(name: str, shared_data: Path) -> object:
    voc, folder = "transfer.data.voc.VOCDataset", "transfer.data.voc.XMLFolderDataset"
    nodes = {
        "bccd": {"type": voc, "root": str(shared_data / "bccd"), "splits": "trainval"},
        "fruit": {"type": folder, "root": str(shared_data / "fruit" / "train")},
        "voc_mini": {"type": voc, "root": str(shared_data / "voc_mini" / "VOCdevkit"), "splits": "2007_trainval"},
    }
    return SampleDetection("train") if name == "sample" else build_dataset(nodes[name], "data", None, None)


@pytest.mark.data
@pytest.mark.parametrize("name", ["bccd", "fruit", "voc_mini", "sample"])
def test_real_data_fit_and_are_recognised_in_every_other_format(name: str, shared_data: Path) -> None:
    stated = stated_objects(real_set(name, shared_data))  # type: ignore[arg-type]
    boxes = stated.boxes
    assert found(check_boxes(stated, objects())) == []
    sides = boxes[:, 2:] - boxes[:, :2]
    others = {
        "(left, top, width, height)": np.concatenate([boxes[:, :2], sides], axis=1),
        "(centre x, centre y, width, height)": np.concatenate([boxes[:, :2] + sides / 2, sides], axis=1),
        "(top, left, bottom, right)": boxes[:, [1, 0, 3, 2]],
    }
    if name == "sample":  # square images: swapped axes cannot be seen
        del others["(top, left, bottom, right)"]
    for reading, given in others.items():
        stated.boxes = given
        outcome = check_boxes(stated, objects())
        assert found(outcome) == [("error", "box-format")]
        assert f"read as {reading}, 100% do" in outcome.findings[0].message
