"""Fruit and plants of the embedded sample, each drawn on a canvas with its own varieties.

Colour ranges of the classes overlap on purpose: shape and texture must tell them apart.
"""

from __future__ import annotations

import numpy as np

from transfer.data.sample_canvas import Canvas, hsv, spline
from transfer.data.sample_noise import blend, soft_step


def _mirrored(right: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """An outline from its right half, given from top to bottom."""
    return right + [(-x, y) for x, y in reversed(right) if abs(x) > 1e-6]


def apple(c: Canvas) -> None:
    """A whole apple, sometimes a halved one: green, yellow, red or russet, streaked, with a stem."""
    rng = c.rng
    wide, low = c.vary(0.78, 0.96), c.vary(0.35, 0.6)
    right = [(0, -0.62), (0.3 * wide, -0.76), (0.7 * wide, -0.68), (wide, -0.22), (0.9 * wide, 0.25)]
    right += [(low + 0.05, 0.72), (low * 0.6, 0.86), (0, 0.8)]
    lean = rng.normal(0, 0.05)
    body = c.blob([(x + lean * y, y) for x, y in _mirrored(right)])
    grounds = (hsv(0.2, 0.6, 0.75), hsv(0.14, 0.6, 0.85), hsv(0.08, 0.6, 0.6), hsv(0.99, 0.75, 0.6))
    blushes = (hsv(0.27, 0.6, 0.6), hsv(0.99, 0.8, 0.7), hsv(0.03, 0.75, 0.65), hsv(0.97, 0.8, 0.4))
    ground, blush = grounds[rng.integers(4)], blushes[rng.integers(4)]
    streaks = c.radial_noise(lean, -0.6, angular=40, radial=5) * 0.35 + c.noise(2.0) * 0.3
    side = rng.uniform(-0.8, 0.8)
    skin = blend(
        c.near(ground), c.near(blush), soft_step(streaks + c.x * side + c.y * 0.2, rng.uniform(-0.5, 0.6), 1.1)
    )
    c.paint(body, skin, c.relief(body, 1.0, 30), gloss=rng.uniform(0.15, 0.6))
    specks = rng.uniform(-0.8, 0.8, (int(rng.integers(10, 40)), 2))
    c.paint(c.dots(specks, rng.uniform(0.006, 0.016, len(specks))), hsv(0.13, 0.3, 0.9), opacity=0.5, inside=body)
    if c.chance(0.14):
        cut = c.blob([(x * 0.9 + lean * y, y * 0.9) for x, y in _mirrored(right)])
        c.paint(cut, c.mottled(hsv(0.14, 0.25, 0.92), 0.05))
        c.paint(
            c.blob([(0, -0.25), (0.28, -0.05), (0.2, 0.3), (0, 0.45), (-0.2, 0.3), (-0.28, -0.05)]), hsv(0.13, 0.4, 0.8)
        )
        c.paint(c.dots(np.array([(-0.1, 0.1), (0.1, 0.12)]), np.array([0.06, 0.06])), hsv(0.06, 0.7, 0.25))
    else:
        c.darken(c.ellipse(lean * -0.6, -0.64, 0.34, 0.1), 0.55, 0.07)
    stem = spline([(-lean, -0.58), (rng.normal(0, 0.05), -0.8), (rng.normal(0.08, 0.12), -0.99)], closed=False)
    c.paint(c.lines([stem], 0.07), hsv(0.08, 0.5, 0.3))
    if c.chance(0.3):
        tip = 0.5 * (1 if c.chance(0.5) else -1)
        blade = c.blob([(0, -0.75), (tip * 0.5, -0.98), (tip, -0.92), (tip * 0.55, -0.76)])
        c.paint(blade, c.mottled(hsv(rng.uniform(0.2, 0.35), 0.6, 0.5)), c.relief(blade, 0.5))


def banana(c: Canvas) -> None:
    """One to three bananas, green to brown, faceted and spotted."""
    rng = c.rng
    ripe = rng.random()
    hue, value = 0.22 - 0.1 * ripe, rng.uniform(0.6, 0.95) - (0.3 if c.chance(0.15) else 0)
    skin = hsv(hue, rng.uniform(0.5, 0.8), value)
    bend, fat = c.vary(0.35, 0.75), c.vary(0.17, 0.27)
    spots = soft_step(c.noise(0.35), rng.uniform(0.8, 2.2), 0.5)
    count = int(rng.choice([1, 1, 2, 3]))
    for number in range(count):
        shift = (number - (count - 1) / 2) * 0.3
        t = np.linspace(-1, 1, 15)
        x, y = t * 0.9, (t**2 - 0.6) * bend + shift * (1 - 0.7 * (t < -0.9)) - 0.1 * np.abs(t) * shift
        half = fat * np.clip(1 - np.abs(t) ** 4, 0.16, 1)
        outline = np.concatenate([np.stack([x, y - half], 1), np.stack([x, y + half], 1)[::-1]])
        body = c.polygon(outline)
        peel = blend(c.mottled(c.near(skin, 0.04), 0.07), hsv(0.08, 0.6, 0.3), spots)
        c.paint(body, peel, c.relief(body, 0.8, 10), gloss=0.12)
        ridge = np.stack([x, y - half * 0.25], 1)[1:-1]
        c.paint(c.lines([ridge], 0.03), skin * 0.7, opacity=0.45, inside=body)
        c.paint(c.lines([np.stack([x, y], 1)[:2]], fat * 0.7), hsv(0.14, 0.5, 0.4))
        c.paint(c.lines([np.stack([x, y], 1)[-2:]], fat * 0.4), hsv(0.08, 0.5, 0.15))


def flower(c: Canvas) -> None:
    """A blossom on a stem: few wide petals or many narrow ones around a stippled disc."""
    rng = c.rng
    colour = c.paint_colour()
    edge, count = c.near(colour, 0.2), int(rng.choice([5, 5, 6, 8, 13, 21]))
    length, tilt, disc = 0.62, c.vary(0.6, 1.0), c.vary(0.12, 0.26)
    middle = -0.32
    stem = spline([(0, middle), (rng.normal(0, 0.08), 0.4), (rng.normal(0, 0.15), 0.98)], closed=False)
    green = hsv(rng.uniform(0.2, 0.38), 0.5, rng.uniform(0.3, 0.6))
    c.paint(c.lines([stem], 0.06), green)
    side = 1 if c.chance(0.5) else -1
    blade = c.blob([(0, 0.75), (side * 0.3, 0.4), (side * 0.55, 0.35), (side * 0.3, 0.65)])
    c.paint(blade, c.mottled(green), c.relief(blade, 0.5))
    width = min(np.pi / count * c.vary(0.8, 1.25), 0.55) * length
    radius = np.hypot(c.x, (c.y - middle) / tilt)
    fade = blend(edge, colour, soft_step(radius, 0.35, 0.4)) * (
        1 + 0.12 * c.radial_noise(0, middle, angular=70, radial=4)
    )
    start = rng.random() * 7
    for ring in range(2 if count > 8 else 1):
        for number in rng.permutation(count):
            turn = start + (number + 0.5 * ring) * 2 * np.pi / count
            reach = length * (1 - 0.3 * ring) * rng.uniform(0.92, 1.05)
            along, across = (
                np.array([np.cos(turn), np.sin(turn) * tilt]),
                np.array([-np.sin(turn), np.cos(turn) * tilt]),
            )
            shape = [
                (0.05, 0),
                (0.5, width / length),
                (0.85, width / length * 0.8),
                (1, 0),
                (0.85, -width / length * 0.8),
                (0.5, -width / length),
            ]
            outline = np.array([along * u * reach + across * v * reach for u, v in shape]) + np.array([0, middle])
            petal = c.blob(outline)
            c.paint(petal, fade * rng.uniform(0.82, 1.05), c.relief(petal, 0.5))
    core = c.ellipse(0, middle, disc, disc * tilt)
    stipple = c.noise(0.35, "fine")
    c.paint(
        core,
        c.near(hsv(rng.uniform(0.06, 0.16), 0.7, rng.uniform(0.3, 0.85))) * (1 + 0.3 * stipple),
        c.relief(core, 0.8),
    )


def leaf(c: Canvas) -> None:
    """A fallen leaf, lanceolate, toothed or lobed, with midrib and side veins, green to brown."""
    rng = c.rng
    kind = c.pick("oval", "toothed", "lobed")
    t = np.linspace(0, 1, 40)
    half = c.vary(0.32, 0.62) * np.sin(np.pi * t ** c.vary(0.6, 1.1)) ** 0.9
    if kind == "toothed":
        half = half * (1 - 0.14 * ((t * 14) % 1))
    elif kind == "lobed":
        half = half * (1 - 0.5 * np.abs(np.sin(t * np.pi * c.vary(3, 4.2)))) * 1.35
    bow = c.vary(-0.25, 0.25)
    spine = np.column_stack([bow * np.sin(np.pi * t), 0.62 - 1.58 * t])
    outline = np.concatenate(
        [spine + np.column_stack([half, -0.15 * half]), (spine - np.column_stack([half, 0.15 * half]))[::-1]]
    )
    mask = c.polygon(outline)
    first, second = (hsv(rng.uniform(0.0, 0.36), rng.uniform(0.4, 0.85), rng.uniform(0.25, 0.8)) for _ in range(2))
    if c.chance(0.4):
        second = c.near(first, 0.07)
    colour = blend(first, second, soft_step(c.noise(1.6) + c.x * rng.normal(), 0.2, 1.6)) * (
        1 + 0.08 * c.noise(0.4, "fine")
    )
    c.paint(c.lines([[(0, 0.6), (-bow * 0.4, 0.98)]], 0.05), first * 0.7)
    c.paint(mask, colour, c.relief(mask, 0.5, 8), gloss=0.12)
    ribs = []
    for place in np.linspace(0.12, 0.85, 8):
        index = int(place * 39)
        for sign in (-1, 1):
            end = spine[min(index + 5, 39)] + (sign * half[index] * 0.95, -0.12)
            ribs.append([spine[index], (spine[index] + end) / 2 + (0, 0.03), end])
    pale = np.clip(first * 1.5 + 0.08, 0, 1) if c.chance(0.7) else first * 0.5
    c.paint(c.lines(ribs, 0.014), pale, opacity=0.6, inside=mask)
    c.paint(c.lines([spine], 0.032), pale, opacity=0.85, inside=mask)
    if c.chance(0.3):
        holes = rng.uniform(-0.5, 0.5, (4, 2))
        c.paint(c.dots(holes, rng.uniform(0.02, 0.07, 4)), hsv(0.07, 0.6, 0.2), opacity=0.8, inside=mask)


def _cap(c: Canvas, right: list[tuple[float, float]]) -> None:
    """The cap of a mushroom from its right half: shaded, plain, flecked or scaly."""
    rng, top, wide, rim = c.rng, right[0][1], right[3][0], right[3][1]
    colour = hsv(rng.uniform(0.0, 0.14), rng.uniform(0.15, 0.85), rng.uniform(0.35, 0.85))
    cap = c.blob(_mirrored(right))
    far = np.hypot(c.x, (c.y - top) * 0.8)
    skin = blend(c.near(colour) * 0.75, c.near(colour), soft_step(far + 0.1 * c.noise(1.5), 0.45, 0.6))
    skin = skin * (1 + 0.1 * c.radial_noise(0, top, angular=40, radial=4))
    shading = c.relief(cap, 1.0, 18)
    c.paint(cap, skin, shading, gloss=rng.uniform(0.05, 0.4))
    flecks = c.pick("none", "dots", "dots", "scales")
    if flecks == "dots":
        spots = np.column_stack([rng.uniform(-wide, wide, 22), rng.uniform(top, rim, 22)])
        c.paint(c.dots(spots, rng.uniform(0.02, 0.08, 22)), hsv(0.13, 0.1, 0.93), shading, inside=cap)
    elif flecks == "scales":
        scales = (soft_step(c.noise(0.4), 0.6, 0.3) * 255).astype(np.uint8)
        c.paint(cap, colour * 0.45, shading, opacity=0.8, inside=scales)


def mushroom(c: Canvas) -> None:
    """A mushroom: domed, conical or flat cap, plain, flecked or scaly, pale stem, gills below."""
    rng = c.rng
    kind = c.pick("dome", "cone", "flat")
    rise = {"dome": c.vary(0.6, 0.85), "cone": c.vary(0.85, 1.05), "flat": c.vary(0.3, 0.5)}[kind]
    rim, wide, thick = c.vary(-0.15, 0.15), c.vary(0.72, 0.98), c.vary(0.13, 0.3)
    flesh = hsv(0.12, rng.uniform(0.05, 0.25), rng.uniform(0.65, 0.92))
    bend = c.vary(-0.12, 0.12)
    stem = c.blob(
        [
            (-thick, rim),
            (thick, rim),
            (thick * 0.9 + bend, 0.5),
            (thick * 1.25 + bend, 0.9),
            (bend, 0.97),
            (bend - thick * 1.25, 0.9),
            (bend - thick * 0.9, 0.5),
        ]
    )
    c.paint(stem, c.mottled(flesh, 0.14, (2.5, 0.3)), c.relief(stem, 1.0))
    c.darken(c.ellipse(0, rim + 0.1, thick * 1.4, 0.18), 0.5, 0.1)
    sag = c.vary(0.08, 0.24)
    gills = c.ellipse(0, rim, wide * 0.93, sag)
    rays = np.sin(np.arctan2((c.y - rim) * 3, c.x) * 90)
    c.paint(gills, flesh * (0.72 + 0.16 * rays))
    top = rim - rise
    tip = 0.0 if kind == "cone" else 0.42
    right = [
        (0, top),
        (tip * wide + 0.08, top + 0.08 * rise),
        (0.85 * wide, rim - 0.42 * rise),
        (wide, rim - 0.02),
        (0.9 * wide, rim + 0.05),
        (0.45 * wide, rim + sag * 0.3),
        (0, rim + sag * 0.4),
    ]
    _cap(c, right)
    if c.chance(0.35):
        skirt = c.blob(
            [(-thick * 1.1, 0.22), (thick * 1.1, 0.22), (thick * 1.5, 0.38), (0, 0.34), (-thick * 1.5, 0.38)]
        )
        c.paint(skirt, flesh * 0.95, c.relief(skirt, 0.7))
