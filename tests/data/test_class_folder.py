"""Folders of classes: beside torchvision's ImageFolder, and the mistakes that people make with them."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from transfer.data.class_folder import ClassFolderDataset
from transfer.data.image import BrokenSample
from transfer.data.mask_builder import gathering
from transfer.data.sample import CROP_CLASSES, make_sample
from transfer.data.sample_dataset import SampleClassification
from transfer.data.subset import ClassificationSubset, split_validation
from transfer.types import ClassificationDataset, UserError, task_of


def write(root: Path, *files: str) -> Path:
    """Empty files: nothing is opened while a data set is listed."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(dataset: ClassificationDataset) -> list[tuple[str, str]]:
    """(image id, class name) of every image."""
    records = [dataset.record(index) for index in range(len(dataset))]
    return [(str(record.image_id), dataset.class_names[record.label]) for record in records]


def pairs(dataset: ClassificationDataset) -> list[tuple[str, int]]:
    records = [dataset.record(index) for index in range(len(dataset))]
    return [(record.path, record.label) for record in records]


def test_as_torchvision_lists_it(tmp_path: Path) -> None:
    """Classes, files, labels and their order, with folders whose names sort around the slash."""
    from torchvision.datasets import ImageFolder

    root = write(
        tmp_path / "root", "dog/b.JPG", "dog/a.png", "dog/x/1.jpeg", "dog/x-1/0.jpg", "dog/x/y/2.webp", "dog/x/y.bmp",
        "cat/2.tif", "cat/10.jpg", "Cat 2/z.jpg", "cat/notes.txt", "dog/x/labels.csv",
    )  # fmt: skip
    outside = write(tmp_path / "elsewhere", "3.jpg", "deep/4.jpg")
    (root / "emu").symlink_to(outside)
    (root / "cat" / "more").symlink_to(write(tmp_path / "more", "5.png"))
    ours, theirs = ClassFolderDataset(root), ImageFolder(str(root))
    assert list(ours.class_names) == theirs.classes
    assert pairs(ours) == theirs.samples
    assert ours.labels().tolist() == theirs.targets
    assert ours.ignored == {".txt": 1, ".csv": 1}
    assert isinstance(ours, ClassificationDataset)
    assert task_of(ours) == "classification"


def test_hidden_files_are_no_images_and_no_classes(tmp_path: Path) -> None:
    root = write(
        tmp_path, "a/1.jpg", "a/.2.jpg", "a/.cache/3.jpg", "b/1.jpg", ".ipynb_checkpoints/1.jpg", "b/Thumbs.db", "b/x"
    )
    dataset = ClassFolderDataset(root)
    assert found(dataset) == [("a/1.jpg", "a"), ("b/1.jpg", "b")]
    assert dataset.ignored == {"hidden": 3, ".db": 1, "without ending": 1}


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    root = write(tmp_path / "root", "a/1.jpg", "a/x/2.jpg", "b/3.jpg")
    (root / "a/x/up").symlink_to(root / "a")  # a loop
    (root / "a/all").symlink_to(root)  # above the class: its images would all become a's
    (root / "a/a_link_to_x").symlink_to(root / "a/x")  # listed under its own name already
    (root / "a/itself").symlink_to(root / "a/itself")
    outside = write(tmp_path / "outside", "4.jpg")
    (root / "a/out").symlink_to(outside)
    (root / "b/out").symlink_to(outside)  # once in each class
    dataset = ClassFolderDataset(root)
    expected = ["a/1.jpg", "a/out/4.jpg", "a/x/2.jpg", "b/3.jpg", "b/out/4.jpg"]
    assert found(dataset) == [(path, path[0]) for path in expected]
    assert dataset.ignored == {"link to a folder that is listed or above the class": 3, "without ending": 1}


def test_of_several_links_to_a_folder_the_first_counts(tmp_path: Path) -> None:
    """The first by name, whatever order the file system lists them in."""
    outside = write(tmp_path / "outside", "1.jpg")
    root = write(tmp_path / "root", "a/0.jpg", "b/0.jpg")
    for number in (7, 3, 9, 1, 8, 2, 6, 4, 5):
        (root / f"a/l{number}").symlink_to(outside)
    assert [image for image, _ in found(ClassFolderDataset(root))] == ["a/0.jpg", "a/l1/1.jpg", "b/0.jpg"]


def test_the_order_of_a_checkpoint_rules(tmp_path: Path) -> None:
    root = write(tmp_path, "cat/1.jpg", "dog/1.jpg", "dog/2.jpg")
    dataset = ClassFolderDataset(root, class_names=["dog", "emu", "cat"])
    assert dataset.class_names == ("dog", "emu", "cat")
    assert dataset.labels().tolist() == [2, 0, 0]


def test_rename_joins_and_leaves_out(tmp_path: Path) -> None:
    root = write(tmp_path, "cat/1.jpg", "kitten/1.jpg", "dog/1.jpg", "junk/1.jpg", "nothing/notes.txt")
    dataset = ClassFolderDataset(root, rename={"kitten": "cat", "junk": None, "nothing": None})
    assert found(dataset) == [("cat/1.jpg", "cat"), ("dog/1.jpg", "dog"), ("kitten/1.jpg", "cat")]
    with pytest.raises(UserError, match=r"'catt' is not in class_names \(nearest: 'cat'\)"):
        ClassFolderDataset(root, class_names=["cat", "dog"], rename={"kitten": "catt"})


def test_folders_outside_class_names_are_all_told(tmp_path: Path) -> None:
    root = write(tmp_path, "Cat/1.jpg", "Cat/2.jpg", "dgo/1.jpg", "zebra/1.jpg", "emu/1.jpg")
    with pytest.raises(UserError) as caught:
        ClassFolderDataset(root, class_names=["cat", "dog", "emu"])
    message = str(caught.value)
    assert "3 classes in the data but not in class_names (cat, dog, emu)" in message
    assert "'Cat': 2 images; nearest known name 'cat': rename={'Cat': 'cat'}" in message
    assert "'dgo': 1 image; nearest known name 'dog': rename={'dgo': 'dog'}" in message
    assert "'zebra': 1 image\n" in message
    assert "'emu': " not in message


def test_empty_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path, "a/1.jpg", "b/1.jpg", "raw/1.ppm")
    (root / "none").mkdir()
    with pytest.raises(UserError) as caught:
        ClassFolderDataset(root)
    for name in ("none", "raw"):
        assert f"{root / name}: holds no image: remove it, take it out by rename={{{name!r}: None}}" in str(
            caught.value
        )
    dataset = ClassFolderDataset(root, class_names=["none", "b", "a"], rename={"raw": "b"})
    assert (dataset.class_names, dataset.labels().tolist()) == (("none", "b", "a"), [2, 1])
    assert "no image of 'none'" in caplog.text
    skipping = ClassFolderDataset(root, on_broken="skip")
    assert skipping.class_names == ("a", "b")
    assert len(skipping.skipped) == 2
    with gathering() as builders:  # a check of the data goes on with the rest
        ClassFolderDataset(root)
    assert [fault.code for fault in builders[0].faults] == ["class-empty"] * 2


def test_all_that_is_wrong_at_once(tmp_path: Path) -> None:
    root = write(tmp_path, "a/1.jpg", "cta/1.jpg")
    (root / "none").mkdir()
    with pytest.raises(UserError) as caught:
        ClassFolderDataset(root, class_names=["a", "cat"])
    assert "rename={'cta': 'cat'}" in str(caught.value)
    assert "none: holds no image" in str(caught.value)


@pytest.mark.parametrize(
    ("files", "options", "expected"),
    [
        (["1.jpg", "2.png"], {}, "it holds 2 images and no folders: put the images of each class into a folder"),
        (["notes.txt"], {}, "it holds no folders of classes (1 .txt)"),
        (["train.tar", "val.tar"], {}, "unpack the archives"),
        (
            ["train/a/1.jpg", "val/a/1.jpg"],
            {},
            "folders train, val are splits, not classes: set root to '{root}/train'",
        ),
        (["Train/a/1.jpg"], {}, "set root to '{root}/Train', or give folder='Train'"),
        (["train/a/1.jpg", "test/a/1.jpg", "docs/1.png"], {}, "folders test, train are splits"),
        (["x/train/a/1.jpg", "x/val/a/1.jpg"], {"folder": "x"}, "give folder='x/train'"),
        (["cat/1.jpg"], {}, "one class only, 'cat': a classifier needs at least two"),
        (["cat/1.jpg", "dog/1.jpg"], {"rename": {"dog": "cat"}}, "one class only, 'cat'"),
        (["cat/1.jpg", "dog/1.jpg"], {"rename": {"dog": None, "cat": None}}, "no class: a classifier needs"),
        (["cat/1.jpg"], {"class_names": ["cat"]}, "one class only"),
        (
            ["x/1.jpg"],
            {"class_names": ["a", "b"], "rename": {"x": None}},
            "no image is left: rename= leaves out all of x",
        ),
        (["cat/1.jpg"], {"class_names": "cat"}, "class_names is the text 'cat'"),
        (["train/a/1.jpg", "train/b/1.jpg"], {"folder": "trian"}, "has no such folder (nearest: 'train')"),
        (["cat/1.jpg", "dog/1.jpg"], {"on_broken": "pass"}, "on_broken is 'pass'"),
    ],
)
def test_typical_mistakes(tmp_path: Path, files: list[str], options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        ClassFolderDataset(write(tmp_path, *files), **options)
    assert expected.replace("{root}", str(tmp_path)) in str(caught.value)


def test_roots_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere': no such folder"):
        ClassFolderDataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match="that is a file, not a folder"):
        ClassFolderDataset(write(tmp_path, "a.txt") / "a.txt")


def test_classes_that_are_called_as_splits(tmp_path: Path) -> None:
    """A locomotive, and a test card: their folders hold images, not folders."""
    dataset = ClassFolderDataset(write(tmp_path, "train/1.jpg", "test/1.jpg", "bus/1.jpg"))
    assert dataset.class_names == ("bus", "test", "train")
    inner = write(tmp_path / "deep", "train/freight/1.jpg", "test/2.jpg", "bus/1.jpg")
    assert ClassFolderDataset(inner, class_names=["bus", "test", "train"]).labels().tolist() == [0, 1, 2]


def test_images_beside_the_folders_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = ClassFolderDataset(write(tmp_path, "a/1.jpg", "b/1.jpg", "3.jpg", "4.jpg"))
    assert len(dataset) == 2
    assert dataset.ignored == {"beside the class folders": 2}
    assert "2 images lie beside the folders of the classes" in caplog.text


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, "a/1.jpg", "a/closed/2.jpg", "b/1.jpg")
    listed = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(UserError, match="closed: cannot be listed: Permission denied"):
        ClassFolderDataset(root)
    dataset = ClassFolderDataset(root, on_broken="skip")
    assert (len(dataset), len(dataset.skipped)) == (2, 1)


def test_samples(tmp_path: Path) -> None:
    for name, colour in (("a", (200, 0, 0)), ("b", (0, 0, 200))):
        (tmp_path / name).mkdir()
        Image.new("RGB", (6, 4), colour).save(tmp_path / name / "1.png")
    write(tmp_path, "b/2.png")
    dataset = pickle.loads(pickle.dumps(ClassFolderDataset(tmp_path)))  # as for a worker
    sample = dataset[-2]
    assert (sample.label, sample.index, sample.image_id) == (1, 1, "b/1.png")
    assert (sample.path, sample.original_size) == (str(tmp_path / "b/1.png"), (4, 6))
    assert sample.image[0, 0].tolist() == [0, 0, 200]
    assert (sample.boxes.shape, sample.labels.shape, sample.mask) == ((0, 4), (0,), None)
    with pytest.raises(BrokenSample, match=r"b/2\.png: is empty"):
        dataset[2]
    with pytest.raises(IndexError):
        dataset[3]
    labels = dataset.labels()
    labels[:] = 7  # the caller's own
    assert dataset.record(0).label == 0


def test_names_composed_in_two_ways(tmp_path: Path) -> None:
    """macOS writes an accent apart from its letter."""
    root = write(tmp_path, "cafe\u0301/1.jpg", "bar/1.jpg")
    assert ClassFolderDataset(root, class_names=["caf\xe9", "bar"]).labels().tolist() == [1, 0]


def test_no_file_is_opened_or_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, *(f"c{label}/{number}.jpg" for label in range(3) for number in range(20)))
    asked = []
    stat = os.stat
    monkeypatch.setattr(
        "os.stat", lambda path, *rest, **options: asked.append(str(path)) or stat(path, *rest, **options)
    )
    assert len(ClassFolderDataset(root)) == 60
    assert not [path for path in asked if path.endswith(".jpg")]


@pytest.fixture(scope="module")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded sample with one scene and five crops a class, one of them val."""
    return make_sample(tmp_path_factory.mktemp("sample") / "s", train=1, test=0, crops_per_class=5, size=(64, 64))


def test_the_crops_of_the_sample(sample_folder: Path) -> None:
    train = SampleClassification("train", root=sample_folder)
    val = SampleClassification("val", root=sample_folder)
    assert train.class_names == val.class_names == tuple(sorted(CROP_CLASSES))
    assert (np.bincount(train.labels()) == 4).all()
    assert (np.bincount(val.labels()) == 1).all()
    assert found(val)[0] == ("apple/00004.jpg", "apple")
    sample = train[0]
    assert (sample.image.shape, sample.label) == ((96, 96, 3), 0)
    with pytest.raises(UserError, match="split is 'test': the crops of the sample have train, val"):
        SampleClassification("test", root=sample_folder)


def test_a_limit_takes_of_each_class(sample_folder: Path) -> None:
    whole = SampleClassification("train", root=sample_folder)
    part = SampleClassification("train", root=sample_folder, limit=30)
    assert np.bincount(part.labels()).tolist() == [3, 3] + [2] * 12
    assert found(part)[:4] == [*found(whole)[:3], found(whole)[4]]
    assert len(SampleClassification("train", root=sample_folder, limit=1000)) == len(whole)
    with pytest.raises(UserError, match="limit is 0"):
        SampleClassification("train", root=sample_folder, limit=0)


@pytest.mark.data
def test_real_images_as_torchvision_has_them(shared_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    from torchvision.datasets import ImageFolder

    root = shared_data / "imagenette160"
    with caplog.at_level(logging.INFO, logger="transfer"):
        train = ClassFolderDataset(root, folder="train")
    theirs = ImageFolder(str(root / "train"))
    assert (list(train.class_names), pairs(train)) == (theirs.classes, theirs.samples)
    assert not caplog.records
    val = ClassFolderDataset(root / "val", class_names=train.class_names)
    assert (np.bincount(train.labels()) == 200).all()
    assert (np.bincount(val.labels()) == 60).all()
    difference = np.abs(train[5].image.astype(int) - np.asarray(theirs[5][0]))
    assert difference.max() <= 3  # two JPEG decoders
    rest, held_out = split_validation(train, 0.1, 0)
    assert isinstance(rest, ClassificationSubset)
    assert (np.bincount(held_out.labels()) == 20).all()
    with pytest.raises(UserError, match="folders train, val are splits"):
        ClassFolderDataset(root)
