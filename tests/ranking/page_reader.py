"""Reads a report back: what a browser's parser would see of the page, and the tables of the Markdown."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

Attributes = dict[str, str]


@dataclass
class Page:
    """What is in a page."""

    elements: list[tuple[str, Attributes]] = field(default_factory=list)
    headings: list[tuple[int, str]] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    """Caption -> rows, the head first."""
    drawings: list[dict[str, str]] = field(default_factory=list)
    """Of each svg: its role, title and desc."""
    text: str = ""
    unclosed: list[str] = field(default_factory=list)

    def all(self, name: str) -> list[Attributes]:
        """Attributes of all elements of a name."""
        return [attributes for found, attributes in self.elements if found == name]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page, self.open, self.words = Page(), [], []
        self.rows: list[list[str]] = []
        self.caption = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {key: value or "" for key, value in attrs}
        self.page.elements.append((tag, attributes))
        if tag == "svg":
            self.page.drawings.append({"role": attributes.get("role", "")})
        if tag == "table":
            self.rows, self.caption = [], ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("h1", "h2", "h3", "h4", "h5", "h6", "caption", "th", "td", "title", "desc"):
            self.words = []
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if "style" not in self.open:
            self.page.text += data

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"
        text = "".join(self.words).strip()
        if tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
            self.page.headings.append((int(tag[1]), text))
        elif tag == "caption":
            self.caption = text
        elif tag in ("th", "td"):
            self.rows[-1].append(text)
        elif tag == "table":
            assert self.caption, "a table without a caption"
            assert self.caption not in self.page.tables, f"two tables are called {self.caption!r}"
            self.page.tables[self.caption] = self.rows
        elif tag in ("title", "desc") and self.open and self.open[-1] == "svg":
            self.page.drawings[-1][tag] = text


def read_page(text: str) -> Page:
    """The page; elements must be closed in order."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    reader.page.unclosed = reader.open
    return reader.page


def read_markdown_tables(text: str) -> dict[str, list[list[str]]]:
    """Caption -> rows, the head first."""
    lines, tables = text.splitlines(), {}
    for place, line in enumerate(lines):
        if line.startswith("**") and line.endswith("**") and lines[place + 2].startswith("| "):
            rows = []
            for row in lines[place + 2 :]:
                if not row.startswith("|"):
                    break
                rows.append([_plain(cell) for cell in re.split(r"(?<!\\)\|", row)[1:-1]])
            del rows[1]  # the rule
            tables[_plain(line[2:-2])] = rows
    return tables


def _plain(text: str) -> str:
    return html.unescape(re.sub(r"\\(.)", r"\1", text.strip()))
