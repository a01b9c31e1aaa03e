"""Blocks as Markdown (GitHub's): the tables and sentences of the page, pictures by their paths, no drawings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from transfer.ranking.report.blocks import Block, Bullets, Charts, Commands, Heading, Page, Pictures, Table, Text
from transfer.ranking.report.wording import shown

_SPECIAL = re.compile(r"[\\`*\[\]<>|&~$]|(?<!\w)_|_(?!\w)")


def to_markdown(page: Page) -> str:
    """The whole report."""
    lines = [f"# {escape(page.title)}", "", escape(page.summary), ""]
    for part in page.sections:
        lines += [f"## {escape(part.title)}", ""]
        for block in part.blocks:
            lines += [*_block(block), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def escape(text: str) -> str:
    """One line that Markdown shows as it is."""
    return _SPECIAL.sub(_replace, " ".join(shown(text).split()))


def _replace(found: re.Match[str]) -> str:
    character = found[0]
    return {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(character, f"\\{character}")


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Heading):
        yield f"### {escape(block.text)}"
    elif isinstance(block, Text):
        text = _paragraph(block.text)
        yield f"**{text}**" if block.is_lead or block.is_warning else text
    elif isinstance(block, Bullets):
        yield from (f"- {escape(item)}" for item in block.items)
    elif isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Charts):
        return
    elif isinstance(block, Pictures):
        yield from _pictures(block)
    else:
        yield from _commands(block)


def _paragraph(text: str) -> str:
    """A paragraph that begins with no mark of a list or heading."""
    return re.sub(r"^([-+#]|\d+[.)])", r"\\\1", escape(text))


def _table(table: Table) -> Iterator[str]:
    yield f"**{escape(table.caption)}**"
    yield ""
    yield _row(table.columns)
    rules = [":--" if column == 0 or column in table.texts else "--:" for column in range(len(table.columns))]
    yield f"|{'|'.join(rules)}|"
    yield from (_row(row) for row in table.rows)
    for note in table.notes:
        yield ""
        yield _paragraph(note)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escape(cell) for cell in cells)} |"


def _pictures(block: Pictures) -> Iterator[str]:
    yield f"#### {escape(block.title)}"
    yield ""
    yield _row([picture.caption for picture in block.pictures])
    yield f"|{'|'.join(':--' for _ in block.pictures)}|"
    cells = [
        "no picture" if picture.data is None else f"![{escape(picture.alternative)}]({quote(picture.path)})"
        for picture in block.pictures
    ]
    yield f"| {' | '.join(cells)} |"


def _commands(block: Commands) -> Iterator[str]:
    yield escape(block.title)
    for name, text in block.entries:
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        yield ""
        if name:
            yield escape(name)
            yield ""
        yield f"{fence}text\n{shown(text)}\n{fence}"
