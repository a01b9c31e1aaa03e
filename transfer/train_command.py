"""The command line of training, the same for every task; the tools name the task."""

from __future__ import annotations

import argparse
import logging
import re
import time
from pathlib import Path

PURPOSES = {"detection": "a detector", "segmentation": "a segmenter", "classification": "a classifier"}
TOOLS = {
    "detection": "tools/train_det.py",
    "segmentation": "tools/train_seg.py",
    "classification": "tools/train_cls.py",
}


def parse_arguments(task: str) -> argparse.Namespace:
    """The arguments of the command; imports nothing slow, so --help need not wait.

    Args:
        task: "detection", "segmentation" or "classification".
    """
    parser = argparse.ArgumentParser(description=f"Train {PURPOSES[task]} from a config.")
    parser.add_argument("config", help="a file of configs/, or your own")
    parser.add_argument("--data", metavar="ROOT", help="folder of the data set, instead of the config's")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override existing keys, as optimizer.lr=0.01"
    )
    parser.add_argument("--seed", type=int, help="instead of training.seed")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--work-dir", default="runs", help="runs are numbered below WORK_DIR/CONFIG_NAME/")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        metavar="CHECKPOINT",
        help="go on with the latest run; or with a checkpoint; or, with 'auto', with the newest run, begin one where "
        "there is nothing to go on with, and leave one alone that is at its end",
    )
    parser.add_argument(
        "--time-limit",
        type=_seconds,
        metavar="H:MM:SS",
        help="after this time the run saves, stops and exits with 0; go on with --resume",
    )
    return parser.parse_args()


def _seconds(text: str) -> float:
    """ "1:30:00", "90:00" or "5400" to seconds."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(re.fullmatch(r"[0-9]+", part) for part in parts) or not any(map(int, parts)):
        raise argparse.ArgumentTypeError(f"{text!r} must be a time above 0 as H:MM:SS, MM:SS or seconds")
    return float(sum(int(part) * 60**power for power, part in enumerate(reversed(parts))))


def main(arguments: argparse.Namespace, task: str) -> int:
    """Train, and return the exit code.

    Raises:
        UserError: what the user can mend, a config of another task among it.
    """
    deadline = None if arguments.time_limit is None else time.monotonic() + arguments.time_limit
    from transfer import training
    from transfer.assemble import set_data_root, task_name
    from transfer.build import apply_override, load_config
    from transfer.cli import configure_logging
    from transfer.engine.launch import launched_place
    from transfer.engine.train import Ending
    from transfer.types import UserError

    configure_logging(is_main=launched_place().rank == 0)
    config = load_config(arguments.config, arguments.cfg_options)
    if (other := task_name(config)) != task:
        raise UserError(f"config {arguments.config}: its task is {other}; run {TOOLS[other]} {arguments.config}")
    if arguments.seed is not None:
        apply_override(config, f"training.seed={arguments.seed}")
    if arguments.data is not None:
        set_data_root(config, arguments.data)
    ending = training.run(
        config,
        name=Path(arguments.config).stem,
        work_dir=Path(arguments.work_dir),
        device=arguments.device,
        resume=arguments.resume,
        deadline=deadline,
    )
    if ending is not Ending.FINISHED:
        logging.getLogger("trickstack").info("%s; go on with the same command and --resume", ending.value)
    return 130 if ending is Ending.INTERRUPTED else 0
