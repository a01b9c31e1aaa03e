"""Does ImageNet accuracy transfer: top-1 against the figure of each task, as in tables 8 and 9 of Bag of Tricks."""

from __future__ import annotations

from transfer.ranking.record import PublishedPoint, TaskRecord
from transfer.ranking.report.blocks import Block, Chart, Charts, Heading, Section, Table, Text
from transfer.ranking.report.scatter import Axes, Point, scatter
from transfer.ranking.report.view import View
from transfer.ranking.report.wording import NOTHING, interval, is_known, listed, number

_AXIS = "ImageNet top-1, %"
_COLUMNS = ("backbone", "layer", "top-1", "figure", "95 % interval", "source of the top-1")


def top1_section(view: View) -> Section:
    """A chart and a table for each task."""
    blocks: list[Block] = []
    charts: list[Chart] = []
    tables: list[Block] = []
    for task in view.record.tasks:
        measured, published = measured_points(view, task), _published(view, task)
        if measured or published:
            charts.append(_chart(task, measured, published))
            tables += [Heading(task.name), _table(view, task, published)]
    if charts:
        blocks += [Charts(charts), *tables]
    if not any(backbone.top1 is not None for backbone in view.record.backbones):
        blocks.insert(0, Text("No backbone here has an ImageNet top-1."))
    elif not view.measured_tasks:
        blocks.insert(0, Text("There is no figure yet to set beside the top-1."))
    elsewhere = _elsewhere(view)
    if elsewhere:
        blocks += [Heading("Published, of tasks that are not ranked here"), elsewhere]
    return Section("top1", "ImageNet top-1 against the figure", blocks)


def measured_points(view: View, task: TaskRecord) -> list[Point]:
    """Backbones that have both."""
    if not view.figures[task.name]:
        return []
    found = []
    for place in view.on(task.name).places:
        backbone = view.backbones[place.backbone]
        if backbone.top1 is not None and is_known(backbone.top1):
            found.append(Point(backbone.name, backbone.arm, backbone.top1, place.mean, place.interval))
    return found


def _published(view: View, task: TaskRecord) -> list[PublishedPoint]:
    return [each for each in view.record.published if each.task == task.name]


def _chart(task: TaskRecord, measured: list[Point], published: list[PublishedPoint]) -> Chart:
    theirs = [Point(each.backbone, "published", each.top1, each.value) for each in published]
    arms = list(dict.fromkeys(point.kind for point in measured))
    legend = {arm: f"{arm}, measured here" for arm in arms}
    if theirs:
        legend["published"] = f"published: {listed(dict.fromkeys(each.source for each in published))}"
    parts = [f"{point.name} {number(point.x)} and {number(point.y)}" for point in [*measured, *theirs]]
    described = f"{_AXIS} and {task.figure} of {len(measured)} backbones measured here"
    described += f" and of {len(theirs)} published ones" if theirs else ""
    return scatter(
        f"{task.name}: {task.figure} against ImageNet top-1",
        f"{described}: {'; '.join(parts)}. The same numbers are in the table below.",
        [*theirs, *measured],
        Axes(_AXIS, f"{task.figure}, %"),
        legend,
    )


def _table(view: View, task: TaskRecord, published: list[PublishedPoint]) -> Table:
    rows = []
    places = {place.backbone: place for place in view.on(task.name).places} if view.figures[task.name] else {}
    lacking = []
    for name in view.ranked(task.name):
        backbone, place = view.backbones[name], places.get(name)
        if backbone.top1 is None:
            lacking.append(name)
            continue
        ends = interval(place.interval) if place else NOTHING
        figure = number(place.mean if place else None)
        rows.append([name, backbone.arm, number(backbone.top1), figure, ends, backbone.top1_source or NOTHING])
    rows += [
        [each.backbone, "published", number(each.top1), number(each.value), NOTHING, each.source] for each in published
    ]
    notes = [f"Without an ImageNet top-1, so not drawn: {listed(lacking)}."] if lacking else []
    if published:
        notes.append("Published figures are of other data and longer training: compare their order, not their height.")
    return Table(
        f"{task.name}: ImageNet top-1 and {task.figure}, percent", _COLUMNS, rows, frozenset({1, 5}), notes=notes
    )


def _elsewhere(view: View) -> Table | None:
    names = {task.name for task in view.record.tasks}
    others = [each for each in view.record.published if each.task not in names]
    rows = [[each.backbone, each.task, number(each.top1), number(each.value), each.source] for each in others]
    columns = ("backbone", "task", "top-1", "figure", "source")
    return Table("Published figures, percent", columns, rows, frozenset({1, 4})) if rows else None
