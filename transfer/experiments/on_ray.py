"""Makes the runs of a ledger as tasks of a Ray cluster: a run a task, with its cores and GPUs.

Source: Ray's documented interface (docs.ray.io, Ray Core: tasks, `max_retries`, `ray.cancel`). The ledger stays with
the process that was started by hand: it claims the runs, says every few seconds that they go on, enters what came out.
So SQLite is used on one machine alone. What is shared by all nodes is the folder of the runs (and code and data, at the
same paths): a task makes its run there as a pool would, with a pool of its own on a ledger of its own, and so goes on
from the run's last checkpoint where a task before it was lost with its node. Ray retries lost tasks; a run that crashes
is tried again by the pool in the task.

The process that was started by hand gone, Ray ends its tasks, and the runs wait for the next start, as everywhere.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer.experiments.description import Description
from transfer.experiments.ledger import Claim, Ledger
from transfer.experiments.pool import PRELOAD, Pool, PoolSettings, Told

logger = logging.getLogger("trickstack")

WAIT_SECONDS = 10.0
"""Between two heartbeats."""
CANCEL_SECONDS = 120.0
"""How long cancelled runs may take to write their checkpoints."""
Outcome = tuple[str, dict[str, Any], dict[str, Any], str]
"""State ("done", "failed", "waiting"), result, facts, error."""


def make_run(text: str, root: str, device: str, attempts: int, cores: int, preload: Sequence[str] = PRELOAD) -> Outcome:
    """What a task does: make one run; in a process of Ray's, on any node.

    Args:
        text: the description as JSON.
        root: holds the runs' directories; on a file system that all nodes see.
        device: handed to the runner.
        attempts: how often the run may crash.
        cores: threads of the run.
        preload: see `PoolSettings`.
    """
    description = Description.from_json(text)
    os.environ["OMP_NUM_THREADS"] = str(cores)
    gpus = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]  # set by Ray
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        (key,) = ledger.enter("one", [("run", description)])
        settings = PoolSettings(root=Path(root), gpus=gpus, device=device, attempts=attempts, preload=preload)
        Pool(ledger, settings).run([key])
        row = ledger.rows([key])[key]
        ledger.close()
    return row.state, row.result or {}, row.facts or {}, row.error or ""


class RayPool:
    """Makes the runs of some keys of a ledger on a Ray cluster; used as `transfer.experiments.pool.Pool`.

    Args:
        ledger: knows the runs.
        root: holds the runs' directories; on a file system that all nodes see.
        ray: the module, connected by `ray.init`.
        cores: CPUs of a process of a run, threads and all.
        gpus: of a process of a run: 0 or 1, or a part of one that several runs share.
        jobs: runs that are submitted at a time; None: all, and the cluster decides.
        device: handed to the runner.
        attempts: how often a run may crash, and how often a task may be lost with its node, before it is given up.
        told: see `transfer.experiments.pool.Told`.
        preload: see `transfer.experiments.pool.PoolSettings`.
    """

    def __init__(
        self,
        ledger: Ledger,
        root: Path,
        ray: Any,
        *,
        cores: int = 1,
        gpus: float = 0,
        jobs: int | None = None,
        device: str = "auto",
        attempts: int = 3,
        told: Told | None = None,
        preload: Sequence[str] = PRELOAD,
    ) -> None:
        self.ledger, self.root, self.ray = ledger, root.resolve(), ray
        self.cores, self.gpus, self.jobs, self.device, self.attempts = cores, gpus, jobs, device, attempts
        self.preload = list(preload)
        self.told = told or (lambda event, claim, seconds: None)
        self.tasks: dict[Any, tuple[Claim, float]] = {}
        self.remote = ray.remote(make_run)

    def run(self, keys: Sequence[str]) -> bool:
        """Make all runs that are not done: those that somebody else makes on the same ledger are waited for.

        Args:
            keys: of the runs, in the order to make them in.
        Returns:
            Whether all were tried to the end (False: interrupted).
        """
        try:
            while self._submit(keys):
                self._collect(WAIT_SECONDS)
        except KeyboardInterrupt:
            self._cancel()
            return False
        except BaseException:
            for claim, _ in self.tasks.values():
                self.ledger.give_back(claim)
            raise
        return True

    def _submit(self, keys: Sequence[str]) -> bool:
        """Hand to Ray what is due. Returns whether anything is left to wait for."""
        while self.jobs is None or len(self.tasks) < self.jobs:
            claim = self.ledger.claim(keys)
            if claim is None:
                break
            run = claim.description
            task = self.remote.options(
                name=run.directory,
                num_cpus=self.cores * run.processes,
                num_gpus=self.gpus * run.processes,
                max_retries=self.attempts - 1,  # where the node or its process was lost
            ).remote(run.to_json(), str(self.root), self.device, self.attempts, self.cores, self.preload)
            self.tasks[task] = (claim, time.monotonic())
            self.told("started", claim, 0.0)
        if self.tasks:
            return True
        left = any(row.state in ("waiting", "running") for row in self.ledger.rows(keys).values())
        if left:
            time.sleep(1.0)
        return left

    def _collect(self, seconds: float) -> None:
        """Wait for a task to end, enter what came out, and say that the others go on."""
        if not self.tasks:
            return
        ended, _ = self.ray.wait(list(self.tasks), num_returns=1, timeout=seconds)
        for task in ended:
            self._end(task)
        for claim, _ in self.tasks.values():
            self.ledger.beat(claim)

    def _end(self, task: Any) -> None:
        claim, began = self.tasks.pop(task)
        try:
            state, result, facts, error = self.ray.get(task)
        except Exception as lost:  # Ray's own: the node is gone more often than retried, or the task was cancelled
            state, result, facts, error = "failed", {}, {}, f"{type(lost).__name__}: {lost}"
            if type(lost).__name__ in ("TaskCancelledError", "KeyboardInterrupt"):
                state = "waiting"
        if state == "done":
            self.ledger.finish(claim, result, facts)
        elif state == "failed":
            self.ledger.fail(claim, error, attempts=1)
        else:
            self.ledger.give_back(claim)
        self.told(state if state in ("done", "failed") else "interrupted", claim, time.monotonic() - began)

    def _cancel(self) -> None:
        """Ask all tasks to write their checkpoints and stop."""
        logger.warning("stopping %d runs, with checkpoints", len(self.tasks))
        for task in list(self.tasks):
            self.ray.cancel(task, force=False)
        end = time.monotonic() + CANCEL_SECONDS
        try:
            while self.tasks and time.monotonic() < end:
                self._collect(1.0)
        except KeyboardInterrupt:
            logger.warning("not waiting for the rest")
        for claim, _ in self.tasks.values():
            self.ledger.give_back(claim)
        self.tasks.clear()
