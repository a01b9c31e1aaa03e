"""Pages of classified images: each with its true class and what the classifier says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from transfer.report.pages import page_of_tiles, to_tile, write_picture
from transfer.types import ClassificationDataset

RIGHT, WRONG = (60, 200, 90), (235, 70, 60)
"""RGB of the captions."""
_CAPTION = 40


def page_of_classes(
    dataset: ClassificationDataset,
    scores: Mapping[int, np.ndarray],
    path: Path,
    *,
    count: int = 24,
    columns: int = 6,
    side: int = 240,
) -> None:
    """A grid of images with two lines each: the likeliest class with its score, and the true one where it is another.

    Args:
        dataset: the images.
        scores: position in the data set -> [K] probabilities; drawn in this order.
        path: where to write.
        count: images on the page.
        columns: a row.
        side: of a tile, pixels.
    """
    tiles = []
    for index in list(scores)[:count]:
        sample = dataset[index]
        assert sample.label is not None, "a classification data set gives labels"
        image, _ = to_tile(sample.image, side - _CAPTION)
        tiles.append(with_classes(image, scores[index], dataset.class_names, side - 6, truth=sample.label))
    if tiles:
        write_picture(path, page_of_tiles(tiles, columns=columns, side=side))


def with_classes(
    image: np.ndarray, scores: np.ndarray, class_names: Sequence[str], width: int, *, truth: int | None = None
) -> np.ndarray:
    """The image over its captions.

    Args:
        image: [h, w, 3] uint8 RGB.
        scores: [K] probabilities.
        class_names: of the K classes.
        width: of the result at least, pixels.
        truth: the true class; None: unknown, and the second line says what comes second.
    Returns:
        [h + 40, max(w, width), 3] uint8.
    """
    height = image.shape[0]
    canvas = np.full((height + _CAPTION, max(width, image.shape[1]), 3), 32, dtype=np.uint8)
    canvas[:height, : image.shape[1]] = image
    order = np.argsort(-scores, kind="stable")
    best = int(order[0])
    colour = (230, 230, 230) if truth is None else RIGHT if best == truth else WRONG
    lines = [(f"{class_names[best]} {scores[best]:.2f}", colour)]
    if truth is not None and truth != best:
        lines.append((f"is {class_names[truth]} {scores[truth]:.2f}", (230, 230, 230)))
    elif truth is None and len(order) > 1:
        second = int(order[1])
        lines.append((f"{class_names[second]} {scores[second]:.2f}", (160, 160, 160)))
    for line, (text, tone) in enumerate(lines):
        plain = text.encode("ascii", "replace").decode()  # cv2's font knows no more
        while cv2.getTextSize(plain, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0] > canvas.shape[1] and len(plain) > 12:
            plain = plain[:-9] + ".." + plain[-5:]  # the score stays
        cv2.putText(canvas, plain, (2, height + 15 + 17 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.42, tone, 1, cv2.LINE_AA)
    return canvas
