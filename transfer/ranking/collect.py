"""The record of a ranking, from its plan and the ledger: of all that is done, and of what is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from transfer.build import Node
from transfer.experiments.description import slug
from transfer.experiments.ledger import Row
from transfer.ranking.driver import Driver
from transfer.ranking.grid import Pair, Slot, figure_of, is_at_edge, main_metric
from transfer.ranking.record import (
    BackboneRecord,
    CostRecord,
    ForecastRecord,
    PictureRecord,
    PublishedPoint,
    RankingRecord,
    RunRecord,
    SearchRun,
    TaskRecord,
)
from transfer.ranking.single_runs import command_of


@dataclass
class Known:
    """What is known of a ranking besides its runs.

    Args:
        tasks: with `figure` and `protocol` still empty.
        backbones: with `grown` still empty.
        bases: task, or backbone that is grown -> (path of its config file, what the file says).
        command: of the ranking.
        facts: of this machine and code.
    """

    tasks: list[TaskRecord]
    backbones: list[BackboneRecord]
    bases: Mapping[str, tuple[str, Node]]
    command: str
    facts: dict[str, str] = field(default_factory=dict)


def collect(driver: Driver, known: Known) -> RankingRecord:
    """What a ranking found so far; drawings are copied into its folder."""
    searches = [run for pair in driver.grid.pairs() for run in _searches(driver, known, pair)]
    runs, rows = _runs(driver, known)
    tasks = [_task(task, rows) for task in known.tasks]
    backbones = [_backbone(driver, backbone, known) for backbone in known.backbones]
    beside = driver.rows([*driver.costs().values(), *driver.forecasts().values()])
    return RankingRecord(
        name=driver.grid.plan.name,
        command=known.command,
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        facts={**known.facts, **_facts(driver, [*rows.values(), *beside.values()], searches)},
        seeds=list(range(driver.grid.plan.seeds)),
        tasks=tasks,
        backbones=backbones,
        costs=_costs(driver, beside),
        searches=searches,
        runs=runs,
        forecasts=_forecasts(driver, beside),
        pictures=_pictures(driver),
        published=[PublishedPoint(**vars(point)) for point in driver.grid.plan.published],
    )


def _task(task: TaskRecord, rows: Mapping[Slot, Row]) -> TaskRecord:
    metrics = [metric for slot, row in rows.items() if slot.task == task.name and (metric := main_metric(row))]
    if not metrics:
        return task
    return replace(task, figure=str(metrics[0]["main"]), protocol=str(metrics[0].get("protocol", "")))


def _backbone(driver: Driver, backbone: BackboneRecord, known: Known) -> BackboneRecord:
    if backbone.name not in driver.grid.growths:
        return backbone
    slot = next(slot for slot in driver.grid.grown() if slot.backbone == backbone.name)
    run = driver.grid.description(slot)
    row = driver.row(run)
    grown = {
        "config": known.bases[backbone.name][0],
        "directory": _directory(driver, row),
        "top1": figure_of(row),
        "minutes": _minutes(row),
        "state": _state(row),
        "command": command_of(*known.bases[backbone.name], run.config),
    }
    return replace(backbone, grown=grown)


def _searches(driver: Driver, known: Known, pair: Pair) -> list[SearchRun]:
    chosen, found = driver.factor(pair), []
    for factor, row in driver.searched(pair).items():
        assert driver.grid.plan.search is not None, "something was searched"
        slot = Slot("search", *pair, driver.grid.plan.search.seed, factor)
        run = driver.grid.description(slot)
        found.append(
            SearchRun(
                *pair,
                slot.seed,
                driver.grid.lr(pair, factor),
                factor,
                figure_of(row),
                factor == chosen,
                _state(row),
                _directory(driver, row),
                command_of(*known.bases[pair[1]], run.config),
            )
        )
    return found


def _runs(driver: Driver, known: Known) -> tuple[list[RunRecord], dict[Slot, Row]]:
    """The runs that count, and of those that were begun, what the ledger has."""
    records, rows = [], {}
    for slot in driver.grid.runs():
        run = driver.resolve(slot)
        if isinstance(run, str):
            state, _, reason = run.partition(": ")
            records.append(_never_made(driver, slot, state, reason))
            continue
        row = driver.row(run)
        if row is not None:
            rows[slot] = row
        records.append(
            RunRecord(
                slot.backbone,
                slot.task,
                slot.seed,
                figure_of(row),
                per_class_of(main_metric(row)),
                run.config["optimizer"]["lr"],
                _minutes(row),
                _state(row),
                row.error if row is not None and row.state == "failed" else None,
                _directory(driver, row),
                command_of(*known.bases[slot.task], run.config),
            )
        )
    return records, rows


def _never_made(driver: Driver, slot: Slot, state: str, reason: str) -> RunRecord:
    factor = driver.factor((slot.backbone, slot.task))
    lr = None if factor is None else driver.grid.lr((slot.backbone, slot.task), factor)
    return RunRecord(slot.backbone, slot.task, slot.seed, None, {}, lr, None, state, reason, None, "")


def per_class_of(metric: Mapping[str, Any] | None) -> dict[str, dict[str, float | None]]:
    """Class -> figure's name -> percent; counts are left out."""
    if metric is None:
        return {}
    counts = set(metric.get("count_columns", ()))
    return {
        name: {key: None if value is None else 100.0 * value for key, value in figures.items() if key not in counts}
        for name, figures in metric.get("per_class", {}).items()
    }


def _state(row: Row | None) -> str:
    return row.state if row is not None and row.state in ("done", "failed") else "missing"


def _minutes(row: Row | None) -> float | None:
    return row.seconds / 60 if row is not None and row.state == "done" else None


def _directory(driver: Driver, row: Row | None) -> str | None:
    if row is None or not row.result:
        return None
    return str(driver.work_dir / "runs" / str(row.result["directory"]))


def _costs(driver: Driver, rows: Mapping[str, Row]) -> list[CostRecord]:
    found = []
    for pair, run in driver.costs().items():
        row = rows.get(run.key)
        if row is not None and row.state == "done" and row.result:
            found.append(CostRecord(*pair, **row.result["cost"]))
    return found


def _forecasts(driver: Driver, rows: Mapping[str, Row]) -> list[ForecastRecord]:
    found = []
    for (backbone, task), run in driver.forecasts().items():
        row = rows.get(run.key)
        if row is not None and row.state == "done" and row.result:
            found += [ForecastRecord(task, backbone, score, value) for score, value in row.result["scores"].items()]
    return found


def _pictures(driver: Driver) -> list[PictureRecord]:
    """Copies the drawings into the ranking's folder; those of a backbone whose run is missing are not there."""
    found: dict[tuple[str, str], PictureRecord] = {}
    runs = driver.pictures()
    rows = driver.rows(list(runs.values()))
    for slot in driver.grid.runs([0]):
        run = runs.get((slot.backbone, slot.task))
        row = rows.get(run.key) if run is not None else None
        if row is None or row.state != "done" or not row.result:
            continue
        source = driver.work_dir / "runs" / str(row.result["directory"])
        folder = Path("pictures") / slug(slot.task)
        for place, image in enumerate(row.result["pictures"]):
            record = found.get((slot.task, image["image_id"]))
            if record is None:
                truth = _copied(driver.folder, source / image["truth"], folder / f"{place}-truth.jpg")
                record = PictureRecord(slot.task, image["image_id"], truth, {})
                found[slot.task, image["image_id"]] = record
            target = folder / f"{place}-{slug(slot.backbone)}.jpg"
            record.predictions[slot.backbone] = _copied(driver.folder, source / image["drawn"], target)
    return list(found.values())


def _copied(root: Path, source: Path, target: Path) -> str:
    """Copy a file to a path below `root` (where it is not gone); returns that path as text."""
    (root / target).parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        temporary = (root / target).with_name(f".{target.name}.{os.getpid()}.part")
        try:
            shutil.copyfile(source, temporary)
            os.replace(temporary, root / target)
        finally:
            temporary.unlink(missing_ok=True)
    return target.as_posix()


def _facts(driver: Driver, rows: list[Row], searches: list[SearchRun]) -> dict[str, str]:
    """What the runs say of themselves, where it is one thing, and where it is not."""
    facts: dict[str, str] = {}
    made = sorted({_machine(row) for row in rows if row.facts})
    if made:
        facts["runs made on"] = " / ".join(made)
    versions = [name for row in rows if row.facts for name in row.facts if name not in _MACHINE]
    for name in dict.fromkeys(versions):
        values = sorted({str(row.facts[name]) for row in rows if row.facts and name in row.facts})
        if len(values) > 1:
            facts[f"the runs differ in {name}"] = ", ".join(values)
    peaks = sorted({str(row.result["peak"]) for row in rows if row.result and "peak" in row.result})
    if peaks:
        facts["peak memory"] = " / ".join(peaks)
    factors = driver.grid.plan.search.factors if driver.grid.plan.search is not None else ()
    edges = [
        f"{run.backbone} on {run.task} (x{run.factor:g})"
        for run in searches
        if run.chosen and is_at_edge(run.factor, factors)
    ]
    if edges:
        facts["best lr at the edge of the grid"] = f"{', '.join(edges)}: a wider grid might hold a better one"
    return facts


_MACHINE = ("host", "device", "threads", "processor", "cores")


def _machine(row: Row) -> str:
    facts = row.facts or {}
    device = str(facts.get("device", "cpu"))
    name = str(facts.get("processor", "")) if device == "cpu" else device
    return f"{name}, {facts.get('threads', '?')} threads a run"
