"""An `AnnotatedSet` to VOC's layout: Annotations/, JPEGImages/, ImageSets/Main/.

Corners become VOC's here and nowhere else: 1-based with the last pixel inside, so (xmin, ymin, xmax, ymax) is
(x_min + 1, y_min + 1, x_max, y_max). A coordinate within 1e-3 pixels of a whole number is written as one, else as a
decimal. A box without area is written with equal corners, as VOC's own tools leave it.

An image read from VOC is written from its own XML with every element it had; only the name, a wrong size and renamed
classes change. What VOC has no place for but COCO states is put where read_voc.py finds it and others pass it over:
<id>, <area>, <iscrowd>, and categories.json. A crowd region is marked difficult, or VOC's readers would take it for an
object.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from transfer.convert.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet, Corners
from transfer.convert.read_voc import CATEGORIES_FILE
from transfer.types import UserError

IMAGES = "JPEGImages"

_WHOLE = 1e-3
# what XML 1.0 cannot hold, escaped or not
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_voc(dataset: AnnotatedSet, names: Sequence[str], folder: Path) -> list[str]:
    """Write annotations and split lists.

    Args:
        dataset: the images with their splits.
        names: each image's file name.
        folder: existing and empty.

    Returns:
        Where each image belongs, relative to `folder`.

    Raises:
        UserError: text that XML cannot hold.
    """
    _check_text(dataset, names)
    for part in ("Annotations", IMAGES, "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for image, name in zip(dataset.images, names):
        root = _annotation(image, name)
        indent(root, "\t")
        text = tostring(root, encoding="unicode") + "\n"
        (folder / "Annotations" / f"{Path(name).stem}.xml").write_text(text, encoding="utf-8")
    for split in dataset.splits:
        stems = [Path(name).stem for image, name in zip(dataset.images, names) if split in image.splits]
        lines = "".join(f"{stem}\n" for stem in stems)
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(lines, encoding="utf-8")
    _write_categories(dataset, folder / CATEGORIES_FILE)
    return [f"{IMAGES}/{name}" for name in names]


def voc_corners(corners: Corners) -> list[str]:
    """xmin, ymin, xmax, ymax as VOC's text."""
    x0, y0, x1, y1 = corners
    return [
        _coordinate(x0 + 1),
        _coordinate(y0 + 1),
        _coordinate(x1 + 1 if x1 == x0 else x1),
        _coordinate(y1 + 1 if y1 == y0 else y1),
    ]


def _coordinate(value: float) -> str:
    nearest = round(value)
    return str(nearest) if abs(value - nearest) <= _WHOLE else f"{value:.6f}".rstrip("0")


def _annotation(image: AnnotatedImage, name: str) -> Element:
    root = Element("annotation")
    objects = [_object(item) for item in image.objects]
    if isinstance(image.source, Element):
        for child in image.source:
            if child.tag != "object":
                root.append(copy.deepcopy(child))
        _set(root, "filename", name)
    else:
        SubElement(root, "folder").text = IMAGES
        SubElement(root, "filename").text = name
        if image.id is not None:
            SubElement(root, "id").text = str(image.id)
    size = root.find("size")
    size = SubElement(root, "size") if size is None else size
    for side, value in (("width", image.size[1]), ("height", image.size[0]), ("depth", image.depth)):
        _set(size, side, str(value))
    if not isinstance(image.source, Element):
        SubElement(root, "segmented").text = "0"
    root.extend(objects)
    return root


def _object(item: AnnotatedObject) -> Element:
    if isinstance(item.source, Element):
        element = copy.deepcopy(item.source)
        _set(element, "name", item.name)
        return element
    element = Element("object")
    SubElement(element, "name").text = item.name
    SubElement(element, "pose").text = item.pose or "Unspecified"
    SubElement(element, "truncated").text = str(int(item.truncated or False))
    if item.occluded is not None:
        SubElement(element, "occluded").text = str(int(item.occluded))
    SubElement(element, "difficult").text = str(int(bool(item.difficult or item.crowd)))
    for tag, value in (("id", item.id), ("area", item.area)):
        if value is not None:
            SubElement(element, tag).text = repr(value)
    if item.crowd:
        SubElement(element, "iscrowd").text = "1"
    box = SubElement(element, "bndbox")
    for tag, text in zip(("xmin", "ymin", "xmax", "ymax"), voc_corners(item.corners)):
        SubElement(box, tag).text = text
    return element


def _set(parent: Element, tag: str, text: str) -> None:
    """Give the child `tag` another text; one is made where there is none."""
    child = parent.find(tag)
    child = SubElement(parent, tag) if child is None else child
    if (child.text or "").strip() != text:
        child.text = text


def _write_categories(dataset: AnnotatedSet, path: Path) -> None:
    """Only where there is more to say than names in the order of the alphabet."""
    entries = []
    for category in dataset.categories:
        entry = {"id": category.id, "name": category.name, "supercategory": category.supercategory}
        entries.append({key: value for key, value in entry.items() if value is not None})
    used = sorted({item.name for image in dataset.images for item in image.objects})
    if entries != [{"name": name} for name in used]:
        path.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_text(dataset: AnnotatedSet, names: Sequence[str]) -> None:
    """Raises: UserError for all names that XML cannot hold or that its readers would change."""
    problems = [
        f"class {name!r}: VOC's XML cannot hold this name; give another with --rename"
        for name in dataset.names()
        if _FORBIDDEN.search(name) or name != name.strip() or not name
    ]
    for image, name in zip(dataset.images, names):
        if _FORBIDDEN.search(name):
            problems.append(f"{image.path}: VOC's XML cannot hold the file name {name!r}; rename the file")
    if problems:
        raise UserError("\n".join(problems[:20]))
