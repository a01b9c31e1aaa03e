"""Class names that do not fit: between the config and the data, between train and test, and probable slips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faulty_sets import TEST, TRAIN, config_of, write_voc, xml_of

from transfer.checking.check import check_detection
from transfer.checking.findings import Finding
from transfer.checking.names import _exchanged


def rename_in(folder: Path, stem: str, old: str, new: str, count: int = -1) -> None:
    path = folder / "Annotations" / f"{stem}.xml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(f"<name>{old}<", f"<name>{new}<", count))


def findings_of(folder: Path, **changes: Any) -> list[Finding]:
    return check_detection(config_of(folder, **changes), workers=2).findings


def test_a_name_that_the_config_does_not_know(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    rename_in(folder, TRAIN[5], "apple", "appel")
    rename_in(folder, TRAIN[6], "apple", "zebra", 1)
    findings = findings_of(folder, class_names=["apple", "pear"])
    assert [(each.code, each.severity, Path(each.file).stem) for each in findings] == [
        ("class-unknown", "error", TRAIN[5]),
        ("class-unknown", "error", TRAIN[6]),
    ]
    assert "'appel' is not in class_names: 2 boxes in 1 image; nearest: 'apple'" in findings[0].message
    assert "rename={'appel': 'apple'}" in findings[0].remedy
    assert "rename={'zebra': None}" in findings[1].remedy
    assert findings_of(folder, class_names=["apple", "pear"], rename={"appel": "apple", "zebra": None}) == []


def test_names_of_the_config_are_not_suspected(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    for stem in (TRAIN[5], TEST[4], "val_01"):
        rename_in(folder, stem, "apple", "Appel", 1)
    assert [each.code for each in findings_of(folder)] == ["class-misspelt"]
    assert findings_of(folder, class_names=["Appel", "apple", "pear"]) == []


@pytest.mark.parametrize(("name", "suspected"), [("appel", True), ("apples", True), ("grape", False), ("mango", False)])
def test_likeness(tmp_path: Path, name: str, suspected: bool) -> None:
    folder = write_voc(tmp_path)
    for stem in (TRAIN[5], TEST[4], "val_01"):
        rename_in(folder, stem, "apple", name, 1)
    assert [each.code for each in findings_of(folder)] == (["class-misspelt"] if suspected else [])


@pytest.mark.parametrize(
    ("name", "suspected"), [("WCB", True), ("BWC", True), ("wcb", True), ("CWB", False), ("RBC", False)]
)
def test_exchanged_letters_of_a_short_name(tmp_path: Path, name: str, suspected: bool) -> None:
    folder = write_voc(tmp_path)
    for stem in [path.stem for path in (folder / "Annotations").glob("*.xml")]:
        rename_in(folder, stem, "apple", "WBC", 1)
    for stem in (TRAIN[5], TEST[4], "val_01"):
        rename_in(folder, stem, "WBC", name, 1)
    assert [each.code for each in findings_of(folder)] == (["class-misspelt"] if suspected else [])


def test_names_of_two_letters_are_too_short_to_tell() -> None:
    assert _exchanged("abc", "acb")
    assert not _exchanged("ab", "ba")


def test_a_frequent_name_is_no_slip(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    for stem in (*TRAIN[:20:2], TEST[4], "val_01"):
        rename_in(folder, stem, "apple", "apples", 1)  # 12 of 72
    assert findings_of(folder) == []


def test_case_and_white_space_are_suspected_at_any_frequency(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    for stem in (*TRAIN[:20:2], TEST[4], "val_01"):
        rename_in(folder, stem, "apple", " APPLE", 1)
    (finding,) = findings_of(folder)
    assert (finding.code, finding.part, finding.fixable) == ("class-misspelt", "train, val, test", True)
    assert (
        "'APPLE' (train: 10 boxes in 10 images, first in train_00.xml, train_02.xml, train_04.xml;" in finding.message
    )
    assert "beside 'apple' (60 boxes)" in finding.message


def test_of_two_equally_frequent_variants_none_is_certain(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    for number, stem in enumerate((*TRAIN, "val_00", "val_01", *TEST)):
        objects = [("apple" if number % 2 else "Apple", (3, 3, 20, 20)), ("pear", (5, 25, 20, 35))]
        (folder / "Annotations" / f"{stem}.xml").write_text(xml_of(stem, objects))
    (finding,) = findings_of(folder)
    assert (finding.code, finding.fixable) == ("class-misspelt", False)


def test_a_case_difference_to_a_class_of_the_config_is_certain(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    rename_in(folder, TRAIN[5], "apple", "Apple")
    (finding,) = findings_of(folder, class_names=["apple", "pear"])
    assert (finding.code, finding.fixable) == ("class-unknown", True)
    # with both variants in the config it is a class of its own, without boxes elsewhere
    codes = {each.code for each in findings_of(folder, class_names=["Apple", "apple", "pear"])}
    assert codes == {"class-without-boxes"}


def test_a_class_that_train_lacks(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    findings = findings_of(folder, class_names=["apple", "pear", "quince"])
    assert [(each.code, each.severity, each.part) for each in findings] == [
        ("class-without-boxes", "warning", "train"),
        ("class-without-boxes", "warning", "test"),
        ("class-without-boxes", "note", "val"),
    ]
    assert "'quince': it cannot be learned" in findings[0].message


def test_a_split_without_any_box(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    for stem in TEST:
        (folder / "Annotations" / f"{stem}.xml").write_text(xml_of(stem, []))
    (finding,) = findings_of(folder)
    assert (finding.code, finding.severity, finding.part) == ("no-boxes", "error", "test")


def test_a_rename_that_does_nothing(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    rename_in(folder, TRAIN[5], "apple", "Apfel")
    (finding,) = findings_of(folder, rename={"Apfel": "apple", "aple": "apple"})  # Apfel is in train only
    assert (finding.code, finding.part) == ("rename-unused", "train, val, test")
    assert "'aple', not in the data; nearest: 'apple'" in finding.message
