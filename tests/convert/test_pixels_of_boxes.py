"""Stated sizes against image headers, and where a box on stored pixels is displayed: Pillow turns the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from transfer.convert.pixels import displayed_corners, displayed_point, displayed_size, look_up_pixels
from transfer.data.image import BrokenSample

WIDTH, HEIGHT = 12, 8


def write(path: Path, orientation: int) -> Path:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[1:3, 2:7] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_as_pillow_turns_the_pixels(tmp_path: Path, orientation: int) -> None:
    shown = np.asarray(ImageOps.exif_transpose(Image.open(write(tmp_path / "a.png", orientation))))[..., 0]
    rows, columns = np.nonzero(shown)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert displayed_size((HEIGHT, WIDTH), orientation) == shown.shape
    assert displayed_corners((2.0, 1.0, 7.0, 3.0), (HEIGHT, WIDTH), orientation) == expected
    x, y = displayed_point(2.5, 1.5, (HEIGHT, WIDTH), orientation)  # the middle of a bright corner pixel
    assert shown[int(y), int(x)] == 255


def test_which_pixels_a_size_means(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.png", 6))  # displayed as 8 x 12
    displayed = look_up_pixels(path, (12, 8), [])
    assert (displayed.size, displayed.orientation, displayed.depth) == ((12, 8), 1, 3)
    stored = look_up_pixels(path, (8, 12), [])
    assert (stored.size, stored.orientation, stored.contradicted) == ((8, 12), 6, False)
    assert look_up_pixels(path, None, []).size == (12, 8)
    wrong = look_up_pixels(path, (5, 5), [(0.0, 0.0, 7.0, 4.0)])  # a box that such an image cannot have
    assert (wrong.size, wrong.contradicted) == ((12, 8), True)
    with pytest.raises(BrokenSample, match="is 8x12 but its annotation says 50x50"):
        look_up_pixels(path, (50, 50), [(0.0, 0.0, 7.0, 4.0)])
    Image.new("L", (4, 4)).save(tmp_path / "grey.png")
    assert look_up_pixels(str(tmp_path / "grey.png"), None, []).depth == 1
