#!/usr/bin/env python
"""What each trick gives: tools/ablate.py ABLATION [--seeds N] [--mode ladder|each|all-but-one] [--data ROOT] ...

ABLATION is a file of configs/ablations/, or your own: see transfer/experiments/ladder.py for its form. Every arm is
trained at every seed; after an interruption, the same command goes on. Leaves report.md, results.json and gains.png in
WORK_DIR/EXPERIMENT/, and says "no evidence" where the runs prove nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfer.experiments.ladder import Arm


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a baseline and its tricks over seeds, and say what is proven.")
    parser.add_argument("ablation", help="a file of configs/ablations/, or your own")
    parser.add_argument("--config", metavar="BASE", help="config to change, instead of the ablation's")
    parser.add_argument("--data", metavar="ROOT", help="folder of the data set, instead of the config's")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="for every arm, as training.epochs=20"
    )
    parser.add_argument("--mode", choices=("ladder", "each", "all-but-one"), default="ladder")
    parser.add_argument("--arms", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N - 1 (default: 3)")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: 1, or as many as GPUs allow)")
    parser.add_argument("--retries", type=int, default=2, metavar="N", help="of a run that crashed (default: 2)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/experiments"), help="of all experiments")
    parser.add_argument("--report-only", action="store_true", help="of the runs that there are")
    arguments = parser.parse_args()
    for name, least in (("seeds", 1), ("jobs", 1), ("retries", 0)):
        if getattr(arguments, name) is not None and getattr(arguments, name) < least:
            parser.error(f"--{name} {getattr(arguments, name)}: give {least} or more")
    return arguments


def main(arguments: argparse.Namespace) -> int:
    """Make the runs that are missing, report, and return the exit code."""
    from transfer.cli import configure_logging
    from transfer.experiments.experiment import experiment_of, usable_gpus
    from transfer.experiments.ladder import choose, configs_of, plan, read_ablation
    from transfer.experiments.report import summarize
    from transfer.types import UserError

    configure_logging()
    ablation, gpus = read_ablation(arguments.ablation), usable_gpus(arguments.device)
    base = base_of(arguments, ablation.base)
    planned = plan(ablation, arguments.mode, len(gpus))
    rungs = [rung for rung in ablation.rungs if rung.name not in planned.not_applicable]
    if arguments.arms:
        planned = choose(planned, arguments.arms)
    configs = configs_of(baseline_of(arguments, base, ablation.baseline), planned.arms, rungs)
    names = (Path(arguments.ablation).stem, Path(base).stem)
    processes = {arm.name: arm.processes for arm in planned.arms}
    experiment = experiment_of(
        [*names, arguments.mode], arguments.work_dir, configs, arguments.seeds, processes=processes
    )
    finished = True
    if not arguments.report_only:
        check(planned.arms, configs, on_gpu=bool(gpus))
        finished = experiment.make(jobs=arguments.jobs, gpus=gpus, device=arguments.device, retries=arguments.retries)
    rows = experiment.rows()
    if not rows:
        raise UserError(
            f"--report-only: {str(arguments.work_dir)!r} has no run of this ablation with these options; leave it away"
        )
    report = summarize(
        f"{names[0]} on {names[1]}, {arguments.mode}",
        {"command": command(), "base": base, "test data": str(configs[planned.arms[0].name]["data"]["test"])},
        planned,
        rows,
        range(arguments.seeds),
        source=ablation.source,
        is_ladder=arguments.mode == "ladder",
    )
    print(experiment.write(report))
    print(f"experiment directory {experiment.folder}", file=sys.stderr)
    return int(any(row.state == "failed" for row in rows.values())) if finished else 130


def base_of(arguments: argparse.Namespace, base: str | None) -> str:
    """Path of the config to change: from the current folder, or from the ablation's."""
    from transfer.types import UserError

    path = arguments.config or base
    if path is None:
        raise UserError(f"{arguments.ablation} names no base: give --config")
    beside = Path(arguments.ablation).parent / path
    return str(beside) if not Path(path).is_file() and beside.is_file() else str(path)


def baseline_of(arguments: argparse.Namespace, path: str, changes: Sequence[str]) -> dict[str, Any]:
    """The config of the baseline: the base, what makes it the baseline, and the command's options."""
    from transfer.assemble import set_data_root
    from transfer.build import load_config
    from transfer.experiments.ladder import changed

    config = changed(load_config(path), changes, "baseline")
    if arguments.data is not None:
        set_data_root(config, arguments.data)
    return changed(config, arguments.cfg_options, "--cfg-options")


def check(arms: Sequence[Arm], configs: Mapping[str, dict[str, Any]], *, on_gpu: bool) -> None:
    """Build everything of every arm once, without weights, so that a mistake is found before anything runs.

    Raises:
        UserError: with all that is wrong.
    """
    import copy
    import logging

    import torch

    from backbones.contract import BackboneError
    from transfer.assemble import build_run
    from transfer.engine.distributed import World
    from transfer.types import UserError

    logger = logging.getLogger("trickstack")
    logger.info("checking %d arms", len(arms))
    problems: dict[str, list[str]] = {}
    logger.setLevel(logging.ERROR)
    for arm in arms:
        config = copy.deepcopy(configs[arm.name])
        without_weights(config["model"])
        if on_gpu:
            config["training"]["precision"] = "float32"  # the CPU it is built on may not have the run's
        try:
            build_run(config, World(0, arm.processes, torch.device("cpu")))
        except (UserError, BackboneError) as error:
            problems.setdefault(str(error), []).append(arm.name)
    logger.setLevel(logging.INFO)
    if problems:
        raise UserError("\n".join(f"{', '.join(names)}: {problem}" for problem, names in problems.items()))


def without_weights(node: Any) -> None:
    """Let a config's model be built with random weights, in place."""
    if isinstance(node, dict):
        if "weights" in node:
            node["weights"] = None
        for value in node.values():
            without_weights(value)


def command() -> str:
    """The command line, to be given again."""
    import shlex

    return f"tools/ablate.py {shlex.join(word for word in sys.argv[1:] if word != '--report-only')}"


if __name__ == "__main__":
    parsed = parse_arguments()
    from transfer.cli import run

    run(lambda: main(parsed))
