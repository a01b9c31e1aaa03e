"""What a report is made of, before it is HTML or Markdown: both are written from the same blocks, so they agree.

All texts are plain: whoever writes them into a page escapes them. Only the shapes of a chart are SVG already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Heading:
    """A heading below the section's."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    is_lead: bool = False
    """The answer itself."""
    is_warning: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: frozenset[int] = frozenset()
    """Columns that hold words; the others hold numbers and are set flush right."""
    breaks: frozenset[int] = frozenset()
    """Rows above which a line is drawn: a new group begins."""
    notes: Sequence[str] = ()
    folded: str | None = None
    """Shown on demand, below this line."""


@dataclass(frozen=True)
class Chart:
    """A drawing; the numbers in it stand in a table beside it."""

    title: str
    description: str
    """What is to be seen, for who does not see it."""
    width: int
    height: int
    shapes: str
    """SVG elements, escaped."""
    kind: str = "plot"
    """"plot" or "rows", which is narrower."""


@dataclass(frozen=True)
class Charts:
    """Charts beside each other, where the window is wide enough."""

    charts: Sequence[Chart]


@dataclass(frozen=True)
class Picture:
    """A picture from a file."""

    caption: str
    alternative: str
    path: str
    """As in the record."""
    data: str | None
    """Data URI; None: the file could not be read."""
    size: tuple[int, int] = (0, 0)
    """(height, width), pixels."""


@dataclass(frozen=True)
class Pictures:
    """Pictures of one thing, side by side."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Commands:
    """Commands, or other text of a terminal."""

    title: str
    entries: Sequence[tuple[str, str]]
    """(what it is of, text)."""
    is_folded: bool = True


Block = Heading | Text | Bullets | Table | Charts | Pictures | Commands


@dataclass(frozen=True)
class Section:
    """A part of the page, with a heading."""

    key: str
    """Its name in addresses: ours, never from the record."""
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    summary: str
    sections: Sequence[Section] = field(default_factory=list)
