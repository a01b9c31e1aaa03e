"""Ending a loader's worker processes at once, not when the garbage collector comes by.

An error that a worker met is raised with a traceback that refers to itself, so the loader's iterator is left to the
garbage collector. That breaks the iterator's queues before the iterator can tell its workers to stop; and as workers
ignore SIGTERM (see `transfer.batch.collate.worker_init`), Python would then wait for them at its exit, forever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from transfer.types import Batch


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
    """The loader's batches; its workers end with the context."""
    try:
        yield iter(loader)
    finally:
        end_workers(loader)
