"""Subsets, hold-out and unions of data sets with masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hand_made_png import write_png
from PIL import Image

from transfer.data.concat import SegmentationUnion
from transfer.data.mask_dataset import MaskDataset, MaskFiles
from transfer.data.masks import ValueCoding
from transfer.data.subset import SegmentationSubset, SubsetDataset, present_by_masks, split_validation
from transfer.types import DetectionDataset, SegmentationDataset, UserError

CODING = ValueCoding({0: 0, 1: 1, 2: 2, 255: 255})


def dataset_of(folder: Path, *masks: list[int], names: tuple[str, ...] = ("a", "b", "c")) -> MaskDataset:
    """One image of one row for each mask."""
    paths, mask_paths = [], []
    for number, values in enumerate(masks):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (len(values), 1), (number, 0, 0)).save(folder / f"images/{number}.png")
        paths.append(str(folder / f"images/{number}.png"))
        mask_paths.append(str(write_png(folder / f"masks/{number}.png", np.array([values]))))
    return MaskDataset(paths, [str(n) for n in range(len(masks))], MaskFiles(mask_paths, CODING), names)


def ids(dataset: SegmentationDataset) -> list[int | str]:
    return [dataset.record(index).image_id for index in range(len(dataset))]


def test_choosing_images(tmp_path: Path) -> None:
    whole = dataset_of(tmp_path, *([number % 3] for number in range(10)))
    assert ids(SegmentationSubset(whole, every=4)) == ["0", "4", "8"]
    assert ids(SegmentationSubset(whole, limit=2)) == ["0", "1"]
    part = SegmentationSubset(whole, indices=[7, 2])
    assert isinstance(part, SegmentationDataset)
    assert not isinstance(part, DetectionDataset)
    assert part.class_names == whole.class_names
    assert [part.mask(index).tolist() for index in range(2)] == [[[1]], [[2]]]
    assert (part[1].index, part[1].image_id, part[1].image[0, 0, 0]) == (1, "2", 2)
    assert part[1].mask is not None
    with pytest.raises(UserError, match="limit is 0"):
        SegmentationSubset(whole, limit=0)
    with pytest.raises(UserError, match="use SegmentationSubset"):
        SubsetDataset(whole, limit=2)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has no masks: use SubsetDataset"):
        SegmentationSubset([1, 2], limit=2)  # type: ignore[arg-type]


def test_which_classes_have_pixels(tmp_path: Path) -> None:
    whole = dataset_of(tmp_path, [0, 0, 2], [255, 255, 255], [1, 2, 255], [7, 0, 0])
    assert present_by_masks(whole).tolist() == [
        [True, False, True], [False, False, False], [False, True, True], [False, False, False]  # 7 has no class
    ]  # fmt: skip


def test_the_hold_out_has_every_class(tmp_path: Path) -> None:
    whole = dataset_of(tmp_path, *[[0, 0]] * 20, *[[0, 1]] * 5, *[[2, 255]] * 5)
    for seed in range(4):
        train, val = split_validation(whole, 0.2, seed)
        assert isinstance(train, SegmentationSubset)
        assert (len(train), len(val)) == (24, 6)
        assert sorted(map(int, [*ids(train), *ids(val)])) == list(range(30))
        numbers = [int(name) for name in ids(val)]
        assert sum(20 <= number < 25 for number in numbers) == 1
        assert sum(number >= 25 for number in numbers) == 1
    assert ids(split_validation(whole, 0.2, 0)[1]) == ids(split_validation(whole, 0.2, 0)[1])
    assert any(ids(split_validation(whole, 0.2, 0)[1]) != ids(split_validation(whole, 0.2, seed)[1]) for seed in (1, 2))
    with pytest.raises(UserError, match="fraction is 1"):
        split_validation(whole, 1.0, 0)


def test_a_union(tmp_path: Path) -> None:
    first, second = dataset_of(tmp_path / "1", [0], [1]), dataset_of(tmp_path / "2", [2])
    both = SegmentationUnion([first, second])
    assert isinstance(both, SegmentationDataset)
    assert ids(both) == ["1_0", "1_1", "2_0"]
    assert [both.mask(index).tolist() for index in range(-3, 3)] == [[[0]], [[1]], [[2]]] * 2
    assert (both[2].index, both[2].image_id, both[-1].index) == (2, "2_0", 2)
    assert ids(SegmentationUnion([first])) == ["0", "1"]
    with pytest.raises(IndexError):
        both.mask(3)
    with pytest.raises(UserError, match="datasets is empty"):
        SegmentationUnion([])
    with pytest.raises(UserError, match="differ from those of the first"):
        SegmentationUnion([first, dataset_of(tmp_path / "3", [0], names=("a", "b"))])
    with pytest.raises(UserError, match="data set 2 of the union is a list, which has no masks"):
        SegmentationUnion([first, []])  # type: ignore[list-item]
