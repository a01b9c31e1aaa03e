"""YOLO text to an `AnnotatedSet`: all splits that data.yaml names.

A polygon becomes a COCO polygon with the box around it. The format states no sizes: boxes are drawn on the displayed
pixels, as the image's header gives them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from transfer.convert.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet, Category
from transfer.convert.pixels import look_up_pixels
from transfer.convert.splits import chosen_splits
from transfer.data.evidence import Evidence
from transfer.data.image import BrokenSample
from transfer.data.yolo import LabelFile, read_labels
from transfer.data.yolo_labels import YOLOObject
from transfer.data.yolo_layout import YOLOLayout, list_images, read_layout, split_paths
from transfer.types import Size


def read_yolo(source: Path, *, only: Sequence[str] = ()) -> AnnotatedSet:
    """Read all splits of a YOLO data set.

    Args:
        source: the folder of data.yaml, or a YAML file.
        only: the splits to read; () for all.

    Raises:
        UserError: a faulty data.yaml, or a split whose folder is missing. Faulty lines are in `problems`.
    """
    layout = read_layout(source)
    dataset = AnnotatedSet(str(source), "yolo")
    dataset.categories = [Category(name) for name in layout.names.values()]
    by_path: dict[str, AnnotatedImage] = {}
    evidence = Evidence()  # of what was looked at: nothing is kept from one start to the next here
    for split in chosen_splits(source, [name for name, entries in layout.splits.items() if entries], only):
        dataset.splits.append(split)
        paths, missing = list_images(layout, split, evidence)
        paths = list(dict.fromkeys(paths))
        dataset.problems += [f"{where}: {reason}" for where, reason in missing]
        for path in paths:
            if path in by_path:
                by_path[path].splits.append(split)
        new = [path for path in paths if path not in by_path]
        folders = [str(path) for path in split_paths(layout, split) if path.is_dir()]
        names = _names(paths, folders)
        for file in read_labels(layout, new, f"{layout.file} ({split})", evidence):
            image = _image(dataset, layout, file, split, names[file.image])
            if image is not None:
                by_path[file.image] = image
    dataset.images = list(by_path.values())
    return dataset


def _names(paths: Sequence[str], folders: Sequence[str]) -> dict[str, str]:
    """Path -> path below the split's folder; of listed images, below the folder they have in common."""
    listed = [os.path.dirname(path) for path in paths if not any(_below(path, folder) for folder in folders)]
    common = os.path.commonpath(listed) if listed else ""
    names = {}
    for path in paths:
        folder = next((folder for folder in folders if _below(path, folder)), common)
        names[path] = os.path.relpath(path, folder).replace(os.sep, "/")
    return names


def _below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def _image(dataset: AnnotatedSet, layout: YOLOLayout, file: LabelFile, split: str, name: str) -> AnnotatedImage | None:
    """One image, or None and its problems."""
    if file.faults:
        dataset.problems += [f"{where}: {reason}" for where, reason in file.faults]
        return None
    try:
        pixels = look_up_pixels(file.image, None, ())
    except BrokenSample as error:
        dataset.problems.append(f"{file.image}: {error.reason}")
        return None
    others = ("keypoints",) if layout.keypoint_values else ()
    return AnnotatedImage(
        path=file.image,
        name=name,
        group=split,
        where=file.path,
        size=pixels.size,
        orientation=1,
        depth=pixels.depth,
        objects=[_object(item, layout.names[item.index], pixels.size, others) for item in file.objects],
        splits=[split],
    )


def _object(item: YOLOObject, name: str, size: Size, others: tuple[str, ...]) -> AnnotatedObject:
    segmentation = None
    if item.polygon:
        sides = (size[1], size[0])  # width, height
        segmentation = [[value * sides[position % 2] for position, value in enumerate(item.polygon)]]
    return AnnotatedObject(name, item.corners(size), segmentation=segmentation, others=others)
