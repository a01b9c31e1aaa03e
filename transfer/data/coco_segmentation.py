"""COCO's instance annotations as a class for each pixel.

Source: Lin et al. 2014, Microsoft COCO (arXiv 1405.0312). Its objects overlap; the rules, which it does not state:

- Where objects overlap, the one with fewer drawn pixels is on top; of equals, the one that comes later in the file.
  Small things lie on or before large ones far more often than behind them, where they would mostly be hidden.
- A crowd region's pixels are ignored, except where an object of its own is drawn.
- What no object covers is the class `unlabelled`, "background" by default; None: it is ignored.

Image ids are kept. An object without a polygon of three points or more has no pixels, and is left out with a line in
the log. The file is checked before use, entry by entry, as in coco.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from transfer.data.coco import UNOWNED, COCOReader, is_id, load_coco, read_categories
from transfer.data.coco_shapes import BadShape, Shape, ShapeTable, check_shape, parse_shape
from transfer.data.image import BrokenSample, image_header, pixel_limit
from transfer.data.mask_builder import MaskBuilder, labels_of
from transfer.data.mask_dataset import MaskDataset
from transfer.data.strangers import short
from transfer.data.table_builder import TableBuilder
from transfer.types import IGNORED_PIXEL, Size, UserError

_LOGGER = logging.getLogger(__name__)


class COCOSegmentation(MaskDataset):
    """Images of one COCO JSON file, with masks drawn from its objects."""

    def __init__(
        self,
        annotations: str | Path,
        images: str | Path,
        *,
        unlabelled: str | None = "background",
        class_names: Sequence[str] | None = None,
        rename: Mapping[str, str | None] | None = None,
        on_broken: str = "stop",
        include_empty: bool = True,
    ) -> None:
        """Read and check the file; images are looked up but not opened.

        Args:
            annotations: the JSON file.
            images: the folder that its file names are relative to.
            unlabelled: class of the pixels that no object covers, a category or a class of its own, which then comes
                first; None: they are ignored.
            class_names: order of the labels; None: `unlabelled`, then all categories in the order of their ids.
            rename: old name -> new name, which several may share; None: its pixels are ignored.
            on_broken: "stop" raises one error for all faults; "skip" leaves out images that are missing or have a
                faulty annotation, and annotations that belong to no image, listed in `skipped`.
            include_empty: keep images without any object.

        Raises:
            UserError: no JSON, faulty entries, no polygons at all, missing images, names outside class_names.
        """
        path, folder = Path(annotations), Path(images)
        content = load_coco(path)
        if not folder.is_dir():
            raise UserError(f"images is {str(folder)!r}: no such folder")
        categories = read_categories(path, content["categories"])
        declared = [categories[key] for key in sorted(categories)]
        if unlabelled is not None and unlabelled not in declared:
            declared.insert(0, unlabelled)
        known, labels = labels_of(declared, class_names=class_names, rename=rename, source=str(path))
        builder = MaskBuilder(str(path), on_broken=on_broken)
        reader = _ShapeReader(builder, folder, categories)
        reader.read_images(content["images"])
        reader.read_annotations(content["annotations"])
        source = reader.finish(labels, unlabelled, include_empty=include_empty)
        super().__init__(builder.paths, builder.image_ids, source, known, skipped=builder.problems)


class DrawnMasks:
    """Masks drawn from the objects of each image.

    Args:
        sizes: (height, width) of each image.
        counts: number of objects of each image.
        shapes: of all objects, one image's after the other's.
        labels: of each object; IGNORED_PIXEL for crowds, too.
        crowd: [number of objects], drawn below the others.
        unlabelled: label of what no object covers.
    """

    def __init__(
        self,
        sizes: Sequence[Size],
        counts: Sequence[int],
        shapes: ShapeTable,
        labels: Sequence[int],
        crowd: Sequence[bool],
        unlabelled: int,
    ) -> None:
        self._sizes = np.array(sizes, np.int64).reshape(-1, 2)
        self._starts = np.cumsum([0, *counts])
        self._shapes = shapes
        self._labels = np.array(labels, np.uint8)
        self._crowd = np.array(crowd, bool)
        self._unlabelled = unlabelled

    def path(self, index: int) -> None:
        """No file holds the mask."""

    def size(self, index: int) -> Size:
        """As the file states it."""
        height, width = self._sizes[index]
        return int(height), int(width)

    def read(self, index: int) -> np.ndarray:
        """[H, W] uint8."""
        size = self.size(index)
        mask = np.full(size, self._unlabelled, np.uint8)
        rows = range(self._starts[index], self._starts[index + 1])
        # crowds at the bottom, then from the largest to the smallest; sorted() keeps equals in the file's order
        for row in sorted(rows, key=lambda row: (not self._crowd[row], -self._shapes.area(row, size))):
            mask[self._shapes.draw(row, size)] = self._labels[row]
        return mask


class _ShapeReader(COCOReader):
    """Reads shapes where its base reads boxes."""

    def __init__(self, builder: MaskBuilder, folder: Path, categories: Mapping[int, str]) -> None:
        super().__init__(cast(TableBuilder, builder), folder, categories)  # of which it uses source and fault()
        self._masks = builder
        self._objects: dict[int, list[tuple[str, bool, Shape]]] = {}
        """Image id -> category, crowd, shape."""
        self._without_shape = 0

    def _annotation(self, entry: Any, seen: set[int]) -> str | None:
        if not isinstance(entry, dict):
            return f"is no object: {short(entry)}"
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        if not is_id(image_id) or (image_id not in self.images and image_id not in self.faulty):
            return f"image_id {short(image_id)}{UNOWNED}"
        if not is_id(category_id) or category_id not in self.categories:
            return f"category_id {short(category_id)} is not among the categories"
        if "id" in entry:
            if not is_id(entry["id"]):
                return f"id {short(entry['id'])} is not a whole number"
            if entry["id"] in seen:
                return f"id {entry['id']} is given twice"
            seen.add(entry["id"])
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            return f"iscrowd {short(crowd)} is not 0 or 1"
        try:
            shape = parse_shape(entry.get("segmentation") or [])
            _, size = self.images.get(image_id, (None, None))
            if size is not None:
                check_shape(shape, size)
        except BadShape as error:
            return str(error)
        if not shape.polygons and shape.runs is None:
            self._without_shape += 1
        else:
            self._objects.setdefault(image_id, []).append((self.categories[category_id], bool(crowd), shape))
        return None

    def finish(self, labels: Mapping[str, int], unlabelled: str | None, *, include_empty: bool) -> DrawnMasks:
        """Hand the sound images to the builder, in the file's order, and their objects to a source of masks.

        Raises:
            UserError: no object has a shape; or as `MaskBuilder.finish`.
        """
        source = self._masks.source
        if self._without_shape and not self._objects:
            raise UserError(
                f"{source}: none of its {self._without_shape} objects has a segmentation (polygons or run lengths), so "
                "masks cannot be drawn from it; with boxes alone it can train a detector"
            )
        if self._without_shape:
            _LOGGER.info("%s: %d objects without a polygon of an area left out", source, self._without_shape)
        sizes: list[Size] = []
        objects: list[list[tuple[str, bool, Shape]]] = []
        for image_id, (path, stated) in self.images.items():
            mine = self._objects.get(image_id, [])
            if image_id in self.faulty or not (mine or include_empty):
                continue
            size = stated or self._size_of(path, mine)
            if size is not None and size[0] * size[1] > pixel_limit(None):  # a mask is drawn before the image is read
                reason = f"image {image_id} states {size[1]}x{size[0]} pixels; the limit is {pixel_limit(None)}"
                self._masks.fault("json-entry-faulty", source, reason, image=path)
            elif size is not None:
                self._masks.add(path, None, image_id)
                sizes.append(size)
                objects.append(mine)
        self._masks.finish()
        every = [each for mine in objects for each in mine]
        return DrawnMasks(
            sizes,
            [len(mine) for mine in objects],
            ShapeTable([shape for _, _, shape in every]),
            [IGNORED_PIXEL if crowd else labels[name] for name, crowd, _ in every],
            [crowd for _, crowd, _ in every],
            IGNORED_PIXEL if unlabelled is None else labels[unlabelled],
        )

    def _size_of(self, path: str, objects: Sequence[tuple[str, bool, Shape]]) -> Size | None:
        """The image's own size, where the file states none; None: it has a fault."""
        try:
            size = image_header(path).size
        except BrokenSample as error:
            self._masks.fault("image", path, error.reason, image=path)
            return None
        for _, _, shape in objects:
            try:
                check_shape(shape, size)
            except BadShape as error:
                self._masks.fault("json-entry-faulty", path, str(error), image=path)
                return None
        return size
