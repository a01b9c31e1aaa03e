"""What the forecasts were worth: scores without training, and ImageNet top-1, against the measured order."""

from __future__ import annotations

from transfer.ranking.agreement import Agreement, agreement
from transfer.ranking.record import TaskRecord
from transfer.ranking.report.blocks import Block, Bullets, Chart, Charts, Heading, Section, Table, Text
from transfer.ranking.report.rows_chart import Row, rows_chart
from transfer.ranking.report.view import View
from transfer.ranking.report.wording import NOTHING, interval, is_known, listed, number

TOP1 = "ImageNet top-1"


def forecasts_section(view: View) -> Section:
    """Of each task with figures."""
    blocks: list[Block] = []
    for task in view.measured_tasks:
        predictors = _predictors(view, task)
        if predictors:
            blocks += [Heading(task.name), *_on_task(view, task, predictors)]
    nothing = "There is no forecast and no ImageNet top-1 to compare with a measurement."
    return Section("forecasts", "Forecasts without training", blocks or [Text(nothing)])


def _predictors(view: View, task: TaskRecord) -> dict[str, dict[str, float | None]]:
    """Score -> backbone -> value; top-1 last, if anything has one."""
    found: dict[str, dict[str, float | None]] = {}
    for forecast in view.record.forecasts:
        if forecast.task == task.name:
            found.setdefault(forecast.score, {})[forecast.backbone] = forecast.value
    top1 = {backbone.name: backbone.top1 for backbone in view.record.backbones}
    if any(is_known(value) for value in top1.values()):
        found[TOP1] = top1
    return found


def _on_task(view: View, task: TaskRecord, predictors: dict[str, dict[str, float | None]]) -> list[Block]:
    measured = {name: list(by_seed.values()) for name, by_seed in view.figures[task.name].items()}
    found = [agreement(score, values, measured) for score, values in predictors.items()]
    blocks: list[Block] = [Bullets([each.sentence() for each in found])]
    known = [each for each in found if is_known(each.tau)]
    if known:
        blocks.append(Charts([_chart(task, known)]))
    blocks += [_tau_table(task, found), _values_table(view, task, predictors)]
    same = _on_the_same(predictors, measured)
    if same:
        caption = f"{task.name}: on the backbones alone that have an ImageNet top-1"
        blocks.append(_tau_table(task, same, caption=caption))
    return blocks


def _on_the_same(predictors: dict[str, dict[str, float | None]], measured: dict[str, list[float]]) -> list[Agreement]:
    """All of them on the backbones of the top-1, where these are fewer: only then can they be compared with it."""
    names = [name for name in measured if is_known(predictors.get(TOP1, {}).get(name))]
    if len(names) in (0, 1, len(measured)) or len(predictors) < 2:
        return []
    fewer = {name: measured[name] for name in names}
    return [agreement(score, {name: values.get(name) for name in names}, fewer) for score, values in predictors.items()]


def _tau_table(task: TaskRecord, found: list[Agreement], *, caption: str = "") -> Table:
    rows = [
        [
            each.score,
            number(each.tau),
            interval(each.interval),
            interval(each.by_seeds),
            number(each.p, 3),
            each.verdict,
            number(each.needed),
            str(len(each.backbones)),
            listed(each.left_out) or NOTHING,
        ]
        for each in found
    ]
    columns = ["forecast", "Kendall's tau", "95 % interval", "by seeds alone", "p", "verdict", "tau needed"]
    columns += ["backbones", "left out"]
    note = (
        f"{TOP1} is the null predictor: a score that orders no better is of no use. Interval: the chance of the seeds "
        "and that of so few backbones. Tau needed: the smallest that so many backbones would tell from chance."
    )
    return Table(
        caption or f"{task.name}: agreement of each forecast with the measured order",
        columns,
        rows,
        frozenset({5, 8}),
        notes=[] if caption else [note],
    )


def _values_table(view: View, task: TaskRecord, predictors: dict[str, dict[str, float | None]]) -> Table:
    means = view.means(task.name)
    rows = [
        [name, number(means.get(name)), *(_value(score, values.get(name)) for score, values in predictors.items())]
        for name in view.ranked(task.name)
    ]
    columns = ["backbone", f"measured {task.figure}", *predictors]
    return Table(f"{task.name}: forecasts of each backbone, best measured first", columns, rows)


def _value(score: str, value: float | None) -> str:
    return number(value, 2 if score == TOP1 else 3)


def _chart(task: TaskRecord, found: list[Agreement]) -> Chart:
    rows = [
        Row(each.score, "random" if each.score == TOP1 else "pretrained", each.tau, each.interval) for each in found
    ]
    described = "; ".join(f"{each.score} {number(each.tau)}, {interval(each.interval)}" for each in found)
    return rows_chart(
        f"{task.name}: Kendall's tau of each forecast with its 95 % interval (square: the null predictor)",
        f"One row for each forecast: {described}. The same numbers are in the table below.",
        rows,
        "Kendall's tau; 1: the same order, -1: the reverse",
        zero=True,
        ends=(-1.0, 1.0),
    )
