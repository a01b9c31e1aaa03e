"""Several data sets as one, one after the other: VOC 2007 with 2012, own photographs with a public set."""

from __future__ import annotations

import bisect
import dataclasses
import logging
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from transfer.data.class_names import nearest_name
from transfer.data.table import ByColumns, image_ids_of, sizes_of
from transfer.types import DetectionDataset, MaskRecord, Record, Sample, SegmentationDataset, UserError

_LOGGER = logging.getLogger(__name__)


class UnionDataset(ByColumns):
    """The images of all `datasets`, in their order.

    Where image ids of different sets collide, every id becomes "<number of the set, from 1>_<id>", so ids stay unique.
    Where the sets' category ids differ, label + 1 is used.
    """

    def __init__(self, datasets: Sequence[DetectionDataset]) -> None:
        """Check that the sets agree.

        Args:
            datasets: at least one; all with the same class names in the same order.

        Raises:
            UserError: no sets, or class names that differ.
        """
        if not datasets:
            raise UserError("datasets is empty: a union needs at least one data set")
        self.datasets = list(datasets)
        self.class_names = tuple(self.datasets[0].class_names)
        for number, dataset in enumerate(self.datasets[1:], 2):
            _check_names(self.class_names, tuple(dataset.class_names), number)
        self._ends = list(accumulate(len(dataset) for dataset in self.datasets))
        self._numbered = False
        self._numbered = len(set(self.image_ids())) < len(self)
        ids = {tuple(dataset.category_ids()) for dataset in self.datasets}
        self._category_ids = ids.pop() if len(ids) == 1 else tuple(range(1, len(self.class_names) + 1))
        if ids:
            _LOGGER.warning("the data sets of the union have different category ids; label + 1 is used")

    def __len__(self) -> int:
        return self._ends[-1]

    def category_ids(self) -> Sequence[int]:
        """The sets' own ids where they agree, else label + 1."""
        return self._category_ids

    def sizes(self) -> np.ndarray:
        """[N, 2] int64, (height, width) of every image."""
        return np.concatenate([sizes_of(dataset) for dataset in self.datasets])

    def image_ids(self) -> Sequence[int | str]:
        """Of every image."""
        each = [image_ids_of(dataset) for dataset in self.datasets]
        return [self._image_id(number, image_id) for number, ids in enumerate(each) for image_id in ids]

    def record(self, index: int) -> Record:
        """Truth and size without decoding pixels.

        Raises:
            IndexError: no such image.
        """
        number, inner = _locate(self._ends, index)
        record = self.datasets[number].record(inner)
        return dataclasses.replace(record, image_id=self._image_id(number, record.image_id))

    def __getitem__(self, index: int) -> Sample:
        """Decoded image with its truth; raises as the set it comes from."""
        number, inner = _locate(self._ends, index)
        sample = self.datasets[number][inner]
        return dataclasses.replace(sample, index=index % len(self), image_id=self._image_id(number, sample.image_id))

    def _image_id(self, number: int, image_id: int | str) -> int | str:
        return f"{number + 1}_{image_id}" if self._numbered else image_id


class SegmentationUnion:
    """The images of all `datasets` with masks, in their order.

    Every image id becomes "<number of the set, from 1>_<id>", so ids stay unique.
    """

    def __init__(self, datasets: Sequence[SegmentationDataset]) -> None:
        """Check that the sets agree.

        Args:
            datasets: at least one; all with the same class names in the same order.

        Raises:
            UserError: no sets, one without masks, or class names that differ.
        """
        if not datasets:
            raise UserError("datasets is empty: a union needs at least one data set")
        for number, dataset in enumerate(datasets, 1):
            if not hasattr(dataset, "mask"):
                raise UserError(f"data set {number} of the union is a {type(dataset).__name__}, which has no masks")
            _check_names(tuple(datasets[0].class_names), tuple(dataset.class_names), number)
        self.datasets = list(datasets)
        self.class_names = tuple(datasets[0].class_names)
        self._ends = list(accumulate(len(dataset) for dataset in datasets))

    def __len__(self) -> int:
        return self._ends[-1]

    def record(self, index: int) -> MaskRecord:
        """Path and size without decoding pixels; raises as the set it comes from."""
        number, inner = _locate(self._ends, index)
        record = self.datasets[number].record(inner)
        return dataclasses.replace(record, image_id=self._image_id(number, record.image_id))

    def mask(self, index: int) -> np.ndarray:
        """[H, W] uint8; raises as the set it comes from."""
        number, inner = _locate(self._ends, index)
        return self.datasets[number].mask(inner)

    def __getitem__(self, index: int) -> Sample:
        """Decoded image with its mask; raises as the set it comes from."""
        number, inner = _locate(self._ends, index)
        sample = self.datasets[number][inner]
        return dataclasses.replace(sample, index=index % len(self), image_id=self._image_id(number, sample.image_id))

    def _image_id(self, number: int, image_id: int | str) -> int | str:
        return image_id if len(self.datasets) == 1 else f"{number + 1}_{image_id}"


def _locate(ends: Sequence[int], index: int) -> tuple[int, int]:
    """(which set, position in it) of an image of the union; `ends` says where each set ends."""
    count = ends[-1]
    if not -count <= index < count:
        raise IndexError(f"image {index} of a union of {count}")
    index %= count
    number = bisect.bisect_right(ends, index)
    return number, index - (ends[number - 1] if number else 0)


def _check_names(expected: tuple[str, ...], found: tuple[str, ...], number: int) -> None:
    if found == expected:
        return
    start = f"the class names of data set {number} of the union differ from those of the first"
    if sorted(found) == sorted(expected):
        place = next(position for position, pair in enumerate(zip(expected, found)) if pair[0] != pair[1])
        raise UserError(
            f"{start} in their order: label {place} is {found[place]!r}, not {expected[place]!r}. "
            "Give all sets the same class_names=[...]."
        )
    lines = [f"{start}:"]
    for name in sorted(set(found) - set(expected)):
        nearest = nearest_name(name, expected)
        lines.append(f"  only there: {name!r}" + (f" (rename={{{name!r}: {nearest!r}}}?)" if nearest else ""))
    lines += [f"  missing there: {name!r}" for name in sorted(set(expected) - set(found))]
    lines.append("Give all sets the same class_names=[...], with rename={...} where a name differs.")
    raise UserError("\n".join(lines))
