"""One training run from its config to its run directory."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

from transfer.assemble import (
    Data,
    as_plain,
    build_evaluator,
    build_run,
)
from transfer.build import Node, to_json
from transfer.engine.checkpoint import Checkpoint, load_checkpoint
from transfer.engine.distributed import World, world
from transfer.engine.hooks import CheckpointKeeper, MetricsFile, ProgressLog, TensorBoard, json_text, logging_to_file
from transfer.engine.run_directory import latest_run_directory, new_run_directory, write_text_atomically
from transfer.engine.train import Evaluation, Event, Hook, MetricLike, Run, train
from transfer.evaluator import Evaluator
from transfer.preflight.preflight import preflight
from transfer.preflight.report import errors_text, log_report, write_report
from transfer.report.curves import draw_curves, read_rows
from transfer.report.fitting import read_fitting
from transfer.restoring import check_same_config, restore
from transfer.types import UserError

logger = logging.getLogger("trickstack")

RESTARTED = "restarted by torchrun"
"""For `resume`: go on with the run that the same torchrun began, or begin where it has saved nothing yet."""
AGENT_FILE = ".torchrun"
"""In a run directory: which torchrun began it."""


def run(
    config: Node,
    *,
    name: str,
    work_dir: Path = Path("runs"),
    device: str = "auto",
    resume: str | None = None,
) -> bool:
    """Train as the config says; everything is left in WORK_DIR/NAME/NUMBER/.

    Args:
        config: as `transfer.build.load_config` gives it.
        name: of the config.
        work_dir: holds the runs of all configs.
        device: "auto", "cpu", "cuda", "cuda:N".
        resume: None for a new run, "latest" for the config's latest, RESTARTED, or a checkpoint's path.
    Returns:
        Whether the run came to its end (False: interrupted).
    Raises:
        UserError: what the user can mend.
    """
    with world(device) as here, logging_to_file() as log_to:
        checkpoint, folder = _begin(config, work_dir / name, resume, here)
        started, evaluator, data = build_run(config, here)
        if checkpoint is not None:
            started.restore(checkpoint)
        if started.is_over and started.measured_at >= started.iteration:
            if folder is None or (folder / "results.json").is_file():
                raise UserError(f"--resume: the run is at its end already ({started.iteration} iterations)")
            started.measured_at = started.iteration - 1  # killed before it reported: the last evaluation is made again
        to_check = started.settings.preflight and checkpoint is None
        if not here.is_main:
            if to_check:
                _check(started, data, None, here)
            return train(started, evaluator, [])
        if folder is None:
            folder = new_run_directory(work_dir / name)  # only now: nothing is left of a run that could not start
        log_to(folder / "log.txt")
        write_text_atomically(folder / "config.json", to_json(config) + "\n")
        if "TORCHELASTIC_RUN_ID" in os.environ:
            write_text_atomically(folder / AGENT_FILE, _agent())
        logger.info(
            "run directory %s: %d images, %d iterations of %d, device %s",
            folder, len(data.train), started.total, started.per_epoch, here.device,
        )  # fmt: skip
        if started.iteration:
            logger.info("going on from iteration %d of %d", started.iteration, started.total)
        if to_check:
            _check(started, data, folder, here)
        metrics_file = folder / "metrics.jsonl"
        progress = ProgressLog(started.settings.log_every)
        tensorboard = TensorBoard(folder / "tensorboard", started.iteration)
        hooks: list[Hook] = [
            MetricsFile(metrics_file, started.iteration, started.measured_at),
            progress,
            tensorboard,
            CheckpointKeeper(folder),
            _Pictures(folder, evaluator, started.settings.pictures),
        ]
        try:
            finished = train(started, evaluator, hooks)
        finally:
            progress.close()
            tensorboard.close()
        draw_curves(metrics_file, folder / "curves.png")
        if finished:
            logger.info("curves: %s", read_fitting(read_rows(metrics_file)))
            _report(folder, config, data, evaluator, here)
        logger.info("run directory %s", folder)
        return finished


def _check(started: Run, data: Data, folder: Path | None, here: World) -> None:
    """The preflight of a new run: made by process 0, awaited by all; leaves preflight.json and preflight.jpg.

    Args:
        started: has not begun.
        data: its data sets.
        folder: the run directory; None on other processes.
        here: this process.
    Raises:
        UserError: it found an error; on every process.
    """
    problem = None
    if folder is not None:
        try:
            report = preflight(started, data.train)
            write_report(report, folder)
            log_report(report)
            problem = errors_text(report, folder) if report.errors else None
        except UserError as error:
            problem = str(error)
    problem = here.broadcast(problem)
    if problem is not None:
        raise UserError(problem)


def _begin(config: Node, root: Path, resume: str | None, here: World) -> tuple[Checkpoint | None, Path | None]:
    """The checkpoint to go on from, and the folder to go on in (None: a new one), or neither.

    A run goes on in its own folder from its last.pth; from any other checkpoint it branches off into a new one.
    """
    if resume is None:
        return None, None
    if resume == RESTARTED:
        own = here.broadcast(_saved_by_this_agent(root) if here.is_main else None)  # other nodes cannot tell
        if own is None:
            return None, None
        path = Path(own)
    else:
        path = latest_run_directory(root) / "last.pth" if resume == "latest" else Path(resume)
    checkpoint = load_checkpoint(path)
    check_same_config(config, checkpoint, path)
    logger.info("going on from %s", path)
    own = path.name == "last.pth" and path.resolve().parent.parent == root.resolve()
    return checkpoint, path.parent if own else None


def _agent() -> str:
    """The torchrun process that started this one: the same before and after a restart."""
    return f"{socket.gethostname()} {os.getppid()}"


def _saved_by_this_agent(root: Path) -> str | None:
    """The last.pth of the run below `root` that this torchrun began; None where it saved nothing yet."""
    for marker in sorted(root.glob(f"*/{AGENT_FILE}"), reverse=True):
        if marker.read_text(encoding="utf-8") == _agent() and (marker.parent / "last.pth").is_file():
            return str(marker.parent / "last.pth")
    return None


class _Pictures:
    """Curves and a page of predictions, new at each evaluation."""

    def __init__(self, folder: Path, evaluator: Evaluator, count: int) -> None:
        self.folder, self.evaluator, self.count = folder, evaluator, count

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Evaluation):
            return
        draw_curves(self.folder / "metrics.jsonl", self.folder / "curves.png")
        if self.count:
            self.evaluator.draw(self.folder / "predictions.jpg", count=self.count)


def _report(folder: Path, config: Node, data: Data, evaluator: Evaluator, here: World) -> None:
    """The test set's figures, to results.json and the screen: of best.pth where validation chose one, else of the end.

    With several processes the others have left by now, so the best checkpoint is measured by this one alone.
    """
    metrics: list[dict[str, Any]]
    if data.has_validation:
        best = folder / "best.pth"  # not there where a run went on from a checkpoint alone and never did better
        name = "best.pth" if best.is_file() else "last.pth"
        alone = World(0, 1, here.device)
        restored = restore(load_checkpoint(folder / name), here.device, trust=None)
        on_test = build_evaluator(config, restored.task, data.test, alone)
        logger.info("measuring %s on the test set (%d images)", name, len(data.test))
        results: list[MetricLike] = on_test(restored.task.model)
        on_test.draw(folder / "test_predictions.jpg")
        for result in results:
            logger.info("test set, %s:\n%s", name, result.table())
        metrics = [as_plain(result) for result in results]
        which = "best.pth (chosen on validation data), test set" if best.is_file() else "last.pth, test set"
    else:
        metrics = [as_plain(result) for result in evaluator.results]
        which = "last.pth, test set"
    write_text_atomically(folder / "results.json", json_text({"measured": which, "metrics": metrics}))
