"""Whole-pixel boxes come back from every format as they were: 10,000 random ones, on odd sizes up to 8000 pixels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from transfer.convert.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet, Category
from transfer.convert.read_voc import read_voc
from transfer.convert.write_coco import write_coco
from transfer.convert.write_voc import voc_corners, write_voc
from transfer.convert.write_yolo import write_yolo
from transfer.data.yolo_labels import parse_labels


@pytest.fixture(scope="module")
def boxes() -> list[tuple[tuple[int, int], np.ndarray]]:
    """(height, width) and [100, 4] whole-pixel corners, a hundred times."""
    rng = np.random.default_rng(0)
    sets = []
    for _ in range(100):
        height, width = (int(side) for side in 2 * rng.integers(1, 4000, 2) + 1)
        x, y = np.sort(rng.integers(0, width + 1, (100, 2))), np.sort(rng.integers(0, height + 1, (100, 2)))
        sets.append(((height, width), np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1).astype(np.float64)))
    return sets


def annotated(boxes: list[tuple[tuple[int, int], np.ndarray]]) -> AnnotatedSet:
    images = [
        AnnotatedImage(
            path=f"{number}.jpg",
            name=f"{number}.jpg",
            group="",
            where="",
            size=size,
            orientation=1,
            depth=3,
            objects=[AnnotatedObject("thing", tuple(row)) for row in rows.tolist()],
            splits=["train"],
        )
        for number, (size, rows) in enumerate(boxes)
    ]
    return AnnotatedSet("random", "voc", images, [Category("thing")], ["train"])


def names(dataset: AnnotatedSet) -> list[str]:
    return [image.name for image in dataset.images]


def yolo_corners(folder: Path, number: int, size: tuple[int, int]) -> Iterator[tuple[float, float, float, float]]:
    objects, problems = parse_labels((folder / f"labels/train/{number}.txt").read_bytes(), {0: "thing"})
    assert not problems
    return (item.corners(size) for item in objects)


def test_through_coco_and_yolo_to_voc(boxes: list[tuple[tuple[int, int], np.ndarray]], tmp_path: Path) -> None:
    for step in ("coco", "yolo"):
        (tmp_path / step).mkdir()
    dataset = annotated(boxes)
    write_coco(dataset, names(dataset), tmp_path / "coco")
    content = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    per_image: dict[int, list[list[float]]] = {}
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        per_image.setdefault(entry["image_id"], []).append([x, y, x + width, y + height])
    for image, (size, rows) in zip(content["images"], boxes):
        assert (image["height"], image["width"]) == size
        assert per_image[image["id"]] == rows.tolist()
    again = annotated([(size, np.array(per_image[image["id"]])) for image, (size, _) in zip(content["images"], boxes)])
    write_yolo(again, names(again), tmp_path / "yolo")
    for number, (size, rows) in enumerate(boxes):
        found = np.array(list(yolo_corners(tmp_path / "yolo", number, size)))
        assert np.abs(found - rows).max() < 1e-7
        np.testing.assert_array_equal(found.astype(np.float32), rows)  # as YOLODataset serves them
        for corners, (x0, y0, x1, y1) in zip(found, rows.astype(int)):
            expected = [x0 + 1, y0 + 1, x1 + (x1 == x0), y1 + (y1 == y0)]
            assert voc_corners(tuple(corners)) == [str(value) for value in expected]


def test_hundredths_of_a_pixel_come_back_too(tmp_path: Path) -> None:
    """COCO states two decimals."""
    rng = np.random.default_rng(1)
    size = (7999, 6001)
    rows = np.round(np.sort(rng.uniform(0, 6000, (300, 2, 2)), axis=1).reshape(-1, 4), 2)
    dataset = annotated([(size, rows)])
    write_yolo(dataset, names(dataset), tmp_path)
    for corners, row in zip(yolo_corners(tmp_path, 0, size), rows):
        expected = [row[0] + 1, row[1] + 1, row[2], row[3]]
        assert [float(text) for text in voc_corners(corners)] == [round(value, 2) for value in expected]


def test_decimals_only_where_a_box_has_them() -> None:
    assert voc_corners((4.0, 6.0, 10.0, 12.0)) == ["5", "7", "10", "12"]
    assert voc_corners((4.0009, 5.9991, 10.25, 12.002)) == ["5", "7", "10.25", "12.002"]
    assert voc_corners((4.0, 6.0, 4.0, 12.0)) == ["5", "7", "5", "12"]  # no width: equal corners
    assert voc_corners((-1.0, 0.0, 3.0, 3.0)) == ["0", "1", "3", "3"]


def test_the_writer_and_the_reader_agree_on_corners(tmp_path: Path) -> None:
    from small_sets import write_image

    rows = np.array([[0, 0, 50, 40], [3, 4, 9, 11], [2.5, 3.25, 7, 8], [5, 6, 5, 6]], float)
    dataset = annotated([((40, 50), rows)])
    dataset.images[0].name = "a.png"
    write_voc(dataset, ["a.png"], tmp_path)
    write_image(tmp_path / "JPEGImages/a.png")
    (image,) = read_voc(tmp_path).images
    assert [list(item.corners) for item in image.objects] == rows.tolist()
