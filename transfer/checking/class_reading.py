"""Opens the data sets of a config whose images have one class each, and keeps the faults that would stop training.

As in mask_reading.py, every data set is built as training builds it, and one part's error does not hide another's. The
faults of single images are gathered, so that the sound rest is checked, too; a data set whose classes are not the
wanted ones is checked under its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transfer.build import Node, parameters_of, resolve
from transfer.checking.reading import PARTS, Building, check_nodes, quiet_readers
from transfer.data.mask_builder import MaskBuilder, gathering
from transfer.data.subset import split_validation
from transfer.data.table_builder import Fault, UnusableFile
from transfer.types import ClassificationDataset, UserError, task_of


@dataclass(frozen=True, slots=True, eq=False)
class ClassedImage:
    """One image of a data set; equal to itself alone."""

    path: str
    name: str
    """Of its class."""

    @property
    def annotation(self) -> str:
        """Where its class comes from: its place."""
        return self.path


@dataclass
class ClassPart:
    """One of the config's data sets."""

    name: str
    """"train", "val" or "test"."""
    dataset: ClassificationDataset | None
    """None where it cannot be opened."""
    builders: list[MaskBuilder]
    images: list[ClassedImage]
    skips_broken_images: bool
    """Training goes on without an image that cannot be read."""
    errors: list[UserError] = field(default_factory=list)
    """What ended the reading."""
    classes_differ: str = ""
    """In what its classes are not the wanted ones."""
    held_out: set[str] = field(default_factory=set)
    """Paths of the images of train that data.val, given as a fraction, holds out."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the labels; none where the data set cannot be opened."""
        return () if self.dataset is None else tuple(self.dataset.class_names)

    @property
    def faults(self) -> list[tuple[Fault, bool]]:
        """What cannot be used, and whether the data set is told to leave it out."""
        return [(fault, builder.on_broken == "skip") for builder in self.builders for fault in builder.faults]


def has_classes(config: Node) -> bool:
    """Whether the config's data sets are for classification: told by its task or the classes, before any is read.

    Raises:
        UserError: a class that cannot be found.
    """
    nodes = [node for node in config["data"].values() if isinstance(node, dict) and "type" in node]
    return config.get("task") == "classification" or any(hasattr(resolve(node["type"]), "labels") for node in nodes)


def read_class_parts(config: Node) -> list[ClassPart]:
    """Open train, val and test.

    Args:
        config: as `transfer.build.load_config` gives it.

    Raises:
        UserError: the config's own mistakes, or no part can be opened.
    """
    nodes = config["data"]
    check_nodes(nodes)
    val = nodes.get("val")
    skips = config["loader"].get("on_broken") == "skip" and not isinstance(val, float)
    train = _read("train", nodes["train"], (), skips=skips)
    if isinstance(val, float) and train.dataset is not None:
        _, held_out = split_validation(train.dataset, val, config["training"].get("seed", 0))
        train.held_out = {held_out.record(index).path for index in range(len(held_out))}
    measured = [name for name in PARTS[1:] if isinstance(nodes.get(name), dict)]
    # what is measured stops at a broken image in any case (transfer/batch/view.py)
    wanted = tuple(nodes["train"]["class_names"]) if train.classes_differ else train.class_names
    parts = [train, *(_read(name, nodes[name], wanted, skips=False) for name in measured)]
    errors = [error for part in parts for error in part.errors]
    told = any(isinstance(error, UnusableFile) for error in errors) or any(part.faults for part in parts)
    if all(part.dataset is None for part in parts) and not told:
        raise UserError("\n".join(dict.fromkeys(map(str, errors))))  # a wrong folder is wrong for each part
    return parts


def _read(name: str, node: Node, expected: tuple[str, ...], *, skips: bool) -> ClassPart:
    """One part; `expected` are the classes of train, none where they are not known."""
    where = f"data.{name}"
    takes_names = "class_names" in (parameters_of(resolve(node["type"])) or ())
    given = {"class_names": expected} if expected and takes_names else {}
    dataset, builders, errors = _build(node, where, given)
    differs = ""
    named = takes_names and (given or node.get("class_names"))
    if dataset is None and named and not any(isinstance(error, UnusableFile) for error in errors):
        # training stops there; its images are checked under the names that they have
        own, own_builders, _ = _build({**node, "class_names": None}, where, {})
        if own is not None:
            differs = "; ".join(" ".join(str(error).split()) for error in errors)
            dataset, builders, errors = own, own_builders, []
    elif dataset is not None and expected and tuple(dataset.class_names) != expected:
        differs = f"its classes, or their order, are not those of train: {', '.join(expected)}"
    if dataset is not None and task_of(dataset) != "classification":
        raise UserError(
            f"{where} is a {type(dataset).__name__}, whose images have no class each; a config of classification, and "
            "all data sets of one config, need such"
        )
    return ClassPart(name, dataset, builders, _images(dataset), skips, errors, differs)


def _build(node: Node, where: str, given: Mapping[str, Any]) -> tuple[Any, list[MaskBuilder], list[UserError]]:
    with gathering() as builders, quiet_readers():
        building = Building(builders)
        dataset = building.build(node, where, given)
    return dataset, builders, building.errors


def _images(dataset: ClassificationDataset | None) -> list[ClassedImage]:
    if dataset is None:
        return []
    records = (dataset.record(position) for position in range(len(dataset)))
    return [ClassedImage(record.path, dataset.class_names[record.label]) for record in records]
