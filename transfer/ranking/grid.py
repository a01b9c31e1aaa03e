"""The runs of a ranking and what decides between them: growing, searching the lr, the runs that count.

Search: each backbone on each task with each factor of the task's own lr, at one seed, for a share of the task's length.
The test set is not looked at: what is measured is a part held out of the training set (`transfer.data.held_out`), or
the validation set that the config names. The factor of the highest figure is taken; of equal ones that nearest to 1.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer.build import Node, apply_override
from transfer.experiments.description import Description
from transfer.experiments.ledger import Row
from transfer.ranking.plan import Halving, RankingPlan, Search
from transfer.types import UserError, is_number

HELD_OUT = "transfer.data.held_out.held_out"
Pair = tuple[str, str]
"""Backbone and task."""


@dataclass(frozen=True)
class Slot:
    """A run of the grid, before it is known how: the lr of one that counts comes from the search."""

    stage: str
    """"grow", "search" or "run"."""
    backbone: str
    task: str
    """Empty of what is grown."""
    seed: int
    factor: float = 1.0

    @property
    def label(self) -> str:
        """For people."""
        if self.stage == "grow":
            return f"{self.backbone} growth"
        on = f"{self.backbone} on {self.task}"
        return f"{on} search lr x{self.factor:g}" if self.stage == "search" else on


@dataclass
class Grid:
    """All runs of a ranking.

    Args:
        plan: what the file says.
        configs: (backbone, task) -> the config of its runs, at the task's own lr.
        growths: backbone -> the config that it is grown by.
        runner: see `transfer.experiments.description.Description`.
    """

    plan: RankingPlan
    configs: Mapping[Pair, Node]
    growths: Mapping[str, Node] = field(default_factory=dict)
    runner: str = "transfer.training.run"

    def pairs(self) -> Iterator[Pair]:
        """Task by task."""
        for task in self.plan.tasks:
            for backbone in self.plan.backbones:
                yield backbone.name, task.name

    def grown(self) -> list[Slot]:
        """What is grown first."""
        seeds = {backbone.name: backbone.grow.seed for backbone in self.plan.backbones if backbone.grow}
        return [Slot("grow", name, "", seeds[name]) for name in self.growths]

    def searches(self) -> list[Slot]:
        """The search; none where the grid is one factor."""
        search = self.plan.search
        if search is None or len(search.factors) == 1:
            return []
        return [Slot("search", *pair, search.seed, factor) for pair in self.pairs() for factor in search.factors]

    def runs(self, seeds: Sequence[int] | None = None) -> list[Slot]:
        """The runs that count, all backbones on all tasks at one seed before the next."""
        seeds = range(self.plan.seeds) if seeds is None else seeds
        return [Slot("run", *pair, seed) for seed in seeds for pair in self.pairs()]

    def slots(self) -> list[Slot]:
        """All runs in the order of `--only`."""
        return [*self.grown(), *self.searches(), *self.runs()]

    def only_factor(self) -> float:
        """The factor where nothing is searched."""
        return self.plan.search.factors[0] if self.plan.search is not None else 1.0

    def lr(self, pair: Pair, factor: float) -> float:
        """What is written into the config."""
        return self.configs[pair]["optimizer"]["lr"] * factor

    def description(self, slot: Slot) -> Description:
        """How a slot's run is made; of a run that counts, its factor is the chosen one."""
        if slot.stage == "grow":
            config = copy.deepcopy(self.growths[slot.backbone])
        else:
            pair = (slot.backbone, slot.task)
            config = copy.deepcopy(self.configs[pair])
            config["optimizer"]["lr"] = self.lr(pair, slot.factor)
            if slot.stage == "search":
                assert self.plan.search is not None, "a search has settings"
                config = for_search(config, self.plan.search)
        apply_override(config, f"training.seed={slot.seed}")
        return Description(slot.label, config, slot.seed, runner=self.runner)


def for_search(config: Node, search: Search) -> Node:
    """The config of a run that an lr is chosen by."""
    config = copy.deepcopy(config)
    data, training = config["data"], config["training"]
    if isinstance(data.get("val"), dict):
        config["data"] = {"train": data["train"], "val": None, "test": data["val"]}
    else:
        cut = {"type": HELD_OUT, "dataset": data["train"], "fraction": float(search.held_out), "seed": search.seed}
        config["data"] = {"train": {**cut, "part": "rest"}, "val": None, "test": {**cut, "part": "held out"}}
    if training.get("epochs") is not None:
        training["epochs"] = training["epochs"] * search.budget
    else:
        training["iterations"] = max(1, round(training["iterations"] * search.budget))
    training.update(evaluate_every=0, preflight=False)  # an lr that is too high is what is looked for
    if training.get("early_stopping") is not None:
        training["early_stopping"] = None  # there is nothing to listen to, and all get the same length
    return config


def check_lr(config: Node, where: str) -> None:
    """Raises: UserError for a config without a number to search around."""
    lr = config.get("optimizer", {}).get("lr")
    if not is_number(lr):
        raise UserError(f"{where}: optimizer.lr={lr!r} must be a number: the search multiplies it")
    training = config["training"]
    if training.get("epochs") is None and training.get("iterations") is None:
        raise UserError(f"{where}: give training.epochs or training.iterations: the search takes a share of it")


def choose_factor(figures: Mapping[float, float | None]) -> float | None:
    """The factor of the highest figure, of equal ones that nearest to 1, the lower first; None: there is no figure.

    Args:
        figures: factor -> figure; None or NaN: the run gave none.
    """
    found = {factor: figure for factor, figure in figures.items() if figure is not None and math.isfinite(figure)}
    if not found:
        return None
    return min(found, key=lambda factor: (-found[factor], round(abs(math.log(factor)), 9), factor))


def is_at_edge(factor: float, factors: Sequence[float]) -> bool:
    """Whether a wider grid might have held a better factor."""
    return len(factors) > 1 and factor in (min(factors), max(factors))


def given_up(halving: Halving | None, figures: Mapping[str, Mapping[int, float]], seeds: int) -> dict[str, int]:
    """The backbones that get no further seeds on a task.

    Args:
        halving: the rule; None: nobody.
        figures: backbone -> seed -> figure.
        seeds: of the ranking.

    Returns:
        Backbone -> how many seeds it keeps. A rung decides only where every backbone still in the race has a figure, or
        failed for good, at each of its seeds; who failed is not in `figures` and goes on by itself.
    """
    gone: dict[str, int] = {}
    if halving is None:
        return gone
    for rung in halving.rungs:
        means = {
            name: sum(of[seed] for seed in range(rung)) / rung
            for name, of in figures.items()
            if name not in gone and all(seed in of for seed in range(min(rung, seeds)))
        }
        if len(means) < 2:
            continue
        best_first = sorted(means, key=lambda name: -means[name])
        kept = math.ceil(halving.keep * len(best_first) - 1e-9)
        gone |= {name: rung for name in best_first[kept:] if means[best_first[0]] - means[name] > halving.margin}
    return gone


def main_metric(row: Row | None) -> dict[str, Any] | None:
    """The metric that ranks, of a run that is done."""
    if row is None or row.state != "done" or not row.result or not row.result.get("metrics"):
        return None
    return dict(row.result["metrics"][0])


def figure_of(row: Row | None) -> float | None:
    """The figure of a run, percent; None where it has none, or an undefined one."""
    metric = main_metric(row)
    value = None if metric is None else metric["values"][metric["main"]]
    return None if value is None or not math.isfinite(value) else 100.0 * float(value)


def grown_weights(work_dir: Path, description: Description) -> Path:
    """Where the checkpoint of a grown backbone is put, so that its name is known before it is grown."""
    return work_dir / "grown" / f"{description.directory}.pth"
