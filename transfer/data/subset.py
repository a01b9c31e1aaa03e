"""A part of a data set, and a validation part held out of a training set that came without one.

Source of the split: Sechidis, Tsoumakas and Vlahavas 2011, On the Stratification of Multi-Label Data, algorithm 1, with
two parts and an image's set of classes as its labels: those of its boxes, or of its mask's pixels. Deviations: the
parts' sizes are exact, so a full part takes no more; ties are broken by one shuffle drawn beforehand, so the split is a
function of (truth, fraction, seed) alone. Images of one class each need no such search (`hold_out_by_class`).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar, overload

import numpy as np

from transfer.data.image import BrokenSample
from transfer.data.table import ByColumns, TableDataset, image_ids_of, sizes_of
from transfer.types import (
    IGNORED_PIXEL,
    AnyDataset,
    ClassificationDataset,
    DetectionDataset,
    ImageRecord,
    MaskRecord,
    Record,
    Sample,
    SegmentationDataset,
    UserError,
)

_LOGGER = logging.getLogger(__name__)
_MANY = 2000
"""Masks from which on the log says that reading them takes time."""


class _Whole(Protocol):
    """What the data sets of all tasks have."""

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


WholeSet = TypeVar("WholeSet", bound=_Whole)


class _Chosen(Generic[WholeSet]):
    """What the subsets of all tasks share."""

    def __init__(
        self,
        dataset: WholeSet,
        *,
        limit: int | None = None,
        every: int | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        """Choose the images: first by `indices`, of these every n-th, of these the first ones.

        Args:
            dataset: where they come from.
            limit: at most so many, >= 1.
            every: each n-th, beginning with the first, >= 1.
            indices: positions in `dataset`, in the wanted order.

        Raises:
            UserError: an argument out of its range, nothing left, or a data set of another task.
        """
        self._check(dataset)
        self.dataset = dataset
        self.class_names = tuple(dataset.class_names)
        self.indices = _choose(len(dataset), limit, every, indices)

    @staticmethod
    def _check(dataset: Any) -> None:
        """Raises: UserError where the data set is of another task."""

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        """Decoded image with its truth; raises as the whole data set."""
        sample = self.dataset[int(self.indices[index])]
        return dataclasses.replace(sample, index=index % len(self))


class SubsetDataset(_Chosen[DetectionDataset], ByColumns):
    """Some images of a data set, under its class names and image ids."""

    @staticmethod
    def _check(dataset: Any) -> None:
        if hasattr(dataset, "category_ids"):
            return
        if hasattr(dataset, "mask"):
            raise UserError("dataset has masks and no boxes: use SegmentationSubset")
        if hasattr(dataset, "labels"):
            raise UserError("dataset has classes of whole images and no boxes: use ClassificationSubset")

    def category_ids(self) -> Sequence[int]:
        """As the whole data set."""
        return self.dataset.category_ids()

    def record(self, index: int) -> Record:
        """Truth and size without decoding pixels.

        Raises:
            IndexError: no such image.
        """
        return self.dataset.record(int(self.indices[index]))

    def sizes(self) -> np.ndarray:
        """[N, 2] int64, (height, width) of every image."""
        return sizes_of(self.dataset)[self.indices]

    def image_ids(self) -> Sequence[int | str]:
        """Of every image."""
        ids = list(image_ids_of(self.dataset))
        return [ids[index] for index in self.indices.tolist()]


class SegmentationSubset(_Chosen[SegmentationDataset]):
    """Some images of a data set with masks, under its class names and image ids."""

    @staticmethod
    def _check(dataset: Any) -> None:
        if not hasattr(dataset, "mask"):
            raise UserError(f"dataset is a {type(dataset).__name__}, which has no masks: use SubsetDataset")

    def record(self, index: int) -> MaskRecord:
        """Path and size without decoding pixels; raises as the whole data set."""
        return self.dataset.record(int(self.indices[index]))

    def mask(self, index: int) -> np.ndarray:
        """[H, W] uint8; raises as the whole data set."""
        return self.dataset.mask(int(self.indices[index]))


class ClassificationSubset(_Chosen[ClassificationDataset]):
    """Some images of a data set with a class each, under its class names and image ids.

    The images of class folders come class by class: `limit` alone takes the first classes, `every` some of each.
    """

    @staticmethod
    def _check(dataset: Any) -> None:
        if not isinstance(dataset, ClassificationDataset):
            raise UserError(
                f"dataset is a {type(dataset).__name__}, whose images have no class each: use SubsetDataset, or with "
                "masks SegmentationSubset"
            )

    def record(self, index: int) -> ImageRecord:
        """Path and class without opening the file; raises as the whole data set."""
        return self.dataset.record(int(self.indices[index]))

    def labels(self) -> np.ndarray:
        """[N] int64: the class of every image."""
        return self.dataset.labels()[self.indices]


def _choose(count: int, limit: int | None, every: int | None, indices: Sequence[int] | None) -> np.ndarray:
    """[N] int64: the chosen positions of `count` images."""
    for name, value in (("limit", limit), ("every", every)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}: it must be at least 1")
    chosen = list(range(count)) if indices is None else [int(index) for index in indices]
    outside = [index for index in chosen if not 0 <= index < count]
    if outside:
        shown = ", ".join(map(str, outside[:5]))
        raise UserError(f"indices holds {shown}: the data set has images 0 to {count - 1}")
    positions = np.array(chosen[::every][:limit], np.int64)
    if len(positions) == 0:
        raise UserError("the subset holds no image: indices is empty" if indices is not None else "no images")
    return positions


@overload
def split_validation(dataset: DetectionDataset, fraction: float, seed: int) -> tuple[SubsetDataset, SubsetDataset]: ...


@overload
def split_validation(
    dataset: SegmentationDataset, fraction: float, seed: int
) -> tuple[SegmentationSubset, SegmentationSubset]: ...


@overload
def split_validation(
    dataset: ClassificationDataset, fraction: float, seed: int
) -> tuple[ClassificationSubset, ClassificationSubset]: ...


def split_validation(
    dataset: AnyDataset, fraction: float, seed: int
) -> (
    tuple[SubsetDataset, SubsetDataset]
    | tuple[SegmentationSubset, SegmentationSubset]
    | tuple[ClassificationSubset, ClassificationSubset]
):
    """Hold out a validation part that has each class in about its share of the images.

    Args:
        dataset: at least two images. With masks, each of them is decoded once; one that cannot be counts as empty here,
            and is reported where it is used.
        fraction: share of the images to hold out, in (0, 1).
        seed: which of the equally good splits.

    Returns:
        (training part, validation part), each in the order of `dataset`, neither empty.

    Raises:
        UserError: a fraction outside (0, 1), or fewer than two images.
    """
    _check_split(len(dataset), fraction)
    if isinstance(dataset, SegmentationDataset):
        if len(dataset) >= _MANY:
            _LOGGER.info("reading %d masks to hold out a validation part that has every class", len(dataset))
        held_out = hold_out(present_by_masks(dataset), fraction, seed)
        return (
            SegmentationSubset(dataset, indices=np.flatnonzero(~held_out).tolist()),
            SegmentationSubset(dataset, indices=np.flatnonzero(held_out).tolist()),
        )
    if isinstance(dataset, ClassificationDataset):
        held_out = hold_out_by_class(dataset.labels(), fraction, seed)
        return (
            ClassificationSubset(dataset, indices=np.flatnonzero(~held_out).tolist()),
            ClassificationSubset(dataset, indices=np.flatnonzero(held_out).tolist()),
        )
    held_out = hold_out(_present_by_boxes(dataset), fraction, seed)
    train, val = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    return SubsetDataset(dataset, indices=train.tolist()), SubsetDataset(dataset, indices=val.tolist())


def _present_by_boxes(dataset: DetectionDataset) -> np.ndarray:
    """[N, K] bool: which classes have a box in which image; a label that is no class is a preflight's to name."""
    if isinstance(dataset, TableDataset):
        counts, labels = np.diff(dataset.table.starts), dataset.table.labels
    else:
        each = [dataset.record(index).labels for index in range(len(dataset))]
        counts, labels = np.array([len(one) for one in each]), np.concatenate(each)
    present = np.zeros((len(dataset), len(dataset.class_names)), bool)
    known = (labels >= 0) & (labels < present.shape[1])
    present[np.repeat(np.arange(len(dataset)), counts)[known], labels[known]] = True
    return present


def present_by_masks(dataset: SegmentationDataset) -> np.ndarray:
    """[N, K] bool: which classes have a pixel in which mask; none in a mask that cannot be used."""
    present = np.zeros((len(dataset), IGNORED_PIXEL + 1), bool)
    for index in range(len(dataset)):
        try:
            present[index] = np.bincount(dataset.mask(index).ravel(), minlength=IGNORED_PIXEL + 1) > 0
        except BrokenSample:
            continue
    return present[:, : len(dataset.class_names)]


def hold_out(present: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose the validation part by the classes in each image.

    Args:
        present: [N, K] bool, N >= 2.
        fraction: share to hold out, in (0, 1).
        seed: which of the equally good splits.

    Returns:
        [N] bool, True where held out.

    Raises:
        UserError: as `split_validation`.
    """
    _check_split(len(present), fraction)
    return _stratify(present, fraction, np.random.default_rng(seed))


def hold_out_by_class(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose the validation part of images that have one class each.

    The largest remainders' method: each class gives its share of images rounded down, and those whose shares were cut
    by most one more, until the part is full. A class gives its last image only where nothing else is left to give.

    Args:
        labels: [N] int64, >= 0; N >= 2.
        fraction: share to hold out, in (0, 1).
        seed: which of the equally good splits.

    Returns:
        [N] bool, True where held out.

    Raises:
        UserError: as `split_validation`.
    """
    count = len(labels)
    _check_split(count, fraction)
    rng = np.random.default_rng(seed)
    held = _number_held(count, fraction)
    sizes = np.bincount(labels)
    given, remainders = np.divmod(held * sizes, count)  # [K] each, in whole numbers
    keeps_none = sizes - given <= 1
    ranking = np.lexsort((rng.permutation(len(sizes)), -remainders, keeps_none))
    given[ranking[: held - given.sum()]] += 1
    # the images by class, in each class in random order
    order = rng.permutation(count)
    order = order[np.argsort(labels[order], kind="stable")]
    place = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # in its class
    held_out = np.zeros(count, bool)
    held_out[order[place < given[labels[order]]]] = True
    return held_out


def _number_held(count: int, fraction: float) -> int:
    return min(max(round(fraction * count), 1), count - 1)


def _check_split(count: int, fraction: float) -> None:
    if not 0 < fraction < 1:
        raise UserError(f"fraction is {fraction}: the share to hold out lies between 0 and 1")
    if count < 2:
        raise UserError(f"a data set of {count} image cannot be split")


def _stratify(present: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """[N] bool, True where held out; `present` is [N, K] bool."""
    count = len(present)
    shares = np.array([1 - fraction, fraction])
    # Whole images to each part, at least one; the parts' remaining wishes for images of each class, [2, K]
    held = _number_held(count, fraction)
    places = np.array([count - held, held])
    wishes = shares[:, None] * present.sum(0)
    part = np.full(count, -1)
    order = rng.permutation(count)
    while (open_images := part < 0).any():
        left = present[open_images].sum(0)
        if not left.any():  # only images without objects are left: they fill the places
            rest = order[part[order] < 0]
            part[rest[: places[1]]] = 1
            part[rest[places[1] :]] = 0
            break
        rarest = int(np.where(left > 0, left, count + 1).argmin())
        for image in order[(part[order] < 0) & present[order, rarest]]:
            # the part that wants this class most, of equals the one with most places, if it has any
            ranking = [(places[side] > 0, wishes[side, rarest], places[side] / shares[side], -side) for side in (0, 1)]
            chosen = ranking.index(max(ranking))
            part[image] = chosen
            places[chosen] -= 1
            wishes[chosen, present[image]] -= 1
    return part == 1
