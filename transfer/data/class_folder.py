"""One folder for each class, the images of the class at any depth below it: the layout that people make by hand.

Only directory listings are read, one for each folder: no file is opened or asked for its size (1.28 million files take
seconds where the listing is in the cache). Folders that are symbolic links are followed, also out of the root, each
folder once a class and under its own name before that of a link; a link to a folder above the class is not followed.

Deviations from torchvision's ImageFolder, with which classes, files and their order agree otherwise: hidden files and
folders (an editor's .ipynb_checkpoints) are no classes and no images; the known endings are those of image.py; an
empty folder is allowed where class_names holds its name.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transfer.data.class_names import nearest_name
from transfer.data.classification_dataset import ClassBuilder, LabelledImages
from transfer.data.image import IMAGE_SUFFIXES
from transfer.types import UserError

_LOGGER = logging.getLogger(__name__)

_TRAINING = ("train", "training")
_MEASURED = ("val", "valid", "validation", "test", "testing")
_SUFFIXES = frozenset(IMAGE_SUFFIXES)
_HIDDEN, _LOOSE, _LOOP = "hidden", "beside the class folders", "link to a folder that is listed or above the class"
_SHOWN = 10


class ClassFolderDataset(LabelledImages):
    """Images in one folder for each class."""

    def __init__(
        self,
        root: str | Path,
        *,
        folder: str | Path = "",
        class_names: Sequence[str] | None = None,
        rename: Mapping[str, str | None] | None = None,
        on_broken: str = "stop",
    ) -> None:
        """List the images; they are not opened.

        Args:
            root: holds the folders of the classes.
            folder: below root, where the splits share a root: "train".
            class_names: order of the labels; None: the folders' names, sorted.
            rename: folder -> class, which several may share; None leaves the folder out.
            on_broken: "stop" raises one error for folders that cannot be read and classes without images; "skip" leaves
                them out, listed in `skipped`.

        Raises:
            UserError: no such folder, no folders of classes in it, names outside class_names, fewer than two classes.
        """
        top = class_root(Path(root), folder)
        builder = ClassBuilder(str(top), on_broken=on_broken)
        scan_classes(builder, top, class_names=class_names, folder=folder)
        super().__init__(top, *builder.labelled(class_names, rename), skipped=builder.problems, ignored=builder.ignored)


def class_root(root: Path, folder: str | Path = "") -> Path:
    """The folder `folder` of `root`.

    Raises:
        UserError: there is none.
    """
    if not root.is_dir():
        what = "that is a file, not a folder" if root.is_file() else "no such folder"
        raise UserError(f"root is {str(root)!r}: {what}")
    top = root / folder
    if not top.is_dir():
        names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        nearest = nearest_name(str(folder), names)
        have = f"nearest: {nearest!r}" if nearest else f"there are: {', '.join(names[:_SHOWN]) or 'none'}"
        raise UserError(
            f"folder is {str(folder)!r}: {root} has no such folder ({have}); set folder on the data set "
            "(data.test.folder=val)"
        )
    return top


def scan_classes(
    builder: ClassBuilder, top: Path, *, class_names: Sequence[str] | None = None, folder: str | Path = ""
) -> None:
    """All images of all class folders into the builder.

    Args:
        builder: takes them.
        top: holds the class folders.
        class_names: the config's, for telling classes from splits.
        folder: that led to `top`, for messages.

    Raises:
        UserError: `top` holds no folders, or splits instead of classes.
    """
    folders, images = [], 0
    for entry in _entries(builder, str(top), str(top)):
        if _is_folder(entry):
            folders.append(entry.name)
        elif _suffix(entry.name) in _SUFFIXES:
            images += 1
        else:
            _ignore(builder, entry.name)
    if not folders:
        raise UserError(_no_folders(top, images, builder))
    if images:
        builder.ignored[_LOOSE] += images
        _LOGGER.warning("%s: %d images lie beside the folders of the classes, and are left out", top, images)
    _refuse_splits(top, sorted(folders), class_names or (), folder)
    for name in sorted(folders):
        before = len(builder.paths)
        for path in images_below(builder, os.path.join(top, name)):
            builder.take(f"{name}/{path}", name)
        if len(builder.paths) == before:
            builder.empty[name] = os.path.join(top, name)
    builder.warn_of_ignored()


@dataclass(slots=True)
class _Walk:
    """Where a walk below one folder stands. A folder is (path below it, path, path without links)."""

    folders: list[tuple[str, str, str]]
    links: list[tuple[str, str, str]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    names: dict[str, list[str]] = field(default_factory=dict)
    """Images by the path of their folder."""

    def following(self) -> tuple[str, str, str]:
        """The next folder: links come last, in the order of their paths."""
        if self.folders:
            return self.folders.pop()
        self.links.sort(reverse=True)
        return self.links.pop()


def images_below(builder: ClassBuilder, folder: str) -> list[str]:
    """Paths of the images at any depth below a folder, sorted by folder, then by name.

    Args:
        builder: counts other files, and takes folders that cannot be read as faults.
        folder: where to begin.
    """
    real = os.path.realpath(folder)
    walk = _Walk([("", folder, real)])
    while walk.folders or walk.links:
        relative, path, own = walk.following()
        if own in walk.seen or (own != real and f"{real}{os.sep}".startswith(f"{own.rstrip(os.sep)}{os.sep}")):
            builder.ignored[_LOOP] += 1
            continue
        walk.seen.add(own)
        names = []
        for entry in _entries(builder, path, folder):
            name = entry.name
            below = f"{relative}/{name}" if relative else name
            if entry.is_dir(follow_symlinks=False):
                walk.folders.append((below, entry.path, os.path.join(own, name)))
            elif _suffix(name) in _SUFFIXES:  # not asked whether a link leads somewhere: reading tells
                names.append(name)
            elif _is_folder(entry):
                walk.links.append((below, entry.path, os.path.realpath(entry.path)))
            else:
                _ignore(builder, name)
        walk.names[relative] = names
    return [
        f"{relative}/{name}" if relative else name
        for relative in sorted(walk.names)
        for name in sorted(walk.names[relative])
    ]


def _entries(builder: ClassBuilder, path: str, top: str) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, but for hidden files; nothing where it cannot be read, which is a fault."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    builder.ignored[_HIDDEN] += 1
                else:
                    yield entry
    except OSError as error:
        builder.fault("folder-unreadable", path, f"cannot be listed: {error.strerror or error}")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _suffix(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def _ignore(builder: ClassBuilder, name: str) -> None:
    builder.ignored[_suffix(name) or "without ending"] += 1


def _no_folders(top: Path, images: int, builder: ClassBuilder) -> str:
    if images:
        return (
            f"root is {str(top)!r}: it holds {images:,} images and no folders: put the images of each class into a "
            "folder of its own, as cat/1.jpg; where a text file tells the classes, use ImageListDataset"
        )
    rest = ", ".join(f"{count} {kind}" for kind, count in builder.ignored.most_common(_SHOWN))
    unpack = ": unpack the archives" if builder.ignored[".tar"] or builder.ignored[".zip"] else ""
    return f"root is {str(top)!r}: it holds no folders of classes ({rest or 'it is empty'}){unpack}"


def _refuse_splits(top: Path, folders: Sequence[str], class_names: Sequence[str], folder: str | Path) -> None:
    """Raises: UserError where the folders are train/ and val/, which hold the classes."""
    splits = [name for name in folders if name.lower() in (*_TRAINING, *_MEASURED)]
    training = [name for name in splits if name.lower() in _TRAINING]
    looks_so = len(splits) == len(folders) or (training and len(splits) > len(training))
    if not looks_so or set(splits) <= set(class_names):
        return
    first = (training or splits)[0]
    try:
        with os.scandir(top / first) as entries:
            holds_folders = any(_is_folder(entry) for entry in entries if not entry.name.startswith("."))
    except OSError:
        return
    if holds_folders:
        inner = (Path(folder) / first).as_posix()
        raise UserError(
            f"root is {str(top)!r}: its folders {', '.join(splits)} are splits, not classes: set root to "
            f"{str(top / first)!r}, or give folder={inner!r} beside it, and so for each split"
        )
