"""Makes the runs of a ranking through the ledger of its work directory, stage by stage.

    grow       what the ranking grows itself; its checkpoint gets a name of its own in WORK_DIR/grown/
    forecasts  and costs: no training, a minute each
    search     the lr of each backbone on each task
    run        those that count, seed by seed; between rungs, the hopeless are given up where the ranking says so
    pictures   the same test images under each backbone's first seed

Every stage is known from what the ledger holds, so the same command goes on wherever an earlier one stopped; and
forecasts, costs and pictures are runs of the ledger like the others, each in a process of its own. This module knows
them by name only: what they do is in `transfer.ranking_run`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer.build import Node, to_json
from transfer.experiments.description import Description, slug
from transfer.experiments.experiment import Experiment
from transfer.experiments.ledger import Ledger, Row
from transfer.ranking.grid import Grid, Pair, Slot, choose_factor, figure_of, given_up, grown_weights
from transfer.types import UserError

logger = logging.getLogger("trickstack")

Maker = Callable[[Experiment, int | None], bool]
"""Makes the runs that are not done, at most so many at a time where a number is given; whether all were tried to the
end (False: interrupted)."""


@dataclass(frozen=True)
class SideRunners:
    """Dotted names of what is no training; as the runner of `transfer.experiments.description.Description`."""

    forecasts: str = "transfer.ranking_run.forecasts.run"
    costs: str = "transfer.ranking_run.costs.run"
    pictures: str = "transfer.ranking_run.pictures.run"


@dataclass
class Driver:
    """A ranking and how far it has come.

    Args:
        grid: its runs.
        work_dir: of all experiments: ledger.sqlite, runs/, grown/, and a folder for each ranking.
        side_runners: what makes forecasts, costs and pictures.
    """

    grid: Grid
    work_dir: Path
    side_runners: SideRunners = field(default_factory=SideRunners)

    @property
    def name(self) -> str:
        """Of the ranking's folder: of its file, and what tells it from one of the same name with other configs."""
        configs = {f"{backbone} on {task}": config for (backbone, task), config in self.grid.configs.items()}
        search = None if self.grid.plan.search is None else dict(vars(self.grid.plan.search))
        whole: Node = {"runs": configs, "grown": dict(self.grid.growths), "search": search}
        return f"{slug(self.grid.plan.name)}-{hashlib.sha256(to_json(whole).encode()).hexdigest()[:6]}"

    @property
    def folder(self) -> Path:
        """Of its record, report and pictures."""
        return self.work_dir / self.name

    def make(self, maker: Maker) -> bool:
        """Make everything that is not done. Returns whether all was tried to the end (False: interrupted)."""
        stages: list[Callable[[], tuple[Mapping[tuple[str, int], Description], int | None]]] = [
            lambda: (self._of(self.grid.grown()), None),
            lambda: (_labelled(self.forecasts()), None),
            lambda: (_labelled(self.costs()), 1),  # one at a time: another one beside it would slow it down
            lambda: (self._of(self.grid.searches()), None),
            *(self._rung(until) for until in self._rungs()),
            lambda: (_labelled(self.pictures()), None),
        ]
        for stage in stages:
            self.publish_grown()
            runs, jobs = stage()
            if runs and not maker(Experiment(self.name, self.work_dir, runs), jobs):
                return False
        return True

    def _rungs(self) -> list[int]:
        """Numbers of seeds after which somebody may be given up, and all of them."""
        halving = self.grid.plan.halving
        return [*(halving.rungs if halving else ()), self.grid.plan.seeds]

    def _rung(self, until: int) -> Callable[[], tuple[Mapping[tuple[str, int], Description], int | None]]:
        return lambda: (self._of(self.grid.runs(range(until))), None)

    def _of(self, slots: list[Slot]) -> dict[tuple[str, int], Description]:
        """The descriptions of those slots that can be made."""
        found = {slot: self.resolve(slot) for slot in slots}
        return {(slot.label, slot.seed): run for slot, run in found.items() if isinstance(run, Description)}

    def resolve(self, slot: Slot) -> Description | str:
        """How a slot's run is made; or why it is not: "missing: ..." (yet), "failed: ..." or "halved: ..."."""
        if slot.stage == "grow":
            return self.grid.description(slot)
        if (without := self._without_weights(slot.backbone)) is not None:
            return without
        if slot.stage == "search":
            return self.grid.description(slot)
        pair = (slot.backbone, slot.task)
        factor = self.factor(pair)
        if factor is None:
            over = all(row is not None and row.state in ("done", "failed") for row in self.searched(pair).values())
            return "failed: no lr of the search gave a figure" if over else "missing: the search of its lr is not over"
        if slot.seed >= self.kept(slot.task).get(slot.backbone, self.grid.plan.seeds):
            return "halved: far behind the best after fewer seeds"
        return self.grid.description(Slot(slot.stage, *pair, slot.seed, factor))

    def _without_weights(self, backbone: str) -> str | None:
        """Why a backbone that is grown has no weights; None: it has, or it is not grown."""
        if backbone not in self.grid.growths:
            return None
        slot = next(slot for slot in self.grid.grown() if slot.backbone == backbone)
        description = self.grid.description(slot)
        if grown_weights(self.work_dir, description).is_file():
            return None
        row = self.row(description)
        if row is not None and row.state == "failed":
            return f"failed: it could not be grown: {row.error or 'no message'}"
        return "missing: it is not grown yet"

    def row(self, description: Description) -> Row | None:
        """What the ledger has of a run; writes nothing."""
        return self.rows([description]).get(description.key)

    def rows(self, descriptions: list[Description]) -> dict[str, Row]:
        """Key -> what the ledger has of it."""
        path = self.work_dir / "ledger.sqlite"
        if not path.is_file():
            return {}
        ledger = Ledger(path)
        try:
            return ledger.rows([description.key for description in descriptions])
        finally:
            ledger.close()

    def searched(self, pair: Pair) -> dict[float, Row | None]:
        """Factor -> the run that tried it."""
        slots = [slot for slot in self.grid.searches() if (slot.backbone, slot.task) == pair]
        descriptions = [self.grid.description(slot) for slot in slots]
        rows = self.rows(descriptions)
        return {slot.factor: rows.get(run.key) for slot, run in zip(slots, descriptions)}

    def factor(self, pair: Pair) -> float | None:
        """The chosen factor; None while the search is not over, or where it found none."""
        rows = self.searched(pair)
        if not rows:
            return self.grid.only_factor()
        if any(row is None or row.state not in ("done", "failed") for row in rows.values()):
            return None
        return choose_factor({factor: figure_of(row) for factor, row in rows.items()})

    def kept(self, task: str) -> dict[str, int]:
        """The given up on a task -> seeds they keep."""
        halving = self.grid.plan.halving
        if halving is None:
            return {}
        kept: dict[str, int] = {}
        for place in range(len(halving.rungs)):
            first = type(halving)(halving.rungs[: place + 1], halving.keep, halving.margin)
            states, figures = self._figures(task, halving.rungs[place], kept)
            if any(state not in ("done", "failed") for state in states):
                break  # nobody is given up before all have had their chance
            kept = given_up(first, figures, self.grid.plan.seeds)
        return kept

    def _figures(self, task: str, seeds: int, kept: Mapping[str, int]) -> tuple[list[str], dict[str, dict[int, float]]]:
        """States of the first runs on a task, of those still in the race, and backbone -> seed -> figure."""
        states: list[str] = []
        figures: dict[str, dict[int, float]] = {}
        for backbone in self.grid.plan.backbones:
            pair = (backbone.name, task)
            if self._without_weights(backbone.name) is not None or self.factor(pair) is None:
                reason = self.resolve(Slot("run", *pair, 0))
                states.append("failed" if isinstance(reason, str) and reason.startswith("failed") else "waiting")
                continue
            runs = self._first_runs(pair, seeds)
            rows = self.rows(list(runs.values()))
            for seed, run in runs.items():
                row = rows.get(run.key)
                if seed < kept.get(backbone.name, seeds):
                    states.append(row.state if row is not None else "waiting")
                if (figure := figure_of(row)) is not None:
                    figures.setdefault(backbone.name, {})[seed] = figure
        return states, figures

    def _first_runs(self, pair: Pair, seeds: int) -> dict[int, Description]:
        factor = self.factor(pair)
        assert factor is not None, "asked of pairs with an lr"
        return {seed: self.grid.description(Slot("run", *pair, seed, factor)) for seed in range(seeds)}

    def publish_grown(self) -> None:
        """Give the checkpoints of what is grown their names; those that have them already stay."""
        for slot in self.grid.grown():
            description = self.grid.description(slot)
            path, row = grown_weights(self.work_dir, description), self.row(description)
            if path.is_file() or row is None or row.state != "done" or not row.result:
                continue
            folder = self.work_dir / "runs" / str(row.result["directory"])
            best = folder / "best.pth"
            source = best if best.is_file() else folder / "last.pth"
            if not source.is_file():
                raise UserError(f"{str(source)!r} is gone: {slot.label} left it; delete its run to grow it anew")
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
            try:
                shutil.copyfile(source, temporary)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def forecasts(self) -> dict[Pair, Description]:
        """What computes the scores of each backbone on each task."""
        images = self.grid.plan.forecast_images
        extra = {"images": images, "seed": 0}
        return self._beside("forecast", self.side_runners.forecasts, {"forecast": extra}) if images else {}

    def costs(self) -> dict[Pair, Description]:
        """What measures each backbone in each task."""
        return self._beside("cost", self.side_runners.costs, {}) if self.grid.plan.costs else {}

    def _beside(self, what: str, runner: str, extra: dict[str, Any]) -> dict[Pair, Description]:
        return {
            (backbone, task): Description(
                f"{backbone} on {task} {what}", {"config": self.grid.configs[backbone, task], **extra}, 0, runner=runner
            )
            for backbone, task in self.grid.pairs()
            if self._without_weights(backbone) is None
        }

    def pictures(self) -> dict[Pair, Description]:
        """What draws the predictions of each backbone's first seed, where that run is done."""
        count = self.grid.plan.pictures
        drawn = {}
        for slot in self.grid.runs([0]) if count else []:
            run = self.resolve(slot)
            row = self.row(run) if isinstance(run, Description) else None
            if row is not None and row.state == "done" and row.result:
                what = {"run": str(row.result["directory"]), "images": count}
                label = f"{slot.label} pictures"
                drawn[slot.backbone, slot.task] = Description(label, what, 0, runner=self.side_runners.pictures)
        return drawn

    def only(self, index: int, maker: Maker) -> bool:
        """Make one run of the grid, with what it needs made before.

        Raises:
            UserError: no such run, or what it needs is not there.
        """
        slots = self.grid.slots()
        if not 0 <= index < len(slots):
            raise UserError(f"--only {index}: the grid has runs 0 to {len(slots) - 1}")
        self.publish_grown()
        slot = slots[index]
        run = self.resolve(slot)
        if isinstance(run, str):
            state, _, reason = run.partition(": ")
            if state == "halved":
                logger.info("run %d, %s, seed %d: given up (%s)", index, slot.label, slot.seed, reason)
                return True
            raise UserError(f"--only {index} ({slot.label}, seed {slot.seed}): {reason}; make the runs before it first")
        finished = maker(Experiment(self.name, self.work_dir, {(slot.label, slot.seed): run}), None)
        self.publish_grown()
        return finished


def _labelled(runs: Mapping[Pair, Description]) -> dict[tuple[str, int], Description]:
    """As an experiment's runs."""
    return {(run.name, run.seed): run for run in runs.values()}
