#!/usr/bin/env python
"""What a training step costs above its network: targets, losses, optimizer, logging.

OMP_NUM_THREADS=1 python benchmarks/step_overhead.py

The training loop itself runs (`transfer.engine.train.train`, with the hooks that a run on a disk has) on one batch of
the embedded sample that it is handed again and again. Before each step the bare network runs on the same batch: the
model's forward pass as in training, and the backward pass of the sum of its raw outputs. The ratio is one whole turn
of the loop, from a batch to the next, over that. Of Faster R-CNN, proposals and the sampling of regions are network,
as they happen in its forward pass. Configs, batch and precision are those of the sample's recipes, without the moving
average of weights; only the classifier's images are larger. Process time on one thread, loading left out.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from comparison import Result, Row, Times, benchmark_parser, one_thread, ratio_of, report, versions_of
from torch import nn

from transfer.assemble import build_run
from transfer.build import load_config
from transfer.engine.distributed import World
from transfer.engine.hooks import MetricsFile, ProgressLog, TensorBoard
from transfer.engine.train import Run, train
from transfer.types import Batch

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
TASKS: dict[str, tuple[str, tuple[str, ...], float]] = {
    "YOLOv3": ("sample_yolov3_lite0.py", (), 1.05),
    "FCN": ("sample_fcn_lite0.py", (), 1.05),
    "classifier": ("sample_cls_lite0.py", ("augment.train.size=224", "loader.batch_size=8"), 1.05),
    "Faster R-CNN": ("sample_frcnn_lite0.py", (), 1.15),
}
"""Name -> config, what is changed in it, and the ratio that was aimed at."""
OUTPUTS = {
    "YOLOv3": ("raw",),
    "FCN": ("logits", "auxiliary"),
    "classifier": ("logits",),
    "Faster R-CNN": ("objectness", "anchor_deltas", "class_logits", "box_deltas"),
}
WARM_UP = 2


class SameBatch:
    """Hands the loop one batch again and again; before each runs something else, and times both.

    Args:
        run: whose `batches` this is to be.
        batch: of its loader.
        beside: what is compared with a turn of the loop.
        turns: how many are timed; the run then stops with the next step.
    """

    def __init__(self, run: Run, batch: Batch, beside: Callable[[], None], turns: int) -> None:
        self.run, self.batch, self.beside, self.turns = run, batch, beside, turns
        self.times: Times = {"step": [], "beside": []}

    def __call__(self, iteration: int) -> Iterator[Batch]:
        """What `Run.batches` is."""
        while True:
            if len(self.times["step"]) == self.turns:
                self.run.deadline = 0.0
            started = time.process_time()
            self.beside()
            ended = time.process_time()
            yield self.batch
            self.times["step"].append(time.process_time() - ended)
            self.times["beside"].append(ended - started)


def trained(run: Run) -> None:
    """Run to its end, with the hooks of a run on a disk."""
    with tempfile.TemporaryDirectory() as folder:
        board = TensorBoard(Path(folder) / "tensorboard", 0)
        hooks: list[Any] = [ProgressLog(run.settings.log_every), MetricsFile(Path(folder) / "metrics.jsonl", 0), board]
        train(run, lambda model: [], hooks)
        board.close()


def bare_pass(model: nn.Module, batch: Batch, outputs: Sequence[str]) -> None:
    """Forward as in training, backward of the sum of the raw outputs."""
    output = model(batch.images, [target.size for target in batch.targets], batch.targets)
    torch.stack([getattr(output, name).sum() for name in outputs]).sum().backward()
    model.zero_grad(set_to_none=True)


def prepared(name: str, turns: int) -> tuple[Run, SameBatch]:
    """A run of one batch of its own loader."""
    config, changes, _ = TASKS[name]
    node = load_config(CONFIGS / config, (*changes, "loader.workers=0", "training.ema=None"))
    run = build_run(node, World(0, 1, torch.device("cpu")))[0]
    batch = next(iter(run.batches(0)))
    same = SameBatch(run, batch, partial(bare_pass, run.task.model, batch, OUTPUTS[name]), turns)
    run.batches = same
    return run, same


def result(*, quick: bool) -> Result:
    """One row a task."""
    one_thread()
    rows = []
    for name, (config, _, target) in TASKS.items():
        run, same = prepared(name, WARM_UP + (3 if quick else 9))
        trained(run)
        times = {key: seconds[WARM_UP:] for key, seconds in same.times.items()}
        ratio, spread = ratio_of(times["step"], times["beside"])
        height, width = same.batch.images.shape[2:]
        rows.append(
            Row(
                key="training step",
                what=f"{name}, {config.removesuffix('.py')}, {len(same.batch.images)} images of {height}x{width}",
                ours=f"step {statistics.median(times['step']):.3f} s",
                beside=f"bare forward and backward {statistics.median(times['beside']):.3f} s",
                ratio=ratio,
                spread=spread,
                target=target,
                wanted="at most",
            )
        )
    return Result(rows, versions_of("torch", "timm"))


def main() -> None:
    options = benchmark_parser(__doc__).parse_args()
    report(result(quick=options.quick), options)


if __name__ == "__main__":
    main()
