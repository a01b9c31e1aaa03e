"""One picture of a data set of classes: a row of images for each class, and histograms of classes and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from transfer.checking.class_check import ClassReport
from transfer.checking.class_reading import ClassedImage
from transfer.checking.page_layout import (
    BARS,
    PART_COLOURS,
    class_bars,
    finish,
    show,
    tile_title,
    write_page,
)
from transfer.data.image import BrokenSample, read_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from transfer.checking.page_layout import Draw

Item = TypeVar("Item")

_ROWS, _A_ROW = 12, 6
"""Classes on the page, and images of each: as many as a page's grid has columns."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One image of the page."""

    part: str
    image: ClassedImage


def draw_class_page(report: ClassReport, path: Path) -> None:
    """Write the page; whole or not at all.

    Args:
        report: of the check.
        path: a .jpg or .png file.
    """
    tiles: list[Draw] = [partial(_draw_tile, tile=tile) for row in choose(report) for tile in row]
    write_page(path, tiles, [partial(draw, report=report) for draw in (_draw_classes, _draw_sides, _draw_shapes)])


def _ranked(report: ClassReport) -> list[str]:
    """Classes that have images, largest first."""
    totals = {name: sum(part.class_images[name] for part in report.statistics) for name in report.class_names}
    return sorted((name for name in totals if totals[name]), key=lambda name: (-totals[name], name))


def choose(report: ClassReport) -> list[list[Tile | None]]:
    """A row for each class, spread over its images of all splits; of many classes some of each size.

    Returns:
        Rows of equal length; None where a class has too few images.
    """
    names = _spread(_ranked(report), _ROWS)
    holding: dict[str, list[Tile | None]] = {name: [] for name in names}
    for part in report.parts:
        for image in part.images:
            if image.name in holding and report.facts[image.path].code is None:
                holding[image.name].append(Tile("val" if image.path in part.held_out else part.name, image))
    rows = [_spread(tiles, _A_ROW) for tiles in holding.values() if tiles]
    return [[*row, *[None] * (_A_ROW - len(row))] for row in rows]


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most so many of the items, evenly, the first and the last among them."""
    if not items:
        return []
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))
    return [items[place] for place in places.tolist()]


def _draw_tile(axes: Axes, tile: Tile | None) -> None:
    if tile is None:
        return
    try:
        show(axes, read_image(tile.image.path))
    except BrokenSample:  # removed since it was checked
        return
    tile_title(axes, tile.image.name, tile.part, tile.image.path)


def _draw_classes(axes: Axes, report: ClassReport) -> None:
    """Images of each class, a bar a split."""
    ranked = _ranked(report)
    names = _spread(ranked, BARS)
    counts = {part.name: [part.class_images[name] for name in names] for part in report.statistics}
    class_bars(axes, names, counts)
    title = "images of each class" if len(names) == len(ranked) else f"images of {len(names)} of {len(ranked)} classes"
    finish(axes, title, "images")


def _draw_sides(axes: Axes, report: ClassReport) -> None:
    """Short sides in pixels."""
    _histogram(axes, {part.name: part.short_sides() for part in report.statistics})
    finish(axes, "size of images", "short side, pixels")


def _draw_shapes(axes: Axes, report: ClassReport) -> None:
    """Width over height: what a square crop leaves out."""
    shapes = {
        part.name: np.repeat([width / height for height, width in part.sizes], list(part.sizes.values()))
        for part in report.statistics
    }
    _histogram(axes, shapes)
    finish(axes, "shape of images", "width / height")


def _histogram(axes: Axes, values: dict[str, np.ndarray]) -> None:
    """Shares of each split's images in bins of equal ratio."""
    every = np.concatenate(list(values.values()))
    if len(every) == 0:
        return
    low, high = float(every.min()), float(every.max())
    bins = np.geomspace(low * 0.98, high * 1.02, 30).tolist()
    for name, mine in values.items():
        if len(mine):
            weights = np.full(len(mine), 100 / len(mine))
            axes.hist(mine, bins, weights=weights, label=name, histtype="step", linewidth=2, color=PART_COLOURS[name])
    axes.set_xscale("log")
    ticks = _spread(np.geomspace(low, high, 5).tolist() if high > 1.05 * low else [low], 5)
    axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.set_ylabel("% of the split's images", fontsize=12)
