"""A second file that computes in 8-bit integers, and what it costs: the metric, the time and the size of both."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transfer.assemble import build_dataset, build_evaluator, set_data_root, task_name
from transfer.batch.collate import Collate
from transfer.batch.view import ViewedSample
from transfer.data.image import read_image
from transfer.data.subset import ClassificationSubset, SegmentationSubset, SubsetDataset
from transfer.engine.checkpoint import Checkpoint
from transfer.engine.distributed import World
from transfer.engine.workers import end_workers
from transfer.export.onnx_file import ExportFacts, describe, read, save
from transfer.export.quantize import quantized
from transfer.export.session import restore_exported
from transfer.loading import build_augment
from transfer.prediction import find_images, sample_of
from transfer.restoring import Restored
from transfer.types import Request, Sample, UserError, task_of

logger = logging.getLogger("trickstack")

_SUBSETS: dict[str, Callable[..., Any]] = {
    "detection": SubsetDataset,
    "segmentation": SegmentationSubset,
    "classification": ClassificationSubset,
}
_ROUNDS = 10


def write_integers(
    draft: Path,
    output: Path,
    checkpoint: Checkpoint,
    *,
    calibration: Sequence[str],
    images: int,
    data: str | None,
    trust: Sequence[str],
) -> None:
    """Write the file, and log what it costs.

    Args:
        draft: the file in float32.
        output: where to write.
        checkpoint: that both are made of.
        calibration: files, folders, globs; none: the config's training images.
        images: so many of those at the most, and so many test images to measure on.
        data: folder in place of the config's.
        trust: modules besides this project's that the config may name.
    Raises:
        UserError: no images to learn ranges from, or to measure on.
    """
    import onnx

    _, restored = restore_exported(draft, trust=trust)
    if data is not None:
        set_data_root(restored.config, data, restored.trusted, parts=("train", "test"))
    feeds = _feeds(restored, _pictures(restored, calibration, images))
    first = next(feeds, None)
    if first is None:
        raise UserError("--calibration: no image could be read")
    _, facts, content = read(draft)
    integers = quantized(onnx.load_from_string(content), _chained(first, feeds), gives=facts.gives)
    del integers.metadata_props[:]
    describe(integers, checkpoint, ExportFacts(**{**_plain(facts), "precision": "int8"}))
    save(integers, output)
    _, other = restore_exported(output, trust=trust)
    other.config = restored.config
    names = {"float32": (restored, draft), "int8": (other, output)}
    figures = {name: _measured(each, images) for name, (each, _) in names.items()}
    seconds = _seconds({name: each.task.model.session for name, (each, _) in names.items()}, first)
    for name, (_, path) in names.items():
        label, value = figures[name]
        logger.info(
            "%s: %s %.2f %%, %.1f ms an image, %.1f MB",
            name, label, 100 * value, 1e3 * seconds[name], path.stat().st_size / 1e6,
        )  # fmt: skip
    (label, before), (_, after) = figures["float32"], figures["int8"]
    logger.info("int8 loses %.2f points of %s", 100 * (before - after), label)


def _plain(facts: ExportFacts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in facts.__dataclass_fields__}


def _some_of(dataset: Any, count: int) -> Any:
    """So many images at the most, spread over the data set."""
    return _SUBSETS[task_of(dataset)](dataset, every=max(1, len(dataset) // count), limit=count)


def _pictures(restored: Restored, paths: Sequence[str], count: int) -> Iterator[Sample]:
    """Decoded images to learn the ranges from."""
    if paths:
        yield from (sample_of(read_image(path), path) for path in find_images(paths)[:count])
        return
    train = build_dataset(restored.config["data"]["train"], "data.train", restored.class_names, restored.trusted)
    some = _some_of(train, count)
    yield from (some[index] for index in range(len(some)))


def _feeds(restored: Restored, samples: Iterator[Sample]) -> Iterator[dict[str, np.ndarray]]:
    """What the graph is given: each image prepared as for testing."""
    model = restored.task.model
    pipeline = build_augment(restored.config, "test", restored.trusted)
    classifies = task_name(restored.config) == "classification"
    divisor = 1 if classifies else restored.config["loader"].get("size_divisor", 32)
    collate = Collate(model.backbone.pad_value, size_divisor=divisor)
    request = Request(0, 0)
    for sample in samples:
        batch = collate([ViewedSample(pipeline(sample, request, np.random.default_rng(0)), request)])
        yield model.feeds(batch.images, [target.size for target in batch.targets])


def _chained(first: dict[str, np.ndarray], rest: Iterator[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    yield first
    yield from rest


def _measured(restored: Restored, count: int) -> tuple[str, float]:
    """The main figure of the config's first metric on so many test images: (name, value)."""
    node = restored.config["data"]["test"]
    some = _some_of(build_dataset(node, "data.test", restored.class_names, restored.trusted), count)
    evaluator = build_evaluator(
        restored.config, restored.task, some, World(0, 1, torch.device("cpu")), restored.trusted
    )
    try:
        result = evaluator(restored.task.model)[0]
    finally:
        end_workers(evaluator.loader)
    return f"{result.main} of {len(some)} test images", result.values[result.main]


def _seconds(sessions: dict[str, Any], feed: dict[str, np.ndarray]) -> dict[str, float]:
    """Median seconds of a pass over one image, in turn."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(_ROUNDS + 2):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(None, feed)
            if number >= 2:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in times.items()}
