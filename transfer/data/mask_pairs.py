"""Which mask belongs to which image, by the names of their files.

The key of a file is its path below its folder, without the suffix of its name: `aachen/a_01_leftImg8bit.png` with the
suffix "_leftImg8bit" has the key `aachen/a_01`, and so has `aachen/a_01_labelIds.png` with "_labelIds". Names that
differ only in how accents are composed are equal, as in listing.py.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from transfer.data.class_names import nearest_name
from transfer.data.image import IMAGE_SUFFIXES
from transfer.data.mask_builder import MaskBuilder
from transfer.data.masks import MASK_SUFFIXES
from transfer.data.table_builder import Fault, UnusableFile
from transfer.types import UserError


@dataclass(frozen=True)
class Pairing:
    """Where images and masks are, and how their names go together."""

    images: Path
    masks: Path
    image_suffix: str = ""
    """End of the images' names, before the dot."""
    mask_suffix: str = ""


def pair_files(builder: MaskBuilder, pairing: Pairing, list_file: Path | None = None) -> None:
    """Fill the builder with the pairs, in the order of their keys or of the list.

    Args:
        builder: takes pairs and faults.
        pairing: where to look.
        list_file: a text file that names the images that count, one a line; None: all count, and an image without mask
            or a mask without image is a fault.

    Raises:
        UserError: no such folder, no images, no masks, or not a single pair; a list that cannot be read.
    """
    missing = [
        f"{name} is {str(folder)!r}: no such folder"
        for name, folder in (("images", pairing.images), ("masks", pairing.masks))
        if not folder.is_dir()
    ]
    if missing:
        raise UserError("\n".join(missing))
    images, masks = _files(pairing)
    if not images.keys() & masks.keys():
        raise UserError(_no_pair(pairing, images, masks))
    if list_file is not None:
        keys = _listed(builder, list_file, images, pairing)
    else:
        keys = sorted(images)
        for key in sorted(masks.keys() - images.keys()):
            reason = f"{pairing.images} has no image {_name(key, pairing.image_suffix)!r}"
            builder.fault("image-missing", masks[key], reason)
    for key in keys:
        if key in masks:
            builder.add(images[key], masks[key], key)
        else:
            reason = f"{pairing.masks} has no mask {_name(key, pairing.mask_suffix)!r}"
            builder.fault("mask-missing", images[key], reason, image=images[key])


def listed_lines(path: Path) -> list[str]:
    """The lines of a split list that hold something.

    Raises:
        UnusableFile: it cannot be read, or names nothing.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path}: cannot be read as a split list: {error}"
        raise UnusableFile(message, code="list-unusable", file=str(path)) from None
    lines = [line for line in lines if line]
    if not lines:
        raise UnusableFile(f"{path}: the split list names no images", code="list-unusable", file=str(path))
    return lines


def without_repetitions(builder: MaskBuilder, path: Path, entries: Sequence[str]) -> list[str]:
    """The entries of a list, each once; repeated ones are remarked upon."""
    once = list(dict.fromkeys(entries))
    if len(once) < len(entries):
        reason = f"{len(entries) - len(once)} of its {len(entries)} entries are repeated"
        builder.remarks.append(Fault("list-entry-repeated", str(path), reason))
    return once


def _files(pairing: Pairing) -> tuple[dict[str, str], dict[str, str]]:
    """Paths of images and of masks by key; where several files have a key, the one whose ending comes first."""
    together = pairing.images.resolve() == pairing.masks.resolve()
    images: dict[str, str] = {}
    masks: dict[str, str] = {}
    for folder, found, endings, suffix, other in (
        (pairing.images, images, IMAGE_SUFFIXES, pairing.image_suffix, pairing.mask_suffix),
        (pairing.masks, masks, MASK_SUFFIXES, pairing.mask_suffix, pairing.image_suffix),
    ):
        elsewhere = pairing.masks if folder is pairing.images else pairing.images
        files = _walk(folder, None if together else elsewhere.resolve())
        # the preferred ending is written last and stays
        ranked = [(endings.index(ending), path) for path in files if (ending := _ending(path)) in endings]
        for _, path in sorted(ranked, reverse=True):
            stem = os.path.splitext(path)[0]
            # in one folder, "a_mask.png" is no image "a_mask"
            foreign = together and len(other) > len(suffix) and stem.endswith(other)
            if stem.endswith(suffix) and not foreign:
                found[_key(stem[: len(stem) - len(suffix)])] = os.path.join(folder, path)
    for key in [key for key, path in masks.items() if images.get(key) == path]:
        del masks[key]  # in one folder, a file is not its own mask
    return images, masks


def _walk(folder: Path, without: Path | None) -> Iterator[str]:
    """Files below a folder by relative path; linked folders are followed, each folder once, hidden files left out."""
    seen = set()
    for path, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        if real in seen or (without is not None and real == str(without)):
            folders.clear()
            continue
        seen.add(real)
        relative = os.path.relpath(path, folder)
        yield from (os.path.normpath(os.path.join(relative, name)) for name in names if not name.startswith("."))


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", path.replace(os.sep, "/"))


def _name(key: str, suffix: str) -> str:
    return f"{key}{suffix}"


def _no_pair(pairing: Pairing, images: dict[str, str], masks: dict[str, str]) -> str:
    """Why there is no pair, with what would mend it."""
    for what, folder, found, suffix, endings in (
        ("images", pairing.images, images, pairing.image_suffix, IMAGE_SUFFIXES),
        ("masks", pairing.masks, masks, pairing.mask_suffix, MASK_SUFFIXES),
    ):
        if not found:
            called = f" whose name ends in {suffix!r} before the dot" if suffix else ""
            return f"{folder}: no {what}{called} ({', '.join(endings)})"
    first, second = (sorted(map(os.path.basename, found.values()))[0] for found in (images, masks))
    return (
        f"no mask in {pairing.masks} has the name of an image in {pairing.images}: images are called {first!r}, masks "
        f"{second!r}. If only the ends of the names differ, give image_suffix= and mask_suffix=, such as "
        "mask_suffix='_mask'"
    )


def _listed(builder: MaskBuilder, path: Path, images: dict[str, str], pairing: Pairing) -> list[str]:
    """The keys that a list names."""
    by_name: dict[str, list[str]] = {}
    for each in images:
        by_name.setdefault(PurePosixPath(each).name, []).append(each)
    keys = []
    for line in listed_lines(path):
        # the whole line, or its first column where the second one names the mask
        found = [_find(entry, images, by_name, pairing) for entry in (line, line.split()[0])]
        key = found[0] or found[1]
        if key is None:
            nearest = nearest_name(line, sorted(by_name))
            hint = f" (nearest: {nearest!r})" if nearest else ""
            reason = f"lists {line!r:.120}, but {pairing.images} has no such image{hint}"
            builder.fault("image-missing", str(path), reason)
        else:
            keys.append(key)
    return without_repetitions(builder, path, keys)


def _find(entry: str, images: dict[str, str], by_name: dict[str, list[str]], pairing: Pairing) -> str | None:
    """The key of an entry: a name or a path, with or without ending and suffix."""
    entry = entry.replace("\\", "/")
    stem = os.path.splitext(entry)[0] if _ending(entry) in IMAGE_SUFFIXES else entry
    for name in (stem, stem.removesuffix(pairing.image_suffix)):
        key = _key(str(PurePosixPath(name)))
        if key in images:
            return key
        same = by_name.get(PurePosixPath(key).name, [])
        if len(same) == 1:
            return same[0]
    return None
