"""VOC devkits and XML folders: small ones made by hand, and the real ones' published counts."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfer.data.image import BrokenSample
from transfer.data.table import TableDataset
from transfer.data.voc import VOC_CLASSES, VOCDataset, XMLFolderDataset
from transfer.types import DetectionDataset, UserError

Objects = list[tuple[str, tuple[float, float, float, float]]]
WIDTH, HEIGHT = 50, 40


def write_image(path: Path, *, width: int = WIDTH, height: int = HEIGHT, orientation: int | None = None) -> None:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new("RGB", (width, height), (90, 120, 30)).save(path, exif=exif)


def write_xml(
    path: Path, objects: Objects, *, filename: str = "", size: tuple[int, int] | None = (HEIGHT, WIDTH)
) -> None:
    stated = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>" if size else ""
    body = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        "</bndbox></object>"
        for name, (x0, y0, x1, y1) in objects
    )
    path.write_text(f"<annotation><filename>{filename}</filename>{stated}{body}</annotation>", encoding="utf-8")


def devkit(root: Path, year: str, splits: dict[str, dict[str, Objects]], *, suffix: str = ".jpg") -> Path:
    folder = root / f"VOC{year}" if year else root
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for split, images in splits.items():
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in images))
        for stem, objects in images.items():
            write_image(folder / "JPEGImages" / f"{stem}{suffix}")
            write_xml(folder / "Annotations" / f"{stem}.xml", objects)
    return folder


DOG: Objects = [("dog", (11, 5, 20, 30))]
CAT: Objects = [("cat", (1, 1, 50, 40)), ("dog", (2, 2, 3, 3))]


def boxes_of(dataset: DetectionDataset) -> list[list[list[float]]]:
    return [dataset.record(index).boxes.tolist() for index in range(len(dataset))]


def test_a_devkit_by_hand(tmp_path: Path) -> None:
    devkit(tmp_path / "VOCdevkit", "2007", {"trainval": {"000001": DOG, "000002": CAT, "000003": []}})
    dataset = VOCDataset(tmp_path, "2007_trainval")
    assert isinstance(dataset, DetectionDataset)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.category_ids() == (1, 2)
    assert boxes_of(dataset) == [[[10, 4, 20, 30]], [[0, 0, 50, 40], [1, 1, 3, 3]], []]
    record = dataset.record(1)
    assert (record.image_id, record.size, record.labels.tolist()) == ("000002", (40, 50), [0, 1])
    assert record.areas.tolist() == [2000, 4]
    assert (record.boxes.dtype, record.labels.dtype, record.areas.dtype) == (np.float32, np.int64, np.float32)
    assert (record.difficult.dtype, record.crowd.dtype) == (bool, bool)
    sample = dataset[1]
    assert sample.image.shape == (40, 50, 3)
    assert sample.weights.tolist() == [1, 1]
    assert (sample.index, sample.image_id, sample.original_size) == (1, "000002", (40, 50))
    empty = dataset[2]
    assert empty.boxes.shape == (0, 4)
    assert empty.labels.shape == (0,)
    with pytest.raises(IndexError):
        dataset[3]
    assert dataset[-1].index == 2


def test_a_record_may_be_changed_without_changing_the_data(tmp_path: Path) -> None:
    devkit(tmp_path, "", {"train": {"a": DOG}})
    dataset = VOCDataset(tmp_path, "train")
    dataset.record(0).boxes[:] = 0
    dataset[0].labels[:] = 7
    assert boxes_of(dataset) == [[[10, 4, 20, 30]]]
    assert dataset.record(0).labels.tolist() == [0]


@pytest.mark.parametrize("depth", ["VOCdevkit", "devkit", "year"])
def test_the_root_may_be_any_level(tmp_path: Path, depth: str) -> None:
    folder = devkit(tmp_path / "VOCdevkit", "2007", {"test": {"000001": DOG}})
    root = {"VOCdevkit": tmp_path, "devkit": tmp_path / "VOCdevkit", "year": folder}[depth]
    for split in ("2007_test", "test"):
        assert len(VOCDataset(root, split)) == 1


def test_the_union_of_years(tmp_path: Path) -> None:
    devkit(tmp_path, "2007", {"trainval": {"000001": DOG}})
    devkit(tmp_path, "2012", {"trainval": {"2008_000001": CAT}})
    dataset = VOCDataset(tmp_path, ["2007_trainval", "2012_trainval"])
    assert [dataset.record(index).image_id for index in range(2)] == ["000001", "2008_000001"]
    with pytest.raises(UserError, match="names no year") as caught:
        VOCDataset(tmp_path, "trainval")
    assert "2012_trainval" in str(caught.value)


def test_ids_stay_unique_when_years_share_names(tmp_path: Path) -> None:
    devkit(tmp_path, "2007", {"train": {"a": DOG, "2012_a": DOG}})
    devkit(tmp_path, "2012", {"train": {"a": CAT}})
    dataset = VOCDataset(tmp_path, ["2007_train", "2012_train"])
    assert [dataset.record(index).image_id for index in range(3)] == ["2007_a", "2007_2012_a", "2012_a"]
    assert [len(boxes) for boxes in boxes_of(dataset)] == [1, 1, 2]


def test_a_repeated_image_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    devkit(tmp_path, "", {"train": {"a": DOG}, "trainval": {"a": DOG, "b": CAT}})
    assert len(VOCDataset(tmp_path, ["train", "trainval"])) == 2
    assert "1 entries of the split lists are repeated" in caplog.text


def test_split_lists_of_one_class_and_odd_names(tmp_path: Path) -> None:
    folder = devkit(tmp_path, "", {"train": {"a": DOG, "b": CAT, "photo 1": DOG}})
    main = folder / "ImageSets/Main"
    (main / "dog_train.txt").write_bytes(b"\xef\xbb\xbfa  1\r\nb -1\r\n\r\nphoto 1  0\r\n")
    dataset = VOCDataset(tmp_path, "dog_train")
    assert [dataset.record(index).image_id for index in range(len(dataset))] == ["a", "photo 1"]
    (main / "named.txt").write_text("photo 1\n")
    assert VOCDataset(tmp_path, "named").record(0).image_id == "photo 1"


def test_a_missing_split_names_those_that_exist(tmp_path: Path) -> None:
    folder = devkit(tmp_path, "2007", {"trainval": {"a": DOG}, "test": {"b": DOG}})
    (folder / "ImageSets/Main/dog_trainval.txt").write_text("a 1\n")
    for split in ("2007_tset", "2012_trainval", "tset"):
        with pytest.raises(UserError, match=r"Splits that exist: 2007_test, 2007_trainval$") as caught:
            VOCDataset(tmp_path, split)
        assert split in str(caught.value)
    with pytest.raises(UserError, match="no such folder"):
        VOCDataset(tmp_path / "absent", "train")
    with pytest.raises(UserError, match="XMLFolderDataset"):
        VOCDataset(folder / "JPEGImages", "train")
    (folder / "JPEGImages/data.yaml").touch()
    with pytest.raises(UserError, match=r"no VOC data.*its data.yaml says YOLO: take configs/yolo_folder"):
        VOCDataset(folder / "JPEGImages", "train")
    with pytest.raises(UserError, match="names a file in ImageSets/Main"):
        VOCDataset(tmp_path, "2007_../../secret")
    with pytest.raises(UserError, match="splits is empty"):
        VOCDataset(tmp_path, [])
    (folder / "ImageSets/Main/void.txt").write_text("\n")
    with pytest.raises(UserError, match="names no images"):
        VOCDataset(tmp_path, "void")


def test_all_faults_in_one_error_or_left_out(tmp_path: Path) -> None:
    images = {f"image{number}": DOG for number in range(6)}
    folder = devkit(tmp_path, "", {"train": images})
    (folder / "JPEGImages/image1.jpg").unlink()
    (folder / "Annotations/image2.xml").unlink()
    (folder / "Annotations/image3.xml").write_text("<annotation>")
    write_xml(folder / "Annotations/image4.xml", [("dgo", (1, 1, 5, 5))])
    with pytest.raises(UserError) as caught:
        VOCDataset(tmp_path, "train", class_names=["dog"])
    message = str(caught.value)
    for expected in ("3 unusable", "image1", "image2", "image3.xml", 'on_broken="skip"', "'dgo'", "nearest", "image4"):
        assert expected in message
    dataset = VOCDataset(tmp_path, "train", on_broken="skip", class_names=["dog"], rename={"dgo": "dog"})
    assert [dataset.record(index).image_id for index in range(3)] == ["image0", "image4", "image5"]
    assert len(dataset.skipped) == 3
    with pytest.raises(UserError, match="on_broken is 'ignore'"):
        VOCDataset(tmp_path, "train", on_broken="ignore")


def test_nothing_usable_is_an_error_in_words(tmp_path: Path) -> None:
    folder = devkit(tmp_path, "", {"train": {"a": DOG}})
    (folder / "Annotations/a.xml").write_text("")
    with pytest.raises(UserError, match="no usable image"):
        VOCDataset(tmp_path, "train", on_broken="skip")
    write_xml(folder / "Annotations/a.xml", [])
    with pytest.raises(UserError, match="give class_names="):
        VOCDataset(tmp_path, "train")
    dataset = VOCDataset(tmp_path, "train", class_names=["dog"])
    assert boxes_of(dataset) == [[]]
    assert pickle.loads(pickle.dumps(dataset)).record(0).boxes.shape == (0, 4)


def test_boxes_are_clipped_and_those_without_area_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    objects: Objects = [
        ("dog", (0, 1, 50.6, 40)),  # rounding: 1 pixel at the left, 0.6 at the right
        ("dog", (7, 7, 7, 7)),
        ("dog", (60, 5, 70, 9)),
        ("dog", (41, 31, 65, 40)),
        ("dog", (11, 11, 20, 20)),
    ]
    devkit(tmp_path, "", {"train": {"a": objects}})
    dataset = VOCDataset(tmp_path, "train")
    assert boxes_of(dataset) == [[[0, 0, 50, 40], [40, 30, 50, 40], [10, 10, 20, 20]]]
    assert dataset.counts == {"without_area": 1, "outside": 1, "clipped": 2, "renamed_to_none": 0}
    assert "1 box without area dropped, first:" in caplog.text
    assert "(by 15.0 pixels at most)" in caplog.text


def test_rename_merges_and_drops(tmp_path: Path) -> None:
    devkit(tmp_path, "", {"train": {"a": [*CAT, ("trash", (1, 1, 9, 9)), ("Dog", (5, 5, 9, 9))]}})
    dataset = VOCDataset(tmp_path, "train", rename={"trash": None, "Dog": "dog"})
    assert dataset.class_names == ("cat", "dog")
    assert dataset.record(0).labels.tolist() == [0, 1, 1]
    assert dataset.counts["renamed_to_none"] == 1


def test_the_config_orders_the_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    devkit(tmp_path, "", {"train": {"a": CAT}})
    dataset = VOCDataset(tmp_path, "train", class_names=["dog", "cow", "cat"])
    assert dataset.class_names == ("dog", "cow", "cat")
    assert dataset.record(0).labels.tolist() == [2, 0]
    assert "no object of 'cow'" in caplog.text


def test_without_a_stated_size_the_header_is_read(tmp_path: Path) -> None:
    folder = devkit(tmp_path, "", {"train": {"a": DOG, "b": DOG}})
    write_xml(folder / "Annotations/a.xml", DOG, size=None)
    write_xml(folder / "Annotations/b.xml", DOG, size=(0, 0))
    dataset = VOCDataset(tmp_path, "train")
    assert [dataset.record(index).size for index in range(2)] == [(40, 50), (40, 50)]
    (folder / "JPEGImages/b.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"b\.jpg: is no image in a known format"):
        VOCDataset(tmp_path, "train")
    assert len(VOCDataset(tmp_path, "train", on_broken="skip")) == 1


def test_a_stated_size_that_the_boxes_contradict(tmp_path: Path) -> None:
    folder = devkit(tmp_path, "", {"train": {"a": [("dog", (1, 1, 48, 39))]}})
    write_xml(folder / "Annotations/a.xml", [("dog", (1, 1, 48, 39))], size=(20, 25))
    dataset = VOCDataset(tmp_path, "train")
    assert dataset.record(0).size == (40, 50)
    assert dataset[0].boxes.tolist() == [[0, 0, 48, 39]]


def test_a_stated_size_that_is_another_images(tmp_path: Path) -> None:
    folder = devkit(tmp_path, "", {"train": {"a": DOG}})
    write_xml(folder / "Annotations/a.xml", DOG, size=(80, 100))
    with pytest.raises(BrokenSample, match=r"a\.jpg: is 50x40 but its annotation says 100x80"):
        VOCDataset(tmp_path, "train")[0]


def test_boxes_beyond_the_stored_size_do_not_turn_the_image(tmp_path: Path) -> None:
    folder = devkit(tmp_path, "", {"train": {"a": DOG}})
    write_image(folder / "JPEGImages/a.jpg", orientation=6)
    write_xml(folder / "Annotations/a.xml", [("dog", (5, 5, WIDTH + 3, 9))])
    sample = VOCDataset(tmp_path, "train")[0]
    assert sample.image.shape[:2] == (HEIGHT, WIDTH)
    assert sample.boxes.tolist() == [[4, 4, WIDTH, 9]]


@pytest.mark.parametrize("stated", [(HEIGHT, WIDTH), (WIDTH, HEIGHT), None])
def test_exif_rotation_follows_the_stated_size(tmp_path: Path, stated: tuple[int, int] | None) -> None:
    """A red mark in the stored top left corner lies under the box whichever orientation the truth was drawn in."""
    folder = devkit(tmp_path, "", {"train": {"a": DOG}}, suffix=".png")
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:6, :10] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise: the mark is 6 wide, 10 high, at the top right
    Image.fromarray(pixels).save(folder / "JPEGImages/a.png", exif=exif)
    stored, displayed = (1, 1, 10, 6), (HEIGHT - 5, 1, HEIGHT, 10)
    box = stored if stated == (HEIGHT, WIDTH) else displayed
    write_xml(folder / "Annotations/a.xml", [("dog", box)], size=stated)
    sample = VOCDataset(tmp_path, "train")[0]
    assert sample.image.shape[:2] == sample.original_size == (stated or (WIDTH, HEIGHT))
    x0, y0, x1, y1 = sample.boxes[0].astype(int)
    assert (sample.image[y0:y1, x0:x1] == (255, 0, 0)).all()
    assert (sample.image[..., 0] > 0).sum() == (x1 - x0) * (y1 - y0) == 60


def test_xml_beside_the_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "mes données"
    folder.mkdir()
    write_image(folder / "photo é 1.JPG.tmp.png")
    write_image(folder / "b.JPEG")
    write_image(folder / "unlabelled.jpg")
    write_xml(folder / "photo é 1.JPG.tmp.xml", DOG)
    write_xml(folder / "b.xml", [])
    dataset = XMLFolderDataset(folder)
    assert [dataset.record(index).image_id for index in range(2)] == ["b", "photo é 1.JPG.tmp"]
    assert dataset[1].image.shape == (40, 50, 3)
    assert "1 images without XML" in caplog.text


def test_annotations_and_images_without_lists(tmp_path: Path) -> None:
    folder = devkit(tmp_path, "", {"train": {"b": DOG, "a": CAT}})
    (folder / "ImageSets/Main/train.txt").unlink()
    dataset = XMLFolderDataset(tmp_path)
    assert [dataset.record(index).image_id for index in range(2)] == ["a", "b"]


def test_a_folder_without_xml_says_where_there_is_some(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    write_xml(tmp_path / "train" / "a.xml", DOG)
    with pytest.raises(UserError, match="XML files are in train"):
        XMLFolderDataset(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        XMLFolderDataset(tmp_path / "absent")


def test_the_stem_comes_before_the_stated_file_name(tmp_path: Path) -> None:
    for name in ("a.jpg", "other.jpg", "c.png", "c.jpg"):
        write_image(tmp_path / name)
    write_xml(tmp_path / "a.xml", DOG, filename="other.jpg")
    write_xml(tmp_path / "b.xml", DOG, filename="C:\\photos\\other.jpg")
    write_xml(tmp_path / "c.xml", DOG, filename="c.png")
    dataset = XMLFolderDataset(tmp_path)
    assert [Path(dataset.record(index).path).name for index in range(3)] == ["a.jpg", "other.jpg", "c.png"]


@pytest.mark.parametrize("filename", ["../secret.jpg", "/etc/passwd", "..\\secret.jpg", "..", "."])
def test_a_file_name_cannot_lead_out_of_the_folder(tmp_path: Path, filename: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_image(tmp_path / "secret.jpg")
    write_xml(folder / "a.xml", DOG, filename=filename)
    with pytest.raises(UserError, match="no image of this name"):
        XMLFolderDataset(folder)


def test_a_split_list_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    folder = devkit(tmp_path / "kit", "", {"train": {"a": DOG}})
    write_xml(tmp_path / "secret.xml", DOG)
    (folder / "ImageSets/Main/train.txt").write_text("../../secret\n")
    with pytest.raises(UserError, match=r"Annotations has no \.\./\.\./secret\.xml"):
        VOCDataset(tmp_path / "kit", "train")


def test_a_hostile_annotation_names_its_file(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text('<!DOCTYPE a [<!ENTITY x "y">]><annotation><filename>&x;</filename></annotation>')
    with pytest.raises(UserError, match=r"a\.xml: declares a document type or entities"):
        XMLFolderDataset(tmp_path)


def test_symbolic_links_and_pickling(tmp_path: Path) -> None:
    devkit(tmp_path / "real", "2007", {"train": {"a": DOG, "b": CAT}})
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    dataset = VOCDataset(tmp_path / "link", "train")
    again = pickle.loads(pickle.dumps(dataset))
    assert isinstance(again, TableDataset)
    assert boxes_of(again) == boxes_of(dataset)
    np.testing.assert_array_equal(again[1].image, dataset[1].image)


def test_voc_classes() -> None:
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


def count(dataset: TableDataset) -> dict[str, int]:
    return {name: int((dataset.table.labels == label).sum()) for label, name in enumerate(dataset.class_names)}


@pytest.mark.data
def test_bccd(shared_data: Path) -> None:
    parts = {split: VOCDataset(shared_data / "bccd", split) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 205, "val": 87, "test": 72}
    whole = VOCDataset(shared_data / "bccd", ["train", "val", "test"])
    # 4155 red cells are stated; two of them have no area
    assert count(whole) == {"Platelets": 361, "RBC": 4153, "WBC": 372}
    assert whole.counts["without_area"] == 2
    assert len(VOCDataset(shared_data / "bccd", ["trainval", "train", "val"])) == 292
    records = {whole.record(index).image_id: whole.record(index) for index in range(len(whole))}
    assert records["BloodImage_00338"].boxes[0].tolist() == [452, 80, 555, 182]
    with pytest.raises(UserError, match=r"'Platelets': 361 boxes.*nearest known name 'platelet'"):
        VOCDataset(shared_data / "bccd", ["trainval", "test"], class_names=["RBC", "WBC", "platelet"])


@pytest.mark.data
def test_fruit(shared_data: Path) -> None:
    for split, number in (("train", 240), ("test", 60)):
        dataset = XMLFolderDataset(shared_data / "fruit" / split)
        assert len(dataset) == number
        assert dataset.class_names == ("apple", "banana", "orange")
    train = XMLFolderDataset(shared_data / "fruit/train")
    texts = {path.stem: path.read_text() for path in (shared_data / "fruit/train").glob("*.xml")}
    unstated = [index for index in range(240) if "<width>0<" in texts[str(train.record(index).image_id)]]
    assert unstated
    for index in unstated:
        sample = train[index]
        assert sample.image.shape[:2] == sample.original_size


@pytest.mark.data
def test_voc_mini(shared_data: Path) -> None:
    trainval = VOCDataset(shared_data / "voc_mini", "2007_trainval", class_names=VOC_CLASSES)
    test = VOCDataset(shared_data / "voc_mini", "2007_test", class_names=VOC_CLASSES)
    assert (len(trainval), len(test)) == (97, 100)
    assert count(trainval)["cow"] == count(test)["cow"] == 0
    assert trainval.table.difficult.any()
    for index in range(0, 97, 16):
        sample = trainval[index]
        assert sample.image.shape[:2] == trainval.record(index).size
