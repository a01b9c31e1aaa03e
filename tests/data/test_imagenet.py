"""ImageNet's layouts, and the files that tell the classes of its validation images."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from transfer.data.imagenet import ImageNetDataset
from transfer.types import ClassificationDataset, UserError

WNIDS = ["n01440764", "n02102040", "n03000684"]
"""tench, English springer, chain saw."""
TRUTH = {1: WNIDS[2], 2: WNIDS[0], 3: WNIDS[0], 4: WNIDS[1]}
"""Number of a validation image -> its class."""
DEVKIT_ORDER = [WNIDS[1], WNIDS[2], WNIDS[0]]


def image_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def write_train(root: Path, layout: str = "") -> Path:
    for label, wnid in enumerate(WNIDS):
        (root / layout / "train" / wnid).mkdir(parents=True)
        for number in range(label + 1):
            (root / layout / "train" / wnid / f"{wnid}_{number}.JPEG").touch()
    return root


def write_flat(root: Path, layout: str = "") -> Path:
    (root / layout / "val").mkdir(parents=True)
    for number in TRUTH:
        (root / layout / "val" / image_name(number)).touch()
    return root


def write_mapping(root: Path) -> None:
    (root / "LOC_synset_mapping.txt").write_text(
        "n03000684 chain saw, chainsaw\nn01440764 tench, Tinca tinca\nn02102040 English springer\n"
    )


def write_kaggle(root: Path) -> None:
    boxes = " 85 1 499 272"
    lines = [f"ILSVRC2012_val_{number:08d},{wnid}{boxes} {wnid}{boxes} " for number, wnid in TRUTH.items()]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(lines)]))


def write_devkit(root: Path, folder: str) -> Path:
    """The devkit's truth, which counts its own order from 1."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    numbers = [DEVKIT_ORDER.index(TRUTH[number]) + 1 for number in sorted(TRUTH)]
    (root / folder / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(map(str, numbers)) + "\n")
    return root / folder


def write_meta(folder: Path) -> None:
    """As the devkit's meta.mat: one record a synset, the leaves first, by the devkit's number."""
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", float), ("WNID", object), ("words", object), ("num_children", float)]
    rows = [(number, wnid, "a name", 0) for number, wnid in enumerate(DEVKIT_ORDER, 1)]
    records = np.array([*rows, (4, "n00001740", "entity", 3)], dtype=kinds)
    savemat(folder / "meta.mat", {"synsets": records.reshape(-1, 1)})


def truth_of(dataset: ClassificationDataset) -> dict[str, str]:
    records = [dataset.record(index) for index in range(len(dataset))]
    return {str(record.image_id): dataset.class_names[record.label] for record in records}


EXPECTED = {image_name(number): wnid for number, wnid in TRUTH.items()}


@pytest.mark.parametrize("layout", ["", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"])
def test_training_images(tmp_path: Path, layout: str) -> None:
    dataset = ImageNetDataset(write_train(tmp_path, layout))
    assert dataset.class_names == tuple(WNIDS)
    assert dataset.labels().tolist() == [0, 1, 1, 2, 2, 2]
    assert dataset.record(5).path == str(tmp_path / layout / "train/n03000684/n03000684_2.JPEG")
    assert dataset.readable_names == tuple(WNIDS)
    assert isinstance(dataset, ClassificationDataset)


def test_readable_names(tmp_path: Path) -> None:
    write_mapping(write_train(tmp_path))
    names = ("tench, Tinca tinca", "English springer", "chain saw, chainsaw")
    assert ImageNetDataset(tmp_path).readable_names == names
    assert ImageNetDataset(tmp_path, class_names=WNIDS[::-1]).readable_names == names[::-1]
    (tmp_path / "LOC_synset_mapping.txt").write_text("tench n01440764\n")
    with pytest.raises(UserError, match="'tench n01440764' does not begin with a wnid"):
        ImageNetDataset(tmp_path)


def test_validation_images_in_folders(tmp_path: Path) -> None:
    write_train(tmp_path)
    for number, wnid in TRUTH.items():
        (tmp_path / "val" / wnid).mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / wnid / image_name(number)).touch()
    dataset = ImageNetDataset(tmp_path, "val", class_names=WNIDS)
    assert truth_of(dataset) == {f"{wnid}/{image_name(number)}": wnid for number, wnid in TRUTH.items()}


def test_kaggles_layout(tmp_path: Path) -> None:
    write_kaggle(write_flat(tmp_path, "ILSVRC/Data/CLS-LOC"))
    dataset = ImageNetDataset(tmp_path, "val")
    assert truth_of(dataset) == EXPECTED
    assert dataset.class_names == tuple(WNIDS)
    assert dataset.labels().tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize("folder", ["", "data", "ILSVRC2012_devkit_t12/data"])
def test_the_devkits_truth(tmp_path: Path, folder: str) -> None:
    place = write_devkit(write_flat(tmp_path), folder)
    with pytest.raises(UserError, match=r"counts the classes in the devkit's own order; .*meta\.mat beside it, or syn"):
        ImageNetDataset(tmp_path, "val")
    write_meta(place)
    assert truth_of(ImageNetDataset(tmp_path, "val")) == EXPECTED


def test_the_devkits_order_as_text(tmp_path: Path) -> None:
    place = write_devkit(write_flat(tmp_path), "data")
    (place / "synsets.txt").write_text("".join(f"{wnid} a name\n" for wnid in DEVKIT_ORDER))
    assert truth_of(ImageNetDataset(tmp_path, "val")) == EXPECTED
    (place / "synsets.txt").write_text("\n".join(WNIDS))  # Caffe's file of this name
    with pytest.raises(UserError, match=r"synsets\.txt: its wnids are sorted, which is not the devkit's order"):
        ImageNetDataset(tmp_path, "val")
    (place / "synsets.txt").write_text("\n".join(DEVKIT_ORDER[:2]))
    with pytest.raises(
        UserError, match=r"2 lines that cannot be used:\n  line 2: class 3 is not in the devkit's order"
    ):
        ImageNetDataset(tmp_path, "val")
    (place / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file, and nothing")
    with pytest.raises(UserError, match=r"meta\.mat: is not the devkit's"):
        ImageNetDataset(tmp_path, "val")


def test_lists_of_numbers_count_the_sorted_wnids(tmp_path: Path) -> None:
    write_flat(tmp_path)
    lines = [f"{image_name(number)} {WNIDS.index(wnid)}" for number, wnid in TRUTH.items()]
    (tmp_path / "val.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"counts the classes by number; .* missing: LOC_synset_mapping\.txt, or the f"):
        ImageNetDataset(tmp_path, "val")
    write_mapping(tmp_path)  # not sorted
    assert truth_of(ImageNetDataset(tmp_path, "val")) == EXPECTED
    (tmp_path / "LOC_synset_mapping.txt").unlink()
    write_train(tmp_path)
    # the order of a checkpoint does not change what the numbers mean
    dataset = ImageNetDataset(tmp_path, "val", class_names=WNIDS[::-1])
    assert truth_of(dataset) == EXPECTED
    assert dataset.labels().tolist() == [0, 2, 2, 1]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"val/{image_name(number)} {wnid}" for number, wnid in reversed(TRUTH.items())),
        "\n".join(TRUTH[number] for number in sorted(TRUTH)),  # one wnid a line
    ],
)
def test_files_of_wnids(tmp_path: Path, text: str) -> None:
    write_flat(tmp_path)
    (tmp_path / "truth.txt").write_text(text)
    assert truth_of(ImageNetDataset(tmp_path, "val", truth_file="truth.txt")) == EXPECTED


def test_a_part_of_the_validation_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files count by the number in an image's name, not by its place in the folder."""
    write_meta(write_devkit(write_flat(tmp_path), "data"))
    for number in (1, 3):
        (tmp_path / "val" / image_name(number)).unlink()
    with caplog.at_level(logging.WARNING, logger="transfer"):
        dataset = ImageNetDataset(tmp_path, "val")
    assert truth_of(dataset) == {image_name(2): WNIDS[0], image_name(4): WNIDS[1]}
    assert "2 of its 4 images are missing" in caplog.text


def test_images_without_a_class(tmp_path: Path) -> None:
    write_kaggle(write_flat(tmp_path))
    for name in ("ILSVRC2012_val_00000009.JPEG", "other.JPEG"):
        (tmp_path / "val" / name).touch()
    with pytest.raises(UserError) as caught:
        ImageNetDataset(tmp_path, "val")
    for name in ("ILSVRC2012_val_00000009.JPEG", "other.JPEG"):
        assert f"{name}: {tmp_path / 'LOC_val_solution.csv'} has no class for it" in str(caught.value)
    assert truth_of(ImageNetDataset(tmp_path, "val", on_broken="skip")) == EXPECTED
    (tmp_path / "LOC_val_solution.csv").unlink()
    write_meta(write_devkit(tmp_path, "data"))
    with pytest.raises(UserError, match="2 unusable"):
        ImageNetDataset(tmp_path, "val")


def test_no_truth_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        ImageNetDataset(write_flat(tmp_path), "val")
    message = str(caught.value)
    for name in (
        "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt", "meta.mat", "synsets.txt", "val.txt",
        "truth_file=", "val/<wnid>/",
    ):  # fmt: skip
        assert name in message


def test_faulty_truth_files(tmp_path: Path) -> None:
    write_mapping(write_flat(tmp_path))
    text = f"{image_name(1)} 3\n{image_name(2)} 0\n{image_name(2)} 1\n{image_name(3)} tench\n{image_name(4)}\n"
    (tmp_path / "val.txt").write_text(text)
    with pytest.raises(UserError) as caught:
        ImageNetDataset(tmp_path, "val")
    for piece in (
        "val.txt: 4 lines that cannot be used",
        f"{image_name(1)} 3: there are 3 classes, which count from 0",
        f"{image_name(2)} is n01440764 and n02102040",
        f"{image_name(3)} 'tench': neither a wnid nor a number",
        f"'{image_name(4)}' is no image and its class",
    ):
        assert piece in str(caught.value)
    (tmp_path / "val.txt").write_text("")
    with pytest.raises(UserError, match=r"val\.txt: holds nothing"):
        ImageNetDataset(tmp_path, "val")
    with pytest.raises(UserError, match=r"no\.txt: cannot be read: No such file"):
        ImageNetDataset(tmp_path, "val", truth_file="no.txt")
    (tmp_path / "val.txt").write_text("1\nx\n")
    with pytest.raises(UserError, match="line 2: 'x' is no number"):
        ImageNetDataset(tmp_path, "val")


def test_layouts_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="split is 'test': ImageNet has train, val; no truth"):
        ImageNetDataset(tmp_path, "test")
    (tmp_path / "ILSVRC2012_img_train.tar").touch()
    with pytest.raises(UserError, match=r"has no folder train/, .*; unpack ILSVRC2012_img_train\.tar"):
        ImageNetDataset(tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match="val: it holds no images and no folders"):
        ImageNetDataset(tmp_path, "val")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "n01440764.tar").touch()
    with pytest.raises(UserError, match="unpack the archives"):
        ImageNetDataset(tmp_path)
    for name in (*WNIDS, "tench", "n1"):
        (tmp_path / "train" / name).mkdir()
    with pytest.raises(UserError, match="no WordNet ids such as n01440764: n1, tench; remove them"):
        ImageNetDataset(tmp_path)


@pytest.mark.data
def test_ten_classes_of_it(shared_data: Path) -> None:
    train = ImageNetDataset(shared_data / "imagenette160")
    val = ImageNetDataset(shared_data / "imagenette160", "val", class_names=train.class_names)
    assert train.class_names[:2] == ("n01440764", "n02102040")
    assert (len(train), len(val)) == (2000, 600)
    assert val[599].label == 9
