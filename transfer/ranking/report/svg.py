"""SVG from numbers: elements, scales, ticks, marks.

Written by hand and not by matplotlib: a drawing that takes its colours from the page's style follows dark mode and
printing, its texts stay texts, and it is a tenth of the size.

The style of the classes is in `style.py`. A mark differs from another by its shape as well as by its colour.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from transfer.ranking.report.wording import shortened, shown

TEXT_WIDTH = 8.0
"""Of a character at 13 pixels, on the safe side for system fonts; wide scripts count twice."""
TEXT_HEIGHT = 15.0
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
SHAPES = {"pretrained": "circle", "grown": "triangle", "random": "square", "frozen": "diamond", "published": "cross"}
"""Arm (or layer) -> shape."""


def element(name: str, content: str = "", /, **attributes: str | float) -> str:
    """An element; numbers with one digit, `class_` for class, underscores for hyphens, values escaped.

    Args:
        name: of the element.
        content: SVG that is escaped already.
        attributes: of the element.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(coordinate(value))}"' for key, value in attributes.items()
    )
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def coordinate(value: str | float) -> str:
    """A number as short as a screen needs it."""
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def words(text: str, x: float, y: float, *, kind: str = "", anchor: str = "start") -> str:
    """A line of text; y is its baseline."""
    return element("text", html.escape(shown(text)), x=x, y=y, text_anchor=anchor, class_=kind or "t")


def text_width(text: str) -> float:
    """About the width of a line of 13 pixels."""
    return TEXT_WIDTH * sum(2 if ord(each) > 0x1100 and each != "…" else 1 for each in text)


def fitted(text: str, width: float) -> str:
    """A name cut in its middle to so many pixels."""
    most = max(int(width / TEXT_WIDTH), 3)
    while text_width(shortened(text, most)) > width and most > 3:
        most -= 1
    return shortened(text, most)


def mark(kind: str, x: float, y: float, title: str = "") -> str:
    """The mark of an arm or layer.

    Args:
        kind: a key of SHAPES; any other is a circle.
        x: of the centre.
        y: of the centre.
        title: what a pointer over it shows.
    """
    shape = SHAPES.get(kind, "circle")
    style = f"mark m-{kind if kind in SHAPES else 'other'}"
    content = element("title", html.escape(shown(title))) if title else ""
    if shape == "circle":
        return element("circle", content, cx=x, cy=y, r=5.5, class_=style)
    corners: dict[str, list[tuple[float, float]]] = {
        "triangle": [(0, -6.5), (6.2, 5), (-6.2, 5)],
        "square": [(-5, -5), (5, -5), (5, 5), (-5, 5)],
        "diamond": [(0, -7), (7, 0), (0, 7), (-7, 0)],
        "cross": [(-5, -5), (5, 5), (0, 0), (-5, 5), (5, -5), (0, 0)],
    }
    steps = " ".join(f"{coordinate(x + dx)},{coordinate(y + dy)}" for dx, dy in corners[shape])
    return element("polygon", content, points=steps, class_=style)


@dataclass(frozen=True)
class Scale:
    """From data to pixels."""

    low: float
    high: float
    start: float
    """Pixel of `low`."""
    end: float
    """Pixel of `high`."""
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(each) if self.is_log else each for each in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 6) -> list[float]:
        """Round values within the scale."""
        if self.is_log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
            inside = [step for step in steps if self.low <= step <= self.high]
            if len(inside) > 1:
                return inside if len(inside) <= count + 1 else [step for step in inside if _is_decade(step)]
        return nice_ticks(self.low, self.high, count)


def scale(values: Sequence[float], start: float, end: float, *, is_log: bool = False, margin: float = 0.07) -> Scale:
    """A scale that holds all values, with a margin.

    Args:
        values: one at least.
        start: pixel of the lowest.
        end: pixel of the highest.
        is_log: logarithmic; the values are above 0.
        margin: share of the range that is added at each end.
    """
    low, high = min(values), max(values)
    if is_log:
        factor = (high / low) ** margin if high > low else 1.5
        return Scale(low / factor, high * factor, start, end, is_log=True)
    extra = (high - low) * margin if high > low else max(abs(high) * margin, 1.0)
    return Scale(low - extra, high + extra, start, end)


def nice_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """At most `count` multiples of 1, 2, 2.5 or 5 times a power of ten, from low to high.

    Args:
        low: of the axis.
        high: of the axis, above low.
        count: of ticks, 2 or more.
    """
    assert high > low, "an axis has a length"
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [place * step for place in range(first, last + 1)]


def tick_text(value: float) -> str:
    """ "0.5", "1,000"."""
    return f"{value:,.6g}" if abs(value) > 1e-12 else "0"


def _is_decade(value: float) -> bool:
    return abs(math.log10(value) - round(math.log10(value))) < 1e-9
