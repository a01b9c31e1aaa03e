"""Pictures of segmentations: label maps over photographs, pages of them, and palette PNGs.

Colours of classes are those of PASCAL VOC's colour map (the bits of the class number, spread over red, green and blue),
so that a palette PNG looks as the devkit's do: class 0 is black, the ignored pixel 255 is cream.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from transfer.report.pages import page_of_tiles, spread, to_tile, write_picture
from transfer.types import IGNORED_PIXEL, LabelMap, SegmentationDataset


def colour_map() -> np.ndarray:
    """[256, 3] uint8 RGB: the colour of each value of a mask."""
    colours = np.zeros((256, 3), np.uint8)
    for value in range(256):
        rest = value
        for bit in range(7, -1, -1):
            for channel in range(3):
                colours[value, channel] |= (rest >> channel & 1) << bit
            rest >>= 3
    return colours


COLOURS = colour_map()


def draw_label_map(image: np.ndarray, labels: np.ndarray, *, opacity: float = 0.6) -> np.ndarray:
    """The image under the colours of its classes; ignored pixels stay as they are.

    Args:
        image: [H, W, 3] uint8 RGB.
        labels: [H, W] uint8.
        opacity: of the colours, in [0, 1].
    Returns:
        [H, W, 3] uint8.
    """
    mixed = cv2.addWeighted(image, 1 - opacity, COLOURS[labels], opacity, 0)
    return np.where((labels == IGNORED_PIXEL)[..., None], image, mixed)


def write_palette_png(path: Path, labels: np.ndarray) -> None:
    """Write a label map as VOC's segmentations are written, whole or not at all.

    Args:
        path: ends in .png.
        labels: [H, W] uint8.
    """
    picture = Image.fromarray(labels, mode="P")
    picture.putpalette(COLOURS.flatten().tolist())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    temporary = path.with_name(f".{path.stem}.part.png")
    try:
        temporary.write_bytes(buffer.getvalue())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def draw_legend(names: Mapping[int, str], width: int) -> np.ndarray:
    """The names of classes beside their colours, in as many lines as needed.

    Args:
        names: label -> name; not all 150 of a page that shows ten.
        width: of the picture, pixels.
    Returns:
        [H, width, 3] uint8.
    """
    line, entries, left, row = 18, [], 4, 0
    for label, name in names.items():
        text = name.encode("ascii", "replace").decode()  # cv2's font knows no more
        needed = 24 + cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0]
        if left + needed > width and left > 4:
            left, row = 4, row + 1
        entries.append((label, text, left, row))
        left += needed
    legend = np.full(((row + 1) * line + 4, width, 3), 32, np.uint8)
    for label, text, x, row in entries:
        y = row * line + 4
        colour = tuple(int(v) for v in COLOURS[label])
        cv2.rectangle(legend, (x, y), (x + 12, y + 12), colour, -1)
        cv2.rectangle(legend, (x, y), (x + 12, y + 12), (200, 200, 200), 1)
        cv2.putText(legend, text, (x + 17, y + 11), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA)
    return legend


def page_of_label_maps(
    dataset: SegmentationDataset,
    label_maps: Mapping[int, LabelMap],
    path: Path,
    *,
    count: int = 12,
    pairs: int = 2,
    side: int = 360,
) -> None:
    """A grid of images, each under its truth and, to the right, under what was predicted, above a legend.

    Without predictions nothing is written.

    Args:
        dataset: the images.
        label_maps: predictions by position in the data set.
        path: where to write.
        count: images on the page, at most.
        pairs: images a row.
        side: of a tile, pixels.
    """
    if not label_maps:
        return
    known = sorted(label_maps)
    tiles, seen = [], np.zeros(256, bool)
    for place in spread(len(known), count):
        sample, predicted = dataset[known[place]], label_maps[known[place]].labels.numpy()
        assert sample.mask is not None, "a segmentation data set gives masks"
        for labels in (sample.mask, predicted):
            tiles.append(to_tile(draw_label_map(sample.image, labels), side)[0])
            seen[np.unique(labels)] = True
    page = page_of_tiles(tiles, columns=2 * pairs, side=side)
    names = {label: name for label, name in enumerate(dataset.class_names) if seen[label]}
    write_picture(path, np.concatenate([page, draw_legend(names, page.shape[1])]))
