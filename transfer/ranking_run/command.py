"""The work of tools/rank_backbones.py: from its options to the ranking's folder."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transfer.build import nearest
from transfer.engine.run_directory import write_text_atomically
from transfer.experiments.experiment import Experiment, usable_gpus
from transfer.experiments.ledger import Ledger
from transfer.experiments.on_ray import RayPool
from transfer.experiments.progress import Progress
from transfer.experiments.slurm_script import slurm_script
from transfer.ranking.collect import Known, collect
from transfer.ranking.driver import Driver, Maker
from transfer.ranking.plan import RankingPlan, read_plan
from transfer.ranking.record import RankingRecord, to_text
from transfer.ranking_run.checking import backbone_records, check, machine_facts, task_records
from transfer.ranking_run.configs import Prepared, prepare
from transfer.types import UserError

logger = logging.getLogger("trickstack")

NOT_REPEATED = ("--report-only",)
"""Options that the command in the record is without; the first ones take no value."""
NOT_REPEATED_WITH_VALUE = ("--only", "--slurm-script")


def rank(arguments: argparse.Namespace) -> int:
    """Make what is missing, record, report; returns the exit code."""
    plan = chosen(read_plan(arguments.ranking), arguments)
    gpus = usable_gpus(arguments.device)
    prepared = prepare(
        plan, Path(arguments.ranking), arguments.work_dir, roots=roots_of(arguments.data), options=arguments.cfg_options
    )
    driver = Driver(prepared.grid, arguments.work_dir)
    command = command_words(sys.argv[1:])
    if arguments.slurm_script is not None:
        return write_slurm_script(driver, arguments.slurm_script, command)
    maker = on_ray(arguments, bool(gpus)) if arguments.cluster == "ray" else on_this_machine(arguments, gpus)
    if arguments.only is not None:
        return only(driver, arguments.only, maker)
    if not arguments.report_only:
        check(prepared, on_gpu=bool(gpus))
    known = known_of(prepared, gpus, shlex.join(command))
    finished = arguments.report_only or driver.make(maker)
    record = collect(driver, known)
    if not any(run.state == "done" for run in record.runs) and arguments.report_only:
        raise UserError(
            f"--report-only: {str(arguments.work_dir)!r} has no run of this ranking with these options; leave it away"
        )
    write(driver, record)
    if not finished:
        return 130
    return int(any(run.state == "failed" for run in record.runs))


def write(driver: Driver, record: RankingRecord) -> None:
    """Leave ranking.json and the report in the ranking's folder."""
    driver.folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(driver.folder / "ranking.json", to_text(record))
    from transfer.ranking.report.write import write_report

    written = write_report(record, driver.folder)
    print(f"ranking directory {driver.folder}: {', '.join(path.name for path in written)}", file=sys.stderr)


def only(driver: Driver, index: int, maker: Maker) -> int:
    """Make one run of the grid; returns the exit code."""
    if not driver.only(index, maker):
        return 130
    slot = driver.grid.slots()[index]
    run = driver.resolve(slot)
    row = None if isinstance(run, str) else driver.row(run)
    if row is not None and row.state == "failed":
        logger.error("run %d, %s, seed %d, failed: %s", index, slot.label, slot.seed, row.error)
    return int(row is not None and row.state == "failed")


def chosen(plan: RankingPlan, arguments: argparse.Namespace) -> RankingPlan:
    """The plan with what the command line says of it. Raises: UserError for names that it does not have."""
    problems: list[str] = []
    parts: dict[str, Any] = {"seeds": arguments.seeds} if arguments.seeds is not None else {}
    for name in ("backbones", "tasks"):
        asked = getattr(arguments, name)
        there = [part.name for part in getattr(plan, name)]
        problems += [
            f"--{name} {word}: the ranking has no such{nearest(word, there) or '; it has ' + ', '.join(there)}"
            for word in asked or ()
            if word not in there
        ]
        if asked:
            parts[name] = tuple(part for part in getattr(plan, name) if part.name in asked)
    if plan.halving is not None and plan.halving.rungs[-1] >= parts.get("seeds", plan.seeds):
        parts["halving"] = None
        logger.info("no halving: it would begin after the last of %d seeds", parts.get("seeds", plan.seeds))
    if problems:
        raise UserError("\n".join(problems))
    return replace(plan, **parts)


def roots_of(words: Sequence[str]) -> dict[str, dict[str, str]]:
    """--data TASK=ROOT and TASK.train=ROOT. Raises: UserError for another form."""
    roots: dict[str, dict[str, str]] = {}
    for word in words:
        name, separator, root = word.partition("=")
        task, dot, part = name.rpartition(".")
        if not dot or part not in ("train", "val", "test"):
            task, part = name, "all"
        if not separator or not task or not root:
            raise UserError(f"--data {word!r}: give TASK=FOLDER, or TASK.train=FOLDER TASK.test=FOLDER")
        roots.setdefault(task, {})[part] = root
    return roots


def known_of(prepared: Prepared, gpus: list[str], command: str) -> Known:
    """What the record says besides the runs."""
    return Known(task_records(prepared), backbone_records(prepared), prepared.bases, command, machine_facts(gpus))


def on_this_machine(arguments: argparse.Namespace, gpus: list[str]) -> Maker:
    """Runs in processes here."""

    def make(experiment: Experiment, jobs: int | None) -> bool:
        given = arguments.jobs if jobs is None else jobs
        return experiment.make(jobs=given, gpus=gpus, device=arguments.device, retries=arguments.retries)

    return make


def on_ray(arguments: argparse.Namespace, has_gpus: bool) -> Maker:
    """Runs as tasks of a Ray cluster, or of a Ray that is started here. Raises: UserError where Ray is not there."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise UserError("--cluster ray: install it with: pip install 'trickstack[cluster]'") from error
    cores = int(os.environ.get("OMP_NUM_THREADS") or 1)
    if not ray.is_initialized():
        address = arguments.address or os.environ.get("RAY_ADDRESS")
        ray.init(address=address, log_to_driver=False, runtime_env=_environment()) if address else ray.init(
            log_to_driver=False, include_dashboard=False
        )
    gpus = arguments.gpus_per_run if arguments.gpus_per_run is not None else float(has_gpus)

    def make(experiment: Experiment, jobs: int | None) -> bool:
        ledger = Ledger(experiment.ledger_path)
        keys = ledger.enter(experiment.name, [(arm, run) for (arm, _), run in experiment.runs.items()])
        ledger.retry_failed(keys)
        progress = Progress(len(keys), _counter(ledger, keys), [], arguments.jobs or 1)
        pool = RayPool(
            ledger, experiment.work_dir / "runs", ray, cores=cores, gpus=gpus, jobs=jobs or arguments.jobs,
            device=arguments.device, attempts=arguments.retries + 1, told=progress.told,
        )  # fmt: skip
        try:
            return pool.run(keys)
        finally:
            progress.close()
            ledger.close()

    return make


def _environment() -> dict[str, Any]:
    """So that tasks on other nodes find the code, the configs and the data where this process does."""
    return {"env_vars": {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}}


def _counter(ledger: Ledger, keys: list[str]) -> Callable[[], int]:
    return lambda: sum(row.state in ("done", "failed") for row in ledger.rows(keys).values())


def write_slurm_script(driver: Driver, path: Path, command: list[str]) -> int:
    """Write the script and say how to use it."""
    grid, plan = driver.grid, driver.grid.plan
    rungs = [*(plan.halving.rungs if plan.halving else ()), plan.seeds]
    lengths = [("grow", len(grid.grown())), ("search", len(grid.searches()))]
    per_seed = len(list(grid.pairs()))
    lengths += [(f"runs_to_{until}", per_seed * (until - since)) for since, until in zip([0, *rungs], rungs)]
    stages, first = [], 0
    for name, length in lengths:
        if length:
            stages.append((name, first, first + length - 1))
        first += length
    path.write_text(slurm_script(command, stages), encoding="utf-8")
    print(f"{first} runs; submit them with: sh {path} [options of sbatch]", file=sys.stderr)
    return 0


def command_words(words: Sequence[str]) -> list[str]:
    """The command line that makes and repeats a ranking."""
    kept, skip = [], False
    for word in words:
        name = word.partition("=")[0]
        if skip:
            skip = False
        elif name in NOT_REPEATED_WITH_VALUE:
            skip = "=" not in word
        elif name not in NOT_REPEATED:
            kept.append(word)
    return ["tools/rank_backbones.py", *kept]
