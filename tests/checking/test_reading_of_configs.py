"""What is opened, and how: config mistakes, parts that fail alone, nested data sets, data sets of other kinds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_sets import TEST, TRAIN, config_of, write_image, write_voc

from transfer.checking.check import Report, check_detection
from transfer.data.table_builder import TableBuilder, recording
from transfer.data.voc import VOCDataset
from transfer.types import Record, Sample, UserError


def check(config: dict[str, Any]) -> Report:
    return check_detection(config, workers=2)


def codes(config: dict[str, Any]) -> list[tuple[str, str]]:
    return [(finding.code, finding.part) for finding in check(config).findings]


def test_mistakes_of_the_config_are_all_named(tmp_path: Path) -> None:
    config = config_of(write_voc(tmp_path))
    config["data"]["train"]["splitz"] = "train"
    config["data"]["test"]["class_names"] = "apple"
    config["data"]["val"] = 3
    with pytest.raises(UserError) as caught:
        check(config)
    message = str(caught.value)
    for expected in ("data.train: VOCDataset takes no 'splitz'", "data.test: class_names is the text", "data.val=3"):
        assert expected in message
    for broken in ({"train": config["data"]["train"]}, {**config["data"], "vall": None}):
        with pytest.raises(UserError, match="give train, test and val"):
            check({**config, "data": broken})
    with pytest.raises(UserError, match="--workers is 0"):
        check_detection(config, workers=0)


def test_a_wrong_folder_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        check(config_of(tmp_path / "absent"))
    assert str(caught.value) == f"root is {str(tmp_path / 'absent')!r}: no such folder"


def test_a_part_that_cannot_be_opened_does_not_hide_the_others(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    config = config_of(folder)
    config["data"]["val"]["splits"] = "vla"
    (folder / "JPEGImages" / f"{TRAIN[4]}.jpg").write_bytes(b"")
    assert codes(config) == [("data-set-unusable", "val"), ("image-unreadable", "train")]
    assert "Splits that exist: test, train, val" in check(config).findings[0].message


def test_an_empty_split_list_is_a_fault_of_the_data(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    (folder / "ImageSets/Main/val.txt").write_text("\n")
    (finding,) = check(config_of(folder)).findings
    assert (finding.code, finding.file) == ("list-unusable", str(folder / "ImageSets/Main/val.txt"))


def test_every_data_set_of_a_union_is_read(tmp_path: Path) -> None:
    first, second = write_voc(tmp_path / "a"), write_voc(tmp_path / "b")
    for stem in (*TRAIN, *TEST, "val_00", "val_01"):  # other pictures
        path = second / "JPEGImages" / f"{stem}.jpg"
        path.write_bytes((first / "JPEGImages" / f"{stem}.jpg").read_bytes()[:-40])
    (first / "JPEGImages" / f"{TRAIN[4]}.jpg").unlink()
    (second / "JPEGImages" / f"{TRAIN[5]}.jpg").unlink()
    config = config_of(first)
    config["data"]["train"] = {
        "type": "transfer.data.concat.UnionDataset",
        "datasets": [config["data"]["train"], {**config["data"]["train"], "root": str(second)}],
    }
    report = check(config)
    missing = [finding.file for finding in report.findings if finding.code == "image-missing"]
    assert missing == [str(first / "Annotations/train_04.xml"), str(second / "Annotations/train_05.xml")]
    assert sum(finding.code == "image-truncated" for finding in report.findings) == len(TRAIN) - 1
    assert report.parts[0].nodes == ["data.train.datasets.0", "data.train.datasets.1"]


def test_a_subset_is_checked_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    (folder / "JPEGImages" / f"{TRAIN[4]}.jpg").write_bytes(b"")
    config = config_of(folder)
    train = config["data"]["train"]
    for limit, expected in ((4, []), (5, [("image-unreadable", "train")])):
        config["data"]["train"] = {"type": "transfer.data.subset.SubsetDataset", "dataset": train, "limit": limit}
        report = check(config)
        assert [(finding.code, finding.part) for finding in report.findings] == expected
        assert report.statistics[0].images == limit


class OtherData:
    """A data set that knows nothing of builders."""

    class_names = ("apple", "pear")

    def __init__(self, folder: str, stems: str) -> None:
        self.paths = [f"{folder}/JPEGImages/{stem}.jpg" for stem in stems.split()]

    def __len__(self) -> int:
        return len(self.paths)

    def category_ids(self) -> list[int]:
        return [1, 2]

    def record(self, index: int) -> Record:
        boxes = np.array([[2, 2, 20, 20], [5, 5, 6, 30], [9, 9, 30, 30]], np.float32)
        flags = np.zeros(3, bool)
        labels, areas = np.array([0, 0, 1]), np.ones(3, np.float32)
        return Record(self.paths[index], index, (40, 50), boxes, labels, flags, flags, areas)

    def __getitem__(self, index: int) -> Sample:
        raise AssertionError("the check decodes by itself")


def test_a_data_set_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_voc(tmp_path)
    monkeypatch.setattr("transfer.data.voc.OtherData", OtherData, raising=False)
    kind = "transfer.data.voc.OtherData"
    config = config_of(folder)
    config["data"] = {
        "train": {"type": kind, "folder": str(folder), "stems": "train_00 train_01"},
        "val": None,
        "test": {"type": kind, "folder": str(folder), "stems": "test_00 train_01"},
    }
    report = check(config)
    assert [
        (each.code, Path(each.file).stem) for each in report.findings if each.code != "image-without-annotation"
    ] == [
        ("image-leak", "train_01"),
        ("box-tiny", "train_00"),
        ("box-tiny", "train_01"),
        ("box-tiny", "test_00"),
        ("box-tiny", "train_01"),
    ]
    assert sum(each.code == "image-without-annotation" for each in report.findings) == 36 - 3
    assert not report.can_be_fixed


def test_a_problem_without_a_code_is_still_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = TableBuilder.finish

    def with_a_line_more(self: TableBuilder) -> Any:
        self.problems.append("notes.txt: line 3 is odd")
        return finish(self)

    monkeypatch.setattr(TableBuilder, "finish", with_a_line_more)
    findings = check(config_of(write_voc(tmp_path))).findings
    assert [(each.code, each.part) for each in findings] == [
        ("entry-unusable", part) for part in ("train", "val", "test")
    ]
    assert "notes.txt: line 3 is odd" in findings[0].message


def test_data_sets_with_other_classes_than_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_voc(tmp_path)
    config = config_of(folder)
    test = {**config["data"]["test"], "class_names": ["pear", "apple"]}
    config["data"]["test"] = {"type": "transfer.data.concat.UnionDataset", "datasets": [test]}
    (finding,) = check(config).findings
    assert (finding.code, finding.severity, finding.part) == ("classes-differ", "error", "test")


def test_validation_that_is_held_out_is_counted_apart(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    config = config_of(folder)
    config["data"]["val"] = 0.25
    report = check(config)
    images = {each.name: (each.images, each.held_out) for each in report.statistics}
    assert images == {"train": (21, False), "val": (7, True), "test": (6, False)}
    config["data"]["val"] = 1.5
    with pytest.raises(UserError, match=r"fraction is 1\.5"):
        check(config)


def test_what_the_readers_say_is_not_said_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = write_voc(tmp_path)
    path = folder / "Annotations" / f"{TRAIN[3]}.xml"
    path.write_text(path.read_text().replace("<xmax>20<", "<xmax>3<"))
    assert codes(config_of(folder)) == [("box-without-area", "train")]
    assert "without area" not in caplog.text
    VOCDataset(folder, "train")
    assert "without area" in caplog.text


def test_recording_hands_out_builders_of_failed_data_sets(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    (folder / "JPEGImages" / f"{TRAIN[4]}.jpg").unlink()
    with recording() as builders, pytest.raises(UserError):
        VOCDataset(folder, "train")
    (builder,) = builders
    assert [(fault.code, Path(fault.file).stem) for fault in builder.faults] == [("image-missing", TRAIN[4])]
    assert len(builder.paths) == len(TRAIN) - 1
    assert builder.stated_sizes == builder.sizes
    VOCDataset(folder, "val")
    assert len(builders) == 1


def test_a_yolo_set(tmp_path: Path) -> None:
    """A format that fills a builder, but that the repair does not know."""
    lines = {
        "a": "0 0.5 0.5 0.4 0.4\n",
        "b": "0 0.5 0.5 0.4 0.4\n0 0.9 0.5 0.4 0.4\n",
        "c": "1 0.5 0.5 0 0.4\n",
        "d": "",
    }
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for stem, text in lines.items():
            name = f"{split}_{stem}"
            write_image(tmp_path / f"images/{split}/{name}.jpg")
            (tmp_path / f"labels/{split}/{name}.txt").write_text(text + "1 0.2 0.2 0.3 0.3\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [apple, pear]\n")
    (tmp_path / "labels/train/train_a.txt").write_text("0 0.5 0.5\n7 0.5 0.5 0.1 0.1\n")
    (tmp_path / "images/val/val_d.jpg").write_bytes(b"")
    kind = "transfer.data.yolo.YOLODataset"
    nodes = {
        name: {"type": kind, "root": str(tmp_path), "splits": part}
        for name, part in (("train", "train"), ("test", "val"))
    }
    report = check({**config_of(tmp_path), "data": {**nodes, "val": None}})
    found = {(each.code, each.part, Path(each.file).name.partition(":")[0]) for each in report.findings}
    assert found == {
        ("object-faulty", "train", "train_a.txt"),
        ("image-unreadable", "test", "val_d.jpg"),
        ("box-without-area", "train", "train_c.txt"),
        ("box-without-area", "test", "val_c.txt"),
        ("box-partly-outside", "train", "train_b.txt"),
        ("box-partly-outside", "test", "val_b.txt"),
    }
    assert not report.can_be_fixed


def test_every_faulty_object_of_a_file_is_named(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    path = folder / "Annotations" / f"{TRAIN[0]}.xml"
    text = path.read_text().replace("<name>apple<", "<name><", 1).replace("<ymax>38<", "<ymax>nan<")
    path.write_text(text)
    (finding,) = check(config_of(folder)).findings
    assert finding.message == "object 1 has no <name>; object 3 ('pear'): <ymax> is 'nan', not a finite number"
