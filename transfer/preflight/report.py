"""A preflight's result as text for the terminal, as JSON, and as lines of a run's log."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from transfer.checking.findings import counted
from transfer.checking.folders import write_text
from transfer.engine.hooks import json_text
from transfer.preflight.findings import CODES, ERROR, Finding, severities
from transfer.preflight.page import draw_batches
from transfer.preflight.preflight import Report

logger = logging.getLogger("trickstack")

JSON_FILE, PICTURE_FILE = "preflight.json", "preflight.jpg"


def as_json(report: Report) -> dict[str, Any]:
    """Everything, in plain types."""
    return {
        "seconds": round(report.seconds, 2),
        "counts": severities(report.findings),
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        "measured": {outcome.name: outcome.facts for outcome in report.outcomes if outcome.facts},
    }


def as_text(report: Report) -> str:
    """The report for people: what was measured, then the findings, worst first."""
    lines = [line for outcome in report.outcomes for line in outcome.lines]
    return "\n".join([*lines, "", *findings_text(report.findings)])


def findings_text(findings: Sequence[Finding]) -> list[str]:
    """Lines: each code once with what it means, its messages and remedies; the sums at the end.

    Args:
        findings: by severity and code.
    """
    lines = []
    for (severity, code), group in groupby(findings, key=lambda finding: (finding.severity, finding.code)):
        lines.append(f"{severity}: {code} ({CODES[code]})")
        for finding in group:
            lines += [f"  {finding.message}", f"  -> {finding.remedy}"]
    counts = severities(findings)
    summary = ", ".join(counted(count, severity) for severity, count in counts.items())
    return [*lines, *([""] if lines else []), summary if findings else "nothing found"]


def errors_text(report: Report, folder: Path) -> str:
    """Why a run does not begin: every error with its remedy, and how to go on all the same.

    Args:
        report: with errors.
        folder: the run directory.
    """
    lines = [f"  {finding.code}: {finding.message}\n    -> {finding.remedy}" for finding in report.errors]
    return "\n".join(
        [
            f"preflight found {counted(len(lines), 'error')}, see {folder / JSON_FILE} and {folder / PICTURE_FILE}:",
            *lines,
            "to train all the same: --cfg-options training.preflight=False",
        ]
    )


def write_report(report: Report, folder: Path) -> None:
    """Write preflight.json and preflight.jpg."""
    write_text(folder / JSON_FILE, json_text(as_json(report)))
    draw_batches(report.batches, report.class_names, folder / PICTURE_FILE)


def log_report(report: Report) -> None:
    """One line, and one for each finding that is no error: errors stop the run with their text."""
    counts = severities(report.findings)
    found = ", ".join(counted(count, severity) for severity, count in counts.items() if count) or "nothing found"
    logger.info("preflight: %s in %.1f s; %s and %s", found, report.seconds, JSON_FILE, PICTURE_FILE)
    for finding in report.findings:
        if finding.severity != ERROR:
            level = logging.WARNING if finding.severity == "warning" else logging.INFO
            logger.log(
                level, "preflight: %s: %s: %s -> %s", finding.severity, finding.code, finding.message, finding.remedy
            )
