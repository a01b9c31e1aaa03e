"""Pictures of label maps, beside the colours of the VOC devkit."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from transfer.report.overlays import COLOURS, draw_label_map, draw_legend, page_of_label_maps, write_palette_png
from transfer.types import LabelMap, MaskRecord, Sample


def test_colours_are_the_devkit_s() -> None:
    """As VOCcode's VOClabelcolormap gives them: background, aeroplane, bicycle, person, tv/monitor, void."""
    expected = {
        0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)
    }  # fmt: skip
    assert {value: tuple(COLOURS[value].tolist()) for value in expected} == expected
    assert len({tuple(colour) for colour in COLOURS.tolist()}) == 256


def test_a_palette_png_keeps_labels_and_shows_colours(tmp_path: Path) -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_palette_png(tmp_path / "mask.png", labels)
    with Image.open(tmp_path / "mask.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), labels)
        assert np.array_equal(np.asarray(picture.convert("RGB")), COLOURS[labels])
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]


def test_an_overlay_leaves_ignored_pixels_alone() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    drawn = draw_label_map(image, np.array([[1, 255], [0, 2]], np.uint8), opacity=0.5)
    assert drawn.tolist() == [[[114, 50, 50], [100, 100, 100]], [[50, 50, 50], [50, 114, 50]]]
    assert image.max() == 100


def test_a_legend_has_a_patch_a_class_and_breaks_lines() -> None:
    one = draw_legend({1: "aeroplane"}, 400)
    many = draw_legend({label: f"class number {label}" for label in range(20)}, 400)
    assert one.shape[1] == many.shape[1] == 400
    assert many.shape[0] > 3 * one.shape[0]
    assert one[10, 10].tolist() == [128, 0, 0]


class Fixed:
    """Three images of ground, their left half class 1."""

    class_names = ("ground", "left")

    def __len__(self) -> int:
        return 3

    def record(self, index: int) -> MaskRecord:
        raise NotImplementedError

    def mask(self, index: int) -> np.ndarray:
        mask = np.zeros((40, 60), np.uint8)
        mask[:, :30] = 1
        return mask

    def __getitem__(self, index: int) -> Sample:
        nothing = np.zeros(0, np.float32)
        return Sample(
            np.full((40, 60, 3), 200, np.uint8), nothing.reshape(0, 4), nothing.astype(np.int64), nothing.astype(bool),
            nothing, index, str(index), "", (40, 60), mask=self.mask(index),
        )  # fmt: skip


def test_a_page_shows_truth_beside_prediction(tmp_path: Path) -> None:
    maps = {index: LabelMap(torch.zeros((40, 60), dtype=torch.uint8)) for index in (0, 2)}
    page_of_label_maps(Fixed(), maps, tmp_path / "page.png", side=66)
    page = cv2.imread(str(tmp_path / "page.png"))[:, :, ::-1]
    assert page.shape[1] == 4 * 66  # two pairs a row
    truth, predicted = page[3:43, 3:63], page[3:43, 69:129]
    ground, left = [80, 80, 80], [157, 80, 80]  # 0.4 of the image, 0.6 of the colour
    assert truth[20, 10].tolist() == left
    assert truth[20, 50].tolist() == predicted[20, 10].tolist() == ground
