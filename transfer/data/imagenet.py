"""ImageNet's classification task, ILSVRC2012, as its archives and as Kaggle lay it out.

Source: Russakovsky et al. 2015, ImageNet Large Scale Visual Recognition Challenge (IJCV); BoT (arXiv 1812.01187,
section 2.1) trains on it. Training images lie in train/<wnid>/; those of validation in val/<wnid>/, or all together in
val/ with their classes in a file of their own (imagenet_truth.py).

Classes are WordNet ids ("n01440764") in sorted order, which is what torchvision, timm and most published weights count
by. The devkit numbers its classes otherwise; its numbers are never taken for labels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from transfer.data.class_folder import class_root, images_below, scan_classes
from transfer.data.classification_dataset import ClassBuilder, LabelledImages
from transfer.data.imagenet_truth import WNID, find_truth, read_readable_names, wnids_by_place
from transfer.types import UserError

_SPLITS = ("train", "val")
_LAYOUTS = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
_SHOWN = 10


class ImageNetDataset(LabelledImages):
    """The training or the validation images of ILSVRC2012, or of some of its classes."""

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        truth_file: str | Path | None = None,
        class_names: Sequence[str] | None = None,
        rename: Mapping[str, str | None] | None = None,
        on_broken: str = "stop",
    ) -> None:
        """List the images; they are not opened.

        Args:
            root: holds train/ and val/, or Kaggle's ILSVRC/Data/CLS-LOC/ with them.
            split: "train" or "val".
            truth_file: relative to root, the classes of validation images that lie together; None: what is found.
            class_names: order of the labels, wnids; None: those of the images, sorted.
            rename: wnid -> wnid or other class, which several may share; None leaves the class out.
            on_broken: "stop" raises one error for validation images without class, folders that cannot be read and
                classes without images; "skip" leaves them out, listed in `skipped`.

        Raises:
            UserError: missing folders or no truth file, folders that are no wnids, names outside class_names.
        """
        if split not in _SPLITS:
            raise UserError(f"split is {split!r}: ImageNet has {', '.join(_SPLITS)}; no truth was published for test")
        base = class_root(Path(root))
        top = _split_folder(base, split)
        builder = ClassBuilder(str(top), on_broken=on_broken)
        folders = _class_folders(top)
        if split == "val" and not folders:
            _read_flat(builder, base, top, truth_file)
        else:
            _refuse_others(top, folders)
            scan_classes(builder, top, class_names=class_names)
        paths, labels, known = builder.labelled(class_names, rename)
        super().__init__(top, paths, labels, known, skipped=builder.problems, ignored=builder.ignored)
        readable = read_readable_names(base)
        self.readable_names = tuple(readable.get(name, name) for name in known)
        """What people call the classes ("tench, Tinca tinca"), from LOC_synset_mapping.txt; the wnid without it."""


def _split_folder(base: Path, split: str) -> Path:
    """Where the images of a split lie. Raises: UserError where they do not."""
    for layout in _LAYOUTS:
        if (base / layout / split).is_dir():
            return base / layout / split
    archives = sorted(path.name for path in base.iterdir() if path.suffix == ".tar")
    hint = f"; unpack {', '.join(archives[:_SHOWN])}" if archives else ""
    raise UserError(
        f"root is {str(base)!r}: it has no folder {split}/, nor ILSVRC/Data/CLS-LOC/{split}/ as Kaggle's archive{hint}"
    )


def _class_folders(top: Path) -> list[str]:
    with os.scandir(top) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def _refuse_others(top: Path, folders: Sequence[str]) -> None:
    """Raises: UserError for folders that are no WordNet ids: each would be a class, and move the labels."""
    others = [name for name in folders if not WNID.fullmatch(name)]
    if others:
        shown = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
        raise UserError(
            f"{top}: folders that are no WordNet ids such as n01440764: {shown}; remove them, or use "
            "ClassFolderDataset, which takes any names"
        )


def _read_flat(builder: ClassBuilder, base: Path, top: Path, truth_file: str | Path | None) -> None:
    """Validation images that lie together, with the classes that a truth file tells."""
    images = images_below(builder, str(top))
    builder.warn_of_ignored()
    if not images:
        raise UserError(f"{top}: it holds no images and no folders: unpack the validation images there")
    truth = find_truth(base, truth_file, lambda: wnids_by_place(base, _training_folders(base)))
    for image in images:
        wnid = truth.wnid_of(os.path.basename(image))
        if wnid is None:
            builder.fault("class-missing", os.path.join(top, image), f"{truth.path} has no class for it")
        else:
            builder.take(image, wnid)
    truth.warn_of_missing(len(builder.paths))


def _training_folders(base: Path) -> list[str]:
    """The classes that the training images have, if they are there."""
    for layout in _LAYOUTS:
        if (base / layout / "train").is_dir():
            return [name for name in _class_folders(base / layout / "train") if WNID.fullmatch(name)]
    return []
