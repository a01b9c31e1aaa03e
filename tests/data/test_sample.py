"""The embedded sample: same seed same bytes, a layout anyone can read, and truth that agrees with the pixels."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from transfer.data import sample
from transfer.data.sample import CROP_CLASSES, SAMPLE_CLASSES, make_sample, sample_folder
from transfer.data.sample_camera import Light
from transfer.data.sample_canvas import Canvas, spline
from transfer.data.sample_objects import KINDS
from transfer.data.sample_scene import Truth, _annotate, _paint, _Piece
from transfer.types import UserError

HEIGHT, WIDTH = 112, 144
COUNTS: dict[str, Any] = {"train": 40, "test": 12, "crops_per_class": 5, "size": (HEIGHT, WIDTH)}
FEW: dict[str, Any] = {"test": 2, "crops_per_class": 1, "size": (80, 80)}


@dataclass
class Annotation:
    stem: str
    size: tuple[int, ...]
    objects: list[dict[str, str]]
    boxes: list[tuple[int, ...]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sample(tmp_path_factory.mktemp("made") / "sample", **COUNTS)


@pytest.fixture(scope="module")
def labelled(made: Path) -> list[Annotation]:
    """Every XML file, read with nothing but the standard library."""
    found = []
    for path in sorted((made / "VOCdevkit/VOC2007/Annotations").glob("*.xml")):
        root = ElementTree.parse(path).getroot()
        assert root.findtext("filename") == f"{path.stem}.jpg"
        assert root.findtext("folder") == "VOC2007"
        size = tuple(int(root.findtext(f"size/{name}", "")) for name in ("width", "height", "depth"))
        nodes = root.findall("object")
        boxes = [tuple(int(n.findtext(f"bndbox/{k}", "")) for k in ("xmin", "ymin", "xmax", "ymax")) for n in nodes]
        fields = [{child.tag: child.text or "" for child in node} for node in nodes]
        found.append(Annotation(path.stem, size, fields, boxes))
    return found


def mask_of(made: Path, stem: str) -> np.ndarray:
    return np.asarray(Image.open(made / f"VOCdevkit/VOC2007/SegmentationClass/{stem}.png"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def stems(made: Path, name: str, task: str = "Main") -> list[str]:
    return (made / f"VOCdevkit/VOC2007/ImageSets/{task}/{name}.txt").read_text().split()


# Seeds


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    first = contents(make_sample(tmp_path / "a", train=4, **FEW))
    again = contents(make_sample(tmp_path / "b", train=4, **FEW))
    other = contents(make_sample(tmp_path / "c", train=4, seed=1, **FEW))
    assert first == again
    assert first.keys() == other.keys()
    pictures = [name for name in first if name.endswith(".jpg")]
    assert len(pictures) == 4 + 2 + len(CROP_CLASSES)
    assert all(first[name] != other[name] for name in pictures)
    assert len({first[name] for name in pictures}) == len(pictures)


def test_a_picture_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = contents(make_sample(tmp_path / "few", train=3, **FEW))
    more = contents(make_sample(tmp_path / "more", train=6, **{**FEW, "test": 3, "crops_per_class": 2}))
    shared = [name for name in few if not name.endswith(("txt", "json"))]
    assert len(shared) == (3 + 2) * 3 + len(CROP_CLASSES)
    assert all(few[name] == more[name] for name in shared)


# Layout


def test_layout_and_lists(made: Path, labelled: list[Annotation]) -> None:
    root = made / "VOCdevkit/VOC2007"
    everything = {a.stem for a in labelled}
    assert {p.stem for p in (root / "JPEGImages").iterdir()} == everything
    assert {p.stem for p in (root / "SegmentationClass").iterdir()} == everything
    train, val, trainval, test = (stems(made, name) for name in ("train", "val", "trainval", "test"))
    assert (len(trainval), len(test), len(val)) == (40, 12, 6)  # 15 % of 40
    assert sorted(train + val) == trainval
    assert not set(train) & set(val)
    assert {*trainval, *test} == everything
    assert not set(trainval) & set(test)
    assert all(stems(made, name, "Segmentation") == stems(made, name) for name in ("train", "val", "trainval", "test"))


def test_pictures_have_the_size_that_the_annotation_says(made: Path, labelled: list[Annotation]) -> None:
    for annotation in labelled:
        assert annotation.size == (WIDTH, HEIGHT, 3)
        with Image.open(made / f"VOCdevkit/VOC2007/JPEGImages/{annotation.stem}.jpg") as image:
            assert (image.size, image.mode) == ((WIDTH, HEIGHT), "RGB")
            assert np.asarray(image).std() > 5  # something is to be seen


def test_boxes_lie_in_the_picture_and_every_class_appears(labelled: list[Annotation]) -> None:
    names = set()
    for annotation in labelled:
        for fields, (x_min, y_min, x_max, y_max) in zip(annotation.objects, annotation.boxes):
            assert 1 <= x_min < x_max <= WIDTH
            assert 1 <= y_min < y_max <= HEIGHT
            assert {fields[flag] for flag in ("truncated", "occluded", "difficult")} <= {"0", "1"}
            assert fields["pose"] in ("Unspecified", "Left", "Right")
            names.add(fields["name"])
    assert names == set(SAMPLE_CLASSES)
    mean = sum(len(a.objects) for a in labelled) / len(labelled)
    assert 2.5 < mean < 4.5


def test_some_training_pictures_are_empty(made: Path, labelled: list[Annotation]) -> None:
    empty = [a.stem for a in labelled if not a.objects and a.stem in stems(made, "trainval")]
    assert 1 <= len(empty) <= 4
    for stem in empty:
        assert not mask_of(made, stem).any()


def test_classes_of_crops_and_scenes_coincide_in_part(made: Path) -> None:
    assert (len(SAMPLE_CLASSES), len(CROP_CLASSES)) == (12, 14)
    assert len(set(SAMPLE_CLASSES) & set(CROP_CLASSES)) == 8
    assert list(SAMPLE_CLASSES) == sorted(SAMPLE_CLASSES)
    assert set(SAMPLE_CLASSES) | set(CROP_CLASSES) == set(KINDS)
    for part, count in (("train", 4), ("val", 1)):
        folders = sorted((made / "crops" / part).iterdir())
        assert [folder.name for folder in folders] == list(CROP_CLASSES)
        for folder in folders:
            crops = list(folder.glob("*.jpg"))
            assert len(crops) == count
            assert all(np.asarray(Image.open(crop)).shape == (96, 96, 3) for crop in crops)


# Truth and pixels


def test_box_is_tight_around_the_mask_of_a_lone_object(made: Path, labelled: list[Annotation]) -> None:
    checked = 0
    for annotation in labelled:
        if len(annotation.objects) != 1 or annotation.objects[0]["occluded"] == "1":
            continue
        if annotation.objects[0]["difficult"] == "1":
            continue
        ys, xs = np.nonzero(mask_of(made, annotation.stem))  # the object and its border, one pixel further out
        x_min, y_min, x_max, y_max = annotation.boxes[0]
        assert abs(xs.min() + 1 - x_min) <= 1
        assert abs(ys.min() + 1 - y_min) <= 1
        assert abs(xs.max() + 1 - x_max) <= 1
        assert abs(ys.max() + 1 - y_max) <= 1
        checked += 1
    assert checked >= 3


def test_mask_holds_the_annotated_classes_inside_their_boxes(made: Path, labelled: list[Annotation]) -> None:
    for annotation in labelled:
        mask = mask_of(made, annotation.stem)
        allowed = np.zeros((len(SAMPLE_CLASSES) + 1, HEIGHT, WIDTH), bool)
        allowed[0] = True
        for fields, (x_min, y_min, x_max, y_max) in zip(annotation.objects, annotation.boxes):
            label = SAMPLE_CLASSES.index(fields["name"]) + 1
            if fields["difficult"] == "0":
                allowed[label, y_min - 1 : y_max, x_min - 1 : x_max] = True
                inside = mask[y_min - 1 : y_max, x_min - 1 : x_max]
                assert min(inside.shape) < 12 or (inside == label).any()  # the smallest are all border
        ys, xs = np.nonzero(mask != 255)
        assert allowed[mask[ys, xs], ys, xs].all()


def test_whole_truncated_objects_touch_the_edge(labelled: list[Annotation]) -> None:
    edges = 0
    for annotation in labelled:
        for fields, (x_min, y_min, x_max, y_max) in zip(annotation.objects, annotation.boxes):
            if fields["truncated"] == "1" and fields["occluded"] == "0":
                assert x_min == 1 or y_min == 1 or x_max == WIDTH or y_max == HEIGHT
                edges += 1
    assert edges >= 2


def test_mask_has_the_palette_of_the_voc_devkit(made: Path, labelled: list[Annotation]) -> None:
    image = Image.open(made / f"VOCdevkit/VOC2007/SegmentationClass/{labelled[0].stem}.png")
    assert image.mode == "P"
    palette = np.array(image.getpalette()).reshape(-1, 3).tolist()
    published = {0: [0, 0, 0], 1: [128, 0, 0], 2: [0, 128, 0], 7: [128, 128, 128], 15: [192, 128, 128]}
    published |= {16: [0, 64, 0], 20: [0, 64, 128], 255: [224, 224, 192]}
    assert {label: palette[label] for label in published} == published


def block(name: str | None, left: int, top: int, width: int, height: int) -> _Piece:
    """A plain white rectangle."""
    white = np.ones((height, width), np.float32)
    return _Piece(name, np.repeat(white[..., None], 3, 2), white, left=left, top=top)


def truths(pieces: list[_Piece]) -> tuple[np.ndarray, dict[str, Truth]]:
    owner = np.zeros((100, 100), np.uint8)
    light = Light(0.0, 0.0, 1.0, 0.5, 0.02)
    areas = _paint(np.zeros((100, 100, 3), np.float32), owner, pieces, light, above=True)
    mask, found = _annotate(owner, pieces, areas, 1.0)
    return mask, {truth.name: truth for truth in found}


@pytest.mark.parametrize(
    ("hidden", "seen", "occluded", "difficult"),
    [(0, True, False, False), (16, True, True, False), (28, True, True, True), (36, False, False, False)],
)
def test_hidden_share_decides_box_and_flags(hidden: int, seen: bool, occluded: bool, difficult: bool) -> None:
    # `hidden` of 40 columns are covered from the left: 0, 40, 70 and 90 percent.
    front = [block(None, 0, 10, 20 + hidden, 40)] if hidden else []
    mask, found = truths([block("cat", 20, 20, 40, 20), *front])
    assert ("cat" in found) == seen
    label = SAMPLE_CLASSES.index("cat") + 1
    assert (mask == label).any() == (seen and not difficult)
    assert mask[30, 57] == (label if seen and not difficult else 255)
    if seen:
        truth = found["cat"]
        assert truth.box == (20 + hidden, 20, 60, 40)
        assert (truth.occluded, truth.difficult, truth.truncated) == (occluded, difficult, False)


def test_truncation_is_not_occlusion_and_the_box_ends_at_the_edge() -> None:
    _, found = truths([block("cat", -20, 60, 60, 60), block("car", 60, 10, 40, 30)])
    assert found["cat"].box == (0, 60, 40, 100)
    assert (found["cat"].truncated, found["cat"].occluded) == (True, False)
    assert (found["car"].truncated, found["car"].occluded) == (False, False)


def test_border_of_two_pixels_is_void_between_neighbours() -> None:
    mask, _ = truths([block("cat", 10, 10, 30, 30), block("cat", 40, 10, 30, 30)])
    label = SAMPLE_CLASSES.index("cat") + 1
    assert mask[25, 5:45].tolist() == [0] * 4 + [255] * 2 + [label] * 28 + [255] * 2 + [label] * 4


# Drawing


@pytest.mark.parametrize("name", sorted(KINDS))
def test_objects_fill_their_canvas_and_stay_on_it(name: str) -> None:
    for seed in range(4):
        canvas = Canvas(64, np.random.default_rng(seed), (-0.5, -0.5, math.sqrt(0.5)))
        KINDS[name].draw(canvas)
        sprite = canvas.finished()
        assert sprite.dtype == np.float32
        assert np.isfinite(sprite).all()
        assert sprite.min() >= 0
        assert (sprite[..., :3] <= sprite[..., 3:] + 1e-6).all()  # premultiplied
        ys, xs = np.nonzero(sprite[..., 3] > 0.5)
        assert max(np.ptp(ys), np.ptp(xs)) > 64 * 0.75


def test_spline_passes_through_its_points() -> None:
    points = [(0.0, 0.0), (1.0, 0.5), (1.5, -0.25), (0.2, -1.0)]
    assert np.allclose(spline(points, steps=5)[::5], points)
    assert np.allclose(spline(points, closed=False, steps=5)[::5], points)
    # Halfway, Catmull-Rom gives (-p0 + 9 p1 + 9 p2 - p3) / 16.
    p0, p1, p2, p3 = np.array(points)
    assert np.allclose(spline(points, steps=2)[3], (-p0 + 9 * p1 + 9 * p2 - p3) / 16)


# Folders


def test_second_call_writes_nothing(tmp_path: Path) -> None:
    folder = make_sample(tmp_path / "sample", train=2, **FEW)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert make_sample(folder, train=2, **FEW) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_nothing_is_left_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("disc full")

    monkeypatch.setattr(sample, "_write_crops", fail)
    with pytest.raises(RuntimeError, match="disc full"):
        make_sample(tmp_path / "sample", train=2, **FEW)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    assert (make_sample(tmp_path / "sample", train=1, **FEW) / "VOCdevkit").is_dir()


def test_another_sample_or_foreign_files_are_kept(tmp_path: Path) -> None:
    folder = make_sample(tmp_path / "sample", train=1, **FEW)
    with pytest.raises(UserError, match=r"seed 0 instead of 3; train 1 instead of 2"):
        make_sample(folder, seed=3, train=2, **FEW)
    foreign = tmp_path / "photographs"
    foreign.mkdir()
    (foreign / "cat.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="photographs exists and is no sample"):
        make_sample(foreign, train=1, **FEW)
    assert contents(foreign) == {"cat.jpg": b"mine"}


def test_all_wrong_arguments_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        make_sample(tmp_path / "sample", seed=-1, train=0, test=-2, crops_per_class=-3, size=(32, 320))
    for name in ("seed is -1", "train is 0", "test is -2", "crops_per_class is -3", "size is (32, 320)"):
        assert name in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRICKSTACK_HOME", str(tmp_path))
    assert sample_folder() == tmp_path / f"sample-v{sample.FORMAT_VERSION}-seed0"
    monkeypatch.delenv("TRICKSTACK_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert sample_folder().parent == Path.home() / ".cache" / "trickstack"
