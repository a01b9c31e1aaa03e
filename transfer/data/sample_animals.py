"""Animals of the embedded sample, each drawn on a canvas with its own varieties."""

from __future__ import annotations

import cv2
import numpy as np

from transfer.data.sample_canvas import Canvas, Shading, hsv, spline
from transfer.data.sample_noise import blend, soft_step


def _wing(c: Canvas, wing: np.ndarray, ends: list, flip: np.ndarray, scales: np.ndarray, grain: Shading) -> np.ndarray:
    """Fill one wing and leave a dark rim of what is under it; returns the mask of its veins."""
    centre = wing.mean(0) - np.array([0.08, 0])
    c.paint(c.blob(((wing - centre) * 0.865 + centre) * flip), scales, grain)
    root = (0.03, -0.1)
    curves = [np.array([root, ((x + 0.1) * 0.55, y * 0.62 - 0.03), (x, y)]) * flip for x, y in ends]
    return c.lines([spline(curve, closed=False) for curve in curves], 0.022)


def butterfly(c: Canvas) -> None:
    """A butterfly from above, its wings folded by some angle: veins, dark rims, spots and eyes."""
    rng = c.rng
    colour = c.paint_colour() if c.chance(0.6) else hsv(rng.uniform(0.03, 0.14), 0.8, rng.uniform(0.5, 0.9))
    second, rim, iris = c.near(colour, 0.2), hsv(rng.random(), 0.4, rng.uniform(0.03, 0.25)), c.near(colour, 0.35)
    reach, droop, tail = c.vary(0.85, 1.0), c.vary(0.55, 0.95), c.vary(0.0, 0.3)
    fore = [
        (0.02, -0.25),
        (0.3, -0.62),
        (reach * 0.8, -0.95),
        (reach, -0.8),
        (reach * 0.9, -0.3),
        (0.5, 0),
        (0.03, 0.05),
    ]
    hind = [(0.02, -0.05), (0.5, -0.1), (0.8 * droop + 0.1, 0.2), (0.62, 0.6), (0.42, 0.8 + tail * 0.6), (0.2, 0.6)]
    wings = [
        (np.array([*hind, (0.02, 0.3)]), [(0.75, 0.15), (0.68, 0.45), (0.45, 0.72), (0.22, 0.6)]),
        (np.array(fore), [(0.95, -0.8), (0.95, -0.55), (0.85, -0.3), (0.6, -0.02)]),
    ]
    band, eyed = rng.uniform(0.5, 0.9), c.chance(0.5)
    spots = np.column_stack([rng.uniform(0.45, 0.85, 5), rng.uniform(-0.8, -0.2, 5)])
    texture, fine = 0.1 * c.noise(1.5), 1 + 0.1 * c.noise(0.4, "fine")
    for sign, fold in ((1, c.vary(0.55, 1)), (-1, c.vary(0.55, 1))):
        flip = np.array([sign * fold, 1.0])
        light = 0.75 + 0.35 * (fold + sign * c.light[0] * 0.4)
        scales = blend(colour, second, soft_step(np.hypot(c.x / fold, c.y) + texture, band, 0.5))
        for wing, ends in wings:
            mask = c.blob(wing * flip)
            c.paint(mask, rim * light)
            veins = _wing(c, wing, ends, flip, scales, Shading(fine * light))
            c.paint(veins, rim * light, opacity=0.85, inside=mask)
            eye = np.array([wing[2] * 0.72 + wing[4] * 0.12]) * flip
            for radius, tint in ((0.12, rim), (0.085, iris), (0.045, rim)) if eyed else ():
                c.paint(c.dots(eye, np.array([radius])), tint * light, inside=mask)
        c.paint(c.dots(spots * flip, rng.uniform(0.02, 0.06, 5)), hsv(0.12, 0.1, 0.95) * light, opacity=0.8)
    body = c.ellipse(0, 0.05, 0.055, 0.38)
    c.paint(body, c.mottled(hsv(0.07, 0.4, 0.22), 0.3, 0.4), c.relief(body, 1.0, 24), gloss=0.2)
    c.paint(c.dots(np.array([(0, -0.34)]), np.array([0.06])), hsv(0.07, 0.4, 0.15))
    feelers = [spline([(0, -0.36), (s * 0.1, -0.6), (s * 0.26, -0.82)], closed=False) for s in (-1, 1)]
    c.paint(c.lines(feelers, 0.018), hsv(0.07, 0.4, 0.12))


def _cat_ears(c: Canvas, coat: np.ndarray, turn: float, tall: float) -> None:
    for sign in (-1, 1):
        foot, tip = sign * 0.42 + turn * 0.5, sign * 0.66 + turn * 0.4
        outer = [(foot - sign * 0.28, -0.42), (tip, -0.36 - tall), (foot + sign * 0.36, -0.12)]
        ear = c.polygon(spline([(x, y) for x, y in outer], steps=2))
        c.paint(ear, coat, c.relief(ear, 0.6))
        inner = np.array(outer) * 0.6 + np.array(outer).mean(0) * 0.4
        c.paint(c.polygon(inner), c.near(hsv(0.02, 0.35, 0.6), 0.05), opacity=0.75)


def _cat_face(c: Canvas, coat: np.ndarray, pale: np.ndarray, turn: float) -> None:
    rng = c.rng
    wide, eye_hue, slit = c.vary(0.17, 0.23), rng.choice([0.13, 0.2, 0.3, 0.55]), c.vary(0.03, 0.1)
    muzzle = c.dots(np.array([(turn - 0.14, 0.34), (turn + 0.14, 0.34), (turn, 0.46)]), np.array([0.2, 0.2, 0.16]))
    c.paint(muzzle, pale, c.relief(muzzle, 0.5), opacity=0.85)
    for sign in (-1, 1):
        x = turn * 0.9 + sign * 0.33
        c.paint(c.ellipse(x, -0.04, wide + 0.03, wide * 0.8 + 0.03, sign * 0.25), hsv(0.06, 0.5, 0.08))
        iris = c.ellipse(x, -0.04, wide, wide * 0.78, sign * 0.25)
        c.paint(iris, hsv(eye_hue, 0.6, 0.75), c.relief(iris, 0.4, 24), gloss=0.3)
        c.paint(c.ellipse(x, -0.04, slit, wide * 0.74), hsv(0, 0, 0.02), inside=iris)
        c.paint(c.dots(np.array([(x - c.light[0] * -0.06, -0.11)]), np.array([0.035])), hsv(0, 0, 1))
    nose = [(turn - 0.1, 0.2), (turn + 0.1, 0.2), (turn, 0.31)]
    c.paint(c.blob(nose), hsv(0.99, rng.uniform(0.2, 0.5), rng.choice([0.15, 0.7, 0.8])))
    mouth = [spline([(turn, 0.3), (turn, 0.4), (turn + s * 0.17, 0.47)], closed=False) for s in (-1, 1)]
    c.paint(c.lines(mouth, 0.025), hsv(0.05, 0.4, 0.12), opacity=0.8)
    whiskers = [
        [(turn + sign * 0.2, 0.33 + drop * 0.15), (turn + sign * rng.uniform(0.75, 0.95), drop * 1.3 - 0.1)]
        for sign in (-1, 1)
        for drop in (0.26, 0.38, 0.5)
    ]
    c.paint(c.lines(whiskers, 0.012), hsv(0.1, 0.05, 0.92), opacity=0.7)


def cat(c: Canvas) -> None:
    """A cat's head, or a sitting cat: tabby, plain, two-coloured or masked, with fur, slit eyes and whiskers."""
    rng = c.rng
    hue, saturation = rng.uniform(0.04, 0.12), rng.choice([0.08, 0.15, 0.5, 0.65])
    base = hsv(hue, saturation, rng.uniform(0.15, 0.85))
    pale = hsv(hue, 0.12, rng.uniform(0.75, 0.95)) if c.chance(0.6) else c.near(base, 0.05)
    strands = c.radial_noise(0, 0.1, angular=55, radial=9)
    coat = base * (1 + 0.2 * strands + 0.1 * c.noise(1.5))
    pattern = c.pick("tabby", "tabby", "plain", "patches", "mask")
    if pattern == "tabby":
        angle = np.abs(np.arctan2(c.x, -(c.y - 0.3)))
        stripes = np.sin(
            np.hypot(c.x * 1.4, c.y + 0.2) * rng.uniform(14, 20) + 2 * np.sin(angle * 6) + 0.8 * c.noise(1.5)
        )
        coat = blend(coat, coat * 0.35, soft_step(stripes, 0.35, 0.6) * 0.85)
    elif pattern == "patches":
        coat = blend(coat, pale * (1 + 0.12 * strands), soft_step(c.noise(3.0) + c.y, 0.2, 0.15))
    elif pattern == "mask":
        coat = blend(coat * 0.3, np.maximum(coat, 0.6), soft_step(np.hypot(c.x, c.y - 0.2), 0.5, 0.4))
    turn, tall = c.vary(-0.16, 0.16), c.vary(0.4, 0.62)
    sitting = c.chance(0.45)
    if sitting:
        body = c.blob(
            [(-0.3, -0.25), (0.3, -0.25), (0.55, 0.3), (0.6, 0.8), (0.3, 0.97), (-0.3, 0.97), (-0.6, 0.8), (-0.55, 0.3)]
        )
        tail = c.lines([spline([(0.5, 0.85), (0.85, 0.8), (0.9, 0.45), (0.75, 0.25)], closed=False)], 0.16)
        c.paint(tail, coat, c.relief(tail, 0.8))
        c.paint(body, coat, c.relief(body, 0.8))
        chest = c.blob([(-0.16, -0.1), (0.16, -0.1), (0.2, 0.4), (0, 0.55), (-0.2, 0.4)])
        c.paint(chest, pale * (1 + 0.15 * strands), opacity=0.7)
        paws = c.dots(np.array([(-0.18, 0.9), (0.18, 0.9)]), np.array([0.13, 0.13]))
        c.paint(paws, pale, c.relief(paws, 0.7))
        c.darken(
            c.lines([[(0, 0.5), (0, 0.95)], [(-0.33, 0.4), (-0.36, 0.92)], [(0.33, 0.4), (0.36, 0.92)]], 0.03),
            0.5,
            0.015,
        )
    head = Canvas(c.side, rng, c.light, variation=c.variation) if sitting else c
    _cat_ears(head, coat, turn, tall)
    turns = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    ragged = 1 + rng.normal(0, 0.018, 72)
    width, height = c.vary(0.74, 0.86), c.vary(0.62, 0.7)
    skull = head.polygon(np.column_stack([np.sin(turns) * width * ragged, 0.08 - np.cos(turns) * height * ragged]))
    head.paint(skull, coat, c.relief(skull, 0.75, 24), gloss=0.05)
    _cat_face(head, coat, pale, turn)
    if sitting:
        _paste(c, head, scale=0.55, shift_y=-0.45)


def _paste(c: Canvas, other: Canvas, *, scale: float, shift_y: float) -> None:
    """Lay another canvas, made smaller, over this one."""
    middle = c.side / 2
    matrix = np.array([[scale, 0, middle * (1 - scale)], [0, scale, middle * (1 - scale + shift_y)]])
    layer = cv2.warpAffine(other.finished(), matrix, (c.side, c.side), flags=cv2.INTER_LINEAR)
    *rgb, alpha = cv2.split(layer)
    c.rgb += np.stack(rgb) - c.rgb * alpha
    c.alpha += alpha * (1 - c.alpha)


def fish(c: Canvas) -> None:
    """A fish from the side: scales, rayed fins, dark back and pale belly, plain, striped or spotted."""
    rng = c.rng
    deep, colour = c.vary(0.24, 0.5), c.paint_colour()
    second, nose = c.near(colour, 0.3), c.vary(0.85, 0.97)
    fin = c.near(colour, 0.15) * 0.9
    rays = np.sin(c.radial_noise(0, 0, angular=2, radial=1) + np.arctan2(c.y, c.x - 0.1) * 60)
    fin_colour = fin * (1 + 0.18 * rays)
    fork = c.vary(0.25, 0.5)
    tail = c.blob([(-0.5, 0), (-0.75, -fork * 0.7), (-0.98, -fork), (-0.85, 0), (-0.98, fork), (-0.75, fork * 0.7)])
    back = c.blob(
        [(0.4, -deep * 0.7), (0.2, -deep - c.vary(0.12, 0.3)), (-0.2, -deep * 0.8 - 0.15), (-0.4, -deep * 0.4)]
    )
    under = c.blob([(0.1, deep * 0.8), (-0.1, deep + c.vary(0.08, 0.22)), (-0.3, deep * 0.7)])
    for part in (tail, back, under):
        c.paint(part, fin_colour, opacity=0.93)
    right = [(nose, 0.02), (0.75, -deep * 0.55), (0.35, -deep), (-0.15, -deep * 0.85), (-0.5, -0.13), (-0.66, -0.1)]
    body = c.blob([*right, *[(x, -y * 0.95) for x, y in reversed(right[1:])]])
    scale = c.vary(11, 18)
    row = np.floor(c.y * scale)
    across = (c.x * scale * 0.8 + 0.5 * (row % 2)) % 1 - 0.5
    arcs = np.hypot(across, (c.y * scale) % 1 - 0.5)
    skin = blend(
        c.mottled(colour, 0.08),
        hsv(0.12, 0.08, 0.85),
        soft_step(c.y / deep + 0.2 * c.noise(2.0), rng.uniform(0.3, 1.1), 0.9),
    )
    skin = blend(skin, colour * 0.4, soft_step(-c.y / deep, rng.uniform(0.3, 0.9), 0.6))
    pattern = c.pick("plain", "bars", "lines", "spots")
    if pattern == "bars":
        skin = blend(skin, second, soft_step(np.sin(c.x * rng.uniform(8, 16) + 0.5 * c.noise(2.0)), 0.3, 0.4))
    elif pattern == "lines":
        skin = blend(skin, second, soft_step(np.sin(c.y * rng.uniform(14, 26) + 0.3 * c.noise(2.0)), 0.3, 0.4))
    elif pattern == "spots":
        skin = blend(skin, second, soft_step(c.noise(0.5), 0.9, 0.4))
    skin = skin * (1.08 - 0.5 * soft_step(arcs, 0.5, 0.3) * soft_step(-c.x, -0.5, 0.1))
    c.paint(body, skin, c.relief(body, 0.8, 14), gloss=rng.uniform(0.2, 0.5))
    gill = spline([(0.5, -deep * 0.7), (0.4, 0), (0.5, deep * 0.6)], closed=False)
    c.darken(c.lines([gill], 0.05), 0.6, 0.02)
    c.paint(c.blob([(0.3, 0.05), (0.02, 0.02), (0.0, 0.22), (0.15, 0.24)]), fin_colour * 0.85, opacity=0.9)
    eye = np.array([(0.68, -deep * 0.22)])
    c.paint(c.dots(eye, np.array([0.08])), hsv(rng.uniform(0.08, 0.16), 0.4, 0.85))
    c.paint(c.dots(eye, np.array([0.05])), hsv(0, 0, 0.03))
    c.paint(c.dots(eye + np.array([0.015, -0.02]), np.array([0.018])), hsv(0, 0, 1))
    c.darken(c.lines([spline([(nose, 0.07), (nose - 0.1, 0.1), (nose - 0.16, 0.09)], closed=False)], 0.03), 0.7)
