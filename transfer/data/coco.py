"""COCO instance annotations (JSON).

Source: Lin et al. 2014, Microsoft COCO (arXiv 1405.0312), and the format description on its site. Boxes are
(x, y, width, height) there and become (x, y, x + width, y + height). Image ids, category ids and areas are kept as
stated, so results can be scored against the same file; crowd regions keep their flag. The format has no place for VOC's
difficult objects: a key "difficult" of 1, as `tools/convert_data.py` writes it, is read as that. Masks are not read.

The file is checked before use, entry by entry: wrong types, unknown or repeated ids, boxes that are not four finite
numbers, and file names that lead out of the folder end in one error that lists them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from transfer.data.evidence import Evidence
from transfer.data.index_cache import Index, cached_index
from transfer.data.listing import find_name
from transfer.data.strangers import short
from transfer.data.table import TableDataset
from transfer.data.table_builder import Box, Origin, TableBuilder, UnusableFile
from transfer.types import Size, UserError

_SHOWN = 10
_LARGEST = 1e12
_FIRST_TOO_LARGE = 1 << 63
UNOWNED = " is not among the images"
"""How the fault of an annotation ends that belongs to no image."""


class COCODataset(TableDataset):
    """Images and boxes of one COCO JSON file."""

    def __init__(
        self,
        annotations: str | Path,
        images: str | Path,
        *,
        class_names: Sequence[str] | None = None,
        rename: Mapping[str, str | None] | None = None,
        on_broken: str = "stop",
        include_empty: bool = True,
    ) -> None:
        """Read and check the file; images are looked up but not opened.

        Args:
            annotations: the JSON file.
            images: the folder that its file names are relative to.
            class_names: order of the labels; None: all categories in the order of their ids.
            rename: old name -> new name; None drops the class's boxes.
            on_broken: "stop" raises one error for all faults; "skip" leaves out images that are missing or have a
                faulty annotation, and annotations that belong to no image, listed in `skipped`.
            include_empty: keep images without any box, as negatives.

        Raises:
            UserError: no JSON, faulty entries, missing images, names outside class_names.
        """
        path, folder = Path(annotations), Path(images)
        names: dict[str, Any] = {"class_names": class_names, "rename": rename}

        def read() -> Index:
            return _read_file(path, folder, {**names, "on_broken": on_broken}, include_empty=include_empty)

        place = {"format": "coco", "file": os.path.abspath(path), "given": str(path)}
        index = cached_index(folder, {**place, "empty": include_empty, "on_broken": on_broken}, read, **names)
        super().__init__(
            index.table,
            index.class_names,
            skipped=index.skipped,
            counts=index.counts,
            category_ids=index.category_ids,
        )


def _read_file(path: Path, folder: Path, options: Mapping[str, Any], *, include_empty: bool) -> Index:
    """The file's images and boxes; arguments and errors as in `COCODataset`."""
    evidence = Evidence()
    evidence.look("file", path)
    content = load_coco(path)
    if not folder.is_dir():
        raise UserError(f"images is {str(folder)!r}: no such folder")
    categories = read_categories(path, content["categories"])
    in_order = [categories[key] for key in sorted(categories)]
    builder = TableBuilder(str(path), name_order=in_order, evidence=evidence, **options)
    builder.origins.append(Origin("coco", folder, path, folder))
    reader = COCOReader(builder, folder, categories, evidence)
    reader.read_images(content["images"])
    reader.read_annotations(content["annotations"])
    reader.fill(include_empty=include_empty)
    return Index.of(builder, lambda names: _ids_of(names, categories, options["rename"] or {}))


def load_coco(path: Path) -> dict[str, list[Any]]:
    """The file's three lists."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"annotations is {str(path)!r}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON or bad UTF-8
        raise UnusableFile(f"{path}: is not JSON: {error}", code="json-unreadable", file=str(path)) from None
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict):
        message = f"{path}: holds a {type(content).__name__}, not an object with {', '.join(keys)}"
        raise UnusableFile(message, code="json-unreadable", file=str(path))
    wrong = [
        f"{key!r} is missing" if key not in content else f"{key!r} is a {type(content[key]).__name__}, not a list"
        for key in keys
        if not isinstance(content.get(key), list)
    ]
    if wrong:
        hint = ""
        if "annotations" not in content and "images" in content:
            hint = ". Files of test images carry no boxes and cannot be trained or scored on"
        message = f"{path}: is not a COCO instances file: {'; '.join(wrong)}{hint}"
        raise UnusableFile(message, code="json-unreadable", file=str(path))
    return content


def is_id(value: object) -> TypeGuard[int]:
    """Whether a value of the file can be an id: a whole number of 64 bits, not a bool."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _FIRST_TOO_LARGE


def _is_number(value: object) -> TypeGuard[float]:
    """Finite, and of a size that pixels can have: the comparison is False for NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def read_categories(path: Path, entries: Sequence[Any]) -> dict[int, str]:
    """Category id -> name; without sound categories nothing can be read, so faults here are errors in any case."""
    categories: dict[int, str] = {}
    problems = []
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not is_id(entry.get("id")) or not isinstance(entry.get("name"), str):
            problems.append(f"categories[{position}] needs an integer 'id' and a text 'name': {short(entry)}")
        elif entry["id"] in categories:
            problems.append(f"categories[{position}]: id {entry['id']} is given twice")
        elif entry["name"] in categories.values():
            problems.append(f"categories[{position}]: name {entry['name']!r} is given twice")
        else:
            categories[entry["id"]] = entry["name"]
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:_SHOWN])
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        message = f"{path}: {len(problems)} faulty categories:{shown}{more}"
        raise UnusableFile(message, code="json-entry-faulty", file=str(path))
    return categories


def _ids_of(names: Sequence[str], categories: Mapping[int, str], rename: Mapping[str, str | None]) -> list[int]:
    """The category id of each label: the category of this name, else the first renamed to it, else an unused id."""
    by_name = {name: key for key, name in categories.items() if rename.get(name, name) == name}
    for key in sorted(categories):
        new = rename.get(categories[key], categories[key])
        if new is not None:
            by_name.setdefault(new, key)
    unused = max(categories, default=0) + 1
    ids = []
    for name in names:
        if name not in by_name:
            by_name[name] = unused
            unused += 1
        ids.append(by_name[name])
    return ids


class COCOReader:
    """Checks the entries one by one; faults go to the builder's list, sound images with their boxes to its columns."""

    def __init__(
        self, builder: TableBuilder, folder: Path, categories: Mapping[int, str], evidence: Evidence | None = None
    ) -> None:
        self.builder = builder
        self.folder = folder
        self.categories = categories
        self.images: dict[int, tuple[str, Size | None]] = {}
        """Image id -> (path, stated size)."""
        self.boxes: dict[int, list[Box]] = {}
        self.faulty: set[int] = set()
        """Ids of images that are left out."""
        self.evidence = evidence or Evidence()
        """The folders that were listed."""
        self._not_there = f" is not in {folder}"

    def read_images(self, entries: Sequence[Any]) -> None:
        """All of `images`; their files are looked up in one listing per folder."""
        listings: dict[str, set[str]] = {}
        for position, entry in enumerate(entries):
            problem = self._image(entry, listings)
            if problem:
                if isinstance(entry, dict) and is_id(entry.get("id")):
                    self.faulty.add(entry["id"])
                missing = problem.endswith(self._not_there)
                self._fault("image-missing" if missing else "json-entry-faulty", f"images[{position}]: {problem}")

    def _fault(self, code: str, line: str, image_id: object = None) -> None:
        path, _ = self.images.get(image_id, (None, None)) if is_id(image_id) else (None, None)
        self.builder.fault(code, self.builder.source, line, image=path, line=line)

    def _image(self, entry: Any, listings: dict[str, set[str]]) -> str | None:
        if not isinstance(entry, dict) or not is_id(entry.get("id")) or not isinstance(entry.get("file_name"), str):
            return f"needs an integer 'id' and a text 'file_name': {short(entry)}"
        if entry["id"] in self.images or entry["id"] in self.faulty:
            return f"id {entry['id']} is given twice"
        name = entry["file_name"].replace("\\", "/")
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or ":" in (relative.parts or ("",))[0] or not relative.name:
            return f"file_name {entry['file_name']!r} leads out of {self.folder}"
        parent = os.path.join(self.folder, relative.parent) if len(relative.parts) > 1 else str(self.folder)
        if parent not in listings:
            self.evidence.look("names", parent)
            listings[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
        found = find_name(listings[parent], relative.name)
        if found is None:
            return f"{entry['file_name']!r}{self._not_there}"
        size = None
        if "width" in entry or "height" in entry:
            height, width = entry.get("height"), entry.get("width")
            if not all(is_id(side) and 0 <= side <= _LARGEST for side in (height, width)):
                return f"width and height must be whole numbers, not {short(width)} and {short(height)}"
            size = (height, width) if height and width else None
        self.images[entry["id"]] = (os.path.join(parent, found), size)
        return None

    def read_annotations(self, entries: Sequence[Any]) -> None:
        """All of `annotations`."""
        seen: set[int] = set()
        for position, entry in enumerate(entries):
            problem = self._annotation(entry, seen)
            if problem:
                image_id = entry.get("image_id") if isinstance(entry, dict) else None
                if is_id(image_id):
                    self.faulty.add(image_id)
                unowned = problem.endswith(UNOWNED)
                code = "annotation-without-image" if unowned else "json-entry-faulty"
                self._fault(code, f"annotations[{position}]: {problem}", image_id)

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
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            return f"bbox {short(box)} is not [x, y, width, height] in finite numbers"
        area, crowd = entry.get("area"), entry.get("iscrowd", 0)
        if area is not None and (not _is_number(area) or area < 0):
            return f"area {short(area)} is not a number of square pixels"
        if crowd not in (0, 1):
            return f"iscrowd {short(crowd)} is not 0 or 1"
        x, y, width, height = map(float, box)
        self.boxes.setdefault(image_id, []).append(
            Box(
                name=self.categories[category_id],
                corners=(x, y, x + width, y + height),
                difficult=entry.get("difficult") in (1, True),
                crowd=bool(crowd),
                area=None if area is None else float(area),
                empty=width <= 0 or height <= 0,
            )
        )
        return None

    def fill(self, *, include_empty: bool) -> None:
        """Hand the sound images to the builder, in the file's order."""
        left_out = 0
        for image_id, (path, size) in self.images.items():
            boxes = self.boxes.get(image_id, [])
            if image_id in self.faulty:
                continue
            if not boxes and not include_empty:
                left_out += 1
                continue
            where = f"{self.builder.source} (image {image_id}, {os.path.basename(path)})"
            self.builder.add(path, image_id=image_id, size=size, boxes=boxes, annotation=where)
        if left_out:
            self.builder.tell(logging.INFO, f"{self.builder.source}: {left_out} images without boxes left out")
