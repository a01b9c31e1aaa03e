"""VOC's segmentation lists and palette masks, the sample's masks, and mistakes of the arguments."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hand_made_png import PALETTE, write_png
from PIL import Image

from transfer.data.sample_dataset import SampleSegmentation
from transfer.data.voc_segmentation import VOC_SEGMENTATION_CLASSES, VOCSegmentation
from transfer.types import UserError

VALUES = np.array([[0, 1, 20], [255, 15, 0]], np.uint8)
PALETTE_OF_VOC = [(0, 0, 0), (128, 0, 0), *[(0, 0, 0)] * 253, (224, 224, 192)]


def write_year(folder: Path, masks: str = "SegmentationClass", **lists: str) -> Path:
    """A year's folder with a photograph and a mask for every name in the lists."""
    for part in ("JPEGImages", "ImageSets/Segmentation", masks):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, stems in lists.items():
        (folder / "ImageSets/Segmentation" / f"{name}.txt").write_text("\n".join(stems.split()) + "\n")
        for stem in stems.split():
            Image.new("RGB", (3, 2)).save(folder / "JPEGImages" / f"{stem}.jpg")
            write_png(folder / masks / f"{stem}.png", VALUES, PALETTE, palette=PALETTE_OF_VOC)
    return folder


def test_background_is_class_0_and_the_border_is_ignored(tmp_path: Path) -> None:
    write_year(tmp_path / "VOCdevkit/VOC2012", train="b a", val="c")
    for root in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit/VOC2012"):
        for split in ("2012_train", "train", ["train"]):
            dataset = VOCSegmentation(root, split)
            assert dataset.image_ids == ["b", "a"]  # in the list's order
    assert dataset.class_names == VOC_SEGMENTATION_CLASSES
    assert (len(dataset.class_names), dataset.class_names[0], dataset.class_names[15]) == (21, "background", "person")
    assert dataset.mask(0).tolist() == [[0, 1, 20], [255, 15, 0]]
    assert dataset[0].mask is not None
    order = ["person", "background", *VOC_SEGMENTATION_CLASSES[1:15], *VOC_SEGMENTATION_CLASSES[16:]]
    assert VOCSegmentation(tmp_path, "train", class_names=order).mask(0).tolist() == [[1, 2, 20], [255, 0, 1]]
    ignored = VOCSegmentation(tmp_path, "train", rename={"background": None, "aeroplane": "flies", "bird": "flies"})
    assert len(ignored.class_names) == 19
    assert ignored.mask(0).tolist() == [[255, 0, 18], [255, 13, 255]]


def test_years_joined(tmp_path: Path) -> None:
    write_year(tmp_path / "VOC2007", trainval="a b")
    write_year(tmp_path / "VOC2012", trainval="b c", train="c")
    dataset = VOCSegmentation(tmp_path, ["2007_trainval", "2012_trainval"])
    assert dataset.image_ids == ["2007_a", "2007_b", "2012_b", "2012_c"]
    assert [Path(path).parts[-3] for path in dataset.paths] == ["VOC2007", "VOC2007", "VOC2012", "VOC2012"]
    assert [Path(dataset.record(i).mask_path or "").parts[-3] for i in (1, 2)] == ["VOC2007", "VOC2012"]
    with pytest.raises(UserError, match=r"names no year: .* has '2007_trainval' and '2012_trainval'"):
        VOCSegmentation(tmp_path, "trainval")
    assert VOCSegmentation(tmp_path, ["2012_train", "2012_trainval"]).image_ids == ["c", "b"]  # each once


def test_augmented_masks_in_a_folder_of_their_own(tmp_path: Path) -> None:
    write_year(tmp_path / "VOC2012", train="a")
    write_year(tmp_path / "VOC2012", masks="SegmentationClassAug", trainaug="a z")
    dataset = VOCSegmentation(tmp_path, "2012_trainaug", masks="SegmentationClassAug")
    assert [Path(dataset.record(i).mask_path or "").parent.name for i in range(2)] == ["SegmentationClassAug"] * 2
    with pytest.raises(UserError, match=r"lists 'z', but .*SegmentationClass has no z\.png"):
        VOCSegmentation(tmp_path, "2012_trainaug")


def test_own_classes_in_this_layout(tmp_path: Path) -> None:
    folder = write_year(tmp_path / "own", train="a")
    write_png(folder / "SegmentationClass/a.png", np.array([[0, 1, 2], [2, 255, 0]]))
    dataset = VOCSegmentation(folder, "train", classes=["ground", "crack", "patch"])
    assert dataset.class_names == ("ground", "crack", "patch")
    assert dataset.mask(0).tolist() == [[0, 1, 2], [2, 255, 0]]
    with pytest.raises(UserError, match=r"a\.png: has value 2 \(2 pixels\) without a class"):
        VOCSegmentation(folder, "train", classes=["ground", "crack"]).mask(0)


def test_missing_files_are_told_at_once(tmp_path: Path) -> None:
    folder = write_year(tmp_path / "VOC2012", train="a b c d")
    (folder / "JPEGImages/a.jpg").unlink()
    (folder / "SegmentationClass/c.png").unlink()
    with pytest.raises(UserError) as caught:
        VOCSegmentation(tmp_path, "train")
    message = str(caught.value)
    assert "2 unusable" in message
    assert re.search(r"train\.txt: lists 'a', but .*JPEGImages has no such image", message)
    assert re.search(r"train\.txt: lists 'c', but .*SegmentationClass has no c\.png", message)
    dataset = VOCSegmentation(tmp_path, "train", on_broken="skip")
    assert (dataset.image_ids, len(dataset.skipped)) == (["b", "d"], 2)


@pytest.mark.parametrize(
    ("splits", "options", "expected"),
    [
        (
            "tran",
            {},
            r"'tran': no such list \(nearest: '2012_train'\). Splits that exist in .*: 2012_empty, 2012_train",
        ),
        ("2012_test", {}, "split '2012_test': no such list"),
        ("../../secret", {}, "no such list"),
        ([], {}, "splits is empty"),
        ("train", {"masks": "Masks"}, "has no folder Masks"),
        ("train", {"class_names": ["background", "person"]}, "class 'aeroplane'"),
        ("train", {"classes": "a"}, "class_names is the text 'a'"),
        ("empty", {}, "empty.txt: the split list names no images"),
    ],
)
def test_mistakes(tmp_path: Path, splits: str, options: dict[str, object], expected: str) -> None:
    folder = write_year(tmp_path / "VOC2012", train="a")
    (folder / "ImageSets/Segmentation/empty.txt").write_text("\n")
    with pytest.raises(UserError, match=expected):
        VOCSegmentation(tmp_path, splits, **options)  # type: ignore[arg-type]


def test_no_devkit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        VOCSegmentation(tmp_path / "no", "train")
    (tmp_path / "VOC2012/ImageSets/Main").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no segmentation lists.*MaskFolderDataset"):
        VOCSegmentation(tmp_path, "train")


@pytest.mark.slow
def test_the_samples_masks_fit_its_boxes(tmp_path: Path) -> None:
    """Drawn small. The boxes of a class hold all its pixels, and touch them on every side."""
    from transfer.data.sample import make_sample
    from transfer.data.voc import VOCDataset

    folder = make_sample(tmp_path / "sample", train=12, test=2, crops_per_class=0, size=(96, 96))
    masks = SampleSegmentation("trainval", root=folder)
    boxes = VOCDataset(folder, "2007_trainval", class_names=masks.class_names[1:])
    assert (len(masks), len(masks.class_names), masks.class_names[0]) == (12, 13, "background")
    found = 0
    for index in range(len(masks)):
        sample, record = masks[index], boxes.record(index)
        assert sample.mask is not None
        assert sample.path == record.path
        for label in set(record.labels.tolist()):
            inside = np.zeros(sample.mask.shape, bool)
            for x0, y0, x1, y1 in record.boxes[record.labels == label].astype(int).tolist():
                inside[y0:y1, x0:x1] = True
            pixels = sample.mask == label + 1
            found += pixels.any()
            assert not (pixels & ~inside).any()
    assert found > 10
    few = SampleSegmentation("trainval", root=folder, limit=3)
    assert few.image_ids == masks.image_ids[:3]
    np.testing.assert_array_equal(few.mask(2), masks.mask(2))


def test_wrong_arguments_of_the_sample(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="split is 'training'"):
        SampleSegmentation("training", root=tmp_path)
    with pytest.raises(UserError, match="limit is 0"):
        SampleSegmentation("train", root=tmp_path, limit=0)
