"""Pictures of detections: boxes drawn on photographs, and pages of them."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from transfer.types import DetectionDataset, Prediction

Colour = tuple[int, int, int]


def class_colour(label: int) -> Colour:
    """An RGB colour for a class; neighbouring labels are far apart on the colour circle."""
    red, green, blue = colorsys.hsv_to_rgb((label * 0.618034) % 1.0, 0.85, 1.0)
    return int(255 * red), int(255 * green), int(255 * blue)


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    scores: np.ndarray | None = None,
    thin: bool = False,
) -> np.ndarray:
    """A copy of the image with boxes and names.

    Args:
        image: [H, W, 3] uint8 RGB.
        boxes: [N, 4] xyxy pixels of the image.
        labels: [N].
        class_names: of the labels.
        scores: [N], written behind the names.
        thin: a white hairline without a name, for truth under predictions.
    """
    drawn = np.ascontiguousarray(image).copy()
    line = max(1, round(max(image.shape[:2]) / 320))
    scale = max(0.35, max(image.shape[:2]) / 1000)
    for i, (box, label) in enumerate(zip(np.asarray(boxes), np.asarray(labels))):
        left, top, right, bottom = (round(float(v)) for v in box)
        if thin:
            cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), (255, 255, 255), 1)
            continue
        colour = class_colour(int(label))
        cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), colour, line)
        text = class_names[int(label)] + (f" {float(scores[i]):.2f}" if scores is not None else "")
        text = text.encode("ascii", "replace").decode()  # cv2's font knows no more
        (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        y = top - 2 if top - height - base >= 0 else top + height + base
        cv2.rectangle(drawn, (left, y - height - base), (left + width, y + base // 2), colour, -1)
        cv2.putText(drawn, text, (left, y - base // 2), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return drawn


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write an RGB image whole or not at all, in the format of the name's ending."""
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    encoded, data = cv2.imencode(path.suffix, image[:, :, ::-1])
    assert encoded, f"cannot encode {path.suffix}"
    try:
        temporary.write_bytes(data.tobytes())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def page_of_predictions(
    dataset: DetectionDataset,
    predictions: Sequence[Prediction],
    path: Path,
    *,
    count: int = 12,
    columns: int = 4,
    side: int = 360,
    score_threshold: float = 0.4,
) -> None:
    """A grid of images, spread over the data set: predictions in colour over white hairlines of the truth.

    Args:
        dataset: the images.
        predictions: one an image, in the data set's order.
        path: where to write.
        count: images on the page.
        columns: a row.
        side: of a tile, pixels.
        score_threshold: weaker predictions are not drawn.
    """
    tiles = []
    for index in spread(len(dataset), count):
        sample, prediction = dataset[index], predictions[index]
        image, factor = to_tile(sample.image, side)
        strong = prediction.scores >= score_threshold
        image = draw_boxes(image, sample.boxes * factor, sample.labels, dataset.class_names, thin=True)
        image = draw_boxes(
            image,
            prediction.boxes[strong].numpy() * factor,
            prediction.labels[strong].numpy(),
            dataset.class_names,
            scores=prediction.scores[strong].numpy(),
        )
        tiles.append(image)
    write_picture(path, page_of_tiles(tiles, columns=columns, side=side))


def spread(length: int, count: int) -> list[int]:
    """At most `count` different positions, evenly over [0, length)."""
    return [int(index) for index in np.unique(np.linspace(0, length - 1, min(count, length)).astype(int))]


def to_tile(image: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """The image as large as fits into a tile of a page.

    Args:
        image: [H, W, 3] uint8.
        side: of the tile, pixels; a margin of 3 stays free.
    Returns:
        The image, and its pixels per original pixel.
    """
    factor = (side - 6) / max(image.shape[:2])
    height, width = (max(1, round(s * factor)) for s in image.shape[:2])
    mode = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=mode), factor


def page_of_tiles(tiles: Sequence[np.ndarray], *, columns: int, side: int) -> np.ndarray:
    """A grid of pictures on dark ground.

    Args:
        tiles: [h, w, 3] uint8 each, as `to_tile` gives them.
        columns: a row.
        side: of a tile, pixels.
    Returns:
        [H, W, 3] uint8; a row is as high as its highest picture.
    """
    rows = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
    tops = np.cumsum([0, *(max(tile.shape[0] for tile in row) + 6 for row in rows)])
    page = np.full((tops[-1], min(columns, len(tiles)) * side, 3), 32, dtype=np.uint8)
    for top, row in zip(tops, rows):
        for place, tile in enumerate(row):
            left = place * side + 3
            page[top + 3 : top + 3 + tile.shape[0], left : left + tile.shape[1]] = tile
    return page
