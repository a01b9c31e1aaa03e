"""Images and masks with any bytes changed are decoded to what their header says, or refused in this project's words."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import ByteEdits, changed_bytes, fuzz, read_or_refused
from hand_made_png import PALETTE, png_bytes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from transfer.data.image import image_header, read_image
from transfer.data.masks import ColourCoding, ValueCoding, mask_size, read_mask
from transfer.types import IGNORED_PIXEL

VALUES = ValueCoding({0: 0, 1: 1, 2: 2, 255: IGNORED_PIXEL})
COLOURS = ColourCoding({(0, 0, 0): 0, (128, 0, 0): 1, (0, 128, 0): 2})


def encoded(suffix: str, **options: Any) -> bytes:
    """Noise of 40 x 30 pixels as a file."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, suffix, **options)
    return buffer.getvalue()


def mask_file(suffix: str, mode: str) -> bytes:
    """A mask of 0, 1, 2 and 255 as a file."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(1).choice(np.array([0, 1, 2, 255], np.uint8), (30, 40))
    Image.fromarray(pixels).convert(mode).save(buffer, suffix)
    return buffer.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
IMAGES = (
    *(encoded("JPEG"), encoded("JPEG", progressive=True), encoded("JPEG", exif=EXIF), encoded("PNG"), encoded("GIF")),
    *(encoded("WEBP"), encoded("TIFF", compression="tiff_lzw"), encoded("BMP"), encoded("PNG", compress_level=0)),
)
MASKS = (
    *(mask_file("PNG", "L"), mask_file("PNG", "P"), mask_file("GIF", "P"), mask_file("TIFF", "L")),
    mask_file("BMP", "L"),
    png_bytes(np.arange(16).reshape(4, 4) % 3, PALETTE, 2, palette=[(0, 0, 0), (128, 0, 0), (0, 128, 0)]),
)  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose name says JPEG, whatever is in it."""
    return tmp_path_factory.mktemp("images") / "image.jpg"


@given(data=st.sampled_from(IMAGES), edits=ByteEdits)
@fuzz(40)
def test_images(path: Path, data: bytes, edits: list[Any]) -> None:
    path.write_bytes(changed_bytes(data, edits))
    pixels = read_or_refused(lambda: read_image(path, max_pixels=1_000_000))
    if pixels is None:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*image_header(path).size, 3)
    assert pixels.flags.c_contiguous


@given(data=st.sampled_from(MASKS), edits=ByteEdits, coding=st.sampled_from((VALUES, COLOURS)))
@fuzz(25)
def test_masks(path: Path, data: bytes, edits: list[Any], coding: Any) -> None:
    path.write_bytes(changed_bytes(data, edits))
    mask = read_or_refused(lambda: read_mask(path, coding, max_pixels=1_000_000))
    if mask is None:
        return
    assert mask.dtype == np.uint8
    assert mask.shape == mask_size(path)
    assert set(np.unique(mask).tolist()) <= {0, 1, 2, IGNORED_PIXEL}
