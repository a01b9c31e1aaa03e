"""What the pages of all kinds of data share: a grid of photographs above a row of charts, and how both are drawn."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from transfer.data.strangers import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Draw = Callable[[Axes], None]

TILES = 12
MOST_TILES = 24
SIDE = 420
"""Pixels of a tile's long side."""
BARS = 24
PART_COLOURS = {"train": "#3366aa", "val": "#e0a030", "test": "#aa4444"}
_COLUMNS = 6
_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans Arabic", "Noto Sans")
"""Later ones are asked for letters that the first does not have, where they are installed."""


def write_page(path: Path, tiles: Sequence[Draw], charts: Sequence[Draw]) -> None:
    """Draw and write a page; whole or not at all.

    Args:
        path: a .jpg or .png file.
        tiles: each draws one photograph.
        charts: each draws one chart of the bottom row.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    rows = -(-len(tiles) // _COLUMNS)
    with plt.rc_context({"font.family": [font for font in _FONTS if font in installed] or ["sans-serif"]}):
        figure = plt.figure(figsize=(18, 3.0 * rows + 6.2), layout="constrained")
        grid = figure.add_gridspec(rows + 1, _COLUMNS, height_ratios=[3.0] * rows + [5.6])
        for place in range(rows * _COLUMNS):
            axes = figure.add_subplot(grid[place // _COLUMNS, place % _COLUMNS])
            axes.axis("off")
            if place < len(tiles):
                tiles[place](axes)
        columns = grid[rows, :].subgridspec(1, len(charts))
        for column, draw in enumerate(charts):
            draw(figure.add_subplot(columns[column]))
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
        try:
            figure.savefig(temporary, dpi=100)
            os.replace(temporary, path)
        finally:
            plt.close(figure)
            temporary.unlink(missing_ok=True)


def show(axes: Axes, pixels: np.ndarray) -> float:
    """Draw a photograph at a tile's size.

    Args:
        axes: where.
        pixels: [H, W, 3] uint8.

    Returns:
        Pixels of the tile per pixel of the photograph.
    """
    factor = SIDE / max(pixels.shape[:2])
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    axes.imshow(cv2.resize(pixels, (width, height), interpolation=interpolation))
    return factor


def tile_title(axes: Axes, name: str, part: str, path: str) -> None:
    """Class, split and file above a tile."""
    file = Path(path).name
    shown = file if len(file) <= 28 else f"{file[:12]}...{file[-13:]}"
    axes.set_title(f"{plain(name)}\n{part}: {plain(shown)}", fontsize=11)


def plain(text: str) -> str:
    """Without matplotlib's reading of dollar signs as mathematics, and without what it has no glyphs for."""
    return printable(text).replace("$", r"\$")


def class_bars(axes: Axes, names: Sequence[str], values: Mapping[str, Sequence[float]], *, label: str = "{:g}") -> None:
    """A bar for each class and split; logarithmic where the classes differ by much.

    Args:
        axes: where.
        names: of the classes.
        values: split -> its value for each class.
        label: how a value is written at its bar, where there are few.
    """
    thick = 0.8 / max(len(values), 1)
    places = np.arange(len(names))
    for number, (part, mine) in enumerate(values.items()):
        offsets = places + (number - (len(values) - 1) / 2) * thick
        bars = axes.barh(offsets, mine, thick, label=part, color=PART_COLOURS[part])
        if len(names) <= 8:
            axes.bar_label(bars, fontsize=10, padding=2, labels=[label.format(value) for value in mine])
    axes.set_yticks(places, [plain(name) for name in names], fontsize=12 if len(names) <= 12 else 9)
    axes.invert_yaxis()
    positive = [value for mine in values.values() for value in mine if value]
    if positive and max(positive) > 50 * min(positive):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.12)


def finish(axes: Axes, title: str, unit: str) -> None:
    """Title, unit, grid, and a legend where there are several splits."""
    axes.set_title(title, fontsize=14)
    axes.set_xlabel(unit, fontsize=12)
    axes.tick_params(labelsize=11)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(fontsize=11)
