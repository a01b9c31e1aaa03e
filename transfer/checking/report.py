"""A check's result as text for the terminal and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Protocol

from transfer.build import Node
from transfer.checking.check import Report
from transfer.checking.findings import CODES, Finding, counted, severities
from transfer.checking.statistics import PartStatistics, quantiles
from transfer.data.strangers import printable

_FILES_SHOWN = 3
_CLASSES_SHOWN = 40


class Counted(Protocol):
    """The counts of one split."""

    name: str

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        ...


class Checked(Protocol):
    """The report of a check, whatever is annotated."""

    @property
    def findings(self) -> Sequence[Finding]:
        """By severity and code."""
        ...

    @property
    def statistics(self) -> Sequence[Counted]:
        """Of each split."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """Of the labels."""
        ...


def as_json(report: Checked, *, config: str, data: Node) -> dict[str, Any]:
    """Everything, in plain types.

    Args:
        report: of the check.
        config: the config's file.
        data: what was read, as in the config.
    """
    return {
        "config": config,
        "data": data,
        "counts": severities(report.findings),
        "class_names": list(report.class_names),
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        "statistics": {each.name: each.as_json() for each in report.statistics},
    }


def json_text(report: Checked, *, config: str, data: Node) -> str:
    """`as_json` as text."""
    return json.dumps(as_json(report, config=config, data=data), indent=1, ensure_ascii=False) + "\n"


def as_text(report: Report) -> str:
    """The report for people: what the splits hold, then the findings by code, worst first."""
    return "\n".join([*_statistics(report), "", *findings_text(report.findings, can_be_fixed=report.can_be_fixed)])


def _statistics(report: Report) -> list[str]:
    parts = report.statistics
    heads = ["split", "images", "negatives", "boxes", "difficult", "small", "medium", "large"]
    heads += ["side px", "side %", "width/height", "image sizes"]
    lines = table([heads, *(_row(part) for part in parts)], left=(0, len(heads) - 1))
    lines.append(
        "small, medium, large: below 32, below 96, from 96 pixels of sqrt(area); side, width/height: 5 % to 95 %"
    )
    held_out = next((part for part in parts if part.held_out), None)
    if held_out is not None:
        lines.append("val is drawn from train, as the config says (data.val is a fraction)")
    return [*lines, "", *_classes(report)]


def _row(part: PartStatistics) -> list[str]:
    shares = part.shares()
    sides, relative, aspects = (quantiles(values) for values in (part.sides, part.relative_sides, part.aspects))
    sizes = part.image_sizes
    height_width = f"{next(iter(sizes))[1]}x{next(iter(sizes))[0]}" if len(sizes) == 1 else f"{len(sizes)} sizes"
    if len(sizes) > 1:
        longest = sorted(max(size) for size in sizes)
        height_width += f", long side {longest[0]} to {longest[-1]}"
    return [
        part.name,
        *(f"{number:,}" for number in (part.images, part.negatives, part.boxes, part.difficult)),
        *(f"{shares[name]:.0%}" for name in ("small", "medium", "large")),
        f"{sides['5']:.0f} to {sides['95']:.0f}" if sides else "-",
        f"{relative['5']:.0%} to {relative['95']:.0%}" if relative else "-",
        f"{aspects['5']:.2f} to {aspects['95']:.2f}" if aspects else "-",
        height_width,
    ]


def _classes(report: Report) -> list[str]:
    parts = report.statistics
    found = [name for part in parts for name in part.class_boxes]
    names = list(dict.fromkeys([*report.class_names, *found]))
    total = {name: sum(part.class_boxes[name] for part in parts) for name in names}
    shown = sorted(names, key=lambda name: -total[name])[:_CLASSES_SHOWN]
    rows = [["class", *(f"{part.name} boxes (images)" for part in parts), "share of train"]]
    train = parts[0]
    for name in shown:
        cells = [f"{part.class_boxes[name]:,} ({part.class_images[name]:,})" for part in parts]
        bar = "#" * round(30 * train.class_boxes[name] / max(train.boxes, 1))
        rows.append([name, *cells, f"{train.class_boxes[name] / max(train.boxes, 1):4.0%} {bar}"])
    lines = table(rows, left=(0, len(parts) + 1))
    if len(names) > len(shown):
        lines.append(f"and {len(names) - len(shown)} rarer classes: see findings.json")
    return lines


def table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Columns under each other; those in `left` begin at the left, the others end at the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def findings_text(findings: Sequence[Finding], *, can_be_fixed: bool) -> list[str]:
    """Lines: each code once with its count, the first files, the remedies; the sums at the end.

    Args:
        findings: by severity and code.
        can_be_fixed: say which of them --fix ends.
    """
    lines = []
    for (severity, code), group in groupby(findings, key=lambda finding: (finding.severity, finding.code)):
        same = list(group)
        lines.append(f"{severity}: {code}: {len(same):,} ({CODES[code]})")
        for finding in same[:_FILES_SHOWN]:
            where = f"{finding.file}: " if finding.file else ""
            lines.append(printable(f"  {finding.part}: {where}{finding.message}"))
        if len(same) > _FILES_SHOWN:
            lines.append(f"  and {len(same) - _FILES_SHOWN:,} more, see findings.json")
        hints = [" (--fix ends it)" if can_be_fixed and finding.fixable else "" for finding in same]
        remedies = dict.fromkeys(finding.remedy + hint for finding, hint in zip(same[:_FILES_SHOWN], hints))
        lines += [f"  -> {remedy}" for remedy in remedies]
    counts = severities(findings)
    summary = ", ".join(counted(count, severity) for severity, count in counts.items())
    return [*lines, *([""] if lines else []), summary if findings else "nothing found"]
