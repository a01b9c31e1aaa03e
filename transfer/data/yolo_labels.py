"""One YOLO label file: bytes to objects in fractions of the image.

Source: Ultralytics' description of its data sets. A line is "class cx cy w h", or, in segmentation data,
"class x1 y1 x2 y2 x3 y3 ...": the box around the polygon counts. Coordinates may leave [0, 1] by 0.01, as there; they
are clipped to the image later. Deviations: each line is read by its own number of values (Ultralytics reads all lines
of a file as polygons when one is); equal lines are all kept; a byte-order mark and any line ends are accepted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from transfer.types import Size

MAX_LABEL_BYTES = 16 << 20

_TOLERANCE = 0.01
_DIGITS = 6


@dataclass(slots=True)
class YOLOObject:
    """One line."""

    index: int
    """The class."""
    box: tuple[float, float, float, float]
    """cx, cy, w, h in fractions of the image."""
    polygon: tuple[float, ...] = ()
    """x1, y1, x2, y2, ... in fractions of the image; empty where the line states a box."""

    def corners(self, size: Size) -> tuple[float, float, float, float]:
        """xyxy pixels, to the millionth, in an image of `size` (height, width); not clipped."""
        height, width = size
        if self.polygon:
            x, y = self.polygon[::2], self.polygon[1::2]
            left, top, right, bottom = min(x), min(y), max(x), max(y)
        else:
            cx, cy, w, h = self.box
            left, top, right, bottom = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
        # without the last digits of a division: an edge at 0 or at the image's end is exactly there
        x0, y0, x1, y1 = (
            round(edge * side, _DIGITS) for edge, side in zip((left, top, right, bottom), (width, height) * 2)
        )
        return (x0, y0, x1, y1)


def parse_labels(
    data: bytes, names: Mapping[int, str], *, keypoint_values: int = 0
) -> tuple[list[YOLOObject], list[tuple[int, str]]]:
    """Read a label file.

    Args:
        data: the file's bytes.
        names: class index -> name.
        keypoint_values: so many numbers follow each box (`kpt_shape`) and are checked for their count only.

    Returns:
        The objects, and (line, what is wrong) for each line that cannot be used.
    """
    if len(data) > MAX_LABEL_BYTES:
        return [], [(1, f"the file has {len(data)} bytes; the limit is {MAX_LABEL_BYTES}")]
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        text = f"is not text in UTF-8 ({data[error.start : error.start + 4]!r}); save it as text"
        return [], [(data[: error.start].count(b"\n") + 1, text)]
    objects, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        parsed = _parse_line(line.split(), names, keypoint_values)
        if isinstance(parsed, str):
            problems.append((number, parsed))
        else:
            objects.append(parsed)
    return objects, problems


def _parse_line(words: list[str], names: Mapping[int, str], keypoint_values: int) -> YOLOObject | str:
    """The object, or what is wrong."""
    values = []
    for word in words:
        try:
            values.append(float(word))
        except ValueError:
            return f"{word!r:.40} is no number; a line is: class cx cy w h"
    index, *numbers = values
    if not (math.isfinite(index) and index == int(index) and int(index) in names):
        return f"class is {words[0]!r:.40}, but {_known(names)}; mend it, or add its name to data.yaml"
    expected = 4 + keypoint_values
    polygon = not keypoint_values and len(numbers) >= 6 and len(numbers) % 2 == 0
    if len(numbers) != expected and not polygon:
        form = "cx cy w h" + (f" and {keypoint_values} numbers of keypoints" if keypoint_values else "")
        also = "" if keypoint_values else ", or for a polygon x1 y1 x2 y2 x3 y3 ..."
        return f"has {len(words)} values; a line is: class {form}{also}"
    coordinates = numbers if polygon else numbers[:4]
    wrong = [word for word, value in zip(words[1:], coordinates) if not -_TOLERANCE <= value <= 1 + _TOLERANCE]
    if wrong:
        return f"coordinate {wrong[0]!r:.40} is not in 0 to 1; write fractions of the image's size, not pixels"
    if polygon:
        x, y = coordinates[::2], coordinates[1::2]
        sides = (max(x) - min(x), max(y) - min(y))
        return YOLOObject(int(index), (min(x) + sides[0] / 2, min(y) + sides[1] / 2, *sides), tuple(coordinates))
    cx, cy, w, h = coordinates
    if w < 0 or h < 0:
        return f"width and height are {words[3]} and {words[4]}: they cannot be negative"
    return YOLOObject(int(index), (cx, cy, w, h))


def _known(names: Mapping[int, str]) -> str:
    """The indices that have names, for a message."""
    shown = ", ".join(f"{index} {name}" for index, name in list(names.items())[:8])
    return f"data.yaml names {len(names)}: {shown}{', ...' if len(names) > 8 else ''}"
