"""Subsets and hold-out of images with one class each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from transfer.data.classification_dataset import LabelledImages
from transfer.data.subset import (
    ClassificationSubset,
    SegmentationSubset,
    SubsetDataset,
    hold_out,
    hold_out_by_class,
    split_validation,
)
from transfer.types import ClassificationDataset, DetectionDataset, SegmentationDataset, UserError, task_of


def dataset_of(*sizes: int, root: str = "") -> LabelledImages:
    """So many images of each class, class by class; called 0, 1, ..."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return LabelledImages(root, [f"{n}.png" for n in range(len(labels))], labels, [f"c{k}" for k in range(len(sizes))])


def ids(dataset: ClassificationDataset) -> list[int]:
    return [int(str(dataset.record(index).image_id).removesuffix(".png")) for index in range(len(dataset))]


def test_choosing_images(tmp_path: Path) -> None:
    whole = dataset_of(5, 3, 2, root=str(tmp_path))
    assert ids(ClassificationSubset(whole)) == list(range(10))
    assert ids(ClassificationSubset(whole, every=4)) == [0, 4, 8]
    assert ids(ClassificationSubset(whole, every=4, limit=2)) == [0, 4]
    part = ClassificationSubset(whole, indices=[9, 2, 5])
    assert (ids(part), part.labels().tolist()) == ([9, 2, 5], [2, 0, 1])
    assert part.class_names == whole.class_names
    assert part.labels().tolist() == [part.record(index).label for index in range(3)]
    Image.new("RGB", (3, 2), (7, 0, 0)).save(tmp_path / "5.png")
    sample = part[-1]
    assert (sample.index, sample.label, sample.image_id, sample.image[0, 0, 0]) == (2, 1, "5.png", 7)
    assert isinstance(part, ClassificationDataset)
    assert not isinstance(part, (DetectionDataset, SegmentationDataset))
    assert task_of(part) == "classification"
    nested = ClassificationSubset(part, indices=[1, 0])
    assert (ids(nested), nested.labels().tolist()) == ([2, 9], [0, 2])


def test_data_of_another_task() -> None:
    whole = dataset_of(2, 2)
    with pytest.raises(UserError, match="use ClassificationSubset"):
        SubsetDataset(whole)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has no masks"):
        SegmentationSubset(whole)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="is a list, whose images have no class each"):
        ClassificationSubset([1, 2])  # type: ignore[arg-type]
    for options in ({"limit": 0}, {"every": 0}, {"indices": []}, {"indices": [4]}):
        with pytest.raises(UserError, match=next(iter(options))):
            ClassificationSubset(whole, **options)  # type: ignore[arg-type]


def test_shares_by_hand() -> None:
    # a fifth of 100, 20 and 5 is whole; of 7, 8 and 10 it is 1.4, 1.6 and 2: five places
    for seed in range(5):
        assert counts_of(dataset_of(100, 20, 5), 0.2, seed) == [20, 4, 1]
        assert counts_of(dataset_of(7, 8, 10), 0.2, seed) == [1, 2, 2]


def counts_of(whole: LabelledImages, fraction: float, seed: int) -> list[int]:
    _, val = split_validation(whole, fraction, seed)
    return np.bincount(val.labels(), minlength=len(whole.class_names)).tolist()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=2, max_size=12).filter(lambda sizes: sum(sizes) >= 2),
    fraction=st.floats(0.02, 0.98),
    seed=st.integers(0, 9),
)
def test_what_every_split_keeps(sizes: list[int], fraction: float, seed: int) -> None:
    whole = dataset_of(*sizes)
    train, val = split_validation(whole, fraction, seed)
    assert sorted([*ids(train), *ids(val)]) == list(range(sum(sizes)))
    assert ids(val) == sorted(ids(val))
    assert len(val) == min(max(round(fraction * sum(sizes)), 1), sum(sizes) - 1)
    held = np.bincount(val.labels(), minlength=len(sizes))
    assert np.abs(held - len(val) * np.array(sizes) / sum(sizes)).max() < 1.0 + 1e-9
    # a class vanishes from training only where each class gives all it can without
    vanished = (held == sizes) & (np.array(sizes) > 0)
    assert not vanished.any() or len(val) > sum(
        min(size - 1, int(len(val) * size / sum(sizes)) + 1) for size in sizes if size
    )


def test_a_class_of_one_image_stays_in_training() -> None:
    for seed in range(5):
        train, _ = split_validation(dataset_of(31, 1, 1), 0.2, seed)
        assert set(train.labels().tolist()) == {0, 1, 2}


def test_as_the_search_for_several_labels_does() -> None:
    """Sechidis' algorithm on the same truth gives each class as many, where no share ends in a half."""
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [40, 23, 11, 6]))
    present = np.eye(4, dtype=bool)[labels]
    for fraction in (0.1, 0.2, 0.35):
        searched = np.bincount(labels[hold_out(present, fraction, 0)], minlength=4)
        assert np.abs(np.bincount(labels[hold_out_by_class(labels, fraction, 0)], minlength=4) - searched).max() <= 1


def test_the_seed_alone_decides() -> None:
    whole = dataset_of(20, 20, 20)
    first = ids(split_validation(whole, 0.3, 5)[1])
    assert ids(split_validation(whole, 0.3, 5)[1]) == first
    others = [ids(split_validation(whole, 0.3, seed)[1]) for seed in range(6, 9)]
    assert all(other != first for other in others)
    # every image has its chance
    chosen = {image for seed in range(30) for image in ids(split_validation(whole, 0.3, seed)[1])}
    assert chosen == set(range(60))


def test_many_images_are_split_at_once() -> None:
    """A table of images by classes, as the search for several labels has, would be 1.3 GB for ImageNet."""
    labels = np.random.default_rng(1).integers(0, 1000, 1_300_000)
    held = hold_out_by_class(labels, 0.02, 0)
    assert held.sum() == 26_000
    counts, whole = np.bincount(labels[held], minlength=1000), np.bincount(labels, minlength=1000)
    assert np.abs(counts - 0.02 * whole).max() < 1


def test_wrong_splits() -> None:
    for fraction in (0.0, 1.0, -1, float("nan")):
        with pytest.raises(UserError, match="fraction is"):
            split_validation(dataset_of(2, 2), fraction, 0)
    with pytest.raises(UserError, match="cannot be split"):
        split_validation(dataset_of(1, 0), 0.5, 0)
