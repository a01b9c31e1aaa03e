"""From a config's `loader` and `augment` to batches: of a training run from any iteration on, and of a test set."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from transfer.batch.collate import Collate, make_loader
from transfer.batch.mixing import mixed_iterations
from transfer.batch.orders import Order, OrderByClass
from transfer.batch.requests import RequestBatches, evaluation_batches
from transfer.batch.shapes import PlannedShapes
from transfer.batch.view import TrainingView
from transfer.build import Node, build, check_arguments
from transfer.data.strangers import short
from transfer.data.table import sizes_of
from transfer.engine.distributed import World
from transfer.engine.settings import TrainingSettings
from transfer.ops.reduced_scale import LEAST
from transfer.types import AnyDataset, Batch, ClassificationDataset, UserError, task_of

_LARGEST_DIVISOR = 1 << 12


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """The config's `loader`."""

    batch_size: int
    """Images of one optimizer step, over all processes and micro-batches."""
    test_batch_size: int = 1
    """Images a forward pass in testing, on each process."""
    shapes: Any = None
    """How a batch's shape is chosen; None: the augmentation decides."""
    size_divisor: int = 32
    aspect_grouping: bool = False
    """Batches of landscape or of portrait images: less padding."""
    workers: int = 2
    """Processes that prepare batches, for each process of the run."""
    on_broken: str = "stop"
    """"stop" at an image that cannot be read, or "skip" it and draw another."""
    decode_at_least: int | None = None
    """Large JPEG photographs are decoded for training at a half, a quarter or an eighth of their scale, as long as
    their short side keeps so many pixels: give what the augmentation enlarges no crop beyond. None: as they are."""
    mixup: Any = None
    """`transfer.augment.box_mixup.BoxMixup` mixes training images in pairs; None: no mixing."""
    mosaic: Any = None
    """`transfer.augment.mosaic.Mosaic` joins training images in fours, before any are mixed; None: no mosaics."""
    blend: Any = None
    """`transfer.augment.image_mixing.ImageMixup` or its like mixes the images of a batch with one another, in
    classification; None: no mixing."""
    order: Any = None
    """Which images an epoch draws and how often, as `transfer.batch.orders.ClassBalanced`; None: each once."""
    test_time: dict[str, Any] | None = None
    """Arguments of `transfer.engine.views.TestTime`, in segmentation of `SegmentationTestTime` beside it: test images
    in several views. None: a single view."""


def number_of_workers(asked: int) -> int:
    """The asked number, but no more than the machine has cores beside the one that trains."""
    return min(asked, max(0, len(os.sched_getaffinity(0)) - 1 if hasattr(os, "sched_getaffinity") else asked))


def loader_settings(config: Node, trusted: Sequence[str] | None = None) -> LoaderSettings:
    """The config's `loader`, checked."""
    arguments = build(config["loader"], "loader", trusted=trusted)
    check_arguments(LoaderSettings, arguments, "loader")
    settings = LoaderSettings(**arguments)
    wrong = [f"{n}={getattr(settings, n)!r}" for n in ("batch_size", "test_batch_size", "size_divisor", "workers")
             if not isinstance(getattr(settings, n), int) or getattr(settings, n) < (n != "workers")]  # fmt: skip
    if wrong:
        raise UserError(f"loader: {', '.join(wrong)} must be whole numbers above 0 (workers: 0 or more)")
    if settings.size_divisor > _LARGEST_DIVISOR:
        raise UserError(f"loader: size_divisor={settings.size_divisor} must be at most {_LARGEST_DIVISOR} pixels")
    least = settings.decode_at_least
    if least is not None and (type(least) is not int or least < LEAST):
        raise UserError(f"loader: decode_at_least={least!r} must be a whole number of at least {LEAST} pixels, or None")
    if settings.on_broken not in ("stop", "skip"):
        raise UserError(f"loader: on_broken={settings.on_broken!r} must be 'stop' or 'skip'")
    return settings


def training_settings(config: Node) -> TrainingSettings:
    """The config's `training`, checked."""
    check_arguments(TrainingSettings, config["training"], "training")
    return TrainingSettings(**config["training"])


def build_augment(config: Node, which: str, trusted: Sequence[str] | None = None) -> Callable[..., Any]:
    """The config's pipeline for "train" or "test"."""
    nodes = config["augment"]
    if set(nodes) != {"train", "test"}:
        raise UserError(f"augment has {', '.join(map(repr, nodes)) or 'nothing'}; give train and test, no others")
    pipeline = build(nodes[which], f"augment.{which}", trusted=trusted)
    if not callable(pipeline):
        raise UserError(
            f"augment.{which}={short(nodes[which])} prepares no images: give dict(type=...), such as a preset of "
            "transfer.augment"
        )
    return pipeline


def aspects(dataset: AnyDataset) -> list[float]:
    """Height / width of every image. Raises: UserError for a data set that does not know it without opening files."""
    if isinstance(dataset, ClassificationDataset):
        raise UserError(
            "loader.aspect_grouping=True: in classification all images of a batch have one shape: leave it out"
        )
    height, width = sizes_of(dataset).T
    return list((height / width).tolist())


def _divisor(settings: LoaderSettings, dataset: AnyDataset) -> int:
    """What a batch's sides are rounded up to: images that are classified are not padded."""
    return 1 if task_of(dataset) == "classification" else settings.size_divisor


def test_loader(
    dataset: AnyDataset,
    augment: Callable[..., Any],
    settings: LoaderSettings,
    pad_value: tuple[int, int, int],
    world: World,
) -> DataLoader:
    """Every image once over all processes."""
    batches = evaluation_batches(
        len(dataset),
        settings.test_batch_size,
        rank=world.rank,
        world_size=world.size,
        aspect=aspects(dataset) if settings.test_batch_size > 1 and task_of(dataset) != "classification" else None,
    )
    return make_loader(
        TrainingView(dataset, augment),
        batches,
        Collate(pad_value, size_divisor=_divisor(settings, dataset)),
        workers=number_of_workers(settings.workers),
        pin_memory=world.device.type == "cuda",
    )


def training_batches(
    config: Node,
    dataset: AnyDataset,
    pad_value: tuple[int, int, int],
    world: World,
    trusted: Sequence[str] | None = None,
) -> tuple[Callable[[int], Iterable[Batch]], int]:
    """What makes the micro-batches from an iteration to the end of the run, and the optimizer steps of an epoch."""
    settings, loading = training_settings(config), loader_settings(config, trusted)
    micro = loading.batch_size // settings.accumulate
    if micro * settings.accumulate != loading.batch_size:
        raise UserError(
            f"loader.batch_size={loading.batch_size} is not a multiple of training.accumulate={settings.accumulate}"
        )
    batches = RequestBatches(
        len(dataset),
        batch_size=micro,
        seed=settings.seed,
        shapes=loading.shapes,
        rank=world.rank,
        world_size=world.size,
        aspect=aspects(dataset) if loading.aspect_grouping else None,
        order=_order(loading, dataset),
    )
    per_epoch = max(1, batches.iterations_per_epoch // settings.accumulate)
    total = settings.total(per_epoch)
    if isinstance(loading.shapes, PlannedShapes):
        loading.shapes.plan(total * settings.accumulate)
    augment, combine, join = build_augment(config, "train", trusted), None, None
    if loading.blend is not None:
        if not isinstance(dataset, ClassificationDataset):
            raise UserError("loader.blend mixes whole images in classification; for boxes or masks give loader.mixup")
        if micro // world.size < 2:
            raise UserError(
                f"loader.blend mixes the images of one micro-batch on one process, which is {micro // world.size} here "
                f"(loader.batch_size={loading.batch_size}, training.accumulate={settings.accumulate}, {world.size} "
                "processes): it would never mix. Make the batch larger, or give loader.blend=None"
            )
        counts = {"total": total, "per_epoch": per_epoch, "images": len(dataset)}
        batches.blend_until = mixed_iterations(loading.blend, **counts, setting="loader.blend") * settings.accumulate
    if loading.mixup is not None:
        mixed = mixed_iterations(loading.mixup, total=total, per_epoch=per_epoch, images=len(dataset))
        batches.mix_until = mixed * settings.accumulate
        batches.mixer, combine = loading.mixup.draw, loading.mixup.combine
    if loading.mosaic is not None:
        counts = {"total": total, "per_epoch": per_epoch, "images": len(dataset)}
        batches.gather_until = mixed_iterations(loading.mosaic, **counts, setting="loader.mosaic") * settings.accumulate
        batches.gatherer, join = loading.mosaic.gather, loading.mosaic.join
    view = TrainingView(
        dataset,
        augment,
        on_broken=loading.on_broken,  # type: ignore[arg-type]
        combine=combine,
        join=join,
        decode_at_least=loading.decode_at_least,
    )
    collate = Collate(pad_value, size_divisor=_divisor(loading, dataset), blend=loading.blend)

    def batches_from(iteration: int) -> Iterable[Batch]:
        rest = copy.copy(batches)
        rest.start, rest.iterations = iteration * settings.accumulate, total * settings.accumulate
        return make_loader(
            view,
            rest,
            collate,
            workers=number_of_workers(loading.workers),
            pin_memory=world.device.type == "cuda",
        )

    return batches_from, per_epoch


def _order(loading: LoaderSettings, dataset: AnyDataset) -> Order | None:
    """The config's `loader.order`, told the classes where it asks for them."""
    order = loading.order
    if order is not None and not isinstance(order, Order):
        raise UserError(
            f"loader.order={order!r} cannot order images: give None, or dict(type=RepeatedAugmentation) with from "
            "transfer.batch.orders import RepeatedAugmentation"
        )
    if isinstance(order, OrderByClass):
        if not isinstance(dataset, ClassificationDataset):
            raise UserError(f"loader.order: {type(order).__name__} needs images of one class each: leave it out here")
        order.know(dataset.labels(), dataset.class_names)
    return order
