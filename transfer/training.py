"""One training run from its config to its run directory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer.assemble import (
    Data,
    Evaluator,
    as_plain,
    build_dataset,
    build_evaluator,
    build_run,
    check_same_config,
    restore,
)
from transfer.build import Node, to_json
from transfer.engine.checkpoint import Checkpoint, load_checkpoint
from transfer.engine.distributed import World, world
from transfer.engine.hooks import CheckpointKeeper, MetricsFile, ProgressLog, TensorBoard, json_text, logging_to
from transfer.engine.run_directory import latest_run_directory, new_run_directory, write_text_atomically
from transfer.engine.train import Evaluation, Event, Hook, MetricLike, Run, train
from transfer.report.curves import draw_curves
from transfer.report.pages import page_of_predictions
from transfer.types import UserError

logger = logging.getLogger("trickstack")


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
        resume: None for a new run, "latest" for the config's latest, or a checkpoint's path.
    Returns:
        Whether the run came to its end (False: interrupted).
    Raises:
        UserError: what the user can mend.
    """
    with world(device) as here:
        checkpoint, folder = _begin(config, work_dir / name, resume, here)
        started, evaluator, data = build_run(config, here)
        if not here.is_main:
            if checkpoint is not None:
                started.restore(checkpoint)
            return _train(started, evaluator, [])
        if folder is None:
            folder = new_run_directory(work_dir / name)  # only now: nothing is left of a run that could not start
        with logging_to(folder / "log.txt"):
            if checkpoint is not None:
                started.restore(checkpoint)
                logger.info("going on from iteration %d of %d", started.iteration, started.total)
            write_text_atomically(folder / "config.json", to_json(config) + "\n")
            logger.info(
                "run directory %s: %d images, %d iterations of %d, device %s",
                folder, len(data.train), started.total, started.per_epoch, here.device,
            )  # fmt: skip
            metrics_file = folder / "metrics.jsonl"
            hooks: list[Hook] = [
                MetricsFile(metrics_file, started.iteration),
                ProgressLog(started.settings.log_every),
                TensorBoard(folder / "tensorboard", started.iteration),
                CheckpointKeeper(folder),
                _Pictures(folder, evaluator, started.settings.pictures),
            ]
            finished = _train(started, evaluator, hooks)
            draw_curves(metrics_file, folder / "curves.png")
            if finished:
                _report(folder, config, data, evaluator, here)
            logger.info("run directory %s", folder)
        return finished


def _begin(config: Node, root: Path, resume: str | None, here: World) -> tuple[Checkpoint | None, Path | None]:
    """The checkpoint to go on from and its folder, or neither."""
    if resume is None:
        return None, None
    folder = latest_run_directory(root) if resume == "latest" else Path(resume).parent
    path = folder / "last.pth" if resume == "latest" else Path(resume)
    checkpoint = load_checkpoint(path)
    check_same_config(config, checkpoint, path)
    return checkpoint, folder


def _train(started: Run, evaluator: Evaluator, hooks: Sequence[Hook]) -> bool:
    if started.iteration >= started.total:
        raise UserError(f"--resume: the run is at its end already ({started.total} iterations)")
    return train(started, evaluator, hooks)


class _Pictures:
    """Curves and a page of predictions, new at each evaluation."""

    def __init__(self, folder: Path, evaluator: Evaluator, count: int) -> None:
        self.folder, self.evaluator, self.count = folder, evaluator, count

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Evaluation):
            return
        draw_curves(self.folder / "metrics.jsonl", self.folder / "curves.png")
        if self.count:
            page_of_predictions(
                self.evaluator.dataset, self.evaluator.predictions, self.folder / "predictions.jpg", count=self.count
            )


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
        test = build_dataset(data.test_node, "data.test", restored.class_names, None)
        on_test = build_evaluator(config, restored.task, test, alone)
        logger.info("measuring %s on the test set (%d images)", name, len(test))
        results: list[MetricLike] = on_test(restored.task.model)
        page_of_predictions(test, on_test.predictions, folder / "test_predictions.jpg")
        for result in results:
            logger.info("test set, %s:\n%s", name, result.table())
        metrics = [as_plain(result) for result in results]
        which = "best.pth (chosen on validation data), test set" if best.is_file() else "last.pth, test set"
    else:
        metrics = [as_plain(result) for result in evaluator.results]
        which = "last.pth, test set"
    write_text_atomically(folder / "results.json", json_text({"measured": which, "metrics": metrics}))
