"""One picture of a data set: photographs with their boxes for each class, and histograms of classes and sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer.checking.annotations import Judgement, judged
from transfer.checking.check import Report
from transfer.checking.page_layout import (
    BARS,
    MOST_TILES,
    PART_COLOURS,
    TILES,
    class_bars,
    finish,
    show,
    tile_title,
    write_page,
)
from transfer.checking.reading import StatedImage, new_name
from transfer.checking.statistics import LARGE, SMALL
from transfer.data.image import BrokenSample, read_image
from transfer.report.pages import class_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class _Tile:
    part: str
    image: StatedImage
    name: str
    """The class that it shows."""


def draw_page(report: Report, path: Path) -> None:
    """Write the page; whole or not at all.

    Args:
        report: of the check.
        path: a .jpg or .png file.
    """
    tiles = _choose(report)
    write_page(
        path,
        [partial(_draw_tile, tile=tile, report=report) for tile in tiles],
        [partial(draw, report=report) for draw in (_draw_classes, _draw_sizes, _draw_relative_sizes)],
    )


def _names(report: Report) -> list[str]:
    """Classes that have boxes, most frequent first."""
    totals = {name: sum(part.class_boxes[name] for part in report.statistics) for name in _all_names(report)}
    return sorted((name for name in totals if totals[name]), key=lambda name: -totals[name])


def _all_names(report: Report) -> list[str]:
    return list(
        dict.fromkeys([*report.class_names, *(name for part in report.statistics for name in part.class_boxes)])
    )


def _choose(report: Report) -> list[_Tile]:
    """The same number of images for each class, spread over the splits' images, none twice where there are enough."""
    names = _names(report)[:MOST_TILES]
    each = max(1, min(4, TILES // max(len(names), 1)))
    holding: dict[str, list[_Tile]] = {name: [] for name in names}
    for part in report.parts:
        for image in part.images:
            fact = report.facts[image.path]
            if fact.code is None and image.size in (fact.size, fact.stored_size):
                for name in {name for name, _ in _kept(image)} & holding.keys():
                    holding[name].append(_Tile(part.name, image, name))
    chosen: list[_Tile] = []
    taken: set[str] = set()
    for name in names:
        fresh = [tile for tile in holding[name] if tile.image.path not in taken] or holding[name]
        places = np.unique(np.linspace(0, len(fresh) - 1, min(each, len(fresh))).astype(int)).tolist()
        chosen += [fresh[place] for place in places]
        taken.update(fresh[place].image.path for place in places)
    return chosen


def _kept(image: StatedImage) -> Iterator[tuple[str, Judgement]]:
    """Class and judgement of every box that training keeps."""
    for box, judgement in zip(image.boxes, judged(image)):
        name = new_name(image.builder, box.name)
        if judgement.kept and name is not None:
            yield name, judgement


def _draw_tile(axes: Axes, tile: _Tile, report: Report) -> None:
    """The image with the class's boxes in its colour, the others as grey hairlines."""
    from matplotlib.patches import Rectangle

    try:
        pixels = read_image(tile.image.path, size=tile.image.size)
    except BrokenSample:  # removed since it was checked
        return
    factor = show(axes, pixels)
    colour = _colour(tile.name, report)
    for name, judgement in sorted(_kept(tile.image), key=lambda pair: pair[0] == tile.name):
        x0, y0, x1, y1 = (value * factor - 0.5 for value in judgement.corners)
        mine = name == tile.name
        edge, width_of_line = (colour, 2.2) if mine else ("#999999", 0.8)
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=edge, linewidth=width_of_line))
    tile_title(axes, tile.name, tile.part, tile.image.path)


def _colour(name: str, report: Report) -> tuple[float, float, float]:
    red, green, blue = class_colour(_all_names(report).index(name))
    return red / 255, green / 255, blue / 255


def _draw_classes(axes: Axes, report: Report) -> None:
    """Boxes of each class, a bar a split; logarithmic where the classes differ by much."""
    names, total = _names(report)[:BARS], len(_all_names(report))
    counts = {part.name: [part.class_boxes[name] for name in names] for part in report.statistics}
    class_bars(axes, names, counts)
    title = "boxes of each class" if total == len(names) else f"boxes of the {len(names)} commonest of {total} classes"
    finish(axes, title, "boxes")


def _draw_sizes(axes: Axes, report: Report) -> None:
    """Sides in pixels, with COCO's limits."""
    _histogram(axes, [part.sides for part in report.statistics], report)
    for limit, text in ((SMALL, "small < 32"), (LARGE, "large ≥ 96")):
        axes.axvline(limit, color="#555555", linewidth=1, linestyle="--")
        axes.annotate(
            text, (limit, 0.98), xycoords=("data", "axes fraction"), fontsize=10, rotation=90, va="top", ha="right"
        )
    finish(axes, "size of boxes", "sqrt(area), pixels")


def _draw_relative_sizes(axes: Axes, report: Report) -> None:
    """Sides as a share of the image's."""
    _histogram(axes, [[100 * side for side in part.relative_sides] for part in report.statistics], report)
    finish(axes, "size of boxes in their image", "sqrt(area / image area), %")


def _histogram(axes: Axes, values: Sequence[Sequence[float]], report: Report) -> None:
    """Shares of each split's boxes in bins of equal ratio."""
    every = [value for part in values for value in part]
    if not every:
        return
    bins = np.geomspace(max(min(every), 0.1), max(every) * 1.001, 30)
    for part, mine in zip(report.statistics, values):
        if mine:
            weights = np.full(len(mine), 100 / len(mine))
            style: dict[str, Any] = {"histtype": "step", "linewidth": 2, "color": PART_COLOURS[part.name]}
            axes.hist(np.maximum(mine, bins[0]), bins.tolist(), weights=weights, label=part.name, **style)
    axes.set_xscale("log")
    ticks = [
        tick
        for tick in (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 3000)
        if bins[0] <= tick <= bins[-1]
    ]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_ylabel("% of the split's boxes", fontsize=12)
