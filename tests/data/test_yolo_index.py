"""The cache of indexes for YOLO text: whatever changes in images, labels, lists or data.yaml, it is noticed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from index_outcomes import Outcome, check_noticed, content, entries, write_image

from transfer.data import index_cache, yolo
from transfer.data.home import cache_home
from transfer.data.yolo import YOLODataset

DOG, CAT = "1 0.5 0.5 0.2 0.1\n", "0 0.5 0.5 0.2 0.1\n"
YAML = "train: [images/train, more.txt]\nnames: [cat, dog]\n"


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images in a folder, one in a folder of it, and two that a list names; one of the five has no label file."""
    monkeypatch.setattr(index_cache, "FEWEST", 1)
    monkeypatch.setenv("TRICKSTACK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TRICKSTACK_INDEX_CACHE", raising=False)
    root = tmp_path / "data"
    for folder in ("images/train/deep", "labels/train/deep", "images/other", "labels/other", "elsewhere"):
        (root / folder).mkdir(parents=True)
    (root / "data.yaml").write_text(YAML)
    for name, text in {"train/a": DOG, "train/b": None, "train/deep/c": CAT, "other/d": DOG + CAT}.items():
        write_image(root / f"images/{name}.png")
        if text is not None:
            (root / f"labels/{name}.txt").write_text(text)
    write_image(root / "elsewhere/e.png")
    (root / "images/other/e.png").symlink_to(root / "elsewhere/e.png")
    (root / "labels/other/e.txt").write_text(CAT)
    (root / "more.txt").write_text("./images/other/d.png\n./images/other/e.png\n./images/train/a.png\n")
    return root


def opened(kit: Path, on_broken: str = "stop") -> Outcome:
    return content(lambda: YOLODataset(kit, "train", on_broken=on_broken))


def test_the_second_start_opens_neither_label_nor_image_and_says_the_same(
    kit: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "transfer.data")
    first = opened(kit)
    said = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert [line.partition("): ")[2] for _, line in said] == [
        "1 images are listed again; each counts once",
        "1 images without label file and 0 with an empty one are negatives",
    ]
    assert len(first["paths"]) == 5  # type: ignore[index]
    caplog.clear()
    monkeypatch.setattr(yolo, "read_bounded", None)
    monkeypatch.setattr(yolo, "image_size", None)
    assert opened(kit) == first
    *repeated, (_, told) = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert repeated == said
    assert "index of 5 images from the cache" in told


def relabelled(kit: Path) -> None:
    (kit / "labels/train/a.txt").write_text(CAT)


def label_of_a_negative(kit: Path) -> None:
    (kit / "labels/train/b.txt").write_text(DOG)


def label_gone(kit: Path) -> None:
    (kit / "labels/train/deep/c.txt").unlink()


def listed_label(kit: Path) -> None:
    (kit / "labels/other/d.txt").write_text(DOG)


def other_size(kit: Path) -> None:
    write_image(kit / "images/train/deep/c.png", width=60)


def listed_image_of_other_size(kit: Path) -> None:
    write_image(kit / "images/other/d.png", width=60)


def linked_image_of_other_size(kit: Path) -> None:
    write_image(kit / "elsewhere/e.png", width=60)


def image_added(kit: Path) -> None:
    write_image(kit / "images/train/deep/f.png")


def folder_added(kit: Path) -> None:
    (kit / "images/train/new").mkdir()
    write_image(kit / "images/train/new/f.png")


def image_gone(kit: Path) -> None:
    (kit / "images/train/b.png").unlink()


def listed_image_gone(kit: Path) -> None:
    (kit / "images/other/d.png").unlink()


def shorter_list(kit: Path) -> None:
    (kit / "more.txt").write_text("./images/other/d.png\n")


def names_exchanged(kit: Path) -> None:
    (kit / "data.yaml").write_text(YAML.replace("cat, dog", "dog, cat"))


def other_folders(kit: Path) -> None:
    (kit / "data.yaml").write_text(YAML.replace("images/train, ", ""))


def below_another_folder(kit: Path) -> None:
    """The same tree, where data.yaml now says."""
    (kit / "moved").mkdir()
    for name in ("images", "labels", "more.txt", "elsewhere"):
        os.rename(kit / name, kit / "moved" / name)
    (kit / "moved/images/other/e.png").unlink()
    write_image(kit / "moved/images/other/e.png")
    (kit / "data.yaml").write_text(f"path: moved\n{YAML}")


def faulty_line(kit: Path) -> None:
    (kit / "labels/train/a.txt").write_text("9 0.5 0.5 0.2 0.1\n")


@pytest.mark.parametrize("on_broken", ["stop", "skip"])
@pytest.mark.parametrize(
    "change",
    [
        *(relabelled, label_of_a_negative, label_gone, listed_label, faulty_line),
        *(other_size, listed_image_of_other_size, linked_image_of_other_size),
        *(image_added, folder_added, image_gone, listed_image_gone, shorter_list),
        *(names_exchanged, other_folders, below_another_folder),
    ],
)
def test_whatever_changes_is_noticed(
    kit: Path, change: Callable[[Path], None], on_broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_noticed(lambda: opened(kit, on_broken), lambda: change(kit), monkeypatch)


def test_an_image_where_there_was_none_is_noticed(kit: Path) -> None:
    """Folders that hold no image yet: of the split itself, below it, and of what a list names."""
    (kit / "images/split/empty").mkdir(parents=True)
    (kit / "images/split/full").mkdir()
    write_image(kit / "images/split/full/a.png")
    (kit / "labels/split/full").mkdir(parents=True)
    (kit / "labels/split/full/a.txt").write_text(DOG)
    (kit / "images/later").mkdir()
    (kit / "more.txt").write_text("images/train/a.png\nimages/later/z.png\n")
    (kit / "data.yaml").write_text("train: images/split\nval: more.txt\nnames: [cat, dog]\n")

    def images(split: str) -> int:
        return len(YOLODataset(kit, split, on_broken="skip"))

    assert [images("train"), images("val")] == [1, 1]
    for count, place in enumerate(("images/split/empty/b.png", "images/split/c.png"), 2):
        write_image(kit / place)
        assert images("train") == count
    write_image(kit / "images/later/z.png")
    assert images("val") == 2


def test_what_a_list_is_relative_to_is_told_apart(kit: Path) -> None:
    for name in ("one", "two"):
        (kit / name).mkdir()
        write_image(kit / name / "x.png")
        (kit / name / "x.txt").write_text({"one": CAT, "two": DOG}[name])
    (kit / "lists").mkdir()
    (kit / "lists/all.txt").write_text("x.png\n")
    for _ in range(2):
        for name, label in (("one", 0), ("two", 1)):
            (kit / "data.yaml").write_text(f"path: {name}\ntrain: {kit}/lists/all.txt\nnames: [cat, dog]\n")
            assert YOLODataset(kit, "train").record(0).labels.tolist() == [label]


def test_each_split_has_an_entry_of_its_own(kit: Path) -> None:
    (kit / "data.yaml").write_text("train: images/train\nval: images/other\nnames: [cat, dog]\n")
    for _ in range(2):
        assert [len(YOLODataset(kit, each)) for each in ("train", "val", ["train", "val"])] == [3, 2, 5]
    assert len(entries()) == 3


def test_what_was_not_used_for_longest_is_deleted(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kit / "data.yaml").write_text("train: images/train\nval: images/other\ntest: images\nnames: [cat, dog]\n")
    made = {}
    for age, split in enumerate(("train", "val")):
        known = set(entries())
        YOLODataset(kit, split)
        (made[split],) = set(entries()) - known
        os.utime(made[split], (age, age))
    YOLODataset(kit, "train")  # read again, so "val" is the one not used for longer
    sizes = [entry.stat().st_size for entry in entries()]
    monkeypatch.setattr(index_cache, "MOST_BYTES", int(2.5 * np.mean(sizes)))
    YOLODataset(kit, "test")
    assert not made["val"].exists()
    assert made["train"].exists()
    assert len(entries()) == 2
    monkeypatch.setattr(index_cache, "MOST_BYTES", 1)
    YOLODataset(kit, "val")
    assert entries() == [made["val"]], "the newest stays, however large"
    assert [path.parent for path in entries()] == [cache_home() / "index"]
