"""Small data sets written by hand in each format, and what a data set class reads, in an order-independent form."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from transfer.types import DetectionDataset

Truth = dict[str, Counter[tuple[Any, ...]]]

FULL_XML = """<annotation>
  <folder>VOC2007</folder><filename>a.png</filename>
  <source><database>The &amp; Database</database><annotation>PASCAL</annotation></source>
  <owner><name>?</name></owner>
  <size><width>50</width><height>40</height><depth>3</depth></size>
  <segmented>1</segmented>
  <object>
    <name>dog</name><pose>Left</pose><truncated>1</truncated><occluded>1</occluded><difficult>1</difficult>
    <bndbox><xmin>11</xmin><ymin>5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
  </object>
  <object>
    <name>black &amp; white cat</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>
    <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>50</xmax><ymax>40</ymax></bndbox>
  </object>
  <object>
    <name>dog</name>
    <bndbox><xmin>7</xmin><ymin>9</ymin><xmax>7</xmax><ymax>9</ymax></bndbox>
  </object>
</annotation>"""


def write_image(path: Path, *, width: int = 50, height: int = 40, colour: int = 0, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    Image.new("RGB", (width, height), (colour % 256, colour // 256, 7)).save(path, exif=exif)


def xml(objects: Sequence[tuple[str, Sequence[float]]], size: tuple[int, int] | None = (40, 50)) -> str:
    stated = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>" if size else ""
    return (
        f"<annotation>{stated}"
        + "".join(
            f"<object><name>{name}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>"
            f"<ymax>{box[3]}</ymax></bndbox></object>"
            for name, box in objects
        )
        + "</annotation>"
    )


def write_voc(root: Path, splits: Mapping[str, Sequence[str]], texts: Mapping[str, str]) -> Path:
    """A flat folder: split -> stems, stem -> XML; images of one colour each."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for number, (stem, text) in enumerate(texts.items()):
        write_image(root / "JPEGImages" / f"{stem}.png", colour=number)
        (root / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")
    for split, stems in splits.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems), "utf-8")
    return root


COCO: dict[str, Any] = {
    "info": {"year": 2026, "contributor": "by hand"},
    "licenses": [{"id": 4, "name": "CC BY"}],
    "images": [
        {"id": 30, "file_name": "b.png", "width": 50, "height": 40, "license": 4},
        {"id": 7, "file_name": "deep/a é.png", "width": 50, "height": 40},
    ],
    "annotations": [
        {
            "id": 5,
            "image_id": 30,
            "category_id": 18,
            "bbox": [10.25, 5, 20, 10.5],
            "area": 99.5,
            "iscrowd": 0,
            "segmentation": [[10.25, 5, 30.25, 5, 30.25, 15.5], [10.25, 5, 11, 6, 10.25, 6]],
            "score_of_annotator": 0.75,
        },
        {
            "id": 2,
            "image_id": 30,
            "category_id": 3,
            "bbox": [0, 0, 5, 6],
            "area": 30,
            "iscrowd": 1,
            "segmentation": {"counts": [0, 6, 1994], "size": [40, 50]},
        },
        {"id": 9, "image_id": 7, "category_id": 3, "bbox": [40, 30, 10, 10], "area": 100, "iscrowd": 0, "difficult": 1},
    ],
    "categories": [
        {"id": 18, "name": "dog", "supercategory": "animal"},
        {"id": 3, "name": "car", "supercategory": "vehicle"},
        {"id": 90, "name": "zebra", "supercategory": "animal", "keypoints": ["nose"]},
    ],
}
"""Ids with gaps, categories out of order, one without boxes, polygons, a run-length code and keys of nobody's."""


def write_coco(root: Path, contents: Mapping[str, Any]) -> Path:
    """annotations/instances_{split}.json and images/."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, content in contents.items():
        for entry in content["images"]:
            path = root / "images" / entry["file_name"]
            if not path.exists():
                write_image(path, colour=entry["id"])
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def write_yolo(root: Path, yaml: str, labels: Mapping[str, str]) -> Path:
    """data.yaml and, for each "split/stem", an image and its label file."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(yaml, encoding="utf-8")
    for number, (name, text) in enumerate(labels.items()):
        write_image(root / "images" / f"{name}.png", colour=number)
        path = root / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return root


def truth_of(dataset: DetectionDataset, *, flags: bool = True, digits: int = 3) -> Truth:
    """File stem -> its boxes with name and, where wanted, difficult and crowd flag; in no order."""
    truth: Truth = {}
    for index in range(len(dataset)):
        record = dataset.record(index)
        rows = zip(record.labels, np.round(record.boxes.astype(float), digits), record.difficult, record.crowd)
        truth[Path(record.path).stem] = Counter(
            (dataset.class_names[label], *box.tolist(), *((bool(difficult), bool(crowd)) if flags else ()))
            for label, box, difficult, crowd in rows
        )
    return truth
