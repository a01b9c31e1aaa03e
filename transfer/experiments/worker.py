"""What happens in a run's own process: it confirms its claim, makes the run, and writes what came out to the ledger.

The process leads a session of its own, so a Ctrl-C at the terminal does not reach it: the pool passes one SIGINT on, at
which the run writes its checkpoint and stops. Where the pool dies without a word (kill -9), the pipe that it held
breaks, and the worker sends itself that SIGINT. Output goes to console.txt in the run's directory.

A run that was begun is gone on with: from its result where it left one, else from its latest checkpoint. A checkpoint
that is refused (damaged, or the last of a run that was killed before it wrote its result) is put aside, and the next
attempt begins anew.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from transfer.experiments.description import function_of
from transfer.experiments.ledger import Claim, Ledger

FINISHED, CRASHED, INTERRUPTED, LOST = 0, 1, 130, 4
"""Exit codes; LOST: somebody else has the run."""
MISTAKES = ("UserError", "BackboneError")
"""Errors that trying again does not mend."""
REFUSED_CHECKPOINT, TRY_AGAIN = "RefusedCheckpoint", "TryAgain"
"""Errors that beginning anew mends, and that another attempt may."""
HEARTBEAT_SECONDS = 15.0
TAIL_LINES = 25

logger = logging.getLogger("trickstack")


@dataclass(frozen=True)
class Order:
    """What a worker is told to do."""

    claim: Claim
    ledger: Path
    root: Path
    """Holds the runs' directories."""
    device: str
    threads: int
    attempts: int
    """How often a run may crash before it is given up."""
    rank: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    """Kept with the result."""

    @property
    def folder(self) -> Path:
        """The run's directory; the numbered ones of its starts are in it."""
        return self.root / self.claim.description.directory

    @property
    def console(self) -> Path:
        """Where this process's output goes."""
        return self.folder / ("console.txt" if self.rank == 0 else f"console_rank{self.rank}.txt")


def work(order: Order, life: Connection) -> None:
    """Make the run; the exit code says how it ended.

    Args:
        order: what to do.
        life: a pipe whose other end the pool holds: it breaks when the pool is gone.
    """
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the pool was started with it ignored
    try:
        _redirect(order.console)
        os.environ.update(order.environment)
        _set_threads(order.threads)
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S", force=True)
        code = _work(order, life)
    except KeyboardInterrupt:
        code = INTERRUPTED
    logging.shutdown()
    sys.exit(code)


def _work(order: Order, life: Connection) -> int:
    ledger = Ledger(order.ledger)
    if not (ledger.confirm(order.claim) if order.rank == 0 else ledger.holds(order.claim)):
        return LOST
    threading.Thread(target=_watch, args=(order, life), daemon=True).start()
    try:
        result = result_of(order.folder)
        if result is None:
            if not _make(order):
                return INTERRUPTED
            result = result_of(order.folder)
            assert result is not None or order.rank > 0, f"a finished run leaves results.json in {order.folder}"
    except Exception as error:
        traceback.print_exc()
        if order.rank == 0:
            name = type(error).__name__  # by name: importing this project's errors brings torch
            if name == REFUSED_CHECKPOINT:
                _put_checkpoint_aside(order.folder)
            text = str(error) if name in (*MISTAKES, REFUSED_CHECKPOINT, TRY_AGAIN) else tail_of(order.console)
            ledger.fail(order.claim, text, attempts=1 if name in MISTAKES else order.attempts)
        return CRASHED
    if order.rank == 0 and result is not None and not ledger.finish(order.claim, result, _facts(order)):
        return LOST
    return FINISHED


def _make(order: Order) -> bool:
    """Make the run, or go on with it. Returns whether it came to its end."""
    description = order.claim.description
    run = function_of(description.runner)
    begun = any(order.folder.glob("[0-9]*/last.pth"))
    return bool(
        run(
            description.config,
            name=description.directory,
            work_dir=order.root,
            device=order.device,
            resume="latest" if begun else None,
        )
    )


def _numbered(folder: Path) -> list[Path]:
    """The directories of a run's starts, the latest first."""
    found = [path for path in folder.glob("[0-9]*") if re.fullmatch(r"\d{3,}", path.name)]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def result_of(folder: Path) -> dict[str, Any] | None:
    """The results.json of a run that came to its end, with the name of its directory as "directory"."""
    for start in _numbered(folder):
        if (start / "results.json").is_file():
            result = json.loads((start / "results.json").read_text(encoding="utf-8"))
            return {**result, "directory": f"{folder.name}/{start.name}"}
    return None


def _put_checkpoint_aside(folder: Path) -> None:
    """Rename the checkpoint that the run was to go on from, where there is one."""
    for start in _numbered(folder):
        if (start / "last.pth").is_file():
            os.replace(start / "last.pth", start / "refused.pth")
            return


def _watch(order: Order, life: Connection) -> None:
    """Until the pool is gone or somebody else has the run: note that it goes on."""
    ledger = Ledger(order.ledger)
    while not life.poll(HEARTBEAT_SECONDS):
        if order.rank == 0 and not ledger.beat(order.claim):
            logger.error("another process has taken this run: stopping at once")
            os._exit(LOST)
    os.kill(os.getpid(), signal.SIGINT)  # the pipe broke


def _redirect(path: Path) -> None:
    """Let everything that this process prints, in C too, go to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _set_threads(threads: int) -> None:
    """For the libraries that the pool has loaded ahead: their own variables were read at import."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    if cv2 := sys.modules.get("cv2"):
        cv2.setNumThreads(threads)


def _facts(order: Order) -> dict[str, Any]:
    """Who made the run."""
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_initialized()
    device = torch.cuda.get_device_name() if torch is not None and on_gpu else "cpu"
    return {**order.facts, "host": socket.gethostname(), "device": device, "threads": order.threads}


def tail_of(path: Path) -> str:
    """The last lines of a log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 20_000))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-TAIL_LINES:])
