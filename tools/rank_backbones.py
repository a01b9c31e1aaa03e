#!/usr/bin/env python
"""Which backbone transfers best: tools/rank_backbones.py RANKING [--seeds N] [--data TASK=ROOT ...] ...

RANKING is a file of configs/rank/, or your own: see transfer/ranking/plan.py for its form. Every backbone is trained on
every task at every seed, at its own lr; after an interruption, the same command goes on. Leaves ranking.json and the
report in WORK_DIR/EXPERIMENT/.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Rank backbones by what they are worth to tasks, with certainty.")
    parser.add_argument("ranking", help="a file of configs/rank/, or your own")
    parser.add_argument(
        "--data", nargs="+", default=[], metavar="TASK=ROOT", help="folders of the data, also as TASK.train=ROOT"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="for every task, as training.epochs=20"
    )
    parser.add_argument("--backbones", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N - 1, instead of the ranking's")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: 1, or as many as GPUs allow)")
    parser.add_argument("--retries", type=int, default=2, metavar="N", help="of a run that crashed (default: 2)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/experiments"), help="of all experiments")
    parser.add_argument("--report-only", action="store_true", help="of the runs that there are")
    parser.add_argument("--only", type=int, metavar="INDEX", help="make this run of the grid alone, and do not report")
    parser.add_argument(
        "--slurm-script", type=Path, metavar="FILE", help="write a script that submits the grid to Slurm"
    )
    parser.add_argument("--cluster", choices=("ray",), help="make the runs as tasks of a Ray cluster")
    parser.add_argument("--address", help="of the Ray cluster (default: RAY_ADDRESS, or a Ray of its own)")
    parser.add_argument(
        "--gpus-per-run", type=float, metavar="N", help="on the cluster (default: 1 where there are any)"
    )
    arguments = parser.parse_args()
    for name, least in (("seeds", 1), ("jobs", 1), ("retries", 0), ("only", 0), ("gpus_per_run", 0)):
        if getattr(arguments, name) is not None and getattr(arguments, name) < least:
            parser.error(f"--{name.replace('_', '-')} {getattr(arguments, name)}: give {least} or more")
    return arguments


def main(arguments: argparse.Namespace) -> int:
    """Rank, and return the exit code."""
    from transfer.cli import configure_logging
    from transfer.ranking_run.command import rank

    configure_logging()
    return rank(arguments)


if __name__ == "__main__":
    parsed = parse_arguments()
    from transfer.cli import run

    run(lambda: main(parsed))
