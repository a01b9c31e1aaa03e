"""COCO's polygons and run lengths against pycocotools, the rule of overlaps, and faulty entries."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from transfer.data.coco_segmentation import COCOSegmentation
from transfer.types import SegmentationDataset, UserError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # within pycocotools, under numpy 2

HEIGHT, WIDTH = 20, 30
SQUARE = [2, 2, 12, 2, 12, 12, 2, 12]
SMALL = [5, 5, 8, 5, 8, 9, 5, 9]


def annotation(number: int, category: int, segmentation: Any, image: int = 7, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def write_coco(folder: Path, annotations: list[dict[str, Any]], **changes: Any) -> Path:
    """One image, two categories."""
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (9, 99, 199)).save(folder / "images/a.png")
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
        "annotations": annotations,
        **changes,
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return folder


def open_coco(folder: Path, **options: Any) -> COCOSegmentation:
    return COCOSegmentation(folder / "coco.json", folder / "images", **options)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[y0:y1, x0:x1] = True
    return inside


def test_background_then_categories_by_id(tmp_path: Path) -> None:
    dataset = open_coco(write_coco(tmp_path, [annotation(1, 9, [SQUARE])]))
    assert isinstance(dataset, SegmentationDataset)
    assert dataset.class_names == ("background", "cat", "dog")
    expected = np.where(rectangle(2, 2, 12, 12), 2, 0)
    np.testing.assert_array_equal(dataset.mask(0), expected)
    sample, record = dataset[0], dataset.record(0)
    assert sample.mask is not None
    np.testing.assert_array_equal(sample.mask, expected)
    assert (sample.image_id, record.image_id, record.mask_path, record.size) == (7, 7, None, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset)).mask(0), expected)


def test_what_no_object_covers(tmp_path: Path) -> None:
    write_coco(tmp_path, [annotation(1, 9, [SQUARE])])
    inside = rectangle(2, 2, 12, 12)
    ignored = open_coco(tmp_path, unlabelled=None)
    assert ignored.class_names == ("cat", "dog")
    np.testing.assert_array_equal(ignored.mask(0), np.where(inside, 1, 255))
    category = open_coco(tmp_path, unlabelled="cat")
    assert category.class_names == ("cat", "dog")
    np.testing.assert_array_equal(category.mask(0), np.where(inside, 1, 0))
    dropped = open_coco(tmp_path, rename={"dog": None, "background": "rest"})
    assert dropped.class_names == ("rest", "cat")
    np.testing.assert_array_equal(dropped.mask(0), np.where(inside, 255, 0))
    ordered = open_coco(tmp_path, class_names=["dog", "cat", "background"])
    np.testing.assert_array_equal(ordered.mask(0), np.where(inside, 0, 2))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_smaller_object_is_on_top(tmp_path: Path, order: tuple[int, int]) -> None:
    both = [annotation(1, 4, [SQUARE], area=1), annotation(2, 9, [SMALL], area=5000)]  # stated areas do not count
    dataset = open_coco(write_coco(tmp_path, [both[number] for number in order]))
    expected = np.where(rectangle(5, 5, 8, 9), 2, np.where(rectangle(2, 2, 12, 12), 1, 0))
    np.testing.assert_array_equal(dataset.mask(0), expected)


def test_of_equals_the_later_one(tmp_path: Path) -> None:
    both = [annotation(1, 4, [SQUARE]), annotation(2, 9, [SQUARE])]
    assert open_coco(write_coco(tmp_path, both)).mask(0)[5, 5] == 2
    assert open_coco(write_coco(tmp_path, both[::-1])).mask(0)[5, 5] == 1


def test_a_crowd_is_ignored_below_the_objects(tmp_path: Path) -> None:
    runs = {"size": [HEIGHT, WIDTH], "counts": [0, 5 * HEIGHT, 25 * HEIGHT]}  # the five columns at the left
    for crowd_first in (True, False):
        entries = [annotation(1, 4, runs, iscrowd=1), annotation(2, 9, [SQUARE], iscrowd=0)]
        dataset = open_coco(write_coco(tmp_path, entries if crowd_first else entries[::-1]))
        expected = np.where(rectangle(2, 2, 12, 12), 2, np.where(rectangle(0, 0, 5, HEIGHT), 255, 0))
        np.testing.assert_array_equal(dataset.mask(0), expected)


def test_shapes_against_pycocotools(tmp_path: Path) -> None:
    """Random polygons of two parts, and run lengths as list and as text, each drawn alone by annToMask."""
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO

    rng = np.random.default_rng(0)
    shapes: list[Any] = [
        [rng.uniform(-3, 33, 2 * int(rng.integers(3, 9))).round(2).tolist() for _ in range(2)] for _ in range(12)
    ]
    shapes += [[[10.1, 5.3, 20.7, 5.3, 15.5, 15.9]], [[0, 0, WIDTH, 0, WIDTH, HEIGHT, 0, HEIGHT]]]
    for _ in range(12):
        pixels = np.asfortranarray(rng.random((HEIGHT, WIDTH)) < rng.choice([0.01, 0.5, 0.999]), np.uint8)
        code = coco_mask.encode(pixels)
        shapes.append({"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()})
        changes = np.flatnonzero(np.diff(np.concatenate([[0], pixels.ravel(order="F")])))
        counts = np.diff(np.concatenate([[0], changes, [pixels.size]])).tolist()
        shapes.append({"size": [HEIGHT, WIDTH], "counts": counts})
    images = [{"id": n, "file_name": "a.png", "height": HEIGHT, "width": WIDTH} for n in range(len(shapes))]
    entries = [annotation(n + 1, 9, shape, image=n, area=1, bbox=[0, 0, 1, 1]) for n, shape in enumerate(shapes)]
    write_coco(tmp_path, entries, images=images)
    dataset, reference = open_coco(tmp_path), COCO(str(tmp_path / "coco.json"))
    for index in range(len(shapes)):
        expected = reference.annToMask(copy.deepcopy(reference.anns[index + 1]))
        np.testing.assert_array_equal(dataset.mask(index) == 2, expected == 1, err_msg=str(shapes[index]))
        assert dataset.source._shapes.area(index, (HEIGHT, WIDTH)) == expected.sum()  # type: ignore[attr-defined]


def test_objects_without_area_are_left_out(tmp_path: Path) -> None:
    """pycocotools would draw four numbers as a box."""
    shapes = [[[1, 1, 20, 15]], [[3, 3]], [], None, [[1, 1, 9, 9], SMALL]]
    dataset = open_coco(write_coco(tmp_path, [annotation(number, 9, shape) for number, shape in enumerate(shapes)]))
    np.testing.assert_array_equal(dataset.mask(0), np.where(rectangle(5, 5, 8, 9), 2, 0))
    assert dataset.skipped == []


def test_a_file_of_boxes_only_says_so(tmp_path: Path) -> None:
    entry = annotation(1, 9, [], bbox=[1, 1, 5, 5])
    del entry["segmentation"]
    with pytest.raises(UserError, match=r"none of its 1 objects has a segmentation.*can train a detector"):
        open_coco(write_coco(tmp_path, [entry]))


def test_images_without_objects(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": "a.png", "height": HEIGHT, "width": WIDTH} for n in (7, 8)]
    write_coco(tmp_path, [annotation(1, 9, [SQUARE])], images=images)
    dataset = open_coco(tmp_path)
    assert (list(dataset.image_ids), dataset.mask(1).max()) == ([7, 8], 0)
    assert list(open_coco(tmp_path, include_empty=False).image_ids) == [7]


def test_a_size_that_is_not_stated(tmp_path: Path) -> None:
    write_coco(tmp_path, [annotation(1, 9, [SQUARE])], images=[{"id": 7, "file_name": "a.png"}])
    assert open_coco(tmp_path).record(0).size == (HEIGHT, WIDTH)
    far = [annotation(1, 9, [[0, 0, 500, 0, 0, 500]])]
    write_coco(tmp_path, far, images=[{"id": 7, "file_name": "a.png"}])
    with pytest.raises(UserError, match=r"a\.png: polygon from \(0, 0\) to \(500, 500\) in 30x20"):
        open_coco(tmp_path)


def test_a_size_that_is_wrong(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH + 1}]
    dataset = open_coco(write_coco(tmp_path, [annotation(1, 9, [SQUARE])], images=images))
    with pytest.raises(UserError, match="is 30x20, but its annotation is 31x20"):
        dataset[0]


RUNS = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ("polygon", "segmentation 'polygon' is neither a list of polygons nor run lengths"),
        ([[1, 2, 3, 4, 5, "6"]], "is not [x, y, x, y, ...] in finite numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "in finite numbers"),
        ([[1, 2, 3, 4, 5, None]], "in finite numbers"),
        ([[[1, 2], [3, 4], [5, 6]]], "in finite numbers"),
        ([[1, [2], 3]], "in finite numbers"),
        ([SQUARE[:-1]], "polygon of 7 numbers"),
        ([[0, 0, 1e12, 0, 0, 5]], "polygon from (0, 0) to (1e+12, 5) in 30x20"),
        ([[0, 0, 5, 0, 5, -21]], "polygon from (0, -21)"),
        ({"size": [HEIGHT], "counts": [1]}, "run lengths for a size of [20], not [height, width]"),
        ({"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}, "run lengths for 20x30, but the image is 30x20"),
        ({**RUNS, "counts": [HEIGHT * WIDTH - 1]}, "do not add up to the 600 pixels of 30x20"),
        ({**RUNS, "counts": [601, -1]}, "do not add up"),
        ({**RUNS, "counts": [2**62, 2**62, 2**62, 2**62, 600]}, "do not add up"),
        ({**RUNS, "counts": [1.5, 598.5]}, "neither whole numbers nor a text"),
        ({**RUNS, "counts": None}, "neither whole numbers nor a text"),
        ({**RUNS, "counts": "\u0001"}, "is not such a text"),
        ({**RUNS, "counts": "oooooooooooooooo0"}, "is not such a text"),
        ({**RUNS, "counts": "o"}, "ends within a number"),
        ({**RUNS, "counts": ""}, "do not add up"),
    ],
)
def test_faulty_shapes(tmp_path: Path, segmentation: Any, reason: str) -> None:
    images = [{"id": n, "file_name": "a.png", "height": HEIGHT, "width": WIDTH} for n in (7, 8)]
    entries = [annotation(1, 9, [SQUARE], image=8), annotation(2, 9, segmentation)]
    write_coco(tmp_path, entries, images=images)
    with pytest.raises(UserError) as caught:
        open_coco(tmp_path)
    assert "annotations[1]: " in str(caught.value)
    assert reason in str(caught.value)
    assert list(open_coco(tmp_path, on_broken="skip").image_ids) == [8]


def test_other_faults_at_once(tmp_path: Path) -> None:
    entries = [
        annotation(1, 9, [SQUARE], image=99),
        annotation(2, 1, [SQUARE]),
        annotation(2, 9, [SQUARE], iscrowd=2),
        annotation(3, 9, [SQUARE], image=8),
        [],
    ]
    images = [
        {"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
        {"id": 8, "file_name": "gone.png", "height": HEIGHT, "width": WIDTH},
        {"id": 9, "file_name": "../../a.png", "height": HEIGHT, "width": WIDTH},
    ]
    write_coco(tmp_path, entries, images=images)  # type: ignore[arg-type]
    with pytest.raises(UserError) as caught:
        open_coco(tmp_path)
    for piece in (
        "images[1]: 'gone.png' is not in",
        "images[2]: file_name '../../a.png' leads out of",
        "annotations[0]: image_id 99 is not among the images",
        "annotations[1]: category_id 1 is not among the categories",
        "annotations[2]: iscrowd 2 is not 0 or 1",
        "annotations[4]: is no object",
    ):
        assert piece in str(caught.value), piece


@pytest.mark.data
def test_boxes_of_voc_mini_as_polygons(shared_data: Path, tmp_path: Path) -> None:
    """Real photographs, whose file has boxes only: each box becomes a polygon, drawn by pycocotools' annToMask."""
    from pycocotools.coco import COCO

    path, images = shared_data / "voc_mini/annotations/instances_test.json", shared_data / "voc_mini/VOCdevkit/VOC2007"
    with pytest.raises(UserError, match="objects has a segmentation"):
        COCOSegmentation(path, images / "JPEGImages")
    content = json.loads(path.read_text())
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x + w / 2, y + h / 2, x, y + h]]
    (tmp_path / "polygons.json").write_text(json.dumps(content))
    dataset = COCOSegmentation(tmp_path / "polygons.json", images / "JPEGImages")
    assert (len(dataset), len(dataset.class_names)) == (100, 81)
    reference = COCO(str(tmp_path / "polygons.json"))
    label = {key: dataset.class_names.index(reference.cats[key]["name"]) for key in reference.cats}
    for index in range(0, len(dataset), 9):
        sample = dataset[index]
        expected = np.zeros(sample.image.shape[:2], np.uint8)
        drawn = [(reference.annToMask(entry), entry) for entry in reference.imgToAnns[sample.image_id]]
        for pixels, entry in sorted(drawn, key=lambda pair: -int(pair[0].sum())):
            expected[pixels == 1] = label[entry["category_id"]]
        assert sample.mask is not None
        np.testing.assert_array_equal(sample.mask, expected)
