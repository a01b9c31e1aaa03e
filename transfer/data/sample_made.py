"""Household things of the embedded sample, each drawn on a canvas with its own varieties."""

from __future__ import annotations

import numpy as np

from transfer.data.sample_canvas import Canvas, Shading, hsv, spline
from transfer.data.sample_noise import blend, soft_step


def _random_turn(rng: np.random.Generator) -> np.ndarray:
    """A random rotation matrix, [3, 3]."""
    return np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32)


def ball(c: Canvas) -> None:
    """A football, basketball, tennis or beach ball in any turn."""
    rng = c.rng
    mask = c.ellipse(0, 0, 0.97, 0.97)
    x, y = c.x / 0.97, c.y / 0.97
    z = np.sqrt(np.maximum(1 - x * x - y * y, 0))
    u, v, w = np.tensordot(_random_turn(rng), np.stack([x, y, z]), 1)
    kind = c.pick("football", "football", "basket", "tennis", "beach")
    colour, second = c.paint_colour(), c.paint_colour()
    shine, gloss = 20, rng.uniform(0.05, 0.4)
    if kind == "football":
        golden = (1 + 5**0.5) / 2
        axes = np.array(
            [(0, 1, golden), (0, 1, -golden), (1, golden, 0), (1, -golden, 0), (golden, 0, 1), (-golden, 0, 1)]
        )
        near = np.sort(np.abs(np.tensordot(axes.astype(np.float32) / np.hypot(1, golden), np.stack([u, v, w]), 1)), 0)
        light = hsv(rng.random(), rng.uniform(0, 0.15), rng.uniform(0.8, 0.97)) if c.chance(0.7) else colour
        dark = hsv(rng.random(), 0.3, 0.08) if c.chance(0.6) else second
        skin = c.mottled(light, 0.04)
        # Sorted by nearness to the icosahedron's corners: seams run where the third equals the fourth nearest, and
        # 0.756 (d2 + d3) = d1 on a pentagon's edge.
        skin = skin * (0.6 + 0.4 * soft_step(near[3] - near[2], 0.045, 0.04))
        skin = blend(skin, dark, soft_step(near[5] - 0.756 * (near[4] + near[3]), 0.0, 0.02))
    elif kind == "basket":
        skin = hsv(rng.uniform(0.02, 0.09), rng.uniform(0.6, 0.85), rng.uniform(0.4, 0.8)) if c.chance(0.7) else colour
        skin = skin * (1 + 0.1 * c.noise(0.25, "white"))
        line = np.minimum(np.minimum(np.abs(u), np.abs(v)), np.abs(np.abs(u) - 0.5 - 0.35 * w * w))
        skin = blend(hsv(0, 0, 0.07), skin, soft_step(line, 0.03, 0.02))
    elif kind == "tennis":
        base = hsv(rng.uniform(0.12, 0.3), rng.uniform(0.5, 0.8), 0.85) if c.chance(0.7) else colour
        skin = base * (1 + 0.13 * c.noise(0.3, "white"))
        line = np.abs(v - 0.55 * np.sin(2 * np.arctan2(u, w)))
        skin = blend(hsv(0.13, 0.1, 0.95), skin, soft_step(line, 0.07, 0.03))
        gloss = 0.0
    else:
        count = int(rng.choice([6, 8]))
        segment = np.floor((np.arctan2(u, v) / (2 * np.pi) + 0.5) * count)
        colours = np.concatenate([colour, hsv(0.1, 0.05, 0.95), second, hsv(0.1, 0.05, 0.95)], 1)[:, :, 0]  # [3, 4]
        skin = colours[:, segment.astype(int) % 4]
        skin = blend(skin, hsv(0.1, 0.05, 0.95), soft_step(np.abs(w), 0.96, 0.01))
    c.paint(mask, skin, c.lit(x * 0.98, y * 0.98, shine), gloss=gloss)


def book(c: Canvas) -> None:
    """A closed book seen from above at a slant, or an open one with lines of text."""
    rng = c.rng
    cover = c.paint_colour()
    ink = hsv(rng.random(), 0.3, 0.95) if cover.mean() < 0.5 else hsv(rng.random(), 0.5, 0.15)
    if c.chance(0.3):
        lift = c.vary(0.03, 0.12)
        c.paint(c.polygon([(-0.99, -0.62), (0.99, -0.62), (0.99, 0.68), (-0.99, 0.68)]), cover * 0.8)
        for sign in (-1, 1):
            page = c.polygon(
                [
                    *spline([(0, -0.58), (sign * 0.3, -0.66 - lift), (sign * 0.95, -0.6)], closed=False),
                    *spline([(sign * 0.95, 0.62), (sign * 0.3, 0.58 - lift), (0, 0.64)], closed=False),
                ]
            )
            fall = 1 - 0.4 * np.exp(-np.abs(c.x) * 7) + 0.08 * sign * c.light[0]
            c.paint(page, hsv(0.12, rng.uniform(0.03, 0.15), 0.93) * fall)
            rows = [[(sign * 0.12, y), (sign * rng.uniform(0.7, 0.86), y + 0.02)] for y in np.linspace(-0.45, 0.5, 13)]
            c.paint(c.lines(rows, 0.022), hsv(0, 0, 0.25), opacity=0.75, inside=page)
            if c.chance(0.35):
                c.paint(
                    c.box(min(sign * 0.2, sign * 0.75), -0.45, max(sign * 0.2, sign * 0.75), 0.0),
                    c.mottled(c.paint_colour(), 0.4, 0.7),
                    inside=page,
                )
        return
    wide, slant, thick = c.vary(0.62, 0.8), c.vary(-0.2, 0.2), c.vary(0.08, 0.26)
    top = np.array(
        [(-wide + slant, -0.9), (wide + slant, -0.9), (wide - slant, 0.95 - thick), (-wide - slant, 0.95 - thick)]
    )
    drop = np.array([0, thick])
    pages = c.polygon([top[3], top[2], top[2] + drop, top[3] + drop])
    c.paint(pages, hsv(0.12, 0.15, 0.85) * (0.8 + 0.14 * np.sin(c.y * 160)))
    right = c.polygon([top[1], top[1] + drop * 0.6, top[2] + drop, top[2]])
    c.paint(right, hsv(0.12, 0.15, 0.6) * np.ones_like(c.rgb))
    c.paint(c.lines([[top[3] + drop, top[2] + drop]], 0.04), cover * 0.6)
    front = c.polygon(top)
    c.paint(front, c.mottled(cover, 0.05), c.relief(front, 0.15, 24), gloss=0.1)
    c.darken(c.lines([[top[0] + (0.1, 0), top[3] + (0.1, 0)]], 0.04), 0.45, 0.015)
    if c.chance(0.6):
        c.paint(c.box(-wide * 0.6, -0.15, wide * 0.65, 0.5), c.mottled(c.paint_colour(), 0.35, 0.9), inside=front)
    for y, size in ((-0.65, 0.1), (-0.45, 0.06), (0.6, 0.05)):
        reach = rng.uniform(0.3, 0.7) * wide
        c.paint(c.lines([[(-reach, y), (reach, y)]], size), ink, opacity=0.9, inside=front)


def _label(c: Canvas, body: np.ndarray, across: np.ndarray, shading: Shading, wide: float, *, lift: float) -> None:
    """A printed paper label around a bottle."""
    rng = c.rng
    low, high = c.vary(0.55, 0.8), c.vary(0.0, 0.2) - lift
    edge = 0.05 * np.sqrt(np.maximum(1 - across * across, 0))
    band = ((c.y > high + edge) & (c.y < low + edge)).astype(np.uint8) * 255
    paper = c.paint_colour() if c.chance(0.5) else hsv(0.12, 0.12, 0.9)
    c.paint(band, c.mottled(paper, 0.04), shading, inside=body)
    for y in np.linspace(high + 0.1, low - 0.08, int(rng.integers(2, 5))):
        reach = rng.uniform(0.4, 0.8) * wide
        c.paint(
            c.lines([[(-reach, y + 0.04), (reach, y + 0.04)]], rng.uniform(0.02, 0.07)),
            c.paint_colour(),
            opacity=0.85,
            inside=band,
        )


def bottle(c: Canvas) -> None:
    """A wine, beer, soda or squeeze bottle of glass or plastic, with label, cap and streaks of light."""
    rng = c.rng
    kind = c.pick("wine", "beer", "soda", "squeeze")
    wide = c.vary(0.25, 0.34)
    neck = wide * {"wine": 0.34, "beer": 0.36, "soda": 0.42, "squeeze": 0.5}[kind]
    shoulder = {
        "wine": c.vary(-0.35, -0.2),
        "beer": c.vary(-0.3, -0.05),
        "soda": c.vary(-0.5, -0.3),
        "squeeze": c.vary(-0.6, -0.45),
    }[kind]
    slope = 0.14 if kind == "wine" else 0.28
    rows = [
        (-0.9, neck),
        (shoulder - slope, neck * 1.04),
        (shoulder - slope * 0.3, wide * 0.8),
        (shoulder + 0.08, wide),
        (0.3, wide),
        (0.88, wide),
        (0.97, wide * 0.9),
    ]
    if kind == "soda":
        rows[4] = (0.15, wide * 0.84)
    profile = spline(rows, closed=False, steps=6)
    body = c.polygon(np.concatenate([profile[:, ::-1], (profile * (1, -1))[::-1][:, ::-1]]))
    half = np.interp(c.y[:, :1], profile[:, 0], profile[:, 1]).astype(np.float32)
    clear = kind != "squeeze" and c.chance(0.6)
    glass = hsv(rng.uniform(0.05, 0.4), rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.6)) if clear else c.paint_colour()
    across = c.x / half
    tone = 0.75 + 0.5 * (1 - across * across) if clear else np.ones_like(across)
    if clear and c.chance(0.6):
        tone = tone * (1 - 0.4 * soft_step(c.y, rng.uniform(-0.4, 0.4), 0.02))
    shading = c.column(0.0, half, 40)
    c.paint(body, glass * tone, shading, gloss=0.25)
    if clear:
        c.see_through(body, rng.uniform(0.1, 0.4))
    for place, strength, width in ((-0.55, 0.75, 0.13), (0.68, 0.45, 0.07)):
        streak = np.exp(-(((across - np.sign(c.light[0]) * -place) / width) ** 2)) * (0.8 + 0.2 * c.noise((5, 1)))
        c.paint(body, hsv(0.58, 0.06, 1.0), opacity=strength, inside=np.clip(streak * 200, 0, 255).astype(np.uint8))
    if c.chance(0.8):
        _label(c, body, across, shading, wide, lift=0.2 if kind == "squeeze" else 0.0)
    cap = c.box(-neck * 1.15, -0.98, neck * 1.15, c.vary(-0.86, -0.78))
    c.paint(cap, c.paint_colour() * (1 + 0.15 * np.sin(c.x * 150)), c.column(0.0, neck * 1.15, 24), gloss=0.3)


def _alarm(c: Canvas, colour: np.ndarray) -> None:
    """Feet, stem and two bells."""
    feet = c.lines([[(-0.4, 0.7), (-0.6, 0.97)], [(0.4, 0.7), (0.6, 0.97)], [(0, -0.6), (0, -0.95)]], 0.1)
    c.paint(feet, colour * 0.8, c.relief(feet, 0.8))
    for sign in (-1, 1):
        bell = c.blob([(sign * 0.12, -0.62), (sign * 0.22, -0.92), (sign * 0.6, -0.88), (sign * 0.72, -0.5)])
        c.paint(bell, colour, c.relief(bell, 0.9, 12), gloss=0.6)


def _hands(c: Canvas, ink: np.ndarray, middle: np.ndarray, reach: float) -> None:
    """Twelve ticks, or figures of one to three strokes, and two or three hands."""
    rng = c.rng
    turns = np.arange(12) * np.pi / 6
    way = np.column_stack([np.sin(turns), -np.cos(turns)]) * reach
    if c.chance(0.5):
        strokes = []
        for number, (x, y) in enumerate((way * 0.76 + middle).tolist()):
            for part in range(1 + number % 3):
                left = x + (part - 0.5 * (number % 3)) * 0.06
                strokes.append([(left, y - 0.08), (left + 0.01 * (number % 4 - 1), y + 0.08)])
        c.paint(c.lines(strokes, 0.032), ink)
    else:
        c.paint(c.lines([[spot * 0.72 + middle, spot * 0.9 + middle] for spot in way], 0.045), ink)
    for length, width, colour in ((0.5, 0.075, ink), (0.76, 0.05, ink), (0.8, 0.018, hsv(0, 0.8, 0.7))):
        turn = rng.uniform(0, 2 * np.pi)
        point = np.array([np.sin(turn), -np.cos(turn)]) * reach
        if width > 0.02 or c.chance(0.5):
            c.paint(c.lines([[middle - point * 0.12, middle + point * length]], width), colour)
    c.paint(c.dots(middle[None], np.array([0.05])), ink)


def clock(c: Canvas) -> None:
    """A wall or alarm clock, round or square: ticks or figures around a dial, two or three hands."""
    rng = c.rng
    alarm = c.chance(0.35)
    y0, radius = (0.1, 0.76) if alarm else (0.0, 0.97)
    material = c.pick("metal", "wood", "plastic")
    colour = c.paint_colour() if material == "plastic" else hsv(0.08, 0.55, rng.uniform(0.25, 0.7))
    if material == "metal":
        colour = hsv(rng.uniform(0.08, 0.6), rng.uniform(0.05, 0.4), 0.75)
    frame = c.wood(colour) if material == "wood" else colour
    if alarm:
        _alarm(c, frame)
    square = not alarm and c.chance(0.3)
    inner = c.vary(0.78, 0.9)

    def disc(part: float) -> np.ndarray:
        size = radius * part
        return c.box(-size, y0 - size, size, y0 + size) if square else c.ellipse(0, y0, size, size)

    rim, dial, dark = disc(1.0), disc(inner), c.chance(0.3)
    c.paint(rim, frame, c.relief(rim, 0.9, 14), gloss=0.1 if material == "wood" else 0.4)
    c.darken(disc(inner + 0.03), 0.5, 0.02)
    if dark:
        face, ink = c.near(hsv(rng.random(), rng.uniform(0.05, 0.6), rng.uniform(0.08, 0.4))), hsv(0.1, 0.1, 0.93)
    else:
        face = hsv(rng.uniform(0.08, 0.6), rng.uniform(0, 0.25), rng.uniform(0.82, 0.97))
        ink = hsv(rng.random(), 0.4, rng.uniform(0.03, 0.2))
    c.paint(dial, c.mottled(face, 0.03, 3.0))
    _hands(c, ink, np.array([0.0, y0]), radius * inner)
    shine = soft_step(c.x * c.light[0] + c.y * c.light[1] + 0.15 * c.noise(3.0), 0.3, 0.5)
    c.paint(dial, hsv(0.58, 0.05, 1), opacity=rng.uniform(0, 0.25), inside=(shine * 255).astype(np.uint8))


def guitar(c: Canvas) -> None:
    """An acoustic or electric guitar, neck upwards: waisted body, hole or pickups, frets and strings."""
    rng = c.rng
    electric = c.chance(0.4)
    colour = (
        c.paint_colour() if electric else hsv(rng.uniform(0.04, 0.11), rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.85))
    )
    wide, waist = c.vary(0.34, 0.42), c.vary(0.2, 0.26)
    right = [(0.05, 0.02), (0.26, 0.0), (wide * 0.78, 0.15), (waist, 0.38), (wide, 0.68), (0.24, 0.95), (0, 0.98)]
    outline = right + [(-x, y) for x, y in reversed(right[:-1])]
    if electric:
        outline[1], outline[-2] = (0.34, -0.12), (-0.3, -0.2)
        outline.insert(1, (0.08, 0.12))
        outline.insert(-1, (-0.08, 0.12))
    body = c.blob(outline)
    finish = (
        blend(c.wood(colour), colour * 0.25, soft_step(np.hypot(c.x, c.y - 0.5), c.vary(0.42, 0.6), 0.25))
        if c.chance(0.5)
        else c.wood(colour)
    )
    c.paint(body, finish, c.relief(body, 0.5, 24), gloss=0.3)
    c.paint(c.polygon([(-0.06, -0.72), (0.06, -0.72), (0.07, 0.35), (-0.07, 0.35)]), c.wood(hsv(0.06, 0.5, 0.2)))
    frets = [[(-0.065, y), (0.065, y)] for y in -0.7 + 0.95 * (1 - 0.5 ** (np.arange(1, 15) / 8))]
    c.paint(c.lines(frets, 0.012), hsv(0.12, 0.15, 0.8))
    head = c.polygon([(-0.06, -0.7), (-0.1, -0.95), (0.0, -0.99), (0.1, -0.95), (0.06, -0.7)])
    c.paint(head, c.wood(colour * 0.6), c.relief(head, 0.4))
    pegs = np.array([(s * 0.12, y) for s in (-1, 1) for y in (-0.93, -0.86, -0.79)])
    c.paint(c.dots(pegs, np.full(6, 0.028)), hsv(0.1, 0.1, 0.8))
    if electric:
        for y in (0.42, 0.58):
            c.paint(c.box(-0.13, y - 0.035, 0.13, y + 0.035), hsv(0, 0, 0.08))
        c.paint(c.dots(np.array([(0.24, 0.7), (0.2, 0.8)]), np.array([0.03, 0.03])), hsv(0.1, 0.1, 0.85))
    else:
        c.paint(c.ellipse(0, 0.4, 0.14, 0.13), hsv(0.08, 0.5, 0.5))
        c.paint(c.ellipse(0, 0.4, 0.115, 0.105), hsv(0.05, 0.4, 0.05))
    c.paint(c.box(-0.14, 0.72, 0.14, 0.77), hsv(0.05, 0.4, 0.12))
    c.paint(
        c.lines([[(x * 0.8, -0.75), (x, 0.74)] for x in (-0.05, -0.025, 0, 0.025, 0.05)], 0.006),
        hsv(0.12, 0.1, 0.85),
        opacity=0.7,
    )


def key(c: Canvas) -> None:
    """A metal key: pierced bow of several shapes, shaft, and cut teeth."""
    rng = c.rng
    metal = hsv(rng.choice([0.1, 0.13, 0.6]), rng.uniform(0.05, 0.55), rng.uniform(0.45, 0.85))
    thick, bow = c.vary(0.05, 0.09), c.vary(0.26, 0.38)
    shape = c.pick("ring", "square", "clover")
    y = -0.98 + bow
    if shape == "ring":
        head = c.ellipse(0, y, bow, bow * 0.9)
    elif shape == "square":
        head = c.blob([(-bow, y - bow * 0.7), (bow, y - bow * 0.7), (bow, y + bow * 0.7), (-bow, y + bow * 0.7)])
    else:
        head = c.dots(np.array([(-bow * 0.5, y), (bow * 0.5, y), (0, y - bow * 0.4)]), np.full(3, bow * 0.55))
    shaft = c.box(-thick, y, thick, 0.97)
    teeth = [(thick * 0.5, 0.4)]
    for number in range(6):
        depth = thick + rng.uniform(0.04, 0.26)
        teeth += [(depth, 0.4 + number * 0.085), (depth, 0.46 + number * 0.085)]
    both = np.maximum(np.maximum(head, shaft), c.polygon([*teeth, (thick * 0.5, 0.93)]))
    scratched = metal * (1 + 0.12 * c.noise((3.0, 0.5)) + 0.08 * c.noise(0.3, "fine"))
    c.paint(both, scratched, c.relief(both, 0.8, 10), gloss=0.5)
    c.darken(c.lines([[(0, y + bow), (0, 0.9)]], 0.03), 0.5, 0.01)
    hole = c.ellipse(0, y - bow * c.vary(0.0, 0.25), bow * c.vary(0.3, 0.62), bow * c.vary(0.3, 0.55))
    c.see_through(hole, 1.0)


def mug(c: Canvas) -> None:
    """A mug or cup with a handle, seen from a little above: banded, dotted or plain glaze, often full."""
    rng = c.rng
    glaze, second = c.paint_colour(), c.paint_colour()
    wide, taper, squat = c.vary(0.52, 0.66), c.vary(0.72, 1.05), c.vary(0.06, 0.24)
    top, bottom, x0 = -0.72 + c.vary(0, 0.25), 0.85 - squat * 0.3, -0.22
    rise = c.vary(0.24, 0.4)
    middle = (top + bottom) / 2 - 0.03
    ring = spline(
        [
            (x0 + wide * 0.9, middle - rise),
            (x0 + wide + 0.3, middle - rise * 0.9),
            (x0 + wide + 0.36, middle),
            (x0 + wide * 0.85 + 0.2, middle + rise * 0.8),
            (x0 + wide * 0.8, middle + rise * 0.85),
        ],
        closed=False,
    )
    handle = c.lines([ring], c.vary(0.11, 0.17))
    c.paint(handle, glaze, c.relief(handle, 1.0, 24), gloss=0.4)
    turns = np.linspace(0, np.pi, 20)
    base = np.column_stack([x0 + np.cos(turns) * wide * taper, bottom + np.sin(turns) * squat * taper])
    body = c.polygon([(x0 - wide, top), *base[::-1], (x0 + wide, top)])
    half = np.interp(c.y[:, :1], [top, bottom], [wide, wide * taper]).astype(np.float32)
    curve = c.y - squat * np.sqrt(np.maximum(1 - ((c.x - x0) / half) ** 2, 0))
    around = np.arcsin(np.clip((c.x - x0) / half, -1, 1))
    skin = c.mottled(glaze, 0.04, 2.0)
    pattern = c.pick("plain", "bands", "dots", "emblem", "dipped")
    if pattern == "bands":
        skin = blend(
            skin, second, soft_step(np.sin(curve * rng.uniform(7, 22) + rng.random() * 6), rng.uniform(-0.2, 0.6), 0.15)
        )
    elif pattern == "dots":
        dots = np.cos(around * 7 + 1) * np.cos(curve * 10)
        skin = blend(skin, second, soft_step(dots, rng.uniform(0.3, 0.6), 0.12))
    elif pattern == "emblem":
        heart = np.hypot(around - rng.uniform(-0.5, 0.3), (curve - middle) * 1.6)
        skin = blend(second, skin, soft_step(heart + 0.12 * c.noise(1.0), rng.uniform(0.25, 0.45), 0.03))
    elif pattern == "dipped":
        skin = blend(skin, second, soft_step(curve + 0.05 * c.noise(2.0), rng.uniform(-0.1, 0.3), 0.05))
    c.paint(body, skin, c.column(x0, half, 30), gloss=rng.uniform(0.1, 0.6))
    c.darken(c.lines([base], 0.05), 0.4, 0.03)
    lip = c.ellipse(x0, top, wide, squat)
    c.paint(lip, np.minimum(glaze * 1.15 + 0.05, 1))
    well = c.ellipse(x0, top + 0.01, wide * 0.92, squat * 0.86)
    inside = hsv(0.1, 0.05, 0.85) if c.chance(0.5) else glaze
    c.paint(well, inside * (0.62 - 0.3 * c.light[0] * (c.x - x0) / wide))
    if c.chance(0.65):
        drink = hsv(rng.uniform(0.04, 0.1), rng.uniform(0.4, 0.9), rng.uniform(0.1, 0.7))
        c.paint(c.ellipse(x0, top + squat * 0.3, wide * 0.86, squat * 0.66), c.mottled(drink, 0.1), inside=well)
