"""A classification dataset: photographs, each of one class, and what its formats share while they look for them.

The formats' classes differ only in how they find the files and the classes. One block of texts and one flat array, not
an object per image: they pickle to a worker as two blocks. No file is opened before its image is asked for.

Names become labels as in the other tasks: `class_names` fixes the order, else they are sorted; `rename` maps them. A
class without images is an error unless `class_names` holds it: a label more or less would go unnoticed.
"""

from __future__ import annotations

import logging
import operator
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from transfer.data.class_names import check_class_names, check_rename, nearest_name, refuse_unusable
from transfer.data.image import read_image
from transfer.data.listing import find_name
from transfer.data.mask_builder import MaskBuilder
from transfer.data.texts import Texts
from transfer.types import ImageRecord, Sample, UserError

_LOGGER = logging.getLogger(__name__)
_SHOWN = 20
_DROPPED = -1


class LabelledImages:
    """Images with one class each."""

    def __init__(
        self,
        root: str | Path,
        paths: Sequence[str],
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        skipped: Sequence[str] = (),
        ignored: Mapping[str, int] | None = None,
    ) -> None:
        """Keep what the format found.

        Args:
            root: the folder that `paths` begin at.
            paths: of the images, with forward slashes; they are the image ids, too.
            labels: [N] of each, 0..K-1.
            class_names: of the labels.
            skipped: what was left out because on_broken="skip", one line each.
            ignored: how many files are no part of the data, by kind, such as {"hidden": 2, ".txt": 1}.
        """
        assert len(paths) == len(labels)
        self.root = str(root)
        self.paths = Texts(paths)
        self.class_names = tuple(class_names)
        self.skipped = list(skipped)
        self.ignored = dict(ignored or {})
        self._labels = np.array(labels, np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def labels(self) -> np.ndarray:
        """[N] int64, the caller's own: the class of every image."""
        return self._labels.copy()

    def record(self, index: int) -> ImageRecord:
        """Path and class without opening the file.

        Raises:
            IndexError: no such image.
        """
        index = self._position(index)
        path = self.paths[index]
        return ImageRecord(os.path.join(self.root, path), path, int(self._labels[index]))

    def __getitem__(self, index: int) -> Sample:
        """Decoded image with its `label`, without boxes.

        Raises:
            BrokenSample: the image cannot be decoded.
            IndexError: no such image.
        """
        record = self.record(index)
        image = read_image(record.path)
        return Sample(
            image=image,
            boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int64),
            difficult=np.zeros(0, bool),
            weights=np.zeros(0, np.float32),
            index=self._position(index),
            image_id=record.image_id,
            path=record.path,
            original_size=(image.shape[0], image.shape[1]),
            label=record.label,
        )

    def _position(self, index: int) -> int:
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of a dataset of {len(self)}")
        return index % len(self)


@dataclass
class ClassBuilder(MaskBuilder):
    """Collects images with their classes' names, and faults met on the way, as `MaskBuilder` does with masks."""

    names: list[str] = field(default_factory=list)
    """Of each image's class, as the data have it."""
    empty: dict[str, str] = field(default_factory=dict)
    """Class without images -> where it is, such as its folder."""
    order: Sequence[str] | None = None
    """All classes in the data's own order; None: sorted."""
    ignored: Counter[str] = field(default_factory=Counter)
    """How many files are no part of the data, by kind."""

    def take(self, path: str, name: str) -> None:
        """Note one image; `path` is that below the root, with forward slashes."""
        self.paths.append(path)
        self.names.append(name)

    def labelled(
        self, class_names: Sequence[str] | None, rename: Mapping[str, str | None] | None
    ) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
        """What was found, with labels in place of names.

        Args:
            class_names: the config's, in its order; None: those found.
            rename: old name -> new name, which several may share; None leaves the class out.

        Returns:
            paths, labels [N] int64, class names.

        Raises:
            UserError: names outside class_names, classes without images, collected faults with on_broken="stop", or no
                image at all; all that is wrong.
        """
        known = check_class_names(class_names)
        renamed = check_rename(rename, known)
        found = Counter(self.names)
        self._without_images(found, known, renamed)
        problems = []
        labels: dict[str, int] = {}
        try:
            self.finish()
        except UserError as error:
            problems.append(str(error))
        try:
            if found or not problems:
                known, labels = resolve_classes(
                    found, class_names=known, rename=renamed, source=self.source, order=self.order, others=self.empty
                )
        except UserError as error:
            problems.append(str(error))
        if problems:
            raise UserError("\n".join(problems))
        assert known is not None
        kept = np.fromiter((labels[name] for name in self.names), np.int64, len(self.names))
        places = np.flatnonzero(kept != _DROPPED)
        if len(places) == 0:
            raise UserError(
                f"{self.source}: no image is left: rename= leaves out all of {', '.join(sorted(found)[:_SHOWN])}"
            )
        if len(places) < len(kept):
            return [self.paths[place] for place in places.tolist()], kept[places], known
        return self.paths, kept, known

    def _without_images(
        self, found: Mapping[str, int], known: tuple[str, ...] | None, renamed: Mapping[str, str | None]
    ) -> None:
        """Note the classes without images that the config does not name."""
        filled = {renamed.get(name, name) for name in found}
        for name, place in self.empty.items():
            new = renamed.get(name, name)
            if new is not None and new not in filled and (known is None or find_name(known, new) is None):
                remedy = f"remove it, take it out by rename={{{name!r}: None}}, or name it in class_names"
                reason = "holds no image"
                self.fault("class-empty", place, reason, line=f"{place}: {reason}: {remedy}")

    def warn_of_ignored(self) -> None:
        """Say in the log which files are no part of the data."""
        if self.ignored:
            told = ", ".join(f"{count} {kind}" for kind, count in self.ignored.most_common(_SHOWN))
            _LOGGER.info("%s: files that are no part of the data: %s", self.source, told)


def resolve_classes(
    found: Mapping[str, int],
    *,
    class_names: Sequence[str] | None,
    rename: Mapping[str, str | None] | None,
    source: str,
    order: Sequence[str] | None = None,
    others: Sequence[str] | Mapping[str, str] = (),
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Decide the classes and the label of every name in the data.

    Args:
        found: class name -> number of images.
        class_names: the config's, in its order; None: those found.
        rename: old name -> new name, which several may share; None leaves the class out.
        source: what messages call the data.
        order: all names in the data's own order, those without images included; None: sorted.
        others: names without images that `rename` may hold.

    Returns:
        The class names, and for every found name its label, -1 where it is left out.

    Raises:
        UserError: names outside class_names (all of them), or fewer than two classes.
    """
    known = check_class_names(class_names)
    renamed = check_rename(rename, known)
    mine = {*found, *(order or ())}
    _warn_unused(renamed, {*mine, *others}, source)
    new_names = {name: renamed.get(name, name) for name in (order or sorted(mine))}
    if known is None:
        kept = [name for name in new_names.values() if name is not None]
        known = tuple(dict.fromkeys(kept if order is not None else sorted(kept)))
        refuse_unusable(known, source)
    else:  # macOS composes accents in file names in another way
        new_names = {old: None if new is None else find_name(known, new) or new for old, new in new_names.items()}
    unknown = {name: found[name] for name in found if new_names[name] not in (None, *known)}
    if unknown:
        raise UserError(_unknown_message(unknown, new_names, known, source))
    if len(known) < 2:
        have = f"one class only, {known[0]!r}" if known else "no class"
        raise UserError(f"{source}: {have}: a classifier needs at least two")
    absent = [name for name in known if name not in {new_names[name] for name in found}]
    if absent:
        more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
        _LOGGER.warning("%s: no image of %s%s", source, ", ".join(map(repr, absent[:_SHOWN])), more)
    position: dict[str | None, int] = {name: label for label, name in enumerate(known)}
    position[None] = _DROPPED
    return known, {name: position[new_names[name]] for name in found}


def _warn_unused(renamed: Mapping[str, str | None], names: set[str], source: str) -> None:
    """Not an error: the data of a split may lack a class that another has."""
    for old in renamed:
        if old not in names:
            nearest = nearest_name(old, sorted(names))
            hint = f"; nearest: {nearest!r}" if nearest else ""
            _LOGGER.warning("%s: rename names %r, which does not occur%s", source, old, hint)


def _unknown_message(
    unknown: Mapping[str, int], new_names: Mapping[str, str | None], known: Sequence[str], source: str
) -> str:
    shown = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
    plural = "classes" if len(unknown) > 1 else "class"
    lines = [f"{source}: {len(unknown)} {plural} in the data but not in class_names ({shown}):"]
    for name in sorted(unknown)[:_SHOWN]:
        line = f"  {name!r}: {unknown[name]:,} image{'s' if unknown[name] != 1 else ''}"
        nearest = nearest_name(new_names[name] or name, known)
        if nearest:
            line += f"; nearest known name {nearest!r}: rename={{{name!r}: {nearest!r}}}"
        lines.append(line)
    if len(unknown) > _SHOWN:
        lines.append(f"  and {len(unknown) - _SHOWN} more")
    lines.append(
        f"Add them to class_names, map them by rename=, or leave them out by rename={{{min(unknown)!r}: None}}."
    )
    return "\n".join(lines)
