"""COCO JSON to an `AnnotatedSet`: one file, or a folder with one file for each split.

`COCODataset` opens each file first: what it refuses is refused here in its words, so what is converted also trains. The
entries are then read again, for all that the data set class has no use for. A file of no known split name stands for
"train". Files are matched to their images by looking which folder has the most of them.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transfer.convert.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet, Category
from transfer.convert.pixels import look_up_pixels
from transfer.convert.splits import chosen_splits
from transfer.data.coco import COCODataset, is_id
from transfer.data.image import BrokenSample
from transfer.types import UserError

_LISTS = ("images", "annotations", "categories")
_FIRST_KEYS = re.compile(rb'\s*\{\s*"(images|annotations|categories|info|licenses|type|year|version)"\s*:')
_BOX_KEYS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "difficult", "ignore")
_FLAG_KEYS = ("truncated", "occluded")
_IMAGE_KEYS = ("id", "file_name", "width", "height")
_CATEGORY_KEYS = ("id", "name", "supercategory")


def read_coco(
    source: Path, image_root: Path | None = None, *, only: Sequence[str] = (), on_broken: str = "stop"
) -> AnnotatedSet:
    """Read all instance files of a folder, or one file.

    Args:
        source: the JSON file, or a folder with annotations/*.json, *.json, or */_annotations.coco.json.
        image_root: folder of the images; None: looked for.
        only: the splits to read; () for all.
        on_broken: "stop": faulty entries are errors; "skip": they become `problems` and their images are left out.

    Raises:
        UserError: no instance files, faulty entries, or no folder that has the images.
    """
    files = find_json(source)
    if not files:
        raise UserError(f"{source}: no COCO instance files: no *.json with images, annotations and categories")
    dataset = AnnotatedSet(str(source), "coco")
    reader = _Reader(dataset, on_broken)
    errors = []
    for split in chosen_splits(source, files, only):
        path = files[split]
        try:
            content = _content(path)
            reader.read(split, path, content, _image_folder(source, path, split, content["images"], image_root))
        except UserError as error:
            errors.append(str(error))
    if errors:
        raise UserError("\n".join(errors))
    dataset.categories = _merge_categories(dataset, reader.categories)
    return dataset


def find_json(source: Path) -> dict[str, Path]:
    """Split -> its instance file, in a folder or for a single file."""
    if source.is_file():
        return {_split_of(source, alone=True): source}
    if not source.is_dir():
        return {}
    found = [*sorted((source / "annotations").glob("*.json")), *sorted(source.glob("*.json"))]
    found = [path for path in found if path.is_file() and _looks_right(path)]
    instances = [path for path in found if path.name.startswith("instances")]
    found = instances or found or [path for path in sorted(source.glob("*/_annotations.coco.json")) if path.is_file()]
    files: dict[str, Path] = {}
    for path in found:
        files.setdefault(_split_of(path, alone=len(found) == 1), path)
    order = ("train", "val", "valid", "test")
    return {split: files[split] for split in sorted(files, key=lambda x: order.index(x) if x in order else len(order))}


def _looks_right(path: Path) -> bool:
    """Whether a file begins as instance files do; results (lists) and other JSON do not."""
    with path.open("rb") as file:
        return _FIRST_KEYS.match(file.read(4096).removeprefix(b"\xef\xbb\xbf")) is not None


def _split_of(path: Path, *, alone: bool) -> str:
    if path.name == "_annotations.coco.json":
        return path.parent.name
    stem = re.sub(r"^instances_?", "", path.stem)
    if stem and (stem != path.stem or not alone or re.match(r"(train|val|test|fold)", stem)):
        return stem
    return "train"


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _LISTS):
        COCODataset(path, path.parent)  # its error says what is wrong
        raise UserError(f"{path}: changed while it was read")
    return content


def _image_folder(source: Path, path: Path, split: str, entries: Sequence[Any], image_root: Path | None) -> Path:
    """The folder that has the most of the images."""
    root = source if source.is_dir() else path.parent.parent if path.parent.name == "annotations" else path.parent
    if image_root is not None:
        candidates = [image_root / split, image_root]
    else:
        places = (f"images/{split}", split, "images", "JPEGImages", "val" if split == "valid" else "data", ".")
        candidates = [path.parent, *(root / place for place in places)]
    names = [entry["file_name"] for entry in entries if isinstance(entry, dict) and _is_text(entry.get("file_name"))]
    counted = {
        folder: sum((folder / name.replace("\\", "/")).is_file() for name in names)
        for folder in dict.fromkeys(candidates)
        if folder.is_dir()
    }
    if image_root is not None and not image_root.is_dir():
        raise UserError(f"--image-root {str(image_root)!r}: no such folder")
    best = max(counted, key=lambda folder: counted[folder], default=root)
    if names and not counted.get(best):
        looked = ", ".join(map(str, counted)) or str(root)
        raise UserError(f"{path}: none of its {len(names)} images is in {looked}; name their folder with --image-root")
    return best


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\x00" not in value


class _Reader:
    """Joins the files of the splits to one set; an image of several files is one image."""

    def __init__(self, dataset: AnnotatedSet, on_broken: str) -> None:
        self.dataset = dataset
        self.on_broken = on_broken
        self.categories: list[list[Category]] = []
        """One list for each file."""
        self.by_path: dict[str, AnnotatedImage] = {}

    def read(self, split: str, path: Path, content: dict[str, Any], folder: Path) -> None:
        """All sound images of one file."""
        with _quietly():
            checked = COCODataset(path, folder, on_broken=self.on_broken)
        self.dataset.problems += [f"{path}: {problem}" for problem in checked.skipped]
        self.dataset.splits.append(split)
        self.dataset.headers[split] = {key: value for key, value in content.items() if key not in _LISTS}
        categories = {entry["id"]: _category(entry) for entry in content["categories"]}
        self.categories.append(list(categories.values()))
        sound = dict(zip(checked.table.image_ids, checked.table.paths))
        objects: dict[int, list[AnnotatedObject]] = {}
        for entry in content["annotations"]:
            if isinstance(entry, dict) and is_id(entry.get("image_id")) and entry["image_id"] in sound:
                name = categories[entry["category_id"]].name
                objects.setdefault(entry["image_id"], []).append(_object(entry, name))
        before = set(self.by_path)
        for entry in content["images"]:
            if isinstance(entry, dict) and is_id(entry.get("id")) and entry["id"] in sound:
                self._image(entry, sound[entry["id"]], objects.get(entry["id"], []), split, path, before)

    def _image(
        self,
        entry: dict[str, Any],
        path: str,
        objects: list[AnnotatedObject],
        split: str,
        source: Path,
        before: set[str],
    ) -> None:
        name = entry["file_name"].replace("\\", "/")
        where = f"{source} (image {entry['id']}, {name})"
        stated = (entry["height"], entry["width"]) if entry.get("height") and entry.get("width") else None
        try:
            pixels = look_up_pixels(path, stated, [item.corners for item in objects])
        except BrokenSample as error:
            self.dataset.problems.append(f"{path}: {error.reason}")
            return
        if pixels.contradicted:
            self.dataset.contradicted.append(where)
        image = AnnotatedImage(
            path=path,
            name=name,
            group=split,
            where=where,
            size=pixels.size,
            orientation=pixels.orientation,
            depth=pixels.depth,
            objects=objects,
            splits=[split],
            id=entry["id"],
            source=entry,
            others=tuple(repr(key) for key in entry if key not in _IMAGE_KEYS),
        )
        if path not in before:  # two entries of one file stay two images
            self.dataset.images.append(image)
            self.by_path.setdefault(path, image)
        elif _truth(self.by_path[path]) == _truth(image):
            self.by_path[path].splits.append(split)
        else:
            other = self.by_path[path].where
            self.dataset.problems.append(f"{where}: has other boxes than in {other}; make both files say the same")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the data set's remarks on boxes that it drops or clips: a conversion does neither."""
    logger = logging.getLogger("transfer.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _truth(image: AnnotatedImage) -> Counter[object]:
    return Counter((item.name, item.corners, bool(item.crowd)) for item in image.objects)


def _object(entry: dict[str, Any], name: str) -> AnnotatedObject:
    x, y, width, height = map(float, entry["bbox"])
    flags = {key: _flag(entry.get(key)) for key in ("difficult", "ignore", *_FLAG_KEYS)}
    pose = entry.get("pose")
    known = {*_BOX_KEYS, *(key for key in _FLAG_KEYS if flags[key] is not None)}
    known |= {"pose"} if isinstance(pose, str) else set()
    area = entry.get("area")
    return AnnotatedObject(
        name=name,
        corners=(x, y, x + width, y + height),
        # many converters from VOC write the flag as "ignore" only
        difficult=flags["ignore"] if flags["difficult"] is None else flags["difficult"],
        truncated=flags["truncated"],
        occluded=flags["occluded"],
        pose=pose if isinstance(pose, str) else None,
        crowd=bool(entry["iscrowd"]) if "iscrowd" in entry else None,
        area=None if area is None else float(area),
        segmentation=entry.get("segmentation") or None,
        id=entry.get("id"),
        source=entry,
        others=tuple(repr(key) for key in entry if key not in known),
    )


def _flag(value: object) -> bool | None:
    return bool(value) if isinstance(value, (bool, int)) and value in (0, 1) else None


def _category(entry: dict[str, Any]) -> Category:
    above = entry.get("supercategory")
    return Category(
        name=entry["name"],
        id=entry["id"],
        supercategory=above if isinstance(above, str) else None,
        source=entry,
        others=tuple(repr(key) for key in entry if key not in _CATEGORY_KEYS),
    )


def _merge_categories(dataset: AnnotatedSet, files: Sequence[Sequence[Category]]) -> list[Category]:
    """The categories of all files, each name once; ids only where the files agree on them."""
    merged: dict[str, Category] = {}
    agree = True
    for categories in files:
        for category in categories:
            known = merged.setdefault(category.name, category)
            agree = agree and known.id == category.id
    if len({category.id for category in merged.values()}) < len(merged):
        agree = False
    if not agree:
        dataset.notes.append("the files disagree on category ids: classes are matched by name and get new ids")
        for category in merged.values():
            category.id = None
    return list(merged.values())
