"""One PASCAL VOC annotation file: bytes to boxes.

Source: Everingham et al. 2010, The PASCAL Visual Object Classes Challenge, and its development kit's annotation files.
Corners there are pixels counted from 1, the last one belonging to the box: (xmin, ymin, xmax, ymax) becomes
(xmin - 1, ymin - 1, xmax, ymax) here and nowhere else. Deviations from the kit, all met in real files: coordinates may
be fractions, a size of 0x0 or none means "unknown", and a box whose stated corners span no area is marked empty.

Only direct children of <object> count: a <part> has a <bndbox> of its own. Files come from strangers, so document types
and entities are refused (an entity bomb is a few lines), and so is a file of improbable length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from transfer.data.table_builder import Box
from transfer.types import Size

MAX_XML_BYTES = 4 << 20

_LARGEST = 1 << 31
_DEEPEST = 50
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class BadXML(ValueError):
    """The file cannot be used; the text is the reason, without the file's name."""


class BadObject(BadXML):
    """The file is sound but for one or more of its objects; the text has the reason of each."""


@dataclass(slots=True)
class VOCAnnotation:
    """What one file states."""

    filename: str
    """Text of <filename>, unchecked: it may lie and may hold folders."""
    size: Size | None
    boxes: list[Box]


def parse_voc_xml(data: bytes) -> VOCAnnotation:
    """Read one annotation.

    Args:
        data: the file's bytes.

    Raises:
        BadXML: not VOC XML, or forbidden constructs.
        BadObject: objects without a usable name or box.
    """
    return read_annotation(voc_root(data))


def voc_root(data: bytes) -> Element:
    """The <annotation> element of a file, for those who need more of it than boxes.

    Raises:
        BadXML: not VOC XML, or forbidden constructs.
    """
    if len(data) > MAX_XML_BYTES:
        raise BadXML(f"has {len(data)} bytes; the limit is {MAX_XML_BYTES}")
    try:
        root = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise BadXML(f"declares a document type or entities, which are refused ({type(error).__name__})") from None
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an encoding Python does not know
        raise BadXML(f"is not well-formed XML: {error}") from None
    level, depth = [root], 1
    while level:  # what copies or writes a tree follows it by recursion
        if depth > _DEEPEST:
            raise BadXML(f"has elements in elements, more than {_DEEPEST} deep")
        level, depth = [child for element in level for child in element], depth + 1
    if root.tag != "annotation":
        raise BadXML(f"is not a VOC annotation: its root is <{root.tag}>, not <annotation>")
    return root


def read_annotation(root: Element) -> VOCAnnotation:
    """File name, size and boxes of an <annotation> element.

    Raises:
        BadObject: objects without a usable name or box.
    """
    boxes, problems = [], []
    for position, element in enumerate(root.findall("object"), 1):
        try:
            boxes.append(_box(element, position))
        except BadObject as error:
            problems.append(str(error))
    if problems:
        raise BadObject("; ".join(problems))
    return VOCAnnotation((root.findtext("filename") or "").strip(), _size(root), boxes)


def _size(root: Element) -> Size | None:
    """(height, width), or None where the file does not say."""
    try:
        height, width = (int(float(root.findtext(f"size/{side}") or 0)) for side in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if 0 < height <= _LARGEST and 0 < width <= _LARGEST else None


def _box(element: Element, position: int) -> Box:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise BadObject(f"object {position} has no <name>")
    corners = element.find("bndbox")
    if corners is None:
        raise BadObject(f"object {position} ({name!r}) has no <bndbox>")
    xmin, ymin, xmax, ymax = (_number(corners, tag, position, name) for tag in _CORNERS)
    difficult = (element.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise BadObject(f"object {position} ({name!r}): <difficult> is {difficult!r}, not 0 or 1")
    return Box(
        name=name,
        corners=(xmin - 1, ymin - 1, xmax, ymax),
        difficult=difficult == "1",
        empty=xmin >= xmax or ymin >= ymax,
    )


def _number(corners: Element, tag: str, position: int, name: str) -> float:
    text = corners.findtext(tag)
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadObject(f"object {position} ({name!r}): <{tag}> is {text!r}, not a finite number")
    return value
