"""One training run from its config to its run directory."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Iterator, Sequence
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
from transfer.engine.determinism import deterministic
from transfer.engine.distributed import World, world
from transfer.engine.hooks import CheckpointKeeper, MetricsFile, ProgressLog, TensorBoard, json_text, logging_to_file
from transfer.engine.restarts import agents_of, own_checkpoint, sign
from transfer.engine.run_directory import (
    claimed,
    latest_run_directory,
    new_run_directory,
    newest_run_directory,
    write_text_atomically,
)
from transfer.engine.train import Ending, Evaluation, Event, Hook, MetricLike, Run, evaluated, train
from transfer.engine.workers import end_workers
from transfer.evaluator import Evaluator
from transfer.loading import training_settings
from transfer.preflight.preflight import preflight
from transfer.preflight.report import errors_text, log_report, write_report
from transfer.report.curves import draw_curves, read_rows
from transfer.report.fitting import read_fitting
from transfer.restoring import check_same_config, restore
from transfer.types import TryAgain, UserError

logger = logging.getLogger("trickstack")

AUTO = "auto"
"""For `resume`: go on with the newest run, or begin one where there is none or it saved nothing; one that came to its
end is left alone. The same command again and again, as schedulers give it, ends with one finished run."""


def run(
    config: Node,
    *,
    name: str,
    work_dir: Path = Path("runs"),
    device: str = "auto",
    resume: str | None = None,
    deadline: float | None = None,
) -> Ending:
    """Train as the config says; everything is left in WORK_DIR/NAME/NUMBER/.

    Args:
        config: as `transfer.build.load_config` gives it.
        name: of the config.
        work_dir: holds the runs of all configs.
        device: "auto", "cpu", "cuda", "cuda:N".
        resume: None for a new run, "latest" for the config's latest, AUTO, or a checkpoint's path. Where the
            same torchrun has saved a run already and started its workers anew, that one goes on, whatever is said here.
        deadline: of `time.monotonic`; the run saves and stops at the first step that ends beyond it. None: no limit.
    Returns:
        How the run ended: true where it came to its end.
    Raises:
        UserError: what the user can mend.
    """
    with contextlib.ExitStack() as to_end, world(device) as here, logging_to_file() as log_to:
        here.check_same("the config", to_json(config))
        here.check_same("the command (--resume, --time-limit)", f"{resume} {deadline is None}")
        agents = agents_of(here)
        restarted = here.broadcast(own_checkpoint(work_dir / name, agents))
        checkpoint, folder = _begin(config, work_dir / name, restarted or resume, here)
        started, evaluator, data = build_run(config, here)
        to_end.callback(end_workers, evaluator.loader)
        to_end.enter_context(deterministic(started.settings.deterministic))
        if checkpoint is not None:
            started.restore(checkpoint)
            here.check_same("the checkpoint", f"iteration {started.iteration}, measured at {started.measured_at}")
        is_measured = started.is_over and started.measured_at >= started.iteration
        if is_measured and here.broadcast(folder is None or (folder / "results.json").is_file()):
            if resume == AUTO or restarted:
                logger.info("%s is at its end already (%d iterations)", folder, started.iteration)
                return Ending.FINISHED
            raise UserError(f"--resume: the run is at its end already ({started.iteration} iterations)")
        started.deadline = deadline

        def open_folder() -> Path:
            """The run's directory, this process's alone; only now: nothing is left of a run that could not start."""
            opened = new_run_directory(work_dir / name) if folder is None else folder
            to_end.enter_context(claimed(opened))
            log_to(opened / "log.txt")
            write_text_atomically(opened / "config.json", to_json(config) + "\n")
            sign(opened, agents)
            return opened

        own_folder = _on_main(open_folder, here)
        logger.info(
            "run directory %s: %d images, %d iterations of %d, device %s",
            own_folder, len(data.train), started.total, started.per_epoch, here.device,
        )  # fmt: skip
        if started.iteration:
            logger.info("going on from iteration %d of %d", started.iteration, started.total)
        if started.settings.preflight and checkpoint is None:
            _check(started, data, own_folder, here)
        if own_folder is None:
            return _rest(started, evaluator, [], is_measured, data)
        with _full_disk_told(own_folder):
            ending = _on_the_record(own_folder, started, evaluator, is_measured, data)
            if ending is Ending.FINISHED:
                _report(own_folder, config, data, evaluator, here)
        logger.info("run directory %s", own_folder)
        return ending


def _on_the_record(folder: Path, started: Run, evaluator: Evaluator, is_measured: bool, data: Data) -> Ending:
    """The rest of the run on process 0, told to metrics.jsonl, log, TensorBoard, checkpoints and pictures."""
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
        ending = _rest(started, evaluator, hooks, is_measured, data)
    finally:
        progress.close()
        tensorboard.close()
    draw_curves(metrics_file, folder / "curves.png")
    if ending is Ending.FINISHED:
        logger.info("curves: %s", read_fitting(read_rows(metrics_file)))
    return ending


def _rest(started: Run, evaluator: Evaluator, hooks: Sequence[Hook], is_measured: bool, data: Data) -> Ending:
    """Train; or where the run was killed after its last evaluation and before its report, only what that needs."""
    if not is_measured:
        return train(started, evaluator, hooks)
    if not data.has_validation:
        evaluated(started, evaluator)
    return Ending.FINISHED


def _on_main(make: Callable[[], Path], here: World) -> Path | None:
    """What process 0 makes, there; None on other processes.

    Raises:
        UserError, TryAgain: it failed; the same on every process, so that none waits for the others.
    """
    made: Path | None = None
    problem: tuple[str, bool] | None = None
    if here.is_main:
        try:
            made = make()
        except (UserError, OSError) as error:
            problem = (str(error), isinstance(error, TryAgain))
    problem = here.broadcast(problem)
    if problem is not None:
        text, may_pass = problem
        raise TryAgain(text) if may_pass else UserError(text)
    return made


@contextlib.contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    """Raises: TryAgain where the disk (or the user's quota) is full, saying what is kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        kept = "its last.pth is kept" if (folder / "last.pth").is_file() else "it has saved nothing yet"
        raise TryAgain(
            f"{str(folder)!r}: {error.strerror}; {kept}. Free the place and go on with --resume, or give another "
            "--work-dir"
        ) from error


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


def _begin(config: Node, root: Path, resume: str | Path | None, here: World) -> tuple[Checkpoint | None, Path | None]:
    """The checkpoint to go on from, and the folder to go on in (None: a new one), or neither.

    A run goes on in its own folder from its last.pth; from any other checkpoint it branches off into a new one.
    """
    path = _checkpoint_of_all(root, resume, here)
    if path is None:
        return None, None
    checkpoint = load_checkpoint(path)
    check_same_config(config, checkpoint, path)
    logger.info("going on from %s", path)
    own = path.name == "last.pth" and path.resolve().parent.parent == root.resolve()
    return checkpoint, path.parent if own else None


def _checkpoint_of_all(root: Path, resume: str | Path | None, here: World) -> Path | None:
    """What process 0 finds for `resume`, on every process: a network's file system may show others an older state."""
    found, problem = None, None
    if here.is_main and resume is not None:
        try:
            if resume == "latest":
                found = latest_run_directory(root) / "last.pth"
            elif resume == AUTO:
                newest = newest_run_directory(root)
                found = newest / "last.pth" if newest is not None and (newest / "last.pth").is_file() else None
                if found is None:
                    logger.info("--resume auto: nothing to go on with in %s, a new run begins", root)
            else:
                found = Path(resume)
        except UserError as error:
            problem = str(error)
    found, problem = here.broadcast((found, problem))
    if problem is not None:
        raise UserError(problem)
    return found


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
        try:
            results: list[MetricLike] = on_test(restored.task.model)
        finally:
            end_workers(on_test.loader)
        metrics = [as_plain(result) for result in results]
        which = "best.pth (chosen on validation data), test set" if best.is_file() else "last.pth, test set"
    else:
        metrics = [as_plain(result) for result in evaluator.results]
        which = "last.pth, test set"
    write_text_atomically(folder / "results.json", json_text({"measured": which, "metrics": metrics}))
    if data.has_validation:
        for result in results:
            logger.info("test set, %s:\n%s", name, result.table())
        if training_settings(config).pictures:
            on_test.draw(folder / "test_predictions.jpg")
