"""The check of data with masks: every fault planted alone is found, and nothing else; the counts; the tool."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_masks import FAULTS, MASK, NAMES, all_ignored, config_of, cut, pixels_of, turned, write_set
from hand_made_png import write_png
from PIL import Image

from transfer.build import load_config
from transfer.checking.findings import Finding
from transfer.checking.mask_check import MaskReport, check_segmentation
from transfer.checking.mask_page import draw_mask_page, under_mask
from transfer.checking.mask_reading import has_masks
from transfer.checking.mask_report import masks_as_text
from transfer.data.subset import split_validation
from transfer.types import UserError

RunTool = Callable[..., tuple[int, str]]


def check(root: Path, **changes: Any) -> MaskReport:
    return check_segmentation(config_of(root, **changes), workers=1)


def as_told(finding: Finding) -> tuple[str, str, str]:
    return finding.code, finding.severity, finding.part


def test_a_sound_set_has_no_findings(tmp_path: Path) -> None:
    report = check(write_set(tmp_path))
    assert report.findings == []
    assert report.class_names == ("sky", "road", "car")
    assert not report.is_wrong


@pytest.mark.parametrize("what", FAULTS)
def test_each_fault_alone(tmp_path: Path, what: str) -> None:
    fault = FAULTS[what]
    fault.plant(write_set(tmp_path))
    report = check(tmp_path)
    assert [as_told(finding) for finding in report.findings] == [(fault.code, fault.severity, fault.part)]
    (finding,) = report.findings
    assert finding.file.endswith(fault.file)
    assert bool(finding.file) == bool(fault.file)
    assert fault.message in finding.message
    assert finding.remedy
    assert not finding.fixable
    assert report.is_wrong == (fault.severity == "error")


def test_a_photograph_turned_with_its_mask_is_sound(tmp_path: Path) -> None:
    turned(6, mask=np.rot90(MASK, -1))(write_set(tmp_path))
    assert check(tmp_path).findings == []


def test_all_faults_at_once(tmp_path: Path) -> None:
    write_set(tmp_path)
    chosen = ("no mask", "no image", "cut mask", "cut image", "stray values", "other size", "all ignored")
    for what in chosen:
        FAULTS[what].plant(tmp_path)
    report = check(tmp_path)
    assert {as_told(finding) for finding in report.findings} == {
        (FAULTS[what].code, FAULTS[what].severity, FAULTS[what].part) for what in chosen
    }
    assert len(report.findings) == len(chosen)
    assert [finding.severity for finding in report.findings] == ["error"] * 6 + ["warning"]


def test_training_that_skips_is_only_warned(tmp_path: Path) -> None:
    write_set(tmp_path)
    for what in ("cut image", "stray values", "other size", "no mask"):
        FAULTS[what].plant(tmp_path)
    config = config_of(tmp_path, on_broken="skip")
    config["loader"]["on_broken"] = "skip"
    found = {finding.code: finding.severity for finding in check_segmentation(config, workers=1).findings}
    assert found == {
        "image-truncated": "warning",
        "mask-value-unknown": "warning",
        "mask-missing": "warning",
        "mask-size-differs": "error",  # it is in test: what is measured stops at it
    }


def test_a_split_without_any_class(tmp_path: Path) -> None:
    all_ignored("test")(write_set(tmp_path))
    found = [as_told(finding) for finding in check(tmp_path).findings]
    assert found == [("no-labelled-pixels", "error", "test"), ("mask-empty", "warning", "test")]


def test_the_counts(tmp_path: Path) -> None:
    """By hand: a mask has 12 ignored, 36 sky, 36 road and 12 car pixels."""
    write_set(tmp_path)
    FAULTS["stray values"].plant(tmp_path)  # 12 car pixels are 7, one of sky is 200
    write_png(tmp_path / "trainannot/4.png", np.full((8, 12), 255))
    cut(tmp_path / "trainannot/5.png")
    report = check(tmp_path)
    train, _, test = report.statistics
    assert (train.images, train.masks, train.empty) == (6, 5, 1)
    assert dict(train.class_pixels) == {"sky": 3 * 36 + 35, "road": 4 * 36, "car": 3 * 12}
    assert dict(train.class_images) == {"sky": 4, "road": 4, "car": 3}
    assert (train.pixels, train.ignored) == (143 + 144 + 36, 4 * 12 + 96)
    assert dict(train.unknown_pixels) == {7: 12, 200: 1}
    assert test.pixel_share("car") == pytest.approx(12 / 84)
    assert test.ignored_share == pytest.approx(12 / 96)
    assert train.image_share("car") == pytest.approx(3 / 5)
    content = train.as_json()
    assert content["values_without_class"] == {"7": {"pixels": 12, "images": 1}, "200": {"pixels": 1, "images": 1}}
    assert content["commonest_sizes"] == [{"width": 12, "height": 8, "masks": 5}]
    text = masks_as_text(report)
    assert "42.9%" in text  # of the test set's labelled pixels are sky
    rows = [line.split() for line in text.splitlines()]
    assert ["7", "12", "1"] in rows
    assert ["200", "1", "1"] in rows


def test_the_commonest_mistake_the_ignored_value_not_told(tmp_path: Path) -> None:
    """Every mask has the value: the text says it once, with its count over all."""
    report = check(write_set(tmp_path), ignore=[254])
    assert [finding.code for finding in report.findings] == ["mask-value-unknown"] * 11
    lines = masks_as_text(report).splitlines()
    assert ["255", "132", "11"] in [line.split() for line in lines]
    assert "  and 8 more, see findings.json" in lines


def test_held_out_as_training_holds_out(tmp_path: Path) -> None:
    write_set(tmp_path)
    for number in range(6):
        if number % 2:
            write_png(tmp_path / f"trainannot/{number}.png", np.where(MASK == 2, 1, MASK))
    config = config_of(tmp_path)
    config["data"]["val"] = 0.34
    report = check_segmentation(config, workers=1)
    train, val, _ = report.statistics
    assert (train.images, val.images, val.held_out) == (4, 2, True)
    dataset = report.parts[0].dataset
    assert dataset is not None
    _, expected = split_validation(dataset, 0.34, 0)
    assert report.parts[0].held_out == {expected.record(index).path for index in range(2)}
    assert "val is drawn from train" in masks_as_text(report)


def test_classes_that_differ_between_splits(tmp_path: Path) -> None:
    config = config_of(write_set(tmp_path))
    config["data"]["test"]["classes"] = ["sky", "Road", "car"]
    shutil.copy(tmp_path / "train/0.png", tmp_path / "test/0.png")  # the images are looked at all the same
    report = check_segmentation(config, workers=1)
    found = {finding.code: finding for finding in report.findings}
    assert set(found) >= {"classes-differ", "image-leak"}
    assert found["classes-differ"].part == "test"
    assert "class 'Road' (nearest: 'road')" in found["classes-differ"].message
    config["data"]["test"]["classes"] = ["car", "sky", "road"]  # other values for the same names
    assert "classes-differ" not in {finding.code for finding in check_segmentation(config, workers=1).findings}
    devkit_names = {"type": "transfer.data.sample_dataset.SampleSegmentation", "split": "test"}
    assert has_masks({"data": {"train": devkit_names, "val": None, "test": devkit_names}})


def test_nested_data_sets(tmp_path: Path) -> None:
    """A subset of a union, one of whose sets has a fault."""
    write_set(tmp_path)
    FAULTS["no mask"].plant(tmp_path)
    config = config_of(tmp_path)
    nodes = config["data"]
    union = {"type": "transfer.data.concat.SegmentationUnion", "datasets": [nodes["train"], nodes["val"]]}
    nodes["train"] = {"type": "transfer.data.subset.SegmentationSubset", "dataset": union, "limit": 6}
    nodes["val"] = None
    report = check_segmentation(config, workers=1)
    assert [as_told(finding) for finding in report.findings] == [("mask-missing", "error", "train")]
    assert [each.images for each in report.statistics] == [6, 3]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"classes": None}, "give classes="),
        ({"colors": {}}, "takes no 'colors', did you mean 'colours'"),
        ({"images": "nothing"}, "images is .*nothing': no such folder"),
        ({"class_names": "sky"}, "class_names is the text"),
        ({"rename": {"skye": None}}, r"no class 'skye' \(nearest: 'sky'\)"),
    ],
)
def test_mistakes_of_the_config(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        check(write_set(tmp_path), **change)


def test_one_part_that_cannot_be_opened(tmp_path: Path) -> None:
    config = config_of(write_set(tmp_path))
    config["data"]["val"]["list_file"] = "no.txt"
    config["data"]["test"]["masks"] = "nothing"
    found = {finding.code: finding for finding in check_segmentation(config, workers=1).findings}
    assert set(found) == {"list-unusable", "data-set-unusable"}
    assert (found["list-unusable"].part, found["data-set-unusable"].part) == ("val", "test")
    assert "nothing': no such folder" in found["data-set-unusable"].message


def test_boxes_where_masks_are_needed(tmp_path: Path, devkit: Path) -> None:
    config = config_of(write_set(tmp_path))
    config["data"]["test"] = {"type": "transfer.data.voc.VOCDataset", "root": str(devkit), "splits": "test"}
    with pytest.raises(UserError, match=r"data\.test is a VOCDataset without masks"):
        check_segmentation(config, workers=1)


def test_polygons_of_coco(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.fromarray(pixels_of(str(number))).save(tmp_path / f"images/{number}.png")
    images = [{"id": n, "file_name": f"{n}.png", "height": 8, "width": 12} for n in range(3)]
    images[1]["width"] = 13
    square = [[0, 0, 6, 0, 6, 4, 0, 4]]
    entries = [{"id": n + 1, "image_id": n, "category_id": 1, "segmentation": square} for n in range(3)]
    entries[2]["segmentation"] = [[1, 2, 3, 4, 5]]
    content = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    kind = "transfer.data.coco_segmentation.COCOSegmentation"
    node = {"type": kind, "annotations": str(tmp_path / "coco.json"), "images": str(tmp_path / "images")}
    config = {"data": {"train": node, "val": None, "test": node}, "loader": {}, "training": {}}
    report = check_segmentation(config, workers=1)
    found = {(finding.code, finding.part, Path(finding.file).name) for finding in report.findings}
    assert {
        ("json-entry-faulty", "train", "coco.json"), ("mask-size-differs", "train", "1.png"),
        ("image-leak", "train, test", "0.png"),
    } <= found  # fmt: skip
    assert report.statistics[0].class_pixels["cat"] == 2 * 24


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A config of masks, as the tool reads it."""
    write_set(tmp_path / "set")
    lines = [f"data = {config_of(tmp_path / 'set')['data']!r}", "loader = dict()", "training = dict(seed=0)"]
    lines += [f"{name} = dict()" for name in ("model", "criterion", "postprocess", "augment", "optimizer", "schedule")]
    (tmp_path / "masks.py").write_text("\n".join([*lines, "metrics = []", ""]))
    return tmp_path / "masks.py"


def test_the_tool(config_file: Path, tmp_path: Path, run_tool: RunTool) -> None:
    arguments = (config_file, "--data", tmp_path / "set")
    code, errors = run_tool("check_data", *arguments, "--output", tmp_path / "out")
    assert code == 0, errors
    assert "checked 11 of 11 masks" in errors
    assert sorted(os.listdir(tmp_path / "out")) == ["check_data.jpg", "findings.json"]
    content = json.loads((tmp_path / "out/findings.json").read_text())
    assert content["findings"] == []
    assert content["class_names"] == NAMES
    assert content["statistics"]["test"]["pixels_per_class"] == {"sky": 108, "road": 108, "car": 36}
    with Image.open(tmp_path / "out/check_data.jpg") as page:
        assert page.format == "JPEG"
        assert min(page.size) > 900


def test_exit_codes(config_file: Path, tmp_path: Path, run_tool: RunTool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfer.checking.mask_page.draw_mask_page", lambda report, path: None)
    FAULTS["all ignored"].plant(tmp_path / "set")
    assert run_tool("check_data", config_file, "--output", tmp_path / "1")[0] == 0
    FAULTS["other size"].plant(tmp_path / "set")
    assert run_tool("check_data", config_file, "--output", tmp_path / "2")[0] == 1
    for arguments, expected in (
        (["--fix", tmp_path / "fixed"], "--fix repairs boxes, not masks"),
        (["--data", tmp_path / "nowhere"], "no such folder"),
        (["--workers", "0"], "--workers is 0"),
        (["--cfg-options", "data.train.ignroe=1"], "no key 'ignroe', did you mean 'ignore'"),
    ):
        code, errors = run_tool("check_data", config_file, *arguments, "--output", tmp_path / "3")
        assert code == 2
        assert expected in errors
        assert "Traceback" not in errors
    assert not (tmp_path / "3").exists()
    assert not (tmp_path / "fixed").exists()


def test_a_page_of_faulty_data(tmp_path: Path) -> None:
    write_set(tmp_path / "set")
    for what in ("no mask", "cut mask", "cut image", "stray values", "other size", "all ignored"):
        FAULTS[what].plant(tmp_path / "set")
    draw_mask_page(check(tmp_path / "set"), tmp_path / "page.png")
    all_ignored("train")(tmp_path / "set")
    for split in ("val", "test"):
        all_ignored(split)(tmp_path / "set")
    draw_mask_page(check(tmp_path / "set"), tmp_path / "nothing.png")
    assert sorted(os.listdir(tmp_path)) == ["nothing.png", "page.png", "set"]


def test_a_photograph_under_its_mask() -> None:
    """By hand; class 0's colour is (255, 38, 38). 0.6 of it on its own tile, 0.3 on another's; ignored pixels as is."""
    image = np.full((40, 40, 3), 100, np.uint8)
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20:], mask[30:] = 1, 255
    drawn = under_mask(image, mask, 0)
    assert drawn[5, 5].tolist() == [int(0.4 * 100 + 0.6 * 255), int(40 + 0.6 * 38), int(40 + 0.6 * 38)]
    assert drawn[35, 5].tolist() == [100, 100, 100]
    assert drawn[5, 20].tolist() == [255, 255, 255]  # the edge lies around the class, not on it
    assert drawn[5, 19].tolist() == drawn[5, 5].tolist()
    assert under_mask(image, mask, 1)[5, 5].tolist() == [int(70 + 0.3 * 255), int(70 + 0.3 * 38), int(70 + 0.3 * 38)]


@pytest.mark.data
def test_real_sets(shared_data: Path, repository: Path) -> None:
    config = load_config(repository / "configs/camvid_fcn_lite0.py", [])
    for name, node in config["data"].items():
        node["root"] = str(shared_data / "camvid")
        config["data"][name] = {"type": "transfer.data.subset.SegmentationSubset", "dataset": node, "every": 40}
    assert has_masks(config)
    report = check_segmentation(config, workers=1)
    assert report.findings == []
    assert [each.images for each in report.statistics] == [10, 3, 6]
    ade = {"type": "transfer.data.ade20k.ADE20KDataset", "root": str(shared_data / "ade_mini")}
    parts = {"train": ade, "val": None, "test": {**ade, "split": "validation"}}
    report = check_segmentation({"data": parts, "loader": {}, "training": {}}, workers=1)
    assert {finding.code for finding in report.findings} == {"class-without-pixels"}
    assert report.statistics[0].class_images["sky"] == 2
