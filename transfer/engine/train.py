"""The training loop, from top to bottom.

One iteration is one optimizer step. Everything random in it follows from (seed, iteration, rank): the batches from
their requests, the model's own draws (dropout) from a seed set at each step. So a run goes on from any checkpoint as if
it had not stopped, and nothing of a random generator's state needs keeping.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from transfer.engine.checkpoint import Checkpoint
from transfer.engine.distributed import World
from transfer.engine.early_stopping import EarlyStopping
from transfer.engine.settings import TrainingSettings
from transfer.engine.task import DetectionTask
from transfer.engine.workers import batches_of
from transfer.optim.ema import EMA
from transfer.optim.precision import Precision
from transfer.optim.schedules import Schedule, set_lr
from transfer.types import Batch, RefusedCheckpoint, UserError

logger = logging.getLogger("trickstack")


class MetricLike(Protocol):
    """What an evaluation gives: see `transfer.metrics.result.MetricResult`."""

    protocol: str
    main: str
    values: dict[str, float]
    per_class: dict[str, dict[str, float]]

    def table(self) -> str: ...


@dataclass(slots=True)
class Step:
    """An event: an optimizer step was taken."""

    iteration: int
    """Steps done, this one included."""
    total: int
    per_epoch: int
    images: int
    """Of the global batch."""
    losses: dict[str, float]
    lr: float
    grad_norm: float | None
    seconds: float
    loader_seconds: float
    """Of `seconds`, spent waiting for data."""
    dropped: dict[str, int]
    skipped_files: list[str]
    skipped_step: bool


@dataclass(slots=True)
class Evaluation:
    """An event: the model was measured."""

    iteration: int
    total: int
    per_epoch: int
    results: Sequence[MetricLike]
    is_best: bool
    is_last: bool = False
    """Whether the run ends here: at its length, or stopped early."""


@dataclass(slots=True)
class Saving:
    """An event: the run's state is to be kept."""

    checkpoint: Checkpoint
    is_best: bool


Event = Step | Evaluation | Saving
Hook = Callable[[Event], None]


class Ending(enum.Enum):
    """How `train` ended: true where the run came to its end; else its state is saved, and it can go on."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    OUT_OF_TIME = "out of time"

    def __bool__(self) -> bool:
        return self is Ending.FINISHED


@dataclass(kw_only=True)
class Run:
    """All that a run is made of, and how far it has come."""

    task: DetectionTask
    batches: Callable[[int], Iterable[Batch]]
    """From an iteration to the rest of the run's micro-batches."""
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    precision: Precision
    ema: EMA | None
    settings: TrainingSettings
    world: World
    per_epoch: int
    """Optimizer steps of an epoch."""
    track_best: bool
    """Whether evaluations are on validation data, so that "best" may be chosen by them."""
    facts: Checkpoint
    """What a checkpoint says besides the state: config, class names, backbone, versions."""
    iteration: int = 0
    best: float | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    penalty: Callable[[Tensor], Tensor] = field(default=lambda loss: loss)
    """Adds to the total loss of a micro-batch what does not depend on its images: `training.l1`."""
    stopping: EarlyStopping | None = None
    measured_at: int = 0
    """Iteration of the last evaluation: one that an interruption left out is made up for."""
    deadline: float | None = None
    """Of `time.monotonic`: the run saves and stops at the first step that ends beyond it. None: no limit."""
    measuring_seconds: float = 0.0
    """What the last evaluation took, on this process since its start."""

    @property
    def total(self) -> int:
        """Optimizer steps of the whole run."""
        return self.settings.total(self.per_epoch)

    @property
    def is_over(self) -> bool:
        """Whether no step is left: the length is reached, or the figure no longer rises."""
        return self.iteration >= self.total or (self.stopping is not None and self.stopping.stopped)

    def state(self) -> Checkpoint:
        """The checkpoint of this moment."""
        return {
            **self.facts,
            "model": self.task.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.state_dict(),
            "schedule": self.schedule.state_dict(),
            "early_stopping": None if self.stopping is None else self.stopping.state_dict(),
            "iteration": self.iteration,
            "best": self.best,
            "metrics": self.metrics,
            "measured_at": self.measured_at,
            "seed": self.settings.seed,
            "world_size": self.world.size,
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same run.

        Raises:
            RefusedCheckpoint: it is of another model, seed or number of processes.
        """
        if checkpoint.get("averaged"):
            raise RefusedCheckpoint(
                "--resume: this is a mean of checkpoints, which no training can go on from; take one of them"
            )
        if checkpoint["seed"] != self.settings.seed or checkpoint["world_size"] != self.world.size:
            raise RefusedCheckpoint(
                f"--resume: the checkpoint has seed {checkpoint['seed']} and {checkpoint['world_size']} processes, "
                f"this run {self.settings.seed} and {self.world.size}; the batches would not be the same ones"
            )
        if (checkpoint["ema"] is None) != (self.ema is None):
            raise RefusedCheckpoint("--resume: training.ema was switched since the checkpoint was written")
        try:
            self.task.model.load_state_dict(checkpoint["model"])
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            if self.ema is not None:
                self.ema.load_state_dict(checkpoint["ema"])
            self.precision.load_state_dict(checkpoint["scaler"])
            self.schedule.load_state_dict(checkpoint.get("schedule", {}))
            if self.stopping is not None and checkpoint.get("early_stopping") is not None:
                self.stopping.load_state_dict(checkpoint["early_stopping"])
        except UserError as error:
            raise RefusedCheckpoint(str(error)) from error
        except Exception as error:  # a state that nobody checked when it was written may fail anywhere
            what = "--resume: the checkpoint is of another model, optimizer or schedule"
            raise RefusedCheckpoint(f"{what}: {type(error).__name__}: {error}") from error
        self.iteration, self.best = checkpoint["iteration"], checkpoint["best"]
        self.metrics, self.measured_at = checkpoint["metrics"], checkpoint["measured_at"]


def train(run: Run, evaluate: Callable[[nn.Module], Sequence[MetricLike]], hooks: Sequence[Hook]) -> Ending:
    """Run to the end, or until interrupted or out of time.

    Args:
        run: what to train; its `iteration` says where to begin.
        evaluate: from a model in eval mode to results; the first one's main figure decides on "best".
        hooks: told of every event, in order. Only process 0 is told of `Saving` and `Evaluation`.

    A module of the model that has `set_progress` (DropBlock) is told before each step what share of the run is done.

    Returns:
        How it ended.
    Raises:
        UserError: a loss that is not a number, with the batch's files; a worker process that died.
    """
    settings, world = run.settings, run.world
    model = run.task.model
    if settings.channels_last:
        for module in (model,) if run.ema is None else (model, run.ema.module):
            module.to(memory_format=torch.channels_last)
    network = (
        model
        if world.size == 1
        else DistributedDataParallel(
            model,
            device_ids=[world.device.index] if world.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
        )
    )
    model.train()
    growing: list[Any] = [module for module in model.modules() if hasattr(module, "set_progress")]

    with _interruption() as interrupted, batches_of(run.batches(run.iteration)) as micro_batches:
        if _is_due(run, settings.evaluate_every) and run.measured_at < run.iteration:
            _measure(run, evaluate, hooks)  # was interrupted here
        while not run.is_over:
            # 1. The lr, the strength of what grows, and the model's own random draws follow from the iteration.
            set_lr(run.optimizer, run.schedule.factor(run.iteration, total=run.total, per_epoch=run.per_epoch))
            for module in growing:
                module.set_progress(run.iteration / run.total)
            torch.manual_seed(_step_seed(settings.seed, run.iteration, world.rank))

            # 2. Forward and backward, once a micro-batch; gradients are averaged over processes with the last.
            step = _Tally(time.perf_counter())
            for micro in range(settings.accumulate):
                batch = step.fetch(micro_batches).to(world.device)
                with _only_last_synchronizes(network, micro, settings.accumulate):
                    with run.precision.autocast():
                        losses = run.task.losses(network, batch)
                        loss = run.penalty(settings.flooded(torch.stack(list(losses.values())).sum()))
                        loss = loss / settings.accumulate
                    step.begin_copy(losses)
                    run.precision.backward(loss)
                step.finish_copy(batch, run.iteration)

            # 3. The optimizer step.
            result = run.precision.step(run.optimizer, max_norm=settings.clip_norm)
            run.optimizer.zero_grad(set_to_none=True)
            if result.skipped and run.precision.mode != "float16":  # there, overflow is part of finding the scale
                raise UserError(
                    f"iteration {run.iteration}: a gradient is infinite or not a number, though every loss is finite. "
                    f"The step's files: {', '.join(step.files)}. The usual cause: lr too high (lower optimizer.lr)"
                )
            if run.ema is not None and not result.skipped:
                run.ema.update(model)
            run.iteration += 1

            # 4. Tell, measure, keep.
            event = step.event(run, None if result.grad_norm is None else float(result.grad_norm), result.skipped)
            for hook in hooks:
                hook(event)
            measuring = _is_due(run, settings.evaluate_every)
            ending = _early_ending(run, interrupted(), to_come=run.measuring_seconds if measuring else 0.0)
            if ending is not None or measuring or _is_due(run, settings.checkpoint_every):
                _tell(world, hooks, lambda: Saving(run.state(), is_best=False))  # before measuring, which takes long
            if ending is not None:
                return ending
            if measuring:
                _measure(run, evaluate, hooks)
        # What comes after, the test set, may take long, too.
        ending = _early_ending(run, interrupted(), to_come=0.0)
    return Ending.FINISHED if ending is None else ending


def _early_ending(run: Run, interrupted: bool, *, to_come: float) -> Ending | None:
    """Whether the run is to stop here, the same on every process; `to_come`: seconds until it can be asked again."""
    if run.world.any(interrupted):
        return Ending.INTERRUPTED
    if run.deadline is not None and run.world.any(time.monotonic() + to_come >= run.deadline):
        return Ending.OUT_OF_TIME
    return None


def _is_due(run: Run, epochs: float) -> bool:
    """Whether something that happens every so many epochs (0: at the end only) happens after this iteration."""
    every = max(1, round(epochs * run.per_epoch)) if epochs else run.total
    return run.iteration == run.total or run.iteration % every == 0


def evaluated(run: Run, evaluate: Callable[[nn.Module], Sequence[MetricLike]]) -> Sequence[MetricLike]:
    """The results of the average where there is one, else of the model; on every process. The run stays as it is."""
    measured = run.task.model if run.ema is None else run.ema.module
    measured.eval()
    run.world.share_buffers(measured)
    results = evaluate(measured)
    run.task.model.train()
    return results


def _measure(run: Run, evaluate: Callable[[nn.Module], Sequence[MetricLike]], hooks: Sequence[Hook]) -> None:
    """Evaluate the average where there is one, else the model, and keep the state."""
    started = time.monotonic()
    results = evaluated(run, evaluate)
    is_best, run.measured_at = False, run.iteration
    if results:
        run.metrics = [{"protocol": r.protocol, "main": r.main, "values": dict(r.values)} for r in results]
        figure = results[0].values[results[0].main]
        if run.track_best:
            run.schedule.tell(figure, iteration=run.iteration, total=run.total, per_epoch=run.per_epoch)
            if run.stopping is not None and run.stopping.tell(figure):
                logger.info("early stopping: %d evaluations without improvement", run.stopping.stale)
        is_best = run.track_best and figure > (-np.inf if run.best is None else run.best)  # NaN is never best
        run.best = figure if is_best else run.best
        event = Evaluation(run.iteration, run.total, run.per_epoch, results, is_best, run.is_over)
        _tell(run.world, hooks, lambda: event)
    _tell(run.world, hooks, lambda: Saving(run.state(), is_best))
    run.measuring_seconds = time.monotonic() - started


def _tell(world: World, hooks: Sequence[Hook], make_event: Callable[[], Event]) -> None:
    if world.is_main:
        event = make_event()
        for hook in hooks:
            hook(event)


class _Tally:
    """What one step adds up to, over its micro-batches."""

    def __init__(self, started: float) -> None:
        self.started, self.loader_seconds, self.images = started, 0.0, 0
        self.losses: dict[str, float] = {}
        self.dropped: dict[str, int] = {}
        self.skipped_files: list[str] = []
        self.files: list[str] = []

    def fetch(self, micro_batches: Iterator[Batch]) -> Batch:
        """The next micro-batch, timed."""
        started = time.perf_counter()
        batch = next(micro_batches)
        self.loader_seconds += time.perf_counter() - started
        self.images += len(batch.targets)
        self.skipped_files += batch.skipped
        self.files += [f"{target.path} (seed {target.seed})" for target in batch.targets]
        for name, count in batch.dropped.items():
            self.dropped[name] = self.dropped.get(name, 0) + count
        return batch

    def begin_copy(self, losses: dict[str, Tensor]) -> None:
        """Start to copy the losses to the host, so that a GPU need not wait for it before the backward pass."""
        self.names = list(losses)
        self.on_host = torch.stack([loss.detach().float() for loss in losses.values()]).to("cpu", non_blocking=True)
        self.copied = torch.cuda.Event() if next(iter(losses.values())).is_cuda else None
        if self.copied is not None:
            self.copied.record()

    def finish_copy(self, batch: Batch, iteration: int) -> None:
        """Add the losses. Raises: UserError where one is not a finite number, before any weight has changed."""
        if self.copied is not None:
            self.copied.synchronize()
        values = dict(zip(self.names, self.on_host.tolist()))
        wrong = [f"{name}={value}" for name, value in values.items() if not np.isfinite(value)]
        if wrong:
            files = ", ".join(f"{target.path} (seed {target.seed})" for target in batch.targets)
            raise UserError(
                f"iteration {iteration}: {', '.join(wrong)}. The batch's files: {files}. The usual causes: lr too high "
                "(lower optimizer.lr or lengthen the warm-up), no training.clip_norm, boxes that are wrong"
            )
        for name, value in values.items():
            self.losses[name] = self.losses.get(name, 0.0) + value

    def event(self, run: Run, grad_norm: float | None, skipped: bool) -> Step:
        """The step as an event; losses are means over the micro-batches of this process."""
        return Step(
            iteration=run.iteration,
            total=run.total,
            per_epoch=run.per_epoch,
            images=self.images * run.world.size,
            losses={name: value / run.settings.accumulate for name, value in self.losses.items()},
            lr=max(group["lr"] for group in run.optimizer.param_groups),
            grad_norm=grad_norm,
            seconds=time.perf_counter() - self.started,
            loader_seconds=self.loader_seconds,
            dropped=self.dropped,
            skipped_files=self.skipped_files,
            skipped_step=skipped,
        )


def _step_seed(seed: int, iteration: int, rank: int) -> int:
    """A seed for torch's generators that differs for every step and process."""
    return int(np.random.SeedSequence([seed, iteration, rank]).generate_state(1, np.uint64)[0] >> 1)


def _only_last_synchronizes(network: nn.Module, micro: int, count: int) -> contextlib.AbstractContextManager[Any]:
    if isinstance(network, DistributedDataParallel) and micro < count - 1:
        return network.no_sync()
    return contextlib.nullcontext()


@contextlib.contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask the loop to save and stop after the step at hand; a second Ctrl-C stops at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True
        logger.warning("stopping after the step (or evaluation) at hand, with a checkpoint; Ctrl-C again stops at once")

    former = {}
    with contextlib.suppress(ValueError):  # not in the main thread: signals stay with whoever owns them
        for number in (signal.SIGINT, signal.SIGTERM):
            former[number] = signal.signal(number, ask)
    try:
        yield lambda: asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
