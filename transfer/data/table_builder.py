"""From what a format's files state to a `DetectionTable`: what is the same for every format happens here, once.

- Names become labels (class_names.py).
- Boxes are clipped to their image. Up to one pixel beyond is a tool's rounding; more casts doubt on the stated size, so
  the image's header is read and, where it says otherwise, believed.
- Boxes without area and boxes outside the image are dropped, counted and logged; they are never an error, since the
  rest of their image is sound (bccd has two: a click without a drag).
- Faults of whole images are collected; on_broken="stop" reports all of them in one error, "skip" leaves them out.

A check of the data wants what the files state, also where reading ends in an error: `recording` hands out the builders.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from transfer.data.class_names import Occurrence, resolve_labels
from transfer.data.evidence import Evidence
from transfer.data.image import BrokenSample, image_header
from transfer.data.table import DetectionTable
from transfer.data.texts import Texts, packed_ids
from transfer.types import Size, UserError

_LOGGER = logging.getLogger(__name__)
_ROUNDING = 1.0
_SHOWN = 10


@dataclass(slots=True)
class Box:
    """One object as its file states it, in xyxy pixels with exclusive right and bottom edge; not yet clipped."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool = False
    crowd: bool = False
    area: float | None = None
    """Square pixels; None: width * height after clipping."""
    empty: bool = False
    """The file states a box without area, whatever the format's convention makes of its corners."""


@dataclass(slots=True, frozen=True)
class Fault:
    """Something wrong with one file or entry."""

    code: str
    """What kind of fault, such as "image-missing"; one that the image's own decoding tells is "image"."""
    file: str
    """Where it is stated."""
    reason: str
    image: str | None = None
    """The image's file, where there is one."""


@dataclass(slots=True, frozen=True)
class Origin:
    """The files that a builder was filled from."""

    kind: str
    """"voc" (split lists), "xml" (a folder of XML files) or "coco"."""
    root: Path
    """As the config gives it; COCO: the folder of the images."""
    annotations: Path
    """Folder of the XML files, or the JSON file."""
    images: Path
    lists: tuple[Path, ...] = ()
    """VOC's split lists."""


class UnusableFile(UserError):
    """A file that a whole data set depends on cannot be used; `code` and `file` as in `Fault`."""

    def __init__(self, message: str, *, code: str = "", file: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.file = file


_RECORDED: ContextVar[list[TableBuilder] | None] = ContextVar("recorded builders", default=None)


@contextmanager
def recording() -> Iterator[list[TableBuilder]]:
    """Hand out every builder that is made within the context, finished or not.

    A data set may be nested (a subset of a union of devkits), and reading it may end in an error: neither hides what
    its files state.
    """
    builders: list[TableBuilder] = []
    token = _RECORDED.set(builders)
    try:
        yield builders
    finally:
        _RECORDED.reset(token)


def is_recording() -> bool:
    """Whether somebody wants the builders, so that the files have to be read."""
    return _RECORDED.get() is not None


@dataclass
class TableBuilder:
    """Collects images with their boxes, and the faults met on the way."""

    source: str
    """What messages call the data."""
    on_broken: str = "stop"
    class_names: Sequence[str] | None = None
    rename: Mapping[str, str | None] | None = None
    name_order: Sequence[str] | None = None
    """All names in the data's own order; None: sorted."""

    paths: list[str] = field(default_factory=list)
    image_ids: list[int | str] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    """Where each image's boxes come from, for messages."""
    sizes: list[Size] = field(default_factory=list)
    boxes: list[list[Box]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """One line for each image that cannot be used."""
    faults: list[Fault] = field(default_factory=list)
    """The same in parts."""
    remarks: list[Fault] = field(default_factory=list)
    """What is odd and does no harm."""
    stated_sizes: list[Size | None] = field(default_factory=list)
    """As given to `add`; `sizes` holds those believed."""
    origins: list[Origin] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    """What the files looked like that were read; whoever reads one looks at it first."""
    told: list[tuple[int, str]] = field(default_factory=list)
    """(level, line) of the log."""

    def __post_init__(self) -> None:
        if self.on_broken not in ("stop", "skip"):
            raise UserError(f'on_broken is {self.on_broken!r}: use "stop" or "skip"')
        recorded = _RECORDED.get()
        if recorded is not None:
            recorded.append(self)

    def fault(self, code: str, file: str, reason: str, *, image: str | None = None, line: str | None = None) -> None:
        """Note an image that cannot be used.

        Args:
            code: see `Fault`.
            file: where it is stated.
            reason: why, without the file's name.
            image: its file, where there is one.
            line: for the error that lists all; None: "file: reason".
        """
        self.problems.append(line or f"{file}: {reason}")
        self.faults.append(Fault(code, file, reason, image))

    def tell(self, level: int, line: str) -> None:
        """Log a line that belongs to the data: it is repeated where their index comes from the cache."""
        self.told.append((level, line))
        _LOGGER.log(level, "%s", line)

    def add(self, path: str, *, image_id: int | str, size: Size | None, boxes: list[Box], annotation: str) -> None:
        """Take one image.

        Args:
            path: the image's file.
            image_id: unique in the data set.
            size: (height, width) as stated; None: read from the image's header.
            boxes: its objects.
            annotation: the file, or file and entry, they come from.
        """
        try:
            believed = size if size is not None and _holds_all(size, boxes) else self._size_of_image(path, size)
        except BrokenSample as error:
            self.fault("image", path, error.reason, image=path)
            return
        self.paths.append(path)
        self.image_ids.append(image_id)
        self.annotations.append(annotation)
        self.sizes.append(believed)
        self.stated_sizes.append(size)
        self.boxes.append(boxes)

    def _size_of_image(self, path: str, stated: Size | None) -> Size:
        """The header's size, unless it agrees with the stated one."""
        self.evidence.look("file", path)
        header = image_header(path)
        # the stated size may be that of the stored pixels, before EXIF rotation: it is then right (see image.py)
        return stated if stated is not None and stated == header.stored_size else header.size

    def finish(self) -> tuple[DetectionTable, tuple[str, ...], dict[str, int]]:
        """Resolve the names and clean the boxes.

        Returns:
            The table, the class names, and how many boxes were clipped or dropped, by reason.

        Raises:
            UserError: collected faults with on_broken="stop"; unknown class names; no image at all.
        """
        names, label_of = self._resolve()
        flat = [box for boxes in self.boxes for box in boxes]
        owner = np.repeat(np.arange(len(self.boxes)), [len(boxes) for boxes in self.boxes])
        labels = np.array([label_of[box.name] for box in flat], np.int64)
        corners, kept, counts = self._clean(flat, owner, labels)
        sides = corners[:, 2:] - corners[:, :2]
        stated_areas = np.array([np.nan if box.area is None else box.area for box in flat], np.float32)
        areas = np.where(np.isnan(stated_areas), sides[:, 0] * sides[:, 1], stated_areas).astype(np.float32)
        per_image = np.bincount(owner[kept], minlength=len(self.paths))
        table = DetectionTable(
            paths=Texts(self.paths),
            image_ids=packed_ids(self.image_ids),
            sizes=np.array(self.sizes, np.int64).reshape(-1, 2),
            starts=np.concatenate([[0], np.cumsum(per_image)]).astype(np.int64),
            boxes=corners[kept],
            labels=labels[kept],
            difficult=np.array([box.difficult for box in flat], bool)[kept],
            crowd=np.array([box.crowd for box in flat], bool)[kept],
            areas=areas[kept],
        )
        return table, names, counts

    def _clean(
        self, flat: list[Box], owner: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
        """Clipped corners [M, 4] float32, which of them to keep [M] bool, and the counts."""
        stated = np.array([box.corners for box in flat], np.float64).reshape(-1, 4)
        sizes = np.array(self.sizes, np.float64).reshape(-1, 2)[owner]
        limits = sizes[:, [1, 0, 1, 0]]  # width, height, width, height
        corners = np.clip(stated, 0.0, limits).astype(np.float32)
        unwanted = labels < 0
        stated_sides = stated[:, 2:] - stated[:, :2]
        empty = (np.array([box.empty for box in flat], bool) | (stated_sides <= 0).any(1)) & ~unwanted
        # float32 can also close a gap of 1e-9 pixels, so the sides are looked at after the cast
        outside = ((corners[:, 2:] <= corners[:, :2]).any(1)) & ~empty & ~unwanted
        kept = ~(unwanted | empty | outside)
        beyond = np.maximum(-stated, stated - limits).max(1, initial=0.0)
        clipped = (beyond > 0) & kept
        far = clipped & (beyond > _ROUNDING)
        for mask, level, what in (
            (empty, logging.INFO, "without area dropped"),
            (outside, logging.WARNING, "outside their image dropped"),
            (clipped & ~far, logging.INFO, "clipped to their image (by one pixel at most)"),
            (far, logging.WARNING, f"clipped to their image (by {beyond[far].max(initial=0.0):.1f} pixels at most)"),
        ):
            if mask.any():
                first = self.annotations[owner[int(np.argmax(mask))]]
                boxes = "1 box" if mask.sum() == 1 else f"{mask.sum()} boxes"
                self.tell(level, f"{self.source}: {boxes} {what}, first: {first}")
        masks = {"without_area": empty, "outside": outside, "clipped": clipped, "renamed_to_none": unwanted}
        return corners, kept, {reason: int(mask.sum()) for reason, mask in masks.items()}

    def _resolve(self) -> tuple[tuple[str, ...], dict[str, int]]:
        """Class names and the label of each name in the data; raises what is wrong with images and names together."""
        shown = "\n".join(f"  {problem}" for problem in self.problems[:_SHOWN])
        if len(self.problems) > _SHOWN:
            shown += f"\n  and {len(self.problems) - _SHOWN} more"
        errors = []
        if self.problems and self.on_broken == "stop":
            errors.append(
                f"{self.source}: {len(self.problems)} unusable:\n{shown}\n"
                'Mend or remove them, or set on_broken="skip" to leave them out.'
            )
        elif self.problems:
            self.tell(logging.WARNING, f"{self.source}: {len(self.problems)} left out:\n{shown}")
        if not self.paths:
            left_out = f"; left out:\n{shown}" if self.problems else ""
            raise UserError("\n".join(errors) or f"{self.source}: no usable image{left_out}")
        found: dict[str, Occurrence] = {}
        for boxes, annotation in zip(self.boxes, self.annotations):
            for box in boxes:
                found.setdefault(box.name, Occurrence(0, annotation)).count += 1
        try:
            resolved = resolve_labels(
                found,
                class_names=self.class_names,
                rename=self.rename,
                source=self.source,
                order=self.name_order,
                tell=self.tell,
            )
        except UserError as error:
            raise UserError("\n".join([*errors, str(error)])) from None
        if errors:
            raise UserError("\n".join(errors))
        return resolved


def _holds_all(size: Size, boxes: list[Box]) -> bool:
    """Whether the boxes lie in an image of this size, but for rounding."""
    height, width = size
    right, bottom = width + _ROUNDING, height + _ROUNDING
    return all(box.corners[2] <= right and box.corners[3] <= bottom for box in boxes)
