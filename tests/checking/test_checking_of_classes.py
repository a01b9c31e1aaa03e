"""The check of images with one class each: every fault planted alone is found, and nothing else; counts; the tool."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from transfer.checking.class_check import ClassReport, check_classification
from transfer.checking.class_page import Tile, choose, draw_class_page
from transfer.checking.class_reading import has_classes
from transfer.checking.class_report import classes_as_text
from transfer.checking.findings import Finding
from transfer.data.class_folder import ClassFolderDataset
from transfer.data.subset import split_validation
from transfer.types import UserError

RunTool = Callable[..., tuple[int, str]]
FOLDERS = "transfer.data.class_folder.ClassFolderDataset"
LIST = "transfer.data.image_list.ImageListDataset"
NAMES = ("apple", "pear", "plum")
SPLITS = {"train": 4, "val": 2, "test": 2}
"""Images of each class."""


def pixels_of(name: str, size: tuple[int, int] = (40, 48)) -> np.ndarray:
    """Noise that is this name's alone."""
    return np.random.default_rng(list(name.encode())).integers(0, 256, (*size, 3), dtype=np.uint8)


def write_set(root: Path) -> Path:
    """Images of three classes in three splits; nothing wrong with them."""
    for split, count in SPLITS.items():
        for name in NAMES:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(pixels_of(f"{split}{name}{number}"))
                image.save(root / split / name / f"{number}.png", compress_level=1)
    return root


def config_of(folder: Path, /, **changes: Any) -> dict[str, Any]:
    """What a check uses of a config; `changes` are arguments of every data set."""
    nodes = {split: {"type": FOLDERS, "root": str(folder), "folder": split, **changes} for split in SPLITS}
    return {"task": "classification", "data": nodes, "loader": {"on_broken": "stop"}, "training": {"seed": 0}}


def check(folder: Path, /, **changes: Any) -> ClassReport:
    return check_classification(config_of(folder, **changes), workers=1)


def as_told(finding: Finding) -> tuple[str, str, str]:
    return finding.code, finding.severity, finding.part


def save(name: str, path: Path, *, mode: str = "RGB", size: tuple[int, int] = (40, 48)) -> None:
    Image.fromarray(pixels_of(name, size)).convert(mode).save(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def without(split: str, name: str) -> Callable[[Path], None]:
    return lambda root: shutil.rmtree(root / split / name)


def many_apples(root: Path) -> None:
    for number in range(40):
        save(f"more{number}", root / f"train/apple/more{number}.png", size=(33, 34))


def capital_twin(root: Path) -> None:
    (root / "train/Apple").mkdir()
    save("twin", root / "train/Apple/0.png")
    for split in ("val", "test"):
        shutil.copytree(root / split / "apple", root / split / "Apple")
        for path in (root / split / "Apple").iterdir():
            save(f"{split}{path.name}", path)


@dataclass(frozen=True)
class Fault:
    """One thing wrong and the finding it causes."""

    plant: Callable[[Path], object]
    code: str
    severity: str
    file: str
    """What the finding's file ends with; "" where no file is at fault."""
    message: str
    part: str = "train"


FAULTS = {
    "cut image": Fault(
        lambda root: cut(root / "train/plum/2.png"), "image-truncated", "error", "plum/2.png", "cannot be decoded"
    ),
    "no picture": Fault(
        lambda root: (root / "val/plum/0.png").write_bytes(b"<html>"),
        "image-unreadable", "error", "val/plum/0.png", "is no image", "val",
    ),
    "empty file": Fault(
        lambda root: (root / "test/pear/0.png").write_bytes(b""),
        "image-unreadable", "error", "test/pear/0.png", "is empty (0 bytes)", "test",
    ),
    "link to nothing": Fault(
        lambda root: (root / "train/pear/x.png").symlink_to(root / "gone.png"),
        "image-missing", "error", "pear/x.png", "No such file",
    ),
    "empty class": Fault(
        lambda root: (root / "train/quince").mkdir(), "class-empty", "error", "train/quince", "holds no image"
    ),
    "tiny image": Fault(
        lambda root: save("t", root / "train/pear/t.png", size=(19, 60)),
        "image-tiny", "warning", "pear/t.png", "is 60x19; half of the images have a short side of at least 40 pixels",
    ),
    "huge image": Fault(
        lambda root: Image.new("RGB", (4000, 3001), (1, 2, 3)).save(root / "train/pear/h.png"),
        "image-huge", "note", "pear/h.png", "1 image of more than 12 million pixels; the largest is 4000x3001",
    ),
    "CMYK image": Fault(
        lambda root: save("c", root / "test/pear/c.jpg", mode="CMYK"),
        "image-cmyk", "note", "pear/c.jpg", "1 image in CMYK", "test",
    ),
    "class not in test": Fault(
        without("test", "plum"), "class-without-images", "warning", "", "no image of 'plum': it cannot be measured",
        "test",
    ),
    "class not in val": Fault(
        without("val", "plum"), "class-without-images", "note", "", "no image of 'plum': it cannot be measured", "val"
    ),
    "class not in train": Fault(
        lambda root: shutil.move(root / "train/plum", root / "plums"),
        "class-without-images", "warning", "", "no image of 'plum': it cannot be learned",
    ),
    "imbalance": Fault(
        many_apples, "class-imbalance", "note", "", "'apple' has 44 images, 'plum' 4: 11 times as many"
    ),
    "twins": Fault(
        capital_twin, "class-misspelt", "warning", "",
        "'Apple' (5 images) is a class of its own beside 'apple' (8", "train, val, test",
    ),
    "in train and test": Fault(
        lambda root: shutil.copy(root / "train/pear/1.png", root / "test/pear/0.png"),
        "image-leak", "error", "train/pear/1.png", "is in train, and byte for byte in test", "train, test",
    ),
    "in train and val under another class": Fault(
        lambda root: shutil.copy(root / "train/pear/1.png", root / "val/plum/0.png"),
        "image-leak", "error", "train/pear/1.png", "val/plum/0.png", "train, val",
    ),
    "twice in a class": Fault(
        lambda root: shutil.copy(root / "train/pear/1.png", root / "train/pear/9.png"),
        "image-duplicate", "warning", "pear/9.png", "is there before, byte for byte",
    ),
    "in two classes": Fault(
        lambda root: shutil.copy(root / "train/pear/1.png", root / "train/plum/9.png"),
        "image-in-two-classes", "warning", "plum/9.png", "is 'plum' here and 'pear' as ",
    ),
}  # fmt: skip


def test_a_sound_set_has_no_findings(tmp_path: Path) -> None:
    report = check(write_set(tmp_path))
    assert report.findings == []
    assert report.class_names == NAMES
    assert not report.is_wrong


@pytest.mark.parametrize("what", FAULTS)
def test_each_fault_alone(tmp_path: Path, what: str) -> None:
    fault = FAULTS[what]
    fault.plant(write_set(tmp_path))
    report = check(tmp_path, class_names=list(NAMES) if what == "class not in train" else None)
    assert [as_told(finding) for finding in report.findings] == [(fault.code, fault.severity, fault.part)]
    (finding,) = report.findings
    assert finding.file.endswith(fault.file)
    assert bool(finding.file) == bool(fault.file)
    assert fault.message in finding.message
    assert finding.remedy
    assert not finding.fixable
    assert report.is_wrong == (fault.severity == "error")


def test_all_faults_at_once(tmp_path: Path) -> None:
    write_set(tmp_path)
    chosen = ("cut image", "no picture", "empty file", "empty class", "tiny image", "CMYK image", "twice in a class")
    for what in chosen:
        FAULTS[what].plant(tmp_path)
    report = check(tmp_path)
    assert {as_told(finding) for finding in report.findings} == {
        (FAULTS[what].code, FAULTS[what].severity, FAULTS[what].part) for what in chosen
    }
    assert [finding.severity for finding in report.findings] == ["error"] * 4 + ["warning"] * 2 + ["note"]


def test_small_images_are_tiny_beside_larger_ones_only(tmp_path: Path) -> None:
    for split in SPLITS:
        for name in NAMES:
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(2):
                save(f"{split}{name}{number}", tmp_path / split / name / f"{number}.png", size=(12, 12))
    assert check(tmp_path).findings == []


def test_training_that_skips_is_only_warned(tmp_path: Path) -> None:
    write_set(tmp_path)
    for what in ("cut image", "empty class", "empty file"):
        FAULTS[what].plant(tmp_path)
    config = config_of(tmp_path, on_broken="skip")
    config["loader"]["on_broken"] = "skip"
    found = {finding.code: finding.severity for finding in check_classification(config, workers=1).findings}
    # the empty file is in test: what is measured stops at it
    assert found == {"image-truncated": "warning", "class-empty": "warning", "image-unreadable": "error"}


def test_the_counts(tmp_path: Path) -> None:
    write_set(tmp_path)
    cut(tmp_path / "train/plum/0.png")
    for number, mode in enumerate(("L", "LA", "1")):
        save(f"grey{number}", tmp_path / f"train/pear/grey{number}.png", mode=mode)
    report = check(tmp_path)
    train, val, test = report.statistics
    assert (train.images, train.decoded, train.grey) == (15, 14, 3)
    assert dict(train.class_images) == {"apple": 4, "pear": 7, "plum": 4}
    assert train.imbalance == pytest.approx(7 / 4)
    assert (val.images, test.images, test.grey, test.imbalance) == (6, 6, 0, 1.0)
    content = train.as_json()
    assert content["images_per_pixel_type"] == {"RGB": 11, "L": 1, "LA": 1, "1": 1}
    assert content["commonest_sizes"] == [{"width": 48, "height": 40, "images": 14}]
    assert content["short_side_pixels"]["50"] == 40
    rows = [line.split() for line in classes_as_text(report).splitlines()]
    assert ["train", "15", "14", "3", "4", "to", "7", "3", "0", "40", "to", "40", "48x40"] in rows
    assert ["pear", "7", "2", "2", "#" * 30] in rows
    assert ["plum", "4", "2", "2", "#" * 17] in rows


def test_of_very_many_classes_the_ends_are_shown(tmp_path: Path) -> None:
    for number in range(45):
        (tmp_path / f"c{number:02d}").mkdir()
        save(str(number), tmp_path / f"c{number:02d}/0.png", size=(8, 8))
    node = {"type": FOLDERS, "root": str(tmp_path)}
    config = {"data": {"train": node, "val": None, "test": node}, "loader": {}, "training": {}}
    report = check_classification(config, workers=1)
    lines = classes_as_text(report).splitlines()
    assert "... 25 classes of sizes between: see findings.json" in lines
    shown = [line.split()[0] for line in lines if line.startswith("c") and "#" in line]
    assert shown == [f"c{number:02d}" for number in (*range(10), *range(35, 45))]
    assert [finding.code for finding in report.findings] == ["image-leak"] * 45  # train and test are one folder
    assert len(choose(report)) == 12


def test_held_out_as_training_holds_out(tmp_path: Path) -> None:
    config = config_of(write_set(tmp_path))
    config["data"]["val"] = 0.25
    report = check_classification(config, workers=1)
    train, val, _ = report.statistics
    assert (train.images, val.images, val.held_out) == (9, 3, True)
    assert set(val.class_images.values()) == {1}
    _, expected = split_validation(ClassFolderDataset(tmp_path / "train"), 0.25, 0)
    assert report.parts[0].held_out == {expected.record(index).path for index in range(3)}
    assert "val is drawn from train" in classes_as_text(report)


def test_classes_that_differ_between_splits(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "test/plum").rename(tmp_path / "test/Plums")
    shutil.copy(tmp_path / "train/pear/0.png", tmp_path / "test/Plums/0.png")  # the images are looked at all the same
    report = check_classification(config_of(tmp_path), workers=1)
    found = {finding.code: finding for finding in report.findings}
    assert set(found) == {"classes-differ", "image-leak", "class-without-images"}
    assert found["classes-differ"].part == "test"
    assert "rename={'Plums': 'plum'}" in found["classes-differ"].message
    report = check(tmp_path, class_names=["apple", "pear", "plom", "Plums"])
    differ = {finding.part: finding.message for finding in report.findings if finding.code == "classes-differ"}
    assert set(differ) == {"train", "val"}
    assert all("rename={'plum': 'Plums'}" in message for message in differ.values())


def test_lists(tmp_path: Path) -> None:
    write_set(tmp_path)
    for split in SPLITS:
        lines = [f"/{split}/{name}/{number}.png {label}" for label, name in enumerate(NAMES) for number in range(2)]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines))
    (tmp_path / "train.txt").write_text(
        "\n".join([*lines[:0], "train/pear/0.png 1", "train/plum/0.png 2", "../x.png 0"])
    )
    nodes = {
        split: {"type": LIST, "root": str(tmp_path), "list_file": f"{split}.txt", "categories": list(NAMES)}
        for split in SPLITS
    }
    config = {"task": "classification", "data": nodes, "loader": {}, "training": {}}
    report = check_classification(config, workers=1)
    assert {as_told(finding) for finding in report.findings} == {
        ("list-line-faulty", "error", "train"), ("class-without-images", "warning", "train")
    }  # fmt: skip
    nodes["val"]["list_file"] = "no.txt"
    (tmp_path / "test/plum/1.png").unlink()
    found = {finding.code: finding.part for finding in check_classification(config, workers=1).findings}
    assert (found["list-unusable"], found["image-missing"]) == ("val", "test")


def test_validation_images_without_a_class(tmp_path: Path) -> None:
    """ImageNet's, which lie together beside a file that tells their classes."""
    wnids = ["n01440764", "n02102040"]
    for wnid in wnids:
        (tmp_path / "train" / wnid).mkdir(parents=True)
        save(wnid, tmp_path / "train" / wnid / "1.JPEG")
    (tmp_path / "val").mkdir()
    for number in (1, 2, 3):
        save(str(number), tmp_path / f"val/ILSVRC2012_val_{number:08d}.JPEG")
    (tmp_path / "val.txt").write_text("".join(f"ILSVRC2012_val_{n:08d}.JPEG {n - 1}\n" for n in (1, 2)))
    kind = "transfer.data.imagenet.ImageNetDataset"
    nodes = {split: {"type": kind, "root": str(tmp_path), "split": split} for split in ("train", "val")}
    data = {"train": nodes["train"], "val": None, "test": nodes["val"]}
    report = check_classification({"data": data, "loader": {}, "training": {}}, workers=1)
    assert [as_told(finding) for finding in report.findings] == [("class-missing", "error", "test")]
    assert report.findings[0].file.endswith("ILSVRC2012_val_00000003.JPEG")
    assert [part.images for part in report.statistics] == [2, 2]


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir
    (write_set(tmp_path) / "train/pear/closed").mkdir()

    def scandir(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr("os.scandir", scandir)
    report = check(tmp_path)
    assert [as_told(finding) for finding in report.findings] == [("folder-unreadable", "error", "train")]
    assert report.findings[0].file.endswith("train/pear/closed")


def test_nested_data_sets(tmp_path: Path) -> None:
    config = config_of(write_set(tmp_path))
    nodes = config["data"]
    kind = "transfer.data.subset.ClassificationSubset"
    nodes["train"] = {"type": kind, "dataset": {**nodes["train"], "class_names": list(NAMES)}, "every": 2}
    FAULTS["empty class"].plant(tmp_path)
    report = check_classification(config, workers=1)
    assert [as_told(finding) for finding in report.findings] == [("class-empty", "error", "train")]
    assert [each.images for each in report.statistics] == [6, 6, 6]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"class_name": NAMES}, "takes no 'class_name', did you mean 'class_names'"),
        ({"class_names": "apple"}, "class_names is the text"),
        ({"root": "nowhere"}, "nowhere': no such folder"),
        ({"rename": {"apple": "aple"}, "class_names": ["apple"]}, "'aple' is not in class_names"),
    ],
)
def test_mistakes_of_the_config(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        check(write_set(tmp_path), **change)


def test_one_part_that_cannot_be_opened(tmp_path: Path) -> None:
    config = config_of(write_set(tmp_path))
    config["data"]["val"]["folder"] = "vla"
    found = {finding.code: finding for finding in check_classification(config, workers=1).findings}
    assert set(found) == {"data-set-unusable"}
    assert found["data-set-unusable"].part == "val"
    assert "has no such folder (nearest: 'val')" in found["data-set-unusable"].message


def test_which_configs_are_meant(tmp_path: Path, devkit: Path) -> None:
    config = config_of(tmp_path)
    boxes = {"type": "transfer.data.voc.VOCDataset", "root": str(devkit), "splits": "test"}
    masks = {"type": "transfer.data.sample_dataset.SampleSegmentation", "split": "test"}
    assert has_classes(config)
    assert has_classes({**config, "task": "detection"})  # told by the data
    for node in (boxes, masks):
        assert not has_classes({"data": {"train": node, "val": 0.1, "test": node}})
    config = config_of(write_set(tmp_path))
    config["data"]["test"] = boxes
    with pytest.raises(UserError, match=r"data\.test is a VOCDataset, whose images have no class each"):
        check_classification(config, workers=1)


def test_a_row_for_each_class(tmp_path: Path) -> None:
    write_set(tmp_path)
    cut(tmp_path / "train/plum/0.png")
    shutil.rmtree(tmp_path / "test/pear")
    (tmp_path / "val/pear/1.png").unlink()
    report = check(tmp_path, class_names=[*NAMES, "quince"])
    rows = choose(report)
    drawn = [[(tile.image.name, tile.part) for tile in row if tile is not None] for row in rows]
    assert [len(row) for row in rows] == [6, 6, 6]
    # of 8 apples six, the first and the last among them; of plums the seven that can be decoded; five pears
    assert drawn[0] == [("apple", part) for part in ("train", "train", "train", "val", "val", "test")]
    assert drawn[1][0] == ("plum", "train")
    assert drawn[2] == [("pear", "train")] * 4 + [("pear", "val")]
    chosen = [tile.image.path for row in rows for tile in row if isinstance(tile, Tile)]
    assert len(set(chosen)) == len(chosen)
    assert not [path for path in chosen if path.endswith("train/plum/0.png")]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A config of classes, as the tool reads it."""
    write_set(tmp_path / "set")
    lines = ["task = 'classification'", f"data = {config_of(tmp_path / 'set')['data']!r}", "loader = dict()"]
    lines += [f"{name} = dict()" for name in ("model", "criterion", "postprocess", "augment", "optimizer", "schedule")]
    (tmp_path / "classes.py").write_text("\n".join([*lines, "training = dict(seed=0)", "metrics = []", ""]))
    return tmp_path / "classes.py"


def test_the_tool(config_file: Path, tmp_path: Path, run_tool: RunTool) -> None:
    arguments = (config_file, "--data", tmp_path / "set", "--output", tmp_path / "out")
    code, errors = run_tool("check_data", *arguments)
    assert code == 0, errors
    assert "checked 24 of 24 images" in errors
    assert sorted(os.listdir(tmp_path / "out")) == ["check_data.jpg", "findings.json"]
    content = json.loads((tmp_path / "out/findings.json").read_text())
    assert content["findings"] == []
    assert content["class_names"] == list(NAMES)
    assert content["statistics"]["test"]["images_per_class"] == dict.fromkeys(NAMES, 2)
    with Image.open(tmp_path / "out/check_data.jpg") as page:
        assert page.format == "JPEG"
        assert min(page.size) > 900


def test_exit_codes(config_file: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfer.checking.class_page.draw_class_page", lambda report, path: None)
    FAULTS["tiny image"].plant(tmp_path / "set")
    assert run_tool("check_data", config_file, "--output", tmp_path / "1")[0] == 0
    FAULTS["cut image"].plant(tmp_path / "set")
    assert run_tool("check_data", config_file, "--output", tmp_path / "2")[0] == 1
    for arguments, expected in (
        (["--fix", tmp_path / "fixed"], "--fix repairs boxes"),
        (["--data", tmp_path / "nowhere"], "no such folder"),
        (["--workers", "0"], "--workers is 0"),
    ):
        code, errors = run_tool("check_data", config_file, *arguments, "--output", tmp_path / "3")
        assert code == 2
        assert expected in errors
        assert "Traceback" not in errors
    assert not (tmp_path / "3").exists()


def test_a_page_of_faulty_data(tmp_path: Path) -> None:
    write_set(tmp_path / "set")
    for path in (tmp_path / "set").rglob("*.png"):
        path.write_bytes(b"<html>")
    draw_class_page(check(tmp_path / "set"), tmp_path / "nothing.png")
    assert sorted(os.listdir(tmp_path)) == ["nothing.png", "set"]


@pytest.mark.data
def test_real_images(shared_data: Path) -> None:
    config = config_of(shared_data / "imagenette160")
    config["data"] = {"train": config["data"]["train"], "val": None, "test": config["data"]["val"]}
    for name, node in config["data"].items():
        if node is not None:
            kind = "transfer.data.subset.ClassificationSubset"
            config["data"][name] = {"type": kind, "dataset": node, "every": 20}
    report = check_classification(config, workers=1)
    assert report.findings == []
    train, test = report.statistics
    assert (train.images, test.images, set(train.class_images.values())) == (100, 30, {10})
    paths = [Path(image.path) for part in report.parts for image in part.images]
    grey = sum(Image.open(path).mode == "L" for path in paths)
    assert train.grey + test.grey == grey
