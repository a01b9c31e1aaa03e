"""Makes the runs of a ledger, each in a process of its own, several at a time.

The processes are forked from one server that has imported torch and this project already, so those seconds are paid
once. The server is started by executing Python anew: neither CUDA nor threads of the caller are carried over.

Threads are shared out: each process gets cores / (jobs * processes). So are GPUs, by CUDA_VISIBLE_DEVICES, the least
busy ones first (unmeasured: written for machines with GPUs, tested by the variable alone). A run of several processes
gets the variables that torchrun would set and a free port of this machine.

A first Ctrl-C (or SIGTERM) asks all runs to write their checkpoint and stop, a second one kills them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import platform
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from transfer.experiments.description import state_of_code
from transfer.experiments.ledger import Claim, Ledger
from transfer.experiments.processes import kill_group
from transfer.experiments.worker import LOST, Order, tail_of, work

logger = logging.getLogger("trickstack")

PRELOAD = (
    *("torch", "torchvision", "torch.utils.tensorboard", "timm", "albumentations", "pycocotools.cocoeval"),
    *("matplotlib.pyplot", "backbones.timm_backbone", "transfer.training"),
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
POLL_SECONDS = 0.5
GRACE_SECONDS = 60.0
"""How long a process of an interrupted run may outlive another one of it: it may be waiting for that one in vain."""


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """How runs are made."""

    root: Path
    """Holds the runs' directories."""
    jobs: int = 1
    """Runs at a time."""
    gpus: Sequence[str] = ()
    """What CUDA_VISIBLE_DEVICES calls them; empty: everything on the CPU."""
    device: str = "auto"
    """Handed to the runner."""
    attempts: int = 3
    """How often a run may crash before it is given up."""
    preload: Sequence[str] = PRELOAD
    """Modules that the server imports ahead; one that is not there is left out."""

    def threads(self, processes: int) -> int:
        """Threads of each process of a run: all cores over all processes, or what OMP_NUM_THREADS says, if less."""
        share = max(1, cores() // (self.jobs * processes))
        asked = os.environ.get("OMP_NUM_THREADS", "")
        return min(share, int(asked)) if asked.isdigit() and int(asked) > 0 else share


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Told = Callable[[str, Claim, float], None]
"""Is told of "started", "done", "interrupted", "crashed" (tried again) and "failed", of which run, after how long."""


@dataclass
class _Job:
    """A run that is being made."""

    claim: Claim
    orders: list[Order]
    processes: list[BaseProcess]
    pipes: list[connection.Connection]
    gpus: tuple[str, ...]
    began: float
    asked_to_stop: bool = False
    first_ended: float | None = None
    """When the first of several processes ended."""


class Pool:
    """Makes the runs of some keys of a ledger.

    Args:
        ledger: knows the runs.
        settings: how they are made.
        told: see `Told`.
        tick: called about twice a second, for a progress bar.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: PoolSettings,
        *,
        told: Told | None = None,
        tick: Callable[[], None] | None = None,
    ) -> None:
        self.ledger, self.settings = ledger, settings
        self.told = told or (lambda event, claim, seconds: None)
        self.tick = tick or (lambda: None)
        self.jobs: list[_Job] = []
        self.interrupts = 0
        self.context = multiprocessing.get_context("forkserver")
        self.facts: dict[str, Any] = {}

    def run(self, keys: Sequence[str]) -> bool:
        """Make all runs that are not done: one that another pool on the same ledger makes is waited for.

        Args:
            keys: of the runs, in the order to make them in.
        Returns:
            Whether all were tried to the end (False: interrupted).
        """
        self.facts = {**state_of_code(), "processor": processor(), "cores": cores()}
        with self._signals(), self._server_environment():
            try:
                while self._step(keys):
                    connection.wait([p.sentinel for job in self.jobs for p in job.processes], timeout=POLL_SECONDS)
                    self.tick()
            finally:
                if self.jobs:  # a second Ctrl-C, or an error of the pool itself
                    self.interrupts = max(self.interrupts, 1)
                for job in list(self.jobs):
                    self._kill(job)
        return self.interrupts == 0

    def _step(self, keys: Sequence[str]) -> bool:
        """Begin and end what is due. Returns whether anything is left to wait for."""
        if self.interrupts > 1:
            return False
        if self.interrupts and self.jobs and not self.jobs[0].asked_to_stop:
            logger.warning(
                "stopping after the step at hand, with checkpoints; Ctrl-C again kills %d runs", len(self.jobs)
            )
        for job in list(self.jobs):
            self._look_after(job)
        while not self.interrupts and len(self.jobs) < self.settings.jobs:
            claim = self.ledger.claim(keys)
            if claim is None:
                break
            self._start(claim)
        if self.jobs:
            return True
        return not self.interrupts and any(
            row.state in ("waiting", "running") for row in self.ledger.rows(keys).values()
        )

    def _start(self, claim: Claim) -> None:
        count = claim.description.processes
        gpus = self._free_gpus(count)
        together = _torchrun_environment(count)
        job = _Job(claim, [], [], [], gpus, time.monotonic())
        self.jobs.append(job)
        for rank in range(count):
            order = Order(
                claim=claim,
                ledger=self.ledger.path,
                root=self.settings.root,
                device=self.settings.device,
                threads=self.settings.threads(count),
                attempts=self.settings.attempts,
                rank=rank,
                environment={
                    **({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}),
                    **({**together, "RANK": str(rank), "LOCAL_RANK": str(rank)} if together else {}),
                },
                facts=self.facts,
            )
            theirs, ours = self.context.Pipe(duplex=False)
            process = self.context.Process(target=work, args=(order, theirs), name=claim.description.directory)
            process.start()
            theirs.close()
            job.orders.append(order)
            job.processes.append(process)
            job.pipes.append(ours)
        job.began = time.monotonic()  # the first one waited for the server
        self.told("started", claim, 0.0)

    def _free_gpus(self, count: int) -> tuple[str, ...]:
        """The least busy GPUs, one for each process."""
        busy = [gpu for job in self.jobs for gpu in job.gpus]
        return tuple(sorted(self.settings.gpus, key=busy.count)[:count])

    def _look_after(self, job: _Job) -> None:
        """Pass a Ctrl-C on, once; end a job whose processes have ended."""
        codes = [process.exitcode for process in job.processes]
        if self.interrupts and not job.asked_to_stop:
            job.asked_to_stop = True
            for process in job.processes:
                assert process.pid is not None, "a started process has a number"
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGINT)
        if None in codes and any(codes):  # one of several crashed, or stopped first: the others do not wait for it
            job.first_ended = job.first_ended or time.monotonic()
            if not self.interrupts or time.monotonic() - job.first_ended > GRACE_SECONDS:
                self._kill(job)
        elif None not in codes:
            self._end(job)

    def _end(self, job: _Job) -> None:
        """Bring the ledger up to date with a job that is over."""
        self.jobs.remove(job)
        codes = [process.exitcode for process in job.processes]
        for process, pipe in zip(job.processes, job.pipes):
            pipe.close()
            assert process.pid is not None, "a started process has a number"
            kill_group(process.pid)  # loader workers of one that was killed
            process.close()
        claim, seconds = job.claim, time.monotonic() - job.began
        if self.ledger.holds(claim):  # the worker said nothing
            if self.interrupts:
                self.ledger.give_back(claim)
            elif LOST not in codes:
                self.ledger.fail(claim, _last_words(job.orders, codes), attempts=self.settings.attempts)
        row = self.ledger.rows([claim.key])[claim.key]
        stopped = self.interrupts or LOST in codes
        other = "interrupted" if stopped else "crashed"  # by now it may be waiting, or begun again: told by its worker
        self.told(row.state if row.state in ("done", "failed") else other, claim, seconds)

    def _kill(self, job: _Job) -> None:
        for process in job.processes:
            assert process.pid is not None, "a started process has a number"
            kill_group(process.pid)
            process.kill()  # where it does not lead its group yet
            process.join()
        self._end(job)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupts += 1

    @contextmanager
    def _signals(self) -> Iterator[None]:
        former = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    @contextmanager
    def _server_environment(self) -> Iterator[None]:
        """What the server must find at its start: OpenMP reads its variables when a library is loaded."""
        self.context.set_forkserver_preload(list(self.settings.preload))
        threads = str(self.settings.threads(1))
        former = {name: os.environ.get(name) for name in THREAD_VARIABLES}
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, threads))
        try:
            yield
        finally:
            for name, value in former.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _torchrun_environment(count: int) -> dict[str, str]:
    """What torchrun sets for the processes of a run on one machine; nothing for one process."""
    if count == 1:
        return {}
    with socket.socket() as found:  # a port that is free now; taken meanwhile, the run crashes and is tried again
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    size = str(count)
    return {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _last_words(orders: Sequence[Order], codes: Sequence[int | None]) -> str:
    """How the processes ended, and the end of what they printed."""
    ends = [f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}" for code in codes]
    return "\n".join(f"process {o.rank}: {end}\n{tail_of(o.console)}" for o, end in zip(orders, ends))


def processor() -> str:
    """The processor's name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
