"""What pretraining, growth or a trick brought: paired gains over the random arm, and of each backbone over the next."""

from __future__ import annotations

import math

from transfer.ranking.record import BackboneRecord, TaskRecord
from transfer.ranking.report.blocks import Block, Chart, Charts, Heading, Section, Table, Text
from transfer.ranking.report.rows_chart import Row, rows_chart
from transfer.ranking.report.view import View, gain_over
from transfer.ranking.report.wording import NOTHING, interval, p_value, signed
from transfer.ranking.standing import Pair, TaskStanding

_COLUMNS = ("comparison", "gain", "95 % interval", "by seed", "p (Holm)", "verdict", "seeds to add")
_TEXTS = frozenset({5})
_NOTE = (
    "In points, at the seeds both have; p after Holm's correction over all pairs of the task. Seeds to add: to find a "
    'gain of this size in 80 % of cases; "-": not needed, not known, or out of reach.'
)


def gains_section(view: View) -> Section:
    """Of each task."""
    blocks: list[Block] = []
    for task in view.measured_tasks:
        if len(view.on(task.name).places) > 1:
            blocks += [Heading(task.name), *_on_task(view, task)]
    nothing = Text("There are no two backbones with figures on one task yet.")
    return Section("gains", "What each training brought", blocks or [nothing])


def reference_arms(view: View, backbone: BackboneRecord) -> list[str]:
    """The random arms that a backbone is compared with: those of its own size, where there are any, else all."""
    random = [each for each in view.record.backbones if each.arm == "random"]
    size = (backbone.parameters, backbone.multiply_adds)
    same = [each for each in random if (each.parameters, each.multiply_adds) == size]
    return [each.name for each in same or random]


def _on_task(view: View, task: TaskRecord) -> list[Block]:
    found = view.on(task.name)
    ranked = [place.backbone for place in found.places]
    against = [
        (name, reference)
        for name in ranked
        if view.backbones[name].arm != "random"
        for reference in reference_arms(view, view.backbones[name])
        if reference in ranked
    ]
    blocks: list[Block] = []
    if against:
        rows = [_row(found, *pair) for pair in against]
        blocks += [
            Charts([_chart(view, task, found, against)]),
            Table(f"{task.name}: gain over the random arm", _COLUMNS, rows, _TEXTS),
        ]
    else:
        blocks.append(Text("No random arm is measured here, so what pretraining brought cannot be told."))
    tricks = [(each.name, each.adds_to) for each in view.backbones.values() if each.adds_to is not None]
    tricks = [pair for pair in tricks if set(pair) <= set(ranked)]
    if tricks:
        rows = [_row(found, *pair) for pair in tricks]
        blocks.append(Table(f"{task.name}: what each trick brought", _COLUMNS, rows, _TEXTS, notes=[_NOTE]))
    nexts = [_row(found, *pair) for pair in zip(ranked, ranked[1:])]
    blocks.append(
        Table(f"{task.name}: each backbone over the next of the ranking", _COLUMNS, nexts, _TEXTS, notes=[_NOTE])
    )
    if len(ranked) > 2:
        rows = [_row(found, pair.first, pair.second) for pair in found.pairs]
        folded = f"All {len(rows)} pairs on {task.name}"
        blocks.append(Table(f"{task.name}: all pairs", _COLUMNS, rows, _TEXTS, folded=folded))
    return blocks


def _chart(view: View, task: TaskRecord, found: TaskStanding, against: list[tuple[str, str]]) -> Chart:
    """Of the gains over the random arm; at least one pair shares a seed."""
    one = len({reference for _, reference in against}) == 1
    rows, described = [], []
    for name, reference in against:
        pair = found.pair(name, reference)
        mean, low, high = gain_over(pair, name)
        if math.isnan(mean):
            continue
        label = name if one else f"{name} over {reference}"
        rows.append(Row(label, view.backbones[name].arm, mean, (low, high), _differences(pair, name)))
        described.append(f"{label} {signed(mean)}, {interval((low, high), with_sign=True)}")
    over = f"over {against[0][1]}" if one else "over the random arm"
    return rows_chart(
        f"{task.name}: gain {over}, points of {task.figure}, with its 95 % interval",
        f"One row for each backbone: {'; '.join(described)}. The same numbers are in the table below.",
        rows,
        f"gain, points of {task.figure}",
        zero=True,
    )


def _differences(pair: Pair, better: str) -> list[float]:
    if pair.gain is None:
        return []
    return [difference if better == pair.first else -difference for difference in pair.gain.differences]


def _row(found: TaskStanding, better: str, other: str) -> list[str]:
    pair = found.pair(better, other)
    name = f"{better} over {other}"
    if pair.gain is None:
        return [name, NOTHING, NOTHING, NOTHING, NOTHING, "no seed in common", NOTHING]
    mean, low, high = gain_over(pair, better)
    if len(pair.gain.differences) < 2:
        verdict = "tie (one seed)"
    elif pair.ahead is None:
        verdict = "tie"
    else:
        verdict = "ahead" if pair.ahead == better else "behind"
    return [
        name,
        signed(mean),
        interval((low, high), with_sign=True),
        ", ".join(signed(difference) for difference in _differences(pair, better)),
        p_value(pair.p_holm),
        verdict,
        NOTHING if pair.more_seeds is None else str(pair.more_seeds),
    ]
