"""An `AnnotatedSet` to YOLO's layout: images/<split>/, labels/<split>/ and data.yaml.

Fractions have up to 12 decimals: at 8000 pixels that is 1e-8 of a pixel, so whole pixels come back exactly, through
float32 as well, and COCO's hundredths do, too. Boxes are turned to the displayed pixels, where the format counts, and
clipped to the image (Ultralytics refuses a whole file for one coordinate outside). Crowd regions are left out.

Each image lies in the smallest of its splits; a split that is not exactly one folder (VOC's trainval; folds) is a list
file. A fold k has a foldk.yaml of its own. There is no `path:`: paths then count from the YAML file, wherever it goes.

Polygons are written where every object of the set has exactly one and it spans the box, that is, where the set came
with polygons only: Ultralytics reads all lines of a file as polygons when one is, boxes included.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer.convert.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet
from transfer.convert.pixels import displayed_corners, displayed_point, displayed_size
from transfer.convert.unheld import has_swapped_corners, only_polygons
from transfer.types import UserError

IMAGES = "images"

_POOL = "all"
"""The folder of images that are in folds."""


def write_yolo(dataset: AnnotatedSet, names: Sequence[str], folder: Path) -> list[str]:
    """Write label files, list files and data.yaml.

    Args:
        dataset: the images with their splits.
        names: each image's file name.
        folder: existing and empty.

    Returns:
        Where each image belongs, relative to `folder`.

    Raises:
        UserError: a split called "images", which the rule that leads from images to labels cannot have.
    """
    if "images" in dataset.splits:
        raise UserError('a split called "images" has no place in YOLO\'s layout, images/<split>: name it otherwise')
    homes = image_homes(dataset)
    places = [f"{IMAGES}/{home}/{name}" for home, name in zip(homes, names)]
    classes = class_order(dataset)
    index = {name: number for number, name in enumerate(classes)}
    polygons = only_polygons(dataset)
    for home in dict.fromkeys(homes):
        (folder / IMAGES / home).mkdir(parents=True)
        (folder / "labels" / home).mkdir(parents=True)
    for image, home, name in zip(dataset.images, homes, names):
        lines = [_line(item, image, index[item.name], polygons) for item in image.objects if not _left_out(item)]
        (folder / "labels" / home / f"{Path(name).stem}.txt").write_text("".join(lines), encoding="utf-8")
    entries = _split_entries(dataset, homes, places, folder)
    main = {split: entry for split, entry in entries.items() if not re.fullmatch(r"fold\d+_(train|val)", split)}
    _write_yaml(folder / "data.yaml", {**entries, "names": dict(enumerate(classes))})
    for fold in sorted({split.split("_")[0] for split in set(entries) - set(main)}):
        halves = {half: entries[f"{fold}_{half}"] for half in ("train", "val") if f"{fold}_{half}" in entries}
        tests = {split: entry for split, entry in main.items() if split not in halves}
        _write_yaml(folder / f"{fold}.yaml", {**halves, **tests, "names": dict(enumerate(classes))})
    return places


def class_order(dataset: AnnotatedSet) -> list[str]:
    """Class names by their COCO ids, where they have some, as the data set classes order them; else as they come."""
    if any(category.id is None for category in dataset.categories):
        return dataset.names()
    return [category.name for category in sorted(dataset.categories, key=lambda category: category.id or 0)]


def image_homes(dataset: AnnotatedSet) -> list[str]:
    """The folder of each image: the smallest of its splits, or one for all images of folds."""
    sizes = Counter(split for image in dataset.images for split in image.splits)
    homes = []
    for image in dataset.images:
        plain = [split for split in image.splits if not re.fullmatch(r"fold\d+_(train|val)", split)]
        homes.append(min(plain, key=lambda split: sizes[split]) if plain else _POOL)
    return homes


def _left_out(item: AnnotatedObject) -> bool:
    return bool(item.crowd) or has_swapped_corners(item)


def _line(item: AnnotatedObject, image: AnnotatedImage, index: int, polygons: bool) -> str:
    height, width = displayed_size(image.size, image.orientation)
    if polygons:
        (points,) = item.segmentation
        pairs = [displayed_point(x, y, image.size, image.orientation) for x, y in zip(points[::2], points[1::2])]
        values = [value for x, y in pairs for value in (_fraction(x, width), _fraction(y, height))]
    else:
        x0, y0, x1, y1 = displayed_corners(item.corners, image.size, image.orientation)
        left, right, top, bottom = (
            _fraction(x0, width),
            _fraction(x1, width),
            _fraction(y0, height),
            _fraction(y1, height),
        )
        values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    return " ".join([str(index), *map(_decimal, values)]) + "\n"


def _fraction(value: float, side: int) -> float:
    return min(max(value / side, 0.0), 1.0)


def _decimal(value: float) -> str:
    return f"{value:.12f}".rstrip("0").rstrip(".")


def _split_entries(dataset: AnnotatedSet, homes: Sequence[str], places: Sequence[str], folder: Path) -> dict[str, str]:
    """What data.yaml says of each split: its folder, or the list file that is written here."""
    entries = {}
    for split in dataset.splits:
        members = [split in image.splits for image in dataset.images]
        if members == [home == split for home in homes]:
            entries[split] = f"{IMAGES}/{split}"
        else:
            lines = "".join(f"./{place}\n" for place, member in zip(places, members) if member)
            (folder / f"{split}.txt").write_text(lines, encoding="utf-8")
            entries[split] = f"{split}.txt"
    return entries


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    import yaml  # type: ignore[import-untyped]  # here: writing another format does not need it

    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
