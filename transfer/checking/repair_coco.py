"""A repaired copy of a COCO JSON file.

Entries are changed in place and keep every key that is not repaired: ids, segmentation, area, iscrowd, licences. A box
that is clipped keeps its polygon. A class that is merged into another loses its entry in `categories`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transfer.checking.repair_plan import BoxRepair, ImageRepair
from transfer.data.table_builder import Origin
from transfer.types import Size


def write_json(
    origin: Origin, repairs: Sequence[ImageRepair], target: Path, images: Path, link: Callable[[str, Path], None]
) -> None:
    """Write one JSON file, and link its images.

    Args:
        origin: where it comes from.
        repairs: the images that stay.
        target: the new file.
        images: stands for the origin's folder of images.
        link: (original image, new name).
    """
    content = json.loads(origin.annotations.read_bytes())
    text = json.dumps(repaired_json(content, repairs), ensure_ascii=False)
    target.write_text(text, encoding="utf-8", errors="backslashreplace")  # half characters stay as they were: \ud800
    for repair in repairs:
        name = os.path.relpath(repair.image.path, origin.images)
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        link(repair.image.path, images / name)


def repaired_json(content: dict[str, Any], repairs: Sequence[ImageRepair]) -> dict[str, Any]:
    """The file's content with the changes; `content` is not to be used afterwards."""
    by_id = {_image_id(repair): repair for repair in repairs}
    content["images"] = [entry for entry in content["images"] if _id(entry, "id") in by_id]
    for entry in content["images"]:
        size = by_id[entry["id"]].write_size
        if size is not None:
            entry["height"], entry["width"] = size
    names = _new_names(repairs)
    content["categories"], merged = _categories(content["categories"], names)
    boxes = {image_id: iter(repair.boxes) for image_id, repair in by_id.items()}
    kept = []
    for entry in content["annotations"]:
        image_id = _id(entry, "image_id")
        if image_id not in by_id:
            continue
        box = next(boxes[image_id])  # the reader takes all annotations of a sound image, in this order
        if box.removed:
            continue
        entry["category_id"] = merged.get(entry["category_id"], entry["category_id"])
        if box.clipped:
            entry["bbox"] = _clipped(entry["bbox"], by_id[image_id].limits)
        kept.append(entry)
    content["annotations"] = kept
    return content


def _image_id(repair: ImageRepair) -> int | str:
    return repair.image.builder.image_ids[repair.image.position]


def _id(entry: Any, key: str) -> int | None:
    """None for what is no entry: it belongs to no image that stays."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _new_names(repairs: Sequence[ImageRepair]) -> dict[str, str]:
    """Stated name -> new name, of all boxes that change theirs."""

    def pairs(repair: ImageRepair) -> list[tuple[str, BoxRepair]]:
        return [(box.name, change) for box, change in zip(repair.image.boxes, repair.boxes)]

    return {name: box.name for repair in repairs for name, box in pairs(repair) if box.name is not None}


def _categories(entries: list[Any], names: dict[str, str]) -> tuple[list[Any], dict[int, int]]:
    """The entries under their new names, and old id -> new id of those merged into another."""
    ids = {entry["name"]: entry["id"] for entry in entries}
    kept, merged = [], {}
    for entry in entries:
        new = names.get(entry["name"])
        if new is not None and new in ids and ids[new] != entry["id"]:
            merged[entry["id"]] = ids[new]
            continue
        if new is not None:
            entry["name"] = new
            ids[new] = entry["id"]  # a second name that becomes this one is merged into it
        kept.append(entry)
    return kept, merged


def _clipped(box: list[float], limits: Size) -> list[float]:
    """[x, y, width, height] within (height, width)."""
    x, y, width, height = box
    left, top = max(x, 0), max(y, 0)
    return [left, top, min(x + width, limits[1]) - left, min(y + height, limits[0]) - top]
