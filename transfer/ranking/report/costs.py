"""What a backbone costs: Pareto fronts of figure against speed and size, and the table of all costs."""

from __future__ import annotations

from dataclasses import dataclass

from transfer.ranking.record import TaskRecord
from transfer.ranking.report.blocks import Block, Chart, Charts, Heading, Section, Table, Text
from transfer.ranking.report.scatter import Axes, Point, pareto_front, scatter
from transfer.ranking.report.view import View
from transfer.ranking.report.wording import NOTHING, amount, counted, is_known, listed, millions, number


@dataclass(frozen=True)
class _Cost:
    """What a figure is set against."""

    short: str
    axis: str
    larger_is_better: bool
    points: list[Point]


def pareto_section(view: View) -> Section:
    """Of each task."""
    blocks: list[Block] = []
    for task in view.measured_tasks:
        costs = [cost for cost in _costs(view, task) if cost.points]
        if costs:
            blocks += [Heading(task.name), Charts([_chart(task, cost) for cost in costs]), _table(view, task, costs)]
    return Section("pareto", "Figure against cost", blocks or [Text("There is no figure with a cost yet.")])


def costs_section(view: View) -> Section:
    """All costs that were measured, and the time the runs took."""
    rows = [
        [
            cost.backbone,
            cost.task,
            millions(cost.parameters),
            amount(cost.training_images_per_second),
            amount(cost.inference_images_per_second),
            amount(cost.peak_memory_mb),
            _minutes(view, cost.task, cost.backbone),
            cost.device,
        ]
        for cost in view.record.costs
    ]
    columns = ["backbone", "task", "parameters of the model, millions", "images/s in training", "images/s in inference"]
    columns += ["peak memory, MB", "minutes a run", "device"]
    note = (
        "Peak memory: of a training step, beyond what the process held before, in 1e6 bytes. Minutes: mean of the runs."
    )
    blocks: list[Block] = [Text("No cost is measured yet.")]
    if rows:
        blocks = [Table("Costs by backbone and task", columns, rows, frozenset({1, 7}), notes=[note])]
    spent = [run.minutes for run in view.record.runs if run.minutes is not None and is_known(run.minutes)]
    if spent:
        blocks.append(Text(f"{counted(len(spent), 'run')} took {number(sum(spent) / 60, 1)} hours of process time."))
    return Section("costs", "Costs", blocks)


def _minutes(view: View, task: str, backbone: str) -> str:
    found = [
        run.minutes
        for run in view.record.runs
        if (run.task, run.backbone, run.state) == (task, backbone, "done") and run.minutes is not None
    ]
    return number(sum(found) / len(found), 1) if found else NOTHING


def _costs(view: View, task: TaskRecord) -> list[_Cost]:
    speed: list[Point] = []
    size: list[Point] = []
    work: list[Point] = []
    for place in view.on(task.name).places:
        backbone, cost = view.backbones[place.backbone], view.costs.get((task.name, place.backbone))
        values = (
            (speed, cost.inference_images_per_second if cost else None, 1.0),
            (size, backbone.parameters, 1e6),
            (work, backbone.multiply_adds, 1e6),
        )
        for points, value, unit in values:
            if value is not None and is_known(value):
                points.append(Point(place.backbone, backbone.arm, value / unit, place.mean, place.interval))
    return [
        _Cost("images/s", "images/s in inference, whole model", True, speed),
        _Cost("parameters", "parameters of the backbone, millions", False, size),
        _Cost("multiply-adds", "multiply-adds of the backbone, millions", False, work),
    ]


def _chart(task: TaskRecord, cost: _Cost) -> Chart:
    front = pareto_front(cost.points, larger_is_better=cost.larger_is_better)
    arms = dict.fromkeys(point.kind for point in cost.points)
    legend = {**{arm: arm for arm in arms}, **({"front": "front"} if len(front) > 1 else {})}
    parts = "; ".join(f"{point.name} {amount(point.x)} and {number(point.y)}" for point in cost.points)
    better = "more" if cost.larger_is_better else "fewer"
    return scatter(
        f"{task.name}: {task.figure} against {cost.short} ({better} is better)",
        f"{cost.axis} and {task.figure}: {parts}. On the front: {listed(point.name for point in front)}. The same "
        "numbers are in the table below.",
        cost.points,
        Axes(cost.axis, f"{task.figure}, %", cost.larger_is_better),
        legend,
        front=front,
    )


def _table(view: View, task: TaskRecord, costs: list[_Cost]) -> Table:
    fronts = {
        cost.short: {point.name for point in pareto_front(cost.points, larger_is_better=cost.larger_is_better)}
        for cost in costs
    }
    values = {(cost.short, point.name): point.x for cost in costs for point in cost.points}
    rows = []
    for place in view.on(task.name).places:
        on = [short for short, names in fronts.items() if place.backbone in names]
        cells = [amount(values.get((cost.short, place.backbone))) for cost in costs]
        rows.append([place.backbone, number(place.mean), *cells, ", ".join(on) or "none"])
    heads = ["backbone", f"mean {task.figure}", *(cost.axis for cost in costs), "on the front of"]
    sizes = {tuple(view.backbones[place.backbone].input_size) for place in view.on(task.name).places}
    notes = [
        "On the front: no other backbone has a mean as high at as little cost, and is better in one of them. The front "
        "goes by means: where backbones tie, chance may put either on it."
    ]
    if any(cost.short == "multiply-adds" for cost in costs):
        at = listed(sorted(" x ".join(map(str, size)) for size in sizes))
        notes.append(f"Multiply-adds are of an input of {at} pixels (height x width).")
    return Table(f"{task.name}: {task.figure} and cost", heads, rows, frozenset({len(heads) - 1}), notes=notes)
