"""Files beside the data that no annotation names, and annotation files without image."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from transfer.checking.findings import NOTE, WARNING, Finding, counted
from transfer.checking.reading import Part
from transfer.data.image import IMAGE_SUFFIXES
from transfer.data.listing import ImageFolder
from transfer.data.table_builder import Origin

_REMEDY = "annotate it, or take it away: training does not see it"
_UNNAMED = "image-without-annotation"


def orphan_findings(parts: Sequence[Part]) -> Iterator[Finding]:
    """Images without annotation, annotation files without image, each once."""
    named: dict[tuple[str, Path, Path], list[tuple[str, Origin]]] = {}
    for part in parts:
        for origin in part.origins:
            # JSON files share a folder of images: an image that any of them names is no orphan
            place = (origin.kind, origin.images.resolve(), Path() if origin.kind == "coco" else origin.annotations)
            named.setdefault(place, []).append((part.name, origin))
    for (kind, _, _), uses in named.items():
        where = ", ".join(dict.fromkeys(name for name, _ in uses))
        origins = [origin for _, origin in uses]
        yield from _beside_json(origins, where) if kind == "coco" else _beside_xml(origins[0], parts, where)
    yield from _elsewhere(parts)


def _beside_xml(origin: Origin, parts: Sequence[Part], where: str) -> Iterator[Finding]:
    listing = ImageFolder(origin.images)
    files = {path.stem: path for path in sorted(origin.annotations.glob("*.[xX][mM][lL]"))}
    used = _used(parts)
    for stem, name in sorted(listing.by_stem.items()):
        image = os.path.join(origin.images, name)
        if stem not in files and image not in used and _is_image(name):
            yield Finding(WARNING, _UNNAMED, where, image, f"no {stem}.xml", _REMEDY, fixable=True)
    read = {file for part in parts for builder in part.builders for file in builder.annotations}
    read |= {fault.file for part in parts for fault, _ in part.faults}
    rest = [path for path in files.values() if str(path) not in read]
    for path in rest:
        if path.stem not in listing.by_stem:
            message = f"{origin.images} has no image of this name, and no split of this config lists it"
            remedy = "copy the image there, or remove it"
            yield Finding(WARNING, "annotation-without-image", where, str(path), message, remedy, fixable=True)
    unlisted = [path for path in rest if path.stem in listing.by_stem]
    if unlisted and not any(part.errors for part in parts):  # a part that cannot be opened may list them
        message = f"{counted(len(unlisted), 'annotation')} in no split of this config, such as {unlisted[0].name}"
        remedy = "nothing, if these images are kept back on purpose"
        yield Finding(NOTE, "annotation-not-listed", where, str(origin.annotations), message, remedy)


def _beside_json(origins: Sequence[Origin], where: str) -> Iterator[Finding]:
    named = set()
    for file in {origin.annotations for origin in origins}:
        for entry in json.loads(file.read_bytes())["images"]:
            if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
                named.add(_composed(os.path.normpath(entry["file_name"].replace("\\", "/"))))
    folder = origins[0].images
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if _is_image(name) and _composed(os.path.relpath(path, folder)) not in named:
                files = ", ".join(sorted({origin.annotations.name for origin in origins}))
                yield Finding(WARNING, _UNNAMED, where, path, f"not in {files}", _REMEDY, fixable=True)


def _elsewhere(parts: Sequence[Part]) -> Iterator[Finding]:
    """Data sets that do not tell where they read from: the folders that their images lie in."""
    images = [(part.name, image.path) for part in parts for image in part.images if not image.builder.origins]
    used = _used(parts)
    for folder in sorted({os.path.dirname(path) for _, path in images}):
        where = ", ".join(dict.fromkeys(name for name, path in images if os.path.dirname(path) == folder))
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if _is_image(name) and path not in used:
                yield Finding(WARNING, _UNNAMED, where, path, "no data set names it", _REMEDY)


def _composed(name: str) -> str:
    """As transfer.data.listing.find_name compares names."""
    return unicodedata.normalize("NFC", name)


def _used(parts: Sequence[Part]) -> set[str]:
    """Every image that some annotation names, also one that cannot be used."""
    used = {path for part in parts for builder in part.builders for path in builder.paths}
    return used | {fault.image for part in parts for fault, _ in part.faults if fault.image}


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")
