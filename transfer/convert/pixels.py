"""Which pixels an image's boxes are drawn on: the displayed or the stored ones, and how to get from one to the other.

The header of every image is read, for a wrong size makes wrong boxes in a format that states fractions. The rules are
those of training (transfer/data/image.py, table_builder.py): a stated size is that of the displayed or of the stored
pixels; one that is neither and that the boxes contradict is replaced; one that is neither and fits the boxes means
boxes of another image, which is a fault here, since training would stop at it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transfer.convert.annotated import Corners
from transfer.data.image import BrokenSample, image_header
from transfer.types import Size

_ROUNDING = 1.0
_GREY = ("1", "L", "I", "I;16", "I;16B", "F")


@dataclass(slots=True, frozen=True)
class Pixels:
    """The pixels that boxes are drawn on."""

    size: Size
    orientation: int
    """EXIF's value that turns them into the displayed ones; 1 where they are."""
    depth: int
    """Channels."""
    contradicted: bool
    """The stated size was replaced by the file's."""


def look_up_pixels(path: str, stated: Size | None, boxes: Iterable[Corners]) -> Pixels:
    """Compare what an annotation states with the image's header.

    Args:
        path: the image.
        stated: (height, width); None: nothing is stated, the boxes are drawn on the displayed pixels.
        boxes: xyxy pixels.

    Raises:
        BrokenSample: the image cannot be read, or the boxes are another image's.
    """
    header = image_header(path)
    depth = 1 if header.mode in _GREY else 3
    if stated is None or stated == header.size:
        return Pixels(header.size, 1, depth, False)
    if stated == header.stored_size:
        return Pixels(stated, header.orientation, depth, False)
    right, bottom = stated[1] + _ROUNDING, stated[0] + _ROUNDING
    if any(corners[2] > right or corners[3] > bottom for corners in boxes):
        return Pixels(header.size, 1, depth, True)
    reason = f"is {header.size[1]}x{header.size[0]} but its annotation says {stated[1]}x{stated[0]} (width x height)"
    raise BrokenSample(f"{path}: {reason}", path=path, reason=reason)


def displayed_size(size: Size, orientation: int) -> Size:
    """(height, width) after turning pixels of `size` by EXIF's orientation."""
    return (size[1], size[0]) if orientation >= 5 else size


def displayed_point(x: float, y: float, size: Size, orientation: int) -> tuple[float, float]:
    """Where a point of stored pixels of `size` is displayed (EXIF 2.32, tag 0x0112)."""
    height, width = displayed_size(size, orientation)
    if orientation >= 5:  # the stored rows are the displayed columns
        x, y = y, x
    if orientation in (2, 3, 6, 7):
        x = width - x
    if orientation in (3, 4, 7, 8):
        y = height - y
    return x, y


def displayed_corners(corners: Corners, size: Size, orientation: int) -> Corners:
    """Where a box on stored pixels of `size` is displayed."""
    if orientation == 1:
        return corners
    (x0, y0), (x1, y1) = (displayed_point(*point, size, orientation) for point in (corners[:2], corners[2:]))
    return (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
