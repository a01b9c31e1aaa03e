"""Where the best backbone gains, and where it loses: differences by class."""

from __future__ import annotations

import math
from collections.abc import Mapping

from transfer.experiments.statistics import Gain, paired_gain
from transfer.ranking.record import TaskRecord
from transfer.ranking.report.blocks import Block, Chart, Charts, Heading, Section, Table, Text
from transfer.ranking.report.rows_chart import Row, rows_chart
from transfer.ranking.report.view import View
from transfer.ranking.report.wording import NOTHING, interval, is_known, number, signed

MOST_SHOWN = 15
_NAMES = {"ap": "AP", "ap50": "AP50", "iou": "IoU"}
"""Of the figures, as people write them."""

Figures = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Backbone -> class -> seed -> figure."""


def classes_section(view: View) -> Section:
    """Of each task."""
    blocks: list[Block] = []
    for task in view.measured_tasks:
        key, found = class_figures(view, task)
        ranked = [name for name in view.ranked(task.name) if found.get(name)]
        if ranked:
            blocks += [Heading(task.name), *_on_task(task, _NAMES.get(key, key), found, ranked)]
    nothing = Text("There are no figures by class yet.")
    return Section("classes", "Differences by class", blocks or [nothing])


def class_figures(view: View, task: TaskRecord) -> tuple[str, dict[str, dict[str, dict[int, float]]]]:
    """The figure's name, and backbone -> class -> seed -> figure, of the runs that are done.

    The figure is the task's own where a class has one of that name, else the first of a class.
    """
    key = ""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for name, by_seed in view.figures[task.name].items():
        for seed in by_seed:
            for label, figures in view.runs[task.name, name, seed].per_class.items():
                key = key or next((each for each in figures if each == task.figure.lower()), next(iter(figures), ""))
                value = figures.get(key)
                if value is not None and is_known(value):
                    found.setdefault(name, {}).setdefault(label, {})[seed] = value
    return key, found


def differences(found: Figures, best: str, other: str) -> dict[str, Gain]:
    """Class -> gain of the best over another backbone, at the seeds both have."""
    gains = {}
    for label, mine in found[best].items():
        theirs = found[other].get(label, {})
        seeds = [seed for seed in mine if seed in theirs]
        if seeds:
            gains[label] = paired_gain([mine[seed] for seed in seeds], [theirs[seed] for seed in seeds])
    return gains


def _on_task(task: TaskRecord, figure: str, found: Figures, ranked: list[str]) -> list[Block]:
    best, others = ranked[0], ranked[1:]
    gains = {other: differences(found, best, other) for other in others}
    labels = list(dict.fromkeys(label for name in ranked for label in found[name]))
    largest = {
        label: max((abs(of[label].mean) for of in gains.values() if label in of), default=0.0) for label in labels
    }
    labels.sort(key=lambda label: -largest[label])
    columns = ["class", f"{best}: {figure}", *(f"over {other}" for other in others)]
    rows = []
    for label in labels:
        mine = list(found[best].get(label, {}).values())
        own = sum(mine) / len(mine) if mine else math.nan
        rows.append([label, number(own), *(_cell(gains[other].get(label)) for other in others)])
    notes = [
        f"{figure} of {best} in percent, and its gain over each other backbone in points with the 95 % interval, "
        "paired by seed. The intervals are not corrected: of so many, some leave zero out by chance."
    ]
    caption = f"{task.name}: {best} against the others by class, largest difference first"
    blocks: list[Block] = []
    if others:
        chart = _chart(task, figure, best, others[0], gains[others[0]])
        blocks += [Charts([chart])] if chart else []
    if len(rows) <= MOST_SHOWN:
        return [*blocks, Table(caption, columns, rows, notes=notes)]
    return [
        *blocks,
        Table(f"{caption} ({MOST_SHOWN} of {len(rows)} classes)", columns, rows[:MOST_SHOWN], notes=notes),
        Table(f"{caption} (all)", columns, rows, folded=f"All {len(rows)} classes of {task.name}"),
    ]


def _cell(gain: Gain | None) -> str:
    if gain is None:
        return NOTHING
    ends = interval((gain.low, gain.high), with_sign=True)
    return signed(gain.mean) if ends == NOTHING else f"{signed(gain.mean)} ({ends})"


def _chart(task: TaskRecord, figure: str, best: str, second: str, gains: Mapping[str, Gain]) -> Chart | None:
    shown = sorted(gains, key=lambda label: -abs(gains[label].mean))[:MOST_SHOWN]
    shown.sort(key=lambda label: -gains[label].mean)
    if not shown:
        return None
    rows = [
        Row(label, "pretrained", gains[label].mean, (gains[label].low, gains[label].high), gains[label].differences)
        for label in shown
    ]
    described = "; ".join(f"{label} {_cell(gains[label])}" for label in shown)
    return rows_chart(
        f"{task.name}: {best} over the next, {second}, by class",
        f"One row for each class, gains on top: {described}. The same numbers are in the table below.",
        rows,
        f"gain, points of {figure}",
        zero=True,
    )
