"""Opens the data sets of a config whose images have masks, and keeps the faults that would stop training.

As in reading.py, every data set is built as training builds it, and one part's error does not hide another's. The
faults of single images are gathered (mask_builder.py), so that the sound rest is checked, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transfer.build import Node, parameters_of, resolve
from transfer.checking.reading import PARTS, Building, check_nodes, quiet_readers
from transfer.data.image import BrokenSample
from transfer.data.mask_builder import MaskBuilder, gathering
from transfer.data.table_builder import Fault, UnusableFile
from transfer.types import SegmentationDataset, UserError


@dataclass(frozen=True, slots=True, eq=False)
class MaskedImage:
    """One image of a data set; equal to itself alone."""

    position: int
    """In the data set."""
    path: str
    mask_path: str | None
    """None where the mask is drawn."""

    @property
    def annotation(self) -> str:
        """Where to look for a fault of its mask."""
        return self.mask_path or self.path


@dataclass
class MaskPart:
    """One of the config's data sets."""

    name: str
    """"train", "val" or "test"."""
    dataset: SegmentationDataset | None
    """None where it cannot be opened."""
    builders: list[MaskBuilder]
    images: list[MaskedImage]
    skips_broken_images: bool
    """Training goes on without an image or mask that cannot be read."""
    errors: list[UserError] = field(default_factory=list)
    """What ended the reading."""
    classes_differ: str = ""
    """In what its classes are not those of train."""
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


def has_masks(config: Node) -> bool:
    """Whether the config's data sets are of masks: told by the classes, before anything is read.

    Raises:
        UserError: a class that cannot be found.
    """
    nodes = [node for node in config["data"].values() if isinstance(node, dict) and "type" in node]
    return any(hasattr(resolve(node["type"]), "mask") for node in nodes)


def read_mask_parts(config: Node) -> list[MaskPart]:
    """Open train, val and test.

    Args:
        config: as `transfer.build.load_config` gives it.

    Raises:
        UserError: the config's own mistakes, or no part can be opened.
    """
    nodes = config["data"]
    check_nodes(nodes)
    skips = config["loader"].get("on_broken") == "skip" and not isinstance(nodes.get("val"), float)
    train = _read("train", nodes["train"], (), skips=skips)
    measured = [name for name in PARTS[1:] if isinstance(nodes.get(name), dict)]
    # what is measured stops at a broken image in any case (transfer/batch/view.py)
    parts = [train, *(_read(name, nodes[name], train.class_names, skips=False) for name in measured)]
    errors = [error for part in parts for error in part.errors]
    told = any(isinstance(error, UnusableFile) for error in errors) or any(part.faults for part in parts)
    if all(part.dataset is None for part in parts) and not told:
        raise UserError("\n".join(dict.fromkeys(map(str, errors))))  # a wrong folder is wrong for each part
    return parts


def _read(name: str, node: Node, expected: tuple[str, ...], *, skips: bool) -> MaskPart:
    """One part; `expected` are the classes of train, none where they are not known."""
    where = f"data.{name}"
    takes_names = "class_names" in (parameters_of(resolve(node["type"])) or ())
    given = {"class_names": expected} if expected and takes_names else {}
    dataset, builders, errors = _build(node, where, given)
    differs = ""
    if dataset is None and given and not any(isinstance(error, UnusableFile) for error in errors):
        # training stops there; its images are checked under its own names
        own, own_builders, _ = _build(node, where, {})
        if own is not None:
            differs = "; ".join(" ".join(str(error).split()) for error in errors)
            dataset, builders, errors = own, own_builders, []
    elif dataset is not None and expected and tuple(dataset.class_names) != expected:
        differs = f"its classes, or their order, are not those of train: {', '.join(expected)}"
    if dataset is not None and not isinstance(dataset, SegmentationDataset):
        raise UserError(
            f"{where} is a {type(dataset).__name__} without masks; the other data of this config have masks"
        )
    return MaskPart(name, dataset, builders, _images(dataset), skips, errors, differs)


def _build(node: Node, where: str, given: dict[str, Any]) -> tuple[Any, list[MaskBuilder], list[UserError]]:
    with gathering() as builders, quiet_readers():
        building = Building(builders)
        dataset = building.build(node, where, given)
    return dataset, builders, building.errors


def _images(dataset: SegmentationDataset | None) -> list[MaskedImage]:
    images = []
    for position in range(0 if dataset is None else len(dataset)):
        assert dataset is not None
        try:
            record = dataset.record(position)
            images.append(MaskedImage(position, record.path, record.mask_path))
        except BrokenSample as error:  # neither the image nor the mask can be opened
            images.append(MaskedImage(position, error.path, None))
    return images
