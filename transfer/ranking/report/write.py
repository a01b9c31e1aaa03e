"""The report of a ranking: report.html, which needs nothing else, and report.md with the same tables.

Everything is computed from the record; of the disk only the pictures that it names are read.
"""

from __future__ import annotations

import os
from pathlib import Path

from transfer.ranking.record import RankingRecord
from transfer.ranking.report.answer import answer_section
from transfer.ranking.report.blocks import Page
from transfer.ranking.report.classes import classes_section
from transfer.ranking.report.costs import costs_section, pareto_section
from transfer.ranking.report.forecast_tables import forecasts_section
from transfer.ranking.report.gains import gains_section
from transfer.ranking.report.html_page import to_html
from transfer.ranking.report.markdown import to_markdown
from transfer.ranking.report.pictures import pictures_section
from transfer.ranking.report.places import ranking_section
from transfer.ranking.report.runs import commands_section, missing_section, search_section
from transfer.ranking.report.setting import setting_section
from transfer.ranking.report.top1 import top1_section
from transfer.ranking.report.view import View
from transfer.ranking.report.wording import counted, seeds_phrase
from transfer.types import UserError

_SECTIONS = (
    answer_section,
    ranking_section,
    gains_section,
    top1_section,
    pareto_section,
    forecasts_section,
    classes_section,
    pictures_section,
    search_section,
    costs_section,
    missing_section,
    commands_section,
    setting_section,
)


def write_report(record: RankingRecord, folder: Path) -> list[Path]:
    """Write report.html and report.md, each whole or not at all.

    Args:
        record: of the ranking, as far as it has come.
        folder: of the record: the pictures' paths start here, and the report is written here.

    Returns:
        The two files.

    Raises:
        UserError: the folder cannot be written to.
    """
    folder = Path(folder)
    page = report_page(record, folder)
    written = {folder / "report.html": to_html(page), folder / "report.md": to_markdown(page)}
    for path, text in written.items():
        _write(path, text)
    return list(written)


def report_page(record: RankingRecord, folder: Path) -> Page:
    """The report before it is HTML or Markdown."""
    view = View(record, folder)
    summary = (
        f"{counted(len(view.names), 'backbone')}, {counted(len(record.tasks), 'task')}, {seeds_phrase(record.seeds)}: "
        f"{view.done:,} of {counted(view.expected, 'run')} done. Made {record.made}."
    )
    return Page(f"Which backbone transfers best: {record.name}", summary, [section(view) for section in _SECTIONS])


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written: {error.strerror}; give another folder") from error
