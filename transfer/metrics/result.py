"""What every metric returns: its figures, the protocol they were measured by, and a table to print.

A figure without its protocol cannot be compared (VOC's 11-point and area forms differ by points, COCO's AP by tens), so
the two travel together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_MOST_CLASSES, _LOWEST = 200, 20
"""A table of more classes than the first shows as many of them as the second says; files hold all."""


@dataclass(slots=True)
class MetricResult:
    """The figures of one evaluation. A figure that is undefined (no truth to find) is NaN."""

    protocol: str
    """One line that says how the figures were measured."""
    main: str
    """Which of `values` ranks runs; higher is better."""
    values: dict[str, float]
    """Figures of the whole data set, as fractions (0.5 is 50 percent)."""
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    """Class name -> column -> figure, a fraction or a count; every class has the same columns."""
    meanings: dict[str, str] = field(default_factory=dict)
    """What a name in `values` or a column stands for, in a few words."""
    count_columns: tuple[str, ...] = ()
    """The columns of `per_class` that are counts, so not printed as percent."""
    absent: str = "a class without truth is left out of every mean"
    """What becomes of a class without truth: the note on undefined figures below the table."""

    def table(self) -> str:
        """The figures as aligned text, in percent, with the protocol; "-" where a figure is undefined."""
        lines = [self.protocol, ""]
        rows = [
            [name + (" *" if name == self.main else ""), _percent(value), self.meanings.get(name, "")]
            for name, value in self.values.items()
        ]
        lines += _aligned(rows, left=(0, 2))
        if self.per_class:
            columns = list(next(iter(self.per_class.values())))
            rows = [["class", *columns]]
            shown = self._shown_classes(columns[0])
            for name in shown:
                rows.append([name, *(self._cell(column, self.per_class[name][column]) for column in columns)])
            lines += ["", *_aligned(rows, left=(0,))]
            if len(shown) < len(self.per_class):
                lines.append(f"{len(shown)} of {len(self.per_class)} classes, those of lowest {columns[0]}")
            lines += [f"{column}: {self.meanings[column]}" for column in columns if column in self.meanings]
        lines += ["", f'Percent. * ranks runs. "-": undefined ({self.absent}).']
        return "\n".join(lines)

    def _shown_classes(self, column: str) -> list[str]:
        """All classes; of more than a screen can show, those of the lowest figures."""
        if len(self.per_class) <= _MOST_CLASSES:
            return list(self.per_class)
        defined = [name for name, figures in self.per_class.items() if not math.isnan(figures[column])]
        return sorted(defined, key=lambda name: self.per_class[name][column])[:_LOWEST]

    def _cell(self, column: str, value: float) -> str:
        return str(int(value)) if column in self.count_columns else _percent(value)


def _percent(value: float) -> str:
    """0.7125 -> "71.25"; NaN -> "-"."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _aligned(rows: list[list[str]], *, left: tuple[int, ...]) -> list[str]:
    """Rows of equal length as lines; the columns named by `left` are flush left, the others flush right."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
