"""The shapes of COCO's objects: checked as the file states them, kept as flat arrays, drawn as masks.

Source: Lin et al. 2014, Microsoft COCO (arXiv 1405.0312), and the format description on its site: an object's
`segmentation` is a list of polygons [x, y, x, y, ...], or run lengths {"size": [height, width], "counts": ...}. Runs of
zeros and ones in turn go down the columns; `counts` is a list, or a text of 5 bits a character.

Polygons are drawn by pycocotools, so that pixels are those of COCO's own tools. Runs are decoded here: its C code
trusts what a file says of their number. Deviations: a polygon of fewer than three points has no area and is left out
(pycocotools takes four numbers for a box); one that reaches further beyond its image than the image is large is
refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transfer.data.strangers import short
from transfer.types import Size

_LONGEST_RUN_CODE = 8
"""Characters of a run: 40 bits, more than any image has pixels."""


class BadShape(ValueError):
    """A `segmentation` that cannot be used; the text is the reason."""


@dataclass(slots=True)
class Shape:
    """One object: polygons, or runs."""

    polygons: list[np.ndarray]
    """[2 P] float64 each: x, y, x, y, ..."""
    runs: np.ndarray | None = None
    """[R] int64: lengths of runs of zeros and ones in turn, down the columns."""
    size: Size | None = None
    """Of the image that the runs are for."""


def parse_shape(stated: Any) -> Shape:
    """Check what a file states.

    Raises:
        BadShape: neither polygons nor runs, or numbers that cannot be.
    """
    if isinstance(stated, dict):
        return _parse_runs(stated)
    if not isinstance(stated, list):
        raise BadShape(f"segmentation {short(stated)} is neither a list of polygons nor run lengths")
    polygons = []
    for polygon in stated:
        try:
            numbers = np.array(polygon)
        except ValueError:  # lists of different lengths
            numbers = np.zeros((0, 0))
        if numbers.ndim != 1 or (len(numbers) and numbers.dtype.kind not in "iuf") or not np.isfinite(numbers).all():
            raise BadShape(f"polygon {short(polygon)} is not [x, y, x, y, ...] in finite numbers")
        if len(numbers) % 2:
            raise BadShape(f"polygon of {len(numbers)} numbers: x and y come in pairs")
        if len(numbers) >= 6:
            polygons.append(numbers.astype(np.float64))
    return Shape(polygons)


def check_shape(shape: Shape, size: Size) -> None:
    """Ask whether a shape can belong to an image of (height, width).

    Raises:
        BadShape: runs of another size, or a polygon far outside.
    """
    height, width = size
    if shape.runs is not None:
        assert shape.size is not None
        if shape.size != size:
            raise BadShape(f"run lengths for {shape.size[1]}x{shape.size[0]}, but the image is {width}x{height}")
    for polygon in shape.polygons:
        x, y = polygon[::2], polygon[1::2]
        if x.min() < -width or x.max() > 2 * width or y.min() < -height or y.max() > 2 * height:
            raise BadShape(f"polygon from ({x.min():g}, {y.min():g}) to ({x.max():g}, {y.max():g}) in {width}x{height}")


def _parse_runs(stated: dict[Any, Any]) -> Shape:
    size, counts = stated.get("size"), stated.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise BadShape(f"run lengths for a size of {short(size)}, not [height, width]")
    if isinstance(counts, str):
        runs = _decode_counts(counts)
    else:
        try:
            runs = np.array(counts)
        except ValueError:
            runs = np.zeros(0)
        if not isinstance(counts, list) or runs.ndim != 1 or runs.dtype.kind not in "iu":
            raise BadShape(f"run lengths {short(counts)} are neither whole numbers nor a text")
        runs = runs.astype(np.int64)
    if (runs < 0).any() or runs.astype(object).sum() != size[0] * size[1]:
        raise BadShape(
            f"run lengths do not add up to the {short(size[0] * size[1])} pixels of {short(size[1])}x{short(size[0])}"
        )
    return Shape([], runs, (size[0], size[1]))


def _decode_counts(text: str) -> np.ndarray:
    """COCO's text of run lengths: 5 bits a character, from the lowest; from the third run on, the difference to the
    run before the last one."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift >= 5 * _LONGEST_RUN_CODE:
            raise BadShape(f"run lengths: {short(text)} is not such a text")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:  # more characters of this run follow
            continue
        if code & 16:  # negative
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if abs(runs[-1]) >= 1 << 5 * _LONGEST_RUN_CODE:
            raise BadShape(f"run lengths: {short(text)} holds a run longer than any image")
        value = shift = 0
    if shift:
        raise BadShape(f"run lengths: {short(text)} ends within a number")
    return np.array(runs, np.int64)


class ShapeTable:
    """Many shapes, flat: they pickle as a few blocks, and a forked worker does not copy them page by page."""

    def __init__(self, shapes: Sequence[Shape]) -> None:
        parts = [part for shape in shapes for part in ([shape.runs] if shape.runs is not None else shape.polygons)]
        self._numbers = np.concatenate([np.zeros(0), *parts])  # float64 holds any run length exactly
        self._ends = np.cumsum([0, *(len(part) for part in parts)])
        self._parts = np.cumsum([0, *(1 if shape.runs is not None else len(shape.polygons) for shape in shapes)])
        self._is_runs = np.array([shape.runs is not None for shape in shapes], bool)

    def __len__(self) -> int:
        return len(self._is_runs)

    def area(self, index: int, size: Size) -> int:
        """Pixels that `draw` sets."""
        from pycocotools import mask as coco_mask  # here and below: the other formats do not need it

        if self._is_runs[index]:
            return int(self._of(index)[0][1::2].sum())
        return int(coco_mask.area(self._code(index, size))) if self._of(index) else 0

    def draw(self, index: int, size: Size) -> np.ndarray:
        """[H, W] bool: what lies in any of the polygons, or the runs of ones."""
        from pycocotools import mask as coco_mask

        height, width = size
        if not self._is_runs[index]:
            return coco_mask.decode(self._code(index, size)).astype(bool) if self._of(index) else np.zeros(size, bool)
        runs = self._of(index)[0].astype(np.int64)
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T

    def _of(self, index: int) -> list[np.ndarray]:
        """The polygons of a shape, or its runs alone."""
        parts = range(self._parts[index], self._parts[index + 1])
        return [self._numbers[self._ends[part] : self._ends[part + 1]] for part in parts]

    def _code(self, index: int, size: Size) -> Any:
        """pycocotools' own form of the polygons, drawn."""
        from pycocotools import mask as coco_mask

        height, width = size
        return coco_mask.merge(coco_mask.frPyObjects([each.tolist() for each in self._of(index)], height, width))
