"""What a conversion tells: the splits' sizes, the classes in each, and the command that trains on the result."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from transfer.convert.annotated import AnnotatedSet, Format


def split_lines(dataset: AnnotatedSet) -> list[str]:
    """A table: each split's images, boxes, and images without boxes."""
    rows = [("split", "images", "boxes", "without boxes")]
    for split in dataset.splits:
        images = [image for image in dataset.images if split in image.splits]
        boxes = sum(len(image.objects) for image in images)
        rows.append((split, str(len(images)), str(boxes), str(sum(not image.objects for image in images))))
    return _table(rows)


def class_lines(dataset: AnnotatedSet) -> list[str]:
    """A table: images (boxes) of each class in each split; of folds, in the val halves, which do not overlap."""
    splits = [split for split in dataset.splits if not re.fullmatch(r"fold\d+_train", split)]
    images = {split: Counter[str]() for split in splits}
    boxes = {split: Counter[str]() for split in splits}
    for image in dataset.images:
        names = [item.name for item in image.objects]
        for split in set(image.splits) & set(splits):
            images[split].update(set(names))
            boxes[split].update(names)
    rows = [("images (boxes)", *splits)]
    rows += [(name, *(f"{images[split][name]} ({boxes[split][name]})" for split in splits)) for name in dataset.names()]
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]


def training_lines(target: Format, output: Path, splits: Sequence[str]) -> list[str]:
    """The command that trains on a written set, or what it lacks for that."""
    train, val, test = _roles(splits)
    if train is None or test is None:
        return ["to train, it needs a split to train on and one to test on: --split train=0.8 val=0.1 test=0.1"]
    if target == "coco":
        return [_join("coco", _coco_options(output, train, val, test))]
    options = []
    if train != "train":
        options.append(f"data.train.splits={train}")
    if val is None:
        options.append("data.val=0.1")
    elif val != "val":
        options.append(f"data.val.splits={val}")
    if test != "test":
        options.append(f"data.test.splits={test}")
    return [_join(target, ["--data", str(output), *(["--cfg-options", *options] if options else [])])]


def _coco_options(output: Path, train: str, val: str | None, test: str) -> list[str]:
    def files(split: str) -> tuple[str, str]:
        return str(output / "annotations" / f"instances_{split}.json"), str(output / "images")

    options = ["--cfg-options"]
    for part, split in (("train", train), ("test", test)):
        annotations, images = files(split)
        options += [f"data.{part}.annotations={annotations}", f"data.{part}.images={images}"]
    if val is not None:
        annotations, images = files(val)
        node = {"type": "transfer.data.coco.COCODataset", "annotations": annotations, "images": images}
        options.append(f"data.val={json.dumps(node, ensure_ascii=False)}")
    return options


def _join(target: Format, arguments: Sequence[str]) -> str:
    return shlex.join(["tools/train_det.py", f"configs/{target}_folder_frcnn_lite0.py", *arguments])


def _roles(splits: Sequence[str]) -> tuple[str | None, str | None, str | None]:
    """The splits to train on, to choose the best checkpoint by (None: a part of train), and to test on."""

    def first(pattern: str) -> str | None:
        return next((split for split in splits if re.search(pattern, split)), None)

    folds = first(r"^fold0_train$")
    if folds:
        test = first(r"^test")
        return (folds, "fold0_val", test) if test else (folds, None, "fold0_val")
    train = first(r"(^|_)train(?!val)") or first(r"(^|_)trainval")
    val = first(r"(^|_)val")
    test = first(r"(^|_)test")
    if train and "trainval" in train:
        val = None  # it is a part of trainval
    return (train, val, test) if test else (train, None, first(r"(^|_)val"))
