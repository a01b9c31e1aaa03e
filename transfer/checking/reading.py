"""Opens the data sets of a config and keeps what their files state, sound or not.

Training reads a data set to stop at what is wrong; a check goes on. So every data set of the config is built as
training builds it, under `recording`: what was read before an error is there, and one part's error does not hide
another's.
A mistake in the config itself (an unknown argument, a folder that is not there for any part) is a UserError.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from transfer.build import Node, build, check_arguments, parameters_of, resolve
from transfer.data.class_names import Occurrence, check_class_names, check_rename, resolve_labels
from transfer.data.subset import split_validation
from transfer.data.table_builder import Box, Fault, Origin, TableBuilder, UnusableFile, recording
from transfer.types import DetectionDataset, Size, UserError

PARTS = ("train", "val", "test")
_READERS = (
    *("table_builder", "class_names", "voc", "coco", "mask_builder", "coco_segmentation", "subset"),
    *("classification_dataset", "class_folder", "image_list", "imagenet_truth"),
)


@dataclass(frozen=True, slots=True, eq=False)
class StatedImage:
    """One image of a builder and what its annotation states; equal to itself alone."""

    builder: TableBuilder
    position: int

    @property
    def path(self) -> str:
        """Of the image's file."""
        return self.builder.paths[self.position]

    @property
    def annotation(self) -> str:
        """The file, or file and entry, that its boxes come from."""
        return self.builder.annotations[self.position]

    @property
    def file(self) -> str:
        """Where to look for a fault of its annotation: the XML file; the image where one file annotates many."""
        return self.path if self._kind == "coco" else self.annotation

    @property
    def entry(self) -> str:
        """What a message about it begins with: the entry, where one file annotates many images."""
        if self._kind != "coco":
            return ""
        return f"{self.builder.origins[0].annotations.name}, image {self.builder.image_ids[self.position]}: "

    @property
    def _kind(self) -> str:
        origins = self.builder.origins
        return origins[0].kind if origins else ""

    def as_stated(self, box: Box) -> str:
        """The corners as the file has them."""
        x0, y0, x1, y1 = box.corners
        if self._kind in ("voc", "xml"):
            return f"xmin {x0 + 1:g}, ymin {y0 + 1:g}, xmax {x1:g}, ymax {y1:g}"
        return (
            f"bbox [{x0:g}, {y0:g}, {x1 - x0:g}, {y1 - y0:g}]"
            if self._kind == "coco"
            else f"({x0:g}, {y0:g}, {x1:g}, {y1:g})"
        )

    @property
    def stated_size(self) -> Size | None:
        """(height, width), None where unknown."""
        return self.builder.stated_sizes[self.position]

    @property
    def size(self) -> Size:
        """The size that training believes."""
        return self.builder.sizes[self.position]

    @property
    def boxes(self) -> list[Box]:
        """As stated, names not yet renamed."""
        return self.builder.boxes[self.position]


@dataclass
class Part:
    """One of the config's data sets."""

    name: str
    """"train", "val" or "test"."""
    builders: list[TableBuilder]
    images: list[StatedImage]
    class_names: tuple[str, ...] | None
    """In the order of the labels; None where nothing tells them."""
    names_from_config: bool
    skips_broken_images: bool
    """Training goes on without an image that cannot be decoded."""
    nodes: list[str] = field(default_factory=list)
    """Of each builder: its place in the config, such as "data.train.datasets.0"."""
    errors: list[UserError] = field(default_factory=list)
    """What ended the reading and is not told by the builders' faults."""
    classes_differ: bool = False
    """The data set's classes are not those it is trained with."""
    held_out: set[str] = field(default_factory=set)
    """Paths of the images of train that data.val, given as a fraction, holds out."""

    @property
    def faults(self) -> list[tuple[Fault, bool]]:
        """What cannot be used, and whether the data set is told to leave it out."""
        return [(fault, builder.on_broken == "skip") for builder in self.builders for fault in _faults(builder)]

    @property
    def tells_origins(self) -> bool:
        """Whether all of its images come from files in a known layout."""
        return all(builder.origins for builder in self.builders if builder.paths or builder.problems)

    @property
    def origins(self) -> list[Origin]:
        """Where its files lie."""
        return [origin for builder in self.builders for origin in builder.origins]


def _faults(builder: TableBuilder) -> list[Fault]:
    """All of the builder's faults; those that a format's reader keeps as a line only have no code of their own."""
    lines = {fault.reason for fault in builder.faults} | {f"{fault.file}: {fault.reason}" for fault in builder.faults}
    others = [line for line in builder.problems if line not in lines]
    return [*builder.faults, *(Fault("entry-unusable", builder.source, line) for line in others)]


def read_parts(config: Node) -> list[Part]:
    """Open train, val and test.

    Args:
        config: as `transfer.build.load_config` gives it.

    Raises:
        UserError: the config's own mistakes, or no part can be opened.
    """
    nodes, loader = config["data"], config["loader"]
    check_nodes(nodes)
    skips = loader.get("on_broken") == "skip"
    val = nodes.get("val")
    # what is measured stops at a broken image in any case (transfer/batch/view.py)
    train, dataset = _read("train", nodes["train"], None, from_config=None, skips=skips and not isinstance(val, float))
    if isinstance(val, float) and dataset is not None:
        _, held_out = split_validation(dataset, val, config["training"].get("seed", 0))
        train.held_out = {held_out.record(index).path for index in range(len(held_out))}
    parts = [train]
    for name in ("val", "test"):
        if isinstance(nodes.get(name), dict):
            part, _ = _read(name, nodes[name], train.class_names, from_config=train.names_from_config, skips=False)
            parts.append(part)
    errors = [error for part in parts for error in part.errors]
    if all(part.errors for part in parts) and not any(isinstance(error, UnusableFile) for error in errors):
        raise UserError("\n".join(dict.fromkeys(map(str, errors))))  # a wrong folder is wrong for each part
    return parts


def check_nodes(nodes: Node) -> None:
    """Raises: UserError for what is wrong with the config before any file is read, all of it."""
    unknown = set(nodes) - set(PARTS)
    if unknown or not {"train", "test"} <= set(nodes):
        raise UserError(f"data has {', '.join(map(repr, nodes))}; give train, test and val (or val=None)")
    problems = []
    for name, node in nodes.items():
        if isinstance(node, dict) and "type" in node:
            problems += _mistakes(node, f"data.{name}")
        elif name != "val" or not (node is None or isinstance(node, float)):
            problems.append(f"data.{name}={node!r} must be dict(type=..., ...)")
    if problems:
        raise UserError("\n".join(problems))


def _mistakes(node: Any, where: str) -> list[str]:
    if isinstance(node, list):
        return [problem for i, item in enumerate(node) for problem in _mistakes(item, f"{where}[{i}]")]
    if not isinstance(node, dict):
        return []
    problems = [problem for key, value in node.items() for problem in _mistakes(value, f"{where}.{key}")]
    if "type" not in node:
        return problems
    arguments = {key: value for key, value in node.items() if key != "type"}
    try:
        check_arguments(resolve(node["type"]), arguments, where)
        names = arguments.get("class_names")
        check_class_names(names)
        check_rename(arguments.get("rename"), names)
    except UserError as error:
        problems.append(str(error) if str(error).startswith(where) else f"{where}: {error}")
    return problems


def _read(
    name: str, node: Node, class_names: tuple[str, ...] | None, *, from_config: bool | None, skips: bool
) -> tuple[Part, DetectionDataset | None]:
    """One part, and its data set where it can be built; `class_names` are those of train."""
    where, given = f"data.{name}", {}
    if class_names is not None and "class_names" in (parameters_of(resolve(node["type"])) or ()):
        given["class_names"] = class_names
    with recording() as builders, quiet_readers():
        building = Building(builders)
        dataset = building.build(node, where, given)
    if dataset is not None and not isinstance(dataset, DetectionDataset):
        raise UserError(f"{where} is a {type(dataset).__name__}: this check knows detection data sets")
    if not builders and dataset is not None:
        builders = [_builder_of(dataset, where)]
        building.nodes = [where]
    known = class_names or (tuple(dataset.class_names) if dataset is not None else _known(builders))
    if from_config is None:
        from_config = any(builder.class_names is not None for builder in builders)
    part = Part(name, builders, _images(builders, dataset), known, from_config, skips, building.nodes)
    part.errors = [error for error in building.errors if isinstance(error, UnusableFile) or not _is_told(builders)]
    part.classes_differ = dataset is not None and known is not None and tuple(dataset.class_names) != known
    return part, dataset


@dataclass
class Building:
    """Builds as `transfer.build.build` does, but one data set's error does not keep those beside it from being read."""

    builders: Sequence[object]
    """Those recorded so far."""
    nodes: list[str] = field(default_factory=list)
    """Where in the config each of them was made."""
    errors: list[UserError] = field(default_factory=list)

    def build(self, node: Any, where: str, given: Mapping[str, Any]) -> Any:
        """The object, or None where it or something within it could not be made."""
        if isinstance(node, list):
            return [self.build(item, f"{where}.{i}", {}) for i, item in enumerate(node)]
        if not isinstance(node, dict):
            return node
        before = len(self.errors)
        arguments = {key: self.build(value, f"{where}.{key}", {}) for key, value in node.items() if key != "type"}
        if "type" not in node:
            return arguments
        if len(self.errors) > before:
            return None
        try:
            return build({"type": node["type"], **arguments}, where, **given)
        except UserError as error:
            self.errors.append(error)
            return None
        finally:
            self.nodes += [where] * (len(self.builders) - len(self.nodes))


def _is_told(builders: Sequence[TableBuilder]) -> bool:
    """Whether the builders' faults or unknown names are what ended the reading: then each has a finding of its own."""
    return any((builder.problems and builder.on_broken == "stop") or unknown_names(builder) for builder in builders)


def unknown_names(builder: TableBuilder) -> dict[str, Occurrence]:
    """Names in the data that, renamed, are none of the builder's class_names."""
    known = builder.class_names
    if known is None:
        return {}
    found = occurrences(builder)
    return {name: found[name] for name in found if new_name(builder, name) not in (None, *known)}


def new_name(builder: TableBuilder, name: str) -> str | None:
    """The class that the config makes of a name; None: its boxes are dropped."""
    return (builder.rename or {}).get(name, name)


def occurrences(builder: TableBuilder) -> dict[str, Occurrence]:
    """Every name that the builder's boxes have."""
    found: dict[str, Occurrence] = {}
    for position, boxes in enumerate(builder.boxes):
        for box in boxes:
            if box.name not in found:
                found[box.name] = Occurrence(0, StatedImage(builder, position).file)
            found[box.name].count += 1
    return found


def _known(builders: Sequence[TableBuilder]) -> tuple[str, ...] | None:
    """The classes of a data set that could not be built."""
    for builder in builders:
        with quiet_readers():
            try:
                return (
                    check_class_names(builder.class_names)
                    or resolve_labels(
                        occurrences(builder),
                        class_names=None,
                        rename=builder.rename,
                        source=builder.source,
                        order=builder.name_order,
                    )[0]
                )
            except UserError:  # no object at all
                continue
    return None


def _images(builders: Sequence[TableBuilder], dataset: DetectionDataset | None) -> list[StatedImage]:
    """All images of the builders; where the data set takes a part of them, that part."""
    images = [StatedImage(builder, position) for builder in builders for position in range(len(builder.paths))]
    if dataset is None or len(dataset) == len(images):
        return images
    used = {dataset.record(index).path for index in range(len(dataset))}
    return [image for image in images if image.path in used]


def _builder_of(dataset: DetectionDataset, where: str) -> TableBuilder:
    """What a data set that is not filled by a builder says of its images."""
    builder = TableBuilder(where, class_names=dataset.class_names)
    for index in range(len(dataset)):
        record = dataset.record(index)
        builder.paths.append(record.path)
        builder.image_ids.append(record.image_id)
        builder.annotations.append(record.path)
        builder.sizes.append(record.size)
        builder.stated_sizes.append(record.size)
        flags = zip(record.boxes.tolist(), record.labels.tolist(), record.difficult.tolist(), record.crowd.tolist())
        boxes = [Box(dataset.class_names[label], tuple(box), hard, crowd) for box, label, hard, crowd in flags]
        builder.boxes.append(boxes)
    return builder


@contextmanager
def quiet_readers() -> Iterator[None]:
    """What the readers log is in the findings, file by file."""
    loggers = [logging.getLogger(f"transfer.data.{name}") for name in _READERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)
