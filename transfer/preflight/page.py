"""The picture of a preflight: the first training images as the network gets them, with their boxes or masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from transfer.checking.findings import counted
from transfer.report.overlays import draw_label_map
from transfer.report.pages import draw_boxes, page_of_tiles, to_tile, write_picture
from transfer.types import IGNORED_PIXEL, Batch, Target

_TILES = 12
_COLUMNS = 4
_SIDE = 420
_CAPTION = 22
"""Pixels under a tile's picture, for its text."""


def draw_batches(batches: Sequence[Batch], class_names: Sequence[str], path: Path) -> None:
    """Write a page of the first images.

    Args:
        batches: as training gets them, on the CPU.
        class_names: of the labels.
        path: a .jpg or .png file.
    """
    pairs = [pair for batch in batches for pair in zip(batch.images, batch.targets)][:_TILES]
    tiles = [_tile(image.permute(1, 2, 0).numpy(), target, class_names) for image, target in pairs]
    write_picture(path, page_of_tiles(tiles, columns=min(_COLUMNS, len(tiles)), side=_SIDE + _CAPTION))


def _tile(image: np.ndarray, target: Target, class_names: Sequence[str]) -> np.ndarray:
    picture, factor = to_tile(image, _SIDE)
    if target.classes is not None and target.shares is not None:
        pairs = zip(target.classes.tolist(), target.shares.tolist())
        text = ", ".join(
            f"{_name(class_names, label)}" + (f" {share:.2f}" if share < 1 else "") for label, share in pairs
        )
    elif target.mask is None:
        labels = target.labels.numpy()
        names = [*class_names, *(f"label {label}" for label in range(len(class_names), int(labels.max(initial=0)) + 1))]
        known = labels >= 0
        boxes = target.boxes.numpy()
        picture = draw_boxes(picture, boxes[known] * factor, labels[known], names)
        text = counted(len(boxes), "box", "boxes")
        if len(boxes) and float(target.weights.min()) < 1:
            text += f", weights {', '.join(f'{weight:.2f}' for weight in np.unique(target.weights.numpy())[:4])}"
    else:
        height, width = target.size
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        mask = cv2.resize(target.mask.numpy()[:height, :width], size, interpolation=cv2.INTER_NEAREST)
        part = picture[: mask.shape[0], : mask.shape[1]]
        picture[: mask.shape[0], : mask.shape[1]] = draw_label_map(part, mask[: part.shape[0], : part.shape[1]])
        text = _largest_classes(target.mask.numpy(), class_names)
    size_text = f"{image.shape[1]}x{image.shape[0]}"
    names_of_files = ", ".join(Path(part).name for part in target.path.split(" mixed with ")[:2])
    return _with_caption(picture, f"{names_of_files}: {size_text}, {text}")


def _largest_classes(mask: np.ndarray, class_names: Sequence[str]) -> str:
    """The three largest classes with their shares of the pixels."""
    shares = np.bincount(mask.ravel(), minlength=256) / mask.size
    shares[IGNORED_PIXEL] = 0
    largest = [label for label in np.argsort(-shares, kind="stable")[:3] if shares[label]]
    names = [_name(class_names, int(label)) for label in largest]
    return ", ".join(f"{name} {shares[label]:.0%}" for name, label in zip(names, largest)) or "ignored"


def _name(class_names: Sequence[str], label: int) -> str:
    return class_names[label] if 0 <= label < len(class_names) else f"label {label}"


def _with_caption(picture: np.ndarray, text: str) -> np.ndarray:
    canvas = np.full((picture.shape[0] + _CAPTION, picture.shape[1], 3), 32, dtype=np.uint8)
    canvas[: picture.shape[0]] = picture
    plain = text.encode("ascii", "replace").decode()  # cv2's font knows no more
    scale = 0.42
    while cv2.getTextSize(plain, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] > canvas.shape[1] and len(plain) > 12:
        plain = "..." + plain[6:]  # the end says more than the beginning of a file's name
    cv2.putText(
        canvas, plain, (2, picture.shape[0] + 15), cv2.FONT_HERSHEY_SIMPLEX, scale, (230, 230, 230), 1, cv2.LINE_AA
    )
    return canvas
