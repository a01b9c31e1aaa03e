"""The embedded sample as a data set: made on first use, so every command runs with no data of one's own."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from transfer.data.class_folder import ClassFolderDataset
from transfer.data.classification_dataset import LabelledImages
from transfer.data.mask_dataset import MaskDataset, MaskFiles
from transfer.data.table import TableDataset
from transfer.data.voc import VOCDataset
from transfer.data.voc_segmentation import VOCSegmentation
from transfer.types import UserError

_LOGGER = logging.getLogger(__name__)

_SPLITS = ("train", "val", "trainval", "test")
_CROP_SPLITS = ("train", "val")


class SampleDetection(TableDataset):
    """A split of the embedded sample (sample.py), made where it is not there yet."""

    def __init__(
        self, split: str = "train", *, root: str | Path | None = None, seed: int = 0, limit: int | None = None
    ) -> None:
        """Make the sample if needed and read one split.

        Args:
            split: "train", "val", "trainval" or "test".
            root: folder of the sample; None: the default one, or beside it for a seed other than 0.
            seed: what the sample is made from, if it has to be made.
            limit: only the first so many images, >= 1.

        Raises:
            UserError: another split, or a limit below 1.
        """
        from transfer.data.sample import SAMPLE_CLASSES

        folder = _made(split, root, seed, limit)
        # all the sample can hold, so that a class absent from one split does not move the labels
        names = sorted(SAMPLE_CLASSES)
        whole = VOCDataset(folder, f"2007_{split}", class_names=names)
        table = whole.table if limit is None else whole.table.take(range(min(limit, len(whole))))
        super().__init__(table, names, skipped=whole.skipped, counts=whole.counts)


class SampleSegmentation(MaskDataset):
    """A split of the embedded sample with masks: background and the twelve classes that also have boxes."""

    def __init__(
        self, split: str = "train", *, root: str | Path | None = None, seed: int = 0, limit: int | None = None
    ) -> None:
        """Make the sample if needed and list one split; arguments and errors as in `SampleDetection`."""
        from transfer.data.sample import SAMPLE_CLASSES

        folder = _made(split, root, seed, limit)
        whole = VOCSegmentation(folder, f"2007_{split}", classes=("background", *SAMPLE_CLASSES))
        source = whole.source
        assert isinstance(source, MaskFiles)
        masks = MaskFiles(source.paths[:limit], source.coding)
        super().__init__(whole.paths[:limit], whole.image_ids[:limit], masks, whole.class_names)


class SampleClassification(LabelledImages):
    """A split of the embedded sample's crops of single objects: fourteen classes, eight of which are in the scenes."""

    def __init__(
        self, split: str = "train", *, root: str | Path | None = None, seed: int = 0, limit: int | None = None
    ) -> None:
        """Make the sample if needed and list one split's crops.

        Args:
            split: "train" or "val".
            root, seed: as in `SampleDetection`.
            limit: only so many images, >= 1: the first of each class, then the second of each, and so on.

        Raises:
            UserError: another split, or a limit below 1.
        """
        from transfer.data.sample import CROP_CLASSES

        if split not in _CROP_SPLITS:
            raise UserError(f"split is {split!r}: the crops of the sample have {', '.join(_CROP_SPLITS)}")
        folder = _made(split, root, seed, limit)
        whole = ClassFolderDataset(folder / "crops" / split, class_names=sorted(CROP_CLASSES))
        labels = whole.labels()
        # a file's place among those of its class; then by place, of equals by class
        places = np.arange(len(labels)) - np.searchsorted(labels, labels)
        chosen = np.sort(np.lexsort((labels, places))[:limit])
        super().__init__(whole.root, [whole.paths[index] for index in chosen], labels[chosen], whole.class_names)


def _made(split: str, root: str | Path | None, seed: int, limit: int | None) -> Path:
    """The sample's folder, with the sample in it.

    Raises:
        UserError: another split, or a limit below 1.
    """
    from transfer.data.sample import make_sample, sample_folder

    if split not in _SPLITS:
        raise UserError(f"split is {split!r}: the sample has {', '.join(_SPLITS)}")
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}: it must be at least 1")
    folder = Path(root) if root is not None else sample_folder()
    if root is None and seed != 0:
        folder = folder.with_name(f"{folder.name.removesuffix('-seed0')}-seed{seed}")
    there = (folder / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / f"{split}.txt").is_file()
    if not there:
        _LOGGER.info("drawing the embedded sample into %s, which takes about 20 s", folder)
    if root is None or not there:  # a default one that another version drew is refused by name
        make_sample(folder, seed=seed)
    return folder
