"""ADE20K's layout: values, names, missing partners, and the three real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hand_made_png import write_png
from PIL import Image

from transfer.data.ade20k import ADE20K_CLASSES, ADE20KDataset
from transfer.types import UserError

VALUES = np.array([[0, 1, 150], [2, 1, 0]], np.uint8)


def write_ade(root: Path, stems: tuple[str, ...] = ("b", "a"), split: str = "training") -> Path:
    for stem in stems:
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (10, 20, 30)).save(root / "images" / split / f"{stem}.jpg")
        write_png(root / "annotations" / split / f"{stem}.png", VALUES)
    return root


def test_zero_is_ignored_and_the_rest_moves_down(tmp_path: Path) -> None:
    dataset = ADE20KDataset(write_ade(tmp_path))
    assert dataset.class_names == ADE20K_CLASSES
    assert len(dataset.class_names) == 150
    assert dataset.image_ids == ["a", "b"]
    assert dataset[0].mask is not None
    assert dataset.mask(0).tolist() == [[255, 0, 149], [1, 0, 255]]


def test_the_folder_above(tmp_path: Path) -> None:
    write_ade(tmp_path / "ADEChallengeData2016", split="validation")
    assert len(ADE20KDataset(tmp_path, "validation")) == 2


def test_names_from_the_file(tmp_path: Path) -> None:
    write_ade(tmp_path)
    (tmp_path / "objectInfo150.txt").write_text("Idx\tRatio\tName\n1\t0.5\tmur, wall\n2\t0.3\tciel \n150\t0.1\tx\n")
    dataset = ADE20KDataset(tmp_path)
    assert dataset.class_names == ("mur", "ciel", "x")
    assert dataset.mask(0).tolist() == [[255, 0, 2], [1, 0, 255]]
    dataset = ADE20KDataset(tmp_path, class_names=["x", "mur"], rename={"ciel": None})
    assert dataset.mask(0).tolist() == [[255, 1, 0], [255, 1, 255]]


def test_a_faulty_file_of_names(tmp_path: Path) -> None:
    write_ade(tmp_path)
    (tmp_path / "objectInfo150.txt").write_text("Idx\tName\n1\twall\n1\tsky\n255\tsea\n3\twall\nfour\n")
    with pytest.raises(UserError) as caught:
        ADE20KDataset(tmp_path)
    for piece in ("line 3: the value 1 or the name 'sky'", "line 4 is not", "line 5: the value 3", "line 6 is not"):
        assert piece in str(caught.value)


def test_files_without_partner_are_told_at_once(tmp_path: Path) -> None:
    write_ade(tmp_path, ("a", "b", "c"))
    (tmp_path / "images/training/a.jpg").unlink()
    (tmp_path / "annotations/training/b.png").unlink()
    with pytest.raises(UserError) as caught:
        ADE20KDataset(tmp_path)
    message = str(caught.value)
    assert "2 unusable" in message
    assert f"annotations/training/a.png: {tmp_path / 'images/training'} has no image 'a'" in message
    assert f"images/training/b.jpg: {tmp_path / 'annotations/training'} has no mask 'b'" in message
    dataset = ADE20KDataset(tmp_path, on_broken="skip")
    assert (dataset.image_ids, len(dataset.skipped)) == (["c"], 2)


def test_mistakes_of_the_arguments(tmp_path: Path) -> None:
    write_ade(tmp_path / "ade")
    for root, split, expected in (
        ("ade", "train", r"split is 'train': ADE20K has 'training' and 'validation' \(nearest: 'training'\)"),
        ("ade", "testing", "test images were not published"),
        ("ade", "validation", r"(?s)images/validation': no such folder.*annotations/validation'"),
        ("add", "training", "no such folder"),
        (".", "training", "no ADE20K data: expected the folders images and annotations"),
    ):
        with pytest.raises(UserError, match=expected):
            ADE20KDataset(tmp_path / root, split)
    with pytest.raises(UserError, match="class 'ceiling'"):
        ADE20KDataset(tmp_path / "ade", class_names=["wall", "building"])


@pytest.mark.data
def test_real_images(shared_data: Path) -> None:
    root = shared_data / "ade_mini"
    train, val = ADE20KDataset(root), ADE20KDataset(root, "validation")
    assert train.image_ids == ["ADE_train_00000001", "ADE_train_00000002"]
    assert train.class_names == ADE20K_CLASSES  # the list here is the file's
    for dataset in (train, val):
        for index in range(len(dataset)):
            sample, record = dataset[index], dataset.record(index)
            assert sample.mask is not None
            assert sample.image.shape[:2] == sample.mask.shape == record.size
            assert record.mask_path is not None
            stored = np.asarray(Image.open(record.mask_path)).astype(int)
            np.testing.assert_array_equal(sample.mask, np.where(stored == 0, 255, stored - 1))
    # by eye: the first photograph is a house under a wide sky, with a lawn
    seen = {ADE20K_CLASSES[label] for label in np.unique(train.mask(0)) if label != 255}
    assert {"building", "sky", "grass", "tree"} <= seen
