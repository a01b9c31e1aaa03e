"""A worker process that dies is named with the file it was at."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from transfer.batch.collate import Collate, make_loader
from transfer.batch.view import TrainingView
from transfer.engine.workers import batches_of, end_workers, in_use
from transfer.types import ImageRecord, Request, Sample, UserError


class Drawn:
    """Ten small images; one of them may kill the process that reads it."""

    class_names = ("one", "two")

    def __init__(self, deadly: int | None = None, *, how: int = signal.SIGKILL) -> None:
        self.deadly, self.how = deadly, how

    def __len__(self) -> int:
        return 10

    def record(self, index: int) -> ImageRecord:
        return ImageRecord(f"photographs/{index}.jpg", index, 0)

    def labels(self) -> np.ndarray:
        return np.zeros(10, np.int64)

    def __getitem__(self, index: int) -> Sample:
        if index == self.deadly:
            if self.how:
                os.kill(os.getpid(), self.how)
            os._exit(3)
        image, none = np.full((8, 8, 3), index, np.uint8), np.zeros(0, np.float32)
        return Sample(
            image,
            boxes=none.reshape(0, 4),
            labels=none.astype(np.int64),
            difficult=none.astype(bool),
            weights=none,
            index=index,
            image_id=index,
            path=f"photographs/{index}.jpg",
            original_size=(8, 8),
            label=0,
        )


def loader_of(dataset: Any, workers: int) -> Any:
    view = TrainingView(dataset, lambda sample, request, rng: sample)
    return make_loader(view, [[Request(i, i, None)] for i in range(10)], Collate((0, 0, 0)), workers=workers)


@pytest.fixture(autouse=True)
def _no_worker_stays() -> Iterator[None]:
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize(("how", "words"), [(signal.SIGKILL, "was killed by SIGKILL"), (0, "exited")])
def test_a_dead_worker_is_named_with_its_file(how: int, words: str) -> None:
    with (
        pytest.raises(UserError, match=rf"worker process 0 of the loader {words} while it prepared photographs/5\.jpg"),
        batches_of(loader_of(Drawn(5, how=how), 1)) as batches,
    ):
        for _ in batches:
            pass


def test_other_errors_stay_what_they_are_and_end_the_workers() -> None:
    loader = loader_of(Drawn(), 1)

    def one_batch() -> None:
        with in_use(loader):
            next(iter(loader))
            raise RuntimeError("of another kind")

    with pytest.raises(RuntimeError, match="of another kind"):
        one_batch()


def test_workers_stay_from_one_use_to_the_next() -> None:
    loader = loader_of(Drawn(), 1)
    pids = []
    for _ in range(2):
        with in_use(loader):
            assert sum(len(batch.targets) for batch in loader) == 10
        pids.append(loader._iterator._workers[0].pid)
    assert pids[0] == pids[1]
    end_workers(loader)


def test_in_the_main_process_nothing_is_noted() -> None:
    loader = loader_of(Drawn(), 0)
    with batches_of(loader) as batches:
        next(batches)
    assert loader.dataset.work_of(0) == "before it prepared anything"
