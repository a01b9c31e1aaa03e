"""What the images are called in a converted set, where files of several folders may come together in one.

The rule, which the report repeats: an image keeps its name unless another has it too (in any case of the letters, as
some file systems have it). Of those that share one, each gets the folders it lies in put before its name, then also its
split or year; those that still share one are numbered. VOC and YOLO name the annotation after the image, so there the
suffix does not count as a difference and folders are joined to the name by "_"; COCO keeps folders.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from transfer.convert.annotated import AnnotatedImage

_LEVELS = 3


def target_names(images: Sequence[AnnotatedImage], *, flat: bool) -> list[str]:
    """A name for each image, unique and safe in any file system.

    Args:
        images: in the order that numbers them.
        flat: no folders, and unique without the suffix.

    Returns:
        Paths below the folder of images, "/" between the parts.
    """
    levels = [0] * len(images)
    while True:
        names = [_name(image, level, flat=flat) for image, level in zip(images, levels)]
        keys = [_key(name, flat=flat) for name in names]
        counts = Counter(keys)
        shared = [position for position, key in enumerate(keys) if counts[key] > 1 and levels[position] < _LEVELS - 1]
        if not shared:
            return _numbered(names, keys, flat=flat)
        for position in shared:
            levels[position] += 1


def _name(image: AnnotatedImage, level: int, *, flat: bool) -> str:
    """The plain name, with its folders from level 1 on, with its group from level 2 on (COCO: folders at once)."""
    *folders, name = (_safe(part) for part in image.name.split("/") if part not in ("", ".", ".."))
    group = [_safe(image.group)] if level >= 2 and image.group else []
    if flat:
        return "_".join([*group, *(folders if level >= 1 else []), name])
    return "/".join([*group, *folders, name])


def _safe(part: str) -> str:
    """Without control and half characters, separators and white space at either end, which lists cannot hold."""
    stem, suffix = os.path.splitext(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff/\\:]", "_", part).strip())
    return (stem.strip() or "image") + suffix


def _key(name: str, *, flat: bool) -> str:
    return unicodedata.normalize("NFC", os.path.splitext(name)[0] if flat else name).casefold()


def _numbered(names: Sequence[str], keys: Sequence[str], *, flat: bool) -> list[str]:
    taken, result = set(keys), []
    seen: set[str] = set()
    for name, key in zip(names, keys):
        number = 2
        while key in seen:
            stem, suffix = os.path.splitext(name)
            numbered = f"{stem}_{number}{suffix}"
            if _key(numbered, flat=flat) not in taken:
                name, key = numbered, _key(numbered, flat=flat)
                taken.add(key)
            number += 1
        seen.add(key)
        result.append(name)
    return result
