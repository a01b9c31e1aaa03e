"""Joins the folders: from a config, or from a checkpoint, to data sets, task, loaders and a run.

This is the one module that knows all of them; training, evaluation, prediction and experiments start from it.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from backbones.contract import Backbone
from backbones.dropblock import DropBlock, attach_dropblock
from transfer.batch.collate import Collate, make_loader
from transfer.batch.mixing import mixed_iterations
from transfer.batch.requests import RequestBatches, evaluation_batches
from transfer.batch.view import TrainingView
from transfer.build import Node, build, check_arguments, nearest, parameters_of, resolve, to_json
from transfer.data.subset import split_validation
from transfer.engine.checkpoint import FORMAT, library_versions
from transfer.engine.distributed import World
from transfer.engine.segmentation_views import SegmentationTestTime, SegmentationViewsTask
from transfer.engine.settings import TrainingSettings
from transfer.engine.sync_bn import lone_statistics, synchronize
from transfer.engine.task import DetectionTask, SegmentationTask, Task
from transfer.engine.train import MetricLike, Run
from transfer.engine.views import TestTime, TestTimeTask, ViewsLoader, scaled_pipeline
from transfer.evaluator import DetectionEvaluator, Evaluator, SegmentationEvaluator
from transfer.ops.box_voting import merge_predictions
from transfer.optim.ema import EMA
from transfer.optim.precision import Precision
from transfer.types import AnyDataset, Batch, DetectionDataset, UserError

logger = logging.getLogger("trickstack")


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
    mixup: Any = None
    """`transfer.augment.box_mixup.BoxMixup` mixes training images in pairs; None: no mixing."""
    mosaic: Any = None
    """`transfer.augment.mosaic.Mosaic` joins training images in fours, before any are mixed; None: no mosaics."""
    test_time: dict[str, Any] | None = None
    """Arguments of `transfer.engine.views.TestTime`, in segmentation of `SegmentationTestTime` beside it: test images
    in several views. None: a single view."""


def number_of_workers(asked: int) -> int:
    """The asked number, but no more than the machine has cores beside the one that trains."""
    return min(asked, max(0, len(os.sched_getaffinity(0)) - 1 if hasattr(os, "sched_getaffinity") else asked))


def set_data_root(
    config: Node, root: str, trusted: Sequence[str] | None = None, parts: Sequence[str] = ("train", "val", "test")
) -> None:
    """Let every data set of the config that has a `root` read from another place.

    Args:
        config: changed in place.
        root: the folder.
        trusted: see `transfer.build.resolve`.
        parts: which data sets.
    Raises:
        UserError: none of them has a `root`; or training and test data would become the same.
    """
    found, before = False, copy.deepcopy(config["data"])
    for node in (config["data"].get(part) for part in parts):
        if isinstance(node, dict) and "root" in (parameters_of(resolve(node.get("type", ""), trusted)) or ()):
            node["root"] = root
            found = True
    if not found:
        raise UserError(
            f"--data {root!r}: no data set of this config has a root; set its paths in a config, or in training with "
            "--cfg-options"
        )
    ours = config["data"]
    if len(parts) > 1 and ours.get("train") == ours.get("test") and before.get("train") != before.get("test"):
        raise UserError(
            f"--data {root!r}: this config keeps training and test images in folders of their own, which would become "
            "one: give --cfg-options data.train.root=... data.test.root=..."
        )


def build_dataset(node: Node, where: str, class_names: Sequence[str] | None, trusted: Sequence[str] | None) -> Any:
    """A data set whose labels are in the given order, where one is given.

    Raises:
        UserError: its classes are others.
    """
    if not isinstance(node, dict) or "type" not in node:
        raise UserError(f"{where}={node!r} must be dict(type=..., ...)")
    given = {}
    if class_names is not None and "class_names" in (parameters_of(resolve(node["type"], trusted)) or ()):
        given["class_names"] = tuple(class_names)
    dataset = build(node, where, trusted=trusted, **given)
    if class_names is not None and tuple(dataset.class_names) != tuple(class_names):
        raise UserError(
            f"{where} has the classes {', '.join(dataset.class_names)}; needed, in this order: "
            f"{', '.join(class_names)}. Give class_names or rename"
        )
    return dataset


@dataclass
class Data:
    """The data sets of a config."""

    train: AnyDataset
    measured: AnyDataset
    """What is evaluated during the run: validation data, or where there is none, the test set."""
    has_validation: bool
    test: AnyDataset
    """Opened before training, so that a mistake in it does not cost a run."""


def build_data(config: Node) -> Data:
    """The training set and what is evaluated during the run.

    `data.val` is a data set, a fraction of the training set to hold out, or None: the test set is measured, and no
    checkpoint is called best.
    """
    nodes = config["data"]
    unknown = set(nodes) - {"train", "val", "test"}
    if unknown or not {"train", "test"} <= set(nodes):
        raise UserError(f"data has {', '.join(map(repr, nodes))}; give train, test and val (or val=None)")
    train = build_dataset(nodes["train"], "data.train", None, None)
    check_kind(train, task_name(config))
    test = build_dataset(nodes["test"], "data.test", train.class_names, None)
    val = nodes.get("val")
    if isinstance(val, float):
        train, held_out = split_validation(train, val, config["training"].get("seed", 0))
        return Data(train, held_out, True, test)
    if val is not None:
        return Data(train, build_dataset(val, "data.val", train.class_names, None), True, test)
    return Data(train, test, False, test)


TASKS: dict[str, type[Task]] = {"detection": DetectionTask, "segmentation": SegmentationTask}


def task_name(config: Node) -> str:
    """The config's `task`; "detection" where it has none. Raises: UserError for another than is known."""
    name = config.get("task", "detection")
    if name not in TASKS:
        raise UserError(f"task={name!r} is none of {', '.join(TASKS)}{nearest(str(name), TASKS)}")
    return str(name)


def check_kind(dataset: Any, task: str) -> None:
    """Raises: UserError where the data are of another task: boxes where masks are needed, or the reverse."""
    if hasattr(dataset, "mask") != (task == "segmentation"):
        have, other = ("masks", "segmentation") if hasattr(dataset, "mask") else ("boxes", "detection")
        raise UserError(
            f"data.train is a {type(dataset).__name__}, whose truth is {have}, but task={task!r}: take a data set for "
            f"{task}, or a config with task={other!r}"
        )


def build_task(config: Node, num_classes: int, trusted: Sequence[str] | None = None) -> Any:
    """Model, criterion and postprocess; a criterion that has `check_model` is shown the model."""
    model = build(config["model"], "model", trusted=trusted, num_classes=num_classes)
    criterion = build(config["criterion"], "criterion", trusted=trusted)
    if hasattr(criterion, "check_model"):
        criterion.check_model(model)
    postprocess = build(config["postprocess"], "postprocess", trusted=trusted)
    return TASKS[task_name(config)](model, criterion, postprocess)


def backbone_of(model: nn.Module) -> Backbone:
    """The model's backbone. Raises: UserError where it has none."""
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise UserError(f"{type(model).__name__} has no backbone of type backbones.contract.Backbone")
    return backbone


def aspects(dataset: AnyDataset) -> list[float]:
    """Height / width of every image."""
    sizes = [dataset.record(index).size for index in range(len(dataset))]
    return [height / width for height, width in sizes]


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
        aspect=aspects(dataset) if settings.test_batch_size > 1 else None,
    )
    return make_loader(
        TrainingView(dataset, augment),
        batches,
        Collate(pad_value, size_divisor=settings.size_divisor),
        workers=number_of_workers(settings.workers),
        pin_memory=world.device.type == "cuda",
    )


def build_augment(config: Node, which: str, trusted: Sequence[str] | None = None) -> Callable[..., Any]:
    """The config's pipeline for "train" or "test"."""
    nodes = config["augment"]
    if set(nodes) != {"train", "test"}:
        raise UserError(f"augment has {', '.join(map(repr, nodes)) or 'nothing'}; give train and test, no others")
    return build(nodes[which], f"augment.{which}", trusted=trusted)


def build_testing(
    config: Node, task: Any, trusted: Sequence[str] | None = None
) -> tuple[Any, list[Callable[..., Any]]]:
    """What predicts test images, and a pipeline for each scale that it predicts them at."""
    arguments, augment = loader_settings(config, trusted).test_time, build_augment(config, "test", trusted)
    if arguments is None:
        return task, [augment]
    if not isinstance(arguments, dict):
        raise UserError(f"loader.test_time={arguments!r} must be None or a dict, such as dict(scales=[1.0], flip=True)")
    kind: Any = SegmentationTestTime if isinstance(task, SegmentationTask) else TestTime
    check_arguments(kind, arguments, "loader.test_time")
    views = kind(**arguments)
    logger.info("test images are predicted in several views, which costs as many passes: %s", views)
    nodes = [scaled_pipeline(config["augment"]["test"], scale, trusted) for scale in views.scales]
    pipelines = [build(node, "augment.test", trusted=trusted) for node in nodes]
    if isinstance(task, SegmentationTask):
        return SegmentationViewsTask(task, views), pipelines
    merge = partial(merge_predictions, nms_iou=views.nms_iou, voting_iou=views.voting, limit=views.max_detections)
    return TestTimeTask(task, flip=views.flip, merge=merge), pipelines


def build_evaluator(
    config: Node,
    task: Any,
    dataset: Any,
    world: World,
    trusted: Sequence[str] | None = None,
) -> Any:
    """The evaluator of a config's test augmentation and metrics: see `transfer.evaluator`."""
    predictor, pipelines = build_testing(config, task, trusted)
    settings, pad_value = loader_settings(config, trusted), backbone_of(task.model).pad_value
    share = dataclasses.replace(settings, workers=-(-settings.workers // len(pipelines)))  # rounded up
    loaders = [test_loader(dataset, pipeline, share, pad_value, world) for pipeline in pipelines]
    loader = loaders[0] if len(loaders) == 1 else ViewsLoader(loaders)
    metrics = build(config["metrics"], "metrics", trusted=trusted)
    if isinstance(task, SegmentationTask):
        pictures = training_settings(config).pictures
        return SegmentationEvaluator(predictor, dataset, loader, metrics, world, pictures=pictures)
    return DetectionEvaluator(predictor, dataset, loader, metrics, world)


def loader_settings(config: Node, trusted: Sequence[str] | None = None) -> LoaderSettings:
    """The config's `loader`, checked."""
    arguments = build(config["loader"], "loader", trusted=trusted)
    check_arguments(LoaderSettings, arguments, "loader")
    settings = LoaderSettings(**arguments)
    wrong = [f"{n}={getattr(settings, n)!r}" for n in ("batch_size", "test_batch_size", "size_divisor", "workers")
             if not isinstance(getattr(settings, n), int) or getattr(settings, n) < (n != "workers")]  # fmt: skip
    if wrong:
        raise UserError(f"loader: {', '.join(wrong)} must be whole numbers above 0 (workers: 0 or more)")
    if settings.on_broken not in ("stop", "skip"):
        raise UserError(f"loader: on_broken={settings.on_broken!r} must be 'stop' or 'skip'")
    return settings


def training_settings(config: Node) -> TrainingSettings:
    """The config's `training`, checked."""
    check_arguments(TrainingSettings, config["training"], "training")
    return TrainingSettings(**config["training"])


def _training_batches(
    config: Node, dataset: AnyDataset, pad_value: tuple[int, int, int], world: World
) -> tuple[Callable[[int], Iterable[Batch]], int]:
    """What makes the micro-batches from an iteration to the end of the run, and the optimizer steps of an epoch."""
    settings, loading = training_settings(config), loader_settings(config)
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
    )
    per_epoch = max(1, batches.iterations_per_epoch // settings.accumulate)
    total = settings.total(per_epoch)
    augment, combine, join = build_augment(config, "train"), None, None
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
    )
    collate = Collate(pad_value, size_divisor=loading.size_divisor)

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


def build_run(config: Node, world: World) -> tuple[Run, Evaluator, Data]:
    """Everything that `transfer.engine.train.train` needs, from a config.

    Args:
        config: as `transfer.build.load_config` gives it.
        world: this process.
    """
    settings, loading = training_settings(config), loader_settings(config)
    torch.manual_seed(settings.seed)  # initial weights are the same on every process
    data = build_data(config)
    task = build_task(config, len(data.train.class_names))
    backbone = backbone_of(task.model)
    if backbone.norm == "synchronized":  # of the whole model: neck and heads follow the backbone
        task.model = synchronize(task.model, world)
    elif world.size > 1 and (lone := lone_statistics(task.model)):
        logger.warning(
            "batch norm: %d layers train on the images of their own process only; norm='synchronized' shares them", lone
        )
    logger.info("backbone: %s", ", ".join(f"{key} {value}" for key, value in backbone.describe().items()))
    task.model.to(world.device)

    batches, per_epoch = _training_batches(config, data.train, backbone.pad_value, world)
    total = settings.total(per_epoch)

    optimizer_config = build(config["optimizer"], "optimizer")
    optimizer = optimizer_config.build(task.model, global_batch=loading.batch_size)
    logger.info("%s", optimizer_config.describe(loading.batch_size))
    schedule = build(config["schedule"], "schedule")
    schedule.check(total=total, per_epoch=per_epoch)
    ema = None
    if settings.ema is not None:
        check_arguments(EMA, {"model": task.model, **settings.ema}, "training.ema")
        ema = EMA(task.model, **settings.ema)
    if settings.dropblock is not None:  # after the average was made: it is never trained
        check_arguments(DropBlock, settings.dropblock, "training.dropblock")
        attach_dropblock(backbone_of(task.model), DropBlock(**settings.dropblock))
    evaluator = build_evaluator(config, task, data.measured, world)
    run = Run(
        task=task,
        batches=batches,
        optimizer=optimizer,
        schedule=schedule,
        precision=Precision(settings.precision, world.device.type),  # type: ignore[arg-type]
        ema=ema,
        settings=settings,
        world=world,
        per_epoch=per_epoch,
        track_best=data.has_validation,
        facts={
            "format": FORMAT,
            "config": to_json(config),
            "class_names": list(data.train.class_names),
            "category_ids": category_ids_of(data.train),
            "backbone": backbone.describe(),
            "versions": library_versions(),
        },
    )
    return run, evaluator, data


def category_ids_of(dataset: AnyDataset) -> list[int]:
    """The ids that labels are written as in COCO-format files; none for segmentation."""
    return [int(i) for i in dataset.category_ids()] if isinstance(dataset, DetectionDataset) else []


def as_plain(result: MetricLike) -> dict[str, Any]:
    """A metric's result as plain types."""
    return dataclasses.asdict(result)  # type: ignore[call-overload]
