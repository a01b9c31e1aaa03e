"""How the figures came about: the search for the lr, what failed or is missing, and every run's command."""

from __future__ import annotations

from collections.abc import Sequence

from transfer.ranking.record import RunRecord, SearchRun
from transfer.ranking.report.blocks import Block, Bullets, Commands, Heading, Section, Table, Text
from transfer.ranking.report.view import View
from transfer.ranking.report.wording import NOTHING, counted, is_known, last_line, listed, number


def search_section(view: View) -> Section:
    """The factors that were tried, and which was taken."""
    groups: dict[tuple[str, str, int], list[SearchRun]] = {}
    for each in view.record.searches:
        groups.setdefault((each.task, each.backbone, each.seed), []).append(each)
    if not groups:
        return Section(
            "search", "Learning rates", [Text("No learning rate was searched for: each task's own was used.")]
        )
    factors = sorted({each.factor for each in view.record.searches})
    columns = ["backbone", "task", "seed", *(f"factor {factor:g}" for factor in factors), "chosen factor"]
    columns += ["chosen lr", "at the grid's edge"]
    rows, edges = [], []
    for (task, backbone, seed), tried in groups.items():
        by_factor = {each.factor: each for each in tried}
        chosen = next((each for each in tried if each.chosen), None)
        cells = [_tried(by_factor.get(factor)) for factor in factors]
        edge = at_edge(tried)
        rows.append(
            [backbone, task, str(seed), *cells, *_chosen(chosen), {True: "yes", False: "no", None: NOTHING}[edge]]
        )
        if edge and chosen:
            edges.append(f"{backbone} on {task} (factor {chosen.factor:g})")
    note = "Figures in percent on validation data. A factor multiplies the task's own lr; * marks the chosen one."
    texts = frozenset({1, len(columns) - 1})
    blocks: list[Block] = [Table("Search for the learning rate", columns, rows, texts, notes=[note])]
    if edges:
        blocks.append(Text(f"Chosen at the grid's edge, so a wider grid might do better: {listed(edges)}."))
    return Section("search", "Learning rates", blocks)


def at_edge(tried: Sequence[SearchRun]) -> bool | None:
    """Whether the chosen factor is the smallest or largest of several; None: none is chosen, or there is one only."""
    factors = {each.factor for each in tried}
    chosen = [each.factor for each in tried if each.chosen]
    if not chosen or len(factors) < 2:
        return None
    return chosen[0] in (min(factors), max(factors))


def missing_section(view: View) -> Section:
    """Runs without a figure, with their errors."""
    runs = _without_figure(view)
    searches = [each for each in view.record.searches if each.state != "done" or not is_known(each.figure)]
    rows = _rows(runs)
    rows += [
        [
            f"{each.backbone} (search)",
            each.task,
            str(each.seed),
            each.state,
            f"factor {each.factor:g}",
            each.directory or NOTHING,
        ]
        for each in searches
    ]
    blocks: list[Block] = []
    if rows:
        columns = ("backbone", "task", "seed", "state", "error", "directory")
        blocks.append(Table("Runs without a figure", columns, rows, frozenset({1, 3, 4, 5})))
    errors = [
        (f"{run.backbone} on {run.task}, seed {run.seed}", (run.error or "").strip())
        for run in runs
        if len((run.error or "").strip().splitlines()) > 1
    ]
    if errors:
        blocks.append(Commands(f"Whole errors of {counted(len(errors), 'run')}", errors))
    unread = _pictures_lacking(view)
    if unread:
        blocks.append(Bullets(unread))
    whole = Text("Nothing failed and nothing is missing: all runs have a figure.")
    return Section("missing", "What failed or is missing", blocks or [whole])


def commands_section(view: View) -> Section:
    """Of every run, by task."""
    blocks: list[Block] = []
    for task in view.record.tasks:
        runs = [run for run in view.record.runs if run.task == task.name and run.command]
        searches = [each for each in view.record.searches if each.task == task.name and each.command]
        if not runs and not searches:
            continue
        blocks.append(Heading(task.name))
        if runs:
            blocks.append(
                Commands(f"{counted(len(runs), 'run')} on {task.name}", [(_of(run), run.command) for run in runs])
            )
        if searches:
            entries = [(f"{_where(each)}, factor {each.factor:g}", each.command) for each in searches]
            blocks.append(Commands(f"{counted(len(entries), 'run')} of the search on {task.name}", entries))
    return Section("commands", "Exact commands", blocks or [Text("There are no runs yet.")])


def _tried(each: SearchRun | None) -> str:
    if each is None:
        return NOTHING
    if not is_known(each.figure):
        return each.state
    return f"{number(each.figure)} *" if each.chosen else number(each.figure)


def _chosen(each: SearchRun | None) -> list[str]:
    return [NOTHING, NOTHING] if each is None else [f"{each.factor:g}", f"{each.lr:g}"]


def _without_figure(view: View) -> list[RunRecord]:
    """Of the whole grid, in its order; those that the record does not know are missing."""
    found = []
    for task in view.record.tasks:
        for name in view.names:
            for seed in view.record.seeds:
                if seed in view.figures[task.name].get(name, {}):
                    continue
                run = view.runs.get((task.name, name, seed))
                found.append(run or RunRecord(name, task.name, seed, None, {}, None, None, "missing", None, None, ""))
    return found


def _rows(runs: Sequence[RunRecord]) -> list[list[str]]:
    """Of the table; neighbours that differ in nothing but the seed share a row."""
    rows: list[list[str]] = []
    for run in runs:
        row = [run.backbone, run.task, str(run.seed), _state(run), last_line(run.error) or NOTHING]
        row.append(run.directory or NOTHING)
        if rows and [*rows[-1][:2], *rows[-1][3:]] == [*row[:2], *row[3:]]:
            rows[-1][2] += f", {run.seed}"
        else:
            rows.append(row)
    return rows


def _state(run: RunRecord) -> str:
    if run.state == "done":
        return "done, but its figure is undefined"
    return "given up by successive halving" if run.state == "halved" else run.state


def _where(run: RunRecord | SearchRun) -> str:
    return f"{run.backbone}, seed {run.seed}"


def _of(run: RunRecord) -> str:
    parts = [_where(run), run.state, f"{number(run.figure)} %" if is_known(run.figure) else ""]
    parts += [f"lr {run.lr:g}" if run.lr is not None and is_known(run.lr) else ""]
    parts += [f"{number(run.minutes, 1)} minutes" if is_known(run.minutes) else "", run.directory or ""]
    return ", ".join(part for part in parts if part)


def _pictures_lacking(view: View) -> list[str]:
    """Backbones with figures on a task but without a picture of one of its images."""
    lines = []
    for picture in view.record.pictures:
        names = [name for name in view.figures.get(picture.task, {}) if name not in picture.predictions]
        lines += [f"No picture of image {picture.image_id} of {picture.task} under {name}." for name in names]
    return lines
