"""A part of a data set, and a validation part held out of a training set that came without one.

Source of the split: Sechidis, Tsoumakas and Vlahavas 2011, On the Stratification of Multi-Label Data, algorithm 1, with
two parts and an image's set of classes as its labels: those of its boxes, or of its mask's pixels. Deviations: the
parts' sizes are exact, so a full part takes no more; ties are broken by one shuffle drawn beforehand, so the split is a
function of (truth, fraction, seed) alone.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import overload

import numpy as np

from transfer.data.image import BrokenSample
from transfer.types import (
    IGNORED_PIXEL,
    DetectionDataset,
    MaskRecord,
    Record,
    Sample,
    SegmentationDataset,
    UserError,
)

_LOGGER = logging.getLogger(__name__)
_MANY = 2000
"""Masks from which on the log says that reading them takes time."""


class SubsetDataset:
    """Some images of a data set, under its class names and image ids."""

    def __init__(
        self,
        dataset: DetectionDataset,
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
            UserError: an argument out of its range, nothing left, or a data set of masks.
        """
        if not hasattr(dataset, "category_ids") and hasattr(dataset, "mask"):
            raise UserError("dataset has masks and no boxes: use SegmentationSubset")
        self.dataset = dataset
        self.class_names = tuple(dataset.class_names)
        self.indices = _choose(len(dataset), limit, every, indices)

    def __len__(self) -> int:
        return len(self.indices)

    def category_ids(self) -> Sequence[int]:
        """As the whole data set."""
        return self.dataset.category_ids()

    def record(self, index: int) -> Record:
        """Truth and size without decoding pixels.

        Raises:
            IndexError: no such image.
        """
        return self.dataset.record(int(self.indices[index]))

    def __getitem__(self, index: int) -> Sample:
        """Decoded image with its truth; raises as the whole data set."""
        sample = self.dataset[int(self.indices[index])]
        return dataclasses.replace(sample, index=index % len(self))


class SegmentationSubset:
    """Some images of a data set with masks, under its class names and image ids."""

    def __init__(
        self,
        dataset: SegmentationDataset,
        *,
        limit: int | None = None,
        every: int | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        """Choose the images, as `SubsetDataset` does.

        Args:
            dataset: where they come from.
            limit: at most so many, >= 1.
            every: each n-th, beginning with the first, >= 1.
            indices: positions in `dataset`, in the wanted order.

        Raises:
            UserError: an argument out of its range, nothing left, or a data set without masks.
        """
        if not hasattr(dataset, "mask"):
            raise UserError(f"dataset is a {type(dataset).__name__}, which has no masks: use SubsetDataset")
        self.dataset = dataset
        self.class_names = tuple(dataset.class_names)
        self.indices = _choose(len(dataset), limit, every, indices)

    def __len__(self) -> int:
        return len(self.indices)

    def record(self, index: int) -> MaskRecord:
        """Path and size without decoding pixels; raises as the whole data set."""
        return self.dataset.record(int(self.indices[index]))

    def mask(self, index: int) -> np.ndarray:
        """[H, W] uint8; raises as the whole data set."""
        return self.dataset.mask(int(self.indices[index]))

    def __getitem__(self, index: int) -> Sample:
        """Decoded image with its mask; raises as the whole data set."""
        sample = self.dataset[int(self.indices[index])]
        return dataclasses.replace(sample, index=index % len(self))


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


def split_validation(
    dataset: DetectionDataset | SegmentationDataset, fraction: float, seed: int
) -> tuple[SubsetDataset, SubsetDataset] | tuple[SegmentationSubset, SegmentationSubset]:
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
    present = np.zeros((len(dataset), len(dataset.class_names)), bool)
    for index in range(len(dataset)):
        labels = dataset.record(index).labels
        present[index, labels[(labels >= 0) & (labels < present.shape[1])]] = True  # a preflight names the others
    held_out = hold_out(present, fraction, seed)
    train, val = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    return SubsetDataset(dataset, indices=train.tolist()), SubsetDataset(dataset, indices=val.tolist())


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
    held = min(max(round(fraction * count), 1), count - 1)
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
