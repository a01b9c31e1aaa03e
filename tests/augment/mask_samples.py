"""Samples whose image is painted from the mask, one colour a class, so that a step that moves them apart is seen."""

from __future__ import annotations

import cv2
import numpy as np

from transfer.types import Sample

COLOURS = np.random.default_rng(9).integers(0, 256, (256, 3), dtype=np.uint8)
"""[256, 3] uint8: no two alike; that of 255 is what padding is filled with in these tests."""
FILL = tuple(int(value) for value in COLOURS[255])
CODES = COLOURS[[0, 1, 2, 3, 10, 11, 12, 13, 14, 255]].astype(np.int64) @ [65536, 256, 1]
"""Of the classes in use: a blend of two may have the colour of a third by chance."""


def masked_sample(height: int, width: int, *, seed: int = 0, classes: tuple[int, ...] = (0, 1, 2, 3, 255)) -> Sample:
    """Regions of random shape, each of one class, about a sixth of the sides wide."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array(classes), (7, 7)).astype(np.float32)
    rows = np.arange(height)[:, None] / height * 6.99 + 0.7 * np.sin(np.arange(width) / width * 9)[None]
    columns = np.arange(width)[None] / width * 6.99 + 0.7 * np.cos(np.arange(height) / height * 9)[:, None]
    mask = cv2.remap(
        coarse, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.uint8)
    return painted_sample(mask, index=seed)


def painted_sample(mask: np.ndarray, *, index: int = 0) -> Sample:
    """A sample without boxes whose image shows the mask."""
    return Sample(
        image=COLOURS[mask],
        boxes=np.empty((0, 4), dtype=np.float32),
        labels=np.empty(0, dtype=np.int64),
        difficult=np.empty(0, dtype=np.bool_),
        weights=np.empty(0, dtype=np.float32),
        index=index,
        image_id=f"{index}",
        path=f"{index}.jpg",
        original_size=(mask.shape[0], mask.shape[1]),
        mask=mask,
    )


def pure_share(sample: Sample) -> float:
    """The share of pixels that have exactly the colour of a class; those must be of that class in the mask.

    A pixel between two regions that interpolation blended belongs to neither and is not judged.
    """
    assert sample.mask is not None
    assert sample.mask.dtype == np.uint8
    assert sample.mask.shape == sample.image.shape[:2]
    pure = np.isin(sample.image.astype(np.int64) @ [65536, 256, 1], CODES)
    assert np.array_equal(sample.image[pure], COLOURS[sample.mask[pure]]), "image and mask moved apart"
    return float(pure.mean())


def assert_exact(sample: Sample) -> None:
    """Every pixel of the image has the colour of its class."""
    assert sample.mask is not None
    assert np.array_equal(sample.image, COLOURS[sample.mask])
