"""What a set states that a format has no place for, counted: one line each.

Between equal formats an entry keeps all it had. A flag counts where it says something: a truncated=0 is not missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from transfer.convert.annotated import AnnotatedObject, AnnotatedSet, Format

_FORMAT_NAMES = {"voc": "VOC", "coco": "COCO", "yolo": "YOLO text"}


def has_swapped_corners(item: AnnotatedObject) -> bool:
    """A box whose right or bottom edge comes first: a slip that no format but VOC, where it is met, should be given."""
    x0, y0, x1, y1 = item.corners
    return x1 < x0 or y1 < y0


def only_polygons(dataset: AnnotatedSet) -> bool:
    """Whether every object has exactly one polygon, which spans its box within a hundredth of a pixel."""
    objects = [item for image in dataset.images for item in image.objects]
    return bool(objects) and all(map(_is_its_polygon, objects))


def _is_its_polygon(item: AnnotatedObject) -> bool:
    polygons = item.segmentation
    if not isinstance(polygons, list) or len(polygons) != 1 or not isinstance(polygons[0], list) or item.crowd:
        return False
    points = polygons[0]
    if len(points) < 6 or len(points) % 2 or not all(isinstance(value, (int, float)) for value in points):
        return False
    x, y = points[::2], points[1::2]
    spans = (min(x), min(y), max(x), max(y))
    return all(abs(a - b) <= 0.01 for a, b in zip(spans, item.corners))


def unheld(dataset: AnnotatedSet, target: Format) -> list[str]:
    """What is lost on the way to a format.

    Args:
        dataset: after renaming and splitting.
        target: the format to be written.

    Returns:
        Lines such as "difficult flags of 12 boxes: YOLO text has no place for them".
    """
    objects = [item for image in dataset.images for item in image.objects]
    lines = []

    def count(what: str, applies: Callable[[AnnotatedObject], object], then: str | None = None) -> None:
        number = sum(bool(applies(item)) for item in objects)
        if number:
            boxes = f"{number} box{'' if number == 1 else 'es'}"
            lines.append(f"{what} {boxes}: {then or f'{_FORMAT_NAMES[target]} has no place for them'}")

    if target == "yolo":
        count("difficult flags of", lambda item: item.difficult)
        count("truncated flags of", lambda item: item.truncated)
        count("occluded flags of", lambda item: item.occluded)
        count("poses of", lambda item: item.pose not in (None, "", "Unspecified"))
        count("crowd flags of", lambda item: item.crowd, "left out, since YOLO text would make objects of them")
        count("stated areas of", lambda item: item.area is not None and not item.crowd)
    if target == "voc":
        count("crowd flags of", lambda item: item.crowd, "written as difficult, and as <iscrowd> for the way back")
        if dataset.format != "voc":
            then = "in VOC's corners they look like a click without a drag, and its data set class drops them"
            count("sides of a pixel or less of", _is_a_pixel_wide, then)
    if target != "coco" and not (target == "yolo" and only_polygons(dataset)):
        count("segmentations of", lambda item: item.segmentation is not None)
    if target != "voc" and dataset.format != target:
        count("swapped corners in", has_swapped_corners, "left out")
    if target == "yolo":
        lines += _lost_in_fractions(dataset)
    if target == "coco" and dataset.format != "coco":
        then = (
            'kept as "difficult" and "ignore", which COCODataset here reads; to other readers these are boxes like any'
        )
        count("difficult flags of", lambda item: item.difficult, then)
    if target == "coco" and (clash := _clashing_ids(dataset)):
        lines.append(clash)
    if dataset.format != target:
        lines += _others(dataset, target)
    return lines


def ids_clash(dataset: AnnotatedSet) -> tuple[bool, bool]:
    """Whether ids of images, and of boxes, stand for several within one split's file.

    Each of a source's files may count from 1: that does no harm while they stay apart.
    """
    clash = [False, False]
    for split in dataset.splits:
        images = [image for image in dataset.images if split in image.splits]
        for position, ids in enumerate(([image.id for image in images], [o.id for i in images for o in i.objects])):
            known = [number for number in ids if number is not None]
            clash[position] = clash[position] or len(set(known)) < len(known)
    return clash[0], clash[1]


def _clashing_ids(dataset: AnnotatedSet) -> str | None:
    parts = [what for what, clash in zip(("images", "boxes"), ids_clash(dataset)) if clash]
    return f"ids of {' and '.join(parts)}: some stand for several, so all get new ones" if parts else None


def _is_a_pixel_wide(item: AnnotatedObject) -> bool:
    x0, y0, x1, y1 = item.corners
    return 0 < x1 - x0 <= 1 + 1e-3 or 0 < y1 - y0 <= 1 + 1e-3


def _lost_in_fractions(dataset: AnnotatedSet) -> list[str]:
    """Boxes that are clipped, and the ids of COCO."""
    lines = []
    outside = 0
    for image in dataset.images:
        height, width = image.size
        for x0, y0, x1, y1 in (item.corners for item in image.objects if not item.crowd):
            outside += min(x0, y0) < 0 or x1 > width or y1 > height
    if outside:
        lines.append(f"the parts of {outside} boxes beyond their image: clipped, since YOLO text counts from 0 to 1")
    images = sum(image.id is not None for image in dataset.images)
    boxes = sum(item.id is not None for image in dataset.images for item in image.objects)
    if images or boxes:
        lines.append(f"ids of {images} images and {boxes} boxes: YOLO text has no place for them")
    ids = sum(category.id is not None for category in dataset.categories)
    above = sum(category.supercategory not in (None, "", "none") for category in dataset.categories)
    if ids:
        lines.append(f"ids of {ids} classes: YOLO text counts them from 0, in the order of the ids")
    if above:
        lines.append(f"super-categories of {above} classes: YOLO text has no place for them")
    return lines


def _others(dataset: AnnotatedSet, target: Format) -> list[str]:
    """What only the entries as read hold."""
    groups = {
        "images": Counter(name for image in dataset.images for name in set(image.others)),
        "boxes": Counter(name for image in dataset.images for item in image.objects for name in set(item.others)),
        "classes": Counter(name for category in dataset.categories for name in set(category.others)),
        "files": Counter(repr(key) for header in dataset.headers.values() for key in header),
    }
    lines = []
    for owner, counted in groups.items():
        if counted:
            shown = ", ".join(f"{name} of {number}" for name, number in sorted(counted.items()))
            lines.append(f"{shown} {owner}: {_FORMAT_NAMES[target]} has no place for them")
    return lines
