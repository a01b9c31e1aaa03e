"""Blocks as one HTML file that needs nothing else: style, drawings and pictures are inside, scripts there are none.

The page's Content-Security-Policy lets nothing in but its own style, by its hash, and pictures that are in the page. So
even a name that were not escaped could neither run nor fetch anything.
"""

from __future__ import annotations

import base64
import hashlib
import html

from transfer.ranking.report.blocks import (
    Block,
    Bullets,
    Chart,
    Charts,
    Commands,
    Heading,
    Page,
    Pictures,
    Section,
    Table,
    Text,
)
from transfer.ranking.report.style import STYLE
from transfer.ranking.report.wording import shown


def to_html(page: Page) -> str:
    """The whole page."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; script-src 'none'; base-uri 'none'; "
        "form-action 'none'"
    )
    writer = _Writer()
    links = "".join(f'<li><a href="#{part.key}">{_escape(part.title)}</a></li>' for part in page.sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{_escape(page.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#{page.sections[0].key}">Skip to the answer</a>\n'
        f"<header>\n<h1>{_escape(page.title)}</h1>\n<p>{_escape(page.summary)}</p>\n</header>\n"
        f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n<main>\n'
        + "\n".join(writer.section(part) for part in page.sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def _escape(text: str) -> str:
    return html.escape(shown(text))


class _Writer:
    """Writes blocks, and numbers what needs an id."""

    def __init__(self) -> None:
        self.count = 0

    def section(self, part: Section) -> str:
        """A section with its heading."""
        inside = "\n".join(self.block(block) for block in part.blocks)
        title = f'<h2 id="{part.key}-title">{_escape(part.title)}</h2>'
        return (
            f'<section id="{part.key}" aria-labelledby="{part.key}-title" tabindex="-1">\n{title}\n{inside}\n</section>'
        )

    def block(self, block: Block) -> str:
        """Any block."""
        if isinstance(block, Heading):
            return f"<h3>{_escape(block.text)}</h3>"
        if isinstance(block, Text):
            kind = ' class="lead"' if block.is_lead else ' class="warning"' if block.is_warning else ""
            return f"<p{kind}>{_escape(block.text)}</p>"
        if isinstance(block, Bullets):
            return f"<ul>{''.join(f'<li>{_escape(item)}</li>' for item in block.items)}</ul>"
        if isinstance(block, Table):
            return self.table(block)
        if isinstance(block, Charts):
            return f'<div class="charts">{"".join(self.chart(chart) for chart in block.charts)}</div>'
        if isinstance(block, Pictures):
            return self.pictures(block)
        return self.commands(block)

    def next_id(self, kind: str) -> str:
        """An id that no other element has."""
        self.count += 1
        return f"{kind}-{self.count}"

    def table(self, table: Table) -> str:
        """A table in a box of its own, which scrolls where the window is narrow."""
        key = self.next_id("table")
        styles = [' class="w"' if column in table.texts else "" for column in range(len(table.columns))]
        heads = "".join(f'<th scope="col"{kind}>{_escape(head)}</th>' for head, kind in zip(table.columns, styles))
        body = ""
        for place, row in enumerate(table.rows):
            first = f'<th scope="row">{_escape(row[0])}</th>'
            rest = "".join(f"<td{kind}>{_escape(cell)}</td>" for cell, kind in zip(row[1:], styles[1:]))
            kind = ' class="break"' if place in table.breaks else ""
            body += f"<tr{kind}>{first}{rest}</tr>\n"
        written = (
            f'<div class="scroll" role="region" aria-labelledby="{key}" tabindex="0"><table>'
            f'<caption><span id="{key}">{_escape(table.caption)}</span></caption>'
            f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
        )
        written += "".join(f'<p class="note">{_escape(note)}</p>' for note in table.notes)
        return written if table.folded is None else _fold(table.folded, written)

    def chart(self, chart: Chart) -> str:
        """A drawing in a box of its own, likewise."""
        key = self.next_id("chart")
        return (
            f'<figure class="chart"><figcaption id="{key}">{_escape(chart.title)}</figcaption>'
            f'<div class="scroll" role="region" aria-labelledby="{key}" tabindex="0">'
            f'<svg class="{chart.kind}" role="img" aria-labelledby="{key}-title {key}-desc" width="{chart.width}" '
            f'height="{chart.height}" viewBox="0 0 {chart.width} {chart.height}">'
            f'<title id="{key}-title">{_escape(chart.title)}</title>'
            f'<desc id="{key}-desc">{_escape(chart.description)}</desc>{chart.shapes}</svg></div></figure>'
        )

    def pictures(self, block: Pictures) -> str:
        """Pictures side by side."""
        inside = ""
        for picture in block.pictures:
            if picture.data is None:
                image = '<div class="gone">no picture</div>'
            else:
                height, width = picture.size
                image = (
                    f'<img src="{html.escape(picture.data)}" alt="{_escape(picture.alternative)}" width="{width}" '
                    f'height="{height}">'
                )
            inside += f"<figure>{image}<figcaption>{_escape(picture.caption)}</figcaption></figure>"
        return f'<h4>{_escape(block.title)}</h4><div class="pictures">{inside}</div>'

    def commands(self, block: Commands) -> str:
        """Text of a terminal."""
        inside = "".join(
            (f'<p class="of">{_escape(name)}</p>' if name else "") + f"<pre><code>{_escape(text)}</code></pre>"
            for name, text in block.entries
        )
        return _fold(block.title, inside) if block.is_folded else f"<p>{_escape(block.title)}</p>{inside}"


def _fold(title: str, inside: str) -> str:
    return f"<details><summary>{_escape(title)}</summary>{inside}</details>"
