"""Subsets and the stratified hold-out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfer.data.subset import SubsetDataset, split_validation
from transfer.data.table import DetectionTable, TableDataset
from transfer.data.voc import VOCDataset
from transfer.types import DetectionDataset, UserError


def dataset_of(*labels: list[int], classes: int = 3) -> TableDataset:
    """One image per argument, with boxes of these labels."""
    count = sum(map(len, labels))
    table = DetectionTable(
        paths=[f"{index}.jpg" for index in range(len(labels))],
        image_ids=list(range(100, 100 + len(labels))),
        sizes=np.full((len(labels), 2), 8),
        starts=np.cumsum([0, *map(len, labels)]),
        boxes=np.tile(np.array([[0, 0, 4, 4]], np.float32), (count, 1)),
        labels=np.array([label for image in labels for label in image], np.int64),
        difficult=np.zeros(count, bool),
        crowd=np.zeros(count, bool),
        areas=np.full(count, 16, np.float32),
    )
    return TableDataset(table, [f"class{label}" for label in range(classes)], category_ids=range(10, 10 + classes))


def ids(dataset: DetectionDataset) -> list[int | str]:
    return [dataset.record(index).image_id for index in range(len(dataset))]


def test_choosing_images() -> None:
    whole = dataset_of(*[[0]] * 10)
    assert ids(SubsetDataset(whole)) == list(range(100, 110))
    assert ids(SubsetDataset(whole, limit=3)) == [100, 101, 102]
    assert ids(SubsetDataset(whole, every=4)) == [100, 104, 108]
    assert ids(SubsetDataset(whole, every=4, limit=2)) == [100, 104]
    assert ids(SubsetDataset(whole, indices=[7, 2, 5], every=2)) == [107, 105]
    assert ids(SubsetDataset(whole, limit=99)) == list(range(100, 110))
    part = SubsetDataset(whole, limit=2)
    assert isinstance(part, DetectionDataset)
    assert (part.class_names, part.category_ids()) == (whole.class_names, (10, 11, 12))
    with pytest.raises(IndexError):
        part.record(2)


@pytest.mark.parametrize(
    "options", [{"limit": 0}, {"every": 0}, {"indices": []}, {"indices": [3, 10]}, {"indices": [-1]}]
)
def test_wrong_choices(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="|".join(options)):
        SubsetDataset(dataset_of(*[[0]] * 10), **options)  # type: ignore[arg-type]


def test_table_take_keeps_each_images_boxes() -> None:
    whole = dataset_of([0], [], [1, 2], [2])
    part = TableDataset(whole.table.take([2, 1, 0]), whole.class_names)
    assert [part.record(index).labels.tolist() for index in range(3)] == [[1, 2], [], [0]]
    assert ids(part) == [102, 101, 100]


def test_the_parts_are_disjoint_complete_and_of_the_wanted_size() -> None:
    whole = dataset_of(*[[index % 3] for index in range(40)], *[[]] * 10)
    train, val = split_validation(whole, 0.2, 0)
    assert (len(train), len(val)) == (40, 10)
    assert sorted([*ids(train), *ids(val)]) == list(range(100, 150))
    assert ids(val) == sorted(ids(val))


def test_every_class_has_its_share() -> None:
    # 100 images of class 0, 20 of class 1, 5 of class 2, no image of two
    whole = dataset_of(*[[0, 0]] * 100, *[[1]] * 20, *[[2]] * 5)
    for seed in range(5):
        _, val = split_validation(whole, 0.2, seed)
        labels = [int(val.record(index).labels[0]) for index in range(len(val))]
        assert np.bincount(labels, minlength=3).tolist() == [20, 4, 1]


def test_shares_are_rounded_class_by_class() -> None:
    # a fifth of 7 images is 1.4, of 8 it is 1.6: one and two of them, not the first three places that come up
    for seed in range(5):
        _, val = split_validation(dataset_of(*[[0]] * 7, *[[1]] * 8), 0.2, seed)
        assert sorted(int(val.record(index).labels[0]) for index in range(3)) == [0, 1, 1]


def test_samples_say_their_place_in_the_subset(tmp_path: Path) -> None:
    whole = dataset_of([0], [1], [2])
    for path in whole.table.paths:
        Image.new("RGB", (8, 8)).save(tmp_path / path)
    whole.table.paths = [str(tmp_path / path) for path in whole.table.paths]
    sample = SubsetDataset(whole, indices=[2])[0]
    assert (sample.index, sample.image_id, sample.labels.tolist()) == (0, 102, [2])
    assert sample.image.shape == (8, 8, 3)


def test_a_class_of_one_image_stays_in_training() -> None:
    whole = dataset_of(*[[0]] * 30, [0, 1])
    for seed in range(5):
        train, _ = split_validation(whole, 0.2, seed)
        assert 130 in ids(train)


def test_the_seed_alone_decides() -> None:
    whole = dataset_of(*[[index % 3] for index in range(60)])
    first = ids(split_validation(whole, 0.3, 5)[1])
    assert ids(split_validation(whole, 0.3, 5)[1]) == first
    assert ids(split_validation(whole, 0.3, 6)[1]) != first


def test_small_and_wrong_splits() -> None:
    for fraction in (0.01, 0.99):
        train, val = split_validation(dataset_of([0], [1], []), fraction, 0)
        assert min(len(train), len(val)) == 1
    for fraction in (0.0, 1.0, -1, float("nan")):
        with pytest.raises(UserError, match="fraction is"):
            split_validation(dataset_of([0], [1]), fraction, 0)
    with pytest.raises(UserError, match="cannot be split"):
        split_validation(dataset_of([0]), 0.5, 0)
    train, val = split_validation(dataset_of([], [], []), 0.34, 0)
    assert (len(train), len(val)) == (2, 1)


@pytest.mark.data
def test_real_many_labelled_images(shared_data: Path) -> None:
    whole = VOCDataset(shared_data / "voc_mini", "2007_trainval")
    train, val = split_validation(whole, 0.2, 0)
    assert len(val) == round(0.2 * len(whole))

    def images_per_class(dataset: DetectionDataset) -> np.ndarray:
        lists = [np.unique(dataset.record(index).labels) for index in range(len(dataset))]
        return np.bincount(np.concatenate(lists), minlength=len(whole.class_names))

    total, held = images_per_class(whole), images_per_class(val)
    assert (images_per_class(train) > 0)[total > 0].all()
    assert (held > 0)[total >= 5].all()
    assert np.abs(held - 0.2 * total).max() <= 2.5
