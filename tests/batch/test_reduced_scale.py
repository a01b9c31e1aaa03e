"""Photographs decoded at a reduced scale: where boxes and masks lie, against what is to be seen in the image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from transfer.batch.view import TrainingView
from transfer.build import Node, from_json
from transfer.data.classification_dataset import LabelledImages
from transfer.data.concat import UnionDataset
from transfer.data.image import read_image
from transfer.data.mask_dataset import MaskDataset
from transfer.data.table import DetectionTable, TableDataset
from transfer.engine.distributed import World
from transfer.loading import loader_settings, training_batches
from transfer.loading import test_loader as loader_for_testing
from transfer.ops.reduced_scale import factor_for, reduced_scale
from transfer.types import Request, Sample, UserError

HEIGHT, WIDTH = 403, 518
"""As displayed: no multiples of 8."""
BOX = (121, 90, 330, 301)


def displayed() -> np.ndarray:
    """A white rectangle on black."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    return pixels


def photograph(path: Path, orientation: int = 1) -> str:
    """A file that is displayed as that, its pixels stored as EXIF's orientation says."""
    backwards = {6: 8, 8: 6}.get(orientation, orientation)  # the others undo themselves
    exif = Image.Exif()
    exif[0x0112] = backwards
    turned = Image.fromarray(displayed())
    turned.getexif()[0x0112] = backwards
    exif[0x0112] = orientation
    ImageOps.exif_transpose(turned).save(path, quality=95, exif=exif)
    return str(path)


def detection(*paths: str) -> TableDataset:
    count = len(paths)
    table = DetectionTable(
        paths=list(paths), image_ids=list(range(count)), sizes=np.array([(HEIGHT, WIDTH)] * count),
        starts=np.arange(count + 1), boxes=np.array([BOX] * count, np.float32), labels=np.zeros(count, np.int64),
        difficult=np.zeros(count, bool), crowd=np.zeros(count, bool), areas=np.ones(count, np.float32),
    )  # fmt: skip
    return TableDataset(table, ["rectangle"])


class Masks:
    """The mask of the rectangle."""

    def path(self, index: int) -> None:
        return None

    def size(self, index: int) -> tuple[int, int]:
        return HEIGHT, WIDTH

    def read(self, index: int) -> np.ndarray:
        return (displayed()[..., 0] > 0).astype(np.uint8)


def kept(sample: Sample, request: Request, rng: np.random.Generator) -> Sample:
    return sample


def sample_of(dataset: Any, at_least: int | None) -> Sample:
    return TrainingView(dataset, kept, decode_at_least=at_least)[Request(0, 0)].sample


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("at_least", "factor"), [(202, 1), (201, 2), (100, 4), (50, 8), (32, 8)])
def test_boxes_and_masks_lie_where_the_object_is_seen(
    tmp_path: Path, orientation: int, at_least: int, factor: int
) -> None:
    path = photograph(tmp_path / "a.jpg", orientation)
    assert read_image(path).shape == (HEIGHT, WIDTH, 3)
    sample = sample_of(detection(path), at_least)
    assert sample.image.shape == (-(-HEIGHT // factor), -(-WIDTH // factor), 3)
    light = sample.image[..., 0] / 255
    ((left, top, right, bottom),) = sample.boxes
    for line, low, high in ((light[light.shape[0] // 2], left, right), (light[:, light.shape[1] // 2], top, bottom)):
        middle = (line * (np.arange(len(line)) + 0.5)).sum() / line.sum()
        assert (high - low, (low + high) / 2) == pytest.approx((line.sum(), middle), abs=0.15)
    assert sample.scale == (1 / factor, 1 / factor)
    assert sample.original_size == (HEIGHT, WIDTH)
    masked = sample_of(MaskDataset([path], [0], Masks(), ["ground", "rectangle"]), at_least)
    assert masked.mask is not None
    assert masked.mask.shape == masked.image.shape[:2]
    grey = masked.image[..., 0]
    within = (grey < 16) | (grey > 239)  # the others lie on an edge
    assert within.mean() > 0.9
    assert np.array_equal(masked.mask[within], grey[within] > 127)


def test_pixels_are_about_the_means_of_those_they_stand_for(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    smooth = Image.fromarray(generator.integers(0, 256, (25, 32, 3), dtype=np.uint8)).resize((512, 400), Image.BICUBIC)
    smooth.save(tmp_path / "a.jpg", quality=95)
    whole = read_image(tmp_path / "a.jpg")
    for factor in (2, 4, 8):
        with reduced_scale(400 // factor):
            small = read_image(tmp_path / "a.jpg")
        means = whole.reshape(400 // factor, factor, 512 // factor, factor, 3).mean(axis=(1, 3))
        assert np.abs(small - means).mean() < 1.5
        assert np.abs(small - means).max() < 16


def test_what_is_no_large_jpeg_is_read_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(displayed()).save(tmp_path / "a.png")
    sample = sample_of(detection(str(tmp_path / "a.png")), 32)
    assert np.array_equal(sample.image, displayed())
    assert sample.boxes.tolist() == [list(BOX)]
    assert sample.scale == (1, 1)
    path = photograph(tmp_path / "a.jpg")
    assert np.array_equal(sample_of(detection(path), 300).image, read_image(path))
    assert np.array_equal(sample_of(detection(path), None).image, read_image(path))


def test_outside_nothing_is_reduced(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.jpg")
    with reduced_scale(32) as readings:
        assert factor_for((HEIGHT, WIDTH)) == 8
        with pytest.raises(ZeroDivisionError), reduced_scale(64):
            raise ZeroDivisionError
        assert read_image(path).shape == (51, 65, 3)
    assert [each.factor for each in readings.done] == [8]
    assert factor_for((HEIGHT, WIDTH)) == 1
    assert read_image(path).shape == (HEIGHT, WIDTH, 3)


def test_classes_of_whole_images_and_joined_sets(tmp_path: Path) -> None:
    photograph(tmp_path / "a.jpg")
    classes = LabelledImages(tmp_path, ["a.jpg"], [0], ["rectangle", "other"])
    assert sample_of(classes, 100).image.shape == (101, 130, 3)
    both = UnionDataset([detection(str(tmp_path / "a.jpg")), detection(str(tmp_path / "a.jpg"))])
    assert sample_of(both, 100).boxes.tolist() == [[each / 4 for each in BOX]]


class Made:
    """A user's own data set: of two photographs, one beside the other or mixed, or of one made smaller."""

    def __init__(self, path: str, how: str) -> None:
        self.whole, self.how = detection(path), how

    def __len__(self) -> int:
        return 1

    def record(self, index: int) -> Any:
        return self.whole.record(index)

    def __getitem__(self, index: int) -> Sample:
        sample = self.whole[index]
        if self.how == "smaller":
            sample.image = sample.image[::2]
        elif self.how == "beside":
            sample.image = np.concatenate([sample.image, self.whole[index].image])
        else:
            sample.image = np.maximum(sample.image, self.whole[index].image)
        return sample


@pytest.mark.parametrize("how", ["smaller", "beside", "mixed"])
def test_a_sample_that_is_not_one_photograph_is_refused(tmp_path: Path, how: str) -> None:
    dataset = Made(photograph(tmp_path / "a.jpg"), how)
    sample_of(dataset, None)
    with pytest.raises(UserError, match=r"a.jpg: loader.decode_at_least is for data sets"):
        sample_of(dataset, 100)


def test_training_reads_smaller_photographs_and_testing_does_not(tiny_config: Node, tmp_path: Path) -> None:
    tiny_config["loader"]["decode_at_least"] = 100
    tiny_config["loader"]["batch_size"] = 1
    data, alone = detection(photograph(tmp_path / "a.jpg")), World(0, 1, torch.device("cpu"))
    training = training_batches(tiny_config, data, (0, 0, 0), alone)[0](0)
    training.dataset.augment = kept
    assert training.dataset[Request(0, 0)].sample.image.shape == (101, 130, 3)
    testing = loader_for_testing(data, kept, loader_settings(tiny_config), (0, 0, 0), alone)
    assert testing.dataset[Request(0, 0)].sample.image.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("wrong", [31, 0, -600, 600.0, "600", True])
def test_a_side_that_makes_no_sense_is_refused(wrong: object) -> None:
    config = from_json(json.dumps({"loader": {"batch_size": 2, "decode_at_least": wrong}}))
    with pytest.raises(UserError, match="decode_at_least="):
        loader_settings(config)
    config["loader"]["decode_at_least"] = 32
    assert loader_settings(config).decode_at_least == 32
