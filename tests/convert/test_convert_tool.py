"""The command: what it prints, its exit codes, and real data through all formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from small_sets import truth_of, write_voc, xml

from transfer.convert import convert as module
from transfer.convert.convert import convert
from transfer.data.coco import COCODataset
from transfer.data.voc import VOCDataset, XMLFolderDataset
from transfer.data.yolo import YOLODataset

Tool = Callable[..., tuple[int, str]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    texts = {stem: xml([("dog", (2, 3, 20, 30))]) for stem in "abcd"}
    return write_voc(tmp_path / "source", {"train": ["a", "b"], "val": ["c"], "test": ["d"]}, texts)


def test_the_command(run_tool: Tool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    monkeypatch.setattr("builtins.print", lambda *parts, **_: printed.extend(map(str, parts)))
    code, errors = run_tool("convert_data", source, "--to", "yolo", "--output", tmp_path / "out")
    assert (code, errors) == (0, "")
    (text,) = printed
    for part in (
        f"source: {source} is VOC, by ImageSets/Main",
        "read: 4 images, 4 boxes, 1 classes",
        "nothing is lost",
        f"tools/train_det.py configs/yolo_folder_frcnn_lite0.py --data {tmp_path / 'out'}",
    ):
        assert part in text
    assert (tmp_path / "out/conversion.txt").read_text() == text + "\n"


def test_all_its_arguments(run_tool: Tool, source: Path, tmp_path: Path) -> None:
    code, errors = run_tool(
        "convert_data", source, "--from", "voc", "--to", "coco", "--output", tmp_path / "out", "--images", "copy",
        "--only", "train", "val", "--split", "one=0.5", "two=0.5", "--keep", "val", "--seed", "3",
        "--rename", "dog=cat", "--on-broken", "skip",
    )  # fmt: skip
    assert code == 0, errors
    names = sorted(path.name for path in (tmp_path / "out/annotations").iterdir())
    assert names == ["instances_one.json", "instances_two.json", "instances_val.json"]
    content = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["cat"]
    assert not (tmp_path / "out/images/c.png").is_symlink()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["SOURCE", "--to", "voc", "--output", "SOURCE"], ["exists already"]),
        (["SOURCES", "--to", "voc", "--output", "OUT"], ["no such folder or file; nearest"]),
        (
            ["SOURCE", "--to", "voc", "--output", "OUT", "--split", "train=80", "val=20"],
            ["train=80", "between 0 and 1"],
        ),
        (["SOURCE", "--to", "voc", "--output", "OUT", "--split", "0.8"], ["write a name and a share"]),
        (["SOURCE", "--to", "voc", "--output", "OUT", "--rename", "dgo=cat"], ["nearest: 'dog'"]),
        (["SOURCE/JPEGImages", "--to", "voc", "--output", "OUT"], ["no data set found"]),
        (["SOURCE", "--to", "pascal", "--output", "OUT"], ["invalid choice: 'pascal'"]),
        (["SOURCE", "--to", "voc", "--output", "OUT", "--split", "a=1", "--folds", "2"], ["not allowed with"]),
    ],
)
def test_mistakes(run_tool: Tool, source: Path, tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    given = [text.replace("SOURCE", str(source)).replace("OUT", str(tmp_path / "out")) for text in arguments]
    code, errors = run_tool("convert_data", *given)
    assert code == 2
    assert "Traceback" not in errors
    for part in parts:
        assert part in errors
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_ctrl_c(run_tool: Tool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_place_images", stop)
    assert run_tool("convert_data", source, "--to", "voc", "--output", tmp_path / "out")[0] == 130
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def corners(folder: Path) -> dict[str, list[tuple[str, ...]]]:
    """Stem -> name and VOC corners of its objects as written, in their order."""
    tags = ("name", "bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")
    return {
        path.stem: [
            tuple(str(item.findtext(tag)) for tag in tags) for item in ElementTree.parse(path).getroot().iter("object")
        ]
        for path in folder.iterdir()
    }


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "year", "splits"), [("bccd", "", ("val", "test")), ("voc_mini", "VOCdevkit/VOC2007", ("trainval",))]
)
def test_real_data_through_all_formats(
    shared_data: Path, tmp_path: Path, name: str, year: str, splits: tuple[str, ...]
) -> None:
    source = shared_data / name / year
    steps = [source, tmp_path / "coco", tmp_path / "yolo", tmp_path / "voc"]
    for before, after in zip(steps, steps[1:]):
        convert(before, after, to=after.name)  # type: ignore[arg-type]
    assert corners(tmp_path / "voc/Annotations") == corners(source / "Annotations")
    lists = sorted(path.stem for path in (source / "ImageSets/Main").iterdir())
    assert lists == sorted(path.stem for path in (tmp_path / "voc/ImageSets/Main").iterdir())
    for split in splits:
        expected = truth_of(VOCDataset(source, split), flags=False)
        coco = COCODataset(tmp_path / f"coco/annotations/instances_{split}.json", tmp_path / "coco/images")
        for dataset in (coco, YOLODataset(tmp_path / "yolo", split), VOCDataset(tmp_path / "voc", split)):
            assert truth_of(dataset, flags=False) == expected
            assert dataset[0].image.shape[:2] == dataset.record(0).size


@pytest.mark.data
def test_real_folders_of_xml_some_without_a_size(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "fruit"
    convert(source, tmp_path / "yolo", to="yolo")
    for split in ("train", "test"):
        expected = truth_of(XMLFolderDataset(source / split), digits=2)
        assert len(expected) == {"train": 240, "test": 60}[split]
        assert truth_of(YOLODataset(tmp_path / "yolo", split), digits=2) == expected


@pytest.mark.data
def test_difficult_flags_of_real_data_come_back_from_coco(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "voc_mini/VOCdevkit/VOC2007"
    convert(source, tmp_path / "coco", to="coco")
    convert(tmp_path / "coco", tmp_path / "voc", to="voc")
    for split in ("trainval", "test"):
        truth = truth_of(VOCDataset(source, split))
        assert truth_of(VOCDataset(tmp_path / "voc", split)) == truth
        annotations = tmp_path / "coco" / "annotations" / f"instances_{split}.json"
        assert truth_of(COCODataset(annotations, tmp_path / "coco" / "images")) == truth
    # 15 of test's 100 images and more have such boxes
    assert sum(box[5] for boxes in truth.values() for box in boxes) > 15


@pytest.mark.data
def test_real_coco_files_keep_everything_and_the_fractions_survive(shared_data: Path, tmp_path: Path) -> None:
    images = shared_data / "voc_mini/VOCdevkit/VOC2007/JPEGImages"
    convert(shared_data / "voc_mini", tmp_path / "coco", to="coco", source_format="coco", image_root=images)
    for split in ("trainval", "test"):
        file = f"annotations/instances_{split}.json"
        original = json.loads((shared_data / "voc_mini" / file).read_text())
        written = json.loads((tmp_path / "coco" / file).read_text())
        for key in ("images", "categories"):
            assert written[key] == original[key]
        by_id = {entry["id"]: entry for entry in original["annotations"]}
        assert {entry["id"]: entry for entry in written["annotations"]} == by_id
    convert(tmp_path / "coco", tmp_path / "yolo", to="yolo")
    convert(tmp_path / "yolo", tmp_path / "voc", to="voc")
    wide = [entry for entry in original["annotations"] if min(entry["bbox"][2:]) > 1.001]
    back = VOCDataset(tmp_path / "voc", "test")
    found = sum(len(back.record(index).boxes) for index in range(len(back)))
    assert found == len(wide)
    expected = COCODataset(shared_data / "voc_mini/annotations/instances_test.json", images)
    for index in range(len(expected)):
        record = expected.record(index)
        twin = next(
            back.record(i) for i in range(len(back)) if Path(back.record(i).path).stem == Path(record.path).stem
        )
        kept = (record.boxes[:, 2:] - record.boxes[:, :2]).min(1) > 1.001
        assert abs(record.boxes[kept] - twin.boxes).max(initial=0) < 1e-4
        assert [expected.class_names[k] for k in record.labels[kept]] == [back.class_names[k] for k in twin.labels]
    assert back.class_names != expected.class_names  # VOC's order is the alphabet's
