"""A repaired copy of VOC's XML files and split lists.

Only what changes is touched: the elements of a box that is clipped, a name, a size. Pose, truncated, difficult, parts,
polygons, comments and unknown elements stay; a file without change is copied byte by byte.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, TreeBuilder

from defusedxml.ElementTree import DefusedXMLParser

from transfer.checking.repair_plan import ImageRepair
from transfer.data.listing import find_name
from transfer.data.table_builder import Origin
from transfer.data.voc import listed_stem
from transfer.types import Size


def write_xml_files(
    origin: Origin, repairs: Sequence[ImageRepair], place: Path, link: Callable[[str, Path], None]
) -> None:
    """Write the annotations of one folder, and link their images.

    Args:
        origin: where they come from.
        repairs: the images that stay.
        place: stands for the origin's root.
        link: (original image, new name).
    """
    annotations = place / origin.annotations.relative_to(origin.root)
    images = place / origin.images.relative_to(origin.root)
    for folder in (annotations, images):
        folder.mkdir(parents=True, exist_ok=True)
    for repair in repairs:
        source = Path(repair.image.annotation)
        target = annotations / source.name
        if repair.changes:
            target.write_bytes(repaired_xml(source.read_bytes(), repair))
        else:
            shutil.copyfile(source, target)
        link(repair.image.path, images / Path(repair.image.path).name)


def write_lists(origin: Origin, repairs: Sequence[ImageRepair], place: Path) -> None:
    """Write the split lists with the lines of the images that stay, each once."""
    known = {path.stem for path in origin.annotations.glob("*.xml")}
    left = {Path(repair.image.annotation).stem for repair in repairs}
    for path in origin.lists:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        kept = []
        for line in lines:
            stem = listed_stem(line, known)
            stem = None if stem is None else find_name(known, stem)
            if stem in left:
                kept.append(line)
                left.remove(stem)
        target = place / path.relative_to(origin.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def repaired_xml(data: bytes, repair: ImageRepair) -> bytes:
    """The annotation's bytes with the repair's changes."""
    parser = DefusedXMLParser(target=TreeBuilder(insert_comments=True), forbid_dtd=True)
    parser.feed(data)
    root: Element = parser.close()
    if repair.write_size is not None:
        _set_size(root, repair.write_size)
    objects = root.findall("object")
    assert len(objects) == len(repair.boxes), "the reader takes every object, or none of the file"
    for element, box, stated in zip(objects, repair.boxes, repair.image.boxes):
        if box.removed:
            root.remove(element)
            continue
        if box.clipped:
            _clip(element, stated.corners, repair.limits)
        if box.name is not None:
            _child(element, "name").text = box.name
    if data.endswith(b"\n"):
        root.tail = "\n"
    written = io.BytesIO()
    ElementTree(root).write(written, encoding="utf-8", xml_declaration=data.lstrip().startswith(b"<?xml"))
    return written.getvalue()


def _set_size(root: Element, size: Size) -> None:
    element = root.find("size")
    if element is None:
        element = SubElement(root, "size")
    for side, value in zip(("height", "width"), size):
        child = element.find(side)
        (SubElement(element, side) if child is None else child).text = str(value)


def _clip(element: Element, corners: tuple[float, float, float, float], limits: Size) -> None:
    height, width = limits
    bounds = _child(element, "bndbox")
    for tag, value, limit, first in zip(
        ("xmin", "ymin", "xmax", "ymax"), corners, (width, height, width, height), (1, 1, 0, 0)
    ):
        clipped = min(max(value, 0.0), float(limit))
        if clipped != value:  # VOC counts from 1, and its last pixel is inside
            _child(bounds, tag).text = f"{clipped + first:.10g}"


def _child(element: Element, tag: str) -> Element:
    child = element.find(tag)
    assert child is not None, f"the reader refuses an object without <{tag}>"
    return child
