"""The union of data sets."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from transfer.data.concat import UnionDataset
from transfer.types import DetectionDataset, Record, Sample, UserError


class Fixed:
    """A data set of given image ids; the n-th image has n + 1 boxes."""

    def __init__(self, *ids: int | str, names: tuple[str, ...] = ("cat", "dog"), categories: tuple[int, ...] = (1, 2)):
        self.ids = ids
        self.class_names = names
        self.categories = categories

    def __len__(self) -> int:
        return len(self.ids)

    def record(self, index: int) -> Record:
        boxes = np.zeros((index + 1, 4), np.float32)
        flags = np.zeros(index + 1, bool)
        return Record(f"{self.ids[index]}.jpg", self.ids[index], (4, 5), boxes, flags.astype(int), flags, flags, boxes)

    def __getitem__(self, index: int) -> Sample:
        record = self.record(index)
        image = np.zeros((4, 5, 3), np.uint8)
        weights = np.ones(index + 1, np.float32)
        return Sample(
            image, record.boxes, record.labels, record.difficult, weights, index, record.image_id, record.path, (4, 5)
        )

    def category_ids(self) -> tuple[int, ...]:
        return self.categories


def test_the_images_of_all_in_order() -> None:
    union = UnionDataset([Fixed("a", "b"), Fixed("c"), Fixed("d", "e")])
    assert isinstance(union, DetectionDataset)
    assert len(union) == 5
    assert [union.record(index).image_id for index in range(5)] == ["a", "b", "c", "d", "e"]
    assert [len(union[index].boxes) for index in range(5)] == [1, 2, 1, 1, 2]
    assert [union[index].index for index in range(5)] == [0, 1, 2, 3, 4]
    assert union[-1].index == 4
    for index in (5, -6):
        with pytest.raises(IndexError):
            union.record(index)


def test_colliding_ids_are_numbered() -> None:
    union = UnionDataset([Fixed("a", 7), Fixed(7)])
    assert [union.record(index).image_id for index in range(3)] == ["1_a", "1_7", "2_7"]
    assert [union[index].image_id for index in range(3)] == ["1_a", "1_7", "2_7"]


def test_category_ids_are_kept_where_they_agree(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert UnionDataset([Fixed("a", categories=(3, 90)), Fixed("b", categories=(3, 90))]).category_ids() == (3, 90)
    assert not caplog.text
    assert UnionDataset([Fixed("a", categories=(3, 90)), Fixed("b")]).category_ids() == (1, 2)
    assert "different category ids" in caplog.text


def test_other_names_are_refused_with_the_difference() -> None:
    with pytest.raises(UserError) as caught:
        UnionDataset([Fixed("a"), Fixed("b"), Fixed("c", names=("Cat", "dog", "emu"))])
    for expected in ("data set 3", "only there: 'Cat' (rename={'Cat': 'cat'}?)", "'emu'", "missing there: 'cat'"):
        assert expected in str(caught.value)
    with pytest.raises(UserError, match="label 0 is 'dog', not 'cat'"):
        UnionDataset([Fixed("a"), Fixed("b", names=("dog", "cat"))])
    with pytest.raises(UserError, match="at least one"):
        UnionDataset([])
