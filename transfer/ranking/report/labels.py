"""Names beside the marks of a chart, so that none covers another.

Greedy: each name takes the nearest free place round its mark, those in the thickest crowd first; one that is pushed
away gets a line to its mark. A name for which nothing is free is left out: the table beside the chart has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from transfer.ranking.report.svg import TEXT_HEIGHT, element, text_width, words

Box = tuple[float, float, float, float]
"""(x_min, y_min, x_max, y_max)."""
_MARK = 7.5
_DISTANCES = (11.0, 17.0, 26.0, 38.0, 52.0, 70.0, 92.0)
_NEAR = 60.0
_ANGLES = (0, 180, -90, 90, -30, 30, -150, 150, -60, 60, -120, 120)
"""Degrees; 0: to the right, 90: below."""
_LINE_FROM = 20.0
"""Distance from which a line is drawn; nearer, too, where another mark is nearer still."""


@dataclass(frozen=True)
class Name:
    """A name to be placed at a mark."""

    text: str
    x: float
    y: float
    is_muted: bool = False
    """Of a layer behind the others: it takes what place they leave."""


@dataclass(frozen=True)
class Placed:
    """A name with its box; the end of its line, where it has one."""

    name: Name
    box: Box
    line_to: tuple[float, float] | None


def place_names(names: Sequence[Name], bounds: Box, obstacles: Sequence[Box] = ()) -> list[Placed]:
    """A free place for each name, where there is one.

    Args:
        names: to place; their marks are obstacles, too.
        bounds: that no name may leave.
        obstacles: other boxes that no name may cover; a line to a name may cross them.
    """
    taken = [(name.x - _MARK, name.y - _MARK, name.x + _MARK, name.y + _MARK) for name in names]
    near = {name: sum(math.hypot(name.x - other.x, name.y - other.y) < _NEAR for other in names) for name in names}
    placed = []
    for name in sorted(names, key=lambda name: (name.is_muted, -near[name])):
        found = _first_free(name, names, bounds, taken, obstacles)
        if found is not None:
            placed.append(found)
            taken.append(found.box)
            if found.line_to is not None:
                taken += _beads((name.x, name.y), found.line_to)
    return placed


def draw_names(placed: Sequence[Placed]) -> str:
    """The names and their lines as SVG."""
    lines = [
        element("line", x1=each.name.x, y1=each.name.y, x2=each.line_to[0], y2=each.line_to[1], class_="leader")
        for each in placed
        if each.line_to is not None
    ]
    texts = [
        words(each.name.text, each.box[0] + 1, each.box[3] - 4, kind="t muted" if each.name.is_muted else "t")
        for each in placed
    ]
    return "".join(lines + texts)


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes share an area."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _first_free(
    name: Name, names: Sequence[Name], bounds: Box, taken: Sequence[Box], obstacles: Sequence[Box]
) -> Placed | None:
    width = text_width(name.text) + 2
    for distance in _DISTANCES:
        for angle in _ANGLES:
            right, down = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x, y = name.x + distance * right, name.y + distance * down
            # the box touches (x, y) with the side that looks towards the mark
            left = x if right > 0.3 else x - width if right < -0.3 else x - width / 2
            left = max(min(left, bounds[2] - width), bounds[0])
            top = y if down > 0.6 else y - TEXT_HEIGHT if down < -0.6 else y - TEXT_HEIGHT / 2
            box = (left, top, left + width, top + TEXT_HEIGHT)
            if not _inside(box, bounds) or any(overlap(box, other) for other in (*taken, *obstacles)):
                continue
            end = _nearest(box, name)
            if distance < _LINE_FROM and all(_gap(box, name) <= _gap(box, other) for other in names):
                return Placed(name, box, None)
            beads = _beads((name.x, name.y), end)
            if not any(overlap(bead, other) for bead in beads for other in taken):
                return Placed(name, box, end)
    return None


def _nearest(box: Box, name: Name) -> tuple[float, float]:
    """The point of a box that is nearest to a mark."""
    return min(max(name.x, box[0]), box[2]), min(max(name.y, box[1]), box[3])


def _gap(box: Box, name: Name) -> float:
    return math.dist(_nearest(box, name), (name.x, name.y))


def _inside(box: Box, bounds: Box) -> bool:
    return box[0] >= bounds[0] and box[1] >= bounds[1] and box[2] <= bounds[2] and box[3] <= bounds[3]


def _beads(start: tuple[float, float], end: tuple[float, float]) -> list[Box]:
    """Small boxes along a line, from outside its mark on."""
    length = math.dist(start, end)
    beads = []
    for along in range(math.ceil(1.6 * _MARK), int(length), 3):
        x, y = (start[axis] + along / length * (end[axis] - start[axis]) for axis in (0, 1))
        beads.append((x - 1, y - 1, x + 1, y + 1))
    return beads
