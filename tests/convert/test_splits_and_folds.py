"""New splits and folds in all three layouts: no overlap, nothing missing, copies together, the same on any machine."""

from __future__ import annotations

import os
import shlex
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from small_sets import truth_of, write_image, write_voc, xml

from transfer.convert.arguments import parse_rename, parse_shares
from transfer.convert.convert import convert
from transfer.convert.splits import duplicate_groups
from transfer.data.coco import COCODataset
from transfer.data.voc import VOCDataset
from transfer.data.yolo import YOLODataset
from transfer.types import DetectionDataset, UserError

FORMATS = ("voc", "coco", "yolo")
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def stems(count: int) -> list[str]:
    return [f"p{number:02d}" for number in range(count)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """30 images: all with a dog, every sixth with a cat, three with a cow; two triples of equal files; 5 for test."""
    texts = {}
    for number, stem in enumerate(stems(30)):
        names = ["dog", *(["cat"] if number % 6 == 0 else []), *(["cow"] if number in (1, 2, 3) else [])]
        texts[stem] = xml([(name, (1 + place, 2, 20 + number, 30)) for place, name in enumerate(names)])
    root = write_voc(tmp_path / "source", {"train": stems(30)[:25], "test": stems(30)[25:]}, texts)
    for first in (4, 10):
        for copy in (first + 1, first + 2):
            shutil.copy(root / f"JPEGImages/p{first:02d}.png", root / f"JPEGImages/p{copy:02d}.png")
    return root


def load(target: str, root: Path, split: str) -> DetectionDataset:
    if target == "coco":
        return COCODataset(root / f"annotations/instances_{split}.json", root / "images")
    return VOCDataset(root, split) if target == "voc" else YOLODataset(root, split)


def members(target: str, root: Path, split: str) -> set[str]:
    return set(truth_of(load(target, root, split)))


@pytest.mark.parametrize("target", FORMATS)
def test_shares(source: Path, tmp_path: Path, target: Any) -> None:
    lines = convert(source, tmp_path / "out", to=target, shares=SHARES)
    parts = {split: members(target, tmp_path / "out", split) for split in SHARES}
    assert Counter(stem for part in parts.values() for stem in part) == Counter(stems(30))
    assert [len(part) for part in parts.values()] == [18, 6, 6]
    for first in (4, 10):
        copies = {f"p{number:02d}" for number in range(first, first + 3)}
        assert [len(part & copies) for part in parts.values()].count(0) == 2
    for split in SHARES:
        truth = truth_of(load(target, tmp_path / "out", split))
        assert {box[0] for boxes in truth.values() for box in boxes} == {"cat", "cow", "dog"}
    assert "6 images are exact copies of one another; copies stay in one part" in lines
    assert any("by the classes present in each image (not by numbers of boxes), seed 0" in line for line in lines)


def test_the_split_is_the_same_in_every_format_and_order(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "voc", to="voc", shares=SHARES, seed=3)
    expected = {split: members("voc", tmp_path / "voc", split) for split in SHARES}
    convert(source, tmp_path / "coco", to="coco")
    convert(tmp_path / "coco", tmp_path / "again", to="yolo", shares=SHARES, seed=3)
    assert {split: members("yolo", tmp_path / "again", split) for split in SHARES} == expected
    # written anew in another order, and listed in another order
    turned = tmp_path / "turned"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (turned / folder).mkdir(parents=True)
        for name in sorted(os.listdir(source / folder), reverse=True):
            shutil.copy(source / folder / name, turned / folder / name)
    for name in ("train", "test"):
        path = turned / f"ImageSets/Main/{name}.txt"
        path.write_text("".join(f"{stem}\n" for stem in reversed(path.read_text().split())))
    convert(turned, tmp_path / "third", to="voc", shares=SHARES, seed=3)
    assert {split: members("voc", tmp_path / "third", split) for split in SHARES} == expected
    convert(source, tmp_path / "other seed", to="voc", shares=SHARES, seed=4)
    assert {split: members("voc", tmp_path / "other seed", split) for split in SHARES} != expected


@pytest.mark.parametrize("target", FORMATS)
def test_folds_with_a_test_set_kept(source: Path, tmp_path: Path, target: Any) -> None:
    root = tmp_path / "out"
    lines = convert(source, root, to=target, folds=3, keep=["test"])
    pool, test = set(stems(30)[:25]), set(stems(30)[25:])
    val = [members(target, root, f"fold{fold}_val") for fold in range(3)]
    assert Counter(stem for part in val for stem in part) == Counter(pool)
    assert sorted(map(len, val)) == [8, 8, 9]
    for fold in range(3):
        assert members(target, root, f"fold{fold}_train") == pool - val[fold]
    assert members(target, root, "test") == test
    truth = [truth_of(load(target, root, f"fold{fold}_val")) for fold in range(3)]
    assert all({box[0] for boxes in part.values() for box in boxes} == {"cat", "cow", "dog"} for part in truth)
    assert lines[-1].startswith(f"tools/train_det.py configs/{target}_folder_frcnn_lite0.py")
    assert "fold0_val" in lines[-1], "what this fold leaves out of training chooses the checkpoint"
    assert "data.val=0.1" not in lines[-1]
    if target == "yolo":
        for fold in range(3):
            dataset = YOLODataset(root / f"fold{fold}.yaml", "train")
            assert set(truth_of(dataset)) == pool - val[fold]
            assert set(truth_of(YOLODataset(root / f"fold{fold}.yaml", "val"))) == val[fold]
            assert len(YOLODataset(root / f"fold{fold}.yaml", "test")) == 5


def test_folds_survive_the_way_to_another_format(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "voc", to="voc", folds=2, keep=["test"])
    convert(tmp_path / "voc", tmp_path / "yolo", to="yolo")
    convert(tmp_path / "yolo", tmp_path / "coco", to="coco")
    for split in ("fold0_train", "fold0_val", "fold1_train", "fold1_val", "test"):
        assert members("coco", tmp_path / "coco", split) == members("voc", tmp_path / "voc", split)


def test_an_empty_list_is_named(source: Path, tmp_path: Path) -> None:
    assert not any("is empty" in line for line in convert(source, tmp_path / "a", to="voc"))
    (source / "ImageSets/Main/val.txt").write_text("\n")
    lines = convert(source, tmp_path / "b", to="voc")
    assert [line for line in lines if "is empty" in line] == [
        f"split 'val' of {source} is empty: its list names no image"
    ]


def test_what_cannot_be_had_is_said(source: Path, tmp_path: Path) -> None:
    (source / "JPEGImages/p00.png").unlink()
    shutil.copy(source / "JPEGImages/p29.png", source / "JPEGImages/p00.png")
    lines = convert(source, tmp_path / "out", to="voc", folds=5, keep=["test"])
    assert "WARNING: 1 images of test are exact copies of images that were shared out" in lines
    assert sum(line.startswith("WARNING: class 'cow' (3 images) is not in fold") for line in lines) == 1


def test_copies_are_found_by_their_bytes(tmp_path: Path) -> None:
    for name, colour in (("a", 1), ("b", 2), ("c", 1), ("d", 3)):
        write_image(tmp_path / f"{name}.png", colour=colour)
    (tmp_path / "e.png").write_bytes((tmp_path / "a.png").read_bytes() + b"\0")  # the same pixels, other bytes
    groups = duplicate_groups([str(tmp_path / f"{name}.png") for name in "abcde"])
    assert groups[0] == groups[2]
    assert len(set(groups)) == 4


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize(
    "options",
    [{"shares": SHARES}, {"folds": 2, "keep": ["test"]}, {"folds": 2}, {}, {"shares": {"train": 0.5, "val": 0.5}}],
)
def test_the_printed_command_opens_the_data(
    source: Path, tmp_path: Path, repository: Path, target: Any, options: dict[str, Any]
) -> None:
    """The command's config and overrides give data sets that are there, and train and test differ."""
    from transfer.assemble import set_data_root
    from transfer.build import build, load_config

    root = tmp_path / "a folder"
    command = shlex.split(convert(source, root, to=target, **options)[-1])
    assert command[0] == "tools/train_det.py"
    overrides = command[command.index("--cfg-options") + 1 :] if "--cfg-options" in command else []
    config = load_config(repository / command[1], overrides)
    if "--data" in command:
        set_data_root(config, command[command.index("--data") + 1])
    data = config["data"]
    ids = {
        part: {Path(built.record(i).path).stem for i in range(len(built))}
        for part in ("train", "val", "test")
        if isinstance(data[part], dict) and (built := build(data[part]))
    }
    assert ids["train"]
    assert ids["test"]
    assert not ids["train"] & ids["test"]
    assert not ids["train"] & ids.get("val", set())
    chosen_by = "keep" in options or {"val", "test"} <= options.get("shares", {}).keys()
    assert ("val" in ids) == chosen_by
    assert not ids["test"] & ids.get("val", set())


def test_arguments_of_the_command_line() -> None:
    assert parse_shares(["train=0.8", "val=.2"]) == {"train": 0.8, "val": 0.2}
    assert parse_rename(["a=b", "c=d=e", "f="]) == {"a": "b", "c": "d=e", "f": None}
    with pytest.raises(UserError) as caught:
        parse_shares(["train", "val=much", "=0.5", "x=1", "x=1"])
    assert str(caught.value).count("--split") == 4
    with pytest.raises(UserError, match="write OLD=NEW"):
        parse_rename(["ab"])
