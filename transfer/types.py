"""What travels between the folders: every field with its shape, dtype and unit.

Coordinates are pixels, x to the right and y down. Boxes are (x_min, y_min, x_max, y_max) with the right and bottom
edge exclusive, so width = x_max - x_min. Sizes are (height, width). Labels are 0..K-1, foreground only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:  # checking and converting data need no torch, which takes seconds to import
    import torch
    from torch import Tensor

IGNORED_PIXEL = 255

Size = tuple[int, int]
"""(height, width) in pixels."""


class UserError(ValueError):
    """A mistake the user can mend: names the file or argument, the value and the remedy. Shown without traceback."""


class RefusedCheckpoint(UserError):
    """A checkpoint that cannot be gone on from, used or read: another one may do."""


class TryAgain(UserError):
    """Nothing is wrong with config, data or checkpoint: the same command may do once the cause is gone."""


def is_number(value: object) -> bool:
    """Whether a config's value is a number: not a bool, not the text that a slip in an override leaves behind."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Mix(NamedTuple):
    """The second image of a mixed pair."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    """Which image of the dataset."""
    weight: float
    """lambda in [0, 1]: the weight of the FIRST image; the second has 1 - weight."""


class Request(NamedTuple):
    """One training image to be made. The batch sampler computes it from (run seed, position) alone."""

    index: int  # type: ignore[assignment]  # a field, not tuple.index
    """Which image of the dataset."""
    seed: int
    """Seed of everything random about this image, in [0, 2**63)."""
    size: Size | None = None
    """The shape the image must come out in, or None: the augmentation decides."""
    mix: Mix | None = None
    partners: tuple[int, ...] = ()
    """The other images of a mosaic; none: no mosaic."""
    blend: int | None = None
    """Seed by which the images of its batch are mixed with one another, as image mixup does in classification; the
    same for the whole global batch, of which each process mixes its own part. None: they are not."""


@dataclass(slots=True)
class Record:
    """What a dataset knows of one image without decoding it."""

    path: str
    image_id: int | str
    """COCO's integer id, or the file's stem."""
    size: Size
    """Of the image as decoded (after EXIF rotation)."""
    boxes: np.ndarray
    """[N, 4] float32, xyxy pixels."""
    labels: np.ndarray
    """[N] int64."""
    difficult: np.ndarray
    """[N] bool: VOC's flag; for COCO a key of its own, mostly absent."""
    crowd: np.ndarray
    """[N] bool: COCO's iscrowd; always False for VOC."""
    areas: np.ndarray
    """[N] float32, square pixels: COCO's `area` where given, else width * height."""


@dataclass(slots=True)
class Sample:
    """One image with its truth, in numpy, on its way from the dataset through the augmentation to collate."""

    image: np.ndarray
    """[H, W, 3] uint8, RGB."""
    boxes: np.ndarray
    """[N, 4] float32, xyxy pixels of `image`."""
    labels: np.ndarray
    """[N] int64."""
    difficult: np.ndarray
    """[N] bool."""
    weights: np.ndarray
    """[N] float32 in (0, 1]: a box's share in a mixed image; 1 otherwise."""
    index: int
    """Position in the dataset."""
    image_id: int | str
    path: str
    original_size: Size
    """Of the image before any transform."""
    scale: tuple[float, float] = (1.0, 1.0)
    """(y, x): pixels of `image` per original pixel. Meaningful after test transforms only."""
    mask: np.ndarray | None = None
    """[H, W] uint8, segmentation: the class of each pixel, 0..K-1, IGNORED_PIXEL where none counts. In training of
    `image`; test transforms leave it as it was, of the original size. None: the data have boxes only."""
    label: int | None = None
    """Classification: the class of the image, 0..K-1; such data have no boxes. None elsewhere."""
    dropped: dict[str, int] = field(default_factory=dict)
    """How many boxes each geometric step removed, by the step's name."""


@dataclass(slots=True)
class Target:
    """The truth of one image of a batch."""

    boxes: Tensor
    """[N, 4] float32, xyxy pixels of the batch's image."""
    labels: Tensor
    """[N] int64."""
    difficult: Tensor
    """[N] bool."""
    weights: Tensor
    """[N] float32."""
    size: Size
    """The part of the batch's image that is not padding, from its top-left corner."""
    index: int
    image_id: int | str
    path: str
    original_size: Size
    scale: tuple[float, float]
    """(y, x): pixels of the batch's image per original pixel."""
    seed: int = 0
    """The request's seed: region samplers draw from it, so the draw does not depend on the batch around the image."""
    mask: Tensor | None = None
    """[h, w] uint8 as in `Sample`: of `size` in training, of `original_size` in test; None in detection."""
    classes: Tensor | None = None
    """[S] int64, classification: the classes of the image, 0..K-1; one, or several where images were mixed (the same
    class may come twice). None elsewhere."""
    shares: Tensor | None = None
    """[S] float32 in [0, 1], summing to 1: how much of the image is of each of `classes`."""

    def to(self, device: torch.device | str) -> Target:
        """A copy whose tensors are on `device`."""
        return Target(
            boxes=self.boxes.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            difficult=self.difficult.to(device, non_blocking=True),
            weights=self.weights.to(device, non_blocking=True),
            size=self.size,
            index=self.index,
            image_id=self.image_id,
            path=self.path,
            original_size=self.original_size,
            scale=self.scale,
            seed=self.seed,
            mask=None if self.mask is None else self.mask.to(device, non_blocking=True),
            classes=None if self.classes is None else self.classes.to(device, non_blocking=True),
            shares=None if self.shares is None else self.shares.to(device, non_blocking=True),
        )


@dataclass(slots=True)
class Batch:
    """What the loader hands to the engine."""

    images: Tensor
    """[B, 3, H, W] uint8, RGB; padded at the right and bottom."""
    targets: list[Target]
    dropped: dict[str, int] = field(default_factory=dict)
    """Boxes removed by augmentation, by the step's name, summed over the batch."""
    skipped: list[str] = field(default_factory=list)
    """Files that could not be read and were skipped because the config says so."""

    def pin_memory(self) -> Batch:
        """The batch with its images in page-locked memory: torch's loader calls this where it is asked to pin."""
        self.images = self.images.pin_memory()
        return self

    def to(self, device: torch.device | str) -> Batch:
        """A copy whose tensors are on `device`."""
        return Batch(
            self.images.to(device, non_blocking=True),
            [target.to(device) for target in self.targets],
            self.dropped,
            self.skipped,
        )


@dataclass(slots=True)
class Prediction:
    """The detections of one image, best first."""

    boxes: Tensor
    """[N, 4] float32, xyxy pixels of the ORIGINAL image, clipped to it."""
    scores: Tensor
    """[N] float32 in [0, 1]."""
    labels: Tensor
    """[N] int64."""


@dataclass(slots=True)
class LabelMap:
    """The segmentation of one image."""

    labels: Tensor
    """[H, W] uint8 of the ORIGINAL image: 0..K-1; every pixel has a class."""


@dataclass(slots=True)
class ClassScores:
    """The classification of one image."""

    scores: Tensor
    """[K] float32: probabilities."""


@dataclass(slots=True)
class ImageRecord:
    """What a classification dataset knows of one image without opening it."""

    path: str
    image_id: int | str
    """The path below the data set's root, or what a list calls it."""
    label: int
    """0..K-1."""


@dataclass(slots=True)
class MaskRecord:
    """What a segmentation dataset knows of one image without decoding it."""

    path: str
    image_id: int | str
    """COCO's integer id, or the file's stem."""
    size: Size
    """Of the image as decoded (after EXIF rotation)."""
    mask_path: str | None
    """The mask's file; None where the mask is drawn from polygons."""


@runtime_checkable
class SegmentationDataset(Protocol):
    """A set of images with a class for each pixel."""

    class_names: tuple[str, ...]
    """K of them, at most 255: a mask is uint8, and 255 is the ignored pixel."""

    def __len__(self) -> int: ...

    def record(self, index: int) -> MaskRecord:
        """Path and size without decoding pixels."""
        ...

    def mask(self, index: int) -> np.ndarray:
        """[H, W] uint8, of the image's size: 0..K-1 or IGNORED_PIXEL."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Decoded image with its `mask`, and no boxes."""
        ...


@runtime_checkable
class DetectionDataset(Protocol):
    """A set of images with boxes."""

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def record(self, index: int) -> Record:
        """Truth and size without decoding pixels."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Decoded image with its truth."""
        ...

    def category_ids(self) -> Sequence[int]:
        """The id that label k is written as in COCO-format files; k + 1 unless the data came with ids."""
        ...


@runtime_checkable
class ClassificationDataset(Protocol):
    """A set of images, each of one class."""

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def record(self, index: int) -> ImageRecord:
        """Path and class without opening the file."""
        ...

    def labels(self) -> np.ndarray:
        """[N] int64: the class of every image, without opening a file."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Decoded image with its `label`, without boxes."""
        ...


AnyDataset = DetectionDataset | SegmentationDataset | ClassificationDataset


def task_of(dataset: object) -> str:
    """Which task a data set's truth is for: "segmentation", "classification" or "detection"."""
    if isinstance(dataset, SegmentationDataset):
        return "segmentation"
    return "classification" if isinstance(dataset, ClassificationDataset) else "detection"
