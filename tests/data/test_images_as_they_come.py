"""Data sets of images as people have them: every pixel type and suffix, odd names, links, folders not to be written."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from transfer.data.coco import COCODataset
from transfer.data.image import BrokenSample
from transfer.data.listing import ImageFolder, find_name
from transfer.data.voc import VOCDataset, XMLFolderDataset
from transfer.types import DetectionDataset, UserError

HEIGHT, WIDTH = 40, 60
BOX = (11, 6, 30, 25)
"""VOC's corners, counted from 1, of a bright mark on dark ground."""


def grey_scene() -> np.ndarray:
    pixels = np.full((HEIGHT, WIDTH), 20, np.uint8)
    pixels[BOX[1] - 1 : BOX[3], BOX[0] - 1 : BOX[2]] = 220
    return pixels


def scene() -> np.ndarray:
    return np.repeat(grey_scene()[:, :, None], 3, 2)


def write_xml(path: Path, box: tuple[int, int, int, int] = BOX, size: tuple[int, int] | None = (HEIGHT, WIDTH)) -> None:
    stated = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>" if size else ""
    corners = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box))
    path.write_text(
        f"<annotation>{stated}<object><name>mark</name><bndbox>{corners}</bndbox></object></annotation>", "utf-8"
    )


def write_devkit(root: Path, stems: list[str]) -> Path:
    """Folders, annotations and a list; the images are the test's."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    (root / "ImageSets/Main/train.txt").write_text("".join(f"{stem}\n" for stem in stems), "utf-8")
    for stem in stems:
        write_xml(root / "Annotations" / f"{stem}.xml")
    return root / "JPEGImages"


def check_sample(dataset: DetectionDataset, index: int = 0) -> None:
    """RGB bytes, bright under the box and dark beside it."""
    sample = dataset[index]
    assert sample.image.shape == (*sample.original_size, 3)
    assert sample.image.dtype == np.uint8
    assert sample.image.flags.c_contiguous
    x0, y0, x1, y1 = sample.boxes[0].astype(int)
    inside = np.zeros(sample.image.shape[:2], bool)
    inside[y0:y1, x0:x1] = True
    inner, outer = inside.copy(), ~inside
    inner[[y0, y1 - 1]] = inner[:, [x0, x1 - 1]] = False  # JPEG rings at the edge
    outer[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1] = False
    assert sample.image[inner].min() > 170
    assert sample.image[outer].max() < 70


def save_as(kind: str, path: Path) -> None:
    grey, colour = Image.fromarray(grey_scene()), Image.fromarray(scene())
    wide = grey_scene().astype(np.uint16) * 257
    if kind == "grey":
        grey.save(path)
    elif kind == "CMYK":
        colour.convert("CMYK").save(path, "JPEG", quality=95)
    elif kind == "16 bits":
        Image.fromarray(wide).save(path, "PNG")
    elif kind == "16 bits, colour":
        path.write_bytes(cv2.imencode(".png", np.repeat(wide[:, :, None], 3, 2))[1].tobytes())
    elif kind == "palette":
        colour.convert("P", palette=Image.Palette.ADAPTIVE, colors=8).save(path, "PNG")
    elif kind == "grey with transparency":
        Image.merge("LA", (grey, Image.new("L", grey.size, 255))).save(path, "PNG")
    elif kind == "one bit":
        grey.point(lambda value: 255 * (value > 100)).convert("1").save(path, "PNG")
    elif kind == "two pictures (MPO)":
        colour.save(path, "MPO", save_all=True, append_images=[colour], quality=95)
    elif kind == "animation":
        colour.save(path, "WEBP", save_all=True, append_images=[Image.new("RGB", colour.size)], lossless=True)
    else:
        colour.save(path, kind)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("grey", ".jpg"),
        ("grey", ".png"),
        ("CMYK", ".jpg"),
        ("16 bits", ".png"),
        ("16 bits, colour", ".png"),
        ("palette", ".png"),
        ("grey with transparency", ".png"),
        ("one bit", ".png"),
        ("two pictures (MPO)", ".jpg"),
        ("animation", ".webp"),
        ("JPEG", ".JPG"),
        ("JPEG", ".jpeg"),
        ("JPEG", ".JPEG"),
        ("PNG", ".PNG"),
        ("WEBP", ".webp"),
        ("BMP", ".bmp"),
        ("TIFF", ".tif"),
        ("PNG", ".jpg"),  # the content decides
    ],
)
def test_pixel_types_and_suffixes(tmp_path: Path, kind: str, suffix: str) -> None:
    images = write_devkit(tmp_path, ["a"])
    save_as(kind, images / f"a{suffix}")
    check_sample(VOCDataset(tmp_path, "train"))
    save_as(kind, tmp_path / "Annotations" / f"a{suffix}")
    check_sample(XMLFolderDataset(tmp_path / "Annotations"))


@pytest.mark.parametrize(
    ("how", "orientation"),
    [
        (how, orientation)
        for how in ("as displayed", "as stored", "no size")
        for orientation in range(1, 9)
        if how != "as stored" or orientation in (1, 5, 6, 7, 8)  # the others keep the size: it cannot tell
    ],
)
def test_boxes_follow_a_rotated_photograph(tmp_path: Path, how: str, orientation: int) -> None:
    """The mark is drawn into the displayed picture; what a camera stores is turned back from it."""
    images = write_devkit(tmp_path, ["a"])
    displayed = scene()
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.get(orientation)
    stored = displayed if undo is None else _turned(displayed, undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(images / "a.jpg", exif=exif, quality=95)
    if how == "as stored":
        bright = np.argwhere(stored[:, :, 0] > 100)
        (y0, x0), (y1, x1) = bright.min(0), bright.max(0)
        write_xml(tmp_path / "Annotations/a.xml", (x0 + 1, y0 + 1, x1 + 1, y1 + 1), stored.shape[:2])
    elif how == "no size":
        write_xml(tmp_path / "Annotations/a.xml", size=None)
    dataset = VOCDataset(tmp_path, "train")
    check_sample(dataset)
    assert dataset[0].original_size == (stored.shape[:2] if how == "as stored" else (HEIGHT, WIDTH))


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What a viewer shows of `pixels` under this orientation, by Pillow."""
    from PIL import ImageOps

    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


NAMES = ["photo 1", "été à la plage", "写真", "a.b.c", "100% #1 [x] {y}", "-n", "'quoted' \"name\"", "sp  ace", "Ωmega"]


def test_names(tmp_path: Path) -> None:
    images = write_devkit(tmp_path / "mes données, 2", NAMES)
    for stem in NAMES:
        Image.fromarray(scene()).save(images / f"{stem}.png")
    for dataset in (VOCDataset(tmp_path / "mes données, 2", "train"), XMLFolderDataset(tmp_path / "mes données, 2")):
        assert {dataset.record(index).image_id for index in range(len(dataset))} == set(NAMES)
        for index in range(len(NAMES)):
            check_sample(dataset, index)


def write_coco(folder: Path, names: list[str]) -> tuple[Path, Path]:
    content: dict[str, Any] = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [
            {"image_id": number, "category_id": 1, "bbox": [10, 5, 20, 20]} for number in range(len(names))
        ],
        "categories": [{"id": 1, "name": "mark"}],
    }
    (folder / "a b.json").write_text(json.dumps(content))
    return folder / "a b.json", folder


def test_names_in_coco(tmp_path: Path) -> None:
    names = [f"part {number}/{stem}.JPG" for number, stem in enumerate(NAMES)]
    for name in names:
        (tmp_path / name).parent.mkdir()
        Image.fromarray(scene()).save(tmp_path / name, "JPEG", quality=95)
    dataset = COCODataset(*write_coco(tmp_path, names))
    for index in range(len(names)):
        check_sample(dataset, index)


@pytest.mark.parametrize("composed", ["list", "annotation", "image"])
def test_accents_composed_in_two_ways(tmp_path: Path, composed: str) -> None:
    """macOS stores "é" as two characters; a list or a JSON file written elsewhere has one."""
    one, two = (unicodedata.normalize(form, "déjà vu") for form in ("NFC", "NFD"))
    assert one != two
    images = write_devkit(tmp_path, [one if composed == "list" else two])
    os.rename(
        tmp_path / "Annotations" / f"{one if composed == 'list' else two}.xml",
        tmp_path / "Annotations" / f"{one if composed == 'annotation' else two}.xml",
    )
    name = f"{one if composed == 'image' else two}.png"
    Image.fromarray(scene()).save(images / name)
    check_sample(VOCDataset(tmp_path, "train"))
    check_sample(COCODataset(*write_coco(images, [f"{one if composed == 'list' else two}.png"])))


def test_other_letters_are_other_names() -> None:
    names = {"déja", "e", "E"}
    assert find_name(names, "deja") is None
    assert find_name(names, "dejá") is None
    assert find_name(names, unicodedata.normalize("NFD", "déja")) == "déja"
    assert find_name(names, "E") == "E"


def test_links(tmp_path: Path) -> None:
    """Images, annotations and whole folders elsewhere; a link's own name counts, not its target's."""
    store = tmp_path / "store"
    store.mkdir()
    Image.fromarray(scene()).save(store / "0xCAFE.blob", "PNG")
    write_xml(store / "xml of a")
    images = write_devkit(tmp_path / "kit", ["a", "b"])
    for stem in ("a", "b"):
        (images / f"{stem}.jpg").symlink_to(store / "0xCAFE.blob")
    (tmp_path / "kit/Annotations/a.xml").unlink()
    (tmp_path / "kit/Annotations/a.xml").symlink_to("../../store/xml of a")
    (tmp_path / "linked").mkdir()
    for part in ("Annotations", "JPEGImages", "ImageSets"):
        (tmp_path / "linked" / part).symlink_to(tmp_path / "kit" / part)
    for root in (tmp_path / "kit", tmp_path / "linked"):
        dataset = VOCDataset(root, "train")
        assert dataset.record(0).image_id == "a"
        check_sample(dataset, 0)
        check_sample(dataset, 1)


def test_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    images = write_devkit(tmp_path, ["a"])
    (images / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(BrokenSample, match=r"JPEGImages/a\.jpg: cannot be opened: No such file"):
        VOCDataset(tmp_path, "train")[0]
    write_xml(tmp_path / "Annotations/a.xml", size=None)  # then the header is asked for at once
    with pytest.raises(UserError, match=r"JPEGImages/a\.jpg: cannot be opened: No such file"):
        VOCDataset(tmp_path, "train")


def test_hidden_files_and_folders_are_no_images(tmp_path: Path) -> None:
    images = write_devkit(tmp_path, ["a"])
    Image.fromarray(scene()).save(images / "a.png")
    for name in ("._a.png", "Thumbs.db", ".DS_Store", "a.txt"):  # left by macOS, Windows and labelling tools
        (images / name).write_bytes(b"not an image")
    (images / "b.jpg").mkdir()
    check_sample(VOCDataset(tmp_path, "train"))
    assert ImageFolder(images).find("a") == str(images / "a.png")


def test_nothing_is_written_beside_the_data(tmp_path: Path) -> None:
    images = write_devkit(tmp_path, ["a", "b"])
    for stem in ("a", "b"):
        Image.fromarray(scene()).save(images / f"{stem}.png")
    path, _ = write_coco(images, ["a.png", "b.png"])
    folders = [folder for folder in (tmp_path, *tmp_path.rglob("*")) if folder.is_dir()]
    before = {str(each): each.lstat().st_mtime_ns for each in (tmp_path, *tmp_path.rglob("*"))}
    for folder in folders:
        folder.chmod(0o555)  # no obstacle for root, whom the comparison below is for
    try:
        for dataset in (VOCDataset(tmp_path, "train"), XMLFolderDataset(tmp_path), COCODataset(path, images)):
            check_sample(dataset, 0)
            check_sample(dataset, 1)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert {str(each): each.lstat().st_mtime_ns for each in (tmp_path, *tmp_path.rglob("*"))} == before
