"""YOLO text: images and label files side by side, joined by a data.yaml.

Source: Ultralytics' description of its data sets; yolo_layout.py says which of its rules hold here, yolo_labels.py what
a label file may hold. The format states no image sizes, so the header of every image is read (pixels are not): its size
as displayed turns fractions into pixels. An image without label file is a negative, as in Ultralytics; how many there
are is said in the log, and a split in which no image at all has one is refused, for it is a wrong path.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from transfer.data.evidence import Evidence
from transfer.data.image import BrokenSample, image_size
from transfer.data.index_cache import Index, cached_index
from transfer.data.listing import find_name
from transfer.data.strangers import read_bounded
from transfer.data.table import TableDataset
from transfer.data.table_builder import Box, TableBuilder
from transfer.data.yolo_labels import MAX_LABEL_BYTES, YOLOObject, parse_labels
from transfer.data.yolo_layout import YOLOLayout, label_path, list_images, read_layout, split_paths
from transfer.types import UserError

_LOGGER = logging.getLogger(__name__)


class YOLODataset(TableDataset):
    """Images of one or several splits of a YOLO data set, as one data set."""

    def __init__(
        self,
        root: str | Path,
        splits: Sequence[str] | str,
        *,
        class_names: Sequence[str] | None = None,
        rename: Mapping[str, str | None] | None = None,
        on_broken: str = "stop",
    ) -> None:
        """Read data.yaml, the label files and the images' headers.

        Args:
            root: the folder of data.yaml, or a YAML file of any name.
            splits: keys of the file, such as "train" or ["train", "val"].
            class_names: order of the labels; None: the file's names in the order of their indices.
            rename: old name -> new name; None drops the class's boxes.
            on_broken: "stop" raises one error for all faulty lines and unusable images; "skip" leaves out the images
                they belong to, listed in `skipped`.

        Raises:
            UserError: a faulty data.yaml, missing splits, faulty lines, unusable images, names outside class_names.
        """
        wanted = [splits] if isinstance(splits, str) else list(splits)
        if not wanted:
            raise UserError('splits is empty: name one, such as "train"')
        layout = read_layout(root)
        source = f"{layout.file} ({' + '.join(map(str, wanted))})"

        def read() -> Index:
            builder = TableBuilder(source, on_broken, class_names, rename, name_order=list(layout.names.values()))
            _read(builder, layout, _images(builder, layout, wanted))
            return Index.of(builder)

        paths = [str(path) for split in wanted for path in split_paths(layout, split)]
        options = {"format": "yolo", "source": source, "paths": paths, "on_broken": on_broken}
        said = {"names": layout.names, "keypoints": layout.keypoint_values, "below": os.path.abspath(layout.root)}
        index = cached_index(root, {**options, **said}, read, class_names=class_names, rename=rename)
        super().__init__(index.table, index.class_names, skipped=index.skipped, counts=index.counts)


def _images(builder: TableBuilder, layout: YOLOLayout, splits: Sequence[str]) -> list[str]:
    """The images of all splits, each once; listed images that do not exist become problems."""
    images: list[str] = []
    for split in splits:
        found, problems = list_images(layout, split, builder.evidence)
        images += found
        for where, reason in problems:
            builder.fault("image-missing", where, reason)
    unique = list(dict.fromkeys(images))
    if len(unique) < len(images):
        repeated = len(images) - len(unique)
        builder.tell(logging.WARNING, f"{builder.source}: {repeated} images are listed again; each counts once")
    return unique


@dataclass(slots=True)
class LabelFile:
    """What the label file of one image states."""

    image: str
    path: str
    exists: bool
    objects: list[YOLOObject]
    faults: list[tuple[str, str]]
    """("file:line", what is wrong)."""


def read_labels(
    layout: YOLOLayout,
    images: Sequence[str],
    source: str,
    evidence: Evidence,
    tell: Callable[[int, str], None] = _LOGGER.log,
) -> list[LabelFile]:
    """The label files of all images.

    Args:
        layout: with the class names.
        images: their paths.
        source: what messages call the data.
        evidence: takes the folders that were looked at.
        tell: takes the level and the text of a line for the log.

    Raises:
        UserError: no image has a label file.
    """
    listings: dict[str, set[str]] = {}
    files = []
    for image in images:
        path = label_path(image)
        folder, name = os.path.split(path)
        if folder not in listings:
            evidence.look("files", folder)
            listings[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        found = find_name(listings[folder], name)
        path = os.path.join(folder, found or name)
        file = LabelFile(image, path, found is not None, [], [])
        try:
            data = read_bounded(path, MAX_LABEL_BYTES) if file.exists else b""
        except OSError as error:
            file.faults.append((path, f"cannot be read: {error.strerror or error}"))
        else:
            file.objects, faults = parse_labels(data, layout.names, keypoint_values=layout.keypoint_values)
            file.faults = [(f"{path}:{line}", reason) for line, reason in faults]
        files.append(file)
    if files and not any(file.exists for file in files):
        raise UserError(
            f"{source}: none of {len(files)} images has a label file; the first was looked for at {files[0].path}. Put "
            "the images in a folder called images and the label files in one called labels beside it, or each label "
            "file beside its image"
        )
    without_file = sum(not file.exists for file in files)
    without_lines = sum(file.exists and not file.objects and not file.faults for file in files)
    if without_file or without_lines:
        text = f"{without_file} images without label file and {without_lines} with an empty one are negatives"
        tell(logging.INFO, f"{source}: {text}")
    return files


def _read(builder: TableBuilder, layout: YOLOLayout, images: Sequence[str]) -> None:
    """Labels and sizes of all images into the builder, or problems."""
    files = read_labels(layout, images, builder.source, builder.evidence, builder.tell)
    for file, image_id in zip(files, _image_ids(images, layout.root)):
        for where, reason in file.faults:
            builder.fault("object-faulty", where, reason, image=file.image)
        if file.faults:
            continue
        builder.evidence.look("files", os.path.dirname(file.image))
        try:
            size = image_size(file.image)
        except BrokenSample as error:
            builder.fault("image", file.image, error.reason, image=file.image)
            continue
        boxes = [
            Box(layout.names[item.index], item.corners(size), empty=item.box[2] <= 0 or item.box[3] <= 0)
            for item in file.objects
        ]
        builder.add(file.image, image_id=image_id, size=size, boxes=boxes, annotation=file.path)


def _image_ids(images: Sequence[str], root: Path) -> list[str]:
    """File stems; where two images share one, all have their path instead, from the root where they lie in it."""
    stems = [PurePath(image).stem for image in images]
    if max(Counter(stems).values(), default=0) <= 1:
        return stems
    inside = os.path.join(root, "")
    return [PurePath(image.removeprefix(inside)).as_posix() for image in images]
