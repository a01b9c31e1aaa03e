"""A loader's worker processes: which of them died and at what, and ending them at once.

The garbage collector comes too late: an error that a worker met is raised with a traceback that refers to itself, so
the loader's iterator is left to the collector. That breaks the iterator's queues before the iterator can tell its
workers to stop; and as workers ignore SIGTERM (see `transfer.batch.collate.worker_init`), Python would then wait for
them at its exit, forever.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import Any

from transfer.types import Batch, TryAgain


def end_workers(loader: Iterable[Any]) -> None:
    """Stop the processes of a DataLoader with persistent workers, or of several; anything else has none."""
    for one in getattr(loader, "loaders", ()):
        end_workers(one)
    iterator = getattr(loader, "_iterator", None)
    if iterator is not None:
        iterator._shutdown_workers()  # torch has no public name for it
        loader._iterator = None  # type: ignore[attr-defined]


@contextmanager
def batches_of(loader: Iterable[Batch]) -> Iterator[Iterator[Batch]]:
    """The loader's batches; its workers end with the context. Raises: TryAgain, see `in_use`."""
    with in_use(loader):
        yield iter(loader)
    end_workers(loader)


@contextmanager
def in_use(loader: Iterable[Any]) -> Iterator[None]:
    """Around all that is done with a loader's batches: its workers stay for the next time, but not after an error.

    Raises:
        TryAgain: a worker died, with the file it was at. torch raises that from any line of the main process (it
            handles SIGCHLD), hence a context.
    """
    try:
        yield
    except BaseException as error:
        # Or the main process was just fetching what the worker had shared with it: then a connection breaks.
        # Or a checkpoint was being written, and its failure says so.
        causes = (error, error.__cause__)
        deaths = _deaths(loader) if any(isinstance(each, (RuntimeError, OSError, EOFError)) for each in causes) else []
        end_workers(loader)
        if deaths:
            raise TryAgain(
                f"{'; '.join(deaths)}. Killed by SIGKILL, it mostly was out of memory: lower loader.workers; by "
                "SIGBUS, out of shared memory: enlarge /dev/shm or give loader.workers=0; otherwise the file may break "
                "its decoder. A training run goes on from its last checkpoint with --resume"
            ) from error
        raise


def _deaths(loader: Any) -> list[str]:
    """One text a worker process that ended by itself."""
    if hasattr(loader, "loaders"):
        return [text for one in loader.loaders for text in _deaths(one)]
    workers = getattr(getattr(loader, "_iterator", None), "_workers", ())  # torch has no public name for them
    # A connection breaks before the process is gone, and torch's own error may come only now, in the middle of this.
    for _ in range(2):
        with suppress(RuntimeError):
            ended = wait([worker.sentinel for worker in workers], timeout=1)
            for worker in workers:
                if worker.sentinel in ended:
                    worker.join()
            break
    texts = []
    for number, worker in enumerate(workers):
        if worker.exitcode is None or worker.exitcode == 0:
            continue
        names = {int(each): each.name for each in signal.Signals}
        how = f"was killed by {names.get(-worker.exitcode, -worker.exitcode)}" if worker.exitcode < 0 else "exited"
        texts.append(f"worker process {number} of the loader {how} {loader.dataset.work_of(number)}")
    return texts
