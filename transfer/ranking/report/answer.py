"""Which backbone to use, and how sure that is, in a sentence or two."""

from __future__ import annotations

from transfer.ranking.report.blocks import Bullets, Commands, Section, Text
from transfer.ranking.report.view import View, gain_over
from transfer.ranking.report.wording import (
    counted,
    interval,
    is_known,
    listed,
    number,
    p_phrase,
    signed,
    tasks_phrase,
)
from transfer.ranking.standing import TaskStanding

_MOST_NAMED = 3
"""Backbones that the answer names as ties; the tables name them all."""


def answer_section(view: View) -> Section:
    """The answer, what it rests on, and the command."""
    blocks: list[Text | Bullets | Commands] = [Text(answer(view), is_lead=True)]
    if 0 < view.done < view.expected:
        lacking = view.expected - view.done
        blocks.append(
            Text(
                f"Preliminary: {lacking:,} of {counted(view.expected, 'run')} {_have(lacking)} no figure, see "
                '"What failed or is missing".',
                is_warning=True,
            )
        )
    caveats = _caveats(view)
    if caveats:
        blocks.append(Bullets(caveats))
    blocks.append(
        Commands(
            "Made by the command below; it goes on after an interruption.", [("", view.record.command)], is_folded=False
        )
    )
    return Section("answer", "Answer", blocks)


def answer(view: View) -> str:
    """The recommendation with its evidence."""
    tasks = view.standing.tasks
    if not tasks:
        return f"Nothing is measured yet: none of {counted(view.expected, 'run')} has a figure."
    names = {place.backbone for task in tasks for place in task.places}
    if len(names) == 1:
        return f"Only {names.pop()} was measured, so there is nothing to compare it with: {_alone(view)}."
    leaders = [{place.backbone for place in task.places if place.group == 1} for task in tasks]
    common = [mean.backbone for mean in view.standing.overall if all(mean.backbone in of for of in leaders)]
    if not common:
        return _one_a_task(tasks)
    pick = common[0]
    clauses = "; ".join(clause(task, pick) for task in tasks)
    where = tasks_phrase(len(tasks)) if len(tasks) > 1 else tasks[0].task
    if all(len(of) > 1 for of in leaders):
        best = f"the best mean rank over {where}" if len(tasks) > 1 else f"the best place on {where}"
        return f"No backbone is proven best. {pick} has {best}: {clauses}."
    return f"Use {pick} for {where}: {clauses}."


def clause(task: TaskStanding, pick: str) -> str:
    """How a backbone of the leading group stands on a task."""
    best = task.places[0]
    if len(task.places) == 1:
        return f"on {task.task} only it was measured"
    tied = [place.backbone for place in task.places if place.group == 1 and place.backbone != pick]
    if not tied:
        rival = task.places[1].backbone
        pair = task.pair(pick, rival)
        mean, low, high = gain_over(pair, pick)
        gain = f"by {signed(mean)} (95 % {interval((low, high), with_sign=True)}, {p_phrase(pair.p_holm)})"
        whom = f"of {rival} {gain}" if len(task.places) == 2 else f"of all others, of {rival} as the next {gain}"
        return f"on {task.task} it is ahead {whom}"
    if best.backbone == pick:
        means = {place.backbone: place.mean for place in task.places}
        named = tied if len(tied) <= _MOST_NAMED else tied[: _MOST_NAMED - 1]
        each = [f"{name} ({means[pick] - means[name]:.2f} less{_seeds(task, pick, name)})" for name in named]
        told = listed([*each, *([f"{len(tied) - len(named)} others"] if len(named) < len(tied) else [])])
        return f"on {task.task} it has the highest mean, {number(best.mean)}, but ties with {told}"
    own = next(place.mean for place in task.places if place.backbone == pick)
    others = ""
    if len(tied) > 1:
        others = f", as {'does' if len(tied) == 2 else 'do'} {counted(len(tied) - 1, 'other')}"
    more = _seeds(task, best.backbone, pick)
    return f"on {task.task} it ties with {best.backbone} ({best.mean - own:.2f} more{more}){others}"


def _seeds(task: TaskStanding, one: str, other: str) -> str:
    """What it takes to tell two apart, after a comma; nothing where that is not known."""
    pair = task.pair(one, other)
    if pair.gain is None or not is_known(pair.gain.sd):
        return ""
    more = pair.more_seeds
    return ", more seeds would hardly tell" if more is None else f", {counted(more, 'more seed')} would probably tell"


def _one_a_task(tasks: tuple[TaskStanding, ...]) -> str:
    parts = [f"{task.places[0].backbone} for {task.task} ({clause(task, task.places[0].backbone)})" for task in tasks]
    return f"No backbone is among the best on every task: use {listed(parts)}."


def _alone(view: View) -> str:
    parts = [
        f"{number(task.places[0].mean)} {of.figure} on {task.task}"
        for task, of in zip(view.standing.tasks, view.measured_tasks)
    ]
    return listed(parts)


def _caveats(view: View) -> list[str]:
    """What the answer does not say."""
    if not view.standing.tasks:
        return []
    by_names = [of for by_name in view.figures.values() for of in by_name.values()]
    if max(len(of) for of in by_names) < 2:
        found = [
            "There is one seed: no interval, so nothing can be told apart, and ranks are those of single figures. "
            "Three seeds are a beginning."
        ]
    else:
        found = [
            "A tie means that these seeds do not tell two backbones apart, not that they are equal. Two are told apart "
            "where the 95 % interval of their paired difference leaves zero out and Holm's p is below 0.05."
        ]
    without = [task.name for task in view.record.tasks if not view.figures[task.name]]
    return [*found, *(f"{name} has no figure yet and is left out of all that follows." for name in without)]


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
