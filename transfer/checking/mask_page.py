"""One picture of a data set with masks: photographs under their masks for each class, and histograms of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from transfer.checking.mask_check import MaskReport
from transfer.checking.mask_reading import MaskedImage, MaskPart
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
from transfer.data.image import BrokenSample
from transfer.report.pages import class_colour
from transfer.types import IGNORED_PIXEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAINT, _STRONG = 0.3, 0.6
"""How much of a pixel is its class's colour: of other classes, of the tile's."""


@dataclass(frozen=True, slots=True)
class _Tile:
    part: MaskPart
    image: MaskedImage
    label: int
    """Of the class that it shows."""


def draw_mask_page(report: MaskReport, path: Path) -> None:
    """Write the page; whole or not at all.

    Args:
        report: of the check.
        path: a .jpg or .png file.
    """
    write_page(
        path,
        [partial(_draw_tile, tile=tile) for tile in _choose(report)],
        [partial(draw, report=report) for draw in (_draw_pixels, _draw_images, _draw_ignored)],
    )


def _names(report: MaskReport) -> list[str]:
    """Classes that have pixels, most frequent first."""
    totals = {name: sum(part.class_pixels[name] for part in report.statistics) for name in report.class_names}
    return sorted((name for name in totals if totals[name]), key=lambda name: -totals[name])


def _choose(report: MaskReport) -> list[_Tile]:
    """The same number of images for each class, spread over the splits' images, none twice where there are enough.

    Of a class, the images that have more of it than half of the others do: a few pixels show nothing.
    """
    names = _names(report)[:MOST_TILES]
    each = max(1, min(4, TILES // max(len(names), 1)))
    chosen: list[_Tile] = []
    taken: set[str] = set()
    for name in names:
        holding: list[tuple[float, _Tile]] = []
        for part in report.parts:
            label = part.class_names.index(name) if name in part.class_names else None
            for image in part.images:
                facts = report.masks[image]
                if label in facts.pixels and facts.code is None and report.facts[image.path].code is None:
                    share = facts.pixels[label] / sum(facts.pixels.values())
                    holding.append((share, _Tile(part, image, label)))
        middle = float(np.median([share for share, _ in holding])) if holding else 0.0
        large = [tile for share, tile in holding if share >= middle]
        fresh = [tile for tile in large if tile.image.path not in taken] or large
        places = np.unique(np.linspace(0, len(fresh) - 1, each + 2)[1:-1].astype(int)).tolist() if fresh else []
        chosen += [fresh[place] for place in places]
        taken.update(fresh[place].image.path for place in places)
    return chosen


def _draw_tile(axes: Axes, tile: _Tile) -> None:
    """The photograph under its mask; the tile's class strong and with a white edge, ignored pixels without colour."""
    assert tile.part.dataset is not None
    try:
        sample = tile.part.dataset[tile.image.position]
    except BrokenSample:  # of another size than its image, or changed since it was checked
        return
    assert sample.mask is not None
    show(axes, under_mask(sample.image, sample.mask, tile.label))
    tile_title(axes, tile.part.class_names[tile.label], tile.part.name, tile.image.path)


def under_mask(image: np.ndarray, mask: np.ndarray, label: int) -> np.ndarray:
    """The photograph with its classes' colours laid over it.

    Args:
        image: [H, W, 3] uint8 RGB.
        mask: [H, W] uint8.
        label: of the class to show most.

    Returns:
        [H, W, 3] uint8.
    """
    colours = np.array([class_colour(each) for each in range(IGNORED_PIXEL)] + [(0, 0, 0)], np.float32)
    strength = np.full(IGNORED_PIXEL + 1, _FAINT, np.float32)
    strength[label], strength[IGNORED_PIXEL] = _STRONG, 0.0
    share = strength[mask][..., None]  # [H, W, 1]
    drawn = (image * (1 - share) + colours[mask] * share).astype(np.uint8)
    mine = (mask == label).astype(np.uint8)
    line = max(1, round(max(mask.shape) / 400))
    # around the class, not on it: a pole is as thin as its edge
    drawn[(cv2.dilate(mine, np.ones((3, 3), np.uint8), iterations=line) > mine)] = 255
    return drawn


def _draw_pixels(axes: Axes, report: MaskReport) -> None:
    """Share of the pixels that each class has."""
    names = _names(report)[:BARS]
    shares = {part.name: [100 * part.pixel_share(name) for name in names] for part in report.statistics}
    class_bars(axes, names, shares, label="{:.3g}")
    finish(axes, f"pixels {_of_each(report)}", "% of the split's labelled pixels")


def _draw_images(axes: Axes, report: MaskReport) -> None:
    """Share of the images that each class occurs in."""
    names = _names(report)[:BARS]
    shares = {part.name: [100 * part.image_share(name) for name in names] for part in report.statistics}
    class_bars(axes, names, shares, label="{:.3g}")
    finish(axes, f"images {_of_each(report)}", "% of the split's masks that have a pixel of it")


def _of_each(report: MaskReport) -> str:
    total, shown = len(report.class_names), min(len(_names(report)), BARS)
    return "of each class" if total == shown else f"of the {shown} commonest of {total} classes"


def _draw_ignored(axes: Axes, report: MaskReport) -> None:
    """How much of its masks each split ignores."""
    values: dict[str, list[float]] = {part.name: [] for part in report.statistics}
    for part in report.parts:
        for image in part.images:
            facts = report.masks[image]
            if facts.size is not None:
                name = "val" if image.path in part.held_out else part.name
                values[name].append(100 * facts.pixels.get(IGNORED_PIXEL, 0) / (facts.size[0] * facts.size[1]))
    bins = np.linspace(0, max([1.0, *(share for mine in values.values() for share in mine)]), 21).tolist()
    for name, mine in values.items():
        if mine:
            weights = np.full(len(mine), 100 / len(mine))
            axes.hist(mine, bins, weights=weights, label=name, histtype="step", linewidth=2, color=PART_COLOURS[name])
    axes.set_ylabel("% of the split's masks", fontsize=12)
    finish(axes, "ignored pixels in a mask", "% of the mask")
