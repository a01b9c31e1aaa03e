"""Files that were made to do harm: each is refused with one message that names it, or read without doing any."""

from __future__ import annotations

import copy
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from whole_checkpoint import whole_checkpoint

from backbones.contract import BackboneError
from backbones.weights import load_weights
from transfer.averaging import average_checkpoints
from transfer.build import load_config
from transfer.checking.check import check_detection
from transfer.checking.folders import write_text
from transfer.checking.page_layout import plain
from transfer.checking.report import as_text, json_text
from transfer.convert.convert import convert
from transfer.data.ade20k import ADE20KDataset
from transfer.data.class_folder import ClassFolderDataset
from transfer.data.coco import COCODataset
from transfer.data.coco_segmentation import COCOSegmentation
from transfer.data.image import image_header, read_image
from transfer.data.image_list import ImageListDataset
from transfer.data.imagenet import ImageNetDataset
from transfer.data.mask_folder import MaskFolderDataset
from transfer.data.masks import ValueCoding, read_mask
from transfer.data.strangers import printable, short
from transfer.data.voc import XMLFolderDataset
from transfer.data.yolo import YOLODataset
from transfer.engine.checkpoint import load_checkpoint, save_checkpoint
from transfer.teacher import CheckpointTeacher
from transfer.types import UserError

DIGITS = "9" * 5000
XML = (
    "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    "</object>MORE</annotation>"
)
COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[1, 1, 9, 1, 9, 9]]},
    ],
    "categories": [{"id": 1, "name": "cat"}],
}  # fmt: skip


class WritesAFile:
    """Runs code when unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.path}'",)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    return path


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (50, 40), (9, 120, 30)).save(path)
    return path


# Checkpoints and weights


@pytest.mark.parametrize(
    "read",
    [
        load_checkpoint,
        CheckpointTeacher,
        lambda path: average_checkpoints([path, path], path.with_name("mean.pth")),
        lambda path: load_weights(nn.Linear(2, 2), path),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_runs_code_is_run_nowhere(tmp_path: Path, read: Callable[[Path], Any], legacy: bool) -> None:
    mark, path = tmp_path / "was_run", tmp_path / "evil.pth"
    content = {**whole_checkpoint(), "state_dict": {"weight": torch.zeros(2, 2)}, "extra": WritesAFile(mark)}
    if legacy:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(
        (UserError, BackboneError), match=r"evil\.pth.*(more than tensors|no checkpoint of this project)"
    ):
        read(path)
    assert [each.name for each in tmp_path.iterdir()] == ["evil.pth"]


def test_a_checkpoint_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "bomb.pth"
    save_checkpoint(whole, {**whole_checkpoint(), "model": {"weight": torch.zeros(1_000_000)}})
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match=r"bomb\.pth' would unpack to 40\d+ bytes"):
        load_checkpoint(path)
    with pytest.raises(BackboneError, match=r"bomb\.pth: would unpack to 40\d+ bytes"):
        load_weights(nn.Linear(2, 2), path)


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"inner": value}
    return value


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"class_names": 5}, "'class_names' is of type int, it must be a list of different texts"),
        ({"class_names": ["a", "a"]}, "'class_names' is of type list"),
        ({"class_names": ["a\x1b[2J"]}, "'class_names' is of type list, it must be .* that can be printed"),
        ({"class_names": None, "seed": -1}, "'seed' is of type int.*'class_names' is None"),
        ({"category_ids": [2**70]}, "'category_ids'"),
        ({"model": {"weight": 5}}, "'model' is of type dict, it must be a dict of names and tensors"),
        ({"model": {5: torch.zeros(1)}}, "'model'"),
        ({"model": {"weight": torch.zeros(1).expand(10**12)}}, r"model\.weight states \[1000000000000\], which"),
        ({"model": {"weight": torch.zeros(3).to_sparse()}}, r"model\.weight is no plain tensor"),
        ({"category_ids": [1, 2]}, "'category_ids' has 2 numbers for 1 'class_names'"),
        ({"ema": {"updates": 1, "module": {"a": torch.zeros(2)}}}, "'ema' and 'model' differ in a"),
        ({"ema": {"module": {}}}, "'ema' is of type dict, it must be None or a dict of 'updates'"),
        ({"optimizer": {"state": {}, "param_groups": [{"params": ["x"]}]}}, "'optimizer'"),
        ({"config": "{}"}, "'config' is of type str, it must be the JSON text of a config"),
        ({"config": "[" * 100_000}, "'config'"),
        ({"config": json.dumps({**json.loads(whole_checkpoint()["config"]), "model": deep(60)})}, "at most 50 levels"),
        ({"backbone": {"mean": [float("nan")] * 3, "std": [1, 1, 1], "interpolation": "x"}}, "'backbone'"),
        ({"metrics": [{"values": {"map": "high"}}]}, "'metrics'"),
        ({"versions": {"torch": ["2"]}}, "'versions'"),
    ],
)  # fmt: skip
def test_fields_of_a_checkpoint_that_are_not_what_they_must_be(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    torch.save({**whole_checkpoint(), **changes}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=rf"odd\.pth' is not as this project writes it: .*{reason}"):
        load_checkpoint(tmp_path / "odd.pth")


def test_fields_that_a_checkpoint_lacks_are_all_named(tmp_path: Path) -> None:
    torch.save({"format": whole_checkpoint()["format"]}, tmp_path / "bare.pth")
    with pytest.raises(UserError, match=r"'model' is missing; 'ema' is missing; .*'config' is missing"):
        load_checkpoint(tmp_path / "bare.pth")


def test_values_that_contain_each_other(tmp_path: Path) -> None:
    """Forty lists of two would print as 2^40 texts; a list that holds itself would be walked for ever."""
    doubled: Any = []
    for _ in range(40):
        doubled = [doubled, doubled]
    endless: list[Any] = []
    endless.append(endless)
    for value in (doubled, endless):
        torch.save({**whole_checkpoint(), "card": {"size": value}}, tmp_path / "odd.pth")
        with pytest.raises(UserError, match="'card' is of type dict, it must be None or a dict of plain values"):
            load_checkpoint(tmp_path / "odd.pth")
        torch.save({"format": value}, tmp_path / "odd.pth")
        with pytest.raises(UserError, match="format list, need 'trickstack/1'"):
            load_checkpoint(tmp_path / "odd.pth")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"weight": torch.zeros(1).expand(2, 10**9)}, "no plain tensor whose values are in the file"),
        ({"weight": torch.zeros(2, 2).to_sparse()}, "no plain tensor"),
        ({"state_dict": {"weight": torch.zeros(2, 2)}, "backbone": {"name": ["a"]}}, r"backbone\['name'\] is a list"),
        ({"state_dict": {"weight": torch.zeros(2, 2)}, "backbone": {"mean": {}}}, r"backbone\['mean'\] is a dict"),
        ({"state_dict": {"weight": torch.zeros(2, 2)}, "backbone": {"std": "1234"}}, r"backbone\['std'\] is '1234'"),
    ],
)  # fmt: skip
def test_weights_that_are_not_what_they_must_be(tmp_path: Path, content: dict[str, Any], reason: str) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(BackboneError, match=rf"odd\.pth: .*{reason}"):
        load_weights(nn.Linear(2, 2, bias=False), tmp_path / "odd.pth")


# Annotations


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("<a>" * 60 + "</a>" * 60, "a.xml: has elements in elements, more than 50 deep"),
        (f"<!--{' ' * (4 << 20)}-->", "a.xml: cannot be read: it has .* bytes; the limit is 4194304"),
    ],
)
def test_xml(tmp_path: Path, more: str, reason: str) -> None:
    image(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", XML.replace("MORE", more))
    with pytest.raises(UserError, match=reason):
        XMLFolderDataset(tmp_path)
    with pytest.raises(UserError, match=reason):
        convert(tmp_path, tmp_path / "out", to="voc")


@pytest.mark.parametrize("target", ["/dev/zero", "pipe", "itself"])
def test_annotations_that_are_no_files(tmp_path: Path, target: str) -> None:
    """Opening a pipe waits for ever; /dev/zero never ends."""
    images = [image(tmp_path / folder / "a.jpg") for folder in ("voc", "images")]
    for path in (tmp_path / "voc/a.xml", tmp_path / "labels/a.txt"):
        path.parent.mkdir(exist_ok=True)
        if target == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(path if target == "itself" else target)
    write(tmp_path / "data.yaml", "train: images\nnames: [cat]\n")
    reason = "Too many levels" if target == "itself" else "it is no regular file"
    for read in (
        lambda: XMLFolderDataset(tmp_path / "voc"),
        lambda: YOLODataset(tmp_path, "train"),
        lambda: convert(tmp_path / "voc", tmp_path / "out", to="coco"),
        lambda: convert(tmp_path / "data.yaml", tmp_path / "out", to="coco"),
    ):
        with pytest.raises(UserError, match=rf"/a\.(xml|txt): cannot be read: .*{reason}"):
            read()
    assert all(path.is_file() for path in images)
    assert not (tmp_path / "out").exists()


ALIASES = "a: &a [x, x]\n" + "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefgh", "bcdefghi"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{ALIASES}train: *i\nnames: [cat]\n", "uses aliases"),
        ("a: &a {k: 1}\nb: {<<: [*a, *a]}\ntrain: images\nnames: [cat]\n", "uses aliases"),
        ("train: images\nnames: [cat]\nx: !!int ''\n", r"a value does not fit its tag \(IndexError\)"),
        ("train: images\nnames: [cat]\nx: !!bool maybe\n", r"a value does not fit its tag \(KeyError\)"),
        ("train: images\nnames: [cat]\nx: !!python/object/apply:os.system [ls]\n", "is not YAML"),
        ("train: images\nnc: 1000000000\n", "nc: 1000000000 is not a number of classes, 1 to 100000"),
        (f"train: images\nnc: 0x{DIGITS}\n", "nc: a very long int is not a number of classes"),
        (f"train: images\nnames: [0x{DIGITS}]\n", "class 0 is a very long int, not text"),
        (f"train: images\nnames:\n  ? '{DIGITS}'\n  : cat\n", "is no class index"),
        (f"train: images\nnames: [cat]\nkpt_shape: [0x{DIGITS}, 2]\n", "kpt_shape"),
        ('train: images\nnames: ["cat\\e[2J"]\n', r"cat\\x1b\[2J.*cannot be empty or hold control characters"),
        (f"train: {'[' * 100}{']' * 100}\nnames: [cat]\n", "is not a path or a list of paths"),
        ("train: list.txt\nnames: [cat]\n", r"list\.txt:1: no image 'no\\x00where/\.\./images/a\.jpg'"),
    ],
)  # fmt: skip
def test_yaml(tmp_path: Path, text: str, reason: str) -> None:
    image(tmp_path / "images/a.jpg")
    write(tmp_path / "labels/a.txt", "0 0.5 0.5 0.1 0.1\n")
    lines = ("no\0where/../images/a.jpg", "nowhere/../images/a.jpg", f"{'a' * 300}/../images/a.jpg")
    write(tmp_path / "list.txt", "\n".join(lines))
    write(tmp_path / "data.yaml", text)
    with pytest.raises(UserError, match=reason):
        YOLODataset(tmp_path, "train")


def test_a_path_too_long_for_any_folder(tmp_path: Path) -> None:
    image(tmp_path / "images/a.jpg")
    write(tmp_path / "labels/a.txt", "0 0.5 0.5 0.1 0.1\n")
    write(tmp_path / "data.yaml", f"path: {'d' * 5000}\ntrain: images\nnames: [cat]\n")
    assert len(YOLODataset(tmp_path, "train")) == 1  # the file's own folder is taken, with a line in the log


def changed(**edits: Any) -> dict[str, Any]:
    """COCO with the first entry of each named part updated."""
    content = copy.deepcopy(COCO)
    for part, edit in edits.items():
        content[part][0].update(edit)
    return content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (changed(images={"width": 100_000, "height": 100_000}), "image 1 states 100000x100000 pixels; the limit is"),
        (changed(images={"width": 10**12, "height": 10**12}), "the limit is"),
        (changed(images={"id": 2**63}), r"images\[0\]: needs an integer 'id'"),
        (changed(categories={"name": "\ud800"}), r"'\\ud800': a class name cannot be empty or hold"),
        (changed(categories={"name": " "}), "a class name cannot be empty"),
        (changed(annotations={"segmentation": [[int("9" * 4000)] * 6]}), r"polygon \[99999999"),
        (changed(annotations={"segmentation": {"size": [10**200, 10**200], "counts": "1"}}), "do not add up"),
        (changed(annotations={"segmentation": {"size": [40, 50], "counts": "ooooooo?" * 6}}), "longer than any image"),
    ],
)
def test_coco(tmp_path: Path, content: dict[str, Any], reason: str) -> None:
    image(tmp_path / "images/a.jpg")
    path = write(tmp_path / "x.json", json.dumps(content))
    with pytest.raises(UserError, match=reason):
        COCOSegmentation(path, tmp_path / "images")


@pytest.mark.parametrize("levels", [900, 985, 20_000])
def test_nested_json_is_refused_at_any_depth(tmp_path: Path, levels: int) -> None:
    image(tmp_path / "images/a.jpg")
    path = write(tmp_path / "x.json", json.dumps(COCO).replace("[1, 2, 3, 4]", "[" * levels + "]" * levels))
    with pytest.raises(UserError, match=r"bbox \[\[\[.*is not|is not JSON"):
        COCODataset(path, tmp_path / "images")


def test_entries_that_are_no_entries_are_left_out_of_a_conversion(tmp_path: Path) -> None:
    image(tmp_path / "images/a.jpg")
    content = {**COCO, "info": {"note": "half a character: \ud800"}}
    content["images"] = [{"id": [1]}, 5, *COCO["images"]]
    content["annotations"] = [{"image_id": [1]}, {"image_id": {}}, *COCO["annotations"]]
    path = write(tmp_path / "x.json", json.dumps(content))
    convert(path, tmp_path / "out", to="coco", on_broken="skip", image_root=tmp_path / "images")
    written = json.loads((tmp_path / "out/annotations/instances_train.json").read_bytes())
    assert [entry["bbox"] for entry in written["annotations"]] == [[1, 2, 3, 4]]
    assert written["info"] == content["info"]


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (lambda root: ImageListDataset(root, "list.txt", categories=["a", "b"]), "line 1: label 9+ has 5000 digits"),
        (lambda root: ImageListDataset(root, "list.txt"), "line 1: label 9+ has 5000 digits"),
        (lambda root: ImageListDataset(root, "a.txt", categories="list.txt"), r"list\.txt: the numbers of its 1"),
        (lambda root: ImageListDataset(root, "a.txt", categories=["a", DIGITS]), "at another place than 9+"),
        (lambda root: ImageNetDataset(root, "val", truth_file="list.txt"), r"a\.jpg 9+: there are 2 classes"),
        (lambda root: ADE20KDataset(root, "training"), "line 2 is not a value of 1 to 254"),
    ],
)  # fmt: skip
def test_numbers_of_thousands_of_digits(tmp_path: Path, read: Callable[[Path], Any], reason: str) -> None:
    for name in ("a.jpg", "val/a.jpg", "images/training/a.jpg", "annotations/training/a.png"):
        image(tmp_path / name)
    write(tmp_path / "list.txt", f"a.jpg {DIGITS}\n")
    write(tmp_path / "a.txt", "a.jpg 0\n")
    write(tmp_path / "objectInfo150.txt", f"1\t{DIGITS}\tx\tname\n{DIGITS}\t0\tx\tname\n")
    write(tmp_path / "LOC_synset_mapping.txt", "n01440764 tench\nn01443537 goldfish\n")
    with pytest.raises(UserError, match=reason):
        read(tmp_path)


# Names


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A file from a Windows archive, and one that would clear the terminal."""
    root = tmp_path / "data"
    for stem in (b"caf\xe9", b"\x1b[2Jcleared"):
        name = os.fsdecode(stem)
        Image.new("RGB", (50, 40)).save(tmp_path / "a.jpg")
        write(root / f"{name}.jpg", (tmp_path / "a.jpg").read_bytes())
        write(root / f"{name}.xml", XML.replace("MORE", "<size><width>9</width></size>").replace(">9<", ">70<"))
    for to in ("voc", "coco", "yolo"):
        told = "\n".join(convert(root, tmp_path / to, to=to))  # type: ignore[arg-type]
        assert "\x1b" not in told
        assert told.encode("utf-8")
        names = [path.name for path in (tmp_path / to).rglob("*.jpg")]
        assert sorted(names) == ["_[2Jcleared.jpg", "caf_.jpg"]
    node = {"type": "transfer.data.voc.XMLFolderDataset", "root": str(root)}
    report = check_detection({"data": {"train": node, "test": node}, "loader": {}, "training": {}}, workers=1)
    assert report.findings
    assert "\x1b" not in as_text(report)
    assert as_text(report).encode("utf-8")
    write_text(tmp_path / "findings.json", json_text(report, config="c", data={}))
    files = {each["file"] for each in json.loads((tmp_path / "findings.json").read_text())["findings"]}
    assert files >= {str(root / os.fsdecode(b"caf\xe9.jpg"))}


def test_what_is_printed_of_a_value_and_a_name() -> None:
    assert printable("a\nb\x1b[2J\udce9é") == "a\nb\\x1b[2J\\udce9é"
    assert plain("$5 \udce9") == "\\$5 \\udce9"
    assert len(short([[["x" * 500] * 50] * 50] * 50)) <= 80
    assert short([1, 2.5, "a", None]) == "[1, 2.5, 'a', None]"
    assert short(10**5000) == "a very long int"


def test_folders_of_classes_that_are_no_text(tmp_path: Path) -> None:
    for name in ("cat", os.fsdecode(b"caf\xe9")):
        image(tmp_path / name / "a.jpg")
    with pytest.raises(UserError, match=r"'caf\\udce9': a class name cannot be empty or hold .*rename="):
        ClassFolderDataset(tmp_path)
    renamed = ClassFolderDataset(tmp_path, rename={os.fsdecode(b"caf\xe9"): "café"})
    assert renamed.class_names == ("café", "cat")


# Empty files


@pytest.mark.parametrize(
    ("name", "read", "reason"),
    [
        ("a.xml", lambda path: XMLFolderDataset(path.parent), r"a\.xml: is not well-formed XML"),
        ("a.json", lambda path: COCODataset(path, path.parent), r"a\.json: is not JSON"),
        ("a.jpg", read_image, r"a\.jpg: is empty"),
        ("a.jpg", image_header, r"a\.jpg: is empty"),
        ("a.png", lambda path: read_mask(path, ValueCoding({0: 0})), r"a\.png: is empty"),
        ("list.txt", lambda path: ImageListDataset(path.parent, path.name), r"list\.txt: the list names no images"),
        ("classes.txt", lambda path: MaskFolderDataset("", "", root=path.parent, classes=path.name), "names no class"),
        ("data.yaml", lambda path: YOLODataset(path, "train"), r"data\.yaml: is empty"),
        ("last.pth", load_checkpoint, r"last\.pth' is no checkpoint of this project, or is cut short"),
        ("w.pth", lambda path: load_weights(nn.Linear(2, 2), path), r"w\.pth: .*damaged"),
        ("w.safetensors", lambda path: load_weights(nn.Linear(2, 2), path), r"w\.safetensors: damaged"),
        ("config.py", load_config, r"config\.py: missing 'model'"),
    ],
)  # fmt: skip
def test_an_empty_file(tmp_path: Path, name: str, read: Callable[[Path], Any], reason: str) -> None:
    with pytest.raises((UserError, BackboneError), match=reason):
        read(write(tmp_path / name, b""))
