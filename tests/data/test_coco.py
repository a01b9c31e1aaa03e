"""COCO files: small ones by hand, broken ones, and the real one against its VOC twin and pycocotools."""

from __future__ import annotations

import copy
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from transfer.data.coco import COCODataset
from transfer.data.voc import VOCDataset
from transfer.types import DetectionDataset, UserError

CONTENT: dict[str, Any] = {
    "images": [
        {"id": 30, "file_name": "b.jpg", "width": 50, "height": 40},
        {"id": 7, "file_name": "a.jpg", "width": 50, "height": 40},
        {"id": 8, "file_name": "sub/c d.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 30, "category_id": 18, "bbox": [10, 5, 20, 10.5], "area": 99.5, "iscrowd": 0},
        {"id": 2, "image_id": 8, "category_id": 3, "bbox": [0, 0, 5, 6], "area": 30, "iscrowd": 1},
        {"id": 3, "image_id": 30, "category_id": 3, "bbox": [40, 30, 30, 30]},
        {"id": 4, "image_id": 30, "category_id": 3, "bbox": [40, 30, 0, 3]},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 90, "name": "zebra"}],
}


def write(tmp_path: Path, content: Any) -> tuple[Path, Path]:
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True, exist_ok=True)
    for name in ("a.jpg", "b.jpg", "sub/c d.jpg"):
        if not (images / name).exists():
            Image.new("RGB", (50, 40)).save(images / name)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path, images


def changed(**edits: Any) -> dict[str, Any]:
    """CONTENT with `part_position=dict` merged into entries, such as annotations_0=dict(bbox=...)."""
    content = copy.deepcopy(CONTENT)
    for key, edit in edits.items():
        part, position = key.split("_")
        content[part][int(position)].update(edit)
    return content


def test_a_file_by_hand(tmp_path: Path) -> None:
    dataset = COCODataset(*write(tmp_path, CONTENT))
    assert isinstance(dataset, DetectionDataset)
    assert dataset.class_names == ("car", "dog", "zebra")
    assert dataset.category_ids() == (3, 18, 90)
    assert [dataset.record(index).image_id for index in range(3)] == [30, 7, 8]
    first = dataset.record(0)
    assert first.boxes.tolist() == [[10, 5, 30, 15.5], [40, 30, 50, 40]]
    assert first.boxes.dtype == np.float32
    assert first.labels.tolist() == [1, 0]
    assert first.areas.tolist() == [99.5, 100]  # stated, and that of the clipped box
    assert dataset.record(1).boxes.shape == (0, 4)
    assert dataset.counts["without_area"] == 1
    crowd = dataset.record(2)
    assert (crowd.crowd.tolist(), crowd.difficult.tolist(), crowd.size) == ([True], [False], (40, 50))
    sample = dataset[2]
    assert sample.image.shape == (40, 50, 3)
    assert len(sample.boxes) == len(sample.labels) == len(sample.weights) == 0  # a crowd is no training target


def test_images_without_boxes_may_be_left_out(tmp_path: Path) -> None:
    dataset = COCODataset(*write(tmp_path, CONTENT), include_empty=False)
    assert [dataset.record(index).image_id for index in range(len(dataset))] == [30, 8]


def test_the_config_orders_the_classes_and_ids_follow(tmp_path: Path) -> None:
    path, images = write(tmp_path, CONTENT)
    dataset = COCODataset(path, images, class_names=["dog", "bike", "car"])
    assert dataset.category_ids()[0] == 18
    assert dataset.category_ids()[2] == 3
    assert len(set(dataset.category_ids())) == 3
    assert dataset.record(0).labels.tolist() == [0, 2]
    merged = COCODataset(path, images, rename={"dog": "animal", "zebra": "animal"})
    assert (merged.class_names, merged.category_ids()) == (("car", "animal"), (3, 18))
    dropped = COCODataset(path, images, rename={"car": None})
    assert (dropped.class_names, dropped.category_ids()) == (("dog", "zebra"), (18, 90))
    assert dropped.counts["renamed_to_none"] == 3


def test_an_unknown_class_is_named(tmp_path: Path) -> None:
    path, images = write(tmp_path, CONTENT)
    with pytest.raises(UserError, match=r"'car': 3 boxes.*image 30, b\.jpg.*nearest known name 'cars'"):
        COCODataset(path, images, class_names=["dog", "cars"])


@pytest.mark.parametrize(
    ("edits", "reason"),
    [
        ({"annotations_0": {"bbox": [1, 2, 3]}}, r"annotations\[0\]: bbox \[1, 2, 3\]"),
        ({"annotations_0": {"bbox": [1, 2, 3, float("nan")]}}, "finite"),
        ({"annotations_0": {"bbox": [1, 2, 3, "4"]}}, "finite"),
        ({"annotations_0": {"bbox": [1, 2, 3, 10**400]}}, "finite"),
        ({"annotations_0": {"bbox": {"x": 1}}}, "bbox"),
        ({"annotations_0": {"image_id": 31}}, "image_id 31 is not among the images"),
        ({"annotations_0": {"image_id": "30"}}, "image_id '30'"),
        ({"annotations_0": {"image_id": [30]}}, "image_id"),
        ({"annotations_0": {"category_id": 4}}, "category_id 4"),
        ({"annotations_0": {"category_id": None}}, "category_id None"),
        ({"annotations_1": {"id": 1}}, "id 1 is given twice"),
        ({"annotations_0": {"id": "x"}}, "id 'x'"),
        ({"annotations_0": {"area": -1}}, "area -1"),
        ({"annotations_0": {"iscrowd": "no"}}, "iscrowd 'no'"),
        ({"images_0": {"id": 7}}, "id 7 is given twice"),
        ({"images_0": {"id": True}}, "needs an integer 'id'"),
        ({"images_0": {"file_name": None}}, "file_name"),
        ({"images_0": {"file_name": "gone.jpg"}}, r"images\[0\]: 'gone\.jpg' is not in"),
        ({"images_0": {"file_name": "../images/b.jpg"}}, "leads out of"),
        ({"images_0": {"file_name": "/etc/passwd"}}, "leads out of"),
        ({"images_0": {"width": "50"}}, "whole numbers"),
        ({"images_0": {"height": -4}}, "whole numbers"),
        ({"images_0": {"height": 10**30}}, "whole numbers"),
        ({"categories_0": {"id": 3}}, r"categories\[1\]: id 3 is given twice"),
        ({"categories_0": {"name": "car"}}, "name 'car' is given twice"),
        ({"categories_0": {"name": 5}}, r"categories\[0\] needs"),
    ],
)
def test_a_faulty_entry_is_named(tmp_path: Path, edits: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        COCODataset(*write(tmp_path, changed(**edits)))
    assert "instances.json" in str(caught.value)


def test_all_faults_in_one_error_or_left_out(tmp_path: Path) -> None:
    content = changed(
        images_1={"file_name": "gone.jpg"}, annotations_0={"bbox": [1, 2, 3]}, annotations_3={"image_id": 9}
    )
    path, images = write(tmp_path, content)
    with pytest.raises(UserError) as caught:
        COCODataset(path, images)
    for expected in ("3 unusable", "gone.jpg", "annotations[0]", "annotations[3]", 'on_broken="skip"'):
        assert expected in str(caught.value)
    dataset = COCODataset(path, images, on_broken="skip")
    assert [dataset.record(index).image_id for index in range(len(dataset))] == [8]
    assert len(dataset.skipped) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "holds a list"),
        ("{}", "'images' is missing; 'annotations' is missing; 'categories' is missing"),
        ('{"images": {}, "annotations": [], "categories": []}', "'images' is a dict, not a list"),
        ('{"images": [], "categories": []}', "'annotations' is missing.*test images"),
        ('{"images": [], "annotations": [], "categories": []}', "no usable image"),
        ('{"images": [1], "annotations": [null], "categories": []}', "2 unusable"),
    ],
)
def test_what_is_no_coco_file(tmp_path: Path, text: str, reason: str) -> None:
    path, images = write(tmp_path, {})
    path.write_text(text)
    with pytest.raises(UserError, match=reason):
        COCODataset(path, images)


def test_missing_paths(tmp_path: Path) -> None:
    path, images = write(tmp_path, CONTENT)
    with pytest.raises(UserError, match="No such file"):
        COCODataset(tmp_path / "absent.json", images)
    with pytest.raises(UserError, match=r"images is .*no such folder"):
        COCODataset(path, tmp_path / "absent")


def test_a_class_that_never_occurs_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    COCODataset(*write(tmp_path, CONTENT))
    assert "no object of 'zebra'" in caplog.text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@given(data=st.data())
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_value_anywhere_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = copy.deepcopy(CONTENT)
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from(sorted(content)))
        position = data.draw(st.integers(0, len(content[part]) - 1))
        if isinstance(content[part][position], dict) and content[part][position] and data.draw(st.booleans()):
            content[part][position][data.draw(st.sampled_from(sorted(content[part][position])))] = data.draw(VALUES)
        else:
            content[part][position] = data.draw(VALUES)
    path, images = write(tmp_path, content)
    try:
        dataset = COCODataset(path, images, on_broken=data.draw(st.sampled_from(["stop", "skip"])))
    except UserError:
        return
    for index in range(len(dataset)):
        record = dataset.record(index)
        assert np.isfinite(record.boxes).all()
        assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()
        height, width = record.size
        assert (record.boxes >= 0).all()
        assert (record.boxes <= [width, height, width, height]).all()


@pytest.mark.data
@pytest.mark.parametrize("split", ["trainval", "test"])
def test_the_same_photographs_in_both_formats(shared_data: Path, split: str) -> None:
    folder = shared_data / "voc_mini"
    coco = COCODataset(folder / f"annotations/instances_{split}.json", folder / "VOCdevkit/VOC2007/JPEGImages")
    voc = VOCDataset(folder, f"2007_{split}")
    other = {"airplane": "aeroplane", "motorcycle": "motorbike", "couch": "sofa", "tv": "tvmonitor"}
    other |= {"dining table": "diningtable", "potted plant": "pottedplant"}
    in_voc = {name: other.get(name, name) for name in coco.class_names if other.get(name, name) in voc.class_names}
    truth = {Path(coco.record(index).path).stem: coco.record(index) for index in range(len(coco))}
    assert len(coco) == len(voc) == len(truth)
    assert len(coco.class_names) == 80
    for index in range(len(voc)):
        record = voc.record(index)
        twin = truth[str(record.image_id)]
        assert twin.size == record.size
        assert twin.image_id == int(str(record.image_id))
        wanted = [in_voc.get(coco.class_names[label]) for label in twin.labels]
        assert Counter(filter(None, wanted)) == Counter(voc.class_names[label] for label in record.labels)
        # the files state whole pixels in one format and fractions in the other
        kept = np.array([name is not None for name in wanted], bool)
        difference = np.sort(twin.boxes[kept].sum(1)) - np.sort(record.boxes.sum(1))
        assert np.abs(difference).max(initial=0) <= 4


@pytest.mark.data
def test_boxes_and_ids_equal_pycocotools(shared_data: Path) -> None:
    from pycocotools.coco import COCO

    path = shared_data / "voc_mini/annotations/instances_test.json"
    dataset = COCODataset(path, shared_data / "voc_mini/VOCdevkit/VOC2007/JPEGImages")
    reference = COCO(str(path))
    for index in range(len(dataset)):
        record = dataset.record(index)
        entries = reference.loadAnns(reference.getAnnIds(imgIds=record.image_id))
        stated = np.array([entry["bbox"] for entry in entries]).reshape(-1, 4)
        np.testing.assert_allclose(record.boxes[:, :2], stated[:, :2], atol=1e-4)
        np.testing.assert_allclose(record.boxes[:, 2:] - record.boxes[:, :2], stated[:, 2:], atol=1e-3)
        ids = [dataset.category_ids()[label] for label in record.labels]
        assert ids == [entry["category_id"] for entry in entries]
        np.testing.assert_allclose(record.areas, [entry["area"] for entry in entries], rtol=1e-6)
