"""Every kind of fault, planted into sound data: found under its code, with its file; gone when it is mended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_sets import (
    TRAIN,
    VOC_FAULTS,
    Fault,
    coco_config,
    config_of,
    write_coco,
    write_image,
    write_voc,
    xml_of,
)
from PIL import Image

from transfer.checking.check import Report, check_detection
from transfer.checking.findings import CODES, Finding


def check(config: dict[str, Any]) -> Report:
    return check_detection(config, workers=2)


def fits(finding: Finding, fault: Fault, folder: Path) -> bool:
    return (
        (finding.code, finding.severity, finding.part) == (fault.code, fault.severity, fault.parts)
        and finding.file.endswith(fault.file)
        and bool(finding.file) == bool(fault.file)
        and fault.message.replace("{}", str(folder)) in finding.message
        and bool(finding.remedy)
    )


def test_sound_data_gives_no_finding(tmp_path: Path) -> None:
    report = check(config_of(write_voc(tmp_path / "voc")))
    assert report.findings == []
    assert not report.is_wrong
    report = check(coco_config(write_coco(tmp_path / "coco")))
    assert report.findings == []


@pytest.mark.parametrize("what", VOC_FAULTS)
def test_one_fault_is_one_finding(tmp_path: Path, what: str) -> None:
    folder, fault = write_voc(tmp_path / "voc"), VOC_FAULTS[what]
    fault.plant(folder)
    report = check(config_of(folder))
    assert len(report.findings) == 1, report.findings
    assert fits(report.findings[0], fault, folder), report.findings[0]
    assert report.is_wrong == (fault.severity == "error")


def test_all_faults_at_once_and_each_goes_alone(tmp_path: Path) -> None:
    def findings(name: str, without: str | None) -> list[Finding]:
        folder = write_voc(tmp_path / name)
        for what, fault in VOC_FAULTS.items():
            if what != without:
                fault.plant(folder)
        return check(config_of(folder)).findings

    everything = findings("all", None)
    assert len(everything) == len(VOC_FAULTS) >= 12
    for what, fault in VOC_FAULTS.items():
        assert sum(fits(finding, fault, tmp_path / "all") for finding in everything) == 1, what
    for what in ("cut image", "in train and test", "no area", "size of 0x0", "slip in a name", "image without XML"):
        rest = findings(what, what)
        gone = [finding for finding in everything if fits(finding, VOC_FAULTS[what], tmp_path / "all")]
        plain = lambda each, name: (each.code, each.file.replace(str(tmp_path / name), ""))  # noqa: E731
        assert sorted(plain(each, what) for each in rest) == sorted(
            plain(each, "all") for each in everything if each not in gone
        )


def test_errors_come_first(tmp_path: Path) -> None:
    folder = write_voc(tmp_path / "voc")
    for fault in VOC_FAULTS.values():
        fault.plant(folder)
    severities = [finding.severity for finding in check(config_of(folder)).findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_swapped_sides(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    path = folder / "Annotations" / f"{TRAIN[5]}.xml"
    text = path.read_text().replace("<xmax>45<", "<xmax>39<")  # within 40 x 50, so only decoding tells
    path.write_text(text.replace("<width>50<", "<width>40<").replace("<height>40<", "<height>50<"))
    (finding,) = check(config_of(folder)).findings
    assert (finding.code, finding.severity) == ("size-swapped", "error")
    assert "states 40x50, the image is 50x40: training stops there" in finding.message


def test_a_size_that_the_boxes_contradict_does_not_stop_training(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    path = folder / "Annotations" / f"{TRAIN[5]}.xml"
    path.write_text(path.read_text().replace("<width>50<", "<width>30<"))
    (finding,) = check(config_of(folder)).findings
    assert (finding.code, finding.severity) == ("size-differs", "warning")


def test_what_training_is_told_to_skip_is_a_warning(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    for what in ("missing image", "cut image", "another size", "broken XML"):
        VOC_FAULTS[what].plant(folder)
    config = config_of(folder, on_broken="skip")
    by_code = {finding.code: finding.severity for finding in check(config).findings}
    assert by_code == {
        "image-missing": "warning",
        "xml-unreadable": "warning",
        "image-truncated": "error",  # loader.on_broken decides, and in testing nothing is skipped
        "size-differs": "error",
    }
    config["loader"]["on_broken"] = "skip"
    assert {finding.severity for finding in check(config).findings} == {"warning"}
    config["data"]["val"], config["data"]["train"]["splits"] = None, "val"
    config["data"]["test"]["splits"] = "train"
    found = [finding for finding in check(config).findings if finding.code == "image-truncated"]
    assert [finding.severity for finding in found] == ["error"]


def test_the_same_image_in_two_lists_is_a_leak(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    with open(folder / "ImageSets/Main/train.txt", "a") as file:
        file.write("test_01\nval_00\n")
    findings = check(config_of(folder)).findings
    assert [(finding.code, finding.part) for finding in findings] == [
        ("image-leak", "train, test"),
        ("image-leak", "train, val"),
    ]
    assert all("the same file" in finding.message for finding in findings)


def test_a_rotation_is_clear_where_the_size_tells_or_nothing_is_drawn(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 8
    for number in (5, 6, 7):  # 40 x 50 as displayed
        write_image(folder / "JPEGImages" / f"{TRAIN[number]}.jpg", exif=exif)
    annotations = folder / "Annotations"
    inside = [("apple", (3.0, 3.0, 20.0, 20.0))]
    (annotations / f"{TRAIN[5]}.xml").write_text(xml_of(TRAIN[5], inside, size=(50, 40)))
    (annotations / f"{TRAIN[6]}.xml").write_text(xml_of(TRAIN[6], inside, size=(0, 0)))
    (annotations / f"{TRAIN[7]}.xml").write_text(xml_of(TRAIN[7], [], size=(0, 0)))
    found = [(finding.code, Path(finding.file).stem) for finding in check(config_of(folder)).findings]
    assert found == [
        ("size-unknown", TRAIN[6]),
        ("size-unknown", TRAIN[7]),
        ("rotation-unclear", TRAIN[6]),
    ]


def test_two_annotations_of_one_image(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    (folder / "JPEGImages" / f"{TRAIN[8]}.jpg").unlink()
    path = folder / "Annotations" / f"{TRAIN[8]}.xml"
    path.write_text(path.read_text().replace(f"{TRAIN[8]}.jpg", f"{TRAIN[7]}.jpg"))
    (finding,) = check(config_of(folder)).findings
    assert finding.code == "image-duplicate"
    assert "the same file" in finding.message
    assert (Path(finding.file).name, Path(finding.other_file or "").name) == (f"{TRAIN[8]}.xml", f"{TRAIN[7]}.jpg")


def drop_box(number: int) -> Callable[..., None]:
    return lambda train, test, images: train["annotations"][number].update(bbox=[1, 2, 3])


COCO_FAULTS: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any], Path], Any], str, str, str, str]] = {
    "three numbers": (drop_box(0), "json-entry-faulty", "error", "train.json", "annotations[0]: bbox [1, 2, 3]"),
    "no such category": (
        lambda train, test, images: train["annotations"][3].update(category_id=77),
        "json-entry-faulty", "error", "train.json", "category_id 77",
    ),
    "no such image": (
        lambda train, test, images: train["annotations"].append(
            {"id": 999, "image_id": 55, "category_id": 5, "bbox": [1, 1, 5, 5]}
        ),
        "annotation-without-image", "error", "train.json", "image_id 55 is not among the images",
    ),
    "image not there": (
        lambda train, test, images: (images / "train/7.jpg").unlink(),
        "image-missing", "error", "train.json", "images[7]: 'train/7.jpg' is not in",
    ),
    "cut image": (
        lambda train, test, images: (images / "train/6.jpg").write_bytes((images / "train/6.jpg").read_bytes()[:-300]),
        "image-truncated", "error", "train/6.jpg", "cannot be decoded",
    ),
    "stray image": (
        lambda train, test, images: write_image(images / "test/stray é.png"),
        "image-without-annotation", "warning", "test/stray é.png", "not in test.json, train.json",
    ),
    "no area": (
        lambda train, test, images: train["annotations"][9].update(bbox=[3, 4, 0, 9]),
        "box-without-area", "warning", "train/3.jpg",
        "train.json, image 13: box 2 ('apple') has no area: bbox [3, 4, 0, 9]",
    ),
    "outside": (
        lambda train, test, images: train["annotations"][9].update(bbox=[50, 4, 9, 9]),
        "box-outside", "warning", "train/3.jpg", "bbox [50, 4, 9, 9]",
    ),
    "twice": (
        lambda train, test, images: train["annotations"][9].update(bbox=[2, 2, 18, 18]),
        "box-duplicate", "warning", "train/3.jpg", "box 2",
    ),
    "0 x 0": (
        lambda train, test, images: train["images"][4].update(width=0, height=0),
        "size-unknown", "warning", "train/4.jpg", "train.json, image 14: states no size or 0x0; the image is 50x40",
    ),
    "another size": (
        lambda train, test, images: train["images"][4].update(width=100, height=80),
        "size-differs", "error", "train/4.jpg", "states 100x80",
    ),
    "leak": (
        lambda train, test, images: (images / "train/5.jpg").write_bytes((images / "test/3.jpg").read_bytes()),
        "image-leak", "error", "train/5.jpg", "images/test/3.jpg",
    ),
    "unknown class": (
        lambda train, test, images: test["categories"][1].update(name="peer"),
        "class-unknown", "error", "test/0.jpg", "'peer' does not occur in train: 2 boxes in 2 images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", COCO_FAULTS)
def test_one_fault_of_a_coco_set(tmp_path: Path, what: str) -> None:
    change, code, severity, file, message = COCO_FAULTS[what]
    findings = check(coco_config(write_coco(tmp_path, change))).findings
    if what == "unknown class":  # then pears are missing in test, too
        assert findings.pop().code == "class-without-boxes"
    (finding,) = findings
    assert (finding.code, finding.severity) == (code, severity)
    assert finding.file.endswith(file)
    assert message in finding.message


def test_a_json_file_that_does_not_parse_does_not_hide_the_rest(tmp_path: Path) -> None:
    folder = write_coco(tmp_path, lambda train, test, images: test["annotations"][0].update(bbox=[2, 2, 0, 0]))
    text = (folder / "train.json").read_text()
    (folder / "train.json").write_text(text[:-20])
    findings = check(coco_config(folder)).findings
    by_code = {finding.code: finding for finding in findings}
    assert by_code["json-unreadable"].file == str(folder / "train.json")
    assert by_code["json-unreadable"].severity == "error"
    assert "is not JSON" in by_code["json-unreadable"].message
    assert by_code["box-without-area"].file.endswith("test/0.jpg")
    (folder / "train.json").write_text(json.dumps({"images": []}))
    assert {finding.code for finding in check(coco_config(folder)).findings} >= {"json-unreadable"}


def test_every_code_is_planted_somewhere() -> None:
    planted = {fault.code for fault in VOC_FAULTS.values()} | {fault[1] for fault in COCO_FAULTS.values()}
    elsewhere = {
        "size-swapped",  # the rest is in this file, test_class_names_of_splits.py and test_reading_of_configs.py
        "json-unreadable",
        "list-unusable",
        "data-set-unusable",
        "classes-differ",
        "no-boxes",
        "rename-unused",
        "entry-unusable",
    }
    of_masks = {  # test_checking_of_masks.py
        "mask-missing",
        "mask-unreadable",
        "mask-value-unknown",
        "mask-size-differs",
        "mask-empty",
        "no-labelled-pixels",
        "class-without-pixels",
    }
    of_classes = {  # test_checking_of_classes.py
        "list-line-faulty",
        "folder-unreadable",
        "class-empty",
        "class-missing",
        "image-in-two-classes",
        "class-without-images",
        "class-imbalance",
        "image-tiny",
        "image-huge",
        "image-cmyk",
    }
    assert planted | elsewhere | of_masks | of_classes == set(CODES)
