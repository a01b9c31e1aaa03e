"""A second file that computes in 8-bit integers, and what it costs: the metric, the time and the size of both."""

from __future__ import annotations

import copy
import itertools
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transfer.assemble import build_dataset, build_evaluator, set_data_root, task_name
from transfer.batch.collate import Collate
from transfer.batch.view import ViewedSample
from transfer.build import Node
from transfer.data.image import read_image
from transfer.data.subset import ClassificationSubset, SegmentationSubset, SubsetDataset
from transfer.engine.checkpoint import Checkpoint
from transfer.engine.distributed import World
from transfer.engine.workers import end_workers
from transfer.export.onnx_file import describe, read, save
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
_WORTH = 0.9
"""Share of the metric below which a file in integers is warned of."""


@dataclass(frozen=True)
class Photographs:
    """What the ranges are learnt from, and what both files are measured on."""

    files: list[Path]
    """To learn from; none: `train`."""
    train: Any
    """A data set to learn from, or None."""
    test: Any
    """A data set to measure on."""
    config: Node
    """Of the checkpoint, with the folder that was asked for."""

    @classmethod
    def found(cls, restored: Restored, *, calibration: Sequence[str], count: int, data: str | None) -> Photographs:
        """Look for them, spread over what there is.

        Args:
            restored: the checkpoint.
            calibration: files, folders, globs to learn from; none: the config's training images.
            count: so many of those at the most, and so many test images.
            data: folder in place of the config's.
        Raises:
            UserError: there are none.
        """
        config, names, trusted = copy.deepcopy(restored.config), restored.class_names, restored.trusted
        if data is not None:
            _set_data_root(config, data, trusted, alone=bool(calibration))
        files, train = find_images(calibration), None
        if files:
            files = [files[place] for place in _spread(len(files), count)]
        else:
            train = _some_of(build_dataset(config["data"]["train"], "data.train", names, trusted), count)
        test = _some_of(build_dataset(config["data"]["test"], "data.test", names, trusted), count)
        return cls(files, train, test, config)

    def samples(self) -> Iterator[Sample]:
        """Decoded images to learn from."""
        yield from (sample_of(read_image(path), path) for path in self.files)
        yield from (self.train[index] for index in range(0 if self.train is None else len(self.train)))


def write_integers(
    draft: Path, output: Path, checkpoint: Checkpoint, photographs: Photographs, *, trust: Sequence[str]
) -> None:
    """Write the file, and log what it costs.

    Args:
        draft: the file in float32.
        output: where to write.
        checkpoint: that both are made of.
        photographs: to learn from and to measure on.
        trust: modules besides this project's that the config may name.
    """
    import onnx

    _, restored = restore_exported(draft, trust=trust)
    feeds = _feeds(restored, photographs.samples())
    first = next(feeds)
    _, facts, content = read(draft)
    integers = quantized(onnx.load_from_string(content), itertools.chain([first], feeds), gives=facts.gives)
    del integers.metadata_props[:]
    describe(integers, checkpoint, replace(facts, precision="int8"))
    save(integers, output)
    _, other = restore_exported(output, trust=trust)
    names = {"float32": (restored, draft), "int8": (other, output)}
    figures = {name: _measured(each, photographs) for name, (each, _) in names.items()}
    seconds = _seconds({name: each.task.model.session for name, (each, _) in names.items()}, first)
    for name, (_, path) in names.items():
        label, value = figures[name]
        logger.info(
            "%s: %s %.2f %%, %.1f ms an image, %.1f MB",
            name, label, 100 * value, 1e3 * seconds[name], path.stat().st_size / 1e6,
        )  # fmt: skip
    (label, before), (_, after) = figures["float32"], figures["int8"]
    _tell_loss(label, before, after)


def _tell_loss(label: str, before: float, after: float) -> None:
    logger.info("int8 loses %.2f points of %s", 100 * (before - after), label)
    if after < _WORTH * before:
        kept = 100 * after / before
        logger.warning("int8 keeps only %.0f %% of %s: calibrate on more images, or take float32", kept, label)


def _set_data_root(config: Node, root: str, trusted: Sequence[str] | None, *, alone: bool) -> None:
    """Raises: UserError where the config does not take one folder for training and test images."""
    try:
        set_data_root(config, root, trusted, parts=("test",) if alone else ("train", "test"))
    except UserError as error:
        raise UserError(
            f"{error} (in exporting: the test images by --data, others to learn from by --calibration)"
        ) from None


def _spread(length: int, count: int) -> list[int]:
    """So many positions at the most, evenly over all."""
    number = min(length, count)
    return [position * length // number for position in range(number)]


def _some_of(dataset: Any, count: int) -> Any:
    """So many images at the most, spread over the data set."""
    return _SUBSETS[task_of(dataset)](dataset, indices=_spread(len(dataset), count))


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


def _measured(restored: Restored, photographs: Photographs) -> tuple[str, float]:
    """The main figure of the config's first metric: (name, value)."""
    world = World(0, 1, torch.device("cpu"))
    evaluator = build_evaluator(photographs.config, restored.task, photographs.test, world, restored.trusted)
    try:
        result = evaluator(restored.task.model)[0]
    finally:
        end_workers(evaluator.loader)
    return f"{result.main} of {len(photographs.test)} test images", result.values[result.main]


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
