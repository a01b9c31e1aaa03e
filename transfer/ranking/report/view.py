"""A ranking's record as the sections of its report need it: figures by task, the standing, names in order."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

from transfer.ranking.record import BackboneRecord, CostRecord, RankingRecord, RunRecord, TaskRecord
from transfer.ranking.report.wording import is_known
from transfer.ranking.standing import Pair, Standing, TaskStanding, standing


class View:
    """A record, and what follows from it.

    Args:
        record: of the ranking.
        folder: that its pictures' paths are relative to.
    """

    def __init__(self, record: RankingRecord, folder: Path) -> None:
        self.record, self.folder = record, folder
        self.names = [backbone.name for backbone in record.backbones]
        self.backbones: dict[str, BackboneRecord] = {backbone.name: backbone for backbone in record.backbones}
        self.costs: dict[tuple[str, str], CostRecord] = {(cost.task, cost.backbone): cost for cost in record.costs}
        self.runs: dict[tuple[str, str, int], RunRecord] = {
            (run.task, run.backbone, run.seed): run for run in record.runs
        }

    @cached_property
    def figures(self) -> dict[str, dict[str, dict[int, float]]]:
        """Task -> backbone -> seed -> figure, of the runs that are done; backbones without any are left out."""
        found: dict[str, dict[str, dict[int, float]]] = {task.name: {} for task in self.record.tasks}
        for task in self.record.tasks:
            for name in self.names:
                for seed in self.record.seeds:
                    run = self.runs.get((task.name, name, seed))
                    if run is not None and run.state == "done" and run.figure is not None and is_known(run.figure):
                        found[task.name].setdefault(name, {})[seed] = run.figure
        return found

    @cached_property
    def measured_tasks(self) -> list[TaskRecord]:
        """Those with a figure at least."""
        return [task for task in self.record.tasks if self.figures[task.name]]

    @cached_property
    def standing(self) -> Standing:
        """Of all backbones on the measured tasks."""
        flat: dict[tuple[str, str, int], float] = {}
        for task in self.measured_tasks:
            for name in self.names:
                by_seed = self.figures[task.name].get(name) or {self.record.seeds[0]: math.nan}
                flat |= {(name, task.name, seed): figure for seed, figure in by_seed.items()}
        return standing(flat)

    def on(self, task: str) -> TaskStanding:
        """The standing on a measured task."""
        return next(each for each in self.standing.tasks if each.task == task)

    def ranked(self, task: str) -> list[str]:
        """All backbones, best first; those without a figure at the end."""
        best_first = [place.backbone for place in self.on(task).places] if self.figures.get(task) else []
        return [*best_first, *(name for name in self.names if name not in best_first)]

    def means(self, task: str) -> dict[str, float]:
        """Backbone -> mean figure."""
        return {name: sum(by_seed.values()) / len(by_seed) for name, by_seed in self.figures[task].items()}

    def is_halved(self, task: str, backbone: str) -> bool:
        """Whether successive halving gave it up."""
        return any(run.state == "halved" for run in self.record.runs if (run.task, run.backbone) == (task, backbone))

    @property
    def expected(self) -> int:
        """Runs of the whole grid."""
        return len(self.record.tasks) * len(self.names) * len(self.record.seeds)

    @property
    def done(self) -> int:
        """Runs with a figure."""
        return sum(len(by_seed) for by_name in self.figures.values() for by_seed in by_name.values())


def gain_over(pair: Pair, better: str) -> tuple[float, float, float]:
    """Mean and interval of one's gain over the other of a pair; NaN where they share no seed."""
    if pair.gain is None:
        return (math.nan,) * 3
    if better == pair.first:
        return pair.gain.mean, pair.gain.low, pair.gain.high
    return -pair.gain.mean, -pair.gain.high, -pair.gain.low
