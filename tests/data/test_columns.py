"""What is asked of all images at once equals what their records say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from transfer.data.concat import UnionDataset
from transfer.data.subset import SubsetDataset, split_validation
from transfer.data.table import DetectionTable, TableDataset, image_ids_of, sizes_of
from transfer.data.texts import Texts, packed_ids
from transfer.loading import aspects
from transfer.types import DetectionDataset, Record, Sample

NAMES = ("cat", "dog", "cow")


def table(images: int, *, seed: int, ids: Sequence[int | str]) -> TableDataset:
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 4, images)
    boxes = int(counts.sum())
    return TableDataset(
        DetectionTable(
            paths=Texts(f"{place}.jpg" for place in range(images)),
            image_ids=packed_ids(ids),
            sizes=generator.integers(30, 900, (images, 2)),
            starts=np.concatenate([[0], np.cumsum(counts)]),
            boxes=generator.random((boxes, 4)).astype(np.float32),
            labels=generator.integers(0, len(NAMES), boxes),
            difficult=np.zeros(boxes, bool),
            crowd=np.zeros(boxes, bool),
            areas=np.ones(boxes, np.float32),
        ),
        NAMES,
    )


class ByRecords:
    """Somebody's own data set: nothing but the protocol."""

    class_names: tuple[str, ...] = NAMES

    def __init__(self, whole: TableDataset) -> None:
        self.whole = whole

    def __len__(self) -> int:
        return len(self.whole)

    def record(self, index: int) -> Record:
        return self.whole.record(index)

    def __getitem__(self, index: int) -> Sample:
        return self.whole[index]

    def category_ids(self) -> Sequence[int]:
        return self.whole.category_ids()


A = table(40, seed=0, ids=range(100, 140))
B = table(25, seed=1, ids=[f"{place:03d}" for place in range(25)])


@pytest.mark.parametrize(
    "dataset",
    [
        *(A, B, ByRecords(A), SubsetDataset(A, indices=[7, 3, 3, 39]), SubsetDataset(ByRecords(B), every=4)),
        UnionDataset([A, B]),
        UnionDataset([A, ByRecords(A)]),  # ids collide, so they are numbered
        UnionDataset([UnionDataset([B, B]), SubsetDataset(UnionDataset([B, A]), limit=30)]),
    ],
    ids=str,
)
def test_columns_equal_records(dataset: DetectionDataset) -> None:
    records = [dataset.record(index) for index in range(len(dataset))]
    assert [tuple(size) for size in sizes_of(dataset).tolist()] == [record.size for record in records]
    assert list(image_ids_of(dataset)) == [record.image_id for record in records]
    assert all(type(each) in (int, str) for each in image_ids_of(dataset))
    assert aspects(dataset) == [record.size[0] / record.size[1] for record in records]


def test_ids_of_a_union_are_numbered_only_where_they_collide() -> None:
    assert list(image_ids_of(UnionDataset([A, B])))[39:41] == [139, "000"]
    assert list(image_ids_of(UnionDataset([B, B])))[24:26] == ["1_024", "2_000"]


def test_what_is_held_out_of_a_table_is_held_out_of_its_records() -> None:
    for mine, other in zip(split_validation(A, 0.3, 5), split_validation(ByRecords(A), 0.3, 5), strict=True):
        assert mine.indices.tolist() == other.indices.tolist()


def test_the_table_is_not_the_callers_to_change() -> None:
    A.sizes()[:] = 0
    assert A.table.sizes.min() >= 30


@pytest.mark.parametrize("indices", [[], [0], [39, 0, 5, 5], range(40)], ids=str)
def test_a_part_of_a_table(indices: Sequence[int]) -> None:
    part = TableDataset(A.table.take(indices), NAMES)
    assert len(part) == len(indices)
    for place, index in enumerate(indices):
        mine, other = part.record(place), A.record(index)
        for name in ("boxes", "labels", "difficult", "crowd", "areas"):
            assert getattr(mine, name).tolist() == getattr(other, name).tolist()
            assert getattr(mine, name).dtype == getattr(other, name).dtype
        assert (mine.path, mine.image_id, mine.size) == (other.path, other.image_id, other.size)
