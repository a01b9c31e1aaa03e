"""Mosaic: four images around a random centre make one, so that a picture holds more objects, at more scales.

Source: Bochkovskiy et al. 2020, YOLOv4, arXiv 2004.10934, section 3.3 (four training images are mixed). The paper gives
no geometry; here the centre is drawn from the middle of the canvas, and each of the four tiles shows a random window of
its image, the aspect kept, at a drawn scale. A window is never larger than its image, so no tile has padding.

Deviations: boxes are cut to their tile, and one of which less than `min_share` of its area, or less than `min_side`
pixels of a side, is left is dropped and counted. A fifth, the default, is a choice and not a measurement: of less one
can often not tell what it is, and a detector taught to find it learns to fire on background. Which images come together
is drawn with the batch; only centre, scales and windows are drawn where the images are decoded, from the request's
seed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from transfer.augment.placing import place_boxes
from transfer.augment.resizing import INTERPOLATIONS, interpolation_problems
from transfer.types import Request, Sample, Size, UserError, is_number


class Mosaic:
    """Draws the three partners for a request, and joins the four decoded samples."""

    def __init__(
        self,
        size: int | Size | None = None,
        *,
        p: float = 1.0,
        margin: float = 0.2,
        zoom: tuple[float, float] = (0.5, 1.0),
        min_share: float = 0.2,
        min_side: float = 2.0,
        interpolation: str = "bilinear",
        last_epochs_without: float = 0.0,
    ) -> None:
        """Set the geometry.

        Args:
            size: side of a square or (height, width) of the canvas, pixels, where the request has no shape; None: as
                large as the first image.
            p: share of the images that become a mosaic, in (0, 1].
            margin: the centre keeps this share of the canvas's side from each edge, in [0, 0.5].
            zoom: range of an image's scale, drawn evenly; 1 is the size it would have alone on the canvas. Where an
                image would not fill its tile, it is enlarged until it does.
            min_share: a box with less of its area left in its tile is dropped, in [0, 1].
            min_side: a box with a side below it is dropped, pixels.
            interpolation: nearest, bilinear, bicubic, area or lanczos.
            last_epochs_without: epochs at the end of the run without mosaics, 0 or more. A run that is not longer than
                that is refused.

        Raises:
            UserError: with every argument that does not fit.
        """
        problems = interpolation_problems(interpolation)
        pair = (size, size) if isinstance(size, int) else size
        if pair is not None and (len(pair) != 2 or min(pair) < 2):
            problems.append(f"size={size!r} must be at least 2 pixels, as 416 or (height, width)")
        if not (is_number(p) and 0 < p <= 1):
            problems.append(f"p={p!r} must be above 0, up to 1")
        for name, value, high in (("margin", margin, 0.5), ("min_share", min_share, 1.0)):
            if not (is_number(value) and 0 <= value <= high):
                problems.append(f"{name}={value!r} must be in [0, {high:g}]")
        if len(zoom) != 2 or not 0 < zoom[0] <= zoom[1] < math.inf:
            problems.append(f"zoom={zoom!r} must be (low, high), above 0")
        for name, value in (("min_side", min_side), ("last_epochs_without", last_epochs_without)):
            if not (is_number(value) and 0 <= value < math.inf):
                problems.append(f"{name}={value!r} must be a number, 0 or more")
        if problems:
            raise UserError("Mosaic: " + "; ".join(problems))
        self.size: Size | None = None if pair is None else (int(pair[0]), int(pair[1]))
        self.p = p
        self.margin = margin
        self.zoom = (zoom[0], zoom[1])
        self.min_share = min_share
        self.min_side = min_side
        self.interpolation = interpolation
        self.last_epochs_without = last_epochs_without

    def gather(self, rng: np.random.Generator, index: int, length: int) -> tuple[int, ...]:
        """The three other images of a mosaic: any others, each as likely; different ones where there are enough.

        Args:
            rng: the only source of randomness.
            index: the first image, in [0, length).
            length: images in the data set.

        Returns:
            Three indices; none where the image stays alone.
        """
        if length < 2 or rng.random() >= self.p:
            return ()
        others = rng.choice(length - 1, size=3, replace=length < 4)
        return tuple(int(other) + int(other >= index) for other in others)  # skips the image itself

    def join(self, samples: Sequence[Sample], request: Request, rng: np.random.Generator) -> Sample:
        """The mosaic.

        Args:
            samples: the image and its partners, four; they stay as they are.
            request: its `size`, where it has one, is the canvas's.
            rng: the only source of randomness.

        Returns:
            The boxes of all four, tile by tile: top left, top right, bottom left, bottom right; which image is where is
            drawn. `index` and `image_id` are the first one's, `path` names all, and `original_size` is the canvas.
        """
        assert len(samples) == 4, "a mosaic is made of four images"
        first = samples[0]
        canvas = request.size or self.size or first.image.shape[:2]
        if min(canvas) < 2:
            return first  # nothing to divide
        row, column = (self._cut(side, rng) for side in canvas)
        image = np.empty((*canvas, 3), dtype=np.uint8)
        tiles = []
        for corner, position in enumerate(rng.permutation(4)):
            rows = slice(0, row) if corner < 2 else slice(row, canvas[0])
            columns = slice(column, canvas[1]) if corner % 2 else slice(0, column)
            tile = self._tile(samples[position], (rows.stop - rows.start, columns.stop - columns.start), canvas, rng)
            image[rows, columns] = tile.image
            shift = np.array([columns.start, rows.start] * 2, dtype=np.float32)
            tiles.append(replace(tile, boxes=tile.boxes + shift))
        return replace(
            first,
            image=image,
            boxes=np.concatenate([tile.boxes for tile in tiles]),
            labels=np.concatenate([tile.labels for tile in tiles]),
            difficult=np.concatenate([tile.difficult for tile in tiles]),
            weights=np.concatenate([tile.weights for tile in tiles]),
            path=f"{first.path} in a mosaic with {', '.join(sample.path for sample in samples[1:])}",
            original_size=canvas,
            dropped=dict(sum((Counter(tile.dropped) for tile in tiles), Counter())),
        )

    def _cut(self, side: int, rng: np.random.Generator) -> int:
        # Where a side is divided: at least a pixel from either end.
        return int(np.clip(np.rint(side * rng.uniform(self.margin, 1 - self.margin)), 1, side - 1))

    def _tile(self, sample: Sample, size: Size, canvas: Size, rng: np.random.Generator) -> Sample:
        # A window of the image, brought to the tile's size; boxes in the tile's pixels.
        height, width = sample.image.shape[:2]
        alone = min(canvas[0] / height, canvas[1] / width)
        scale = max(alone * rng.uniform(*self.zoom), size[0] / height, size[1] / width)
        rows, columns = (
            min(side, max(1, round(length / scale))) for side, length in zip((height, width), size, strict=True)
        )
        top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
        window = sample.image[top : top + rows, left : left + columns]
        larger = size[0] > rows or size[1] > columns
        mode = "bilinear" if self.interpolation == "area" and larger else self.interpolation
        image = cv2.resize(window, size[::-1], interpolation=INTERPOLATIONS[mode])

        # A box hanging over the image's edge is no larger than what the image shows of it.
        whole = np.clip(sample.boxes, 0, np.array([width, height] * 2, dtype=np.float32))
        ratio = np.array([size[1] / columns, size[0] / rows] * 2)
        boxes = ((whole - np.array([left, top] * 2)) * ratio).astype(np.float32)
        inside = np.clip(boxes, 0, np.array(size[::-1] * 2, dtype=np.float32))
        keep = _areas(inside) >= self.min_share * _areas(boxes)
        return place_boxes(sample, image, boxes, "Mosaic", keep=keep, min_side=self.min_side)


def _areas(boxes: np.ndarray) -> np.ndarray:
    # [N, 4] xyxy -> [N]
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
