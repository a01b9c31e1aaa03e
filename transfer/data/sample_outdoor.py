"""Cars, houses and umbrellas of the embedded sample, each drawn on a canvas with its own varieties."""

from __future__ import annotations

import numpy as np

from transfer.data.sample_canvas import Canvas, Shading, hsv, spline
from transfer.data.sample_noise import blend, soft_step

_CAR_ROOFS = {
    "saloon": [(-0.62, -0.1), (-0.38, -0.38), (0.14, -0.4), (0.44, -0.1)],
    "hatchback": [(-0.9, -0.1), (-0.76, -0.42), (0.1, -0.46), (0.46, -0.1)],
    "van": [(-0.95, -0.1), (-0.92, -0.6), (0.5, -0.6), (0.74, -0.1)],
    "pickup": [(-0.16, -0.1), (-0.12, -0.44), (0.28, -0.44), (0.52, -0.1)],
    "sports": [(-0.72, -0.1), (-0.3, -0.32), (0.05, -0.33), (0.42, -0.1)],
}


def _wheel(c: Canvas, x: float, radius: float) -> None:
    rng = c.rng
    y = 0.34
    c.paint(c.ellipse(x, y - 0.02, radius * 1.16, radius * 1.16), hsv(0, 0, 0.05))
    tyre = c.ellipse(x, y, radius, radius)
    c.paint(tyre, hsv(0.1, 0.05, 0.12), c.relief(tyre, 0.5))
    rim = c.ellipse(x, y, radius * 0.66, radius * 0.66)
    c.paint(rim, hsv(0.6, 0.04, 0.72), c.relief(rim, 0.4, 10), gloss=0.3)
    start, count = rng.random() * 6, int(rng.choice([5, 6, 8]))
    turns = start + np.arange(count) * 2 * np.pi / count
    ends = np.column_stack([x + np.cos(turns) * radius * 0.45, y + np.sin(turns) * radius * 0.45])
    c.paint(c.dots(ends, np.full(count, radius * 0.13)), hsv(0, 0, 0.1))
    c.paint(c.dots(np.array([(x, y)]), np.array([radius * 0.14])), hsv(0, 0, 0.35))


def car(c: Canvas) -> None:
    """A car from the side: saloon, hatchback, van, pickup or sports car, with windows, wheels, lamps and seams."""
    rng = c.rng
    kind = c.pick(*_CAR_ROOFS)
    paint = c.paint_colour()
    roof = np.array(_CAR_ROOFS[kind]) * (1, c.vary(0.85, 1.15))
    roof += np.array([c.vary(-0.05, 0.05), 0])
    hood, boot = c.vary(-0.08, 0.03), c.vary(-0.1, 0.0) if kind != "hatchback" else -0.1
    low = [(-0.97, 0.25), (-0.98, boot + 0.06), (-0.9, boot - 0.02), tuple(roof[0] + (0, 0.02))]
    high = [tuple(roof[3] + (0, 0.01)), (0.85, hood), (0.96, hood + 0.12), (0.98, 0.28), (0.9, 0.34), (-0.9, 0.34)]
    body = c.polygon(np.array([*low, *high]))
    cabin = c.polygon([*roof[:1], *spline(roof[1:3], closed=False, steps=4), *roof[3:]])
    both = np.maximum(body, cabin)
    level = 1.12 - 0.5 * soft_step(c.y, 0.12, 0.5) + 0.25 * np.exp(-(((c.y - boot - 0.06) / 0.03) ** 2))
    c.paint(both, paint * (level * (1 + 0.05 * c.noise(3.0))), c.relief(both, 0.35, 24), gloss=0.25)
    middle = roof.mean(0)
    panes = (roof - middle) * (0.88, 0.8) + middle
    glass = c.polygon([*panes[:1], *spline(panes[1:3], closed=False, steps=4), *panes[3:]])
    sky = hsv(rng.uniform(0.52, 0.62), rng.uniform(0.1, 0.35), 0.75)
    c.paint(glass, blend(sky, hsv(0.6, 0.3, 0.08), soft_step(c.y + 0.25 * c.x + 0.08 * c.noise(1.5), -0.22, 0.25)))
    pillars = [
        [(x, -0.62), (x + 0.03, -0.08)] for x in ((panes[1, 0] + panes[2, 0]) / 2, *([-0.45] if kind == "van" else []))
    ]
    c.paint(c.lines(pillars, 0.045), paint * 0.7, inside=both)
    if kind == "van" and c.chance(0.5):
        c.paint(c.box(-0.9, -0.5, -0.05, -0.12), paint, c.relief(both, 0.35), inside=cabin)
    doors = [[(x, -0.08), (x, 0.28)] for x in (roof[1, 0] * 0.6, roof[2, 0] + 0.12)] + [[(-0.9, 0.27), (0.9, 0.27)]]
    c.darken(c.lines(doors, 0.016), 0.55)
    c.paint(c.box(-0.12, 0.0, -0.02, 0.03), hsv(0, 0, 0.15))
    c.paint(c.box(-0.98, 0.24, -0.8, 0.32), hsv(0, 0, 0.2), inside=both)
    c.paint(c.box(0.82, 0.24, 0.98, 0.32), hsv(0, 0, 0.2), inside=both)
    c.paint(c.ellipse(0.9, hood + 0.12, 0.06, 0.05), hsv(0.14, 0.15, 0.97), inside=both)
    c.paint(c.ellipse(-0.95, boot + 0.1, 0.04, 0.06), hsv(0.0, 0.8, 0.6), inside=both)
    radius = c.vary(0.17, 0.23)
    for x in (-0.58, 0.6):
        _wheel(c, x + c.vary(-0.03, 0.03), radius)


def _windows(c: Canvas, left: float, right: float, top: float, bottom: float, front: np.ndarray) -> None:
    rng = c.rng
    columns, rows = int(rng.integers(2, 4)), 1 if bottom - top < 0.75 else 2
    frame, step = hsv(0.1, 0.1, rng.uniform(0.3, 0.95)), (right - left) / columns
    wide, tall = step * 0.24, min(0.16, step * 0.36)
    frames, panes, bars = np.zeros_like(front), np.zeros_like(front), []
    for row in range(rows):
        y = top + (bottom - top) * (0.18 + 0.45 * row)
        for column in range(columns):
            x = left + step * (column + 0.5)
            frames |= c.box(x - wide - 0.02, y - 0.02, x + wide + 0.02, y + 2 * tall + 0.02)
            panes |= c.box(x - wide, y, x + wide, y + 2 * tall)
            bars += [[(x, y), (x, y + 2 * tall)], [(x - wide, y + tall), (x + wide, y + tall)]]
    c.paint(frames, frame)
    reflection = soft_step(np.sin(c.y * 6 + c.x * rng.uniform(2, 9)) + 0.4 * c.noise(1.0), rng.uniform(-0.4, 0.4), 0.5)
    c.paint(panes, blend(hsv(0.57, 0.25, 0.75), hsv(0.6, 0.4, 0.15), reflection), inside=front)
    c.paint(c.lines(bars, 0.018), frame)


def _wall(c: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """The colour and the texture of a house's wall."""
    rng = c.rng
    material = c.pick("brick", "boards", "plaster")
    wall = (
        hsv(rng.uniform(0.0, 0.12), rng.uniform(0.3, 0.65), rng.uniform(0.35, 0.75))
        if material == "brick"
        else c.near(hsv(rng.random(), rng.uniform(0.03, 0.45), rng.uniform(0.5, 0.95)))
    )
    row = np.floor(c.y * 18)
    if material == "brick":
        joint = np.minimum((c.y * 18) % 1, ((c.x * 8 + 0.5 * (row % 2)) % 1) * 2.2)
        face = blend(hsv(0.1, 0.1, 0.7), c.mottled(wall, 0.2, 0.5), soft_step(joint, 0.16, 0.12))
    elif material == "boards":
        face = wall * (1 + 0.05 * c.noise((0.5, 4)) - 0.35 * (((c.y * 13) % 1) < 0.14))
    else:
        face = c.mottled(wall, 0.06, 1.5)
    return wall, face


def _door(c: Canvas, x: float) -> None:
    c.paint(c.box(x - 0.13, 0.42, x + 0.13, 0.95), hsv(0.1, 0.1, 0.85))
    door = c.box(x - 0.1, 0.46, x + 0.1, 0.95)
    c.paint(door, c.wood(c.paint_colour()), c.relief(door, 0.2))
    c.paint(c.dots(np.array([(x + 0.06, 0.7)]), np.array([0.02])), hsv(0.13, 0.6, 0.8))


def house(c: Canvas) -> None:
    """A house: brick, boarded or plastered walls, tiled roof, windows, a door and often a chimney."""
    rng = c.rng
    side = c.vary(0.0, 0.5) if c.chance(0.6) else 0.0
    top, peak, left, right = c.vary(-0.25, 0.05), c.vary(-0.97, -0.75), -0.9, 0.9 - side
    wall, face = _wall(c)
    bricks = c.near(wall, 0.05) * 0.8
    if c.chance(0.6):
        x = c.vary(-0.5, 0.4)
        chimney = c.box(x, peak - 0.02, x + 0.16, top)
        c.paint(chimney, c.mottled(bricks, 0.25, 0.4), c.column(x + 0.08, 0.2))
    gable = c.chance(0.5)
    middle = (left + right) / 2
    front = c.polygon(
        [(left, 0.95), (left, top), *([(middle, peak + 0.05)] if gable else []), (right, top), (right, 0.95)]
    )
    bright = 1.0 - 0.18 * c.light[0]
    c.paint(front, face * bright)
    roof_colour = c.near(hsv(rng.choice([0.01, 0.05, 0.6, 0.3]), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.6)), 0.05)
    tiles = roof_colour * (1 + 0.22 * np.sin(c.y * 75 + 1.5 * np.sin(c.x * 60)) + 0.14 * c.noise(0.5))
    if side:
        flank = c.polygon([(right, top), (0.97, top + 0.06), (0.97, 0.82), (right, 0.95)])
        c.paint(flank, face * (0.62 + 0.3 * c.light[0]))
        _windows(c, right, 0.97, top + 0.1, 0.85, flank)
    if gable:
        if side:
            c.paint(
                c.polygon(
                    [(middle, peak), (middle + side + 0.1, peak + 0.04), (0.99, top + 0.08), (right + 0.06, top + 0.06)]
                ),
                tiles * 0.8,
            )
        edge = c.lines([[(left - 0.07, top + 0.08), (middle, peak), (right + 0.07, top + 0.08)]], 0.09)
        c.paint(edge, tiles * 0.9)
    else:
        inset = c.vary(0.05, 0.35)
        slab = c.polygon(
            [(left - 0.08, top + 0.04), (left + inset, peak), (0.92 - inset * 0.5, peak), (0.99, top + 0.06)]
        )
        c.paint(slab, tiles, c.relief(slab, 0.1))
        c.darken(c.lines([[(left, top + 0.08), (0.97, top + 0.1)]], 0.05), 0.5, 0.03)
    _windows(c, left + 0.05, right - 0.05, top + 0.05, 0.95, front)
    _door(c, c.vary(left + 0.3, right - 0.3))


def umbrella(c: Canvas) -> None:
    """An open umbrella from the side with pole and crook, or from above: ribs, alternating panels, scalloped rim."""
    rng = c.rng
    first = c.paint_colour()
    second = c.paint_colour() if c.chance(0.5) else c.near(first, 0.04)
    if c.chance(0.35):
        count = int(rng.choice([6, 8, 8, 10]))
        turns = rng.random() + np.arange(count) * 2 * np.pi / count
        corners = np.column_stack([np.cos(turns), np.sin(turns)]) * 0.97
        shift = np.array([c.vary(-0.2, 0.2), c.vary(-0.2, 0.2)])
        creases = 1 + 0.06 * c.noise(1.5)
        for number in range(count):
            a, b = corners[number], corners[(number + 1) % count]
            panel = c.polygon([shift, *spline([a, (a + b) * 0.46, b], closed=False, steps=5)])
            facing = (a + b) / np.linalg.norm(a + b) * 0.55
            light = np.float32(0.62 + 0.45 * (facing[0] * c.light[0] + facing[1] * c.light[1] + c.light[2] * 0.8))
            c.paint(panel, (first, second)[number % 2], Shading(creases * light))
        c.darken(c.lines([[shift, corner] for corner in corners], 0.02), 0.4)
        c.paint(c.dots(shift[None], np.array([0.045])), hsv(0, 0, 0.2))
        return
    rise, rim = c.vary(0.55, 0.85), c.vary(-0.15, 0.05)
    pole = c.lines([[(0, -0.9), (0, 0.8)]], 0.045)
    metal = hsv(0.08, rng.uniform(0.0, 0.6), rng.uniform(0.2, 0.75))
    c.paint(pole, metal, c.relief(pole, 1.0))
    crook = c.lines([spline([(0, 0.72), (0, 0.88), (0.08, 0.97), (0.18, 0.93), (0.2, 0.82)], closed=False)], 0.08)
    c.paint(crook, c.wood(hsv(0.07, 0.6, rng.uniform(0.2, 0.5))), c.relief(crook, 1.0, 24), gloss=0.3)
    count = int(rng.choice([4, 5, 6]))
    edges = np.sin(np.linspace(-np.pi / 2, np.pi / 2, count + 1)) * 0.97
    top = np.array([0.0, rim - rise])
    lining = c.polygon([(-0.94, rim), *spline([(-0.94, rim), (0, rim - 0.16), (0.94, rim)], closed=False)])
    c.paint(lining, first * 0.3)
    ribs, creases = [], 0.04 * c.noise(1.5) + 1 - 0.12 * (c.y - rim)
    for number in range(count):
        a, b = edges[number], edges[number + 1]
        left = spline([top, (a * 0.72, rim - rise * 0.68), (a, rim)], closed=False)
        right = spline([top, (b * 0.72, rim - rise * 0.68), (b, rim)], closed=False)
        hem = spline([(a, rim), ((a + b) / 2, rim - 0.09), (b, rim)], closed=False)
        panel = c.polygon(np.concatenate([left, hem[1:-1], right[::-1]]))
        facing = (a + b) / 2
        light = np.float32(0.5 + 0.5 * max(facing * c.light[0] * 0.9 - c.light[1] * 0.4 + c.light[2] * 0.6, 0))
        fold = creases + 0.1 * np.cos((c.x[:1] - float(a)) * (2 * np.pi / float(b - a)))
        c.paint(panel, (first, second)[number % 2], Shading(fold * light))
        ribs.append(left)
    c.darken(c.lines(ribs[1:], 0.018), 0.45)
    c.paint(c.lines([[top, top - (0, 0.12)]], 0.04), metal * 0.7)
