"""PASCAL VOC to an `AnnotatedSet`: devkits of one or several years, flat folders with split lists, XML beside images.

Corners are made exclusive in transfer/data/voc_xml.py, as for training. A box whose stated corners coincide (a click
without a drag) gets no width here, so that no other format makes it a pixel wide. Two things that VOC does not know are
read where write_voc.py left them: <id>, <area> and <iscrowd> of an object, and categories.json.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element

from transfer.convert.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet, Category, Corners
from transfer.convert.pixels import look_up_pixels
from transfer.convert.splits import chosen_splits
from transfer.data.image import BrokenSample
from transfer.data.listing import ImageFolder, find_name
from transfer.data.strangers import read_bounded
from transfer.data.table_builder import Box
from transfer.data.voc_xml import MAX_XML_BYTES, BadXML, read_annotation, voc_root
from transfer.types import UserError

CATEGORIES_FILE = "categories.json"
"""Beside ImageSets: ids, order and super-categories of classes that came from COCO."""

_FIRST_SPLITS = ("train", "val", "trainval", "test")
_OBJECT_TAGS = ("name", "bndbox", "difficult", "truncated", "occluded", "pose", "id", "area", "iscrowd")
_IMAGE_TAGS = ("filename", "size", "object", "id")


@dataclass(slots=True)
class _Place:
    """A folder of XML files with the images they belong to."""

    root: Path
    annotations: Path
    images: Path
    group: str
    splits: dict[str, list[str]] = field(default_factory=dict)
    """Split -> stems of its XML files."""


def read_voc(source: Path, *, only: Sequence[str] = ()) -> AnnotatedSet:
    """Read all splits of a folder in VOC's format.

    Args:
        source: holds VOCdevkit, or VOC2007 and the like, or ImageSets/Main, or Annotations, or XML files beside images,
            or folders (train, test) with such.
        only: the splits to read; () for all.

    Raises:
        UserError: no XML files, or an unusable split list. Faults of single files are in `problems`.
    """
    dataset = AnnotatedSet(str(source), "voc")
    places = find_places(source)
    if not places:
        raise UserError(f"{source}: no VOC data: no ImageSets/Main, no VOC2007 or the like, and no XML files")
    chosen = chosen_splits(source, [split for place in places for split in place.splits], only)
    for place in places:
        listed = bool(place.splits)
        place.splits = {split: stems for split, stems in place.splits.items() if split in chosen}
        if place.splits or not listed:
            _read_place(dataset, place, whole=not only)
    if not dataset.images and not dataset.problems:
        raise UserError(f"{source}: no annotated image")
    dataset.categories = _categories(places, dataset)
    return dataset


def find_places(source: Path) -> list[_Place]:
    """The folders with annotations below `source`, with their splits."""
    years = _years(source)
    if years:
        return [_listed_place(folder, year, several=len(years) > 1) for year, folder in years.items()]
    place = _xml_place(source, "")
    if place is not None:
        return [place]
    folders = sorted(path for path in source.iterdir() if path.is_dir()) if source.is_dir() else []
    places = [place for folder in folders if (place := _xml_place(folder, folder.name)) is not None]
    for place in places:
        place.splits[place.group] = _stems(place.annotations)
    return sorted(places, key=lambda place: _split_order(place.group))


def _years(source: Path) -> dict[str, Path]:
    """Folders with ImageSets/Main, by year; the year is "" where the folder's name does not say."""
    if (source / "ImageSets" / "Main").is_dir():
        return {"": source}
    devkit = source / "VOCdevkit" if (source / "VOCdevkit").is_dir() else source
    if not devkit.is_dir():
        return {}
    return {
        folder.name[3:]: folder
        for folder in sorted(devkit.iterdir())
        if re.fullmatch(r"VOC\d{4}", folder.name) and (folder / "ImageSets" / "Main").is_dir()
    }


def _listed_place(folder: Path, year: str, *, several: bool) -> _Place:
    missing = [name for name in ("Annotations", "JPEGImages") if not (folder / name).is_dir()]
    if missing:
        raise UserError(f"{folder}: has ImageSets/Main, but no folder {' and no folder '.join(missing)}")
    place = _Place(folder, folder / "Annotations", folder / "JPEGImages", year)
    known = set(_stems(place.annotations))
    lists: dict[str, list[str]] = {}
    of_one_class: dict[str, list[str]] = {}
    for path in sorted((folder / "ImageSets" / "Main").glob("*.txt")):
        stems, flagged = _read_list(path, known)
        if stems or not flagged:
            (of_one_class if flagged else lists)[path.stem] = stems
    for name in sorted(lists or of_one_class, key=_split_order):
        place.splits[f"{year}_{name}" if several else name] = (lists or of_one_class)[name]
    return place


def _read_list(path: Path, known: set[str]) -> tuple[list[str], bool]:
    """The image names of a split list, and whether it is a list of one class ("000012 -1" in every line)."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a split list: {error}") from None
    flags = [None if line in known else re.fullmatch(r"(.*\S)\s+(-1|0|1)", line) for line in lines]
    stems = [flag.group(1) if flag else line for line, flag in zip(lines, flags) if not flag or flag.group(2) != "-1"]
    return list(dict.fromkeys(stems)), bool(lines) and all(flags)


def _split_order(name: str) -> tuple[int, str]:
    return (_FIRST_SPLITS.index(name) if name in _FIRST_SPLITS else len(_FIRST_SPLITS), name)


def _xml_place(folder: Path, group: str) -> _Place | None:
    """A folder without split lists that has XML files, in Annotations or itself."""
    annotations = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    if not annotations.is_dir() or not _stems(annotations):
        return None
    candidates = [folder / name for name in ("JPEGImages", "images", "Images")] if annotations != folder else []
    images = next((candidate for candidate in candidates if candidate.is_dir()), folder)
    return _Place(folder, annotations, images, group)


def _stems(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.iterdir() if path.suffix.lower() == ".xml")


def _read_place(dataset: AnnotatedSet, place: _Place, *, whole: bool) -> None:
    """All listed images of one folder, or all where there are no lists; `whole`: no split was left out."""
    listing = ImageFolder(place.images)
    files = {path.stem: path for path in place.annotations.iterdir() if path.suffix.lower() == ".xml"}
    splits_of: dict[str, list[str]] = {}
    for split, stems in place.splits.items():
        dataset.splits += [] if split in dataset.splits else [split]
        if not stems:
            dataset.notes.append(f"split {split!r} of {place.annotations.parent} is empty: its list names no image")
        for stem in stems:
            known = find_name(files, stem)
            if known is not None:
                splits_of.setdefault(known, []).append(split)
            else:
                dataset.problems.append(f"split {split!r} lists {stem!r}, but {place.annotations} has no {stem}.xml")
    unlisted = [stem for stem in files if stem not in splits_of]
    if place.splits and unlisted and whole:
        dataset.notes.append(
            f"{len(unlisted)} XML files of {place.annotations} are in no split list and left out (in VOC's own data "
            "such images are not fully annotated)"
        )
    used = set()
    for stem in splits_of if place.splits else sorted(files):
        image = _read_image(dataset, files[stem], listing, place.group)
        if image is not None:
            image.splits = splits_of.get(stem, [])
            dataset.images.append(image)
            used.add(Path(image.path).name)
    unlabelled = len(set(listing.by_stem.values()) - used - {files[stem].name for stem in files})
    if unlabelled and not place.splits:
        dataset.notes.append(f"{unlabelled} images of {place.images} have no XML file and are left out")


def _read_image(dataset: AnnotatedSet, path: Path, listing: ImageFolder, group: str) -> AnnotatedImage | None:
    """One XML file and its image's header; None and a problem where either cannot be used."""
    try:
        root = voc_root(read_bounded(path, MAX_XML_BYTES))
        annotation = read_annotation(root)
    except BadXML as error:
        dataset.problems.append(f"{path}: {error}")
        return None
    except OSError as error:
        dataset.problems.append(f"{path}: cannot be read: {error.strerror}")
        return None
    file = listing.find(path.stem, annotation.filename)
    if file is None:
        stated = f" (<filename> says {annotation.filename!r})" if annotation.filename else ""
        dataset.problems.append(f"{path}: {listing.folder} has no image of this name{stated}")
        return None
    objects = [_object(element, box) for element, box in zip(root.findall("object"), annotation.boxes)]
    try:
        pixels = look_up_pixels(file, annotation.size, [item.corners for item in objects])
    except BrokenSample as error:
        dataset.problems.append(f"{file}: {error.reason}")
        return None
    if pixels.contradicted:
        dataset.contradicted.append(str(path))
    depth = root.findtext("size/depth") or ""
    return AnnotatedImage(
        path=file,
        name=Path(file).name,
        group=group,
        where=str(path),
        size=pixels.size,
        orientation=pixels.orientation,
        depth=int(depth) if depth.strip().isdecimal() and int(depth) else pixels.depth,
        objects=objects,
        id=_whole(root.findtext("id")),
        source=root,
        others=tuple(f"<{child.tag}>" for child in root if child.tag not in _IMAGE_TAGS),
    )


def _object(element: Element, box: Box) -> AnnotatedObject:
    flags = {tag: _flag(element.findtext(tag)) for tag in ("difficult", "truncated", "occluded", "iscrowd")}
    unread = [tag for tag in ("truncated", "occluded") if element.find(tag) is not None and flags[tag] is None]
    known = set(_OBJECT_TAGS) - set(unread)
    pose = element.findtext("pose")
    return AnnotatedObject(
        name=box.name,
        corners=_without_width(box),
        # write_voc.py marks crowd regions as difficult
        difficult=None if flags["iscrowd"] else flags["difficult"],
        truncated=flags["truncated"],
        occluded=flags["occluded"],
        pose=None if pose is None else pose.strip(),
        crowd=flags["iscrowd"],
        area=_number(element.findtext("area")),
        id=_whole(element.findtext("id")),
        source=element,
        others=tuple(f"<{child.tag}>" for child in element if child.tag not in known),
    )


def _without_width(box: Box) -> Corners:
    """The corners; where the file's coincide, they coincide here too, though VOC's last pixel belongs to the box."""
    x0, y0, x1, y1 = box.corners
    if box.empty:
        x1 = x0 if abs(x1 - x0 - 1) < 1e-9 else x1
        y1 = y0 if abs(y1 - y0 - 1) < 1e-9 else y1
    return (x0, y0, x1, y1)


def _flag(text: str | None) -> bool | None:
    return {"0": False, "1": True}.get((text or "").strip())


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _whole(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None


def _categories(places: Sequence[_Place], dataset: AnnotatedSet) -> list[Category]:
    """Of categories.json, where a place has one; then the other names of the data, sorted."""
    found = {item.name for image in dataset.images for item in image.objects}
    categories: dict[str, Category] = {}
    for path in dict.fromkeys(place.root / CATEGORIES_FILE for place in places):
        stated = _read_categories(path) if path.is_file() else []
        if stated is None:
            dataset.notes.append(f"{path}: is no list of COCO's categories and passed over")
        categories |= {category.name: category for category in stated or []}
    categories |= {name: Category(name) for name in sorted(found - set(categories))}
    return list(categories.values())


def _read_categories(path: Path) -> list[Category] | None:
    """The categories that write_voc.py left; None: the file is another one."""
    try:
        entries = json.loads(path.read_bytes())
        categories = [Category(entry["name"], entry.get("id"), entry.get("supercategory")) for entry in entries]
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    names = [category.name for category in categories]
    ids = [category.id for category in categories if category.id is not None]
    sound = all(isinstance(name, str) for name in names) and all(type(number) is int for number in ids)
    return categories if sound and len(set(names)) == len(names) and len(set(ids)) == len(ids) else None
