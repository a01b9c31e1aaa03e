"""Gains with their intervals, beside the published ones, as one PNG."""

from __future__ import annotations

import math
import os
from pathlib import Path

from transfer.experiments.report import Report


def draw_gains(report: Report, picture: Path) -> bool:
    """Draw a row for each rung, the first on top.

    Args:
        report: its gains.
        picture: where to write; whole or not at all.
    Returns:
        Whether there was a gain to draw.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [gain for gain in report.gains if gain.gain is not None]
    if not shown:
        return False
    figure, axes = plt.subplots(figsize=(9, 1.9 + 0.55 * len(shown)), layout="constrained")
    axes.axvline(0, color="black", linewidth=1)
    named: set[str] = set()
    for place, each in enumerate(shown):
        assert each.gain is not None
        evident = each.verdict in ("gain", "loss")
        colour = "tab:blue" if evident else "tab:gray"
        label = "measured, 95 % interval" if evident else "measured: no evidence"
        if not math.isnan(each.gain.low):
            axes.plot([each.gain.low, each.gain.high], [place, place], color=colour, linewidth=2.5)
        axes.plot(each.gain.differences, [place] * len(each.gain.differences), "|", color=colour, markersize=9)
        axes.plot(each.gain.mean, place, "o", color=colour, markersize=8, label=_once(label, named))
        if each.comparison.published is not None:
            published = _once("published", named)
            axes.plot(each.comparison.published, place, "D", color="tab:orange", markersize=7, label=published)
    axes.set_yticks(range(len(shown)), [f"{gain.comparison.rung}\n{gain.verdict}" for gain in shown], fontsize=9)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    counts = sorted({len(gain.gain.differences) for gain in shown if gain.gain is not None})
    seeds = " or ".join(map(str, counts)) + (" seeds" if counts != [1] else " seed")
    axes.set_xlabel(f"gain in {report.metric}, points; ticks: the differences of {seeds}")
    axes.set_title(report.title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    temporary = picture.with_name(f".{picture.stem}.part.png")
    figure.savefig(temporary, dpi=100)
    plt.close(figure)
    os.replace(temporary, picture)
    return True


def _once(label: str, named: set[str]) -> str | None:
    """The label, the first time."""
    if label in named:
        return None
    named.add(label)
    return label
