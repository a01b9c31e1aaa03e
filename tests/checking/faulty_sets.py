"""A tiny VOC devkit and a tiny COCO set without any fault, and faults to plant into them, one image each.

Every fault says which finding it causes: code, severity, the file named, and a piece of the message.
"""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 50, 40
TRAIN = [f"train_{number:02d}" for number in range(28)]
VAL = ["val_00", "val_01"]
TEST = [f"test_{number:02d}" for number in range(6)]

Corners = tuple[float, float, float, float]
APPLES: list[tuple[str, Corners]] = [("apple", (3, 3, 20, 20)), ("apple", (25, 5, 45, 30))]
PEAR: tuple[str, Corners] = ("pear", (10, 22, 24, 38))

BILLION_LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol0 "lol">'
    + "".join(f'<!ENTITY lol{n} "{f"&lol{n - 1};" * 10}">' for n in range(1, 10))
    + "]><annotation><filename>&lol9;</filename></annotation>"
)


def pixels_of(stem: str, *, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Noise that is this stem's alone."""
    return np.random.default_rng(list(stem.encode())).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, stem: str | None = None, **options: Any) -> None:
    Image.fromarray(pixels_of(stem or path.stem)).save(path, **options)


def xml_of(stem: str, objects: Sequence[tuple[str, Corners]], *, size: tuple[int, int] = (HEIGHT, WIDTH)) -> str:
    """An annotation with all that a labelling tool writes."""
    body = "".join(
        f"\n  <object><name>{name}</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult><bndbox>"
        f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
        f"<polygon><x1>{x0}</x1><y1>{y0}</y1></polygon><id>{number}</id></object>"
        for number, (name, (x0, y0, x1, y1)) in enumerate(objects)
    )
    return (
        f"<annotation verified='yes'><!-- by hand --><filename>{stem}.jpg</filename>"
        f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>{body}\n</annotation>\n"
    )


def write_voc(folder: Path) -> Path:
    """JPEGImages, Annotations and ImageSets/Main with train, val and test; nothing wrong with it."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for split, stems in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for number, stem in enumerate(stems):
            write_image(folder / "JPEGImages" / f"{stem}.jpg")
            objects = [*APPLES, PEAR] if number < 3 else APPLES
            (folder / "Annotations" / f"{stem}.xml").write_text(xml_of(stem, objects))
    return folder


def config_of(folder: Path, **changes: Any) -> dict[str, Any]:
    """What a check uses of a config, for the devkit; `changes` are arguments of every data set."""
    kind = "transfer.data.voc.VOCDataset"
    splits = {name: {"type": kind, "root": str(folder), "splits": name, **changes} for name in ("train", "val", "test")}
    return {"data": splits, "loader": {"on_broken": "stop"}, "training": {"seed": 0}}


@dataclass(frozen=True)
class Fault:
    """One thing wrong and the finding it causes."""

    plant: Callable[[Path], None]
    code: str
    severity: str
    file: str
    """What the finding's file ends with; "" where no file is at fault."""
    message: str
    parts: str = "train"


def box_fault(number: int, corners: Corners, code: str, message: str, severity: str = "warning") -> Fault:
    """A third box in train_NUMBER."""
    stem = TRAIN[number]

    def plant(folder: Path) -> None:
        (folder / "Annotations" / f"{stem}.xml").write_text(xml_of(stem, [*APPLES, ("apple", corners)]))

    return Fault(plant, code, severity, f"Annotations/{stem}.xml", message)


def xml_fault(
    number: int, code: str, severity: str, message: str, *, old: str = "", new: str = "", text: str | None = None
) -> Fault:
    """The XML of train_NUMBER with a piece replaced, or as a whole."""
    stem = TRAIN[number]

    def plant(folder: Path) -> None:
        path = folder / "Annotations" / f"{stem}.xml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1) if text is None else text)

    return Fault(plant, code, severity, f"Annotations/{stem}.xml", message)


def image_fault(
    number: int, code: str, message: str, change: Callable[[bytes], bytes | None], *, at_xml: bool = False
) -> Fault:
    """The image of train_NUMBER with other bytes, or gone."""
    stem = TRAIN[number]

    def plant(folder: Path) -> None:
        path = folder / "JPEGImages" / f"{stem}.jpg"
        data = change(path.read_bytes())
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)

    return Fault(plant, code, "error", f"{stem}.xml" if at_xml else f"JPEGImages/{stem}.jpg", message)


def bomb_png() -> bytes:
    """A few bytes that state 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def _copy_image(source: str, target: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copyfile(folder / "JPEGImages" / source, folder / "JPEGImages" / target) and None


def _encode_again(folder: Path) -> None:
    """The picture of train_08 as lossless PNG, under the name of train_09."""
    image = Image.open(folder / "JPEGImages" / f"{TRAIN[8]}.jpg")
    (folder / "JPEGImages" / f"{TRAIN[9]}.jpg").unlink()
    from transfer.data.image import read_image

    decoded = read_image(folder / "JPEGImages" / f"{TRAIN[8]}.jpg")
    assert decoded.shape[:2] == image.size[::-1]
    Image.fromarray(decoded).save(folder / "JPEGImages" / f"{TRAIN[9]}.png")


def _rotate_by_exif(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(folder / "JPEGImages" / f"{TRAIN[24]}.jpg", exif=exif)


def _turn_by_half(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    write_image(folder / "JPEGImages" / f"{TRAIN[2]}.jpg", exif=exif)


def _repeat(folder: Path) -> None:
    path = folder / "ImageSets/Main/train.txt"
    path.write_text(path.read_text() + f"{TRAIN[0]}\n")


def _keep_back(folder: Path) -> None:
    write_image(folder / "JPEGImages/kept_back.jpg")
    (folder / "Annotations/kept_back.xml").write_text(xml_of("kept_back", APPLES))


def _take_pears_from_test(folder: Path) -> None:
    for stem in TEST[:3]:
        (folder / "Annotations" / f"{stem}.xml").write_text(xml_of(stem, APPLES))


VOC_FAULTS = {
    "missing image": image_fault(3, "image-missing", "no image of this name", lambda data: None, at_xml=True),
    "no image": image_fault(4, "image-unreadable", "no image in a known format", lambda data: b"<html>"),
    "empty file": image_fault(5, "image-unreadable", "0 bytes", lambda data: b""),
    "cut image": image_fault(6, "image-truncated", "cannot be decoded", lambda data: data[: len(data) * 2 // 3]),
    "bomb": image_fault(7, "image-too-large", "900000000 pixels", lambda data: bomb_png()),
    "twice in train, PNG": Fault(
        _encode_again, "image-duplicate", "warning", f"{TRAIN[9]}.png", "the same pixels in another encoding"
    ),
    "twice in train": Fault(
        _copy_image(f"{TRAIN[10]}.jpg", f"{TRAIN[11]}.jpg"),
        "image-duplicate", "warning", f"{TRAIN[11]}.jpg", f"byte for byte: {{}}/JPEGImages/{TRAIN[10]}.jpg",
    ),
    "in train and test": Fault(
        _copy_image(f"{TRAIN[12]}.jpg", f"{TEST[5]}.jpg"),
        "image-leak", "error", f"{TRAIN[12]}.jpg", f"in test: {{}}/JPEGImages/{TEST[5]}.jpg", "train, test",
    ),
    "broken XML": xml_fault(13, "xml-unreadable", "error", "not well-formed", text="<annotation><object>"),
    "billion laughs": xml_fault(14, "xml-unreadable", "error", "entities, which are refused", text=BILLION_LAUGHS),
    "no number": xml_fault(
        15, "object-faulty", "error", "object 1 ('apple'): <xmin> is 'left'", old="<xmin>3<", new="<xmin>left<"
    ),
    "missing XML": Fault(
        lambda folder: (folder / "Annotations" / f"{TRAIN[16]}.xml").unlink(),
        "annotation-missing", "error", "Main/train.txt", f"lists '{TRAIN[16]}'",
    ),
    "no area": box_fault(17, (30, 10, 30, 10), "box-without-area", "xmin 30, ymin 10, xmax 30, ymax 10"),
    "negative side": box_fault(18, (30, 10, 20, 20), "box-without-area", "xmin 30, ymin 10, xmax 20, ymax 20"),
    "outside": box_fault(19, (60, 10, 70, 20), "box-outside", "outside the image of 50x40"),
    "partly outside": box_fault(20, (40, 10, 58, 20), "box-partly-outside", "8 pixels beyond"),
    "one pixel outside": box_fault(21, (0, 10, 15, 20), "box-past-edge", "1 pixels beyond", "note"),
    "tiny": box_fault(22, (10, 10, 10.5, 20), "box-tiny", "1.5 x 11 pixels"),
    "the same box twice": box_fault(23, APPLES[0][1], "box-duplicate", "box 3 ('apple') is there before"),
    "rotated by EXIF": Fault(
        _rotate_by_exif, "size-of-stored-pixels", "note", f"{TRAIN[24]}.xml", "states 50x40, the image is 40x50",
    ),
    "turned by half": Fault(
        _turn_by_half, "rotation-unclear", "warning", f"JPEGImages/{TRAIN[2]}.jpg", "EXIF orientation 3, and its size",
    ),
    "size of 0x0": xml_fault(
        25, "size-unknown", "warning", "the image is 50x40", old="<width>50<", new="<width>0<"
    ),
    "another size": xml_fault(
        26, "size-differs", "error", "states 90x40, the image is 50x40", old="<width>50<", new="<width>90<"
    ),
    "slip in a name": xml_fault(
        27, "class-misspelt", "warning", "'Appel' (train: 1 box in 1 image) is a class of its own beside 'apple' (",
        old="apple", new="Appel",
    ),
    "unknown class": Fault(
        lambda folder: (folder / "Annotations" / f"{TEST[4]}.xml").write_text(
            xml_of(TEST[4], [*APPLES, ("paer", (3, 22, 20, 38))])
        ) and None,
        "class-unknown", "error", f"{TEST[4]}.xml", "'paer' does not occur in train: 1 box in 1 image; nearest: 'pear'",
        "test",
    ),
    "class not in test": Fault(
        _take_pears_from_test, "class-without-boxes", "warning", "", "no box of 'pear': it cannot be measured", "test"
    ),
    "image without XML": Fault(
        lambda folder: write_image(folder / "JPEGImages/stray.jpg"),
        "image-without-annotation", "warning", "JPEGImages/stray.jpg", "no stray.xml", "train, val, test",
    ),
    "XML without image": Fault(
        lambda folder: (folder / "Annotations/lonely.xml").write_text(xml_of("lonely", APPLES)) and None,
        "annotation-without-image", "warning", "lonely.xml", "no image of this name", "train, val, test",
    ),
    "repeated line": Fault(_repeat, "list-entry-repeated", "warning", "Main/train.txt", "1 of its 29 entries"),
    "not in a list": Fault(
        _keep_back, "annotation-not-listed", "note", "Annotations", "such as kept_back.xml", "train, val, test"
    ),
}  # fmt: skip
"""What is wrong -> the fault; all can be planted together."""


def coco_content(split: str, count: int) -> dict[str, Any]:
    """Sound content: each image with two apples, the first two with a pear, too."""
    images, annotations = [], []
    for number in range(count):
        images.append(
            {"id": number + 10, "file_name": f"{split}/{number}.jpg", "width": WIDTH, "height": HEIGHT, "license": 3}
        )
        boxes = [(5, [2, 2, 18, 18]), (5, [24, 4, 21, 26]), *([(9, [9, 21, 15, 17])] if number < 2 else [])]
        for category, box in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 100, "image_id": number + 10, "category_id": category, "bbox": box,
                    "area": 77.5, "iscrowd": 0, "segmentation": [[1, 2, 3, 4, 5, 6]], "attributes": {"pose": "left"},
                }
            )  # fmt: skip
    return {
        "info": {"year": 2020},
        "licenses": [{"id": 3, "name": "MIT"}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 5, "name": "apple", "supercategory": "fruit"}, {"id": 9, "name": "pear"}],
    }


def write_coco(folder: Path, changes: Callable[[dict[str, Any], dict[str, Any], Path], None] | None = None) -> Path:
    """train.json, test.json and images/; `changes` may edit both contents and the folder of the images."""
    contents = {"train": coco_content("train", 8), "test": coco_content("test", 4)}
    for split, content in contents.items():
        (folder / "images" / split).mkdir(parents=True)
        for entry in content["images"]:
            write_image(folder / "images" / entry["file_name"], entry["file_name"])
    if changes is not None:
        changes(contents["train"], contents["test"], folder / "images")
    for split, content in contents.items():
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


def plant_into_coco(train: dict[str, Any], test: dict[str, Any], images: Path) -> None:
    """Faults of many kinds in train; images 12, 13, 14 and 16 can stay."""
    first = {
        image_id: number for number, image_id in reversed(list(enumerate(e["image_id"] for e in train["annotations"])))
    }
    boxes = train["annotations"]
    boxes[first[10]]["bbox"] = [1, 2, 3]
    (images / "train/1.jpg").write_bytes((images / "train/1.jpg").read_bytes()[:-200])
    boxes[first[12]]["bbox"] = [4, 4, 0, 3]
    boxes[first[13]]["bbox"] = [40, 30, 20, 5]
    boxes[first[13] + 1]["category_id"] = 12
    train["categories"].append({"id": 12, "name": "Apple"})
    train["images"][4].update(width=0, height=0)
    (images / "train/5.jpg").write_bytes((images / "test/3.jpg").read_bytes())
    (images / "train/7.jpg").unlink()
    write_image(images / "train/stray.jpg")
    boxes += [{"id": 999, "image_id": 555, "category_id": 5, "bbox": [1, 1, 5, 5]}, "no object"]
    boxes.append({**boxes[0], "id": 1000, "image_id": 12, "category_id": 9, "bbox": [5, 20, 8, 8]})


def coco_config(folder: Path, **changes: Any) -> dict[str, Any]:
    """What a check uses of a config, for the COCO set."""
    kind = "transfer.data.coco.COCODataset"
    nodes = {
        name: {"type": kind, "annotations": str(folder / f"{name}.json"), "images": str(folder / "images"), **changes}
        for name in ("train", "test")
    }
    return {"data": {**nodes, "val": None}, "loader": {"on_broken": "stop"}, "training": {"seed": 0}}
