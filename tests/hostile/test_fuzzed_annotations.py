"""Annotations with anything changed are read or refused in this project's words; what is read can be trained on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import ByteEdits, TreeEdits, changed_bytes, changed_tree, check_boxes, check_names, fuzz, read_or_refused
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from transfer.convert.convert import convert
from transfer.data.coco import COCODataset
from transfer.data.coco_segmentation import COCOSegmentation
from transfer.data.image_list import ImageListDataset
from transfer.data.imagenet import ImageNetDataset
from transfer.data.mask_classes import read_class_file
from transfer.data.voc import VOCDataset, XMLFolderDataset
from transfer.data.yolo import YOLODataset
from transfer.types import IGNORED_PIXEL

WIDTH, HEIGHT = 50, 40
OnBroken = st.sampled_from(("stop", "skip"))

XML = (
    "<annotation><filename>a.jpg</filename><size><width>50</width><height>40</height><depth>3</depth></size>"
    "<object><name>cat</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult><bndbox><xmin>3</xmin>"
    "<ymin>4</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object><object><name>dog</name><difficult>1</difficult>"
    "<bndbox><xmin>10</xmin><ymin>4</ymin><xmax>50.5</xmax><ymax>30</ymax></bndbox></object></annotation>"
)
PIECES = ("<xmin>", "</bndbox>", "<name>", "cat", ">3<", ">20<", ">50<", ">0<", "a.jpg", "<object>", "50.5")
REPLACEMENTS = (
    *("", "<a>", "</a>", "<name/>", "nan", "<xmin>-inf</xmin>", ">1e999<", f">{'9' * 5000}<", "&#133;\u2028", ">-7<"),
    *("<!DOCTYPE a>", "<![CDATA[", "&lol;", "<a>" * 60, "../../etc/passwd", "&#27;", ">0x10<"),
)
COCO: dict[str, Any] = {
    "info": {"description": "two images", "year": 2020},
    "images": [
        {"id": 30, "file_name": "a.jpg", "width": 50, "height": 40},
        {"id": 7, "file_name": "b.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 30, "category_id": 18, "bbox": [10, 5, 20, 10.5], "area": 99.5, "iscrowd": 0,
         "segmentation": [[10, 5, 30, 5, 30, 15]]},
        {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 5, 6], "iscrowd": 1,
         "segmentation": {"size": [40, 50], "counts": [100, 50, 1850]}},
        {"id": 3, "image_id": 7, "category_id": 3, "bbox": [40, 30, 30, 30], "segmentation": [[1, 1, 9, 1, 9, 9]]},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car", "supercategory": "thing"}],
}  # fmt: skip
YAML: dict[str, Any] = {"path": "", "train": "images", "val": ["images"], "nc": 2, "names": {0: "cat", 1: "dog"}}
LABELS = "0 0.5 0.5 0.2 0.1\n1 0.1 0.1 0.2 0.2\n1 0.2 0.2 0.4 0.2 0.4 0.6\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images under every name that the annotations here may have; each test writes its annotations beside them."""
    root = tmp_path_factory.mktemp("fuzzed")
    for part in ("images", "labels", "ImageSets/Main", "Annotations", "JPEGImages", "xml", "val"):
        (root / part).mkdir(parents=True)
    for name in ("images/a.jpg", "images/b.jpg", "JPEGImages/a.jpg", "JPEGImages/b.jpg", "xml/a.jpg"):
        Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 30)).save(root / name)
    for number in (1, 2):
        Image.new("RGB", (8, 8)).save(root / f"val/ILSVRC2012_val_{number:08d}.JPEG", "JPEG")
    for stem in "ab":
        (root / f"Annotations/{stem}.xml").write_text(XML)
    (root / "LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n")
    return root


@given(edits=ByteEdits, on_broken=OnBroken)
@fuzz(15)
def test_xml_bytes(folder: Path, edits: list[Any], on_broken: str) -> None:
    (folder / "xml/a.xml").write_bytes(changed_bytes(XML.encode(), edits))
    read_or_refused(lambda: check_boxes(XMLFolderDataset(folder / "xml", on_broken=on_broken)))


@given(edits=st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(REPLACEMENTS)), min_size=1, max_size=3))
@fuzz(15)
def test_xml_pieces(folder: Path, edits: list[tuple[str, str]]) -> None:
    text = XML
    for old, new in edits:
        text = text.replace(old, new, 1)
    (folder / "xml/a.xml").write_text(text, encoding="utf-8")
    read_or_refused(lambda: check_boxes(XMLFolderDataset(folder / "xml")))


@given(edits=ByteEdits, on_broken=OnBroken)
@fuzz(10)
def test_split_lists(folder: Path, edits: list[Any], on_broken: str) -> None:
    (folder / "ImageSets/Main/train.txt").write_bytes(changed_bytes(b"a\nb 1\n", edits))
    dataset = read_or_refused(lambda: check_boxes(VOCDataset(folder, "train", on_broken=on_broken)))
    if dataset is not None:
        assert {os.path.dirname(dataset.record(index).path) for index in range(len(dataset))} == {
            str(folder / "JPEGImages")
        }


@given(edits=TreeEdits, on_broken=OnBroken)
@fuzz(35)
def test_coco_values(folder: Path, edits: list[Any], on_broken: str) -> None:
    _read_coco(folder, json.dumps(changed_tree(COCO, edits)).encode(), on_broken)


@given(edits=ByteEdits, on_broken=OnBroken)
@fuzz(10)
def test_coco_bytes(folder: Path, edits: list[Any], on_broken: str) -> None:
    _read_coco(folder, changed_bytes(json.dumps(COCO).encode(), edits), on_broken)


def _read_coco(folder: Path, content: bytes, on_broken: str) -> None:
    path, images = folder / "instances.json", folder / "images"
    path.write_bytes(content)
    dataset = read_or_refused(lambda: check_boxes(COCODataset(path, images, on_broken=on_broken)))
    if dataset is not None:
        assert all(Path(dataset.record(index).path).parent == images for index in range(len(dataset)))
        assert np.array(dataset.category_ids(), np.int64).shape == (len(dataset.class_names),)
        assert all(abs(int(dataset.record(index).image_id)) < 2**63 for index in range(len(dataset)))
    read_or_refused(lambda: _check_masks(COCOSegmentation(path, images, on_broken=on_broken)))


def _check_masks(dataset: COCOSegmentation) -> None:
    check_names(dataset.class_names)
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample.mask is not None
        assert sample.mask.shape == sample.image.shape[:2]
        assert set(np.unique(sample.mask).tolist()) <= {*range(len(dataset.class_names)), IGNORED_PIXEL}


@given(edits=ByteEdits, on_broken=OnBroken)
@fuzz(12)
def test_yolo_labels(folder: Path, edits: list[Any], on_broken: str) -> None:
    (folder / "data.yaml").write_text(json.dumps(YAML))
    (folder / "labels/a.txt").write_bytes(changed_bytes(LABELS.encode(), edits))
    read_or_refused(lambda: check_boxes(YOLODataset(folder, "train", on_broken=on_broken)))


@given(edits=TreeEdits)
@fuzz(20)
def test_yolo_yaml_values(folder: Path, edits: list[Any]) -> None:
    import yaml

    (folder / "labels/a.txt").write_text(LABELS)
    text = yaml.safe_dump(changed_tree(YAML, edits), allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8", errors="backslashreplace")
    read_or_refused(lambda: check_boxes(YOLODataset(folder / "data.yaml", "train")))


@given(edits=ByteEdits)
@fuzz(12)
def test_yolo_yaml_and_list_bytes(folder: Path, edits: list[Any]) -> None:
    (folder / "labels/a.txt").write_text(LABELS)
    (folder / "data.yaml").write_bytes(changed_bytes(b"path: .\ntrain: list.txt\nnames: [cat, dog]\n", edits))
    (folder / "list.txt").write_bytes(changed_bytes(b"./images/a.jpg\nimages/../images/b.jpg\n", edits[::-1]))
    read_or_refused(lambda: check_boxes(YOLODataset(folder / "data.yaml", "train", on_broken="skip")))


@given(edits=ByteEdits, on_broken=OnBroken)
@fuzz(15)
def test_lists_of_classes(folder: Path, edits: list[Any], on_broken: str) -> None:
    (folder / "list.txt").write_bytes(changed_bytes(b"images/a.jpg 0\nimages/b.jpg 1\n", edits))
    (folder / "names.txt").write_bytes(changed_bytes(b"cat 0\ndog 1\n", edits[::-1]))
    (folder / "val.txt").write_bytes(changed_bytes(b"ILSVRC2012_val_00000001.JPEG 1\nILSVRC2012_val_00000002 0", edits))
    (folder / "colours.txt").write_bytes(changed_bytes(b"sky:128,0,0::\nroad 1 2 3\n", edits))
    for read in (
        lambda: ImageListDataset(folder, "list.txt", categories="names.txt", on_broken=on_broken),
        lambda: ImageListDataset(folder, "list.txt", on_broken=on_broken),
        lambda: ImageNetDataset(folder, "val", truth_file="val.txt", on_broken=on_broken),
    ):
        dataset: Any = read_or_refused(read)
        for index in range(len(dataset) if dataset is not None else 0):
            assert dataset.labels()[index] in range(len(dataset.class_names))
            assert Path(os.path.normpath(dataset.record(index).path)).is_relative_to(folder)
            read_or_refused(lambda dataset=dataset, index=index: dataset[index])
    read_or_refused(lambda: read_class_file(folder / "colours.txt"))


@given(edits=TreeEdits, source=st.sampled_from(("coco", "voc", "yolo")), to=st.sampled_from(("coco", "voc", "yolo")))
@fuzz(16)
def test_conversions(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, edits: list[Any], source: str, to: str
) -> None:
    here = tmp_path_factory.mktemp("converted")
    output = here / "output"
    if source == "coco":
        path = folder / "instances.json"
        path.write_text(json.dumps(changed_tree(COCO, edits)))
    elif source == "voc":
        path = folder / "xml"
        texts = [str(value) for _, _, value in edits]
        text = XML.replace("cat", texts[0].replace("<", "&lt;"), 1).replace("Left", texts[-1].replace("&", ""), 1)
        (path / "a.xml").write_text(text, encoding="utf-8", errors="backslashreplace")
    else:
        path = folder / "data.yaml"
        (folder / "labels/a.txt").write_text(LABELS)
        path.write_text(json.dumps(changed_tree(YAML, edits)))
    root = folder / "images" if source == "coco" else None
    told = read_or_refused(
        lambda: convert(path, output, to=to, source_format=source, image_root=root, images="copy", on_broken="skip")  # type: ignore[arg-type]
    )
    assert [each.name for each in here.iterdir()] == (["output"] if told is not None else [])
    assert "\n".join(told or []).encode("utf-8") is not None
