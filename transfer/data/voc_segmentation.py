"""PASCAL VOC's segmentation task: palette PNG beside the devkit's photographs.

Source: the VOC 2007 and 2012 development kits; Everingham et al. 2010, The PASCAL Visual Object Classes Challenge,
section 3.2. The kit scores 21 classes with the background as class 0, and leaves out 255, the border between objects;
so here background is a class, label 0, and 255 is ignored.

The lists are ImageSets/Segmentation/*.txt, the masks SegmentationClass/*.png; SegmentationObject is not read. The
10,582 "augmented" training images add masks of Hariharan et al. 2011 (SBD) to those of 2012. People share them as a
folder SegmentationClassAug of PNG files and a list such as trainaug.txt: put both into VOC2012 and give
splits="2012_trainaug", masks="SegmentationClassAug". SBD's own .mat files are not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.data.class_names import check_class_names, nearest_name
from transfer.data.listing import ImageFolder, find_name
from transfer.data.mask_builder import MaskBuilder, labels_of
from transfer.data.mask_dataset import MaskDataset, MaskFiles
from transfer.data.mask_pairs import listed_lines, without_repetitions
from transfer.data.masks import ValueCoding
from transfer.data.voc import VOC_CLASSES
from transfer.types import IGNORED_PIXEL, UserError

VOC_SEGMENTATION_CLASSES = ("background", *VOC_CLASSES)
"""By value in the masks."""

_LISTS = Path("ImageSets") / "Segmentation"


class VOCSegmentation(MaskDataset):
    """Images of one or several of a devkit's segmentation lists, as one data set."""

    def __init__(
        self,
        root: str | Path,
        splits: Sequence[str] | str,
        *,
        classes: Sequence[str] = VOC_SEGMENTATION_CLASSES,
        masks: str = "SegmentationClass",
        class_names: Sequence[str] | None = None,
        rename: Mapping[str, str | None] | None = None,
        on_broken: str = "stop",
    ) -> None:
        """Read the split lists; images and masks are looked up but not opened.

        Args:
            root: the folder that holds VOCdevkit, or VOC2007 and the like, or is such a year's folder itself.
            splits: "2012_train", ["2007_trainval", "2012_trainval"]; the year may be left out where there is one.
            classes: what the values 0, 1, ... of the masks stand for, in data of one's own in this layout.
            masks: folder of the masks, in each year's folder.
            class_names: order of the labels; None: that of `classes`.
            rename: old name -> new name, which several may share; None: its pixels are ignored.
            on_broken: "stop" raises one error for all missing files; "skip" leaves them out, listed in `skipped`.

        Raises:
            UserError: missing folders or splits, missing files, names outside class_names.
        """
        root = Path(root)
        wanted = [splits] if isinstance(splits, str) else list(splits)
        if not wanted:
            raise UserError('splits is empty: name one, such as "2012_train"')
        source = f"{root} ({' + '.join(map(str, wanted))})"
        declared = check_class_names(classes) or ()
        known, labels = labels_of(declared, class_names=class_names, rename=rename, source=source)
        builder = MaskBuilder(source, on_broken=on_broken)
        _read(builder, [_find_list(root, split) for split in wanted], masks)
        builder.finish()
        coding = ValueCoding({**{value: labels[name] for value, name in enumerate(declared)}, 255: IGNORED_PIXEL})
        files = MaskFiles(builder.mask_paths, coding)
        super().__init__(builder.paths, builder.image_ids, files, known, skipped=builder.problems)


@dataclass(slots=True, frozen=True)
class _List:
    """One split's list in one year's folder."""

    year: str
    folder: Path
    path: Path


def _years(root: Path) -> dict[str, Path]:
    """The folders that hold a year's data, by year; "" where the root is such a folder and does not say."""
    if not root.is_dir():
        raise UserError(f"root is {str(root)!r}: no such folder")
    if (root / _LISTS).is_dir():
        match = re.fullmatch(r"VOC(\d{4})", root.resolve().name)
        return {match.group(1) if match else "": root}
    devkit = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root
    years = {
        folder.name[3:]: folder
        for folder in sorted(devkit.iterdir())
        if re.fullmatch(r"VOC\d{4}", folder.name) and (folder / _LISTS).is_dir()
    }
    if not years:
        raise UserError(
            f"{root}: no segmentation lists: expected VOCdevkit/VOC2012/{_LISTS.as_posix()}, or {_LISTS.as_posix()} in "
            "it; for masks without such lists use MaskFolderDataset"
        )
    return years


def _find_list(root: Path, split: str) -> _List:
    """Where a split such as "2012_train" or "train" is listed."""
    years = _years(root)
    there = {
        (f"{year}_{path.stem}" if year else path.stem): _List(year, folder, path)
        for year, folder in years.items()
        for path in sorted((folder / _LISTS).glob("*.txt"))
    }
    if split in there:
        return there[split]
    if len(years) == 1 and f"{next(iter(years))}_{split}" in there:
        return there[f"{next(iter(years))}_{split}"]
    dated = [name for name in there if name.endswith(f"_{split}")]
    if dated:
        raise UserError(f"split {split!r} names no year: {root} has {' and '.join(map(repr, dated))}")
    without_year = {each.path.stem: name for name, each in there.items()}
    nearest = nearest_name(str(split), [*there, *without_year])
    hint = f" (nearest: {without_year.get(nearest, nearest)!r})" if nearest else ""
    raise UserError(f"split {split!r}: no such list{hint}. Splits that exist in {root}: {', '.join(there) or 'none'}")


def _read(builder: MaskBuilder, lists: Sequence[_List], masks: str) -> None:
    """All images of all lists, each once."""
    folders: dict[str, tuple[ImageFolder, ImageFolder]] = {}
    entries: dict[tuple[str, str], _List] = {}
    for split in lists:
        if split.year not in folders:
            for part in ("JPEGImages", masks):
                if not (split.folder / part).is_dir():
                    raise UserError(
                        f"{split.folder}: has no folder {part}, where this data set keeps what its lists name"
                    )
            folders[split.year] = ImageFolder(split.folder / "JPEGImages"), ImageFolder(split.folder / masks)
        stems = without_repetitions(builder, split.path, listed_lines(split.path))
        entries.update({(split.year, stem): split for stem in stems})
    shared = len({stem for _, stem in entries}) < len(entries)
    for (year, stem), split in entries.items():
        images, labelled = folders[year]
        image, mask = images.find(stem), find_name(labelled.names, f"{stem}.png")
        if image is None:
            builder.fault("image-missing", str(split.path), f"lists {stem!r}, but {images.folder} has no such image")
        elif mask is None:
            reason = f"lists {stem!r}, but {labelled.folder} has no {stem}.png"
            builder.fault("mask-missing", str(split.path), reason, image=image)
        else:
            builder.add(image, str(labelled.folder / mask), f"{year}_{stem}" if shared else stem)
