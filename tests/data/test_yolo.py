"""YOLO data sets: small ones by hand in the layouts people have, and faulty ones."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from transfer.data.yolo import YOLODataset
from transfer.data.yolo_layout import label_path, read_layout
from transfer.types import DetectionDataset, UserError

WIDTH, HEIGHT = 50, 40
YAML = "train: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"


def write(root: Path, *, yaml: str = YAML, file: str = "data.yaml", **labels: str | bytes | None) -> Path:
    """A data set with one image for each of `labels`, named SPLIT_STEM; None: no label file."""
    root.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(yaml, encoding="utf-8")
    for key, text in labels.items():
        split, stem = key.split("_")
        write_image(root / "images" / split / f"{stem}.png")
        if text is not None:
            write_labels(root / "labels" / split / f"{stem}.txt", text)
    return root


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 30)).save(path)


def write_labels(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def boxes_of(dataset: DetectionDataset) -> list[list[list[float]]]:
    return [np.round(dataset.record(index).boxes, 4).tolist() for index in range(len(dataset))]


DOG = "1 0.5 0.5 0.2 0.1\n"  # of 50 x 40: centre 25, 20; width 10, height 4
DOG_BOX = [20, 18, 30, 22]


def test_a_data_set_by_hand(tmp_path: Path) -> None:
    root = write(tmp_path / "d", train_b=DOG + "0 0.1 0.9 0.2 0.2\n", train_a="0 0.5 0.5 1 1", val_c="")
    dataset = YOLODataset(root, "train")
    assert isinstance(dataset, DetectionDataset)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.category_ids() == (1, 2)
    assert boxes_of(dataset) == [[[0, 0, 50, 40]], [DOG_BOX, [0, 32, 10, 40]]]
    record = dataset.record(1)
    assert (record.image_id, record.size, record.labels.tolist()) == ("b", (40, 50), [1, 0])
    assert (record.boxes.dtype, record.labels.dtype) == (np.float32, np.int64)
    assert not record.difficult.any()
    assert not record.crowd.any()
    np.testing.assert_allclose(record.areas, [40, 80], rtol=1e-5)
    sample = dataset[1]
    assert sample.image.shape == (40, 50, 3)
    assert len(YOLODataset(root, ["train", "val"])) == 3
    assert boxes_of(pickle.loads(pickle.dumps(dataset))) == boxes_of(dataset)


@pytest.mark.parametrize(
    "names",
    [
        "names: [cat, dog]",
        "names: {1: dog, 0: cat}",
        "nc: 2\nnames: ['cat', \"dog\"]",
        "names:\n  '0': cat\n  '1': dog",
    ],
)
def test_names_in_all_their_forms(tmp_path: Path, names: str) -> None:
    root = write(tmp_path, yaml=f"train: images/train\n{names}\n", train_a=DOG)
    dataset = YOLODataset(root, "train")
    assert dataset.class_names == ("cat", "dog")
    assert dataset.record(0).labels.tolist() == [1]


def test_names_that_are_numbers_or_missing(tmp_path: Path) -> None:
    root = write(tmp_path, yaml="train: images/train\nnames: [7, 8]\n", train_a=DOG)
    assert YOLODataset(root, "train").class_names == ("7", "8")
    write(tmp_path, yaml="train: images/train\nnc: 2\n")
    assert YOLODataset(root, "train").class_names == ("class_0", "class_1")
    write(tmp_path, yaml="train: images/train\nnames: {1: dog, 5: cow}\n")  # gaps
    dataset = YOLODataset(root, "train")
    assert (dataset.class_names, dataset.record(0).labels.tolist()) == (("dog", "cow"), [0])


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf1 0.5 0.5 0.2 0.1\r\n",
        b"1 0.5 0.5 0.2 0.1",
        b"\r\n  1\t0.5 0.5   0.2 0.1  \r\n\r\n   \n",
        b"1.0 5e-1 .5 +0.2 0.10\n",
        b"1 0.4 0.45 0.6 0.45 0.6 0.55 0.4 0.55\n",  # a polygon: the box around it
        b"1 0.4 0.5 0.6 0.45 0.5 0.55\n",
    ],
)
def test_one_box_however_it_is_written(tmp_path: Path, text: bytes) -> None:
    assert boxes_of(YOLODataset(write(tmp_path, train_a=text), "train")) == [[DOG_BOX]]


def test_images_without_labels_are_negatives_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    dataset = YOLODataset(write(tmp_path, train_a=DOG, train_b=None, train_c="", train_d=" \r\n"), "train")
    assert [len(boxes) for boxes in boxes_of(dataset)] == [1, 0, 0, 0]
    assert dataset.record(1).boxes.shape == (0, 4)
    assert "1 images without label file and 2 with an empty one are negatives" in caplog.text


def test_no_label_file_at_all_is_a_wrong_path(tmp_path: Path) -> None:
    root = write(tmp_path, train_a=None, train_b=None)
    write_labels(root / "label" / "train" / "a.txt", DOG)
    with pytest.raises(UserError, match="none of 2 images has a label file") as caught:
        YOLODataset(root, "train", on_broken="skip")
    assert str(root / "labels" / "train" / "a.txt") in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 0.5 0.5 0.2 0.1", "class is '2', but data.yaml names 2: 0 cat, 1 dog"),
        ("-1 0.5 0.5 0.2 0.1", "class is '-1'"),
        ("0.5 0.5 0.5 0.2 0.1", "class is '0.5'"),
        ("nan 0.5 0.5 0.2 0.1", "class is 'nan'"),
        ("dog 0.5 0.5 0.2 0.1", "'dog' is no number"),
        ("1 0.5,0.5 0.2 0.1", "'0.5,0.5' is no number"),
        ("1 25 20 10 4", "coordinate '25' is not in 0 to 1; write fractions"),
        ("1 0.5 nan 0.2 0.1", "coordinate 'nan'"),
        ("1 0.5 0.5 0.2 inf", "coordinate 'inf'"),
        ("1 0.5 0.5 0.2", "has 4 values; a line is: class cx cy w h"),
        ("1 0.5 0.5 0.2 0.1 0.99", "has 6 values"),
        ("1 0.5 0.5 0.2 0.1 0.3 0.4 0.5", "has 8 values"),
        ("1", "has 1 values"),
        ("1 0.5 0.5 -0.005 0.1", "width and height are -0.005 and 0.1: they cannot be negative"),
    ],
)
def test_a_faulty_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    root = write(tmp_path, train_a=DOG + "\n" + line, train_b=DOG)
    with pytest.raises(UserError) as caught:
        YOLODataset(root, "train")
    assert f"{root / 'labels' / 'train' / 'a.txt'}:3: {reason}" in str(caught.value)
    dataset = YOLODataset(root, "train", on_broken="skip")
    assert [dataset.record(index).image_id for index in range(len(dataset))] == ["b"]


def test_all_faults_in_one_error_or_left_out(tmp_path: Path) -> None:
    root = write(tmp_path, train_a="1 9 9 9 9\n7 0 0 0 0\n", train_b=DOG, train_c=b"\xff\xfe", train_d=DOG)
    (root / "images/train/d.png").write_bytes(b"no image")
    with pytest.raises(UserError) as caught:
        YOLODataset(root, "train")
    for expected in ("4 unusable", "a.txt:1:", "a.txt:2:", "c.txt:1: is not text", "d.png: is no image", "on_broken"):
        assert expected in str(caught.value)
    dataset = YOLODataset(root, "train", on_broken="skip")
    assert len(dataset) == 1
    assert len(dataset.skipped) == 4


def test_coordinates_a_little_outside_are_clipped(tmp_path: Path) -> None:
    root = write(tmp_path, train_a="0 0.9 0.5 0.21 1.005\n0 0.5 0.5 0 0.5\n")
    dataset = YOLODataset(root, "train")
    assert boxes_of(dataset) == [[[39.75, 0, 50, 40]]]
    assert dataset.counts["without_area"] == dataset.counts["clipped"] == 1


def test_names_can_be_ordered_and_mapped(tmp_path: Path) -> None:
    root = write(tmp_path, train_a=DOG + "0 0.5 0.5 1 1")
    assert YOLODataset(root, "train", class_names=["dog", "cat"]).record(0).labels.tolist() == [0, 1]
    dataset = YOLODataset(root, "train", rename={"cat": None, "dog": "hound"})
    assert (dataset.class_names, boxes_of(dataset)) == (("hound",), [[DOG_BOX]])
    with pytest.raises(UserError, match="nearest known name 'dogs'"):
        YOLODataset(root, "train", class_names=["cat", "dogs"])


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("/d/images/train/x.jpg", "/d/labels/train/x.txt"),
        ("/images/d/images/x.y.jpg", "/images/d/labels/x.y.txt"),  # the last folder of that name
        ("/d/train/images/deep/er/x.jpg", "/d/train/labels/deep/er/x.txt"),
        ("/d/my images/images.jpg", "/d/my images/images.txt"),
        ("images/x.jpg", "labels/x.txt"),
    ],
)
def test_where_a_label_file_is_looked_for(image: str, labels: str) -> None:
    assert label_path(image.replace("/", os.sep)) == labels.replace("/", os.sep)


def test_the_images_may_lie_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "photos", file="unused.txt", train_a=DOG)
    names = "train: images/train\nnames: [cat, dog]\n"
    root = tmp_path / "config"
    root.mkdir()
    for path in (str(tmp_path / "photos"), "../photos"):
        (root / "data.yaml").write_text(f"path: {path}\n{names}")
        assert boxes_of(YOLODataset(root, "train")) == [[DOG_BOX]]
        assert boxes_of(YOLODataset(root / "data.yaml", "train")) == [[DOG_BOX]]
    (tmp_path / "photos" / "data.yaml").write_text(f"path: /nowhere/photos\n{names}")
    assert boxes_of(YOLODataset(tmp_path / "photos", "train")) == [[DOG_BOX]]
    assert "/nowhere/photos' does not exist; taking the file's own folder" in caplog.text


def test_the_layout_of_exports_with_a_folder_for_each_split(tmp_path: Path) -> None:
    """train/images beside train/labels, and paths that begin with one ".." too many."""
    yaml = "train: ../train/images\nval: ../valid/images\nnames: [cat, dog]\nroboflow:\n  license: MIT\n"
    root = write(tmp_path / "export", yaml=yaml)
    for split in ("train", "valid"):
        write_image(root / split / "images" / f"{split}.jpg")
        write_labels(root / split / "labels" / f"{split}.txt", DOG)
    assert boxes_of(YOLODataset(root, ["train", "val"])) == [[DOG_BOX], [DOG_BOX]]
    assert len(YOLODataset(root, "valid")) == 1  # people mix the two words up
    assert set(read_layout(root).splits) == {"train", "val"}


def test_lists_of_images_and_several_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    yaml = "train: lists/train.txt\nval: [images/a, images/b]\nextra: lists/train.txt\ntest:\nnames: [cat, dog]\n"
    root = write(tmp_path, yaml=yaml, a_x=DOG, b_y=DOG, b_z=None)
    listed = f"./../images/b/y.png\r\n\n{root}/images/a/x.png  \nimages/b/y.png\nimages/a/x.png\n"
    write_labels(root / "lists/train.txt", b"\xef\xbb\xbf" + listed.encode())
    dataset = YOLODataset(root, "train")
    assert [dataset.record(index).image_id for index in range(2)] == ["y", "x"]
    assert "2 images are listed again" in caplog.text
    assert len(YOLODataset(root, "val")) == 3
    assert len(YOLODataset(root, "extra")) == len(dataset)
    write_labels(root / "lists/train.txt", "images/a/x.png\nimages/gone.png\nREADME.md\n")
    with pytest.raises(UserError, match=r"train\.txt:2: no image 'images/gone\.png'") as caught:
        YOLODataset(root, "train")
    assert "train.txt:3: 'README.md' is no image" in str(caught.value)
    assert len(YOLODataset(root, "train", on_broken="skip")) == 1
    write_labels(root / "lists/train.txt", "\n")
    with pytest.raises(UserError, match="names no images"):
        YOLODataset(root, "train")


def test_images_at_any_depth_and_linked_ones(tmp_path: Path) -> None:
    root = write(tmp_path / "d", train_a=DOG)
    write_image(root / "images/train/deep/er/b.JPG.png")
    write_labels(root / "labels/train/deep/er/b.JPG.txt", DOG)
    write_image(tmp_path / "elsewhere.png")
    (root / "images/train/c.png").symlink_to(tmp_path / "elsewhere.png")  # its labels are those of c
    write_labels(root / "labels/train/c.txt", DOG + DOG)
    (root / "images/train/loop").symlink_to(root / "images", target_is_directory=True)
    dataset = YOLODataset(root, "train")
    assert [dataset.record(index).image_id for index in range(3)] == ["a", "c", "b.JPG"]
    assert [len(boxes) for boxes in boxes_of(dataset)] == [1, 2, 1]


def test_accents_may_be_composed_otherwise(tmp_path: Path) -> None:
    """As macOS writes them into file names: e and an accent."""
    root = write(tmp_path, yaml="train: train.txt\nnames: [cat, dog]\n")
    write_image(root / "images/train/caf\u00e9.png")
    write_labels(root / "labels/train/cafe\u0301.txt", DOG)
    write_labels(root / "train.txt", "images/train/cafe\u0301.png\n")
    assert boxes_of(YOLODataset(root, "train")) == [[DOG_BOX]]


def test_ids_stay_unique(tmp_path: Path) -> None:
    root = write(tmp_path, train_a=DOG, val_a=DOG)
    dataset = YOLODataset(root, ["train", "val"])
    assert [dataset.record(index).image_id for index in range(2)] == ["images/train/a.png", "images/val/a.png"]


def test_a_turned_photograph_is_as_displayed(tmp_path: Path) -> None:
    root = write(tmp_path, train_a="0 0.75 0.25 0.5 0.5\n")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "images/train/a.png", exif=exif)
    sample = YOLODataset(root, "train")[0]
    assert sample.image.shape == (WIDTH, HEIGHT, 3)
    assert sample.boxes.tolist() == [[20, 0, 40, 25]]


def test_keypoints_after_the_box_are_passed_over(tmp_path: Path) -> None:
    yaml = "train: images/train\nnames: [cat, dog]\nkpt_shape: [2, 3]\n"
    root = write(tmp_path, yaml=yaml, train_a="1 0.5 0.5 0.2 0.1 0.4 0.4 2 0.6 0.6 0\n")
    assert boxes_of(YOLODataset(root, "train")) == [[DOG_BOX]]
    write_labels(root / "labels/train/a.txt", DOG)
    with pytest.raises(UserError, match="has 5 values; a line is: class cx cy w h and 6 numbers of keypoints"):
        YOLODataset(root, "train")


@pytest.mark.parametrize(
    ("yaml", "reasons"),
    [
        ("", ["is empty; it needs keys such as"]),
        ("- a\n", ["holds a list"]),
        ("names: [a\n", ["is not YAML", "line"]),
        ("train: images/train\n", ["names: None is not a list"]),
        ("train: images/train\nnames: [no, dog]\n", ["class 0 is False, not text: put the name in quotes"]),
        ("train: images/train\nnames: [a, a]\n", ["'a' stands for more than one class"]),
        ("train: images/train\nnames: {x: a}\n", ["'x' is no class index"]),
        ("train: images/train\nnc: 3\nnames: [a, b]\n", ["nc: is 3, but names has 2"]),
        ("train: 5\nnc: none\npath: [a]\n", ["train: 5 is not", "nc: 'none'", "path: ['a']", "names: None"]),
        ("names: [a, b]\n", ["has no train:, val: or test:"]),
        ("train: images/train\nnames: [a, b]\nkpt_shape: 17\n", ["kpt_shape: 17"]),
        ("train: images/train\nnames: [a, b]\nreleased: 2026-13-45\n", ["is not YAML"]),
        ("train: images/gone\nnames: [a, b]\n", ["no folder or list 'images/gone' (looked for", "Mend the path"]),
        ("val: images/train\nnames: [a, b]\n", ["split 'train' is not in the file", "Splits that exist: val"]),
        ("train:\nval: images/train\nnames: [a, b]\n", ["split 'train' has no value"]),
    ],
)
def test_a_faulty_yaml_is_named(tmp_path: Path, yaml: str, reasons: list[str]) -> None:
    root = write(tmp_path, yaml=yaml, train_a=DOG)
    with pytest.raises(UserError) as caught:
        YOLODataset(root, "train")
    for reason in (str(root / "data.yaml"), *reasons):
        assert reason in str(caught.value)


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    root = write(tmp_path / "d", yaml=f"{YAML}x: !!python/object/apply:os.mkdir ['{trap}']\n", train_a=DOG)
    with pytest.raises(UserError, match="is not YAML"):
        YOLODataset(root, "train")
    assert not trap.exists()


def test_another_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(UserError, match=r"has no data.yaml; its Annotations say VOC: take configs/voc_folder"):
        read_layout(tmp_path)


def test_which_file_is_the_data_sets(tmp_path: Path) -> None:
    root = write(tmp_path / "d", file="pets.yaml", train_a=DOG)
    assert len(YOLODataset(root, "train")) == 1
    (root / "other.yml").write_text(YAML)
    with pytest.raises(UserError, match=r"has no data\.yaml but other\.yml, pets\.yaml: name one"):
        YOLODataset(root, "train")
    assert len(YOLODataset(root / "pets.yaml", "train")) == 1
    write_labels(tmp_path / "bare" / "classes.txt", "cat\ndog\n")
    with pytest.raises(UserError, match=r"has no data\.yaml\. Write one .*classes\.txt has the names"):
        YOLODataset(tmp_path / "bare", "train")
    with pytest.raises(UserError, match="no such folder"):
        YOLODataset(tmp_path / "absent", "train")
    with pytest.raises(UserError, match="nearest: 'train'"):
        YOLODataset(root / "pets.yaml", "trian")
    with pytest.raises(UserError, match="splits is empty"):
        YOLODataset(root / "pets.yaml", [])
    (root / "images/void").mkdir()
    (root / "pets.yaml").write_text(YAML.replace("images/val", "images/void"))
    with pytest.raises(UserError, match="no images in this folder of split 'val'"):
        YOLODataset(root / "pets.yaml", "val")


WORDS = st.one_of(
    st.integers(-3, 9).map(str), st.floats(-0.02, 1.02).map(str), st.floats().map(str), st.text(max_size=4)
)


@given(lines=st.lists(st.lists(WORDS, max_size=9), max_size=4), tail=st.binary(max_size=6))
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_text_is_read_or_refused(tmp_path: Path, lines: list[list[str]], tail: bytes) -> None:
    root = write(tmp_path, train_a="\n".join(" ".join(line) for line in lines).encode("utf-8", "replace") + tail)
    try:
        dataset = YOLODataset(root, "train")
    except UserError:
        return
    record = dataset.record(0)
    assert np.isfinite(record.boxes).all()
    assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()
    assert (record.boxes >= 0).all()
    assert (record.boxes <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()


def test_the_config_reads_a_folder(tmp_path: Path, repository: Path) -> None:
    from transfer.assemble import set_data_root
    from transfer.build import build, load_config

    root = write(tmp_path, train_a=DOG, val_b=DOG)
    config: dict[str, Any] = load_config(
        repository / "configs" / "yolo_folder_frcnn_lite0.py", ["data.test.splits=val", "data.val=None"]
    )
    set_data_root(config, str(root))
    assert [len(build(config["data"][part])) for part in ("train", "test")] == [1, 1]
