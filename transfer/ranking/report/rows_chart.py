"""A chart with a row for each value: its name, below it a mark with its interval, and the single values as ticks.

The name stands above the mark, not beside it, so that a chart is narrow enough to be read on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transfer.ranking.report.blocks import Chart
from transfer.ranking.report.svg import element, fitted, mark, scale, tick_text, words
from transfer.ranking.report.wording import is_known, number, signed

WIDTH = 440
_ROW = 44
_SIDE, _TOP, _BOTTOM = 10, 4, 46
_NAME_WIDTH = 340.0


@dataclass(frozen=True)
class Row:
    """A row."""

    name: str
    kind: str
    """Arm: shape and colour of the mark."""
    value: float
    interval: tuple[float, float]
    """NaN: none."""
    singles: Sequence[float] = ()
    """Of the seeds."""
    breaks: bool = False
    """A line above it: a new group begins."""


def rows_chart(
    title: str,
    description: str,
    rows: Sequence[Row],
    axis: str,
    *,
    zero: bool = False,
    ends: tuple[float, float] | None = None,
) -> Chart:
    """Draw rows, the first on top.

    Args:
        title: of the chart.
        description: what is to be seen.
        rows: one at least.
        axis: its title.
        zero: a line at zero, and signs at the values.
        ends: values that the axis reaches at the least.
    """
    values = [value for row in rows for value in (row.value, *row.interval, *row.singles) if is_known(value)]
    x = scale([*values, *([0.0] if zero else []), *(ends or ())], _SIDE, WIDTH - _SIDE, margin=0.03)
    bottom = _TOP + _ROW * len(rows)
    shapes = ""
    for tick in x.ticks(6):
        shapes += element("line", x1=x(tick), x2=x(tick), y1=_TOP, y2=bottom, class_="grid")
        shapes += words(tick_text(tick), x(tick), bottom + 18, kind="t muted", anchor="middle")
    if zero:
        shapes += element("line", x1=x(0), x2=x(0), y1=_TOP, y2=bottom, class_="zero")
    for place, row in enumerate(rows):
        above = _TOP + _ROW * place
        middle = above + 31
        if row.breaks:
            shapes += element("line", x1=0, x2=WIDTH, y1=above + 1, y2=above + 1, class_="group")
        for single in row.singles:
            across = x(single)
            shapes += element("line", x1=across, x2=across, y1=middle - 8, y2=middle + 8, class_="single")
        if is_known(row.interval[0]):
            low, high = (x(end) for end in row.interval)
            shapes += element("line", x1=low, x2=high, y1=middle, y2=middle, class_=f"bar b-{row.kind}")
        shapes += mark(row.kind, x(row.value), middle, f"{row.name}: {number(row.value)}")
        shapes += words(fitted(row.name, _NAME_WIDTH), 0, above + 17)
        written = signed(row.value) if zero else number(row.value)
        shapes += words(written, WIDTH, above + 17, anchor="end")
    shapes += element("line", x1=0, x2=WIDTH, y1=bottom, y2=bottom, class_="axis")
    shapes += words(axis, WIDTH / 2, bottom + 38, anchor="middle")
    return Chart(title, description, WIDTH, bottom + _BOTTOM, shapes, "rows")
