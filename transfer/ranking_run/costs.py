"""What one backbone costs in one task: a run of the ledger, alone on the machine.

A few steps on the task's own batches, which are read beforehand: forward, backward and the optimizer's step in
training; forward and postprocess in testing. Images per second are medians over steps, after one that does not count.

Peak memory is that of the training steps, with the model, its gradients, the optimizer and a batch. On CUDA it is what
torch had allocated at most; on a CPU, by how much the process's resident memory rose above where it stood before the
model was built (the process is forked from one that has loaded the libraries already).
"""

from __future__ import annotations

import copy
import gc
import itertools
import logging
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from transfer.assemble import build_run
from transfer.build import Node
from transfer.engine.distributed import World, choose_device
from transfer.engine.train import Run
from transfer.engine.workers import batches_of, end_workers, in_use
from transfer.ranking_run.checking import without_weights
from transfer.ranking_run.side_run import leave
from transfer.types import Batch

logger = logging.getLogger("trickstack")

STEPS = 4
"""The first of which does not count."""
ON_CUDA = "CUDA: most that torch had allocated"
ON_CPU = "CPU: rise of the process's resident memory over what it held before the model was built"


def run(config: Node, *, name: str, work_dir: Path, device: str, resume: str | None) -> bool:
    """Measure; see `transfer.experiments.description.Description.runner`, and `transfer.ranking_run.forecasts.run`.

    Args:
        config: "config", of the backbone on the task.
        name: of the run's directory.
        work_dir: holds the runs' directories.
        device: "auto", "cpu", "cuda", "cuda:N".
        resume: not read.
    """
    here = World(0, 1, choose_device(device))
    config = copy.deepcopy(config["config"])  # the run's description must not change
    without_weights(config["model"])  # they change no figure, and need not be there yet
    on_cuda = here.device.type == "cuda"
    gc.collect()
    held = _start_counting(on_cuda)
    started, evaluator, _ = build_run(config, here)
    training = training_speed(started)
    peak = _peak(on_cuda) - held
    testing = inference_speed(evaluator, started)
    end_workers(evaluator.loader)
    cost = {
        "parameters": sum(parameter.numel() for parameter in started.task.model.parameters()),
        "training_images_per_second": training,
        "inference_images_per_second": testing,
        "peak_memory_mb": peak / 1e6,
        "device": torch.cuda.get_device_name(here.device) if on_cuda else f"cpu, {torch.get_num_threads()} threads",
    }
    logger.info("%s: %s", name, cost)
    return leave(work_dir, name, {"cost": cost, "peak": ON_CUDA if on_cuda else ON_CPU})


def training_speed(run: Run) -> float:
    """Images per second of training steps."""
    model, accumulate = run.task.model, run.settings.accumulate
    model.train()
    with batches_of(run.batches(0)) as batches:
        read = list(itertools.islice(batches, STEPS * accumulate))
    steps = [read[place : place + accumulate] for place in range(0, len(read), accumulate)]

    def step(micro_batches: list[Batch]) -> None:
        for batch in micro_batches:
            with run.precision.autocast():
                losses = run.task.losses(model, batch.to(run.world.device))
                loss = run.penalty(run.settings.flooded(torch.stack(list(losses.values())).sum())) / accumulate
            run.precision.backward(loss)
        run.precision.step(run.optimizer, max_norm=run.settings.clip_norm)
        run.optimizer.zero_grad(set_to_none=True)

    return _speed(step, steps, lambda each: sum(len(batch.targets) for batch in each), run.world.device)


def inference_speed(evaluator: Any, run: Run) -> float:
    """Images per second of predictions."""
    run.task.model.eval()
    with in_use(evaluator.loader):
        read = list(itertools.islice(evaluator.loader, STEPS))

    def predict(batch: Any) -> None:
        evaluator.task.predict(run.task.model, batch.to(run.world.device))

    return _speed(predict, read, lambda batch: len(batch.targets), run.world.device)


def _speed(act: Callable[[Any], None], given: list[Any], count: Callable[[Any], int], device: torch.device) -> float:
    """Median images per second, the first not counted; of a single one, itself.

    On one thread of a CPU by the time that this process had: runs beside it, and other load, would make some backbones
    look slower than others.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    speeds = []
    for each in given:
        began = clock()
        act(each)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        speeds.append(count(each) / (clock() - began))
    return statistics.median(speeds[1:] or speeds)


def _start_counting(on_cuda: bool) -> int:
    """Set the high-water mark back where that can be done; returns the bytes held now."""
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
        return 0
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM
    return _status("VmRSS") or _most_resident()


def _peak(on_cuda: bool) -> int:
    """Bytes held at most since `_start_counting`."""
    return torch.cuda.max_memory_allocated() if on_cuda else _status("VmHWM") or _most_resident()


def _status(key: str) -> int:
    """Bytes by Linux's account of this process; 0 where there is none."""
    with suppress(OSError):
        lines: Iterable[str] = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        for line in lines:
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0


def _most_resident() -> int:
    """Bytes by getrusage, which has never less than the most so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
