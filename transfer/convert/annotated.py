"""A data set with everything its files state, between a reader (read_*.py) and a writer (write_*.py).

Unlike `DetectionTable`, which holds what training needs, nothing is clipped, dropped or rounded here: boxes are
float64 corners as stated (right and bottom exclusive, as everywhere), and flags that a format does not have are None,
not False. What has no field of its own stays in `source`, the entry as read: the same format's writer starts from it,
so VOC to VOC and COCO to COCO lose nothing; for the other formats `others` names it, so that it can be counted
(unheld.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from xml.etree.ElementTree import Element

from transfer.types import Size

Format = Literal["voc", "coco", "yolo"]

Corners = tuple[float, float, float, float]


@dataclass(slots=True)
class AnnotatedObject:
    """One object of an image."""

    name: str
    corners: Corners
    """xyxy pixels; x_max <= x_min where the file states a box without area."""
    difficult: bool | None = None
    truncated: bool | None = None
    occluded: bool | None = None
    pose: str | None = None
    crowd: bool | None = None
    area: float | None = None
    """Square pixels, where stated."""
    segmentation: Any = None
    """As COCO has it: polygons [[x1, y1, ...], ...] in pixels, or a run-length code."""
    id: int | None = None
    """COCO's annotation id."""
    source: Element | dict[str, Any] | None = None
    """VOC's <object> or COCO's annotation, as read."""
    others: tuple[str, ...] = ()
    """Names of what only `source` holds, such as "<part>" or "'keypoints'"."""


@dataclass(slots=True)
class AnnotatedImage:
    """One image of a data set."""

    path: str
    name: str
    """Its path below the folder that the format keeps images in; "/" between the parts."""
    group: str
    """What tells it from an image of the same name in another of the source's folders: a split or a year."""
    where: str
    """File or entry that the boxes come from, for messages."""
    size: Size
    """(height, width) of the pixels that the boxes are drawn on: the displayed or the stored ones."""
    orientation: int
    """EXIF's value that turns these pixels into the displayed ones; 1 where they are."""
    depth: int
    """Channels."""
    objects: list[AnnotatedObject] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    """The splits it belongs to; several where they overlap (VOC's train and trainval)."""
    id: int | None = None
    """COCO's image id."""
    source: Element | dict[str, Any] | None = None
    """VOC's <annotation> or COCO's image, as read."""
    others: tuple[str, ...] = ()


@dataclass(slots=True)
class Category:
    """One class."""

    name: str
    id: int | None = None
    """COCO's category id."""
    supercategory: str | None = None
    source: dict[str, Any] | None = None
    """COCO's category, as read."""
    others: tuple[str, ...] = ()


@dataclass(slots=True)
class AnnotatedSet:
    """A whole data set."""

    source: str
    """The path that was read, for messages."""
    format: Format
    images: list[AnnotatedImage] = field(default_factory=list)
    categories: list[Category] = field(default_factory=list)
    """In their order: VOC's sorted by name (unless the data came from COCO), COCO's and YOLO's as stated."""
    splits: list[str] = field(default_factory=list)
    """In the order of reading."""
    headers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Split -> what its COCO file holds beside images, annotations and categories."""
    problems: list[str] = field(default_factory=list)
    """One line for each fault that makes an image unusable."""
    contradicted: list[str] = field(default_factory=list)
    """Annotations whose stated size contradicts their boxes; the image's own was taken."""
    notes: list[str] = field(default_factory=list)
    """What a user has to know about the reading, one line each."""

    def names(self) -> list[str]:
        """Class names in the order of the categories."""
        return [category.name for category in self.categories]
