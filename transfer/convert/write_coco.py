"""An `AnnotatedSet` to COCO's layout: annotations/instances_{split}.json and images/.

An entry that was read from COCO is written with every key it had; ids and digits stay. Others get ids in the order of
the images (an image whose name is a number: that number, as COCO's own are), areas from polygon or box, and the flags
that VOC states as keys that COCO does not know: "difficult" (and "ignore", as other converters write it), "truncated",
"occluded", "pose". Where an id would stand for several entries of one file, all get new ones.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer.convert.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet, Category
from transfer.convert.unheld import has_swapped_corners, ids_clash

IMAGES = "images"

_DIGITS = 6
"""Decimals of a coordinate: enough that VOC's and COCO's own come back from YOLO's fractions as they were."""


def write_coco(dataset: AnnotatedSet, names: Sequence[str], folder: Path) -> list[str]:
    """Write one JSON file for each split.

    Args:
        dataset: the images with their splits.
        names: each image's path below images/.
        folder: existing and empty.

    Returns:
        Where each image belongs, relative to `folder`.
    """
    (folder / "annotations").mkdir()
    (folder / IMAGES).mkdir()
    categories = _categories(dataset.categories)
    category_ids = {category["name"]: category["id"] for category in categories}
    images, objects = _entries(dataset, names, category_ids)
    for split in dataset.splits:
        chosen = [position for position, image in enumerate(dataset.images) if split in image.splits]
        content: dict[str, Any] = dict(_header(dataset, split))
        content["images"] = [images[position] for position in chosen]
        content["annotations"] = [entry for position in chosen for entry in objects[position]]
        content["categories"] = categories
        text = json.dumps(content, ensure_ascii=False)
        # half characters, as JSON may hold them, are written as they were: \ud800
        (folder / "annotations" / f"instances_{split}.json").write_text(
            text + "\n", encoding="utf-8", errors="backslashreplace"
        )
    return [f"{IMAGES}/{name}" for name in names]


def _header(dataset: AnnotatedSet, split: str) -> dict[str, Any]:
    """What the source's file says of itself; of a new split, what its files say together."""
    if split in dataset.headers:
        return dataset.headers[split]
    return {key: value for header in reversed(dataset.headers.values()) for key, value in header.items()}


def _entries(
    dataset: AnnotatedSet, names: Sequence[str], category_ids: dict[str, int]
) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """The entries of `images`, and those of `annotations` for each image."""
    images_clash, boxes_clash = ids_clash(dataset)
    image_ids = _image_ids(dataset, names, clash=images_clash)
    kept = [[item for item in image.objects if not _left_out(item)] for image in dataset.images]
    object_ids = _known([item.id for items in kept for item in items])
    if object_ids is None or boxes_clash:
        object_ids = list(range(1, sum(map(len, kept)) + 1))
    following = iter(object_ids)
    images, objects = [], []
    for image, name, image_id, items in zip(dataset.images, names, image_ids, kept):
        images.append(_image(image, name, image_id))
        objects.append([_object(item, next(following), image_id, category_ids[item.name]) for item in items])
    return images, objects


def _left_out(item: AnnotatedObject) -> bool:
    return has_swapped_corners(item) and not isinstance(item.source, dict)


def _known(ids: Sequence[int | None]) -> list[int] | None:
    """The ids, where nothing is without."""
    known = [number for number in ids if number is not None]
    return known if len(known) == len(ids) else None


def _image_ids(dataset: AnnotatedSet, names: Sequence[str], *, clash: bool) -> list[int]:
    ids = _known([image.id for image in dataset.images])
    if ids is not None and not clash:
        return ids
    stems = [Path(name).stem for name in names]
    if all(image.id is None and stem.isascii() and stem.isdecimal() for image, stem in zip(dataset.images, stems)):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers) and max(numbers) < 1 << 53:  # JSON's numbers are exact up to here
            return numbers
    return list(range(1, len(names) + 1))


def _categories(categories: Sequence[Category]) -> list[dict[str, Any]]:
    """Entries of `categories`; a class without id gets one that is not taken."""
    taken = {category.id for category in categories}
    unused = (number for number in itertools.count(1) if number not in taken)
    entries = []
    for category in categories:
        entry = dict(category.source or {})
        entry.update({"id": next(unused) if category.id is None else category.id, "name": category.name})
        if category.supercategory is not None:
            entry["supercategory"] = category.supercategory
        entries.append(entry)
    return entries


def _image(image: AnnotatedImage, name: str, image_id: int) -> dict[str, Any]:
    entry = dict(image.source) if isinstance(image.source, dict) else {}
    entry.update({"id": image_id, "file_name": name, "width": image.size[1], "height": image.size[0]})
    return entry


def _object(item: AnnotatedObject, number: int, image_id: int, category_id: int) -> dict[str, Any]:
    ids = {"id": number, "image_id": image_id, "category_id": category_id}
    if isinstance(item.source, dict):
        return {**item.source, **ids}
    x0, y0, x1, y1 = item.corners
    entry: dict[str, Any] = {
        **ids,
        "bbox": [_rounded(value) for value in (x0, y0, x1 - x0, y1 - y0)],
        "area": _rounded(_area(item) if item.area is None else item.area),
        "iscrowd": int(item.crowd or False),
    }
    if item.segmentation is not None:
        entry["segmentation"] = [[_rounded(value) for value in polygon] for polygon in item.segmentation]
    if item.difficult is not None:
        entry |= {"difficult": int(item.difficult), "ignore": int(item.difficult)}
    for key, flag in (("truncated", item.truncated), ("occluded", item.occluded)):
        if flag is not None:
            entry[key] = int(flag)
    if item.pose is not None:
        entry["pose"] = item.pose
    return entry


def _area(item: AnnotatedObject) -> float:
    """Of the polygons (the shoelace formula), else of the box."""
    x0, y0, x1, y1 = item.corners
    if item.segmentation is None:
        return (x1 - x0) * (y1 - y0)
    area = 0.0
    for polygon in item.segmentation:
        x, y = polygon[::2], polygon[1::2]
        area += abs(sum(x[k - 1] * y[k] - x[k] * y[k - 1] for k in range(len(x)))) / 2
    return area


def _rounded(value: float) -> float | int:
    rounded = round(value, _DIGITS)
    return int(rounded) if rounded == int(rounded) else rounded
