"""The ranking: over all tasks, and on each with its intervals."""

from __future__ import annotations

from transfer.ranking.record import TaskRecord
from transfer.ranking.report.blocks import Block, Chart, Charts, Heading, Section, Table, Text
from transfer.ranking.report.rows_chart import Row, rows_chart
from transfer.ranking.report.view import View
from transfer.ranking.report.wording import NOTHING, counted, interval, listed, number, rank
from transfer.ranking.standing import Place

_MOST_SEED_COLUMNS = 6


def ranking_section(view: View) -> Section:
    """Tables and charts of all tasks."""
    if not view.measured_tasks:
        return Section("ranking", "Ranking", [Text("There is no figure yet, so there is no ranking.")])
    blocks: list[Block] = []
    if len(view.measured_tasks) > 1:
        blocks.append(_over_tasks(view))
    for task in view.measured_tasks:
        blocks += [
            Heading(task.name),
            Text(view.on(task.name).sentence()),
            Charts([_chart(view, task)]),
            _on_task(view, task),
        ]
    return Section("ranking", "Ranking", blocks)


def _over_tasks(view: View) -> Table:
    names = [task.name for task in view.measured_tasks]
    columns = ["backbone", "arm", "mean rank", "possible ranks"]
    columns += [f"{task.name}: {what}" for task in view.measured_tasks for what in (task.figure, "rank")]
    places = {(task.task, place.backbone): place for task in view.standing.tasks for place in task.places}
    rows = [
        [mean.backbone, view.backbones[mean.backbone].arm, rank(mean.rank), _span(mean.ranks)]
        for mean in view.standing.overall
    ]
    whole = [row[0] for row in rows]
    rows += [[name, view.backbones[name].arm, NOTHING, NOTHING] for name in view.names if name not in whole]
    for row in rows:
        for name in names:
            row += _figure_and_rank(places.get((name, row[0])))
    notes = [
        "Mean rank: the mean over tasks of the ranks by mean figure. A group holds what ties with its best. "
        "Possible ranks: from the best to the worst that the evidence leaves."
    ]
    if view.standing.missing:
        lacking = [f"{name} (no figure on {listed(tasks)})" for name, tasks in view.standing.missing.items()]
        notes.append(f"Not ranked over all tasks: {listed(lacking)}.")
    return Table(f"Over {counted(len(names), 'task')}", columns, rows, frozenset({1}), notes=notes)


def _span(ranks: tuple[float, float]) -> str:
    best, worst = map(rank, ranks)
    return best if best == worst else f"{best} to {worst}"


def _figure_and_rank(place: Place | None) -> list[str]:
    return [NOTHING] * 2 if place is None else [number(place.mean), f"{rank(place.rank)} (group {place.group})"]


def _on_task(view: View, task: TaskRecord) -> Table:
    places = view.on(task.name).places
    seeds = view.record.seeds
    apart = len(seeds) <= _MOST_SEED_COLUMNS
    heads = [f"seed {seed}" for seed in seeds] if apart else [f"seeds {', '.join(map(str, seeds))}"]
    columns = ["backbone", "arm", "rank", "group", f"mean {task.figure}", "95 % interval", *heads]
    columns.append("possible ranks")
    rows, breaks = [], set()
    for number_of, place in enumerate(places):
        if number_of and place.group != places[number_of - 1].group:
            breaks.add(number_of)
        figures = [number(place.figures.get(seed)) for seed in seeds]
        rows.append(
            [
                place.backbone,
                view.backbones[place.backbone].arm,
                rank(place.rank),
                str(place.group),
                number(place.mean),
                interval(place.interval),
                *(figures if apart else [", ".join(figures)]),
                _span(place.ranks),
            ]
        )
    ranked = {place.backbone for place in places}
    for name in view.names:
        if name not in ranked:
            why = "given up by halving" if view.is_halved(task.name, name) else "no figure"
            rows.append([name, view.backbones[name].arm, why, *[NOTHING] * (len(columns) - 3)])
    return Table(
        f"{task.name}: {task.figure} in percent on {counted(task.test_images, 'test image')}, best first",
        columns,
        rows,
        frozenset({1} if apart else {1, 6}),
        frozenset(breaks),
        [
            "Interval: of the mean over seeds, by Student's t. Group 1: the best and all that tie with it; group 2: "
            "the best of the rest and all of the rest that tie with it. Possible ranks: from "
            "the best to the worst that the evidence leaves."
        ],
    )


def _chart(view: View, task: TaskRecord) -> Chart:
    places = view.on(task.name).places
    rows = [
        Row(
            place.backbone,
            view.backbones[place.backbone].arm,
            place.mean,
            place.interval,
            list(place.figures.values()),
            breaks=number_of > 0 and place.group != places[number_of - 1].group,
        )
        for number_of, place in enumerate(places)
    ]
    described = "; ".join(f"{place.backbone} {number(place.mean)}, {interval(place.interval)}" for place in places)
    return rows_chart(
        f"{task.name}: mean {task.figure} with its 95 % interval; the thin ticks are the seeds",
        f"One row for each backbone, best on top: {described}. The same numbers are in the table below.",
        rows,
        f"{task.figure}, %",
    )
