"""Joins the folders: from a config, or from a checkpoint, to data sets, task, loaders and a run.

This is the one module that knows all of them; training, evaluation, prediction and experiments start from it.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from backbones.contract import Backbone
from backbones.cost import multiply_adds
from backbones.dropblock import DropBlock, attach_dropblock
from transfer.build import Node, build, check_arguments, nearest, parameters_of, resolve, to_json
from transfer.data.strangers import short
from transfer.data.subset import split_validation
from transfer.engine.checkpoint import FORMAT, library_versions
from transfer.engine.distributed import World
from transfer.engine.early_stopping import EarlyStopping
from transfer.engine.segmentation_views import SegmentationTestTime, SegmentationViewsTask
from transfer.engine.sync_bn import lone_statistics, synchronize
from transfer.engine.task import ClassificationTask, DetectionTask, SegmentationTask, Task
from transfer.engine.train import MetricLike, Run
from transfer.engine.views import TestTime, TestTimeTask, ViewsLoader, scaled_pipeline
from transfer.evaluator import ClassificationEvaluator, DetectionEvaluator, Evaluator, SegmentationEvaluator
from transfer.heads.classification import Classifier
from transfer.loading import build_augment, loader_settings, test_loader, training_batches, training_settings
from transfer.ops.box_voting import merge_predictions
from transfer.optim.ema import EMA
from transfer.optim.penalties import L1Penalty
from transfer.optim.precision import Precision
from transfer.provenance import fingerprint, git_state
from transfer.types import AnyDataset, ClassificationDataset, DetectionDataset, UserError, task_of

logger = logging.getLogger("trickstack")


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


def build_data(config: Node, trusted: Sequence[str] | None = None) -> Data:
    """The training set and what is evaluated during the run.

    `data.val` is a data set, a fraction of the training set to hold out, or None: the test set is measured, and no
    checkpoint is called best. `trusted` as for `transfer.build.resolve`: None is for a user's own config alone.
    """
    nodes = config["data"]
    unknown = set(nodes) - {"train", "val", "test"}
    if unknown or not {"train", "test"} <= set(nodes):
        raise UserError(f"data has {', '.join(map(repr, nodes))}; give train, test and val (or val=None)")
    train = build_dataset(nodes["train"], "data.train", None, trusted)
    check_kind(train, task_name(config))
    test = build_dataset(nodes["test"], "data.test", train.class_names, trusted)
    val = nodes.get("val")
    if isinstance(val, float):
        if not 0 < val < 1:
            raise UserError(f"data.val={val}: the share of training images to hold out lies between 0 and 1")
        train, held_out = split_validation(train, val, config["training"].get("seed", 0))
        return Data(train, held_out, True, test)
    if val is not None:
        return Data(train, build_dataset(val, "data.val", train.class_names, trusted), True, test)
    return Data(train, test, False, test)


TASKS: dict[str, type[Task]] = {
    "detection": DetectionTask,
    "segmentation": SegmentationTask,
    "classification": ClassificationTask,
}
_MEASURES = {
    "detection": ("transfer.metrics.voc_map.VOCMeanAP", "evaluate"),
    "segmentation": ("transfer.metrics.mean_iou.MeanIoU", "start", "result"),
    "classification": ("transfer.metrics.accuracy.Accuracy", "start", "result"),
}
"""Task -> a metric for it, and the methods that metrics for it have."""
_TRUTH = {"detection": "boxes", "segmentation": "masks", "classification": "classes of whole images"}


def task_name(config: Node) -> str:
    """The config's `task`; "detection" where it has none. Raises: UserError for another than is known."""
    name = config.get("task", "detection")
    if name not in TASKS:
        raise UserError(f"task={name!r} is none of {', '.join(TASKS)}{nearest(str(name), TASKS)}")
    return str(name)


def check_kind(dataset: Any, task: str) -> None:
    """Raises: UserError where the data are of another task, such as boxes where masks are needed."""
    if (other := task_of(dataset)) != task:
        raise UserError(
            f"data.train is a {type(dataset).__name__}, whose truth is {_TRUTH[other]}, but task={task!r}: take data "
            f"for {task}, or a config with task={other!r}"
        )


def build_task(config: Node, num_classes: int, trusted: Sequence[str] | None = None) -> Any:
    """Model, criterion and postprocess; a criterion that has `check_model` is shown the model, and so on."""
    model = build(config["model"], "model", trusted=trusted, num_classes=num_classes)
    criterion = build(config["criterion"], "criterion", trusted=trusted)
    if hasattr(criterion, "check_model"):
        criterion.check_model(model)
    postprocess = build(config["postprocess"], "postprocess", trusted=trusted)
    if hasattr(criterion, "check_postprocess"):
        criterion.check_postprocess(postprocess)
    return TASKS[task_name(config)](model, criterion, postprocess)


def with_class_weights(config: Node, dataset: AnyDataset) -> Node:
    """The config with `criterion.class_weights="balanced"` written out: N / (K n) of a class with n of N images.

    A class without images weighs 1; the mean over the training images is 1, so the lr stays what it was.
    """
    criterion = config["criterion"]
    if not isinstance(criterion, dict) or criterion.get("class_weights") != "balanced":
        return config
    if not isinstance(dataset, ClassificationDataset):
        raise UserError("criterion.class_weights='balanced' counts images of classes: give a list of weights")
    counts = np.bincount(dataset.labels(), minlength=len(dataset.class_names))
    present = int((counts > 0).sum())
    weights = [len(dataset) / (present * int(count)) if count else 1.0 for count in counts]
    return {**config, "criterion": {**criterion, "class_weights": weights}}


def _check_teacher(criterion: Any, class_names: Sequence[str]) -> None:
    """Raises: UserError where a teacher knows other classes than the student, or has another order of them."""
    network = getattr(getattr(criterion, "teacher", None), "network", None)
    taught = getattr(network, "class_names", None)
    if taught is not None and tuple(taught) != tuple(class_names):
        raise UserError(
            f"criterion.teacher knows the classes {', '.join(taught[:5])}, ...; the data have "
            f"{', '.join(class_names[:5])}, ...: the same, in the same order, are needed"
        )


def backbone_of(model: nn.Module) -> Backbone:
    """The model's backbone. Raises: UserError where it has none."""
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise UserError(f"{type(model).__name__} has no backbone of type backbones.contract.Backbone")
    return backbone


def build_testing(
    config: Node, task: Any, trusted: Sequence[str] | None = None
) -> tuple[Any, list[Callable[..., Any]]]:
    """What predicts test images, and a pipeline for each scale that it predicts them at."""
    arguments, augment = loader_settings(config, trusted).test_time, build_augment(config, "test", trusted)
    if arguments is None:
        return task, [augment]
    if not isinstance(arguments, dict):
        raise UserError(f"loader.test_time={arguments!r} must be None or a dict, such as dict(scales=[1.0], flip=True)")
    if isinstance(task, ClassificationTask):
        raise UserError(
            "loader.test_time (--tta): several views of a test image are for detectors and segmenters; leave it out"
        )
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
    _check_metrics(metrics, task_name(config))
    if isinstance(task, SegmentationTask):
        pictures = training_settings(config).pictures
        return SegmentationEvaluator(predictor, dataset, loader, metrics, world, pictures=pictures)
    if isinstance(task, ClassificationTask):
        pictures = training_settings(config).pictures
        return ClassificationEvaluator(predictor, dataset, loader, metrics, world, pictures=pictures)
    return DetectionEvaluator(predictor, dataset, loader, metrics, world)


def _check_metrics(metrics: Any, task: str) -> None:
    """Raises: UserError for what measures nothing, or another task, before anything is trained."""
    wanted = _MEASURES[task]
    if not isinstance(metrics, list) or not metrics:
        raise UserError(f"metrics={short(metrics)} must be a list of at least one, such as [dict(type={wanted[0]})]")
    for place, metric in enumerate(metrics):
        other = getattr(metric, "task", task)
        if other != task or not all(callable(getattr(metric, method, None)) for method in wanted[1:]):
            what = f"measures {other}" if other != task else "is no metric"
            raise UserError(f"metrics.{place}: {type(metric).__name__} {what}; for {task} give dict(type={wanted[0]})")


def build_run(config: Node, world: World) -> tuple[Run, Evaluator, Data]:
    """Everything that `transfer.engine.train.train` needs, from a config.

    Args:
        config: as `transfer.build.load_config` gives it.
        world: this process.
    """
    settings, loading = training_settings(config), loader_settings(config)
    torch.manual_seed(settings.seed)  # initial weights are the same on every process
    data = build_data(config)
    task = build_task(with_class_weights(config, data.train), len(data.train.class_names))
    _check_teacher(task.criterion, data.train.class_names)
    backbone = backbone_of(task.model)
    if backbone.norm == "synchronized":  # of the whole model: neck and heads follow the backbone
        task.model = synchronize(task.model, world)
    elif world.size > 1 and (lone := lone_statistics(task.model)):
        logger.warning(
            "batch norm: %d layers train on the images of their own process only; norm='synchronized' shares them", lone
        )
    logger.info("backbone: %s", ", ".join(f"{key} {value}" for key, value in backbone.describe().items()))
    task.model.to(world.device)

    batches, per_epoch = training_batches(config, data.train, backbone.pad_value, world)
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
    stopping = None
    if settings.early_stopping is not None:
        check_arguments(EarlyStopping, settings.early_stopping, "training.early_stopping")
        stopping = EarlyStopping(**settings.early_stopping)
    if not data.has_validation and (schedule.listens or stopping is not None):
        who = "schedule" if schedule.listens else "training.early_stopping"
        raise UserError(f"{who} listens to validation data, but data.val is None: give data.val=0.1 or a data set")
    every = max(1, round(settings.evaluate_every * per_epoch)) if settings.evaluate_every else total
    if every >= total and (schedule.listens or stopping is not None):
        raise UserError(
            f"training.evaluate_every={settings.evaluate_every:g}: what listens to evaluations (Plateau, "
            "training.early_stopping) would hear of the last one alone; lower it"
        )
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
        penalty=L1Penalty(task.model, settings.l1),
        stopping=stopping,
        per_epoch=per_epoch,
        track_best=data.has_validation,
        facts={
            "format": FORMAT,
            "config": to_json(config),
            "class_names": list(data.train.class_names),
            "category_ids": category_ids_of(data.train),
            "backbone": backbone.describe(),
            "card": _card(task.model, backbone),
            "versions": library_versions(),
            "git": git_state(),
            "data": {"train": fingerprint(data.train), "test": fingerprint(data.test)} if world.is_main else {},
        },
    )
    return run, evaluator, data


class _Pooled(nn.Module):
    """A classifier's body up to the vector that its last layer reads, as what is counted."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone.pooled(images)


def _card(model: nn.Module, backbone: Backbone) -> dict[str, Any]:
    """What a checkpoint says of its network besides the backbone's own description."""
    size = backbone.input_size
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "backbone_multiply_adds": multiply_adds(_Pooled(backbone) if isinstance(model, Classifier) else backbone, size),
        "multiply_adds_size": list(size),
    }


def category_ids_of(dataset: AnyDataset) -> list[int]:
    """The ids that labels are written as in COCO-format files; none for segmentation."""
    return [int(i) for i in dataset.category_ids()] if isinstance(dataset, DetectionDataset) else []


def as_plain(result: MetricLike) -> dict[str, Any]:
    """A metric's result as plain types."""
    return dataclasses.asdict(result)  # type: ignore[call-overload]
