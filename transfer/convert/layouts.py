"""Which format a folder or file is in, by what lies in it."""

from __future__ import annotations

import re
from pathlib import Path

from transfer.convert.annotated import Format
from transfer.convert.read_coco import find_json
from transfer.data.class_names import nearest_name
from transfer.types import UserError


def guess_format(source: Path) -> tuple[Format, str]:
    """The format and what gave it away.

    Raises:
        UserError: nothing there, or signs of no format or of several.
    """
    if not source.exists():
        siblings = [path.name for path in source.parent.iterdir()] if source.parent.is_dir() else []
        near = nearest_name(source.name, siblings)
        hint = f"; nearest: {str(source.parent / near)!r}" if near else ""
        raise UserError(f"source is {str(source)!r}: no such folder or file{hint}")
    found_signs: dict[Format, str | None] = {
        "voc": _voc_sign(source),
        "coco": _coco_sign(source),
        "yolo": _yolo_sign(source),
    }
    signs = {name: sign for name, sign in found_signs.items() if sign is not None}
    if len(signs) > 1:
        found = " and ".join(f"{name.upper()} ({sign})" for name, sign in signs.items())
        raise UserError(f"{source}: has signs of {found}: say which with --from {' or --from '.join(signs)}")
    if not signs:
        raise UserError(
            f"{source}: no data set found: VOC has ImageSets/Main, Annotations or XML files, COCO has JSON files with "
            "images, annotations and categories (in annotations/), YOLO has a data.yaml. Name its folder"
        )
    return next(iter(signs.items()))


def _voc_sign(source: Path) -> str | None:
    if source.is_file():
        return None
    if (source / "ImageSets" / "Main").is_dir():
        return "ImageSets/Main"
    years = [path.name for path in sorted(source.iterdir()) if re.fullmatch(r"VOCdevkit|VOC\d{4}", path.name)]
    if years:
        return years[0]
    for pattern in ("Annotations/*.[xX][mM][lL]", "*.[xX][mM][lL]", "*/*.[xX][mM][lL]", "*/Annotations/*.[xX][mM][lL]"):
        if any(source.glob(pattern)):
            return pattern.replace("[xX][mM][lL]", "xml")
    return None


def _coco_sign(source: Path) -> str | None:
    if source.is_file():
        return "a JSON file" if source.suffix.lower() == ".json" else None
    return next((path.relative_to(source).as_posix() for path in find_json(source).values()), None)


def _yolo_sign(source: Path) -> str | None:
    if source.is_file():
        return "a YAML file" if source.suffix.lower() in (".yaml", ".yml") else None
    files = [path for path in sorted(source.iterdir()) if path.suffix.lower() in (".yaml", ".yml") and path.is_file()]
    found = [path.name for path in files if re.search(rb"^(names|nc)\s*:", path.read_bytes(), re.MULTILINE)]
    return "data.yaml" if "data.yaml" in found else next(iter(found), None)
