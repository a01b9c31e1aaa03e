"""Conversions of small sets written by hand: what arrives, what is said to be lost, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from small_sets import COCO, FULL_XML, truth_of, write_coco, write_image, write_voc, write_yolo, xml

from transfer.convert import convert as module
from transfer.convert.convert import convert
from transfer.data.coco import COCODataset
from transfer.data.voc import VOCDataset
from transfer.data.yolo import YOLODataset
from transfer.types import UserError


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two splits and their union; a full annotation, a plain one, a negative, and one that no list names."""
    texts = {"a": FULL_XML, "b": xml([("dog", (2, 3, 9, 9))]), "n": xml([]), "unlisted": xml([("cow", (2, 3, 9, 9))])}
    return write_voc(tmp_path / "voc", {"train": ["a", "n"], "val": ["b"], "trainval": ["a", "b", "n"]}, texts)


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def told(lines: list[str], *parts: str) -> None:
    text = "\n".join(lines)
    assert not [part for part in parts if part not in text], text


def test_voc_to_coco(voc: Path, tmp_path: Path) -> None:
    lines = convert(voc, tmp_path / "coco", to="coco")
    content = load(tmp_path / "coco/annotations/instances_train.json")
    assert [category["name"] for category in content["categories"]] == ["black & white cat", "dog"]
    full = next(image for image in content["images"] if image["file_name"] == "a.png")
    assert (full["width"], full["height"]) == (50, 40)
    dog, cat, click = (entry for entry in content["annotations"] if entry["image_id"] == full["id"])
    assert dog["bbox"] == [10, 4, 10, 26]  # 1-based and inclusive: 11..20 are ten pixels
    assert cat["bbox"] == [0, 0, 50, 40]
    assert click["bbox"] == [6, 8, 0, 0]  # not one pixel: it is a click without a drag
    assert (dog["area"], dog["iscrowd"]) == (260, 0)
    assert [dog[key] for key in ("difficult", "ignore", "truncated", "occluded", "pose")] == [1, 1, 1, 1, "Left"]
    assert [cat[key] for key in ("difficult", "ignore", "truncated", "pose")] == [0, 0, 0, "Unspecified"]
    assert "occluded" not in cat
    assert "difficult" not in click
    assert set(truth_of(VOCDataset(voc, "trainval"))) == {"a", "b", "n"}
    dataset = COCODataset(tmp_path / "coco/annotations/instances_trainval.json", tmp_path / "coco/images")
    assert truth_of(dataset) == truth_of(VOCDataset(voc, "trainval"))
    told(lines, "<part> of 1 boxes", "<owner> of 1, <segmented> of 1, <source> of 1 images", "COCO has no place")
    told(lines, "1 XML files", "in no split list", 'difficult flags of 1 box: kept as "difficult" and "ignore"')
    assert (tmp_path / "coco/conversion.txt").read_text() == "\n".join(lines) + "\n"


def test_voc_to_voc_keeps_every_element(voc: Path, tmp_path: Path) -> None:
    lines = convert(voc, tmp_path / "out", to="voc")
    told(lines, "nothing is lost")
    for stem in ("a", "b", "n"):

        def flat(path: Path) -> list[tuple[str, str]]:
            root = ElementTree.parse(path).getroot()
            return [(e.tag, (e.text or "").strip()) for e in root.iter() if e.tag != "filename"]

        assert flat(tmp_path / f"out/Annotations/{stem}.xml") == flat(voc / f"Annotations/{stem}.xml")
    for split in ("train", "val", "trainval"):
        name = f"ImageSets/Main/{split}.txt"
        assert sorted((tmp_path / "out" / name).read_text().split()) == sorted((voc / name).read_text().split())
        assert truth_of(VOCDataset(tmp_path / "out", split)) == truth_of(VOCDataset(voc, split))


def test_voc_to_yolo(voc: Path, tmp_path: Path) -> None:
    lines = convert(voc, tmp_path / "yolo", to="yolo")
    assert (tmp_path / "yolo/labels/train/a.txt").read_text() == (
        "1 0.3 0.425 0.2 0.65\n0 0.5 0.5 1 1\n1 0.12 0.2 0 0\n"  # centre (10 + 20) / 2 of 50, (4 + 30) / 2 of 40
    )
    assert (tmp_path / "yolo/labels/train/n.txt").read_text() == ""
    told(lines, "difficult flags of 1 box:", "truncated flags of 1 box:", "occluded flags of 1", "poses of 1")
    for split in ("train", "val", "trainval"):
        ours = truth_of(YOLODataset(tmp_path / "yolo", split), flags=False)
        assert ours == truth_of(VOCDataset(voc, split), flags=False)


def test_the_way_round_returns_the_same_boxes(voc: Path, tmp_path: Path) -> None:
    steps = [voc, tmp_path / "coco", tmp_path / "yolo", tmp_path / "back"]
    for source, output in zip(steps, steps[1:]):
        convert(source, output, to="voc" if output.name == "back" else output.name)  # type: ignore[arg-type]

    def boxes(path: Path) -> list[tuple[str, ...]]:
        root = ElementTree.parse(path).getroot()
        tags = ("name", "bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")
        return [tuple(str(item.findtext(tag)) for tag in tags) for item in root.findall("object")]

    for stem in ("a", "b", "n"):
        assert boxes(tmp_path / f"back/Annotations/{stem}.xml") == boxes(voc / f"Annotations/{stem}.xml")
    for split in ("train", "val", "trainval"):
        lists = [(folder / f"ImageSets/Main/{split}.txt").read_text().split() for folder in (voc, tmp_path / "back")]
        assert sorted(lists[0]) == sorted(lists[1])


def test_voc_and_coco_keep_the_flags_both_ways(voc: Path, tmp_path: Path) -> None:
    convert(voc, tmp_path / "coco", to="coco")
    convert(tmp_path / "coco", tmp_path / "back", to="voc")
    dog, cat, click = ElementTree.parse(tmp_path / "back/Annotations/a.xml").getroot().findall("object")
    for tag, expected in (("difficult", "1"), ("truncated", "1"), ("occluded", "1"), ("pose", "Left")):
        assert dog.findtext(tag) == expected
    assert cat.findtext("name") == "black & white cat"
    assert cat.find("occluded") is None
    assert [corner.text for corner in click.find("bndbox") or ()] == ["7", "9", "7", "9"]
    for split in ("train", "val"):
        assert truth_of(VOCDataset(tmp_path / "back", split)) == truth_of(VOCDataset(voc, split))


def test_coco_to_coco_keeps_every_key(tmp_path: Path) -> None:
    lines = convert(write_coco(tmp_path / "coco", {"train": COCO}), tmp_path / "out", to="coco")
    told(lines, "nothing is lost")
    assert load(tmp_path / "out/annotations/instances_train.json") == COCO
    assert (tmp_path / "out/images/deep/a é.png").is_file()


def test_coco_to_voc_and_back(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "coco", {"train": COCO})
    lines = convert(source, tmp_path / "voc", to="voc")
    told(lines, "crowd flags of 1 box: written as difficult", "segmentations of 2 boxes: VOC has no place for them")
    told(lines, "'score_of_annotator' of 1 boxes", "'license' of 1 images", "'keypoints' of 1 classes", "'info' of 1")
    told(lines, "deep/a é.png -> a é.png")
    dataset = VOCDataset(tmp_path / "voc", "train")
    assert truth_of(dataset) == {
        "b": {("dog", 10.25, 5, 30.25, 15.5, False, False): 1, ("car", 0, 0, 5, 6, True, False): 1},
        "a é": {("car", 40, 30, 50, 40, True, False): 1},
    }
    text = (tmp_path / "voc/Annotations/b.xml").read_text()
    assert "<xmin>11.25</xmin>" in text  # decimals where they are needed only
    assert "<ymin>6</ymin>" in text
    convert(tmp_path / "voc", tmp_path / "back", to="coco")
    content = load(tmp_path / "back/annotations/instances_train.json")
    keys = ("id", "name", "supercategory")
    assert content["categories"] == [{key: entry[key] for key in keys} for entry in COCO["categories"]]
    assert {image["id"]: image["file_name"] for image in content["images"]} == {30: "b.png", 7: "a é.png"}
    keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    expected = [{key: entry[key] for key in keys} for entry in COCO["annotations"]]
    assert [{key: entry[key] for key in keys} for entry in content["annotations"]] == expected
    assert content["annotations"][2]["difficult"] == 1
    assert content["annotations"][1].get("difficult", 0) == 0  # the crowd's was only lent


def test_coco_to_yolo_orders_classes_by_id_and_leaves_crowds_out(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "coco", {"train": COCO})
    lines = convert(source, tmp_path / "yolo", to="yolo")
    dataset = YOLODataset(tmp_path / "yolo", "train")
    assert dataset.class_names == ("car", "dog", "zebra")
    assert (
        dataset.class_names == COCODataset(source / "annotations/instances_train.json", source / "images").class_names
    )
    assert truth_of(dataset, flags=False) == {
        "b": {("dog", 10.25, 5, 30.25, 15.5): 1},
        "a é": {("car", 40, 30, 50, 40): 1},
    }
    told(lines, "crowd flags of 1 box: left out", "segmentations of 2 boxes", "ids of 2 images and 3 boxes")
    told(lines, "ids of 3 classes", "super-categories of 3 classes", "stated areas of 2 boxes")


def test_the_json_is_what_pycocotools_expects(voc: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO as Reference

    convert(voc, tmp_path / "coco", to="coco")
    reference = Reference(str(tmp_path / "coco/annotations/instances_trainval.json"))
    assert len(reference.getImgIds()) == 3
    (dog,) = reference.getCatIds(catNms=["dog"])
    (image,) = [entry for entry in reference.loadImgs(reference.getImgIds()) if entry["file_name"] == "b.png"]
    (entry,) = reference.loadAnns(reference.getAnnIds(imgIds=image["id"]))
    assert (entry["category_id"], entry["bbox"], entry["area"]) == (dog, [1, 2, 8, 7], 56)
    assert len(set(reference.getAnnIds())) == 4


def test_yolo_to_the_others(tmp_path: Path) -> None:
    yaml = "train: images/train\nval: images/val\nnames: {0: dog, 4: 'a & b'}\n"
    source = write_yolo(tmp_path / "y", yaml, {"train/1": "4 0.5 0.5 0.2 0.1\r\n", "val/1": "0 0.5 0.5 1 1\n"})
    write_image(source / "images/train/negative.png")
    lines = convert(source, tmp_path / "coco", to="coco")
    content = load(tmp_path / "coco/annotations/instances_train.json")
    assert [category["name"] for category in content["categories"]] == ["dog", "a & b"]
    assert content["annotations"][0]["bbox"] == [20, 18, 10, 4]
    assert "difficult" not in content["annotations"][0]
    assert [image["file_name"] for image in content["images"]] == ["train/1.png", "negative.png"]
    told(lines, "train: 1.png -> train/1.png", "val: 1.png -> val/1.png", "renamed_files.tsv", "nothing is lost")
    assert len((tmp_path / "coco/renamed_files.tsv").read_text().splitlines()) == 2
    convert(source, tmp_path / "voc", to="voc")
    assert truth_of(VOCDataset(tmp_path / "voc", ["train", "val"])) == {
        "train_1": {("a & b", 20, 18, 30, 22, False, False): 1},
        "val_1": {("dog", 0, 0, 50, 40, False, False): 1},
        "negative": {},
    }


def test_polygons_go_where_there_is_room(tmp_path: Path) -> None:
    polygon = "0 0.4 0.5 0.6 0.45 0.5 0.55\n"
    source = write_yolo(tmp_path / "y", "train: images/train\nnames: [dog]\n", {"train/a": polygon})
    convert(source, tmp_path / "coco", to="coco")
    (entry,) = load(tmp_path / "coco/annotations/instances_train.json")["annotations"]
    assert entry["segmentation"] == [[20, 20, 30, 18, 25, 22]]
    assert entry["bbox"] == [20, 18, 10, 4]
    assert entry["area"] == 15  # of the triangle: |10 * 2 - 5 * (-2)| / 2
    convert(tmp_path / "coco", tmp_path / "back", to="yolo")
    assert (tmp_path / "back/labels/train/a.txt").read_text() == polygon
    told(convert(source, tmp_path / "voc", to="voc"), "segmentations of 1 box: VOC has no place")


def test_a_turned_photograph_keeps_its_box_on_the_object(tmp_path: Path) -> None:
    """VOC's truth on the stored pixels; YOLO counts on the displayed ones."""
    from PIL import Image

    root = write_voc(tmp_path / "voc", {"train": ["a"]}, {"a": xml([("mark", (1, 1, 10, 6))])})
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[:6, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(root / "JPEGImages/a.png", exif=exif)
    for target, dataset_class in (("yolo", YOLODataset), ("voc", VOCDataset)):
        convert(root, tmp_path / target / "out", to=target)  # type: ignore[arg-type]
        sample = dataset_class(tmp_path / target / "out", "train")[0]
        x0, y0, x1, y1 = sample.boxes[0].round().astype(int)
        assert (sample.image[y0:y1, x0:x1] == 255).all()
        assert (x1 - x0) * (y1 - y0) == (sample.image[..., 0] > 0).sum() == 60


def test_boxes_beyond_the_image_are_clipped_for_yolo_only(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc", {"train": ["a"]}, {"a": xml([("dog", (0, 1, 51, 40))])})
    told(convert(root, tmp_path / "yolo", to="yolo"), "the parts of 1 boxes beyond their image: clipped")
    assert (tmp_path / "yolo/labels/train/a.txt").read_text() == "0 0.5 0.5 1 1\n"
    told(convert(root, tmp_path / "coco", to="coco"), "nothing is lost")
    assert load(tmp_path / "coco/annotations/instances_train.json")["annotations"][0]["bbox"] == [-1, 0, 52, 40]


def test_swapped_corners_are_not_handed_on(tmp_path: Path) -> None:
    text = xml([("dog", (20, 5, 10, 9)), ("dog", (1, 1, 9, 9))])
    root = write_voc(tmp_path / "voc", {"train": ["a"]}, {"a": text})
    for target in ("coco", "yolo"):
        told(convert(root, tmp_path / target, to=target), "swapped corners in 1 box: left out")  # type: ignore[arg-type]
    assert len(load(tmp_path / "coco/annotations/instances_train.json")["annotations"]) == 1
    assert len((tmp_path / "yolo/labels/train/a.txt").read_text().splitlines()) == 1
    convert(root, tmp_path / "out", to="voc")
    assert (tmp_path / "out/Annotations/a.xml").read_text().count("<xmin>20</xmin>") == 1


def test_a_pixel_wide_box_is_said_to_look_like_a_click_in_voc(tmp_path: Path) -> None:
    content = {**COCO, "annotations": [{"id": 1, "image_id": 30, "category_id": 3, "bbox": [4, 4, 1, 9]}]}
    lines = convert(write_coco(tmp_path / "coco", {"train": content}), tmp_path / "voc", to="voc")
    told(lines, "sides of a pixel or less of 1 box: in VOC's corners they look like a click")


def test_renamed_and_dropped_classes(voc: Path, tmp_path: Path) -> None:
    rename = {"black & white cat": "animal", "dog": "animal"}
    convert(voc, tmp_path / "coco", to="coco", rename=rename)
    content = load(tmp_path / "coco/annotations/instances_trainval.json")
    assert [category["name"] for category in content["categories"]] == ["animal"]
    assert len(content["annotations"]) == 4
    convert(voc, tmp_path / "out", to="voc", rename={"dog": None})
    assert VOCDataset(tmp_path / "out", "trainval").class_names == ("black & white cat",)
    with pytest.raises(UserError, match=r"--rename dgo: no such class \(nearest: 'dog'\)"):
        convert(voc, tmp_path / "no", to="voc", rename={"dgo": "dog"})


def test_a_class_merged_into_another_takes_its_id(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "coco", {"train": COCO})
    convert(source, tmp_path / "out", to="coco", rename={"dog": "zebra"})
    content = load(tmp_path / "out/annotations/instances_train.json")
    assert [(entry["id"], entry["name"]) for entry in content["categories"]] == [(90, "zebra"), (3, "car")]
    assert content["annotations"][0]["category_id"] == 90


def test_classes_that_categories_json_does_not_know(tmp_path: Path) -> None:
    """An image was added to a VOC folder that came from COCO."""
    convert(write_coco(tmp_path / "coco", {"train": COCO}), tmp_path / "voc", to="voc")
    write_voc(tmp_path / "voc", {"more": ["new"]}, {"new": xml([("ant", (1, 1, 9, 9))])})
    convert(tmp_path / "voc", tmp_path / "back", to="coco")
    categories = load(tmp_path / "back/annotations/instances_more.json")["categories"]
    assert [(entry["id"], entry["name"]) for entry in categories] == [
        (18, "dog"),
        (3, "car"),
        (90, "zebra"),
        (1, "ant"),
    ]
    (tmp_path / "voc/categories.json").write_text('{"mine": 1}')
    lines = convert(tmp_path / "voc", tmp_path / "again", to="coco")
    told(lines, "categories.json: is no list of COCO's categories and passed over")


def test_several_json_files_with_ids_of_their_own(tmp_path: Path) -> None:
    """Each file counts from 1, as many tools write them: ids clash, and the images are others."""
    content = {
        "images": [{"id": 1, "file_name": "x.png", "width": 50, "height": 40}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "dog"}],
    }
    other = json.loads(json.dumps(content).replace("x.png", "y.png"))
    write_image(tmp_path / "coco/images/y.png", colour=9)
    source = write_coco(tmp_path / "coco", {"train": content, "val": other})
    told(convert(source, tmp_path / "kept", to="coco"), "nothing is lost")
    assert load(tmp_path / "kept/annotations/instances_val.json") == other
    lines = convert(source, tmp_path / "out", to="coco", shares={"all": 1.0})
    told(lines, "ids of images and boxes: some stand for several, so all get new ones")
    written = load(tmp_path / "out/annotations/instances_all.json")
    assert [image["id"] for image in written["images"]] == [1, 2]
    assert [(entry["id"], entry["image_id"]) for entry in written["annotations"]] == [(1, 1), (2, 2)]
    other["categories"] = [{"id": 1, "name": "cat"}]
    write_coco(source, {"val": other})
    lines = convert(source, tmp_path / "again", to="coco")
    told(lines, "the files disagree on category ids")
    names = [category["name"] for category in load(tmp_path / "again/annotations/instances_val.json")["categories"]]
    assert names == ["dog", "cat"]


def test_the_same_image_in_two_files_must_have_the_same_boxes(tmp_path: Path) -> None:
    changed = json.loads(json.dumps(COCO))
    source = write_coco(tmp_path / "coco", {"train": COCO, "trainval": changed})
    convert(source, tmp_path / "out", to="voc")
    assert len(list((tmp_path / "out/JPEGImages").iterdir())) == 2
    changed["annotations"][0]["bbox"][0] = 11
    write_coco(source, {"trainval": changed})
    with pytest.raises(UserError, match=r"image 30, b\.png.*has other boxes than in .*instances_train\.json"):
        convert(source, tmp_path / "no", to="voc")


def test_layouts_with_a_folder_for_each_split(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_image(tmp_path / "xml" / split / f"{split}.jpg")
        (tmp_path / "xml" / split / f"{split}.xml").write_text(xml([("dog", (1, 1, 9, 9))], size=None))
        content = {**COCO, "images": COCO["images"][:1], "annotations": COCO["annotations"][:1]}
        write_image(tmp_path / "json" / split / "b.png", colour=len(split))
        (tmp_path / "json" / split / "_annotations.coco.json").write_text(json.dumps(content))
    convert(tmp_path / "xml", tmp_path / "a", to="yolo")
    assert [len(YOLODataset(tmp_path / "a", split)) for split in ("train", "valid")] == [1, 1]
    lines = convert(tmp_path / "json", tmp_path / "b", to="voc")
    assert sorted(path.name for path in (tmp_path / "b/JPEGImages").iterdir()) == ["train_b.png", "valid_b.png"]
    told(lines, "is COCO, by train/_annotations.coco.json")


def test_a_source_without_splits_is_all_train(tmp_path: Path) -> None:
    write_image(tmp_path / "d/a.jpg")
    (tmp_path / "d/a.xml").write_text(xml([("dog", (1, 1, 9, 9))], size=(0, 0)))
    lines = convert(tmp_path / "d", tmp_path / "out", to="voc")
    told(lines, 'all of it is "train"', "it needs a split to train on and one to test on")
    assert "<width>50</width>" in (tmp_path / "out/Annotations/a.xml").read_text()


@pytest.mark.parametrize("mode", ["link", "copy", "none"])
def test_how_images_are_placed(voc: Path, tmp_path: Path, mode: str) -> None:
    lines = convert(voc, tmp_path / "out", to="yolo", images=mode)
    image = tmp_path / "out/images/train/a.png"
    assert (image.exists(), image.is_symlink()) == (mode != "none", mode == "link")
    if mode != "none":
        assert image.read_bytes() == (voc / "JPEGImages/a.png").read_bytes()
    else:
        told(lines, "put them under these names", str(image))


def test_links_do_not_chain(voc: Path, tmp_path: Path) -> None:
    convert(voc, tmp_path / "one", to="coco")
    convert(tmp_path / "one", tmp_path / "two", to="yolo")
    link = tmp_path / "two/images/train/a.png"
    assert link.readlink() == voc / "JPEGImages/a.png"


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, OSError])
def test_nothing_appears_before_it_is_complete(
    voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: type[BaseException]
) -> None:
    here = tmp_path / "here"
    here.mkdir()

    def stop(*arguments: object) -> None:
        assert [name for name in left(here) if name.startswith(".out.partial-")]
        raise stopped

    monkeypatch.setattr(module, "_place_images", stop)
    with pytest.raises(stopped):
        convert(voc, here / "out", to="voc")
    assert left(here) == []


def test_what_is_refused_before_anything_is_read(voc: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError) as caught:
        convert(voc, tmp_path / "out", to="voc", shares={"a": 0.5, "b/c": 0.4}, folds=1, keep=["a"])
    for part in ("exists already", "exclude each other", "--folds 1: at least 2", "'b/c'", "add up to 0.9", "--keep"):
        assert part in str(caught.value)
    assert left(tmp_path / "out") == []
    for arguments, reason in (
        ({"only": ["tarin"]}, r"--only tarin: no such split \(nearest: 'train'\)"),
        ({"folds": 2, "keep": ["tset"]}, "--keep tset: no such split"),
        ({"keep": ["val"]}, "--keep goes with --split or --folds"),
        ({"folds": 9}, "3 images cannot be shared out to 9 parts"),
        ({"image_root": voc}, "--image-root goes with COCO"),
        ({"source_format": "coco"}, "no COCO instance files"),
    ):
        with pytest.raises(UserError, match=reason):
            convert(voc, tmp_path / "no", to="voc", **arguments)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"no such folder or file; nearest: .*voc'"):
        convert(voc.with_name("vok"), tmp_path / "no", to="voc")
    with pytest.raises(UserError, match="no data set found"):
        convert(tmp_path / "out", tmp_path / "no", to="voc")
    write_coco(voc, {"train": COCO})
    with pytest.raises(UserError, match=r"has signs of VOC .* and COCO .* --from voc or --from coco"):
        convert(voc, tmp_path / "no", to="voc")
    assert left(tmp_path) == ["out", "voc"]


def test_all_faults_in_one_error_or_left_out(voc: Path, tmp_path: Path) -> None:
    texts = {f"x{number}": xml([("dog", (1, 1, 9, 9))]) for number in range(4)}
    write_voc(voc, {"train": ["a", *texts, "gone"]}, texts)
    (voc / "JPEGImages/x0.png").write_bytes(b"no image")
    (voc / "JPEGImages/x1.png").unlink()
    (voc / "Annotations/x2.xml").write_text("<annotation>")
    (voc / "Annotations/x3.xml").write_text(xml([("dog", (1, 1, 9, 9))], size=(99, 99)))
    with pytest.raises(UserError) as caught:
        convert(voc, tmp_path / "out", to="yolo")
    for part in (
        "5 unusable",
        "x0.png: is no image",
        "x1.xml: ",
        "x2.xml: is not well-formed",
        "'gone'",
        "--on-broken",
    ):
        assert part in str(caught.value)
    assert "x3.png: is 50x40 but its annotation says 99x99" in str(caught.value)
    lines = convert(voc, tmp_path / "out", to="yolo", on_broken="skip")
    told(lines, "5 left out", "x0.png")
    assert set(truth_of(YOLODataset(tmp_path / "out", "train"))) == {"a"}


def test_faulty_lines_and_entries_are_named(tmp_path: Path) -> None:
    labels = {"train/a": "0 0.5 0.5 1 1\n", "train/b": "5 0.5 0.5 1 1\n0 2 2 1 1\n"}
    yolo = write_yolo(tmp_path / "y", "train: images/train\nnames: [dog]\n", labels)
    with pytest.raises(UserError, match=r"2 unusable") as caught:
        convert(yolo, tmp_path / "out", to="voc")
    assert "b.txt:1: class is '5'" in str(caught.value)
    assert "b.txt:2: coordinate '2'" in str(caught.value)
    told(convert(yolo, tmp_path / "out", to="voc", on_broken="skip"), "2 left out")
    broken = json.loads(json.dumps(COCO))
    broken["annotations"][0]["category_id"] = 17
    coco = write_coco(tmp_path / "c", {"train": broken, "val": broken})
    with pytest.raises(UserError, match="category_id 17") as caught:
        convert(coco, tmp_path / "no", to="voc")
    assert str(caught.value).count("category_id 17") == 2
    told(convert(coco, tmp_path / "skipped", to="yolo", on_broken="skip"), "left out")
    assert set(truth_of(YOLODataset(tmp_path / "skipped", "train"))) == {"a é"}


def test_names_that_a_format_cannot_hold(tmp_path: Path) -> None:
    source = write_yolo(tmp_path / "y", 'train: images/train\nnames: ["a\\u0007b"]\n', {"train/a": "0 0.5 0.5 1 1"})
    with pytest.raises(UserError, match="VOC's XML cannot hold this name"):
        convert(source, tmp_path / "voc", to="voc")
    assert left(tmp_path) == ["y"]
    odd = write_yolo(
        tmp_path / "z", 'train: images/train\nnames: ["<no>", "null", "7"]\n', {"train/a": "0 0.5 0.5 1 1"}
    )
    convert(odd, tmp_path / "voc", to="voc")
    assert VOCDataset(tmp_path / "voc", "train").class_names == ("<no>",)
    convert(odd, tmp_path / "yolo", to="yolo")
    assert YOLODataset(tmp_path / "yolo", "train").class_names == ("<no>", "null", "7")
