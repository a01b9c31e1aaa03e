"""A chart of figures against something else: marks, error bars, names, a legend; a Pareto front where asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transfer.ranking.report.blocks import Chart
from transfer.ranking.report.labels import Box, Name, draw_names, place_names
from transfer.ranking.report.svg import Scale, coordinate, element, fitted, mark, scale, text_width, tick_text, words
from transfer.ranking.report.wording import is_known

WIDTH = 540
_PLOT_HEIGHT = 300
_LEFT, _RIGHT, _BOTTOM = 56, 16, 46
_LEGEND_ROW = 22
_NAME_WIDTH = 190.0
_LOG_FROM = 20.0
"""Ratio of the largest to the smallest cost above which its axis is logarithmic."""


@dataclass(frozen=True)
class Point:
    """A mark."""

    name: str
    kind: str
    """Arm or layer: its shape and colour."""
    x: float
    y: float
    interval: tuple[float, float] | None = None
    """Of y."""


@dataclass(frozen=True)
class Axes:
    """What is drawn over what."""

    x: str
    y: str
    larger_is_better: bool = True
    """Of x, for the front."""


def scatter(
    title: str,
    description: str,
    points: Sequence[Point],
    axes: Axes,
    legend: Mapping[str, str],
    *,
    front: Sequence[Point] = (),
) -> Chart:
    """Draw marks.

    Args:
        title: of the chart.
        description: what is to be seen.
        points: one at least.
        axes: their titles.
        legend: kind -> its name, of the kinds that occur.
        front: the points of the Pareto front, to be joined; a logarithmic x axis is then allowed.
    """
    top, keys = _legend(legend)
    top += 24
    height = top + _PLOT_HEIGHT + _BOTTOM
    across = [point.x for point in points]
    is_log = bool(front) and min(across) > 0 and max(across) > _LOG_FROM * min(across)
    up = [y for point in points for y in (point.y, *(point.interval or ())) if is_known(y)]
    x = scale(across, _LEFT, WIDTH - _RIGHT, is_log=is_log)
    y = scale(up, top + _PLOT_HEIGHT, top)
    shapes = keys + _grid(x, y, axes, top)
    steps = _steps([(x(point.x), y(point.y)) for point in front], across_first=not axes.larger_is_better)
    if front:
        shapes += element("path", d=_path(steps), class_="front")
    bars = [_bar(point, x, y) for point in points if _has_interval(point)]
    shapes += "".join(drawn for drawn, _ in bars)
    shapes += "".join(mark(point.kind, x(point.x), y(point.y), _tooltip(point, axes)) for point in points)
    names = [
        Name(fitted(point.name, _NAME_WIDTH), x(point.x), y(point.y), point.kind == "published") for point in points
    ]
    bounds = (_LEFT + 2.0, float(top - 4), float(WIDTH - 4), float(top + _PLOT_HEIGHT - 1))
    placed = place_names(names, bounds, [*(box for _, box in bars), *_boxes(steps)])
    shapes += draw_names(placed)
    if len(placed) < len(names):
        title += "; the table has the names without room"
    return Chart(title, description, WIDTH, height, shapes)


def pareto_front(points: Sequence[Point], *, larger_is_better: bool) -> list[Point]:
    """The points that no other beats: none is as good in both and better in one. By x, ascending.

    Args:
        points: y is the higher the better.
        larger_is_better: of x.
    """
    sign = 1 if larger_is_better else -1
    kept = [
        point
        for point in points
        if not any(
            sign * other.x >= sign * point.x and other.y >= point.y and (other.x, other.y) != (point.x, point.y)
            for other in points
        )
    ]
    return sorted(kept, key=lambda point: (point.x, point.y))


def _legend(legend: Mapping[str, str]) -> tuple[int, str]:
    """Height in pixels, and the keys as SVG."""
    x, row, drawn = float(_LEFT), 0, ""
    for kind, name in legend.items():
        width = 16 + text_width(name) + 14
        if x + width > WIDTH and x > _LEFT:
            x, row = float(_LEFT), row + 1
        middle = 12 + row * _LEGEND_ROW
        if kind == "front":
            drawn += element("line", x1=x - 4, x2=x + 10, y1=middle, y2=middle, class_="front")
        else:
            drawn += mark(kind, x + 3, middle)
        drawn += words(name, x + 15, middle + 4.5)
        x += width
    return (row + 1) * _LEGEND_ROW, drawn


def _grid(x: Scale, y: Scale, axes: Axes, top: int) -> str:
    bottom = top + _PLOT_HEIGHT
    drawn = words(axes.y, 4, top - 10) + words(axes.x, (_LEFT + WIDTH - _RIGHT) / 2, bottom + 38, anchor="middle")
    for tick in y.ticks(6):
        drawn += element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y(tick), y2=y(tick), class_="grid")
        drawn += words(tick_text(tick), _LEFT - 7, y(tick) + 4.5, kind="t muted", anchor="end")
    last = float("-inf")
    for tick in x.ticks(6):
        half = text_width(tick_text(tick)) / 2
        if x(tick) - half < last + 6 or x(tick) + half > WIDTH:
            continue
        last = x(tick) + half
        drawn += element("line", x1=x(tick), x2=x(tick), y1=bottom, y2=bottom + 5, class_="axis")
        drawn += words(tick_text(tick), x(tick), bottom + 19, kind="t muted", anchor="middle")
    return drawn + element("path", d=f"M{_LEFT} {top}V{bottom}H{WIDTH - _RIGHT}", class_="axis")


def _steps(places: Sequence[tuple[float, float]], *, across_first: bool) -> list[tuple[float, float]]:
    """The corners of a front: between two points, the better figure is to be had at the dearer one's cost only."""
    corners = list(places[:1])
    for (x1, y1), (x2, y2) in zip(places, places[1:]):
        corners += [(x2, y1) if across_first else (x1, y2), (x2, y2)]
    return corners


def _path(corners: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in corners)


def _boxes(corners: Sequence[tuple[float, float]]) -> list[Box]:
    """Of level and upright lines."""
    return [
        (min(x1, x2) - 2, min(y1, y2) - 2, max(x1, x2) + 2, max(y1, y2) + 2)
        for (x1, y1), (x2, y2) in zip(corners, corners[1:])
    ]


def _has_interval(point: Point) -> bool:
    return point.interval is not None and all(is_known(end) for end in point.interval)


def _bar(point: Point, x: Scale, y: Scale) -> tuple[str, Box]:
    assert point.interval is not None
    middle, low, high = x(point.x), y(point.interval[0]), y(point.interval[1])
    parts = [(middle, middle, high, low), (middle - 4, middle + 4, high, high), (middle - 4, middle + 4, low, low)]
    kind = f"bar b-{point.kind}"
    drawn = "".join(element("line", x1=x1, x2=x2, y1=y1, y2=y2, class_=kind) for x1, x2, y1, y2 in parts)
    return drawn, (middle - 2, high, middle + 2, low)


def _tooltip(point: Point, axes: Axes) -> str:
    return f"{point.name}: {axes.x} {tick_text(point.x)}, {axes.y} {point.y:.2f}"
