"""What happens at the events of a run: log lines, progress bar, metrics.jsonl, TensorBoard, checkpoints."""

from __future__ import annotations

import json
import logging
import logging.handlers
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from transfer.engine.checkpoint import save_checkpoint
from transfer.engine.run_directory import write_text_atomically
from transfer.engine.train import Evaluation, Event, Saving, Step

logger = logging.getLogger("trickstack")


class _LogFile(logging.FileHandler):
    """A log file whose loss is told once and costs no run: the disk may be full."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")  # names of files may be any bytes
        self.failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Say it on standard error, the first time."""
        if not self.failed:
            self.failed = True
            print(f"warning: cannot write {self.baseFilename}: {sys.exc_info()[1]}", file=sys.stderr, flush=True)


@contextmanager
def logging_to_file() -> Iterator[Callable[[Path], None]]:
    """Log lines go to a file, too, while the context lasts.

    Yields:
        A function that names the file: lines from before it is called are kept and written first. This project's lines
        are kept from "info" on, whoever calls.
    """
    memory = logging.handlers.MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
    project = [logging.getLogger(name) for name in ("trickstack", "transfer", "backbones")]
    unset = [each for each in project if each.level == logging.NOTSET]
    for each in unset:
        each.setLevel(logging.INFO)
    root = logging.getLogger()
    root.addHandler(memory)
    files: list[logging.FileHandler] = []

    def begin(path: Path) -> None:
        handler = _LogFile(path)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        files.append(handler)
        memory.setTarget(handler)
        memory.flush()
        root.removeHandler(memory)
        root.addHandler(handler)

    try:
        yield begin
    finally:
        for each in unset:
            each.setLevel(logging.NOTSET)
        for handler in (memory, *files):
            root.removeHandler(handler)
            with suppress(OSError):  # of a full disk, told already
                handler.close()


def duration(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class ProgressLog:
    """A bar with the time left on a terminal; plain lines elsewhere, and in the log file always.

    Args:
        every: iterations between lines.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.bar: Any = None
        self.started: tuple[float, int] | None = None
        self.recent: list[Step] = []
        self.skipped_files = 0
        self.dropped: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        """Count a step; print at the interval and at the end."""
        if isinstance(event, Evaluation):
            self._evaluation(event)
        if not isinstance(event, Step):
            return
        if self.started is None:
            self.started = (time.perf_counter() - event.seconds, event.iteration - 1)
            if sys.stderr.isatty():
                from tqdm import tqdm

                self.bar = tqdm(total=event.total, initial=event.iteration - 1, unit="it", dynamic_ncols=True)
        self.recent.append(event)
        for file in event.skipped_files:
            self.skipped_files += 1
            logger.warning("skipped, not readable (%d so far): %s", self.skipped_files, file)
        for step, count in event.dropped.items():
            self.dropped[step] = self.dropped.get(step, 0) + count
        if event.skipped_step:
            logger.info("iteration %d: a gradient overflowed in float16, the step was skipped", event.iteration)
        if self.bar is not None:
            self.bar.update(1)
        if event.iteration % self.every == 0 or event.iteration == event.total:
            self._line(event)
        if event.iteration == event.total:
            self.close()

    def close(self) -> None:
        """Take the bar down and say what was dropped, also where a run ends before its length."""
        if self.bar is not None:
            self.bar.close()
        if self.dropped:
            counts = ", ".join(f"{name} {count}" for name, count in sorted(self.dropped.items()))
            logger.info("boxes that augmentation left nothing of, since this start: %s", counts)
            self.dropped = {}

    def _line(self, event: Step) -> None:
        assert self.started is not None
        began, first = self.started
        left = (time.perf_counter() - began) / max(event.iteration - first, 1) * (event.total - event.iteration)
        seconds = sum(step.seconds for step in self.recent)
        images = sum(step.images for step in self.recent)
        waiting = sum(step.loader_seconds for step in self.recent) / max(seconds, 1e-9)
        losses = {n: sum(s.losses[n] for s in self.recent) / len(self.recent) for n in event.losses}
        parts = " ".join(f"{name.removeprefix('loss_')} {value:.3f}" for name, value in losses.items())
        text = (
            f"epoch {event.iteration / event.per_epoch:.1f}/{event.total / event.per_epoch:.1f} "
            f"iteration {event.iteration}/{event.total} lr {event.lr:.2e} loss {sum(losses.values()):.3f} ({parts}) "
            f"{images / max(seconds, 1e-9):.1f} images/s, {waiting:.0%} waiting for data, left {duration(left)}"
        )
        logger.info(text)
        self.recent.clear()

    def _evaluation(self, event: Evaluation) -> None:
        for result in event.results:
            figures = ", ".join(f"{name} {100 * value:.2f}" for name, value in result.values.items())
            logger.info("iteration %d: %s [%s]", event.iteration, figures, result.protocol)
        if event.is_last:
            for result in event.results:
                logger.info("%s", result.table())


class MetricsFile:
    """One JSON object a line: each step, each evaluation.

    Args:
        path: metrics.jsonl; rows after `iteration` are cut off when a run goes on from a checkpoint.
        iteration: where the run begins.
        measured_at: iteration of the last evaluation that the checkpoint knows of; a later one is made again. None: all
            up to `iteration` are kept.
    """

    def __init__(self, path: Path, iteration: int, measured_at: int | None = None) -> None:
        self.path = path
        if path.exists():
            last_evaluation = iteration if measured_at is None else measured_at
            kept = [
                line
                for line in path.read_text(encoding="utf-8").splitlines()
                if _iteration(line) <= (last_evaluation if '"evaluation"' in line else iteration)
            ]
            write_text_atomically(path, "".join(line + "\n" for line in kept))

    def __call__(self, event: Event) -> None:
        """Append a row."""
        if isinstance(event, Step):
            row: dict[str, Any] = {
                "iteration": event.iteration,
                "epoch": round(event.iteration / event.per_epoch, 4),
                "lr": event.lr,
                "total": sum(event.losses.values()),
                **event.losses,
                "grad_norm": event.grad_norm,
                "seconds": round(event.seconds, 4),
                "loader_seconds": round(event.loader_seconds, 4),
                "images": event.images,
            }
            if event.dropped:
                row["dropped_boxes"] = event.dropped
        elif isinstance(event, Evaluation):
            row = {
                "iteration": event.iteration,
                "epoch": round(event.iteration / event.per_epoch, 4),
                "is_best": event.is_best,
                "evaluation": [
                    {"protocol": r.protocol, "values": _plain(r.values), "per_class": _plain(r.per_class)}
                    for r in event.results
                ],
            }
        else:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(row)) + "\n")


def _iteration(line: str) -> float:
    """The row's iteration; beyond any where the line was cut short."""
    try:
        return json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def json_text(value: Any) -> str:
    """Indented JSON; figures that are not finite are null."""
    return json.dumps(_plain(value), indent=1) + "\n"


def _plain(value: Any) -> Any:
    """NaN and infinity are not JSON: they become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TensorBoard:
    """Losses, lr and figures as TensorBoard scalars.

    Args:
        folder: where the event files go.
        iteration: where the run begins; what an interrupted one wrote beyond it is hidden.
    """

    def __init__(self, folder: Path, iteration: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=iteration + 1 if iteration else None)

    def __call__(self, event: Event) -> None:
        """Write the event's figures."""
        if isinstance(event, Step):
            for name, value in {**event.losses, "lr": event.lr}.items():
                self.writer.add_scalar(f"train/{name}", value, event.iteration)
        elif isinstance(event, Evaluation):
            for result in event.results:
                for name, value in result.values.items():
                    tag = f"evaluation/{name} ({result.protocol.partition(' at ')[0]})"
                    self.writer.add_scalar(tag, value, event.iteration)
        else:
            self.writer.flush()

    def close(self) -> None:
        """Write what is left and end the writer's thread."""
        self.writer.close()


class CheckpointKeeper:
    """Keeps last.pth and best.pth.

    Args:
        folder: the run directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, event: Event) -> None:
        """Write on `Saving`."""
        if isinstance(event, Saving):
            if event.is_best:
                save_checkpoint(self.folder / "best.pth", event.checkpoint)
            save_checkpoint(self.folder / "last.pth", event.checkpoint)
