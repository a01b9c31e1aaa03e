"""Small things of no class that lie about in the scenes of the embedded sample."""

from __future__ import annotations

import numpy as np

from transfer.data.sample_canvas import Canvas, hsv, spline


def pebble(c: Canvas) -> None:
    """A round or angular stone."""
    turns = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    radii = c.rng.uniform(0.6, 0.95, 9)
    mask = c.blob(np.column_stack([np.cos(turns) * radii, np.sin(turns) * radii * c.vary(0.5, 0.9)]))
    colour = hsv(c.rng.random(), c.rng.uniform(0, 0.3), c.rng.uniform(0.25, 0.8))
    c.paint(mask, c.mottled(colour, 0.15, 0.8), c.relief(mask, 0.9, 12), gloss=c.rng.uniform(0, 0.3))


def stick(c: Canvas) -> None:
    """A twig, pencil or straw."""
    curve = spline([(-0.9, c.vary(-0.2, 0.2)), (0, c.vary(-0.2, 0.2)), (0.9, 0)], closed=False)
    width = c.vary(0.06, 0.2)
    mask = c.lines([curve], width)
    if c.chance(0.5):
        mask = np.maximum(mask, c.lines([[(0.1, 0), (0.5, c.vary(-0.5, 0.5))]], width * 0.5))
    colour = c.wood(hsv(0.08, 0.45, c.rng.uniform(0.2, 0.6)), along_x=True) if c.chance(0.6) else c.paint_colour()
    c.paint(mask, colour, c.relief(mask, 1.0))


def paper(c: Canvas) -> None:
    """A scrap of paper, a card or a wrapper, printed or blank."""
    corners = np.array([(-0.9, -0.7), (0.9, -0.7), (0.9, 0.7), (-0.9, 0.7)]) + c.rng.uniform(-0.2, 0.1, (4, 2))
    mask = c.polygon(corners)
    colour = hsv(0.12, 0.08, 0.92) if c.chance(0.5) else c.paint_colour()
    c.paint(mask, c.mottled(colour, 0.06, 2.0), c.relief(mask, 0.15))
    rows = [[(-0.6, y), (c.rng.uniform(0.0, 0.6), y)] for y in np.linspace(-0.45, 0.45, int(c.rng.integers(1, 7)))]
    c.paint(c.lines(rows, c.vary(0.03, 0.14)), c.paint_colour(), opacity=0.8, inside=mask)


def cable(c: Canvas) -> None:
    """A cable, string or root in loops."""
    knots = np.column_stack([np.linspace(-0.9, 0.9, 6), c.rng.uniform(-0.7, 0.7, 6)])
    knots[2:4, 0] = knots[3:1:-1, 0]
    mask = c.lines([spline(knots, closed=False)], c.vary(0.05, 0.11))
    c.paint(mask, c.paint_colour(), c.relief(mask, 1.0, 24), gloss=0.3)


def coin(c: Canvas) -> None:
    """A coin, lid or button: a disc that is neither ball nor clock."""
    mask, inner = c.ellipse(0, 0, 0.9, 0.9), c.ellipse(0, 0, 0.72, 0.72)
    colour = c.paint_colour()
    c.paint(mask, colour, c.relief(mask, 0.4, 24), gloss=0.3)
    c.darken(inner, 0.25)
    c.paint(inner, c.mottled(colour, 0.2, 0.7), c.relief(inner, 0.2), opacity=0.9)
    if c.chance(0.5):
        c.paint(c.dots(c.rng.uniform(-0.3, 0.3, (4, 2)), np.full(4, 0.1)), colour * 0.3)


def block(c: Canvas) -> None:
    """A box or brick of three visible faces."""
    wide, tall, slant = c.vary(0.4, 0.65), c.vary(0.3, 0.6), c.vary(0.2, 0.35)
    colour = c.paint_colour()
    skin = c.wood(colour) if c.chance(0.5) else c.mottled(colour, 0.1)
    c.paint(c.polygon([(-wide, -tall), (wide, -tall), (wide, tall), (-wide, tall)]), skin)
    c.paint(
        c.polygon([(-wide, -tall), (-wide + slant, -tall - slant), (wide + slant, -tall - slant), (wide, -tall)]),
        skin * 1.2,
    )
    c.paint(
        c.polygon([(wide, -tall), (wide + slant, -tall - slant), (wide + slant, tall - slant), (wide, tall)]),
        skin * 0.6,
    )


CLUTTER = (pebble, pebble, stick, stick, paper, cable, coin, block)
