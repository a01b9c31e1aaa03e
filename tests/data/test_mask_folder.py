"""Folders of images and masks: codings, names, lists; and CamVid as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_made_png import RGB, write_png
from PIL import Image

from transfer.data.mask_folder import MaskFolderDataset
from transfer.types import UserError

VALUES = np.array([[0, 1, 2], [2, 11, 0]])
NAMES = ["sky", "road", "car"]
CAMVID = [
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
]


def photograph(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2)).save(path)


def write_folders(root: Path, *stems: str, image: str = "{}.jpg", mask: str = "{}.png") -> Path:
    for stem in stems or ("b", "a"):
        photograph(root / "images" / image.format(stem))
        write_png(root / "masks" / mask.format(stem), VALUES)
    return root


def open_folders(root: Path, **options: Any) -> MaskFolderDataset:
    return MaskFolderDataset("images", "masks", root=root, **{"classes": NAMES, "ignore": 11, **options})


@pytest.mark.parametrize(
    ("options", "names", "labels"),
    [
        ({}, ("sky", "road", "car"), [[0, 1, 2], [2, 255, 0]]),
        ({"ignore": [0, 11]}, None, None),
        ({"classes": {"road": 1, "rest": [0, 2]}, "ignore": [11]}, ("road", "rest"), [[1, 0, 1], [1, 255, 1]]),
        ({"classes": {"a": 0, "b": [2, 1, 11]}, "ignore": None}, ("a", "b"), [[0, 1, 1], [1, 1, 0]]),
        ({"classes": {"a": 1, "b": 2}, "ignore": [0, 11]}, ("a", "b"), [[255, 0, 1], [1, 255, 255]]),
        ({"rename": {"car": "road"}}, ("sky", "road"), [[0, 1, 1], [1, 255, 0]]),
        ({"class_names": ["car", "sky", "road"]}, ("car", "sky", "road"), [[1, 2, 0], [0, 255, 1]]),
    ],
)
def test_what_values_stand_for(
    tmp_path: Path, options: dict[str, Any], names: tuple[str, ...] | None, labels: list[list[int]] | None
) -> None:
    write_folders(tmp_path)
    if labels is None:
        with pytest.raises(UserError, match="ignore: 0 is the class 'sky'"):
            open_folders(tmp_path, **options)
        return
    dataset = open_folders(tmp_path, **options)
    assert dataset.class_names == names
    assert dataset.mask(0).tolist() == labels


def test_colours(tmp_path: Path) -> None:
    photograph(tmp_path / "images/a.jpg")
    grass, sky, void, other = (0, 128, 0), (0, 0, 200), (0, 0, 0), (1, 1, 1)
    write_png(tmp_path / "masks/a.png", np.array([[grass, sky, void], [other, sky, grass]]), RGB)
    colours = {"sky": sky, "grass": [list(grass), list(other)]}
    dataset = MaskFolderDataset(tmp_path / "images", tmp_path / "masks", colours=colours, ignore=list(void))
    assert dataset.class_names == ("sky", "grass")
    assert dataset.mask(0).tolist() == [[1, 0, 255], [1, 0, 1]]
    dataset = MaskFolderDataset(
        tmp_path / "images", tmp_path / "masks", colours={"sky": sky}, ignore=[void, grass, other]
    )
    assert dataset.mask(0).tolist() == [[255, 0, 255], [255, 0, 255]]
    with pytest.raises(UserError, match=r"has colour \(0, 0, 0\) \(1 pixel\) without a class"):
        MaskFolderDataset(tmp_path / "images", tmp_path / "masks", colours=colours).mask(0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sky\nroad\n\ncar\n", [[0, 1, 2], [2, 255, 0]]),
        (
            "# label:color_rgb:parts:actions\nsky:0,0,0::\nroad:1,1,1::\ncar:2,2,2::\nx:11,11,11::\n",
            [[0, 1, 2], [2, 3, 0]],
        ),
        ("name,r,g,b\nsky,0,0,0\nroad, 1, 1, 1\ncar,2,2,2\nx,11,11,11\n", [[0, 1, 2], [2, 3, 0]]),
        ("0 0 0\tsky\n1 1 1\t\troad\n2 2 2\tcar\n11 11 11\tsky\n", [[0, 1, 2], [2, 0, 0]]),
    ],
)
def test_files_of_classes(tmp_path: Path, text: str, expected: list[list[int]]) -> None:
    write_folders(tmp_path)
    (tmp_path / "classes.txt").write_text(text)
    dataset = open_folders(tmp_path, classes="classes.txt", ignore=None if "0" in text else 11)
    assert dataset.class_names[:3] == ("sky", "road", "car")
    assert dataset.mask(0).tolist() == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"classes": None}, ["give classes=", "or colours="]),
        ({"colours": {"a": (1, 2, 3)}}, ["not both"]),
        ({"classes": []}, ["class_names is empty"]),
        ({"classes": ["a", "a"]}, ["'a' more than once"]),
        ({"classes": "no.txt"}, ["no.txt'", "cannot be read: No such file"]),
        ({"classes": "mixed.txt"}, ["some lines name a colour, others do not, such as 'c'"]),
        ({"classes": "empty.txt"}, ["names no class; write one name a line"]),
        (
            {"classes": {"a": 70000, "b": True, "c": 1, "d": 1}},
            ["'a': 70000", "'b': True", "1 stands for 'c' and for 'd'"],
        ),
        ({"ignore": [-1, "x"]}, ["ignore: -1 is no value of 0 to 65535", "ignore: 'x'"]),
        ({"ignore": [[0, 0, 0]]}, ["ignore: (0, 0, 0) is no value"]),
        ({"classes": None, "colours": {"a": (1, 2), "b": (0, 0, 256)}}, ["'a': (1, 2) is no colour", "(0, 0, 256)"]),
        ({"classes": None, "colours": {"a": (1, 2, 3)}, "ignore": 255}, ["ignore: 255 is no colour"]),
        ({"class_names": ["sky", "Road", "car"]}, ["class 'road' (nearest: 'Road')"]),
        ({"rename": {"Car": None}}, ["no class 'Car' (nearest: 'car')"]),
        ({"root": "no"}, ["root is 'no': no such folder"]),
        ({"on_broken": "pass"}, ["on_broken is 'pass'"]),
    ],
)
def test_mistakes_of_the_arguments(tmp_path: Path, options: dict[str, Any], expected: list[str]) -> None:
    write_folders(tmp_path)
    (tmp_path / "mixed.txt").write_text("a,1,2,3\nb,2,3,4\nc\n")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(UserError) as caught:
        MaskFolderDataset("images", "masks", **{"root": tmp_path, "classes": NAMES, "ignore": 11, **options})
    for piece in expected:
        assert piece in str(caught.value)


def test_names_with_suffixes_at_any_depth(tmp_path: Path) -> None:
    """Cityscapes' names: several files beside each mask."""
    root = write_folders(
        tmp_path, "ulm/ulm_01", "aachen/aachen_02", image="{}_leftImg8bit.png", mask="{}_gtFine_labelIds.png"
    )
    write_png(root / "masks/ulm/ulm_01_gtFine_color.png", VALUES)
    photograph(root / "images/ulm/.hidden_leftImg8bit.png")
    dataset = open_folders(root, image_suffix="_leftImg8bit", mask_suffix="_gtFine_labelIds")
    assert dataset.image_ids == ["aachen/aachen_02", "ulm/ulm_01"]
    assert dataset.record(1).mask_path == str(root / "masks/ulm/ulm_01_gtFine_labelIds.png")
    with pytest.raises(UserError, match=r"images are called 'aachen_02_leftImg8bit\.png', masks 'aachen_02_g"):
        open_folders(root)
    with pytest.raises(UserError, match=r"no masks whose name ends in '_mask' before the dot"):
        open_folders(root, mask_suffix="_mask")


def test_images_and_masks_in_one_folder(tmp_path: Path) -> None:
    def pairs(folder: str, **options: str) -> list[tuple[str, str]]:
        dataset = MaskFolderDataset(tmp_path / folder, tmp_path / folder, classes=NAMES, ignore=11, **options)  # type: ignore[arg-type]
        records = [dataset.record(index) for index in range(len(dataset))]
        return [(Path(record.path).name, Path(record.mask_path or "").name) for record in records]

    for stem in ("a", "b"):
        photograph(tmp_path / f"endings/{stem}.jpg")
        write_png(tmp_path / f"endings/{stem}.png", VALUES)
        photograph(tmp_path / f"masks/{stem}.png")
        write_png(tmp_path / f"masks/{stem}_mask.png", VALUES)
        photograph(tmp_path / f"images/{stem}_photo.png")
        write_png(tmp_path / f"images/{stem}.png", VALUES)
    assert pairs("endings") == [("a.jpg", "a.png"), ("b.jpg", "b.png")]
    assert pairs("masks", mask_suffix="_mask") == [("a.png", "a_mask.png"), ("b.png", "b_mask.png")]
    assert pairs("images", image_suffix="_photo") == [("a_photo.png", "a.png"), ("b_photo.png", "b.png")]
    with pytest.raises(UserError):  # every file would be its own mask
        pairs("masks")


def test_a_folder_of_masks_within_that_of_the_images(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        photograph(tmp_path / f"{stem}.jpg")
        write_png(tmp_path / "masks" / f"{stem}.png", VALUES)
    dataset = MaskFolderDataset(tmp_path, tmp_path / "masks", classes=NAMES, ignore=11)
    assert dataset.image_ids == ["a", "b"]


def test_the_preferred_ending(tmp_path: Path) -> None:
    root = write_folders(tmp_path, "a", "é")
    photograph(root / "images/a.png")
    photograph(root / "images/a.bmp")
    Image.fromarray(VALUES.astype(np.uint8)).save(root / "masks/a.tif")
    dataset = open_folders(root)
    assert Path(dataset.paths[0]).name == "a.jpg"
    assert Path(dataset.record(0).mask_path or "").name == "a.png"


def test_accents_composed_differently(tmp_path: Path) -> None:
    photograph(tmp_path / "images/e\u0301.jpg")
    write_png(tmp_path / "masks/\u00e9.png", VALUES)
    assert open_folders(tmp_path).image_ids == ["\u00e9"]


def test_files_without_partner(tmp_path: Path) -> None:
    write_folders(tmp_path, "a", "b", "c")
    (tmp_path / "images/a.jpg").unlink()
    (tmp_path / "masks/b.png").rename(tmp_path / "masks/b.jpg")  # no ending of a mask
    with pytest.raises(UserError) as caught:
        open_folders(tmp_path)
    assert "masks/a.png: " in str(caught.value)
    assert "has no image 'a'" in str(caught.value)
    assert "has no mask 'b'" in str(caught.value)
    dataset = open_folders(tmp_path, on_broken="skip")
    assert (dataset.image_ids, len(dataset.skipped)) == (["c"], 2)
    (tmp_path / "masks/c.png").unlink()
    (tmp_path / "masks/a.png").unlink()
    with pytest.raises(UserError, match="masks: no masks"):
        open_folders(tmp_path, on_broken="skip")


def test_lists(tmp_path: Path) -> None:
    write_folders(tmp_path, "x/a", "x/b c", "y/d")
    for line in ("d", "y/d", "d.jpg", "images/y/d.png", "./y/d.jpg", "/SegNet/images/d.png /SegNet/masks/d.png"):
        (tmp_path / "list.txt").write_text(f"{line}\nb c\n")
        assert open_folders(tmp_path, list_file="list.txt").image_ids == ["y/d", "x/b c"], line
    (tmp_path / "masks/x/a.png").unlink()
    (tmp_path / "list.txt").write_text("a\nb c\nnothing\n")
    with pytest.raises(UserError) as caught:
        open_folders(tmp_path, list_file="list.txt")
    assert "2 unusable" in str(caught.value)
    assert "has no mask 'x/a'" in str(caught.value)
    assert "list.txt: lists 'nothing', but" in str(caught.value)
    (tmp_path / "list.txt").write_text("b c\n")
    assert len(open_folders(tmp_path, list_file="list.txt")) == 1  # what is not listed may lack its mask
    with pytest.raises(UserError, match="cannot be read as a split list"):
        open_folders(tmp_path, list_file="no.txt")


@pytest.mark.data
def test_camvid(shared_data: Path) -> None:
    counts = {}
    for split in ("train", "val", "test"):
        dataset = MaskFolderDataset(split, f"{split}annot", root=shared_data / "camvid", classes=CAMVID, ignore=11)
        counts[split] = len(dataset)
        for index in (0, len(dataset) - 1):
            sample = dataset[index]
            assert sample.mask is not None
            assert sample.image.shape == (*sample.mask.shape, 3) == (360, 480, 3)
            stored = np.asarray(Image.open(dataset.record(index).mask_path or ""))
            np.testing.assert_array_equal(sample.mask, np.where(stored == 11, 255, stored))
    assert counts == {"train": 367, "val": 101, "test": 233}
    # the sky is above the road in every photograph
    rows = np.arange(360)[:, None] * np.ones((1, 480))
    assert rows[sample.mask == 0].mean() < 120 < 230 < rows[sample.mask == 3].mean()
    with pytest.raises(UserError, match=r"has value 11 \([\d,]+ pixels\) without a class"):
        MaskFolderDataset("val", "valannot", root=shared_data / "camvid", classes=CAMVID).mask(0)
