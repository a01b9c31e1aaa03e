#!/usr/bin/env python
"""What training.channels_last brings: training steps with maps stored pixel by pixel beside channel by channel.

OMP_NUM_THREADS=1 python benchmarks/channels_last.py

The tasks and batches of step_overhead.py. Two models of the same values take steps in turn: forward pass, the
criterion's losses, backward pass and the optimizer's step. Process time on one thread.
"""

from __future__ import annotations

import copy
import statistics
from functools import partial

import torch
from comparison import Result, Row, benchmark_parser, in_turn, one_thread, ratio_of, report, versions_of
from step_overhead import TASKS, prepared
from torch import nn

from transfer.engine.train import Run
from transfer.types import Batch


def step(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """One optimizer step of a model of the run's task."""
    torch.manual_seed(0)
    torch.stack(list(run.task.losses(model, batch).values())).sum().backward()
    run.precision.step(optimizer, max_norm=run.settings.clip_norm)
    optimizer.zero_grad(set_to_none=True)


def result(*, quick: bool) -> Result:
    """One row a task."""
    one_thread()
    rows = []
    for name, (config, _, _) in TASKS.items():
        run, same = prepared(name, 0)
        models = {layout: copy.deepcopy(run.task.model) for layout in (torch.contiguous_format, torch.channels_last)}
        runs = {}
        for layout, model in models.items():
            model.train().to(memory_format=layout)
            optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], fused=True)
            runs[str(layout)] = partial(step, run, model, optimizer, same.batch)
        times = in_turn(runs, rounds=2 if quick else 5)
        by_channel, by_pixel = times.values()
        ratio, spread = ratio_of(by_channel, by_pixel)
        height, width = same.batch.images.shape[2:]
        rows.append(
            Row(
                key="training.channels_last",
                what=f"{name}, {config.removesuffix('.py')}, {len(same.batch.images)} images of {height}x{width}, step",
                ours=f"channels_last {statistics.median(by_pixel):.3f} s",
                beside=f"off {statistics.median(by_channel):.3f} s",
                ratio=ratio,
                spread=spread,
            )
        )
    return Result(rows, versions_of("torch", "timm"))


def main() -> None:
    options = benchmark_parser(__doc__).parse_args()
    report(result(quick=options.quick), options)


if __name__ == "__main__":
    main()
