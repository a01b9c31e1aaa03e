#!/usr/bin/env python
"""Memory of a run over its epochs: main process and worker, megabytes that they alone hold.

OMP_NUM_THREADS=1 python benchmarks/memory_over_epochs.py --epochs 50

A small detector, segmenter and classifier on some images of the embedded sample, as in killed_runs.py, with one worker
process for training, one for validation, and an evaluation after every epoch. Prints the unique set size (pages that no
other process shares) at every tenth epoch and its growth an epoch over the second half, by least squares. Linux alone:
it reads /proc.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from pathlib import Path

import numpy as np
from killed_runs import TASKS, task_config

from transfer import training
from transfer.cli import configure_logging
from transfer.engine.hooks import ProgressLog
from transfer.engine.train import Evaluation, Event


def unique_megabytes(process: int) -> float:
    """Pages of a process that it shares with no other, in megabytes of 1e6 bytes."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) * 1024e-6


def measured(task: str, epochs: int, images: int) -> dict[str, list[float]]:
    """Process -> megabytes after every epoch's evaluation."""
    sizes: dict[str, list[float]] = {}

    class Watching(ProgressLog):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, Evaluation):
                children = sorted(child.pid or 0 for child in multiprocessing.active_children())
                for name, process in zip(("main", "worker 1", "worker 2"), (os.getpid(), *children)):
                    sizes.setdefault(name, []).append(unique_megabytes(process))

    config = task_config(task, images, workers=1)
    config["training"].update(epochs=epochs, pictures=4)
    training.ProgressLog = Watching  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        training.run(config, name="run", work_dir=Path(folder), device="cpu")
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    options = parser.parse_args()
    configure_logging(is_main=False)
    shown = [*range(0, options.epochs, 10), options.epochs - 1]
    print(f"| task | process | {' | '.join(f'epoch {epoch + 1}' for epoch in shown)} | MB an epoch, second half |")
    print("|---" * (len(shown) + 3) + "|", flush=True)
    for task in options.tasks:
        for name, sizes in measured(task, options.epochs, options.images).items():
            half = np.array(sizes[len(sizes) // 2 :])
            growth = np.polyfit(np.arange(len(half)), half, 1)[0]
            cells = " | ".join(f"{sizes[epoch]:.0f}" for epoch in shown)
            print(f"| {task} | {name} | {cells} | {growth:+.2f} |", flush=True)


if __name__ == "__main__":
    main()
