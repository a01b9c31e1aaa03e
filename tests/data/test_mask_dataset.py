"""What all data sets with masks share: samples, photographs turned by EXIF, sizes that differ, workers."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hand_made_png import write_png
from PIL import Image

from transfer.data.image import BrokenSample
from transfer.data.mask_builder import MaskBuilder, gathering, labels_of
from transfer.data.mask_dataset import MaskDataset, MaskFiles
from transfer.data.masks import BrokenMask, ValueCoding
from transfer.types import DetectionDataset, SegmentationDataset, UserError

CODING = ValueCoding({0: 0, 1: 1, 255: 255})
PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
MASK = np.array([[0, 1, 1, 255], [0, 0, 1, 255]], np.uint8)


def dataset_of(folder: Path, pixels: np.ndarray = PIXELS, mask: np.ndarray = MASK, orientation: int = 1) -> MaskDataset:
    """One image, a PNG that says how it is turned, and one mask."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(folder / "image.png", exif=exif)
    write_png(folder / "mask.png", mask)
    files = MaskFiles([str(folder / "mask.png")], CODING)
    return MaskDataset([str(folder / "image.png")], ["image"], files, ["a", "b"])


def test_a_sample_is_image_and_mask_without_boxes(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    assert isinstance(dataset, SegmentationDataset)
    assert not isinstance(dataset, DetectionDataset)
    sample = dataset[-1]
    np.testing.assert_array_equal(sample.image, PIXELS)
    assert sample.mask is not None
    np.testing.assert_array_equal(sample.mask, MASK)
    np.testing.assert_array_equal(dataset.mask(0), MASK)
    assert (sample.boxes.shape, sample.labels.shape, sample.difficult.shape) == ((0, 4), (0,), (0,))
    assert (sample.boxes.dtype, sample.labels.dtype, sample.difficult.dtype) == (np.float32, np.int64, bool)
    assert (sample.index, sample.image_id, sample.original_size, sample.scale) == (0, "image", (2, 4), (1.0, 1.0))
    record = dataset.record(0)
    assert (record.path, record.image_id, record.size) == (sample.path, "image", (2, 4))
    assert record.mask_path == str(tmp_path / "mask.png")
    for index in (1, -2):
        for read in (dataset.record, dataset.mask, dataset.__getitem__):
            with pytest.raises(IndexError):
                read(index)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_photograph_is_turned_to_fit_its_mask(tmp_path: Path, orientation: int) -> None:
    """EXIF 2.32's orientations by numpy; a mask of the stored size means that nobody turned."""
    turn = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: np.rot90,
    }[orientation]
    shown = turn(PIXELS)
    displayed = dataset_of(tmp_path, mask=np.zeros(shown.shape[:2], int), orientation=orientation)
    np.testing.assert_array_equal(displayed[0].image, shown)
    assert displayed.record(0).size == displayed[0].original_size == shown.shape[:2]
    if orientation >= 5:
        stored = dataset_of(tmp_path, mask=MASK, orientation=orientation)
        np.testing.assert_array_equal(stored[0].image, PIXELS)
        assert stored[0].mask is not None
        np.testing.assert_array_equal(stored[0].mask, MASK)
        assert stored.record(0).size == (2, 4)


def test_sizes_that_differ_name_both_files(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, mask=np.zeros((3, 4), int))
    with pytest.raises(BrokenSample) as caught:
        dataset[0]
    assert caught.value.reason == f"is 4x2, but its mask {tmp_path / 'mask.png'} is 4x3 (width x height)"
    assert caught.value.path == str(tmp_path / "image.png")
    assert "Export the mask in the image's size" in str(caught.value)
    assert dataset.mask(0).shape == (3, 4)  # the mask alone is sound


def test_broken_files_are_named(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    (tmp_path / "image.png").write_bytes(b"nothing")
    with pytest.raises(BrokenSample, match=r"image\.png: is no image") as caught:
        dataset[0]
    assert not isinstance(caught.value, BrokenMask)
    assert dataset.record(0).size == (2, 4)  # by the mask
    dataset = dataset_of(tmp_path)
    (tmp_path / "mask.png").write_bytes(b"nothing")
    assert dataset.record(0).size == (2, 4)  # by the image: a record has to name what is broken
    for read in (dataset.mask, dataset.__getitem__):
        with pytest.raises(BrokenMask, match=r"mask\.png: is no mask"):
            read(0)
    (tmp_path / "image.png").unlink()
    with pytest.raises(BrokenSample):
        dataset.record(0)


def test_a_large_data_set_pickles_small() -> None:
    count = 20_000
    paths = [f"/data/images/training/ADE_train_{number:08d}.jpg" for number in range(count)]
    masks = [f"/data/annotations/training/ADE_train_{number:08d}.png" for number in range(count)]
    files = MaskFiles(masks, ValueCoding({value: value for value in range(151)}))
    dataset = MaskDataset(paths, [Path(path).stem for path in paths], files, [f"class {i}" for i in range(151)])
    data = pickle.dumps(dataset)
    assert len(data) < count * 160
    assert pickle.loads(data).record.__self__.paths == paths


def test_labels_by_name() -> None:
    def labels(names: list[str] | None = None, **rename: str | None) -> tuple[tuple[str, ...], dict[str, int]]:
        return labels_of(["sky", "road", "kerb"], class_names=names, rename=rename, source="data")

    assert labels() == (("sky", "road", "kerb"), {"sky": 0, "road": 1, "kerb": 2})
    assert labels(["kerb", "sky", "road"]) == (("kerb", "sky", "road"), {"sky": 1, "road": 2, "kerb": 0})
    assert labels(kerb="road") == (("sky", "road"), {"sky": 0, "road": 1, "kerb": 1})
    assert labels(sky=None) == (("road", "kerb"), {"sky": 255, "road": 0, "kerb": 1})
    assert labels(["road", "car"], kerb="road", sky=None) == (("road", "car"), {"sky": 255, "road": 0, "kerb": 0})


@pytest.mark.parametrize(
    ("names", "rename", "expected"),
    [
        (["sky", "rood"], {}, ["class 'road' (nearest: 'rood')", "class 'kerb'", "rename={'road': None}"]),
        (None, {"Sky": "air"}, ["the data set has no class 'Sky' (nearest: 'sky')"]),
        (None, {"sky": None, "road": None, "kerb": None}, ["no classes are left"]),
        (["sky", "sky"], {}, ["more than once"]),
    ],
)
def test_names_that_do_not_fit(names: list[str] | None, rename: dict[str, str | None], expected: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        labels_of(["sky", "road", "kerb"], class_names=names, rename=rename, source="data")
    for piece in expected:
        assert piece in str(caught.value)


def test_no_more_classes_than_fit() -> None:
    names = [f"class {number}" for number in range(256)]
    labels_of(names[:255], class_names=None, rename=None, source="data")
    with pytest.raises(UserError, match="256 classes: a mask has room for 255"):
        labels_of(names, class_names=None, rename=None, source="data")
    with pytest.raises(UserError, match="256 classes: a mask has room for 255"):
        MaskDataset([], [], MaskFiles([], CODING), names)


def test_faults_stop_skip_or_are_gathered() -> None:
    def fill(on_broken: str) -> MaskBuilder:
        builder = MaskBuilder("data", on_broken)
        builder.fault("mask-missing", "a.jpg", "has no mask")
        builder.fault("mask-missing", "b.jpg", "has no mask")
        builder.add("c.jpg", "c.png", "c")
        builder.finish()
        return builder

    with pytest.raises(UserError, match=r"(?s)2 unusable:\n  a.jpg: has no mask\n  b.jpg: has no mask\n.*skip"):
        fill("stop")
    assert fill("skip").problems == ["a.jpg: has no mask", "b.jpg: has no mask"]
    with gathering() as builders:
        fill("stop")
    assert [fault.file for fault in builders[0].faults] == ["a.jpg", "b.jpg"]
    with pytest.raises(UserError, match="on_broken is 'ignore'"):
        MaskBuilder("data", "ignore")
    with pytest.raises(UserError, match="no usable image"):
        MaskBuilder("data").finish()
