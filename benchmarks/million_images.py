#!/usr/bin/env python
"""The input side over an index of a million images: memory, start, workers, and resuming late.

    OMP_NUM_THREADS=1 python benchmarks/million_images.py

A synthetic index from a seed, 1,000,000 images with five boxes each; images are not decoded (a small grey one stands
for each), so what is measured is what grows with the number of images. One row a claim of docs/scale.md:

- the memory of the index, and what a worker that has looked at all of it has for itself: the index as it is, and with
  the paths and names as lists of texts, as it was before. A forked worker shares the index until it writes to it, and
  a reference count is written; one that is spawned gets a copy.
- the time that pickling takes, which a spawned worker waits for.
- the seconds until the sampler gives its first batch at the start and after 50 epochs; until a loader gives its first
  batch with 0, 2 and 4 workers (forked; spawned ones import torch anew); of what a run does with all images at its
  start.

CPU time, but wall time for loaders, whose processes work together; memory from /proc, so on Linux only.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from comparison import Result, Row, benchmark_parser, one_thread, report, versions_of

from transfer.batch.collate import Collate, make_loader
from transfer.batch.requests import RequestBatches, evaluation_batches
from transfer.batch.view import TrainingView
from transfer.data.concat import UnionDataset
from transfer.data.subset import split_validation
from transfer.data.table import DetectionTable, TableDataset
from transfer.data.texts import Texts
from transfer.loading import aspects
from transfer.provenance import fingerprint
from transfer.types import Request, Sample

BOXES_AN_IMAGE, CLASSES, BATCH = 5, 20, 64
PAGE = 16
"""Every so many paths one is read: as strings they are smaller than a page, so all pages are touched."""


class GreyImages(TableDataset):
    """A table whose images are not opened."""

    def __getitem__(self, index: int) -> Sample:
        record = self.record(index)
        return Sample(
            image=np.full((32, 32, 3), 128, np.uint8),
            boxes=record.boxes,
            labels=record.labels,
            difficult=record.difficult,
            weights=np.ones(len(record.labels), np.float32),
            index=index,
            image_id=record.image_id,
            path=record.path,
            original_size=record.size,
        )


def unchanged(sample: Sample, request: Request, generator: np.random.Generator) -> Sample:
    """No augmentation."""
    return sample


def synthetic(images: int, seed: int = 0) -> GreyImages:
    """An index of so many images."""
    generator = np.random.default_rng(seed)
    boxes = images * BOXES_AN_IMAGE
    corner = generator.integers(0, 300, (boxes, 2)).astype(np.float32)
    side = generator.integers(10, 200, (boxes, 2)).astype(np.float32)
    table = DetectionTable(
        paths=Texts(f"/data/set/images/part{number // 1000:04d}/{number:012d}.jpg" for number in range(images)),
        image_ids=Texts(f"{number:012d}" for number in range(images)),
        sizes=generator.integers(300, 640, (images, 2)),
        starts=np.arange(0, boxes + 1, BOXES_AN_IMAGE),
        boxes=np.concatenate([corner, corner + side], axis=1),
        labels=generator.integers(0, CLASSES, boxes),
        difficult=np.zeros(boxes, bool),
        crowd=np.zeros(boxes, bool),
        areas=side.prod(axis=1),
    )
    return GreyImages(table, [f"class {label}" for label in range(CLASSES)])


def with_lists(dataset: TableDataset) -> TableDataset:
    """The same with a text object for each path and name."""
    table = dataset.table
    columns = {name: getattr(table, name) for name in table.__slots__}
    columns |= {"paths": list(table.paths), "image_ids": list(table.image_ids)}
    return TableDataset(DetectionTable(**columns), dataset.class_names)


def own_memory(process: int | str = "self") -> float:
    """MiB that a process shares with no other."""
    fields = dict(line.split(":") for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) / 1024


def grown_by(work: Callable[[], object]) -> float:
    """MiB that the work leaves a forked process with for itself, beyond what it begins with."""
    reader, writer = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        import gc

        gc.disable()
        before = own_memory()
        kept = work()
        writer.send(own_memory() - before)
        del kept

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    grown = float(reader.recv())
    process.join()
    return grown


def copied(dataset: TableDataset) -> TableDataset:
    """As a process gets it that was not forked."""
    return pickle.loads(pickle.dumps(dataset, protocol=5))


def look_at_all(dataset: TableDataset) -> None:
    """What a worker does in the course of an epoch, as far as it concerns pages of memory."""
    for texts in (dataset.table.paths, dataset.table.image_ids):
        for place in range(0, len(texts), PAGE):
            str(texts[place])
    for name in ("sizes", "starts", "boxes", "labels", "difficult", "crowd", "areas"):
        getattr(dataset.table, name).sum()


def seconds(work: Callable[[TableDataset], Any], dataset: TableDataset, clock: Callable[[], float]) -> float:
    """What the work takes."""
    started = clock()
    work(dataset)
    return clock() - started


def first_batch(dataset: TableDataset, workers: int, start: int) -> None:
    """A loader's first batch."""
    batches = RequestBatches(len(dataset), batch_size=BATCH, seed=0, start=start)
    loader = iter(make_loader(TrainingView(dataset, unchanged), batches, Collate((0, 0, 0)), workers=workers))
    next(loader)
    shutdown = getattr(loader, "_shutdown_workers", None)
    if shutdown is not None:
        shutdown()


def memory_rows(dataset: TableDataset, what: str) -> list[Row]:
    """The index as it is beside one with lists."""
    rows = []
    lists = with_lists(dataset)
    for key, name, measure in (
        ("memory", "memory of the index", lambda each: grown_by(lambda: copied(each))),
        ("worker", "what a forked worker copies of it in an epoch", lambda each: grown_by(lambda: look_at_all(each))),
    ):
        ours, theirs = measure(dataset), measure(lists)
        rows.append(_row(f"million_{key}", f"{what}: {name}", ours, theirs, "MiB", "with lists of texts"))
    packed, loose = (seconds(copied, each, time.process_time) for each in (dataset, lists))
    rows.append(_row("million_pickle", f"{what}: to pickle it and back", packed, loose, "s", "with lists of texts"))
    return rows


def _row(key: str, what: str, ours: float, theirs: float, unit: str, beside: str, note: str = "") -> Row:
    ratio = theirs / max(ours, 1e-3)
    return Row(key, what, f"{ours:.2f} {unit}", f"{beside}: {theirs:.2f} {unit}", ratio, (ratio, ratio), note=note)


def start_rows(dataset: TableDataset, small: TableDataset, what: str) -> list[Row]:
    """What a run does at its start, beside the same over a thousandth of the images."""
    warnings.filterwarnings("ignore", message=".*worker processes in total")  # 4 on a machine of 2 cores
    late = 50 * (len(dataset) // BATCH) + 1000
    works: Sequence[tuple[str, str, Callable[[TableDataset], Any]]] = [
        ("sampler", "the sampler's first batch", lambda data: next(iter(sampler(data, 0)))),
        ("resume", "the same from epoch 50 on", lambda data: next(iter(sampler(data, late)))),
        *((f"loader_{n}", f"a loader's first batch, {n} workers", lambda data, n=n: first_batch(data, n, late))
          for n in (0, 2, 4)),
        ("aspects", "height over width of all images, for aspect grouping", aspects),
        ("split", "to hold out a tenth", lambda data: split_validation(data, 0.1, 0)),
        ("union", "to join two sets", lambda data: UnionDataset([data, data])),
        ("fingerprint", "the fingerprint of a checkpoint", fingerprint),
        ("evaluation", "the list of evaluation batches", lambda data: evaluation_batches(len(data), BATCH)),
    ]  # fmt: skip
    rows = []
    for key, name, work in works:
        work(small)
        clock = time.perf_counter if key.startswith("loader") else time.process_time
        whole, part = (seconds(work, each, clock) for each in (dataset, small))
        beside = f"with {len(small):,} images: {part:.3f} s"
        ratio = whole / part
        rows.append(Row(f"million_{key}", f"{what}: {name}", f"{whole:.3f} s", beside, ratio, (ratio, ratio)))
    return rows


def sampler(dataset: TableDataset, start: int) -> RequestBatches:
    """The run's batches from a position on."""
    return RequestBatches(len(dataset), batch_size=BATCH, seed=0, start=start)


def result(*, quick: bool) -> Result:
    """All rows."""
    images = 100_000 if quick else 1_000_000
    dataset, small = synthetic(images), synthetic(images // 1000)
    what = f"{images:,} images, {images * BOXES_AN_IMAGE:,} boxes"
    rows = start_rows(dataset, small, what)
    if os.path.exists("/proc/self/smaps_rollup"):
        rows += memory_rows(dataset, what)
    return Result(rows, versions_of("numpy", "torch"))


def main() -> None:
    options = benchmark_parser(__doc__).parse_args()
    one_thread()
    report(result(quick=options.quick), options)


if __name__ == "__main__":
    main()
